//! A stock whose step of price changes at 100: every order of every template is on its ladder.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests stop at the first surprise"
)]

mod support;

use _core::engine::{APPROVED, EngineConfig};
use _core::reason::ReasonCode;
use _core::record::{ActionKind, BookRecord, DecisionRecord, Record, SCALE, flags};
use _core::ticks::{TickBand, TickLadder};
use support::{Draw, INSTRUMENT, MAKER, Session, TAKER, config};

const CENT: i64 = SCALE / 100;
const SLIPPING: &str = r#"{"kind":"taker","entry_ticks":1.0,"exit_ticks":0.0,"hold_ns":5000000000,"slippage_ticks":3}"#;

fn stocks() -> TickLadder {
    let bands = [(0, 1), (1_000, 5), (5_000, 10), (10_000, 50), (50_000, 100)].map(
        |(from_cents, cents)| TickBand {
            from: from_cents * CENT,
            tick: cents * CENT,
        },
    );
    TickLadder::new(&bands).unwrap()
}

fn stock(template: &str) -> EngineConfig {
    let mut made = config(template, "k * imbalance_l1");
    let instrument = &mut made.instruments[0];
    instrument.tick_bands = Some(stocks());
    instrument.tick_size = 10 * CENT;
    instrument.multiplier = SCALE;
    (instrument.limit_up, instrument.limit_down) = (Some(11_000 * CENT), Some(9_000 * CENT));
    made
}

/// A book around 100 whose levels are steps of the ladder.
fn walk(draw: &mut Draw, bid: i64) -> BookRecord {
    let ladder = stocks();
    let mut record = BookRecord::empty();
    record.header.instrument_id = INSTRUMENT;
    let (mut low, mut high) = (bid, ladder.step(bid, 1).unwrap());
    for level in 0..5_usize {
        (record.bid_price[level], record.ask_price[level]) = (low, high);
        record.bid_qty[level] = draw.between(1, 30) * SCALE;
        record.ask_qty[level] = draw.between(1, 30) * SCALE;
        (low, high) = (ladder.step(low, -1).unwrap(), ladder.step(high, 1).unwrap());
    }
    record
}

fn placed_around_100(config: EngineConfig) -> (Vec<DecisionRecord>, u64) {
    let (ladder, mut draw) = (stocks(), Draw(7));
    let mut session = Session::new(config);
    let mut bid = 9_990 * CENT;
    for place in 0..3_000 {
        let mut record = walk(&mut draw, bid);
        if place == 0 {
            record.header.flags = flags::SESSION_START;
        }
        session.now += 200_000_000;
        session.feed_book(record);
        let towards = if bid > 10_100 * CENT {
            -1
        } else if bid < 9_930 * CENT {
            1
        } else {
            draw.between(0, 2) * 2 - 1
        };
        bid = ladder.step(bid, towards).unwrap();
    }
    let off_tick = ReasonCode::OrderPriceOffTick.code();
    let refused = session
        .decisions
        .iter()
        .filter(|row| row.reason_code == u32::from(off_tick));
    let refused = refused.count() as u64;
    let placed = session
        .decisions
        .iter()
        .filter(|row| row.action == ActionKind::Place as u32 && row.verdict == APPROVED);
    (placed.copied().collect(), refused)
}

#[test]
fn every_template_places_on_the_ladder_on_both_sides_of_a_boundary() {
    for template in [MAKER, TAKER, SLIPPING] {
        let (placed, refused) = placed_around_100(stock(template));
        assert_eq!(refused, 0, "{template}");
        let off = placed
            .iter()
            .filter(|row| !stocks().is_on_grid(row.price))
            .count();
        assert_eq!(off, 0, "{template}");
        let above = placed
            .iter()
            .filter(|row| row.price > 10_000 * CENT)
            .count();
        assert!(
            above > 20 && placed.len() - above > 20,
            "{template}: {above} of {}",
            placed.len()
        );
    }
}

/// The control: the same market with one step everywhere has orders that the exchange would refuse.
#[test]
fn one_step_everywhere_is_off_the_ladder_above_the_boundary() {
    let mut flat = stock(MAKER);
    flat.instruments[0].tick_bands = None;
    let (placed, _) = placed_around_100(flat);
    assert!(placed.iter().any(|row| !stocks().is_on_grid(row.price)));
}
