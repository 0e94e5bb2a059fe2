//! What computes an alpha's value from the features of its market.
//!
//! Why: the engine and the batch evaluation ask one object at the same records, so that live,
//! backtest and research see the same number.
//!
//! Invariants:
//! 1. It is asked once for every market record of its instrument that the market took.
//! 2. Its memory starts over when the market starts over, before the first value behind that.
//! 3. A value is finite or NaN.
//!
//! It decides nothing. Operator's page: `docs/alphas.md`.

use super::Market;
use crate::alpha::Program;

/// The kinds of computation.
#[derive(Debug, Clone)]
enum Source {
    Expression(Program),
}

/// One computation with its memory.
#[derive(Debug, Clone)]
pub(super) struct Signal {
    source: Source,
    /// [`Market::epoch`] at the last value.
    epoch: u64,
}

impl Signal {
    /// A compiled expression.
    pub(super) fn of_expression(program: Program) -> Self {
        Self {
            source: Source::Expression(program),
            epoch: 0,
        }
    }

    /// The value after the market took a record at `now_ns`.
    pub(super) fn evaluate(&mut self, market: &Market, now_ns: i64) -> f64 {
        if self.epoch != market.epoch {
            self.epoch = market.epoch;
            self.reset();
        }
        match &mut self.source {
            Source::Expression(program) => program.evaluate(market.features.values(), now_ns),
        }
    }

    /// Forgets everything that was seen.
    fn reset(&mut self) {
        match &mut self.source {
            Source::Expression(program) => program.reset(),
        }
    }
}
