//! Trades between two published books.
//!
//! Why: prints come tick by tick while the book is a 125 ms snapshot, so a good share of them lies
//! beyond the best price shown last; fill models must meet that.
//!
//! Invariants:
//! 1. Stamps lie after the book before and not after the book behind, and do not go back.
//! 2. Prints never move the path: sides follow moves, moves do not follow sides.
//!
//! It keeps no book. Operator's page: `docs/generator.md`.

use super::ladder::Quantities;
use super::params::MarketModel;
use super::path::Step;
use super::rng::Rng;

const MILLISECOND_NS: i64 = 1_000_000;
/// Most aggressive orders between two books.
const ORDERS_MAX: usize = 16;
/// Most prints of one order beyond its first.
const CONTINUATIONS_MAX: i64 = 15;
/// Probability that a further print of an order has the next millisecond.
const NEXT_MILLISECOND: f64 = 0.3;
/// Probability that a print beyond the best goes one tick further.
const BEYOND_CONTINUATION: f64 = 0.4;
/// Most ticks beyond.
const BEYOND_TICKS_MAX: i64 = 5;

/// One market print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Print {
    /// Exchange time, ns UTC, whole milliseconds.
    pub(super) exchange_time_ns: i64,
    /// Ticks.
    pub(super) price: i64,
    /// Lots.
    pub(super) qty: i64,
    /// +1 the buyer aggressed, -1 the seller.
    pub(super) side: i64,
}

/// Draws the prints between books.
#[derive(Debug)]
pub(super) struct Prints<'a> {
    model: &'a MarketModel,
    lots: Quantities,
    last_side: i64,
    long_side: i64,
    /// Prints before the current book, in time order.
    pub(super) rows: Vec<Print>,
    /// Lots traded at the unmoved best bid and best ask.
    pub(super) consumed: (i64, i64),
}

impl<'a> Prints<'a> {
    /// Sides start as fair coins.
    pub(super) fn new(model: &'a MarketModel, rng: &mut Rng) -> Self {
        Self {
            model,
            lots: Quantities::new(&model.print_weights),
            last_side: rng.sign(0.5),
            long_side: rng.sign(0.5),
            rows: Vec::with_capacity(ORDERS_MAX * 16),
            consumed: (0, 0),
        }
    }

    /// Fills `rows` with what printed between two books.
    pub(super) fn draw(&mut self, before: &Step, after: &Step, rng: &mut Rng) {
        self.rows.clear();
        self.consumed = (0, 0);
        let moved = ((after.bid - before.bid).abs() + (after.ask - before.ask).abs()).min(20);
        #[allow(clippy::cast_precision_loss, reason = "at most 20")]
        let due = self.model.orders_per_update * before.activity.sqrt()
            + self.model.orders_per_tick * 0.5 * moved as f64;
        let mut stamps = [0_i64; ORDERS_MAX];
        let count = arrivals(due, &mut stamps, before, after, rng);
        let mut has_swept = false;
        for stamp in &stamps[..count] {
            self.order(*stamp, &mut has_swept, before, after, rng);
        }
    }

    fn order(
        &mut self,
        stamp: i64,
        has_swept: &mut bool,
        before: &Step,
        after: &Step,
        rng: &mut Rng,
    ) {
        let side = self.side(after.mid_twice() - before.mid_twice(), rng);
        let (old, new) = if side > 0 {
            (before.ask, after.ask)
        } else {
            (before.bid, after.bid)
        };
        let span = (after.exchange_time_ns - before.exchange_time_ns).max(1);
        let is_away = (new - old) * side > 0;
        let is_sweep = is_away && !*has_swept;
        *has_swept |= is_sweep;
        let is_late = 2 * (stamp - before.exchange_time_ns) > span;
        let best = if is_sweep || !(is_late || *has_swept && is_away) {
            old
        } else {
            new
        };
        let shift = self.displacement(before.ask - before.bid, rng) * side;
        let mut time = stamp;
        let prints = 1 + rng.geometric(self.model.print_continuation, CONTINUATIONS_MAX);
        for index in 0..prints {
            let walked = if is_sweep {
                (index * side).clamp((new - old).min(0), (new - old).max(0))
            } else {
                0
            };
            if index > 0 && rng.chance(NEXT_MILLISECOND) {
                time = (time + MILLISECOND_NS).min(after.exchange_time_ns);
            }
            let print = Print {
                exchange_time_ns: time
                    .max(self.rows.last().map_or(time, |row| row.exchange_time_ns)),
                price: best + walked + shift,
                qty: self.lots.at(rng.uniform()),
                side,
            };
            if old == new && print.price == old {
                let consumed = if side > 0 {
                    &mut self.consumed.1
                } else {
                    &mut self.consumed.0
                };
                *consumed += print.qty;
            }
            self.rows.push(print);
        }
    }

    /// Ticks outward from the best: mostly 0, sometimes beyond, sometimes one inside.
    fn displacement(&self, spread: i64, rng: &mut Rng) -> i64 {
        let draw = rng.uniform();
        if draw < self.model.print_beyond {
            1 + rng.geometric(BEYOND_CONTINUATION, BEYOND_TICKS_MAX - 1)
        } else if draw < self.model.print_beyond + self.model.print_inside && spread > 1 {
            -1
        } else {
            0
        }
    }

    fn side(&mut self, mid_move: i64, rng: &mut Rng) -> i64 {
        if rng.chance(self.model.side_turns) {
            self.long_side = -self.long_side;
        }
        let side = if mid_move != 0 && rng.chance(self.model.side_follows_move) {
            mid_move.signum()
        } else if rng.chance(self.model.side_repeats) {
            self.last_side
        } else {
            self.long_side * rng.sign(0.5 + 0.5 * self.model.side_persistent)
        };
        self.last_side = side;
        side
    }
}

/// Stamps of a Poisson number of orders, in order; gives how many.
fn arrivals(
    due: f64,
    stamps: &mut [i64; ORDERS_MAX],
    before: &Step,
    after: &Step,
    rng: &mut Rng,
) -> usize {
    let span_ms =
        u64::try_from((after.exchange_time_ns - before.exchange_time_ns) / MILLISECOND_NS)
            .unwrap_or(1);
    let (mut count, mut waited) = (0, rng.exponential());
    while count < ORDERS_MAX && waited < due {
        let ms = 1 + i64::try_from(rng.below(span_ms)).unwrap_or(0);
        stamps[count] = before.exchange_time_ns + ms * MILLISECOND_NS;
        count += 1;
        waited += rng.exponential();
    }
    stamps[..count].sort_unstable();
    count
}
