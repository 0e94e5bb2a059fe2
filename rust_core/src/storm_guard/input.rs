//! What the guard looks at, and how a number becomes a level.

use serde::{Deserialize, Deserializer, Serialize};

use super::StormState;
use crate::reason::ReasonCode;

/// Number of inputs.
pub const INPUT_COUNT: usize = 8;

/// One thing that can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Input {
    /// The account's fall from its best result.
    Drawdown = 0,
    /// Silence of the feed while the market is open.
    FeedGap = 1,
    /// The runtime's loop is late.
    LoopLag = 2,
    /// Requests are answered late.
    OrderRtt = 3,
    /// Rejects and unknown outcomes.
    RejectRate = 4,
    /// The broker's position is not ours.
    Drift = 5,
    /// Signals that are no numbers any more.
    FeatureFailures = 6,
    /// Payloads that could not be read.
    NormaliserFailures = 7,
}

impl Input {
    /// Every input, in the order of their numbers.
    pub const ALL: [Self; INPUT_COUNT] = [
        Self::Drawdown,
        Self::FeedGap,
        Self::LoopLag,
        Self::OrderRtt,
        Self::RejectRate,
        Self::Drift,
        Self::FeatureFailures,
        Self::NormaliserFailures,
    ];

    /// The code to give for it.
    #[must_use]
    pub fn code(self) -> ReasonCode {
        match self {
            Self::Drawdown => ReasonCode::StormDrawdown,
            Self::FeedGap => ReasonCode::StormFeedGap,
            Self::LoopLag => ReasonCode::StormLoopLag,
            Self::OrderRtt => ReasonCode::StormOrderRtt,
            Self::RejectRate => ReasonCode::StormRejectRate,
            Self::Drift => ReasonCode::StormPositionDrift,
            Self::FeatureFailures => ReasonCode::StormFeatureFailures,
            Self::NormaliserFailures => ReasonCode::StormNormaliserFailures,
        }
    }

    /// The input whose code this is.
    #[must_use]
    pub fn from_code(code: ReasonCode) -> Option<Self> {
        Self::ALL.into_iter().find(|input| input.code() == code)
    }
}

/// How bad one input is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Nothing.
    Clear = 0,
    /// Worth reporting.
    Warm = 1,
    /// No order that opens.
    Storm = 2,
    /// Stop.
    Halt = 3,
}

impl Level {
    /// The state that a level asks for.
    #[must_use]
    pub fn state(self) -> StormState {
        match self {
            Self::Clear => StormState::Normal,
            Self::Warm => StormState::Warm,
            Self::Storm => StormState::Storm,
            Self::Halt => StormState::Halt,
        }
    }
}

/// A present key whose value may be null; leaving the key out is an error.
fn nullable<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    Option::<i64>::deserialize(deserializer)
}

/// Thresholds of one input; null is never. A level is taken at `_in` and left at `_out`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Band {
    /// WARM from here.
    #[serde(deserialize_with = "nullable")]
    pub warm_in: Option<i64>,
    /// Until here.
    #[serde(deserialize_with = "nullable")]
    pub warm_out: Option<i64>,
    /// STORM from here.
    #[serde(deserialize_with = "nullable")]
    pub storm_in: Option<i64>,
    /// Until here.
    #[serde(deserialize_with = "nullable")]
    pub storm_out: Option<i64>,
    /// HALT from here.
    #[serde(deserialize_with = "nullable")]
    pub halt_in: Option<i64>,
    /// A resume is refused until here.
    #[serde(deserialize_with = "nullable")]
    pub halt_out: Option<i64>,
}

impl Band {
    /// A band that never speaks.
    pub const NEVER: Self = Self {
        warm_in: None,
        warm_out: None,
        storm_in: None,
        storm_out: None,
        halt_in: None,
        halt_out: None,
    };

    /// Pairs of thresholds with the level they stand for, mildest first.
    #[must_use]
    pub fn pairs(&self) -> [(Level, Option<i64>, Option<i64>); 3] {
        [
            (Level::Warm, self.warm_in, self.warm_out),
            (Level::Storm, self.storm_in, self.storm_out),
            (Level::Halt, self.halt_in, self.halt_out),
        ]
    }

    /// The level of `value` behind `previous`.
    #[must_use]
    pub fn level(&self, previous: Level, value: i64) -> Level {
        let mut level = Level::Clear;
        for (of, enter, leave) in self.pairs() {
            let is_reached = enter.is_some_and(|enter| value >= enter);
            let is_kept = previous >= of && leave.is_some_and(|leave| value > leave);
            if is_reached || is_kept {
                level = of;
            }
        }
        level
    }

    /// The lowest threshold that is taken.
    #[must_use]
    pub fn lowest(&self) -> i64 {
        let taken = self.pairs().into_iter().filter_map(|pair| pair.1);
        taken.min().unwrap_or(i64::MAX)
    }

    /// The threshold that leads into `state`, or 0.
    #[must_use]
    pub fn limit(&self, state: StormState) -> i64 {
        let found = self
            .pairs()
            .into_iter()
            .find(|pair| pair.0.state() == state);
        found.and_then(|pair| pair.1).unwrap_or(0)
    }
}
