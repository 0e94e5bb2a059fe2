//! What a session's folder already holds when a process takes it over.

use std::collections::BTreeSet;
use std::path::Path;

use super::options::LiveError;
use crate::engine::{Engine, Recovered};
use crate::record::{
    ActionKind, ConfigSwitchRecord, DecisionRecord, EpochRecord, Record, RecordType, RouteRecord,
    Tape,
};
use crate::wal::{SegmentInfo, WalError, list_segments, read_log};

/// `DecisionRecord::verdict` of an approval.
pub(super) const APPROVED: u32 = 1;

/// What was found, and where the session goes on.
#[derive(Debug, Clone, Default)]
pub struct Taken {
    /// What the engine took back.
    pub engine: Recovered,
    /// Highest input of both logs.
    pub last_seq: u64,
    /// Time of the last record of both logs.
    pub last_time_ns: i64,
    /// The logs held no record.
    pub is_new: bool,
    /// Highest epoch before this one, 0 without one.
    pub last_epoch: u64,
}

/// An approved order of the logs and the epoch that decided it.
#[derive(Debug, Clone, Copy)]
pub(super) struct PlacedBefore {
    pub(super) decision: DecisionRecord,
    pub(super) epoch: u64,
}

/// What the logs say beside what the engine takes.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) taken: Taken,
    pub(super) placed: Vec<PlacedBefore>,
    /// Alphas whose permit is in the log.
    pub(super) switched: BTreeSet<u32>,
}

fn is_there(dir: &Path) -> bool {
    dir.is_dir()
}

fn segments(dir: &Path) -> Result<Vec<SegmentInfo>, WalError> {
    if is_there(dir) {
        list_segments(dir)
    } else {
        Ok(Vec::new())
    }
}

/// The order log's records as they stand on disk.
pub(super) fn order_tape(session_dir: &Path) -> Result<Vec<u8>, WalError> {
    let dir = session_dir.join("orders");
    if is_there(&dir) {
        Ok(read_log(&dir)?.tape)
    } else {
        Ok(Vec::new())
    }
}

fn highest_epoch(session_dir: &Path, orders: &[u8]) -> Result<u64, WalError> {
    let mut highest = 0;
    for name in ["market", "orders"] {
        for info in segments(&session_dir.join(name))? {
            highest = highest.max(u64::from(info.epoch));
        }
    }
    for (_, bytes) in Tape::new(orders).flatten() {
        if let Some(record) = EpochRecord::read(bytes) {
            highest = highest.max(record.epoch);
        }
    }
    Ok(highest)
}

/// Refuses an epoch that is not above every one in the logs; before a log is opened, so that a
/// process that was replaced leaves no trace in them.
pub(super) fn check_epoch(session_dir: &Path, epoch: u32) -> Result<u64, LiveError> {
    let orders = order_tape(session_dir)?;
    let last = highest_epoch(session_dir, &orders)?;
    if u64::from(epoch) <= last {
        return Err(LiveError::from(WalError::EpochBehind {
            path: session_dir.to_path_buf(),
            was: epoch.into(),
            expected: last + 1,
        }));
    }
    Ok(last)
}

/// Takes the folder's logs back; both are open, so nobody else writes them.
pub(super) fn take_back(session_dir: &Path, engine: &mut Engine) -> Result<Found, LiveError> {
    let orders = order_tape(session_dir)?;
    let mut found = Found::default();
    let taken = &mut found.taken;
    taken.engine = engine.recover(&orders)?;
    taken.last_seq = taken.engine.last_seq;
    taken.last_time_ns = taken.engine.last_time_ns;
    let market = segments(&session_dir.join("market"))?;
    for stats in market.iter().filter_map(|info| info.stats) {
        taken.last_seq = taken.last_seq.max(stats.last_input_seq);
        taken.last_time_ns = taken.last_time_ns.max(stats.max_sequence_time_ns);
    }
    taken.is_new = taken.last_seq == 0;
    let mut epoch = 0;
    for item in Tape::new(&orders) {
        let (header, bytes) = item?;
        match RecordType::from_code(header.record_type) {
            Some(RecordType::Epoch) => {
                epoch = EpochRecord::read(bytes).map_or(epoch, |record| record.epoch);
            }
            Some(RecordType::ConfigSwitch) => {
                let record = ConfigSwitchRecord::read(bytes);
                found
                    .switched
                    .extend(record.map(|record| record.alpha_index));
            }
            Some(RecordType::Decision) => {
                if let Some(decision) = placed_order(bytes) {
                    found.placed.push(PlacedBefore { decision, epoch });
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

/// The decision in `bytes`, if it approved an order.
fn placed_order(bytes: &[u8]) -> Option<DecisionRecord> {
    DecisionRecord::read(bytes).filter(|decision| {
        decision.verdict == APPROVED && decision.action == ActionKind::Place as u32
    })
}

/// The records of a tape that `wanted` keeps.
fn filtered(tape: &[u8], wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut kept = Vec::new();
    for (_, bytes) in Tape::new(tape).flatten() {
        if wanted(bytes) {
            kept.extend_from_slice(bytes);
        }
    }
    kept
}

/// Every route of an order log.
pub(super) fn routes(orders: &[u8]) -> Vec<u8> {
    filtered(orders, |bytes| RouteRecord::read(bytes).is_some())
}

/// Every approved order of an order log.
pub(super) fn placed(orders: &[u8]) -> Vec<u8> {
    filtered(orders, |bytes| placed_order(bytes).is_some())
}
