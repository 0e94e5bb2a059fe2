//! What the log needs of a file system, as a trait: the tests put a simulated disk behind it that
//! loses power or fails a write at a chosen step.

use std::any::Any;
use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::map::Map;
use super::watermark::Words;

/// Keeps a log's lock until dropped.
pub(super) type LockGuard = Box<dyn Any + Send + Sync>;

/// Folders and names.
pub(super) trait Disk: Debug + Send + Sync {
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Replaces `content` with the file's; a reused buffer costs no page faults.
    fn read_into(&self, path: &Path, content: &mut Vec<u8>) -> io::Result<()>;
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes creations, renames and removals in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// The words of the watermark file; without a real folder they are in memory.
    fn watermark(&self, _path: &Path) -> io::Result<Words> {
        Ok(Words::Memory(Box::default()))
    }
    /// Takes the lock file, or `None` if another holder has it.
    fn lock(&self, path: &Path) -> io::Result<Option<LockGuard>>;
}

/// One file being written.
pub(super) trait DiskFile: Debug + Send {
    /// Reserves space; the new bytes read as zeros.
    fn allocate(&self, bytes: u64) -> io::Result<()>;
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    fn truncate(&self, bytes: u64) -> io::Result<()>;
    /// Makes the content durable; after an error it is never called again.
    fn sync(&self) -> io::Result<()>;
}

/// The operating system's.
#[derive(Debug, Clone, Copy)]
pub(super) struct OsDisk;

impl Disk for OsDisk {
    /// Whoever created the folder, a moment ago or in an earlier life, may not have synced the
    /// folders above it: an entry missing there after a power cut takes every record with it.
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        for (height, parent) in fs::canonicalize(dir)?.ancestors().skip(1).enumerate() {
            use io::ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem, Unsupported};
            match self.sync_dir(parent) {
                Ok(()) => {}
                // Not ours to read or to write, so nothing in it was created by us.
                Err(error)
                    if height > 0
                        && matches!(
                            error.kind(),
                            InvalidInput | PermissionDenied | ReadOnlyFilesystem | Unsupported
                        ) =>
                {
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            names.extend(entry?.file_name().into_string().ok());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn read_into(&self, path: &Path, content: &mut Vec<u8>) -> io::Result<()> {
        content.clear();
        let mut file = File::open(path)?;
        let bytes = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        content.reserve(bytes);
        file.read_to_end(content).map(|_| ())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        Ok(Box::new(OsFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OsFile(OpenOptions::new().write(true).open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn watermark(&self, path: &Path) -> io::Result<Words> {
        Map::create(path).map(Words::Mapped)
    }

    /// The lock file stays for ever: unlinking it would let two holders each lock their own.
    fn lock(&self, path: &Path) -> io::Result<Option<LockGuard>> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

#[derive(Debug)]
struct OsFile(File);

impl DiskFile for OsFile {
    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let length = libc::off_t::try_from(bytes).map_err(io::Error::other)?;
        loop {
            // SAFETY: the descriptor is open as long as `self.0` lives; no memory is passed.
            if unsafe { libc::fallocate(self.0.as_raw_fd(), 0, 0, length) } == 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                // The file system cannot preallocate: the file grows as it is written.
                Some(libc::EOPNOTSUPP) => return Ok(()),
                _ => return Err(error),
            }
        }
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}
