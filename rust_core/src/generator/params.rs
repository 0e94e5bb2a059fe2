//! Parameters of a generated market, as Python hands them over.
//!
//! Why: the calibration is data (`hft_platform/defaults/generator.yaml`), so that it is hashed with
//! the dataset and can be changed without a build.
//!
//! Invariants:
//! 1. Unknown fields and values outside their range are refused before anything is generated.
//! 2. Sessions are in time order and do not overlap.
//!
//! It reads no files and no calendar. Operator's page: `docs/generator.md`.

use serde::Deserialize;

use crate::reason::ReasonCode;

/// Longest session: one week.
const SESSION_NS_MAX: i64 = 7 * 24 * 3_600 * 1_000_000_000;
/// Most sessions of one market.
const SESSION_COUNT_MAX: usize = 10_000;
/// Widest spread the weights may name, ticks.
pub(super) const SPREAD_TICKS_MAX: usize = 16;
/// Largest queue the weights may name, lots.
const QUEUE_LOTS_MAX: usize = 64;
/// Shortest session: room for a few updates.
const SESSION_NS_MIN: i64 = 1_000_000_000;
/// Feed slot of the market; updates fall on its multiples.
pub(super) const SLOT_NS: i64 = 125_000_000;

/// Why a market cannot be generated.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GeneratorError {
    /// Not JSON, or a field missing, unknown or of the wrong type.
    #[error("generator parameters: {0}")]
    Malformed(String),
    /// A value outside its range.
    #[error("generator parameter {name} is {value}, allowed is {allowed}")]
    OutOfRange {
        /// Which one.
        name: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        allowed: &'static str,
    },
    /// No session of that number.
    #[error("session {index} of {count}: numbers start at 0")]
    NoSuchSession {
        /// Which was asked for.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// The price left the range in which five positive levels exist.
    #[error(
        "the price reached {ticks} ticks in session {index}; choose a start price with more room"
    )]
    PriceExhausted {
        /// Best bid, ticks.
        ticks: i64,
        /// Which session.
        index: usize,
    },
}

impl GeneratorError {
    /// The number of the reason.
    #[must_use]
    pub fn code(&self) -> ReasonCode {
        match self {
            Self::Malformed(_) | Self::OutOfRange { .. } => ReasonCode::SettingsInvalid,
            Self::NoSuchSession { .. } | Self::PriceExhausted { .. } => ReasonCode::ValueOutOfRange,
        }
    }
}

/// What the hidden state does to the price.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Edge {
    /// Nothing: the imbalance looks the same and means nothing.
    None {},
    /// The mid moves by +-`strength_ticks` in the mean over `horizon_s`.
    Planted {
        /// Mean mid move over the horizon, given the state.
        strength_ticks: f64,
        /// Horizon, also the mean holding time of the state.
        horizon_s: f64,
    },
    /// Planted before session `dies_at_session`, nothing from it on.
    Dying {
        /// As in `Planted`.
        strength_ticks: f64,
        /// As in `Planted`.
        horizon_s: f64,
        /// First session (0-based) without drift.
        dies_at_session: u64,
    },
}

/// Hours of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionTimes {
    /// Exchange trading day, yyyymmdd.
    pub trading_day: u32,
    /// First moment, ns UTC.
    pub start_ns: i64,
    /// First moment after it, ns UTC.
    pub end_ns: i64,
}

/// The calibrated market: round numbers, see `docs/generator.md`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MarketModel {
    /// Best bid at the first session's start.
    pub start_price_ticks: i64,
    /// Mean number of book updates due per slot at activity 1.
    pub updates_per_slot: f64,
    /// Share of updates published off the slot grid.
    pub off_grid_share: f64,
    /// Standard deviation of the fast log activity.
    pub activity_fast_sd: f64,
    /// Its memory, seconds.
    pub activity_fast_s: f64,
    /// Standard deviation of the slow log activity.
    pub activity_slow_sd: f64,
    /// Its memory, seconds.
    pub activity_slow_s: f64,
    /// Probability that both sides move in an update, at activity 1.
    pub move_probability: f64,
    /// Probability that a move goes one tick further, at activity 1.
    pub move_continuation: f64,
    /// Largest move of one update, ticks.
    pub move_ticks_max: i64,
    /// How strongly the ranks of the best queues tilt the direction of the next move (0 to 0.5).
    pub queue_pressure: f64,
    /// Stationary weight of spreads of 1, 2, 3 ... ticks.
    pub spread_weights: Vec<f64>,
    /// Probability that an update proposes another spread.
    pub spread_change: f64,
    /// Weights of best-level queues of 1, 2, 3 ... lots.
    pub queue_best_weights: Vec<f64>,
    /// Weights of the second level's queues.
    pub queue_second_weights: Vec<f64>,
    /// Weights of deeper queues.
    pub queue_deep_weights: Vec<f64>,
    /// Probability that an unmoved best queue is drawn anew.
    pub queue_refresh: f64,
    /// Probability that an unmoved best queue changes by one lot.
    pub queue_step: f64,
    /// The same for each deeper level.
    pub queue_deep_step: f64,
    /// How strongly the hidden state tilts the best queues (exponent of their ranks).
    pub queue_tilt: f64,
    /// Probability that a tick behind the best holds no order.
    pub level_gap: f64,
    /// Mean holding time of the hidden state without an edge, seconds.
    pub state_hold_s: f64,
    /// Mean aggressive orders per update at activity 1.
    pub orders_per_update: f64,
    /// Mean further aggressive orders per tick that a side moves away.
    pub orders_per_tick: f64,
    /// Probability that an aggressive order prints once more.
    pub print_continuation: f64,
    /// Probability that an order in an update whose mid moves has the move's side.
    pub side_follows_move: f64,
    /// Probability that another order repeats the last side.
    pub side_repeats: f64,
    /// Weight of the long-lived side among orders that do not repeat.
    pub side_persistent: f64,
    /// Probability that the long-lived side turns at an order.
    pub side_turns: f64,
    /// Share of prints one or more ticks beyond the shown best.
    pub print_beyond: f64,
    /// Share of prints one tick inside the shown best.
    pub print_inside: f64,
    /// Weights of prints of 1, 2, 3 ... lots.
    pub print_weights: Vec<f64>,
    /// Smallest delay from exchange to receipt, microseconds.
    pub feed_delay_us: f64,
    /// Mean of the exponential part of that delay, microseconds.
    pub feed_jitter_us: f64,
}

/// Everything that decides a generated market.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GeneratorParams {
    /// Seed of every stream.
    pub seed: u64,
    /// Instrument of the records.
    pub instrument_id: u32,
    /// Tick size, scaled.
    pub tick_size: i64,
    /// Lot size, scaled.
    pub lot_size: i64,
    /// Multiplier on updates and prints per second.
    pub activity: f64,
    /// What the hidden state does.
    pub edge: Edge,
    /// Hours of every session, in time order.
    pub sessions: Vec<SessionTimes>,
    /// Calibration.
    pub model: MarketModel,
}

impl GeneratorParams {
    /// Reads and checks parameters.
    ///
    /// # Errors
    /// `Malformed` when the JSON does not fit, `OutOfRange` naming the field.
    pub fn from_json(text: &str) -> Result<Self, GeneratorError> {
        let params: Self = serde_json::from_str(text)
            .map_err(|error| GeneratorError::Malformed(error.to_string()))?;
        params.check()?;
        Ok(params)
    }

    /// Ticks per second of drift while the state is +1, in a session.
    ///
    /// The state's conditional mean decays as exp(-u / hold), so over a horizon h equal to the
    /// holding time the mid moves drift * h * (1 - 1/e).
    #[must_use]
    pub fn drift_ticks_per_s(&self, session_index: usize) -> f64 {
        match self.edge {
            Edge::Planted {
                strength_ticks,
                horizon_s,
            } => drift(strength_ticks, horizon_s),
            Edge::Dying {
                strength_ticks,
                horizon_s,
                dies_at_session,
            } if (session_index as u64) < dies_at_session => drift(strength_ticks, horizon_s),
            Edge::None {} | Edge::Dying { .. } => 0.0,
        }
    }

    /// Mean holding time of the hidden state, seconds.
    #[must_use]
    pub fn state_hold_s(&self) -> f64 {
        match self.edge {
            Edge::None {} => self.model.state_hold_s,
            Edge::Planted { horizon_s, .. } | Edge::Dying { horizon_s, .. } => horizon_s,
        }
    }

    /// Hours of a session.
    ///
    /// # Errors
    /// `NoSuchSession` beyond the last.
    pub fn session(&self, index: usize) -> Result<SessionTimes, GeneratorError> {
        self.sessions
            .get(index)
            .copied()
            .ok_or(GeneratorError::NoSuchSession {
                index,
                count: self.sessions.len(),
            })
    }

    fn check(&self) -> Result<(), GeneratorError> {
        whole(
            "instrument_id",
            i64::from(self.instrument_id),
            1,
            i64::from(u32::MAX),
            "1 or more",
        )?;
        whole(
            "tick_size",
            self.tick_size,
            1,
            1_000_000_000_000,
            "1 to 1e12 scaled units",
        )?;
        whole(
            "lot_size",
            self.lot_size,
            1,
            1_000_000_000_000,
            "1 to 1e12 scaled units",
        )?;
        within("activity", self.activity, 0.05, 20.0, "0.05 to 20")?;
        if let Edge::Planted {
            strength_ticks,
            horizon_s,
        }
        | Edge::Dying {
            strength_ticks,
            horizon_s,
            ..
        } = self.edge
        {
            within(
                "edge.strength_ticks",
                strength_ticks,
                -100.0,
                100.0,
                "-100 to 100",
            )?;
            within("edge.horizon_s", horizon_s, 0.5, 3_600.0, "0.5 to 3600")?;
        }
        let count = i64::try_from(self.sessions.len()).unwrap_or(i64::MAX);
        whole(
            "number of sessions",
            count,
            1,
            SESSION_COUNT_MAX as i64,
            "1 to 10000",
        )?;
        let mut previous_end = 0;
        for times in &self.sessions {
            whole(
                "session start_ns",
                times.start_ns,
                previous_end,
                i64::MAX / 2,
                "not before the previous end",
            )?;
            let length = times.end_ns.saturating_sub(times.start_ns);
            whole(
                "session length in ns",
                length,
                SESSION_NS_MIN,
                SESSION_NS_MAX,
                "1 s to one week",
            )?;
            previous_end = times.end_ns;
        }
        let dearest = i128::from(self.model.start_price_ticks) * i128::from(self.tick_size) * 2;
        if dearest > i128::from(i64::MAX) {
            return Err(out_of_range(
                "model.start_price_ticks",
                self.model.start_price_ticks,
                "a price that fits with twice its size",
            ));
        }
        self.model.check()
    }
}

impl MarketModel {
    fn check(&self) -> Result<(), GeneratorError> {
        whole(
            "model.start_price_ticks",
            self.start_price_ticks,
            100,
            1_000_000_000,
            "100 to 1e9",
        )?;
        whole(
            "model.move_ticks_max",
            self.move_ticks_max,
            1,
            100,
            "1 to 100",
        )?;
        within(
            "model.queue_pressure",
            self.queue_pressure,
            0.0,
            0.5,
            "0 to 0.5",
        )?;
        for (name, value) in [
            ("model.updates_per_slot", self.updates_per_slot),
            ("model.activity_fast_s", self.activity_fast_s),
            ("model.activity_slow_s", self.activity_slow_s),
            ("model.state_hold_s", self.state_hold_s),
        ] {
            within(name, value, 0.01, 100_000.0, "0.01 to 100000")?;
        }
        for (name, value) in [
            ("model.activity_fast_sd", self.activity_fast_sd),
            ("model.activity_slow_sd", self.activity_slow_sd),
            ("model.queue_tilt", self.queue_tilt),
        ] {
            within(name, value, 0.0, 2.0, "0 to 2")?;
        }
        for (name, value) in [
            ("model.orders_per_update", self.orders_per_update),
            ("model.orders_per_tick", self.orders_per_tick),
        ] {
            within(name, value, 0.0, 5.0, "0 to 5")?;
        }
        for (name, value) in [
            ("model.feed_delay_us", self.feed_delay_us),
            ("model.feed_jitter_us", self.feed_jitter_us),
        ] {
            within(name, value, 0.0, 1_000_000.0, "0 to one second")?;
        }
        self.check_probabilities()?;
        weights(
            "model.spread_weights",
            &self.spread_weights,
            SPREAD_TICKS_MAX,
        )?;
        weights(
            "model.queue_best_weights",
            &self.queue_best_weights,
            QUEUE_LOTS_MAX,
        )?;
        weights(
            "model.queue_second_weights",
            &self.queue_second_weights,
            QUEUE_LOTS_MAX,
        )?;
        weights(
            "model.queue_deep_weights",
            &self.queue_deep_weights,
            QUEUE_LOTS_MAX,
        )?;
        weights("model.print_weights", &self.print_weights, QUEUE_LOTS_MAX)
    }

    fn check_probabilities(&self) -> Result<(), GeneratorError> {
        for (name, value) in [
            ("model.off_grid_share", self.off_grid_share),
            ("model.move_probability", self.move_probability),
            ("model.move_continuation", self.move_continuation),
            ("model.spread_change", self.spread_change),
            ("model.queue_refresh", self.queue_refresh),
            ("model.queue_step", self.queue_step),
            ("model.queue_deep_step", self.queue_deep_step),
            ("model.level_gap", self.level_gap),
            ("model.print_continuation", self.print_continuation),
            ("model.side_follows_move", self.side_follows_move),
            ("model.side_repeats", self.side_repeats),
            ("model.side_persistent", self.side_persistent),
            ("model.side_turns", self.side_turns),
            ("model.print_beyond", self.print_beyond),
            ("model.print_inside", self.print_inside),
        ] {
            within(name, value, 0.0, 1.0, "0 to 1")?;
        }
        within("model.level_gap", self.level_gap, 0.0, 0.9, "0 to 0.9")
    }
}

fn drift(strength_ticks: f64, horizon_s: f64) -> f64 {
    strength_ticks / (horizon_s * (1.0 - libm::exp(-1.0)))
}

fn out_of_range(name: &'static str, value: impl ToString, allowed: &'static str) -> GeneratorError {
    GeneratorError::OutOfRange {
        name,
        value: value.to_string(),
        allowed,
    }
}

fn within(
    name: &'static str,
    value: f64,
    low: f64,
    high: f64,
    allowed: &'static str,
) -> Result<(), GeneratorError> {
    if (low..=high).contains(&value) {
        Ok(())
    } else {
        Err(out_of_range(name, value, allowed))
    }
}

fn whole(
    name: &'static str,
    value: i64,
    low: i64,
    high: i64,
    allowed: &'static str,
) -> Result<(), GeneratorError> {
    if (low..=high).contains(&value) {
        Ok(())
    } else {
        Err(out_of_range(name, value, allowed))
    }
}

fn weights(name: &'static str, values: &[f64], count_max: usize) -> Result<(), GeneratorError> {
    let fits = !values.is_empty()
        && values.len() <= count_max
        && values.iter().all(|value| value.is_finite() && *value > 0.0);
    if fits {
        Ok(())
    } else {
        Err(out_of_range(
            name,
            format!("{values:?}"),
            "a short list of positive weights",
        ))
    }
}
