//! The market in pieces: pushed while the simulation runs.
//!
//! Why: a live feed has no end to wait for, and must give the same session as its recording.
//!
//! Invariants:
//! 1. While the feed is open the market never ends; when it is closed, it ended with its last row.
//! 2. A refused piece leaves the feed as it was.
//!
//! It promises nothing about time: whoever runs it does (see `Simulation::run`). Operator's page:
//! `docs/backtest.md`.

use super::{DRAIN_NS_MAX, Decide, Simulation, SimulationError, Sink, Stretch};
use crate::exchange::Venue;

impl<D: Decide, V: Venue, S: Sink> Simulation<D, V, S> {
    /// The tape is the beginning of the market; more comes by [`Self::feed`].
    #[must_use]
    pub fn with_open_feed(mut self) -> Self {
        self.is_feed_open = true;
        self
    }

    /// Takes what was received next. A record of a time that was run through already happens now.
    ///
    /// # Errors
    /// [`SimulationError::Feed`] when the feed is not open, [`SimulationError::Tape`] when the
    /// bytes are no market tape in receive order; nothing of them is taken then.
    pub fn feed(&mut self, bytes: Vec<u8>) -> Result<(), SimulationError> {
        if !self.is_feed_open {
            return Err(SimulationError::Feed {
                action: "feed",
                state: "the market has ended",
            });
        }
        Ok(self.tape.append(bytes, self.exchange_next)?)
    }

    /// Nothing more is received: what waits is played to its end.
    pub fn end_feed(&mut self) {
        if std::mem::take(&mut self.is_feed_open) {
            self.drain_after_market(self.last_market_ns);
        }
    }

    /// True while more of the market may come.
    #[must_use]
    pub fn is_feed_open(&self) -> bool {
        self.is_feed_open
    }

    /// Once the last row of the market has happened, requests may work for a while.
    pub(super) fn drain_after_market(&mut self, ended_ns: i64) {
        let has_market = self.is_feed_open
            || self.local_next < self.tape.local().len()
            || self.exchange_next < self.tape.exchange().len();
        if self.stretch == Stretch::Market && !has_market {
            self.stretch = Stretch::Draining(ended_ns + DRAIN_NS_MAX);
        }
    }
}
