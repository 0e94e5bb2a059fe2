//! What appends change: the buffer of encoded frames, and where it will stand in the log.
//!
//! Why: an append must cost nanoseconds, so it encodes under a short lock and touches no file. A commit
//! takes the buffer away as a batch and writes it elsewhere (`output`).
//!
//! Invariants: frames are in sequence, chained within their segment, and a cut says behind which byte
//! a segment ends and which one follows. Neither buffer nor list of cuts grows in steady state.
//!
//! It writes nothing and reads no clock but to say when a segment is old enough.

use std::time::Instant;

use super::frame::{FRAME_PAYLOAD_BYTES_MAX, FrameHead, encode_frame, frame_bytes, frame_crc};
use super::reader::size;
use super::segment::{
    FOOTER_BYTES, SEGMENT_HEADER_BYTES, SEGMENT_ID_MAX, SegmentHeader, SegmentStats,
};
use super::writer::Options;
use crate::record::RecordHeader;
use crate::record_upgrade::SegmentSchema;

/// Bytes waiting to be written at which an append commits them itself: the bound of the buffer.
pub(super) const BUFFER_BYTES_MAX: usize = 8 << 20;
/// Memory of a buffer: it is never grown.
pub(super) const BUFFER_BYTES: usize = BUFFER_BYTES_MAX + frame_bytes(FRAME_PAYLOAD_BYTES_MAX);
/// Cuts that two commits have between them without growing their list.
pub(super) const CUTS_MIN: usize = 16;

// A sync lag fits its field: there are never more unsynced frames than two buffers hold.
const _: () = assert!(2 * (BUFFER_BYTES_MAX + FRAME_PAYLOAD_BYTES_MAX) < u32::MAX as usize);

/// What appends change: the buffer and where it will stand in the log.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) options: Options,
    pub(super) header: SegmentHeader,
    pub(super) buffer: Vec<u8>,
    pub(super) cuts: Vec<Cut>,
    pub(super) chain: u32,
    pub(super) segment_bytes: u64,
    pub(super) stats: Option<SegmentStats>,
    /// Of the records in the segment; 0 as long as none names one.
    pub(super) trading_day: u32,
    /// When the thread seals the segment, if age counts and it has a record.
    pub(super) seal_at: Option<Instant>,
    pub(super) last_seq: u64,
    pub(super) is_stopping: bool,
}

/// A segment ends behind `offset` of the buffer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    pub(super) offset: usize,
    pub(super) stats: Option<SegmentStats>,
    pub(super) next: Option<SegmentHeader>,
}

#[derive(Debug)]
pub(super) struct Batch {
    pub(super) buffer: Vec<u8>,
    pub(super) cuts: Vec<Cut>,
    pub(super) last_seq: u64,
}

impl Queue {
    pub(super) fn new(options: Options, segment_id: u64, last_seq: u64) -> Self {
        let header = Self::header(options, segment_id, last_seq);
        Self {
            options,
            header,
            buffer: Vec::with_capacity(BUFFER_BYTES),
            cuts: Vec::with_capacity(CUTS_MIN),
            chain: header.chain_seed(),
            segment_bytes: size(SEGMENT_HEADER_BYTES),
            stats: None,
            trading_day: 0,
            seal_at: None,
            last_seq,
            is_stopping: false,
        }
    }

    pub(super) fn header(options: Options, segment_id: u64, last_seq: u64) -> SegmentHeader {
        SegmentHeader {
            kind: options.kind,
            wal_id: options.wal_id,
            segment_id,
            first_seq: last_seq + 1,
            epoch: options.epoch,
            schema: SegmentSchema::Current,
        }
    }

    /// Whether a record belongs into the next segment: this one is full, or of another day.
    pub(super) fn must_cut(&self, header: &RecordHeader, record_bytes: usize) -> bool {
        let end = self.segment_bytes + size(frame_bytes(record_bytes) + FOOTER_BYTES);
        let day = header.trading_day;
        let is_other_day = day != 0 && self.trading_day != 0 && day != self.trading_day;
        end > self.options.segment_bytes || (is_other_day && self.stats.is_some())
    }

    pub(super) fn encode(
        &mut self,
        header: &RecordHeader,
        record: &[u8],
        durable_seq: u64,
    ) -> Result<(), &'static str> {
        let seq = self.last_seq.checked_add(1).ok_or("seq is at its end")?;
        let sync_lag = u32::try_from(seq.saturating_sub(durable_seq))
            .map_err(|_| "more unsynced frames than the buffers hold")?;
        let head = FrameHead {
            seq,
            epoch: self.header.epoch,
            record_type: header.record_type.into(),
            time_ns: header.sequence_time_ns.cast_unsigned(),
            prev_crc: self.chain,
            sync_lag,
        };
        self.chain = encode_frame(&mut self.buffer, &head, record, frame_crc)
            .ok_or("a record is larger than a frame's payload")?;
        self.segment_bytes += size(frame_bytes(record.len()));
        if self.trading_day == 0 {
            self.trading_day = header.trading_day;
        }
        if self.stats.is_none()
            && let Some(age) = self.options.seal_after
        {
            self.seal_at = Instant::now().checked_add(age);
        }
        self.stats = Some(SegmentStats::with(self.stats, seq, header));
        self.last_seq = seq;
        Ok(())
    }

    /// Ends the segment here; `is_going_on`: the next one follows.
    pub(super) fn cut(&mut self, is_going_on: bool) -> Result<(), &'static str> {
        let segment_id = self.header.segment_id + 1;
        if is_going_on && segment_id > SEGMENT_ID_MAX {
            return Err("segment ids of eight digits are used up");
        }
        let next = is_going_on.then(|| Self::header(self.options, segment_id, self.last_seq));
        self.cuts.push(Cut {
            offset: self.buffer.len(),
            stats: self.stats,
            next,
        });
        if let Some(next) = next {
            self.header = next;
            self.chain = next.chain_seed();
            self.segment_bytes = size(SEGMENT_HEADER_BYTES);
        }
        self.stats = None;
        self.trading_day = 0;
        self.seal_at = None;
        Ok(())
    }
}
