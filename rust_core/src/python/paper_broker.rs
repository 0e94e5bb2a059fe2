//! The paper exchange as a broker, for Python.
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use serde::Deserialize;

use super::simulation::{fault_report, latency_profile, refuse, run_counts};
use crate::exchange::{QueueModelKind, VenueInstrument};
use crate::faults::FaultProfile;
use crate::paper_broker::{ExchangeSetup, NewOrder, OrderView, PaperExchange};
use crate::reason::ReasonCode;
use crate::simulation::{CallAnswer, SimulationError};
use crate::thread_owned::{ThreadGone, ThreadOwned};
use crate::ticks::{TickBand, TickLadder};

/// What the exchange JSON may hold.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    queue_model: QueueModelKind,
    trading_day: u32,
    #[serde(default)]
    faults: Option<FaultProfile>,
    instruments: Vec<InstrumentOption>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct InstrumentOption {
    instrument_id: u32,
    lot_size: i64,
    ticks: Vec<(i64, i64)>,
}

/// Why the exchange cannot start or go on.
#[derive(Debug)]
enum Failure {
    Simulation(SimulationError),
    Thread(ThreadGone),
}

impl From<ThreadGone> for Failure {
    fn from(gone: ThreadGone) -> Self {
        Self::Thread(gone)
    }
}

impl From<SimulationError> for Failure {
    fn from(error: SimulationError) -> Self {
        Self::Simulation(error)
    }
}

fn raised(py: Python<'_>, failure: &Failure) -> PyErr {
    match failure {
        Failure::Simulation(error) => refuse(py, error.code(), &error.to_string()),
        Failure::Thread(gone) => refuse(py, ReasonCode::InvariantBroken, &gone.to_string()),
    }
}

fn malformed(py: Python<'_>, what: &str) -> PyErr {
    let message = format!("paper exchange options are malformed: {what}");
    refuse(py, ReasonCode::SettingsInvalid, &message)
}

fn instruments(py: Python<'_>, options: &Options) -> PyResult<Vec<VenueInstrument>> {
    let one = |option: &InstrumentOption| {
        let bands: Vec<_> = option
            .ticks
            .iter()
            .map(|(from, tick)| TickBand {
                from: *from,
                tick: *tick,
            })
            .collect();
        let ticks = TickLadder::new(&bands).map_err(|error| malformed(py, &error.to_string()))?;
        Ok(VenueInstrument {
            instrument_id: option.instrument_id,
            tick_size: ticks.finest(),
            lot_size: option.lot_size,
            ticks,
        })
    };
    options.instruments.iter().map(one).collect()
}

/// 1 taken, 2 unanswered, 3 refused.
fn answer_code(answer: CallAnswer) -> u8 {
    match answer {
        CallAnswer::Taken => 1,
        CallAnswer::Unanswered => 2,
        CallAnswer::Refused => 3,
    }
}

fn order_dict<'py>(py: Python<'py>, view: &OrderView) -> PyResult<Bound<'py, PyDict>> {
    let table = PyDict::new(py);
    table.set_item("id", view.id)?;
    table.set_item("order_id", view.new.order_id)?;
    table.set_item("instrument_id", view.new.instrument_id)?;
    table.set_item("side", view.new.side)?;
    table.set_item("price", view.new.price)?;
    table.set_item("qty", view.new.qty)?;
    table.set_item("status", view.status().map_or(0, |kind| kind as u32))?;
    table.set_item("reason_code", view.reason().code())?;
    let fills = PyList::empty(py);
    for fill in view.booked.iter().flat_map(|booked| &booked.fills) {
        fills.append((
            fill.price,
            fill.qty,
            fill.remaining_qty,
            fill.exchange_time_ns,
            fill.is_maker,
        ))?;
    }
    table.set_item("fills", fills)?;
    Ok(table)
}

/// The paper exchange as a broker: feed it a market, let time pass, send requests, ask it.
#[pyclass(name = "PaperBroker", module = "hft_platform._core", frozen)]
struct PyPaperBroker {
    thread: Mutex<ThreadOwned<PaperExchange>>,
}

impl PyPaperBroker {
    fn thread(&self) -> MutexGuard<'_, ThreadOwned<PaperExchange>> {
        // A panic elsewhere leaves the channel ends as they were: nothing to repair.
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call<R: Send + 'static>(
        &self,
        py: Python<'_>,
        task: impl FnOnce(&mut PaperExchange) -> Result<R, SimulationError> + Send + 'static,
    ) -> PyResult<R> {
        py.detach(|| self.thread().call(task))
            .map_err(Failure::from)
            .and_then(|result| result.map_err(Failure::from))
            .map_err(|failure| raised(py, &failure))
    }
}

#[pymethods]
impl PyPaperBroker {
    #[new]
    fn new(py: Python<'_>, latency_json: &str, options_json: &str) -> PyResult<Self> {
        let options: Options = serde_json::from_str(options_json)
            .map_err(|error| malformed(py, &error.to_string()))?;
        let setup = ExchangeSetup {
            profile: latency_profile(py, latency_json)?,
            queue_model: options.queue_model,
            instruments: instruments(py, &options)?,
            faults: options.faults,
            trading_day: options.trading_day,
        };
        let make = move || PaperExchange::new(setup).map_err(Failure::from);
        let thread = py
            .detach(|| ThreadOwned::start("paper-exchange", make))
            .map_err(|failure| raised(py, &failure))?;
        Ok(Self {
            thread: Mutex::new(thread),
        })
    }

    /// The whole market, or with `more` the next piece of one that goes on.
    #[pyo3(signature = (tape, *, more=false))]
    fn feed(&self, py: Python<'_>, tape: Vec<u8>, more: bool) -> PyResult<()> {
        self.call(py, move |exchange| exchange.feed(tape, more))
    }

    /// What reaches us next: at most `records_max` records, none behind `limit_ns`; None when
    /// nothing does.
    #[pyo3(signature = (limit_ns=None, records_max=1))]
    fn next<'py>(
        &self,
        py: Python<'py>,
        limit_ns: Option<i64>,
        records_max: u64,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let tape = self.call(py, move |exchange| exchange.next(limit_ns, records_max))?;
        Ok((!tape.is_empty()).then(|| PyBytes::new(py, &tape)))
    }

    /// Sends an order; gives the exchange's number of it and 1 taken, 2 unanswered, 3 refused.
    #[pyo3(signature = (order_id, instrument_id, *, side, price, qty, time_in_force, now_ns=None))]
    #[allow(
        clippy::too_many_arguments,
        reason = "keyword-only: the fields of one order"
    )]
    fn place(
        &self,
        py: Python<'_>,
        order_id: u64,
        instrument_id: u32,
        side: i64,
        price: i64,
        qty: i64,
        time_in_force: u32,
        now_ns: Option<i64>,
    ) -> PyResult<(u64, u8)> {
        let order = NewOrder {
            order_id,
            instrument_id,
            side,
            price,
            qty,
            time_in_force,
        };
        let (id, answer) = self.call(py, move |exchange| exchange.place(order, now_ns))?;
        Ok((id, answer_code(answer)))
    }

    /// Asks for a cancel; the same numbers, or 0 when there is no such order.
    #[pyo3(signature = (id, *, now_ns=None))]
    fn cancel(&self, py: Python<'_>, id: u64, now_ns: Option<i64>) -> PyResult<u8> {
        let answer = self.call(py, move |exchange| exchange.cancel(id, now_ns))?;
        Ok(answer.map_or(0, answer_code))
    }

    /// Every order that the exchange or the broker knows of; None when the question fails.
    fn orders<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyList>>> {
        let Some(views) = self.call(py, |exchange| Ok(exchange.orders()))? else {
            return Ok(None);
        };
        let list = PyList::empty(py);
        for view in &views {
            list.append(order_dict(py, view)?)?;
        }
        Ok(Some(list))
    }

    /// Net position an instrument; None when the question fails.
    fn positions(&self, py: Python<'_>) -> PyResult<Option<BTreeMap<u32, i64>>> {
        self.call(py, |exchange| Ok(exchange.positions()))
    }

    /// Net position an instrument as the exchange knows it; this never fails.
    fn truth(&self, py: Python<'_>) -> PyResult<BTreeMap<u32, i64>> {
        self.call(py, |exchange| Ok(exchange.truth()))
    }

    #[getter]
    fn now_ns(&self, py: Python<'_>) -> PyResult<i64> {
        self.call(py, |exchange| Ok(exchange.now_ns()))
    }

    #[getter]
    fn is_done(&self, py: Python<'_>) -> PyResult<bool> {
        self.call(py, |exchange| Ok(exchange.is_done()))
    }

    /// Ends the exchange; what it counted, and None the second time.
    fn finish<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let Some(result) = self.call(py, |exchange| Ok(exchange.finish()))? else {
            return Ok(None);
        };
        let table = run_counts(py, &result.counts, &result.convert_counts)?;
        if let Some(faults) = &result.faults {
            table.set_item("faults", fault_report(py, faults)?)?;
        }
        Ok(Some(table))
    }
}

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyPaperBroker>()
}
