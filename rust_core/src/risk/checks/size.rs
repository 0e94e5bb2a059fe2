//! How much: lots, order size, positions, notionals, margin.

use super::{narrow, refuse, refuse_if};
use crate::gateway::Money;
use crate::reason::ReasonCode;
use crate::risk::{Facts, Refusal};

#[inline(always)]
pub(in crate::risk) fn order_qty(facts: &Facts) -> Option<Refusal> {
    refuse_if(
        facts.qty > facts.order_qty_max,
        ReasonCode::OrderQtyAboveLimit,
        facts.qty,
        facts.order_qty_max,
    )
}

#[inline(always)]
pub(in crate::risk) fn exchange_qty(facts: &Facts) -> Option<Refusal> {
    let limit = facts.exchange_qty_max?;
    refuse_if(
        facts.qty > limit,
        ReasonCode::OrderQtyAboveExchangeCap,
        facts.qty,
        limit,
    )
}

#[inline(always)]
pub(in crate::risk) fn position(facts: &Facts) -> Option<Refusal> {
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

#[inline(always)]
pub(in crate::risk) fn account_position(facts: &Facts) -> Option<Refusal> {
    refuse_if(
        facts.account_position_qty > facts.account_position_qty_max,
        ReasonCode::AccountPositionAboveLimit,
        narrow(facts.account_position_qty),
        narrow(facts.account_position_qty_max),
    )
}

#[inline(always)]
fn money_above(value: Result<Money, ReasonCode>, limit: i64, code: ReasonCode) -> Option<Refusal> {
    match value {
        Ok(value) => refuse_if(value > i128::from(limit), code, narrow(value), limit),
        Err(missing) => refuse(missing, 0, limit),
    }
}

#[inline(always)]
pub(in crate::risk) fn gross_notional(facts: &Facts) -> Option<Refusal> {
    money_above(
        facts.gross_notional,
        facts.gross_notional_max,
        ReasonCode::NotionalAboveLimit,
    )
}

#[inline(always)]
pub(in crate::risk) fn net_notional(facts: &Facts) -> Option<Refusal> {
    money_above(
        facts.net_notional,
        facts.net_notional_max,
        ReasonCode::NetNotionalAboveLimit,
    )
}

#[inline(always)]
pub(in crate::risk) fn margin(facts: &Facts) -> Option<Refusal> {
    match facts.free_margin? {
        Ok(free) => refuse_if(
            free < i128::from(facts.free_margin_min),
            ReasonCode::MarginTooLow,
            narrow(free),
            facts.free_margin_min,
        ),
        Err(code) => refuse(code, facts.margin_age_ns, 0),
    }
}

#[inline(always)]
pub(in crate::risk) fn weight(facts: &Facts) -> Option<Refusal> {
    let is_lots =
        facts.qty >= facts.lot_size && facts.lot_size > 0 && facts.qty % facts.lot_size == 0;
    refuse_if(
        !is_lots,
        ReasonCode::WeightBelowOneLot,
        facts.qty,
        facts.lot_size,
    )
}
