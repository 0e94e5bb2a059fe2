//! At what loss: of the day, from the peak, within a minute; of the alpha and of the account.

use super::{narrow, refuse_if};
use crate::gateway::Money;
use crate::reason::ReasonCode;
use crate::risk::{Facts, Refusal};

/// A loss limit counts as reached at the limit itself, and stays reached once it was latched.
#[inline(always)]
fn reached(
    loss: Money,
    limit: i64,
    latch: Option<ReasonCode>,
    code: ReasonCode,
) -> Option<Refusal> {
    refuse_if(
        latch == Some(code) || loss >= i128::from(limit),
        code,
        narrow(loss),
        limit,
    )
}

#[inline(always)]
pub(in crate::risk) fn daily_loss(facts: &Facts) -> Option<Refusal> {
    reached(
        facts.net_pnl.saturating_neg(),
        facts.daily_loss_max,
        facts.loss_latch,
        ReasonCode::DailyLossReached,
    )
}

#[inline(always)]
pub(in crate::risk) fn drawdown(facts: &Facts) -> Option<Refusal> {
    reached(
        facts.drawdown,
        facts.drawdown_max,
        facts.loss_latch,
        ReasonCode::DrawdownReached,
    )
}

#[inline(always)]
pub(in crate::risk) fn loss_speed(facts: &Facts) -> Option<Refusal> {
    reached(
        facts.loss_speed,
        facts.loss_speed_max,
        facts.loss_latch,
        ReasonCode::LossSpeedReached,
    )
}

#[inline(always)]
pub(in crate::risk) fn account_daily_loss(facts: &Facts) -> Option<Refusal> {
    reached(
        facts.account_net_pnl.saturating_neg(),
        facts.account_daily_loss_max,
        facts.account_loss_latch,
        ReasonCode::AccountDailyLossReached,
    )
}

#[inline(always)]
pub(in crate::risk) fn account_drawdown(facts: &Facts) -> Option<Refusal> {
    reached(
        facts.account_drawdown,
        facts.account_drawdown_max,
        facts.account_loss_latch,
        ReasonCode::AccountDrawdownReached,
    )
}

#[inline(always)]
pub(in crate::risk) fn account_loss_speed(facts: &Facts) -> Option<Refusal> {
    reached(
        facts.account_loss_speed,
        facts.account_loss_speed_max,
        facts.account_loss_latch,
        ReasonCode::AccountLossSpeedReached,
    )
}
