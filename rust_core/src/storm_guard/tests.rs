#![allow(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use proptest::prelude::*;

use super::*;
use crate::reason::ReasonCode;

const SECOND: i64 = 1_000_000_000;
const STATES: [StormState; 4] = [
    StormState::Normal,
    StormState::Warm,
    StormState::Storm,
    StormState::Halt,
];
const LEVELS: [Level; 4] = [Level::Clear, Level::Warm, Level::Storm, Level::Halt];
const EVENTS: [Event; 3] = [Event::Look, Event::Cooled, Event::Resume];

fn band(thresholds: [i64; 6]) -> Band {
    let [warm_in, warm_out, storm_in, storm_out, halt_in, halt_out] = thresholds.map(Some);
    Band {
        warm_in,
        warm_out,
        storm_in,
        storm_out,
        halt_in,
        halt_out,
    }
}

fn config() -> StormConfig {
    let all = band([50, 40, 100, 80, 200, 150]);
    StormConfig {
        risk_capital: 1,
        drawdown_bps: all,
        feed_gap_ns: all,
        loop_lag_ns: all,
        order_rtt_ns: all,
        reject_count: all,
        drift_reports: all,
        feature_failures: all,
        normaliser_failures: all,
        open_grace_ns: 60 * SECOND,
        failure_window_ns: 60 * SECOND,
        clears: 5,
        cool_down_warm_ns: 30 * SECOND,
        cool_down_storm_ns: 30 * SECOND,
        hold_warm_ns: 300 * SECOND,
        hold_storm_ns: 120 * SECOND,
        resume_window_ns: 60 * SECOND,
    }
}

/// Invariant 1: all 48 combinations have one row, and what the rows say.
#[test]
fn every_state_level_and_event_has_exactly_one_row() {
    let mut used = std::collections::BTreeSet::new();
    for state in STATES {
        for asked in LEVELS {
            for event in EVENTS {
                let rows = ROWS.iter().filter(|row| row.matches(state, asked, event));
                assert_eq!(rows.count(), 1, "{state:?} {asked:?} {event:?}");
                let row = next(state, asked, event);
                used.insert(row.label);
                if state == StormState::Halt {
                    let leaves = event == Event::Resume && asked != Level::Halt;
                    assert_eq!(row.next != StormState::Halt, leaves);
                    assert_ne!(row.next, StormState::Normal, "never straight to NORMAL");
                    assert!(!leaves || row.next >= asked.state());
                    continue;
                }
                // Up: at once, to the level asked for. Down: one state, and only when cooled.
                if asked.state() > state {
                    assert_eq!(row.next, asked.state());
                } else if asked.state() == state {
                    assert_eq!(row.next, state);
                } else {
                    let down = state as u32 - u32::from(event == Event::Cooled);
                    assert_eq!(row.next as u32, down, "{state:?} {asked:?} {event:?}");
                }
            }
        }
    }
    assert_eq!(used.len(), ROWS.len(), "every row is reached: {used:?}");
    assert!(StormState::from_code(4).is_none());
    assert_eq!(
        STATES.map(StormState::name),
        ["NORMAL", "WARM", "STORM", "HALT"]
    );
}

/// Invariant 5, at every threshold and one beside it, from every level.
#[test]
fn a_level_is_taken_at_in_and_left_at_out() {
    let all = band([50, 40, 100, 80, 200, 150]);
    for previous in LEVELS {
        for value in 0..=250 {
            let level = all.level(previous, value);
            let floor = if value >= 200 {
                Level::Halt
            } else if value >= 100 {
                Level::Storm
            } else if value >= 50 {
                Level::Warm
            } else {
                Level::Clear
            };
            let kept = if value > 150 {
                Level::Halt
            } else if value > 80 {
                Level::Storm
            } else if value > 40 {
                Level::Warm
            } else {
                Level::Clear
            };
            assert_eq!(level, floor.max(kept.min(previous)), "{previous:?} {value}");
        }
    }
    for previous in LEVELS {
        assert_eq!(Band::NEVER.level(previous, i64::MAX), Level::Clear);
    }
    assert_eq!(all.limit(StormState::Storm), 100);
    assert_eq!(Band::NEVER.limit(StormState::Halt), 0);
}

#[test]
fn every_input_has_a_code_of_its_own() {
    for (place, input) in Input::ALL.into_iter().enumerate() {
        assert_eq!(input as usize, place);
        assert_eq!(Input::from_code(input.code()), Some(input));
    }
    assert_eq!(Input::from_code(ReasonCode::KillSwitchOn), None);
}

/// Feeds one value a second until the guard changes; gives the seconds it took.
fn seconds_to_change(guard: &mut StormGuard, now: &mut i64, value: i64) -> (i64, Change) {
    for second in 1..=1_000 {
        *now += SECOND;
        guard.observe(Input::FeedGap, value);
        if let Some(change) = guard.step(*now) {
            return (second, change);
        }
    }
    unreachable!("no change in 1,000 s")
}

#[test]
fn it_calms_one_state_at_a_time_after_its_cool_down() {
    let (mut guard, mut now) = (StormGuard::new(config()), 0);
    let (seconds, change) = seconds_to_change(&mut guard, &mut now, 120);
    assert_eq!(
        (seconds, change.from, change.to),
        (1, StormState::Normal, StormState::Storm)
    );
    assert_eq!(
        (change.cause, change.value, change.limit, change.label),
        (Input::FeedGap, 120, 100, "normal_storms")
    );
    let (seconds, change) = seconds_to_change(&mut guard, &mut now, 0);
    assert_eq!(
        (seconds, change.to, change.label),
        (30, StormState::Warm, "storm_cools")
    );
    let (seconds, change) = seconds_to_change(&mut guard, &mut now, 0);
    assert_eq!(
        (seconds, change.to, change.label),
        (30, StormState::Normal, "warm_cools")
    );
    assert_eq!(guard.entered(), [1, 1, 1, 0]);
}

#[test]
fn a_cause_in_between_starts_the_cool_down_over() {
    let (mut guard, mut now) = (StormGuard::new(config()), 0);
    seconds_to_change(&mut guard, &mut now, 120);
    for _ in 0..29 {
        now += SECOND;
        guard.observe(Input::FeedGap, 0);
        assert_eq!(guard.step(now), None);
    }
    now += SECOND;
    guard.observe(Input::FeedGap, 100);
    assert_eq!(guard.step(now), None);
    let (seconds, _) = seconds_to_change(&mut guard, &mut now, 0);
    assert_eq!(seconds, 30);
}

/// A burst of records is one calm look: a thousand of them in a second are not five.
#[test]
fn calm_looks_are_counted_once_a_second() {
    let mut slow = config();
    slow.cool_down_storm_ns = 0;
    let (mut guard, mut now) = (StormGuard::new(slow), 0);
    seconds_to_change(&mut guard, &mut now, 120);
    guard.observe(Input::FeedGap, 0);
    for _ in 0..1_000 {
        now += 1_000;
        assert_eq!(guard.step(now), None);
    }
    let (seconds, _) = seconds_to_change(&mut guard, &mut now, 0);
    assert_eq!(seconds, 4, "the burst was the first of five");
}

#[test]
fn a_storm_that_comes_back_within_its_hold_is_kept_for_the_hold() {
    let (mut guard, mut now) = (StormGuard::new(config()), 0);
    seconds_to_change(&mut guard, &mut now, 120);
    seconds_to_change(&mut guard, &mut now, 0);
    let left = now;
    seconds_to_change(&mut guard, &mut now, 120);
    assert_eq!(guard.state(), StormState::Storm);
    let (seconds, _) = seconds_to_change(&mut guard, &mut now, 0);
    assert_eq!(seconds, 120);
    assert!(now - left >= 120 * SECOND);
}

#[test]
fn a_halt_is_left_by_a_resume_only_and_not_while_its_cause_is_there() {
    let (mut guard, mut now) = (StormGuard::new(config()), 0);
    guard.observe(Input::Drift, 200);
    assert_eq!(guard.step(now).unwrap().to, StormState::Halt);
    guard.observe(Input::Drift, 0);
    for _ in 0..10_000 {
        now += SECOND;
        assert_eq!(guard.step(now), None);
    }
    guard.observe(Input::Drift, 200);
    assert_eq!(guard.resume(now), Err(Input::Drift));
    guard.observe(Input::Drift, 151);
    assert_eq!(guard.resume(now), Err(Input::Drift), "left at 150 only");
    guard.observe(Input::Drift, 100);
    assert_eq!(guard.resume(now).unwrap().unwrap().to, StormState::Storm);
    guard.observe(Input::LoopLag, 300);
    guard.step(now);
    guard.observe(Input::LoopLag, 0);
    guard.observe(Input::Drift, 0);
    assert_eq!(guard.resume(now).unwrap().unwrap().to, StormState::Warm);
    assert_eq!(guard.resume(now), Ok(None), "nothing to resume");
}

/// One step of bad weather.
#[derive(Debug, Clone)]
enum Weather {
    Observe(usize, i64),
    Wait(i64),
    Resume,
}

fn weather() -> impl Strategy<Value = Vec<Weather>> {
    let value = prop_oneof![4 => Just(0_i64), 3 => 30_i64..120, 1 => 120_i64..260];
    let step = prop_oneof![
        4 => (0..INPUT_COUNT, value).prop_map(|(input, value)| Weather::Observe(input, value)),
        4 => (0_i64..40_000).prop_map(|ms| Weather::Wait(ms * 1_000_000)),
        2 => (0_usize..3).prop_map(|input| Weather::Observe(input, 0)),
        1 => Just(Weather::Resume),
    ];
    prop::collection::vec(step, 1..200)
}

/// Cases of the property tests: `HFT_FUZZ_CASES`, or few.
fn cases() -> u32 {
    std::env::var("HFT_FUZZ_CASES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(256)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    /// Invariants 2 to 4 over any weather.
    #[test]
    fn any_weather_keeps_the_rules(steps in weather()) {
        let settings = config();
        let mut guard = StormGuard::new(settings);
        let mut now = 0_i64;
        let mut levels = [Level::Clear; INPUT_COUNT];
        let mut last_cause = 0;
        let mut left: [Option<i64>; 4] = [None; 4];
        let mut calm_since = 0;
        for step in steps {
            let before = guard.state();
            let change = match step {
                Weather::Wait(ns) => {
                    now += ns;
                    guard.step(now)
                }
                Weather::Observe(input, value) => {
                    levels[input] = settings.band(Input::ALL[input]).level(levels[input], value);
                    guard.observe(Input::ALL[input], value);
                    now += 1;
                    guard.step(now)
                }
                Weather::Resume => guard.resume(now).unwrap_or(None),
            };
            let asked = levels.iter().copied().max().unwrap();
            prop_assert_eq!(guard.asked(), asked);
            let after = guard.state();
            prop_assert_eq!(change.map(|change| (change.from, change.to)), (before != after).then_some((before, after)));
            prop_assert!(after >= asked.state(), "at least what is asked for, at once");
            if after < before {
                if before == StormState::Halt {
                    prop_assert!(matches!(step, Weather::Resume));
                    prop_assert_ne!(after, StormState::Normal);
                } else {
                    prop_assert_eq!(after as u32 + 1, before as u32, "one state at a time");
                    prop_assert!(now - last_cause >= 30 * SECOND, "cooled down");
                    prop_assert!(now - calm_since >= 4 * SECOND, "five calm looks");
                    let hold = if before == StormState::Storm { 120 } else { 300 };
                    let previous = left[before as usize].replace(now);
                    prop_assert!(previous.is_none_or(|at| now - at >= hold * SECOND), "left twice within a hold");
                }
            }
            if asked.state() >= after || before != after {
                last_cause = now;
                calm_since = now;
            }
        }
    }
}
