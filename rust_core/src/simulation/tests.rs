//! Tests of the event loop, on the paper exchange with scripted decisions.

mod faults;
mod push;

use super::*;
use crate::exchange::{CrateVenue, QueueModelKind, VenueInstrument};
use crate::reason::ReasonCode;
use crate::record::{
    ActionKind, BookRecord, BrokerEventKind, BrokerRecord, SCALE, Tape, TimerRecord, TradeRecord,
};

const MS: i64 = 1_000_000;
const FEED_DELAY: i64 = 3 * MS;
const OPEN: i64 = 1_000_000 * MS;

/// A market tape that grows row by row; times are milliseconds after the open.
#[derive(Default)]
struct Market {
    bytes: Vec<u8>,
}

impl Market {
    fn book(mut self, at_ms: i64, bid: (i64, i64), ask: (i64, i64)) -> Self {
        let mut record = BookRecord::empty();
        Self::stamp(&mut record.header, at_ms);
        (record.bid_price[0], record.bid_qty[0]) = (bid.0 * SCALE, bid.1 * SCALE);
        (record.ask_price[0], record.ask_qty[0]) = (ask.0 * SCALE, ask.1 * SCALE);
        self.bytes.extend_from_slice(record.as_bytes());
        self
    }

    fn trade(mut self, at_ms: i64, price: i64, qty: i64, side: i64) -> Self {
        let mut record = TradeRecord::empty();
        Self::stamp(&mut record.header, at_ms);
        record.price = price * SCALE;
        record.qty = qty * SCALE;
        record.aggressor_side = side;
        self.bytes.extend_from_slice(record.as_bytes());
        self
    }

    fn stamp(header: &mut RecordHeader, at_ms: i64) {
        header.instrument_id = 1;
        header.exchange_time_ns = OPEN + at_ms * MS;
        header.receive_time_ns = header.exchange_time_ns + FEED_DELAY;
    }
}

fn decision(
    at_ms: i64,
    action: ActionKind,
    order_id: u64,
    side: i64,
    price: i64,
    life: u32,
) -> DecisionRecord {
    let mut made = DecisionRecord::empty();
    made.header.instrument_id = 1;
    made.header.sequence_time_ns = OPEN + at_ms * MS;
    made.order_id = order_id;
    made.action = action as u32;
    made.verdict = APPROVED;
    made.side = side;
    made.price = price * SCALE;
    made.qty = SCALE;
    made.time_in_force = life;
    made
}

fn place(at_ms: i64, order_id: u64, side: i64, price: i64) -> DecisionRecord {
    decision(at_ms, ActionKind::Place, order_id, side, price, 1)
}

fn cancel(at_ms: i64, order_id: u64) -> DecisionRecord {
    decision(at_ms, ActionKind::Cancel, order_id, 1, 100, 1)
}

fn venue() -> CrateVenue {
    let instrument = VenueInstrument::flat(1, SCALE, SCALE);
    CrateVenue::new(QueueModelKind::RiskAdverse, &[instrument])
        .unwrap_or_else(|error| unreachable!("{error}"))
}

fn simulation<S: Sink>(
    market: Market,
    script: Vec<DecisionRecord>,
    profile: LatencyProfile,
    sink: S,
) -> Simulation<Script, CrateVenue, S> {
    let tape = MarketTape::new(market.bytes).unwrap_or_else(|error| unreachable!("{error}"));
    Simulation::new(
        tape,
        SessionHead::default(),
        profile,
        (Script::new(script), venue(), sink),
    )
}

fn run(
    market: Market,
    script: Vec<DecisionRecord>,
    profile: LatencyProfile,
) -> Finished<Script, CrateVenue, MemorySink> {
    let mut simulation = simulation(market, script, profile, MemorySink::default());
    let progress = simulation
        .run(None, u64::MAX)
        .unwrap_or_else(|error| unreachable!("{error}"));
    assert!(progress.is_done);
    simulation.finish()
}

/// `(kind, order id, exchange time, delivery time)` of every broker record, times in ms.
fn reports(sink: &MemorySink) -> Vec<(u32, u64, i64, i64)> {
    Tape::new(&sink.broker)
        .filter_map(|item| BrokerRecord::read(item.ok()?.1))
        .map(|record| {
            let since = |time_ns: i64| (time_ns - OPEN) / MS;
            let head = record.header;
            (
                record.event_kind,
                record.order_id,
                since(head.exchange_time_ns),
                since(head.receive_time_ns),
            )
        })
        .collect()
}

const WORKING: u32 = BrokerEventKind::Working as u32;
const FILL: u32 = BrokerEventKind::Fill as u32;
const CANCELED: u32 = BrokerEventKind::Canceled as u32;
const CANCEL_REJECTED: u32 = BrokerEventKind::CancelRejected as u32;
const EXPIRED: u32 = BrokerEventKind::Expired as u32;
const REJECTED: u32 = BrokerEventKind::Rejected as u32;

fn quiet(until_ms: i64) -> Market {
    (1..=until_ms / 100).fold(
        Market::default().book(0, (100, 5), (101, 5)),
        |market, step| market.book(step * 100, (100, 5 + step % 2), (101, 5)),
    )
}

#[test]
fn a_cancel_takes_the_cancel_delay_and_a_place_the_place_delay() {
    let profile = LatencyProfile::constant(200 * MS, 40 * MS, 10 * MS);
    let finished = run(
        quiet(2_000),
        vec![place(103, 1, 1, 100), cancel(1_003, 1)],
        profile,
    );
    assert_eq!(
        reports(&finished.sink),
        [(WORKING, 1, 303, 313), (CANCELED, 1, 1_043, 1_053)]
    );
    let waits: Vec<(u64, i64, i64)> = finished
        .facts
        .iter()
        .map(|fact| {
            let arrival = (fact.exchange_arrival_ns - fact.decision_time_ns) / MS;
            (
                fact.request_kind,
                arrival,
                (fact.response_time_ns - fact.exchange_arrival_ns) / MS,
            )
        })
        .collect();
    assert_eq!(waits, [(1, 200, 10), (2, 40, 10)]);
}

#[test]
fn an_order_can_fill_while_its_cancel_is_under_way() {
    let market = quiet(500)
        .trade(540, 99, 1, -1)
        .book(1_000, (100, 5), (101, 5));
    let script = vec![place(103, 1, 1, 100), cancel(503, 1)];
    let finished = run(
        market,
        script,
        LatencyProfile::constant(100 * MS, 100 * MS, 10 * MS),
    );
    assert_eq!(
        reports(&finished.sink),
        [
            (WORKING, 1, 203, 213),
            (FILL, 1, 540, 550),
            (CANCEL_REJECTED, 1, 603, 613)
        ]
    );
}

#[test]
fn a_cancel_of_a_filled_order_is_refused() {
    let script = vec![place(103, 1, 1, 101), cancel(503, 1)];
    let finished = run(quiet(1_000), script, LatencyProfile::constant(0, 0, 0));
    assert_eq!(
        reports(&finished.sink),
        [(FILL, 1, 103, 103), (CANCEL_REJECTED, 1, 503, 503)]
    );
}

#[test]
fn a_cancel_that_overtakes_its_order_is_refused_and_the_order_works() {
    let script = vec![place(103, 1, 1, 100), cancel(203, 1)];
    let finished = run(
        quiet(3_000),
        script,
        LatencyProfile::constant(500 * MS, 10 * MS, 0),
    );
    let kinds: Vec<u32> = reports(&finished.sink).iter().map(|row| row.0).collect();
    assert_eq!(kinds, [CANCEL_REJECTED, WORKING, CANCELED]);
}

#[test]
fn an_immediate_order_that_misses_expires_and_one_that_crosses_fills_as_taker() {
    let script = vec![
        decision(103, ActionKind::Place, 1, 1, 100, 2),
        decision(203, ActionKind::Place, 2, 1, 101, 2),
        decision(303, ActionKind::Place, 3, -1, 101, 3),
    ];
    let finished = run(quiet(1_000), script, LatencyProfile::constant(0, 0, 0));
    let kinds: Vec<(u32, u64)> = reports(&finished.sink)
        .iter()
        .map(|row| (row.0, row.1))
        .collect();
    assert_eq!(kinds, [(EXPIRED, 1), (FILL, 2), (EXPIRED, 3)]);
}

#[test]
fn an_order_off_the_grid_or_without_quantity_is_rejected() {
    let mut off = place(103, 1, 1, 100);
    off.price += 1;
    let mut empty = place(103, 2, 1, 100);
    empty.qty = 0;
    let finished = run(
        quiet(1_000),
        vec![off, empty],
        LatencyProfile::constant(0, 0, 0),
    );
    let codes: Vec<u32> = Tape::new(&finished.sink.broker)
        .filter_map(|item| BrokerRecord::read(item.ok()?.1))
        .map(|record| record.reason_code)
        .collect();
    assert_eq!(codes, [208, 106]);
}

#[test]
fn invariant_1_exchange_rows_come_before_requests_of_the_same_time() {
    // The ask falls to 100 exactly when the buy at 100 arrives: it takes, it does not rest.
    let market = quiet(200)
        .book(303, (99, 5), (100, 5))
        .book(1_000, (99, 5), (100, 5));
    let finished = run(
        market,
        vec![place(103, 1, 1, 100)],
        LatencyProfile::constant(200 * MS, 0, 0),
    );
    assert_eq!(reports(&finished.sink), [(FILL, 1, 303, 303)]);
}

#[test]
fn invariants_2_and_4_inputs_are_numbered_in_time_and_never_early() {
    let profile = LatencyProfile::constant(20 * MS, 20 * MS, 10 * MS);
    let script = (1_u64..20)
        .map(|id| place(100 * id.cast_signed() + 3, id, 1, 101))
        .collect();
    let finished = run(quiet(4_000), script, profile);
    let mut last = (0, 0);
    for item in Tape::new(&finished.sink.inputs) {
        let (header, _) = item.unwrap_or_else(|error| unreachable!("{error}"));
        assert_eq!(header.input_seq, last.0 + 1);
        assert!(header.sequence_time_ns > last.1);
        assert!(header.sequence_time_ns >= header.receive_time_ns);
        last = (header.input_seq, header.sequence_time_ns);
    }
    assert_eq!(last.0, finished.counts.inputs);
    assert_eq!(finished.counts.reports, 19);
}

#[test]
fn a_silent_feed_gives_a_timer_every_second() {
    let market = Market::default()
        .book(0, (100, 5), (101, 5))
        .book(3_500, (100, 5), (101, 5));
    let finished = run(market, Vec::new(), LatencyProfile::constant(0, 0, 0));
    assert_eq!((finished.counts.timers, finished.counts.inputs), (3, 5));
}

#[test]
fn invariant_6_the_end_of_the_session_cancels_what_rests_and_answers_everything() {
    let script = vec![
        place(103, 1, 1, 100),
        place(103, 2, -1, 102),
        place(1_003, 3, 1, 99),
    ];
    let finished = run(
        quiet(1_000),
        script,
        LatencyProfile::constant(5_000 * MS, 0, 5 * MS),
    );
    assert_eq!(
        reports(&finished.sink),
        [
            (WORKING, 1, 5_103, 5_108),
            (WORKING, 2, 5_103, 5_108),
            (WORKING, 3, 6_003, 6_008),
            (CANCELED, 1, 6_008, 6_013),
            (CANCELED, 2, 6_008, 6_013),
            (CANCELED, 3, 6_008, 6_013),
        ]
    );
    assert!(finished.facts.iter().all(|fact| fact.response_time_ns > 0));
}

#[test]
fn a_request_that_arrives_after_the_close_is_refused() {
    let script = vec![place(1_003, 1, 1, 100)];
    let finished = run(
        quiet(1_000),
        script,
        LatencyProfile::constant(20_000 * MS, 0, 0),
    );
    assert_eq!(reports(&finished.sink), [(REJECTED, 1, 21_003, 21_003)]);
}

#[test]
fn requests_after_the_close_are_bounded() {
    /// Places again whenever a broker record comes.
    struct Stubborn(u64);
    impl Decide for Stubborn {
        fn on_record(
            &mut self,
            header: &RecordHeader,
            _bytes: &[u8],
            out: &mut Vec<DecisionRecord>,
        ) {
            if header.record_type == BrokerRecord::TYPE as u8 || self.0 == 0 {
                self.0 += 1;
                out.push(place(0, self.0, 1, 100));
            }
        }
    }
    let tape = MarketTape::new(quiet(100).bytes).unwrap_or_else(|error| unreachable!("{error}"));
    let profile = LatencyProfile::constant(0, 0, 0);
    let parts = (Stubborn(0), venue(), MemorySink::default());
    let mut simulation = Simulation::new(tape, SessionHead::default(), profile, parts);
    simulation
        .run(None, 20)
        .unwrap_or_else(|error| unreachable!("{error}"));
    let progress = simulation
        .close()
        .unwrap_or_else(|error| unreachable!("{error}"));
    assert!(progress.is_done);
    assert!(progress.counts.undispatched > 0);
}

#[test]
fn invariant_3_a_failed_log_lets_no_request_leave() {
    /// Takes inputs but no decision.
    struct Broken;
    impl Sink for Broken {
        fn input(&mut self, _header: &RecordHeader, _bytes: &[u8]) -> Result<(), SinkError> {
            Ok(())
        }
        fn decisions(&mut self, _decisions: &[DecisionRecord]) -> Result<(), SinkError> {
            Err(SinkError {
                code: ReasonCode::WalWriteFailed,
                message: "disk full".to_owned(),
            })
        }
    }
    let profile = LatencyProfile::constant(0, 0, 0);
    let mut simulation = simulation(quiet(1_000), vec![place(103, 1, 1, 101)], profile, Broken);
    let error = simulation.run(None, u64::MAX).err();
    assert_eq!(
        error.map(|error| error.code()),
        Some(ReasonCode::WalWriteFailed)
    );
    let progress = simulation
        .run(None, u64::MAX)
        .unwrap_or_else(|error| unreachable!("{error}"));
    assert!(progress.is_done);
    assert_eq!((progress.counts.requests, progress.counts.reports), (0, 0));
    assert!(
        simulation
            .close()
            .is_ok_and(|progress| progress.counts.requests == 0)
    );
}

#[test]
fn stepping_gives_the_same_as_running_through() {
    let script = || {
        vec![
            place(103, 1, 1, 100),
            cancel(503, 1),
            place(603, 2, -1, 100),
        ]
    };
    let profile = LatencyProfile::constant(50 * MS, 20 * MS, 10 * MS);
    let whole = run(quiet(2_000), script(), profile.clone());
    let mut stepped = simulation(quiet(2_000), script(), profile, MemorySink::default());
    let mut until_ns = OPEN;
    while !stepped
        .run(Some(until_ns), 3)
        .is_ok_and(|progress| progress.is_done)
    {
        until_ns += 7 * MS;
    }
    let stepped = stepped.finish();
    assert_eq!(stepped.sink.inputs, whole.sink.inputs);
    assert_eq!(stepped.sink.decisions, whole.sink.decisions);
}

#[test]
fn an_injected_command_is_sequenced_where_the_session_stands() {
    let profile = LatencyProfile::constant(0, 0, 0);
    let mut simulation = simulation(quiet(1_000), Vec::new(), profile, MemorySink::default());
    simulation
        .run(Some(OPEN + 503 * MS), u64::MAX)
        .unwrap_or_else(|error| unreachable!("{error}"));
    simulation
        .inject(crate::record::CommandRecord::empty())
        .unwrap_or_else(|error| unreachable!("{error}"));
    simulation
        .run(None, u64::MAX)
        .unwrap_or_else(|error| unreachable!("{error}"));
    assert!(matches!(
        simulation.inject(TimerRecord::empty()),
        Err(SimulationError::Ended)
    ));
    let finished = simulation.finish();
    let kinds: Vec<u8> = Tape::new(&finished.sink.inputs)
        .filter_map(|item| Some(item.ok()?.0.record_type))
        .collect();
    assert_eq!(kinds.iter().position(|kind| *kind == 4), Some(6));
}

#[test]
fn an_intent_that_expires_in_our_own_pipeline_never_leaves() {
    let mut late = place(103, 1, 1, 101);
    late.ttl_ns = MS;
    let profile = LatencyProfile {
        pipeline_ns: 2 * MS,
        ..LatencyProfile::constant(0, 0, 0)
    };
    let finished = run(quiet(1_000), vec![late], profile);
    assert_eq!(reports(&finished.sink), [(REJECTED, 1, 105, 105)]);
    assert_eq!(finished.counts.requests, 0);
}

#[test]
fn a_hash_of_the_head_is_64_hex_digits_or_empty() {
    assert_eq!(sha256_of_hex("").ok(), Some([0; 32]));
    assert_eq!(sha256_of_hex(&"a1".repeat(32)).ok(), Some([0xa1; 32]));
    assert!(sha256_of_hex("a1").is_err());
    assert!(sha256_of_hex(&"x1".repeat(32)).is_err());
}
