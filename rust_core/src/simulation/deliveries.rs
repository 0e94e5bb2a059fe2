//! What reaches the engine, in the one order of inputs, and what it asks for in return.
//!
//! Why: the sink has every input before the engine sees it, and every decision before a request of it
//! is under way.
//!
//! Invariants: 2, 3 and 4 of the loop.

use super::at_exchange::plain;
use super::faulty::{Answer, Delivery};
use super::{
    APPROVED, CLOSING_REQUESTS_MAX, Decide, OrderFact, Request, SOURCE_EXCHANGE, SOURCE_RUNTIME,
    Simulation, SimulationError, Sink, Stretch, Track,
};
use crate::exchange::{OrderLife, Venue, VenueOrder, VenueReport};
use crate::latency::LatencyKind;
use crate::reason::ReasonCode;
use crate::record::{
    ActionKind, BrokerEventKind, BrokerRecord, DecisionRecord, Record, RecordHeader, TimerRecord,
};

impl<D: Decide, V: Venue, S: Sink> Simulation<D, V, S> {
    pub(super) fn response_arrives(&mut self) -> Result<(), SimulationError> {
        match (self.responses.pop(), &mut self.faults) {
            (Some(Answer::Report(delivery)), _) => self.deliver(&delivery),
            (Some(Answer::Check(check)), Some(faults)) => {
                faults.check(check, self.now_ns, &mut self.outbox);
                self.send_out();
                Ok(())
            }
            (Some(Answer::Check(_)) | None, _) => Ok(()),
        }
    }

    /// Tells the engine.
    pub(super) fn deliver(&mut self, delivery: &Delivery) -> Result<(), SimulationError> {
        let report = delivery.report;
        if let Some(faults) = &mut self.faults {
            faults.on_delivered(&report);
        }
        let Some(track) = self.tracks.get(&report.order_id) else {
            return Ok(());
        };
        let answers_cancel = matches!(
            report.kind,
            BrokerEventKind::Canceled | BrokerEventKind::CancelRejected
        );
        let fact = if answers_cancel {
            track.cancel_fact
        } else {
            track.place_fact
        };
        if let Some(fact) = fact.and_then(|place| self.facts.get_mut(place))
            && fact.response_time_ns == 0
            && report.kind != BrokerEventKind::Unknown
        {
            fact.response_time_ns = self.now_ns;
        }
        let mut record = BrokerRecord::empty();
        record.header.instrument_id = track.order.instrument_id;
        record.event_kind = report.kind as u32;
        record.reason_code = u32::from(report.reason.code());
        record.order_id = report.order_id;
        record.side = track.order.side;
        record.price = report.price;
        record.qty = report.qty;
        record.remaining_qty = report.remaining_qty;
        record.is_maker = u64::from(report.is_maker);
        self.stamp(&mut record.header, SOURCE_EXCHANGE, report.exchange_time_ns);
        record.broker_seq = delivery.broker_seq.unwrap_or(record.header.source_seq);
        self.sequence_record(&record)
    }

    pub(super) fn record_arrives(&mut self) -> Result<(), SimulationError> {
        let Some((_, offset)) = self.tape.local().get(self.local_next) else {
            return Ok(());
        };
        self.record.clear();
        if let Some((_, bytes)) = self.tape.record(*offset) {
            self.record.extend_from_slice(bytes);
        }
        self.local_next += 1;
        self.sequence()
    }

    pub(super) fn timer(&mut self) -> Result<(), SimulationError> {
        let mut record = TimerRecord::empty();
        record.timer_kind = 1;
        record.argument = self.now_ns - self.last_input_ns;
        self.stamp(&mut record.header, SOURCE_RUNTIME, self.now_ns);
        self.counts.timers += 1;
        self.sequence_record(&record)
    }

    /// Fills in the head of a record made here.
    pub(super) fn stamp(&self, header: &mut RecordHeader, source_id: u16, exchange_time_ns: i64) {
        header.source_id = source_id;
        header.source_seq = self.counts.inputs + 1;
        header.exchange_time_ns = exchange_time_ns;
        header.receive_time_ns = self.now_ns;
        header.trading_day = self.head.trading_day;
    }

    pub(super) fn sequence_record<R: Record>(&mut self, record: &R) -> Result<(), SimulationError> {
        self.record.clear();
        self.record.extend_from_slice(record.as_bytes());
        self.sequence()
    }

    /// Gives the record in the buffer its place in the input sequence and decides on it; what the
    /// sink owes the log behind it follows.
    pub(super) fn sequence(&mut self) -> Result<(), SimulationError> {
        self.sequence_one()?;
        self.settle_sink(false)
    }

    /// Sequences what the sink has to say about records that it did not store.
    pub(super) fn settle_sink(&mut self, is_last: bool) -> Result<(), SimulationError> {
        while let Some(mut record) = self.sink.owed(is_last) {
            self.stamp(&mut record.header, SOURCE_RUNTIME, self.now_ns);
            self.record.clear();
            self.record.extend_from_slice(record.as_bytes());
            self.sequence_one()?;
        }
        Ok(())
    }

    pub(super) fn sequence_one(&mut self) -> Result<(), SimulationError> {
        let Some(head) = self.record.get_mut(..size_of::<RecordHeader>()) else {
            return Ok(());
        };
        let mut header: RecordHeader = bytemuck::pod_read_unaligned(head);
        self.counts.inputs += 1;
        self.last_input_ns = self.now_ns;
        self.sequencer.stamp(&mut header, self.now_ns);
        head.copy_from_slice(bytemuck::bytes_of(&header));
        self.sink.input(&header, &self.record)?;
        self.decisions.clear();
        self.decide
            .on_record(&header, &self.record, &mut self.decisions);
        if self.decisions.is_empty() {
            return Ok(());
        }
        self.counts.decisions += self.decisions.len() as u64;
        self.sink.decisions(&self.decisions)?;
        let mut decisions = std::mem::take(&mut self.decisions);
        for decision in decisions
            .iter()
            .filter(|decision| decision.verdict == APPROVED)
        {
            self.dispatch(decision, header.sequence_time_ns)?;
        }
        // What is left here is what a sink refused.
        decisions.clear();
        self.decisions = decisions;
        Ok(())
    }

    /// Takes up the decisions that the sink refused when the market was lost. The engine holds its
    /// cancels for sent and would not ask again, so they go; what places is answered as not sent.
    pub(super) fn take_up_refused(&mut self) -> Result<(), SimulationError> {
        let decisions = std::mem::take(&mut self.decisions);
        if decisions.is_empty() {
            return Ok(());
        }
        self.sink.decisions(&decisions)?;
        for decision in decisions
            .iter()
            .filter(|decision| decision.verdict == APPROVED)
        {
            if decision.action == ActionKind::Place as u32 {
                let order = order_of(decision, LatencyKind::Place)?;
                self.track(&order);
                self.refuse_unsent(&order, self.now_ns, ReasonCode::RequestNotSent);
            } else {
                self.dispatch(decision, decision.header.sequence_time_ns)?;
            }
        }
        Ok(())
    }

    fn track(&mut self, order: &VenueOrder) -> &mut Track {
        self.tracks.entry(order.order_id).or_insert(Track {
            order: *order,
            place_fact: None,
            cancel_fact: None,
        })
    }

    /// Answers a place that never leaves.
    fn refuse_unsent(&mut self, order: &VenueOrder, at_ns: i64, reason: ReasonCode) {
        let report = VenueReport::refused(order, BrokerEventKind::Rejected, at_ns, reason);
        self.responses.add(at_ns, plain(report));
    }

    /// Sends one approved decision on its way.
    pub(super) fn dispatch(
        &mut self,
        decision: &DecisionRecord,
        decision_time_ns: i64,
    ) -> Result<(), SimulationError> {
        if self.stretch == Stretch::Closing {
            if self.closing_requests >= CLOSING_REQUESTS_MAX {
                self.counts.undispatched += 1;
                return Ok(());
            }
            self.closing_requests += 1;
        }
        let kind = match decision.action {
            action if action == ActionKind::Place as u32 => LatencyKind::Place,
            action if action == ActionKind::Cancel as u32 => LatencyKind::Cancel,
            action => return Err(unknown(decision, "action", action)),
        };
        let order = order_of(decision, kind)?;
        let order_id = order.order_id;
        let fact = Some(self.facts.len());
        let track = self.track(&order);
        let order = track.order;
        if kind == LatencyKind::Cancel {
            track.cancel_fact = fact
        } else {
            track.place_fact = fact
        }
        let exchange_arrival_ns = decision_time_ns + self.profile.delay_ns(order_id, kind);
        self.facts.push(OrderFact {
            order_id,
            request_kind: kind as u64,
            decision_time_ns,
            exchange_arrival_ns,
            response_time_ns: 0,
        });
        if kind == LatencyKind::Place
            && decision.ttl_ns > 0
            && self.profile.pipeline_ns > decision.ttl_ns
        {
            // Our own pipeline was slower than the intent may wait: it never leaves.
            let expired_ns = decision_time_ns + self.profile.pipeline_ns;
            self.refuse_unsent(&order, expired_ns, ReasonCode::IntentExpired);
            return Ok(());
        }
        self.counts.requests += 1;
        if let Some(faults) = &mut self.faults {
            let times = (decision_time_ns, exchange_arrival_ns);
            let arrives = faults.on_sent(&order, kind, times, &mut self.outbox);
            self.send_out();
            if !arrives {
                if let Some(fact) = self.facts.last_mut() {
                    fact.exchange_arrival_ns = 0;
                }
                return Ok(());
            }
        }
        self.requests
            .add(exchange_arrival_ns, Request::Arrives { kind, order_id });
        Ok(())
    }
}

fn unknown(decision: &DecisionRecord, field: &'static str, value: u32) -> SimulationError {
    SimulationError::Decision {
        decision_seq: decision.decision_seq,
        field,
        value,
    }
}

/// The order of a decision; a cancel names no life.
fn order_of(decision: &DecisionRecord, kind: LatencyKind) -> Result<VenueOrder, SimulationError> {
    let life = match OrderLife::from_code(decision.time_in_force) {
        Some(life) => life,
        None if kind == LatencyKind::Cancel => OrderLife::RestOfDay,
        None => return Err(unknown(decision, "time_in_force", decision.time_in_force)),
    };
    Ok(VenueOrder {
        order_id: decision.order_id,
        instrument_id: decision.header.instrument_id,
        side: decision.side,
        price: decision.price,
        qty: decision.qty,
        life,
    })
}
