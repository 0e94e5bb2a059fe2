//! A disk in memory that loses power, or fails, at a chosen step.
//!
//! What survives a power cut: everything synced. Of what was not, each 512-byte sector by itself is
//! new, old, zeroed or garbage where it changed, and the length is the old or the new one. Of the
//! names (creations, renames, removals) since the last folder sync any survive, in any order. Assumed: rewriting a sector does not destroy bytes in it that did not change.

use std::collections::BTreeMap;
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
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 11) % end as u64).unwrap()
    }
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
    durable: Vec<u8>,
    current: Vec<u8>,
    has_failed: bool,
}

#[derive(Debug, Clone)]
enum NameStep {
    Create(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

#[derive(Debug, Clone)]
struct State {
    fate: Fate,
    steps: usize,
    contents: Vec<Content>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    unsynced_names: Vec<NameStep>,
}

/// The disk; clones share it.
#[derive(Debug, Clone)]
pub(in crate::wal) struct SimDisk(Arc<Mutex<State>>);

impl SimDisk {
    pub(in crate::wal) fn new(fate: Fate) -> Self {
        Self(Arc::new(Mutex::new(State {
            fate,
            steps: 0,
            contents: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            unsynced_names: Vec::new(),
        })))
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

    /// A disk as it may be found after the power came back.
    pub(in crate::wal) fn after_power_cut(&self, draw: &mut Draw) -> Self {
        let state = self.state();
        let mut names = state.durable_names.clone();
        for step in state.unsynced_names.iter().filter(|_| draw.below(2) == 0) {
            apply(&mut names, step);
        }
        let contents: Vec<Content> = state
            .contents
            .iter()
            .map(|content| {
                let bytes = survived_bytes(content, draw);
                Content {
                    durable: bytes.clone(),
                    current: bytes,
                    has_failed: false,
                }
            })
            .collect();
        Self(Arc::new(Mutex::new(State {
            fate: Fate::Reliable,
            steps: 0,
            contents,
            durable_names: names.clone(),
            names,
            unsynced_names: Vec::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Takes one step, or fails as fated.
    fn step(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        let step = state.steps;
        state.steps += 1;
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

fn survived_bytes(content: &Content, draw: &mut Draw) -> Vec<u8> {
    let (old, new) = (&content.durable, &content.current);
    let length = if draw.below(2) == 0 {
        old.len()
    } else {
        new.len()
    };
    let byte = |bytes: &[u8], at: usize| bytes.get(at).copied().unwrap_or(0);
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        let from = bytes.len();
        let fate = draw.below(4);
        for at in from..length.min(from + SECTOR_BYTES) {
            let (before, after) = (byte(old, at), byte(new, at));
            bytes.push(match fate {
                _ if before == after => after,
                0 => after,
                1 => before,
                2 => 0,
                _ => u8::try_from(draw.below(256)).unwrap(),
            });
        }
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

    fn list(&self, _dir: &Path) -> io::Result<Vec<String>> {
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        Ok(self.state().names.keys().map(name).collect())
    }

    fn read_into(&self, path: &Path, content: &mut Vec<u8>) -> io::Result<()> {
        let state = self.state();
        let found = state.names.get(path).ok_or_else(|| not_found(path))?;
        content.clone_from(&state.contents[*found].current);
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

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        if state.fate != Fate::SyncLies {
            state.durable_names = state.names.clone();
            state.unsynced_names.clear();
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
        self.step(|content| change(&mut content.current))
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
        self.change(|current| current.resize(usize::try_from(bytes).unwrap(), 0))
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
                content.durable = content.current.clone();
            }
        })
    }
}
