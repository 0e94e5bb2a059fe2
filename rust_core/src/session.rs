//! A paper session: the simulation on the paper exchange, with two write-ahead logs.
//!
//! Why: whatever a session decided must be decidable again from its logs, and an intent must be on
//! disk before the exchange hears of it.
//!
//! Invariants:
//! 1. Every sequenced input is in exactly one log: books, trades, timers and contracts in the
//!    market log; commands, config switches, broker and health reports, intents from outside and
//!    decisions in the order log.
//! 2. Decisions of which one is approved are durable before a request leaves (with
//!    `durable: group` they are appended, and durable within the group commit). A change of the
//!    policy, so every halt and every resume, is durable at once in both.
//! 3. After a failure of the order log no request leaves; the session ends halted with that code.
//!    After one of the market log only what the halt asks for does: cancels, and exits by the permit.
//! 4. A session that was started is ended once, and its logs are sealed.
//! 5. A bus, where there is one, carries what the logs took (or left out, invariant 6), in the same
//!    order, after they took it; who reads it and how fast changes nothing here.
//! 6. A market record is left out of its log only while its instrument is reduce-only, by the rules
//!    of `shed`; when the market log fails, the halt and its cancels still go to the order log.
//!
//! It paces nothing and reads no clock but to measure the engine. Operator's page:
//! `docs/runbook.md`.

use std::path::PathBuf;
use std::time::Instant;

use crate::bus::Publisher;
use crate::convert::{ConvertCounts, MarketTape};
use crate::engine::{ALL_ALPHAS, Engine, EngineError};
use crate::exchange::{CrateVenue, QueueModelKind, VenueInstrument};
use crate::faults::FaultProfile;
use crate::kernel::Kernels;
use crate::latency::LatencyProfile;
use crate::reason::ReasonCode;
use crate::record::{
    CommandKind, CommandRecord, ConfigSwitchRecord, DecisionRecord, HealthRecord, IntentRecord,
    Record, RecordHeader, ShedRecord,
};
use crate::shed::{Restriction, ShedError, Topic, Topics};
use crate::simulation::{
    Decide, FaultReport, Finished, OrderFact, Progress, RunCounts, SessionHead, Simulation,
    SimulationError, Sink, SinkError, sha256_of_hex,
};
use crate::thread_owned::ThreadGone;
use crate::wal::WalError;

mod logs;

pub use logs::{Durability, SessionOptions, WaitFor, WalSink, WrittenBytes};

pub(crate) use logs::sink_error;

/// Times of single steps that a session keeps.
const SAMPLE_COUNT_MAX: usize = 1 << 20;
/// `RecordHeader::source_id` of a strategy outside the engine.
const SOURCE_STRATEGY: u16 = 7;

/// Why a session cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The engine refused its config.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The simulation stopped.
    #[error(transparent)]
    Simulation(#[from] SimulationError),
    /// A log could not be opened.
    #[error(transparent)]
    Wal(Box<WalError>),
    /// Records were to be left out that may not be.
    #[error(transparent)]
    Shed(Box<ShedError>),
    /// The options are not valid.
    #[error("session options are malformed: {0}")]
    Options(String),
    /// Fed twice, run before fed, or used after its end.
    #[error("session {action} is not possible: {state}")]
    State {
        /// What was asked.
        action: &'static str,
        /// Where the session stands.
        state: &'static str,
    },
    /// The thread that held the session is gone.
    #[error("session: {0}")]
    ThreadGone(#[from] ThreadGone),
}

impl SessionError {
    /// Its number.
    #[must_use]
    pub fn code(&self) -> ReasonCode {
        match self {
            Self::Engine(error) => error.code(),
            Self::Simulation(error) => error.code(),
            Self::Wal(error) => error.code(),
            Self::Shed(error) => error.code(),
            Self::Options(_) => ReasonCode::SettingsInvalid,
            Self::State { .. } => ReasonCode::SessionNotOpen,
            Self::ThreadGone(_) => ReasonCode::InvariantBroken,
        }
    }
}

/// The logs, and behind them the bus.
#[derive(Debug)]
struct Published {
    logs: WalSink,
    publisher: Option<Publisher>,
}

impl Sink for Published {
    fn input(&mut self, header: &RecordHeader, bytes: &[u8]) -> Result<(), SinkError> {
        self.logs.input(header, bytes)?;
        if let Some(publisher) = &mut self.publisher {
            publisher.publish(bytes);
        }
        Ok(())
    }

    fn decisions(&mut self, decisions: &[DecisionRecord]) -> Result<(), SinkError> {
        self.logs.decisions(decisions)?;
        if let Some(publisher) = &mut self.publisher {
            for decision in decisions {
                publisher.publish(decision.as_bytes());
            }
        }
        Ok(())
    }

    fn owed(&mut self, is_last: bool) -> Option<ShedRecord> {
        self.logs.owed(is_last)
    }
}

/// How a session's logs stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogState {
    /// Bytes written.
    pub written: WrittenBytes,
    /// Market records left out so far, by topic.
    pub shed: [(Topic, u64); 3],
    /// Instruments of which something is left out now.
    pub shedding_count: usize,
    /// The disk has not refused either log its next segment.
    pub has_space_ahead: bool,
}

/// Time of every decision step, ns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DecideTimes {
    /// Steps measured.
    pub count: u64,
    /// Median.
    pub p50_ns: u32,
    /// 99 of 100 are below.
    pub p99_ns: u32,
    /// 999 of 1,000 are below.
    pub p999_ns: u32,
    /// Worst.
    pub max_ns: u32,
}

impl DecideTimes {
    fn of(mut samples: Vec<u32>) -> Self {
        samples.sort_unstable();
        let at = |share_ppm: usize| {
            let rank = samples.len().saturating_sub(1) * share_ppm / 1_000_000;
            samples.get(rank).copied().unwrap_or(0)
        };
        Self {
            count: samples.len() as u64,
            p50_ns: at(500_000),
            p99_ns: at(990_000),
            p999_ns: at(999_000),
            max_ns: at(1_000_000),
        }
    }
}

/// A decider whose steps are measured; the measure decides nothing.
#[derive(Debug)]
struct Timed<D> {
    decide: D,
    samples: Vec<u32>,
}

impl<D: Decide> Decide for Timed<D> {
    fn on_record(&mut self, header: &RecordHeader, bytes: &[u8], out: &mut Vec<DecisionRecord>) {
        let start = Instant::now();
        self.decide.on_record(header, bytes, out);
        // A list that grows would copy itself inside a step; the first million say enough.
        if self.samples.len() < SAMPLE_COUNT_MAX {
            self.samples
                .push(u32::try_from(start.elapsed().as_nanos()).unwrap_or(u32::MAX));
        }
    }
}

/// Everything a session needs before its market.
#[derive(Debug, Clone)]
pub struct SessionSetup {
    /// Engine config, JSON.
    pub engine_config: String,
    /// Order latency.
    pub profile: LatencyProfile,
    /// Queue model of the paper exchange.
    pub queue_model: QueueModelKind,
    /// What goes wrong at the paper exchange.
    pub faults: Option<FaultProfile>,
    /// Resolved contracts by instrument.
    pub contracts: std::collections::BTreeMap<u32, crate::simulation::Contract>,
    /// Folder of the session.
    pub session_dir: PathBuf,
    /// How the logs are written.
    pub options: SessionOptions,
    /// Kernels that the config names.
    pub kernels: Kernels,
}

/// What a session leaves.
#[derive(Debug)]
pub struct SessionResult {
    /// Code of the log's failure that ended it, else of the engine's halt, 0 if none.
    pub halted_by: u16,
    /// What the log's failure said.
    pub message: String,
    /// What the simulation counted.
    pub counts: RunCounts,
    /// What the market data's conversion left out.
    pub convert_counts: ConvertCounts,
    /// The engine, for its counters and results.
    pub engine: Engine,
    /// One row a request.
    pub facts: Vec<OrderFact>,
    /// What went wrong at the paper exchange, when something was to.
    pub faults: Option<FaultReport>,
    /// Time of the decision steps.
    pub decide_times: DecideTimes,
    /// Records in the market log and in the order log, 0 when they could not be sealed.
    pub sealed: (u64, u64),
}

type Loop = Simulation<Timed<Engine>, CrateVenue, Published>;

#[derive(Debug)]
enum State {
    Ready(Box<(SessionSetup, Engine)>),
    Running(Box<Loop>),
    Over,
}

/// One paper session. It lives on one thread; see [`crate::thread_owned`].
#[derive(Debug)]
pub struct PaperSession {
    state: State,
    halt: Option<SinkError>,
    publisher: Option<Publisher>,
}

impl PaperSession {
    /// A session that waits for its market.
    ///
    /// # Errors
    /// [`SessionError::Engine`] when the config is refused.
    pub fn new(setup: SessionSetup) -> Result<Self, SessionError> {
        let engine = Engine::from_json_with(&setup.engine_config, &setup.kernels)?;
        Ok(Self {
            state: State::Ready(Box::new((setup, engine))),
            halt: None,
            publisher: None,
        })
    }

    /// Lets a bus carry what the logs take.
    ///
    /// # Errors
    /// [`SessionError::State`] once it has its recording.
    pub fn publish_to(&mut self, publisher: Publisher) -> Result<(), SessionError> {
        if matches!(self.state, State::Ready(_)) {
            self.publisher = Some(publisher);
            return Ok(());
        }
        Err(SessionError::State {
            action: "publish",
            state: "it has its recording, or is over",
        })
    }

    /// Gives it the recording, or with `more` the next piece of a market that goes on; the first
    /// piece opens its logs, the one without `more` is the last and may be empty.
    ///
    /// # Errors
    /// [`SessionError`] when the tape is no market tape, a log cannot be opened, or it has its last
    /// piece.
    pub fn feed(&mut self, tape: Vec<u8>, more: bool) -> Result<(), SessionError> {
        if let State::Running(simulation) = &mut self.state
            && simulation.is_feed_open()
        {
            simulation.feed(tape)?;
            if !more {
                simulation.end_feed();
            }
            return Ok(());
        }
        let refused = SessionError::State {
            action: "feed",
            state: "it has its recording, or is over",
        };
        if !matches!(self.state, State::Ready(_)) {
            return Err(refused);
        }
        let State::Ready(ready) = std::mem::replace(&mut self.state, State::Over) else {
            return Err(refused);
        };
        let (setup, engine) = *ready;
        let tape = MarketTape::new(tape).map_err(SimulationError::from)?;
        let head = SessionHead::new(engine.config(), &setup.contracts)?;
        let instruments: Vec<VenueInstrument> = engine
            .config()
            .instruments
            .iter()
            .map(VenueInstrument::from)
            .collect();
        let venue =
            CrateVenue::new(setup.queue_model, &instruments).map_err(SimulationError::from)?;
        if let Some(faults) = &setup.faults {
            // Before a log is opened: a refused session leaves none.
            faults.check().map_err(SimulationError::from)?;
        }
        let sink = WalSink::open(&setup.session_dir, setup.options)
            .map_err(|error| SessionError::Wal(Box::new(error)))?;
        let sink = Published {
            logs: sink,
            publisher: self.publisher.take(),
        };
        let decide = Timed {
            decide: engine,
            samples: Vec::with_capacity(SAMPLE_COUNT_MAX),
        };
        let simulation = Simulation::new(tape, head, setup.profile, (decide, venue, sink))
            .with_faults(setup.faults, &instruments)?;
        let simulation = if more {
            simulation.with_open_feed()
        } else {
            simulation
        };
        self.state = State::Running(Box::new(simulation));
        Ok(())
    }

    fn running(&mut self, action: &'static str) -> Result<&mut Loop, SessionError> {
        match &mut self.state {
            State::Running(simulation) => Ok(simulation),
            State::Ready(_) => Err(SessionError::State {
                action,
                state: "it has no recording yet",
            }),
            State::Over => Err(SessionError::State {
                action,
                state: "it is over",
            }),
        }
    }

    /// A failed log ends the session, quietly here and with its code in the result; any other
    /// failure is the caller's.
    fn settle<T>(&mut self, result: Result<T, SimulationError>) -> Result<Option<T>, SessionError> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(SimulationError::Sink(error)) => {
                self.abandon(&error);
                self.halt.get_or_insert(error);
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Where the market log is lost but the order log is not, halts on record: what works is taken
    /// back, and both are durable before anything else happens.
    fn abandon(&mut self, cause: &SinkError) {
        let State::Running(simulation) = &mut self.state else {
            return;
        };
        let logs = &mut simulation.parts().1.logs;
        if self.halt.is_some() || !logs.is_market_lost {
            return;
        }
        logs.is_halting = true;
        let mut record = CommandRecord::empty();
        record.command_kind = CommandKind::Halt as u32;
        record.alpha_index = ALL_ALPHAS;
        record.reason_code = u64::from(cause.code.code());
        // The first failure is the one that is told; a second one here leaves no more to be done.
        let _outcome = simulation.abandon(record);
    }

    /// Leaves the first `topics` of the market out of the log from here on, or with none of them
    /// nothing any more. Every instrument is made reduce-only first, and that is durable before
    /// this returns; it stays so until an operator's resume.
    ///
    /// # Errors
    /// [`SessionError::Shed`] when an instrument could not be made so; [`SimulationError::Ended`]
    /// after the end, else as [`Self::run`].
    pub fn shed(
        &mut self,
        topics: Topics,
        level: u32,
        reason: ReasonCode,
    ) -> Result<(), SessionError> {
        let engine = &self.running("shed")?.decider().decide;
        let instruments: Vec<u32> = engine
            .config()
            .instruments
            .iter()
            .map(|instrument| instrument.instrument_id)
            .collect();
        for instrument_id in instruments {
            if topics == Topics::NONE {
                self.running("shed")?
                    .parts()
                    .1
                    .logs
                    .shedder
                    .end(instrument_id);
                continue;
            }
            let mut record = CommandRecord::empty();
            record.header.instrument_id = instrument_id;
            record.command_kind = CommandKind::ReduceOnly as u32;
            record.alpha_index = ALL_ALPHAS;
            record.reason_code = u64::from(reason.code());
            let result = self.running("shed")?.inject(record);
            if self.settle(result)?.is_none() {
                return Ok(());
            }
            let (decide, sink) = self.running("shed")?.parts();
            let logs = &mut sink.logs;
            match Restriction::prove(&decide.decide, &logs.orders, instrument_id) {
                Ok(restriction) => logs.shedder.begin(restriction, topics, level, reason),
                Err(ShedError::Wal(error)) => {
                    self.halt.get_or_insert(sink_error(&error));
                    return Ok(());
                }
                Err(error) => return Err(SessionError::Shed(Box::new(error))),
            }
        }
        let result = self.running("shed")?.settle();
        self.settle(result).map(drop)
    }

    /// Ends the shedding of instruments that something has freed, and with `is_resume` of all: then a
    /// log tells without an engine that nothing was left out behind a resume.
    fn shed_restricted_only(&mut self, is_resume: bool) -> Result<(), SessionError> {
        let simulation = self.running("shed")?;
        let (decide, sink) = simulation.parts();
        sink.logs.shedder.end_unrestricted(&decide.decide);
        if is_resume {
            sink.logs.shedder.end_all();
        }
        let result = match simulation.settle() {
            Err(SimulationError::Ended) => return Ok(()),
            result => result,
        };
        self.settle(result).map(drop)
    }

    /// How its logs stand.
    ///
    /// # Errors
    /// [`SessionError::State`] before the recording and after the end.
    pub fn logs(&mut self) -> Result<LogState, SessionError> {
        let (_, sink) = self.running("logs")?.parts();
        let logs = &sink.logs;
        Ok(LogState {
            written: logs.written,
            shed: logs.shedder.shed_counts(),
            shedding_count: logs.shedder.active_count(),
            has_space_ahead: ![&logs.market, &logs.orders]
                .iter()
                .any(|log| log.is_space_refused()),
        })
    }

    /// Steps it; see [`Simulation::run`].
    ///
    /// # Errors
    /// [`SessionError`] when the simulation fails for another reason than its logs.
    pub fn run(
        &mut self,
        until_ns: Option<i64>,
        records_max: u64,
    ) -> Result<Progress, SessionError> {
        let result = self.running("run")?.run(until_ns, records_max);
        match self.settle(result)? {
            Some(progress) => Ok(progress),
            None => Ok(self.running("run")?.progress()),
        }
    }

    /// Code of what halted it, log or engine; 0 if nothing did.
    #[must_use]
    pub fn halted_by(&self) -> u16 {
        let engine = match &self.state {
            State::Running(simulation) => simulation.decider().decide.halted_by(),
            State::Ready(_) | State::Over => None,
        };
        self.halt
            .as_ref()
            .map(|halt| halt.code)
            .or(engine)
            .map_or(0, ReasonCode::code)
    }

    /// Puts what the runtime measured into the input sequence, now; gives its `input_seq`.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub fn health(&mut self, record: HealthRecord) -> Result<u64, SessionError> {
        let result = self.running("health")?.inject(record);
        self.settle(result)?;
        Ok(self.running("health")?.progress().counts.inputs)
    }

    /// Puts an operator's command into the input sequence, now; gives its `input_seq`.
    ///
    /// # Errors
    /// As [`Self::run`], and [`SimulationError::Ended`] after the end.
    pub fn command(&mut self, record: CommandRecord) -> Result<u64, SessionError> {
        let result = self.running("command")?.inject(record);
        let input_seq = self.running("command")?.progress().counts.inputs;
        self.settle(result)?;
        self.shed_restricted_only(record.command_kind == CommandKind::ResumeConfirm as u32)?;
        // Every input takes the next number, so the count was the number of this one.
        Ok(input_seq)
    }

    /// Puts a switch to another verified config into the input sequence, now.
    ///
    /// # Errors
    /// As [`Self::command`], and [`SimulationError::Head`] when the hash is none.
    pub fn config_switch(
        &mut self,
        mut record: ConfigSwitchRecord,
        sha256_hex: &str,
    ) -> Result<(), SessionError> {
        record.config_sha256 = sha256_of_hex(sha256_hex)?;
        let result = self.running("config switch")?.inject(record);
        self.settle(result).map(drop)
    }

    /// Puts an intent of a strategy outside the engine into the input sequence, now.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub fn intent(&mut self, record: IntentRecord) -> Result<(), SessionError> {
        let result = self.running("intent")?.inject_from(record, SOURCE_STRATEGY);
        self.settle(result).map(drop)
    }

    /// The engine, for its counters and results.
    ///
    /// # Errors
    /// [`SessionError::State`] before the recording and after the end.
    pub fn engine(&mut self) -> Result<&Engine, SessionError> {
        Ok(&self.running("counters")?.decider().decide)
    }

    /// Closes the market where it is, lets what is open be answered, and seals both logs.
    ///
    /// # Errors
    /// [`SessionError`] when the simulation fails for another reason than its logs, or it is over.
    pub fn finish(&mut self) -> Result<SessionResult, SessionError> {
        let closed = self.running("finish")?.close();
        self.settle(closed)?;
        let State::Running(simulation) = std::mem::replace(&mut self.state, State::Over) else {
            return Err(SessionError::State {
                action: "finish",
                state: "it is over",
            });
        };
        let Finished {
            decide,
            sink,
            facts,
            counts,
            convert_counts,
            faults,
            ..
        } = simulation.finish();
        let sealed = match sink.logs.seal() {
            Ok(sealed) => sealed,
            Err(error) => {
                self.halt.get_or_insert(sink_error(&error));
                (0, 0)
            }
        };
        let engine = decide.decide;
        let halt = self.halt.as_ref();
        Ok(SessionResult {
            halted_by: halt
                .map(|halt| halt.code)
                .or(engine.halted_by())
                .map_or(0, ReasonCode::code),
            message: halt.map_or_else(String::new, |halt| halt.message.clone()),
            counts,
            convert_counts,
            engine,
            facts,
            faults,
            decide_times: DecideTimes::of(decide.samples),
            sealed,
        })
    }
}
