//! What one order costs, early and late in a session, and what the checks alone cost.
//!
//! Protects: cost per order at order 100,000 within 1.2 times that at order 1,000, and the time of
//! `risk::evaluate` with every check passing. Prints one JSON line. Set-up is outside the timed part.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a program for people and scripts"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::hint::black_box;
use std::time::Instant;

use _core::engine::{Engine, EngineConfig};
use _core::record::{RecordHeader, Tape};
use _core::risk::{self, Facts};
use support::{SECOND, Session, TAKER, book, config};

const ORDERS: usize = 101_000;
/// Orders timed around each of the two places.
const SPAN: usize = 2_000;
const ROUNDS: usize = 9;

/// A session in which every book causes an order: in, out, in, out.
fn session() -> (EngineConfig, Vec<u8>) {
    let mut config = config(TAKER, "k * imbalance_l1");
    config.alphas[0].limits.daily_loss_max = i64::MAX / 4;
    config.alphas[0].limits.drawdown_max = i64::MAX / 4;
    config.alphas[0].limits.loss_speed_max = i64::MAX / 4;
    config.alphas[0].expires_ns = i64::MAX;
    config.session.phases.truncate(1);
    config.session.phases[0].end_ns += 1_000_000 * SECOND;
    let generous = config.clone();
    let mut session = Session::new(config);
    for place in 0..ORDERS {
        session.now += SECOND / 5;
        let bid = 35_000 + i64::try_from(place % 7).unwrap();
        let (bid_qty, ask_qty) = if place % 2 == 0 { (30, 1) } else { (10, 10) };
        session.feed_book(book(bid, 1, bid_qty, ask_qty));
    }
    (generous, session.inputs)
}

/// Nanoseconds an order takes from its book to its fill, around order 1,000 and around 100,000.
fn costs(config: &EngineConfig, rows: &[(RecordHeader, &[u8])]) -> (f64, f64) {
    let mut engine = Engine::new(config.clone()).unwrap();
    let mut out = Vec::with_capacity(64);
    let mut spans = [0.0; 2];
    let (mut place, mut orders) = (0, 0);
    for (span, middle) in [1_000, 100_000].into_iter().enumerate() {
        let mut run_to = |until: usize| {
            let start = Instant::now();
            while orders < until && place < rows.len() {
                let (header, bytes) = &rows[place];
                out.clear();
                engine.on_record(header, bytes, &mut out);
                orders += black_box(&out).iter().filter(|d| d.verdict == 1).count();
                place += 1;
            }
            start.elapsed().as_secs_f64() * 1e9
        };
        run_to(middle - SPAN / 2);
        spans[span] = run_to(middle + SPAN / 2) / SPAN as f64;
    }
    assert!(orders > 100_000, "{orders} orders");
    (spans[0], spans[1])
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Nanoseconds of `risk::evaluate` with every check passing: median over batches of 1,000.
fn evaluate_ns() -> f64 {
    let facts: Facts = Facts::at_every_limit();
    assert_eq!(risk::evaluate(&facts), None);
    let batches = (0..2_001).map(|_| {
        let start = Instant::now();
        for _ in 0..1_000 {
            black_box(risk::evaluate(black_box(&facts)));
        }
        start.elapsed().as_secs_f64() * 1e9 / 1_000.0
    });
    median(batches.collect())
}

fn main() {
    let (config, inputs) = session();
    let rows: Vec<_> = Tape::new(&inputs).map(Result::unwrap).collect();
    let rounds: Vec<_> = (0..ROUNDS).map(|_| costs(&config, &rows)).collect();
    // Other programs only ever add time, so the least of the rounds is the work itself.
    let least =
        |take: fn(&(f64, f64)) -> f64| rounds.iter().map(take).fold(f64::INFINITY, f64::min);
    let (early, late) = (least(|round| round.0), least(|round| round.1));
    let ratio = late / early;
    println!(
        r#"{{"order.cost_at_1k_ns":{early:.0},"order.cost_at_100k_ns":{late:.0},"order.cost_100k_over_1k":{ratio:.3},"risk.evaluate_ns_p50":{:.1},"risk.check_count":{}}}"#,
        evaluate_ns(),
        risk::CHECKS.len()
    );
}
