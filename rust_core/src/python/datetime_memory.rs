//! The ten bytes inside a `datetime`, where the interpreter is known to keep them.
//!
//! Why: reading a naive time through attributes costs 0.1 us, an eighth of what a tick costs in all.
//! The bytes lie at one place in every CPython since 3.7 (`PyDateTime_DateTime` of its public header
//! `datetime.h`), but the stable interface that this module is built for does not promise it.
//!
//! Invariants:
//! 1. Nothing is read this way unless a check with known times found, in this interpreter, exactly
//!    what their attributes say; otherwise `find` gives nothing and attributes are read.
//! 2. Only objects whose type is exactly `datetime` are read, and only inside their size.
//!
//! It interprets nothing (see `normaliser::local_time`). Operator's page: `docs/normaliser.md`.
#![allow(
    unsafe_code,
    reason = "reads the memory of an object of checked type and layout"
)]

use pyo3::prelude::*;
use pyo3::types::{PyType, PyTzInfo};

/// Bytes of the hash that stands between the object's head and the time zone mark.
const HASH_BYTES: usize = size_of::<isize>();
/// The time zone mark, then year (2), month, day, hour, minute, second, microsecond (3).
const STATE_BYTES: usize = 11;

/// Where the state begins in every `datetime`.
#[derive(Debug, Clone, Copy)]
pub(super) struct DatetimeMemory {
    offset: usize,
}

impl DatetimeMemory {
    /// The place, if this interpreter has the expected layout.
    pub(super) fn find(datetime: &Bound<'_, PyType>) -> PyResult<Option<Self>> {
        let py = datetime.py();
        let head: usize = py
            .import("builtins")?
            .getattr("object")?
            .getattr("__basicsize__")?
            .extract()?;
        let size: usize = datetime.getattr("__basicsize__")?.extract()?;
        let memory = Self {
            offset: head + HASH_BYTES,
        };
        // The smallest object of the type has no zone behind the state.
        if size < memory.offset + STATE_BYTES + size_of::<usize>() {
            return Ok(None);
        }
        let utc = PyTzInfo::utc(py)?;
        for fields in [
            (2026, 4, 10, 9, 8, 7, 654_321),
            (1999, 12, 31, 23, 59, 58, 1),
            (1, 1, 1, 0, 0, 0, 0),
            (9999, 12, 31, 23, 59, 59, 999_999),
            (2000, 2, 29, 12, 34, 56, 65_536),
        ] {
            let (year, month, day, hour, minute, second, us): (u16, u8, u8, u8, u8, u8, u32) =
                fields;
            let [year_high, year_low] = year.to_be_bytes();
            let [_, high, mid, low] = us.to_be_bytes();
            let expected = [
                year_high, year_low, month, day, hour, minute, second, high, mid, low,
            ];
            let naive = datetime.call1(fields)?;
            let zoned = datetime.call1((year, month, day, hour, minute, second, us, &utc))?;
            let is_expected =
                memory.state(&naive) == (0, expected) && memory.state(&zoned) == (1, expected);
            if !is_expected {
                return Ok(None);
            }
        }
        Ok(Some(memory))
    }

    /// The ten bytes of a naive time; `None` when it has a zone. The caller has checked the type.
    pub(super) fn packed(self, value: &Bound<'_, PyAny>) -> Option<[u8; 10]> {
        match self.state(value) {
            (0, packed) => Some(packed),
            _ => None,
        }
    }

    fn state(self, value: &Bound<'_, PyAny>) -> (u8, [u8; 10]) {
        // SAFETY: callers pass objects whose type is exactly `datetime`, so the object is at least
        // as large as the smallest of its type, which `find` compared with the end of this read;
        // the reference keeps it alive, bytes need no alignment, and a `datetime` never changes.
        let state: [u8; STATE_BYTES] = unsafe {
            value
                .as_ptr()
                .cast::<u8>()
                .add(self.offset)
                .cast::<[u8; STATE_BYTES]>()
                .read_unaligned()
        };
        let [zone_mark, packed @ ..] = state;
        (zone_mark, packed)
    }
}
