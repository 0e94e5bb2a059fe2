//! The paper exchange as a broker: requests come from outside, records go out, questions are answered.
//!
//! Why: the live path must be able to trade a whole day against the exchange, the latency and the
//! faults that research and paper sessions know, without an engine of that exchange's own.
//!
//! Invariants:
//! 1. There is one matching engine and one latency model: this only collects what a `Simulation`
//!    would tell its engine, one record at a time, and hands its requests over.
//! 2. A request leaves at the time of the last record that was handed out, or at a later one that
//!    the caller states: never in the past.
//! 3. A question is answered from the exchange's own book, whatever messages were lost.
//! 4. An order that is sent twice is there twice: a broker does not know what we meant.
//!
//! It knows no symbols, tags or accounts (see `hft_platform/order/paper_broker.py`). Operator's page:
//! `docs/brokers.md`.

use std::collections::BTreeMap;

use crate::convert::{ConvertCounts, MarketTape};
use crate::exchange::{CrateVenue, QueueModelKind, VenueInstrument};
use crate::faults::FaultProfile;
use crate::latency::LatencyProfile;
use crate::reason::ReasonCode;
use crate::record::{ActionKind, BrokerEventKind, DecisionRecord, Record, RecordHeader};
use crate::simulation::{
    BookedOrder, BrokerBook, CallAnswer, Decide, FaultReport, RunCounts, SessionHead, Simulation,
    SimulationError, Sink, SinkError,
};

/// Internal ids of orders that are not ours, or that were sent again: above all of ours.
const OWN_ID_FIRST: u64 = 1 << 63;

/// Keeps what reaches us until it is taken.
#[derive(Debug, Default)]
struct Mailbox {
    tape: Vec<u8>,
    last_time_ns: i64,
}

impl Decide for Mailbox {
    fn on_record(&mut self, header: &RecordHeader, bytes: &[u8], _out: &mut Vec<DecisionRecord>) {
        self.last_time_ns = header.sequence_time_ns;
        self.tape.extend_from_slice(bytes);
    }
}

/// Keeps nothing: the live session has the logs.
#[derive(Debug)]
struct NoSink;

impl Sink for NoSink {
    fn input(&mut self, _header: &RecordHeader, _bytes: &[u8]) -> Result<(), SinkError> {
        Ok(())
    }

    fn decisions(&mut self, _decisions: &[DecisionRecord]) -> Result<(), SinkError> {
        Ok(())
    }
}

type Exchange = Simulation<Mailbox, CrateVenue, NoSink>;

/// What an exchange is made of.
#[derive(Debug, Clone)]
pub struct ExchangeSetup {
    /// Delays of requests and reports.
    pub profile: LatencyProfile,
    /// How a place in the queue is estimated.
    pub queue_model: QueueModelKind,
    /// What goes wrong.
    pub faults: Option<FaultProfile>,
    /// What can be traded.
    pub instruments: Vec<VenueInstrument>,
    /// Trading day of the records made here.
    pub trading_day: u32,
}

/// An order to place.
#[derive(Debug, Clone, Copy)]
pub struct NewOrder {
    /// Ours; 0 for one that is none of ours.
    pub order_id: u64,
    /// What is traded.
    pub instrument_id: u32,
    /// +1 buy, -1 sell.
    pub side: i64,
    /// Limit price, scaled.
    pub price: i64,
    /// Quantity, scaled.
    pub qty: i64,
    /// `DecisionRecord::time_in_force`.
    pub time_in_force: u32,
}

/// Where an order stands, for those who ask.
#[derive(Debug, Clone)]
pub struct OrderView {
    /// The exchange's number of it; ours where it is ours and was sent once.
    pub id: u64,
    /// As it was sent.
    pub new: NewOrder,
    /// What the exchange knows; `None` while it is under way.
    pub booked: Option<BookedOrder>,
}

/// What an exchange leaves.
#[derive(Debug, Clone)]
pub struct ExchangeResult {
    /// Counters of the run.
    pub counts: RunCounts,
    /// What the market data left out.
    pub convert_counts: ConvertCounts,
    /// What went wrong.
    pub faults: Option<FaultReport>,
}

#[derive(Debug, Clone, Copy)]
struct Placed {
    new: NewOrder,
    is_answered: bool,
}

/// The exchange, before its first market record, and then.
#[derive(Debug)]
enum State {
    Ready(Box<ExchangeSetup>),
    Running(Box<Exchange>),
    Over,
}

/// The paper exchange as a broker.
#[derive(Debug)]
pub struct PaperExchange {
    state: State,
    profile: Option<FaultProfile>,
    placed: BTreeMap<u64, Placed>,
    own_ids: u64,
    query_count: u32,
}

impl PaperExchange {
    /// An exchange that waits for its market.
    ///
    /// # Errors
    /// [`SimulationError::Faults`] when the fault profile is not allowed.
    pub fn new(setup: ExchangeSetup) -> Result<Self, SimulationError> {
        if let Some(profile) = &setup.faults {
            profile.check()?;
        }
        Ok(Self {
            profile: setup.faults.clone(),
            state: State::Ready(Box::new(setup)),
            placed: BTreeMap::new(),
            own_ids: 0,
            query_count: 0,
        })
    }

    /// Takes market records in receive order; with `more` others follow.
    ///
    /// # Errors
    /// As [`Simulation::feed`]; `Ended` after the end.
    pub fn feed(&mut self, tape: Vec<u8>, more: bool) -> Result<(), SimulationError> {
        match &mut self.state {
            State::Running(exchange) => {
                if !tape.is_empty() || more {
                    exchange.feed(tape)?;
                }
                if !more {
                    exchange.end_feed();
                }
                Ok(())
            }
            State::Over => Err(SimulationError::Ended),
            State::Ready(setup) => {
                let venue = CrateVenue::new(setup.queue_model, &setup.instruments)?;
                let head = SessionHead {
                    trading_day: setup.trading_day,
                    ..SessionHead::default()
                };
                let parts = (Mailbox::default(), venue, NoSink);
                let exchange =
                    Simulation::new(MarketTape::new(tape)?, head, setup.profile.clone(), parts)
                        .with_book()
                        .with_faults_to_ask_for(setup.faults.clone(), &setup.instruments)?;
                let exchange = if more {
                    exchange.with_open_feed()
                } else {
                    exchange
                };
                self.state = State::Running(Box::new(exchange));
                Ok(())
            }
        }
    }

    /// Lets time pass until `records_max` records have reached us, or up to and including
    /// `limit_ns`, and gives what did; nothing when nothing came.
    ///
    /// # Errors
    /// As [`Simulation::run`].
    pub fn next(
        &mut self,
        limit_ns: Option<i64>,
        records_max: u64,
    ) -> Result<Vec<u8>, SimulationError> {
        let State::Running(exchange) = &mut self.state else {
            return Ok(Vec::new());
        };
        exchange.run(limit_ns, records_max)?;
        Ok(std::mem::take(&mut exchange.decider_mut().tape))
    }

    /// Sends a new order, at the time of the last record or at `now_ns` if that is later; gives the
    /// exchange's number of it.
    ///
    /// # Errors
    /// [`SimulationError`] when the exchange cannot go on.
    pub fn place(
        &mut self,
        new: NewOrder,
        now_ns: Option<i64>,
    ) -> Result<(u64, CallAnswer), SimulationError> {
        let mut id = new.order_id;
        if id == 0 || id >= OWN_ID_FIRST || self.placed.contains_key(&id) {
            id = OWN_ID_FIRST + self.own_ids;
            self.own_ids += 1;
        }
        let answer = self.send(id, &new, ActionKind::Place, now_ns)?;
        let is_answered = answer == CallAnswer::Taken;
        if answer != CallAnswer::Refused {
            self.placed.insert(id, Placed { new, is_answered });
        }
        Ok((id, answer))
    }

    /// Asks for the rest of an order to be canceled; `None` when there is no such order.
    ///
    /// # Errors
    /// [`SimulationError`] when the exchange cannot go on.
    pub fn cancel(
        &mut self,
        id: u64,
        now_ns: Option<i64>,
    ) -> Result<Option<CallAnswer>, SimulationError> {
        let Some(placed) = self.placed.get(&id).copied() else {
            return Ok(None);
        };
        self.send(id, &placed.new, ActionKind::Cancel, now_ns)
            .map(Some)
    }

    fn send(
        &mut self,
        id: u64,
        new: &NewOrder,
        action: ActionKind,
        now_ns: Option<i64>,
    ) -> Result<CallAnswer, SimulationError> {
        let State::Running(exchange) = &mut self.state else {
            return Ok(CallAnswer::Refused);
        };
        let mut request = DecisionRecord::empty();
        request.header.instrument_id = new.instrument_id;
        let last_ns = exchange.decider().last_time_ns;
        request.header.sequence_time_ns = now_ns.unwrap_or(last_ns).max(last_ns);
        request.order_id = id;
        request.action = action as u32;
        request.side = new.side;
        request.price = new.price;
        request.qty = new.qty;
        request.time_in_force = new.time_in_force;
        exchange.request(&request)
    }

    /// Every order that the broker knows of: those at the exchange, and those under way whose call
    /// was answered. `None` when the question fails.
    pub fn orders(&mut self) -> Option<Vec<OrderView>> {
        if self.is_query_lost() {
            return None;
        }
        let book = self.book();
        let views = self.placed.iter().filter_map(|(id, placed)| {
            let booked = book.and_then(|book| book.orders().get(id)).cloned();
            (placed.is_answered || booked.is_some()).then_some(OrderView {
                id: *id,
                new: placed.new,
                booked,
            })
        });
        Some(views.collect())
    }

    /// Net position an instrument; `None` when the question fails.
    pub fn positions(&mut self) -> Option<BTreeMap<u32, i64>> {
        if self.is_query_lost() {
            return None;
        }
        Some(self.truth())
    }

    /// Net position an instrument: what the exchange knows, without a question that could fail.
    #[must_use]
    pub fn truth(&self) -> BTreeMap<u32, i64> {
        self.book()
            .map(|book| book.positions().clone())
            .unwrap_or_default()
    }

    /// Whether this question fails; each has a draw of its own.
    fn is_query_lost(&mut self) -> bool {
        self.query_count = self.query_count.saturating_add(1);
        let nth = self.query_count;
        let profile = self.profile.as_ref();
        profile.is_some_and(|profile| profile.is_query_lost(OWN_ID_FIRST, nth))
    }

    fn book(&self) -> Option<&BrokerBook> {
        match &self.state {
            State::Running(exchange) => exchange.book(),
            _ => None,
        }
    }

    /// Simulated time; 0 before the first market record.
    #[must_use]
    pub fn now_ns(&self) -> i64 {
        match &self.state {
            State::Running(exchange) => exchange.progress().now_ns,
            _ => 0,
        }
    }

    /// Nothing is left to happen.
    #[must_use]
    pub fn is_done(&self) -> bool {
        match &self.state {
            State::Running(exchange) => exchange.progress().is_done,
            State::Ready(_) => false,
            State::Over => true,
        }
    }

    /// Ends it and gives its counters; nothing the second time.
    pub fn finish(&mut self) -> Option<ExchangeResult> {
        let State::Running(exchange) = std::mem::replace(&mut self.state, State::Over) else {
            return None;
        };
        let finished = exchange.finish();
        Some(ExchangeResult {
            counts: finished.counts,
            convert_counts: finished.convert_counts,
            faults: finished.faults,
        })
    }
}

impl OrderView {
    /// What the exchange last said of it; `None` while it is under way.
    #[must_use]
    pub fn status(&self) -> Option<BrokerEventKind> {
        self.booked.as_ref().map(|booked| booked.status)
    }

    /// Why it was refused, else 0.
    #[must_use]
    pub fn reason(&self) -> ReasonCode {
        self.booked
            .as_ref()
            .map_or(ReasonCode::Unset, |booked| booked.reason)
    }
}

#[cfg(test)]
mod tests;
