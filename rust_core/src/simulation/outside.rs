//! Requests from outside: an engine that lives elsewhere trades at the simulated exchange.
//!
//! Why: the live path has its own session, logs and dispatcher, and must meet the same exchange,
//! latency and faults as the simulated one.
//!
//! Invariants:
//! 1. A request takes the same way, delay and faults as one that was decided inside.
//! 2. A call that is not answered may have arrived; one that never arrives is not answered, unless
//!    it is a cancel, which a broker may take and lose.
//! 3. Nobody is told by itself what became of a lost request: it has to be asked for.
//!
//! Operator's page: `docs/brokers.md`.

use super::broker_book::BrokerBook;
use super::faulty::Faults;
use super::{Decide, Request, Simulation, SimulationError, Sink, Stretch};
use crate::exchange::{Venue, VenueInstrument};
use crate::faults::FaultProfile;
use crate::latency::LatencyKind;
use crate::record::{ActionKind, DecisionRecord};

/// What the caller of a broker learns from the call itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallAnswer {
    /// The broker has the request.
    Taken,
    /// Nothing came back in time.
    Unanswered,
    /// The exchange is closed and takes no more requests.
    Refused,
}

impl<D: Decide, V: Venue, S: Sink> Simulation<D, V, S> {
    /// Keeps a book of what the exchange knows.
    #[must_use]
    pub fn with_book(mut self) -> Self {
        self.book = Some(Box::default());
        self
    }

    /// As [`Self::with_faults`], for a market that requests come to from outside: nothing times out
    /// here and nothing resolves itself.
    ///
    /// # Errors
    /// [`SimulationError::Faults`] when the profile is not allowed.
    pub fn with_faults_to_ask_for(
        mut self,
        profile: Option<FaultProfile>,
        instruments: &[VenueInstrument],
    ) -> Result<Self, SimulationError> {
        if let Some(mut profile) = profile {
            profile.check()?;
            profile.timeout = None;
            let faults = Faults::new(profile, instruments.to_vec());
            if let Some(end_ns) = faults.session_end_ns() {
                self.requests.add(end_ns, Request::SessionEnd);
            }
            self.faults = Some(Box::new(faults));
        }
        Ok(self)
    }

    /// What the exchange knows, if a book is kept.
    #[must_use]
    pub fn book(&self) -> Option<&BrokerBook> {
        self.book.as_deref()
    }

    /// Takes a request that leaves at `decision.header.sequence_time_ns`, or now if that is past.
    ///
    /// # Errors
    /// [`SimulationError::Decision`] when the request is none.
    pub fn request(&mut self, decision: &DecisionRecord) -> Result<CallAnswer, SimulationError> {
        if self.stretch == Stretch::Ended {
            return Ok(CallAnswer::Refused);
        }
        let undispatched = self.counts.undispatched;
        let leaves_ns = self.now_ns.max(decision.header.sequence_time_ns);
        self.dispatch(decision, leaves_ns)?;
        if self.counts.undispatched > undispatched {
            return Ok(CallAnswer::Refused);
        }
        let kind = if decision.action == ActionKind::Cancel as u32 {
            LatencyKind::Cancel
        } else {
            LatencyKind::Place
        };
        let is_answered = self
            .faults
            .as_deref()
            .is_none_or(|faults| faults.is_call_answered(decision.order_id, kind));
        Ok(if is_answered {
            CallAnswer::Taken
        } else {
            CallAnswer::Unanswered
        })
    }
}
