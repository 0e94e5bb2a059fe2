//! The engine: record in, decisions out.
//!
//! Why: backtest, paper and live must be one compiled state machine, or results mean nothing.
//!
//! Invariants:
//! 1. The same config and the same records give the same decisions, bit for bit.
//! 2. It reads no clock, does no I/O, draws no random number; time is `sequence_time_ns`.
//! 3. After construction it allocates nothing as long as `out` has room.
//! 4. Every wish of a strategy goes through the seven steps of `steps::STEPS`.
//! 5. A record that is malformed, out of order or for nobody changes nothing and is counted.
//!
//! It dispatches nothing and writes no log. Operator's page: `docs/architecture.md`.

mod alpha_state;
mod batch;
mod config;
mod counters;
mod exits;
mod external;
mod inspect;
mod market;
mod outcome;
mod policy;
mod recovery;
mod sequencer;
mod signal;
mod steps;
mod storm;
mod trace;
mod validate;

use alpha_state::AlphaState;
pub use batch::{
    BatchError, FeatureTable, KernelCalls, SignalRow, evaluate, evaluate_features,
    evaluate_features_with, evaluate_with, kernel_calls, run_tape,
};
pub use config::{
    AccountLimits, AlphaConfig, AlphaLimits, CONFIG_SCHEMA, Eligibility, EngineConfig,
    InstrumentConfig, KernelConfig, OnWithdrawal, Phase, PhaseWindow, SessionConfig, Stage,
    Template, WithdrawalAction,
};
pub use counters::Counters;
pub use inspect::{FeatureColumns, SignalTerms, feature_columns, signal_terms};
pub use policy::ALL_ALPHAS;
pub use recovery::Recovered;
pub use sequencer::Sequencer;
pub use steps::{APPROVED, NOTED, REFUSED, STEPS};
pub use storm::StormReport;
pub use trace::{CheckResult, CheckRow, ModeCause, StrategyState, TracedIntent, explain_decisions};
pub use validate::{ALPHA_COUNT_MAX, INSTRUMENT_COUNT_MAX, PHASE_COUNT_MAX, WEIGHT_PPM_MAX};

use crate::alpha::ExpressionError;
use crate::book::Book;
use crate::gateway::{Account, Gateway, Money, Order};
use crate::kernel::{KernelError, Kernels};
use crate::reason::ReasonCode;
use crate::record::{
    AccountRecord, BookRecord, BrokerEventKind, BrokerRecord, CommandRecord, ConfigSwitchRecord,
    DecisionRecord, HealthRecord, InstrumentRecord, IntentRecord, Record, RecordHeader, RecordType,
    TradeRecord,
};
use crate::risk::{RATE_WINDOW_NS, REJECT_WINDOW_NS, RepeatWindow, TimeWindow};
use crate::strategy::{self, OWN_ORDER_COUNT_MAX, View, WISH_COUNT_MAX, Wish};
use market::Market;
use policy::Policy;
use storm::Watch;

/// Why an engine could not be made.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EngineError {
    /// The JSON is not a config.
    #[error("engine config is malformed: {0}")]
    Malformed(String),
    /// A field's value is not allowed.
    #[error("engine config: {field} was {value}, allowed is {allowed}")]
    OutOfRange {
        /// Path of the field.
        field: String,
        /// Its value.
        value: String,
        /// What is allowed.
        allowed: String,
    },
    /// An alpha's expression does not compile.
    #[error("engine config: {field}: {error}")]
    Expression {
        /// Path of the field.
        field: String,
        /// What is wrong with it.
        error: ExpressionError,
    },
    /// A plain Python strategy asks for more than shadow.
    #[error("engine config: {field}: template external is for prototypes, at most shadow")]
    External {
        /// Path of the field.
        field: String,
    },
    /// An alpha's kernel is not here.
    #[error("engine config: {field}: {error}")]
    Kernel {
        /// Path of the field.
        field: String,
        /// What is wrong with it.
        error: KernelError,
    },
}

impl EngineError {
    /// Its number.
    #[must_use]
    pub fn code(&self) -> ReasonCode {
        match self {
            Self::Malformed(_) | Self::OutOfRange { .. } => ReasonCode::ConfigMalformed,
            Self::Expression { error, .. } => error.code,
            Self::Kernel { error, .. } => error.code(),
            Self::External { .. } => ReasonCode::ExternalNotPermitted,
        }
    }
}

/// Result of one alpha so far, for summaries.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AlphaResult {
    /// Place in the config.
    pub alpha_index: u32,
    /// Signed position.
    pub position_qty: i64,
    /// Result before costs, marked at the last good mid.
    pub gross_pnl: Money,
    /// Of this, realised.
    pub realised_pnl: Money,
    /// Costs.
    pub fees: Money,
    /// Result after costs.
    pub net_pnl: Money,
    /// Largest fall from the best net result.
    pub drawdown_max: Money,
    /// Executions.
    pub fill_count: u64,
    /// Weight in force, ppm.
    pub weight_ppm: u64,
    /// Stage in force: 0 research, 1 shadow, 2 canary, 3 live.
    pub stage: u32,
    /// What stopped it, if anything did.
    pub halted_by: Option<ReasonCode>,
    /// Last value of its expression.
    pub signal: f64,
}

/// The state machine.
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    markets: Vec<Market>,
    /// `(instrument_id, place in markets)`, sorted.
    market_places: Vec<(u32, usize)>,
    alphas: Vec<AlphaState>,
    gateway: Gateway,
    policy: Policy,
    watch: Watch,
    account_rate: TimeWindow,
    rejects: TimeWindow,
    unknowns: TimeWindow,
    /// Sums over alphas, the broker's answers, the account's result.
    account: Account,
    repeats: RepeatWindow,
    /// End of the session's last `open` window.
    trading_end_ns: i64,
    /// Scratch of `decide`.
    own_orders: Vec<Order>,
    wishes: Vec<Wish>,
    counters: Counters,
    decision_seq: u64,
    last_seq: u64,
    last_time_ns: i64,
    /// What the record being decided is asked to tell; `None` unless a replay asked.
    trace: Option<Box<trace::Trace>>,
}

impl Engine {
    /// An engine for `config`, whose alphas are expressions.
    ///
    /// # Errors
    /// [`EngineError`] when the config does not hold together.
    pub fn new(config: EngineConfig) -> Result<Self, EngineError> {
        Self::with_kernels(config, &Kernels::default())
    }

    /// An engine for `config`, with the kernels it names.
    ///
    /// # Errors
    /// [`EngineError`] when the config does not hold together, or a kernel is not among `kernels`.
    pub fn with_kernels(config: EngineConfig, kernels: &Kernels) -> Result<Self, EngineError> {
        validate::validate(&config)?;
        let mut market_places: Vec<(u32, usize)> = config
            .instruments
            .iter()
            .enumerate()
            .map(|(place, instrument)| (instrument.instrument_id, place))
            .collect();
        market_places.sort_unstable();
        let mut alphas = Vec::with_capacity(config.alphas.len());
        for alpha in &config.alphas {
            let place = market_places
                .iter()
                .find(|(id, _)| *id == alpha.instrument_id)
                .map_or(0, |found| found.1);
            alphas.push(AlphaState::new(
                alpha,
                &config.instruments[place],
                place,
                &config.session,
                kernels,
            )?);
        }
        let alpha_markets: Vec<usize> = alphas.iter().map(|alpha| alpha.market_index).collect();
        let sizes: Vec<(i64, i64)> = config
            .instruments
            .iter()
            .map(|instrument| (instrument.multiplier, instrument.lot_size))
            .collect();
        let mut gateway = Gateway::new(alphas.len());
        for (place, alpha) in alphas.iter().enumerate() {
            if !gateway.enter_stream(alpha.intent_prefix) {
                return Err(EngineError::OutOfRange {
                    field: format!("alphas[{place}].alpha_id"),
                    value: alpha.config.alpha_id.clone(),
                    allowed: "a name whose intent ids no other alpha's begin like".to_owned(),
                });
            }
        }
        Ok(Self {
            account: Account::new(&alpha_markets, &sizes),
            unknowns: TimeWindow::new(REJECT_WINDOW_NS),
            watch: Watch::new(&config),
            markets: config
                .instruments
                .iter()
                .cloned()
                .map(Market::new)
                .collect(),
            market_places,
            gateway,
            alphas,
            policy: Policy::default(),
            account_rate: TimeWindow::new(RATE_WINDOW_NS),
            rejects: TimeWindow::new(REJECT_WINDOW_NS),
            repeats: RepeatWindow::default(),
            trading_end_ns: trading_end_ns(&config.session),
            own_orders: Vec::with_capacity(OWN_ORDER_COUNT_MAX),
            wishes: Vec::with_capacity(WISH_COUNT_MAX),
            counters: Counters::default(),
            decision_seq: 0,
            last_seq: 0,
            last_time_ns: i64::MIN,
            trace: None,
            config,
        })
    }

    /// An engine for a config in JSON.
    ///
    /// # Errors
    /// [`EngineError::Malformed`] when the text is not a config, else as [`Engine::new`].
    pub fn from_json(text: &str) -> Result<Self, EngineError> {
        Self::from_json_with(text, &Kernels::default())
    }

    /// An engine for a config in JSON, with the kernels it names.
    ///
    /// # Errors
    /// As [`Engine::from_json`] and [`Engine::with_kernels`].
    pub fn from_json_with(text: &str, kernels: &Kernels) -> Result<Self, EngineError> {
        Self::with_kernels(EngineConfig::from_json(text)?, kernels)
    }

    /// Takes one sequenced input record and appends the decisions that follow from it to `out`.
    ///
    /// `header` is the record's head with `input_seq` and `sequence_time_ns` filled in; `bytes` is
    /// the whole record, whose own head may still be unsequenced.
    pub fn on_record(
        &mut self,
        header: &RecordHeader,
        bytes: &[u8],
        out: &mut Vec<DecisionRecord>,
    ) {
        self.counters.count_record(header.record_type);
        let outcome = self.take_sequence(header).and_then(|()| {
            self.watch_before(header, out);
            let outcome = self.dispatch(header, bytes, out);
            self.watch_after(header, out);
            outcome
        });
        if let Err(code) = outcome {
            self.counters.count_dropped(code);
        }
    }

    /// Holds the one order of inputs; a hole in it is counted, going back is refused.
    fn take_sequence(&mut self, header: &RecordHeader) -> Result<(), ReasonCode> {
        if header.input_seq <= self.last_seq || header.sequence_time_ns <= self.last_time_ns {
            return Err(ReasonCode::OutOfOrderRow);
        }
        if self.last_seq != 0 && header.input_seq != self.last_seq + 1 {
            self.counters.count_dropped(ReasonCode::LogSequenceGap);
        }
        self.last_seq = header.input_seq;
        self.last_time_ns = header.sequence_time_ns;
        Ok(())
    }

    fn dispatch(
        &mut self,
        header: &RecordHeader,
        bytes: &[u8],
        out: &mut Vec<DecisionRecord>,
    ) -> Result<(), ReasonCode> {
        match RecordType::from_code(header.record_type) {
            Some(RecordType::Book) => {
                let copy;
                // A record that stands where it may be read is not copied first.
                let record = match bytemuck::try_from_bytes::<BookRecord>(bytes) {
                    Ok(record) if record.header.record_type == RecordType::Book as u8 => record,
                    _ => {
                        copy = read::<BookRecord>(bytes)?;
                        &copy
                    }
                };
                let market_index = self.market_index(header.instrument_id)?;
                let stored = self.markets[market_index].on_book(header, record);
                if let Some(mid) = self.markets[market_index].book.mid() {
                    self.account.mark(market_index, mid);
                }
                self.on_market(market_index, header, out);
                stored
            }
            Some(RecordType::Trade) => {
                let record = read::<TradeRecord>(bytes)?;
                let market_index = self.market_index(header.instrument_id)?;
                self.markets[market_index].on_trade(header, &record)?;
                self.note_print(market_index, &record);
                self.on_market(market_index, header, out);
                Ok(())
            }
            Some(RecordType::Timer) => {
                self.decide_all(header, out);
                Ok(())
            }
            Some(RecordType::Command) => {
                self.on_command(header, &read::<CommandRecord>(bytes)?)?;
                self.note_policy(header, out);
                self.decide_all(header, out);
                Ok(())
            }
            Some(RecordType::ConfigSwitch) => {
                self.on_config_switch(header, &read::<ConfigSwitchRecord>(bytes)?)?;
                self.decide_all(header, out);
                Ok(())
            }
            Some(RecordType::Broker) => self.on_broker(header, &read::<BrokerRecord>(bytes)?, out),
            Some(RecordType::Instrument) => {
                let market_index = self.market_index(header.instrument_id)?;
                self.markets[market_index].on_instrument(&read::<InstrumentRecord>(bytes)?)
            }
            Some(RecordType::Account) => {
                self.on_account(header, &read::<AccountRecord>(bytes)?)?;
                self.decide_all(header, out);
                Ok(())
            }
            Some(RecordType::Health) => self.on_health(header, &read::<HealthRecord>(bytes)?),
            Some(RecordType::Intent) => self.on_intent(header, &read::<IntentRecord>(bytes)?, out),
            // What the log lacks changes nothing here: the engine had it.
            Some(RecordType::Shed) => Ok(()),
            // Who decides, and how the broker calls our orders: for whoever restarts from the log.
            Some(RecordType::Epoch | RecordType::Route) => Ok(()),
            Some(RecordType::Decision) | None => Err(ReasonCode::SchemaMismatch),
        }
    }

    fn market_index(&self, instrument_id: u32) -> Result<usize, ReasonCode> {
        let found = self
            .market_places
            .binary_search_by_key(&instrument_id, |place| place.0);
        found
            .map(|place| self.market_places[place].1)
            .map_err(|_| ReasonCode::UnknownInstrument)
    }

    /// New signals for the alphas of an instrument, and what they want.
    fn on_market(
        &mut self,
        market_index: usize,
        header: &RecordHeader,
        out: &mut Vec<DecisionRecord>,
    ) {
        for alpha_index in 0..self.alphas.len() {
            let alpha = &mut self.alphas[alpha_index];
            if alpha.market_index != market_index {
                continue;
            }
            // A strategy outside says its value with its intents.
            if !alpha.source.is_outside() {
                alpha.signal = alpha
                    .source
                    .evaluate(&self.markets[market_index], header.sequence_time_ns);
                if alpha.signal.is_nan() {
                    self.counters.nan_signals += 1;
                }
            }
            if let Some(code) = alpha.source.fault() {
                self.counters.count_signal_fault(code);
            }
            let (market, now_ns) = (&self.markets[market_index], header.sequence_time_ns);
            let quote_age_ns_max = self.config.account_limits.quote_age_ns_max;
            if alpha.source.is_outside() {
                // What a strategy outside calls its signal is no feature of ours.
            } else if alpha.signal.is_finite() {
                self.watch.note_number(alpha_index, market.epoch);
            } else if market.book.fault(now_ns, quote_age_ns_max).is_none() {
                self.watch.note_failure(alpha_index, market.epoch, now_ns);
            }
            self.decide(alpha_index, header, out);
        }
    }

    /// Lets templates see what traded in front of their quotes.
    fn note_print(&mut self, market_index: usize, record: &TradeRecord) {
        for alpha in &mut self.alphas {
            if alpha.market_index == market_index {
                alpha
                    .memory
                    .on_print(record.price, record.qty, record.aggressor_side);
            }
        }
    }

    fn decide_all(&mut self, header: &RecordHeader, out: &mut Vec<DecisionRecord>) {
        for alpha_index in 0..self.alphas.len() {
            self.decide(alpha_index, header, out);
        }
    }

    /// Lets one alpha's template wish, and takes the wishes through the steps.
    fn decide(&mut self, alpha_index: usize, header: &RecordHeader, out: &mut Vec<DecisionRecord>) {
        let now_ns = header.sequence_time_ns;
        self.refresh_alpha(alpha_index, now_ns);
        self.watch_marks(header, out);
        self.note_latches(alpha_index, header, out);
        self.account
            .clear_exit(self.alphas[alpha_index].market_index, alpha_index);
        let alpha = &self.alphas[alpha_index];
        let market = &self.markets[alpha.market_index];
        let (mode, cancel_reason) = self.mode(alpha, now_ns);
        // The scratch lists are taken out and put back, which allocates nothing.
        let (mut own, mut wishes) = (
            std::mem::take(&mut self.own_orders),
            std::mem::take(&mut self.wishes),
        );
        own.clear();
        wishes.clear();
        if self.account.open_count(alpha_index) > 0 {
            let is_own = |order: &&Order| order.alpha_index as usize == alpha_index;
            own.extend(
                self.gateway
                    .open_orders()
                    .filter(is_own)
                    .take(OWN_ORDER_COUNT_MAX),
            );
        }
        let alpha = &mut self.alphas[alpha_index];
        let values = market.features.values();
        let view = View {
            now_ns,
            book: &market.book,
            is_tradable: market
                .book
                .fault(now_ns, self.config.account_limits.quote_age_ns_max)
                .is_none(),
            signal: alpha.signal,
            position_qty: alpha.tradable_qty(),
            entry_ns: alpha.entry_ns,
            clip_qty: alpha.clip_qty,
            position_qty_max: alpha.position_qty_max,
            order_qty_max: alpha.config.limits.order_qty_max,
            tick_size: market.instrument.tick_size,
            ticks: &market.ticks,
            lot_size: market.instrument.lot_size,
            volatility: strategy::per_root_second(values[crate::features::VOLATILITY_10S]),
            multiplier: market.instrument.multiplier,
            costs: &market.instrument.costs,
            trading_end_ns: self.trading_end_ns,
            limit_up: market.instrument.limit_up,
            limit_down: market.instrument.limit_down,
            mode,
            cancel_reason,
        };
        let template = &alpha.config.template;
        strategy::wish(template, &view, &own, &mut alpha.memory, &mut wishes);
        if !wishes.is_empty() {
            if self.trace.is_some() {
                let wanted = strategy::wanted(template, &view);
                self.trace_wishes(alpha_index, wanted, &own, now_ns);
            }
            for wish in &wishes {
                self.take_wish(alpha_index, wish, header, out);
            }
            self.trace_wished();
        }
        (self.own_orders, self.wishes) = (own, wishes);
    }

    fn on_broker(
        &mut self,
        header: &RecordHeader,
        record: &BrokerRecord,
        out: &mut Vec<DecisionRecord>,
    ) -> Result<(), ReasonCode> {
        let now_ns = header.sequence_time_ns;
        let before = self.gateway.order(record.order_id).copied();
        let outcome = match self.gateway.on_broker(record) {
            Ok(outcome) => outcome,
            Err(code) => {
                self.counters.count_broker(code);
                self.latch_odd_report(record, code, now_ns);
                return Err(code);
            }
        };
        if let Some(code) = outcome.code {
            self.counters.count_broker(code);
            self.latch_odd_report(record, code, now_ns);
        }
        let is_rejected = record.event_kind == BrokerEventKind::Rejected as u32;
        if is_rejected {
            self.counters.count_broker(ReasonCode::BrokerRejected);
        }
        let is_unknown = record.event_kind == BrokerEventKind::Unknown as u32;
        if is_rejected || is_unknown {
            self.rejects.push(now_ns);
            self.watch_rejects(now_ns);
        }
        if is_unknown {
            self.unknowns.push(now_ns);
        }
        if let Some(before) = before {
            self.account.on_order(&before, &outcome.order);
        }
        self.watch.answered(record, &outcome.order, now_ns);
        let alpha_index = outcome.order.alpha_index as usize;
        if outcome.fill_qty > 0 {
            self.take_fill(
                alpha_index,
                &outcome.order,
                outcome.fill_qty,
                record,
                now_ns,
            );
        }
        // An exit that waited for this order goes before its owner can quote again.
        let waiting = self.account.waiting_exit(outcome.order.market_index);
        if let Some(exit) = waiting.filter(|exit| exit.alpha_index != alpha_index) {
            self.decide(exit.alpha_index, header, out);
        }
        self.decide(alpha_index, header, out);
        Ok(())
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The config in force at construction.
    #[must_use]
    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// Why everything is halted, if it is.
    #[must_use]
    pub fn halted_by(&self) -> Option<ReasonCode> {
        self.policy.halted.map(|(code, _)| code)
    }

    /// The book of an instrument, if the engine knows it.
    #[must_use]
    pub fn book(&self, instrument_id: u32) -> Option<&Book> {
        let market_index = self.market_index(instrument_id).ok()?;
        Some(&self.markets[market_index].book)
    }

    /// Open orders, oldest first.
    pub fn open_orders(&self) -> impl Iterator<Item = &Order> {
        self.gateway.open_orders()
    }

    /// The order called `order_id`, open or recently done.
    #[must_use]
    pub fn order(&self, order_id: u64) -> Option<&Order> {
        self.gateway.order(order_id)
    }

    /// What an operator adopted as external, by instrument.
    #[must_use]
    pub fn adopted(&self) -> std::collections::BTreeMap<u32, i64> {
        let places = self.market_places.iter();
        places
            .map(|(instrument_id, market_index)| {
                (*instrument_id, self.account.adopted_qty(*market_index))
            })
            .collect()
    }

    /// Sums of the account: positions over all alphas, the external part, its result.
    #[must_use]
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// Result of every alpha, in config order.
    pub fn results(&self) -> impl Iterator<Item = AlphaResult> {
        let account = self.halted_by();
        let latch = self.account.loss_latch();
        self.alphas.iter().map(move |alpha| AlphaResult {
            alpha_index: alpha.config.alpha_index,
            position_qty: alpha.position.qty,
            gross_pnl: alpha.position.gross(),
            realised_pnl: alpha.position.realised(),
            fees: alpha.position.fees(),
            net_pnl: alpha.position.net(),
            drawdown_max: alpha.position.drawdown_max(),
            fill_count: alpha.fill_count,
            weight_ppm: alpha.weight_ppm,
            stage: alpha.stage,
            halted_by: account
                .or(alpha.halted.map(|(code, _)| code))
                .or(alpha.loss_latch)
                .or(latch)
                .or(alpha.permit_fault()),
            signal: alpha.signal,
        })
    }
}

/// End of the last `open` window; the beginning of time when there is none.
fn trading_end_ns(session: &SessionConfig) -> i64 {
    let open = session
        .phases
        .iter()
        .rfind(|window| window.phase == Phase::Open);
    open.map_or(i64::MIN, |window| window.end_ns)
}

fn read<R: Record>(bytes: &[u8]) -> Result<R, ReasonCode> {
    R::read(bytes).ok_or(ReasonCode::SchemaMismatch)
}
