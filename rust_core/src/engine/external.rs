//! Intents from outside: what a plain Python strategy wants, as records.
//!
//! Why: prototypes may be written in Python, but whatever can change a decision enters as a record
//! and goes through the same seven steps, or a session could not be decided again.
//!
//! Invariants:
//! 1. Every well-formed intent is answered by one decision that names the intent's record.
//! 2. An intent older than its time to live, counted from the record that caused it, is refused;
//!    a cancel is never too late.
//! 3. Only an alpha with the template `external`, whose stage is at most shadow, or `remote` takes
//!    intents.
//!
//! It makes no intent. Operator's page: `docs/python-strategies.md`.

use super::Engine;
use super::steps::OrderIntent;
use crate::book::VALUE_MAX;
use crate::reason::ReasonCode;
use crate::record::{ActionKind, DecisionRecord, IntentReason, IntentRecord, RecordHeader};
use crate::risk::Refusal;
use crate::strategy::{FILL_OR_KILL, REST_OF_DAY};

/// Set in the part of an intent id that a template's own counter does not reach.
const EXTERNAL_ID: u64 = 1 << 32;

fn reason_of(number: u32) -> Option<IntentReason> {
    [
        IntentReason::Entry,
        IntentReason::Exit,
        IntentReason::Quote,
        IntentReason::Requote,
    ]
    .into_iter()
    .find(|reason| *reason as u32 == number)
}

impl Engine {
    /// Takes an intent through the steps.
    ///
    /// # Errors
    /// The code of what is wrong with it; it changed nothing.
    pub(super) fn on_intent(
        &mut self,
        header: &RecordHeader,
        record: &IntentRecord,
        out: &mut Vec<DecisionRecord>,
    ) -> Result<(), ReasonCode> {
        let now_ns = header.sequence_time_ns;
        let alpha_index = record.alpha_index as usize;
        let alpha = self
            .alphas
            .get(alpha_index)
            .ok_or(ReasonCode::IntentMalformed)?;
        if !alpha.config.template.is_outside() {
            return Err(ReasonCode::ExternalNotPermitted);
        }
        let reason = reason_of(record.intent_reason).ok_or(ReasonCode::IntentMalformed)?;
        let is_caused = record.cause_seq > 0
            && record.cause_seq < header.input_seq
            && record.cause_time_ns <= now_ns
            && record.ttl_ns > 0;
        if header.instrument_id != alpha.config.instrument_id || !is_caused {
            return Err(ReasonCode::IntentMalformed);
        }
        self.refresh_alpha(alpha_index, now_ns);
        if record.action == ActionKind::Cancel as u32 {
            self.answer_cancel(alpha_index, record.order_id, reason, header, out);
            return Ok(());
        }
        let is_order = record.action == ActionKind::Place as u32
            && record.side.abs() == 1
            && (1..=VALUE_MAX).contains(&record.price)
            && (1..=VALUE_MAX).contains(&record.qty)
            && (REST_OF_DAY..=FILL_OR_KILL).contains(&record.time_in_force)
            && (1..EXTERNAL_ID).contains(&record.external_id);
        if !is_order {
            return Err(ReasonCode::IntentMalformed);
        }
        let alpha = &mut self.alphas[alpha_index];
        alpha.signal = record.signal;
        let ttl_ns = record.ttl_ns.min(alpha.config.ttl_ns);
        let intent = OrderIntent {
            alpha_index,
            market_index: alpha.market_index,
            intent_id: alpha.external_intent_id(EXTERNAL_ID | record.external_id),
            side: record.side,
            price: record.price,
            qty: record.qty,
            time_in_force: record.time_in_force,
            reason,
            external_ttl_ns: Some(ttl_ns),
        };
        let age_ns = now_ns.saturating_sub(record.cause_time_ns);
        let expired = (age_ns > ttl_ns).then_some(Refusal {
            code: ReasonCode::IntentExpired,
            observed: age_ns,
            limit: ttl_ns,
        });
        self.take_place(&intent, expired, header, out);
        Ok(())
    }
}
