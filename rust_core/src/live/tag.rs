//! The tag that goes with an order: six letters and digits by which it is found at the broker.
//!
//! Why: the broker's field takes no more, and after a crash between the log and the call nothing
//! else of the order is known there. It follows from the decision and the epoch, which are durable
//! before the call.
//!
//! Invariants:
//! 1. Two decisions of one epoch have different tags, as long as they are less than 2^23 apart; so
//!    have two epochs less than 4,096 apart.
//!
//! Operator's page: `docs/formats.md`.

/// Letters of a tag, in the order of their value.
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Characters of a tag.
pub const TAG_CHARS: usize = 6;
const DECISION_BITS: u32 = 23;
const EPOCH_BITS: u32 = 12;

const _: () = assert!(1_u64 << (DECISION_BITS + EPOCH_BITS) <= 62_u64.pow(TAG_CHARS as u32));

/// Base 62 of `((epoch mod 4096) << 23) | (decision_seq mod 2^23)`, most significant first.
#[must_use]
pub fn order_tag(epoch: u64, decision_seq: u64) -> [u8; TAG_CHARS] {
    let epoch = epoch & ((1 << EPOCH_BITS) - 1);
    let mut number = (epoch << DECISION_BITS) | (decision_seq & ((1 << DECISION_BITS) - 1));
    let mut tag = [b'0'; TAG_CHARS];
    for place in tag.iter_mut().rev() {
        *place = DIGITS[(number % 62) as usize];
        number /= 62;
    }
    tag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_what_base_62_makes_of_the_two_numbers() {
        assert_eq!(&order_tag(0, 0), b"000000");
        assert_eq!(&order_tag(0, 61), b"00000z");
        assert_eq!(&order_tag(0, 62), b"000010");
        assert_eq!(order_tag(4_096, 5), order_tag(0, 5));
        assert_eq!(order_tag(3, 1 << 23), order_tag(3, 0));
        // The largest number: 2^35 - 1.
        assert_eq!(&order_tag(4_095, (1 << 23) - 1), b"bVJxYV");
        assert_ne!(order_tag(1, 7), order_tag(2, 7));
    }
}
