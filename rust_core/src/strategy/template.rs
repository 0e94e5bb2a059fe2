//! The templates and their numbers, as the engine config spells them.
//!
//! Why: one flat table of numbers a kind, so that a manifest can put `$parameter` in any place.
//!
//! Invariants:
//! 1. A key that is missing or unknown is an error; none has a default.
//! 2. Lengths are ticks, rates are per second, inventory is counted in clips.
//!
//! Ranges are checked in `engine::validate`. Operator's page: `docs/strategies.md`.

use serde::{Deserialize, Serialize};

/// How a signal becomes orders.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Template {
    /// Crosses the spread on a strong signal and leaves on a weak one or after a time.
    Taker {
        /// Enter when the signal's size reaches this.
        entry_ticks: f64,
        /// Leave when signal times side falls to this.
        exit_ticks: f64,
        /// Leave after this long, ns.
        hold_ns: i64,
        /// How far behind the best price the limit may be.
        slippage_ticks: i64,
    },
    /// Quotes both sides around a skewed mid.
    Maker {
        /// Distance of each quote from its center.
        half_spread_ticks: f64,
        /// Move a quote only when the wanted price is this far away.
        requote_ticks: f64,
        /// Ticks of center per tick of signal.
        signal_skew: f64,
        /// Ticks of center per clip of position, against the position.
        inventory_skew_ticks: f64,
    },
    /// A taker that enters only where the signal pays for the round trip.
    CostTaker(CostTaker),
    /// The quotes of `maker`, moved only when that is worth the queue place.
    QueueMaker(QueueMaker),
    /// Quotes of Avellaneda and Stoikov.
    AvellanedaStoikovMaker(AvellanedaStoikovMaker),
    /// Quotes of Guéant, Lehalle and Fernandez-Tapia.
    GlftMaker(GlftMaker),
    /// Holds the position that the signal asks for.
    Target(Target),
    /// A plain Python strategy outside the engine sends intents as records: slow, for prototypes,
    /// at most shadow.
    External {
        /// How far behind the best price the engine may close its position.
        slippage_ticks: i64,
    },
    /// Another engine decides and sends its intents as records, at any stage: this one is its
    /// gateway and takes them through the steps again, with the account's state.
    Remote {
        /// How far behind the best price the engine may close its position.
        slippage_ticks: i64,
    },
}

/// Numbers of [`Template::CostTaker`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CostTaker {
    /// Enter when the signal's size reaches this, and the cost of the round trip.
    pub entry_ticks: f64,
    /// Leave when signal times side falls to this.
    pub exit_ticks: f64,
    /// Leave after this long, ns.
    pub hold_ns: i64,
    /// How far behind the best price the limit may be.
    pub slippage_ticks: i64,
    /// The signal must be this much larger than spread, fees and tax of the round trip.
    pub cost_margin_ticks: f64,
}

/// Numbers of [`Template::QueueMaker`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueMaker {
    /// Distance of each quote from its center.
    pub half_spread_ticks: f64,
    /// Ticks of center per clip of position, against the position.
    pub inventory_skew_ticks: f64,
    /// Ticks of center per tick of signal.
    pub signal_skew: f64,
    /// Keep a quote while the wanted price is nearer than this.
    pub requote_ticks: f64,
    /// Move a quote only when the new place is worth this much more.
    pub requote_gain_ticks: f64,
    /// Mean quantity that trades at a price before the price moves away, lots.
    pub queue_lots: f64,
    /// Move a quote that earns less than this, whatever its place.
    pub edge_ticks_min: f64,
}

/// Numbers of [`Template::AvellanedaStoikovMaker`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AvellanedaStoikovMaker {
    /// Risk aversion, per tick and clip.
    pub gamma: f64,
    /// Decay of the rate of fills with distance, per tick.
    pub k: f64,
    /// Where the volatility comes from.
    pub sigma_source: SigmaSource,
    /// Volatility, ticks per square root of a second; the smallest one used when it is measured.
    pub sigma_ticks: f64,
    /// What the time left is counted to.
    pub horizon: Horizon,
    /// Time left when it is rolling, the most of it when it ends with the session, ns.
    pub horizon_ns: i64,
    /// Ticks of center per tick of signal.
    pub signal_skew: f64,
    /// Keep a quote while the wanted price is nearer than this.
    pub requote_ticks: f64,
    /// Move a quote only when the new place is worth this much more.
    pub requote_gain_ticks: f64,
    /// Mean quantity that trades at a price before the price moves away, lots.
    pub queue_lots: f64,
    /// Move a quote that earns less than this, whatever its place.
    pub edge_ticks_min: f64,
}

/// Numbers of [`Template::GlftMaker`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GlftMaker {
    /// Risk aversion, per tick and clip.
    pub gamma: f64,
    /// Decay of the rate of fills with distance, per tick.
    pub k: f64,
    /// Rate of fills of a quote at the mid, per second.
    pub fills_per_s: f64,
    /// Where the volatility comes from.
    pub sigma_source: SigmaSource,
    /// Volatility, ticks per square root of a second; the smallest one used when it is measured.
    pub sigma_ticks: f64,
    /// Ticks of center per tick of signal.
    pub signal_skew: f64,
    /// Keep a quote while the wanted price is nearer than this.
    pub requote_ticks: f64,
    /// Move a quote only when the new place is worth this much more.
    pub requote_gain_ticks: f64,
    /// Mean quantity that trades at a price before the price moves away, lots.
    pub queue_lots: f64,
    /// Move a quote that earns less than this, whatever its place.
    pub edge_ticks_min: f64,
}

/// Numbers of [`Template::Target`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Signal that asks for one clip.
    pub ticks_per_clip: f64,
    /// A signal smaller than this asks for no position.
    pub dead_band_ticks: f64,
    /// Largest position asked for, clips.
    pub clips_max: f64,
    /// Smallest change that is traded, clips.
    pub trade_clips_min: f64,
    /// Rest at the own best price this long before crossing, ns; 0 crosses at once.
    pub patience_ns: i64,
    /// Follow the own best price when it is this far away.
    pub requote_ticks: f64,
    /// How far behind the best price the limit of a crossing order may be.
    pub slippage_ticks: i64,
}

/// Where a maker's volatility comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SigmaSource {
    /// `sigma_ticks`.
    Stated,
    /// The feature `volatility_10s`, at least `sigma_ticks`.
    Measured,
}

/// What the time left of [`AvellanedaStoikovMaker`] is counted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Horizon {
    /// Always `horizon_ns`.
    Rolling,
    /// The end of the session's last `open` window, at most `horizon_ns`.
    SessionEnd,
}

impl Template {
    /// Whether the wishes come from outside the engine, as intent records.
    #[must_use]
    pub fn is_outside(&self) -> bool {
        matches!(self, Self::External { .. } | Self::Remote { .. })
    }

    /// How far behind the best price an order that leaves a position may be.
    #[must_use]
    pub fn slippage_ticks(&self) -> i64 {
        match *self {
            Self::Taker { slippage_ticks, .. }
            | Self::External { slippage_ticks }
            | Self::Remote { slippage_ticks } => slippage_ticks,
            Self::CostTaker(rule) => rule.slippage_ticks,
            Self::Target(rule) => rule.slippage_ticks,
            Self::Maker { .. }
            | Self::QueueMaker(_)
            | Self::AvellanedaStoikovMaker(_)
            | Self::GlftMaker(_) => 0,
        }
    }
}
