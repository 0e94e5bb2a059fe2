//! Alphas: expressions over features and named parameters.
//!
//! Why: research and live evaluate the same compiled program, so what was judged is what trades.
//!
//! Invariants:
//! 1. Text of bounded length compiles to a program of bounded size and memory, known beforehand.
//! 2. Evaluation allocates nothing, cannot fail, and sees nothing but features up to now.
//! 3. A value that is not finite, and a division by zero, is NaN; NaN never becomes an intent.
//! 4. The canonical text parses to the same canonical text, and it is what is evaluated.
//! 5. Event by event and over whole columns the values are the same to the bit.
//!
//! A file for each step: `language` (the words), `parse` (text to a checked tree), `expression`
//! (what was understood), `node` (the canonical tree), `unit`, `compile` (tree to steps, common
//! parts once), `window` (what is remembered), `program` (event by event), `columns` (whole columns).
//! Operator's page: `docs/alpha-language.md`.

mod columns;
mod compile;
mod error;
mod expression;
mod language;
mod node;
mod parse;
mod program;
mod unit;
mod window;

pub use columns::{BLOCK_ROWS, Columns, ColumnsError};
pub use error::{ExpressionError, excerpt};
pub use expression::{Expression, Need};
pub use language::{FUNCTIONS, FunctionRow, SIGNS, SignRow};
pub use node::{Node, Operator, Rolling, Window};
pub use program::{MEMORY_BYTES_MAX, Program, Term};
pub use unit::{Dimension, Unit};
pub use window::BUCKET_COUNT;

/// Longest expression text.
pub const TEXT_BYTES_MAX: usize = 4_096;
/// Deepest tree.
pub const NESTING_MAX: usize = 48;
/// Deepest nesting of parentheses, calls and signs in a text. A canonical text needs at most a
/// parenthesis and a sign for each level of its tree.
pub const PARSE_NESTING_MAX: usize = 2 * NESTING_MAX + 4;
/// Most nodes of a tree.
pub const NODE_COUNT_MAX: usize = 1_024;
/// Most operations of a program.
pub const OPERATION_COUNT_MAX: usize = 256;
/// Most named parameters.
pub const PARAMETER_COUNT_MAX: usize = 64;
/// Longest window in time: four hours.
pub const WINDOW_NS_MAX: i64 = 4 * 3_600 * 1_000_000_000;
/// Windows in time are whole milliseconds, so that a bucket is a whole number of nanoseconds.
pub const WINDOW_NS_STEP: i64 = 1_000_000;
/// Times are used up to here, in both directions, so that a window before or behind them is a time.
pub const TIME_NS_MAX: i64 = i64::MAX - 2 * WINDOW_NS_MAX;
/// Longest window in events.
pub const WINDOW_EVENTS_MAX: u32 = 4_096;
/// Most memory of all windows of one program.
pub const STATE_BYTES_MAX: usize = 1 << 20;

const _: () = assert!(WINDOW_NS_STEP % BUCKET_COUNT == 0);

#[cfg(test)]
mod tests;
