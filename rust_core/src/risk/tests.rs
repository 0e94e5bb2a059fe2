use proptest::prelude::*;

use super::*;
use crate::engine::{Eligibility, Phase};
use crate::record::SCALE;

fn good() -> Facts {
    Facts::at_every_limit()
}

type Damage = fn(&mut Facts);

/// One step beyond each limit, one missing input, one overflow: the code that must come out.
const CASES: &[(&str, Damage, ReasonCode)] = &[
    (
        "kill_switch",
        |f| f.halted_by = Some(ReasonCode::OverFill),
        ReasonCode::KillSwitchOn,
    ),
    (
        "storm_guard",
        |f| f.storm_fault = Some(ReasonCode::StormFeedGap),
        ReasonCode::StormGuardOn,
    ),
    (
        "permit",
        |f| f.permit_fault = Some(ReasonCode::ConfigExpired),
        ReasonCode::ConfigExpired,
    ),
    (
        "permit",
        |f| f.permit_fault = Some(ReasonCode::ConfigWithdrawn),
        ReasonCode::ConfigWithdrawn,
    ),
    (
        "reduce_only",
        |f| f.is_reduce_only = true,
        ReasonCode::ReduceOnlyOn,
    ),
    (
        "session_phase",
        |f| f.phase = None,
        ReasonCode::SessionNotOpen,
    ),
    (
        "session_phase",
        |f| f.phase = Some(Phase::CloseOnly),
        ReasonCode::SessionNotOpen,
    ),
    (
        "session_phase",
        |f| f.phase = Some(Phase::ForceFlat),
        ReasonCode::SessionNotOpen,
    ),
    (
        "duplicate_intent",
        |f| f.is_duplicate = true,
        ReasonCode::DuplicateIntent,
    ),
    (
        "signal",
        |f| f.signal = f64::NAN,
        ReasonCode::SignalNotFinite,
    ),
    (
        "signal",
        |f| f.signal = f64::INFINITY,
        ReasonCode::SignalNotFinite,
    ),
    (
        "reference",
        |f| f.has_reference = false,
        ReasonCode::ReferenceMissing,
    ),
    (
        "reference",
        |f| f.limit_up = None,
        ReasonCode::ReferenceMissing,
    ),
    (
        "reference",
        |f| f.limit_down = None,
        ReasonCode::ReferenceMissing,
    ),
    (
        "book",
        |f| f.book_fault = Some(ReasonCode::BookStale),
        ReasonCode::BookStale,
    ),
    (
        "book",
        |f| f.book_fault = Some(ReasonCode::BookCrossed),
        ReasonCode::BookCrossed,
    ),
    ("tick_grid", |f| f.price += 1, ReasonCode::OrderPriceOffTick),
    ("tick_grid", |f| f.price = 0, ReasonCode::OrderPriceOffTick),
    (
        "tick_grid",
        |f| f.tick_size = 0,
        ReasonCode::OrderPriceOffTick,
    ),
    (
        "daily_limit",
        |f| f.price = 111 * SCALE,
        ReasonCode::PriceOutsideDailyLimit,
    ),
    (
        "daily_limit",
        |f| f.price = 89 * SCALE,
        ReasonCode::PriceOutsideDailyLimit,
    ),
    (
        "price_collar",
        |f| f.mid = Some(99 * SCALE),
        ReasonCode::PriceOutsideCollar,
    ),
    (
        "price_collar",
        |f| f.mid = None,
        ReasonCode::ReferenceMissing,
    ),
    (
        "price_collar",
        |f| f.mid = Some(0),
        ReasonCode::ReferenceMissing,
    ),
    (
        "order_qty",
        |f| f.order_qty_max = SCALE - 1,
        ReasonCode::OrderQtyAboveLimit,
    ),
    (
        "position",
        |f| f.open_buy_qty = SCALE + 1,
        ReasonCode::PositionAboveLimit,
    ),
    (
        "position",
        |f| f.open_buy_qty = i64::MAX,
        ReasonCode::PositionAboveLimit,
    ),
    (
        "gross_notional",
        |f| f.gross_notional = Ok(1_001),
        ReasonCode::NotionalAboveLimit,
    ),
    (
        "gross_notional",
        |f| f.gross_notional = Err(ReasonCode::ArithmeticOverflow),
        ReasonCode::ArithmeticOverflow,
    ),
    (
        "gross_notional",
        |f| f.gross_notional = Err(ReasonCode::ReferenceMissing),
        ReasonCode::ReferenceMissing,
    ),
    (
        "alpha_order_rate",
        |f| f.alpha_order_count = 10,
        ReasonCode::OrderRateAboveLimit,
    ),
    (
        "account_order_rate",
        |f| f.account_order_count = 120,
        ReasonCode::OrderRateAboveLimit,
    ),
    (
        "repeated_order",
        |f| f.repeated_order_count = 3,
        ReasonCode::RepeatedOrder,
    ),
    (
        "self_trade",
        |f| f.own_opposite_price = Some(101 * SCALE),
        ReasonCode::SelfTrade,
    ),
    (
        "daily_loss",
        |f| f.net_pnl = -100,
        ReasonCode::DailyLossReached,
    ),
    (
        "daily_loss",
        |f| f.loss_latch = Some(ReasonCode::DailyLossReached),
        ReasonCode::DailyLossReached,
    ),
    (
        "drawdown",
        |f| f.drawdown = 100,
        ReasonCode::DrawdownReached,
    ),
    (
        "drawdown",
        |f| f.loss_latch = Some(ReasonCode::DrawdownReached),
        ReasonCode::DrawdownReached,
    ),
    ("weight", |f| f.qty = 0, ReasonCode::WeightBelowOneLot),
    (
        "weight",
        |f| f.qty = SCALE / 2,
        ReasonCode::WeightBelowOneLot,
    ),
    (
        "reject_rate",
        |f| f.reject_count = 5 + 1,
        ReasonCode::RejectRateAboveLimit,
    ),
    (
        "capacity",
        |f| f.has_capacity = false,
        ReasonCode::CapacityReached,
    ),
    (
        "reconciliation",
        |f| f.unexplained_qty = Some(-SCALE),
        ReasonCode::PositionUnreconciled,
    ),
    (
        "session_phase",
        |f| f.phase = Some(Phase::PreOpen),
        ReasonCode::SessionNotOpen,
    ),
    (
        "session_phase",
        |f| f.phase = Some(Phase::NoCancel),
        ReasonCode::SessionNotOpen,
    ),
    (
        "instrument_closed",
        |f| f.eligibility = Eligibility::Closed,
        ReasonCode::InstrumentClosed,
    ),
    (
        "eligibility",
        |f| f.eligibility = Eligibility::NoDayTrade,
        ReasonCode::DayTradeNotAllowed,
    ),
    (
        "eligibility",
        |f| f.eligibility = Eligibility::Disposition,
        ReasonCode::DispositionStock,
    ),
    (
        "clock_skew",
        |f| f.clock_skew_ns = Some(1_001),
        ReasonCode::ClockSkewAboveLimit,
    ),
    (
        "clock_skew",
        |f| f.clock_skew_ns = Some(-1_001),
        ReasonCode::ClockSkewAboveLimit,
    ),
    (
        "clock_skew",
        |f| f.clock_skew_ns = Some(i64::MIN),
        ReasonCode::ClockSkewAboveLimit,
    ),
    (
        "clock_skew",
        |f| f.clock_skew_ns = None,
        ReasonCode::ReferenceMissing,
    ),
    (
        "price_band",
        |f| f.band_base = Some(99 * SCALE),
        ReasonCode::PriceOutsideBand,
    ),
    (
        "price_band",
        |f| f.band_base = None,
        ReasonCode::ReferenceMissing,
    ),
    (
        "price_band",
        |f| f.band_base = Some(0),
        ReasonCode::ReferenceMissing,
    ),
    (
        "exchange_qty",
        |f| f.exchange_qty_max = Some(SCALE - 1),
        ReasonCode::OrderQtyAboveExchangeCap,
    ),
    (
        "account_position",
        |f| f.account_position_qty = 6,
        ReasonCode::AccountPositionAboveLimit,
    ),
    (
        "account_position",
        |f| f.account_position_qty = i128::MAX,
        ReasonCode::AccountPositionAboveLimit,
    ),
    (
        "net_notional",
        |f| f.net_notional = Ok(501),
        ReasonCode::NetNotionalAboveLimit,
    ),
    (
        "net_notional",
        |f| f.net_notional = Err(ReasonCode::ReferenceMissing),
        ReasonCode::ReferenceMissing,
    ),
    (
        "net_notional",
        |f| f.net_notional = Err(ReasonCode::ArithmeticOverflow),
        ReasonCode::ArithmeticOverflow,
    ),
    (
        "margin",
        |f| f.free_margin = Some(Ok(699)),
        ReasonCode::MarginTooLow,
    ),
    (
        "margin",
        |f| f.free_margin = Some(Err(ReasonCode::MarginUnknown)),
        ReasonCode::MarginUnknown,
    ),
    (
        "margin",
        |f| f.free_margin = Some(Err(ReasonCode::ArithmeticOverflow)),
        ReasonCode::ArithmeticOverflow,
    ),
    (
        "repeated_execution",
        |f| f.fill_pause_ns = 1,
        ReasonCode::RepeatedExecution,
    ),
    (
        "order_to_trade",
        |f| f.request_count = 1_001,
        ReasonCode::OrderToTradeAboveLimit,
    ),
    (
        "order_to_trade",
        |f| f.request_count = u64::MAX,
        ReasonCode::OrderToTradeAboveLimit,
    ),
    (
        "loss_speed",
        |f| f.loss_speed = 100,
        ReasonCode::LossSpeedReached,
    ),
    (
        "loss_speed",
        |f| f.loss_latch = Some(ReasonCode::LossSpeedReached),
        ReasonCode::LossSpeedReached,
    ),
    (
        "account_daily_loss",
        |f| f.account_net_pnl = -1_000,
        ReasonCode::AccountDailyLossReached,
    ),
    (
        "account_daily_loss",
        |f| f.account_net_pnl = i128::MIN,
        ReasonCode::AccountDailyLossReached,
    ),
    (
        "account_daily_loss",
        |f| f.account_loss_latch = Some(ReasonCode::AccountDailyLossReached),
        ReasonCode::AccountDailyLossReached,
    ),
    (
        "account_drawdown",
        |f| f.account_drawdown = 1_000,
        ReasonCode::AccountDrawdownReached,
    ),
    (
        "account_drawdown",
        |f| f.account_loss_latch = Some(ReasonCode::AccountDrawdownReached),
        ReasonCode::AccountDrawdownReached,
    ),
    (
        "account_loss_speed",
        |f| f.account_loss_speed = 1_000,
        ReasonCode::AccountLossSpeedReached,
    ),
    (
        "account_loss_speed",
        |f| f.account_loss_latch = Some(ReasonCode::AccountLossSpeedReached),
        ReasonCode::AccountLossSpeedReached,
    ),
    (
        "unknown_rate",
        |f| f.unknown_count = 3,
        ReasonCode::UnknownRateAboveLimit,
    ),
];

/// The same for what only exits are held to.
const EXIT_CASES: &[(&str, Damage, ReasonCode)] = &[
    (
        "exit_market",
        |f| f.book_fault = Some(ReasonCode::SimulatedMatch),
        ReasonCode::SimulatedMatch,
    ),
    (
        "exit_market",
        |f| f.opposite_best = None,
        ReasonCode::ReferenceMissing,
    ),
    (
        "exit_market",
        |f| f.opposite_best = Some(0),
        ReasonCode::ReferenceMissing,
    ),
    (
        "exit_collar",
        |f| f.opposite_best = Some(99 * SCALE),
        ReasonCode::PriceOutsideCollar,
    ),
    (
        "exit_way",
        |f| f.exit_blocked_by = Some(100 * SCALE),
        ReasonCode::ExitWaitsForCancel,
    ),
];

fn code(facts: &Facts) -> Option<ReasonCode> {
    evaluate(facts).map(|refusal| refusal.code)
}

fn exit() -> Facts {
    Facts {
        is_reducing: true,
        ..good()
    }
}

#[test]
fn an_order_at_every_limit_passes_and_one_step_beyond_is_refused_with_its_code() {
    assert_eq!(evaluate(&good()), None);
    for (index, (name, damage, expected)) in CASES.iter().enumerate() {
        let mut facts = good();
        damage(&mut facts);
        assert_eq!(code(&facts), Some(*expected), "case {index} {name}");
    }
    assert_eq!(evaluate(&exit()), None);
    for (index, (name, damage, expected)) in EXIT_CASES.iter().enumerate() {
        let mut facts = exit();
        damage(&mut facts);
        assert_eq!(code(&facts), Some(*expected), "exit case {index} {name}");
    }
}

/// How near a limit was is told in the numbers of the refusal, for every check that has a limit.
#[test]
fn the_numbers_of_a_check_are_those_that_its_refusal_names() {
    let mut told = std::collections::BTreeSet::new();
    for (facts, cases) in [(good(), CASES), (exit(), EXIT_CASES)] {
        for (name, damage, expected) in cases {
            let mut facts = facts;
            damage(&mut facts);
            let said = evaluate(&facts).map(|refusal| (refusal.observed, refusal.limit));
            if let Some(numbers) = numbers(name, &facts) {
                assert_eq!(Some(numbers), said, "{name} {expected:?}");
                told.insert(*name);
            }
        }
    }
    for check in CHECKS.iter().filter(|check| check.applies.holds(false)) {
        if let Some((value, limit)) = numbers(check.name, &good()) {
            let is_least = matches!(check.name, "margin" | "weight");
            let (value, limit) = if check.name == "clock_skew" {
                (value.abs(), limit)
            } else {
                (value, limit)
            };
            assert!(is_least || value <= limit, "{}", check.name);
            assert!(!is_least || value >= limit, "{}", check.name);
        }
    }
    assert!(told.len() >= 20, "{told:?}");
}

/// A check without a case, or a code of the table that no case gives, is red.
#[test]
fn every_check_has_a_case_for_each_of_its_codes() {
    let cases = || CASES.iter().chain(EXIT_CASES);
    for check in CHECKS {
        assert!(
            cases().any(|case| case.0 == check.name),
            "{} has no case",
            check.name
        );
        for (name, _, given) in cases().filter(|case| case.0 == check.name) {
            assert!(check.codes.contains(given), "{name} gave {given:?}");
        }
        // The book hands through what the feed found; `book` has its own cases.
        for given in check.codes.iter().filter(|_| check.name != "book") {
            assert!(
                cases().any(|case| case.0 == check.name && case.2 == *given),
                "{} has no case for {given:?}",
                check.name
            );
        }
    }
    for (_, fault) in FAULTS {
        assert!(
            CHECKS
                .iter()
                .any(|check| check.name == "book" && check.codes.contains(&fault))
        );
    }
}

#[test]
fn a_limit_that_is_null_is_not_looked_at() {
    let unlimited = Facts {
        clock_skew_ns_max: None,
        clock_skew_ns: None,
        banding_bps: None,
        band_base: None,
        exchange_qty_max: None,
        free_margin: None,
        limit_up: None,
        limit_down: None,
        ..good()
    };
    assert_eq!(evaluate(&unlimited), None);
}

#[test]
fn the_first_check_in_the_table_is_reported() {
    let rank = |name: &str| CHECKS.iter().position(|check| check.name == name);
    for (first, damage_first, expected) in CASES {
        for (second, damage_second, _) in CASES {
            // An order of less than a lot also stays within position and exchange limits.
            let undoes =
                *second == "weight" && matches!(*first, "position" | "exchange_qty" | "order_qty");
            if rank(first) < rank(second) && !undoes {
                let mut facts = good();
                damage_second(&mut facts);
                damage_first(&mut facts);
                assert_eq!(code(&facts), Some(*expected), "{first} before {second}");
            }
        }
    }
}

/// The checks that can refuse an exit, and no others: each is justified in `docs/risk.md`.
const EXIT_CHECKS: [&str; 14] = [
    "session_phase",
    "duplicate_intent",
    "reference",
    "instrument_closed",
    "exit_market",
    "tick_grid",
    "daily_limit",
    "price_band",
    "exit_collar",
    "exchange_qty",
    "account_order_rate",
    "exit_way",
    "weight",
    "capacity",
];

#[test]
fn an_exit_is_refused_by_the_stated_checks_alone() {
    let held: Vec<&str> = CHECKS
        .iter()
        .filter(|check| check.applies.holds(true))
        .map(|check| check.name)
        .collect();
    assert_eq!(held, EXIT_CHECKS);
    for (name, damage, expected) in CASES {
        let mut facts = exit();
        damage(&mut facts);
        let closes_now = *name == "session_phase"
            && matches!(facts.phase, Some(Phase::CloseOnly | Phase::ForceFlat));
        let uses_reserve = *name == "account_order_rate";
        // A trial match is no price for an exit either; another fault of the book is.
        let is_held = EXIT_CHECKS.contains(name) && !closes_now && !uses_reserve;
        let is_expected = if is_held { Some(*expected) } else { None };
        assert_eq!(code(&facts), is_expected, "{name}");
    }
    let mut facts = Facts {
        account_order_count: 180,
        ..exit()
    };
    assert_eq!(code(&facts), Some(ReasonCode::OrderRateAboveLimit));
    facts.account_order_count = 179;
    assert_eq!(evaluate(&facts), None);
}

/// The written-out `evaluate` is the table.
fn by_table(facts: &Facts) -> Option<Refusal> {
    CHECKS
        .iter()
        .filter(|check| check.applies.holds(facts.is_reducing))
        .find_map(|check| (check.evaluate)(facts))
}

#[test]
fn a_window_counts_what_is_younger_than_its_length() {
    let mut window = TimeWindow::new(10);
    for time in [0, 1, 5] {
        window.push(time);
    }
    assert_eq!(window.count(9), 3);
    assert_eq!(window.count(10), 2);
    assert_eq!(window.count(14), 1);
    assert_eq!(window.count(15), 0);
    for time in 0..5_000 {
        window.push(time / 1_000);
    }
    assert_eq!(window.count(5), 1_024);
}

#[test]
fn equal_orders_are_counted_within_a_second() {
    let mut window = RepeatWindow::default();
    let key = OrderKey {
        market_index: 0,
        side: 1,
        price: 5,
        qty: 1,
    };
    window.push(key, 0);
    window.push(OrderKey { price: 6, ..key }, 1);
    window.push(key, 2);
    assert_eq!(window.count(&key, 3), 2);
    assert_eq!(window.count(&key, REPEAT_WINDOW_NS), 1);
    assert_eq!(window.count(&key, REPEAT_WINDOW_NS + 2), 0);
}

#[test]
fn a_fall_counts_from_the_best_result_of_the_last_minute() {
    let second = 1_000_000_000;
    let mut window = LossWindow::default();
    assert_eq!(window.fall(100, 0), 0);
    assert_eq!(window.fall(40, second), 60);
    assert_eq!(window.fall(70, 60 * second + 999_999_999), 30);
    assert_eq!(
        window.fall(70, 62 * second),
        0,
        "the best of 100 is over a minute old"
    );
    assert_eq!(
        window.fall(60, 200 * second),
        10,
        "the last result held until now"
    );
}

proptest! {
    /// A fall is never smaller than the true one of 60 s, nor larger than the true one of 61 s.
    #[test]
    fn a_loss_window_agrees_with_a_scan(steps in prop::collection::vec((0_i64..20_000_000_000, -50_i128..50), 1..200)) {
        let mut window = LossWindow::default();
        let mut all: Vec<(i64, i128)> = Vec::new();
        let mut now = -30_000_000_000;
        for (wait, net) in steps {
            now += wait;
            all.push((now, net));
            let fall = window.fall(net, now);
            // A result holds until the next one, the first one is 0.
            let held = std::iter::once(0).chain(all.iter().map(|row| row.1));
            let scan = |length: i64| all.iter().zip(held.clone()).filter(|(row, _)| now - row.0 <= length)
                .map(|(_, held)| held).max().unwrap_or(0).max(net) - net;
            prop_assert!(scan(60_000_000_000) <= fall && fall <= scan(61_000_000_000));
        }
    }

    /// Invariant 3: approved opening orders, filled in any order or not at all, keep the limit.
    #[test]
    fn the_position_keeps_its_limit_whatever_fills(orders in prop::collection::vec((prop::bool::ANY, 1_i64..4, prop::bool::ANY), 1..40)) {
        let limit = 5 * SCALE;
        let (mut position, mut open_buy, mut open_sell) = (0_i64, 0_i64, 0_i64);
        for (is_buy, lots, is_filled_now) in orders {
            let side = if is_buy { 1 } else { -1 };
            let qty = lots * SCALE;
            let facts = Facts { side, qty, position_qty: position, open_buy_qty: open_buy, open_sell_qty: open_sell,
                position_qty_max: limit, order_qty_max: limit, ..good() };
            if evaluate(&facts).is_some() {
                continue;
            }
            if is_filled_now {
                position += side * qty;
            } else if is_buy {
                open_buy += qty;
            } else {
                open_sell += qty;
            }
            prop_assert!(position + open_buy <= limit && position - open_sell >= -limit);
        }
    }

    /// Invariants 1 and 2: absurd numbers refuse, never panic.
    #[test]
    fn absurd_numbers_refuse_or_pass_without_panic(price in any::<i64>(), qty in any::<i64>(), position in any::<i64>(), open in 0..i64::MAX, mid in any::<i64>()) {
        let facts = Facts { price, qty, position_qty: position, open_buy_qty: open, mid: Some(mid), ..good() };
        prop_assert_eq!(evaluate(&facts), by_table(&facts));
        let reducing = Facts { is_reducing: true, side: -1, opposite_best: Some(mid), band_base: Some(mid), ..facts };
        prop_assert_eq!(evaluate(&reducing), by_table(&reducing));
    }
}

proptest! {
    /// Counts of equal orders are those of a list that is searched from end to end, whatever
    /// collides, leaves or overflows.
    #[test]
    fn equal_orders_are_counted_as_a_list_would(
        steps in prop::collection::vec((0..400_i64, 0..6_i64, 0..3_i64, prop::bool::ANY), 1..4_000),
        gap_ns in prop_oneof![Just(1_000_i64), Just(2_000_000), Just(60_000_000)],
    ) {
        let mut window = RepeatWindow::default();
        let mut list: Vec<(i64, OrderKey)> = Vec::new();
        let mut now_ns = 0;
        for (wait, price, qty, is_buy) in steps {
            now_ns += wait % 3 * gap_ns;
            let key = OrderKey {
                market_index: usize::from(wait % 7 == 0),
                side: if is_buy { 1 } else { -1 },
                price: price * 100_000_000,
                qty: (qty + 1) * 100_000_000,
            };
            list.retain(|row| now_ns - row.0 < REPEAT_WINDOW_NS);
            let expected = list.iter().filter(|row| row.1 == key).count();
            prop_assert_eq!(window.count(&key, now_ns) as usize, expected);
            window.push(key, now_ns);
            list.push((now_ns, key));
            if list.len() > WINDOW_COUNT_MAX {
                list.remove(0);
            }
        }
    }
}
