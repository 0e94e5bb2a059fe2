//! Bindings of `wal::follow`: new records are bytes, errors are `WalError(code, message)`.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use super::wal::raised;
use crate::wal::SegmentFollower;

/// Reader of one segment that another process may still be writing.
#[pyclass(frozen, module = "hft_platform._core", name = "SegmentFollower")]
struct PySegmentFollower(Mutex<SegmentFollower>);

impl PySegmentFollower {
    fn with<T>(&self, read: impl FnOnce(&SegmentFollower) -> T) -> T {
        read(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[pymethods]
impl PySegmentFollower {
    #[new]
    fn new(py: Python<'_>, log_dir: PathBuf, segment_id: u64) -> PyResult<Self> {
        py.detach(|| SegmentFollower::open(&log_dir, segment_id))
            .map(|follower| Self(Mutex::new(follower)))
            .map_err(|error| raised(&error))
    }

    /// New durable records: `{"first_seq", "record_count", "tape", "durable_seq"}`.
    #[pyo3(signature = (records_max, durable_seq = 0))]
    fn poll<'py>(
        &self,
        py: Python<'py>,
        records_max: usize,
        durable_seq: u64,
    ) -> PyResult<Bound<'py, PyDict>> {
        let followed = py
            .detach(|| {
                let mut follower = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                follower.poll(records_max, durable_seq)
            })
            .map_err(|error| raised(&error))?;
        let table = PyDict::new(py);
        table.set_item("first_seq", followed.first_seq)?;
        table.set_item("record_count", followed.record_count)?;
        table.set_item("tape", PyBytes::new(py, &followed.tape))?;
        table.set_item("durable_seq", followed.durable_seq)?;
        Ok(table)
    }

    /// Identity of the log.
    #[getter]
    fn wal_id(&self) -> u32 {
        self.with(SegmentFollower::wal_id)
    }

    /// `market` or `orders`.
    #[getter]
    fn log_kind(&self) -> &'static str {
        self.with(|follower| follower.kind().name())
    }

    /// Sequence of the segment's first record.
    #[getter]
    fn first_seq(&self) -> u64 {
        self.with(SegmentFollower::first_seq)
    }

    /// Sequence that the next record given has.
    #[getter]
    fn next_seq(&self) -> u64 {
        self.with(SegmentFollower::next_seq)
    }
}

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PySegmentFollower>()
}
