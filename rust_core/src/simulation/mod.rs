//! The one event loop of backtest and paper session: market, requests, responses and timers in
//! time order; everything the engine sees goes through one sequencer.
//!
//! Why: if research and trading are to agree, they must be the same loop with another venue and
//! another sink.
//!
//! Invariants:
//! 1. Time never goes back; at one time exchange rows come first, then request arrivals, then
//!    responses, then received records, then the silence timer.
//! 2. `input_seq` grows by one; `sequence_time_ns` is `max(previous + 1, now)`.
//! 3. The sink has taken every decision of a record before a request of it is under way.
//! 4. The engine never sees a record before its receive time, nor a report before its response
//!    delay has passed.
//! 5. Pushed in pieces of any size the market gives the same as at once, as long as every record is
//!    there before the time that it happens at is run through.
//! 6. Every approved request is answered, except those past `CLOSING_REQUESTS_MAX`, which are
//!    counted.
//!
//! It matches nothing (see `exchange`) and writes no file (see `session`). Operator's page:
//! `docs/backtest.md`.

mod at_exchange;
mod broker_book;
mod deliveries;
mod error;
mod faulty;
mod feed;
mod head;
mod outside;
mod schedule;
mod script;
mod sink;

pub use broker_book::{BookedOrder, BrokerBook};
pub use error::SimulationError;
pub use faulty::{FaultCounts, FaultReport};
pub use head::{Contract, SessionHead, sha256_of_hex};
pub use outside::CallAnswer;
pub use script::Script;
pub use sink::{MemorySink, Sink, SinkError};

use std::collections::{BTreeMap, BTreeSet};

use bytemuck::{Pod, Zeroable};

use crate::convert::{ConvertCounts, MarketTape};
use crate::engine::{Engine, Sequencer};
use crate::exchange::{Venue, VenueInstrument, VenueOrder, VenueReport};
use crate::faults::FaultProfile;
use crate::latency::{LatencyKind, LatencyProfile};
use crate::record::{DecisionRecord, Record, RecordHeader, RecordType};
use faulty::{Answer, Faults, Outbox};
use schedule::Schedule;

/// A timer record comes when nothing reached the engine for this long.
pub const SILENCE_NS: i64 = 1_000_000_000;
/// How long after the last record orders may still work, ns.
pub const DRAIN_NS_MAX: i64 = 10_000_000_000;
/// Requests taken after the venue closed (each is refused); the rest is counted.
pub const CLOSING_REQUESTS_MAX: u64 = 1_000;
/// Decisions of one record before the buffer grows.
const DECISIONS_CAPACITY: usize = 4_096;
/// `DecisionRecord::verdict` of an approval.
const APPROVED: u32 = 1;
/// `RecordHeader::source_id` of the paper exchange, the operator and the runtime.
const SOURCE_EXCHANGE: u16 = 3;
const SOURCE_OPERATOR: u16 = 5;
const SOURCE_RUNTIME: u16 = 6;

/// Takes sequenced records and decides: the engine, or a script in tests.
pub trait Decide {
    /// Appends the decisions that follow from one record.
    fn on_record(&mut self, header: &RecordHeader, bytes: &[u8], out: &mut Vec<DecisionRecord>);
}

impl Decide for Engine {
    fn on_record(&mut self, header: &RecordHeader, bytes: &[u8], out: &mut Vec<DecisionRecord>) {
        Engine::on_record(self, header, bytes, out);
    }
}

/// When a request was decided, arrived and was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct OrderFact {
    /// Which order.
    pub order_id: u64,
    /// 1 place, 2 cancel.
    pub request_kind: u64,
    /// The engine's time of the decision.
    pub decision_time_ns: i64,
    /// When the exchange had it; 0 if it never did, because the request was lost.
    pub exchange_arrival_ns: i64,
    /// When the engine got the first answer; 0 if it never did.
    pub response_time_ns: i64,
}

/// Names and numpy formats of [`OrderFact`].
pub const ORDER_FACT_FIELDS: [(&str, &str); 5] = [
    ("order_id", "<u8"),
    ("request_kind", "<u8"),
    ("decision_time_ns", "<i8"),
    ("exchange_arrival_ns", "<i8"),
    ("response_time_ns", "<i8"),
];

/// What a simulation counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunCounts {
    /// Inputs the engine got.
    pub inputs: u64,
    /// Timers among them.
    pub timers: u64,
    /// Decisions it made.
    pub decisions: u64,
    /// Requests that left.
    pub requests: u64,
    /// Reports the venue made.
    pub reports: u64,
    /// Requests decided after the close and past the bound: they never left.
    pub undispatched: u64,
}

/// Where a simulation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Simulated time.
    pub now_ns: i64,
    /// Counters so far.
    pub counts: RunCounts,
    /// Market records received, and how many there are.
    pub records_done: usize,
    /// How many there are.
    pub records_total: usize,
    /// Nothing is left to happen.
    pub is_done: bool,
}

/// Something to happen at the exchange.
#[derive(Debug, Clone, Copy)]
enum Request {
    /// A request of ours arrives.
    Arrives { kind: LatencyKind, order_id: u64 },
    /// The rest of an order whose fill comes in parts is filled.
    Remainder(u64),
    /// The session ends before the tape does.
    SessionEnd,
}

/// One order and the places of its facts.
#[derive(Debug)]
struct Track {
    order: VenueOrder,
    place_fact: Option<usize>,
    cancel_fact: Option<usize>,
}

/// What comes next, in the order of invariant 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Next {
    Exchange,
    Request,
    Response,
    Local,
    Timer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stretch {
    /// The tape is playing.
    Market,
    /// The tape has ended; requests still work until this time.
    Draining(i64),
    /// The venue is closed; answers are still delivered.
    Closing,
    /// Over.
    Ended,
}

/// The loop. `D` decides, `V` is the exchange, `S` keeps the record.
#[derive(Debug)]
pub struct Simulation<D, V, S> {
    tape: MarketTape,
    local_next: usize,
    exchange_next: usize,
    head: SessionHead,
    profile: LatencyProfile,
    decide: D,
    venue: V,
    sink: S,
    requests: Schedule<Request>,
    responses: Schedule<Answer>,
    faults: Option<Box<Faults>>,
    /// What the exchange knows, for those who ask it.
    book: Option<Box<BrokerBook>>,
    tracks: BTreeMap<u64, Track>,
    /// Orders that rest at the venue.
    resting: BTreeSet<u64>,
    facts: Vec<OrderFact>,
    counts: RunCounts,
    stretch: Stretch,
    /// More of the market may come.
    is_feed_open: bool,
    /// The market could not be stored any more.
    is_abandoned: bool,
    /// When the last row of the market happened.
    last_market_ns: i64,
    has_started: bool,
    now_ns: i64,
    sequencer: Sequencer,
    last_input_ns: i64,
    closing_requests: u64,
    /// Buffers kept for their capacity.
    record: Vec<u8>,
    decisions: Vec<DecisionRecord>,
    reports: Vec<VenueReport>,
    outbox: Outbox,
    remainders: Vec<(i64, u64)>,
}

/// What a finished simulation leaves.
#[derive(Debug)]
pub struct Finished<D, V, S> {
    /// The decider.
    pub decide: D,
    /// The exchange.
    pub venue: V,
    /// The sink.
    pub sink: S,
    /// One row a request.
    pub facts: Vec<OrderFact>,
    /// Counters.
    pub counts: RunCounts,
    /// What the exchange's market data left out.
    pub convert_counts: ConvertCounts,
    /// What went wrong, when something was to go wrong.
    pub faults: Option<FaultReport>,
}

impl<D: Decide, V: Venue, S: Sink> Simulation<D, V, S> {
    /// A simulation of one session.
    #[must_use]
    pub fn new(
        tape: MarketTape,
        head: SessionHead,
        profile: LatencyProfile,
        (decide, venue, sink): (D, V, S),
    ) -> Self {
        let now_ns = tape.first_receive_ns();
        Self {
            tape,
            local_next: 0,
            exchange_next: 0,
            head,
            profile,
            decide,
            venue,
            sink,
            requests: Schedule::new(),
            responses: Schedule::new(),
            faults: None,
            book: None,
            tracks: BTreeMap::new(),
            resting: BTreeSet::new(),
            facts: Vec::new(),
            counts: RunCounts::default(),
            stretch: Stretch::Market,
            is_feed_open: false,
            is_abandoned: false,
            last_market_ns: now_ns,
            has_started: false,
            now_ns,
            sequencer: Sequencer::default(),
            last_input_ns: now_ns,
            closing_requests: 0,
            record: Vec::with_capacity(256),
            decisions: Vec::with_capacity(DECISIONS_CAPACITY),
            reports: Vec::with_capacity(64),
            outbox: Vec::new(),
            remainders: Vec::new(),
        }
    }

    /// Lets things go wrong; `None` changes nothing.
    ///
    /// # Errors
    /// [`SimulationError::Faults`] when the profile is not allowed.
    pub fn with_faults(
        mut self,
        profile: Option<FaultProfile>,
        instruments: &[VenueInstrument],
    ) -> Result<Self, SimulationError> {
        if let Some(profile) = profile {
            profile.check()?;
            let faults = Faults::new(profile, instruments.to_vec());
            if let Some(end_ns) = faults.session_end_ns() {
                self.requests.add(end_ns, Request::SessionEnd);
            }
            self.faults = Some(Box::new(faults));
        }
        Ok(self)
    }

    /// Lets things happen up to and including `until_ns` (to the end without it), or until
    /// `records_max` more inputs were sequenced. While the feed is open `until_ns` says that
    /// nothing of a time up to it is still to come, and that this much time has passed.
    ///
    /// # Errors
    /// [`SimulationError::Feed`] for an open feed without `until_ns`; [`SimulationError`] of venue
    /// or sink, and the simulation is over then.
    pub fn run(
        &mut self,
        until_ns: Option<i64>,
        records_max: u64,
    ) -> Result<Progress, SimulationError> {
        if self.is_feed_open && until_ns.is_none() && self.stretch != Stretch::Ended {
            return Err(SimulationError::Feed {
                action: "running to the end",
                state: "more of the market may come",
            });
        }
        let result = self.run_steps(until_ns, records_max);
        if result.is_err() {
            self.stretch = Stretch::Ended;
        }
        result
    }

    fn run_steps(
        &mut self,
        until_ns: Option<i64>,
        records_max: u64,
    ) -> Result<Progress, SimulationError> {
        self.start()?;
        let enough = self.counts.inputs.saturating_add(records_max);
        while self.stretch != Stretch::Ended && self.counts.inputs < enough {
            let Some((time_ns, next)) = self.next() else {
                // An open feed always has a timer to come.
                self.move_on()?;
                continue;
            };
            if let Stretch::Draining(deadline_ns) = self.stretch
                && time_ns > deadline_ns
            {
                self.close_venue()?;
                continue;
            }
            if let Some(until_ns) = until_ns.filter(|until_ns| time_ns > *until_ns) {
                if self.is_feed_open {
                    // This much time has passed: what comes too late happens now, not then.
                    self.now_ns = self.now_ns.max(until_ns);
                }
                break;
            }
            self.step(time_ns, next)?;
        }
        Ok(self.progress())
    }

    /// Where it stands.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress {
            now_ns: self.now_ns,
            counts: self.counts,
            records_done: self.local_next,
            records_total: self.tape.local().len(),
            is_done: self.stretch == Stretch::Ended,
        }
    }

    /// The decider, for its counters.
    #[must_use]
    pub fn decider(&self) -> &D {
        &self.decide
    }

    /// The decider, to take from it what it keeps.
    pub fn decider_mut(&mut self) -> &mut D {
        &mut self.decide
    }

    /// The decider, and the sink to change what it stores.
    pub fn parts(&mut self) -> (&D, &mut S) {
        (&self.decide, &mut self.sink)
    }

    /// Sequences what the sink owes the log now.
    ///
    /// # Errors
    /// [`SimulationError::Ended`] after the end, else as [`Self::run`].
    pub fn settle(&mut self) -> Result<(), SimulationError> {
        if self.stretch == Stretch::Ended {
            return Err(SimulationError::Ended);
        }
        let result = self.settle_sink(false);
        if result.is_err() {
            self.stretch = Stretch::Ended;
        }
        result
    }

    /// Ends a market that can no longer be stored: `last` (a halt) is decided on, and what it asks
    /// for is done and answered at the market as it stands. No market record and no timer follows.
    /// What the sink had refused is given to it once more, before `last`: the engine counts on it.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn abandon<R: Record>(&mut self, last: R) -> Result<(), SimulationError> {
        self.is_feed_open = false;
        self.local_next = self.tape.local().len();
        self.exchange_next = self.tape.exchange().len();
        self.is_abandoned = true;
        self.stretch = Stretch::Draining(self.now_ns.saturating_add(DRAIN_NS_MAX));
        self.take_up_refused()?;
        self.inject(last)?;
        self.run(None, u64::MAX).map(drop)
    }

    /// Puts an operator's record (command, config switch) into the input sequence now.
    ///
    /// # Errors
    /// [`SimulationError::Ended`] after the end, else as [`Self::run`].
    pub fn inject<R: Record>(&mut self, record: R) -> Result<(), SimulationError> {
        let source_id = if R::TYPE == RecordType::Health {
            SOURCE_RUNTIME
        } else {
            SOURCE_OPERATOR
        };
        self.inject_from(record, source_id)
    }

    /// As [`Self::inject`], with the record's source named.
    ///
    /// # Errors
    /// As [`Self::inject`].
    pub fn inject_from<R: Record>(
        &mut self,
        mut record: R,
        source_id: u16,
    ) -> Result<(), SimulationError> {
        if self.stretch == Stretch::Ended {
            return Err(SimulationError::Ended);
        }
        self.start()?;
        self.stamp(record.header_mut(), source_id, self.now_ns);
        let result = self.sequence_record(&record);
        if result.is_err() {
            self.stretch = Stretch::Ended;
        }
        result
    }

    /// Ends the market now: what is left of the tape is not played, open requests are answered,
    /// resting orders are canceled.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn close(&mut self) -> Result<Progress, SimulationError> {
        if matches!(self.stretch, Stretch::Market | Stretch::Draining(_)) {
            self.start()?;
            self.is_feed_open = false;
            self.local_next = self.tape.local().len();
            self.exchange_next = self.tape.exchange().len();
            self.close_venue()?;
        }
        self.run(None, u64::MAX)
    }

    /// Takes it apart.
    #[must_use]
    pub fn finish(self) -> Finished<D, V, S> {
        let convert_counts = self.venue.convert_counts();
        Finished {
            decide: self.decide,
            venue: self.venue,
            sink: self.sink,
            facts: self.facts,
            counts: self.counts,
            convert_counts,
            faults: self.faults.map(|faults| faults.finish()),
        }
    }

    fn start(&mut self) -> Result<(), SimulationError> {
        if self.has_started {
            return Ok(());
        }
        self.has_started = true;
        for mut record in std::mem::take(&mut self.head.instruments) {
            self.stamp(&mut record.header, SOURCE_RUNTIME, self.now_ns);
            self.sequence_record(&record)?;
        }
        for mut record in std::mem::take(&mut self.head.switches) {
            self.stamp(&mut record.header, SOURCE_RUNTIME, self.now_ns);
            self.sequence_record(&record)?;
        }
        Ok(())
    }

    fn next(&self) -> Option<(i64, Next)> {
        let offers = [
            (
                self.tape
                    .exchange()
                    .get(self.exchange_next)
                    .map(|row| row.0),
                Next::Exchange,
            ),
            (self.requests.next_time(), Next::Request),
            (self.responses.next_time(), Next::Response),
            (
                self.tape.local().get(self.local_next).map(|row| row.0),
                Next::Local,
            ),
        ];
        // The smallest pair: at equal times the kind's own order decides (invariant 1).
        let next = offers
            .into_iter()
            .filter_map(|(time_ns, kind)| Some((time_ns?, kind)))
            .min();
        let timer = (self.last_input_ns + SILENCE_NS, Next::Timer);
        let has_timer = self.stretch != Stretch::Closing && !self.is_abandoned;
        match next {
            Some(next) if has_timer && timer.0 < next.0 => Some(timer),
            None if has_timer && self.is_feed_open => Some(timer),
            next => next,
        }
    }

    /// Nothing is left to happen in this stretch.
    fn move_on(&mut self) -> Result<(), SimulationError> {
        match self.stretch {
            Stretch::Market | Stretch::Draining(_) => self.close_venue(),
            Stretch::Closing | Stretch::Ended => {
                self.settle_sink(true)?;
                if self.requests.next_time().is_none() && self.responses.next_time().is_none() {
                    self.stretch = Stretch::Ended;
                }
                Ok(())
            }
        }
    }

    fn step(&mut self, time_ns: i64, next: Next) -> Result<(), SimulationError> {
        // An exchange stamp behind the clock (a recorder's skew) acts now.
        self.now_ns = self.now_ns.max(time_ns);
        if matches!(next, Next::Exchange | Next::Local) {
            self.last_market_ns = self.now_ns;
        }
        match next {
            Next::Exchange => self.exchange_rows(time_ns)?,
            Next::Request => self.request_arrives()?,
            Next::Response => self.response_arrives()?,
            Next::Local => self.record_arrives()?,
            Next::Timer => self.timer()?,
        }
        self.drain_after_market(self.now_ns);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
