//! Every code of the risk and the gateway family comes out of an engine, or it is stated why not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests stop at the first surprise"
)]

mod support;

use std::collections::BTreeSet;

use _core::engine::{Eligibility, EngineConfig, Phase, PhaseWindow};
use _core::gateway::FILL_COUNT_MAX;
use _core::reason::{REASON_ROWS, ReasonCode};
use _core::record::{
    AccountRecord, BookRecord, BrokerEventKind, BrokerRecord, CommandKind, DecisionRecord,
    HealthKind, HealthRecord, InstrumentRecord, Record, SCALE, account_fields,
};
use _core::storm_guard::Band;
use support::{
    INSTRUMENT, MAKER, SECOND, START, Session, TAKER, alpha_json, book, command, config,
};

const ALL: u32 = u32::MAX;
const BY_IMBALANCE: &str = "k * imbalance_l1";
const QUOTE: &str = "0 * imbalance_l1";

/// Codes of the families that no record fed to an engine can produce, each with its reason.
const EXCEPTIONS: &[(ReasonCode, &str)] = &[
    (
        ReasonCode::DuplicateIntent,
        "the engine's own counter makes the ids; engine/steps.rs restores an old one to see it",
    ),
    (
        ReasonCode::SignalNotFinite,
        "no template wishes for anything on a NaN; risk/tests.rs holds the second line",
    ),
    (
        ReasonCode::IntentExpired,
        "given by the dispatcher; simulation/tests.rs and the session tests of Python see it",
    ),
    (
        ReasonCode::KernelStatus,
        "kernel.rs calls one that returns a status; tests/hft_platform/kernels see it in an engine",
    ),
    (
        ReasonCode::KernelNotFinite,
        "kernel.rs calls one that writes NaN; tests/hft_platform/kernels see it in an engine",
    ),
    (
        ReasonCode::IntentMalformed,
        "tests/hft_platform/services/test_python_strategy.py sends them",
    ),
    (
        ReasonCode::GatewayNotLeader,
        "of the lease: tests/hft_platform/gateway/test_lease.py",
    ),
    (
        ReasonCode::GatewayFenced,
        "of the lease: tests/hft_platform/gateway/test_gateway_service.py",
    ),
    (
        ReasonCode::GatewayHung,
        "of the lease: tests/hft_platform/gateway/test_lease.py ends a stopped leader",
    ),
    (
        ReasonCode::ChannelUnreachable,
        "of the intent channel: tests/hft_platform/gateway/test_channel.py",
    ),
    (
        ReasonCode::ChannelFull,
        "of the intent channel: tests/hft_platform/gateway/test_channel.py",
    ),
    (
        ReasonCode::ChannelProtocol,
        "of the intent channel: tests/hft_platform/order/test_gateway_broker.py",
    ),
    (
        ReasonCode::IntentAbandoned,
        "reconciliation says it: tests/hft_platform/execution/test_reconciliation.py",
    ),
    (
        ReasonCode::PositionDrift,
        "reconciliation says it: tests/hft_platform/execution/test_reconciliation.py",
    ),
    (
        ReasonCode::PositionUnanswered,
        "reconciliation says it: tests/hft_platform/execution/test_reconciliation.py",
    ),
    (
        ReasonCode::OrderExternal,
        "reconciliation says it: tests/hft_platform/execution/test_reconciliation.py",
    ),
    (
        ReasonCode::RequestNotSent,
        "the order adapter says it: tests/hft_platform/order/test_order_adapter.py",
    ),
    (
        ReasonCode::SessionUnexplained,
        "of the live process: tests/hft_platform/services/test_session_governor.py",
    ),
    (
        ReasonCode::PositionNotFlat,
        "of the governor: tests/hft_platform/services/test_session_governor.py",
    ),
    (
        ReasonCode::WorkspaceBusy,
        "of the lock: tests/hft_platform/services/test_workspace_lock.py",
    ),
];

fn buy_signal() -> BookRecord {
    book(35_000, 1, 30, 1)
}

fn no_signal() -> BookRecord {
    book(35_000, 1, 10, 10)
}

fn alphas(rows: &[(&str, &str)]) -> EngineConfig {
    let mut whole = config(rows[0].0, rows[0].1);
    for (index, (template, expression)) in (0_u32..).zip(rows).skip(1) {
        let alpha = alpha_json(index, template, expression);
        whole.alphas.push(serde_json::from_str(&alpha).unwrap());
    }
    whole
}

/// Everything that was counted in a session.
fn seen(session: &Session) -> BTreeSet<u16> {
    let counters = session.engine.counters();
    let tables = [
        counters.refusals(),
        counters.dropped(),
        counters.broker_events(),
        counters.changes(),
    ];
    tables.into_iter().flatten().map(|row| row.0).collect()
}

type Change = fn(&mut EngineConfig);

type Happen = fn(&mut Session, &DecisionRecord);

/// One entry signal under a changed config.
fn entry(change: Change, signal: BookRecord) -> Session {
    let mut whole = config(TAKER, BY_IMBALANCE);
    change(&mut whole);
    let mut session = Session::new(whole);
    session.feed_book(signal);
    session
}

fn account(fields: u64, free_margin: i64, net_lots: i64, now: i64) -> AccountRecord {
    let mut record = AccountRecord {
        answer_time_ns: now,
        fields,
        free_margin,
        margin_per_lot: 100 * SCALE,
        net_position_qty: net_lots * SCALE,
        ..AccountRecord::empty()
    };
    record.header.instrument_id = INSTRUMENT;
    record
}

fn shifted(mut record: BookRecord) -> BookRecord {
    for price in record.bid_price.iter_mut().chain(&mut record.ask_price) {
        *price += SCALE / 2;
    }
    record
}

fn fill(decision: &DecisionRecord, qty: i64, broker_seq: u64) -> BrokerRecord {
    BrokerRecord {
        event_kind: BrokerEventKind::Fill as u32,
        order_id: decision.order_id,
        side: decision.side,
        price: decision.price,
        qty,
        broker_seq,
        ..BrokerRecord::empty()
    }
}

/// Entries that are refused by what the config says.
fn refused_by_config() -> Vec<(ReasonCode, Session)> {
    let rows: Vec<(ReasonCode, Change, BookRecord)> = vec![
        (
            ReasonCode::OrderQtyAboveLimit,
            |c| c.alphas[0].order_qty = 3 * SCALE,
            buy_signal(),
        ),
        (
            ReasonCode::PositionAboveLimit,
            |c| {
                c.alphas[0].order_qty = 2 * SCALE;
                c.alphas[0].limits.position_qty_max = SCALE;
            },
            buy_signal(),
        ),
        (
            ReasonCode::AccountPositionAboveLimit,
            |c| {
                c.alphas[0].order_qty = 2 * SCALE;
                c.account_limits.position_lots_max = 1;
            },
            buy_signal(),
        ),
        (
            ReasonCode::NotionalAboveLimit,
            |c| c.account_limits.gross_notional_max = SCALE,
            buy_signal(),
        ),
        (
            ReasonCode::NetNotionalAboveLimit,
            |c| c.account_limits.net_notional_max = SCALE,
            buy_signal(),
        ),
        (
            ReasonCode::ArithmeticOverflow,
            |c| {
                let huge = 999_999_999_900_000_000;
                c.instruments[0].multiplier = huge;
                (c.instruments[0].limit_up, c.instruments[0].limit_down) = (None, None);
                c.alphas[0].order_qty = huge;
                c.alphas[0].limits.order_qty_max = huge;
                c.alphas[0].limits.position_qty_max = huge;
                c.account_limits.position_lots_max = huge;
            },
            {
                let mut record = buy_signal();
                for price in record.bid_price.iter_mut().chain(&mut record.ask_price) {
                    *price *= 20_000;
                }
                record
            },
        ),
        (
            ReasonCode::PriceOutsideCollar,
            |c| c.account_limits.price_collar_bps = 1,
            book(35_000, 20, 30, 1),
        ),
        (
            ReasonCode::PriceOutsideBand,
            |c| c.instruments[0].banding_bps = Some(1),
            book(35_000, 20, 30, 1),
        ),
        (
            ReasonCode::PriceOutsideDailyLimit,
            |_| (),
            book(31_000, 1, 30, 1),
        ),
        (ReasonCode::OrderPriceOffTick, |_| (), shifted(buy_signal())),
        (
            ReasonCode::OrderQtyAboveExchangeCap,
            |c| {
                c.alphas[0].order_qty = 2 * SCALE;
                c.instruments[0].order_qty_max = Some(SCALE);
            },
            buy_signal(),
        ),
        (
            ReasonCode::WeightBelowOneLot,
            |c| c.alphas[0].weight_ppm = 10,
            buy_signal(),
        ),
        (
            ReasonCode::InstrumentClosed,
            |c| c.instruments[0].eligibility = Eligibility::Closed,
            buy_signal(),
        ),
        (
            ReasonCode::DayTradeNotAllowed,
            |c| c.instruments[0].eligibility = Eligibility::NoDayTrade,
            buy_signal(),
        ),
        (
            ReasonCode::DispositionStock,
            |c| c.instruments[0].eligibility = Eligibility::Disposition,
            buy_signal(),
        ),
        (
            ReasonCode::ClockSkewAboveLimit,
            |c| c.account_limits.clock_skew_ns_max = Some(SECOND),
            {
                let mut record = buy_signal();
                record.header.exchange_time_ns = START;
                record.header.receive_time_ns = START + SECOND + 1;
                record
            },
        ),
        (
            ReasonCode::ReferenceMissing,
            |c| c.account_limits.clock_skew_ns_max = Some(SECOND),
            buy_signal(),
        ),
        (
            ReasonCode::MarginUnknown,
            |c| c.account_limits.free_margin_min = Some(0),
            buy_signal(),
        ),
        (
            ReasonCode::SessionNotOpen,
            |c| c.session.phases[0].phase = Phase::CloseOnly,
            buy_signal(),
        ),
    ];
    rows.into_iter()
        .map(|(code, change, signal)| (code, entry(change, signal)))
        .collect()
}

/// Entries that are refused by what happened before.
fn refused_by_history() -> Vec<(ReasonCode, Session)> {
    let mut rows = Vec::new();
    for (code, record) in [
        (ReasonCode::KillSwitchOn, CommandKind::Halt),
        (ReasonCode::ReduceOnlyOn, CommandKind::ReduceOnly),
    ] {
        let mut session = Session::new(config(TAKER, BY_IMBALANCE));
        session.feed(command(record, ALL, 0));
        session.feed_book(buy_signal());
        rows.push((code, session));
    }
    let mut session = Session::new(config(TAKER, BY_IMBALANCE));
    let mut other = InstrumentRecord::empty();
    other.header.instrument_id = INSTRUMENT;
    session.feed(other);
    session.feed_book(buy_signal());
    rows.push((ReasonCode::ReferenceMissing, session));

    let mut whole = config(TAKER, BY_IMBALANCE);
    whole.account_limits.free_margin_min = Some(50 * SCALE);
    let mut session = Session::new(whole);
    let both = account_fields::MARGIN | account_fields::MARGIN_PER_LOT;
    session.feed(account(both, 149 * SCALE, 0, START));
    session.feed_book(buy_signal());
    rows.push((ReasonCode::MarginTooLow, session));

    let mut session = Session::new(config(TAKER, BY_IMBALANCE));
    session.feed(account(account_fields::POSITION, 0, 2, START));
    session.feed_book(buy_signal());
    rows.push((ReasonCode::PositionUnreconciled, session));

    rows.extend(refused_by_rates());
    rows.extend(refused_by_losses());
    rows
}

fn refused_by_rates() -> Vec<(ReasonCode, Session)> {
    let mut rows = Vec::new();
    for (code, change, trips) in [
        (
            ReasonCode::OrderRateAboveLimit,
            (|c: &mut EngineConfig| c.alphas[0].limits.order_rate_max = 1) as Change,
            2,
        ),
        (
            ReasonCode::RepeatedOrder,
            |c| c.account_limits.repeated_order_max = 1,
            2,
        ),
        (
            ReasonCode::RepeatedExecution,
            |c| c.account_limits.one_side_fill_max = 1,
            3,
        ),
    ] {
        let mut whole = config(TAKER, BY_IMBALANCE);
        change(&mut whole);
        let mut session = Session::new(whole);
        for _ in 0..trips {
            session.feed_book(buy_signal());
            session.feed_book(no_signal());
        }
        rows.push((code, session));
    }
    // Orders that are never filled: one beyond the free thousand.
    let mut whole = config(TAKER, "5");
    whole.account_limits.order_to_trade_max = 1;
    whole.session.phases[0].end_ns += 100_000 * SECOND;
    whole.session.phases.truncate(1);
    let mut session = Session::new(whole);
    session.answers = false;
    for _ in 0..1_001 {
        session.now += SECOND / 5;
        if let Some(order) = session.feed_book(no_signal()).first().copied() {
            session.report(BrokerEventKind::Expired, &order, order.price, 0, false);
        }
        while session.engine.open_orders().next().is_some() {
            let order = *session.decisions.last().unwrap();
            session.now += SECOND / 5;
            session.report(BrokerEventKind::Expired, &order, order.price, 0, false);
            if session.decisions.len() > 1_001 {
                break;
            }
        }
    }
    rows.push((ReasonCode::OrderToTradeAboveLimit, session));

    let mut session = Session::new(config(TAKER, "5"));
    session.answers = false;
    let mut order = session.feed_book(no_signal())[0];
    for _ in 0..6 {
        session.report(BrokerEventKind::Rejected, &order, order.price, 0, false);
        order = *session.decisions.last().unwrap();
    }
    rows.push((ReasonCode::RejectRateAboveLimit, session));

    let mut whole = alphas(&[(TAKER, "5"), (TAKER, "6"), (TAKER, BY_IMBALANCE)]);
    whole.account_limits.unknown_rate_max = 1;
    let mut session = Session::new(whole);
    session.answers = false;
    for order in session.feed_book(no_signal()) {
        session.report(BrokerEventKind::Unknown, &order, order.price, 0, false);
        // Resolved: what is still unknown makes its contract reduce-only.
        session.report(BrokerEventKind::Canceled, &order, order.price, 0, false);
    }
    session.feed_book(buy_signal());
    rows.push((ReasonCode::UnknownRateAboveLimit, session));

    let mut session = Session::new(alphas(&[(MAKER, QUOTE), (TAKER, "-2 * imbalance_l1")]));
    session.feed_book(buy_signal());
    rows.push((ReasonCode::SelfTrade, session));

    let mut session = Session::new(alphas(&[(TAKER, BY_IMBALANCE), (MAKER, QUOTE)]));
    session.feed_book(buy_signal());
    session.feed(command(CommandKind::Flatten, 0, 0));
    rows.push((ReasonCode::ExitWaitsForCancel, session));

    let mut whole = alphas(&[(MAKER, QUOTE); 30]);
    whole.account_limits.repeated_order_max = 1_000;
    let mut session = Session::new(whole);
    session.feed_book(no_signal());
    rows.push((ReasonCode::CapacityReached, session));

    let mut whole = config(MAKER, QUOTE);
    whole.session.phases[0].end_ns = START + SECOND;
    whole.session.phases[1] = PhaseWindow {
        start_ns: START + SECOND,
        phase: Phase::NoCancel,
        ..whole.session.phases[1]
    };
    let mut session = Session::new(whole);
    session.feed_book(no_signal());
    session.now = START + 2 * SECOND;
    session.feed_book(no_signal());
    rows.push((ReasonCode::CancelNotAllowed, session));
    rows
}

fn refused_by_losses() -> Vec<(ReasonCode, Session)> {
    let limits: [(ReasonCode, Change); 6] = [
        (ReasonCode::DailyLossReached, |c| {
            c.alphas[0].limits.daily_loss_max = 1_000 * SCALE
        }),
        (ReasonCode::DrawdownReached, |c| {
            c.alphas[0].limits.drawdown_max = 1_000 * SCALE
        }),
        (ReasonCode::LossSpeedReached, |c| {
            c.alphas[0].limits.loss_speed_max = 1_000 * SCALE
        }),
        (ReasonCode::AccountDailyLossReached, |c| {
            c.account_limits.daily_loss_max = 1_000 * SCALE
        }),
        (ReasonCode::AccountDrawdownReached, |c| {
            c.account_limits.drawdown_max = 1_000 * SCALE
        }),
        (ReasonCode::AccountLossSpeedReached, |c| {
            c.account_limits.loss_speed_max = 1_000 * SCALE
        }),
    ];
    let mut rows = Vec::new();
    for (code, change) in limits {
        let mut whole = config(TAKER, BY_IMBALANCE);
        change(&mut whole);
        let mut session = Session::new(whole);
        session.feed_book(buy_signal());
        session.feed_book(book(34_990, 1, 30, 1));
        session.feed_book(book(34_990, 1, 30, 1));
        rows.push((code, session));
    }
    rows
}

/// Broker events that do not fit.
fn odd_events() -> Vec<(ReasonCode, Session)> {
    let with_order = || {
        let mut session = Session::new(config(TAKER, BY_IMBALANCE));
        session.answers = false;
        let order = session.feed_book(buy_signal())[0];
        session.feed_book(no_signal());
        (session, order)
    };
    let mut rows = Vec::new();
    let cases: [(ReasonCode, Happen); 6] = [
        (ReasonCode::OrderUnknown, |s, order| {
            let mut record = fill(order, SCALE, 7);
            record.order_id = 99;
            s.feed(record);
        }),
        (ReasonCode::OrderStateInvalid, |s, order| {
            s.report(
                BrokerEventKind::CancelRejected,
                order,
                order.price,
                0,
                false,
            );
        }),
        (ReasonCode::OverFill, |s, order| {
            s.feed(fill(order, 2 * SCALE, 7));
        }),
        (ReasonCode::DuplicateFill, |s, order| {
            s.feed(fill(order, SCALE, 7));
            s.feed(fill(order, SCALE, 7));
        }),
        (ReasonCode::OrderOutcomeUnknown, |s, order| {
            s.report(BrokerEventKind::Unknown, order, order.price, 0, false);
        }),
        (ReasonCode::OddLotFill, |s, order| {
            s.feed(fill(order, SCALE / 4, 7));
        }),
    ];
    for (code, happen) in cases {
        let (mut session, order) = with_order();
        happen(&mut session, &order);
        rows.push((code, session));
    }
    rows
}

/// A guard whose every input speaks at the first occasion; nothing else restricts.
fn guarded() -> EngineConfig {
    let mut whole = config(TAKER, BY_IMBALANCE);
    let first = Band {
        storm_in: Some(1),
        storm_out: Some(0),
        ..Band::NEVER
    };
    let guard = &mut whole.storm_guard;
    guard.risk_capital = SCALE;
    guard.drawdown_bps = first;
    guard.feed_gap_ns = Band {
        storm_in: Some(70 * SECOND),
        ..first
    };
    guard.loop_lag_ns = first;
    guard.order_rtt_ns = Band {
        storm_in: Some(SECOND),
        ..first
    };
    guard.reject_count = first;
    guard.drift_reports = Band {
        halt_in: Some(2),
        halt_out: Some(1),
        ..first
    };
    guard.feature_failures = first;
    guard.normaliser_failures = first;
    whole
}

fn health(kind: HealthKind, value: i64) -> HealthRecord {
    let mut record = HealthRecord {
        health_kind: kind as u64,
        value,
        ..HealthRecord::empty()
    };
    record.header.instrument_id = INSTRUMENT;
    record
}

fn resume(session: &mut Session, wait_ns: i64) {
    session.feed(command(CommandKind::ResumeArm, ALL, 0));
    let armed = i64::try_from(session.sequencer.last_seq()).unwrap();
    session.now += wait_ns;
    session.feed(command(CommandKind::ResumeConfirm, ALL, armed));
}

type Storm = fn(&mut Session);

/// What makes the storm guard speak, and what a resume is refused for.
fn storms() -> Vec<(ReasonCode, Session)> {
    let cases: [(ReasonCode, Storm); 12] = [
        (ReasonCode::StormDrawdown, |s| {
            s.feed_book(buy_signal());
            s.feed_book(no_signal());
        }),
        (ReasonCode::StormFeedGap, |s| drop(s.wait(80 * SECOND))),
        (ReasonCode::StormLoopLag, |s| {
            s.feed(health(HealthKind::LoopLag, 1));
        }),
        (ReasonCode::StormOrderRtt, |s| {
            s.answers = false;
            s.feed_book(buy_signal());
            s.wait(2 * SECOND);
        }),
        (ReasonCode::StormRejectRate, |s| {
            s.answers = false;
            let order = s.feed_book(buy_signal())[0];
            s.report(BrokerEventKind::Rejected, &order, order.price, 0, false);
        }),
        (ReasonCode::StormPositionDrift, |s| {
            s.feed(health(HealthKind::Drift, 1));
        }),
        (ReasonCode::StormNormaliserFailures, |s| {
            s.feed(health(HealthKind::NormaliserFailures, 1));
        }),
        (ReasonCode::StormGuardOn, |s| {
            s.feed(health(HealthKind::LoopLag, 1));
            s.feed_book(buy_signal());
        }),
        (ReasonCode::ResumeNotArmed, |s| {
            s.feed(command(CommandKind::ResumeConfirm, ALL, 1));
        }),
        (ReasonCode::ResumeTooLate, |s| resume(s, 61 * SECOND)),
        (ReasonCode::HaltCauseRemains, |s| {
            s.feed(health(HealthKind::Drift, 1));
            s.feed(health(HealthKind::Drift, 1));
            resume(s, 0);
        }),
        (ReasonCode::FillTooOld, |s| {
            s.answers = false;
            let order = s.feed_book(buy_signal())[0];
            // Overfills halt, and are counted all the same.
            let highest = 2 + FILL_COUNT_MAX as u64;
            for broker_seq in 1..=highest {
                s.feed(fill(&order, SCALE, broker_seq));
            }
            s.feed(fill(&order, SCALE, 1));
        }),
    ];
    let mut rows = Vec::new();
    for (code, happen) in cases {
        let mut session = Session::new(guarded());
        session.feed_book(no_signal());
        happen(&mut session);
        rows.push((code, session));
    }
    let mut whole = guarded();
    whole.storm_guard.drawdown_bps = Band::NEVER;
    // No number while the queues are equal.
    whole.alphas[0].expression = "imbalance_l1 / imbalance_l1".to_owned();
    let mut session = Session::new(whole);
    session.feed_book(book(35_000, 1, 10, 5));
    session.feed_book(no_signal());
    rows.push((ReasonCode::StormFeatureFailures, session));
    rows
}

/// Codes of both families that are neither seen nor excepted.
fn missing(seen: &BTreeSet<u16>) -> Vec<&'static str> {
    let excepted = |code: u16| EXCEPTIONS.iter().any(|row| row.0.code() == code);
    REASON_ROWS
        .iter()
        .filter(|row| (200..400).contains(&row.code))
        .filter(|row| !seen.contains(&row.code) && !excepted(row.code))
        .map(|row| row.name)
        .collect()
}

#[test]
fn every_risk_and_gateway_code_comes_out_of_an_engine() {
    let mut all = BTreeSet::new();
    let scenarios = [
        refused_by_config(),
        refused_by_history(),
        odd_events(),
        storms(),
    ];
    for (code, session) in scenarios.into_iter().flatten() {
        let codes = seen(&session);
        assert!(
            codes.contains(&code.code()),
            "{code:?} did not come: {codes:?}"
        );
        all.extend(codes);
    }
    assert_eq!(missing(&all), [""; 0], "no scenario gives these codes");
    // The alarm rings: a family without its scenario is named.
    all.remove(&ReasonCode::MarginTooLow.code());
    assert_eq!(missing(&all), ["MarginTooLow"]);
    for (code, reason) in EXCEPTIONS {
        assert!(
            !all.contains(&code.code()),
            "{code:?} needs no exception: {reason}"
        );
    }
}
