//! Truncation at every byte, every bit flip, damage against interruption, hostile bytes.

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::support::{TempDir, manual, record, tape};
use crate::reason::ReasonCode;
use crate::wal::frame::frame_bytes;
use crate::wal::reader::{check_bytes, inspect};
use crate::wal::segment::{SegmentState, segment_path};
use crate::wal::{
    FOOTER_BYTES, Fault, RecoveredTail, SEGMENT_HEADER_BYTES, Segment, WalError, Writer, read_log,
    read_segment, recover_log, verify_segment,
};

const RECORDS: u64 = 8;

/// Bytes of the one segment of a log, written with a sync behind each record of `synced`.
fn open_bytes(records: u64, is_synced: impl Fn(u64) -> bool) -> Vec<u8> {
    let dir = TempDir::new();
    let writer = Writer::open(dir.path(), manual()).unwrap();
    for number in 1..=records {
        writer.append(&record(number)).unwrap();
        if is_synced(number) {
            writer.sync().unwrap();
        }
    }
    writer.sync().unwrap();
    std::fs::read(segment_path(dir.path(), 1, SegmentState::Open)).unwrap()
}

fn sealed_bytes() -> Vec<u8> {
    let dir = TempDir::new();
    let writer = Writer::open(dir.path(), manual()).unwrap();
    writer.append_tape(&tape(1, RECORDS)).unwrap();
    writer.seal().unwrap();
    std::fs::read(segment_path(dir.path(), 1, SegmentState::Sealed)).unwrap()
}

fn look(bytes: &[u8], state: SegmentState) -> Result<Segment, WalError> {
    let path = segment_path(Path::new("log"), 1, state);
    let mut tape = Vec::new();
    let seen = inspect(&path, 1, state, bytes, Some(&mut tape));
    // The report never disagrees with the reader, and neither panics.
    let check = check_bytes(&path, 1, state, bytes);
    assert_eq!(check.outcome.is_ok(), seen.is_ok());
    seen.map(|found| Segment {
        info: found.info,
        tape,
        torn: found.torn,
    })
}

/// Offsets at which the frames of records `1..=records` end.
fn frame_ends(records: u64) -> Vec<usize> {
    let mut end = SEGMENT_HEADER_BYTES;
    (1..=records)
        .map(|number| {
            end += frame_bytes(record(number).len());
            end
        })
        .collect()
}

fn whole_frames(ends: &[usize], bytes: usize) -> u64 {
    ends.iter().filter(|end| **end <= bytes).count() as u64
}

#[test]
fn an_open_segment_cut_at_any_byte_gives_exactly_its_whole_frames() {
    let ends = frame_ends(RECORDS);
    let bytes = open_bytes(RECORDS, |_| true);
    for cut in 0..=ends[ends.len() - 1] {
        let seen = look(&bytes[..cut], SegmentState::Open);
        if cut < SEGMENT_HEADER_BYTES {
            assert_eq!(
                seen.unwrap_err().code(),
                ReasonCode::WalTornTail,
                "cut at {cut}"
            );
            continue;
        }
        let segment = seen.unwrap();
        let whole = whole_frames(&ends, cut);
        assert_eq!(segment.tape, tape(1, whole), "cut at {cut}");
        let is_clean = cut == SEGMENT_HEADER_BYTES || ends.contains(&cut);
        assert_eq!(segment.torn.is_none(), is_clean, "cut at {cut}");
    }
}

#[test]
fn recovery_of_a_log_cut_at_any_byte_is_exact_and_the_log_goes_on() {
    let ends = frame_ends(3);
    let bytes = open_bytes(3, |_| true);
    for cut in 0..=ends[2] {
        let dir = TempDir::new();
        let path = segment_path(dir.path(), 1, SegmentState::Open);
        std::fs::write(&path, &bytes[..cut]).unwrap();
        let report = recover_log(dir.path()).unwrap();
        let whole = whole_frames(&ends, cut);
        assert_eq!(
            report.last_seq,
            (whole > 0).then_some(whole),
            "cut at {cut}"
        );
        let is_clean = cut == SEGMENT_HEADER_BYTES || ends.contains(&cut);
        let expected = if is_clean {
            ReasonCode::Unset
        } else {
            ReasonCode::WalTornTail
        };
        assert_eq!(report.code(), expected, "cut at {cut}");
        assert_eq!(
            recover_log(dir.path()).unwrap().tail,
            RecoveredTail::Nothing
        );
        let writer = Writer::open(dir.path(), manual()).unwrap();
        assert_eq!(
            writer.append_durable(&record(whole + 1)).unwrap(),
            whole + 1
        );
        writer.seal().unwrap();
        assert_eq!(
            read_log(dir.path()).unwrap().tape,
            tape(1, whole + 1),
            "cut at {cut}"
        );
    }
}

#[test]
fn a_sealed_segment_cut_or_extended_anywhere_does_not_match() {
    let bytes = sealed_bytes();
    for cut in 0..bytes.len() {
        let error = look(&bytes[..cut], SegmentState::Sealed).unwrap_err();
        assert_eq!(error.code(), ReasonCode::WalSegmentMismatch, "cut at {cut}");
    }
    for extra in [0_u8, 1] {
        let mut longer = bytes.clone();
        longer.push(extra);
        let error = look(&longer, SegmentState::Sealed).unwrap_err();
        assert_eq!(error.code(), ReasonCode::WalSegmentMismatch);
    }
}

#[test]
fn every_flipped_bit_of_a_sealed_segment_is_found() {
    let bytes = sealed_bytes();
    assert_eq!(
        look(&bytes, SegmentState::Sealed).unwrap().tape,
        tape(1, RECORDS)
    );
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let error = look(&flipped, SegmentState::Sealed).unwrap_err();
        assert_eq!(
            error.code(),
            ReasonCode::WalSegmentMismatch,
            "bit {bit}: {error}"
        );
    }
}

#[test]
fn every_flipped_bit_of_a_durable_frame_but_the_last_is_refused_and_none_changes_content() {
    let ends = frame_ends(RECORDS);
    let bytes = open_bytes(RECORDS, |_| true);
    let last_starts = ends[ends.len() - 2];
    // A part of the preallocated tail is enough.
    for bit in 0..(ends[ends.len() - 1] + 200) * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let seen = look(&flipped, SegmentState::Open);
        if bit / 8 < last_starts {
            let error = seen.unwrap_err();
            assert_eq!(error.code(), ReasonCode::WalDamaged, "bit {bit}: {error}");
            continue;
        }
        let segment = seen.unwrap();
        let is_last_frame = bit / 8 < ends[ends.len() - 1];
        assert_eq!(
            segment.tape,
            tape(1, RECORDS - u64::from(is_last_frame)),
            "bit {bit}"
        );
        assert!(segment.torn.is_some(), "bit {bit}");
    }
}

#[test]
fn a_flip_in_a_group_commit_is_refused_once_a_later_commit_testifies() {
    let ends = frame_ends(RECORDS);
    // Commits of records 1-3, 4-6 and 7-8.
    let bytes = open_bytes(RECORDS, |number| number % 3 == 0);
    for frame in 1..=RECORDS {
        let mut flipped = bytes.clone();
        flipped[ends[frame as usize - 1] - 1] ^= 1;
        match look(&flipped, SegmentState::Open) {
            Err(WalError::Damaged {
                seq,
                offset,
                following,
                ..
            }) => {
                assert!(frame <= 6, "frame {frame}");
                assert_eq!(seq, frame);
                let length = frame_bytes(record(frame).len());
                assert_eq!(offset, (ends[frame as usize - 1] - length) as u64);
                assert_eq!(following.frames, RECORDS - frame);
                assert_eq!(following.durable_seq, Some(6));
            }
            // The last commit: a whole frame behind it is no evidence that it was durable.
            Ok(segment) => {
                assert!(frame > 6, "frame {frame}");
                assert_eq!(segment.tape, tape(1, frame - 1));
                let torn = segment.torn.unwrap();
                assert_eq!((torn.seq, torn.following.frames), (frame, RECORDS - frame));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn refused_damage_leaves_every_byte_on_disk_as_it_was() {
    let dir = TempDir::new();
    let path = segment_path(dir.path(), 1, SegmentState::Open);
    let mut bytes = open_bytes(RECORDS, |_| true);
    bytes[SEGMENT_HEADER_BYTES + 60] ^= 4;
    std::fs::write(&path, &bytes).unwrap();
    let error = recover_log(dir.path()).unwrap_err();
    assert_eq!(error.code(), ReasonCode::WalDamaged);
    let text = error.to_string();
    for part in [
        "00000001.open: byte 128",
        "checksum was",
        "7 valid frames follow",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(
        Writer::open(dir.path(), manual()).unwrap_err().code(),
        ReasonCode::WalDamaged
    );
    assert_eq!(
        read_log(dir.path()).unwrap_err().code(),
        ReasonCode::WalDamaged
    );
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    let check = verify_segment(&path).unwrap();
    assert_eq!((check.valid_frames, check.bad_offset), (0, Some(128)));
    assert_eq!(
        (check.following.frames, check.following.durable_seq),
        (7, Some(7))
    );
    assert!(matches!(
        check.fault,
        Some(Fault::Checksum {
            structure: "frame",
            ..
        })
    ));
}

#[test]
fn damage_in_a_sealed_segment_is_fatal_for_the_whole_log() {
    let dir = TempDir::new();
    let writer = Writer::open(dir.path(), manual()).unwrap();
    writer.append_tape(&tape(1, 150)).unwrap();
    writer.seal().unwrap();
    let path = segment_path(dir.path(), 1, SegmentState::Sealed);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    for error in [
        read_log(dir.path()).unwrap_err(),
        recover_log(dir.path()).unwrap_err(),
        read_segment(&path).unwrap_err(),
        Writer::open(dir.path(), manual()).unwrap_err(),
        verify_segment(&path).unwrap().outcome.unwrap_err(),
    ] {
        assert_eq!(error.code(), ReasonCode::WalSegmentMismatch, "{error}");
    }
}

#[test]
fn a_segment_of_another_record_schema_is_named_as_such() {
    for state in [SegmentState::Open, SegmentState::Sealed] {
        let mut bytes = if state == SegmentState::Open {
            open_bytes(2, |_| true)
        } else {
            sealed_bytes()
        };
        bytes[40] ^= 1;
        let crc = crc32c::crc32c(&bytes[..SEGMENT_HEADER_BYTES - 4]);
        bytes[SEGMENT_HEADER_BYTES - 4..SEGMENT_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
        let error = look(&bytes, state).unwrap_err();
        assert_eq!(error.code(), ReasonCode::WalSchemaMismatch, "{error}");
    }
}

#[test]
fn a_segment_under_another_name_is_refused() {
    for (bytes, state) in [
        (open_bytes(2, |_| true), SegmentState::Open),
        (sealed_bytes(), SegmentState::Sealed),
    ] {
        let path = segment_path(Path::new("log"), 2, state);
        let error = inspect(&path, 2, state, &bytes, None).unwrap_err();
        let expected = match state {
            SegmentState::Open => ReasonCode::LogSequenceGap,
            SegmentState::Sealed => ReasonCode::WalSegmentMismatch,
        };
        assert_eq!(error.code(), expected, "{error}");
    }
    for name in ["1.seg", "00000001.bak", "0000000x.seg", "segment"] {
        let error = read_segment(&PathBuf::from(name)).unwrap_err();
        assert_eq!(error.code(), ReasonCode::SettingsInvalid, "{error}");
    }
}

#[test]
fn frames_of_another_segment_never_pass_in_a_recycled_file() {
    // A segment's frames behind the header of another: right sequence, whole checksums.
    let dir = TempDir::new();
    let writer = Writer::open(dir.path(), manual()).unwrap();
    writer.rotate().unwrap();
    drop(writer);
    let own = open_bytes(RECORDS, |_| true);
    let other = {
        let dir = TempDir::new();
        let options = crate::wal::Options {
            wal_id: 8,
            ..manual()
        };
        let writer = Writer::open(dir.path(), options).unwrap();
        writer.append_durable(&tape(1, RECORDS)).unwrap();
        std::fs::read(segment_path(dir.path(), 1, SegmentState::Open)).unwrap()
    };
    let mut recycled = own[..SEGMENT_HEADER_BYTES].to_vec();
    recycled.extend_from_slice(&other[SEGMENT_HEADER_BYTES..]);
    let segment = look(&recycled, SegmentState::Open).unwrap();
    assert_eq!(segment.tape, b"");
    assert!(matches!(segment.torn.unwrap().fault, Fault::Chain { .. }));
}

#[test]
fn files_no_writer_leaves_behind_are_refused() {
    let open = open_bytes(2, |_| true);
    let sealed = sealed_bytes();
    for names in [
        &[("00000001.open", &open), ("00000001.seg", &sealed)][..],
        &[("00000001.open", &open), ("00000002.open", &open)][..],
    ] {
        let dir = TempDir::new();
        for (name, bytes) in names {
            std::fs::write(dir.path().join(name), bytes).unwrap();
        }
        assert_eq!(
            recover_log(dir.path()).unwrap_err().code(),
            ReasonCode::WalDamaged
        );
    }
}

#[test]
fn a_seal_interrupted_before_its_rename_is_completed() {
    let sealed = sealed_bytes();
    let data_bytes = sealed.len() - FOOTER_BYTES;
    // Whole footer; the same before the reserved tail was cut; half a footer.
    let with_tail = [&sealed[..], &[0; 600]].concat();
    let half = &sealed[..data_bytes + FOOTER_BYTES / 2];
    let cases = [
        (&sealed[..], ReasonCode::Unset),
        (&with_tail, ReasonCode::Unset),
        (half, ReasonCode::WalTornTail),
    ];
    for (bytes, code) in cases {
        let dir = TempDir::new();
        std::fs::write(segment_path(dir.path(), 1, SegmentState::Open), bytes).unwrap();
        assert_eq!(recover_log(dir.path()).unwrap().code(), code);
        let path = segment_path(dir.path(), 1, SegmentState::Sealed);
        assert_eq!(std::fs::read(path).unwrap(), sealed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Invariant 2 on hostile bytes: no panic, and nothing that was not appended is accepted.
    #[test]
    fn arbitrary_bytes_never_panic(
        noise in proptest::collection::vec(any::<u8>(), 0..600),
        at in 0_usize..1_400,
        keep in 0_usize..1_600,
        is_sealed in any::<bool>(),
    ) {
        let state = if is_sealed { SegmentState::Sealed } else { SegmentState::Open };
        let _outcome = look(&noise, state);
        let mut bytes = if is_sealed { sealed_bytes() } else { open_bytes(RECORDS, |_| true) };
        bytes.truncate(keep);
        for (index, byte) in noise.iter().enumerate() {
            if let Some(target) = bytes.get_mut(at + index) {
                *target = *byte;
            }
        }
        if let Ok(segment) = look(&bytes, state) {
            prop_assert!(tape(1, RECORDS).starts_with(&segment.tape));
        }
    }
}
