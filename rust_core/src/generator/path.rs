//! The price path of a session: when the book is published, where both best prices are, and the
//! hidden state behind them.
//!
//! Why: the edge of a generated market must be known exactly, so the mid is a martingale plus a
//! drift that only the hidden state decides; queues and prints hang on the path and never move it.
//!
//! Invariants:
//! 1. Given the state's path, the drift's mean over any interval is its integral, exactly.
//! 2. Without drift the mid's next move has mean zero given the hidden state: directions are fair
//!    coins, tilted only by queue ranks whose law does not depend on the state.
//! 3. Update times increase strictly and stay inside the session.
//!
//! It knows no quantities. Operator's page: `docs/generator.md`.

use super::params::{
    GeneratorError, GeneratorParams, MarketModel, SLOT_NS, SPREAD_TICKS_MAX, SessionTimes,
};
use super::rng::{Purpose, Rng};

const SECOND: f64 = 1e9;
const MILLISECOND_NS: i64 = 1_000_000;
/// Longest silence, slots (20 s).
const SLOTS_MAX: i64 = 160;
/// Activity stays within these factors of its mean.
const ACTIVITY_RANGE: (f64, f64) = (0.05, 12.0);
/// Largest probability that both sides move in one update.
const MOVE_PROBABILITY_MAX: f64 = 0.9;
/// Largest probability that a move goes one tick further.
const MOVE_CONTINUATION_MAX: f64 = 0.8;
/// Share of spread proposals of two ticks.
const SPREAD_TWO_TICKS: f64 = 0.2;
/// Lowest best bid: five levels with gaps fit above zero.
const BID_TICKS_MIN: i64 = 100;
/// Off-grid updates come up to this many milliseconds early.
const OFF_GRID_MS: u64 = 60;

/// One published book as the path sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Step {
    /// Exchange time, ns UTC, whole milliseconds.
    pub(super) exchange_time_ns: i64,
    /// Best bid, ticks.
    pub(super) bid: i64,
    /// Best ask, ticks.
    pub(super) ask: i64,
    /// Hidden state: -1, 0 or +1.
    pub(super) state: i64,
    /// Activity relative to its mean.
    pub(super) activity: f64,
    /// Rank in [0, 1) of a best bid queue drawn anew at this update.
    pub(super) bid_rank: Option<f64>,
    /// The same for the best ask queue.
    pub(super) ask_rank: Option<f64>,
    /// Integral of the drift since the session's first update, ticks.
    pub(super) drift_ticks: f64,
}

impl Step {
    /// Best bid plus best ask: twice the mid.
    pub(super) fn mid_twice(&self) -> i64 {
        self.bid + self.ask
    }
}

/// The hidden state: 0 half of the time, +1 and -1 a quarter each; left after exponential times.
#[derive(Debug)]
struct Hidden {
    state: i64,
    hold_ns: f64,
    switches_at_ns: f64,
}

impl Hidden {
    fn new(hold_s: f64, start_ns: i64, rng: &mut Rng) -> Self {
        let state = if rng.chance(0.5) { 0 } else { rng.sign(0.5) };
        let mut hidden = Self {
            state,
            hold_ns: hold_s * SECOND,
            switches_at_ns: 0.0,
        };
        hidden.switches_at_ns = since(start_ns, start_ns) + hidden.hold_ns * rng.exponential();
        hidden
    }

    /// Moves on to `end` and gives the integral of the state from `begin`, both ns since the start.
    fn integrate(&mut self, begin: f64, end: f64, rng: &mut Rng) -> f64 {
        let (mut sum, mut at) = (0.0, begin);
        while self.switches_at_ns <= end {
            sum += sign(self.state) * (self.switches_at_ns - at);
            at = self.switches_at_ns;
            self.state = if self.state == 0 { rng.sign(0.5) } else { 0 };
            self.switches_at_ns += self.hold_ns * rng.exponential();
        }
        sum + sign(self.state) * (end - at)
    }
}

/// Generates the steps of one session.
#[derive(Debug)]
pub(super) struct Path<'a> {
    model: &'a MarketModel,
    rng: Rng,
    times: SessionTimes,
    session_index: usize,
    updates_per_slot: f64,
    drift_per_ns: f64,
    end_ns: i64,
    slot_ns: i64,
    activity_fast: f64,
    activity_slow: f64,
    hidden: Hidden,
    spread: i64,
    ranks: (f64, f64),
    step: Option<Step>,
    opening_mid_twice: i64,
}

impl<'a> Path<'a> {
    /// The path of a session that opens at a mid.
    pub(super) fn new(
        params: &'a GeneratorParams,
        session_index: usize,
        opening_mid_twice: i64,
    ) -> Result<Self, GeneratorError> {
        let times = params.session(session_index)?;
        let model = &params.model;
        let mut rng = Rng::new(params.seed, session_index as u64, Purpose::Path);
        let hidden = Hidden::new(params.state_hold_s(), times.start_ns, &mut rng);
        let spread = stationary_spread(&model.spread_weights, &mut rng);
        #[allow(
            clippy::cast_possible_truncation,
            reason = "checked to be below a few seconds"
        )]
        let margin_ns =
            ((model.feed_delay_us + 20.0 * model.feed_jitter_us) * 1_000.0) as i64 + MILLISECOND_NS;
        Ok(Self {
            model,
            times,
            session_index,
            updates_per_slot: model.updates_per_slot * params.activity,
            drift_per_ns: params.drift_ticks_per_s(session_index) / SECOND,
            end_ns: times.end_ns - margin_ns,
            slot_ns: (times.start_ns + SLOT_NS - 1).div_euclid(SLOT_NS) * SLOT_NS,
            activity_fast: rng.normal(),
            activity_slow: rng.normal(),
            hidden,
            spread,
            ranks: (rng.uniform(), rng.uniform()),
            rng,
            step: None,
            opening_mid_twice,
        })
    }

    /// The next published book, or `None` at the session's end.
    pub(super) fn next_step(&mut self) -> Result<Option<Step>, GeneratorError> {
        let next = match self.step {
            None => self.first(),
            Some(last) => self.following(last),
        };
        if next.exchange_time_ns >= self.end_ns {
            return Ok(None);
        }
        if next.bid < BID_TICKS_MIN || next.ask > 2 * self.model.start_price_ticks {
            return Err(GeneratorError::PriceExhausted {
                ticks: next.bid,
                index: self.session_index,
            });
        }
        self.step = Some(next);
        Ok(Some(next))
    }

    fn first(&mut self) -> Step {
        let bid = (self.opening_mid_twice - self.spread).div_euclid(2);
        let begin = 0.0;
        let end = since(self.times.start_ns, self.slot_ns);
        let _before_first_book = self.hidden.integrate(begin, end, &mut self.rng);
        Step {
            exchange_time_ns: self.slot_ns,
            bid,
            ask: bid + self.spread,
            state: self.hidden.state,
            activity: self.activity(),
            bid_rank: Some(self.ranks.0),
            ask_rank: Some(self.ranks.1),
            drift_ticks: 0.0,
        }
    }

    fn following(&mut self, last: Step) -> Step {
        let exchange_time_ns = self.next_time();
        let activity = self.activity();
        let integral = self.hidden.integrate(
            since(self.times.start_ns, last.exchange_time_ns),
            since(self.times.start_ns, exchange_time_ns),
            &mut self.rng,
        ) * self.drift_per_ns;
        let drift = self.rng.round_fairly(integral);
        let jump = self.jump(activity);
        let (widened_bid, widened_ask) = self.change_spread();
        let both_move = drift != 0 || jump != 0;
        let refresh = self.model.queue_refresh;
        let mut rank =
            |moved: bool| (moved || self.rng.chance(refresh)).then(|| self.rng.uniform());
        let bid_rank = rank(both_move || widened_bid != 0);
        let ask_rank = rank(both_move || widened_ask != 0);
        self.ranks = (
            bid_rank.unwrap_or(self.ranks.0),
            ask_rank.unwrap_or(self.ranks.1),
        );
        Step {
            exchange_time_ns,
            bid: last.bid + drift + jump + widened_bid,
            ask: last.ask + drift + jump + widened_ask,
            state: self.hidden.state,
            activity,
            bid_rank,
            ask_rank,
            drift_ticks: last.drift_ticks + integral,
        }
    }

    /// Advances the slot grid and the activity; gives the stamp of the next update.
    fn next_time(&mut self) -> i64 {
        let due = self.updates_per_slot * self.activity();
        #[allow(
            clippy::cast_possible_truncation,
            reason = "positive; the cast saturates and is bounded next"
        )]
        let slots = 1 + ((self.rng.exponential() / due) as i64).min(SLOTS_MAX - 1);
        self.slot_ns += slots * SLOT_NS;
        #[allow(clippy::cast_precision_loss, reason = "at most 160 slots")]
        let seconds = (slots * SLOT_NS) as f64 / SECOND;
        self.activity_fast =
            self.remember(self.activity_fast, seconds / self.model.activity_fast_s);
        self.activity_slow =
            self.remember(self.activity_slow, seconds / self.model.activity_slow_s);
        let shift_ms = if self.rng.chance(self.model.off_grid_share) {
            -1 - i64::try_from(self.rng.below(OFF_GRID_MS)).unwrap_or(0)
        } else {
            match self.rng.below(10) {
                0 => -1,
                1 | 2 => 1,
                _ => 0,
            }
        };
        self.slot_ns + shift_ms * MILLISECOND_NS
    }

    /// One step of a standard Ornstein-Uhlenbeck process.
    fn remember(&mut self, value: f64, memories: f64) -> f64 {
        let kept = libm::exp(-memories);
        kept * value + (1.0 - kept * kept).sqrt() * self.rng.normal()
    }

    fn activity(&self) -> f64 {
        let (fast, slow) = (self.model.activity_fast_sd, self.model.activity_slow_sd);
        let log = fast * self.activity_fast + slow * self.activity_slow
            - 0.5 * (fast * fast + slow * slow);
        libm::exp(log).clamp(ACTIVITY_RANGE.0, ACTIVITY_RANGE.1)
    }

    /// A move of both sides, or 0.
    fn jump(&mut self, activity: f64) -> i64 {
        if !self
            .rng
            .chance((self.model.move_probability * activity).min(MOVE_PROBABILITY_MAX))
        {
            return 0;
        }
        let further = (self.model.move_continuation * activity.sqrt()).min(MOVE_CONTINUATION_MAX);
        let ticks = 1 + self.rng.geometric(further, self.model.move_ticks_max - 1);
        ticks * self.direction()
    }

    /// +1 or -1: a fair coin, tilted by the ranks of the best queues that the last book showed.
    fn direction(&mut self) -> i64 {
        self.rng
            .sign(0.5 + self.model.queue_pressure * (self.ranks.0 - self.ranks.1))
    }

    /// One Metropolis step of the spread; the direction decides which side moves.
    fn change_spread(&mut self) -> (i64, i64) {
        if !self.rng.chance(self.model.spread_change) {
            return (0, 0);
        }
        let ticks = if self.rng.chance(SPREAD_TWO_TICKS) {
            2
        } else {
            1
        };
        let wanted = self.spread + ticks * self.rng.sign(0.5);
        let weight = |spread: i64| {
            usize::try_from(spread - 1)
                .ok()
                .and_then(|at| self.model.spread_weights.get(at))
                .copied()
                .unwrap_or(0.0)
        };
        let accepted = weight(wanted) / weight(self.spread);
        if !self.rng.chance(accepted) {
            return (0, 0);
        }
        let change = wanted - self.spread;
        self.spread = wanted;
        if self.direction() == change.signum() {
            (0, change)
        } else {
            (-change, 0)
        }
    }
}

/// Twice the mid at which a session opens: the close of the one before, and so back to the first.
pub(super) fn opening_mid_twice(
    params: &GeneratorParams,
    session_index: usize,
) -> Result<i64, GeneratorError> {
    let mut mid_twice = 2 * params.model.start_price_ticks;
    for earlier in 0..session_index {
        let mut path = Path::new(params, earlier, mid_twice)?;
        while let Some(step) = path.next_step()? {
            mid_twice = step.mid_twice();
        }
    }
    Ok(mid_twice)
}

fn stationary_spread(weights: &[f64], rng: &mut Rng) -> i64 {
    let mut left = rng.uniform() * weights.iter().sum::<f64>();
    for (spread, weight) in (1..=SPREAD_TICKS_MAX as i64).zip(weights) {
        left -= weight;
        if left < 0.0 {
            return spread;
        }
    }
    1
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a session is at most a week: exact below 2^53 ns"
)]
fn since(start_ns: i64, time_ns: i64) -> f64 {
    (time_ns - start_ns) as f64
}

fn sign(state: i64) -> f64 {
    match state {
        0 => 0.0,
        up if up > 0 => 1.0,
        _ => -1.0,
    }
}
