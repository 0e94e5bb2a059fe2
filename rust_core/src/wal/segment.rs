//! A segment file: header, frames, and when sealed a footer. Names, identity and statistics.
//!
//! Why: a segment is the unit that is sealed, hashed, loaded, archived and deleted.
//!
//! Header (128 bytes): magic, format version u16, log kind u16, wal_id u32, segment_id u64,
//! first_seq u64, epoch u32, record schema version u32, schema hash, zeros, crc32c u32.
//! Footer (112 bytes): magic, record_count, first_seq, last_seq, first_input_seq, last_input_seq,
//! min and max sequence_time_ns, data_bytes (all 8 bytes), sha256 of everything before the footer,
//! crc32c u32, zeros.

use std::path::{Path, PathBuf};

use super::error::{Fault, RecordFault};
use super::frame::{array_at, put, u16_at, u32_at, u64_at};
use super::sabotage::{self, Sabotage};
use crate::record::{self, RecordHeader, RecordType, Tape, TapeError};
use crate::record_upgrade::{EarlierSchema, SegmentSchema};

/// Version of the file format in this folder.
pub const FORMAT_VERSION: u16 = 1;
/// Bytes of a segment's header.
pub const SEGMENT_HEADER_BYTES: usize = 128;
/// Bytes of a sealed segment's footer.
pub const FOOTER_BYTES: usize = 112;
/// Highest segment id a file name of eight digits can carry.
pub(super) const SEGMENT_ID_MAX: u64 = 99_999_999;

const NEXT_ENDING: &str = "next";
const HEADER_MAGIC: &[u8; 8] = b"HFTWALS1";
/// Read as a frame length this is far above every allowed one, so a footer is never a frame.
const FOOTER_MAGIC: &[u8; 8] = b"HFTWALF1";
const HEADER_CRC_AT: usize = SEGMENT_HEADER_BYTES - 4;
const FOOTER_CRC_AT: usize = FOOTER_BYTES - 8;

/// Which of the two logs of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum LogKind {
    /// Book, Trade, Timer and Instrument records; group commit.
    Market = 1,
    /// Command, ConfigSwitch, Broker, Health, Shed, Epoch, Route and Decision records; durable before
    /// the broker is called.
    Orders = 2,
}

impl LogKind {
    /// The kind of a name as used in Python, YAML and folder names.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Market, Self::Orders]
            .into_iter()
            .find(|kind| kind.name() == name)
    }

    /// `market` or `orders`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Market => "market",
            Self::Orders => "orders",
        }
    }

    /// Whether records of this type belong into this log.
    #[must_use]
    pub fn holds(self, record_type: RecordType) -> bool {
        let home = match record_type {
            RecordType::Book | RecordType::Trade | RecordType::Timer | RecordType::Instrument => {
                Self::Market
            }
            RecordType::Command
            | RecordType::Intent
            | RecordType::ConfigSwitch
            | RecordType::Broker
            | RecordType::Account
            | RecordType::Health
            | RecordType::Shed
            | RecordType::Epoch
            | RecordType::Route
            | RecordType::Decision => Self::Orders,
        };
        self == home
    }

    pub(super) fn from_number(number: u16) -> Option<Self> {
        [Self::Market, Self::Orders]
            .into_iter()
            .find(|kind| *kind as u16 == number)
    }
}

/// Whether a segment may still grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentState {
    /// `.open`: being written, or left by a process that died.
    Open,
    /// `.seg`: immutable.
    Sealed,
}

impl SegmentState {
    /// `open` or `sealed`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Sealed => "sealed",
        }
    }
}

/// What the records of a segment span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentStats {
    /// Records in the segment, above 0.
    pub record_count: u64,
    /// Sequence of the first.
    pub first_seq: u64,
    /// Sequence of the last.
    pub last_seq: u64,
    /// `input_seq` of the first record.
    pub first_input_seq: u64,
    /// `input_seq` of the last record.
    pub last_input_seq: u64,
    /// Smallest `sequence_time_ns`.
    pub min_sequence_time_ns: i64,
    /// Largest `sequence_time_ns`.
    pub max_sequence_time_ns: i64,
}

impl SegmentStats {
    /// Statistics with one record more.
    #[must_use]
    pub(super) fn with(stats: Option<Self>, seq: u64, record: &RecordHeader) -> Self {
        let time_ns = record.sequence_time_ns;
        match stats {
            None => Self {
                record_count: 1,
                first_seq: seq,
                last_seq: seq,
                first_input_seq: record.input_seq,
                last_input_seq: record.input_seq,
                min_sequence_time_ns: time_ns,
                max_sequence_time_ns: time_ns,
            },
            Some(before) => Self {
                record_count: before.record_count.saturating_add(1),
                last_seq: seq,
                last_input_seq: record.input_seq,
                min_sequence_time_ns: before.min_sequence_time_ns.min(time_ns),
                max_sequence_time_ns: before.max_sequence_time_ns.max(time_ns),
                ..before
            },
        }
    }
}

/// One segment as a reader found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentInfo {
    /// The file.
    pub path: PathBuf,
    /// Open or sealed.
    pub state: SegmentState,
    /// Which log of the session.
    pub kind: LogKind,
    /// Identity of the log, with `seq` the key of a record in the store.
    pub wal_id: u32,
    /// Place in the log, from 1.
    pub segment_id: u64,
    /// The writer's epoch.
    pub epoch: u32,
    /// What its records are laid out by in the file; a tape has them in today's layouts.
    pub schema: SegmentSchema,
    /// Sequence the first record has or will have.
    pub first_seq: u64,
    /// What its records span; `None` without a record.
    pub stats: Option<SegmentStats>,
    /// Size of the file.
    pub file_bytes: u64,
    /// Bytes of header and valid frames.
    pub data_bytes: u64,
    /// Hash of those bytes, from the footer of a sealed segment.
    pub sha256: Option<[u8; 32]>,
}

/// The identity a segment's header carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) kind: LogKind,
    pub(super) wal_id: u32,
    pub(super) segment_id: u64,
    pub(super) first_seq: u64,
    pub(super) epoch: u32,
    /// A writer writes today's.
    pub(super) schema: SegmentSchema,
}

/// Why a header cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HeaderFault {
    /// Cut or damaged.
    Bad(Fault),
    /// Whole, but of another format or record schema: what it was, what is expected.
    Schema(String, String),
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0_u8; SEGMENT_HEADER_BYTES];
        put(&mut bytes, 0, HEADER_MAGIC);
        put(&mut bytes, 8, &FORMAT_VERSION.to_le_bytes());
        put(&mut bytes, 10, &(self.kind as u16).to_le_bytes());
        put(&mut bytes, 12, &self.wal_id.to_le_bytes());
        put(&mut bytes, 16, &self.segment_id.to_le_bytes());
        put(&mut bytes, 24, &self.first_seq.to_le_bytes());
        put(&mut bytes, 32, &self.epoch.to_le_bytes());
        put(
            &mut bytes,
            36,
            &u32::from(self.schema.version()).to_le_bytes(),
        );
        put(&mut bytes, 40, &self.schema.hash());
        let crc = crc_of(&bytes, HEADER_CRC_AT);
        put(&mut bytes, HEADER_CRC_AT, &crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, HeaderFault> {
        let need = SEGMENT_HEADER_BYTES;
        let torn = Fault::Torn {
            structure: "segment header",
            need,
            have: bytes.len(),
        };
        Self::decode_fields(bytes).ok_or(HeaderFault::Bad(torn))?
    }

    /// `None` when the bytes end too early.
    fn decode_fields(bytes: &[u8]) -> Option<Result<Self, HeaderFault>> {
        let bytes = bytes.get(..SEGMENT_HEADER_BYTES)?;
        let bad = |fault| Some(Err(HeaderFault::Bad(fault)));
        if bytes.get(..HEADER_MAGIC.len())? != HEADER_MAGIC {
            return bad(Fault::Magic {
                structure: "segment header",
            });
        }
        let (was, expected) = (u32_at(bytes, HEADER_CRC_AT)?, crc_of(bytes, HEADER_CRC_AT));
        if was != expected {
            return bad(Fault::Checksum {
                structure: "segment header",
                was,
                expected,
            });
        }
        let versions = (u16_at(bytes, 8)?, u32_at(bytes, 36)?);
        let hash: [u8; 32] = array_at(bytes, 40)?;
        let schema = match known_schema(versions, &hash) {
            Ok(schema) => schema,
            Err(fault) => return Some(Err(fault)),
        };
        let kind_number = u16_at(bytes, 10)?;
        let Some(kind) = LogKind::from_number(kind_number) else {
            return bad(Fault::Number {
                field: "log kind",
                was: kind_number.into(),
                expected: 1,
            });
        };
        Some(Ok(Self {
            kind,
            wal_id: u32_at(bytes, 12)?,
            segment_id: u64_at(bytes, 16)?,
            first_seq: u64_at(bytes, 24)?,
            epoch: u32_at(bytes, 32)?,
            schema,
        }))
    }

    /// Start of the frames' checksum chain: bytes of another segment never fit it.
    pub(super) fn chain_seed(&self) -> u32 {
        if sabotage::is(Sabotage::NoChainSeed) {
            return 0;
        }
        crc32c::crc32c_append(
            crc32c::crc32c(&self.wal_id.to_le_bytes()),
            &self.segment_id.to_le_bytes(),
        )
    }
}

/// The end of a sealed segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) stats: SegmentStats,
    pub(super) data_bytes: u64,
    pub(super) sha256: [u8; 32],
}

impl Footer {
    pub(super) fn encode(&self) -> [u8; FOOTER_BYTES] {
        let stats = &self.stats;
        let mut bytes = [0_u8; FOOTER_BYTES];
        put(&mut bytes, 0, FOOTER_MAGIC);
        put(&mut bytes, 8, &stats.record_count.to_le_bytes());
        put(&mut bytes, 16, &stats.first_seq.to_le_bytes());
        put(&mut bytes, 24, &stats.last_seq.to_le_bytes());
        put(&mut bytes, 32, &stats.first_input_seq.to_le_bytes());
        put(&mut bytes, 40, &stats.last_input_seq.to_le_bytes());
        put(&mut bytes, 48, &stats.min_sequence_time_ns.to_le_bytes());
        put(&mut bytes, 56, &stats.max_sequence_time_ns.to_le_bytes());
        put(&mut bytes, 64, &self.data_bytes.to_le_bytes());
        put(&mut bytes, 72, &self.sha256);
        let crc = crc_of(&bytes, FOOTER_CRC_AT);
        put(&mut bytes, FOOTER_CRC_AT, &crc.to_le_bytes());
        bytes
    }

    /// Whether a footer, whole or not, starts here.
    pub(super) fn starts(bytes: &[u8]) -> bool {
        bytes.starts_with(FOOTER_MAGIC)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        let torn = Fault::Torn {
            structure: "footer",
            need: FOOTER_BYTES,
            have: bytes.len(),
        };
        Self::decode_fields(bytes).ok_or(torn)?
    }

    /// `None` when the bytes end too early.
    fn decode_fields(bytes: &[u8]) -> Option<Result<Self, Fault>> {
        let bytes = bytes.get(..FOOTER_BYTES)?;
        if !Self::starts(bytes) {
            return Some(Err(Fault::Magic {
                structure: "footer",
            }));
        }
        let (was, expected) = (u32_at(bytes, FOOTER_CRC_AT)?, crc_of(bytes, FOOTER_CRC_AT));
        if was != expected {
            return Some(Err(Fault::Checksum {
                structure: "footer",
                was,
                expected,
            }));
        }
        let reserved = u32_at(bytes, FOOTER_CRC_AT + 4)?;
        if reserved != 0 {
            let (was, expected) = (reserved.into(), 0);
            return Some(Err(Fault::Number {
                field: "reserved footer bytes",
                was,
                expected,
            }));
        }
        Some(Ok(Self {
            stats: SegmentStats {
                record_count: u64_at(bytes, 8)?,
                first_seq: u64_at(bytes, 16)?,
                last_seq: u64_at(bytes, 24)?,
                first_input_seq: u64_at(bytes, 32)?,
                last_input_seq: u64_at(bytes, 40)?,
                min_sequence_time_ns: i64::from_le_bytes(array_at(bytes, 48)?),
                max_sequence_time_ns: i64::from_le_bytes(array_at(bytes, 56)?),
            },
            data_bytes: u64_at(bytes, 64)?,
            sha256: array_at(bytes, 72)?,
        }))
    }
}

/// File name of a segment: eight digits, `.open` while it grows, `.seg` once sealed.
pub(super) fn segment_path(dir: &Path, segment_id: u64, state: SegmentState) -> PathBuf {
    let ending = match state {
        SegmentState::Open => "open",
        SegmentState::Sealed => "seg",
    };
    dir.join(format!("{segment_id:08}.{ending}"))
}

/// File name of the segment that is prepared while the one before it is written. No reader takes
/// it for a segment.
pub(super) fn next_path(dir: &Path, segment_id: u64) -> PathBuf {
    dir.join(format!("{segment_id:08}.{NEXT_ENDING}"))
}

/// Whether a file name is that of a prepared segment.
pub(super) fn is_next_name(name: &str) -> bool {
    name.split_once('.')
        .is_some_and(|(digits, ending)| ending == NEXT_ENDING && is_segment_number(digits))
}

fn is_segment_number(digits: &str) -> bool {
    digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Segment id and state of a file name, or `None` if it is not a segment's.
pub(super) fn parse_name(name: &str) -> Option<(u64, SegmentState)> {
    let (digits, ending) = name.split_once('.')?;
    let state = match ending {
        "open" => SegmentState::Open,
        "seg" => SegmentState::Sealed,
        _ => return None,
    };
    is_segment_number(digits)
        .then(|| digits.parse().ok())
        .flatten()
        .map(|id| (id, state))
}

/// The head of the one record in `bytes`, if it is one and belongs into a log of this kind.
pub(super) fn check_record(kind: LogKind, bytes: &[u8]) -> Result<RecordHeader, RecordFault> {
    let mut tape = Tape::new(bytes);
    let (header, record) = tape.next().ok_or(RecordFault::NotOne {
        have: 0,
        record_bytes: 0,
    })??;
    if record.len() != bytes.len() {
        return Err(RecordFault::NotOne {
            have: bytes.len(),
            record_bytes: record.len(),
        });
    }
    check_home(kind, &header)?;
    Ok(header)
}

/// The head of the one record of an earlier schema in `bytes`, as [`check_record`]; the record in
/// today's layout is in `upgraded` then, alone.
#[cold]
pub(super) fn upgrade_record(
    earlier: &EarlierSchema,
    kind: LogKind,
    bytes: &[u8],
    upgraded: &mut Vec<u8>,
) -> Result<RecordHeader, RecordFault> {
    upgraded.clear();
    let head = match &earlier.upgrade {
        Ok(upgrade) => upgrade.append(bytes, upgraded)?,
        // A header of such a schema is refused before a frame is looked at.
        Err(_) => return Err(TapeError::TornHeader { offset: 0 }.into()),
    };
    check_home(kind, &head)?;
    Ok(head)
}

/// Whether a record of a tape belongs into a log of this kind.
pub(super) fn check_home(kind: LogKind, header: &RecordHeader) -> Result<(), RecordFault> {
    if RecordType::from_code(header.record_type).is_some_and(|known| kind.holds(known)) {
        Ok(())
    } else {
        Err(RecordFault::WrongLog {
            record_type: header.record_type,
            kind: kind.name(),
        })
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn crc_of(bytes: &[u8], crc_at: usize) -> u32 {
    crc32c::crc32c(bytes.get(..crc_at).unwrap_or_default())
}

/// The schema a header names, if this build can read records of it.
fn known_schema(versions: (u16, u32), hash: &[u8; 32]) -> Result<SegmentSchema, HeaderFault> {
    let refused = |behind: &str| {
        let known = (FORMAT_VERSION, u32::from(record::SCHEMA_VERSION));
        let expected = schema_name(known, &SegmentSchema::Current.hash());
        let was = schema_name(versions, hash);
        Err(HeaderFault::Schema(was, format!("{expected}{behind}")))
    };
    match SegmentSchema::find(versions.1, hash).filter(|_| versions.0 == FORMAT_VERSION) {
        None => refused(" or an earlier one that is kept"),
        Some(SegmentSchema::Earlier(earlier)) => match &earlier.upgrade {
            Err(why) => refused(&format!("; it cannot be upgraded: {why}")),
            Ok(_) => Ok(SegmentSchema::Earlier(earlier)),
        },
        Some(schema) => Ok(schema),
    }
}

fn schema_name(versions: (u16, u32), hash: &[u8]) -> String {
    format!(
        "log format {}, record schema {} ({})",
        versions.0,
        versions.1,
        hex(hash)
    )
}
