//! What a check held against what when it passed: a refusal says it, a pass does not.
//!
//! For people who ask how near a limit was; nothing decides by it.

use super::{FREE_REQUEST_COUNT, Facts};
use crate::gateway::Money;

/// What a check that grows towards a limit holds against it, as its refusal would say; `None` for
/// a check that asks yes or no, and where a fact is missing.
pub(crate) fn numbers(name: &str, facts: &Facts) -> Option<(i64, i64)> {
    let narrow = |value: i128| i64::try_from(value).ok();
    let count = |count: u32, limit: u32| Some((i64::from(count), i64::from(limit)));
    let loss = |loss: Money, limit: i64| Some((narrow(loss)?, limit));
    match name {
        "book" => Some((facts.quote_age_ns, facts.quote_age_ns_max)),
        "clock_skew" => Some((facts.clock_skew_ns?, facts.clock_skew_ns_max?)),
        "order_qty" => Some((facts.qty, facts.order_qty_max)),
        "exchange_qty" => Some((facts.qty, facts.exchange_qty_max?)),
        "position" => {
            let open = if facts.side > 0 {
                facts.open_buy_qty
            } else {
                facts.open_sell_qty
            };
            let held = i128::from(facts.position_qty) * i128::from(facts.side);
            let worst = held + i128::from(open) + i128::from(facts.qty);
            Some((narrow(worst)?, facts.position_qty_max))
        }
        "account_position" => Some((
            narrow(facts.account_position_qty)?,
            narrow(facts.account_position_qty_max)?,
        )),
        "gross_notional" => loss(facts.gross_notional.ok()?, facts.gross_notional_max),
        "net_notional" => loss(facts.net_notional.ok()?, facts.net_notional_max),
        "margin" => loss(facts.free_margin?.ok()?, facts.free_margin_min),
        "alpha_order_rate" => count(
            facts.alpha_order_count.saturating_add(1),
            facts.alpha_order_rate_max,
        ),
        "account_order_rate" => {
            let reserve = if facts.is_reducing {
                0
            } else {
                facts.cancel_reserve
            };
            count(
                facts.account_order_count.saturating_add(1),
                facts.account_order_rate_max.saturating_sub(reserve),
            )
        }
        "repeated_order" => count(
            facts.repeated_order_count.saturating_add(1),
            facts.repeated_order_max,
        ),
        "order_to_trade" if facts.request_count > FREE_REQUEST_COUNT => Some((
            i64::try_from(facts.request_count).ok()?,
            i64::try_from(facts.request_count_max).ok()?,
        )),
        "daily_loss" => loss(facts.net_pnl.saturating_neg(), facts.daily_loss_max),
        "drawdown" => loss(facts.drawdown, facts.drawdown_max),
        "loss_speed" => loss(facts.loss_speed, facts.loss_speed_max),
        "account_daily_loss" => loss(
            facts.account_net_pnl.saturating_neg(),
            facts.account_daily_loss_max,
        ),
        "account_drawdown" => loss(facts.account_drawdown, facts.account_drawdown_max),
        "account_loss_speed" => loss(facts.account_loss_speed, facts.account_loss_speed_max),
        "weight" => Some((facts.qty, facts.lot_size)),
        "reject_rate" => count(facts.reject_count, facts.reject_count_max),
        "unknown_rate" => count(facts.unknown_count, facts.unknown_count_max),
        _ => None,
    }
}
