//! How long one decision takes, hot, with a cold cache and after idling, beside the floor program.
//!
//! Protects: `engine.hot_p50_over_floor`. Every book makes the engine decide: the alpha always wants
//! in, the order is approved through every check and encoded, and (outside the timed part) expires
//! unfilled, so that the next book finds it flat again. Floor and engine take the same records in
//! turns within one run. `HFT_BENCH_TAPE` names a file with a tape of records (a real session);
//! otherwise a synthetic day is used. Prints figures as one JSON line at the end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a program for people and scripts"
)]

mod floor;
mod inputs;

use std::hint::black_box;
use std::time::{Duration, Instant};

use _core::engine::{APPROVED, Engine, EngineConfig, Sequencer};
use _core::record::{
    BookRecord, BrokerEventKind, BrokerRecord, DecisionRecord, Record, RecordHeader,
};
use floor::{BOOK_BYTES, Floor, ORDER_BYTES};
use inputs::support;

/// Six terms; `always` is far above any of them, so that every book is a wish to enter.
const ALPHA: &str = "0.6 * ofi_l1_1s + 0.4 * ofi_l5_5s + k * microprice_dev - 0.1 * return_1s \
                     + 0.2 * trade_imbalance_5s + 1000";
const HOT_BOOKS: usize = 200_000;
const COLD_BOOKS: usize = 3_000;
const IDLE_BOOKS: usize = 400;
/// Books of one engine: without fills, the account may send a thousand requests.
const ENGINE_BOOKS: usize = 950;
/// Of these, books before the first that counts: signal and caches are warm then.
const WARM_BOOKS: usize = 200;
const EVICTED_BYTES: usize = 16 << 20;
const IDLE: Duration = Duration::from_millis(3);
/// Time between two books: what the feed of a futures exchange has at most.
const STEP_NS: i64 = 125_000_000;
/// Age at which no order may be based on a book; the expiry of an order comes then, so that the
/// wish which follows it at once is refused and the next book is the next order's cause.
const STALE_NS: i64 = 100_000_000;

/// A clock that costs little and is the same for both programs.
#[derive(Debug, Clone, Copy)]
struct Clock {
    ns_per_tick: f64,
    own_ticks: u64,
}

#[cfg(target_arch = "x86_64")]
fn ticks() -> u64 {
    // SAFETY: both instructions exist on every x86-64 processor and touch no memory.
    unsafe {
        std::arch::x86_64::_mm_lfence();
        let now = std::arch::x86_64::_rdtsc();
        std::arch::x86_64::_mm_lfence();
        now
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn ticks() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

impl Clock {
    fn calibrated() -> Self {
        let (start, first) = (Instant::now(), ticks());
        while start.elapsed() < Duration::from_millis(50) {}
        let (last, ns) = (ticks(), start.elapsed().as_nanos() as f64);
        let mut own: Vec<u64> = (0..20_000)
            .map(|_| {
                let start = ticks();
                ticks() - start
            })
            .collect();
        own.sort_unstable();
        Self {
            ns_per_tick: ns / (last - first) as f64,
            own_ticks: own[own.len() / 2],
        }
    }

    /// Nanoseconds of one call, the clock's own cost (its median) taken off.
    fn time(&self, call: impl FnOnce()) -> f64 {
        let start = ticks();
        call();
        let spent = (ticks() - start).saturating_sub(self.own_ticks);
        spent as f64 * self.ns_per_tick
    }
}

/// The engine with what a decision needs around it.
struct Decider {
    engine: Engine,
    sequencer: Sequencer,
    out: Vec<DecisionRecord>,
    now_ns: i64,
    broker_seq: u64,
}

impl Decider {
    fn new(config: &EngineConfig) -> Self {
        Self {
            engine: Engine::new(config.clone()).unwrap(),
            sequencer: Sequencer::default(),
            out: Vec::with_capacity(64),
            now_ns: support::START,
            broker_seq: 0,
        }
    }

    /// The record as the sequencer hands it over.
    fn stamped(&mut self, record: &[u8]) -> (RecordHeader, Vec<u8>) {
        let mut header: RecordHeader = *BookRecord::read(record).unwrap().header();
        self.now_ns += STEP_NS - STALE_NS;
        self.sequencer.stamp(&mut header, self.now_ns);
        let mut bytes = record.to_vec();
        bytes[..64].copy_from_slice(bytemuck::bytes_of(&header));
        (header, bytes)
    }

    /// The order expires unfilled, so the next book finds the alpha flat.
    fn expire(&mut self) {
        let Some(decision) = self.out.iter().find(|row| row.verdict == APPROVED).copied() else {
            return;
        };
        self.broker_seq += 1;
        let mut record = BrokerRecord {
            event_kind: BrokerEventKind::Expired as u32,
            order_id: decision.order_id,
            side: decision.side,
            price: decision.price,
            broker_seq: self.broker_seq,
            ..BrokerRecord::empty()
        };
        let mut header = *record.header();
        self.now_ns += STALE_NS;
        self.sequencer.stamp(&mut header, self.now_ns);
        *record.header_mut() = header;
        self.out.clear();
        self.engine
            .on_record(&header, record.as_bytes(), &mut self.out);
    }
}

/// What happens between two books.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Between {
    Nothing,
    Eviction,
    Idling,
}

/// Times of the floor and of the engine on the same books, in turns, and approved orders.
fn measure(
    books: &[&[u8]],
    config: &EngineConfig,
    between: Between,
    clock: &Clock,
) -> ([Vec<f64>; 2], u64) {
    let mut decider = Decider::new(config);
    let mut floor = Floor::default();
    let mut order = [0_u8; ORDER_BYTES];
    let mut evicted = vec![0_u8; EVICTED_BYTES];
    let mut times = [
        Vec::with_capacity(books.len()),
        Vec::with_capacity(books.len()),
    ];
    let mut approved = 0;
    for (place, book) in books.iter().enumerate() {
        let is_counted = place % ENGINE_BOOKS >= WARM_BOOKS;
        if place % ENGINE_BOOKS == 0 {
            decider = Decider::new(config);
        }
        let (header, bytes) = decider.stamped(book);
        assert_eq!(bytes.len(), BOOK_BYTES);
        let mut prepare = || match between {
            Between::Nothing => {}
            _ if !is_counted => {}
            Between::Eviction => {
                for line in evicted.iter_mut().step_by(64) {
                    *line = line.wrapping_add(1);
                }
                black_box(&evicted);
            }
            Between::Idling => std::thread::sleep(IDLE),
        };
        prepare();
        let floor_ns = clock.time(|| {
            black_box(floor.on_book(black_box(&bytes), &mut order));
            black_box(&order);
        });
        prepare();
        let engine_ns = clock.time(|| {
            decider.out.clear();
            decider
                .engine
                .on_record(black_box(&header), black_box(&bytes), &mut decider.out);
            black_box(&decider.out);
        });
        if is_counted {
            times[0].push(floor_ns);
            times[1].push(engine_ns);
            approved += u64::from(
                decider
                    .out
                    .first()
                    .is_some_and(|row| row.verdict == APPROVED),
            );
        }
        decider.expire();
    }
    for list in &mut times {
        list.sort_unstable_by(f64::total_cmp);
    }
    (times, approved)
}

/// A quantile of times that a coarse clock has put into steps: the place within its step is
/// interpolated by rank (the grouped median's rule).
fn quantile(sorted: &[f64], permille: usize) -> f64 {
    let place = (sorted.len() * permille / 1000).min(sorted.len() - 1);
    let value = sorted[place];
    let step = sorted
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .filter(|gap| *gap > 1e-6)
        .fold(f64::INFINITY, f64::min);
    let first = sorted.partition_point(|other| *other < value);
    let count = sorted[first..].partition_point(|other| *other <= value);
    if count < 2 || !step.is_finite() {
        return value;
    }
    value + step * (((place - first) as f64 + 0.5) / count as f64 - 0.5)
}

fn main() {
    let (tape, _) = inputs::tape();
    let books = inputs::books(&tape);
    let mut config = inputs::config(&tape, support::TAKER, ALPHA);
    config.account_limits.quote_age_ns_max = STALE_NS - 1;
    let clock = Clock::calibrated();
    let mut figures = Vec::new();
    for (name, between, count) in [
        ("hot", Between::Nothing, HOT_BOOKS),
        ("cold", Between::Eviction, COLD_BOOKS),
        ("idle", Between::Idling, IDLE_BOOKS),
    ] {
        let used: Vec<&[u8]> = books
            .iter()
            .cycle()
            .take(count.div_ceil(ENGINE_BOOKS - WARM_BOOKS) * ENGINE_BOOKS)
            .copied()
            .collect();
        let ([floor, engine], approved) = measure(&used, &config, between, &clock);
        let ratio = quantile(&engine, 500) / quantile(&floor, 500);
        println!(
            "{name}: {} books, {approved} approved orders; engine p50 is {ratio:.2} x the floor's",
            floor.len()
        );
        let mut row = vec![format!(
            r#""approved":{approved},"books":{},"p50_over_floor":{ratio:.3}"#,
            floor.len()
        )];
        for (who, list) in [("floor", &floor), ("engine", &engine)] {
            let [p50, p99, p999] = [500, 990, 999].map(|permille| quantile(list, permille));
            println!("  {who:<6} p50 {p50:7.0}  p99 {p99:7.0}  p99.9 {p999:7.0} ns");
            row.push(format!(
                r#""{who}_ns":{{"p50":{p50:.0},"p99":{p99:.0},"p999":{p999:.0}}}"#
            ));
        }
        figures.push(format!(r#""{name}":{{{}}}"#, row.join(",")));
    }
    println!("{{{}}}", figures.join(","));
}
