//! Kernels and the platform's functions by address, for Python.
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::simulation::refuse;
use crate::kernel::{KernelShape, Kernels};
use crate::math::{BINARY, UNARY};

/// A compiled kernel as engines take it; `hft_platform.kernels` makes it.
#[pyclass(name = "KernelHandle", module = "hft_platform._core", frozen)]
pub(super) struct PyKernelHandle {
    shape: KernelShape,
    address: usize,
}

#[pymethods]
impl PyKernelHandle {
    /// `address` must be code of the kernel's type that stays for the rest of the process.
    #[new]
    #[pyo3(signature = (kernel_id, sha256, address, *, features, parameters, state_count))]
    fn new(
        kernel_id: String,
        sha256: String,
        address: usize,
        features: Vec<String>,
        parameters: Vec<String>,
        state_count: usize,
    ) -> Self {
        Self {
            shape: KernelShape {
                id: kernel_id,
                sha256,
                features,
                parameters,
                state_count,
            },
            address,
        }
    }

    /// Name in the config.
    #[getter]
    fn kernel_id(&self) -> &str {
        &self.shape.id
    }

    /// Hash of source, sizes, compiler and CPU target.
    #[getter]
    fn sha256(&self) -> &str {
        &self.shape.sha256
    }
}

/// The kernels of an argument.
#[allow(
    unsafe_code,
    reason = "the promise that an address is a kernel is made in Python"
)]
pub(super) fn kernels_of(
    py: Python<'_>,
    handles: &[PyRef<'_, PyKernelHandle>],
) -> PyResult<Kernels> {
    let mut kernels = Kernels::default();
    for handle in handles {
        // SAFETY: `hft_platform.kernels` makes handles of code it inspected and never frees; see
        // `compiled.py` there.
        let added = unsafe { kernels.add(handle.shape.clone(), handle.address) };
        added.map_err(|error| refuse(py, error.code(), &error.to_string()))?;
    }
    Ok(kernels)
}

/// Address of every function that a kernel may call: `{name: (argument count, address)}`.
#[pyfunction]
fn math_addresses(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let table = PyDict::new(py);
    for (name, function) in UNARY {
        table.set_item(name, (1, *function as *const () as usize))?;
    }
    for (name, function) in BINARY {
        table.set_item(name, (2, *function as *const () as usize))?;
    }
    Ok(table)
}

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyKernelHandle>()?;
    module.add_function(wrap_pyfunction!(math_addresses, module)?)?;
    Ok(())
}
