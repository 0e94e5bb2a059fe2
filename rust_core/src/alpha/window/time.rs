//! A window in time: runs of buckets on a grid of absolute time.
//!
//! Why: memory is a hundred buckets, however many records fall into them (invariant 2 of `window`).
//!
//! What it knows of the values is its `Aggregate`'s.

use super::aggregate::Aggregate;
use super::{BUCKET_COUNT, RUN_COUNT, WHOLE_BUCKETS, on_grid};

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
pub(in crate::alpha) struct TimeWindow<A: Aggregate> {
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
    pub(in crate::alpha) fn new(window_ns: i64) -> Self {
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

    pub(in crate::alpha) fn reset(&mut self) {
        self.started_ns = None;
        (self.first, self.middle, self.end) = (0, 0, 0);
        (self.behind, self.past, self.running) = (A::EMPTY, A::EMPTY, A::EMPTY);
    }

    pub(in crate::alpha) fn heap_bytes(&self) -> usize {
        size_of_val(&*self.runs) + size_of_val(&*self.following)
    }

    /// Takes the value of now; gives the window up to now, and `None` while there is no answer.
    #[inline]
    pub(in crate::alpha) fn next(&mut self, value: A::Value, now_ns: i64) -> Option<A> {
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
