//! From the logs of earlier lives back to where a live session goes on.
//!
//! Why: starting is the recovery path; there is no other way to start.
//!
//! Invariants:
//! 1. The result is a function of the config and the logs.
//! 2. An epoch that is not above every one in the logs is refused before anything is written.
//!
//! Operator's page: `docs/live.md`.

use std::path::Path;

use super::orders::Orders;
use crate::engine::{APPROVED, BatchError, Engine, Recovered, Sequencer};
use crate::record::{
    ActionKind, DecisionRecord, EpochRecord, Record, RecordHeader, RecordType, RouteRecord, Tape,
};
use crate::session::SessionError;
use crate::wal::{WalError, read_log, recover_log};

/// What an earlier life left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveRecovery {
    /// True when there was none.
    pub is_new: bool,
    /// Lives before this one.
    pub epochs: u64,
    /// What the engine took back.
    pub engine: Recovered,
    /// Last input of the market log, 0 without one.
    pub market_last_seq: u64,
}

impl Default for LiveRecovery {
    fn default() -> Self {
        Self {
            is_new: true,
            epochs: 0,
            engine: Recovered::default(),
            market_last_seq: 0,
        }
    }
}

/// The logs of earlier lives.
pub(super) struct Earlier {
    orders: Vec<u8>,
    market_last: Option<RecordHeader>,
}

fn wal(error: WalError) -> SessionError {
    SessionError::Wal(Box::new(error))
}

/// Recovers and reads the logs in `dir`; `None` when there are none.
///
/// # Errors
/// [`SessionError`] when a log is damaged, or `epoch` is not above those in it.
pub(super) fn read(dir: &Path, epoch: u32) -> Result<Option<Earlier>, SessionError> {
    let mut tapes = [Vec::new(), Vec::new()];
    let mut has_any = false;
    for (tape, name) in tapes.iter_mut().zip(["market", "orders"]) {
        let log = dir.join(name);
        if !log.is_dir() {
            continue;
        }
        let report = recover_log(&log).map_err(wal)?;
        if report.last_seq.is_some() {
            has_any = true;
            *tape = read_log(&log).map_err(wal)?.tape;
        }
    }
    if !has_any {
        return Ok(None);
    }
    let [market, orders] = tapes;
    let market_last = Tape::new(&market).flatten().last().map(|item| item.0);
    let earlier = Earlier {
        orders,
        market_last,
    };
    let highest = earlier.epochs().max().unwrap_or(0);
    if u64::from(epoch) <= highest {
        return Err(SessionError::Options(format!(
            "epoch was {epoch}, the order log has {highest}; allowed is a higher one"
        )));
    }
    Ok(Some(earlier))
}

impl Earlier {
    fn of_type(&self, wanted: RecordType) -> impl Iterator<Item = &[u8]> {
        let items = Tape::new(&self.orders).flatten();
        items
            .filter(move |(header, _)| header.record_type == wanted as u8)
            .map(|(_, bytes)| bytes)
    }

    fn epochs(&self) -> impl Iterator<Item = u64> {
        self.of_type(RecordType::Epoch)
            .filter_map(EpochRecord::read)
            .map(|record| record.epoch)
    }

    /// Every Route record, a tape.
    pub(super) fn routes(&self) -> Vec<u8> {
        self.of_type(RecordType::Route)
            .filter(|bytes| RouteRecord::read(bytes).is_some())
            .flatten()
            .copied()
            .collect()
    }

    /// Approved decisions to place an order, a tape.
    pub(super) fn place_decisions(&self) -> Vec<u8> {
        self.of_type(RecordType::Decision)
            .filter(|bytes| DecisionRecord::read(bytes).is_some_and(|one| is_place(&one)))
            .flatten()
            .copied()
            .collect()
    }

    /// Brings a fresh engine, the sequence and the orders to where the logs end.
    ///
    /// # Errors
    /// [`SessionError`] when the order log is none.
    pub(super) fn restore(
        &self,
        engine: &mut Engine,
        sequencer: &mut Sequencer,
        orders: &mut Orders,
    ) -> Result<LiveRecovery, SessionError> {
        let found = engine
            .recover(&self.orders)
            .map_err(|error: BatchError| SessionError::Options(error.to_string()))?;
        sequencer.continue_after(found.last_seq, found.last_time_ns);
        if let Some(last) = self.market_last {
            sequencer.continue_after(last.input_seq, last.sequence_time_ns);
        }
        let mut epoch = 0;
        for (header, bytes) in Tape::new(&self.orders).flatten() {
            if header.record_type == RecordType::Epoch as u8 {
                let record = EpochRecord::read(bytes);
                epoch = record.map_or(epoch, |one| u32::try_from(one.epoch).unwrap_or(u32::MAX));
            } else if let Some(decision) = DecisionRecord::read(bytes).filter(is_place) {
                orders.note(&decision, epoch);
            }
        }
        Ok(LiveRecovery {
            is_new: false,
            epochs: self.epochs().count() as u64,
            engine: found,
            market_last_seq: self.market_last.map_or(0, |last| last.input_seq),
        })
    }
}

fn is_place(decision: &DecisionRecord) -> bool {
    decision.verdict == APPROVED && decision.action == ActionKind::Place as u32
}
