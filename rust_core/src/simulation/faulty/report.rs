//! What went wrong in a session, counted.
//!
//! Why: a drill is read by its counters: a fault that never hit has tested nothing.
//!
//! Invariants:
//! 1. Every fault has a counter; refusals are also counted by reason.
//!
//! It counts what the exchange did, not what the engine made of it. Operator's page:
//! `docs/backtest.md`.

use std::collections::BTreeMap;

/// How often what went wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Fills that left a rest.
    pub partial_fills: u64,
    /// New orders refused by a drawn reason.
    pub rejected: u64,
    /// New orders refused beyond limit-up or limit-down.
    pub beyond_limit: u64,
    /// New orders refused because of the dynamic band.
    pub beyond_band: u64,
    /// Orders that expired at the session's end.
    pub expired_at_end: u64,
    /// Requests refused after it.
    pub refused_after_end: u64,
    /// Requests that never arrived.
    pub lost_requests: u64,
    /// Reports that were withheld as lost replies.
    pub lost_replies: u64,
    /// Timeout records.
    pub timeouts: u64,
    /// Of the unanswered requests, those that the broker answered when asked.
    pub resolved: u64,
    /// Orders of which something is still withheld or never arrived at the end.
    pub unresolved: u64,
    /// Reports that came twice.
    pub duplicated: u64,
    /// Reports that came late.
    pub late: u64,
    /// Acknowledgements that came after a fill.
    pub fills_before_ack: u64,
}

impl FaultCounts {
    /// Names and values, in field order.
    #[must_use]
    pub fn rows(&self) -> [(&'static str, u64); 14] {
        [
            ("partial_fills", self.partial_fills),
            ("rejected", self.rejected),
            ("beyond_limit", self.beyond_limit),
            ("beyond_band", self.beyond_band),
            ("expired_at_end", self.expired_at_end),
            ("refused_after_end", self.refused_after_end),
            ("lost_requests", self.lost_requests),
            ("lost_replies", self.lost_replies),
            ("timeouts", self.timeouts),
            ("resolved", self.resolved),
            ("unresolved", self.unresolved),
            ("duplicated", self.duplicated),
            ("late", self.late),
            ("fills_before_ack", self.fills_before_ack),
        ]
    }
}

/// What a simulation with faults leaves beside its results.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FaultReport {
    /// How often what went wrong.
    pub counts: FaultCounts,
    /// Refusals of new orders by `ReasonCode` number, drawn and by rule.
    pub rejects: BTreeMap<u16, u64>,
    /// Signed position an instrument, as the exchange knows it.
    pub positions: BTreeMap<u32, i64>,
}
