//! The same checks with a broken codec or disk: they must go red, or they prove nothing.

use crate::wal::frame::{
    FRAME_HEADER_BYTES, Frame, FrameCrc, FrameHead, decode_frame, encode_frame, frame_crc,
};

const HEAD: FrameHead = FrameHead {
    seq: 9,
    epoch: 1,
    record_type: 2,
    time_ns: 5,
    prev_crc: 77,
    sync_lag: 3,
};
const PAYLOAD: &[u8] = &[7; 61];

/// As `frame_crc`, but without the length.
fn crc_without_len(frame: &[u8]) -> u32 {
    crc32c::crc32c(frame.get(8..).unwrap_or_default())
}

/// As `frame_crc`, but without the head.
fn crc_without_head(frame: &[u8]) -> u32 {
    crc32c::crc32c(frame.get(FRAME_HEADER_BYTES..).unwrap_or_default())
}

/// As `frame_crc`, but without the padding.
fn crc_without_padding(frame: &[u8]) -> u32 {
    let end = FRAME_HEADER_BYTES + PAYLOAD.len();
    crc32c::crc32c_append(
        crc32c::crc32c(frame.get(..4).unwrap_or_default()),
        frame.get(8..end).unwrap_or_default(),
    )
}

/// How many single-bit flips of a frame decode without an error.
fn accepted_flips(crc_of: FrameCrc) -> usize {
    let mut frame = Vec::new();
    encode_frame(&mut frame, &HEAD, PAYLOAD, crc_of).unwrap();
    let decoded: Frame<'_> = decode_frame(&frame, crc_of).unwrap();
    assert_eq!((decoded.seq, decoded.payload), (HEAD.seq, PAYLOAD));
    // Bytes of a next frame follow, so that a longer length is not caught by the file's end.
    let length = frame.len();
    frame.resize(length + 8192, 0);
    (0..length * 8)
        .filter(|bit| {
            let mut flipped = frame.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            decode_frame(&flipped, crc_of).is_ok()
        })
        .count()
}

#[test]
fn no_flipped_bit_of_a_frame_is_accepted() {
    assert_eq!(accepted_flips(frame_crc), 0);
}

#[test]
fn a_checksum_that_leaves_out_len_head_or_padding_accepts_flips() {
    // 61 bytes of payload in 64: the two low bits of len move inside the padding, bit 0 and bit 1.
    assert!(accepted_flips(crc_without_len) >= 1);
    assert!(accepted_flips(crc_without_head) > 200);
    assert_eq!(accepted_flips(crc_without_padding), 3 * 8);
}

#[test]
fn a_payload_that_is_empty_or_too_large_is_not_encoded() {
    let mut out = Vec::new();
    assert_eq!(encode_frame(&mut out, &HEAD, &[], frame_crc), None);
    assert_eq!(encode_frame(&mut out, &HEAD, &[0; 4097], frame_crc), None);
    assert!(out.is_empty());
    assert!(encode_frame(&mut out, &HEAD, &[0; 4096], frame_crc).is_some());
}
