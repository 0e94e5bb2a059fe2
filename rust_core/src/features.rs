//! Features: what an alpha may see, updated record by record.
//!
//! Why: research and live must compute the same number; there is one implementation, and the
//! batch evaluation runs it.
//!
//! Invariants:
//! 1. A value depends only on records up to now, in their order.
//! 2. Decay is in real time, never in event counts: every window is `exp(-dt / tau)`.
//! 3. State starts over at a session start and behind a gap; a feature is NaN until its warm-up
//!    has passed, and all are NaN while the book is invalid.
//! 4. An update is O(1) and allocates nothing.
//!
//! Unit is ticks, a ratio or ms. Five-level snapshots give aggregated order flow: compare it with
//! other snapshot data, not with event-level results. Operator's page: `docs/features.md`.

use crate::book::{Book, Side};
use crate::record::LEVEL_COUNT;

/// Nanoseconds in a second.
const SECOND: i64 = 1_000_000_000;

/// One row of the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeatureRow {
    /// Stable number, appended only.
    pub id: u16,
    /// Name in expressions.
    pub name: &'static str,
    /// `ticks`, `ratio` or `ms`.
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
}

/// Number of features.
pub const FEATURE_COUNT: usize = FEATURES.len();

/// Longest warm-up; behind it every feature is warm.
const WARM_UP_NS_MAX: i64 = 10 * SECOND;

/// Id of the feature called `name`.
#[must_use]
pub fn feature_id(name: &str) -> Option<u16> {
    FEATURES
        .iter()
        .find(|row| row.name == name)
        .map(|row| row.id)
}

/// `exp(-dt / tau)` for the time constants in use, from one call of `exp`.
#[derive(Debug, Clone, Copy)]
struct Decay {
    s1: f64,
    s2: f64,
    s5: f64,
    s10: f64,
}

impl Decay {
    /// Decay over `dt_ns` > 0.
    fn over(dt_ns: i64) -> Self {
        #[allow(
            clippy::cast_precision_loss,
            reason = "a duration within a session is exact in f64"
        )]
        let s10 = crate::math::exp(-(dt_ns as f64) / (10 * SECOND) as f64);
        let s5 = s10 * s10;
        let s2 = s5 * s5 * s10;
        let s1 = s2 * s2;
        Self { s1, s2, s5, s10 }
    }
}

/// The two sides an order flow increment is taken against.
#[derive(Debug, Clone, Copy)]
struct Sides {
    bid: Side,
    ask: Side,
}

/// Features of one instrument.
#[derive(Debug, Clone)]
pub struct FeatureSet {
    tick: f64,
    lot: f64,
    /// Time of the first good book since the last reset.
    started_ns: Option<i64>,
    last_ns: i64,
    /// The last book, if it was good and nothing invalid came since.
    previous: Option<Sides>,
    /// Mid of the last good book, in ticks.
    mid_ticks: f64,
    imbalance: f64,
    depth_l1: f64,
    depth_l5: f64,
    top_changed_ns: i64,
    depth_l1_ema: f64,
    depth_l5_ema: f64,
    imbalance_ema: f64,
    ofi_l1: f64,
    ofi_l5: f64,
    bought_1s: f64,
    sold_1s: f64,
    bought_5s: f64,
    sold_5s: f64,
    sign_5s: f64,
    prints_5s: f64,
    move_1s: f64,
    move_10s: f64,
    square_10s: f64,
    values: [f64; FEATURE_COUNT],
}

#[allow(
    clippy::cast_precision_loss,
    reason = "features are floating point; money never is"
)]
fn float(value: i64) -> f64 {
    value as f64
}

/// Signed change of the queue at one bid level and one ask level.
fn level_flow(old: &Sides, new: &Sides, level: usize) -> i64 {
    let (bid_old, bid_new) = (old.bid.price[level], new.bid.price[level]);
    // A missing ask is infinitely far, as a missing bid (price 0) already is.
    let far = |price: i64| if price == 0 { i64::MAX } else { price };
    let (ask_old, ask_new) = (far(old.ask.price[level]), far(new.ask.price[level]));
    let mut flow = 0;
    flow += if bid_new >= bid_old {
        new.bid.qty[level]
    } else {
        0
    };
    flow -= if bid_new <= bid_old {
        old.bid.qty[level]
    } else {
        0
    };
    flow -= if ask_new <= ask_old {
        new.ask.qty[level]
    } else {
        0
    };
    flow += if ask_new >= ask_old {
        old.ask.qty[level]
    } else {
        0
    };
    flow
}

fn ratio(difference: f64, sum: f64) -> f64 {
    if sum > 0.0 {
        difference / sum
    } else {
        f64::NAN
    }
}

impl FeatureSet {
    /// An empty set for an instrument with this tick and lot size (scaled).
    #[must_use]
    pub fn new(tick_size: i64, lot_size: i64) -> Self {
        Self {
            tick: float(tick_size),
            lot: float(lot_size),
            started_ns: None,
            last_ns: 0,
            previous: None,
            mid_ticks: 0.0,
            imbalance: 0.0,
            depth_l1: 0.0,
            depth_l5: 0.0,
            top_changed_ns: 0,
            depth_l1_ema: 0.0,
            depth_l5_ema: 0.0,
            imbalance_ema: 0.0,
            ofi_l1: 0.0,
            ofi_l5: 0.0,
            bought_1s: 0.0,
            sold_1s: 0.0,
            bought_5s: 0.0,
            sold_5s: 0.0,
            sign_5s: 0.0,
            prints_5s: 0.0,
            move_1s: 0.0,
            move_10s: 0.0,
            square_10s: 0.0,
            values: [f64::NAN; FEATURE_COUNT],
        }
    }

    /// Current values by id; NaN where a feature cannot be computed yet.
    #[must_use]
    pub fn values(&self) -> &[f64; FEATURE_COUNT] {
        &self.values
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        *self = Self {
            tick: self.tick,
            lot: self.lot,
            ..Self::new(1, 1)
        };
    }

    /// Lets time pass: sums fade, means move to the values that were in force.
    fn advance(&mut self, now_ns: i64) {
        let dt_ns = now_ns.saturating_sub(self.last_ns);
        self.last_ns = now_ns;
        if dt_ns <= 0 {
            return;
        }
        let decay = Decay::over(dt_ns);
        self.ofi_l1 *= decay.s1;
        self.ofi_l5 *= decay.s5;
        self.bought_1s *= decay.s1;
        self.sold_1s *= decay.s1;
        self.bought_5s *= decay.s5;
        self.sold_5s *= decay.s5;
        self.sign_5s *= decay.s5;
        self.prints_5s *= decay.s5;
        self.move_1s *= decay.s1;
        self.move_10s *= decay.s10;
        self.square_10s *= decay.s10;
        self.imbalance_ema = self.imbalance + (self.imbalance_ema - self.imbalance) * decay.s2;
        self.depth_l1_ema = self.depth_l1 + (self.depth_l1_ema - self.depth_l1) * decay.s10;
        self.depth_l5_ema = self.depth_l5 + (self.depth_l5_ema - self.depth_l5) * decay.s10;
    }

    /// Takes the book after a snapshot at engine time `now_ns`.
    pub fn on_book(&mut self, book: &Book, now_ns: i64) {
        self.advance(now_ns);
        if !book.is_valid() {
            self.previous = None;
            self.values = [f64::NAN; FEATURE_COUNT];
            return;
        }
        let new = Sides {
            bid: *book.bid(),
            ask: *book.ask(),
        };
        let mid_ticks = float(new.bid.price[0] + new.ask.price[0]) / (2.0 * self.tick);
        let (bid_qty, ask_qty) = (float(new.bid.qty[0]), float(new.ask.qty[0]));
        let (bid_depth, ask_depth) = (float(new.bid.depth()), float(new.ask.depth()));
        self.imbalance = ratio(bid_qty - ask_qty, bid_qty + ask_qty);
        self.depth_l1 = (bid_qty + ask_qty) / 2.0;
        self.depth_l5 = (bid_depth + ask_depth) / float(2 * LEVEL_COUNT as i64);
        if self.started_ns.is_none() {
            self.started_ns = Some(now_ns);
            self.imbalance_ema = self.imbalance;
            self.depth_l1_ema = self.depth_l1;
            self.depth_l5_ema = self.depth_l5;
            self.top_changed_ns = now_ns;
        } else {
            let moved = mid_ticks - self.mid_ticks;
            self.move_1s += moved;
            self.move_10s += moved;
            self.square_10s += moved * moved;
        }
        self.mid_ticks = mid_ticks;
        match &self.previous {
            Some(old) => {
                let best = level_flow(old, &new, 0);
                let deep: i64 = (1..LEVEL_COUNT)
                    .map(|level| level_flow(old, &new, level))
                    .sum();
                self.ofi_l1 += float(best);
                self.ofi_l5 += float(best) + float(deep);
                let is_same = |a: &Side, b: &Side| a.price[0] == b.price[0] && a.qty[0] == b.qty[0];
                if !is_same(&old.bid, &new.bid) || !is_same(&old.ask, &new.ask) {
                    self.top_changed_ns = now_ns;
                }
            }
            None => self.top_changed_ns = now_ns,
        }
        let spread = float(new.ask.price[0] - new.bid.price[0]) / self.tick;
        let (bid_behind, ask_behind) = (bid_depth - bid_qty, ask_depth - ask_qty);
        self.values[SPREAD_TICKS] = spread;
        self.values[IMBALANCE_L1] = self.imbalance;
        self.values[IMBALANCE_L2_5] = ratio(bid_behind - ask_behind, bid_behind + ask_behind);
        self.values[MICROPRICE_DEV] = self.imbalance * spread / 2.0;
        self.previous = Some(new);
        self.refresh(now_ns);
    }

    /// Takes a market print: `side` is +1 when the buyer aggressed, -1 the seller, 0 unknown.
    pub fn on_trade(&mut self, qty: i64, side: i64, now_ns: i64) {
        self.advance(now_ns);
        let qty = float(qty);
        if side > 0 {
            self.bought_1s += qty;
            self.bought_5s += qty;
        } else if side < 0 {
            self.sold_1s += qty;
            self.sold_5s += qty;
        }
        if side != 0 {
            self.sign_5s += float(side.signum());
            self.prints_5s += 1.0;
        }
        if self.previous.is_some() {
            self.refresh(now_ns);
        }
    }

    /// Recomputes the values that change with time.
    fn refresh(&mut self, now_ns: i64) {
        let Some(started_ns) = self.started_ns else {
            return;
        };
        let values = &mut self.values;
        values[OFI_L1_1S] = ratio(self.ofi_l1, self.depth_l1_ema);
        values[OFI_L5_5S] = ratio(self.ofi_l5, self.depth_l5_ema);
        values[TRADE_IMBALANCE_1S] =
            (self.bought_1s - self.sold_1s) / (self.bought_1s + self.sold_1s + self.lot);
        values[TRADE_IMBALANCE_5S] =
            (self.bought_5s - self.sold_5s) / (self.bought_5s + self.sold_5s + self.lot);
        values[TRADE_SIGN_EMA_5S] = self.sign_5s / (self.prints_5s + 1.0);
        values[RETURN_1S] = self.move_1s;
        values[RETURN_10S] = self.move_10s;
        values[VOLATILITY_10S] = self.square_10s.sqrt();
        values[IMBALANCE_EMA_2S] = self.imbalance_ema;
        values[QUOTE_AGE_MS] = float(now_ns.saturating_sub(self.top_changed_ns)) / 1e6;
        let warm_ns = now_ns.saturating_sub(started_ns);
        if warm_ns < WARM_UP_NS_MAX {
            for (value, row) in values.iter_mut().zip(FEATURES) {
                if warm_ns < row.warm_up_ns {
                    *value = f64::NAN;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{BookRecord, Record, SCALE};

    fn snapshot(bid: i64, bid_qty: i64, ask: i64, ask_qty: i64) -> BookRecord {
        let mut record = BookRecord::empty();
        for (level, offset) in (0..5_i64).enumerate() {
            record.bid_price[level] = (bid - offset) * SCALE;
            record.ask_price[level] = (ask + offset) * SCALE;
            record.bid_qty[level] = bid_qty * SCALE;
            record.ask_qty[level] = ask_qty * SCALE;
        }
        record
    }

    fn feed(set: &mut FeatureSet, record: &BookRecord, now_ns: i64) {
        let mut book = Book::default();
        assert_eq!(book.on_book(record, now_ns), Ok(()));
        set.on_book(&book, now_ns);
    }

    fn near(actual: f64, expected: f64) {
        assert!(
            (actual - expected).abs() < 1e-9,
            "{actual} is not {expected}"
        );
    }

    #[test]
    fn ids_are_places_and_names_are_unique() {
        for (place, row) in FEATURES.iter().enumerate() {
            assert_eq!(usize::from(row.id), place);
            assert_eq!(feature_id(row.name), Some(row.id));
            assert!(row.warm_up_ns <= WARM_UP_NS_MAX);
        }
        assert_eq!(feature_id("ofi"), None);
    }

    #[test]
    fn instant_features_match_a_case_by_hand() {
        let mut set = FeatureSet::new(SCALE, SCALE);
        feed(&mut set, &snapshot(100, 30, 102, 10), 0);
        near(set.values()[SPREAD_TICKS], 2.0);
        near(set.values()[IMBALANCE_L1], 0.5);
        near(set.values()[IMBALANCE_L2_5], 0.5);
        near(set.values()[MICROPRICE_DEV], 0.5);
        assert!(set.values()[OFI_L1_1S].is_nan());
    }

    /// Unit orders on constant depth: the mid moves by half the normalised order flow.
    #[test]
    fn decayed_features_match_a_case_by_hand() {
        let mut set = FeatureSet::new(SCALE, SCALE);
        feed(&mut set, &snapshot(100, 10, 101, 10), 0);
        feed(&mut set, &snapshot(100, 10, 101, 10), 10 * SECOND);
        near(set.values()[OFI_L1_1S], 0.0);
        near(set.values()[QUOTE_AGE_MS], 10_000.0);
        // The bid queue grows by 5: flow +5 over a mean depth still at 10.
        feed(&mut set, &snapshot(100, 15, 101, 10), 10 * SECOND + 1);
        assert!((set.values()[OFI_L1_1S] - 0.5).abs() < 1e-6);
        near(set.values()[QUOTE_AGE_MS], 0.0);
        set.on_trade(3 * SCALE, 1, 10 * SECOND + 1);
        near(set.values()[TRADE_IMBALANCE_1S], 0.75);
        near(set.values()[TRADE_SIGN_EMA_5S], 0.5);
        // Up one tick, then one second of silence ended by a print of unknown side.
        feed(&mut set, &snapshot(101, 10, 102, 10), 10 * SECOND + 1);
        near(set.values()[RETURN_1S], 1.0);
        near(set.values()[VOLATILITY_10S], 1.0);
        set.on_trade(SCALE, 0, 11 * SECOND + 1);
        near(set.values()[RETURN_1S], (-1.0_f64).exp());
        near(set.values()[RETURN_10S], (-0.1_f64).exp());
        near(set.values()[VOLATILITY_10S], (-0.05_f64).exp());
        near(
            set.values()[TRADE_IMBALANCE_5S],
            3.0 * (-0.2_f64).exp() / (3.0 * (-0.2_f64).exp() + 1.0),
        );
    }

    #[test]
    fn a_reset_and_an_invalid_book_make_every_feature_nan() {
        let mut set = FeatureSet::new(SCALE, SCALE);
        for second in 0..12 {
            feed(
                &mut set,
                &snapshot(100, 10 + second, 101, 10),
                second * SECOND,
            );
        }
        assert!(set.values().iter().all(|value| value.is_finite()));
        let mut book = Book::default();
        assert_eq!(book.on_book(&snapshot(102, 1, 101, 1), 12 * SECOND), Ok(()));
        set.on_book(&book, 12 * SECOND);
        assert!(set.values().iter().all(|value| value.is_nan()));
        feed(&mut set, &snapshot(100, 10, 101, 10), 13 * SECOND);
        assert!(set.values().iter().all(|value| value.is_finite()));
        set.reset();
        assert!(set.values().iter().all(|value| value.is_nan()));
        feed(&mut set, &snapshot(100, 10, 101, 10), 14 * SECOND);
        assert!(set.values()[RETURN_1S].is_nan());
    }

    #[test]
    fn a_missing_ask_level_counts_as_infinitely_far() {
        let with = Sides {
            bid: Side::default(),
            ask: Side {
                price: [7, 0, 0, 0, 0],
                qty: [3, 0, 0, 0, 0],
                count: 1,
            },
        };
        let without = Sides {
            bid: Side::default(),
            ask: Side::default(),
        };
        assert_eq!(level_flow(&with, &without, 0), 3);
        assert_eq!(level_flow(&without, &with, 0), -3);
    }
}
