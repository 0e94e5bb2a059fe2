//! One alpha inside the engine: signal, permit, position and what stopped it.

use sha2::{Digest, Sha256};

use super::signal::Signal;
use super::validate::{WEIGHT_PPM_MAX, hex32};
use super::{AlphaConfig, EngineError, InstrumentConfig, SessionConfig, Stage, Template};
use crate::alpha::{Expression, Program};
use crate::gateway::{Money, Position};
use crate::kernel::{KernelPlan, Kernels};
use crate::reason::ReasonCode;
use crate::record::ConfigSwitchRecord;
use crate::risk::{FILL_PAUSE_NS, FILL_WINDOW_NS, LossWindow, RATE_WINDOW_NS, TimeWindow};

/// The last refusal that was written out, so that repeats are only counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct LastRefusal {
    code: Option<ReasonCode>,
    written_ns: i64,
}

impl LastRefusal {
    /// Repeats of one code are written out this far apart.
    const REPEAT_NS: i64 = 1_000_000_000;

    /// True if this refusal is to be written out.
    pub(super) fn is_news(&mut self, code: ReasonCode, now_ns: i64) -> bool {
        let is_repeat =
            self.code == Some(code) && now_ns.saturating_sub(self.written_ns) < Self::REPEAT_NS;
        if !is_repeat {
            *self = Self {
                code: Some(code),
                written_ns: now_ns,
            };
        }
        !is_repeat
    }

    /// An approved order ends the series.
    pub(super) fn clear(&mut self) {
        self.code = None;
    }
}

/// State of one alpha.
#[derive(Debug, Clone)]
pub(super) struct AlphaState {
    pub(super) config: AlphaConfig,
    pub(super) market_index: usize,
    pub(super) source: Signal,
    /// Its last value.
    pub(super) signal: f64,
    /// What its template remembers.
    pub(super) memory: crate::strategy::Memory,
    lot_size: i64,
    /// Effective clip and position limit at `weight_ppm`.
    pub(super) clip_qty: i64,
    pub(super) position_qty_max: i64,
    pub(super) weight_ppm: u64,
    /// What the last verified config allows; a command may go below it, not above.
    permit_weight_ppm: u64,
    /// An increase waiting for a flat position.
    pending_weight_ppm: Option<u64>,
    pub(super) stage: u32,
    pub(super) expires_ns: i64,
    promotion_seq: u64,
    config_sha256: Option<[u8; 32]>,
    pub(super) withdrawn_since_ns: Option<i64>,
    pub(super) expired_since_ns: Option<i64>,
    pub(super) halted: Option<(ReasonCode, i64)>,
    /// A loss limit was reached; stays for the session.
    pub(super) loss_latch: Option<ReasonCode>,
    /// That is in the log.
    pub(super) is_latch_noted: bool,
    /// Since when an exit waits for our own order in its way, and when it last asked.
    pub(super) exit_waits_ns: Option<(i64, i64)>,
    loss_window: LossWindow,
    /// Fall within the loss window, at the last mark.
    pub(super) loss_speed: Money,
    /// Fills by side, and until when a side pauses.
    fill_windows: [TimeWindow; 2],
    paused_until_ns: [i64; 2],
    pub(super) is_reduce_only: bool,
    pub(super) is_flattening: bool,
    pub(super) position: Position,
    tradable_qty: i64,
    /// Mid of the last mark; `None` after a fill.
    pub(super) marked_mid: Option<i64>,
    pub(super) entry_ns: i64,
    pub(super) fill_count: u64,
    pub(super) order_rate: TimeWindow,
    pub(super) refusals: [LastRefusal; 2],
    pub(super) intent_prefix: u64,
    pub(super) intent_counter: u32,
}

/// Code of a stage in records.
pub(super) fn stage_code(stage: Stage) -> u32 {
    match stage {
        Stage::Research => 0,
        Stage::Shadow => 1,
        Stage::Canary => 2,
        Stage::Live => 3,
    }
}

/// Largest whole number of lots within `qty` times the weight.
fn weighted(qty: i64, weight_ppm: u64, lot_size: i64) -> i64 {
    let scaled = i128::from(qty) * i128::from(weight_ppm) / i128::from(WEIGHT_PPM_MAX);
    let lots = scaled / i128::from(lot_size);
    // The weight is at most one, so the result is at most `qty`.
    i64::try_from(lots * i128::from(lot_size)).unwrap_or(0)
}

/// The program of an alpha's expression.
fn compiled(config: &AlphaConfig) -> Result<Program, EngineError> {
    let names: Vec<&str> = config.parameters.keys().map(String::as_str).collect();
    let expression = Expression::parse(&config.expression, &names);
    let program = expression.and_then(|parsed| Program::compile(&parsed, &config.parameters));
    program.map_err(|error| EngineError::Expression {
        field: format!("alphas[{}].expression", config.alpha_index),
        error,
    })
}

impl AlphaState {
    pub(super) fn new(
        config: &AlphaConfig,
        instrument: &InstrumentConfig,
        market_index: usize,
        session: &SessionConfig,
        kernels: &Kernels,
    ) -> Result<Self, EngineError> {
        let source = match &config.kernel {
            Some(kernel) => {
                let value = |name: &String| config.parameters.get(name).copied();
                let plan = KernelPlan {
                    id: &kernel.id,
                    sha256: &kernel.sha256,
                    features: &kernel.features,
                    parameter_names: &kernel.parameters,
                    parameters: kernel.parameters.iter().filter_map(value).collect(),
                    state_count: kernel.state_count,
                    sign: if kernel.sign < 0 { -1.0 } else { 1.0 },
                };
                let started = kernels.start(&plan);
                Signal::of_kernel(started.map_err(|error| EngineError::Kernel {
                    field: format!("alphas[{}].kernel", config.alpha_index),
                    error,
                })?)
            }
            None if config.template.is_outside() => Signal::of_outside(),
            None => Signal::of_expression(compiled(config)?),
        };
        let seed = format!(
            "{}|{}|{}",
            config.alpha_id, session.session_id, config.config_sha256
        );
        let digest = Sha256::digest(seed.as_bytes());
        let mut prefix = [0_u8; 8];
        prefix.copy_from_slice(&digest[..8]);
        let mut state = Self {
            config: config.clone(),
            market_index,
            source,
            signal: f64::NAN,
            memory: crate::strategy::Memory::default(),
            lot_size: instrument.lot_size,
            clip_qty: 0,
            position_qty_max: 0,
            weight_ppm: 0,
            permit_weight_ppm: config.weight_ppm,
            pending_weight_ppm: None,
            stage: stage_code(config.stage),
            expires_ns: config.expires_ns,
            promotion_seq: config.promotion_seq,
            config_sha256: hex32(&config.config_sha256),
            withdrawn_since_ns: None,
            expired_since_ns: None,
            halted: None,
            loss_latch: None,
            is_latch_noted: false,
            exit_waits_ns: None,
            loss_window: LossWindow::default(),
            loss_speed: 0,
            fill_windows: [
                TimeWindow::new(FILL_WINDOW_NS),
                TimeWindow::new(FILL_WINDOW_NS),
            ],
            paused_until_ns: [i64::MIN; 2],
            is_reduce_only: false,
            is_flattening: false,
            position: Position::default(),
            tradable_qty: 0,
            marked_mid: None,
            entry_ns: 0,
            fill_count: 0,
            order_rate: TimeWindow::new(RATE_WINDOW_NS),
            refusals: [LastRefusal::default(); 2],
            intent_prefix: u64::from_be_bytes(prefix),
            intent_counter: 0,
        };
        state.apply_weight(config.weight_ppm);
        Ok(state)
    }

    fn apply_weight(&mut self, weight_ppm: u64) {
        self.weight_ppm = weight_ppm;
        self.pending_weight_ppm = None;
        self.clip_qty = weighted(self.config.order_qty, weight_ppm, self.lot_size);
        self.position_qty_max = weighted(
            self.config.limits.position_qty_max,
            weight_ppm,
            self.lot_size,
        );
    }

    /// Less acts at once, more waits for a flat position.
    pub(super) fn request_weight(&mut self, weight_ppm: u64) {
        let allowed = weight_ppm.min(self.permit_weight_ppm);
        if allowed <= self.weight_ppm {
            self.apply_weight(allowed);
        } else {
            self.pending_weight_ppm = Some(allowed);
        }
    }

    /// Called while position and open orders are zero.
    pub(super) fn on_flat(&mut self) {
        if let Some(weight_ppm) = self.pending_weight_ppm {
            self.apply_weight(weight_ppm);
        }
        self.is_flattening = false;
        self.exit_waits_ns = None;
    }

    /// A verified config took effect.
    pub(super) fn switch_config(
        &mut self,
        record: &ConfigSwitchRecord,
        now_ns: i64,
    ) -> Result<(), ReasonCode> {
        if record.stage > stage_code(Stage::Live) || record.weight_ppm > WEIGHT_PPM_MAX {
            return Err(ReasonCode::ConfigMalformed);
        }
        let is_external = matches!(self.config.template, Template::External { .. });
        if is_external && record.stage > stage_code(Stage::Shadow) {
            return Err(ReasonCode::ExternalNotPermitted);
        }
        let is_same_seq = record.promotion_seq == self.promotion_seq;
        if record.promotion_seq < self.promotion_seq
            || (is_same_seq && self.withdrawn_since_ns.is_some())
        {
            return Err(ReasonCode::ConfigReplayed);
        }
        if is_same_seq
            && self
                .config_sha256
                .is_some_and(|known| known != record.config_sha256)
        {
            return Err(ReasonCode::ConfigEvidenceMismatch);
        }
        self.promotion_seq = record.promotion_seq;
        self.config_sha256 = Some(record.config_sha256);
        self.stage = record.stage;
        self.expires_ns = record.expires_ns;
        self.withdrawn_since_ns = None;
        if record.expires_ns > now_ns {
            self.expired_since_ns = None;
        }
        self.permit_weight_ppm = record.weight_ppm;
        self.request_weight(record.weight_ppm);
        Ok(())
    }

    /// Why the permit does not hold.
    pub(super) fn permit_fault(&self) -> Option<ReasonCode> {
        let withdrawn = self.withdrawn_since_ns.map(|_| ReasonCode::ConfigWithdrawn);
        withdrawn.or(self.expired_since_ns.map(|_| ReasonCode::ConfigExpired))
    }

    /// The next intent id: unique in the session, and across sessions by its prefix.
    pub(super) fn next_intent_id(&mut self) -> u64 {
        self.intent_counter = self.intent_counter.wrapping_add(1);
        self.intent_prefix ^ u64::from(self.intent_counter)
    }

    /// The id of an intent from outside: a stream of its own, counted by the strategy.
    pub(super) fn external_intent_id(&self, number: u64) -> u64 {
        (self.intent_prefix >> 32 << 32) ^ number
    }

    pub(super) fn refusal_mut(&mut self, side: i64) -> &mut LastRefusal {
        &mut self.refusals[usize::from(side < 0)]
    }

    /// Latches a loss limit that the marked position reached.
    pub(super) fn latch_losses(&mut self, now_ns: i64) {
        self.loss_speed = self.loss_window.fall(self.position.net(), now_ns);
        if self.loss_latch.is_some() {
            return;
        }
        if -self.position.net() >= i128::from(self.config.limits.daily_loss_max) {
            self.loss_latch = Some(ReasonCode::DailyLossReached);
        } else if self.position.drawdown() >= i128::from(self.config.limits.drawdown_max) {
            self.loss_latch = Some(ReasonCode::DrawdownReached);
        } else if self.loss_speed >= i128::from(self.config.limits.loss_speed_max) {
            self.loss_latch = Some(ReasonCode::LossSpeedReached);
        }
    }

    /// Counts a fill; a side that is filled too often pauses.
    pub(super) fn count_fill(&mut self, side: i64, now_ns: i64, one_side_fill_max: u32) {
        let place = usize::from(side < 0);
        self.fill_windows[place].push(now_ns);
        if self.fill_windows[place].count(now_ns) > one_side_fill_max {
            self.paused_until_ns[place] = now_ns.saturating_add(FILL_PAUSE_NS);
        }
    }

    /// How long a side still pauses.
    pub(super) fn fill_pause_ns(&self, side: i64, now_ns: i64) -> i64 {
        let until_ns = self.paused_until_ns[usize::from(side < 0)];
        until_ns.saturating_sub(now_ns).max(0)
    }

    /// The part of the position that orders can trade: whole lots. What is left below one lot stays
    /// in position and result, and is closed by hand.
    pub(super) fn tradable_qty(&self) -> i64 {
        self.tradable_qty
    }

    /// The position after a fill.
    pub(super) fn set_position(&mut self, position: Position) {
        self.position = position;
        self.tradable_qty = position.qty - position.qty % self.lot_size;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_round_down_to_lots() {
        assert_eq!(weighted(10, 1_000_000, 1), 10);
        assert_eq!(weighted(10, 250_000, 1), 2);
        assert_eq!(weighted(10, 99_999, 1), 0);
        assert_eq!(weighted(1_000, 999_999, 100), 900);
    }

    #[test]
    fn a_repeated_refusal_is_news_after_a_second_or_with_another_code() {
        let mut last = LastRefusal::default();
        assert!(last.is_news(ReasonCode::BookStale, 0));
        assert!(!last.is_news(ReasonCode::BookStale, 999_999_999));
        assert!(last.is_news(ReasonCode::BookStale, 1_000_000_000));
        assert!(last.is_news(ReasonCode::KillSwitchOn, 1_000_000_001));
        last.clear();
        assert!(last.is_news(ReasonCode::KillSwitchOn, 1_000_000_002));
    }
}
