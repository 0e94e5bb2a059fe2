//! The live session for Python.
//!
//! Lock order: the GIL is let go before the session's lock is asked for, and taken again after that
//! was given back. [`PyLiveSession::call`] is the only way in; what it runs cannot hold the GIL,
//! for the token does not cross.
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use super::engine::{EngineView, engine_report, result_row, view_report};
use super::kernel::{PyKernelHandle, kernels_of};
use super::simulation::refuse;
use crate::live::{
    LiveError, LiveOptions, LiveSession, LiveSetup, OrderRequest, OrderView, Snapshot, TAG_CHARS,
    holds_lock, order_tag,
};
use crate::reason::ReasonCode;

fn raised(py: Python<'_>, error: &LiveError) -> PyErr {
    refuse(py, error.code(), &error.to_string())
}

fn tag_text(tag: &[u8; TAG_CHARS]) -> String {
    tag.iter().copied().map(char::from).collect()
}

/// The tag of the order that a decision of an epoch places.
#[pyfunction]
#[pyo3(name = "order_tag")]
fn py_order_tag(epoch: u64, decision_seq: u64) -> String {
    tag_text(&order_tag(epoch, decision_seq))
}

/// One request to the broker, decided, approved and durable.
#[pyclass(name = "OrderRequest", module = "hft_platform._core", frozen)]
struct PyOrderRequest {
    request: OrderRequest,
}

#[pymethods]
impl PyOrderRequest {
    #[getter]
    fn decision_seq(&self) -> u64 {
        self.request.decision_seq
    }

    #[getter]
    fn intent_id(&self) -> u64 {
        self.request.intent_id
    }

    #[getter]
    fn order_id(&self) -> u64 {
        self.request.order_id
    }

    /// 1 place, 2 cancel.
    #[getter]
    fn action(&self) -> u32 {
        self.request.action
    }

    #[getter]
    fn alpha_index(&self) -> u32 {
        self.request.alpha_index
    }

    #[getter]
    fn instrument_id(&self) -> u32 {
        self.request.instrument_id
    }

    /// +1 buy, -1 sell.
    #[getter]
    fn side(&self) -> i64 {
        self.request.side
    }

    #[getter]
    fn price(&self) -> i64 {
        self.request.price
    }

    #[getter]
    fn qty(&self) -> i64 {
        self.request.qty
    }

    /// 1 rest of day, 2 immediate or cancel, 3 fill or kill.
    #[getter]
    fn time_in_force(&self) -> u32 {
        self.request.time_in_force
    }

    #[getter]
    fn tag(&self) -> String {
        tag_text(&self.request.tag)
    }

    #[getter]
    fn epoch(&self) -> u32 {
        self.request.epoch
    }

    /// Engine time of the decision.
    #[getter]
    fn decided_ns(&self) -> i64 {
        self.request.decided_ns
    }

    /// Validity from there, ns.
    #[getter]
    fn ttl_ns(&self) -> i64 {
        self.request.ttl_ns
    }

    /// `receive_time_ns` of what caused it.
    #[getter]
    fn received_ns(&self) -> i64 {
        self.request.received_ns
    }

    fn __repr__(&self) -> String {
        let request = &self.request;
        let action = if request.action == 1 {
            "place"
        } else {
            "cancel"
        };
        format!(
            "OrderRequest({action} {}, decision {}, order {}, instrument {}, side {}, price {}, qty {})",
            tag_text(&request.tag),
            request.decision_seq,
            request.order_id,
            request.instrument_id,
            request.side,
            request.price,
            request.qty
        )
    }
}

fn order_row<'py>(py: Python<'py>, view: &OrderView) -> PyResult<Bound<'py, PyDict>> {
    let order = &view.order;
    let row = PyDict::new(py);
    row.set_item("order_id", order.order_id)?;
    row.set_item("intent_id", order.intent_id)?;
    row.set_item("alpha_index", order.alpha_index)?;
    row.set_item("instrument_id", view.instrument_id)?;
    row.set_item("side", order.side)?;
    row.set_item("price", order.price)?;
    row.set_item("qty", order.qty)?;
    row.set_item("filled_qty", order.filled_qty)?;
    row.set_item("time_in_force", order.time_in_force)?;
    row.set_item("state", order.state.name())?;
    row.set_item("decision_seq", view.decision_seq)?;
    row.set_item("epoch", view.epoch)?;
    row.set_item("tag", tag_text(&view.tag))?;
    row.set_item("decided_ns", view.decided_ns)?;
    Ok(row)
}

fn add_snapshot(table: &Bound<'_, PyDict>, snapshot: &Snapshot) -> PyResult<()> {
    table.set_item("last_seq", snapshot.last_seq)?;
    table.set_item("last_time_ns", snapshot.last_time_ns)?;
    table.set_item("inputs", snapshot.inputs)?;
    table.set_item("requests", snapshot.requests)?;
    table.set_item("epoch", snapshot.epoch)?;
    table.set_item("market_bytes", snapshot.written.market)?;
    table.set_item("orders_bytes", snapshot.written.orders)?;
    table.set_item("space_ahead", snapshot.has_space_ahead)?;
    Ok(())
}

/// A live session: records of any thread in, approved requests for one dispatcher out.
#[pyclass(name = "LiveSession", module = "hft_platform._core", frozen)]
struct PyLiveSession {
    session: LiveSession,
}

impl PyLiveSession {
    /// Runs `task` without the GIL.
    fn call<T: Send>(
        &self,
        py: Python<'_>,
        task: impl FnOnce(&LiveSession) -> Result<T, LiveError> + Send,
    ) -> PyResult<T> {
        assert!(
            !holds_lock(),
            "Invariant: nobody comes from Python with a session's lock"
        );
        let outcome = py.detach(|| {
            let outcome = task(&self.session);
            assert!(
                !holds_lock(),
                "Invariant: nobody takes the GIL with a session's lock"
            );
            outcome
        });
        outcome.map_err(|error| raised(py, &error))
    }
}

#[pymethods]
impl PyLiveSession {
    /// Opens the session in its folder; `options_json` as in `LiveOptions`.
    #[new]
    #[pyo3(signature = (engine_config_json, session_dir, options_json, kernels=Vec::new()))]
    fn new(
        py: Python<'_>,
        engine_config_json: String,
        session_dir: PathBuf,
        options_json: &str,
        kernels: Vec<PyRef<'_, PyKernelHandle>>,
    ) -> PyResult<Self> {
        let setup = LiveSetup {
            engine_config: engine_config_json,
            session_dir,
            options: LiveOptions::from_json(options_json).map_err(|error| raised(py, &error))?,
            kernels: kernels_of(py, &kernels)?,
        };
        let session = py
            .detach(|| LiveSession::open(setup))
            .map_err(|error| raised(py, &error))?;
        Ok(Self { session })
    }

    /// What was found when it was opened.
    fn recovered<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let taken = self.session.taken();
        let table = PyDict::new(py);
        table.set_item("decisions", taken.engine.decisions)?;
        table.set_item("broker_events", taken.engine.broker_events)?;
        table.set_item("unknown_orders", taken.engine.unknown_orders)?;
        table.set_item("odd_records", taken.engine.odd_records)?;
        table.set_item("last_seq", taken.last_seq)?;
        table.set_item("last_time_ns", taken.last_time_ns)?;
        table.set_item(
            "halted_by",
            taken.engine.halted_by.map_or(0, ReasonCode::code),
        )?;
        table.set_item("last_epoch", taken.last_epoch)?;
        table.set_item("is_new", taken.is_new)?;
        Ok(table)
    }

    /// Takes the records of a tape as inputs; gives the `input_seq` of the last.
    fn push(&self, py: Python<'_>, tape: &[u8]) -> PyResult<u64> {
        self.call(py, |session| session.push(tape))
    }

    /// Waits for the next request at most this long.
    fn next_request(&self, py: Python<'_>, timeout_ms: u64) -> PyResult<Option<PyOrderRequest>> {
        let timeout = Duration::from_millis(timeout_ms);
        let request = self.call(py, |session| session.next_request(timeout))?;
        Ok(request.map(|request| PyOrderRequest { request }))
    }

    /// Requests that wait for the dispatcher.
    fn pending(&self, py: Python<'_>) -> PyResult<usize> {
        self.call(py, |session| Ok(session.queue_len()))
    }

    /// Counts the broker's call of a request, by the wall clock.
    fn mark_call(
        &self,
        py: Python<'_>,
        decision_seq: u64,
        entered_ns: i64,
        returned_ns: i64,
    ) -> PyResult<()> {
        self.call(py, |session| {
            session.mark_call(decision_seq, entered_ns, returned_ns);
            Ok(())
        })
    }

    /// Orders that the engine holds open, oldest first.
    fn orders<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let views = self.call(py, LiveSession::orders)?;
        views.iter().map(|view| order_row(py, view)).collect()
    }

    /// One order, open or recently done.
    fn order<'py>(&self, py: Python<'py>, order_id: u64) -> PyResult<Option<Bound<'py, PyDict>>> {
        let view = self.call(py, |session| session.order(order_id))?;
        view.map(|view| order_row(py, &view)).transpose()
    }

    /// What an operator adopted as external, by instrument.
    fn adopted(&self, py: Python<'_>) -> PyResult<BTreeMap<u32, i64>> {
        self.call(py, |session| session.inspect(|engine, _| engine.adopted()))
    }

    /// Position and result of every alpha.
    fn positions<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let rows = self.call(py, |session| {
            session.inspect(|engine, _| {
                let alphas = engine.config().alphas.iter();
                let named = alphas.map(|alpha| (alpha.alpha_id.clone(), alpha.instrument_id));
                engine.results().zip(named).collect::<Vec<_>>()
            })
        })?;
        rows.iter()
            .map(|(result, (alpha_id, instrument_id))| {
                let row = result_row(py, result)?;
                row.set_item("alpha_id", alpha_id)?;
                row.set_item("instrument_id", instrument_id)?;
                Ok(row)
            })
            .collect()
    }

    /// Counters and where it stands.
    fn state<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (view, snapshot, halt) = self.call(py, |session| {
            let (view, snapshot) =
                session.inspect(|engine, snapshot| (EngineView::of(engine), *snapshot))?;
            Ok((view, snapshot, session.halt()?))
        })?;
        let table = view_report(py, &view)?;
        add_snapshot(&table, &snapshot)?;
        table.set_item("pending", self.call(py, |s| Ok(s.queue_len()))?)?;
        let halted_by = halt.as_ref().map_or(0, |halt| halt.code.code());
        table.set_item("halted_by", halted_by)?;
        table.set_item(
            "message",
            halt.map_or_else(String::new, |halt| halt.message),
        )?;
        Ok(table)
    }

    /// Code of what stops the session, or with an alpha also that one alone; 0 if nothing does.
    #[pyo3(signature = (alpha_index = None))]
    fn halted_by(&self, py: Python<'_>, alpha_index: Option<u32>) -> PyResult<u16> {
        let code = self.call(py, |session| match alpha_index {
            Some(alpha_index) => session.alpha_halt(alpha_index),
            None => Ok(session.halt()?.map(|halt| halt.code)),
        })?;
        Ok(code.map_or(0, ReasonCode::code))
    }

    /// Every route of the order log, a tape.
    fn routes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let tape = self.call(py, LiveSession::routes)?;
        Ok(PyBytes::new(py, &tape))
    }

    /// Every approved order of the order log, a tape.
    fn order_decisions<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let tape = self.call(py, LiveSession::order_decisions)?;
        Ok(PyBytes::new(py, &tape))
    }

    /// How long every step took: `{step: {count, p50_ns, p99_ns, p999_ns, max_ns}}`.
    fn latency<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let table = PyDict::new(py);
        for (step, found) in self.session.latency().report() {
            let row = PyDict::new(py);
            row.set_item("count", found.count)?;
            row.set_item("p50_ns", found.p50_ns)?;
            row.set_item("p99_ns", found.p99_ns)?;
            row.set_item("p999_ns", found.p999_ns)?;
            row.set_item("max_ns", found.max_ns)?;
            table.set_item(step.name(), row)?;
        }
        Ok(table)
    }

    /// Ends the session and seals both logs.
    fn finish<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let finished = self.call(py, LiveSession::finish)?;
        let table = PyDict::new(py);
        add_snapshot(&table, &finished.snapshot)?;
        table.set_item("halted_by", finished.halted_by)?;
        table.set_item("message", finished.message)?;
        table.set_item("untaken", finished.untaken)?;
        table.set_item("counters", engine_report(py, &finished.engine)?)?;
        table.set_item("market_last_seq", finished.sealed.0)?;
        table.set_item("orders_last_seq", finished.sealed.1)?;
        Ok(table)
    }

    /// Lets go of the session without sealing its logs.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.call(py, |session| {
            session.close();
            Ok(())
        })
    }
}

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyLiveSession>()?;
    module.add_class::<PyOrderRequest>()?;
    module.add_function(wrap_pyfunction!(py_order_tag, module)?)
}
