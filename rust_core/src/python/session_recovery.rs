//! Bindings of `session_recovery`.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::reason::ReasonCode;
use crate::session_recovery::{ExtentError, LostTail, session_extent};

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
    module.add_function(wrap_pyfunction!(py_session_extent, module)?)
}
