//! The records before the market: which contracts, which configs.
//!
//! Why: a log that is read alone must say what was traded and under which permit.
//!
//! Invariants:
//! 1. One instrument record an instrument, then one config switch an alpha, in config order.
//! 2. A text that does not fit its field is an error, never cut.
//!
//! It resolves no contract. Operator's page: `docs/formats.md`.

use std::collections::BTreeMap;

use super::SimulationError;
use crate::engine::{EngineConfig, Stage};
use crate::record::{ConfigSwitchRecord, InstrumentRecord, Record};

/// What goes before the market: the resolved contracts and the configs in force.
#[derive(Debug, Clone, Default)]
pub struct SessionHead {
    /// Trading day of every record made here.
    pub trading_day: u32,
    /// One record an instrument.
    pub instruments: Vec<InstrumentRecord>,
    /// One record an alpha.
    pub switches: Vec<ConfigSwitchRecord>,
}

/// What an instrument's contract resolved to; the engine config does not hold it.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contract {
    /// Product root, for example `TXF`.
    pub product_root: String,
    /// Last trading day as yyyymmdd, 0 if there is none.
    pub last_trading_day: u64,
}

fn ascii<const N: usize>(field: &'static str, text: &str) -> Result<[u8; N], SimulationError> {
    let mut bytes = [0; N];
    match bytes.get_mut(..text.len()) {
        Some(room) if text.is_ascii() => {
            room.copy_from_slice(text.as_bytes());
            Ok(bytes)
        }
        _ => Err(SimulationError::Head {
            field,
            value: text.to_owned(),
            allowed: "short ASCII text",
        }),
    }
}

/// A SHA-256 in hex; empty is all zeros.
///
/// # Errors
/// [`SimulationError::Head`] when it is neither.
pub fn sha256_of_hex(text: &str) -> Result<[u8; 32], SimulationError> {
    let refuse = || SimulationError::Head {
        field: "config_sha256",
        value: text.to_owned(),
        allowed: "64 hex digits, or empty",
    };
    let mut bytes = [0; 32];
    if text.is_empty() {
        return Ok(bytes);
    }
    if text.len() != 64 || !text.is_ascii() {
        return Err(refuse());
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).map_err(|_| refuse())?;
    }
    Ok(bytes)
}

impl SessionHead {
    /// The head of a session under `config`.
    ///
    /// # Errors
    /// [`SimulationError::Head`] when a name or hash does not fit its record.
    pub fn new(
        config: &EngineConfig,
        contracts: &BTreeMap<u32, Contract>,
    ) -> Result<Self, SimulationError> {
        let mut head = Self {
            trading_day: config.session.trading_day,
            ..Self::default()
        };
        for instrument in &config.instruments {
            let contract = contracts
                .get(&instrument.instrument_id)
                .cloned()
                .unwrap_or_default();
            let mut record = InstrumentRecord::empty();
            record.header.instrument_id = instrument.instrument_id;
            record.symbol = ascii("symbol", &instrument.symbol)?;
            record.product_root = ascii("product_root", &contract.product_root)?;
            record.last_trading_day = contract.last_trading_day;
            record.tick_size = instrument.tick_size;
            record.multiplier = instrument.multiplier;
            head.instruments.push(record);
        }
        for alpha in &config.alphas {
            let mut record = ConfigSwitchRecord::empty();
            record.header.instrument_id = alpha.instrument_id;
            record.alpha_index = alpha.alpha_index;
            record.stage = match alpha.stage {
                Stage::Research => 0,
                Stage::Shadow => 1,
                Stage::Canary => 2,
                Stage::Live => 3,
            };
            record.weight_ppm = alpha.weight_ppm;
            record.promotion_seq = alpha.promotion_seq;
            record.expires_ns = alpha.expires_ns;
            record.config_sha256 = sha256_of_hex(&alpha.config_sha256)?;
            head.switches.push(record);
        }
        Ok(head)
    }
}
