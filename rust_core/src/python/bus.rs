//! The bus for Python.
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use super::simulation::refuse;
use crate::bus::{Bus, BusError, Overflow, Publisher, Reader, Waited};
use crate::reason::ReasonCode;
use crate::record::Tape;

create_exception!(
    _core,
    BusOverflowError,
    PyException,
    "A reader was lapped: `(code, message, lost, from_seq, to_seq)`."
);

fn raised(py: Python<'_>, error: BusError) -> PyErr {
    refuse(py, error.code(), &error.to_string())
}

fn overflow(lost: Overflow) -> PyErr {
    BusOverflowError::new_err((
        lost.code().code(),
        lost.to_string(),
        lost.lost,
        lost.from_seq,
        lost.to_seq,
    ))
}

/// A panic elsewhere leaves cursors as they were: nothing to repair.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A bus: one publisher, several readers.
#[pyclass(name = "Bus", module = "hft_platform._core", frozen)]
pub(super) struct PyBus {
    bus: Bus,
    /// `None` once a session publishes, or the bus was closed.
    publisher: Mutex<Option<Publisher>>,
}

impl PyBus {
    /// Takes the one publisher, for a session.
    pub(super) fn take_publisher(&self, py: Python<'_>) -> PyResult<Publisher> {
        held(&self.publisher).take().ok_or_else(|| {
            refuse(
                py,
                ReasonCode::SettingsInvalid,
                "the bus has its publisher already, or is closed; make another bus",
            )
        })
    }
}

#[pymethods]
impl PyBus {
    #[new]
    fn new(py: Python<'_>, slot_count: usize) -> PyResult<Self> {
        let (bus, publisher) = Bus::new(slot_count).map_err(|error| raised(py, error))?;
        Ok(Self {
            bus,
            publisher: Mutex::new(Some(publisher)),
        })
    }

    /// A reader of everything that is published from now on.
    fn reader(&self, py: Python<'_>) -> PyResult<PyBusReader> {
        let reader = self.bus.reader().map_err(|error| raised(py, error))?;
        Ok(PyBusReader {
            reader: Mutex::new(Some(reader)),
        })
    }

    /// Publishes every record of a tape and returns the bus sequence of the last.
    fn publish(&self, py: Python<'_>, tape: &[u8]) -> PyResult<u64> {
        for item in Tape::new(tape) {
            item.map_err(|error| refuse(py, ReasonCode::SchemaMismatch, &error.to_string()))?;
        }
        py.detach(|| {
            let mut publisher = held(&self.publisher);
            let publisher = publisher.as_mut()?;
            for (_, bytes) in Tape::new(tape).flatten() {
                publisher.publish(bytes);
            }
            Some(self.bus.head_seq())
        })
        .ok_or_else(|| {
            refuse(
                py,
                ReasonCode::SettingsInvalid,
                "the bus has its publisher already, or is closed",
            )
        })
    }

    /// Ends the bus when nobody else publishes; readers then find its end.
    fn close(&self) {
        held(&self.publisher).take();
    }

    /// Bus sequence of the last record published.
    fn head_seq(&self) -> u64 {
        self.bus.head_seq()
    }

    /// Slots it has.
    fn slot_count(&self) -> u64 {
        self.bus.slot_count()
    }

    /// How many records each reader is behind.
    fn reader_lags(&self) -> Vec<u64> {
        self.bus.reader_lags()
    }
}

/// A reader with a cursor of its own.
#[pyclass(name = "BusReader", module = "hft_platform._core", frozen)]
pub(super) struct PyBusReader {
    reader: Mutex<Option<Reader>>,
}

impl PyBusReader {
    /// Runs `task` on the reader without the GIL.
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        task: impl FnOnce(&mut Reader) -> T + Send,
    ) -> PyResult<T> {
        py.detach(|| held(&self.reader).as_mut().map(task))
            .ok_or_else(|| refuse(py, ReasonCode::SettingsInvalid, "the reader was closed"))
    }
}

#[pymethods]
impl PyBusReader {
    /// At most `max_records` records as a tape; empty when there is nothing new.
    fn read<'py>(&self, py: Python<'py>, max_records: usize) -> PyResult<Bound<'py, PyBytes>> {
        let tape = self.with(py, |reader| {
            let mut tape = Vec::new();
            reader.read(&mut tape, max_records).map(|_| tape)
        })?;
        Ok(PyBytes::new(py, &tape.map_err(overflow)?))
    }

    /// Waits for something to read: "ready", "timed_out" or "closed".
    fn wait(&self, py: Python<'_>, timeout_s: f64) -> PyResult<&'static str> {
        let timeout = Duration::try_from_secs_f64(timeout_s).map_err(|error| {
            refuse(
                py,
                ReasonCode::SettingsInvalid,
                &format!("timeout_s was {timeout_s}: {error}"),
            )
        })?;
        let waited = self.with(py, |reader| reader.wait(timeout))?;
        Ok(match waited {
            Waited::Ready => "ready",
            Waited::TimedOut => "timed_out",
            Waited::Closed => "closed",
        })
    }

    /// Records published and neither read nor told lost.
    fn lag(&self, py: Python<'_>) -> PyResult<u64> {
        self.with(py, |reader| reader.lag())
    }

    /// Bus sequence of the last record read or told lost.
    fn read_seq(&self, py: Python<'_>) -> PyResult<u64> {
        self.with(py, |reader| reader.read_seq())
    }

    /// Frees its place.
    fn close(&self, py: Python<'_>) {
        py.detach(|| held(&self.reader).take());
    }

    fn __enter__(this: Bound<'_, Self>) -> Bound<'_, Self> {
        this
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyTuple>) {
        self.close(py);
    }
}

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add(
        "BusOverflowError",
        module.py().get_type::<BusOverflowError>(),
    )?;
    module.add_class::<PyBus>()?;
    module.add_class::<PyBusReader>()?;
    Ok(())
}
