//! Replay of a session that several processes wrote one after another.
//!
//! Why: a crash must not end what can be shown: behind it the next process decided from what the
//! order log gave back to it, and that can be decided again just as well.
//!
//! Invariants:
//! 1. A life begins with its Epoch record. The first one's engine is new; every other one's has taken
//!    back the order log as far as it stood before that record.
//! 2. Within a life inputs are decided up to the first number that is in neither log (a tail that a
//!    crash took); what the log decided behind it is counted, never as identical.
//! 3. Decisions that a life made and whose tail the log lost are counted and left out: they are the
//!    last ones of their life.
//!
//! It compares nothing (see `services/parity.py`). Operator's page: `docs/live.md`.

use super::{BatchError, Engine, Sequencer};
use crate::kernel::Kernels;
use crate::record::{DecisionRecord, Record, RecordHeader, RecordType, Tape};

/// What a replay of all lives gives.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LivesReplay {
    /// Lives of the session.
    pub lives: u64,
    /// Every input of both logs, in order.
    pub inputs: Vec<u8>,
    /// Logged decisions that can be made again, in order.
    pub logged: Vec<DecisionRecord>,
    /// What the replay decided in their place.
    pub replayed: Vec<DecisionRecord>,
    /// Logged decisions behind a missing input of their life.
    pub not_replayable: u64,
    /// Decisions of the replay that the log lost with the tail of a life.
    pub unlogged: u64,
    /// First missing input of each life that has one.
    pub holes: Vec<u64>,
}

type Entry<'a> = (RecordHeader, &'a [u8]);

struct Replay<'a> {
    config: &'a str,
    kernels: &'a Kernels,
    result: LivesReplay,
    engine: Engine,
    sequencer: Sequencer,
    /// The order log up to where the replay stands.
    order_log: Vec<u8>,
    /// Decisions of this life: logged, and made again.
    logged: Vec<DecisionRecord>,
    made: Vec<DecisionRecord>,
    /// First missing input of this life.
    hole: Option<u64>,
}

/// Decides the inputs of a market log and an order log again, life by life.
///
/// # Errors
/// [`BatchError`] when the config is refused, a log is none, or an input stands twice or behind a
/// later one.
pub fn replay_lives(
    config: &str,
    kernels: &Kernels,
    market: &[u8],
    orders: &[u8],
) -> Result<LivesReplay, BatchError> {
    let mut replay = Replay {
        config,
        kernels,
        result: LivesReplay::default(),
        engine: Engine::from_json_with(config, kernels)?,
        sequencer: Sequencer::default(),
        order_log: Vec::with_capacity(orders.len()),
        logged: Vec::new(),
        made: Vec::new(),
        hole: None,
    };
    for (header, bytes) in in_order(market, orders)? {
        if header.record_type == RecordType::Decision as u8 {
            replay.logged_decision(bytes);
        } else {
            replay.input(&header, bytes)?;
        }
    }
    replay.end_life();
    Ok(replay.result)
}

/// Records of both logs by input; a decision stands behind the input that caused it.
fn in_order<'a>(market: &'a [u8], orders: &'a [u8]) -> Result<Vec<Entry<'a>>, BatchError> {
    let mut entries = Vec::new();
    for item in Tape::new(market).chain(Tape::new(orders)) {
        entries.push(item?);
    }
    let is_decision = |header: &RecordHeader| header.record_type == RecordType::Decision as u8;
    // Stable: what a log holds of one input keeps its order.
    entries.sort_by_key(|(header, _)| (header.input_seq, is_decision(header)));
    for pair in entries.windows(2) {
        let [(a, _), (b, _)] = pair else { continue };
        if a.input_seq == b.input_seq && !is_decision(a) && !is_decision(b) {
            return Err(BatchError::SequenceGap {
                found: b.input_seq,
                expected: b.input_seq + 1,
            });
        }
    }
    Ok(entries)
}

impl Replay<'_> {
    fn logged_decision(&mut self, bytes: &[u8]) {
        self.order_log.extend_from_slice(bytes);
        let Some(decision) = DecisionRecord::read(bytes) else {
            return;
        };
        let cause = decision.header.input_seq;
        if self.hole.is_some_and(|hole| cause >= hole) || cause > self.sequencer.last_seq() {
            self.result.not_replayable += 1;
        } else {
            self.logged.push(decision);
        }
    }

    fn input(&mut self, header: &RecordHeader, bytes: &[u8]) -> Result<(), BatchError> {
        let is_epoch = header.record_type == RecordType::Epoch as u8;
        if is_epoch {
            self.result.lives += 1;
            if self.result.lives > 1 {
                self.begin_life(header)?;
            }
        }
        self.result.inputs.extend_from_slice(bytes);
        if self.hole.is_none() && header.input_seq != self.sequencer.last_seq() + 1 {
            self.hole = Some(self.sequencer.last_seq() + 1);
        }
        if self.hole.is_none() {
            let mut header = *header;
            self.sequencer.stamp_if_missing(&mut header);
            self.engine.on_record(&header, bytes, &mut self.made);
        }
        let is_order = RecordType::from_code(header.record_type)
            .is_some_and(|record_type| crate::wal::LogKind::Orders.holds(record_type));
        if is_order {
            self.order_log.extend_from_slice(bytes);
        }
        Ok(())
    }

    /// As `LiveSession::open` does it.
    fn begin_life(&mut self, epoch: &RecordHeader) -> Result<(), BatchError> {
        let next_seq = self.sequencer.last_seq() + 1;
        if self.hole.is_none() && epoch.input_seq != next_seq {
            self.hole = Some(next_seq);
        }
        self.end_life();
        self.engine = Engine::from_json_with(self.config, self.kernels)?;
        self.engine.recover(&self.order_log)?;
        self.sequencer = Sequencer::default();
        // What the logs lost at their ends is skipped: the epoch goes on behind what they have.
        let before = epoch.input_seq.saturating_sub(1);
        self.sequencer.continue_after(before, i64::MIN);
        Ok(())
    }

    fn end_life(&mut self) {
        if let Some(hole) = self.hole.take() {
            self.result.holes.push(hole);
            self.made.retain(|made| made.header.input_seq < hole);
        }
        let extra = self.made.len().saturating_sub(self.logged.len());
        self.result.unlogged += extra as u64;
        self.made.truncate(self.made.len() - extra);
        self.result.logged.append(&mut self.logged);
        self.result.replayed.append(&mut self.made);
    }
}
