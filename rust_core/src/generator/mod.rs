//! A seeded market: five-level books and prints of as many sessions as wanted, with an edge of
//! known strength, none, or one that dies.
//!
//! Why: the loop can be shown with nothing downloaded, and gates can be tested against the truth.
//!
//! Invariants:
//! 1. A session's bytes are a pure function of the parameters and its number; sessions can be made
//!    in any order, by any process, on any machine.
//! 2. Every book is valid: positive, ordered, not crossed, five levels a side, on the tick grid.
//! 3. Receive times increase strictly; records are ordered by them and numbered from 1.
//! 4. The mean mid move over the horizon, given the hidden state, is the strength that was asked
//!    for; without an edge it is zero (see `path`).
//!
//! It imitates TXF statistically and nothing more. Operator's page: `docs/generator.md`.

mod ladder;
mod params;
mod path;
mod prints;
mod rng;
#[cfg(test)]
mod tests;

pub use params::{Edge, GeneratorError, GeneratorParams, MarketModel, SessionTimes};

use ladder::{Ladder, QueueLaws};
use path::{Path, Step};
use prints::{Print, Prints};
use rng::{Purpose, Rng};

use crate::record::{BookRecord, Record, RecordHeader, TradeRecord, flags};

/// `RecordHeader::source_id` of generated records.
const SOURCE_ID: u16 = 2;

/// What nobody in the market sees, at one published book.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HiddenRow {
    /// Exchange time of the book, ns UTC.
    pub exchange_time_ns: i64,
    /// -1, 0 or +1.
    pub state: i64,
    /// Best bid plus best ask, ticks: twice the mid.
    pub mid_twice_ticks: i64,
    /// Integral of the drift since the session's first book, ticks.
    pub drift_ticks: f64,
}

/// The tape of one session.
///
/// A session opens at the mid at which the one before closed. Whoever makes them in order passes
/// that close as `opening_mid_twice` (best bid plus best ask, ticks); without it the earlier price
/// paths are walked again, with the same result.
///
/// # Errors
/// `NoSuchSession`, or `PriceExhausted` when the price wandered out of its range.
pub fn generate_session(
    params: &GeneratorParams,
    session_index: usize,
    opening_mid_twice: Option<i64>,
) -> Result<Vec<u8>, GeneratorError> {
    let mut path = open_path(params, session_index, opening_mid_twice)?;
    let mut writer = Writer::new(params, session_index)?;
    let Some(first) = path.next_step()? else {
        return Ok(Vec::new());
    };
    let mut market = Market::open(params, &first, session_index);
    writer.book(&first, &mut market);
    let mut before = first;
    while let Some(step) = path.next_step()? {
        market.advance(&before, &step);
        for print in &market.prints.rows {
            writer.trade(print, &mut market.rng);
        }
        writer.book(&step, &mut market);
        before = step;
    }
    Ok(writer.tape)
}

/// The hidden state of one session, a row for each book.
///
/// # Errors
/// As [`generate_session`].
pub fn generate_hidden_state(
    params: &GeneratorParams,
    session_index: usize,
    opening_mid_twice: Option<i64>,
) -> Result<Vec<HiddenRow>, GeneratorError> {
    let mut path = open_path(params, session_index, opening_mid_twice)?;
    let mut rows = Vec::new();
    while let Some(step) = path.next_step()? {
        rows.push(HiddenRow {
            exchange_time_ns: step.exchange_time_ns,
            state: step.state,
            mid_twice_ticks: step.mid_twice(),
            drift_ticks: step.drift_ticks,
        });
    }
    Ok(rows)
}

fn open_path(
    params: &GeneratorParams,
    session_index: usize,
    opening_mid_twice: Option<i64>,
) -> Result<Path<'_>, GeneratorError> {
    let opening = match opening_mid_twice {
        Some(mid_twice) => mid_twice,
        None => path::opening_mid_twice(params, session_index)?,
    };
    Path::new(params, session_index, opening)
}

/// Both sides of the displayed book and the prints between books.
struct Market<'a> {
    model: &'a MarketModel,
    laws: QueueLaws,
    tilts: [f64; 3],
    bids: Ladder,
    asks: Ladder,
    prints: Prints<'a>,
    rng: Rng,
}

impl<'a> Market<'a> {
    fn open(params: &'a GeneratorParams, first: &Step, session_index: usize) -> Self {
        let model = &params.model;
        let mut rng = Rng::new(params.seed, session_index as u64, Purpose::Flow);
        let laws = QueueLaws::new(model);
        let bids = Ladder::new(first.bid, -1, &laws, model, &mut rng);
        let asks = Ladder::new(first.ask, 1, &laws, model, &mut rng);
        let prints = Prints::new(model, &mut rng);
        let tilts = [
            libm::exp(model.queue_tilt),
            1.0,
            libm::exp(-model.queue_tilt),
        ];
        let mut market = Self {
            model,
            laws,
            tilts,
            bids,
            asks,
            prints,
            rng,
        };
        market.draw_queues(first);
        market
    }

    /// Prints since the last book, then the book as the step says.
    fn advance(&mut self, before: &Step, step: &Step) {
        self.prints.draw(before, step, &mut self.rng);
        let shown = (self.bids.shown(), self.asks.shown());
        let (sold, bought) = self.prints.consumed;
        self.bids.consume(sold);
        self.asks.consume(bought);
        if step.bid != before.bid {
            self.bids
                .move_best(step.bid, &self.laws, self.model, &mut self.rng);
        }
        if step.ask != before.ask {
            self.asks
                .move_best(step.ask, &self.laws, self.model, &mut self.rng);
        }
        self.bids
            .stir(step.bid_rank.is_none(), self.model, &mut self.rng);
        self.asks
            .stir(step.ask_rank.is_none(), self.model, &mut self.rng);
        self.draw_queues(step);
        if shown == (self.bids.shown(), self.asks.shown()) {
            let side = if self.rng.chance(0.5) {
                &mut self.bids
            } else {
                &mut self.asks
            };
            side.touch(&mut self.rng);
        }
    }

    /// Best queues drawn anew: the state tilts the rank, +1 makes bids long and asks short.
    fn draw_queues(&mut self, step: &Step) {
        let up = usize::try_from(step.state + 1).unwrap_or(1);
        if let Some(rank) = step.bid_rank {
            self.bids
                .set_best(libm::pow(rank, self.tilts[up]), &self.laws);
        }
        if let Some(rank) = step.ask_rank {
            self.asks
                .set_best(libm::pow(rank, self.tilts[2 - up]), &self.laws);
        }
    }
}

/// Writes records in order, with receive times and sequence numbers.
struct Writer<'a> {
    params: &'a GeneratorParams,
    header: RecordHeader,
    trade_id: u64,
    tape: Vec<u8>,
}

impl<'a> Writer<'a> {
    fn new(params: &'a GeneratorParams, session_index: usize) -> Result<Self, GeneratorError> {
        let times = params.session(session_index)?;
        let mut header = BookRecord::empty().header;
        header.instrument_id = params.instrument_id;
        header.source_id = SOURCE_ID;
        header.trading_day = times.trading_day;
        header.receive_time_ns = i64::MIN;
        Ok(Self {
            params,
            header,
            trade_id: 0,
            tape: Vec::with_capacity(1 << 20),
        })
    }

    /// The head of the next record.
    fn stamp(&mut self, exchange_time_ns: i64, rng: &mut Rng) -> RecordHeader {
        let model = &self.params.model;
        let jitter_us = model.feed_jitter_us * rng.exponential().min(20.0);
        #[allow(
            clippy::cast_possible_truncation,
            reason = "checked to be below a minute"
        )]
        let delay_ns = ((model.feed_delay_us + jitter_us) * 1_000.0) as i64;
        self.header.flags = if self.header.source_seq == 0 {
            flags::SESSION_START
        } else {
            0
        };
        self.header.source_seq += 1;
        self.header.exchange_time_ns = exchange_time_ns;
        self.header.receive_time_ns =
            (exchange_time_ns + delay_ns).max(self.header.receive_time_ns.saturating_add(1));
        self.header
    }

    fn book(&mut self, step: &Step, market: &mut Market<'_>) {
        let mut record = BookRecord::empty();
        let header = self.stamp(step.exchange_time_ns, &mut market.rng);
        record.header = RecordHeader {
            record_bytes: record.header.record_bytes,
            record_type: record.header.record_type,
            ..header
        };
        for (index, (bid, ask)) in market
            .bids
            .levels
            .iter()
            .zip(&market.asks.levels)
            .enumerate()
        {
            record.bid_price[index] = bid.price * self.params.tick_size;
            record.bid_qty[index] = bid.qty * self.params.lot_size;
            record.ask_price[index] = ask.price * self.params.tick_size;
            record.ask_qty[index] = ask.qty * self.params.lot_size;
        }
        self.tape.extend_from_slice(record.as_bytes());
    }

    fn trade(&mut self, print: &Print, rng: &mut Rng) {
        let mut record = TradeRecord::empty();
        let header = self.stamp(print.exchange_time_ns, rng);
        record.header = RecordHeader {
            record_bytes: record.header.record_bytes,
            record_type: record.header.record_type,
            ..header
        };
        self.trade_id += 1;
        record.price = print.price * self.params.tick_size;
        record.qty = print.qty * self.params.lot_size;
        record.trade_id = self.trade_id;
        record.aggressor_side = print.side;
        self.tape.extend_from_slice(record.as_bytes());
    }
}
