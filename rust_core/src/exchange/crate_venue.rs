//! The paper exchange, on the public parts of the hftbacktest crate.
//!
//! Why: a paper session needs an exchange that market data is pushed into while it runs; the
//! matching itself (queue position, fills) is the crate's, so backtest and paper share one model.
//!
//! Invariants:
//! 1. Reports come in order id order, never in hash order.
//! 2. An order fills at most once, and in full: the exchange model has no partial fills.
//!
//! It converts snapshots by `convert` and delays nothing. Operator's page: `docs/backtest.md`.

use std::collections::BTreeMap;

use hftbacktest::backtest::assettype::LinearAsset;
use hftbacktest::backtest::models::{
    CommonFees, ConstantLatency, LogProbQueueFunc, PowerProbQueueFunc3, ProbQueueModel, QueueModel,
    RiskAdverseQueueModel, TradingValueFeeModel,
};
use hftbacktest::backtest::order::{ExchToLocal, LocalToExch, order_bus};
use hftbacktest::backtest::proc::{NoPartialFillExchange, Processor};
use hftbacktest::backtest::state::State;
use hftbacktest::depth::HashMapMarketDepth;
use hftbacktest::types::{Event, OrdType, Order, Side, Status};

use super::{
    QueueModelKind, Venue, VenueError, VenueInstrument, VenueOrder, VenueReport, check_order, float,
};
use crate::convert::{ConvertCounts, Converter, EventRow};
use crate::reason::ReasonCode;
use crate::record::{BrokerEventKind, RecordHeader};

/// The exchange side of one instrument.
struct Matching {
    instrument: VenueInstrument,
    converter: Converter,
    processor: Box<dyn Processor>,
    /// Our end of the bus: requests in, responses out, without delay.
    bus: LocalToExch<ConstantLatency>,
    rows: Vec<EventRow>,
    /// Orders in the book, for their quantity in our units.
    resting: BTreeMap<u64, VenueOrder>,
}

/// The paper exchange: one book an instrument.
pub struct CrateVenue {
    books: Vec<Matching>,
}

impl std::fmt::Debug for CrateVenue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let instruments: Vec<VenueInstrument> =
            self.books.iter().map(|book| book.instrument).collect();
        f.debug_struct("CrateVenue")
            .field("instruments", &instruments)
            .finish_non_exhaustive()
    }
}

fn processor(
    kind: QueueModelKind,
    instrument: &VenueInstrument,
    bus: ExchToLocal<ConstantLatency>,
) -> Box<dyn Processor> {
    fn boxed<Q: QueueModel<HashMapMarketDepth> + 'static>(
        queue: Q,
        instrument: &VenueInstrument,
        bus: ExchToLocal<ConstantLatency>,
    ) -> Box<dyn Processor> {
        let depth =
            HashMapMarketDepth::new(float(instrument.tick_size), float(instrument.lot_size));
        let free = TradingValueFeeModel::new(CommonFees::new(0.0, 0.0));
        let state = State::new(LinearAsset::new(1.0), free);
        Box::new(NoPartialFillExchange::new(depth, state, queue, bus))
    }
    match kind {
        QueueModelKind::RiskAdverse => boxed(RiskAdverseQueueModel::new(), instrument, bus),
        QueueModelKind::PowerProb3 => boxed(
            ProbQueueModel::new(PowerProbQueueFunc3::new(3.0)),
            instrument,
            bus,
        ),
        QueueModelKind::LogProb => boxed(
            ProbQueueModel::new(LogProbQueueFunc::new()),
            instrument,
            bus,
        ),
    }
}

impl Matching {
    fn new(kind: QueueModelKind, instrument: VenueInstrument) -> Result<Self, VenueError> {
        let converter = Converter::new(
            instrument.instrument_id,
            instrument.tick_size,
            instrument.lot_size,
        )?;
        let (exchange_end, bus) = order_bus(ConstantLatency::new(0, 0));
        let processor = processor(kind, &instrument, exchange_end);
        Ok(Self {
            instrument,
            converter,
            processor,
            bus,
            rows: Vec::new(),
            resting: BTreeMap::new(),
        })
    }

    fn market(&mut self, header: &RecordHeader, bytes: &[u8]) -> Result<(), VenueError> {
        self.rows.clear();
        self.converter.push(header, bytes, &mut self.rows);
        for row in &self.rows {
            let event = Event {
                ev: row.ev,
                exch_ts: row.exch_ts,
                local_ts: row.local_ts,
                px: row.px,
                qty: row.qty,
                order_id: row.order_id,
                ival: row.ival,
                fval: row.fval,
            };
            self.processor
                .process(&event)
                .map_err(|error| model("market data", 0, &error))?;
        }
        Ok(())
    }

    /// Everything the exchange said since the last call.
    fn drain(&mut self, reports: &mut Vec<VenueReport>) {
        while let Some(time_ns) = self.bus.earliest_recv_order_timestamp() {
            let Some(response) = self.bus.receive(time_ns) else {
                break;
            };
            let Some(order) = self.resting.get(&response.order_id).copied() else {
                continue;
            };
            let report = self.report(&order, &response);
            if report.kind != BrokerEventKind::Working {
                self.resting.remove(&order.order_id);
            }
            reports.push(report);
        }
    }

    fn report(&self, order: &VenueOrder, response: &Order) -> VenueReport {
        let time_ns = response.exch_timestamp;
        match (response.req, response.status) {
            (_, Status::New) => VenueReport::of(order, BrokerEventKind::Working, time_ns),
            (_, Status::Filled) => {
                let price = response
                    .exec_price_tick
                    .saturating_mul(self.instrument.tick_size);
                VenueReport::fill(order, price, time_ns, response.maker)
            }
            (_, Status::Canceled) => VenueReport::of(order, BrokerEventKind::Canceled, time_ns),
            (_, Status::Expired) => VenueReport::of(order, BrokerEventKind::Expired, time_ns),
            _ => VenueReport::refused(
                order,
                BrokerEventKind::Rejected,
                time_ns,
                ReasonCode::BrokerRejected,
            ),
        }
    }

    fn request(&mut self, order: &VenueOrder, req: Status, now_ns: i64) -> Result<(), VenueError> {
        let side = if order.side > 0 {
            Side::Buy
        } else {
            Side::Sell
        };
        let mut request = Order::new(
            order.order_id,
            order.price / self.instrument.tick_size,
            float(self.instrument.tick_size),
            float(order.qty),
            side,
            OrdType::Limit,
            order.life.package_code(),
        );
        request.req = req;
        request.local_timestamp = now_ns;
        // A constant latency of 0 is never negative, so the bus rejects nothing.
        self.bus.request(request, |_| {});
        let action = if req == Status::New {
            "place"
        } else {
            "cancel"
        };
        self.processor
            .process_recv_order(now_ns, None)
            .map(drop)
            .map_err(|error| model(action, order.order_id, &error))
    }
}

fn model(
    action: &'static str,
    order_id: u64,
    error: &hftbacktest::backtest::BacktestError,
) -> VenueError {
    VenueError::Model {
        action,
        order_id,
        detail: error.to_string(),
    }
}

impl CrateVenue {
    /// An exchange for some instruments.
    ///
    /// # Errors
    /// [`VenueError::Convert`] when a tick or lot is not above 0.
    pub fn new(kind: QueueModelKind, instruments: &[VenueInstrument]) -> Result<Self, VenueError> {
        let books = instruments
            .iter()
            .map(|one| Matching::new(kind, *one))
            .collect::<Result<_, _>>()?;
        Ok(Self { books })
    }

    fn book(&mut self, instrument_id: u32) -> Result<&mut Matching, VenueError> {
        self.books
            .iter_mut()
            .find(|book| book.instrument.instrument_id == instrument_id)
            .ok_or(VenueError::UnknownInstrument { instrument_id })
    }
}

impl Venue for CrateVenue {
    fn market(&mut self, header: &RecordHeader, bytes: &[u8]) -> Result<(), VenueError> {
        self.book(header.instrument_id)?.market(header, bytes)
    }

    fn advance(&mut self, _now_ns: i64, reports: &mut Vec<VenueReport>) -> Result<(), VenueError> {
        let first = reports.len();
        for book in &mut self.books {
            book.drain(reports);
        }
        reports[first..].sort_unstable_by_key(|report| (report.exchange_time_ns, report.order_id));
        Ok(())
    }

    fn place(
        &mut self,
        order: &VenueOrder,
        now_ns: i64,
        reports: &mut Vec<VenueReport>,
    ) -> Result<(), VenueError> {
        let book = self.book(order.instrument_id)?;
        if let Err(reason) = check_order(order, &book.instrument.ticks) {
            reports.push(VenueReport::refused(
                order,
                BrokerEventKind::Rejected,
                now_ns,
                reason,
            ));
            return Ok(());
        }
        book.resting.insert(order.order_id, *order);
        book.request(order, Status::New, now_ns)?;
        book.drain(reports);
        Ok(())
    }

    fn cancel(
        &mut self,
        order: &VenueOrder,
        now_ns: i64,
        reports: &mut Vec<VenueReport>,
    ) -> Result<(), VenueError> {
        let book = self.book(order.instrument_id)?;
        if !book.resting.contains_key(&order.order_id) {
            reports.push(VenueReport::refused(
                order,
                BrokerEventKind::CancelRejected,
                now_ns,
                ReasonCode::OrderStateInvalid,
            ));
            return Ok(());
        }
        book.request(order, Status::Canceled, now_ns)?;
        book.drain(reports);
        Ok(())
    }

    fn convert_counts(&self) -> ConvertCounts {
        self.books
            .iter()
            .fold(ConvertCounts::default(), |total, book| {
                total.plus(&book.converter.counts())
            })
    }
}
