//! A restart: from the order log back to what must not be forgotten.
//!
//! Why: what was decided is never decided again, an order that may still be filled still counts,
//! and a halt outlives the process that was halted.
//!
//! Invariants:
//! 1. The result is a function of config and log: the same bytes give the same engine.
//! 2. Every intent id and order id of the log is used up.
//! 3. Fills are counted as they were; an order without an end is `Unknown` and counts in full.
//! 4. With such an order nothing opens until it is resolved and resumed (`OrderOutcomeUnknown`).
//! 5. Halts, reduce-only, withdrawals, weights and loss latches are in force as they were.
//!
//! Books, features and marks start over: they come from the market. A replay of what follows
//! begins with the same recovery. Operator's page: `docs/storm-guard.md`.

use super::{Engine, steps::APPROVED, steps::REFUSED};
use crate::engine::BatchError;
use crate::gateway::NewOrder;
use crate::reason::ReasonCode;
use crate::record::{
    AccountRecord, ActionKind, BrokerEventKind, BrokerRecord, CommandKind, CommandRecord,
    ConfigSwitchRecord, DecisionRecord, RecordHeader, RecordType, Tape,
};

/// What a recovery found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recovered {
    /// Decisions of the log.
    pub decisions: u64,
    /// Broker events of the log.
    pub broker_events: u64,
    /// Orders whose outcome is not known.
    pub unknown_orders: usize,
    /// Records that did not fit, each counted under its code.
    pub odd_records: u64,
    /// Highest input sequence in the log.
    pub last_seq: u64,
    /// Time of the last record, 0 when there was none.
    pub last_time_ns: i64,
    /// Why everything is halted, if it is.
    pub halted_by: Option<ReasonCode>,
}

impl Engine {
    /// Takes back what the order log of the same session says; for an engine that has seen nothing.
    ///
    /// # Errors
    /// [`BatchError::Tape`] when the log is no tape; [`BatchError::SequenceGap`] when the engine
    /// has seen records already.
    pub fn recover(&mut self, order_log: &[u8]) -> Result<Recovered, BatchError> {
        if self.last_seq != 0 {
            return Err(BatchError::SequenceGap {
                found: self.last_seq,
                expected: 0,
            });
        }
        let mut found = Recovered::default();
        for item in Tape::new(order_log) {
            let (header, bytes) = item?;
            if let Err(code) = self.take_back(&header, bytes, &mut found) {
                found.odd_records += 1;
                self.counters.count_dropped(code);
            }
            self.last_seq = self.last_seq.max(header.input_seq);
            self.last_time_ns = self.last_time_ns.max(header.sequence_time_ns);
        }
        found.unknown_orders = self.gateway.lose_track();
        if found.unknown_orders > 0 {
            self.policy.has_lost_track = true;
            self.policy
                .reduce_only(ReasonCode::OrderOutcomeUnknown, self.last_time_ns);
        }
        if self.last_seq != 0 {
            self.watch.resume_feed(self.last_time_ns);
            found.last_time_ns = self.last_time_ns;
        }
        found.last_seq = self.last_seq;
        found.halted_by = self.halted_by();
        Ok(found)
    }

    fn take_back(
        &mut self,
        header: &RecordHeader,
        bytes: &[u8],
        found: &mut Recovered,
    ) -> Result<(), ReasonCode> {
        match RecordType::from_code(header.record_type) {
            Some(RecordType::Decision) => {
                found.decisions += 1;
                self.take_back_decision(&super::read::<DecisionRecord>(bytes)?)
            }
            Some(RecordType::Broker) => {
                found.broker_events += 1;
                self.take_back_report(header, &super::read::<BrokerRecord>(bytes)?)
            }
            Some(RecordType::Command) => {
                let record = super::read::<CommandRecord>(bytes)?;
                let is_account_resume = record.command_kind == CommandKind::ResumeConfirm as u32
                    && record.alpha_index == super::ALL_ALPHAS;
                // Whether the account's latches were lifted is in the change that followed.
                if is_account_resume {
                    // Its arm is used up either way.
                    self.policy.disarm();
                    return Ok(());
                }
                self.on_command(header, &record)
            }
            Some(RecordType::ConfigSwitch) => {
                self.on_config_switch(header, &super::read::<ConfigSwitchRecord>(bytes)?)
            }
            Some(RecordType::Account) => {
                self.on_account(header, &super::read::<AccountRecord>(bytes)?)
            }
            // What was measured before the restart says nothing about now.
            _ => Ok(()),
        }
    }

    fn take_back_decision(&mut self, decision: &DecisionRecord) -> Result<(), ReasonCode> {
        self.decision_seq = self.decision_seq.max(decision.decision_seq);
        let action = decision.action;
        if action == ActionKind::StormChange as u32 || action == ActionKind::PolicyChange as u32 {
            let was_latched = self.policy.is_latched();
            self.restore_change(decision);
            if was_latched && !self.policy.is_latched() {
                // An account's resume lifts what was latched for single alphas as well.
                for alpha in &mut self.alphas {
                    alpha.halted = None;
                    alpha.is_reduce_only = false;
                }
            }
            return Ok(());
        }
        if action == ActionKind::LossLatch as u32 {
            return self.restore_loss_latch(decision);
        }
        let alpha_index = decision.alpha_index as usize;
        if alpha_index >= self.alphas.len() {
            return Err(ReasonCode::ConfigMalformed);
        }
        let now_ns = decision.header.sequence_time_ns;
        let is_approved = decision.verdict == APPROVED;
        if action == ActionKind::Cancel as u32 {
            if is_approved && self.gateway.cancel(decision.order_id) {
                self.account_rate.push(now_ns);
                self.account.on_cancel();
            }
            return Ok(());
        }
        self.gateway.remember_intent(decision.intent_id);
        let alpha = &mut self.alphas[alpha_index];
        alpha.intent_counter = alpha
            .intent_counter
            .max(self.gateway.intent_high(alpha.intent_prefix));
        if decision.verdict == REFUSED {
            return Ok(());
        }
        let market_index = self.market_index(decision.header.instrument_id)?;
        let restored = self.gateway.restore(
            decision.order_id,
            &NewOrder {
                intent_id: decision.intent_id,
                alpha_index: decision.alpha_index,
                market_index,
                side: decision.side,
                price: decision.price,
                qty: decision.qty,
                time_in_force: decision.time_in_force,
            },
        );
        if !restored {
            return Err(ReasonCode::OrderStateInvalid);
        }
        if let Some(order) = self.gateway.order(decision.order_id).copied() {
            // What it binds is in the broker's next answer about margin; none is known before that.
            self.account.on_placed(&order, 0);
        }
        self.account_rate.push(now_ns);
        self.alphas[alpha_index].order_rate.push(now_ns);
        Ok(())
    }

    /// A loss limit that was reached stays for the session.
    fn restore_loss_latch(&mut self, note: &DecisionRecord) -> Result<(), ReasonCode> {
        let code = u16::try_from(note.reason_code).ok();
        let code = code.and_then(ReasonCode::from_code);
        if note.alpha_index == super::ALL_ALPHAS {
            self.account.restore_loss_latch(code);
            return Ok(());
        }
        let alpha = self.alphas.get_mut(note.alpha_index as usize);
        let alpha = alpha.ok_or(ReasonCode::ConfigMalformed)?;
        alpha.loss_latch = alpha.loss_latch.or(code);
        alpha.is_latch_noted = true;
        Ok(())
    }

    fn take_back_report(
        &mut self,
        header: &RecordHeader,
        record: &BrokerRecord,
    ) -> Result<(), ReasonCode> {
        let now_ns = header.sequence_time_ns;
        let before = self.gateway.order(record.order_id).copied();
        let outcome = self.gateway.on_broker(record);
        let odd = outcome
            .as_ref()
            .map_or_else(|code| Some(*code), |found| found.code);
        if let Some(code) = odd {
            self.latch_odd_report(record, code, now_ns);
        }
        let outcome = outcome?;
        if let Some(before) = before {
            self.account.on_order(&before, &outcome.order);
        }
        let kind = record.event_kind;
        if kind == BrokerEventKind::Rejected as u32 || kind == BrokerEventKind::Unknown as u32 {
            self.rejects.push(now_ns);
        }
        if kind == BrokerEventKind::Unknown as u32 {
            self.unknowns.push(now_ns);
        }
        let alpha_index = outcome.order.alpha_index as usize;
        if outcome.fill_qty > 0 {
            self.take_fill(
                alpha_index,
                &outcome.order,
                outcome.fill_qty,
                record,
                now_ns,
            );
        }
        self.take_flat(alpha_index);
        Ok(())
    }
}
