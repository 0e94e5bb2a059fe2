//! Mutated records: whatever bytes arrive, the engine neither panics nor allocates nor loses count.
//!
//! Every case is one damaged record (bits, whole fields, extreme numbers, other record types, cut
//! ends) among three whole ones of a session; most keep a valid place in the sequence, so that the
//! damage reaches the state machine. `HFT_FUZZ_CASES` sets how many are damaged.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests stop at the first surprise"
)]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use _core::engine::Engine;
use _core::reason::ReasonCode;
use _core::record::{
    CommandKind, InstrumentRecord, Record, RecordHeader, RecordType, SCALE, Tape, peek_header,
};
use support::{Draw, MAKER, SECOND, Session, TAKER, command, config, switch, tape};

struct Counting;

thread_local! {
    /// Of this test's thread alone: the harness allocates in its own.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system allocator unchanged; only a counter is added.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const EXPRESSION: &str = "ofi_l1_1s + k * microprice_dev";
/// Records after which a fresh engine starts: a halt must not end the search.
const RECORDS_AN_ENGINE: u64 = 400;
/// Bytes of the head that place a record in the sequence: `input_seq`, `sequence_time_ns`.
const SEQ: std::ops::Range<usize> = 8..16;
const TIME: std::ops::Range<usize> = 40..48;

fn case_count() -> u64 {
    std::env::var("HFT_FUZZ_CASES").map_or(200_000, |text| text.parse().unwrap())
}

/// Inputs of a session with every type of input record.
fn session(template: &str) -> Vec<Vec<u8>> {
    let mut session = Session::new(config(template, EXPRESSION));
    session.feed_tape(&tape(3, 600));
    session.feed(command(CommandKind::SetWeight, 0, 500_000));
    session.feed(switch(900_000, 3));
    session.feed_tape(&tape(4, 300));
    session.feed(InstrumentRecord::empty());
    session.wait(SECOND);
    Tape::new(&session.inputs)
        .map(|item| item.unwrap().1.to_vec())
        .collect()
}

fn extreme(draw: &mut Draw) -> i64 {
    match draw.below(10) {
        0 => i64::MIN,
        1 => i64::MAX,
        2 => 0,
        3 => -1,
        4 => 1,
        5 => 999_999_999_999_999_999,
        6 => -999_999_999_999_999_999,
        7 => SCALE,
        8 => i64::MAX - SCALE,
        _ => (draw.below(1 << 31) as i64) << draw.below(32),
    }
}

/// Damages a record; its length may change.
fn mutate(bytes: &mut Vec<u8>, draw: &mut Draw) {
    for _ in 0..=draw.below(3) {
        let length = bytes.len() as u64;
        match draw.below(8) {
            0 | 1 => bytes[draw.below(length) as usize] ^= 1 << draw.below(8),
            2..=4 => {
                let place = 8 * draw.below(length / 8) as usize;
                bytes[place..place + 8].copy_from_slice(&extreme(draw).to_le_bytes());
            }
            5 => {
                let place = 4 * draw.below(length / 4) as usize;
                bytes[place..place + 4].copy_from_slice(&(draw.below(12) as u32).to_le_bytes());
            }
            6 => bytes[2] = draw.below(20) as u8,
            _ => {
                if draw.below(4) == 0 {
                    bytes.truncate((draw.below(length / 8) * 8).max(64) as usize);
                }
            }
        }
    }
}

fn run(template: &str, seed: u64, cases: u64) {
    let rows = session(template);
    let mut draw = Draw(seed);
    let mut out = Vec::with_capacity(1 << 12);
    let (mut done, mut decisions, mut out_of_order) = (0, 0, 0);
    while done < cases {
        let mut engine = Engine::new(config(template, EXPRESSION)).unwrap();
        let (mut seq, mut time) = (0_u64, support::START);
        let mut place = 0;
        for _ in 0..RECORDS_AN_ENGINE {
            // The session goes on in its order, with a jump now and then, and most of its records
            // stay whole: damage must meet a state worth damaging.
            place = if draw.below(200) == 0 {
                draw.below(rows.len() as u64) as usize
            } else {
                (place + 1) % rows.len()
            };
            let mut bytes = rows[place].clone();
            if draw.below(4) == 0 {
                mutate(&mut bytes, &mut draw);
                done += 1;
            }
            if draw.below(16) != 0 {
                seq += 1;
                time += draw.between(1, SECOND / 4);
                bytes[SEQ].copy_from_slice(&seq.to_le_bytes());
                bytes[TIME].copy_from_slice(&time.to_le_bytes());
            }
            let header: RecordHeader = peek_header(&bytes).unwrap();
            out.clear();
            let before = ALLOCATIONS.with(Cell::get);
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                engine.on_record(&header, &bytes, &mut out);
            }));
            let allocated = ALLOCATIONS.with(Cell::get) - before;
            assert!(
                outcome.is_ok(),
                "case {done} of seed {seed}: {header:?} {bytes:?}"
            );
            assert_eq!(allocated, 0, "case {done} of seed {seed}: {header:?}");
            assert!(out.len() < 64, "case {done} of seed {seed}");
            seq = seq.max(header.input_seq.min(u64::MAX / 2));
            time = time.max(header.sequence_time_ns.min(i64::MAX / 2));
            if header.input_seq > u64::MAX / 2 || header.sequence_time_ns > i64::MAX / 2 {
                break;
            }
        }
        decisions += engine.counters().decisions;
        out_of_order += count_of(&engine, ReasonCode::OutOfOrderRow);
    }
    // The search went deep: most records were taken, and many made the engine decide.
    assert!(
        out_of_order < cases,
        "{out_of_order} of {cases} were out of order"
    );
    assert!(
        decisions > cases / 50,
        "{decisions} decisions in {cases} cases"
    );
}

fn count_of(engine: &Engine, code: ReasonCode) -> u64 {
    let dropped = engine.counters().dropped();
    let row = dropped.iter().find(|row| row.0 == code.code());
    row.map_or(0, |row| row.1)
}

#[test]
fn damaged_records_neither_stop_nor_grow_a_taker() {
    run(TAKER, 11, case_count() / 2);
}

#[test]
fn damaged_records_neither_stop_nor_grow_a_maker() {
    run(MAKER, 12, case_count() / 2);
}

/// The alarm rings: a panic in the place of the engine is what `run` would report.
#[test]
fn a_panic_is_seen() {
    assert!(RecordType::from_code(1).is_some());
    assert!(catch_unwind(|| panic!("on purpose")).is_err());
}
