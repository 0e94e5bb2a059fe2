//! Follows one segment while another process writes it: new durable records, read once each.
//!
//! Why: a store that is filled within a second of the market must read a growing file again and
//! again. Reading it whole each time costs the square of the session; this reads only what is new.
//!
//! Invariants:
//! 1. A record is given only when it is durable: the log's watermark says so, or a later frame of
//!    the segment does (`seq - sync_lag`). A crash never takes back what was given.
//! 2. Records come once each, in order; every frame is held against checksum, chain, sequence and
//!    epoch, as in any other reading.
//! 3. Bytes that are no frame are waited for, unless they are durable: then they are damage.
//! 4. It takes no lock and changes nothing.
//!
//! It does not check footer or hash (a sealed segment is read whole for that), and does not go on
//! to the next segment. Operator's page: `docs/recorder.md`.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::error::{Following, WalError};
use super::reader::{read_failed, size};
use super::scan::{Scan, Stop, next_frame, record_bytes};
use super::segment::{
    Footer, HeaderFault, LogKind, SEGMENT_HEADER_BYTES, SegmentHeader, SegmentState, segment_path,
};
use super::watermark::read_watermark;

/// Bytes of the first read of a poll; doubled while frames keep coming.
const READ_BYTES_MIN: usize = 64 << 10;
/// Bytes of the largest read of a poll.
const READ_BYTES_MAX: usize = 4 << 20;
/// How often bytes that must be a frame are read again before they count as damage.
const READ_TRIES_MAX: u32 = 4;

const _: () = assert!(READ_BYTES_MIN >= super::frame::frame_bytes(super::FRAME_PAYLOAD_BYTES_MAX));
const _: () = assert!(READ_BYTES_MIN <= READ_BYTES_MAX);

/// New records of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Followed {
    /// Sequence of the first of them, or the one that comes next.
    pub first_seq: u64,
    /// How many.
    pub record_count: u64,
    /// The records back to back.
    pub tape: Vec<u8>,
    /// Highest sequence of the log that is known to be durable, of any segment.
    pub durable_seq: u64,
}

/// Where a reader stands in a segment.
#[derive(Debug, Clone, Copy)]
struct Place {
    offset: u64,
    next_seq: u64,
    chain: u32,
    tape_bytes: usize,
}

/// A reader of one growing segment.
#[derive(Debug)]
pub struct SegmentFollower {
    file: File,
    path: PathBuf,
    header: SegmentHeader,
    place: Place,
    /// Highest sequence that a frame of this segment says was durable.
    durable_seq: u64,
}

impl SegmentFollower {
    /// Opens segment `segment_id` of the log in `dir`, open or sealed.
    ///
    /// # Errors
    /// A file that cannot be read or is not there (612), a header that is not whole (601), of
    /// another schema (604) or of another segment (610).
    pub fn open(dir: &Path, segment_id: u64) -> Result<Self, WalError> {
        let (file, path) = open_either(dir, segment_id)?;
        let mut bytes = [0_u8; SEGMENT_HEADER_BYTES];
        let have = read_at_most(&file, &path, &mut bytes, 0)?;
        let header = match SegmentHeader::decode(bytes.get(..have).unwrap_or_default()) {
            Ok(header) => header,
            Err(HeaderFault::Schema(was, expected)) => {
                return Err(WalError::SchemaMismatch {
                    path,
                    was,
                    expected,
                });
            }
            Err(HeaderFault::Bad(fault)) => return Err(WalError::TornHeader { path, fault }),
        };
        if header.segment_id != segment_id {
            return Err(WalError::SegmentGap {
                path,
                field: "segment id in the header",
                was: header.segment_id,
                expected: segment_id,
            });
        }
        let place = Place {
            offset: size(SEGMENT_HEADER_BYTES),
            next_seq: header.first_seq,
            chain: header.chain_seed(),
            tape_bytes: 0,
        };
        Ok(Self {
            file,
            path,
            header,
            place,
            durable_seq: 0,
        })
    }

    /// Identity of the log.
    #[must_use]
    pub fn wal_id(&self) -> u32 {
        self.header.wal_id
    }

    /// Which log of the session.
    #[must_use]
    pub fn kind(&self) -> LogKind {
        self.header.kind
    }

    /// Sequence of the segment's first record.
    #[must_use]
    pub fn first_seq(&self) -> u64 {
        self.header.first_seq
    }

    /// Sequence that the next record given has.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.place.next_seq
    }

    /// Reads at most `records_max` records that are durable and were not given before. Up to
    /// `durable_seq` they are known to be, whatever the log's watermark says; 0 knows nothing.
    ///
    /// # Errors
    /// Bytes that are durable and no frame (602), a file that cannot be read (612).
    pub fn poll(&mut self, records_max: usize, durable_seq: u64) -> Result<Followed, WalError> {
        let durable_seq = durable_seq.max(self.watermark());
        let mut tries = 0;
        loop {
            match self.read_new(records_max, durable_seq) {
                // A writer may fill a page after it was read; what is damaged stays damaged.
                Err(WalError::Damaged { .. }) if tries < READ_TRIES_MAX => tries += 1,
                // An empty segment is removed at the end; the watermark is then of the next one.
                Err(WalError::Damaged { .. }) if self.is_removed() => return Ok(self.nothing()),
                outcome => return outcome,
            }
        }
    }

    /// A watermark that cannot be read, or is of another log, says nothing.
    fn watermark(&self) -> u64 {
        read_watermark(self.dir())
            .ok()
            .flatten()
            .filter(|mark| mark.wal_id == self.header.wal_id && mark.kind == self.header.kind)
            .map_or(0, |mark| mark.durable_seq)
    }

    fn dir(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    fn is_removed(&self) -> bool {
        [SegmentState::Open, SegmentState::Sealed]
            .into_iter()
            .all(|state| !segment_path(self.dir(), self.header.segment_id, state).exists())
    }

    fn nothing(&self) -> Followed {
        Followed {
            first_seq: self.place.next_seq,
            record_count: 0,
            tape: Vec::new(),
            durable_seq: self.durable_seq,
        }
    }

    fn read_new(&mut self, records_max: usize, durable_seq: u64) -> Result<Followed, WalError> {
        let mut tape = Vec::new();
        let mut places = Vec::new();
        let mut at = Place {
            tape_bytes: 0,
            ..self.place
        };
        let mut bytes = vec![0; READ_BYTES_MIN];
        while places.len() < records_max {
            let have = read_at_most(&self.file, &self.path, &mut bytes, at.offset)?;
            let block = bytes.get(..have).unwrap_or_default();
            let before = at.offset;
            let fault = self.take_frames(block, records_max, &mut at, &mut tape, &mut places);
            let is_due = at.next_seq <= durable_seq.max(self.durable_seq);
            if let Some(fault) = fault.filter(|_| is_due && at.offset == before && have > 0) {
                return Err(WalError::Damaged {
                    path: self.path.clone(),
                    offset: at.offset,
                    seq: at.next_seq,
                    fault,
                    following: Box::new(Following {
                        durable_seq: Some(durable_seq.max(self.durable_seq)),
                        ..Following::default()
                    }),
                });
            }
            if at.offset == before {
                break;
            }
            let next_bytes = bytes.len().saturating_mul(2).min(READ_BYTES_MAX);
            bytes.resize(next_bytes, 0);
        }
        let bound = durable_seq.max(self.durable_seq);
        // The sequences of `places` grow by one, each naming the one behind its record.
        let given =
            places.partition_point(|place: &Place| place.next_seq <= bound.saturating_add(1));
        let first_seq = self.place.next_seq;
        let end = given.checked_sub(1).and_then(|last| places.get(last));
        tape.truncate(end.map_or(0, |place| place.tape_bytes));
        if let Some(place) = end {
            self.place = *place;
        }
        Ok(Followed {
            first_seq,
            record_count: size(given),
            tape,
            durable_seq: bound,
        })
    }

    /// Decodes the whole frames at the start of `block`; says why it stopped before its end.
    fn take_frames(
        &mut self,
        block: &[u8],
        records_max: usize,
        at: &mut Place,
        tape: &mut Vec<u8>,
        places: &mut Vec<Place>,
    ) -> Option<super::error::Fault> {
        let (mut used, mut upgraded) = (0, Vec::new());
        while places.len() < records_max {
            let rest = block.get(used..).unwrap_or_default();
            if rest.is_empty() || Footer::starts(rest) {
                return None;
            }
            let expected = Scan {
                data_bytes: 0,
                next_seq: at.next_seq,
                stats: None,
                stop: Stop::End,
            };
            let frame = match next_frame(rest, &self.header, &expected, at.chain, &mut upgraded) {
                Ok((frame, _)) => frame,
                Err(fault) => return Some(fault),
            };
            tape.extend_from_slice(record_bytes(&frame, &self.header, &upgraded));
            used += frame.frame_bytes();
            at.offset += size(frame.frame_bytes());
            at.next_seq = frame.seq.saturating_add(1);
            at.chain = frame.crc;
            at.tape_bytes = tape.len();
            self.durable_seq = self.durable_seq.max(frame.durable_seq());
            places.push(*at);
        }
        None
    }
}

/// The segment's file under the name it has now; a writer may rename it in between.
fn open_either(dir: &Path, segment_id: u64) -> Result<(File, PathBuf), WalError> {
    let open = segment_path(dir, segment_id, SegmentState::Open);
    match File::open(&open) {
        Ok(file) => Ok((file, open)),
        Err(_) => {
            let sealed = segment_path(dir, segment_id, SegmentState::Sealed);
            match File::open(&sealed) {
                Ok(file) => Ok((file, sealed)),
                Err(error) => Err(read_failed(&sealed, "opening", error)),
            }
        }
    }
}

/// Fills `bytes` from `offset` as far as the file goes.
fn read_at_most(
    file: &File,
    path: &Path,
    bytes: &mut [u8],
    offset: u64,
) -> Result<usize, WalError> {
    let mut have = 0;
    while let Some(rest) = bytes.get_mut(have..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset.saturating_add(size(have))) {
            Ok(0) => break,
            Ok(more) => have += more,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(read_failed(path, "reading", error)),
        }
    }
    Ok(have)
}
