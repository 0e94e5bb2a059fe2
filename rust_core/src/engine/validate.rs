//! Checks a config as a whole before an engine is made of it.

mod template;

use super::{
    AccountLimits, AlphaConfig, CONFIG_SCHEMA, EngineConfig, EngineError, InstrumentConfig,
    KernelConfig, SessionConfig, Stage, Template,
};
use crate::book::VALUE_MAX;
use crate::features::{FEATURES, feature_id};
use crate::kernel::{COMPILER_BYTES_MAX, PARAMETER_COUNT_MAX, SOURCE_BYTES_MAX, STATE_COUNT_MAX};
use crate::risk::WINDOW_COUNT_MAX;
use crate::storm_guard::{Input, Level, StormConfig};

/// Instruments of one engine.
pub const INSTRUMENT_COUNT_MAX: usize = 256;
/// Alphas of one engine.
pub const ALPHA_COUNT_MAX: usize = 64;
/// Windows of one session.
pub const PHASE_COUNT_MAX: usize = 64;
/// Full size, in ppm.
pub const WEIGHT_PPM_MAX: u64 = 1_000_000;
/// Ticks and skews beyond this are not meant.
const TICKS_MAX: f64 = 1e9;

pub(super) fn hex32(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0_u8; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(bytes)
}

struct Checker {
    path: String,
}

impl Checker {
    fn fail(&self, field: &str, value: impl std::fmt::Display, allowed: &str) -> EngineError {
        EngineError::OutOfRange {
            field: format!("{}{field}", self.path),
            value: value.to_string(),
            allowed: allowed.to_owned(),
        }
    }

    fn require(
        &self,
        holds: bool,
        field: &str,
        value: impl std::fmt::Display,
        allowed: &str,
    ) -> Result<(), EngineError> {
        if holds {
            Ok(())
        } else {
            Err(self.fail(field, value, allowed))
        }
    }

    /// A scaled value above zero that fits `Decimal(18, 8)`.
    fn positive(&self, field: &str, value: i64) -> Result<(), EngineError> {
        self.require(
            (1..=VALUE_MAX).contains(&value),
            field,
            value,
            "1 to 999999999999999999",
        )
    }

    fn finite(&self, field: &str, value: f64, low: f64) -> Result<(), EngineError> {
        self.require(
            (low..=TICKS_MAX).contains(&value),
            field,
            value,
            &format!("{low} to {TICKS_MAX}"),
        )
    }

    fn bps(&self, field: &str, value: i64) -> Result<(), EngineError> {
        self.require((1..=10_000).contains(&value), field, value, "1 to 10000")
    }

    /// An amount of money or a duration that limits something.
    fn above_zero(&self, field: &str, value: i64) -> Result<(), EngineError> {
        self.require(value > 0, field, value, "above 0")
    }

    fn count(&self, field: &str, count: usize, low: usize, high: usize) -> Result<(), EngineError> {
        self.require(
            (low..=high).contains(&count),
            field,
            count,
            &format!("{low} to {high}"),
        )
    }

    fn word(&self, field: &str, word: &str, bytes_max: usize) -> Result<(), EngineError> {
        let is_fine = !word.is_empty()
            && word.len() <= bytes_max
            && word.chars().all(|letter| letter.is_ascii_graphic());
        self.require(
            is_fine,
            field,
            format!("'{word}'"),
            &format!("1 to {bytes_max} printable ASCII letters"),
        )
    }
}

/// The first thing in `config` that does not hold.
pub(super) fn validate(config: &EngineConfig) -> Result<(), EngineError> {
    let root = Checker {
        path: String::new(),
    };
    root.require(config.schema == CONFIG_SCHEMA, "schema", config.schema, "1")?;
    root.count(
        "instruments",
        config.instruments.len(),
        1,
        INSTRUMENT_COUNT_MAX,
    )?;
    root.count("alphas", config.alphas.len(), 0, ALPHA_COUNT_MAX)?;
    session(&config.session)?;
    for (place, instrument_config) in config.instruments.iter().enumerate() {
        let is_new = config.instruments[..place]
            .iter()
            .all(|other| other.instrument_id != instrument_config.instrument_id);
        instrument(place, instrument_config, is_new)?;
    }
    for (place, alpha_config) in config.alphas.iter().enumerate() {
        alpha(place, alpha_config, config)?;
    }
    account(&config.account_limits)?;
    storm_guard(&config.storm_guard)
}

fn session(config: &SessionConfig) -> Result<(), EngineError> {
    let at = Checker {
        path: "session.".to_owned(),
    };
    at.word("session_id", &config.session_id, 64)?;
    let day = config.trading_day;
    let is_day = (1..=31).contains(&(day % 100))
        && (1..=12).contains(&(day / 100 % 100))
        && day / 10_000 >= 1_970;
    at.require(is_day, "trading_day", day, "a date as yyyymmdd")?;
    at.count("phases", config.phases.len(), 1, PHASE_COUNT_MAX)?;
    let mut previous_end = i64::MIN;
    for (place, window) in config.phases.iter().enumerate() {
        let field = format!("phases[{place}]");
        let is_ordered = window.start_ns >= previous_end && window.end_ns > window.start_ns;
        at.require(
            is_ordered,
            &field,
            format!("{} to {}", window.start_ns, window.end_ns),
            "windows in time order without overlap",
        )?;
        previous_end = window.end_ns;
    }
    Ok(())
}

fn instrument(place: usize, config: &InstrumentConfig, is_new: bool) -> Result<(), EngineError> {
    let at = Checker {
        path: format!("instruments[{place}]."),
    };
    at.require(
        config.instrument_id > 0 && is_new,
        "instrument_id",
        config.instrument_id,
        "above 0 and unique",
    )?;
    at.word("symbol", &config.symbol, 24)?;
    at.positive("tick_size", config.tick_size)?;
    if let Some(ladder) = &config.tick_bands {
        at.require(
            ladder
                .bands()
                .iter()
                .any(|band| band.tick == config.tick_size),
            "tick_size",
            config.tick_size,
            "the tick of one of tick_bands",
        )?;
    }
    let ticks = config.ticks();
    at.positive("lot_size", config.lot_size)?;
    at.positive("multiplier", config.multiplier)?;
    for (field, limit) in [
        ("limit_up", config.limit_up),
        ("limit_down", config.limit_down),
    ] {
        if let Some(limit) = limit {
            at.positive(field, limit)?;
            at.require(
                ticks.is_on_grid(limit),
                field,
                limit,
                "a multiple of its tick",
            )?;
        }
    }
    at.require(
        config.limit_up.is_some() == config.limit_down.is_some(),
        "limit_up",
        config
            .limit_up
            .map_or_else(|| "null".to_owned(), |limit| limit.to_string()),
        "both daily limits or neither",
    )?;
    if let (Some(up), Some(down)) = (config.limit_up, config.limit_down) {
        at.require(up > down, "limit_up", up, "above limit_down")?;
    }
    if let Some(cap) = config.order_qty_max {
        at.positive("order_qty_max", cap)?;
        at.require(
            cap % config.lot_size == 0,
            "order_qty_max",
            cap,
            "a multiple of lot_size",
        )?;
    }
    if let Some(width) = config.banding_bps {
        at.bps("banding_bps", width)?;
    }
    config
        .costs
        .validate()
        .map_err(|error| EngineError::Malformed(format!("instruments[{place}].{error}")))
}

fn alpha(place: usize, config: &AlphaConfig, whole: &EngineConfig) -> Result<(), EngineError> {
    let at = Checker {
        path: format!("alphas[{place}]."),
    };
    at.require(
        config.alpha_index as usize == place,
        "alpha_index",
        config.alpha_index,
        "its place in the list",
    )?;
    at.word("alpha_id", &config.alpha_id, 64)?;
    let is_new = whole.alphas[..place]
        .iter()
        .all(|other| other.alpha_id != config.alpha_id);
    at.require(is_new, "alpha_id", &config.alpha_id, "unique")?;
    let instrument = whole
        .instruments
        .iter()
        .find(|instrument| instrument.instrument_id == config.instrument_id);
    let Some(instrument) = instrument else {
        return Err(at.fail("instrument_id", config.instrument_id, "one of instruments"));
    };
    let is_lots = |qty: i64| qty % instrument.lot_size == 0;
    at.positive("order_qty", config.order_qty)?;
    at.require(
        is_lots(config.order_qty),
        "order_qty",
        config.order_qty,
        "a multiple of lot_size",
    )?;
    at.require(config.ttl_ns > 0, "ttl_ns", config.ttl_ns, "above 0")?;
    at.positive("limits.order_qty_max", config.limits.order_qty_max)?;
    at.require(
        is_lots(config.limits.order_qty_max),
        "limits.order_qty_max",
        config.limits.order_qty_max,
        "a multiple of lot_size",
    )?;
    at.positive("limits.position_qty_max", config.limits.position_qty_max)?;
    at.require(
        config.limits.daily_loss_max > 0,
        "limits.daily_loss_max",
        config.limits.daily_loss_max,
        "above 0",
    )?;
    at.require(
        config.limits.drawdown_max > 0,
        "limits.drawdown_max",
        config.limits.drawdown_max,
        "above 0",
    )?;
    at.above_zero("limits.loss_speed_max", config.limits.loss_speed_max)?;
    at.count(
        "limits.order_rate_max",
        config.limits.order_rate_max as usize,
        1,
        WINDOW_COUNT_MAX,
    )?;
    at.require(
        config.weight_ppm <= WEIGHT_PPM_MAX,
        "weight_ppm",
        config.weight_ppm,
        "0 to 1000000",
    )?;
    let is_hash = config.config_sha256.is_empty() || hex32(&config.config_sha256).is_some();
    at.require(
        is_hash,
        "config_sha256",
        &config.config_sha256,
        "64 hex digits or empty",
    )?;
    at.require(
        config.on_withdrawal.deadline_ns >= 0,
        "on_withdrawal.deadline_ns",
        config.on_withdrawal.deadline_ns,
        "0 or more",
    )?;
    let is_external = matches!(config.template, Template::External { .. });
    if is_external && config.stage > Stage::Shadow {
        return Err(EngineError::External {
            field: format!("{}stage", at.path),
        });
    }
    let count = usize::from(!config.expression.is_empty()) + usize::from(config.kernel.is_some());
    at.require(
        count == usize::from(!config.template.is_outside()),
        "expression",
        format!("'{}'", config.expression),
        "one of expression and kernel, not both; neither with template external or remote",
    )?;
    if let Some(kernel_config) = &config.kernel {
        kernel(&at, kernel_config, config)?;
    }
    template(&at, &config.template)
}

fn kernel(at: &Checker, config: &KernelConfig, whole: &AlphaConfig) -> Result<(), EngineError> {
    at.word("kernel.id", &config.id, 64)?;
    at.require(
        hex32(&config.sha256).is_some(),
        "kernel.sha256",
        &config.sha256,
        "64 hex digits",
    )?;
    at.count("kernel.features", config.features.len(), 1, FEATURES.len())?;
    for name in &config.features {
        at.require(
            feature_id(name).is_some(),
            "kernel.features",
            format!("'{name}'"),
            "names of features (docs/features.md)",
        )?;
    }
    let parameter_count = config.parameters.len();
    at.count("kernel.parameters", parameter_count, 0, PARAMETER_COUNT_MAX)?;
    for name in &config.parameters {
        let value = whole.parameters.get(name).copied();
        at.require(
            value.is_some_and(f64::is_finite),
            "kernel.parameters",
            format!("'{name}'"),
            "names of parameters with a finite value",
        )?;
    }
    at.count("kernel.state_count", config.state_count, 0, STATE_COUNT_MAX)?;
    at.require(
        config.sign.abs() == 1,
        "kernel.sign",
        config.sign,
        "+1 or -1",
    )?;
    let (source, compiler) = (config.source.len(), config.compiler.len());
    at.count("kernel.source", source, 1, SOURCE_BYTES_MAX)?;
    at.count("kernel.compiler", compiler, 1, COMPILER_BYTES_MAX)
}

fn template(at: &Checker, config: &Template) -> Result<(), EngineError> {
    match *config {
        Template::External { slippage_ticks } | Template::Remote { slippage_ticks } => at.require(
            (0..=1_000_000).contains(&slippage_ticks),
            "template.slippage_ticks",
            slippage_ticks,
            "0 to 1000000",
        ),
        Template::Taker {
            entry_ticks,
            exit_ticks,
            hold_ns,
            slippage_ticks,
        } => {
            at.finite("template.entry_ticks", entry_ticks, f64::MIN_POSITIVE)?;
            at.finite("template.exit_ticks", exit_ticks, -TICKS_MAX)?;
            at.require(
                exit_ticks < entry_ticks,
                "template.exit_ticks",
                exit_ticks,
                "below entry_ticks",
            )?;
            at.require(hold_ns > 0, "template.hold_ns", hold_ns, "above 0")?;
            at.require(
                (0..=1_000_000).contains(&slippage_ticks),
                "template.slippage_ticks",
                slippage_ticks,
                "0 to 1000000",
            )
        }
        Template::Maker {
            half_spread_ticks,
            requote_ticks,
            signal_skew,
            inventory_skew_ticks,
        } => {
            at.finite("template.half_spread_ticks", half_spread_ticks, 0.0)?;
            at.finite("template.requote_ticks", requote_ticks, f64::MIN_POSITIVE)?;
            at.finite("template.signal_skew", signal_skew, -TICKS_MAX)?;
            at.finite("template.inventory_skew_ticks", inventory_skew_ticks, 0.0)
        }
        Template::CostTaker(rule) => template::cost_taker(at, &rule),
        Template::QueueMaker(rule) => template::queue_maker(at, &rule),
        Template::AvellanedaStoikovMaker(rule) => template::avellaneda_stoikov(at, &rule),
        Template::GlftMaker(rule) => template::glft(at, &rule),
        Template::Target(rule) => template::target(at, &rule),
    }
}

fn account(config: &AccountLimits) -> Result<(), EngineError> {
    let at = Checker {
        path: "account_limits.".to_owned(),
    };
    at.require(
        config.gross_notional_max > 0,
        "gross_notional_max",
        config.gross_notional_max,
        "above 0",
    )?;
    at.above_zero("net_notional_max", config.net_notional_max)?;
    at.above_zero("position_lots_max", config.position_lots_max)?;
    at.above_zero("daily_loss_max", config.daily_loss_max)?;
    at.above_zero("drawdown_max", config.drawdown_max)?;
    at.above_zero("loss_speed_max", config.loss_speed_max)?;
    if let Some(least) = config.free_margin_min {
        at.require(least >= 0, "free_margin_min", least, "0 or more, or null")?;
    }
    at.above_zero("account_age_ns_max", config.account_age_ns_max)?;
    for (field, limit) in [
        ("reject_rate_max", config.reject_rate_max),
        ("unknown_rate_max", config.unknown_rate_max),
        ("one_side_fill_max", config.one_side_fill_max),
    ] {
        at.count(field, limit as usize, 1, WINDOW_COUNT_MAX - 1)?;
    }
    at.require(
        config.order_to_trade_max > 0,
        "order_to_trade_max",
        config.order_to_trade_max,
        "above 0",
    )?;
    at.bps("exit_collar_bps", config.exit_collar_bps)?;
    at.require(
        config.exit_collar_bps >= config.price_collar_bps,
        "exit_collar_bps",
        config.exit_collar_bps,
        "price_collar_bps or more: an exit is never held tighter than an entry",
    )?;
    if let Some(limit) = config.clock_skew_ns_max {
        at.above_zero("clock_skew_ns_max", limit)?;
    }
    at.count(
        "order_rate_max",
        config.order_rate_max as usize,
        1,
        WINDOW_COUNT_MAX,
    )?;
    let has_room = config.cancel_reserve < config.order_rate_max;
    at.require(
        has_room,
        "cancel_reserve",
        config.cancel_reserve,
        "below order_rate_max",
    )?;
    at.require(
        (1..=10_000).contains(&config.price_collar_bps),
        "price_collar_bps",
        config.price_collar_bps,
        "1 to 10000",
    )?;
    at.require(
        config.quote_age_ns_max > 0,
        "quote_age_ns_max",
        config.quote_age_ns_max,
        "above 0",
    )?;
    at.count(
        "repeated_order_max",
        config.repeated_order_max as usize,
        1,
        WINDOW_COUNT_MAX,
    )
}

/// Name of an input's thresholds in the config.
fn band_name(input: Input) -> &'static str {
    match input {
        Input::Drawdown => "drawdown_bps",
        Input::FeedGap => "feed_gap_ns",
        Input::LoopLag => "loop_lag_ns",
        Input::OrderRtt => "order_rtt_ns",
        Input::RejectRate => "reject_count",
        Input::Drift => "drift_reports",
        Input::FeatureFailures => "feature_failures",
        Input::NormaliserFailures => "normaliser_failures",
    }
}

fn storm_guard(config: &StormConfig) -> Result<(), EngineError> {
    let at = Checker {
        path: "storm_guard.".to_owned(),
    };
    for input in Input::ALL {
        band(&at, input, config)?;
    }
    at.require(
        config.risk_capital > 0,
        "risk_capital",
        config.risk_capital,
        "above 0",
    )?;
    at.count("clears", config.clears as usize, 1, WINDOW_COUNT_MAX)?;
    for (field, value) in [
        ("open_grace_ns", config.open_grace_ns),
        ("cool_down_warm_ns", config.cool_down_warm_ns),
        ("cool_down_storm_ns", config.cool_down_storm_ns),
        ("hold_warm_ns", config.hold_warm_ns),
        ("hold_storm_ns", config.hold_storm_ns),
    ] {
        at.require(value >= 0, field, value, "0 or more")?;
    }
    for (field, value) in [
        ("failure_window_ns", config.failure_window_ns),
        ("resume_window_ns", config.resume_window_ns),
    ] {
        at.require(value > 0, field, value, "above 0")?;
    }
    Ok(())
}

/// Thresholds come in pairs, each left below where it is taken, and rise with the level.
fn band(at: &Checker, input: Input, config: &StormConfig) -> Result<(), EngineError> {
    let is_count = matches!(
        input,
        Input::RejectRate | Input::FeatureFailures | Input::NormaliserFailures
    );
    let mut milder = (1, 0);
    for (level, enter, leave) in config.band(input).pairs() {
        let prefix = match level {
            Level::Halt => "halt",
            Level::Storm => "storm",
            Level::Warm | Level::Clear => "warm",
        };
        let field = |end: &str| format!("{}.{prefix}_{end}", band_name(input));
        let (enter, leave) = match (enter, leave) {
            (None, None) => continue,
            (Some(enter), Some(leave)) => (enter, leave),
            (Some(_), None) => {
                return Err(at.fail(&field("out"), "null", "a number below its _in"));
            }
            (None, Some(leave)) => {
                return Err(at.fail(&field("out"), leave, "null while its _in is null"));
            }
        };
        at.require(
            enter >= milder.0,
            &field("in"),
            enter,
            "above 0, and not below a milder level's",
        )?;
        // A window holds so many entries, so a higher count would never be reached.
        at.require(
            !is_count || enter <= i64::try_from(WINDOW_COUNT_MAX).unwrap_or(i64::MAX),
            &field("in"),
            enter,
            &format!("at most {WINDOW_COUNT_MAX}"),
        )?;
        at.require(
            (milder.1..enter).contains(&leave),
            &field("out"),
            leave,
            "below its _in, and not below a milder level's",
        )?;
        milder = (enter, leave);
    }
    Ok(())
}
