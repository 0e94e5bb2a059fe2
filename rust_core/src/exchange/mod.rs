//! Exchanges: what a simulation asks of one, and the paper exchange.
//!
//! Why: backtest and paper session run the same loop against two implementations of one trait,
//! and their reports can be compared field by field.
//!
//! Invariants:
//! 1. No latency inside: a request acts at the time it is handed over; `simulation` delays.
//! 2. Reports of one call come in order of exchange time, then order id.
//!
//! It keeps no position and no fee. Operator's page: `docs/backtest.md`.

mod crate_venue;

pub use crate_venue::CrateVenue;

use hftbacktest::types::TimeInForce;

use crate::convert::{ConvertCounts, ConvertError};
use crate::engine::InstrumentConfig;
use crate::reason::ReasonCode;
use crate::record::{BrokerEventKind, RecordHeader, SCALE};
use crate::ticks::TickLadder;

/// How an order's place in the queue is estimated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QueueModelKind {
    /// Moves up by trades only: the floor.
    RiskAdverse,
    /// `1 - (front / (front + back))^3` of a decrease is behind us.
    PowerProb3,
    /// `ln(1 + back) / (ln(1 + back) + ln(1 + front))` of a decrease is behind us: optimistic.
    LogProb,
}

/// How long an order lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderLife {
    /// Until filled, canceled or the session ends.
    RestOfDay,
    /// What does not fill at once expires.
    ImmediateOrCancel,
    /// All at once or nothing.
    FillOrKill,
}

impl OrderLife {
    /// The life of `DecisionRecord::time_in_force`.
    #[must_use]
    pub fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            1 => Self::RestOfDay,
            2 => Self::ImmediateOrCancel,
            3 => Self::FillOrKill,
            _ => return None,
        })
    }

    /// The crate's and the package's own number of it.
    #[must_use]
    pub fn package_code(self) -> TimeInForce {
        match self {
            Self::RestOfDay => TimeInForce::GTC,
            Self::ImmediateOrCancel => TimeInForce::IOC,
            Self::FillOrKill => TimeInForce::FOK,
        }
    }
}

/// An order as a venue sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VenueOrder {
    /// Ours.
    pub order_id: u64,
    /// What is traded.
    pub instrument_id: u32,
    /// +1 buy, -1 sell.
    pub side: i64,
    /// Limit price, scaled.
    pub price: i64,
    /// Quantity, scaled.
    pub qty: i64,
    /// How long it lives.
    pub life: OrderLife,
}

/// What a venue says about one order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VenueReport {
    /// What happened.
    pub kind: BrokerEventKind,
    /// To which order.
    pub order_id: u64,
    /// Fill price, else the order's price.
    pub price: i64,
    /// Filled quantity, else the order's quantity.
    pub qty: i64,
    /// What is still open.
    pub remaining_qty: i64,
    /// When, on the exchange's clock.
    pub exchange_time_ns: i64,
    /// The fill was passive.
    pub is_maker: bool,
    /// Why, for refusals.
    pub reason: ReasonCode,
}

impl VenueReport {
    /// A report without a fill.
    #[must_use]
    pub fn of(order: &VenueOrder, kind: BrokerEventKind, exchange_time_ns: i64) -> Self {
        let remaining_qty = if kind == BrokerEventKind::Working {
            order.qty
        } else {
            0
        };
        Self {
            kind,
            order_id: order.order_id,
            price: order.price,
            qty: order.qty,
            remaining_qty,
            exchange_time_ns,
            is_maker: false,
            reason: ReasonCode::Unset,
        }
    }

    /// A refusal with its reason.
    #[must_use]
    pub fn refused(
        order: &VenueOrder,
        kind: BrokerEventKind,
        exchange_time_ns: i64,
        reason: ReasonCode,
    ) -> Self {
        Self {
            reason,
            ..Self::of(order, kind, exchange_time_ns)
        }
    }

    /// A full fill.
    #[must_use]
    pub fn fill(order: &VenueOrder, price: i64, exchange_time_ns: i64, is_maker: bool) -> Self {
        Self {
            price,
            is_maker,
            ..Self::of(order, BrokerEventKind::Fill, exchange_time_ns)
        }
    }
}

/// Why a venue cannot go on.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum VenueError {
    /// The matching model refused; its state cannot be trusted any more.
    #[error("exchange model failed at {action} of order {order_id}: {detail}")]
    Model {
        /// What was asked.
        action: &'static str,
        /// For which order, 0 for market data.
        order_id: u64,
        /// What it said.
        detail: String,
    },
    /// The package's function gave an error code.
    #[error("hftbacktest {function} returned {result} at {time_ns}; 0 was expected")]
    Package {
        /// Which function.
        function: &'static str,
        /// Its result.
        result: i64,
        /// Exchange time.
        time_ns: i64,
    },
    /// The venue was not built for this instrument.
    #[error("venue has no instrument {instrument_id}")]
    UnknownInstrument {
        /// Which.
        instrument_id: u32,
    },
    /// Tick or lot is no size.
    #[error(transparent)]
    Convert(#[from] ConvertError),
}

impl VenueError {
    /// Its number.
    #[must_use]
    pub fn code(&self) -> ReasonCode {
        match self {
            Self::Model { .. } | Self::Package { .. } => ReasonCode::InvariantBroken,
            Self::UnknownInstrument { .. } => ReasonCode::UnknownInstrument,
            Self::Convert(error) => error.code(),
        }
    }
}

/// An exchange that the simulation drives; all times are its own clock's and never go back.
pub trait Venue {
    /// Takes one market record at its exchange time. Fills that follow are reported by `advance`.
    ///
    /// # Errors
    /// [`VenueError`] when the model fails.
    fn market(&mut self, header: &RecordHeader, bytes: &[u8]) -> Result<(), VenueError>;

    /// Brings the venue to `now_ns` and reports every fill since, in order id order.
    ///
    /// # Errors
    /// [`VenueError`] when the model fails.
    fn advance(&mut self, now_ns: i64, reports: &mut Vec<VenueReport>) -> Result<(), VenueError>;

    /// Places an order that arrives now.
    ///
    /// # Errors
    /// [`VenueError`] when the model fails; a refusal of the order is a report.
    fn place(
        &mut self,
        order: &VenueOrder,
        now_ns: i64,
        reports: &mut Vec<VenueReport>,
    ) -> Result<(), VenueError>;

    /// Cancels an order, by a cancel that arrives now.
    ///
    /// # Errors
    /// [`VenueError`] when the model fails; a refusal of the cancel is a report.
    fn cancel(
        &mut self,
        order: &VenueOrder,
        now_ns: i64,
        reports: &mut Vec<VenueReport>,
    ) -> Result<(), VenueError>;

    /// What the conversion of its market data left out.
    fn convert_counts(&self) -> ConvertCounts {
        ConvertCounts::default()
    }
}

/// Tick and lot of one instrument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VenueInstrument {
    /// Its number in record headers.
    pub instrument_id: u32,
    /// Finest step of its prices, scaled: the grid of the market's depth.
    pub tick_size: i64,
    /// Lot size, scaled.
    pub lot_size: i64,
    /// The prices that an order may have.
    pub ticks: TickLadder,
}

impl VenueInstrument {
    /// An instrument with one step at every price.
    ///
    /// # Panics
    /// When the step is not above 0.
    #[must_use]
    pub fn flat(instrument_id: u32, tick_size: i64, lot_size: i64) -> Self {
        Self {
            instrument_id,
            tick_size,
            lot_size,
            ticks: TickLadder::flat(tick_size),
        }
    }
}

impl From<&InstrumentConfig> for VenueInstrument {
    fn from(config: &InstrumentConfig) -> Self {
        Self {
            instrument_id: config.instrument_id,
            tick_size: config.ticks().finest(),
            lot_size: config.lot_size,
            ticks: config.ticks(),
        }
    }
}

/// Whether an order can exist at all.
///
/// # Errors
/// The reason why it cannot.
pub(crate) fn check_order(order: &VenueOrder, ticks: &TickLadder) -> Result<(), ReasonCode> {
    if order.qty <= 0 {
        return Err(ReasonCode::QtyNotPositive);
    }
    if order.price <= 0 {
        return Err(ReasonCode::PriceNotPositive);
    }
    if !ticks.is_on_grid(order.price) {
        return Err(ReasonCode::OrderPriceOffTick);
    }
    Ok(())
}

/// A scaled integer as the models' float: exact up to 2^53, then divided once, the same way
/// everywhere.
pub(crate) fn float(scaled: i64) -> f64 {
    scaled as f64 / SCALE as f64
}
