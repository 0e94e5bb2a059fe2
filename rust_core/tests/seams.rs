//! Where two parts of the engine meet: restart and latches, outside strategies and modes, exits and
//! silence. Every test names a way in which the engine once went wrong there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests stop at the first surprise"
)]

mod support;

use _core::engine::{APPROVED, Engine, EngineConfig, NOTED, Sequencer, WithdrawalAction};
use _core::gateway::{OrderState, PolicyState};
use _core::reason::ReasonCode;
use _core::record::{
    ActionKind, BookRecord, BrokerEventKind, BrokerRecord, CommandKind, DecisionRecord, HealthKind,
    HealthRecord, IntentReason, IntentRecord, Record, RecordHeader, RecordType, SCALE, Tape,
};
use _core::storm_guard::{Band, StormState};
use support::{INSTRUMENT, MAKER, SECOND, Session, TAKER, alpha_json, book, command, config};

const ALL: u32 = u32::MAX;
const BY_IMBALANCE: &str = "k * imbalance_l1";
/// 0 where the queues differ, not a number where they are equal.
const ZERO_OR_NAN: &str = "0 * imbalance_l1 / imbalance_l1";
const EXTERNAL: &str = r#"{"kind":"external","slippage_ticks":1}"#;
const MS: i64 = 1_000_000;

fn buy_signal() -> BookRecord {
    book(35_000, 1, 30, 1)
}

fn no_signal() -> BookRecord {
    book(35_000, 1, 10, 10)
}

fn health(kind: HealthKind, value: i64) -> HealthRecord {
    HealthRecord {
        health_kind: kind as u64,
        value,
        ..HealthRecord::empty()
    }
}

/// A config whose guard listens to a late loop.
fn lag_guarded() -> EngineConfig {
    let mut made = config(TAKER, BY_IMBALANCE);
    made.storm_guard.loop_lag_ns = Band {
        storm_in: Some(20 * MS),
        storm_out: Some(10 * MS),
        ..Band::NEVER
    };
    made
}

fn halted_by(engine: &Engine) -> Option<ReasonCode> {
    engine.results().next().unwrap().halted_by
}

fn dropped(engine: &Engine, wanted: ReasonCode) -> u64 {
    let rows = engine.counters().dropped();
    rows.iter()
        .find(|row| row.0 == wanted.code())
        .map_or(0, |row| row.1)
}

/// The order log of a session: what a restart has.
fn order_log(session: &Session) -> Vec<u8> {
    const KINDS: [u8; 5] = [
        RecordType::Command as u8,
        RecordType::ConfigSwitch as u8,
        RecordType::Broker as u8,
        RecordType::Health as u8,
        RecordType::Intent as u8,
    ];
    let mut log = Vec::new();
    let mut decisions = session.decisions.iter().peekable();
    for item in Tape::new(&session.inputs) {
        let (header, bytes) = item.unwrap();
        if KINDS.contains(&header.record_type) {
            log.extend_from_slice(bytes);
        }
        while let Some(decision) = decisions.next_if(|d| d.header.input_seq == header.input_seq) {
            log.extend_from_slice(decision.as_bytes());
        }
    }
    assert!(decisions.next().is_none());
    log
}

/// An engine behind a crash, which goes on a quarter of a second a record.
struct Restarted {
    engine: Engine,
    sequencer: Sequencer,
    now: i64,
    unknown_orders: usize,
}

impl Restarted {
    fn of(made: EngineConfig, session: &Session) -> Self {
        let mut engine = Engine::new(made).unwrap();
        let found = engine.recover(&order_log(session)).unwrap();
        let mut sequencer = Sequencer::default();
        sequencer.continue_after(session.sequencer.last_seq(), session.now);
        Self {
            engine,
            sequencer,
            now: session.now,
            unknown_orders: found.unknown_orders,
        }
    }

    /// Orders placed because of one record.
    fn feed<R: Record>(&mut self, mut record: R) -> Vec<DecisionRecord> {
        self.now += SECOND / 4;
        let mut header: RecordHeader = *record.header();
        self.sequencer.stamp(&mut header, self.now);
        *record.header_mut() = header;
        let mut out = Vec::new();
        self.engine.on_record(&header, record.as_bytes(), &mut out);
        out.retain(is_placed);
        out
    }

    fn arm(&mut self) -> i64 {
        self.feed(command(CommandKind::ResumeArm, ALL, 0));
        i64::try_from(self.sequencer.last_seq()).unwrap()
    }

    /// Both steps; gives the orders that go out because of the second.
    fn resume(&mut self) -> Vec<DecisionRecord> {
        let armed = self.arm();
        self.feed(command(CommandKind::ResumeConfirm, ALL, armed))
    }

    fn policy(&self) -> PolicyState {
        self.engine.storm_report().policy
    }
}

fn is_placed(decision: &DecisionRecord) -> bool {
    decision.verdict == APPROVED && decision.action == ActionKind::Place as u32
}

/// A maker that is long one lot and quotes nothing, while the price runs up 20 ticks and falls 15.
fn fall_of_a_winner(made: EngineConfig) -> Session {
    let mut session = Session::new(made);
    session.now += SECOND;
    assert_eq!(session.feed_book(book(35_000, 1, 10, 5)).len(), 2, "quotes");
    session.feed_book(book(34_999, 1, 10, 10));
    assert_eq!(session.position(), 1, "the bid was hit");
    session.feed_book(book(35_020, 1, 10, 10));
    assert_eq!(halted_by(&session.engine), None);
    assert_eq!(session.engine.open_orders().count(), 0);
    session.feed_book(book(35_005, 1, 10, 10));
    assert_eq!(session.position(), 0, "closed by the limit");
    session
}

/// Says that `code` was written once as a note and holds behind a restart.
fn assert_latch_outlives_a_crash(made: &EngineConfig, code: ReasonCode, alpha_index: u32) {
    let session = fall_of_a_winner(made.clone());
    let notes: Vec<_> = session
        .decisions
        .iter()
        .filter(|d| d.action == ActionKind::LossLatch as u32)
        .map(|d| (d.verdict, d.alpha_index, d.reason_code))
        .collect();
    assert_eq!(notes, [(NOTED, alpha_index, u32::from(code.code()))]);
    assert_eq!(session.refusals(), [0_u32; 0], "nothing else tells of it");
    let mut after = Restarted::of(made.clone(), &session);
    assert_eq!(after.unknown_orders, 0);
    assert_eq!(halted_by(&after.engine), Some(code));
    assert!(after.feed(book(35_005, 1, 10, 5)).is_empty());
    assert_eq!(halted_by(&after.engine), Some(code));
    // Negative control: an engine that knows nothing quotes on the same book.
    let mut fresh = Session::new(made.clone());
    assert_eq!(fresh.feed_book(book(35_005, 1, 10, 5)).len(), 2);
}

/// A maker's latch was in no decision, so a crash behind it forgot it.
#[test]
fn a_makers_loss_latch_outlives_a_crash() {
    let mut made = config(MAKER, ZERO_OR_NAN);
    made.alphas[0].limits.drawdown_max = 2_000 * SCALE;
    assert_latch_outlives_a_crash(&made, ReasonCode::DrawdownReached, 0);
}

/// The account's latch was in no decision either.
#[test]
fn an_accounts_loss_latch_outlives_a_crash() {
    let mut made = config(MAKER, ZERO_OR_NAN);
    made.account_limits.drawdown_max = 2_000 * SCALE;
    assert_latch_outlives_a_crash(&made, ReasonCode::AccountDrawdownReached, ALL);
}

/// A reduce-only command before the crash hid the latch of the unknown order, and it could be resumed.
#[test]
fn an_unknown_order_cannot_be_resumed_away_whatever_was_latched_before_it() {
    let mut session = Session::new(config(TAKER, BY_IMBALANCE));
    session.answers = false;
    session.now += SECOND;
    let entry = session.feed_book(buy_signal())[0];
    assert_eq!(entry.verdict, APPROVED);
    session.feed(command(CommandKind::ReduceOnly, ALL, 0));
    let mut after = Restarted::of(config(TAKER, BY_IMBALANCE), &session);
    assert_eq!(after.unknown_orders, 1);
    after.resume();
    assert_eq!(
        dropped(&after.engine, ReasonCode::HaltCauseRemains),
        1,
        "the order is unknown"
    );
    assert_eq!(after.policy(), PolicyState::Degraded);
    after.feed(BrokerRecord {
        event_kind: BrokerEventKind::Expired as u32,
        order_id: entry.order_id,
        side: 1,
        price: entry.price,
        ..BrokerRecord::empty()
    });
    assert!(after.feed(buy_signal()).is_empty(), "resolved, not resumed");
    assert_eq!(after.resume().len(), 1, "the signal still stands");
    assert_eq!(dropped(&after.engine, ReasonCode::HaltCauseRemains), 1);
    assert_eq!(after.policy(), PolicyState::Normal);
}

/// The fill of an unknown order changed no state while a storm raged, so only the storm outlived a crash.
#[test]
fn a_fill_of_an_unknown_order_in_a_storm_outlives_crash_and_storm() {
    let mut session = Session::new(lag_guarded());
    session.now += SECOND;
    session.feed_book(no_signal());
    session.feed(health(HealthKind::LoopLag, 20 * MS));
    assert_eq!(session.engine.storm_report().storm, StormState::Storm);
    session.feed(BrokerRecord {
        event_kind: BrokerEventKind::Fill as u32,
        order_id: 4_711,
        side: 1,
        price: SCALE,
        qty: SCALE,
        broker_seq: 5,
        ..BrokerRecord::empty()
    });
    let mut after = Restarted::of(lag_guarded(), &session);
    let of = |engine: &Engine| {
        let report = engine.storm_report();
        (report.storm, report.policy)
    };
    assert_eq!(of(&after.engine), of(&session.engine));
    session.feed(health(HealthKind::LoopLag, 0));
    after.feed(health(HealthKind::LoopLag, 0));
    for _ in 0..400 {
        session.now += SECOND / 4;
        session.feed_book(no_signal());
        after.feed(no_signal());
    }
    let calm = (StormState::Normal, PolicyState::Degraded);
    assert_eq!(of(&session.engine), calm, "live");
    assert_eq!(of(&after.engine), calm, "recovered");
    assert!(after.feed(buy_signal()).is_empty());
    assert_eq!(after.resume().len(), 1, "an operator's resume lifts it");
}

/// A resume lifted the account's latch in the log and left the alphas reduce-only.
#[test]
fn a_resume_from_reduce_only_outlives_a_crash() {
    let mut session = Session::new(config(TAKER, BY_IMBALANCE));
    session.now += SECOND;
    session.feed(command(CommandKind::ReduceOnly, ALL, 0));
    session.feed(command(CommandKind::ResumeArm, ALL, 0));
    let armed = i64::try_from(session.sequencer.last_seq()).unwrap();
    session.feed(command(CommandKind::ResumeConfirm, ALL, armed));
    assert_eq!(session.engine.storm_report().policy, PolicyState::Normal);
    let mut after = Restarted::of(config(TAKER, BY_IMBALANCE), &session);
    assert_eq!(after.policy(), PolicyState::Normal);
    assert_eq!(after.feed(buy_signal()).len(), 1);
}

/// The arm that a resume had used up was armed again behind a restart.
#[test]
fn an_old_confirmation_resumes_nothing_behind_a_restart() {
    let mut session = Session::new(config(TAKER, BY_IMBALANCE));
    session.now += SECOND;
    session.feed(command(CommandKind::ReduceOnly, ALL, 0));
    session.feed(command(CommandKind::ResumeArm, ALL, 0));
    let armed = i64::try_from(session.sequencer.last_seq()).unwrap();
    session.feed(command(CommandKind::ResumeConfirm, ALL, armed));
    session.feed(command(CommandKind::ReduceOnly, ALL, 0));
    let mut after = Restarted::of(config(TAKER, BY_IMBALANCE), &session);
    after.feed(command(CommandKind::ResumeConfirm, ALL, armed));
    assert_eq!(dropped(&after.engine, ReasonCode::ResumeNotArmed), 1);
    assert_eq!(after.policy(), PolicyState::Degraded);
    assert!(after.feed(buy_signal()).is_empty());
    assert_eq!(after.resume().len(), 1, "a new arm does");
    assert_eq!(after.policy(), PolicyState::Normal);
}

/// A recovery did not notice that the position was flat in between, and kept the old weight.
#[test]
fn a_weight_that_waited_for_a_flat_position_outlives_a_crash() {
    let made = || {
        let mut made = config(TAKER, BY_IMBALANCE);
        made.alphas[0].order_qty = 2 * SCALE;
        made
    };
    let weight = |engine: &Engine| engine.results().next().unwrap().weight_ppm;
    let mut session = Session::new(made());
    session.feed(command(CommandKind::SetWeight, 0, 500_000));
    session.feed_book(buy_signal());
    assert_eq!(session.position(), 1);
    session.feed(command(CommandKind::SetWeight, 0, 1_000_000));
    assert_eq!(weight(&session.engine), 500_000, "waits");
    let waiting = Restarted::of(made(), &session);
    assert_eq!(
        weight(&waiting.engine),
        500_000,
        "waits behind a restart too"
    );
    session.feed_book(no_signal());
    assert_eq!(session.position(), 0);
    session.feed_book(buy_signal());
    assert_eq!(session.position(), 2, "the higher weight");
    let after = Restarted::of(made(), &session);
    assert_eq!(weight(&after.engine), 1_000_000);
}

/// A strategy outside the engine, with its numbers.
struct Outside {
    session: Session,
    count: u64,
}

impl Outside {
    fn new(made: EngineConfig) -> Self {
        let mut session = Session::new(made);
        session.now += SECOND;
        session.feed_book(no_signal());
        Self { session, count: 0 }
    }

    /// An intent for one lot, caused by the record before it.
    fn want(&mut self, alpha_index: u32, order: (i64, i64, u32), signal: f64) -> DecisionRecord {
        self.count += 1;
        let (side, price, time_in_force) = order;
        let mut record = IntentRecord {
            alpha_index,
            action: ActionKind::Place as u32,
            intent_reason: IntentReason::Quote as u32,
            time_in_force,
            external_id: self.count,
            side,
            price: price * SCALE,
            qty: SCALE,
            cause_seq: self.session.sequencer.last_seq(),
            cause_time_ns: self.session.now,
            ttl_ns: SECOND,
            signal,
            ..IntentRecord::empty()
        };
        record.header.instrument_id = INSTRUMENT;
        self.session.feed(record)[0]
    }
}

const REST_OF_DAY: u32 = 1;
const IMMEDIATE: u32 = 2;

/// The value of a strategy outside counted as a feature, so its gaps degraded the whole account.
#[test]
fn a_strategy_outside_cannot_fail_the_storm_guard() {
    let mut made = config(EXTERNAL, "");
    made.storm_guard.feature_failures = Band {
        storm_in: Some(3),
        storm_out: Some(0),
        ..Band::NEVER
    };
    let mut outside = Outside::new(made);
    for _ in 0..10 {
        for signal in [1.0, f64::NAN] {
            outside.want(0, (1, 34_950, IMMEDIATE), signal);
            outside.session.now += SECOND / 2;
            outside.session.feed_book(no_signal());
        }
    }
    let report = outside.session.engine.storm_report();
    assert_eq!(
        (report.storm, report.policy),
        (StormState::Normal, PolicyState::Normal)
    );
    assert_eq!(report.entered, [0; 4], "at any time");
}

/// Nobody took an outside strategy's opening quotes back when only exits were allowed.
#[test]
fn an_outside_strategys_opening_quote_is_taken_back_when_only_exits_are_allowed() {
    let mut outside = Outside::new(config(EXTERNAL, ""));
    outside.want(0, (1, 35_001, IMMEDIATE), 1.0);
    assert_eq!(outside.session.position(), 1);
    let opening = outside.want(0, (1, 34_990, REST_OF_DAY), 1.0);
    let leaving = outside.want(0, (-1, 35_020, REST_OF_DAY), 1.0);
    let open = |outside: &Outside| -> Vec<_> {
        let orders = outside.session.engine.open_orders();
        orders.map(|order| (order.order_id, order.state)).collect()
    };
    let working = OrderState::Working;
    assert_eq!(
        open(&outside),
        [(opening.order_id, working), (leaving.order_id, working)]
    );
    outside
        .session
        .feed(command(CommandKind::ReduceOnly, ALL, 0));
    assert_eq!(open(&outside), [(leaving.order_id, working)]);
    assert_eq!(outside.session.position(), 1);
}

/// A halt froze the position of a `cost_taker` whose permit lets it leave, unlike a `taker`'s.
#[test]
fn a_cost_taker_leaves_by_its_own_rule_in_a_halt() {
    let cost_taker = r#"{"kind":"cost_taker","entry_ticks":1.0,"exit_ticks":-99.0,"hold_ns":5000000000,"slippage_ticks":1,"cost_margin_ticks":0.0}"#;
    let mut made = config(cost_taker, "8 * imbalance_l1");
    made.alphas[0].on_withdrawal.action = WithdrawalAction::ReduceOnly;
    made.alphas[0].on_withdrawal.deadline_ns = i64::MAX;
    let mut session = Session::new(made);
    session.now += SECOND;
    session.feed_book(buy_signal());
    assert_eq!(session.position(), 1);
    session.feed(command(CommandKind::Halt, ALL, 0));
    session.now += 4 * SECOND;
    session.feed_book(no_signal());
    assert_eq!(session.position(), 1, "not before its holding time");
    session.now += SECOND;
    let exit = session.feed_book(no_signal());
    assert_eq!(
        (exit[0].verdict, exit[0].side, exit[0].intent_reason),
        (APPROVED, -1, IntentReason::Exit as u32)
    );
    assert_eq!(session.position(), 0);
    assert_eq!(
        session.engine.storm_report().policy,
        PolicyState::Halt,
        "still"
    );
}

/// Milliseconds behind the command to flatten at which an exit went out, with the bid of `owner` in
/// its way that the broker never answers.
fn exits_past_a_silent_bid(owner: u32) -> Vec<i64> {
    let mut made = config(EXTERNAL, "");
    let other = alpha_json(1, EXTERNAL, "");
    made.alphas.push(serde_json::from_str(&other).unwrap());
    let mut outside = Outside::new(made);
    outside.want(0, (1, 35_001, IMMEDIATE), 1.0);
    assert_eq!(outside.session.position(), 1);
    outside.session.answers = false;
    let bid = outside.want(owner, (1, 35_000, REST_OF_DAY), 1.0);
    assert_eq!(bid.verdict, APPROVED);
    let session = &mut outside.session;
    let start = session.now;
    let mut placed = session.feed(command(CommandKind::Flatten, 0, 0));
    for _ in 0..80 {
        session.now += 100 * MS - 1;
        placed.extend(session.feed_book(no_signal()));
    }
    assert_eq!(
        session.engine.open_orders().next().unwrap().state,
        OrderState::PendingNew
    );
    let exits = placed.iter().filter(|d| is_placed(d));
    exits
        .map(|exit| {
            assert_eq!((exit.alpha_index, exit.side, exit.qty), (0, -1, SCALE));
            (exit.header.sequence_time_ns - start) / MS
        })
        .collect()
}

/// An exit waited for ever for an order of another alpha that nobody answered.
#[test]
fn an_exit_waits_two_seconds_for_another_alphas_silent_order() {
    assert_eq!(exits_past_a_silent_bid(1), [2_000]);
}

/// One daily limit without the other was taken, and then neither was in force.
#[test]
fn one_daily_limit_without_the_other_is_refused() {
    for is_up in [true, false] {
        let mut made = config(TAKER, BY_IMBALANCE);
        let instrument = &mut made.instruments[0];
        if is_up {
            instrument.limit_down = None;
        } else {
            instrument.limit_up = None;
        }
        let error = Engine::new(made).map(drop).expect_err("refused");
        assert_eq!(error.code(), ReasonCode::ConfigMalformed);
        let text = error.to_string();
        assert!(text.contains("instruments[0].limit_up"), "{text}");
    }
    let mut made = config(TAKER, BY_IMBALANCE);
    made.instruments[0].limit_up = None;
    made.instruments[0].limit_down = None;
    assert!(Engine::new(made).is_ok(), "neither");
}

/// The same for an order of its own.
#[test]
fn an_exit_waits_two_seconds_for_its_own_silent_order() {
    assert_eq!(exits_past_a_silent_bid(0), [2_000]);
}

/// A wait that was given up counted for the next exit, which then did not wait for its cancel.
#[test]
fn a_wait_that_was_given_up_does_not_shorten_the_next() {
    let stays = r#"{"kind":"taker","entry_ticks":1.0,"exit_ticks":0.0,"hold_ns":500000000000,"slippage_ticks":1}"#;
    let mut made = config(stays, BY_IMBALANCE);
    let other = alpha_json(1, EXTERNAL, "");
    made.alphas.push(serde_json::from_str(&other).unwrap());
    let mut outside = Outside::new(made);
    outside.session.feed_book(buy_signal());
    assert_eq!(outside.session.position(), 1);
    outside.session.answers = false;
    let mut at = Vec::new();
    for round in 0..2 {
        let bid = outside.want(1, (1, 35_000, REST_OF_DAY), 1.0);
        assert_eq!(bid.verdict, APPROVED, "{round} {bid:?}");
        let session = &mut outside.session;
        session.report(BrokerEventKind::Working, &bid, bid.price, bid.qty, false);
        session.now += SECOND / 2;
        let out = session.feed_book(no_signal());
        at.push(out.iter().filter(|d| is_placed(d)).count());
        session.now += SECOND / 2;
        session.feed_book(buy_signal());
        session.report(BrokerEventKind::Canceled, &bid, bid.price, 0, false);
        session.now += 10 * SECOND;
        session.feed_book(buy_signal());
    }
    assert_eq!(at, [0, 0], "exits that went at once");
}
