//! Tests of `convert`: the published-set diff by hand, and its invariants over random books.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::record::SCALE;

const TICK: i64 = SCALE;

fn book(time_ns: i64, bids: &[(i64, i64)], asks: &[(i64, i64)]) -> BookRecord {
    let mut record = BookRecord::empty();
    record.header.instrument_id = 1;
    record.header.exchange_time_ns = time_ns;
    record.header.receive_time_ns = time_ns + 5;
    for (level, (price, qty)) in bids.iter().enumerate() {
        record.bid_price[level] = price * TICK;
        record.bid_qty[level] = qty * SCALE;
    }
    for (level, (price, qty)) in asks.iter().enumerate() {
        record.ask_price[level] = price * TICK;
        record.ask_qty[level] = qty * SCALE;
    }
    record
}

fn trade(time_ns: i64, price: i64, side: i64) -> TradeRecord {
    let mut record = TradeRecord::empty();
    record.header.instrument_id = 1;
    record.header.exchange_time_ns = time_ns;
    record.header.receive_time_ns = time_ns + 5;
    record.price = price * TICK;
    record.qty = SCALE;
    record.aggressor_side = side;
    record
}

fn converter() -> Converter {
    Converter::new(1, TICK, SCALE).unwrap_or_else(|error| unreachable!("{error}"))
}

fn push<R: Record>(converter: &mut Converter, record: &R) -> Vec<EventRow> {
    let mut rows = Vec::new();
    converter.push(record.header(), record.as_bytes(), &mut rows);
    rows
}

/// A book that only the rows know: `side -> price -> quantity`.
#[derive(Default)]
struct Replica {
    bids: BTreeMap<i64, f64>,
    asks: BTreeMap<i64, f64>,
}

impl Replica {
    fn apply(&mut self, rows: &[EventRow]) {
        for row in rows {
            assert_eq!(row.ev & event::EXCHANGE, event::EXCHANGE);
            if row.ev & 0xff == event::DEPTH_CLEAR {
                self.bids.clear();
                self.asks.clear();
            } else if row.ev & 0xff == event::DEPTH {
                let side = if row.ev & event::BUY != 0 {
                    &mut self.bids
                } else {
                    &mut self.asks
                };
                #[allow(
                    clippy::cast_possible_truncation,
                    reason = "test prices are small integers"
                )]
                let price = row.px as i64;
                if row.qty == 0.0 {
                    assert!(
                        side.remove(&price).is_some(),
                        "deleted what was not published: {price}"
                    );
                } else {
                    side.insert(price, row.qty);
                }
            }
        }
    }
}

/// Invariants 1 to 3 of one side; `better(a, b)` says that price a is better than b.
fn check_side(published: &BTreeMap<i64, f64>, shown: &[(i64, i64)], better: fn(i64, i64) -> bool) {
    for (price, qty) in shown {
        assert_eq!(
            published.get(price),
            Some(&(*qty as f64)),
            "invariant 1 at {price}"
        );
    }
    let (Some(best), Some(worst)) = (shown.first(), shown.last()) else {
        assert!(published.is_empty(), "invariant 3: the side is empty");
        return;
    };
    for price in published.keys() {
        assert!(
            !better(*price, best.0),
            "invariant 2: {price} is better than {}",
            best.0
        );
        let inside = !better(worst.0, *price) || shown.len() < LEVEL_COUNT;
        if inside {
            assert!(
                shown.iter().any(|level| level.0 == *price),
                "invariant 3 at {price}"
            );
        }
    }
}

#[test]
fn a_level_that_scrolls_out_of_the_window_stays_as_last_seen() {
    let mut converter = converter();
    let first = book(
        1,
        &[(100, 1), (99, 2), (98, 3), (97, 4), (96, 5)],
        &[(101, 1), (102, 1), (103, 1), (104, 1), (105, 1)],
    );
    assert_eq!(push(&mut converter, &first).len(), 1 + 10);
    let up = book(
        2,
        &[(101, 7), (100, 1), (99, 2), (98, 3), (97, 4)],
        &[(102, 1), (103, 1), (104, 1), (105, 1), (106, 1)],
    );
    let rows = push(&mut converter, &up);
    let seen: Vec<(u64, f64, f64)> = rows
        .iter()
        .map(|row| (row.ev & (event::BUY | event::SELL), row.px, row.qty))
        .collect();
    assert_eq!(
        seen,
        [
            (event::SELL, 101.0, 0.0),
            (event::BUY, 101.0, 7.0),
            (event::SELL, 106.0, 1.0)
        ]
    );
}

#[test]
fn an_unchanged_snapshot_gives_no_row() {
    let mut converter = converter();
    let first = book(1, &[(100, 1)], &[(101, 1)]);
    assert_eq!(push(&mut converter, &first).len(), 3);
    assert_eq!(push(&mut converter, &first).len(), 0);
}

#[test]
fn a_side_with_fewer_than_five_levels_ends_at_its_last_one() {
    let mut converter = converter();
    push(
        &mut converter,
        &book(
            1,
            &[(100, 1), (99, 2), (98, 3), (97, 4), (96, 5)],
            &[(101, 1)],
        ),
    );
    let rows = push(&mut converter, &book(2, &[(100, 1), (99, 2)], &[]));
    let deleted: Vec<f64> = rows.iter().map(|row| row.px).collect();
    assert_eq!(deleted, [96.0, 97.0, 98.0, 101.0]);
    assert!(rows.iter().all(|row| row.qty == 0.0));
}

#[test]
fn crossed_simulated_and_off_grid_records_give_no_row_and_are_counted() {
    let mut converter = converter();
    push(&mut converter, &book(1, &[(100, 1)], &[(101, 1)]));
    assert!(push(&mut converter, &book(2, &[(102, 1)], &[(101, 1)])).is_empty());
    let mut simulated = book(3, &[(90, 1)], &[(91, 1)]);
    simulated.header.flags = flags::SIMULATED_MATCH;
    assert!(push(&mut converter, &simulated).is_empty());
    let mut off = book(4, &[(100, 1)], &[(101, 1)]);
    off.ask_price[0] += 1;
    assert!(push(&mut converter, &off).is_empty());
    assert!(push(&mut converter, &book(5, &[(99, 1), (100, 1)], &[(101, 1)])).is_empty());
    let counts = converter.counts();
    assert_eq!(
        (
            counts.crossed,
            counts.not_tradable,
            counts.malformed,
            counts.snapshots
        ),
        (1, 1, 2, 1)
    );
}

#[test]
fn a_trade_without_a_side_is_classified_by_the_quote_or_left_out() {
    let mut converter = converter();
    assert_eq!(
        push(&mut converter, &trade(1, 100, 0)).len(),
        1,
        "only the clear of the session start"
    );
    push(&mut converter, &book(2, &[(100, 1)], &[(102, 1)]));
    let side = |rows: &[EventRow]| rows.first().map(|row| row.ev & (event::BUY | event::SELL));
    assert_eq!(
        side(&push(&mut converter, &trade(3, 102, 0))),
        Some(event::BUY)
    );
    assert_eq!(
        side(&push(&mut converter, &trade(4, 100, 0))),
        Some(event::SELL)
    );
    assert_eq!(side(&push(&mut converter, &trade(5, 101, 0))), None);
    assert_eq!(
        side(&push(&mut converter, &trade(6, 101, -1))),
        Some(event::SELL)
    );
    let counts = converter.counts();
    assert_eq!(
        (counts.classified, counts.unclassified, counts.trades),
        (2, 2, 3)
    );
}

#[test]
fn trades_come_before_books_of_the_same_exchange_time() {
    let mut tape = book(10, &[(100, 1)], &[(101, 1)]).as_bytes().to_vec();
    tape.extend_from_slice(trade(10, 101, 1).as_bytes());
    let tape = MarketTape::new(tape).unwrap_or_else(|error| unreachable!("{error}"));
    let (rows, counts) =
        convert_tape(&tape, 1, TICK, SCALE).unwrap_or_else(|error| unreachable!("{error}"));
    let kinds: Vec<u64> = rows.iter().map(|row| row.ev & 0xff).collect();
    assert_eq!(
        kinds,
        [event::DEPTH_CLEAR, event::TRADE, event::DEPTH, event::DEPTH]
    );
    assert_eq!((counts.trades, counts.snapshots), (1, 1));
}

#[test]
fn a_tape_out_of_order_or_with_other_records_is_refused() {
    let mut tape = trade(10, 101, 1).as_bytes().to_vec();
    tape.extend_from_slice(trade(9, 101, 1).as_bytes());
    assert!(matches!(
        MarketTape::new(tape),
        Err(ConvertError::OutOfOrder { row: 1, .. })
    ));
    let timer = crate::record::TimerRecord::empty();
    assert!(matches!(
        MarketTape::new(timer.as_bytes().to_vec()),
        Err(ConvertError::NotMarketData {
            record_type: 3,
            row: 0
        })
    ));
    assert!(matches!(
        MarketTape::new(Vec::new()),
        Err(ConvertError::Empty)
    ));
    let late = trade(TIME_NS_MAX, 101, 1);
    assert!(matches!(
        MarketTape::new(late.as_bytes().to_vec()),
        Err(ConvertError::TimeOutOfRange { row: 0, .. })
    ));
}

fn side_strategy() -> impl Strategy<Value = Vec<(i64, i64)>> {
    proptest::collection::btree_map(0_i64..12, 1_i64..9, 0..=LEVEL_COUNT)
        .prop_map(|map| map.into_iter().collect())
}

proptest! {
    /// Invariants 1 to 3 after each of a run of random snapshots around a wandering price.
    #[test]
    fn published_set_holds_exactly_what_is_shown(
        snapshots in proptest::collection::vec((side_strategy(), side_strategy(), -6_i64..6), 1..60)
    ) {
        let mut converter = converter();
        let mut replica = Replica::default();
        let mut mid = 1_000;
        for (time_ns, (bid_offsets, ask_offsets, step)) in snapshots.into_iter().enumerate() {
            mid += step;
            let bids: Vec<(i64, i64)> = bid_offsets.iter().map(|(offset, qty)| (mid - 1 - offset, *qty)).collect();
            let asks: Vec<(i64, i64)> = ask_offsets.iter().map(|(offset, qty)| (mid + offset, *qty)).collect();
            replica.apply(&push(&mut converter, &book(time_ns as i64, &bids, &asks)));
            check_side(&replica.bids, &bids, |a, b| a > b);
            check_side(&replica.asks, &asks, |a, b| a < b);
        }
    }
}
