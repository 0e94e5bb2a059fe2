//! One instrument inside the engine: its book, its features, its reference data.

use crate::book::{Book, VALUE_MAX, starts_over};
use crate::engine::InstrumentConfig;
use crate::features::FeatureSet;
use crate::reason::ReasonCode;
use crate::record::{BookRecord, InstrumentRecord, RecordHeader, TradeRecord, flags};
use crate::ticks::TickLadder;

/// How far our clock was from the exchange's, with the way of the record in it.
///
/// A source without exchange times says so by its flag and gives the receive time instead; a record
/// that just lacks one has no skew that could be known.
fn clock_skew_ns(header: &RecordHeader) -> Option<i64> {
    let has_both = header.exchange_time_ns > 0 && header.receive_time_ns > 0;
    has_both.then(|| {
        header
            .receive_time_ns
            .saturating_sub(header.exchange_time_ns)
    })
}

/// Book and features of one instrument, fed by its records.
#[derive(Debug, Clone)]
pub struct Market {
    /// Reference data.
    pub instrument: InstrumentConfig,
    /// The prices that its orders may have.
    pub ticks: TickLadder,
    /// The book.
    pub book: Book,
    /// The features.
    pub features: FeatureSet,
    /// False once the feed resolved another contract than the config.
    pub has_reference: bool,
    /// Receive time minus exchange time of the last snapshot; `None` when it carried none.
    pub clock_skew_ns: Option<i64>,
    /// Grows when book and features start over.
    pub epoch: u64,
}

impl Market {
    /// An instrument without any record yet.
    #[must_use]
    pub fn new(instrument: InstrumentConfig) -> Self {
        let features = FeatureSet::new(instrument.tick_size, instrument.lot_size);
        Self {
            ticks: instrument.ticks(),
            instrument,
            book: Book::default(),
            features,
            has_reference: true,
            clock_skew_ns: None,
            epoch: 0,
        }
    }

    /// Best price on the other side of an order, of the last book that was stored; 0 without one.
    #[must_use]
    pub fn opposite_best(&self, side: i64) -> i64 {
        if side > 0 {
            self.book.best_ask()
        } else {
            self.book.best_bid()
        }
    }

    /// Base of the dynamic price band: the last print, or the mid before the first.
    #[must_use]
    pub fn band_base(&self) -> Option<i64> {
        self.book.last_trade_price().or_else(|| self.book.mid())
    }

    fn start_over_if_told(&mut self, header: &RecordHeader) {
        if starts_over(header) {
            self.start_over();
        }
    }

    fn start_over(&mut self) {
        self.book.reset();
        self.features.reset();
        self.epoch += 1;
    }

    /// Takes a snapshot.
    ///
    /// # Errors
    /// The code of what is wrong with it; the book is then invalid.
    pub fn on_book(
        &mut self,
        header: &RecordHeader,
        record: &BookRecord,
    ) -> Result<(), ReasonCode> {
        self.start_over_if_told(header);
        self.clock_skew_ns = clock_skew_ns(header);
        let stored = self.book.on_book(record, header.sequence_time_ns);
        self.features.on_book(&self.book, header.sequence_time_ns);
        stored
    }

    /// Takes a market print.
    ///
    /// # Errors
    /// The code of what is wrong with it; it was ignored.
    pub fn on_trade(
        &mut self,
        header: &RecordHeader,
        record: &TradeRecord,
    ) -> Result<(), ReasonCode> {
        self.start_over_if_told(header);
        if header.flags & flags::SIMULATED_MATCH != 0 {
            return Err(ReasonCode::SimulatedMatch);
        }
        if record.price <= 0 {
            return Err(ReasonCode::PriceNotPositive);
        }
        if record.qty <= 0 {
            return Err(ReasonCode::QtyNotPositive);
        }
        if record.price > VALUE_MAX || record.qty > VALUE_MAX {
            return Err(ReasonCode::ValueOutOfRange);
        }
        if !(-1..=1).contains(&record.aggressor_side) {
            return Err(ReasonCode::SchemaMismatch);
        }
        self.book.on_trade(record.price);
        self.features
            .on_trade(record.qty, record.aggressor_side, header.sequence_time_ns);
        Ok(())
    }

    /// Takes the contract that the session resolved.
    ///
    /// # Errors
    /// [`ReasonCode::ConfigWrongInstrument`] when it is not the config's; no order passes then.
    pub fn on_instrument(&mut self, record: &InstrumentRecord) -> Result<(), ReasonCode> {
        let symbol = record
            .symbol
            .split(|byte| *byte == 0)
            .next()
            .unwrap_or_default();
        let is_same = symbol == self.instrument.symbol.as_bytes()
            && record.tick_size == self.instrument.tick_size
            && record.multiplier == self.instrument.multiplier;
        self.has_reference = is_same;
        self.start_over();
        if is_same {
            Ok(())
        } else {
            Err(ReasonCode::ConfigWrongInstrument)
        }
    }
}
