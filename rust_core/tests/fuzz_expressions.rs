//! Fuzzing of the parser: random bytes, random words, and valid texts with damage.
//!
//! `HFT_FUZZ_CASES` sets the number of cases. Nothing panics, every error lies in the text, and
//! time and memory stay bounded.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests stop at the first surprise"
)]

#[path = "support/expressions.rs"]
mod expressions;
mod support;

use std::time::{Duration, Instant};

use _core::alpha::{
    Expression, FUNCTIONS, MEMORY_BYTES_MAX, OPERATION_COUNT_MAX, Program, TEXT_BYTES_MAX, excerpt,
};
use _core::features::{FEATURE_COUNT, FEATURES};
use expressions::{PARAMETERS, cases, expression, parameters};
use support::Draw;

/// Longer than any one parse may take, on a machine with other work.
const PARSE_MAX: Duration = Duration::from_secs(2);

fn letters(draw: &mut Draw) -> String {
    let alphabet: Vec<char> = "+-*/^()<>=!&|,. \n\t0123456789eEkmsvh_axz\u{e9}\u{1d53d}\u{0}$'\""
        .chars()
        .collect();
    let length = draw.below(80);
    (0..length)
        .map(|_| alphabet[draw.below(alphabet.len() as u64) as usize])
        .collect()
}

fn raw_bytes(draw: &mut Draw) -> String {
    let length = draw.below(200);
    let bytes: Vec<u8> = (0..length).map(|_| draw.below(256) as u8).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Words of the language in any order.
fn words(draw: &mut Draw) -> String {
    let signs = [
        "+", "-", "*", "/", "^", "(", ")", ",", "<", "<=", "==", "!=", "and", "or", "not", "!",
        "k", "30s", "2ev", "-1s", "1e999", "0", "1", "0.5", "-", "(", ")", ")", ",",
    ];
    let count = draw.below(60);
    let mut text = String::new();
    for _ in 0..count {
        match draw.below(4) {
            0 => text.push_str(FEATURES[draw.below(FEATURES.len() as u64) as usize].name),
            1 => {
                text.push_str(FUNCTIONS[draw.below(FUNCTIONS.len() as u64) as usize].name);
                text.push('(');
            }
            _ => text.push_str(expressions::pick(draw, &signs)),
        }
        if draw.below(3) > 0 {
            text.push(' ');
        }
    }
    text
}

/// A valid text with letters removed, doubled, replaced, or pieces moved.
fn damaged(draw: &mut Draw, seed: u64) -> String {
    let mut text: Vec<char> = expression(seed).chars().collect();
    for _ in 0..=draw.below(4) {
        if text.is_empty() {
            break;
        }
        let place = draw.below(text.len() as u64) as usize;
        match draw.below(5) {
            0 => drop(text.remove(place)),
            1 => text.insert(place, text[place]),
            2 => {
                let other = text[draw.below(text.len() as u64) as usize];
                text[place] = other;
            }
            3 => text.truncate(place),
            _ => {
                let piece: Vec<char> = text[place..].iter().copied().take(30).collect();
                let target = draw.below(text.len() as u64) as usize;
                text.splice(target..target, piece);
            }
        }
    }
    text.into_iter().collect()
}

/// One pattern again and again, up to and beyond the longest text.
fn repeated(draw: &mut Draw) -> String {
    let patterns = [
        "(",
        "-",
        "!",
        "not ",
        "abs(",
        "k+",
        "k*",
        "k/",
        "k^",
        "k<",
        "k and ",
        "min(k,",
        "1,",
        "k ",
        "ema(k,1s)+",
        "where(k<1,",
        "spread_ticks*",
        "((k+",
        "corr(k,k,9ev)*",
        "-(k-",
        "1e",
    ];
    let pattern = expressions::pick(draw, &patterns);
    let times = draw.below(2 * TEXT_BYTES_MAX as u64 / pattern.len() as u64) as usize;
    pattern.repeat(times) + "k"
}

#[test]
fn any_text_gives_a_bounded_program_or_an_error_inside_the_text() {
    let mut valid = 0_u64;
    for seed in 0..cases(4_000) {
        let mut draw = Draw(seed.wrapping_mul(0x2545_F491_4F6C_DD1D));
        let text = match draw.below(20) {
            0..=3 => letters(&mut draw),
            4 => raw_bytes(&mut draw),
            5..=9 => words(&mut draw),
            10 => repeated(&mut draw),
            _ => damaged(&mut draw, seed),
        };
        let start = Instant::now();
        match Expression::parse(&text, &PARAMETERS) {
            Err(error) => {
                assert!(
                    error.position <= text.len(),
                    "seed {seed}: {text:?}: {error}"
                );
                assert!(
                    text.is_char_boundary(error.position),
                    "seed {seed}: {text:?}: {error}"
                );
                assert!(error.message.len() < 400, "seed {seed}: {error}");
                assert!(!excerpt(&text, error.position).is_empty());
            }
            Ok(parsed) => {
                valid += 1;
                let canonical = parsed.canonical();
                // A canonical text may be longer than what may be written.
                if canonical.len() <= TEXT_BYTES_MAX {
                    let again = Expression::parse(&canonical, &PARAMETERS)
                        .unwrap_or_else(|error| panic!("seed {seed}: {canonical:?}: {error}"));
                    assert_eq!(again.canonical(), canonical, "seed {seed}: {text:?}");
                }
                if let Ok(mut program) = Program::compile(&parsed, &parameters()) {
                    assert!(program.operation_count() <= OPERATION_COUNT_MAX);
                    assert!(program.memory_bytes() <= MEMORY_BYTES_MAX);
                    for now in 0..20 {
                        let value = program.evaluate(&[1.5; FEATURE_COUNT], now * 7_000_000_000);
                        assert!(value.is_finite() || value.is_nan());
                    }
                }
            }
        }
        assert!(
            start.elapsed() < PARSE_MAX,
            "seed {seed}: {:?}",
            &text[..text.len().min(80)]
        );
    }
    // Damage leaves enough valid texts to make the second half of the test mean something.
    assert!(valid > cases(4_000) / 50, "{valid}");
}
