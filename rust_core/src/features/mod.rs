//! Features: what an alpha may see, updated record by record.
//!
//! Why: research and live must compute the same number; there is one implementation, and the
//! batch evaluation runs it.
//!
//! Invariants:
//! 1. A value depends only on records up to now, in their order.
//! 2. Decay is in real time, never in event counts: every window is `exp(-dt / tau)`.
//! 3. State starts over at a session start and behind a gap; a feature is NaN until its warm-up
//!    has passed, and all are NaN while the book is invalid.
//! 4. An update is O(1) and allocates nothing.
//! 5. Every feature is computed at every record, whoever reads it; a value is finite or NaN.
//!
//! A file is a family: its memory, how it fades, what a record adds to it, its values. Operator's
//! page: `docs/features.md`; what was left out and why: `docs/feature-set.md`.

mod decay;
mod hawkes;
mod impact;
mod moves;
mod order_flow;
mod registry;
mod shape;
#[cfg(test)]
mod tests;
mod trades;

use crate::book::Book;
use decay::{Decay, SECOND, float};
use hawkes::Hawkes;
use impact::Impact;
use moves::Moves;
use order_flow::OrderFlow;
pub use registry::*;
use shape::{Shape, mid_ticks};
use trades::Trades;

/// How often sums that have faded to nothing are set to zero.
const SETTLE_NS: i64 = 10 * SECOND;

/// Features of one instrument.
#[derive(Debug, Clone)]
pub struct FeatureSet {
    tick: f64,
    lot: f64,
    /// Time of the last record since the last reset.
    last_ns: Option<i64>,
    /// Time of the first good book since the last reset.
    started_ns: Option<i64>,
    settles_ns: i64,
    /// The last book was good.
    is_good: bool,
    /// Mid of the last good book, in ticks.
    mid_ticks: f64,
    shape: Shape,
    flow: OrderFlow,
    trades: Trades,
    hawkes: Hawkes,
    moves: Moves,
    impact: Impact,
    values: Values,
}

impl FeatureSet {
    /// An empty set for an instrument with this tick and lot size (scaled).
    #[must_use]
    pub fn new(tick_size: i64, lot_size: i64) -> Self {
        assert!(tick_size > 0, "Invariant: a tick is above 0");
        assert!(lot_size > 0, "Invariant: a lot is above 0");
        Self {
            tick: float(tick_size),
            lot: float(lot_size),
            last_ns: None,
            started_ns: None,
            settles_ns: 0,
            is_good: false,
            mid_ticks: 0.0,
            shape: Shape::default(),
            flow: OrderFlow::new(),
            trades: Trades::default(),
            hawkes: Hawkes::new(),
            moves: Moves::default(),
            impact: Impact::default(),
            values: [f64::NAN; FEATURE_COUNT],
        }
    }

    /// Current values by id; NaN where a feature cannot be computed yet.
    #[must_use]
    pub fn values(&self) -> &[f64; FEATURE_COUNT] {
        &self.values
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        *self = Self {
            tick: self.tick,
            lot: self.lot,
            ..Self::new(1, 1)
        };
    }

    /// Lets time pass: sums fade, means move to the values that were in force. Time never goes
    /// back; the time that is now is returned.
    // Inlined, so that what fades here and grows behind it stays in registers.
    #[inline(always)]
    fn advance(&mut self, now_ns: i64) -> i64 {
        let last_ns = self.last_ns.unwrap_or(now_ns);
        let now_ns = now_ns.max(last_ns);
        if now_ns >= self.settles_ns {
            self.settle(now_ns);
        }
        let dt_ns = now_ns.saturating_sub(last_ns);
        let decay = if dt_ns > 0 {
            Decay::over(dt_ns)
        } else {
            Decay::NONE
        };
        self.last_ns = Some(now_ns);
        self.shape.fade(&decay);
        self.flow.fade(&decay);
        self.trades.fade(&decay);
        self.hawkes.fade(&decay);
        self.moves.fade(&decay);
        self.impact.fade(&decay);
        now_ns
    }

    /// Clears what has faded to nothing, so that no number becomes slow to compute with.
    #[cold]
    fn settle(&mut self, now_ns: i64) {
        self.settles_ns = now_ns.saturating_add(SETTLE_NS);
        self.shape.settle();
        self.flow.settle();
        self.trades.settle();
        self.hawkes.settle();
        self.moves.settle();
        self.impact.settle();
    }

    /// Takes the book after a snapshot at engine time `now_ns`.
    pub fn on_book(&mut self, book: &Book, now_ns: i64) {
        let now_ns = self.advance(now_ns);
        if !book.is_valid() {
            self.is_good = false;
            self.values = [f64::NAN; FEATURE_COUNT];
            return;
        }
        let mid_ticks = mid_ticks(book, self.tick);
        let is_first = self.started_ns.is_none();
        if is_first {
            self.started_ns = Some(now_ns);
            self.impact.start(now_ns);
        } else {
            let moved = mid_ticks - self.mid_ticks;
            self.moves.on_move(moved);
            self.impact.on_move(moved, now_ns);
        }
        self.mid_ticks = mid_ticks;
        self.shape
            .on_book(book, self.tick, is_first, &mut self.values);
        if self.flow.on_book(book, self.is_good) {
            self.shape.on_top_change(now_ns);
        }
        self.is_good = true;
        self.refresh(now_ns);
    }

    /// Takes a market print: `side` is +1 when the buyer aggressed, -1 the seller, 0 unknown.
    pub fn on_trade(&mut self, qty: i64, side: i64, now_ns: i64) {
        let now_ns = self.advance(now_ns);
        if side != 0 {
            let (sign, lots) = (float(side.signum()), float(qty) / self.lot);
            self.trades.on_trade(sign, lots);
            self.hawkes.on_trade(side > 0);
            self.impact.on_trade(sign * lots);
        }
        if self.is_good {
            self.refresh(now_ns);
        }
    }

    /// Recomputes the values that change with time.
    #[inline(always)]
    fn refresh(&mut self, now_ns: i64) {
        let Some(started_ns) = self.started_ns else {
            return;
        };
        let values = &mut self.values;
        self.shape.write(now_ns, values);
        self.flow.write(self.shape.per_depth(), values);
        self.trades.write(values);
        self.hawkes.write(values);
        self.moves.write(values);
        self.impact.write(values);
        let warm_ns = now_ns.saturating_sub(started_ns);
        if warm_ns < WARM_UP_NS_MAX {
            for (value, row) in values.iter_mut().zip(FEATURES) {
                if warm_ns < row.warm_up_ns {
                    *value = f64::NAN;
                }
            }
        }
    }
}
