//! Storm guard, policy, idempotency and recovery through the whole engine.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests stop at the first surprise"
)]

mod support;

use _core::engine::{APPROVED, Engine, EngineConfig, NOTED, Sequencer, run_tape};
use _core::gateway::PolicyState;
use _core::reason::ReasonCode;
use _core::record::{
    ActionKind, BrokerEventKind, BrokerRecord, CommandKind, CommandRecord, DecisionRecord,
    HealthKind, HealthRecord, IntentReason, Record, RecordHeader, RecordType, SCALE, Tape,
    TimerRecord,
};
use _core::storm_guard::{Band, Input, Level, StormState};
use proptest::prelude::*;
use support::{INSTRUMENT, MAKER, SECOND, START, Session, TAKER, book, command, config, tape};

const ALL: u32 = u32::MAX;
const BY_IMBALANCE: &str = "k * imbalance_l1";
const MS: i64 = 1_000_000;

fn band(warm: Option<(i64, i64)>, storm: Option<(i64, i64)>, halt: Option<(i64, i64)>) -> Band {
    Band {
        warm_in: warm.map(|pair| pair.0),
        warm_out: warm.map(|pair| pair.1),
        storm_in: storm.map(|pair| pair.0),
        storm_out: storm.map(|pair| pair.1),
        halt_in: halt.map(|pair| pair.0),
        halt_out: halt.map(|pair| pair.1),
    }
}

/// A config whose guard listens to everything.
fn guarded(template: &str) -> EngineConfig {
    let mut made = config(template, BY_IMBALANCE);
    let storm = &mut made.storm_guard;
    storm.risk_capital = 1_000_000 * SCALE;
    storm.drawdown_bps = band(Some((50, 40)), Some((100, 80)), Some((200, 150)));
    storm.feed_gap_ns = band(
        Some((2 * SECOND, SECOND)),
        Some((6 * SECOND, 2 * SECOND)),
        None,
    );
    storm.loop_lag_ns = band(Some((5 * MS, 3 * MS)), Some((20 * MS, 10 * MS)), None);
    storm.order_rtt_ns = band(Some((SECOND, SECOND / 2)), Some((3 * SECOND, SECOND)), None);
    storm.reject_count = band(Some((2, 1)), Some((3, 1)), None);
    storm.drift_reports = band(None, Some((1, 0)), Some((3, 2)));
    storm.feature_failures = band(None, Some((3, 0)), None);
    storm.normaliser_failures = band(Some((10, 5)), Some((50, 25)), None);
    made
}

fn buy_signal() -> _core::record::BookRecord {
    book(35_000, 1, 30, 1)
}

fn no_signal() -> _core::record::BookRecord {
    book(35_000, 1, 10, 10)
}

fn health(kind: HealthKind, value: i64, argument: i64) -> HealthRecord {
    let mut record = HealthRecord {
        health_kind: kind as u64,
        value,
        argument,
        ..HealthRecord::empty()
    };
    record.header.instrument_id = INSTRUMENT;
    record
}

fn code(decision: &DecisionRecord) -> ReasonCode {
    ReasonCode::from_code(u16::try_from(decision.reason_code).unwrap()).unwrap()
}

/// `(from, to)` of every change of the guard so far, with its cause.
fn storms(session: &Session) -> Vec<(u32, u32, ReasonCode)> {
    changes(session, ActionKind::StormChange)
}

/// The same of the policy.
fn policies(session: &Session) -> Vec<(u32, u32, ReasonCode)> {
    changes(session, ActionKind::PolicyChange)
}

fn changes(session: &Session, action: ActionKind) -> Vec<(u32, u32, ReasonCode)> {
    session
        .decisions
        .iter()
        .filter(|decision| decision.action == action as u32)
        .map(|note| {
            assert_eq!((note.verdict, note.order_id, note.intent_id), (NOTED, 0, 0));
            assert_eq!(note.alpha_index, ALL);
            (note.time_in_force, note.intent_reason, code(note))
        })
        .collect()
}

fn state(session: &Session) -> (StormState, PolicyState) {
    let report = session.engine.storm_report();
    (report.storm, report.policy)
}

/// A day at rest: a book every half second, with no signal.
fn calm(session: &mut Session, seconds: i64) {
    for _ in 0..2 * seconds {
        session.now += SECOND / 2;
        session.feed_book(no_signal());
    }
}

/// Behind the opening grace, flat, with a fresh book.
fn started(made: EngineConfig) -> Session {
    let mut session = Session::new(made);
    calm(&mut session, 61);
    assert_eq!(state(&session), (StormState::Normal, PolicyState::Normal));
    session
}

fn resume(session: &mut Session) {
    session.feed(command(CommandKind::ResumeArm, ALL, 0));
    let armed = i64::try_from(session.sequencer.last_seq()).unwrap();
    session.feed(command(CommandKind::ResumeConfirm, ALL, armed));
}

fn last_dropped(session: &Session, wanted: ReasonCode) -> u64 {
    let rows = session.engine.counters().dropped();
    rows.iter()
        .find(|row| row.0 == wanted.code())
        .map_or(0, |row| row.1)
}

fn replay(made: EngineConfig, inputs: &[u8]) -> Vec<DecisionRecord> {
    let mut engine = Engine::new(made).unwrap();
    let mut out = Vec::new();
    run_tape(
        &mut engine,
        &mut Sequencer::default(),
        inputs,
        true,
        &mut out,
    )
    .unwrap();
    out
}

fn same(left: &[DecisionRecord], right: &[DecisionRecord]) -> bool {
    let bytes = |rows: &[DecisionRecord]| -> Vec<u8> {
        rows.iter()
            .flat_map(|row| row.as_bytes().to_vec())
            .collect()
    };
    bytes(left) == bytes(right)
}

#[test]
fn a_feed_gap_in_session_degrades_and_the_first_record_behind_it_opens_nothing() {
    let mut session = started(guarded(TAKER));
    session.now += 5 * SECOND;
    session.feed(TimerRecord::empty());
    assert_eq!(state(&session), (StormState::Warm, PolicyState::Normal));
    // No timer told of the second gap: the record behind it is decided under it all the same.
    session.feed_book(no_signal());
    session.now += 10 * SECOND;
    let refused = session.feed_book(buy_signal());
    assert_eq!(refused.len(), 1);
    assert_eq!(code(&refused[0]), ReasonCode::StormGuardOn);
    assert_eq!(
        refused[0].observed,
        i64::from(ReasonCode::StormFeedGap.code())
    );
    assert_eq!(state(&session), (StormState::Storm, PolicyState::Degraded));
    assert_eq!(
        storms(&session),
        [
            (0, 1, ReasonCode::StormFeedGap),
            (1, 2, ReasonCode::StormFeedGap)
        ]
    );
    assert_eq!(policies(&session), [(0, 1, ReasonCode::StormFeedGap)]);
    let counted = session.engine.counters().changes();
    assert_eq!(counted, [(ReasonCode::StormFeedGap.code(), 3)]);
    calm(&mut session, 31);
    assert_eq!(state(&session), (StormState::Warm, PolicyState::Normal));
    assert_eq!(
        session.feed_book(buy_signal())[0].verdict,
        APPROVED,
        "WARM restricts nothing"
    );
    session.feed_book(no_signal());
    calm(&mut session, 31);
    assert_eq!(state(&session).0, StormState::Normal);
}

#[test]
fn a_feed_gap_outside_every_phase_and_in_the_opening_grace_is_none() {
    let mut made = guarded(TAKER);
    // A break of ten minutes in the middle of the session.
    let end = made.session.phases[0].end_ns;
    made.session.phases[0].end_ns = START + 100 * SECOND;
    let mut second = made.session.phases[0];
    (second.start_ns, second.end_ns) = (START + 700 * SECOND, end + 600 * SECOND);
    made.session.phases.truncate(1);
    made.session.phases.push(second);
    let mut session = Session::new(made);
    let silence = |session: &mut Session, until: i64| {
        while session.now < START + until * SECOND {
            session.wait(SECOND);
        }
        state(session).0
    };
    assert_eq!(silence(&mut session, 59), StormState::Normal, "grace");
    // A feed that has not begun when the grace is over is a gap as long as the grace.
    assert_eq!(silence(&mut session, 61), StormState::Storm);
    assert_eq!(
        session.engine.storm_report().inputs[Input::FeedGap as usize].0,
        Level::Storm
    );
    // Nobody expects a feed in the break: it calms.
    assert_eq!(silence(&mut session, 200), StormState::Normal);
    assert_eq!(
        silence(&mut session, 759),
        StormState::Normal,
        "the second part has its own grace"
    );
    assert_eq!(silence(&mut session, 762), StormState::Storm);
}

#[test]
fn a_drawdown_climbs_the_ladder_and_its_halt_cannot_be_resumed() {
    let mut made = guarded(TAKER);
    made.alphas[0].limits.daily_loss_max = 900_000_000 * SCALE;
    made.alphas[0].limits.drawdown_max = 900_000_000 * SCALE;
    made.alphas[0].on_withdrawal.action = _core::engine::WithdrawalAction::HoldToClose;
    made.alphas[0].on_withdrawal.deadline_ns = i64::MAX;
    // One lot is 200 a point: 50 bps of a million are 25 points.
    let taker_that_stays = r#"{"kind":"taker","entry_ticks":1.0,"exit_ticks":-99.0,"hold_ns":500000000000,"slippage_ticks":1}"#;
    made.alphas[0].template = serde_json::from_str(taker_that_stays).unwrap();
    let mut session = started(made);
    session.feed_book(buy_signal());
    assert_eq!(session.position(), 1);
    let mut seen = Vec::new();
    for bid in [34_990, 34_974, 34_960, 34_949, 34_920, 34_899] {
        session.now += SECOND / 2;
        session.feed_book(book(bid, 1, 10, 10));
        seen.push(state(&session).0);
    }
    assert_eq!(
        seen,
        [
            StormState::Normal,
            StormState::Warm,
            StormState::Warm,
            StormState::Storm,
            StormState::Storm,
            StormState::Halt
        ]
    );
    assert_eq!(session.engine.halted_by(), Some(ReasonCode::StormDrawdown));
    assert_eq!(session.position(), 1, "hold_to_close keeps the position");
    resume(&mut session);
    assert_eq!(last_dropped(&session, ReasonCode::HaltCauseRemains), 1);
    assert_eq!(state(&session), (StormState::Halt, PolicyState::Halt));
    // The price comes back: the fall is gone, and so is the cause. First WARM, never NORMAL.
    session.feed_book(book(34_995, 1, 10, 10));
    assert_eq!(state(&session).0, StormState::Halt, "latched");
    resume(&mut session);
    assert_eq!(state(&session), (StormState::Warm, PolicyState::Normal));
    assert_eq!(
        storms(&session).last().map(|row| (row.0, row.1)),
        Some((StormState::Halt as u32, StormState::Warm as u32))
    );
}

#[test]
fn rejects_degrade_until_their_window_has_passed() {
    let mut session = started(guarded(TAKER));
    session.answers = false;
    let mut entry = session.feed_book(buy_signal())[0];
    for _ in 0..2 {
        entry = session.report(BrokerEventKind::Rejected, &entry, entry.price, 0, false)[0];
        assert_eq!(entry.verdict, APPROVED);
    }
    assert_eq!(state(&session).0, StormState::Warm);
    let refused = session.report(BrokerEventKind::Rejected, &entry, entry.price, 0, false);
    assert!(refused.iter().all(|decision| decision.verdict != APPROVED));
    assert_eq!(state(&session), (StormState::Storm, PolicyState::Degraded));
    assert_eq!(
        storms(&session).last().unwrap().2,
        ReasonCode::StormRejectRate
    );
    calm(&mut session, 59);
    assert_eq!(
        state(&session).0,
        StormState::Storm,
        "three rejects within 60 s"
    );
    calm(&mut session, 33);
    assert_eq!(state(&session).0, StormState::Warm);
}

#[test]
fn a_late_loop_is_a_record_and_degrades() {
    let mut session = started(guarded(TAKER));
    session.feed(health(HealthKind::LoopLag, 5 * MS, 0));
    assert_eq!(state(&session), (StormState::Warm, PolicyState::Normal));
    session.feed(health(HealthKind::LoopLag, 20 * MS, 0));
    assert_eq!(state(&session), (StormState::Storm, PolicyState::Degraded));
    // Between out and in nothing changes, however long.
    session.feed(health(HealthKind::LoopLag, 15 * MS, 0));
    calm(&mut session, 100);
    assert_eq!(state(&session).0, StormState::Storm);
    session.feed(health(HealthKind::LoopLag, MS, 0));
    calm(&mut session, 61);
    assert_eq!(state(&session).0, StormState::Normal);
    assert_eq!(session.engine.storm_report().entered, [1, 2, 1, 0]);
}

#[test]
fn a_request_that_is_answered_late_or_never_degrades() {
    let mut session = started(guarded(TAKER));
    session.answers = false;
    let entry = session.feed_book(buy_signal())[0];
    session.now += 2 * SECOND;
    session.feed_book(no_signal());
    assert_eq!(
        state(&session).0,
        StormState::Warm,
        "still waiting after 2 s"
    );
    session.now += 1_900 * MS;
    session.feed_book(no_signal());
    assert_eq!(state(&session).0, StormState::Storm);
    assert_eq!(
        storms(&session).last().unwrap().2,
        ReasonCode::StormOrderRtt
    );
    session.report(BrokerEventKind::Rejected, &entry, entry.price, 0, false);
    calm(&mut session, 50);
    assert_eq!(
        state(&session).0,
        StormState::Storm,
        "the slow answer counts for a minute"
    );
    calm(&mut session, 45);
    assert_eq!(state(&session).0, StormState::Warm);
    // What the runtime measured itself counts the same.
    session.feed(health(HealthKind::OrderRtt, 3 * SECOND, 1));
    assert_eq!(state(&session).0, StormState::Storm);
}

#[test]
fn drift_degrades_at_once_halts_when_it_lasts_and_silence_of_the_broker_never_halts() {
    let mut session = started(guarded(TAKER));
    session.feed(health(HealthKind::Drift, SCALE, 0));
    assert_eq!(state(&session), (StormState::Storm, PolicyState::Degraded));
    for _ in 0..10 {
        session.feed(health(HealthKind::Drift, 0, 1));
    }
    assert_eq!(
        state(&session).0,
        StormState::Storm,
        "could not ask is not reconciled, nor a halt"
    );
    session.feed(health(HealthKind::Drift, 0, 0));
    assert_eq!(
        session.engine.storm_report().inputs[Input::Drift as usize],
        (Level::Clear, 0)
    );
    for value in [SCALE, -SCALE, SCALE] {
        session.feed(health(HealthKind::Drift, value, 0));
    }
    assert_eq!(state(&session), (StormState::Halt, PolicyState::Halt));
    assert_eq!(
        session.engine.halted_by(),
        Some(ReasonCode::StormPositionDrift)
    );
    resume(&mut session);
    assert_eq!(
        session.engine.halted_by(),
        Some(ReasonCode::StormPositionDrift)
    );
    session.feed(health(HealthKind::Drift, 0, 0));
    resume(&mut session);
    assert_eq!(state(&session), (StormState::Warm, PolicyState::Normal));
}

#[test]
fn signals_and_payloads_that_fail_degrade() {
    let mut made = guarded(TAKER);
    // Not a number while bid and ask queue are equal.
    made.alphas[0].expression = "imbalance_l1 / imbalance_l1".to_owned();
    let mut session = Session::new(made);
    for round in 0..3 {
        session.now += SECOND;
        session.feed_book(book(35_000, 1, 10, 5));
        session.now += SECOND;
        session.feed_book(no_signal());
        let expected = if round < 2 {
            StormState::Normal
        } else {
            StormState::Storm
        };
        assert_eq!(state(&session).0, expected, "{round}");
    }
    assert_eq!(
        storms(&session).last().unwrap().2,
        ReasonCode::StormFeatureFailures
    );

    let mut session = started(guarded(TAKER));
    session.feed(health(HealthKind::NormaliserFailures, 49, 0));
    assert_eq!(state(&session).0, StormState::Warm);
    session.feed(health(HealthKind::NormaliserFailures, 1, 0));
    assert_eq!(state(&session).0, StormState::Storm);
    assert_eq!(
        storms(&session).last().unwrap().2,
        ReasonCode::StormNormaliserFailures
    );
}

#[test]
fn a_health_report_that_makes_no_sense_is_counted_and_changes_nothing() {
    let mut session = started(guarded(TAKER));
    session.feed(health(HealthKind::LoopLag, -1, 0));
    assert_eq!(last_dropped(&session, ReasonCode::ValueOutOfRange), 1);
    session.feed(health(HealthKind::Drift, SCALE, 2));
    let mut unknown = health(HealthKind::LoopLag, 1, 0);
    unknown.health_kind = 99;
    session.feed(unknown);
    assert_eq!(last_dropped(&session, ReasonCode::SchemaMismatch), 2);
    let mut elsewhere = health(HealthKind::Drift, SCALE, 0);
    elsewhere.header.instrument_id = 7;
    session.feed(elsewhere);
    assert_eq!(last_dropped(&session, ReasonCode::UnknownInstrument), 1);
    assert_eq!(state(&session), (StormState::Normal, PolicyState::Normal));
}

#[test]
fn a_storm_takes_opening_quotes_back_and_keeps_the_way_out() {
    let mut session = started(guarded(MAKER));
    session.answers = false;
    let quotes: Vec<_> = session.engine.open_orders().copied().collect();
    assert_eq!(quotes.len(), 2, "both sides are quoted");
    session.feed(health(HealthKind::LoopLag, 50 * MS, 0));
    let canceled = session
        .decisions
        .iter()
        .filter(|d| d.action == ActionKind::Cancel as u32 && d.verdict == APPROVED)
        .count();
    assert_eq!(canceled, 2, "flat: both quotes would open");
}

#[test]
fn a_halt_lets_a_reducing_exit_through() {
    let mut made = guarded(TAKER);
    made.alphas[0].on_withdrawal.action = _core::engine::WithdrawalAction::ReduceOnly;
    made.alphas[0].on_withdrawal.deadline_ns = i64::MAX;
    let mut session = started(made);
    session.feed_book(buy_signal());
    assert_eq!(session.position(), 1);
    session.feed(command(CommandKind::Halt, ALL, 0));
    assert_eq!(state(&session).1, PolicyState::Halt);
    session.now += SECOND;
    let exit = session.feed_book(no_signal());
    assert_eq!(
        (exit[0].verdict, exit[0].side),
        (APPROVED, -1),
        "its own exit"
    );
    assert_eq!(exit[0].intent_reason, IntentReason::Exit as u32);
    assert_eq!(session.position(), 0);
    session.now += SECOND;
    let refused = session.feed_book(buy_signal());
    assert_eq!(code(&refused[0]), ReasonCode::KillSwitchOn);
}

#[test]
fn an_operators_flatten_works_while_halted() {
    let mut made = guarded(TAKER);
    made.alphas[0].on_withdrawal.action = _core::engine::WithdrawalAction::HoldToClose;
    made.alphas[0].on_withdrawal.deadline_ns = i64::MAX;
    let mut session = started(made);
    session.feed_book(buy_signal());
    session.feed(command(CommandKind::Halt, ALL, 0));
    session.feed_book(no_signal());
    assert_eq!(session.position(), 1, "held");
    session.feed(command(CommandKind::Flatten, ALL, 0));
    assert_eq!(session.position(), 0);
    assert_eq!(state(&session).1, PolicyState::Halt);
}

/// The ticket: an order that was on its way when the halt came is canceled once it is known to work.
#[test]
fn an_order_approved_before_a_halt_is_canceled_when_it_is_known_to_work() {
    let mut session = Session::new(guarded(MAKER));
    session.answers = false;
    let quotes = session.feed_book(no_signal());
    assert_eq!(quotes.len(), 2);
    assert!(
        session.feed(command(CommandKind::Halt, ALL, 0)).is_empty(),
        "nothing works yet"
    );
    for quote in &quotes {
        let answer = session.report(
            BrokerEventKind::Working,
            quote,
            quote.price,
            quote.qty,
            false,
        );
        assert_eq!(answer.len(), 1, "{answer:?}");
        assert_eq!(
            (
                answer[0].action,
                answer[0].order_id,
                answer[0].intent_reason
            ),
            (
                ActionKind::Cancel as u32,
                quote.order_id,
                IntentReason::HaltCancel as u32
            )
        );
    }
    // An order nobody knows about is not canceled blindly.
    let mut session = Session::new(guarded(MAKER));
    session.answers = false;
    let quotes = session.feed_book(no_signal());
    session.report(
        BrokerEventKind::Unknown,
        &quotes[0],
        quotes[0].price,
        0,
        false,
    );
    assert!(session.feed(command(CommandKind::Halt, ALL, 0)).is_empty());
}

#[test]
fn a_cancel_that_the_rate_refused_is_sent_when_the_rate_allows() {
    let mut made = guarded(MAKER);
    made.account_limits.order_rate_max = 3;
    made.account_limits.cancel_reserve = 1;
    let mut session = Session::new(made);
    session.feed_book(no_signal());
    assert_eq!(session.engine.open_orders().count(), 2);
    session.feed(command(CommandKind::Halt, ALL, 0));
    assert_eq!(
        session.engine.open_orders().count(),
        1,
        "one request was left"
    );
    session.now += 11 * SECOND;
    session.feed(TimerRecord::empty());
    assert_eq!(session.engine.open_orders().count(), 0);
}

#[test]
fn a_resume_takes_both_steps_in_time_and_names_what_is_wrong() {
    let mut session = started(guarded(TAKER));
    session.feed(command(CommandKind::Halt, ALL, 0));
    session.feed(command(CommandKind::ResumeConfirm, ALL, 1));
    assert_eq!(last_dropped(&session, ReasonCode::ResumeNotArmed), 1);
    session.feed(command(CommandKind::ResumeArm, ALL, 0));
    let armed = i64::try_from(session.sequencer.last_seq()).unwrap();
    session.feed(command(CommandKind::ResumeConfirm, ALL, armed + 1));
    assert_eq!(last_dropped(&session, ReasonCode::ResumeNotArmed), 2);
    session.feed(command(CommandKind::ResumeConfirm, ALL, armed));
    assert_eq!(
        last_dropped(&session, ReasonCode::ResumeNotArmed),
        3,
        "the arm is used up"
    );
    session.feed(command(CommandKind::ResumeArm, ALL, 0));
    let armed = i64::try_from(session.sequencer.last_seq()).unwrap();
    calm(&mut session, 61);
    session.feed(command(CommandKind::ResumeConfirm, ALL, armed));
    assert_eq!(last_dropped(&session, ReasonCode::ResumeTooLate), 1);
    session.feed(command(CommandKind::ResumeArm, ALL, 0));
    let armed = i64::try_from(session.sequencer.last_seq()).unwrap();
    session.feed(command(CommandKind::Halt, ALL, 0));
    session.feed(command(CommandKind::ResumeConfirm, ALL, armed));
    assert_eq!(
        last_dropped(&session, ReasonCode::ResumeNotArmed),
        4,
        "a halt disarms"
    );
    assert_eq!(state(&session).1, PolicyState::Halt);
    resume(&mut session);
    assert_eq!(state(&session).1, PolicyState::Normal);
    assert_eq!(
        policies(&session),
        [
            (0, 2, ReasonCode::KillSwitchOn),
            (2, 0, ReasonCode::KillSwitchOn)
        ]
    );
}

#[test]
fn reduce_only_and_an_orphan_fill_degrade_until_resumed() {
    let mut session = started(guarded(TAKER));
    session.feed(command(CommandKind::ReduceOnly, ALL, 0));
    assert_eq!(state(&session), (StormState::Normal, PolicyState::Degraded));
    resume(&mut session);
    assert_eq!(state(&session).1, PolicyState::Normal);
    session.feed(BrokerRecord {
        event_kind: BrokerEventKind::Fill as u32,
        order_id: 4_711,
        side: 1,
        price: SCALE,
        qty: SCALE,
        broker_seq: 5,
        ..BrokerRecord::empty()
    });
    assert_eq!(state(&session).1, PolicyState::Degraded);
    assert_eq!(
        policies(&session).last().unwrap().2,
        ReasonCode::OrderUnknown
    );
}

/// The same with so much capital that no drawdown counts.
fn rich(template: &str) -> EngineConfig {
    let mut made = guarded(template);
    made.storm_guard.risk_capital = 9_000_000_000 * SCALE;
    made
}

/// A day with storms, a halt and a resume.
fn stormy_day(template: &str) -> Session {
    let mut session = Session::new(rich(template));
    session.feed_tape(&tape(31, 2_500));
    session.feed(health(HealthKind::LoopLag, 30 * MS, 0));
    session.feed_tape(&tape(32, 200));
    session.feed(health(HealthKind::LoopLag, 0, 0));
    calm(&mut session, 70);
    for _ in 0..3 {
        session.feed(health(HealthKind::Drift, SCALE, 0));
    }
    calm(&mut session, 5);
    session.feed(health(HealthKind::Drift, 0, 0));
    resume(&mut session);
    session.wait(9 * SECOND);
    calm(&mut session, 40);
    session.feed_book(buy_signal());
    session
}

#[test]
fn a_replay_of_a_day_with_storms_and_a_halt_is_identical_and_needs_the_reports() {
    for template in [TAKER, MAKER] {
        let day = stormy_day(template);
        assert!(storms(&day).len() >= 6, "{:?}", storms(&day));
        assert!(
            policies(&day)
                .iter()
                .any(|row| row.1 == PolicyState::Halt as u32)
        );
        let again = replay(rich(template), &day.inputs);
        assert!(same(&again, &day.decisions));
        // Other thresholds, other decisions: the notes are part of what is compared.
        let mut other = rich(template);
        other.storm_guard.drift_reports = band(None, Some((1, 0)), Some((4, 2)));
        assert!(!same(&replay(other, &day.inputs), &day.decisions));
        // The first report of another position becomes one of a broker that could not be asked.
        let is_drift = |bytes: &[u8]| {
            HealthRecord::read(bytes).is_some_and(|r| r.health_kind == HealthKind::Drift as u64)
        };
        let place = Tape::new(&day.inputs)
            .filter_map(Result::ok)
            .find(|item| is_drift(item.1))
            .map(|item| item.1.as_ptr() as usize - day.inputs.as_ptr() as usize)
            .unwrap();
        let mut flipped = day.inputs.clone();
        flipped[place + 64 + 16] ^= 1;
        assert!(!same(&replay(rich(template), &flipped), &day.decisions));
    }
}

/// The order log of a session: what a restart has.
fn order_log(session: &Session) -> Vec<u8> {
    let mut log = Vec::new();
    let mut decisions = session.decisions.iter().peekable();
    for item in Tape::new(&session.inputs) {
        let (header, bytes) = item.unwrap();
        let is_here = [
            RecordType::Command as u8,
            RecordType::ConfigSwitch as u8,
            RecordType::Broker as u8,
            RecordType::Health as u8,
        ]
        .contains(&header.record_type);
        if is_here {
            log.extend_from_slice(bytes);
        }
        while let Some(decision) = decisions.next_if(|d| d.header.input_seq == header.input_seq) {
            log.extend_from_slice(decision.as_bytes());
        }
    }
    assert!(decisions.next().is_none());
    log
}

fn recovered(made: EngineConfig, log: &[u8]) -> Engine {
    let mut engine = Engine::new(made).unwrap();
    let found = engine.recover(log).unwrap();
    assert_eq!(found.odd_records, 0, "{:?}", engine.counters().dropped());
    engine
}

#[test]
fn a_restart_knows_its_position_its_orders_its_ids_and_its_halt() {
    let mut session = Session::new(rich(TAKER));
    session.feed_tape(&tape(33, 1_500));
    calm(&mut session, 1);
    session.answers = false;
    session.now += SECOND;
    let entry = session.feed_book(buy_signal())[0];
    assert_eq!(entry.verdict, APPROVED);
    session.feed(command(
        CommandKind::Halt,
        ALL,
        i64::from(ReasonCode::KillSwitchOn.code()),
    ));
    let log = order_log(&session);
    let engine = recovered(rich(TAKER), &log);
    let before = session.engine.results().next().unwrap();
    let after = engine.results().next().unwrap();
    assert_eq!(
        (
            after.position_qty,
            after.fees,
            after.realised_pnl,
            after.fill_count
        ),
        (
            before.position_qty,
            before.fees,
            before.realised_pnl,
            before.fill_count
        )
    );
    assert_eq!(engine.halted_by(), Some(ReasonCode::KillSwitchOn));
    assert_eq!(engine.storm_report().policy, PolicyState::Halt);
    let ids = |engine: &Engine| -> Vec<_> {
        engine
            .open_orders()
            .map(|o| (o.order_id, o.intent_id, o.remaining_qty()))
            .collect()
    };
    assert!(ids(&engine).iter().any(|row| row.0 == entry.order_id));
    assert_eq!(ids(&engine), ids(&session.engine));
    let unknown = _core::gateway::OrderState::Unknown;
    assert!(engine.open_orders().all(|order| order.state == unknown));
    // A recovery is for an engine that has seen nothing, and the same bytes give the same engine.
    let mut seen = Engine::new(rich(TAKER)).unwrap();
    seen.recover(&log).unwrap();
    assert_eq!(
        seen.recover(&log).unwrap_err().code(),
        ReasonCode::LogSequenceGap
    );
}

/// Feeds what follows a restart; gives the decisions.
fn go_on(engine: &mut Engine, after: &Session, records: &[Vec<u8>]) -> Vec<DecisionRecord> {
    let mut sequencer = Sequencer::default();
    sequencer.continue_after(after.sequencer.last_seq(), after.now);
    let (mut now, mut out) = (after.now, Vec::new());
    for bytes in records {
        now += SECOND / 4;
        let mut header: RecordHeader = _core::record::peek_header(bytes).unwrap();
        header.input_seq = 0;
        sequencer.stamp(&mut header, now);
        engine.on_record(&header, bytes, &mut out);
    }
    out
}

#[test]
fn an_intent_decided_before_a_restart_is_never_decided_again() {
    // Without a look at the feed: a restart is a gap, which is not what this is about.
    let quiet = || {
        let mut made = rich(TAKER);
        made.storm_guard.feed_gap_ns = Band::NEVER;
        made
    };
    let mut session = Session::new(quiet());
    for _ in 0..40 {
        session.now += SECOND;
        session.feed_book(buy_signal());
        session.now += SECOND;
        session.feed_book(no_signal());
    }
    let decided: Vec<u64> = session
        .decisions
        .iter()
        .map(|d| d.intent_id)
        .filter(|id| *id != 0)
        .collect();
    assert!(decided.len() >= 80);
    let log = order_log(&session);
    let next = [
        no_signal().as_bytes().to_vec(),
        buy_signal().as_bytes().to_vec(),
    ];
    let fresh = go_on(&mut recovered(quiet(), &log), &session, &next);
    assert_eq!(fresh.len(), 1);
    assert_eq!(fresh[0].verdict, APPROVED);
    assert!(!decided.contains(&fresh[0].intent_id));
    assert!(
        session
            .decisions
            .iter()
            .all(|d| d.order_id != fresh[0].order_id)
    );
    // Negative control: an engine that starts with an empty memory decides the first id again.
    let mut forgetful = Engine::new(quiet()).unwrap();
    let again = go_on(&mut forgetful, &session, &next);
    assert!(
        decided.contains(&again[0].intent_id),
        "memory-only dedup decides twice"
    );
    assert!(
        session
            .decisions
            .iter()
            .any(|d| d.order_id == again[0].order_id)
    );
}

#[test]
fn a_restart_with_an_order_on_its_way_opens_nothing_until_it_is_resolved_and_resumed() {
    let mut session = Session::new(rich(TAKER));
    session.answers = false;
    session.now += SECOND;
    let entry = session.feed_book(buy_signal())[0];
    let mut engine = Engine::new(rich(TAKER)).unwrap();
    let found = engine.recover(&order_log(&session)).unwrap();
    assert_eq!((found.unknown_orders, found.halted_by), (1, None));
    let fill = BrokerRecord {
        event_kind: BrokerEventKind::Expired as u32,
        order_id: entry.order_id,
        side: 1,
        price: entry.price,
        ..BrokerRecord::empty()
    };
    let confirm = |argument: i64| command(CommandKind::ResumeConfirm, ALL, argument);
    let base = i64::try_from(session.sequencer.last_seq()).unwrap();
    let arm = command(CommandKind::ResumeArm, ALL, 0).as_bytes().to_vec();
    let steps = [
        arm.clone(),
        confirm(base + 1).as_bytes().to_vec(),
        buy_signal().as_bytes().to_vec(),
        fill.as_bytes().to_vec(),
        arm,
        confirm(base + 5).as_bytes().to_vec(),
        buy_signal().as_bytes().to_vec(),
    ];
    let out = go_on(&mut engine, &session, &steps);
    let dropped = engine.counters().dropped();
    assert!(
        dropped.contains(&(ReasonCode::HaltCauseRemains.code(), 1)),
        "{dropped:?}"
    );
    let placed: Vec<_> = out
        .iter()
        .filter(|d| d.verdict == APPROVED && d.action == ActionKind::Place as u32)
        .collect();
    assert_eq!(placed.len(), 1, "{out:?}");
    assert!(placed[0].header.input_seq >= u64::try_from(base).unwrap() + 6);
    let codes: Vec<_> = out
        .iter()
        .filter(|d| d.verdict == NOTED)
        .map(code)
        .collect();
    assert_eq!(codes[0], ReasonCode::OrderOutcomeUnknown);
}

/// Any prefix of a stormy day's order log: what is latched in it is latched behind a restart.
#[test]
fn every_prefix_of_an_order_log_recovers_the_halt_that_it_holds() {
    let day = stormy_day(MAKER);
    let log = order_log(&day);
    let mut halted = false;
    let mut seen = [0, 0];
    let mut offset = 0;
    for item in Tape::new(&log) {
        let (header, bytes) = item.unwrap();
        offset += bytes.len();
        let mut is_note = false;
        if header.record_type == RecordType::Decision as u8 {
            let decision = DecisionRecord::read(bytes).unwrap();
            if decision.action == ActionKind::PolicyChange as u32 {
                halted = decision.intent_reason == PolicyState::Halt as u32;
                is_note = true;
            }
        }
        // Every note, and a sample of the rest.
        if !is_note && offset % 7 != 0 {
            continue;
        }
        let mut engine = Engine::new(rich(MAKER)).unwrap();
        engine.recover(&log[..offset]).unwrap();
        assert_eq!(engine.halted_by().is_some(), halted, "at byte {offset}");
        seen[usize::from(halted)] += 1;
    }
    assert!(seen[0] > 0);
    assert!(seen[1] > 0);
}

fn cases() -> u32 {
    std::env::var("HFT_FUZZ_CASES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(60)
}

/// One step of a hostile day.
#[derive(Debug, Clone)]
enum Step {
    Book(i64, i64, i64),
    Wait(i64),
    Health(u64, i64, i64),
    Command(u32),
    Resume,
    Report(u32, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (34_980_i64..35_020, 1_i64..30, 1_i64..30).prop_map(|(bid, left, right)| Step::Book(bid, left, right)),
        3 => (1_i64..40_000).prop_map(|ms| Step::Wait(ms * MS)),
        3 => (0_u64..6, -1_i64..60, 0_i64..3).prop_map(|(kind, value, argument)| Step::Health(kind, value, argument)),
        1 => (0_u32..9).prop_map(Step::Command),
        2 => Just(Step::Resume),
        3 => (0_u32..9, 0_usize..4).prop_map(|(kind, back)| Step::Report(kind, back)),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    /// Through the whole engine: nothing opens unless the policy is NORMAL, HALT is left by a
    /// resume only, the guard never jumps down, a replay is identical, and a recovery of the order
    /// log is halted exactly when the engine was.
    #[test]
    fn a_hostile_day_keeps_the_policy(steps in steps(), is_maker in any::<bool>()) {
        let template = if is_maker { MAKER } else { TAKER };
        let mut session = Session::new(guarded(template));
        session.answers = false;
        session.now += 60 * SECOND;
        let mut sent: Vec<DecisionRecord> = Vec::new();
        for step in steps {
            let before = session.engine.storm_report();
            let from = session.decisions.len();
            let is_resume = matches!(step, Step::Resume);
            session.now += MS;
            match step {
                Step::Book(bid, left, right) => drop(session.feed_book(book(bid, 1, left, right))),
                Step::Wait(ns) => drop(session.wait(ns)),
                Step::Health(kind, value, argument) => {
                    let scaled = if kind == 1 { value * MS } else if kind == 2 { value * SECOND / 10 } else { value };
                    let mut record = health(HealthKind::LoopLag, scaled, argument);
                    record.health_kind = kind;
                    session.feed(record);
                }
                Step::Command(kind) if kind != CommandKind::ResumeConfirm as u32 => {
                    session.feed(CommandRecord { command_kind: kind, alpha_index: ALL, ..CommandRecord::empty() });
                }
                Step::Command(_) => {}
                Step::Resume => resume(&mut session),
                Step::Report(kind, back) => {
                    let Some(order) = sent.iter().rev().nth(back).copied() else { continue };
                    if kind == BrokerEventKind::Fill as u32 && !session.engine.open_orders().any(|o| o.order_id == order.order_id) {
                        continue;
                    }
                    let record = BrokerRecord {
                        event_kind: kind, order_id: order.order_id, side: order.side, price: order.price, qty: order.qty,
                        broker_seq: session.sequencer.last_seq(), ..BrokerRecord::empty()
                    };
                    session.feed(record);
                }
            }
            let after = session.engine.storm_report();
            let mut policy = before.policy;
            for decision in &session.decisions[from..] {
                if decision.action == ActionKind::PolicyChange as u32 {
                    prop_assert_eq!(decision.time_in_force, policy as u32, "notes are a chain");
                    policy = PolicyState::from_code(decision.intent_reason).unwrap();
                }
                if decision.verdict == APPROVED && decision.action == ActionKind::Place as u32 {
                    let reduces = decision.position_qty * decision.side < 0 && decision.qty <= decision.position_qty.abs();
                    prop_assert!(reduces || policy == PolicyState::Normal || is_resume, "opened in {policy:?}");
                    sent.push(*decision);
                }
            }
            prop_assert_eq!(policy, after.policy);
            if before.policy == PolicyState::Halt && after.policy != PolicyState::Halt {
                prop_assert!(is_resume);
            }
            if before.storm == StormState::Halt && after.storm != StormState::Halt {
                prop_assert!(is_resume);
                prop_assert!(after.storm != StormState::Normal);
            }
            prop_assert!(!(before.storm == StormState::Storm && after.storm == StormState::Normal) || is_resume);
        }
        let again = replay(guarded(template), &session.inputs);
        prop_assert!(same(&again, &session.decisions));
        let mut engine = Engine::new(guarded(template)).unwrap();
        let found = engine.recover(&order_log(&session)).unwrap();
        prop_assert_eq!(found.halted_by.is_some(), session.engine.halted_by().is_some());
        let position = |engine: &Engine| engine.results().next().unwrap().position_qty;
        prop_assert_eq!(position(&engine), position(&session.engine));
        prop_assert_eq!(engine.open_orders().count(), session.engine.open_orders().count());
    }
}
