//! Alphas: expressions over features and named parameters.
//!
//! Why: research and live evaluate the same compiled program, so what was judged is what trades.
//!
//! Invariants:
//! 1. Text of bounded length compiles to a program of bounded size and memory, known beforehand.
//! 2. Evaluation allocates nothing, cannot fail, and sees nothing but current feature values.
//! 3. A value that is not finite, and a division by zero, is NaN; NaN never becomes an intent.
//! 4. The canonical text parses to the same canonical text.
//!
//! It keeps no state of its own. Operator's page: `docs/features.md`.

mod parse;
mod program;

pub use parse::{Expression, ExpressionError, Node, Operator};
pub use program::{MEMORY_BYTES_MAX, Program};

/// Longest expression text.
pub const TEXT_BYTES_MAX: usize = 4_096;
/// Deepest nesting of parentheses, calls and signs.
pub const NESTING_MAX: usize = 48;
/// Most operations of a program.
pub const OPERATION_COUNT_MAX: usize = 256;
/// Deepest operand stack.
pub const STACK_COUNT_MAX: usize = 32;
/// Most named parameters.
pub const PARAMETER_COUNT_MAX: usize = 64;

#[cfg(test)]
mod tests;
