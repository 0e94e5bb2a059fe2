//! Broker quotes to records: what is in the fields comes out as a record, or as a reason why not.
//!
//! Why: a feed is hostile input. What reaches the engine must be a market that could exist, at an
//! exact price, on the right instrument and trading day; all else is counted by its code.
//!
//! Invariants:
//! 1. Same fields and receive times in the same order give the same records: there is no clock here.
//! 2. Every object fed is either published or dropped under one code; a drop changes no state but its
//!    counter.
//! 3. Published receive times grow; within a session's stream exchange time never goes back.
//! 4. A print is published only if the day's volume rose by it; a larger rise marks a gap.
//! 5. Nothing is allocated after construction, and nothing panics whatever the fields.
//!
//! It knows no Python (see `python/normaliser.rs`), and it leaves crossed and one-sided books to
//! `book`, which must know of them. Operator's page: `docs/normaliser.md`.

pub mod config;
pub mod decimal;
mod instrument;
mod local_time;
pub mod surface;

pub use local_time::LocalTime;

#[cfg(test)]
mod tests;

use crate::book::{VALUE_MAX, read_side};
use crate::normaliser::config::{NormaliserConfig, OnTotalMismatch};
use crate::normaliser::instrument::{Accepted, Directory, Instrument, Print};
use crate::normaliser::local_time::NS_PER_S;
use crate::normaliser::surface::QuoteClass;
use crate::reason::ReasonCode;
use crate::record::{BookRecord, LEVEL_COUNT, Record, RecordHeader, TradeRecord, flags};
use crate::ticks::TickLadder;

/// `RecordHeader::source_id` of a broker's feed.
pub const SOURCE_BROKER: u16 = 4;
/// Room for the market-data family of reason codes.
const CODE_COUNT: usize = 100;

/// What every object carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head<'a> {
    /// Class of the object.
    pub class: QuoteClass,
    /// Code of the contract.
    pub code: &'a str,
    /// Local date and time.
    pub time: LocalTime,
    /// Trial match before the open.
    pub is_simulated: bool,
    /// Trading of the stock is suspended.
    pub is_suspended: bool,
    /// Of the intraday odd-lot stream.
    pub is_odd_lot: bool,
}

/// A book as the SDK gives it: scaled prices, quantities in its own units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BookFields {
    /// Bid prices, best first, scaled.
    pub bid_price: [i64; LEVEL_COUNT],
    /// Bid quantities.
    pub bid_volume: [i64; LEVEL_COUNT],
    /// Ask prices, best first, scaled.
    pub ask_price: [i64; LEVEL_COUNT],
    /// Ask quantities.
    pub ask_volume: [i64; LEVEL_COUNT],
    /// Totals of bid and ask side, where the class has them.
    pub totals: Option<[i64; 2]>,
}

/// A print as the SDK gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TradeFields {
    /// Scaled.
    pub price: i64,
    /// Of this print.
    pub volume: i64,
    /// Of the day, this print included.
    pub total_volume: i64,
    /// 1 buyer aggressed, 2 seller aggressed, 0 unknown.
    pub tick_type: i64,
}

/// Bytes of the most that one object gives: a print and its book.
pub const OUTPUT_BYTES: usize = size_of::<TradeRecord>() + size_of::<BookRecord>();

/// Records of one object as a short tape, a print before its book. It is used again and again.
#[derive(Debug, Clone)]
pub struct Output {
    bytes: [u8; OUTPUT_BYTES],
    used: usize,
}

impl Default for Output {
    fn default() -> Self {
        Self {
            bytes: [0; OUTPUT_BYTES],
            used: 0,
        }
    }
}

impl Output {
    /// The tape; empty when the object was dropped.
    #[must_use]
    pub fn tape(&self) -> &[u8] {
        &self.bytes[..self.used]
    }

    /// Forgets what the last object gave.
    pub fn clear(&mut self) {
        self.used = 0;
    }

    fn push<R: Record>(&mut self, record: &R) {
        let end = self.used + size_of::<R>();
        self.bytes[self.used..end].copy_from_slice(record.as_bytes());
        self.used = end;
    }
}

/// What was counted; `published` and `dropped` add up to `fed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counters {
    /// Objects that came in.
    pub fed: u64,
    /// Objects of which one or two records came out.
    pub published: u64,
    /// Books that came out.
    pub books: u64,
    /// Prints that came out.
    pub trades: u64,
    /// Published records that are no price to trade on: trial match, pre-open or suspended.
    pub simulated: u64,
    /// Published records that got a later receive time than the clock said, to keep it growing.
    pub receive_time_moved: u64,
    dropped: [u64; CODE_COUNT],
    noted: [u64; CODE_COUNT],
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            fed: 0,
            published: 0,
            books: 0,
            trades: 0,
            simulated: 0,
            receive_time_moved: 0,
            dropped: [0; CODE_COUNT],
            noted: [0; CODE_COUNT],
        }
    }
}

fn slot(code: ReasonCode) -> usize {
    usize::from(code.code()) % CODE_COUNT
}

fn used(table: &[u64; CODE_COUNT]) -> Vec<(u16, u64)> {
    (0_u16..)
        .zip(table)
        .filter(|(_, count)| **count > 0)
        .map(|(slot, count)| (100 + slot, *count))
        .collect()
}

impl Counters {
    /// Objects dropped, by code.
    #[must_use]
    pub fn dropped(&self) -> Vec<(u16, u64)> {
        used(&self.dropped)
    }

    /// What was published although something was odd, by code.
    #[must_use]
    pub fn noted(&self) -> Vec<(u16, u64)> {
        used(&self.noted)
    }

    /// Objects dropped under all codes.
    #[must_use]
    pub fn dropped_count(&self) -> u64 {
        self.dropped.iter().sum()
    }

    fn note(&mut self, code: ReasonCode) {
        self.noted[slot(code)] += 1;
    }
}

/// Where and when an object belongs.
#[derive(Debug, Clone, Copy)]
struct Place {
    instrument: usize,
    session: usize,
    exchange_time_ns: i64,
    /// Bits of the header that follow from the head alone.
    flags: u32,
}

impl Place {
    fn is_simulated(self) -> bool {
        self.flags & flags::SIMULATED_MATCH != 0
    }
}

/// Turns fields into records, instrument by instrument.
#[derive(Debug)]
pub struct Normaliser {
    utc_offset_ns: i64,
    ahead_ns_max: i64,
    behind_ns_max: i64,
    on_total_mismatch: OnTotalMismatch,
    directory: Directory,
    last_receive_ns: i64,
    counters: Counters,
}

impl Normaliser {
    /// A normaliser that has seen nothing.
    #[must_use]
    pub fn new(config: &NormaliserConfig) -> Self {
        Self {
            // Bounded by the config's check.
            utc_offset_ns: config.utc_offset_s.saturating_mul(NS_PER_S),
            ahead_ns_max: config.exchange_ahead_ns_max,
            behind_ns_max: config.exchange_behind_ns_max,
            on_total_mismatch: config.on_total_mismatch,
            directory: Directory::new(&config.instruments),
            last_receive_ns: 0,
            counters: Counters::default(),
        }
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// An object whose fields could not be read, or that is of no class we know.
    pub fn on_unreadable(&mut self, code: ReasonCode) {
        self.counters.fed += 1;
        self.counters.dropped[slot(code)] += 1;
    }

    /// A book update.
    ///
    /// # Errors
    /// The code under which it was dropped and counted.
    pub fn on_book(
        &mut self,
        head: &Head<'_>,
        fields: &BookFields,
        receive_time_ns: i64,
        out: &mut Output,
    ) -> Result<(), ReasonCode> {
        self.counters.fed += 1;
        out.clear();
        let made = self.make_book(head, fields, receive_time_ns, out);
        self.close(made)
    }

    /// A print.
    ///
    /// # Errors
    /// The code under which it was dropped and counted.
    pub fn on_trade(
        &mut self,
        head: &Head<'_>,
        fields: &TradeFields,
        receive_time_ns: i64,
        out: &mut Output,
    ) -> Result<(), ReasonCode> {
        self.counters.fed += 1;
        out.clear();
        let made = self.make_trade(head, fields, receive_time_ns, out);
        self.close(made)
    }

    /// A combined update: its book, and its print if the day's volume says that it is a new one.
    ///
    /// # Errors
    /// The code under which all of it was dropped and counted.
    pub fn on_quote(
        &mut self,
        head: &Head<'_>,
        trade: &TradeFields,
        book: &BookFields,
        receive_time_ns: i64,
        out: &mut Output,
    ) -> Result<(), ReasonCode> {
        self.counters.fed += 1;
        out.clear();
        let made = self.make_quote(head, trade, book, receive_time_ns, out);
        self.close(made)
    }

    fn close(&mut self, made: Result<(), ReasonCode>) -> Result<(), ReasonCode> {
        match made {
            Ok(()) => self.counters.published += 1,
            Err(code) => self.counters.dropped[slot(code)] += 1,
        }
        made
    }

    fn make_book(
        &mut self,
        head: &Head<'_>,
        fields: &BookFields,
        receive_time_ns: i64,
        out: &mut Output,
    ) -> Result<(), ReasonCode> {
        let place = self.place(head, receive_time_ns)?;
        let instrument = self.directory.at(place.instrument);
        let mut record = book_of(instrument, fields)?;
        let is_total_wrong = fields.is_total_wrong();
        if is_total_wrong && self.on_total_mismatch == OnTotalMismatch::Drop {
            return Err(ReasonCode::BookTotalMismatch);
        }
        let mut stream = instrument.stream_in(place.session)?;
        let mut marks = 0;
        if !place.is_simulated() {
            marks = stream.take_book(place.exchange_time_ns, instrument.gap_ns())?;
        }
        instrument.stream = stream;
        if is_total_wrong {
            self.counters.note(ReasonCode::BookTotalMismatch);
        }
        self.finish_book(&mut record, place, marks, receive_time_ns, out);
        Ok(())
    }

    fn make_trade(
        &mut self,
        head: &Head<'_>,
        fields: &TradeFields,
        receive_time_ns: i64,
        out: &mut Output,
    ) -> Result<(), ReasonCode> {
        let place = self.place(head, receive_time_ns)?;
        let instrument = self.directory.at(place.instrument);
        let mut record = trade_of(instrument, fields)?;
        let mut stream = instrument.stream_in(place.session)?;
        let mut accepted = Accepted::default();
        if !place.is_simulated() {
            let print = fields.print_at(place.exchange_time_ns);
            accepted = stream.take_trade(print, instrument.gap_ns())?;
        }
        instrument.stream = stream;
        self.finish_trade(&mut record, place, accepted, receive_time_ns, out);
        Ok(())
    }

    fn make_quote(
        &mut self,
        head: &Head<'_>,
        trade: &TradeFields,
        book: &BookFields,
        receive_time_ns: i64,
        out: &mut Output,
    ) -> Result<(), ReasonCode> {
        let place = self.place(head, receive_time_ns)?;
        let instrument = self.directory.at(place.instrument);
        let mut book_record = book_of(instrument, book)?;
        // Before the first print of a day the last price is 0, with no volume.
        let trade_record = if trade.is_idle()? {
            None
        } else {
            Some(trade_of(instrument, trade)?)
        };
        let mut stream = instrument.stream_in(place.session)?;
        let (mut accepted, mut marks) = (None, 0);
        if !place.is_simulated() {
            let (time_ns, gap_ns) = (place.exchange_time_ns, instrument.gap_ns());
            accepted = stream.take_quote_trade(trade.print_at(time_ns), gap_ns)?;
            marks = stream.take_book(time_ns, gap_ns)?;
        }
        instrument.stream = stream;
        match (trade_record, accepted) {
            (Some(mut record), Some(accepted)) => {
                self.finish_trade(&mut record, place, accepted, receive_time_ns, out);
            }
            (None, Some(lost)) => {
                // The total rose without a print: what was traded is not known, only that it was.
                self.note_gap(lost);
                marks |= lost.marks;
            }
            (_, None) => {}
        }
        self.finish_book(&mut book_record, place, marks, receive_time_ns, out);
        Ok(())
    }

    fn finish_book(
        &mut self,
        record: &mut BookRecord,
        place: Place,
        marks: u32,
        receive_time_ns: i64,
        out: &mut Output,
    ) {
        self.counters.books += 1;
        self.stamp(&mut record.header, place, marks, receive_time_ns);
        out.push(record);
    }

    fn finish_trade(
        &mut self,
        record: &mut TradeRecord,
        place: Place,
        accepted: Accepted,
        receive_time_ns: i64,
        out: &mut Output,
    ) {
        self.counters.trades += 1;
        self.note_gap(accepted);
        let side = if record.aggressor_side == 0 {
            flags::SIDE_UNKNOWN
        } else {
            0
        };
        let marks = accepted.marks | side;
        self.stamp(&mut record.header, place, marks, receive_time_ns);
        out.push(record);
    }

    fn note_gap(&mut self, accepted: Accepted) {
        if accepted.has_volume_gap {
            self.counters.note(ReasonCode::TotalVolumeGap);
        }
    }

    /// Finds instrument, time and session of an object.
    fn place(&mut self, head: &Head<'_>, receive_time_ns: i64) -> Result<Place, ReasonCode> {
        let found = self
            .directory
            .find(head.class.market(), head.is_odd_lot, head.code)
            .ok_or(ReasonCode::UnknownInstrument)?;
        let exchange_time_ns = head.time.utc_ns(self.utc_offset_ns)?;
        let ahead_ns = exchange_time_ns.saturating_sub(receive_time_ns);
        if ahead_ns > self.ahead_ns_max {
            return Err(ReasonCode::ExchangeTimeAhead);
        }
        if ahead_ns < -self.behind_ns_max {
            return Err(ReasonCode::ExchangeTimeBehind);
        }
        let instrument = self.directory.at(found);
        let session = instrument
            .session_at(exchange_time_ns)
            .ok_or(ReasonCode::OutsideSession)?;
        let is_preopen = exchange_time_ns < instrument.session(session).start_ns;
        let mut bits = 0;
        if head.is_simulated || head.is_suspended || is_preopen {
            bits |= flags::SIMULATED_MATCH;
        }
        if head.is_odd_lot {
            bits |= flags::ODD_LOT;
        }
        Ok(Place {
            instrument: found,
            session,
            exchange_time_ns,
            flags: bits,
        })
    }

    /// Fills in the head of a record that is published for certain.
    fn stamp(&mut self, header: &mut RecordHeader, place: Place, marks: u32, receive_time_ns: i64) {
        let instrument = self.directory.at(place.instrument);
        header.instrument_id = instrument.instrument_id;
        header.trading_day = instrument.session(place.session).trading_day;
        header.source_seq = self.counters.fed;
        header.source_id = SOURCE_BROKER;
        header.exchange_time_ns = place.exchange_time_ns;
        header.flags = place.flags | marks;
        let next_ns = self.last_receive_ns.saturating_add(1);
        self.counters.receive_time_moved += u64::from(receive_time_ns < next_ns);
        self.counters.simulated += u64::from(place.is_simulated());
        self.last_receive_ns = receive_time_ns.max(next_ns);
        header.receive_time_ns = self.last_receive_ns;
    }
}

impl BookFields {
    /// Whether a side's total is there and not the sum of its quantities.
    fn is_total_wrong(&self) -> bool {
        // The quantities were checked: none is negative, and their products with the lot fit.
        let sum = |side: &[i64; LEVEL_COUNT]| side.iter().copied().fold(0, i64::saturating_add);
        self.totals
            .is_some_and(|totals| totals != [sum(&self.bid_volume), sum(&self.ask_volume)])
    }
}

impl TradeFields {
    fn print_at(&self, time_ns: i64) -> Print {
        Print {
            time_ns,
            volume: self.volume,
            total_volume: self.total_volume,
        }
    }

    /// Whether there is no print in a combined update, which still must not be malformed.
    fn is_idle(&self) -> Result<bool, ReasonCode> {
        if self.total_volume < 0 {
            return Err(ReasonCode::QtyNotPositive);
        }
        side_of(self.tick_type)?;
        Ok(self.volume == 0)
    }
}

fn side_of(tick_type: i64) -> Result<i64, ReasonCode> {
    match tick_type {
        0 => Ok(0),
        1 => Ok(1),
        2 => Ok(-1),
        _ => Err(ReasonCode::TickTypeInvalid),
    }
}

/// A quantity of the SDK in the record's unit; what is below zero stays so and is refused later.
fn scaled_qty(volume: i64, lot_size: i64) -> Result<i64, ReasonCode> {
    volume
        .checked_mul(lot_size)
        .ok_or(ReasonCode::ValueOutOfRange)
}

fn check_grid(price: i64, ticks: &TickLadder) -> Result<(), ReasonCode> {
    // A level without a price is 0.
    if price % ticks.tick_at(price) == 0 {
        Ok(())
    } else {
        Err(ReasonCode::PriceOffTickGrid)
    }
}

fn book_of(instrument: &Instrument, fields: &BookFields) -> Result<BookRecord, ReasonCode> {
    let mut record = BookRecord::empty();
    record.bid_price = fields.bid_price;
    record.ask_price = fields.ask_price;
    for level in 0..LEVEL_COUNT {
        record.bid_qty[level] = scaled_qty(fields.bid_volume[level], instrument.lot_size)?;
        record.ask_qty[level] = scaled_qty(fields.ask_volume[level], instrument.lot_size)?;
    }
    read_side(&record.bid_price, &record.bid_qty, -1)?;
    read_side(&record.ask_price, &record.ask_qty, 1)?;
    for price in record.bid_price.iter().chain(&record.ask_price) {
        check_grid(*price, &instrument.ticks)?;
    }
    Ok(record)
}

fn trade_of(instrument: &Instrument, fields: &TradeFields) -> Result<TradeRecord, ReasonCode> {
    let mut record = TradeRecord::empty();
    record.aggressor_side = side_of(fields.tick_type)?;
    record.price = fields.price;
    record.qty = scaled_qty(fields.volume, instrument.lot_size)?;
    // The day's volume names a print within its session.
    record.trade_id = u64::try_from(fields.total_volume).map_err(|_| ReasonCode::QtyNotPositive)?;
    if record.price <= 0 {
        return Err(ReasonCode::PriceNotPositive);
    }
    if record.qty <= 0 {
        return Err(ReasonCode::QtyNotPositive);
    }
    if record.price > VALUE_MAX || record.qty > VALUE_MAX {
        return Err(ReasonCode::ValueOutOfRange);
    }
    check_grid(record.price, &instrument.ticks)?;
    Ok(record)
}
