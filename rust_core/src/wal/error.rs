//! What can go wrong with a log, by who acts: the operator (damage, disk, a second writer) or the
//! developer (bytes that are no record, a closed writer).

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::reason::ReasonCode;
use crate::record::TapeError;

/// What is wrong with bytes that should be a segment header, a frame or a footer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The file ends before the structure does.
    #[error("{structure} needs {need} bytes, {have} are left")]
    Torn {
        /// Segment header, frame or footer.
        structure: &'static str,
        /// Bytes it needs.
        need: usize,
        /// Bytes there are.
        have: usize,
    },
    /// The first bytes are not those of the structure.
    #[error("{structure} does not start with its magic bytes")]
    Magic {
        /// Segment header or footer.
        structure: &'static str,
    },
    /// The stored checksum does not match the bytes.
    #[error("{structure} checksum was {was:#010x}, expected {expected:#010x}")]
    Checksum {
        /// Segment header, frame or footer.
        structure: &'static str,
        /// As stored.
        was: u32,
        /// As computed from the bytes.
        expected: u32,
    },
    /// A frame length that no frame has.
    #[error("frame length was {was}, allowed is 1 to {max}")]
    Length {
        /// As stored.
        was: u32,
        /// Largest allowed.
        max: usize,
    },
    /// The frame's link to its predecessor is wrong.
    #[error("checksum of the previous frame was {was:#010x}, expected {expected:#010x}")]
    Chain {
        /// As stored.
        was: u32,
        /// Of the frame before, or the segment's seed.
        expected: u32,
    },
    /// A number that must have one value has another.
    #[error("{field} was {was}, expected {expected}")]
    Number {
        /// Which.
        field: &'static str,
        /// As stored.
        was: i128,
        /// As it must be.
        expected: i128,
    },
    /// The content hash of a sealed segment does not match.
    #[error("sha256 was {was}, the footer says {expected}")]
    ContentHash {
        /// Of the bytes, hexadecimal.
        was: String,
        /// In the footer, hexadecimal.
        expected: String,
    },
    /// A sealed segment is not the one that the log's manifest names.
    #[error("sha256 was {was}, the manifest says {expected}")]
    Listed {
        /// Of the segment, hexadecimal.
        was: String,
        /// In the manifest, hexadecimal.
        expected: String,
    },
    /// The payload is not one record of this schema that belongs into this log.
    #[error("payload is not one record of this log: {0}")]
    Record(#[from] RecordFault),
}

/// Why bytes are not one record of a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// No record, or a cut one.
    #[error("{0}")]
    Tape(#[from] TapeError),
    /// More or less than one record.
    #[error("{have} bytes, its record has {record_bytes}")]
    NotOne {
        /// Bytes given.
        have: usize,
        /// Size of the first record in them.
        record_bytes: usize,
    },
    /// The record belongs into the other log.
    #[error("record type {record_type} does not belong into the {kind} log")]
    WrongLog {
        /// Its type code.
        record_type: u8,
        /// The log's kind.
        kind: &'static str,
    },
}

/// What follows a bad frame: the evidence that it is damage and not an interrupted write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Following {
    /// Valid frames found behind the bad one.
    pub frames: u64,
    /// Highest sequence that one of them says was durable when it was written.
    pub durable_seq: Option<u64>,
    /// Byte offset of the first of them.
    pub first_offset: Option<u64>,
}

/// Everything the log can refuse or report.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WalError {
    /// Durable content of an open segment is damaged; nothing was cut off.
    #[error("{path}: byte {offset}: {fault}; frame {seq} was expected there, {frames} valid frames follow, and frames up to {durable_seq} were durable", path = path.display(), frames = following.frames, durable_seq = following.durable_seq.unwrap_or(0))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// First bad byte range starts here.
        offset: u64,
        /// Sequence expected there.
        seq: u64,
        /// What is wrong.
        fault: Fault,
        /// The evidence.
        following: Box<Following>,
    },
    /// The folder holds files no writer leaves behind.
    #[error("{path}: {what}", path = path.display())]
    Layout {
        /// The file.
        path: PathBuf,
        /// What is wrong with it being there.
        what: &'static str,
    },
    /// A sealed segment does not match its footer, its hash or its name.
    #[error("{path}: byte {offset}: sealed segment does not match: {fault}", path = path.display())]
    SealedMismatch {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What is wrong.
        fault: Fault,
    },
    /// The segment was written with another record schema or log format.
    #[error("{path}: byte 0: record schema was {was}, expected {expected}", path = path.display())]
    SchemaMismatch {
        /// The file.
        path: PathBuf,
        /// Version and hash in its header.
        was: String,
        /// Version and hash of this program.
        expected: String,
    },
    /// The segment was cut off while it was created; no record can have been durable in it.
    #[error("{path}: byte 0: interrupted while being created, holds no record: {fault}", path = path.display())]
    TornHeader {
        /// The file.
        path: PathBuf,
        /// What is wrong with its header.
        fault: Fault,
    },
    /// Writing, syncing or preparing a file failed; the log is not written any more.
    #[error("{path}: byte {offset}: {operation} failed: {source}; nothing after sequence {durable_seq} is acknowledged", path = path.display())]
    WriteFailed {
        /// The file or folder.
        path: PathBuf,
        /// Where the write began.
        offset: u64,
        /// What was tried.
        operation: &'static str,
        /// The watermark, which stays as it was.
        durable_seq: u64,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// A file or folder could not be read.
    #[error("{path}: {operation} failed: {source}", path = path.display())]
    ReadFailed {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        operation: &'static str,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// A segment is missing between two others.
    #[error("{path}: {field} was {was}, expected {expected}: a segment is missing or from another log", path = path.display())]
    SegmentGap {
        /// The segment after the gap.
        path: PathBuf,
        /// Segment id, first sequence or log identity.
        field: &'static str,
        /// As found.
        was: u64,
        /// As it must be.
        expected: u64,
    },
    /// A segment that the log's manifest names is not in the folder.
    #[error("{path}: not there; the manifest says it was {status}{at}", path = path.display(), at = if place.is_empty() { String::new() } else { format!(" to {place}") })]
    Missing {
        /// The file.
        path: PathBuf,
        /// What the manifest says last of it.
        status: &'static str,
        /// Where the archive put it, else empty.
        place: String,
    },
    /// Another process writes or recovers this log.
    #[error("{path}: another process holds this lock; it writes or recovers the log", path = path.display())]
    Busy {
        /// The lock file.
        path: PathBuf,
    },
    /// The log was already written under a later epoch: this writer was replaced.
    #[error("{path}: epoch was {was}, the log is already at {expected}", path = path.display())]
    EpochBehind {
        /// The log's folder.
        path: PathBuf,
        /// Asked for.
        was: u64,
        /// Lowest allowed.
        expected: u64,
    },
    /// A writer's option is out of its range or contradicts the log in the folder.
    #[error("{path}: {option} was {was}, expected {expected}", path = path.display())]
    Option {
        /// The log's folder or file.
        path: PathBuf,
        /// Which option.
        option: &'static str,
        /// As given.
        was: String,
        /// What is allowed.
        expected: String,
    },
    /// The bytes to append are not records of this log; none of them was written.
    #[error("{path}: bytes to append are not records of this log: {fault}", path = path.display())]
    RecordRefused {
        /// The log's folder.
        path: PathBuf,
        /// Why.
        fault: RecordFault,
    },
    /// The writer was sealed.
    #[error("{path}: the writer was sealed and takes no more records", path = path.display())]
    Closed {
        /// The log's folder.
        path: PathBuf,
    },
    /// A bound of ours does not hold.
    #[error("{path}: {what}", path = path.display())]
    Invariant {
        /// The log's folder.
        path: PathBuf,
        /// Which.
        what: &'static str,
    },
}

impl WalError {
    /// The number an operator looks up.
    #[must_use]
    pub fn code(&self) -> ReasonCode {
        match self {
            Self::Damaged { .. } | Self::Layout { .. } => ReasonCode::WalDamaged,
            Self::TornHeader { .. } => ReasonCode::WalTornTail,
            Self::SealedMismatch { .. } => ReasonCode::WalSegmentMismatch,
            Self::SchemaMismatch { .. } => ReasonCode::WalSchemaMismatch,
            Self::WriteFailed { .. } => ReasonCode::WalWriteFailed,
            Self::ReadFailed { .. } => ReasonCode::WalReadFailed,
            Self::SegmentGap { .. } | Self::Missing { .. } => ReasonCode::LogSequenceGap,
            Self::Busy { .. } | Self::EpochBehind { .. } => ReasonCode::WalBusy,
            Self::Option { .. } => ReasonCode::SettingsInvalid,
            Self::RecordRefused { .. } | Self::Closed { .. } | Self::Invariant { .. } => {
                ReasonCode::InvariantBroken
            }
        }
    }
}
