//! What the normaliser must know of the world, from JSON, checked once.
//!
//! Why: a code without an instrument, a session or a unit must not be guessed at in a callback.
//!
//! Invariants:
//! 1. Unknown fields are refused; no limit has a default.
//! 2. Codes are unique within a market and lot kind; sessions are in order and do not overlap.
//! 3. Tables are bounded by the constants below.
//!
//! It reads no file; `hft_platform/feed/shioaji_normaliser.py` builds the JSON from instruments and
//! calendar. Operator's page: `docs/normaliser.md`.

use serde::Deserialize;

use crate::book::VALUE_MAX;
use crate::reason::ReasonCode;
use crate::ticks::TickLadder;

/// Longest code the SDK has, in bytes, with room to spare.
pub const CODE_BYTES_MAX: usize = 16;
/// Instruments in a table; the broker allows 200 subscriptions.
pub const INSTRUMENT_COUNT_MAX: usize = 1_024;
/// Sessions of one instrument: two years of day and night.
pub const SESSION_COUNT_MAX: usize = 1_100;
/// Offset of a local clock from UTC, seconds.
const OFFSET_S_MAX: i64 = 15 * 3_600;

/// Which family of SDK classes a code belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Market {
    /// `*FOPv1`: futures and options.
    Futures,
    /// `*STKv1`: stocks.
    Stock,
}

/// What becomes of a futures book whose side totals are not the sum of its five quantities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnTotalMismatch {
    /// It is dropped.
    Drop,
    /// It is published and noted.
    Note,
}

/// One trading session of one instrument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionWindow {
    /// Start of the trial matches before it; equals `start_ns` if there are none.
    pub preopen_ns: i64,
    /// First moment inside, ns UTC.
    pub start_ns: i64,
    /// First moment behind, ns UTC.
    pub end_ns: i64,
    /// Trading day as yyyymmdd; a night session carries the next one.
    pub trading_day: u32,
}

/// One code of the SDK and what it means.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstrumentEntry {
    /// Number in records.
    pub instrument_id: u32,
    /// Code in the SDK's objects: the real month, never the alias that was subscribed.
    pub code: String,
    /// Family of SDK classes.
    pub market: Market,
    /// Whether this entry takes the intraday odd-lot stream of the code.
    pub is_odd_lot: bool,
    /// Record quantity of one unit of the SDK's volume, scaled.
    pub lot_size: i64,
    /// Price grid, scaled; with `tick_bands` its finest step.
    pub tick_size: i64,
    /// Where the step of price grows with the price.
    #[serde(default)]
    pub tick_bands: Option<TickLadder>,
    /// Silence after which time windows start over, ns of exchange time.
    pub gap_ns: i64,
    /// Sessions, in time order.
    pub sessions: Vec<SessionWindow>,
}

/// Everything the normaliser is told.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NormaliserConfig {
    /// Local time of the SDK's naive datetimes minus UTC.
    pub utc_offset_s: i64,
    /// How far exchange time may lie after receive time.
    pub exchange_ahead_ns_max: i64,
    /// How far exchange time may lie before receive time.
    pub exchange_behind_ns_max: i64,
    /// What becomes of a futures book with wrong side totals.
    pub on_total_mismatch: OnTotalMismatch,
    /// The codes.
    pub instruments: Vec<InstrumentEntry>,
}

/// Why a config is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NormaliserConfigError {
    /// Not the JSON of a config.
    #[error("normaliser config: {message}")]
    Malformed {
        /// What the parser says.
        message: String,
    },
    /// A field has a value that is not allowed.
    #[error("normaliser config: {field} was {value}, allowed is {allowed}")]
    Field {
        /// Which.
        field: String,
        /// What it was.
        value: String,
        /// What it may be.
        allowed: &'static str,
    },
}

impl NormaliserConfigError {
    /// The number for operators.
    #[must_use]
    pub fn code(&self) -> ReasonCode {
        ReasonCode::SettingsInvalid
    }
}

fn refused(
    field: impl Into<String>,
    value: impl ToString,
    allowed: &'static str,
) -> NormaliserConfigError {
    NormaliserConfigError::Field {
        field: field.into(),
        value: value.to_string(),
        allowed,
    }
}

fn within(
    field: impl Into<String>,
    value: i64,
    low: i64,
    high: i64,
    allowed: &'static str,
) -> Result<(), NormaliserConfigError> {
    if (low..=high).contains(&value) {
        Ok(())
    } else {
        Err(refused(field, value, allowed))
    }
}

impl NormaliserConfig {
    /// Parses and checks.
    ///
    /// # Errors
    /// [`NormaliserConfigError`] naming the field.
    pub fn from_json(text: &str) -> Result<Self, NormaliserConfigError> {
        let config: Self =
            serde_json::from_str(text).map_err(|error| NormaliserConfigError::Malformed {
                message: error.to_string(),
            })?;
        config.validate()?;
        Ok(config)
    }

    fn validate(&self) -> Result<(), NormaliserConfigError> {
        let hour = "a local clock within 15 hours of UTC";
        within(
            "utc_offset_s",
            self.utc_offset_s,
            -OFFSET_S_MAX,
            OFFSET_S_MAX,
            hour,
        )?;
        let age = "0 to one day";
        let day_ns = 86_400_000_000_000;
        within(
            "exchange_ahead_ns_max",
            self.exchange_ahead_ns_max,
            0,
            day_ns,
            age,
        )?;
        within(
            "exchange_behind_ns_max",
            self.exchange_behind_ns_max,
            0,
            day_ns,
            age,
        )?;
        let count = self.instruments.len();
        if count == 0 || count > INSTRUMENT_COUNT_MAX {
            return Err(refused("instruments", count, "1 to 1024 entries"));
        }
        for (index, entry) in self.instruments.iter().enumerate() {
            entry.validate(index)?;
        }
        self.codes_are_unique()
    }

    fn codes_are_unique(&self) -> Result<(), NormaliserConfigError> {
        let mut keys: Vec<_> = self
            .instruments
            .iter()
            .map(|entry| (entry.code.as_str(), entry.market, entry.is_odd_lot))
            .collect();
        keys.sort_unstable();
        match keys.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(refused(
                "instruments.code",
                pair[0].0,
                "a code once a market and lot kind",
            )),
            None => Ok(()),
        }
    }
}

impl InstrumentEntry {
    fn validate(&self, index: usize) -> Result<(), NormaliserConfigError> {
        let named = |field: &str| format!("instruments[{index}].{field}");
        let is_code = (1..=CODE_BYTES_MAX).contains(&self.code.len())
            && self.code.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_code {
            return Err(refused(
                named("code"),
                &self.code,
                "1 to 16 printable ASCII characters",
            ));
        }
        if self.instrument_id == 0 {
            return Err(refused(named("instrument_id"), 0, "above 0"));
        }
        if self.is_odd_lot && self.market != Market::Stock {
            return Err(refused(named("is_odd_lot"), true, "false for futures"));
        }
        let positive = "above 0 and below 1e10, scaled";
        within(named("lot_size"), self.lot_size, 1, VALUE_MAX, positive)?;
        within(named("tick_size"), self.tick_size, 1, VALUE_MAX, positive)?;
        within(named("gap_ns"), self.gap_ns, 1, i64::MAX, "above 0")?;
        let count = self.sessions.len();
        if count == 0 || count > SESSION_COUNT_MAX {
            return Err(refused(named("sessions"), count, "1 to 1100 entries"));
        }
        let mut behind_ns = 0;
        for session in &self.sessions {
            let is_ordered = behind_ns <= session.preopen_ns
                && session.preopen_ns <= session.start_ns
                && session.start_ns < session.end_ns;
            if !is_ordered {
                let allowed = "preopen_ns <= start_ns < end_ns, each session behind the one before";
                return Err(refused(
                    named("sessions.start_ns"),
                    session.start_ns,
                    allowed,
                ));
            }
            if !(19_700_101..=99_991_231).contains(&session.trading_day) {
                return Err(refused(
                    named("sessions.trading_day"),
                    session.trading_day,
                    "yyyymmdd",
                ));
            }
            behind_ns = session.end_ns;
        }
        Ok(())
    }
}
