//! The session itself: one lock, and behind it sequencer, logs and engine.
//!
//! Lock order: the session's lock, then the queue's. The disk is waited for without either.

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::latency::{Latency, Step, wall_ns};
use super::options::{LiveError, LiveOptions, LiveSetup};
use super::queue::{OrderRequest, RequestQueue, Waiting};
use super::recovery::{self, APPROVED, Found, Taken};
use super::tag::{TAG_CHARS, order_tag};
use crate::engine::{ALL_ALPHAS, Engine, Sequencer};
use crate::gateway::{ORDER_COUNT_MAX, Order, order_number};
use crate::reason::ReasonCode;
use crate::record::{
    ActionKind, BrokerEventKind, BrokerRecord, CommandKind, CommandRecord, DecisionRecord,
    EpochRecord, Record, RecordHeader, RecordType, Tape,
};
use crate::session::{WaitFor, WalSink, WrittenBytes, sink_error};
use crate::simulation::{SessionHead, Sink, SinkError};
use crate::wal::LogKind;

/// Decisions of one record before the buffer grows.
const DECISIONS_CAPACITY: usize = 4_096;
/// Requests kept free for what must be taken: broker events, commands and what they cause.
const RESERVE: usize = 4 * super::queue::HONEST_COUNT_MAX;
/// `RecordHeader::source_id` of the runtime.
const SOURCE_RUNTIME: u16 = 6;

thread_local! {
    static IS_HELD: Cell<bool> = const { Cell::new(false) };
}

/// True while this thread holds a session's lock: then it may neither wait for the GIL nor for a
/// disk.
#[must_use]
#[cfg(feature = "python")]
pub(crate) fn holds_lock() -> bool {
    IS_HELD.get()
}

/// The lock, held.
struct Held<'a> {
    guard: MutexGuard<'a, State>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        IS_HELD.set(false);
    }
}

/// When an order was decided, and under which name it went.
#[derive(Debug, Clone, Copy, Default)]
struct Placed {
    order_id: u64,
    decision_seq: u64,
    epoch: u32,
    decided_ns: i64,
    tag: [u8; TAG_CHARS],
}

fn placed_slot(order_id: u64) -> usize {
    (order_number(order_id) % ORDER_COUNT_MAX as u64) as usize
}

/// An order as the engine has it.
#[derive(Debug, Clone, Copy)]
pub struct OrderView {
    /// The order.
    pub order: Order,
    /// Its instrument.
    pub instrument_id: u32,
    /// The decision to place it.
    pub decision_seq: u64,
    /// Epoch under which that was decided.
    pub epoch: u32,
    /// Its tag at the broker.
    pub tag: [u8; TAG_CHARS],
    /// Engine time of its decision.
    pub decided_ns: i64,
}

/// Where the session stands.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot {
    /// Last input.
    pub last_seq: u64,
    /// Its time.
    pub last_time_ns: i64,
    /// Inputs taken since it was opened.
    pub inputs: u64,
    /// Decisions made since.
    pub decisions: u64,
    /// Requests that left the engine since.
    pub requests: u64,
    /// Bytes written since.
    pub written: WrittenBytes,
    /// The disk has not refused either log its next segment.
    pub has_space_ahead: bool,
    /// Epoch of this process.
    pub epoch: u32,
}

/// What a finished session leaves.
#[derive(Debug)]
pub struct Finished {
    /// Code of the log's failure, else of the engine's halt, 0 if none.
    pub halted_by: u16,
    /// What the failure said.
    pub message: String,
    /// Where it stood.
    pub snapshot: Snapshot,
    /// The engine, for its counters and results.
    pub engine: Engine,
    /// Requests that nobody took.
    pub untaken: usize,
    /// Records in the market log and in the order log, 0 when they could not be sealed.
    pub sealed: (u64, u64),
}

/// What stands behind the lock.
#[derive(Debug)]
struct Open {
    engine: Engine,
    logs: WalSink,
    sequencer: Sequencer,
    placed: Box<[Placed]>,
    instruments: Vec<u32>,
    trading_day: u32,
    epoch: u32,
    last_time_ns: i64,
    inputs: u64,
    decision_count: u64,
    requests: u64,
    /// The market log's failure: the session is halted, and takes no market record.
    market_failure: Option<SinkError>,
    /// Order log's sequence that must be durable before the push returns; 0 for none.
    latch_seq: u64,
    has_new_request: bool,
    record: Vec<u8>,
    decisions: Vec<DecisionRecord>,
}

#[derive(Debug)]
enum State {
    Open(Box<Open>),
    Over,
}

impl State {
    fn open(&mut self) -> Result<&mut Open, LiveError> {
        match self {
            Self::Open(open) => Ok(open),
            Self::Over => Err(LiveError::Over),
        }
    }
}

/// One live session of one process.
#[derive(Debug)]
pub struct LiveSession {
    state: Mutex<State>,
    queue: RequestQueue,
    queue_allowed: usize,
    latency: Latency,
    taken: Taken,
    session_dir: PathBuf,
}

impl LiveSession {
    /// Opens the session in its folder: a new one, or one that another process left.
    ///
    /// # Errors
    /// [`LiveError`]: a config or contract that is refused, an epoch that is not above all in the
    /// logs (611), a log that cannot be opened, read or taken back.
    pub fn open(setup: LiveSetup) -> Result<Self, LiveError> {
        let LiveSetup {
            engine_config,
            session_dir,
            options,
            kernels,
        } = setup;
        let mut engine = Engine::from_json_with(&engine_config, &kernels)?;
        // Before a log is opened: a refused session leaves none.
        let head = SessionHead::new(engine.config(), &options.contracts)?;
        let last_epoch = recovery::check_epoch(&session_dir, options.epoch)?;
        let logs = WalSink::open(&session_dir, options.logs())?;
        let mut found = recovery::take_back(&session_dir, &mut engine)?;
        found.taken.last_epoch = last_epoch;
        Self::begun(engine, logs, head, &options, &found, session_dir)
    }

    /// A session whose logs are open and taken back.
    pub(super) fn begun(
        engine: Engine,
        logs: WalSink,
        head: SessionHead,
        options: &LiveOptions,
        found: &Found,
        session_dir: PathBuf,
    ) -> Result<Self, LiveError> {
        let queue = RequestQueue::new(options.queue_capacity + RESERVE, logs.order_syncer());
        let session = Self {
            state: Mutex::new(State::Open(Box::new(Open::new(
                engine, logs, options, found,
            )))),
            queue,
            queue_allowed: options.queue_capacity,
            latency: Latency::default(),
            taken: found.taken.clone(),
            session_dir,
        };
        session.begin(head, options, found)?;
        Ok(session)
    }

    /// The records that a process begins with, durable.
    fn begin(
        &self,
        head: SessionHead,
        options: &LiveOptions,
        found: &Found,
    ) -> Result<(), LiveError> {
        let mut epoch = EpochRecord::empty();
        epoch.epoch = options.epoch.into();
        epoch.process_id = options
            .process_id
            .unwrap_or_else(|| std::process::id().into());
        let mut tape = Vec::new();
        let mut add = |header: &RecordHeader, bytes: &[u8]| {
            let mut header = *header;
            header.source_id = SOURCE_RUNTIME;
            header.exchange_time_ns = options.opened_ns;
            header.receive_time_ns = options.opened_ns;
            tape.extend_from_slice(bytemuck::bytes_of(&header));
            tape.extend_from_slice(bytes.get(size_of::<RecordHeader>()..).unwrap_or_default());
        };
        add(&epoch.header, epoch.as_bytes());
        for record in &head.instruments {
            add(&record.header, record.as_bytes());
        }
        // A permit that the log has is in force as its last command left it.
        for record in &head.switches {
            if !found.switched.contains(&record.alpha_index) {
                add(&record.header, record.as_bytes());
            }
        }
        self.take_tape(&tape)?;
        let mut held = self.lock();
        let open = held.guard.open()?;
        let orders = open.logs.orders.last_seq()?;
        drop(held);
        self.queue.sync_up_to(orders).map_err(LiveError::Failed)
    }

    fn lock(&self) -> Held<'_> {
        assert!(
            !IS_HELD.get(),
            "Invariant: a thread takes the session's lock once"
        );
        // A panic elsewhere is an invariant that broke: the state is as it was left, and a test or an
        // operator sees the panic.
        let guard = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        IS_HELD.set(true);
        Held { guard }
    }

    /// What was found when it was opened.
    #[must_use]
    pub fn taken(&self) -> &Taken {
        &self.taken
    }

    /// Takes the records of a tape as inputs, in their order and without another in between, and
    /// gives the `input_seq` of the last.
    ///
    /// # Errors
    /// [`LiveError`]. A tape that is none, holds what is no input, or comes while the dispatcher is
    /// too far behind is refused as a whole; after the failure of a log, what can no longer be
    /// logged is.
    pub fn push(&self, tape: &[u8]) -> Result<u64, LiveError> {
        let mut is_market = false;
        for item in Tape::new(tape) {
            let (header, _) = item?;
            match RecordType::from_code(header.record_type) {
                Some(RecordType::Epoch | RecordType::Shed | RecordType::Decision) | None => {
                    return Err(LiveError::NotAnInput {
                        record_type: header.record_type,
                    });
                }
                Some(RecordType::Book | RecordType::Trade | RecordType::Timer) => is_market = true,
                Some(RecordType::Intent) => is_market = true,
                Some(_) => {}
            }
        }
        if is_market {
            let waiting = self.queue.len();
            if waiting >= self.queue_allowed {
                return Err(LiveError::Behind {
                    waiting,
                    allowed: self.queue_allowed,
                });
            }
        }
        self.take_tape(tape)
    }

    fn take_tape(&self, tape: &[u8]) -> Result<u64, LiveError> {
        let mut held = self.lock();
        let open = held.guard.open()?;
        let mut outcome = Ok(());
        for (header, bytes) in Tape::new(tape).flatten() {
            outcome = open.take(header, bytes, &self.queue, &self.latency);
            if outcome.is_err() {
                break;
            }
        }
        let last_seq = open.sequencer.last_seq();
        let latch_seq = std::mem::take(&mut open.latch_seq);
        let has_new_request = std::mem::take(&mut open.has_new_request);
        drop(held);
        if has_new_request {
            self.queue.notify();
        }
        if latch_seq > 0 {
            self.queue
                .sync_up_to(latch_seq)
                .map_err(LiveError::Failed)?;
        }
        outcome.map(|()| last_seq).map_err(LiveError::Failed)
    }

    /// Waits for the next request at most this long; `None` when there is none, or it is over.
    ///
    /// # Errors
    /// [`LiveError::Failed`] after a failure: nothing leaves any more.
    pub fn next_request(&self, timeout: Duration) -> Result<Option<OrderRequest>, LiveError> {
        self.queue
            .take(timeout, &self.latency)
            .map_err(LiveError::Failed)
    }

    /// Counts the broker's call of a request that was taken lately, by the wall clock.
    pub fn mark_call(&self, decision_seq: u64, entered_ns: i64, returned_ns: i64) {
        if let Some(received_ns) = self.queue.received_ns(decision_seq) {
            self.latency.record(Step::ToCall, received_ns, entered_ns);
        }
        self.latency.record(Step::Call, entered_ns, returned_ns);
    }

    /// How long the steps took.
    #[must_use]
    pub fn latency(&self) -> &Latency {
        &self.latency
    }

    /// Orders that the engine holds open, oldest first.
    ///
    /// # Errors
    /// [`LiveError::Over`].
    pub fn orders(&self) -> Result<Vec<OrderView>, LiveError> {
        let mut held = self.lock();
        let open = held.guard.open()?;
        Ok(open
            .engine
            .open_orders()
            .map(|order| open.view(order))
            .collect())
    }

    /// One order, open or recently done.
    ///
    /// # Errors
    /// [`LiveError::Over`].
    pub fn order(&self, order_id: u64) -> Result<Option<OrderView>, LiveError> {
        let mut held = self.lock();
        let open = held.guard.open()?;
        Ok(open.engine.order(order_id).map(|order| open.view(order)))
    }

    /// What `look` makes of the engine and of where the session stands; it must be quick, for
    /// nothing is decided meanwhile.
    ///
    /// # Errors
    /// [`LiveError::Over`].
    pub fn inspect<T>(&self, look: impl FnOnce(&Engine, &Snapshot) -> T) -> Result<T, LiveError> {
        let mut held = self.lock();
        let open = held.guard.open()?;
        let snapshot = open.snapshot();
        Ok(look(&open.engine, &snapshot))
    }

    /// Requests that wait for the dispatcher.
    #[must_use]
    pub fn queue_len(&self) -> usize {
        self.queue.len()
    }

    /// What stopped it: a log's failure, else the engine's halt.
    ///
    /// # Errors
    /// [`LiveError::Over`].
    pub fn halt(&self) -> Result<Option<SinkError>, LiveError> {
        let mut held = self.lock();
        let open = held.guard.open()?;
        let engine = open.engine.halted_by().map(|code| SinkError {
            code,
            message: String::new(),
        });
        let market = open.market_failure.clone();
        drop(held);
        Ok(self.queue.failure().or(market).or(engine))
    }

    /// Why nothing of an alpha may open: what stopped the session, else its own halt, loss limit or
    /// fault of its permit.
    ///
    /// # Errors
    /// [`LiveError::Over`].
    pub fn alpha_halt(&self, alpha_index: u32) -> Result<Option<ReasonCode>, LiveError> {
        let session = self.halt()?.map(|halt| halt.code);
        let own = self.inspect(|engine, _| {
            let mut results = engine.results();
            let result = results.find(|result| result.alpha_index == alpha_index);
            result.and_then(|result| result.halted_by)
        })?;
        Ok(session.or(own))
    }

    /// Every route of the order log, a tape.
    ///
    /// # Errors
    /// [`LiveError`] when the log cannot be synced or read.
    pub fn routes(&self) -> Result<Vec<u8>, LiveError> {
        Ok(recovery::routes(&self.order_log()?))
    }

    /// Every approved order of the order log, a tape.
    ///
    /// # Errors
    /// As [`Self::routes`].
    pub fn order_decisions(&self) -> Result<Vec<u8>, LiveError> {
        Ok(recovery::placed(&self.order_log()?))
    }

    /// The order log as it stands, read from disk: what is told is what a restart would find.
    fn order_log(&self) -> Result<Vec<u8>, LiveError> {
        let mut held = self.lock();
        let last_seq = held.guard.open()?.logs.orders.last_seq()?;
        drop(held);
        self.queue.sync_up_to(last_seq).map_err(LiveError::Failed)?;
        Ok(recovery::order_tape(&self.session_dir)?)
    }

    /// Ends the session and seals both logs. Nothing leaves any more; requests that nobody took are
    /// counted, and unknown to whoever opens the session again.
    ///
    /// # Errors
    /// [`LiveError::Over`] when it is over.
    pub fn finish(&self) -> Result<Finished, LiveError> {
        let untaken = self.queue.len();
        let failure = self.queue.failure();
        let open = self.end()?;
        let snapshot = open.snapshot();
        let Open {
            engine,
            logs,
            market_failure,
            ..
        } = *open;
        let mut halt = failure.or(market_failure);
        let sealed = match logs.seal() {
            Ok(sealed) => sealed,
            Err(error) => {
                halt.get_or_insert(sink_error(&error));
                (0, 0)
            }
        };
        let code = halt.as_ref().map(|halt| halt.code).or(engine.halted_by());
        Ok(Finished {
            halted_by: code.map_or(0, ReasonCode::code),
            message: halt.map_or_else(String::new, |halt| halt.message),
            snapshot,
            engine,
            untaken,
            sealed,
        })
    }

    /// Lets go of the session as it is: what was appended becomes durable, nothing is sealed. Done
    /// twice it does nothing.
    pub fn close(&self) {
        // The writers sync what they hold when they drop.
        drop(self.end());
    }

    /// What the market log's own thread does.
    #[cfg(test)]
    pub(super) fn sync_market_for_test(&self) {
        let mut held = self.lock();
        if let Ok(open) = held.guard.open() {
            // Its failure is what the test waits for, in the next push.
            drop(open.logs.market.sync());
        }
    }

    /// Records of the order log that are durable.
    #[cfg(test)]
    pub(super) fn durable_orders_for_test(&self) -> u64 {
        let mut held = self.lock();
        held.guard
            .open()
            .map_or(0, |open| open.logs.orders.durable_seq())
    }

    fn end(&self) -> Result<Box<Open>, LiveError> {
        // First, so that no request leaves behind the end.
        self.queue.close();
        let mut held = self.lock();
        match std::mem::replace(&mut *held.guard, State::Over) {
            State::Open(open) => Ok(open),
            State::Over => Err(LiveError::Over),
        }
    }
}

impl Open {
    fn new(engine: Engine, logs: WalSink, options: &LiveOptions, found: &Found) -> Self {
        let mut placed = vec![Placed::default(); ORDER_COUNT_MAX].into_boxed_slice();
        for before in &found.placed {
            let decision = &before.decision;
            // A decision that the engine could not take back is counted there and holds no place.
            if engine.order(decision.order_id).is_none() {
                continue;
            }
            placed[placed_slot(decision.order_id)] = Placed {
                order_id: decision.order_id,
                decision_seq: decision.decision_seq,
                epoch: u32::try_from(before.epoch).unwrap_or(u32::MAX),
                decided_ns: decision.header.sequence_time_ns,
                tag: order_tag(before.epoch, decision.decision_seq),
            };
        }
        let mut sequencer = Sequencer::default();
        sequencer.continue_after(found.taken.last_seq, found.taken.last_time_ns);
        let config = engine.config();
        Self {
            placed,
            sequencer,
            instruments: config
                .instruments
                .iter()
                .map(|instrument| instrument.instrument_id)
                .collect(),
            trading_day: config.session.trading_day,
            epoch: options.epoch,
            last_time_ns: found.taken.last_time_ns,
            inputs: 0,
            decision_count: 0,
            requests: 0,
            market_failure: None,
            latch_seq: 0,
            has_new_request: false,
            record: Vec::with_capacity(256),
            decisions: Vec::with_capacity(DECISIONS_CAPACITY),
            engine,
            logs,
        }
    }

    fn view(&self, order: &Order) -> OrderView {
        let placed = &self.placed[placed_slot(order.order_id)];
        assert!(
            placed.order_id == order.order_id,
            "Invariant: every order of the engine has its place"
        );
        OrderView {
            order: *order,
            instrument_id: self.instruments[order.market_index],
            decision_seq: placed.decision_seq,
            epoch: placed.epoch,
            tag: placed.tag,
            decided_ns: placed.decided_ns,
        }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            last_seq: self.sequencer.last_seq(),
            last_time_ns: self.last_time_ns,
            inputs: self.inputs,
            decisions: self.decision_count,
            requests: self.requests,
            written: self.logs.written,
            has_space_ahead: ![&self.logs.market, &self.logs.orders]
                .iter()
                .any(|log| log.is_space_refused()),
            epoch: self.epoch,
        }
    }

    /// Takes one input, and what the logs owe behind it.
    fn take(
        &mut self,
        header: RecordHeader,
        bytes: &[u8],
        queue: &RequestQueue,
        latency: &Latency,
    ) -> Result<(), SinkError> {
        if let Some(failure) = queue.failure() {
            return Err(failure);
        }
        let is_market = RecordType::from_code(header.record_type)
            .is_some_and(|record_type| LogKind::Market.holds(record_type));
        if let Some(failure) = self.market_failure.as_ref().filter(|_| is_market) {
            return Err(failure.clone());
        }
        let outcome = self.sequence(header, bytes, queue, latency);
        let outcome = outcome.and_then(|()| self.settle(queue, latency));
        outcome.inspect_err(|failure| self.on_failure(failure, queue, latency))
    }

    /// Sequences what the sink has to say about records that it did not store.
    fn settle(&mut self, queue: &RequestQueue, latency: &Latency) -> Result<(), SinkError> {
        while let Some(record) = self.logs.owed(false) {
            let header = RecordHeader {
                source_id: SOURCE_RUNTIME,
                ..record.header
            };
            self.sequence(header, record.as_bytes(), queue, latency)?;
        }
        Ok(())
    }

    /// A log failed. Of the order log: nothing leaves any more. Of the market log: the session halts
    /// on record, once, and what works is taken back.
    fn on_failure(&mut self, failure: &SinkError, queue: &RequestQueue, latency: &Latency) {
        if !self.logs.is_market_lost || self.market_failure.is_some() {
            queue.fail(failure.clone());
            return;
        }
        self.market_failure = Some(failure.clone());
        self.logs.is_halting = true;
        let halted = self
            .take_up_refused(queue)
            .and_then(|unsent| self.halt_without_market(failure.code, &unsent, queue, latency));
        if let Err(second) = halted {
            queue.fail(second);
        }
    }

    /// Takes up the decisions that the log refused when the market was lost, and gives back what of
    /// them must not leave. The engine holds its cancels for sent and would not ask again: they go.
    fn take_up_refused(&mut self, queue: &RequestQueue) -> Result<Vec<DecisionRecord>, SinkError> {
        if self.decisions.is_empty() {
            return Ok(Vec::new());
        }
        let unsent: Vec<_> = self
            .decisions
            .iter()
            .filter(|decision| is_approved_place(decision))
            .copied()
            .collect();
        self.queue_decisions(self.last_time_ns, wall_ns(), queue, |decision| {
            !is_approved_place(decision)
        })?;
        Ok(unsent)
    }

    /// Halts on record, and then answers each order that stayed in.
    fn halt_without_market(
        &mut self,
        code: ReasonCode,
        unsent: &[DecisionRecord],
        queue: &RequestQueue,
        latency: &Latency,
    ) -> Result<(), SinkError> {
        let mut halt = CommandRecord::empty();
        halt.header.source_id = SOURCE_RUNTIME;
        halt.header.receive_time_ns = self.last_time_ns;
        halt.command_kind = CommandKind::Halt as u32;
        halt.alpha_index = ALL_ALPHAS;
        halt.reason_code = u64::from(code.code());
        self.sequence(halt.header, halt.as_bytes(), queue, latency)?;
        for decision in unsent {
            let mut answer = BrokerRecord::empty();
            answer.header.source_id = SOURCE_RUNTIME;
            answer.header.receive_time_ns = self.last_time_ns;
            answer.header.instrument_id = decision.header.instrument_id;
            answer.event_kind = BrokerEventKind::Rejected as u32;
            answer.reason_code = u32::from(ReasonCode::RequestNotSent.code());
            answer.order_id = decision.order_id;
            answer.side = decision.side;
            answer.price = decision.price;
            answer.qty = decision.qty;
            self.sequence(answer.header, answer.as_bytes(), queue, latency)?;
        }
        Ok(())
    }

    /// Gives one record its place, logs it and decides on it; approved requests go into the queue.
    fn sequence(
        &mut self,
        mut header: RecordHeader,
        bytes: &[u8],
        queue: &RequestQueue,
        latency: &Latency,
    ) -> Result<(), SinkError> {
        if header.trading_day == 0 {
            header.trading_day = self.trading_day;
        }
        let received_ns = header.receive_time_ns;
        self.sequencer.stamp(&mut header, received_ns);
        self.last_time_ns = header.sequence_time_ns;
        self.inputs += 1;
        let sequenced_ns = wall_ns();
        latency.record(
            Step::CallbackToSequenced,
            header.receive_time_ns,
            sequenced_ns,
        );
        self.record.clear();
        self.record.extend_from_slice(bytemuck::bytes_of(&header));
        self.record
            .extend_from_slice(bytes.get(size_of::<RecordHeader>()..).unwrap_or_default());
        self.logs.input(&header, &self.record)?;
        let logged_ns = wall_ns();
        latency.record(Step::LogAppend, sequenced_ns, logged_ns);
        self.decisions.clear();
        self.engine
            .on_record(&header, &self.record, &mut self.decisions);
        let decided_ns = wall_ns();
        latency.record(Step::Decide, logged_ns, decided_ns);
        if self.decisions.is_empty() {
            return Ok(());
        }
        self.decision_count += self.decisions.len() as u64;
        self.queue_decisions(received_ns, decided_ns, queue, |_decision| true)
    }

    /// Logs the decisions of one input; those approved and chosen go into the queue. What is left in
    /// their buffer is what the log refused.
    fn queue_decisions(
        &mut self,
        received_ns: i64,
        decided_ns: i64,
        queue: &RequestQueue,
        is_chosen: impl Fn(&DecisionRecord) -> bool,
    ) -> Result<(), SinkError> {
        let wait_for = self.logs.wait_for(&self.decisions);
        let appended_seq = self.logs.append_decisions(&self.decisions, false)?;
        if wait_for == WaitFor::Latch {
            self.latch_seq = appended_seq;
        }
        let wal_seq = if wait_for == WaitFor::Nothing {
            0
        } else {
            appended_seq
        };
        for place in 0..self.decisions.len() {
            let decision = self.decisions[place];
            let Some(request) = self.request_of(&decision, received_ns) else {
                continue;
            };
            if !is_chosen(&decision) {
                continue;
            }
            let waiting = Waiting {
                request,
                wal_seq,
                received_ns,
                entered_ns: decided_ns,
            };
            queue.push(waiting).map_err(|_full| SinkError {
                code: ReasonCode::CapacityReached,
                message: format!(
                    "request {} found the queue full; it never left and is unknown to the next epoch",
                    request.decision_seq
                ),
            })?;
            self.requests += 1;
            self.has_new_request = true;
        }
        self.decisions.clear();
        Ok(())
    }

    /// What an approved decision asks the broker for.
    fn request_of(&mut self, decision: &DecisionRecord, received_ns: i64) -> Option<OrderRequest> {
        let is_place = decision.action == ActionKind::Place as u32;
        let is_request = is_place || decision.action == ActionKind::Cancel as u32;
        if decision.verdict != APPROVED || !is_request {
            return None;
        }
        let placed = &mut self.placed[placed_slot(decision.order_id)];
        if is_place {
            *placed = Placed {
                order_id: decision.order_id,
                decision_seq: decision.decision_seq,
                epoch: self.epoch,
                decided_ns: decision.header.sequence_time_ns,
                tag: order_tag(self.epoch.into(), decision.decision_seq),
            };
        }
        assert!(
            placed.order_id == decision.order_id,
            "Invariant: what is canceled was placed"
        );
        Some(OrderRequest {
            decision_seq: decision.decision_seq,
            intent_id: decision.intent_id,
            order_id: decision.order_id,
            action: decision.action,
            alpha_index: decision.alpha_index,
            instrument_id: decision.header.instrument_id,
            side: decision.side,
            price: decision.price,
            qty: decision.qty,
            time_in_force: decision.time_in_force,
            tag: placed.tag,
            epoch: self.epoch,
            decided_ns: decision.header.sequence_time_ns,
            ttl_ns: decision.ttl_ns,
            received_ns,
        })
    }
}

fn is_approved_place(decision: &DecisionRecord) -> bool {
    decision.verdict == APPROVED && decision.action == ActionKind::Place as u32
}
