//! Pre-trade checks: one table in order of precedence, one pure function a row.
//!
//! Why: an order leaves only when every check says nothing, and the first that speaks is named.
//!
//! Invariants:
//! 1. A check sees only [`Facts`] and changes nothing.
//! 2. A missing fact refuses; a computation out of range refuses with its own code.
//! 3. With all open orders filled in any order, an approved opening order keeps every position and
//!    notional within its limit.
//! 4. An order that only reduces a position is held to the rows marked `All` and `Exit` alone;
//!    `docs/risk.md` says for each why an exit must wait for it.
//!
//! Cancels are no orders and do not come here. Operator's page: `docs/risk.md`.

mod checks;
mod facts;
mod numbers;
mod windows;

pub use facts::Facts;
pub(crate) use numbers::numbers;
pub use windows::{
    FILL_PAUSE_NS, FILL_WINDOW_NS, LOSS_WINDOW_NS, LossWindow, OrderKey, RATE_WINDOW_NS,
    REJECT_WINDOW_NS, REPEAT_WINDOW_NS, RepeatWindow, TimeWindow, WINDOW_COUNT_MAX,
};

use crate::book::FAULTS;
use crate::reason::ReasonCode;
use checks::{loss, permission, price, rate, size};

/// Requests of a session that need no fill to justify them.
pub const FREE_REQUEST_COUNT: u64 = 1_000;

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

/// Which orders a check holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applies {
    /// Every order.
    All,
    /// Orders that may open or enlarge a position.
    Opening,
    /// Orders that only reduce one.
    Exit,
}

impl Applies {
    /// True when an order of this kind is held to the check.
    #[must_use]
    pub const fn holds(self, is_reducing: bool) -> bool {
        match self {
            Self::All => true,
            Self::Opening => !is_reducing,
            Self::Exit => is_reducing,
        }
    }
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// Name in docs and `explain`.
    pub name: &'static str,
    /// Which orders it holds.
    pub applies: Applies,
    /// Codes it can give.
    pub codes: &'static [ReasonCode],
    /// Where its limit stands: a key of the engine config, a constant, or nothing to set.
    pub limit: &'static str,
    /// Whose idea it is.
    pub source: &'static str,
    /// What it asks.
    pub asks: &'static str,
    /// `None` when there is nothing against the order.
    pub evaluate: fn(&Facts) -> Option<Refusal>,
}

macro_rules! checks {
    ($( $name:ident: $module:ident, $applies:ident, [$($code:ident),*], $limit:literal, $source:literal, $asks:literal; )*) => {
        /// All checks; the first that refuses is reported.
        pub const CHECKS: &[Check] = &[
            $( Check {
                name: stringify!($name),
                applies: Applies::$applies,
                codes: &[$(ReasonCode::$code),*],
                limit: $limit,
                source: $source,
                asks: $asks,
                evaluate: $module::$name,
            } ),*
        ];

        /// The first refusal in the order of [`CHECKS`], or `None` when the order may go.
        ///
        /// The table written out, so that a passing order costs a row of compares and no calls.
        // Inlined, so that facts made for it alone stay in registers.
        #[must_use]
        #[inline(always)]
        pub fn evaluate(facts: &Facts) -> Option<Refusal> {
            $( if Applies::$applies.holds(facts.is_reducing) {
                let refusal = $module::$name(facts);
                if refusal.is_some() {
                    return refusal;
                }
            } )*
            None
        }
    };
}

checks! {
    kill_switch: permission, Opening, [KillSwitchOn], "-", "pre-trade list: kill switch; RTS 6 a12", "is trading halted, for the account or the alpha";
    storm_guard: permission, Opening, [StormGuardOn], "storm_guard", "pre-trade list: feed, loop, broker and loss trouble", "does the storm guard let anything open";
    permit: permission, Opening, [ConfigExpired, ConfigWithdrawn], "alphas.expires_ns", "pre-trade list: unsigned config", "does the signed permit still hold";
    reduce_only: permission, Opening, [ReduceOnlyOn], "-", "pre-trade list: reduce-only; NT REDUCING", "are only reducing orders wanted";
    reconciliation: permission, Opening, [PositionUnreconciled], "-", "pre-trade list: unreconciled position; peers: reconciliation", "does the broker's net position agree with ours";
    session_phase: permission, All, [SessionNotOpen], "session.phases", "pre-trade list: session phase, reduce-only before close", "does the session take this order now";
    duplicate_intent: permission, All, [DuplicateIntent], "-", "pre-trade list: duplicate intent", "was this intent decided before";
    signal: permission, Opening, [SignalNotFinite], "-", "pre-trade list: NaN, inf", "is the alpha's value a number";
    reference: permission, All, [ReferenceMissing], "instruments", "pre-trade list: missing reference price", "do the instrument's reference data hold together";
    instrument_closed: permission, All, [InstrumentClosed], "instruments.eligibility", "15c3-5(c)(2) halt filter", "is the instrument open for trading";
    eligibility: permission, Opening, [DayTradeNotAllowed, DispositionStock], "instruments.eligibility", "pre-trade list: day-trade eligibility, disposition stocks", "may it be bought and sold within a day";
    book: permission, Opening, [LevelsUnordered, ReferenceMissing, SimulatedMatch, BookSideEmpty, BookCrossed, BookStale, PriceNotPositive, QtyNotPositive, ValueOutOfRange], "account_limits.quote_age_ns_max", "pre-trade list: feed age, crossed book, simtrade flag", "can an order be based on the book";
    exit_market: permission, Exit, [SimulatedMatch, ReferenceMissing], "-", "pre-trade list: simtrade flag, missing reference price", "is there a price to leave at";
    clock_skew: permission, Opening, [ClockSkewAboveLimit, ReferenceMissing], "account_limits.clock_skew_ns_max", "pre-trade list: clock skew; RTS 25", "do our clock and the exchange's agree";
    tick_grid: price, All, [OrderPriceOffTick], "instruments.tick_size", "pre-trade list: tick grid, price <= 0", "is the price positive and on the grid";
    daily_limit: price, All, [PriceOutsideDailyLimit], "instruments.limit_up, limit_down", "pre-trade list: exchange limits", "is the price within limit up and limit down";
    price_band: price, All, [PriceOutsideBand, ReferenceMissing], "instruments.banding_bps", "TAIFEX rules: dynamic banding; RTS 6 a15", "would the exchange's dynamic band take the price";
    price_collar: price, Opening, [PriceOutsideCollar, ReferenceMissing], "account_limits.price_collar_bps", "pre-trade list: price collar", "is the price near the mid";
    exit_collar: price, Exit, [PriceOutsideCollar], "account_limits.exit_collar_bps", "pre-trade list: price collar, for exits", "is the exit's price near the best it can be filled at";
    order_qty: size, Opening, [OrderQtyAboveLimit], "alphas.limits.order_qty_max", "pre-trade list: order size", "is the order within the alpha's size";
    exchange_qty: size, All, [OrderQtyAboveExchangeCap], "instruments.order_qty_max", "TAIFEX rules: lots per order", "does the exchange take that many lots at once";
    position: size, Opening, [PositionAboveLimit], "alphas.limits.position_qty_max", "pre-trade list: position, worst side", "does the alpha's position keep its limit whatever fills";
    account_position: size, Opening, [AccountPositionAboveLimit], "account_limits.position_lots_max", "pre-trade list: position per symbol and account", "does the account's, over all alphas and the external part";
    gross_notional: size, Opening, [NotionalAboveLimit, ReferenceMissing, ArithmeticOverflow], "account_limits.gross_notional_max", "pre-trade list: notional gross; peers: exposure across strategies", "is the gross value within its limit";
    net_notional: size, Opening, [NetNotionalAboveLimit, ReferenceMissing, ArithmeticOverflow], "account_limits.net_notional_max", "pre-trade list: notional net; peers: exposure across strategies", "is the net value on this side within its limit";
    margin: size, Opening, [MarginTooLow, MarginUnknown, ArithmeticOverflow], "account_limits.free_margin_min, account_age_ns_max", "pre-trade list: margin; 15c3-5(c)(1) credit", "is there margin for it, by a fresh answer";
    alpha_order_rate: rate, Opening, [OrderRateAboveLimit], "alphas.limits.order_rate_max", "pre-trade list: order rate; RTS 6 a15", "is the alpha within its rate";
    account_order_rate: rate, All, [OrderRateAboveLimit], "account_limits.order_rate_max, cancel_reserve", "Shioaji usage limits: soft and hard order rate", "is the account, with the reserve kept";
    repeated_order: rate, Opening, [RepeatedOrder], "account_limits.repeated_order_max", "pre-trade list: equal orders", "were equal orders sent just now";
    repeated_execution: rate, Opening, [RepeatedExecution], "account_limits.one_side_fill_max", "pre-trade list: repeated fills; RTS 6 a15", "does this side pause after many fills";
    order_to_trade: rate, Opening, [OrderToTradeAboveLimit], "account_limits.order_to_trade_max", "peers: order-to-trade ratio", "do the fills justify the requests";
    self_trade: permission, Opening, [SelfTrade], "-", "pre-trade list: self-trade: block the newer", "would it trade against our own order";
    exit_way: permission, Exit, [ExitWaitsForCancel], "-", "pre-trade list: self-trade, for exits", "is our own resting order out of the exit's way";
    daily_loss: loss, Opening, [DailyLossReached], "alphas.limits.daily_loss_max", "pre-trade list: daily loss", "is the alpha's loss of the day within its limit";
    drawdown: loss, Opening, [DrawdownReached], "alphas.limits.drawdown_max", "pre-trade list: drawdown", "is its fall from the best result";
    loss_speed: loss, Opening, [LossSpeedReached], "alphas.limits.loss_speed_max", "pre-trade list: loss speed", "is its fall within a minute";
    account_daily_loss: loss, Opening, [AccountDailyLossReached], "account_limits.daily_loss_max", "pre-trade list: daily loss per account", "the same of all alphas together";
    account_drawdown: loss, Opening, [AccountDrawdownReached], "account_limits.drawdown_max", "pre-trade list: drawdown per account", "the same of all alphas together";
    account_loss_speed: loss, Opening, [AccountLossSpeedReached], "account_limits.loss_speed_max", "pre-trade list: loss speed per account", "the same of all alphas together";
    weight: size, All, [WeightBelowOneLot], "alphas.weight_ppm", "canary sizes", "is it a whole number of lots, one at least";
    reject_rate: rate, Opening, [RejectRateAboveLimit], "account_limits.reject_rate_max", "pre-trade list: reject and UNKNOWN rate", "did the broker refuse or lose too many";
    unknown_rate: rate, Opening, [UnknownRateAboveLimit], "account_limits.unknown_rate_max", "pre-trade list: reject and UNKNOWN rate", "did it lose too many";
    capacity: permission, All, [CapacityReached], "OPEN_COUNT_MAX", "bounded tables", "is there a place for one more open order";
}

/// Every fault of a book is among the codes of the `book` check.
const _: () = assert!(FAULTS.len() <= CHECKS[11].codes.len());

#[cfg(test)]
mod tests;
