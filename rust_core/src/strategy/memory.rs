//! What a template remembers between two records.
//!
//! Why: a queue place, the start of a patient trade and the start of a wait are nowhere in the book
//! or in the orders.
//!
//! Invariants:
//! 1. It changes only with records, so a replay remembers the same.
//! 2. It is of fixed size; an alpha has one.

use super::queue::QueuePlace;

/// A trade that a target template is making.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trade {
    /// +1 buys, -1 sells.
    pub(super) side: i64,
    /// Position when it began; a fill begins it anew.
    pub(super) position_qty: i64,
    /// When it began.
    pub(super) since_ns: i64,
}

/// State of one alpha's template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// Since when an exit that is wanted waits for answers, as of the record before.
    waited_before_ns: Option<i64>,
    /// The same as of this record.
    waiting_since_ns: Option<i64>,
    /// The trade of a target template.
    pub(super) trade: Option<Trade>,
    /// Places of the own quotes, buying side first.
    places: [Option<QueuePlace>; 2],
}

impl Memory {
    /// Takes a market print: what traded in front of an own quote is no longer ahead of it.
    pub fn on_print(&mut self, price: i64, qty: i64, aggressor_side: i64) {
        for place in self.places.iter_mut().flatten() {
            place.on_print(price, qty, aggressor_side);
        }
    }

    /// Ends a wait that nobody asks about again at this record.
    pub(super) fn start_over_waiting(&mut self) {
        self.waited_before_ns = self.waiting_since_ns.take();
    }

    /// How long the exit has been waiting.
    pub(super) fn waited_ns(&mut self, now_ns: i64) -> i64 {
        let since_ns = self.waited_before_ns.unwrap_or(now_ns);
        self.waiting_since_ns = Some(since_ns);
        now_ns.saturating_sub(since_ns)
    }

    /// Since when the exit of this record has been waiting.
    pub(crate) fn waiting_since_ns(&self) -> Option<i64> {
        self.waiting_since_ns
    }

    /// The place on `side`.
    pub(super) fn place_mut(&mut self, side: i64) -> &mut Option<QueuePlace> {
        &mut self.places[usize::from(side < 0)]
    }
}
