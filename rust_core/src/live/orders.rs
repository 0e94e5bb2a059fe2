//! What is known of an order beside the engine's own state: its decision, epoch and tag.
//!
//! Why: the tag is the only thing by which an order whose call was cut short can be found at the
//! broker, so it follows from what is durable before the call.
//!
//! Operator's page: `docs/gateway.md`.

use std::collections::HashMap;

use crate::record::{ActionKind, DecisionRecord};

/// Orders remembered before old ones are forgotten; the engine keeps fewer.
const ROOM: usize = 8_192;
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Bits of a tag below the epoch.
const COUNTER_BITS: u32 = 23;

/// Facts of one order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OrderFacts {
    /// The decision to place it, 0 when it is not known.
    pub decision_seq: u64,
    /// Fencing number under which that was decided.
    pub epoch: u32,
    /// When, ns.
    pub decided_ns: i64,
    /// What the broker carries with it.
    pub tag: [u8; 6],
}

/// Six letters and digits for a decision: epoch modulo 4,096 and decision modulo 2^23, in base 62.
#[must_use]
pub fn order_tag(epoch: u32, decision_seq: u64) -> [u8; 6] {
    let epoch = u64::from(epoch) % 4_096;
    let mut number = (epoch << COUNTER_BITS) | (decision_seq % (1 << COUNTER_BITS));
    let mut tag = [b'0'; 6];
    for place in tag.iter_mut().rev() {
        *place = DIGITS[(number % 62) as usize];
        number /= 62;
    }
    tag
}

/// Facts by order.
#[derive(Debug)]
pub(super) struct Orders {
    facts: HashMap<u64, OrderFacts>,
}

impl Orders {
    pub(super) fn new() -> Self {
        Self {
            facts: HashMap::with_capacity(ROOM),
        }
    }

    /// Takes note of an approved decision; gives the facts of its order.
    pub(super) fn note(&mut self, decision: &DecisionRecord, epoch: u32) -> OrderFacts {
        if decision.action != ActionKind::Place as u32 {
            return self.facts(decision.order_id);
        }
        let facts = OrderFacts {
            decision_seq: decision.decision_seq,
            epoch,
            decided_ns: decision.header.sequence_time_ns,
            tag: order_tag(epoch, decision.decision_seq),
        };
        if self.facts.len() >= ROOM / 2 {
            // Half of what there is room for is far more than can be open.
            let oldest = decision.decision_seq.saturating_sub(ROOM as u64);
            self.facts.retain(|_, facts| facts.decision_seq > oldest);
        }
        self.facts.insert(decision.order_id, facts);
        facts
    }

    pub(super) fn facts(&self, order_id: u64) -> OrderFacts {
        self.facts.get(&order_id).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_differ_within_an_epoch_and_between_epochs() {
        let mut seen = std::collections::HashSet::new();
        for epoch in [1, 2, 4_095] {
            for decision_seq in (1..2_000).chain([8_388_607]) {
                let tag = order_tag(epoch, decision_seq);
                assert!(tag.iter().all(u8::is_ascii_alphanumeric));
                assert!(seen.insert(tag));
            }
        }
        assert_eq!(&order_tag(0, 61), b"00000z");
        assert_eq!(&order_tag(0, 62), b"000010");
    }
}
