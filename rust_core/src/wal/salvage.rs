//! Takes what is provably good out of a log that recovery refuses, into new folders.
//!
//! Why: a refusal protects durable records from being cut off, and then somebody must get at the
//! ones that are whole. Every frame carries its own proof (checksum, sequence, epoch, record), so
//! what is good can be told from what is not, on both sides of the damage.
//!
//! Invariants:
//! 1. The damaged log is only read. Its lock is held meanwhile.
//! 2. A part is a log of its own, all sealed, with the sequences its records always had. Where
//!    records are missing a new part begins: no part has a hole.
//! 3. What was copied is read back before it is reported.
//! 4. A record stays in the schema it was written in, and its new segment says which that is.
//!
//! It does not decide to put a part in the log's place. Operator's page: `docs/wal-salvage.md`.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::disk::{Disk, OsDisk};
use super::error::{Fault, WalError};
use super::frame::{
    FRAME_ALIGN_BYTES, FRAME_HEADER_BYTES, Frame, FrameHead, decode_frame, encode_frame, frame_crc,
};
use super::manifest::{self, EntryKind, Identity, Manifest};
use super::reader::{inspect, proves_damage, read_failed, read_log_on, size};
use super::recovery::{LOCK_NAME, lock_log, write_failed};
use super::scan::{Stop, find_following, scan_frames};
use super::segment::{
    Footer, HeaderFault, LogKind, SEGMENT_HEADER_BYTES, SegmentHeader, SegmentState, SegmentStats,
    check_record, parse_name, segment_path, upgrade_record,
};
use crate::record_upgrade::SegmentSchema;

/// Records that follow each other without a hole, as a log of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SalvagedPart {
    /// Its folder.
    pub dir: PathBuf,
    /// What it spans.
    pub stats: SegmentStats,
}

/// Bytes that are no records any more, or a file that is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hole {
    /// The file.
    pub path: PathBuf,
    /// First bad byte.
    pub from_offset: u64,
    /// Where the next whole frame begins, or the file ends.
    pub to_offset: u64,
    /// What is wrong there.
    pub fault: String,
    /// Sequence of the first missing record.
    pub first_seq: u64,
    /// Sequence of the last missing record; `None` when nothing says how many there were.
    pub last_seq: Option<u64>,
    /// `input_seq` of the record before the hole.
    pub after_input_seq: Option<u64>,
    /// `input_seq` of the record behind it.
    pub before_input_seq: Option<u64>,
    /// Whether it may have held acknowledged records; a torn tail held none.
    pub was_durable: bool,
}

/// What was taken out of a damaged log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Salvage {
    /// The damaged log.
    pub dir: PathBuf,
    /// Which log it is.
    pub wal_id: u32,
    /// Its kind.
    pub kind: LogKind,
    /// The new logs, in order; the first goes from the log's beginning to the first hole.
    pub parts: Vec<SalvagedPart>,
    /// What is missing between and behind them.
    pub holes: Vec<Hole>,
}

/// Copies what is good in the log in `dir` into `target`, which must not exist: the records up to
/// the first hole as a log there, those behind a hole as logs in its subfolders `after-<seq>`.
///
/// # Errors
/// A log without one whole record, or a target that exists (515); another schema (604); a live
/// writer (611); the disk's refusal (605, 612).
pub fn salvage_log(dir: &Path, target: &Path) -> Result<Salvage, WalError> {
    let disk = OsDisk;
    if target.exists() {
        return Err(WalError::Option {
            path: target.to_path_buf(),
            option: "target",
            was: "there".to_owned(),
            expected: "a folder that is not there yet".to_owned(),
        });
    }
    let names = disk
        .list(dir)
        .map_err(|error| read_failed(dir, "listing", error))?;
    // Without a lock file there is no writer, and making one would change the folder.
    let _lock = match names.iter().any(|name| name == LOCK_NAME) {
        true => Some(lock_log(&disk, dir)?),
        false => None,
    };
    let listed = manifest::read_on(&disk, dir).ok().flatten();
    let files = files_of(dir, &names)?;
    let identity = identity_of(dir, listed.as_ref(), &files)?;
    let mut taking = Taking::new(dir, target, &disk, schemas_of(&files));
    for file in &files {
        taking.note_missing_files(listed.as_ref(), file.segment_id);
        taking.take_file(file, identity)?;
    }
    taking.note_missing_files(listed.as_ref(), u64::MAX);
    taking.finish(identity)
}

/// One segment file and its bytes.
struct SegmentFile {
    path: PathBuf,
    segment_id: u64,
    state: SegmentState,
    bytes: Vec<u8>,
    is_last: bool,
}

/// The segment files in order. Of two with one id the sealed one counts.
fn files_of(dir: &Path, names: &[String]) -> Result<Vec<SegmentFile>, WalError> {
    let mut ids: Vec<(u64, SegmentState)> =
        names.iter().filter_map(|name| parse_name(name)).collect();
    ids.sort_unstable_by_key(|(id, state)| (*id, *state == SegmentState::Open));
    ids.dedup_by_key(|(id, _)| *id);
    let last = ids.last().map(|(id, _)| *id);
    let mut files = Vec::new();
    for (segment_id, state) in ids {
        let path = segment_path(dir, segment_id, state);
        let mut bytes = Vec::new();
        OsDisk
            .read_into(&path, &mut bytes)
            .map_err(|error| read_failed(&path, "reading", error))?;
        files.push(SegmentFile {
            path,
            segment_id,
            state,
            bytes,
            is_last: last == Some(segment_id),
        });
    }
    Ok(files)
}

fn identity_of(
    dir: &Path,
    listed: Option<&Manifest>,
    files: &[SegmentFile],
) -> Result<Identity, WalError> {
    for file in files {
        match SegmentHeader::decode(&file.bytes) {
            Ok(header) => {
                let SegmentHeader { wal_id, kind, .. } = header;
                return Ok(Identity { wal_id, kind });
            }
            Err(HeaderFault::Schema(was, expected)) => {
                return Err(WalError::SchemaMismatch {
                    path: file.path.clone(),
                    was,
                    expected,
                });
            }
            Err(HeaderFault::Bad(_)) => {}
        }
    }
    listed
        .map(|listed| listed.identity)
        .ok_or_else(|| nothing(dir))
}

/// The schemas that the headers name, each once; today's when no header is whole.
fn schemas_of(files: &[SegmentFile]) -> Vec<SegmentSchema> {
    let mut schemas = Vec::new();
    for file in files {
        if let Ok(header) = SegmentHeader::decode(&file.bytes)
            && !schemas.contains(&header.schema)
        {
            schemas.push(header.schema);
        }
    }
    if schemas.is_empty() {
        schemas.push(SegmentSchema::Current);
    }
    schemas
}

fn nothing(dir: &Path) -> WalError {
    WalError::Option {
        path: dir.to_path_buf(),
        option: "log_dir",
        was: "without one whole record".to_owned(),
        expected: "a log".to_owned(),
    }
}

/// Frames that follow each other in one file.
struct Run<'a> {
    from: usize,
    to: usize,
    epoch: u32,
    frames: Vec<Frame<'a>>,
    stats: SegmentStats,
}

/// The runs of a file, and why each of them but the last ended.
fn runs<'a>(
    bytes: &'a [u8],
    kind: LogKind,
    schema: SegmentSchema,
    header: Option<&SegmentHeader>,
    next_seq: u64,
) -> Vec<Run<'a>> {
    let mut upgraded = Vec::new();
    let mut runs: Vec<Run<'a>> = Vec::new();
    let mut at = SEGMENT_HEADER_BYTES;
    let mut chain = header.map(SegmentHeader::chain_seed);
    let mut low = header.map_or(next_seq, |header| header.first_seq);
    while let Some(rest) = bytes
        .get(at..)
        .filter(|rest| rest.len() > FRAME_HEADER_BYTES)
    {
        let bound = low.saturating_add(size(rest.len() / FRAME_HEADER_BYTES));
        let found = good_frame(rest, kind, schema, &mut upgraded)
            .filter(|(frame, _)| (low..=bound).contains(&frame.seq))
            .filter(|(frame, _)| header.is_none_or(|header| frame.epoch == header.epoch));
        let Some((frame, record)) = found else {
            chain = None;
            at += FRAME_ALIGN_BYTES;
            continue;
        };
        let goes_on = chain == Some(frame.prev_crc) && frame.seq == low;
        match runs.last_mut().filter(|_| goes_on) {
            Some(run) => {
                run.stats = SegmentStats::with(Some(run.stats), frame.seq, &record);
                run.to = at + frame.frame_bytes();
                run.frames.push(frame);
            }
            None => runs.push(Run {
                from: at,
                to: at + frame.frame_bytes(),
                epoch: frame.epoch,
                frames: vec![frame],
                stats: SegmentStats::with(None, frame.seq, &record),
            }),
        }
        chain = Some(frame.crc);
        low = frame.seq.saturating_add(1);
        at += frame.frame_bytes();
    }
    runs
}

/// A whole frame with one record of this log, laid out by `schema`.
fn good_frame<'a>(
    bytes: &'a [u8],
    kind: LogKind,
    schema: SegmentSchema,
    upgraded: &mut Vec<u8>,
) -> Option<(Frame<'a>, crate::record::RecordHeader)> {
    let frame = decode_frame(bytes, frame_crc).ok()?;
    let record = match schema {
        SegmentSchema::Current => check_record(kind, frame.payload),
        SegmentSchema::Earlier(earlier) => upgrade_record(earlier, kind, frame.payload, upgraded),
    };
    let record = record.ok()?;
    let is_same = frame.record_type == u16::from(record.record_type)
        && frame.time_ns.cast_signed() == record.sequence_time_ns
        && frame.sync_lag > 0;
    is_same.then_some((frame, record))
}

/// What was taken so far.
struct Taking<'a> {
    dir: &'a Path,
    target: &'a Path,
    disk: &'a OsDisk,
    parts: Vec<SalvagedPart>,
    holes: Vec<Hole>,
    next_id: Option<u64>,
    is_interrupted: bool,
    /// The log's schemas; that of the last whole header first.
    schemas: Vec<SegmentSchema>,
}

impl<'a> Taking<'a> {
    fn new(dir: &'a Path, target: &'a Path, disk: &'a OsDisk, schemas: Vec<SegmentSchema>) -> Self {
        Self {
            dir,
            target,
            disk,
            parts: Vec::new(),
            holes: Vec::new(),
            next_id: None,
            is_interrupted: false,
            schemas,
        }
    }

    /// The runs of a file in the schema that its header names; without a header, in the one of the
    /// log's that fits most of it.
    fn runs_of<'b>(
        &mut self,
        file: &'b SegmentFile,
        kind: LogKind,
        header: Option<&SegmentHeader>,
    ) -> (SegmentSchema, Vec<Run<'b>>) {
        let next_seq = self.next_seq();
        if let Some(header) = header {
            self.schemas.retain(|schema| *schema != header.schema);
            self.schemas.insert(0, header.schema);
            let found = runs(&file.bytes, kind, header.schema, Some(header), next_seq);
            return (header.schema, found);
        }
        let count = |found: &[Run<'_>]| found.iter().map(|run| run.frames.len()).sum::<usize>();
        let mut best = (SegmentSchema::Current, Vec::new());
        for schema in &self.schemas {
            let found = runs(&file.bytes, kind, *schema, None, next_seq);
            if best.1.is_empty() || count(&found) > count(&best.1) {
                best = (*schema, found);
            }
        }
        best
    }

    fn next_seq(&self) -> u64 {
        self.parts
            .last()
            .map_or(1, |part| part.stats.last_seq.saturating_add(1))
    }

    fn last_input_seq(&self) -> Option<u64> {
        self.parts.last().map(|part| part.stats.last_input_seq)
    }

    /// A hole for the files before `segment_id` that the manifest names, or the numbers miss.
    fn note_missing_files(&mut self, listed: Option<&Manifest>, segment_id: u64) {
        let segments = listed.map(Manifest::segments).unwrap_or_default();
        let from = self.next_id.unwrap_or(1);
        let is_gap = |id: &u64| *id >= from && *id < segment_id;
        let known: Vec<u64> = segments.keys().copied().filter(is_gap).collect();
        let last = segment_id.saturating_sub(1);
        let unknown = (segment_id != u64::MAX && self.next_id.is_some() && from <= last)
            .then_some(from..=last)
            .into_iter()
            .flatten()
            .filter(|id| !segments.contains_key(id));
        let mut gone: Vec<u64> = known.into_iter().chain(unknown).collect();
        gone.sort_unstable();
        for id in gone {
            let entry = segments.get(&id);
            let is_on_purpose = entry.is_some_and(|entry| {
                use EntryKind::{Archived, Deleted, Removed};
                matches!(entry.last.kind, Archived | Deleted | Removed)
            });
            if is_on_purpose && self.parts.is_empty() {
                continue;
            }
            let sealed = entry.and_then(|entry| entry.sealed);
            let hole = Hole {
                path: segment_path(self.dir, id, SegmentState::Sealed),
                from_offset: 0,
                to_offset: sealed.map_or(0, |sealed| sealed.data_bytes),
                fault: "the file is not there".to_owned(),
                first_seq: sealed.map_or_else(|| self.next_seq(), |sealed| sealed.first_seq),
                last_seq: sealed.map(|sealed| sealed.last_seq),
                after_input_seq: self.last_input_seq(),
                before_input_seq: None,
                was_durable: true,
            };
            self.holes.push(hole);
            self.is_interrupted = true;
        }
    }

    fn take_file(&mut self, file: &SegmentFile, identity: Identity) -> Result<(), WalError> {
        self.next_id = Some(file.segment_id.saturating_add(1));
        let header = SegmentHeader::decode(&file.bytes);
        let fault = match &header {
            Ok(header) if header.segment_id == file.segment_id => None,
            Ok(_) => Some("the header names another segment".to_owned()),
            Err(HeaderFault::Bad(fault)) => Some(fault.to_string()),
            Err(HeaderFault::Schema(was, expected)) => {
                return Err(WalError::SchemaMismatch {
                    path: file.path.clone(),
                    was: was.clone(),
                    expected: expected.clone(),
                });
            }
        };
        let header = header.ok().filter(|_| fault.is_none());
        let whole = inspect(&file.path, file.segment_id, file.state, &file.bytes, None);
        let is_whole_seal = whole.is_ok() && file.state == SegmentState::Sealed;
        let (schema, mut found) = self.runs_of(file, identity.kind, header.as_ref());
        let tail = tail_of(file, header.as_ref());
        if let Tail::Torn(..) = &tail {
            // As a recovery would: nothing behind the tear was acknowledged.
            found.truncate(1);
        }
        let mut at = 0;
        for run in &found {
            let starts_clean = run.from == SEGMENT_HEADER_BYTES && fault.is_none();
            if !starts_clean || run.stats.first_seq != self.next_seq() {
                self.hole_before(file, at, run, fault.as_ref());
            }
            let bytes = if is_whole_seal {
                file.bytes.clone()
            } else {
                sealed_bytes(file.segment_id, identity, schema, run)
            };
            self.write(file.segment_id, &bytes, run.stats)?;
            at = run.to;
        }
        self.hole_at_end(file, at, tail);
        Ok(())
    }

    fn hole_before(
        &mut self,
        file: &SegmentFile,
        at: usize,
        run: &Run<'_>,
        fault: Option<&String>,
    ) {
        let is_missing = run.stats.first_seq > self.next_seq();
        let is_first = self.parts.is_empty() && self.holes.is_empty() && at == 0;
        if !is_missing || (is_first && fault.is_none() && run.from == SEGMENT_HEADER_BYTES) {
            // Nothing is lost (a bad header), or the log begins here.
            self.is_interrupted |= run.stats.first_seq != self.next_seq();
            return;
        }
        let covered = self.holes.last().and_then(|hole| hole.last_seq);
        if covered.is_some_and(|last_seq| last_seq.saturating_add(1) == run.stats.first_seq) {
            self.is_interrupted = true;
            return;
        }
        let reason = bad_frame(&file.bytes, at.max(SEGMENT_HEADER_BYTES));
        self.holes.push(Hole {
            path: file.path.clone(),
            from_offset: size(at),
            to_offset: size(run.from),
            fault: fault.cloned().unwrap_or(reason),
            first_seq: self.next_seq(),
            last_seq: Some(run.stats.first_seq - 1),
            after_input_seq: self.last_input_seq(),
            before_input_seq: Some(run.stats.first_input_seq),
            was_durable: true,
        });
        self.is_interrupted = true;
    }

    fn hole_at_end(&mut self, file: &SegmentFile, at: usize, tail: Tail) {
        let (fault, last_seq, was_durable) = match tail {
            Tail::Clean => return,
            Tail::Torn(fault) => (fault, None, false),
            Tail::Damaged(fault, last_seq) => (fault, last_seq, true),
        };
        let first_seq = self.next_seq();
        if last_seq.is_some_and(|last_seq| last_seq < first_seq) {
            return;
        }
        self.holes.push(Hole {
            path: file.path.clone(),
            from_offset: size(at.max(SEGMENT_HEADER_BYTES)),
            to_offset: size(file.bytes.len()),
            fault: fault.to_string(),
            first_seq,
            last_seq,
            after_input_seq: self.last_input_seq(),
            before_input_seq: None,
            was_durable,
        });
        self.is_interrupted |= !file.is_last;
    }

    /// Adds a sealed segment to the part that goes on, or begins one.
    fn write(
        &mut self,
        segment_id: u64,
        bytes: &[u8],
        stats: SegmentStats,
    ) -> Result<(), WalError> {
        let goes_on = !self.is_interrupted && !self.parts.is_empty();
        if let Some(part) = self.parts.last_mut().filter(|_| goes_on) {
            write_file(self.disk, &part.dir, segment_id, bytes)?;
            part.stats = SegmentStats {
                record_count: part.stats.record_count + stats.record_count,
                last_seq: stats.last_seq,
                last_input_seq: stats.last_input_seq,
                min_sequence_time_ns: part
                    .stats
                    .min_sequence_time_ns
                    .min(stats.min_sequence_time_ns),
                max_sequence_time_ns: part
                    .stats
                    .max_sequence_time_ns
                    .max(stats.max_sequence_time_ns),
                ..part.stats
            };
            return Ok(());
        }
        // The hole before this part ends where it begins.
        if let Some(hole) = self.holes.last_mut() {
            hole.before_input_seq = Some(stats.first_input_seq);
            hole.last_seq = Some(stats.first_seq.saturating_sub(1)).max(hole.last_seq);
        }
        let is_beginning = self.parts.is_empty() && self.holes.is_empty();
        let dir = if is_beginning {
            self.target.to_path_buf()
        } else {
            self.target
                .join(format!("after-{}", stats.first_seq.saturating_sub(1)))
        };
        self.disk
            .create_dir(&dir)
            .map_err(write_failed(&dir, "creating the folder", 0))?;
        write_file(self.disk, &dir, segment_id, bytes)?;
        self.parts.push(SalvagedPart { dir, stats });
        self.is_interrupted = false;
        Ok(())
    }

    /// Reads back what was written.
    fn finish(self, identity: Identity) -> Result<Salvage, WalError> {
        if self.parts.is_empty() {
            return Err(nothing(self.dir));
        }
        for part in &self.parts {
            let log = read_log_on(self.disk, &part.dir)?;
            let records = log.segments.iter().filter_map(|info| info.stats);
            let count: u64 = records.map(|stats| stats.record_count).sum();
            if count != part.stats.record_count {
                return Err(WalError::Invariant {
                    path: part.dir.clone(),
                    what: "a salvaged part does not read back as it was written",
                });
            }
        }
        Ok(Salvage {
            dir: self.dir.to_path_buf(),
            wal_id: identity.wal_id,
            kind: identity.kind,
            parts: self.parts,
            holes: self.holes,
        })
    }
}

/// What stands behind a file's last good frame.
enum Tail {
    /// Nothing, zeros, or a footer that fits.
    Clean,
    /// An interrupted write: nothing acknowledged.
    Torn(Fault),
    /// Damage; the footer says what the last sequence was, if it is whole.
    Damaged(Fault, Option<u64>),
}

fn tail_of(file: &SegmentFile, header: Option<&SegmentHeader>) -> Tail {
    let footer_at = file.bytes.len().saturating_sub(super::FOOTER_BYTES);
    let footer = file.bytes.get(footer_at..).map(Footer::decode);
    let last_seq = footer
        .and_then(Result::ok)
        .map(|footer| footer.stats.last_seq);
    let lost = || Fault::Magic {
        structure: "segment header",
    };
    let Some(header) = header else {
        return Tail::Damaged(lost(), last_seq);
    };
    let scan = scan_frames(&file.bytes, header, None);
    let fault = match scan.stop {
        Stop::End if file.state == SegmentState::Open => return Tail::Clean,
        Stop::Footer if last_seq.is_some_and(|last_seq| last_seq < scan.next_seq) => {
            return Tail::Clean;
        }
        Stop::End | Stop::Footer => Fault::Magic {
            structure: "footer",
        },
        Stop::Bad(fault) => fault,
    };
    if file.state == SegmentState::Open && file.is_last {
        let following = find_following(
            &file.bytes,
            scan.data_bytes,
            Some(scan.next_seq),
            header.epoch,
        );
        if !proves_damage(&following, scan.next_seq) {
            return Tail::Torn(fault);
        }
    }
    Tail::Damaged(fault, last_seq)
}

fn bad_frame(bytes: &[u8], at: usize) -> String {
    let rest = bytes.get(at..).unwrap_or_default();
    match decode_frame(rest, frame_crc) {
        Ok(_) => "whole frames are missing, or of another segment".to_owned(),
        Err(fault) => fault.to_string(),
    }
}

/// A sealed segment of these frames. From the segment's beginning its bytes are the old ones.
fn sealed_bytes(
    segment_id: u64,
    identity: Identity,
    schema: SegmentSchema,
    run: &Run<'_>,
) -> Vec<u8> {
    let header = SegmentHeader {
        kind: identity.kind,
        wal_id: identity.wal_id,
        segment_id,
        first_seq: run.stats.first_seq,
        epoch: run.epoch,
        schema,
    };
    let mut bytes = header.encode().to_vec();
    let mut chain = header.chain_seed();
    for frame in &run.frames {
        let head = FrameHead {
            seq: frame.seq,
            epoch: frame.epoch,
            record_type: frame.record_type,
            time_ns: frame.time_ns,
            prev_crc: chain,
            sync_lag: frame.sync_lag,
        };
        // A decoded frame has a payload that can be encoded.
        chain = encode_frame(&mut bytes, &head, frame.payload, frame_crc).unwrap_or(chain);
    }
    let footer = Footer {
        stats: run.stats,
        data_bytes: size(bytes.len()),
        sha256: Sha256::digest(&bytes).into(),
    };
    bytes.extend_from_slice(&footer.encode());
    bytes
}

fn write_file(disk: &OsDisk, dir: &Path, segment_id: u64, bytes: &[u8]) -> Result<(), WalError> {
    let path = segment_path(dir, segment_id, SegmentState::Sealed);
    let file = disk
        .create(&path)
        .map_err(write_failed(&path, "creating", 0))?;
    file.write_at(0, bytes)
        .map_err(write_failed(&path, "writing", 0))?;
    file.sync().map_err(write_failed(&path, "syncing", 0))?;
    disk.sync_dir(dir)
        .map_err(write_failed(dir, "syncing the folder", 0))
}
