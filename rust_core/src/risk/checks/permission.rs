//! May there be an order at all: halts, permits, phases, identity, reference data, feed.

use super::{refuse, refuse_if};
use crate::engine::{Eligibility, Phase};
use crate::reason::ReasonCode;
use crate::risk::{Facts, Refusal};

#[inline(always)]
pub(in crate::risk) fn kill_switch(facts: &Facts) -> Option<Refusal> {
    facts
        .halted_by
        .and_then(|by| refuse(ReasonCode::KillSwitchOn, i64::from(by.code()), 0))
}

#[inline(always)]
pub(in crate::risk) fn storm_guard(facts: &Facts) -> Option<Refusal> {
    facts
        .storm_fault
        .and_then(|by| refuse(ReasonCode::StormGuardOn, i64::from(by.code()), 0))
}

#[inline(always)]
pub(in crate::risk) fn permit(facts: &Facts) -> Option<Refusal> {
    facts.permit_fault.and_then(|code| refuse(code, 0, 0))
}

#[inline(always)]
pub(in crate::risk) fn reduce_only(facts: &Facts) -> Option<Refusal> {
    refuse_if(
        facts.is_reduce_only,
        ReasonCode::ReduceOnlyOn,
        facts.position_qty,
        0,
    )
}

#[inline(always)]
pub(in crate::risk) fn reconciliation(facts: &Facts) -> Option<Refusal> {
    facts
        .unexplained_qty
        .and_then(|qty| refuse(ReasonCode::PositionUnreconciled, qty, 0))
}

#[inline(always)]
pub(in crate::risk) fn session_phase(facts: &Facts) -> Option<Refusal> {
    let (is_refused, observed) = match facts.phase {
        Some(Phase::Open) => return None,
        Some(Phase::CloseOnly) => (!facts.is_reducing, 1),
        Some(Phase::ForceFlat) => (!facts.is_reducing, 2),
        None => (true, 3),
        Some(Phase::PreOpen) => (true, 4),
        Some(Phase::NoCancel) => (true, 5),
        Some(Phase::CloseAuction) => (!facts.is_reducing, 6),
    };
    refuse_if(is_refused, ReasonCode::SessionNotOpen, observed, 0)
}

#[inline(always)]
pub(in crate::risk) fn duplicate_intent(facts: &Facts) -> Option<Refusal> {
    refuse_if(facts.is_duplicate, ReasonCode::DuplicateIntent, 1, 0)
}

#[inline(always)]
pub(in crate::risk) fn signal(facts: &Facts) -> Option<Refusal> {
    refuse_if(!facts.signal.is_finite(), ReasonCode::SignalNotFinite, 0, 0)
}

#[inline(always)]
pub(in crate::risk) fn reference(facts: &Facts) -> Option<Refusal> {
    // One daily limit without the other is a gap in the reference data.
    let is_half = facts.limit_up.is_some() != facts.limit_down.is_some();
    refuse_if(
        !facts.has_reference || is_half,
        ReasonCode::ReferenceMissing,
        0,
        0,
    )
}

#[inline(always)]
pub(in crate::risk) fn instrument_closed(facts: &Facts) -> Option<Refusal> {
    refuse_if(
        facts.eligibility == Eligibility::Closed,
        ReasonCode::InstrumentClosed,
        1,
        0,
    )
}

#[inline(always)]
pub(in crate::risk) fn eligibility(facts: &Facts) -> Option<Refusal> {
    match facts.eligibility {
        Eligibility::Full | Eligibility::Closed => None,
        Eligibility::NoDayTrade => refuse(ReasonCode::DayTradeNotAllowed, 1, 0),
        Eligibility::Disposition => refuse(ReasonCode::DispositionStock, 1, 0),
    }
}

#[inline(always)]
pub(in crate::risk) fn book(facts: &Facts) -> Option<Refusal> {
    facts
        .book_fault
        .and_then(|code| refuse(code, facts.quote_age_ns, facts.quote_age_ns_max))
}

/// An exit may lean on a stale or crossed book, because its limit price bounds what it can cost.
/// It needs a price to lean on, and a trial match is none.
#[inline(always)]
pub(in crate::risk) fn exit_market(facts: &Facts) -> Option<Refusal> {
    if facts.book_fault == Some(ReasonCode::SimulatedMatch) {
        return refuse(ReasonCode::SimulatedMatch, 0, 0);
    }
    let has_price = facts.opposite_best.is_some_and(|price| price > 0);
    refuse_if(!has_price, ReasonCode::ReferenceMissing, 0, 0)
}

#[inline(always)]
pub(in crate::risk) fn clock_skew(facts: &Facts) -> Option<Refusal> {
    let limit = facts.clock_skew_ns_max?;
    let Some(skew) = facts.clock_skew_ns else {
        return refuse(ReasonCode::ReferenceMissing, 0, limit);
    };
    refuse_if(
        skew.unsigned_abs() > limit.unsigned_abs(),
        ReasonCode::ClockSkewAboveLimit,
        skew,
        limit,
    )
}

#[inline(always)]
pub(in crate::risk) fn self_trade(facts: &Facts) -> Option<Refusal> {
    facts
        .own_opposite_price
        .and_then(|own| refuse(ReasonCode::SelfTrade, facts.price, own))
}

#[inline(always)]
pub(in crate::risk) fn exit_way(facts: &Facts) -> Option<Refusal> {
    facts
        .exit_blocked_by
        .and_then(|own| refuse(ReasonCode::ExitWaitsForCancel, facts.price, own))
}

#[inline(always)]
pub(in crate::risk) fn capacity(facts: &Facts) -> Option<Refusal> {
    refuse_if(!facts.has_capacity, ReasonCode::CapacityReached, 0, 0)
}
