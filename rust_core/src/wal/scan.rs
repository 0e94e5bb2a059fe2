//! Walks the frames of one segment and says where and why it stopped. Pure: bytes in, facts out.

use super::error::{Fault, Following};
use super::frame::{FRAME_ALIGN_BYTES, FRAME_HEADER_BYTES, Frame, decode_frame, frame_crc, u64_at};
use super::segment::{
    Footer, SEGMENT_HEADER_BYTES, SegmentHeader, SegmentStats, check_record, upgrade_record,
};
use crate::record_upgrade::SegmentSchema;

/// Why a scan stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stop {
    /// The bytes end behind a whole frame, or only zeros follow (a preallocated tail).
    End,
    /// A footer starts here, whole or not.
    Footer,
    /// Not a valid next frame.
    Bad(Fault),
}

/// The valid frames of a segment, up to where it stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scan {
    /// Bytes of header and valid frames.
    pub(super) data_bytes: usize,
    /// Sequence the next frame must have.
    pub(super) next_seq: u64,
    /// What the records span.
    pub(super) stats: Option<SegmentStats>,
    /// Why it ended there.
    pub(super) stop: Stop,
}

/// Reads frames behind the header until one is not the next of this segment. Payloads go to `tape`,
/// if there is one.
pub(super) fn scan_frames(
    bytes: &[u8],
    header: &SegmentHeader,
    mut tape: Option<&mut Vec<u8>>,
) -> Scan {
    let mut scan = Scan {
        data_bytes: SEGMENT_HEADER_BYTES,
        next_seq: header.first_seq,
        stats: None,
        stop: Stop::End,
    };
    let mut chain = header.chain_seed();
    // Stays empty, and without memory, while the segment is of today's schema.
    let mut upgraded = Vec::new();
    loop {
        let rest = bytes.get(scan.data_bytes..).unwrap_or_default();
        if rest.is_empty() {
            return scan;
        }
        if Footer::starts(rest) {
            return Scan {
                stop: Stop::Footer,
                ..scan
            };
        }
        match next_frame(rest, header, &scan, chain, &mut upgraded) {
            Ok((frame, stats)) => {
                if let Some(tape) = tape.as_deref_mut() {
                    tape.extend_from_slice(record_bytes(&frame, header, &upgraded));
                }
                chain = frame.crc;
                scan.data_bytes += frame.frame_bytes();
                scan.next_seq = frame.seq.saturating_add(1);
                scan.stats = Some(stats);
            }
            Err(_) if rest.iter().all(|byte| *byte == 0) => return scan,
            Err(fault) => {
                return Scan {
                    stop: Stop::Bad(fault),
                    ..scan
                };
            }
        }
    }
}

/// The record of a frame that `next_frame` gave, in today's layout.
pub(super) fn record_bytes<'a>(
    frame: &Frame<'a>,
    header: &SegmentHeader,
    upgraded: &'a [u8],
) -> &'a [u8] {
    match header.schema {
        SegmentSchema::Current => frame.payload,
        SegmentSchema::Earlier(_) => upgraded,
    }
}

/// The frame at the start of `rest`, held against everything that is known before reading it. A
/// record of an earlier schema is brought into today's layout in `upgraded`.
pub(super) fn next_frame<'a>(
    rest: &'a [u8],
    header: &SegmentHeader,
    scan: &Scan,
    chain: u32,
    upgraded: &mut Vec<u8>,
) -> Result<(Frame<'a>, SegmentStats), Fault> {
    let frame = decode_frame(rest, frame_crc)?;
    must_be("sequence", frame.seq, scan.next_seq)?;
    must_be("epoch", frame.epoch, header.epoch)?;
    if frame.prev_crc != chain {
        return Err(Fault::Chain {
            was: frame.prev_crc,
            expected: chain,
        });
    }
    let record = match header.schema {
        SegmentSchema::Current => check_record(header.kind, frame.payload)?,
        SegmentSchema::Earlier(earlier) => {
            upgrade_record(earlier, header.kind, frame.payload, upgraded)?
        }
    };
    must_be("frame type", frame.record_type, record.record_type)?;
    must_be(
        "frame time",
        frame.time_ns.cast_signed(),
        record.sequence_time_ns,
    )?;
    if frame.sync_lag == 0 {
        return Err(Fault::Number {
            field: "sync lag",
            was: 0,
            expected: 1,
        });
    }
    Ok((frame, SegmentStats::with(scan.stats, frame.seq, &record)))
}

/// Looks for valid frames at or behind the byte where a scan stopped. The chain cannot be checked
/// there; checksum, sequence range and epoch can. Without `bad_seq` (the header is lost) any
/// sequence counts.
///
/// Unsynced sectors may persist in any order, so a later frame alone is no evidence of damage: only
/// one that says the bad frame was durable when it was written (`seq - sync_lag >= bad_seq`) is.
pub(super) fn find_following(
    bytes: &[u8],
    from: usize,
    bad_seq: Option<u64>,
    epoch: u32,
) -> Following {
    let mut following = Following::default();
    let mut at = from.next_multiple_of(FRAME_ALIGN_BYTES);
    let frames_left = bytes.len().saturating_sub(at) / FRAME_HEADER_BYTES;
    let frames_left = u64::try_from(frames_left).unwrap_or(u64::MAX);
    let seqs = bad_seq.map_or(0..=u64::MAX, |seq| seq..=seq.saturating_add(frames_left));
    while let Some(rest) = bytes
        .get(at..)
        .filter(|rest| rest.len() >= FRAME_HEADER_BYTES)
    {
        // The cheap test first: the sequence field alone rules out nearly every place.
        let is_plausible = u64_at(rest, 8).is_some_and(|seq| seqs.contains(&seq));
        let frame = is_plausible
            .then(|| decode_frame(rest, frame_crc).ok())
            .flatten();
        let Some(frame) = frame.filter(|frame| frame.epoch >= epoch) else {
            at += FRAME_ALIGN_BYTES;
            continue;
        };
        following.frames += 1;
        following.durable_seq = following.durable_seq.max(Some(frame.durable_seq()));
        following.first_offset = following.first_offset.or_else(|| u64::try_from(at).ok());
        at += frame.frame_bytes();
    }
    following
}

pub(super) fn must_be<T: PartialEq + Into<i128>>(
    field: &'static str,
    was: T,
    expected: impl Into<T>,
) -> Result<(), Fault> {
    let expected = expected.into();
    if was == expected {
        return Ok(());
    }
    Err(Fault::Number {
        field,
        was: was.into(),
        expected: expected.into(),
    })
}
