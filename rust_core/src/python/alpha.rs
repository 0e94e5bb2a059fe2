//! The alpha language for Python: columns, terms, the words.
use std::collections::BTreeMap;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use super::arrays::{Array, array_error};
use super::engine::{TapeError, batch_error, expression_error, parse_config};
use crate::alpha::{Columns, ColumnsError, Expression, FUNCTIONS, Program, SIGNS, excerpt};
use crate::engine;
use crate::features::{FEATURE_COUNT, FEATURES};
use crate::reason::ReasonCode;

fn columns_error(error: &ColumnsError) -> PyErr {
    let code = match error {
        ColumnsError::Length { .. } => ReasonCode::SchemaMismatch,
        ColumnsError::TimeOutOfRange { .. } => ReasonCode::ValueOutOfRange,
        ColumnsError::TimeWentBack { .. } => ReasonCode::OutOfOrderRow,
    };
    TapeError::new_err((code.code(), error.to_string()))
}

/// Values of an expression at every row of a feature matrix, written into `out`.
#[pyfunction]
fn evaluate_expression(
    py: Python<'_>,
    expr: &str,
    parameters: BTreeMap<String, f64>,
    features: &Bound<'_, PyAny>,
    times_ns: &Bound<'_, PyAny>,
    starts: &Bound<'_, PyAny>,
    out: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let out = Array::<f64>::new("out", out, 1)?;
    let expressions = vec![(expr.to_owned(), parameters)];
    evaluate_many(py, expressions, features, times_ns, starts, out)
}

/// The same for many expressions, a row of `out` each; common parts are computed once.
#[pyfunction]
fn evaluate_expressions(
    py: Python<'_>,
    expressions: Vec<(String, BTreeMap<String, f64>)>,
    features: &Bound<'_, PyAny>,
    times_ns: &Bound<'_, PyAny>,
    starts: &Bound<'_, PyAny>,
    out: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let out = Array::<f64>::new("out", out, 2)?;
    if out.is_by_column {
        return Err(array_error("out is not in C order".to_owned()));
    }
    if out.length(0) != expressions.len() {
        return Err(array_error(format!(
            "out has {} rows for {} expressions",
            out.length(0),
            expressions.len()
        )));
    }
    evaluate_many(py, expressions, features, times_ns, starts, out)
}

/// Expressions that share one pass over the table: enough to make loading it cheap, few enough for
/// their blocks to stay in a cache.
const TOGETHER: usize = 32;

fn evaluate_many(
    py: Python<'_>,
    expressions: Vec<(String, BTreeMap<String, f64>)>,
    features: &Bound<'_, PyAny>,
    times_ns: &Bound<'_, PyAny>,
    starts: &Bound<'_, PyAny>,
    mut out: Array<f64>,
) -> PyResult<()> {
    let features = Array::<f64>::new("features", features, 2)?;
    let times_ns = Array::<i64>::new("times_ns", times_ns, 1)?;
    let starts = Array::<u8>::new("starts", starts, 1)?;
    if features.length(1) != FEATURE_COUNT {
        return Err(array_error(format!(
            "features has {} columns, must have {FEATURE_COUNT}",
            features.length(1)
        )));
    }
    let read = [features.place(), times_ns.place(), starts.place()];
    let target = out.slice_mut("out", &read)?;
    let columns = Columns::new(
        features.slice(),
        features.is_by_column,
        times_ns.slice(),
        starts.slice(),
    )
    .map_err(|error| columns_error(&error))?;
    let length = columns.row_count() * expressions.len();
    if target.len() != length {
        return Err(array_error(format!(
            "out has {} values, expected {length}",
            target.len()
        )));
    }
    let outcome = py.detach(|| {
        let mut place = 0;
        for together in expressions.chunks(TOGETHER) {
            let mut parsed = Vec::with_capacity(together.len());
            for (text, parameters) in together {
                let names: Vec<&str> = parameters.keys().map(String::as_str).collect();
                parsed.push((Expression::parse(text, &names)?, parameters));
            }
            let compiled = Program::compile_many(parsed.iter().map(|(e, p)| (e, *p)));
            let mut program = compiled.map_err(|(_, error)| error)?;
            let end = place + columns.row_count() * together.len();
            let rows = &mut target[place..end];
            // The length was checked for all of them above.
            let fits = program.evaluate_columns(&columns, rows).is_ok();
            assert!(fits, "Invariant: out has a row for each expression");
            place = end;
        }
        Ok(())
    });
    outcome.map_err(expression_error)
}

/// Features, times, starts and kind of every record at which an alpha's signal is computed.
#[pyfunction]
#[pyo3(signature = (tape, engine_config_json, alpha_index=0))]
fn feature_columns<'py>(
    py: Python<'py>,
    tape: &[u8],
    engine_config_json: &str,
    alpha_index: usize,
) -> PyResult<Bound<'py, PyDict>> {
    let config = parse_config(engine_config_json)?;
    let table = py
        .detach(|| engine::feature_columns(tape, &config, alpha_index))
        .map_err(batch_error)?;
    let names: Vec<&str> = FEATURES.iter().map(|feature| feature.name).collect();
    let columns = PyDict::new(py);
    columns.set_item("names", names)?;
    let floats = PyBytes::new(py, bytemuck::cast_slice(&table.values));
    columns.set_item("features", floats)?;
    for (name, values) in [
        ("times_ns", &table.times_ns),
        ("receive_time_ns", &table.receive_time_ns),
        ("mid", &table.mid),
    ] {
        columns.set_item(name, PyBytes::new(py, bytemuck::cast_slice(values)))?;
    }
    columns.set_item("starts", PyBytes::new(py, &table.starts))?;
    columns.set_item("is_good_book", PyBytes::new(py, &table.is_good_book))?;
    Ok(columns)
}

/// What an alpha's signal was made of at the last market record up to an input.
#[pyfunction]
fn signal_terms<'py>(
    py: Python<'py>,
    tape: &[u8],
    engine_config_json: &str,
    alpha_index: usize,
    input_seq: u64,
) -> PyResult<Option<Bound<'py, PyDict>>> {
    let config = parse_config(engine_config_json)?;
    let parts = py
        .detach(|| engine::signal_terms(tape, &config, alpha_index, input_seq))
        .map_err(batch_error)?;
    let Some(parts) = parts else {
        return Ok(None);
    };
    let table = PyDict::new(py);
    table.set_item("input_seq", parts.input_seq)?;
    let features = PyDict::new(py);
    for (name, value) in &parts.features {
        features.set_item(name, value)?;
    }
    table.set_item("features", features)?;
    let terms: Vec<(&str, f64)> = parts
        .terms
        .iter()
        .map(|term| (term.text.as_str(), term.value))
        .collect();
    table.set_item("terms", PyList::new(py, terms)?)?;
    table.set_item("value", parts.value)?;
    Ok(Some(table))
}

/// Signs and functions: `(kind, name, form, meaning, unit)`.
#[pyfunction]
fn expression_language() -> Vec<[&'static str; 5]> {
    let signs = SIGNS
        .iter()
        .map(|row| ["sign", "", row.form, row.meaning, row.unit]);
    let functions = FUNCTIONS.iter().map(|row| {
        let kind = match (row.plain, row.rolling) {
            (Some(_), Some(_)) => "both",
            (None, Some(_)) => "window",
            _ => "plain",
        };
        [kind, row.name, row.form, row.meaning, row.unit]
    });
    signs.chain(functions).collect()
}

/// The line of an expression around a position, and below it a caret that points there.
#[pyfunction]
fn expression_excerpt(expr: &str, position: usize) -> String {
    excerpt(expr, position)
}

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(evaluate_expression, module)?)?;
    module.add_function(wrap_pyfunction!(evaluate_expressions, module)?)?;
    module.add_function(wrap_pyfunction!(feature_columns, module)?)?;
    module.add_function(wrap_pyfunction!(signal_terms, module)?)?;
    module.add_function(wrap_pyfunction!(expression_language, module)?)?;
    module.add_function(wrap_pyfunction!(expression_excerpt, module)?)?;
    Ok(())
}
