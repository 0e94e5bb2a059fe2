//! A disk whose syncs take long: for drills only.
//!
//! Why: what a slow disk does to acknowledgements, to the loop behind them and to the storm guard
//! has to be seen on a real log, and no disk is slow on demand.
//!
//! Invariants:
//! 1. Every sync of a file waits before it is passed on: what it makes durable is so later, never
//!    earlier, and nothing else is changed.
//! 2. How long is drawn from the seed by the number of the sync alone.
//!
//! No runtime path opens a log with it (`tests/hft_platform/drills`). Operator's page:
//! `docs/drills/disk-slow.md`.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::disk::{Disk, DiskFile, LockGuard, OsDisk};
use super::watermark::Words;

/// How long syncs take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyncDelay {
    /// Shortest, ms.
    pub min_ms: u64,
    /// Longest, ms.
    pub max_ms: u64,
    /// Decides every one in between.
    pub seed: u64,
}

impl SyncDelay {
    /// Delay of the sync of that number.
    fn of(self, number: u64) -> Duration {
        // SplitMix64: one well mixed number a sync.
        let mut mixed = self
            .seed
            .wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let span = self.max_ms.saturating_sub(self.min_ms).saturating_add(1);
        Duration::from_millis(self.min_ms.saturating_add(mixed % span.max(1)))
    }
}

#[derive(Debug)]
struct Waits {
    delay: SyncDelay,
    count: AtomicU64,
}

impl Waits {
    #[allow(
        clippy::disallowed_methods,
        reason = "a drill's disk is slow; no decision is made here"
    )]
    fn wait(&self) {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(self.delay.of(number));
    }
}

/// The operating system's, slowed.
#[derive(Debug)]
pub(super) struct SlowDisk {
    disk: OsDisk,
    waits: Arc<Waits>,
}

impl SlowDisk {
    pub(super) fn new(delay: SyncDelay) -> Self {
        Self {
            disk: OsDisk,
            waits: Arc::new(Waits {
                delay,
                count: AtomicU64::new(0),
            }),
        }
    }

    fn slowed(&self, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        let waits = Arc::clone(&self.waits);
        Box::new(SlowFile { file, waits })
    }
}

impl Disk for SlowDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn read_into(&self, path: &Path, content: &mut Vec<u8>) -> io::Result<()> {
        self.disk.read_into(path, content)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.disk.create(path).map(|file| self.slowed(file))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.disk.open(path).map(|file| self.slowed(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn watermark(&self, path: &Path) -> io::Result<Words> {
        self.disk.watermark(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<LockGuard>> {
        self.disk.lock(path)
    }
}

#[derive(Debug)]
struct SlowFile {
    file: Box<dyn DiskFile>,
    waits: Arc<Waits>,
}

impl DiskFile for SlowFile {
    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.file.allocate(bytes)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.file.truncate(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.waits.wait();
        self.file.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_stay_between_their_bounds_and_follow_from_the_seed() {
        let delay = SyncDelay {
            min_ms: 50,
            max_ms: 300,
            seed: 7,
        };
        let drawn: Vec<u128> = (0..500).map(|n| delay.of(n).as_millis()).collect();
        assert!(drawn.iter().all(|ms| (50..=300).contains(ms)));
        assert!(drawn.iter().any(|ms| *ms < 75) && drawn.iter().any(|ms| *ms > 275));
        let again: Vec<u128> = (0..500).map(|n| delay.of(n).as_millis()).collect();
        assert_eq!(drawn, again);
        let other = SyncDelay { seed: 8, ..delay };
        assert!((0..500).any(|n| other.of(n) != delay.of(n)));
    }
}
