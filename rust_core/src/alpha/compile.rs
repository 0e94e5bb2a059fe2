//! Compiler: a canonical tree to steps over registers, every common part once.
//!
//! Why: what two terms share is computed once and remembered once, and the steps of a program are
//! few, flat and in the order they depend on each other.
//!
//! Invariants:
//! 1. A step reads registers written before it: features and constants first, then steps in order.
//! 2. Equal parts have one register and, if they remember something, one memory.
//! 3. What is joined at compile time gives the bits that evaluating in canonical order gives.
//!
//! It evaluates nothing but constants. Operator's page: `docs/alpha-language.md`.

use std::collections::BTreeMap;

use super::STATE_BYTES_MAX;
use super::error::ExpressionError;
use super::node::{Node, Operator, Rolling, Window};
use super::program::{binary, clip, unary};
use super::window::{
    Ema, EventLag, EventWindow, FadingSum, State, TimeLag, TimeWindow, WarmUp, kept,
};

/// Place of a value.
pub(super) type Register = u16;

/// What a step computes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// `start + c0 * r0 + c1 * r1 ...` from left to right, `count` weights from `first`.
    Linear { start: f64, first: u32, count: u32 },
    /// An operator of one operand.
    Unary(Operator, Register),
    /// `a * b`
    Multiply(Register, Register),
    /// An operator of two operands.
    Binary(Operator, Register, Register),
    /// `clip(x, low, high)`
    Clip([Register; 3]),
    /// `where(c, a, b)`
    Where([Register; 3]),
    /// `(x - mean) / std`
    Zscore([Register; 3]),
    /// What is left after the time since the last record: `exp(-elapsed / constant)`.
    Kept { constant_ns: f64 },
    /// Something remembered: place of the state, operands, what is left of old values. It writes
    /// two registers; moments have the mean in the second.
    Remember {
        state: u16,
        x: Register,
        y: Register,
        kept: Register,
    },
}

/// Steps and everything fixed about them.
#[derive(Debug, Clone)]
pub(super) struct Code {
    pub(super) steps: Box<[(Register, Step)]>,
    pub(super) weights: Box<[(f64, Register)]>,
    /// Registers loaded from features.
    pub(super) features: Box<[(Register, u16)]>,
    /// Registers that never change.
    pub(super) constants: Box<[(Register, f64)]>,
    pub(super) register_count: usize,
    /// Registers of the results.
    pub(super) roots: Box<[Register]>,
}

/// A value while compiling.
#[derive(Debug, Clone, Copy)]
enum Value {
    Constant(f64),
    Register(Register),
}

/// Collects steps; equal ones get one register.
#[derive(Debug)]
pub(super) struct Compiler {
    /// Values of the parameters of the tree at hand, by place.
    parameters: Vec<f64>,
    steps: Vec<(Register, Step)>,
    weights: Vec<(f64, Register)>,
    features: Vec<(Register, u16)>,
    constants: Vec<(Register, f64)>,
    states: Vec<State>,
    register_count: u16,
    /// Register by kind, operands and constants of what it holds.
    known: BTreeMap<Vec<u64>, Register>,
}

impl Compiler {
    pub(super) fn new() -> Self {
        Self {
            parameters: Vec::new(),
            steps: Vec::new(),
            weights: Vec::new(),
            features: Vec::new(),
            constants: Vec::new(),
            states: Vec::new(),
            register_count: 0,
            known: BTreeMap::new(),
        }
    }

    /// Adds a tree with the values of its parameters and gives the register of its result; it may
    /// add at most `limit` operations and [`STATE_BYTES_MAX`] of windows to what is there.
    pub(super) fn add(
        &mut self,
        root: &Node,
        parameters: &[f64],
        limit: usize,
    ) -> Result<Register, ExpressionError> {
        parameters.clone_into(&mut self.parameters);
        let (steps, states) = (self.steps.len(), self.states.len());
        let value = self.emit(root)?;
        let register = self.register(value)?;
        let count = operation_count(&self.steps[steps..]);
        if count > limit {
            return Err(ExpressionError::invalid(
                format!("{count} operations, allowed are {limit}"),
                0,
            ));
        }
        let sizes = self.states[states..]
            .iter()
            .map(|state| size_of::<State>() + state.heap_bytes());
        let bytes: usize = sizes.sum();
        if bytes > STATE_BYTES_MAX {
            return Err(ExpressionError::invalid(
                format!(
                    "windows of {bytes} bytes, allowed are {STATE_BYTES_MAX}; use shorter windows \
                     in events"
                ),
                0,
            ));
        }
        Ok(register)
    }

    /// The program, with these registers as results.
    pub(super) fn finish(self, roots: Vec<Register>) -> (Code, Vec<State>) {
        let code = Code {
            steps: self.steps.into_boxed_slice(),
            weights: self.weights.into_boxed_slice(),
            features: self.features.into_boxed_slice(),
            constants: self.constants.into_boxed_slice(),
            register_count: usize::from(self.register_count),
            roots: roots.into_boxed_slice(),
        };
        (code, self.states)
    }

    fn reserve(&mut self, count: u16) -> Result<Register, ExpressionError> {
        let register = self.register_count;
        match self.register_count.checked_add(count) {
            Some(next) => self.register_count = next,
            None => {
                let message = format!("more than {} values", u16::MAX);
                return Err(ExpressionError::invalid(message, 0));
            }
        }
        Ok(register)
    }

    /// A register that holds `value`.
    fn register(&mut self, value: Value) -> Result<Register, ExpressionError> {
        let constant = match value {
            Value::Register(register) => return Ok(register),
            Value::Constant(constant) => constant,
        };
        let key = vec![0, constant.to_bits()];
        if let Some(register) = self.known.get(&key) {
            return Ok(*register);
        }
        let register = self.reserve(1)?;
        self.constants.push((register, constant));
        self.known.insert(key, register);
        Ok(register)
    }

    /// The register of a step, made if it is new; `key` tells steps apart.
    fn step(&mut self, key: Vec<u64>, outputs: u16, step: Step) -> Result<Value, ExpressionError> {
        if let Some(register) = self.known.get(&key) {
            return Ok(Value::Register(*register));
        }
        let register = self.reserve(outputs)?;
        self.steps.push((register, step));
        self.known.insert(key, register);
        Ok(Value::Register(register))
    }

    fn emit(&mut self, node: &Node) -> Result<Value, ExpressionError> {
        match node {
            Node::Number(value) => Ok(Value::Constant(*value)),
            Node::Parameter(place) => Ok(Value::Constant(
                self.parameters
                    .get(usize::from(*place))
                    .copied()
                    .unwrap_or(f64::NAN),
            )),
            Node::Feature(id) => {
                let key = vec![1, u64::from(*id)];
                if let Some(register) = self.known.get(&key) {
                    return Ok(Value::Register(*register));
                }
                let register = self.reserve(1)?;
                self.features.push((register, *id));
                self.known.insert(key, register);
                Ok(Value::Register(register))
            }
            Node::Sum(terms) => self.sum(terms),
            Node::Product(factors) => {
                let values = self.each(factors)?;
                self.multiply_all(&values)
            }
            Node::Apply(operator, operands) => self.apply(*operator, operands),
            Node::Roll(rolling, operands, window) => self.roll(*rolling, operands, *window),
        }
    }

    /// A sum as start, weights and registers.
    fn sum(&mut self, terms: &[(bool, Node)]) -> Result<Value, ExpressionError> {
        // Minus zero is what leaves every number as it is when added.
        let mut start = -0.0;
        let mut weights: Vec<(f64, Register)> = Vec::with_capacity(terms.len());
        for (is_negative, term) in terms {
            let sign = if *is_negative { -1.0 } else { 1.0 };
            let (weight, value) = self.weighted(term)?;
            match value {
                // The terms that are constant come first, by the order of trees; one that only
                // its parameters make constant comes later and takes its turn.
                Value::Constant(constant) if weights.is_empty() => {
                    start += sign * (weight * constant);
                }
                other => {
                    let register = self.register(other)?;
                    weights.push((sign * weight, register));
                }
            }
        }
        self.linear(start, weights)
    }

    fn linear(
        &mut self,
        start: f64,
        weights: Vec<(f64, Register)>,
    ) -> Result<Value, ExpressionError> {
        if weights.is_empty() {
            return Ok(Value::Constant(start));
        }
        let mut key = vec![2, start.to_bits()];
        for (weight, register) in &weights {
            key.extend([weight.to_bits(), u64::from(*register)]);
        }
        let (first, count) = (self.weights.len(), weights.len());
        let is_known = self.known.contains_key(&key);
        if !is_known {
            self.weights.extend(weights);
        }
        // Bounded by the number of nodes, which fits.
        let (first, count) = (first as u32, count as u32);
        self.step(
            key,
            1,
            Step::Linear {
                start,
                first,
                count,
            },
        )
    }

    /// A term as a constant times something; the constant is what stands before the last factor.
    fn weighted(&mut self, term: &Node) -> Result<(f64, Value), ExpressionError> {
        let Node::Product(factors) = term else {
            return Ok((1.0, self.emit(term)?));
        };
        let values = self.each(factors)?;
        let mut weight = 1.0;
        if let Some((last, before)) = values.split_last() {
            let is_constant = before.iter().all(|value| match value {
                Value::Constant(constant) => {
                    weight *= constant;
                    true
                }
                Value::Register(_) => false,
            });
            if is_constant {
                return Ok((weight, *last));
            }
        }
        Ok((1.0, self.multiply_all(&values)?))
    }

    /// Each node once; emitting a node twice would double the time at every level.
    fn each(&mut self, nodes: &[Node]) -> Result<Vec<Value>, ExpressionError> {
        nodes.iter().map(|node| self.emit(node)).collect()
    }

    fn multiply_all(&mut self, values: &[Value]) -> Result<Value, ExpressionError> {
        let mut product = None;
        for next in values {
            product = Some(match product {
                None => *next,
                Some(before) => self.multiply(before, *next)?,
            });
        }
        Ok(product.unwrap_or(Value::Constant(f64::NAN)))
    }

    fn multiply(&mut self, a: Value, b: Value) -> Result<Value, ExpressionError> {
        match (a, b) {
            (Value::Constant(a), Value::Constant(b)) => Ok(Value::Constant(a * b)),
            (Value::Constant(weight), Value::Register(register))
            | (Value::Register(register), Value::Constant(weight)) => {
                self.linear(-0.0, vec![(weight, register)])
            }
            (Value::Register(a), Value::Register(b)) => {
                let key = vec![3, u64::from(a), u64::from(b)];
                self.step(key, 1, Step::Multiply(a, b))
            }
        }
    }

    fn apply(&mut self, operator: Operator, operands: &[Node]) -> Result<Value, ExpressionError> {
        let values = self.each(operands)?;
        match (operator, values.as_slice()) {
            (Operator::Clip, [x, low, high]) => {
                if let (Value::Constant(x), Value::Constant(low), Value::Constant(high)) =
                    (x, low, high)
                {
                    return Ok(Value::Constant(clip(*x, *low, *high)));
                }
                let registers = self.three([*x, *low, *high])?;
                self.step(keyed(4, &registers), 1, Step::Clip(registers))
            }
            (Operator::Where, [condition, a, b]) => {
                let registers = self.three([*condition, *a, *b])?;
                self.step(keyed(5, &registers), 1, Step::Where(registers))
            }
            (_, [Value::Constant(x)]) => Ok(Value::Constant(unary(operator, *x))),
            (_, [Value::Register(x)]) => {
                let key = vec![6, operator as u64, u64::from(*x)];
                self.step(key, 1, Step::Unary(operator, *x))
            }
            (_, [first, rest @ ..]) => {
                let mut joined = *first;
                for next in rest {
                    joined = self.binary(operator, joined, *next)?;
                }
                Ok(joined)
            }
            (_, []) => Ok(Value::Constant(f64::NAN)),
        }
    }

    fn binary(&mut self, operator: Operator, a: Value, b: Value) -> Result<Value, ExpressionError> {
        if let (Value::Constant(a), Value::Constant(b)) = (a, b) {
            return Ok(Value::Constant(binary(operator, a, b)));
        }
        let (a, b) = (self.register(a)?, self.register(b)?);
        let key = vec![7, operator as u64, u64::from(a), u64::from(b)];
        self.step(key, 1, Step::Binary(operator, a, b))
    }

    fn three(&mut self, values: [Value; 3]) -> Result<[Register; 3], ExpressionError> {
        Ok([
            self.register(values[0])?,
            self.register(values[1])?,
            self.register(values[2])?,
        ])
    }

    fn roll(
        &mut self,
        rolling: Rolling,
        operands: &[Node],
        window: Window,
    ) -> Result<Value, ExpressionError> {
        let mut registers = Vec::with_capacity(2);
        for operand in operands {
            let value = self.emit(operand)?;
            registers.push(self.register(value)?);
        }
        let x = registers.first().copied().unwrap_or(0);
        let y = registers.get(1).copied().unwrap_or(x);
        match rolling {
            Rolling::Delta => {
                let lag = self.remember(Rolling::Lag, window, x, y)?;
                let lag = self.register(lag)?;
                self.linear(-0.0, vec![(1.0, x), (-1.0, lag)])
            }
            Rolling::Zscore => {
                let moments = self.remember(Rolling::Std, window, x, y)?;
                let std = self.register(moments)?;
                let registers = [x, std, std + 1];
                self.step(keyed(8, &registers), 1, Step::Zscore(registers))
            }
            other => self.remember(other, window, x, y),
        }
    }

    /// What is left of old values at a record.
    fn kept(&mut self, window: Window) -> Result<Register, ExpressionError> {
        let value = match window {
            Window::Events(count) => Value::Constant(kept(1.0, f64::from(count))),
            Window::Time(ns) => {
                let constant_ns = ns as f64;
                self.step(
                    vec![9, constant_ns.to_bits()],
                    1,
                    Step::Kept { constant_ns },
                )?
            }
        };
        self.register(value)
    }

    fn remember(
        &mut self,
        rolling: Rolling,
        window: Window,
        x: Register,
        y: Register,
    ) -> Result<Value, ExpressionError> {
        let kept = match rolling {
            Rolling::Ema | Rolling::Decay => self.kept(window)?,
            _ => x,
        };
        let (kind, length) = match window {
            Window::Time(ns) => (0, ns as u64),
            Window::Events(count) => (1, u64::from(count)),
        };
        let key = vec![10, rolling as u64, kind, length, u64::from(x), u64::from(y)];
        if let Some(register) = self.known.get(&key) {
            return Ok(Value::Register(*register));
        }
        // Bounded by the number of nodes, which fits.
        let state = self.states.len() as u16;
        self.states.push(state_of(rolling, window));
        self.step(key, 2, Step::Remember { state, x, y, kept })
    }
}

fn keyed(kind: u64, registers: &[Register; 3]) -> Vec<u64> {
    let mut key = vec![kind];
    key.extend(registers.iter().map(|register| u64::from(*register)));
    key
}

fn state_of(rolling: Rolling, window: Window) -> State {
    match (rolling, window) {
        (Rolling::Mean, Window::Time(ns)) => State::Mean(TimeWindow::new(ns)),
        (Rolling::Mean, Window::Events(count)) => State::MeanOfEvents(EventWindow::new(count)),
        (Rolling::Lowest, Window::Time(ns)) => State::Lowest(TimeWindow::new(ns)),
        (Rolling::Lowest, Window::Events(count)) => State::LowestOfEvents(EventWindow::new(count)),
        (Rolling::Highest, Window::Time(ns)) => State::Highest(TimeWindow::new(ns)),
        (Rolling::Highest, Window::Events(count)) => {
            State::HighestOfEvents(EventWindow::new(count))
        }
        (Rolling::Std | Rolling::Zscore, Window::Time(ns)) => State::Moments(TimeWindow::new(ns)),
        (Rolling::Std | Rolling::Zscore, Window::Events(count)) => {
            State::MomentsOfEvents(EventWindow::new(count))
        }
        (Rolling::Corr, Window::Time(ns)) => State::Pairs(TimeWindow::new(ns)),
        (Rolling::Corr, Window::Events(count)) => State::PairsOfEvents(EventWindow::new(count)),
        (Rolling::Lag | Rolling::Delta, Window::Time(ns)) => State::Lag(TimeLag::new(ns)),
        (Rolling::Lag | Rolling::Delta, Window::Events(count)) => {
            State::LagOfEvents(EventLag::new(count))
        }
        (Rolling::Ema, window) => State::Ema(Ema::new(warm_up(window))),
        (Rolling::Decay, window) => State::Fading(FadingSum::new(warm_up(window))),
    }
}

fn warm_up(window: Window) -> WarmUp {
    match window {
        Window::Time(ns) => WarmUp::Time(ns),
        Window::Events(count) => WarmUp::Events(count),
    }
}

/// Number of operations of some steps, a weighted sum counting once a weight.
pub(super) fn operation_count(steps: &[(Register, Step)]) -> usize {
    steps
        .iter()
        .map(|(_, step)| match step {
            Step::Linear { count, .. } => *count as usize,
            _ => 1,
        })
        .sum()
}
