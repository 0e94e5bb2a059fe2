//! The manifest: what it names is missed when it is gone, and it survives what the log survives.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::sim_disk::{Draw, Fate, SimDisk};
use super::support::{TempDir, manual, record, segment_names, tape};
use crate::reason::ReasonCode;
use crate::wal::disk::Disk;
use crate::wal::manifest::{MANIFEST_LOCK_NAME, MANIFEST_NAME, read_on};
use crate::wal::reader::read_log_on;
use crate::wal::recovery::recover_on;
use crate::wal::segment::{SegmentState, segment_path};
use crate::wal::{
    EntryKind, LogKind, ManifestFound, Options, WalError, Writer, append_taken_away, read_log,
    read_manifest, recover_log, verify_log,
};

/// A log of several sealed segments.
fn sealed_log(dir: &Path) -> u64 {
    let writer = Writer::open(dir, manual()).unwrap();
    writer.append_tape(&tape(1, 200)).unwrap();
    writer.seal().unwrap();
    segment_names(dir).len() as u64
}

fn kinds(dir: &Path) -> Vec<(EntryKind, u64)> {
    let manifest = read_manifest(dir).unwrap().unwrap();
    let kind_of = |entry: &crate::wal::Entry| (entry.kind, entry.segment_id);
    manifest.entries.iter().map(kind_of).collect()
}

#[test]
fn every_segment_has_its_entries_and_a_sealed_one_its_hash() {
    let dir = TempDir::new();
    let writer = Writer::open(dir.path(), manual()).unwrap();
    writer.append(&record(1)).unwrap();
    writer.rotate().unwrap();
    assert_eq!(
        kinds(dir.path()),
        [
            (EntryKind::Begun, 1),
            (EntryKind::Sealed, 1),
            (EntryKind::Begun, 2)
        ]
    );
    writer.seal().unwrap();
    let manifest = read_manifest(dir.path()).unwrap().unwrap();
    assert_eq!(
        (manifest.identity.wal_id, manifest.identity.kind),
        (7, LogKind::Market)
    );
    let sealed = &manifest.entries[1];
    let log = read_log(dir.path()).unwrap();
    assert_eq!(Some(sealed.sha256), log.segments[0].sha256);
    assert_eq!(
        (
            sealed.record_count,
            sealed.first_seq,
            sealed.last_seq,
            sealed.epoch
        ),
        (1, 1, 1, 3)
    );
    // The empty second segment is gone, and said to be.
    assert_eq!(kinds(dir.path())[3], (EntryKind::Removed, 2));
    assert_eq!(manifest.torn_bytes, 0);
}

/// Before the manifest, a log whose last segment was taken away read as a shorter log.
#[test]
fn a_sealed_segment_that_is_gone_is_missed_wherever_it_stood() {
    let dir = TempDir::new();
    let count = sealed_log(dir.path());
    assert!(count >= 4);
    for gone in [1, 2, count] {
        let path = segment_path(dir.path(), gone, SegmentState::Sealed);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        for error in [
            read_log(dir.path()).unwrap_err(),
            recover_log(dir.path()).unwrap_err(),
            verify_log(dir.path()).unwrap_err(),
            Writer::open(dir.path(), manual()).unwrap_err(),
        ] {
            assert_eq!(error.code(), ReasonCode::LogSequenceGap, "{gone}: {error}");
        }
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(read_log(dir.path()).unwrap().tape, tape(1, 200));
    }
    // The negative control: without its manifest the shorter log passes.
    std::fs::remove_file(segment_path(dir.path(), count, SegmentState::Sealed)).unwrap();
    std::fs::remove_file(dir.path().join(MANIFEST_NAME)).unwrap();
    assert!(read_log(dir.path()).unwrap().tape.len() < tape(1, 200).len());
}

#[test]
fn an_open_segment_that_is_gone_is_missed_too() {
    let dir = TempDir::new();
    let writer = Writer::open(dir.path(), manual()).unwrap();
    writer.append_durable(&tape(1, 3)).unwrap();
    drop(writer);
    let path = segment_path(dir.path(), 1, SegmentState::Open);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let error = recover_log(dir.path()).unwrap_err();
    assert!(
        matches!(
            error,
            WalError::Missing {
                status: "begun",
                ..
            }
        ),
        "{error}"
    );
    // A header that was durable and is lost is damage, not an interrupted creation.
    std::fs::write(&path, &bytes[..20]).unwrap();
    assert_eq!(
        recover_log(dir.path()).unwrap_err().code(),
        ReasonCode::WalDamaged
    );
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(recover_log(dir.path()).unwrap().last_seq, Some(3));
}

/// Every checksum of it holds and it follows its neighbors: only the manifest knows the difference.
#[test]
fn a_segment_replaced_by_another_whole_one_is_refused() {
    let (dir, other) = (TempDir::new(), TempDir::new());
    for (log, first) in [(&dir, 1), (&other, 2)] {
        let writer = Writer::open(log.path(), manual()).unwrap();
        writer.append_tape(&tape(first, first + 4)).unwrap();
        writer.seal().unwrap();
    }
    let path = |log: &TempDir| segment_path(log.path(), 1, SegmentState::Sealed);
    std::fs::copy(path(&other), path(&dir)).unwrap();
    for error in [
        read_log(dir.path()).unwrap_err(),
        recover_log(dir.path()).unwrap_err(),
        verify_log(dir.path()).unwrap_err(),
    ] {
        assert_eq!(error.code(), ReasonCode::WalSegmentMismatch, "{error}");
        assert!(error.to_string().contains("the manifest says"), "{error}");
    }
}

#[test]
fn a_log_of_an_earlier_version_gets_its_manifest_once() {
    let dir = TempDir::new();
    let count = sealed_log(dir.path());
    std::fs::remove_file(dir.path().join(MANIFEST_NAME)).unwrap();
    assert!(!verify_log(dir.path()).unwrap().has_manifest);
    let report = recover_log(dir.path()).unwrap();
    assert_eq!(report.manifest, ManifestFound::Rebuilt);
    let adopted: Vec<_> = (1..=count).map(|id| (EntryKind::Adopted, id)).collect();
    assert_eq!(kinds(dir.path()), adopted);
    assert_eq!(
        recover_log(dir.path()).unwrap().manifest,
        ManifestFound::Whole
    );
    std::fs::remove_file(segment_path(dir.path(), count, SegmentState::Sealed)).unwrap();
    assert!(recover_log(dir.path()).is_err());
}

#[test]
fn a_torn_manifest_is_cut_at_any_byte_and_no_other_damage_is() {
    let dir = TempDir::new();
    let count = sealed_log(dir.path());
    let path = dir.path().join(MANIFEST_NAME);
    let bytes = std::fs::read(&path).unwrap();
    let whole = kinds(dir.path());
    for cut in 0..bytes.len() {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        let report = recover_log(dir.path()).unwrap();
        assert_eq!(report.last_seq, Some(200), "cut at {cut}");
        // What was lost of it is found again on disk.
        let again = kinds(dir.path());
        for id in 1..=count {
            let is_sealed = |(kind, of): &(EntryKind, u64)| *of == id && *kind != EntryKind::Begun;
            assert!(again.iter().any(is_sealed), "cut at {cut}: {again:?}");
        }
    }
    let (mut refused, mut shorter) = (0, 0);
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&path, &flipped).unwrap();
        match read_manifest(dir.path()) {
            Err(error) => {
                assert_eq!(error.code(), ReasonCode::WalDamaged, "bit {bit}");
                assert_eq!(recover_log(dir.path()).unwrap_err().code(), error.code());
                assert_eq!(std::fs::read(&path).unwrap(), flipped, "nothing is changed");
                refused += 1;
            }
            // The last addition has nothing behind it that testifies.
            Ok(manifest) => {
                let manifest = manifest.unwrap();
                let entries = manifest.entries.len();
                assert_eq!(entries, whole.len() - 1, "bit {bit}");
                assert!(manifest.torn_bytes > 0);
                shorter += 1;
            }
        }
    }
    let last_frame_bits = 8 * (40 + 72);
    let expected = (8 * bytes.len() - last_frame_bits, last_frame_bits);
    assert_eq!((refused, shorter), expected);
}

#[test]
fn archived_segments_may_be_missing_and_the_log_goes_on_behind_them() {
    let dir = TempDir::new();
    let count = sealed_log(dir.path());
    let ids: Vec<u64> = (1..=count).collect();
    append_taken_away(dir.path(), &ids, Some("cold/7")).unwrap();
    // Noted and still there: both are fine.
    assert_eq!(read_log(dir.path()).unwrap().tape, tape(1, 200));
    for id in [1, 3] {
        std::fs::remove_file(segment_path(dir.path(), id, SegmentState::Sealed)).unwrap();
    }
    let check = verify_log(dir.path()).unwrap();
    assert_eq!((check.segment_count, check.away_count), (count - 2, 2));
    let error = read_log(dir.path()).unwrap_err();
    assert_eq!(error.code(), ReasonCode::LogSequenceGap);
    assert!(
        error.to_string().ends_with("it was archived to cold/7"),
        "{error}"
    );
    for id in (2..=count).filter(|id| *id != 3) {
        std::fs::remove_file(segment_path(dir.path(), id, SegmentState::Sealed)).unwrap();
    }
    let report = recover_log(dir.path()).unwrap();
    assert_eq!((report.segment_count, report.last_seq), (0, Some(200)));
    let writer = Writer::open(dir.path(), manual()).unwrap();
    assert_eq!(writer.append_durable(&record(201)).unwrap(), 201);
    writer.seal().unwrap();
    assert_eq!(verify_log(dir.path()).unwrap().away_count, count);
    append_taken_away(dir.path(), &[1], None).unwrap();
    assert_eq!(kinds(dir.path()).last().unwrap(), &(EntryKind::Deleted, 1));
}

#[test]
fn only_sealed_segments_of_a_log_with_a_manifest_are_taken_away() {
    let dir = TempDir::new();
    let no_log = append_taken_away(dir.path(), &[1], None).unwrap_err();
    assert_eq!(no_log.code(), ReasonCode::SettingsInvalid);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    let writer = Writer::open(dir.path(), manual()).unwrap();
    writer.append(&record(1)).unwrap();
    writer.rotate().unwrap();
    let before = kinds(dir.path());
    for (ids, place) in [
        (&[2][..], Some("cold")),
        (&[1, 3], Some("cold")),
        (&[1], Some("")),
    ] {
        let error = append_taken_away(dir.path(), ids, place).unwrap_err();
        assert_eq!(error.code(), ReasonCode::SettingsInvalid, "{error}");
        assert_eq!(kinds(dir.path()), before);
    }
    append_taken_away(dir.path(), &[1], Some("cold")).unwrap();
    append_taken_away(dir.path(), &[1], None).unwrap();
    let gone = append_taken_away(dir.path(), &[1], Some("cold")).unwrap_err();
    assert!(gone.to_string().contains("1, which is deleted"), "{gone}");
    drop(writer);
}

/// The archiver is another process, and may be stopped in the middle: the writer does not wait.
#[test]
fn a_held_manifest_delays_entries_and_never_the_writer() {
    let dir = TempDir::new();
    let writer = Writer::open(dir.path(), manual()).unwrap();
    let held = crate::wal::disk::OsDisk
        .lock(&dir.path().join(MANIFEST_LOCK_NAME))
        .unwrap()
        .unwrap();
    let busy = append_taken_away(dir.path(), &[1], None).unwrap_err();
    assert_eq!(busy.code(), ReasonCode::WalBusy);
    let before = kinds(dir.path());
    for number in 1..=3 {
        writer.append_durable(&record(number)).unwrap();
        writer.rotate().unwrap();
    }
    assert_eq!(kinds(dir.path()), before);
    assert_eq!(read_log(dir.path()).unwrap().tape, tape(1, 3));
    drop(held);
    writer.append(&record(4)).unwrap();
    writer.seal().unwrap();
    let sealed = |(kind, _): &&(EntryKind, u64)| *kind == EntryKind::Sealed;
    assert_eq!(kinds(dir.path()).iter().filter(sealed).count(), 4);
}

#[test]
fn a_log_reads_whole_while_it_is_rotated_and_archived() {
    let dir = TempDir::new();
    let options = Options {
        group_commit: std::time::Duration::from_micros(200),
        ..manual()
    };
    let writer = Writer::open(dir.path(), options).unwrap();
    writer.append_durable(&record(1)).unwrap();
    std::thread::scope(|scope| {
        let appended = scope.spawn(|| {
            for number in 2..=400 {
                writer.append(&record(number)).unwrap();
                if number % 5 == 0 {
                    writer.rotate().unwrap();
                }
            }
        });
        while !appended.is_finished() {
            let log = read_log(dir.path()).unwrap();
            assert!(tape(1, 400).starts_with(&log.tape));
            verify_log(dir.path()).unwrap();
        }
    });
    writer.seal().unwrap();
    assert_eq!(read_log(dir.path()).unwrap().tape, tape(1, 400));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Invariant 1 of the manifest on a disk that loses power at every step: a sealed segment that
    /// the manifest names is there, with that hash, and recovery refuses nothing.
    #[test]
    fn what_the_manifest_names_is_there_after_any_power_cut(
        sizes in proptest::collection::vec(1_u64..4, 1..6),
        reserve in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let dir = Path::new("log");
        let options = Options { reserve, ..manual() };
        let run = |disk: &SimDisk| -> Result<u64, WalError> {
            let mut last = 0;
            for (index, size) in sizes.iter().enumerate() {
                let writer = Writer::open_on(Arc::new(disk.clone()), dir, options)?;
                writer.append_tape(&tape(last + 1, last + size))?;
                last += size;
                if index % 2 == 0 {
                    writer.rotate()?;
                    writer.append_durable(&record(last + 1))?;
                    last += 1;
                    drop(writer);
                } else {
                    writer.seal()?;
                }
            }
            Ok(last)
        };
        let rehearsal = SimDisk::new(Fate::Reliable);
        let last = run(&rehearsal).unwrap();
        prop_assert_eq!(read_log_on(&rehearsal, dir).unwrap().tape, tape(1, last));
        let mut draw = Draw::new(seed);
        for at in 0..rehearsal.steps() {
            let disk = SimDisk::new(Fate::PowerCutAt(at));
            let _outcome = run(&disk);
            for _ in 0..6 {
                let image = disk.after_power_cut(&mut draw);
                let (report, _) = recover_on(&image, dir)
                    .map_err(|error| TestCaseError::fail(format!("step {at}: {error}")))?;
                let manifest = read_on(&image, dir).unwrap();
                let sealed = manifest.map_or(0, |manifest| {
                    manifest.segments().values().filter(|listed| listed.sealed.is_some()).count()
                });
                prop_assert_eq!(sealed as u64, report.segment_count);
                let names = image.list(dir).unwrap();
                prop_assert!(!names.iter().any(|name| name.ends_with(".next")));
                prop_assert_eq!(recover_on(&image, dir).unwrap().0.last_seq, report.last_seq);
            }
        }
    }
}
