//! Order flow: what was added to and taken from the queues, by level and time constant.
//!
//! Five-level snapshots give aggregated order flow: compare it with other snapshot data, not with
//! event-level results.

use super::decay::{Decay, Exposure, float, settle};
use super::registry::{
    OFI_INTEGRATED, OFI_L1, OFI_L1_1S, OFI_L1_5S, OFI_L1_30S, OFI_L2, OFI_L3, OFI_L4, OFI_L5,
    OFI_L5_5S, QUEUE_DEPLETION_ASK, QUEUE_DEPLETION_BID, TOP_CHANGE_RATE_10S, Values,
};
use crate::book::{Book, Side};
use crate::record::LEVEL_COUNT;

/// Weight of each level in the integrated order flow.
const INTEGRATED_WEIGHT: f64 = 1.0 / LEVEL_COUNT as f64;

/// Prices and quantities of one side.
#[derive(Debug, Clone, Copy, Default)]
struct Queues {
    price: [i64; LEVEL_COUNT],
    qty: [i64; LEVEL_COUNT],
}

impl Queues {
    #[inline]
    fn set(&mut self, side: &Side) {
        self.price = side.price;
        self.qty = side.qty;
    }
}

/// Change of a queue as demand: what is there when the price got no worse, minus what was there
/// when it got no better. `direction` is +1 when a higher price is better.
#[inline]
fn queue_flow(old: (i64, i64), new: (i64, i64), direction: i64) -> i64 {
    // Prices and quantities are at most 1e18 and not negative: nothing here overflows.
    let better = new.0.wrapping_sub(old.0).wrapping_mul(direction);
    let here = if better >= 0 { new.1 } else { 0 };
    let there = if better <= 0 { old.1 } else { 0 };
    here.wrapping_sub(there)
}

/// Signed change of the queue at one bid level and one ask level.
#[inline]
fn level_flow(old: (&Queues, &Queues), bid: &Side, ask: &Side, level: usize) -> i64 {
    // A missing ask is infinitely far, as a missing bid (price 0) already is.
    let far = |price: i64| if price == 0 { i64::MAX } else { price };
    let supply = queue_flow(
        (far(old.1.price[level]), old.1.qty[level]),
        (far(ask.price[level]), ask.qty[level]),
        -1,
    );
    queue_flow(
        (old.0.price[level], old.0.qty[level]),
        (bid.price[level], bid.qty[level]),
        1,
    )
    .wrapping_sub(supply)
}

/// Quantity that left a best queue; `direction` is +1 when the price worsens by rising.
#[inline]
fn depleted(old: &Queues, new: &Side, direction: i64) -> i64 {
    let worse = new.price[0]
        .wrapping_sub(old.price[0])
        .wrapping_mul(direction);
    let left = old.qty[0].wrapping_sub(new.qty[0]).max(0);
    match worse {
        1.. => old.qty[0],
        0 => left,
        _ => 0,
    }
}

/// Memory of the family.
#[derive(Debug, Clone)]
pub(super) struct OrderFlow {
    /// The last good book.
    bid: Queues,
    ask: Queues,
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
            bid: Queues::default(),
            ask: Queues::default(),
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

    /// Takes a good book, which `follows` another or is the first behind a start or a bad one;
    /// true when a best price or quantity changed or nothing is known of that.
    #[inline]
    pub(super) fn on_book(&mut self, book: &Book, follows: bool) -> bool {
        let (bid, ask) = (book.bid(), book.ask());
        let is_price_new =
            (self.bid.price[0] != bid.price[0]) | (self.ask.price[0] != ask.price[0]);
        let is_qty_new = (self.bid.qty[0] != bid.qty[0]) | (self.ask.qty[0] != ask.qty[0]);
        if follows {
            let flow: [f64; LEVEL_COUNT] = std::array::from_fn(|level| {
                float(level_flow((&self.bid, &self.ask), bid, ask, level))
            });
            let deep = flow[1] + flow[2] + flow[3] + flow[4];
            for (sum, flow) in self.level.iter_mut().zip(&flow) {
                *sum += flow;
            }
            self.slow[0] += flow[0];
            self.slow[1] += flow[0] + deep;
            self.best_30s += flow[0];
            self.gone[0] += float(depleted(&self.bid, bid, -1));
            self.gone[1] += float(depleted(&self.ask, ask, 1));
            self.changes += if is_price_new { 1.0 } else { 0.0 };
        }
        self.bid.set(bid);
        self.ask.set(ask);
        !follows | is_price_new | is_qty_new
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

    fn queues(price: i64, qty: i64) -> Queues {
        let mut queues = Queues::default();
        queues.set(&side(price, qty));
        queues
    }

    #[test]
    fn a_missing_ask_level_counts_as_infinitely_far() {
        let (none, some) = (Side::default(), side(7, 3));
        let (none_old, some_old) = (Queues::default(), queues(7, 3));
        assert_eq!(level_flow((&none_old, &some_old), &none, &none, 0), 3);
        assert_eq!(level_flow((&none_old, &none_old), &none, &some, 0), -3);
    }

    #[test]
    fn a_queue_is_depleted_by_what_left_it_and_not_by_what_came() {
        for (new, bid, ask) in [
            (side(7, 3), 2, 2),
            (side(7, 9), 0, 0),
            (side(6, 9), 5, 0),
            (side(8, 9), 0, 5),
        ] {
            let old = queues(7, 5);
            assert_eq!(depleted(&old, &new, -1), bid, "{new:?}");
            assert_eq!(depleted(&old, &new, 1), ask, "{new:?}");
        }
    }
}
