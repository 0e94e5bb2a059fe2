//! What commits change: the open segment, written, sealed and followed by the next.
//!
//! Why: only the holder of the lock on this writes, so a sync never waits under the lock of an append.
//!
//! Invariants: the watermark moves only after a sync returned; a segment has its name and its manifest
//! entry before its first frame is written; a failed step is never repeated.
//!
//! It decides no cut (see `queue`).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

use super::ahead::Ahead;
use super::disk::{Disk, DiskFile, LockGuard};
use super::error::WalError;
use super::manifest::{Entry, EntryKind, MANIFEST_NAME, Pending};
use super::queue::{Batch, Cut};
use super::reader::size;
use super::segment::{
    FOOTER_BYTES, Footer, SegmentHeader, SegmentState, SegmentStats, segment_path,
};
use super::watermark::{Watermark, WriterPhase};
use super::writer::Options;
use crate::reason::ReasonCode;

/// What commits change: the open segment. Only the holder of the lock writes.
#[derive(Debug)]
pub(super) struct Io {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) options: Options,
    pub(super) open: Option<OpenSegment>,
    pub(super) spare: Vec<u8>,
    pub(super) spare_cuts: Vec<Cut>,
    pub(super) manifest: Pending,
    pub(super) ahead: Arc<Ahead>,
    pub(super) watermark: Arc<Watermark>,
    /// Held until the last commit is done, by the thread too.
    pub(super) lock: Option<LockGuard>,
}

#[derive(Debug)]
pub(super) struct OpenSegment {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    header: SegmentHeader,
    /// Bytes written, and their running hash.
    data_bytes: u64,
    sha256: Sha256,
}

/// A step that failed.
#[derive(Debug)]
pub(super) struct Failed {
    path: PathBuf,
    offset: u64,
    operation: &'static str,
    pub(super) source: std::io::Error,
}

impl Failed {
    pub(super) fn new(
        path: PathBuf,
        offset: u64,
        operation: &'static str,
        source: std::io::Error,
    ) -> Self {
        Self {
            path,
            offset,
            operation,
            source,
        }
    }

    pub(super) fn into_error(self, durable_seq: u64) -> WalError {
        WalError::WriteFailed {
            path: self.path,
            offset: self.offset,
            operation: self.operation,
            durable_seq,
            source: Arc::new(self.source),
        }
    }
}

impl Io {
    /// Writes a batch over as many segments as it spans, syncs it, and moves the watermark.
    pub(super) fn write(&mut self, batch: &Batch, durable_seq: &AtomicU64) -> Result<(), Failed> {
        if batch.buffer.is_empty() && batch.cuts.is_empty() {
            return Ok(());
        }
        self.watermark.writing(batch.last_seq);
        let mut from = 0;
        for cut in &batch.cuts {
            self.write_bytes(batch.buffer.get(from..cut.offset).unwrap_or_default())?;
            from = cut.offset;
            let held_bytes = self.seal(cut.stats)?;
            if let Some(stats) = cut.stats {
                durable_seq.store(stats.last_seq, Ordering::Release);
                self.watermark.synced(stats.last_seq);
            }
            match cut.next {
                Some(next) => self.begin_after(next, held_bytes)?,
                None => self.end()?,
            }
        }
        let rest = batch.buffer.get(from..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(());
        }
        self.write_bytes(rest)?;
        if let Some(open) = &self.open {
            open.file
                .sync()
                .map_err(|source| open.failed("syncing", source))?;
            durable_seq.store(batch.last_seq, Ordering::Release);
            self.watermark.synced(batch.last_seq);
        }
        Ok(())
    }

    fn write_bytes(&mut self, bytes: &[u8]) -> Result<(), Failed> {
        if let Some(open) = self.open.as_mut().filter(|_| !bytes.is_empty()) {
            open.file
                .write_at(open.data_bytes, bytes)
                .map_err(|source| open.failed("writing", source))?;
            open.sha256.update(bytes);
            open.data_bytes += size(bytes.len());
        }
        Ok(())
    }

    /// The first segment of this writer.
    pub(super) fn begin(&mut self, header: SegmentHeader) -> Result<(), Failed> {
        if self.options.reserve {
            self.ahead.want_first(header.segment_id);
            self.ahead.prepare_now()?;
        }
        self.begin_after(header, 0)
    }

    /// Makes the prepared file the open segment: its header is durable before it has its name, and
    /// its name before the first frame is written.
    fn begin_after(&mut self, header: SegmentHeader, held_bytes: u64) -> Result<(), Failed> {
        let next = self.ahead.take(header.segment_id)?;
        let failed = |operation| failed(&next.path, operation);
        let bytes = header.encode();
        next.file
            .write_at(0, &bytes)
            .map_err(failed("writing the header"))?;
        next.file.sync().map_err(failed("syncing the header"))?;
        let path = segment_path(&self.dir, header.segment_id, SegmentState::Open);
        self.disk
            .rename(&next.path, &path)
            .map_err(failed("renaming"))?;
        self.sync_dir()?;
        self.open = Some(OpenSegment {
            file: next.file,
            path,
            header,
            data_bytes: size(bytes.len()),
            sha256: Sha256::new_with_prefix(bytes),
        });
        self.watermark.begun(header.segment_id);
        self.manifest.push(Entry::of(
            EntryKind::Begun,
            header.segment_id,
            header.epoch,
            header.first_seq,
        ));
        let flushed = self.manifest.flush(self.disk.as_ref());
        flushed.map_err(|error| self.unlisted(error))?;
        self.ahead.want(header.segment_id + 1, held_bytes);
        if self.options.reserve {
            self.ahead.reserve_now()?;
        }
        Ok(())
    }

    /// Makes the open segment immutable, or removes it if it holds no record; returns what it held.
    fn seal(&mut self, stats: Option<SegmentStats>) -> Result<u64, Failed> {
        let Some(open) = self.open.take() else {
            return Ok(0);
        };
        let SegmentHeader {
            segment_id,
            epoch,
            first_seq,
            ..
        } = open.header;
        let Some(stats) = stats else {
            let removed = Entry::of(EntryKind::Removed, segment_id, epoch, first_seq);
            self.manifest.push(removed);
            let flushed = self.manifest.flush_waiting(self.disk.as_ref());
            flushed.map_err(|error| self.unlisted(error))?;
            self.disk
                .remove(&open.path)
                .map_err(|source| open.failed("removing the empty segment", source))?;
            self.sync_dir()?;
            return Ok(0);
        };
        let sha256 = open.sha256.clone().finalize().into();
        let footer = Footer {
            stats,
            data_bytes: open.data_bytes,
            sha256,
        };
        let end = open.data_bytes + size(FOOTER_BYTES);
        open.file
            .write_at(open.data_bytes, &footer.encode())
            .map_err(|source| open.failed("writing the footer", source))?;
        open.file
            .truncate(end)
            .map_err(|source| open.failed("cutting the reserved tail", source))?;
        open.file
            .sync()
            .map_err(|source| open.failed("syncing the footer", source))?;
        let sealed = segment_path(&self.dir, segment_id, SegmentState::Sealed);
        self.disk
            .rename(&open.path, &sealed)
            .map_err(|source| open.failed("renaming", source))?;
        self.sync_dir()?;
        self.manifest.push(Entry {
            record_count: stats.record_count,
            last_seq: stats.last_seq,
            data_bytes: open.data_bytes,
            sha256,
            ..Entry::of(EntryKind::Sealed, segment_id, epoch, first_seq)
        });
        Ok(open.data_bytes)
    }

    /// The log has its last segment: nothing stays prepared, and nobody else is kept out.
    fn end(&mut self) -> Result<(), Failed> {
        let flushed = self.manifest.flush_waiting(self.disk.as_ref());
        flushed.map_err(|error| self.unlisted(error))?;
        self.ahead.end()?;
        self.watermark
            .set_phase(WriterPhase::Sealed, ReasonCode::Unset);
        self.lock = None;
        Ok(())
    }

    fn sync_dir(&self) -> Result<(), Failed> {
        self.disk
            .sync_dir(&self.dir)
            .map_err(failed(&self.dir, "syncing the folder"))
    }

    fn unlisted(&self, error: WalError) -> Failed {
        let source = std::io::Error::other(error);
        Failed::new(self.dir.join(MANIFEST_NAME), 0, "adding an entry", source)
    }
}

impl OpenSegment {
    fn failed(&self, operation: &'static str, source: std::io::Error) -> Failed {
        Failed::new(self.path.clone(), self.data_bytes, operation, source)
    }
}

fn failed(path: &Path, operation: &'static str) -> impl FnOnce(std::io::Error) -> Failed + use<> {
    let path = path.to_path_buf();
    move |source| Failed::new(path, 0, operation, source)
}
