//! Cases by hand; properties are in `rust_core/tests/features.rs`, oracles in `tests/rust_core/features`.
use super::*;
use crate::record::{BookRecord, Record, SCALE};

fn snapshot(bid: i64, bid_qty: i64, ask: i64, ask_qty: i64) -> BookRecord {
    let mut record = BookRecord::empty();
    for (level, offset) in (0..5_i64).enumerate() {
        record.bid_price[level] = (bid - offset) * SCALE;
        record.ask_price[level] = (ask + offset) * SCALE;
        record.bid_qty[level] = bid_qty * SCALE;
        record.ask_qty[level] = ask_qty * SCALE;
    }
    record
}

fn feed(set: &mut FeatureSet, record: &BookRecord, now_ns: i64) {
    let mut book = Book::default();
    assert_eq!(book.on_book(record, now_ns), Ok(()));
    set.on_book(&book, now_ns);
}

fn near(actual: f64, expected: f64) {
    assert!(
        (actual - expected).abs() < 1e-9,
        "{actual} is not {expected}"
    );
}

#[test]
fn ids_are_places_and_names_are_unique() {
    for (place, row) in FEATURES.iter().enumerate() {
        assert_eq!(usize::from(row.id), place);
        assert_eq!(feature_id(row.name), Some(row.id));
        assert!(row.warm_up_ns <= WARM_UP_NS_MAX);
        assert!(UNITS.contains(&row.unit), "{}", row.unit);
    }
    assert_eq!(feature_id("ofi"), None);
}

#[test]
fn instant_features_match_a_case_by_hand() {
    let mut set = FeatureSet::new(SCALE, SCALE);
    feed(&mut set, &snapshot(100, 30, 102, 10), 0);
    near(set.values()[SPREAD_TICKS], 2.0);
    near(set.values()[IMBALANCE_L1], 0.5);
    near(set.values()[IMBALANCE_L2_5], 0.5);
    near(set.values()[MICROPRICE_DEV], 0.5);
    assert!(set.values()[OFI_L1_1S].is_nan());
}

/// Unit orders on constant depth: the mid moves by half the normalised order flow.
#[test]
fn decayed_features_match_a_case_by_hand() {
    let mut set = FeatureSet::new(SCALE, SCALE);
    feed(&mut set, &snapshot(100, 10, 101, 10), 0);
    feed(&mut set, &snapshot(100, 10, 101, 10), 10 * SECOND);
    near(set.values()[OFI_L1_1S], 0.0);
    near(set.values()[QUOTE_AGE_MS], 10_000.0);
    // The bid queue grows by 5: flow +5 over a mean depth still at 10.
    feed(&mut set, &snapshot(100, 15, 101, 10), 10 * SECOND + 1);
    assert!((set.values()[OFI_L1_1S] - 0.5).abs() < 1e-6);
    near(set.values()[QUOTE_AGE_MS], 0.0);
    set.on_trade(3 * SCALE, 1, 10 * SECOND + 1);
    near(set.values()[TRADE_IMBALANCE_1S], 0.75);
    near(set.values()[TRADE_SIGN_EMA_5S], 0.5);
    // Up one tick, then one second of silence ended by a print of unknown side.
    feed(&mut set, &snapshot(101, 10, 102, 10), 10 * SECOND + 1);
    near(set.values()[RETURN_1S], 1.0);
    near(set.values()[VOLATILITY_10S], 1.0);
    set.on_trade(SCALE, 0, 11 * SECOND + 1);
    near(set.values()[RETURN_1S], (-1.0_f64).exp());
    near(set.values()[RETURN_10S], (-0.1_f64).exp());
    near(set.values()[VOLATILITY_10S], (-0.05_f64).exp());
    near(
        set.values()[TRADE_IMBALANCE_5S],
        3.0 * (-0.2_f64).exp() / (3.0 * (-0.2_f64).exp() + 1.0),
    );
}

#[test]
fn a_reset_and_an_invalid_book_make_every_feature_nan() {
    let mut set = FeatureSet::new(SCALE, SCALE);
    for second in 0..62 {
        feed(
            &mut set,
            &snapshot(100, 10 + second, 101, 10),
            second * SECOND,
        );
    }
    assert!(set.values().iter().all(|value| value.is_finite()));
    let mut book = Book::default();
    assert_eq!(book.on_book(&snapshot(102, 1, 101, 1), 62 * SECOND), Ok(()));
    set.on_book(&book, 62 * SECOND);
    assert!(set.values().iter().all(|value| value.is_nan()));
    feed(&mut set, &snapshot(100, 10, 101, 10), 63 * SECOND);
    assert!(set.values().iter().all(|value| value.is_finite()));
    set.reset();
    assert!(set.values().iter().all(|value| value.is_nan()));
    feed(&mut set, &snapshot(100, 10, 101, 10), 64 * SECOND);
    assert!(set.values()[RETURN_1S].is_nan());
}
