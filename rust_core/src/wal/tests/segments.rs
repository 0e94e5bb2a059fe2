//! Where segments begin and end: prepared ahead, cut by day and age, and short of space.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::support::{TempDir, manual, record, segment_names, tape};
use crate::reason::ReasonCode;
use crate::record::{Record, TradeRecord};
use crate::wal::disk::{Disk, DiskFile, LockGuard};
use crate::wal::tests::sim_disk::{Fate, SimDisk};
use crate::wal::{
    Options, SEGMENT_BYTES_MIN, Writer, WriterPhase, read_log, read_watermark, recover_log,
};

fn on_day(number: u64, trading_day: u32) -> Vec<u8> {
    let mut trade = TradeRecord::empty();
    trade.header.input_seq = number;
    trade.header.trading_day = trading_day;
    trade.as_bytes().to_vec()
}

/// Polls for at most 10 s.
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..2_000 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("not within 10 s: {what}");
}

#[test]
fn a_segment_holds_one_trading_day() {
    let dir = TempDir::new();
    let writer = Writer::open(dir.path(), manual()).unwrap();
    // A record without a day belongs to the day it stands in.
    let days = [0, 20_260_410, 0, 20_260_410, 20_260_413, 0, 20_260_414];
    let records: Vec<u8> = days
        .iter()
        .zip(1..)
        .flat_map(|(day, number)| on_day(number, *day))
        .collect();
    writer.append_tape(&records).unwrap();
    writer.seal().unwrap();
    let log = read_log(dir.path()).unwrap();
    assert_eq!(log.tape, records);
    let counts: Vec<u64> = log
        .segments
        .iter()
        .map(|info| info.stats.unwrap().record_count)
        .collect();
    assert_eq!(counts, [4, 2, 1]);
}

#[test]
fn a_segment_is_sealed_by_age_without_another_record() {
    let dir = TempDir::new();
    let options = Options {
        group_commit: Duration::from_millis(1),
        seal_after: Some(Duration::from_millis(30)),
        ..manual()
    };
    let writer = Writer::open(dir.path(), options).unwrap();
    // Nothing to seal: an empty segment stays.
    std::thread::sleep(Duration::from_millis(60));
    assert_eq!(segment_names(dir.path()), ["00000001.open"]);
    writer.append_durable(&record(1)).unwrap();
    let is_sealed = || segment_names(dir.path())[0] == "00000001.seg";
    wait_until("the first segment is sealed", is_sealed);
    writer.append(&record(2)).unwrap();
    wait_until("the second segment is sealed", || {
        segment_names(dir.path()).contains(&"00000002.seg".to_owned())
    });
    writer.seal().unwrap();
    assert_eq!(read_log(dir.path()).unwrap().tape, tape(1, 2));
}

#[test]
fn without_an_age_nothing_but_size_cuts() {
    let dir = TempDir::new();
    let options = Options {
        group_commit: Duration::from_millis(1),
        ..manual()
    };
    let writer = Writer::open(dir.path(), options).unwrap();
    writer.append_durable(&record(1)).unwrap();
    std::thread::sleep(Duration::from_millis(60));
    assert_eq!(segment_names(dir.path()), ["00000001.open"]);
}

#[test]
fn the_next_segment_is_prepared_and_no_reader_takes_it_for_one() {
    let dir = TempDir::new();
    let options = Options {
        group_commit: Duration::from_millis(1),
        ..manual()
    };
    for options in [options, manual()] {
        let writer = Writer::open(dir.path(), options).unwrap();
        wait_until("the next segment is prepared", || writer.has_space_ahead());
        let next = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| path.extension().is_some_and(|ending| ending == "next"))
            .unwrap();
        assert_eq!(std::fs::metadata(&next).unwrap().len(), SEGMENT_BYTES_MIN);
        assert_eq!(read_log(dir.path()).unwrap().segments.len(), 1);
        drop(writer);
        assert!(
            !next.exists(),
            "a writer that lets go leaves nothing prepared"
        );
        std::fs::write(&next, [1; 700]).unwrap();
        recover_log(dir.path()).unwrap();
        assert!(!next.exists(), "nor does a recovery");
    }
}

/// A disk with room for a number of segments only.
#[derive(Debug, Clone)]
struct SmallDisk {
    inner: SimDisk,
    room: Arc<std::sync::atomic::AtomicUsize>,
}

#[derive(Debug)]
struct SmallFile {
    inner: Box<dyn DiskFile>,
    disk: SmallDisk,
}

use std::io;
use std::sync::atomic::Ordering::SeqCst;

impl Disk for SmallDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.create_dir(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.inner.list(dir)
    }
    fn read_into(&self, path: &Path, content: &mut Vec<u8>) -> io::Result<()> {
        self.inner.read_into(path, content)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let inner = self.inner.create(path)?;
        let disk = self.clone();
        Ok(Box::new(SmallFile { inner, disk }))
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.inner.open(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.sync_dir(dir)
    }
    fn lock(&self, path: &Path) -> io::Result<Option<LockGuard>> {
        self.inner.lock(path)
    }
}

impl DiskFile for SmallFile {
    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let take = |room: usize| room.checked_sub(1);
        let full = |_| io::Error::from_raw_os_error(libc::ENOSPC);
        self.disk
            .room
            .fetch_update(SeqCst, SeqCst, take)
            .map_err(full)?;
        self.inner.allocate(bytes)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.inner.write_at(offset, bytes)
    }
    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.inner.truncate(bytes)
    }
    fn sync(&self) -> io::Result<()> {
        self.inner.sync()
    }
}

fn small_disk(room: usize) -> SmallDisk {
    SmallDisk {
        inner: SimDisk::new(Fate::Reliable),
        room: Arc::new(room.into()),
    }
}

#[test]
fn a_full_disk_shows_one_segment_early_and_fails_the_writer_only_when_it_needs_the_space() {
    let disk = small_disk(2);
    let log = Path::new("log");
    let writer = Writer::open_on(Arc::new(disk.clone()), log, manual()).unwrap();
    assert!(writer.has_space_ahead());
    let mut acked = 0;
    let mut early = 0;
    let failure = loop {
        match writer.append_durable(&record(acked + 1)) {
            Ok(seq) => acked = seq,
            Err(error) => break error,
        }
        if !writer.has_space_ahead() {
            early += 1;
        }
    };
    assert_eq!(failure.code(), ReasonCode::WalWriteFailed);
    assert!(
        failure.to_string().contains("reserving space failed"),
        "{failure}"
    );
    // A whole segment went by between the sign and the failure.
    let per_segment = SEGMENT_BYTES_MIN / 136;
    assert!(early >= per_segment - 8, "{early} records of warning");
    assert_eq!(writer.durable_seq(), acked);
}

#[test]
fn space_that_comes_back_in_time_is_taken() {
    let disk = small_disk(2);
    let log = Path::new("log");
    let writer = Writer::open_on(Arc::new(disk.clone()), log, manual()).unwrap();
    let mut acked = 0;
    while writer.has_space_ahead() {
        acked = writer.append_durable(&record(acked + 1)).unwrap();
    }
    disk.room.store(100, SeqCst);
    for number in acked + 1..=acked + 200 {
        writer.append_durable(&record(number)).unwrap();
    }
    assert!(writer.has_space_ahead());
    writer.seal().unwrap();
}

#[test]
fn a_reserving_writer_needs_two_segments_to_open_and_then_the_space_is_its_own() {
    let log = Path::new("log");
    let options = Options {
        reserve: true,
        ..manual()
    };
    for room in [0, 1] {
        let refused = Writer::open_on(Arc::new(small_disk(room)), log, options).unwrap_err();
        assert_eq!(refused.code(), ReasonCode::WalWriteFailed, "{refused}");
    }
    let disk = small_disk(2);
    let writer = Writer::open_on(Arc::new(disk.clone()), log, options).unwrap();
    // Whoever eats the rest of the disk: two segments of records still go in.
    assert_eq!(disk.room.load(SeqCst), 0);
    let mut acked = 0;
    while let Ok(seq) = writer.append_durable(&record(acked + 1)) {
        acked = seq;
    }
    assert!(
        acked >= 2 * (SEGMENT_BYTES_MIN / 136 - 2),
        "{acked} records"
    );
}

#[test]
fn the_watermark_follows_the_writer_and_keeps_its_failure() {
    let dir = TempDir::new();
    assert_eq!(read_watermark(dir.path()).unwrap(), None);
    let writer = Writer::open(dir.path(), manual()).unwrap();
    writer.append_durable(&tape(1, 3)).unwrap();
    let view = read_watermark(dir.path()).unwrap().unwrap();
    assert_eq!((view.wal_id, view.epoch, view.kind), (7, 3, manual().kind));
    assert_eq!(
        (view.last_seq, view.durable_seq, view.segment_id),
        (3, 3, 1)
    );
    assert_eq!((view.phase, view.failure), (WriterPhase::Open, 0));
    assert!(view.has_space_ahead && view.sync_time_ns > 0);
    drop(writer);
    let phase = || read_watermark(dir.path()).unwrap().unwrap().phase;
    assert_eq!(phase(), WriterPhase::Closed);
    let writer = Writer::open(dir.path(), manual()).unwrap();
    assert_eq!(phase(), WriterPhase::Open);
    // The folder is gone under it: the next rotation fails, and the file it still maps says so.
    let moved = TempDir::new();
    std::fs::rename(dir.path(), moved.path()).unwrap();
    writer.append(&record(4)).unwrap();
    let failure = writer.rotate().unwrap_err();
    let view = read_watermark(moved.path()).unwrap().unwrap();
    assert_eq!(view.phase, WriterPhase::Failed);
    assert_eq!(view.failure, failure.code().code());
    assert_eq!(view.failure, ReasonCode::WalWriteFailed.code());
    drop(writer);
    assert_eq!(
        read_watermark(moved.path()).unwrap().unwrap().phase,
        WriterPhase::Failed
    );
    std::fs::write(moved.path().join("watermark"), [7; 64]).unwrap();
    assert_eq!(
        read_watermark(moved.path()).unwrap_err().code(),
        ReasonCode::WalReadFailed
    );
}

/// A monitor in another thread of the same file, while records go in: never ahead of the disk.
#[test]
fn a_reader_of_the_watermark_never_sees_durable_above_last() {
    let dir = TempDir::new();
    let writer = Writer::open(dir.path(), manual()).unwrap();
    std::thread::scope(|scope| {
        let appended = scope.spawn(|| {
            for number in 1..=600 {
                writer.append_durable(&record(number)).unwrap();
            }
        });
        let mut before = 0;
        while !appended.is_finished() {
            let view = read_watermark(dir.path()).unwrap().unwrap();
            assert!(view.durable_seq <= view.last_seq);
            assert!(view.durable_seq >= before);
            assert!(view.durable_seq <= writer.durable_seq());
            before = view.durable_seq;
        }
    });
}
