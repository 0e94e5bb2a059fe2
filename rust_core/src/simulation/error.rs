//! Why a simulation cannot start or go on.

use super::SinkError;
use crate::convert::ConvertError;
use crate::exchange::VenueError;
use crate::faults::FaultError;
use crate::latency::LatencyError;
use crate::reason::ReasonCode;

/// Why a simulation cannot start or go on.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SimulationError {
    /// The market tape is not one.
    #[error(transparent)]
    Tape(#[from] ConvertError),
    /// The latency profile is not one.
    #[error(transparent)]
    Latency(#[from] LatencyError),
    /// The fault profile is not allowed.
    #[error(transparent)]
    Faults(#[from] FaultError),
    /// The venue failed.
    #[error(transparent)]
    Venue(#[from] VenueError),
    /// The sink failed: nothing leaves any more.
    #[error("log failed, so nothing more was sent: {0}")]
    Sink(#[from] SinkError),
    /// A field of the session's config cannot be put into a record.
    #[error("{field} was {value}, allowed is {allowed}")]
    Head {
        /// Which field.
        field: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
    /// An approved decision that asks for nothing known.
    #[error("approved decision {decision_seq} has {field} {value}, which no venue knows")]
    Decision {
        /// Which decision.
        decision_seq: u64,
        /// Which field.
        field: &'static str,
        /// Its value.
        value: u32,
    },
    /// Records come while none are waited for, or time is to pass that is not known yet.
    #[error("{action} is not possible: {state}")]
    Feed {
        /// What was asked.
        action: &'static str,
        /// How the feed stands.
        state: &'static str,
    },
    /// The session is over.
    #[error("the session has ended; nothing can be injected")]
    Ended,
}

impl SimulationError {
    /// Its number.
    #[must_use]
    pub fn code(&self) -> ReasonCode {
        match self {
            Self::Tape(error) => error.code(),
            Self::Latency(error) => error.code(),
            Self::Faults(error) => error.code(),
            Self::Venue(error) => error.code(),
            Self::Sink(error) => error.code,
            Self::Head { .. } => ReasonCode::ConfigMalformed,
            Self::Decision { .. } => ReasonCode::InvariantBroken,
            Self::Ended | Self::Feed { .. } => ReasonCode::SessionNotOpen,
        }
    }
}
