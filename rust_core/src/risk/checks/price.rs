//! At what price: tick grid, daily limits, dynamic band, collars.

use super::{BPS, BPS_64, narrow, refuse, refuse_if};
use crate::reason::ReasonCode;
use crate::risk::{Facts, Refusal};

#[inline(always)]
pub(in crate::risk) fn tick_grid(facts: &Facts) -> Option<Refusal> {
    let is_on_grid = facts.tick_size > 0 && facts.price > 0 && facts.price % facts.tick_size == 0;
    refuse_if(
        !is_on_grid,
        ReasonCode::OrderPriceOffTick,
        facts.price,
        facts.tick_size,
    )
}

#[inline(always)]
pub(in crate::risk) fn daily_limit(facts: &Facts) -> Option<Refusal> {
    let above = facts.limit_up.filter(|limit| facts.price > *limit);
    let below = facts.limit_down.filter(|limit| facts.price < *limit);
    above
        .or(below)
        .and_then(|limit| refuse(ReasonCode::PriceOutsideDailyLimit, facts.price, limit))
}

/// The exchange refuses an order whose possible fill leaves the band: a buy above, a sell below.
#[inline(always)]
pub(in crate::risk) fn price_band(facts: &Facts) -> Option<Refusal> {
    let width_bps = facts.banding_bps?;
    let Some(base) = facts.band_base.filter(|base| *base > 0) else {
        return refuse(ReasonCode::ReferenceMissing, 0, width_bps);
    };
    beyond(facts, base, width_bps, ReasonCode::PriceOutsideBand)
}

#[inline(always)]
pub(in crate::risk) fn price_collar(facts: &Facts) -> Option<Refusal> {
    let Some(mid) = facts.mid.filter(|mid| *mid > 0) else {
        return refuse(ReasonCode::ReferenceMissing, 0, 0);
    };
    let distance = (i128::from(facts.price) - i128::from(mid)).abs();
    outside(
        distance,
        mid,
        facts.price_collar_bps,
        ReasonCode::PriceOutsideCollar,
    )
}

/// An exit is held to the price it would be filled at, not to a mid that a gap has moved away.
#[inline(always)]
pub(in crate::risk) fn exit_collar(facts: &Facts) -> Option<Refusal> {
    let best = facts.opposite_best.filter(|best| *best > 0)?;
    beyond(
        facts,
        best,
        facts.exit_collar_bps,
        ReasonCode::PriceOutsideCollar,
    )
}

/// Refuses a price that is further than `width_bps` beyond `base` in the direction of paying more.
#[inline(always)]
fn beyond(facts: &Facts, base: i64, width_bps: i64, code: ReasonCode) -> Option<Refusal> {
    let beyond = i128::from(facts.price) - i128::from(base);
    let distance = if facts.side > 0 { beyond } else { -beyond };
    outside(distance, base, width_bps, code)
}

/// Refuses a distance of more than `width_bps` of `base`.
#[inline(always)]
fn outside(distance: i128, base: i64, width_bps: i64, code: ReasonCode) -> Option<Refusal> {
    // The products of usual prices fit 64 bits; products of two i64 fit i128.
    let near = i64::try_from(distance)
        .ok()
        .and_then(|distance| distance.checked_mul(BPS_64))
        .zip(base.checked_mul(width_bps));
    let is_within = near.map_or_else(
        || distance * BPS <= i128::from(base) * i128::from(width_bps),
        |(distance, width)| distance <= width,
    );
    if is_within {
        return None;
    }
    // A 128-bit division costs more than all checks together, so only a refusal pays for it.
    refuse(code, narrow(distance * BPS / i128::from(base)), width_bps)
}
