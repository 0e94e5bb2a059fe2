//! What a trade costs: one model for gates, live trading and cost analysis.
//!
//! Why: three cost models that disagree make an edge out of nothing; this one is in integers.
//!
//! Invariants:
//! 1. A cost is computed in i128 and leaves this module as scaled money that fits i64, or as
//!    `None`; nothing wraps and nothing is rounded twice.
//! 2. `taifex_future` and `taifex_option` charge the tax of one contract, rounded to whole money
//!    units, at least one unit, times the number of contracts, plus the commission per lot; both
//!    sides alike.
//! 3. `taiwan_stock` charges a fee on both sides, at least its minimum for each trade, and a tax on
//!    sales; both cut to whole units.
//! 4. A cost depends on nothing but its arguments.
//!
//! It knows no venue rules beyond these formulas. Operator's page: `docs/costs.md`.

use serde::{Deserialize, Serialize};

use crate::record::SCALE;

/// Parts of 1e9: the resolution in which rates are held.
const RATE_SCALE: i128 = 1_000_000_000;
/// The whole, in parts per million.
const PPM: i128 = 1_000_000;
/// One basis point in parts of 1e9.
const BPS_RATE: f64 = 100_000.0;
/// Largest rate accepted, in basis points on either side of zero: the whole value.
const BPS_MAX: f64 = 10_000.0;

/// Cost model of an instrument, as written in its YAML and in the engine config.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum CostModel {
    /// Futures on TAIFEX: a transaction tax on each side and a commission per lot.
    TaifexFuture {
        /// Tax in parts of 1e9 of the contract value: 20,000 is 2e-5.
        tax_rate_ppb: i64,
        /// Round the tax of each contract to 1.0, and take at least 1.0.
        tax_round: bool,
        /// Commission for one lot and side, scaled money.
        commission_per_lot: i64,
    },
    /// Options on TAIFEX: a tax on the premium of each side and a commission per lot.
    TaifexOption {
        /// Tax in parts of 1e9 of the premium's value: 1,000,000 is 0.1 %.
        tax_rate_ppb: i64,
        /// Round the tax of each contract to 1.0, and take at least 1.0.
        tax_round: bool,
        /// Commission for one lot and side, scaled money.
        commission_per_lot: i64,
    },
    /// Stocks and funds on TWSE and TPEx: a brokerage fee on both sides, a tax on sales.
    TaiwanStock {
        /// Fee in parts of 1e9 of the value: 1,425,000 is 0.1425 %.
        fee_rate_ppb: i64,
        /// What the broker's discount leaves of the fee, parts per million: 280,000 is 28 %.
        fee_share_ppm: i64,
        /// Least fee of a trade, scaled money.
        fee_min: i64,
        /// Tax in parts of 1e9 of the value of a sale: 3,000,000 is 0.3 %, 1,500,000 within a day.
        sell_tax_ppb: i64,
    },
    /// A share of the traded value; negative is a rebate.
    ValueBps {
        /// Passive fills, basis points.
        maker_bps: f64,
        /// Aggressive fills, basis points.
        taker_bps: f64,
    },
}

/// Why a cost model cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CostError {
    /// A field lies outside its range.
    #[error("costs: {field} was {value}, allowed is {allowed}")]
    OutOfRange {
        /// Which field.
        field: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
}

impl CostModel {
    /// Checks the ranges of the fields.
    ///
    /// # Errors
    /// [`CostError::OutOfRange`] for a negative tax or commission, or a rate beyond the value.
    pub fn validate(&self) -> Result<(), CostError> {
        let bad = |field, value: String, allowed| {
            Err(CostError::OutOfRange {
                field,
                value,
                allowed,
            })
        };
        match *self {
            Self::TaifexFuture {
                tax_rate_ppb,
                commission_per_lot,
                ..
            }
            | Self::TaifexOption {
                tax_rate_ppb,
                commission_per_lot,
                ..
            } => {
                if !(0..=1_000_000_000).contains(&tax_rate_ppb) {
                    return bad("tax_rate_ppb", tax_rate_ppb.to_string(), "0 to 1000000000");
                }
                if !(0..=i64::MAX / SCALE).contains(&commission_per_lot) {
                    return bad(
                        "commission_per_lot",
                        commission_per_lot.to_string(),
                        "0 to 92233720368",
                    );
                }
            }
            Self::TaiwanStock {
                fee_rate_ppb,
                fee_share_ppm,
                fee_min,
                sell_tax_ppb,
            } => {
                for (field, value, max, allowed) in [
                    (
                        "fee_rate_ppb",
                        fee_rate_ppb,
                        1_000_000_000,
                        "0 to 1000000000",
                    ),
                    (
                        "sell_tax_ppb",
                        sell_tax_ppb,
                        1_000_000_000,
                        "0 to 1000000000",
                    ),
                    ("fee_share_ppm", fee_share_ppm, 1_000_000, "0 to 1000000"),
                    ("fee_min", fee_min, i64::MAX / SCALE, "0 to 92233720368"),
                ] {
                    if !(0..=max).contains(&value) {
                        return bad(field, value.to_string(), allowed);
                    }
                }
            }
            Self::ValueBps {
                maker_bps,
                taker_bps,
            } => {
                for (field, value) in [("maker_bps", maker_bps), ("taker_bps", taker_bps)] {
                    if !value.is_finite() || value.abs() > BPS_MAX {
                        return bad(field, value.to_string(), "-10000 to 10000");
                    }
                }
            }
        }
        Ok(())
    }

    /// Scaled money that one trade costs, or `None` when it does not fit.
    ///
    /// `price` and `qty` are scaled, `qty` is positive, `multiplier` is scaled money per 1.0 of
    /// price and 1.0 of quantity, `side` is +1 or -1; a contract is a quantity of 1.0.
    #[must_use]
    pub fn trade_cost(
        &self,
        price: i64,
        qty: i64,
        multiplier: i64,
        side: i64,
        is_maker: bool,
    ) -> Option<i64> {
        if price <= 0 || qty <= 0 || multiplier <= 0 || side.unsigned_abs() != 1 {
            return None;
        }
        let scale = i128::from(SCALE);
        let cost = match *self {
            Self::TaifexFuture {
                tax_rate_ppb,
                tax_round,
                commission_per_lot,
            }
            | Self::TaifexOption {
                tax_rate_ppb,
                tax_round,
                commission_per_lot,
            } => {
                let contract = i128::from(price) * i128::from(multiplier) / scale;
                let tax_parts = contract.checked_mul(i128::from(tax_rate_ppb))?;
                let tax = if tax_round {
                    let unit = RATE_SCALE * scale;
                    round_half_up(tax_parts, unit).max(1) * scale
                } else {
                    round_half_up(tax_parts, RATE_SCALE)
                };
                let per_lot = tax.checked_add(i128::from(commission_per_lot))?;
                round_half_up(per_lot.checked_mul(i128::from(qty))?, scale)
            }
            Self::TaiwanStock {
                fee_rate_ppb,
                fee_share_ppm,
                fee_min,
                sell_tax_ppb,
            } => {
                let value = notional(price, qty, multiplier)?;
                let rate = i128::from(fee_rate_ppb) * i128::from(fee_share_ppm);
                // Whole dollars, the fraction dropped, as brokers and the tax office charge them.
                let fee = whole_down(value.checked_mul(rate)?, RATE_SCALE * PPM);
                let tax = if side < 0 {
                    whole_down(value.checked_mul(i128::from(sell_tax_ppb))?, RATE_SCALE)
                } else {
                    0
                };
                fee.max(i128::from(fee_min)) + tax
            }
            Self::ValueBps {
                maker_bps,
                taker_bps,
            } => {
                let rate = bps_rate(if is_maker { maker_bps } else { taker_bps });
                let value = notional(price, qty, multiplier)?;
                round_half_up(value.checked_mul(rate)?, RATE_SCALE)
            }
        };
        i64::try_from(cost).ok()
    }
}

/// Scaled money value of `qty` at `price`; `None` when it leaves i128 or is not positive.
#[must_use]
pub fn notional(price: i64, qty: i64, multiplier: i64) -> Option<i128> {
    // 126 bits at most; dividing before the second product keeps it inside i128.
    let per_unit = by_scale(i128::from(price), multiplier)?;
    by_scale(per_unit, qty)
}

/// `value * factor / SCALE`; `None` when the product leaves i128.
///
/// Multipliers and quantities are mostly whole, and dividing them is ten times cheaper than dividing
/// the product; the result is the same, for the division leaves no rest.
#[inline]
fn by_scale(value: i128, factor: i64) -> Option<i128> {
    // What fits 64 bits needs no wider product: two of these are within i128 anyway.
    if factor / SCALE * SCALE == factor
        && let Ok(small) = i64::try_from(value)
        && let Some(whole) = small.checked_mul(factor / SCALE)
    {
        return Some(i128::from(whole));
    }
    let product = value.checked_mul(i128::from(factor))?;
    Some(if factor % SCALE == 0 {
        value * i128::from(factor / SCALE)
    } else {
        product / i128::from(SCALE)
    })
}

/// Basis points as parts of 1e9, rounded to the nearest part.
fn bps_rate(bps: f64) -> i128 {
    #[allow(
        clippy::cast_possible_truncation,
        reason = "validate bounds |bps| by 10,000"
    )]
    let rate = libm::round(bps * BPS_RATE) as i64;
    i128::from(rate)
}

/// Scaled money of `parts / unit`, cut to whole units of money.
fn whole_down(parts: i128, unit: i128) -> i128 {
    let scale = i128::from(SCALE);
    parts / unit / scale * scale
}

/// `value / unit` to the nearest integer, halves away from zero.
fn round_half_up(value: i128, unit: i128) -> i128 {
    let half = unit / 2;
    if value >= 0 {
        (value + half) / unit
    } else {
        -((-value + half) / unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taifex(commission: i64) -> CostModel {
        CostModel::TaifexFuture {
            tax_rate_ppb: 20_000,
            tax_round: true,
            commission_per_lot: commission * SCALE,
        }
    }

    /// Round trips at three index levels for the large, the small and the micro contract.
    #[test]
    fn taifex_round_trips_match_the_worked_rows() {
        for (index, expected) in [
            (23_000, [304, 106, 36]),
            (35_000, [400, 130, 40]),
            (37_600, [420, 136, 42]),
        ] {
            for ((multiplier, commission), money) in
                [(200, 60), (50, 30), (10, 13)].into_iter().zip(expected)
            {
                let side = taifex(commission).trade_cost(
                    index * SCALE,
                    SCALE,
                    multiplier * SCALE,
                    1,
                    false,
                );
                assert_eq!(
                    side.map(|cost| 2 * cost),
                    Some(money * SCALE),
                    "{index} x {multiplier}"
                );
            }
        }
    }

    #[test]
    fn the_tax_is_rounded_per_contract_and_at_least_one() {
        // 2e-5 x 10 x 37,650 = 7.53 -> 8 for each of three contracts, never 22.59 -> 23.
        assert_eq!(
            taifex(0).trade_cost(37_650 * SCALE, 3 * SCALE, 10 * SCALE, -1, false),
            Some(24 * SCALE)
        );
        assert_eq!(
            taifex(0).trade_cost(10 * SCALE, SCALE, 10 * SCALE, -1, false),
            Some(SCALE)
        );
    }

    #[test]
    fn an_option_is_taxed_on_its_premium() {
        let option = CostModel::TaifexOption {
            tax_rate_ppb: 1_000_000,
            tax_round: true,
            commission_per_lot: 20 * SCALE,
        };
        // 0.1 % of 85 points at 50 a point is 4.25, of 2 points 0.1 and so 1.
        for (premium, money) in [(85, 24), (2, 21), (500, 45)] {
            let cost = option.trade_cost(premium * SCALE, SCALE, 50 * SCALE, 1, false);
            assert_eq!(cost, Some(money * SCALE), "{premium}");
        }
    }

    #[test]
    fn a_stock_pays_its_fee_twice_and_its_tax_once() {
        let stock = |fee_share_ppm, sell_tax_ppb| CostModel::TaiwanStock {
            fee_rate_ppb: 1_425_000,
            fee_share_ppm,
            fee_min: 20 * SCALE,
            sell_tax_ppb,
        };
        let cost = |model: CostModel, price: i64, shares: i64, side| {
            model
                .trade_cost(price * SCALE, shares * SCALE, SCALE, side, false)
                .map(|cost| cost / SCALE)
        };
        // 1,000 shares at 100: 142.5 of fee, 300 of tax, 150 when bought the same day.
        let list = stock(1_000_000, 3_000_000);
        assert_eq!(cost(list, 100, 1_000, 1), Some(142));
        assert_eq!(cost(list, 100, 1_000, -1), Some(442));
        assert_eq!(cost(stock(1_000_000, 1_500_000), 100, 1_000, -1), Some(292));
        // A discount, and the least fee; a fund pays 0.1 %.
        assert_eq!(cost(stock(280_000, 3_000_000), 100, 1_000, 1), Some(39));
        assert_eq!(cost(stock(280_000, 3_000_000), 10, 1_000, 1), Some(20));
        assert_eq!(cost(stock(1_000_000, 1_000_000), 50, 2_000, -1), Some(242));
        assert_eq!(cost(list, 2_220, 1_000, -1), Some(3_163 + 6_660));
        for bad in [stock(-1, 0), stock(1_000_001, 0), stock(0, -1)] {
            assert!(bad.validate().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn value_bps_tells_maker_from_taker_and_allows_a_rebate() {
        let model = CostModel::ValueBps {
            maker_bps: -0.5,
            taker_bps: 4.5,
        };
        let price = 80_000 * SCALE;
        let qty = SCALE / 100;
        assert_eq!(
            model.trade_cost(price, qty, SCALE, 1, false),
            Some(36 * SCALE / 100)
        );
        assert_eq!(
            model.trade_cost(price, qty, SCALE, 1, true),
            Some(-4 * SCALE / 100)
        );
    }

    #[test]
    fn absurd_inputs_have_no_cost_instead_of_a_wrapped_one() {
        assert_eq!(
            taifex(60).trade_cost(i64::MAX, i64::MAX, i64::MAX, 1, false),
            None
        );
        assert_eq!(taifex(60).trade_cost(0, SCALE, SCALE, 1, false), None);
        assert_eq!(taifex(60).trade_cost(SCALE, SCALE, SCALE, 0, false), None);
        assert_eq!(taifex(60).trade_cost(SCALE, -1, SCALE, 1, false), None);
        assert!(
            CostModel::ValueBps {
                maker_bps: f64::NAN,
                taker_bps: 0.0
            }
            .validate()
            .is_err()
        );
    }

    proptest::proptest! {
        /// Dividing the factor instead of the product changes no result, nor which leave the range.
        #[test]
        fn a_whole_factor_is_divided_first_without_a_difference(
            value in proptest::prelude::any::<i128>(), shift in 0_u32..127, factor in proptest::prelude::any::<i64>(), lots in -1_000_i64..1_000
        ) {
            let value = value >> shift;
            for factor in [factor, lots * SCALE, factor / SCALE * SCALE] {
                let slow = value.checked_mul(i128::from(factor)).map(|product| product / i128::from(SCALE));
                proptest::prop_assert_eq!(by_scale(value, factor), slow);
            }
        }
    }
}
