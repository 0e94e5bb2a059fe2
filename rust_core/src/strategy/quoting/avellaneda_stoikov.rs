//! Avellaneda and Stoikov: quotes around the price at which a maker is indifferent to a trade.
//!
//! Avellaneda, Stoikov (2008), High-frequency trading in a limit order book, Quantitative Finance
//! 8(3): an exponential utility with risk aversion g, a mid that is a Brownian motion with
//! volatility s, and fills at rate A exp(-k d) at distance d from the mid. For the time left T:
//!
//!   reservation price  r = mid - q g s^2 T
//!   total spread       bid to ask = g s^2 T + (2 / g) ln(1 + g / k)
//!
//! `tests/avellaneda_stoikov.rs` repeats the paper's simulation with these two functions.

use super::Quotes;
use crate::math;

/// Price at which a maker with `inventory` is indifferent between one unit more and none.
#[must_use]
pub fn reservation_price(mid: f64, inventory: f64, gamma: f64, sigma: f64, time_left: f64) -> f64 {
    mid - inventory * gamma * sigma * sigma * time_left
}

/// Distance of the two quotes from each other.
#[must_use]
pub fn total_spread(gamma: f64, sigma: f64, k: f64, time_left: f64) -> f64 {
    gamma * sigma * sigma * time_left + 2.0 / gamma * math::log1p(gamma / k)
}

/// Both quotes, at equal distances from the reservation price.
#[must_use]
pub fn quotes(mid: f64, inventory: f64, gamma: f64, sigma: f64, k: f64, time_left: f64) -> Quotes {
    Quotes::around(
        reservation_price(mid, inventory, gamma, sigma, time_left),
        total_spread(gamma, sigma, k, time_left) / 2.0,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The paper's spreads: s = 2, k = 1.5, T = 1, averaged over the 200 steps of the simulation.
    #[test]
    fn the_mean_spread_of_the_paper_comes_out() {
        for (gamma, expected) in [(0.1, 1.492), (0.01, 1.349), (1.0, 3.032)] {
            let sum: f64 = (0..200)
                .map(|step| total_spread(gamma, 2.0, 1.5, 1.0 - 0.005 * f64::from(step)))
                .sum();
            let mean = sum / 200.0;
            assert!(
                (mean - expected).abs() < 5e-4,
                "g {gamma}: {mean} is not {expected}"
            );
        }
    }

    #[test]
    fn inventory_moves_both_quotes_and_time_closes_the_gap() {
        let flat = quotes(100.0, 0.0, 0.1, 2.0, 1.5, 1.0);
        let long = quotes(100.0, 5.0, 0.1, 2.0, 1.5, 1.0);
        assert!((long.center() - 98.0).abs() < 1e-12);
        assert!(((long.ask - long.bid) - (flat.ask - flat.bid)).abs() < 1e-12);
        let end = quotes(100.0, 5.0, 0.1, 2.0, 1.5, 0.0);
        assert!((end.center() - 100.0).abs() < 1e-12);
        assert!(end.ask - end.bid < flat.ask - flat.bid);
    }
}
