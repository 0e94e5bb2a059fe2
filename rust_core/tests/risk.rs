//! Risk from outside: what several alphas on one account may do, and that exits get out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
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
use proptest::strategy::ValueTree;
use support::{
    INSTRUMENT, MAKER, SECOND, START, Session, TAKER, alpha_json, book, command, config,
};

const ALL: u32 = u32::MAX;
const BY_IMBALANCE: &str = "k * imbalance_l1";
/// Quotes both sides whatever the market does.
const QUOTE: &str = "0 * imbalance_l1";

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

fn codes(session: &Session) -> Vec<ReasonCode> {
    let refused = session.decisions.iter().filter(|d| d.verdict == REFUSED);
    refused.map(code).collect()
}

fn position_of(session: &Session, alpha_index: usize) -> i64 {
    let row = session.engine.results().nth(alpha_index).unwrap();
    row.position_qty / SCALE
}

/// Invariant 1 of the account: sum of the strategies + external.
fn sum_holds(session: &Session) -> bool {
    let ours: i64 = session.engine.results().map(|row| row.position_qty).sum();
    let account = session.engine.account();
    account.position_qty(0) == i128::from(ours) + account.external_qty(0)
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

fn adopt(lots: i64) -> CommandRecord {
    let mut record = command(CommandKind::AdoptExternal, ALL, lots * SCALE);
    record.header.instrument_id = INSTRUMENT;
    record
}

/// Every limit, left out or out of its range, is an error that names it: none has a default.
#[test]
fn a_limit_that_is_missing_or_out_of_range_is_named() {
    let good: serde_json::Value =
        serde_json::from_str(&support::config_json(TAKER, BY_IMBALANCE)).unwrap();
    let places = [
        ("/account_limits", 19),
        ("/alphas/0/limits", 6),
        ("/instruments/0", 11),
    ];
    for (place, count) in places {
        let keys: Vec<String> = good
            .pointer(place)
            .unwrap()
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect();
        assert_eq!(keys.len(), count, "{place}: {keys:?}");
        for key in keys {
            for value in [
                None,
                Some(serde_json::json!(-1)),
                Some(serde_json::json!("many")),
            ] {
                let mut damaged = good.clone();
                let table = damaged.pointer_mut(place).unwrap().as_object_mut().unwrap();
                match &value {
                    None => drop(table.remove(&key)),
                    Some(value) => drop(table.insert(key.clone(), value.clone())),
                }
                // A symbol may be any word, and these two may be any of their kind.
                let is_word = key == "symbol" && value.as_ref().is_some_and(|v| v.is_string());
                if is_word {
                    continue;
                }
                let error = Engine::from_json(&damaged.to_string()).unwrap_err();
                assert_eq!(error.code(), ReasonCode::ConfigMalformed, "{key} {value:?}");
                let text = error.to_string();
                let is_typed = text.contains("invalid") || text.contains("expected");
                assert!(text.contains(&key) || is_typed, "{key} {value:?}: {text}");
            }
        }
    }
    let cases: [fn(&mut EngineConfig); 6] = [
        |c| c.account_limits.exit_collar_bps = c.account_limits.price_collar_bps - 1,
        |c| c.account_limits.reject_rate_max = 1_024,
        |c| c.account_limits.clock_skew_ns_max = Some(0),
        |c| c.instruments[0].order_qty_max = Some(SCALE + 1),
        |c| c.instruments[0].banding_bps = Some(10_001),
        |c| c.account_limits.order_to_trade_max = 0,
    ];
    for (index, damage) in cases.into_iter().enumerate() {
        let mut whole = config(TAKER, BY_IMBALANCE);
        damage(&mut whole);
        assert!(Engine::new(whole).is_err(), "case {index}");
    }
}

/// A book whose asks are far away, as after a gap.
fn gap(bid: i64) -> BookRecord {
    let mut record = book(bid, 1, 30, 30);
    for price in &mut record.ask_price {
        *price += 5_000 * SCALE;
    }
    record
}

/// Regression: an exit was held to the mid like an entry, so a gap could shut a position in.
#[test]
fn an_exit_passes_through_a_gap_that_no_entry_would() {
    let mut session = Session::new(config(TAKER, BY_IMBALANCE));
    session.feed_book(buy_signal());
    assert_eq!(position_of(&session, 0), 1);
    session.feed_book(gap(32_100));
    assert_eq!(position_of(&session, 0), 0, "it left at the bid");
    let exit = session.decisions.last().unwrap();
    assert_eq!(
        (exit.verdict, exit.side, exit.price),
        (APPROVED, -1, 32_099 * SCALE)
    );
    let mut entry = Session::new(config(TAKER, "5"));
    entry.feed_book(gap(33_000));
    assert_eq!(codes(&entry), [ReasonCode::PriceOutsideCollar]);
}

/// Regression: a quote of another alpha refused the exit of this one for as long as it stood.
#[test]
fn an_exit_cancels_our_own_quote_in_its_way_and_then_leaves_before_it_is_quoted_again() {
    let mut session = Session::new(alphas(&[(TAKER, BY_IMBALANCE), (MAKER, QUOTE)]));
    session.feed_book(buy_signal());
    assert_eq!(position_of(&session, 0), 1);
    assert_eq!(session.engine.open_orders().count(), 2, "the quotes");
    let before = session.decisions.len();
    session.feed(command(CommandKind::Flatten, 0, 0));
    let after: Vec<_> = session.decisions[before..]
        .iter()
        .map(|d| (d.alpha_index, d.action, d.side, d.verdict))
        .collect();
    let (place, cancel) = (ActionKind::Place as u32, ActionKind::Cancel as u32);
    assert_eq!(
        after[..3],
        [
            (1, cancel, 1, APPROVED),
            (0, place, -1, REFUSED),
            (0, place, -1, APPROVED),
        ],
        "cancel, wait, leave: {after:?}"
    );
    let first = session.decisions[before];
    assert_eq!(first.intent_reason, IntentReason::ClearExit as u32);
    assert!(codes(&session).contains(&ReasonCode::ExitWaitsForCancel));
    assert_eq!(position_of(&session, 0), 0);
    assert_eq!(session.engine.account().waiting_exit(0), None);
}

#[test]
fn an_exit_does_not_wait_for_an_order_whose_outcome_is_unknown() {
    let mut session = Session::new(alphas(&[(TAKER, BY_IMBALANCE), (MAKER, QUOTE)]));
    session.feed_book(buy_signal());
    let quote = *session
        .decisions
        .iter()
        .find(|d| d.alpha_index == 1 && d.side == 1)
        .unwrap();
    session.report(BrokerEventKind::Unknown, &quote, quote.price, 0, false);
    session.feed(command(CommandKind::Flatten, 0, 0));
    assert_eq!(position_of(&session, 0), 0);
    assert!(!codes(&session).contains(&ReasonCode::ExitWaitsForCancel));
}

#[test]
fn while_an_exit_waits_nobody_quotes_into_its_way() {
    let mut session = Session::new(alphas(&[
        (TAKER, BY_IMBALANCE),
        (MAKER, QUOTE),
        (MAKER, "0.1 * k * imbalance_l1"),
    ]));
    session.feed_book(buy_signal());
    // From now on nobody answers, so the exit must wait.
    session.answers = false;
    session.feed(command(CommandKind::Flatten, 0, 0));
    assert!(session.engine.account().waiting_exit(0).is_some());
    let before = session.decisions.len();
    let canceled: Vec<_> = session.decisions[..before]
        .iter()
        .filter(|d| d.intent_reason == IntentReason::ClearExit as u32)
        .copied()
        .collect();
    assert_eq!(canceled.len(), 2, "both makers' bids");
    session.report(
        BrokerEventKind::Canceled,
        &canceled[0],
        canceled[0].price,
        0,
        false,
    );
    let quoted = session.decisions[before..]
        .iter()
        .filter(|d| d.verdict == APPROVED && d.alpha_index != 0)
        .count();
    assert_eq!(quoted, 0, "the way stays free for the exit");
    assert!(codes(&session).contains(&ReasonCode::SelfTrade));
    session.report(
        BrokerEventKind::Canceled,
        &canceled[1],
        canceled[1].price,
        0,
        false,
    );
    let exit = session.decisions.iter().rev().find(|d| d.alpha_index == 0);
    assert_eq!(exit.unwrap().verdict, APPROVED);
}

#[test]
fn the_newer_order_is_blocked_when_two_alphas_would_meet() {
    // The second taker sells on a long bid queue, where the first one's maker sits.
    let mut session = Session::new(alphas(&[(MAKER, QUOTE), (TAKER, "-2 * imbalance_l1")]));
    session.feed_book(buy_signal());
    let refused = session.decisions.iter().find(|d| d.verdict == REFUSED);
    assert_eq!(refused.map(code), Some(ReasonCode::SelfTrade));
    assert_eq!(position_of(&session, 1), 0);
}

#[test]
fn a_halt_of_one_instrument_stops_the_alphas_that_trade_it_and_no_others() {
    let other = INSTRUMENT + 1;
    let mut whole = alphas(&[(TAKER, BY_IMBALANCE), (TAKER, "1.5 * imbalance_l1")]);
    let mut instrument = whole.instruments[0].clone();
    instrument.instrument_id = other;
    whole.instruments.push(instrument);
    whole.alphas[1].instrument_id = other;
    let mut session = Session::new(whole);
    let mut halt = command(CommandKind::Halt, ALL, 0);
    halt.header.instrument_id = other;
    session.feed(halt);
    let mut signal = buy_signal();
    session.feed_book(signal);
    signal.header.instrument_id = other;
    session.feed_book(signal);
    assert_eq!((position_of(&session, 0), position_of(&session, 1)), (1, 0));
    assert_eq!(codes(&session), [ReasonCode::KillSwitchOn]);
    assert_eq!(session.engine.halted_by(), None);
    halt.header.instrument_id = 77;
    session.feed(halt);
    assert_eq!(
        session.engine.halted_by(),
        None,
        "an unknown instrument halts nothing"
    );
    let unknown = (ReasonCode::UnknownInstrument.code(), 1);
    assert_eq!(session.engine.counters().dropped(), [unknown]);
}

#[test]
fn a_loss_of_the_account_closes_every_alpha() {
    for (change, expected) in [
        (
            (|c: &mut EngineConfig| c.account_limits.daily_loss_max = 3_000 * SCALE)
                as fn(&mut EngineConfig),
            ReasonCode::AccountDailyLossReached,
        ),
        (
            |c| c.account_limits.drawdown_max = 3_000 * SCALE,
            ReasonCode::AccountDrawdownReached,
        ),
        (
            |c| c.account_limits.loss_speed_max = 3_000 * SCALE,
            ReasonCode::AccountLossSpeedReached,
        ),
    ] {
        let mut whole = alphas(&[(TAKER, BY_IMBALANCE), (TAKER, "1.5 * imbalance_l1")]);
        change(&mut whole);
        let mut session = Session::new(whole);
        session.feed_book(buy_signal());
        assert_eq!((position_of(&session, 0), position_of(&session, 1)), (1, 1));
        // Ten points on one lot are 2,000: only both together reach 3,000.
        session.feed_book(book(34_990, 1, 30, 1));
        session.feed_book(book(34_990, 1, 30, 1));
        assert_eq!((position_of(&session, 0), position_of(&session, 1)), (0, 0));
        session.now += SECOND;
        session.feed_book(book(34_990, 1, 30, 1));
        assert_eq!(codes(&session).last(), Some(&expected));
        let stopped = session.engine.results().map(|row| row.halted_by);
        assert!(stopped.into_iter().all(|by| by == Some(expected)));
    }
}

#[test]
fn a_fast_loss_stops_an_alpha_and_the_same_loss_slowly_does_not() {
    for (seconds, is_stopped) in [(10, true), (70, false)] {
        let mut whole = config(TAKER, "5 + 0 * imbalance_l1");
        whole.alphas[0].limits.loss_speed_max = 3_000 * SCALE;
        whole.session.phases[0].end_ns = START + 599 * SECOND;
        let mut session = Session::new(whole);
        session.feed_book(no_signal());
        for bid in [34_995, 34_990, 34_985] {
            session.now += seconds * SECOND;
            session.feed_book(book(bid, 1, 10, 10));
        }
        let by = session.engine.results().next().unwrap().halted_by;
        assert_eq!(by.is_some(), is_stopped, "{by:?}");
    }
}

#[test]
fn a_difference_to_the_broker_is_reduce_only_until_it_is_gone_or_adopted() {
    let mut session = Session::new(config(TAKER, BY_IMBALANCE));
    session.feed_book(no_signal());
    session.feed(answer(3, session.now));
    assert!(sum_holds(&session));
    session.feed_book(buy_signal());
    assert_eq!(codes(&session), [ReasonCode::PositionUnreconciled]);
    session.feed(adopt(2));
    assert_eq!(session.engine.account().unexplained_qty(), Some(3 * SCALE));
    session.feed(adopt(3));
    assert_eq!(session.engine.account().unexplained_qty(), None);
    session.feed_book(buy_signal());
    assert_eq!(position_of(&session, 0), 1);
    assert!(sum_holds(&session));
    assert_eq!(
        session.engine.account().position_qty(0),
        i128::from(4 * SCALE)
    );
    session.feed(answer(4, session.now));
    assert_eq!(session.engine.account().unexplained_qty(), None);
    let counted = session.engine.counters().broker_events();
    assert_eq!(counted, [(ReasonCode::PositionUnreconciled.code(), 1)]);
}

/// Regression: a fill of half a lot left a position that every exit was refused for.
#[test]
fn an_odd_remainder_is_counted_and_the_whole_lots_still_leave() {
    let mut session = Session::new(config(TAKER, BY_IMBALANCE));
    session.answers = false;
    let entry = session.feed_book(buy_signal())[0];
    session.report(
        BrokerEventKind::Fill,
        &entry,
        35_001 * SCALE,
        SCALE / 2,
        false,
    );
    session.feed_book(no_signal());
    session.report(BrokerEventKind::Canceled, &entry, entry.price, 0, false);
    let odd = |s: &Session| s.engine.results().next().unwrap().position_qty;
    assert_eq!(odd(&session), SCALE / 2);
    let counted = session.engine.counters().broker_events();
    assert_eq!(counted, [(ReasonCode::OddLotFill.code(), 1)]);
    session.answers = true;
    session.feed(command(CommandKind::Flatten, ALL, 0));
    assert!(codes(&session).is_empty(), "no exit that cannot be");
    session.feed(command(CommandKind::ResumeArm, ALL, 0));
    let armed = i64::try_from(session.sequencer.last_seq()).unwrap();
    session.feed(command(CommandKind::ResumeConfirm, ALL, armed));
    session.feed_book(buy_signal());
    assert_eq!(
        odd(&session),
        SCALE + SCALE / 2,
        "it trades on with whole lots"
    );
    session.feed_book(no_signal());
    assert_eq!(odd(&session), SCALE / 2);
    assert!(sum_holds(&session));
}

#[test]
fn cancels_wait_in_the_no_cancel_window_and_orders_in_both_windows_before_the_open() {
    use _core::engine::Phase;
    let mut whole = config(MAKER, QUOTE);
    let open = whole.session.phases[0];
    let window = |from: i64, to: i64, phase| PhaseWindow {
        start_ns: START + from * SECOND,
        end_ns: START + to * SECOND,
        phase,
    };
    whole.session.phases = vec![
        window(0, 10, Phase::Open),
        window(10, 20, Phase::PreOpen),
        window(20, 30, Phase::NoCancel),
        PhaseWindow {
            start_ns: START + 30 * SECOND,
            ..open
        },
    ];
    let mut session = Session::new(whole.clone());
    session.answers = false;
    let quotes = session.feed_book(no_signal());
    for quote in &quotes {
        session.report(
            BrokerEventKind::Working,
            quote,
            quote.price,
            quote.qty,
            false,
        );
    }
    session.now = START + 20 * SECOND;
    let refused = session.feed_book(no_signal());
    assert_eq!(refused.len(), 2);
    assert!(
        refused
            .iter()
            .all(|d| code(d) == ReasonCode::CancelNotAllowed)
    );
    assert_eq!(session.engine.open_orders().count(), 2);
    let mut session = Session::new(whole.clone());
    session.feed_book(no_signal());
    session.now = START + 10 * SECOND;
    session.feed_book(no_signal());
    assert_eq!(session.engine.open_orders().count(), 0, "pre-open cancels");
    whole.alphas[0].template = serde_json::from_str(TAKER).unwrap();
    whole.alphas[0].expression = "5".to_owned();
    let mut session = Session::new(whole);
    session.now = START + 15 * SECOND;
    session.feed_book(no_signal());
    session.now = START + 25 * SECOND;
    session.feed_book(no_signal());
    assert_eq!(codes(&session), [ReasonCode::SessionNotOpen; 2]);
}

#[test]
fn a_fill_goes_to_the_alpha_whose_intent_made_the_order() {
    let mut session = Session::new(alphas(&[
        (TAKER, BY_IMBALANCE),
        (TAKER, "-2 * imbalance_l1"),
    ]));
    session.answers = false;
    let decisions = session.feed_book(buy_signal());
    let entries: Vec<_> = decisions.iter().filter(|d| d.verdict == APPROVED).collect();
    let [buy] = entries[..] else {
        panic!("the second alpha's sell would meet the first one's buy: {decisions:?}");
    };
    session.report(BrokerEventKind::Fill, buy, 35_001 * SCALE, SCALE, false);
    let sell = *session
        .decisions
        .iter()
        .rev()
        .find(|d| d.alpha_index == 1)
        .unwrap();
    assert_eq!((position_of(&session, 0), position_of(&session, 1)), (1, 0));
    let again = session.feed_book(book(35_000, 1, 30, 1));
    let sold = again
        .iter()
        .find(|d| d.verdict == APPROVED)
        .copied()
        .unwrap_or(sell);
    assert_eq!((sold.alpha_index, sold.side), (1, -1));
    session.report(BrokerEventKind::Fill, &sold, 34_999 * SCALE, SCALE, false);
    assert_eq!(
        (position_of(&session, 0), position_of(&session, 1)),
        (1, -1)
    );
    assert_eq!(
        session.engine.account().position_qty(0),
        0,
        "they net at the broker"
    );
    assert!(sum_holds(&session));
}

/// One step of a hostile world with several alphas.
#[derive(Debug, Clone)]
enum Step {
    Book {
        bid: i64,
        spread: i64,
        bid_qty: i64,
        ask_qty: i64,
    },
    Broker {
        kind: u32,
        back: usize,
        lots: i64,
    },
    Command {
        kind: u32,
        alpha_index: u32,
    },
    Answer {
        lots: i64,
    },
    Wait {
        ns: i64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (34_980_i64..35_020, 1_i64..4, 1_i64..30, 1_i64..30)
            .prop_map(|(bid, spread, bid_qty, ask_qty)| Step::Book { bid, spread, bid_qty, ask_qty }),
        8 => (1_u32..8, 0_usize..6, 1_i64..3).prop_map(|(kind, back, lots)| Step::Broker { kind, back, lots }),
        1 => (4_u32..9, 0_u32..4).prop_map(|(kind, alpha_index)| Step::Command { kind, alpha_index }),
        1 => (-6_i64..6).prop_map(|lots| Step::Answer { lots }),
        1 => (1_i64..20 * SECOND).prop_map(|ns| Step::Wait { ns }),
    ];
    prop::collection::vec(step, 1..120)
}

/// Limits of the account in lots; in every world another one is the narrow one.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    position: i64,
    gross: i64,
    net: i64,
}

const WORLDS: [Bounds; 4] = [
    Bounds {
        position: 2,
        gross: 100,
        net: 100,
    },
    Bounds {
        position: 100,
        gross: 5,
        net: 100,
    },
    Bounds {
        position: 100,
        gross: 100,
        net: 2,
    },
    Bounds {
        position: 4,
        gross: 7,
        net: 3,
    },
];

fn world(bounds: Bounds) -> EngineConfig {
    let mut whole = alphas(&[
        (TAKER, BY_IMBALANCE),
        (MAKER, QUOTE),
        (TAKER, "-2 * imbalance_l1"),
        (MAKER, "imbalance_l1"),
    ]);
    // A lot is worth at most this near 35,000 at 200 a point.
    let lot = 7_010_000 * SCALE;
    whole.account_limits.position_lots_max = bounds.position;
    whole.account_limits.gross_notional_max = bounds.gross * lot;
    whole.account_limits.net_notional_max = bounds.net * lot;
    whole
}

/// Worst position of the account on a side, summed anew from orders and positions.
fn worst_lots(session: &Session, side: i64) -> i64 {
    let open = |alpha: u32| -> i64 {
        let own = session
            .engine
            .open_orders()
            .filter(|o| o.alpha_index == alpha && o.side == side);
        own.map(|o| o.remaining_qty()).sum()
    };
    let of =
        |row: _core::engine::AlphaResult| (row.position_qty * side + open(row.alpha_index)).max(0);
    let ours: i64 = session.engine.results().map(of).sum();
    let external = i64::try_from(session.engine.account().external_qty(0)).unwrap();
    (ours + (external * side).max(0)) / SCALE
}

/// Net position of the account on a side with every open order there filled.
fn net_lots(session: &Session, side: i64) -> i64 {
    let account = session.engine.account();
    let net = i64::try_from(account.position_qty(0)).unwrap();
    let open = session.engine.open_orders().filter(|o| o.side == side);
    (net * side + open.map(|o| o.remaining_qty()).sum::<i64>()) / SCALE
}

/// Codes that may refuse an exit: the stated list of `docs/risk.md`.
const EXIT_CODES: [ReasonCode; 9] = [
    ReasonCode::SessionNotOpen,
    ReasonCode::DuplicateIntent,
    ReasonCode::ReferenceMissing,
    ReasonCode::SimulatedMatch,
    ReasonCode::InstrumentClosed,
    ReasonCode::OrderPriceOffTick,
    ReasonCode::OrderRateAboveLimit,
    ReasonCode::ExitWaitsForCancel,
    ReasonCode::CapacityReached,
];

fn drive(steps: &[Step], bounds: Bounds) -> Result<(Session, usize), TestCaseError> {
    let mut session = Session::new(world(bounds));
    session.answers = false;
    let mut sent: Vec<DecisionRecord> = Vec::new();
    let mut exits = 0;
    for step in steps {
        session.now += 1_000_000;
        let before = session.decisions.len();
        match *step {
            Step::Book {
                bid,
                spread,
                bid_qty,
                ask_qty,
            } => {
                session.feed_book(book(bid, spread, bid_qty, ask_qty));
            }
            Step::Wait { ns } => drop(session.wait(ns)),
            Step::Command { kind, alpha_index } => {
                let mut record = command(CommandKind::Halt, alpha_index, 0);
                record.command_kind = kind;
                record.header.instrument_id = INSTRUMENT;
                record.argument = session
                    .engine
                    .account()
                    .unexplained_qty()
                    .unwrap_or(1_000_000);
                session.feed(record);
            }
            Step::Answer { lots } => drop(session.feed(answer(lots, session.now))),
            Step::Broker { kind, back, lots } => {
                let Some(decision) = sent.iter().rev().nth(back).copied() else {
                    continue;
                };
                let open = session
                    .engine
                    .open_orders()
                    .find(|o| o.order_id == decision.order_id);
                let Some(room) = open.map(|o| o.remaining_qty()) else {
                    continue;
                };
                let qty = if kind == BrokerEventKind::Fill as u32 {
                    (lots * SCALE).min(room)
                } else {
                    0
                };
                let record = BrokerRecord {
                    event_kind: kind,
                    order_id: decision.order_id,
                    side: decision.side,
                    price: decision.price,
                    qty,
                    broker_seq: session.sequencer.last_seq(),
                    ..BrokerRecord::empty()
                };
                session.feed(record);
            }
        }
        let (mut has_opened, mut has_exited) = ([false; 2], [false; 2]);
        for decision in session.decisions[before..].iter().copied() {
            let is_place = decision.action == ActionKind::Place as u32;
            let on_side = if decision.side > 0 {
                decision.open_buy_qty
            } else {
                decision.open_sell_qty
            };
            // What the record says of position and open orders is before the decision.
            let reduces = decision.position_qty * decision.side < 0
                && decision.qty + on_side <= decision.position_qty.abs();
            if is_place && decision.verdict == APPROVED {
                sent.push(decision);
                has_opened[usize::from(decision.side < 0)] |= !reduces;
                has_exited[usize::from(decision.side < 0)] |= reduces;
                exits += usize::from(reduces);
            }
            if is_place && decision.verdict == REFUSED && reduces && decision.qty > 0 {
                prop_assert!(
                    EXIT_CODES.contains(&code(&decision)),
                    "{:?} refused an exit",
                    code(&decision)
                );
            }
        }
        prop_assert!(sum_holds(&session));
        for (side, opened) in [1, -1].into_iter().zip(has_opened) {
            // An exit may raise the net position of the others, so it must not come in between.
            let has_left = has_exited[usize::from(side < 0)];
            prop_assert!(
                !opened || has_left || net_lots(&session, side) <= bounds.net,
                "{side}"
            );
            prop_assert!(
                !opened || worst_lots(&session, side) <= bounds.position,
                "{side}"
            );
        }
        // At any price near the mid the open orders and positions keep the gross limit.
        let gross: i64 = session
            .engine
            .results()
            .map(|row| row.position_qty.abs())
            .sum::<i64>()
            + session
                .engine
                .open_orders()
                .map(|o| o.remaining_qty())
                .sum::<i64>();
        let external = i64::try_from(session.engine.account().external_qty(0).abs()).unwrap();
        prop_assert!(
            !has_opened.contains(&true)
                || (gross + external) / SCALE <= bounds.gross + exits_open(&session)
        );
    }
    Ok((session, exits))
}

/// Lots of open orders that only reduce: they count twice in the gross value until they fill.
fn exits_open(session: &Session) -> i64 {
    let reducing = session.engine.results().map(|row| {
        let side = -row.position_qty.signum();
        session
            .engine
            .open_orders()
            .filter(|o| o.alpha_index == row.alpha_index && o.side == side)
            .map(|o| o.remaining_qty())
            .sum::<i64>()
    });
    reducing.sum::<i64>() / SCALE
}

fn cases() -> u32 {
    std::env::var("HFT_FUZZ_CASES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(150)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    /// Account = strategies + external; no approved opening order can break a limit whatever fills;
    /// an exit is refused by the stated codes alone; and a replay is identical.
    #[test]
    fn several_alphas_keep_the_accounts_limits_whatever_fills(steps in steps(), which in 0_usize..4) {
        let (session, _) = drive(&steps, WORLDS[which])?;
        let mut engine = Engine::new(world(WORLDS[which])).unwrap();
        let mut again = Vec::new();
        for item in _core::record::Tape::new(&session.inputs) {
            let (header, bytes) = item.unwrap();
            engine.on_record(&header, bytes, &mut again);
        }
        prop_assert_eq!(again.len(), session.decisions.len());
        prop_assert!(again.iter().zip(&session.decisions).all(|(a, b)| a.as_bytes() == b.as_bytes()));
    }
}

/// The property above is not empty: a fixed world has openings, exits and refusals by account limits.
#[test]
fn the_random_world_reaches_its_limits() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut exits, mut seen) = (0, Vec::new());
    for round in 0..80 {
        let steps = steps().new_tree(&mut runner).unwrap().current();
        let (session, left) = drive(&steps, WORLDS[round % 4]).unwrap();
        exits += left;
        seen.extend(session.engine.counters().refusals().iter().map(|row| row.0));
    }
    assert!(exits > 20, "{exits} exits");
    for wanted in [
        ReasonCode::AccountPositionAboveLimit,
        ReasonCode::NetNotionalAboveLimit,
        ReasonCode::NotionalAboveLimit,
        ReasonCode::SelfTrade,
        ReasonCode::ExitWaitsForCancel,
    ] {
        assert!(
            seen.contains(&wanted.code()),
            "{wanted:?} was never reached"
        );
    }
}
