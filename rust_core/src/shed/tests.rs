use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::record::{TimerRecord, TradeRecord};

const INSTRUMENTS: [u32; 2] = [7, 9];

fn restricted(instrument_id: u32) -> Restriction {
    Restriction { instrument_id }
}

fn stamped<R: Record>(mut record: R, instrument_id: u32, seq: u64) -> (RecordHeader, Vec<u8>) {
    record.header_mut().instrument_id = instrument_id;
    record.header_mut().input_seq = seq;
    (*record.header(), record.as_bytes().to_vec())
}

fn book(best: i64, second: i64) -> BookRecord {
    let mut record = BookRecord::empty();
    record.bid_price = [best, second, 0, 0, 0];
    record.ask_price = [best + 1, second + 9, 0, 0, 0];
    record.bid_qty = [1, 1, 0, 0, 0];
    record.ask_qty = [1, 1, 0, 0, 0];
    record
}

fn begin(shedder: &mut Shedder, instrument_id: u32, up_to: &str) {
    let topics = Topics::up_to(up_to).unwrap_or_default();
    shedder.begin(
        restricted(instrument_id),
        topics,
        2,
        ReasonCode::DiskSpaceCritical,
    );
}

/// Whether the SHED records of one instrument and topic name exactly what is missing of it.
fn accounts_for(records: &[ShedRecord], missing: &BTreeSet<u64>) -> bool {
    let mut named = 0;
    for record in records {
        let inside = missing.range(record.first_seq..=record.last_seq).count() as u64;
        let has_ends = missing.contains(&record.first_seq) && missing.contains(&record.last_seq);
        if inside != record.count || !has_ends {
            return false;
        }
        named += record.count;
    }
    named == missing.len() as u64
}

#[test]
fn only_market_data_of_the_instrument_is_left_out() {
    let mut shedder = Shedder::default();
    begin(&mut shedder, 7, "trades");
    let cases = [
        (stamped(book(1, 0), 7, 1), true),
        (stamped(TradeRecord::empty(), 7, 2), true),
        (stamped(book(1, 0), 9, 3), false),
        (stamped(TimerRecord::empty(), 7, 4), false),
        (
            stamped(crate::record::InstrumentRecord::empty(), 7, 5),
            false,
        ),
        (stamped(crate::record::BrokerRecord::empty(), 7, 6), false),
        (stamped(crate::record::CommandRecord::empty(), 7, 7), false),
    ];
    for ((header, bytes), is_left_out) in cases {
        assert_eq!(shedder.leaves_out(&header, &bytes), is_left_out);
    }
}

#[test]
fn topics_go_in_their_order() {
    for (up_to, held) in [("depth", 1), ("books", 2), ("trades", 3)] {
        let topics = Topics::up_to(up_to).unwrap_or_default();
        let found = Topic::ALL.iter().filter(|topic| topics.holds(**topic));
        assert_eq!(found.count(), held);
    }
    assert_eq!(Topics::up_to("timers"), None);
    assert!(!Topics::NONE.holds(Topic::Depth));
}

#[test]
fn depth_keeps_every_change_of_the_best_level() {
    let mut shedder = Shedder::default();
    begin(&mut shedder, 7, "depth");
    let bests = [5, 5, 6, 6, 5, 5];
    let kept: Vec<bool> = (1..)
        .zip(bests)
        .map(|(seq, best)| {
            let (header, bytes) = stamped(book(best, i64::try_from(seq).unwrap_or(0)), 7, seq);
            !shedder.leaves_out(&header, &bytes)
        })
        .collect();
    assert_eq!(kept, [true, false, true, false, true, false]);
    let (header, bytes) = stamped(TradeRecord::empty(), 7, 9);
    assert!(!shedder.leaves_out(&header, &bytes));
}

#[test]
fn a_long_run_is_named_before_it_ends() {
    let mut shedder = Shedder::default();
    begin(&mut shedder, 7, "books");
    for seq in 1..=SHED_COUNT_MAX + 1 {
        let (header, bytes) = stamped(book(1, 0), 7, seq);
        assert!(shedder.leaves_out(&header, &bytes));
        let owed = shedder.owed().map(|record| record.count);
        assert_eq!(owed, (seq == SHED_COUNT_MAX).then_some(SHED_COUNT_MAX));
    }
    shedder.end_all();
    assert_eq!(shedder.owed().map(|record| record.count), Some(1));
    assert_eq!(shedder.owed(), None);
}

#[derive(Debug, Clone)]
enum Step {
    Book { at: usize, best: i64 },
    Trade { at: usize },
    Timer,
    Begin { at: usize, up_to: &'static str },
    End { at: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let at = 0..INSTRUMENTS.len();
    let topic = prop_oneof![Just("depth"), Just("books"), Just("trades")];
    let step = prop_oneof![
        6 => (at.clone(), 0..3_i64).prop_map(|(at, best)| Step::Book { at, best }),
        3 => at.clone().prop_map(|at| Step::Trade { at }),
        1 => Just(Step::Timer),
        1 => (at.clone(), topic).prop_map(|(at, up_to)| Step::Begin { at, up_to }),
        1 => at.prop_map(|at| Step::End { at }),
    ];
    prop::collection::vec(step, 1..200)
}

/// Runs steps; gives the SHED records and what is missing, by instrument and topic.
fn play(steps: &[Step]) -> Vec<(Vec<ShedRecord>, BTreeSet<u64>)> {
    let mut shedder = Shedder::default();
    let mut records = Vec::new();
    let mut missing = Vec::new();
    let mut active = [None::<&str>; 2];
    for (seq, step) in (1..).zip(steps) {
        let (is_out, key) = match step {
            Step::Book { at, best } => {
                let (header, bytes) = stamped(book(*best, 0), INSTRUMENTS[*at], seq);
                let topic = match active[*at] {
                    Some("depth") => Topic::Depth,
                    _ => Topic::Books,
                };
                (shedder.leaves_out(&header, &bytes), Some((*at, topic)))
            }
            Step::Trade { at } => {
                let (header, bytes) = stamped(TradeRecord::empty(), INSTRUMENTS[*at], seq);
                (
                    shedder.leaves_out(&header, &bytes),
                    Some((*at, Topic::Trades)),
                )
            }
            Step::Timer => {
                let (header, bytes) = stamped(TimerRecord::empty(), 0, seq);
                (shedder.leaves_out(&header, &bytes), None)
            }
            Step::Begin { at, up_to } => {
                begin(&mut shedder, INSTRUMENTS[*at], up_to);
                active[*at] = Some(up_to);
                (false, None)
            }
            Step::End { at } => {
                shedder.end(INSTRUMENTS[*at]);
                active[*at] = None;
                (false, None)
            }
        };
        match key {
            Some((at, topic)) if is_out => {
                assert!(
                    active[at].is_some(),
                    "Invariant 1: nothing without a restriction"
                );
                missing.push((at, topic, seq));
            }
            _ => assert!(!is_out, "Invariant 3"),
        }
        while let Some(record) = shedder.owed() {
            records.push(record);
        }
    }
    shedder.end_all();
    while let Some(record) = shedder.owed() {
        records.push(record);
    }
    let mut groups = Vec::new();
    for (at, instrument_id) in INSTRUMENTS.into_iter().enumerate() {
        for topic in Topic::ALL {
            let own = |record: &&ShedRecord| {
                record.header.instrument_id == instrument_id && record.topic == topic as u32
            };
            let holes = missing
                .iter()
                .filter(|row| row.0 == at && row.1 == topic)
                .map(|row| row.2);
            groups.push((
                records.iter().filter(own).copied().collect(),
                holes.collect(),
            ));
        }
    }
    groups
}

/// Cases of the property tests: `HFT_FUZZ_CASES`, or few.
#[allow(clippy::disallowed_methods, reason = "the test runner sets it")]
fn case_count() -> u32 {
    std::env::var("HFT_FUZZ_CASES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(64)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(case_count()))]
    /// Invariants 1 to 3.
    #[test]
    fn every_record_left_out_is_counted_once(steps in steps()) {
        for (records, missing) in play(&steps) {
            prop_assert!(accounts_for(&records, &missing));
        }
    }

    /// The account is held to the number: one record more or less is seen.
    #[test]
    fn an_account_that_is_wrong_by_one_does_not_pass(steps in steps()) {
        for (mut records, mut missing) in play(&steps) {
            let Some(first) = records.first_mut() else { continue };
            first.count += 1;
            prop_assert!(!accounts_for(&records, &missing));
            if let Some(first) = records.first_mut() {
                first.count -= 1;
            }
            missing.pop_first();
            prop_assert!(!accounts_for(&records, &missing));
        }
    }
}
