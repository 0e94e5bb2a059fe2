//! The engine: record in, decisions out.
//!
//! Why: backtest, paper and live must be one compiled state machine, or results mean nothing.
//!
//! Invariants:
//! 1. The same config and the same records give the same decisions, bit for bit.
//! 2. It reads no clock, does no I/O, draws no random number; time is `sequence_time_ns`.
//! 3. After construction it allocates nothing as long as `out` has room.
//!
//! It dispatches nothing and writes no log. Operator's page: `docs/architecture.md`.

mod config;
mod counters;

pub use config::{
    AccountLimits, AlphaConfig, AlphaLimits, CONFIG_SCHEMA, EngineConfig, InstrumentConfig, OnWithdrawal, Phase,
    PhaseWindow, SessionConfig, Stage, Template, WithdrawalAction,
};
pub use counters::Counters;

use crate::reason::ReasonCode;
use crate::record::{DecisionRecord, RecordHeader};

/// Why an engine could not be made.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EngineError {
    /// The JSON is not a config.
    #[error("engine config is malformed: {0}")]
    Malformed(String),
    /// A field's value is not allowed.
    #[error("engine config: {field} was {value}, allowed is {allowed}")]
    OutOfRange {
        /// Path of the field.
        field: String,
        /// Its value.
        value: String,
        /// What is allowed.
        allowed: String,
    },
}

impl EngineError {
    /// Its number.
    #[must_use]
    pub fn code(&self) -> ReasonCode {
        ReasonCode::ConfigMalformed
    }
}

/// The state machine.
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    counters: Counters,
}

impl Engine {
    /// An engine for `config`.
    ///
    /// # Errors
    /// [`EngineError`] when the config does not hold together.
    pub fn new(config: EngineConfig) -> Result<Self, EngineError> {
        Ok(Self { config, counters: Counters::default() })
    }

    /// An engine for a config in JSON.
    ///
    /// # Errors
    /// [`EngineError::Malformed`] when the text is not a config, else as [`Engine::new`].
    pub fn from_json(text: &str) -> Result<Self, EngineError> {
        let config = serde_json::from_str(text).map_err(|error| EngineError::Malformed(error.to_string()))?;
        Self::new(config)
    }

    /// Takes one sequenced input record and appends the decisions that follow from it to `out`.
    ///
    /// `header` is the record's head with `input_seq` and `sequence_time_ns` filled in; `bytes` is
    /// the whole record, whose own head may still be unsequenced.
    pub fn on_record(&mut self, header: &RecordHeader, bytes: &[u8], out: &mut Vec<DecisionRecord>) {
        let _being_built = (bytes, out);
        self.counters.count_record(header.record_type);
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The config in force at construction.
    #[must_use]
    pub fn config(&self) -> &EngineConfig {
        &self.config
    }
}
