//! Counters: how many records, decisions, refusals and drops, by number.
//!
//! Why: the hot path counts and does not log; whoever wants to know reads these.
//!
//! Invariants:
//! 1. Counting allocates nothing: one slot for every type and every reason code.
//! 2. `decisions` = approved, refused and noted records; `refusals` also counts those not written
//!    out.
//!
//! It holds no time. Operator's page: `docs/reason-codes.md`.

use crate::reason::ReasonCode;

/// Slots for reason codes: they are below 1,000.
const CODE_SLOTS: usize = 1_000;
/// Slots for record types.
const TYPE_SLOTS: usize = 32;

/// What an engine counted since it was made.
#[derive(Debug, Clone)]
pub struct Counters {
    records: [u64; TYPE_SLOTS],
    /// Decision records written.
    pub decisions: u64,
    /// Of these, approved ones.
    pub approved: u64,
    /// Evaluations that gave NaN: warm-up, gaps, bad books, division by zero.
    pub nan_signals: u64,
    /// Fills counted into a position.
    pub fills: u64,
    refusals: Box<[u64]>,
    dropped: Box<[u64]>,
    broker: Box<[u64]>,
    changes: Box<[u64]>,
    signal_faults: Box<[u64]>,
}

impl Default for Counters {
    fn default() -> Self {
        let slots = || vec![0; CODE_SLOTS].into_boxed_slice();
        Self {
            records: [0; TYPE_SLOTS],
            decisions: 0,
            approved: 0,
            nan_signals: 0,
            fills: 0,
            refusals: slots(),
            dropped: slots(),
            broker: slots(),
            changes: slots(),
            signal_faults: slots(),
        }
    }
}

fn bump(slots: &mut [u64], index: usize) {
    if let Some(slot) = slots.get_mut(index) {
        *slot = slot.saturating_add(1);
    }
}

fn rows(slots: &[u64]) -> Vec<(u16, u64)> {
    let numbers = 0_u16..;
    numbers
        .zip(slots)
        .filter(|(_, count)| **count > 0)
        .map(|(code, count)| (code, *count))
        .collect()
}

impl Counters {
    pub(super) fn count_record(&mut self, record_type: u8) {
        bump(&mut self.records, usize::from(record_type));
    }

    pub(super) fn count_refusal(&mut self, code: ReasonCode) {
        bump(&mut self.refusals, usize::from(code.code()));
    }

    pub(super) fn count_dropped(&mut self, code: ReasonCode) {
        bump(&mut self.dropped, usize::from(code.code()));
    }

    pub(super) fn count_signal_fault(&mut self, code: ReasonCode) {
        bump(&mut self.signal_faults, usize::from(code.code()));
    }

    pub(super) fn count_broker(&mut self, code: ReasonCode) {
        bump(&mut self.broker, usize::from(code.code()));
    }

    pub(super) fn count_change(&mut self, code: ReasonCode) {
        bump(&mut self.changes, usize::from(code.code()));
    }

    /// Changes of the storm guard and of the policy by what caused them.
    #[must_use]
    pub fn changes(&self) -> Vec<(u16, u64)> {
        rows(&self.changes)
    }

    /// Input records by type code, in code order.
    #[must_use]
    pub fn records(&self) -> Vec<(u16, u64)> {
        rows(&self.records)
    }

    /// Refused intents by reason code, including repeats that were not written out.
    #[must_use]
    pub fn refusals(&self) -> Vec<(u16, u64)> {
        rows(&self.refusals)
    }

    /// Records that changed nothing, by reason code.
    #[must_use]
    pub fn dropped(&self) -> Vec<(u16, u64)> {
        rows(&self.dropped)
    }

    /// Odd broker events and rejects by reason code.
    #[must_use]
    pub fn broker_events(&self) -> Vec<(u16, u64)> {
        rows(&self.broker)
    }

    /// Calls of kernels that gave no value, by reason code.
    #[must_use]
    pub fn signal_faults(&self) -> Vec<(u16, u64)> {
        rows(&self.signal_faults)
    }
}
