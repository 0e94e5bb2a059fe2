//! Records, folders and options that the tests share.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::record::{CommandRecord, Record, TimerRecord, TradeRecord};
use crate::wal::{LogKind, Options, SEGMENT_BYTES_MIN};

/// A folder that is removed when the test ends.
#[derive(Debug)]
pub(in crate::wal) struct TempDir(PathBuf);

impl TempDir {
    pub(in crate::wal) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("hft-wal-test-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(in crate::wal) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _outcome = std::fs::remove_dir_all(&self.0);
    }
}

/// Small segments and no thread: what is durable when is up to the test.
pub(in crate::wal) fn manual() -> Options {
    Options {
        wal_id: 7,
        kind: LogKind::Market,
        segment_bytes: SEGMENT_BYTES_MIN,
        group_commit: Duration::ZERO,
        epoch: 3,
        seal_after: None,
        reserve: false,
    }
}

/// A trade or timer whose content follows from its number.
pub(in crate::wal) fn record(number: u64) -> Vec<u8> {
    if number.is_multiple_of(5) {
        let mut timer = TimerRecord::empty();
        timer.header.input_seq = number;
        timer.header.sequence_time_ns = time_ns(number);
        timer.argument = -i64::try_from(number).unwrap();
        return timer.as_bytes().to_vec();
    }
    let mut trade = TradeRecord::empty();
    trade.header.input_seq = number;
    trade.header.sequence_time_ns = time_ns(number);
    trade.price = i64::try_from(number).unwrap() * 100_000_000;
    trade.qty = 1;
    trade.as_bytes().to_vec()
}

pub(in crate::wal) fn time_ns(number: u64) -> i64 {
    1_700_000_000_000_000_000 + i64::try_from(number).unwrap() * 1_000
}

/// The tape of records `first..=last`.
pub(in crate::wal) fn tape(first: u64, last: u64) -> Vec<u8> {
    (first..=last).flat_map(record).collect()
}

/// A record of the other log.
pub(in crate::wal) fn command() -> Vec<u8> {
    CommandRecord::empty().as_bytes().to_vec()
}

/// Names of a log's segment files.
pub(in crate::wal) fn segment_names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".seg") || name.ends_with(".open"))
        .collect();
    names.sort();
    names
}
