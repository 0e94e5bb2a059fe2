//! The next segment, prepared while the current one is written.
//!
//! Why: reserving and zeroing a segment takes tens of milliseconds, and whoever waits for an
//! acknowledgement must not. And a full disk shows here, a whole segment before it hurts.
//!
//! Invariants:
//! 1. A prepared file is `.next`: it holds no header and no record, so no reader takes it for a
//!    segment and a recovery removes it.
//! 2. Want of space is reported ([`Ahead::has_space`]) and tried again; only a writer that needs
//!    the segment now fails for it. Any other error fails the writer.
//! 3. A file whose step failed is not touched again but to remove it.
//!
//! With a thread, the thread zeroes; without one, the commit does, behind its sync.

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::disk::{Disk, DiskFile};
use super::output::Failed;
use super::reader::size;
use super::segment::next_path;
use super::watermark::Watermark;

/// Zeros written with one sync: what a sync of the log may have to wait behind.
const ZERO_CHUNK_BYTES: usize = 1 << 20;
/// Least that is zeroed of a segment of enough bytes; more where the one before held more.
const ZERO_BYTES_MIN: u64 = 4 << 20;
/// How long the thread waits before it asks a full disk again.
const RETRY_WAIT: Duration = Duration::from_secs(1);

static ZEROS: [u8; ZERO_CHUNK_BYTES] = [0; ZERO_CHUNK_BYTES];

/// A prepared file.
#[derive(Debug)]
pub(super) struct NextFile {
    pub(super) file: Box<dyn DiskFile>,
    pub(super) path: PathBuf,
}

#[derive(Debug)]
enum Slot {
    /// Nothing to prepare yet, or any more.
    Idle,
    /// To be made; after a full disk, again.
    Wanted(Want),
    /// It has its space; the zeros are missing.
    Reserved(Want, NextFile),
    /// Being worked on.
    Busy,
    /// Only the header is missing.
    Ready(NextFile),
}

#[derive(Debug, Clone, Copy)]
struct Want {
    segment_id: u64,
    /// How much of it is zeroed.
    zero_bytes: u64,
    has_failed: bool,
}

#[derive(Debug)]
struct State {
    slot: Slot,
    /// Someone waits for the segment: its zeros are not worth the wait.
    is_urgent: bool,
    is_over: bool,
}

/// Prepares one segment ahead of a writer.
#[derive(Debug)]
pub(super) struct Ahead {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segment_bytes: u64,
    watermark: Arc<Watermark>,
    state: Mutex<State>,
    changed: Condvar,
    has_space: std::sync::atomic::AtomicBool,
    /// The disk had no room for it when it was asked last.
    is_refused: std::sync::atomic::AtomicBool,
}

impl Ahead {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        segment_bytes: u64,
        watermark: Arc<Watermark>,
    ) -> Self {
        Self {
            disk,
            dir,
            segment_bytes,
            watermark,
            state: Mutex::new(State {
                slot: Slot::Idle,
                is_urgent: false,
                is_over: false,
            }),
            changed: Condvar::new(),
            has_space: std::sync::atomic::AtomicBool::new(false),
            is_refused: std::sync::atomic::AtomicBool::new(false),
        }
    }

    /// Whether the disk had no room for the next segment when it was asked last; not asked yet is
    /// no refusal.
    pub(super) fn is_refused(&self) -> bool {
        self.is_refused.load(std::sync::atomic::Ordering::Acquire)
    }

    fn set_refused(&self, is_refused: bool) {
        self.is_refused
            .store(is_refused, std::sync::atomic::Ordering::Release);
    }

    /// Whether the next segment has its space.
    pub(super) fn has_space(&self) -> bool {
        self.has_space.load(std::sync::atomic::Ordering::Acquire)
    }

    /// Asks for the segment behind one that held this much.
    pub(super) fn want(&self, segment_id: u64, held_bytes: u64) {
        self.want_zeroed(segment_id, held_bytes.saturating_mul(2).max(ZERO_BYTES_MIN));
    }

    /// Asks for the segment that a writer begins with: its opening waits for it.
    pub(super) fn want_first(&self, segment_id: u64) {
        self.want_zeroed(segment_id, size(ZERO_CHUNK_BYTES));
    }

    fn want_zeroed(&self, segment_id: u64, zero_bytes: u64) {
        self.set_space(false);
        self.state().slot = Slot::Wanted(Want {
            segment_id,
            zero_bytes: zero_bytes.min(self.segment_bytes),
            has_failed: false,
        });
        self.changed.notify_all();
    }

    /// Gives the segment that was asked for, made now if it has not been.
    pub(super) fn take(&self, segment_id: u64) -> Result<NextFile, Failed> {
        match self.take_slot(false) {
            Slot::Ready(next) | Slot::Reserved(_, next) => Ok(next),
            Slot::Idle | Slot::Wanted(_) | Slot::Busy => self.reserve(segment_id),
        }
    }

    /// Takes the space of the segment asked for, without its zeros, in the caller's thread.
    pub(super) fn reserve_now(&self) -> Result<(), Failed> {
        let mut state = self.state();
        if let Slot::Wanted(want) = state.slot {
            state.slot = Slot::Busy;
            drop(state);
            let slot = self.reserved(want)?;
            self.put(slot);
        }
        Ok(())
    }

    /// Does what is left to do, in the caller's thread.
    pub(super) fn prepare_now(&self) -> Result<(), Failed> {
        self.reserve_now()?;
        let mut state = self.state();
        match std::mem::replace(&mut state.slot, Slot::Busy) {
            Slot::Reserved(want, next) => {
                drop(state);
                let slot = self.zeroed(want, next)?;
                self.put(slot);
            }
            slot => state.slot = slot,
        }
        Ok(())
    }

    /// The thread: prepares whatever is wanted until the end or a failure.
    pub(super) fn run(&self) -> Result<(), Failed> {
        loop {
            let state = self.state();
            let must_wait = |state: &mut State| {
                !state.is_over && !matches!(state.slot, Slot::Wanted(_) | Slot::Reserved(..))
            };
            let state = self
                .changed
                .wait_while(state, must_wait)
                .unwrap_or_else(PoisonError::into_inner);
            let has_failed = matches!(
                state.slot,
                Slot::Wanted(Want {
                    has_failed: true,
                    ..
                })
            );
            let state = if has_failed && !state.is_over {
                let (state, _) = self
                    .changed
                    .wait_timeout(state, RETRY_WAIT)
                    .unwrap_or_else(PoisonError::into_inner);
                state
            } else {
                state
            };
            let is_over = state.is_over;
            drop(state);
            if is_over {
                return Ok(());
            }
            self.prepare_now()?;
        }
    }

    /// Ends the thread and removes what was prepared.
    pub(super) fn end(&self) -> Result<(), Failed> {
        if let Slot::Ready(next) | Slot::Reserved(_, next) = self.take_slot(true) {
            self.remove(&next.path)?;
        }
        Ok(())
    }

    /// Ends the thread; what was prepared stays.
    pub(super) fn stop(&self) {
        self.state().is_over = true;
        self.changed.notify_all();
    }

    /// Takes what is prepared; what is being prepared is cut short.
    fn take_slot(&self, is_end: bool) -> Slot {
        let mut state = self.state();
        state.is_urgent = true;
        state.is_over |= is_end;
        self.changed.notify_all();
        let mut state = self
            .changed
            .wait_while(state, |state| matches!(state.slot, Slot::Busy))
            .unwrap_or_else(PoisonError::into_inner);
        state.is_urgent = false;
        std::mem::replace(&mut state.slot, Slot::Idle)
    }

    fn is_cut_short(&self) -> bool {
        let state = self.state();
        state.is_urgent || state.is_over
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, slot: Slot) {
        let has_space = matches!(slot, Slot::Ready(_) | Slot::Reserved(..));
        self.set_space(has_space);
        if has_space {
            self.set_refused(false);
        }
        self.state().slot = slot;
        self.changed.notify_all();
    }

    fn set_space(&self, has_space: bool) {
        self.has_space
            .store(has_space, std::sync::atomic::Ordering::Release);
        self.watermark.set_space_ahead(has_space);
    }

    /// A file with its space, or the want of it for later.
    fn reserved(&self, want: Want) -> Result<Slot, Failed> {
        match self.reserve(want.segment_id) {
            Ok(next) => Ok(Slot::Reserved(want, next)),
            Err(failed) => self.later(want, failed),
        }
    }

    fn zeroed(&self, want: Want, next: NextFile) -> Result<Slot, Failed> {
        match self.zero(&next, want.zero_bytes) {
            Ok(()) => Ok(Slot::Ready(next)),
            Err(failed) => {
                let removed = if is_want_of_space(&failed.source) {
                    self.remove(&next.path)
                } else {
                    Ok(())
                };
                // A file that stays would be in the way of the next try.
                self.later(want, removed.err().unwrap_or(failed))
            }
        }
    }

    fn later(&self, want: Want, failed: Failed) -> Result<Slot, Failed> {
        let has_failed = true;
        if is_want_of_space(&failed.source) {
            self.set_refused(true);
            return Ok(Slot::Wanted(Want { has_failed, ..want }));
        }
        // Whoever waits for it must not wait for ever.
        self.put(Slot::Idle);
        Err(failed)
    }

    fn reserve(&self, segment_id: u64) -> Result<NextFile, Failed> {
        let path = next_path(&self.dir, segment_id);
        let fail = |operation| {
            let path = path.clone();
            move |source| Failed::new(path, 0, operation, source)
        };
        let file = self.disk.create(&path).map_err(fail("creating"))?;
        if let Err(error) = file.allocate(self.segment_bytes) {
            let failed = fail("reserving space")(error);
            if is_want_of_space(&failed.source) {
                self.remove(&path)?;
            }
            return Err(failed);
        }
        Ok(NextFile { file, path })
    }

    /// Turns reserved blocks into written ones: a sync of a frame then moves the frame only.
    fn zero(&self, next: &NextFile, zero_bytes: u64) -> Result<(), Failed> {
        let mut offset = 0;
        while offset < zero_bytes && !self.is_cut_short() {
            let left = usize::try_from(zero_bytes - offset).unwrap_or(usize::MAX);
            let chunk = ZEROS.get(..left).unwrap_or(&ZEROS);
            let fail = |operation| {
                let path = next.path.clone();
                move |source| Failed::new(path, offset, operation, source)
            };
            next.file.write_at(offset, chunk).map_err(fail("zeroing"))?;
            next.file.sync().map_err(fail("syncing zeros"))?;
            offset += size(chunk.len());
        }
        Ok(())
    }

    fn remove(&self, path: &std::path::Path) -> Result<(), Failed> {
        let fail = |operation| move |source| Failed::new(path.to_path_buf(), 0, operation, source);
        self.disk
            .remove(path)
            .map_err(fail("removing a prepared segment"))?;
        self.disk
            .sync_dir(&self.dir)
            .map_err(fail("syncing the folder"))
    }
}

/// Errors that go away when someone makes room.
fn is_want_of_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::disk::LockGuard;
    use super::super::segment::LogKind;
    use super::super::tests::sim_disk::{Fate, SimDisk};
    use super::super::watermark::Watermark;
    use super::super::writer::SEGMENT_BYTES_MIN;
    use super::*;

    /// A disk that is full for zeros, and lets nothing be removed.
    #[derive(Debug)]
    struct Stubborn(SimDisk);

    #[derive(Debug)]
    struct FullFile(Box<dyn DiskFile>);

    impl Disk for Stubborn {
        fn create_dir(&self, dir: &Path) -> io::Result<()> {
            self.0.create_dir(dir)
        }
        fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
            self.0.list(dir)
        }
        fn read_into(&self, path: &Path, content: &mut Vec<u8>) -> io::Result<()> {
            self.0.read_into(path, content)
        }
        fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
            let file = self.0.create(path)?;
            Ok(Box::new(FullFile(file)))
        }
        fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
            self.0.open(path)
        }
        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            self.0.rename(from, to)
        }
        fn remove(&self, _path: &Path) -> io::Result<()> {
            Err(io::Error::other("a failing disk"))
        }
        fn sync_dir(&self, dir: &Path) -> io::Result<()> {
            self.0.sync_dir(dir)
        }
        fn lock(&self, path: &Path) -> io::Result<Option<LockGuard>> {
            self.0.lock(path)
        }
    }

    impl DiskFile for FullFile {
        fn allocate(&self, bytes: u64) -> io::Result<()> {
            self.0.allocate(bytes)
        }
        fn write_at(&self, _offset: u64, _bytes: &[u8]) -> io::Result<()> {
            Err(ErrorKind::StorageFull.into())
        }
        fn truncate(&self, bytes: u64) -> io::Result<()> {
            self.0.truncate(bytes)
        }
        fn sync(&self) -> io::Result<()> {
            self.0.sync()
        }
    }

    /// The writer waits for a segment that is being prepared; it must not when the preparation
    /// failed for good.
    #[test]
    fn a_prepared_segment_that_cannot_even_be_removed_leaves_nobody_waiting() {
        let disk: Arc<dyn Disk> = Arc::new(Stubborn(SimDisk::new(Fate::Reliable)));
        let words = disk.watermark(Path::new("watermark")).unwrap();
        let watermark = Arc::new(Watermark::new(words, LogKind::Market, 7, 1, 0));
        let ahead = Ahead::new(disk, "log".into(), SEGMENT_BYTES_MIN, watermark);
        ahead.want(2, 0);
        let failed = ahead.prepare_now().unwrap_err();
        assert_eq!(failed.source.to_string(), "a failing disk");
        assert!(matches!(ahead.state().slot, Slot::Idle));
        assert!(!ahead.has_space());
    }
}
