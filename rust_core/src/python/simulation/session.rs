//! The paper session for Python.
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use super::super::bus::PyBus;
use super::super::engine::engine_report;
use super::super::kernel::{PyKernelHandle, kernels_of};
use super::{VenueOptions, fault_report, latency_profile, refuse, run_counts};
use crate::convert::ConvertCounts;
use crate::reason::ReasonCode;
use crate::record::{CommandRecord, ConfigSwitchRecord, HealthRecord, IntentRecord, Record, Tape};
use crate::session::{PaperSession, SessionError, SessionOptions, SessionSetup};
use crate::shed::Topics;
use crate::simulation::Progress;
use crate::thread_owned::ThreadOwned;

/// A paper session: feed it a recording, step it, finish it.
#[pyclass(name = "PaperSession", module = "hft_platform._core", frozen)]
pub(super) struct PyPaperSession {
    thread: Mutex<ThreadOwned<PaperSession>>,
}

fn raised(py: Python<'_>, error: &SessionError) -> PyErr {
    refuse(py, error.code(), &error.to_string())
}

fn progress_dict<'py>(
    py: Python<'py>,
    progress: &Progress,
    halted_by: u16,
) -> PyResult<Bound<'py, PyDict>> {
    let table = run_counts(py, &progress.counts, &ConvertCounts::default())?;
    table.set_item("now_ns", progress.now_ns)?;
    table.set_item("records_done", progress.records_done)?;
    table.set_item("records_total", progress.records_total)?;
    table.set_item("done", progress.is_done)?;
    table.set_item("halted_by", halted_by)?;
    Ok(table)
}

impl PyPaperSession {
    fn thread(&self) -> MutexGuard<'_, ThreadOwned<PaperSession>> {
        // A panic elsewhere leaves the channel ends as they were: nothing to repair.
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `task` on the session's thread, without the GIL.
    fn call<T: Send + 'static>(
        &self,
        py: Python<'_>,
        task: impl FnOnce(&mut PaperSession) -> Result<T, SessionError> + Send + 'static,
    ) -> PyResult<T> {
        py.detach(|| {
            self.thread()
                .call(task)
                .unwrap_or_else(|gone| Err(gone.into()))
        })
        .map_err(|error| raised(py, &error))
    }
}

#[pymethods]
impl PyPaperSession {
    /// A session in `session_dir`; `options_json` holds `wal_id` and, if wanted, `durable`
    /// ("record" or "group"), `segment_bytes`, `group_commit_ms`, `epoch`.
    #[new]
    #[pyo3(signature = (engine_config_json, latency_json, venue_json, session_dir, options_json, kernels=Vec::new()))]
    fn new(
        py: Python<'_>,
        engine_config_json: String,
        latency_json: &str,
        venue_json: &str,
        session_dir: PathBuf,
        options_json: &str,
        kernels: Vec<PyRef<'_, PyKernelHandle>>,
    ) -> PyResult<Self> {
        let venue = VenueOptions::from_json(py, venue_json)?;
        let options: SessionOptions = serde_json::from_str(options_json)
            .map_err(|error| raised(py, &SessionError::Options(error.to_string())))?;
        let setup = SessionSetup {
            engine_config: engine_config_json,
            profile: latency_profile(py, latency_json)?,
            queue_model: venue.queue_model,
            faults: venue.faults,
            contracts: venue.contracts,
            session_dir,
            options,
            kernels: kernels_of(py, &kernels)?,
        };
        let thread = py
            .detach(|| ThreadOwned::start("paper-session", || PaperSession::new(setup)))
            .map_err(|error| raised(py, &error))?;
        Ok(Self {
            thread: Mutex::new(thread),
        })
    }

    /// Publishes every input and decision on a bus from here on, after the logs took them.
    fn publish_to(&self, py: Python<'_>, bus: &Bound<'_, PyBus>) -> PyResult<()> {
        let publisher = bus.get().take_publisher(py)?;
        self.call(py, move |session| session.publish_to(publisher))
    }

    /// The whole recording, or with `more` the next piece of a market that goes on.
    #[pyo3(signature = (tape, *, more=false))]
    fn feed(&self, py: Python<'_>, tape: Vec<u8>, more: bool) -> PyResult<()> {
        self.call(py, move |session| session.feed(tape, more))
    }

    /// Steps to `until_ns` (None: the end, which an open feed does not have) or by `max_records` inputs, whichever comes first.
    fn run<'py>(
        &self,
        py: Python<'py>,
        until_ns: Option<i64>,
        max_records: u64,
    ) -> PyResult<Bound<'py, PyDict>> {
        let (progress, halted_by) = self.call(py, move |session| {
            let progress = session.run(until_ns, max_records)?;
            Ok((progress, session.halted_by()))
        })?;
        progress_dict(py, &progress, halted_by)
    }

    /// What the runtime measured, at this point of the input sequence.
    #[pyo3(signature = (kind, value, argument=0, instrument_id=0))]
    fn health(
        &self,
        py: Python<'_>,
        kind: u64,
        value: i64,
        argument: i64,
        instrument_id: u32,
    ) -> PyResult<u64> {
        let mut record = HealthRecord::empty();
        record.header.instrument_id = instrument_id;
        record.health_kind = kind;
        record.value = value;
        record.argument = argument;
        self.call(py, move |session| session.health(record))
    }

    /// An operator's command, at this point of the input sequence; gives its `input_seq`. With an
    /// `instrument_id` a halt or reduce-only of all alphas concerns those that trade it.
    #[pyo3(signature = (kind, alpha_index, argument, reason, *, instrument_id=0))]
    fn command(
        &self,
        py: Python<'_>,
        kind: u32,
        alpha_index: u32,
        argument: i64,
        reason: u64,
        instrument_id: u32,
    ) -> PyResult<u64> {
        let mut record = CommandRecord::empty();
        record.header.instrument_id = instrument_id;
        record.command_kind = kind;
        record.alpha_index = alpha_index;
        record.argument = argument;
        record.reason_code = reason;
        self.call(py, move |session| session.command(record))
    }

    /// Leaves every topic up to this one (`depth`, `books`, `trades`) out of the market log from
    /// here on, or with None nothing any more; makes every instrument reduce-only first.
    fn shed(&self, py: Python<'_>, up_to: Option<&str>, level: u32, reason: u16) -> PyResult<()> {
        let topics = match up_to {
            None => Some(Topics::NONE),
            Some(name) => Topics::up_to(name),
        };
        let reason = ReasonCode::from_code(reason);
        let (Some(topics), Some(reason)) = (topics, reason) else {
            return Err(refuse(
                py,
                ReasonCode::SettingsInvalid,
                &format!("topic to shed was {up_to:?}, allowed is depth, books, trades or None"),
            ));
        };
        self.call(py, move |session| session.shed(topics, level, reason))
    }

    /// How its logs stand: bytes written to each, records left out by topic, instruments of which
    /// something is left out now, and whether the disk had room for the segments to come.
    fn logs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let state = self.call(py, PaperSession::logs)?;
        let table = PyDict::new(py);
        table.set_item("market_bytes", state.written.market)?;
        table.set_item("orders_bytes", state.written.orders)?;
        let shed = PyDict::new(py);
        for (topic, count) in state.shed {
            shed.set_item(topic.name(), count)?;
        }
        table.set_item("shed", shed)?;
        table.set_item("shedding_count", state.shedding_count)?;
        table.set_item("space_ahead", state.has_space_ahead)?;
        Ok(table)
    }

    /// A switch to another verified config, at this point of the input sequence.
    #[pyo3(signature = (alpha_index, *, stage, weight_ppm, promotion_seq, expires_ns, config_sha256))]
    #[allow(
        clippy::too_many_arguments,
        reason = "keyword-only: the fields of one record"
    )]
    fn config_switch(
        &self,
        py: Python<'_>,
        alpha_index: u32,
        stage: u32,
        weight_ppm: u64,
        promotion_seq: u64,
        expires_ns: i64,
        config_sha256: String,
    ) -> PyResult<()> {
        let mut record = ConfigSwitchRecord::empty();
        record.alpha_index = alpha_index;
        record.stage = stage;
        record.weight_ppm = weight_ppm;
        record.promotion_seq = promotion_seq;
        record.expires_ns = expires_ns;
        self.call(py, move |session| {
            session.config_switch(record, &config_sha256)
        })
    }

    /// Every intent of a tape, at this point of the input sequence, in order.
    fn intents(&self, py: Python<'_>, tape: &[u8]) -> PyResult<()> {
        let mut intents = Vec::new();
        for item in Tape::new(tape) {
            let intent = item.ok().and_then(|(_, bytes)| IntentRecord::read(bytes));
            intents.push(intent.ok_or_else(|| {
                refuse(
                    py,
                    ReasonCode::SchemaMismatch,
                    "intents are not a tape of intent records",
                )
            })?);
        }
        self.call(py, move |session| {
            intents
                .into_iter()
                .try_for_each(|intent| session.intent(intent))
        })
    }

    /// What the engine has counted.
    fn counters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        // The session's thread takes the GIL for this: we have let go of it while we wait.
        let report = self.call(py, |session| {
            let engine = session.engine()?;
            Ok(Python::attach(|py| {
                engine_report(py, engine).map(Bound::unbind)
            }))
        })?;
        Ok(report?.into_bound(py))
    }

    /// Ends the session and seals its logs.
    fn finish<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let result = self.call(py, PaperSession::finish)?;
        let table = PyDict::new(py);
        table.set_item("halted_by", result.halted_by)?;
        table.set_item("message", result.message)?;
        let counters = engine_report(py, &result.engine)?;
        counters.set_item(
            "simulation",
            run_counts(py, &result.counts, &result.convert_counts)?,
        )?;
        table.set_item("counters", counters)?;
        table.set_item(
            "order_facts",
            PyBytes::new(py, bytemuck::cast_slice(&result.facts)),
        )?;
        if let Some(faults) = &result.faults {
            table.set_item("faults", fault_report(py, faults)?)?;
        }
        let times = PyDict::new(py);
        times.set_item("count", result.decide_times.count)?;
        times.set_item("p50", result.decide_times.p50_ns)?;
        times.set_item("p99", result.decide_times.p99_ns)?;
        times.set_item("p999", result.decide_times.p999_ns)?;
        times.set_item("max", result.decide_times.max_ns)?;
        table.set_item("decide_ns", times)?;
        table.set_item("market_last_seq", result.sealed.0)?;
        table.set_item("orders_last_seq", result.sealed.1)?;
        Ok(table)
    }
}
