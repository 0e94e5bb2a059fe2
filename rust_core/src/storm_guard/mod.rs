//! StormGuard: how rough the weather is, and what that allows.
//!
//! Why: one number must say "stop opening" and "stop", however many things can go wrong at once,
//! and it must neither flap nor calm down because nobody looked.
//!
//! Invariants:
//! 1. Every state, level and event has exactly one row in [`table::ROWS`].
//! 2. It escalates at once and to the level asked for; it calms one state at a time, after
//!    `clears` calm looks in a row and the cool-down since the last cause.
//! 3. A state that is entered again within its hold of having been left is kept for the hold:
//!    it is left at most once within a hold.
//! 4. HALT is left by a resume only, never into NORMAL, and not while its cause persists.
//! 5. A level is taken at its `_in` threshold and kept until the value is at or below `_out`.
//!
//! It reads no clock and blocks nothing (see `gateway::policy` and `risk`). Operator's page:
//! `docs/storm-guard.md`.

mod input;
mod table;

pub use input::{Band, INPUT_COUNT, Input, Level};
pub use table::{Event, ROWS, Row, StormState, next};

use serde::{Deserialize, Serialize};

/// Calm looks are counted at most this often: a burst of records is one look.
pub const CLEAR_SPACING_NS: i64 = 1_000_000_000;

/// Thresholds and times of one engine. No field has a default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StormConfig {
    /// Money that the drawdown is measured in parts of, scaled.
    pub risk_capital: i64,
    /// Fall of the account's net result from the session's best, in bps of `risk_capital`.
    pub drawdown_bps: Band,
    /// Time without any market record while a phase is open, ns.
    pub feed_gap_ns: Band,
    /// Lag of the runtime's loop as it reports it, ns.
    pub loop_lag_ns: Band,
    /// Time from a request to its first answer, ns.
    pub order_rtt_ns: Band,
    /// Broker rejects and unknown outcomes within 60 s.
    pub reject_count: Band,
    /// Reconciliation reports in a row that found another position than ours.
    pub drift_reports: Band,
    /// Signals that stopped being numbers on a good book, within `failure_window_ns`.
    pub feature_failures: Band,
    /// Payloads the normaliser could not read, within `failure_window_ns`.
    pub normaliser_failures: Band,
    /// Time behind the start of a session part in which a feed gap is not judged, ns.
    pub open_grace_ns: i64,
    /// Window of the failure counts, and how long a round trip counts, ns.
    pub failure_window_ns: i64,
    /// Calm looks in a row before a state is left.
    pub clears: u32,
    /// Time since the last cause before WARM is left, ns.
    pub cool_down_warm_ns: i64,
    /// Time since the last cause before STORM is left, ns.
    pub cool_down_storm_ns: i64,
    /// WARM entered again within this time of being left is kept this long, ns.
    pub hold_warm_ns: i64,
    /// STORM entered again within this time of being left is kept this long, ns.
    pub hold_storm_ns: i64,
    /// Longest time between the two steps of a resume, ns.
    pub resume_window_ns: i64,
}

impl StormConfig {
    /// The thresholds of an input.
    #[must_use]
    pub fn band(&self, input: Input) -> &Band {
        match input {
            Input::Drawdown => &self.drawdown_bps,
            Input::FeedGap => &self.feed_gap_ns,
            Input::LoopLag => &self.loop_lag_ns,
            Input::OrderRtt => &self.order_rtt_ns,
            Input::RejectRate => &self.reject_count,
            Input::Drift => &self.drift_reports,
            Input::FeatureFailures => &self.feature_failures,
            Input::NormaliserFailures => &self.normaliser_failures,
        }
    }

    fn cool_down_ns(&self, state: StormState) -> i64 {
        match state {
            StormState::Storm => self.cool_down_storm_ns,
            _ => self.cool_down_warm_ns,
        }
    }

    fn hold_ns(&self, state: StormState) -> i64 {
        match state {
            StormState::Storm => self.hold_storm_ns,
            _ => self.hold_warm_ns,
        }
    }
}

/// One change of state, with what caused it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// State before.
    pub from: StormState,
    /// State after.
    pub to: StormState,
    /// The input that asked for most when it happened, or last.
    pub cause: Input,
    /// Its value.
    pub value: i64,
    /// The threshold it was held against; 0 when it holds none.
    pub limit: i64,
    /// Label of the row.
    pub label: &'static str,
}

/// Number of states.
const STATE_COUNT: usize = 4;

/// The state machine with the memory its times need.
#[derive(Debug, Clone)]
pub struct StormGuard {
    config: StormConfig,
    state: StormState,
    since_ns: i64,
    cause: Option<Input>,
    levels: [Level; INPUT_COUNT],
    values: [i64; INPUT_COUNT],
    /// Highest of `levels`.
    asked: Level,
    /// The value below which each input is clear, as long as it is.
    lowest: [i64; INPUT_COUNT],
    clears: u32,
    last_clear_ns: i64,
    last_cause_ns: i64,
    /// Time since the last cause that the present state needs before it is left.
    wait_ns: i64,
    /// When each state was last left for a calmer one.
    left_ns: [Option<i64>; STATE_COUNT],
    entered: [u64; STATE_COUNT],
}

impl StormGuard {
    /// Calm.
    #[must_use]
    pub fn new(config: StormConfig) -> Self {
        Self {
            config,
            state: StormState::Normal,
            since_ns: 0,
            cause: None,
            levels: [Level::Clear; INPUT_COUNT],
            values: [0; INPUT_COUNT],
            asked: Level::Clear,
            lowest: Input::ALL.map(|input| config.band(input).lowest()),
            clears: 0,
            last_clear_ns: 0,
            last_cause_ns: 0,
            wait_ns: 0,
            left_ns: [None; STATE_COUNT],
            entered: [0; STATE_COUNT],
        }
    }

    /// Its config.
    #[must_use]
    pub fn config(&self) -> &StormConfig {
        &self.config
    }

    /// Where it is.
    #[must_use]
    pub fn state(&self) -> StormState {
        self.state
    }

    /// Since when, engine time; 0 before the first change.
    #[must_use]
    pub fn since_ns(&self) -> i64 {
        self.since_ns
    }

    /// What brought it to the present state, `None` while it was never anywhere else.
    #[must_use]
    pub fn cause(&self) -> Option<Input> {
        self.cause
    }

    /// Level and last value of an input.
    #[must_use]
    pub fn input(&self, input: Input) -> (Level, i64) {
        (self.levels[input as usize], self.values[input as usize])
    }

    /// True while it is NORMAL and every input is clear: nothing can change but by a new value.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        self.state == StormState::Normal && self.asked == Level::Clear
    }

    /// The value from which a clear input is no longer clear.
    #[must_use]
    pub fn lowest(&self, input: Input) -> i64 {
        self.lowest[input as usize]
    }

    /// Highest level any input asks for.
    #[must_use]
    pub fn asked(&self) -> Level {
        self.asked
    }

    /// How often each state was entered, in the order of their numbers.
    #[must_use]
    pub fn entered(&self) -> [u64; STATE_COUNT] {
        self.entered
    }

    /// Takes a measurement.
    pub fn observe(&mut self, input: Input, value: i64) {
        let place = input as usize;
        // The usual case of the hot path: calm, and still calm.
        if self.levels[place] == Level::Clear && value < self.lowest[place] {
            self.values[place] = value;
            return;
        }
        let level = self.config.band(input).level(self.levels[place], value);
        self.values[place] = value;
        if level != self.levels[place] {
            self.levels[place] = level;
            self.asked = self.levels.iter().copied().fold(Level::Clear, Level::max);
        }
    }

    /// Looks at the levels; `Some` when the state changed.
    pub fn step(&mut self, now_ns: i64) -> Option<Change> {
        if self.is_calm() {
            return None;
        }
        let is_cooled = self.is_cooled(now_ns);
        let event = if is_cooled {
            Event::Cooled
        } else {
            Event::Look
        };
        let row = next(self.state, self.asked, event);
        (row.next != self.state).then(|| self.enter(row, now_ns))
    }

    /// Second step of a resume.
    ///
    /// # Errors
    /// The input that still asks for HALT; nothing changed.
    pub fn resume(&mut self, now_ns: i64) -> Result<Option<Change>, Input> {
        let row = next(self.state, self.asked, Event::Resume);
        if row.next == StormState::Halt {
            return Err(self.loudest());
        }
        Ok((row.next != self.state).then(|| self.enter(row, now_ns)))
    }

    /// Takes back what a log says: the state it was in when the process ended.
    pub fn restore(&mut self, state: StormState, cause: Option<Input>, since_ns: i64) {
        self.state = state;
        self.since_ns = since_ns;
        self.cause = cause;
        self.clears = 0;
        self.last_cause_ns = since_ns;
        self.wait_ns = self.config.cool_down_ns(state);
    }

    /// The input that asks for most; the first in their order among equals.
    fn loudest(&self) -> Input {
        let is_loudest = |input: &&Input| self.levels[**input as usize] == self.asked;
        Input::ALL
            .iter()
            .find(is_loudest)
            .copied()
            .unwrap_or(Input::Drawdown)
    }

    /// Counts calm looks; true when there were enough and the last cause is long enough ago.
    fn is_cooled(&mut self, now_ns: i64) -> bool {
        if self.asked.state() >= self.state {
            self.clears = 0;
            self.last_cause_ns = now_ns;
            return false;
        }
        let since_clear_ns = now_ns.saturating_sub(self.last_clear_ns);
        if self.clears == 0 || since_clear_ns >= CLEAR_SPACING_NS {
            self.clears = self.clears.saturating_add(1);
            self.last_clear_ns = now_ns;
        }
        self.clears >= self.config.clears
            && now_ns.saturating_sub(self.last_cause_ns) >= self.wait_ns
    }

    fn enter(&mut self, row: &Row, now_ns: i64) -> Change {
        let (from, to) = (self.state, row.next);
        if to > from {
            self.cause = Some(self.loudest());
        }
        if to < from {
            self.left_ns[from as usize] = Some(now_ns);
        }
        let hold_ns = self.config.hold_ns(to);
        // From whichever side: a WARM on the way down from a STORM counts as well.
        let is_again = self.left_ns[to as usize]
            .is_some_and(|left_ns| now_ns.saturating_sub(left_ns) < hold_ns);
        let cool_down_ns = self.config.cool_down_ns(to);
        self.wait_ns = if is_again {
            cool_down_ns.max(hold_ns)
        } else {
            cool_down_ns
        };
        self.state = to;
        self.since_ns = now_ns;
        self.clears = 0;
        self.last_cause_ns = now_ns;
        self.entered[to as usize] += 1;
        let cause = self.cause.unwrap_or(Input::Drawdown);
        Change {
            from,
            to,
            cause,
            value: self.values[cause as usize],
            limit: self.config.band(cause).limit(to.max(from)),
            label: row.label,
        }
    }
}

#[cfg(test)]
mod tests;
