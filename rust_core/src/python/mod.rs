//! PyO3 bindings: the only files that know Python. A file for each noun.
use pyo3::prelude::*;

mod alpha;
mod arrays;
mod bus;
mod datetime_memory;
mod engine;
mod follow;
mod generator;
mod kernel;
mod live;
mod market;
mod normaliser;
mod paper_broker;
mod record;
mod session_recovery;
mod simulation;
mod strategy;
mod trace;
mod wal;
mod wal_state;

/// The extension module `hft_platform._core`.
#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    record::register(module)?;
    wal::register(module)?;
    follow::register(module)?;
    wal_state::register(module)?;
    engine::register(module)?;
    alpha::register(module)?;
    simulation::register(module)?;
    live::register(module)?;
    strategy::register(module)?;
    trace::register(module)?;
    generator::register(module)?;
    normaliser::register(module)?;
    bus::register(module)?;
    kernel::register(module)?;
    session_recovery::register(module)?;
    market::register(module)?;
    paper_broker::register(module)?;
    live::register(module)?;
    Ok(())
}
