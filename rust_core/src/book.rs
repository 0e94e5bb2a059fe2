//! Five-level book of one instrument, and whether an order may be based on it.
//!
//! Why: a price from a crossed, empty, stale or simulated book is not a price.
//!
//! Invariants:
//! 1. Integers only; every stored level is positive, in range and in price order.
//! 2. A malformed snapshot is not stored and makes the book invalid until the next good one.
//! 3. `fault` names the first problem in the order of [`FAULTS`]; `None` means tradable now.
//!
//! It checks no tick grid (ingestion does). Operator's page: `docs/reason-codes.md`, 1xx.

use crate::reason::ReasonCode;
use crate::record::{BookRecord, LEVEL_COUNT, RecordHeader, flags};

/// Prices and quantities fit `Decimal(18, 8)`.
pub const VALUE_MAX: i64 = 999_999_999_999_999_999;

/// Bits of [`Book::validity`].
pub mod validity {
    /// No snapshot was seen since the start or the last reset.
    pub const MISSING: u32 = 1;
    /// The last snapshot was malformed; see [`super::Book::malformed`].
    pub const MALFORMED: u32 = 1 << 1;
    /// The last snapshot came from a trial match.
    pub const SIMULATED: u32 = 1 << 2;
    /// A side has no level.
    pub const EMPTY: u32 = 1 << 3;
    /// Best bid at or above best ask.
    pub const CROSSED: u32 = 1 << 4;
    /// The last snapshot is older than allowed.
    pub const STALE: u32 = 1 << 5;
}

/// Bits with their codes, first one first; a malformed snapshot reports its own code.
pub const FAULTS: [(u32, ReasonCode); 6] = [
    (validity::MALFORMED, ReasonCode::LevelsUnordered),
    (validity::MISSING, ReasonCode::ReferenceMissing),
    (validity::SIMULATED, ReasonCode::SimulatedMatch),
    (validity::EMPTY, ReasonCode::BookSideEmpty),
    (validity::CROSSED, ReasonCode::BookCrossed),
    (validity::STALE, ReasonCode::BookStale),
];

/// One side, best level first; levels from `count` on are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Side {
    /// Prices.
    pub price: [i64; LEVEL_COUNT],
    /// Quantities.
    pub qty: [i64; LEVEL_COUNT],
    /// Levels in use.
    pub count: usize,
}

impl Side {
    #[inline(always)]
    fn set(&mut self, price: &[i64; LEVEL_COUNT], qty: &[i64; LEVEL_COUNT], count: usize) {
        self.price = *price;
        self.qty = *qty;
        self.count = count;
    }

    /// Quantity of all levels.
    #[must_use]
    pub fn depth(&self) -> i64 {
        self.qty.iter().sum()
    }

    /// Price of the last level shown, 0 when the side is empty.
    #[must_use]
    pub fn worst_price(&self) -> i64 {
        if self.count == 0 {
            0
        } else {
            self.price[self.count - 1]
        }
    }
}

/// The book of one instrument.
#[derive(Debug, Clone)]
pub struct Book {
    bid: Side,
    ask: Side,
    bits: u32,
    /// Middle of the best prices of the last snapshot that was stored.
    mid: i64,
    malformed: Option<ReasonCode>,
    updated_ns: i64,
    last_trade_price: Option<i64>,
}

impl Default for Book {
    fn default() -> Self {
        Self {
            bid: Side::default(),
            ask: Side::default(),
            bits: validity::MISSING,
            mid: 0,
            malformed: None,
            updated_ns: i64::MIN,
            last_trade_price: None,
        }
    }
}

/// Reads one side of a snapshot; `direction` is +1 when prices must rise, -1 when they must fall.
///
/// # Errors
/// The code of the first level that no book can hold.
pub fn read_side(
    price: &[i64; LEVEL_COUNT],
    qty: &[i64; LEVEL_COUNT],
    direction: i64,
) -> Result<Side, ReasonCode> {
    let mut count = 0;
    for level in 0..LEVEL_COUNT {
        let (level_price, level_qty) = (price[level], qty[level]);
        if level_price == 0 && level_qty == 0 {
            continue;
        }
        if level_price <= 0 {
            return Err(ReasonCode::PriceNotPositive);
        }
        if level_qty <= 0 {
            return Err(ReasonCode::QtyNotPositive);
        }
        if level_price > VALUE_MAX || level_qty > VALUE_MAX {
            return Err(ReasonCode::ValueOutOfRange);
        }
        // A hole before this level, or a price that does not move away from the best.
        if level != count || (level > 0 && (level_price - price[level - 1]) * direction <= 0) {
            return Err(ReasonCode::LevelsUnordered);
        }
        count = level + 1;
    }
    Ok(Side {
        price: *price,
        qty: *qty,
        count,
    })
}

/// True when a side has all its levels, and each is one that [`read_side`] takes.
///
/// Without branches, as nearly every side is: a value out of range, or a price that does not move
/// away from the one before, sets the sign bit.
#[inline(always)]
fn is_full(price: &[i64; LEVEL_COUNT], qty: &[i64; LEVEL_COUNT], direction: i64) -> bool {
    let mut signs = 0_i64;
    for level in 0..LEVEL_COUNT {
        for value in [price[level], qty[level]] {
            signs |= value.wrapping_sub(1) | VALUE_MAX.wrapping_sub(value);
        }
        if level > 0 {
            // Cannot wrap unless one of the two is out of range.
            let away = price[level].wrapping_sub(price[level - 1]);
            signs |= away.wrapping_mul(direction).wrapping_sub(1);
        }
    }
    signs >= 0
}

impl Book {
    /// Takes a snapshot at engine time `now_ns`.
    ///
    /// # Errors
    /// The code of what is wrong with a malformed snapshot; it was not stored.
    pub fn on_book(&mut self, record: &BookRecord, now_ns: i64) -> Result<(), ReasonCode> {
        let (mut bid_count, mut ask_count) = (LEVEL_COUNT, LEVEL_COUNT);
        let is_full_book = is_full(&record.bid_price, &record.bid_qty, -1)
            & is_full(&record.ask_price, &record.ask_qty, 1);
        if !is_full_book {
            (bid_count, ask_count) = self.count_levels(record)?;
        }
        let is_empty = bid_count == 0 || ask_count == 0;
        let mut bits = 0;
        if is_empty {
            bits |= validity::EMPTY;
        } else if record.bid_price[0] >= record.ask_price[0] {
            bits |= validity::CROSSED;
        }
        if record.header.flags & flags::SIMULATED_MATCH != 0 {
            bits |= validity::SIMULATED;
        }
        self.bid.set(&record.bid_price, &record.bid_qty, bid_count);
        self.ask.set(&record.ask_price, &record.ask_qty, ask_count);
        self.bits = bits;
        // Both are at most VALUE_MAX, so the sum fits.
        self.mid = (record.bid_price[0] + record.ask_price[0]) / 2;
        self.malformed = None;
        self.updated_ns = now_ns;
        Ok(())
    }

    /// Levels on either side of a snapshot that is not full; notes what is wrong with a malformed one.
    #[inline(never)]
    fn count_levels(&mut self, record: &BookRecord) -> Result<(usize, usize), ReasonCode> {
        let counts = read_side(&record.bid_price, &record.bid_qty, -1).and_then(|bid| {
            let ask = read_side(&record.ask_price, &record.ask_qty, 1)?;
            Ok((bid.count, ask.count))
        });
        if let Err(code) = counts {
            self.bits |= validity::MALFORMED;
            self.malformed = Some(code);
        }
        counts
    }

    /// Takes a market print's price; levels wait for the next snapshot.
    pub fn on_trade(&mut self, price: i64) {
        self.last_trade_price = Some(price);
    }

    /// Forgets everything, at a session start or behind a gap.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Bits of [`validity`] at `now_ns`, with a book older than `age_ns_max` being stale.
    #[must_use]
    pub fn validity(&self, now_ns: i64, age_ns_max: i64) -> u32 {
        let is_stale =
            self.updated_ns == i64::MIN || now_ns.saturating_sub(self.updated_ns) > age_ns_max;
        self.bits | if is_stale { validity::STALE } else { 0 }
    }

    /// Why no order may be based on this book at `now_ns`, or `None`.
    #[must_use]
    pub fn fault(&self, now_ns: i64, age_ns_max: i64) -> Option<ReasonCode> {
        let bits = self.validity(now_ns, age_ns_max);
        if bits == 0 {
            return None;
        }
        let (bit, code) = FAULTS.into_iter().find(|(bit, _)| bits & bit != 0)?;
        Some(if bit == validity::MALFORMED {
            self.malformed.unwrap_or(code)
        } else {
            code
        })
    }

    /// True when the last snapshot was good, however old.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.bits == 0
    }

    /// Buying side.
    #[must_use]
    pub fn bid(&self) -> &Side {
        &self.bid
    }

    /// Selling side.
    #[must_use]
    pub fn ask(&self) -> &Side {
        &self.ask
    }

    /// Best bid price, 0 when there is none.
    #[must_use]
    pub fn best_bid(&self) -> i64 {
        self.bid.price[0]
    }

    /// Best ask price, 0 when there is none.
    #[must_use]
    pub fn best_ask(&self) -> i64 {
        self.ask.price[0]
    }

    /// Middle of the best prices, rounded down; `None` unless the last snapshot was good.
    #[must_use]
    pub fn mid(&self) -> Option<i64> {
        self.is_valid().then_some(self.mid)
    }

    /// Age of the last snapshot, `None` before the first.
    #[must_use]
    pub fn age_ns(&self, now_ns: i64) -> Option<i64> {
        (self.updated_ns != i64::MIN).then(|| now_ns.saturating_sub(self.updated_ns))
    }

    /// Price of the last market print.
    #[must_use]
    pub fn last_trade_price(&self) -> Option<i64> {
        self.last_trade_price
    }
}

/// True when time windows must start over before this record.
#[must_use]
pub fn starts_over(header: &RecordHeader) -> bool {
    header.flags & (flags::SESSION_START | flags::GAP_BEFORE) != 0
}

const _: () = assert!(VALUE_MAX <= i64::MAX / (LEVEL_COUNT as i64 + 1));

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Record, SCALE};

    fn snapshot() -> BookRecord {
        let mut record = BookRecord::empty();
        for (level, offset) in (0..5_i64).enumerate() {
            record.bid_price[level] = (100 - offset) * SCALE;
            record.ask_price[level] = (101 + offset) * SCALE;
            record.bid_qty[level] = SCALE;
            record.ask_qty[level] = SCALE;
        }
        record
    }

    proptest::proptest! {
        /// The reading without branches and the one that names the fault.
        #[test]
        fn both_readings_of_a_full_side_agree(
            first in 1_i64..9,
            steps in proptest::array::uniform4(-3_i64..2),
            qty in proptest::array::uniform5(0_i64..9),
            huge in 0_usize..40,
            falls in proptest::bool::ANY,
        ) {
            let direction = if falls { -1 } else { 1 };
            let mut price = [first + 20; LEVEL_COUNT];
            for level in 1..LEVEL_COUNT {
                // Mostly away from the best: one step in five is none or back.
                let step = if steps[level - 1] < 0 { 1 } else { -steps[level - 1] };
                price[level] = price[level - 1] + direction * step;
            }
            if let Some(value) = price.get_mut(huge) {
                *value += VALUE_MAX - 20;
            }
            let is_read_full = read_side(&price, &qty, direction).is_ok_and(|side| side.count == LEVEL_COUNT);
            proptest::prop_assert_eq!(is_full(&price, &qty, direction), is_read_full);
        }
    }

    type Damage = fn(&mut BookRecord);

    #[test]
    fn every_fault_has_its_code_and_a_good_book_has_none() {
        let cases: [(Damage, Option<ReasonCode>); 10] = [
            (|_| (), None),
            (
                |r| r.bid_price[0] = 101 * SCALE,
                Some(ReasonCode::BookCrossed),
            ),
            (
                |r| (r.ask_price, r.ask_qty) = ([0; 5], [0; 5]),
                Some(ReasonCode::BookSideEmpty),
            ),
            (
                |r| r.header.flags = flags::SIMULATED_MATCH,
                Some(ReasonCode::SimulatedMatch),
            ),
            (|r| r.bid_price[4] = -1, Some(ReasonCode::PriceNotPositive)),
            (|r| r.bid_price[2] = 0, Some(ReasonCode::PriceNotPositive)),
            (|r| r.ask_qty[3] = 0, Some(ReasonCode::QtyNotPositive)),
            (
                |r| r.ask_price[1] = r.ask_price[0],
                Some(ReasonCode::LevelsUnordered),
            ),
            (
                |r| (r.bid_price[1], r.bid_qty[1]) = (0, 0),
                Some(ReasonCode::LevelsUnordered),
            ),
            (
                |r| r.ask_qty[0] = VALUE_MAX + 1,
                Some(ReasonCode::ValueOutOfRange),
            ),
        ];
        for (index, (damage, expected)) in cases.into_iter().enumerate() {
            let mut record = snapshot();
            damage(&mut record);
            let mut book = Book::default();
            let stored = book.on_book(&record, 10);
            assert_eq!(book.fault(10, 5), expected, "case {index}");
            assert!(
                stored.err().is_none() || stored.err() == expected,
                "case {index}"
            );
        }
    }

    #[test]
    fn a_book_is_missing_then_good_then_stale() {
        let mut book = Book::default();
        assert_eq!(book.fault(0, 5), Some(ReasonCode::ReferenceMissing));
        assert_eq!(book.mid(), None);
        assert_eq!(book.on_book(&snapshot(), 10), Ok(()));
        assert_eq!(book.fault(15, 5), None);
        assert_eq!(book.fault(16, 5), Some(ReasonCode::BookStale));
        assert_eq!(book.mid(), Some(100 * SCALE + SCALE / 2));
    }

    #[test]
    fn a_malformed_snapshot_keeps_no_level_and_blocks_until_the_next_good_one() {
        let mut book = Book::default();
        assert_eq!(book.on_book(&snapshot(), 10), Ok(()));
        let mut bad = snapshot();
        bad.bid_price[1] = 500 * SCALE;
        assert_eq!(book.on_book(&bad, 11), Err(ReasonCode::LevelsUnordered));
        assert_eq!(book.bid().price, snapshot().bid_price);
        assert_eq!(book.fault(11, 5), Some(ReasonCode::LevelsUnordered));
        assert_eq!(book.on_book(&snapshot(), 12), Ok(()));
        assert_eq!(book.fault(12, 5), None);
    }
}
