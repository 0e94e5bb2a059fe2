//! The exchange's price rules: daily limits and the dynamic band.
//!
//! Why: an exchange refuses by what it sees when an order arrives, not by what the engine saw when
//! it decided.
//!
//! Invariants:
//! 1. Limits are set once a session, by the first two-sided book, and rounded inward to the tick.
//! 2. An order that takes nothing has no possible fill and is never outside the band.
//!
//! It refuses nothing itself. Operator's page: `docs/backtest.md`.

use crate::convert::is_not_tradable;
use crate::exchange::VenueOrder;
use crate::faults::{BPS_MAX, PriceBand, PriceLimit};
use crate::record::{BookRecord, Record, RecordHeader, TradeRecord};
use crate::ticks::TickLadder;

/// What the exchange's price checks look at.
#[derive(Debug, Default)]
pub(super) struct MarketView {
    book: Option<BookRecord>,
    last_trade: Option<i64>,
    /// Limit-down and limit-up, once their reference is known.
    limits: Option<(i64, i64)>,
}

impl MarketView {
    /// Takes one market record at its exchange time.
    pub(super) fn take(
        &mut self,
        header: &RecordHeader,
        bytes: &[u8],
        limit: Option<PriceLimit>,
        ticks: &TickLadder,
    ) {
        if is_not_tradable(header) {
            return;
        }
        if let Some(trade) = TradeRecord::read(bytes) {
            if trade.price > 0 {
                self.last_trade = Some(trade.price);
            }
            return;
        }
        let Some(book) = BookRecord::read(bytes) else {
            return;
        };
        self.book = Some(book);
        if let (Some(limit), None, Some(mid)) = (limit, self.limits, self.mid()) {
            let reference = limit.reference_price.unwrap_or(mid);
            self.limits = ticks.daily_limits(reference, i64::from(limit.bps));
        }
    }

    fn mid(&self) -> Option<i64> {
        let book = self.book.as_ref()?;
        let (bid, ask) = (book.bid_price[0], book.ask_price[0]);
        (bid > 0 && ask > bid).then(|| bid + (ask - bid) / 2)
    }

    /// Whether a price is beyond limit-up or limit-down.
    pub(super) fn is_beyond_limit(&self, order: &VenueOrder) -> bool {
        self.limits
            .is_some_and(|(down, up)| order.price < down || order.price > up)
    }

    /// Whether an order's possible fill leaves the band around the last trade, or the mid before
    /// one.
    pub(super) fn is_beyond_band(&self, order: &VenueOrder, band: Option<PriceBand>) -> bool {
        let (Some(band), Some(book)) = (band, &self.book) else {
            return false;
        };
        let base = self.last_trade.or_else(|| self.mid());
        let (Some(base), Some(worst)) = (base, possible_fill(order, book)) else {
            return false;
        };
        let (base, worst) = (i128::from(base), i128::from(worst));
        (worst - base).abs() * i128::from(BPS_MAX) > base * i128::from(band.bps)
    }
}

/// The worst shown price that an order's quantity reaches within its limit; `None` when it takes
/// nothing.
fn possible_fill(order: &VenueOrder, book: &BookRecord) -> Option<i64> {
    let (prices, quantities) = if order.side > 0 {
        (&book.ask_price, &book.ask_qty)
    } else {
        (&book.bid_price, &book.bid_qty)
    };
    let (mut left_qty, mut worst) = (order.qty, None);
    for (price, qty) in prices.iter().zip(quantities) {
        let is_within = *price > 0 && (order.price - price) * order.side >= 0;
        if !is_within || left_qty <= 0 {
            break;
        }
        worst = Some(*price);
        left_qty -= qty;
    }
    worst
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::OrderLife;
    use crate::record::SCALE;

    #[test]
    fn a_possible_fill_is_the_worst_level_that_the_quantity_reaches_within_the_limit() {
        let mut book = BookRecord::empty();
        for level in 0..3_i64 {
            let at = usize::try_from(level).unwrap_or(0);
            book.ask_price[at] = (101 + level) * SCALE;
            book.ask_qty[at] = 2 * SCALE;
            book.bid_price[at] = (100 - level) * SCALE;
            book.bid_qty[at] = 2 * SCALE;
        }
        let order = |side: i64, price: i64, lots: i64| VenueOrder {
            order_id: 1,
            instrument_id: 1,
            side,
            price: price * SCALE,
            qty: lots * SCALE,
            life: OrderLife::RestOfDay,
        };
        let found = |side, price, lots| {
            possible_fill(&order(side, price, lots), &book).map(|price| price / SCALE)
        };
        assert_eq!(found(1, 100, 1), None, "it rests");
        assert_eq!(found(1, 110, 2), Some(101));
        assert_eq!(found(1, 110, 3), Some(102));
        assert_eq!(found(1, 101, 9), Some(101), "its own limit holds it");
        assert_eq!(found(-1, 90, 5), Some(98));
        assert_eq!(found(-1, 101, 1), None);
    }
}
