//! The bytes of format 1, frozen: a change of the format shows here, and the old file stays.

use super::support::{TempDir, manual, tape};
use crate::reason::ReasonCode;
use crate::record_upgrade::SegmentSchema;
use crate::wal::Writer;
use crate::wal::reader::inspect;
use crate::wal::segment::{SegmentState, segment_path};

const GOLDEN: &[u8] = include_bytes!("golden/00000001.seg");

fn written_now() -> Vec<u8> {
    let dir = TempDir::new();
    let writer = Writer::open(dir.path(), manual()).unwrap();
    writer.append_tape(&tape(1, 6)).unwrap();
    writer.seal().unwrap();
    std::fs::read(segment_path(dir.path(), 1, SegmentState::Sealed)).unwrap()
}

#[test]
fn a_segment_written_by_an_earlier_build_reads_the_same() {
    let path = segment_path(std::path::Path::new("golden"), 1, SegmentState::Sealed);
    let mut records = Vec::new();
    let found = inspect(&path, 1, SegmentState::Sealed, GOLDEN, Some(&mut records)).unwrap();
    assert_eq!(records, tape(1, 6));
    assert_eq!(found.info.stats.unwrap().last_input_seq, 6);
}

/// Written before the schema had the Account record.
const OF_AN_EARLIER_SCHEMA: &[u8] = include_bytes!("golden/before_account.seg");
/// Written before it had the Shed record.
const BEFORE_SHED: &[u8] = include_bytes!("golden/before_shed.seg");
/// Written before it had the Epoch and Route records.
const BEFORE_EPOCH: &[u8] = include_bytes!("golden/before_epoch.seg");

#[test]
fn a_segment_of_an_earlier_schema_reads_as_todays_records() {
    let path = segment_path(std::path::Path::new("golden"), 1, SegmentState::Sealed);
    for bytes in [OF_AN_EARLIER_SCHEMA, BEFORE_SHED, BEFORE_EPOCH] {
        let mut records = Vec::new();
        let found = inspect(&path, 1, SegmentState::Sealed, bytes, Some(&mut records));
        let found = found.unwrap();
        assert_eq!(records, tape(1, 6));
        assert_eq!(found.info.schema.hash(), bytes[40..72]);
        assert_ne!(found.info.schema, SegmentSchema::Current);
    }
}

#[test]
fn a_segment_of_a_schema_nobody_kept_is_refused_by_its_hash() {
    let path = segment_path(std::path::Path::new("golden"), 1, SegmentState::Sealed);
    let mut unknown = OF_AN_EARLIER_SCHEMA.to_vec();
    unknown[40] ^= 1;
    let crc = crc32c::crc32c(&unknown[..124]).to_le_bytes();
    unknown[124..128].copy_from_slice(&crc);
    let error = inspect(&path, 1, SegmentState::Sealed, &unknown, None).unwrap_err();
    assert_eq!(error.code(), ReasonCode::WalSchemaMismatch);
    assert!(
        error.to_string().contains("(be"),
        "the hash it has is named: {error}"
    );
}

#[test]
fn the_same_records_make_the_same_bytes() {
    assert_eq!(written_now(), GOLDEN);
}

/// Run by `cargo test --lib -- --ignored write_golden` when the format changes on purpose.
#[test]
#[ignore = "writes the golden file"]
fn write_golden() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/src/wal/tests/golden");
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(format!("{dir}/00000001.seg"), written_now()).unwrap();
}
