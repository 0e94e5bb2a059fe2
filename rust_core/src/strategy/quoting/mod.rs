//! Quoting rules: where a maker wants its two quotes, before any rounding.
//!
//! Why: a rule is a formula of a paper; it is tested on the paper's numbers, not on a market.
//!
//! Invariants:
//! 1. Pure functions of their arguments; transcendental functions come from `crate::math`.
//! 2. Lengths are ticks, time is seconds, inventory is clips; a result that is no number quotes
//!    nothing.
//! 3. Mirrored inputs (mid, signal and inventory negated) give mirrored quotes.
//!
//! They know no book, no order and no limit. Operator's page: `docs/strategies.md`.

pub mod avellaneda_stoikov;
pub mod fixed;
pub mod glft;

/// The two prices that a rule wants, in ticks, not rounded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quotes {
    /// Wanted bid.
    pub bid: f64,
    /// Wanted ask.
    pub ask: f64,
}

impl Quotes {
    /// Quotes at the same distance on both sides of a center.
    #[must_use]
    pub fn around(center: f64, half_spread: f64) -> Self {
        Self {
            bid: center - half_spread,
            ask: center + half_spread,
        }
    }

    /// What the maker takes the instrument to be worth to itself, inventory included.
    #[must_use]
    pub fn center(&self) -> f64 {
        (self.bid + self.ask) / 2.0
    }

    /// True when both prices are numbers and in order.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.bid.is_finite() && self.ask.is_finite() && self.bid <= self.ask
    }
}
