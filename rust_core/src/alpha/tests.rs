#![allow(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::features::{FEATURE_COUNT, FEATURES, IMBALANCE_L1, RETURN_1S};
use crate::reason::ReasonCode;

fn value(text: &str, parameters: &[(&str, f64)], features: &[f64; FEATURE_COUNT]) -> f64 {
    let parameters: BTreeMap<String, f64> = parameters
        .iter()
        .map(|(k, v)| ((*k).to_owned(), *v))
        .collect();
    let names: Vec<&str> = parameters.keys().map(String::as_str).collect();
    let expression = Expression::parse(text, &names).unwrap();
    Program::compile(&expression, &parameters)
        .unwrap()
        .evaluate(features)
}

fn features() -> [f64; FEATURE_COUNT] {
    let mut values = [0.0; FEATURE_COUNT];
    values[IMBALANCE_L1] = 0.5;
    values[RETURN_1S] = f64::NAN;
    values
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
        "1e308 * 10",
        "abs(return_1s)",
    ];
    for text in texts {
        assert!(value(text, &[], &features()).is_nan(), "{text}");
    }
}

#[test]
fn errors_name_position_code_and_the_nearest_word() {
    let cases: [(&str, ReasonCode, usize, Option<&str>); 12] = [
        (
            "2 * imbalance_11",
            ReasonCode::UnknownFeature,
            4,
            Some("imbalance_l1"),
        ),
        ("ofi_l6", ReasonCode::UnknownFeature, 0, Some("ofi_l1")),
        ("k2 + 1", ReasonCode::UnknownFeature, 0, Some("k1")),
        ("zzzzzz", ReasonCode::UnknownFeature, 0, None),
        (
            "clp(1, 2, 3)",
            ReasonCode::ExpressionInvalid,
            0,
            Some("clip"),
        ),
        ("clip(1, 2)", ReasonCode::ExpressionInvalid, 0, None),
        ("1 +", ReasonCode::ExpressionInvalid, 3, None),
        ("(1 + 2", ReasonCode::ExpressionInvalid, 6, None),
        ("1 2", ReasonCode::ExpressionInvalid, 2, None),
        ("1 + $", ReasonCode::ExpressionInvalid, 4, None),
        ("1.2.3", ReasonCode::ExpressionInvalid, 0, None),
        ("", ReasonCode::ExpressionInvalid, 0, None),
    ];
    for (text, code, position, suggestion) in cases {
        let error = Expression::parse(text, &["k1"]).unwrap_err();
        assert_eq!(
            (error.code, error.position, error.suggestion.as_deref()),
            (code, position, suggestion),
            "{text}: {error}"
        );
    }
    assert!(Expression::parse("1", &["imbalance_l1"]).is_err());
    assert!(Expression::parse("1", &["two words"]).is_err());
}

#[test]
fn bounds_are_refused_and_never_overflow_the_stack() {
    let deep = "(".repeat(2_000) + "1" + &")".repeat(2_000);
    assert_eq!(
        Expression::parse(&deep, &[]).unwrap_err().code,
        ReasonCode::ExpressionInvalid
    );
    assert!(Expression::parse(&"-".repeat(4_000), &[]).is_err());
    assert!(Expression::parse(&"1+".repeat(3_000), &[]).is_err());
    let wide = vec!["1"; 200].join("+");
    let expression = Expression::parse(&wide, &[]).unwrap();
    assert!(Program::compile(&expression, &BTreeMap::new()).is_err());
    let expression = Expression::parse("k", &["k"]).unwrap();
    assert!(Program::compile(&expression, &BTreeMap::new()).is_err());
    assert!(Program::compile(&expression, &BTreeMap::from([("k".to_owned(), f64::NAN)])).is_err());
}

#[test]
fn spellings_share_one_canonical_text_and_hash() {
    let a = Expression::parse("imbalance_l1*2.50 - -k", &["k"]).unwrap();
    let b = Expression::parse("( imbalance_l1 * 2.5 ) - (-k)", &["k", "unused"]).unwrap();
    assert_eq!(a.canonical(), "((imbalance_l1 * 2.5) - (-k))");
    assert_eq!(a.sha256(), b.sha256());
    assert_eq!(a.features(), ["imbalance_l1"]);
}

fn expressions() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        (-100.0..100.0_f64).prop_map(|x| format!("{:?}", x.abs())),
        (0..FEATURE_COUNT).prop_map(|id| FEATURES[id].name.to_owned()),
        Just("k".to_owned()),
    ];
    leaf.prop_recursive(5, 40, 3, |inner| {
        prop_oneof![
            (inner.clone(), "[-+*/]", inner.clone())
                .prop_map(|(a, sign, b)| format!("({a} {sign} {b})")),
            inner.clone().prop_map(|a| format!("-{a}")),
            inner.clone().prop_map(|a| format!("abs({a})")),
            inner.clone().prop_map(|a| format!("sign({a})")),
            (inner.clone(), inner.clone(), inner)
                .prop_map(|(a, b, c)| format!("clip({a}, {b}, {c})")),
        ]
    })
}

/// The tree evaluated the obvious way, as an oracle.
fn oracle(node: &Node, k: f64, features: &[f64; FEATURE_COUNT]) -> f64 {
    match node {
        Node::Number(x) => *x,
        Node::Feature(id) => features[usize::from(*id)],
        Node::Parameter(_) => k,
        Node::Apply(operator, operands) => {
            let x: Vec<f64> = operands
                .iter()
                .map(|operand| oracle(operand, k, features))
                .collect();
            match operator {
                Operator::Negate => -x[0],
                Operator::Add => x[0] + x[1],
                Operator::Subtract => x[0] - x[1],
                Operator::Multiply => x[0] * x[1],
                Operator::Divide => {
                    if x[1] == 0.0 {
                        f64::NAN
                    } else {
                        x[0] / x[1]
                    }
                }
                Operator::Abs => x[0].abs(),
                Operator::Sign => {
                    if x[0].is_nan() {
                        f64::NAN
                    } else if x[0] == 0.0 {
                        0.0
                    } else {
                        x[0].signum()
                    }
                }
                Operator::Clip => {
                    if x[1] <= x[2] {
                        if x[0].is_nan() {
                            f64::NAN
                        } else {
                            x[0].max(x[1]).min(x[2])
                        }
                    } else {
                        f64::NAN
                    }
                }
            }
        }
    }
}

proptest! {
    /// Invariants 1 to 4: bounded, finite or NaN, equal to the tree, canonical text is a fixed point.
    #[test]
    fn programs_agree_with_their_tree(text in expressions(), seeds in prop::collection::vec(-3.0..3.0_f64, FEATURE_COUNT), k in -2.0..2.0_f64) {
        let expression = Expression::parse(&text, &["k"]).unwrap();
        let again = Expression::parse(&expression.canonical(), &["k"]).unwrap();
        prop_assert_eq!(again.canonical(), expression.canonical());
        let Ok(program) = Program::compile(&expression, &BTreeMap::from([("k".to_owned(), k)])) else { return Ok(()) };
        prop_assert!(program.memory_bytes() <= MEMORY_BYTES_MAX);
        let seeds: [f64; FEATURE_COUNT] = std::array::from_fn(|place| seeds[place]);
        let actual = program.evaluate(&seeds);
        let expected = oracle(&expression.root, k, &seeds);
        let expected = if expected.is_finite() { expected } else { f64::NAN };
        prop_assert!(actual == expected || (actual.is_nan() && expected.is_nan()), "{} is not {}", actual, expected);
    }

    /// Invariant 1: any text gives an expression or an error inside the text.
    #[test]
    fn any_text_parses_or_names_a_position(text in "[-+*/()., a-z0-9_é$]{0,60}") {
        if let Err(error) = Expression::parse(&text, &["k"]) {
            prop_assert!(error.position <= text.len());
        }
    }
}
