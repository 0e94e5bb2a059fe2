//! Random well-typed expressions over every operator, and random market streams to feed them.
#![allow(dead_code, reason = "every test binary uses another part")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests stop at the first surprise"
)]

use std::collections::BTreeMap;

use _core::alpha::{Columns, Expression, Program};
use _core::features::{FEATURE_COUNT, FEATURES};

use crate::support::Draw;

pub const SECOND: i64 = 1_000_000_000;
/// Names that random expressions may use as parameters.
pub const PARAMETERS: [&str; 2] = ["k", "gain"];

/// How many random cases a test runs: `HFT_FUZZ_CASES`, or `default` without it.
pub fn cases(default: u64) -> u64 {
    let asked = std::env::var("HFT_FUZZ_CASES").ok();
    asked.map_or(default, |text| text.parse().unwrap())
}

pub fn pick<'a>(draw: &mut Draw, from: &[&'a str]) -> &'a str {
    from[draw.below(from.len() as u64) as usize]
}

fn literal(draw: &mut Draw) -> String {
    match draw.below(6) {
        0 => draw.below(4).to_string(),
        1 => format!("{:?}", draw.between(-400, 400) as f64 / 64.0),
        2 => format!("{:?}", draw.between(1, 1_000) as f64 * 1e-7),
        3 => format!("-{}", draw.below(9)),
        _ => format!("{:?}", draw.between(1, 3_000) as f64 / 1_000.0),
    }
}

pub fn window(draw: &mut Draw) -> String {
    let times = ["1ms", "20ms", "250ms", "0.5s", "1s", "3s", "10s", "1m"];
    let events = ["1ev", "2ev", "3ev", "7ev", "50ev", "200ev"];
    if draw.below(3) == 0 {
        pick(draw, &events).to_owned()
    } else {
        pick(draw, &times).to_owned()
    }
}

fn feature(draw: &mut Draw, unit: &str) -> String {
    let known: Vec<&str> = FEATURES
        .iter()
        .filter(|row| row.unit == unit)
        .map(|row| row.name)
        .collect();
    pick(draw, &known).to_owned()
}

/// A number in `unit` (`ticks` or `ratio`), nested at most `depth` deep.
pub fn number(draw: &mut Draw, depth: u32, unit: &str) -> String {
    if depth == 0 {
        return match draw.below(6) {
            0 => literal(draw),
            1 => pick(draw, &PARAMETERS).to_owned(),
            2 => {
                let any = FEATURES[draw.below(FEATURES.len() as u64) as usize].name;
                format!("{} * {any}", literal(draw))
            }
            _ => feature(draw, unit),
        };
    }
    let deep = depth - 1;
    let same = |draw: &mut Draw| number(draw, deep, unit);
    match draw.below(34) {
        0 => format!("({} + {})", same(draw), same(draw)),
        1 => format!("({} - {})", same(draw), same(draw)),
        2 => format!("({} - {} + {})", same(draw), same(draw), same(draw)),
        3 => format!("{} * ({})", literal(draw), same(draw)),
        4 => format!("({}) * ({})", number(draw, deep, "ratio"), same(draw)),
        5 => format!("({}) / ({})", same(draw), number(draw, deep, "ratio")),
        6 => format!("-({})", same(draw)),
        7 => format!("abs({})", same(draw)),
        8 => format!("clip({}, {}, {})", same(draw), same(draw), same(draw)),
        9 => format!("min({}, {})", same(draw), same(draw)),
        10 => format!("max({}, {}, {})", same(draw), same(draw), same(draw)),
        11 | 12 => format!(
            "where({}, {}, {})",
            condition(draw, deep),
            same(draw),
            same(draw)
        ),
        13 => format!(
            "sqrt(abs({} * {}))",
            feature(draw, unit),
            feature(draw, unit)
        ),
        14 => {
            let name = ["lag", "delta", "ema", "mean", "std", "min", "max", "decay"];
            format!(
                "{}({}, {})",
                pick(draw, &name),
                feature(draw, unit),
                window(draw)
            )
        }
        15..=22 => {
            let name = ["lag", "delta", "ema", "mean", "std", "min", "max", "decay"];
            format!("{}({}, {})", pick(draw, &name), same(draw), window(draw))
        }
        23 if unit == "ratio" => format!("sign({})", number(draw, deep, "ticks")),
        24 if unit == "ratio" => format!("exp({})", same(draw)),
        25 if unit == "ratio" => format!("log({})", same(draw)),
        26 if unit == "ratio" => format!("tanh({})", same(draw)),
        27 if unit == "ratio" => {
            let exponent = pick(draw, &["2", "3", "0.5", "-1", "k", "1.7"]);
            format!("pow({}, {exponent})", same(draw))
        }
        28 if unit == "ratio" => format!("({}) ^ 2", same(draw)),
        29 if unit == "ratio" => {
            format!("zscore({}, {})", number(draw, deep, "ticks"), window(draw))
        }
        30 if unit == "ratio" => format!(
            "corr({}, {}, {})",
            number(draw, deep, "ticks"),
            same(draw),
            window(draw)
        ),
        _ => number(draw, 0, unit),
    }
}

pub fn condition(draw: &mut Draw, depth: u32) -> String {
    let deep = depth.saturating_sub(1);
    if depth > 0 {
        match draw.below(6) {
            0 => return format!("({} and {})", condition(draw, deep), condition(draw, deep)),
            1 => return format!("({} || {})", condition(draw, deep), condition(draw, deep)),
            2 => return format!("not {}", condition(draw, deep)),
            _ => {}
        }
    }
    let unit = pick(draw, &["ticks", "ratio"]);
    let sign = pick(draw, &["<", "<=", ">", ">=", "==", "!="]);
    format!(
        "({} {sign} {})",
        number(draw, deep, unit),
        number(draw, deep, unit)
    )
}

/// A whole random expression.
pub fn expression(seed: u64) -> String {
    let mut draw = Draw(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let depth = 1 + draw.below(4) as u32;
    let unit = pick(&mut draw, &["ticks", "ratio"]);
    number(&mut draw, depth, unit)
}

pub fn parameters() -> BTreeMap<String, f64> {
    BTreeMap::from([("k".to_owned(), 1.5), ("gain".to_owned(), -0.25)])
}

/// Compiles a text of this module; `None` when it is larger than a program may be.
pub fn compiled(text: &str) -> Option<(Expression, Program)> {
    let expression = Expression::parse(text, &PARAMETERS).unwrap_or_else(|e| panic!("{text}: {e}"));
    let program = Program::compile(&expression, &parameters()).ok()?;
    Some((expression, program))
}

/// Features at many records with irregular times, NaN spells, ties, huge values and starts.
#[derive(Debug, Clone)]
pub struct Stream {
    pub values: Vec<f64>,
    pub times_ns: Vec<i64>,
    pub starts: Vec<u8>,
}

impl Stream {
    pub fn random(seed: u64, rows: usize) -> Self {
        let mut draw = Draw(seed ^ 0x5DEE_CE66_D1CE_4E5B);
        let mut stream = Self {
            values: Vec::with_capacity(rows * FEATURE_COUNT),
            times_ns: Vec::with_capacity(rows),
            starts: Vec::with_capacity(rows),
        };
        let mut now = draw.between(-SECOND, SECOND) + 1_775_000_000 * SECOND;
        let mut current = [0.0_f64; FEATURE_COUNT];
        let mut invalid_rows = 0;
        for row in 0..rows {
            now += match draw.below(40) {
                0 => 0,
                1 => 1,
                2 => draw.between(1, 90) * SECOND,
                3 => draw.between(1, 9) * 10_000_000,
                4..=10 => draw.between(1, 2_000_000),
                _ => draw.between(1_000_000, 400_000_000),
            };
            let is_start = row == 0 || draw.below(400) == 0;
            if is_start && draw.below(2) == 0 {
                now -= 1_000 * SECOND;
            }
            stream.starts.push(u8::from(is_start));
            stream.times_ns.push(now);
            for value in &mut current {
                *value = match draw.below(200) {
                    0 => f64::NAN,
                    1 => 1e300,
                    2 => -0.0,
                    3 => 1e-310,
                    4..=60 => draw.between(-8, 9) as f64 / 4.0,
                    _ if value.is_finite() && value.abs() < 1e9 => {
                        *value + draw.between(-100, 101) as f64 / 64.0
                    }
                    _ => 1.0,
                };
            }
            if invalid_rows == 0 && draw.below(100) == 0 {
                invalid_rows = draw.below(9);
            }
            if invalid_rows > 0 {
                invalid_rows -= 1;
                stream.values.extend([f64::NAN; FEATURE_COUNT]);
            } else {
                stream.values.extend(current);
            }
        }
        stream
    }

    pub fn columns(&self) -> Columns<'_> {
        Columns::new(&self.values, false, &self.times_ns, &self.starts).unwrap()
    }

    pub fn row(&self, row: usize) -> [f64; FEATURE_COUNT] {
        self.columns().row(row)
    }

    /// The same rows, feature by feature.
    pub fn by_feature(&self) -> Vec<f64> {
        let rows = self.times_ns.len();
        (0..FEATURE_COUNT * rows)
            .map(|place| self.values[place % rows * FEATURE_COUNT + place / rows])
            .collect()
    }

    /// The first `rows` rows.
    pub fn cut(&self, rows: usize) -> Self {
        Self {
            values: self.values[..rows * FEATURE_COUNT].to_vec(),
            times_ns: self.times_ns[..rows].to_vec(),
            starts: self.starts[..rows].to_vec(),
        }
    }
}

/// Values record by record, as the engine asks for them.
pub fn by_record(program: &mut Program, stream: &Stream) -> Vec<f64> {
    program.reset();
    (0..stream.times_ns.len())
        .map(|row| {
            if stream.starts[row] != 0 {
                program.reset();
            }
            program.evaluate(&stream.row(row), stream.times_ns[row])
        })
        .collect()
}

/// Values over whole columns.
pub fn by_column(program: &mut Program, stream: &Stream) -> Vec<f64> {
    let mut out = vec![0.0; stream.times_ns.len()];
    program
        .evaluate_columns(&stream.columns(), &mut out)
        .unwrap();
    out
}

pub fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}
