//! The table of features: one row each, read by the alpha compiler and by the documentation.
//!
//! Why: name, unit, formula, warm-up, source and reset rule of a feature have one home.
//!
//! Invariants:
//! 1. An id is the feature's place; ids are appended, never reused, and keep name and meaning.
//! 2. A unit is one of [`UNITS`].
//!
//! It computes nothing. Operator's page: `docs/features.md`.

use super::decay::SECOND;

/// Every unit a feature can have; the alpha compiler checks expressions with them.
///
/// `ticks` of the instrument's tick size; `ratio` without unit; `ms`; `1/s` events a second;
/// `ticks/lot` ticks of move a signed lot.
pub const UNITS: &[&str] = &["ticks", "ratio", "ms", "1/s", "ticks/lot"];

/// One row of the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeatureRow {
    /// Stable number, appended only.
    pub id: u16,
    /// Name in expressions.
    pub name: &'static str,
    /// One of [`UNITS`].
    pub unit: &'static str,
    /// How it is computed.
    pub formula: &'static str,
    /// Time from the first good book after a reset until it is not NaN, ns.
    pub warm_up_ns: i64,
    /// Where the idea comes from.
    pub source: &'static str,
    /// When its state starts over.
    pub reset: &'static str,
}

macro_rules! features {
    ($( $id:literal $constant:ident $name:literal $unit:literal $warm:expr, $formula:literal, $source:literal; )*) => {
        $( #[doc = $formula] pub const $constant: usize = $id; )*
        /// Every feature in id order.
        pub const FEATURES: &[FeatureRow] = &[ $( FeatureRow {
            id: $id, name: $name, unit: $unit, formula: $formula, warm_up_ns: $warm, source: $source,
            reset: "session start, gap, contract roll",
        } ),* ];
    };
}

features! {
    0 SPREAD_TICKS "spread_ticks" "ticks" 0,
        "best ask minus best bid", "definition";
    1 IMBALANCE_L1 "imbalance_l1" "ratio" 0,
        "(bid qty - ask qty) / (bid qty + ask qty) at the best level", "Gould and Bonart, arXiv 1512.03492";
    2 IMBALANCE_L2_5 "imbalance_l2_5" "ratio" 0,
        "the same over levels 2 to 5; NaN when they are all empty", "Gould and Bonart, arXiv 1512.03492";
    3 MICROPRICE_DEV "microprice_dev" "ticks" 0,
        "quantity-weighted mid minus mid = imbalance_l1 * spread / 2", "weighted mid; see Stoikov 2018 for the martingale version";
    4 OFI_L1_1S "ofi_l1_1s" "ratio" SECOND,
        "decayed sum (tau 1 s) of best-level order flow imbalance / mean best-level quantity (tau 10 s)", "Cont, Kukanov, Stoikov, JFEC 12(1), 2014";
    5 OFI_L5_5S "ofi_l5_5s" "ratio" 5 * SECOND,
        "decayed sum (tau 5 s) of order flow imbalance over five levels / mean quantity of a level (tau 10 s)", "Xu, Gould, Howison 2019";
    6 TRADE_IMBALANCE_1S "trade_imbalance_1s" "ratio" SECOND,
        "(bought - sold) / (bought + sold + one lot), decayed sums with tau 1 s", "definition; one lot makes it fade to zero in silence";
    7 TRADE_IMBALANCE_5S "trade_imbalance_5s" "ratio" 5 * SECOND,
        "the same with tau 5 s", "definition; one lot makes it fade to zero in silence";
    8 TRADE_SIGN_EMA_5S "trade_sign_ema_5s" "ratio" 5 * SECOND,
        "decayed sum of aggressor signs / (decayed count of prints + 1), tau 5 s", "definition";
    9 RETURN_1S "return_1s" "ticks" SECOND,
        "mid minus its time-weighted exponential mean, tau 1 s", "definition";
    10 RETURN_10S "return_10s" "ticks" 10 * SECOND,
        "mid minus its time-weighted exponential mean, tau 10 s", "definition";
    11 VOLATILITY_10S "volatility_10s" "ticks" 10 * SECOND,
        "square root of the decayed sum (tau 10 s) of squared mid changes: ticks per 10 s", "realised variance";
    12 IMBALANCE_EMA_2S "imbalance_ema_2s" "ratio" 2 * SECOND,
        "time-weighted exponential mean of imbalance_l1, tau 2 s", "Gould and Bonart, arXiv 1512.03492";
    13 QUOTE_AGE_MS "quote_age_ms" "ms" 0,
        "time since a best price or quantity last changed", "definition";
    14 OFI_L1 "ofi_l1" "ratio" SECOND,
        "decayed sum (tau 1 s) of order flow imbalance of level 1 / mean quantity of a level (five levels, tau 10 s)", "Cont, Cucuringu, Zhang, Quantitative Finance 23(10), 2023: one depth scales every level";
    15 OFI_L2 "ofi_l2" "ratio" SECOND,
        "the same of level 2", "Xu, Gould, Howison 2019; Cont, Cucuringu, Zhang 2023";
    16 OFI_L3 "ofi_l3" "ratio" SECOND,
        "the same of level 3", "Xu, Gould, Howison 2019; Cont, Cucuringu, Zhang 2023";
    17 OFI_L4 "ofi_l4" "ratio" SECOND,
        "the same of level 4", "Xu, Gould, Howison 2019; Cont, Cucuringu, Zhang 2023";
    18 OFI_L5 "ofi_l5" "ratio" SECOND,
        "the same of level 5", "Xu, Gould, Howison 2019; Cont, Cucuringu, Zhang 2023";
    19 OFI_INTEGRATED "ofi_integrated" "ratio" SECOND,
        "(ofi_l1 + ofi_l2 + ofi_l3 + ofi_l4 + ofi_l5) / 5: the first principal component of five levels that vary and correlate alike", "Cont, Cucuringu, Zhang 2023, with fixed weights; research/stats/order_flow.py fits others";
    20 OFI_L1_5S "ofi_l1_5s" "ratio" 5 * SECOND,
        "as ofi_l1_1s with tau 5 s", "Cont, Kukanov, Stoikov, JFEC 12(1), 2014";
    21 OFI_L1_30S "ofi_l1_30s" "ratio" 30 * SECOND,
        "as ofi_l1_1s with tau 30 s", "Cont, Kukanov, Stoikov, JFEC 12(1), 2014";
    22 TRADE_IMBALANCE_30S "trade_imbalance_30s" "ratio" 30 * SECOND,
        "as trade_imbalance_1s with tau 30 s", "definition; one lot makes it fade to zero in silence";
    23 HAWKES_BUY "hawkes_buy" "1/s" 60 * SECOND,
        "intensity of buyer-initiated prints: 0.5 * their mean rate (tau 60 s) + 0.8 * sum of exp(-1.6 * age in s)", "Hawkes 1971; exponential kernel a 0.8, b 1.6 (branching ratio 0.5), baseline that follows the rate";
    24 HAWKES_SELL "hawkes_sell" "1/s" 60 * SECOND,
        "the same of seller-initiated prints", "Hawkes 1971";
    25 QUEUE_DEPLETION_BID "queue_depletion_bid" "ratio" SECOND,
        "decayed sum (tau 1 s) of quantity that left the best bid (fewer lots at its price, or all of them when it moved down) / mean best-level quantity (tau 10 s)", "Cont, de Larrard, SIAM J. Financial Math. 4(1), 2013: prices move when a queue empties";
    26 QUEUE_DEPLETION_ASK "queue_depletion_ask" "ratio" SECOND,
        "the same of the best ask (all of them when it moved up)", "Cont, de Larrard 2013";
    27 VOLATILITY_60S "volatility_60s" "ticks" 60 * SECOND,
        "as volatility_10s with tau 60 s: ticks per 60 s", "realised variance";
    28 KYLE_LAMBDA_60S "kyle_lambda_60s" "ticks/lot" 60 * SECOND,
        "sum of mid change * signed lots / (sum of squared signed lots + 1) over intervals of 1 s, decayed with tau 60 s; an interval ends at the first good book at least 1 s behind its start; signed lots are bought - sold", "Kyle, Econometrica 53(6), 1985; one squared lot makes it fade to zero in silence";
    29 SPREAD_EMA_30S "spread_ema_30s" "ticks" 30 * SECOND,
        "time-weighted exponential mean of spread_ticks, tau 30 s", "definition";
    30 RETURN_AUTOCORR_10S "return_autocorr_10s" "ratio" 10 * SECOND,
        "decayed sum of each mid change * the change before / (decayed sum of squared changes + 1 squared tick), changes that are not zero, tau 10 s", "Roll, J. Finance 39(4), 1984: bounce makes it negative";
    31 TOP_CHANGE_RATE_10S "top_change_rate_10s" "1/s" 10 * SECOND,
        "books a second that changed a best price: decayed count / decayed time, tau 10 s; exp(-x) is the chance that the top survives a second", "definition; Poisson survival";
    32 IMPACT_SURPRISE_5S "impact_surprise_5s" "ticks" 60 * SECOND,
        "decayed sum (tau 5 s) of mid changes minus kyle_lambda_60s * signed lots: the move that trades do not explain", "residual of Kyle 1985";
    33 DEEP_MOMENTUM_5S "deep_momentum_5s" "ratio" 5 * SECOND,
        "imbalance_l2_5 minus its time-weighted exponential mean, tau 5 s; empty deep levels count as 0", "definition";
    34 TOXICITY_30S "toxicity_30s" "ratio" 30 * SECOND,
        "decayed sum of lots * abs(trade_imbalance_1s) at each print / (decayed lots + 1), tau 30 s", "Easley, Lopez de Prado, O'Hara, RFS 25(5), 2012, in time instead of volume buckets";
}

/// Number of features.
pub const FEATURE_COUNT: usize = FEATURES.len();

/// Values of every feature by id.
pub(super) type Values = [f64; FEATURE_COUNT];

/// Longest warm-up; behind it every feature is warm.
pub(super) const WARM_UP_NS_MAX: i64 = 60 * SECOND;

/// Id of the feature called `name`.
#[must_use]
pub fn feature_id(name: &str) -> Option<u16> {
    FEATURES
        .iter()
        .find(|row| row.name == name)
        .map(|row| row.id)
}
