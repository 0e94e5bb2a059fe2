//! Several instruments and several alphas in one engine, and what every decision carries.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests stop at the first surprise"
)]

mod support;

use std::collections::BTreeMap;

use _core::engine::{APPROVED, Engine};
use _core::record::{
    ActionKind, BookRecord, BrokerEventKind, BrokerRecord, CommandKind, DecisionRecord,
    IntentReason, Record, RecordType, SCALE, Tape,
};
use serde_json::Value;
use support::{INSTRUMENT, MAKER, START, TAKER, alpha_json, book, command, config_json, tape};

const OTHER: u32 = INSTRUMENT + 1;
/// How much slower than the shared tape.
const SLOWNESS: i64 = 8;
const TTL_NS: i64 = 1_000_000_000;

const COST_TAKER: &str = r#"{"kind":"cost_taker","entry_ticks":1.0,"exit_ticks":0.0,"hold_ns":2000000000,
    "slippage_ticks":1,"cost_margin_ticks":0.0}"#;
const QUEUE_MAKER: &str = r#"{"kind":"queue_maker","half_spread_ticks":0.5,"inventory_skew_ticks":0.5,
    "signal_skew":0.1,"requote_ticks":1.0,"requote_gain_ticks":0.01,"queue_lots":10.0,"edge_ticks_min":0.2}"#;
const AVELLANEDA_STOIKOV: &str = r#"{"kind":"avellaneda_stoikov_maker","gamma":0.1,"k":1.5,
    "sigma_source":"measured","sigma_ticks":0.1,"horizon":"session_end","horizon_ns":2000000000,
    "signal_skew":0.1,"requote_ticks":1.0,"requote_gain_ticks":0.0,"queue_lots":10.0,"edge_ticks_min":0.0}"#;
const GLFT: &str = r#"{"kind":"glft_maker","gamma":0.1,"k":1.5,"fills_per_s":1.0,"sigma_source":"stated",
    "sigma_ticks":0.5,"signal_skew":0.1,"requote_ticks":1.0,"requote_gain_ticks":0.0,"queue_lots":10.0,
    "edge_ticks_min":0.0}"#;
const TARGET: &str = r#"{"kind":"target","ticks_per_clip":0.5,"dead_band_ticks":0.3,"clips_max":3.0,
    "trade_clips_min":1.0,"patience_ns":200000000,"requote_ticks":1.0,"slippage_ticks":1}"#;
const AT_ONCE: &str = r#"{"kind":"target","ticks_per_clip":0.5,"dead_band_ticks":0.3,"clips_max":3.0,
    "trade_clips_min":1.0,"patience_ns":0,"requote_ticks":1.0,"slippage_ticks":1}"#;

/// An engine with two instruments and these alphas: instrument, template, expression.
fn engine(alphas: &[(u32, &str, &str)]) -> Engine {
    let mut config: Value = serde_json::from_str(&config_json(TAKER, "0")).unwrap();
    let mut other = config["instruments"][0].clone();
    other["instrument_id"] = OTHER.into();
    other["symbol"] = "TXFE6".into();
    config["instruments"].as_array_mut().unwrap().push(other);
    let mut rows = Vec::new();
    for (place, (instrument_id, template, expression)) in alphas.iter().enumerate() {
        let text = alpha_json(u32::try_from(place).unwrap(), template, expression);
        let mut row: Value = serde_json::from_str(&text).unwrap();
        row["instrument_id"] = (*instrument_id).into();
        // Alphas are known by their name, so one keeps its name in whatever engine it is.
        row["alpha_id"] = format!("{instrument_id}_{}", row["template"]["kind"]).into();
        row["limits"]["order_rate_max"] = 1_000.into();
        rows.push(row);
    }
    config["alphas"] = rows.into();
    config["account_limits"]["order_rate_max"] = 1_000.into();
    config["account_limits"]["quote_age_ns_max"] = 60_000_000_000_i64.into();
    Engine::from_json(&config.to_string()).unwrap()
}

/// A walk of one instrument's books and prints, slow enough for the account's request rate; times
/// of different instruments never collide.
fn market(instrument_id: u32, seed: u64, count: usize) -> Vec<(i64, u32, Vec<u8>)> {
    let bytes = tape(seed, count);
    let mut rows = Vec::new();
    for item in Tape::new(&bytes) {
        let (header, record) = item.unwrap();
        // Half a microsecond apart, which leaves room for the broker's answers.
        let offset_ns = i64::from(instrument_id - INSTRUMENT) * 500;
        let since_ns = (header.receive_time_ns - START) * SLOWNESS;
        let time_ns = START + since_ns / 1_000 * 1_000 + offset_ns;
        rows.push((time_ns, instrument_id, record.to_vec()));
    }
    rows
}

/// Feeds market records by time, answers every order at once, keeps what was decided.
struct Venue {
    engine: Engine,
    input_seq: u64,
    broker_seq: u64,
    best: BTreeMap<u32, (i64, i64)>,
    resting: Vec<DecisionRecord>,
    decisions: Vec<DecisionRecord>,
    /// Sequence number and time of every input.
    inputs: BTreeMap<u64, (i64, RecordType)>,
}

impl Venue {
    fn new(engine: Engine) -> Self {
        Self {
            engine,
            input_seq: 0,
            broker_seq: 0,
            best: BTreeMap::new(),
            resting: Vec::new(),
            decisions: Vec::new(),
            inputs: BTreeMap::new(),
        }
    }

    fn run(mut self, mut rows: Vec<(i64, u32, Vec<u8>)>) -> Self {
        rows.sort_by_key(|row| row.0);
        for (time_ns, instrument_id, bytes) in rows {
            let mut now_ns = time_ns;
            if let Some(book) = BookRecord::read(&bytes) {
                self.best
                    .insert(instrument_id, (book.bid_price[0], book.ask_price[0]));
                self.match_resting(instrument_id, &mut now_ns);
            }
            let made = self.feed(&bytes, instrument_id, now_ns);
            self.answer(&made, &mut now_ns);
        }
        self
    }

    fn feed(&mut self, bytes: &[u8], instrument_id: u32, now_ns: i64) -> Vec<DecisionRecord> {
        self.input_seq += 1;
        let mut header = _core::record::peek_header(bytes).unwrap();
        header.instrument_id = instrument_id;
        header.input_seq = self.input_seq;
        header.sequence_time_ns = now_ns;
        let kind = RecordType::from_code(header.record_type).unwrap();
        self.inputs.insert(self.input_seq, (now_ns, kind));
        let mut out = Vec::new();
        self.engine.on_record(&header, bytes, &mut out);
        self.decisions.extend_from_slice(&out);
        out
    }

    fn report(
        &mut self,
        kind: BrokerEventKind,
        order: &DecisionRecord,
        price: i64,
        now_ns: &mut i64,
    ) {
        self.broker_seq += 1;
        *now_ns += 1;
        let record = BrokerRecord {
            event_kind: kind as u32,
            order_id: order.order_id,
            side: order.side,
            price,
            qty: order.qty,
            broker_seq: self.broker_seq,
            ..BrokerRecord::empty()
        };
        let made = self.feed(record.as_bytes(), order.header.instrument_id, *now_ns);
        self.answer(&made, now_ns);
    }

    fn answer(&mut self, decisions: &[DecisionRecord], now_ns: &mut i64) {
        for order in decisions.iter().filter(|row| row.verdict == APPROVED) {
            if order.action == ActionKind::Cancel as u32 {
                let held = self.resting.len();
                self.resting.retain(|row| row.order_id != order.order_id);
                if self.resting.len() < held {
                    self.report(BrokerEventKind::Canceled, order, order.price, now_ns);
                }
                continue;
            }
            self.report(BrokerEventKind::Working, order, order.price, now_ns);
            let (bid, ask) = self.best[&order.header.instrument_id];
            let far = if order.side > 0 { ask } else { bid };
            if (order.price - far) * order.side >= 0 {
                self.report(BrokerEventKind::Fill, order, far, now_ns);
            } else if order.time_in_force == 1 {
                self.resting.push(*order);
            } else {
                self.report(BrokerEventKind::Expired, order, order.price, now_ns);
            }
        }
    }

    fn match_resting(&mut self, instrument_id: u32, now_ns: &mut i64) {
        let (bid, ask) = self.best[&instrument_id];
        let is_hit = |row: &DecisionRecord| {
            let far = if row.side > 0 { ask } else { bid };
            row.header.instrument_id == instrument_id && (row.price - far) * row.side >= 0
        };
        while let Some(place) = self.resting.iter().position(is_hit) {
            let order = self.resting.remove(place);
            self.report(BrokerEventKind::Fill, &order, order.price, now_ns);
        }
        *now_ns += 1;
    }

    fn fills(&self) -> u64 {
        self.engine.counters().fills
    }
}

/// What an alpha decided, without the numbers that count all inputs of an engine.
fn decided(venue: &Venue, alpha_index: u32) -> Vec<String> {
    let own = venue
        .decisions
        .iter()
        .filter(|row| row.alpha_index == alpha_index);
    own.map(|row| {
        format!(
            "{} {} {} {} {} {} {} {} {} {} {} {} {}",
            row.header.sequence_time_ns,
            row.intent_id,
            row.action,
            row.verdict,
            row.reason_code,
            row.intent_reason,
            row.time_in_force,
            row.side,
            row.price,
            row.qty,
            row.signal.to_bits(),
            row.position_qty,
            row.open_buy_qty - row.open_sell_qty
        )
    })
    .collect()
}

/// Equal, or the first row that is not.
fn assert_same(left: &[String], right: &[String]) {
    let first = left.iter().zip(right).find(|(a, b)| a != b);
    assert_eq!(first, None);
    assert_eq!(left.len(), right.len());
}

/// Actions with their reasons.
type Pairs = &'static [(u32, u32)];

const MILD: &str = "0.3 * imbalance_l1";
const STRONG: &str = "k * imbalance_l1";

#[test]
fn an_alpha_decides_the_same_whatever_another_instrument_does() {
    let alphas = [(INSTRUMENT, MAKER, MILD), (OTHER, TAKER, STRONG)];
    let (one, two) = (market(INSTRUMENT, 5, 2_200), market(OTHER, 6, 2_200));
    let both = Venue::new(engine(&alphas)).run([one.clone(), two.clone()].concat());
    let first = Venue::new(engine(&alphas)).run(one.clone());
    let second = Venue::new(engine(&alphas)).run(two);
    let alone = Venue::new(engine(&alphas[..1])).run(one);
    assert!(decided(&both, 0).len() > 500, "{}", decided(&both, 0).len());
    assert!(decided(&both, 1).len() > 500);
    assert_same(&decided(&both, 0), &decided(&first, 0));
    assert_same(&decided(&both, 1), &decided(&second, 1));
    assert_same(&decided(&both, 0), &decided(&alone, 0));
    assert_eq!(
        decided(&first, 1),
        Vec::<String>::new(),
        "its market was silent"
    );
    assert_eq!(both.fills(), first.fills() + second.fills());
    // The comparison sees a difference: another market, other decisions.
    let changed = Venue::new(engine(&alphas)).run(market(INSTRUMENT, 7, 2_200));
    assert!(decided(&both, 0) != decided(&changed, 0));
}

#[test]
fn two_alphas_of_one_instrument_decide_in_the_order_of_the_config_and_for_themselves() {
    let taker = (INSTRUMENT, TAKER, STRONG);
    let target = (INSTRUMENT, AT_ONCE, "0.8 * imbalance_l1");
    let rows = || market(INSTRUMENT, 9, 2_200);
    let both = Venue::new(engine(&[taker, target])).run(rows());
    let swapped = Venue::new(engine(&[target, taker])).run(rows());
    let alone = [taker, target].map(|alpha| Venue::new(engine(&[alpha])).run(rows()));
    // Both act on the records of one instrument; neither sees position or orders of the other.
    let untimed = |rows: Vec<String>| -> Vec<String> {
        rows.iter()
            .map(|row| row.split_once(' ').unwrap().1.to_owned())
            .collect()
    };
    for (place, single) in [0, 1].into_iter().zip(&alone) {
        assert!(decided(single, 0).len() > 500);
        let together = untimed(decided(&both, place));
        assert_same(&together, &untimed(decided(single, 0)));
        assert_same(&together, &untimed(decided(&swapped, 1 - place)));
    }
    for venue in [&both, &swapped] {
        let mut shared = 0;
        for pair in venue.decisions.windows(2) {
            if pair[0].header.input_seq == pair[1].header.input_seq {
                assert!(
                    pair[0].alpha_index <= pair[1].alpha_index,
                    "order of the config"
                );
                shared += usize::from(pair[0].alpha_index < pair[1].alpha_index);
            }
        }
        assert!(shared > 20, "{shared} records moved both");
    }
}

#[test]
fn the_same_inputs_decide_the_same_in_another_engine() {
    let alphas = [
        (INSTRUMENT, QUEUE_MAKER, MILD),
        (OTHER, AVELLANEDA_STOIKOV, MILD),
        (OTHER, COST_TAKER, "8 * imbalance_l1"),
        (INSTRUMENT, TARGET, STRONG),
    ];
    let run = || {
        Venue::new(engine(&alphas))
            .run([market(INSTRUMENT, 1, 1_500), market(OTHER, 2, 1_500)].concat())
    };
    let (first, second) = (run(), run());
    for place in 0..4 {
        assert!(!decided(&first, place).is_empty(), "{place}");
        assert_same(&decided(&first, place), &decided(&second, place));
    }
}

#[test]
fn every_decision_of_every_template_carries_its_reason_its_validity_and_its_cause() {
    const ENTRY: (u32, u32) = (ActionKind::Place as u32, IntentReason::Entry as u32);
    const EXIT: (u32, u32) = (ActionKind::Place as u32, IntentReason::Exit as u32);
    const QUOTE: (u32, u32) = (ActionKind::Place as u32, IntentReason::Quote as u32);
    const REQUOTE: (u32, u32) = (ActionKind::Cancel as u32, IntentReason::Requote as u32);
    let flatten = IntentReason::Flatten as u32;
    let cases: [(&str, &str, Pairs); 7] = [
        (TAKER, STRONG, &[ENTRY, EXIT]),
        (COST_TAKER, "8 * imbalance_l1", &[ENTRY, EXIT]),
        (MAKER, MILD, &[QUOTE, REQUOTE]),
        (QUEUE_MAKER, MILD, &[QUOTE, REQUOTE]),
        (AVELLANEDA_STOIKOV, MILD, &[QUOTE, REQUOTE]),
        (GLFT, MILD, &[QUOTE, REQUOTE]),
        (TARGET, STRONG, &[ENTRY, EXIT, REQUOTE]),
    ];
    for (template, expression, expected) in cases {
        // Long enough to reach the window in which positions are closed.
        let rows = market(INSTRUMENT, 3, 3_200);
        let venue = Venue::new(engine(&[(INSTRUMENT, template, expression)])).run(rows);
        let mut seen: BTreeMap<(u32, u32), u64> = BTreeMap::new();
        for row in &venue.decisions {
            let (time_ns, kind) = venue.inputs[&row.header.input_seq];
            assert_eq!(row.header.sequence_time_ns, time_ns, "the cause's time");
            assert!(matches!(
                kind,
                RecordType::Book | RecordType::Trade | RecordType::Broker
            ));
            assert_eq!(row.ttl_ns, TTL_NS);
            assert_eq!(row.header.instrument_id, INSTRUMENT);
            assert!(row.intent_id != 0 && row.side.abs() == 1);
            assert!(row.verdict != APPROVED || (row.price > 0 && row.qty > 0 && row.order_id > 0));
            assert!(row.price % SCALE == 0 && row.qty % SCALE == 0);
            *seen.entry((row.action, row.intent_reason)).or_default() += 1;
        }
        for pair in expected {
            assert!(
                seen.get(pair).is_some_and(|count| *count > 3),
                "{template}: {seen:?}"
            );
        }
        for pair in seen.keys() {
            assert!(
                expected.contains(pair) || pair.1 == flatten,
                "{template}: {seen:?}"
            );
        }
        assert!(venue.fills() > 20, "{template}: {}", venue.fills());
        let mut last = (0, 0);
        for row in &venue.decisions {
            assert!(row.decision_seq == last.0 + 1 && row.header.input_seq >= last.1);
            last = (row.decision_seq, row.header.input_seq);
        }
    }
}

/// A quote whose cancel nobody answers does not hold the position for ever: after two seconds the
/// exit goes, once, for what the silent order cannot close.
#[test]
fn an_order_that_nobody_answers_holds_an_exit_up_for_two_seconds_only() {
    let config = support::config(MAKER, "0 * imbalance_l1");
    let mut session = support::Session::new(config);
    let quotes = session.feed_book(book(35_000, 2, 10, 10));
    assert_eq!(quotes.len(), 2, "a bid at 35,000 and an ask at 35,002");
    // The asks are bid for, and from here on nobody answers.
    session.feed_book(book(35_002, 2, 10, 10));
    assert_eq!(session.position(), -2);
    session.answers = false;
    let asked = session.feed(command(CommandKind::Flatten, u32::MAX, 0));
    let cancels = asked
        .iter()
        .filter(|row| row.action == ActionKind::Cancel as u32);
    assert_eq!(cancels.count(), asked.len(), "resting orders go first");
    assert!(!asked.is_empty());
    let mut exits = Vec::new();
    for _ in 0..8 {
        session.now += 500_000_000;
        exits.extend(session.feed_book(book(35_002, 2, 10, 10)));
    }
    assert_eq!(exits.len(), 1, "{exits:?}");
    // Two lots short, of which the silent bid may still buy one.
    let exit = exits[0];
    assert_eq!(
        (exit.verdict, exit.side, exit.qty, exit.intent_reason),
        (APPROVED, 1, SCALE, IntentReason::Flatten as u32)
    );
    let waited_ns = exit.header.sequence_time_ns - asked[0].header.sequence_time_ns;
    assert!(
        (2_000_000_000..2_600_000_000).contains(&waited_ns),
        "{waited_ns}"
    );
}
