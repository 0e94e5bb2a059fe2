//! What waits for the dispatcher: approved requests, in the order of their decisions.
//!
//! Why: a decision is made in microseconds and a broker's call takes milliseconds. In between a
//! request waits here, until it is durable and somebody takes it.
//!
//! Invariants:
//! 1. First in, first out; what is taken is taken once.
//! 2. With `durable: record` nothing is taken before the order log holds its decision durably.
//! 3. After a failure, and after the end, nothing is taken any more.
//! 4. It never grows: who finds it full is told so before anything is lost.
//!
//! The disk is waited for without the lock. It makes no call. Operator's page: `docs/live.md`.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::latency::{Latency, Step, wall_ns};
use super::tag::TAG_CHARS;
use crate::gateway::OPEN_COUNT_MAX;
use crate::simulation::SinkError;
use crate::wal::Syncer;

/// Requests that can be under way at once while every answer is an honest one: a place and a cancel
/// for each open order. Why not more: a place waits as an open order; the cancels that wait belong to
/// orders that were open when the oldest of them was decided, one each.
pub const HONEST_COUNT_MAX: usize = 2 * OPEN_COUNT_MAX;
/// Requests taken lately whose calls may still be reported.
const TAKEN_COUNT: usize = 1_024;

const _: () = assert!(TAKEN_COUNT.is_power_of_two());

/// One request to the broker, decided and approved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderRequest {
    /// The decision it follows from.
    pub decision_seq: u64,
    /// The intent behind it.
    pub intent_id: u64,
    /// The order to place or cancel.
    pub order_id: u64,
    /// 1 place, 2 cancel.
    pub action: u32,
    /// Which alpha of the engine config.
    pub alpha_index: u32,
    /// Which instrument.
    pub instrument_id: u32,
    /// +1 buy, -1 sell.
    pub side: i64,
    /// Limit price.
    pub price: i64,
    /// Quantity.
    pub qty: i64,
    /// 1 rest of day, 2 immediate or cancel, 3 fill or kill.
    pub time_in_force: u32,
    /// The order's tag.
    pub tag: [u8; TAG_CHARS],
    /// Epoch of this process.
    pub epoch: u32,
    /// Engine time of the decision.
    pub decided_ns: i64,
    /// Validity from there, ns.
    pub ttl_ns: i64,
    /// `receive_time_ns` of what caused it.
    pub received_ns: i64,
}

/// A request and what it waits for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    pub(super) request: OrderRequest,
    /// Order log's sequence that must be durable first; 0 when nothing must.
    pub(super) wal_seq: u64,
    /// `receive_time_ns` of its cause.
    pub(super) received_ns: i64,
    /// Wall clock when it was decided.
    pub(super) entered_ns: i64,
}

#[derive(Debug)]
struct Inside {
    waiting: VecDeque<Waiting>,
    /// `(decision_seq, received_ns)` of those taken lately.
    taken: Box<[(u64, i64)]>,
    syncer: Option<Syncer>,
    failure: Option<SinkError>,
    is_closed: bool,
}

/// The queue.
#[derive(Debug)]
pub(super) struct RequestQueue {
    inside: Mutex<Inside>,
    filled: Condvar,
    capacity: usize,
}

/// Why a request found no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct QueueFull;

fn place_of(decision_seq: u64) -> usize {
    (decision_seq & (TAKEN_COUNT as u64 - 1)) as usize
}

impl RequestQueue {
    pub(super) fn new(capacity: usize, syncer: Syncer) -> Self {
        Self {
            inside: Mutex::new(Inside {
                waiting: VecDeque::with_capacity(capacity),
                taken: vec![(0, 0); TAKEN_COUNT].into_boxed_slice(),
                syncer: Some(syncer),
                failure: None,
                is_closed: false,
            }),
            filled: Condvar::new(),
            capacity,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Puts one request behind the others; whoever does so calls [`Self::notify`] afterwards.
    pub(super) fn push(&self, waiting: Waiting) -> Result<(), QueueFull> {
        let mut inside = self.lock();
        if inside.waiting.len() >= self.capacity {
            return Err(QueueFull);
        }
        inside.waiting.push_back(waiting);
        Ok(())
    }

    /// Wakes the dispatcher.
    pub(super) fn notify(&self) {
        self.filled.notify_one();
    }

    /// Makes the order log durable up to `seq`; a failure ends the queue.
    pub(super) fn sync_up_to(&self, seq: u64) -> Result<(), SinkError> {
        let syncer = match &self.lock().syncer {
            Some(syncer) => syncer.clone(),
            None => return Ok(()),
        };
        syncer.sync_up_to(seq).map_err(|error| {
            let failure = crate::session::sink_error(&error);
            self.fail(failure.clone());
            failure
        })
    }

    /// Nothing leaves any more, and everyone who asks is told why.
    pub(super) fn fail(&self, failure: SinkError) {
        self.lock().failure.get_or_insert(failure);
        self.filled.notify_all();
    }

    /// The failure that ended it, if one did.
    pub(super) fn failure(&self) -> Option<SinkError> {
        self.lock().failure.clone()
    }

    /// Nothing leaves any more; lets go of the log.
    pub(super) fn close(&self) {
        let mut inside = self.lock();
        inside.is_closed = true;
        inside.syncer = None;
        drop(inside);
        self.filled.notify_all();
    }

    /// Waits for a request at most this long and takes it; `None` when there was none or it is over.
    pub(super) fn take(
        &self,
        timeout: Duration,
        latency: &Latency,
    ) -> Result<Option<OrderRequest>, SinkError> {
        let deadline = Instant::now().checked_add(timeout);
        let mut inside = self.lock();
        let mut seen_ns = None;
        loop {
            if let Some(failure) = &inside.failure {
                return Err(failure.clone());
            }
            if inside.is_closed {
                return Ok(None);
            }
            if let Some(first) = inside.waiting.front().copied() {
                let first_seen_ns = *seen_ns.get_or_insert_with(wall_ns);
                let durable_seq = inside.syncer.as_ref().map_or(0, Syncer::durable_seq);
                if first.wal_seq <= durable_seq {
                    inside.waiting.pop_front();
                    let at = place_of(first.request.decision_seq);
                    inside.taken[at] = (first.request.decision_seq, first.received_ns);
                    drop(inside);
                    latency.record(Step::Queue, first.entered_ns, first_seen_ns);
                    latency.record(Step::Durable, first_seen_ns, wall_ns());
                    return Ok(Some(first.request));
                }
                drop(inside);
                self.sync_up_to(first.wal_seq)?;
                inside = self.lock();
                continue;
            }
            let left = match deadline {
                Some(deadline) => deadline.saturating_duration_since(Instant::now()),
                None => timeout,
            };
            if left.is_zero() {
                return Ok(None);
            }
            (inside, _) = self
                .filled
                .wait_timeout(inside, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// `receive_time_ns` of what caused a request that was taken lately.
    pub(super) fn received_ns(&self, decision_seq: u64) -> Option<i64> {
        let (known, received_ns) = self.lock().taken[place_of(decision_seq)];
        (known == decision_seq && known != 0).then_some(received_ns)
    }
}
