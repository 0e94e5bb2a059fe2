//! The floor: the least work that turns a market record into an order, on the standard library alone.
//!
//! Why: a time means little on a shared machine; a ratio to this program, measured in the same run on
//! the same records, means the same everywhere. It is what a person would write who knows the one
//! instrument, the one alpha and the one strategy beforehand.
//!
//! Stages, exactly: decode → book → 20 features → linear signal → 10 checks → encode. It has no
//! sessions, no resets, no second instrument, no counters, no reason codes, no replay: everything
//! that makes an engine one is what the engine may cost more.

/// Bytes of a book record.
pub const BOOK_BYTES: usize = 224;
/// Bytes of an encoded order.
pub const ORDER_BYTES: usize = 128;
const LEVELS: usize = 5;
const FEATURES: usize = 20;
const TICK: f64 = 1e8;
/// Weights of the linear signal: all features take part.
const WEIGHTS: [f64; FEATURES] = [
    0.01, 0.9, 0.2, 0.5, 0.3, 0.1, 0.05, 0.04, 0.03, 0.2, 0.15, 0.1, 0.3, 0.1, -0.2, -0.1, 0.01,
    0.02, 0.01, 0.001,
];

/// Five levels a side.
#[derive(Debug, Clone, Copy, Default)]
struct Levels {
    bid_price: [i64; LEVELS],
    bid_qty: [i64; LEVELS],
    ask_price: [i64; LEVELS],
    ask_qty: [i64; LEVELS],
}

/// Everything the program remembers.
#[derive(Debug, Default)]
pub struct Floor {
    book: Levels,
    last_ns: i64,
    changed_ns: i64,
    mid: f64,
    ofi_1s: f64,
    ofi_5s: f64,
    ofi_30s: f64,
    spread_mean: f64,
    imbalance_mean: f64,
    depth_mean: f64,
    move_1s: f64,
    move_10s: f64,
    square_10s: f64,
    position: i64,
    open_buy: i64,
    open_sell: i64,
    sent: u64,
    last_price: i64,
    last_side: i64,
}

fn number(bytes: &[u8], at: usize) -> i64 {
    let mut word = [0_u8; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    i64::from_le_bytes(word)
}

fn side_of(bytes: &[u8], at: usize) -> [i64; LEVELS] {
    std::array::from_fn(|level| number(bytes, at + 8 * level))
}

fn ratio(a: f64, b: f64) -> f64 {
    (a - b) / (a + b)
}

fn flow(old: &Levels, new: &Levels, level: usize) -> f64 {
    let mut sum = 0;
    if new.bid_price[level] >= old.bid_price[level] {
        sum += new.bid_qty[level];
    }
    if new.bid_price[level] <= old.bid_price[level] {
        sum -= old.bid_qty[level];
    }
    if new.ask_price[level] <= old.ask_price[level] {
        sum -= new.ask_qty[level];
    }
    if new.ask_price[level] >= old.ask_price[level] {
        sum += old.ask_qty[level];
    }
    sum as f64
}

impl Floor {
    /// One record in, one encoded order out; `None` when a check refused.
    pub fn on_book(&mut self, bytes: &[u8], order: &mut [u8; ORDER_BYTES]) -> Option<()> {
        // decode
        let now_ns = number(bytes, 40);
        let new = Levels {
            bid_price: side_of(bytes, 64),
            bid_qty: side_of(bytes, 104),
            ask_price: side_of(bytes, 144),
            ask_qty: side_of(bytes, 184),
        };
        // book
        let old = std::mem::replace(&mut self.book, new);
        if new.bid_price[0] >= new.ask_price[0] || new.bid_qty[0] <= 0 || new.ask_qty[0] <= 0 {
            return None;
        }
        // features
        let features = self.features(&old, &new, now_ns);
        // signal
        let mut signal = 0.0;
        for (weight, value) in WEIGHTS.iter().zip(&features) {
            signal += weight * value;
        }
        let side = if signal >= 0.0 { 1 } else { -1 };
        let price = if side > 0 {
            new.ask_price[0]
        } else {
            new.bid_price[0]
        };
        // checks
        self.checks(side, price, signal, now_ns)?;
        // encode
        self.sent += 1;
        (self.last_price, self.last_side) = (price, side);
        let words = [
            self.sent as i64,
            number(bytes, 8),
            number(bytes, 24),
            number(bytes, 32),
            now_ns,
            side,
            price,
            SIZE,
            signal.to_bits() as i64,
            new.bid_price[0],
            new.ask_price[0],
            self.position,
            self.open_buy,
            self.open_sell,
            1,
            0,
        ];
        for (place, word) in words.iter().enumerate() {
            order[8 * place..8 * place + 8].copy_from_slice(&word.to_le_bytes());
        }
        Some(())
    }

    fn features(&mut self, old: &Levels, new: &Levels, now_ns: i64) -> [f64; FEATURES] {
        let dt = (now_ns - self.last_ns) as f64 * 1e-9;
        self.last_ns = now_ns;
        let fade_30 = (-dt / 30.0).exp();
        let fade_10 = fade_30 * fade_30 * fade_30;
        let fade_5 = fade_10 * fade_10;
        let fade_1 = fade_5 * fade_5 * fade_5 * fade_5 * fade_5;
        let (bid, ask) = (new.bid_price[0] as f64, new.ask_price[0] as f64);
        let (bid_qty, ask_qty) = (new.bid_qty[0] as f64, new.ask_qty[0] as f64);
        let mid = (bid + ask) / (2.0 * TICK);
        let spread = (ask - bid) / TICK;
        let moved = if self.mid == 0.0 { 0.0 } else { mid - self.mid };
        self.mid = mid;
        let imbalance = ratio(bid_qty, ask_qty);
        let deep = |qty: &[i64; LEVELS]| qty[1..].iter().sum::<i64>() as f64;
        let (bid_deep, ask_deep) = (deep(&new.bid_qty), deep(&new.ask_qty));
        let flows: [f64; LEVELS] = std::array::from_fn(|level| flow(old, new, level));
        let all: f64 = flows.iter().sum();
        self.ofi_1s = self.ofi_1s * fade_1 + flows[0];
        self.ofi_5s = self.ofi_5s * fade_5 + all;
        self.ofi_30s = self.ofi_30s * fade_30 + all;
        self.spread_mean = spread + (self.spread_mean - spread) * fade_30;
        self.imbalance_mean = imbalance + (self.imbalance_mean - imbalance) * fade_5;
        let depth = (bid_qty + ask_qty) / 2.0;
        self.depth_mean = depth + (self.depth_mean - depth) * fade_10;
        self.move_1s = self.move_1s * fade_1 + moved;
        self.move_10s = self.move_10s * fade_10 + moved;
        self.square_10s = self.square_10s * fade_10 + moved * moved;
        if old.bid_price[0] != new.bid_price[0] || old.bid_qty[0] != new.bid_qty[0] {
            self.changed_ns = now_ns;
        }
        let scale = 1.0 / self.depth_mean;
        [
            spread,
            imbalance,
            ratio(bid_deep, ask_deep),
            imbalance * spread / 2.0,
            flows[0] * scale,
            flows[1] * scale,
            flows[2] * scale,
            flows[3] * scale,
            flows[4] * scale,
            self.ofi_1s * scale,
            self.ofi_5s * scale,
            self.ofi_30s * scale,
            self.imbalance_mean,
            self.spread_mean,
            self.move_1s,
            self.move_10s,
            self.square_10s.sqrt(),
            (bid_qty + bid_deep) * scale,
            (ask_qty + ask_deep) * scale,
            (now_ns - self.changed_ns) as f64 * 1e-6,
        ]
    }

    fn checks(&self, side: i64, price: i64, signal: f64, now_ns: i64) -> Option<()> {
        let open = if side > 0 {
            self.open_buy
        } else {
            self.open_sell
        };
        let mid = (self.book.bid_price[0] + self.book.ask_price[0]) / 2;
        let passes = signal.is_finite()
            && price > 0
            && price % 100_000_000 == 0
            && (LIMIT_DOWN..=LIMIT_UP).contains(&price)
            && (price - mid).abs() <= mid / 50
            && SIZE <= SIZE_MAX
            && self.position * side + open + SIZE <= POSITION_MAX
            && i128::from(price) * i128::from(SIZE) <= NOTIONAL_MAX
            && now_ns - self.last_ns <= AGE_NS_MAX;
        passes.then_some(())
    }
}

const SIZE: i64 = 100_000_000;
const SIZE_MAX: i64 = 200_000_000;
const POSITION_MAX: i64 = 300_000_000;
const LIMIT_UP: i64 = 99_999 * 100_000_000;
const LIMIT_DOWN: i64 = 100_000_000;
const NOTIONAL_MAX: i128 = 10_i128.pow(23);
const AGE_NS_MAX: i64 = 1_000_000_000;
