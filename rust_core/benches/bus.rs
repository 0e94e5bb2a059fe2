//! What the bus costs its publisher and how fast a record crosses to another core. Protects: a
//! push and a pop in one thread, and the hop between cores.
//!
//! Prints one JSON line: `{figure: {value, unit, ...}}`. Set-up is outside the timed part.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for people and scripts"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use _core::bus::Bus;
use _core::record::{BookRecord, DecisionRecord, Record, TimerRecord, TradeRecord};

const SLOT_COUNT: usize = 4_096;
/// Pairs between two looks at the clock, whose own cost is a fraction of a nanosecond then.
const PAIRS: u32 = 256;
const SAMPLES: usize = 4_000;
const WINDOWS: usize = 10;
const HOPS: usize = 4_000;
/// The other side of a hop is given up after this long.
const HOP_TIMEOUT: Duration = Duration::from_secs(2);

fn at(sorted: &[f64], permille: usize) -> f64 {
    sorted[(sorted.len() * permille / 1_000).min(sorted.len() - 1)]
}

/// Nanoseconds of one push and one pop of `record` in one thread: p50 and p99 of many samples.
fn push_pop(record: &[u8]) -> (f64, f64) {
    let (bus, mut publisher) = Bus::new(SLOT_COUNT).unwrap();
    let mut reader = bus.reader().unwrap();
    let mut samples = Vec::with_capacity(SAMPLES);
    for _ in 0..SAMPLES {
        let start = Instant::now();
        for _ in 0..PAIRS {
            publisher.publish(black_box(record));
            black_box(reader.next_record().unwrap());
        }
        samples.push(start.elapsed().as_secs_f64() * 1e9 / f64::from(PAIRS));
    }
    samples.sort_by(f64::total_cmp);
    (at(&samples, 500), at(&samples, 990))
}

/// Nanoseconds of publishing alone, with `reader_count` readers that never read: their number must
/// not matter.
fn push_beside_stalled(record: &[u8], reader_count: usize) -> f64 {
    let (bus, mut publisher) = Bus::new(SLOT_COUNT).unwrap();
    let readers: Vec<_> = (0..reader_count).map(|_| bus.reader().unwrap()).collect();
    let mut samples = Vec::with_capacity(SAMPLES);
    for _ in 0..SAMPLES {
        let start = Instant::now();
        for _ in 0..PAIRS {
            publisher.publish(black_box(record));
        }
        samples.push(start.elapsed().as_secs_f64() * 1e9 / f64::from(PAIRS));
    }
    samples.sort_by(f64::total_cmp);
    drop(readers);
    at(&samples, 500)
}

/// One way between two busy threads, a window a row: half the time of there and back.
fn hops() -> Vec<f64> {
    let (there, mut outward) = Bus::new(SLOT_COUNT).unwrap();
    let (back, mut homeward) = Bus::new(SLOT_COUNT).unwrap();
    let (mut far, mut near) = (there.reader().unwrap(), back.reader().unwrap());
    let record = TimerRecord::empty();
    let answering = std::thread::spawn(move || {
        let end = Instant::now() + HOP_TIMEOUT * (WINDOWS as u32 + 1);
        let mut looks = 0_u64;
        for _ in 0..WINDOWS * HOPS {
            loop {
                if let Some(bytes) = far.next_record().unwrap() {
                    homeward.publish(bytes);
                    break;
                }
                std::hint::spin_loop();
                looks += 1;
                if looks.is_multiple_of(1 << 20) && Instant::now() > end {
                    return;
                }
            }
        }
    });
    let mut medians = Vec::with_capacity(WINDOWS);
    'windows: for _ in 0..WINDOWS {
        let mut samples = Vec::with_capacity(HOPS);
        let end = Instant::now() + HOP_TIMEOUT;
        for _ in 0..HOPS {
            let start = Instant::now();
            outward.publish(record.as_bytes());
            let mut looks = 0_u64;
            while near.next_record().unwrap().is_none() {
                std::hint::spin_loop();
                looks += 1;
                if looks.is_multiple_of(1 << 16) && Instant::now() > end {
                    break 'windows;
                }
            }
            samples.push(start.elapsed().as_secs_f64() * 1e9 / 2.0);
        }
        samples.sort_by(f64::total_cmp);
        medians.push(at(&samples, 500));
    }
    answering.join().unwrap();
    medians
}

fn main() {
    let decision = DecisionRecord::empty();
    let (book, trade, timer) = (
        BookRecord::empty(),
        TradeRecord::empty(),
        TimerRecord::empty(),
    );
    let kinds: [(&str, &[u8]); 4] = [
        ("book", book.as_bytes()),
        ("decision", decision.as_bytes()),
        ("trade", trade.as_bytes()),
        ("timer", timer.as_bytes()),
    ];
    let mut by_kind = Vec::new();
    let mut of_book = (0.0, 0.0);
    for (name, bytes) in kinds {
        let (p50, p99) = push_pop(bytes);
        if name == "book" {
            of_book = (p50, p99);
        }
        by_kind.push(format!(
            r#""{name}":{{"bytes":{},"p50":{p50:.2},"p99":{p99:.2}}}"#,
            bytes.len()
        ));
    }
    let alone = push_beside_stalled(book.as_bytes(), 0);
    let beside = push_beside_stalled(book.as_bytes(), 8);
    let mut windows = hops();
    windows.sort_by(f64::total_cmp);
    let hop = windows.first().map_or_else(
        || r#"{"value":null,"unit":"ns","why":"the other thread was never scheduled"}"#.to_owned(),
        |quietest| {
            format!(
                r#"{{"value":{quietest:.1},"unit":"ns","windows":{},"worst_window":{:.1}}}"#,
                windows.len(),
                windows[windows.len() - 1]
            )
        },
    );
    println!(
        r#"{{"bus.push_pop_ns_p50":{{"value":{:.2},"unit":"ns","p99":{:.2},"record":"book","by_record":{{{}}}}},"bus.push_ns_p50":{{"value":{alone:.2},"unit":"ns","beside_8_stalled_readers":{beside:.2}}},"bus.hop_ns_p50":{hop}}}"#,
        of_book.0,
        of_book.1,
        by_kind.join(",")
    );
}
