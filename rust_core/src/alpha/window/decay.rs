//! Exponential means and fading sums, in time and in events.
//!
//! Why: what is remembered is one number, so it costs the same over any length.

use crate::math;

/// When something exponential has seen enough.
#[derive(Debug, Clone, Copy)]
pub(in crate::alpha) enum WarmUp {
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
pub(in crate::alpha) struct Ema {
    seen: Seen,
    mean: f64,
    in_force: f64,
}

impl Ema {
    pub(in crate::alpha) fn new(warm_up: WarmUp) -> Self {
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

    pub(in crate::alpha) fn heap_bytes(&self) -> usize {
        0
    }

    pub(in crate::alpha) fn reset(&mut self) {
        *self = Self::new(self.seen.warm_up);
    }

    /// `kept` is what is left of the old mean since the last record.
    #[inline]
    pub(in crate::alpha) fn next(&mut self, value: f64, now_ns: i64, kept: f64) -> f64 {
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
pub(in crate::alpha) struct FadingSum {
    seen: Seen,
    sum: f64,
}

impl FadingSum {
    pub(in crate::alpha) fn new(warm_up: WarmUp) -> Self {
        Self {
            seen: Seen {
                warm_up,
                started_ns: None,
                count: 0,
            },
            sum: 0.0,
        }
    }

    pub(in crate::alpha) fn heap_bytes(&self) -> usize {
        0
    }

    pub(in crate::alpha) fn reset(&mut self) {
        *self = Self::new(self.seen.warm_up);
    }

    /// `kept` is what is left of the old sum since the last record.
    #[inline]
    pub(in crate::alpha) fn next(&mut self, value: f64, now_ns: i64, kept: f64) -> f64 {
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
pub(in crate::alpha) fn kept(elapsed: f64, constant: f64) -> f64 {
    math::exp(-elapsed / constant)
}
