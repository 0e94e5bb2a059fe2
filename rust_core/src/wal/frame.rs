//! One frame: a 40-byte head, one record, zero padding to 8 bytes. All integers little-endian.
//!
//! Why: the checksum covers everything except itself. With `len` left out, a flipped length can
//! pass as another frame (a test shows it), so the stored order is len, checksum, the rest.
//!
//! | offset | field | | offset | field |
//! |---|---|---|---|---|
//! | 0 | len u32, payload bytes | | 22 | flags u16, always 0 |
//! | 4 | crc32c u32 | | 24 | ts_ns u64, the record's sequence time |
//! | 8 | seq u64 | | 32 | prev_crc u32, chain |
//! | 16 | epoch u32 | | 36 | sync_lag u32, seq minus the durable watermark at writing |
//! | 20 | type u16, record type | | 40 | payload, padding |

use super::error::Fault;
use super::sabotage::{self, Sabotage};

/// Bytes of a frame's head.
pub const FRAME_HEADER_BYTES: usize = 40;
/// Largest payload of a frame; a record of today has at most 256 bytes.
pub const FRAME_PAYLOAD_BYTES_MAX: usize = 4096;
/// Frames start at multiples of this, counted from the start of the file.
pub(super) const FRAME_ALIGN_BYTES: usize = 8;

const CRC_AT: usize = 4;
const BEHIND_CRC: usize = 8;

/// Checksum of a whole padded frame; a parameter only so that a test can use a wrong one.
pub(super) type FrameCrc = fn(&[u8]) -> u32;

/// A decoded frame; `payload` borrows from the file's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) seq: u64,
    pub(super) epoch: u32,
    pub(super) record_type: u16,
    pub(super) time_ns: u64,
    pub(super) prev_crc: u32,
    pub(super) sync_lag: u32,
    pub(super) crc: u32,
    pub(super) payload: &'a [u8],
}

impl Frame<'_> {
    /// Bytes of the frame in the file.
    pub(super) fn frame_bytes(&self) -> usize {
        frame_bytes(self.payload.len())
    }

    /// The highest sequence that was durable when this frame was written.
    pub(super) fn durable_seq(&self) -> u64 {
        self.seq.saturating_sub(u64::from(self.sync_lag))
    }
}

/// Everything of a frame's head that its writer chooses.
#[derive(Debug, Clone, Copy)]
pub(super) struct FrameHead {
    pub(super) seq: u64,
    pub(super) epoch: u32,
    pub(super) record_type: u16,
    pub(super) time_ns: u64,
    pub(super) prev_crc: u32,
    pub(super) sync_lag: u32,
}

/// Bytes of a frame with a payload of `payload_bytes`.
pub(super) const fn frame_bytes(payload_bytes: usize) -> usize {
    FRAME_HEADER_BYTES + payload_bytes.next_multiple_of(FRAME_ALIGN_BYTES)
}

/// Checksum over everything except the checksum field: length, head, payload and padding.
pub(super) fn frame_crc(frame: &[u8]) -> u32 {
    let len = frame.get(..CRC_AT).unwrap_or_default();
    crc32c::crc32c_append(
        crc32c::crc32c(len),
        frame.get(BEHIND_CRC..).unwrap_or_default(),
    )
}

/// Appends one frame to `out` and returns its checksum, or `None` if the payload is empty or above
/// [`FRAME_PAYLOAD_BYTES_MAX`] (nothing is appended then).
pub(super) fn encode_frame(
    out: &mut Vec<u8>,
    head: &FrameHead,
    payload: &[u8],
    crc_of: FrameCrc,
) -> Option<u32> {
    let len = u32::try_from(payload.len()).ok()?;
    if payload.is_empty() || payload.len() > FRAME_PAYLOAD_BYTES_MAX {
        return None;
    }
    let mut head_bytes = [0_u8; FRAME_HEADER_BYTES];
    put(&mut head_bytes, 0, &len.to_le_bytes());
    put(&mut head_bytes, 8, &head.seq.to_le_bytes());
    put(&mut head_bytes, 16, &head.epoch.to_le_bytes());
    put(&mut head_bytes, 20, &head.record_type.to_le_bytes());
    put(&mut head_bytes, 24, &head.time_ns.to_le_bytes());
    put(&mut head_bytes, 32, &head.prev_crc.to_le_bytes());
    put(&mut head_bytes, 36, &head.sync_lag.to_le_bytes());
    let start = out.len();
    out.extend_from_slice(&head_bytes);
    out.extend_from_slice(payload);
    out.resize(start + frame_bytes(payload.len()), 0);
    let frame = out.get_mut(start..)?;
    let crc = crc_of(frame);
    put(frame, CRC_AT, &crc.to_le_bytes());
    Some(crc)
}

/// Reads the frame at the start of `bytes`: its own fields and checksum only. Sequence, epoch and
/// chain are the scan's business.
pub(super) fn decode_frame(bytes: &[u8], crc_of: FrameCrc) -> Result<Frame<'_>, Fault> {
    let torn = |need| Fault::Torn {
        structure: "frame",
        need,
        have: bytes.len(),
    };
    let head_torn = || torn(FRAME_HEADER_BYTES);
    if bytes.len() < FRAME_HEADER_BYTES {
        return Err(head_torn());
    }
    let was = u32_at(bytes, 0).ok_or_else(head_torn)?;
    let len = usize::try_from(was).unwrap_or(usize::MAX);
    if len == 0 || len > FRAME_PAYLOAD_BYTES_MAX {
        return Err(Fault::Length {
            was,
            max: FRAME_PAYLOAD_BYTES_MAX,
        });
    }
    let frame = bytes
        .get(..frame_bytes(len))
        .ok_or_else(|| torn(frame_bytes(len)))?;
    let crc = u32_at(frame, CRC_AT).ok_or_else(head_torn)?;
    let expected = crc_of(frame);
    if crc != expected && !sabotage::is(Sabotage::NoChecksum) {
        return Err(Fault::Checksum {
            structure: "frame",
            was: crc,
            expected,
        });
    }
    let flags = u16_at(frame, 22).ok_or_else(head_torn)?;
    if flags != 0 {
        return Err(Fault::Number {
            field: "frame flags",
            was: flags.into(),
            expected: 0,
        });
    }
    Ok(Frame {
        seq: u64_at(frame, 8).ok_or_else(head_torn)?,
        epoch: u32_at(frame, 16).ok_or_else(head_torn)?,
        record_type: u16_at(frame, 20).ok_or_else(head_torn)?,
        time_ns: u64_at(frame, 24).ok_or_else(head_torn)?,
        prev_crc: u32_at(frame, 32).ok_or_else(head_torn)?,
        sync_lag: u32_at(frame, 36).ok_or_else(head_torn)?,
        crc,
        payload: frame
            .get(FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + len)
            .ok_or_else(|| torn(frame_bytes(len)))?,
    })
}

/// Copies `value` to `at`; the callers' offsets are constants inside their arrays.
pub(super) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(field) = bytes.get_mut(at..at + value.len()) {
        field.copy_from_slice(value);
    }
}

pub(super) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array_at(bytes, at).map(u16::from_le_bytes)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_le_bytes)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array_at(bytes, at).map(u64::from_le_bytes)
}
