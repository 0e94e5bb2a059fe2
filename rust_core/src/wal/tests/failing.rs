//! A writer on a simulated disk whose next sync can be made to fail, for tests outside the folder.

use std::path::Path;
use std::sync::Arc;

use super::sim_disk::{Fate, SimDisk};
use super::support::manual;
use crate::wal::{LogKind, Options, Writer};

/// The disk under it.
#[derive(Debug)]
pub(crate) struct FailingDisk(SimDisk);

impl FailingDisk {
    /// The next commit's sync fails with EIO: its write is the step before.
    pub(crate) fn fail_next_sync(&self) {
        self.0.set_fate(Fate::ErrorAt(1));
    }

    /// Steps since.
    pub(crate) fn steps(&self) -> usize {
        self.0.steps()
    }
}

/// Without a thread: it fails where the test says.
pub(crate) fn failing_writer(dir: &str, kind: LogKind) -> (Writer, FailingDisk) {
    let disk = SimDisk::new(Fate::Reliable);
    let options = Options { kind, ..manual() };
    let writer = Writer::open_on(Arc::new(disk.clone()), Path::new(dir), options).unwrap();
    (writer, FailingDisk(disk))
}
