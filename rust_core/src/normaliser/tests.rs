//! Rules on plain fields; that the SDK's objects are read right is tested from Python.
#![allow(clippy::panic, reason = "tests stop at the first surprise")]
use proptest::prelude::*;

use super::*;
use crate::normaliser::local_time::DAY_S;
use crate::record::{SCALE, Tape};

const DAY: i64 = 20_553; // 2026-04-10
const S: i64 = NS_PER_S;
/// 2026-04-10 00:00 in Taipei.
const MIDNIGHT_NS: i64 = (DAY * DAY_S - 8 * 3_600) * S;

fn config() -> NormaliserConfig {
    let text = format!(
        r#"{{"utc_offset_s": 28800, "exchange_ahead_ns_max": {ahead},
            "exchange_behind_ns_max": {behind}, "on_total_mismatch": "drop", "instruments": [
            {{"instrument_id": 7, "code": "TXFD6", "market": "futures", "is_odd_lot": false,
              "lot_size": {SCALE}, "tick_size": {SCALE}, "gap_ns": {gap}, "sessions": [
                {{"preopen_ns": {preopen}, "start_ns": {start}, "end_ns": {end},
                  "trading_day": 20260410}},
                {{"preopen_ns": {night}, "start_ns": {night}, "end_ns": {night_end},
                  "trading_day": 20260413}}]}},
            {{"instrument_id": 8, "code": "2330", "market": "stock", "is_odd_lot": false,
              "lot_size": {lot}, "tick_size": 1000000, "gap_ns": {gap}, "sessions": [
                {{"preopen_ns": {start}, "start_ns": {start}, "end_ns": {end},
                  "trading_day": 20260410}}]}}]}}"#,
        ahead = 2 * S,
        behind = 60 * S,
        gap = 5 * S,
        preopen = MIDNIGHT_NS + 8 * 3_600 * S,
        start = MIDNIGHT_NS + 9 * 3_600 * S,
        end = MIDNIGHT_NS + 13 * 3_600 * S,
        night = MIDNIGHT_NS + 15 * 3_600 * S,
        night_end = MIDNIGHT_NS + 29 * 3_600 * S,
        lot = 1_000 * SCALE,
    );
    NormaliserConfig::from_json(&text).unwrap_or_else(|error| panic!("{error}"))
}

/// A moment of 2026-04-10.
fn at(seconds: i64, microseconds: u32) -> LocalTime {
    let byte = |value: i64| u8::try_from(value).unwrap_or(u8::MAX);
    let [_, high, mid, low] = microseconds.to_be_bytes();
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let packed = [
        7,
        234,
        4,
        10,
        byte(hour),
        byte(minute),
        byte(second),
        high,
        mid,
        low,
    ];
    LocalTime::from_packed(&packed).unwrap_or_else(|| panic!("{packed:?}"))
}

fn head(class: QuoteClass, seconds: i64) -> Head<'static> {
    Head {
        class,
        code: if class.has_suspend() { "2330" } else { "TXFD6" },
        time: at(seconds, 0),
        is_simulated: false,
        is_suspended: false,
        is_odd_lot: false,
    }
}

fn receive(seconds: i64) -> i64 {
    MIDNIGHT_NS + seconds * S + 1_000
}

fn trade(volume: i64, total_volume: i64) -> TradeFields {
    TradeFields {
        price: 20_001 * SCALE,
        volume,
        total_volume,
        tick_type: 2,
    }
}

fn book() -> BookFields {
    BookFields {
        bid_price: [5, 4, 3, 2, 1].map(|price| price * SCALE),
        bid_volume: [1, 2, 3, 4, 5],
        ask_price: [6, 7, 8, 9, 10].map(|price| price * SCALE),
        ask_volume: [5, 4, 3, 2, 1],
        totals: None,
    }
}

/// A normaliser with its output, to call it in one line.
struct Bench {
    normaliser: Normaliser,
    out: Output,
}

impl Bench {
    fn new(config: &NormaliserConfig) -> Self {
        Self {
            normaliser: Normaliser::new(config),
            out: Output::default(),
        }
    }

    /// A print; gives its record.
    fn trade(
        &mut self,
        head: &Head<'_>,
        fields: &TradeFields,
        now_ns: i64,
    ) -> Result<TradeRecord, ReasonCode> {
        self.normaliser
            .on_trade(head, fields, now_ns, &mut self.out)?;
        Ok(TradeRecord::read(self.out.tape()).unwrap_or_else(TradeRecord::empty))
    }
}

const OPEN: i64 = 9 * 3_600 + 60;

#[test]
fn a_print_is_placed_scaled_and_stamped() {
    let mut bench = Bench::new(&config());
    let head = head(QuoteClass::TickStk, OPEN);
    let made = bench.trade(&head, &trade(3, 3), receive(OPEN));
    let record = made.unwrap_or_else(|code| panic!("{code:?}"));
    assert_eq!(record.header.instrument_id, 8);
    assert_eq!(record.header.trading_day, 20_260_410);
    assert_eq!(record.header.exchange_time_ns, MIDNIGHT_NS + OPEN * S);
    assert_eq!(record.header.receive_time_ns, receive(OPEN));
    assert_eq!(record.header.source_id, SOURCE_BROKER);
    assert_eq!(record.header.flags, flags::SESSION_START);
    assert_eq!((record.qty, record.aggressor_side), (3_000 * SCALE, -1));
}

#[test]
fn a_refused_message_leaves_the_stream_as_it_was_and_the_output_empty() {
    let mut bench = Bench::new(&config());
    let now = head(QuoteClass::TickFop, OPEN);
    assert!(bench.trade(&now, &trade(3, 10), receive(OPEN)).is_ok());
    let bad = TradeFields {
        price: 0,
        ..trade(2, 12)
    };
    let refused = bench.trade(&now, &bad, receive(OPEN));
    assert_eq!(refused, Err(ReasonCode::PriceNotPositive));
    assert!(bench.out.tape().is_empty());
    let before = head(QuoteClass::TickFop, OPEN - 1);
    let late = bench.trade(&before, &trade(2, 12), receive(OPEN));
    assert_eq!(late, Err(ReasonCode::OutOfOrderRow));
    let next = bench.trade(&now, &trade(2, 12), receive(OPEN));
    let marks = next.map(|record| record.header.flags);
    assert_eq!(marks, Ok(0), "12 still follows 10");
    assert_eq!(bench.normaliser.counters().dropped_count(), 2);
}

#[test]
fn a_print_of_a_session_that_is_over_is_refused() {
    let mut bench = Bench::new(&NormaliserConfig {
        exchange_behind_ns_max: 3 * 3_600 * S,
        ..config()
    });
    let (night, day) = (15 * 3_600 + 1, 13 * 3_600 - 1);
    let tick = QuoteClass::TickFop;
    let at_night = bench.trade(&head(tick, night), &trade(1, 1), receive(night));
    assert!(at_night.is_ok());
    let over = bench.trade(&head(tick, day), &trade(1, 5), receive(night));
    assert_eq!(over, Err(ReasonCode::OutOfOrderRow));
}

#[test]
fn no_session_holds_the_end_or_the_break() {
    let mut bench = Bench::new(&config());
    for seconds in [0, 8 * 3_600 - 1, 13 * 3_600, 15 * 3_600 - 1] {
        let time = at(seconds, 1);
        let head = Head {
            time,
            ..head(QuoteClass::BidAskFop, seconds)
        };
        let refused = bench
            .normaliser
            .on_book(&head, &book(), receive(seconds), &mut bench.out);
        assert_eq!(refused, Err(ReasonCode::OutsideSession), "{seconds}");
    }
}

fn any_value() -> impl Strategy<Value = i64> {
    prop_oneof![
        4 => 0_i64..30,
        2 => (1_i64..40).prop_map(|price| price * SCALE),
        1 => any::<i64>(),
        1 => Just(i64::MIN),
        1 => Just(i64::MAX),
    ]
}

fn any_clock() -> impl Strategy<Value = [u8; 6]> {
    (0_u8..24, 0_u8..60, 0_u8..60, 0_u32..1_000_000).prop_map(|(hour, minute, second, us)| {
        let [_, high, mid, low] = us.to_be_bytes();
        [hour, minute, second, high, mid, low]
    })
}

fn any_time() -> impl Strategy<Value = LocalTime> {
    let plain = (0_i64..86_400, 0_u32..1_000_000).prop_map(|(seconds, us)| at(seconds, us));
    let date = (any::<[u8; 2]>(), 1_u8..=12, 1_u8..=31);
    let wild = (date, any_clock()).prop_filter_map("a time", |((year, month, day), clock)| {
        let [hour, minute, second, high, mid, low] = clock;
        LocalTime::from_packed(&[
            year[0], year[1], month, day, hour, minute, second, high, mid, low,
        ])
    });
    let near = (OPEN..OPEN + 20).prop_map(|seconds| at(seconds, 0));
    let bad_date = Just([7, 208, 1, 1, 9, 0, 0, 0, 0, 0])
        .prop_filter_map("a time", |bytes| LocalTime::from_packed(&bytes));
    prop_oneof![12 => near, 4 => plain, 1 => wild, 1 => bad_date]
}

type AnyObject = (
    usize,
    LocalTime,
    [bool; 3],
    [i64; 5],
    [[i64; 5]; 4],
    Option<[i64; 2]>,
    bool,
);

fn any_object() -> impl Strategy<Value = AnyObject> {
    (
        0..surface::CLASS_COUNT,
        any_time(),
        any::<[bool; 3]>(),
        prop::array::uniform5(any_value()),
        prop::array::uniform4(prop::array::uniform5(any_value())),
        prop::option::of(prop::array::uniform2(any_value())),
        prop::bool::weighted(0.6),
    )
}

proptest! {
    /// Invariants 2, 3 and 5: counts add up, receive times grow, and nothing panics.
    #[test]
    fn any_fields_are_answered_and_counted(objects in prop::collection::vec(any_object(), 1..60)) {
        let mut normaliser = Normaliser::new(&config());
        let mut out = Output::default();
        let mut last_ns = 0;
        for (class, time, marks, values, sides, totals, is_good) in objects {
            let class = surface::CLASSES[class];
            let head = Head {
                class,
                code: if marks[0] { "2330" } else { "TXFD6" },
                time,
                is_simulated: marks[1] && !is_good,
                is_suspended: marks[2] && !is_good,
                is_odd_lot: false,
            };
            let print = if is_good { trade(values[1].rem_euclid(9), values[2].rem_euclid(99)) } else {
                TradeFields { price: values[0], volume: values[1], total_volume: values[2], tick_type: values[3] }
            };
            let levels = if is_good { book() } else {
                BookFields { bid_price: sides[0], bid_volume: sides[1], ask_price: sides[2], ask_volume: sides[3], totals }
            };
            let now_ns = if is_good { receive(OPEN + 10) } else { values[4] };
            let before = normaliser.counters().clone();
            let made = match (class.has_trade(), class.has_book()) {
                (true, true) => normaliser.on_quote(&head, &print, &levels, now_ns, &mut out),
                (true, false) => normaliser.on_trade(&head, &print, now_ns, &mut out),
                _ => normaliser.on_book(&head, &levels, now_ns, &mut out),
            };
            let after = normaliser.counters();
            prop_assert_eq!(after.fed, after.published + after.dropped_count());
            match made {
                Err(code) => {
                    prop_assert_eq!(after.published, before.published);
                    prop_assert_eq!(code.code() / 100, 1);
                }
                Ok(()) => {
                    prop_assert_eq!(after.books + after.trades > before.books + before.trades, true);
                    for item in Tape::new(out.tape()) {
                        let (header, bytes) = item.unwrap_or_else(|error| panic!("{error}"));
                        prop_assert!(header.receive_time_ns > last_ns);
                        last_ns = header.receive_time_ns;
                        prop_assert_eq!(header.source_seq, after.fed);
                        if let Some(trade) = TradeRecord::read(bytes) {
                            prop_assert!((1..=VALUE_MAX).contains(&trade.price));
                            prop_assert!((1..=VALUE_MAX).contains(&trade.qty));
                        }
                        if let Some(book) = BookRecord::read(bytes) {
                            prop_assert!(crate::book::Book::default().on_book(&book, 1).is_ok());
                        }
                    }
                }
            }
        }
    }
}
