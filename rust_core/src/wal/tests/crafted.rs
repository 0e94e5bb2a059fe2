//! Frames and footers whose checksums are right and whose content is wrong: each field that the
//! scan holds against what it knows is named in the fault.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::support::{command, manual, record, time_ns};
use crate::record_upgrade::SegmentSchema;
use crate::wal::frame::{FrameHead, encode_frame, frame_crc};
use crate::wal::reader::inspect;
use crate::wal::scan::{Stop, scan_frames};
use crate::wal::segment::{
    Footer, HeaderFault, SegmentHeader, SegmentState, SegmentStats, check_record, segment_path,
};
use crate::wal::{Fault, LogKind, WalError};

const HEADER: SegmentHeader = SegmentHeader {
    kind: LogKind::Market,
    wal_id: 7,
    segment_id: 1,
    first_seq: 1,
    epoch: 3,
    schema: SegmentSchema::Current,
};

fn right(seq: u64, chain: u32) -> FrameHead {
    FrameHead {
        seq,
        epoch: HEADER.epoch,
        record_type: u16::from(record(seq)[2]),
        time_ns: time_ns(seq).cast_unsigned(),
        prev_crc: chain,
        sync_lag: 1,
    }
}

/// One right frame, then one made by `second` from the right one's head.
fn fault_of(second: impl Fn(FrameHead) -> (FrameHead, Vec<u8>)) -> Option<String> {
    let mut bytes = HEADER.encode().to_vec();
    let first = right(1, HEADER.chain_seed());
    let chain = encode_frame(&mut bytes, &first, &record(1), frame_crc).unwrap();
    let (head, payload) = second(right(2, chain));
    encode_frame(&mut bytes, &head, &payload, frame_crc).unwrap();
    let mut tape = Vec::new();
    match scan_frames(&bytes, &HEADER, Some(&mut tape)).stop {
        Stop::Bad(fault) => {
            assert_eq!(tape, record(1));
            Some(fault.to_string())
        }
        Stop::End => None,
        Stop::Footer => panic!("no footer there"),
    }
}

#[test]
fn a_whole_frame_with_one_wrong_field_is_refused_and_the_field_is_named() {
    assert_eq!(fault_of(|head| (head, record(2))), None);
    type Second = fn(FrameHead) -> (FrameHead, Vec<u8>);
    let cases: [(&str, Second); 11] = [
        ("sequence was 3, expected 2", |head| {
            (FrameHead { seq: 3, ..head }, record(2))
        }),
        ("sequence was 1, expected 2", |head| {
            (FrameHead { seq: 1, ..head }, record(2))
        }),
        ("epoch was 2, expected 3", |head| {
            (FrameHead { epoch: 2, ..head }, record(2))
        }),
        ("epoch was 4, expected 3", |head| {
            (FrameHead { epoch: 4, ..head }, record(2))
        }),
        ("checksum of the previous frame was 0x00000000", |head| {
            (
                FrameHead {
                    prev_crc: 0,
                    ..head
                },
                record(2),
            )
        }),
        ("frame type was 1, expected 2", |head| {
            (
                FrameHead {
                    record_type: 1,
                    ..head
                },
                record(2),
            )
        }),
        ("frame time was 4, expected", |head| {
            (FrameHead { time_ns: 4, ..head }, record(2))
        }),
        ("sync lag was 0, expected 1", |head| {
            (
                FrameHead {
                    sync_lag: 0,
                    ..head
                },
                record(2),
            )
        }),
        ("does not belong into the market log", |head| {
            (head, command())
        }),
        ("192 bytes, its record has 96", |head| {
            (head, [record(2), record(3)].concat())
        }),
        ("tape ends inside a record", |head| {
            (head, record(2)[..80].to_vec())
        }),
    ];
    for (expected, second) in cases {
        let fault = fault_of(second).unwrap_or_default();
        assert!(fault.contains(expected), "{fault} for {expected}");
    }
}

#[test]
fn unknown_frame_flags_are_refused() {
    let mut bytes = HEADER.encode().to_vec();
    let start = bytes.len();
    encode_frame(
        &mut bytes,
        &right(1, HEADER.chain_seed()),
        &record(1),
        frame_crc,
    )
    .unwrap();
    bytes[start + 22] = 1;
    let crc = frame_crc(&bytes[start..]);
    bytes[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    let stop = scan_frames(&bytes, &HEADER, None).stop;
    let expected = Fault::Number {
        field: "frame flags",
        was: 1,
        expected: 0,
    };
    assert_eq!(stop, Stop::Bad(expected));
}

#[test]
fn a_whole_footer_with_one_wrong_field_is_refused_and_the_field_is_named() {
    let mut data = HEADER.encode().to_vec();
    let head = right(1, HEADER.chain_seed());
    encode_frame(&mut data, &head, &record(1), frame_crc).unwrap();
    let stats = SegmentStats::with(None, 1, &check_record(manual().kind, &record(1)).unwrap());
    let right = Footer {
        stats,
        data_bytes: data.len() as u64,
        sha256: Sha256::digest(&data).into(),
    };
    let seen = |footer: Footer| {
        let path = segment_path(Path::new("log"), 1, SegmentState::Sealed);
        let bytes = [&data[..], &footer.encode()].concat();
        match inspect(&path, 1, SegmentState::Sealed, &bytes, None) {
            Ok(_) => String::new(),
            Err(WalError::SealedMismatch { fault, .. }) => fault.to_string(),
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(seen(right), "");
    let with = |change: fn(&mut SegmentStats)| {
        let mut stats = right.stats;
        change(&mut stats);
        Footer { stats, ..right }
    };
    for (expected, footer) in [
        ("record count", with(|stats| stats.record_count = 2)),
        ("first sequence", with(|stats| stats.first_seq = 0)),
        ("last sequence", with(|stats| stats.last_seq = 2)),
        ("first input_seq", with(|stats| stats.first_input_seq = 9)),
        ("last input_seq", with(|stats| stats.last_input_seq = 9)),
        (
            "min sequence time",
            with(|stats| stats.min_sequence_time_ns = 9),
        ),
        (
            "max sequence time",
            with(|stats| stats.max_sequence_time_ns = 9),
        ),
        (
            "data bytes",
            Footer {
                data_bytes: 1,
                ..right
            },
        ),
        (
            "sha256 was",
            Footer {
                sha256: [0; 32],
                ..right
            },
        ),
    ] {
        let fault = seen(footer);
        assert!(fault.contains(expected), "{fault} for {expected}");
    }
}

#[test]
fn an_unknown_log_kind_is_refused() {
    let mut bytes = HEADER.encode();
    bytes[10] = 9;
    let crc = crc32c::crc32c(&bytes[..124]);
    bytes[124..].copy_from_slice(&crc.to_le_bytes());
    let fault = SegmentHeader::decode(&bytes).unwrap_err();
    let expected = Fault::Number {
        field: "log kind",
        was: 9,
        expected: 1,
    };
    assert_eq!(fault, HeaderFault::Bad(expected));
}
