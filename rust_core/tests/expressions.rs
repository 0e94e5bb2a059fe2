//! Random expressions over random streams: the invariants of `alpha`, by their numbers.
//!
//! `HFT_FUZZ_CASES` sets the number of cases.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests stop at the first surprise"
)]

#[path = "support/expressions.rs"]
mod expressions;
mod support;

use _core::alpha::{BLOCK_ROWS, Columns, ColumnsError, Expression, MEMORY_BYTES_MAX, Program};
use _core::features::FEATURE_COUNT;
use expressions::{
    PARAMETERS, SECOND, Stream, bits, by_column, by_record, cases, compiled, expression, parameters,
};
use support::Draw;

const ROWS: usize = 1_500;

/// Invariants 1, 3, 4 and 5.
#[test]
fn record_by_record_and_over_columns_the_bits_are_the_same() {
    let (mut compared, mut numbers, mut compiled_count) = (0_u64, 0_u64, 0_u64);
    let mut used = std::collections::BTreeSet::new();
    for seed in 0..cases(300) {
        let text = expression(seed);
        let Some((parsed, mut program)) = compiled(&text) else {
            continue;
        };
        compiled_count += 1;
        assert!(program.memory_bytes() <= MEMORY_BYTES_MAX, "{text}");
        let stream = Stream::random(seed, ROWS);
        let records = by_record(&mut program, &stream);
        let columns = by_column(&mut program, &stream);
        let place = (0..ROWS).find(|row| records[*row].to_bits() != columns[*row].to_bits());
        if let Some(row) = place {
            panic!(
                "seed {seed}, {text}: row {row} was {} by record, {} by column",
                records[row], columns[row]
            );
        }
        let by_feature = stream.by_feature();
        let other_order =
            Columns::new(&by_feature, true, &stream.times_ns, &stream.starts).unwrap();
        let mut again = vec![0.0; ROWS];
        program.evaluate_columns(&other_order, &mut again).unwrap();
        assert_eq!(bits(&again), bits(&columns), "seed {seed}, {text}");
        assert!(
            records
                .iter()
                .all(|value| value.is_finite() || value.to_bits() == f64::NAN.to_bits())
        );
        // The canonical text is a fixed point, and the same program.
        let canonical = parsed.canonical();
        let parsed_again = Expression::parse(&canonical, &PARAMETERS)
            .unwrap_or_else(|error| panic!("seed {seed}, {canonical}: {error}"));
        assert_eq!(parsed_again.canonical(), canonical, "seed {seed}, {text}");
        assert_eq!(parsed_again.unit(), parsed.unit(), "seed {seed}, {text}");
        let mut canonical_program = Program::compile(&parsed_again, &parameters()).unwrap();
        assert_eq!(
            bits(&by_column(&mut canonical_program, &stream)),
            bits(&columns)
        );
        compared += ROWS as u64;
        numbers += columns.iter().filter(|value| value.is_finite()).count() as u64;
        for name in [
            "lag", "delta", "ema", "mean", "std", "zscore", "corr", "decay", "min", "max", "where",
            "clip", "sign", "exp", "log", "tanh", "pow", "sqrt", "abs", "and", "or", "not",
        ] {
            if canonical.contains(&format!("{name}(")) || canonical.contains(&format!("{name} ")) {
                used.insert(name);
            }
        }
    }
    // The comparison was about numbers, and about every operator.
    assert!(numbers * 5 > compared, "{numbers} numbers of {compared}");
    assert!(compiled_count > 100);
    assert_eq!(used.len(), 22, "{used:?}");
}

/// Invariant 5 for many: compiled together, expressions share parts and give what each gives alone.
#[test]
fn expressions_evaluated_together_give_the_bits_of_each_alone() {
    let stream = Stream::random(77, ROWS);
    let parameters = parameters();
    let mut shared = 0;
    for group in 0..(cases(300) / 30).max(1) {
        let list: Vec<(Expression, Program)> = (0..30)
            .filter_map(|place| compiled(&expression(group * 20 + place)))
            .collect();
        let alone: Vec<u64> = list
            .iter()
            .flat_map(|(_, program)| bits(&by_column(&mut program.clone(), &stream)))
            .collect();
        let pairs = list.iter().map(|(parsed, _)| (parsed, &parameters));
        let mut together = Program::compile_many(pairs).unwrap();
        let mut out = vec![0.0; list.len() * ROWS];
        together
            .evaluate_columns(&stream.columns(), &mut out)
            .unwrap();
        assert_eq!(bits(&out), alone, "group {group}");
        let separate: usize = list
            .iter()
            .map(|(_, program)| program.operation_count())
            .sum();
        assert!(together.operation_count() <= separate);
        shared += separate - together.operation_count();
    }
    assert!(shared > 0, "nothing was shared");
}

/// Rows up to a place must not depend on what is behind it; `evaluate` is the evaluation on trial.
fn sees_the_future(stream: &Stream, evaluate: &mut dyn FnMut(&Stream) -> Vec<f64>) -> bool {
    let whole = evaluate(stream);
    let rows = stream.times_ns.len();
    let mut draw = Draw(rows as u64);
    [1, rows / 3, rows / 2 + 7, rows - 1]
        .into_iter()
        .any(|kept| {
            let cut = evaluate(&stream.cut(kept));
            let mut changed = stream.clone();
            for value in &mut changed.values[kept * FEATURE_COUNT..] {
                *value = draw.between(-1_000, 1_000) as f64;
            }
            for row in kept..rows {
                changed.times_ns[row] = changed.times_ns[row - 1] + draw.between(0, SECOND);
                changed.starts[row] = 0;
            }
            let changed = evaluate(&changed);
            bits(&cut) != bits(&whole[..kept]) || bits(&changed[..kept]) != bits(&whole[..kept])
        })
}

/// Invariant 2: what is behind a row changes nothing before it.
#[test]
fn the_future_changes_nothing_before_it() {
    for seed in 0..cases(60).min(2_000) {
        let text = expression(seed + 1_000_000);
        let Some((_, mut program)) = compiled(&text) else {
            continue;
        };
        let stream = Stream::random(seed, 700);
        let sees = sees_the_future(&stream, &mut |stream| by_column(&mut program, stream));
        assert!(!sees, "seed {seed}, {text}");
    }
}

/// Negative control: an operator that peeks by one record, and one that centres its window, are
/// both caught by the same test.
#[test]
fn an_operator_that_peeks_is_caught() {
    let (_, mut program) = compiled("mean(spread_ticks, 3ev)").unwrap();
    let stream = Stream::random(5, 700);
    let mut lead = |stream: &Stream| {
        let mut values = by_column(&mut program, stream);
        values.rotate_left(1);
        values
    };
    assert!(sees_the_future(&stream, &mut lead));
    let (_, mut plain) = compiled("spread_ticks").unwrap();
    let mut demeaned = |stream: &Stream| {
        let values = by_column(&mut plain, stream);
        let numbers: Vec<f64> = values.iter().copied().filter(|x| x.is_finite()).collect();
        let mean = numbers.iter().sum::<f64>() / numbers.len().max(1) as f64;
        values.iter().map(|value| value - mean).collect()
    };
    assert!(sees_the_future(&stream, &mut demeaned));
    assert!(!sees_the_future(&stream, &mut |stream| by_column(
        &mut plain, stream
    )));
}

/// Invariant 3 of programs, and a control that starts matter at all.
#[test]
fn after_a_start_nothing_from_before_is_left() {
    let text = "zscore(spread_ticks, 3s) + ema(imbalance_l1, 1s) + lag(imbalance_l1, 5ev) \
                + decay(imbalance_l1, 10s) + corr(spread_ticks, imbalance_l1, 20ev)";
    let (_, mut program) = compiled(text).unwrap();
    let mut stream = Stream::random(11, 1_200);
    for row in 1..1_200 {
        stream.starts[row] = u8::from(row == 800);
        stream.times_ns[row] = stream.times_ns[row - 1] + 50_000_000;
    }
    let whole = by_column(&mut program, &stream);
    let tail = Stream {
        values: stream.values[800 * FEATURE_COUNT..].to_vec(),
        times_ns: stream.times_ns[800..].to_vec(),
        starts: stream.starts[800..].to_vec(),
    };
    assert_eq!(bits(&by_record(&mut program, &tail)), bits(&whole[800..]));
    assert!(whole[800..].iter().any(|value| value.is_finite()));
    stream.starts[800] = 0;
    assert_ne!(
        bits(&by_column(&mut program, &stream)[800..]),
        bits(&whole[800..])
    );
}

/// Windows neither drift over a day nor remember a shock that left them.
#[test]
fn a_day_of_windows_stays_as_exact_as_its_first_minute() {
    let texts = [
        "mean(spread_ticks, 3s)",
        "std(spread_ticks, 3s)",
        "mean(spread_ticks, 50ev)",
        "std(spread_ticks, 50ev)",
        "zscore(spread_ticks, 3s)",
        "corr(spread_ticks, microprice_dev, 50ev)",
        "corr(spread_ticks, microprice_dev, 3s)",
    ];
    let rows = 400_000;
    let mut draw = Draw(3);
    let mut stream = Stream {
        values: vec![0.0; rows * FEATURE_COUNT],
        times_ns: Vec::with_capacity(rows),
        starts: vec![0; rows],
    };
    let mut now = 0;
    for row in 0..rows {
        now += draw.between(1, 90_000_000);
        stream.times_ns.push(now);
        // Once an hour a value that would swallow everything in a running sum.
        let shock = if row % 80_000 == 79_000 { 1e15 } else { 0.0 };
        for id in 0..FEATURE_COUNT {
            stream.values[row * FEATURE_COUNT + id] =
                1_000.0 + draw.between(-100, 101) as f64 / 64.0 + shock;
        }
    }
    for text in texts {
        let (_, mut program) = compiled(text).unwrap();
        let whole = by_column(&mut program, &stream);
        // The last minutes alone, computed afresh.
        let from = rows - 5_000;
        let tail = Stream {
            values: stream.values[from * FEATURE_COUNT..].to_vec(),
            times_ns: stream.times_ns[from..].to_vec(),
            starts: vec![0; rows - from],
        };
        let fresh = by_column(&mut program, &tail);
        let mut worst = 0.0_f64;
        for (a, b) in whole[from..].iter().zip(&fresh).skip(1_000) {
            assert!(a.is_finite() && b.is_finite(), "{text}: {a} and {b}");
            worst = worst.max((a - b).abs() / b.abs().max(1.0));
        }
        assert!(worst < 1e-11, "{text}: apart by {worst}");
    }
}

#[test]
fn columns_that_do_not_fit_together_are_refused() {
    let values = vec![0.0; 3 * FEATURE_COUNT];
    let length = |what, found, expected| {
        Err(ColumnsError::Length {
            what,
            found,
            expected,
        })
    };
    let new = |values, times, starts| Columns::new(values, false, times, starts).map(|_| ());
    assert_eq!(
        new(&values[1..], &[1, 2, 3], &[0; 3]),
        length("features", 3 * FEATURE_COUNT - 1, 3 * FEATURE_COUNT)
    );
    assert_eq!(new(&values, &[1, 2, 3], &[0; 2]), length("starts", 2, 3));
    assert_eq!(
        new(&values, &[1, 3, 2], &[0; 3]),
        Err(ColumnsError::TimeWentBack { row: 2 })
    );
    assert_eq!(new(&values, &[1, 3, 2], &[0, 0, 1]), Ok(()));
    assert_eq!(new(&values, &[2, 2, 2], &[0; 3]), Ok(()));
    let time_ns = i64::MAX;
    assert_eq!(
        new(&values, &[1, 2, time_ns], &[0; 3]),
        Err(ColumnsError::TimeOutOfRange { row: 2, time_ns })
    );
    let (_, mut program) = compiled("spread_ticks").unwrap();
    let columns = Columns::new(&values, false, &[1, 2, 3], &[0; 3]).unwrap();
    assert!(program.evaluate_columns(&columns, &mut [0.0; 2]).is_err());
    let empty = Columns::new(&[], false, &[], &[]).unwrap();
    assert_eq!(program.evaluate_columns(&empty, &mut []), Ok(()));
    let longer = vec![0.0; (2 * BLOCK_ROWS + 1) * FEATURE_COUNT];
    let times: Vec<i64> = (0..=2 * BLOCK_ROWS as i64).collect();
    let columns = Columns::new(&longer, true, &times, &vec![0; times.len()]).map(|c| c.row_count());
    assert_eq!(columns, Ok(2 * BLOCK_ROWS + 1));
}
