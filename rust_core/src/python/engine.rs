//! Engine, batch evaluation, expressions and costs for Python.
use std::collections::BTreeMap;

use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use super::kernel::{PyKernelHandle, kernels_of};
use crate::alpha::{Expression, ExpressionError as ExpressionFault, Program};
use crate::engine::{
    self, AlphaResult, BatchError, Counters, EngineConfig, EngineError, Sequencer, StormReport,
};
use crate::features::FEATURES;
use crate::gateway::Account;
use crate::reason::ReasonCode;
use crate::record::{DecisionRecord, Record};
use crate::storm_guard::Input;

create_exception!(
    _core,
    ConfigError,
    PyException,
    "An engine config or cost model is wrong: `(code, message)`."
);
create_exception!(
    _core,
    TapeError,
    PyException,
    "Bytes are not a tape, or inputs are missing: `(code, message)`."
);
create_exception!(
    _core,
    ExpressionError,
    PyException,
    "An expression is wrong: `(code, message, position, suggestion)`."
);

/// Room for the decisions of one record.
const DECISION_CAPACITY: usize = 4_096;

fn config_error(error: &EngineError) -> PyErr {
    ConfigError::new_err((error.code().code(), error.to_string()))
}

pub(super) fn batch_error(error: BatchError) -> PyErr {
    match error {
        BatchError::Config(error) => config_error(&error),
        BatchError::NoAlpha { .. } => {
            ConfigError::new_err((error.code().code(), error.to_string()))
        }
        BatchError::Tape(_) | BatchError::SequenceGap { .. } => {
            TapeError::new_err((error.code().code(), error.to_string()))
        }
    }
}

pub(super) fn expression_error(error: ExpressionFault) -> PyErr {
    ExpressionError::new_err((
        error.code.code(),
        error.message,
        error.position,
        error.suggestion,
    ))
}

pub(super) fn parse_config(json: &str) -> PyResult<EngineConfig> {
    EngineConfig::from_json(json).map_err(|error| config_error(&error))
}

fn bytes_of(decisions: &[DecisionRecord]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size_of_val(decisions));
    decisions
        .iter()
        .for_each(|decision| bytes.extend_from_slice(decision.as_bytes()));
    bytes
}

pub(super) fn count_table<'py>(
    py: Python<'py>,
    rows: &[(u16, u64)],
) -> PyResult<Bound<'py, PyDict>> {
    let table = PyDict::new(py);
    for (code, count) in rows {
        table.set_item(code, count)?;
    }
    Ok(table)
}

pub(super) fn result_row<'py>(
    py: Python<'py>,
    result: &AlphaResult,
) -> PyResult<Bound<'py, PyDict>> {
    let row = PyDict::new(py);
    row.set_item("alpha_index", result.alpha_index)?;
    row.set_item("position_qty", result.position_qty)?;
    row.set_item("gross_pnl", result.gross_pnl)?;
    row.set_item("realised_pnl", result.realised_pnl)?;
    row.set_item("fees", result.fees)?;
    row.set_item("net_pnl", result.net_pnl)?;
    row.set_item("drawdown_max", result.drawdown_max)?;
    row.set_item("fill_count", result.fill_count)?;
    row.set_item("weight_ppm", result.weight_ppm)?;
    row.set_item("stage", result.stage)?;
    row.set_item("halted_by", result.halted_by.map_or(0, ReasonCode::code))?;
    row.set_item("signal", result.signal)?;
    Ok(row)
}

pub(super) fn storm_row<'py>(
    py: Python<'py>,
    report: &StormReport,
) -> PyResult<Bound<'py, PyDict>> {
    let row = PyDict::new(py);
    row.set_item("state", report.storm.name())?;
    row.set_item("since_ns", report.storm_since_ns)?;
    row.set_item(
        "cause",
        report.storm_cause.map_or(0, |input| input.code().code()),
    )?;
    row.set_item("policy", report.policy.name())?;
    row.set_item("policy_since_ns", report.policy_since_ns)?;
    row.set_item("policy_code", report.policy_code.code())?;
    row.set_item("entered", report.entered.to_vec())?;
    let inputs = PyDict::new(py);
    for (input, (level, value)) in Input::ALL.iter().zip(report.inputs) {
        inputs.set_item(input.code().code(), (level as u8, value))?;
    }
    row.set_item("inputs", inputs)?;
    Ok(row)
}

/// What an engine counted and where it stands, apart from it: for an owner that may not hold its
/// lock while it builds Python objects.
pub(super) struct EngineView {
    counters: Counters,
    halted_by: Option<ReasonCode>,
    open_orders: usize,
    storm: StormReport,
    results: Vec<AlphaResult>,
    account: Account,
}

impl EngineView {
    pub(super) fn of(engine: &engine::Engine) -> Self {
        Self {
            counters: engine.counters().clone(),
            halted_by: engine.halted_by(),
            open_orders: engine.open_orders().count(),
            storm: engine.storm_report(),
            results: engine.results().collect(),
            account: engine.account().clone(),
        }
    }
}

/// Counters and results of an engine as a dict, for every binding that owns one.
pub(super) fn engine_report<'py>(
    py: Python<'py>,
    engine: &engine::Engine,
) -> PyResult<Bound<'py, PyDict>> {
    view_report(py, &EngineView::of(engine))
}

/// As [`engine_report`], of what was looked at before.
pub(super) fn view_report<'py>(py: Python<'py>, view: &EngineView) -> PyResult<Bound<'py, PyDict>> {
    let counters = &view.counters;
    let table = PyDict::new(py);
    table.set_item("records", count_table(py, &counters.records())?)?;
    table.set_item("decisions", counters.decisions)?;
    table.set_item("approved", counters.approved)?;
    table.set_item("fills", counters.fills)?;
    table.set_item("nan_signals", counters.nan_signals)?;
    table.set_item("refusals", count_table(py, &counters.refusals())?)?;
    table.set_item("dropped", count_table(py, &counters.dropped())?)?;
    table.set_item("broker_events", count_table(py, &counters.broker_events())?)?;
    table.set_item("changes", count_table(py, &counters.changes())?)?;
    table.set_item("signal_faults", count_table(py, &counters.signal_faults())?)?;
    table.set_item("halted_by", view.halted_by.map_or(0, ReasonCode::code))?;
    table.set_item("open_orders", view.open_orders)?;
    table.set_item("storm", storm_row(py, &view.storm)?)?;
    let alphas = view
        .results
        .iter()
        .map(|result| result_row(py, result))
        .collect::<PyResult<Vec<_>>>()?;
    table.set_item("alphas", PyList::new(py, alphas)?)?;
    table.set_item("account", account_row(py, &view.account)?)?;
    Ok(table)
}

fn account_row<'py>(py: Python<'py>, account: &Account) -> PyResult<Bound<'py, PyDict>> {
    let row = PyDict::new(py);
    let (request_count, fill_count) = account.requests_and_fills();
    row.set_item("net_pnl", account.net_pnl())?;
    row.set_item("drawdown", account.drawdown())?;
    row.set_item("loss_speed", account.loss_speed())?;
    row.set_item(
        "halted_by",
        account.loss_latch().map_or(0, ReasonCode::code),
    )?;
    row.set_item("unexplained_qty", account.unexplained_qty().unwrap_or(0))?;
    row.set_item("equity", account.equity())?;
    row.set_item("request_count", request_count)?;
    row.set_item("fill_count", fill_count)?;
    Ok(row)
}

/// The state machine: records in, decisions out.
#[pyclass(name = "Engine", module = "hft_platform._core")]
struct PyEngine {
    engine: engine::Engine,
    sequencer: Sequencer,
    out: Vec<DecisionRecord>,
}

#[pymethods]
impl PyEngine {
    /// `kernels` holds the kernels that the config names.
    #[new]
    #[pyo3(signature = (config_json, kernels=Vec::new()))]
    fn new(
        py: Python<'_>,
        config_json: &str,
        kernels: Vec<PyRef<'_, PyKernelHandle>>,
    ) -> PyResult<Self> {
        let kernels = kernels_of(py, &kernels)?;
        let engine = py
            .detach(|| engine::Engine::from_json_with(config_json, &kernels))
            .map_err(|error| config_error(&error))?;
        Ok(Self {
            engine,
            sequencer: Sequencer::default(),
            out: Vec::with_capacity(DECISION_CAPACITY),
        })
    }

    /// Feeds records; those without a sequence get one from their receive time.
    fn on_tape<'py>(&mut self, py: Python<'py>, tape: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        self.out.clear();
        let Self {
            engine,
            sequencer,
            out,
        } = self;
        py.detach(|| engine::run_tape(engine, sequencer, tape, false, out))
            .map_err(batch_error)?;
        Ok(PyBytes::new(py, &bytes_of(out)))
    }

    /// Levels in use of an instrument's book, best first: `{"bid": [(price, qty)], "ask": ...}`.
    fn book<'py>(&self, py: Python<'py>, instrument_id: u32) -> PyResult<Bound<'py, PyDict>> {
        let book = self.engine.book(instrument_id).ok_or_else(|| {
            let message = format!("instrument_id was {instrument_id}, not one of the config's");
            ConfigError::new_err((ReasonCode::UnknownInstrument.code(), message))
        })?;
        let table = PyDict::new(py);
        for (name, side) in [("bid", book.bid()), ("ask", book.ask())] {
            let levels: Vec<(i64, i64)> = (0..side.count)
                .map(|level| (side.price[level], side.qty[level]))
                .collect();
            table.set_item(name, levels)?;
        }
        Ok(table)
    }

    /// Takes back what the order log of this session says; before any record. Records without a
    /// sequence go on behind it.
    fn recover<'py>(&mut self, py: Python<'py>, order_log: &[u8]) -> PyResult<Bound<'py, PyDict>> {
        let engine = &mut self.engine;
        let found = py
            .detach(|| engine.recover(order_log))
            .map_err(batch_error)?;
        self.sequencer
            .continue_after(found.last_seq, found.last_time_ns);
        let table = PyDict::new(py);
        table.set_item("decisions", found.decisions)?;
        table.set_item("broker_events", found.broker_events)?;
        table.set_item("unknown_orders", found.unknown_orders)?;
        table.set_item("odd_records", found.odd_records)?;
        table.set_item("last_seq", found.last_seq)?;
        table.set_item("halted_by", found.halted_by.map_or(0, ReasonCode::code))?;
        Ok(table)
    }

    /// What was counted, and the result of every alpha.
    fn counters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        engine_report(py, &self.engine)
    }
}

/// Decides a sequenced input tape again; every input must be there once, in order. With the
/// `order_log` of the processes before, the engine recovers from it first.
#[pyfunction]
#[pyo3(signature = (engine_config_json, inputs_tape, kernels=Vec::new(), *, order_log=None))]
fn replay<'py>(
    py: Python<'py>,
    engine_config_json: &str,
    inputs_tape: &[u8],
    kernels: Vec<PyRef<'_, PyKernelHandle>>,
    order_log: Option<&[u8]>,
) -> PyResult<Bound<'py, PyBytes>> {
    let kernels = kernels_of(py, &kernels)?;
    let decided = py.detach(|| -> Result<Vec<u8>, BatchError> {
        let mut engine = engine::Engine::from_json_with(engine_config_json, &kernels)?;
        engine.recover(order_log.unwrap_or_default())?;
        let mut out = Vec::with_capacity(DECISION_CAPACITY);
        engine::run_tape(
            &mut engine,
            &mut Sequencer::default(),
            inputs_tape,
            true,
            &mut out,
        )?;
        Ok(bytes_of(&out))
    });
    Ok(PyBytes::new(py, &decided.map_err(batch_error)?))
}

/// Parses an expression and says what it reads and needs.
#[pyfunction]
fn check_expression<'py>(
    py: Python<'py>,
    expr: &str,
    parameter_names: Vec<String>,
) -> PyResult<Bound<'py, PyDict>> {
    let names: Vec<&str> = parameter_names.iter().map(String::as_str).collect();
    let expression = Expression::parse(expr, &names).map_err(expression_error)?;
    let values: BTreeMap<String, f64> = parameter_names
        .iter()
        .map(|name| (name.clone(), 1.0))
        .collect();
    let program = Program::compile(&expression, &values).map_err(expression_error)?;
    let sha256: String = expression
        .sha256()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let table = PyDict::new(py);
    table.set_item("features", expression.features())?;
    table.set_item("canonical", expression.canonical())?;
    table.set_item("sha256", sha256)?;
    table.set_item("memory_bytes", program.memory_bytes())?;
    table.set_item("operations", program.operation_count())?;
    let need = expression.need();
    table.set_item("nodes", expression.node_count())?;
    table.set_item("unit", expression.unit().to_string())?;
    table.set_item("warm_up_ns", need.warm_up_ns)?;
    table.set_item("warm_up_events", need.warm_up_events)?;
    table.set_item("window_ns_max", need.window_ns_max)?;
    table.set_item("window_events_max", need.window_events_max)?;
    Ok(table)
}

/// Every feature: id, name, unit, formula, warm_up_ns, source, reset.
#[pyfunction]
fn feature_registry<'py>(py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
    FEATURES
        .iter()
        .map(|feature| {
            let row = PyDict::new(py);
            row.set_item("id", feature.id)?;
            row.set_item("name", feature.name)?;
            row.set_item("unit", feature.unit)?;
            row.set_item("formula", feature.formula)?;
            row.set_item("warm_up_ns", feature.warm_up_ns)?;
            row.set_item("source", feature.source)?;
            row.set_item("reset", feature.reset)?;
            Ok(row)
        })
        .collect()
}

/// Rows `(receive_time_ns i64, mid i64, signal f64)` at every good book of an alpha's instrument.
#[pyfunction]
#[pyo3(signature = (tape, engine_config_json, alpha_index=0, kernels=Vec::new()))]
fn evaluate<'py>(
    py: Python<'py>,
    tape: &[u8],
    engine_config_json: &str,
    alpha_index: usize,
    kernels: Vec<PyRef<'_, PyKernelHandle>>,
) -> PyResult<Bound<'py, PyBytes>> {
    let config = parse_config(engine_config_json)?;
    let kernels = kernels_of(py, &kernels)?;
    let rows = py
        .detach(|| engine::evaluate_with(tape, &config, &kernels, alpha_index))
        .map_err(batch_error)?;
    let mut bytes = Vec::with_capacity(rows.len() * 24);
    for row in &rows {
        bytes.extend_from_slice(&row.receive_time_ns.to_le_bytes());
        bytes.extend_from_slice(&row.mid.to_le_bytes());
        bytes.extend_from_slice(&row.signal.to_le_bytes());
    }
    Ok(PyBytes::new(py, &bytes))
}

/// `(names, f64 values row by row, i64 receive times)` at every good book of an alpha's instrument.
#[pyfunction]
#[pyo3(signature = (tape, engine_config_json, alpha_index=0, kernels=Vec::new()))]
fn evaluate_features<'py>(
    py: Python<'py>,
    tape: &[u8],
    engine_config_json: &str,
    alpha_index: usize,
    kernels: Vec<PyRef<'_, PyKernelHandle>>,
) -> PyResult<(Vec<&'static str>, Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
    let config = parse_config(engine_config_json)?;
    let kernels = kernels_of(py, &kernels)?;
    let table = py
        .detach(|| engine::evaluate_features_with(tape, &config, &kernels, alpha_index))
        .map_err(batch_error)?;
    let names = FEATURES.iter().map(|feature| feature.name).collect();
    let values = PyBytes::new(py, bytemuck::cast_slice(&table.values));
    Ok((
        names,
        values,
        PyBytes::new(py, bytemuck::cast_slice(&table.receive_time_ns)),
    ))
}

/// Columns of `kernel_calls`.
type CallColumns<'py> = (
    Bound<'py, PyBytes>,
    Bound<'py, PyBytes>,
    Bound<'py, PyBytes>,
    Bound<'py, PyBytes>,
);

/// Every call of an alpha's kernel on a tape, as columns: `(features f64 row by row, now_ns i64,
/// is_reset u8, is_row u8)`.
#[pyfunction]
#[pyo3(signature = (tape, engine_config_json, alpha_index=0, kernels=Vec::new()))]
fn kernel_calls<'py>(
    py: Python<'py>,
    tape: &[u8],
    engine_config_json: &str,
    alpha_index: usize,
    kernels: Vec<PyRef<'_, PyKernelHandle>>,
) -> PyResult<CallColumns<'py>> {
    let config = parse_config(engine_config_json)?;
    let kernels = kernels_of(py, &kernels)?;
    let calls = py
        .detach(|| engine::kernel_calls(tape, &config, &kernels, alpha_index))
        .map_err(batch_error)?;
    Ok((
        PyBytes::new(py, bytemuck::cast_slice(&calls.features)),
        PyBytes::new(py, bytemuck::cast_slice(&calls.now_ns)),
        PyBytes::new(py, &calls.is_reset),
        PyBytes::new(py, &calls.is_row),
    ))
}

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("ConfigError", py.get_type::<ConfigError>())?;
    module.add("TapeError", py.get_type::<TapeError>())?;
    module.add("ExpressionError", py.get_type::<ExpressionError>())?;
    module.add_class::<PyEngine>()?;
    module.add_function(wrap_pyfunction!(replay, module)?)?;
    module.add_function(wrap_pyfunction!(check_expression, module)?)?;
    module.add_function(wrap_pyfunction!(feature_registry, module)?)?;
    module.add_function(wrap_pyfunction!(evaluate, module)?)?;
    module.add_function(wrap_pyfunction!(evaluate_features, module)?)?;
    module.add_function(wrap_pyfunction!(kernel_calls, module)?)?;
    Ok(())
}
