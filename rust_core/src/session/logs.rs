//! The two logs of a session, as what the simulation gives its records and decisions to.
//!
//! Why: a record is in exactly one log, and what is approved is durable before its request leaves.
//!
//! Invariants: 1, 2 and 3 of the session. What the shedder leaves out is in no log, and only it is.
//!
//! It opens no session and knows no market.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::record::{ActionKind, DecisionRecord, RecordHeader, RecordType, ShedRecord};
use crate::shed::Shedder;
use crate::simulation::{Sink, SinkError};
use crate::wal::{FRAME_HEADER_BYTES, LogKind, Options, SyncDelay, Syncer, WalError, Writer};

/// When an approved decision may be acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Once it is on disk.
    #[default]
    Record,
    /// Once it is appended; the group commit follows within its time.
    Group,
}

/// How a session's logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionOptions {
    /// Identity of both logs.
    pub wal_id: u32,
    /// When an approved decision may be acted on.
    #[serde(default)]
    pub durable: Durability,
    /// Size of a segment.
    #[serde(default = "segment_bytes")]
    pub segment_bytes: u64,
    /// Longest time a record waits for its sync, ms.
    #[serde(default = "group_commit_ms")]
    pub group_commit_ms: u64,
    /// Fencing number of the writer.
    #[serde(default = "epoch")]
    pub epoch: u32,
    /// Makes every sync take long, for drills; nothing that trades sets it.
    #[serde(default)]
    pub drill_sync_delay: Option<SyncDelay>,
    /// Age at which a segment is sealed, s; without it only size and trading day count. For paced
    /// sessions: the wall clock moves where segments end, never what is in them.
    #[serde(default)]
    pub seal_after_s: Option<u64>,
}

fn segment_bytes() -> u64 {
    64 << 20
}

fn group_commit_ms() -> u64 {
    10
}

fn epoch() -> u32 {
    1
}

/// The two logs as a sink.
#[derive(Debug)]
pub struct WalSink {
    pub(crate) market: Writer,
    pub(crate) orders: Writer,
    pub(crate) durability: Durability,
    pub(crate) shedder: Shedder,
    pub(crate) written: WrittenBytes,
    pub(crate) is_market_lost: bool,
    /// Its session halts for that: what is decided now is the way out.
    pub(crate) is_halting: bool,
}

/// Bytes that went to the logs, frames included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WrittenBytes {
    /// To the market log.
    pub market: u64,
    /// To the order log.
    pub orders: u64,
}

fn framed(bytes: usize, count: usize) -> u64 {
    // A frame is padded to 8 bytes, and so is every record.
    (bytes + count * FRAME_HEADER_BYTES) as u64
}

pub(crate) fn sink_error(error: &WalError) -> SinkError {
    SinkError {
        code: error.code(),
        message: error.to_string(),
    }
}

impl WalSink {
    /// Opens `market/` and `orders/` in a session's folder.
    ///
    /// # Errors
    /// [`WalError`] when a log cannot be opened.
    pub fn open(session_dir: &Path, options: SessionOptions) -> Result<Self, WalError> {
        let open = |name: &str, kind: LogKind| {
            let writer = Options {
                wal_id: options.wal_id,
                kind,
                segment_bytes: options.segment_bytes,
                group_commit: Duration::from_millis(options.group_commit_ms),
                epoch: options.epoch,
                seal_after: options.seal_after_s.map(Duration::from_secs),
                // What the market log eats must not keep an order out of its log.
                reserve: kind == LogKind::Orders,
            };
            let dir = session_dir.join(name);
            match options.drill_sync_delay {
                None => Writer::open(&dir, writer),
                Some(delay) => Writer::open_slowed(&dir, writer, delay),
            }
        };
        let market = open("market", LogKind::Market)?;
        let orders = open("orders", LogKind::Orders)?;
        Ok(Self::of(market, orders, options.durable))
    }

    pub(crate) fn of(market: Writer, orders: Writer, durability: Durability) -> Self {
        Self {
            market,
            orders,
            durability,
            shedder: Shedder::default(),
            written: WrittenBytes::default(),
            is_market_lost: false,
            is_halting: false,
        }
    }

    /// Seals both logs and returns the last sequence of each.
    ///
    /// # Errors
    /// [`WalError`] of the first that fails.
    pub fn seal(self) -> Result<(u64, u64), WalError> {
        let (market, orders) = (self.market.seal(), self.orders.seal());
        Ok((market?, orders?))
    }
}

impl Sink for WalSink {
    fn input(&mut self, header: &RecordHeader, bytes: &[u8]) -> Result<(), SinkError> {
        let is_order = RecordType::from_code(header.record_type)
            .is_some_and(|record_type| LogKind::Orders.holds(record_type));
        if is_order {
            self.written.orders += framed(bytes.len(), 1);
            return self
                .orders
                .append(bytes)
                .map(drop)
                .map_err(|error| sink_error(&error));
        }
        if self.shedder.leaves_out(header, bytes) {
            return Ok(());
        }
        self.written.market += framed(bytes.len(), 1);
        self.market.append(bytes).map(drop).map_err(|error| {
            self.is_market_lost = true;
            sink_error(&error)
        })
    }

    fn decisions(&mut self, decisions: &[DecisionRecord]) -> Result<(), SinkError> {
        let must_wait = self.wait_for(decisions) != WaitFor::Nothing;
        self.append_decisions(decisions, must_wait).map(drop)
    }

    fn owed(&mut self, is_last: bool) -> Option<ShedRecord> {
        if is_last {
            self.shedder.end_all();
        }
        self.shedder.owed()
    }
}

/// What of some decisions must be durable before anything follows from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WaitFor {
    /// Nothing.
    Nothing,
    /// The request that one of them asks for.
    Request,
    /// Whatever comes next: a halt or a loss limit is among them.
    Latch,
}

impl WalSink {
    /// What must wait until these decisions are durable.
    #[must_use]
    pub fn wait_for(&self, decisions: &[DecisionRecord]) -> WaitFor {
        const APPROVED: u32 = 1;
        let is_approved = |decision: &DecisionRecord| decision.verdict == APPROVED;
        // A halt and a loss limit must outlive a crash in every mode: whoever comes next reads them here.
        let is_latch = |decision: &DecisionRecord| {
            [ActionKind::PolicyChange, ActionKind::LossLatch]
                .into_iter()
                .any(|kind| decision.action == kind as u32)
        };
        if decisions.iter().any(is_latch) {
            WaitFor::Latch
        } else if self.durability == Durability::Record && decisions.iter().any(is_approved) {
            WaitFor::Request
        } else {
            WaitFor::Nothing
        }
    }

    /// Appends the decisions of one input and gives the order log's sequence of the last of them;
    /// with `is_durable` it returns when they are durable.
    ///
    /// # Errors
    /// [`SinkError`] of the log that failed; none of the decisions may be acted on.
    pub fn append_decisions(
        &mut self,
        decisions: &[DecisionRecord],
        is_durable: bool,
    ) -> Result<u64, SinkError> {
        // What made these decisions may have failed in its thread since it was appended. Only the halt
        // that follows from it, and what that asks for, is taken all the same.
        if !self.is_halting {
            self.market.check().map_err(|error| {
                self.is_market_lost = true;
                sink_error(&error)
            })?;
        }
        let tape: &[u8] = bytemuck::cast_slice(decisions);
        self.written.orders += framed(tape.len(), decisions.len());
        let appended = if is_durable {
            self.orders.append_durable(tape)
        } else {
            self.orders.append_tape(tape)
        };
        appended.map_err(|error| sink_error(&error))
    }

    /// What makes the order log durable from another thread.
    #[must_use]
    pub fn order_syncer(&self) -> Syncer {
        self.orders.syncer()
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]
mod tests {
    use super::*;
    use crate::reason::ReasonCode;
    use crate::record::{Record, TradeRecord};
    use crate::wal::failing_writer;

    fn approved() -> DecisionRecord {
        DecisionRecord {
            verdict: 1,
            ..DecisionRecord::empty()
        }
    }

    fn trade() -> TradeRecord {
        TradeRecord::empty()
    }

    /// Invariant 3 on a disk whose sync fails once (EIO): no later call of the sink succeeds, so the
    /// simulation, which dispatches behind it, is over.
    #[test]
    fn after_a_failed_sync_of_either_log_nothing_is_taken_any_more() {
        for broken in [LogKind::Market, LogKind::Orders] {
            let (market, market_disk) = failing_writer("market", LogKind::Market);
            let (orders, orders_disk) = failing_writer("orders", LogKind::Orders);
            let mut sink = WalSink::of(market, orders, Durability::Record);
            let record = trade();
            sink.input(&record.header, record.as_bytes()).unwrap();
            sink.decisions(&[approved()]).unwrap();
            match broken {
                LogKind::Market => {
                    sink.input(&record.header, record.as_bytes()).unwrap();
                    market_disk.fail_next_sync();
                    // As its thread does, behind the session's back.
                    assert!(sink.market.sync().is_err());
                }
                LogKind::Orders => orders_disk.fail_next_sync(),
            }
            let steps = (market_disk.steps(), orders_disk.steps());
            let refused = sink.decisions(&[approved()]).unwrap_err();
            assert_eq!(refused.code, ReasonCode::WalWriteFailed, "{broken:?}");
            let after = (market_disk.steps(), orders_disk.steps());
            if broken == LogKind::Market {
                assert_eq!(after, steps, "the order log is not written either");
            }
            // Never tried again: the disk sees nothing more of the log that failed.
            for _ in 0..3 {
                assert!(sink.decisions(&[approved()]).is_err());
                if broken == LogKind::Market {
                    assert!(sink.input(&record.header, record.as_bytes()).is_err());
                }
            }
            assert!(sink.seal().is_err());
            match broken {
                LogKind::Market => assert_eq!(market_disk.steps(), steps.0),
                LogKind::Orders => assert_eq!(orders_disk.steps(), after.1),
            }
        }
    }
}
