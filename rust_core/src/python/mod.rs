//! PyO3 bindings: the only files that know Python. A file for each noun.
use pyo3::prelude::*;

mod datetime_memory;
mod engine;
mod generator;
mod normaliser;
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
    normaliser::register(module)?;
    Ok(())
}
