//! What happens at the exchange: market rows, requests that arrive, and the reports they make.
//!
//! Why: the exchange lives by its own clock; what it says is under way until `deliveries` takes it in.
//!
//! Invariants: 1, 4 and 6 of the loop.

use super::faulty::{Answer, Delivery};
use super::{Decide, Request, Simulation, SimulationError, Sink, Stretch};
use crate::exchange::{Venue, VenueOrder, VenueReport};
use crate::latency::LatencyKind;
use crate::reason::ReasonCode;
use crate::record::BrokerEventKind;

impl<D: Decide, V: Venue, S: Sink> Simulation<D, V, S> {
    /// All rows of one exchange time, then the fills they made.
    pub(super) fn exchange_rows(&mut self, time_ns: i64) -> Result<(), SimulationError> {
        while let Some((_, offset)) = self
            .tape
            .exchange()
            .get(self.exchange_next)
            .filter(|row| row.0 == time_ns)
        {
            if let Some((header, bytes)) = self.tape.record(*offset) {
                self.venue.market(&header, bytes)?;
                if let Some(faults) = &mut self.faults {
                    faults.on_market(&header, bytes);
                }
            }
            self.exchange_next += 1;
        }
        self.venue.advance(time_ns, &mut self.reports)?;
        self.schedule_responses(None);
        Ok(())
    }

    pub(super) fn request_arrives(&mut self) -> Result<(), SimulationError> {
        match self.requests.pop() {
            Some(Request::Arrives { kind, order_id }) => self.at_exchange(kind, order_id),
            Some(Request::Remainder(order_id)) => {
                if let Some(faults) = &mut self.faults {
                    faults.fill_remainder(order_id, &mut self.reports);
                }
                self.schedule_responses(None);
                Ok(())
            }
            Some(Request::SessionEnd) if self.stretch != Stretch::Closing => {
                if let Some(faults) = &mut self.faults {
                    faults.end_session();
                }
                self.end_resting()
            }
            Some(Request::SessionEnd) | None => Ok(()),
        }
    }

    /// A request of ours reaches the exchange.
    pub(super) fn at_exchange(
        &mut self,
        kind: LatencyKind,
        order_id: u64,
    ) -> Result<(), SimulationError> {
        let Some(order) = self.tracks.get(&order_id).map(|track| track.order) else {
            return Ok(());
        };
        let now_ns = self.now_ns;
        let faults = self.faults.as_deref_mut();
        if self.stretch == Stretch::Closing {
            let kind = match kind {
                LatencyKind::Cancel => BrokerEventKind::CancelRejected,
                _ => BrokerEventKind::Rejected,
            };
            self.reports.push(VenueReport::refused(
                &order,
                kind,
                now_ns,
                ReasonCode::SessionNotOpen,
            ));
        } else if let Some(refused) = faults.and_then(|faults| faults.refuse(&order, kind, now_ns))
        {
            self.reports.push(refused);
        } else if kind == LatencyKind::Cancel {
            self.cancel_at_exchange(&order)?;
        } else {
            self.venue.place(&order, now_ns, &mut self.reports)?;
        }
        self.schedule_responses(Some((order_id, kind)));
        Ok(())
    }

    pub(super) fn cancel_at_exchange(&mut self, order: &VenueOrder) -> Result<(), SimulationError> {
        let faults = self.faults.as_deref_mut();
        if faults.is_some_and(|faults| faults.take_remainder(order.order_id)) {
            // The venue has filled it; what waited here is what there is to cancel.
            self.reports.push(VenueReport::of(
                order,
                BrokerEventKind::Canceled,
                self.now_ns,
            ));
            return Ok(());
        }
        self.venue.cancel(order, self.now_ns, &mut self.reports)?;
        Ok(())
    }

    /// Sends what the venue reported on its way; `reply_to` is the request it came from.
    pub(super) fn schedule_responses(&mut self, reply_to: Option<(u64, LatencyKind)>) {
        if let Some(faults) = &mut self.faults {
            faults.split(&mut self.reports, reply_to.is_some(), &mut self.remainders);
            for (time_ns, order_id) in self.remainders.drain(..) {
                self.requests.add(time_ns, Request::Remainder(order_id));
            }
        }
        for report in self.reports.drain(..) {
            self.counts.reports += 1;
            if let (Some(book), Some(track)) = (&mut self.book, self.tracks.get(&report.order_id)) {
                book.take(&track.order, &report);
            }
            match report.kind {
                BrokerEventKind::Working => {
                    self.resting.insert(report.order_id);
                }
                BrokerEventKind::Fill if report.remaining_qty > 0 => {
                    self.resting.insert(report.order_id);
                }
                BrokerEventKind::CancelRejected => {}
                _ => {
                    self.resting.remove(&report.order_id);
                }
            }
            let delay_ns = self
                .profile
                .delay_ns(report.order_id, LatencyKind::Response);
            let deliver_ns = report.exchange_time_ns.max(0) + delay_ns;
            match &mut self.faults {
                Some(faults) => {
                    let reply = reply_to.filter(|reply| reply.0 == report.order_id);
                    let kind = reply.map(|reply| reply.1);
                    faults.route(report, kind, deliver_ns, &mut self.outbox);
                }
                None => self.responses.add(deliver_ns, plain(report)),
            }
        }
        self.send_out();
    }

    pub(super) fn send_out(&mut self) {
        for (time_ns, answer) in self.outbox.drain(..) {
            self.responses.add(time_ns, answer);
        }
    }

    /// Ends what rests; from now on every request is refused.
    pub(super) fn close_venue(&mut self) -> Result<(), SimulationError> {
        if self.is_abandoned {
            // What is not flat by now stays so, halted: nothing more can be decided on record.
            self.settle_sink(true)?;
            self.stretch = Stretch::Ended;
            return Ok(());
        }
        self.stretch = Stretch::Closing;
        self.end_resting()
    }

    /// Takes what rests out of the book, in id order: canceled, or expired when sessions end.
    pub(super) fn end_resting(&mut self) -> Result<(), SimulationError> {
        let now_ns = self.now_ns;
        self.venue.advance(now_ns, &mut self.reports)?;
        self.schedule_responses(None);
        for order_id in std::mem::take(&mut self.resting) {
            if let Some(order) = self.tracks.get(&order_id).map(|track| track.order) {
                self.cancel_at_exchange(&order)?;
            }
        }
        if let Some(faults) = &mut self.faults {
            let end_kind = faults.end_kind();
            for report in &mut self.reports {
                if report.kind == BrokerEventKind::Canceled && end_kind != report.kind {
                    report.kind = end_kind;
                    report.reason = ReasonCode::SessionNotOpen;
                    faults.count_expired();
                }
            }
        }
        self.schedule_responses(None);
        Ok(())
    }
}

/// A report that arrives as it is.
pub(super) fn plain(report: VenueReport) -> Answer {
    Answer::Report(Delivery {
        report,
        broker_seq: None,
    })
}
