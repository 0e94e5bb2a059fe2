//! Price impact: what a traded lot moved lately, and the move that trades do not explain.
//!
//! The slope is taken over intervals of real time, so that it means the same on a feed with more
//! or fewer snapshots; between two ends of intervals it holds.

use super::decay::{Decay, SECOND, settle};
use super::registry::{IMPACT_SURPRISE_5S, KYLE_LAMBDA_60S, Values};

/// Length of an interval; it ends at the first good book that is not earlier.
const INTERVAL_NS: i64 = SECOND;

/// Memory of the family: lots are bought minus sold, moves are in ticks.
#[derive(Debug, Clone, Default)]
pub(super) struct Impact {
    /// Of the running interval.
    lots: f64,
    moved: f64,
    ends_ns: i64,
    /// Sum of squared lots, and of lots times moves; tau 60 s.
    square: f64,
    cross: f64,
    /// Ticks a lot, at the end of the last interval.
    lambda: f64,
    /// Moves minus what lambda expects, tau 5 s.
    surprise: f64,
}

impl Impact {
    /// The first good book after a reset: intervals are counted from here.
    pub(super) fn start(&mut self, now_ns: i64) {
        *self = Self {
            ends_ns: now_ns.saturating_add(INTERVAL_NS),
            ..Self::default()
        };
    }

    #[inline]
    pub(super) fn fade(&mut self, decay: &Decay) {
        self.square *= decay.s60;
        self.cross *= decay.s60;
        self.surprise *= decay.s5;
    }

    pub(super) fn settle(&mut self) {
        settle(&mut self.square);
        settle(&mut self.cross);
        settle(&mut self.surprise);
    }

    #[inline]
    pub(super) fn on_move(&mut self, moved: f64, now_ns: i64) {
        self.surprise += moved;
        self.moved += moved;
        if now_ns < self.ends_ns {
            return;
        }
        self.square += self.lots * self.lots;
        self.cross += self.lots * self.moved;
        self.lambda = self.cross / (self.square + 1.0);
        (self.lots, self.moved) = (0.0, 0.0);
        self.ends_ns = now_ns.saturating_add(INTERVAL_NS);
    }

    #[inline]
    pub(super) fn on_trade(&mut self, signed_lots: f64) {
        self.lots += signed_lots;
        self.surprise -= self.lambda * signed_lots;
    }

    #[inline]
    pub(super) fn write(&self, values: &mut Values) {
        values[KYLE_LAMBDA_60S] = self.lambda;
        values[IMPACT_SURPRISE_5S] = self.surprise;
    }
}
