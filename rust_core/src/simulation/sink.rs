//! Where a simulation's inputs and decisions go: memory here, the two logs in `session`.
//!
//! Why: a backtest keeps them to compare and account, a session must have them on disk first.
//!
//! Invariants:
//! 1. A sink gets inputs and decisions in the order the engine saw and made them.
//!
//! It changes no record. Operator's page: `docs/backtest.md`.

use crate::reason::ReasonCode;
use crate::record::{BrokerRecord, DecisionRecord, Record, RecordHeader, ShedRecord};

/// Where sequenced inputs and decisions go.
pub trait Sink {
    /// Takes one sequenced input.
    ///
    /// # Errors
    /// [`SinkError`]; the simulation then stops for good.
    fn input(&mut self, header: &RecordHeader, bytes: &[u8]) -> Result<(), SinkError>;

    /// Takes the decisions of one input; when it returns, approved ones may be acted on.
    ///
    /// # Errors
    /// [`SinkError`]; none of the decisions is acted on and the simulation stops for good.
    fn decisions(&mut self, decisions: &[DecisionRecord]) -> Result<(), SinkError>;

    /// A record that says which inputs were not stored, to be sequenced now; asked until there is
    /// none after every input, and with `is_last` when the market has ended.
    fn owed(&mut self, is_last: bool) -> Option<ShedRecord> {
        let _keeps_everything = is_last;
        None
    }
}

/// The log could not take a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SinkError {
    /// Its number.
    pub code: ReasonCode,
    /// What happened.
    pub message: String,
}

/// Keeps everything in memory: the sink of a backtest.
#[derive(Debug, Default)]
pub struct MemorySink {
    /// Sequenced inputs, a tape; empty when they are not collected.
    pub inputs: Vec<u8>,
    /// Broker records among them, a tape.
    pub broker: Vec<u8>,
    /// Decisions, a tape.
    pub decisions: Vec<u8>,
    /// Leave `inputs` empty, for sweeps that need fills only.
    pub skip_inputs: bool,
}

impl Sink for MemorySink {
    fn input(&mut self, header: &RecordHeader, bytes: &[u8]) -> Result<(), SinkError> {
        if header.record_type == BrokerRecord::TYPE as u8 {
            self.broker.extend_from_slice(bytes);
        }
        if !self.skip_inputs {
            self.inputs.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn decisions(&mut self, decisions: &[DecisionRecord]) -> Result<(), SinkError> {
        self.decisions
            .extend_from_slice(bytemuck::cast_slice(decisions));
        Ok(())
    }
}
