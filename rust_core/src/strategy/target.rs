//! Target: the signal asks for a position, and the difference is traded.
//!
//!   clips = signal / ticks_per_clip, at most clips_max on either side, none within the dead band
//!
//! in whole lots, rounded towards zero, never beyond the position limit. A difference smaller than
//! `trade_clips_min` is left alone, except that a position nobody asks for is left wholly. The
//! template first rests at the own best price and follows it; after `patience_ns` without a fill it
//! crosses. It has one order at a time, and a trade that would turn the position around is two.

use super::maker::is_shown;
use super::memory::Trade;
use super::{
    IMMEDIATE_OR_CANCEL, Memory, Mode, REST_OF_DAY, Target, View, Wish, crossing_price, float,
    is_cancelable, left_to_close, may_exit, whole_lots,
};
use crate::gateway::Order;
use crate::record::IntentReason;

/// A change of position that is wanted now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Change {
    side: i64,
    qty: i64,
    is_leaving: bool,
}

pub(super) fn target(
    view: &View<'_>,
    orders: &[Order],
    rule: &Target,
    memory: &mut Memory,
    out: &mut Vec<Wish>,
) {
    let wanted = wanted_position_qty(view, rule).filter(|_| view.is_tradable);
    let change = wanted.and_then(|qty| change_to(view, rule, qty));
    memory.trade = change.map(|change| began(view, memory.trade, change.side));
    let is_patient = memory
        .trade
        .is_some_and(|trade| view.now_ns.saturating_sub(trade.since_ns) < rule.patience_ns);
    let mut is_resting = false;
    for order in orders.iter().filter(|order| is_cancelable(order)) {
        if change.is_some_and(|change| is_patient && is_still_good(view, rule, order, change)) {
            is_resting = true;
            continue;
        }
        let reason = if view.mode == Mode::Normal {
            IntentReason::Requote
        } else {
            view.cancel_reason
        };
        out.push(Wish::Cancel {
            order_id: order.order_id,
            reason,
        });
    }
    let Some(change) = change.filter(|_| !is_resting) else {
        return;
    };
    if change.is_leaving {
        let qty = change.qty.min(left_to_close(view, orders));
        if qty > 0 && may_exit(view, orders, memory) {
            place(view, rule, Change { qty, ..change }, is_patient, out);
        }
    } else if orders.is_empty() {
        place(view, rule, change, is_patient, out);
    }
}

/// Signed position that the signal asks for; `None` when it asks for nothing.
pub(super) fn wanted_position_qty(view: &View<'_>, rule: &Target) -> Option<i64> {
    let is_leaving = view.mode != Mode::Normal;
    if !view.signal.is_finite() {
        // Who may only leave does not wait for a signal to do so.
        return is_leaving.then_some(0);
    }
    let is_asking = view.signal.abs() >= rule.dead_band_ticks;
    let clips = if is_asking {
        (view.signal / rule.ticks_per_clip).clamp(-rule.clips_max, rule.clips_max)
    } else {
        0.0
    };
    let lots_max = float(view.position_qty_max / view.lot_size);
    let lots = clips * float(view.clip_qty / view.lot_size);
    #[allow(
        clippy::cast_possible_truncation,
        reason = "bounded by the position limit in lots"
    )]
    let qty = lots.clamp(-lots_max, lots_max).trunc() as i64 * view.lot_size;
    Some(if is_leaving {
        qty.clamp(view.position_qty.min(0), view.position_qty.max(0))
    } else {
        qty
    })
}

/// The next trade towards `wanted_qty`, if it is large enough.
fn change_to(view: &View<'_>, rule: &Target, wanted_qty: i64) -> Option<Change> {
    let held = view.position_qty;
    let is_turning = held.signum() * wanted_qty.signum() < 0;
    let aim = if is_turning { 0 } else { wanted_qty };
    let missing = aim - held;
    let is_leaving = missing.signum() == -held.signum() && missing != 0;
    let is_small = float(missing.abs()) < rule.trade_clips_min * float(view.clip_qty);
    if missing == 0 || (is_small && aim != 0) {
        return None;
    }
    let qty = missing.abs().min(view.order_qty_max);
    let is_sendable = qty >= view.lot_size || aim == 0;
    is_sendable.then_some(Change {
        side: missing.signum(),
        qty: whole_lots(view, qty),
        is_leaving,
    })
}

/// The running trade, or a new one when side or position changed.
fn began(view: &View<'_>, before: Option<Trade>, side: i64) -> Trade {
    let is_same = |trade: &Trade| trade.side == side && trade.position_qty == view.position_qty;
    before.filter(is_same).unwrap_or(Trade {
        side,
        position_qty: view.position_qty,
        since_ns: view.now_ns,
    })
}

fn own_best(view: &View<'_>, side: i64) -> i64 {
    if side > 0 {
        view.book.best_bid()
    } else {
        view.book.best_ask()
    }
}

/// True when a resting order may stay where it is.
fn is_still_good(view: &View<'_>, rule: &Target, order: &Order, change: Change) -> bool {
    let away = float(own_best(view, change.side) - order.price).abs();
    order.side == change.side
        && order.remaining_qty() <= change.qty
        && is_shown(view.book, order.side, order.price)
        && away < rule.requote_ticks * float(view.tick_size)
}

fn place(view: &View<'_>, rule: &Target, change: Change, is_patient: bool, out: &mut Vec<Wish>) {
    let (price, time_in_force) = if is_patient {
        (Some(own_best(view, change.side)), REST_OF_DAY)
    } else {
        (
            crossing_price(view, change.side, rule.slippage_ticks),
            IMMEDIATE_OR_CANCEL,
        )
    };
    let reason = if change.is_leaving {
        IntentReason::Exit
    } else {
        IntentReason::Entry
    };
    if let Some(price) = price.filter(|price| *price > 0) {
        out.push(Wish::Place {
            side: change.side,
            price,
            qty: change.qty,
            time_in_force,
            reason,
        });
    }
}
