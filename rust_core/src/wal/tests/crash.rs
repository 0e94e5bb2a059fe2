//! Power cuts at every step of a writer and of a recovery, on a simulated disk.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::sim_disk::{Draw, Fate, SimDisk};
use super::support::{manual, record, tape};
use crate::wal::Writer;
use crate::wal::reader::read_log_on;
use crate::wal::recovery::recover_on;

/// Images drawn of what is left after one power cut.
const IMAGES: usize = 12;

/// What a test does with a writer.
#[derive(Debug, Clone)]
enum Act {
    Append(u64),
    AppendDurable(u64),
    Sync,
    Rotate,
    Seal,
    Reopen,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        6 => (1_u64..12).prop_map(Act::Append),
        3 => (1_u64..4).prop_map(Act::AppendDurable),
        2 => Just(Act::Sync),
        1 => Just(Act::Rotate),
        1 => Just(Act::Seal),
        1 => Just(Act::Reopen),
    ];
    proptest::collection::vec(act, 1..20)
}

/// Runs the acts until one fails; returns (records appended, highest sequence acknowledged).
fn run(disk: &SimDisk, acts: &[Act]) -> (u64, u64) {
    let (mut appended, mut acked) = (0, 0);
    let open = || Writer::open_on(Arc::new(disk.clone()), Path::new("log"), manual());
    let Ok(mut writer) = open() else {
        return (0, 0);
    };
    for act in acts {
        let failed = match act {
            Act::Append(count) => {
                let outcome = writer.append_tape(&tape(appended + 1, appended + count));
                appended += count;
                outcome.is_err()
            }
            Act::AppendDurable(count) => {
                let outcome = writer.append_durable(&tape(appended + 1, appended + count));
                appended += count;
                if let Ok(seq) = outcome {
                    assert_eq!(seq, appended);
                    assert!(writer.durable_seq() >= seq);
                }
                outcome.is_err()
            }
            Act::Sync => writer.sync().is_err(),
            Act::Rotate => writer.rotate().is_err(),
            Act::Seal | Act::Reopen => {
                acked = acked.max(writer.durable_seq());
                if matches!(act, Act::Seal) {
                    if let Ok(seq) = writer.seal() {
                        acked = seq;
                        assert_eq!(seq, appended);
                    }
                } else {
                    drop(writer);
                }
                match open() {
                    Ok(next) => writer = next,
                    Err(_) => return (appended, acked),
                }
                // A record may be durable without having been acknowledged, never the reverse.
                assert!(writer.durable_seq() >= acked);
                appended = writer.durable_seq();
                false
            }
        };
        acked = acked.max(writer.durable_seq());
        if failed {
            break;
        }
    }
    (appended, acked)
}

/// Invariants 1 and 2 on one image: returns how many records survived.
fn survivors(image: &SimDisk, appended: u64, acked: u64) -> Result<u64, TestCaseError> {
    let dir = Path::new("log");
    let before = read_log_on(image, dir).map_err(|error| TestCaseError::fail(error.to_string()))?;
    let (report, _) =
        recover_on(image, dir).map_err(|error| TestCaseError::fail(error.to_string()))?;
    let log = read_log_on(image, dir).unwrap();
    let whole = tape(1, appended);
    prop_assert!(
        whole.starts_with(&log.tape),
        "a record was invented or changed"
    );
    prop_assert_eq!(&log.tape, &before.tape, "recovery keeps what a reader saw");
    let count = report.last_seq.unwrap_or(0);
    prop_assert!(
        count >= acked,
        "{} of {} acknowledged records survived",
        count,
        acked
    );
    prop_assert_eq!(&log.tape, &tape(1, count));
    Ok(count)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Invariants 1, 2, 3: cut the power at every step of a run.
    #[test]
    fn acknowledged_records_survive_a_power_cut_at_any_step(acts in acts(), seed in any::<u64>()) {
        let rehearsal = SimDisk::new(Fate::Reliable);
        run(&rehearsal, &acts);
        let mut draw = Draw::new(seed);
        for at in 0..=rehearsal.steps() {
            let disk = SimDisk::new(Fate::PowerCutAt(at));
            let (appended, acked) = run(&disk, &acts);
            for _ in 0..IMAGES {
                let image = disk.after_power_cut(&mut draw);
                survivors(&image, appended, acked)?;
            }
        }
    }

    /// The same with the power going again while the log is recovered, and the log goes on.
    #[test]
    fn a_power_cut_during_recovery_loses_nothing_either(
        acts in acts(),
        seed in any::<u64>(),
        at in 0_usize..60,
    ) {
        let disk = SimDisk::new(Fate::PowerCutAt(at));
        let (appended, acked) = run(&disk, &acts);
        let mut draw = Draw::new(seed);
        let first = disk.after_power_cut(&mut draw);
        for cut in 0..8 {
            let second = first.after_power_cut(&mut Draw::new(1));
            second.set_fate(Fate::PowerCutAt(cut));
            let _outcome = recover_on(&second, Path::new("log"));
            let third = second.after_power_cut(&mut draw);
            let count = survivors(&third, appended, acked)?;
            let writer =
                Writer::open_on(Arc::new(third.clone()), Path::new("log"), manual()).unwrap();
            prop_assert_eq!(writer.append_durable(&record(count + 1)).unwrap(), count + 1);
            writer.seal().unwrap();
            let log = read_log_on(&third, Path::new("log")).unwrap();
            prop_assert_eq!(log.tape, tape(1, count + 1));
        }
    }
}

/// Negative control: a disk whose syncs do nothing must lose acknowledged records here.
#[test]
fn a_disk_that_lies_about_syncing_is_caught_by_the_same_check() {
    let acts = [Act::AppendDurable(3), Act::Append(2), Act::AppendDurable(3)];
    let disk = SimDisk::new(Fate::SyncLies);
    let (appended, acked) = run(&disk, &acts);
    assert_eq!((appended, acked), (8, 8));
    let mut draw = Draw::new(5);
    let caught = (0..200)
        .filter(|_| survivors(&disk.after_power_cut(&mut draw), appended, acked).is_err())
        .count();
    assert!(caught > 150, "{caught} of 200 images");
}
