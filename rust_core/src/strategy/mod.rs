//! Strategy templates: signal, position and book become wishes.
//!
//! Why: an alpha says how far the price will move; a template says what to do about it.
//!
//! Invariants:
//! 1. A signal that is NaN opens nothing; a maker takes its quotes back.
//! 2. Each side has at most one order; a new price is placed after the old order is gone.
//! 3. A maker's price is on the tick grid, does not reach the opposite best, and lies within the
//!    levels shown when all five are in use.
//! 4. An order that leaves a position is never larger than what is left of it, and never crosses
//!    to the other side.
//! 5. With every open order filled the position stays within the template's limit.
//! 6. A mirrored market (prices, signal and position negated) gives mirrored wishes.
//!
//! It checks no limit but its own position; `risk` does. Operator's page: `docs/strategies.md`.

mod maker;
mod memory;
mod queue;
pub mod quoting;
mod taker;
mod target;
mod template;
mod wanted;

pub use memory::Memory;
pub use taker::round_trip_ticks;
pub use template::{
    AvellanedaStoikovMaker, CostTaker, GlftMaker, Horizon, QueueMaker, SigmaSource, Target,
    Template,
};
pub use wanted::{Wanted, wanted};

use crate::book::Book;
use crate::costs::CostModel;
use crate::gateway::{Order, OrderState};
use crate::record::IntentReason;
use crate::ticks::TickLadder;

/// Rest of day.
pub const REST_OF_DAY: u32 = 1;
/// Fill or kill.
pub const FILL_OR_KILL: u32 = 3;
/// Immediate or cancel.
pub const IMMEDIATE_OR_CANCEL: u32 = 2;
/// Open orders an alpha may have; a template needs four.
pub const OWN_ORDER_COUNT_MAX: usize = 8;
/// Wishes of one decision: every own order canceled and both sides quoted.
pub const WISH_COUNT_MAX: usize = OWN_ORDER_COUNT_MAX + 2;
/// An exit waits this long for answers about open orders; measured answers take 1.2 s at most.
pub const EXIT_WAIT_NS_MAX: i64 = 2_000_000_000;

/// What the alpha may do now, mildest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// Everything.
    Normal,
    /// Leave the position by the template's own rules, open nothing.
    ReduceOnly,
    /// Take orders back and keep the position.
    Hold,
    /// Take orders back and close the position.
    Flatten,
}

/// What a template looks at.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Engine time.
    pub now_ns: i64,
    /// The instrument's book.
    pub book: &'a Book,
    /// False when no order may be based on the book.
    pub is_tradable: bool,
    /// Ticks of expected move, or NaN.
    pub signal: f64,
    /// Measured volatility, ticks per square root of a second, or NaN.
    pub volatility: f64,
    /// Signed position.
    pub position_qty: i64,
    /// When the position was entered.
    pub entry_ns: i64,
    /// One clip at the current weight.
    pub clip_qty: i64,
    /// Largest position at the current weight.
    pub position_qty_max: i64,
    /// Largest order.
    pub order_qty_max: i64,
    /// Tick that signals and distances are counted in.
    pub tick_size: i64,
    /// The prices that orders may have.
    pub ticks: &'a TickLadder,
    /// Lot size.
    pub lot_size: i64,
    /// Money per 1.0 of price and 1.0 of quantity.
    pub multiplier: i64,
    /// What a trade costs.
    pub costs: &'a CostModel,
    /// End of the session's last window in which opening is allowed.
    pub trading_end_ns: i64,
    /// Highest allowed price.
    pub limit_up: Option<i64>,
    /// Lowest allowed price.
    pub limit_down: Option<i64>,
    /// What is allowed.
    pub mode: Mode,
    /// Reason to give when `mode` takes orders back.
    pub cancel_reason: IntentReason,
}

/// One thing a template wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// A new order.
    Place {
        /// +1 buy, -1 sell.
        side: i64,
        /// Limit price.
        price: i64,
        /// Quantity; 0 when the weight leaves less than one lot, for `risk` to say so.
        qty: i64,
        /// [`REST_OF_DAY`] or [`IMMEDIATE_OR_CANCEL`].
        time_in_force: u32,
        /// Why.
        reason: IntentReason,
    },
    /// Take an order back.
    Cancel {
        /// Which.
        order_id: u64,
        /// Why.
        reason: IntentReason,
    },
}

/// Appends what the template wants now, given its open orders: at most [`WISH_COUNT_MAX`].
pub fn wish(
    template: &Template,
    view: &View<'_>,
    orders: &[Order],
    memory: &mut Memory,
    out: &mut Vec<Wish>,
) {
    memory.start_over_waiting();
    if view.mode >= Mode::Hold {
        cancel_all(view, orders, out);
        if view.mode == Mode::Flatten && view.position_qty != 0 && may_exit(view, orders, memory) {
            let slippage_ticks = template.slippage_ticks();
            close_position(view, orders, slippage_ticks, IntentReason::Flatten, out);
        }
        // A taker that may not enter still says what it would have done; `risk` answers why not.
        if view.position_qty != 0 {
            return;
        }
    }
    if view.mode == Mode::ReduceOnly && template.is_outside() {
        cancel_opening(view, orders, out);
    }
    let is_acting = view.mode < Mode::Hold;
    match template {
        Template::Taker {
            entry_ticks,
            exit_ticks,
            hold_ns,
            slippage_ticks,
        } => {
            let rule = taker::Rule {
                entry_ticks: *entry_ticks,
                exit_ticks: *exit_ticks,
                hold_ns: *hold_ns,
                slippage_ticks: *slippage_ticks,
                cost_margin_ticks: None,
            };
            taker::taker(view, orders, &rule, memory, out);
        }
        Template::CostTaker(rule) => {
            taker::taker(view, orders, &taker::Rule::of(rule), memory, out);
        }
        Template::Target(rule) if is_acting => target::target(view, orders, rule, memory, out),
        // The intents of one outside the engine come as records.
        Template::Target(_) | Template::External { .. } | Template::Remote { .. } => {}
        Template::Maker { .. }
        | Template::QueueMaker(_)
        | Template::AvellanedaStoikovMaker(_)
        | Template::GlftMaker(_) => {
            if is_acting {
                maker::maker(view, orders, template, memory, out);
            }
        }
    }
}

/// Volatility per square root of a second from the feature `volatility_10s`, which is the root of a
/// sum of squared moves that fades with 10 s and so holds 10 s of variance.
#[must_use]
pub fn per_root_second(volatility_10s: f64) -> f64 {
    const PER_ROOT_10: f64 = 0.316_227_766_016_837_94;
    volatility_10s * PER_ROOT_10
}

/// Takes back what could open or add to a position; a strategy outside does not know the mode.
fn cancel_opening(view: &View<'_>, orders: &[Order], out: &mut Vec<Wish>) {
    let leaves = -view.position_qty.signum();
    let opening = orders
        .iter()
        .filter(|order| is_cancelable(order) && order.side != leaves);
    out.extend(opening.map(|order| Wish::Cancel {
        order_id: order.order_id,
        reason: view.cancel_reason,
    }));
}

fn cancel_all(view: &View<'_>, orders: &[Order], out: &mut Vec<Wish>) {
    for order in orders.iter().filter(|order| is_cancelable(order)) {
        out.push(Wish::Cancel {
            order_id: order.order_id,
            reason: view.cancel_reason,
        });
    }
}

fn is_cancelable(order: &Order) -> bool {
    order.state == OrderState::Working && order.time_in_force == REST_OF_DAY
}

#[allow(
    clippy::cast_precision_loss,
    reason = "prices in ticks, clips and durations are small; money is not computed here"
)]
fn float(value: i64) -> f64 {
    value as f64
}

/// Whole lots of `qty`; less than a lot stays as it is, for `risk` to say that it cannot be sent.
fn whole_lots(view: &View<'_>, qty: i64) -> i64 {
    let lots = qty - qty % view.lot_size;
    if lots > 0 { lots } else { qty }
}

/// Quantity that still has to go, less what open orders on that side may already take.
fn left_to_close(view: &View<'_>, orders: &[Order]) -> i64 {
    let side = -view.position_qty.signum();
    let on_the_way: i64 = orders
        .iter()
        .filter(|order| order.side == side)
        .map(Order::remaining_qty)
        .sum();
    let left = (view.position_qty.abs() - on_the_way).clamp(0, view.order_qty_max);
    whole_lots(view, left)
}

/// True when nothing holds an exit up: open orders are waited for, but not for ever.
///
/// An order whose outcome is unknown holds nothing up. What could be filled on the leaving side
/// is taken off the exit by [`left_to_close`], so an answer that comes late closes nothing twice.
fn may_exit(view: &View<'_>, orders: &[Order], memory: &mut Memory) -> bool {
    let is_answer_due = orders
        .iter()
        .any(|order| order.state != OrderState::Unknown);
    !is_answer_due || memory.waited_ns(view.now_ns) >= EXIT_WAIT_NS_MAX
}

/// Best opposite price moved by `slippage_ticks` and kept within the daily limits.
fn crossing_price(view: &View<'_>, side: i64, slippage_ticks: i64) -> Option<i64> {
    let best = if side > 0 {
        view.book.best_ask()
    } else {
        view.book.best_bid()
    };
    if best <= 0 {
        return None;
    }
    let moved = best.checked_add(
        slippage_ticks
            .checked_mul(view.tick_size)?
            .checked_mul(side)?,
    )?;
    let within = if side > 0 {
        view.limit_up.map_or(moved, |limit| moved.min(limit))
    } else {
        view.limit_down.map_or(moved, |limit| moved.max(limit))
    };
    let within = within.max(view.tick_size);
    // With one step everywhere whole steps keep the best price on its grid. And a book off the ladder
    // is another instrument's, or wrong: the check says so.
    if view.ticks.is_flat() || !view.ticks.is_on_grid(best) {
        return Some(within);
    }
    // Inward, so that neither the daily limit nor the wanted price is passed.
    view.ticks.passive(within, side)
}

fn close_position(
    view: &View<'_>,
    orders: &[Order],
    slippage_ticks: i64,
    reason: IntentReason,
    out: &mut Vec<Wish>,
) {
    let side = -view.position_qty.signum();
    let qty = left_to_close(view, orders);
    if let Some(price) = crossing_price(view, side, slippage_ticks).filter(|_| qty > 0) {
        out.push(Wish::Place {
            side,
            price,
            qty,
            time_in_force: IMMEDIATE_OR_CANCEL,
            reason,
        });
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
