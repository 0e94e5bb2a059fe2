//! Things that will happen, earliest first.
//!
//! Why: requests and responses overlap freely, since a cancel is faster than a place.
//!
//! Invariants:
//! 1. What is due at one time comes out in the order it was put in.
//!
//! It does not know the time. Operator's page: `docs/backtest.md`.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Something that happens at a time; equal times keep the order they were scheduled in.
#[derive(Debug, Clone, Copy)]
struct Due<T> {
    time_ns: i64,
    order: u64,
    item: T,
}

impl<T> PartialEq for Due<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.time_ns, self.order) == (other.time_ns, other.order)
    }
}

impl<T> Eq for Due<T> {}

impl<T> PartialOrd for Due<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Due<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.time_ns, self.order).cmp(&(other.time_ns, other.order))
    }
}

/// Things to happen, earliest first.
#[derive(Debug)]
pub(super) struct Schedule<T> {
    heap: BinaryHeap<Reverse<Due<T>>>,
    scheduled: u64,
}

impl<T> Schedule<T> {
    pub(super) fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
            scheduled: 0,
        }
    }

    pub(super) fn add(&mut self, time_ns: i64, item: T) {
        self.scheduled += 1;
        self.heap.push(Reverse(Due {
            time_ns,
            order: self.scheduled,
            item,
        }));
    }

    pub(super) fn next_time(&self) -> Option<i64> {
        self.heap.peek().map(|due| due.0.time_ns)
    }

    pub(super) fn pop(&mut self) -> Option<T> {
        self.heap.pop().map(|due| due.0.item)
    }
}
