//! Invariant 5 of the normaliser: after construction no message allocates, good or bad.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests stop at the first surprise"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use _core::normaliser::config::NormaliserConfig;
use _core::normaliser::surface::QuoteClass;
use _core::normaliser::{BookFields, Head, LocalTime, Normaliser, Output, TradeFields, decimal};

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
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const CONFIG: &str = r#"{"utc_offset_s": 0, "exchange_ahead_ns_max": 0,
    "exchange_behind_ns_max": 1000000000, "on_total_mismatch": "note", "instruments": [
    {"instrument_id": 1, "code": "TXFD6", "market": "futures", "is_odd_lot": false,
     "lot_size": 100000000, "tick_size": 1, "gap_ns": 1000000000, "sessions": [
       {"preopen_ns": 0, "start_ns": 10000000000, "end_ns": 80000000000000,
        "trading_day": 19700101}]}]}"#;

/// Half seconds of 1970-01-01, as Python packs them.
fn at(step: i64) -> LocalTime {
    let byte = |value: i64| u8::try_from(value).unwrap();
    let second = step / 2;
    let [_, high, mid, low] = if step % 2 == 0 { 0_u32 } else { 500_000 }.to_be_bytes();
    let clock = [second / 3_600, second / 60 % 60, second % 60].map(byte);
    let packed = [7, 178, 1, 1, clock[0], clock[1], clock[2], high, mid, low];
    LocalTime::from_packed(&packed).unwrap()
}

#[test]
fn no_message_allocates() {
    let mut normaliser = Normaliser::new(&NormaliserConfig::from_json(CONFIG).unwrap());
    let mut out = Output::default();
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    let mut published = 0;
    for step in 1..20_000_i64 {
        let head = Head {
            class: QuoteClass::QuoteFop,
            code: if step % 7 == 0 { "TXFE6" } else { "TXFD6" },
            time: at(step),
            is_simulated: step % 11 == 0,
            is_suspended: false,
            is_odd_lot: false,
        };
        let price = decimal::scaled("20001.50").unwrap();
        let trade = TradeFields {
            price,
            volume: step % 5,
            total_volume: 10 * step,
            tick_type: step % 4,
        };
        let book = BookFields {
            bid_price: [5, 4, 3, 2, i64::from(step % 3 == 0)],
            bid_volume: [1; 5],
            ask_price: [6, 7, 8, 9, 10],
            ask_volume: [1; 5],
            totals: Some([step % 6, 5]),
        };
        let now_ns = (step * 1_000_000_000) / 2 + step % 3 * 900_000_000;
        published += u64::from(
            normaliser
                .on_quote(&head, &trade, &book, now_ns, &mut out)
                .is_ok(),
        );
        published += u64::from(normaliser.on_trade(&head, &trade, now_ns, &mut out).is_ok());
        published += u64::from(normaliser.on_book(&head, &book, now_ns, &mut out).is_ok());
    }
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed), before);
    let counters = normaliser.counters();
    assert_eq!(counters.published, published);
    assert!(published > 1_000, "{counters:?}");
    assert!(counters.dropped().len() > 4, "{counters:?}");
    // The counter does count.
    drop(std::hint::black_box(vec![1_u8; 100]));
    assert!(ALLOCATIONS.load(Ordering::Relaxed) > before);
}
