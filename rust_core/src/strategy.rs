//! Strategy templates: signal, position and book become wishes.
//!
//! Why: an alpha says how far the price will move; these two templates say what to do about it.
//!
//! Invariants:
//! 1. A signal that is NaN places nothing; a maker takes its quotes back.
//! 2. Each side has at most one order; a new price is placed after the old order is gone.
//! 3. A maker's price is on the tick grid, does not reach the opposite best, and lies within the
//!    levels shown when all five are in use.
//! 4. An order that leaves a position is never larger than what is left of it.
//!
//! It checks no limit but its own position; `risk` does. Operator's page: `docs/strategies.md`.

use crate::book::{Book, Side};
use crate::engine::Template;
use crate::gateway::{Order, OrderState};
use crate::record::{IntentReason, LEVEL_COUNT};

/// Rest of day.
pub const REST_OF_DAY: u32 = 1;
/// Immediate or cancel.
pub const IMMEDIATE_OR_CANCEL: u32 = 2;
/// Fill or kill.
pub const FILL_OR_KILL: u32 = 3;
/// Open orders an alpha may have; a template needs four.
pub const OWN_ORDER_COUNT_MAX: usize = 8;
/// Wishes of one decision: every own order canceled and both sides quoted.
pub const WISH_COUNT_MAX: usize = OWN_ORDER_COUNT_MAX + 2;
/// Prices beyond this many ticks are not prices.
const TICKS_MAX: f64 = 1e15;

/// What the alpha may do now, mildest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// Everything.
    Normal,
    /// Leave the position by the template's own rules, open nothing.
    ReduceOnly,
    /// Take orders back and keep the position.
    Hold,
    /// Take orders back and close the position.
    Flatten,
}

/// What a template looks at.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Engine time.
    pub now_ns: i64,
    /// The instrument's book.
    pub book: &'a Book,
    /// False when no order may be based on the book.
    pub is_tradable: bool,
    /// Ticks of expected move, or NaN.
    pub signal: f64,
    /// Signed position.
    pub position_qty: i64,
    /// When the position was entered.
    pub entry_ns: i64,
    /// One clip at the current weight.
    pub clip_qty: i64,
    /// Largest position at the current weight.
    pub position_qty_max: i64,
    /// Largest order.
    pub order_qty_max: i64,
    /// Tick size.
    pub tick_size: i64,
    /// Lot size.
    pub lot_size: i64,
    /// Highest allowed price.
    pub limit_up: Option<i64>,
    /// Lowest allowed price.
    pub limit_down: Option<i64>,
    /// What is allowed.
    pub mode: Mode,
    /// Reason to give when `mode` takes orders back.
    pub cancel_reason: IntentReason,
}

/// One thing a template wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// A new order.
    Place {
        /// +1 buy, -1 sell.
        side: i64,
        /// Limit price.
        price: i64,
        /// Quantity; 0 when the weight leaves less than one lot, for `risk` to say so.
        qty: i64,
        /// [`REST_OF_DAY`] or [`IMMEDIATE_OR_CANCEL`].
        time_in_force: u32,
        /// Why.
        reason: IntentReason,
    },
    /// Take an order back.
    Cancel {
        /// Which.
        order_id: u64,
        /// Why.
        reason: IntentReason,
    },
}

/// Appends what the template wants now, given its open orders: at most [`WISH_COUNT_MAX`].
pub fn wish(template: &Template, view: &View<'_>, orders: &[Order], out: &mut Vec<Wish>) {
    if view.mode >= Mode::Hold {
        cancel_all(view, orders, out);
        if view.mode == Mode::Flatten {
            flatten(template, view, orders, out);
        }
        // A taker that may not enter still says what it would have done; `risk` answers why not.
        if view.position_qty != 0 {
            return;
        }
    }
    match *template {
        Template::Taker {
            entry_ticks,
            exit_ticks,
            hold_ns,
            slippage_ticks,
        } => {
            taker(
                view,
                orders,
                &TakerRule {
                    entry_ticks,
                    exit_ticks,
                    hold_ns,
                    slippage_ticks,
                },
                out,
            );
        }
        Template::Maker {
            half_spread_ticks,
            requote_ticks,
            signal_skew,
            inventory_skew_ticks,
        } if view.mode < Mode::Hold => {
            let rule = MakerRule {
                half_spread_ticks,
                requote_ticks,
                signal_skew,
                inventory_skew_ticks,
            };
            maker(view, orders, &rule, out);
        }
        // Its intents come as records.
        Template::Maker { .. } | Template::External { .. } => {}
    }
}

fn cancel_all(view: &View<'_>, orders: &[Order], out: &mut Vec<Wish>) {
    for order in orders.iter().filter(|order| is_cancelable(order)) {
        out.push(Wish::Cancel {
            order_id: order.order_id,
            reason: view.cancel_reason,
        });
    }
}

fn is_cancelable(order: &Order) -> bool {
    order.state == OrderState::Working && order.time_in_force == REST_OF_DAY
}

/// Quantity that still has to go, less what open orders on that side may already take.
fn left_to_close(view: &View<'_>, orders: &[Order]) -> i64 {
    let side = -view.position_qty.signum();
    let on_the_way: i64 = orders
        .iter()
        .filter(|order| order.side == side)
        .map(Order::remaining_qty)
        .sum();
    (view.position_qty.abs() - on_the_way).clamp(0, view.order_qty_max)
}

/// Best opposite price moved by `slippage_ticks` and kept within the daily limits.
fn crossing_price(view: &View<'_>, side: i64, slippage_ticks: i64) -> Option<i64> {
    let best = if side > 0 {
        view.book.best_ask()
    } else {
        view.book.best_bid()
    };
    if best <= 0 {
        return None;
    }
    let moved = best.checked_add(
        slippage_ticks
            .checked_mul(view.tick_size)?
            .checked_mul(side)?,
    )?;
    let within = if side > 0 {
        view.limit_up.map_or(moved, |limit| moved.min(limit))
    } else {
        view.limit_down.map_or(moved, |limit| moved.max(limit))
    };
    Some(within.max(view.tick_size))
}

fn close_position(
    view: &View<'_>,
    orders: &[Order],
    slippage_ticks: i64,
    reason: IntentReason,
    out: &mut Vec<Wish>,
) {
    let side = -view.position_qty.signum();
    let qty = left_to_close(view, orders);
    if let Some(price) = crossing_price(view, side, slippage_ticks).filter(|_| qty > 0) {
        out.push(Wish::Place {
            side,
            price,
            qty,
            time_in_force: IMMEDIATE_OR_CANCEL,
            reason,
        });
    }
}

fn flatten(template: &Template, view: &View<'_>, orders: &[Order], out: &mut Vec<Wish>) {
    // Resting orders go first; one whose outcome is unknown does not hold the exit up.
    if view.position_qty == 0
        || orders
            .iter()
            .any(|order| order.state != OrderState::Unknown)
    {
        return;
    }
    let slippage_ticks = match template {
        Template::Taker { slippage_ticks, .. } | Template::External { slippage_ticks } => {
            *slippage_ticks
        }
        Template::Maker { .. } => 0,
    };
    close_position(view, orders, slippage_ticks, IntentReason::Flatten, out);
}

/// Numbers of [`Template::Taker`].
struct TakerRule {
    entry_ticks: f64,
    exit_ticks: f64,
    hold_ns: i64,
    slippage_ticks: i64,
}

fn taker(view: &View<'_>, orders: &[Order], rule: &TakerRule, out: &mut Vec<Wish>) {
    if view.position_qty == 0 {
        if !orders.is_empty() || view.signal.is_nan() || view.signal.abs() < rule.entry_ticks {
            return;
        }
        let side = if view.signal > 0.0 { 1 } else { -1 };
        if let Some(price) = crossing_price(view, side, rule.slippage_ticks) {
            let reason = IntentReason::Entry;
            out.push(Wish::Place {
                side,
                price,
                qty: view.clip_qty,
                time_in_force: IMMEDIATE_OR_CANCEL,
                reason,
            });
        }
        return;
    }
    if orders
        .iter()
        .any(|order| order.state != OrderState::Unknown)
    {
        return;
    }
    let is_over = view.now_ns.saturating_sub(view.entry_ns) >= rule.hold_ns;
    let toward = if view.position_qty > 0 {
        view.signal
    } else {
        -view.signal
    };
    // A NaN signal is no reason to leave: the holding time is.
    if is_over || toward <= rule.exit_ticks {
        close_position(view, orders, rule.slippage_ticks, IntentReason::Exit, out);
    }
}

/// Numbers of [`Template::Maker`].
struct MakerRule {
    half_spread_ticks: f64,
    requote_ticks: f64,
    signal_skew: f64,
    inventory_skew_ticks: f64,
}

fn maker(view: &View<'_>, orders: &[Order], rule: &MakerRule, out: &mut Vec<Wish>) {
    let center = center_ticks(view, rule);
    for side in [1, -1] {
        let wanted = center.and_then(|center| quote_price(view, rule, center, side));
        let wanted_qty = quote_qty(view, side);
        let Some(order) = orders.iter().find(|order| order.side == side) else {
            if let (Some(price), Some(qty)) = (wanted, wanted_qty) {
                let reason = IntentReason::Quote;
                out.push(Wish::Place {
                    side,
                    price,
                    qty,
                    time_in_force: REST_OF_DAY,
                    reason,
                });
            }
            continue;
        };
        if !is_cancelable(order) {
            continue;
        }
        let is_kept = wanted.is_some_and(|price| {
            wanted_qty.is_some()
                && order.remaining_qty() <= room_qty(view, side)
                && is_shown(view.book, side, order.price)
                && float(price - order.price).abs() < rule.requote_ticks * float(view.tick_size)
        });
        if !is_kept {
            let reason = if view.mode == Mode::Normal {
                IntentReason::Requote
            } else {
                view.cancel_reason
            };
            out.push(Wish::Cancel {
                order_id: order.order_id,
                reason,
            });
        }
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "prices in ticks and clips are small; money is not computed here"
)]
fn float(value: i64) -> f64 {
    value as f64
}

/// Middle of the quotes in ticks; `None` when nothing may be quoted.
fn center_ticks(view: &View<'_>, rule: &MakerRule) -> Option<f64> {
    let is_usable = view.is_tradable && view.signal.is_finite();
    let mid = view.book.mid().filter(|_| is_usable)?;
    let doubled = view.book.best_bid() + view.book.best_ask();
    assert!(mid > 0, "Invariant: a tradable book has a positive mid");
    let clips = float(view.position_qty) / float(view.clip_qty.max(view.lot_size));
    let mid_ticks = float(doubled) / (2.0 * float(view.tick_size));
    Some(mid_ticks + rule.signal_skew * view.signal - rule.inventory_skew_ticks * clips)
}

/// Wanted price on `side`: rounded away from the center, one tick short of the opposite best.
fn quote_price(view: &View<'_>, rule: &MakerRule, center: f64, side: i64) -> Option<i64> {
    let ticks = if side > 0 {
        (center - rule.half_spread_ticks).floor()
    } else {
        (center + rule.half_spread_ticks).ceil()
    };
    if !(1.0..TICKS_MAX).contains(&ticks) {
        return None;
    }
    #[allow(
        clippy::cast_possible_truncation,
        reason = "bounded by TICKS_MAX one line above"
    )]
    let price = (ticks as i64).checked_mul(view.tick_size)?;
    let (price, is_allowed) = if side > 0 {
        let price = price.min(view.book.best_ask() - view.tick_size);
        (price, view.limit_down.is_none_or(|limit| price >= limit))
    } else {
        let price = price.max(view.book.best_bid() + view.tick_size);
        (price, view.limit_up.is_none_or(|limit| price <= limit))
    };
    (is_allowed && price > 0 && is_shown(view.book, side, price)).then_some(price)
}

/// True when an order at `price` would rest where the feed shows it.
fn is_shown(book: &Book, side: i64, price: i64) -> bool {
    let own: &Side = if side > 0 { book.bid() } else { book.ask() };
    own.count < LEVEL_COUNT || (price - own.worst_price()) * side >= 0
}

/// Largest quantity `side` may still take.
fn room_qty(view: &View<'_>, side: i64) -> i64 {
    let position_qty = view.position_qty * side;
    match view.mode {
        Mode::Normal => view.position_qty_max - position_qty,
        _ => -position_qty,
    }
}

/// Quantity to quote on `side`; `None` when the side is not to be quoted.
fn quote_qty(view: &View<'_>, side: i64) -> Option<i64> {
    let room = room_qty(view, side);
    match view.mode {
        Mode::Normal => (view.clip_qty <= room).then_some(view.clip_qty),
        _ => Some(view.clip_qty.max(view.lot_size).min(room)).filter(|qty| *qty > 0),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::{BookRecord, Record, SCALE};

    const TAKER: Template = Template::Taker {
        entry_ticks: 2.0,
        exit_ticks: 0.5,
        hold_ns: 1_000,
        slippage_ticks: 1,
    };
    const MAKER: Template = Template::Maker {
        half_spread_ticks: 1.0,
        requote_ticks: 1.0,
        signal_skew: 1.0,
        inventory_skew_ticks: 0.5,
    };

    fn book(bid: i64, ask: i64) -> Book {
        let mut record = BookRecord::empty();
        for (level, offset) in (0..5_i64).enumerate() {
            record.bid_price[level] = (bid - offset) * SCALE;
            record.ask_price[level] = (ask + offset) * SCALE;
            record.bid_qty[level] = SCALE;
            record.ask_qty[level] = SCALE;
        }
        let mut book = Book::default();
        assert_eq!(book.on_book(&record, 0), Ok(()));
        book
    }

    fn view(book: &Book, signal: f64, position_qty: i64) -> View<'_> {
        View {
            now_ns: 10,
            book,
            is_tradable: true,
            signal,
            position_qty: position_qty * SCALE,
            entry_ns: 0,
            clip_qty: SCALE,
            position_qty_max: 2 * SCALE,
            order_qty_max: 2 * SCALE,
            tick_size: SCALE,
            lot_size: SCALE,
            limit_up: Some(200 * SCALE),
            limit_down: Some(50 * SCALE),
            mode: Mode::Normal,
            cancel_reason: IntentReason::Flatten,
        }
    }

    fn order(side: i64, price: i64, qty: i64, state: OrderState, time_in_force: u32) -> Order {
        Order {
            order_id: 7,
            intent_id: 1,
            alpha_index: 0,
            market_index: 0,
            side,
            price: price * SCALE,
            qty: qty * SCALE,
            filled_qty: 0,
            state,
            time_in_force,
        }
    }

    fn wishes(template: &Template, view: &View<'_>, orders: &[Order]) -> Vec<Wish> {
        let mut out = Vec::with_capacity(WISH_COUNT_MAX);
        wish(template, view, orders, &mut out);
        assert!(out.len() <= WISH_COUNT_MAX);
        out
    }

    fn placed(wishes: &[Wish]) -> Vec<(i64, i64, i64, IntentReason)> {
        let mut rows = Vec::new();
        for wish in wishes.iter() {
            if let Wish::Place {
                side,
                price,
                qty,
                reason,
                ..
            } = *wish
            {
                rows.push((side, price / SCALE, qty / SCALE, reason));
            }
        }
        rows
    }

    fn canceled(wishes: &[Wish]) -> usize {
        wishes
            .iter()
            .filter(|wish| matches!(wish, Wish::Cancel { .. }))
            .count()
    }

    #[test]
    fn a_taker_enters_on_a_strong_signal_and_leaves_on_a_weak_one_or_in_time() {
        let book = book(100, 101);
        let run = |signal, position| placed(&wishes(&TAKER, &view(&book, signal, position), &[]));
        assert_eq!(run(2.0, 0), [(1, 102, 1, IntentReason::Entry)]);
        assert_eq!(run(-2.5, 0), [(-1, 99, 1, IntentReason::Entry)]);
        assert_eq!(run(1.9, 0), []);
        assert_eq!(run(f64::NAN, 0), []);
        assert_eq!(run(0.6, 2), []);
        assert_eq!(run(0.5, 2), [(-1, 99, 2, IntentReason::Exit)]);
        assert_eq!(run(-0.4, -1), [(1, 102, 1, IntentReason::Exit)]);
        assert_eq!(run(f64::NAN, 1), []);
        let late = View {
            now_ns: 1_000,
            ..view(&book, f64::NAN, 1)
        };
        assert_eq!(
            placed(&wishes(&TAKER, &late, &[])),
            [(-1, 99, 1, IntentReason::Exit)]
        );
    }

    #[test]
    fn a_taker_waits_for_its_open_order_but_not_for_an_unknown_one_when_leaving() {
        let book = book(100, 101);
        let open = order(1, 102, 1, OrderState::PendingNew, IMMEDIATE_OR_CANCEL);
        let lost = Order {
            state: OrderState::Unknown,
            ..open
        };
        assert_eq!(placed(&wishes(&TAKER, &view(&book, 3.0, 0), &[open])), []);
        assert_eq!(placed(&wishes(&TAKER, &view(&book, 3.0, 0), &[lost])), []);
        assert_eq!(placed(&wishes(&TAKER, &view(&book, -3.0, 1), &[open])), []);
        assert_eq!(
            placed(&wishes(&TAKER, &view(&book, -3.0, 1), &[lost])),
            [(-1, 99, 1, IntentReason::Exit)]
        );
        let lost_sell = Order { side: -1, ..lost };
        assert_eq!(
            placed(&wishes(&TAKER, &view(&book, -3.0, 1), &[lost_sell])),
            [],
            "it may already have closed"
        );
    }

    #[test]
    fn prices_stay_within_the_daily_limits() {
        let book = book(199, 200);
        assert_eq!(
            placed(&wishes(&TAKER, &view(&book, 5.0, 0), &[])),
            [(1, 200, 1, IntentReason::Entry)]
        );
    }

    #[test]
    fn a_maker_quotes_both_sides_and_skews_with_signal_and_inventory() {
        let book = book(100, 102);
        let run = |signal, position| placed(&wishes(&MAKER, &view(&book, signal, position), &[]));
        let quote = IntentReason::Quote;
        assert_eq!(run(0.0, 0), [(1, 100, 1, quote), (-1, 102, 1, quote)]);
        assert_eq!(run(1.0, 0), [(1, 101, 1, quote), (-1, 103, 1, quote)]);
        assert_eq!(
            run(5.0, 0),
            [(1, 101, 1, quote)],
            "the ask would rest behind the last level shown"
        );
        assert_eq!(run(0.0, 2), [(-1, 101, 1, quote)], "no room to buy");
        assert_eq!(run(f64::NAN, 0), []);
    }

    #[test]
    fn a_maker_cancels_before_it_moves_and_waits_for_the_answer() {
        let book = book(100, 102);
        let near = order(1, 100, 1, OrderState::Working, REST_OF_DAY);
        let far = order(1, 98, 1, OrderState::Working, REST_OF_DAY);
        let going = order(1, 98, 1, OrderState::PendingCancel, REST_OF_DAY);
        let at = |orders: &[Order]| wishes(&MAKER, &view(&book, 0.0, 0), orders);
        assert_eq!((canceled(&at(&[near])), placed(&at(&[near])).len()), (0, 1));
        assert_eq!((canceled(&at(&[far])), placed(&at(&[far])).len()), (1, 1));
        assert_eq!(
            (canceled(&at(&[going])), placed(&at(&[going])).len()),
            (0, 1)
        );
        let blind = View {
            signal: f64::NAN,
            ..view(&book, 0.0, 0)
        };
        assert_eq!(canceled(&wishes(&MAKER, &blind, &[near])), 1);
        let stale = View {
            is_tradable: false,
            ..view(&book, 0.0, 0)
        };
        assert_eq!(canceled(&wishes(&MAKER, &stale, &[near])), 1);
    }

    #[test]
    fn modes_take_orders_back_and_close_what_they_should() {
        let book = book(100, 102);
        let resting = order(1, 100, 1, OrderState::Working, REST_OF_DAY);
        let mode = |mode, position| View {
            mode,
            ..view(&book, 0.0, position)
        };
        let run = |m, position, orders: &[Order]| {
            let wishes = wishes(&MAKER, &mode(m, position), orders);
            (canceled(&wishes), placed(&wishes))
        };
        assert_eq!(
            run(Mode::Flatten, 1, &[resting]),
            (1, vec![]),
            "resting orders go first"
        );
        assert_eq!(
            run(Mode::Flatten, 1, &[]),
            (0, vec![(-1, 100, 1, IntentReason::Flatten)])
        );
        assert_eq!(run(Mode::Hold, 1, &[resting]), (1, vec![]));
        assert_eq!(
            run(Mode::ReduceOnly, 1, &[resting]),
            (1, vec![(-1, 102, 1, IntentReason::Quote)])
        );
        assert_eq!(run(Mode::ReduceOnly, 0, &[]), (0, vec![]));
    }

    proptest! {
        /// Invariant 3: quotes are on the grid, shown, and do not reach the opposite best.
        #[test]
        fn quotes_keep_their_place(bid in 60_i64..150, spread in 1_i64..8, signal in -9.0..9.0_f64, position in -2_i64..3) {
            let book = book(bid, bid + spread);
            for wish in wishes(&MAKER, &view(&book, signal, position), &[]).iter() {
                let Wish::Place { side, price, qty, .. } = *wish else { continue };
                prop_assert_eq!(price % SCALE, 0);
                let is_passive = if side > 0 { price < book.best_ask() } else { price > book.best_bid() };
                let is_visible = is_shown(&book, side, price);
                prop_assert!(is_passive && is_visible);
                prop_assert!((position * SCALE + side * qty).abs() <= 2 * SCALE);
            }
        }

        /// Invariants 1 and 4: NaN places nothing, and no exit is larger than the position.
        #[test]
        fn exits_never_overshoot(position in -3_i64..4, lost in 0_i64..4, signal in -9.0..9.0_f64, m in 0..4_usize) {
            let book = book(100, 101);
            let mode = [Mode::Normal, Mode::ReduceOnly, Mode::Hold, Mode::Flatten][m];
            let orders = [order(-position.signum(), 100, lost, OrderState::Unknown, IMMEDIATE_OR_CANCEL)];
            let orders = if lost > 0 && position != 0 { &orders[..] } else { &[] };
            for wish in wishes(&TAKER, &View { mode, ..view(&book, signal, position) }, orders).iter() {
                let Wish::Place { side, qty, reason, .. } = *wish else { continue };
                if reason != IntentReason::Entry {
                    prop_assert_eq!(side, -position.signum());
                    prop_assert!(qty + lost * SCALE <= position.abs() * SCALE);
                }
            }
            let blind = View { mode, now_ns: 0, ..view(&book, f64::NAN, 0) };
            prop_assert!(placed(&wishes(&TAKER, &blind, &[])).is_empty());
        }
    }
}
