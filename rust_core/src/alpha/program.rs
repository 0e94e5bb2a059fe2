//! Compiler and evaluator: a postfix program over a fixed stack of f64.

use std::collections::BTreeMap;

use super::parse::{Expression, ExpressionError, Node, Operator};
use super::{OPERATION_COUNT_MAX, STACK_COUNT_MAX};
use crate::features::FEATURE_COUNT;
use crate::reason::ReasonCode;

/// One step of a program.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    Constant(f64),
    Feature(u16),
    Apply(Operator),
}

/// Most memory any program needs, in bytes.
pub const MEMORY_BYTES_MAX: usize =
    OPERATION_COUNT_MAX * size_of::<Step>() + STACK_COUNT_MAX * size_of::<f64>();

/// A compiled expression with its parameters' values.
#[derive(Debug, Clone, PartialEq)]
pub struct Program {
    steps: Box<[Step]>,
    stack_count: usize,
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
        let fail = |message| ExpressionError {
            code: ReasonCode::ExpressionInvalid,
            message,
            position: 0,
            suggestion: None,
        };
        let mut values = Vec::with_capacity(expression.parameter_names.len());
        for name in &expression.parameter_names {
            match parameters.get(name) {
                Some(value) if value.is_finite() => values.push(*value),
                Some(value) => {
                    return Err(fail(format!(
                        "parameter {name} was {value}, must be finite"
                    )));
                }
                None => return Err(fail(format!("parameter {name} has no value"))),
            }
        }
        let mut steps = Vec::new();
        emit(&expression.root, &values, &mut steps);
        if steps.len() > OPERATION_COUNT_MAX {
            return Err(fail(format!(
                "{} operations, allowed are {OPERATION_COUNT_MAX}",
                steps.len()
            )));
        }
        let stack_count = stack_need(&steps);
        if stack_count > STACK_COUNT_MAX {
            return Err(fail(format!(
                "needs a stack of {stack_count}, allowed is {STACK_COUNT_MAX}"
            )));
        }
        Ok(Self {
            steps: steps.into_boxed_slice(),
            stack_count,
        })
    }

    /// Number of operations.
    #[must_use]
    pub fn operation_count(&self) -> usize {
        self.steps.len()
    }

    /// Memory of program and stack, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.steps.len() * size_of::<Step>() + self.stack_count * size_of::<f64>()
    }

    /// The value for these features: finite, or NaN.
    #[must_use]
    pub fn evaluate(&self, features: &[f64; FEATURE_COUNT]) -> f64 {
        let mut stack = [0.0_f64; STACK_COUNT_MAX];
        // Number of operands on the stack; `compile` proved that it stays within the array.
        let mut top = 0_usize;
        for step in &self.steps {
            match *step {
                Step::Constant(value) => {
                    stack[top] = value;
                    top += 1;
                }
                Step::Feature(id) => {
                    stack[top] = features[usize::from(id)];
                    top += 1;
                }
                Step::Apply(operator) => {
                    top -= operand_count(operator) - 1;
                    stack[top - 1] = apply(operator, &stack[top - 1..]);
                }
            }
        }
        let value = stack[0];
        if value.is_finite() { value } else { f64::NAN }
    }
}

fn operand_count(operator: Operator) -> usize {
    match operator {
        Operator::Negate | Operator::Abs | Operator::Sign => 1,
        Operator::Add | Operator::Subtract | Operator::Multiply | Operator::Divide => 2,
        Operator::Clip => 3,
    }
}

fn apply(operator: Operator, operands: &[f64]) -> f64 {
    let x = operands[0];
    match operator {
        Operator::Negate => -x,
        Operator::Add => x + operands[1],
        Operator::Subtract => x - operands[1],
        Operator::Multiply => x * operands[1],
        Operator::Divide if operands[1] == 0.0 => f64::NAN,
        Operator::Divide => x / operands[1],
        Operator::Abs => x.abs(),
        Operator::Sign if x > 0.0 => 1.0,
        Operator::Sign if x < 0.0 => -1.0,
        Operator::Sign => x * 0.0,
        Operator::Clip => clip(x, operands[1], operands[2]),
    }
}

fn clip(x: f64, low: f64, high: f64) -> f64 {
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

fn emit(node: &Node, values: &[f64], steps: &mut Vec<Step>) {
    match node {
        Node::Number(value) => steps.push(Step::Constant(*value)),
        Node::Feature(id) => steps.push(Step::Feature(*id)),
        Node::Parameter(place) => {
            let value = values.get(usize::from(*place)).copied().unwrap_or(f64::NAN);
            steps.push(Step::Constant(value));
        }
        Node::Apply(operator, operands) => {
            operands
                .iter()
                .for_each(|operand| emit(operand, values, steps));
            steps.push(Step::Apply(*operator));
        }
    }
}

fn stack_need(steps: &[Step]) -> usize {
    let (mut top, mut need) = (0_usize, 0_usize);
    for step in steps {
        match step {
            Step::Apply(operator) => top -= operand_count(*operator) - 1,
            Step::Constant(_) | Step::Feature(_) => top += 1,
        }
        need = need.max(top);
    }
    assert!(top == 1, "Invariant: a program leaves exactly one value");
    need
}
