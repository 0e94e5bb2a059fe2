//! Exits: orders that can only reduce a position are fitted, and our own orders make way for them.
//!
//! Why: an exit that a price check, another alpha's quote or silence can shut in is a position that
//! cannot be left.
//!
//! Invariants:
//! 1. Fitting moves a price only toward what the exchange and the exit collar take, and a quantity
//!    only down to whole lots and the exchange's cap.
//! 2. An own resting order in the way is canceled before the exit goes out; one that nobody answers
//!    holds it up for at most `EXIT_WAIT_NS_MAX`.
//!
//! It checks nothing (see `risk`) and places nothing (see `steps`). Operator's page: `docs/risk.md`.

use super::Engine;
use super::steps::OrderIntent;
use crate::gateway::{OPEN_COUNT_MAX, Order, OrderState, WaitingExit};
use crate::record::{DecisionRecord, IntentReason, RecordHeader};
use crate::strategy::{EXIT_WAIT_NS_MAX, REST_OF_DAY};
use crate::ticks::TickLadder;

impl Engine {
    /// True when the order cannot do anything but reduce the alpha's position.
    #[inline]
    pub(super) fn is_reducing(&self, intent: &OrderIntent) -> bool {
        let position_qty = self.alphas[intent.alpha_index].position.qty;
        let open = self.gateway.exposure(intent.alpha_index);
        let is_against = position_qty.signum() == -intent.side;
        let closing = i128::from(intent.qty) + i128::from(open.on_side(intent.side));
        intent.qty > 0 && is_against && closing <= i128::from(position_qty).abs()
    }

    /// Fits an exit into what the exchange takes, so that no price or size check can refuse it.
    ///
    /// The price moves toward the other side's best only as far as daily limit, dynamic band and
    /// exit collar allow; the quantity is cut to whole lots and to the exchange's cap.
    pub(super) fn shape_exit(&self, intent: &OrderIntent) -> OrderIntent {
        let market = &self.markets[intent.market_index];
        let instrument = &market.instrument;
        let cap = instrument.order_qty_max.unwrap_or(i64::MAX);
        let qty = intent.qty.min(cap);
        let bound = |base: Option<i64>, width_bps: Option<i64>| {
            let (base, width_bps) = (base?, width_bps?);
            edge(base, width_bps, intent.side, &market.ticks)
        };
        let best = Some(market.opposite_best(intent.side)).filter(|price| *price > 0);
        let collar = bound(best, Some(self.config.account_limits.exit_collar_bps));
        let band = bound(market.band_base(), instrument.banding_bps);
        let (low, high) = (instrument.limit_down, instrument.limit_up);
        let worst = if intent.side > 0 { high } else { low };
        let mut price = intent.price;
        for bound in [collar, band, worst].into_iter().flatten() {
            if (price - bound) * intent.side > 0 {
                price = bound;
            }
        }
        OrderIntent {
            price,
            qty: qty - qty % instrument.lot_size,
            ..*intent
        }
    }

    /// Cancels our own resting orders that an exit would trade with; the price of the first one
    /// that is still there, for which the exit waits.
    ///
    /// An order whose outcome is unknown is not waited for: it may never be answered, and a position
    /// that cannot be left is worse than a trade with ourselves. One that does not rest neither.
    pub(super) fn clear_way(
        &mut self,
        intent: &OrderIntent,
        cause: &RecordHeader,
        out: &mut Vec<DecisionRecord>,
    ) -> Option<(i64, bool)> {
        if self
            .account
            .open_count_on(intent.market_index, -intent.side)
            == 0
        {
            return None;
        }
        let mut in_way = [(0_u64, 0_usize); OPEN_COUNT_MAX];
        let mut count = 0;
        let mut first = None;
        for order in self.gateway.open_orders().filter(|order| {
            order.state != OrderState::Unknown
                && order.time_in_force == REST_OF_DAY
                && reaches(intent, order)
        }) {
            in_way[count] = (order.order_id, order.alpha_index as usize);
            count += 1;
            first = first.or(Some(order.price));
        }
        for (order_id, owner) in &in_way[..count] {
            self.take_cancel(*owner, *order_id, IntentReason::ClearExit, cause, out);
        }
        if first.is_some() {
            let exit = WaitingExit {
                alpha_index: intent.alpha_index,
                side: intent.side,
                price: intent.price,
            };
            self.account.wait_exit(intent.market_index, exit);
        }
        let is_own = in_way[..count]
            .iter()
            .all(|(_, owner)| *owner == intent.alpha_index);
        first.map(|price| (price, is_own))
    }

    /// What an exit still waits for: an order in its way that nobody answers holds it up for at most
    /// [`EXIT_WAIT_NS_MAX`]. A position that cannot be left is worse than a trade with ourselves.
    pub(super) fn still_waits(
        &mut self,
        alpha_index: usize,
        blocked_by: Option<(i64, bool)>,
        cause: &RecordHeader,
    ) -> Option<i64> {
        let now_ns = cause.sequence_time_ns;
        let alpha = &mut self.alphas[alpha_index];
        let Some((price, is_own)) = blocked_by else {
            alpha.exit_waits_ns = None;
            return None;
        };
        // A wait that nobody asked about for so long was another exit's.
        let asked = alpha
            .exit_waits_ns
            .filter(|(_, asked_ns)| now_ns.saturating_sub(*asked_ns) < EXIT_WAIT_NS_MAX);
        // The template has waited for its own orders already.
        let own_ns = alpha.memory.waiting_since_ns().filter(|_| is_own);
        let since_ns = asked.map_or(now_ns, |(since_ns, _)| since_ns);
        let since_ns = own_ns.map_or(since_ns, |own_ns| own_ns.min(since_ns));
        alpha.exit_waits_ns = Some((since_ns, now_ns));
        (now_ns.saturating_sub(since_ns) < EXIT_WAIT_NS_MAX).then_some(price)
    }
}

/// True when `intent` would trade with this order of ours if it rested.
pub(super) fn reaches(intent: &OrderIntent, order: &Order) -> bool {
    order.market_index == intent.market_index
        && order.side == -intent.side
        && (intent.price - order.price) * intent.side >= 0
}

/// The last price on the tick grid within `width_bps` beyond `base`, in the direction of `side`.
fn edge(base: i64, width_bps: i64, side: i64, ticks: &TickLadder) -> Option<i64> {
    // The same as base * width_bps / 10,000, in 64 bits.
    let width = (base / 10_000)
        .checked_mul(width_bps)?
        .checked_add(base % 10_000 * width_bps / 10_000)?;
    let limit = base.checked_add(width.checked_mul(side)?)?;
    ticks.passive(limit, side)
}
