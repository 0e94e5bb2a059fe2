//! Pre-trade checks: one table in order of precedence, one pure function a row.
//!
//! Why: an order leaves only when every check says nothing, and the first that speaks is named.
//!
//! Invariants:
//! 1. A check sees only [`Facts`] and changes nothing.
//! 2. A missing fact refuses; a computation out of range refuses with its own code.
//! 3. With all open orders filled in any order, an approved opening order keeps the position
//!    within its limit.
//! 4. An order that only reduces a position passes the checks marked `is_for_opening`.
//!
//! Cancels are no orders and do not come here. Operator's page: `docs/reason-codes.md`, 2xx.

use crate::engine::Phase;
use crate::gateway::Money;
use crate::reason::ReasonCode;

/// Window of the order rates.
pub const RATE_WINDOW_NS: i64 = 10_000_000_000;
/// Window in which equal orders are counted.
pub const REPEAT_WINDOW_NS: i64 = 1_000_000_000;
/// Window of the reject breaker.
pub const REJECT_WINDOW_NS: i64 = 60_000_000_000;
/// Broker rejects and unknown outcomes that the breaker allows within its window.
pub const REJECT_COUNT_MAX: u32 = 5;
/// Entries a window can hold; rates are limited to it.
pub const WINDOW_COUNT_MAX: usize = 1_024;
/// Parts of a whole in basis points.
const BPS: i128 = 10_000;

/// Everything a check may look at.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// +1 buy, -1 sell.
    pub side: i64,
    /// Limit price.
    pub price: i64,
    /// Quantity.
    pub qty: i64,
    /// True when it cannot do anything but reduce the position.
    pub is_reducing: bool,
    /// Value of the alpha.
    pub signal: f64,
    /// Why trading is halted.
    pub halted_by: Option<ReasonCode>,
    /// Why the storm guard lets nothing open.
    pub storm_fault: Option<ReasonCode>,
    /// Why the permit does not hold.
    pub permit_fault: Option<ReasonCode>,
    /// Only reducing orders are wanted.
    pub is_reduce_only: bool,
    /// Current phase, `None` when closed.
    pub phase: Option<Phase>,
    /// This intent was decided before.
    pub is_duplicate: bool,
    /// The instrument's reference data hold together.
    pub has_reference: bool,
    /// Why the book cannot be used.
    pub book_fault: Option<ReasonCode>,
    /// Age of the book, ns.
    pub quote_age_ns: i64,
    /// Largest allowed age.
    pub quote_age_ns_max: i64,
    /// Middle of the book.
    pub mid: Option<i64>,
    /// Tick size.
    pub tick_size: i64,
    /// Highest allowed price, if the venue has one.
    pub limit_up: Option<i64>,
    /// Lowest allowed price, if the venue has one.
    pub limit_down: Option<i64>,
    /// Largest distance from the mid.
    pub price_collar_bps: i64,
    /// Largest order.
    pub order_qty_max: i64,
    /// Smallest order.
    pub lot_size: i64,
    /// Signed position of the alpha.
    pub position_qty: i64,
    /// Open buy quantity, unknown orders included.
    pub open_buy_qty: i64,
    /// Open sell quantity, unknown orders included.
    pub open_sell_qty: i64,
    /// Largest position at the current weight.
    pub position_qty_max: i64,
    /// Gross value of all positions and open orders with this one; `Err` names what is missing.
    pub gross_notional: Result<Money, ReasonCode>,
    /// Largest gross value.
    pub gross_notional_max: i64,
    /// New orders of the alpha in the window.
    pub alpha_order_count: u32,
    /// Their limit.
    pub alpha_order_rate_max: u32,
    /// Requests of the account in the window.
    pub account_order_count: u32,
    /// Their limit.
    pub account_order_rate_max: u32,
    /// Part of it kept for cancels and reducing orders.
    pub cancel_reserve: u32,
    /// Equal orders in the window.
    pub repeated_order_count: u32,
    /// Their limit.
    pub repeated_order_max: u32,
    /// Price of our own open order on the other side that this one would reach first.
    pub own_opposite_price: Option<i64>,
    /// Net result of the alpha's session.
    pub net_pnl: Money,
    /// Why the alpha's result stopped it, once it did.
    pub loss_latch: Option<ReasonCode>,
    /// Largest loss.
    pub daily_loss_max: i64,
    /// Fall from the best result.
    pub drawdown: Money,
    /// Largest fall.
    pub drawdown_max: i64,
    /// Broker rejects and unknown outcomes in the window.
    pub reject_count: u32,
    /// Room for one more open order.
    pub has_capacity: bool,
}

/// What a refusing check saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub code: ReasonCode,
    /// The value.
    pub observed: i64,
    /// What it was held against.
    pub limit: i64,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// Name in docs and `explain`.
    pub name: &'static str,
    /// Skipped for an order that only reduces a position.
    pub is_for_opening: bool,
    /// `None` when there is nothing against the order.
    pub evaluate: fn(&Facts) -> Option<Refusal>,
}

/// All checks; the first that refuses is reported.
pub const CHECKS: &[Check] = &[
    Check {
        name: "kill_switch",
        is_for_opening: true,
        evaluate: kill_switch,
    },
    Check {
        name: "storm_guard",
        is_for_opening: true,
        evaluate: storm_guard,
    },
    Check {
        name: "permit",
        is_for_opening: true,
        evaluate: permit,
    },
    Check {
        name: "reduce_only",
        is_for_opening: true,
        evaluate: reduce_only,
    },
    Check {
        name: "session_phase",
        is_for_opening: false,
        evaluate: session_phase,
    },
    Check {
        name: "duplicate_intent",
        is_for_opening: false,
        evaluate: duplicate_intent,
    },
    Check {
        name: "signal",
        is_for_opening: true,
        evaluate: signal,
    },
    Check {
        name: "reference",
        is_for_opening: false,
        evaluate: reference,
    },
    Check {
        name: "book",
        is_for_opening: false,
        evaluate: book,
    },
    Check {
        name: "tick_grid",
        is_for_opening: false,
        evaluate: tick_grid,
    },
    Check {
        name: "daily_limit",
        is_for_opening: false,
        evaluate: daily_limit,
    },
    Check {
        name: "price_collar",
        is_for_opening: false,
        evaluate: price_collar,
    },
    Check {
        name: "order_qty",
        is_for_opening: false,
        evaluate: order_qty,
    },
    Check {
        name: "position",
        is_for_opening: true,
        evaluate: position,
    },
    Check {
        name: "gross_notional",
        is_for_opening: true,
        evaluate: gross_notional,
    },
    Check {
        name: "alpha_order_rate",
        is_for_opening: true,
        evaluate: alpha_order_rate,
    },
    Check {
        name: "account_order_rate",
        is_for_opening: false,
        evaluate: account_order_rate,
    },
    Check {
        name: "repeated_order",
        is_for_opening: true,
        evaluate: repeated_order,
    },
    Check {
        name: "self_trade",
        is_for_opening: false,
        evaluate: self_trade,
    },
    Check {
        name: "daily_loss",
        is_for_opening: true,
        evaluate: daily_loss,
    },
    Check {
        name: "drawdown",
        is_for_opening: true,
        evaluate: drawdown,
    },
    Check {
        name: "weight",
        is_for_opening: false,
        evaluate: weight,
    },
    Check {
        name: "reject_rate",
        is_for_opening: true,
        evaluate: reject_rate,
    },
    Check {
        name: "capacity",
        is_for_opening: false,
        evaluate: capacity,
    },
];

/// The first refusal, or `None` when the order may go.
#[must_use]
pub fn evaluate(facts: &Facts) -> Option<Refusal> {
    CHECKS
        .iter()
        .filter(|check| !(check.is_for_opening && facts.is_reducing))
        .find_map(|check| (check.evaluate)(facts))
}

#[allow(clippy::unnecessary_wraps, reason = "the shape of a check's answer")]
fn refuse(code: ReasonCode, observed: i64, limit: i64) -> Option<Refusal> {
    Some(Refusal {
        code,
        observed,
        limit,
    })
}

fn refuse_if(is_refused: bool, code: ReasonCode, observed: i64, limit: i64) -> Option<Refusal> {
    is_refused.then_some(Refusal {
        code,
        observed,
        limit,
    })
}

/// Money for a record: the nearest value that fits.
fn narrow(value: Money) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

fn kill_switch(facts: &Facts) -> Option<Refusal> {
    facts
        .halted_by
        .and_then(|by| refuse(ReasonCode::KillSwitchOn, i64::from(by.code()), 0))
}

fn storm_guard(facts: &Facts) -> Option<Refusal> {
    facts
        .storm_fault
        .and_then(|by| refuse(ReasonCode::StormGuardOn, i64::from(by.code()), 0))
}

fn permit(facts: &Facts) -> Option<Refusal> {
    facts.permit_fault.and_then(|code| refuse(code, 0, 0))
}

fn reduce_only(facts: &Facts) -> Option<Refusal> {
    refuse_if(
        facts.is_reduce_only,
        ReasonCode::ReduceOnlyOn,
        facts.position_qty,
        0,
    )
}

fn session_phase(facts: &Facts) -> Option<Refusal> {
    match facts.phase {
        Some(Phase::Open) => None,
        Some(Phase::CloseOnly) => refuse_if(!facts.is_reducing, ReasonCode::SessionNotOpen, 1, 0),
        Some(Phase::ForceFlat) => refuse_if(!facts.is_reducing, ReasonCode::SessionNotOpen, 2, 0),
        None => refuse(ReasonCode::SessionNotOpen, 3, 0),
    }
}

fn duplicate_intent(facts: &Facts) -> Option<Refusal> {
    refuse_if(facts.is_duplicate, ReasonCode::DuplicateIntent, 1, 0)
}

fn signal(facts: &Facts) -> Option<Refusal> {
    refuse_if(!facts.signal.is_finite(), ReasonCode::SignalNotFinite, 0, 0)
}

fn reference(facts: &Facts) -> Option<Refusal> {
    // One daily limit without the other is a gap in the reference data.
    let is_half = facts.limit_up.is_some() != facts.limit_down.is_some();
    refuse_if(
        !facts.has_reference || is_half,
        ReasonCode::ReferenceMissing,
        0,
        0,
    )
}

fn book(facts: &Facts) -> Option<Refusal> {
    facts
        .book_fault
        .and_then(|code| refuse(code, facts.quote_age_ns, facts.quote_age_ns_max))
}

fn tick_grid(facts: &Facts) -> Option<Refusal> {
    let is_on_grid = facts.tick_size > 0 && facts.price > 0 && facts.price % facts.tick_size == 0;
    refuse_if(
        !is_on_grid,
        ReasonCode::OrderPriceOffTick,
        facts.price,
        facts.tick_size,
    )
}

fn daily_limit(facts: &Facts) -> Option<Refusal> {
    let above = facts.limit_up.filter(|limit| facts.price > *limit);
    let below = facts.limit_down.filter(|limit| facts.price < *limit);
    above
        .or(below)
        .and_then(|limit| refuse(ReasonCode::PriceOutsideDailyLimit, facts.price, limit))
}

fn price_collar(facts: &Facts) -> Option<Refusal> {
    let Some(mid) = facts.mid.filter(|mid| *mid > 0) else {
        return refuse(ReasonCode::ReferenceMissing, 0, 0);
    };
    // Products of two i64 fit i128.
    let distance = (i128::from(facts.price) - i128::from(mid)).abs() * BPS;
    let is_outside = distance > i128::from(mid) * i128::from(facts.price_collar_bps);
    refuse_if(
        is_outside,
        ReasonCode::PriceOutsideCollar,
        narrow(distance / i128::from(mid)),
        facts.price_collar_bps,
    )
}

fn order_qty(facts: &Facts) -> Option<Refusal> {
    refuse_if(
        facts.qty > facts.order_qty_max,
        ReasonCode::OrderQtyAboveLimit,
        facts.qty,
        facts.order_qty_max,
    )
}

fn position(facts: &Facts) -> Option<Refusal> {
    let open = if facts.side > 0 {
        facts.open_buy_qty
    } else {
        facts.open_sell_qty
    };
    // Worst case on this side: everything open here fills, nothing on the other side.
    let worst = i128::from(facts.position_qty) * i128::from(facts.side)
        + i128::from(open)
        + i128::from(facts.qty);
    let limit = facts.position_qty_max;
    refuse_if(
        worst > i128::from(limit),
        ReasonCode::PositionAboveLimit,
        narrow(worst),
        limit,
    )
}

fn gross_notional(facts: &Facts) -> Option<Refusal> {
    let limit = facts.gross_notional_max;
    match facts.gross_notional {
        Ok(gross) => refuse_if(
            gross > i128::from(limit),
            ReasonCode::NotionalAboveLimit,
            narrow(gross),
            limit,
        ),
        Err(code) => refuse(code, 0, limit),
    }
}

fn alpha_order_rate(facts: &Facts) -> Option<Refusal> {
    let (count, limit) = (
        facts.alpha_order_count.saturating_add(1),
        facts.alpha_order_rate_max,
    );
    refuse_if(
        count > limit,
        ReasonCode::OrderRateAboveLimit,
        i64::from(count),
        i64::from(limit),
    )
}

fn account_order_rate(facts: &Facts) -> Option<Refusal> {
    let reserve = if facts.is_reducing {
        0
    } else {
        facts.cancel_reserve
    };
    let limit = facts.account_order_rate_max.saturating_sub(reserve);
    let count = facts.account_order_count.saturating_add(1);
    refuse_if(
        count > limit,
        ReasonCode::OrderRateAboveLimit,
        i64::from(count),
        i64::from(limit),
    )
}

fn repeated_order(facts: &Facts) -> Option<Refusal> {
    let (count, limit) = (
        facts.repeated_order_count.saturating_add(1),
        facts.repeated_order_max,
    );
    refuse_if(
        count > limit,
        ReasonCode::RepeatedOrder,
        i64::from(count),
        i64::from(limit),
    )
}

fn self_trade(facts: &Facts) -> Option<Refusal> {
    facts
        .own_opposite_price
        .and_then(|own| refuse(ReasonCode::SelfTrade, facts.price, own))
}

fn daily_loss(facts: &Facts) -> Option<Refusal> {
    let limit = facts.daily_loss_max;
    let is_latched = facts.loss_latch == Some(ReasonCode::DailyLossReached);
    refuse_if(
        is_latched || -facts.net_pnl >= i128::from(limit),
        ReasonCode::DailyLossReached,
        narrow(-facts.net_pnl),
        limit,
    )
}

fn drawdown(facts: &Facts) -> Option<Refusal> {
    let limit = facts.drawdown_max;
    let is_latched = facts.loss_latch == Some(ReasonCode::DrawdownReached);
    refuse_if(
        is_latched || facts.drawdown >= i128::from(limit),
        ReasonCode::DrawdownReached,
        narrow(facts.drawdown),
        limit,
    )
}

fn weight(facts: &Facts) -> Option<Refusal> {
    let is_lots =
        facts.qty >= facts.lot_size && facts.lot_size > 0 && facts.qty % facts.lot_size == 0;
    refuse_if(
        !is_lots,
        ReasonCode::WeightBelowOneLot,
        facts.qty,
        facts.lot_size,
    )
}

fn reject_rate(facts: &Facts) -> Option<Refusal> {
    let (count, limit) = (facts.reject_count, REJECT_COUNT_MAX);
    refuse_if(
        count > limit,
        ReasonCode::RejectRateAboveLimit,
        i64::from(count),
        i64::from(limit),
    )
}

fn capacity(facts: &Facts) -> Option<Refusal> {
    refuse_if(!facts.has_capacity, ReasonCode::CapacityReached, 0, 0)
}

/// Times of the last events within a trailing window; at most [`WINDOW_COUNT_MAX`].
#[derive(Debug, Clone)]
pub struct TimeWindow {
    times: Box<[i64]>,
    first: usize,
    count: usize,
    window_ns: i64,
}

impl TimeWindow {
    /// An empty window of this length.
    #[must_use]
    pub fn new(window_ns: i64) -> Self {
        Self {
            times: vec![0; WINDOW_COUNT_MAX].into_boxed_slice(),
            first: 0,
            count: 0,
            window_ns,
        }
    }

    /// Events that are younger than the window at `now_ns`.
    pub fn count(&mut self, now_ns: i64) -> u32 {
        while self.count > 0 && now_ns.saturating_sub(self.times[self.first]) >= self.window_ns {
            self.first = (self.first + 1) % WINDOW_COUNT_MAX;
            self.count -= 1;
        }
        u32::try_from(self.count).unwrap_or(u32::MAX)
    }

    /// Adds an event; a full window forgets its oldest, and every limit is below that.
    pub fn push(&mut self, now_ns: i64) {
        if self.count == WINDOW_COUNT_MAX {
            self.first = (self.first + 1) % WINDOW_COUNT_MAX;
            self.count -= 1;
        }
        self.times[(self.first + self.count) % WINDOW_COUNT_MAX] = now_ns;
        self.count += 1;
    }
}

/// What makes two orders equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OrderKey {
    /// Place of the instrument in the engine.
    pub market_index: usize,
    /// +1 buy, -1 sell.
    pub side: i64,
    /// Limit price.
    pub price: i64,
    /// Quantity.
    pub qty: i64,
}

/// The last orders, to count equal ones.
#[derive(Debug, Clone)]
pub struct RepeatWindow {
    rows: Box<[(OrderKey, i64)]>,
    count: usize,
}

impl Default for RepeatWindow {
    fn default() -> Self {
        Self {
            rows: vec![(OrderKey::default(), i64::MIN); WINDOW_COUNT_MAX].into_boxed_slice(),
            count: 0,
        }
    }
}

impl RepeatWindow {
    /// Orders equal to `key` that are younger than [`REPEAT_WINDOW_NS`].
    #[must_use]
    pub fn count(&self, key: &OrderKey, now_ns: i64) -> u32 {
        let held = self.count.min(WINDOW_COUNT_MAX);
        let newest_first =
            (1..=held).map(|back| &self.rows[(self.count - back) % WINDOW_COUNT_MAX]);
        let young = newest_first.take_while(|row| now_ns.saturating_sub(row.1) < REPEAT_WINDOW_NS);
        u32::try_from(young.filter(|row| row.0 == *key).count()).unwrap_or(u32::MAX)
    }

    /// Adds an order.
    pub fn push(&mut self, key: OrderKey, now_ns: i64) {
        self.rows[self.count % WINDOW_COUNT_MAX] = (key, now_ns);
        self.count += 1;
    }
}

#[cfg(test)]
mod tests;
