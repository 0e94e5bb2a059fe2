//! Order flow: what was added to and taken from the queues, by level and time constant.
//!
//! Five-level snapshots give aggregated order flow: compare it with other snapshot data, not with
//! event-level results.

use super::decay::{Decay, Exposure, float, settle};
use super::registry::{
    OFI_INTEGRATED, OFI_L1, OFI_L1_1S, OFI_L1_5S, OFI_L1_30S, OFI_L2, OFI_L3, OFI_L4, OFI_L5,
    OFI_L5_5S, QUEUE_DEPLETION_ASK, QUEUE_DEPLETION_BID, TOP_CHANGE_RATE_10S, Values,
};
use super::shape::Sides;
use crate::book::Side;
use crate::record::LEVEL_COUNT;

/// Weight of each level in the integrated order flow.
const INTEGRATED_WEIGHT: f64 = 1.0 / LEVEL_COUNT as f64;

/// Signed change of the queue at one bid level and one ask level.
#[inline]
fn level_flow(old: &Sides, new: &Sides, level: usize) -> i64 {
    let (bid_old, bid_new) = (old.bid.price[level], new.bid.price[level]);
    // A missing ask is infinitely far, as a missing bid (price 0) already is.
    let far = |price: i64| if price == 0 { i64::MAX } else { price };
    let (ask_old, ask_new) = (far(old.ask.price[level]), far(new.ask.price[level]));
    let when = |holds: bool, qty: i64| if holds { qty } else { 0 };
    // Quantities are at most 1e18, so four of them fit.
    when(bid_new >= bid_old, new.bid.qty[level])
        - when(bid_new <= bid_old, old.bid.qty[level])
        - when(ask_new <= ask_old, new.ask.qty[level])
        + when(ask_new >= ask_old, old.ask.qty[level])
}

/// Quantity that left a best queue; `direction` is +1 when the price worsens by rising.
#[inline]
fn depleted(old: &Side, new: &Side, direction: i64) -> i64 {
    match ((new.price[0] - old.price[0]) * direction).signum() {
        1 => old.qty[0],
        0 => (old.qty[0] - new.qty[0]).max(0),
        _ => 0,
    }
}

/// Memory of the family.
#[derive(Debug, Clone)]
pub(super) struct OrderFlow {
    /// By level, tau 1 s.
    level: [f64; LEVEL_COUNT],
    /// Quantity gone from best bid and ask, tau 1 s.
    gone: [f64; 2],
    /// Best level, tau 5 s; all levels, tau 5 s.
    slow: [f64; 2],
    /// Best level, tau 30 s.
    best_30s: f64,
    /// Changes of a best price, tau 10 s.
    changes: f64,
    seen: Exposure,
}

impl OrderFlow {
    pub(super) fn new() -> Self {
        Self {
            level: [0.0; LEVEL_COUNT],
            gone: [0.0; 2],
            slow: [0.0; 2],
            best_30s: 0.0,
            changes: 0.0,
            seen: Exposure::new(10.0),
        }
    }

    #[inline]
    pub(super) fn fade(&mut self, decay: &Decay) {
        self.level.iter_mut().for_each(|sum| *sum *= decay.s1);
        self.gone.iter_mut().for_each(|sum| *sum *= decay.s1);
        self.slow.iter_mut().for_each(|sum| *sum *= decay.s5);
        self.best_30s *= decay.s30;
        self.changes *= decay.s10;
        self.seen.missing *= decay.s10;
    }

    pub(super) fn settle(&mut self) {
        self.level.iter_mut().for_each(settle);
        self.gone.iter_mut().for_each(settle);
        self.slow.iter_mut().for_each(settle);
        settle(&mut self.best_30s);
        settle(&mut self.changes);
        settle(&mut self.seen.missing);
    }

    /// Takes two good books in a row; true when a best price or quantity changed.
    #[inline]
    pub(super) fn on_book(&mut self, old: &Sides, new: &Sides) -> bool {
        let mut flow = [0.0; LEVEL_COUNT];
        for (level, flow) in flow.iter_mut().enumerate() {
            *flow = float(level_flow(old, new, level));
        }
        let deep = flow[1] + flow[2] + flow[3] + flow[4];
        for (sum, flow) in self.level.iter_mut().zip(&flow) {
            *sum += flow;
        }
        self.slow[0] += flow[0];
        self.slow[1] += flow[0] + deep;
        self.best_30s += flow[0];
        self.gone[0] += float(depleted(&old.bid, &new.bid, -1));
        self.gone[1] += float(depleted(&old.ask, &new.ask, 1));
        let is_price_same =
            old.bid.price[0] == new.bid.price[0] && old.ask.price[0] == new.ask.price[0];
        self.changes += if is_price_same { 0.0 } else { 1.0 };
        !is_price_same || old.bid.qty[0] != new.bid.qty[0] || old.ask.qty[0] != new.ask.qty[0]
    }

    #[inline]
    pub(super) fn write(&self, (per_l1, per_l5): (f64, f64), values: &mut Values) {
        let level = &self.level;
        values[OFI_L1_1S] = level[0] * per_l1;
        values[OFI_L1_5S] = self.slow[0] * per_l1;
        values[OFI_L1_30S] = self.best_30s * per_l1;
        values[OFI_L5_5S] = self.slow[1] * per_l5;
        for (place, sum) in [OFI_L1, OFI_L2, OFI_L3, OFI_L4, OFI_L5].iter().zip(level) {
            values[*place] = sum * per_l5;
        }
        let all = level[0] + level[1] + level[2] + level[3] + level[4];
        values[OFI_INTEGRATED] = all * per_l5 * INTEGRATED_WEIGHT;
        values[QUEUE_DEPLETION_BID] = self.gone[0] * per_l1;
        values[QUEUE_DEPLETION_ASK] = self.gone[1] * per_l1;
        values[TOP_CHANGE_RATE_10S] = self.changes / self.seen.seconds();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(price: i64, qty: i64) -> Side {
        let mut side = Side::default();
        (side.price[0], side.qty[0], side.count) = (price, qty, 1);
        side
    }

    #[test]
    fn a_missing_ask_level_counts_as_infinitely_far() {
        let with = Sides {
            bid: Side::default(),
            ask: side(7, 3),
        };
        let without = Sides {
            bid: Side::default(),
            ask: Side::default(),
        };
        assert_eq!(level_flow(&with, &without, 0), 3);
        assert_eq!(level_flow(&without, &with, 0), -3);
    }

    #[test]
    fn a_queue_is_depleted_by_what_left_it_and_not_by_what_came() {
        for (new, bid, ask) in [
            (side(7, 3), 2, 2),
            (side(7, 9), 0, 0),
            (side(6, 9), 5, 0),
            (side(8, 9), 0, 5),
        ] {
            assert_eq!(depleted(&side(7, 5), &new, -1), bid, "{new:?}");
            assert_eq!(depleted(&side(7, 5), &new, 1), ask, "{new:?}");
        }
    }
}
