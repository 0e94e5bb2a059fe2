//! Values of a time, or of a number of values, ago.
//!
//! Why: a lag in time answers with what was in force then, by the grid of `window`.

use super::{BUCKET_COUNT, on_grid};

/// The value that was in force a time ago.
#[derive(Debug, Clone)]
pub(in crate::alpha) struct TimeLag {
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
    pub(in crate::alpha) fn new(window_ns: i64) -> Self {
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

    pub(in crate::alpha) fn reset(&mut self) {
        (self.first, self.end) = (0, 0);
        self.bucket_end_ns = i64::MIN;
    }

    pub(in crate::alpha) fn heap_bytes(&self) -> usize {
        size_of_val(&*self.points)
    }

    #[inline]
    pub(in crate::alpha) fn next(&mut self, value: f64, now_ns: i64) -> f64 {
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
pub(in crate::alpha) struct EventLag {
    values: Box<[f64]>,
    place: usize,
}

impl EventLag {
    pub(in crate::alpha) fn new(count: u32) -> Self {
        Self {
            values: vec![f64::NAN; count as usize].into_boxed_slice(),
            place: 0,
        }
    }

    pub(in crate::alpha) fn reset(&mut self) {
        self.values.fill(f64::NAN);
        self.place = 0;
    }

    pub(in crate::alpha) fn heap_bytes(&self) -> usize {
        size_of_val(&*self.values)
    }

    #[inline]
    pub(in crate::alpha) fn next(&mut self, value: f64) -> f64 {
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
