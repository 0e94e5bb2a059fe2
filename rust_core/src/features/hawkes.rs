//! Hawkes intensities: how likely the next buyer or seller is, given those just seen.
//!
//! Each side excites itself with an exponential kernel. Shape is fixed (a 0.8 and b 1.6 a second,
//! branching ratio a / b = 0.5); the baseline is what makes the mean intensity the mean rate.

use super::decay::{Decay, Exposure, settle};
use super::registry::{HAWKES_BUY, HAWKES_SELL, Values};

/// Jump of the intensity at an event, 1/s. The kernel's decay of 1.6/s is `Decay::ms625`.
const JUMP: f64 = 0.8;
/// Share of events that no earlier event caused: 1 - a / b.
const IMMIGRANT_SHARE: f64 = 0.5;

/// Memory of the family; buyers first.
#[derive(Debug, Clone)]
pub(super) struct Hawkes {
    /// Sum of `exp(-1.6 * age)`.
    excited: [f64; 2],
    /// Decayed counts, tau 60 s.
    counts: [f64; 2],
    seen: Exposure,
}

impl Hawkes {
    pub(super) fn new() -> Self {
        Self {
            excited: [0.0; 2],
            counts: [0.0; 2],
            seen: Exposure::new(60.0),
        }
    }

    #[inline]
    pub(super) fn fade(&mut self, decay: &Decay) {
        self.excited.iter_mut().for_each(|sum| *sum *= decay.ms625);
        self.counts.iter_mut().for_each(|sum| *sum *= decay.s60);
        self.seen.missing *= decay.s60;
    }

    pub(super) fn settle(&mut self) {
        self.excited.iter_mut().for_each(settle);
        self.counts.iter_mut().for_each(settle);
        settle(&mut self.seen.missing);
    }

    #[inline]
    pub(super) fn on_trade(&mut self, is_buy: bool) {
        let [buy, sell] = if is_buy { [1.0, 0.0] } else { [0.0, 1.0] };
        self.excited[0] += buy;
        self.excited[1] += sell;
        self.counts[0] += buy;
        self.counts[1] += sell;
    }

    #[inline]
    pub(super) fn write(&self, values: &mut Values) {
        let base = IMMIGRANT_SHARE / self.seen.seconds();
        values[HAWKES_BUY] = self.counts[0] * base + self.excited[0] * JUMP;
        values[HAWKES_SELL] = self.counts[1] * base + self.excited[1] * JUMP;
    }
}
