//! Whole tapes: the same code as event by event, in a loop.

use super::{
    AlphaConfig, AlphaState, Engine, EngineConfig, EngineError, Market, Sequencer, validate,
};
use crate::features::{FEATURES, feature_id};
use crate::kernel::Kernels;
use crate::reason::ReasonCode;
use crate::record::{
    BookRecord, DecisionRecord, InstrumentRecord, Record, RecordHeader, RecordType, Tape,
    TapeError, TradeRecord,
};

/// Why a tape could not be run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BatchError {
    /// The config does not hold together.
    #[error(transparent)]
    Config(#[from] EngineError),
    /// The bytes are not records.
    #[error(transparent)]
    Tape(#[from] TapeError),
    /// There is no such alpha.
    #[error("alpha_index was {alpha_index}, the config has {alpha_count} alphas")]
    NoAlpha {
        /// What was asked for.
        alpha_index: usize,
        /// How many there are.
        alpha_count: usize,
    },
    /// A replay needs every input once, in order.
    #[error("input sequence was {found}, expected {expected}")]
    SequenceGap {
        /// What came.
        found: u64,
        /// What should have come.
        expected: u64,
    },
}

impl BatchError {
    /// Its number.
    #[must_use]
    pub fn code(&self) -> ReasonCode {
        match self {
            Self::Config(error) => error.code(),
            Self::Tape(_) => ReasonCode::FileDamaged,
            Self::NoAlpha { .. } => ReasonCode::ConfigMalformed,
            Self::SequenceGap { .. } => ReasonCode::LogSequenceGap,
        }
    }
}

/// One evaluation of an alpha.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SignalRow {
    /// Receive time of the book.
    pub receive_time_ns: i64,
    /// Middle of the book.
    pub mid: i64,
    /// Value of the alpha, or NaN.
    pub signal: f64,
}

/// Features at every good book.
#[derive(Debug, Clone, Default)]
pub struct FeatureTable {
    /// Values, a row a book, in the order of the registry.
    pub values: Vec<f64>,
    /// Receive time of each row.
    pub receive_time_ns: Vec<i64>,
}

/// Feeds a tape to an engine; decisions in the tape are skipped, missing stamps are given.
///
/// # Errors
/// [`BatchError::Tape`] when the tape is damaged; with `is_replay` also
/// [`BatchError::SequenceGap`] when an input is missing, doubled or was never sequenced.
pub fn run_tape(
    engine: &mut Engine,
    sequencer: &mut Sequencer,
    tape: &[u8],
    is_replay: bool,
    out: &mut Vec<DecisionRecord>,
) -> Result<(), BatchError> {
    for item in Tape::new(tape) {
        let (mut header, bytes) = item?;
        if header.record_type == RecordType::Decision as u8 {
            continue;
        }
        if is_replay {
            let expected = if sequencer.last_seq() == 0 {
                header.input_seq.max(1)
            } else {
                // Behind the last number there is none: 0 is never a number, so that is a gap.
                sequencer.last_seq().checked_add(1).unwrap_or(0)
            };
            if header.input_seq != expected {
                return Err(BatchError::SequenceGap {
                    found: header.input_seq,
                    expected,
                });
            }
        }
        sequencer.stamp_if_missing(&mut header);
        engine.on_record(&header, bytes, out);
    }
    Ok(())
}

/// An alpha of a valid config, and the place of its instrument.
pub(super) fn alpha_of(
    config: &EngineConfig,
    alpha_index: usize,
) -> Result<(&AlphaConfig, usize), BatchError> {
    validate::validate(config)?;
    let alpha_count = config.alphas.len();
    let missing = BatchError::NoAlpha {
        alpha_index,
        alpha_count,
    };
    let alpha = config.alphas.get(alpha_index).ok_or(missing.clone())?;
    let place = config
        .instruments
        .iter()
        .position(|instrument| instrument.instrument_id == alpha.instrument_id);
    Ok((alpha, place.ok_or(missing)?))
}

/// Runs an alpha's instrument over a tape and calls `take` at every record at which the engine
/// computes a signal, with true at a good book, until it gives false.
pub(super) fn each_record(
    tape: &[u8],
    config: &EngineConfig,
    alpha_index: usize,
    mut take: impl FnMut(&RecordHeader, &Market, bool) -> bool,
) -> Result<(), BatchError> {
    let (alpha, place) = alpha_of(config, alpha_index)?;
    let mut market = Market::new(config.instruments[place].clone());
    let mut sequencer = Sequencer::default();
    for item in Tape::new(tape) {
        let (mut header, bytes) = item?;
        if header.record_type == RecordType::Decision as u8 {
            continue;
        }
        sequencer.stamp_if_missing(&mut header);
        if header.instrument_id != alpha.instrument_id {
            continue;
        }
        let goes_on = if let Some(record) = BookRecord::read(bytes) {
            // What is malformed leaves an invalid book behind, which is not a good one.
            let stored = market.on_book(&header, &record);
            let is_good = stored.is_ok() && market.book.is_valid();
            take(&header, &market, is_good)
        } else if let Some(record) = TradeRecord::read(bytes) {
            // A print that the market refuses changes no memory, as in the engine.
            market.on_trade(&header, &record).is_err() || take(&header, &market, false)
        } else if let Some(record) = InstrumentRecord::read(bytes) {
            // Another contract leaves the market without a book, as in the engine.
            let _counted_by_the_engine = market.on_instrument(&record);
            true
        } else {
            true
        };
        if !goes_on {
            break;
        }
    }
    Ok(())
}

/// Runs an alpha's instrument over a tape and calls `row` at every record it was evaluated at, with
/// the alpha's value there and whether the book was good.
fn each_value(
    tape: &[u8],
    config: &EngineConfig,
    kernels: &Kernels,
    alpha_index: usize,
    mut row: impl FnMut(&RecordHeader, &Market, f64, bool),
) -> Result<(), BatchError> {
    let (alpha, place) = alpha_of(config, alpha_index)?;
    let instrument = &config.instruments[place];
    let mut state = AlphaState::new(alpha, instrument, place, &config.session, kernels)?;
    each_record(tape, config, alpha_index, |header, market, is_good_book| {
        let signal = state.source.evaluate(market, header.sequence_time_ns);
        row(header, market, signal, is_good_book);
        true
    })
}

/// As [`each_value`], at good books only.
fn each_book(
    tape: &[u8],
    config: &EngineConfig,
    kernels: &Kernels,
    alpha_index: usize,
    mut row: impl FnMut(&RecordHeader, &Market, f64),
) -> Result<(), BatchError> {
    each_value(
        tape,
        config,
        kernels,
        alpha_index,
        |header, market, signal, is_good_book| {
            if is_good_book {
                row(header, market, signal);
            }
        },
    )
}

/// Value of an alpha, an expression, at every good book of its instrument.
///
/// # Errors
/// [`BatchError`] when config, tape or index are wrong.
pub fn evaluate(
    tape: &[u8],
    config: &EngineConfig,
    alpha_index: usize,
) -> Result<Vec<SignalRow>, BatchError> {
    evaluate_with(tape, config, &Kernels::default(), alpha_index)
}

/// Value of an alpha at every good book of its instrument.
///
/// # Errors
/// [`BatchError`] when config, tape or index are wrong, or a kernel is missing.
pub fn evaluate_with(
    tape: &[u8],
    config: &EngineConfig,
    kernels: &Kernels,
    alpha_index: usize,
) -> Result<Vec<SignalRow>, BatchError> {
    let mut rows = Vec::new();
    each_book(
        tape,
        config,
        kernels,
        alpha_index,
        |header, market, signal| {
            rows.push(SignalRow {
                receive_time_ns: header.receive_time_ns,
                mid: market.book.mid().unwrap_or(0),
                signal,
            });
        },
    )?;
    Ok(rows)
}

/// Every feature at every good book of the instrument of an alpha, an expression.
///
/// # Errors
/// [`BatchError`] when config, tape or index are wrong.
pub fn evaluate_features(
    tape: &[u8],
    config: &EngineConfig,
    alpha_index: usize,
) -> Result<FeatureTable, BatchError> {
    evaluate_features_with(tape, config, &Kernels::default(), alpha_index)
}

/// Every feature at every good book of an alpha's instrument.
///
/// # Errors
/// [`BatchError`] when config, tape or index are wrong, or a kernel is missing.
pub fn evaluate_features_with(
    tape: &[u8],
    config: &EngineConfig,
    kernels: &Kernels,
    alpha_index: usize,
) -> Result<FeatureTable, BatchError> {
    let mut table = FeatureTable::default();
    each_book(tape, config, kernels, alpha_index, |header, market, _| {
        table.values.extend_from_slice(market.features.values());
        table.receive_time_ns.push(header.receive_time_ns);
    })?;
    assert!(
        table.values.len() == table.receive_time_ns.len() * FEATURES.len(),
        "Invariant: a row has every feature"
    );
    Ok(table)
}

/// What a kernel is called with, a row a call, so that a research loop can make the same calls.
#[derive(Debug, Clone, Default)]
pub struct KernelCalls {
    /// Values of the kernel's features, row by row, in its order.
    pub features: Vec<f64>,
    /// Time of each call.
    pub now_ns: Vec<i64>,
    /// 1 where the state was zeroed before the call.
    pub is_reset: Vec<u8>,
    /// 1 at good books, where the value becomes a row of [`evaluate`].
    pub is_row: Vec<u8>,
}

/// Every call of an alpha's kernel on a tape.
///
/// # Errors
/// [`BatchError`] when config, tape or index are wrong, or the alpha has no kernel.
pub fn kernel_calls(
    tape: &[u8],
    config: &EngineConfig,
    kernels: &Kernels,
    alpha_index: usize,
) -> Result<KernelCalls, BatchError> {
    let alpha_count = config.alphas.len();
    let kernel = config
        .alphas
        .get(alpha_index)
        .and_then(|alpha| alpha.kernel.as_ref());
    let kernel = kernel.ok_or(BatchError::NoAlpha {
        alpha_index,
        alpha_count,
    })?;
    // The config was not validated yet, but a name that is no feature is refused below.
    let places: Vec<usize> = kernel
        .features
        .iter()
        .filter_map(|name| feature_id(name).map(usize::from))
        .collect();
    let mut calls = KernelCalls::default();
    let mut epoch = None;
    each_value(
        tape,
        config,
        kernels,
        alpha_index,
        |header, market, _, is_good_book| {
            let values = market.features.values();
            calls
                .features
                .extend(places.iter().map(|place| values[*place]));
            calls.now_ns.push(header.sequence_time_ns);
            calls.is_reset.push(u8::from(epoch != Some(market.epoch)));
            calls.is_row.push(u8::from(is_good_book));
            epoch = Some(market.epoch);
        },
    )?;
    Ok(calls)
}
