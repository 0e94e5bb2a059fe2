//! A fixed distance around a center that leans against the inventory.

use super::Quotes;

/// Quotes `half_spread` on both sides of a center that moves by `inventory_skew` per clip held.
#[must_use]
pub fn quotes(mid: f64, clips: f64, half_spread: f64, inventory_skew: f64) -> Quotes {
    Quotes::around(mid - inventory_skew * clips, half_spread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_center_leans_against_the_inventory() {
        let long = quotes(100.0, 2.0, 1.5, 0.5);
        assert_eq!((long.bid, long.ask, long.center()), (97.5, 100.5, 99.0));
        let flat = quotes(100.0, 0.0, 1.5, 0.5);
        assert_eq!((flat.bid, flat.ask), (98.5, 101.5));
    }
}
