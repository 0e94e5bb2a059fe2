//! What the engine's tests and benchmark share: a config, a synthetic day, and a tiny venue.
#![allow(dead_code, reason = "every test binary uses another part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests stop at the first surprise"
)]

use _core::engine::{APPROVED, Engine, EngineConfig, NOTED, Sequencer};
use _core::record::{
    ActionKind, BookRecord, BrokerEventKind, BrokerRecord, CommandKind, CommandRecord,
    ConfigSwitchRecord, DecisionRecord, Record, RecordHeader, SCALE, TimerRecord, TradeRecord,
    flags,
};

pub const SECOND: i64 = 1_000_000_000;
pub const START: i64 = 1_775_000_000 * SECOND;
pub const INSTRUMENT: u32 = 1001;

pub const TAKER: &str = r#"{"kind":"taker","entry_ticks":1.0,"exit_ticks":0.0,"hold_ns":5000000000,"slippage_ticks":1}"#;
pub const MAKER: &str = r#"{"kind":"maker","half_spread_ticks":0.5,"requote_ticks":1.0,"signal_skew":1.0,"inventory_skew_ticks":0.5}"#;

/// A storm guard that never speaks: no threshold.
pub const CALM: &str = r#"{"risk_capital":100000000000000,"drawdown_bps":{"warm_in":null,"warm_out":null,"storm_in":null,"storm_out":null,"halt_in":null,"halt_out":null},"feed_gap_ns":{"warm_in":null,"warm_out":null,"storm_in":null,"storm_out":null,"halt_in":null,"halt_out":null},"loop_lag_ns":{"warm_in":null,"warm_out":null,"storm_in":null,"storm_out":null,"halt_in":null,"halt_out":null},"order_rtt_ns":{"warm_in":null,"warm_out":null,"storm_in":null,"storm_out":null,"halt_in":null,"halt_out":null},"reject_count":{"warm_in":null,"warm_out":null,"storm_in":null,"storm_out":null,"halt_in":null,"halt_out":null},"drift_reports":{"warm_in":null,"warm_out":null,"storm_in":null,"storm_out":null,"halt_in":null,"halt_out":null},"feature_failures":{"warm_in":null,"warm_out":null,"storm_in":null,"storm_out":null,"halt_in":null,"halt_out":null},"normaliser_failures":{"warm_in":null,"warm_out":null,"storm_in":null,"storm_out":null,"halt_in":null,"halt_out":null},"open_grace_ns":60000000000,"failure_window_ns":60000000000,"clears":5,"cool_down_warm_ns":30000000000,"cool_down_storm_ns":30000000000,"hold_warm_ns":300000000000,"hold_storm_ns":120000000000,"resume_window_ns":60000000000}"#;

/// A config as the contract spells it, one alpha.
pub fn config_json(template: &str, expression: &str) -> String {
    let alpha = alpha_json(0, template, expression);
    format!(
        r#"{{"schema":1,
        "session":{{"session_id":"2026-04-10/day","trading_day":20260410,"phases":[
            {{"start_ns":{START},"end_ns":{close},"phase":"open"}},
            {{"start_ns":{close},"end_ns":{flat},"phase":"close_only"}},
            {{"start_ns":{flat},"end_ns":{end},"phase":"force_flat"}}]}},
        "instruments":[{{"instrument_id":{INSTRUMENT},"symbol":"TXFD6","tick_size":{SCALE},"lot_size":{SCALE},
            "multiplier":{multiplier},"limit_up":{up},"limit_down":{down},
            "order_qty_max":null,"banding_bps":null,"eligibility":"full",
            "costs":{{"kind":"taifex_future","tax_rate_ppb":20000,"tax_round":true,"commission_per_lot":{commission}}}}}],
        "alphas":[{alpha}],
        "account_limits":{{"gross_notional_max":9000000000000000000,"net_notional_max":9000000000000000000,
            "position_lots_max":1000,"daily_loss_max":9000000000000000000,"drawdown_max":9000000000000000000,
            "loss_speed_max":9000000000000000000,"free_margin_min":null,"account_age_ns_max":60000000000,
            "order_rate_max":180,"cancel_reserve":60,"order_to_trade_max":1000,"reject_rate_max":5,
            "unknown_rate_max":5,"one_side_fill_max":1000,
            "price_collar_bps":50,"exit_collar_bps":100,"quote_age_ns_max":2000000000,
            "clock_skew_ns_max":null,"repeated_order_max":20}},
        "storm_guard":{CALM}}}"#,
        close = START + 600 * SECOND,
        flat = START + 660 * SECOND,
        end = START + 720 * SECOND,
        multiplier = 200 * SCALE,
        up = 38_000 * SCALE,
        down = 32_000 * SCALE,
        commission = 60 * SCALE,
    )
}

pub fn alpha_json(alpha_index: u32, template: &str, expression: &str) -> String {
    format!(
        r#"{{"alpha_index":{alpha_index},"alpha_id":"alpha_{alpha_index}","instrument_id":{INSTRUMENT},
        "expression":"{expression}","parameters":{{"k":2.0}},"template":{template},
        "order_qty":{SCALE},"ttl_ns":1000000000,
        "limits":{{"order_qty_max":{order_max},"position_qty_max":{position_max},"daily_loss_max":{loss},
            "drawdown_max":{loss},"loss_speed_max":{loss},"order_rate_max":100}},
        "stage":"research","weight_ppm":1000000,"expires_ns":{expires},"promotion_seq":0,"config_sha256":"",
        "on_withdrawal":{{"action":"flatten","deadline_ns":0}}}}"#,
        order_max = 2 * SCALE,
        position_max = 3 * SCALE,
        loss = 1_000_000 * SCALE,
        expires = START + 100_000 * SECOND,
    )
}

pub fn config(template: &str, expression: &str) -> EngineConfig {
    serde_json::from_str(&config_json(template, expression)).unwrap()
}

/// A book with `spread` ticks, equal queues behind the best.
pub fn book(bid: i64, spread: i64, bid_qty: i64, ask_qty: i64) -> BookRecord {
    let mut record = BookRecord::empty();
    record.header.instrument_id = INSTRUMENT;
    for level in 0..5_usize {
        let offset = i64::try_from(level).unwrap();
        record.bid_price[level] = (bid - offset) * SCALE;
        record.ask_price[level] = (bid + spread + offset) * SCALE;
        record.bid_qty[level] = if level == 0 { bid_qty } else { 10 } * SCALE;
        record.ask_qty[level] = if level == 0 { ask_qty } else { 10 } * SCALE;
    }
    record
}

pub fn trade(price: i64, qty: i64, side: i64) -> TradeRecord {
    let mut record = TradeRecord {
        price: price * SCALE,
        qty: qty * SCALE,
        aggressor_side: side,
        ..TradeRecord::empty()
    };
    record.header.instrument_id = INSTRUMENT;
    record
}

pub fn command(kind: CommandKind, alpha_index: u32, argument: i64) -> CommandRecord {
    CommandRecord {
        command_kind: kind as u32,
        alpha_index,
        argument,
        ..CommandRecord::empty()
    }
}

pub fn switch(weight_ppm: u64, promotion_seq: u64) -> ConfigSwitchRecord {
    let expires_ns = START + 100_000 * SECOND;
    ConfigSwitchRecord {
        stage: 2,
        weight_ppm,
        promotion_seq,
        expires_ns,
        ..ConfigSwitchRecord::empty()
    }
}

/// A deterministic stream of numbers, for tapes only.
pub struct Draw(pub u64);

impl Draw {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        low + i64::try_from(self.below(u64::try_from(high - low).unwrap())).unwrap()
    }
}

/// A synthetic day: books and prints of a random walk, unsequenced.
pub fn tape(seed: u64, book_count: usize) -> Vec<u8> {
    let mut draw = Draw(seed);
    let mut bytes = Vec::with_capacity(book_count * 256);
    let (mut bid, mut now) = (35_000_i64, START);
    for place in 0..book_count {
        now += draw.between(1_000_000, 60_000_000);
        bid += draw.between(-1, 2);
        bid = bid.clamp(33_000, 37_000);
        let mut record = book(
            bid,
            draw.between(1, 3),
            draw.between(1, 30),
            draw.between(1, 30),
        );
        if place == 0 {
            record.header.flags = flags::SESSION_START;
        }
        record.header.receive_time_ns = now;
        record.header.source_seq = place as u64;
        bytes.extend_from_slice(record.as_bytes());
        if draw.below(4) == 0 {
            now += 1_000;
            let side = if draw.below(2) == 0 { 1 } else { -1 };
            let mut print = trade(bid + i64::from(side > 0), draw.between(1, 5), side);
            print.header.receive_time_ns = now;
            bytes.extend_from_slice(print.as_bytes());
        }
    }
    bytes
}

/// An engine with a sequencer and a venue that answers at once.
pub struct Session {
    pub engine: Engine,
    pub sequencer: Sequencer,
    pub now: i64,
    pub out: Vec<DecisionRecord>,
    /// Every input, sequenced.
    pub inputs: Vec<u8>,
    /// Every decision.
    pub decisions: Vec<DecisionRecord>,
    resting: Vec<DecisionRecord>,
    best: (i64, i64),
    broker_seq: u64,
    /// When off, orders are never answered.
    pub answers: bool,
}

impl Session {
    pub fn new(config: EngineConfig) -> Self {
        Self {
            engine: Engine::new(config).unwrap(),
            sequencer: Sequencer::default(),
            now: START,
            out: Vec::with_capacity(64),
            inputs: Vec::new(),
            decisions: Vec::new(),
            resting: Vec::new(),
            best: (0, 0),
            broker_seq: 0,
            answers: true,
        }
    }

    /// Feeds one record at the current time and gives the decisions it caused directly.
    pub fn feed<R: Record>(&mut self, mut record: R) -> Vec<DecisionRecord> {
        self.now += 1;
        let mut header: RecordHeader = *record.header();
        self.sequencer.stamp(&mut header, self.now);
        *record.header_mut() = header;
        self.feed_sequenced(&header, record.as_bytes())
    }

    fn feed_sequenced(&mut self, header: &RecordHeader, bytes: &[u8]) -> Vec<DecisionRecord> {
        self.inputs.extend_from_slice(bytes);
        self.out.clear();
        self.engine.on_record(header, bytes, &mut self.out);
        self.decisions.extend_from_slice(&self.out);
        // Notes of a changed state are in `decisions`; they are no answer to the record.
        let mut direct = self.out.clone();
        direct.retain(|decision| decision.verdict != NOTED);
        if self.answers {
            self.answer(&direct);
        }
        direct
    }

    pub fn wait(&mut self, duration_ns: i64) -> Vec<DecisionRecord> {
        self.now += duration_ns;
        self.feed(TimerRecord::empty())
    }

    pub fn feed_book(&mut self, record: BookRecord) -> Vec<DecisionRecord> {
        self.best = (record.bid_price[0], record.ask_price[0]);
        // The exchange matches before we see the book.
        self.match_resting();
        self.feed(record)
    }

    /// Feeds a whole tape in its own time.
    pub fn feed_tape(&mut self, tape: &[u8]) {
        for item in _core::record::Tape::new(tape) {
            let (header, bytes) = item.unwrap();
            self.now = self.now.max(header.receive_time_ns - 1);
            match BookRecord::read(bytes) {
                Some(record) => drop(self.feed_book(record)),
                None => drop(self.feed(TradeRecord::read(bytes).unwrap())),
            }
        }
    }

    pub fn report(
        &mut self,
        kind: BrokerEventKind,
        decision: &DecisionRecord,
        price: i64,
        qty: i64,
        is_maker: bool,
    ) -> Vec<DecisionRecord> {
        self.broker_seq += 1;
        let record = BrokerRecord {
            event_kind: kind as u32,
            order_id: decision.order_id,
            side: decision.side,
            price,
            qty,
            broker_seq: self.broker_seq,
            is_maker: u64::from(is_maker),
            ..BrokerRecord::empty()
        };
        self.feed(record)
    }

    fn answer(&mut self, decisions: &[DecisionRecord]) {
        for decision in decisions
            .iter()
            .filter(|decision| decision.verdict == APPROVED)
        {
            if decision.action == ActionKind::Cancel as u32 {
                let held = self.resting.len();
                self.resting
                    .retain(|order| order.order_id != decision.order_id);
                if self.resting.len() < held {
                    self.report(
                        BrokerEventKind::Canceled,
                        decision,
                        decision.price,
                        0,
                        false,
                    );
                }
                continue;
            }
            self.report(
                BrokerEventKind::Working,
                decision,
                decision.price,
                decision.qty,
                false,
            );
            let (bid, ask) = self.best;
            let opposite = if decision.side > 0 { ask } else { bid };
            let crosses = (decision.price - opposite) * decision.side >= 0 && opposite > 0;
            if crosses {
                self.report(
                    BrokerEventKind::Fill,
                    decision,
                    opposite,
                    decision.qty,
                    false,
                );
            } else if decision.time_in_force == 1 {
                self.resting.push(*decision);
            } else {
                self.report(BrokerEventKind::Expired, decision, decision.price, 0, false);
            }
        }
    }

    fn match_resting(&mut self) {
        let (bid, ask) = self.best;
        while let Some(place) = self.resting.iter().position(|order| {
            (order.side > 0 && ask <= order.price) || (order.side < 0 && bid >= order.price)
        }) {
            let order = self.resting.remove(place);
            self.report(BrokerEventKind::Fill, &order, order.price, order.qty, true);
        }
    }

    /// Codes of refused decisions, in order.
    pub fn refusals(&self) -> Vec<u32> {
        self.decisions
            .iter()
            .filter(|decision| decision.verdict == 2)
            .map(|decision| decision.reason_code)
            .collect()
    }

    pub fn position(&self) -> i64 {
        self.engine.results().next().unwrap().position_qty / SCALE
    }
}
