#![allow(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use super::*;
use crate::gateway::OrderState;
use crate::record::{Record, SCALE};

const LIMITS: LossLimits = LossLimits {
    daily_loss_max: 1_000,
    drawdown_max: 500,
    loss_speed_max: 300,
};

/// Two alphas on the first instrument, one on the second; a lot is 1, a point is worth 2.
fn account() -> Account {
    Account::new(&[0, 0, 1], &[(2 * SCALE, SCALE), (VALUE_MAX, SCALE)])
}

fn order(number: u64, alpha_index: u32, side: i64, lots: i64) -> Order {
    Order {
        order_id: number,
        intent_id: number,
        alpha_index,
        market_index: usize::from(alpha_index == 2),
        side,
        price: 100 * SCALE,
        qty: lots * SCALE,
        filled_qty: 0,
        state: OrderState::Working,
        time_in_force: 1,
    }
}

fn answer(fields: u64, answer_time_ns: i64) -> AccountRecord {
    AccountRecord {
        answer_time_ns,
        fields,
        equity: 90 * SCALE,
        free_margin: 50 * SCALE,
        margin_per_lot: 10 * SCALE,
        ..AccountRecord::empty()
    }
}

fn position(qty_lots: i64, answer_time_ns: i64) -> AccountRecord {
    AccountRecord {
        net_position_qty: qty_lots * SCALE,
        ..answer(account_fields::POSITION, answer_time_ns)
    }
}

#[test]
fn nobody_gets_credit_for_another_alphas_opposite_position() {
    let mut account = account();
    account.on_fill(0, 5 * SCALE, 1);
    account.on_fill(1, -3 * SCALE, 2);
    assert_eq!(account.position_qty(0), i128::from(2 * SCALE));
    let worst = |account: &Account, alpha, side, lots: i64| {
        account.worst_with(alpha, side, lots * SCALE) / i128::from(SCALE)
    };
    assert_eq!(worst(&account, 0, 1, 2), 7, "not 4");
    assert_eq!(worst(&account, 1, 1, 2), 5, "its own short comes first");
    assert_eq!(worst(&account, 1, 1, 4), 6);
    assert_eq!(worst(&account, 0, -1, 6), 4, "beyond its own long");
    account.on_placed(&order(1, 0, -1, 5), 0);
    assert_eq!(
        worst(&account, 1, -1, 0),
        3,
        "an exit of 5 from 5 adds nothing"
    );
    account.on_placed(&order(2, 0, -1, 1), 0);
    assert_eq!(worst(&account, 1, -1, 0), 4);
    assert_eq!(account.open_count(0), 2);
    assert_eq!(account.open_count_on(0, -1), 2);
}

#[test]
fn gross_adds_what_net_takes_off_and_an_order_counts_at_its_worse_price() {
    let mut account = account();
    let value = |account: &mut Account, side, price: i64| {
        account.settle();
        let values = account.values_with(0, side, price * SCALE, SCALE);
        let (gross, net) = values.unwrap();
        (gross / i128::from(SCALE), net / i128::from(SCALE))
    };
    assert_eq!(value(&mut account, 1, 100), (200, 200));
    account.mark(0, 110 * SCALE);
    assert_eq!(value(&mut account, -1, 100), (220, 220), "at the mark");
    account.on_fill(0, 5 * SCALE, 1);
    account.on_fill(1, -3 * SCALE, 2);
    assert_eq!(value(&mut account, 1, 110), (8 * 220 + 220, 2 * 220 + 220));
    assert_eq!(
        value(&mut account, -1, 110),
        (8 * 220 + 220, -2 * 220 + 220)
    );
    account.on_placed(&order(1, 0, 1, 2), 0);
    assert_eq!(value(&mut account, 1, 110), (10 * 220 + 220, 4 * 220 + 220));
    account.mark(0, 100 * SCALE);
    assert_eq!(
        value(&mut account, 1, 110),
        (1_600 + 440 + 220, 400 + 440 + 220)
    );
    account.on_fill(2, SCALE, 3);
    account.settle();
    assert_eq!(
        account.values_with(0, 1, SCALE, SCALE),
        Err(ReasonCode::ReferenceMissing),
        "a position without a mark"
    );
    account.mark(1, VALUE_MAX);
    account.on_fill(2, VALUE_MAX, 4);
    account.settle();
    assert_eq!(
        account.values_with(0, 1, SCALE, SCALE),
        Err(ReasonCode::ArithmeticOverflow)
    );
    account.on_fill(2, 0, 5);
    account.settle();
    assert!(account.values_with(0, 1, SCALE, SCALE).is_ok());
}

#[test]
fn the_sums_follow_partial_fills_and_ends_of_orders() {
    let mut account = account();
    account.mark(0, 100 * SCALE);
    let open = order(1, 0, 1, 3);
    account.on_placed(&open, 0);
    let partly = Order {
        filled_qty: SCALE,
        ..open
    };
    account.on_order(&open, &partly);
    account.on_fill(0, SCALE, 1);
    account.assert_sums([SCALE, 0, 0].into_iter(), [partly].iter());
    let lost = Order {
        state: OrderState::Unknown,
        ..partly
    };
    account.on_order(&partly, &lost);
    assert_eq!(
        account.worst_with(0, 1, 0),
        i128::from(3 * SCALE),
        "unknown counts in full"
    );
    let done = Order {
        state: OrderState::Canceled,
        ..partly
    };
    account.on_order(&lost, &done);
    account.assert_sums([SCALE, 0, 0].into_iter(), [].iter());
    assert_eq!((account.open_count(0), account.open_count_on(0, 1)), (0, 0));
    account.on_order(
        &done,
        &Order {
            filled_qty: 3 * SCALE,
            state: OrderState::Filled,
            ..done
        },
    );
    account.assert_sums([SCALE, 0, 0].into_iter(), [].iter());
}

#[test]
#[should_panic(expected = "the account knows every alpha's position")]
fn a_position_that_nobody_told_the_account_stops_the_process() {
    account().assert_sums([SCALE, 0, 0].into_iter(), [].iter());
}

#[test]
fn margin_counts_from_the_answer_and_what_was_placed_since() {
    let mut account = account();
    let free = |account: &Account, lots: i64, now: i64| {
        account
            .free_margin_with(0, lots * SCALE, now, 60)
            .map(|money| money / i128::from(SCALE))
    };
    assert_eq!(
        free(&account, 1, 0),
        Err(ReasonCode::MarginUnknown),
        "no answer"
    );
    let both = account_fields::MARGIN | account_fields::MARGIN_PER_LOT;
    assert_eq!(
        account.on_answer(Some(0), &answer(both, 100), 110, [].iter()),
        Ok(())
    );
    assert_eq!(account.equity(), Some(90 * SCALE));
    assert_eq!(free(&account, 2, 110), Ok(30));
    assert_eq!(free(&account, 2, 160), Ok(30), "at the limit");
    assert_eq!(
        free(&account, 2, 161),
        Err(ReasonCode::MarginUnknown),
        "one beyond"
    );
    assert_eq!(
        free(&account, 2, 99),
        Err(ReasonCode::MarginUnknown),
        "an answer from the future"
    );
    assert_eq!(
        account.free_margin_with(1, SCALE, 110, 60),
        Err(ReasonCode::MarginUnknown),
        "no margin a lot for this instrument"
    );
    let margin = account.margin_of(0, 2 * SCALE).unwrap();
    account.on_placed(&order(1, 0, 1, 2), margin);
    assert_eq!(free(&account, 1, 110), Ok(20));
    let older = answer(account_fields::MARGIN, 50);
    assert_eq!(account.on_answer(None, &older, 110, [].iter()), Ok(()));
    assert_eq!(
        free(&account, 1, 110),
        Ok(20),
        "an older answer is not taken"
    );
    let newer = answer(account_fields::MARGIN, 105);
    let open = order(1, 0, 1, 2);
    assert_eq!(account.on_answer(None, &newer, 110, [open].iter()), Ok(()));
    assert_eq!(free(&account, 1, 110), Ok(20), "open orders count again");
    assert_eq!(
        account.on_answer(None, &answer(account_fields::MARGIN, 106), 110, [].iter()),
        Ok(())
    );
    assert_eq!(free(&account, 1, 110), Ok(40));
}

#[test]
fn an_answer_that_makes_no_sense_changes_nothing() {
    let mut account = account();
    let all = account_fields::MARGIN | account_fields::MARGIN_PER_LOT | account_fields::POSITION;
    let cases = [
        (Some(0), answer(0, 0), ReasonCode::SchemaMismatch),
        (Some(0), answer(8, 0), ReasonCode::SchemaMismatch),
        (Some(0), answer(all, 11), ReasonCode::ClockSkewAboveLimit),
        (None, answer(all, 0), ReasonCode::UnknownInstrument),
        (
            Some(0),
            AccountRecord {
                margin_per_lot: 0,
                ..answer(all, 0)
            },
            ReasonCode::ValueOutOfRange,
        ),
        (
            Some(0),
            AccountRecord {
                net_position_qty: i64::MIN,
                ..answer(all, 0)
            },
            ReasonCode::ValueOutOfRange,
        ),
    ];
    for (market, record, code) in cases {
        assert_eq!(account.on_answer(market, &record, 10, [].iter()), Err(code));
        assert_eq!(account.margin_age_ns(10), None);
        assert_eq!(account.unexplained_qty(), None);
    }
}

#[test]
fn a_difference_is_unreconciled_unless_something_in_flight_explains_it() {
    let mut account = account();
    let tell = |account: &mut Account, lots, now| {
        account.on_answer(Some(0), &position(lots, now), now, [].iter())
    };
    account.on_fill(0, 2 * SCALE, 10);
    assert_eq!(
        tell(&mut account, 0, 10),
        Err(ReasonCode::OutOfOrderRow),
        "older than the fill"
    );
    assert_eq!(tell(&mut account, 2, 11), Ok(()));
    account.on_placed(&order(1, 0, 1, 2), 0);
    assert_eq!(
        tell(&mut account, 4, 12),
        Ok(()),
        "a fill may be on its way"
    );
    assert_eq!(account.unexplained_qty(), None);
    assert_eq!(
        tell(&mut account, 1, 13),
        Err(ReasonCode::PositionUnreconciled)
    );
    assert_eq!(account.unexplained_qty(), Some(-SCALE));
    assert_eq!(
        account.position_qty(0),
        i128::from(SCALE),
        "the broker is believed"
    );
    assert_eq!(tell(&mut account, 2, 14), Ok(()), "it was gone");
    assert_eq!(account.unexplained_qty(), None);
    assert_eq!(
        tell(&mut account, 7, 15),
        Err(ReasonCode::PositionUnreconciled)
    );
    assert_eq!(
        account.adopt(0, 4 * SCALE),
        Err(ReasonCode::PositionUnreconciled)
    );
    assert_eq!(account.adopt(0, 5 * SCALE), Ok(()));
    assert_eq!(
        account.adopt(0, 0),
        Err(ReasonCode::PositionUnreconciled),
        "nothing is left"
    );
    assert_eq!(
        (account.unexplained_qty(), account.external_qty(0)),
        (None, i128::from(5 * SCALE))
    );
    assert_eq!(
        tell(&mut account, 7, 16),
        Ok(()),
        "sum of the alphas and the external part"
    );
    assert_eq!(account.worst_with(0, 1, 0), i128::from(9 * SCALE));
    assert_eq!(account.worst_with(0, -1, 0), 0);
}

#[test]
fn the_account_latches_each_of_its_loss_limits() {
    type Results = [(i128, i64)];
    let cases: [(&Results, Option<ReasonCode>); 6] = [
        (&[(-299, 0)], None),
        (&[(-300, 0)], Some(ReasonCode::AccountLossSpeedReached)),
        (&[(-299, 0), (-499, 70)], None),
        (
            &[(-299, 0), (-500, 70)],
            Some(ReasonCode::AccountDrawdownReached),
        ),
        (&[(900, 0), (700, 70), (401, 140)], None),
        (&[(-1_000, 0)], Some(ReasonCode::AccountDailyLossReached)),
    ];
    for (results, latch) in cases {
        let mut account = account();
        let mut before = 0;
        for (net, second) in results {
            assert_eq!(
                account.on_result(before, *net, second * 1_000_000_000, &LIMITS),
                Ok(())
            );
            before = *net;
        }
        assert_eq!(account.loss_latch(), latch, "{results:?}");
        // What was reached stays reached.
        assert_eq!(
            account.on_result(before, 10_000, 1_000_000_000_000, &LIMITS),
            Ok(())
        );
        assert_eq!(account.loss_latch(), latch);
    }
    let mut account = account();
    assert_eq!(
        account.on_result(i128::MIN, i128::MAX, 0, &LIMITS),
        Err(ReasonCode::ArithmeticOverflow)
    );
}

#[test]
fn the_first_waiting_exit_keeps_its_turn() {
    let mut account = account();
    let exit = WaitingExit {
        alpha_index: 0,
        side: -1,
        price: 5,
    };
    account.wait_exit(0, exit);
    account.wait_exit(
        0,
        WaitingExit {
            alpha_index: 1,
            ..exit
        },
    );
    assert_eq!(account.waiting_exit(0), Some(exit));
    account.clear_exit(0, 1);
    assert_eq!(account.waiting_exit(0), Some(exit));
    account.clear_exit(0, 0);
    assert_eq!(account.waiting_exit(0), None);
}
