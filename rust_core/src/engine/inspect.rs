//! What a signal was made of: features record by record, and the terms at one record.
//!
//! Why: the search needs the columns that the engine saw, and a person the terms behind an order.
//!
//! Invariants:
//! 1. A row for every record at which the engine computes a signal, in its order: an expression
//!    over these columns gives the engine's values, to the bit.
//! 2. Nothing behind the asked record is read.
//!
//! It decides nothing. Operator's page: `docs/alpha-language.md`.

use super::batch::{alpha_of, each_record};
use super::{BatchError, EngineConfig, EngineError};
use crate::alpha::{Expression, ExpressionError, Program, Term};
use crate::features::FEATURES;

/// Features at every record of an alpha's market.
#[derive(Debug, Clone, Default)]
pub struct FeatureColumns {
    /// Values, a row a record, in the order of the registry.
    pub values: Vec<f64>,
    /// Engine time of each row.
    pub times_ns: Vec<i64>,
    /// 1 where the market started over before the row.
    pub starts: Vec<u8>,
    /// 1 where the record was a book and the book is good: the rows that research judges.
    pub is_good_book: Vec<u8>,
    /// Receive time of each row.
    pub receive_time_ns: Vec<i64>,
    /// Middle of the book, 0 without one.
    pub mid: Vec<i64>,
}

/// A signal taken apart.
#[derive(Debug, Clone, PartialEq)]
pub struct SignalTerms {
    /// The market record at which it was computed.
    pub input_seq: u64,
    /// Features that the expression reads, by name.
    pub features: Vec<(&'static str, f64)>,
    /// What is added up.
    pub terms: Vec<Term>,
    /// The signal.
    pub value: f64,
}

/// Features, times and starts at every record of an alpha's instrument.
///
/// # Errors
/// [`BatchError`] when config, tape or index are wrong.
pub fn feature_columns(
    tape: &[u8],
    config: &EngineConfig,
    alpha_index: usize,
) -> Result<FeatureColumns, BatchError> {
    let mut table = FeatureColumns::default();
    let mut epoch = None;
    each_record(tape, config, alpha_index, |header, market, is_good_book| {
        table.values.extend_from_slice(market.features.values());
        table.times_ns.push(header.sequence_time_ns);
        table.starts.push(u8::from(epoch != Some(market.epoch)));
        table.is_good_book.push(u8::from(is_good_book));
        table.receive_time_ns.push(header.receive_time_ns);
        table.mid.push(market.book.mid().unwrap_or(0));
        epoch = Some(market.epoch);
        true
    })?;
    Ok(table)
}

/// The terms of an alpha's signal at its last market record up to `input_seq`; `None` before the
/// first.
///
/// # Errors
/// [`BatchError`] when config, tape or index are wrong.
pub fn signal_terms(
    tape: &[u8],
    config: &EngineConfig,
    alpha_index: usize,
    input_seq: u64,
) -> Result<Option<SignalTerms>, BatchError> {
    let (alpha, _) = alpha_of(config, alpha_index)?;
    let names: Vec<&str> = alpha.parameters.keys().map(String::as_str).collect();
    let wrong = |error: ExpressionError| EngineError::Expression {
        field: format!("alphas[{}].expression", alpha.alpha_index),
        error,
    };
    let expression = Expression::parse(&alpha.expression, &names).map_err(wrong)?;
    let mut program = Program::compile_with_terms(&expression, &alpha.parameters).map_err(wrong)?;
    let mut epoch = 0;
    let mut last = None;
    each_record(tape, config, alpha_index, |header, market, _| {
        if header.input_seq > input_seq {
            return false;
        }
        if epoch != market.epoch {
            epoch = market.epoch;
            program.reset();
        }
        let values = market.features.values();
        let value = program.evaluate(values, header.sequence_time_ns);
        last = Some((header.input_seq, *values, value));
        true
    })?;
    let read = expression.features();
    Ok(last.map(|(input_seq, values, value)| SignalTerms {
        input_seq,
        features: FEATURES
            .iter()
            .zip(values)
            .filter(|(row, _)| read.contains(&row.name))
            .map(|(row, value)| (row.name, value))
            .collect(),
        terms: program.terms(),
        value,
    }))
}
