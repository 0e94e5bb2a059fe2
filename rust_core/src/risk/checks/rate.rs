//! How often: order rates, equal orders, fills on one side, order to trade, breakers.

use super::{narrow_count, refuse_if};
use crate::reason::ReasonCode;
use crate::risk::{Facts, Refusal};

#[inline(always)]
fn count_above(count: u32, limit: u32, code: ReasonCode) -> Option<Refusal> {
    refuse_if(count > limit, code, i64::from(count), i64::from(limit))
}

#[inline(always)]
pub(in crate::risk) fn alpha_order_rate(facts: &Facts) -> Option<Refusal> {
    count_above(
        facts.alpha_order_count.saturating_add(1),
        facts.alpha_order_rate_max,
        ReasonCode::OrderRateAboveLimit,
    )
}

/// Opening orders stop at the soft limit, exits and cancels at the hard one.
#[inline(always)]
pub(in crate::risk) fn account_order_rate(facts: &Facts) -> Option<Refusal> {
    let reserve = if facts.is_reducing {
        0
    } else {
        facts.cancel_reserve
    };
    count_above(
        facts.account_order_count.saturating_add(1),
        facts.account_order_rate_max.saturating_sub(reserve),
        ReasonCode::OrderRateAboveLimit,
    )
}

#[inline(always)]
pub(in crate::risk) fn repeated_order(facts: &Facts) -> Option<Refusal> {
    count_above(
        facts.repeated_order_count.saturating_add(1),
        facts.repeated_order_max,
        ReasonCode::RepeatedOrder,
    )
}

#[inline(always)]
pub(in crate::risk) fn repeated_execution(facts: &Facts) -> Option<Refusal> {
    refuse_if(
        facts.fill_pause_ns > 0,
        ReasonCode::RepeatedExecution,
        facts.fill_pause_ns,
        0,
    )
}

#[inline(always)]
pub(in crate::risk) fn order_to_trade(facts: &Facts) -> Option<Refusal> {
    refuse_if(
        facts.request_count > facts.request_count_max,
        ReasonCode::OrderToTradeAboveLimit,
        narrow_count(facts.request_count),
        narrow_count(facts.request_count_max),
    )
}

#[inline(always)]
pub(in crate::risk) fn reject_rate(facts: &Facts) -> Option<Refusal> {
    count_above(
        facts.reject_count,
        facts.reject_count_max,
        ReasonCode::RejectRateAboveLimit,
    )
}

#[inline(always)]
pub(in crate::risk) fn unknown_rate(facts: &Facts) -> Option<Refusal> {
    count_above(
        facts.unknown_count,
        facts.unknown_count_max,
        ReasonCode::UnknownRateAboveLimit,
    )
}
