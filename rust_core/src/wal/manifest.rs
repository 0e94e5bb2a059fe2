//! The log's own log: one durable entry for every change of its segments, in the frame format.
//!
//! Why: a folder listing cannot tell a log that ended from one whose last segment was taken away.
//! The manifest says which segments there were, what they held, and who removed them on purpose.
//!
//! Invariants:
//! 1. An entry says only what the disk already holds (begun, sealed), or what is about to be taken
//!    away on purpose (cut, removed, archived, deleted). So what it names and the disk does not
//!    hold was lost.
//! 2. Entries are only added. The torn tail of an interrupted addition is cut; a damaged entry
//!    behind which another says that it was durable is refused.
//! 3. Every addition is made under `manifest.lock`, which is never removed: the log's writer and
//!    the process that archives are not the same.
//!
//! It holds no records and no times of day. Operator's page: `docs/wal-format.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::disk::{Disk, OsDisk};
use super::error::{Fault, WalError};
use super::frame::{
    Frame, FrameHead, array_at, decode_frame, encode_frame, frame_crc, put, u16_at, u32_at, u64_at,
};
use super::reader::{read_failed, size};
use super::recovery::{lock_at, write_failed};
use super::sabotage::{self, Sabotage};
use super::scan::find_following;
use super::segment::{LogKind, SegmentInfo, SegmentState, segment_path};
use crate::record_upgrade::SegmentSchema;

/// The manifest's file name.
pub(super) const MANIFEST_NAME: &str = "manifest.log";
/// File whose lock an addition holds; it is never removed.
pub(super) const MANIFEST_LOCK_NAME: &str = "manifest.lock";

const MAGIC: &[u8; 8] = b"HFTWALM1";
const VERSION: u16 = 1;
const IDENTITY_BYTES: usize = 16;
const ENTRY_BYTES: usize = 72;
/// Longest text of an entry, bytes.
const PLACE_BYTES_MAX: usize = 1024;
/// How often, and how far apart, who may wait asks for the manifest's lock: 2 s in all.
const LOCK_TRIES_MAX: usize = 200;
const LOCK_WAIT: Duration = Duration::from_millis(10);

/// What happened to a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum EntryKind {
    /// Its header and its name are durable; records follow.
    Begun = 2,
    /// Its writer made it immutable.
    Sealed = 3,
    /// A recovery made it immutable, or found it so without an entry.
    SealedByRecovery = 4,
    /// It was sealed before the log had a manifest.
    Adopted = 5,
    /// A recovery is about to cut a torn tail: `first_seq` is lost, `data_bytes` is kept and
    /// `record_count` bytes are cut.
    Cut = 6,
    /// It held no record and is about to be removed.
    Removed = 7,
    /// A copy is in `place`, and the file is about to be removed.
    Archived = 8,
    /// The file is about to be removed for good.
    Deleted = 9,
}

/// Kind of the first frame, which names the log.
const IDENTITY_KIND: u16 = 1;

impl EntryKind {
    const ALL: [Self; 8] = [
        Self::Begun,
        Self::Sealed,
        Self::SealedByRecovery,
        Self::Adopted,
        Self::Cut,
        Self::Removed,
        Self::Archived,
        Self::Deleted,
    ];

    /// As shown to an operator.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Sealed => "sealed",
            Self::SealedByRecovery => "sealed_by_recovery",
            Self::Adopted => "adopted",
            Self::Cut => "cut",
            Self::Removed => "removed",
            Self::Archived => "archived",
            Self::Deleted => "deleted",
        }
    }

    fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u16 == number)
    }
}

/// One change of one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What happened.
    pub kind: EntryKind,
    /// To which segment.
    pub segment_id: u64,
    /// Of the segment's writer.
    pub epoch: u32,
    /// Records in it; bytes cut off for [`EntryKind::Cut`].
    pub record_count: u64,
    /// Sequence of its first record; the first lost one for [`EntryKind::Cut`].
    pub first_seq: u64,
    /// Sequence of its last record, 0 if it has none.
    pub last_seq: u64,
    /// Bytes of header and frames.
    pub data_bytes: u64,
    /// Hash of those bytes, zeros while it is not sealed.
    pub sha256: [u8; 32],
    /// Where the archive put it, else empty.
    pub place: String,
}

impl Entry {
    /// An entry about a segment of which nothing but its place is known.
    pub(super) fn of(kind: EntryKind, segment_id: u64, epoch: u32, first_seq: u64) -> Self {
        Self {
            kind,
            segment_id,
            epoch,
            record_count: 0,
            first_seq,
            last_seq: 0,
            data_bytes: 0,
            sha256: [0; 32],
            place: String::new(),
        }
    }

    /// An entry about a sealed segment as a reader found it.
    pub(super) fn of_sealed(kind: EntryKind, info: &SegmentInfo) -> Self {
        Self {
            record_count: info.stats.map_or(0, |stats| stats.record_count),
            last_seq: info.stats.map_or(0, |stats| stats.last_seq),
            data_bytes: info.data_bytes,
            sha256: info.sha256.unwrap_or_default(),
            ..Self::of(kind, info.segment_id, info.epoch, info.first_seq)
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; ENTRY_BYTES];
        put(&mut bytes, 0, &self.segment_id.to_le_bytes());
        put(&mut bytes, 8, &self.record_count.to_le_bytes());
        put(&mut bytes, 16, &self.first_seq.to_le_bytes());
        put(&mut bytes, 24, &self.last_seq.to_le_bytes());
        put(&mut bytes, 32, &self.data_bytes.to_le_bytes());
        put(&mut bytes, 40, &self.sha256);
        bytes.extend_from_slice(self.place.as_bytes());
        bytes
    }

    /// `None` when the frame is none of this version.
    fn decode(frame: &Frame<'_>) -> Option<Self> {
        let bytes = frame.payload;
        Some(Self {
            kind: EntryKind::from_number(frame.record_type)?,
            segment_id: u64_at(bytes, 0)?,
            epoch: frame.epoch,
            record_count: u64_at(bytes, 8)?,
            first_seq: u64_at(bytes, 16)?,
            last_seq: u64_at(bytes, 24)?,
            data_bytes: u64_at(bytes, 32)?,
            sha256: array_at(bytes, 40)?,
            place: String::from_utf8(bytes.get(ENTRY_BYTES..)?.to_vec()).ok()?,
        })
    }
}

/// Which log a manifest is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Identity of the log.
    pub wal_id: u32,
    /// Its kind.
    pub kind: LogKind,
}

impl Identity {
    fn encode(self) -> [u8; IDENTITY_BYTES] {
        let mut bytes = [0; IDENTITY_BYTES];
        put(&mut bytes, 0, MAGIC);
        put(&mut bytes, 8, &VERSION.to_le_bytes());
        put(&mut bytes, 10, &(self.kind as u16).to_le_bytes());
        put(&mut bytes, 12, &self.wal_id.to_le_bytes());
        bytes
    }

    fn decode(frame: &Frame<'_>) -> Option<Self> {
        let bytes = frame.payload;
        let is_ours = frame.record_type == IDENTITY_KIND
            && bytes.get(..MAGIC.len())? == MAGIC
            && u16_at(bytes, 8)? == VERSION;
        Some(Self {
            kind: LogKind::from_number(u16_at(bytes, 10)?)?,
            wal_id: u32_at(bytes, 12)?,
        })
        .filter(|_| is_ours)
    }
}

/// A manifest as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Which log it is of.
    pub identity: Identity,
    /// Its entries, oldest first.
    pub entries: Vec<Entry>,
    /// Bytes of a torn tail, which the next addition cuts off.
    pub torn_bytes: u64,
    data_bytes: u64,
    next_seq: u64,
    chain: u32,
}

/// Where a segment stands, from its entries.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listed<'a> {
    /// The latest entry.
    pub(super) last: &'a Entry,
    /// What it held when it was sealed, if it was.
    pub(super) sealed: Option<&'a Entry>,
}

impl Manifest {
    /// Every segment that was ever named, by its id.
    pub(super) fn segments(&self) -> BTreeMap<u64, Listed<'_>> {
        let mut segments: BTreeMap<u64, Listed<'_>> = BTreeMap::new();
        for entry in &self.entries {
            let is_sealed = matches!(
                entry.kind,
                EntryKind::Sealed | EntryKind::SealedByRecovery | EntryKind::Adopted
            );
            // A removed segment's id is used again: what was before no longer counts.
            let before = segments
                .get(&entry.segment_id)
                .filter(|_| entry.kind != EntryKind::Begun)
                .and_then(|listed| listed.sealed);
            let sealed = if is_sealed { Some(entry) } else { before };
            let last = entry;
            segments.insert(entry.segment_id, Listed { last, sealed });
        }
        segments
    }

    /// Whether the segment was begun and nothing else was said of it since.
    pub(super) fn has_begun(&self, segment_id: u64) -> bool {
        let about = |entry: &&Entry| entry.segment_id == segment_id;
        let last = self.entries.iter().rev().find(about);
        last.is_some_and(|entry| entry.kind == EntryKind::Begun)
    }

    /// Holds what a reader found against the entries.
    pub(super) fn check(&self, dir: &Path, found: &[SegmentInfo]) -> Result<(), WalError> {
        let segments = self.segments();
        for info in found {
            let other = |field, was: u64, expected: u64| WalError::SegmentGap {
                path: info.path.clone(),
                field,
                was,
                expected,
            };
            let Identity { wal_id, kind } = self.identity;
            if info.wal_id != wal_id {
                return Err(other("wal_id", info.wal_id.into(), wal_id.into()));
            }
            if info.kind != kind {
                return Err(other("log kind", info.kind as u64, kind as u64));
            }
            let sealed = segments
                .get(&info.segment_id)
                .and_then(|listed| listed.sealed);
            if let (Some(sha256), Some(sealed)) = (info.sha256, sealed)
                && sha256 != sealed.sha256
            {
                return Err(WalError::SealedMismatch {
                    path: info.path.clone(),
                    offset: 0,
                    fault: Fault::Listed {
                        was: super::segment::hex(&sha256),
                        expected: super::segment::hex(&sealed.sha256),
                    },
                });
            }
        }
        let here: BTreeMap<u64, SegmentState> = found
            .iter()
            .map(|info| (info.segment_id, info.state))
            .collect();
        for (segment_id, listed) in &segments {
            let state = match listed.last.kind {
                EntryKind::Removed | EntryKind::Archived | EntryKind::Deleted => continue,
                EntryKind::Begun | EntryKind::Cut => None,
                EntryKind::Sealed | EntryKind::SealedByRecovery | EntryKind::Adopted => {
                    Some(SegmentState::Sealed)
                }
            };
            let is_there = here
                .get(segment_id)
                .is_some_and(|is_in| state.is_none_or(|state| *is_in == state));
            if !is_there {
                let state = state.unwrap_or(SegmentState::Open);
                return Err(missing(dir, listed, state));
            }
        }
        Ok(())
    }

    /// Segments that were archived or deleted, as their entries describe them.
    pub(super) fn taken_away(&self, dir: &Path) -> BTreeMap<u64, SegmentInfo> {
        let is_away = |kind| matches!(kind, EntryKind::Archived | EntryKind::Deleted);
        self.segments()
            .into_iter()
            .filter(|(_, listed)| is_away(listed.last.kind))
            .filter_map(|(id, listed)| Some((id, self.info_of(dir, listed.sealed?))))
            .collect()
    }

    /// The error of the first segment that was taken away and is needed here.
    pub(super) fn check_none_away(
        &self,
        dir: &Path,
        found: &[SegmentInfo],
    ) -> Result<(), WalError> {
        let here: BTreeSet<u64> = found.iter().map(|info| info.segment_id).collect();
        let segments = self.segments();
        let gone = self
            .taken_away(dir)
            .into_keys()
            .find(|id| !here.contains(id));
        gone.and_then(|id| segments.get(&id))
            .map_or(Ok(()), |listed| {
                Err(missing(dir, listed, SegmentState::Sealed))
            })
    }

    fn info_of(&self, dir: &Path, sealed: &Entry) -> SegmentInfo {
        let stats = super::segment::SegmentStats {
            record_count: sealed.record_count,
            first_seq: sealed.first_seq,
            last_seq: sealed.last_seq,
            first_input_seq: 0,
            last_input_seq: 0,
            min_sequence_time_ns: 0,
            max_sequence_time_ns: 0,
        };
        SegmentInfo {
            path: segment_path(dir, sealed.segment_id, SegmentState::Sealed),
            state: SegmentState::Sealed,
            kind: self.identity.kind,
            wal_id: self.identity.wal_id,
            segment_id: sealed.segment_id,
            epoch: sealed.epoch,
            schema: SegmentSchema::Current,
            first_seq: sealed.first_seq,
            stats: Some(stats),
            file_bytes: 0,
            data_bytes: sealed.data_bytes,
            sha256: Some(sealed.sha256),
        }
    }
}

fn missing(dir: &Path, listed: &Listed<'_>, state: SegmentState) -> WalError {
    WalError::Missing {
        path: segment_path(dir, listed.last.segment_id, state),
        status: listed.last.kind.name(),
        place: listed.last.place.clone(),
    }
}

/// Reads the manifest of a log; `None` if it has none yet.
///
/// # Errors
/// A damaged manifest (602), one that cannot be read (612).
pub fn read_manifest(dir: &Path) -> Result<Option<Manifest>, WalError> {
    OsDisk
        .list(dir)
        .map_err(|error| read_failed(dir, "listing", error))?;
    read_on(&OsDisk, dir)
}

pub(super) fn read_on(disk: &dyn Disk, dir: &Path) -> Result<Option<Manifest>, WalError> {
    let path = dir.join(MANIFEST_NAME);
    let mut bytes = Vec::new();
    match disk.read_into(&path, &mut bytes) {
        Ok(()) => parse(&path, &bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(read_failed(&path, "reading", error)),
    }
}

/// The entries up to the first bytes that are none; `None` if not even the first frame is whole.
fn parse(path: &Path, bytes: &[u8]) -> Result<Option<Manifest>, WalError> {
    let mut manifest: Option<Manifest> = None;
    let mut at = 0;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(manifest);
        }
        match next_entry(rest, manifest.as_mut()) {
            Ok((frame_bytes, first)) => {
                at += frame_bytes;
                manifest = first.or(manifest);
            }
            Err(fault) => {
                let seq = manifest.as_ref().map_or(1, |manifest| manifest.next_seq);
                let following = find_following(bytes, at, Some(seq), 0);
                if following.durable_seq.is_some_and(|durable| durable >= seq) {
                    return Err(WalError::Damaged {
                        path: path.to_path_buf(),
                        offset: size(at),
                        seq,
                        fault,
                        following: Box::new(following),
                    });
                }
                if let Some(manifest) = manifest.as_mut() {
                    manifest.torn_bytes = size(rest.len());
                }
                return Ok(manifest);
            }
        }
    }
}

/// Takes the frame at the start of `rest` into the manifest; the first one makes it.
fn next_entry(
    rest: &[u8],
    manifest: Option<&mut Manifest>,
) -> Result<(usize, Option<Manifest>), Fault> {
    let frame = decode_frame(rest, frame_crc)?;
    let (seq, chain) = manifest
        .as_ref()
        .map_or((1, seed()), |manifest| (manifest.next_seq, manifest.chain));
    super::scan::must_be("manifest sequence", frame.seq, seq)?;
    if frame.prev_crc != chain {
        return Err(Fault::Chain {
            was: frame.prev_crc,
            expected: chain,
        });
    }
    let unknown = Fault::Number {
        field: "manifest entry kind",
        was: frame.record_type.into(),
        expected: if seq == 1 { 1 } else { 2 },
    };
    let frame_bytes = frame.frame_bytes();
    let Some(manifest) = manifest else {
        let first = Manifest {
            identity: Identity::decode(&frame).ok_or(unknown)?,
            entries: Vec::new(),
            torn_bytes: 0,
            data_bytes: size(frame_bytes),
            next_seq: 2,
            chain: frame.crc,
        };
        return Ok((frame_bytes, Some(first)));
    };
    manifest.entries.push(Entry::decode(&frame).ok_or(unknown)?);
    manifest.data_bytes += size(frame_bytes);
    manifest.next_seq += 1;
    manifest.chain = frame.crc;
    Ok((frame_bytes, None))
}

fn seed() -> u32 {
    crc32c::crc32c(MAGIC)
}

/// Adds entries, durably. Returns false, with nothing done, if another process is adding its own.
///
/// # Errors
/// A damaged manifest (602), or one of another log (515); the disk's refusal (605, 612).
pub(super) fn append_on(
    disk: &dyn Disk,
    dir: &Path,
    identity: Identity,
    entries: &[Entry],
) -> Result<bool, WalError> {
    let lock_path = dir.join(MANIFEST_LOCK_NAME);
    let Some(_lock) = lock_at(disk, &lock_path)? else {
        return Ok(false);
    };
    let manifest = read_on(disk, dir)?;
    append_locked(disk, dir, identity, manifest.as_ref(), entries)?;
    Ok(true)
}

/// The same, for who has time: tries again while another process is at it.
///
/// # Errors
/// As [`append_on`]; [`WalError::Busy`] when it stays at it.
pub(super) fn append_waiting(
    disk: &dyn Disk,
    dir: &Path,
    identity: Identity,
    entries: &[Entry],
) -> Result<(), WalError> {
    for _ in 0..LOCK_TRIES_MAX {
        if append_on(disk, dir, identity, entries)? {
            return Ok(());
        }
        std::thread::sleep(LOCK_WAIT);
    }
    Err(WalError::Busy {
        path: dir.join(MANIFEST_LOCK_NAME),
    })
}

/// The same, for the holder of the manifest's lock.
fn append_locked(
    disk: &dyn Disk,
    dir: &Path,
    identity: Identity,
    manifest: Option<&Manifest>,
    entries: &[Entry],
) -> Result<(), WalError> {
    let path = dir.join(MANIFEST_NAME);
    if let Some(manifest) = manifest.filter(|manifest| manifest.identity != identity) {
        return Err(WalError::Option {
            path,
            option: "wal_id and kind",
            was: format!("{} {}", identity.wal_id, identity.kind.name()),
            expected: format!(
                "{} {}, as the manifest's",
                manifest.identity.wal_id,
                manifest.identity.kind.name()
            ),
        });
    }
    let (mut seq, mut chain, offset) = manifest.map_or((1, seed(), 0), |manifest| {
        (manifest.next_seq, manifest.chain, manifest.data_bytes)
    });
    let durable_seq = seq - 1;
    let mut bytes = Vec::new();
    let identity_bytes = identity.encode();
    let first = (manifest.is_none()).then(|| (IDENTITY_KIND, 0, identity_bytes.to_vec()));
    let rest = entries
        .iter()
        .map(|entry| (entry.kind as u16, entry.epoch, entry.encode()));
    for (kind, epoch, payload) in first.into_iter().chain(rest) {
        let head = FrameHead {
            seq,
            epoch,
            record_type: kind,
            time_ns: 0,
            prev_crc: chain,
            sync_lag: u32::try_from(seq - durable_seq).unwrap_or(u32::MAX),
        };
        chain = encode_frame(&mut bytes, &head, &payload, frame_crc).ok_or_else(|| {
            WalError::Invariant {
                path: path.clone(),
                what: "a manifest entry is larger than a frame",
            }
        })?;
        seq += 1;
    }
    let is_new = !disk
        .list(dir)
        .map_err(|error| read_failed(dir, "listing", error))?
        .iter()
        .any(|name| name == MANIFEST_NAME);
    let fail = |operation| write_failed(&path, operation, 0);
    let file = if is_new {
        disk.create(&path).map_err(fail("creating"))?
    } else {
        disk.open(&path).map_err(fail("opening"))?
    };
    // Entries that another process wrote and did not live to sync: a frame that says they were
    // durable must not be on the disk before they are.
    if !is_new && !sabotage::is(Sabotage::NoManifestSync) {
        file.sync().map_err(fail("syncing"))?;
    }
    if !is_new && manifest.is_none_or(|manifest| manifest.torn_bytes > 0) {
        file.truncate(offset).map_err(fail("cutting the tail"))?;
    }
    file.write_at(offset, &bytes).map_err(fail("writing"))?;
    file.sync().map_err(fail("syncing"))?;
    if is_new {
        disk.sync_dir(dir)
            .map_err(write_failed(dir, "syncing the folder", 0))?;
    }
    Ok(())
}

/// Says that sealed segments are about to be removed from the log's folder: archived in `place`,
/// or with `None` deleted for good. The caller removes them after this returned.
///
/// # Errors
/// A segment that is not sealed according to the manifest or already gone (515), no manifest or
/// another process at it (611, try again); as [`read_manifest`]; the disk's refusal (605).
pub fn append_taken_away(
    dir: &Path,
    segment_ids: &[u64],
    place: Option<&str>,
) -> Result<(), WalError> {
    let option = |option, was: String, expected: &str| {
        Err(WalError::Option {
            path: dir.join(MANIFEST_NAME),
            option,
            was,
            expected: expected.to_owned(),
        })
    };
    if place.is_some_and(|place| place.is_empty() || place.len() > PLACE_BYTES_MAX) {
        let was = place.map_or(0, str::len);
        return option("bytes of place", was.to_string(), "1 to 1024");
    }
    if read_manifest(dir)?.is_none() {
        // Creating one here would let a mistyped folder look like a log.
        return option(
            "log_dir",
            dir.display().to_string(),
            "a log with a manifest",
        );
    }
    let lock_path = dir.join(MANIFEST_LOCK_NAME);
    let Some(_lock) = lock_at(&OsDisk, &lock_path)? else {
        return Err(WalError::Busy { path: lock_path });
    };
    let Some(manifest) = read_on(&OsDisk, dir)? else {
        return option(
            "log_dir",
            dir.display().to_string(),
            "a log with a manifest",
        );
    };
    let segments = manifest.segments();
    let mut entries = Vec::new();
    for segment_id in segment_ids {
        let listed = segments.get(segment_id).copied();
        let sealed = listed.filter(|listed| {
            listed.last.kind != EntryKind::Deleted && listed.last.kind != EntryKind::Removed
        });
        let Some(sealed) = sealed.and_then(|listed| listed.sealed) else {
            let status = listed.map_or("unknown", |listed| listed.last.kind.name());
            let was = format!("{segment_id}, which is {status}");
            return option("segment_id", was, "a sealed segment");
        };
        let kind = if place.is_some() {
            EntryKind::Archived
        } else {
            EntryKind::Deleted
        };
        entries.push(Entry {
            kind,
            place: place.unwrap_or_default().to_owned(),
            ..sealed.clone()
        });
    }
    append_locked(&OsDisk, dir, manifest.identity, Some(&manifest), &entries)
}

/// The entries that a writer has not added yet: it never waits for another process.
#[derive(Debug)]
pub(super) struct Pending {
    identity: Identity,
    dir: PathBuf,
    entries: Vec<Entry>,
}

impl Pending {
    pub(super) fn new(dir: &Path, identity: Identity) -> Self {
        Self {
            identity,
            dir: dir.to_path_buf(),
            entries: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    /// Adds what is pending at the end of a log, where there is no later chance.
    pub(super) fn flush_waiting(&mut self, disk: &dyn Disk) -> Result<(), WalError> {
        if !self.entries.is_empty() {
            append_waiting(disk, &self.dir, self.identity, &self.entries)?;
            self.entries.clear();
        }
        Ok(())
    }

    /// Adds what is pending, or keeps it when another process holds the manifest. What a crash
    /// loses of it, recovery finds on disk and adds.
    pub(super) fn flush(&mut self, disk: &dyn Disk) -> Result<(), WalError> {
        if !self.entries.is_empty() && append_on(disk, &self.dir, self.identity, &self.entries)? {
            self.entries.clear();
        }
        Ok(())
    }
}
