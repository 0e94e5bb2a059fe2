//! Position and result of one alpha in one instrument, in integers.

use crate::book::VALUE_MAX;
use crate::costs::{CostModel, notional};

/// Money at 1e-8 in 128 bits.
pub type Money = i128;

/// A signed position, its cost, and what it earned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// Signed quantity, scaled.
    pub qty: i64,
    /// Signed value paid for the open quantity.
    open_cost: Money,
    realised: Money,
    fees: Money,
    unrealised: Money,
    peak: Money,
    drawdown_max: Money,
}

impl Position {
    /// Takes an execution; `side` is +1 or -1. `None` when a computation leaves its range.
    #[must_use]
    pub fn fill(
        &self,
        side: i64,
        price: i64,
        qty: i64,
        multiplier: i64,
        costs: &CostModel,
        is_maker: bool,
    ) -> Option<Self> {
        let fee = costs.trade_cost(price, qty, multiplier, side, is_maker)?;
        let value = notional(price, qty, multiplier)?.checked_mul(i128::from(side))?;
        let signed = qty.checked_mul(side)?;
        let mut next = *self;
        next.fees = self.fees.checked_add(i128::from(fee))?;
        next.qty = self
            .qty
            .checked_add(signed)
            .filter(|qty| qty.unsigned_abs() <= VALUE_MAX.unsigned_abs())?;
        if self.qty == 0 || self.qty.signum() == side {
            next.open_cost = self.open_cost.checked_add(value)?;
            return Some(next);
        }
        // Closing: the closed share of the cost leaves, the rounding rest stays with the open part.
        let closed = qty.min(self.qty.abs());
        let cost_out = self.open_cost.checked_mul(i128::from(closed))? / i128::from(self.qty.abs());
        let value_out = value.checked_mul(i128::from(closed))? / i128::from(qty);
        next.open_cost = self
            .open_cost
            .checked_sub(cost_out)?
            .checked_add(value.checked_sub(value_out)?)?;
        next.realised = self
            .realised
            .checked_sub(cost_out.checked_add(value_out)?)?;
        // What is realised now is no longer unrealised, also while no book can be marked to.
        let still_open = self.qty.abs().checked_sub(closed)?;
        next.unrealised =
            self.unrealised.checked_mul(i128::from(still_open))? / i128::from(self.qty.abs());
        Some(next)
    }

    /// Values the open quantity at `price` and follows peak and drawdown; `None` on overflow.
    #[must_use]
    pub fn mark(&self, price: i64, multiplier: i64) -> Option<Self> {
        let mut next = *self;
        next.unrealised = if self.qty == 0 {
            0
        } else {
            let value = notional(price, self.qty.abs(), multiplier)?;
            value
                .checked_mul(i128::from(self.qty.signum()))?
                .checked_sub(self.open_cost)?
        };
        let net = next.net();
        next.peak = next.peak.max(net);
        next.drawdown_max = next.drawdown_max.max(next.peak - net);
        Some(next)
    }

    /// Result before costs: realised and marked.
    #[must_use]
    pub fn gross(&self) -> Money {
        self.realised + self.unrealised
    }

    /// Costs so far.
    #[must_use]
    pub fn fees(&self) -> Money {
        self.fees
    }

    /// Result after costs.
    #[must_use]
    pub fn net(&self) -> Money {
        self.gross() - self.fees
    }

    /// Realised part of the result, before costs.
    #[must_use]
    pub fn realised(&self) -> Money {
        self.realised
    }

    /// Fall from the best net result so far.
    #[must_use]
    pub fn drawdown(&self) -> Money {
        self.peak - self.net()
    }

    /// Largest fall seen.
    #[must_use]
    pub fn drawdown_max(&self) -> Money {
        self.drawdown_max
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first surprise")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::SCALE;

    const FREE: CostModel = CostModel::ValueBps {
        maker_bps: 0.0,
        taker_bps: 0.0,
    };
    const MULTIPLIER: i64 = 200 * SCALE;

    #[test]
    fn a_profit_is_not_counted_twice_when_it_is_realised_before_the_next_mark() {
        let held = Position::default()
            .fill(1, 100 * SCALE, 2 * SCALE, MULTIPLIER, &FREE, false)
            .unwrap()
            .mark(110 * SCALE, MULTIPLIER)
            .unwrap();
        let half = held
            .fill(-1, 110 * SCALE, SCALE, MULTIPLIER, &FREE, false)
            .unwrap();
        let flat = half
            .fill(-1, 110 * SCALE, SCALE, MULTIPLIER, &FREE, false)
            .unwrap();
        let both_lots = i128::from(2 * 10 * 200 * SCALE);
        assert_eq!([held.gross(), half.gross(), flat.gross()], [both_lots; 3]);
        assert_eq!(flat.realised(), both_lots);
    }

    #[test]
    fn a_round_trip_earns_points_times_multiplier_less_costs() {
        let taifex = CostModel::TaifexFuture {
            tax_rate_ppb: 20_000,
            tax_round: true,
            commission_per_lot: 60 * SCALE,
        };
        let bought = Position::default()
            .fill(1, 35_000 * SCALE, SCALE, MULTIPLIER, &taifex, false)
            .unwrap();
        let sold = bought
            .fill(-1, 35_010 * SCALE, SCALE, MULTIPLIER, &taifex, false)
            .unwrap();
        let marked = sold.mark(1, MULTIPLIER).unwrap();
        assert_eq!(marked.qty, 0);
        assert_eq!(marked.gross(), i128::from(2_000 * SCALE));
        assert_eq!(marked.fees(), i128::from(400 * SCALE));
        assert_eq!(marked.net(), i128::from(1_600 * SCALE));
    }

    #[test]
    fn drawdown_counts_from_the_best_result() {
        let bought = Position::default()
            .fill(1, 100 * SCALE, SCALE, SCALE, &FREE, false)
            .unwrap();
        let peak = bought.mark(110 * SCALE, SCALE).unwrap();
        let low = peak.mark(95 * SCALE, SCALE).unwrap();
        assert_eq!(low.drawdown(), i128::from(15 * SCALE));
        assert_eq!(
            low.mark(105 * SCALE, SCALE).unwrap().drawdown_max(),
            i128::from(15 * SCALE)
        );
    }

    #[test]
    fn absurd_values_are_none() {
        assert_eq!(
            Position::default().fill(1, i64::MAX, i64::MAX, i64::MAX, &FREE, false),
            None
        );
    }

    proptest! {
        /// Gross result equals cash plus marked value, whatever the order of fills.
        #[test]
        fn result_is_cash_plus_value(fills in prop::collection::vec((prop::bool::ANY, 90_i64..110, 1_i64..5), 1..40), mark in 90_i64..110) {
            let mut position = Position::default();
            let (mut cash, mut qty) = (0_i128, 0_i64);
            for (is_buy, price, lots) in fills {
                let side = if is_buy { 1 } else { -1 };
                position = position.fill(side, price * SCALE, lots * SCALE, MULTIPLIER, &FREE, false).unwrap();
                cash -= i128::from(side * price * lots * 200) * i128::from(SCALE);
                qty += side * lots;
            }
            let marked = position.mark(mark * SCALE, MULTIPLIER).unwrap();
            prop_assert_eq!(marked.qty, qty * SCALE);
            prop_assert_eq!(marked.gross(), cash + i128::from(qty * mark * 200) * i128::from(SCALE));
        }
    }
}
