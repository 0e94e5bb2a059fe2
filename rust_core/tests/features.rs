//! Features from outside: whatever comes, and the same number whoever computes it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests stop at the first surprise"
)]

mod support;

use _core::book::{Book, VALUE_MAX};
use _core::engine::{Sequencer, evaluate_features};
use _core::features::{FEATURE_COUNT, FEATURES, FeatureSet};
use _core::record::{BookRecord, LEVEL_COUNT, Record, SCALE, Tape, TradeRecord, flags};
use proptest::prelude::*;
use support::{SECOND, START, TAKER, config, tape};

fn cases() -> u32 {
    std::env::var("HFT_FUZZ_CASES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(200)
}

/// One record or interruption of a hostile world.
#[derive(Debug, Clone)]
enum Step {
    Book(Box<BookRecord>),
    Trade { qty: i64, side: i64 },
    Reset,
}

fn price() -> impl Strategy<Value = i64> {
    prop_oneof![
        4 => 34_990 * SCALE..35_010 * SCALE,
        2 => (34_990_i64..35_010).prop_map(|ticks| ticks * SCALE),
        1 => Just(0),
        1 => Just(1),
        1 => Just(VALUE_MAX),
        1 => Just(i64::MIN),
        1 => any::<i64>(),
    ]
}

fn qty() -> impl Strategy<Value = i64> {
    prop_oneof![
        4 => (1_i64..40).prop_map(|lots| lots * SCALE),
        1 => Just(0),
        1 => Just(1),
        1 => Just(VALUE_MAX),
        1 => any::<i64>(),
    ]
}

/// Mostly in order and good, so that hostile values reach the features.
fn book() -> impl Strategy<Value = BookRecord> {
    let levels = || prop::array::uniform5(qty());
    (
        price(),
        price(),
        levels(),
        levels(),
        1..=LEVEL_COUNT,
        0_u32..8,
        any::<bool>(),
    )
        .prop_map(|(bid, ask, bid_qty, ask_qty, count, flag, is_tidy)| {
            let mut record = BookRecord::empty();
            let (mut bid, mut ask) = (bid, ask);
            if is_tidy {
                (bid, ask) = (
                    bid.min(ask).clamp(10, VALUE_MAX - 20),
                    bid.max(ask).clamp(11, VALUE_MAX - 10),
                );
                ask = ask.max(bid + 1);
            }
            for level in 0..count {
                let offset = i64::try_from(level).unwrap();
                record.bid_price[level] = bid.wrapping_sub(offset);
                record.ask_price[level] = ask.wrapping_add(offset);
                record.bid_qty[level] = bid_qty[level];
                record.ask_qty[level] = ask_qty[level];
                if is_tidy {
                    record.bid_qty[level] = bid_qty[level].clamp(1, VALUE_MAX);
                    record.ask_qty[level] = ask_qty[level].clamp(1, VALUE_MAX);
                }
            }
            record.header.flags = if flag == 0 { flags::SIMULATED_MATCH } else { 0 };
            record
        })
}

fn steps() -> impl Strategy<Value = Vec<(i64, Step)>> {
    let step = prop_oneof![
        8 => book().prop_map(|record| Step::Book(Box::new(record))),
        6 => (1..=VALUE_MAX, -1_i64..=1).prop_map(|(qty, side)| Step::Trade { qty, side }),
        6 => (1_i64..40, -1_i64..=1).prop_map(|(lots, side)| Step::Trade { qty: lots * SCALE, side }),
        1 => Just(Step::Reset),
    ];
    let wait = prop_oneof![
        Just(1_i64),
        1_i64..SECOND,
        Just(61 * SECOND),
        Just(86_400 * SECOND),
        Just(0),
        -SECOND..0,
        Just(i64::MAX / 4),
    ];
    prop::collection::vec((wait, step), 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    /// Invariants 3 and 5: no panic, no infinity, all NaN behind a bad book and a reset.
    #[test]
    fn whatever_comes_a_value_is_finite_or_nan(steps in steps(), tick in 1_i64..10 * SCALE, lot in 1_i64..10 * SCALE) {
        let mut book = Book::default();
        let mut set = FeatureSet::new(tick, lot);
        let mut now = START;
        for (wait, step) in steps {
            now = now.saturating_add(wait);
            match step {
                Step::Book(record) => {
                    let _stored = book.on_book(&record, now);
                    set.on_book(&book, now);
                    prop_assert_eq!(set.values()[0].is_nan(), !book.is_valid());
                }
                Step::Trade { qty, side } => set.on_trade(qty, side, now),
                Step::Reset => set.reset(),
            }
            prop_assert!(set.values().iter().all(|value| !value.is_infinite()), "{:?}", set.values());
            if !book.is_valid() {
                prop_assert!(set.values().iter().all(|value| value.is_nan()));
            }
        }
        set.reset();
        prop_assert!(set.values().iter().all(|value| value.is_nan()));
    }

    /// Invariant 1: a set that was used and reset is as good as a new one, to the bit.
    #[test]
    fn a_reset_leaves_nothing_behind(before in steps(), after in steps()) {
        let mut used = FeatureSet::new(SCALE, SCALE);
        let mut fresh = FeatureSet::new(SCALE, SCALE);
        let run = |set: &mut FeatureSet, steps: &[(i64, Step)]| {
            let mut book = Book::default();
            let mut now = START;
            for (wait, step) in steps {
                now = now.saturating_add(*wait);
                match step {
                    Step::Book(record) => {
                        let _stored = book.on_book(record, now);
                        set.on_book(&book, now);
                    }
                    Step::Trade { qty, side } => set.on_trade(*qty, *side, now),
                    Step::Reset => {}
                }
            }
            set.values().map(f64::to_bits)
        };
        run(&mut used, &before);
        used.reset();
        prop_assert_eq!(run(&mut used, &after), run(&mut fresh, &after));
    }
}

#[test]
fn batch_rows_are_the_values_record_by_record_to_the_bit() {
    let tape = tape(11, 8_000);
    let table = evaluate_features(&tape, &config(TAKER, "return_1s"), 0).unwrap();
    let mut rows = table.values.chunks(FEATURE_COUNT);
    let mut book = Book::default();
    let mut set = FeatureSet::new(SCALE, SCALE);
    let mut sequencer = Sequencer::default();
    for item in Tape::new(&tape) {
        let (mut header, bytes) = item.unwrap();
        sequencer.stamp_if_missing(&mut header);
        let now = header.sequence_time_ns;
        if let Some(record) = BookRecord::read(bytes) {
            assert_eq!(book.on_book(&record, now), Ok(()));
            set.on_book(&book, now);
            let row = rows.next().unwrap();
            for (feature, (batch, live)) in FEATURES.iter().zip(row.iter().zip(set.values())) {
                assert_eq!(batch.to_bits(), live.to_bits(), "{}", feature.name);
            }
        } else {
            let record = TradeRecord::read(bytes).unwrap();
            set.on_trade(record.qty, record.aggressor_side, now);
        }
    }
    assert!(rows.next().is_none());
    assert!(set.values().iter().all(|value| value.is_finite()));
}

#[test]
fn a_feature_becomes_a_number_at_the_end_of_its_warm_up_and_not_before() {
    let mut set = FeatureSet::new(SCALE, SCALE);
    let mut book = Book::default();
    let record = support::book(35_000, 1, 10, 12);
    for tenth in 0..=610 {
        let now = START + tenth * SECOND / 10;
        assert_eq!(book.on_book(&record, now), Ok(()));
        set.on_book(&book, now);
        for row in FEATURES {
            let value = set.values()[usize::from(row.id)];
            assert_eq!(
                value.is_nan(),
                now - START < row.warm_up_ns,
                "{} after {tenth} tenths of a second: {value}",
                row.name
            );
        }
    }
}

/// What has faded to nothing is zero: numbers below 1e-308 would make every event slow.
#[test]
fn silence_ends_in_zero_and_not_in_tiny_numbers() {
    let mut set = FeatureSet::new(SCALE, SCALE);
    let mut book = Book::default();
    let mut smallest = f64::INFINITY;
    for second in 0..50_000_i64 {
        let now = START + second * SECOND;
        let record = support::book(35_000 + i64::from(second == 1), 1, 10, 12);
        assert_eq!(book.on_book(&record, now), Ok(()));
        set.on_book(&book, now);
        if second < 3 {
            set.on_trade(3 * SCALE, 1, now + 1);
        }
        let sizes = set.values().iter().map(|value| value.abs());
        smallest = smallest.min(
            sizes
                .filter(|size| *size > 0.0)
                .fold(f64::INFINITY, f64::min),
        );
    }
    assert!(smallest > 1e-270, "{smallest}");
    for row in FEATURES.iter().filter(|row| {
        [
            "ofi",
            "trade",
            "return",
            "hawkes",
            "volatility",
            "queue",
            "toxicity",
        ]
        .iter()
        .any(|family| row.name.starts_with(family))
    }) {
        let value = set.values()[usize::from(row.id)];
        assert_eq!(value, 0.0, "{}", row.name);
    }
}
