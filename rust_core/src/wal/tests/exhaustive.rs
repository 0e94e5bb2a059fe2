//! Every truncation and every single-bit flip of a whole segment that holds all record types.
//!
//! What must come out of an open segment depends on what was acknowledged: nothing that the log can
//! prove to have been durable is cut off, and what the log alone cannot tell from a torn write (the
//! records of the last commit) stands out against the watermark. Nothing else may come out.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::sim_disk::{Fate, SimDisk};
use super::support::{manual, time_ns};
use crate::reason::ReasonCode;
use crate::record::{
    AccountRecord, BookRecord, BrokerRecord, CommandRecord, ConfigSwitchRecord, DecisionRecord,
    HealthRecord, InstrumentRecord, IntentRecord, Record, RecordHeader, TimerRecord, TradeRecord,
};
use crate::wal::frame::frame_bytes;
use crate::wal::reader::{inspect, read_log_on};
use crate::wal::recovery::recover_on;
use crate::wal::sabotage::{self, Sabotage};
use crate::wal::segment::{SegmentState, segment_path};
use crate::wal::{LogKind, Options, SEGMENT_HEADER_BYTES, Writer};

const DIR: &str = "log";
const KINDS: [LogKind; 2] = [LogKind::Market, LogKind::Orders];

/// One record of every type that belongs into a log.
fn records(kind: LogKind) -> Vec<Vec<u8>> {
    fn one<R: Record>(number: u64, header: impl Fn(&mut R) -> &mut RecordHeader) -> Vec<u8> {
        let mut record = R::empty();
        let header = header(&mut record);
        header.input_seq = number;
        header.sequence_time_ns = time_ns(number);
        record.as_bytes().to_vec()
    }
    match kind {
        LogKind::Market => vec![
            one::<InstrumentRecord>(1, |record| &mut record.header),
            one::<BookRecord>(2, |record| &mut record.header),
            one::<TradeRecord>(3, |record| &mut record.header),
            one::<TimerRecord>(4, |record| &mut record.header),
        ],
        LogKind::Orders => vec![
            one::<CommandRecord>(1, |record| &mut record.header),
            one::<ConfigSwitchRecord>(2, |record| &mut record.header),
            one::<IntentRecord>(3, |record| &mut record.header),
            one::<DecisionRecord>(4, |record| &mut record.header),
            one::<BrokerRecord>(5, |record| &mut record.header),
            one::<AccountRecord>(6, |record| &mut record.header),
            one::<HealthRecord>(7, |record| &mut record.header),
        ],
    }
}

fn path(state: SegmentState) -> PathBuf {
    segment_path(Path::new(DIR), 1, state)
}

/// The one segment of a log, synced behind each record and, if asked for, sealed.
fn segment(kind: LogKind, state: SegmentState) -> Vec<u8> {
    let disk = SimDisk::new(Fate::Reliable);
    let options = Options {
        kind,
        segment_bytes: 2 << 10,
        ..manual()
    };
    let writer = Writer::open_on(Arc::new(disk.clone()), Path::new(DIR), options).unwrap();
    for record in records(kind) {
        writer.append_durable(&record).unwrap();
    }
    match state {
        SegmentState::Open => drop(writer),
        SegmentState::Sealed => drop(writer.seal().unwrap()),
    }
    disk.content(&path(state)).unwrap()
}

fn flip(bytes: &mut [u8], bit: usize) {
    bytes[bit / 8] ^= 1 << (bit % 8);
}

#[test]
fn every_bit_flip_truncation_and_extension_of_a_sealed_segment_is_found() {
    for kind in KINDS {
        let mut bytes = segment(kind, SegmentState::Sealed);
        let path = path(SegmentState::Sealed);
        let is_found = |bytes: &[u8]| inspect(&path, 1, SegmentState::Sealed, bytes, None).is_err();
        assert!(!is_found(&bytes));
        let bits = bytes.len() * 8;
        let mut found = 0;
        for bit in 0..bits {
            flip(&mut bytes, bit);
            found += usize::from(is_found(&bytes));
            flip(&mut bytes, bit);
        }
        assert_eq!(found, bits, "{kind:?}: flips");
        let cuts = (0..bytes.len()).filter(|cut| is_found(&bytes[..*cut]));
        assert_eq!(cuts.count(), bytes.len(), "{kind:?}: truncations");
        for byte in 0..=u8::MAX {
            bytes.push(byte);
            assert!(
                is_found(&bytes),
                "{kind:?}: a byte {byte} behind the footer"
            );
            bytes.pop();
        }
    }
}

/// What recovery made of a damaged open segment.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Outcomes {
    /// Refused; no byte was changed.
    refused: usize,
    /// Recovered below the watermark: whoever knows the watermark sees it.
    below_watermark: usize,
    /// Recovered with every acknowledged record.
    whole: usize,
    /// Durable records were cut off although a later frame said that they were durable.
    provable_cut: usize,
    /// Records were changed or invented and nobody noticed.
    silent: usize,
}

impl Outcomes {
    fn total(&self) -> usize {
        self.refused + self.below_watermark + self.whole + self.provable_cut + self.silent
    }
}

/// Recovers a damaged segment and says what came of it. `proven` is the highest sequence that an
/// undamaged later frame says was durable.
fn judge(bytes: &[u8], tapes: &[Vec<u8>], proven: u64, outcomes: &mut Outcomes) {
    let dir = Path::new(DIR);
    let name = path(SegmentState::Open);
    let disk = SimDisk::with_files(&[(&name, bytes)]);
    let Ok((report, _)) = recover_on(&disk, dir) else {
        let is_untouched = disk.content(&name).as_deref() == Some(bytes);
        assert!(is_untouched, "a refusal changed the file");
        outcomes.refused += 1;
        return;
    };
    let count = report.last_seq.unwrap_or(0);
    let read = read_log_on(&disk, dir).unwrap();
    let watermark = tapes.len() as u64 - 1;
    let slot = match tapes.get(usize::try_from(count).unwrap()) {
        Some(tape) if *tape == read.tape => {
            if count == watermark {
                &mut outcomes.whole
            } else if count < proven {
                &mut outcomes.provable_cut
            } else {
                &mut outcomes.below_watermark
            }
        }
        _ => &mut outcomes.silent,
    };
    *slot += 1;
}

/// The tape of the first n records, for each n.
fn tapes(kind: LogKind) -> Vec<Vec<u8>> {
    let mut tapes = vec![Vec::new()];
    for record in records(kind) {
        let longer = [tapes[tapes.len() - 1].clone(), record].concat();
        tapes.push(longer);
    }
    tapes
}

fn every_flip(kind: LogKind) -> Outcomes {
    let mut bytes = segment(kind, SegmentState::Open);
    let tapes = tapes(kind);
    // Each frame was encoded when all before it were durable: the last proves all but itself.
    let proven = records(kind).len() as u64 - 1;
    let last = bytes_of_frames(&records(kind)[..records(kind).len() - 1]);
    let mut outcomes = Outcomes::default();
    for bit in 0..bytes.len() * 8 {
        flip(&mut bytes, bit);
        let is_last = bit / 8 >= last;
        // A flip in the last frame takes its testimony away with it.
        let proven = if is_last {
            proven.saturating_sub(1)
        } else {
            proven
        };
        judge(&bytes, &tapes, proven, &mut outcomes);
        flip(&mut bytes, bit);
    }
    outcomes
}

/// Bytes of header and these records' frames.
fn bytes_of_frames(records: &[Vec<u8>]) -> usize {
    let frames = records.iter().map(|record| frame_bytes(record.len()));
    SEGMENT_HEADER_BYTES + frames.sum::<usize>()
}

#[test]
fn every_bit_flip_of_an_open_segment_is_refused_or_keeps_what_the_log_can_prove() {
    for kind in KINDS {
        let records = records(kind);
        let outcomes = every_flip(kind);
        let bytes = segment(kind, SegmentState::Open).len();
        let (all, last) = (
            bytes_of_frames(&records),
            bytes_of_frames(&records[..records.len() - 1]),
        );
        let expected = Outcomes {
            // Header and every frame but the last: a later frame says that they were durable.
            refused: last * 8,
            below_watermark: (all - last) * 8,
            // The reserved tail holds nothing.
            whole: (bytes - all) * 8,
            ..Outcomes::default()
        };
        assert_eq!(outcomes, expected, "{kind:?}");
        assert_eq!(outcomes.total(), bytes * 8);
    }
}

#[test]
fn every_truncation_of_an_open_segment_keeps_its_whole_frames_and_shows_against_the_watermark() {
    for kind in KINDS {
        let bytes = segment(kind, SegmentState::Open);
        let tapes = tapes(kind);
        let mut outcomes = Outcomes::default();
        for cut in 0..=bytes.len() {
            // Behind a cut there is no later frame to prove anything.
            judge(&bytes[..cut], &tapes, 0, &mut outcomes);
        }
        let all = bytes_of_frames(&records(kind));
        let expected = Outcomes {
            below_watermark: all,
            whole: bytes.len() - all + 1,
            ..Outcomes::default()
        };
        assert_eq!(outcomes, expected, "{kind:?}");
    }
}

#[test]
fn the_same_flips_catch_a_recovery_that_never_refuses_and_one_that_checks_no_checksum() {
    for kind in KINDS {
        let never = sabotage::with(Sabotage::NeverRefuse, || every_flip(kind));
        assert!(never.provable_cut > 1_000, "{never:?}");
        let unchecked = sabotage::with(Sabotage::NoChecksum, || every_flip(kind));
        assert!(unchecked.silent > 1_000, "{unchecked:?}");
    }
}

type Files = Vec<(PathBuf, Vec<u8>)>;

/// The files of a log of two sealed segments, an open one, a prepared one and the manifest.
fn whole_log() -> (Files, Vec<Vec<u8>>) {
    let disk = SimDisk::new(Fate::Reliable);
    let options = Options {
        segment_bytes: 1 << 10,
        ..manual()
    };
    let writer = Writer::open_on(Arc::new(disk.clone()), Path::new(DIR), options).unwrap();
    let mut tapes = vec![Vec::new()];
    for number in 1..=13 {
        let record = super::support::record(number);
        writer.append_durable(&record).unwrap();
        tapes.push([tapes[tapes.len() - 1].clone(), record].concat());
    }
    // As a process leaves them that is killed: dropping it would remove the prepared segment.
    let files = disk.files();
    drop(writer);
    (files, tapes)
}

fn disk_of(files: &[(PathBuf, Vec<u8>)]) -> SimDisk {
    let files: Vec<(&Path, &[u8])> = files
        .iter()
        .map(|(path, bytes)| (path.as_path(), bytes.as_slice()))
        .collect();
    SimDisk::with_files(&files)
}

#[test]
fn every_bit_flip_of_every_file_of_a_log_is_refused_or_costs_no_record_but_the_last() {
    let (mut files, tapes) = whole_log();
    let names: Vec<String> = files
        .iter()
        .map(|(path, _)| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    let kinds = [
        "00000001.seg",
        "00000002.seg",
        "00000003.open",
        "00000004.next",
        "manifest.log",
    ];
    for kind in kinds {
        assert!(names.iter().any(|name| name == kind), "{names:?}");
    }
    let watermark = tapes.len() - 1;
    for (index, name) in names.iter().enumerate() {
        let bits = files[index].1.len() * 8;
        let (mut refused, mut whole, mut last_lost) = (0, 0, 0);
        for bit in 0..bits {
            flip(&mut files[index].1, bit);
            let disk = disk_of(&files);
            match recover_on(&disk, Path::new(DIR)) {
                Err(_) => refused += 1,
                Ok((report, _)) => {
                    let count = usize::try_from(report.last_seq.unwrap_or(0)).unwrap();
                    let read = read_log_on(&disk, Path::new(DIR)).unwrap();
                    assert_eq!(read.tape, tapes[count], "{name}, bit {bit}");
                    match watermark - count {
                        0 => whole += 1,
                        1 => last_lost += 1,
                        lost => panic!("{name}, bit {bit}: {lost} records lost"),
                    }
                }
            }
            flip(&mut files[index].1, bit);
        }
        assert_eq!(refused + whole + last_lost, bits, "{name}");
        match name.as_str() {
            name if name.ends_with(".seg") => assert_eq!(refused, bits, "{name}"),
            name if name.ends_with(".next") => assert_eq!(whole, bits, "{name}"),
            // The last frame has no witness: only the watermark knows of it.
            name if name.ends_with(".open") => {
                let frame = frame_bytes(super::support::record(13).len());
                assert_eq!(last_lost, frame * 8, "{name}");
                assert!(refused > 0 && whole > 0, "{name}");
            }
            _ => assert_eq!(last_lost, 0, "{name}"),
        }
    }
}

#[test]
fn every_missing_file_and_every_truncation_of_the_manifest_is_refused_or_costs_no_record() {
    let (files, tapes) = whole_log();
    let watermark = tapes.len() as u64 - 1;
    for (index, (path, bytes)) in files.iter().enumerate() {
        let name = path.file_name().unwrap().to_str().unwrap();
        let mut fewer = files.clone();
        fewer.remove(index);
        let outcome = recover_on(&disk_of(&fewer), Path::new(DIR));
        if name.ends_with(".seg") || name.ends_with(".open") {
            assert!(outcome.is_err(), "{name} is gone and nobody noticed");
        } else {
            assert_eq!(outcome.unwrap().0.last_seq, Some(watermark), "{name}");
        }
        for cut in (0..bytes.len()).filter(|_| name == "manifest.log") {
            let mut shorter = files.clone();
            shorter[index].1.truncate(cut);
            let (report, _) = recover_on(&disk_of(&shorter), Path::new(DIR)).unwrap();
            assert_eq!(report.last_seq, Some(watermark), "{name} cut at {cut}");
        }
    }
}

#[test]
fn a_refused_flip_is_named_damage() {
    let mut bytes = segment(LogKind::Orders, SegmentState::Open);
    flip(&mut bytes, (SEGMENT_HEADER_BYTES + 50) * 8);
    let name = path(SegmentState::Open);
    let disk = SimDisk::with_files(&[(&name, &bytes)]);
    let error = recover_on(&disk, Path::new(DIR)).unwrap_err();
    assert_eq!(error.code(), ReasonCode::WalDamaged);
}
