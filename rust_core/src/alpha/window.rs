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

use super::program::finite;
use crate::math;

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

/// What is known of a set of weighted values; later ones are merged behind earlier ones.
pub(super) trait Aggregate: Copy {
    /// What goes in.
    type Value: Copy;
    /// Of no value.
    const EMPTY: Self;
    /// Stands for "no value".
    const NOTHING: Self::Value;
    /// Of one value, which is a number.
    fn of(value: Self::Value, weight: f64) -> Self;
    /// Of both.
    fn merged(self, later: Self) -> Self;
    /// False for a value that leaves no trace.
    fn is_number(value: Self::Value) -> bool;
}

/// Sum and total weight.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sum {
    sum: f64,
    weight: f64,
}

impl Aggregate for Sum {
    type Value = f64;
    const EMPTY: Self = Self {
        sum: 0.0,
        weight: 0.0,
    };
    const NOTHING: f64 = f64::NAN;

    fn of(value: f64, weight: f64) -> Self {
        Self {
            sum: value * weight,
            weight,
        }
    }

    fn merged(self, later: Self) -> Self {
        Self {
            sum: self.sum + later.sum,
            weight: self.weight + later.weight,
        }
    }

    fn is_number(value: f64) -> bool {
        !value.is_nan()
    }
}

impl Sum {
    pub(super) fn mean(self) -> f64 {
        if self.weight > 0.0 {
            self.sum / self.weight
        } else {
            f64::NAN
        }
    }
}

/// The smallest value, whatever its weight.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lowest(pub(super) f64);

impl Aggregate for Lowest {
    type Value = f64;
    const EMPTY: Self = Self(f64::INFINITY);
    const NOTHING: f64 = f64::NAN;

    fn of(value: f64, _weight: f64) -> Self {
        Self(value)
    }

    fn merged(self, later: Self) -> Self {
        if later.0 < self.0 { later } else { self }
    }

    fn is_number(value: f64) -> bool {
        !value.is_nan()
    }
}

/// The largest value, whatever its weight.
#[derive(Debug, Clone, Copy)]
pub(super) struct Highest(pub(super) f64);

impl Aggregate for Highest {
    type Value = f64;
    const EMPTY: Self = Self(f64::NEG_INFINITY);
    const NOTHING: f64 = f64::NAN;

    fn of(value: f64, _weight: f64) -> Self {
        Self(value)
    }

    fn merged(self, later: Self) -> Self {
        if later.0 > self.0 { later } else { self }
    }

    fn is_number(value: f64) -> bool {
        !value.is_nan()
    }
}

/// Weight, mean and sum of squared deviations: Chan, Golub and LeVeque's pairwise formula, which
/// cancels nothing, so a constant has deviation 0 exactly.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moments {
    weight: f64,
    mean: f64,
    squares: f64,
}

impl Aggregate for Moments {
    type Value = f64;
    const EMPTY: Self = Self {
        weight: 0.0,
        mean: 0.0,
        squares: 0.0,
    };
    const NOTHING: f64 = f64::NAN;

    fn of(value: f64, weight: f64) -> Self {
        Self {
            weight,
            mean: value,
            squares: 0.0,
        }
    }

    fn merged(self, later: Self) -> Self {
        if later.weight == 0.0 {
            return self;
        }
        if self.weight == 0.0 {
            return later;
        }
        let weight = self.weight + later.weight;
        let (apart, share) = (later.mean - self.mean, later.weight / weight);
        Self {
            weight,
            mean: self.mean + apart * share,
            squares: self.squares + later.squares + apart * apart * (self.weight * share),
        }
    }

    fn is_number(value: f64) -> bool {
        !value.is_nan()
    }
}

impl Moments {
    /// `(std, mean)`, both NaN without weight.
    pub(super) fn std_and_mean(self) -> (f64, f64) {
        if self.weight > 0.0 {
            ((self.squares / self.weight).sqrt(), self.mean)
        } else {
            (f64::NAN, f64::NAN)
        }
    }
}

/// The same for pairs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pairs {
    weight: f64,
    mean: (f64, f64),
    squares: (f64, f64),
    products: f64,
}

impl Aggregate for Pairs {
    type Value = (f64, f64);
    const EMPTY: Self = Self {
        weight: 0.0,
        mean: (0.0, 0.0),
        squares: (0.0, 0.0),
        products: 0.0,
    };
    const NOTHING: (f64, f64) = (f64::NAN, f64::NAN);

    fn of(value: (f64, f64), weight: f64) -> Self {
        Self {
            weight,
            mean: value,
            ..Self::EMPTY
        }
    }

    fn merged(self, later: Self) -> Self {
        if later.weight == 0.0 {
            return self;
        }
        if self.weight == 0.0 {
            return later;
        }
        let weight = self.weight + later.weight;
        let share = later.weight / weight;
        let (x, y) = (later.mean.0 - self.mean.0, later.mean.1 - self.mean.1);
        let scale = self.weight * share;
        Self {
            weight,
            mean: (self.mean.0 + x * share, self.mean.1 + y * share),
            squares: (
                self.squares.0 + later.squares.0 + x * x * scale,
                self.squares.1 + later.squares.1 + y * y * scale,
            ),
            products: self.products + later.products + x * y * scale,
        }
    }

    fn is_number(value: (f64, f64)) -> bool {
        !value.0.is_nan() && !value.1.is_nan()
    }
}

impl Pairs {
    pub(super) fn correlation(self) -> f64 {
        let scale = self.squares.0.sqrt() * self.squares.1.sqrt();
        if scale > 0.0 {
            (self.products / scale).clamp(-1.0, 1.0)
        } else {
            f64::NAN
        }
    }
}

/// A closed run of buckets: the first may hold several values, in the others the last stayed.
#[derive(Debug, Clone, Copy)]
struct Run<A: Aggregate> {
    start_ns: i64,
    whole: A,
    last: A::Value,
}

/// A window in time.
///
/// Runs lie in a ring; those before `middle` also have the aggregate of themselves and all that
/// follow up to `middle`, those behind it are in `behind`. So the window is `front`, the rest of
/// the first part, `behind` and the running bucket, and dropping the oldest run subtracts nothing.
#[derive(Debug, Clone)]
pub(super) struct TimeWindow<A: Aggregate> {
    window_ns: i64,
    bucket_ns: i64,
    runs: Box<[Run<A>]>,
    following: Box<[A]>,
    /// Numbers of runs since the start; place in the ring is the remainder.
    first: usize,
    middle: usize,
    end: usize,
    behind: A,
    /// Everything before the running bucket.
    past: A,
    running: A,
    running_ns: i64,
    bucket_end_ns: i64,
    last: A::Value,
    last_ns: i64,
    /// Time of the first number.
    started_ns: Option<i64>,
}

impl<A: Aggregate> TimeWindow<A> {
    pub(super) fn new(window_ns: i64) -> Self {
        let run = Run {
            start_ns: 0,
            whole: A::EMPTY,
            last: A::NOTHING,
        };
        Self {
            window_ns,
            bucket_ns: window_ns / BUCKET_COUNT,
            runs: vec![run; RUN_COUNT].into_boxed_slice(),
            following: vec![A::EMPTY; RUN_COUNT].into_boxed_slice(),
            first: 0,
            middle: 0,
            end: 0,
            behind: A::EMPTY,
            past: A::EMPTY,
            running: A::EMPTY,
            running_ns: 0,
            bucket_end_ns: 0,
            last: A::NOTHING,
            last_ns: 0,
            started_ns: None,
        }
    }

    pub(super) fn reset(&mut self) {
        self.started_ns = None;
        (self.first, self.middle, self.end) = (0, 0, 0);
        (self.behind, self.past, self.running) = (A::EMPTY, A::EMPTY, A::EMPTY);
    }

    pub(super) fn heap_bytes(&self) -> usize {
        size_of_val(&*self.runs) + size_of_val(&*self.following)
    }

    /// Takes the value of now; gives the window up to now, and `None` while there is no answer.
    #[inline]
    pub(super) fn next(&mut self, value: A::Value, now_ns: i64) -> Option<A> {
        let is_number = A::is_number(value);
        match self.started_ns {
            None if !is_number => return None,
            None => {
                self.started_ns = Some(now_ns);
                self.running_ns = on_grid(now_ns, self.bucket_ns);
                self.bucket_end_ns = self.running_ns.saturating_add(self.bucket_ns);
            }
            Some(_) => self.pass(now_ns),
        }
        self.last = value;
        self.last_ns = now_ns;
        let is_full = self
            .started_ns
            .is_some_and(|start| now_ns.saturating_sub(start) >= self.window_ns);
        (is_number && is_full).then(|| self.past.merged(self.running))
    }

    /// The last value stayed in force until `until_ns`.
    #[inline]
    fn stay(&mut self, until_ns: i64) {
        if until_ns > self.last_ns && A::is_number(self.last) {
            let weight = until_ns.saturating_sub(self.last_ns) as f64;
            self.running = self.running.merged(A::of(self.last, weight));
        }
        self.last_ns = until_ns;
    }

    #[inline]
    fn pass(&mut self, now_ns: i64) {
        if now_ns >= self.bucket_end_ns {
            self.close(on_grid(now_ns, self.bucket_ns));
        }
        self.stay(now_ns);
    }

    /// Closes the running bucket and opens the one that starts at `bucket_ns`.
    fn close(&mut self, bucket_ns: i64) {
        self.stay(bucket_ns);
        assert!(
            self.end - self.first < RUN_COUNT,
            "Invariant: a window holds at most a run a bucket"
        );
        self.runs[self.end % RUN_COUNT] = Run {
            start_ns: self.running_ns,
            whole: self.running,
            last: self.last,
        };
        self.end += 1;
        self.behind = self.behind.merged(self.running);
        self.running = A::EMPTY;
        self.running_ns = bucket_ns;
        self.bucket_end_ns = bucket_ns.saturating_add(self.bucket_ns);
        self.drop_old(bucket_ns.saturating_sub(WHOLE_BUCKETS * self.bucket_ns));
    }

    fn run(&self, number: usize) -> &Run<A> {
        &self.runs[number % RUN_COUNT]
    }

    fn run_end(&self, number: usize) -> i64 {
        if number + 1 < self.end {
            self.run(number + 1).start_ns
        } else {
            self.running_ns
        }
    }

    /// Drops what ended by `from_ns` and sums up what is left.
    fn drop_old(&mut self, from_ns: i64) {
        while self.first < self.end && self.run_end(self.first) <= from_ns {
            self.first += 1;
        }
        if self.first >= self.middle {
            let mut all = A::EMPTY;
            for number in (self.first..self.end).rev() {
                all = self.run(number).whole.merged(all);
                self.following[number % RUN_COUNT] = all;
            }
            self.middle = self.end;
            self.behind = A::EMPTY;
        }
        self.past = A::EMPTY;
        if self.first < self.end {
            let front = *self.run(self.first);
            self.past = if front.start_ns >= from_ns {
                front.whole
            } else if A::is_number(front.last) {
                // The grid cuts behind the first bucket of the run, where only the last value was.
                let rest_ns = self.run_end(self.first).saturating_sub(from_ns);
                A::of(front.last, rest_ns as f64)
            } else {
                A::EMPTY
            };
            if self.first + 1 < self.middle {
                self.past = self
                    .past
                    .merged(self.following[(self.first + 1) % RUN_COUNT]);
            }
            self.past = self.past.merged(self.behind);
        }
    }
}

/// A window of the last values, each with weight 1.
///
/// Values come in blocks as long as the window; it is the end of the last block and the start of
/// this one, and nothing is subtracted.
#[derive(Debug, Clone)]
pub(super) struct EventWindow<A: Aggregate> {
    block: Box<[A::Value]>,
    /// For each place of the last block, the aggregate from there to its end.
    following: Box<[A]>,
    filled: usize,
    so_far: A,
    has_last_block: bool,
}

impl<A: Aggregate> EventWindow<A> {
    pub(super) fn new(count: u32) -> Self {
        Self {
            block: vec![A::NOTHING; count as usize].into_boxed_slice(),
            following: vec![A::EMPTY; count as usize].into_boxed_slice(),
            filled: 0,
            so_far: A::EMPTY,
            has_last_block: false,
        }
    }

    pub(super) fn reset(&mut self) {
        self.filled = 0;
        self.so_far = A::EMPTY;
        self.has_last_block = false;
    }

    pub(super) fn heap_bytes(&self) -> usize {
        size_of_val(&*self.block) + size_of_val(&*self.following)
    }

    #[inline]
    pub(super) fn next(&mut self, value: A::Value) -> Option<A> {
        if !A::is_number(value) {
            return None;
        }
        if self.filled == self.block.len() {
            self.turn();
        }
        self.block[self.filled] = value;
        self.filled += 1;
        self.so_far = self.so_far.merged(A::of(value, 1.0));
        if self.filled == self.block.len() {
            return Some(self.so_far);
        }
        self.has_last_block
            .then(|| self.following[self.filled].merged(self.so_far))
    }

    fn turn(&mut self) {
        let mut all = A::EMPTY;
        for (slot, value) in self.following.iter_mut().zip(&self.block).rev() {
            all = A::of(*value, 1.0).merged(all);
            *slot = all;
        }
        self.filled = 0;
        self.so_far = A::EMPTY;
        self.has_last_block = true;
    }
}

/// The value that was in force a time ago.
#[derive(Debug, Clone)]
pub(super) struct TimeLag {
    window_ns: i64,
    bucket_ns: i64,
    /// Start of a bucket with records, and the last value in it.
    points: Box<[(i64, f64)]>,
    first: usize,
    end: usize,
    bucket_end_ns: i64,
    /// Start of the bucket that lies a window before the running one.
    from_ns: i64,
}

/// Buckets from the one looked at to the running one, and the one before.
const POINT_COUNT: usize = BUCKET_COUNT as usize + 3;

impl TimeLag {
    pub(super) fn new(window_ns: i64) -> Self {
        Self {
            window_ns,
            bucket_ns: window_ns / BUCKET_COUNT,
            points: vec![(0, f64::NAN); POINT_COUNT].into_boxed_slice(),
            first: 0,
            end: 0,
            bucket_end_ns: i64::MIN,
            from_ns: i64::MIN,
        }
    }

    pub(super) fn reset(&mut self) {
        (self.first, self.end) = (0, 0);
        self.bucket_end_ns = i64::MIN;
    }

    pub(super) fn heap_bytes(&self) -> usize {
        size_of_val(&*self.points)
    }

    #[inline]
    pub(super) fn next(&mut self, value: f64, now_ns: i64) -> f64 {
        if now_ns >= self.bucket_end_ns || self.end == 0 {
            let start_ns = on_grid(now_ns, self.bucket_ns);
            self.bucket_end_ns = start_ns.saturating_add(self.bucket_ns);
            // The start of the running bucket minus the window is on the grid.
            self.from_ns = start_ns.saturating_sub(self.window_ns);
            while self.first + 1 < self.end
                && self.points[(self.first + 1) % POINT_COUNT].0 < self.from_ns
            {
                self.first += 1;
            }
            assert!(
                self.end - self.first < POINT_COUNT,
                "Invariant: a lag holds at most a value a bucket"
            );
            self.points[self.end % POINT_COUNT] = (start_ns, value);
            self.end += 1;
        } else {
            self.points[(self.end - 1) % POINT_COUNT].1 = value;
        }
        let (start_ns, past) = self.points[self.first % POINT_COUNT];
        if start_ns < self.from_ns && !value.is_nan() {
            past
        } else {
            f64::NAN
        }
    }
}

/// The value some numbers ago.
#[derive(Debug, Clone)]
pub(super) struct EventLag {
    values: Box<[f64]>,
    place: usize,
}

impl EventLag {
    pub(super) fn new(count: u32) -> Self {
        Self {
            values: vec![f64::NAN; count as usize].into_boxed_slice(),
            place: 0,
        }
    }

    pub(super) fn reset(&mut self) {
        self.values.fill(f64::NAN);
        self.place = 0;
    }

    pub(super) fn heap_bytes(&self) -> usize {
        size_of_val(&*self.values)
    }

    #[inline]
    pub(super) fn next(&mut self, value: f64) -> f64 {
        if value.is_nan() {
            return f64::NAN;
        }
        let past = std::mem::replace(&mut self.values[self.place], value);
        self.place += 1;
        if self.place == self.values.len() {
            self.place = 0;
        }
        past
    }
}

/// When something exponential has seen enough.
#[derive(Debug, Clone, Copy)]
pub(super) enum WarmUp {
    /// After this time, ns.
    Time(i64),
    /// After this many numbers.
    Events(u32),
}

/// Counts towards [`WarmUp`].
#[derive(Debug, Clone, Copy)]
struct Seen {
    warm_up: WarmUp,
    started_ns: Option<i64>,
    count: u32,
}

impl Seen {
    fn number(&mut self, now_ns: i64) -> bool {
        let started_ns = *self.started_ns.get_or_insert(now_ns);
        self.count = self.count.saturating_add(1);
        match self.warm_up {
            WarmUp::Time(ns) => now_ns.saturating_sub(started_ns) >= ns,
            WarmUp::Events(count) => self.count >= count,
        }
    }
}

/// Exponential mean. In time it moves to the value that was in force; in events to the new one.
#[derive(Debug, Clone)]
pub(super) struct Ema {
    seen: Seen,
    mean: f64,
    in_force: f64,
}

impl Ema {
    pub(super) fn new(warm_up: WarmUp) -> Self {
        Self {
            seen: Seen {
                warm_up,
                started_ns: None,
                count: 0,
            },
            mean: f64::NAN,
            in_force: f64::NAN,
        }
    }

    pub(super) fn reset(&mut self) {
        *self = Self::new(self.seen.warm_up);
    }

    /// `kept` is what is left of the old mean since the last record.
    #[inline]
    pub(super) fn next(&mut self, value: f64, now_ns: i64, kept: f64) -> f64 {
        let target = match self.seen.warm_up {
            WarmUp::Time(_) => std::mem::replace(&mut self.in_force, value),
            WarmUp::Events(_) => value,
        };
        if !target.is_nan() && !self.mean.is_nan() {
            self.mean = target + (self.mean - target) * kept;
        }
        if value.is_nan() {
            return f64::NAN;
        }
        // A mean that overflowed starts over, like one that never was.
        if !self.mean.is_finite() {
            self.mean = value;
        }
        if self.seen.number(now_ns) {
            self.mean
        } else {
            f64::NAN
        }
    }
}

/// Sum in which every value fades.
#[derive(Debug, Clone)]
pub(super) struct FadingSum {
    seen: Seen,
    sum: f64,
}

impl FadingSum {
    pub(super) fn new(warm_up: WarmUp) -> Self {
        Self {
            seen: Seen {
                warm_up,
                started_ns: None,
                count: 0,
            },
            sum: 0.0,
        }
    }

    pub(super) fn reset(&mut self) {
        *self = Self::new(self.seen.warm_up);
    }

    /// `kept` is what is left of the old sum since the last record.
    #[inline]
    pub(super) fn next(&mut self, value: f64, now_ns: i64, kept: f64) -> f64 {
        match self.seen.warm_up {
            WarmUp::Time(_) => self.sum *= kept,
            WarmUp::Events(_) if value.is_nan() => {}
            WarmUp::Events(_) => self.sum *= kept,
        }
        if value.is_nan() {
            return f64::NAN;
        }
        self.sum += value;
        if !self.sum.is_finite() {
            self.sum = 0.0;
        }
        if self.seen.number(now_ns) {
            self.sum
        } else {
            f64::NAN
        }
    }
}

/// `exp(-elapsed / constant)`, both in the same unit.
pub(super) fn kept(elapsed: f64, constant: f64) -> f64 {
    math::exp(-elapsed / constant)
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

impl Ema {
    fn heap_bytes(&self) -> usize {
        0
    }
}

impl FadingSum {
    fn heap_bytes(&self) -> usize {
        0
    }
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
