//! Shape of the book: spread, imbalances, weighted mid, and what was normal lately.

use super::decay::{Decay, HeldMean, float, settle};
use super::registry::{
    DEEP_MOMENTUM_5S, IMBALANCE_EMA_2S, IMBALANCE_L1, IMBALANCE_L2_5, MICROPRICE_DEV, QUOTE_AGE_MS,
    SPREAD_EMA_30S, SPREAD_TICKS, Values,
};
use crate::book::Book;
use crate::record::LEVEL_COUNT;

/// Middle of the best prices, in ticks.
pub(super) fn mid_ticks(book: &Book, tick: f64) -> f64 {
    float(book.best_bid() + book.best_ask()) / (2.0 * tick)
}

fn ratio(difference: f64, sum: f64) -> f64 {
    if sum > 0.0 {
        difference / sum
    } else {
        f64::NAN
    }
}

/// Memory of the family.
#[derive(Debug, Clone, Default)]
pub(super) struct Shape {
    /// Mean best-level quantity, tau 10 s.
    depth_l1: HeldMean,
    /// Mean quantity of a level, tau 10 s.
    depth_l5: HeldMean,
    /// Imbalance of the best level, tau 2 s.
    imbalance: HeldMean,
    /// Imbalance of levels 2 to 5, 0 when they are empty; tau 5 s.
    deep: HeldMean,
    /// Spread in ticks, tau 30 s.
    spread: HeldMean,
    /// When a best price or quantity last changed.
    top_changed_ns: i64,
}

impl Shape {
    #[inline]
    pub(super) fn fade(&mut self, decay: &Decay) {
        self.depth_l1.behind *= decay.s10;
        self.depth_l5.behind *= decay.s10;
        self.imbalance.behind *= decay.s2;
        self.deep.behind *= decay.s5;
        self.spread.behind *= decay.s30;
    }

    pub(super) fn settle(&mut self) {
        settle(&mut self.depth_l1.behind);
        settle(&mut self.depth_l5.behind);
        settle(&mut self.imbalance.behind);
        settle(&mut self.deep.behind);
        settle(&mut self.spread.behind);
    }

    /// Takes a good book; `is_first` after a reset.
    #[inline]
    pub(super) fn on_book(&mut self, book: &Book, tick: f64, is_first: bool, values: &mut Values) {
        let (bid, ask) = (book.bid(), book.ask());
        let (bid_qty, ask_qty) = (float(bid.qty[0]), float(ask.qty[0]));
        let (bid_depth, ask_depth) = (float(bid.depth()), float(ask.depth()));
        let (bid_behind, ask_behind) = (bid_depth - bid_qty, ask_depth - ask_qty);
        let spread = float(ask.price[0] - bid.price[0]) / tick;
        let best = bid_qty + ask_qty;
        let imbalance = ratio(bid_qty - ask_qty, best);
        let deep = ratio(bid_behind - ask_behind, bid_behind + ask_behind);
        let deep_or_zero = if deep.is_nan() { 0.0 } else { deep };
        let depth_l1 = best / 2.0;
        let depth_l5 = (bid_depth + ask_depth) * (0.5 / LEVEL_COUNT as f64);
        if is_first {
            self.depth_l1.start(depth_l1);
            self.depth_l5.start(depth_l5);
            self.imbalance.start(imbalance);
            self.deep.start(deep_or_zero);
            self.spread.start(spread);
        } else {
            self.depth_l1.hold(depth_l1);
            self.depth_l5.hold(depth_l5);
            self.imbalance.hold(imbalance);
            self.deep.hold(deep_or_zero);
            self.spread.hold(spread);
        }
        values[SPREAD_TICKS] = spread;
        values[IMBALANCE_L1] = imbalance;
        values[IMBALANCE_L2_5] = deep;
        values[MICROPRICE_DEV] = imbalance * spread * 0.5;
    }

    /// A best price or quantity changed, or its last change is not known.
    #[inline]
    pub(super) fn on_top_change(&mut self, now_ns: i64) {
        self.top_changed_ns = now_ns;
    }

    /// One over the mean quantity of the best level; of a level.
    #[inline]
    pub(super) fn per_depth(&self) -> (f64, f64) {
        let inverse = |depth: f64| if depth > 0.0 { 1.0 / depth } else { f64::NAN };
        (inverse(self.depth_l1.mean()), inverse(self.depth_l5.mean()))
    }

    #[inline]
    pub(super) fn write(&self, now_ns: i64, values: &mut Values) {
        values[IMBALANCE_EMA_2S] = self.imbalance.mean();
        values[QUOTE_AGE_MS] = float(now_ns.saturating_sub(self.top_changed_ns)) / 1e6;
        values[SPREAD_EMA_30S] = self.spread.mean();
        values[DEEP_MOMENTUM_5S] = -self.deep.behind;
    }
}
