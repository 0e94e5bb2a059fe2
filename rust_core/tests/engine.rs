//! The engine from outside: records in, decisions out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests stop at the first surprise"
)]

mod support;

use std::collections::BTreeMap;

use _core::alpha::{Columns, Expression, Program};
use _core::engine::{
    APPROVED, Engine, EngineConfig, STEPS, Sequencer, evaluate, evaluate_features, feature_columns,
    run_tape,
};
use _core::features::FEATURE_COUNT;
use _core::reason::ReasonCode;
use _core::record::{
    ActionKind, BookRecord, BrokerEventKind, BrokerRecord, CommandKind, DecisionRecord,
    InstrumentRecord, IntentReason, Record, RecordHeader, SCALE, Tape, TimerRecord, flags,
};
use bytemuck::Zeroable;
use proptest::prelude::*;
use support::{
    MAKER, SECOND, START, Session, TAKER, book, command, config, config_json, switch, tape,
};

const ALL: u32 = u32::MAX;
/// Buys when the bid queue is much longer, sells when the ask queue is.
const BY_IMBALANCE: &str = "k * imbalance_l1";

fn bytes(decisions: &[DecisionRecord]) -> Vec<u8> {
    decisions
        .iter()
        .flat_map(|decision| decision.as_bytes().iter().copied())
        .collect()
}

fn buy_signal() -> BookRecord {
    book(35_000, 1, 30, 1)
}

fn no_signal() -> BookRecord {
    book(35_000, 1, 10, 10)
}

fn only(decisions: &[DecisionRecord]) -> DecisionRecord {
    assert_eq!(decisions.len(), 1, "{decisions:?}");
    decisions[0]
}

fn refusal(decisions: &[DecisionRecord]) -> ReasonCode {
    let decision = only(decisions);
    assert_eq!((decision.verdict, decision.order_id), (2, 0));
    ReasonCode::from_code(u16::try_from(decision.reason_code).unwrap()).unwrap()
}

#[test]
fn a_config_with_a_missing_or_unknown_field_is_an_error_that_names_it() {
    let good = config_json(TAKER, BY_IMBALANCE);
    assert!(Engine::from_json(&good).is_ok());
    let cases = [
        ("\"schema\":1,", "", "schema"),
        ("\"limit_up\"", "\"limit_upp\"", "limit_up"),
        ("\"ttl_ns\":1000000000,", "", "ttl_ns"),
        (
            "\"weight_ppm\":1000000",
            "\"weight_ppm\":1000001",
            "weight_ppm",
        ),
        ("\"alpha_index\":0", "\"alpha_index\":1", "alpha_index"),
        (
            "\"instrument_id\":1001,\"symbol\"",
            "\"instrument_id\":7,\"symbol\"",
            "instrument_id",
        ),
        (
            "\"cancel_reserve\":60",
            "\"cancel_reserve\":180",
            "cancel_reserve",
        ),
        (
            "\"trading_day\":20260410",
            "\"trading_day\":20261310",
            "trading_day",
        ),
        ("\"hold_ns\":5000000000", "\"hold_ns\":0", "hold_ns"),
        ("\"phase\":\"open\"", "\"phase\":\"opened\"", "opened"),
    ];
    for (from, to, named) in cases {
        let damaged = good.replacen(from, to, 1);
        assert_ne!(damaged, good, "{from}");
        let error = Engine::from_json(&damaged).unwrap_err();
        assert_eq!(error.code(), ReasonCode::ConfigMalformed);
        assert!(error.to_string().contains(named), "{error}");
    }
    let unknown = Engine::from_json(&config_json(TAKER, "imbalance_l11")).unwrap_err();
    assert_eq!(unknown.code(), ReasonCode::UnknownFeature);
    assert!(
        unknown.to_string().contains("did you mean imbalance_l1?"),
        "{unknown}"
    );
}

#[test]
fn a_taker_enters_holds_and_leaves() {
    let mut session = Session::new(config(TAKER, BY_IMBALANCE));
    assert!(session.feed_book(no_signal()).is_empty());
    let entry = only(&session.feed_book(buy_signal()));
    assert_eq!(
        (entry.verdict, entry.side, entry.price, entry.qty),
        (APPROVED, 1, 35_002 * SCALE, SCALE)
    );
    assert_eq!(
        (entry.order_id, entry.time_in_force, entry.intent_reason),
        (1, 2, IntentReason::Entry as u32)
    );
    assert_eq!(session.position(), 1);
    assert!(
        session.feed_book(buy_signal()).is_empty(),
        "the signal still holds"
    );
    let exit = only(&session.feed_book(no_signal()));
    assert_eq!(
        (exit.intent_reason, exit.side, exit.price),
        (IntentReason::Exit as u32, -1, 34_999 * SCALE)
    );
    assert_eq!(session.position(), 0);
    let result = session.engine.results().next().unwrap();
    assert_eq!(
        result.gross_pnl,
        i128::from(-200 * SCALE),
        "bought at 35,001, sold at 35,000"
    );
    assert_eq!(result.fees, i128::from(2 * (140 + 60) * SCALE));
}

#[test]
fn a_taker_leaves_when_its_time_is_over() {
    let mut session = Session::new(config(TAKER, BY_IMBALANCE));
    session.feed_book(buy_signal());
    session.feed_book(buy_signal());
    assert_eq!(session.position(), 1);
    session.now += 5 * SECOND;
    let exit = only(&session.feed_book(buy_signal()));
    assert_eq!(
        (exit.intent_reason, exit.side, exit.qty),
        (IntentReason::Exit as u32, -1, SCALE)
    );
}

#[test]
fn a_maker_quotes_one_order_a_side_and_moves_by_cancel_then_place() {
    let mut session = Session::new(config(MAKER, "0 * imbalance_l1"));
    let quotes = session.feed_book(no_signal());
    assert_eq!(
        quotes
            .iter()
            .map(|d| (d.side, d.price / SCALE))
            .collect::<Vec<_>>(),
        [(1, 35_000), (-1, 35_001)]
    );
    assert!(session.feed_book(no_signal()).is_empty());
    let before = session.decisions.len();
    session.feed_book(book(35_003, 1, 10, 10));
    let moved: Vec<_> = session.decisions[before..]
        .iter()
        .map(|d| (d.action, d.side, d.price / SCALE))
        .collect();
    assert!(
        moved.contains(&(ActionKind::Cancel as u32, 1, 35_000)),
        "{moved:?}"
    );
    assert!(
        moved.contains(&(ActionKind::Place as u32, 1, 35_003)),
        "{moved:?}"
    );
    for side in [1, -1] {
        assert!(
            session
                .engine
                .open_orders()
                .filter(|order| order.side == side)
                .count()
                <= 1
        );
    }
}

#[test]
fn a_halt_cancels_refuses_and_needs_both_resume_steps() {
    let mut session = Session::new(config(MAKER, "0 * imbalance_l1"));
    session.feed_book(no_signal());
    let canceled = session.feed(command(CommandKind::Halt, ALL, 0));
    assert_eq!(canceled.len(), 2);
    assert!(
        canceled
            .iter()
            .all(|d| d.action == ActionKind::Cancel as u32
                && d.intent_reason == IntentReason::HaltCancel as u32)
    );
    assert_eq!(session.engine.halted_by(), Some(ReasonCode::KillSwitchOn));
    assert!(session.feed_book(no_signal()).is_empty());
    session.feed(command(CommandKind::ResumeConfirm, ALL, 1));
    assert!(session.engine.halted_by().is_some(), "confirm without arm");
    session.feed(command(CommandKind::ResumeArm, ALL, 0));
    let armed = i64::try_from(session.sequencer.last_seq()).unwrap();
    session.feed(command(CommandKind::ResumeConfirm, ALL, armed + 5));
    assert!(session.engine.halted_by().is_some(), "wrong token");
    session.feed(command(CommandKind::ResumeArm, ALL, 0));
    let armed = i64::try_from(session.sequencer.last_seq()).unwrap();
    session.feed(command(CommandKind::ResumeConfirm, ALL, armed));
    assert_eq!(session.engine.halted_by(), None);
    assert_eq!(
        session.feed_book(no_signal()).len() + session.engine.open_orders().count(),
        2
    );
}

type Arrange = fn(&mut Session);

/// What each state of the world answers to an entry signal.
#[test]
fn an_entry_is_refused_with_the_code_of_what_is_wrong() {
    let cases: [(&str, Arrange, ReasonCode); 8] = [
        (
            "halt",
            |s| drop(s.feed(command(CommandKind::Halt, ALL, 0))),
            ReasonCode::KillSwitchOn,
        ),
        (
            "halt one",
            |s| drop(s.feed(command(CommandKind::Halt, 0, 0))),
            ReasonCode::KillSwitchOn,
        ),
        (
            "reduce",
            |s| drop(s.feed(command(CommandKind::ReduceOnly, ALL, 0))),
            ReasonCode::ReduceOnlyOn,
        ),
        (
            "withdraw",
            |s| drop(s.feed(command(CommandKind::Withdraw, 0, 0))),
            ReasonCode::ConfigWithdrawn,
        ),
        (
            "weight",
            |s| drop(s.feed(command(CommandKind::SetWeight, 0, 10))),
            ReasonCode::WeightBelowOneLot,
        ),
        (
            "closed",
            |s| s.now = START + 800 * SECOND,
            ReasonCode::SessionNotOpen,
        ),
        (
            "close only",
            |s| s.now = START + 610 * SECOND,
            ReasonCode::SessionNotOpen,
        ),
        (
            "instrument",
            |s| {
                let mut record = InstrumentRecord::empty();
                record.header.instrument_id = support::INSTRUMENT;
                s.feed(record);
            },
            ReasonCode::ReferenceMissing,
        ),
    ];
    for (name, arrange, code) in cases {
        let mut session = Session::new(config(TAKER, BY_IMBALANCE));
        session.feed_book(no_signal());
        arrange(&mut session);
        assert_eq!(refusal(&session.feed_book(buy_signal())), code, "{name}");
    }
    let mut expired = config(TAKER, BY_IMBALANCE);
    expired.alphas[0].expires_ns = START + 5;
    let mut session = Session::new(expired);
    session.now = START + 10;
    assert_eq!(
        refusal(&session.feed_book(buy_signal())),
        ReasonCode::ConfigExpired
    );
}

#[test]
fn a_stale_book_refuses_on_a_timer() {
    let mut session = Session::new(config(TAKER, BY_IMBALANCE));
    session.answers = false;
    let mut limits = config(TAKER, BY_IMBALANCE);
    limits.alphas[0].weight_ppm = 0;
    let mut blocked = Session::new(limits);
    assert_eq!(
        refusal(&blocked.feed_book(buy_signal())),
        ReasonCode::WeightBelowOneLot
    );
    assert_eq!(refusal(&blocked.wait(3 * SECOND)), ReasonCode::BookStale);
    assert_eq!(only(&session.feed_book(buy_signal())).verdict, APPROVED);
    assert!(
        session.wait(3 * SECOND).is_empty(),
        "its order is still open"
    );
}

#[test]
fn invalid_books_place_nothing() {
    for damage in [
        (|r: &mut BookRecord| r.bid_price[0] = r.ask_price[0]) as fn(&mut BookRecord),
        |r| (r.ask_price, r.ask_qty) = ([0; 5], [0; 5]),
        |r| r.header.flags = flags::SIMULATED_MATCH,
        |r| r.bid_price[3] = -5,
        |r| r.header.instrument_id = 4,
    ] {
        let mut session = Session::new(config(TAKER, "5"));
        let mut record = buy_signal();
        damage(&mut record);
        let decisions = session.feed(record);
        assert!(
            decisions
                .iter()
                .all(|decision| decision.verdict != APPROVED),
            "{decisions:?}"
        );
        assert_eq!(
            only(&session.feed_book(buy_signal())).verdict,
            APPROVED,
            "the next good book trades"
        );
    }
}

#[test]
fn equal_refusals_are_counted_every_time_and_written_once_a_second() {
    let mut session = Session::new(config(TAKER, BY_IMBALANCE));
    session.feed(command(CommandKind::Halt, ALL, 0));
    for _ in 0..25 {
        session.now += SECOND / 10;
        session.feed_book(buy_signal());
    }
    assert_eq!(session.refusals(), [201, 201, 201]);
    assert_eq!(session.engine.counters().refusals(), [(201, 25)]);
}

#[test]
fn a_loss_limit_flattens_and_stays_latched() {
    let mut limits = config(TAKER, BY_IMBALANCE);
    limits.alphas[0].limits.daily_loss_max = 2_000 * SCALE;
    let mut session = Session::new(limits);
    session.feed_book(buy_signal());
    assert_eq!(session.position(), 1);
    let exit = only(&session.feed_book(book(34_990, 1, 30, 1)));
    assert_eq!(exit.intent_reason, IntentReason::Flatten as u32);
    assert_eq!(session.position(), 0);
    assert_eq!(
        session.refusals(),
        [211],
        "the next entry was refused as soon as the exit was filled"
    );
    session.now += SECOND;
    assert_eq!(
        refusal(&session.feed_book(book(34_990, 1, 30, 1))),
        ReasonCode::DailyLossReached
    );
    assert_eq!(
        session.engine.results().next().unwrap().halted_by,
        Some(ReasonCode::DailyLossReached)
    );
}

#[test]
fn the_force_flat_phase_closes_the_position() {
    let mut session = Session::new(config(TAKER, BY_IMBALANCE));
    session.feed_book(buy_signal());
    session.now = START + 661 * SECOND;
    let exit = only(&session.feed_book(buy_signal()));
    assert_eq!(
        (exit.intent_reason, exit.side),
        (IntentReason::Flatten as u32, -1)
    );
    assert_eq!(session.position(), 0);
}

#[test]
fn a_lower_weight_acts_at_once_and_a_higher_one_at_a_flat_position() {
    let mut limits = config(TAKER, BY_IMBALANCE);
    limits.alphas[0].order_qty = 2 * SCALE;
    limits.alphas[0].limits.position_qty_max = 4 * SCALE;
    limits.alphas[0].weight_ppm = 500_000;
    let mut session = Session::new(limits);
    session.feed_book(buy_signal());
    assert_eq!(session.position(), 1);
    session.feed(switch(1_000_000, 1));
    assert_eq!(
        session.engine.results().next().unwrap().weight_ppm,
        500_000,
        "not flat yet"
    );
    session.now += 6 * SECOND;
    session.feed_book(no_signal());
    session.feed_book(no_signal());
    assert_eq!(session.position(), 0);
    assert_eq!(
        session.engine.results().next().unwrap().weight_ppm,
        1_000_000
    );
    session.feed(command(CommandKind::SetWeight, 0, 500_000));
    assert_eq!(session.engine.results().next().unwrap().weight_ppm, 500_000);
    session.feed(switch(250_000, 2));
    session.feed(command(CommandKind::SetWeight, 0, 900_000));
    session.feed_book(no_signal());
    assert_eq!(
        session.engine.results().next().unwrap().weight_ppm,
        250_000,
        "a command stays within the permit"
    );
    session.feed(switch(1_000_000, 1));
    assert_eq!(
        session.engine.counters().dropped(),
        [(ReasonCode::ConfigReplayed.code(), 1)]
    );
}

#[test]
fn unknown_orders_are_exposure_and_never_sent_again() {
    let mut session = Session::new(config(TAKER, BY_IMBALANCE));
    session.answers = false;
    let entry = only(&session.feed_book(buy_signal()));
    session.report(BrokerEventKind::Unknown, &entry, entry.price, 0, false);
    for _ in 0..5 {
        assert!(session.feed_book(buy_signal()).is_empty());
    }
    assert_eq!(session.engine.open_orders().count(), 1);
    assert_eq!(session.engine.counters().broker_events(), [(305, 1)]);
}

#[test]
fn orphans_doubles_and_overfills_are_counted_with_their_codes() {
    let mut session = Session::new(config(TAKER, BY_IMBALANCE));
    session.answers = false;
    let entry = only(&session.feed_book(buy_signal()));
    session.report(BrokerEventKind::Fill, &entry, entry.price, SCALE, false);
    let double = BrokerRecord {
        event_kind: 3,
        order_id: entry.order_id,
        side: 1,
        price: entry.price,
        qty: SCALE,
        broker_seq: 1,
        ..BrokerRecord::empty()
    };
    session.feed(double);
    assert_eq!(session.position(), 1);
    session.feed(BrokerRecord {
        order_id: 99,
        broker_seq: 50,
        ..double
    });
    session.feed(BrokerRecord {
        broker_seq: 51,
        ..double
    });
    assert_eq!(session.position(), 2, "an overfill is a position too");
    assert_eq!(
        session.engine.counters().broker_events(),
        [(301, 1), (303, 1), (304, 1)]
    );
    assert_eq!(session.engine.halted_by(), Some(ReasonCode::OverFill));
}

#[test]
fn many_rejects_open_the_breaker() {
    let mut session = Session::new(config(TAKER, BY_IMBALANCE));
    session.answers = false;
    let mut entry = only(&session.feed_book(buy_signal()));
    for _ in 0..5 {
        // The rejection itself lets the strategy try again.
        entry = only(&session.report(BrokerEventKind::Rejected, &entry, entry.price, 0, false));
        assert_eq!(entry.verdict, APPROVED);
    }
    let refused = session.report(BrokerEventKind::Rejected, &entry, entry.price, 0, false);
    assert_eq!(refusal(&refused), ReasonCode::RejectRateAboveLimit);
    session.now += 61 * SECOND;
    assert_eq!(
        only(&session.feed_book(buy_signal())).verdict,
        APPROVED,
        "it closes by itself"
    );
}

#[test]
fn records_that_make_no_sense_change_nothing_and_are_counted() {
    let mut session = Session::new(config(TAKER, BY_IMBALANCE));
    session.feed_book(no_signal());
    let mut header = *no_signal().header();
    header.input_seq = 1;
    header.sequence_time_ns = START + SECOND;
    session
        .engine
        .on_record(&header, no_signal().as_bytes(), &mut session.out);
    header.input_seq = 10;
    session
        .engine
        .on_record(&header, &[1, 2, 3], &mut session.out);
    header.input_seq = 11;
    header.sequence_time_ns += 1;
    header.record_type = 99;
    session.engine.on_record(&header, &[], &mut session.out);
    let dropped = session.engine.counters().dropped();
    assert_eq!(dropped, [(110, 1), (113, 2), (610, 1)]);
    assert!(session.decisions.is_empty());
}

#[test]
fn the_seven_steps_are_named_in_order() {
    assert_eq!(
        STEPS,
        [
            "dedup", "policy", "exposure", "risk", "durable", "dispatch", "commit"
        ]
    );
}

fn run_day(config: EngineConfig, seed: u64, books: usize) -> Session {
    let mut session = Session::new(config);
    session.feed_tape(&tape(seed, books));
    session
}

fn replay(config: EngineConfig, inputs: &[u8]) -> Vec<u8> {
    let mut engine = Engine::new(config).unwrap();
    let mut out = Vec::new();
    run_tape(
        &mut engine,
        &mut Sequencer::default(),
        inputs,
        true,
        &mut out,
    )
    .unwrap();
    bytes(&out)
}

#[test]
fn a_replay_is_identical_and_a_flipped_bit_or_parameter_is_seen() {
    let expression = "k * imbalance_l1 + 0.01 * ofi_l5_5s";
    for template in [TAKER, MAKER] {
        let day = run_day(config(template, expression), 7, 8_000);
        let decided = bytes(&day.decisions);
        assert!(
            day.decisions.len() > 200,
            "{} decisions",
            day.decisions.len()
        );
        assert!(replay(config(template, expression), &day.inputs) == decided);
        let mut flipped = day.inputs.clone();
        let book = Tape::new(&day.inputs)
            .filter_map(Result::ok)
            .filter(|item| item.0.record_type == 1)
            .nth(400)
            .unwrap();
        let place = book.1.as_ptr() as usize - day.inputs.as_ptr() as usize + 64 + 40;
        flipped[place + 3] ^= 0x10;
        assert!(
            replay(config(template, expression), &flipped) != decided,
            "a flipped bit of a queue"
        );
        let mut other = config(template, expression);
        other.alphas[0].parameters.insert("k".to_owned(), 2.5);
        assert!(replay(other, &day.inputs) != decided, "another parameter");
    }
}

#[test]
fn a_replay_with_a_missing_input_is_refused() {
    let day = run_day(config(TAKER, BY_IMBALANCE), 7, 100);
    let mut engine = Engine::new(config(TAKER, BY_IMBALANCE)).unwrap();
    let second = day.inputs.len()
        - Tape::new(&day.inputs)
            .skip(3)
            .map(|item| item.unwrap().1.len())
            .sum::<usize>();
    let first = second - Tape::new(&day.inputs).nth(2).unwrap().unwrap().1.len();
    let mut holed = day.inputs.clone();
    holed.drain(first..second);
    let error = run_tape(
        &mut engine,
        &mut Sequencer::default(),
        &holed,
        true,
        &mut Vec::new(),
    )
    .unwrap_err();
    assert_eq!(error.code(), ReasonCode::LogSequenceGap);
}

#[test]
fn batch_evaluation_equals_the_engine_bit_for_bit() {
    let expression = "ofi_l1_1s + ofi_l5_5s * trade_imbalance_1s - return_1s / volatility_10s + imbalance_ema_2s";
    let tape = tape(3, 5_000);
    let rows = evaluate(&tape, &config(TAKER, expression), 0).unwrap();
    let table = evaluate_features(&tape, &config(TAKER, expression), 0).unwrap();
    assert_eq!(table.values.len(), rows.len() * FEATURE_COUNT);
    let mut engine = Engine::new(config(TAKER, expression)).unwrap();
    let mut sequencer = Sequencer::default();
    let mut row = rows.iter();
    let mut out = Vec::new();
    for item in Tape::new(&tape) {
        let (mut header, bytes) = item.unwrap();
        sequencer.stamp_if_missing(&mut header);
        engine.on_record(&header, bytes, &mut out);
        if header.record_type == 1 {
            let expected = row.next().unwrap();
            let signal = engine.results().next().unwrap().signal;
            assert_eq!(signal.to_bits(), expected.signal.to_bits());
            assert_eq!(header.receive_time_ns, expected.receive_time_ns);
        }
    }
    assert!(row.next().is_none());
    assert!(rows.iter().filter(|row| row.signal.is_finite()).count() > 4_000);
}

/// With memory: engine, batch and columns agree at every record, over gaps, bad books and prints.
#[test]
fn a_remembering_expression_is_the_same_in_engine_batch_and_columns() {
    let expression = "0.6 * zscore(imbalance_l1, 2s) - ema(microprice_dev, 1s) \
        + 2 * where(spread_ticks > mean(spread_ticks, 20ev), decay(imbalance_l1, 1s), lag(imbalance_l1, 500ms))";
    let config = config(TAKER, expression);
    let mut tape = tape(4, 3_000);
    // A gap, a crossed book and a session start in the middle of it.
    let mut damaged = 0;
    let mut offset = 0;
    while offset < tape.len() {
        let size = usize::from(u16::from_le_bytes([tape[offset], tape[offset + 1]]));
        if let Some(mut record) = BookRecord::read(&tape[offset..offset + size]) {
            damaged += 1;
            match damaged {
                1_000 => record.header.flags |= flags::GAP_BEFORE,
                1_500..=1_503 => record.bid_price[0] = record.ask_price[0] + SCALE,
                2_000 => record.header.flags |= flags::SESSION_START,
                _ => {}
            }
            tape[offset..offset + size].copy_from_slice(record.as_bytes());
        }
        offset += size;
    }
    let columns = feature_columns(&tape, &config, 0).unwrap();
    assert_eq!(
        columns
            .starts
            .iter()
            .map(|start| u32::from(*start))
            .sum::<u32>(),
        3
    );
    let parameters = BTreeMap::from([("k".to_owned(), 2.0)]);
    let parsed = Expression::parse(expression, &["k"]).unwrap();
    let mut program = Program::compile(&parsed, &parameters).unwrap();
    let table = Columns::new(&columns.values, false, &columns.times_ns, &columns.starts).unwrap();
    let mut values = vec![0.0; columns.times_ns.len()];
    program.evaluate_columns(&table, &mut values).unwrap();
    let mut engine = Engine::new(config.clone()).unwrap();
    let mut sequencer = Sequencer::default();
    let mut out = Vec::new();
    for (item, expected) in Tape::new(&tape).zip(&values) {
        let (mut header, bytes) = item.unwrap();
        sequencer.stamp_if_missing(&mut header);
        engine.on_record(&header, bytes, &mut out);
        let signal = engine.results().next().unwrap().signal;
        assert_eq!(signal.to_bits(), expected.to_bits());
    }
    let good: Vec<u64> = values
        .iter()
        .zip(&columns.is_good_book)
        .filter(|(_, is_good)| **is_good != 0)
        .map(|(value, _)| value.to_bits())
        .collect();
    let batch = evaluate(&tape, &config, 0).unwrap();
    let batch: Vec<u64> = batch.iter().map(|row| row.signal.to_bits()).collect();
    assert_eq!(batch, good);
    assert!(values.iter().filter(|value| value.is_finite()).count() > 2_000);
}

#[test]
fn the_future_does_not_change_the_past() {
    let whole = tape(5, 3_000);
    let cut: usize = Tape::new(&whole)
        .take(1_500)
        .map(|item| item.unwrap().1.len())
        .sum();
    let config = config(TAKER, "ofi_l5_5s + 0.1 * return_10s");
    let all = evaluate(&whole, &config, 0).unwrap();
    let part = evaluate(&whole[..cut], &config, 0).unwrap();
    assert!(
        part.iter()
            .zip(&all)
            .all(|(a, b)| a.signal.to_bits() == b.signal.to_bits() && a.mid == b.mid)
    );
}

#[test]
fn a_gap_starts_the_warm_up_over() {
    let mut session = Session::new(config(TAKER, "return_1s"));
    session.feed_book(no_signal());
    session.now += 2 * SECOND;
    session.feed_book(no_signal());
    assert!(session.engine.results().next().unwrap().signal.is_finite());
    let mut behind_gap = no_signal();
    behind_gap.header.flags = flags::GAP_BEFORE;
    session.feed_book(behind_gap);
    assert!(session.engine.results().next().unwrap().signal.is_nan());
}

/// One step of a hostile world.
#[derive(Debug, Clone)]
enum Step {
    Book {
        bid: i64,
        spread: i64,
        bid_qty: i64,
        ask_qty: i64,
    },
    Broker {
        kind: u32,
        back: usize,
        qty: i64,
        price: i64,
    },
    Command {
        kind: u32,
        argument: i64,
    },
    Timer {
        ns: i64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (34_990_i64..35_010, -1_i64..4, 0_i64..30, 0_i64..30)
            .prop_map(|(bid, spread, bid_qty, ask_qty)| Step::Book { bid, spread, bid_qty, ask_qty }),
        5 => (0_u32..9, 0_usize..4, 1_i64..3, 34_990_i64..35_010)
            .prop_map(|(kind, back, qty, price)| Step::Broker { kind, back, qty, price }),
        1 => (0_u32..9, 0_i64..1_200_000).prop_map(|(kind, argument)| Step::Command { kind, argument }),
        1 => (1_i64..3 * SECOND).prop_map(|ns| Step::Timer { ns }),
    ];
    prop::collection::vec(step, 1..150)
}

fn drive(template: &str, steps: &[Step]) -> Result<Session, TestCaseError> {
    let mut session = Session::new(config(template, BY_IMBALANCE));
    session.answers = false;
    let mut sent: Vec<DecisionRecord> = Vec::new();
    for step in steps {
        session.now += 1_000_000;
        let decisions = match *step {
            Step::Book {
                bid,
                spread,
                bid_qty,
                ask_qty,
            } => session.feed_book(book(bid, spread, bid_qty, ask_qty)),
            Step::Timer { ns } => session.wait(ns),
            Step::Command { kind, argument } => session.feed(_core::record::CommandRecord {
                command_kind: kind,
                alpha_index: if argument % 2 == 0 { ALL } else { 0 },
                argument,
                ..command(CommandKind::Halt, 0, 0)
            }),
            Step::Broker {
                kind,
                back,
                qty,
                price,
            } => {
                let Some(decision) = sent.iter().rev().nth(back).copied() else {
                    continue;
                };
                // No overfill here: that is a halt of its own.
                let room = session
                    .engine
                    .open_orders()
                    .find(|o| o.order_id == decision.order_id)
                    .map_or(0, |o| o.remaining_qty());
                if kind == BrokerEventKind::Fill as u32 && qty * SCALE > room {
                    continue;
                }
                let mut record = BrokerRecord {
                    event_kind: kind,
                    order_id: decision.order_id,
                    side: decision.side,
                    price: price * SCALE,
                    qty: qty * SCALE,
                    ..BrokerRecord::empty()
                };
                record.broker_seq = session.sequencer.last_seq();
                session.feed(record)
            }
        };
        let result = session.engine.results().next().unwrap();
        let halted = session.engine.halted_by().is_some();
        let limit = 3 * SCALE;
        let open = |side: i64| {
            session
                .engine
                .open_orders()
                .filter(|o| o.side == side)
                .map(|o| o.remaining_qty())
                .sum::<i64>()
        };
        for decision in &decisions {
            let is_open =
                decision.verdict == APPROVED && decision.action == ActionKind::Place as u32;
            prop_assert!(decision.verdict != 0);
            prop_assert_eq!(decision.verdict == 2, decision.reason_code != 0);
            if is_open {
                prop_assert!(decision.qty > 0 && decision.price % SCALE == 0);
                let reduces = decision.position_qty * decision.side < 0
                    && decision.qty <= decision.position_qty.abs();
                prop_assert!(decision.signal.is_finite() || reduces);
                prop_assert!(!halted || reduces, "an opening order while halted");
                sent.push(*decision);
            }
        }
        prop_assert!(result.position_qty + open(1) <= limit);
        prop_assert!(result.position_qty - open(-1) >= -limit);
    }
    Ok(session)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Invariants 1 and 4 in a hostile world: the position limit holds whatever fills, nothing opens
    /// while halted or without a signal, every refusal has a code, and a replay is identical.
    #[test]
    fn a_hostile_world_breaks_no_limit(steps in steps(), is_maker in any::<bool>()) {
        let template = if is_maker { MAKER } else { TAKER };
        let session = drive(template, &steps)?;
        prop_assert!(replay(config(template, BY_IMBALANCE), &session.inputs) == bytes(&session.decisions));
    }

    /// Invariant 5: any bytes in any record leave an engine that still works.
    #[test]
    fn damaged_records_do_not_stop_the_engine(damage in prop::collection::vec((0_usize..400, any::<u8>()), 1..30)) {
        let mut tape = tape(11, 40);
        for (place, byte) in damage {
            // Behind the 64-byte head of some record, so that the tape stays a tape.
            let offset = 224 * (place % 20) + 64 + place % 150;
            if let Some(slot) = tape.get_mut(offset) {
                *slot = byte;
            }
        }
        let mut engine = Engine::new(config(MAKER, BY_IMBALANCE)).unwrap();
        let mut out = Vec::new();
        let _damaged_tapes_end_early = run_tape(&mut engine, &mut Sequencer::default(), &tape, false, &mut out);
        let mut timer = *TimerRecord::empty().header();
        timer.input_seq = 1_000_000;
        timer.sequence_time_ns = i64::MAX / 2;
        engine.on_record(&timer, TimerRecord::empty().as_bytes(), &mut out);
    }

    /// Invariant 5: absurd numbers in well-formed records neither stop the engine nor open a position.
    #[test]
    fn absurd_numbers_do_not_stop_the_engine(
        steps in prop::collection::vec((1_u8..12, prop::collection::vec(absurd(), 22), 0_i64..i64::MAX / 200), 1..60),
        is_maker in any::<bool>(),
    ) {
        let mut engine = Engine::new(config(if is_maker { MAKER } else { TAKER }, "ofi_l5_5s + k * imbalance_l1")).unwrap();
        let mut out = Vec::new();
        let (mut seq, mut time) = (0, i64::MIN / 2);
        for (kind, words, wait) in steps {
            let Some(layout) = _core::record::layout(kind) else { continue };
            let mut bytes: Vec<u8> = words.iter().cycle().take(layout.bytes / 8).flat_map(|word| word.to_le_bytes()).collect();
            let mut header = RecordHeader::zeroed();
            seq += 1;
            time += wait.max(1);
            header.record_type = kind;
            header.schema_version = 1;
            header.record_bytes = u16::try_from(layout.bytes).unwrap();
            header.instrument_id = support::INSTRUMENT;
            header.input_seq = seq;
            header.sequence_time_ns = time;
            bytes[..64].copy_from_slice(bytemuck::bytes_of(&header));
            if kind == 4 || kind == 6 || kind == 10 {
                // Small kinds, alphas and order ids reach deeper than any number.
                bytes[64] = bytes[70] % 9;
                bytes[65..68].fill(0);
            }
            if kind == 6 {
                let order_id = u64::from(bytes[72] % 4);
                bytes[72..80].copy_from_slice(&order_id.to_le_bytes());
            }
            engine.on_record(&header, &bytes, &mut out);
        }
        prop_assert!(out.iter().all(|decision| decision.verdict == 1 || decision.reason_code != 0));
    }
}

/// Numbers at the edges of what a field can hold, and a few plausible ones.
fn absurd() -> impl Strategy<Value = i64> {
    prop_oneof![
        Just(0_i64),
        Just(1),
        Just(-1),
        Just(i64::MAX),
        Just(i64::MIN),
        Just(i64::MAX / 2),
        Just(999_999_999_999_999_999),
        Just(SCALE),
        34_990 * SCALE..35_010 * SCALE,
        (34_990_i64..35_010).prop_map(|ticks| ticks * SCALE),
        any::<i64>(),
    ]
}
