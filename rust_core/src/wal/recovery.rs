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
//! Before anything else the files are held against the manifest: a segment that it names and the
//! folder lacks (610), or one with another hash (603), is refused. Prepared segments (`.next`) held
//! no record yet and are removed.
//!
//! Each step can be interrupted and repeated: the cut and the footer are durable before the rename,
//! and the manifest names a cut or a removal before it is done, a sealed segment after.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::disk::{Disk, LockGuard, OsDisk};
use super::error::{Fault, WalError};
use super::manifest::{self, Entry, EntryKind, Identity, Manifest};
use super::reader::{Found, Step, read_failed, size, walk};
use super::sabotage::{self, Sabotage};
use super::segment::{
    FOOTER_BYTES, Footer, LogKind, SegmentInfo, SegmentState, SegmentStats, is_next_name,
    segment_path,
};
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
    /// What the manifest was.
    pub manifest: ManifestFound,
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

/// What a recovery found of the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManifestFound {
    /// Nothing, and nothing to write into one.
    Nothing,
    /// All of it.
    Whole,
    /// An interrupted entry at its end, which was cut off.
    Cut,
    /// None beside segments: a log of an earlier version. It was made from the segments.
    Rebuilt,
}

impl ManifestFound {
    /// As shown to an operator.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Whole => "whole",
            Self::Cut => "cut",
            Self::Rebuilt => "rebuilt",
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

impl Resume {
    fn after(info: &SegmentInfo) -> Self {
        Self {
            wal_id: info.wal_id,
            kind: info.kind,
            epoch: info.epoch,
            segment_id: info.segment_id,
            last_seq: info
                .stats
                .map_or(info.first_seq.saturating_sub(1), |stats| stats.last_seq),
        }
    }
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
    lock_at(disk, &path)?.ok_or(WalError::Busy { path })
}

pub(super) fn lock_at(disk: &dyn Disk, path: &Path) -> Result<Option<LockGuard>, WalError> {
    disk.lock(path)
        .map_err(write_failed(path, "taking the lock", 0))
}

/// Recovers the log in `dir`; the caller holds its lock.
pub(super) fn recover_on(
    disk: &dyn Disk,
    dir: &Path,
) -> Result<(RecoveryReport, Option<Resume>), WalError> {
    // A process that died between a rename and the sync of the folder left names that a power cut
    // may still undo, in any order: what is built on them must come after them.
    if !sabotage::is(Sabotage::NoFolderSync) {
        sync_folder(disk, dir)?;
    }
    let listed = manifest::read_on(disk, dir)?;
    let mut sealed: Vec<SegmentInfo> = Vec::new();
    let mut open: Option<Step> = None;
    walk(disk, dir, listed.as_ref(), None, |step| match step {
        Step::Whole(found) if found.info.state == SegmentState::Sealed => sealed.push(found.info),
        step => open = Some(step),
    })?;
    let mut all = sealed.clone();
    if let Some(Step::Whole(found)) = &open {
        all.push(found.info.clone());
    }
    if let Some(listed) = &listed {
        listed.check(dir, &all)?;
    }
    let identity = listed.as_ref().map(|listed| listed.identity).or_else(|| {
        all.first().map(|info| Identity {
            wal_id: info.wal_id,
            kind: info.kind,
        })
    });
    let mut notes = Notes {
        disk,
        dir,
        identity,
        entries: unlisted(listed.as_ref(), &sealed),
    };
    // What is refused stays as it is: nothing was changed before this line.
    remove_prepared(disk, dir)?;
    let tail = match open {
        None => RecoveredTail::Nothing,
        Some(Step::Headless { path, fault }) => {
            remove(disk, dir, &path)?;
            RecoveredTail::Removed {
                path,
                fault: Some(fault),
            }
        }
        Some(Step::Whole(found)) => match found.info.stats {
            None => remove_empty(&mut notes, *found)?,
            Some(stats) => seal_last(&mut notes, &found, stats, &mut sealed)?,
        },
    };
    notes.add()?;
    let mut resume = sealed.last().map(Resume::after);
    let away = listed
        .as_ref()
        .and_then(|listed| listed.taken_away(dir).pop_last());
    if let Some((_, away)) = away
        && resume.is_none_or(|resume| resume.segment_id < away.segment_id)
    {
        resume = Some(Resume::after(&away));
    }
    let report = RecoveryReport {
        dir: dir.to_path_buf(),
        segment_count: sealed.len() as u64,
        last_seq: resume.map(|resume| resume.last_seq),
        last_input_seq: sealed
            .last()
            .and_then(|info| info.stats)
            .map(|stats| stats.last_input_seq),
        tail,
        manifest: match listed {
            Some(listed) if listed.torn_bytes > 0 => ManifestFound::Cut,
            Some(_) => ManifestFound::Whole,
            None if sealed.is_empty() => ManifestFound::Nothing,
            None => ManifestFound::Rebuilt,
        },
    };
    Ok((report, resume))
}

/// What recovery tells the manifest.
#[derive(Debug)]
struct Notes<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    identity: Option<Identity>,
    entries: Vec<Entry>,
}

impl Notes<'_> {
    /// Adds what was noted so far, durably.
    fn add(&mut self) -> Result<(), WalError> {
        if let Some(identity) = self.identity.filter(|_| !self.entries.is_empty()) {
            manifest::append_waiting(self.disk, self.dir, identity, &self.entries)?;
            self.entries.clear();
        }
        Ok(())
    }
}

/// Entries of sealed segments that the manifest does not name as such: all of a log of an earlier
/// version, the last one of a writer that died between the rename and the entry.
fn unlisted(listed: Option<&Manifest>, sealed: &[SegmentInfo]) -> Vec<Entry> {
    let kind = if listed.is_some() {
        EntryKind::SealedByRecovery
    } else {
        EntryKind::Adopted
    };
    let segments = listed.map(Manifest::segments).unwrap_or_default();
    let is_listed = |info: &&SegmentInfo| {
        let known = segments.get(&info.segment_id);
        known.is_some_and(|known| known.sealed.is_some())
    };
    sealed
        .iter()
        .filter(|info| !is_listed(info))
        .map(|info| Entry::of_sealed(kind, info))
        .collect()
}

/// Prepared segments hold no record: the header comes with the rename to `.open`.
fn remove_prepared(disk: &dyn Disk, dir: &Path) -> Result<(), WalError> {
    let names = disk
        .list(dir)
        .map_err(|error| read_failed(dir, "listing", error))?;
    for name in names.iter().filter(|name| is_next_name(name)) {
        remove(disk, dir, &dir.join(name))?;
    }
    Ok(())
}

fn remove_empty(notes: &mut Notes<'_>, found: Found) -> Result<RecoveredTail, WalError> {
    let info = &found.info;
    notes.entries.push(Entry::of(
        EntryKind::Removed,
        info.segment_id,
        info.epoch,
        info.first_seq,
    ));
    notes.add()?;
    remove(notes.disk, notes.dir, &info.path)?;
    Ok(RecoveredTail::Removed {
        fault: found.torn.map(|torn| torn.fault),
        path: found.info.path,
    })
}

fn seal_last(
    notes: &mut Notes<'_>,
    found: &Found,
    stats: SegmentStats,
    sealed: &mut Vec<SegmentInfo>,
) -> Result<RecoveredTail, WalError> {
    let info = &found.info;
    if let Some(torn) = &found.torn {
        notes.entries.push(Entry {
            record_count: torn.bytes,
            data_bytes: torn.offset,
            ..Entry::of(EntryKind::Cut, info.segment_id, info.epoch, torn.seq)
        });
        notes.add()?;
    }
    let (tail, info) = seal_found(notes.disk, notes.dir, found, stats)?;
    notes
        .entries
        .push(Entry::of_sealed(EntryKind::SealedByRecovery, &info));
    sealed.push(info);
    Ok(tail)
}

/// Cuts an open segment behind its last whole frame, writes the footer if it has none, renames it.
fn seal_found(
    disk: &dyn Disk,
    dir: &Path,
    found: &Found,
    stats: SegmentStats,
) -> Result<(RecoveredTail, SegmentInfo), WalError> {
    let info = &found.info;
    let mut sha256 = info.sha256;
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
        let digest = Sha256::digest(data).into();
        sha256 = Some(digest);
        let footer = Footer {
            stats,
            data_bytes: info.data_bytes,
            sha256: digest,
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
    let sealed = SegmentInfo {
        path: path.clone(),
        state: SegmentState::Sealed,
        sha256,
        ..info.clone()
    };
    let tail = match &found.torn {
        None => RecoveredTail::Sealed { path },
        Some(torn) => RecoveredTail::Cut {
            path,
            offset: torn.offset,
            bytes: torn.bytes,
            seq: torn.seq,
            fault: torn.fault.clone(),
        },
    };
    Ok((tail, sealed))
}

fn remove(disk: &dyn Disk, dir: &Path, path: &Path) -> Result<(), WalError> {
    disk.remove(path)
        .map_err(write_failed(path, "removing a segment without a record", 0))?;
    sync_folder(disk, dir)
}

fn sync_folder(disk: &dyn Disk, dir: &Path) -> Result<(), WalError> {
    disk.sync_dir(dir)
        .map_err(write_failed(dir, "syncing the folder", 0))
}

pub(super) fn write_failed<'a>(
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
