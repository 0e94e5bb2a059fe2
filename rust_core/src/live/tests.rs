//! What a live session does when one of its logs fails under it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

use std::path::PathBuf;
use std::time::Duration;

use super::options::{LiveError, LiveOptions};
use super::recovery::Found;
use super::session::LiveSession;
use crate::engine::Engine;
use crate::gateway::OrderState;
use crate::reason::ReasonCode;
use crate::record::{ActionKind, BookRecord, BrokerEventKind, BrokerRecord, Record};
use crate::session::{Durability, WalSink};
use crate::simulation::SessionHead;
use crate::wal::{LogKind, failing_writer};

#[path = "../../tests/support/mod.rs"]
mod support;

use support::{INSTRUMENT, MAKER, SECOND, START, TAKER, book, config_json};

const NOW: Duration = Duration::ZERO;

fn options(durable: &str) -> LiveOptions {
    let text = format!(r#"{{"wal_id":7,"epoch":3,"durable":"{durable}"}}"#);
    LiveOptions::from_json(&text).unwrap()
}

struct Failing {
    session: LiveSession,
    market: crate::wal::FailingDisk,
    orders: crate::wal::FailingDisk,
    now_ns: i64,
}

fn failing(template: &str, durability: Durability) -> Failing {
    let (market, market_disk) = failing_writer("market", LogKind::Market);
    let (orders, orders_disk) = failing_writer("orders", LogKind::Orders);
    let logs = WalSink::of(market, orders, durability);
    let engine = Engine::from_json(&config_json(template, "k * imbalance_l1")).unwrap();
    let options = options("record");
    let head = SessionHead::new(engine.config(), &options.contracts).unwrap();
    let found = Found::default();
    let folder = PathBuf::from("nowhere");
    let session = LiveSession::begun(engine, logs, head, &options, &found, folder).unwrap();
    Failing {
        session,
        market: market_disk,
        orders: orders_disk,
        now_ns: START,
    }
}

impl Failing {
    fn book(&mut self, bid: i64, bid_qty: i64, ask_qty: i64) -> Result<u64, LiveError> {
        self.now_ns += SECOND / 10;
        let mut record: BookRecord = book(bid, 1, bid_qty, ask_qty);
        record.header.receive_time_ns = self.now_ns;
        self.session.push(record.as_bytes())
    }

    /// The orders of the requests that wait, all of one kind.
    fn taken(&mut self, action: ActionKind) -> Vec<u64> {
        let mut order_ids = Vec::new();
        while let Some(request) = self.session.next_request(NOW).unwrap() {
            assert_eq!(request.action, action as u32, "{request:?}");
            order_ids.push(request.order_id);
        }
        order_ids
    }

    fn report(&mut self, kind: BrokerEventKind, order_id: u64) -> Result<u64, LiveError> {
        self.now_ns += 1_000_000;
        let mut record = BrokerRecord::empty();
        record.header.instrument_id = INSTRUMENT;
        record.header.receive_time_ns = self.now_ns;
        record.event_kind = kind as u32;
        record.order_id = order_id;
        self.session.push(record.as_bytes())
    }
}

/// Invariants 2 and 3: the decision is in the log's buffer, its sync fails, and the request stays.
#[test]
fn a_request_whose_decision_cannot_be_made_durable_never_leaves() {
    let mut live = failing(TAKER, Durability::Record);
    live.book(35_000, 30, 1).unwrap();
    assert_eq!(live.session.queue_len(), 1);
    live.orders.fail_next_sync();
    for _ in 0..3 {
        let refused = live.session.next_request(NOW).unwrap_err();
        assert_eq!(refused.code(), ReasonCode::WalWriteFailed);
    }
    let steps = live.orders.steps();
    let refused = live.book(35_001, 30, 1).unwrap_err();
    assert_eq!(refused.code(), ReasonCode::WalWriteFailed);
    let refused = live.report(BrokerEventKind::Working, 1).unwrap_err();
    assert_eq!(refused.code(), ReasonCode::WalWriteFailed);
    assert_eq!(live.orders.steps(), steps, "the disk is not asked again");
    let halt = live.session.halt().unwrap().unwrap();
    assert_eq!(halt.code, ReasonCode::WalWriteFailed);
    let finished = live.session.finish().unwrap();
    assert_eq!(finished.halted_by, ReasonCode::WalWriteFailed.code());
    assert_eq!((finished.untaken, finished.sealed), (1, (0, 0)));
}

/// Invariant 3: the market can no longer be stored, so the session halts on record; the cancel that
/// the halt asks for leaves, durable, and its answer is still taken.
#[test]
fn after_a_failure_of_the_market_log_only_the_way_out_is_left() {
    let mut live = failing(MAKER, Durability::Record);
    live.book(35_000, 10, 10).unwrap();
    let working = live.taken(ActionKind::Place);
    assert_eq!(working.len(), 2, "a quote on each side");
    for order_id in &working {
        live.report(BrokerEventKind::Working, *order_id).unwrap();
    }
    live.market.fail_next_sync();
    let mut failure = None;
    for _ in 0..3 {
        // As the group commit's thread does, behind the session's back.
        live.session.sync_market_for_test();
        failure = live.book(35_000, 10, 10).err();
    }
    assert_eq!(failure.unwrap().code(), ReasonCode::WalWriteFailed);
    let halted = live
        .session
        .inspect(|engine, _| engine.halted_by())
        .unwrap();
    assert_eq!(halted, Some(ReasonCode::WalWriteFailed));
    assert_eq!(
        live.taken(ActionKind::Cancel),
        working,
        "nothing that opens"
    );
    for order_id in &working {
        live.report(BrokerEventKind::Canceled, *order_id).unwrap();
        let order = live.session.order(*order_id).unwrap().unwrap().order;
        assert_eq!(order.state, OrderState::Canceled);
    }
    assert!(live.session.next_request(NOW).unwrap().is_none());
    let finished = live.session.finish().unwrap();
    assert_eq!(finished.halted_by, ReasonCode::WalWriteFailed.code());
}

/// A maker whose quotes were placed and whose market moved on; the log of it fails unseen.
fn moved_on(is_working: bool) -> (Failing, Vec<u64>) {
    let mut live = failing(MAKER, Durability::Record);
    live.book(35_000, 10, 10).unwrap();
    let placed = live.taken(ActionKind::Place);
    for order_id in placed.iter().filter(|_| is_working) {
        live.report(BrokerEventKind::Working, *order_id).unwrap();
    }
    live.book(34_980, 10, 10).unwrap();
    let canceled = live.taken(ActionKind::Cancel);
    assert_eq!(canceled.len(), if is_working { 2 } else { 0 });
    live.market.fail_next_sync();
    live.session.sync_market_for_test();
    (live, placed)
}

/// Invariant 3: the report that shows the failure asked for a cancel. The engine holds it for sent
/// and would not ask again, so it goes.
#[test]
fn a_cancel_that_was_decided_when_the_market_log_was_found_lost_leaves() {
    let (mut live, placed) = moved_on(false);
    let failure = live
        .report(BrokerEventKind::Working, placed[0])
        .unwrap_err();
    assert_eq!(failure.code(), ReasonCode::WalWriteFailed);
    // What was under way is canceled when it works.
    live.report(BrokerEventKind::Working, placed[1]).unwrap();
    assert_eq!(live.taken(ActionKind::Cancel), placed, "each once");
}

/// Invariant 3: here it asked for a new quote. That stays in, and is answered.
#[test]
fn an_order_that_was_decided_when_the_market_log_was_found_lost_never_leaves() {
    let (mut live, placed) = moved_on(true);
    let failure = live
        .report(BrokerEventKind::Canceled, placed[0])
        .unwrap_err();
    assert_eq!(failure.code(), ReasonCode::WalWriteFailed);
    let unsent = live.session.order(placed[1] + 1).unwrap().unwrap().order;
    assert_eq!(unsent.state, OrderState::Rejected);
    assert_eq!(
        live.session.queue_len(),
        0,
        "the halt has nothing left to cancel"
    );
}

/// Invariant 2: a halt is on disk before the push returns, also where requests need not wait.
#[test]
fn a_halt_is_durable_before_its_push_returns_and_an_order_only_when_it_leaves() {
    let mut live = failing(TAKER, Durability::Record);
    let before = live.session.durable_orders_for_test();
    live.book(35_000, 30, 1).unwrap();
    assert_eq!(live.session.durable_orders_for_test(), before);
    assert!(live.session.next_request(NOW).unwrap().is_some());
    let taken = live.session.durable_orders_for_test();
    assert!(taken > before);
    let halt = support::command(crate::record::CommandKind::Halt, u32::MAX, 0);
    live.session.push(halt.as_bytes()).unwrap();
    assert!(live.session.durable_orders_for_test() >= taken + 2);
    let mut live = failing(TAKER, Durability::Group);
    let before = live.session.durable_orders_for_test();
    live.book(35_000, 30, 1).unwrap();
    assert!(live.session.next_request(NOW).unwrap().is_some());
    assert_eq!(live.session.durable_orders_for_test(), before);
    live.session.push(halt.as_bytes()).unwrap();
    assert!(live.session.durable_orders_for_test() > before);
}
