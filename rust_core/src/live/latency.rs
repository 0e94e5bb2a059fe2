//! How long the steps of a live session take, as histograms that anyone may read while they fill.
//!
//! Why: a quantile needs the whole distribution, and whoever decides must not wait for a reader.
//!
//! Invariants:
//! 1. Adding takes no lock and allocates nothing.
//! 2. A reported quantile is the upper end of its bucket: at most 1/16 above the true value.
//!
//! Operator's page: `docs/live.md`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets of each power of two.
const PARTS: usize = 16;
const PART_BITS: u32 = PARTS.trailing_zeros();
const BUCKETS: usize = (64 - PART_BITS as usize + 1) * PARTS;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum LatencyStep {
    /// A record into its log, its place in the sequence included.
    Append = 0,
    /// Record in, decisions out.
    Decide = 1,
    /// Approved decisions until they are durable.
    Durable = 2,
    /// A request from there until the dispatcher has it.
    Queue = 3,
    /// From the receive time of the cause to the entry of the broker's call.
    ToCall = 4,
    /// The broker's call.
    Call = 5,
}

impl LatencyStep {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Append,
        Self::Decide,
        Self::Durable,
        Self::Queue,
        Self::ToCall,
        Self::Call,
    ];

    /// As metrics and reports name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Decide => "decide",
            Self::Durable => "durable",
            Self::Queue => "queue",
            Self::ToCall => "to_call",
            Self::Call => "call",
        }
    }
}

/// A distribution in five numbers, ns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spread {
    /// Times measured.
    pub count: u64,
    /// Median.
    pub p50_ns: u64,
    /// 99 of 100 are at or below.
    pub p99_ns: u64,
    /// 999 of 1,000 are at or below.
    pub p999_ns: u64,
    /// Worst.
    pub max_ns: u64,
}

#[derive(Debug)]
struct Histogram {
    buckets: Box<[AtomicU64]>,
    max_ns: AtomicU64,
}

impl Histogram {
    fn new() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            max_ns: AtomicU64::new(0),
        }
    }

    fn add(&self, ns: u64) {
        if let Some(bucket) = self.buckets.get(bucket_of(ns)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.max_ns.fetch_max(ns, Ordering::Relaxed);
    }

    fn spread(&self) -> Spread {
        let counts: Vec<u64> = self
            .buckets
            .iter()
            .map(|bucket| bucket.load(Ordering::Relaxed))
            .collect();
        let count: u64 = counts.iter().sum();
        let max_ns = self.max_ns.load(Ordering::Relaxed);
        let at = |share_ppm: u64| {
            let wanted = (u128::from(count) * u128::from(share_ppm)).div_ceil(1_000_000);
            let mut seen = 0_u128;
            for (place, bucket) in counts.iter().enumerate() {
                seen += u128::from(*bucket);
                if seen >= wanted && *bucket > 0 {
                    return upper_of(place).min(max_ns);
                }
            }
            0
        };
        Spread {
            count,
            p50_ns: at(500_000),
            p99_ns: at(990_000),
            p999_ns: at(999_000),
            max_ns,
        }
    }
}

/// Below 16 ns a bucket a nanosecond, above it 16 a power of two.
fn bucket_of(ns: u64) -> usize {
    let power = (u64::BITS - ns.leading_zeros()).saturating_sub(PART_BITS + 1);
    (power as usize) * PARTS + (ns >> power) as usize
}

/// Largest time of a bucket.
fn upper_of(place: usize) -> u64 {
    let power = (place / PARTS).saturating_sub(1);
    let part = (place - power * PARTS) as u64;
    ((part + 1) << power) - 1
}

/// A histogram for each step.
#[derive(Debug)]
pub(super) struct Latencies {
    steps: [Histogram; LatencyStep::ALL.len()],
}

impl Latencies {
    pub(super) fn new() -> Self {
        Self {
            steps: std::array::from_fn(|_| Histogram::new()),
        }
    }

    pub(super) fn add(&self, step: LatencyStep, time: Duration) {
        if let Some(histogram) = self.steps.get(step as usize) {
            histogram.add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        }
    }

    pub(super) fn spreads(&self) -> Vec<(LatencyStep, Spread)> {
        LatencyStep::ALL
            .into_iter()
            .zip(self.steps.iter().map(Histogram::spread))
            .collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_its_times_and_is_a_sixteenth_wide() {
        for power in 0..63_u32 {
            for offset in [0_u64, 1, 3, 7] {
                let ns = (1_u64 << power) + offset;
                let upper = upper_of(bucket_of(ns));
                assert!(upper >= ns, "{ns}: {upper}");
                assert!(upper - ns <= ns / 16, "{ns}: {upper}");
                assert_eq!(bucket_of(upper), bucket_of(ns));
                assert_eq!(bucket_of(upper + 1), bucket_of(ns) + 1);
            }
        }
        assert!(bucket_of(u64::MAX) < BUCKETS);
    }

    #[test]
    fn quantiles_are_those_of_the_times() {
        let histogram = Histogram::new();
        for ns in 1..=1_000_u64 {
            histogram.add(ns * 1_000);
        }
        let spread = histogram.spread();
        assert_eq!((spread.count, spread.max_ns), (1_000, 1_000_000));
        for (found, wanted) in [
            (spread.p50_ns, 500_000),
            (spread.p99_ns, 990_000),
            (spread.p999_ns, 999_000),
        ] {
            assert!(
                found >= wanted && found <= wanted + wanted / 16,
                "{found} {wanted}"
            );
        }
        assert_eq!(Histogram::new().spread(), Spread::default());
    }
}
