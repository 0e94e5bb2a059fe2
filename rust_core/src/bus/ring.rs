//! The slots of the bus: one writer, any number of readers, no lock and no wait.
//!
//! Why: the one who writes may never be slowed by those who read.
//!
//! Invariants:
//! 1. A reader gets a record whole or not at all: a slot's version is odd while it is written, and
//!    names the record it holds otherwise; a copy counts only when the version did not move.
//! 2. Writing a slot looks at no reader.
//! 3. Versions only grow, so a slot that was written twice never looks like the first time.
//!
//! A slot is made of atomic words, copied with relaxed order between two fences, so there is no
//! data race to be undefined and no `unsafe` to argue about. Operator's page: `docs/bus.md`.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::record::LAYOUTS;

/// Eight-byte words of the largest record a slot can hold.
pub(super) const WORD_COUNT: usize = 31;
/// Bytes of the largest record a slot can hold.
pub const RECORD_BYTES_MAX: usize = WORD_COUNT * 8;

const _: () = {
    let mut place = 0;
    while place < LAYOUTS.len() {
        assert!(
            LAYOUTS[place].bytes <= RECORD_BYTES_MAX,
            "Invariant: every record fits a slot"
        );
        place += 1;
    }
};
const _: () = assert!(size_of::<Slot>() == 256);

/// One record with its version, on cache lines of its own.
#[repr(align(64))]
struct Slot {
    version: AtomicU64,
    words: [AtomicU64; WORD_COUNT],
}

/// On a cache line of its own, so that readers who look at it do not slow the writer's slots.
#[repr(align(128))]
struct Head(AtomicU64);

/// What a slot had to say about a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// The record, this many bytes.
    Record(usize),
    /// It is not written yet.
    NotYet,
    /// It was there; a later one is, or is about to be.
    Gone,
}

/// The slots and how far they are written.
pub(super) struct Ring {
    head: Head,
    slots: Box<[Slot]>,
    mask: u64,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Ring")
            .field("head", &self.head())
            .field("slot_count", &self.slots.len())
            .finish()
    }
}

impl Ring {
    /// A ring of `slot_count` slots, a power of two.
    pub(super) fn new(slot_count: usize) -> Self {
        assert!(
            slot_count.is_power_of_two(),
            "Invariant: the slot count is a power of two"
        );
        let slot = || Slot {
            version: AtomicU64::new(0),
            words: std::array::from_fn(|_| AtomicU64::new(0)),
        };
        Self {
            head: Head(AtomicU64::new(0)),
            slots: (0..slot_count).map(|_| slot()).collect(),
            mask: slot_count as u64 - 1,
        }
    }

    pub(super) fn slot_count(&self) -> u64 {
        self.mask + 1
    }

    /// Sequence of the last record that is written whole; 0 before the first.
    #[inline]
    pub(super) fn head(&self) -> u64 {
        self.head.0.load(Ordering::Acquire)
    }

    #[inline]
    fn slot(&self, seq: u64) -> &Slot {
        // The mask keeps the place below the number of slots, which fits a `usize`.
        &self.slots[(seq.wrapping_sub(1) & self.mask) as usize]
    }

    /// Writes record `seq`, whose predecessor this very thread of calls wrote.
    #[inline]
    pub(super) fn write(&self, seq: u64, bytes: &[u8]) {
        let slot = self.slot(seq);
        slot.version.store(2 * seq - 1, Ordering::Relaxed);
        // The odd version is seen before any new word is.
        fence(Ordering::Release);
        for (word, chunk) in slot.words.iter().zip(bytes.chunks_exact(8)) {
            let mut eight = [0; 8];
            eight.copy_from_slice(chunk);
            word.store(u64::from_le_bytes(eight), Ordering::Relaxed);
        }
        slot.version.store(2 * seq, Ordering::Release);
        self.head.0.store(seq, Ordering::Release);
    }

    /// Copies record `seq` into `words`.
    #[inline]
    pub(super) fn read(&self, seq: u64, words: &mut [u64; WORD_COUNT]) -> Found {
        let slot = self.slot(seq);
        let version = slot.version.load(Ordering::Acquire);
        if version != 2 * seq {
            // Below: not begun, or being written for the first time.
            return if version < 2 * seq {
                Found::NotYet
            } else {
                Found::Gone
            };
        }
        // The size stands in the first two bytes of every record; while another record is being
        // written over this one it may be that one's, which the second look finds out.
        let first = slot.words[0].load(Ordering::Relaxed);
        let byte_count = usize::from((first & 0xFFFF) as u16).min(RECORD_BYTES_MAX);
        words[0] = first;
        let word_count = byte_count.div_ceil(8).max(1);
        for (word, atomic) in words[1..word_count]
            .iter_mut()
            .zip(&slot.words[1..word_count])
        {
            *word = atomic.load(Ordering::Relaxed);
        }
        // Every word is read before the version is looked at again.
        fence(Ordering::Acquire);
        if slot.version.load(Ordering::Relaxed) == version {
            Found::Record(byte_count)
        } else {
            Found::Gone
        }
    }
}
