//! PyO3 bindings: the only files that know Python. A file for each noun.
use pyo3::prelude::*;

mod bus;
mod engine;
mod generator;
mod kernel;
mod record;
mod simulation;
mod wal;

/// The extension module `hft_platform._core`.
#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    record::register(module)?;
    wal::register(module)?;
    engine::register(module)?;
    simulation::register(module)?;
    generator::register(module)?;
    bus::register(module)?;
    kernel::register(module)?;
    Ok(())
}
