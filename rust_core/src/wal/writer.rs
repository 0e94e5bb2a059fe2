//! The one writer of a log: appends to a buffer, commits it in groups, seals full segments.
//!
//! Why: the append path must cost nanoseconds and an acknowledgement must mean durable. So an
//! append encodes into a buffer under a short lock; a commit swaps the buffer out, writes and syncs
//! it without that lock, and only then moves the watermark.
//!
//! Invariants: 1 (watermark after sync) and 5 (no retry) of the folder. A commit is done by the
//! group-commit thread or by whoever needs durability first; those who wait find their records
//! durable when they get the turn, which is the batching of `append_durable`.
//!
//! Where segments are cut (size, trading day, age, `rotate`) changes no record. Age alone reads a
//! clock, in the thread. The next segment is prepared ahead (`ahead`), every begin and seal has its
//! entry in the manifest, and the watermark file shows where the writer stands.
//!
//! It does not survive its own failure: open the log again, which recovers it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::ahead::Ahead;
use super::disk::{Disk, OsDisk};
use super::error::{RecordFault, WalError};
use super::frame::{FRAME_PAYLOAD_BYTES_MAX, frame_bytes};
use super::manifest::{self, Identity, Pending};
use super::output::{Failed, Io};
use super::queue::{BUFFER_BYTES, BUFFER_BYTES_MAX, Batch, CUTS_MIN, Queue};
use super::recovery::{RecoveryReport, lock_log, recover_on};
use super::segment::{FOOTER_BYTES, LogKind, SEGMENT_HEADER_BYTES, check_home, check_record};
use super::slow_disk::{SlowDisk, SyncDelay};
use super::watermark::{WATERMARK_NAME, Watermark, WriterPhase};
use crate::reason::ReasonCode;
use crate::record::{RecordHeader, Tape};

/// Smallest segment: a header, one frame of the largest size and a footer fit.
pub const SEGMENT_BYTES_MIN: u64 = 8 << 10;
/// Largest segment: readers load one whole.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// Bytes waiting to be written at which the group-commit thread is woken early.
const WAKE_BYTES: usize = 1 << 20;

const _: () = assert!(
    SEGMENT_HEADER_BYTES + frame_bytes(FRAME_PAYLOAD_BYTES_MAX) + FOOTER_BYTES
        <= SEGMENT_BYTES_MIN as usize
);
const _: () = assert!(WAKE_BYTES < BUFFER_BYTES_MAX);

/// How a log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Identity of the log; a folder holds one log for ever.
    pub wal_id: u32,
    /// Which records it takes.
    pub kind: LogKind,
    /// Size at which a segment is sealed and the next begun.
    pub segment_bytes: u64,
    /// Longest time a record waits for its sync; zero: no thread, the caller syncs.
    pub group_commit: Duration,
    /// Fencing number of this writer; never below the log's.
    pub epoch: u32,
    /// Age of its first record at which a segment is sealed; `None`: only size and trading day
    /// count. Without a thread nobody looks.
    pub seal_after: Option<Duration>,
    /// Whether the space of the next segment is taken before a segment is used: then another
    /// file cannot take it. Opening fails without it.
    pub reserve: bool,
}

/// Makes a log durable from another thread than those that append. While one is kept, so is the lock
/// on the log's folder.
#[derive(Debug, Clone)]
pub struct Syncer {
    shared: Arc<Shared>,
}

impl Syncer {
    /// Highest acknowledged sequence, 0 before the first. Takes no lock.
    #[must_use]
    pub fn durable_seq(&self) -> u64 {
        self.shared.durable_seq.load(Ordering::Acquire)
    }

    /// Returns when everything up to `seq` is durable: at once if it is, else after one commit of
    /// all that was appended, which is the batching.
    ///
    /// # Errors
    /// An earlier failure, or this one (605): nothing more is acknowledged.
    pub fn sync_up_to(&self, seq: u64) -> Result<(), WalError> {
        if self.durable_seq() >= seq {
            return Ok(());
        }
        self.shared.commit(Some(seq))
    }
}

/// The writer of a log. Dropping it syncs what is left but seals nothing; see [`Writer::seal`].
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    recovery: RecoveryReport,
}

impl Writer {
    /// Opens the log in `dir`, created if missing, recovering what an earlier writer left.
    ///
    /// # Errors
    /// As `recover_log`; options out of range or contradicting the log (515); an epoch below the
    /// log's (611); a disk that refuses (605).
    pub fn open(dir: &Path, options: Options) -> Result<Self, WalError> {
        check_segment_bytes(dir, &options)?;
        Self::open_on(Arc::new(OsDisk), dir, options)
    }

    /// As [`Writer::open`], on a disk whose syncs take long: for drills only.
    ///
    /// # Errors
    /// As [`Writer::open`].
    pub fn open_slowed(dir: &Path, options: Options, delay: SyncDelay) -> Result<Self, WalError> {
        Self::open_on(Arc::new(SlowDisk::new(delay)), dir, options)
    }

    /// The watermark for a test that looks at it while the writer is at work.
    #[cfg(test)]
    pub(super) fn watermark(&self) -> impl Fn() -> u64 + Send + use<> {
        let shared = Arc::clone(&self.shared);
        move || shared.durable_seq.load(Ordering::Acquire)
    }

    /// Appends one record and returns its sequence. It is durable once [`Writer::durable_seq`]
    /// reaches that.
    ///
    /// # Errors
    /// Bytes that are not one record of this log (901), an earlier failure (605).
    pub fn append(&self, record: &[u8]) -> Result<u64, WalError> {
        let header = check_record(self.shared.options.kind, record)
            .map_err(|fault| self.shared.refused(fault))?;
        self.shared.push(&header, record, Wake::Thread)
    }

    /// Appends the records of a tape and returns the sequence of the last; of an empty tape, the
    /// log's last. A tape with a record that does not belong here is refused as a whole.
    ///
    /// # Errors
    /// As [`Writer::append`].
    pub fn append_tape(&self, tape: &[u8]) -> Result<u64, WalError> {
        self.push_tape(tape, Wake::Thread)
    }

    fn push_tape(&self, tape: &[u8], wake: Wake) -> Result<u64, WalError> {
        let shared = &self.shared;
        for item in Tape::new(tape) {
            let (header, _) = item.map_err(|fault| shared.refused(fault.into()))?;
            check_home(shared.options.kind, &header).map_err(|fault| shared.refused(fault))?;
        }
        let mut last_seq = None;
        for (header, record) in Tape::new(tape).flatten() {
            last_seq = Some(shared.push(&header, record, wake)?);
        }
        last_seq.map_or_else(|| self.last_seq(), Ok)
    }

    /// Appends the records of a tape and returns when the last of them is durable.
    ///
    /// # Errors
    /// As [`Writer::append`]. After 605 it is not known whether the records are on disk; they are
    /// not acknowledged.
    pub fn append_durable(&self, tape: &[u8]) -> Result<u64, WalError> {
        let seq = self.push_tape(tape, Wake::Nobody)?;
        self.shared.commit(Some(seq))?;
        Ok(seq)
    }

    /// Highest acknowledged sequence, 0 before the first. Takes no lock.
    #[must_use]
    pub fn durable_seq(&self) -> u64 {
        self.shared.durable_seq.load(Ordering::Acquire)
    }

    /// Answers with the failure of this writer, if it has failed; its threads may have found it.
    ///
    /// # Errors
    /// The failure (605).
    pub fn check(&self) -> Result<(), WalError> {
        self.shared.healthy()
    }

    /// Sequence of the last record appended, 0 before the first.
    ///
    /// # Errors
    /// An earlier failure (605).
    pub fn last_seq(&self) -> Result<u64, WalError> {
        self.shared.healthy()?;
        Ok(self.shared.queue().last_seq)
    }

    /// Whether the next segment has its space. If not, the disk is full one segment early: what is
    /// appended still fits into the open segment, and space that comes back is taken at once.
    #[must_use]
    pub fn has_space_ahead(&self) -> bool {
        self.shared.ahead.has_space()
    }

    /// Whether the disk had no room for the next segment when it was asked last: what is appended
    /// fits into the open segment only.
    #[must_use]
    pub fn is_space_refused(&self) -> bool {
        self.shared.ahead.is_refused()
    }

    /// What makes this log durable from another thread.
    #[must_use]
    pub fn syncer(&self) -> Syncer {
        Syncer {
            shared: Arc::clone(&self.shared),
        }
    }

    /// What opening the log found and did.
    #[must_use]
    pub fn recovery(&self) -> &RecoveryReport {
        &self.recovery
    }

    /// Makes everything appended so far durable and returns the watermark.
    ///
    /// # Errors
    /// An earlier failure, or this one (605).
    pub fn sync(&self) -> Result<u64, WalError> {
        let seq = self.last_seq()?;
        self.shared.commit(Some(seq))?;
        Ok(self.durable_seq())
    }

    /// Seals the segment now and begins the next, for example at the end of a trading day. Without
    /// a record in the segment nothing happens.
    ///
    /// # Errors
    /// An earlier failure, or this one (605).
    pub fn rotate(&self) -> Result<(), WalError> {
        self.shared.healthy()?;
        let mut queue = self.shared.queue();
        if queue.stats.is_none() {
            return Ok(());
        }
        queue.cut(true).map_err(|what| self.shared.broken(what))?;
        drop(queue);
        self.shared.commit(None)
    }

    /// Makes everything durable, seals the last segment and returns the log's last sequence.
    ///
    /// # Errors
    /// An earlier failure, or this one (605).
    pub fn seal(self) -> Result<u64, WalError> {
        self.shared.healthy()?;
        let mut queue = self.shared.queue();
        queue.cut(false).map_err(|what| self.shared.broken(what))?;
        drop(queue);
        self.shared.commit(None)?;
        Ok(self.durable_seq())
    }

    pub(super) fn open_on(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: Options,
    ) -> Result<Self, WalError> {
        disk.create_dir(dir)
            .map_err(|error| WalError::WriteFailed {
                path: dir.to_path_buf(),
                offset: 0,
                operation: "creating the folder",
                durable_seq: 0,
                source: Arc::new(error),
            })?;
        let lock = lock_log(disk.as_ref(), dir)?;
        let (recovery, resume) = recover_on(disk.as_ref(), dir)?;
        let (segment_id, last_seq) = match resume {
            None => (1, 0),
            Some(resume) => {
                check_identity(dir, &options, resume.wal_id, resume.kind, resume.epoch)?;
                (resume.segment_id + 1, resume.last_seq)
            }
        };
        let identity = Identity {
            wal_id: options.wal_id,
            kind: options.kind,
        };
        if let Some(listed) = manifest::read_on(disk.as_ref(), dir)? {
            let Identity { wal_id, kind } = listed.identity;
            check_identity(dir, &options, wal_id, kind, 0)?;
        }
        let queue = Queue::new(options, segment_id, last_seq);
        let words = disk.watermark(&dir.join(WATERMARK_NAME));
        let words = words.map_err(|source| {
            Failed::new(dir.join(WATERMARK_NAME), 0, "making the watermark", source)
                .into_error(last_seq)
        })?;
        let watermark =
            Watermark::new(words, options.kind, options.wal_id, options.epoch, last_seq);
        let watermark = Arc::new(watermark);
        let ahead = Arc::new(Ahead::new(
            Arc::clone(&disk),
            dir.to_path_buf(),
            options.segment_bytes,
            Arc::clone(&watermark),
        ));
        let mut io = Io {
            disk,
            dir: dir.to_path_buf(),
            options,
            open: None,
            spare: Vec::with_capacity(BUFFER_BYTES),
            spare_cuts: Vec::with_capacity(CUTS_MIN),
            manifest: Pending::new(dir, identity),
            ahead: Arc::clone(&ahead),
            watermark: Arc::clone(&watermark),
            lock: Some(lock),
        };
        let header = queue.header;
        io.begin(header).map_err(|step| step.into_error(last_seq))?;
        if options.reserve && !ahead.has_space() {
            return Err(WalError::WriteFailed {
                path: dir.to_path_buf(),
                offset: 0,
                operation: "reserving the second segment",
                durable_seq: last_seq,
                source: Arc::new(std::io::ErrorKind::StorageFull.into()),
            });
        }
        let shared = Arc::new(Shared {
            dir: dir.to_path_buf(),
            options,
            queue: Mutex::new(queue),
            wake: Condvar::new(),
            io: Mutex::new(io),
            ahead,
            watermark,
            durable_seq: AtomicU64::new(last_seq),
            failure: OnceLock::new(),
        });
        let threads = start_threads(&shared)?;
        Ok(Self {
            shared,
            threads,
            recovery,
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut queue = self.shared.queue();
        queue.is_stopping = true;
        drop(queue);
        self.shared.wake.notify_all();
        self.shared.ahead.stop();
        for thread in self.threads.drain(..) {
            // A panic of the thread has nobody left to be told; the records are not acknowledged.
            let _outcome = thread.join();
        }
        // A failure is kept in the writer that is being dropped; nothing more is acknowledged.
        let _outcome = self.shared.close();
    }
}

fn check_segment_bytes(dir: &Path, options: &Options) -> Result<(), WalError> {
    if (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&options.segment_bytes) {
        return Ok(());
    }
    Err(WalError::Option {
        path: dir.to_path_buf(),
        option: "segment_bytes",
        was: options.segment_bytes.to_string(),
        expected: format!("{SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX}"),
    })
}

fn check_identity(
    dir: &Path,
    options: &Options,
    wal_id: u32,
    kind: LogKind,
    epoch: u32,
) -> Result<(), WalError> {
    let other = |option, was: String, expected: String| {
        Err(WalError::Option {
            path: dir.to_path_buf(),
            option,
            was,
            expected,
        })
    };
    if options.wal_id != wal_id {
        return other(
            "wal_id",
            options.wal_id.to_string(),
            format!("{wal_id}, as the log's"),
        );
    }
    if options.kind != kind {
        let expected = format!("{}, as the log's", kind.name());
        return other("log kind", options.kind.name().to_owned(), expected);
    }
    if options.epoch < epoch {
        return Err(WalError::EpochBehind {
            path: dir.to_path_buf(),
            was: options.epoch.into(),
            expected: epoch.into(),
        });
    }
    Ok(())
}

/// The thread that commits and the one that prepares; none without a group commit.
fn start_threads(shared: &Arc<Shared>) -> Result<Vec<JoinHandle<()>>, WalError> {
    if shared.options.group_commit.is_zero() {
        shared.prepare()?;
        return Ok(Vec::new());
    }
    let start = |name: &str, body: fn(&Shared)| {
        let worker = Arc::clone(shared);
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || body(&worker))
            .map_err(|error| WalError::WriteFailed {
                path: shared.dir.clone(),
                offset: 0,
                operation: "starting a thread",
                durable_seq: shared.durable_seq.load(Ordering::Acquire),
                source: Arc::new(error),
            })
    };
    let mut threads = vec![start("wal-ahead", Shared::run_ahead)?];
    match start("wal-sync", Shared::run) {
        Ok(thread) => threads.push(thread),
        Err(error) => {
            shared.ahead.stop();
            return Err(error);
        }
    }
    Ok(threads)
}

/// Whom an append wakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wake {
    /// The group-commit thread.
    Thread,
    /// Nobody: the caller commits.
    Nobody,
}

/// What the writer and its thread share. Lock order: `io`, then `queue`.
#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    options: Options,
    queue: Mutex<Queue>,
    wake: Condvar,
    io: Mutex<Io>,
    ahead: Arc<Ahead>,
    watermark: Arc<Watermark>,
    durable_seq: AtomicU64,
    failure: OnceLock<WalError>,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn healthy(&self) -> Result<(), WalError> {
        self.failure
            .get()
            .map_or(Ok(()), |failure| Err(failure.clone()))
    }

    fn refused(&self, fault: RecordFault) -> WalError {
        WalError::RecordRefused {
            path: self.dir.clone(),
            fault,
        }
    }

    fn broken(&self, what: &'static str) -> WalError {
        WalError::Invariant {
            path: self.dir.clone(),
            what,
        }
    }

    /// Keeps the first failure; every later call answers with it.
    fn fail(&self, step: Failed) -> WalError {
        let error = step.into_error(self.durable_seq.load(Ordering::Acquire));
        let failure = self.failure.get_or_init(|| error);
        self.watermark
            .set_phase(WriterPhase::Failed, failure.code());
        failure.clone()
    }

    /// Encodes one record into the buffer.
    fn push(&self, header: &RecordHeader, record: &[u8], wake: Wake) -> Result<u64, WalError> {
        self.healthy()?;
        let mut queue = self.queue();
        let before = queue.buffer.len();
        if queue.must_cut(header, record.len()) {
            queue.cut(true).map_err(|what| self.broken(what))?;
        }
        let is_first = queue.stats.is_none() && self.options.seal_after.is_some();
        queue
            .encode(header, record, self.durable_seq.load(Ordering::Acquire))
            .map_err(|what| self.broken(what))?;
        let (seq, after) = (queue.last_seq, queue.buffer.len());
        drop(queue);
        let is_due = before == 0 || (before < WAKE_BYTES && after >= WAKE_BYTES);
        if is_first || (is_due && wake == Wake::Thread) {
            self.wake.notify_one();
        }
        if after >= BUFFER_BYTES_MAX {
            self.commit(None)?;
        }
        Ok(seq)
    }

    /// Writes and syncs what is buffered. With `wanted`, only if that sequence is not durable yet.
    fn commit(&self, wanted: Option<u64>) -> Result<(), WalError> {
        let mut io = self.io.lock().unwrap_or_else(PoisonError::into_inner);
        self.healthy()?;
        if wanted.is_some_and(|seq| self.durable_seq.load(Ordering::Acquire) >= seq) {
            return Ok(());
        }
        let mut batch = Batch {
            buffer: std::mem::take(&mut io.spare),
            cuts: std::mem::take(&mut io.spare_cuts),
            last_seq: 0,
        };
        let mut queue = self.queue();
        std::mem::swap(&mut queue.buffer, &mut batch.buffer);
        std::mem::swap(&mut queue.cuts, &mut batch.cuts);
        batch.last_seq = queue.last_seq;
        drop(queue);
        let outcome = io
            .write(&batch, &self.durable_seq)
            .map_err(|step| self.fail(step));
        let has_cuts = !batch.cuts.is_empty();
        batch.buffer.clear();
        batch.cuts.clear();
        io.spare = batch.buffer;
        io.spare_cuts = batch.cuts;
        outcome?;
        // With a thread, it has been told.
        if has_cuts && self.options.group_commit.is_zero() {
            return self.prepare();
        }
        Ok(())
    }

    /// Prepares the next segment in this thread.
    fn prepare(&self) -> Result<(), WalError> {
        self.ahead.prepare_now().map_err(|step| self.fail(step))
    }

    /// The last commit of a writer that is dropped.
    fn close(&self) -> Result<(), WalError> {
        self.commit(None)?;
        let io = self.io.lock().unwrap_or_else(PoisonError::into_inner);
        // A sealed log has no open segment.
        if io.open.is_some() {
            self.ahead.end().map_err(|step| self.fail(step))?;
            self.watermark
                .set_phase(WriterPhase::Closed, ReasonCode::Unset);
        }
        Ok(())
    }

    /// The preparing thread.
    fn run_ahead(&self) {
        if let Err(step) = self.ahead.run() {
            // Kept for every later call; nobody waits here.
            let _failure = self.fail(step);
        }
    }

    /// The group-commit thread: sleeps without a record, else commits after `group_commit`; cuts a
    /// segment that is old enough.
    fn run(&self) {
        loop {
            let queue = self.sleep();
            let (mut queue, _) = self
                .wake
                .wait_timeout_while(queue, self.options.group_commit, |queue| {
                    !queue.buffer.is_empty()
                        && queue.buffer.len() < WAKE_BYTES
                        && !queue.is_stopping
                })
                .unwrap_or_else(PoisonError::into_inner);
            if queue.is_stopping {
                return;
            }
            let cut = match queue.seal_at {
                Some(at) if at <= Instant::now() => queue.cut(true),
                _ => Ok(()),
            };
            drop(queue);
            // A failure is kept for every later call; there is nothing left to do here.
            if cut.is_err() || self.commit(None).is_err() {
                return;
            }
        }
    }

    /// Returns when there is a record to commit, a segment is old enough, or it is over.
    fn sleep(&self) -> MutexGuard<'_, Queue> {
        let mut queue = self.queue();
        while queue.buffer.is_empty() && !queue.is_stopping {
            let Some(seal_at) = queue.seal_at else {
                queue = self
                    .wake
                    .wait(queue)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = seal_at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            (queue, _) = self
                .wake
                .wait_timeout(queue, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
        queue
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::sim_disk::{Fate, SimDisk};
    use super::super::tests::support::{manual, record};
    use super::*;

    #[test]
    fn a_record_that_got_into_the_buffer_before_a_failure_is_never_written_after_it() {
        let disk = SimDisk::new(Fate::Reliable);
        let writer = Writer::open_on(Arc::new(disk.clone()), Path::new("log"), manual()).unwrap();
        writer.append(&record(1)).unwrap();
        disk.set_fate(Fate::ErrorAt(0));
        let failure = writer.sync().unwrap_err().to_string();
        assert_eq!(disk.steps(), 1);
        let header = check_record(LogKind::Market, &record(2)).unwrap();
        writer
            .shared
            .queue()
            .encode(&header, &record(2), 0)
            .unwrap();
        assert_eq!(writer.shared.commit(None).unwrap_err().to_string(), failure);
        drop(writer);
        assert_eq!(disk.steps(), 1);
    }

    #[test]
    fn buffers_are_reused() {
        let disk = SimDisk::new(Fate::Reliable);
        let writer = Writer::open_on(Arc::new(disk), Path::new("log"), manual()).unwrap();
        let grow = || {
            for number in 1..=20 {
                writer.append(&record(number)).unwrap();
            }
            writer.sync().unwrap();
        };
        grow();
        grow();
        let pointers = || {
            let io = writer.shared.io.lock().unwrap();
            let mut pointers = [io.spare.as_ptr(), writer.shared.queue().buffer.as_ptr()];
            pointers.sort_unstable();
            pointers
        };
        let before = pointers();
        for _ in 0..10 {
            grow();
        }
        assert_eq!(pointers(), before);
    }
}
