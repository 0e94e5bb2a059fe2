//! What the benchmarks run on: a real session when `HFT_BENCH_TAPE` names one, else a synthetic day.
#![allow(
    clippy::unwrap_used,
    reason = "a benchmark stops at the first surprise"
)]
#![allow(dead_code, reason = "every benchmark uses another part")]

#[path = "../../tests/support/mod.rs"]
pub mod support;

use _core::engine::EngineConfig;
use _core::record::{BookRecord, Record, Tape};

/// Six terms over slow and fast features.
pub const ALPHA: &str = "0.6 * ofi_l1_1s + 0.4 * ofi_l5_5s + k * microprice_dev - 0.1 * return_1s \
                         + 0.2 * trade_imbalance_5s + 0.3 * imbalance_ema_2s";
const SYNTHETIC_BOOKS: usize = 200_000;

/// A tape of records, and what it is.
pub fn tape() -> (Vec<u8>, &'static str) {
    match std::env::var_os("HFT_BENCH_TAPE") {
        Some(path) => (std::fs::read(path).unwrap(), "recording"),
        None => (support::tape(1, SYNTHETIC_BOOKS), "synthetic"),
    }
}

/// Books with both sides, as bytes.
pub fn books(tape: &[u8]) -> Vec<&[u8]> {
    let is_usable = |bytes: &&[u8]| {
        BookRecord::read(bytes)
            .is_some_and(|book| (1..book.ask_price[0]).contains(&book.bid_price[0]))
    };
    Tape::new(tape)
        .map(|item| item.unwrap().1)
        .filter(is_usable)
        .collect()
}

/// A config for the tape's instrument, open for ever, whose losses stop nothing.
pub fn config(tape: &[u8], template: &str, expression: &str) -> EngineConfig {
    let mut config = support::config(template, expression);
    let header = Tape::new(tape).next().unwrap().unwrap().0;
    config.instruments[0].instrument_id = header.instrument_id;
    config.instruments[0].limit_up = None;
    config.instruments[0].limit_down = None;
    config.alphas[0].instrument_id = header.instrument_id;
    config.alphas[0].limits.daily_loss_max = i64::MAX / 4;
    config.alphas[0].limits.drawdown_max = i64::MAX / 4;
    config.alphas[0].limits.loss_speed_max = i64::MAX / 4;
    config.alphas[0].expires_ns = i64::MAX / 2;
    config.account_limits.order_to_trade_max = u32::MAX / 2;
    config.session.phases.truncate(1);
    config.session.phases[0].start_ns = 0;
    config.session.phases[0].end_ns = i64::MAX / 2;
    config
}
