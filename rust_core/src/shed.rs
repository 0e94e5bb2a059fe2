//! Shedding: market records that are sequenced and decided on but left out of the log, on record,
//! when its disk runs full.
//!
//! Why: a log that stops is worse than a log that says where it is thin. What is left out can not be
//! replayed, so whatever depends on it may only make positions smaller, and the log names the hole.
//!
//! Invariants:
//! 1. Nothing of an instrument is left out without a [`Restriction`]: the engine approves nothing
//!    that opens a position in it, and the command that made it so is durable in the order log.
//! 2. Every record left out is counted in exactly one SHED record of its instrument and topic, whose
//!    range starts and ends at records left out.
//! 3. Only books and prints are left out: timers, contracts and all of the order log never are.
//!
//! It reads no disk and decides no level (see `hft_platform/recorder/disk_monitor.py`). Operator's
//! page: `docs/disk-pressure.md`.

use crate::engine::Engine;
use crate::reason::ReasonCode;
use crate::record::{BookRecord, Record, RecordHeader, RecordType, ShedRecord};
use crate::wal::{WalError, Writer};

/// Records left out before a SHED record says so: what a crash leaves unexplained is below this.
pub const SHED_COUNT_MAX: u64 = 4_096;
const TOPIC_COUNT: usize = 3;

/// What can be left out, in the order in which it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Topic {
    /// Books whose best level is that of the last book stored.
    Depth = 1,
    /// Books.
    Books = 2,
    /// Prints.
    Trades = 3,
}

impl Topic {
    /// All, in the order in which they are left out.
    pub const ALL: [Self; TOPIC_COUNT] = [Self::Depth, Self::Books, Self::Trades];

    const fn place(self) -> usize {
        self as usize - 1
    }

    /// `depth`, `books` or `trades`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Depth => "depth",
            Self::Books => "books",
            Self::Trades => "trades",
        }
    }
}

/// A set of topics that is left out: always the first ones of the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Topics(u8);

impl Topics {
    /// Nothing is left out.
    pub const NONE: Self = Self(0);

    /// Every topic up to this one; `None` when there is none of that name.
    #[must_use]
    pub fn up_to(name: &str) -> Option<Self> {
        let topic = Topic::ALL.into_iter().find(|topic| topic.name() == name)?;
        Some(Self(topic as u8))
    }

    /// Whether a topic is among them.
    #[must_use]
    pub fn holds(self, topic: Topic) -> bool {
        topic as u8 <= self.0
    }
}

/// Why nothing may be left out.
#[derive(Debug, thiserror::Error)]
pub enum ShedError {
    /// The engine may still open a position.
    #[error(
        "instrument {instrument_id} is not reduce-only, so nothing of it is left out of the log"
    )]
    NotRestricted {
        /// Which.
        instrument_id: u32,
    },
    /// The order log could not be made durable.
    #[error(transparent)]
    Wal(Box<WalError>),
}

impl ShedError {
    /// Its number.
    #[must_use]
    pub fn code(&self) -> ReasonCode {
        match self {
            Self::NotRestricted { .. } => ReasonCode::ShedNotPermitted,
            Self::Wal(error) => error.code(),
        }
    }
}

/// Proof that an instrument can only be made smaller, in the engine and on disk. It cannot be made
/// without both, nor copied, and [`Shedder::begin`] takes it.
#[derive(Debug)]
pub struct Restriction {
    instrument_id: u32,
}

impl Restriction {
    /// Makes everything in the order log durable and asks the engine.
    ///
    /// # Errors
    /// [`ShedError`]; nothing may be left out then.
    pub fn prove(engine: &Engine, orders: &Writer, instrument_id: u32) -> Result<Self, ShedError> {
        if !engine.is_restricted(instrument_id) {
            return Err(ShedError::NotRestricted { instrument_id });
        }
        orders
            .sync()
            .map_err(|error| ShedError::Wal(Box::new(error)))?;
        Ok(Self { instrument_id })
    }
}

/// One run of records left out.
#[derive(Debug, Clone, Copy, Default)]
struct Span {
    first_seq: u64,
    last_seq: u64,
    count: u64,
}

/// What is left out of one instrument.
#[derive(Debug)]
struct Shedding {
    instrument_id: u32,
    topics: Topics,
    level: u32,
    reason: ReasonCode,
    spans: [Span; TOPIC_COUNT],
    /// Best level of the last book stored: bid price and quantity, ask price and quantity.
    best: Option<[i64; 4]>,
}

fn best_of(book: &BookRecord) -> [i64; 4] {
    let first = |levels: [i64; 5]| {
        let [best, ..] = levels;
        best
    };
    [
        first(book.bid_price),
        first(book.bid_qty),
        first(book.ask_price),
        first(book.ask_qty),
    ]
}

impl Shedding {
    /// The topic under which a record is left out, if it is.
    fn topic_of(&mut self, header: &RecordHeader, bytes: &[u8]) -> Option<Topic> {
        match RecordType::from_code(header.record_type) {
            Some(RecordType::Trade) if self.topics.holds(Topic::Trades) => Some(Topic::Trades),
            Some(RecordType::Book) if self.topics.holds(Topic::Books) => Some(Topic::Books),
            Some(RecordType::Book) => {
                let best = BookRecord::read(bytes).map(|book| best_of(&book))?;
                if self.best == Some(best) {
                    return Some(Topic::Depth);
                }
                self.best = Some(best);
                None
            }
            _ => None,
        }
    }

    fn close(&mut self, topic: Topic) -> Option<ShedRecord> {
        let span = std::mem::take(self.spans.get_mut(topic.place())?);
        if span.count == 0 {
            return None;
        }
        let mut record = ShedRecord::empty();
        record.header.instrument_id = self.instrument_id;
        record.topic = topic as u32;
        record.level = self.level;
        record.first_seq = span.first_seq;
        record.last_seq = span.last_seq;
        record.count = span.count;
        record.reason_code = u64::from(self.reason.code());
        Some(record)
    }
}

/// Decides what is left out and keeps the account of it.
#[derive(Debug, Default)]
pub struct Shedder {
    sheddings: Vec<Shedding>,
    /// Finished runs that the order log does not name yet.
    owed: Vec<ShedRecord>,
    shed_counts: [u64; TOPIC_COUNT],
}

impl Shedder {
    /// Begins or changes what is left out of an instrument.
    pub fn begin(
        &mut self,
        restriction: Restriction,
        topics: Topics,
        level: u32,
        reason: ReasonCode,
    ) {
        let instrument_id = restriction.instrument_id;
        self.end(instrument_id);
        if topics == Topics::NONE {
            return;
        }
        self.sheddings.push(Shedding {
            instrument_id,
            topics,
            level,
            reason,
            spans: [Span::default(); TOPIC_COUNT],
            best: None,
        });
        // What one record can finish, so that nothing grows while records are taken.
        self.owed.reserve(self.sheddings.len() * TOPIC_COUNT);
    }

    /// Leaves nothing of an instrument out any more.
    pub fn end(&mut self, instrument_id: u32) {
        self.end_where(|own| own == instrument_id);
    }

    /// Leaves nothing out any more.
    pub fn end_all(&mut self) {
        self.end_where(|_| true);
    }

    /// Leaves nothing out any more of what something has freed in the engine.
    pub fn end_unrestricted(&mut self, engine: &Engine) {
        self.end_where(|instrument_id| !engine.is_restricted(instrument_id));
    }

    fn end_where(&mut self, is_meant: impl Fn(u32) -> bool) {
        let Self {
            sheddings, owed, ..
        } = self;
        sheddings.retain_mut(|shedding| {
            if !is_meant(shedding.instrument_id) {
                return true;
            }
            owed.extend(
                Topic::ALL
                    .into_iter()
                    .filter_map(|topic| shedding.close(topic)),
            );
            false
        });
    }

    /// Number of instruments of which something is left out.
    #[must_use]
    pub fn active_count(&self) -> usize {
        self.sheddings.len()
    }

    /// Whether a sequenced record is to be left out; if so it is counted as such.
    pub fn leaves_out(&mut self, header: &RecordHeader, bytes: &[u8]) -> bool {
        if self.sheddings.is_empty() {
            return false;
        }
        let is_meant = |shedding: &&mut Shedding| shedding.instrument_id == header.instrument_id;
        let Some(shedding) = self.sheddings.iter_mut().find(is_meant) else {
            return false;
        };
        let Some(topic) = shedding.topic_of(header, bytes) else {
            return false;
        };
        let place = topic.place();
        if let Some(count) = self.shed_counts.get_mut(place) {
            *count = count.saturating_add(1);
        }
        let Some(span) = shedding.spans.get_mut(place) else {
            return false;
        };
        if span.count == 0 {
            span.first_seq = header.input_seq;
        }
        span.last_seq = header.input_seq;
        span.count += 1;
        if span.count >= SHED_COUNT_MAX {
            self.owed.extend(shedding.close(topic));
        }
        true
    }

    /// The next SHED record that the order log has to hold.
    pub fn owed(&mut self) -> Option<ShedRecord> {
        self.owed.pop()
    }

    /// How many records were left out so far, by topic.
    #[must_use]
    pub fn shed_counts(&self) -> [(Topic, u64); TOPIC_COUNT] {
        let [depth, books, trades] = self.shed_counts;
        [
            (Topic::Depth, depth),
            (Topic::Books, books),
            (Topic::Trades, trades),
        ]
    }
}

#[cfg(test)]
mod tests;
