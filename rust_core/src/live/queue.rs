//! Durable requests on their way to the one that calls the broker.
//!
//! Why: the thread that decides must not wait for a broker.
//!
//! Invariants:
//! 1. First in, first out, each once.
//! 2. A request that is in never gets lost but by `drop_all`, which leaves none: beyond its room the
//!    queue grows, because what waits here is durable already and must not be refused.
//!
//! Operator's page: `docs/live.md`.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::orders::OrderFacts;
use crate::record::{DecisionRecord, RecordHeader};

/// Room without allocating: all open orders, each with its cancel, many times over.
const ROOM: usize = 1_024;

/// One approved decision, to be carried out.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// The decision.
    pub decision_seq: u64,
    /// Its intent.
    pub intent_id: u64,
    /// The order to place or to cancel.
    pub order_id: u64,
    /// One of `ActionKind`: place or cancel.
    pub action: u32,
    /// Which alpha.
    pub alpha_index: u32,
    /// Which instrument.
    pub instrument_id: u32,
    /// 1 rest of day, 2 immediate or cancel, 3 fill or kill.
    pub time_in_force: u32,
    /// +1 buy, -1 sell.
    pub side: i64,
    /// Limit price.
    pub price: i64,
    /// Quantity.
    pub qty: i64,
    /// Validity from `decided_ns`, ns.
    pub ttl_ns: i64,
    /// `sequence_time_ns` of the decision.
    pub decided_ns: i64,
    /// `receive_time_ns` of what caused it.
    pub received_ns: i64,
    /// What the broker is to carry with the order.
    pub tag: [u8; 6],
    /// Fencing number under which the order was decided.
    pub epoch: u32,
    pub(super) queued: Instant,
}

impl Request {
    pub(super) fn of(decision: &DecisionRecord, facts: &OrderFacts, cause: &RecordHeader) -> Self {
        Self {
            decision_seq: decision.decision_seq,
            intent_id: decision.intent_id,
            order_id: decision.order_id,
            action: decision.action,
            alpha_index: decision.alpha_index,
            instrument_id: decision.header.instrument_id,
            time_in_force: decision.time_in_force,
            side: decision.side,
            price: decision.price,
            qty: decision.qty,
            ttl_ns: decision.ttl_ns,
            decided_ns: cause.sequence_time_ns,
            received_ns: cause.receive_time_ns,
            tag: facts.tag,
            epoch: facts.epoch,
            queued: Instant::now(),
        }
    }
}

#[derive(Debug)]
struct Waiting {
    requests: VecDeque<Request>,
    /// Decision and receive time of the last requests, by decision modulo their number.
    received: Box<[(u64, i64)]>,
    is_over: bool,
}

/// The queue.
#[derive(Debug)]
pub(super) struct Requests {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

impl Requests {
    pub(super) fn new() -> Self {
        Self {
            waiting: Mutex::new(Waiting {
                requests: VecDeque::with_capacity(ROOM),
                received: vec![(0, 0); ROOM].into_boxed_slice(),
                is_over: false,
            }),
            arrived: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, request: Request) {
        let mut waiting = self.lock();
        if waiting.is_over {
            return;
        }
        let place = place_of(request.decision_seq);
        waiting.received[place] = (request.decision_seq, request.received_ns);
        waiting.requests.push_back(request);
        drop(waiting);
        self.arrived.notify_one();
    }

    pub(super) fn next(&self, timeout: Duration) -> Option<Request> {
        let waiting = self.lock();
        let (mut waiting, _) = self
            .arrived
            .wait_timeout_while(waiting, timeout, |waiting| {
                waiting.requests.is_empty() && !waiting.is_over
            })
            .unwrap_or_else(PoisonError::into_inner);
        waiting.requests.pop_front()
    }

    /// When the cause of one of the last requests was received.
    pub(super) fn received_ns(&self, decision_seq: u64) -> Option<i64> {
        let (seq, received_ns) = self.lock().received[place_of(decision_seq)];
        (seq == decision_seq).then_some(received_ns)
    }

    pub(super) fn len(&self) -> usize {
        self.lock().requests.len()
    }

    /// Takes back what waits and takes nothing more.
    pub(super) fn drop_all(&self) {
        let mut waiting = self.lock();
        waiting.requests.clear();
        waiting.is_over = true;
        drop(waiting);
        self.arrived.notify_all();
    }
}

fn place_of(decision_seq: u64) -> usize {
    (decision_seq % ROOM as u64) as usize
}
