//! Tests of the generator; those against the recordings' bands are in Python.

#![allow(clippy::expect_used, reason = "a test may stop at a surprise")]

use super::*;
use crate::record::{RecordType, Tape};

const MODEL: &str = r#"{
    "start_price_ticks": 35000, "updates_per_slot": 0.75, "off_grid_share": 0.015,
    "activity_fast_sd": 0.5, "activity_fast_s": 2.0, "activity_slow_sd": 0.4, "activity_slow_s": 120.0,
    "move_probability": 0.2, "move_continuation": 0.3, "move_ticks_max": 20, "queue_pressure": 0.3,
    "spread_weights": [2, 10, 26, 38, 20, 3, 1], "spread_change": 0.5,
    "queue_best_weights": [26, 30, 20, 10, 5, 3, 2, 1], "queue_second_weights": [14, 21, 19, 14, 10, 7],
    "queue_deep_weights": [9, 15, 16, 14, 12, 10, 8, 6], "queue_refresh": 0.03, "queue_step": 0.3,
    "queue_deep_step": 0.12, "queue_tilt": 1.2, "level_gap": 0.08, "state_hold_s": 15.0,
    "orders_per_update": 0.15, "orders_per_tick": 0.15, "print_continuation": 0.25,
    "side_follows_move": 0.8, "side_repeats": 0.15, "side_persistent": 0.7, "side_turns": 0.01,
    "print_beyond": 0.05, "print_inside": 0.12, "print_weights": [72, 16, 6, 2.5],
    "feed_delay_us": 3000.0, "feed_jitter_us": 500.0}"#;

const START_NS: i64 = 1_767_573_900_000_000_000;
const TEN_MINUTES_NS: i64 = 600_000_000_000;
const DAY_NS: i64 = 86_400_000_000_000;

fn text(seed: u64, sessions: i64, edge: &str) -> String {
    let times: Vec<String> = (0..sessions)
        .map(|day| {
            let start = START_NS + day * DAY_NS;
            format!(
                r#"{{"trading_day": {}, "start_ns": {start}, "end_ns": {}}}"#,
                20_260_105 + day,
                start + TEN_MINUTES_NS
            )
        })
        .collect();
    format!(
        r#"{{"seed": {seed}, "instrument_id": 9001, "tick_size": 100000000, "lot_size": 100000000,
        "activity": 1.0, "edge": {edge}, "sessions": [{}], "model": {MODEL}}}"#,
        times.join(",")
    )
}

fn params(seed: u64, sessions: i64, edge: &str) -> GeneratorParams {
    GeneratorParams::from_json(&text(seed, sessions, edge)).expect("valid parameters")
}

fn tape(params: &GeneratorParams, index: usize) -> Vec<u8> {
    generate_session(params, index, None).expect("a session")
}

const NONE: &str = r#"{"kind": "none"}"#;
const PLANTED: &str = r#"{"kind": "planted", "strength_ticks": 12.0, "horizon_s": 15.0}"#;

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_or_session_does_not() {
    let market = params(7, 3, NONE);
    assert_eq!(tape(&market, 2), tape(&params(7, 3, NONE), 2));
    assert_ne!(tape(&market, 2), tape(&params(8, 3, NONE), 2));
    assert_ne!(tape(&market, 2), tape(&market, 1));
}

#[test]
fn a_session_does_not_depend_on_later_ones_or_on_the_order_they_are_made_in() {
    let market = params(7, 3, PLANTED);
    let last = tape(&market, 2);
    let first = tape(&market, 0);
    assert_eq!(first, tape(&params(7, 1, PLANTED), 0));
    assert_eq!(last, tape(&market, 2));
}

#[test]
fn a_session_opens_where_the_one_before_closed_however_that_is_told() {
    let market = params(3, 4, PLANTED);
    for index in 1..4 {
        let close = generate_hidden_state(&market, index - 1, None)
            .expect("rows")
            .last()
            .expect("a row")
            .mid_twice_ticks;
        let open = generate_hidden_state(&market, index, None).expect("rows")[0].mid_twice_ticks;
        assert!((open - close).abs() <= 1, "{close} then {open}");
        assert_eq!(
            tape(&market, index),
            generate_session(&market, index, Some(close)).expect("a session")
        );
    }
}

#[test]
fn every_record_is_valid_numbered_and_inside_its_session() {
    let market = params(11, 2, PLANTED);
    for index in 0..2 {
        let times = market.session(index).expect("hours");
        let bytes = tape(&market, index);
        let (mut receive, mut exchange, mut seq, mut books, mut trades) = (0, 0, 0, 0, 0);
        let mut last_book: Option<BookRecord> = None;
        for item in Tape::new(&bytes) {
            let (header, record) = item.expect("a record");
            seq += 1;
            assert_eq!(header.source_seq, seq);
            assert_eq!(
                header.flags,
                if seq == 1 { flags::SESSION_START } else { 0 }
            );
            assert!(header.receive_time_ns > receive && header.exchange_time_ns >= exchange);
            assert!(header.receive_time_ns > header.exchange_time_ns);
            assert!(
                header.exchange_time_ns >= times.start_ns && header.receive_time_ns < times.end_ns
            );
            assert_eq!(header.exchange_time_ns % 1_000_000, 0);
            assert_eq!(
                (header.source_id, header.instrument_id, header.trading_day),
                (2, 9001, times.trading_day)
            );
            (receive, exchange) = (header.receive_time_ns, header.exchange_time_ns);
            if header.record_type == RecordType::Book as u8 {
                let book = BookRecord::read(record).expect("a book");
                check_book(&book);
                if let Some(before) = last_book {
                    assert!(
                        !same_book(&before, &book),
                        "a snapshot must say something new"
                    );
                }
                last_book = Some(book);
                books += 1;
            } else {
                let trade = TradeRecord::read(record).expect("a trade");
                assert!(trade.price > 0 && trade.price % 100_000_000 == 0);
                assert!(trade.qty > 0 && trade.qty % 100_000_000 == 0);
                assert_eq!(trade.aggressor_side.abs(), 1);
                trades += 1;
                assert_eq!(trade.trade_id, trades);
            }
        }
        assert!(
            books > 1_200 && trades > 200,
            "{books} books, {trades} trades"
        );
    }
}

fn check_book(book: &BookRecord) {
    assert!(book.bid_price[0] < book.ask_price[0]);
    for level in 0..5 {
        assert!(book.bid_price[level] > 0 && book.bid_qty[level] > 0 && book.ask_qty[level] > 0);
        assert_eq!(book.bid_price[level] % 100_000_000, 0);
        assert_eq!(book.ask_price[level] % 100_000_000, 0);
        if level > 0 {
            assert!(book.bid_price[level] < book.bid_price[level - 1]);
            assert!(book.ask_price[level] > book.ask_price[level - 1]);
        }
    }
}

fn same_book(one: &BookRecord, other: &BookRecord) -> bool {
    (one.bid_price, one.bid_qty, one.ask_price, one.ask_qty)
        == (
            other.bid_price,
            other.bid_qty,
            other.ask_price,
            other.ask_qty,
        )
}

#[test]
fn the_drift_is_what_the_strength_says_and_ends_with_the_edge() {
    let planted = params(1, 1, PLANTED);
    let held = 15.0 * (1.0 - libm::exp(-1.0));
    assert!((planted.drift_ticks_per_s(0) * held - 12.0).abs() < 1e-12);
    assert!(params(1, 1, NONE).drift_ticks_per_s(0).abs() < f64::EPSILON);
    let dying = params(
        1,
        3,
        r#"{"kind": "dying", "strength_ticks": 12.0, "horizon_s": 15.0, "dies_at_session": 2}"#,
    );
    let alive: Vec<bool> = (0..3)
        .map(|index| dying.drift_ticks_per_s(index) > 0.0)
        .collect();
    assert_eq!(alive, [true, true, false]);
    assert!(
        generate_hidden_state(&dying, 2, None)
            .expect("rows")
            .iter()
            .all(|row| row.drift_ticks.abs() < f64::EPSILON)
    );
}

#[test]
fn the_books_look_the_same_with_and_without_an_edge_until_the_price_moves() {
    // The hidden state is drawn by the same stream, so it has the same path.
    let states = |edge| -> Vec<i64> {
        generate_hidden_state(&params(5, 1, edge), 0, None)
            .expect("rows")
            .iter()
            .take(3)
            .map(|row| row.state)
            .collect()
    };
    assert_eq!(states(NONE), states(PLANTED));
}

#[test]
fn wrong_parameters_are_refused_by_name() {
    let refused = |from: &str, to: &str| {
        let changed = text(1, 2, NONE).replace(from, to);
        GeneratorParams::from_json(&changed)
            .expect_err("must be refused")
            .to_string()
    };
    assert!(refused(r#""activity": 1.0"#, r#""activity": 0.0"#).contains("activity is 0"));
    assert!(
        refused(r#""queue_pressure": 0.3"#, r#""queue_pressure": 0.6"#).contains("queue_pressure")
    );
    assert!(
        refused(r#""spread_change": 0.5"#, r#""spread_change": 1.5"#).contains("spread_change")
    );
    assert!(refused("[2, 10, 26, 38, 20, 3, 1]", "[]").contains("spread_weights"));
    assert!(refused("[2, 10, 26, 38, 20, 3, 1]", "[0]").contains("spread_weights"));
    assert!(refused(r#""kind": "none""#, r#""kind": "some""#).contains("some"));
    assert!(refused(r#""level_gap": 0.08"#, r#""level_gap": 0.08, "extra": 1"#).contains("extra"));
    let late = (START_NS + TEN_MINUTES_NS).to_string();
    assert!(refused(&late, &START_NS.to_string()).contains("session length"));
    let market = params(1, 2, NONE);
    assert_eq!(
        generate_session(&market, 2, None),
        Err(GeneratorError::NoSuchSession { index: 2, count: 2 })
    );
}

#[test]
fn a_price_that_runs_away_is_an_error_and_not_a_wrong_book() {
    let falling = text(1, 1, PLANTED).replace(
        r#""start_price_ticks": 35000"#,
        r#""start_price_ticks": 110"#,
    );
    let market = GeneratorParams::from_json(&falling).expect("valid parameters");
    assert!(matches!(
        generate_session(&market, 0, None),
        Err(GeneratorError::PriceExhausted { index: 0, .. })
    ));
}

#[test]
fn the_first_bytes_of_a_known_market_never_change() {
    use sha2::Digest;
    let digest: [u8; 32] = sha2::Sha256::digest(tape(&params(2026, 1, PLANTED), 0)).into();
    let hex: String = digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(hex, "3e02377d178764d0");
}
