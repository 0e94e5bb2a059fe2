//! Tests of the paper exchange as a broker.
use super::*;
use crate::faults::Rate;
use crate::record::{BookRecord, BrokerRecord, SCALE, Tape, TradeRecord};

const MS: i64 = 1_000_000;
const OPEN: i64 = 1_000_000 * MS;

fn books(from_ms: i64, until_ms: i64) -> Vec<u8> {
    let mut tape = Vec::new();
    for at_ms in (from_ms..=until_ms).step_by(100) {
        let mut record = BookRecord::empty();
        record.header.instrument_id = 1;
        record.header.exchange_time_ns = OPEN + at_ms * MS;
        record.header.receive_time_ns = OPEN + (at_ms + 3) * MS;
        (record.bid_price[0], record.bid_qty[0]) = (100 * SCALE, (5 + at_ms % 200 / 100) * SCALE);
        (record.ask_price[0], record.ask_qty[0]) = (101 * SCALE, 5 * SCALE);
        tape.extend_from_slice(record.as_bytes());
    }
    tape
}

fn trade(at_ms: i64, price: i64) -> Vec<u8> {
    let mut record = TradeRecord::empty();
    record.header.instrument_id = 1;
    record.header.exchange_time_ns = OPEN + at_ms * MS;
    record.header.receive_time_ns = OPEN + (at_ms + 3) * MS;
    (record.price, record.qty, record.aggressor_side) = (price * SCALE, SCALE, -1);
    record.as_bytes().to_vec()
}

fn exchange(faults: Option<FaultProfile>) -> PaperExchange {
    PaperExchange::new(ExchangeSetup {
        profile: LatencyProfile::constant(20 * MS, 10 * MS, 5 * MS),
        queue_model: QueueModelKind::RiskAdverse,
        faults,
        instruments: vec![VenueInstrument::flat(1, SCALE, SCALE)],
        trading_day: 20_260_302,
    })
    .unwrap_or_else(|error| unreachable!("{error}"))
}

fn buy(order_id: u64, price: i64, qty: i64) -> NewOrder {
    NewOrder {
        order_id,
        instrument_id: 1,
        side: 1,
        price: price * SCALE,
        qty: qty * SCALE,
        time_in_force: 1,
    }
}

/// Broker records in what is handed out until nothing is left, or until `until_ms`.
fn reports(exchange: &mut PaperExchange, until_ms: Option<i64>) -> Vec<BrokerRecord> {
    let mut found = Vec::new();
    while let Ok(tape) = exchange.next(until_ms.map(|at_ms| OPEN + at_ms * MS), 1) {
        if tape.is_empty() {
            break;
        }
        assert_eq!(Tape::new(&tape).count(), 1, "one record at a time");
        found.extend(Tape::new(&tape).filter_map(|item| BrokerRecord::read(item.ok()?.1)));
    }
    found
}

fn lossy(lost_request: u32, lost_reply: u32) -> FaultProfile {
    FaultProfile {
        lost_request: Some(Rate {
            rate_ppm: lost_request,
        }),
        lost_reply: Some(Rate {
            rate_ppm: lost_reply,
        }),
        timeout: Some(crate::faults::Timeout {
            after_ns: 1_000 * MS,
            resolve_ns: Some(1_000 * MS),
        }),
        ..FaultProfile::off("lossy", 7)
    }
}

#[test]
fn an_order_from_outside_takes_the_way_of_one_from_inside() {
    let mut exchange = exchange(None);
    assert!(exchange.feed(books(0, 2_000), false).is_ok());
    let first = exchange.next(None, 1).unwrap_or_default();
    assert_eq!(Tape::new(&first).count(), 1);
    let placed = exchange.place(buy(7, 101, 1), None);
    assert_eq!(placed, Ok((7, CallAnswer::Taken)));
    let [fill] = reports(&mut exchange, None)[..] else {
        unreachable!("one report expected");
    };
    // Received at 3, at the exchange at 23, back at 28.
    assert_eq!(fill.event_kind, BrokerEventKind::Fill as u32);
    assert_eq!(fill.header.exchange_time_ns, OPEN + 23 * MS);
    assert_eq!(fill.header.receive_time_ns, OPEN + 28 * MS);
    assert_eq!(exchange.truth().get(&1), Some(&SCALE));
    assert!(exchange.is_done());
}

#[test]
fn a_lost_request_leaves_nothing_and_a_lost_reply_an_order_that_can_be_found() {
    let mut nothing = exchange(Some(lossy(1_000_000, 0)));
    assert!(nothing.feed(books(0, 30_000), false).is_ok());
    assert!(nothing.next(None, 1).is_ok());
    let placed = nothing.place(buy(7, 100, 1), None);
    assert_eq!(placed, Ok((7, CallAnswer::Unanswered)));
    assert_eq!(
        reports(&mut nothing, None),
        vec![],
        "no timeout tells by itself"
    );
    assert!(nothing.book().is_some_and(|book| book.orders().is_empty()));

    let mut silent = 0;
    for order_id in 1..=40 {
        let mut alive = exchange(Some(lossy(0, 1_000_000)));
        assert!(alive.feed(books(0, 30_000), false).is_ok());
        assert!(alive.next(None, 1).is_ok());
        let placed = alive.place(buy(order_id, 100, 1), None);
        silent += usize::from(placed == Ok((order_id, CallAnswer::Unanswered)));
        assert_eq!(reports(&mut alive, Some(20_000)), vec![]);
        let book = alive.book().map(|book| book.orders().len());
        assert_eq!(book, Some(1), "it works at the exchange");
        assert_eq!(
            alive.orders().map(|orders| orders.len()),
            None,
            "the question is lost too"
        );
    }
    assert!(
        (10..=30).contains(&silent),
        "{silent} of 40 calls unanswered"
    );
}

#[test]
fn an_order_under_way_is_known_only_if_its_call_was_answered() {
    let mut known = exchange(None);
    assert!(known.feed(books(0, 2_000), false).is_ok());
    assert!(known.next(None, 1).is_ok());
    assert!(known.place(buy(7, 100, 1), None).is_ok());
    let views = known.orders().unwrap_or_default();
    let states: Vec<_> = views.iter().map(OrderView::status).collect();
    assert_eq!(states, [None], "pending");

    let mut unknown = exchange(Some(lossy(0, 400_000)));
    assert!(unknown.feed(books(0, 2_000), false).is_ok());
    assert!(unknown.next(None, 1).is_ok());
    let mut answered = 0;
    for order_id in 1..=20 {
        let placed = unknown.place(buy(order_id, 100, 1), None);
        answered += usize::from(placed == Ok((order_id, CallAnswer::Taken)));
    }
    assert!((10..20).contains(&answered), "{answered}");
    let ask = |exchange: &mut PaperExchange| loop {
        if let Some(orders) = exchange.orders() {
            break orders.len();
        }
    };
    assert_eq!(ask(&mut unknown), answered, "the others are not found yet");
    reports(&mut unknown, Some(500));
    assert_eq!(
        ask(&mut unknown),
        20,
        "and are there when they have arrived"
    );
}

#[test]
fn an_order_sent_twice_is_there_twice() {
    let mut exchange = exchange(None);
    assert!(exchange.feed(books(0, 2_000), false).is_ok());
    assert!(exchange.next(None, 1).is_ok());
    assert_eq!(
        exchange.place(buy(7, 101, 1), None),
        Ok((7, CallAnswer::Taken))
    );
    let again = exchange.place(buy(7, 101, 1), None);
    assert_eq!(again, Ok((OWN_ID_FIRST, CallAnswer::Taken)));
    reports(&mut exchange, None);
    assert_eq!(exchange.truth().get(&1), Some(&(2 * SCALE)));
}

#[test]
fn parts_of_a_fill_add_up_and_a_double_names_the_same_one() {
    let delayed = |rate_ppm, delay_ns| Some(crate::faults::Delayed { rate_ppm, delay_ns });
    let profile = FaultProfile {
        partial_fill: delayed(1_000_000, 50 * MS),
        duplicate: delayed(1_000_000, 200 * MS),
        ..FaultProfile::off("parts", 3)
    };
    let mut exchange = exchange(Some(profile));
    assert!(exchange.feed(books(0, 3_000), false).is_ok());
    assert!(exchange.next(None, 1).is_ok());
    assert!(exchange.place(buy(7, 101, 5), None).is_ok());
    let told = reports(&mut exchange, None);
    let view = exchange.orders().unwrap_or_default();
    let fills = &view[0]
        .booked
        .as_ref()
        .map_or(&[][..], |one| &one.fills[..]);
    assert!(fills.len() >= 2, "in parts");
    assert_eq!(fills.iter().map(|fill| fill.qty).sum::<i64>(), 5 * SCALE);
    for fill in fills.iter() {
        let same = told
            .iter()
            .filter(|record| record.event_kind == BrokerEventKind::Fill as u32)
            .filter(|record| record.remaining_qty == fill.remaining_qty);
        assert_eq!(same.count(), 2, "told twice, by one remainder");
    }
}

#[test]
fn a_cancel_ends_an_order_and_the_market_may_come_in_pieces() {
    let mut exchange = exchange(None);
    assert!(exchange.feed(books(0, 500), true).is_ok());
    assert!(
        exchange.next(None, 1).is_err(),
        "an open market has no end to run to"
    );
    assert!(exchange.next(Some(OPEN + 3 * MS), 1).is_ok());
    assert!(exchange.place(buy(7, 100, 1), Some(OPEN + 50 * MS)).is_ok());
    let told = reports(&mut exchange, Some(450));
    assert_eq!(
        told[0].header.exchange_time_ns,
        OPEN + 70 * MS,
        "not in the past"
    );
    assert!(exchange.feed(trade(600, 101), true).is_ok());
    assert_eq!(exchange.cancel(7, None), Ok(Some(CallAnswer::Taken)));
    assert_eq!(exchange.cancel(8, None), Ok(None));
    let told = reports(&mut exchange, Some(600));
    let kinds: Vec<u32> = told.iter().map(|record| record.event_kind).collect();
    assert_eq!(kinds, [BrokerEventKind::Canceled as u32]);
    assert!(exchange.feed(Vec::new(), false).is_ok());
    assert_eq!(reports(&mut exchange, None), vec![]);
    assert!(exchange.is_done());
    assert_eq!(
        exchange.place(buy(9, 100, 1), None),
        Ok((9, CallAnswer::Refused))
    );
    let result = exchange.finish();
    assert_eq!(result.map(|result| result.counts.requests), Some(2));
    assert!(exchange.finish().is_none());
}
