//! Reads segments and logs, and says precisely what is wrong with one. Changes nothing on disk.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::disk::{Disk, OsDisk};
use super::error::{Fault, Following, WalError};
use super::manifest::{self, Manifest};
use super::sabotage::{self, Sabotage};
use super::scan::{Scan, Stop, find_following, must_be, scan_frames};
use super::segment::{
    FOOTER_BYTES, Footer, HeaderFault, LogKind, SEGMENT_HEADER_BYTES, SegmentHeader, SegmentInfo,
    SegmentState, SegmentStats, hex, parse_name,
};

/// How often a segment that another process is writing is read again before a fault in it counts.
const READ_TRIES_MAX: usize = 4;

/// A segment's records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Identity and span.
    pub info: SegmentInfo,
    /// Its records back to back.
    pub tape: Vec<u8>,
    /// What stands behind the last whole frame of an open segment, if anything does.
    pub torn: Option<TornTail>,
}

/// Bytes behind the last whole frame that are not a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// Where they start.
    pub offset: u64,
    /// Bytes up to the end of the file.
    pub bytes: u64,
    /// Sequence the frame there would have had.
    pub seq: u64,
    /// Why they are not a frame.
    pub fault: Fault,
    /// Valid frames in them; none says that the bad one was durable.
    pub following: Following,
}

/// A log's records.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Log {
    /// Its segments in order.
    pub segments: Vec<SegmentInfo>,
    /// All records back to back, `seq` growing by one.
    pub tape: Vec<u8>,
    /// What stands behind the last whole frame of the open segment, if anything does.
    pub torn: Option<TornTail>,
}

/// What is wrong with a segment, if anything is.
#[derive(Debug, Clone)]
pub struct SegmentCheck {
    /// The file.
    pub path: PathBuf,
    /// Size of the file.
    pub file_bytes: u64,
    /// Identity and span, or the error a reader would raise.
    pub outcome: Result<SegmentInfo, WalError>,
    /// Frames that are valid from the start on.
    pub valid_frames: u64,
    /// Sequence of the last of them.
    pub last_valid_seq: Option<u64>,
    /// First byte that is not part of a valid header, frame or footer.
    pub bad_offset: Option<u64>,
    /// Why not.
    pub fault: Option<Fault>,
    /// What was found behind it.
    pub following: Following,
}

/// Reads one segment. A sealed one must match its footer and hash; an open one is read up to its
/// last whole frame.
///
/// # Errors
/// Damage (602), a sealed segment that does not match (603), another schema (604), a segment cut
/// while it was created (601), or a file that cannot be read (612).
pub fn read_segment(path: &Path) -> Result<Segment, WalError> {
    let mut tape = Vec::new();
    let found = read_segment_on(&OsDisk, path, &mut Vec::new(), Some(&mut tape))?;
    Ok(Segment {
        info: found.info,
        tape,
        torn: found.torn,
    })
}

/// Reads all segments of a log in order.
///
/// # Errors
/// As [`read_segment`], a missing, archived or foreign segment (610), a damaged manifest (602).
pub fn read_log(dir: &Path) -> Result<Log, WalError> {
    read_log_on(&OsDisk, dir)
}

/// What a whole log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogCheck {
    /// Segments in its folder.
    pub segment_count: u64,
    /// Segments that were archived or deleted, and are not in the folder.
    pub away_count: u64,
    /// False for a log of an earlier version, of which a lost last segment is not noticed.
    pub has_manifest: bool,
}

/// Holds every segment of a log against its footer, its neighbors and the manifest.
///
/// # Errors
/// As [`read_log`]; archived and deleted segments may be missing.
pub fn verify_log(dir: &Path) -> Result<LogCheck, WalError> {
    again_if_missing(|| verify_log_once(dir))
}

/// What the segments in a log's folder span, in order, without their records.
///
/// # Errors
/// As [`verify_log`].
pub fn list_segments(dir: &Path) -> Result<Vec<SegmentInfo>, WalError> {
    again_if_missing(|| segments_of(dir, manifest::read_on(&OsDisk, dir)?.as_ref()))
}

fn segments_of(dir: &Path, manifest: Option<&Manifest>) -> Result<Vec<SegmentInfo>, WalError> {
    let mut segments = Vec::new();
    walk(&OsDisk, dir, manifest, None, |step| {
        if let Step::Whole(found) = step {
            segments.push(found.info);
        }
    })?;
    Ok(segments)
}

fn verify_log_once(dir: &Path) -> Result<LogCheck, WalError> {
    let manifest = manifest::read_on(&OsDisk, dir)?;
    let segments = segments_of(dir, manifest.as_ref())?;
    let mut away_count = 0;
    if let Some(manifest) = &manifest {
        manifest.check(dir, &segments)?;
        let mut away = manifest.taken_away(dir);
        away.retain(|id, _| segments.iter().all(|info| info.segment_id != *id));
        away_count = size(away.len());
    }
    Ok(LogCheck {
        segment_count: size(segments.len()),
        away_count,
        has_manifest: manifest.is_some(),
    })
}

/// Checks one segment and reports what it found; only a file that cannot be read is an error.
///
/// # Errors
/// A file that cannot be read (612) or is not named like a segment (515).
pub fn verify_segment(path: &Path) -> Result<SegmentCheck, WalError> {
    let (segment_id, state) = named(path)?;
    let mut bytes = Vec::new();
    OsDisk
        .read_into(path, &mut bytes)
        .map_err(|error| read_failed(path, "reading", error))?;
    Ok(check_bytes(path, segment_id, state, &bytes))
}

pub(super) fn check_bytes(
    path: &Path,
    segment_id: u64,
    state: SegmentState,
    bytes: &[u8],
) -> SegmentCheck {
    let outcome = inspect(path, segment_id, state, bytes, None).map(|found| found.info);
    let mut check = SegmentCheck {
        path: path.to_path_buf(),
        file_bytes: size(bytes.len()),
        outcome,
        valid_frames: 0,
        last_valid_seq: None,
        bad_offset: None,
        fault: None,
        following: Following::default(),
    };
    let header = match SegmentHeader::decode(bytes) {
        Ok(header) => header,
        Err(HeaderFault::Schema(..)) => return check,
        Err(HeaderFault::Bad(fault)) => {
            check.bad_offset = Some(0);
            check.fault = Some(fault);
            check.following = find_following(bytes, SEGMENT_HEADER_BYTES, None, 0);
            return check;
        }
    };
    let scan = scan_frames(bytes, &header, None);
    check.valid_frames = scan.stats.map_or(0, |stats| stats.record_count);
    check.last_valid_seq = scan.stats.map(|stats| stats.last_seq);
    if let Stop::Bad(fault) = scan.stop {
        check.bad_offset = Some(size(scan.data_bytes));
        check.fault = Some(fault);
        check.following = find_following(bytes, scan.data_bytes, Some(scan.next_seq), header.epoch);
    } else if let Err(WalError::SealedMismatch { offset, fault, .. }) = &check.outcome {
        check.bad_offset = Some(*offset);
        check.fault = Some(fault.clone());
    }
    check
}

pub(super) fn read_log_on(disk: &dyn Disk, dir: &Path) -> Result<Log, WalError> {
    again_if_missing(|| read_log_once(disk, dir))
}

/// A log's writer and archiver may be at work: what is missing is missing at a second look, with a
/// manifest read after the file was taken away.
fn again_if_missing<T>(look: impl Fn() -> Result<T, WalError>) -> Result<T, WalError> {
    for _ in 1..READ_TRIES_MAX {
        match look() {
            Err(WalError::Missing { .. }) => {}
            outcome => return outcome,
        }
    }
    look()
}

fn read_log_once(disk: &dyn Disk, dir: &Path) -> Result<Log, WalError> {
    // Before the folder: whatever it names is there when the folder is listed.
    let manifest = manifest::read_on(disk, dir)?;
    let mut log = Log::default();
    let mut tape = Vec::new();
    walk(disk, dir, manifest.as_ref(), Some(&mut tape), |step| {
        match step {
            Step::Whole(found) => {
                log.torn = found.torn;
                log.segments.push(found.info);
            }
            // Cut while it was created: it holds nothing, a recovery removes it.
            Step::Headless { .. } => {}
        }
    })?;
    if let Some(manifest) = &manifest {
        manifest.check(dir, &log.segments)?;
        // A log without its archived segments is not the log.
        manifest.check_none_away(dir, &log.segments)?;
    }
    Ok(Log { tape, ..log })
}

/// A segment that holds what it must, without its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) info: SegmentInfo,
    pub(super) torn: Option<TornTail>,
    /// An open segment with a whole footer: only the rename is missing.
    pub(super) is_complete: bool,
}

/// One file of a log.
#[derive(Debug)]
pub(super) enum Step {
    /// A segment.
    Whole(Box<Found>),
    /// The last file has no valid header, and no frame.
    Headless {
        /// The file.
        path: PathBuf,
        /// What is wrong with the header.
        fault: Fault,
    },
}

/// Visits the segments of a log in order and checks that they follow each other. Their records go
/// to `tape`, if there is one. Segments that the manifest says were archived or deleted may be
/// missing.
pub(super) fn walk(
    disk: &dyn Disk,
    dir: &Path,
    manifest: Option<&Manifest>,
    mut tape: Option<&mut Vec<u8>>,
    mut visit: impl FnMut(Step),
) -> Result<(), WalError> {
    let names = disk
        .list(dir)
        .map_err(|error| read_failed(dir, "listing", error))?;
    let mut files: Vec<(u64, SegmentState)> =
        names.iter().filter_map(|name| parse_name(name)).collect();
    files.sort_unstable_by_key(|file| file.0);
    let mut away = manifest
        .map(|manifest| manifest.taken_away(dir))
        .unwrap_or_default();
    let mut before: Option<SegmentInfo> = None;
    let mut content = Vec::new();
    for (index, (segment_id, state)) in files.iter().copied().enumerate() {
        let path = super::segment::segment_path(dir, segment_id, state);
        let layout = |what| {
            Err(WalError::Layout {
                path: path.clone(),
                what,
            })
        };
        let is_last = index + 1 == files.len();
        if files
            .get(index + 1)
            .is_some_and(|next| next.0 == segment_id)
        {
            return layout("the segment exists twice, open and sealed");
        }
        if state == SegmentState::Open && !is_last {
            return layout("an open segment stands before another segment");
        }
        match read_segment_on(disk, &path, &mut content, tape.as_deref_mut()) {
            Ok(found) => {
                if let Some(before) = before.take() {
                    let before = (before.segment_id + 1..found.info.segment_id)
                        .map_while(|id| away.remove(&id))
                        .last()
                        .unwrap_or(before);
                    check_follows(&before, &found.info)?;
                }
                before = Some(found.info.clone());
                visit(Step::Whole(Box::new(found)));
            }
            Err(WalError::TornHeader { path, .. })
                if manifest.is_some_and(|manifest| manifest.has_begun(segment_id)) =>
            {
                return Err(WalError::Layout {
                    path,
                    what: "the manifest says this segment was begun: its header was durable and is lost",
                });
            }
            Err(WalError::TornHeader { path, fault }) => visit(Step::Headless { path, fault }),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads a file into `content` and, if it holds what it must, its records behind those in `tape`.
fn read_segment_on(
    disk: &dyn Disk,
    path: &Path,
    content: &mut Vec<u8>,
    mut tape: Option<&mut Vec<u8>>,
) -> Result<Found, WalError> {
    let (segment_id, state) = named(path)?;
    let tape_bytes = tape.as_deref().map_or(0, Vec::len);
    let mut last_offset = None;
    for _ in 0..READ_TRIES_MAX {
        match disk.read_into(path, content) {
            Ok(()) => {}
            // The writer sealed it between listing and reading.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound && state == SegmentState::Open =>
            {
                let sealed = path.with_extension("seg");
                let missing = |_| read_failed(path, "reading", error);
                disk.read_into(&sealed, content).map_err(missing)?;
                return inspect(&sealed, segment_id, SegmentState::Sealed, content, tape);
            }
            Err(error) => return Err(read_failed(path, "reading", error)),
        }
        let outcome = inspect(path, segment_id, state, content, tape.as_deref_mut());
        // A writer may fill a page after it was read: what is damaged is damaged at a second look.
        match &outcome {
            Err(WalError::Damaged { offset, .. }) if last_offset != Some(*offset) => {
                last_offset = Some(*offset);
                if let Some(tape) = tape.as_deref_mut() {
                    tape.truncate(tape_bytes);
                }
            }
            _ => return outcome,
        }
    }
    Err(WalError::Layout {
        path: path.to_path_buf(),
        what: "the segment changes faster than it can be read",
    })
}

/// Holds the bytes of one file against everything they must satisfy.
pub(super) fn inspect(
    path: &Path,
    segment_id: u64,
    state: SegmentState,
    bytes: &[u8],
    mut tape: Option<&mut Vec<u8>>,
) -> Result<Found, WalError> {
    let header = match SegmentHeader::decode(bytes) {
        Ok(header) => header,
        Err(HeaderFault::Schema(was, expected)) => {
            return Err(WalError::SchemaMismatch {
                path: path.to_path_buf(),
                was,
                expected,
            });
        }
        Err(HeaderFault::Bad(fault)) => return Err(headless(path, state, bytes, fault)),
    };
    if let Some(tape) = tape.as_deref_mut() {
        tape.reserve(bytes.len());
    }
    let scan = scan_frames(bytes, &header, tape);
    match state {
        SegmentState::Sealed => inspect_sealed(path, segment_id, bytes, &header, &scan),
        SegmentState::Open => inspect_open(path, segment_id, bytes, &header, &scan),
    }
}

/// The header is durable before the first frame is written: without it, a frame means damage.
fn headless(path: &Path, state: SegmentState, bytes: &[u8], fault: Fault) -> WalError {
    let path = path.to_path_buf();
    if state == SegmentState::Sealed {
        return WalError::SealedMismatch {
            path,
            offset: 0,
            fault,
        };
    }
    let following = find_following(bytes, SEGMENT_HEADER_BYTES, None, 0);
    if following.frames == 0 {
        return WalError::TornHeader { path, fault };
    }
    WalError::Damaged {
        path,
        offset: 0,
        seq: 0,
        fault,
        following: Box::new(following),
    }
}

fn inspect_sealed(
    path: &Path,
    segment_id: u64,
    bytes: &[u8],
    header: &SegmentHeader,
    scan: &Scan,
) -> Result<Found, WalError> {
    let mismatch = |offset: usize| {
        move |fault: Fault| WalError::SealedMismatch {
            path: path.to_path_buf(),
            offset: size(offset),
            fault,
        }
    };
    if let Stop::Bad(fault) = &scan.stop {
        return Err(mismatch(scan.data_bytes)(fault.clone()));
    }
    must_be("segment id", header.segment_id, segment_id).map_err(mismatch(0))?;
    let footer_at = scan.data_bytes;
    let footer = whole_footer(bytes, scan).map_err(mismatch(footer_at))?;
    Ok(Found {
        info: info(
            path,
            SegmentState::Sealed,
            header,
            scan,
            bytes,
            Some(footer.sha256),
        ),
        torn: None,
        is_complete: true,
    })
}

fn inspect_open(
    path: &Path,
    segment_id: u64,
    bytes: &[u8],
    header: &SegmentHeader,
    scan: &Scan,
) -> Result<Found, WalError> {
    if header.segment_id != segment_id {
        return Err(WalError::SegmentGap {
            path: path.to_path_buf(),
            field: "segment id in the header",
            was: header.segment_id,
            expected: segment_id,
        });
    }
    let mut found = Found {
        info: info(path, SegmentState::Open, header, scan, bytes, None),
        torn: None,
        is_complete: false,
    };
    let fault = match &scan.stop {
        Stop::End => return Ok(found),
        Stop::Footer => match whole_footer(without_reserved_tail(bytes, scan), scan) {
            Ok(footer) => {
                found.info.sha256 = Some(footer.sha256);
                found.is_complete = true;
                return Ok(found);
            }
            Err(fault) => fault,
        },
        Stop::Bad(fault) => fault.clone(),
    };
    let following = find_following(bytes, scan.data_bytes, Some(scan.next_seq), header.epoch);
    if proves_damage(&following, scan.next_seq) {
        return Err(WalError::Damaged {
            path: path.to_path_buf(),
            offset: size(scan.data_bytes),
            seq: scan.next_seq,
            fault,
            following: Box::new(following),
        });
    }
    found.torn = Some(TornTail {
        offset: size(scan.data_bytes),
        bytes: size(bytes.len().saturating_sub(scan.data_bytes)),
        seq: scan.next_seq,
        fault,
        following,
    });
    Ok(found)
}

/// Whether what follows says that the frame with `bad_seq` was durable once.
pub(super) fn proves_damage(following: &Following, bad_seq: u64) -> bool {
    if sabotage::is(Sabotage::RefuseAnyLaterFrame) {
        return following.frames > 0;
    }
    !sabotage::is(Sabotage::NeverRefuse)
        && following
            .durable_seq
            .is_some_and(|durable_seq| durable_seq >= bad_seq)
}

/// The bytes up to the end of a footer behind the frames, if only zeros follow it: the writer died
/// between writing the footer and cutting the reserved tail.
fn without_reserved_tail<'a>(bytes: &'a [u8], scan: &Scan) -> &'a [u8] {
    match bytes.split_at_checked(scan.data_bytes + FOOTER_BYTES) {
        Some((whole, tail)) if tail.iter().all(|byte| *byte == 0) => whole,
        _ => bytes,
    }
}

/// The footer at the end of `scan`, if it is the file's end and matches what was scanned.
fn whole_footer(bytes: &[u8], scan: &Scan) -> Result<Footer, Fault> {
    let (data, rest) = bytes
        .split_at_checked(scan.data_bytes)
        .unwrap_or((bytes, &[]));
    let footer = Footer::decode(rest)?;
    must_be(
        "bytes behind the frames",
        size(rest.len()),
        size(FOOTER_BYTES),
    )?;
    must_be("data bytes", footer.data_bytes, size(data.len()))?;
    let zero = SegmentStats {
        record_count: 0,
        first_seq: 0,
        last_seq: 0,
        first_input_seq: 0,
        last_input_seq: 0,
        min_sequence_time_ns: 0,
        max_sequence_time_ns: 0,
    };
    let (was, expected) = (footer.stats, scan.stats.unwrap_or(zero));
    must_be("record count", was.record_count, expected.record_count)?;
    must_be("first sequence", was.first_seq, expected.first_seq)?;
    must_be("last sequence", was.last_seq, expected.last_seq)?;
    must_be(
        "first input_seq",
        was.first_input_seq,
        expected.first_input_seq,
    )?;
    must_be(
        "last input_seq",
        was.last_input_seq,
        expected.last_input_seq,
    )?;
    must_be(
        "min sequence time",
        was.min_sequence_time_ns,
        expected.min_sequence_time_ns,
    )?;
    must_be(
        "max sequence time",
        was.max_sequence_time_ns,
        expected.max_sequence_time_ns,
    )?;
    let sha256: [u8; 32] = Sha256::digest(data).into();
    if sha256 != footer.sha256 {
        return Err(Fault::ContentHash {
            was: hex(&sha256),
            expected: hex(&footer.sha256),
        });
    }
    Ok(footer)
}

/// Segments of one log follow each other in id, sequence and epoch and share their identity.
fn check_follows(before: &SegmentInfo, after: &SegmentInfo) -> Result<(), WalError> {
    let next_seq = before
        .stats
        .map_or(before.first_seq, |stats| stats.last_seq.saturating_add(1));
    let kind_number = |kind: LogKind| kind as u64;
    for (field, was, expected) in [
        (
            "segment id",
            after.segment_id,
            before.segment_id.saturating_add(1),
        ),
        ("wal_id", after.wal_id.into(), before.wal_id.into()),
        (
            "log kind",
            kind_number(after.kind),
            kind_number(before.kind),
        ),
        ("first sequence", after.first_seq, next_seq),
        (
            "epoch",
            after.epoch.into(),
            after.epoch.max(before.epoch).into(),
        ),
    ] {
        if was != expected {
            return Err(WalError::SegmentGap {
                path: after.path.clone(),
                field,
                was,
                expected,
            });
        }
    }
    Ok(())
}

fn info(
    path: &Path,
    state: SegmentState,
    header: &SegmentHeader,
    scan: &Scan,
    bytes: &[u8],
    sha256: Option<[u8; 32]>,
) -> SegmentInfo {
    SegmentInfo {
        path: path.to_path_buf(),
        state,
        kind: header.kind,
        wal_id: header.wal_id,
        segment_id: header.segment_id,
        epoch: header.epoch,
        schema: header.schema,
        first_seq: header.first_seq,
        stats: scan.stats,
        file_bytes: size(bytes.len()),
        data_bytes: size(scan.data_bytes),
        sha256,
    }
}

fn named(path: &Path) -> Result<(u64, SegmentState), WalError> {
    path.file_name()
        .and_then(|name| name.to_str())
        .and_then(parse_name)
        .ok_or_else(|| WalError::Option {
            path: path.to_path_buf(),
            option: "file name",
            was: path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            expected: "eight digits and .seg or .open".to_owned(),
        })
}

pub(super) fn read_failed(path: &Path, operation: &'static str, error: io::Error) -> WalError {
    WalError::ReadFailed {
        path: path.to_path_buf(),
        operation,
        source: Arc::new(error),
    }
}

pub(super) fn size(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
