//! The live session under many threads, and where its bounds are.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests stop at the first surprise"
)]

mod support;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use _core::engine::APPROVED;
use _core::kernel::Kernels;
use _core::live::{LiveOptions, LiveSession, LiveSetup, OrderRequest};
use _core::reason::ReasonCode;
use _core::record::{
    ActionKind, BrokerEventKind, BrokerRecord, DecisionRecord, EpochRecord, Record, Tape,
    TimerRecord,
};
use _core::wal::read_log;
use support::{INSTRUMENT, SECOND, START, TAKER, book, config};

struct TempDir(PathBuf);

impl TempDir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("hft-live-{name}-{}", std::process::id()));
        std::fs::remove_dir_all(&path).ok();
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn open(dir: &Path, epoch: u32, more: &str) -> LiveSession {
    let mut config = config(TAKER, "k * imbalance_l1");
    let limits = &mut config.alphas[0].limits;
    limits.daily_loss_max = i64::MAX / 4;
    limits.drawdown_max = i64::MAX / 4;
    limits.loss_speed_max = i64::MAX / 4;
    LiveSession::open(LiveSetup {
        engine_config: serde_json::to_string(&config).unwrap(),
        session_dir: dir.to_path_buf(),
        options: LiveOptions::from_json(&format!(r#"{{"wal_id":9,"epoch":{epoch}{more}}}"#))
            .unwrap(),
        kernels: Kernels::default(),
    })
    .unwrap()
}

fn at<R: Record>(mut record: R, now_ns: i64) -> R {
    record.header_mut().instrument_id = INSTRUMENT;
    record.header_mut().receive_time_ns = now_ns;
    record
}

/// In at even places, out at odd ones.
fn trading_book(place: i64) -> _core::record::BookRecord {
    let (bid_qty, ask_qty) = if place % 2 == 0 { (30, 1) } else { (10, 10) };
    book(35_000 + place % 7, 1, bid_qty, ask_qty)
}

fn fill(request: &OrderRequest, now_ns: i64) -> BrokerRecord {
    let record = BrokerRecord {
        event_kind: BrokerEventKind::Fill as u32,
        order_id: request.order_id,
        side: request.side,
        price: request.price,
        qty: request.qty,
        broker_seq: request.decision_seq,
        ..BrokerRecord::empty()
    };
    at(record, now_ns)
}

fn approved(dir: &Path) -> Vec<DecisionRecord> {
    let tape = read_log(&dir.join("orders")).unwrap().tape;
    let decisions = Tape::new(&tape).flatten();
    let decisions = decisions.filter_map(|(_, bytes)| DecisionRecord::read(bytes));
    decisions
        .filter(|decision| {
            let is_place = decision.action == ActionKind::Place as u32;
            let is_cancel = decision.action == ActionKind::Cancel as u32;
            decision.verdict == APPROVED && (is_place || is_cancel)
        })
        .collect()
}

/// Invariants 1 and 2: one order of inputs, and every approved decision out once, in order, and in
/// the log's file by then.
#[test]
fn whatever_the_threads_do_every_approved_decision_leaves_once_in_order_and_logged() {
    for durable in ["record", "group"] {
        let dir = TempDir::new(&format!("stress-{durable}"));
        let session = open(&dir.0, 1, &format!(r#","durable":"{durable}""#));
        let clock = AtomicI64::new(START);
        let (is_over, pushers) = (AtomicBool::new(false), 4);
        let taken = std::thread::scope(|scope| {
            let dispatcher = scope.spawn(|| {
                let mut taken: Vec<OrderRequest> = Vec::new();
                loop {
                    let wait = Duration::from_millis(20);
                    let Some(request) = session.next_request(wait).unwrap() else {
                        if is_over.load(Ordering::Acquire) {
                            return taken;
                        }
                        continue;
                    };
                    if durable == "record" && taken.len().is_multiple_of(16) {
                        let logged = approved(&dir.0);
                        let is_there = |d: &DecisionRecord| d.decision_seq == request.decision_seq;
                        assert!(logged.iter().any(is_there), "{request:?}");
                    }
                    taken.push(request);
                    let now_ns = clock.fetch_add(1, Ordering::Relaxed);
                    session.push(fill(&request, now_ns).as_bytes()).unwrap();
                }
            });
            let threads: Vec<_> = (0..pushers)
                .map(|thread| {
                    let (session, clock) = (&session, &clock);
                    scope.spawn(move || {
                        for place in 0..150 {
                            let now_ns = clock.fetch_add(SECOND / 10, Ordering::Relaxed);
                            let book = at(trading_book(place), now_ns);
                            let mut tape = book.as_bytes().to_vec();
                            if place % 5 == thread {
                                let timer = at(TimerRecord::empty(), now_ns);
                                tape.extend_from_slice(timer.as_bytes());
                            }
                            session.push(&tape).unwrap();
                            // Or the day is over before the first answer.
                            for _ in 0..20_000 {
                                if session.orders().unwrap().is_empty() {
                                    break;
                                }
                                std::thread::yield_now();
                            }
                        }
                    })
                })
                .collect();
            threads
                .into_iter()
                .for_each(|thread| thread.join().unwrap());
            is_over.store(true, Ordering::Release);
            dispatcher.join().unwrap()
        });
        let finished = session.finish().unwrap();
        assert_eq!((finished.halted_by, finished.untaken), (0, 0));
        let logged: Vec<u64> = approved(&dir.0).iter().map(|d| d.decision_seq).collect();
        let left: Vec<u64> = taken.iter().map(|request| request.decision_seq).collect();
        assert_eq!(left, logged, "{durable}");
        assert!(left.len() > 20, "{}", left.len());
        assert_eq!(finished.engine.counters().dropped(), vec![]);
        // One order of inputs: each number once over both logs, times rising with them.
        let mut inputs = Vec::new();
        for name in ["market", "orders"] {
            let tape = read_log(&dir.0.join(name)).unwrap().tape;
            for (header, bytes) in Tape::new(&tape).flatten() {
                if DecisionRecord::read(bytes).is_none() {
                    inputs.push((header.input_seq, header.sequence_time_ns));
                }
            }
        }
        inputs.sort_unstable();
        for (place, pair) in inputs.windows(2).enumerate() {
            assert_eq!(pair[0].0, place as u64 + 1);
            assert!(pair[0].1 < pair[1].1);
        }
    }
}

/// The dispatcher stands still, and answers come all the same: market records are refused before
/// anything is lost, what the broker says is taken, and afterwards it goes on.
#[test]
fn a_dispatcher_that_is_too_far_behind_stops_the_market_and_loses_nothing() {
    let dir = TempDir::new("behind");
    let session = open(&dir.0, 1, r#","durable":"group","queue_capacity":128"#);
    let mut refused = None;
    for place in 0..400 {
        let now_ns = START + place * SECOND;
        if let Err(error) = session.push(at(trading_book(place), now_ns).as_bytes()) {
            refused = Some((place, error.code()));
            break;
        }
        // Answered without having been taken: no honest broker does that.
        for view in session.orders().unwrap() {
            let mut record = BrokerRecord::empty();
            record.event_kind = BrokerEventKind::Fill as u32;
            record.order_id = view.order.order_id;
            record.side = view.order.side;
            record.price = view.order.price;
            record.qty = view.order.qty;
            record.broker_seq = view.order.order_id + 1;
            session.push(at(record, now_ns + 1).as_bytes()).unwrap();
        }
    }
    let (place, code) = refused.unwrap();
    assert_eq!(code, ReasonCode::CapacityReached);
    assert_eq!(session.queue_len(), 128);
    let last_seq = session.inspect(|_, snapshot| snapshot.last_seq).unwrap();
    session
        .push(at(_core::record::HealthRecord::empty(), 0).as_bytes())
        .unwrap();
    assert_eq!(session.inspect(|_, s| s.last_seq).unwrap(), last_seq + 1);
    let mut taken = 0;
    while let Some(request) = session.next_request(Duration::ZERO).unwrap() {
        taken += 1;
        assert_eq!(request.epoch, 1);
    }
    assert_eq!(taken, 128);
    session
        .push(at(trading_book(place), START + place * SECOND).as_bytes())
        .unwrap();
    let finished = session.finish().unwrap();
    assert_eq!(approved(&dir.0).len() as u64, finished.snapshot.requests);
}

/// Invariant 4, and a place that nobody took: it is unknown to the next process, which never sends
/// it.
#[test]
fn the_next_process_knows_what_was_under_way_and_sends_none_of_it() {
    let dir = TempDir::new("takeover");
    let first = open(&dir.0, 1, "");
    first.push(at(trading_book(0), START).as_bytes()).unwrap();
    assert_eq!(first.queue_len(), 1);
    let last_seq = first.inspect(|_, snapshot| snapshot.last_seq).unwrap();
    drop(first);
    let second = open(&dir.0, 7, "");
    assert_eq!(second.taken().last_seq, last_seq);
    assert_eq!(second.taken().engine.unknown_orders, 1);
    assert_eq!(second.taken().last_epoch, 1);
    assert_eq!(second.next_request(Duration::ZERO).unwrap(), None);
    let (again, code) = (START + SECOND, ReasonCode::OrderOutcomeUnknown);
    second.push(at(trading_book(2), again).as_bytes()).unwrap();
    assert_eq!(
        second.next_request(Duration::ZERO).unwrap(),
        None,
        "reduce-only"
    );
    let view = second.orders().unwrap()[0];
    assert_eq!(view.order.state.name(), "unknown");
    assert_eq!(view.tag, _core::live::order_tag(1, 1));
    let refused = second
        .inspect(|engine, _| engine.storm_report().policy_code)
        .unwrap();
    assert_eq!(refused, code);
    second.finish().unwrap();
    let tape = read_log(&dir.0.join("orders")).unwrap().tape;
    let epochs = Tape::new(&tape).flatten();
    let epochs = epochs.filter_map(|(_, bytes)| EpochRecord::read(bytes));
    assert_eq!(
        epochs.map(|record| record.epoch).collect::<Vec<_>>(),
        [1, 7]
    );
}
