//! The account: what all alphas hold and have open together, what is external, what it earned.
//!
//! Why: every limit of the account is a sum over alphas, and a sum must not cost more late in a day
//! than early. So the sums are kept step by step, and summed again at every fill as a second path.
//!
//! Invariants:
//! 1. Account position = sum of the alphas' positions + external, for every instrument.
//! 2. Worst side of an instrument = sum over alphas of what each would hold with everything it has
//!    open on that side filled; nobody gets credit for another alpha's opposite position.
//! 3. Open value, gross and net value equal the sums over open orders and positions.
//! 4. A difference to the broker's net position that open orders cannot explain is unreconciled
//!    until it is gone or adopted.
//!
//! It decides nothing. Operator's page: `docs/risk.md`.

use super::{Money, ORDER_COUNT_MAX, Order};
use crate::book::VALUE_MAX;
use crate::costs::notional;
use crate::reason::ReasonCode;
use crate::record::{AccountRecord, account_fields};
use crate::risk::LossWindow;

/// Above every limit, and far enough from the end of [`Money`] for sums of what is bounded.
const VALUE_ABSURD: Money = Money::MAX >> 16;
/// Buy and sell.
const SIDES: [i64; 2] = [1, -1];

fn place_of(side: i64) -> usize {
    usize::from(side < 0)
}

/// A signed amount as `side` sees it: a negation costs less than a product of 128 bits.
#[inline]
fn toward(amount: i128, side: i64) -> i128 {
    if side > 0 { amount } else { -amount }
}

/// An exit that waits for our own resting order in its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitingExit {
    /// Whose.
    pub alpha_index: usize,
    /// +1 buy, -1 sell.
    pub side: i64,
    /// Its limit price.
    pub price: i64,
}

/// What one alpha holds and has open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Holding {
    market_index: usize,
    position_qty: i64,
    /// Open buy and sell quantity.
    open_qty: [i64; 2],
    open_count: usize,
}

impl Holding {
    /// What it would hold on `side` with its open orders there and `more` filled.
    fn worst(&self, side: i64, more: i64) -> i128 {
        let held = toward(i128::from(self.position_qty), side);
        (held + i128::from(self.open_qty[place_of(side)]) + i128::from(more)).max(0)
    }
}

/// What all alphas hold and have open in one instrument.
#[derive(Debug, Clone, Copy)]
struct MarketSums {
    multiplier: i64,
    position_qty: i128,
    position_abs_qty: i128,
    worst_qty: [i128; 2],
    open_qty: [i128; 2],
    open_count: [u32; 2],
    /// Adopted position that is not ours.
    external_qty: i64,
    /// Difference to the broker that nothing explains.
    unexplained_qty: i64,
    last_fill_ns: Option<i64>,
    /// Last good mid.
    mark_price: Option<i64>,
    /// Gross and signed net value of the position at `mark_price`; `Err` says why it has none.
    value: Result<(Money, Money), ReasonCode>,
    /// A position or its mark changed since it was valued.
    is_dirty: bool,
    margin_per_lot: Option<i64>,
    waiting_exit: Option<WaitingExit>,
}

impl Default for MarketSums {
    fn default() -> Self {
        Self {
            multiplier: 0,
            position_qty: 0,
            position_abs_qty: 0,
            worst_qty: [0; 2],
            open_qty: [0; 2],
            open_count: [0; 2],
            external_qty: 0,
            unexplained_qty: 0,
            last_fill_ns: None,
            mark_price: None,
            value: Ok((0, 0)),
            is_dirty: false,
            margin_per_lot: None,
            waiting_exit: None,
        }
    }
}

impl MarketSums {
    /// Replaces a holding by what it became.
    #[inline]
    fn replace(&mut self, before: &Holding, after: &Holding) {
        let change = |from: i64, to: i64| i128::from(to) - i128::from(from);
        let is_moved = before.position_qty != after.position_qty;
        if is_moved {
            self.position_qty += change(before.position_qty, after.position_qty);
            self.position_abs_qty +=
                i128::from(after.position_qty).abs() - i128::from(before.position_qty).abs();
        }
        for side in SIDES {
            let place = place_of(side);
            if !is_moved && before.open_qty[place] == after.open_qty[place] {
                continue;
            }
            self.worst_qty[place] += after.worst(side, 0) - before.worst(side, 0);
            self.open_qty[place] += change(before.open_qty[place], after.open_qty[place]);
        }
    }

    fn gross_qty(&self) -> i128 {
        self.position_abs_qty + self.outside_qty().abs()
    }

    /// Gross and signed net value at the mark.
    fn value_now(&self) -> Result<(Money, Money), ReasonCode> {
        let (gross_qty, net_qty) = (self.gross_qty(), self.position_qty + self.outside_qty());
        if gross_qty == 0 {
            return Ok((0, 0));
        }
        let price = self.mark_price.ok_or(ReasonCode::ReferenceMissing)?;
        let value = |qty: i128| {
            i64::try_from(qty.abs())
                .ok()
                .and_then(|qty| notional(price, qty, self.multiplier))
                .filter(|value| *value < VALUE_ABSURD)
                .ok_or(ReasonCode::ArithmeticOverflow)
        };
        let gross = value(gross_qty)?;
        let net = if net_qty.abs() == gross_qty {
            gross
        } else {
            value(net_qty)?
        };
        Ok((gross, net * net_qty.signum()))
    }

    fn outside_qty(&self) -> i128 {
        i128::from(self.external_qty) + i128::from(self.unexplained_qty)
    }
}

/// The broker's last answer about margin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct MarginAnswer {
    free: i64,
    equity: i64,
    answer_time_ns: i64,
}

/// Sums of the account.
#[derive(Debug, Clone)]
pub struct Account {
    holdings: Box<[Holding]>,
    markets: Box<[MarketSums]>,
    lot_sizes: Box<[i64]>,
    /// Price at which an open order is valued, by the order's slot.
    value_prices: Box<[i64]>,
    /// Its value there, 0 when it is done.
    values: Box<[Money]>,
    open_value: [Money; 2],
    gross_value: Money,
    net_value: Money,
    /// Instruments that must be valued again.
    dirty: Vec<usize>,
    /// Instruments with a position that cannot be valued.
    fault_count: usize,
    unreconciled_count: usize,
    margin: Option<MarginAnswer>,
    /// Margin of orders that the last answer cannot know.
    margin_committed: Money,
    request_count: u64,
    fill_count: u64,
    net_pnl: Money,
    peak: Money,
    loss_window: LossWindow,
    loss_speed: Money,
    loss_latch: Option<ReasonCode>,
    is_latch_noted: bool,
}

/// Limits on the account's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LossLimits {
    /// Largest loss of the session.
    pub daily_loss_max: i64,
    /// Largest fall from the best result.
    pub drawdown_max: i64,
    /// Largest fall within the loss window.
    pub loss_speed_max: i64,
}

fn slot_of(order: &Order) -> usize {
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the mask is far below usize"
    )]
    let slot = ((order.order_id - 1) & (ORDER_COUNT_MAX as u64 - 1)) as usize;
    slot
}

fn open_qty_of(order: &Order) -> i64 {
    if order.state.is_open() {
        order.remaining_qty()
    } else {
        0
    }
}

impl Account {
    /// An empty account; `alpha_markets` names the market of every alpha, `markets` multiplier and
    /// lot size of every instrument.
    #[must_use]
    pub fn new(alpha_markets: &[usize], markets: &[(i64, i64)]) -> Self {
        let holding = |market_index: &usize| Holding {
            market_index: *market_index,
            ..Holding::default()
        };
        let sums = |market: &(i64, i64)| MarketSums {
            multiplier: market.0,
            ..MarketSums::default()
        };
        Self {
            holdings: alpha_markets.iter().map(holding).collect(),
            markets: markets.iter().map(sums).collect(),
            lot_sizes: markets.iter().map(|market| market.1).collect(),
            value_prices: vec![0; ORDER_COUNT_MAX].into_boxed_slice(),
            values: vec![0; ORDER_COUNT_MAX].into_boxed_slice(),
            open_value: [0; 2],
            gross_value: 0,
            net_value: 0,
            dirty: Vec::with_capacity(markets.len()),
            fault_count: 0,
            unreconciled_count: 0,
            margin: None,
            margin_committed: 0,
            request_count: 0,
            fill_count: 0,
            net_pnl: 0,
            peak: 0,
            loss_window: LossWindow::default(),
            loss_speed: 0,
            loss_latch: None,
            is_latch_noted: false,
        }
    }

    /// Lets `change` work on a holding and carries the difference into its market's sums.
    fn change_holding(&mut self, alpha_index: usize, change: impl FnOnce(&mut Holding)) -> usize {
        let market_index = self.holdings[alpha_index].market_index;
        let sums = &mut self.markets[market_index];
        let before = self.holdings[alpha_index];
        change(&mut self.holdings[alpha_index]);
        sums.replace(&before, &self.holdings[alpha_index]);
        market_index
    }

    /// An approved order is open from here on; `margin` is what it may bind.
    pub fn on_placed(&mut self, order: &Order, margin: Money) {
        let place = place_of(order.side);
        let mark_price = self.markets[order.market_index].mark_price;
        let value_price = mark_price.map_or(order.price, |mark| mark.max(order.price));
        self.value_prices[slot_of(order)] = value_price;
        let multiplier = self.markets[order.market_index].multiplier;
        let value = order_value(value_price, order.remaining_qty(), multiplier);
        self.values[slot_of(order)] = value;
        self.open_value[place] += value;
        self.markets[order.market_index].open_count[place] += 1;
        self.change_holding(order.alpha_index as usize, |holding| {
            holding.open_qty[place] += order.remaining_qty();
            holding.open_count += 1;
        });
        self.margin_committed = self.margin_committed.saturating_add(margin);
        self.request_count += 1;
    }

    /// A cancel was sent.
    pub fn on_cancel(&mut self) {
        self.request_count += 1;
    }

    /// An order changed from `before` to `after`.
    pub fn on_order(&mut self, before: &Order, after: &Order) {
        let (qty_before, qty_after) = (open_qty_of(before), open_qty_of(after));
        let is_done = before.state.is_open() && !after.state.is_open();
        if qty_before == qty_after && !is_done {
            return;
        }
        let place = place_of(after.side);
        let multiplier = self.markets[after.market_index].multiplier;
        let value_price = self.value_prices[slot_of(after)];
        let value = if qty_after == 0 {
            0
        } else {
            order_value(value_price, qty_after, multiplier)
        };
        self.open_value[place] +=
            value - std::mem::replace(&mut self.values[slot_of(after)], value);
        if is_done {
            self.markets[after.market_index].open_count[place] -= 1;
        }
        self.change_holding(after.alpha_index as usize, |holding| {
            holding.open_qty[place] += qty_after - qty_before;
            holding.open_count -= usize::from(is_done);
        });
    }

    /// An alpha's position is now `position_qty`.
    pub fn on_fill(&mut self, alpha_index: usize, position_qty: i64, now_ns: i64) {
        let market_index =
            self.change_holding(alpha_index, |holding| holding.position_qty = position_qty);
        self.markets[market_index].last_fill_ns = Some(now_ns);
        self.fill_count += 1;
        self.mark_dirty(market_index);
    }

    fn mark_dirty(&mut self, market_index: usize) {
        if !std::mem::replace(&mut self.markets[market_index].is_dirty, true) {
            self.dirty.push(market_index);
        }
    }

    /// The instrument's last good mid; costs a compare unless a position must be valued again.
    pub fn mark(&mut self, market_index: usize, mid: i64) {
        let sums = &mut self.markets[market_index];
        if sums.mark_price == Some(mid) {
            return;
        }
        sums.mark_price = Some(mid);
        if sums.gross_qty() != 0 {
            self.mark_dirty(market_index);
        }
    }

    /// Values again what changed since the last time: every instrument at most once.
    pub fn settle(&mut self) {
        while let Some(market_index) = self.dirty.pop() {
            let sums = &mut self.markets[market_index];
            let (before, after) = (sums.value, sums.value_now());
            sums.is_dirty = false;
            sums.value = after;
            self.fault_count -= usize::from(before.is_err());
            self.fault_count += usize::from(after.is_err());
            let (gross_before, net_before) = before.unwrap_or_default();
            let (gross, net) = after.unwrap_or_default();
            self.gross_value += gross - gross_before;
            self.net_value += net - net_before;
        }
    }

    fn fault(&self) -> Option<ReasonCode> {
        if self.fault_count == 0 {
            return None;
        }
        self.markets.iter().find_map(|sums| sums.value.err())
    }

    /// Gross value of all positions and open orders with an order more, and net value on its side
    /// with every open order there filled as well; call [`Self::settle`] first.
    ///
    /// # Errors
    /// The code of what is missing or out of range.
    pub fn values_with(
        &self,
        market_index: usize,
        side: i64,
        price: i64,
        qty: i64,
    ) -> Result<(Money, Money), ReasonCode> {
        if let Some(code) = self.fault() {
            return Err(code);
        }
        let value = self.value_of(market_index, price, qty)?;
        let open = self.open_value[place_of(side)];
        let gross = open.checked_add(self.open_value[place_of(-side)]);
        let gross = gross
            .and_then(|open| open.checked_add(self.gross_value))
            .and_then(|sum| sum.checked_add(value));
        let net = toward(self.net_value, side)
            .checked_add(open)
            .and_then(|sum| sum.checked_add(value));
        gross.zip(net).ok_or(ReasonCode::ArithmeticOverflow)
    }

    /// An order is worth what it can cost: its price, or the mark when that is higher.
    fn value_of(&self, market_index: usize, price: i64, qty: i64) -> Result<Money, ReasonCode> {
        let sums = &self.markets[market_index];
        let price = sums.mark_price.map_or(price, |mark| mark.max(price));
        notional(price, qty, sums.multiplier).ok_or(ReasonCode::ArithmeticOverflow)
    }

    /// Worst position of the account on `side` with `qty` more open for this alpha.
    #[must_use]
    pub fn worst_with(&self, alpha_index: usize, side: i64, qty: i64) -> i128 {
        let holding = &self.holdings[alpha_index];
        let sums = &self.markets[holding.market_index];
        let outside = toward(sums.outside_qty(), side).max(0);
        sums.worst_qty[place_of(side)] - holding.worst(side, 0) + holding.worst(side, qty) + outside
    }

    /// Free margin behind an order of `qty` at `now_ns`, given how old an answer may be.
    ///
    /// # Errors
    /// [`ReasonCode::MarginUnknown`] when there is no answer, or none young enough.
    pub fn free_margin_with(
        &self,
        market_index: usize,
        qty: i64,
        now_ns: i64,
        age_ns_max: i64,
    ) -> Result<Money, ReasonCode> {
        let answer = self.margin.ok_or(ReasonCode::MarginUnknown)?;
        if !(0..=age_ns_max).contains(&now_ns.saturating_sub(answer.answer_time_ns)) {
            return Err(ReasonCode::MarginUnknown);
        }
        let need = self
            .margin_of(market_index, qty)
            .ok_or(ReasonCode::MarginUnknown)?;
        i128::from(answer.free)
            .checked_sub(self.margin_committed)
            .and_then(|free| free.checked_sub(need))
            .ok_or(ReasonCode::ArithmeticOverflow)
    }

    /// Margin that an order of `qty` may bind; `None` when the broker has not said.
    #[must_use]
    pub fn margin_of(&self, market_index: usize, qty: i64) -> Option<Money> {
        let per_lot = self.markets[market_index].margin_per_lot?;
        let lot_size = i128::from(self.lot_sizes[market_index]);
        let lots = (i128::from(qty) + lot_size - 1) / lot_size;
        lots.checked_mul(i128::from(per_lot))
    }

    /// Age of the last margin answer; `None` before the first.
    #[must_use]
    pub fn margin_age_ns(&self, now_ns: i64) -> Option<i64> {
        self.margin
            .map(|answer| now_ns.saturating_sub(answer.answer_time_ns))
    }

    /// Takes the broker's answer; `market_index` is the header's instrument, if it names one.
    ///
    /// # Errors
    /// What is wrong with it. A position that no order in flight explains is
    /// [`ReasonCode::PositionUnreconciled`], one older than our last fill
    /// [`ReasonCode::OutOfOrderRow`]; the margin part is taken in both cases.
    pub fn on_answer<'a>(
        &mut self,
        market_index: Option<usize>,
        record: &AccountRecord,
        now_ns: i64,
        open_orders: impl Iterator<Item = &'a Order>,
    ) -> Result<(), ReasonCode> {
        use account_fields::{MARGIN, MARGIN_PER_LOT, POSITION};
        let has = |field: u64| record.fields & field != 0;
        if record.fields == 0 || record.fields & !(MARGIN | MARGIN_PER_LOT | POSITION) != 0 {
            return Err(ReasonCode::SchemaMismatch);
        }
        if record.answer_time_ns > now_ns {
            return Err(ReasonCode::ClockSkewAboveLimit);
        }
        let needs_market = has(MARGIN_PER_LOT) || has(POSITION);
        let market_index = match market_index {
            Some(market_index) => market_index,
            None if needs_market => return Err(ReasonCode::UnknownInstrument),
            None => 0,
        };
        let is_absurd = record.net_position_qty.unsigned_abs() > VALUE_MAX.unsigned_abs();
        if (has(MARGIN_PER_LOT) && record.margin_per_lot <= 0) || (has(POSITION) && is_absurd) {
            return Err(ReasonCode::ValueOutOfRange);
        }
        if has(MARGIN_PER_LOT) {
            self.markets[market_index].margin_per_lot = Some(record.margin_per_lot);
        }
        let is_newer = self
            .margin
            .is_none_or(|known| known.answer_time_ns <= record.answer_time_ns);
        if has(MARGIN) && is_newer {
            self.margin = Some(MarginAnswer {
                free: record.free_margin,
                equity: record.equity,
                answer_time_ns: record.answer_time_ns,
            });
            // What is open may or may not be in the answer; counting it again errs to the safe side.
            self.margin_committed = 0;
            for order in open_orders {
                let margin = self.margin_of(order.market_index, order.remaining_qty());
                self.margin_committed = self.margin_committed.saturating_add(margin.unwrap_or(0));
            }
        }
        if has(POSITION) {
            return self.reconcile(market_index, record);
        }
        Ok(())
    }

    fn reconcile(&mut self, market_index: usize, record: &AccountRecord) -> Result<(), ReasonCode> {
        let sums = &mut self.markets[market_index];
        if sums
            .last_fill_ns
            .is_some_and(|fill_ns| fill_ns >= record.answer_time_ns)
        {
            return Err(ReasonCode::OutOfOrderRow);
        }
        let difference =
            i128::from(record.net_position_qty) - sums.position_qty - i128::from(sums.external_qty);
        let in_flight = -sums.open_qty[1]..=sums.open_qty[0];
        if difference != 0 && in_flight.contains(&difference) {
            // A fill may be on its way to us; a later answer will tell.
            return Ok(());
        }
        let unexplained_qty = i64::try_from(difference).map_err(|_| ReasonCode::ValueOutOfRange)?;
        let is_unreconciled = unexplained_qty != 0;
        self.unreconciled_count -= usize::from(sums.unexplained_qty != 0);
        self.unreconciled_count += usize::from(is_unreconciled);
        sums.unexplained_qty = unexplained_qty;
        self.mark_dirty(market_index);
        if is_unreconciled {
            Err(ReasonCode::PositionUnreconciled)
        } else {
            Ok(())
        }
    }

    /// Takes the unexplained part of a position as external; `qty` must repeat it.
    ///
    /// # Errors
    /// [`ReasonCode::PositionUnreconciled`] when there is none or it is another one.
    pub fn adopt(&mut self, market_index: usize, qty: i64) -> Result<(), ReasonCode> {
        let sums = &mut self.markets[market_index];
        if sums.unexplained_qty == 0 || sums.unexplained_qty != qty {
            return Err(ReasonCode::PositionUnreconciled);
        }
        let external_qty = sums.external_qty.checked_add(qty);
        sums.external_qty = external_qty.ok_or(ReasonCode::ValueOutOfRange)?;
        sums.unexplained_qty = 0;
        self.unreconciled_count -= 1;
        Ok(())
    }

    /// Unexplained part of the first unreconciled instrument, `None` when all agree.
    #[must_use]
    pub fn unexplained_qty(&self) -> Option<i64> {
        if self.unreconciled_count == 0 {
            return None;
        }
        let mut unexplained = self.markets.iter().map(|sums| sums.unexplained_qty);
        unexplained.find(|qty| *qty != 0)
    }

    /// Position of the account: sum of the alphas' and the external part, explained or not.
    #[must_use]
    pub fn position_qty(&self, market_index: usize) -> i128 {
        let sums = &self.markets[market_index];
        sums.position_qty + sums.outside_qty()
    }

    /// Part of it that is not ours.
    #[must_use]
    pub fn external_qty(&self, market_index: usize) -> i128 {
        self.markets[market_index].outside_qty()
    }

    /// Part of it that an operator adopted.
    #[must_use]
    pub fn adopted_qty(&self, market_index: usize) -> i64 {
        self.markets[market_index].external_qty
    }

    /// Money of the account by the broker's last answer.
    #[must_use]
    pub fn equity(&self) -> Option<i64> {
        self.margin.map(|answer| answer.equity)
    }

    /// Open orders of an alpha.
    #[must_use]
    pub fn open_count(&self, alpha_index: usize) -> usize {
        self.holdings[alpha_index].open_count
    }

    /// Open orders of all alphas on one side of an instrument.
    #[must_use]
    pub fn open_count_on(&self, market_index: usize, side: i64) -> u32 {
        self.markets[market_index].open_count[place_of(side)]
    }

    /// Requests and fills of the session.
    #[must_use]
    pub fn requests_and_fills(&self) -> (u64, u64) {
        (self.request_count, self.fill_count)
    }

    /// The exit that waits in an instrument.
    #[must_use]
    pub fn waiting_exit(&self, market_index: usize) -> Option<WaitingExit> {
        self.markets[market_index].waiting_exit
    }

    /// An exit begins to wait; the first one keeps its turn.
    pub fn wait_exit(&mut self, market_index: usize, exit: WaitingExit) {
        let waiting = &mut self.markets[market_index].waiting_exit;
        *waiting = waiting.or(Some(exit));
    }

    /// The alpha decides anew: it no longer waits.
    pub fn clear_exit(&mut self, market_index: usize, alpha_index: usize) {
        let waiting = &mut self.markets[market_index].waiting_exit;
        if waiting.is_some_and(|exit| exit.alpha_index == alpha_index) {
            *waiting = None;
        }
    }

    /// An alpha's net result went from `before` to `after`; latches a limit that this reached.
    ///
    /// # Errors
    /// [`ReasonCode::ArithmeticOverflow`] when the sum leaves its range.
    pub fn on_result(
        &mut self,
        before: Money,
        after: Money,
        now_ns: i64,
        limits: &LossLimits,
    ) -> Result<(), ReasonCode> {
        let change = after.checked_sub(before);
        let net = change.and_then(|change| self.net_pnl.checked_add(change));
        self.net_pnl = net.ok_or(ReasonCode::ArithmeticOverflow)?;
        self.peak = self.peak.max(self.net_pnl);
        self.loss_speed = self.loss_window.fall(self.net_pnl, now_ns);
        if self.loss_latch.is_none() {
            self.loss_latch = if self.net_pnl.saturating_neg() >= i128::from(limits.daily_loss_max)
            {
                Some(ReasonCode::AccountDailyLossReached)
            } else if self.drawdown() >= i128::from(limits.drawdown_max) {
                Some(ReasonCode::AccountDrawdownReached)
            } else if self.loss_speed >= i128::from(limits.loss_speed_max) {
                Some(ReasonCode::AccountLossSpeedReached)
            } else {
                None
            };
        }
        Ok(())
    }

    /// Net result of all alphas.
    #[must_use]
    pub fn net_pnl(&self) -> Money {
        self.net_pnl
    }

    /// Fall from the best result.
    #[must_use]
    pub fn drawdown(&self) -> Money {
        self.peak.saturating_sub(self.net_pnl)
    }

    /// Fall within the loss window, at the last change.
    #[must_use]
    pub fn loss_speed(&self) -> Money {
        self.loss_speed
    }

    /// A loss limit of the account that the log says was reached.
    pub fn restore_loss_latch(&mut self, code: Option<ReasonCode>) {
        self.loss_latch = self.loss_latch.or(code);
        self.is_latch_noted = self.loss_latch.is_some();
    }

    /// The loss limit that was reached and is not in the log yet.
    pub fn take_unnoted_latch(&mut self) -> Option<ReasonCode> {
        if self.is_latch_noted || self.loss_latch.is_none() {
            return None;
        }
        self.is_latch_noted = true;
        self.loss_latch
    }

    /// Why the account's result stopped every alpha.
    #[must_use]
    pub fn loss_latch(&self) -> Option<ReasonCode> {
        self.loss_latch
    }

    /// The second path of invariants 1 to 3: sums again what was added step by step.
    pub fn assert_sums<'a>(
        &self,
        positions: impl Iterator<Item = i64>,
        open_orders: impl Iterator<Item = &'a Order>,
    ) {
        for (holding, position_qty) in self.holdings.iter().zip(positions) {
            assert!(
                holding.position_qty == position_qty,
                "Invariant: the account knows every alpha's position"
            );
        }
        let mut open_value = [0; 2];
        let mut open_qty = [0_i128; 2];
        for order in open_orders {
            let place = place_of(order.side);
            let multiplier = self.markets[order.market_index].multiplier;
            open_value[place] += order_value(
                self.value_prices[slot_of(order)],
                order.remaining_qty(),
                multiplier,
            );
            open_qty[place] += i128::from(order.remaining_qty());
        }
        assert!(
            open_value == self.open_value,
            "Invariant: open value is the sum over open orders"
        );
        let (mut sums, nothing) = (MarketSums::default(), Holding::default());
        self.holdings
            .iter()
            .for_each(|holding| sums.replace(&nothing, holding));
        let total = |take: fn(&MarketSums) -> i128| self.markets.iter().map(take).sum::<i128>();
        assert!(
            sums.open_qty == open_qty,
            "Invariant: open quantity is the sum over open orders"
        );
        assert!(
            sums.position_qty == total(|market| market.position_qty),
            "Invariant: account position is the sum of the alphas' positions"
        );
        assert!(
            sums.worst_qty[0] == total(|market| market.worst_qty[0])
                && sums.worst_qty[1] == total(|market| market.worst_qty[1]),
            "Invariant: worst sides are the sums over alphas"
        );
        let values = self.markets.iter().filter_map(|market| market.value.ok());
        let (gross, net) = values.fold((0, 0), |sum, value| (sum.0 + value.0, sum.1 + value.1));
        assert!(
            gross == self.gross_value && net == self.net_value,
            "Invariant: position value is the sum over instruments"
        );
    }
}

/// Value of an open order; one that cannot be computed is above every limit.
fn order_value(price: i64, qty: i64, multiplier: i64) -> Money {
    notional(price, qty, multiplier).map_or(VALUE_ABSURD, |value| value.min(VALUE_ABSURD))
}

#[cfg(test)]
mod tests;
