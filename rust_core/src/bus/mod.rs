//! The bus: sequenced records from one publisher to several readers, in memory.
//!
//! Why: recorder, monitors and Python strategies see what the engine sees and decides without
//! slowing it.
//!
//! Invariants:
//! 1. A slow reader never slows the publisher: publishing looks at no reader, takes no lock and
//!    makes no system call.
//! 2. A reader gets every record once and in order, or an [`Overflow`] that says exactly which are
//!    lost; nothing is lost silently.
//! 3. A record is never torn (see `ring`).
//! 4. There is one publisher: [`Publisher`] cannot be cloned and publishing takes it mutably.
//! 5. Slots and readers are bounded; beyond the bounds is a typed error.
//!
//! It decides nothing and stores nothing; what must survive is in the log. Operator's page:
//! `docs/bus.md`.

mod ring;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::reason::ReasonCode;
use crate::record::{RecordHeader, SCHEMA_VERSION};
pub use ring::RECORD_BYTES_MAX;
use ring::{Found, Ring, WORD_COUNT};

/// Fewest slots of a bus.
pub const SLOT_COUNT_MIN: usize = 2;
/// Most slots of a bus: 256 MiB.
pub const SLOT_COUNT_MAX: usize = 1 << 20;
/// Readers of one bus at a time.
pub const READER_COUNT_MAX: usize = 32;
/// A waiting reader looks again after this long; it costs the publisher nothing.
pub const WAIT_STEP: Duration = Duration::from_micros(200);

/// Why a bus or a reader cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// Not a power of two within the bounds.
    #[error(
        "slot count was {slot_count}, allowed is a power of two from {SLOT_COUNT_MIN} to {SLOT_COUNT_MAX}"
    )]
    SlotCount {
        /// What was asked for.
        slot_count: usize,
    },
    /// Every place for a reader is taken.
    #[error("the bus has {READER_COUNT_MAX} readers, which is the most it takes")]
    ReadersFull,
}

impl BusError {
    /// Its number.
    #[must_use]
    pub fn code(&self) -> ReasonCode {
        match self {
            Self::SlotCount { .. } => ReasonCode::SettingsInvalid,
            Self::ReadersFull => ReasonCode::CapacityReached,
        }
    }
}

/// Records that a reader can no longer have; it goes on behind them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the reader was lapped: {lost} records lost, bus sequence {from_seq} to {to_seq}")]
pub struct Overflow {
    /// How many.
    pub lost: u64,
    /// Bus sequence of the first.
    pub from_seq: u64,
    /// Bus sequence of the last.
    pub to_seq: u64,
}

impl Overflow {
    /// Its number.
    #[must_use]
    pub fn code(&self) -> ReasonCode {
        ReasonCode::BusOverflow
    }
}

/// What a wait ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// There is something to read.
    Ready,
    /// Nothing came in time.
    TimedOut,
    /// Everything was read, and the publisher is gone.
    Closed,
}

/// Place of one reader, for those who watch.
#[derive(Debug, Default)]
struct Place {
    is_taken: AtomicBool,
    /// Sequence of the last record it got or was told lost.
    read_seq: AtomicU64,
}

#[derive(Debug)]
struct Shared {
    ring: Ring,
    places: [Place; READER_COUNT_MAX],
    is_closed: AtomicBool,
}

/// A handle on a bus: makes readers and tells how it stands.
#[derive(Debug, Clone)]
pub struct Bus {
    shared: Arc<Shared>,
}

impl Bus {
    /// A bus of `slot_count` slots, and its one publisher.
    ///
    /// # Errors
    /// [`BusError::SlotCount`] for a number out of bounds or not a power of two.
    pub fn new(slot_count: usize) -> Result<(Self, Publisher), BusError> {
        let is_fine = (SLOT_COUNT_MIN..=SLOT_COUNT_MAX).contains(&slot_count);
        if !is_fine || !slot_count.is_power_of_two() {
            return Err(BusError::SlotCount { slot_count });
        }
        let shared = Arc::new(Shared {
            ring: Ring::new(slot_count),
            places: std::array::from_fn(|_| Place::default()),
            is_closed: AtomicBool::new(false),
        });
        let publisher = Publisher {
            shared: Arc::clone(&shared),
            seq: 0,
        };
        Ok((Self { shared }, publisher))
    }

    /// A reader of everything that is published from now on.
    ///
    /// # Errors
    /// [`BusError::ReadersFull`] when there are [`READER_COUNT_MAX`].
    pub fn reader(&self) -> Result<Reader, BusError> {
        for (index, place) in self.shared.places.iter().enumerate() {
            let won =
                place
                    .is_taken
                    .compare_exchange(false, true, Ordering::AcqRel, Ordering::Relaxed);
            if won.is_ok() {
                let read_seq = self.shared.ring.head();
                place.read_seq.store(read_seq, Ordering::Relaxed);
                return Ok(Reader {
                    shared: Arc::clone(&self.shared),
                    place: index,
                    read_seq,
                    lost_in_a_row: 0,
                    words: [0; WORD_COUNT],
                });
            }
        }
        Err(BusError::ReadersFull)
    }

    /// Bus sequence of the last record published; 0 before the first.
    #[must_use]
    pub fn head_seq(&self) -> u64 {
        self.shared.ring.head()
    }

    /// Slots it has.
    #[must_use]
    pub fn slot_count(&self) -> u64 {
        self.shared.ring.slot_count()
    }

    /// How many records each reader is behind.
    #[must_use]
    pub fn reader_lags(&self) -> Vec<u64> {
        let head_seq = self.head_seq();
        let taken = |place: &&Place| place.is_taken.load(Ordering::Acquire);
        let lag = |place: &Place| head_seq.saturating_sub(place.read_seq.load(Ordering::Relaxed));
        self.shared.places.iter().filter(taken).map(lag).collect()
    }

    /// True once the publisher is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.is_closed.load(Ordering::Acquire)
    }
}

/// The one that writes; dropping it closes the bus.
#[derive(Debug)]
pub struct Publisher {
    shared: Arc<Shared>,
    seq: u64,
}

impl Publisher {
    /// Publishes one record and returns its bus sequence, which grows by one.
    ///
    /// # Panics
    /// When `bytes` is no whole record of this schema: a bug of the caller.
    #[inline]
    pub fn publish(&mut self, bytes: &[u8]) -> u64 {
        assert!(
            bytes.len() >= size_of::<RecordHeader>() && bytes.len() <= RECORD_BYTES_MAX,
            "Invariant: a record fits a slot"
        );
        assert!(
            bytes.len().is_multiple_of(8),
            "Invariant: a record is made of words"
        );
        let stated = usize::from(u16::from_le_bytes([bytes[0], bytes[1]]));
        assert!(
            stated == bytes.len() && bytes[3] == SCHEMA_VERSION,
            "Invariant: a record states its own size"
        );
        self.seq += 1;
        self.shared.ring.write(self.seq, bytes);
        self.seq
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.shared.is_closed.store(true, Ordering::Release);
    }
}

/// One that reads, with a cursor of its own; dropping it frees its place.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    place: usize,
    /// Sequence of the last record it got or was told lost.
    read_seq: u64,
    /// Overflows since the last record.
    lost_in_a_row: u32,
    /// The last record copied.
    words: [u64; WORD_COUNT],
}

impl Reader {
    /// Appends at most `records_max` records to `out`, back to back, and returns how many.
    ///
    /// # Errors
    /// [`Overflow`] when the next record is gone. Nothing was appended then, and the next call goes
    /// on at the oldest record there is; when that one is gone too before it could be read, at half
    /// the ring, so that a reader whose publisher never rests still gets something.
    pub fn read(&mut self, out: &mut Vec<u8>, records_max: usize) -> Result<usize, Overflow> {
        let mut head_seq = self.shared.ring.head();
        let mut count = 0;
        while count < records_max {
            if self.read_seq == head_seq {
                head_seq = self.shared.ring.head();
                if self.read_seq == head_seq {
                    break;
                }
            }
            match self.shared.ring.read(self.read_seq + 1, &mut self.words) {
                Found::Record(byte_count) => {
                    out.extend_from_slice(&bytemuck::cast_slice(&self.words)[..byte_count]);
                    self.read_seq += 1;
                    self.lost_in_a_row = 0;
                    count += 1;
                }
                Found::NotYet => break,
                Found::Gone if count > 0 => break,
                Found::Gone => return Err(self.skip()),
            }
        }
        self.mirror();
        Ok(count)
    }

    /// The next record, in the reader's own memory; `None` when there is nothing new.
    ///
    /// # Errors
    /// As [`Self::read`].
    #[inline]
    pub fn next_record(&mut self) -> Result<Option<&[u8]>, Overflow> {
        // A slot that is not written yet says so itself: the head need not be looked at.
        match self.shared.ring.read(self.read_seq + 1, &mut self.words) {
            Found::Record(byte_count) => {
                self.read_seq += 1;
                self.lost_in_a_row = 0;
                self.mirror();
                Ok(Some(&bytemuck::cast_slice(&self.words)[..byte_count]))
            }
            Found::NotYet => Ok(None),
            Found::Gone => Err(self.skip()),
        }
    }

    /// Moves behind what is gone.
    fn skip(&mut self) -> Overflow {
        let ring = &self.shared.ring;
        let kept = if self.lost_in_a_row == 0 {
            ring.slot_count()
        } else {
            ring.slot_count() / 2
        };
        self.lost_in_a_row = self.lost_in_a_row.saturating_add(1);
        let from_seq = self.read_seq + 1;
        // The record was found gone, so at least it is behind.
        let to_seq = ring.head().saturating_sub(kept).max(from_seq);
        self.read_seq = to_seq;
        self.mirror();
        Overflow {
            lost: to_seq - from_seq + 1,
            from_seq,
            to_seq,
        }
    }

    fn mirror(&self) {
        let place = &self.shared.places[self.place];
        place.read_seq.store(self.read_seq, Ordering::Relaxed);
    }

    /// Records published and neither read nor told lost.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.shared.ring.head().saturating_sub(self.read_seq)
    }

    /// Bus sequence of the last record it got or was told lost.
    #[must_use]
    pub fn read_seq(&self) -> u64 {
        self.read_seq
    }

    /// Waits until there is something to read, the bus is closed, or `timeout` is over. It sleeps
    /// in steps of [`WAIT_STEP`], so that the publisher has nobody to wake.
    #[must_use]
    pub fn wait(&self, timeout: Duration) -> Waited {
        let end = Instant::now().checked_add(timeout);
        loop {
            // In this order: what was published before the bus was closed is still to be read.
            let is_closed = self.shared.is_closed.load(Ordering::Acquire);
            if self.lag() > 0 {
                return Waited::Ready;
            }
            if is_closed {
                return Waited::Closed;
            }
            let now = Instant::now();
            let left = end.map_or(WAIT_STEP, |end| end.saturating_duration_since(now));
            if left.is_zero() {
                return Waited::TimedOut;
            }
            std::thread::park_timeout(left.min(WAIT_STEP));
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let place = &self.shared.places[self.place];
        place.is_taken.store(false, Ordering::Release);
    }
}
