//! Invariant 3 of the engine: after construction a whole day allocates nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests stop at the first surprise"
)]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use _core::engine::Engine;
use _core::engine::EngineConfig;
use _core::record::{CommandKind, HealthKind, HealthRecord, Record, Tape};
use _core::storm_guard::Band;
use support::{MAKER, SECOND, Session, TAKER, book, command, tape};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system allocator unchanged; only a counter is added.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A config whose guard looks at every input.
fn config(template: &str, expression: &str) -> EngineConfig {
    let mut made = support::config(template, expression);
    let band = |warm: i64, storm: i64| Band {
        warm_in: Some(warm),
        warm_out: Some(warm - 1),
        storm_in: Some(storm),
        storm_out: Some(warm),
        halt_in: None,
        halt_out: None,
    };
    let guard = &mut made.storm_guard;
    guard.drawdown_bps = band(5_000, 9_000);
    guard.feed_gap_ns = band(SECOND, 6 * SECOND);
    guard.loop_lag_ns = band(5_000_000, 20_000_000);
    guard.order_rtt_ns = band(60 * SECOND, 90 * SECOND);
    guard.reject_count = band(5, 9);
    guard.feature_failures = band(5, 9);
    guard.normaliser_failures = band(5, 9);
    made
}

fn loop_lag(value: i64) -> HealthRecord {
    HealthRecord {
        health_kind: HealthKind::LoopLag as u64,
        value,
        ..HealthRecord::empty()
    }
}

/// Inputs of a session with entries, quotes, fills, refusals, storms, a halt, a resume and damaged
/// books.
fn day(template: &str, expression: &str) -> Vec<u8> {
    let mut session = Session::new(config(template, expression));
    session.feed_tape(&tape(21, 4_000));
    session.feed(loop_lag(30_000_000));
    session.wait(10 * SECOND);
    session.feed(loop_lag(0));
    for _ in 0..150 {
        session.now += SECOND / 2;
        session.feed_book(book(35_000, 1, 5, 5));
    }
    assert!(session.engine.storm_report().entered.iter().sum::<u64>() >= 3);
    session.feed(command(CommandKind::Halt, u32::MAX, 0));
    session.feed_tape(&tape(22, 500));
    let mut crossed = book(35_000, 1, 5, 5);
    crossed.bid_price[0] = crossed.ask_price[0];
    session.feed(crossed);
    session.feed(command(CommandKind::ResumeArm, u32::MAX, 0));
    let armed = i64::try_from(session.sequencer.last_seq()).unwrap();
    session.feed(command(CommandKind::ResumeConfirm, u32::MAX, armed));
    session.now += SECOND;
    session.feed_book(book(35_000, 1, 30, 1));
    assert!(
        session.engine.counters().fills > 5,
        "{:?}",
        session.engine.counters().refusals()
    );
    assert!(!session.engine.counters().refusals().is_empty());
    session.inputs
}

#[test]
fn a_whole_day_allocates_nothing_after_construction() {
    let strong = "k * imbalance_l1 + 0.01 * ofi_l5_5s";
    for (template, expression) in [(TAKER, strong), (MAKER, "0.1 * imbalance_l1")] {
        let inputs = day(template, expression);
        let mut engine = Engine::new(config(template, expression)).unwrap();
        let mut out = Vec::with_capacity(64);
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        let mut decisions = 0;
        for item in Tape::new(&inputs) {
            let Ok((header, bytes)) = item else { break };
            out.clear();
            engine.on_record(&header, bytes, &mut out);
            decisions += out.len();
        }
        let allocated = ALLOCATIONS.load(Ordering::Relaxed) - before;
        assert_eq!(allocated, 0, "{decisions} decisions");
        assert!(decisions > 50);
        // The alarm rings: a vector that grows is counted.
        let counted = ALLOCATIONS.load(Ordering::Relaxed);
        drop(std::hint::black_box(vec![1_u8; 100]));
        assert!(ALLOCATIONS.load(Ordering::Relaxed) > counted);
    }
}
