//! Arrays of Python as slices, without a copy.
//!
//! Why: a day of features is hundreds of megabytes, and the search passes it thousands of times.
//!
//! Invariants:
//! 1. A slice covers exactly the memory that the exporter promised, contiguous and aligned, and
//!    lives no longer than the export, during which the exporter may not move or free it.
//! 2. What is written does not overlap what is read.
//!
//! The one thing that cannot be checked is another Python thread that changes an array during a
//! call; the stub forbids it. Operator's page: `docs/alpha-language.md`.

use pyo3::buffer::{Element, PyBuffer};
use pyo3::prelude::*;

use super::engine::TapeError;
use crate::reason::ReasonCode;

/// Wrong shape, order or kind of an array.
pub(super) fn array_error(message: String) -> PyErr {
    TapeError::new_err((ReasonCode::SchemaMismatch.code(), message))
}

/// An exported array.
pub(super) struct Array<T: Element> {
    buffer: PyBuffer<T>,
    /// True when the first index moves fastest.
    pub(super) is_by_column: bool,
}

impl<T: Element> Array<T> {
    /// Takes an array of `T` with the given number of dimensions.
    pub(super) fn new(name: &str, object: &Bound<'_, PyAny>, dimensions: usize) -> PyResult<Self> {
        let buffer = PyBuffer::<T>::get(object)
            .map_err(|error| array_error(format!("{name} is no array of its type: {error}")))?;
        if buffer.dimensions() != dimensions {
            return Err(array_error(format!(
                "{name} has {} dimensions, must have {dimensions}",
                buffer.dimensions()
            )));
        }
        let is_by_row = buffer.is_c_contiguous();
        if !is_by_row && !buffer.is_fortran_contiguous() {
            return Err(array_error(format!("{name} is not contiguous")));
        }
        let is_aligned = buffer.buf_ptr().align_offset(align_of::<T>()) == 0;
        if !is_aligned {
            return Err(array_error(format!("{name} is not aligned")));
        }
        Ok(Self {
            buffer,
            is_by_column: !is_by_row,
        })
    }

    /// Length along a dimension.
    pub(super) fn length(&self, dimension: usize) -> usize {
        self.buffer.shape().get(dimension).copied().unwrap_or(0)
    }

    fn bytes(&self) -> std::ops::Range<usize> {
        let start = self.buffer.buf_ptr() as usize;
        start..start + self.buffer.len_bytes()
    }

    /// The elements.
    pub(super) fn slice(&self) -> &[T] {
        if self.buffer.item_count() == 0 {
            return &[];
        }
        // SAFETY: the export is held by `self`, contiguous (checked in `new`), aligned (checked)
        // and `item_count` elements of `T` long (the exporter's format was checked by `get`).
        unsafe {
            std::slice::from_raw_parts(
                self.buffer.buf_ptr().cast::<T>().cast_const(),
                self.buffer.item_count(),
            )
        }
    }

    /// The elements to write; `others` are the arrays that are read meanwhile.
    pub(super) fn slice_mut(
        &mut self,
        name: &str,
        others: &[std::ops::Range<usize>],
    ) -> PyResult<&mut [T]> {
        if self.buffer.readonly() {
            return Err(array_error(format!("{name} is read-only")));
        }
        let own = self.bytes();
        if others
            .iter()
            .any(|other| own.start < other.end && other.start < own.end)
        {
            return Err(array_error(format!(
                "{name} overlaps an array that is read"
            )));
        }
        if self.buffer.item_count() == 0 {
            return Ok(&mut []);
        }
        // SAFETY: as in `slice`; writable and apart from all other slices by the checks above,
        // and `&mut self` makes it the only slice of this export.
        Ok(unsafe {
            std::slice::from_raw_parts_mut(
                self.buffer.buf_ptr().cast::<T>(),
                self.buffer.item_count(),
            )
        })
    }

    /// Where it lies, for [`Array::slice_mut`] of another.
    pub(super) fn place(&self) -> std::ops::Range<usize> {
        self.bytes()
    }
}
