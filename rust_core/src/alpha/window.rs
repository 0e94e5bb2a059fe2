//! What an expression remembers: windows in time and in events, lags, exponential means.
//!
//! Why: memory is bounded and known beforehand, and a sum that lives a whole day must not drift.
//!
//! Invariants:
//! 1. A value counts for the time it was in force: from its record to the next one. The value of
//!    now has no time yet.
//! 2. A window in time `w` is cut into [`BUCKET_COUNT`] buckets on a grid of absolute time and
//!    reaches back to the start of a bucket: it is between `w - w / 100` and `w` long. Within that
//!    it is exact, however many records fall into it.
//! 3. Nothing is ever subtracted from a sum: what leaves a window is left out of the next one, so
//!    an error cannot outlive its window.
//! 4. A NaN leaves no trace: its time has no weight, and it is no event.
//! 5. Each structure has a fixed size and allocates only when made.
//!
//! It knows no expression. Operator's page: `docs/alpha-language.md`.

mod aggregate;
mod decay;
mod events;
mod lag;
mod time;

use super::program::finite;
use aggregate::{Aggregate, Highest, Lowest, Moments, Pairs, Sum};
pub(super) use decay::{Ema, FadingSum, WarmUp, kept};
pub(super) use events::EventWindow;
pub(super) use lag::{EventLag, TimeLag};
pub(super) use time::TimeWindow;

/// Buckets of a window in time.
pub const BUCKET_COUNT: i64 = 100;
/// Whole buckets behind the running one.
const WHOLE_BUCKETS: i64 = BUCKET_COUNT - 1;
/// Most runs of buckets a window holds: a run a bucket, the one cut by the window's old end, and
/// one that was just closed while the oldest is not yet dropped.
const RUN_COUNT: usize = BUCKET_COUNT as usize + 2;

/// Start of the bucket that holds `now_ns`.
fn on_grid(now_ns: i64, bucket_ns: i64) -> i64 {
    now_ns.saturating_sub(now_ns.rem_euclid(bucket_ns))
}

/// The memory of one operation.
#[derive(Debug, Clone)]
pub(super) enum State {
    Mean(TimeWindow<Sum>),
    MeanOfEvents(EventWindow<Sum>),
    Lowest(TimeWindow<Lowest>),
    LowestOfEvents(EventWindow<Lowest>),
    Highest(TimeWindow<Highest>),
    HighestOfEvents(EventWindow<Highest>),
    Moments(TimeWindow<Moments>),
    MomentsOfEvents(EventWindow<Moments>),
    Pairs(TimeWindow<Pairs>),
    PairsOfEvents(EventWindow<Pairs>),
    Lag(TimeLag),
    LagOfEvents(EventLag),
    Ema(Ema),
    Fading(FadingSum),
}

macro_rules! each {
    ($state:expr, $inner:ident => $call:expr) => {
        match $state {
            State::Mean($inner) => $call,
            State::MeanOfEvents($inner) => $call,
            State::Lowest($inner) => $call,
            State::LowestOfEvents($inner) => $call,
            State::Highest($inner) => $call,
            State::HighestOfEvents($inner) => $call,
            State::Moments($inner) => $call,
            State::MomentsOfEvents($inner) => $call,
            State::Pairs($inner) => $call,
            State::PairsOfEvents($inner) => $call,
            State::Lag($inner) => $call,
            State::LagOfEvents($inner) => $call,
            State::Ema($inner) => $call,
            State::Fading($inner) => $call,
        }
    };
}

/// What an operation may need at a record, beside its operands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) now_ns: i64,
    /// For `ema` and `decay`.
    pub(super) kept: f64,
}

impl State {
    pub(super) fn reset(&mut self) {
        each!(self, inner => inner.reset());
    }

    /// Memory on the heap, in bytes.
    pub(super) fn heap_bytes(&self) -> usize {
        each!(self, inner => inner.heap_bytes())
    }

    /// The value of now, and for moments the mean as second; operands are finite or NaN.
    #[inline]
    pub(super) fn next(&mut self, x: f64, y: f64, at: Moment) -> (f64, f64) {
        let none = f64::NAN;
        let one = match self {
            Self::Mean(window) => window.next(x, at.now_ns).map_or(none, Sum::mean),
            Self::MeanOfEvents(window) => window.next(x).map_or(none, Sum::mean),
            Self::Lowest(window) => window
                .next(x, at.now_ns)
                .map_or(none, |all| all.merged(Lowest(x)).0),
            Self::LowestOfEvents(window) => window.next(x).map_or(none, |all| all.0),
            Self::Highest(window) => window
                .next(x, at.now_ns)
                .map_or(none, |all| all.merged(Highest(x)).0),
            Self::HighestOfEvents(window) => window.next(x).map_or(none, |all| all.0),
            Self::Moments(window) => {
                return window
                    .next(x, at.now_ns)
                    .map_or((none, none), Moments::std_and_mean);
            }
            Self::MomentsOfEvents(window) => {
                return window.next(x).map_or((none, none), Moments::std_and_mean);
            }
            Self::Pairs(window) => window
                .next((x, y), at.now_ns)
                .map_or(none, Pairs::correlation),
            Self::PairsOfEvents(window) => window.next((x, y)).map_or(none, Pairs::correlation),
            Self::Lag(lag) => lag.next(x, at.now_ns),
            Self::LagOfEvents(lag) => lag.next(x),
            Self::Ema(ema) => ema.next(x, at.now_ns, at.kept),
            Self::Fading(sum) => sum.next(x, at.now_ns, at.kept),
        };
        (one, none)
    }
}

impl State {
    /// The values of many records one after another: operands and what is left of old values.
    pub(super) fn run(
        &mut self,
        operands: [&[f64]; 3],
        times_ns: &[i64],
        out: &mut [f64],
        second: &mut [f64],
    ) {
        // Deciding once what is remembered, instead of at every row.
        match self {
            Self::Mean(window) => each_row(operands, times_ns, out, |x, _, at| {
                window.next(x, at.now_ns).map_or(f64::NAN, Sum::mean)
            }),
            Self::Lag(lag) => each_row(operands, times_ns, out, |x, _, at| lag.next(x, at.now_ns)),
            Self::Ema(ema) => each_row(operands, times_ns, out, |x, _, at| {
                ema.next(x, at.now_ns, at.kept)
            }),
            Self::Fading(sum) => each_row(operands, times_ns, out, |x, _, at| {
                sum.next(x, at.now_ns, at.kept)
            }),
            Self::Moments(window) => {
                let mut seconds = second.iter_mut();
                each_row(operands, times_ns, out, |x, _, at| {
                    let found = window.next(x, at.now_ns);
                    let (std, mean) = found.map_or((f64::NAN, f64::NAN), Moments::std_and_mean);
                    if let Some(slot) = seconds.next() {
                        *slot = mean;
                    }
                    std
                });
            }
            other => {
                let mut seconds = second.iter_mut();
                each_row(operands, times_ns, out, |x, y, at| {
                    let (value, mean) = other.next(x, y, at);
                    if let Some(slot) = seconds.next() {
                        *slot = mean;
                    }
                    value
                });
            }
        }
    }
}

fn each_row(
    [x, y, left]: [&[f64]; 3],
    times_ns: &[i64],
    out: &mut [f64],
    mut next: impl FnMut(f64, f64, Moment) -> f64,
) {
    let operands = x.iter().zip(y).zip(left).zip(times_ns);
    for (slot, (((x, y), kept), now_ns)) in out.iter_mut().zip(operands) {
        let at = Moment {
            now_ns: *now_ns,
            kept: *kept,
        };
        *slot = next(finite(*x), finite(*y), at);
    }
}
