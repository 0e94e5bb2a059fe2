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

mod prices;
mod report;

pub use report::{FaultCounts, FaultReport};

use std::collections::BTreeMap;

use crate::exchange::{OrderLife, VenueInstrument, VenueOrder, VenueReport};
use crate::faults::{Fault, FaultProfile, RATE_PPM_MAX};
use crate::latency::LatencyKind;
use crate::reason::ReasonCode;
use crate::record::{BrokerEventKind, RecordHeader};
use crate::ticks::TickLadder;
use prices::MarketView;

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

    /// Whether the caller of the last request of this kind hears from the broker that it was taken;
    /// of a lost cancel and of a lost reply half of the calls do, and miss a report later.
    pub(super) fn is_call_answered(&self, order_id: u64, kind: LatencyKind) -> bool {
        let Some(track) = self.orders.get(&order_id) else {
            return true;
        };
        let (sent, is_cancel) = match kind {
            LatencyKind::Cancel => (track.cancel, true),
            _ => (track.place, false),
        };
        if sent.is_lost && !is_cancel {
            return false;
        }
        let nth = 2 * sent.attempt + u32::from(is_cancel);
        let is_silent = sent.is_lost || sent.is_reply_lost;
        !is_silent
            || !self
                .profile
                .hits(order_id, Fault::LostCall, nth, RATE_PPM_MAX / 2)
    }

    /// Takes one market record at its exchange time.
    pub(super) fn on_market(&mut self, header: &RecordHeader, bytes: &[u8]) {
        let instrument_id = header.instrument_id;
        let ticks = self
            .instrument(instrument_id)
            .map_or(TickLadder::flat(1), |instrument| instrument.ticks);
        let view = self.markets.entry(instrument_id).or_default();
        view.take(header, bytes, self.profile.price_limit, &ticks);
    }

    fn instrument(&self, instrument_id: u32) -> Option<&VenueInstrument> {
        self.instruments
            .iter()
            .find(|instrument| instrument.instrument_id == instrument_id)
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
        let band = self.profile.price_band;
        let reason = if self.is_over {
            counts.refused_after_end += 1;
            ReasonCode::SessionNotOpen
        } else if self.is_beyond(order, MarketView::is_beyond_limit) {
            self.report.counts.beyond_limit += 1;
            ReasonCode::PriceOutsideDailyLimit
        } else if self.is_beyond(order, |view, order| view.is_beyond_band(order, band)) {
            self.report.counts.beyond_band += 1;
            ReasonCode::ExchangeBandExceeded
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

    fn is_beyond(
        &self,
        order: &VenueOrder,
        check: impl Fn(&MarketView, &VenueOrder) -> bool,
    ) -> bool {
        let view = self.markets.get(&order.instrument_id);
        view.is_some_and(|view| check(view, order))
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
