//! Each fault by itself, with its effect on what the engine is told and when.

use super::*;
use crate::faults::{Delayed, FaultProfile, PriceBand, PriceLimit, Rate, Reject, Timeout};
use crate::simulation::FaultReport;

const UNKNOWN: u32 = BrokerEventKind::Unknown as u32;
const ALWAYS: u32 = 1_000_000;

fn off() -> FaultProfile {
    FaultProfile::off("test", 1)
}

fn always(delay_ms: i64) -> Option<Delayed> {
    Some(Delayed {
        rate_ppm: ALWAYS,
        delay_ns: delay_ms * MS,
    })
}

fn timeout(after_ms: i64, resolve_ms: Option<i64>) -> Option<Timeout> {
    Some(Timeout {
        after_ns: after_ms * MS,
        resolve_ns: resolve_ms.map(|ms| ms * MS),
    })
}

fn instruments() -> [VenueInstrument; 1] {
    [VenueInstrument::flat(1, SCALE, SCALE)]
}

/// Place 20 ms, cancel 10 ms, response 5 ms.
fn latencies() -> LatencyProfile {
    LatencyProfile::constant(20 * MS, 10 * MS, 5 * MS)
}

fn run_faulty(
    market: Market,
    script: Vec<DecisionRecord>,
    faults: FaultProfile,
) -> (MemorySink, FaultReport, Vec<OrderFact>) {
    let mut simulation = simulation(market, script, latencies(), MemorySink::default())
        .with_faults(Some(faults), &instruments())
        .unwrap_or_else(|error| unreachable!("{error}"));
    let progress = simulation
        .run(None, u64::MAX)
        .unwrap_or_else(|error| unreachable!("{error}"));
    assert!(progress.is_done);
    let finished = simulation.finish();
    (
        finished.sink,
        finished.faults.unwrap_or_default(),
        finished.facts,
    )
}

fn broker(sink: &MemorySink) -> Vec<BrokerRecord> {
    Tape::new(&sink.broker)
        .filter_map(|item| BrokerRecord::read(item.ok()?.1))
        .collect()
}

/// `(kind, order id, delivery time in ms)`.
fn told(sink: &MemorySink) -> Vec<(u32, u64, i64)> {
    reports(sink)
        .into_iter()
        .map(|row| (row.0, row.1, row.3))
        .collect()
}

fn lots(mut decision: DecisionRecord, lots: i64) -> DecisionRecord {
    decision.qty = lots * SCALE;
    decision
}

#[test]
fn a_profile_with_everything_off_tells_the_same_at_the_same_time() {
    let script = || {
        vec![
            place(103, 1, 1, 100),
            cancel(503, 1),
            place(603, 2, -1, 100),
            decision(703, ActionKind::Place, 3, 1, 100, 2),
        ]
    };
    let plain = run(quiet(2_000), script(), latencies());
    let (sink, report, facts) = run_faulty(quiet(2_000), script(), off());
    assert_eq!(reports(&sink), reports(&plain.sink));
    assert_eq!(sink.decisions, plain.sink.decisions);
    assert_eq!(facts, plain.facts);
    assert!(report.counts.rows().iter().all(|row| row.1 == 0));
    let seqs: Vec<u64> = broker(&sink)
        .iter()
        .map(|record| record.broker_seq)
        .collect();
    assert_eq!(seqs, [1, 2, 3, 4], "reports are numbered without a gap");
}

#[test]
fn a_lost_request_never_acts_times_out_and_is_not_found_when_asked() {
    let faults = FaultProfile {
        lost_request: Some(Rate { rate_ppm: ALWAYS }),
        timeout: timeout(100, Some(200)),
        ..off()
    };
    let (sink, report, facts) = run_faulty(quiet(2_000), vec![place(103, 1, 1, 101)], faults);
    assert_eq!(told(&sink), [(UNKNOWN, 1, 203), (REJECTED, 1, 403)]);
    let codes: Vec<u32> = broker(&sink)
        .iter()
        .map(|record| record.reason_code)
        .collect();
    assert_eq!(
        codes,
        [ReasonCode::OrderOutcomeUnknown, ReasonCode::OrderNotFound]
            .map(|code| u32::from(code.code()))
    );
    assert_eq!(facts[0].exchange_arrival_ns, 0);
    assert_eq!(
        (report.counts.lost_requests, report.counts.resolved),
        (1, 1)
    );
    assert!(report.positions.is_empty());
}

#[test]
fn a_lost_cancel_leaves_the_order_working_and_the_answer_says_so() {
    let mut faults = FaultProfile {
        lost_request: Some(Rate { rate_ppm: 500_000 }),
        timeout: timeout(100, Some(200)),
        ..off()
    };
    // A seed under which the place arrives and the cancel does not.
    faults.seed = (0..1_000)
        .find(|seed| {
            let drawn = FaultProfile {
                seed: *seed,
                ..faults.clone()
            };
            !drawn.hits(1, crate::faults::Fault::LostPlace, 1, 500_000)
                && drawn.hits(1, crate::faults::Fault::LostCancel, 1, 500_000)
        })
        .unwrap_or(0);
    let script = vec![place(103, 1, 1, 100), cancel(503, 1)];
    let (sink, report, _) = run_faulty(quiet(1_500), script, faults);
    let seen = told(&sink);
    assert_eq!(
        seen[..3],
        [(WORKING, 1, 128), (UNKNOWN, 1, 603), (WORKING, 1, 803)]
    );
    assert_eq!(seen[3].0, CANCELED, "at the close");
    assert_eq!(report.counts.lost_requests, 1);
}

#[test]
fn a_lost_reply_acts_and_is_told_when_the_broker_is_asked() {
    let faults = FaultProfile {
        lost_reply: Some(Rate { rate_ppm: ALWAYS }),
        timeout: timeout(100, Some(200)),
        ..off()
    };
    let (sink, report, _) = run_faulty(quiet(2_000), vec![place(103, 1, 1, 101)], faults.clone());
    assert_eq!(told(&sink), [(UNKNOWN, 1, 203), (FILL, 1, 403)]);
    assert_eq!(report.positions[&1], SCALE);
    assert_eq!(
        (report.counts.lost_replies, report.counts.unresolved),
        (1, 0)
    );

    let never = FaultProfile {
        timeout: timeout(100, None),
        ..faults
    };
    let (sink, report, _) = run_faulty(quiet(2_000), vec![place(103, 1, 1, 101)], never);
    assert_eq!(told(&sink), [(UNKNOWN, 1, 203)]);
    assert_eq!(
        report.positions[&1], SCALE,
        "the exchange knows of the fill"
    );
    assert_eq!(report.counts.unresolved, 1);
}

#[test]
fn a_request_that_is_slow_is_unknown_meanwhile_and_never_called_not_found() {
    let faults = FaultProfile {
        timeout: timeout(5, Some(5)),
        ..off()
    };
    let (sink, _, _) = run_faulty(quiet(1_000), vec![place(103, 1, 1, 100)], faults);
    let seen = told(&sink);
    assert_eq!(seen[0], (UNKNOWN, 1, 108));
    assert!(seen.contains(&(WORKING, 1, 128)));
    assert!(seen.iter().all(|row| row.0 != REJECTED));
}

#[test]
fn a_duplicate_has_the_number_of_the_first_and_a_late_report_is_overtaken() {
    let faults = FaultProfile {
        duplicate: always(50),
        ..off()
    };
    let (sink, report, _) = run_faulty(quiet(1_000), vec![place(103, 1, 1, 101)], faults);
    assert_eq!(told(&sink), [(FILL, 1, 128), (FILL, 1, 178)]);
    let records = broker(&sink);
    assert_eq!(records[0].broker_seq, records[1].broker_seq);
    assert_eq!(report.counts.duplicated, 1);
    assert_eq!(report.positions[&1], SCALE, "it happened once");

    let market = quiet(500)
        .trade(540, 99, 1, -1)
        .book(1_000, (100, 5), (101, 5));
    let mut faults = FaultProfile {
        late: Some(Delayed {
            rate_ppm: 500_000,
            delay_ns: 900 * MS,
        }),
        ..off()
    };
    // A seed under which the acknowledgement is late and the fill is not.
    faults.seed = (0..1_000)
        .find(|seed| {
            let drawn = FaultProfile {
                seed: *seed,
                ..faults.clone()
            };
            let late = |nth| drawn.hits(1, crate::faults::Fault::Late, nth, 500_000);
            late(1) && !late(2)
        })
        .unwrap_or(0);
    let (sink, report, _) = run_faulty(market, vec![place(103, 1, 1, 100)], faults);
    assert_eq!(told(&sink), [(FILL, 1, 545), (WORKING, 1, 1_028)]);
    assert_eq!(report.counts.late, 1);
}

#[test]
fn an_acknowledgement_waits_for_the_fill_but_not_for_ever() {
    let faults = FaultProfile {
        fill_before_ack: always(1_000),
        ..off()
    };
    let market = quiet(500)
        .trade(540, 99, 1, -1)
        .book(3_000, (100, 5), (101, 5));
    let script = vec![place(103, 1, 1, 100), place(103, 2, 1, 95)];
    let (sink, report, _) = run_faulty(market, script, faults.clone());
    assert_eq!(
        told(&sink)[..3],
        [(FILL, 1, 545), (WORKING, 1, 545), (WORKING, 2, 1_128)]
    );
    assert_eq!(report.counts.fills_before_ack, 1);

    let (sink, _, _) = run_faulty(quiet(1_000), vec![place(103, 1, 1, 101)], faults);
    assert_eq!(told(&sink), [(FILL, 1, 128), (WORKING, 1, 128)]);
}

#[test]
fn a_fill_of_two_lots_or_more_comes_in_parts_and_one_lot_does_not() {
    let faults = FaultProfile {
        partial_fill: always(30),
        ..off()
    };
    let script = vec![
        lots(place(103, 1, 1, 101), 3),
        place(203, 2, 1, 101),
        lots(decision(303, ActionKind::Place, 3, 1, 101, 2), 5),
        lots(decision(403, ActionKind::Place, 4, 1, 101, 3), 5),
    ];
    let (sink, report, _) = run_faulty(quiet(1_000), script, faults);
    let by_order = |id: u64| -> Vec<BrokerRecord> {
        broker(&sink)
            .into_iter()
            .filter(|record| record.order_id == id)
            .collect()
    };
    let parts = by_order(1);
    assert!(parts.len() >= 2);
    assert_eq!(parts.iter().map(|part| part.qty).sum::<i64>(), 3 * SCALE);
    let mut open = 3 * SCALE;
    for (nth, part) in parts.iter().enumerate() {
        open -= part.qty;
        assert_eq!((part.event_kind, part.remaining_qty), (FILL, open));
        let since = (part.header.exchange_time_ns - OPEN) / MS;
        assert_eq!(since, 123 + 30 * i64::try_from(nth).unwrap_or(0));
    }
    assert_eq!(by_order(2).len(), 1, "one lot cannot be parted");
    let immediate = by_order(3);
    assert_eq!(
        immediate
            .iter()
            .map(|row| row.event_kind)
            .collect::<Vec<_>>(),
        [FILL, EXPIRED],
        "what an immediate order does not take at once lapses"
    );
    assert!(immediate[0].qty < 5 * SCALE);
    assert_eq!(by_order(4).len(), 1, "all or nothing is all");
    let expected = (3 + 1 + 5) * SCALE + immediate[0].qty;
    assert_eq!(report.positions[&1], expected);
}

#[test]
fn the_rest_of_a_parted_order_can_be_canceled() {
    let faults = FaultProfile {
        partial_fill: always(500),
        ..off()
    };
    let script = vec![lots(place(103, 1, 1, 101), 2), cancel(203, 1)];
    let (sink, report, _) = run_faulty(quiet(1_000), script, faults);
    let kinds: Vec<u32> = told(&sink).iter().map(|row| row.0).collect();
    assert_eq!(kinds, [FILL, CANCELED]);
    assert_eq!(report.positions[&1], SCALE);
}

#[test]
fn a_drawn_reject_carries_its_reason() {
    let faults = FaultProfile {
        rejects: Some(vec![Reject {
            reason_code: ReasonCode::OrderQtyAboveLimit.code(),
            rate_ppm: ALWAYS,
        }]),
        ..off()
    };
    let (sink, report, _) = run_faulty(quiet(1_000), vec![place(103, 1, 1, 101)], faults);
    assert_eq!(told(&sink), [(REJECTED, 1, 128)]);
    let code = ReasonCode::OrderQtyAboveLimit.code();
    assert_eq!(broker(&sink)[0].reason_code, u32::from(code));
    assert_eq!(report.rejects[&code], 1);
}

#[test]
fn prices_beyond_the_daily_limit_and_fills_outside_the_band_are_refused() {
    let faults = FaultProfile {
        price_limit: Some(PriceLimit {
            reference_price: Some(100 * SCALE),
            bps: 1_000,
        }),
        ..off()
    };
    let script = vec![
        place(103, 1, 1, 110),
        place(203, 2, 1, 111),
        place(303, 3, 1, 90),
        place(403, 4, 1, 89),
    ];
    let (sink, report, _) = run_faulty(quiet(1_000), script, faults);
    let rejected: Vec<(u64, u32)> = broker(&sink)
        .iter()
        .filter(|record| record.event_kind == REJECTED)
        .map(|record| (record.order_id, record.reason_code))
        .collect();
    let code = u32::from(ReasonCode::PriceOutsideDailyLimit.code());
    assert_eq!(rejected, [(2, code), (4, code)]);
    assert_eq!(report.counts.beyond_limit, 2);

    // The last trade is at 98: 2 % of it is 1.96, so a fill at 101 is outside and one at 99 inside.
    let market = || {
        quiet(150)
            .trade(180, 98, 1, -1)
            .book(200, (97, 5), (101, 5))
            .book(400, (97, 5), (99, 5))
            .book(1_000, (97, 5), (99, 5))
    };
    let faults = FaultProfile {
        price_band: Some(PriceBand { bps: 200 }),
        ..off()
    };
    let script = vec![
        place(203, 1, 1, 101),
        place(303, 2, 1, 96),
        place(503, 3, 1, 103),
    ];
    let (sink, report, _) = run_faulty(market(), script, faults);
    let kinds: Vec<(u32, u64)> = told(&sink).iter().map(|row| (row.0, row.1)).collect();
    assert_eq!(
        kinds[..3],
        [(REJECTED, 1), (WORKING, 2), (FILL, 3)],
        "a possible fill counts, a far limit alone does not"
    );
    assert_eq!(report.counts.beyond_band, 1);
}

#[test]
fn at_the_session_end_orders_expire_and_later_requests_are_refused() {
    let faults = FaultProfile {
        session_end_ns: Some(OPEN + 500 * MS),
        ..off()
    };
    let script = vec![place(103, 1, 1, 100), cancel(503, 1), place(603, 2, 1, 101)];
    let (sink, report, _) = run_faulty(quiet(1_000), script, faults);
    assert_eq!(
        told(&sink),
        [
            (WORKING, 1, 128),
            (EXPIRED, 1, 505),
            (CANCEL_REJECTED, 1, 518),
            (REJECTED, 2, 628)
        ]
    );
    let counts = report.counts;
    assert_eq!((counts.expired_at_end, counts.refused_after_end), (1, 2));
    assert!(
        broker(&sink)[1..]
            .iter()
            .all(|record| record.reason_code == u32::from(ReasonCode::SessionNotOpen.code()))
    );
}

#[test]
fn a_tape_that_ends_before_the_session_expires_what_rests() {
    let faults = FaultProfile {
        session_end_ns: Some(OPEN + 3_600_000 * MS),
        ..off()
    };
    let (sink, report, _) = run_faulty(quiet(500), vec![place(103, 1, 1, 100)], faults);
    let kinds: Vec<u32> = told(&sink).iter().map(|row| row.0).collect();
    assert_eq!(kinds, [WORKING, EXPIRED]);
    assert_eq!(report.counts.expired_at_end, 1);
}

#[test]
fn a_profile_that_is_not_allowed_is_refused_by_code() {
    let faults = FaultProfile {
        lost_reply: Some(Rate { rate_ppm: 1 }),
        ..off()
    };
    let refused = simulation(quiet(100), Vec::new(), latencies(), MemorySink::default())
        .with_faults(Some(faults), &instruments())
        .err();
    assert_eq!(
        refused.map(|error| error.code()),
        Some(ReasonCode::SettingsInvalid)
    );
}
