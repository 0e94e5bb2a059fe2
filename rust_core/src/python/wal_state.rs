//! Bindings of what a log says about itself: its manifest and its watermark.

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::wal::{hex, raised};
use crate::wal::{self, Entry, Manifest};

/// Read the manifest of a log: `{"wal_id", "log_kind", "entries": [...], "torn_bytes"}`, `None`
/// without one.
#[pyfunction]
fn read_manifest(py: Python<'_>, log_dir: PathBuf) -> PyResult<Option<Bound<'_, PyDict>>> {
    py.detach(|| wal::read_manifest(&log_dir))
        .map_err(|error| raised(&error))?
        .map(|manifest| manifest_dict(py, &manifest))
        .transpose()
}

/// Say that sealed segments are about to be removed because a copy of each is in `place`.
#[pyfunction]
#[pyo3(signature = (log_dir, segment_ids, place = "archive"))]
fn manifest_append_archived(
    py: Python<'_>,
    log_dir: PathBuf,
    segment_ids: Vec<u64>,
    place: &str,
) -> PyResult<()> {
    py.detach(|| wal::append_taken_away(&log_dir, &segment_ids, Some(place)))
        .map_err(|error| raised(&error))
}

/// Say that sealed segments are about to be removed for good.
#[pyfunction]
fn manifest_append_deleted(
    py: Python<'_>,
    log_dir: PathBuf,
    segment_ids: Vec<u64>,
) -> PyResult<()> {
    py.detach(|| wal::append_taken_away(&log_dir, &segment_ids, None))
        .map_err(|error| raised(&error))
}

/// Check a whole log: every segment, that they follow each other, and the manifest.
#[pyfunction]
fn verify_log(py: Python<'_>, log_dir: PathBuf) -> PyResult<Bound<'_, PyDict>> {
    let check = py
        .detach(|| wal::verify_log(&log_dir))
        .map_err(|error| raised(&error))?;
    let table = PyDict::new(py);
    table.set_item("segment_count", check.segment_count)?;
    table.set_item("away_count", check.away_count)?;
    table.set_item("has_manifest", check.has_manifest)?;
    Ok(table)
}

/// Read where the writer of a log stands, without a lock; `None` if none wrote a watermark there.
#[pyfunction]
fn read_watermark(py: Python<'_>, log_dir: PathBuf) -> PyResult<Option<Bound<'_, PyDict>>> {
    let view = wal::read_watermark(&log_dir).map_err(|error| raised(&error))?;
    let Some(view) = view else { return Ok(None) };
    let table = PyDict::new(py);
    table.set_item("wal_id", view.wal_id)?;
    table.set_item("log_kind", view.kind.name())?;
    table.set_item("epoch", view.epoch)?;
    table.set_item("last_seq", view.last_seq)?;
    table.set_item("durable_seq", view.durable_seq)?;
    table.set_item("segment_id", view.segment_id)?;
    table.set_item("phase", view.phase.name())?;
    table.set_item("failure_code", view.failure)?;
    table.set_item("has_space_ahead", view.has_space_ahead)?;
    table.set_item("sync_time_ns", view.sync_time_ns)?;
    Ok(Some(table))
}

fn manifest_dict<'py>(py: Python<'py>, manifest: &Manifest) -> PyResult<Bound<'py, PyDict>> {
    let entries = manifest
        .entries
        .iter()
        .map(|entry| entry_dict(py, entry))
        .collect::<PyResult<Vec<_>>>()?;
    let table = PyDict::new(py);
    table.set_item("wal_id", manifest.identity.wal_id)?;
    table.set_item("log_kind", manifest.identity.kind.name())?;
    table.set_item("entries", entries)?;
    table.set_item("torn_bytes", manifest.torn_bytes)?;
    Ok(table)
}

fn entry_dict<'py>(py: Python<'py>, entry: &Entry) -> PyResult<Bound<'py, PyDict>> {
    let table = PyDict::new(py);
    table.set_item("kind", entry.kind.name())?;
    table.set_item("segment_id", entry.segment_id)?;
    table.set_item("epoch", entry.epoch)?;
    table.set_item("record_count", entry.record_count)?;
    table.set_item("first_seq", entry.first_seq)?;
    table.set_item("last_seq", entry.last_seq)?;
    table.set_item("data_bytes", entry.data_bytes)?;
    table.set_item("sha256", hex(&entry.sha256))?;
    table.set_item("place", &entry.place)?;
    Ok(table)
}

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(read_manifest, module)?)?;
    module.add_function(wrap_pyfunction!(manifest_append_archived, module)?)?;
    module.add_function(wrap_pyfunction!(manifest_append_deleted, module)?)?;
    module.add_function(wrap_pyfunction!(verify_log, module)?)?;
    module.add_function(wrap_pyfunction!(read_watermark, module)?)?;
    Ok(())
}
