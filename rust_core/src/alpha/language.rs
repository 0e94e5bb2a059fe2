//! The words of the language: every sign and function with what it means.
//!
//! Why: parser, suggestions and the page people read have one home for the same facts.
//!
//! Invariants:
//! 1. A name appears once; [`FUNCTIONS`] is sorted by purpose, as the page shows it.
//!
//! It computes nothing. Operator's page: `docs/alpha-language.md`, whose table is made from here.

use super::node::{Operator, Rolling};

/// A sign between operands, for the page.
#[derive(Debug, Clone, Copy)]
pub struct SignRow {
    /// As it is written.
    pub form: &'static str,
    /// What it gives.
    pub meaning: &'static str,
    /// Unit of the result and what is asked of the operands.
    pub unit: &'static str,
}

macro_rules! signs {
    ($( $form:literal, $meaning:literal, $unit:literal; )*) => {
        /// Signs, loosest binding first.
        pub const SIGNS: &[SignRow] = &[ $( SignRow { form: $form, meaning: $meaning, unit: $unit } ),* ];
    };
}

signs! {
    "a or b", "true when one of two conditions is; also `a || b`", "condition";
    "a and b", "true when both conditions are; also `a && b`", "condition";
    "not a", "the opposite of a condition; also `!a`", "condition";
    "a < b, a <= b, a > b, a >= b, a == b, a != b", "comparison of two numbers, exact", "condition; both sides of one unit";
    "a + b, a - b", "sum and difference", "the unit of both sides, which must be one";
    "a * b", "product", "product of the units";
    "a / b", "quotient; NaN when b is 0", "quotient of the units";
    "-a", "the opposite number", "that of a";
    "a ^ b", "power, from the right: `a ^ b ^ c` is `a ^ (b ^ c)`, `-a ^ b` is `-(a ^ b)`", "as pow";
}

/// A function of the language.
#[derive(Debug, Clone, Copy)]
pub struct FunctionRow {
    /// Its name.
    pub name: &'static str,
    /// As it is written.
    pub form: &'static str,
    /// Over values of now: operator, fewest and most arguments.
    pub plain: Option<(Operator, usize, usize)>,
    /// Over a window: operator and number of arguments before the window.
    pub rolling: Option<(Rolling, usize)>,
    /// What it gives.
    pub meaning: &'static str,
    /// Unit of the result and what is asked of the arguments.
    pub unit: &'static str,
}

macro_rules! functions {
    ($( $name:literal $form:literal $plain:expr, $rolling:expr, $meaning:literal, $unit:literal; )*) => {
        /// Every function.
        pub const FUNCTIONS: &[FunctionRow] = &[ $( FunctionRow {
            name: $name, form: $form, plain: $plain, rolling: $rolling, meaning: $meaning, unit: $unit,
        } ),* ];
    };
}

/// Most arguments of `min` and `max`.
const MANY: usize = 16;

functions! {
    "abs" "abs(x)" Some((Operator::Abs, 1, 1)), None,
        "absolute value", "that of x";
    "sign" "sign(x)" Some((Operator::Sign, 1, 1)), None,
        "-1, 0 or 1", "ratio";
    "sqrt" "sqrt(x)" Some((Operator::Sqrt, 1, 1)), None,
        "square root; NaN below 0", "root of the unit";
    "exp" "exp(x)" Some((Operator::Exp, 1, 1)), None,
        "e to the x", "ratio; x must be a ratio";
    "log" "log(x)" Some((Operator::Log, 1, 1)), None,
        "natural logarithm; NaN at and below 0", "ratio; x must be a ratio";
    "tanh" "tanh(x)" Some((Operator::Tanh, 1, 1)), None,
        "hyperbolic tangent, between -1 and 1", "ratio; x must be a ratio";
    "pow" "pow(x, y)" Some((Operator::Power, 2, 2)), None,
        "x to the y, as `x ^ y`; x * x for y = 2", "power of the unit when y is a literal multiple of 0.5, else x must be a ratio; y must be one";
    "clip" "clip(x, low, high)" Some((Operator::Clip, 3, 3)), None,
        "x, but at least low and at most high; NaN when low is above high", "that of all three, which must be one";
    "where" "where(c, a, b)" Some((Operator::Where, 3, 3)), None,
        "a when the condition holds, else b; NaN when the condition is NaN; the side not taken may be NaN", "that of a and b, which must be one";
    "min" "min(a, b, ...) or min(x, w)" Some((Operator::Minimum, 2, MANY)), Some((Rolling::Lowest, 1)),
        "smallest of up to 16 values of now, or the smallest value in force within the window", "that of all, which must be one";
    "max" "max(a, b, ...) or max(x, w)" Some((Operator::Maximum, 2, MANY)), Some((Rolling::Highest, 1)),
        "largest of up to 16 values of now, or the largest value in force within the window", "that of all, which must be one";
    "lag" "lag(x, w)" None, Some((Rolling::Lag, 1)),
        "the value that was in force w ago", "that of x";
    "delta" "delta(x, w)" None, Some((Rolling::Delta, 1)),
        "x - lag(x, w)", "that of x";
    "ema" "ema(x, w)" None, Some((Rolling::Ema, 1)),
        "exponential mean with time constant w", "that of x";
    "decay" "decay(x, w)" None, Some((Rolling::Decay, 1)),
        "sum over the records, each faded by exp(-age / w)", "that of x";
    "mean" "mean(x, w)" None, Some((Rolling::Mean, 1)),
        "mean over the window", "that of x";
    "std" "std(x, w)" None, Some((Rolling::Std, 1)),
        "standard deviation over the window, divided by its length and not by one less", "that of x";
    "zscore" "zscore(x, w)" None, Some((Rolling::Zscore, 1)),
        "(x - mean) / std of the window; NaN when std is 0", "ratio";
    "corr" "corr(x, y, w)" None, Some((Rolling::Corr, 2)),
        "correlation over the window, of what was in force together; NaN when x or y stood still", "ratio";
}

/// Words that are no names.
pub(super) const RESERVED: [&str; 3] = ["and", "or", "not"];

/// The function called `name`.
pub(super) fn function(name: &str) -> Option<&'static FunctionRow> {
    FUNCTIONS.iter().find(|row| row.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_function_can_be_called() {
        for (place, row) in FUNCTIONS.iter().enumerate() {
            assert!(row.plain.is_some() || row.rolling.is_some(), "{}", row.name);
            assert!(row.form.starts_with(row.name), "{}", row.name);
            assert!(
                FUNCTIONS[..place]
                    .iter()
                    .all(|other| other.name != row.name)
            );
            assert!(!RESERVED.contains(&row.name));
        }
    }
}
