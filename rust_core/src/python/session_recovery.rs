//! Bindings of `session_recovery`.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::reason::ReasonCode;
use crate::session_recovery::{
    ExtentError, LostTail, SessionExtent, session_extent, session_lives,
};

use super::wal::WalError;

fn raised(error: &ExtentError) -> PyErr {
    match error {
        ExtentError::Tape(error) => PyValueError::new_err(error.to_string()),
        _ => WalError::new_err((ReasonCode::LogSequenceGap.code(), error.to_string())),
    }
}

/// How far the two logs of a session can be decided again, and what lies behind that.
#[pyfunction]
#[pyo3(name = "session_extent")]
fn py_session_extent<'py>(
    py: Python<'py>,
    market: &[u8],
    orders: &[u8],
) -> PyResult<Bound<'py, PyDict>> {
    let extent = py
        .detach(|| session_extent(market, orders))
        .map_err(|error| raised(&error))?;
    extent_table(py, &extent)
}

/// What every process of a live session left: as `session_extent`, with `epoch`, `first_seq` and the
/// part of the order log that its engine recovered from.
#[pyfunction]
#[pyo3(name = "session_lives")]
fn py_session_lives<'py>(
    py: Python<'py>,
    market: &[u8],
    orders: &[u8],
) -> PyResult<Vec<Bound<'py, PyDict>>> {
    let lives = py
        .detach(|| session_lives(market, orders))
        .map_err(|error| raised(&error))?;
    lives
        .iter()
        .map(|life| {
            let table = extent_table(py, &life.extent)?;
            table.set_item("epoch", life.epoch)?;
            table.set_item("first_seq", life.first_seq)?;
            let before = orders.get(..life.order_log_bytes).unwrap_or_default();
            table.set_item("order_log", PyBytes::new(py, before))?;
            Ok(table)
        })
        .collect()
}

fn extent_table<'py>(py: Python<'py>, extent: &SessionExtent) -> PyResult<Bound<'py, PyDict>> {
    let table = PyDict::new(py);
    table.set_item("ends_at", extent.ends_at)?;
    table.set_item("lost_tail", extent.lost_tail.map(LostTail::name))?;
    table.set_item("market_last_seq", extent.market_last_seq)?;
    table.set_item("orders_last_seq", extent.orders_last_seq)?;
    table.set_item("inputs", PyBytes::new(py, &extent.inputs))?;
    table.set_item("decisions", PyBytes::new(py, &extent.decisions))?;
    table.set_item("inputs_past", PyBytes::new(py, &extent.inputs_past))?;
    table.set_item("decisions_past", PyBytes::new(py, &extent.decisions_past))?;
    Ok(table)
}

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(py_session_extent, module)?)?;
    module.add_function(wrap_pyfunction!(py_session_lives, module)?)
}
