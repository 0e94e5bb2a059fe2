//! Taker: crosses the spread on a strong signal, leaves on a weak one or after a time.
//!
//! With cost awareness it enters only where the signal pays for a round trip: the mid has to move
//! by the spread (half of it on the way in, half on the way out), by fees and tax of both trades,
//! and by a margin, before anything is earned.

use super::{
    CostTaker, IMMEDIATE_OR_CANCEL, Memory, View, Wish, close_position, crossing_price, float,
    may_exit,
};
use crate::costs::notional;
use crate::gateway::Order;
use crate::record::IntentReason;

/// Numbers of a taker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    pub(super) entry_ticks: f64,
    pub(super) exit_ticks: f64,
    pub(super) hold_ns: i64,
    pub(super) slippage_ticks: i64,
    /// `None` enters whatever a round trip costs.
    pub(super) cost_margin_ticks: Option<f64>,
}

impl Rule {
    pub(super) fn of(rule: &CostTaker) -> Self {
        Self {
            entry_ticks: rule.entry_ticks,
            exit_ticks: rule.exit_ticks,
            hold_ns: rule.hold_ns,
            slippage_ticks: rule.slippage_ticks,
            cost_margin_ticks: Some(rule.cost_margin_ticks),
        }
    }
}

pub(super) fn taker(
    view: &View<'_>,
    orders: &[Order],
    rule: &Rule,
    memory: &mut Memory,
    out: &mut Vec<Wish>,
) {
    if view.position_qty == 0 {
        if orders.is_empty() && is_worth_entering(view, rule) {
            enter(view, rule, out);
        }
        return;
    }
    let is_over = view.now_ns.saturating_sub(view.entry_ns) >= rule.hold_ns;
    let toward = if view.position_qty > 0 {
        view.signal
    } else {
        -view.signal
    };
    // A NaN signal is no reason to leave: the holding time is.
    if (is_over || toward <= rule.exit_ticks) && may_exit(view, orders, memory) {
        close_position(view, orders, rule.slippage_ticks, IntentReason::Exit, out);
    }
}

/// A NaN signal compares as false with everything.
fn is_worth_entering(view: &View<'_>, rule: &Rule) -> bool {
    let is_strong = view.signal.abs() >= rule.entry_ticks;
    if !is_strong {
        return false;
    }
    let Some(margin_ticks) = rule.cost_margin_ticks else {
        return true;
    };
    let side = if view.signal > 0.0 { 1 } else { -1 };
    round_trip_ticks(view, side).is_some_and(|cost| view.signal.abs() >= cost + margin_ticks)
}

fn enter(view: &View<'_>, rule: &Rule, out: &mut Vec<Wish>) {
    let side = if view.signal > 0.0 { 1 } else { -1 };
    if let Some(price) = crossing_price(view, side, rule.slippage_ticks) {
        out.push(Wish::Place {
            side,
            price,
            qty: view.clip_qty,
            time_in_force: IMMEDIATE_OR_CANCEL,
            reason: IntentReason::Entry,
        });
    }
}

/// Ticks that the mid must move before a clip bought and sold (`side` +1), or sold and bought, at
/// the best prices shown earns nothing: spread, fees and tax. `None` when that cannot be computed.
#[must_use]
pub fn round_trip_ticks(view: &View<'_>, side: i64) -> Option<f64> {
    let (bid, ask) = (view.book.best_bid(), view.book.best_ask());
    if bid <= 0 || ask <= bid {
        return None;
    }
    let (inward, outward) = if side > 0 { (ask, bid) } else { (bid, ask) };
    let qty = view.clip_qty.max(view.lot_size);
    let cost = |price, side| {
        view.costs
            .trade_cost(price, qty, view.multiplier, side, false)
    };
    let money = i128::from(cost(inward, side)?) + i128::from(cost(outward, -side)?);
    let per_tick = notional(view.tick_size, qty, view.multiplier).filter(|money| *money > 0)?;
    #[allow(
        clippy::cast_precision_loss,
        reason = "a ratio of two sums of money, compared with a signal; nothing is booked with it"
    )]
    let fee_ticks = money as f64 / per_tick as f64;
    Some(float(ask - bid) / float(view.tick_size) + fee_ticks)
}
