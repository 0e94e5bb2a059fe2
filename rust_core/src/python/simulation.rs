//! Simulation for Python: conversion, latency draws and backtests.
mod session;

use std::collections::BTreeMap;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use serde::Deserialize;

use super::engine::engine_report;
use super::kernel::{PyKernelHandle, kernels_of};
use crate::convert::{ConvertCounts, ConvertError, EventRow, MarketTape, convert_tape};
use crate::engine::Engine;
use crate::exchange::{CrateVenue, QueueModelKind, Venue, VenueError, VenueInstrument};
use crate::faults::FaultProfile;
use crate::latency::{LatencyKind, LatencyProfile};
use crate::package_run::{PACKAGE_OUTCOME_FIELDS, drive};
use crate::package_venue::{PackageAddresses, PackageParts, PackageVenue, package_order_layout};
use crate::reason::ReasonCode;
use crate::record::{DecisionRecord, Record, Tape};
use crate::simulation::{
    Contract, Decide, FaultReport, Finished, MemorySink, ORDER_FACT_FIELDS, OrderFact, RunCounts,
    Script, SessionHead, Simulation, SimulationError,
};

/// What the venue JSON may hold.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VenueOptions {
    pub(super) queue_model: QueueModelKind,
    /// What goes wrong; null or left out is nothing.
    #[serde(default)]
    pub(super) faults: Option<FaultProfile>,
    /// By instrument id.
    #[serde(default)]
    pub(super) contracts: BTreeMap<u32, Contract>,
    /// Leave `inputs` out of the result.
    #[serde(default)]
    skip_inputs: bool,
}

impl VenueOptions {
    pub(super) fn from_json(py: Python<'_>, text: &str) -> PyResult<Self> {
        serde_json::from_str(text).map_err(|error| {
            refuse(
                py,
                ReasonCode::SettingsInvalid,
                &format!("venue options are malformed: {error}"),
            )
        })
    }
}

/// A tape from Python, checked and indexed.
pub(super) fn market_tape(py: Python<'_>, bytes: Vec<u8>) -> PyResult<MarketTape> {
    py.detach(move || MarketTape::new(bytes))
        .map_err(|error| refuse(py, error.code(), &error.to_string()))
}

/// The platform's typed error, so that a caller sees one kind of exception.
pub(super) fn refuse(py: Python<'_>, code: ReasonCode, message: &str) -> PyErr {
    let raised = py
        .import("hft_platform.errors")
        .and_then(|module| module.getattr("PlatformError"))
        .and_then(|class| class.call1((code.code(), message)));
    match raised {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

fn simulation_error(py: Python<'_>, error: &SimulationError) -> PyErr {
    refuse(py, error.code(), &error.to_string())
}

pub(super) fn latency_profile(py: Python<'_>, text: &str) -> PyResult<LatencyProfile> {
    LatencyProfile::from_json(text).map_err(|error| refuse(py, error.code(), &error.to_string()))
}

pub(super) fn engine(
    py: Python<'_>,
    text: &str,
    kernels: &[PyRef<'_, PyKernelHandle>],
) -> PyResult<Engine> {
    let kernels = kernels_of(py, kernels)?;
    Engine::from_json_with(text, &kernels)
        .map_err(|error| refuse(py, error.code(), &error.to_string()))
}

/// Reads a `research.backtest.package_handle.PackageHandle` and takes its native run over.
fn package_parts(handle: &Bound<'_, PyAny>) -> PyResult<PackageParts> {
    let parts = handle.call_method0("take")?;
    let word = |name: &str| -> PyResult<usize> { parts.get_item(name)?.extract() };
    let time = |name: &str| -> PyResult<i64> { parts.get_item(name)?.extract() };
    Ok(PackageParts {
        handle: word("handle")?,
        addresses: PackageAddresses {
            elapse: word("elapse")?,
            submit_buy_order: word("submit_buy_order")?,
            submit_sell_order: word("submit_sell_order")?,
            cancel: word("cancel")?,
            orders: word("orders")?,
            orders_get: word("orders_get")?,
            close: word("close")?,
        },
        instrument: venue_instrument(
            parts.get_item("instrument_id")?.extract()?,
            time("tick_size")?,
            time("lot_size")?,
        )?,
        first_time_ns: time("first_time_ns")?,
        end_time_ns: time("end_time_ns")?,
    })
}

/// An instrument with one step at every price, for runs without an engine config.
fn venue_instrument(
    instrument_id: u32,
    tick_size: i64,
    lot_size: i64,
) -> PyResult<VenueInstrument> {
    if tick_size <= 0 {
        return Err(pyo3::exceptions::PyValueError::new_err(format!(
            "tick_size of instrument {instrument_id} was {tick_size}, allowed is above 0"
        )));
    }
    Ok(VenueInstrument::flat(instrument_id, tick_size, lot_size))
}

/// A whole run, ready to go.
struct Job<D> {
    tape: MarketTape,
    head: SessionHead,
    profile: LatencyProfile,
    decide: D,
    options: VenueOptions,
    instruments: Vec<VenueInstrument>,
    package: Option<PackageParts>,
}

/// A run's results without its venue.
struct Outcome<D> {
    decide: D,
    sink: MemorySink,
    facts: Vec<OrderFact>,
    counts: RunCounts,
    convert_counts: ConvertCounts,
    faults: Option<FaultReport>,
}

impl<D: Decide> Job<D> {
    fn run(self) -> Result<Outcome<D>, SimulationError> {
        match self.package {
            // The venue closes the native run even when the simulation cannot start.
            Some(parts) => {
                let venue = PackageVenue::new(parts)?;
                let mut finished = self.run_on(venue)?;
                finished.venue.shut()?;
                Ok(outcome(finished))
            }
            None => {
                let venue = CrateVenue::new(self.options.queue_model, &self.instruments)?;
                self.run_on(venue).map(outcome)
            }
        }
    }

    fn run_on<V: Venue>(self, venue: V) -> Result<Finished<D, V, MemorySink>, SimulationError> {
        let sink = MemorySink {
            skip_inputs: self.options.skip_inputs,
            ..MemorySink::default()
        };
        let mut simulation = Simulation::new(
            self.tape,
            self.head,
            self.profile,
            (self.decide, venue, sink),
        )
        .with_faults(self.options.faults, &self.instruments)?;
        simulation.run(None, u64::MAX)?;
        Ok(simulation.finish())
    }
}

fn outcome<D, V>(finished: Finished<D, V, MemorySink>) -> Outcome<D> {
    Outcome {
        decide: finished.decide,
        sink: finished.sink,
        facts: finished.facts,
        counts: finished.counts,
        convert_counts: finished.convert_counts,
        faults: finished.faults,
    }
}

pub(super) fn run_counts<'py>(
    py: Python<'py>,
    counts: &RunCounts,
    converted: &ConvertCounts,
) -> PyResult<Bound<'py, PyDict>> {
    let table = PyDict::new(py);
    for (name, count) in [
        ("inputs", counts.inputs),
        ("timers", counts.timers),
        ("decisions", counts.decisions),
        ("requests", counts.requests),
        ("reports", counts.reports),
        ("undispatched", counts.undispatched),
        ("snapshots_converted", converted.snapshots),
        ("trades_converted", converted.trades),
        ("crossed", converted.crossed),
        ("not_tradable", converted.not_tradable),
        ("malformed", converted.malformed),
        ("classified", converted.classified),
        ("unclassified", converted.unclassified),
    ] {
        table.set_item(name, count)?;
    }
    Ok(table)
}

/// What went wrong, by name; `rejects` by reason code, `positions` by instrument.
pub(super) fn fault_report<'py>(
    py: Python<'py>,
    report: &FaultReport,
) -> PyResult<Bound<'py, PyDict>> {
    let table = PyDict::new(py);
    for (name, count) in report.counts.rows() {
        table.set_item(name, count)?;
    }
    table.set_item("rejects", report.rejects.clone())?;
    table.set_item("positions", report.positions.clone())?;
    Ok(table)
}

fn result<'py, D>(py: Python<'py>, outcome: &Outcome<D>) -> PyResult<Bound<'py, PyDict>> {
    let table = PyDict::new(py);
    table.set_item("inputs", PyBytes::new(py, &outcome.sink.inputs))?;
    table.set_item("broker", PyBytes::new(py, &outcome.sink.broker))?;
    table.set_item("decisions", PyBytes::new(py, &outcome.sink.decisions))?;
    table.set_item(
        "order_facts",
        PyBytes::new(py, bytemuck::cast_slice(&outcome.facts)),
    )?;
    if let Some(faults) = &outcome.faults {
        table.set_item("faults", fault_report(py, faults)?)?;
    }
    Ok(table)
}

/// Runs one session of a tape through the engine; the exchange is the package's when a
/// `PackageHandle` is given, else the platform's own on the crate.
#[pyfunction]
#[pyo3(signature = (tape, engine_config_json, latency_json, venue_json, handle=None, kernels=Vec::new()))]
fn run_backtest<'py>(
    py: Python<'py>,
    tape: Vec<u8>,
    engine_config_json: &str,
    latency_json: &str,
    venue_json: &str,
    handle: Option<&Bound<'py, PyAny>>,
    kernels: Vec<PyRef<'_, PyKernelHandle>>,
) -> PyResult<Bound<'py, PyDict>> {
    let options = VenueOptions::from_json(py, venue_json)?;
    let decide = engine(py, engine_config_json, &kernels)?;
    let head = SessionHead::new(decide.config(), &options.contracts)
        .map_err(|error| simulation_error(py, &error))?;
    let instruments = decide
        .config()
        .instruments
        .iter()
        .map(VenueInstrument::from)
        .collect();
    let profile = latency_profile(py, latency_json)?;
    let tape = market_tape(py, tape)?;
    let package = handle.map(package_parts).transpose()?;
    let job = Job {
        tape,
        head,
        profile,
        decide,
        options,
        instruments,
        package,
    };
    let outcome = py
        .detach(move || job.run())
        .map_err(|error| simulation_error(py, &error))?;
    let table = result(py, &outcome)?;
    let counters = engine_report(py, &outcome.decide)?;
    counters.set_item(
        "simulation",
        run_counts(py, &outcome.counts, &outcome.convert_counts)?,
    )?;
    table.set_item("counters", counters)?;
    Ok(table)
}

fn decisions_of(py: Python<'_>, tape: &[u8]) -> PyResult<Vec<DecisionRecord>> {
    Tape::new(tape)
        .map(|item| {
            let decision = item.ok().and_then(|(_, bytes)| DecisionRecord::read(bytes));
            decision.ok_or_else(|| {
                refuse(
                    py,
                    ReasonCode::SchemaMismatch,
                    "script is not a tape of decision records",
                )
            })
        })
        .collect()
}

/// As `run_backtest`, with the decisions given (a tape of decision records, each made at its
/// `sequence_time_ns`) instead of an engine; `instruments` holds `(id, tick size, lot size)`.
#[pyfunction]
#[pyo3(signature = (tape, script, instruments, latency_json, venue_json, handle=None))]
fn run_script<'py>(
    py: Python<'py>,
    tape: Vec<u8>,
    script: &[u8],
    instruments: Vec<(u32, i64, i64)>,
    latency_json: &str,
    venue_json: &str,
    handle: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let decisions = decisions_of(py, script)?;
    let instruments: Vec<VenueInstrument> = instruments
        .into_iter()
        .map(|(instrument_id, tick_size, lot_size)| {
            venue_instrument(instrument_id, tick_size, lot_size)
        })
        .collect::<PyResult<_>>()?;
    let job = Job {
        tape: market_tape(py, tape)?,
        head: SessionHead::default(),
        profile: latency_profile(py, latency_json)?,
        decide: Script::new(decisions),
        options: VenueOptions::from_json(py, venue_json)?,
        instruments,
        package: handle.map(package_parts).transpose()?,
    };
    let outcome = py
        .detach(move || job.run())
        .map_err(|error| simulation_error(py, &error))?;
    let table = result(py, &outcome)?;
    table.set_item(
        "counters",
        run_counts(py, &outcome.counts, &outcome.convert_counts)?,
    )?;
    Ok(table)
}

/// Drives a `PackageHandle` by decisions, each handed over when it was made; the package's own
/// latency model delays. Returns rows of `PACKAGE_OUTCOME_FIELDS` in order id order.
#[pyfunction]
fn run_package<'py>(
    py: Python<'py>,
    decisions: &[u8],
    handle: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyBytes>> {
    let decisions = decisions_of(py, decisions)?;
    let parts = package_parts(handle)?;
    let outcomes = py
        .detach(move || {
            let mut package = PackageVenue::new(parts)?;
            let outcomes = drive(&mut package, &decisions)?;
            package.shut()?;
            Ok(outcomes)
        })
        .map_err(|error: VenueError| refuse(py, error.code(), &error.to_string()))?;
    Ok(PyBytes::new(py, bytemuck::cast_slice(&outcomes)))
}

fn converted(
    py: Python<'_>,
    tape: Vec<u8>,
    (instrument_id, tick_size, lot_size): (u32, i64, i64),
) -> PyResult<(Vec<EventRow>, ConvertCounts)> {
    py.detach(move || convert_tape(&MarketTape::new(tape)?, instrument_id, tick_size, lot_size))
        .map_err(|error: ConvertError| refuse(py, error.code(), &error.to_string()))
}

/// Rows of the hftbacktest package (64 bytes each) for one instrument of a market tape.
#[pyfunction]
fn convert_session<'py>(
    py: Python<'py>,
    tape: Vec<u8>,
    instrument_id: u32,
    tick_size: i64,
    lot_size: i64,
) -> PyResult<Bound<'py, PyBytes>> {
    let (rows, _) = converted(py, tape, (instrument_id, tick_size, lot_size))?;
    Ok(PyBytes::new(py, bytemuck::cast_slice(&rows)))
}

/// What a conversion left out and had to decide, by name.
#[pyfunction]
fn conversion_counts<'py>(
    py: Python<'py>,
    tape: Vec<u8>,
    instrument_id: u32,
    tick_size: i64,
    lot_size: i64,
) -> PyResult<Bound<'py, PyDict>> {
    let (_, counts) = converted(py, tape, (instrument_id, tick_size, lot_size))?;
    run_counts(py, &RunCounts::default(), &counts)
}

/// Delay in ns of one order under a latency profile; `kind` is 1 place, 2 cancel, 3 response,
/// 4 activation (a part of place, 0 where it is not stated).
#[pyfunction]
fn sample_latency(py: Python<'_>, profile_json: &str, order_id: u64, kind: u8) -> PyResult<i64> {
    let profile = latency_profile(py, profile_json)?;
    let kind = LatencyKind::from_code(kind).ok_or_else(|| {
        refuse(
            py,
            ReasonCode::SettingsInvalid,
            &format!("latency kind was {kind}, allowed is 1 to 4"),
        )
    })?;
    Ok(profile.delay_ns(order_id, kind))
}

/// `([(field, offset)], size)` of the package's order as it is read here.
#[pyfunction]
#[pyo3(name = "package_order_layout")]
fn py_package_order_layout() -> (Vec<(&'static str, usize)>, usize) {
    package_order_layout()
}

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<session::PyPaperSession>()?;
    module.add("ORDER_FACT_FIELDS", ORDER_FACT_FIELDS.to_vec())?;
    module.add("PACKAGE_OUTCOME_FIELDS", PACKAGE_OUTCOME_FIELDS.to_vec())?;
    module.add_function(wrap_pyfunction!(run_backtest, module)?)?;
    module.add_function(wrap_pyfunction!(run_script, module)?)?;
    module.add_function(wrap_pyfunction!(run_package, module)?)?;
    module.add_function(wrap_pyfunction!(convert_session, module)?)?;
    module.add_function(wrap_pyfunction!(conversion_counts, module)?)?;
    module.add_function(wrap_pyfunction!(sample_latency, module)?)?;
    module.add_function(wrap_pyfunction!(py_package_order_layout, module)?)?;
    Ok(())
}
