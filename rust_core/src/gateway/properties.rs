//! Exposure against a broker that tells late, not at all, twice, or in another order.
#![allow(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use proptest::prelude::*;

use super::*;
use crate::record::Record;

/// An order as it is at the broker, whatever anybody was told.
#[derive(Debug, Clone, Copy)]
struct Truth {
    order_id: u64,
    side: i64,
    qty: i64,
    filled_qty: i64,
    has_ended: bool,
}

/// What happens next.
#[derive(Debug, Clone)]
enum Step {
    Place { side: i64, qty: i64 },
    CancelSent { back: usize },
    Works { back: usize },
    Fills { back: usize, qty: i64 },
    Ends { back: usize, kind: u32 },
    TimesOut { back: usize },
    Deliver { pick: usize, is_kept: bool },
    Lose { pick: usize },
    LoseTrack,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let back = 0_usize..6;
    let pick = 0_usize..50;
    let side = prop_oneof![Just(1_i64), Just(-1)];
    let ends = prop_oneof![
        Just(BrokerEventKind::Rejected as u32),
        Just(BrokerEventKind::Canceled as u32),
        Just(BrokerEventKind::Expired as u32),
    ];
    let step = prop_oneof![
        4 => (side, 1_i64..9).prop_map(|(side, qty)| Step::Place { side, qty }),
        2 => back.clone().prop_map(|back| Step::CancelSent { back }),
        3 => back.clone().prop_map(|back| Step::Works { back }),
        6 => (back.clone(), 1_i64..5).prop_map(|(back, qty)| Step::Fills { back, qty }),
        2 => (back.clone(), ends).prop_map(|(back, kind)| Step::Ends { back, kind }),
        1 => back.prop_map(|back| Step::TimesOut { back }),
        12 => (pick.clone(), any::<bool>()).prop_map(|(pick, is_kept)| Step::Deliver { pick, is_kept }),
        1 => pick.prop_map(|pick| Step::Lose { pick }),
        1 => Just(Step::LoseTrack),
    ];
    prop::collection::vec(step, 1..160)
}

fn report(kind: u32, truth: &Truth, qty: i64, broker_seq: u64) -> BrokerRecord {
    BrokerRecord {
        event_kind: kind,
        order_id: truth.order_id,
        side: truth.side,
        price: 100,
        qty,
        broker_seq,
        ..BrokerRecord::empty()
    }
}

fn cases() -> u32 {
    std::env::var("HFT_FUZZ_CASES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(400)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    /// Invariants 1 and 2: the exposure is never below what is truly open at the broker, never
    /// negative, and what was counted of an order is what distinct fills of it were delivered.
    #[test]
    fn exposure_covers_what_is_truly_open(steps in steps(), stride in prop_oneof![Just(1_u64), Just(FILL_COUNT_MAX as u64)]) {
        let mut gateway = Gateway::new(1);
        let mut truths: Vec<Truth> = Vec::new();
        let mut pending: Vec<BrokerRecord> = Vec::new();
        let mut delivered: std::collections::BTreeMap<u64, i64> = std::collections::BTreeMap::new();
        let mut counted: std::collections::BTreeMap<u64, i64> = std::collections::BTreeMap::new();
        // Numbers that are the same modulo the size of a table are the hard case.
        let mut seq = 0;
        for step in steps {
            let mut number = || { seq += stride; seq };
            let find = |back: usize, truths: &[Truth]| truths.len().checked_sub(back + 1);
            match step {
                Step::Place { side, qty } => {
                    let placed = gateway.place(&NewOrder { intent_id: 1, alpha_index: 0, market_index: 0, side, price: 100, qty, time_in_force: 1 });
                    if let Some(order_id) = placed {
                        truths.push(Truth { order_id, side, qty, filled_qty: 0, has_ended: false });
                    }
                }
                Step::CancelSent { back } => {
                    if let Some(place) = find(back, &truths) {
                        gateway.cancel(truths[place].order_id);
                    }
                }
                Step::Works { back } => {
                    if let Some(place) = find(back, &truths) && !truths[place].has_ended {
                        pending.push(report(BrokerEventKind::Working as u32, &truths[place], 0, number()));
                    }
                }
                Step::Fills { back, qty } => {
                    if let Some(place) = find(back, &truths) && !truths[place].has_ended {
                        let truth = &mut truths[place];
                        let qty = qty.min(truth.qty - truth.filled_qty);
                        truth.filled_qty += qty;
                        truth.has_ended = truth.filled_qty == truth.qty;
                        let record = report(BrokerEventKind::Fill as u32, truth, qty, number());
                        pending.push(record);
                    }
                }
                Step::Ends { back, kind } => {
                    if let Some(place) = find(back, &truths) && !truths[place].has_ended {
                        truths[place].has_ended = true;
                        pending.push(report(kind, &truths[place], 0, number()));
                    }
                }
                Step::TimesOut { back } => {
                    if let Some(place) = find(back, &truths) {
                        // Nobody knows: said of any order, also of one that has long ended.
                        let record = report(BrokerEventKind::Unknown as u32, &truths[place], 0, number());
                        pending.push(record);
                    }
                }
                Step::Lose { pick } => {
                    if !pending.is_empty() {
                        pending.swap_remove(pick % pending.len());
                    }
                }
                Step::LoseTrack => {
                    gateway.lose_track();
                }
                Step::Deliver { pick, is_kept } => {
                    if pending.is_empty() {
                        continue;
                    }
                    let place = pick % pending.len();
                    let record = if is_kept { pending[place] } else { pending.swap_remove(place) };
                    let is_fill = record.event_kind == BrokerEventKind::Fill as u32;
                    let is_new = is_fill && delivered.insert(record.broker_seq, record.qty).is_none();
                    if let Ok(outcome) = gateway.on_broker(&record) {
                        prop_assert_ne!(outcome.code, Some(ReasonCode::OverFill));
                        prop_assert_eq!(outcome.fill_qty, if is_new { record.qty } else { 0 });
                        *counted.entry(record.order_id).or_default() += outcome.fill_qty;
                    } else {
                        prop_assert!(!is_new, "a new fill is counted");
                    }
                }
            }
            let exposure = gateway.exposure(0);
            let open = |side: i64| truths.iter().filter(|t| t.side == side && !t.has_ended).map(|t| t.qty - t.filled_qty).sum::<i64>();
            prop_assert!(exposure.buy_qty >= open(1), "buy {} below {}", exposure.buy_qty, open(1));
            prop_assert!(exposure.sell_qty >= open(-1), "sell {} below {}", exposure.sell_qty, open(-1));
            for truth in &truths {
                let counted = counted.get(&truth.order_id).copied().unwrap_or(0);
                prop_assert!(counted <= truth.filled_qty, "never more than was filled");
            }
        }
        let sum: i64 = counted.values().sum();
        prop_assert_eq!(sum, delivered.values().sum::<i64>(), "every delivered fill, once");
    }
}

/// The rule this replaced: a table by number modulo its size. Two fills that collide, and the first
/// one's double is counted again: the property above fails with it at its stride of 4,096.
#[test]
fn a_table_that_overwrites_counts_a_double() {
    let mut table = [None; FILL_COUNT_MAX];
    let mut count_of = |number: u64| {
        let slot = &mut table[usize::try_from(number).unwrap() % FILL_COUNT_MAX];
        let is_new = *slot != Some(number);
        *slot = Some(number);
        i64::from(is_new)
    };
    let numbers = [
        FILL_COUNT_MAX as u64,
        2 * FILL_COUNT_MAX as u64,
        FILL_COUNT_MAX as u64,
    ];
    assert_eq!(
        numbers.map(&mut count_of).iter().sum::<i64>(),
        3,
        "two fills, counted as three"
    );
    let mut fills = FillNumbers::default();
    let counted = numbers.map(|number| {
        let is_new = fills.standing(number) == Standing::New;
        if is_new {
            fills.insert(number);
        }
        i64::from(is_new)
    });
    assert_eq!(counted.iter().sum::<i64>(), 2);
}

#[test]
fn a_fill_beyond_memory_is_not_counted_and_says_so() {
    let mut gateway = Gateway::new(1);
    let new = NewOrder {
        intent_id: 1,
        alpha_index: 0,
        market_index: 0,
        side: 1,
        price: 100,
        qty: 1_000_000,
        time_in_force: 1,
    };
    let order_id = gateway.place(&new).unwrap();
    let truth = Truth {
        order_id,
        side: 1,
        qty: 1_000_000,
        filled_qty: 0,
        has_ended: false,
    };
    let fill = |seq| report(BrokerEventKind::Fill as u32, &truth, 1, seq);
    for seq in 1..=2 * FILL_COUNT_MAX as u64 {
        assert!(gateway.on_broker(&fill(seq)).is_ok());
    }
    let before = gateway.exposure(0);
    assert_eq!(gateway.on_broker(&fill(1)), Err(ReasonCode::FillTooOld));
    assert_eq!(
        gateway.on_broker(&fill(2 * FILL_COUNT_MAX as u64)),
        Err(ReasonCode::DuplicateFill)
    );
    assert_eq!(gateway.exposure(0), before, "still counted as open");
}

#[test]
fn a_restored_order_keeps_its_id_and_the_next_one_is_new() {
    let mut first = Gateway::new(2);
    let new = |alpha_index, intent_id| NewOrder {
        intent_id,
        alpha_index,
        market_index: 0,
        side: -1,
        price: 100,
        qty: 3,
        time_in_force: 1,
    };
    let ids = [
        first.place(&new(0, 1)).unwrap(),
        first.place(&new(1, 2)).unwrap(),
    ];
    let mut second = Gateway::new(2);
    assert!(second.restore(ids[0], &new(0, 1)));
    assert!(second.restore(ids[1], &new(1, 2)));
    assert!(!second.restore(ids[1], &new(1, 2)), "an id is given once");
    assert!(
        !second.restore(ids[1] + 1, &new(0, 2)),
        "another alpha's id"
    );
    assert!(!second.restore(0, &new(0, 2)));
    assert!(!second.restore(
        ids[0] + 7,
        &NewOrder {
            qty: 0,
            ..new(0, 2)
        }
    ));
    assert!(!second.has_unknown());
    assert_eq!(second.lose_track(), 2);
    assert!(second.has_unknown());
    assert_eq!(second.exposure(1).sell_qty, 3);
    assert!(
        !second.cancel(ids[0]),
        "an unknown order is not canceled blindly"
    );
    let next = second.place(&new(0, 3)).unwrap();
    assert!(!ids.contains(&next));
    assert_eq!(order_number(next), 2);
}
