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
use crate::kernel::Kernel;
use crate::reason::ReasonCode;

/// The kinds of computation.
#[derive(Debug, Clone)]
enum Source {
    Expression(Program),
    Kernel(Kernel),
    /// A strategy outside the engine; there is no value here.
    Outside,
}

/// One computation with its memory.
#[derive(Debug, Clone)]
pub(super) struct Signal {
    source: Source,
    /// [`Market::epoch`] at the last value.
    epoch: u64,
    /// Why a kernel gave no value at the last call.
    fault: Option<ReasonCode>,
}

impl Signal {
    /// A compiled expression.
    pub(super) fn of_expression(program: Program) -> Self {
        Self {
            source: Source::Expression(program),
            epoch: 0,
            fault: None,
        }
    }

    /// A compiled function from outside.
    pub(super) fn of_kernel(kernel: Kernel) -> Self {
        Self {
            source: Source::Kernel(kernel),
            epoch: 0,
            fault: None,
        }
    }

    /// Nothing: a strategy outside the engine sends intents.
    pub(super) fn of_outside() -> Self {
        Self {
            source: Source::Outside,
            epoch: 0,
            fault: None,
        }
    }

    /// True when the value comes from outside.
    pub(super) fn is_outside(&self) -> bool {
        matches!(self.source, Source::Outside)
    }

    /// Why there was no value, where a kernel said so.
    pub(super) fn fault(&self) -> Option<ReasonCode> {
        self.fault
    }

    /// The value after the market took a record at `now_ns`.
    pub(super) fn evaluate(&mut self, market: &Market, now_ns: i64) -> f64 {
        if self.epoch != market.epoch {
            self.epoch = market.epoch;
            self.reset();
        }
        match &mut self.source {
            Source::Expression(program) => program.evaluate(market.features.values(), now_ns),
            Source::Kernel(kernel) => {
                let value = kernel.evaluate(market.features.values(), now_ns);
                self.fault = value.err();
                value.unwrap_or(f64::NAN)
            }
            Source::Outside => f64::NAN,
        }
    }

    /// Forgets everything that was seen.
    fn reset(&mut self) {
        match &mut self.source {
            Source::Expression(program) => program.reset(),
            Source::Outside => {}
            Source::Kernel(kernel) => kernel.reset(),
        }
    }
}
