//! A disk in memory that loses power, or fails, at a chosen step.
//!
//! What survives a power cut: everything synced. Of what was not, each 512-byte sector by itself is
//! new, old, zeroed or garbage where it changed. The length is the old one, the new one or, in a
//! growing file, any number of sectors between. Of the names (creations, renames, removals) since
//! the last folder sync any survive, in any order. Assumed: rewriting a sector does not destroy
//! bytes in it that did not change.
//!
//! A disk can record its state before each step: one run then gives an image for every place at
//! which the power can go.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::wal::disk::{Disk, DiskFile, LockGuard};

const SECTOR_BYTES: usize = 512;

/// Small deterministic generator; the seed comes from the property test.
#[derive(Debug, Clone)]
pub(in crate::wal) struct Draw(u64);

impl Draw {
    pub(in crate::wal) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(in crate::wal) fn below(&mut self, end: usize) -> usize {
        usize::try_from((self.word() >> 11) % end as u64).unwrap()
    }

    fn word(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// What space reserved for a file holds before it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::wal) enum Space {
    /// Zeros, as the file system promises.
    Zeroed,
    /// Nothing is reserved: the file grows as it is written.
    Growing,
    /// The bytes of an earlier file: a file system that breaks its promise.
    Recycled,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::wal) enum Fate {
    /// Nothing.
    Reliable,
    /// This step and all after it do not happen.
    PowerCutAt(usize),
    /// This step fails once; a failed sync loses the file's unsynced content.
    ErrorAt(usize),
    /// Syncs say yes and do nothing: the negative control.
    SyncLies,
}

#[derive(Debug, Clone, Default)]
struct Content {
    durable: Arc<Vec<u8>>,
    current: Arc<Vec<u8>>,
    has_failed: bool,
}

#[derive(Debug, Clone)]
enum NameStep {
    Create(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

impl NameStep {
    fn path(&self) -> &Path {
        match self {
            Self::Create(path, _) | Self::Rename(path, _) | Self::Remove(path) => path,
        }
    }
}

#[derive(Debug, Clone)]
struct State {
    fate: Fate,
    space: Space,
    steps: usize,
    contents: Vec<Content>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    unsynced_names: Vec<NameStep>,
    record: Recorder,
}

/// Keeps the state before each step, with what a witness says at that moment.
#[derive(Clone, Default)]
struct Recorder {
    witness: Option<Witness>,
    moments: Vec<Moment>,
}

/// Says what was acknowledged; asked before every step.
pub(in crate::wal) type Witness = Arc<dyn Fn() -> Testimony + Send + Sync>;
/// Highest acknowledged sequence of each log of a test.
pub(in crate::wal) type Testimony = [u64; 2];

/// A moment at which the power can go.
#[derive(Debug, Clone)]
pub(in crate::wal) struct Moment {
    state: Arc<State>,
    pub(in crate::wal) acked: Testimony,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} moments", self.moments.len())
    }
}

impl Moment {
    /// A disk as it may be found after the power went at this moment and came back.
    pub(in crate::wal) fn image(&self, draw: &mut Draw) -> SimDisk {
        SimDisk(Arc::new(Mutex::new(after_power_cut(&self.state, draw))))
    }

    /// The disk when only the process died: everything written is there, synced or not.
    pub(in crate::wal) fn killed(&self) -> SimDisk {
        SimDisk(Arc::new(Mutex::new(self.state.as_ref().clone())))
    }

    /// Whether names, or the content of a file of this name, are not synced.
    pub(in crate::wal) fn has_unsynced(&self, file_name: &str) -> bool {
        let is_loose = |content: &usize| {
            let content = &self.state.contents[*content];
            !Arc::ptr_eq(&content.durable, &content.current)
        };
        let mut named = self.state.names.iter().filter(|(path, _)| {
            let name = path.file_name().and_then(|name| name.to_str());
            name == Some(file_name)
        });
        !self.state.unsynced_names.is_empty() || named.any(|(_, content)| is_loose(content))
    }

    /// Whether every image of this moment is the same.
    pub(in crate::wal) fn is_synced(&self) -> bool {
        let is_durable = |content: &Content| Arc::ptr_eq(&content.durable, &content.current);
        self.state.unsynced_names.is_empty() && self.state.contents.iter().all(is_durable)
    }
}

/// The disk; clones share it.
#[derive(Debug, Clone)]
pub(in crate::wal) struct SimDisk(Arc<Mutex<State>>);

impl SimDisk {
    pub(in crate::wal) fn new(fate: Fate) -> Self {
        Self(Arc::new(Mutex::new(State {
            fate,
            space: Space::Zeroed,
            steps: 0,
            contents: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            unsynced_names: Vec::new(),
            record: Recorder::default(),
        })))
    }

    /// A disk with some files, all durable.
    pub(in crate::wal) fn with_files(files: &[(&Path, &[u8])]) -> Self {
        let disk = Self::new(Fate::Reliable);
        let mut state = disk.state();
        for (path, bytes) in files {
            let bytes = Arc::new(bytes.to_vec());
            let content = state.contents.len();
            state.names.insert(path.to_path_buf(), content);
            state.contents.push(Content {
                durable: Arc::clone(&bytes),
                current: bytes,
                has_failed: false,
            });
        }
        state.durable_names = state.names.clone();
        drop(state);
        disk
    }

    /// Every file and what it holds now.
    pub(in crate::wal) fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let state = self.state();
        let named = state.names.iter();
        let content = |index: &usize| state.contents[*index].current.to_vec();
        named
            .map(|(path, index)| (path.clone(), content(index)))
            .collect()
    }

    /// What a file holds now.
    pub(in crate::wal) fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        let found = state.names.get(path)?;
        Some(state.contents[*found].current.to_vec())
    }

    pub(in crate::wal) fn with_space(space: Space) -> Self {
        let disk = Self::new(Fate::Reliable);
        disk.state().space = space;
        disk
    }

    /// Steps that changed or synced something so far.
    pub(in crate::wal) fn steps(&self) -> usize {
        self.state().steps
    }

    pub(in crate::wal) fn set_fate(&self, fate: Fate) {
        let mut state = self.state();
        state.fate = fate;
        state.steps = 0;
    }

    /// From now on the state before each step is kept, with what `witness` says then.
    pub(in crate::wal) fn record(&self, witness: Witness) {
        self.state().record.witness = Some(witness);
    }

    /// What was recorded, and the state now; the recording ends.
    pub(in crate::wal) fn moments(&self) -> Vec<Moment> {
        let mut state = self.state();
        state.keep_moment();
        std::mem::take(&mut state.record).moments
    }

    /// Deletes every file; what they held stays on the platter.
    pub(in crate::wal) fn forget_names(&self) {
        let mut state = self.state();
        state.names.clear();
        state.durable_names.clear();
        state.unsynced_names.clear();
        state.steps = 0;
    }

    /// A disk as it may be found after the power came back.
    pub(in crate::wal) fn after_power_cut(&self, draw: &mut Draw) -> Self {
        let state = after_power_cut(&self.state(), draw);
        Self(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Takes one step, or fails as fated.
    fn step(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        let step = state.steps;
        state.steps += 1;
        state.keep_moment();
        match state.fate {
            Fate::PowerCutAt(at) if step >= at => Err(io::Error::other("power is off")),
            Fate::ErrorAt(at) if step == at => Err(io::Error::from_raw_os_error(libc::EIO)),
            _ => Ok(state),
        }
    }
}

fn apply(names: &mut BTreeMap<PathBuf, usize>, step: &NameStep) {
    match step {
        NameStep::Create(path, content) => {
            names.insert(path.clone(), *content);
        }
        NameStep::Rename(from, to) => {
            // Its creation may not have survived.
            if let Some(content) = names.remove(from) {
                names.insert(to.clone(), content);
            }
        }
        NameStep::Remove(path) => {
            names.remove(path);
        }
    }
}

impl State {
    fn keep_moment(&mut self) {
        let Some(witness) = self.record.witness.clone() else {
            return;
        };
        let state = Arc::new(self.without_record());
        let acked = witness();
        self.record.moments.push(Moment { state, acked });
    }

    fn without_record(&self) -> Self {
        Self {
            fate: Fate::Reliable,
            space: self.space,
            steps: 0,
            contents: self.contents.clone(),
            names: self.names.clone(),
            durable_names: self.durable_names.clone(),
            unsynced_names: self.unsynced_names.clone(),
            record: Recorder::default(),
        }
    }

    /// Bytes some file of this disk once held at a place, to be found where nothing was written.
    fn stale(&self, draw: &mut Draw) -> Arc<Vec<u8>> {
        match self.contents.len() {
            0 => Arc::default(),
            count => Arc::clone(&self.contents[draw.below(count)].durable),
        }
    }
}

fn after_power_cut(state: &State, draw: &mut Draw) -> State {
    let mut names = state.durable_names.clone();
    for step in &state.unsynced_names {
        if draw.below(2) == 0 {
            apply(&mut names, step);
        }
    }
    let contents = state
        .contents
        .iter()
        .map(|content| {
            let bytes = if Arc::ptr_eq(&content.durable, &content.current) {
                Arc::clone(&content.durable)
            } else {
                Arc::new(survived_bytes(state, content, draw))
            };
            Content {
                durable: Arc::clone(&bytes),
                current: bytes,
                has_failed: false,
            }
        })
        .collect();
    State {
        fate: Fate::Reliable,
        space: state.space,
        steps: 0,
        contents,
        durable_names: names.clone(),
        names,
        unsynced_names: Vec::new(),
        record: Recorder::default(),
    }
}

fn survived_bytes(state: &State, content: &Content, draw: &mut Draw) -> Vec<u8> {
    let (old, new) = (content.durable.as_slice(), content.current.as_slice());
    let length = match draw.below(4) {
        0 => old.len(),
        1 if new.len() > old.len() => {
            let sectors = (new.len() - old.len()).div_ceil(SECTOR_BYTES);
            (old.len() + draw.below(sectors) * SECTOR_BYTES).min(new.len())
        }
        _ => new.len(),
    };
    let part = |bytes: &[u8], from: usize, to: usize| {
        let mut sector = [0_u8; SECTOR_BYTES];
        let bytes = bytes.get(from..to.min(bytes.len())).unwrap_or_default();
        sector[..bytes.len()].copy_from_slice(bytes);
        sector
    };
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        let from = bytes.len();
        let to = length.min(from + SECTOR_BYTES);
        let (before, after) = (part(old, from, to), part(new, from, to));
        let mut sector = after;
        let is_stale = state.space == Space::Recycled && from >= old.len() && draw.below(5) == 0;
        if is_stale {
            sector = part(&state.stale(draw), from, from + SECTOR_BYTES);
        } else if before != after {
            let change: Option<[u8; SECTOR_BYTES]> = match draw.below(4) {
                0 => None,
                1 => Some(before),
                2 => Some([0; SECTOR_BYTES]),
                _ => {
                    let mut noise = [0; SECTOR_BYTES];
                    for word in noise.chunks_exact_mut(8) {
                        word.copy_from_slice(&draw.word().to_le_bytes());
                    }
                    Some(noise)
                }
            };
            if let Some(change) = change {
                for at in 0..SECTOR_BYTES {
                    if before[at] != after[at] {
                        sector[at] = change[at];
                    }
                }
            }
        }
        bytes.extend_from_slice(&sector[..to - from]);
    }
    bytes
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, path.display().to_string())
}

impl Disk for SimDisk {
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        let state = self.state();
        let here = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(here.map(name).collect())
    }

    fn read_into(&self, path: &Path, content: &mut Vec<u8>) -> io::Result<()> {
        let state = self.state();
        let found = state.names.get(path).ok_or_else(|| not_found(path))?;
        content.clear();
        content.extend_from_slice(&state.contents[*found].current);
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.step()?;
        assert!(!state.names.contains_key(path), "{} exists", path.display());
        let content = state.contents.len();
        state.contents.push(Content::default());
        state.names.insert(path.to_path_buf(), content);
        state
            .unsynced_names
            .push(NameStep::Create(path.to_path_buf(), content));
        Ok(Box::new(SimFile {
            disk: self.clone(),
            content,
        }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let content = *self
            .state()
            .names
            .get(path)
            .ok_or_else(|| not_found(path))?;
        Ok(Box::new(SimFile {
            disk: self.clone(),
            content,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        let step = NameStep::Rename(from.to_path_buf(), to.to_path_buf());
        apply(&mut state.names, &step);
        state.unsynced_names.push(step);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        let step = NameStep::Remove(path.to_path_buf());
        apply(&mut state.names, &step);
        state.unsynced_names.push(step);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        if state.fate != Fate::SyncLies {
            let state = &mut *state;
            let is_here = |step: &NameStep| step.path().parent() == Some(dir);
            for step in state.unsynced_names.iter().filter(|step| is_here(step)) {
                apply(&mut state.durable_names, step);
            }
            state.unsynced_names.retain(|step| !is_here(step));
        }
        Ok(())
    }

    fn lock(&self, _path: &Path) -> io::Result<Option<LockGuard>> {
        Ok(Some(Box::new(())))
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    content: usize,
}

impl SimFile {
    fn change(&self, change: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        self.step(|content| change(Arc::make_mut(&mut content.current)))
    }

    fn step(&self, change: impl FnOnce(&mut Content)) -> io::Result<()> {
        let is_failed = self.disk.state().contents[self.content].has_failed;
        assert!(
            !is_failed,
            "invariant 5: a file was touched after a failed step"
        );
        match self.disk.step() {
            Ok(mut state) => {
                change(&mut state.contents[self.content]);
                Ok(())
            }
            Err(error) => {
                // Without power nobody is left to break the rule.
                let mut state = self.disk.state();
                state.contents[self.content].has_failed = matches!(state.fate, Fate::ErrorAt(_));
                Err(error)
            }
        }
    }
}

impl DiskFile for SimFile {
    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let bytes = usize::try_from(bytes).unwrap();
        let (space, stale) = {
            let state = self.disk.state();
            // Any earlier file: which one is of no matter, but it must be the same in every run.
            let stale = state.stale(&mut Draw::new(self.content as u64 + 1));
            (state.space, stale)
        };
        self.change(|current| {
            let from = current.len();
            if space != Space::Growing && bytes > from {
                current.resize(bytes, 0);
            }
            if space == Space::Recycled && bytes > from {
                let end = bytes.min(stale.len());
                if from < end {
                    current[from..end].copy_from_slice(&stale[from..end]);
                }
            }
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let from = usize::try_from(offset).unwrap();
        self.change(|current| {
            let end = current.len().max(from + bytes.len());
            current.resize(end, 0);
            current[from..from + bytes.len()].copy_from_slice(bytes);
        })
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.change(|current| current.resize(usize::try_from(bytes).unwrap(), 0))
    }

    fn sync(&self) -> io::Result<()> {
        let is_lie = self.disk.state().fate == Fate::SyncLies;
        self.step(|content| {
            if !is_lie {
                content.durable = Arc::clone(&content.current);
            }
        })
    }
}
