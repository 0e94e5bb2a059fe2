//! Market prints: who bought, how one-sided, and how concentrated in time.

use super::decay::{Decay, settle};
use super::registry::{
    TOXICITY_30S, TRADE_IMBALANCE_1S, TRADE_IMBALANCE_5S, TRADE_IMBALANCE_30S, TRADE_SIGN_EMA_5S,
    Values,
};

/// Decayed lots: bought minus sold, and bought plus sold.
#[derive(Debug, Clone, Copy, Default)]
struct Lots {
    net: f64,
    all: f64,
}

impl Lots {
    #[inline]
    fn fade(&mut self, decay: f64) {
        self.net *= decay;
        self.all *= decay;
    }

    #[inline]
    fn add(&mut self, net: f64, all: f64) {
        self.net += net;
        self.all += all;
    }

    /// One lot in the denominator makes it fade to zero in silence.
    #[inline]
    fn imbalance(&self) -> f64 {
        self.net / (self.all + 1.0)
    }

    fn settle(&mut self) {
        settle(&mut self.net);
        settle(&mut self.all);
    }
}

/// Memory of the family.
#[derive(Debug, Clone, Default)]
pub(super) struct Trades {
    lots_1s: Lots,
    lots_5s: Lots,
    lots_30s: Lots,
    /// Sum of signs and count of prints, tau 5 s.
    signs: Lots,
    /// Lots times how one-sided the last second was, tau 30 s.
    toxic: f64,
}

impl Trades {
    #[inline]
    pub(super) fn fade(&mut self, decay: &Decay) {
        self.lots_1s.fade(decay.s1);
        self.lots_5s.fade(decay.s5);
        self.lots_30s.fade(decay.s30);
        self.signs.fade(decay.s5);
        self.toxic *= decay.s30;
    }

    pub(super) fn settle(&mut self) {
        self.lots_1s.settle();
        self.lots_5s.settle();
        self.lots_30s.settle();
        self.signs.settle();
        settle(&mut self.toxic);
    }

    /// Takes a print of a known side: `sign` is +1 or -1.
    #[inline]
    pub(super) fn on_trade(&mut self, sign: f64, lots: f64) {
        let signed = sign * lots;
        self.lots_1s.add(signed, lots);
        self.lots_5s.add(signed, lots);
        self.lots_30s.add(signed, lots);
        self.signs.add(sign, 1.0);
        self.toxic += lots * self.lots_1s.imbalance().abs();
    }

    #[inline]
    pub(super) fn write(&self, values: &mut Values) {
        values[TRADE_IMBALANCE_1S] = self.lots_1s.imbalance();
        values[TRADE_IMBALANCE_5S] = self.lots_5s.imbalance();
        values[TRADE_IMBALANCE_30S] = self.lots_30s.imbalance();
        values[TRADE_SIGN_EMA_5S] = self.signs.imbalance();
        values[TOXICITY_30S] = self.toxic / (self.lots_30s.all + 1.0);
    }
}
