//! Salvage: what is whole is kept on both sides of the damage, the original is not touched.

use std::path::Path;

use super::support::{TempDir, manual, record, tape};
use crate::reason::ReasonCode;
use crate::wal::frame::frame_bytes;
use crate::wal::segment::{SegmentState, segment_path};
use crate::wal::{
    Options, SEGMENT_HEADER_BYTES, Salvage, Writer, read_log, recover_log, salvage_log,
};

const RECORDS: u64 = 150;

/// A log of two sealed segments and an open one, synced behind each record.
fn log() -> TempDir {
    let dir = TempDir::new();
    let log = dir.path().join("market");
    let writer = Writer::open(&log, manual()).unwrap();
    for number in 1..=RECORDS {
        writer.append_durable(&record(number)).unwrap();
    }
    drop(writer);
    dir
}

fn bytes_of(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}

/// Salvages and checks what must hold of every salvage.
fn salvage(dir: &TempDir) -> Salvage {
    let log = dir.path().join("market");
    let before = bytes_of(&log);
    assert!(recover_log(&log).is_err(), "only a refused log is salvaged");
    let salvage = salvage_log(&log, &dir.path().join("market-salvaged-1")).unwrap();
    assert_eq!(bytes_of(&log), before, "the original was changed");
    for part in &salvage.parts {
        let read = read_log(&part.dir).unwrap().tape;
        assert_eq!(read, tape(part.stats.first_seq, part.stats.last_seq));
    }
    // Parts and holes together are the whole log, in order, once.
    let parts = salvage
        .parts
        .iter()
        .map(|part| (part.stats.first_seq, part.stats.last_seq));
    let holes = salvage
        .holes
        .iter()
        .map(|hole| (hole.first_seq, hole.last_seq.unwrap_or(RECORDS)));
    let mut spans: Vec<(u64, u64)> = parts.chain(holes).collect();
    spans.sort_unstable();
    let mut next = 1;
    for (first, last) in &spans {
        assert_eq!(*first, next, "{spans:?}");
        next = last + 1;
    }
    assert_eq!(next, RECORDS + 1, "{spans:?}");
    salvage
}

fn flip(dir: &TempDir, segment_id: u64, state: SegmentState, at: usize) {
    let path = segment_path(&dir.path().join("market"), segment_id, state);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[at] ^= 8;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_flip_in_a_sealed_segment_costs_the_one_record_it_hit() {
    let dir = log();
    let third = SEGMENT_HEADER_BYTES + 2 * frame_bytes(record(1).len());
    flip(&dir, 1, SegmentState::Sealed, third + 60);
    let salvage = salvage(&dir);
    let [hole] = &salvage.holes[..] else {
        panic!("{:?}", salvage.holes)
    };
    assert_eq!((hole.first_seq, hole.last_seq), (3, Some(3)));
    assert_eq!(
        (hole.after_input_seq, hole.before_input_seq),
        (Some(2), Some(4))
    );
    assert_eq!(hole.from_offset, third as u64);
    assert_eq!(
        hole.to_offset,
        (third + frame_bytes(record(3).len())) as u64
    );
    assert!(hole.fault.contains("checksum"), "{}", hole.fault);
    assert!(hole.was_durable);
    let spans: Vec<_> = salvage
        .parts
        .iter()
        .map(|part| (part.stats.first_seq, part.stats.last_seq))
        .collect();
    assert_eq!(spans, [(1, 2), (4, RECORDS)]);
    assert!(salvage.parts[1].dir.ends_with("market-salvaged-1/after-3"));
}

#[test]
fn a_whole_sealed_segment_keeps_its_bytes() {
    let dir = log();
    flip(&dir, 3, SegmentState::Open, SEGMENT_HEADER_BYTES + 60);
    let salvage = salvage(&dir);
    for id in [1, 2] {
        let name = |dir: &Path| segment_path(dir, id, SegmentState::Sealed);
        assert_eq!(
            std::fs::read(name(&salvage.parts[0].dir)).unwrap(),
            std::fs::read(name(&dir.path().join("market"))).unwrap()
        );
    }
}

#[test]
fn every_byte_of_a_log_can_be_hit_and_only_what_was_hit_is_missing() {
    // Every 37th byte: each part of headers, frames, padding and footers is among them.
    for (id, state) in [
        (1, SegmentState::Sealed),
        (2, SegmentState::Sealed),
        (3, SegmentState::Open),
    ] {
        let bytes = {
            let dir = log();
            std::fs::read(segment_path(&dir.path().join("market"), id, state)).unwrap()
        };
        for at in (0..bytes.len()).step_by(37 * 8 + 1) {
            let dir = log();
            flip(&dir, id, state, at);
            if recover_log(&dir.path().join("market")).is_ok() {
                assert_eq!(state, SegmentState::Open, "byte {at} of segment {id}");
                continue;
            }
            let salvage = salvage(&dir);
            let missing: u64 = salvage
                .holes
                .iter()
                .map(|hole| hole.last_seq.unwrap_or(RECORDS) + 1 - hole.first_seq)
                .sum();
            assert!(missing <= 1, "byte {at} of segment {id}: {salvage:?}");
        }
    }
}

#[test]
fn a_missing_segment_is_a_hole_with_its_sequences() {
    let dir = log();
    let log_dir = dir.path().join("market");
    let (first, last) = {
        let info = &read_log(&log_dir).unwrap().segments[1];
        let stats = info.stats.unwrap();
        (stats.first_seq, stats.last_seq)
    };
    std::fs::remove_file(segment_path(&log_dir, 2, SegmentState::Sealed)).unwrap();
    let salvage = salvage(&dir);
    let [hole] = &salvage.holes[..] else {
        panic!("{:?}", salvage.holes)
    };
    assert_eq!((hole.first_seq, hole.last_seq), (first, Some(last)));
    assert_eq!(salvage.parts.len(), 2);
}

#[test]
fn a_live_log_an_existing_target_and_an_empty_folder_are_refused() {
    let dir = TempDir::new();
    let log_dir = dir.path().join("market");
    let target = dir.path().join("target");
    let writer = Writer::open(
        &log_dir,
        Options {
            epoch: 1,
            ..manual()
        },
    )
    .unwrap();
    writer.append_durable(&record(1)).unwrap();
    let code = |dir: &Path| salvage_log(dir, &target).unwrap_err().code();
    assert_eq!(code(&log_dir), ReasonCode::WalBusy);
    drop(writer);
    std::fs::create_dir(&target).unwrap();
    assert_eq!(code(&log_dir), ReasonCode::SettingsInvalid);
    std::fs::remove_dir(&target).unwrap();
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    assert_eq!(code(&empty), ReasonCode::SettingsInvalid);
    assert!(!target.exists());
}
