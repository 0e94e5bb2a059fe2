//! The live session: records from any thread in, durable requests for one dispatcher out.
//!
//! Why: whatever a live process decided must be decidable again from its logs, also over a crash, and
//! an intent must be on disk before the broker hears of it.
//!
//! Invariants:
//! 1. Every record gets its place in the one input sequence under one lock, is logged, and is then
//!    decided on; `sequence_time_ns` is `max(previous + 1, receive time)`.
//! 2. A request is queued after its decision is durable, once, and in the order of the decisions.
//! 3. After a failure of the order log nothing is queued, and what was queued does not come out.
//!    After one of the market log only what the halt asks for does.
//! 4. Opened on a folder that has logs it goes on behind them, as `Engine::recover` left it, under a
//!    higher epoch; what had no end is `Unknown`.
//! 5. A Python caller holds no GIL while it waits for the lock, and nothing under the lock takes it.
//!
//! It reads no clock but to measure, calls no broker, and has no thread of its own. Operator's page:
//! `docs/live.md`.

mod latency;
mod orders;
mod queue;
mod recovery;

pub use latency::{LatencyStep, Spread};
pub use orders::{OrderFacts, order_tag};
pub use queue::Request;
pub use recovery::LiveRecovery;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::bus::Publisher;
use crate::engine::{ALL_ALPHAS, APPROVED, Engine, EngineConfig, Sequencer};
use crate::gateway::Order;
use crate::kernel::Kernels;
use crate::reason::ReasonCode;
use crate::record::{
    CommandKind, CommandRecord, DecisionRecord, EpochRecord, Record, RecordHeader, RecordType, Tape,
};
use crate::session::{Durability, Published, SessionError, SessionOptions, WalSink};
use crate::simulation::{Contract, SessionHead, SimulationError, Sink, SinkError};
use latency::Latencies;
use orders::Orders;
use queue::Requests;

/// `RecordHeader::source_id` of the runtime.
const SOURCE_RUNTIME: u16 = 6;
/// Decisions of one record before the buffer grows.
const DECISIONS_CAPACITY: usize = 4_096;
/// Largest record, for the buffer.
const RECORD_BYTES_MAX: usize = 256;

/// How a live session is opened.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiveOptions {
    /// Identity of both logs.
    pub wal_id: u32,
    /// Fencing number, above every one in the logs.
    pub epoch: u32,
    /// Process that opens it, for the log's reader.
    pub process_id: u64,
    /// When it is opened, ns UTC.
    pub opened_ns: i64,
    /// When an approved decision may be acted on.
    #[serde(default)]
    pub durable: Durability,
    /// Size of a segment.
    #[serde(default = "segment_bytes")]
    pub segment_bytes: u64,
    /// Longest time a market record waits for its sync, ms.
    #[serde(default = "group_commit_ms")]
    pub group_commit_ms: u64,
    /// Age at which a segment is sealed, s.
    #[serde(default)]
    pub seal_after_s: Option<u64>,
    /// Resolved contracts by instrument.
    #[serde(default)]
    pub contracts: BTreeMap<u32, Contract>,
}

fn segment_bytes() -> u64 {
    64 << 20
}

fn group_commit_ms() -> u64 {
    10
}

impl LiveOptions {
    fn session(&self) -> SessionOptions {
        SessionOptions {
            wal_id: self.wal_id,
            durable: self.durable,
            segment_bytes: self.segment_bytes,
            group_commit_ms: self.group_commit_ms,
            epoch: self.epoch,
            drill_sync_delay: None,
            seal_after_s: self.seal_after_s,
        }
    }
}

/// What is changed under the lock.
struct Inner {
    engine: Engine,
    /// `None` once it is sealed or let go.
    sink: Option<Published>,
    sequencer: Sequencer,
    orders: Orders,
    routes: Vec<u8>,
    record: Vec<u8>,
    decisions: Vec<DecisionRecord>,
    failure: Option<SinkError>,
    trading_day: u32,
    epoch: u32,
    inputs: u64,
}

/// One live session, for any number of threads.
pub struct LiveSession {
    inner: Mutex<Inner>,
    requests: Requests,
    latencies: Latencies,
    recovery: LiveRecovery,
    log_of_orders: Vec<u8>,
}

impl LiveSession {
    /// Opens or re-opens the session in `dir`.
    ///
    /// # Errors
    /// [`SessionError`] when the config is refused, a log cannot be opened or recovered, or the epoch
    /// is not above every one in the logs.
    pub fn open(
        engine_config: &str,
        dir: &Path,
        options: &LiveOptions,
        kernels: &Kernels,
        publisher: Option<Publisher>,
    ) -> Result<Self, SessionError> {
        let config = EngineConfig::from_json(engine_config)?;
        let trading_day = config.session.trading_day;
        let head = SessionHead::new(&config, &options.contracts)?;
        let mut engine = Engine::with_kernels(config, kernels)?;
        let earlier = recovery::read(dir, options.epoch)?;
        let mut sequencer = Sequencer::default();
        let mut orders = Orders::new();
        let mut recovered = LiveRecovery::default();
        let (mut routes, mut log_of_orders) = (Vec::new(), Vec::new());
        if let Some(earlier) = earlier {
            recovered = earlier.restore(&mut engine, &mut sequencer, &mut orders)?;
            routes = earlier.routes();
            log_of_orders = earlier.place_decisions();
        }
        let logs = WalSink::open(dir, options.session())
            .map_err(|error| SessionError::Wal(Box::new(error)))?;
        let session = Self {
            inner: Mutex::new(Inner {
                engine,
                sink: Some(Published::new(logs, publisher)),
                sequencer,
                orders,
                routes,
                record: Vec::with_capacity(RECORD_BYTES_MAX),
                decisions: Vec::with_capacity(DECISIONS_CAPACITY),
                failure: None,
                trading_day,
                epoch: options.epoch,
                inputs: 0,
            }),
            requests: Requests::new(),
            latencies: Latencies::new(),
            recovery: recovered,
            log_of_orders,
        };
        session.begin(head, options)?;
        Ok(session)
    }

    /// The head of a new session, and the epoch of every one; durable when this returns.
    fn begin(&self, head: SessionHead, options: &LiveOptions) -> Result<(), SessionError> {
        let mut inner = self.lock();
        let at_ns = options.opened_ns;
        if self.recovery.is_new {
            for mut record in head.instruments {
                inner.made(&mut record.header, at_ns);
                self.take(&mut inner, record.as_bytes())?;
            }
            for mut record in head.switches {
                inner.made(&mut record.header, at_ns);
                self.take(&mut inner, record.as_bytes())?;
            }
        }
        let mut record = EpochRecord::empty();
        record.epoch = u64::from(options.epoch);
        record.process_id = options.process_id;
        inner.made(&mut record.header, at_ns);
        self.take(&mut inner, record.as_bytes())?;
        inner.sync()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic under the lock would have left the engine between two states: nothing goes on.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sequences, logs and decides on every record of a tape; a tape with a record that is none is
    /// refused as a whole. Returns how many there were.
    ///
    /// # Errors
    /// [`SessionError`] once a log has failed, after the end, or for a tape that is none.
    pub fn push(&self, tape: &[u8]) -> Result<u64, SessionError> {
        for item in Tape::new(tape) {
            let (header, _) = item.map_err(|error| SessionError::Options(error.to_string()))?;
            if header.record_type == DecisionRecord::TYPE as u8 {
                let message = "a decision is no input".to_owned();
                return Err(SessionError::Options(message));
            }
        }
        let mut inner = self.lock();
        let mut count = 0;
        for (_, bytes) in Tape::new(tape).flatten() {
            self.take(&mut inner, bytes)?;
            count += 1;
        }
        Ok(count)
    }

    /// One record and what it owes the log.
    fn take(&self, inner: &mut Inner, bytes: &[u8]) -> Result<(), SessionError> {
        inner.refuse_after_failure(bytes)?;
        let result = self.take_one(inner, bytes).and_then(|header| {
            while let Some(mut record) = inner.owed(false) {
                inner.made(&mut record.header, header.receive_time_ns);
                self.take_one(inner, record.as_bytes())?;
            }
            Ok(())
        });
        result.map_err(|error| self.fail(inner, error))
    }

    fn take_one(&self, inner: &mut Inner, bytes: &[u8]) -> Result<RecordHeader, SinkError> {
        let start = Instant::now();
        let header = inner.sequence(bytes);
        let Inner {
            engine,
            sink,
            record,
            decisions,
            orders,
            routes,
            epoch,
            ..
        } = inner;
        let sink = sink.as_mut().ok_or_else(ended)?;
        sink.input(&header, record)?;
        let appended = Instant::now();
        decisions.clear();
        engine.on_record(&header, record, decisions);
        let decided = Instant::now();
        self.latencies.add(LatencyStep::Append, appended - start);
        self.latencies.add(LatencyStep::Decide, decided - appended);
        if header.record_type == RecordType::Route as u8 {
            routes.extend_from_slice(record);
        }
        if decisions.is_empty() {
            return Ok(header);
        }
        sink.decisions(decisions)?;
        if decisions
            .iter()
            .any(|decision| decision.verdict == APPROVED)
        {
            self.latencies.add(LatencyStep::Durable, decided.elapsed());
        } else if header.record_type == RecordType::Intent as u8 {
            // Whoever wants something from outside is answered from the log, also with a refusal.
            let synced = sink.logs.orders.sync();
            synced.map_err(|error| SinkError {
                code: error.code(),
                message: error.to_string(),
            })?;
        }
        for decision in decisions.iter().filter(|one| one.verdict == APPROVED) {
            let facts = orders.note(decision, *epoch);
            self.requests.add(Request::of(decision, &facts, &header));
        }
        Ok(header)
    }

    /// A log failed: see invariant 3.
    fn fail(&self, inner: &mut Inner, error: SinkError) -> SessionError {
        let is_market_lost = inner
            .sink
            .as_ref()
            .is_some_and(|sink| sink.logs.is_market_lost);
        if inner.failure.is_none() && is_market_lost {
            // What works is taken back; both are durable before anything else happens.
            let at_ns = inner.sequencer.last_time_ns();
            inner.failure = Some(error.clone());
            if let Some(sink) = &mut inner.sink {
                sink.logs.is_halting = true;
            }
            let mut record = CommandRecord::empty();
            record.command_kind = CommandKind::Halt as u32;
            record.alpha_index = ALL_ALPHAS;
            record.reason_code = u64::from(error.code.code());
            inner.made(&mut record.header, at_ns);
            if self.take_one(inner, record.as_bytes()).is_err() {
                self.requests.drop_all();
            }
        } else {
            inner.failure.get_or_insert_with(|| error.clone());
            self.requests.drop_all();
        }
        SimulationError::Sink(error).into()
    }

    /// The next durable request, waiting for it at most `timeout`; `None` without one.
    pub fn next_request(&self, timeout: Duration) -> Option<Request> {
        let request = self.requests.next(timeout)?;
        self.latencies
            .add(LatencyStep::Queue, request.queued.elapsed());
        Some(request)
    }

    /// When the broker's call for a decision was entered and left, by the clock that stamps receive
    /// times; measures and changes nothing.
    pub fn mark_call(&self, decision_seq: u64, entered_ns: i64, returned_ns: i64) {
        let ns = |from: i64, to: i64| Duration::from_nanos(to.saturating_sub(from).max(0) as u64);
        if let Some(received_ns) = self.requests.received_ns(decision_seq) {
            self.latencies
                .add(LatencyStep::ToCall, ns(received_ns, entered_ns));
        }
        self.latencies
            .add(LatencyStep::Call, ns(entered_ns, returned_ns));
    }

    /// Times of every step so far.
    #[must_use]
    pub fn latencies(&self) -> Vec<(LatencyStep, Spread)> {
        self.latencies.spreads()
    }

    /// Requests that wait.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.requests.len()
    }

    /// What an earlier life left.
    #[must_use]
    pub fn recovery(&self) -> &LiveRecovery {
        &self.recovery
    }

    /// Approved orders to place of earlier lives, a tape.
    #[must_use]
    pub fn place_decisions(&self) -> &[u8] {
        &self.log_of_orders
    }

    /// Every Route record of the logs so far, a tape.
    #[must_use]
    pub fn routes(&self) -> Vec<u8> {
        self.lock().routes.clone()
    }

    /// Orders that may still be filled, with what is known of their requests.
    #[must_use]
    pub fn open_orders(&self) -> Vec<(Order, OrderFacts)> {
        let inner = self.lock();
        let orders = inner.engine.open_orders();
        orders
            .map(|order| (*order, inner.orders.facts(order.order_id)))
            .collect()
    }

    /// One order, open or done lately.
    #[must_use]
    pub fn order(&self, order_id: u64) -> Option<(Order, OrderFacts)> {
        let inner = self.lock();
        let order = inner.engine.order(order_id)?;
        Some((*order, inner.orders.facts(order_id)))
    }

    /// Looks at the engine under the lock.
    pub fn with_engine<T>(&self, look: impl FnOnce(&Engine) -> T) -> T {
        look(&self.lock().engine)
    }

    /// Number and time of the last input, and the log's failure.
    #[must_use]
    pub fn standing(&self) -> (u64, i64, Option<SinkError>) {
        let inner = self.lock();
        (
            inner.sequencer.last_seq(),
            inner.sequencer.last_time_ns(),
            inner.failure.clone(),
        )
    }

    /// Seals both logs; gives the last sequence of each.
    ///
    /// # Errors
    /// [`SessionError`] when a log fails or it is over.
    pub fn finish(&self) -> Result<(u64, u64), SessionError> {
        self.requests.drop_all();
        let mut inner = self.lock();
        if inner.failure.is_none() {
            let at_ns = inner.sequencer.last_time_ns();
            while let Some(mut record) = inner.owed(true) {
                inner.made(&mut record.header, at_ns);
                self.take(&mut inner, record.as_bytes())?;
            }
        }
        let sink = inner.sink.take().ok_or(OVER)?;
        sink.logs
            .seal()
            .map_err(|error| SessionError::Wal(Box::new(error)))
    }

    /// Lets go of the logs as they are, as a crash would, but with everything synced.
    pub fn close(&self) {
        self.requests.drop_all();
        self.lock().sink = None;
    }
}

impl std::fmt::Debug for LiveSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveSession")
            .field("recovery", &self.recovery)
            .finish_non_exhaustive()
    }
}

const OVER: SessionError = SessionError::State {
    action: "finish",
    state: "it is over",
};

fn ended() -> SinkError {
    SinkError {
        code: ReasonCode::SessionNotOpen,
        message: "the session is over".to_owned(),
    }
}

impl Inner {
    /// Fills in the head of a record made here.
    fn made(&self, header: &mut RecordHeader, at_ns: i64) {
        header.source_id = SOURCE_RUNTIME;
        header.source_seq = self.inputs + 1;
        header.exchange_time_ns = at_ns;
        header.receive_time_ns = at_ns;
        header.trading_day = self.trading_day;
    }

    /// Copies a record into the buffer with its place in the input sequence.
    fn sequence(&mut self, bytes: &[u8]) -> RecordHeader {
        self.record.clear();
        self.record.extend_from_slice(bytes);
        let (head, _) = self.record.split_at_mut(size_of::<RecordHeader>());
        let mut header: RecordHeader = bytemuck::pod_read_unaligned(head);
        header.trading_day = self.trading_day;
        let now_ns = header.receive_time_ns;
        self.sequencer.stamp(&mut header, now_ns);
        head.copy_from_slice(bytemuck::bytes_of(&header));
        self.inputs += 1;
        header
    }

    fn owed(&mut self, is_last: bool) -> Option<crate::record::ShedRecord> {
        self.sink.as_mut()?.owed(is_last)
    }

    /// After the order log failed nothing is taken; after the market log what belongs to the other.
    fn refuse_after_failure(&self, bytes: &[u8]) -> Result<(), SessionError> {
        let Some(sink) = &self.sink else {
            return Err(SimulationError::Sink(ended()).into());
        };
        let Some(failure) = &self.failure else {
            return Ok(());
        };
        let code = bytes.get(2).copied().unwrap_or(0);
        let is_order = RecordType::from_code(code)
            .is_some_and(|record_type| crate::wal::LogKind::Orders.holds(record_type));
        if sink.logs.is_halting && is_order {
            return Ok(());
        }
        Err(SimulationError::Sink(failure.clone()).into())
    }

    fn sync(&self) -> Result<(), SessionError> {
        let Some(sink) = &self.sink else {
            return Err(OVER);
        };
        let synced = sink
            .logs
            .orders
            .sync()
            .and_then(|_| sink.logs.market.sync());
        synced
            .map(drop)
            .map_err(|error| SessionError::Wal(Box::new(error)))
    }
}
