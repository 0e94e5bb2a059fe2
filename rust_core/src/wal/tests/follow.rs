//! A growing segment is read once, never ahead of what is durable.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::support::{TempDir, manual, tape};
use crate::reason::ReasonCode;
use crate::wal::{
    FRAME_HEADER_BYTES, Options, SEGMENT_HEADER_BYTES, SegmentFollower, Writer, read_segment,
};

fn wide() -> Options {
    Options {
        segment_bytes: 1 << 20,
        ..manual()
    }
}

fn writer(dir: &Path) -> Writer {
    Writer::open(dir, wide()).unwrap()
}

#[test]
fn records_come_once_each_and_only_when_they_are_durable() {
    let dir = TempDir::new();
    let writer = writer(dir.path());
    let mut follower = SegmentFollower::open(dir.path(), 1).unwrap();
    assert_eq!(follower.poll(100, 0).unwrap().record_count, 0);
    writer.append_tape(&tape(1, 10)).unwrap();
    assert_eq!(follower.poll(100, 0).unwrap().record_count, 0);
    writer.sync().unwrap();
    let found = follower.poll(7, 0).unwrap();
    assert_eq!((found.first_seq, found.record_count), (1, 7));
    assert_eq!(found.tape, tape(1, 7));
    assert_eq!(found.durable_seq, 10, "the log's watermark");
    let found = follower.poll(2, 0).unwrap();
    assert_eq!((found.first_seq, found.record_count), (8, 2));
    assert_eq!(found.tape, tape(8, 9));
    writer.append_tape(&tape(11, 200)).unwrap();
    writer.sync().unwrap();
    let found = follower.poll(1_000, 0).unwrap();
    assert_eq!(found.tape, tape(10, 200));
    assert_eq!(follower.next_seq(), 201);
    assert_eq!(follower.poll(100, 0).unwrap().record_count, 0);
}

#[test]
fn without_a_watermark_the_frames_say_what_was_durable() {
    let dir = TempDir::new();
    let writer = writer(dir.path());
    let mut follower = SegmentFollower::open(dir.path(), 1).unwrap();
    for (first, last) in [(1, 10), (11, 20), (21, 30)] {
        writer.append_tape(&tape(first, last)).unwrap();
        writer.sync().unwrap();
    }
    fs::remove_file(dir.path().join("watermark")).unwrap();
    // The last batch was written when the one before it was durable.
    let found = follower.poll(100, 0).unwrap();
    assert_eq!(found.tape, tape(1, 20));
    writer.seal().unwrap();
    assert_eq!(follower.poll(100, 30).unwrap().tape, tape(21, 30));
    assert_eq!(
        follower.poll(100, 99).unwrap().record_count,
        0,
        "a footer is no frame"
    );
}

#[test]
fn a_watermark_of_another_log_or_a_broken_one_says_nothing() {
    let dir = TempDir::new();
    let writer = writer(dir.path());
    writer.append_tape(&tape(1, 10)).unwrap();
    writer.sync().unwrap();
    let path = dir.path().join("watermark");
    let whole = fs::read(&path).unwrap();
    for at in [0, 8] {
        let mut other = whole.clone();
        other[at] ^= 1;
        fs::remove_file(&path).unwrap();
        fs::write(&path, other).unwrap();
        let mut follower = SegmentFollower::open(dir.path(), 1).unwrap();
        assert_eq!(follower.poll(100, 0).unwrap().record_count, 0, "byte {at}");
    }
    fs::write(&path, whole).unwrap();
    let mut follower = SegmentFollower::open(dir.path(), 1).unwrap();
    assert_eq!(follower.poll(100, 0).unwrap().record_count, 10);
}

#[test]
fn large_segments_are_read_in_blocks_and_give_the_bytes_of_the_segment() {
    let dir = TempDir::new();
    let options = Options {
        segment_bytes: 16 << 20,
        ..manual()
    };
    let writer = Writer::open(dir.path(), options).unwrap();
    writer.append_tape(&tape(1, 60_000)).unwrap();
    writer.sync().unwrap();
    let mut follower = SegmentFollower::open(dir.path(), 1).unwrap();
    let mut seen = Vec::new();
    loop {
        let found = follower.poll(7_001, 60_000).unwrap();
        if found.record_count == 0 {
            break;
        }
        seen.extend(found.tape);
    }
    writer.seal().unwrap();
    let sealed = read_segment(&dir.path().join("00000001.seg")).unwrap();
    assert_eq!(seen, sealed.tape);
}

#[test]
fn a_torn_end_is_waited_for_and_durable_damage_is_refused() {
    let dir = TempDir::new();
    let writer = writer(dir.path());
    writer.append_tape(&tape(1, 20)).unwrap();
    writer.sync().unwrap();
    // What is durable is this test's to say.
    fs::remove_file(dir.path().join("watermark")).unwrap();
    let path = dir.path().join("00000001.open");
    let whole = fs::read(&path).unwrap();
    let last = read_segment(&path).unwrap().info.data_bytes - 1;
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let flip = |at: u64| {
        let was = whole[usize::try_from(at).unwrap()];
        file.write_all_at(&[was ^ 0x10], at).unwrap();
    };
    let restore = || file.write_all_at(&whole, 0).unwrap();
    // Every bit position class of the last frame: head, payload, padding.
    for at in [last, last - 8, last - 60] {
        flip(at);
        let mut follower = SegmentFollower::open(dir.path(), 1).unwrap();
        let found = follower.poll(100, 19).unwrap();
        assert_eq!(found.tape, tape(1, 19), "byte {at}");
        assert_eq!(follower.poll(100, 19).unwrap().record_count, 0);
        let refused = follower.poll(100, 20).unwrap_err();
        assert_eq!(
            refused.code(),
            ReasonCode::WalDamaged,
            "byte {at}: {refused}"
        );
        restore();
        assert_eq!(follower.poll(100, 20).unwrap().tape, tape(20, 20));
    }
    // A frame in the middle: later ones say that it was durable.
    writer.append_tape(&tape(21, 22)).unwrap();
    writer.sync().unwrap();
    flip((SEGMENT_HEADER_BYTES + FRAME_HEADER_BYTES + 3) as u64);
    let mut follower = SegmentFollower::open(dir.path(), 1).unwrap();
    let refused = follower.poll(100, 22).unwrap_err();
    assert_eq!(refused.code(), ReasonCode::WalDamaged);
    restore();
    drop(writer);
}

#[test]
fn an_empty_segment_that_was_removed_has_no_more_records() {
    let dir = TempDir::new();
    let writer = writer(dir.path());
    writer.append_tape(&tape(1, 5)).unwrap();
    writer.rotate().unwrap();
    let mut follower = SegmentFollower::open(dir.path(), 2).unwrap();
    assert_eq!(follower.first_seq(), 6);
    writer.seal().unwrap();
    assert!(!dir.path().join("00000002.open").exists());
    assert_eq!(follower.poll(100, 9).unwrap().record_count, 0, "not damage");
    let gone = SegmentFollower::open(dir.path(), 2).unwrap_err();
    assert_eq!(gone.code(), ReasonCode::WalReadFailed);
}
