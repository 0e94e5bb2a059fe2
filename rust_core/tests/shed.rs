//! Shedding needs a restriction: of the engine, and on disk.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests stop at the first surprise"
)]

mod support;

use std::path::PathBuf;
use std::time::Duration;

use _core::engine::Engine;
use _core::reason::ReasonCode;
use _core::record::{CommandKind, CommandRecord, Record};
use _core::shed::{Restriction, ShedError};
use _core::wal::{LogKind, Options, Writer};
use support::{INSTRUMENT, Session, TAKER, command, config};

const ALL: u32 = u32::MAX;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("hft-shed-{}-{name}", std::process::id()));
        Self(path)
    }

    fn orders(&self) -> Writer {
        let options = Options {
            wal_id: 1,
            kind: LogKind::Orders,
            segment_bytes: 64 << 10,
            group_commit: Duration::ZERO,
            epoch: 1,
            seal_after: None,
            reserve: false,
        };
        Writer::open(&self.0, options).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn reduce_only(instrument_id: u32) -> CommandRecord {
    let mut record = command(CommandKind::ReduceOnly, ALL, 0);
    record.header.instrument_id = instrument_id;
    record
}

fn refusal(engine: &Engine, orders: &Writer, instrument_id: u32) -> Option<ReasonCode> {
    let outcome = Restriction::prove(engine, orders, instrument_id);
    outcome.err().as_ref().map(ShedError::code)
}

#[test]
fn a_restriction_is_only_had_from_an_engine_that_opens_nothing() {
    let folder = Folder::new("engine");
    let orders = folder.orders();
    let mut session = Session::new(config(TAKER, "k * imbalance_l1"));
    assert_eq!(
        refusal(&session.engine, &orders, INSTRUMENT),
        Some(ReasonCode::ShedNotPermitted)
    );
    // Reduce-only of another instrument is none of this one; of none that is known, an error.
    session.feed(reduce_only(INSTRUMENT + 1));
    assert!(!session.engine.is_restricted(INSTRUMENT));
    let dropped = session.engine.counters().dropped();
    assert_eq!(dropped, [(ReasonCode::UnknownInstrument.code(), 1)]);
    session.feed(reduce_only(INSTRUMENT));
    assert_eq!(refusal(&session.engine, &orders, INSTRUMENT), None);
    assert_eq!(
        refusal(&session.engine, &orders, INSTRUMENT + 1),
        Some(ReasonCode::ShedNotPermitted)
    );
}

#[test]
fn a_restriction_makes_the_order_log_durable() {
    let folder = Folder::new("durable");
    let orders = folder.orders();
    let mut session = Session::new(config(TAKER, "k * imbalance_l1"));
    let record = reduce_only(INSTRUMENT);
    session.feed(record);
    let seq = orders.append(record.as_bytes()).unwrap();
    assert!(orders.durable_seq() < seq, "no thread commits here");
    let _proof = Restriction::prove(&session.engine, &orders, INSTRUMENT).unwrap();
    assert_eq!(orders.durable_seq(), seq);
}

#[test]
fn a_resume_takes_the_restriction_of_an_instrument_back() {
    let mut session = Session::new(config(TAKER, "k * imbalance_l1"));
    session.feed(reduce_only(INSTRUMENT));
    assert!(session.engine.is_restricted(INSTRUMENT));
    session.feed(command(CommandKind::ResumeArm, ALL, 0));
    let armed = i64::try_from(session.sequencer.last_seq()).unwrap();
    session.feed(command(CommandKind::ResumeConfirm, ALL, armed));
    assert!(!session.engine.is_restricted(INSTRUMENT));
}
