//! The write-ahead log as it is deployed. Protects: what an append costs its thread, how long an
//! acknowledgement takes, what the order log adds to the disk's own time, and how fast a log is
//! recovered.
//!
//! Prints one JSON line: `{figure: value}`. Set-up is outside the timed part. The files go to
//! `HFT_BENCH_FOLDER`, else to the folder for temporary files.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for people and scripts"
)]

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use _core::record::{BrokerRecord, InstrumentRecord, Record};
use _core::wal::{FRAME_HEADER_BYTES, LogKind, Options, Writer, recover_log};

/// Both record types used here.
const RECORD_BYTES: usize = 128;
const FRAME_BYTES: usize = FRAME_HEADER_BYTES + RECORD_BYTES;
const SEGMENT_BYTES: u64 = 64 << 20;
const GROUP_COMMIT: Duration = Duration::from_millis(10);
/// Appended in one go, below the bytes at which an append has to write.
const BURST: usize = 40_000;
const BURSTS: usize = 12;
/// Appended without a pause: four segments.
const SUSTAINED: usize = 1_600_000;
const PACED_PER_MS: usize = 500;
const PACED_MS: usize = 2_000;
const ORDERS: usize = 3_000;
const RECOVERIES: usize = 7;

fn options(kind: LogKind) -> Options {
    Options {
        wal_id: 1,
        kind,
        segment_bytes: SEGMENT_BYTES,
        group_commit: GROUP_COMMIT,
        epoch: 1,
        seal_after: Some(Duration::from_secs(60)),
        reserve: kind == LogKind::Orders,
    }
}

/// A folder that is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let base =
            std::env::var_os("HFT_BENCH_FOLDER").map_or_else(std::env::temp_dir, PathBuf::from);
        let path = base.join(format!("wal-bench-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _outcome = std::fs::remove_dir_all(&self.0);
    }
}

fn at(samples: &mut [f64], permille: usize) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[(samples.len() * permille / 1_000).min(samples.len() - 1)]
}

fn wait_for_space(writer: &Writer) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !writer.has_space_ahead() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(100));
}

/// Records a second of an append that does not wait for the disk: bursts that fit the buffer, each
/// made durable before the next, outside the timed part.
fn append_per_s(record: &[u8]) -> Vec<f64> {
    let folder = Folder::new("append");
    let writer = Writer::open(&folder.0, options(LogKind::Market)).unwrap();
    wait_for_space(&writer);
    let mut rates = Vec::with_capacity(BURSTS);
    for _ in 0..BURSTS {
        let start = Instant::now();
        for _ in 0..BURST {
            writer.append(record).unwrap();
        }
        rates.push(BURST as f64 / start.elapsed().as_secs_f64());
        writer.sync().unwrap();
    }
    writer.seal().unwrap();
    rates
}

/// Records a second over four segments, written, synced, sealed and hashed: what the disk takes.
fn sustained_per_s(record: &[u8]) -> f64 {
    let folder = Folder::new("sustained");
    let writer = Writer::open(&folder.0, options(LogKind::Market)).unwrap();
    wait_for_space(&writer);
    let start = Instant::now();
    for _ in 0..SUSTAINED {
        writer.append(record).unwrap();
    }
    writer.sync().unwrap();
    let rate = SUSTAINED as f64 / start.elapsed().as_secs_f64();
    writer.seal().unwrap();
    rate
}

/// Milliseconds from a record's append to its acknowledgement at 500,000 records a second.
fn group_ack_ms(record: &[u8]) -> Vec<f64> {
    let folder = Folder::new("group");
    let writer = Writer::open(&folder.0, options(LogKind::Market)).unwrap();
    wait_for_space(&writer);
    let mut waiting: VecDeque<(u64, Instant)> = VecDeque::with_capacity(PACED_MS);
    let mut samples = Vec::with_capacity(PACED_MS);
    let start = Instant::now();
    let mut sent = 0;
    while sent < PACED_MS || !waiting.is_empty() {
        if sent < PACED_MS && start.elapsed() >= Duration::from_millis(sent as u64) {
            let mut seq = 0;
            for _ in 0..PACED_PER_MS {
                seq = writer.append(record).unwrap();
            }
            waiting.push_back((seq, Instant::now()));
            sent += 1;
        }
        let durable_seq = writer.durable_seq();
        while waiting.front().is_some_and(|(seq, _)| *seq <= durable_seq) {
            let (_, appended) = waiting.pop_front().unwrap();
            samples.push(appended.elapsed().as_secs_f64() * 1e3);
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    writer.seal().unwrap();
    samples
}

/// A file reserved and zeroed as a prepared segment is.
fn zeroed_file(path: &Path) -> File {
    let file = File::create(path).unwrap();
    let chunk = vec![0; 1 << 20];
    for index in 0..8 {
        file.write_all_at(&chunk, index << 20).unwrap();
        file.sync_data().unwrap();
    }
    file
}

/// Microseconds of a durable append to the order log, and of a bare write and fdatasync of as many
/// bytes into a zeroed file beside it, in turns: each is first every other time.
fn order_append_us(record: &[u8]) -> (Vec<f64>, Vec<f64>) {
    let folder = Folder::new("orders");
    let writer = Writer::open(&folder.0.join("orders"), options(LogKind::Orders)).unwrap();
    let bare = zeroed_file(&folder.0.join("bare"));
    wait_for_space(&writer);
    let frame = [7_u8; FRAME_BYTES];
    let timed = |step: &dyn Fn()| {
        let start = Instant::now();
        step();
        start.elapsed().as_secs_f64() * 1e6
    };
    let (mut log, mut disk) = (Vec::with_capacity(ORDERS), Vec::with_capacity(ORDERS));
    for index in 0..ORDERS {
        let append = || assert!(writer.append_durable(record).unwrap() > 0);
        let write = || {
            let offset = (index * FRAME_BYTES) as u64;
            bare.write_all_at(&frame, offset).unwrap();
            bare.sync_data().unwrap();
        };
        if index % 2 == 0 {
            log.push(timed(&append));
            disk.push(timed(&write));
        } else {
            disk.push(timed(&write));
            log.push(timed(&append));
        }
    }
    writer.seal().unwrap();
    (log, disk)
}

fn log_bytes(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).unwrap();
    files
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum()
}

/// Gigabytes a second of a recovery that verifies every byte of a log in the page cache.
fn recovery_gb_per_s(record: &[u8]) -> Vec<f64> {
    let folder = Folder::new("recovery");
    let writer = Writer::open(&folder.0, options(LogKind::Market)).unwrap();
    for _ in 0..SUSTAINED {
        writer.append(record).unwrap();
    }
    writer.seal().unwrap();
    let bytes = log_bytes(&folder.0);
    (0..RECOVERIES)
        .map(|_| {
            let start = Instant::now();
            let report = recover_log(&folder.0).unwrap();
            assert_eq!(report.last_seq, Some(SUSTAINED as u64));
            bytes as f64 / start.elapsed().as_secs_f64() / 1e9
        })
        .collect()
}

fn main() {
    let market = InstrumentRecord::empty();
    let market = market.as_bytes();
    let order = BrokerRecord::empty();
    let order = order.as_bytes();
    assert_eq!((market.len(), order.len()), (RECORD_BYTES, RECORD_BYTES));
    let mut appends = append_per_s(market);
    let sustained = sustained_per_s(market);
    let mut acks = group_ack_ms(market);
    let (mut orders, mut bare) = order_append_us(order);
    let mut recoveries = recovery_gb_per_s(market);
    let (order_us, bare_us) = (at(&mut orders, 500), at(&mut bare, 500));
    println!(
        "{{\"append_per_s\": {:.0}, \"sustained_per_s\": {sustained:.0}, \
         \"group_ack_ms_p50\": {:.3}, \"group_ack_ms_p99\": {:.3}, \
         \"order_append_us_p50\": {order_us:.2}, \"order_append_us_p99\": {:.2}, \
         \"fdatasync_us_p50\": {bare_us:.2}, \"fdatasync_us_p99\": {:.2}, \
         \"order_append_over_fdatasync\": {:.4}, \"recovery_gb_per_s\": {:.3}}}",
        at(&mut appends, 500),
        at(&mut acks, 500),
        at(&mut acks, 990),
        at(&mut orders, 990),
        at(&mut bare, 990),
        order_us / bare_us,
        at(&mut recoveries, 500),
    );
}
