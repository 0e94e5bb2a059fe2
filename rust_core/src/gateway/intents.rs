//! Which intents were decided: exact for ever, in a fixed number of words.
//!
//! Why: an intent that was decided is never decided again, however long ago that was. A window of
//! the last ids forgets; a counter does not.
//!
//! Invariants:
//! 1. An id is 32 bits of stream and 32 bits of a counter; a stream decides in counter order.
//! 2. An id at or below its stream's high mark was decided, or never will be.
//! 3. A stream that finds no room is answered as decided: what cannot be remembered is not sent.
//!
//! A skipped counter is given up: it counts as decided once a later one was. Operator's page:
//! `docs/storm-guard.md`.

/// Streams that can be remembered: every alpha, and as many sources outside.
pub const STREAM_COUNT_MAX: usize = 128;

/// One source of intent ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stream {
    /// Upper half of its ids.
    key: u32,
    /// What its counters are mixed with in the lower half.
    base: u32,
    /// Highest counter decided.
    high: u32,
}

/// High marks of all streams.
#[derive(Debug, Clone)]
pub struct IntentMarks {
    streams: Vec<Stream>,
}

impl Default for IntentMarks {
    fn default() -> Self {
        Self {
            streams: Vec::with_capacity(STREAM_COUNT_MAX),
        }
    }
}

/// Upper and lower half of an id.
#[allow(
    clippy::cast_possible_truncation,
    reason = "the halves of 64 bits are 32 bits each"
)]
fn halves(intent_id: u64) -> (u32, u32) {
    ((intent_id >> 32) as u32, intent_id as u32)
}

impl IntentMarks {
    /// Enters a stream whose ids are `prefix` mixed (xor) with a counter; false when another
    /// stream has these ids or there is no room.
    pub fn enter(&mut self, prefix: u64) -> bool {
        let (key, base) = halves(prefix);
        let is_new = self.streams.iter().all(|stream| stream.key != key);
        let has_room = self.streams.len() < STREAM_COUNT_MAX;
        if is_new && has_room {
            self.streams.push(Stream { key, base, high: 0 });
        }
        is_new && has_room
    }

    fn stream(&self, key: u32) -> Option<&Stream> {
        self.streams.iter().find(|stream| stream.key == key)
    }

    /// True if this id was decided, can no longer be, or cannot be remembered.
    #[must_use]
    pub fn is_decided(&self, intent_id: u64) -> bool {
        let (key, low) = halves(intent_id);
        match self.stream(key) {
            Some(stream) => low ^ stream.base <= stream.high,
            // A source nobody entered counts from 1 and gets a stream of its own, if there is room.
            None => low == 0 || self.streams.len() >= STREAM_COUNT_MAX,
        }
    }

    /// Remembers a decided id.
    pub fn decide(&mut self, intent_id: u64) {
        let (key, low) = halves(intent_id);
        if self.stream(key).is_none() && !self.enter(u64::from(key) << 32) {
            return;
        }
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.key == key) {
            stream.high = stream.high.max(low ^ stream.base);
        }
    }

    /// Highest counter decided in the stream of `prefix`.
    #[must_use]
    pub fn high(&self, prefix: u64) -> u32 {
        self.stream(halves(prefix).0)
            .map_or(0, |stream| stream.high)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_is_decided_once_however_long_ago() {
        let prefix = 0xABCD_1234_5678_9ABC;
        let mut marks = IntentMarks::default();
        assert!(marks.enter(prefix));
        assert!(!marks.enter(prefix ^ 7), "the same ids");
        for counter in 1..=200_000_u64 {
            let id = prefix ^ counter;
            assert!(!marks.is_decided(id));
            marks.decide(id);
            assert!(marks.is_decided(id));
        }
        for counter in [1, 2, 4_096, 4_097, 100_000, 200_000] {
            assert!(marks.is_decided(prefix ^ counter), "{counter}");
        }
        assert!(marks.is_decided(prefix), "counter 0 is never given");
        assert_eq!(marks.high(prefix), 200_000);
    }

    /// Invariant 3.
    #[test]
    fn a_source_that_finds_no_room_is_refused() {
        let mut marks = IntentMarks::default();
        for key in 1..=STREAM_COUNT_MAX as u64 {
            assert!(!marks.is_decided((key << 32) | 1));
            marks.decide((key << 32) | 1);
        }
        let late = (1_000_000 << 32) | 1;
        assert!(marks.is_decided(late));
        marks.decide(late);
        assert!(!marks.is_decided((5 << 32) | 2), "the others go on");
    }

    proptest! {
        /// Invariants 1 and 2, against a memory that forgets nothing.
        #[test]
        fn marks_agree_with_a_full_memory(steps in prop::collection::vec((0_usize..4, 1_u32..400), 1..300)) {
            let prefixes = [3_u64 << 32, (9 << 32) | 77, (1 << 60) | 0xFFFF_0000, u64::MAX];
            let mut marks = IntentMarks::default();
            prefixes.iter().for_each(|prefix| assert!(marks.enter(*prefix)));
            let mut decided = std::collections::BTreeSet::new();
            let mut high = [0_u32; 4];
            for (stream, counter) in steps {
                let id = prefixes[stream] ^ u64::from(counter);
                if decided.contains(&id) {
                    prop_assert!(marks.is_decided(id));
                }
                prop_assert_eq!(marks.is_decided(id), counter <= high[stream]);
                if !marks.is_decided(id) {
                    marks.decide(id);
                    high[stream] = counter;
                    decided.insert(id);
                }
            }
        }
    }
}
