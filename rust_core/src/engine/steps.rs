//! The gateway's seven steps: what happens to every wish of a strategy.

use super::{AlphaState, Engine};
use crate::costs::notional;
use crate::gateway::{Money, NewOrder, Order};
use crate::reason::ReasonCode;
use crate::record::{ActionKind, DecisionRecord, IntentReason, Record, RecordHeader};
use crate::risk::{self, Facts, OrderKey, Refusal};
use crate::strategy::{OWN_ORDER_COUNT_MAX, Wish};

/// The steps, always in this order; `durable` and `dispatch` are the runtime's.
pub const STEPS: [&str; 7] = [
    "dedup", "policy", "exposure", "risk", "durable", "dispatch", "commit",
];

/// `verdict` of an approved decision.
pub const APPROVED: u32 = 1;
/// `verdict` of a refused decision.
pub const REFUSED: u32 = 2;
/// `source_id` of records made by the runtime.
const SOURCE_RUNTIME: u16 = 6;

/// A wish for a new order with its identity.
#[derive(Debug, Clone, Copy)]
pub(super) struct OrderIntent {
    pub(super) alpha_index: usize,
    pub(super) market_index: usize,
    pub(super) intent_id: u64,
    pub(super) side: i64,
    pub(super) price: i64,
    pub(super) qty: i64,
    pub(super) time_in_force: u32,
    pub(super) reason: IntentReason,
    /// Validity of an intent from outside, whose every refusal is written out; `None` for a
    /// template's own.
    pub(super) external_ttl_ns: Option<i64>,
}

/// Facts of the exposure step.
#[derive(Debug, Clone, Copy)]
struct ExposureFacts {
    is_reducing: bool,
    open_buy_qty: i64,
    open_sell_qty: i64,
    gross_notional: Result<Money, ReasonCode>,
    own_opposite_price: Option<i64>,
    own_order_count: usize,
}

impl Engine {
    /// Takes a wish through the steps and appends the decision, if there is one to write.
    pub(super) fn take_wish(
        &mut self,
        alpha_index: usize,
        wish: &Wish,
        cause: &RecordHeader,
        out: &mut Vec<DecisionRecord>,
    ) {
        match *wish {
            Wish::Cancel { order_id, reason } => {
                self.take_cancel(alpha_index, order_id, reason, cause, out)
            }
            Wish::Place {
                side,
                price,
                qty,
                time_in_force,
                reason,
            } => {
                let alpha = &mut self.alphas[alpha_index];
                let (market_index, intent_id) = (alpha.market_index, alpha.next_intent_id());
                let intent = OrderIntent {
                    alpha_index,
                    market_index,
                    intent_id,
                    side,
                    price,
                    qty,
                    time_in_force,
                    reason,
                    external_ttl_ns: None,
                };
                self.take_place(&intent, None, cause, out);
            }
        }
    }

    /// Takes an intent through the steps; `refused` is what it was refused for before them.
    pub(super) fn take_place(
        &mut self,
        intent: &OrderIntent,
        refused: Option<Refusal>,
        cause: &RecordHeader,
        out: &mut Vec<DecisionRecord>,
    ) {
        // dedup: was this intent decided before?
        let is_duplicate = self.step_dedup(intent);
        // policy: what is allowed at all?
        // exposure: what is open, unknown orders included?
        let exposure = self.step_exposure(intent);
        // risk: every check, first refusal wins.
        let facts = self.facts(intent, &exposure, is_duplicate, cause.sequence_time_ns);
        let refusal = refused.or_else(|| risk::evaluate(&facts));
        // durable, dispatch: the runtime writes the decision, then calls the broker.
        // commit: the order and its exposure exist from here on.
        self.step_commit(intent, &facts, refusal, cause, out);
    }

    fn step_dedup(&self, intent: &OrderIntent) -> bool {
        self.gateway.has_intent(intent.intent_id)
    }

    fn step_exposure(&self, intent: &OrderIntent) -> ExposureFacts {
        let alpha = &self.alphas[intent.alpha_index];
        let open = self.gateway.exposure(intent.alpha_index);
        let is_against = alpha.position.qty.signum() == -intent.side;
        let closing = i128::from(intent.qty) + i128::from(open.on_side(intent.side));
        let is_reducing =
            intent.qty > 0 && is_against && closing <= i128::from(alpha.position.qty.abs());
        let reaches = |order: &&Order| {
            order.market_index == intent.market_index
                && order.side == -intent.side
                && (intent.price - order.price) * intent.side >= 0
        };
        ExposureFacts {
            is_reducing,
            open_buy_qty: open.buy_qty,
            open_sell_qty: open.sell_qty,
            // A reducing order cannot add to the gross value, so its sum is not needed.
            gross_notional: if is_reducing {
                Ok(0)
            } else {
                self.gross_notional(intent)
            },
            own_opposite_price: self
                .gateway
                .open_orders()
                .find(reaches)
                .map(|order| order.price),
            own_order_count: self
                .gateway
                .open_orders()
                .filter(|order| order.alpha_index as usize == intent.alpha_index)
                .count(),
        }
    }

    /// Gross value of all positions and open orders, with the intent added.
    fn gross_notional(&self, intent: &OrderIntent) -> Result<Money, ReasonCode> {
        let mut sum: Money = 0;
        let mut add = |price: i64, qty: i64, multiplier: i64| {
            let value = notional(price, qty, multiplier).ok_or(ReasonCode::ArithmeticOverflow)?;
            sum = sum
                .checked_add(value)
                .ok_or(ReasonCode::ArithmeticOverflow)?;
            Ok(())
        };
        for alpha in self.alphas.iter().filter(|alpha| alpha.position.qty != 0) {
            let market = &self.markets[alpha.market_index];
            let mid = market
                .book
                .mid()
                .or(alpha.marked_mid)
                .ok_or(ReasonCode::ReferenceMissing)?;
            add(mid, alpha.position.qty.abs(), market.instrument.multiplier)?;
        }
        for order in self.gateway.open_orders() {
            add(
                order.price,
                order.remaining_qty(),
                self.markets[order.market_index].instrument.multiplier,
            )?;
        }
        add(
            intent.price,
            intent.qty,
            self.markets[intent.market_index].instrument.multiplier,
        )?;
        Ok(sum)
    }

    /// Everything the checks look at, policy included.
    fn facts(
        &mut self,
        intent: &OrderIntent,
        exposure: &ExposureFacts,
        is_duplicate: bool,
        now_ns: i64,
    ) -> Facts {
        let phase = self.phase(now_ns);
        let account_order_count = self.account_rate.count(now_ns);
        let reject_count = self.rejects.count(now_ns);
        let alpha_order_count = self.alphas[intent.alpha_index].order_rate.count(now_ns);
        let alpha = &self.alphas[intent.alpha_index];
        let market = &self.markets[intent.market_index];
        let limits = &self.config.account_limits;
        Facts {
            side: intent.side,
            price: intent.price,
            qty: intent.qty,
            is_reducing: exposure.is_reducing,
            signal: alpha.signal,
            halted_by: self.policy.halted.or(alpha.halted).map(|(code, _)| code),
            permit_fault: alpha.permit_fault(),
            is_reduce_only: self.policy.is_reduce_only || alpha.is_reduce_only,
            phase,
            is_duplicate,
            has_reference: market.has_reference,
            book_fault: market.book.fault(now_ns, limits.quote_age_ns_max),
            quote_age_ns: market.book.age_ns(now_ns).unwrap_or(i64::MAX),
            quote_age_ns_max: limits.quote_age_ns_max,
            mid: market.book.mid(),
            tick_size: market.instrument.tick_size,
            limit_up: market.instrument.limit_up,
            limit_down: market.instrument.limit_down,
            price_collar_bps: limits.price_collar_bps,
            order_qty_max: alpha.config.limits.order_qty_max,
            lot_size: market.instrument.lot_size,
            position_qty: alpha.position.qty,
            open_buy_qty: exposure.open_buy_qty,
            open_sell_qty: exposure.open_sell_qty,
            position_qty_max: alpha.position_qty_max,
            gross_notional: exposure.gross_notional,
            gross_notional_max: limits.gross_notional_max,
            alpha_order_count,
            alpha_order_rate_max: alpha.config.limits.order_rate_max,
            account_order_count,
            account_order_rate_max: limits.order_rate_max,
            cancel_reserve: limits.cancel_reserve,
            repeated_order_count: self.repeats.count(&key_of(intent), now_ns),
            repeated_order_max: limits.repeated_order_max,
            own_opposite_price: exposure.own_opposite_price,
            net_pnl: alpha.position.net(),
            loss_latch: alpha.loss_latch,
            daily_loss_max: alpha.config.limits.daily_loss_max,
            drawdown: alpha.position.drawdown(),
            drawdown_max: alpha.config.limits.drawdown_max,
            reject_count,
            has_capacity: !self.gateway.is_full() && exposure.own_order_count < OWN_ORDER_COUNT_MAX,
        }
    }

    fn step_commit(
        &mut self,
        intent: &OrderIntent,
        facts: &Facts,
        refusal: Option<Refusal>,
        cause: &RecordHeader,
        out: &mut Vec<DecisionRecord>,
    ) {
        let now_ns = cause.sequence_time_ns;
        let mut decision = self.blank_decision(intent.alpha_index, cause);
        decision.intent_id = intent.intent_id;
        decision.action = ActionKind::Place as u32;
        decision.intent_reason = intent.reason as u32;
        decision.time_in_force = intent.time_in_force;
        decision.side = intent.side;
        decision.price = intent.price;
        decision.qty = intent.qty;
        if let Some(ttl_ns) = intent.external_ttl_ns {
            decision.ttl_ns = ttl_ns;
        }
        if let Some(Refusal {
            code,
            observed,
            limit,
        }) = refusal
        {
            self.counters.count_refusal(code);
            let is_news = self.alphas[intent.alpha_index]
                .refusal_mut(intent.side)
                .is_news(code, now_ns);
            if is_news || intent.external_ttl_ns.is_some() {
                decision.verdict = REFUSED;
                decision.reason_code = u32::from(code.code());
                decision.observed = observed;
                decision.limit = limit;
                self.write(decision, out);
            }
            return;
        }
        assert!(
            facts.signal.is_finite() || facts.is_reducing,
            "Invariant: no opening order without a signal"
        );
        let placed = self.gateway.place(&NewOrder {
            intent_id: intent.intent_id,
            alpha_index: self.alphas[intent.alpha_index].config.alpha_index,
            market_index: intent.market_index,
            side: intent.side,
            price: intent.price,
            qty: intent.qty,
            time_in_force: intent.time_in_force,
        });
        // The capacity check came before, so the table had room.
        let Some(order_id) = placed else {
            return self.counters.count_refusal(ReasonCode::CapacityReached);
        };
        self.gateway.remember_intent(intent.intent_id);
        self.account_rate.push(now_ns);
        self.repeats.push(key_of(intent), now_ns);
        let alpha = &mut self.alphas[intent.alpha_index];
        alpha.order_rate.push(now_ns);
        alpha.refusal_mut(intent.side).clear();
        decision.order_id = order_id;
        decision.verdict = APPROVED;
        self.write(decision, out);
    }

    /// Cancels pass every check but the account's full request rate.
    fn take_cancel(
        &mut self,
        alpha_index: usize,
        order_id: u64,
        reason: IntentReason,
        cause: &RecordHeader,
        out: &mut Vec<DecisionRecord>,
    ) {
        let now_ns = cause.sequence_time_ns;
        let Some(order) = self.gateway.order(order_id).copied() else {
            return;
        };
        let mut decision = self.blank_decision(alpha_index, cause);
        decision.intent_id = order.intent_id;
        decision.order_id = order_id;
        decision.action = ActionKind::Cancel as u32;
        decision.intent_reason = reason as u32;
        decision.time_in_force = order.time_in_force;
        decision.side = order.side;
        decision.price = order.price;
        decision.qty = order.remaining_qty();
        let count = self.account_rate.count(now_ns).saturating_add(1);
        let limit = self.config.account_limits.order_rate_max;
        if count > limit {
            let code = ReasonCode::OrderRateAboveLimit;
            self.counters.count_refusal(code);
            if self.alphas[alpha_index]
                .refusal_mut(order.side)
                .is_news(code, now_ns)
            {
                decision.verdict = REFUSED;
                decision.reason_code = u32::from(code.code());
                decision.observed = i64::from(count);
                decision.limit = i64::from(limit);
                self.write(decision, out);
            }
            return;
        }
        if self.gateway.cancel(order_id) {
            self.account_rate.push(now_ns);
            decision.verdict = APPROVED;
            self.write(decision, out);
        }
    }

    /// A cancel from outside: as a template's, and answered also when there is nothing to cancel.
    pub(super) fn answer_cancel(
        &mut self,
        alpha_index: usize,
        order_id: u64,
        reason: IntentReason,
        cause: &RecordHeader,
        out: &mut Vec<DecisionRecord>,
    ) {
        let answered = out.len();
        let is_own = self
            .gateway
            .order(order_id)
            .is_some_and(|order| order.alpha_index as usize == alpha_index);
        if is_own {
            self.take_cancel(alpha_index, order_id, reason, cause, out);
        }
        if out.len() > answered {
            return;
        }
        let code = if is_own {
            ReasonCode::OrderStateInvalid
        } else {
            ReasonCode::OrderUnknown
        };
        self.counters.count_refusal(code);
        let mut decision = self.blank_decision(alpha_index, cause);
        decision.order_id = order_id;
        decision.action = ActionKind::Cancel as u32;
        decision.intent_reason = reason as u32;
        decision.verdict = REFUSED;
        decision.reason_code = u32::from(code.code());
        self.write(decision, out);
    }

    /// A decision with its cause, its alpha's state and neither action nor verdict.
    fn blank_decision(&self, alpha_index: usize, cause: &RecordHeader) -> DecisionRecord {
        let alpha: &AlphaState = &self.alphas[alpha_index];
        let market = &self.markets[alpha.market_index];
        let exposure = self.gateway.exposure(alpha_index);
        let mut decision = DecisionRecord::empty();
        decision.header.instrument_id = market.instrument.instrument_id;
        decision.header.input_seq = cause.input_seq;
        decision.header.exchange_time_ns = cause.exchange_time_ns;
        decision.header.receive_time_ns = cause.receive_time_ns;
        decision.header.sequence_time_ns = cause.sequence_time_ns;
        decision.header.source_id = SOURCE_RUNTIME;
        decision.header.trading_day = self.config.session.trading_day;
        decision.alpha_index = alpha.config.alpha_index;
        decision.ttl_ns = alpha.config.ttl_ns;
        decision.signal = alpha.signal;
        decision.reference_price = market.book.mid().unwrap_or(0);
        decision.position_qty = alpha.position.qty;
        decision.open_buy_qty = exposure.buy_qty;
        decision.open_sell_qty = exposure.sell_qty;
        decision
    }

    /// Numbers a decision and hands it out.
    fn write(&mut self, mut decision: DecisionRecord, out: &mut Vec<DecisionRecord>) {
        self.decision_seq += 1;
        decision.decision_seq = self.decision_seq;
        decision.header.source_seq = self.decision_seq;
        self.counters.decisions += 1;
        self.counters.approved += u64::from(decision.verdict == APPROVED);
        out.push(decision);
    }
}

fn key_of(intent: &OrderIntent) -> OrderKey {
    OrderKey {
        market_index: intent.market_index,
        side: intent.side,
        price: intent.price,
        qty: intent.qty,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first surprise")]
mod tests {
    use super::*;
    use crate::record::{BookRecord, BrokerRecord, SCALE};

    const CONFIG: &str = r#"{"schema":1,
        "session":{"session_id":"s","trading_day":20260410,"phases":[{"start_ns":0,"end_ns":1000,"phase":"open"}]},
        "instruments":[{"instrument_id":1,"symbol":"X","tick_size":100000000,"lot_size":100000000,"multiplier":100000000,
            "limit_up":null,"limit_down":null,"costs":{"kind":"value_bps","maker_bps":0,"taker_bps":0}}],
        "alphas":[{"alpha_index":0,"alpha_id":"a","instrument_id":1,"expression":"5","parameters":{},
            "template":{"kind":"taker","entry_ticks":1,"exit_ticks":0,"hold_ns":500,"slippage_ticks":0},
            "order_qty":100000000,"ttl_ns":1,"limits":{"order_qty_max":100000000,"position_qty_max":100000000,
            "daily_loss_max":100000000000,"drawdown_max":100000000000,"order_rate_max":9},"stage":"research",
            "weight_ppm":1000000,"expires_ns":1000,"promotion_seq":0,"config_sha256":"",
            "on_withdrawal":{"action":"flatten","deadline_ns":0}}],
        "account_limits":{"gross_notional_max":100000000000000,"order_rate_max":9,"cancel_reserve":1,
            "price_collar_bps":500,"quote_age_ns_max":100,"repeated_order_max":9}}"#;

    fn feed<R: Record>(engine: &mut Engine, seq: u64, mut record: R) -> Vec<DecisionRecord> {
        record.header_mut().instrument_id = 1;
        record.header_mut().input_seq = seq;
        record.header_mut().sequence_time_ns = i64::try_from(seq).unwrap();
        let (header, mut out) = (*record.header(), Vec::new());
        engine.on_record(&header, record.as_bytes(), &mut out);
        out
    }

    /// The id is made by a counter, so only a broken or restored counter can repeat one.
    #[test]
    fn an_intent_id_that_was_decided_is_never_decided_again() {
        let mut engine = Engine::from_json(CONFIG).unwrap();
        let mut book = BookRecord::empty();
        (book.bid_price[0], book.bid_qty[0]) = (100 * SCALE, SCALE);
        (book.ask_price[0], book.ask_qty[0]) = (101 * SCALE, SCALE);
        let counter = engine.alphas[0].clone();
        let first = feed(&mut engine, 1, book);
        assert_eq!((first.len(), first[0].verdict), (1, APPROVED));
        engine.alphas[0] = counter;
        engine.alphas[0].signal = 5.0;
        let expired = BrokerRecord {
            event_kind: 6,
            order_id: first[0].order_id,
            side: 1,
            ..BrokerRecord::empty()
        };
        let again = feed(&mut engine, 2, expired);
        assert_eq!((again.len(), again[0].intent_id), (1, first[0].intent_id));
        assert_eq!(again[0].reason_code, 210);
        assert_eq!(engine.open_orders().count(), 0);
    }
}
