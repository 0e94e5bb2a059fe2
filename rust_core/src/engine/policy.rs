//! What trading is allowed at all: operator commands, config switches, session phases, loss limits.

use super::{AlphaState, Engine, Phase, Template, WithdrawalAction};
use crate::gateway::{ResumeEvent, ResumeOutcome, ResumeState, resume_step};
use crate::reason::ReasonCode;
use crate::record::{CommandKind, CommandRecord, ConfigSwitchRecord, IntentReason, RecordHeader};
use crate::storm_guard::StormState;
use crate::strategy::Mode;

/// `alpha_index` that means every alpha.
pub const ALL_ALPHAS: u32 = u32::MAX;

/// Latches of the whole account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Policy {
    /// Why and since when trading is halted.
    pub(super) halted: Option<(ReasonCode, i64)>,
    /// Only reducing orders, until resumed.
    pub(super) is_reduce_only: bool,
    /// Why and since when that is so.
    pub(super) reduce_only_by: Option<(ReasonCode, i64)>,
    /// `input_seq` and time of the first resume step.
    armed: Option<(u64, i64)>,
    /// A restart found orders whose outcome is not known.
    pub(super) has_lost_track: bool,
}

impl Policy {
    /// Halts; the first reason stays.
    pub(super) fn halt(&mut self, code: ReasonCode, now_ns: i64) {
        self.halted = self.halted.or(Some((code, now_ns)));
        if resume_step(self.resume_state(), ResumeEvent::Halted).0 == ResumeState::Idle {
            self.armed = None;
        }
    }

    /// Allows reducing orders only; the first reason stays.
    pub(super) fn reduce_only(&mut self, code: ReasonCode, now_ns: i64) {
        self.is_reduce_only = true;
        self.reduce_only_by = self.reduce_only_by.or(Some((code, now_ns)));
    }

    /// Takes both latches back.
    pub(super) fn lift(&mut self) {
        self.halted = None;
        self.is_reduce_only = false;
        self.reduce_only_by = None;
        self.has_lost_track = false;
    }

    /// Forgets the first step of a resume.
    pub(super) fn disarm(&mut self) {
        self.armed = None;
    }

    /// True while a latch of the account holds.
    pub(super) fn is_latched(&self) -> bool {
        self.halted.is_some() || self.is_reduce_only
    }

    fn resume_state(&self) -> ResumeState {
        if self.armed.is_some() {
            ResumeState::Armed
        } else {
            ResumeState::Idle
        }
    }
}

/// A code carried by a record, or the given one when it carries none that is known.
fn code_or(number: u64, default: ReasonCode) -> ReasonCode {
    let known = u16::try_from(number).ok().and_then(ReasonCode::from_code);
    known
        .filter(|code| *code != ReasonCode::Unset)
        .unwrap_or(default)
}

/// Alphas that a command concerns.
fn concerned(alphas: &mut [AlphaState], alpha_index: u32) -> &mut [AlphaState] {
    if alpha_index == ALL_ALPHAS {
        return alphas;
    }
    let place = alpha_index as usize;
    alphas.get_mut(place..=place).unwrap_or_default()
}

impl Engine {
    /// Phase of the session at `now_ns`; `None` when closed.
    pub(super) fn phase(&self, now_ns: i64) -> Option<Phase> {
        let inside = self
            .config
            .session
            .phases
            .iter()
            .find(|window| (window.start_ns..window.end_ns).contains(&now_ns));
        inside.map(|window| window.phase)
    }

    /// What alpha may do now, and the reason to give for taking its orders back.
    #[inline(always)]
    pub(super) fn mode(&self, alpha: &AlphaState, now_ns: i64) -> (Mode, IntentReason) {
        if self.is_unrestricted(alpha) && self.phase(now_ns) == Some(Phase::Open) {
            return (Mode::Normal, IntentReason::Flatten);
        }
        self.restricted_mode(alpha, now_ns)
    }

    /// True when nothing but the session's phase can ask for another mode than the normal one.
    #[inline]
    fn is_unrestricted(&self, alpha: &AlphaState) -> bool {
        // Without branches: all of it is false on the usual record.
        let is_restricted = self.policy.halted.is_some()
            | self.policy.is_reduce_only
            | alpha.halted.is_some()
            | alpha.is_reduce_only
            | alpha.is_flattening
            | alpha.loss_latch.is_some()
            | alpha.withdrawn_since_ns.is_some()
            | alpha.expired_since_ns.is_some()
            | self.account.loss_latch().is_some()
            | self.account.unexplained_qty().is_some()
            | self.gateway.has_unknown_in(alpha.market_index)
            | (self.watch.guard.state() == StormState::Storm);
        !is_restricted
    }

    fn restricted_mode(&self, alpha: &AlphaState, now_ns: i64) -> (Mode, IntentReason) {
        let rule = |since_ns: Option<i64>| {
            since_ns.map(|since_ns| withdrawal_mode(alpha, since_ns, now_ns))
        };
        let halts =
            [self.policy.halted, alpha.halted].map(|halt| rule(halt.map(|(_, since_ns)| since_ns)));
        let conditions = Conditions {
            phase: self.phase(now_ns),
            is_reduce_only: self.policy.is_reduce_only
                || alpha.is_reduce_only
                || self.account.unexplained_qty().is_some()
                || self.gateway.has_unknown_in(alpha.market_index)
                || self.watch.guard.state() == StormState::Storm,
            is_closing: alpha.loss_latch.or(self.account.loss_latch()).is_some()
                || alpha.is_flattening,
            permit: rule(alpha.withdrawn_since_ns).max(rule(alpha.expired_since_ns)),
            halt: halts[0].max(halts[1]).map(|mode| halt_mode(alpha, mode)),
        };
        let reason = if conditions.halt.is_some() {
            IntentReason::HaltCancel
        } else {
            IntentReason::Flatten
        };
        (mode_of(&conditions), reason)
    }

    /// Takes an operator's command.
    ///
    /// # Errors
    /// The code of what is wrong with it; it changed nothing.
    pub(super) fn on_command(
        &mut self,
        header: &RecordHeader,
        record: &CommandRecord,
    ) -> Result<(), ReasonCode> {
        let now_ns = header.sequence_time_ns;
        let is_all = record.alpha_index == ALL_ALPHAS;
        if !is_all && record.alpha_index as usize >= self.alphas.len() {
            return Err(ReasonCode::ConfigMalformed);
        }
        // A header that names an instrument narrows a restriction of all alphas to those that trade it.
        let narrows = [CommandKind::Halt, CommandKind::ReduceOnly];
        let narrowed_market = match header.instrument_id {
            0 => None,
            instrument_id
                if is_all
                    && narrows
                        .iter()
                        .any(|kind| record.command_kind == *kind as u32) =>
            {
                Some(self.market_index(instrument_id)?)
            }
            _ => None,
        };
        let alphas = concerned(&mut self.alphas, record.alpha_index);
        match record.command_kind {
            kind if kind == CommandKind::Halt as u32 => {
                let code = code_or(record.reason_code, ReasonCode::KillSwitchOn);
                if let Some(market_index) = narrowed_market {
                    alphas
                        .iter_mut()
                        .filter(|alpha| alpha.market_index == market_index)
                        .for_each(|alpha| alpha.halted = alpha.halted.or(Some((code, now_ns))));
                } else if is_all {
                    self.policy.halt(code, now_ns);
                } else {
                    alphas
                        .iter_mut()
                        .for_each(|alpha| alpha.halted = alpha.halted.or(Some((code, now_ns))));
                }
            }
            kind if kind == CommandKind::ResumeArm as u32 => {
                self.policy.armed = Some((header.input_seq, now_ns));
            }
            kind if kind == CommandKind::ResumeConfirm as u32 => {
                return self.resume(record, now_ns);
            }
            kind if kind == CommandKind::ReduceOnly as u32 => {
                if is_all && narrowed_market.is_none() {
                    let code = code_or(record.reason_code, ReasonCode::ReduceOnlyOn);
                    self.policy.reduce_only(code, now_ns);
                }
                alphas
                    .iter_mut()
                    .filter(|alpha| narrowed_market.is_none_or(|own| alpha.market_index == own))
                    .for_each(|alpha| alpha.is_reduce_only = true);
            }
            kind if kind == CommandKind::Flatten as u32 => {
                for alpha in alphas {
                    alpha.is_flattening = true;
                    alpha.is_reduce_only = true;
                }
            }
            kind if kind == CommandKind::Withdraw as u32 => {
                alphas.iter_mut().for_each(|alpha| {
                    alpha.withdrawn_since_ns = alpha.withdrawn_since_ns.or(Some(now_ns))
                });
            }
            kind if kind == CommandKind::AdoptExternal as u32 => {
                let market_index = self.market_index(header.instrument_id)?;
                return self.account.adopt(market_index, record.argument);
            }
            kind if kind == CommandKind::SetWeight as u32 => {
                let weight_ppm =
                    u64::try_from(record.argument).map_err(|_| ReasonCode::ConfigMalformed)?;
                alphas
                    .iter_mut()
                    .for_each(|alpha| alpha.request_weight(weight_ppm));
            }
            _ => return Err(ReasonCode::ConfigMalformed),
        }
        Ok(())
    }

    /// Whether nothing that opens a position in an instrument can be approved, whatever the weather
    /// and the clock do: a latch of the account or of each of its alphas says so.
    #[must_use]
    pub fn is_restricted(&self, instrument_id: u32) -> bool {
        let Ok(market_index) = self.market_index(instrument_id) else {
            return false;
        };
        let mut alphas = self.alphas.iter();
        self.policy.is_latched()
            || alphas.all(|alpha| {
                alpha.market_index != market_index || alpha.is_reduce_only || alpha.halted.is_some()
            })
    }

    /// Second step of re-arming: lifts halts and reduce-only, never a loss limit or a withdrawal.
    fn resume(&mut self, record: &CommandRecord, now_ns: i64) -> Result<(), ReasonCode> {
        let is_all = record.alpha_index == ALL_ALPHAS;
        let window_ns = self.config.storm_guard.resume_window_ns;
        let state = self.policy.resume_state();
        let event = match self.policy.armed.take() {
            Some((seq, _)) if u64::try_from(record.argument).ok() != Some(seq) => {
                ResumeEvent::ConfirmOther
            }
            Some((_, armed_ns)) if now_ns.saturating_sub(armed_ns) > window_ns => {
                ResumeEvent::ConfirmLate
            }
            Some(_) if is_all && self.does_cause_remain() => ResumeEvent::ConfirmTooSoon,
            _ => ResumeEvent::Confirm,
        };
        if let (_, ResumeOutcome::Refused(code)) = resume_step(state, event) {
            return Err(code);
        }
        if is_all {
            let change = self.watch.guard.resume(now_ns);
            self.watch.pending = change.map_err(|_| ReasonCode::HaltCauseRemains)?;
            self.policy.lift();
        }
        for alpha in concerned(&mut self.alphas, record.alpha_index) {
            alpha.halted = None;
            alpha.is_reduce_only = false;
        }
        Ok(())
    }

    /// Takes a verified config.
    ///
    /// # Errors
    /// The code of what is wrong with it; it changed nothing.
    pub(super) fn on_config_switch(
        &mut self,
        header: &RecordHeader,
        record: &ConfigSwitchRecord,
    ) -> Result<(), ReasonCode> {
        let alpha = self
            .alphas
            .get_mut(record.alpha_index as usize)
            .ok_or(ReasonCode::ConfigMalformed)?;
        alpha.switch_config(record, header.sequence_time_ns)
    }

    /// Marks an alpha's position, and follows what its result and the account's do.
    fn mark(&mut self, alpha_index: usize, mid: i64, now_ns: i64) {
        let alpha = &mut self.alphas[alpha_index];
        let multiplier = self.markets[alpha.market_index].instrument.multiplier;
        let Some(marked) = alpha.position.mark(mid, multiplier) else {
            return self.policy.halt(ReasonCode::ArithmeticOverflow, now_ns);
        };
        self.watch.is_marked = true;
        let before = alpha.position.net();
        alpha.position = marked;
        alpha.marked_mid = Some(mid);
        alpha.latch_losses(now_ns);
        let after = alpha.position.net();
        self.follow_result(before, after, now_ns);
    }

    /// Follows time: expiry, marks, loss limits, and what waited for a flat position.
    pub(super) fn refresh_alpha(&mut self, alpha_index: usize, now_ns: i64) {
        let alpha = &mut self.alphas[alpha_index];
        if alpha.expires_ns <= now_ns && alpha.expired_since_ns.is_none() {
            alpha.expired_since_ns = Some(now_ns);
        }
        let market = &self.markets[alpha.market_index];
        if let Some(mid) = market
            .book
            .mid()
            .filter(|mid| alpha.marked_mid != Some(*mid))
        {
            // A flat position has no value to follow; behind a fill it is looked at once.
            let is_idle = alpha.position.qty == 0 && alpha.marked_mid.is_some();
            if is_idle {
                alpha.marked_mid = Some(mid);
            } else {
                self.mark(alpha_index, mid, now_ns);
            }
        }
        self.take_flat(alpha_index);
    }

    /// What waited for a flat position happens once there is one.
    pub(super) fn take_flat(&mut self, alpha_index: usize) {
        let exposure = self.gateway.exposure(alpha_index);
        let alpha = &mut self.alphas[alpha_index];
        if alpha.tradable_qty() == 0 && exposure.buy_qty == 0 && exposure.sell_qty == 0 {
            alpha.on_flat();
        }
    }
}

/// Everything that restricts an alpha.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Conditions {
    /// Phase of the session, `None` when closed.
    phase: Option<Phase>,
    /// An operator allowed reducing orders only.
    is_reduce_only: bool,
    /// A loss limit was reached, or an operator asked for a flat position.
    is_closing: bool,
    /// The permit ended, and asks for this.
    permit: Option<Mode>,
    /// Trading is halted, and the permit asks for this.
    halt: Option<Mode>,
}

/// The strictest of what the conditions ask for.
fn mode_of(conditions: &Conditions) -> Mode {
    let by_phase = match conditions.phase {
        Some(Phase::Open) => Mode::Normal,
        Some(Phase::CloseOnly) => Mode::ReduceOnly,
        Some(Phase::ForceFlat | Phase::CloseAuction) => Mode::Flatten,
        Some(Phase::PreOpen | Phase::NoCancel) | None => Mode::Hold,
    };
    let asked = [
        if conditions.is_reduce_only {
            Mode::ReduceOnly
        } else {
            Mode::Normal
        },
        if conditions.is_closing {
            Mode::Flatten
        } else {
            Mode::Normal
        },
        conditions.permit.unwrap_or(Mode::Normal),
        conditions.halt.unwrap_or(Mode::Normal),
    ];
    asked.into_iter().fold(by_phase, Mode::max)
}

/// What a halt leaves of the permit's rule. What works is taken back by the engine whatever this
/// is; behind that a taker may leave by its own rules, in orders that never rest. A template that
/// rests its quotes holds instead: nothing of ours is to be found in a book while halted.
pub(super) fn halt_mode(alpha: &AlphaState, rule: Mode) -> Mode {
    match (rule, &alpha.config.template) {
        (Mode::ReduceOnly, Template::Taker { .. } | Template::CostTaker(_)) => Mode::ReduceOnly,
        _ => rule.max(Mode::Hold),
    }
}

/// What the permit says should become of the position, `since_ns` after it ended.
pub(super) fn withdrawal_mode(alpha: &AlphaState, since_ns: i64, now_ns: i64) -> Mode {
    let rule = alpha.config.on_withdrawal;
    if now_ns.saturating_sub(since_ns) >= rule.deadline_ns {
        return Mode::Flatten;
    }
    match rule.action {
        WithdrawalAction::Flatten => Mode::Flatten,
        WithdrawalAction::ReduceOnly => Mode::ReduceOnly,
        WithdrawalAction::HoldToClose => Mode::Hold,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHASES: [Option<Phase>; 7] = [
        Some(Phase::Open),
        Some(Phase::PreOpen),
        Some(Phase::NoCancel),
        Some(Phase::CloseOnly),
        Some(Phase::ForceFlat),
        Some(Phase::CloseAuction),
        None,
    ];
    const RULES: [Option<Mode>; 4] = [
        None,
        Some(Mode::ReduceOnly),
        Some(Mode::Hold),
        Some(Mode::Flatten),
    ];

    fn all() -> impl Iterator<Item = Conditions> {
        (0..PHASES.len() * RULES.len() * RULES.len() * 4).map(|number| Conditions {
            phase: PHASES[number % 7],
            permit: RULES[number / 7 % 4],
            halt: RULES[number / 28 % 4],
            is_reduce_only: number / 112 % 2 == 1,
            is_closing: number / 224 == 1,
        })
    }

    /// All 448 combinations: normal only when nothing restricts, and no restriction makes another milder.
    #[test]
    fn the_strictest_condition_decides() {
        assert_eq!(all().count(), 448);
        for conditions in all() {
            let mode = mode_of(&conditions);
            let is_free = conditions.phase == Some(Phase::Open)
                && !conditions.is_reduce_only
                && !conditions.is_closing
                && conditions.permit.is_none()
                && conditions.halt.is_none();
            assert_eq!(mode == Mode::Normal, is_free, "{conditions:?}");
            assert!(
                conditions.halt.is_none() || mode >= Mode::ReduceOnly,
                "{conditions:?}"
            );
            assert!(
                !conditions.is_closing || mode == Mode::Flatten,
                "{conditions:?}"
            );
            assert!(
                !matches!(
                    conditions.phase,
                    Some(Phase::ForceFlat | Phase::CloseAuction)
                ) || mode == Mode::Flatten,
                "{conditions:?}"
            );
            for milder in [
                Conditions {
                    halt: None,
                    ..conditions
                },
                Conditions {
                    permit: None,
                    ..conditions
                },
                Conditions {
                    is_closing: false,
                    ..conditions
                },
                Conditions {
                    is_reduce_only: false,
                    ..conditions
                },
                Conditions {
                    phase: Some(Phase::Open),
                    ..conditions
                },
            ] {
                assert!(mode_of(&milder) <= mode, "{conditions:?}");
            }
        }
    }
}
