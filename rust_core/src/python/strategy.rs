//! Bindings of `strategy::quoting`: the formulas that the makers quote by, for research.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::strategy::quoting::{avellaneda_stoikov, glft};

/// Refuses what the formulas are not defined for.
fn require_positive(rows: &[(&str, f64)]) -> PyResult<()> {
    for (name, value) in rows {
        if !(value.is_finite() && *value > 0.0) {
            return Err(PyValueError::new_err(format!(
                "{name} was {value}; it is finite and above 0"
            )));
        }
    }
    Ok(())
}

/// Bid and ask that an Avellaneda-Stoikov maker wants, before rounding.
#[pyfunction]
#[pyo3(signature = (mid, inventory, *, gamma, sigma, k, time_left))]
fn avellaneda_stoikov_quotes(
    mid: f64,
    inventory: f64,
    gamma: f64,
    sigma: f64,
    k: f64,
    time_left: f64,
) -> PyResult<(f64, f64)> {
    require_positive(&[("gamma", gamma), ("sigma", sigma), ("k", k)])?;
    let quotes = avellaneda_stoikov::quotes(mid, inventory, gamma, sigma, k, time_left);
    Ok((quotes.bid, quotes.ask))
}

/// Distances of bid and ask from the mid that a GLFT maker wants, before rounding.
#[pyfunction]
#[pyo3(signature = (inventory, *, gamma, sigma, k, fills_per_s))]
fn glft_distances(
    inventory: f64,
    gamma: f64,
    sigma: f64,
    k: f64,
    fills_per_s: f64,
) -> PyResult<(f64, f64)> {
    require_positive(&[
        ("gamma", gamma),
        ("sigma", sigma),
        ("k", k),
        ("fills_per_s", fills_per_s),
    ])?;
    let market = glft::Market {
        gamma,
        k,
        fills_per_s,
        sigma,
    };
    Ok((
        market.bid_distance(inventory),
        market.ask_distance(inventory),
    ))
}

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(avellaneda_stoikov_quotes, module)?)?;
    module.add_function(wrap_pyfunction!(glft_distances, module)?)?;
    Ok(())
}
