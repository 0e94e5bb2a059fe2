//! What a live session is opened with, and why it is refused.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::queue::HONEST_COUNT_MAX;
use crate::engine::{BatchError, EngineError};
use crate::kernel::Kernels;
use crate::reason::ReasonCode;
use crate::record::TapeError;
use crate::session::{Durability, SessionOptions};
use crate::simulation::{Contract, SimulationError, SinkError};
use crate::wal::{SyncDelay, WalError};

/// Requests of a queue when nobody says otherwise.
const QUEUE_CAPACITY: usize = 1_024;
/// Most requests a queue may hold.
const QUEUE_CAPACITY_MAX: usize = 65_536;
const SEGMENT_BYTES: u64 = 64 << 20;
const GROUP_COMMIT_MS: u64 = 10;

/// How a live session is kept.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiveOptions {
    /// Identity of both logs.
    pub wal_id: u32,
    /// Fencing number of this process's lease, above every one in the logs.
    pub epoch: u32,
    /// The process that opens it, for the log's reader; this one where it is not said.
    #[serde(default)]
    pub process_id: Option<u64>,
    /// When a request may leave.
    #[serde(default)]
    pub durable: Durability,
    /// Size of a segment.
    #[serde(default = "segment_bytes")]
    pub segment_bytes: u64,
    /// Longest time a record waits for its sync, ms.
    #[serde(default = "group_commit_ms")]
    pub group_commit_ms: u64,
    /// Age at which a segment is sealed, s.
    #[serde(default)]
    pub seal_after_s: Option<u64>,
    /// Resolved contracts by instrument.
    #[serde(default)]
    pub contracts: BTreeMap<u32, Contract>,
    /// Requests that may wait for the dispatcher.
    #[serde(default = "queue_capacity")]
    pub queue_capacity: usize,
    /// The clock at opening, ns UTC: receive time of the records made here. Without it they follow
    /// the last record by 1 ns each.
    #[serde(default)]
    pub opened_ns: i64,
    /// Makes every sync take long, for drills; nothing that trades sets it.
    #[serde(default)]
    pub drill_sync_delay: Option<SyncDelay>,
}

fn segment_bytes() -> u64 {
    SEGMENT_BYTES
}

fn group_commit_ms() -> u64 {
    GROUP_COMMIT_MS
}

fn queue_capacity() -> usize {
    QUEUE_CAPACITY
}

impl LiveOptions {
    /// Reads them from JSON.
    ///
    /// # Errors
    /// [`LiveError::Options`] for what is missing, unknown or out of range.
    pub fn from_json(text: &str) -> Result<Self, LiveError> {
        let options: Self =
            serde_json::from_str(text).map_err(|error| LiveError::Options(error.to_string()))?;
        let allowed = HONEST_COUNT_MAX..=QUEUE_CAPACITY_MAX;
        if !allowed.contains(&options.queue_capacity) {
            return Err(LiveError::Options(format!(
                "queue_capacity was {}, allowed is {} to {}",
                options.queue_capacity,
                allowed.start(),
                allowed.end()
            )));
        }
        if options.epoch == 0 {
            return Err(LiveError::Options(
                "epoch was 0, the first lease has 1".to_owned(),
            ));
        }
        Ok(options)
    }

    pub(super) fn logs(&self) -> SessionOptions {
        SessionOptions {
            wal_id: self.wal_id,
            durable: self.durable,
            segment_bytes: self.segment_bytes,
            group_commit_ms: self.group_commit_ms,
            epoch: self.epoch,
            drill_sync_delay: self.drill_sync_delay,
            seal_after_s: self.seal_after_s,
        }
    }
}

/// Everything a live session needs.
#[derive(Debug)]
pub struct LiveSetup {
    /// Engine config, JSON.
    pub engine_config: String,
    /// Folder of the session.
    pub session_dir: PathBuf,
    /// How it is kept.
    pub options: LiveOptions,
    /// Kernels that the config names.
    pub kernels: Kernels,
}

/// Why a live session cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// The options are not valid.
    #[error("live session options are malformed: {0}")]
    Options(String),
    /// The engine refused its config.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A contract does not fit its record.
    #[error(transparent)]
    Head(#[from] SimulationError),
    /// A log could not be opened or read.
    #[error(transparent)]
    Wal(Box<WalError>),
    /// The order log could not be taken back.
    #[error("order log: {0}")]
    Recovery(#[from] BatchError),
    /// A log failed: nothing leaves any more.
    #[error("log failed, so nothing more is sent: {0}")]
    Failed(SinkError),
    /// Bytes that are no tape; nothing of it was taken.
    #[error("nothing of the tape was taken: {0}")]
    Tape(#[from] TapeError),
    /// A record that only the session itself makes; nothing of the tape was taken.
    #[error("nothing of the tape was taken: record type {record_type} is none that is pushed")]
    NotAnInput {
        /// Its type code.
        record_type: u8,
    },
    /// The dispatcher is so far behind that no market record is taken.
    #[error("{waiting} requests wait for the dispatcher, {allowed} may; no market record is taken")]
    Behind {
        /// Requests that wait.
        waiting: usize,
        /// How many may.
        allowed: usize,
    },
    /// Used after its end.
    #[error("the live session is over")]
    Over,
}

impl From<WalError> for LiveError {
    fn from(error: WalError) -> Self {
        Self::Wal(Box::new(error))
    }
}

impl LiveError {
    /// Its number.
    #[must_use]
    pub fn code(&self) -> ReasonCode {
        match self {
            Self::Options(_) => ReasonCode::SettingsInvalid,
            Self::Engine(error) => error.code(),
            Self::Head(error) => error.code(),
            Self::Wal(error) => error.code(),
            Self::Recovery(error) => error.code(),
            Self::Failed(failure) => failure.code,
            Self::Tape(_) | Self::NotAnInput { .. } => ReasonCode::SchemaMismatch,
            Self::Behind { .. } => ReasonCode::CapacityReached,
            Self::Over => ReasonCode::SessionNotOpen,
        }
    }
}
