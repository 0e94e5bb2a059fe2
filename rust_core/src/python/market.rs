//! Market rules: the tick ladder and what a trade costs.
use pyo3::prelude::*;

use super::engine::ConfigError;
use crate::costs::CostModel;
use crate::reason::ReasonCode;
use crate::ticks::{TickBand, TickLadder};

/// The steps of price of an instrument.
#[pyclass(name = "TickLadder", module = "hft_platform._core", frozen, eq)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PyTickLadder(TickLadder);

#[pymethods]
impl PyTickLadder {
    #[new]
    fn new(bands: Vec<(i64, i64)>) -> PyResult<Self> {
        let bands: Vec<_> = bands
            .into_iter()
            .map(|(from, tick)| TickBand { from, tick })
            .collect();
        TickLadder::new(&bands)
            .map(Self)
            .map_err(|error| malformed(error.to_string()))
    }

    #[getter]
    fn bands(&self) -> Vec<(i64, i64)> {
        let bands = self.0.bands();
        bands.iter().map(|band| (band.from, band.tick)).collect()
    }

    #[getter]
    fn finest(&self) -> i64 {
        self.0.finest()
    }

    fn tick_at(&self, price: i64) -> i64 {
        self.0.tick_at(price)
    }

    fn is_on_grid(&self, price: i64) -> bool {
        self.0.is_on_grid(price)
    }

    fn floor(&self, price: i64) -> Option<i64> {
        self.0.floor(price)
    }

    fn ceil(&self, price: i64) -> Option<i64> {
        self.0.ceil(price)
    }

    fn step(&self, price: i64, direction: i64) -> Option<i64> {
        self.0.step(price, direction)
    }

    fn daily_limits(&self, reference: i64, bps: i64) -> Option<(i64, i64)> {
        self.0.daily_limits(reference, bps)
    }
}

/// Scaled money that one trade costs.
#[pyfunction]
#[pyo3(signature = (costs_json, price, qty, multiplier, side, is_maker=false))]
fn trade_cost(
    costs_json: &str,
    price: i64,
    qty: i64,
    multiplier: i64,
    side: i64,
    is_maker: bool,
) -> PyResult<i64> {
    let costs: CostModel =
        serde_json::from_str(costs_json).map_err(|error| malformed(format!("costs: {error}")))?;
    costs
        .validate()
        .map_err(|error| malformed(error.to_string()))?;
    costs.trade_cost(price, qty, multiplier, side, is_maker).ok_or_else(|| {
        let message = format!(
            "cost of price {price}, qty {qty}, multiplier {multiplier}, side {side} does not exist: all must be \
             above 0, side +1 or -1, and the result fit 64 bits"
        );
        ConfigError::new_err((ReasonCode::ArithmeticOverflow.code(), message))
    })
}

fn malformed(message: String) -> PyErr {
    ConfigError::new_err((ReasonCode::ConfigMalformed.code(), message))
}

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyTickLadder>()?;
    module.add_function(wrap_pyfunction!(trade_cost, module)?)
}
