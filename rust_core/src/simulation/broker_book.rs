//! What the exchange knows of every order that reached it: states, fills, positions.
//!
//! Why: whoever asks a broker is told the truth of the exchange, whatever messages were lost on the
//! way to us; our own books are judged against it.
//!
//! Invariants:
//! 1. It is made of reports as the exchange made them, before any of them is lost, late or doubled.
//! 2. Executions of one order differ in what is left open behind them, so this names an execution.
//! 3. Positions are the sum of all executions.
//!
//! It delays and loses nothing. Operator's page: `docs/brokers.md`.

use std::collections::BTreeMap;

use crate::exchange::{VenueOrder, VenueReport};
use crate::reason::ReasonCode;
use crate::record::BrokerEventKind;

/// An order at the exchange.
#[derive(Debug, Clone)]
pub struct BookedOrder {
    /// As it was sent.
    pub order: VenueOrder,
    /// The last that happened to it; a refused cancel is nothing.
    pub status: BrokerEventKind,
    /// Why it was refused, else 0.
    pub reason: ReasonCode,
    /// Executions, in order.
    pub fills: Vec<VenueReport>,
}

impl BookedOrder {
    /// Executed so far.
    #[must_use]
    pub fn filled_qty(&self) -> i64 {
        self.fills.iter().map(|fill| fill.qty).sum()
    }
}

/// Every order that reached the exchange, and what they made of the account.
#[derive(Debug, Clone, Default)]
pub struct BrokerBook {
    orders: BTreeMap<u64, BookedOrder>,
    positions: BTreeMap<u32, i64>,
}

impl BrokerBook {
    /// Orders by id.
    #[must_use]
    pub fn orders(&self) -> &BTreeMap<u64, BookedOrder> {
        &self.orders
    }

    /// Signed position an instrument.
    #[must_use]
    pub fn positions(&self) -> &BTreeMap<u32, i64> {
        &self.positions
    }

    /// Takes a report as the exchange made it.
    pub(super) fn take(&mut self, order: &VenueOrder, report: &VenueReport) {
        let booked = self
            .orders
            .entry(order.order_id)
            .or_insert_with(|| BookedOrder {
                order: *order,
                status: BrokerEventKind::Working,
                reason: ReasonCode::Unset,
                fills: Vec::new(),
            });
        match report.kind {
            BrokerEventKind::CancelRejected | BrokerEventKind::Unknown => return,
            BrokerEventKind::Fill => {
                booked.fills.push(*report);
                *self.positions.entry(order.instrument_id).or_default() += order.side * report.qty;
            }
            _ => booked.reason = report.reason,
        }
        booked.status = report.kind;
    }
}
