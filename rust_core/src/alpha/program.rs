//! A compiled expression, record by record.
//!
//! Why: this is what the engine asks at every market record; it must be fast and cannot fail.
//!
//! Invariants:
//! 1. Evaluation allocates nothing and reads only the features of now and its own memory.
//! 2. The result is finite or NaN; an operation that cannot be computed is NaN, and so is what
//!    follows from it.
//! 3. After [`Program::reset`] it is as new.
//!
//! It parses nothing. Operator's page: `docs/alpha-language.md`.

use std::collections::BTreeMap;

use super::compile::{Code, Compiler, Step, operation_count};
use super::error::ExpressionError;
use super::expression::Expression;
use super::node::Operator;
use super::window::{Moment, State, kept};
use super::{OPERATION_COUNT_MAX, STATE_BYTES_MAX, TIME_NS_MAX};
use crate::features::FEATURE_COUNT;
use crate::math;

/// Registers of a program: two a node, and one a constant.
const REGISTER_COUNT_MAX: usize = 4 * OPERATION_COUNT_MAX + FEATURE_COUNT;

/// Most memory any program needs, in bytes.
pub const MEMORY_BYTES_MAX: usize = STATE_BYTES_MAX
    + OPERATION_COUNT_MAX * (size_of::<(u16, Step)>() + size_of::<(f64, u16)>())
    + REGISTER_COUNT_MAX * (2 * size_of::<f64>() + size_of::<(u16, f64)>());

/// A compiled expression with its parameters' values and its memory.
#[derive(Debug, Clone)]
pub struct Program {
    pub(super) code: Code,
    pub(super) memory: Memory,
    /// Canonical text of each root behind the first.
    term_texts: Vec<String>,
}

/// What changes from record to record.
#[derive(Debug, Clone)]
pub(super) struct Memory {
    pub(super) registers: Box<[f64]>,
    pub(super) states: Box<[State]>,
    /// Time of the last record, if there was one since the start.
    pub(super) last_ns: Option<i64>,
}

/// One of the terms that a signal adds up.
#[derive(Debug, Clone, PartialEq)]
pub struct Term {
    /// Its canonical text, sign included.
    pub text: String,
    /// Its value at the last record, finite or NaN.
    pub value: f64,
}

impl Program {
    /// Compiles `expression` with the given parameter values.
    ///
    /// # Errors
    /// [`ExpressionError`] when a parameter has no finite value or the program is too large.
    pub fn compile(
        expression: &Expression,
        parameters: &BTreeMap<String, f64>,
    ) -> Result<Self, ExpressionError> {
        let values = values_of(expression, parameters)?;
        let mut compiler = Compiler::new();
        let root = compiler.add(expression.root(), &values, OPERATION_COUNT_MAX)?;
        let (code, states) = compiler.finish(vec![root]);
        Ok(Self::new(code, states, Vec::new()))
    }

    /// The same, which also gives the value of each term by [`Program::terms`]; for explanations.
    ///
    /// # Errors
    /// As [`Program::compile`].
    pub fn compile_with_terms(
        expression: &Expression,
        parameters: &BTreeMap<String, f64>,
    ) -> Result<Self, ExpressionError> {
        let values = values_of(expression, parameters)?;
        let mut compiler = Compiler::new();
        let mut roots = vec![compiler.add(expression.root(), &values, OPERATION_COUNT_MAX)?];
        let mut texts = Vec::new();
        for term in expression.root().terms() {
            roots.push(compiler.add(&term, &values, OPERATION_COUNT_MAX)?);
            texts.push(term.text(expression.parameter_names()));
        }
        let (code, states) = compiler.finish(roots);
        Ok(Self::new(code, states, texts))
    }

    /// Compiles expressions that share their common parts, with a result each, for
    /// [`Program::evaluate_columns`]; each one is within the bounds of a program of its own.
    ///
    /// # Errors
    /// The place of the expression that failed, and as [`Program::compile`].
    pub fn compile_many<'a>(
        expressions: impl IntoIterator<Item = (&'a Expression, &'a BTreeMap<String, f64>)>,
    ) -> Result<Self, (usize, ExpressionError)> {
        let mut compiler = Compiler::new();
        let mut roots = Vec::new();
        for (place, (expression, parameters)) in expressions.into_iter().enumerate() {
            let root = values_of(expression, parameters)
                .and_then(|values| compiler.add(expression.root(), &values, OPERATION_COUNT_MAX));
            roots.push(root.map_err(|error| (place, error))?);
        }
        let (code, states) = compiler.finish(roots);
        Ok(Self::new(code, states, Vec::new()))
    }

    fn new(code: Code, states: Vec<State>, term_texts: Vec<String>) -> Self {
        let mut registers = vec![f64::NAN; code.register_count].into_boxed_slice();
        for (register, value) in &code.constants {
            registers[usize::from(*register)] = *value;
        }
        Self {
            code,
            memory: Memory {
                registers,
                states: states.into_boxed_slice(),
                last_ns: None,
            },
            term_texts,
        }
    }

    /// Number of operations a record: steps, a weighted sum counting once a weight.
    #[must_use]
    pub fn operation_count(&self) -> usize {
        operation_count(&self.code.steps)
    }

    /// Memory of steps, registers and windows, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let code = &self.code;
        let states = &self.memory.states;
        size_of_val(&*code.steps)
            + size_of_val(&*code.weights)
            + size_of_val(&*code.features)
            + size_of_val(&*code.constants)
            + size_of_val(&*code.roots)
            + size_of_val(&*self.memory.registers)
            + size_of_val(&**states)
            + states.iter().map(State::heap_bytes).sum::<usize>()
    }

    /// Forgets everything that was seen.
    pub fn reset(&mut self) {
        self.memory.last_ns = None;
        self.memory.states.iter_mut().for_each(State::reset);
    }

    /// The value for these features at this time: finite, or NaN. Time never goes back.
    pub fn evaluate(&mut self, features: &[f64; FEATURE_COUNT], now_ns: i64) -> f64 {
        self.run(features, now_ns);
        finite(self.memory.registers[usize::from(self.code.roots[0])])
    }

    /// Terms with their values at the last record; none without
    /// [`Program::compile_with_terms`].
    #[must_use]
    pub fn terms(&self) -> Vec<Term> {
        self.term_texts
            .iter()
            .zip(self.code.roots.iter().skip(1))
            .map(|(text, register)| Term {
                text: text.clone(),
                value: finite(self.memory.registers[usize::from(*register)]),
            })
            .collect()
    }

    fn run(&mut self, features: &[f64; FEATURE_COUNT], now_ns: i64) {
        let Self { code, memory, .. } = self;
        let now_ns = now_ns.clamp(-TIME_NS_MAX, TIME_NS_MAX);
        let now_ns = memory.last_ns.map_or(now_ns, |last| now_ns.max(last));
        let elapsed_ns = memory.last_ns.map_or(0, |last| now_ns.saturating_sub(last)) as f64;
        memory.last_ns = Some(now_ns);
        let registers = &mut *memory.registers;
        for (register, id) in &code.features {
            registers[usize::from(*register)] = features[usize::from(*id)];
        }
        for (target, step) in &code.steps {
            let target = usize::from(*target);
            let at = |register: u16| registers[usize::from(register)];
            let value = match *step {
                Step::Linear {
                    start,
                    first,
                    count,
                } => {
                    let weights = &code.weights[first as usize..(first + count) as usize];
                    weights.iter().fold(start, |sum, (weight, register)| {
                        sum + weight * at(*register)
                    })
                }
                Step::Multiply(a, b) => at(a) * at(b),
                Step::Unary(operator, x) => unary(operator, at(x)),
                Step::Binary(operator, a, b) => binary(operator, at(a), at(b)),
                Step::Clip([x, low, high]) => clip(at(x), at(low), at(high)),
                Step::Where([condition, a, b]) => choose(at(condition), at(a), at(b)),
                Step::Zscore([x, std, mean]) => zscore(at(x), at(std), at(mean)),
                Step::Kept { constant_ns } => kept(elapsed_ns, constant_ns),
                Step::Remember {
                    state,
                    x,
                    y,
                    kept: left,
                } => {
                    let moment = Moment {
                        now_ns,
                        kept: at(left),
                    };
                    let (x, y) = (finite(at(x)), finite(at(y)));
                    let (value, second) = memory.states[usize::from(state)].next(x, y, moment);
                    registers[target + 1] = second;
                    value
                }
            };
            registers[target] = value;
        }
    }
}

fn values_of(
    expression: &Expression,
    parameters: &BTreeMap<String, f64>,
) -> Result<Vec<f64>, ExpressionError> {
    let fail = |message| Err(ExpressionError::invalid(message, 0));
    let mut values = Vec::with_capacity(expression.parameter_names().len());
    for name in expression.parameter_names() {
        match parameters.get(name) {
            Some(value) if value.is_finite() => values.push(*value),
            Some(value) => {
                return fail(format!("parameter {name} was {value}, must be finite"));
            }
            None => return fail(format!("parameter {name} has no value")),
        }
    }
    Ok(values)
}

/// The value, or NaN for one that is not finite.
///
/// Sums, products, `abs` and `sqrt` pass an infinity on; whatever could turn one into a number
/// again takes its operands through here, so the outcome is as if every operation did.
#[inline]
pub(super) fn finite(value: f64) -> f64 {
    if value.is_finite() { value } else { f64::NAN }
}

/// An operator of one operand.
#[inline]
pub(super) fn unary(operator: Operator, x: f64) -> f64 {
    match operator {
        Operator::Abs => x.abs(),
        Operator::Sign => sign(x),
        Operator::Sqrt => x.sqrt(),
        Operator::Exp => math::exp(finite(x)),
        Operator::Log => math::log(finite(x)),
        Operator::Tanh => math::tanh(finite(x)),
        Operator::Not => 1.0 - x,
        _ => f64::NAN,
    }
}

/// An operator of two operands.
#[inline]
pub(super) fn binary(operator: Operator, a: f64, b: f64) -> f64 {
    match operator {
        Operator::Divide => divide(a, b),
        Operator::Power => power(a, b),
        Operator::Minimum => minimum(a, b),
        Operator::Maximum => maximum(a, b),
        Operator::Less => compared(a, b, |a, b| a < b),
        Operator::LessOrEqual => compared(a, b, |a, b| a <= b),
        Operator::Equal => compared(a, b, |a, b| a == b),
        Operator::NotEqual => compared(a, b, |a, b| a != b),
        // Conditions are 0, 1 or NaN, and NaN wins.
        Operator::And => a * b,
        Operator::Or => a + b - a * b,
        _ => f64::NAN,
    }
}

#[inline]
pub(super) fn sign(x: f64) -> f64 {
    let x = finite(x);
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else {
        x * 0.0
    }
}

#[inline]
pub(super) fn divide(a: f64, b: f64) -> f64 {
    let b = finite(b);
    if b == 0.0 { f64::NAN } else { a / b }
}

#[inline]
pub(super) fn power(x: f64, y: f64) -> f64 {
    let (x, y) = (finite(x), finite(y));
    if x.is_nan() || y.is_nan() {
        f64::NAN
    } else if y == 2.0 {
        x * x
    } else {
        math::pow(x, y)
    }
}

#[inline]
pub(super) fn minimum(a: f64, b: f64) -> f64 {
    let (a, b) = (finite(a), finite(b));
    if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if b < a {
        b
    } else {
        a
    }
}

#[inline]
pub(super) fn maximum(a: f64, b: f64) -> f64 {
    let (a, b) = (finite(a), finite(b));
    if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if b > a {
        b
    } else {
        a
    }
}

#[inline]
pub(super) fn compared(a: f64, b: f64, holds: impl Fn(f64, f64) -> bool) -> f64 {
    let (a, b) = (finite(a), finite(b));
    if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if holds(a, b) {
        1.0
    } else {
        0.0
    }
}

#[inline]
pub(super) fn clip(x: f64, low: f64, high: f64) -> f64 {
    let (x, low, high) = (finite(x), finite(low), finite(high));
    if x.is_nan() || low.is_nan() || high.is_nan() || low > high {
        f64::NAN
    } else if x < low {
        low
    } else if x > high {
        high
    } else {
        x
    }
}

#[inline]
pub(super) fn choose(condition: f64, a: f64, b: f64) -> f64 {
    if condition.is_nan() {
        f64::NAN
    } else if condition != 0.0 {
        a
    } else {
        b
    }
}

#[inline]
pub(super) fn zscore(x: f64, std: f64, mean: f64) -> f64 {
    divide(finite(x) - mean, std)
}
