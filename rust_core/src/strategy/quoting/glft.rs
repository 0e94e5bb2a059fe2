//! Guéant, Lehalle and Fernandez-Tapia: quotes of a maker who has all the time in the world.
//!
//! Guéant, Lehalle, Fernandez-Tapia (2013), Dealing with the inventory risk, Mathematics and
//! Financial Economics 7(4), section 4: the limit of the optimal quotes far from the end, in closed
//! form. With risk aversion g, fills at rate A exp(-k d), volatility s and inventory q:
//!
//!   bid distance = ln(1 + g / k) / g + (2 q + 1) / 2 * w
//!   ask distance = ln(1 + g / k) / g - (2 q - 1) / 2 * w
//!   w            = sqrt(s^2 g / (2 k A) * (1 + g / k)^(1 + k / g))
//!
//! The exact quotes come from the eigenvector of a matrix; `tests/rust_core/test_quoting.py` says
//! how far the closed form is from them.

use super::Quotes;
use crate::math;

/// What the formula needs besides the inventory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Market {
    /// Risk aversion.
    pub gamma: f64,
    /// Decay of the rate of fills with distance.
    pub k: f64,
    /// Rate of fills at the mid.
    pub fills_per_s: f64,
    /// Volatility.
    pub sigma: f64,
}

impl Market {
    /// Distance of both quotes from the mid that pays for the chance of a fill.
    fn base(&self) -> f64 {
        math::log1p(self.gamma / self.k) / self.gamma
    }

    /// How far one unit of inventory moves both quotes.
    #[must_use]
    pub fn skew(&self) -> f64 {
        let ratio = self.gamma / self.k;
        // (1 + ratio) ^ (1 + 1 / ratio), exact also where the ratio is tiny.
        let power = math::exp((1.0 + 1.0 / ratio) * math::log1p(ratio));
        (self.sigma * self.sigma * self.gamma / (2.0 * self.k * self.fills_per_s) * power).sqrt()
    }

    /// Distance of the bid below the mid at `inventory`.
    #[must_use]
    pub fn bid_distance(&self, inventory: f64) -> f64 {
        self.base() + (2.0 * inventory + 1.0) / 2.0 * self.skew()
    }

    /// Distance of the ask above the mid at `inventory`.
    #[must_use]
    pub fn ask_distance(&self, inventory: f64) -> f64 {
        self.bid_distance(-inventory)
    }

    /// Both quotes.
    #[must_use]
    pub fn quotes(&self, mid: f64, inventory: f64) -> Quotes {
        let (base, skew) = (self.base(), self.skew());
        Quotes {
            bid: mid - (base + (2.0 * inventory + 1.0) / 2.0 * skew),
            ask: mid + (base - (2.0 * inventory - 1.0) / 2.0 * skew),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Market = Market {
        gamma: 0.01,
        k: 0.3,
        fills_per_s: 0.9,
        sigma: 0.3,
    };

    /// Bid distances by hand calculation: the paper's parameters, and rare fills in a fast market.
    #[test]
    fn worked_values_come_out_to_the_digits_given() {
        let fast = Market {
            sigma: 1.0,
            fills_per_s: 0.2,
            ..QUIET
        };
        for (market, inventory, expected) in [
            (QUIET, 0.0, 3.3129),
            (QUIET, 5.0, 3.6522),
            (QUIET, 10.0, 3.9916),
            (fast, 0.0, 3.5189),
            (fast, 10.0, 8.3178),
        ] {
            let distance = market.bid_distance(inventory);
            assert!((distance - expected).abs() < 5e-5, "{distance}");
        }
    }

    #[test]
    fn quotes_and_distances_say_the_same() {
        for inventory in [-3.0, 0.0, 7.5] {
            let quotes = QUIET.quotes(100.0, inventory);
            assert!((100.0 - quotes.bid - QUIET.bid_distance(inventory)).abs() < 1e-12);
            assert!((quotes.ask - 100.0 - QUIET.ask_distance(inventory)).abs() < 1e-12);
            assert!((quotes.center() - (100.0 - inventory * QUIET.skew())).abs() < 1e-12);
        }
    }
}
