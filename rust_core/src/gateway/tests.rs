#![allow(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use proptest::prelude::*;

use super::*;
use crate::record::Record;

fn new_order(side: i64, qty: i64) -> NewOrder {
    NewOrder {
        intent_id: 1,
        alpha_index: 0,
        market_index: 0,
        side,
        price: 100,
        qty,
        time_in_force: 1,
    }
}

fn event(
    kind: BrokerEventKind,
    order_id: u64,
    side: i64,
    qty: i64,
    broker_seq: u64,
) -> BrokerRecord {
    BrokerRecord {
        event_kind: kind as u32,
        order_id,
        side,
        price: 100,
        qty,
        broker_seq,
        ..BrokerRecord::empty()
    }
}

#[test]
fn order_ids_carry_the_alpha_and_a_counter() {
    let mut gateway = Gateway::new(3);
    assert_eq!(gateway.place(&new_order(1, 5)), Some(1));
    assert_eq!(
        gateway.place(&NewOrder {
            alpha_index: 2,
            ..new_order(1, 5)
        }),
        Some((2 << 48) + 2)
    );
    assert!(gateway.order(0).is_none());
}

#[test]
fn a_fill_counts_once_and_a_late_fill_still_counts() {
    let mut gateway = Gateway::new(1);
    let id = gateway.place(&new_order(1, 5)).unwrap();
    assert_eq!(
        gateway
            .on_broker(&event(BrokerEventKind::Fill, id, 1, 2, 7))
            .unwrap()
            .fill_qty,
        2
    );
    assert_eq!(
        gateway.on_broker(&event(BrokerEventKind::Fill, id, 1, 2, 7)),
        Err(ReasonCode::DuplicateFill)
    );
    assert_eq!(gateway.exposure(0).buy_qty, 3);
    assert!(
        gateway
            .on_broker(&event(BrokerEventKind::Canceled, id, 1, 0, 8))
            .is_ok()
    );
    assert_eq!(gateway.exposure(0).buy_qty, 0);
    let late = gateway
        .on_broker(&event(BrokerEventKind::Fill, id, 1, 1, 9))
        .unwrap();
    assert_eq!(
        (late.fill_qty, late.code),
        (1, Some(ReasonCode::OrderStateInvalid))
    );
    let over = gateway
        .on_broker(&event(BrokerEventKind::Fill, id, 1, 9, 10))
        .unwrap();
    assert_eq!((over.fill_qty, over.code), (9, Some(ReasonCode::OverFill)));
}

#[test]
fn an_orphan_event_is_unknown_and_a_contradiction_is_invalid() {
    let mut gateway = Gateway::new(1);
    assert_eq!(
        gateway.on_broker(&event(BrokerEventKind::Fill, 9, 1, 2, 7)),
        Err(ReasonCode::OrderUnknown)
    );
    let id = gateway.place(&new_order(1, 5)).unwrap();
    let wrong_side = event(BrokerEventKind::Fill, id, -1, 2, 7);
    assert_eq!(
        gateway.on_broker(&wrong_side),
        Err(ReasonCode::OrderStateInvalid)
    );
    let unknown = gateway
        .on_broker(&event(BrokerEventKind::Unknown, id, 1, 0, 8))
        .unwrap();
    assert_eq!(unknown.code, Some(ReasonCode::OrderOutcomeUnknown));
    assert_eq!(
        gateway.exposure(0).buy_qty,
        5,
        "an unknown order is full exposure"
    );
    assert!(!gateway.cancel(id));
}

#[test]
fn a_full_table_refuses_and_slots_of_open_orders_are_skipped() {
    let mut gateway = Gateway::new(1);
    let first = gateway.place(&new_order(1, 1)).unwrap();
    for round in 0..3_000_u64 {
        let id = gateway.place(&new_order(-1, 1)).unwrap();
        assert!(
            gateway
                .on_broker(&event(BrokerEventKind::Fill, id, -1, 1, round))
                .is_ok()
        );
    }
    assert!(
        gateway
            .order(first)
            .is_some_and(|order| order.state == OrderState::PendingNew)
    );
    while gateway.place(&new_order(1, 1)).is_some() {}
    assert!(gateway.is_full());
    assert_eq!(gateway.open_orders().count(), OPEN_COUNT_MAX);
}

proptest! {
    /// Invariants 1 and 2: after any events the exposure is the sum of open orders, the position
    /// the sum of distinct fills.
    #[test]
    fn exposure_is_the_sum_of_open_orders(steps in prop::collection::vec((0_u8..9, 0_usize..12, 1_i64..6, 0_u64..40), 1..120)) {
        let mut gateway = Gateway::new(1);
        let mut ids = Vec::new();
        let mut filled = std::collections::BTreeMap::new();
        for (kind, target, qty, seq) in steps {
            let side = if target % 2 == 0 { 1 } else { -1 };
            if kind == 0 {
                ids.extend(gateway.place(&new_order(side, qty)));
            } else if kind == 8 {
                ids.get(target).map(|id| gateway.cancel(*id));
            } else if let Some(id) = ids.get(target).copied() {
                let side = gateway.order(id).map_or(1, |order| order.side);
                let mut record = event(BrokerEventKind::Working, id, side, qty, seq);
                record.event_kind = u32::from(kind);
                if let Ok(outcome) = gateway.on_broker(&record) && outcome.fill_qty > 0 {
                    prop_assert!(filled.insert(seq, side * qty).is_none());
                }
            }
            let sum = |side: i64| gateway.open_orders().filter(|o| o.side == side).map(Order::remaining_qty).sum::<i64>();
            prop_assert_eq!(gateway.exposure(0), Exposure { buy_qty: sum(1), sell_qty: sum(-1) });
        }
    }
}
