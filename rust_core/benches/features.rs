//! How long the features of one instrument take. Protects: their share of an event.
//!
//! Times a tape through the book alone and through book and features; the difference is what the
//! features cost. `HFT_BENCH_TAPE=FILE` adds a tape of your own, such as a recorded day.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a program for people and scripts"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::hint::black_box;
use std::time::Instant;

use _core::book::Book;
use _core::engine::Sequencer;
use _core::features::{FEATURE_COUNT, FeatureSet};
use _core::record::{BookRecord, Record, SCALE, Tape, TradeRecord};

const BOOKS: usize = 60_000;
const ROUNDS: usize = 21;
/// Events timed at a time, some tens of microseconds.
const CHUNK: usize = 1_000;

enum Event {
    Book(Box<BookRecord>),
    Trade(TradeRecord),
}

/// Records with the engine's time, as the sequencer gives it.
fn events(tape: &[u8]) -> Vec<(i64, Event)> {
    let mut sequencer = Sequencer::default();
    Tape::new(tape)
        .filter_map(|item| {
            let (mut header, bytes) = item.unwrap();
            sequencer.stamp_if_missing(&mut header);
            let book = BookRecord::read(bytes).map(|record| Event::Book(Box::new(record)));
            let event = book.or_else(|| TradeRecord::read(bytes).map(Event::Trade));
            event.map(|event| (header.sequence_time_ns, event))
        })
        .collect()
}

/// Nanoseconds of each chunk of one pass.
fn pass(events: &[(i64, Event)], with_features: bool) -> Vec<f64> {
    let mut book = Book::default();
    let mut set = FeatureSet::new(SCALE, SCALE);
    let chunks = events.chunks(CHUNK).map(|chunk| {
        let start = Instant::now();
        for (now_ns, event) in chunk {
            match event {
                Event::Book(record) => {
                    let _stored = black_box(book.on_book(record, *now_ns));
                    if with_features {
                        set.on_book(&book, *now_ns);
                        black_box(set.values());
                    }
                }
                Event::Trade(record) => {
                    book.on_trade(record.price);
                    if with_features {
                        set.on_trade(record.qty, record.aggressor_side, *now_ns);
                        black_box(set.values());
                    }
                }
            }
            black_box(&book);
        }
        start.elapsed().as_secs_f64() * 1e9
    });
    chunks.collect()
}

/// Nanoseconds an event: the fastest and the median round of every chunk, so that a neighbour
/// that takes the core for a while does not count.
fn measure(events: &[(i64, Event)], with_features: bool) -> [f64; 2] {
    let rounds: Vec<Vec<f64>> = (0..ROUNDS).map(|_| pass(events, with_features)).collect();
    let mut total = [0.0; 2];
    for chunk in 0..rounds[0].len() {
        let mut times: Vec<f64> = rounds.iter().map(|round| round[chunk]).collect();
        times.sort_by(f64::total_cmp);
        total[0] += times[0];
        total[1] += times[ROUNDS / 2];
    }
    total.map(|ns| ns / events.len() as f64)
}

fn main() {
    let mut tapes = vec![("synthetic".to_owned(), support::tape(1, BOOKS))];
    if let Ok(path) = std::env::var("HFT_BENCH_TAPE") {
        tapes.push(("recorded".to_owned(), std::fs::read(path).unwrap()));
    }
    for (name, tape) in tapes {
        let events = events(&tape);
        let [book, book_median] = measure(&events, false);
        let [both, both_median] = measure(&events, true);
        println!(
            "{name}: {} events, {FEATURE_COUNT} features: book {book:.1} ns (median {book_median:.1}), \
             book and features {both:.1} ns (median {both_median:.1}), features {:.1} ns (median {:.1})",
            events.len(),
            both - book,
            both_median - book_median,
        );
    }
}
