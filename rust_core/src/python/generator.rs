//! Bindings of `generator`: parameters are JSON, sessions are tapes.

use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::generator::{self, GeneratorParams};

create_exception!(
    hft_platform._core,
    GeneratorError,
    PyException,
    "A market cannot be generated: args are (reason code, message)."
);

fn raised(error: &generator::GeneratorError) -> PyErr {
    GeneratorError::new_err((error.code().code(), error.to_string()))
}

/// The tape of one session of a generated market.
///
/// `opening_mid_twice` is the close of the session before (best bid plus best ask, ticks), if the
/// caller has it; without it the earlier price paths are walked again, with the same result.
#[pyfunction]
#[pyo3(signature = (params_json, session_index, opening_mid_twice = None))]
fn generate_session<'py>(
    py: Python<'py>,
    params_json: &str,
    session_index: usize,
    opening_mid_twice: Option<i64>,
) -> PyResult<Bound<'py, PyBytes>> {
    let generate = || {
        let params = GeneratorParams::from_json(params_json)?;
        generator::generate_session(&params, session_index, opening_mid_twice)
    };
    let tape = py.detach(generate).map_err(|error| raised(&error))?;
    Ok(PyBytes::new(py, &tape))
}

/// What nobody in the market sees, a value for each book: little-endian columns by name.
///
/// `exchange_time_ns` int64, `state` int64 (-1, 0, +1), `mid_twice_ticks` int64 and `drift_ticks`
/// float64 (integral of the drift since the first book). `opening_mid_twice` as in
/// `generate_session`.
#[pyfunction]
#[pyo3(signature = (params_json, session_index, opening_mid_twice = None))]
fn generate_hidden_state<'py>(
    py: Python<'py>,
    params_json: &str,
    session_index: usize,
    opening_mid_twice: Option<i64>,
) -> PyResult<Bound<'py, PyDict>> {
    let generate = || {
        let params = GeneratorParams::from_json(params_json)?;
        generator::generate_hidden_state(&params, session_index, opening_mid_twice)
    };
    let rows = py.detach(generate).map_err(|error| raised(&error))?;
    let table = PyDict::new(py);
    let columns: [(&str, Vec<u8>); 4] = [
        (
            "exchange_time_ns",
            rows.iter()
                .flat_map(|row| row.exchange_time_ns.to_le_bytes())
                .collect(),
        ),
        (
            "state",
            rows.iter()
                .flat_map(|row| row.state.to_le_bytes())
                .collect(),
        ),
        (
            "mid_twice_ticks",
            rows.iter()
                .flat_map(|row| row.mid_twice_ticks.to_le_bytes())
                .collect(),
        ),
        (
            "drift_ticks",
            rows.iter()
                .flat_map(|row| row.drift_ticks.to_le_bytes())
                .collect(),
        ),
    ];
    for (name, column) in columns {
        table.set_item(name, PyBytes::new(py, &column))?;
    }
    Ok(table)
}

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("GeneratorError", module.py().get_type::<GeneratorError>())?;
    module.add_function(wrap_pyfunction!(generate_session, module)?)?;
    module.add_function(wrap_pyfunction!(generate_hidden_state, module)?)?;
    Ok(())
}
