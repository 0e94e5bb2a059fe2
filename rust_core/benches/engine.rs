//! How fast the engine decides. Protects: events a second and the time of one decision.
//!
//! Prints one JSON line: figures with unit, then the same as text. Set-up is outside the timed part.
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

use _core::engine::{Engine, EngineConfig};
use _core::record::{RecordHeader, Tape};
use support::{MAKER, Session, TAKER, config, tape};

/// Six terms over slow and fast features.
const ALPHA: &str = "0.6 * ofi_l1_1s + 0.4 * ofi_l5_5s + k * microprice_dev - 0.1 * return_1s \
                     + 0.2 * trade_imbalance_5s + 0.3 * imbalance_ema_2s";
const BOOKS: usize = 200_000;
const ROUNDS: usize = 7;

fn inputs(template: &str) -> (EngineConfig, Vec<u8>) {
    let mut config = config(template, ALPHA);
    // A whole day of trading, so that entries, quotes and checks are part of the work.
    config.alphas[0].limits.daily_loss_max = i64::MAX / 4;
    config.alphas[0].limits.drawdown_max = i64::MAX / 4;
    config.alphas[0].limits.loss_speed_max = i64::MAX / 4;
    config.session.phases[0].end_ns += 100_000 * support::SECOND;
    for window in &mut config.session.phases[1..] {
        window.start_ns += 100_000 * support::SECOND;
        window.end_ns += 100_000 * support::SECOND;
    }
    let mut session = Session::new(config.clone());
    session.feed_tape(&tape(1, BOOKS));
    (config, session.inputs)
}

fn rows(inputs: &[u8]) -> Vec<(RecordHeader, &[u8])> {
    Tape::new(inputs).map(Result::unwrap).collect()
}

/// Nanoseconds an event over a whole run, the best of some rounds, and decisions made.
fn throughput(config: &EngineConfig, rows: &[(RecordHeader, &[u8])]) -> (f64, u64) {
    let mut best = f64::INFINITY;
    let mut decisions = 0;
    for _ in 0..ROUNDS {
        let mut engine = Engine::new(config.clone()).unwrap();
        let mut out = Vec::with_capacity(64);
        let start = Instant::now();
        for (header, bytes) in rows {
            out.clear();
            engine.on_record(header, bytes, &mut out);
            black_box(&out);
        }
        let ns = start.elapsed().as_secs_f64() * 1e9;
        best = best.min(ns / rows.len() as f64);
        decisions = engine.counters().decisions;
    }
    (best, decisions)
}

/// Times of single events, with the clock's own cost (its median) taken off.
fn quantiles(config: &EngineConfig, rows: &[(RecordHeader, &[u8])]) -> [u64; 4] {
    let mut clock: Vec<u64> = (0..100_000)
        .map(|_| {
            let t = Instant::now();
            t.elapsed().as_nanos() as u64
        })
        .collect();
    clock.sort_unstable();
    let own = clock[clock.len() / 2];
    let mut engine = Engine::new(config.clone()).unwrap();
    let mut out = Vec::with_capacity(64);
    let mut times = Vec::with_capacity(rows.len());
    for (header, bytes) in rows {
        out.clear();
        let start = Instant::now();
        engine.on_record(header, bytes, &mut out);
        black_box(&out);
        times.push((start.elapsed().as_nanos() as u64).saturating_sub(own));
    }
    times.sort_unstable();
    [500, 990, 999, 1000]
        .map(|permille| times[(times.len() * permille / 1000).min(times.len() - 1)])
}

fn main() {
    let mut figures = Vec::new();
    for (name, template) in [("taker", TAKER), ("maker", MAKER)] {
        let (config, inputs) = inputs(template);
        let rows = rows(&inputs);
        let (ns, decisions) = throughput(&config, &rows);
        let [p50, p99, p999, worst] = quantiles(&config, &rows);
        let rate = 1e9 / ns;
        println!(
            "{name}: {} events, {decisions} decisions, {ns:.0} ns an event, {:.2} M events/s; one event p50 {p50} p99 {p99} p99.9 {p999} worst {worst} ns",
            rows.len(),
            rate / 1e6
        );
        figures.push(format!(r#""{name}":{{"events_per_s":{rate:.0},"decide_ns_p50":{p50},"decide_ns_p99":{p99},"decide_ns_p999":{p999},"decide_ns_worst":{worst},"events":{},"decisions":{decisions}}}"#, rows.len()));
    }
    println!("{{{}}}", figures.join(","));
}
