//! Five-level snapshots and trades as hftbacktest event rows, by the published-set diff.
//!
//! Why: clearing and re-sending a book destroys every queue position, and a naive diff deletes the
//! levels that merely scroll out of the window, which puts a resting order at the queue's front.
//! So only what changed is emitted, and a level that left the window stays as last seen.
//!
//! Invariants, after the last row of each snapshot:
//! 1. Every shown level is published with the shown quantity.
//! 2. Nothing is published better than the shown best.
//! 3. Inside the shown window exactly the shown ticks are published; a side that shows fewer than
//!    five levels ends there, so nothing is published beyond it either.
//! 4. Rows come in exchange order: by exchange time, trades before books, then tape order.
//!
//! It drops what cannot be a market (crossed, simulated, off the grid) and counts it; it decides
//! nothing about our orders. Operator's page: `docs/backtest.md`.

use std::collections::BTreeMap;

use bytemuck::{Pod, Zeroable};

use crate::exchange::float;
use crate::latency::DELAY_NS_MAX;
use crate::reason::ReasonCode;
use crate::record::{
    BookRecord, LEVEL_COUNT, Record, RecordHeader, RecordType, Tape, TapeError, TradeRecord, flags,
};

/// One row of the hftbacktest package, 64 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct EventRow {
    /// Kind in the low byte, flags above.
    pub ev: u64,
    /// Exchange time, ns.
    pub exch_ts: i64,
    /// Receive time, ns.
    pub local_ts: i64,
    /// Price.
    pub px: f64,
    /// Quantity; 0 deletes a level.
    pub qty: f64,
    /// Unused: market-by-order feeds only.
    pub order_id: u64,
    /// Unused.
    pub ival: i64,
    /// Unused.
    pub fval: f64,
}

const _: () = assert!(size_of::<EventRow>() == 64);

/// Row kinds and flags of the package.
pub mod event {
    /// A level's new quantity.
    pub const DEPTH: u64 = 1;
    /// A market print.
    pub const TRADE: u64 = 2;
    /// The book starts over.
    pub const DEPTH_CLEAR: u64 = 3;
    /// The exchange's side processes the row.
    pub const EXCHANGE: u64 = 1 << 31;
    /// Bid side of a level, or a buyer as aggressor.
    pub const BUY: u64 = 1 << 29;
    /// Ask side of a level, or a seller as aggressor.
    pub const SELL: u64 = 1 << 28;
}

/// Latest time a tape may hold: requests and responses that follow it must still fit the clock.
pub const TIME_NS_MAX: i64 = i64::MAX - 8 * DELAY_NS_MAX;

/// Bytes of one session's tape, whole or pushed in pieces: some ten million records.
pub const TAPE_BYTES_MAX: usize = 2 << 30;

/// Why a tape cannot be converted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// The bytes are no tape.
    #[error(transparent)]
    Tape(#[from] TapeError),
    /// A record that is not market data.
    #[error(
        "market tape holds a record of type {record_type} at row {row}; only books and trades belong there"
    )]
    NotMarketData {
        /// Its type code.
        record_type: u8,
        /// Place in the tape.
        row: usize,
    },
    /// Receive time goes back.
    #[error(
        "market tape is not in receive order: row {row} is at {time_ns}, the one before at {previous_ns}"
    )]
    OutOfOrder {
        /// Place in the tape.
        row: usize,
        /// Its receive time.
        time_ns: i64,
        /// The receive time before.
        previous_ns: i64,
    },
    /// Nothing in it.
    #[error("market tape is empty")]
    Empty,
    /// A time so late that nothing could follow it.
    #[error("market tape: row {row} is at time {time_ns}, at most {max} is allowed", max = TIME_NS_MAX)]
    TimeOutOfRange {
        /// Place in the tape.
        row: usize,
        /// Its time.
        time_ns: i64,
    },
    /// More than one session may hold.
    #[error("market tape would hold {bytes} bytes, at most {max} are allowed", max = TAPE_BYTES_MAX)]
    TooLarge {
        /// How many.
        bytes: usize,
    },
    /// Sizes that are no sizes.
    #[error("{field} of instrument {instrument_id} was {value}, must be above 0")]
    SizeNotPositive {
        /// Which.
        field: &'static str,
        /// Whose.
        instrument_id: u32,
        /// Its value.
        value: i64,
    },
}

impl ConvertError {
    /// Its number.
    #[must_use]
    pub fn code(&self) -> ReasonCode {
        match self {
            Self::Tape(_) | Self::NotMarketData { .. } | Self::Empty => ReasonCode::SchemaMismatch,
            Self::TimeOutOfRange { .. } => ReasonCode::ValueOutOfRange,
            Self::OutOfOrder { .. } => ReasonCode::OutOfOrderRow,
            Self::TooLarge { .. } => ReasonCode::CapacityReached,
            Self::SizeNotPositive { .. } => ReasonCode::SettingsInvalid,
        }
    }
}

/// A market tape with its two orders: as received (its own) and as it happened.
#[derive(Debug)]
pub struct MarketTape {
    bytes: Vec<u8>,
    local: Vec<(i64, usize)>,
    exchange: Vec<(i64, usize)>,
}

impl MarketTape {
    /// Checks and indexes a tape.
    ///
    /// # Errors
    /// [`ConvertError`] when it is empty or holds anything but books and trades in receive order.
    pub fn new(bytes: Vec<u8>) -> Result<Self, ConvertError> {
        let mut tape = Self {
            bytes: Vec::new(),
            local: Vec::new(),
            exchange: Vec::new(),
        };
        tape.append(bytes, 0)?;
        if tape.local.is_empty() {
            return Err(ConvertError::Empty);
        }
        Ok(tape)
    }

    /// Adds what was received later. The first `exchange_done` rows of the exchange order have
    /// happened and keep their places; what is new takes its place among the others.
    ///
    /// # Errors
    /// As [`Self::new`]; nothing is added then.
    pub fn append(&mut self, bytes: Vec<u8>, exchange_done: usize) -> Result<(), ConvertError> {
        let base = self.bytes.len();
        let total = base + bytes.len();
        if total > TAPE_BYTES_MAX {
            return Err(ConvertError::TooLarge { bytes: total });
        }
        let mut local: Vec<(i64, usize)> = Vec::new();
        let mut keyed: Vec<(i64, u8, usize)> = Vec::new();
        let mut offset = base;
        let mut previous_ns = self.local.last().map_or(0, |last| last.0);
        for (index, item) in Tape::new(&bytes).enumerate() {
            let row = self.local.len() + index;
            let (header, record) = item?;
            let time_ns = header.receive_time_ns;
            let Some(rank) = rank(&header) else {
                return Err(ConvertError::NotMarketData {
                    record_type: header.record_type,
                    row,
                });
            };
            if time_ns < previous_ns {
                return Err(ConvertError::OutOfOrder {
                    row,
                    time_ns,
                    previous_ns,
                });
            }
            let latest_ns = time_ns.max(header.exchange_time_ns);
            if latest_ns > TIME_NS_MAX {
                return Err(ConvertError::TimeOutOfRange {
                    row,
                    time_ns: latest_ns,
                });
            }
            local.push((time_ns, offset));
            keyed.push((header.exchange_time_ns, rank, offset));
            previous_ns = time_ns;
            offset += record.len();
        }
        if self.bytes.is_empty() {
            self.bytes = bytes;
        } else {
            self.bytes.extend_from_slice(&bytes);
        }
        self.local.append(&mut local);
        // What waits already is sorted in again: it is little unless whole tapes are pushed.
        for (time_ns, at) in self
            .exchange
            .split_off(exchange_done.min(self.exchange.len()))
        {
            let rank = self.record(at).and_then(|(header, _)| rank(&header));
            keyed.push((time_ns, rank.unwrap_or(0), at));
        }
        keyed.sort_unstable();
        self.exchange
            .extend(keyed.into_iter().map(|(time_ns, _, at)| (time_ns, at)));
        Ok(())
    }

    /// `(receive_time_ns, byte offset)` in receive order.
    #[must_use]
    pub fn local(&self) -> &[(i64, usize)] {
        &self.local
    }

    /// `(exchange_time_ns, byte offset)` in exchange order.
    #[must_use]
    pub fn exchange(&self) -> &[(i64, usize)] {
        &self.exchange
    }

    /// The record at one of these offsets.
    #[must_use]
    pub fn record(&self, offset: usize) -> Option<(RecordHeader, &[u8])> {
        Tape::new(self.bytes.get(offset..)?).next()?.ok()
    }

    /// Receive time of the first record.
    #[must_use]
    pub fn first_receive_ns(&self) -> i64 {
        self.local.first().map_or(0, |row| row.0)
    }
}

/// At one exchange time trades come before books, which show what they left.
fn rank(header: &RecordHeader) -> Option<u8> {
    match RecordType::from_code(header.record_type) {
        Some(RecordType::Trade) => Some(0),
        Some(RecordType::Book) => Some(1),
        _ => None,
    }
}

/// What a conversion left out, and what it had to decide.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConvertCounts {
    /// Snapshots converted.
    pub snapshots: u64,
    /// Trades converted.
    pub trades: u64,
    /// Snapshots left out: best bid at or above best ask.
    pub crossed: u64,
    /// Records left out: simulated match or odd lot.
    pub not_tradable: u64,
    /// Records left out: a price off the tick grid or levels out of order.
    pub malformed: u64,
    /// Trades without a side, classified by the quote rule.
    pub classified: u64,
    /// Trades without a side and exactly at the mid, or before any book: they fill nothing.
    pub unclassified: u64,
}

impl ConvertCounts {
    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            snapshots: self.snapshots + other.snapshots,
            trades: self.trades + other.trades,
            crossed: self.crossed + other.crossed,
            not_tradable: self.not_tradable + other.not_tradable,
            malformed: self.malformed + other.malformed,
            classified: self.classified + other.classified,
            unclassified: self.unclassified + other.unclassified,
        }
    }
}

/// One side of the published set. Keys are ticks on the bid and negated ticks on the ask, so that
/// a larger key is always the better price.
#[derive(Debug, Default)]
struct PublishedSide {
    levels: BTreeMap<i64, i64>,
    gone: Vec<i64>,
}

impl PublishedSide {
    /// Keys to delete for a snapshot that shows `shown` (best first), worst first.
    fn deletes(&mut self, shown: &[(i64, i64)]) -> &[i64] {
        self.gone.clear();
        // A side that shows fewer levels than the window has ends at its last one.
        let from = match shown.last() {
            Some(worst) if shown.len() == LEVEL_COUNT => worst.0,
            _ => i64::MIN,
        };
        for key in self.levels.range(from..).map(|level| *level.0) {
            if !shown.iter().any(|level| level.0 == key) {
                self.gone.push(key);
            }
        }
        for key in &self.gone {
            self.levels.remove(key);
        }
        &self.gone
    }

    /// True when `key` was published with another quantity; publishes it.
    fn publish(&mut self, key: i64, qty: i64) -> bool {
        self.levels.insert(key, qty) != Some(qty)
    }
}

/// Levels a snapshot shows on one side, best first, as `(key, qty)`.
#[derive(Debug, Default, Clone, Copy)]
struct Shown {
    levels: [(i64, i64); LEVEL_COUNT],
    count: usize,
}

impl Shown {
    /// `None` when a price is off the grid or the levels are not in order.
    fn new(
        prices: &[i64; LEVEL_COUNT],
        quantities: &[i64; LEVEL_COUNT],
        tick_size: i64,
        sign: i64,
    ) -> Option<Self> {
        let mut shown = Self::default();
        for (price, qty) in prices.iter().zip(quantities) {
            if *price <= 0 || *qty <= 0 {
                continue;
            }
            if price % tick_size != 0 {
                return None;
            }
            let key = price / tick_size * sign;
            if shown.as_slice().last().is_some_and(|last| last.0 <= key) {
                return None;
            }
            shown.levels[shown.count] = (key, *qty);
            shown.count += 1;
        }
        Some(shown)
    }

    fn as_slice(&self) -> &[(i64, i64)] {
        &self.levels[..self.count]
    }

    fn best(&self) -> Option<i64> {
        self.as_slice().first().map(|level| level.0)
    }
}

/// Converts one instrument's records of one session, in exchange order.
#[derive(Debug)]
pub struct Converter {
    instrument_id: u32,
    tick_size: i64,
    bids: PublishedSide,
    asks: PublishedSide,
    started: bool,
    /// Best bid and ask ticks of the last converted snapshot, for the quote rule.
    quote: Option<(i64, i64)>,
    counts: ConvertCounts,
}

/// Whether a record may not move a market or fill an order.
pub(crate) fn is_not_tradable(header: &RecordHeader) -> bool {
    header.flags & (flags::SIMULATED_MATCH | flags::ODD_LOT) != 0
}

impl Converter {
    /// A converter for one instrument.
    ///
    /// # Errors
    /// [`ConvertError::SizeNotPositive`] when tick or lot is not above 0.
    pub fn new(instrument_id: u32, tick_size: i64, lot_size: i64) -> Result<Self, ConvertError> {
        for (field, value) in [("tick_size", tick_size), ("lot_size", lot_size)] {
            if value <= 0 {
                return Err(ConvertError::SizeNotPositive {
                    field,
                    instrument_id,
                    value,
                });
            }
        }
        Ok(Self {
            instrument_id,
            tick_size,
            bids: PublishedSide::default(),
            asks: PublishedSide::default(),
            started: false,
            quote: None,
            counts: ConvertCounts::default(),
        })
    }

    /// What was converted and left out so far.
    #[must_use]
    pub fn counts(&self) -> ConvertCounts {
        self.counts
    }

    /// Appends the rows of one record; records of other instruments give none.
    pub fn push(&mut self, header: &RecordHeader, bytes: &[u8], rows: &mut Vec<EventRow>) {
        if header.instrument_id != self.instrument_id {
            return;
        }
        if !self.started || header.flags & flags::SESSION_START != 0 {
            self.start_over(header, rows);
        }
        if is_not_tradable(header) {
            self.counts.not_tradable += 1;
        } else if let Some(book) = BookRecord::read(bytes) {
            self.push_book(&book, rows);
        } else if let Some(trade) = TradeRecord::read(bytes) {
            self.push_trade(&trade, rows);
        }
    }

    fn start_over(&mut self, header: &RecordHeader, rows: &mut Vec<EventRow>) {
        self.started = true;
        self.bids = PublishedSide::default();
        self.asks = PublishedSide::default();
        self.quote = None;
        rows.push(row(header, event::DEPTH_CLEAR, 0.0, 0.0));
    }

    fn push_book(&mut self, book: &BookRecord, rows: &mut Vec<EventRow>) {
        let (Some(bids), Some(asks)) = (
            Shown::new(&book.bid_price, &book.bid_qty, self.tick_size, 1),
            Shown::new(&book.ask_price, &book.ask_qty, self.tick_size, -1),
        ) else {
            self.counts.malformed += 1;
            return;
        };
        let best = bids.best().zip(asks.best().map(|key| -key));
        if best.is_some_and(|(bid, ask)| bid >= ask) {
            self.counts.crossed += 1;
            return;
        }
        self.counts.snapshots += 1;
        self.quote = best;
        let header = &book.header;
        let tick = self.tick_size;
        // Deletes of both sides come first, so no new level ever meets a stale opposite one.
        for key in self.bids.deletes(bids.as_slice()) {
            rows.push(row(
                header,
                event::DEPTH | event::BUY,
                float(key * tick),
                0.0,
            ));
        }
        for key in self.asks.deletes(asks.as_slice()) {
            rows.push(row(
                header,
                event::DEPTH | event::SELL,
                float(-key * tick),
                0.0,
            ));
        }
        for (key, qty) in bids.as_slice() {
            if self.bids.publish(*key, *qty) {
                rows.push(row(
                    header,
                    event::DEPTH | event::BUY,
                    float(key * tick),
                    float(*qty),
                ));
            }
        }
        for (key, qty) in asks.as_slice() {
            if self.asks.publish(*key, *qty) {
                rows.push(row(
                    header,
                    event::DEPTH | event::SELL,
                    float(-key * tick),
                    float(*qty),
                ));
            }
        }
    }

    fn push_trade(&mut self, trade: &TradeRecord, rows: &mut Vec<EventRow>) {
        if trade.price <= 0 || trade.qty <= 0 || trade.price % self.tick_size != 0 {
            self.counts.malformed += 1;
            return;
        }
        let side = match trade.aggressor_side {
            1.. => event::BUY,
            ..=-1 => event::SELL,
            0 => match self.quote_rule(trade.price / self.tick_size) {
                Some(side) => {
                    self.counts.classified += 1;
                    side
                }
                None => {
                    self.counts.unclassified += 1;
                    return;
                }
            },
        };
        self.counts.trades += 1;
        rows.push(row(
            &trade.header,
            event::TRADE | side,
            float(trade.price),
            float(trade.qty),
        ));
    }

    /// Nearer to the ask is a buyer, nearer to the bid a seller (Lee and Ready 1991, without the
    /// tick test: at the mid nobody knows).
    fn quote_rule(&self, tick: i64) -> Option<u64> {
        let (bid, ask) = self.quote?;
        match (2 * tick).cmp(&(bid + ask)) {
            std::cmp::Ordering::Greater => Some(event::BUY),
            std::cmp::Ordering::Less => Some(event::SELL),
            std::cmp::Ordering::Equal => None,
        }
    }
}

fn row(header: &RecordHeader, kind: u64, px: f64, qty: f64) -> EventRow {
    EventRow {
        ev: kind | event::EXCHANGE,
        exch_ts: header.exchange_time_ns,
        local_ts: header.receive_time_ns,
        px,
        qty,
        order_id: 0,
        ival: 0,
        fval: 0.0,
    }
}

/// Rows of one instrument's session, in exchange order.
///
/// # Errors
/// [`ConvertError::SizeNotPositive`] when tick or lot is not above 0.
pub fn convert_tape(
    tape: &MarketTape,
    instrument_id: u32,
    tick_size: i64,
    lot_size: i64,
) -> Result<(Vec<EventRow>, ConvertCounts), ConvertError> {
    let mut converter = Converter::new(instrument_id, tick_size, lot_size)?;
    let mut rows = Vec::with_capacity(tape.exchange.len() * 2);
    for (_, offset) in &tape.exchange {
        if let Some((header, bytes)) = tape.record(*offset) {
            converter.push(&header, bytes, &mut rows);
        }
    }
    Ok((rows, converter.counts))
}

#[cfg(test)]
mod tests;
