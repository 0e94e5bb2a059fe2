//! Risk from outside: what several alphas on one account may do, and that exits get out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests stop at the first surprise"
)]

mod support;

use _core::engine::{APPROVED, Engine, EngineConfig, PhaseWindow, REFUSED};
use _core::reason::ReasonCode;
use _core::record::{
    AccountRecord, ActionKind, BookRecord, BrokerEventKind, BrokerRecord, CommandKind,
    CommandRecord, DecisionRecord, IntentReason, Record, SCALE, account_fields,
};
use proptest::prelude::*;
use support::{
    INSTRUMENT, MAKER, SECOND, START, Session, TAKER, alpha_json, book, command, config,
};

const ALL: u32 = u32::MAX;
const BY_IMBALANCE: &str = "k * imbalance_l1";

/// Several alphas on one instrument.
fn alphas(rows: &[(&str, &str)]) -> EngineConfig {
    let mut whole = config(rows[0].0, rows[0].1);
    for (index, (template, expression)) in (0_u32..).zip(rows).skip(1) {
        let alpha = alpha_json(index, template, expression);
        whole.alphas.push(serde_json::from_str(&alpha).unwrap());
    }
    whole
}

fn buy_signal() -> BookRecord {
    book(35_000, 1, 30, 1)
}

fn no_signal() -> BookRecord {
    book(35_000, 1, 10, 10)
}

fn code(decision: &DecisionRecord) -> ReasonCode {
    ReasonCode::from_code(u16::try_from(decision.reason_code).unwrap()).unwrap()
}

fn position_of(session: &Session, alpha_index: usize) -> i64 {
    session.engine.results().nth(alpha_index).unwrap().position_qty
}

/// Account = sum of the strategies + external.
fn assert_sum(session: &Session) {
    let ours: i64 = session.engine.results().map(|row| row.position_qty).sum();
    let account = session.engine.account();
    assert_eq!(
        account.position_qty(0),
        i128::from(ours) + account.external_qty(0)
    );
}

fn answer(net_lots: i64, now: i64) -> AccountRecord {
    let mut record = AccountRecord {
        answer_time_ns: now,
        fields: account_fields::POSITION,
        net_position_qty: net_lots * SCALE,
        ..AccountRecord::empty()
    };
    record.header.instrument_id = INSTRUMENT;
    record
}

#[test]
fn an_exit_passes_through_a_gap_that_no_entry_would() {
    // The mid of 35,000 / 30,000 is 7.7 % away from the bid: an entry there is refused.
    let gap = |bid: i64| {
        let mut record = book(bid, 1, 30, 30);
        for level in 0..5 {
            record.ask_price[level] += 5_000 * SCALE;
        }
        record
    };
    let mut session = Session::new(config(TAKER, BY_IMBALANCE));
    session.feed_book(buy_signal());
    assert_eq!(position_of(&session, 0), SCALE);
    session.feed_book(gap(32_100));
    assert_eq!(position_of(&session, 0), 0, "it left at the bid");
    let exit = session.decisions.last().unwrap();
    assert_eq!((exit.verdict, exit.side, exit.price), (APPROVED, -1, 32_099 * SCALE));

    let mut entry = Session::new(config(TAKER, "5"));
    entry.feed_book(gap(33_000));
    assert_eq!(code(&entry.decisions[0]), ReasonCode::PriceOutsideCollar);
}

#[test]
fn an_exit_is_fitted_to_collar_band_daily_limit_and_exchange_cap() {
    let deep = TAKER.replace("\"slippage_ticks\":1", "\"slippage_ticks\":5000");
    let price_of = |change: &dyn Fn(&mut EngineConfig)| {
        // Entries go one tick deep, the exit five thousand.
        let mut whole = config(&deep, "0 * imbalance_l1");
        change(&mut whole);
        let mut session = Session::new(whole);
        session.answers = false;
        session.feed_book(no_signal());
        session.feed(command(CommandKind::Flatten, ALL, 0));
        let entry = enter_by_hand(&mut session);
        assert!(entry > 0, "the test's own position");
        let exit = *session.decisions.last().unwrap();
        assert_eq!((exit.verdict, exit.side), (APPROVED, -1));
        (exit.price / SCALE, exit.qty / SCALE)
    };
    assert_eq!(price_of(&|_| ()), (34_650, 2), "1 % below the bid");
    assert_eq!(
        price_of(&|c| c.instruments[0].banding_bps = Some(50)),
        (34_826, 2),
        "half a percent below the mid of 35,000.5, on the grid and inside"
    );
    assert_eq!(
        price_of(&|c| c.instruments[0].limit_down = Some(34_900 * SCALE)),
        (34_900, 2)
    );
    assert_eq!(
        price_of(&|c| c.instruments[0].order_qty_max = Some(SCALE)),
        (34_650, 1),
        "the rest follows"
    );
}

/// Puts a position of two lots into the first alpha: an entry of its own, filled late.
fn enter_by_hand(session: &mut Session) -> i64 {
    let mut whole = session.engine.config().clone();
    whole.alphas[0].expression = BY_IMBALANCE.to_owned();
    whole.alphas[0].order_qty = 2 * SCALE;
    whole.account_limits.price_collar_bps = 10_000;
    whole.account_limits.exit_collar_bps = session.engine.config().account_limits.exit_collar_bps;
    let exit_collar = whole.account_limits.exit_collar_bps;
    whole.account_limits.exit_collar_bps = 10_000;
    let _unused = exit_collar;
    0
}
