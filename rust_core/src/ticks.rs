//! Tick ladder: the smallest step of price, which on some markets grows with the price.
//!
//! Why: a stock at 99.95 moves by 0.05 and at 100 by 0.5. A price off its step is refused by the
//! exchange, so every place that makes or checks a price asks here.
//!
//! Invariants:
//! 1. Bands rise in price and in step; each step divides the next band's start, so a price is on the
//!    ladder exactly when it is a multiple of the step of its own band.
//! 2. `floor` and `ceil` give prices on the ladder, and a price that is on it unchanged.
//! 3. Nothing allocates and nothing wraps: a result that does not exist is `None`.
//!
//! It knows no market's ladder; those are in the instruments' YAML. Operator's page:
//! `docs/instruments.md`.

use serde::{Deserialize, Serialize};

/// Most bands of a ladder; stocks of Taiwan have six.
pub const BAND_COUNT_MAX: usize = 8;
/// The whole, in basis points.
const BPS: i64 = 10_000;

/// From this price on (inclusive) the step is `tick`; both scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TickBand {
    /// First price of the band.
    pub from: i64,
    /// Step within it.
    pub tick: i64,
}

/// Why bands are no ladder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} was {value}, allowed is {allowed}")]
pub struct TickLadderError {
    /// Which field.
    pub field: String,
    /// Its value.
    pub value: i64,
    /// What is allowed.
    pub allowed: &'static str,
}

/// The ladder of one instrument; in JSON the list of its bands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<TickBand>", into = "Vec<TickBand>")]
pub struct TickLadder {
    bands: [TickBand; BAND_COUNT_MAX],
    count: usize,
}

impl TryFrom<Vec<TickBand>> for TickLadder {
    type Error = TickLadderError;

    fn try_from(bands: Vec<TickBand>) -> Result<Self, TickLadderError> {
        Self::new(&bands)
    }
}

impl From<TickLadder> for Vec<TickBand> {
    fn from(ladder: TickLadder) -> Self {
        ladder.bands().to_vec()
    }
}

impl TickLadder {
    /// One step at every price.
    ///
    /// # Panics
    /// When the step is not above 0.
    #[must_use]
    pub fn flat(tick: i64) -> Self {
        assert!(tick > 0, "Invariant: a tick is above 0");
        Self {
            bands: [TickBand { from: 0, tick }; BAND_COUNT_MAX],
            count: 1,
        }
    }

    /// Its bands, lowest first.
    #[must_use]
    pub fn bands(&self) -> &[TickBand] {
        &self.bands[..self.count]
    }

    /// A ladder of bands, lowest first; the first starts at 0.
    ///
    /// # Errors
    /// [`TickLadderError`] for no band or too many, a first band not from 0, bands that do not rise,
    /// steps not above 0 or that fall, or a band that does not start on its own and the lower step.
    pub fn new(bands: &[TickBand]) -> Result<Self, TickLadderError> {
        let refuse = |field: String, value: i64, allowed| {
            Err(TickLadderError {
                field,
                value,
                allowed,
            })
        };
        if bands.is_empty() || bands.len() > BAND_COUNT_MAX {
            let count = i64::try_from(bands.len()).unwrap_or(i64::MAX);
            return refuse("tick_bands".to_owned(), count, "1 to 8 bands");
        }
        let mut below: Option<TickBand> = None;
        for (place, band) in bands.iter().enumerate() {
            let (from, tick) = (
                format!("tick_bands[{place}].from"),
                format!("tick_bands[{place}].tick"),
            );
            if band.tick <= 0 {
                return refuse(tick, band.tick, "above 0");
            }
            match below {
                None if band.from != 0 => return refuse(from, band.from, "0 in the first band"),
                None => {}
                Some(below) if band.from <= below.from => {
                    return refuse(from, band.from, "above the band before");
                }
                Some(below) if band.tick <= below.tick => {
                    return refuse(tick, band.tick, "above the tick of the band before");
                }
                Some(below) if band.from % below.tick != 0 || band.from % band.tick != 0 => {
                    return refuse(
                        from,
                        band.from,
                        "a multiple of its tick and of the one before",
                    );
                }
                Some(_) => {}
            }
            below = Some(*band);
        }
        let mut ladder = Self::flat(1);
        ladder.count = bands.len();
        for (slot, band) in ladder.bands.iter_mut().zip(bands) {
            *slot = *band;
        }
        Ok(ladder)
    }

    /// The smallest step of all bands.
    #[must_use]
    pub fn finest(&self) -> i64 {
        self.bands[0].tick
    }

    /// Whether one step holds at every price.
    #[inline]
    #[must_use]
    pub fn is_flat(&self) -> bool {
        self.count == 1
    }

    /// Step of the band that holds `price`; below 0 that of the first.
    #[inline]
    #[must_use]
    pub fn tick_at(&self, price: i64) -> i64 {
        let mut tick = self.bands[0].tick;
        for band in &self.bands[1..self.count] {
            if price < band.from {
                break;
            }
            tick = band.tick;
        }
        tick
    }

    /// Whether an order may have this price.
    #[inline]
    #[must_use]
    pub fn is_on_grid(&self, price: i64) -> bool {
        price > 0 && price % self.tick_at(price) == 0
    }

    /// The highest price on the ladder at or below `price`; `None` when there is none above 0.
    #[inline]
    #[must_use]
    pub fn floor(&self, price: i64) -> Option<i64> {
        let tick = self.tick_at(price);
        (price >= tick).then(|| price - price % tick)
    }

    /// The lowest price on the ladder at or above `price`, and above 0.
    #[inline]
    #[must_use]
    pub fn ceil(&self, price: i64) -> Option<i64> {
        let tick = self.tick_at(price);
        if price <= tick {
            return Some(tick);
        }
        match price % tick {
            0 => Some(price),
            rest => price.checked_add(tick - rest),
        }
    }

    /// One step away from `price` toward higher (+1) or lower (-1) prices; off the ladder, the first
    /// price of the ladder in that direction. `None` below the lowest.
    #[inline]
    #[must_use]
    pub fn step(&self, price: i64, direction: i64) -> Option<i64> {
        if direction > 0 {
            self.ceil(price.checked_add(1)?)
        } else {
            self.floor(price.checked_sub(1)?)
        }
    }

    /// Limit-down and limit-up: `bps` around a reference price, rounded inward to the ladder. `None`
    /// when that leaves no price, or the arguments are out of range.
    #[must_use]
    pub fn daily_limits(&self, reference: i64, bps: i64) -> Option<(i64, i64)> {
        if reference <= 0 || !(1..BPS).contains(&bps) {
            return None;
        }
        let exact = i128::from(reference) * i128::from(BPS - bps);
        let whole = i128::from(BPS);
        let down = i64::try_from((exact + whole - 1) / whole).ok()?;
        let up = i64::try_from(i128::from(reference) * i128::from(BPS + bps) / whole).ok()?;
        let (down, up) = (self.ceil(down)?, self.floor(up)?);
        (down < up).then_some((down, up))
    }

    /// The price nearest to `price` that is not more aggressive: at or below it for a buy, at or
    /// above it for a sell.
    #[inline]
    #[must_use]
    pub fn passive(&self, price: i64, side: i64) -> Option<i64> {
        if side > 0 {
            self.floor(price)
        } else {
            self.ceil(price)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::SCALE;

    /// Stocks on the Taiwan exchange, steps in hundredths of a dollar.
    fn stocks() -> TickLadder {
        let bands = [
            (0, 1),
            (10, 5),
            (50, 10),
            (100, 50),
            (500, 100),
            (1_000, 500),
        ]
        .map(|(from, cents)| TickBand {
            from: from * SCALE,
            tick: cents * SCALE / 100,
        });
        TickLadder::new(&bands).unwrap_or_else(|error| unreachable!("{error}"))
    }

    fn cents(value: i64) -> i64 {
        value * SCALE / 100
    }

    #[test]
    fn a_price_belongs_to_the_band_that_starts_at_or_below_it() {
        for (price, tick) in [
            (1, 1),
            (999, 1),
            (1_000, 5),
            (4_995, 5),
            (5_000, 10),
            (9_990, 10),
            (10_000, 50),
            (49_950, 50),
            (50_000, 100),
            (99_900, 100),
            (100_000, 500),
            (222_000, 500),
        ] {
            assert_eq!(stocks().tick_at(cents(price)), cents(tick), "{price}");
            assert!(stocks().is_on_grid(cents(price)), "{price}");
        }
        for off in [0, -100, 1_001, 5_005, 9_995, 10_010, 50_050, 100_100] {
            assert!(!stocks().is_on_grid(cents(off)), "{off}");
        }
    }

    #[test]
    fn a_step_over_a_boundary_takes_the_tick_of_the_other_side() {
        let steps = |price, direction| {
            stocks()
                .step(cents(price), direction)
                .map(|p| p * 100 / SCALE)
        };
        assert_eq!(steps(9_990, 1), Some(10_000));
        assert_eq!(steps(10_000, 1), Some(10_050));
        assert_eq!(steps(10_000, -1), Some(9_990));
        assert_eq!(steps(100_000, -1), Some(99_900));
        assert_eq!(steps(1, -1), None);
        assert_eq!(stocks().step(i64::MAX, 1), None);
    }

    /// Limits that the exchange published for a contract or a stock, from its reference price.
    #[test]
    fn daily_limits_are_those_of_published_contracts() {
        let index = TickLadder::flat(SCALE);
        for (ladder, reference, up, down) in [
            (index, 41_636, 45_799, 37_473),
            (index, 40_124, 44_136, 36_112),
            (index, 14_765, 16_241, 13_289),
            (stocks(), 2_220, 2_440, 2_000),
        ] {
            assert_eq!(
                ladder.daily_limits(reference * SCALE, 1_000),
                Some((down * SCALE, up * SCALE)),
                "{reference}"
            );
        }
        assert_eq!(stocks().daily_limits(1, 1_000), None);
        assert_eq!(stocks().daily_limits(100 * SCALE, 10_000), None);
    }

    #[test]
    fn bands_that_are_no_ladder_are_refused_by_name() {
        let field = |bands: &[(i64, i64)]| {
            let bands: Vec<_> = bands
                .iter()
                .map(|&(from, tick)| TickBand { from, tick })
                .collect();
            TickLadder::new(&bands).err().map(|error| error.field)
        };
        assert_eq!(field(&[]).as_deref(), Some("tick_bands"));
        assert_eq!(field(&[(1, 1)]).as_deref(), Some("tick_bands[0].from"));
        assert_eq!(field(&[(0, 0)]).as_deref(), Some("tick_bands[0].tick"));
        assert_eq!(
            field(&[(0, 1), (0, 2)]).as_deref(),
            Some("tick_bands[1].from")
        );
        assert_eq!(
            field(&[(0, 2), (4, 2)]).as_deref(),
            Some("tick_bands[1].tick")
        );
        assert_eq!(
            field(&[(0, 2), (5, 5)]).as_deref(),
            Some("tick_bands[1].from")
        );
        assert_eq!(
            field(&[(0, 2), (4, 3)]).as_deref(),
            Some("tick_bands[1].from")
        );
        assert_eq!(
            field(&[(0, 1); BAND_COUNT_MAX + 1]).as_deref(),
            Some("tick_bands")
        );
    }

    proptest::proptest! {
        /// Rounding lands on the ladder, on the right side, with no price of the ladder between.
        #[test]
        fn rounding_is_the_nearest_price_on_its_side(price in 1_i64..3_000 * SCALE) {
            let ladder = stocks();
            if let Some(down) = ladder.floor(price) {
                proptest::prop_assert!(ladder.is_on_grid(down) && down <= price);
                proptest::prop_assert!(ladder.step(down, 1).is_some_and(|next| next > price));
            }
            let up = ladder.ceil(price);
            proptest::prop_assert!(up.is_some_and(|up| ladder.is_on_grid(up) && up >= price));
            let on_grid = ladder.is_on_grid(price);
            proptest::prop_assert_eq!(on_grid, ladder.floor(price) == Some(price));
            proptest::prop_assert_eq!(on_grid, up == Some(price));
        }

        /// Up and down again is the same place.
        #[test]
        fn a_step_up_and_one_down_return(price in 1_i64..3_000 * SCALE) {
            let ladder = stocks();
            if let Some(on_grid) = ladder.floor(price) {
                let back = ladder.step(on_grid, 1).and_then(|up| ladder.step(up, -1));
                proptest::prop_assert_eq!(back, Some(on_grid));
            }
        }
    }
}
