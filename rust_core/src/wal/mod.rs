//! Write-ahead log v1: records in checksummed frames, frames in segments, segments in a log.
//!
//! Why: an order intent must be durable before the broker is called, and whatever the engine
//! decided must be decidable again from the log, bit for bit.
//!
//! Invariants (the property tests repeat these numbers):
//! 1. An acknowledged record (`seq <= durable_seq`) is read back after any crash.
//! 2. What is read back is a prefix of what was appended: no phantom, no other content, no
//!    reordering. `seq` grows by one with every frame of a log, across segments.
//! 3. Damage is told from an interrupted write: a bad frame followed by a valid one that was
//!    written when the bad one was already durable is never cut off.
//! 4. A sealed segment is immutable; one flipped bit in it is found.
//! 5. A failed write or sync is never repeated: the writer answers every later call with it.
//!
//! It does not interpret records beyond their head, merge logs, or load them into a store.
//! Operator's page: `docs/wal-format.md`.
#![deny(clippy::indexing_slicing)]
#![cfg_attr(
    test,
    allow(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "a test stops at the first surprise"
    )
)]

mod ahead;
mod disk;
mod error;
mod follow;
mod frame;
mod manifest;
mod map;
mod output;
mod queue;
mod reader;
mod recovery;
mod sabotage;
mod salvage;
mod scan;
mod segment;
mod slow_disk;
mod watermark;
mod writer;

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::failing::{FailingDisk, failing_writer};

pub use error::{Fault, Following, RecordFault, WalError};
pub use follow::{Followed, SegmentFollower};
pub use frame::{FRAME_HEADER_BYTES, FRAME_PAYLOAD_BYTES_MAX};
pub use manifest::{Entry, EntryKind, Identity, Manifest, append_taken_away, read_manifest};
pub use reader::{
    Log, LogCheck, Segment, SegmentCheck, TornTail, list_segments, read_log, read_segment,
    verify_log, verify_segment,
};
pub use recovery::{ManifestFound, RecoveredTail, RecoveryReport, recover_log};
pub use salvage::{Hole, Salvage, SalvagedPart, salvage_log};
pub use segment::{
    FOOTER_BYTES, FORMAT_VERSION, LogKind, SEGMENT_HEADER_BYTES, SegmentInfo, SegmentState,
    SegmentStats,
};
pub use slow_disk::SyncDelay;
pub use watermark::{WatermarkView, WriterPhase, read_watermark};
pub use writer::{Options, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, Syncer, Writer};
