//! Everything a check may look at, collected once for an intent.

use crate::engine::{Eligibility, Phase};
use crate::gateway::Money;
use crate::reason::ReasonCode;
use crate::record::SCALE;

/// Everything a check may look at.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// +1 buy, -1 sell.
    pub side: i64,
    /// Limit price.
    pub price: i64,
    /// Quantity.
    pub qty: i64,
    /// True when it cannot do anything but reduce the alpha's position.
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
    /// Unexplained part of the broker's position; `None` when ours agrees with the broker's.
    pub unexplained_qty: Option<i64>,
    /// Current phase, `None` when closed.
    pub phase: Option<Phase>,
    /// This intent was decided before.
    pub is_duplicate: bool,
    /// The instrument's reference data hold together.
    pub has_reference: bool,
    /// Whether the instrument may be traded.
    pub eligibility: Eligibility,
    /// Why the book cannot be used.
    pub book_fault: Option<ReasonCode>,
    /// Age of the book, ns.
    pub quote_age_ns: i64,
    /// Largest allowed age.
    pub quote_age_ns_max: i64,
    /// Receive time minus exchange time of the last book; `None` when it carried no exchange time.
    pub clock_skew_ns: Option<i64>,
    /// Largest allowed size of it; `None` when it is not looked at.
    pub clock_skew_ns_max: Option<i64>,
    /// Middle of the book.
    pub mid: Option<i64>,
    /// Best price on the other side, of the last book that was stored.
    pub opposite_best: Option<i64>,
    /// Tick size.
    pub tick_size: i64,
    /// Highest allowed price, if the venue has one.
    pub limit_up: Option<i64>,
    /// Lowest allowed price, if the venue has one.
    pub limit_down: Option<i64>,
    /// Base of the dynamic price band: the last print, or the mid before the first.
    pub band_base: Option<i64>,
    /// Width of the band; `None` on venues without one.
    pub banding_bps: Option<i64>,
    /// Largest distance of an opening order from the mid.
    pub price_collar_bps: i64,
    /// Largest distance of an exit beyond the best price on the other side.
    pub exit_collar_bps: i64,
    /// Largest order of the alpha.
    pub order_qty_max: i64,
    /// Largest order the exchange takes; `None` where it has no such cap.
    pub exchange_qty_max: Option<i64>,
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
    /// Worst position of the account on this side with the order filled.
    pub account_position_qty: i128,
    /// Its limit.
    pub account_position_qty_max: i128,
    /// Gross value of all positions and open orders with this one; `Err` names what is missing.
    pub gross_notional: Result<Money, ReasonCode>,
    /// Largest gross value.
    pub gross_notional_max: i64,
    /// Net value on this side with everything open here filled; `Err` names what is missing.
    pub net_notional: Result<Money, ReasonCode>,
    /// Largest net value.
    pub net_notional_max: i64,
    /// Free margin behind this order; `Err` when it is not known. `None`: no margin limit.
    pub free_margin: Option<Result<Money, ReasonCode>>,
    /// Least free margin.
    pub free_margin_min: i64,
    /// Age of the broker's answer, ns.
    pub margin_age_ns: i64,
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
    /// How long this side of the alpha still pauses after too many fills, ns.
    pub fill_pause_ns: i64,
    /// Requests of the session, this one included.
    pub request_count: u64,
    /// Requests that the session's fills allow.
    pub request_count_max: u64,
    /// Price of our own open order on the other side that this one would reach first.
    pub own_opposite_price: Option<i64>,
    /// Price of our own order that must be gone before this exit may leave.
    pub exit_blocked_by: Option<i64>,
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
    /// Fall within the loss window.
    pub loss_speed: Money,
    /// Largest fall within the window.
    pub loss_speed_max: i64,
    /// The same of all alphas together.
    pub account_net_pnl: Money,
    /// Why the account's result stopped every alpha, once it did.
    pub account_loss_latch: Option<ReasonCode>,
    /// Largest loss of the account.
    pub account_daily_loss_max: i64,
    /// Fall of the account from its best result.
    pub account_drawdown: Money,
    /// Largest fall of the account.
    pub account_drawdown_max: i64,
    /// Fall of the account within the loss window.
    pub account_loss_speed: Money,
    /// Largest fall of the account within the window.
    pub account_loss_speed_max: i64,
    /// Broker rejects and unknown outcomes in the window.
    pub reject_count: u32,
    /// Their limit.
    pub reject_count_max: u32,
    /// Unknown outcomes in the window.
    pub unknown_count: u32,
    /// Their limit.
    pub unknown_count_max: u32,
    /// Room for one more open order of this kind.
    pub has_capacity: bool,
}

impl Facts {
    /// An opening order at every limit, which passes every check and lets none be decided early:
    /// what tests vary and the benchmark times.
    #[must_use]
    pub fn at_every_limit() -> Self {
        Self {
            side: 1,
            price: 101 * SCALE,
            qty: SCALE,
            is_reducing: false,
            signal: 1.0,
            halted_by: None,
            storm_fault: None,
            permit_fault: None,
            is_reduce_only: false,
            unexplained_qty: None,
            phase: Some(Phase::Open),
            is_duplicate: false,
            has_reference: true,
            eligibility: Eligibility::Full,
            book_fault: None,
            quote_age_ns: 0,
            quote_age_ns_max: 1_000,
            clock_skew_ns: Some(-1_000),
            clock_skew_ns_max: Some(1_000),
            mid: Some(100 * SCALE),
            opposite_best: Some(100 * SCALE),
            tick_size: SCALE,
            limit_up: Some(110 * SCALE),
            limit_down: Some(90 * SCALE),
            band_base: Some(100 * SCALE),
            banding_bps: Some(100),
            price_collar_bps: 100,
            exit_collar_bps: 100,
            order_qty_max: SCALE,
            exchange_qty_max: Some(SCALE),
            lot_size: SCALE,
            position_qty: SCALE,
            open_buy_qty: SCALE,
            open_sell_qty: 0,
            position_qty_max: 3 * SCALE,
            account_position_qty: 5,
            account_position_qty_max: 5,
            gross_notional: Ok(1_000),
            gross_notional_max: 1_000,
            net_notional: Ok(500),
            net_notional_max: 500,
            free_margin: Some(Ok(700)),
            free_margin_min: 700,
            margin_age_ns: 0,
            alpha_order_count: 9,
            alpha_order_rate_max: 10,
            account_order_count: 119,
            account_order_rate_max: 180,
            cancel_reserve: 60,
            repeated_order_count: 2,
            repeated_order_max: 3,
            fill_pause_ns: 0,
            request_count: 1_000,
            request_count_max: 1_000,
            own_opposite_price: None,
            exit_blocked_by: None,
            net_pnl: -99,
            loss_latch: None,
            daily_loss_max: 100,
            drawdown: 99,
            drawdown_max: 100,
            loss_speed: 99,
            loss_speed_max: 100,
            account_net_pnl: -999,
            account_loss_latch: None,
            account_daily_loss_max: 1_000,
            account_drawdown: 999,
            account_drawdown_max: 1_000,
            account_loss_speed: 999,
            account_loss_speed_max: 1_000,
            reject_count: 5,
            reject_count_max: 5,
            unknown_count: 2,
            unknown_count_max: 2,
            has_capacity: true,
        }
    }
}
