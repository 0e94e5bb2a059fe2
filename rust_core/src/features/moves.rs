//! Moves of the mid: return, realised volatility, and whether moves continue or bounce.

use super::decay::{Decay, settle};
use super::registry::{
    RETURN_1S, RETURN_10S, RETURN_AUTOCORR_10S, VOLATILITY_10S, VOLATILITY_60S, Values,
};

/// Memory of the family, in ticks.
#[derive(Debug, Clone, Default)]
pub(super) struct Moves {
    sum_1s: f64,
    sum_10s: f64,
    square_10s: f64,
    square_60s: f64,
    /// Each move times the one before, tau 10 s.
    cross_10s: f64,
    /// The last move that was not zero.
    last: f64,
}

impl Moves {
    #[inline]
    pub(super) fn fade(&mut self, decay: &Decay) {
        self.sum_1s *= decay.s1;
        self.sum_10s *= decay.s10;
        self.square_10s *= decay.s10;
        self.cross_10s *= decay.s10;
        self.square_60s *= decay.s60;
    }

    pub(super) fn settle(&mut self) {
        settle(&mut self.sum_1s);
        settle(&mut self.sum_10s);
        settle(&mut self.square_10s);
        settle(&mut self.cross_10s);
        settle(&mut self.square_60s);
    }

    /// The mid moved by `moved` ticks between two good books.
    #[inline]
    pub(super) fn on_move(&mut self, moved: f64) {
        let square = moved * moved;
        self.sum_1s += moved;
        self.sum_10s += moved;
        self.square_10s += square;
        self.square_60s += square;
        self.cross_10s += moved * self.last;
        self.last = if moved == 0.0 { self.last } else { moved };
    }

    #[inline]
    pub(super) fn write(&self, values: &mut Values) {
        values[RETURN_1S] = self.sum_1s;
        values[RETURN_10S] = self.sum_10s;
        values[VOLATILITY_10S] = self.square_10s.sqrt();
        values[VOLATILITY_60S] = self.square_60s.sqrt();
        values[RETURN_AUTOCORR_10S] = self.cross_10s / (self.square_10s + 1.0);
    }
}
