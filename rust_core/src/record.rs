//! Record v1: the fixed binary form of every event.
//!
//! Why: the adapter produces it, the WAL stores it, numpy and Arrow read it without a copy, the
//! loader inserts it and a replay consumes it. There is no second representation.
//!
//! Invariants:
//! 1. Every record starts with a `RecordHeader`; `record_bytes` is the size of its type.
//! 2. Layouts are little-endian, without implicit padding, and a multiple of 8 bytes.
//! 3. `schema_text` names every field with offset and numpy format; its SHA-256 is the schema
//!    hash that every WAL segment header carries.
//!
//! It does not validate prices (see `book`) and does no I/O. Operator's page: `docs/formats.md`.

use bytemuck::{Pod, Zeroable};
use sha2::{Digest, Sha256};

/// Version of the layouts in this file.
pub const SCHEMA_VERSION: u8 = 1;
/// Units per 1.0 of price, quantity, notional and money: everything is an integer at 1e-8.
pub const SCALE: i64 = 100_000_000;
/// Depth levels kept on each side.
pub const LEVEL_COUNT: usize = 5;

/// One field of a record: name, numpy format (little-endian), byte offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Field name as it appears in numpy, Arrow, SQL and logs.
    pub name: &'static str,
    /// numpy format string, for example `<i8` or `(5,)<i8`.
    pub format: &'static str,
    /// Byte offset from the start of the record.
    pub offset: usize,
}

/// One record type: name, type code, size and fields.
#[derive(Debug, Clone, Copy)]
pub struct RecordLayout {
    /// Name used in Python and SQL.
    pub name: &'static str,
    /// `RecordHeader::record_type`.
    pub code: u8,
    /// Size in bytes.
    pub bytes: usize,
    /// Fields behind the header, then the header's own are in `HEADER_FIELDS`.
    pub fields: &'static [Field],
}

/// The common head of every record, 64 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct RecordHeader {
    /// Size of the whole record in bytes.
    pub record_bytes: u16,
    /// One of [`RecordType`].
    pub record_type: u8,
    /// [`SCHEMA_VERSION`] of the writer.
    pub schema_version: u8,
    /// Instrument from the session's engine config; 0 when the record concerns none.
    pub instrument_id: u32,
    /// Global input sequence, given by the sequencer; 0 before that. In a decision it is the
    /// sequence of the input that caused it.
    pub input_seq: u64,
    /// Order of the row in its source stream.
    pub source_seq: u64,
    /// Exchange clock, ns UTC.
    pub exchange_time_ns: i64,
    /// Our receive clock, ns UTC; unique and increasing within a session's source.
    pub receive_time_ns: i64,
    /// The engine's only time: `max(previous + 1, now)`, ns UTC; 0 before sequencing.
    pub sequence_time_ns: i64,
    /// Bits of [`flags`].
    pub flags: u32,
    /// Which adapter produced it (1 recording, 2 generator, 3 paper exchange, 4 broker, 5 operator, 6 runtime,
    /// 7 Python strategy).
    pub source_id: u16,
    /// Always 0.
    pub reserved_a: u16,
    /// Exchange trading day as yyyymmdd; the night session belongs to the next trading day.
    pub trading_day: u32,
    /// Always 0.
    pub reserved_b: u32,
}

/// Bits of `RecordHeader::flags`.
pub mod flags {
    /// Pre-open trial match: never a price to trade on.
    pub const SIMULATED_MATCH: u32 = 1;
    /// The source had no exchange time; the receive time was used.
    pub const EXCHANGE_TIME_MISSING: u32 = 1 << 1;
    /// The receive time was synthesised by the documented seeded method.
    pub const RECEIVE_TIME_SYNTHETIC: u32 = 1 << 2;
    /// The aggressor side was not given by the source.
    pub const SIDE_UNKNOWN: u32 = 1 << 3;
    /// First record of a session: incremental state starts over.
    pub const SESSION_START: u32 = 1 << 4;
    /// The ingestion found a gap before this record: time windows start over.
    pub const GAP_BEFORE: u32 = 1 << 5;
    /// Odd-lot print.
    pub const ODD_LOT: u32 = 1 << 6;
}

/// Type codes; below 16 are inputs of the engine, from 16 on outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum RecordType {
    /// Five-level snapshot.
    Book = 1,
    /// Market print.
    Trade = 2,
    /// Time passing without market data, or a strategy timer.
    Timer = 3,
    /// Operator command.
    Command = 4,
    /// A verified config was applied to a running engine.
    ConfigSwitch = 5,
    /// What the broker or the exchange said about one of our orders.
    Broker = 6,
    /// Resolved contract of the session.
    Instrument = 7,
    /// What the broker says about the account.
    Account = 8,
    /// What the runtime measured and the engine cannot see.
    Health = 10,
    /// What a strategy outside the engine wants.
    Intent = 9,
    /// What the market log did not take for want of space.
    Shed = 11,
    /// A process took the session over; what follows is decided by a recovered engine.
    Epoch = 12,
    /// How one of our orders, or a fill, is called at the broker.
    Route = 13,
    /// What the engine decided.
    Decision = 16,
}

impl RecordType {
    /// The type of `code`, or `None` when this version does not know it.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Book,
            2 => Self::Trade,
            3 => Self::Timer,
            4 => Self::Command,
            5 => Self::ConfigSwitch,
            6 => Self::Broker,
            7 => Self::Instrument,
            8 => Self::Account,
            10 => Self::Health,
            9 => Self::Intent,
            11 => Self::Shed,
            12 => Self::Epoch,
            13 => Self::Route,
            16 => Self::Decision,
            _ => return None,
        })
    }
}

macro_rules! record_layouts {
    ($( $(#[$doc:meta])* $layout:ident = $code:literal $struct_name:ident {
        $( $(#[$fdoc:meta])* $field:ident : $ty:ty = $format:literal ),* $(,)?
    } )*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
            #[repr(C)]
            pub struct $struct_name {
                /// Common head.
                pub header: RecordHeader,
                $( $(#[$fdoc])* pub $field: $ty, )*
            }
            impl Record for $struct_name {
                const TYPE: RecordType = RecordType::$layout;
                fn header(&self) -> &RecordHeader { &self.header }
                fn header_mut(&mut self) -> &mut RecordHeader { &mut self.header }
            }
            const _: () = assert!(size_of::<$struct_name>() % 8 == 0);
            const _: () = assert!(RecordType::$layout as u8 == $code);
        )*
        /// Every record type in code order.
        pub const LAYOUTS: &[RecordLayout] = &[
            $( RecordLayout {
                name: stringify!($layout),
                code: $code,
                bytes: size_of::<$struct_name>(),
                fields: &[ $( Field {
                    name: stringify!($field),
                    format: $format,
                    offset: std::mem::offset_of!($struct_name, $field),
                } ),* ],
            } ),*
        ];
    };
}

/// A fixed-layout record.
pub trait Record: Pod {
    /// Its type code.
    const TYPE: RecordType;
    /// The common head.
    fn header(&self) -> &RecordHeader;
    /// The common head, to fill in.
    fn header_mut(&mut self) -> &mut RecordHeader;

    /// A zeroed record with size, type and version filled in.
    #[must_use]
    fn empty() -> Self {
        let mut record = Self::zeroed();
        record.mark_layout();
        record
    }

    /// Fills in size, type and version.
    fn mark_layout(&mut self) {
        let header = self.header_mut();
        #[allow(
            clippy::cast_possible_truncation,
            reason = "sizes are below 256 and checked at compile time"
        )]
        {
            header.record_bytes = size_of::<Self>() as u16;
        }
        header.record_type = Self::TYPE as u8;
        header.schema_version = SCHEMA_VERSION;
    }

    /// The record's bytes.
    fn as_bytes(&self) -> &[u8] {
        bytemuck::bytes_of(self)
    }

    /// Reads a record of this type from bytes of any alignment; `None` if type or size differ.
    #[must_use]
    fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != size_of::<Self>() {
            return None;
        }
        let record: Self = bytemuck::pod_read_unaligned(bytes);
        (record.header().record_type == Self::TYPE as u8).then_some(record)
    }
}

record_layouts! {
    /// Five best levels on both sides; level 0 is best; a missing level has price 0 and quantity 0.
    Book = 1 BookRecord {
        /// Bid prices, best first.
        bid_price: [i64; LEVEL_COUNT] = "(5,)<i8",
        /// Bid quantities.
        bid_qty: [i64; LEVEL_COUNT] = "(5,)<i8",
        /// Ask prices, best first.
        ask_price: [i64; LEVEL_COUNT] = "(5,)<i8",
        /// Ask quantities.
        ask_qty: [i64; LEVEL_COUNT] = "(5,)<i8",
    }
    /// One market print.
    Trade = 2 TradeRecord {
        /// Price.
        price: i64 = "<i8",
        /// Quantity.
        qty: i64 = "<i8",
        /// Identifier in the source, 0 if none.
        trade_id: u64 = "<u8",
        /// +1 buyer aggressed, -1 seller aggressed, 0 unknown.
        aggressor_side: i64 = "<i8",
    }
    /// Time passing.
    Timer = 3 TimerRecord {
        /// 1 feed silent, 2 session phase change, 3 heartbeat.
        timer_kind: u64 = "<u8",
        /// Kind-specific.
        argument: i64 = "<i8",
    }
    /// An operator's command; kinds in [`CommandKind`].
    Command = 4 CommandRecord {
        /// One of [`CommandKind`].
        command_kind: u32 = "<u4",
        /// Which alpha, or `u32::MAX` for all.
        alpha_index: u32 = "<u4",
        /// Kind-specific (new weight in ppm, deadline in ns, resume token).
        argument: i64 = "<i8",
        /// Why: a `ReasonCode`.
        reason_code: u64 = "<u8",
    }
    /// A verified promoted config took effect.
    ConfigSwitch = 5 ConfigSwitchRecord {
        /// Which alpha of the engine config.
        alpha_index: u32 = "<u4",
        /// 1 shadow, 2 canary, 3 live.
        stage: u32 = "<u4",
        /// Size as parts per million of full size.
        weight_ppm: u64 = "<u8",
        /// Promotion sequence number of the config.
        promotion_seq: u64 = "<u8",
        /// End of validity, ns UTC.
        expires_ns: i64 = "<i8",
        /// SHA-256 of the canonical config without its signature.
        config_sha256: [u8; 32] = "V32",
    }
    /// What the broker or the exchange said about one of our orders.
    Broker = 6 BrokerRecord {
        /// One of [`BrokerEventKind`].
        event_kind: u32 = "<u4",
        /// A `ReasonCode` for rejects, else 0.
        reason_code: u32 = "<u4",
        /// Our order.
        order_id: u64 = "<u8",
        /// +1 buy, -1 sell.
        side: i64 = "<i8",
        /// Fill price, or the order's price.
        price: i64 = "<i8",
        /// Filled quantity of this event, or the order's quantity.
        qty: i64 = "<i8",
        /// Quantity still open after this event.
        remaining_qty: i64 = "<i8",
        /// Sequence of the event at the broker, for deduplication.
        broker_seq: u64 = "<u8",
        /// 1 if the fill was passive (maker), else 0.
        is_maker: u64 = "<u8",
    }
    /// The contract a product root resolved to for this session.
    Instrument = 7 InstrumentRecord {
        /// Symbol, ASCII, zero-padded.
        symbol: [u8; 24] = "S24",
        /// Product root, ASCII, zero-padded.
        product_root: [u8; 16] = "S16",
        /// Last trading day as yyyymmdd, 0 if the contract has none.
        last_trading_day: u64 = "<u8",
        /// Tick size.
        tick_size: i64 = "<i8",
        /// Money per 1.0 of price and 1.0 of quantity.
        multiplier: i64 = "<i8",
    }
    /// The broker's answer about the account; `instrument_id` 0 when it concerns no instrument.
    Account = 8 AccountRecord {
        /// When the broker answered, ns UTC; the answer's age counts from here.
        answer_time_ns: i64 = "<i8",
        /// Which fields are answers: bits of [`account_fields`]. What was not answered is not 0.
        fields: u64 = "<u8",
        /// Money of the account with open results.
        equity: i64 = "<i8",
        /// Money not bound as margin.
        free_margin: i64 = "<i8",
        /// Margin of one lot of the instrument.
        margin_per_lot: i64 = "<i8",
        /// Signed net position of the account in the instrument.
        net_position_qty: i64 = "<i8",
    }
    /// What the runtime measured; kinds and their units in [`HealthKind`].
    Health = 10 HealthRecord {
        /// One of [`HealthKind`].
        health_kind: u64 = "<u8",
        /// The measurement, in the unit of its kind.
        value: i64 = "<i8",
        /// Kind-specific.
        argument: i64 = "<i8",
    }
    /// What a strategy outside the engine wants; the engine's decision names this record.
    Intent = 9 IntentRecord {
        /// Which alpha of the engine config; its template is `external`.
        alpha_index: u32 = "<u4",
        /// One of [`ActionKind`].
        action: u32 = "<u4",
        /// One of [`IntentReason`].
        intent_reason: u32 = "<u4",
        /// 1 rest of day, 2 immediate or cancel, 3 fill or kill.
        time_in_force: u32 = "<u4",
        /// The strategy's number of an order it wants placed, from 1 to 2^32 - 1, growing: a number at
        /// or below one already decided is a duplicate.
        external_id: u64 = "<u8",
        /// Order to cancel; 0 in an order to place.
        order_id: u64 = "<u8",
        /// +1 buy, -1 sell.
        side: i64 = "<i8",
        /// Limit price.
        price: i64 = "<i8",
        /// Quantity, positive.
        qty: i64 = "<i8",
        /// `input_seq` of the record that made the strategy want it.
        cause_seq: u64 = "<u8",
        /// `sequence_time_ns` of that record.
        cause_time_ns: i64 = "<i8",
        /// Validity from there, ns; the alpha's own bounds it.
        ttl_ns: i64 = "<i8",
        /// The strategy's value, in ticks.
        signal: f64 = "<f8",
    }
    /// Records of the header's instrument that were sequenced and decided on, and not stored.
    Shed = 11 ShedRecord {
        /// One of [`crate::shed::Topic`].
        topic: u32 = "<u4",
        /// How short of space the disk was: 1 warning, 2 critical, 3 halt.
        level: u32 = "<u4",
        /// `input_seq` of the first that is missing.
        first_seq: u64 = "<u8",
        /// `input_seq` of the last that is missing.
        last_seq: u64 = "<u8",
        /// How many are missing in between, both ends counted; the others belong to other topics.
        count: u64 = "<u8",
        /// Why: a `ReasonCode`.
        reason_code: u64 = "<u8",
    }
    /// A process took the session over. What follows was decided by an engine that had recovered from
    /// the order log before this record.
    Epoch = 12 EpochRecord {
        /// The fencing number of its lease; grows with every process.
        epoch: u64 = "<u8",
        /// The process, for people.
        process_id: u64 = "<u8",
    }
    /// How one of our orders, or a fill, is called at the broker. It decides nothing; a restart finds
    /// the order again by it.
    Route = 13 RouteRecord {
        /// One of [`RouteKind`].
        route_kind: u32 = "<u4",
        /// Epoch of the process that sent the order.
        epoch: u32 = "<u4",
        /// Our order; 0 for one that is none of ours.
        order_id: u64 = "<u8",
        /// Kind-specific: the `broker_seq` given to a fill, 1 adopted or 2 abandoned.
        argument: u64 = "<u8",
        /// The tag that went with the order, ASCII, zero-padded.
        tag: [u8; 8] = "S8",
        /// The broker's id of the order, ASCII, zero-padded.
        broker_id: [u8; 16] = "S16",
        /// Its sequence number there, ASCII, zero-padded.
        seqno: [u8; 16] = "S16",
        /// The exchange's number of the order, ASCII, zero-padded.
        ordno: [u8; 16] = "S16",
        /// The broker's id of a fill, ASCII, zero-padded.
        fill_id: [u8; 32] = "S32",
    }
    /// One decision of the engine: an intent, approved or refused, a cancel, or a change of state.
    Decision = 16 DecisionRecord {
        /// Grows by one with every decision of a session.
        decision_seq: u64 = "<u8",
        /// Unique for ever: alpha, session and counter (see `gateway`).
        intent_id: u64 = "<u8",
        /// Order to place or cancel; 0 when refused before an id was given.
        order_id: u64 = "<u8",
        /// Which alpha of the engine config.
        alpha_index: u32 = "<u4",
        /// One of [`ActionKind`].
        action: u32 = "<u4",
        /// 1 approved, 2 refused, 3 noted (a change of state; nothing is sent).
        verdict: u32 = "<u4",
        /// `ReasonCode` of the refusal; 0 when approved.
        reason_code: u32 = "<u4",
        /// Why the strategy wanted it: one of [`IntentReason`]; of a change, the state after it.
        intent_reason: u32 = "<u4",
        /// 1 rest of day, 2 immediate or cancel, 3 fill or kill; of a change, the state before it.
        time_in_force: u32 = "<u4",
        /// +1 buy, -1 sell.
        side: i64 = "<i8",
        /// Limit price.
        price: i64 = "<i8",
        /// Quantity, positive.
        qty: i64 = "<i8",
        /// Validity of the intent from its cause, ns.
        ttl_ns: i64 = "<i8",
        /// Value of the alpha expression, in ticks.
        signal: f64 = "<f8",
        /// Price the checks were made against (mid).
        reference_price: i64 = "<i8",
        /// Signed position before this decision.
        position_qty: i64 = "<i8",
        /// Open buy quantity including unknown orders.
        open_buy_qty: i64 = "<i8",
        /// Open sell quantity including unknown orders.
        open_sell_qty: i64 = "<i8",
        /// What the refusing check saw (0 when approved).
        observed: i64 = "<i8",
        /// The limit it was held against (0 when approved).
        limit: i64 = "<i8",
    }
}

/// Bits of `AccountRecord::fields`.
pub mod account_fields {
    /// `equity` and `free_margin` are answers.
    pub const MARGIN: u64 = 1;
    /// `margin_per_lot` is an answer about the header's instrument.
    pub const MARGIN_PER_LOT: u64 = 1 << 1;
    /// `net_position_qty` is an answer about the header's instrument.
    pub const POSITION: u64 = 1 << 2;
}

/// Kinds of operator commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum CommandKind {
    /// Cancel everything, no new orders; latched.
    Halt = 1,
    /// First step of re-arming after a halt.
    ResumeArm = 2,
    /// Second step; `argument` repeats the arm's `input_seq`.
    ResumeConfirm = 3,
    /// Only orders that reduce a position.
    ReduceOnly = 4,
    /// Close the position at market.
    Flatten = 5,
    /// Take the promotion of one alpha back; its `on_withdrawal` says what becomes of the position.
    Withdraw = 6,
    /// New weight in ppm (`argument`); a reduction acts at once, an increase at a flat position.
    SetWeight = 7,
    /// Takes the unexplained part of the header's instrument's position as external; `argument`
    /// repeats its signed quantity.
    AdoptExternal = 8,
}

/// Kinds of health reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum HealthKind {
    /// How late the runtime's loop is, ns.
    LoopLag = 1,
    /// From a request to its first answer as the runtime measured it, ns; `argument` is the order.
    OrderRtt = 2,
    /// Broker's position minus ours, scaled, of the header's instrument; `argument` 1 when the
    /// broker could not be asked, else 0.
    Drift = 3,
    /// Payloads that could not be read since the last report.
    NormaliserFailures = 4,
}

/// Kinds of routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum RouteKind {
    /// The call that sent the order returned; the ids are those known by then.
    Sent = 1,
    /// More ids of the order are known.
    Ids = 2,
    /// `argument` is the `broker_seq` given to the fill called `fill_id`.
    FillId = 3,
    /// The broker holds an order that is none of ours; `order_id` is 0.
    External = 4,
    /// An order of unknown outcome was resolved: `argument` 1 adopted, 2 abandoned.
    Resolved = 5,
}

/// Kinds of broker events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum BrokerEventKind {
    /// The exchange has the order: it is working.
    Working = 1,
    /// Definitive refusal.
    Rejected = 2,
    /// One execution of ours.
    Fill = 3,
    /// The rest was canceled.
    Canceled = 4,
    /// The cancel was refused (already done).
    CancelRejected = 5,
    /// Immediate-or-cancel remainder.
    Expired = 6,
    /// Nobody knows; counts as full exposure until resolved.
    Unknown = 7,
}

/// What a decision asks the broker to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum ActionKind {
    /// Place a new order.
    Place = 1,
    /// Cancel a working order.
    Cancel = 2,
    /// None: the storm guard changed its state.
    StormChange = 16,
    /// None: the gateway's policy changed its state.
    PolicyChange = 17,
    /// Nothing: a loss limit of an alpha, or of the account, was reached.
    LossLatch = 18,
}

/// Why a strategy wanted something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum IntentReason {
    /// Signal beyond the entry threshold.
    Entry = 1,
    /// Signal gone, reversed or holding time over.
    Exit = 2,
    /// A maker's quote.
    Quote = 3,
    /// The quote's price is no longer wanted.
    Requote = 4,
    /// Session end, withdrawal, flatten command or loss limit.
    Flatten = 5,
    /// Halt.
    HaltCancel = 6,
    /// A resting order stood in the way of an exit of ours.
    ClearExit = 7,
}

macro_rules! header_fields {
    ($($field:ident = $format:literal),* $(,)?) => {
        /// Fields of the common head.
        pub const HEADER_FIELDS: &[Field] = &[ $( Field {
            name: stringify!($field), format: $format,
            offset: std::mem::offset_of!(RecordHeader, $field) } ),* ];
    };
}

header_fields! {
    record_bytes = "<u2", record_type = "u1", schema_version = "u1", instrument_id = "<u4",
    input_seq = "<u8", source_seq = "<u8", exchange_time_ns = "<i8", receive_time_ns = "<i8",
    sequence_time_ns = "<i8", flags = "<u4", source_id = "<u2", reserved_a = "<u2",
    trading_day = "<u4", reserved_b = "<u4",
}

const _: () = assert!(size_of::<RecordHeader>() == 64);
const _: () = assert!(size_of::<BookRecord>() == 224);
const _: () = assert!(size_of::<TradeRecord>() == 96);

/// The layout of record type `code`.
#[must_use]
pub fn layout(code: u8) -> Option<&'static RecordLayout> {
    LAYOUTS.iter().find(|layout| layout.code == code)
}

/// Canonical text of all layouts; hashed into the schema hash.
#[must_use]
pub fn schema_text() -> String {
    use std::fmt::Write;
    let mut text = format!("record schema {SCHEMA_VERSION} scale {SCALE}\n");
    let mut fields = |name: &str, code: u8, bytes: usize, list: &[Field]| {
        let _written = writeln!(text, "{name} {code} {bytes}");
        for field in list {
            let _written = writeln!(text, "  {} {} {}", field.offset, field.format, field.name);
        }
    };
    fields("Header", 0, size_of::<RecordHeader>(), HEADER_FIELDS);
    for layout in LAYOUTS {
        fields(layout.name, layout.code, layout.bytes, layout.fields);
    }
    text
}

/// SHA-256 of [`schema_text`].
#[must_use]
pub fn schema_hash() -> [u8; 32] {
    Sha256::digest(schema_text().as_bytes()).into()
}

/// Why bytes are not a tape of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TapeError {
    /// Fewer bytes left than a head needs.
    #[error("tape ends inside a record head at byte {offset}")]
    TornHeader {
        /// Where.
        offset: usize,
    },
    /// Unknown type, wrong version, or a size that is not the type's.
    #[error(
        "record at byte {offset} has type {record_type}, version {schema_version}, {record_bytes} bytes: not of its schema"
    )]
    UnknownRecord {
        /// Where.
        offset: usize,
        /// Its type code.
        record_type: u8,
        /// Its schema version.
        schema_version: u8,
        /// Its stated size.
        record_bytes: u16,
    },
    /// The last record is cut.
    #[error("tape ends inside a record at byte {offset}")]
    TornRecord {
        /// Where.
        offset: usize,
    },
}

/// Reads the head at the start of `bytes`.
#[must_use]
pub fn peek_header(bytes: &[u8]) -> Option<RecordHeader> {
    bytes
        .get(..size_of::<RecordHeader>())
        .map(bytemuck::pod_read_unaligned)
}

/// Iterates over the records of a tape: records back to back, of mixed types.
#[derive(Debug, Clone)]
pub struct Tape<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Tape<'a> {
    /// A tape over `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }
}

impl<'a> Iterator for Tape<'a> {
    type Item = Result<(RecordHeader, &'a [u8]), TapeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let offset = self.offset;
        let rest = self.bytes.get(offset..)?;
        if rest.is_empty() {
            return None;
        }
        let Some(header) = peek_header(rest) else {
            self.offset = self.bytes.len();
            return Some(Err(TapeError::TornHeader { offset }));
        };
        let known = layout(header.record_type).is_some_and(|known| {
            known.bytes == usize::from(header.record_bytes)
                && header.schema_version == SCHEMA_VERSION
        });
        if !known {
            self.offset = self.bytes.len();
            return Some(Err(TapeError::UnknownRecord {
                offset,
                record_type: header.record_type,
                schema_version: header.schema_version,
                record_bytes: header.record_bytes,
            }));
        }
        let Some(record) = rest.get(..usize::from(header.record_bytes)) else {
            self.offset = self.bytes.len();
            return Some(Err(TapeError::TornRecord { offset }));
        };
        self.offset += record.len();
        Some(Ok((header, record)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_cover_every_byte_behind_the_header() {
        for layout in LAYOUTS {
            let mut next = size_of::<RecordHeader>();
            for field in layout.fields {
                assert_eq!(field.offset, next, "{} {}", layout.name, field.name);
                let (count, item) = match field.format {
                    "(5,)<i8" => (5, 8),
                    "V32" => (1, 32),
                    "S24" => (1, 24),
                    "S16" => (1, 16),
                    "S32" => (1, 32),
                    format => (1, format[format.len() - 1..].parse().unwrap_or(0)),
                };
                next += count * item;
            }
            assert_eq!(next, layout.bytes, "{}", layout.name);
        }
    }

    #[test]
    fn a_tape_gives_back_its_records_and_names_a_torn_end() {
        let mut book = BookRecord::empty();
        book.bid_price[0] = 7;
        let trade = TradeRecord::empty();
        let mut bytes = book.as_bytes().to_vec();
        bytes.extend_from_slice(trade.as_bytes());
        let kinds: Vec<u8> = Tape::new(&bytes)
            .map(|r| r.map(|(h, _)| h.record_type).unwrap_or(0))
            .collect();
        assert_eq!(kinds, [1, 2]);
        bytes.truncate(bytes.len() - 1);
        let last = Tape::new(&bytes).last();
        assert_eq!(last, Some(Err(TapeError::TornRecord { offset: 224 })));
        assert_eq!(BookRecord::read(book.as_bytes()), Some(book));
        assert_eq!(TradeRecord::read(book.as_bytes()), None);
    }
}
