//! A decider that follows a fixed list of decisions.
//!
//! Why: venues are compared on sequences of requests that no engine would make (a cancel that
//! overtakes its order, a cancel of a filled one).
//!
//! Invariants:
//! 1. Every decision is made once, in time order, at the first record at or after its time.
//!
//! It looks at no record's content. Operator's page: `docs/backtest.md`.

use super::Decide;
use crate::record::{DecisionRecord, RecordHeader};

/// A fixed list of decisions, each made at the first record at or after its `sequence_time_ns`.
#[derive(Debug, Default)]
pub struct Script {
    decisions: Vec<DecisionRecord>,
    next: usize,
}

impl Script {
    /// A script, in time order.
    #[must_use]
    pub fn new(mut decisions: Vec<DecisionRecord>) -> Self {
        decisions.sort_by_key(|decision| decision.header.sequence_time_ns);
        Self { decisions, next: 0 }
    }
}

impl Decide for Script {
    fn on_record(&mut self, header: &RecordHeader, _bytes: &[u8], out: &mut Vec<DecisionRecord>) {
        while let Some(decision) = self.decisions.get(self.next) {
            if decision.header.sequence_time_ns > header.sequence_time_ns {
                break;
            }
            let mut made = *decision;
            made.header.input_seq = header.input_seq;
            made.header.sequence_time_ns = header.sequence_time_ns;
            out.push(made);
            self.next += 1;
        }
    }
}
