//! Segments of an earlier schema: read, verified, recovered, never appended to; and a segment of
//! today's schema read by a build that has a later one.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::support::{TempDir, manual, record, segment_names, tape};
use crate::reason::ReasonCode;
use crate::record::schema_text;
use crate::record_upgrade::tests::synthetic_v2;
use crate::record_upgrade::{EarlierSchema, Schema, SegmentSchema, Upgrade, earlier_schemas};
use crate::wal::manifest::MANIFEST_NAME;
use crate::wal::reader::inspect;
use crate::wal::scan::{Stop, scan_frames};
use crate::wal::segment::{FOOTER_BYTES, Footer, SegmentHeader, SegmentState, segment_path};
use crate::wal::{
    RecoveredTail, SEGMENT_HEADER_BYTES, WalError, Writer, read_log, recover_log, salvage_log,
    verify_segment,
};

/// The schema of the first logs, which had no Account, Health and Intent records.
fn first_schema() -> SegmentSchema {
    let first = |schema: &&EarlierSchema| schema.hash.starts_with(&[0xbf, 0xd3, 0x01, 0x87]);
    SegmentSchema::Earlier(earlier_schemas().iter().find(first).unwrap())
}

/// The bytes of a segment as a build of another schema wrote them; a footer is made again. The
/// records stay: between the first schema and today's, types only came to be. When one changes, bring
/// its records down here too.
fn as_written_by(schema: SegmentSchema, bytes: &[u8]) -> Vec<u8> {
    let header = SegmentHeader::decode(bytes).unwrap();
    let mut bytes = bytes.to_vec();
    let header = SegmentHeader { schema, ..header }.encode();
    bytes[..header.len()].copy_from_slice(&header);
    let data_bytes = bytes.len() - FOOTER_BYTES;
    if let Ok(footer) = Footer::decode(&bytes[data_bytes..]) {
        let sha256 = Sha256::digest(&bytes[..data_bytes]).into();
        bytes[data_bytes..].copy_from_slice(&Footer { sha256, ..footer }.encode());
    }
    bytes
}

fn rewrite(schema: SegmentSchema, path: &Path) -> Vec<u8> {
    let bytes = as_written_by(schema, &std::fs::read(path).unwrap());
    std::fs::write(path, &bytes).unwrap();
    bytes
}

/// A log of one sealed and one open segment, both of the first schema; the open one ends torn.
fn old_log(dir: &Path) -> Vec<u8> {
    let writer = Writer::open(dir, manual()).unwrap();
    writer.append_tape(&tape(1, 6)).unwrap();
    writer.rotate().unwrap();
    writer.append_tape(&tape(7, 11)).unwrap();
    writer.sync().unwrap();
    drop(writer);
    // The build that wrote such segments kept no manifest.
    std::fs::remove_file(dir.join(MANIFEST_NAME)).unwrap();
    rewrite(first_schema(), &segment_path(dir, 1, SegmentState::Sealed));
    let open = segment_path(dir, 2, SegmentState::Open);
    let mut bytes = rewrite(first_schema(), &open);
    let header = SegmentHeader::decode(&bytes).unwrap();
    bytes.truncate(scan_frames(&bytes, &header, None).data_bytes);
    bytes.extend_from_slice(&[0x5a; 24]);
    std::fs::write(&open, &bytes).unwrap();
    bytes
}

#[test]
fn a_log_of_an_earlier_schema_is_read_and_verified() {
    let dir = TempDir::new();
    old_log(dir.path());
    let log = read_log(dir.path()).unwrap();
    assert_eq!(log.tape, tape(1, 11));
    assert_eq!(log.torn.unwrap().seq, 12);
    let check = verify_segment(&segment_path(dir.path(), 1, SegmentState::Sealed)).unwrap();
    assert_eq!((check.valid_frames, check.fault), (6, None));
    assert_eq!(check.outcome.unwrap().schema, first_schema());
}

#[test]
fn recovery_seals_an_earlier_segment_in_its_own_schema_and_the_writer_begins_the_next() {
    let dir = TempDir::new();
    let torn = old_log(dir.path());
    let report = recover_log(dir.path()).unwrap();
    assert!(matches!(report.tail, RecoveredTail::Cut { seq: 12, .. }));
    let sealed = std::fs::read(segment_path(dir.path(), 2, SegmentState::Sealed)).unwrap();
    // What was written is what is sealed, byte for byte: the header too.
    assert_eq!(
        sealed[..sealed.len() - FOOTER_BYTES],
        torn[..torn.len() - 24]
    );
    let writer = Writer::open(dir.path(), manual()).unwrap();
    writer.append_tape(&tape(12, 13)).unwrap();
    writer.seal().unwrap();
    let unchanged = std::fs::read(segment_path(dir.path(), 2, SegmentState::Sealed)).unwrap();
    assert_eq!(unchanged, sealed);
    let log = read_log(dir.path()).unwrap();
    assert_eq!(log.tape, tape(1, 13));
    let schemas: Vec<SegmentSchema> = log.segments.iter().map(|info| info.schema).collect();
    assert_eq!(
        schemas,
        [first_schema(), first_schema(), SegmentSchema::Current]
    );
}

#[test]
fn a_writer_that_finds_an_open_segment_of_an_earlier_schema_begins_the_next() {
    let dir = TempDir::new();
    old_log(dir.path());
    let writer = Writer::open(dir.path(), manual()).unwrap();
    assert_eq!(writer.append(&record(12)).unwrap(), 12);
    writer.seal().unwrap();
    let names = segment_names(dir.path());
    let sealed = |name: &&String| name.ends_with(".seg");
    assert_eq!(names.iter().filter(sealed).count(), 3);
    assert_eq!(read_log(dir.path()).unwrap().tape, tape(1, 12));
}

/// A frame, the header, or both of a segment hit; the log goes on in today's schema.
#[test]
fn salvage_keeps_records_in_the_schema_they_were_written_in() {
    for hits in [
        &[SEGMENT_HEADER_BYTES + 60][..],
        &[8],
        &[8, SEGMENT_HEADER_BYTES + 60],
    ] {
        for segment_id in [1, 2] {
            let dir = TempDir::new();
            let log = dir.path().join("market");
            std::fs::create_dir(&log).unwrap();
            old_log(&log);
            let writer = Writer::open(&log, manual()).unwrap();
            writer.append_tape(&tape(12, 20)).unwrap();
            writer.seal().unwrap();
            let path = segment_path(&log, segment_id, SegmentState::Sealed);
            let mut bytes = std::fs::read(&path).unwrap();
            for at in hits {
                bytes[*at] ^= 8;
            }
            std::fs::write(&path, bytes).unwrap();
            let salvage = salvage_log(&log, &dir.path().join("salvaged")).unwrap();
            for part in &salvage.parts {
                let read = read_log(&part.dir).unwrap();
                assert_eq!(read.tape, tape(part.stats.first_seq, part.stats.last_seq));
                for info in read.segments {
                    let is_old = info.segment_id < 3;
                    assert_eq!(info.schema == first_schema(), is_old, "{hits:?} {info:?}");
                }
            }
            let counts = salvage.parts.iter().map(|part| part.stats.record_count);
            let lost = u64::from(hits.contains(&(SEGMENT_HEADER_BYTES + 60)));
            assert_eq!(counts.sum::<u64>(), 20 - lost, "{hits:?}");
        }
    }
}

#[test]
fn damage_in_an_earlier_segment_is_damage_and_not_another_schema() {
    let dir = TempDir::new();
    old_log(dir.path());
    let path = segment_path(dir.path(), 1, SegmentState::Sealed);
    let good = std::fs::read(&path).unwrap();
    for at in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[at / 8] ^= 1 << (at % 8);
        let error = inspect(&path, 1, SegmentState::Sealed, &bad, None).unwrap_err();
        assert_eq!(
            error.code(),
            ReasonCode::WalSegmentMismatch,
            "bit {at}: {error}"
        );
    }
}

/// A record type that came later does not stand in a segment that says it is older.
#[test]
fn a_record_the_segments_own_schema_does_not_know_is_refused() {
    use crate::record::{HealthRecord, Record};
    use crate::wal::{LogKind, Options};
    let dir = TempDir::new();
    let options = Options {
        kind: LogKind::Orders,
        ..manual()
    };
    let writer = Writer::open(dir.path(), options).unwrap();
    writer.append(HealthRecord::empty().as_bytes()).unwrap();
    writer.seal().unwrap();
    let path = segment_path(dir.path(), 1, SegmentState::Sealed);
    rewrite(first_schema(), &path);
    let error = read_log(dir.path()).unwrap_err();
    assert!(matches!(error, WalError::SealedMismatch { .. }), "{error}");
    assert!(error.to_string().contains("not of its schema"), "{error}");
}

/// What a build with a synthetic schema 2 reads of a segment that this build writes.
#[test]
fn a_segment_written_by_v1_is_read_when_there_is_a_v2() {
    let dir = TempDir::new();
    let writer = Writer::open(dir.path(), manual()).unwrap();
    writer.append_tape(&tape(1, 40)).unwrap();
    writer.seal().unwrap();
    let bytes = std::fs::read(segment_path(dir.path(), 1, SegmentState::Sealed)).unwrap();
    let (v2, rules) = synthetic_v2();
    let v1 = Schema::parse(&schema_text()).unwrap();
    let earlier = EarlierSchema {
        version: 1,
        hash: SegmentSchema::Current.hash(),
        upgrade: Upgrade::between(&v1, &v2, &rules),
    };
    let header = SegmentHeader {
        schema: SegmentSchema::Earlier(Box::leak(Box::new(earlier))),
        ..SegmentHeader::decode(&bytes).unwrap()
    };
    let mut records = Vec::new();
    let scan = scan_frames(&bytes, &header, Some(&mut records));
    assert_eq!(scan.stop, Stop::Footer);
    let stats = scan.stats.unwrap();
    assert_eq!((stats.record_count, stats.last_input_seq), (40, 40));
    let mut rest = records.as_slice();
    for number in 1..=40 {
        let size = usize::from(u16::from_le_bytes([rest[0], rest[1]]));
        let (new, old) = (&rest[..size], record(number));
        rest = &rest[size..];
        let kind = v2.types.iter().find(|one| one.code == new[2]).unwrap();
        assert_eq!((new[2], new[3], size), (old[2], 2, kind.bytes));
        let old_kind = v1.types.iter().find(|one| one.code == old[2]).unwrap();
        for (name, before) in old_kind.fields.iter().map(|field| (&field.name, field)) {
            let name = if name == "argument" { "duration" } else { name };
            let after = kind.fields.iter().find(|field| field.name == name).unwrap();
            assert_eq!(
                new[after.offset..after.offset + 8],
                old[before.offset..before.offset + 8],
                "{name} of record {number}"
            );
        }
    }
    assert!(rest.is_empty());
}
