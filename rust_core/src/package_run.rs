//! The package by itself: decisions go in when they are made, its own latency model and its own
//! scheduler do the rest.
//!
//! Why: the paper exchange is compared with the package, not with our loop around the package. Here
//! nothing of ours delays a request, orders events or matches; only the decisions are given.
//!
//! Invariants:
//! 1. A request is handed over at the decision's `sequence_time_ns`, in decision order.
//! 2. An order has one outcome, read after everything has happened; it is never cleared before.
//! 3. Any return code but 0 ends the run.
//!
//! It compares nothing (see `research/backtest/package_agreement.py`). Operator's page:
//! `docs/backtest.md`.

use std::collections::BTreeMap;

use bytemuck::{Pod, Zeroable};

use crate::exchange::{OrderLife, VenueError, VenueOrder};
use crate::package_venue::PackageVenue;
use crate::record::{ActionKind, DecisionRecord};

/// `DecisionRecord::verdict` of an approval.
const APPROVED: u32 = 1;

/// What became of one order in the package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct PackageOutcome {
    /// Which order.
    pub order_id: u64,
    /// A `BrokerEventKind`: fill, working, canceled, expired or rejected.
    pub event_kind: u64,
    /// Fill price, else the order's price.
    pub price: i64,
    /// Filled quantity, else the order's quantity.
    pub qty: i64,
    /// When, on the exchange's clock.
    pub exchange_time_ns: i64,
    /// 1 if the fill was passive.
    pub is_maker: u64,
}

/// Names and numpy formats of [`PackageOutcome`].
pub const PACKAGE_OUTCOME_FIELDS: [(&str, &str); 6] = [
    ("order_id", "<u8"),
    ("event_kind", "<u8"),
    ("price", "<i8"),
    ("qty", "<i8"),
    ("exchange_time_ns", "<i8"),
    ("is_maker", "<u8"),
];

fn order_of(decision: &DecisionRecord) -> VenueOrder {
    VenueOrder {
        order_id: decision.order_id,
        instrument_id: decision.header.instrument_id,
        side: decision.side,
        price: decision.price,
        qty: decision.qty,
        // What no venue knows never was approved (see `simulation`).
        life: OrderLife::from_code(decision.time_in_force).unwrap_or(OrderLife::RestOfDay),
    }
}

/// Drives the package by the approved ones of `decisions`, which are in time order; outcomes come
/// in order id order.
///
/// # Errors
/// [`VenueError::Package`] when the package refuses a call, [`VenueError::UnknownInstrument`] when
/// a decision is for another instrument than the package has.
#[cfg_attr(
    not(feature = "python"),
    expect(dead_code, reason = "only the bindings can have a native run")
)]
pub(crate) fn drive(
    package: &mut PackageVenue,
    decisions: &[DecisionRecord],
) -> Result<Vec<PackageOutcome>, VenueError> {
    let mut orders = BTreeMap::new();
    for decision in decisions
        .iter()
        .filter(|decision| decision.verdict == APPROVED)
    {
        let now_ns = decision.header.sequence_time_ns;
        let order = order_of(decision);
        package.require_instrument(order.instrument_id)?;
        if decision.action == ActionKind::Cancel as u32 {
            package.request_cancel(order.order_id, now_ns)?;
        } else {
            package.submit(&order, now_ns)?;
            orders.insert(order.order_id, order);
        }
    }
    package.go_to_end()?;
    orders
        .values()
        .map(|order| {
            let report = package.outcome(order)?;
            Ok(PackageOutcome {
                order_id: report.order_id,
                event_kind: report.kind as u64,
                price: report.price,
                qty: report.qty,
                exchange_time_ns: report.exchange_time_ns,
                is_maker: u64::from(report.is_maker),
            })
        })
        .collect()
}
