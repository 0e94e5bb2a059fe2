//! Traces of replays: they tell what was decided, change nothing, and keep the table's order.
#![allow(clippy::unwrap_used, reason = "tests stop at the first surprise")]

mod support;

use _core::engine::{
    APPROVED, BatchError, CheckResult, Engine, EngineConfig, Sequencer, TracedIntent,
    explain_decisions, run_tape,
};
use _core::kernel::Kernels;
use _core::record::{
    ActionKind, CommandKind, DecisionRecord, HealthKind, HealthRecord, IntentReason, Record,
    RecordType, SCALE, Tape,
};
use _core::risk::CHECKS;
use _core::strategy::Mode;
use support::{MAKER, SECOND, Session, TAKER, alpha_json, book, command, config, tape};

const ALL: u32 = u32::MAX;
const BY_IMBALANCE: &str = "imbalance_l1 * 4.0";
const TARGET: &str = r#"{"kind":"target","ticks_per_clip":1.0,"dead_band_ticks":0.5,"clips_max":3.0,"trade_clips_min":1.0,"patience_ns":100000000,"requote_ticks":1.0,"slippage_ticks":1}"#;
const COST_TAKER: &str = r#"{"kind":"cost_taker","entry_ticks":1.0,"exit_ticks":0.0,"hold_ns":2000000000,
    "slippage_ticks":1,"cost_margin_ticks":0.0}"#;
const QUEUE_MAKER: &str = r#"{"kind":"queue_maker","half_spread_ticks":0.5,"inventory_skew_ticks":0.5,
    "signal_skew":0.1,"requote_ticks":1.0,"requote_gain_ticks":0.01,"queue_lots":10.0,"edge_ticks_min":0.2}"#;
const AVELLANEDA_STOIKOV: &str = r#"{"kind":"avellaneda_stoikov_maker","gamma":0.1,"k":1.5,
    "sigma_source":"stated","sigma_ticks":0.1,"horizon":"session_end","horizon_ns":2000000000,
    "signal_skew":0.1,"requote_ticks":1.0,"requote_gain_ticks":0.0,"queue_lots":10.0,"edge_ticks_min":0.0}"#;
const GLFT: &str = r#"{"kind":"glft_maker","gamma":0.1,"k":1.5,"fills_per_s":1.0,"sigma_source":"stated",
    "sigma_ticks":0.5,"signal_skew":0.1,"requote_ticks":1.0,"requote_gain_ticks":0.0,"queue_lots":10.0,
    "edge_ticks_min":0.0}"#;

/// Every input of a session.
fn all_seqs(inputs: &[u8]) -> Vec<u64> {
    Tape::new(inputs)
        .map(|item| item.unwrap().0.input_seq)
        .collect()
}

fn traced(made: &EngineConfig, inputs: &[u8], seqs: &[u64]) -> Vec<TracedIntent> {
    explain_decisions(inputs, made, seqs, &Kernels::default(), &[]).unwrap()
}

/// A busy day with few limits left, so that entries, exits, cancels and refusals all come.
fn tight(template: &str) -> EngineConfig {
    let mut made = config(template, BY_IMBALANCE);
    made.account_limits.order_rate_max = 30;
    made.account_limits.cancel_reserve = 10;
    made.account_limits.repeated_order_max = 2;
    made.account_limits.one_side_fill_max = 8;
    made.alphas[0].limits.order_rate_max = 15;
    made.alphas[0].limits.daily_loss_max = 60_000 * SCALE;
    made
}

fn played(made: &EngineConfig, books: usize) -> Session {
    let mut session = Session::new(made.clone());
    session.feed_tape(&tape(7, books));
    session.feed(command(CommandKind::Halt, ALL, 0));
    session.wait(SECOND);
    session.feed_tape(&tape(8, 50));
    session
}

/// Holds a trace against the log; gives how often an order, a refusal and a cancel were seen.
fn held_against_the_log(intents: &[TracedIntent], logged: &[DecisionRecord]) -> [usize; 3] {
    let wanted: Vec<&DecisionRecord> = logged
        .iter()
        .filter(|decision| decision.action <= ActionKind::Cancel as u32)
        .collect();
    let written: Vec<&TracedIntent> = intents.iter().filter(|i| i.decision.is_some()).collect();
    assert_eq!(wanted.len(), written.len(), "one intent for each decision");
    let mut seen = [0; 3];
    for (decision, intent) in wanted.iter().zip(&written) {
        let replayed = intent.decision.unwrap();
        assert_eq!(decision.as_bytes(), replayed.as_bytes());
        assert_eq!(decision.header.input_seq, intent.input_seq);
        assert_eq!(decision.alpha_index as usize, intent.alpha_index);
        assert_eq!(decision.action, intent.action as u32);
        assert_eq!(decision.intent_id, intent.intent_id);
        assert_eq!(decision.intent_reason, intent.reason as u32);
        assert_eq!(
            (
                decision.order_id,
                decision.side,
                decision.price,
                decision.qty
            ),
            (intent.order_id, intent.side, intent.price, intent.qty)
        );
        assert_eq!(decision.signal.to_bits(), intent.state.signal.to_bits());
        assert_eq!(decision.position_qty, intent.state.position_qty);
        let refusal = intent.refusal;
        assert_eq!(decision.verdict == APPROVED, refusal.is_none());
        let said = refusal.map_or((0, 0, 0), |refusal| {
            let code = u32::from(refusal.code.code());
            (code, refusal.observed, refusal.limit)
        });
        assert_eq!(
            (decision.reason_code, decision.observed, decision.limit),
            said
        );
        let first = intent.checks.iter().find_map(|row| match row.result {
            CheckResult::Refused(refusal) => Some(refusal),
            _ => None,
        });
        assert_eq!(first, refusal);
        let is_cancel = decision.action == ActionKind::Cancel as u32;
        seen[if is_cancel {
            2
        } else {
            usize::from(refusal.is_some())
        }] += 1;
    }
    seen
}

#[test]
fn every_decision_of_a_day_has_its_trace_and_the_trace_changes_none() {
    let mut sums = [0; 3];
    for template in [TAKER, MAKER, TARGET] {
        let made = tight(template);
        let session = played(&made, 1_500);
        let intents = traced(&made, &session.inputs, &all_seqs(&session.inputs));
        let seen = held_against_the_log(&intents, &session.decisions);
        for (sum, count) in sums.iter_mut().zip(seen) {
            *sum += count;
        }
        for intent in intents.iter().filter(|i| i.action == ActionKind::Place) {
            let names: Vec<&str> = intent.checks.iter().map(|row| row.name).collect();
            let table: Vec<&str> = CHECKS.iter().map(|check| check.name).collect();
            assert_eq!(names, table, "all of them, in order of precedence");
            for row in &intent.checks {
                let is_held = row.applies.holds(intent.is_reducing);
                assert_eq!(
                    is_held,
                    row.result != CheckResult::NotForThis,
                    "{}",
                    row.name
                );
            }
        }
    }
    assert!(sums.iter().all(|count| *count > 20), "{sums:?}");
}

/// Seven alphas on one account, one of every template that quotes or crosses: makers' orders are
/// cleared out of the way of others' exits, and each intent has the state of its own alpha.
#[test]
fn several_alphas_are_told_apart() {
    let mut made: EngineConfig = config(TAKER, BY_IMBALANCE);
    made.alphas = [
        TAKER,
        MAKER,
        COST_TAKER,
        QUEUE_MAKER,
        AVELLANEDA_STOIKOV,
        GLFT,
        TARGET,
    ]
    .iter()
    .zip(0..)
    .map(|(template, place)| {
        serde_json::from_str(&alpha_json(place, template, BY_IMBALANCE)).unwrap()
    })
    .collect();
    made.account_limits.order_rate_max = 1_000;
    let session = played(&made, 400);
    let intents = traced(&made, &session.inputs, &all_seqs(&session.inputs));
    held_against_the_log(&intents, &session.decisions);
    for place in 0..made.alphas.len() {
        let own: Vec<&TracedIntent> = intents.iter().filter(|i| i.alpha_index == place).collect();
        assert!(!own.is_empty(), "alpha {place} decided something");
        for intent in own {
            let orders = &intent.state.orders;
            assert!(
                orders
                    .iter()
                    .all(|order| order.alpha_index as usize == place)
            );
        }
    }
    assert!(intents.iter().any(|i| i.reason == IntentReason::ClearExit));
    let with_cost = intents.iter().filter(|i| i.alpha_index == 2);
    for intent in with_cost.filter(|i| i.reason == IntentReason::Entry) {
        let cost = intent
            .state
            .wanted
            .and_then(|wanted| wanted.round_trip_ticks);
        assert!(
            intent.state.signal.abs() >= cost.unwrap(),
            "it pays for the round trip"
        );
    }
}

/// A replay that traces some inputs decides all of them as one that traces none.
#[test]
fn tracing_some_inputs_leaves_the_others_alone() {
    let made = tight(MAKER);
    let session = played(&made, 400);
    let some: Vec<u64> = all_seqs(&session.inputs).into_iter().step_by(7).collect();
    let intents = traced(&made, &session.inputs, &some);
    assert!(intents.len() > 10);
    assert!(
        intents
            .iter()
            .all(|intent| some.contains(&intent.input_seq))
    );
    let all = traced(&made, &session.inputs, &all_seqs(&session.inputs));
    let same: Vec<&TracedIntent> = all
        .iter()
        .filter(|intent| some.contains(&intent.input_seq))
        .collect();
    assert_eq!(
        format!("{same:?}"),
        format!("{:?}", intents.iter().collect::<Vec<_>>())
    );
    let mut engine = Engine::new(made).unwrap();
    let mut out = Vec::new();
    run_tape(
        &mut engine,
        &mut Sequencer::default(),
        &session.inputs,
        true,
        &mut out,
    )
    .unwrap();
    assert_eq!(out.len(), session.decisions.len());
}

#[test]
fn a_makers_cancel_shows_the_price_that_is_wanted_now() {
    let made = config(MAKER, BY_IMBALANCE);
    let session = played(&made, 1_500);
    let intents = traced(&made, &session.inputs, &all_seqs(&session.inputs));
    let mut moved = 0;
    for intent in intents.iter().filter(|i| i.reason == IntentReason::Requote) {
        let wanted = intent.state.wanted.unwrap();
        let price = if intent.side > 0 {
            wanted.bid
        } else {
            wanted.ask
        };
        assert_ne!(
            price,
            Some(intent.price),
            "it moves because it is elsewhere"
        );
        let own = intent
            .state
            .orders
            .iter()
            .find(|o| o.order_id == intent.order_id);
        assert_eq!(
            own.unwrap().price,
            intent.price,
            "the template saw its order"
        );
        moved += usize::from(price.is_some());
    }
    assert!(moved > 10, "{moved}");
    let quotes = intents.iter().filter(|i| i.reason == IntentReason::Quote);
    for intent in quotes {
        let wanted = intent.state.wanted.unwrap();
        let price = if intent.side > 0 {
            wanted.bid
        } else {
            wanted.ask
        };
        assert_eq!(
            price,
            Some(intent.price),
            "a quote is placed where it is wanted"
        );
    }
}

#[test]
fn a_halt_and_a_storm_are_named_as_causes() {
    let mut made = config(TAKER, BY_IMBALANCE);
    made.alphas[0].on_withdrawal.deadline_ns = i64::MAX;
    made.alphas[0].on_withdrawal.action = _core::engine::WithdrawalAction::ReduceOnly;
    let lag = &mut made.storm_guard.loop_lag_ns;
    (lag.storm_in, lag.storm_out) = (Some(20_000_000), Some(10_000_000));
    let mut session = Session::new(made.clone());
    session.feed_book(book(35_000, 1, 10, 10));
    let late = HealthRecord {
        health_kind: HealthKind::LoopLag as u64,
        value: 50_000_000,
        ..HealthRecord::empty()
    };
    session.feed(late);
    session.feed_book(book(35_000, 1, 30, 1));
    session.feed(command(CommandKind::Halt, ALL, 0));
    session.now += 2 * SECOND;
    session.feed_book(book(35_000, 1, 31, 1));
    let intents = traced(&made, &session.inputs, &all_seqs(&session.inputs));
    held_against_the_log(&intents, &session.decisions);
    let names = |intent: &TracedIntent| -> Vec<&str> {
        intent.state.causes.iter().map(|cause| cause.what).collect()
    };
    let stormy = intents.first().unwrap();
    assert_eq!(names(stormy), ["session open", "storm guard in STORM"]);
    assert_eq!(stormy.state.mode, Mode::ReduceOnly);
    assert_eq!(stormy.storm.storm.name(), "STORM");
    let halted = intents.last().unwrap();
    assert!(
        names(halted).contains(&"account halted"),
        "{:?}",
        names(halted)
    );
    let refused: Vec<&str> = halted
        .checks
        .iter()
        .filter(|row| matches!(row.result, CheckResult::Refused(_)))
        .map(|row| row.name)
        .collect();
    assert_eq!(
        refused[..2],
        ["kill_switch", "storm_guard"],
        "both are told"
    );
    assert_eq!(halted.storm.policy.name(), "HALT");
}

#[test]
fn a_hole_in_the_inputs_is_an_error_and_an_input_that_is_not_there_tells_nothing() {
    let made = tight(TAKER);
    let session = played(&made, 100);
    let seqs = all_seqs(&session.inputs);
    assert!(traced(&made, &session.inputs, &[seqs.len() as u64 + 1]).is_empty());
    assert!(traced(&made, &session.inputs, &[]).is_empty());
    let first = Tape::new(&session.inputs).next().unwrap().unwrap();
    assert_eq!(first.0.record_type, RecordType::Book as u8);
    let second_len = Tape::new(&session.inputs[first.1.len()..])
        .next()
        .unwrap()
        .unwrap()
        .1
        .len();
    let mut holed = session.inputs[..first.1.len()].to_vec();
    holed.extend_from_slice(&session.inputs[first.1.len() + second_len..]);
    let error = explain_decisions(&holed, &made, &seqs, &Kernels::default(), &[]).unwrap_err();
    assert!(matches!(error, BatchError::SequenceGap { expected: 2, .. }));
}
