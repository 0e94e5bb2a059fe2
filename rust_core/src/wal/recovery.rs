//! Brings a log that a dead process left behind into its final form: every segment sealed.
//!
//! Why: a torn write is cut off and reported, damage is refused; both look the same at the bad
//! byte. What decides is in `scan::find_following`.
//!
//! | last file | valid frames | behind them | what is done |
//! |---|---|---|---|
//! | none, or sealed | | | nothing |
//! | no header | none | anything | removed (no frame is written before the header is durable) |
//! | no header | some | | refused (602) |
//! | open | none | no evidence | removed |
//! | open | some | whole footer | renamed |
//! | open | some | end or zeros | sealed |
//! | open | some | no evidence | cut there (601) and sealed |
//! | open | any | a frame written when the bad one was durable | refused (602) |
//!
//! Each step can be interrupted and repeated: the cut and the footer are durable before the rename.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::disk::{Disk, LockGuard, OsDisk};
use super::error::{Fault, WalError};
use super::reader::{Found, Step, read_failed, size, walk};
use super::sabotage::{self, Sabotage};
use super::segment::{FOOTER_BYTES, Footer, LogKind, SegmentState, SegmentStats, segment_path};
use crate::reason::ReasonCode;

/// File in a log's folder whose lock the writer holds; it is never removed.
pub(super) const LOCK_NAME: &str = "lock";

/// What recovery found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveryReport {
    /// The log's folder.
    pub dir: PathBuf,
    /// Sealed segments the log has now.
    pub segment_count: u64,
    /// Sequence of the last record, `None` without one.
    pub last_seq: Option<u64>,
    /// `input_seq` of the last record, `None` without one: what was decided on a later input of
    /// this log has lost its cause.
    pub last_input_seq: Option<u64>,
    /// What became of the last file.
    pub tail: RecoveredTail,
}

impl RecoveryReport {
    /// 601 if a torn tail was cut off, else `Unset`.
    #[must_use]
    pub fn code(&self) -> ReasonCode {
        match self.tail {
            RecoveredTail::Cut { .. } | RecoveredTail::Removed { fault: Some(_), .. } => {
                ReasonCode::WalTornTail
            }
            _ => ReasonCode::Unset,
        }
    }
}

/// What became of the last file of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecoveredTail {
    /// Every segment was sealed already.
    Nothing,
    /// The open segment ended with a whole frame; it was sealed.
    Sealed {
        /// The file, now sealed.
        path: PathBuf,
    },
    /// Bytes behind the last whole frame were cut off; the rest was sealed.
    Cut {
        /// The file, now sealed.
        path: PathBuf,
        /// Where the cut was made.
        offset: u64,
        /// Bytes cut off, a preallocated tail included.
        bytes: u64,
        /// Sequence the first lost frame would have had; it was never acknowledged.
        seq: u64,
        /// Why the bytes were not a frame.
        fault: Fault,
    },
    /// The open segment held no record and was removed.
    Removed {
        /// The file, gone.
        path: PathBuf,
        /// What stood in place of a header or frame, `None` if nothing did.
        fault: Option<Fault>,
    },
}

/// Where a writer goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Resume {
    pub(super) wal_id: u32,
    pub(super) kind: LogKind,
    pub(super) epoch: u32,
    pub(super) segment_id: u64,
    pub(super) last_seq: u64,
}

/// Recovers a log: cuts a torn tail, seals the open segment, verifies all others.
///
/// # Errors
/// Damage (602, 603), another schema (604), a missing segment (610), a live writer (611), or the
/// disk's refusal (605, 612). Nothing is changed on disk when the error is damage.
pub fn recover_log(dir: &Path) -> Result<RecoveryReport, WalError> {
    // Creating the lock file in a mistyped folder would look like an empty log.
    OsDisk
        .list(dir)
        .map_err(|error| read_failed(dir, "listing", error))?;
    let _lock = lock_log(&OsDisk, dir)?;
    recover_on(&OsDisk, dir).map(|(report, _)| report)
}

pub(super) fn lock_log(disk: &dyn Disk, dir: &Path) -> Result<LockGuard, WalError> {
    let path = dir.join(LOCK_NAME);
    match disk.lock(&path) {
        Ok(Some(guard)) => Ok(guard),
        Ok(None) => Err(WalError::Busy { path }),
        Err(error) => Err(write_failed(&path, "taking the lock", 0)(error)),
    }
}

/// Recovers the log in `dir`; the caller holds its lock.
pub(super) fn recover_on(
    disk: &dyn Disk,
    dir: &Path,
) -> Result<(RecoveryReport, Option<Resume>), WalError> {
    let mut report = RecoveryReport {
        dir: dir.to_path_buf(),
        segment_count: 0,
        last_seq: None,
        last_input_seq: None,
        tail: RecoveredTail::Nothing,
    };
    // A process that died between a rename and the sync of the folder left names that a power cut
    // may still undo, in any order: what is built on them must come after them.
    if !sabotage::is(Sabotage::NoFolderSync) {
        sync_folder(disk, dir)?;
    }
    let mut resume: Option<Resume> = None;
    let mut open: Option<Step> = None;
    walk(disk, dir, None, |step| match step {
        Step::Whole(found) if found.info.state == SegmentState::Sealed => {
            report.segment_count += 1;
            note(&mut report, &mut resume, &found);
        }
        step => open = Some(step),
    })?;
    match open {
        None => {}
        Some(Step::Headless { path, fault }) => {
            remove(disk, dir, &path)?;
            report.tail = RecoveredTail::Removed {
                path,
                fault: Some(fault),
            };
        }
        Some(Step::Whole(found)) => match found.info.stats {
            None => {
                remove(disk, dir, &found.info.path)?;
                let fault = found.torn.as_ref().map(|torn| torn.fault.clone());
                report.tail = RecoveredTail::Removed {
                    path: found.info.path,
                    fault,
                };
            }
            Some(stats) => {
                report.tail = seal_found(disk, dir, &found, stats)?;
                report.segment_count += 1;
                note(&mut report, &mut resume, &found);
            }
        },
    }
    Ok((report, resume))
}

/// Cuts an open segment behind its last whole frame, writes the footer if it has none, renames it.
fn seal_found(
    disk: &dyn Disk,
    dir: &Path,
    found: &Found,
    stats: SegmentStats,
) -> Result<RecoveredTail, WalError> {
    let info = &found.info;
    let path = segment_path(dir, info.segment_id, SegmentState::Sealed);
    let fail = |operation| write_failed(&info.path, operation, stats.last_seq);
    let file = disk
        .open(&info.path)
        .map_err(fail("opening for recovery"))?;
    if !found.is_complete {
        let mut bytes = Vec::new();
        disk.read_into(&info.path, &mut bytes)
            .map_err(|error| read_failed(&info.path, "reading", error))?;
        let data_bytes = usize::try_from(info.data_bytes).unwrap_or(usize::MAX);
        let data = bytes.get(..data_bytes).unwrap_or_default();
        let footer = Footer {
            stats,
            data_bytes: info.data_bytes,
            sha256: Sha256::digest(data).into(),
        };
        file.truncate(info.data_bytes)
            .map_err(fail("cutting the tail"))?;
        file.write_at(info.data_bytes, &footer.encode())
            .map_err(fail("writing the footer"))?;
    }
    file.truncate(info.data_bytes + size(FOOTER_BYTES))
        .map_err(fail("cutting the tail"))?;
    file.sync().map_err(fail("syncing"))?;
    disk.rename(&info.path, &path).map_err(fail("renaming"))?;
    disk.sync_dir(dir).map_err(fail("syncing the folder"))?;
    Ok(match &found.torn {
        None => RecoveredTail::Sealed { path },
        Some(torn) => RecoveredTail::Cut {
            path,
            offset: torn.offset,
            bytes: torn.bytes,
            seq: torn.seq,
            fault: torn.fault.clone(),
        },
    })
}

fn remove(disk: &dyn Disk, dir: &Path, path: &Path) -> Result<(), WalError> {
    disk.remove(path)
        .map_err(write_failed(path, "removing an empty segment", 0))?;
    sync_folder(disk, dir)
}

fn sync_folder(disk: &dyn Disk, dir: &Path) -> Result<(), WalError> {
    disk.sync_dir(dir)
        .map_err(write_failed(dir, "syncing the folder", 0))
}

fn note(report: &mut RecoveryReport, resume: &mut Option<Resume>, found: &Found) {
    let info = &found.info;
    let last_seq = info
        .stats
        .map_or(info.first_seq.saturating_sub(1), |stats| stats.last_seq);
    report.last_seq = Some(last_seq);
    report.last_input_seq = info.stats.map(|stats| stats.last_input_seq);
    *resume = Some(Resume {
        wal_id: info.wal_id,
        kind: info.kind,
        epoch: info.epoch,
        segment_id: info.segment_id,
        last_seq,
    });
}

fn write_failed<'a>(
    path: &'a Path,
    operation: &'static str,
    durable_seq: u64,
) -> impl FnOnce(std::io::Error) -> WalError + 'a {
    move |error| WalError::WriteFailed {
        path: path.to_path_buf(),
        offset: 0,
        operation,
        durable_seq,
        source: Arc::new(error),
    }
}
