//! Faults at work: what goes wrong between the engine's requests and the exchange's reports.
//!
//! Why: the exchange knows what happened to an order; the engine knows what it was told. This keeps
//! both apart, so that a lost, late or doubled message is one thing and the truth another.
//!
//! Invariants:
//! 1. Every report has a number of its own; a second copy has the number of the first.
//! 2. A report that the exchange made is delivered, or withheld until the broker is asked; nothing
//!    is dropped.
//! 3. The broker's answer is the truth of its moment: what was withheld, else that the order works,
//!    else that it never arrived. While a request is under way there is no answer yet.
//! 4. Positions are summed from reports as the exchange made them, lost ones included.
//!
//! It matches nothing and schedules nothing: it says what comes when. Operator's page:
//! `docs/backtest.md`.

use std::collections::BTreeMap;

use crate::convert::is_not_tradable;
use crate::exchange::{OrderLife, VenueInstrument, VenueOrder, VenueReport};
use crate::faults::{BPS_MAX, Fault, FaultProfile};
use crate::latency::LatencyKind;
use crate::reason::ReasonCode;
use crate::record::{BookRecord, BrokerEventKind, Record, RecordHeader, TradeRecord};

/// Something to happen between exchange and engine.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answer {
    /// A report reaches the engine.
    Report(Delivery),
    /// A look whether something is still missing.
    Check(Check),
}

/// A report on its way to the engine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Delivery {
    pub(super) report: VenueReport,
    /// Its number at the broker; `None` is numbered when it arrives.
    pub(super) broker_seq: Option<u64>,
}

/// A look whether something is still missing.
#[derive(Debug, Clone, Copy)]
pub(super) enum Check {
    /// Is this request still unanswered?
    Timeout(Asked),
    /// The broker answers what became of this request.
    Query(Asked),
    /// The acknowledgement waits no longer.
    HeldAck(u64),
}

/// One request of one order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    order_id: u64,
    kind: LatencyKind,
    attempt: u32,
}

/// What comes when.
pub(super) type Outbox = Vec<(i64, Answer)>;

/// What the exchange knows of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Truth {
    NotThere,
    Open { remaining_qty: i64 },
    Done,
}

/// The last request of a kind.
#[derive(Debug, Clone, Copy, Default)]
struct Sent {
    attempt: u32,
    arrival_ns: i64,
    is_lost: bool,
    is_reply_lost: bool,
    is_answered: bool,
}

/// What is left of an order whose fill comes in parts.
#[derive(Debug, Clone, Copy)]
struct Remainder {
    fill: VenueReport,
}

#[derive(Debug)]
struct OrderTrack {
    order: VenueOrder,
    truth: Truth,
    place: Sent,
    cancel: Sent,
    withheld: Vec<Delivery>,
    held_ack: Option<Delivery>,
    remainder: Option<Remainder>,
    report_count: u32,
    execution_count: u32,
}

/// What the exchange's price checks look at.
#[derive(Debug, Default)]
struct MarketView {
    book: Option<BookRecord>,
    last_trade: Option<i64>,
    /// Limit-down and limit-up, once their reference is known.
    limits: Option<(i64, i64)>,
}

/// How often what went wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Fills that left a rest.
    pub partial_fills: u64,
    /// New orders refused by a drawn reason.
    pub rejected: u64,
    /// New orders refused beyond limit-up or limit-down.
    pub beyond_limit: u64,
    /// New orders refused because of the dynamic band.
    pub beyond_band: u64,
    /// Orders that expired at the session's end.
    pub expired_at_end: u64,
    /// Requests refused after it.
    pub refused_after_end: u64,
    /// Requests that never arrived.
    pub lost_requests: u64,
    /// Reports that were withheld as lost replies.
    pub lost_replies: u64,
    /// Timeout records.
    pub timeouts: u64,
    /// Of the unanswered requests, those that the broker answered when asked.
    pub resolved: u64,
    /// Orders of which something is still withheld or never arrived at the end.
    pub unresolved: u64,
    /// Reports that came twice.
    pub duplicated: u64,
    /// Reports that came late.
    pub late: u64,
    /// Acknowledgements that came after a fill.
    pub fills_before_ack: u64,
}

impl FaultCounts {
    /// Names and values, in field order.
    #[must_use]
    pub fn rows(&self) -> [(&'static str, u64); 14] {
        [
            ("partial_fills", self.partial_fills),
            ("rejected", self.rejected),
            ("beyond_limit", self.beyond_limit),
            ("beyond_band", self.beyond_band),
            ("expired_at_end", self.expired_at_end),
            ("refused_after_end", self.refused_after_end),
            ("lost_requests", self.lost_requests),
            ("lost_replies", self.lost_replies),
            ("timeouts", self.timeouts),
            ("resolved", self.resolved),
            ("unresolved", self.unresolved),
            ("duplicated", self.duplicated),
            ("late", self.late),
            ("fills_before_ack", self.fills_before_ack),
        ]
    }
}

/// What a simulation with faults leaves beside its results.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FaultReport {
    /// How often what went wrong.
    pub counts: FaultCounts,
    /// Refusals of new orders by `ReasonCode` number, drawn and by rule.
    pub rejects: BTreeMap<u16, u64>,
    /// Signed position an instrument, as the exchange knows it.
    pub positions: BTreeMap<u32, i64>,
}

/// Faults of one session.
#[derive(Debug)]
pub(super) struct Faults {
    profile: FaultProfile,
    instruments: Vec<VenueInstrument>,
    markets: BTreeMap<u32, MarketView>,
    orders: BTreeMap<u64, OrderTrack>,
    report: FaultReport,
    last_seq: u64,
    is_over: bool,
}

impl Faults {
    pub(super) fn new(profile: FaultProfile, instruments: Vec<VenueInstrument>) -> Self {
        Self {
            profile,
            instruments,
            markets: BTreeMap::new(),
            orders: BTreeMap::new(),
            report: FaultReport::default(),
            last_seq: 0,
            is_over: false,
        }
    }

    pub(super) fn session_end_ns(&self) -> Option<i64> {
        self.profile.session_end_ns
    }

    /// What an order becomes that rests when the session ends.
    pub(super) fn end_kind(&self) -> BrokerEventKind {
        if self.profile.session_end_ns.is_some() {
            BrokerEventKind::Expired
        } else {
            BrokerEventKind::Canceled
        }
    }

    /// The session is over: what comes now is refused.
    pub(super) fn end_session(&mut self) {
        self.is_over = true;
    }

    /// Counts an order that expired with the session.
    pub(super) fn count_expired(&mut self) {
        self.report.counts.expired_at_end += 1;
    }

    /// What it leaves.
    pub(super) fn finish(self) -> FaultReport {
        let mut report = self.report;
        let is_unresolved = |track: &&OrderTrack| {
            !track.withheld.is_empty() || (track.place.is_lost && track.truth == Truth::NotThere)
        };
        report.counts.unresolved = self.orders.values().filter(is_unresolved).count() as u64;
        report
    }

    /// Takes a request that leaves now; false when it never arrives. The timeout is put out.
    pub(super) fn on_sent(
        &mut self,
        order: &VenueOrder,
        kind: LatencyKind,
        (decision_ns, arrival_ns): (i64, i64),
        out: &mut Outbox,
    ) -> bool {
        let track = self
            .orders
            .entry(order.order_id)
            .or_insert_with(|| OrderTrack {
                order: *order,
                truth: Truth::NotThere,
                place: Sent::default(),
                cancel: Sent::default(),
                withheld: Vec::new(),
                held_ack: None,
                remainder: None,
                report_count: 0,
                execution_count: 0,
            });
        let (sent, lost, lost_reply) = match kind {
            LatencyKind::Cancel => (&mut track.cancel, Fault::LostCancel, Fault::LostCancelReply),
            _ => (&mut track.place, Fault::LostPlace, Fault::LostPlaceReply),
        };
        let attempt = sent.attempt + 1;
        let hits = |fault, rate: Option<crate::faults::Rate>| {
            rate.is_some_and(|rate| {
                self.profile
                    .hits(order.order_id, fault, attempt, rate.rate_ppm)
            })
        };
        *sent = Sent {
            attempt,
            arrival_ns,
            is_lost: hits(lost, self.profile.lost_request),
            is_reply_lost: hits(lost_reply, self.profile.lost_reply),
            is_answered: false,
        };
        if let Some(timeout) = self.profile.timeout {
            let asked = Asked {
                order_id: order.order_id,
                kind,
                attempt,
            };
            let at_ns = decision_ns + timeout.after_ns;
            out.push((at_ns, Answer::Check(Check::Timeout(asked))));
        }
        self.report.counts.lost_requests += u64::from(sent.is_lost);
        !sent.is_lost
    }

    /// Takes one market record at its exchange time.
    pub(super) fn on_market(&mut self, header: &RecordHeader, bytes: &[u8]) {
        if is_not_tradable(header) {
            return;
        }
        let instrument_id = header.instrument_id;
        let tick_size = self.tick_size(instrument_id);
        let view = self.markets.entry(instrument_id).or_default();
        if let Some(trade) = TradeRecord::read(bytes) {
            if trade.price > 0 {
                view.last_trade = Some(trade.price);
            }
            return;
        }
        let Some(book) = BookRecord::read(bytes) else {
            return;
        };
        let (bid, ask) = (book.bid_price[0], book.ask_price[0]);
        let is_two_sided = bid > 0 && ask > bid;
        if let (Some(limit), None, true) = (self.profile.price_limit, view.limits, is_two_sided) {
            let mid = bid + (ask - bid) / 2;
            let reference = limit.reference_price.unwrap_or(mid);
            view.limits = Some(inward_limits(reference, limit.bps, tick_size));
        }
        view.book = Some(book);
    }

    fn instrument(&self, instrument_id: u32) -> Option<&VenueInstrument> {
        self.instruments
            .iter()
            .find(|instrument| instrument.instrument_id == instrument_id)
    }

    fn tick_size(&self, instrument_id: u32) -> i64 {
        self.instrument(instrument_id)
            .map_or(1, |instrument| instrument.tick_size)
    }

    /// The refusal of a request that has arrived, if the exchange refuses it.
    pub(super) fn refuse(
        &mut self,
        order: &VenueOrder,
        kind: LatencyKind,
        now_ns: i64,
    ) -> Option<VenueReport> {
        let counts = &mut self.report.counts;
        if kind == LatencyKind::Cancel {
            if !self.is_over {
                return None;
            }
            counts.refused_after_end += 1;
            return Some(VenueReport::refused(
                order,
                BrokerEventKind::CancelRejected,
                now_ns,
                ReasonCode::SessionNotOpen,
            ));
        }
        let reason = if self.is_over {
            counts.refused_after_end += 1;
            ReasonCode::SessionNotOpen
        } else if self.is_beyond_limit(order) {
            self.report.counts.beyond_limit += 1;
            ReasonCode::PriceOutsideDailyLimit
        } else if self.is_beyond_band(order) {
            self.report.counts.beyond_band += 1;
            ReasonCode::PriceOutsideBand
        } else if let Some(reason) = self.profile.reject_reason(order.order_id) {
            self.report.counts.rejected += 1;
            reason
        } else {
            return None;
        };
        *self.report.rejects.entry(reason.code()).or_default() += 1;
        Some(VenueReport::refused(
            order,
            BrokerEventKind::Rejected,
            now_ns,
            reason,
        ))
    }

    fn is_beyond_limit(&self, order: &VenueOrder) -> bool {
        let view = self.markets.get(&order.instrument_id);
        view.and_then(|view| view.limits)
            .is_some_and(|(down, up)| order.price < down || order.price > up)
    }

    fn is_beyond_band(&self, order: &VenueOrder) -> bool {
        let (Some(band), Some(view)) = (
            self.profile.price_band,
            self.markets.get(&order.instrument_id),
        ) else {
            return false;
        };
        let Some(book) = &view.book else {
            return false;
        };
        let (bid, ask) = (book.bid_price[0], book.ask_price[0]);
        let mid = (bid > 0 && ask > bid).then(|| bid + (ask - bid) / 2);
        let (Some(base), Some(worst)) = (view.last_trade.or(mid), possible_fill(order, book))
        else {
            return false;
        };
        (i128::from(worst) - i128::from(base)).abs() * i128::from(BPS_MAX)
            > i128::from(base) * i128::from(band.bps)
    }

    /// Lets fills of larger orders come in parts: cuts `reports`, and says in `due` which order's
    /// rest is to be filled when. `is_reply` tells that they answer a request at once.
    pub(super) fn split(
        &mut self,
        reports: &mut Vec<VenueReport>,
        is_reply: bool,
        due: &mut Vec<(i64, u64)>,
    ) {
        let Some(partial) = self.profile.partial_fill else {
            return;
        };
        let mut place = 0;
        while let Some(report) = reports.get(place).copied() {
            place += 1;
            let Some(part_qty) = self.part_qty(&report, partial.rate_ppm) else {
                continue;
            };
            self.report.counts.partial_fills += 1;
            let left_qty = report.qty - part_qty;
            reports[place - 1] = VenueReport {
                qty: part_qty,
                remaining_qty: left_qty,
                ..report
            };
            let Some(track) = self.orders.get_mut(&report.order_id) else {
                continue;
            };
            if is_reply && track.order.life == OrderLife::ImmediateOrCancel {
                let time_ns = report.exchange_time_ns;
                let lapsed = VenueReport::of(&track.order, BrokerEventKind::Expired, time_ns);
                reports.insert(place, lapsed);
                place += 1;
                continue;
            }
            let fill = VenueReport {
                qty: left_qty,
                exchange_time_ns: report.exchange_time_ns + partial.delay_ns,
                ..report
            };
            track.remainder = Some(Remainder { fill });
            due.push((fill.exchange_time_ns, report.order_id));
        }
    }

    /// How much of a full fill comes now, when it comes in parts.
    fn part_qty(&mut self, report: &VenueReport, rate_ppm: u32) -> Option<i64> {
        if report.kind != BrokerEventKind::Fill {
            return None;
        }
        let order = self.orders.get(&report.order_id)?.order;
        let lot_size = self.instrument(order.instrument_id)?.lot_size;
        let lots = report.qty / lot_size;
        let track = self.orders.get_mut(&report.order_id)?;
        let nth = track.execution_count;
        track.execution_count += 1;
        let id = report.order_id;
        let is_whole = lots < 2 || order.life == OrderLife::FillOrKill;
        if is_whole || !self.profile.hits(id, Fault::PartialFill, nth, rate_ppm) {
            return None;
        }
        let drawn = i64::from(self.profile.draw_ppm(id, Fault::PartSize, nth));
        Some((1 + drawn % (lots - 1)) * lot_size)
    }

    /// The rest of an order is filled now, unless it was canceled or has expired.
    pub(super) fn fill_remainder(&mut self, order_id: u64, reports: &mut Vec<VenueReport>) {
        let track = self.orders.get_mut(&order_id);
        if let Some(remainder) = track.and_then(|track| track.remainder.take()) {
            reports.push(remainder.fill);
        }
    }

    /// Takes what is left of an order out of the book; false when it has no rest of its own.
    pub(super) fn take_remainder(&mut self, order_id: u64) -> bool {
        let track = self.orders.get_mut(&order_id);
        track.is_some_and(|track| track.remainder.take().is_some())
    }

    fn stamp(&mut self, report: VenueReport) -> Delivery {
        self.last_seq += 1;
        Delivery {
            report,
            broker_seq: Some(self.last_seq),
        }
    }

    /// Says when a report that the exchange made reaches the engine, which is at `deliver_ns` when
    /// nothing goes wrong. `reply_to` is the request that it answers at once.
    pub(super) fn route(
        &mut self,
        report: VenueReport,
        reply_to: Option<LatencyKind>,
        deliver_ns: i64,
        out: &mut Outbox,
    ) {
        let delivery = self.stamp(report);
        let order_id = report.order_id;
        let Some(track) = self.orders.get_mut(&order_id) else {
            return out.push((deliver_ns, Answer::Report(delivery)));
        };
        if report.kind == BrokerEventKind::Fill {
            let position = self.report.positions.entry(track.order.instrument_id);
            *position.or_default() += track.order.side * report.qty;
        }
        track.truth = truth_after(track.truth, &report);
        let is_lost = match reply_to {
            Some(LatencyKind::Cancel) => track.cancel.is_reply_lost,
            Some(_) => track.place.is_reply_lost,
            None => false,
        };
        if is_lost {
            track.withheld.push(delivery);
            self.report.counts.lost_replies += 1;
            return;
        }
        let is_fill = report.kind == BrokerEventKind::Fill;
        let early = self.profile.fill_before_ack;
        let is_early = early.is_some_and(|early| {
            self.profile
                .hits(order_id, Fault::FillBeforeAck, 0, early.rate_ppm)
        });
        if is_early && report.kind == BrokerEventKind::Working && reply_to.is_some() {
            track.held_ack = Some(delivery);
            let wait_ns = early.map_or(0, |early| early.delay_ns);
            out.push((
                deliver_ns + wait_ns,
                Answer::Check(Check::HeldAck(order_id)),
            ));
            return;
        }
        let held = track.held_ack.take();
        let answers_at_once = is_early && is_fill && reply_to.is_some() && held.is_none();
        let acknowledged = VenueReport {
            remaining_qty: report.remaining_qty,
            ..VenueReport::of(
                &track.order,
                BrokerEventKind::Working,
                report.exchange_time_ns,
            )
        };
        if let (Some(ack), false) = (held, is_fill) {
            out.push((deliver_ns, Answer::Report(ack)));
        }
        let at_ns = self.deliver(delivery, deliver_ns, out);
        let ack = match held {
            Some(ack) if is_fill => Some(ack),
            _ if answers_at_once => Some(self.stamp(acknowledged)),
            _ => None,
        };
        if let Some(ack) = ack {
            self.report.counts.fills_before_ack += 1;
            out.push((at_ns, Answer::Report(ack)));
        }
    }

    /// Puts a report out, late and twice if it is hit; says when it comes first.
    fn deliver(&mut self, delivery: Delivery, deliver_ns: i64, out: &mut Outbox) -> i64 {
        let order_id = delivery.report.order_id;
        let nth = self.orders.get_mut(&order_id).map_or(0, |track| {
            track.report_count += 1;
            track.report_count
        });
        let delay_of = |fault, delayed: Option<crate::faults::Delayed>| {
            delayed
                .filter(|delayed| self.profile.hits(order_id, fault, nth, delayed.rate_ppm))
                .map(|delayed| delayed.delay_ns)
        };
        let late_ns = delay_of(Fault::Late, self.profile.late);
        let again_ns = delay_of(Fault::Duplicate, self.profile.duplicate);
        let at_ns = deliver_ns + late_ns.unwrap_or(0);
        out.push((at_ns, Answer::Report(delivery)));
        self.report.counts.late += u64::from(late_ns.is_some());
        if let Some(again_ns) = again_ns {
            self.report.counts.duplicated += 1;
            out.push((at_ns + again_ns, Answer::Report(delivery)));
        }
        at_ns
    }

    /// Notes what the engine is told now.
    pub(super) fn on_delivered(&mut self, report: &VenueReport) {
        let Some(track) = self.orders.get_mut(&report.order_id) else {
            return;
        };
        let is_end = match report.kind {
            BrokerEventKind::Unknown => return,
            BrokerEventKind::Working => false,
            BrokerEventKind::Fill => report.remaining_qty == 0,
            BrokerEventKind::Rejected
            | BrokerEventKind::Canceled
            | BrokerEventKind::CancelRejected
            | BrokerEventKind::Expired => true,
        };
        track.place.is_answered |= report.kind != BrokerEventKind::CancelRejected;
        track.cancel.is_answered |= is_end;
    }

    /// Looks whether something is still missing, and puts out what follows.
    pub(super) fn check(&mut self, check: Check, now_ns: i64, out: &mut Outbox) {
        match check {
            Check::Timeout(asked) => self.time_out(asked, now_ns, out),
            Check::Query(asked) => self.answer(asked, now_ns, out),
            Check::HeldAck(order_id) => {
                let track = self.orders.get_mut(&order_id);
                if let Some(ack) = track.and_then(|track| track.held_ack.take()) {
                    out.push((now_ns, Answer::Report(ack)));
                }
            }
        }
    }

    fn sent(&self, asked: Asked) -> Option<(&OrderTrack, Sent)> {
        let track = self.orders.get(&asked.order_id)?;
        let sent = match asked.kind {
            LatencyKind::Cancel => track.cancel,
            _ => track.place,
        };
        (sent.attempt == asked.attempt).then_some((track, sent))
    }

    fn time_out(&mut self, asked: Asked, now_ns: i64, out: &mut Outbox) {
        let Some((track, sent)) = self.sent(asked) else {
            return;
        };
        // An answer that tells half of it (a part of a fill) still leaves something to ask for.
        if sent.is_answered && track.withheld.is_empty() {
            return;
        }
        if !sent.is_answered {
            let order = track.order;
            self.report.counts.timeouts += 1;
            let unknown = VenueReport {
                remaining_qty: order.qty,
                ..VenueReport::refused(
                    &order,
                    BrokerEventKind::Unknown,
                    now_ns,
                    ReasonCode::OrderOutcomeUnknown,
                )
            };
            let delivery = self.stamp(unknown);
            out.push((now_ns, Answer::Report(delivery)));
        }
        let resolve_ns = self.profile.timeout.and_then(|timeout| timeout.resolve_ns);
        if let Some(resolve_ns) = resolve_ns {
            out.push((now_ns + resolve_ns, Answer::Check(Check::Query(asked))));
        }
    }

    fn answer(&mut self, asked: Asked, now_ns: i64, out: &mut Outbox) {
        let resolve_ns = self.profile.timeout.and_then(|timeout| timeout.resolve_ns);
        let (Some((_, sent)), Some(resolve_ns)) = (self.sent(asked), resolve_ns) else {
            return;
        };
        if !sent.is_lost && sent.arrival_ns > now_ns {
            // Still under way: "not found" would be a lie that it turns into an order later.
            let at_ns = sent.arrival_ns + resolve_ns;
            return out.push((at_ns, Answer::Check(Check::Query(asked))));
        }
        let Some(track) = self.orders.get_mut(&asked.order_id) else {
            return;
        };
        let mut found = std::mem::take(&mut track.withheld);
        found.extend(track.held_ack.take());
        if found.is_empty() {
            let (order, truth) = (track.order, track.truth);
            let report = match truth {
                Truth::Done => return,
                Truth::Open { remaining_qty } => VenueReport {
                    remaining_qty,
                    ..VenueReport::of(&order, BrokerEventKind::Working, now_ns)
                },
                Truth::NotThere => {
                    track.truth = Truth::Done;
                    VenueReport::refused(
                        &order,
                        BrokerEventKind::Rejected,
                        now_ns,
                        ReasonCode::OrderNotFound,
                    )
                }
            };
            found.push(self.stamp(report));
        }
        self.report.counts.resolved += 1;
        out.extend(
            found
                .into_iter()
                .map(|delivery| (now_ns, Answer::Report(delivery))),
        );
    }
}

fn truth_after(truth: Truth, report: &VenueReport) -> Truth {
    match report.kind {
        BrokerEventKind::CancelRejected | BrokerEventKind::Unknown => truth,
        BrokerEventKind::Working | BrokerEventKind::Fill if report.remaining_qty > 0 => {
            Truth::Open {
                remaining_qty: report.remaining_qty,
            }
        }
        _ => Truth::Done,
    }
}

/// Limit-down and limit-up, rounded inward to the tick.
fn inward_limits(reference: i64, bps: u32, tick_size: i64) -> (i64, i64) {
    let scaled = |share: i64| {
        let price = i128::from(reference) * i128::from(share) / i128::from(BPS_MAX);
        i64::try_from(price).unwrap_or(i64::MAX)
    };
    let (share, whole) = (i64::from(bps), i64::from(BPS_MAX));
    let up = scaled(whole + share) / tick_size * tick_size;
    let down_exact = i128::from(reference) * i128::from(whole - share);
    let unit = i128::from(tick_size) * i128::from(whole);
    // Rounded up: the limit lies inside.
    let down_ticks = (down_exact + unit - 1) / unit;
    let down = i64::try_from(down_ticks * i128::from(tick_size)).unwrap_or(i64::MAX);
    (down, up)
}

/// The worst shown price that an order's quantity reaches within its limit; `None` when it takes
/// nothing.
fn possible_fill(order: &VenueOrder, book: &BookRecord) -> Option<i64> {
    let (prices, quantities) = if order.side > 0 {
        (&book.ask_price, &book.ask_qty)
    } else {
        (&book.bid_price, &book.bid_qty)
    };
    let (mut left_qty, mut worst) = (order.qty, None);
    for (price, qty) in prices.iter().zip(quantities) {
        let is_within = *price > 0 && (order.price - price) * order.side >= 0;
        if !is_within || left_qty <= 0 {
            break;
        }
        worst = Some(*price);
        left_qty -= qty;
    }
    worst
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::SCALE;

    #[test]
    fn limits_are_rounded_inward_to_the_tick() {
        for (reference, up, down) in [
            (41_636, 45_799, 37_473),
            (40_124, 44_136, 36_112),
            (14_765, 16_241, 13_289),
        ] {
            let limits = inward_limits(reference * SCALE, 1_000, SCALE);
            assert_eq!(limits, (down * SCALE, up * SCALE), "reference {reference}");
        }
        // A reference of which a tenth is a whole number of ticks.
        assert_eq!(
            inward_limits(2_220 * SCALE, 1_000, 5 * SCALE).1,
            2_440 * SCALE
        );
        assert_eq!(
            inward_limits(2_220 * SCALE, 1_000, 5 * SCALE).0,
            2_000 * SCALE
        );
    }

    #[test]
    fn a_possible_fill_is_the_worst_level_that_the_quantity_reaches_within_the_limit() {
        let mut book = BookRecord::empty();
        for level in 0..3_i64 {
            let at = usize::try_from(level).unwrap_or(0);
            book.ask_price[at] = (101 + level) * SCALE;
            book.ask_qty[at] = 2 * SCALE;
            book.bid_price[at] = (100 - level) * SCALE;
            book.bid_qty[at] = 2 * SCALE;
        }
        let order = |side: i64, price: i64, lots: i64| VenueOrder {
            order_id: 1,
            instrument_id: 1,
            side,
            price: price * SCALE,
            qty: lots * SCALE,
            life: OrderLife::RestOfDay,
        };
        let found = |side, price, lots| {
            possible_fill(&order(side, price, lots), &book).map(|price| price / SCALE)
        };
        assert_eq!(found(1, 100, 1), None, "it rests");
        assert_eq!(found(1, 110, 2), Some(101));
        assert_eq!(found(1, 110, 3), Some(102));
        assert_eq!(found(1, 101, 9), Some(101), "its own limit holds it");
        assert_eq!(found(-1, 90, 5), Some(98));
        assert_eq!(found(-1, 101, 1), None);
    }
}
