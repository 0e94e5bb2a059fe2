//! Trailing windows that the checks count in: times, equal orders, results.
//!
//! Why: a rate is a count within a window, and every window here has a bound and no clock.
//!
//! Invariants:
//! 1. No window allocates after construction.
//! 2. An event is counted while it is younger than the window, and not at its exact age.
//! 3. [`LossWindow`] never shows a smaller fall than the true one within its window.
//!
//! They know no limit. Operator's page: `docs/risk.md`.

use crate::gateway::Money;

/// Window of the order rates.
pub const RATE_WINDOW_NS: i64 = 10_000_000_000;
/// Window in which equal orders are counted.
pub const REPEAT_WINDOW_NS: i64 = 1_000_000_000;
/// Window of the reject and unknown breakers.
pub const REJECT_WINDOW_NS: i64 = 60_000_000_000;
/// Window in which fills on one side are counted.
pub const FILL_WINDOW_NS: i64 = 10_000_000_000;
/// How long a side pauses after too many fills.
pub const FILL_PAUSE_NS: i64 = 60_000_000_000;
/// Window of the loss speed.
pub const LOSS_WINDOW_NS: i64 = 60_000_000_000;
/// Entries a window can hold; rates are limited to it.
pub const WINDOW_COUNT_MAX: usize = 1_024;

/// Times of the last events within a trailing window; at most [`WINDOW_COUNT_MAX`].
#[derive(Debug, Clone)]
pub struct TimeWindow {
    times: Box<[i64; WINDOW_COUNT_MAX]>,
    first: usize,
    count: usize,
    window_ns: i64,
}

impl TimeWindow {
    /// An empty window of this length.
    #[must_use]
    pub fn new(window_ns: i64) -> Self {
        Self {
            times: Box::new([0; WINDOW_COUNT_MAX]),
            first: 0,
            count: 0,
            window_ns,
        }
    }

    /// Events that are younger than the window at `now_ns`.
    #[inline]
    pub fn count(&mut self, now_ns: i64) -> u32 {
        while self.count > 0
            && now_ns.saturating_sub(self.times[self.first % WINDOW_COUNT_MAX]) >= self.window_ns
        {
            self.first = (self.first + 1) % WINDOW_COUNT_MAX;
            self.count -= 1;
        }
        u32::try_from(self.count).unwrap_or(u32::MAX)
    }

    /// Adds an event; a full window forgets its oldest, and every limit is below that.
    pub fn push(&mut self, now_ns: i64) {
        if self.count == WINDOW_COUNT_MAX {
            self.first = (self.first + 1) % WINDOW_COUNT_MAX;
            self.count -= 1;
        }
        self.times[(self.first + self.count) % WINDOW_COUNT_MAX] = now_ns;
        self.count += 1;
    }
}

/// What makes two orders equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OrderKey {
    /// Place of the instrument in the engine.
    pub market_index: usize,
    /// +1 buy, -1 sell.
    pub side: i64,
    /// Limit price.
    pub price: i64,
    /// Quantity.
    pub qty: i64,
}

/// Places for the counts of keys; twice as many as there can be keys, so that chains stay short.
const SLOT_COUNT: usize = 2 * WINDOW_COUNT_MAX;

const _: () = assert!(SLOT_COUNT.is_power_of_two());

/// The young orders, and how many of each kind there are.
///
/// Counting costs the same for the first order of a day and for the thousandth of a second: rows
/// leave at their age, and the counts of their keys follow.
#[derive(Debug, Clone)]
pub struct RepeatWindow {
    /// Young orders in time order, each with its key's place.
    rows: Box<[(i64, OrderKey); WINDOW_COUNT_MAX]>,
    first: usize,
    count: usize,
    /// Open addressing without gaps in a chain; count 0 is an empty place.
    slots: Box<[(OrderKey, u32); SLOT_COUNT]>,
}

impl Default for RepeatWindow {
    fn default() -> Self {
        Self {
            rows: Box::new([(i64::MIN, OrderKey::default()); WINDOW_COUNT_MAX]),
            first: 0,
            count: 0,
            slots: Box::new([(OrderKey::default(), 0); SLOT_COUNT]),
        }
    }
}

/// First place of a key's chain.
fn home_of(key: &OrderKey) -> usize {
    let mixed = key.price.unsigned_abs().wrapping_mul(0x9E37_79B9_7F4A_7C15)
        ^ key.qty.unsigned_abs().wrapping_mul(0xC2B2_AE3D_27D4_EB4F)
        ^ (key.market_index as u64).wrapping_mul(0x1656_67B1_9E37_79F9)
        ^ key.side.unsigned_abs().rotate_left(u32::from(key.side < 0));
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the shift leaves fewer bits than usize has"
    )]
    let home = (mixed >> (u64::BITS - SLOT_COUNT.trailing_zeros())) as usize;
    home
}

impl RepeatWindow {
    /// Orders equal to `key` that are younger than [`REPEAT_WINDOW_NS`].
    #[must_use]
    pub fn count(&mut self, key: &OrderKey, now_ns: i64) -> u32 {
        self.forget(now_ns);
        if self.count == 0 {
            return 0;
        }
        self.slots[self.place_of(key)].1
    }

    /// Adds an order; a full window forgets its oldest, and every limit is below that.
    pub fn push(&mut self, key: OrderKey, now_ns: i64) {
        if self.count == WINDOW_COUNT_MAX {
            self.drop_oldest();
        }
        self.rows[(self.first + self.count) % WINDOW_COUNT_MAX] = (now_ns, key);
        self.count += 1;
        let place = self.place_of(&key);
        let slot = &mut self.slots[place];
        *slot = (key, slot.1 + 1);
    }

    fn forget(&mut self, now_ns: i64) {
        while self.count > 0
            && now_ns.saturating_sub(self.rows[self.first % WINDOW_COUNT_MAX].0) >= REPEAT_WINDOW_NS
        {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let key = self.rows[self.first].1;
        self.first = (self.first + 1) % WINDOW_COUNT_MAX;
        self.count -= 1;
        let place = self.place_of(&key);
        self.slots[place].1 -= 1;
        if self.slots[place].1 == 0 {
            self.close_gap(place);
        }
    }

    /// Where a key is, or the empty place at the end of its chain; at most half the places are used.
    #[inline]
    fn place_of(&self, key: &OrderKey) -> usize {
        let mut place = home_of(key) % SLOT_COUNT;
        while self.slots[place].1 != 0 && self.slots[place].0 != *key {
            place = (place + 1) % SLOT_COUNT;
        }
        place
    }

    /// Moves up what stood behind an emptied place, so that every chain is whole.
    fn close_gap(&mut self, emptied: usize) {
        let mut gap = emptied;
        let mut place = (gap + 1) % SLOT_COUNT;
        while self.slots[place].1 != 0 {
            let home = home_of(&self.slots[place].0);
            let from_home = (place + SLOT_COUNT - home) % SLOT_COUNT;
            let from_gap = (place + SLOT_COUNT - gap) % SLOT_COUNT;
            if from_home >= from_gap {
                self.slots[gap] = self.slots[place];
                self.slots[place].1 = 0;
                gap = place;
            }
            place = (place + 1) % SLOT_COUNT;
        }
    }
}

/// Length of one step of [`LossWindow`].
const STEP_NS: i64 = 1_000_000_000;
/// Room for the steps within the window, one begun at either end; a power of two.
const STEP_COUNT: usize = 64;

const _: () = assert!(LOSS_WINDOW_NS % STEP_NS == 0);
const _: () = assert!((LOSS_WINDOW_NS / STEP_NS) as usize + 2 <= STEP_COUNT);
const _: () = assert!(STEP_COUNT.is_power_of_two());

/// Best result within a trailing [`LOSS_WINDOW_NS`], in steps of a second.
///
/// A result counts for 60 to 61 s, so a fall is never missed. Kept as results that only fall from
/// the oldest to the newest, so the oldest is the best.
#[derive(Debug, Clone, Copy)]
pub struct LossWindow {
    rows: [(i64, Money); STEP_COUNT],
    first: usize,
    count: usize,
    last: Money,
    last_step: i64,
}

impl Default for LossWindow {
    fn default() -> Self {
        Self {
            rows: [(0, 0); STEP_COUNT],
            first: 0,
            count: 0,
            last: 0,
            last_step: i64::MIN,
        }
    }
}

impl LossWindow {
    /// Takes the result at `now_ns` and gives how far it is below the best within the window.
    pub fn fall(&mut self, net: Money, now_ns: i64) -> Money {
        let step = now_ns.div_euclid(STEP_NS);
        if step != self.last_step {
            self.begin_step(step);
        }
        self.push(step, net);
        self.last = net;
        self.rows[self.first].1.saturating_sub(net)
    }

    /// Forgets what is too old; the last result held until now, the first one of a session is 0.
    fn begin_step(&mut self, step: i64) {
        let oldest = step.saturating_sub(LOSS_WINDOW_NS / STEP_NS);
        while self.count > 0 && self.rows[self.first].0 < oldest {
            self.first = self.place(1);
            self.count -= 1;
        }
        self.push(step, self.last);
        self.last_step = step;
    }

    fn push(&mut self, step: i64, net: Money) {
        while self.count > 0 && self.rows[self.place(self.count - 1)].1 <= net {
            self.count -= 1;
        }
        let is_new_step = self.count == 0 || self.rows[self.place(self.count - 1)].0 < step;
        if is_new_step {
            assert!(
                self.count < STEP_COUNT,
                "Invariant: a loss window holds one row a step"
            );
            self.rows[self.place(self.count)] = (step, net);
            self.count += 1;
        }
    }

    fn place(&self, back: usize) -> usize {
        (self.first + back) % STEP_COUNT
    }
}
