//! Record schema, tapes and reason codes for Python.
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::reason::REASON_ROWS;
use crate::record::{self, Field, HEADER_FIELDS, LAYOUTS, RecordType, SCALE, SCHEMA_VERSION, Tape};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn field_rows(fields: &[Field]) -> Vec<(&'static str, &'static str, usize)> {
    fields
        .iter()
        .map(|field| (field.name, field.format, field.offset))
        .collect()
}

/// Layout of every record type: `{name: {code, bytes, fields: [(name, numpy format, offset)]}}`.
#[pyfunction]
fn record_layouts(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let table = PyDict::new(py);
    for layout in LAYOUTS {
        let row = PyDict::new(py);
        let mut fields = field_rows(HEADER_FIELDS);
        fields.extend(field_rows(layout.fields));
        row.set_item("code", layout.code)?;
        row.set_item("bytes", layout.bytes)?;
        row.set_item("fields", fields)?;
        table.set_item(layout.name, row)?;
    }
    Ok(table)
}

/// Every reason code: `[(code, name, meaning, seen_when, operator_does)]`.
#[pyfunction]
fn reason_codes() -> Vec<(u16, &'static str, &'static str, &'static str, &'static str)> {
    REASON_ROWS
        .iter()
        .map(|row| {
            (
                row.code,
                row.name,
                row.meaning,
                row.seen_when,
                row.operator_does,
            )
        })
        .collect()
}

/// Records of a tape by type name, each as contiguous bytes of one layout, order kept.
#[pyfunction]
fn split_tape<'py>(py: Python<'py>, tape: &[u8]) -> PyResult<Bound<'py, PyDict>> {
    let mut parts: Vec<Vec<u8>> = LAYOUTS.iter().map(|_| Vec::new()).collect();
    for item in Tape::new(tape) {
        let (header, bytes) = item.map_err(|error| PyValueError::new_err(error.to_string()))?;
        if let Some(index) = LAYOUTS
            .iter()
            .position(|layout| layout.code == header.record_type)
        {
            parts[index].extend_from_slice(bytes);
        }
    }
    let table = PyDict::new(py);
    for (layout, part) in LAYOUTS.iter().zip(parts) {
        table.set_item(layout.name, PyBytes::new(py, &part))?;
    }
    Ok(table)
}

/// Records of a tape by type name, with the place of each in the tape:
/// `{name: (records, positions)}`, positions as little-endian `u32` counted in records.
#[pyfunction]
fn index_tape<'py>(py: Python<'py>, tape: &[u8]) -> PyResult<Bound<'py, PyDict>> {
    let mut place_of_code = [usize::MAX; 256];
    for (place, layout) in LAYOUTS.iter().enumerate() {
        place_of_code[usize::from(layout.code)] = place;
    }
    // Counted first: growing buffers would copy every record several times.
    let mut sizes = vec![(0_usize, 0_usize); LAYOUTS.len()];
    for item in Tape::new(tape) {
        let (header, bytes) = item.map_err(|error| PyValueError::new_err(error.to_string()))?;
        if let Some(size) = sizes.get_mut(place_of_code[usize::from(header.record_type)]) {
            size.0 += bytes.len();
            size.1 += size_of::<u32>();
        }
    }
    let mut parts: Vec<(Vec<u8>, Vec<u8>)> = sizes
        .iter()
        .map(|size| (Vec::with_capacity(size.0), Vec::with_capacity(size.1)))
        .collect();
    for (position, item) in Tape::new(tape).enumerate() {
        let (header, bytes) = item.map_err(|error| PyValueError::new_err(error.to_string()))?;
        let position = u32::try_from(position)
            .map_err(|_| PyValueError::new_err("a tape holds at most 2^32 records"))?;
        if let Some(part) = parts.get_mut(place_of_code[usize::from(header.record_type)]) {
            part.0.extend_from_slice(bytes);
            part.1.extend_from_slice(&position.to_le_bytes());
        }
    }
    let table = PyDict::new(py);
    for (layout, (records, positions)) in LAYOUTS.iter().zip(parts) {
        table.set_item(
            layout.name,
            (PyBytes::new(py, &records), PyBytes::new(py, &positions)),
        )?;
    }
    Ok(table)
}

/// One tape from several, ordered by `(receive_time_ns, source_seq)`; equal keys keep part order.
#[pyfunction]
fn merge_tapes<'py>(py: Python<'py>, parts: Vec<Vec<u8>>) -> PyResult<Bound<'py, PyBytes>> {
    let mut rows: Vec<(i64, u64, &[u8])> = Vec::new();
    for part in &parts {
        for item in Tape::new(part) {
            let (header, bytes) = item.map_err(|error| PyValueError::new_err(error.to_string()))?;
            rows.push((header.receive_time_ns, header.source_seq, bytes));
        }
    }
    rows.sort_by_key(|row| (row.0, row.1));
    let merged: Vec<u8> = rows.iter().flat_map(|row| row.2.iter().copied()).collect();
    Ok(PyBytes::new(py, &merged))
}

/// `(inputs, decisions)` of a session: both logs' inputs in `input_seq` order, and the decisions
/// in the order they were made.
#[pyfunction]
fn merge_logs<'py>(
    py: Python<'py>,
    market: &[u8],
    orders: &[u8],
) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
    let mut inputs: Vec<(u64, &[u8])> = Vec::new();
    let mut decisions: Vec<u8> = Vec::new();
    for tape in [market, orders] {
        for item in Tape::new(tape) {
            let (header, bytes) = item.map_err(|error| PyValueError::new_err(error.to_string()))?;
            if header.record_type == RecordType::Decision as u8 {
                decisions.extend_from_slice(bytes);
            } else {
                inputs.push((header.input_seq, bytes));
            }
        }
    }
    inputs.sort_by_key(|row| row.0);
    let merged: Vec<u8> = inputs
        .iter()
        .flat_map(|row| row.1.iter().copied())
        .collect();
    Ok((PyBytes::new(py, &merged), PyBytes::new(py, &decisions)))
}

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("SCHEMA_VERSION", SCHEMA_VERSION)?;
    module.add("SCHEMA_HASH", hex(&record::schema_hash()))?;
    module.add("SCHEMA_TEXT", record::schema_text())?;
    module.add("SCALE", SCALE)?;
    module.add("SOURCE_HASH", env!("HFT_CORE_SOURCE_HASH"))?;
    module.add("BUILD_PROFILE", env!("HFT_CORE_PROFILE"))?;
    module.add_function(wrap_pyfunction!(record_layouts, module)?)?;
    module.add_function(wrap_pyfunction!(reason_codes, module)?)?;
    module.add_function(wrap_pyfunction!(split_tape, module)?)?;
    module.add_function(wrap_pyfunction!(index_tape, module)?)?;
    module.add_function(wrap_pyfunction!(merge_tapes, module)?)?;
    module.add_function(wrap_pyfunction!(merge_logs, module)?)?;
    Ok(())
}
