//! The market in pieces: whatever their size, the session is the same as when it came at once.

use super::*;
use crate::faults::{Delayed, FaultProfile, Rate, Timeout};
use proptest::prelude::*;

fn cases() -> u32 {
    std::env::var("HFT_FUZZ_CASES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(64)
}

/// `(gap to the record before, exchange's lead over our receipt, kind, price move, quantity)`.
type Row = (i64, i64, u8, i64, i64);

fn records(rows: &[Row]) -> Vec<Vec<u8>> {
    let (mut receive_ms, mut bid) = (10, 100);
    rows.iter()
        .map(|(gap_ms, lead_ms, kind, step, qty)| {
            receive_ms += gap_ms;
            bid = (bid + step).clamp(90, 110);
            let exchange_ms = receive_ms - lead_ms;
            let mut market = match kind {
                0 => Market::default().trade(exchange_ms, bid - 1, *qty, -1),
                1 => Market::default().trade(exchange_ms, bid + 2, *qty, 1),
                _ => Market::default().book(exchange_ms, (bid, *qty), (bid + 1, *qty)),
            };
            // The helper stamps a fixed feed delay; here it varies, and time stays in order.
            let receive_ns = OPEN + receive_ms * MS;
            market.bytes[RECEIVE_AT..RECEIVE_AT + 8].copy_from_slice(&receive_ns.to_le_bytes());
            market.bytes
        })
        .collect()
}

const RECEIVE_AT: usize = std::mem::offset_of!(RecordHeader, receive_time_ns);

fn header(bytes: &[u8]) -> RecordHeader {
    bytemuck::pod_read_unaligned(&bytes[..size_of::<RecordHeader>()])
}

/// The latest time of which nothing of these records is.
fn before(records: &[Vec<u8>]) -> Option<i64> {
    records
        .iter()
        .map(|bytes| {
            header(bytes)
                .receive_time_ns
                .min(header(bytes).exchange_time_ns)
        })
        .min()
        .map(|time_ns| time_ns - 1)
}

fn script(orders: &[(i64, bool, i64, i64, u32)]) -> Vec<DecisionRecord> {
    let mut id = 0;
    let mut made = Vec::new();
    for (at_ms, is_buy, price, wait_ms, life) in orders {
        id += 1;
        let side = if *is_buy { 1 } else { -1 };
        let mut placed = decision(*at_ms, ActionKind::Place, id, side, *price, *life);
        placed.qty = 3 * SCALE;
        made.push(placed);
        if *life == 1 {
            made.push(cancel(at_ms + wait_ms, id));
        }
    }
    made
}

fn faults(seed: u64) -> FaultProfile {
    let delayed = |delay_ms: i64| {
        Some(Delayed {
            rate_ppm: 300_000,
            delay_ns: delay_ms * MS,
        })
    };
    FaultProfile {
        partial_fill: delayed(40),
        lost_request: Some(Rate { rate_ppm: 100_000 }),
        lost_reply: Some(Rate { rate_ppm: 100_000 }),
        timeout: Some(Timeout {
            after_ns: 300 * MS,
            resolve_ns: Some(200 * MS),
        }),
        duplicate: delayed(70),
        late: delayed(90),
        fill_before_ack: delayed(150),
        ..FaultProfile::off("push", seed)
    }
}

fn instruments() -> [VenueInstrument; 1] {
    [VenueInstrument::flat(1, SCALE, SCALE)]
}

type Whole = (Vec<u8>, Vec<u8>, Vec<OrderFact>, RunCounts);

fn taken_apart(simulation: Simulation<Script, CrateVenue, MemorySink>) -> Whole {
    let finished = simulation.finish();
    (
        finished.sink.inputs,
        finished.sink.decisions,
        finished.facts,
        finished.counts,
    )
}

fn whole(
    records: &[Vec<u8>],
    orders: Vec<DecisionRecord>,
    profile: &LatencyProfile,
    faults: Option<FaultProfile>,
) -> Whole {
    let market = Market {
        bytes: records.concat(),
    };
    let mut simulation = simulation(market, orders, profile.clone(), MemorySink::default())
        .with_faults(faults, &instruments())
        .unwrap_or_else(|error| unreachable!("{error}"));
    simulation
        .run(None, u64::MAX)
        .unwrap_or_else(|error| unreachable!("{error}"));
    taken_apart(simulation)
}

fn pushed(
    records: &[Vec<u8>],
    orders: Vec<DecisionRecord>,
    profile: &LatencyProfile,
    faults: Option<FaultProfile>,
    (sizes, step): (&[usize], u64),
) -> Whole {
    let mut left = records;
    let mut sizes = sizes.iter().copied().cycle();
    let mut take = || {
        let (piece, rest) = left.split_at(sizes.next().unwrap_or(1).clamp(1, left.len()));
        left = rest;
        (piece.concat(), before(rest))
    };
    let (bytes, mut known_ns) = take();
    let mut simulation = simulation(
        Market { bytes },
        orders,
        profile.clone(),
        MemorySink::default(),
    )
    .with_faults(faults, &instruments())
    .unwrap_or_else(|error| unreachable!("{error}"))
    .with_open_feed();
    while let Some(until_ns) = known_ns {
        let mut inputs = u64::MAX;
        // Small steps, until a step does nothing more.
        loop {
            let progress = simulation
                .run(Some(until_ns), step)
                .unwrap_or_else(|error| unreachable!("{error}"));
            assert!(!progress.is_done, "an open feed has no end");
            if progress.counts.inputs == inputs {
                break;
            }
            inputs = progress.counts.inputs;
        }
        let (bytes, next_ns) = take();
        simulation
            .feed(bytes)
            .unwrap_or_else(|error| unreachable!("{error}"));
        known_ns = next_ns;
    }
    simulation.end_feed();
    let progress = simulation
        .run(None, u64::MAX)
        .unwrap_or_else(|error| unreachable!("{error}"));
    assert!(progress.is_done);
    taken_apart(simulation)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn invariant_5_pieces_of_any_size_give_the_same_bytes(
        rows in prop::collection::vec(
            (0_i64..400, 0_i64..60, 0_u8..5, -2_i64..=2, 1_i64..20), 2..80,
        ),
        orders in prop::collection::vec(
            (0_i64..8_000, any::<bool>(), 92_i64..110, 0_i64..3_000, 1_u32..=3), 0..25,
        ),
        sizes in prop::collection::vec(1_usize..20, 1..6),
        (place, cancel, response) in (0_i64..300, 0_i64..100, 0_i64..50),
        (seed, is_faulty, step) in (0_u64..1_000, any::<bool>(), 1_u64..50),
    ) {
        let records = records(&rows);
        let profile = LatencyProfile::constant(place * MS, cancel * MS, response * MS);
        let faults = || is_faulty.then(|| faults(seed));
        let at_once = whole(&records, script(&orders), &profile, faults());
        let in_pieces = pushed(&records, script(&orders), &profile, faults(), (&sizes, step));
        prop_assert_eq!(&at_once.0, &in_pieces.0, "inputs");
        prop_assert_eq!(at_once.1, in_pieces.1, "decisions");
        prop_assert_eq!(at_once.2, in_pieces.2, "facts");
        prop_assert_eq!(at_once.3, in_pieces.3, "counts");
    }
}

#[test]
fn a_silent_open_feed_gives_timers_as_far_as_time_has_passed() {
    let profile = LatencyProfile::constant(0, 0, 0);
    let market = Market::default().book(0, (100, 5), (101, 5));
    let mut simulation =
        simulation(market, Vec::new(), profile, MemorySink::default()).with_open_feed();
    let mut run = |at_ms: i64| {
        simulation
            .run(Some(OPEN + at_ms * MS), u64::MAX)
            .map(|progress| (progress.counts.timers, progress.is_done))
    };
    assert_eq!(run(900).ok(), Some((0, false)));
    assert_eq!(run(3_500).ok(), Some((3, false)));
    assert_eq!(run(3_500).ok(), Some((3, false)));
}

#[test]
fn a_record_of_a_time_that_has_passed_happens_now() {
    // Negative control of the property: a promise that is broken changes what happens.
    let rows: Vec<Vec<u8>> = [0, 100, 200]
        .map(|at| Market::default().book(at, (100, 5), (101, 5)).bytes)
        .to_vec();
    let crossing = Market::default().book(50, (99, 5), (100, 5)).bytes;
    let profile = LatencyProfile::constant(10 * MS, 0, 0);
    let orders = || vec![place(60, 1, 1, 100)];
    let mut late = simulation(
        Market {
            bytes: rows[..2].concat(),
        },
        orders(),
        profile.clone(),
        MemorySink::default(),
    )
    .with_open_feed();
    late.run(Some(OPEN + 150 * MS), u64::MAX)
        .unwrap_or_else(|error| unreachable!("{error}"));
    // Its exchange time is long past, its receive time is now.
    let mut record = crossing.clone();
    let now_ns = OPEN + 160 * MS;
    record[RECEIVE_AT..RECEIVE_AT + 8].copy_from_slice(&now_ns.to_le_bytes());
    late.feed(record.clone())
        .unwrap_or_else(|error| unreachable!("{error}"));
    late.feed(rows[2].clone())
        .unwrap_or_else(|error| unreachable!("{error}"));
    late.end_feed();
    late.run(None, u64::MAX)
        .unwrap_or_else(|error| unreachable!("{error}"));
    let told = reports(&late.finish().sink);
    let whole = run(
        Market {
            bytes: [&rows[..2].concat()[..], &record, &rows[2]].concat(),
        },
        orders(),
        profile,
    );
    let told_whole = reports(&whole.sink);
    assert_eq!(told[0].0, WORKING, "it rested before the market moved");
    assert!(told.iter().any(|row| row.0 == FILL && row.3 >= 150));
    assert_ne!(told, told_whole);
}

#[test]
fn an_open_feed_has_no_end_to_run_to_and_a_closed_one_takes_nothing() {
    let profile = LatencyProfile::constant(0, 0, 0);
    let mut simulation =
        simulation(quiet(500), Vec::new(), profile, MemorySink::default()).with_open_feed();
    let refused = simulation.run(None, u64::MAX).err();
    assert!(matches!(refused, Some(SimulationError::Feed { .. })));
    assert!(
        simulation.feed(b"no tape".to_vec()).is_err(),
        "a refused piece changes nothing"
    );
    assert_eq!(simulation.progress().records_total, 6);
    simulation.end_feed();
    assert!(
        simulation
            .run(None, u64::MAX)
            .is_ok_and(|progress| progress.is_done)
    );
    assert_eq!(
        simulation.feed(Vec::new()).map_err(|error| error.code()),
        Err(ReasonCode::SessionNotOpen)
    );
}
