use proptest::prelude::*;

use super::*;
use crate::record::SCALE;

fn good() -> Facts {
    Facts {
        side: 1,
        price: 101 * SCALE,
        qty: SCALE,
        is_reducing: false,
        signal: 1.0,
        halted_by: None,
        storm_fault: None,
        permit_fault: None,
        is_reduce_only: false,
        phase: Some(Phase::Open),
        is_duplicate: false,
        has_reference: true,
        book_fault: None,
        quote_age_ns: 0,
        quote_age_ns_max: 1_000,
        mid: Some(100 * SCALE),
        tick_size: SCALE,
        limit_up: Some(110 * SCALE),
        limit_down: Some(90 * SCALE),
        price_collar_bps: 100,
        order_qty_max: SCALE,
        lot_size: SCALE,
        position_qty: SCALE,
        open_buy_qty: SCALE,
        open_sell_qty: 0,
        position_qty_max: 3 * SCALE,
        gross_notional: Ok(1_000),
        gross_notional_max: 1_000,
        alpha_order_count: 9,
        alpha_order_rate_max: 10,
        account_order_count: 119,
        account_order_rate_max: 180,
        cancel_reserve: 60,
        repeated_order_count: 2,
        repeated_order_max: 3,
        own_opposite_price: None,
        net_pnl: -99,
        loss_latch: None,
        daily_loss_max: 100,
        drawdown: 99,
        drawdown_max: 100,
        reject_count: REJECT_COUNT_MAX,
        has_capacity: true,
    }
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
        |f| f.price = 102 * SCALE,
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
        |f| f.qty = SCALE + 1,
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
        |f| f.reject_count = REJECT_COUNT_MAX + 1,
        ReasonCode::RejectRateAboveLimit,
    ),
    (
        "capacity",
        |f| f.has_capacity = false,
        ReasonCode::CapacityReached,
    ),
];

#[test]
fn an_order_at_every_limit_passes_and_one_step_beyond_is_refused_with_its_code() {
    assert_eq!(evaluate(&good()), None);
    for (index, (name, damage, code)) in CASES.iter().enumerate() {
        let mut facts = good();
        damage(&mut facts);
        assert_eq!(
            evaluate(&facts).map(|refusal| refusal.code),
            Some(*code),
            "case {index} {name}"
        );
    }
    for check in CHECKS {
        assert!(
            CASES.iter().any(|case| case.0 == check.name),
            "{} has no case",
            check.name
        );
    }
}

#[test]
fn the_first_check_in_the_table_is_reported() {
    let rank = |name: &str| CHECKS.iter().position(|check| check.name == name);
    for (first, damage_first, code) in CASES {
        for (second, damage_second, _) in CASES {
            // An order of less than a lot also stays within the position limit.
            let undoes = (*first, *second) == ("position", "weight");
            if rank(first) < rank(second) && !undoes {
                let mut facts = good();
                damage_second(&mut facts);
                damage_first(&mut facts);
                assert_eq!(
                    evaluate(&facts).map(|refusal| refusal.code),
                    Some(*code),
                    "{first} before {second}"
                );
            }
        }
    }
}

#[test]
fn a_reducing_order_passes_what_is_for_opening_only() {
    for (name, damage, code) in CASES {
        let check = CHECKS.iter().find(|check| check.name == *name);
        let mut facts = Facts {
            is_reducing: true,
            ..good()
        };
        damage(&mut facts);
        let closes_now = *name == "session_phase" && facts.phase.is_some();
        let uses_reserve = *name == "account_order_rate";
        let passes = check.is_some_and(|check| check.is_for_opening) || closes_now || uses_reserve;
        let expected = if passes { None } else { Some(*code) };
        assert_eq!(
            evaluate(&facts).map(|refusal| refusal.code),
            expected,
            "{name}"
        );
    }
    let mut facts = Facts {
        is_reducing: true,
        account_order_count: 180,
        ..good()
    };
    assert_eq!(
        evaluate(&facts).map(|refusal| refusal.code),
        Some(ReasonCode::OrderRateAboveLimit)
    );
    facts.account_order_count = 179;
    assert_eq!(evaluate(&facts), None);
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

proptest! {
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
        let _answer = evaluate(&facts);
        let reducing = Facts { is_reducing: true, side: -1, ..facts };
        let _answer = evaluate(&reducing);
    }
}
