//! Binding of `normaliser`: reads the SDK's objects, each attribute once, and hands fields over.
//!
//! Nothing an object does comes out of here as an exception, a panic of the SDK included: it is a
//! `BaseException` of its own, and is counted as `FieldUnreadable`. Only `KeyboardInterrupt` and
//! `SystemExit` pass, which are not the object's. Fields are read without the lock and the lock is
//! held without calling Python, so callbacks of several threads cannot block each other for long.
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyInt, PyList, PyString, PyType};

use super::datetime_memory::DatetimeMemory;
use super::engine::ConfigError;
use crate::normaliser::config::NormaliserConfig;
use crate::normaliser::surface::{QuoteClass, version_difference};
use crate::normaliser::{
    BookFields, Counters, Head, LocalTime, Normaliser, OUTPUT_BYTES, Output, TradeFields, decimal,
};
use crate::reason::ReasonCode;
use crate::record::LEVEL_COUNT;

/// Why the fields of an object were not handed over.
enum Stop {
    /// The object's fault: it is dropped under this code.
    Drop(ReasonCode),
    /// Not the object's: the interpreter is asked to stop.
    Raise(PyErr),
}

type Read<T> = Result<T, Stop>;

/// An attribute of an object, by interned name.
macro_rules! attribute {
    ($object:expr, $name:literal) => {{
        let object: &Bound<'_, PyAny> = $object;
        object
            .getattr(intern!(object.py(), $name))
            .map_err(|error| failed(object.py(), error))
    }};
}

fn failed(py: Python<'_>, error: PyErr) -> Stop {
    let is_ours =
        error.is_instance_of::<PyKeyboardInterrupt>(py) || error.is_instance_of::<PySystemExit>(py);
    if is_ours {
        Stop::Raise(error)
    } else {
        Stop::Drop(ReasonCode::FieldUnreadable)
    }
}

const WRONG_TYPE: Stop = Stop::Drop(ReasonCode::FieldTypeWrong);

fn integer(value: &Bound<'_, PyAny>) -> Read<i64> {
    if !value.is_exact_instance_of::<PyInt>() {
        return Err(WRONG_TYPE);
    }
    value
        .extract()
        .map_err(|_| Stop::Drop(ReasonCode::ValueOutOfRange))
}

fn boolean(value: &Bound<'_, PyAny>) -> Read<bool> {
    value
        .cast_exact::<PyBool>()
        .map(|value| value.is_true())
        .map_err(|_| WRONG_TYPE)
}

/// A naive `datetime` packed as in its memory, through its attributes.
fn packed_by_attributes(value: &Bound<'_, PyAny>) -> Read<[u8; 10]> {
    let part = |value: Bound<'_, PyAny>| -> Read<u8> {
        u8::try_from(integer(&value)?).map_err(|_| WRONG_TYPE)
    };
    if !attribute!(value, "tzinfo")?.is_none() {
        return Err(WRONG_TYPE);
    }
    let year = u16::try_from(integer(&attribute!(value, "year")?)?).map_err(|_| WRONG_TYPE)?;
    let us = u32::try_from(integer(&attribute!(value, "microsecond")?)?).map_err(|_| WRONG_TYPE)?;
    let ([year_high, year_low], [_, high, mid, low]) = (year.to_be_bytes(), us.to_be_bytes());
    Ok([
        year_high,
        year_low,
        part(attribute!(value, "month")?)?,
        part(attribute!(value, "day")?)?,
        part(attribute!(value, "hour")?)?,
        part(attribute!(value, "minute")?)?,
        part(attribute!(value, "second")?)?,
        high,
        mid,
        low,
    ])
}

/// Python types that values are held against, looked up once.
struct Types {
    decimal: Py<PyType>,
    datetime: Py<PyType>,
    /// Where a time's bytes lie; `None` to read it through attributes.
    memory: Option<DatetimeMemory>,
}

impl Types {
    fn new(py: Python<'_>, is_portable: bool) -> PyResult<Self> {
        let type_of = |module: &str, name: &str| -> PyResult<Py<PyType>> {
            let found = py.import(module)?.getattr(name)?;
            Ok(found.cast_into::<PyType>()?.unbind())
        };
        let datetime = type_of("datetime", "datetime")?;
        let memory = if is_portable {
            None
        } else {
            DatetimeMemory::find(datetime.bind(py))?
        };
        Ok(Self {
            decimal: type_of("decimal", "Decimal")?,
            datetime,
            memory,
        })
    }

    /// The exact scaled value of a `Decimal`: its text is the cheapest exact way to its digits.
    fn price(&self, value: &Bound<'_, PyAny>) -> Read<i64> {
        if value.get_type_ptr().cast() != self.decimal.as_ptr() {
            return Err(WRONG_TYPE);
        }
        let text = value.str().map_err(|error| failed(value.py(), error))?;
        decimal::scaled(text.to_str().map_err(|_| WRONG_TYPE)?).map_err(Stop::Drop)
    }

    /// A naive datetime; one with a time zone is not what the schema says.
    fn local_time(&self, value: &Bound<'_, PyAny>) -> Read<LocalTime> {
        if value.get_type_ptr().cast() != self.datetime.as_ptr() {
            return Err(WRONG_TYPE);
        }
        let packed = match self.memory {
            Some(memory) => memory.packed(value).ok_or(WRONG_TYPE)?,
            None => packed_by_attributes(value)?,
        };
        LocalTime::from_packed(&packed).ok_or(WRONG_TYPE)
    }

    fn levels(
        &self,
        list: &Bound<'_, PyAny>,
        read: impl Fn(&Self, &Bound<'_, PyAny>) -> Read<i64>,
    ) -> Read<[i64; LEVEL_COUNT]> {
        let list = list.cast_exact::<PyList>().map_err(|_| WRONG_TYPE)?;
        if list.len() != LEVEL_COUNT {
            return Err(Stop::Drop(ReasonCode::LevelCountWrong));
        }
        let mut levels = [0; LEVEL_COUNT];
        for (index, level) in levels.iter_mut().enumerate() {
            let item = list
                .get_item(index)
                .map_err(|_| Stop::Drop(ReasonCode::LevelCountWrong))?;
            *level = read(self, &item)?;
        }
        Ok(levels)
    }

    fn book(&self, object: &Bound<'_, PyAny>, class: QuoteClass) -> Read<BookFields> {
        let quantity = |_: &Self, value: &Bound<'_, PyAny>| integer(value);
        Ok(BookFields {
            bid_price: self.levels(&attribute!(object, "bid_price")?, Self::price)?,
            bid_volume: self.levels(&attribute!(object, "bid_volume")?, quantity)?,
            ask_price: self.levels(&attribute!(object, "ask_price")?, Self::price)?,
            ask_volume: self.levels(&attribute!(object, "ask_volume")?, quantity)?,
            totals: if class.has_totals() {
                Some([
                    integer(&attribute!(object, "bid_total_vol")?)?,
                    integer(&attribute!(object, "ask_total_vol")?)?,
                ])
            } else {
                None
            },
        })
    }

    fn trade(&self, object: &Bound<'_, PyAny>) -> Read<TradeFields> {
        Ok(TradeFields {
            price: self.price(&attribute!(object, "close")?)?,
            volume: integer(&attribute!(object, "volume")?)?,
            total_volume: integer(&attribute!(object, "total_volume")?)?,
            tick_type: integer(&attribute!(object, "tick_type")?)?,
        })
    }
}

/// Reads what `PyNormaliser::read` reads, by the same names, and nothing else: the floor that the
/// benchmark holds the conversion against.
fn read_only(object: &Bound<'_, PyAny>, class: QuoteClass) -> Read<()> {
    attribute!(object, "code")?;
    attribute!(object, "datetime")?;
    attribute!(object, "simtrade")?;
    if class.has_suspend() {
        attribute!(object, "suspend")?;
    }
    if class.has_odd_lot() {
        attribute!(object, "intraday_odd")?;
    }
    if class.has_trade() {
        attribute!(object, "close")?;
        attribute!(object, "volume")?;
        attribute!(object, "total_volume")?;
        attribute!(object, "tick_type")?;
    }
    if class.has_book() {
        attribute!(object, "bid_price")?;
        attribute!(object, "bid_volume")?;
        attribute!(object, "ask_price")?;
        attribute!(object, "ask_volume")?;
        if class.has_totals() {
            attribute!(object, "bid_total_vol")?;
            attribute!(object, "ask_total_vol")?;
        }
    }
    Ok(())
}

/// Broker quotes to records.
#[pyclass(name = "Normaliser", module = "hft_platform._core", frozen)]
struct PyNormaliser {
    types: Types,
    classes: Vec<(Py<PyType>, QuoteClass)>,
    schema_faults: Vec<String>,
    state: Mutex<Normaliser>,
}

impl PyNormaliser {
    fn state(&self) -> MutexGuard<'_, Normaliser> {
        // A poisoned lock means a panic in pure code, which holds no half-made state worth keeping
        // others out for: streams are stored back whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn class_of(&self, object: &Bound<'_, PyAny>) -> Read<QuoteClass> {
        let kind = object.get_type_ptr();
        self.classes
            .iter()
            .find(|(known, _)| known.as_ptr() == kind.cast())
            .map(|(_, class)| *class)
            .ok_or(Stop::Drop(ReasonCode::QuoteSchemaMismatch))
    }

    /// Reads an object and gives its fields to the state machine, which counts what it drops.
    fn read(
        &self,
        object: &Bound<'_, PyAny>,
        receive_time_ns: i64,
        out: &mut Output,
    ) -> Read<Result<(), ReasonCode>> {
        let class = self.class_of(object)?;
        let code = attribute!(object, "code")?;
        let code = code.cast_exact::<PyString>().map_err(|_| WRONG_TYPE)?;
        let head = Head {
            class,
            code: code.to_str().map_err(|_| WRONG_TYPE)?,
            time: self.types.local_time(&attribute!(object, "datetime")?)?,
            is_simulated: boolean(&attribute!(object, "simtrade")?)?,
            is_suspended: class.has_suspend() && boolean(&attribute!(object, "suspend")?)?,
            is_odd_lot: class.has_odd_lot() && boolean(&attribute!(object, "intraday_odd")?)?,
        };
        Ok(match (class.has_trade(), class.has_book()) {
            (true, false) => {
                let trade = self.types.trade(object)?;
                self.state().on_trade(&head, &trade, receive_time_ns, out)
            }
            (false, _) => {
                let book = self.types.book(object, class)?;
                self.state().on_book(&head, &book, receive_time_ns, out)
            }
            (true, true) => {
                let trade = self.types.trade(object)?;
                let book = self.types.book(object, class)?;
                self.state()
                    .on_quote(&head, &trade, &book, receive_time_ns, out)
            }
        })
    }

    /// Puts into `out` what an object gives: nothing when it was dropped, which is counted.
    ///
    /// # Errors
    /// Only when the interpreter is asked to stop.
    pub(super) fn normalise(
        &self,
        object: &Bound<'_, PyAny>,
        receive_time_ns: i64,
        out: &mut Output,
    ) -> PyResult<()> {
        out.clear();
        match self.read(object, receive_time_ns, out) {
            Ok(_counted) => Ok(()),
            Err(Stop::Drop(code)) => {
                self.state().on_unreadable(code);
                Ok(())
            }
            Err(Stop::Raise(error)) => Err(error),
        }
    }

    /// Takes the class of a probe in if it is what we expect, and says why not otherwise.
    fn admit(&mut self, probe: &Bound<'_, PyAny>) -> PyResult<Option<String>> {
        let kind = probe.get_type();
        let name = kind.name()?.to_string();
        let Some(class) = QuoteClass::from_name(&name) else {
            return Ok(Some(format!("{name}: is no quote class of the SDK")));
        };
        if self.classes.iter().any(|(_, known)| *known == class) {
            return Ok(Some(format!("{name}: was probed twice")));
        }
        let fault = class.difference(&self.attributes_of(probe)?);
        if fault.is_none() {
            self.classes.push((kind.unbind(), class));
        }
        Ok(fault)
    }

    /// Public attributes of an object with the types of their values.
    fn attributes_of(&self, probe: &Bound<'_, PyAny>) -> PyResult<Vec<(String, String)>> {
        let py = probe.py();
        let names: Vec<String> = py
            .import("builtins")?
            .getattr("dir")?
            .call1((probe.get_type(),))?
            .extract()?;
        let mut rows = Vec::new();
        for name in names.into_iter().filter(|name| !name.starts_with('_')) {
            let kind = match probe.getattr(name.as_str()) {
                Ok(value) => self.kind_of(&value)?,
                Err(error) => match failed(py, error) {
                    Stop::Raise(error) => return Err(error),
                    Stop::Drop(_) => "unreadable".to_owned(),
                },
            };
            rows.push((name, kind));
        }
        Ok(rows)
    }

    fn kind_of(&self, value: &Bound<'_, PyAny>) -> PyResult<String> {
        if let Ok(list) = value.cast_exact::<PyList>() {
            let mut kinds = list
                .iter()
                .map(|item| self.kind_of(&item))
                .collect::<PyResult<Vec<_>>>()?;
            kinds.dedup();
            return Ok(format!("list of {} {}", list.len(), kinds.join(" or ")));
        }
        let name = value.get_type().name()?.to_string();
        let expected = match name.as_str() {
            "Decimal" => Some(&self.types.decimal),
            "datetime" => Some(&self.types.datetime),
            _ => None,
        };
        if expected.is_some_and(|kind| kind.as_ptr() != value.get_type_ptr().cast()) {
            return Ok(format!("another {name}"));
        }
        Ok(if value.is_callable() {
            "method".to_owned()
        } else {
            name
        })
    }
}

#[pymethods]
impl PyNormaliser {
    #[new]
    #[pyo3(signature = (config_json, sdk_version, probes, is_portable=false))]
    fn new(
        py: Python<'_>,
        config_json: &str,
        sdk_version: &str,
        probes: Vec<Bound<'_, PyAny>>,
        is_portable: bool,
    ) -> PyResult<Self> {
        let config = NormaliserConfig::from_json(config_json)
            .map_err(|error| ConfigError::new_err((error.code().code(), error.to_string())))?;
        let mut made = Self {
            types: Types::new(py, is_portable)?,
            classes: Vec::with_capacity(probes.len()),
            schema_faults: Vec::new(),
            state: Mutex::new(Normaliser::new(&config)),
        };
        made.schema_faults.extend(version_difference(sdk_version));
        let is_refused = !made.schema_faults.is_empty();
        for probe in &probes {
            let fault = made.admit(probe)?;
            made.schema_faults.extend(fault);
        }
        if is_refused {
            made.classes.clear();
        }
        Ok(made)
    }

    /// How the SDK differs from what the normaliser was written for; empty when it does not.
    #[getter]
    fn schema_faults(&self) -> Vec<String> {
        self.schema_faults.clone()
    }

    /// Whether times are read through their attributes, by request or for want of a known layout.
    #[getter]
    fn is_portable(&self) -> bool {
        self.types.memory.is_none()
    }

    /// Records of one object as bytes, a print before its book; `None` when it was dropped.
    fn on_object<'py>(
        &self,
        py: Python<'py>,
        object: &Bound<'py, PyAny>,
        receive_time_ns: i64,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let mut out = Output::default();
        self.normalise(object, receive_time_ns, &mut out)?;
        Ok((!out.tape().is_empty()).then(|| PyBytes::new(py, out.tape())))
    }

    /// Records of many objects as one tape, for tests and tools; `receive_times_ns` holds a
    /// little-endian `int64` for each.
    fn on_objects<'py>(
        &self,
        py: Python<'py>,
        objects: &Bound<'py, PyList>,
        receive_times_ns: &[u8],
    ) -> PyResult<Bound<'py, PyBytes>> {
        let (times, rest) = receive_times_ns.as_chunks::<8>();
        if times.len() != objects.len() || !rest.is_empty() {
            return Err(PyValueError::new_err(format!(
                "receive_times_ns was {} bytes, expected 8 for each of {} objects",
                receive_times_ns.len(),
                objects.len()
            )));
        }
        let mut tape = Vec::with_capacity(objects.len() * OUTPUT_BYTES);
        let mut out = Output::default();
        for (object, time) in objects.iter().zip(times) {
            self.normalise(&object, i64::from_le_bytes(*time), &mut out)?;
            tape.extend_from_slice(out.tape());
        }
        Ok(PyBytes::new(py, &tape))
    }

    /// Reads of each object the attributes that its conversion reads, and does nothing else.
    ///
    /// Only the benchmark needs it: the cost of the SDK itself, paid from Rust. Gives the number of
    /// objects that could be read.
    fn read_attributes(&self, objects: &Bound<'_, PyList>) -> PyResult<u64> {
        let mut count = 0;
        for object in objects.iter() {
            let read = self
                .class_of(&object)
                .and_then(|class| read_only(&object, class));
            match read {
                Ok(()) => count += 1,
                Err(Stop::Drop(_)) => {}
                Err(Stop::Raise(error)) => return Err(error),
            }
        }
        Ok(count)
    }

    /// What was counted: objects fed, published and dropped by code, records by kind, and notes.
    fn counters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counters: Counters = self.state().counters().clone();
        let table = PyDict::new(py);
        table.set_item("fed", counters.fed)?;
        table.set_item("published", counters.published)?;
        table.set_item("books", counters.books)?;
        table.set_item("trades", counters.trades)?;
        table.set_item("simulated", counters.simulated)?;
        table.set_item("receive_time_moved", counters.receive_time_moved)?;
        table.set_item(
            "dropped",
            super::engine::count_table(py, &counters.dropped())?,
        )?;
        table.set_item("noted", super::engine::count_table(py, &counters.noted())?)?;
        table.set_item("schema_faults", self.schema_faults.len())?;
        Ok(table)
    }
}

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyNormaliser>()
}
