//! Gateway state: orders, exposure, counted fills and decided intents.
//!
//! Why: an order that might still be filled is exposure, whether or not anybody answered.
//!
//! Invariants:
//! 1. Open buy and sell quantities equal the sums over open orders, unknown ones included.
//! 2. A fill counts once (by broker sequence), and a fill that happened counts even when late; one
//!    that is too far back to tell is not counted and says so.
//! 3. Every state and event pair has a row in `state::TRANSITIONS`; what does not fit is counted.
//! 4. Tables are of fixed size; a full table refuses the next order.
//! 5. An intent that was decided is never decided again (see `intents`).
//!
//! It sends nothing. Operator's pages: `docs/reason-codes.md`, 3xx, and `docs/storm-guard.md`.

mod account;
mod fills;
mod intents;
mod policy;
mod position;
mod state;

pub use account::{Account, LossLimits, WaitingExit};
pub use fills::{FILL_COUNT_MAX, FillNumbers, Standing};
pub use intents::{IntentMarks, STREAM_COUNT_MAX};
pub use policy::{
    POLICY_ROWS, PolicyRow, PolicyState, RESUME_ROWS, Request, ResumeEvent, ResumeOutcome,
    ResumeState, passes, policy_state, resume_step,
};
pub use position::{Money, Position};
pub use state::{OrderEvent, OrderState, TRANSITIONS, transition};

use crate::reason::ReasonCode;
use crate::record::{BrokerEventKind, BrokerRecord};

/// Slots for orders, open and recently done.
pub const ORDER_COUNT_MAX: usize = 1_024;
/// Open orders of one engine.
pub const OPEN_COUNT_MAX: usize = 64;
/// Bits of an order id below the alpha's index.
const COUNTER_BITS: u32 = 48;
const COUNTER_MASK: u64 = (1 << COUNTER_BITS) - 1;

const _: () = assert!(OPEN_COUNT_MAX < ORDER_COUNT_MAX);
const _: () = assert!(ORDER_COUNT_MAX.is_power_of_two());

/// One of our orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// Its id, never 0.
    pub order_id: u64,
    /// The intent it came from.
    pub intent_id: u64,
    /// Which alpha.
    pub alpha_index: u32,
    /// Place of the instrument in the engine.
    pub market_index: usize,
    /// +1 buy, -1 sell.
    pub side: i64,
    /// Limit price.
    pub price: i64,
    /// Ordered quantity.
    pub qty: i64,
    /// Filled quantity, at most `qty`.
    pub filled_qty: i64,
    /// Where it is.
    pub state: OrderState,
    /// 1 rest of day, 2 immediate or cancel.
    pub time_in_force: u32,
}

impl Order {
    /// Quantity that can still be filled.
    #[must_use]
    pub fn remaining_qty(&self) -> i64 {
        self.qty - self.filled_qty
    }
}

/// What [`Gateway::place`] needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewOrder {
    /// The intent it comes from.
    pub intent_id: u64,
    /// Which alpha.
    pub alpha_index: u32,
    /// Place of the instrument in the engine.
    pub market_index: usize,
    /// +1 buy, -1 sell.
    pub side: i64,
    /// Limit price.
    pub price: i64,
    /// Quantity, positive.
    pub qty: i64,
    /// 1 rest of day, 2 immediate or cancel.
    pub time_in_force: u32,
}

/// What a broker event changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokerOutcome {
    /// The order after the event.
    pub order: Order,
    /// Quantity to add to the position, 0 when nothing was filled.
    pub fill_qty: i64,
    /// What did not fit, to be counted.
    pub code: Option<ReasonCode>,
}

/// Open quantities of one alpha.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exposure {
    /// Open buy quantity.
    pub buy_qty: i64,
    /// Open sell quantity.
    pub sell_qty: i64,
}

impl Exposure {
    fn add(&mut self, side: i64, qty: i64) {
        if side > 0 {
            self.buy_qty += qty;
        } else {
            self.sell_qty += qty;
        }
        assert!(
            self.buy_qty >= 0,
            "Invariant: open buy quantity is not negative"
        );
        assert!(
            self.sell_qty >= 0,
            "Invariant: open sell quantity is not negative"
        );
    }

    /// Open quantity on `side`.
    #[must_use]
    pub fn on_side(&self, side: i64) -> i64 {
        if side > 0 {
            self.buy_qty
        } else {
            self.sell_qty
        }
    }
}

/// Orders and exposure of an engine.
#[derive(Debug, Clone)]
pub struct Gateway {
    orders: Box<[Option<Order>]>,
    /// Slots of open orders, oldest first.
    open: Vec<u16>,
    /// Open orders in [`OrderState::Unknown`].
    unknown_count: usize,
    next_counter: u64,
    exposures: Box<[Exposure]>,
    intents: IntentMarks,
    fills: FillNumbers,
}

impl Gateway {
    /// Empty state for `alpha_count` alphas.
    #[must_use]
    pub fn new(alpha_count: usize) -> Self {
        Self {
            orders: vec![None; ORDER_COUNT_MAX].into_boxed_slice(),
            open: Vec::with_capacity(OPEN_COUNT_MAX),
            unknown_count: 0,
            next_counter: 0,
            exposures: vec![Exposure::default(); alpha_count].into_boxed_slice(),
            intents: IntentMarks::default(),
            fills: FillNumbers::default(),
        }
    }

    fn slot(counter: u64) -> usize {
        #[allow(
            clippy::cast_possible_truncation,
            reason = "the mask is far below usize"
        )]
        let slot = (counter & (ORDER_COUNT_MAX as u64 - 1)) as usize;
        slot
    }

    /// Enters a source of intent ids: `prefix` mixed (xor) with a counter from 1 on; false when
    /// another source has these ids or there is no room.
    pub fn enter_stream(&mut self, prefix: u64) -> bool {
        self.intents.enter(prefix)
    }

    /// True if this intent was decided before, whether approved or refused.
    #[must_use]
    pub fn has_intent(&self, intent_id: u64) -> bool {
        self.intents.is_decided(intent_id)
    }

    /// Remembers a decided intent, for ever.
    pub fn remember_intent(&mut self, intent_id: u64) {
        self.intents.decide(intent_id);
    }

    /// Highest counter decided in the stream of `prefix`.
    #[must_use]
    pub fn intent_high(&self, prefix: u64) -> u32 {
        self.intents.high(prefix)
    }

    /// The number that the next order gets: an order with a lower one was approved before now.
    #[must_use]
    pub fn ticket(&self) -> u64 {
        self.next_counter
    }

    /// The open order at `rank`, oldest first.
    #[must_use]
    pub fn open_order(&self, rank: usize) -> Option<&Order> {
        let slot = self.open.get(rank)?;
        self.orders[usize::from(*slot)].as_ref()
    }

    /// Open quantities of an alpha.
    #[must_use]
    pub fn exposure(&self, alpha_index: usize) -> Exposure {
        self.exposures.get(alpha_index).copied().unwrap_or_default()
    }

    /// Open orders, oldest first.
    pub fn open_orders(&self) -> impl Iterator<Item = &Order> {
        self.open
            .iter()
            .filter_map(|slot| self.orders[usize::from(*slot)].as_ref())
    }

    /// True when no further order can be taken.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.open.len() >= OPEN_COUNT_MAX
    }

    /// How many orders are open.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    /// The order called `order_id`, open or recently done.
    #[must_use]
    pub fn order(&self, order_id: u64) -> Option<&Order> {
        let counter = order_id.checked_sub(1)? & COUNTER_MASK;
        self.orders[Self::slot(counter)]
            .as_ref()
            .filter(|order| order.order_id == order_id)
    }

    /// Enters an approved order as pending; `None` when the table is full.
    pub fn place(&mut self, new: &NewOrder) -> Option<u64> {
        if self.is_full() {
            return None;
        }
        assert!(new.qty > 0, "Invariant: an order has a positive quantity");
        assert!(new.side.abs() == 1, "Invariant: a side is +1 or -1");
        // Slots of open orders are skipped; fewer than all are open, so this ends.
        let is_open = |order: &Option<Order>| order.is_some_and(|order| order.state.is_open());
        while is_open(&self.orders[Self::slot(self.next_counter)]) {
            self.next_counter += 1;
        }
        let counter = self.next_counter;
        let order_id = ((u64::from(new.alpha_index) << COUNTER_BITS) | counter) + 1;
        self.enter(order_id, new);
        Some(order_id)
    }

    fn enter(&mut self, order_id: u64, new: &NewOrder) {
        let counter = order_number(order_id);
        self.next_counter = counter + 1;
        let slot = Self::slot(counter);
        self.orders[slot] = Some(Order {
            order_id,
            intent_id: new.intent_id,
            alpha_index: new.alpha_index,
            market_index: new.market_index,
            side: new.side,
            price: new.price,
            qty: new.qty,
            filled_qty: 0,
            state: OrderState::PendingNew,
            time_in_force: new.time_in_force,
        });
        self.open.push(u16::try_from(slot).unwrap_or(u16::MAX));
        self.exposures[new.alpha_index as usize].add(new.side, new.qty);
    }

    /// Enters an order that a log says was approved, under the id it had; false when this state
    /// could not have given it that id.
    pub fn restore(&mut self, order_id: u64, new: &NewOrder) -> bool {
        let is_alphas_own = order_id.checked_sub(1).is_some_and(|number| {
            number >> COUNTER_BITS == u64::from(new.alpha_index)
                && (number & COUNTER_MASK) >= self.next_counter
        });
        let is_order =
            new.qty > 0 && new.side.abs() == 1 && (new.alpha_index as usize) < self.exposures.len();
        if !is_alphas_own || !is_order || self.is_full() {
            return false;
        }
        let slot = Self::slot(order_number(order_id));
        if self.orders[slot].is_some_and(|order| order.state.is_open()) {
            return false;
        }
        self.enter(order_id, new);
        true
    }

    /// Whoever would have been told is gone: every open order is [`OrderState::Unknown`] from here,
    /// counts in full, and is neither sent again nor canceled blindly. Says how many there are.
    pub fn lose_track(&mut self) -> usize {
        for rank in 0..self.open.len() {
            let slot = usize::from(self.open[rank]);
            if let Some(order) = &mut self.orders[slot] {
                order.state = transition(order.state, OrderEvent::Unknown).0;
            }
        }
        self.unknown_count = self.open.len();
        self.open.len()
    }

    /// True while the outcome of an order is not known.
    #[must_use]
    pub fn has_unknown(&self) -> bool {
        self.open_orders()
            .any(|order| order.state == OrderState::Unknown)
    }

    /// True while the outcome of an order in this market is not known, whoever's it is.
    #[inline]
    #[must_use]
    pub fn has_unknown_in(&self, market_index: usize) -> bool {
        self.unknown_count > 0
            && self.open_orders().any(|order| {
                order.state == OrderState::Unknown && order.market_index == market_index
            })
    }

    /// Notes that a cancel is being sent; false when the order is not working.
    pub fn cancel(&mut self, order_id: u64) -> bool {
        let Some(order) = self.order(order_id).copied() else {
            return false;
        };
        let (next, code) = transition(order.state, OrderEvent::CancelSent);
        if code.is_none() {
            self.store(Order {
                state: next,
                ..order
            });
        }
        code.is_none()
    }

    /// Takes what the broker said; `Err` when it changes nothing we know of.
    ///
    /// # Errors
    /// [`ReasonCode::OrderUnknown`], [`ReasonCode::DuplicateFill`], [`ReasonCode::FillTooOld`], or
    /// [`ReasonCode::OrderStateInvalid`] for an event that contradicts the order.
    pub fn on_broker(&mut self, record: &BrokerRecord) -> Result<BrokerOutcome, ReasonCode> {
        let before = *self
            .order(record.order_id)
            .ok_or(ReasonCode::OrderUnknown)?;
        let event = broker_event(record, &before)?;
        let is_fill = matches!(event, OrderEvent::PartialFill | OrderEvent::FullFill);
        if is_fill {
            match self.fills.standing(record.broker_seq) {
                Standing::New => self.fills.insert(record.broker_seq),
                Standing::Seen => return Err(ReasonCode::DuplicateFill),
                Standing::TooOld => return Err(ReasonCode::FillTooOld),
            }
        }
        let (state, mut code) = transition(before.state, event);
        let fill_qty = if is_fill { record.qty } else { 0 };
        if fill_qty > before.remaining_qty() {
            code = Some(ReasonCode::OverFill);
        }
        let filled_qty = before.filled_qty + fill_qty.min(before.remaining_qty());
        let after = Order {
            state,
            filled_qty,
            ..before
        };
        self.release(&before, &after);
        self.store(after);
        if is_fill {
            self.assert_exposure(after.alpha_index as usize);
        }
        Ok(BrokerOutcome {
            order: after,
            fill_qty,
            code,
        })
    }

    /// Takes out of the exposure what can no longer be filled.
    fn release(&mut self, before: &Order, after: &Order) {
        let open = |order: &Order| {
            if order.state.is_open() {
                order.remaining_qty()
            } else {
                0
            }
        };
        self.exposures[after.alpha_index as usize].add(after.side, open(after) - open(before));
    }

    fn store(&mut self, order: Order) {
        let slot = Self::slot(order_number(order.order_id));
        let is_unknown = |order: &Order| usize::from(order.state == OrderState::Unknown);
        self.unknown_count += is_unknown(&order);
        self.unknown_count -= self.orders[slot].as_ref().map_or(0, is_unknown);
        self.orders[slot] = Some(order);
        if !order.state.is_open() {
            self.open.retain(|open| usize::from(*open) != slot);
        }
    }

    /// The second path of invariant 1: sums again what was added step by step.
    fn assert_exposure(&self, alpha_index: usize) {
        let mut sum = Exposure::default();
        for order in self
            .open_orders()
            .filter(|order| order.alpha_index as usize == alpha_index)
        {
            sum.add(order.side, order.remaining_qty());
        }
        assert!(
            sum == self.exposures[alpha_index],
            "Invariant: exposure is the sum of open orders"
        );
    }
}

/// The number of an order among all orders of the engine.
#[must_use]
pub fn order_number(order_id: u64) -> u64 {
    order_id.saturating_sub(1) & COUNTER_MASK
}

/// The event a record stands for, given the order it names.
fn broker_event(record: &BrokerRecord, order: &Order) -> Result<OrderEvent, ReasonCode> {
    Ok(match record.event_kind {
        kind if kind == BrokerEventKind::Working as u32 => OrderEvent::Working,
        kind if kind == BrokerEventKind::Rejected as u32 => OrderEvent::Rejected,
        kind if kind == BrokerEventKind::Fill as u32 => {
            if record.qty <= 0 || record.price <= 0 || record.side != order.side {
                return Err(ReasonCode::OrderStateInvalid);
            }
            if record.qty >= order.remaining_qty() {
                OrderEvent::FullFill
            } else {
                OrderEvent::PartialFill
            }
        }
        kind if kind == BrokerEventKind::Canceled as u32 => OrderEvent::Canceled,
        kind if kind == BrokerEventKind::CancelRejected as u32 => OrderEvent::CancelRejected,
        kind if kind == BrokerEventKind::Expired as u32 => OrderEvent::Expired,
        kind if kind == BrokerEventKind::Unknown as u32 => OrderEvent::Unknown,
        _ => return Err(ReasonCode::OrderStateInvalid),
    })
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
