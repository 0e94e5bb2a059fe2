//! The same program over whole columns, a block of rows at a time.
//!
//! Why: the search evaluates thousands of expressions over millions of rows; a step over a block
//! costs a fraction of a step over a row.
//!
//! Invariants:
//! 1. Every value is the bits that evaluating row by row gives: the same functions, operands and
//!    order, and memories see the same rows one after another.
//! 2. A block never spans a start: the row marked as one is the first of its block.
//! 3. Memory is a block of [`BLOCK_ROWS`] for each register in use at the same time.
//!
//! Several expressions compiled together share their blocks and common parts. Operator's page: `docs/alpha-language.md`.

use super::TIME_NS_MAX;
use super::compile::{Code, Register, Step};
use super::node::Operator;
use super::program::{
    Program, binary, choose, clip, compared, divide, finite, maximum, minimum, unary, zscore,
};
use super::window::kept;
use crate::features::FEATURE_COUNT;

/// Rows of a block: it fits a cache, and is long enough to hide what a step costs by itself.
pub const BLOCK_ROWS: usize = 512;

/// Features at many records, without a copy.
#[derive(Debug, Clone, Copy)]
pub struct Columns<'a> {
    values: &'a [f64],
    /// Steps to the next row and to the next feature.
    strides: (usize, usize),
    times_ns: &'a [i64],
    /// Not 0 where the market started over before the row.
    starts: &'a [u8],
}

/// Why columns do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ColumnsError {
    /// Lengths differ.
    #[error("{what} has {found} values, expected {expected}")]
    Length {
        /// Which column.
        what: &'static str,
        /// How many came.
        found: usize,
        /// How many should have come.
        expected: usize,
    },
    /// Beyond what a time is.
    #[error("times_ns is {time_ns} at row {row}, allowed are -{TIME_NS_MAX} to {TIME_NS_MAX}")]
    TimeOutOfRange {
        /// The row.
        row: usize,
        /// What it holds.
        time_ns: i64,
    },
    /// Time went back without a start.
    #[error("times_ns goes back at row {row}, and the market did not start over there")]
    TimeWentBack {
        /// The row.
        row: usize,
    },
}

impl<'a> Columns<'a> {
    /// `values` row by row, or feature by feature with `is_by_feature`.
    ///
    /// # Errors
    /// [`ColumnsError`] when lengths differ or time goes back.
    pub fn new(
        values: &'a [f64],
        is_by_feature: bool,
        times_ns: &'a [i64],
        starts: &'a [u8],
    ) -> Result<Self, ColumnsError> {
        let rows = times_ns.len();
        let checks = [
            ("features", values.len(), rows * FEATURE_COUNT),
            ("starts", starts.len(), rows),
        ];
        for (what, found, expected) in checks {
            if found != expected {
                return Err(ColumnsError::Length {
                    what,
                    found,
                    expected,
                });
            }
        }
        let range = -TIME_NS_MAX..=TIME_NS_MAX;
        if let Some(row) = times_ns.iter().position(|time| !range.contains(time)) {
            let time_ns = times_ns[row];
            return Err(ColumnsError::TimeOutOfRange { row, time_ns });
        }
        let went_back =
            (1..rows).find(|row| times_ns[*row] < times_ns[row - 1] && starts[*row] == 0);
        if let Some(row) = went_back {
            return Err(ColumnsError::TimeWentBack { row });
        }
        Ok(Self {
            values,
            strides: if is_by_feature {
                (1, rows)
            } else {
                (FEATURE_COUNT, 1)
            },
            times_ns,
            starts,
        })
    }

    /// Number of rows.
    #[must_use]
    pub fn row_count(&self) -> usize {
        self.times_ns.len()
    }

    /// The features of one row.
    #[must_use]
    pub fn row(&self, row: usize) -> [f64; FEATURE_COUNT] {
        std::array::from_fn(|id| self.values[row * self.strides.0 + id * self.strides.1])
    }

    /// Copies a feature's rows into a block.
    fn load(&self, id: u16, first: usize, out: &mut [f64]) {
        let start = first * self.strides.0 + usize::from(id) * self.strides.1;
        if self.strides.0 == 1 {
            out.copy_from_slice(&self.values[start..start + out.len()]);
            return;
        }
        let column = self.values[start..].iter().step_by(self.strides.0);
        out.iter_mut()
            .zip(column)
            .for_each(|(slot, value)| *slot = *value);
    }
}

/// Where each register's block lies while it is needed; blocks are used again.
struct Places {
    /// By register.
    slots: Vec<u16>,
    slot_count: usize,
}

impl Places {
    fn of(code: &Code) -> Self {
        let mut last_use = vec![0_usize; code.register_count];
        for (number, (target, step)) in code.steps.iter().enumerate() {
            last_use[usize::from(*target)] = number;
            if is_pair(step) {
                last_use[usize::from(*target) + 1] = number;
            }
            each_operand(code, step, |register| {
                last_use[usize::from(register)] = number
            });
        }
        // Constants are written once and needed in every block.
        for (register, _) in &code.constants {
            last_use[usize::from(*register)] = usize::MAX;
        }
        let mut places = Self {
            slots: vec![u16::MAX; code.register_count],
            slot_count: 0,
        };
        let mut free = Vec::new();
        let loaded = code.constants.iter().map(|(register, _)| register);
        for register in loaded.chain(code.features.iter().map(|(register, _)| register)) {
            places.take(*register, &mut free);
        }
        for (number, (target, step)) in code.steps.iter().enumerate() {
            // The target is taken before the operands are given back: a step never writes what it
            // reads.
            places.take(*target, &mut free);
            if is_pair(step) {
                places.take(*target + 1, &mut free);
            }
            let mut give_back = |register: Register| {
                let slot = places.slots[usize::from(register)];
                if last_use[usize::from(register)] == number && !free.contains(&slot) {
                    free.push(slot);
                }
            };
            each_operand(code, step, &mut give_back);
            // A result is read at once, so a target that no step reads is free again.
            give_back(*target);
            if is_pair(step) {
                give_back(*target + 1);
            }
        }
        places
    }

    fn take(&mut self, register: Register, free: &mut Vec<u16>) {
        let slot = free.pop().unwrap_or_else(|| {
            self.slot_count += 1;
            // At most as many as registers, which fit.
            (self.slot_count - 1) as u16
        });
        self.slots[usize::from(register)] = slot;
    }
}

fn is_pair(step: &Step) -> bool {
    matches!(step, Step::Remember { .. })
}

fn each_operand(code: &Code, step: &Step, mut visit: impl FnMut(Register)) {
    match *step {
        Step::Linear { first, count, .. } => code.weights[first as usize..(first + count) as usize]
            .iter()
            .for_each(|(_, register)| visit(*register)),
        Step::Unary(_, x) => visit(x),
        Step::Multiply(a, b) | Step::Binary(_, a, b) => {
            visit(a);
            visit(b);
        }
        Step::Clip(all) | Step::Where(all) | Step::Zscore(all) => all.into_iter().for_each(visit),
        Step::Kept { .. } => {}
        Step::Remember { x, y, kept, .. } => [x, y, kept].into_iter().for_each(visit),
    }
}

/// Blocks of one evaluation.
struct Blocks {
    places: Places,
    blocks: Vec<Vec<f64>>,
    rows: usize,
}

impl Blocks {
    fn get(&self, register: Register) -> &[f64] {
        let slot = usize::from(self.places.slots[usize::from(register)]);
        &self.blocks[slot][..self.rows]
    }

    /// Fills the block of `target` by `fill`, which may read every other block.
    fn set(&mut self, target: Register, fill: impl FnOnce(&Self, &mut [f64])) {
        let slot = usize::from(self.places.slots[usize::from(target)]);
        let mut block = std::mem::take(&mut self.blocks[slot]);
        fill(self, &mut block[..self.rows]);
        self.blocks[slot] = block;
    }
}

/// Where the results go.
struct Results<'a> {
    out: &'a mut [f64],
    rows: usize,
    /// First row of the block at hand.
    first: usize,
    /// Places of the results that a register holds.
    of_register: Vec<Vec<usize>>,
}

impl<'a> Results<'a> {
    fn of(code: &Code, out: &'a mut [f64], rows: usize) -> Self {
        let mut of_register = vec![Vec::new(); code.register_count];
        for (place, register) in code.roots.iter().enumerate() {
            of_register[usize::from(*register)].push(place);
        }
        Self {
            out,
            rows,
            first: 0,
            of_register,
        }
    }

    /// Copies the block of a register that was just written, if it is a result.
    fn take(&mut self, register: Register, blocks: &Blocks) {
        for place in &self.of_register[usize::from(register)] {
            let block = blocks.get(register);
            let start = place * self.rows + self.first;
            let target = &mut self.out[start..start + block.len()];
            target
                .iter_mut()
                .zip(block)
                .for_each(|(slot, value)| *slot = finite(*value));
        }
    }
}

impl Program {
    /// Values at every row into `out`, one result after another; starts from nothing and leaves
    /// the program as new.
    ///
    /// # Errors
    /// [`ColumnsError`] when `out` has another length.
    pub fn evaluate_columns(
        &mut self,
        columns: &Columns<'_>,
        out: &mut [f64],
    ) -> Result<(), ColumnsError> {
        let rows = columns.row_count();
        let expected = rows * self.code.roots.len();
        if out.len() != expected {
            return Err(ColumnsError::Length {
                what: "out",
                found: out.len(),
                expected,
            });
        }
        let places = Places::of(&self.code);
        let mut blocks = Blocks {
            blocks: vec![vec![f64::NAN; BLOCK_ROWS]; places.slot_count],
            places,
            rows: BLOCK_ROWS,
        };
        for (register, value) in &self.code.constants {
            blocks.set(*register, |_, block| block.fill(*value));
        }
        let mut results = Results::of(&self.code, out, rows);
        self.reset();
        let mut first = 0;
        while first < rows {
            if columns.starts[first] != 0 {
                self.reset();
            }
            let longest = (rows - first).min(BLOCK_ROWS);
            blocks.rows = (1..longest)
                .find(|row| columns.starts[first + row] != 0)
                .unwrap_or(longest);
            results.first = first;
            self.run_block(columns, &mut blocks, &mut results);
            first += blocks.rows;
        }
        self.reset();
        Ok(())
    }

    fn run_block(&mut self, columns: &Columns<'_>, blocks: &mut Blocks, results: &mut Results<'_>) {
        let Self { code, memory, .. } = self;
        let first = results.first;
        let times = &columns.times_ns[first..first + blocks.rows];
        for (register, id) in &code.features {
            blocks.set(*register, |_, block| columns.load(*id, first, block));
            results.take(*register, blocks);
        }
        for (register, _) in &code.constants {
            results.take(*register, blocks);
        }
        for (target, step) in &code.steps {
            match *step {
                Step::Remember {
                    state,
                    x,
                    y,
                    kept: left,
                } => {
                    // The second output first, so that both can be borrowed one after the other.
                    let slot = usize::from(blocks.places.slots[usize::from(*target) + 1]);
                    let mut second = std::mem::take(&mut blocks.blocks[slot]);
                    blocks.set(*target, |blocks, block| {
                        let operands = [x, y, left].map(|register| blocks.get(register));
                        let state = &mut memory.states[usize::from(state)];
                        state.run(operands, times, block, &mut second);
                    });
                    blocks.blocks[slot] = second;
                }
                Step::Kept { constant_ns } => {
                    let mut last = memory.last_ns;
                    blocks.set(*target, |_, block| {
                        for (slot, now) in block.iter_mut().zip(times) {
                            let elapsed = last.map_or(0, |last| now.saturating_sub(last));
                            *slot = kept(elapsed as f64, constant_ns);
                            last = Some(*now);
                        }
                    });
                }
                _ => blocks.set(*target, |blocks, block| compute(code, step, blocks, block)),
            }
            results.take(*target, blocks);
        }
        memory.last_ns = times.last().copied().or(memory.last_ns);
    }
}

/// Steps without memory.
fn compute(code: &Code, step: &Step, blocks: &Blocks, out: &mut [f64]) {
    match *step {
        Step::Linear {
            start,
            first,
            count,
        } => {
            out.fill(start);
            for (weight, register) in &code.weights[first as usize..(first + count) as usize] {
                let column = blocks.get(*register);
                out.iter_mut()
                    .zip(column)
                    .for_each(|(sum, value)| *sum += weight * value);
            }
        }
        Step::Multiply(a, b) => two(out, blocks.get(a), blocks.get(b), |a, b| a * b),
        Step::Unary(Operator::Abs, x) => one(out, blocks.get(x), f64::abs),
        Step::Unary(Operator::Sqrt, x) => one(out, blocks.get(x), f64::sqrt),
        Step::Unary(operator, x) => one(out, blocks.get(x), |x| unary(operator, x)),
        Step::Binary(operator, a, b) => {
            let (a, b) = (blocks.get(a), blocks.get(b));
            match operator {
                Operator::Divide => two(out, a, b, divide),
                Operator::Minimum => two(out, a, b, minimum),
                Operator::Maximum => two(out, a, b, maximum),
                Operator::Less => two(out, a, b, |a, b| compared(a, b, |a, b| a < b)),
                Operator::LessOrEqual => two(out, a, b, |a, b| compared(a, b, |a, b| a <= b)),
                other => two(out, a, b, |a, b| binary(other, a, b)),
            }
        }
        Step::Clip(registers) => three(out, registers.map(|r| blocks.get(r)), clip),
        Step::Where(registers) => three(out, registers.map(|r| blocks.get(r)), choose),
        Step::Zscore(registers) => three(out, registers.map(|r| blocks.get(r)), zscore),
        Step::Kept { .. } | Step::Remember { .. } => {}
    }
}

fn one(out: &mut [f64], x: &[f64], f: impl Fn(f64) -> f64) {
    out.iter_mut().zip(x).for_each(|(slot, x)| *slot = f(*x));
}

fn two(out: &mut [f64], a: &[f64], b: &[f64], f: impl Fn(f64, f64) -> f64) {
    let operands = a.iter().zip(b);
    out.iter_mut()
        .zip(operands)
        .for_each(|(slot, (a, b))| *slot = f(*a, *b));
}

fn three(out: &mut [f64], [a, b, c]: [&[f64]; 3], f: impl Fn(f64, f64, f64) -> f64) {
    let operands = a.iter().zip(b).zip(c);
    out.iter_mut()
        .zip(operands)
        .for_each(|(slot, ((a, b), c))| *slot = f(*a, *b, *c));
}
