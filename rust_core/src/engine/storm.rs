//! The storm guard inside the engine: what it is told, what its changes do, and what is written.
//!
//! Why: whatever restricts trading must follow from records, so that a replay restricts the same.
//!
//! Invariants:
//! 1. Whatever a record does to an input is looked at before an alpha decides on that record: the
//!    first record behind a gap is decided under the gap, the third reject under three rejects.
//! 2. Every change of the guard and of the policy is a decision record with verdict `NOTED`.
//! 3. While halted, every order approved before the halt is canceled as soon as it is known to
//!    work (the ticket): also one that was on its way when the halt came.
//! 4. Nothing here allocates after construction.
//!
//! It measures no wall time: what the engine cannot see comes as a `Health` record. Operator's
//! page: `docs/storm-guard.md`.

use super::config::{EngineConfig, PhaseWindow};
use super::policy::ALL_ALPHAS;
use super::{Engine, steps::NOTED, steps::SOURCE_RUNTIME};
use crate::gateway::{
    Money, OPEN_COUNT_MAX, Order, OrderState, PolicyState, Request, order_number, passes,
    policy_state,
};
use crate::reason::ReasonCode;
use crate::record::{
    ActionKind, BrokerEventKind, BrokerRecord, DecisionRecord, HealthKind, HealthRecord,
    IntentReason, Record, RecordHeader, RecordType,
};
use crate::risk::{TimeWindow, WINDOW_COUNT_MAX};
use crate::storm_guard::{Change, Input, Level, StormGuard, StormState};
use crate::strategy::REST_OF_DAY;

/// Parts of the risk capital.
const BPS: Money = 10_000;
/// Requests without an answer: a place and a cancel for every open order.
const TRIP_COUNT_MAX: usize = 2 * OPEN_COUNT_MAX;

/// A request that waits for its first answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Trip {
    order_id: u64,
    is_cancel: bool,
    sent_ns: i64,
}

/// Reconciliation reports of one instrument, counted in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Drift {
    /// With another position.
    drifted: u32,
    /// Without an answer of the broker.
    unasked: u32,
}

/// What the engine keeps to tell the guard.
#[derive(Debug, Clone)]
pub(super) struct Watch {
    pub(super) guard: StormGuard,
    /// Stretches in which some phase is open, in time order.
    parts: Vec<(i64, i64)>,
    /// The first of them that has not ended.
    part: usize,
    last_market_ns: Option<i64>,
    trips: Vec<Trip>,
    last_rtt: Option<(i64, i64)>,
    failures: TimeWindow,
    unreadable: TimeWindow,
    /// Epoch of the market in which an alpha's signal was last a number.
    numbers: Box<[Option<u64>]>,
    drifts: Box<[Drift]>,
    /// Best net result of the account.
    peak: Money,
    /// A fall below this, in bps times the risk capital, is clear.
    clear_fall: Money,
    /// Some position was valued anew.
    pub(super) is_marked: bool,
    /// A change that waits to be written.
    pub(super) pending: Option<Change>,
    policy: PolicyState,
    /// What `policy` was made of.
    policy_of: (bool, bool, StormState),
    policy_code: ReasonCode,
    policy_since_ns: i64,
    /// Orders with a lower number were approved before the halt.
    halt_ticket: Option<u64>,
}

/// Neighbouring windows are one stretch.
fn stretches(phases: &[PhaseWindow]) -> Vec<(i64, i64)> {
    let mut parts: Vec<(i64, i64)> = Vec::with_capacity(phases.len());
    for window in phases {
        match parts.last_mut() {
            Some(last) if last.1 == window.start_ns => last.1 = window.end_ns,
            _ => parts.push((window.start_ns, window.end_ns)),
        }
    }
    parts
}

impl Watch {
    pub(super) fn new(config: &EngineConfig) -> Self {
        let storm = &config.storm_guard;
        Self {
            guard: StormGuard::new(*storm),
            parts: stretches(&config.session.phases),
            part: 0,
            last_market_ns: None,
            trips: Vec::with_capacity(TRIP_COUNT_MAX),
            last_rtt: None,
            failures: TimeWindow::new(storm.failure_window_ns),
            unreadable: TimeWindow::new(storm.failure_window_ns),
            numbers: vec![None; config.alphas.len()].into_boxed_slice(),
            drifts: vec![Drift::default(); config.instruments.len()].into_boxed_slice(),
            peak: 0,
            clear_fall: Money::from(storm.drawdown_bps.lowest())
                .saturating_mul(Money::from(storm.risk_capital)),
            is_marked: false,
            pending: None,
            policy: PolicyState::Normal,
            policy_of: (false, false, StormState::Normal),
            policy_code: ReasonCode::Unset,
            policy_since_ns: 0,
            halt_ticket: None,
        }
    }

    /// How long the feed has been silent; `None` while nobody expects it to speak.
    fn feed_gap_ns(&mut self, now_ns: i64) -> Option<i64> {
        while self
            .parts
            .get(self.part)
            .is_some_and(|part| part.1 <= now_ns)
        {
            self.part += 1;
        }
        let (start_ns, _) = *self.parts.get(self.part)?;
        if now_ns < start_ns.saturating_add(self.guard.config().open_grace_ns) {
            return None;
        }
        let last_ns = self.last_market_ns.unwrap_or(start_ns).max(start_ns);
        Some(now_ns.saturating_sub(last_ns))
    }

    /// The feed is known to have spoken until now: what follows is a gap of the restart.
    pub(super) fn resume_feed(&mut self, now_ns: i64) {
        self.last_market_ns = Some(now_ns);
    }

    /// A request left.
    pub(super) fn sent(&mut self, order_id: u64, is_cancel: bool, now_ns: i64) {
        if self.trips.len() < TRIP_COUNT_MAX {
            self.trips.push(Trip {
                order_id,
                is_cancel,
                sent_ns: now_ns,
            });
        }
    }

    /// An order's event came; it answers the requests that it can answer.
    pub(super) fn answered(&mut self, record: &BrokerRecord, order: &Order, now_ns: i64) {
        let is_final = !order.state.is_open()
            || [
                BrokerEventKind::Canceled as u32,
                BrokerEventKind::CancelRejected as u32,
                BrokerEventKind::Unknown as u32,
            ]
            .contains(&record.event_kind);
        let mut slowest_ns = None;
        self.trips.retain(|trip| {
            let is_answer = trip.order_id == order.order_id && (!trip.is_cancel || is_final);
            if is_answer {
                slowest_ns = slowest_ns.max(Some(now_ns.saturating_sub(trip.sent_ns)));
            }
            !is_answer
        });
        if let Some(rtt_ns) = slowest_ns {
            self.note_rtt(rtt_ns, now_ns);
        }
    }

    fn note_rtt(&mut self, rtt_ns: i64, now_ns: i64) {
        self.last_rtt = Some((rtt_ns, now_ns));
        self.look_at_rtt(now_ns);
    }

    /// The slower of the last answer, while it counts, and the oldest request still waiting.
    fn look_at_rtt(&mut self, now_ns: i64) {
        let window_ns = self.guard.config().failure_window_ns;
        self.last_rtt = self
            .last_rtt
            .filter(|(_, at_ns)| now_ns.saturating_sub(*at_ns) < window_ns);
        let waiting_ns = self
            .trips
            .first()
            .map_or(0, |trip| now_ns.saturating_sub(trip.sent_ns));
        let answered_ns = self.last_rtt.map_or(0, |(rtt_ns, _)| rtt_ns);
        self.guard
            .observe(Input::OrderRtt, waiting_ns.max(answered_ns));
    }

    /// The usual record: all is clear, and no time has passed that could change that.
    fn is_quiet(&self, now_ns: i64) -> bool {
        let is_below = |since_ns: i64, input: Input| {
            now_ns.saturating_sub(since_ns) < self.guard.lowest(input)
        };
        let hears = |last_ns: i64| is_below(last_ns, Input::FeedGap);
        let answers = |trip: &Trip| is_below(trip.sent_ns, Input::OrderRtt);
        self.guard.is_calm()
            && self.last_market_ns.is_some_and(hears)
            && self.trips.first().is_none_or(answers)
    }

    /// Everything that changes by time alone.
    fn look_at_time(&mut self, now_ns: i64) {
        let gap_ns = self.feed_gap_ns(now_ns).unwrap_or(0);
        self.guard.observe(Input::FeedGap, gap_ns);
        if !self.trips.is_empty() || self.last_rtt.is_some() {
            self.look_at_rtt(now_ns);
        }
        for (input, window) in [
            (Input::FeatureFailures, &mut self.failures),
            (Input::NormaliserFailures, &mut self.unreadable),
        ] {
            if self.guard.input(input).0 != Level::Clear {
                self.guard.observe(input, i64::from(window.count(now_ns)));
            }
        }
    }

    /// An alpha was evaluated to a number.
    pub(super) fn note_number(&mut self, alpha_index: usize, epoch: u64) {
        self.numbers[alpha_index] = Some(epoch);
    }

    /// An alpha was evaluated to no number on a good book: a failure, if it was one before.
    pub(super) fn note_failure(&mut self, alpha_index: usize, epoch: u64, now_ns: i64) {
        if self.numbers[alpha_index].take() == Some(epoch) {
            self.failures.push(now_ns);
            let count = i64::from(self.failures.count(now_ns));
            self.guard.observe(Input::FeatureFailures, count);
        }
    }

    fn note_drift(&mut self, market_index: usize, is_asked: bool, difference: i64) {
        let row = &mut self.drifts[market_index];
        *row = match (is_asked, difference) {
            (true, 0) => Drift::default(),
            (true, _) => Drift {
                drifted: row.drifted.saturating_add(1),
                unasked: 0,
            },
            // No answer is not "flat": it clears nothing.
            (false, _) => Drift {
                unasked: row.unasked.saturating_add(1),
                ..*row
            },
        };
        // Silence of the broker degrades; only another position may halt.
        let unasked_max = self
            .guard
            .config()
            .drift_reports
            .halt_in
            .map_or(i64::MAX, |limit| limit - 1);
        let value = self
            .drifts
            .iter()
            .map(|row| i64::from(row.drifted).max(i64::from(row.unasked).min(unasked_max)))
            .max();
        self.guard.observe(Input::Drift, value.unwrap_or(0));
    }

    fn note_unreadable(&mut self, count: i64, now_ns: i64) {
        for _ in 0..usize::try_from(count)
            .unwrap_or(WINDOW_COUNT_MAX)
            .min(WINDOW_COUNT_MAX)
        {
            self.unreadable.push(now_ns);
        }
        let count = i64::from(self.unreadable.count(now_ns));
        self.guard.observe(Input::NormaliserFailures, count);
    }
}

/// Where the guard and the policy stand, for status and summaries.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StormReport {
    /// The guard.
    pub storm: StormState,
    /// Since when, engine time; 0 before its first change.
    pub storm_since_ns: i64,
    /// What brought it there.
    pub storm_cause: Option<Input>,
    /// The policy.
    pub policy: PolicyState,
    /// Since when, engine time; 0 before its first change.
    pub policy_since_ns: i64,
    /// Why.
    pub policy_code: ReasonCode,
    /// How often each state of the guard was entered.
    pub entered: [u64; 4],
    /// Level and last value of every input, in the order of [`Input::ALL`].
    pub inputs: [(Level, i64); crate::storm_guard::INPUT_COUNT],
}

impl Engine {
    /// Before a record is decided: what time alone has done.
    #[inline]
    pub(super) fn watch_before(&mut self, header: &RecordHeader, out: &mut Vec<DecisionRecord>) {
        let now_ns = header.sequence_time_ns;
        if !self.watch.is_quiet(now_ns) {
            self.watch_time(header, out);
        }
        let is_market = header.record_type == RecordType::Book as u8
            || header.record_type == RecordType::Trade as u8;
        if is_market {
            self.watch.last_market_ns = Some(now_ns);
        }
    }

    #[cold]
    fn watch_time(&mut self, header: &RecordHeader, out: &mut Vec<DecisionRecord>) {
        let now_ns = header.sequence_time_ns;
        self.watch.look_at_time(now_ns);
        if self.watch.guard.input(Input::RejectRate).0 != Level::Clear {
            self.watch_rejects(now_ns);
        }
        self.step_guard(header, out);
    }

    /// Behind a record: what it did to the account, to orders and to the policy.
    #[inline]
    pub(super) fn watch_after(&mut self, header: &RecordHeader, out: &mut Vec<DecisionRecord>) {
        self.watch_marks(header, out);
        self.note_policy(header, out);
        if self.watch.halt_ticket.is_some() {
            self.sweep(header, out);
        }
    }

    /// Before an alpha decides: what a new mark, a report or a signal asks for.
    #[inline]
    pub(super) fn watch_marks(&mut self, header: &RecordHeader, out: &mut Vec<DecisionRecord>) {
        if std::mem::take(&mut self.watch.is_marked) {
            self.watch_drawdown();
        }
        self.step_guard(header, out);
    }

    /// Writes that a loss limit was reached, once: a restart must not forget it.
    pub(super) fn note_latches(
        &mut self,
        alpha_index: usize,
        header: &RecordHeader,
        out: &mut Vec<DecisionRecord>,
    ) {
        let alpha = &mut self.alphas[alpha_index];
        if let Some(code) = alpha.loss_latch.filter(|_| !alpha.is_latch_noted) {
            alpha.is_latch_noted = true;
            let number = alpha.config.alpha_index;
            let mut note = self.blank_note(header, ActionKind::LossLatch, code);
            note.alpha_index = number;
            self.write(note, out);
        }
        if let Some(code) = self.account.take_unnoted_latch() {
            let note = self.blank_note(header, ActionKind::LossLatch, code);
            self.write(note, out);
        }
    }

    pub(super) fn watch_rejects(&mut self, now_ns: i64) {
        let count = i64::from(self.rejects.count(now_ns));
        self.watch.guard.observe(Input::RejectRate, count);
    }

    /// Fall of the account from its best result, in bps times the risk capital.
    fn fall(&self) -> Money {
        let net = self.net();
        self.watch
            .peak
            .max(net)
            .saturating_sub(net)
            .saturating_mul(BPS)
    }

    fn net(&self) -> Money {
        self.alphas.iter().fold(0, |sum: Money, alpha| {
            sum.saturating_add(alpha.position.net())
        })
    }

    fn drawdown_bps(&self) -> i64 {
        let bps = self.fall() / Money::from(self.config.storm_guard.risk_capital);
        i64::try_from(bps).unwrap_or(i64::MAX)
    }

    fn watch_drawdown(&mut self) {
        self.watch.peak = self.watch.peak.max(self.net());
        // Most marks are far from any threshold, and need no division to say so.
        let is_clear = self.watch.guard.input(Input::Drawdown).0 == Level::Clear;
        if !is_clear || self.fall() >= self.watch.clear_fall {
            let value = self.drawdown_bps();
            self.watch.guard.observe(Input::Drawdown, value);
        }
    }

    #[inline]
    fn step_guard(&mut self, header: &RecordHeader, out: &mut Vec<DecisionRecord>) {
        if !self.watch.guard.is_calm() {
            self.step_restless_guard(header, out);
        }
    }

    #[cold]
    fn step_restless_guard(&mut self, header: &RecordHeader, out: &mut Vec<DecisionRecord>) {
        let Some(change) = self.watch.guard.step(header.sequence_time_ns) else {
            return;
        };
        self.watch.pending = Some(change);
        if change.to == StormState::Halt {
            self.policy
                .halt(change.cause.code(), header.sequence_time_ns);
        }
        self.note_policy(header, out);
        if change.to >= StormState::Storm && change.to > change.from {
            // Also alphas that this record is not about take their opening orders back. A state
            // is entered upwards three times at most, so this ends.
            self.decide_all(header, out);
        }
    }

    /// Writes what changed: the guard's state first, then the policy's.
    #[inline]
    pub(super) fn note_policy(&mut self, header: &RecordHeader, out: &mut Vec<DecisionRecord>) {
        if self.watch.pending.is_some() || self.policy_of() != self.watch.policy_of {
            self.write_policy(header, out);
        }
    }

    #[cold]
    fn write_policy(&mut self, header: &RecordHeader, out: &mut Vec<DecisionRecord>) {
        if let Some(change) = self.watch.pending {
            self.watch.pending = None;
            self.counters.count_change(change.cause.code());
            let mut note = self.blank_note(header, ActionKind::StormChange, change.cause.code());
            note.time_in_force = change.from as u32;
            note.intent_reason = change.to as u32;
            note.observed = change.value;
            note.limit = change.limit;
            self.write(note, out);
        }
        let of = self.policy_of();
        if of == self.watch.policy_of {
            return;
        }
        self.watch.policy_of = of;
        let (is_halted, is_reduce_only, storm) = of;
        let state = policy_state(is_halted, is_reduce_only, storm);
        if state == self.watch.policy {
            return;
        }
        let storm_code = self.watch.guard.cause().map(Input::code);
        let code = match state {
            PolicyState::Halt => self.policy.halted.map(|(code, _)| code),
            PolicyState::Degraded if storm >= StormState::Storm => storm_code,
            PolicyState::Degraded => self.policy.reduce_only_by.map(|(code, _)| code),
            // What had restricted until now.
            PolicyState::Normal => Some(self.watch.policy_code),
        };
        let code = code.unwrap_or(ReasonCode::ReduceOnlyOn);
        self.counters.count_change(code);
        let mut note = self.blank_note(header, ActionKind::PolicyChange, code);
        note.time_in_force = self.watch.policy as u32;
        note.intent_reason = state as u32;
        self.write(note, out);
        self.watch.policy = state;
        self.watch.policy_code = code;
        self.watch.policy_since_ns = header.sequence_time_ns;
        self.watch.halt_ticket = (state == PolicyState::Halt).then(|| self.gateway.ticket());
    }

    /// What the policy follows from.
    fn policy_of(&self) -> (bool, bool, StormState) {
        (
            self.policy.halted.is_some(),
            self.policy.is_reduce_only,
            self.watch.guard.state(),
        )
    }

    /// The second path of the policy: holds an approval against the table, however the checks came
    /// to it.
    pub(super) fn assert_passes(&self, request: Request) {
        let (is_halted, is_reduce_only, storm) = self.policy_of();
        assert!(
            passes(policy_state(is_halted, is_reduce_only, storm), request),
            "Invariant: nothing is approved that the policy does not pass"
        );
    }

    /// A note: about no alpha, no order and no instrument.
    fn blank_note(
        &self,
        cause: &RecordHeader,
        action: ActionKind,
        code: ReasonCode,
    ) -> DecisionRecord {
        let mut note = DecisionRecord::empty();
        note.header.input_seq = cause.input_seq;
        note.header.exchange_time_ns = cause.exchange_time_ns;
        note.header.receive_time_ns = cause.receive_time_ns;
        note.header.sequence_time_ns = cause.sequence_time_ns;
        note.header.source_id = SOURCE_RUNTIME;
        note.header.trading_day = self.config.session.trading_day;
        note.alpha_index = ALL_ALPHAS;
        note.action = action as u32;
        note.verdict = NOTED;
        note.reason_code = u32::from(code.code());
        note
    }

    /// Takes back what was approved before the halt and is known to work.
    #[cold]
    fn sweep(&mut self, header: &RecordHeader, out: &mut Vec<DecisionRecord>) {
        let ticket = self.watch.halt_ticket.unwrap_or(0);
        for rank in 0..OPEN_COUNT_MAX {
            let Some(order) = self.gateway.open_order(rank).copied() else {
                return;
            };
            let alpha_index = order.alpha_index as usize;
            let is_due = order_number(order.order_id) < ticket
                && order.state == OrderState::Working
                && order.time_in_force == REST_OF_DAY
                && alpha_index < self.alphas.len();
            if is_due {
                let reason = IntentReason::HaltCancel;
                self.take_cancel(alpha_index, order.order_id, reason, header, out);
            }
        }
    }

    /// Takes a report of the runtime.
    ///
    /// # Errors
    /// The code of what is wrong with it; it changed nothing.
    pub(super) fn on_health(
        &mut self,
        header: &RecordHeader,
        record: &HealthRecord,
    ) -> Result<(), ReasonCode> {
        let now_ns = header.sequence_time_ns;
        let kind = record.health_kind;
        if kind == HealthKind::Drift as u64 {
            let market_index = self.market_index(header.instrument_id)?;
            if !(0..=1).contains(&record.argument) {
                return Err(ReasonCode::SchemaMismatch);
            }
            self.watch
                .note_drift(market_index, record.argument == 0, record.value);
            return Ok(());
        }
        if record.value < 0 {
            return Err(ReasonCode::ValueOutOfRange);
        }
        match kind {
            kind if kind == HealthKind::LoopLag as u64 => {
                self.watch.guard.observe(Input::LoopLag, record.value);
            }
            kind if kind == HealthKind::OrderRtt as u64 => {
                self.watch.note_rtt(record.value, now_ns)
            }
            kind if kind == HealthKind::NormaliserFailures as u64 => {
                self.watch.note_unreadable(record.value, now_ns);
            }
            _ => return Err(ReasonCode::SchemaMismatch),
        }
        Ok(())
    }

    /// Why an account's latch cannot be lifted now.
    pub(super) fn does_cause_remain(&self) -> bool {
        let is_lost = self.policy.has_lost_track;
        self.watch.guard.asked() == Level::Halt || (is_lost && self.gateway.has_unknown())
    }

    /// The guard's cause while it keeps orders from opening.
    pub(super) fn storm_fault(&self) -> Option<ReasonCode> {
        let guard = &self.watch.guard;
        (guard.state() >= StormState::Storm)
            .then(|| guard.cause().map_or(ReasonCode::StormGuardOn, Input::code))
    }

    /// Takes a change from a log: where the guard or the policy stood when it was written.
    pub(super) fn restore_change(&mut self, note: &DecisionRecord) {
        let now_ns = note.header.sequence_time_ns;
        let code = u16::try_from(note.reason_code)
            .ok()
            .and_then(ReasonCode::from_code);
        let code = code.unwrap_or(ReasonCode::KillSwitchOn);
        if note.action == ActionKind::StormChange as u32 {
            let state = StormState::from_code(note.intent_reason).unwrap_or(StormState::Halt);
            self.watch
                .guard
                .restore(state, Input::from_code(code), now_ns);
            return;
        }
        let state = PolicyState::from_code(note.intent_reason).unwrap_or(PolicyState::Halt);
        self.watch.policy = state;
        self.watch.policy_code = code;
        self.watch.policy_since_ns = now_ns;
        match state {
            PolicyState::Halt => self.policy.halt(code, now_ns),
            PolicyState::Degraded => {
                self.policy.halted = None;
                if Input::from_code(code).is_none() {
                    self.policy.reduce_only(code, now_ns);
                }
            }
            PolicyState::Normal => self.policy.lift(),
        }
        self.watch.policy_of = self.policy_of();
        self.watch.halt_ticket = (state == PolicyState::Halt).then(|| self.gateway.ticket());
    }

    /// Where guard and policy stand.
    #[must_use]
    pub fn storm_report(&self) -> StormReport {
        let guard = &self.watch.guard;
        let mut inputs = Input::ALL.map(|input| guard.input(input));
        // These two are not looked at while they are clear.
        inputs[Input::Drawdown as usize].1 = self.drawdown_bps();
        if let Some(last_ns) = self.watch.last_market_ns {
            inputs[Input::FeedGap as usize].1 = self.last_time_ns.saturating_sub(last_ns);
        }
        StormReport {
            storm: guard.state(),
            storm_since_ns: guard.since_ns(),
            storm_cause: guard.cause(),
            policy: self.watch.policy,
            policy_since_ns: self.watch.policy_since_ns,
            policy_code: self.watch.policy_code,
            entered: guard.entered(),
            inputs,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first surprise")]
mod tests {
    use super::*;
    use crate::engine::steps::{APPROVED, tests::CONFIG};
    use crate::gateway::NewOrder;
    use crate::record::{CommandKind, CommandRecord};

    fn feed<R: Record>(engine: &mut Engine, seq: u64, mut record: R) -> Vec<DecisionRecord> {
        record.header_mut().input_seq = seq;
        record.header_mut().sequence_time_ns = i64::try_from(seq).unwrap();
        let (header, mut out) = (*record.header(), Vec::new());
        engine.on_record(&header, record.as_bytes(), &mut out);
        out.retain(|decision| decision.verdict == APPROVED);
        out
    }

    /// The ticket does not need a template's help: an order that rests for a taker, which never
    /// takes anything back by itself, is canceled; one approved behind the halt is not.
    #[test]
    fn the_sweep_takes_back_what_was_approved_before_the_halt_and_nothing_later() {
        let config = CONFIG.replace("\"action\":\"flatten\"", "\"action\":\"reduce_only\"");
        let config = config.replace("\"deadline_ns\":0", "\"deadline_ns\":1000000");
        let mut engine = Engine::from_json(&config).unwrap();
        let resting = NewOrder {
            intent_id: 1,
            alpha_index: 0,
            market_index: 0,
            side: 1,
            price: 100,
            qty: 1,
            time_in_force: REST_OF_DAY,
        };
        let working = |order_id| BrokerRecord {
            event_kind: BrokerEventKind::Working as u32,
            order_id,
            side: 1,
            ..BrokerRecord::empty()
        };
        let first = engine.gateway.place(&resting).unwrap();
        let on_its_way = engine.gateway.place(&resting).unwrap();
        assert!(feed(&mut engine, 1, working(first)).is_empty());
        let halt = CommandRecord {
            command_kind: CommandKind::Halt as u32,
            alpha_index: ALL_ALPHAS,
            ..CommandRecord::empty()
        };
        let canceled = feed(&mut engine, 2, halt);
        assert_eq!(canceled.len(), 1);
        assert_eq!(canceled[0].order_id, first);
        let later = engine.gateway.place(&resting).unwrap();
        let canceled = feed(&mut engine, 3, working(on_its_way));
        assert_eq!(canceled.len(), 1);
        assert_eq!(canceled[0].order_id, on_its_way);
        assert!(
            feed(&mut engine, 4, working(later)).is_empty(),
            "it passed the halt knowingly"
        );
    }

    #[test]
    fn neighbouring_windows_are_one_stretch() {
        let window = |start_ns, end_ns| PhaseWindow {
            start_ns,
            end_ns,
            phase: crate::engine::Phase::Open,
        };
        let phases = [window(0, 5), window(5, 9), window(10, 12)];
        assert_eq!(stretches(&phases), [(0, 9), (10, 12)]);
    }
}
