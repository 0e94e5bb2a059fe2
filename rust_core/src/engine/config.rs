//! Engine config: everything a session's decisions depend on besides its records.
//!
//! Why: backtest, paper, live and replay take the same JSON, so they can be compared.
//!
//! Invariants:
//! 1. A field that is missing or unknown is an error; a limit has no default.
//! 2. `validate` passes before an engine exists, so the engine checks no config again.
//! 3. The canonical text is JSON with sorted keys and no spaces.
//!
//! It resolves no symbol and verifies no signature. Operator's page: `docs/formats.md`.

use serde::{Deserialize, Deserializer, Serialize};

use super::EngineError;
use crate::costs::CostModel;
use crate::storm_guard::StormConfig;
use crate::ticks::TickLadder;

/// Version of this layout.
pub const CONFIG_SCHEMA: u32 = 1;

pub use crate::strategy::Template;

/// A present key whose value may be null; leaving the key out is an error.
fn nullable<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    Option::<i64>::deserialize(deserializer)
}

/// The whole config of one engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineConfig {
    /// [`CONFIG_SCHEMA`].
    pub schema: u32,
    /// Which session, and when it is open.
    pub session: SessionConfig,
    /// Every instrument the engine may see.
    pub instruments: Vec<InstrumentConfig>,
    /// Every alpha that may trade; `alpha_index` is the place in this list.
    pub alphas: Vec<AlphaConfig>,
    /// Limits of the account as a whole.
    pub account_limits: AccountLimits,
    /// When trading is degraded or halted by itself.
    pub storm_guard: StormConfig,
}

impl EngineConfig {
    /// Reads a config and checks it as a whole.
    ///
    /// # Errors
    /// [`EngineError`] for text that is no config, or a field that does not hold.
    pub fn from_json(text: &str) -> Result<Self, EngineError> {
        let config: Self = serde_json::from_str(text)
            .map_err(|error| EngineError::Malformed(error.to_string()))?;
        super::validate::validate(&config)?;
        Ok(config)
    }
}

/// One trading session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionConfig {
    /// For example `2026-04-10/day`.
    pub session_id: String,
    /// Exchange trading day as yyyymmdd.
    pub trading_day: u32,
    /// Windows in time order; outside all of them the session is closed.
    pub phases: Vec<PhaseWindow>,
}

/// One window of a session; `start_ns` is inside, `end_ns` is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhaseWindow {
    /// First nanosecond.
    pub start_ns: i64,
    /// First nanosecond behind it.
    pub end_ns: i64,
    /// What is allowed in it.
    pub phase: Phase,
}

/// What a session window allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Before the open: no order yet, cancels pass.
    PreOpen,
    /// The last minutes before the open: neither orders nor cancels.
    NoCancel,
    /// Everything.
    Open,
    /// Only orders that reduce a position.
    CloseOnly,
    /// Positions are being closed.
    ForceFlat,
    /// The call auction that ends the session: what is still open may only be closed.
    CloseAuction,
}

/// One instrument, resolved from the market model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstrumentConfig {
    /// Stable number used in record headers.
    pub instrument_id: u32,
    /// Symbol, for messages.
    pub symbol: String,
    /// Tick size, scaled; with `tick_bands` that of the session's reference price, which signals are
    /// counted in.
    pub tick_size: i64,
    /// Where the step of price grows with the price; left out where it is `tick_size` everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tick_bands: Option<TickLadder>,
    /// Smallest tradable quantity, scaled.
    pub lot_size: i64,
    /// Money per 1.0 of price and 1.0 of quantity, scaled.
    pub multiplier: i64,
    /// Highest allowed price of the day; null on venues without daily limits.
    #[serde(deserialize_with = "nullable")]
    pub limit_up: Option<i64>,
    /// Lowest allowed price of the day; null on venues without daily limits.
    #[serde(deserialize_with = "nullable")]
    pub limit_down: Option<i64>,
    /// Largest quantity the exchange takes in one order, scaled; null where it has no cap.
    #[serde(deserialize_with = "nullable")]
    pub order_qty_max: Option<i64>,
    /// Width of the exchange's dynamic price band around the last print; null where there is none.
    #[serde(deserialize_with = "nullable")]
    pub banding_bps: Option<i64>,
    /// Whether it may be traded.
    pub eligibility: Eligibility,
    /// What a trade costs.
    pub costs: CostModel,
}

impl InstrumentConfig {
    /// The prices that orders may have.
    ///
    /// # Panics
    /// When `tick_size` is not above 0, which `validate` refuses.
    #[must_use]
    pub fn ticks(&self) -> TickLadder {
        self.tick_bands
            .unwrap_or_else(|| TickLadder::flat(self.tick_size))
    }
}

/// Whether an instrument may be traded within a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Eligibility {
    /// Without restriction.
    Full,
    /// Not to be bought and sold on one day: positions may only be reduced.
    NoDayTrade,
    /// Under disposition: matched in intervals and prepaid; positions may only be reduced.
    Disposition,
    /// Suspended: no order at all.
    Closed,
}

/// One alpha: expression, template, limits and its permit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlphaConfig {
    /// Place in the list, repeated as a check.
    pub alpha_index: u32,
    /// Stable name.
    pub alpha_id: String,
    /// What it reads and trades.
    pub instrument_id: u32,
    /// Expression over features and parameters; its value is ticks of expected move. Empty when a
    /// kernel computes it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub expression: String,
    /// Compiled function that computes the value, where no expression does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<KernelConfig>,
    /// Values of the named parameters.
    pub parameters: std::collections::BTreeMap<String, f64>,
    /// How the signal becomes orders.
    pub template: Template,
    /// One clip at full weight, scaled.
    pub order_qty: i64,
    /// How long an intent may wait for dispatch, ns.
    pub ttl_ns: i64,
    /// Limits at full weight.
    pub limits: AlphaLimits,
    /// What the permit allows.
    pub stage: Stage,
    /// Size as parts per million of full size.
    pub weight_ppm: u64,
    /// End of validity, ns UTC.
    pub expires_ns: i64,
    /// Sequence number of the promotion, 0 in research.
    pub promotion_seq: u64,
    /// SHA-256 of the promoted config in hex, empty in research.
    pub config_sha256: String,
    /// What becomes of a position when the permit ends.
    pub on_withdrawal: OnWithdrawal,
}

/// A kernel by what it is; where it lies in this process is told beside the config.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelConfig {
    /// Its name.
    pub id: String,
    /// Hash of its source, sizes, compiler and CPU target, in hex.
    pub sha256: String,
    /// Features it reads, in its order.
    pub features: Vec<String>,
    /// Parameters it reads, in its order.
    pub parameters: Vec<String>,
    /// Numbers of state it keeps.
    pub state_count: usize,
    /// +1, or -1 for the placebo that trades the other way.
    pub sign: i64,
    /// Text it was compiled from, so that a session's folder can be replayed anywhere.
    pub source: String,
    /// What compiled it for which CPU, for people; the hash covers it.
    pub compiler: String,
}

/// Limits of one alpha.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlphaLimits {
    /// Largest order, scaled.
    pub order_qty_max: i64,
    /// Largest position on either side, scaled.
    pub position_qty_max: i64,
    /// Largest loss of the session, scaled money.
    pub daily_loss_max: i64,
    /// Largest fall from the session's best result, scaled money.
    pub drawdown_max: i64,
    /// Largest fall within 60 s, scaled money.
    pub loss_speed_max: i64,
    /// New orders within 10 s.
    pub order_rate_max: u32,
}

/// What a permit allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Backtests only.
    Research,
    /// The paper exchange.
    Shadow,
    /// Small size.
    Canary,
    /// Full size.
    Live,
}

/// What becomes of a position when a permit ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnWithdrawal {
    /// The rule.
    pub action: WithdrawalAction,
    /// How long the rule may take before the position is closed anyway, ns.
    pub deadline_ns: i64,
}

/// The rules of [`OnWithdrawal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WithdrawalAction {
    /// Close at once.
    Flatten,
    /// Let the strategy leave by its own rules.
    ReduceOnly,
    /// Keep it until the session's force-flat window.
    HoldToClose,
}

/// Limits of the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountLimits {
    /// Gross value of positions and open orders, scaled money.
    pub gross_notional_max: i64,
    /// Net value on either side with its open orders filled, scaled money.
    pub net_notional_max: i64,
    /// Largest position on either side of one instrument over all alphas, in lots.
    pub position_lots_max: i64,
    /// Largest loss of the session over all alphas, scaled money.
    pub daily_loss_max: i64,
    /// Largest fall from the session's best result over all alphas, scaled money.
    pub drawdown_max: i64,
    /// Largest fall within 60 s over all alphas, scaled money.
    pub loss_speed_max: i64,
    /// Least free margin behind an opening order, scaled money; null on venues without margin.
    #[serde(deserialize_with = "nullable")]
    pub free_margin_min: Option<i64>,
    /// Oldest answer of the broker about margin, ns.
    pub account_age_ns_max: i64,
    /// Broker requests within 10 s: the hard limit, for cancels and exits.
    pub order_rate_max: u32,
    /// Part of `order_rate_max` that only cancels and reducing orders may use.
    pub cancel_reserve: u32,
    /// Requests of the session for each fill, beyond the first thousand.
    pub order_to_trade_max: u32,
    /// Broker rejects and unknown outcomes within 60 s.
    pub reject_rate_max: u32,
    /// Unknown outcomes within 60 s.
    pub unknown_rate_max: u32,
    /// Fills of one alpha on one side within 10 s; more pause that side for 60 s.
    pub one_side_fill_max: u32,
    /// Largest distance of an opening order from the mid.
    pub price_collar_bps: i64,
    /// Largest distance of an exit beyond the best price on the other side.
    pub exit_collar_bps: i64,
    /// Oldest book an order may be based on, ns.
    pub quote_age_ns_max: i64,
    /// Largest difference between exchange time and receive time of a book, ns; null when it is
    /// not looked at.
    #[serde(deserialize_with = "nullable")]
    pub clock_skew_ns_max: Option<i64>,
    /// Equal orders (instrument, side, price, quantity) within 1 s.
    pub repeated_order_max: u32,
}
