//! What a fill and the broker's answers change: positions, sums of the account, latches.

use super::Engine;
use crate::gateway::{LossLimits, Money, Order};
use crate::reason::ReasonCode;
use crate::record::{AccountRecord, BrokerEventKind, BrokerRecord, RecordHeader};

impl Engine {
    /// A fill belongs to the alpha whose intent made the order, whatever the other alphas hold.
    pub(super) fn take_fill(
        &mut self,
        alpha_index: usize,
        order: &Order,
        fill_qty: i64,
        record: &BrokerRecord,
        now_ns: i64,
    ) {
        let instrument = &self.markets[order.market_index].instrument;
        let alpha = &mut self.alphas[alpha_index];
        let is_maker = record.is_maker != 0;
        let filled = alpha.position.fill(
            order.side,
            record.price,
            fill_qty,
            instrument.multiplier,
            &instrument.costs,
            is_maker,
        );
        let Some(position) = filled else {
            return self.policy.halt(ReasonCode::ArithmeticOverflow, now_ns);
        };
        if fill_qty % instrument.lot_size != 0 {
            self.counters.count_broker(ReasonCode::OddLotFill);
        }
        if alpha.position.qty.signum() != position.qty.signum() {
            alpha.entry_ns = now_ns;
        }
        let (before, after) = (alpha.position.net(), position.net());
        alpha.set_position(position);
        alpha.marked_mid = None;
        alpha.fill_count += 1;
        let one_side_fill_max = self.config.account_limits.one_side_fill_max;
        alpha.count_fill(order.side, now_ns, one_side_fill_max);
        self.counters.fills += 1;
        self.account.on_fill(alpha_index, position.qty, now_ns);
        self.follow_result(before, after, now_ns);
        self.account.assert_sums(
            self.alphas.iter().map(|alpha| alpha.position.qty),
            self.gateway.open_orders(),
        );
    }

    /// What a report that does not fit says about what we know.
    pub(super) fn latch_odd_report(
        &mut self,
        record: &BrokerRecord,
        code: ReasonCode,
        now_ns: i64,
    ) {
        // A fill of an order we do not know is a position we do not know.
        let is_orphan_fill =
            code == ReasonCode::OrderUnknown && record.event_kind == BrokerEventKind::Fill as u32;
        // So is one that may or may not have been counted.
        if is_orphan_fill || code == ReasonCode::FillTooOld {
            self.policy.reduce_only(code, now_ns);
        }
        if code == ReasonCode::OverFill {
            self.policy.halt(code, now_ns);
        }
    }

    /// An alpha's net result changed: follows the account's.
    pub(super) fn follow_result(&mut self, before: Money, after: Money, now_ns: i64) {
        let limits = &self.config.account_limits;
        let limits = LossLimits {
            daily_loss_max: limits.daily_loss_max,
            drawdown_max: limits.drawdown_max,
            loss_speed_max: limits.loss_speed_max,
        };
        if let Err(code) = self.account.on_result(before, after, now_ns, &limits) {
            self.policy.halt(code, now_ns);
        }
    }

    /// Takes what the broker says about the account.
    ///
    /// # Errors
    /// The code of what is wrong with it; a position that does not agree is counted apart and is
    /// acted upon.
    pub(super) fn on_account(
        &mut self,
        header: &RecordHeader,
        record: &AccountRecord,
    ) -> Result<(), ReasonCode> {
        let market_index = match header.instrument_id {
            0 => None,
            instrument_id => Some(self.market_index(instrument_id)?),
        };
        let taken = self.account.on_answer(
            market_index,
            record,
            header.sequence_time_ns,
            self.gateway.open_orders(),
        );
        if taken == Err(ReasonCode::PositionUnreconciled) {
            self.counters.count_broker(ReasonCode::PositionUnreconciled);
            return Ok(());
        }
        taken
    }
}
