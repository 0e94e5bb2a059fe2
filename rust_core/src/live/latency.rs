//! Where the time goes between a callback of the SDK and the call of the broker.
//!
//! Why: a median hides what hurts. Every step has a histogram of its own, so that a slow tail can be
//! laid at the door of the lock, the disk, the wake-up or the interpreter.
//!
//! Invariants:
//! 1. Recording allocates nothing and takes no lock.
//! 2. A value is reported at most 1/32 above what it was; the maximum is exact.
//! 3. The measure decides nothing: no record and no decision depends on it.
//!
//! Times before 0 (a clock set back, virtual time ahead of the wall) count as 0. Operator's page:
//! `docs/live.md`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Buckets of one power of two.
const SUB_BUCKET_COUNT: usize = 32;
const SUB_BUCKET_BITS: u32 = SUB_BUCKET_COUNT.trailing_zeros();
/// Values below 2^6 have a bucket each, every higher power of two has `SUB_BUCKET_COUNT`.
const BUCKET_COUNT: usize = SUB_BUCKET_COUNT * (64 - SUB_BUCKET_BITS as usize + 1);

const _: () = assert!(SUB_BUCKET_COUNT.is_power_of_two());

/// The wall clock, ns UTC; 0 before 1970.
#[must_use]
pub fn wall_ns() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.ok()
        .and_then(|since| i64::try_from(since.as_nanos()).ok())
        .unwrap_or(0)
}

fn bucket_of(value: u64) -> usize {
    let bits = u64::BITS - value.leading_zeros();
    if bits <= SUB_BUCKET_BITS + 1 {
        return value as usize;
    }
    let shift = bits - SUB_BUCKET_BITS - 1;
    let within = (value >> shift) as usize - SUB_BUCKET_COUNT;
    (shift as usize + 1) * SUB_BUCKET_COUNT + within
}

/// The largest value of a bucket.
fn top_of(bucket: usize) -> u64 {
    if bucket < 2 * SUB_BUCKET_COUNT {
        return bucket as u64;
    }
    let shift = bucket / SUB_BUCKET_COUNT - 1;
    let first = ((bucket % SUB_BUCKET_COUNT + SUB_BUCKET_COUNT) as u64) << shift;
    first | ((1 << shift) - 1)
}

/// Counts of durations by size.
#[derive(Debug)]
pub struct Histogram {
    buckets: Box<[AtomicU64]>,
    max_ns: AtomicU64,
}

/// What a histogram says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quantiles {
    /// Values recorded.
    pub count: u64,
    /// Median.
    pub p50_ns: u64,
    /// 99 of 100 are not above.
    pub p99_ns: u64,
    /// 999 of 1,000 are not above.
    pub p999_ns: u64,
    /// Worst.
    pub max_ns: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: (0..BUCKET_COUNT).map(|_| AtomicU64::new(0)).collect(),
            max_ns: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    /// Counts the time from one reading of the clock to a later one.
    pub fn record(&self, from_ns: i64, to_ns: i64) {
        let value = u64::try_from(to_ns.saturating_sub(from_ns)).unwrap_or(0);
        if let Some(bucket) = self.buckets.get(bucket_of(value)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.max_ns.fetch_max(value, Ordering::Relaxed);
    }

    /// What was recorded so far.
    #[must_use]
    pub fn quantiles(&self) -> Quantiles {
        let counts: Vec<u64> = self
            .buckets
            .iter()
            .map(|bucket| bucket.load(Ordering::Relaxed))
            .collect();
        let count: u64 = counts.iter().sum();
        let max_ns = self.max_ns.load(Ordering::Relaxed);
        let at = |share_ppm: u64| {
            // The smallest value that this share of all is not above.
            let rank = (count * share_ppm).div_ceil(1_000_000).max(1);
            let mut seen = 0;
            for (bucket, in_bucket) in counts.iter().enumerate() {
                seen += in_bucket;
                if seen >= rank {
                    return top_of(bucket).min(max_ns);
                }
            }
            max_ns
        };
        Quantiles {
            count,
            p50_ns: at(500_000),
            p99_ns: at(990_000),
            p999_ns: at(999_000),
            max_ns,
        }
    }
}

/// The steps that are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Step {
    /// `receive_time_ns` of a record to its place in the input sequence.
    CallbackToSequenced = 0,
    /// Into its log.
    LogAppend = 1,
    /// What the engine made of it.
    Decide = 2,
    /// From decided to seen by the dispatcher.
    Queue = 3,
    /// From seen to durable, 0 when it was durable already.
    Durable = 4,
    /// `receive_time_ns` of the record that caused a request to the entry of the broker's call.
    ToCall = 5,
    /// The broker's call.
    Call = 6,
}

impl Step {
    /// All, in order.
    pub const ALL: [Self; 7] = [
        Self::CallbackToSequenced,
        Self::LogAppend,
        Self::Decide,
        Self::Queue,
        Self::Durable,
        Self::ToCall,
        Self::Call,
    ];

    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CallbackToSequenced => "callback_to_sequenced",
            Self::LogAppend => "log_append",
            Self::Decide => "decide",
            Self::Durable => "durable",
            Self::Queue => "queue",
            Self::ToCall => "to_call",
            Self::Call => "call",
        }
    }
}

/// One histogram a step.
#[derive(Debug, Default)]
pub struct Latency {
    steps: [Histogram; Step::ALL.len()],
}

impl Latency {
    /// Counts one duration of a step.
    pub fn record(&self, step: Step, from_ns: i64, to_ns: i64) {
        self.steps[step as usize].record(from_ns, to_ns);
    }

    /// What was recorded of every step.
    pub fn report(&self) -> impl Iterator<Item = (Step, Quantiles)> {
        Step::ALL
            .into_iter()
            .map(|step| (step, self.steps[step as usize].quantiles()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_a_bucket_whose_top_is_at_most_a_thirty_second_above_it() {
        let powers = (0..64).map(|bit| 1_u64 << bit);
        let around = powers.flat_map(|power| [power - 1, power, power + 1, power + power / 3]);
        let mut last = 0;
        for value in (0..5_000).chain(around).chain([u64::MAX]) {
            let top = top_of(bucket_of(value));
            assert!(top >= value, "{value}");
            assert!(top - value <= value / 32, "{value} {top}");
            assert!(bucket_of(value) < BUCKET_COUNT);
        }
        for bucket in 0..BUCKET_COUNT {
            assert_eq!(bucket_of(top_of(bucket)), bucket);
            assert!(bucket == 0 || top_of(bucket) > last);
            last = top_of(bucket);
        }
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_values() {
        let histogram = Histogram::default();
        assert_eq!(histogram.quantiles(), Quantiles::default());
        for value in 1..=1_000_i64 {
            histogram.record(5, 5 + value * 1_000);
        }
        histogram.record(9, 3);
        let found = histogram.quantiles();
        assert_eq!((found.count, found.max_ns), (1_001, 1_000_000));
        let near = |was: u64, of: u64| was >= of && was <= of + of / 32;
        assert!(near(found.p50_ns, 500_000), "{found:?}");
        assert!(near(found.p99_ns, 990_000), "{found:?}");
        assert!(near(found.p999_ns, 999_000), "{found:?}");
    }
}
