//! One code: its units and sessions, and how far its stream has come.
//!
//! Why: duplicates, gaps and stale messages are told from what came before on the same instrument in
//! the same session, and from nothing else.
//!
//! Invariants:
//! 1. A stream is copied, moved on and stored back, so a message that is refused leaves it as it was.
//! 2. A new session starts over: exchange times, total volume and marks.
//! 3. Trial matches move nothing.
//!
//! It converts no value (see the parent module). Operator's page: `docs/normaliser.md`.

use crate::normaliser::config::{CODE_BYTES_MAX, InstrumentEntry, Market, SessionWindow};
use crate::reason::ReasonCode;
use crate::record::flags;
use crate::ticks::TickLadder;

/// Kinds of streams a code can have: futures, stock, stock odd lots.
const STREAM_KINDS: usize = 3;

/// All codes, and the way from a code to its instrument.
#[derive(Debug)]
pub(super) struct Directory {
    instruments: Box<[Instrument]>,
    /// Sorted keys with places in `instruments`.
    keys: Box<[(Key, usize)]>,
    /// Last place in `keys` that was found, for each kind: most messages repeat the code.
    hints: [usize; STREAM_KINDS],
}

/// Kind of stream, then the code's bytes, zero-padded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    kind: usize,
    code: u128,
}

impl Key {
    fn new(market: Market, is_odd_lot: bool, code: &str) -> Option<Self> {
        let mut padded = [0; CODE_BYTES_MAX];
        padded
            .get_mut(..code.len())?
            .copy_from_slice(code.as_bytes());
        let kind = match (market, is_odd_lot) {
            (Market::Futures, _) => 0,
            (Market::Stock, false) => 1,
            (Market::Stock, true) => 2,
        };
        Some(Self {
            kind,
            code: u128::from_le_bytes(padded),
        })
    }
}

impl Directory {
    /// A directory of checked entries.
    pub(super) fn new(entries: &[InstrumentEntry]) -> Self {
        let mut keys: Vec<(Key, usize)> = entries
            .iter()
            .enumerate()
            .filter_map(|(place, entry)| {
                Some((
                    Key::new(entry.market, entry.is_odd_lot, &entry.code)?,
                    place,
                ))
            })
            .collect();
        keys.sort_unstable();
        Self {
            instruments: entries.iter().map(Instrument::new).collect(),
            keys: keys.into(),
            hints: [0; STREAM_KINDS],
        }
    }

    /// The instrument of a code.
    pub(super) fn find(&mut self, market: Market, is_odd_lot: bool, code: &str) -> Option<usize> {
        let key = Key::new(market, is_odd_lot, code)?;
        let hint = &mut self.hints[key.kind];
        match self.keys.get(*hint) {
            Some((known, place)) if *known == key => Some(*place),
            _ => {
                *hint = self.keys.binary_search_by_key(&key, |row| row.0).ok()?;
                Some(self.keys[*hint].1)
            }
        }
    }

    /// An instrument that `find` gave.
    pub(super) fn at(&mut self, place: usize) -> &mut Instrument {
        &mut self.instruments[place]
    }
}

/// One instrument with its stream.
#[derive(Debug)]
pub(super) struct Instrument {
    pub(super) instrument_id: u32,
    pub(super) lot_size: i64,
    pub(super) ticks: TickLadder,
    gap_ns: i64,
    sessions: Box<[SessionWindow]>,
    pub(super) stream: Stream,
}

impl Instrument {
    fn new(entry: &InstrumentEntry) -> Self {
        Self {
            instrument_id: entry.instrument_id,
            lot_size: entry.lot_size,
            ticks: entry
                .tick_bands
                .unwrap_or_else(|| TickLadder::flat(entry.tick_size)),
            gap_ns: entry.gap_ns,
            sessions: entry.sessions.clone().into(),
            stream: Stream::of_session(0),
        }
    }

    /// Place of the session, or its pre-open window, that holds a moment.
    pub(super) fn session_at(&self, time_ns: i64) -> Option<usize> {
        let holds = |window: &SessionWindow| (window.preopen_ns..window.end_ns).contains(&time_ns);
        let current = self.stream.session;
        if self.sessions.get(current).is_some_and(holds) {
            return Some(current);
        }
        let behind = self
            .sessions
            .partition_point(|window| window.preopen_ns <= time_ns);
        let place = behind.checked_sub(1)?;
        holds(&self.sessions[place]).then_some(place)
    }

    /// A session that `session_at` gave.
    pub(super) fn session(&self, place: usize) -> &SessionWindow {
        &self.sessions[place]
    }

    /// A copy of the stream as it stands in a session, new if the session is.
    ///
    /// # Errors
    /// `OutOfOrderRow` for a session that is over.
    pub(super) fn stream_in(&self, session: usize) -> Result<Stream, ReasonCode> {
        match session.cmp(&self.stream.session) {
            std::cmp::Ordering::Less => Err(ReasonCode::OutOfOrderRow),
            std::cmp::Ordering::Equal => Ok(self.stream),
            std::cmp::Ordering::Greater => Ok(Stream::of_session(session)),
        }
    }

    /// Silence after which time windows start over.
    pub(super) fn gap_ns(&self) -> i64 {
        self.gap_ns
    }
}

/// A print as far as the order of prints goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Print {
    pub(super) time_ns: i64,
    pub(super) volume: i64,
    pub(super) total_volume: i64,
}

/// What a print's total volume says about the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Accepted {
    /// `SESSION_START`, `GAP_BEFORE` or nothing.
    pub(super) marks: u32,
    /// Prints are missing before this one.
    pub(super) has_volume_gap: bool,
}

/// How far one instrument has come in one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stream {
    session: usize,
    is_started: bool,
    latest_ns: i64,
    book_ns: i64,
    trade_ns: i64,
    total_volume: Option<i64>,
}

impl Stream {
    fn of_session(session: usize) -> Self {
        Self {
            session,
            is_started: false,
            latest_ns: i64::MIN,
            book_ns: i64::MIN,
            trade_ns: i64::MIN,
            total_volume: None,
        }
    }

    /// Moves on by a book.
    pub(super) fn take_book(&mut self, time_ns: i64, gap_ns: i64) -> Result<u32, ReasonCode> {
        if time_ns < self.book_ns {
            return Err(ReasonCode::OutOfOrderRow);
        }
        self.book_ns = time_ns;
        Ok(self.advance(time_ns, gap_ns, false))
    }

    /// Moves on by a print; the first of a session sets the total volume.
    pub(super) fn take_trade(&mut self, print: Print, gap_ns: i64) -> Result<Accepted, ReasonCode> {
        let has_volume_gap = self.volume_gap(print)?;
        if print.time_ns < self.trade_ns {
            return Err(ReasonCode::OutOfOrderRow);
        }
        self.total_volume = Some(print.total_volume);
        self.trade_ns = print.time_ns;
        let marks = self.advance(print.time_ns, gap_ns, has_volume_gap);
        Ok(Accepted {
            marks,
            has_volume_gap,
        })
    }

    /// Moves on by the print inside a combined update, or finds that it is none.
    ///
    /// The first update of a session shows a print of unknown age, so it only sets the total volume.
    pub(super) fn take_quote_trade(
        &mut self,
        print: Print,
        gap_ns: i64,
    ) -> Result<Option<Accepted>, ReasonCode> {
        if self.total_volume.is_none() {
            self.volume_gap(print)?;
            self.total_volume = Some(print.total_volume);
        }
        if self.total_volume == Some(print.total_volume) {
            return Ok(None);
        }
        self.take_trade(print, gap_ns).map(Some)
    }

    /// Whether prints are missing before this one, by the rule that the total rises by the volume.
    fn volume_gap(&self, print: Print) -> Result<bool, ReasonCode> {
        if print.total_volume < print.volume {
            return Err(ReasonCode::TotalVolumeBroken);
        }
        let Some(last) = self.total_volume else {
            return Ok(false);
        };
        if print.total_volume == last {
            return Err(ReasonCode::DuplicateRow);
        }
        if print.total_volume < last {
            return Err(ReasonCode::OutOfOrderRow);
        }
        // Neither is negative and total is the larger, so the difference fits.
        let before = print.total_volume - print.volume;
        if before < last {
            return Err(ReasonCode::TotalVolumeBroken);
        }
        Ok(before > last)
    }

    fn advance(&mut self, time_ns: i64, gap_ns: i64, has_volume_gap: bool) -> u32 {
        let is_silent = time_ns.saturating_sub(self.latest_ns) > gap_ns;
        let marks = if !self.is_started {
            flags::SESSION_START
        } else if is_silent || has_volume_gap {
            flags::GAP_BEFORE
        } else {
            0
        };
        self.is_started = true;
        self.latest_ns = self.latest_ns.max(time_ns);
        marks
    }
}
