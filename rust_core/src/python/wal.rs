//! Bindings of `wal`: tapes are bytes, reports are dicts, errors are `WalError(code, message)`.
//! Every call that touches the disk releases the GIL.

use std::path::PathBuf;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::wal::{
    self, Fault, Following, LogKind, Options, RecoveredTail, RecoveryReport, SegmentCheck,
    SegmentInfo, TornTail, Writer,
};

create_exception!(
    hft_platform._core,
    WalError,
    PyException,
    "A log was refused or could not be written: args are (reason code, message)."
);

pub(super) fn raised(error: &wal::WalError) -> PyErr {
    WalError::new_err((error.code().code(), error.to_string()))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writer of one log.
///
/// As a context manager it seals on leaving; after an exception it only syncs, and the next open
/// recovers.
#[pyclass(frozen, module = "hft_platform._core", name = "WalWriter")]
struct PyWalWriter {
    writer: RwLock<Option<Writer>>,
    dir: PathBuf,
}

impl PyWalWriter {
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        call: impl FnOnce(&Writer) -> Result<T, wal::WalError> + Send,
    ) -> PyResult<T> {
        py.detach(|| {
            let writer = self.writer.read().unwrap_or_else(PoisonError::into_inner);
            match writer.as_ref() {
                Some(writer) => call(writer),
                None => Err(wal::WalError::Closed {
                    path: self.dir.clone(),
                }),
            }
        })
        .map_err(|error| raised(&error))
    }

    fn take(&self) -> Result<Writer, wal::WalError> {
        let mut writer = self.writer.write().unwrap_or_else(PoisonError::into_inner);
        writer.take().ok_or_else(|| wal::WalError::Closed {
            path: self.dir.clone(),
        })
    }
}

#[pymethods]
impl PyWalWriter {
    #[new]
    #[pyo3(signature = (log_dir, wal_id, log_kind, segment_bytes = 64 << 20, group_commit_ms = 10, epoch = 1, seal_after_ms = None, reserve = false))]
    #[allow(
        clippy::too_many_arguments,
        reason = "keywords of a Python constructor"
    )]
    fn new(
        py: Python<'_>,
        log_dir: PathBuf,
        wal_id: u32,
        log_kind: &str,
        segment_bytes: u64,
        group_commit_ms: u64,
        epoch: u32,
        seal_after_ms: Option<u64>,
        reserve: bool,
    ) -> PyResult<Self> {
        let kind = LogKind::from_name(log_kind).ok_or_else(|| {
            raised(&wal::WalError::Option {
                path: log_dir.clone(),
                option: "log_kind",
                was: log_kind.to_owned(),
                expected: "market or orders".to_owned(),
            })
        })?;
        let group_commit = Duration::from_millis(group_commit_ms);
        let options = Options {
            wal_id,
            kind,
            segment_bytes,
            group_commit,
            epoch,
            seal_after: seal_after_ms.map(Duration::from_millis),
            reserve,
        };
        let writer = py
            .detach(|| Writer::open(&log_dir, options))
            .map_err(|error| raised(&error))?;
        Ok(Self {
            writer: RwLock::new(Some(writer)),
            dir: log_dir,
        })
    }

    /// Append the records of a tape; returns the sequence of the last one.
    fn append(&self, py: Python<'_>, tape: &[u8]) -> PyResult<u64> {
        self.with(py, |writer| writer.append_tape(tape))
    }

    /// Append the records of a tape; returns its last sequence once that is durable.
    fn append_durable(&self, py: Python<'_>, tape: &[u8]) -> PyResult<u64> {
        self.with(py, |writer| writer.append_durable(tape))
    }

    /// Highest acknowledged sequence, 0 before the first.
    fn durable_seq(&self, py: Python<'_>) -> PyResult<u64> {
        self.with(py, |writer| Ok(writer.durable_seq()))
    }

    /// Sequence of the last record appended, 0 before the first.
    fn last_seq(&self, py: Python<'_>) -> PyResult<u64> {
        self.with(py, Writer::last_seq)
    }

    /// Whether the next segment has its space; if not, the disk is full one segment early.
    fn has_space_ahead(&self, py: Python<'_>) -> PyResult<bool> {
        self.with(py, |writer| Ok(writer.has_space_ahead()))
    }

    /// Make everything appended so far durable; returns the watermark.
    fn sync(&self, py: Python<'_>) -> PyResult<u64> {
        self.with(py, Writer::sync)
    }

    /// Seal the segment now and begin the next.
    fn rotate(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, Writer::rotate)
    }

    /// Make everything durable and seal the last segment; returns the log's last sequence.
    fn seal(&self, py: Python<'_>) -> PyResult<u64> {
        py.detach(|| self.take().and_then(Writer::seal))
            .map_err(|error| raised(&error))
    }

    /// Sync and let go of the log without sealing; the next open recovers it.
    fn close(&self, py: Python<'_>) -> PyResult<u64> {
        py.detach(|| {
            let writer = self.take()?;
            writer.sync()
        })
        .map_err(|error| raised(&error))
    }

    /// What opening the log found and did.
    fn recovery<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let report = self.with(py, |writer| Ok(writer.recovery().clone()))?;
        recovery_dict(py, &report)
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (exception_type, _exception, _traceback))]
    fn __exit__(
        &self,
        py: Python<'_>,
        exception_type: Option<&Bound<'_, PyAny>>,
        _exception: Option<&Bound<'_, PyAny>>,
        _traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let Ok(writer) = self.take() else {
            return Ok(());
        };
        // With an exception on its way, dropping syncs; a second error would hide the first.
        if exception_type.is_some() {
            py.detach(|| drop(writer));
            return Ok(());
        }
        py.detach(|| writer.seal())
            .map(|_| ())
            .map_err(|error| raised(&error))
    }
}

/// Read one segment: `{"info": {...}, "tape": bytes, "torn": {...} | None}`.
#[pyfunction]
fn read_segment(py: Python<'_>, path: PathBuf) -> PyResult<Bound<'_, PyDict>> {
    let segment = py
        .detach(|| wal::read_segment(&path))
        .map_err(|error| raised(&error))?;
    let table = PyDict::new(py);
    table.set_item("info", info_dict(py, &segment.info)?)?;
    table.set_item("tape", PyBytes::new(py, &segment.tape))?;
    table.set_item("torn", torn_dict(py, segment.torn.as_ref())?)?;
    Ok(table)
}

/// Read a log: `{"segments": [info, ...], "tape": bytes, "torn": {...} | None}`.
#[pyfunction]
fn read_log(py: Python<'_>, log_dir: PathBuf) -> PyResult<Bound<'_, PyDict>> {
    let log = py
        .detach(|| wal::read_log(&log_dir))
        .map_err(|error| raised(&error))?;
    let segments = log
        .segments
        .iter()
        .map(|info| info_dict(py, info))
        .collect::<PyResult<Vec<_>>>()?;
    let table = PyDict::new(py);
    table.set_item("segments", segments)?;
    table.set_item("tape", PyBytes::new(py, &log.tape))?;
    table.set_item("torn", torn_dict(py, log.torn.as_ref())?)?;
    Ok(table)
}

/// Recover a log: cut a torn tail, seal the open segment, verify all others.
#[pyfunction]
fn recover_log(py: Python<'_>, log_dir: PathBuf) -> PyResult<Bound<'_, PyDict>> {
    let report = py
        .detach(|| wal::recover_log(&log_dir))
        .map_err(|error| raised(&error))?;
    recovery_dict(py, &report)
}

/// Check one segment and report what was found; damage is reported, not raised.
#[pyfunction]
fn verify_segment(py: Python<'_>, path: PathBuf) -> PyResult<Bound<'_, PyDict>> {
    let check = py
        .detach(|| wal::verify_segment(&path))
        .map_err(|error| raised(&error))?;
    check_dict(py, &check)
}

/// Copy what is good in a damaged log into a new folder; the log is only read.
#[pyfunction]
fn salvage_log(py: Python<'_>, log_dir: PathBuf, target: PathBuf) -> PyResult<Bound<'_, PyDict>> {
    let salvage = py
        .detach(|| wal::salvage_log(&log_dir, &target))
        .map_err(|error| raised(&error))?;
    let parts = salvage.parts.iter().map(|part| {
        let table = PyDict::new(py);
        table.set_item("log_dir", part.dir.to_string_lossy())?;
        table.set_item("record_count", part.stats.record_count)?;
        table.set_item("first_seq", part.stats.first_seq)?;
        table.set_item("last_seq", part.stats.last_seq)?;
        table.set_item("first_input_seq", part.stats.first_input_seq)?;
        table.set_item("last_input_seq", part.stats.last_input_seq)?;
        Ok(table)
    });
    let holes = salvage.holes.iter().map(|hole| {
        let table = PyDict::new(py);
        let name = hole.path.file_name().unwrap_or_default();
        table.set_item("file_name", name.to_string_lossy())?;
        table.set_item("from_offset", hole.from_offset)?;
        table.set_item("to_offset", hole.to_offset)?;
        table.set_item("fault", &hole.fault)?;
        table.set_item("first_seq", hole.first_seq)?;
        table.set_item("last_seq", hole.last_seq)?;
        table.set_item("after_input_seq", hole.after_input_seq)?;
        table.set_item("before_input_seq", hole.before_input_seq)?;
        table.set_item("was_durable", hole.was_durable)?;
        Ok(table)
    });
    let table = PyDict::new(py);
    table.set_item("log_dir", salvage.dir.to_string_lossy())?;
    table.set_item("wal_id", salvage.wal_id)?;
    table.set_item("log_kind", salvage.kind.name())?;
    table.set_item("parts", parts.collect::<PyResult<Vec<_>>>()?)?;
    table.set_item("holes", holes.collect::<PyResult<Vec<_>>>()?)?;
    Ok(table)
}

fn info_dict<'py>(py: Python<'py>, info: &SegmentInfo) -> PyResult<Bound<'py, PyDict>> {
    let table = PyDict::new(py);
    table.set_item("path", info.path.to_string_lossy())?;
    table.set_item(
        "file_name",
        info.path.file_name().unwrap_or_default().to_string_lossy(),
    )?;
    table.set_item("state", info.state.name())?;
    table.set_item("log_kind", info.kind.name())?;
    table.set_item("wal_id", info.wal_id)?;
    table.set_item("segment_id", info.segment_id)?;
    table.set_item("epoch", info.epoch)?;
    table.set_item("format_version", wal::FORMAT_VERSION)?;
    table.set_item("record_schema_version", info.schema.version())?;
    table.set_item("schema_hash", hex(&info.schema.hash()))?;
    table.set_item(
        "is_current_schema",
        info.schema == crate::record_upgrade::SegmentSchema::Current,
    )?;
    table.set_item(
        "record_count",
        info.stats.map_or(0, |stats| stats.record_count),
    )?;
    table.set_item("first_seq", info.first_seq)?;
    table.set_item("last_seq", info.stats.map(|stats| stats.last_seq))?;
    table.set_item(
        "first_input_seq",
        info.stats.map(|stats| stats.first_input_seq),
    )?;
    table.set_item(
        "last_input_seq",
        info.stats.map(|stats| stats.last_input_seq),
    )?;
    table.set_item(
        "min_sequence_time_ns",
        info.stats.map(|stats| stats.min_sequence_time_ns),
    )?;
    table.set_item(
        "max_sequence_time_ns",
        info.stats.map(|stats| stats.max_sequence_time_ns),
    )?;
    table.set_item("file_bytes", info.file_bytes)?;
    table.set_item("data_bytes", info.data_bytes)?;
    table.set_item("sha256", info.sha256.map(|sha256| hex(&sha256)))?;
    Ok(table)
}

fn torn_dict<'py>(
    py: Python<'py>,
    torn: Option<&TornTail>,
) -> PyResult<Option<Bound<'py, PyDict>>> {
    let Some(torn) = torn else { return Ok(None) };
    let table = PyDict::new(py);
    table.set_item("offset", torn.offset)?;
    table.set_item("bytes", torn.bytes)?;
    table.set_item("seq", torn.seq)?;
    table.set_item("fault", torn.fault.to_string())?;
    set_following(&table, &torn.following)?;
    Ok(Some(table))
}

fn set_following(table: &Bound<'_, PyDict>, following: &Following) -> PyResult<()> {
    table.set_item("following_frames", following.frames)?;
    table.set_item("following_offset", following.first_offset)?;
    table.set_item("following_durable_seq", following.durable_seq)
}

fn recovery_dict<'py>(py: Python<'py>, report: &RecoveryReport) -> PyResult<Bound<'py, PyDict>> {
    let table = PyDict::new(py);
    table.set_item("log_dir", report.dir.to_string_lossy())?;
    table.set_item("code", report.code().code())?;
    table.set_item("segment_count", report.segment_count)?;
    table.set_item("last_seq", report.last_seq)?;
    table.set_item("last_input_seq", report.last_input_seq)?;
    table.set_item("manifest", report.manifest.name())?;
    let mut cut: Option<(u64, u64, u64)> = None;
    let (action, path, fault): (&str, Option<&PathBuf>, Option<&Fault>) = match &report.tail {
        RecoveredTail::Nothing => ("nothing", None, None),
        RecoveredTail::Sealed { path } => ("sealed", Some(path), None),
        RecoveredTail::Cut {
            path,
            offset,
            bytes,
            seq,
            fault,
        } => {
            cut = Some((*offset, *bytes, *seq));
            ("cut", Some(path), Some(fault))
        }
        RecoveredTail::Removed { path, fault } => ("removed", Some(path), fault.as_ref()),
    };
    table.set_item("action", action)?;
    table.set_item("path", path.map(|path| path.to_string_lossy().into_owned()))?;
    table.set_item("fault", fault.map(ToString::to_string))?;
    table.set_item("cut_offset", cut.map(|cut| cut.0))?;
    table.set_item("cut_bytes", cut.map(|cut| cut.1))?;
    table.set_item("cut_seq", cut.map(|cut| cut.2))?;
    Ok(table)
}

fn check_dict<'py>(py: Python<'py>, check: &SegmentCheck) -> PyResult<Bound<'py, PyDict>> {
    let table = PyDict::new(py);
    table.set_item("path", check.path.to_string_lossy())?;
    table.set_item("file_bytes", check.file_bytes)?;
    table.set_item("is_valid", check.outcome.is_ok() && check.fault.is_none())?;
    let error = check.outcome.as_ref().err();
    let code = error.map_or_else(
        || {
            check
                .fault
                .as_ref()
                .map_or(0, |_| crate::reason::ReasonCode::WalTornTail.code())
        },
        |error| error.code().code(),
    );
    table.set_item("code", code)?;
    table.set_item("message", error.map(ToString::to_string))?;
    let info = check
        .outcome
        .as_ref()
        .ok()
        .map(|info| info_dict(py, info))
        .transpose()?;
    table.set_item("info", info)?;
    table.set_item("valid_frames", check.valid_frames)?;
    table.set_item("last_valid_seq", check.last_valid_seq)?;
    table.set_item("bad_offset", check.bad_offset)?;
    table.set_item("fault", check.fault.as_ref().map(ToString::to_string))?;
    set_following(&table, &check.following)?;
    Ok(table)
}

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("WalError", module.py().get_type::<WalError>())?;
    module.add_class::<PyWalWriter>()?;
    module.add_function(wrap_pyfunction!(read_segment, module)?)?;
    module.add_function(wrap_pyfunction!(read_log, module)?)?;
    module.add_function(wrap_pyfunction!(recover_log, module)?)?;
    module.add_function(wrap_pyfunction!(salvage_log, module)?)?;
    module.add_function(wrap_pyfunction!(verify_segment, module)?)?;
    Ok(())
}
