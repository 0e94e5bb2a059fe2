//! Binding of `engine::explain_decisions`: what every intent of some inputs met on its way.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use super::engine::{batch_error, parse_config, storm_row};
use super::kernel::{PyKernelHandle, kernels_of};
use crate::engine::{self, CheckResult, CheckRow, ModeCause, StrategyState, TracedIntent};
use crate::gateway::{Order, OrderState};
use crate::reason::ReasonCode;
use crate::record::Record;
use crate::risk::{Applies, Refusal};
use crate::strategy::Mode;

fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Normal => "normal",
        Mode::ReduceOnly => "reduce_only",
        Mode::Hold => "hold",
        Mode::Flatten => "flatten",
    }
}

fn applies_name(applies: Applies) -> &'static str {
    match applies {
        Applies::All => "all",
        Applies::Opening => "opening",
        Applies::Exit => "exits",
    }
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

/// Code, observed and limit; zeros when there is no refusal.
fn set_refusal(row: &Bound<'_, PyDict>, refusal: Option<Refusal>) -> PyResult<()> {
    row.set_item("code", refusal.map_or(0, |refusal| refusal.code.code()))?;
    row.set_item("observed", refusal.map_or(0, |refusal| refusal.observed))?;
    row.set_item("limit", refusal.map_or(0, |refusal| refusal.limit))
}

fn cause_row<'py>(py: Python<'py>, cause: &ModeCause) -> PyResult<Bound<'py, PyDict>> {
    let row = PyDict::new(py);
    row.set_item("what", cause.what)?;
    row.set_item("code", cause.code.map_or(0, ReasonCode::code))?;
    row.set_item("since_ns", cause.since_ns)?;
    row.set_item("asks", mode_name(cause.asks))?;
    Ok(row)
}

fn order_row<'py>(py: Python<'py>, order: &Order) -> PyResult<Bound<'py, PyDict>> {
    let row = PyDict::new(py);
    row.set_item("order_id", order.order_id)?;
    row.set_item("side", order.side)?;
    row.set_item("price", order.price)?;
    row.set_item("remaining_qty", order.remaining_qty())?;
    row.set_item("state", state_name(order.state))?;
    Ok(row)
}

fn check_row<'py>(py: Python<'py>, check: &CheckRow) -> PyResult<Bound<'py, PyDict>> {
    let row = PyDict::new(py);
    let (result, refusal) = match check.result {
        CheckResult::Passed => ("passed", None),
        CheckResult::NotForThis => ("not_for_this", None),
        CheckResult::Refused(refusal) => ("refused", Some(refusal)),
    };
    row.set_item("name", check.name)?;
    row.set_item("applies", applies_name(check.applies))?;
    let codes: Vec<u16> = check.codes.iter().map(|code| code.code()).collect();
    row.set_item("codes", codes)?;
    row.set_item("limit_key", check.limit_key)?;
    row.set_item("asks", check.asks)?;
    row.set_item("result", result)?;
    row.set_item("numbers", check.numbers)?;
    set_refusal(&row, refusal)?;
    Ok(row)
}

fn strategy_row<'py>(py: Python<'py>, state: &StrategyState) -> PyResult<Bound<'py, PyDict>> {
    let row = PyDict::new(py);
    let list = |rows: PyResult<Vec<_>>| PyList::new(py, rows?);
    row.set_item("mode", mode_name(state.mode))?;
    let causes = state.causes.iter().map(|cause| cause_row(py, cause));
    row.set_item("causes", list(causes.collect())?)?;
    row.set_item("signal", state.signal)?;
    row.set_item("position_qty", state.position_qty)?;
    row.set_item("tradable_qty", state.tradable_qty)?;
    row.set_item("position_qty_max", state.position_qty_max)?;
    row.set_item("clip_qty", state.clip_qty)?;
    row.set_item("weight_ppm", state.weight_ppm)?;
    row.set_item("held_ns", state.held_ns)?;
    row.set_item("net_pnl", state.net_pnl)?;
    row.set_item("drawdown", state.drawdown)?;
    row.set_item("book_fault", state.book_fault.map_or(0, ReasonCode::code))?;
    row.set_item("best_bid", state.best.0)?;
    row.set_item("best_ask", state.best.1)?;
    let orders = state.orders.iter().map(|order| order_row(py, order));
    row.set_item("orders", list(orders.collect())?)?;
    let wanted = state.wanted.map(|wanted| -> PyResult<_> {
        let row = PyDict::new(py);
        row.set_item("bid", wanted.bid)?;
        row.set_item("ask", wanted.ask)?;
        row.set_item("position_qty", wanted.position_qty)?;
        row.set_item("round_trip_ticks", wanted.round_trip_ticks)?;
        Ok(row)
    });
    row.set_item("wanted", wanted.transpose()?)?;
    Ok(row)
}

fn intent_row<'py>(py: Python<'py>, intent: &TracedIntent) -> PyResult<Bound<'py, PyDict>> {
    let row = PyDict::new(py);
    row.set_item("input_seq", intent.input_seq)?;
    row.set_item("alpha_index", intent.alpha_index)?;
    row.set_item("action", intent.action as u32)?;
    row.set_item("intent_id", intent.intent_id)?;
    row.set_item("order_id", intent.order_id)?;
    row.set_item("intent_reason", intent.reason as u32)?;
    row.set_item("side", intent.side)?;
    row.set_item("price", intent.price)?;
    row.set_item("qty", intent.qty)?;
    row.set_item("is_reducing", intent.is_reducing)?;
    set_refusal(&row, intent.refusal)?;
    row.set_item("strategy", strategy_row(py, &intent.state)?)?;
    let checks = intent.checks.iter().map(|check| check_row(py, check));
    let checks = checks.collect::<PyResult<Vec<_>>>()?;
    row.set_item("checks", PyList::new(py, checks)?)?;
    row.set_item("storm", storm_row(py, &intent.storm)?)?;
    let decision = intent.decision.as_ref();
    row.set_item(
        "decision",
        decision.map(|decision| PyBytes::new(py, decision.as_bytes())),
    )?;
    Ok(row)
}

/// Decides sequenced inputs again and tells, of every intent of the inputs asked for, what its
/// strategy stood on and what every check said.
#[pyfunction]
#[pyo3(signature = (inputs, engine_config_json, input_seqs, kernels=Vec::new(), *, order_log=None))]
fn explain_decisions<'py>(
    py: Python<'py>,
    inputs: &[u8],
    engine_config_json: &str,
    input_seqs: Vec<u64>,
    kernels: Vec<PyRef<'_, PyKernelHandle>>,
    order_log: Option<&[u8]>,
) -> PyResult<Vec<Bound<'py, PyDict>>> {
    let order_log = order_log.unwrap_or_default();
    let config = parse_config(engine_config_json)?;
    let kernels = kernels_of(py, &kernels)?;
    let intents = py
        .detach(|| engine::explain_decisions(inputs, &config, &input_seqs, &kernels, order_log))
        .map_err(batch_error)?;
    intents
        .iter()
        .map(|intent| intent_row(py, intent))
        .collect()
}

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(explain_decisions, module)?)?;
    Ok(())
}
