//! Eight words of a file as shared memory.
//!
//! Why: a monitor reads the watermark of a running writer without a lock and without a call into
//! the writer's process.
//!
//! The only `unsafe` of the folder besides `fallocate` is here.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// Words of the file.
pub(super) const WORD_COUNT: usize = 8;
/// Bytes of the file.
pub(super) const MAP_BYTES: usize = 8 * WORD_COUNT;

/// A file of eight words, mapped.
#[derive(Debug)]
pub(super) struct Map {
    words: NonNull<[AtomicU64; WORD_COUNT]>,
}

// SAFETY: the mapping belongs to no thread, and its words are atomic.
unsafe impl Send for Map {}
// SAFETY: as above; every access is atomic.
unsafe impl Sync for Map {}

impl Map {
    /// Makes the file, all zeros, and maps it for writing.
    ///
    /// Its block is written and not left as a hole: storing into a hole on a full disk would kill
    /// the process.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        file.write_all_at(&[0; MAP_BYTES], 0)?;
        file.set_len(MAP_BYTES as u64)?;
        Self::of(&file, libc::PROT_READ | libc::PROT_WRITE)
    }

    /// Maps the file for reading.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).open(path)?;
        if file.metadata()?.len() != MAP_BYTES as u64 {
            return Err(io::Error::other("it does not have 64 bytes"));
        }
        Self::of(&file, libc::PROT_READ)
    }

    fn of(file: &std::fs::File, protection: libc::c_int) -> io::Result<Self> {
        // SAFETY: a fresh mapping at an address of the kernel's choice; the descriptor is open. The
        // mapping outlives the descriptor.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                MAP_BYTES,
                protection,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(address.cast())
            .map(|words| Self { words })
            .ok_or_else(|| io::Error::other("mapped at address 0"))
    }

    /// The words. Through a mapping made by [`Map::open`] they may only be loaded.
    pub(super) fn words(&self) -> &[AtomicU64; WORD_COUNT] {
        // SAFETY: the mapping is page-aligned, as long as the array and lives as long as `self`;
        // any bits are a valid `AtomicU64`, and other processes change them atomically too.
        unsafe { self.words.as_ref() }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: unmaps what `of` mapped; no reference outlives `self`.
        unsafe { libc::munmap(self.words.as_ptr().cast(), MAP_BYTES) };
    }
}
