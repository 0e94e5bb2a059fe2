//! What an expression costs, record by record and over columns. Protects: the decision time of the
//! engine and the speed of the search.
//!
//! Prints figures as text and, last, one line of JSON. Set-up is outside the timed part; every
//! figure is the best of some rounds, with the worst beside it. Time is that of the thread on a
//! core, so that other work on the machine disturbs it only through the caches.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for people and scripts"
)]

#[path = "../tests/support/expressions.rs"]
mod expressions;
#[path = "../tests/support/mod.rs"]
mod support;

use std::hint::black_box;

use _core::alpha::{Columns, Expression, Program};
use _core::features::FEATURE_COUNT;
use expressions::{compiled, expression, parameters};
use support::Draw;

/// Rows of the search's table: a million, as in the published comparison.
const ROWS: usize = 1_000_000;
const ROUNDS: usize = 7;
/// Expressions that share one pass, as the binding does it.
const TOGETHER: usize = 32;
/// Mean size of the random expressions, in nodes.
const NODES: std::ops::RangeInclusive<usize> = 3..=9;

const BY_RECORD: [(&str, &str); 6] = [
    (
        "linear_6_terms",
        "0.6 * ofi_l1_1s + 0.4 * ofi_l5_5s + k * microprice_dev - 0.1 * return_1s \
         + 0.2 * trade_imbalance_5s + 0.3 * imbalance_ema_2s",
    ),
    ("ema", "ema(microprice_dev, 2s)"),
    ("mean", "mean(microprice_dev, 30s)"),
    ("zscore", "zscore(microprice_dev, 30s)"),
    ("corr", "corr(microprice_dev, imbalance_l1, 30s)"),
    (
        "example",
        "0.6 * zscore(imbalance_l1, 30s) - ema(microprice_dev, 2s)",
    ),
];

struct Table {
    by_row: Vec<f64>,
    by_feature: Vec<f64>,
    times_ns: Vec<i64>,
    starts: Vec<u8>,
}

impl Table {
    fn new() -> Self {
        let mut draw = Draw(1);
        let mut now = 0;
        let times_ns: Vec<i64> = (0..ROWS)
            .map(|_| {
                now += draw.between(1, 250_000_000);
                now
            })
            .collect();
        let by_row: Vec<f64> = (0..ROWS * FEATURE_COUNT)
            .map(|_| draw.between(-1_000, 1_001) as f64 / 64.0)
            .collect();
        let by_feature = (0..ROWS * FEATURE_COUNT)
            .map(|place| by_row[place % ROWS * FEATURE_COUNT + place / ROWS])
            .collect();
        Self {
            by_row,
            by_feature,
            times_ns,
            starts: vec![0; ROWS],
        }
    }

    fn columns(&self, is_by_feature: bool) -> Columns<'_> {
        let values = if is_by_feature {
            &self.by_feature
        } else {
            &self.by_row
        };
        Columns::new(values, is_by_feature, &self.times_ns, &self.starts).unwrap()
    }
}

/// Time of this thread on a core, in seconds.
fn cpu_seconds() -> f64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the clock exists on every Linux and the target is a valid timespec.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Best and worst nanoseconds a row of some rounds of `work`.
fn rounds(mut work: impl FnMut()) -> (f64, f64) {
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = cpu_seconds();
            work();
            (cpu_seconds() - start) * 1e9 / ROWS as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    (times[0], times[ROUNDS - 1])
}

fn by_record(program: &mut Program, table: &Table) -> (f64, f64) {
    // A thousand rows of features lie in the cache, as the engine's own do.
    let columns = table.columns(false);
    let rows: Vec<[f64; FEATURE_COUNT]> = (0..1_000).map(|row| columns.row(row)).collect();
    rounds(|| {
        program.reset();
        for (place, now) in table.times_ns.iter().enumerate() {
            black_box(program.evaluate(&rows[place % 1_000], *now));
        }
    })
}

fn main() {
    let table = Table::new();
    let mut figures = Vec::new();
    let mut out = vec![0.0; ROWS];
    for (name, text) in BY_RECORD {
        let (_, mut program) = compiled(text).unwrap();
        let (best, worst) = by_record(&mut program, &table);
        let (column, _) = rounds(|| {
            program
                .evaluate_columns(&table.columns(true), black_box(&mut out))
                .unwrap();
        });
        println!(
            "{name}: {best:.1} ns a record (worst round {worst:.1}), {column:.2} ns a row in columns"
        );
        figures.push(format!(
            r#""{name}":{{"record_ns":{best:.2},"row_ns":{column:.3}}}"#
        ));
    }
    // The search: random expressions over a million rows, one thread.
    let drawn = |is_wanted: fn(&Expression) -> bool| -> Vec<(Expression, Program)> {
        (0..)
            .filter_map(|seed| compiled(&expression(seed)))
            .filter(|(parsed, _)| NODES.contains(&parsed.node_count()) && is_wanted(parsed))
            .take(64)
            .collect()
    };
    let population = drawn(|_| true);
    let no_windows = drawn(|parsed| {
        let need = parsed.need();
        need.window_ns_max == 0 && need.window_events_max == 0
    });
    let start = cpu_seconds();
    for (_, program) in &no_windows {
        let mut program = program.clone();
        program
            .evaluate_columns(&table.columns(true), black_box(&mut out))
            .unwrap();
    }
    let rate = no_windows.len() as f64 / (cpu_seconds() - start);
    println!("search without windows, by_feature: {rate:.0} expressions/s over {ROWS} rows");
    figures.push(format!(r#""search_no_windows_per_s":{rate:.1}"#));
    let mut many = vec![0.0; TOGETHER * ROWS];
    for is_by_feature in [true, false] {
        let columns = table.columns(is_by_feature);
        let order = if is_by_feature {
            "by_feature"
        } else {
            "by_row"
        };
        let start = cpu_seconds();
        for (_, program) in &population {
            let mut program = program.clone();
            program
                .evaluate_columns(&columns, black_box(&mut out))
                .unwrap();
        }
        let alone = population.len() as f64 / (cpu_seconds() - start);
        let start = cpu_seconds();
        let parameters = parameters();
        for together in population.chunks(TOGETHER) {
            let list = together.iter().map(|(parsed, _)| (parsed, &parameters));
            let mut program = Program::compile_many(list).unwrap();
            program
                .evaluate_columns(&columns, black_box(&mut many))
                .unwrap();
        }
        let rate = population.len() as f64 / (cpu_seconds() - start);
        println!("search, {order}: {alone:.0} expressions/s over {ROWS} rows, {rate:.0} together");
        figures.push(format!(
            r#""search_{order}_per_s":{alone:.1},"search_{order}_together_per_s":{rate:.1}"#
        ));
    }
    let columns = table.columns(false);
    let rows: Vec<[f64; FEATURE_COUNT]> = (0..ROWS).map(|row| columns.row(row)).collect();
    let start = cpu_seconds();
    for (_, program) in population.iter().take(20) {
        let mut program = program.clone();
        for ((row, now), slot) in rows.iter().zip(&table.times_ns).zip(&mut out) {
            *slot = program.evaluate(row, *now);
        }
        black_box(&out);
    }
    let rate = 20.0 / (cpu_seconds() - start);
    println!("search, record by record: {rate:.0} expressions/s over {ROWS} rows");
    figures.push(format!(r#""search_by_record_per_s":{rate:.1}"#));
    println!("{{{}}}", figures.join(","));
}
