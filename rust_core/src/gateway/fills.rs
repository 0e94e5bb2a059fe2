//! Which fills were counted: exact for the newest, and honest about the rest.
//!
//! Why: a fill counts once. A table that overwrites what collides forgets a fill while its double
//! is still on the way, and the double becomes a position.
//!
//! Invariants:
//! 1. Of the numbers seen, the [`FILL_COUNT_MAX`] highest are remembered exactly, whatever holes
//!    are between them and in whatever order they came.
//! 2. A number at or below the highest forgotten one is neither new nor a double: it is `TooOld`,
//!    is not counted, and somebody has to look.
//!
//! It counts nothing itself. Operator's page: `docs/storm-guard.md`.

/// Fills remembered exactly.
pub const FILL_COUNT_MAX: usize = 4_096;

const _: () = assert!(FILL_COUNT_MAX.is_power_of_two());

/// What is known of a fill's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Never seen.
    New,
    /// Counted before.
    Seen,
    /// Too far back to tell.
    TooOld,
}

/// Numbers of the newest fills, in order, in a ring.
#[derive(Debug, Clone)]
pub struct FillNumbers {
    ring: Box<[u64]>,
    first: usize,
    count: usize,
    /// Highest number that was forgotten.
    floor: Option<u64>,
}

impl Default for FillNumbers {
    fn default() -> Self {
        Self {
            ring: vec![0; FILL_COUNT_MAX].into_boxed_slice(),
            first: 0,
            count: 0,
            floor: None,
        }
    }
}

impl FillNumbers {
    fn place(&self, rank: usize) -> usize {
        (self.first + rank) & (FILL_COUNT_MAX - 1)
    }

    fn at(&self, rank: usize) -> u64 {
        self.ring[self.place(rank)]
    }

    /// How many remembered numbers are below `number`.
    fn rank(&self, number: u64) -> usize {
        // The usual fill is the newest.
        if self.count == 0 || self.at(self.count - 1) < number {
            return self.count;
        }
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.at(middle) < number {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// What is known of `number`.
    #[must_use]
    pub fn standing(&self, number: u64) -> Standing {
        let rank = self.rank(number);
        if rank < self.count && self.at(rank) == number {
            return Standing::Seen;
        }
        if self.floor.is_some_and(|floor| number <= floor) {
            return Standing::TooOld;
        }
        Standing::New
    }

    /// Remembers a number that is [`Standing::New`]; forgets the lowest when there is no room.
    pub fn insert(&mut self, number: u64) {
        let mut rank = self.rank(number);
        if self.count == FILL_COUNT_MAX {
            if rank == 0 {
                self.floor = Some(number);
                return;
            }
            self.floor = Some(self.at(0));
            self.first = self.place(1);
            self.count -= 1;
            rank -= 1;
        }
        // What is above moves up by one: nothing for the newest, a few words for a late one.
        let mut moved = self.count;
        while moved > rank {
            self.ring[self.place(moved)] = self.at(moved - 1);
            moved -= 1;
        }
        self.ring[self.place(rank)] = number;
        self.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A table by `number % size` forgets 7 when 7 + size comes; this one does not.
    #[test]
    fn numbers_that_collide_in_a_table_are_both_remembered() {
        let mut fills = FillNumbers::default();
        for number in [
            7,
            7 + FILL_COUNT_MAX as u64,
            7 + 1_000 * FILL_COUNT_MAX as u64,
        ] {
            assert_eq!(fills.standing(number), Standing::New);
            fills.insert(number);
        }
        assert_eq!(fills.standing(7), Standing::Seen);
    }

    #[test]
    fn what_was_forgotten_is_too_old_and_never_new() {
        let mut fills = FillNumbers::default();
        for number in 0..3 * FILL_COUNT_MAX as u64 {
            fills.insert(2 * number);
        }
        let lowest = 4 * FILL_COUNT_MAX as u64;
        assert_eq!(fills.standing(lowest - 2), Standing::TooOld);
        assert_eq!(
            fills.standing(lowest - 1),
            Standing::New,
            "above the last forgotten"
        );
        assert_eq!(fills.standing(1), Standing::TooOld);
        assert_eq!(fills.standing(lowest), Standing::Seen);
        assert_eq!(
            fills.standing(lowest + 1),
            Standing::New,
            "a hole is not a fill"
        );
        fills.insert(lowest - 1);
        assert_eq!(
            fills.standing(lowest - 1),
            Standing::TooOld,
            "lowest of all: not kept"
        );
    }

    proptest! {
        /// Invariants 1 and 2, against a memory that forgets nothing: no double is ever new.
        #[test]
        fn no_double_is_ever_new(start in 0_u64..50, steps in prop::collection::vec((0_u64..60, any::<bool>()), 1..400)) {
            let mut fills = FillNumbers::default();
            let mut seen = std::collections::BTreeSet::new();
            // A full ring behind them, so that forgetting happens.
            for number in 0..FILL_COUNT_MAX as u64 {
                fills.insert(start + number);
                seen.insert(start + number);
            }
            let mut top = start + FILL_COUNT_MAX as u64;
            for (step, is_back) in steps {
                let number = if is_back { top.saturating_sub(step * 97) } else { top + step };
                let standing = fills.standing(number);
                let is_seen = seen.contains(&number);
                prop_assert!(!(is_seen && standing == Standing::New));
                prop_assert!(is_seen || standing != Standing::Seen);
                if standing == Standing::New {
                    fills.insert(number);
                    seen.insert(number);
                    top = top.max(number);
                    let kept: Vec<u64> = (0..fills.count).map(|rank| fills.at(rank)).collect();
                    let newest: Vec<u64> = seen.iter().rev().take(fills.count).rev().copied().collect();
                    prop_assert_eq!(kept, newest);
                }
            }
        }
    }
}
