//! What a writer tells about itself while it writes: eight words that anyone may read at any time.
//!
//! Why: a monitor must see how far a log is durable, that its disk is full one segment ahead, and
//! that it failed, without a lock, a call, or a file system that still takes writes.
//!
//! Invariants:
//! 1. Every word is stored whole. `durable_seq` read before `last_seq` is never above it.
//! 2. It is advisory: no recovery and no reader of records looks at it.
//!
//! | word | content | | word | content |
//! |---|---|---|---|---|
//! | 0 | magic `HFTWMRK1` | | 4 | id of the open segment |
//! | 1 | wal_id, epoch << 32 | | 5 | wall clock of the last sync, ns UTC |
//! | 2 | last_seq | | 6 | failure code, kind << 16, phase << 32 |
//! | 3 | durable_seq | | 7 | 1 while the next segment has its space |
//!
//! Operator's page: `docs/wal-format.md`.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::error::WalError;
use super::map::{Map, WORD_COUNT};
use super::reader::read_failed;
use super::segment::LogKind;
use crate::reason::ReasonCode;

/// The file's name in a log's folder.
pub(super) const WATERMARK_NAME: &str = "watermark";
const MAGIC: u64 = u64::from_le_bytes(*b"HFTWMRK1");

/// Where a writer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum WriterPhase {
    /// It takes records, or its process died.
    Open = 1,
    /// It sealed its log.
    Sealed = 2,
    /// It let go of the log without sealing.
    Closed = 3,
    /// A write or sync failed; the code says which.
    Failed = 4,
}

impl WriterPhase {
    /// As shown to an operator.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Sealed => "sealed",
            Self::Closed => "closed",
            Self::Failed => "failed",
        }
    }

    fn from_number(number: u64) -> Option<Self> {
        [Self::Open, Self::Sealed, Self::Closed, Self::Failed]
            .into_iter()
            .find(|phase| *phase as u64 == number)
    }
}

/// The words of a writer, in its file or, without a file, in memory.
#[derive(Debug)]
pub(super) enum Words {
    /// Of a simulated disk.
    Memory(Box<[AtomicU64; WORD_COUNT]>),
    /// The file's.
    Mapped(Map),
}

/// The writer's side.
#[derive(Debug)]
pub(super) struct Watermark {
    words: Words,
    kind: LogKind,
}

impl Watermark {
    pub(super) fn new(words: Words, kind: LogKind, wal_id: u32, epoch: u32, last_seq: u64) -> Self {
        let watermark = Self { words, kind };
        watermark.put(1, u64::from(wal_id) | u64::from(epoch) << 32);
        watermark.put(2, last_seq);
        watermark.put(3, last_seq);
        watermark.set_phase(WriterPhase::Open, ReasonCode::Unset);
        watermark.put(0, MAGIC);
        watermark
    }

    /// Records up to `last_seq` are about to be written into this segment.
    pub(super) fn writing(&self, last_seq: u64) {
        self.put(2, last_seq);
    }

    pub(super) fn begun(&self, segment_id: u64) {
        self.put(4, segment_id);
    }

    /// A sync returned.
    pub(super) fn synced(&self, durable_seq: u64) {
        self.put(3, durable_seq);
        // Advisory and read by no one who decides; a clock before 1970 counts as none.
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_ns = now
            .ok()
            .and_then(|since| u64::try_from(since.as_nanos()).ok());
        self.put(5, now_ns.unwrap_or(0));
    }

    pub(super) fn set_phase(&self, phase: WriterPhase, code: ReasonCode) {
        let word = u64::from(code.code()) | (self.kind as u64) << 16 | (phase as u64) << 32;
        self.put(6, word);
    }

    pub(super) fn set_space_ahead(&self, has_space: bool) {
        self.put(7, has_space.into());
    }

    fn put(&self, index: usize, value: u64) {
        let words: &[AtomicU64; WORD_COUNT] = match &self.words {
            Words::Memory(words) => words,
            Words::Mapped(map) => map.words(),
        };
        if let Some(word) = words.get(index) {
            word.store(value, Ordering::Release);
        }
    }
}

/// What a watermark file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatermarkView {
    /// Identity of the log.
    pub wal_id: u32,
    /// Its kind.
    pub kind: LogKind,
    /// The writer's epoch.
    pub epoch: u32,
    /// Highest sequence handed to the disk.
    pub last_seq: u64,
    /// Highest acknowledged sequence.
    pub durable_seq: u64,
    /// The open segment, 0 before the first.
    pub segment_id: u64,
    /// Where the writer stands.
    pub phase: WriterPhase,
    /// Code of its failure, 0 without one.
    pub failure: u16,
    /// Whether the next segment has its space already.
    pub has_space_ahead: bool,
    /// Wall clock of the last sync, ns UTC; 0 before the first.
    pub sync_time_ns: u64,
}

/// Reads the watermark of a log; `None` if no writer has one there.
///
/// # Errors
/// A file that cannot be read or is no watermark (612).
pub fn read_watermark(dir: &Path) -> Result<Option<WatermarkView>, WalError> {
    let path = dir.join(WATERMARK_NAME);
    let map = match Map::open(&path) {
        Ok(map) => map,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && dir.is_dir() => {
            return Ok(None);
        }
        Err(error) => return Err(read_failed(&path, "reading", error)),
    };
    let load = |index: usize| {
        let word = map.words().get(index);
        word.map_or(0, |word| word.load(Ordering::Acquire))
    };
    // In this order: the writer moves last_seq first.
    let (durable_seq, last_seq, who, state) = (load(3), load(2), load(1), load(6));
    let low = |word: u64| u32::try_from(word & u64::from(u32::MAX)).unwrap_or(0);
    let halfword = |shift: u32| u16::try_from(state >> shift & 0xffff).unwrap_or(0);
    let view = LogKind::from_number(halfword(16)).zip(WriterPhase::from_number(state >> 32));
    let (kind, phase) = view.filter(|_| load(0) == MAGIC).ok_or_else(|| {
        let what = "it is no watermark, or just being made";
        read_failed(&path, "reading", std::io::Error::other(what))
    })?;
    Ok(Some(WatermarkView {
        wal_id: low(who),
        kind,
        epoch: low(who >> 32),
        last_seq,
        durable_seq,
        segment_id: load(4),
        phase,
        failure: halfword(0),
        has_space_ahead: load(7) != 0,
        sync_time_ns: load(5),
    }))
}
