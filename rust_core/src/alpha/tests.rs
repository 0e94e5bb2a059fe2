#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests stop at the first surprise"
)]

use std::collections::BTreeMap;

use super::*;
use crate::features::{
    FEATURE_COUNT, FEATURES, IMBALANCE_L1, MICROPRICE_DEV, RETURN_1S, SPREAD_TICKS,
};
use crate::reason::ReasonCode;

const SECOND: i64 = 1_000_000_000;

fn program(text: &str, parameters: &[(&str, f64)]) -> Program {
    let parameters: BTreeMap<String, f64> = parameters
        .iter()
        .map(|(k, v)| ((*k).to_owned(), *v))
        .collect();
    let names: Vec<&str> = parameters.keys().map(String::as_str).collect();
    let expression =
        Expression::parse(text, &names).unwrap_or_else(|error| panic!("{text}: {error}"));
    Program::compile(&expression, &parameters).unwrap()
}

fn value(text: &str, parameters: &[(&str, f64)], features: &[f64; FEATURE_COUNT]) -> f64 {
    program(text, parameters).evaluate(features, 0)
}

fn features() -> [f64; FEATURE_COUNT] {
    let mut values = [0.0; FEATURE_COUNT];
    values[IMBALANCE_L1] = 0.5;
    values[SPREAD_TICKS] = 2.0;
    values[RETURN_1S] = f64::NAN;
    values
}

/// Values of `text` while `microprice_dev` and `imbalance_l1` take the given values.
fn series(text: &str, rows: &[(i64, f64)]) -> Vec<f64> {
    let mut program = program(text, &[]);
    rows.iter()
        .map(|(now_ns, x)| {
            let mut values = features();
            values[MICROPRICE_DEV] = *x;
            values[IMBALANCE_L1] = *x;
            program.evaluate(&values, *now_ns)
        })
        .collect()
}

fn at_seconds(values: &[(f64, f64)]) -> Vec<(i64, f64)> {
    values.iter().map(|(s, x)| ((s * 1e9) as i64, *x)).collect()
}

/// Equal as numbers, NaN equal to NaN.
fn same(actual: &[f64], expected: &[f64], text: &str) {
    assert_eq!(actual.len(), expected.len(), "{text}");
    for (a, e) in actual.iter().zip(expected) {
        assert!(
            (a.is_nan() && e.is_nan()) || (a - e).abs() <= 1e-12 * e.abs().max(1.0),
            "{text}: {actual:?} is not {expected:?}"
        );
    }
}

#[test]
fn arithmetic_follows_the_usual_order() {
    let cases = [
        ("1 + 2 * 3", 7.0),
        ("(1 + 2) * 3", 9.0),
        ("-2 * -3 - -1", 7.0),
        ("8 / 4 / 2", 1.0),
        ("8 - 4 - 2", 2.0),
        ("k * imbalance_l1", 1.5),
        ("clip(5, -1, 1) + clip(-5, -1, 1) + clip(0.25, -1, 1)", 0.25),
        ("abs(-2) + sign(-0.1) + sign(0) + sign(9)", 2.0),
        ("1e-3 * 1.5E+3", 1.5),
        ("-2 ^ 2", -4.0),
        ("2 ^ 3 ^ 2", 512.0),
        ("2 ^ -1", 0.5),
        ("pow(k, 2) + sqrt(k * 3)", 12.0),
        ("min(3, k, 7) + max(1, -k)", 4.0),
        ("min(k, 2, 1 + 1, 9)", 2.0),
        ("exp(0 * k) + log(k / k) + tanh(k - k)", 1.0),
        (
            "where(k > 2, 1, 0) + where(k >= 3, 10, 0) + where(k != 3, 100, 0)",
            11.0,
        ),
        ("where(k < 2 or k <= 3 and not k == 4, 1, 0)", 1.0),
        ("where(k < 2 || k < 3 && !(k == 4), 1, 0)", 0.0),
        ("where(not (k < 2 or k > 2.5), 1, 2)", 2.0),
        ("1 - k + 2 - (3 - k)", 0.0),
        ("imbalance_l1 / -2", -0.25),
    ];
    for (text, expected) in cases {
        assert_eq!(value(text, &[("k", 3.0)], &features()), expected, "{text}");
    }
}

#[test]
fn what_cannot_be_computed_is_nan() {
    let texts = [
        "1 / 0",
        "0 / 0",
        "1 / (imbalance_l1 - 0.5)",
        "return_1s",
        "0 * return_1s",
        "sign(return_1s)",
        "clip(return_1s, -1, 1)",
        "clip(1, 2, 1)",
        "1e308 * k0",
        "1 / (1e308 * spread_ticks)",
        "exp(-(1e308 * spread_ticks))",
        "tanh(1e308 * spread_ticks)",
        "sign(1e308 * spread_ticks)",
        "min(1, 1e308 * spread_ticks)",
        "where(1 < 1e308 * spread_ticks, 1, 0)",
        "abs(return_1s)",
        "sqrt(-1 * imbalance_l1)",
        "log(0 * imbalance_l1)",
        "log(imbalance_l1 - 1)",
        "(imbalance_l1 - 1) ^ 0.3",
        "pow(0 * imbalance_l1, -1)",
        "pow(1, 0 * return_1s)",
        "pow(0 * return_1s, 0)",
        "min(1, return_1s)",
        "max(return_1s, 1, 2)",
        "where(return_1s > 0, 1, 2)",
        "where(return_1s > 0 or 1 < 2, 1, 2)",
        "where(return_1s > 0 and 1 > 2, 1, 2)",
        "where(not (return_1s == 0), 1, 2)",
        "where(1 < 2, return_1s, 2)",
    ];
    for text in texts {
        assert!(value(text, &[("k0", 10.0)], &features()).is_nan(), "{text}");
    }
    assert_eq!(value("where(1 < 2, 3, return_1s)", &[], &features()), 3.0);
}

/// Every window by hand: values 1, 2, 4, 8 for a second each.
#[test]
fn windows_match_cases_by_hand() {
    let rows = at_seconds(&[(0.0, 1.0), (1.0, 2.0), (2.0, 4.0), (3.0, 8.0), (4.0, 0.0)]);
    let nan = f64::NAN;
    let e = |t: f64| (-t).exp();
    let cases: Vec<(&str, [f64; 5])> = vec![
        // Behind 2 s: 1 for a second and 2 for a second.
        ("mean(microprice_dev, 2s)", [nan, nan, 1.5, 3.0, 6.0]),
        ("min(microprice_dev, 2s)", [nan, nan, 1.0, 2.0, 0.0]),
        ("max(microprice_dev, 2s)", [nan, nan, 4.0, 8.0, 8.0]),
        ("std(microprice_dev, 2s)", [nan, nan, 0.5, 1.0, 2.0]),
        ("zscore(microprice_dev, 2s)", [nan, nan, 5.0, 5.0, -3.0]),
        ("lag(microprice_dev, 2s)", [nan, nan, nan, 1.0, 2.0]),
        ("delta(microprice_dev, 2s)", [nan, nan, nan, 7.0, -2.0]),
        ("mean(microprice_dev, 2ev)", [nan, 1.5, 3.0, 6.0, 4.0]),
        ("min(microprice_dev, 3ev)", [nan, nan, 1.0, 2.0, 0.0]),
        ("max(microprice_dev, 3ev)", [nan, nan, 4.0, 8.0, 8.0]),
        ("std(microprice_dev, 2ev)", [nan, 0.5, 1.0, 2.0, 4.0]),
        ("zscore(microprice_dev, 2ev)", [nan, 1.0, 1.0, 1.0, -1.0]),
        ("lag(microprice_dev, 1ev)", [nan, 1.0, 2.0, 4.0, 8.0]),
        ("delta(microprice_dev, 3ev)", [nan, nan, nan, 7.0, -2.0]),
        (
            "ema(microprice_dev, 1s)",
            [
                nan,
                1.0,
                2.0 - e(1.0),
                4.0 - 2.0 * e(1.0) - e(2.0),
                8.0 - 4.0 * e(1.0) - 2.0 * e(2.0) - e(3.0),
            ],
        ),
        (
            "decay(microprice_dev, 1s)",
            [
                nan,
                2.0 + e(1.0),
                4.0 + 2.0 * e(1.0) + e(2.0),
                8.0 + 4.0 * e(1.0) + 2.0 * e(2.0) + e(3.0),
                8.0 * e(1.0) + 4.0 * e(2.0) + 2.0 * e(3.0) + e(4.0),
            ],
        ),
        (
            "ema(microprice_dev, 2ev)",
            [
                nan,
                2.0 - e(0.5),
                4.0 - 2.0 * e(0.5) - e(1.0),
                8.0 - 4.0 * e(0.5) - 2.0 * e(1.0) - e(1.5),
                8.0 * e(0.5) - 4.0 * e(1.0) - 2.0 * e(1.5) - e(2.0),
            ],
        ),
        (
            "decay(microprice_dev, 2ev)",
            [
                nan,
                2.0 + e(0.5),
                4.0 + 2.0 * e(0.5) + e(1.0),
                8.0 + 4.0 * e(0.5) + 2.0 * e(1.0) + e(1.5),
                8.0 * e(0.5) + 4.0 * e(1.0) + 2.0 * e(1.5) + e(2.0),
            ],
        ),
        // The 1 s window is 0.99 s to 1 s long: one value only, which does not vary.
        ("std(microprice_dev, 1s)", [nan, 0.0, 0.0, 0.0, 0.0]),
        ("zscore(microprice_dev, 1s)", [nan; 5]),
        (
            "corr(microprice_dev, 3 * imbalance_l1, 3ev)",
            [nan, nan, 1.0, 1.0, 1.0],
        ),
        (
            "corr(microprice_dev, -imbalance_l1, 2s)",
            [nan, nan, -1.0, -1.0, -1.0],
        ),
        ("corr(microprice_dev, spread_ticks, 2s)", [nan; 5]),
    ];
    for (text, expected) in cases {
        // A window of 2 s ends on the grid here, so it reaches back 1.98 s: the first hundredth
        // of its oldest second is left out.
        let tolerance = if text.contains(", 2s)") { 0.02 } else { 1e-12 };
        let actual = series(text, &rows);
        for (a, e) in actual.iter().zip(expected) {
            assert!(
                (a.is_nan() && e.is_nan()) || (a - e).abs() <= tolerance * e.abs().max(1.0),
                "{text}: {actual:?} is not {expected:?}"
            );
        }
    }
    // Exactly: 1 for 0.98 s, 2 for 1 s.
    let exact = series("mean(microprice_dev, 2s)", &rows);
    same(&exact[2..3], &[(0.98 + 2.0) / 1.98], "mean");
}

/// Invariants 1 and 2 of windows: off the grid the running bucket counts as well.
#[test]
fn a_window_reaches_back_to_the_start_of_a_bucket() {
    // A window of 1 s has buckets of 10 ms; at 2.005 s it starts at 1.01 s.
    let rows = at_seconds(&[(0.0, 1.0), (1.5, 3.0), (2.005, 7.0)]);
    let expected = (0.49 * 1.0 + 0.505 * 3.0) / 0.995;
    same(
        &series("mean(microprice_dev, 1s)", &rows)[2..],
        &[expected],
        "mean",
    );
    // A lag of 1 s at 2.005 s is the value just before 1 s.
    let rows = at_seconds(&[(0.0, 1.0), (0.995, 2.0), (1.0, 3.0), (2.005, 7.0)]);
    same(
        &series("lag(microprice_dev, 1s)", &rows)[3..],
        &[2.0],
        "lag",
    );
    // Times before 1970 lie on the same grid.
    let rows: Vec<(i64, f64)> = at_seconds(&[(0.0, 1.0), (1.5, 3.0), (2.005, 7.0)])
        .into_iter()
        .map(|(now, x)| (now - 1_000 * SECOND, x))
        .collect();
    same(
        &series("mean(microprice_dev, 1s)", &rows)[2..],
        &[expected],
        "mean",
    );
}

/// Times come from records, and a record may hold anything.
#[test]
fn absurd_times_do_not_stop_a_program() {
    let day = 86_400 * SECOND;
    let times = [
        i64::MIN,
        i64::MIN + 1,
        i64::MIN + day,
        -1,
        0,
        1,
        i64::MAX - day,
        i64::MAX - 1,
        i64::MAX,
        i64::MAX,
        // Time that goes back stands still.
        0,
        i64::MIN,
    ];
    let text = "mean(k, 1ms) + std(spread_ticks, 4h) + lag(spread_ticks, 1s) + ema(spread_ticks, 1s) \
                + min(spread_ticks, 3s) + decay(spread_ticks, 1ms) + 2 * zscore(spread_ticks, 5ev) \
                + 2 * corr(spread_ticks, imbalance_l1, 1h)";
    let mut program = program(text, &[("k", 1.0)]);
    for _ in 0..200 {
        for now_ns in times {
            let value = program.evaluate(&features(), now_ns);
            assert!(value.is_finite() || value.is_nan());
        }
        for step in 0..300 {
            program.evaluate(&features(), i64::MIN + step * 7_000_000);
        }
        program.reset();
    }
}

/// Invariant 4 of windows.
#[test]
fn a_nan_leaves_no_trace_but_gives_nan() {
    let nan = f64::NAN;
    let rows = at_seconds(&[(0.0, nan), (1.0, 2.0), (2.0, nan), (9.0, 4.0), (10.0, 6.0)]);
    let cases = [
        ("mean(microprice_dev, 2ev)", [nan, nan, nan, 3.0, 5.0]),
        ("lag(microprice_dev, 1ev)", [nan, nan, nan, 2.0, 4.0]),
        // From 2 s to 9 s nothing was in force; the window of 9 s still holds the 2 of one second.
        ("mean(microprice_dev, 9s)", [nan, nan, nan, nan, 3.0]),
        ("max(microprice_dev, 9s)", [nan, nan, nan, nan, 6.0]),
        ("min(microprice_dev, 9s)", [nan, nan, nan, nan, 2.0]),
        // Just before the NaN came, 2 was in force; just before 4 came, nothing.
        ("lag(microprice_dev, 8s)", [nan, nan, nan, nan, 2.0]),
        ("lag(microprice_dev, 1s)", [nan, nan, nan, nan, nan]),
        (
            "ema(microprice_dev, 1s)",
            [
                nan,
                nan,
                nan,
                4.0 - 2.0 - 2.0 * (-1.0_f64).exp() + 2.0 * (-1.0_f64).exp(),
                4.0 - 2.0 * (-1.0_f64).exp(),
            ],
        ),
    ];
    for (text, expected) in cases {
        let actual = series(text, &rows);
        for (a, e) in actual.iter().zip(expected) {
            assert!(
                (a.is_nan() && e.is_nan()) || (a - e).abs() <= 0.1,
                "{text}: {actual:?} is not {expected:?}"
            );
        }
    }
}

#[test]
fn errors_name_position_code_and_the_nearest_word() {
    let invalid = ReasonCode::ExpressionInvalid;
    let cases: Vec<(&str, ReasonCode, usize, Option<&str>)> = vec![
        (
            "2 * imbalance_11",
            ReasonCode::UnknownFeature,
            4,
            Some("imbalance_l1"),
        ),
        ("ofi_l6", ReasonCode::UnknownFeature, 0, Some("ofi_l1")),
        ("k2 + 1", ReasonCode::UnknownFeature, 0, Some("k1")),
        ("zzzzzz", ReasonCode::UnknownFeature, 0, None),
        ("clp(1, 2, 3)", invalid, 0, Some("clip")),
        ("zscor(spread_ticks, 3s)", invalid, 0, Some("zscore")),
        ("clip(1, 2)", invalid, 0, None),
        ("spread_ticks(1)", invalid, 0, None),
        ("1 +", invalid, 3, None),
        ("(1 + 2", invalid, 6, None),
        ("1 2", invalid, 2, None),
        ("1 + $", invalid, 4, None),
        ("1.2.3", invalid, 0, None),
        ("", invalid, 0, None),
        ("2 + 1e308 * 10", invalid, 4, None),
        ("k1 + 1e308 + 1e308", invalid, 0, None),
        ("1 = 2", invalid, 2, Some("==")),
        ("1 < 2 & 3 < 4", invalid, 6, Some("and")),
        ("2 ** 3", invalid, 3, Some("^")),
        ("1 < 2 < 3", invalid, 6, None),
        ("1 < 2", invalid, 0, None),
        ("(1 < 2) + 1", invalid, 0, None),
        ("where(1, 2, 3)", invalid, 6, None),
        ("1 and 2", invalid, 0, None),
        ("not 1", invalid, 4, None),
        ("and", invalid, 0, None),
        ("ema", invalid, 0, None),
        ("ema(spread_ticks)", invalid, 0, None),
        ("ema(spread_ticks, 30)", invalid, 0, None),
        ("ema(30s, spread_ticks)", invalid, 4, None),
        ("ema(spread_ticks, 30x)", invalid, 18, None),
        ("ema(spread_ticks, 0s)", invalid, 18, None),
        ("ema(spread_ticks, 0.5ms)", invalid, 18, None),
        ("ema(spread_ticks, 1.5ev)", invalid, 18, None),
        ("ema(spread_ticks, 5000ev)", invalid, 18, None),
        ("ema(spread_ticks, 5h)", invalid, 18, None),
        ("ema(spread_ticks, k1)", invalid, 0, None),
        ("30s", invalid, 0, None),
        ("abs(spread_ticks, 30s)", invalid, 18, None),
        ("corr(spread_ticks, 30s)", invalid, 0, None),
        ("pow(spread_ticks, k1)", invalid, 4, None),
        ("exp(spread_ticks)", invalid, 4, None),
        ("tanh(quote_age_ms)", invalid, 5, None),
        ("quote_age_ms", invalid, 0, None),
        ("spread_ticks * spread_ticks", invalid, 0, None),
        ("imbalance_l1 + spread_ticks", invalid, 15, None),
        (
            "where(spread_ticks < quote_age_ms, 1, 0)",
            invalid,
            21,
            None,
        ),
        ("min(imbalance_l1, k1, spread_ticks)", invalid, 22, None),
        (
            "where(1 < 2, imbalance_l1, spread_ticks)",
            invalid,
            27,
            None,
        ),
    ];
    for (text, code, position, suggestion) in cases {
        let error = Expression::parse(text, &["k1"]).unwrap_err();
        assert_eq!(
            (error.code, error.position, error.suggestion.as_deref()),
            (code, position, suggestion),
            "{text}: {error}"
        );
    }
    for name in ["imbalance_l1", "two words", "ema", "and", ""] {
        assert!(Expression::parse("1", &[name]).is_err(), "{name}");
    }
}

/// Invariant 2 of the parser: what would look ahead cannot be written.
#[test]
fn looking_ahead_cannot_be_written() {
    let texts = [
        "lag(spread_ticks, -1s)",
        "delta(spread_ticks, -5ev)",
        "lag(spread_ticks, - 250ms)",
        "mean(spread_ticks, -30s)",
        "lag(spread_ticks, -0s)",
        "lag(spread_ticks, 0ev)",
        "lag(spread_ticks, 0ms)",
        "lag(spread_ticks, k)",
        "lag(spread_ticks, -k)",
        "lag(spread_ticks, 1 - 2)",
        "lag(spread_ticks, 1s - 2s)",
        "lead(spread_ticks, 1s)",
        "lag(spread_ticks, 1s, -1s)",
    ];
    for text in texts {
        let error = Expression::parse(text, &["k"]).unwrap_err();
        assert_eq!(error.code, ReasonCode::ExpressionInvalid, "{text}: {error}");
    }
    let error = Expression::parse("lag(spread_ticks, -1s)", &[]).unwrap_err();
    assert_eq!(error.position, 18);
    assert!(error.message.contains("cannot look ahead"), "{error}");
}

/// A unit error names both sides.
#[test]
fn units_are_checked_and_coefficients_take_any() {
    let error = Expression::parse("1 + imbalance_l1 + spread_ticks", &[]).unwrap_err();
    assert_eq!(
        error.message,
        "'1 + imbalance_l1' is a ratio, 'spread_ticks' is in ticks: they cannot be added; multiply \
         one with a coefficient"
    );
    let units = [
        ("25.0 * imbalance_l1", "free"),
        ("2 + spread_ticks", "ticks"),
        ("imbalance_l1", "ratio"),
        ("k * imbalance_l1 + spread_ticks", "ticks"),
        ("imbalance_l1 * spread_ticks", "ticks"),
        ("spread_ticks / spread_ticks", "ratio"),
        ("sqrt(spread_ticks * microprice_dev)", "ticks"),
        ("(spread_ticks ^ 2 + 1) ^ 0.5", "ticks"),
        ("spread_ticks ^ 3 / (microprice_dev ^ 2)", "ticks"),
        ("quote_age_ms / ema(quote_age_ms, 5s)", "ratio"),
        ("zscore(quote_age_ms, 10s)", "ratio"),
        ("corr(quote_age_ms, spread_ticks, 10s)", "ratio"),
        ("sign(spread_ticks) + tanh(0.1 * spread_ticks)", "ratio"),
        (
            "std(spread_ticks, 10s) - delta(microprice_dev, 1s)",
            "ticks",
        ),
        (
            "0.6*zscore(imbalance_l1, 30s) - ema(microprice_dev, 2s)",
            "ticks",
        ),
        ("where(quote_age_ms > 100, spread_ticks, 0)", "ticks"),
        ("exp(k * quote_age_ms)", "ratio"),
    ];
    for (text, unit) in units {
        let expression = Expression::parse(text, &["k"]).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(expression.unit().to_string(), unit, "{text}");
    }
}

#[test]
fn bounds_are_refused_and_never_overflow_the_stack() {
    let texts = [
        "(".repeat(2_000) + "1" + &")".repeat(2_000),
        "-".repeat(4_000),
        "1+".repeat(3_000),
        "not ".repeat(1_000) + "1<2",
        "!".repeat(4_000) + "1<2",
        "abs(".repeat(1_000) + "1",
        "k/".repeat(2_000) + "k",
        "k^".repeat(2_000) + "k",
        vec!["k"; 2_000].join("+"),
        "min(".repeat(900) + "k",
    ];
    for text in &texts {
        let error = Expression::parse(text, &["k"]).unwrap_err();
        assert_eq!(error.code, ReasonCode::ExpressionInvalid);
    }
    let wide: Vec<String> = (0..150)
        .map(|place| format!("{place}/spread_ticks"))
        .collect();
    let expression = Expression::parse(&wide.join("+"), &[]).unwrap();
    assert!(Program::compile(&expression, &BTreeMap::new()).is_err());
    // Windows in events fill the memory first.
    let heavy: Vec<String> = (0..5)
        .map(|place| format!("corr(spread_ticks, spread_ticks ^ {place}, 4096ev)"))
        .collect();
    let expression = Expression::parse(&heavy.join("+"), &[]).unwrap();
    let error = Program::compile(&expression, &BTreeMap::new()).unwrap_err();
    assert!(error.message.contains("shorter windows"), "{error}");
    let expression = Expression::parse("k", &["k"]).unwrap();
    assert!(Program::compile(&expression, &BTreeMap::new()).is_err());
    assert!(Program::compile(&expression, &BTreeMap::from([("k".to_owned(), f64::NAN)])).is_err());
}

#[test]
fn spellings_share_one_canonical_text_and_hash() {
    let groups: Vec<(&str, Vec<&str>)> = vec![
        (
            "k + 2.5 * imbalance_l1",
            vec!["imbalance_l1*2.50 - -k", "( imbalance_l1 * 2.5 ) - (-k)"],
        ),
        ("-(k - spread_ticks)", vec![]),
        (
            "3.0 + spread_ticks",
            vec![
                "1 + spread_ticks + 2",
                "spread_ticks - -(1 + 2)",
                "3 + spread_ticks",
            ],
        ),
        (
            "-2.0 * spread_ticks",
            vec![
                "spread_ticks * -2",
                "-(2 * spread_ticks)",
                "-(spread_ticks) * 2",
                "-2*spread_ticks",
            ],
        ),
        (
            "-(1.0 - k) / spread_ticks",
            vec![
                "(k - 1) / spread_ticks",
                "(1 - k) / -spread_ticks",
                "-((1 - k) / spread_ticks)",
            ],
        ),
        (
            "-imbalance_l1 / k",
            vec![
                "imbalance_l1 / -k",
                "-(imbalance_l1 / k)",
                "(-imbalance_l1) / k",
            ],
        ),
        (
            "where(1.0 < spread_ticks, max(k, 2.0 + 1.0), 0)",
            vec!["where(spread_ticks > 1, max(3, k), 0)"],
        ),
        (
            "where(k == spread_ticks and k < 2 and k <= 3, 1, 0)",
            vec!["where((3 >= k and 2 > k) && (spread_ticks == k), 1, 0)"],
        ),
        (
            "corr(microprice_dev, spread_ticks, 60s)",
            vec![
                "corr(spread_ticks, microprice_dev, 1m)",
                "corr(spread_ticks, microprice_dev, 60000ms)",
            ],
        ),
        (
            "mean(spread_ticks, 500ms)",
            vec!["mean(spread_ticks, 0.5s)", "mean(spread_ticks, .5s)"],
        ),
        ("spread_ticks ^ 2 * k", vec!["k * pow(spread_ticks, 2)"]),
        ("where(not (1 < k), 1, 0)", vec!["where(!!!(k > 1), 1, 0)"]),
    ];
    for (first, others) in groups {
        let first = Expression::parse(first, &["k"]).unwrap();
        for other in others {
            let other = Expression::parse(other, &["k", "unused"]).unwrap();
            assert_eq!(first.canonical(), other.canonical());
            assert_eq!(first.sha256(), other.sha256());
        }
    }
    let texts = [
        ("imbalance_l1*2.50 - -k", "k + 2.5 * imbalance_l1"),
        ("b - 1 * (c + 2) / a", ""),
    ];
    assert_eq!(
        Expression::parse(texts[0].0, &["k"]).unwrap().canonical(),
        texts[0].1
    );
    // A coefficient of 1 is kept: it takes a unit.
    assert_eq!(
        Expression::parse("1 * imbalance_l1 + spread_ticks", &[])
            .unwrap()
            .canonical(),
        "spread_ticks + 1.0 * imbalance_l1"
    );
    assert_ne!(
        Expression::parse("k - 1", &["k"]).unwrap().sha256(),
        Expression::parse("1 - k", &["k"]).unwrap().sha256()
    );
}

#[test]
fn common_parts_are_computed_and_remembered_once() {
    let once = program("zscore(spread_ticks, 30s)", &[]);
    let twice = program(
        "zscore(spread_ticks, 30s) ^ 2 * k + zscore(spread_ticks, 30s)",
        &[("k", 2.0)],
    );
    assert_eq!(once.memory.states.len(), 1);
    assert_eq!(twice.memory.states.len(), 1);
    let shared = program(
        "std(spread_ticks, 30s) + mean(spread_ticks, 30s) + delta(spread_ticks, 30s) + lag(spread_ticks, 30s) + k * zscore(spread_ticks, 30s)",
        &[("k", 1.0)],
    );
    assert_eq!(shared.memory.states.len(), 3);
    let faded = program(
        "ema(spread_ticks, 3s) + ema(microprice_dev, 3s) + ema(spread_ticks, 4s)",
        &[],
    );
    // Two constants, three means and the sum of three.
    assert_eq!(faded.operation_count(), 2 + 3 + 3);
    assert_eq!(
        program("k * imbalance_l1 + 1", &[("k", 2.0)]).operation_count(),
        1
    );
}

#[test]
fn need_adds_up_along_the_path() {
    let expression = Expression::parse(
        "ema(mean(spread_ticks, 10s), 2s) + lag(mean(spread_ticks, 100ev), 20ev) + return_10s",
        &[],
    )
    .unwrap();
    let need = expression.need();
    let slowest = FEATURES.iter().map(|row| row.warm_up_ns).max().unwrap();
    assert!(need.warm_up_ns >= 12 * SECOND && need.warm_up_ns <= 12 * SECOND + slowest);
    assert_eq!(
        (
            need.warm_up_events,
            need.window_ns_max,
            need.window_events_max
        ),
        (120, 10 * SECOND, 100)
    );
}

#[test]
fn terms_add_up_to_the_value() {
    let expression = Expression::parse(
        "0.5 * imbalance_l1 - spread_ticks / k + 3 - mean(spread_ticks, 1ev)",
        &["k"],
    )
    .unwrap();
    let parameters = BTreeMap::from([("k".to_owned(), 4.0)]);
    let mut program = Program::compile_with_terms(&expression, &parameters).unwrap();
    let value = program.evaluate(&features(), 0);
    let terms = program.terms();
    let texts: Vec<&str> = terms.iter().map(|term| term.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "3.0",
            "0.5 * imbalance_l1",
            "-spread_ticks / k",
            "-mean(spread_ticks, 1ev)"
        ]
    );
    let values: Vec<f64> = terms.iter().map(|term| term.value).collect();
    assert_eq!(values, [3.0, 0.25, -0.5, -2.0]);
    assert_eq!(values.iter().sum::<f64>(), value);
    let single = Expression::parse("clip(k, 0, 1)", &["k"]).unwrap();
    let program = Program::compile_with_terms(&single, &parameters).unwrap();
    assert_eq!(program.terms().len(), 1);
    assert!(program.memory_bytes() <= MEMORY_BYTES_MAX);
}
