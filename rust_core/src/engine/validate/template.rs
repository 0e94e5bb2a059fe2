//! Ranges of the templates' numbers.

use super::{Checker, EngineError, TICKS_MAX, Template};
use crate::strategy::{
    AvellanedaStoikovMaker, CostTaker, GlftMaker, QueueMaker, SigmaSource, Target,
};

/// One day.
const DAY_NS: i64 = 86_400_000_000_000;

impl Checker {
    fn within(&self, field: &str, value: f64, low: f64, high: f64) -> Result<(), EngineError> {
        self.require(
            (low..=high).contains(&value),
            field,
            value,
            &format!("{low} to {high}"),
        )
    }

    /// Numbers that two quoting rules share; in this range their formulas stay finite.
    fn quoting_model(
        &self,
        gamma: f64,
        k: f64,
        source: SigmaSource,
        sigma_ticks: f64,
    ) -> Result<(), EngineError> {
        self.within("template.gamma", gamma, 1e-6, 1e3)?;
        self.within("template.k", k, 1e-4, 1e4)?;
        // A measured volatility may have no floor; a stated one of zero would be a slip.
        let low = match source {
            SigmaSource::Stated => 1e-6,
            SigmaSource::Measured => 0.0,
        };
        self.within("template.sigma_ticks", sigma_ticks, low, 1e6)
    }

    /// A duration of at most a day.
    fn duration(&self, field: &str, value: i64, low: i64) -> Result<(), EngineError> {
        let allowed = format!("{low} to {DAY_NS}");
        self.require((low..=DAY_NS).contains(&value), field, value, &allowed)
    }

    /// How quotes follow the signal and the wanted price.
    fn following(&self, signal_skew: f64, requote_ticks: f64) -> Result<(), EngineError> {
        self.finite("template.signal_skew", signal_skew, -TICKS_MAX)?;
        self.finite("template.requote_ticks", requote_ticks, f64::MIN_POSITIVE)
    }

    /// Numbers of the rule that values a queue place.
    fn queue_value(
        &self,
        requote_gain_ticks: f64,
        queue_lots: f64,
        edge_ticks_min: f64,
    ) -> Result<(), EngineError> {
        self.finite("template.requote_gain_ticks", requote_gain_ticks, 0.0)?;
        self.finite("template.queue_lots", queue_lots, f64::MIN_POSITIVE)?;
        self.finite("template.edge_ticks_min", edge_ticks_min, 0.0)
    }
}

pub(super) fn cost_taker(at: &Checker, rule: &CostTaker) -> Result<(), EngineError> {
    at.finite("template.cost_margin_ticks", rule.cost_margin_ticks, 0.0)?;
    let plain = Template::Taker {
        entry_ticks: rule.entry_ticks,
        exit_ticks: rule.exit_ticks,
        hold_ns: rule.hold_ns,
        slippage_ticks: rule.slippage_ticks,
    };
    super::template(at, &plain)
}

pub(super) fn queue_maker(at: &Checker, rule: &QueueMaker) -> Result<(), EngineError> {
    let plain = Template::Maker {
        half_spread_ticks: rule.half_spread_ticks,
        requote_ticks: rule.requote_ticks,
        signal_skew: rule.signal_skew,
        inventory_skew_ticks: rule.inventory_skew_ticks,
    };
    super::template(at, &plain)?;
    at.queue_value(
        rule.requote_gain_ticks,
        rule.queue_lots,
        rule.edge_ticks_min,
    )
}

pub(super) fn avellaneda_stoikov(
    at: &Checker,
    rule: &AvellanedaStoikovMaker,
) -> Result<(), EngineError> {
    at.quoting_model(rule.gamma, rule.k, rule.sigma_source, rule.sigma_ticks)?;
    at.duration("template.horizon_ns", rule.horizon_ns, 1)?;
    at.following(rule.signal_skew, rule.requote_ticks)?;
    at.queue_value(
        rule.requote_gain_ticks,
        rule.queue_lots,
        rule.edge_ticks_min,
    )
}

pub(super) fn glft(at: &Checker, rule: &GlftMaker) -> Result<(), EngineError> {
    at.quoting_model(rule.gamma, rule.k, rule.sigma_source, rule.sigma_ticks)?;
    at.within("template.fills_per_s", rule.fills_per_s, 1e-6, 1e6)?;
    at.following(rule.signal_skew, rule.requote_ticks)?;
    at.queue_value(
        rule.requote_gain_ticks,
        rule.queue_lots,
        rule.edge_ticks_min,
    )
}

pub(super) fn target(at: &Checker, rule: &Target) -> Result<(), EngineError> {
    at.finite(
        "template.ticks_per_clip",
        rule.ticks_per_clip,
        f64::MIN_POSITIVE,
    )?;
    at.finite("template.dead_band_ticks", rule.dead_band_ticks, 0.0)?;
    at.within("template.clips_max", rule.clips_max, 1.0, 1e6)?;
    at.within("template.trade_clips_min", rule.trade_clips_min, 0.0, 1e6)?;
    at.duration("template.patience_ns", rule.patience_ns, 0)?;
    at.finite(
        "template.requote_ticks",
        rule.requote_ticks,
        f64::MIN_POSITIVE,
    )?;
    at.require(
        (0..=1_000_000).contains(&rule.slippage_ticks),
        "template.slippage_ticks",
        rule.slippage_ticks,
        "0 to 1000000",
    )
}
