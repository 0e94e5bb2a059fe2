//! The exchange of a backtest: the Python package hftbacktest's own compiled library.
//!
//! Why: research results should be the package's, not those of a copy; its native functions are
//! called by address, so a session runs without the interpreter.
//!
//! Invariants:
//! 1. The addresses, the handle and the feed come from `research/backtest/package_handle.py`,
//!    which has checked version and layout and keeps the feed in memory until the run is over.
//! 2. One handle serves one run of one session and is closed exactly once.
//! 3. Any return code but 0 ends the run: no error looks like an early end of data.
//! 4. Reports of one call come in order id order.
//!
//! It is the only file with foreign calls. As a venue it delays nothing: the package runs with zero
//! order latency then; `package_run` drives one that has its own. Operator's page:
//! `docs/backtest.md`.

use std::collections::BTreeMap;
use std::ffi::c_void;

use crate::exchange::{
    Venue, VenueError, VenueInstrument, VenueOrder, VenueReport, check_order, float,
};
use crate::reason::ReasonCode;
use crate::record::{BrokerEventKind, RecordHeader};

type Elapse = unsafe extern "C" fn(*mut c_void, i64) -> i64;
type Submit = unsafe extern "C" fn(*mut c_void, u64, u64, f64, f64, u8, u8, bool) -> i64;
type Cancel = unsafe extern "C" fn(*mut c_void, u64, u64, bool) -> i64;
type Orders = unsafe extern "C" fn(*mut c_void, u64) -> *const c_void;
type OrdersGet = unsafe extern "C" fn(*const c_void, u64) -> *const c_void;
type Close = unsafe extern "C" fn(*mut c_void) -> i64;

/// Addresses of the package's functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackageAddresses {
    /// `hashmapbt_elapse`.
    pub elapse: usize,
    /// `hashmapbt_submit_buy_order`.
    pub submit_buy_order: usize,
    /// `hashmapbt_submit_sell_order`.
    pub submit_sell_order: usize,
    /// `hashmapbt_cancel`.
    pub cancel: usize,
    /// `hashmapbt_orders`.
    pub orders: usize,
    /// `orders_get`.
    pub orders_get: usize,
    /// `hashmapbt_close`.
    pub close: usize,
}

/// A package run as Python hands it over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackageParts {
    /// The native backtest.
    pub handle: usize,
    /// Its functions.
    pub addresses: PackageAddresses,
    /// What it trades.
    pub instrument: VenueInstrument,
    /// Exchange time of its first row.
    pub first_time_ns: i64,
    /// Exchange time of its end mark, behind everything that can happen.
    pub end_time_ns: i64,
}

/// The package's order, 96 bytes; booleans as bytes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct PackageOrder {
    qty: f64,
    leaves_qty: f64,
    exec_qty: f64,
    exec_price_tick: i64,
    price_tick: i64,
    tick_size: f64,
    exch_timestamp: i64,
    local_timestamp: i64,
    order_id: u64,
    queue: [u64; 2],
    maker: u8,
    order_type: u8,
    req: u8,
    status: u8,
    side: i8,
    time_in_force: u8,
}

const _: () = assert!(size_of::<PackageOrder>() == 96);

/// Name and offset of the order fields that are read, and the order's size; Python compares them
/// with the package's own dtype.
#[must_use]
pub fn package_order_layout() -> (Vec<(&'static str, usize)>, usize) {
    use std::mem::offset_of;
    let fields = vec![
        ("exec_price_tick", offset_of!(PackageOrder, exec_price_tick)),
        ("exch_timestamp", offset_of!(PackageOrder, exch_timestamp)),
        ("order_id", offset_of!(PackageOrder, order_id)),
        ("maker", offset_of!(PackageOrder, maker)),
        ("req", offset_of!(PackageOrder, req)),
        ("status", offset_of!(PackageOrder, status)),
        ("time_in_force", offset_of!(PackageOrder, time_in_force)),
    ];
    (fields, size_of::<PackageOrder>())
}

const STATUS_NEW: u8 = 1;
const STATUS_EXPIRED: u8 = 2;
const STATUS_FILLED: u8 = 3;
const STATUS_CANCELED: u8 = 4;
const LIMIT_ORDER: u8 = 0;
const ASSET: u64 = 0;

/// The package as a venue.
#[derive(Debug)]
pub struct PackageVenue {
    parts: PackageParts,
    elapse: Elapse,
    submit_buy_order: Submit,
    submit_sell_order: Submit,
    cancel: Cancel,
    orders: Orders,
    orders_get: OrdersGet,
    close: Close,
    /// The package's clock; `None` before its first row.
    now_ns: Option<i64>,
    resting: BTreeMap<u64, VenueOrder>,
    is_closed: bool,
}

impl PackageVenue {
    /// Takes over a run; it is closed when this is dropped.
    ///
    /// # Errors
    /// [`VenueError::Package`] when handle or an address is null.
    #[cfg_attr(
        not(feature = "python"),
        expect(dead_code, reason = "only the bindings can have a native run")
    )]
    pub(crate) fn new(parts: PackageParts) -> Result<Self, VenueError> {
        let at = &parts.addresses;
        let words = [
            ("handle", parts.handle),
            ("elapse", at.elapse),
            ("submit_buy_order", at.submit_buy_order),
            ("submit_sell_order", at.submit_sell_order),
            ("cancel", at.cancel),
            ("orders", at.orders),
            ("orders_get", at.orders_get),
            ("close", at.close),
        ];
        if let Some((function, _)) = words.iter().find(|word| word.1 == 0) {
            return Err(VenueError::Package {
                function,
                result: 0,
                time_ns: 0,
            });
        }
        // SAFETY: the addresses are those of the named functions of hftbacktest 2.4.4 (invariant
        // 1) and are not null (checked above); the types are the package's own declarations in its
        // binding.py. Functions of a loaded library stay where they are.
        let functions = unsafe {
            (
                std::mem::transmute::<usize, Elapse>(at.elapse),
                std::mem::transmute::<usize, Submit>(at.submit_buy_order),
                std::mem::transmute::<usize, Submit>(at.submit_sell_order),
                std::mem::transmute::<usize, Cancel>(at.cancel),
                std::mem::transmute::<usize, Orders>(at.orders),
                std::mem::transmute::<usize, OrdersGet>(at.orders_get),
                std::mem::transmute::<usize, Close>(at.close),
            )
        };
        Ok(Self {
            parts,
            elapse: functions.0,
            submit_buy_order: functions.1,
            submit_sell_order: functions.2,
            cancel: functions.3,
            orders: functions.4,
            orders_get: functions.5,
            close: functions.6,
            now_ns: None,
            resting: BTreeMap::new(),
            is_closed: false,
        })
    }

    fn pointer(&self) -> *mut c_void {
        self.parts.handle as *mut c_void
    }

    fn expect_zero(
        &self,
        function: &'static str,
        result: i64,
        time_ns: i64,
    ) -> Result<(), VenueError> {
        if result == 0 {
            Ok(())
        } else {
            Err(VenueError::Package {
                function,
                result,
                time_ns,
            })
        }
    }

    fn elapse_by(&mut self, duration_ns: i64, time_ns: i64) -> Result<(), VenueError> {
        // SAFETY: the handle is open (it is closed in `shut` only, which ends the venue) and used
        // by this thread alone, since `self` is borrowed exclusively.
        let result = unsafe { (self.elapse)(self.pointer(), duration_ns) };
        self.expect_zero("elapse", result, time_ns)
    }

    /// Brings the package's clock to `now_ns`.
    fn go_to(&mut self, now_ns: i64) -> Result<(), VenueError> {
        if now_ns < self.parts.first_time_ns {
            return Ok(());
        }
        let current_ns = match self.now_ns {
            Some(current_ns) => current_ns,
            None => {
                // The first call puts the clock at the first row.
                self.elapse_by(0, self.parts.first_time_ns)?;
                self.parts.first_time_ns
            }
        };
        // Going back, or beyond the end mark, would read as an end of data.
        if now_ns < current_ns || now_ns >= self.parts.end_time_ns {
            return Err(VenueError::Package {
                function: "elapse",
                result: now_ns - current_ns,
                time_ns: now_ns,
            });
        }
        if now_ns > current_ns {
            self.elapse_by(now_ns - current_ns, now_ns)?;
        }
        self.now_ns = Some(now_ns);
        Ok(())
    }

    fn read(&self, order_id: u64, time_ns: i64) -> Result<PackageOrder, VenueError> {
        // SAFETY: the handle is open; the asset exists. The returned map lives in the handle.
        let pointer = unsafe { (self.orders_get)((self.orders)(self.pointer(), ASSET), order_id) };
        if pointer.is_null() {
            return Err(VenueError::Package {
                function: "orders_get",
                result: 0,
                time_ns,
            });
        }
        // SAFETY: not null, so it points at an order in the handle's map, which nothing changes
        // before this read is done; layout and size were compared with the package's dtype
        // (invariant 1). Every bit pattern is a valid `PackageOrder`.
        let order = unsafe { std::ptr::read_unaligned(pointer.cast::<PackageOrder>()) };
        if order.order_id != order_id {
            return Err(VenueError::Package {
                function: "orders_get",
                result: order_id.cast_signed(),
                time_ns,
            });
        }
        Ok(order)
    }

    fn fill(&self, order: &VenueOrder, seen: &PackageOrder) -> VenueReport {
        let price = seen
            .exec_price_tick
            .saturating_mul(self.parts.instrument.tick_size);
        VenueReport::fill(order, price, seen.exch_timestamp, seen.maker != 0)
    }

    /// Reports the resting orders that have filled.
    fn poll(&mut self, time_ns: i64, reports: &mut Vec<VenueReport>) -> Result<(), VenueError> {
        let first = reports.len();
        for (order_id, order) in &self.resting {
            let seen = self.read(*order_id, time_ns)?;
            if seen.status == STATUS_FILLED {
                reports.push(self.fill(order, &seen));
            }
        }
        for report in &reports[first..] {
            self.resting.remove(&report.order_id);
        }
        reports[first..].sort_unstable_by_key(|report| (report.exchange_time_ns, report.order_id));
        Ok(())
    }

    /// Its market is in the handle; another instrument's would be missing there.
    pub(crate) fn require_instrument(&self, instrument_id: u32) -> Result<(), VenueError> {
        if instrument_id == self.parts.instrument.instrument_id {
            Ok(())
        } else {
            Err(VenueError::UnknownInstrument { instrument_id })
        }
    }

    /// Sends an order at `now_ns`, without a look at what becomes of it.
    pub(crate) fn submit(&mut self, order: &VenueOrder, now_ns: i64) -> Result<(), VenueError> {
        self.go_to(now_ns)?;
        let (function, submit) = if order.side > 0 {
            ("submit_buy_order", self.submit_buy_order)
        } else {
            ("submit_sell_order", self.submit_sell_order)
        };
        let (px, qty) = (float(order.price), float(order.qty));
        let life = order.life.package_code() as u8;
        // SAFETY: as in `elapse_by`; the package checks all values itself.
        let result = unsafe {
            submit(
                self.pointer(),
                ASSET,
                order.order_id,
                px,
                qty,
                life,
                LIMIT_ORDER,
                false,
            )
        };
        self.expect_zero(function, result, now_ns)
    }

    /// Sends a cancel at `now_ns`, without a look at what becomes of it.
    pub(crate) fn request_cancel(&mut self, order_id: u64, now_ns: i64) -> Result<(), VenueError> {
        self.go_to(now_ns)?;
        // SAFETY: as in `elapse_by`.
        let result = unsafe { (self.cancel)(self.pointer(), ASSET, order_id, false) };
        self.expect_zero("cancel", result, now_ns)
    }

    /// Plays what is left of the market and lets every answer arrive.
    pub(crate) fn go_to_end(&mut self) -> Result<(), VenueError> {
        self.go_to(self.parts.end_time_ns - 1)
    }

    /// What the package's own side knows of an order that was sent: its report, which is a fill,
    /// working, canceled, expired or rejected.
    pub(crate) fn outcome(&self, order: &VenueOrder) -> Result<VenueReport, VenueError> {
        let now_ns = self.now_ns.unwrap_or(0);
        let seen = self.read(order.order_id, now_ns)?;
        let of = |kind| VenueReport::of(order, kind, seen.exch_timestamp);
        Ok(match seen.status {
            STATUS_NEW => of(BrokerEventKind::Working),
            STATUS_FILLED => self.fill(order, &seen),
            STATUS_CANCELED => of(BrokerEventKind::Canceled),
            STATUS_EXPIRED => of(BrokerEventKind::Expired),
            _ => VenueReport::refused(
                order,
                BrokerEventKind::Rejected,
                seen.exch_timestamp,
                ReasonCode::BrokerRejected,
            ),
        })
    }

    /// Ends the run.
    ///
    /// # Errors
    /// [`VenueError::Package`] when the package says so.
    pub fn shut(&mut self) -> Result<(), VenueError> {
        if self.is_closed {
            return Ok(());
        }
        self.is_closed = true;
        // SAFETY: the flag above makes this the only close; nothing uses the handle afterwards,
        // because every caller drops the venue.
        let result = unsafe { (self.close)(self.pointer()) };
        self.expect_zero("close", result, self.now_ns.unwrap_or(0))
    }
}

impl Drop for PackageVenue {
    fn drop(&mut self) {
        // An error here has no one to go to; `shut` is called on the way that reports it.
        drop(self.shut());
    }
}

impl Venue for PackageVenue {
    fn market(&mut self, header: &RecordHeader, _bytes: &[u8]) -> Result<(), VenueError> {
        self.require_instrument(header.instrument_id)
    }

    fn advance(&mut self, now_ns: i64, reports: &mut Vec<VenueReport>) -> Result<(), VenueError> {
        if self.resting.is_empty() {
            return Ok(());
        }
        self.go_to(now_ns)?;
        self.poll(now_ns, reports)
    }

    fn place(
        &mut self,
        order: &VenueOrder,
        now_ns: i64,
        reports: &mut Vec<VenueReport>,
    ) -> Result<(), VenueError> {
        self.require_instrument(order.instrument_id)?;
        if let Err(reason) = check_order(order, &self.parts.instrument.ticks) {
            reports.push(VenueReport::refused(
                order,
                BrokerEventKind::Rejected,
                now_ns,
                reason,
            ));
            return Ok(());
        }
        self.submit(order, now_ns)?;
        // Request and response both take no time, so this lets them happen.
        self.elapse_by(0, now_ns)?;
        let seen = self.read(order.order_id, now_ns)?;
        reports.push(match seen.status {
            STATUS_NEW => {
                self.resting.insert(order.order_id, *order);
                VenueReport::of(order, BrokerEventKind::Working, seen.exch_timestamp)
            }
            STATUS_FILLED => self.fill(order, &seen),
            STATUS_EXPIRED => VenueReport::of(order, BrokerEventKind::Expired, seen.exch_timestamp),
            _ => VenueReport::refused(
                order,
                BrokerEventKind::Rejected,
                now_ns,
                ReasonCode::BrokerRejected,
            ),
        });
        Ok(())
    }

    fn cancel(
        &mut self,
        order: &VenueOrder,
        now_ns: i64,
        reports: &mut Vec<VenueReport>,
    ) -> Result<(), VenueError> {
        let refused = VenueReport::refused(
            order,
            BrokerEventKind::CancelRejected,
            now_ns,
            ReasonCode::OrderStateInvalid,
        );
        if !self.resting.contains_key(&order.order_id) {
            reports.push(refused);
            return Ok(());
        }
        self.request_cancel(order.order_id, now_ns)?;
        self.elapse_by(0, now_ns)?;
        let seen = self.read(order.order_id, now_ns)?;
        self.resting.remove(&order.order_id);
        reports.push(match seen.status {
            STATUS_CANCELED => {
                VenueReport::of(order, BrokerEventKind::Canceled, seen.exch_timestamp)
            }
            STATUS_FILLED => self.fill(order, &seen),
            _ => refused,
        });
        Ok(())
    }
}
