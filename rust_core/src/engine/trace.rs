//! Trace: what an intent met on its way through the steps, for people who ask afterwards.
//!
//! Why: the log says what was decided; an operator at night asks in which state and by which checks.
//! The engine is deterministic, so a replay of the session can be asked and the live one stays fast.
//!
//! Invariants:
//! 1. An engine traces only the record it was told to; without that an intent costs one branch.
//! 2. A trace changes no decision: it reads the engine and writes beside it.
//! 3. The first check that refuses is the one that the decision names.
//! 4. The causes shown give the mode that was in force.
//!
//! It judges nothing. Operator's page: `docs/live.md`.

use super::policy::{halt_mode, withdrawal_mode};
use super::steps::{OrderIntent, REFUSED};
use super::{BatchError, Engine, EngineConfig, Phase, Sequencer, StormReport, run_tape};
use crate::gateway::{Money, Order};
use crate::kernel::Kernels;
use crate::reason::ReasonCode;
use crate::record::{ActionKind, DecisionRecord, IntentReason, RecordType, Tape};
use crate::risk::{Applies, CHECKS, Check, Facts, Refusal, numbers};
use crate::storm_guard::StormState;
use crate::strategy::{Mode, Wanted};

/// One thing that asks for a mode; the strictest of them is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModeCause {
    /// What it is, in words.
    pub what: &'static str,
    /// Why, where a code says so.
    pub code: Option<ReasonCode>,
    /// Since when, engine time, where that is known.
    pub since_ns: Option<i64>,
    /// What it asks for.
    pub asks: Mode,
}

/// What an alpha's strategy stood on when it wished.
#[derive(Debug, Clone, PartialEq)]
pub struct StrategyState {
    /// What it was allowed.
    pub mode: Mode,
    /// Everything that asked for more than the normal mode, and the session's phase.
    pub causes: Vec<ModeCause>,
    /// The value it decided on.
    pub signal: f64,
    /// Signed position.
    pub position_qty: i64,
    /// Part of it that orders can trade: whole lots.
    pub tradable_qty: i64,
    /// Largest position at the current weight.
    pub position_qty_max: i64,
    /// One clip at the current weight.
    pub clip_qty: i64,
    /// Weight in force, ppm.
    pub weight_ppm: u64,
    /// How long the position has been held, ns; `None` without one.
    pub held_ns: Option<i64>,
    /// Net result of its session.
    pub net_pnl: Money,
    /// Fall from its best result.
    pub drawdown: Money,
    /// Why no order may be based on the book.
    pub book_fault: Option<ReasonCode>,
    /// Best prices shown, 0 where there is none.
    pub best: (i64, i64),
    /// Its open orders, oldest first.
    pub orders: Vec<Order>,
    /// What its template's rule came to; `None` where no template was asked.
    pub wanted: Option<Wanted>,
}

/// What a check had to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckResult {
    /// Nothing against it.
    Passed,
    /// It is not for orders of this kind.
    NotForThis,
    /// This.
    Refused(Refusal),
}

/// One row of the table of checks, for one intent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckRow {
    /// Name in the table.
    pub name: &'static str,
    /// Which orders it holds.
    pub applies: Applies,
    /// Codes it can give.
    pub codes: &'static [ReasonCode],
    /// Where its limit stands.
    pub limit_key: &'static str,
    /// What it asks.
    pub asks: &'static str,
    /// What it said.
    pub result: CheckResult,
    /// The value and its limit, where it holds one against the other, passed or not.
    pub numbers: Option<(i64, i64)>,
}

/// One intent of a record, in the order in which the engine took them.
#[derive(Debug, Clone)]
pub struct TracedIntent {
    /// Input that caused it.
    pub input_seq: u64,
    /// Whose it is.
    pub alpha_index: usize,
    /// Place or cancel.
    pub action: ActionKind,
    /// Its id; of a cancel, that of the order's intent.
    pub intent_id: u64,
    /// The order; 0 when none came of it.
    pub order_id: u64,
    /// Why it was wanted.
    pub reason: IntentReason,
    /// +1 buy, -1 sell.
    pub side: i64,
    /// Limit price.
    pub price: i64,
    /// Quantity.
    pub qty: i64,
    /// It cannot do anything but reduce a position.
    pub is_reducing: bool,
    /// What it was refused for.
    pub refusal: Option<Refusal>,
    /// The strategy.
    pub state: StrategyState,
    /// Every check, in order of precedence.
    pub checks: Vec<CheckRow>,
    /// Guard and policy.
    pub storm: StormReport,
    /// What was written out; `None` for a repeated refusal, which is only counted.
    pub decision: Option<DecisionRecord>,
}

/// What is collected while a record is decided.
#[derive(Debug, Default)]
pub(super) struct Trace {
    /// Alpha whose wishes are being taken, and what it saw.
    seen: Option<(usize, StrategyState)>,
    intents: Vec<TracedIntent>,
}

/// Checks of a cancel, which are not in the table.
const CANCEL_CHECKS: [CheckRow; 3] = [
    cancel_check(
        "cancel_order",
        &[ReasonCode::OrderUnknown, ReasonCode::OrderStateInvalid],
        "-",
        "is there an order of this alpha to take back",
    ),
    cancel_check(
        "cancel_phase",
        &[ReasonCode::CancelNotAllowed],
        "session.phases",
        "does the exchange take cancels now",
    ),
    cancel_check(
        "cancel_rate",
        &[ReasonCode::OrderRateAboveLimit],
        "account_limits.order_rate_max",
        "is the account within its hard rate",
    ),
];

const fn cancel_check(
    name: &'static str,
    codes: &'static [ReasonCode],
    limit_key: &'static str,
    asks: &'static str,
) -> CheckRow {
    CheckRow {
        name,
        applies: Applies::All,
        codes,
        limit_key,
        asks,
        result: CheckResult::Passed,
        numbers: None,
    }
}

/// Decides a session's inputs again up to the last of `input_seqs`, and tells of every intent of
/// those inputs. With the `order_log` of the processes before, the engine recovers from it first.
///
/// # Errors
/// [`BatchError`] when config or tape are wrong, or an input is missing.
pub fn explain_decisions(
    inputs: &[u8],
    config: &EngineConfig,
    input_seqs: &[u64],
    kernels: &Kernels,
    order_log: &[u8],
) -> Result<Vec<TracedIntent>, BatchError> {
    let mut engine = Engine::with_kernels(config.clone(), kernels)?;
    engine.recover(order_log)?;
    let mut sequencer = Sequencer::default();
    let mut wanted = input_seqs.to_vec();
    wanted.sort_unstable();
    let last = wanted.last().copied().unwrap_or(0);
    let (mut out, mut found) = (Vec::new(), Vec::new());
    for item in Tape::new(inputs) {
        let (header, bytes) = item?;
        if header.record_type == RecordType::Decision as u8 {
            continue;
        }
        if header.input_seq > last {
            break;
        }
        if wanted.binary_search(&header.input_seq).is_ok() {
            engine.trace_next();
        }
        out.clear();
        run_tape(&mut engine, &mut sequencer, bytes, true, &mut out)?;
        found.extend(engine.take_trace(header.input_seq, &out));
    }
    Ok(found)
}

impl Engine {
    /// Traces from here until [`Engine::take_trace`].
    fn trace_next(&mut self) {
        self.trace = Some(Box::default());
    }

    /// Ends a trace; every intent gets the decision that was written about it.
    fn take_trace(&mut self, input_seq: u64, out: &[DecisionRecord]) -> Vec<TracedIntent> {
        let Some(trace) = self.trace.take() else {
            return Vec::new();
        };
        let mut intents = trace.intents;
        let mut is_used = vec![false; out.len()];
        for intent in &mut intents {
            intent.input_seq = input_seq;
            let is_of = |decision: &DecisionRecord| {
                decision.action == intent.action as u32
                    && (decision.verdict == REFUSED) == intent.refusal.is_some()
                    && match intent.action {
                        ActionKind::Cancel => decision.order_id == intent.order_id,
                        _ => decision.intent_id == intent.intent_id,
                    }
            };
            let place = (0..out.len()).find(|place| !is_used[*place] && is_of(&out[*place]));
            if let Some(place) = place {
                is_used[place] = true;
                intent.decision = Some(out[place]);
                intent.order_id = out[place].order_id;
            }
        }
        intents
    }

    /// An alpha's template has wished; what it saw holds for all its wishes.
    #[cold]
    pub(super) fn trace_wishes(
        &mut self,
        alpha_index: usize,
        wanted: Wanted,
        orders: &[Order],
        now_ns: i64,
    ) {
        let mut state = self.strategy_state(alpha_index, now_ns);
        state.wanted = Some(wanted);
        state.orders = orders.to_vec();
        if let Some(trace) = &mut self.trace {
            trace.seen = Some((alpha_index, state));
        }
    }

    /// The wishes were taken.
    pub(super) fn trace_wished(&mut self) {
        if let Some(trace) = &mut self.trace {
            trace.seen = None;
        }
    }

    /// A new order has come to the end of the checks; `early` is what it was refused for before
    /// them.
    #[cold]
    pub(super) fn trace_place(
        &mut self,
        intent: &OrderIntent,
        facts: &Facts,
        early: Option<Refusal>,
        refusal: Option<Refusal>,
        now_ns: i64,
    ) {
        let checks: Vec<CheckRow> = CHECKS.iter().map(|check| row_of(check, facts)).collect();
        let first = checks.iter().find_map(|row| match row.result {
            CheckResult::Refused(refusal) => Some(refusal),
            _ => None,
        });
        assert!(
            early.or(first) == refusal,
            "Invariant: the first check that refuses is the one that the decision names"
        );
        self.push_trace(TracedIntent {
            intent_id: intent.intent_id,
            side: intent.side,
            price: intent.price,
            qty: intent.qty,
            is_reducing: facts.is_reducing,
            refusal,
            checks,
            ..self.blank_trace(intent.alpha_index, ActionKind::Place, intent.reason, now_ns)
        });
    }

    /// A cancel has come to the end of its checks; `decision` is what will be written.
    #[cold]
    pub(super) fn trace_cancel(
        &mut self,
        alpha_index: usize,
        decision: &DecisionRecord,
        reason: IntentReason,
        refusal: Option<Refusal>,
        rate: Option<(u32, u32)>,
    ) {
        let mut checks = CANCEL_CHECKS.to_vec();
        for row in &mut checks {
            if let Some(refusal) = refusal.filter(|refusal| row.codes.contains(&refusal.code)) {
                row.result = CheckResult::Refused(refusal);
            }
        }
        checks[2].numbers = rate.map(|(count, limit)| (i64::from(count), i64::from(limit)));
        let now_ns = decision.header.sequence_time_ns;
        self.push_trace(TracedIntent {
            intent_id: decision.intent_id,
            order_id: decision.order_id,
            side: decision.side,
            price: decision.price,
            qty: decision.qty,
            is_reducing: true,
            refusal,
            checks,
            ..self.blank_trace(alpha_index, ActionKind::Cancel, reason, now_ns)
        });
    }

    fn push_trace(&mut self, intent: TracedIntent) {
        if let Some(trace) = &mut self.trace {
            trace.intents.push(intent);
        }
    }

    fn blank_trace(
        &self,
        alpha_index: usize,
        action: ActionKind,
        reason: IntentReason,
        now_ns: i64,
    ) -> TracedIntent {
        let seen = self.trace.as_ref().and_then(|trace| trace.seen.as_ref());
        let state = match seen {
            Some((index, state)) if *index == alpha_index => state.clone(),
            _ => self.strategy_state(alpha_index, now_ns),
        };
        TracedIntent {
            input_seq: 0,
            alpha_index,
            action,
            intent_id: 0,
            order_id: 0,
            reason,
            side: 0,
            price: 0,
            qty: 0,
            is_reducing: false,
            refusal: None,
            state,
            checks: Vec::new(),
            storm: self.storm_report(),
            decision: None,
        }
    }

    fn strategy_state(&self, alpha_index: usize, now_ns: i64) -> StrategyState {
        let alpha = &self.alphas[alpha_index];
        let book = &self.markets[alpha.market_index].book;
        let (mode, _) = self.mode(alpha, now_ns);
        let causes = self.mode_causes(alpha_index, now_ns);
        assert!(
            causes.iter().map(|cause| cause.asks).max() == Some(mode),
            "Invariant: the causes give the mode"
        );
        let is_own = |order: &&Order| order.alpha_index as usize == alpha_index;
        StrategyState {
            mode,
            causes,
            signal: alpha.signal,
            position_qty: alpha.position.qty,
            tradable_qty: alpha.tradable_qty(),
            position_qty_max: alpha.position_qty_max,
            clip_qty: alpha.clip_qty,
            weight_ppm: alpha.weight_ppm,
            held_ns: (alpha.position.qty != 0).then(|| now_ns.saturating_sub(alpha.entry_ns)),
            net_pnl: alpha.position.net(),
            drawdown: alpha.position.drawdown(),
            book_fault: book.fault(now_ns, self.config.account_limits.quote_age_ns_max),
            best: (book.best_bid(), book.best_ask()),
            orders: self.gateway.open_orders().filter(is_own).copied().collect(),
            wanted: None,
        }
    }

    /// The phase, and everything that asks for more than the normal mode.
    fn mode_causes(&self, alpha_index: usize, now_ns: i64) -> Vec<ModeCause> {
        let alpha = &self.alphas[alpha_index];
        let phase = self.phase(now_ns);
        let (what, asks) = of_phase(phase);
        let mut causes = vec![cause(what, None, None, asks)];
        let reduce = |what, code, since_ns| cause(what, code, since_ns, Mode::ReduceOnly);
        if self.policy.is_reduce_only {
            let by = self.policy.reduce_only_by;
            let (code, since_ns) = (by.map(|by| by.0), by.map(|by| by.1));
            causes.push(reduce("account reduce-only", code, since_ns));
        }
        if alpha.is_reduce_only {
            causes.push(reduce("alpha reduce-only", None, None));
        }
        if self.account.unexplained_qty().is_some() {
            let code = Some(ReasonCode::PositionUnreconciled);
            causes.push(reduce(
                "position does not agree with the broker's",
                code,
                None,
            ));
        }
        if self.gateway.has_unknown_in(alpha.market_index) {
            let code = Some(ReasonCode::OrderOutcomeUnknown);
            causes.push(reduce("an order's outcome is not known", code, None));
        }
        if self.watch.guard.state() == StormState::Storm {
            let since_ns = Some(self.watch.guard.since_ns());
            let code = self.watch.guard.cause().map(|input| input.code());
            causes.push(reduce("storm guard in STORM", code, since_ns));
        }
        let latches = [
            ("alpha stopped by its result", alpha.loss_latch),
            ("account stopped by its result", self.account.loss_latch()),
        ];
        for (what, latch) in latches {
            if latch.is_some() {
                causes.push(cause(what, latch, None, Mode::Flatten));
            }
        }
        if alpha.is_flattening {
            causes.push(cause("asked to flatten", None, None, Mode::Flatten));
        }
        let permits = [
            (
                "permit withdrawn",
                ReasonCode::ConfigWithdrawn,
                alpha.withdrawn_since_ns,
            ),
            (
                "permit expired",
                ReasonCode::ConfigExpired,
                alpha.expired_since_ns,
            ),
        ];
        for (what, code, since_ns) in permits {
            if let Some(since) = since_ns {
                let asks = withdrawal_mode(alpha, since, now_ns);
                causes.push(cause(what, Some(code), since_ns, asks));
            }
        }
        let halts = [
            ("account halted", self.policy.halted),
            ("alpha halted", alpha.halted),
        ];
        for (what, halted) in halts {
            if let Some((code, since_ns)) = halted {
                let asks = halt_mode(alpha, withdrawal_mode(alpha, since_ns, now_ns));
                causes.push(cause(what, Some(code), Some(since_ns), asks));
            }
        }
        causes
    }
}

fn cause(
    what: &'static str,
    code: Option<ReasonCode>,
    since_ns: Option<i64>,
    asks: Mode,
) -> ModeCause {
    ModeCause {
        what,
        code,
        since_ns,
        asks,
    }
}

fn of_phase(phase: Option<Phase>) -> (&'static str, Mode) {
    match phase {
        Some(Phase::Open) => ("session open", Mode::Normal),
        Some(Phase::CloseOnly) => ("session takes only exits", Mode::ReduceOnly),
        Some(Phase::ForceFlat) => ("session is being closed", Mode::Flatten),
        Some(Phase::CloseAuction) => ("session ends in its call auction", Mode::Flatten),
        Some(Phase::PreOpen) => ("session not open yet", Mode::Hold),
        Some(Phase::NoCancel) => ("session takes neither orders nor cancels", Mode::Hold),
        None => ("session closed", Mode::Hold),
    }
}

fn row_of(check: &Check, facts: &Facts) -> CheckRow {
    let holds = check.applies.holds(facts.is_reducing);
    let result = match (check.evaluate)(facts).filter(|_| holds) {
        Some(refusal) => CheckResult::Refused(refusal),
        None if holds => CheckResult::Passed,
        None => CheckResult::NotForThis,
    };
    let numbers = match result {
        CheckResult::Refused(refusal) => {
            let said = (refusal.observed, refusal.limit);
            debug_assert!(
                numbers(check.name, facts).is_none_or(|numbers| numbers == said),
                "Invariant: a check's numbers are those that its refusal names"
            );
            Some(said)
        }
        CheckResult::Passed => numbers(check.name, facts),
        CheckResult::NotForThis => None,
    };
    CheckRow {
        name: check.name,
        applies: check.applies,
        codes: check.codes,
        limit_key: check.limit,
        asks: check.asks,
        result,
        numbers,
    }
}
