//! Queue place: how much is ahead of an own quote, and what the place is worth.
//!
//! Why: a quote that is moved goes to the back of a queue; that has a price, and a maker should not
//! pay it for a fraction of a tick.
//!
//! The estimate. The feed shows quantities, not orders. What is ahead of a quote is at most what is
//! displayed at its price and at better prices when the exchange takes it, becomes less by every
//! print that takes from its side at its price or a better one, and is never more than what is
//! displayed there now. Cancels ahead that nothing shows are not guessed, so the estimate is on the
//! careful side. Where the feed counts the own quote too (live), it is too high by that quantity.
//!
//! The value. Following Moallemi and Yuan (2016), A Model for Queue Position Valuation in a Limit
//! Order Book: chance of a fill times what a fill earns. The quantity that trades at a price before
//! the price moves away is taken as exponential with mean `queue_qty`, so that
//!
//!   value = exp(-ahead / queue_qty) * edge
//!
//! with `edge` the ticks between the quote and what the maker takes the instrument to be worth.
//!
//! Invariants:
//! 1. What is ahead is never negative and never more than what is displayed.
//! 2. A longer queue is never worth more.

use crate::book::{Book, Side};
use crate::gateway::{Order, OrderState};
use crate::math;

/// An own quote and what is ahead of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct QueuePlace {
    order_id: u64,
    side: i64,
    price: i64,
    /// False until the exchange has the order: it will join behind everything displayed then.
    is_working: bool,
    /// Quantity ahead.
    pub(super) ahead_qty: i64,
}

impl QueuePlace {
    /// The place of `order` now, given what was known of it before.
    pub(super) fn follow(before: Option<Self>, order: &Order, book: &Book) -> Self {
        let displayed = displayed_qty(book, order.side, order.price);
        let known = before.filter(|place| place.order_id == order.order_id && place.is_working);
        Self {
            order_id: order.order_id,
            side: order.side,
            price: order.price,
            is_working: order.state != OrderState::PendingNew,
            ahead_qty: known.map_or(displayed, |place| place.ahead_qty.min(displayed)),
        }
    }

    /// Takes a market print; `aggressor_side` is +1 when the buyer aggressed.
    pub(super) fn on_print(&mut self, price: i64, qty: i64, aggressor_side: i64) {
        let takes_from_side = aggressor_side == -self.side;
        let is_at_or_better = (price - self.price) * self.side >= 0;
        if self.is_working && takes_from_side && is_at_or_better {
            self.ahead_qty = (self.ahead_qty - qty).max(0);
        }
    }
}

/// Quantity displayed on `side` at `price` and better.
pub(super) fn displayed_qty(book: &Book, side: i64, price: i64) -> i64 {
    let own: &Side = if side > 0 { book.bid() } else { book.ask() };
    let levels = own.price.iter().zip(&own.qty).take(own.count);
    levels
        .take_while(|(level, _)| (**level - price) * side >= 0)
        .map(|(_, qty)| *qty)
        .sum()
}

/// Ticks that a quote with `edge` behind `ahead_qty` is worth; a quote without edge is worth nothing.
pub(super) fn place_value(edge: f64, ahead_qty: i64, queue_qty: f64) -> f64 {
    #[allow(
        clippy::cast_precision_loss,
        reason = "a displayed quantity; money is not computed here"
    )]
    let ahead = ahead_qty as f64;
    math::exp(-ahead / queue_qty) * edge
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{BookRecord, Record, SCALE};

    fn book(bid: i64, best_qty: i64) -> Book {
        let mut record = BookRecord::empty();
        for (level, offset) in (0..5_i64).enumerate() {
            record.bid_price[level] = (bid - offset) * SCALE;
            record.ask_price[level] = (bid + 1 + offset) * SCALE;
            record.bid_qty[level] = if level == 0 { best_qty } else { 7 } * SCALE;
            record.ask_qty[level] = 4 * SCALE;
        }
        let mut book = Book::default();
        assert_eq!(book.on_book(&record, 0), Ok(()));
        book
    }

    fn order(state: OrderState, side: i64, price: i64) -> Order {
        Order {
            order_id: 3,
            intent_id: 1,
            alpha_index: 0,
            market_index: 0,
            side,
            price: price * SCALE,
            qty: SCALE,
            filled_qty: 0,
            state,
            time_in_force: 1,
        }
    }

    #[test]
    fn what_is_displayed_at_a_price_and_better_is_ahead() {
        let book = book(100, 10);
        assert_eq!(displayed_qty(&book, 1, 101 * SCALE), 0);
        assert_eq!(displayed_qty(&book, 1, 100 * SCALE), 10 * SCALE);
        assert_eq!(displayed_qty(&book, 1, 98 * SCALE), 24 * SCALE);
        assert_eq!(displayed_qty(&book, -1, 102 * SCALE), 8 * SCALE);
        assert_eq!(displayed_qty(&book, -1, 100 * SCALE), 0);
    }

    #[test]
    fn a_place_counts_from_the_exchange_on_and_only_gets_better() {
        let pending = order(OrderState::PendingNew, 1, 100);
        let working = order(OrderState::Working, 1, 100);
        let mut place = QueuePlace::follow(None, &pending, &book(100, 10));
        place.on_print(100 * SCALE, 4 * SCALE, -1);
        assert_eq!(place.ahead_qty, 10 * SCALE, "not there yet");
        place = QueuePlace::follow(Some(place), &working, &book(100, 12));
        assert_eq!(place.ahead_qty, 12 * SCALE, "joined behind what is there");
        place.on_print(100 * SCALE, 4 * SCALE, -1);
        place.on_print(100 * SCALE, 3 * SCALE, 1);
        place.on_print(99 * SCALE, 3 * SCALE, -1);
        assert_eq!(place.ahead_qty, 8 * SCALE, "only what took from this queue");
        place = QueuePlace::follow(Some(place), &working, &book(100, 30));
        assert_eq!(place.ahead_qty, 8 * SCALE, "later orders are behind");
        place = QueuePlace::follow(Some(place), &working, &book(100, 5));
        assert_eq!(place.ahead_qty, 5 * SCALE, "no more than is displayed");
        place.on_print(101 * SCALE, 9 * SCALE, -1);
        assert_eq!(place.ahead_qty, 0);
        let other = Order {
            order_id: 4,
            ..working
        };
        place = QueuePlace::follow(Some(place), &other, &book(100, 5));
        assert_eq!(place.ahead_qty, 5 * SCALE, "another order, another place");
    }

    #[test]
    fn a_longer_queue_is_never_worth_more() {
        let mut last = f64::INFINITY;
        for ahead in 0..50 {
            let value = place_value(2.0, ahead * SCALE, 1e9);
            assert!(value <= last && value >= 0.0);
            last = value;
        }
        assert!((place_value(2.0, 10 * SCALE, 1e9) - 2.0 * (-1.0_f64).exp()).abs() < 1e-12);
    }
}
