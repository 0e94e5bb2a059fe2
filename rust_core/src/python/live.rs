//! The live session for Python.
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use super::bus::PyBus;
use super::engine::engine_report;
use super::kernel::{PyKernelHandle, kernels_of};
use super::simulation::refuse;
use crate::engine::Engine;
use crate::gateway::{Order, OrderState};
use crate::live::{LiveOptions, LiveSession, OrderFacts, Request, order_tag};
use crate::reason::ReasonCode;
use crate::session::SessionError;

fn raised(py: Python<'_>, error: &SessionError) -> PyErr {
    refuse(py, error.code(), &error.to_string())
}

fn text(tag: &[u8]) -> &str {
    std::str::from_utf8(tag).unwrap_or_default()
}

/// One approved decision, to be carried out once.
#[pyclass(name = "OrderRequest", module = "hft_platform._core", frozen)]
pub(super) struct PyOrderRequest {
    request: Request,
}

#[pymethods]
impl PyOrderRequest {
    /// The decision.
    #[getter]
    fn decision_seq(&self) -> u64 {
        self.request.decision_seq
    }

    /// Its intent.
    #[getter]
    fn intent_id(&self) -> u64 {
        self.request.intent_id
    }

    /// The order to place or to cancel.
    #[getter]
    fn order_id(&self) -> u64 {
        self.request.order_id
    }

    /// 1 place, 2 cancel.
    #[getter]
    fn action(&self) -> u32 {
        self.request.action
    }

    /// Which alpha.
    #[getter]
    fn alpha_index(&self) -> u32 {
        self.request.alpha_index
    }

    /// Which instrument.
    #[getter]
    fn instrument_id(&self) -> u32 {
        self.request.instrument_id
    }

    /// 1 rest of day, 2 immediate or cancel, 3 fill or kill.
    #[getter]
    fn time_in_force(&self) -> u32 {
        self.request.time_in_force
    }

    /// +1 buy, -1 sell.
    #[getter]
    fn side(&self) -> i64 {
        self.request.side
    }

    /// Limit price at 1e-8.
    #[getter]
    fn price(&self) -> i64 {
        self.request.price
    }

    /// Quantity at 1e-8.
    #[getter]
    fn qty(&self) -> i64 {
        self.request.qty
    }

    /// Validity from `decided_ns`, ns.
    #[getter]
    fn ttl_ns(&self) -> i64 {
        self.request.ttl_ns
    }

    /// `sequence_time_ns` of the decision.
    #[getter]
    fn decided_ns(&self) -> i64 {
        self.request.decided_ns
    }

    /// `receive_time_ns` of what caused it.
    #[getter]
    fn received_ns(&self) -> i64 {
        self.request.received_ns
    }

    /// Six letters and digits for the broker to carry.
    #[getter]
    fn tag(&self) -> &str {
        text(&self.request.tag)
    }

    /// Fencing number under which the order was decided.
    #[getter]
    fn epoch(&self) -> u32 {
        self.request.epoch
    }

    fn __repr__(&self) -> String {
        let Request {
            order_id,
            action,
            side,
            price,
            qty,
            ..
        } = self.request;
        format!(
            "OrderRequest(order_id={order_id}, action={action}, side={side}, price={price}, \
             qty={qty}, tag='{}')",
            self.tag()
        )
    }
}

/// A session that records are pushed into and durable requests come out of, from any thread.
#[pyclass(name = "LiveSession", module = "hft_platform._core", frozen)]
pub(super) struct PyLiveSession {
    session: LiveSession,
}

fn order_row<'py>(
    py: Python<'py>,
    order: &Order,
    facts: &OrderFacts,
    instrument_id: u32,
) -> PyResult<Bound<'py, PyDict>> {
    let row = PyDict::new(py);
    row.set_item("order_id", order.order_id)?;
    row.set_item("intent_id", order.intent_id)?;
    row.set_item("alpha_index", order.alpha_index)?;
    row.set_item("instrument_id", instrument_id)?;
    row.set_item("side", order.side)?;
    row.set_item("price", order.price)?;
    row.set_item("qty", order.qty)?;
    row.set_item("filled_qty", order.filled_qty)?;
    row.set_item("time_in_force", order.time_in_force)?;
    row.set_item("state", state_name(order.state))?;
    row.set_item("decision_seq", facts.decision_seq)?;
    row.set_item("decided_ns", facts.decided_ns)?;
    row.set_item("epoch", facts.epoch)?;
    row.set_item("tag", text(&facts.tag))?;
    Ok(row)
}

fn state_name(state: OrderState) -> &'static str {
    match state {
        OrderState::PendingNew => "pending_new",
        OrderState::Working => "working",
        OrderState::PendingCancel => "pending_cancel",
        OrderState::Unknown => "unknown",
        OrderState::Filled => "filled",
        OrderState::Canceled => "canceled",
        OrderState::Rejected => "rejected",
        OrderState::Expired => "expired",
    }
}

impl PyLiveSession {
    fn instrument_id(&self, order: &Order) -> u32 {
        self.session.with_engine(|engine| {
            let alpha = engine.config().alphas.get(order.alpha_index as usize);
            alpha.map_or(0, |alpha| alpha.instrument_id)
        })
    }
}

#[pymethods]
impl PyLiveSession {
    /// Opens the session in `session_dir`, or goes on with the one that is there; `options` is JSON:
    /// `wal_id`, `epoch`, `process_id`, `opened_ns`, and if wanted `durable` ("record" or "group"),
    /// `segment_bytes`, `group_commit_ms`, `seal_after_s`, `contracts`.
    #[new]
    #[pyo3(signature = (engine_config, session_dir, options, kernels=Vec::new(), *, bus=None))]
    fn new(
        py: Python<'_>,
        engine_config: &str,
        session_dir: PathBuf,
        options: &str,
        kernels: Vec<PyRef<'_, PyKernelHandle>>,
        bus: Option<&Bound<'_, PyBus>>,
    ) -> PyResult<Self> {
        let options: LiveOptions = serde_json::from_str(options)
            .map_err(|error| raised(py, &SessionError::Options(error.to_string())))?;
        let kernels = kernels_of(py, &kernels)?;
        let publisher = bus.map(|bus| bus.get().take_publisher(py)).transpose()?;
        let session = py
            .detach(|| {
                LiveSession::open(engine_config, &session_dir, &options, &kernels, publisher)
            })
            .map_err(|error| raised(py, &error))?;
        Ok(Self { session })
    }

    /// What earlier lives of the session left.
    fn recovered<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let found = self.session.recovery();
        let table = PyDict::new(py);
        table.set_item("is_new", found.is_new)?;
        table.set_item("epochs", found.epochs)?;
        table.set_item("decisions", found.engine.decisions)?;
        table.set_item("broker_events", found.engine.broker_events)?;
        table.set_item("unknown_orders", found.engine.unknown_orders)?;
        table.set_item("odd_records", found.engine.odd_records)?;
        table.set_item("last_seq", found.engine.last_seq)?;
        table.set_item("last_time_ns", found.engine.last_time_ns)?;
        table.set_item("market_last_seq", found.market_last_seq)?;
        table.set_item(
            "halted_by",
            found.engine.halted_by.map_or(0, ReasonCode::code),
        )?;
        Ok(table)
    }

    /// Sequences, logs and decides on every record of a tape; gives their number.
    fn push(&self, py: Python<'_>, tape: &[u8]) -> PyResult<u64> {
        py.detach(|| self.session.push(tape))
            .map_err(|error| raised(py, &error))
    }

    /// The next request, or None after `timeout_ms` and once the session is over.
    fn next_request(&self, py: Python<'_>, timeout_ms: u64) -> Option<PyOrderRequest> {
        let timeout = Duration::from_millis(timeout_ms);
        py.detach(|| self.session.next_request(timeout))
            .map(|request| PyOrderRequest { request })
    }

    /// Requests that wait for the dispatcher.
    fn pending(&self) -> usize {
        self.session.pending()
    }

    /// When the broker's call for a decision was entered and left, ns; measures only.
    fn mark_call(&self, decision_seq: u64, entered_ns: i64, returned_ns: i64) {
        self.session
            .mark_call(decision_seq, entered_ns, returned_ns);
    }

    /// Orders that may still be filled, oldest first.
    fn orders<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let orders = py.detach(|| self.session.open_orders());
        let rows = orders
            .iter()
            .map(|(order, facts)| {
                let instrument_id = py.detach(|| self.instrument_id(order));
                order_row(py, order, facts, instrument_id)
            })
            .collect::<PyResult<Vec<_>>>()?;
        PyList::new(py, rows)
    }

    /// One order, open or done lately, None when it is not known.
    fn order<'py>(&self, py: Python<'py>, order_id: u64) -> PyResult<Option<Bound<'py, PyDict>>> {
        let found = py.detach(|| {
            let (order, facts) = self.session.order(order_id)?;
            Some((order, facts, self.instrument_id(&order)))
        });
        found
            .map(|(order, facts, instrument_id)| order_row(py, &order, &facts, instrument_id))
            .transpose()
    }

    /// What an operator adopted as external, by instrument.
    fn adopted(&self, py: Python<'_>) -> BTreeMap<u32, i64> {
        py.detach(|| self.session.with_engine(Engine::adopted))
    }

    /// Signed position and result of every alpha, in config order.
    fn positions<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let found = py.detach(|| {
            self.session.with_engine(|engine| {
                let alphas = engine.config().alphas.iter();
                let ids: Vec<(String, u32)> = alphas
                    .map(|alpha| (alpha.alpha_id.clone(), alpha.instrument_id))
                    .collect();
                (ids, engine.results().collect::<Vec<_>>())
            })
        });
        let rows = found
            .0
            .iter()
            .zip(&found.1)
            .map(|((alpha_id, instrument_id), result)| {
                let row = PyDict::new(py);
                row.set_item("alpha_index", result.alpha_index)?;
                row.set_item("alpha_id", alpha_id)?;
                row.set_item("instrument_id", instrument_id)?;
                row.set_item("position_qty", result.position_qty)?;
                row.set_item("gross_pnl", result.gross_pnl)?;
                row.set_item("realised_pnl", result.realised_pnl)?;
                row.set_item("fees", result.fees)?;
                row.set_item("net_pnl", result.net_pnl)?;
                row.set_item("fill_count", result.fill_count)?;
                row.set_item("weight_ppm", result.weight_ppm)?;
                row.set_item("stage", result.stage)?;
                Ok(row)
            })
            .collect::<PyResult<Vec<_>>>()?;
        PyList::new(py, rows)
    }

    /// What the engine has counted, and where the session stands.
    fn state<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (last_seq, last_time_ns, failure) = py.detach(|| self.session.standing());
        // Nothing under the lock asks for the GIL, so whoever waits for the lock with it is let in.
        let table = self
            .session
            .with_engine(|engine| engine_report(py, engine))?;
        table.set_item("last_seq", last_seq)?;
        table.set_item("last_time_ns", last_time_ns)?;
        table.set_item("pending", self.session.pending())?;
        table.set_item(
            "failed_by",
            failure.as_ref().map_or(0, |one| one.code.code()),
        )?;
        table.set_item(
            "failure",
            failure.map_or_else(String::new, |one| one.message),
        )?;
        Ok(table)
    }

    /// Every Route record of the logs so far, a tape.
    fn routes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let tape = py.detach(|| self.session.routes());
        PyBytes::new(py, &tape)
    }

    /// Approved decisions to place an order of earlier lives, a tape.
    fn order_decisions<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.session.place_decisions())
    }

    /// Times of every step so far: count, p50, p99, p999 and max in ns, by step.
    fn latency<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let table = PyDict::new(py);
        for (step, spread) in self.session.latencies() {
            let row = PyDict::new(py);
            row.set_item("count", spread.count)?;
            row.set_item("p50_ns", spread.p50_ns)?;
            row.set_item("p99_ns", spread.p99_ns)?;
            row.set_item("p999_ns", spread.p999_ns)?;
            row.set_item("max_ns", spread.max_ns)?;
            table.set_item(step.name(), row)?;
        }
        Ok(table)
    }

    /// Seals both logs; what waited for the dispatcher does not come out any more.
    fn finish<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (market, orders) = py
            .detach(|| self.session.finish())
            .map_err(|error| raised(py, &error))?;
        let table = PyDict::new(py);
        table.set_item("market_last_seq", market)?;
        table.set_item("orders_last_seq", orders)?;
        Ok(table)
    }

    /// Lets go of the logs without sealing them.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.session.close());
    }
}

/// The tag of the order that a decision places: six letters and digits.
#[pyfunction]
#[pyo3(name = "order_tag")]
fn tag_of(epoch: u32, decision_seq: u64) -> String {
    text(&order_tag(epoch, decision_seq)).to_owned()
}

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyLiveSession>()?;
    module.add_class::<PyOrderRequest>()?;
    module.add_function(wrap_pyfunction!(tag_of, module)?)?;
    Ok(())
}
