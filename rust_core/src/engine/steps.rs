//! The gateway's seven steps: what happens to every wish of a strategy.

use bytemuck::Zeroable;

use super::exits::reaches;
use super::{AlphaState, Engine, Phase};
use crate::gateway::{Exposure, Money, NewOrder, OPEN_COUNT_MAX, Request};
use crate::reason::ReasonCode;
use crate::record::{ActionKind, DecisionRecord, IntentReason, Record, RecordHeader};
use crate::risk::{self, FREE_REQUEST_COUNT, Facts, OrderKey, Refusal};
use crate::strategy::{OWN_ORDER_COUNT_MAX, Wish};

/// The steps, always in this order; `durable` and `dispatch` are the runtime's.
pub const STEPS: [&str; 7] = [
    "dedup", "policy", "exposure", "risk", "durable", "dispatch", "commit",
];

/// `verdict` of an approved decision.
pub const APPROVED: u32 = 1;
/// `verdict` of a refused decision.
pub const REFUSED: u32 = 2;
/// `verdict` of a decision that only tells of a change.
pub const NOTED: u32 = 3;
/// `source_id` of records made by the runtime.
pub(super) const SOURCE_RUNTIME: u16 = 6;
/// Open orders that only exits may use, so that quotes of other alphas cannot shut one in.
const EXIT_RESERVE: usize = OWN_ORDER_COUNT_MAX;

const _: () = assert!(EXIT_RESERVE < OPEN_COUNT_MAX);

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
    net_notional: Result<Money, ReasonCode>,
    account_position_qty: i128,
    own_opposite_price: Option<i64>,
    has_capacity: bool,
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
        let is_reducing = self.is_reducing(intent);
        let fitted;
        let intent = if is_reducing {
            fitted = self.shape_exit(intent);
            &fitted
        } else {
            intent
        };
        let exposure = self.step_exposure(intent, is_reducing);
        // risk: every check, first refusal wins.
        let refusal = if is_reducing || self.trace.is_some() {
            self.step_risk_at_length(intent, &exposure, is_duplicate, refused, cause, out)
        } else {
            refused.or_else(|| {
                let now_ns = cause.sequence_time_ns;
                risk::evaluate(&self.facts(intent, &exposure, is_duplicate, now_ns))
            })
        };
        // durable, dispatch: the runtime writes the decision, then calls the broker.
        // commit: the order and its exposure exist from here on.
        self.step_commit(intent, is_reducing, refusal, cause, out);
    }

    /// The risk step of an exit, which our own orders may have to make way for, and of a replay that
    /// was asked what the checks saw.
    ///
    /// Apart from the usual order, whose facts never leave the registers: nobody else looks at them.
    #[inline(never)]
    fn step_risk_at_length(
        &mut self,
        intent: &OrderIntent,
        exposure: &ExposureFacts,
        is_duplicate: bool,
        refused: Option<Refusal>,
        cause: &RecordHeader,
        out: &mut Vec<DecisionRecord>,
    ) -> Option<Refusal> {
        let mut facts = self.facts(intent, exposure, is_duplicate, cause.sequence_time_ns);
        let mut refusal = refused.or_else(|| risk::evaluate(&facts));
        if facts.is_reducing && refusal.is_none() {
            // Nothing else holds the exit, so our own orders make way for it.
            let blocked_by = self.clear_way(intent, cause, out);
            facts.exit_blocked_by = self.still_waits(intent.alpha_index, blocked_by, cause);
            if facts.exit_blocked_by.is_some() {
                refusal = risk::evaluate(&facts);
            }
        }
        if self.trace.is_some() {
            self.trace_place(intent, &facts, refused, refusal, cause.sequence_time_ns);
        }
        refusal
    }

    fn step_dedup(&self, intent: &OrderIntent) -> bool {
        self.gateway.has_intent(intent.intent_id)
    }

    #[inline]
    fn step_exposure(&mut self, intent: &OrderIntent, is_reducing: bool) -> ExposureFacts {
        self.account.settle();
        let open = self.gateway.exposure(intent.alpha_index);
        let own_count = self.account.open_count(intent.alpha_index);
        let reserve = if is_reducing { 0 } else { EXIT_RESERVE };
        let (market, price, qty) = (intent.market_index, intent.price, intent.qty);
        // A reducing order cannot add to these sums, so they are not needed.
        let values = if is_reducing {
            Ok((0, 0))
        } else {
            self.account.values_with(market, intent.side, price, qty)
        };
        ExposureFacts {
            is_reducing,
            open_buy_qty: open.buy_qty,
            open_sell_qty: open.sell_qty,
            gross_notional: values.map(|values| values.0),
            net_notional: values.map(|values| values.1),
            account_position_qty: self
                .account
                .worst_with(intent.alpha_index, intent.side, qty),
            own_opposite_price: self.own_opposite_price(intent),
            has_capacity: self.gateway.open_count() + reserve < OPEN_COUNT_MAX
                && own_count < OWN_ORDER_COUNT_MAX,
        }
    }

    /// Price of our own order, or waiting exit, on the other side that this order would reach.
    #[inline]
    fn own_opposite_price(&self, intent: &OrderIntent) -> Option<i64> {
        let waiting = self.account.waiting_exit(intent.market_index);
        let exit_price = waiting
            .filter(|exit| {
                exit.side == -intent.side && (intent.price - exit.price) * intent.side >= 0
            })
            .map(|exit| exit.price);
        if exit_price.is_some() {
            return exit_price;
        }
        if self
            .account
            .open_count_on(intent.market_index, -intent.side)
            == 0
        {
            return None;
        }
        self.gateway
            .open_orders()
            .find(|order| reaches(intent, order))
            .map(|order| order.price)
    }

    /// Everything the checks look at, policy included.
    // Inlined, so that a fact that is only compared once is never stored.
    #[inline(always)]
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
        let unknown_count = self.unknowns.count(now_ns);
        let alpha_order_count = self.alphas[intent.alpha_index].order_rate.count(now_ns);
        let alpha = &self.alphas[intent.alpha_index];
        let market = &self.markets[intent.market_index];
        let limits = &self.config.account_limits;
        let account = &self.account;
        let (request_count, fill_count) = account.requests_and_fills();
        let per_fill = u64::from(limits.order_to_trade_max);
        let lots = i128::from(limits.position_lots_max);
        let free_margin = limits.free_margin_min.map(|_| {
            let age_ns_max = limits.account_age_ns_max;
            account.free_margin_with(intent.market_index, intent.qty, now_ns, age_ns_max)
        });
        Facts {
            side: intent.side,
            price: intent.price,
            qty: intent.qty,
            is_reducing: exposure.is_reducing,
            signal: alpha.signal,
            halted_by: self.policy.halted.or(alpha.halted).map(|(code, _)| code),
            storm_fault: self.storm_fault(),
            permit_fault: alpha.permit_fault(),
            is_reduce_only: self.policy.is_reduce_only
                || alpha.is_reduce_only
                || self.gateway.has_unknown_in(intent.market_index),
            unexplained_qty: account.unexplained_qty(),
            phase,
            is_duplicate,
            has_reference: market.has_reference,
            eligibility: market.instrument.eligibility,
            book_fault: market.book.fault(now_ns, limits.quote_age_ns_max),
            quote_age_ns: market.book.age_ns(now_ns).unwrap_or(i64::MAX),
            quote_age_ns_max: limits.quote_age_ns_max,
            clock_skew_ns: market.clock_skew_ns,
            clock_skew_ns_max: limits.clock_skew_ns_max,
            mid: market.book.mid(),
            opposite_best: Some(market.opposite_best(intent.side)).filter(|price| *price > 0),
            tick_size: market.ticks.tick_at(intent.price),
            limit_up: market.instrument.limit_up,
            limit_down: market.instrument.limit_down,
            band_base: market.band_base(),
            banding_bps: market.instrument.banding_bps,
            price_collar_bps: limits.price_collar_bps,
            exit_collar_bps: limits.exit_collar_bps,
            order_qty_max: alpha.config.limits.order_qty_max,
            exchange_qty_max: market.instrument.order_qty_max,
            lot_size: market.instrument.lot_size,
            position_qty: alpha.position.qty,
            open_buy_qty: exposure.open_buy_qty,
            open_sell_qty: exposure.open_sell_qty,
            position_qty_max: alpha.position_qty_max,
            account_position_qty: exposure.account_position_qty,
            account_position_qty_max: lots * i128::from(market.instrument.lot_size),
            gross_notional: exposure.gross_notional,
            gross_notional_max: limits.gross_notional_max,
            net_notional: exposure.net_notional,
            net_notional_max: limits.net_notional_max,
            free_margin,
            free_margin_min: limits.free_margin_min.unwrap_or(0),
            margin_age_ns: account.margin_age_ns(now_ns).unwrap_or(i64::MAX),
            alpha_order_count,
            alpha_order_rate_max: alpha.config.limits.order_rate_max,
            account_order_count,
            account_order_rate_max: limits.order_rate_max,
            cancel_reserve: limits.cancel_reserve,
            repeated_order_count: self.repeats.count(&key_of(intent), now_ns),
            repeated_order_max: limits.repeated_order_max,
            fill_pause_ns: alpha.fill_pause_ns(intent.side, now_ns),
            request_count: request_count.saturating_add(1),
            request_count_max: FREE_REQUEST_COUNT
                .saturating_add(fill_count.saturating_mul(per_fill)),
            own_opposite_price: exposure.own_opposite_price,
            exit_blocked_by: None,
            net_pnl: alpha.position.net(),
            loss_latch: alpha.loss_latch,
            daily_loss_max: alpha.config.limits.daily_loss_max,
            drawdown: alpha.position.drawdown(),
            drawdown_max: alpha.config.limits.drawdown_max,
            loss_speed: alpha.loss_speed,
            loss_speed_max: alpha.config.limits.loss_speed_max,
            account_net_pnl: account.net_pnl(),
            account_loss_latch: account.loss_latch(),
            account_daily_loss_max: limits.daily_loss_max,
            account_drawdown: account.drawdown(),
            account_drawdown_max: limits.drawdown_max,
            account_loss_speed: account.loss_speed(),
            account_loss_speed_max: limits.loss_speed_max,
            reject_count,
            reject_count_max: limits.reject_rate_max,
            unknown_count,
            unknown_count_max: limits.unknown_rate_max,
            has_capacity: exposure.has_capacity,
        }
    }

    #[inline]
    fn step_commit(
        &mut self,
        intent: &OrderIntent,
        is_reducing: bool,
        refusal: Option<Refusal>,
        cause: &RecordHeader,
        out: &mut Vec<DecisionRecord>,
    ) {
        let now_ns = cause.sequence_time_ns;
        // Decided is decided, whichever way: the same id never comes to these steps again.
        self.gateway.remember_intent(intent.intent_id);
        if let Some(refusal) = refusal {
            return self.write_refusal(intent, refusal, cause, out);
        }
        self.assert_passes(if is_reducing {
            Request::Reducing
        } else {
            Request::Opening
        });
        assert!(
            is_reducing || self.alphas[intent.alpha_index].signal.is_finite(),
            "Invariant: no opening order without a signal"
        );
        let alpha_number = self.alphas[intent.alpha_index].config.alpha_index;
        let before = self.gateway.exposure(intent.alpha_index);
        let placed = self.gateway.place(&NewOrder {
            intent_id: intent.intent_id,
            alpha_index: alpha_number,
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
        self.watch.sent(order_id, false, now_ns);
        if let Some(order) = self.gateway.order(order_id) {
            let margin = if is_reducing {
                None
            } else {
                self.account.margin_of(intent.market_index, intent.qty)
            };
            self.account.on_placed(order, margin.unwrap_or(0));
        }
        self.account_rate.push(now_ns);
        self.repeats.push(key_of(intent), now_ns);
        let alpha = &mut self.alphas[intent.alpha_index];
        alpha.order_rate.push(now_ns);
        alpha.refusal_mut(intent.side).clear();
        let decision = self.place_decision(intent, before, cause, out);
        decision.order_id = order_id;
        decision.verdict = APPROVED;
        self.number(decision);
    }

    /// Counts a refused intent and writes it out, unless it only repeats the last one.
    #[cold]
    fn write_refusal(
        &mut self,
        intent: &OrderIntent,
        Refusal {
            code,
            observed,
            limit,
        }: Refusal,
        cause: &RecordHeader,
        out: &mut Vec<DecisionRecord>,
    ) {
        self.counters.count_refusal(code);
        let is_news = self.alphas[intent.alpha_index]
            .refusal_mut(intent.side)
            .is_news(code, cause.sequence_time_ns);
        if is_news || intent.external_ttl_ns.is_some() {
            let exposure = self.gateway.exposure(intent.alpha_index);
            let decision = self.place_decision(intent, exposure, cause, out);
            decision.verdict = REFUSED;
            decision.reason_code = u32::from(code.code());
            decision.observed = observed;
            decision.limit = limit;
            self.number(decision);
        }
    }

    /// A decision on an intent, without verdict, in its place in `out`; `exposure` is what was open
    /// before it.
    #[inline]
    fn place_decision<'a>(
        &self,
        intent: &OrderIntent,
        exposure: Exposure,
        cause: &RecordHeader,
        out: &'a mut Vec<DecisionRecord>,
    ) -> &'a mut DecisionRecord {
        let place = out.len();
        out.push(DecisionRecord::zeroed());
        let decision = &mut out[place];
        self.fill_blank(decision, intent.alpha_index, exposure, cause);
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
        decision
    }

    /// Cancels pass every check but the account's full request rate, and the exchange's phase
    /// without cancels.
    pub(super) fn take_cancel(
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
        let is_forbidden = self.phase(now_ns) == Some(Phase::NoCancel);
        let refusal = (is_forbidden || count > limit).then_some(Refusal {
            code: if is_forbidden {
                ReasonCode::CancelNotAllowed
            } else {
                ReasonCode::OrderRateAboveLimit
            },
            observed: i64::from(count),
            limit: i64::from(limit),
        });
        if self.trace.is_some() {
            let rate = Some((count, limit));
            self.trace_cancel(alpha_index, &decision, reason, refusal, rate);
        }
        if let Some(Refusal {
            code,
            observed,
            limit,
        }) = refusal
        {
            self.counters.count_refusal(code);
            if self.alphas[alpha_index]
                .refusal_mut(order.side)
                .is_news(code, now_ns)
            {
                decision.verdict = REFUSED;
                decision.reason_code = u32::from(code.code());
                decision.observed = observed;
                decision.limit = limit;
                self.write(decision, out);
            }
            return;
        }
        if self.gateway.cancel(order_id) {
            self.assert_passes(Request::Cancel);
            self.watch.sent(order_id, true, now_ns);
            self.account_rate.push(now_ns);
            self.account.on_cancel();
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
        if self.trace.is_some() {
            let refusal = Refusal {
                code,
                observed: 0,
                limit: 0,
            };
            self.trace_cancel(alpha_index, &decision, reason, Some(refusal), None);
        }
        decision.verdict = REFUSED;
        decision.reason_code = u32::from(code.code());
        self.write(decision, out);
    }

    /// A decision with its cause, its alpha's state and neither action nor verdict.
    #[inline]
    fn blank_decision(&self, alpha_index: usize, cause: &RecordHeader) -> DecisionRecord {
        let mut decision = DecisionRecord::zeroed();
        let exposure = self.gateway.exposure(alpha_index);
        self.fill_blank(&mut decision, alpha_index, exposure, cause);
        decision
    }

    /// Fills a zeroed decision with its cause, its alpha's state and what its alpha has open.
    #[inline]
    fn fill_blank(
        &self,
        decision: &mut DecisionRecord,
        alpha_index: usize,
        exposure: Exposure,
        cause: &RecordHeader,
    ) {
        let alpha: &AlphaState = &self.alphas[alpha_index];
        let market = &self.markets[alpha.market_index];
        decision.mark_layout();
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
    }

    /// Numbers a decision and hands it out.
    #[inline]
    pub(super) fn write(&mut self, mut decision: DecisionRecord, out: &mut Vec<DecisionRecord>) {
        self.number(&mut decision);
        out.push(decision);
    }

    /// Numbers and counts a decision that has its verdict.
    #[inline]
    fn number(&mut self, decision: &mut DecisionRecord) {
        self.decision_seq += 1;
        decision.decision_seq = self.decision_seq;
        decision.header.source_seq = self.decision_seq;
        self.counters.decisions += 1;
        self.counters.approved += u64::from(decision.verdict == APPROVED);
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
pub(super) mod tests {
    use super::*;
    use crate::record::{BookRecord, BrokerRecord, SCALE};

    /// A config of one taker; its guard never speaks.
    pub(in crate::engine) const CONFIG: &str = r#"{"schema":1,
        "session":{"session_id":"s","trading_day":20260410,"phases":[{"start_ns":0,"end_ns":1000,"phase":"open"}]},
        "instruments":[{"instrument_id":1,"symbol":"X","tick_size":100000000,"lot_size":100000000,"multiplier":100000000,
            "limit_up":null,"limit_down":null,"order_qty_max":null,"banding_bps":null,"eligibility":"full","costs":{"kind":"value_bps","maker_bps":0,"taker_bps":0}}],
        "alphas":[{"alpha_index":0,"alpha_id":"a","instrument_id":1,"expression":"5","parameters":{},
            "template":{"kind":"taker","entry_ticks":1,"exit_ticks":0,"hold_ns":500,"slippage_ticks":0},
            "order_qty":100000000,"ttl_ns":1,"limits":{"order_qty_max":100000000,"position_qty_max":100000000,
            "daily_loss_max":100000000000,"drawdown_max":100000000000,"loss_speed_max":100000000000,"order_rate_max":9},"stage":"research",
            "weight_ppm":1000000,"expires_ns":1000,"promotion_seq":0,"config_sha256":"",
            "on_withdrawal":{"action":"flatten","deadline_ns":0}}],
        "account_limits":{"gross_notional_max":100000000000000,"net_notional_max":100000000000000,"position_lots_max":9,
            "daily_loss_max":100000000000,"drawdown_max":100000000000,"loss_speed_max":100000000000,
            "free_margin_min":null,"account_age_ns_max":60000000000,"order_rate_max":9,"cancel_reserve":1,
            "order_to_trade_max":9,"reject_rate_max":5,"unknown_rate_max":5,"one_side_fill_max":9,
            "price_collar_bps":500,"exit_collar_bps":500,"quote_age_ns_max":100,"clock_skew_ns_max":null,
            "repeated_order_max":9},
        "storm_guard":{"risk_capital":100000000,"drawdown_bps":{"warm_in":null,"warm_out":null,"storm_in":null,"storm_out":null,"halt_in":null,"halt_out":null},"feed_gap_ns":{"warm_in":null,"warm_out":null,"storm_in":null,"storm_out":null,"halt_in":null,"halt_out":null},"loop_lag_ns":{"warm_in":null,"warm_out":null,"storm_in":null,"storm_out":null,"halt_in":null,"halt_out":null},
            "order_rtt_ns":{"warm_in":null,"warm_out":null,"storm_in":null,"storm_out":null,"halt_in":null,"halt_out":null},"reject_count":{"warm_in":null,"warm_out":null,"storm_in":null,"storm_out":null,"halt_in":null,"halt_out":null},"drift_reports":{"warm_in":null,"warm_out":null,"storm_in":null,"storm_out":null,"halt_in":null,"halt_out":null},"feature_failures":{"warm_in":null,"warm_out":null,"storm_in":null,"storm_out":null,"halt_in":null,"halt_out":null},
            "normaliser_failures":{"warm_in":null,"warm_out":null,"storm_in":null,"storm_out":null,"halt_in":null,"halt_out":null},"open_grace_ns":0,"failure_window_ns":1,"clears":1,"cool_down_warm_ns":0,
            "cool_down_storm_ns":0,"hold_warm_ns":0,"hold_storm_ns":0,"resume_window_ns":1}}"#;

    fn feed<R: Record>(engine: &mut Engine, seq: u64, mut record: R) -> Vec<DecisionRecord> {
        record.header_mut().instrument_id = 1;
        record.header_mut().input_seq = seq;
        record.header_mut().sequence_time_ns = i64::try_from(seq).unwrap();
        let (header, mut out) = (*record.header(), Vec::new());
        engine.on_record(&header, record.as_bytes(), &mut out);
        out
    }

    fn exit(side: i64, price: i64, qty: i64) -> OrderIntent {
        OrderIntent {
            alpha_index: 0,
            market_index: 0,
            intent_id: 1,
            side,
            price,
            qty,
            time_in_force: 2,
            reason: IntentReason::Flatten,
            external_ttl_ns: None,
        }
    }

    /// An engine with a book of 1,000 / 1,002 whose config was changed.
    fn fitted(change: fn(&mut crate::engine::EngineConfig), side: i64, price: i64) -> (i64, i64) {
        let mut config: crate::engine::EngineConfig = serde_json::from_str(CONFIG).unwrap();
        change(&mut config);
        let mut engine = Engine::new(config).unwrap();
        let mut book = BookRecord::empty();
        (book.bid_price[0], book.bid_qty[0]) = (1_000 * SCALE, SCALE);
        (book.ask_price[0], book.ask_qty[0]) = (1_002 * SCALE, SCALE);
        feed(&mut engine, 1, book);
        let intent = engine.shape_exit(&exit(side, price * SCALE, 3 * SCALE + SCALE / 2));
        (intent.price / SCALE, intent.qty * 10 / SCALE)
    }

    #[test]
    fn an_exit_is_fitted_to_collar_band_daily_limit_cap_and_lots() {
        // 5 % beyond the best price on the other side, whole lots.
        assert_eq!(fitted(|_| (), -1, 500), (950, 30));
        assert_eq!(fitted(|_| (), 1, 9_000), (1_052, 30), "inside 1,052.1");
        assert_eq!(
            fitted(|_| (), -1, 999),
            (999, 30),
            "what fits is left alone"
        );
        assert_eq!(
            fitted(|_| (), -1, 5_000),
            (5_000, 30),
            "asking for more costs nothing"
        );
        assert_eq!(
            fitted(|c| c.instruments[0].banding_bps = Some(155), -1, 500),
            (986, 30),
            "1.55 % below the mid of 1,001 is 985.5"
        );
        let limits: fn(&mut crate::engine::EngineConfig) = |c| {
            (c.instruments[0].limit_down, c.instruments[0].limit_up) =
                (Some(990 * SCALE), Some(1_010 * SCALE));
        };
        assert_eq!(fitted(limits, -1, 500), (990, 30));
        assert_eq!(fitted(limits, 1, 9_000), (1_010, 30));
        assert_eq!(
            fitted(
                |c| c.instruments[0].order_qty_max = Some(2 * SCALE),
                -1,
                999
            ),
            (999, 20)
        );
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
