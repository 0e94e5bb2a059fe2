//! Invariant 5: a failed step is never repeated, and nothing is acknowledged after it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::sim_disk::{Draw, Fate, SimDisk};
use super::support::{manual, tape};
use crate::reason::ReasonCode;
use crate::wal::reader::read_log_on;
use crate::wal::recovery::recover_on;
use crate::wal::{Options, Writer};

fn open(disk: &SimDisk, options: Options) -> Result<Writer, crate::wal::WalError> {
    Writer::open_on(Arc::new(disk.clone()), Path::new("log"), options)
}

#[test]
fn after_an_error_at_any_step_every_later_call_answers_with_it_and_no_ack_is_lost() {
    let steps = {
        let disk = SimDisk::new(Fate::Reliable);
        let writer = open(&disk, manual()).unwrap();
        for first in 0..60 {
            writer
                .append_durable(&tape(first * 3 + 1, first * 3 + 3))
                .unwrap();
        }
        disk.steps()
    };
    let mut draw = Draw::new(11);
    for at in 0..steps {
        let disk = SimDisk::new(Fate::ErrorAt(at));
        let writer = match open(&disk, manual()) {
            Ok(writer) => writer,
            Err(error) => {
                assert_eq!(error.code(), ReasonCode::WalWriteFailed);
                continue;
            }
        };
        let mut failure = None;
        for first in 0..60 {
            if let Err(error) = writer.append_durable(&tape(first * 3 + 1, first * 3 + 3)) {
                failure = Some(error);
                break;
            }
        }
        let failure = failure.unwrap();
        assert_eq!(
            failure.code(),
            ReasonCode::WalWriteFailed,
            "step {at}: {failure}"
        );
        let acked = writer.durable_seq();
        let text = failure.to_string();
        for error in [
            writer.append_tape(&tape(1, 1)).unwrap_err(),
            writer.append(&tape(1, 1)).unwrap_err(),
            writer.append_durable(&tape(1, 1)).unwrap_err(),
            writer.sync().unwrap_err(),
            writer.rotate().unwrap_err(),
            writer.last_seq().unwrap_err(),
        ] {
            assert_eq!(error.to_string(), text);
        }
        assert_eq!(writer.durable_seq(), acked);
        assert_eq!(writer.seal().unwrap_err().to_string(), text);
        for _ in 0..20 {
            let image = disk.after_power_cut(&mut draw);
            let (report, _) = recover_on(&image, Path::new("log")).unwrap();
            let count = report.last_seq.unwrap_or(0);
            assert!(count >= acked, "step {at}: {count} of {acked} acknowledged");
            assert_eq!(
                read_log_on(&image, Path::new("log")).unwrap().tape,
                tape(1, count)
            );
        }
    }
}

#[test]
fn a_failure_in_the_group_commit_thread_reaches_the_next_append() {
    let disk = SimDisk::new(Fate::Reliable);
    let options = Options {
        group_commit: Duration::from_millis(1),
        ..manual()
    };
    let writer = open(&disk, options).unwrap();
    disk.set_fate(Fate::ErrorAt(0));
    writer.append_tape(&tape(1, 1)).unwrap();
    for _ in 0..2_000 {
        if writer.last_seq().is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let error = writer.append_tape(&tape(2, 2)).unwrap_err();
    assert_eq!(error.code(), ReasonCode::WalWriteFailed, "{error}");
    assert_eq!(writer.durable_seq(), 0);
}
