//! What is appended is read back, across commits, segments and writers.

use std::time::Duration;

use super::support::{TempDir, command, manual, record, segment_names, tape, time_ns};
use crate::reason::ReasonCode;
use crate::wal::{
    LogKind, Options, RecoveredTail, SEGMENT_BYTES_MIN, SegmentState, Writer, read_log,
    read_segment, recover_log, verify_segment,
};

#[test]
fn a_sealed_log_gives_back_its_records_over_several_segments() {
    let dir = TempDir::new();
    let writer = Writer::open(dir.path(), manual()).unwrap();
    for number in 1..=300 {
        assert_eq!(writer.append(&record(number)).unwrap(), number);
    }
    assert_eq!(writer.durable_seq(), 0);
    assert_eq!(writer.sync().unwrap(), 300);
    assert_eq!(writer.seal().unwrap(), 300);
    let log = read_log(dir.path()).unwrap();
    assert_eq!(log.tape, tape(1, 300));
    assert_eq!(log.torn, None);
    assert!(log.segments.len() > 3, "{} segments", log.segments.len());
    let mut next_seq = 1;
    for (index, info) in log.segments.iter().enumerate() {
        let stats = info.stats.unwrap();
        assert_eq!(info.segment_id, index as u64 + 1);
        assert_eq!(info.state, SegmentState::Sealed);
        assert_eq!(
            (info.wal_id, info.kind, info.epoch),
            (7, LogKind::Market, 3)
        );
        assert_eq!((info.first_seq, stats.first_seq), (next_seq, next_seq));
        assert_eq!(
            (stats.first_input_seq, stats.last_input_seq),
            (next_seq, stats.last_seq)
        );
        assert_eq!(stats.min_sequence_time_ns, time_ns(next_seq));
        assert_eq!(stats.max_sequence_time_ns, time_ns(stats.last_seq));
        assert_eq!(stats.record_count, stats.last_seq + 1 - next_seq);
        assert!(info.file_bytes <= SEGMENT_BYTES_MIN);
        next_seq = stats.last_seq + 1;
    }
    assert_eq!(next_seq, 301);
}

#[test]
fn the_group_commit_thread_makes_records_durable_without_being_asked() {
    let dir = TempDir::new();
    let options = Options {
        group_commit: Duration::from_millis(1),
        ..manual()
    };
    let writer = Writer::open(dir.path(), options).unwrap();
    writer.append_tape(&tape(1, 10)).unwrap();
    for _ in 0..2_000 {
        if writer.durable_seq() == 10 {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(writer.durable_seq(), 10, "after 10 s");
    assert_eq!(read_log(dir.path()).unwrap().tape, tape(1, 10));
}

#[test]
fn appends_of_several_threads_all_become_durable_and_contiguous() {
    let dir = TempDir::new();
    let writer = Writer::open(dir.path(), manual()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let writer = &writer;
            scope.spawn(move || {
                for number in 0..50 {
                    let seq = writer
                        .append_durable(&record(1 + thread * 50 + number))
                        .unwrap();
                    assert!(writer.durable_seq() >= seq);
                }
            });
        }
    });
    assert_eq!(writer.seal().unwrap(), 200);
    let log = read_log(dir.path()).unwrap();
    let mut seen: Vec<u64> = crate::record::Tape::new(&log.tape)
        .map(|item| item.unwrap().0.input_seq)
        .collect();
    seen.sort_unstable();
    assert_eq!(seen, (1..=200).collect::<Vec<_>>());
}

#[test]
fn a_second_writer_goes_on_in_a_new_segment_and_the_first_is_locked_out() {
    let dir = TempDir::new();
    let first = Writer::open(dir.path(), manual()).unwrap();
    first.append_durable(&tape(1, 3)).unwrap();
    let refused = Writer::open(dir.path(), manual()).unwrap_err();
    assert_eq!(refused.code(), ReasonCode::WalBusy);
    assert_eq!(
        recover_log(dir.path()).unwrap_err().code(),
        ReasonCode::WalBusy
    );
    drop(first);
    let second = Writer::open(
        dir.path(),
        Options {
            epoch: 4,
            ..manual()
        },
    )
    .unwrap();
    assert!(matches!(
        second.recovery().tail,
        RecoveredTail::Sealed { .. }
    ));
    assert_eq!(second.recovery().code(), ReasonCode::Unset);
    assert_eq!(second.append_durable(&tape(4, 5)).unwrap(), 5);
    second.seal().unwrap();
    assert_eq!(read_log(dir.path()).unwrap().tape, tape(1, 5));
    assert_eq!(segment_names(dir.path()), ["00000001.seg", "00000002.seg"]);
    let behind = Writer::open(dir.path(), manual()).unwrap_err();
    assert_eq!(behind.code(), ReasonCode::WalBusy, "{behind}");
}

#[test]
fn a_log_belongs_to_one_wal_id_and_kind() {
    let dir = TempDir::new();
    let writer = Writer::open(dir.path(), manual()).unwrap();
    writer.append(&record(1)).unwrap();
    writer.seal().unwrap();
    for options in [
        Options {
            wal_id: 8,
            ..manual()
        },
        Options {
            kind: LogKind::Orders,
            ..manual()
        },
    ] {
        let refused = Writer::open(dir.path(), options).unwrap_err();
        assert_eq!(refused.code(), ReasonCode::SettingsInvalid, "{refused}");
    }
    let small = Options {
        segment_bytes: SEGMENT_BYTES_MIN - 1,
        ..manual()
    };
    assert_eq!(
        Writer::open(dir.path(), small).unwrap_err().code(),
        ReasonCode::SettingsInvalid
    );
}

#[test]
fn bytes_that_are_no_record_of_this_log_are_refused_as_a_whole() {
    let dir = TempDir::new();
    let writer = Writer::open(dir.path(), manual()).unwrap();
    let two = tape(1, 2);
    let mut mixed = record(1);
    mixed.extend(command());
    for bytes in [&two[..], &[][..], &two[..40], &command()] {
        assert_eq!(
            writer.append(bytes).unwrap_err().code(),
            ReasonCode::InvariantBroken
        );
    }
    for bytes in [&mixed[..], &two[..two.len() - 1]] {
        assert_eq!(
            writer.append_tape(bytes).unwrap_err().code(),
            ReasonCode::InvariantBroken
        );
    }
    assert_eq!(writer.append_tape(&[]).unwrap(), 0);
    assert_eq!(writer.append_tape(&two).unwrap(), 2);
    writer.seal().unwrap();
    assert_eq!(read_log(dir.path()).unwrap().tape, two);
}

#[test]
fn rotate_seals_a_segment_with_records_and_only_then() {
    let dir = TempDir::new();
    let writer = Writer::open(dir.path(), manual()).unwrap();
    writer.rotate().unwrap();
    writer.append(&record(1)).unwrap();
    writer.rotate().unwrap();
    assert_eq!(writer.durable_seq(), 1);
    writer.rotate().unwrap();
    assert_eq!(segment_names(dir.path()), ["00000001.seg", "00000002.open"]);
    writer.seal().unwrap();
    assert_eq!(segment_names(dir.path()), ["00000001.seg"]);
    let segment = read_segment(&dir.path().join("00000001.seg")).unwrap();
    assert_eq!(segment.tape, record(1));
}

#[test]
fn an_open_log_can_be_read_and_verified_while_it_is_written() {
    let dir = TempDir::new();
    let writer = Writer::open(dir.path(), manual()).unwrap();
    assert_eq!(read_log(dir.path()).unwrap().tape, b"");
    writer.append_durable(&tape(1, 4)).unwrap();
    let log = read_log(dir.path()).unwrap();
    assert_eq!(log.tape, tape(1, 4));
    assert_eq!(log.segments[0].state, SegmentState::Open);
    let check = verify_segment(&dir.path().join("00000001.open")).unwrap();
    assert!(check.outcome.is_ok());
    assert_eq!(
        (check.valid_frames, check.last_valid_seq, check.fault),
        (4, Some(4), None)
    );
}

#[test]
fn a_missing_segment_is_a_gap() {
    let dir = TempDir::new();
    let writer = Writer::open(dir.path(), manual()).unwrap();
    writer.append_tape(&tape(1, 200)).unwrap();
    writer.seal().unwrap();
    std::fs::remove_file(dir.path().join("00000002.seg")).unwrap();
    assert_eq!(
        read_log(dir.path()).unwrap_err().code(),
        ReasonCode::LogSequenceGap
    );
    assert_eq!(
        recover_log(dir.path()).unwrap_err().code(),
        ReasonCode::LogSequenceGap
    );
}

#[test]
fn a_folder_that_is_not_there_is_not_an_empty_log() {
    let dir = TempDir::new();
    let missing = dir.path().join("missing");
    assert_eq!(
        read_log(&missing).unwrap_err().code(),
        ReasonCode::WalReadFailed
    );
    assert_eq!(
        recover_log(&missing).unwrap_err().code(),
        ReasonCode::WalReadFailed
    );
    assert!(!missing.exists());
}
