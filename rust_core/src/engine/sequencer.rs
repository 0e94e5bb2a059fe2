//! The one order of inputs: numbers and stamps records before the engine sees them.

use crate::record::RecordHeader;

/// Gives `input_seq` and `sequence_time_ns = max(previous + 1, now)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sequencer {
    last_seq: u64,
    last_time_ns: i64,
}

impl Sequencer {
    /// Stamps a record that arrives at `now_ns`.
    pub fn stamp(&mut self, header: &mut RecordHeader, now_ns: i64) {
        self.last_seq = self.last_seq.saturating_add(1);
        self.last_time_ns = now_ns.max(self.last_time_ns.saturating_add(1));
        header.input_seq = self.last_seq;
        header.sequence_time_ns = self.last_time_ns;
    }

    /// Keeps the stamp of a record that has one, else stamps it with its receive time.
    pub fn stamp_if_missing(&mut self, header: &mut RecordHeader) {
        if header.input_seq == 0 {
            self.stamp(header, header.receive_time_ns);
        } else {
            self.last_seq = header.input_seq;
            self.last_time_ns = header.sequence_time_ns;
        }
    }

    /// Goes on behind a record of an earlier life.
    pub fn continue_after(&mut self, input_seq: u64, sequence_time_ns: i64) {
        self.last_seq = self.last_seq.max(input_seq);
        self.last_time_ns = self.last_time_ns.max(sequence_time_ns);
    }

    /// Number of the last record.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }
}
