//! Maker: what all quoting rules share, from wanted prices to orders.
//!
//! A rule in `quoting` says where the two quotes should be; this file rounds them away from their
//! center, keeps them a tick short of the opposite best, inside the daily limits and inside what
//! the feed shows, and decides whether a quote that stands elsewhere is worth moving.

use super::queue::{QueuePlace, displayed_qty, place_value};
use super::quoting::{Quotes, avellaneda_stoikov, fixed, glft};
use super::{
    AvellanedaStoikovMaker, Horizon, Memory, Mode, REST_OF_DAY, SigmaSource, Template, View, Wish,
    float, is_cancelable, whole_lots,
};
use crate::book::{Book, Side};
use crate::gateway::Order;
use crate::record::{IntentReason, LEVEL_COUNT};

/// Prices beyond this many ticks are not prices.
const TICKS_MAX: f64 = 1e15;
/// Nanoseconds in a second.
const SECOND: f64 = 1e9;

/// When a quote is moved.
#[derive(Debug, Clone, Copy)]
struct Requote {
    /// Keep a quote while the wanted price is nearer than this.
    distance_ticks: f64,
    /// What a queue place is worth; `None` moves whatever is lost.
    queue: Option<QueueRule>,
}

/// How a queue place is valued; see `queue`.
#[derive(Debug, Clone, Copy)]
struct QueueRule {
    gain_ticks: f64,
    queue_lots: f64,
    edge_ticks_min: f64,
}

pub(super) fn maker(
    view: &View<'_>,
    orders: &[Order],
    template: &Template,
    memory: &mut Memory,
    out: &mut Vec<Wish>,
) {
    let quotes = wanted_quotes(view, template).filter(Quotes::is_usable);
    let requote = requote_of(template);
    for side in [1, -1] {
        let wanted = quotes.and_then(|quotes| quote_price(view, &quotes, side));
        let wanted_qty = quote_qty(view, side);
        let Some(order) = orders.iter().find(|order| order.side == side) else {
            if let (Some(price), Some(qty)) = (wanted, wanted_qty) {
                out.push(Wish::Place {
                    side,
                    price,
                    qty,
                    time_in_force: REST_OF_DAY,
                    reason: IntentReason::Quote,
                });
            }
            continue;
        };
        if requote.queue.is_some() {
            let place = memory.place_mut(side);
            *place = Some(QueuePlace::follow(*place, order, view.book));
        }
        if !is_cancelable(order) {
            continue;
        }
        let is_kept = quotes.zip(wanted).is_some_and(|(quotes, price)| {
            wanted_qty.is_some()
                && order.remaining_qty() <= room_qty(view, side)
                && is_shown(view.book, side, order.price)
                && !is_worth_moving(view, &requote, order, price, &quotes, memory)
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

/// Prices at which the template wants to quote now, bid first; `None` where it may not.
pub(super) fn wanted_prices(view: &View<'_>, template: &Template) -> (Option<i64>, Option<i64>) {
    let quotes = wanted_quotes(view, template).filter(Quotes::is_usable);
    let price = |side| quotes.and_then(|quotes| quote_price(view, &quotes, side));
    (price(1), price(-1))
}

/// Where the template's rule wants the quotes, in ticks; `None` when nothing may be quoted.
fn wanted_quotes(view: &View<'_>, template: &Template) -> Option<Quotes> {
    let clips = float(view.position_qty) / float(view.clip_qty.max(view.lot_size));
    match *template {
        Template::Maker {
            half_spread_ticks,
            signal_skew,
            inventory_skew_ticks,
            ..
        } => {
            let mid = skewed_mid_ticks(view, signal_skew)?;
            Some(fixed::quotes(
                mid,
                clips,
                half_spread_ticks,
                inventory_skew_ticks,
            ))
        }
        Template::QueueMaker(rule) => {
            let mid = skewed_mid_ticks(view, rule.signal_skew)?;
            Some(fixed::quotes(
                mid,
                clips,
                rule.half_spread_ticks,
                rule.inventory_skew_ticks,
            ))
        }
        Template::AvellanedaStoikovMaker(rule) => {
            let mid = skewed_mid_ticks(view, rule.signal_skew)?;
            let sigma = sigma(view, rule.sigma_source, rule.sigma_ticks);
            let left_s = time_left_s(view, &rule);
            Some(avellaneda_stoikov::quotes(
                mid, clips, rule.gamma, sigma, rule.k, left_s,
            ))
        }
        Template::GlftMaker(rule) => {
            let mid = skewed_mid_ticks(view, rule.signal_skew)?;
            let market = glft::Market {
                gamma: rule.gamma,
                k: rule.k,
                fills_per_s: rule.fills_per_s,
                sigma: sigma(view, rule.sigma_source, rule.sigma_ticks),
            };
            Some(market.quotes(mid, clips))
        }
        _ => None,
    }
}

fn requote_of(template: &Template) -> Requote {
    let with_queue = |distance_ticks, gain_ticks, queue_lots, edge_ticks_min| Requote {
        distance_ticks,
        queue: Some(QueueRule {
            gain_ticks,
            queue_lots,
            edge_ticks_min,
        }),
    };
    match *template {
        Template::QueueMaker(rule) => with_queue(
            rule.requote_ticks,
            rule.requote_gain_ticks,
            rule.queue_lots,
            rule.edge_ticks_min,
        ),
        Template::AvellanedaStoikovMaker(rule) => with_queue(
            rule.requote_ticks,
            rule.requote_gain_ticks,
            rule.queue_lots,
            rule.edge_ticks_min,
        ),
        Template::GlftMaker(rule) => with_queue(
            rule.requote_ticks,
            rule.requote_gain_ticks,
            rule.queue_lots,
            rule.edge_ticks_min,
        ),
        Template::Maker { requote_ticks, .. } => Requote {
            distance_ticks: requote_ticks,
            queue: None,
        },
        _ => Requote {
            distance_ticks: f64::INFINITY,
            queue: None,
        },
    }
}

/// Mid in ticks, moved by the signal; `None` without a book or a signal to trust.
fn skewed_mid_ticks(view: &View<'_>, signal_skew: f64) -> Option<f64> {
    let is_usable = view.is_tradable && view.signal.is_finite();
    let mid = view.book.mid().filter(|_| is_usable)?;
    let doubled = view.book.best_bid() + view.book.best_ask();
    assert!(mid > 0, "Invariant: a tradable book has a positive mid");
    let mid_ticks = float(doubled) / (2.0 * float(view.tick_size));
    Some(mid_ticks + signal_skew * view.signal)
}

/// Volatility to quote with; NaN while it is to be measured and has not been yet.
fn sigma(view: &View<'_>, source: SigmaSource, stated: f64) -> f64 {
    match source {
        SigmaSource::Stated => stated,
        SigmaSource::Measured if view.volatility.is_nan() => f64::NAN,
        SigmaSource::Measured => view.volatility.max(stated),
    }
}

fn time_left_s(view: &View<'_>, rule: &AvellanedaStoikovMaker) -> f64 {
    let left_ns = match rule.horizon {
        Horizon::Rolling => rule.horizon_ns,
        Horizon::SessionEnd => view
            .trading_end_ns
            .saturating_sub(view.now_ns)
            .clamp(0, rule.horizon_ns),
    };
    float(left_ns) / SECOND
}

/// True when a quote should give up its place for `price`.
fn is_worth_moving(
    view: &View<'_>,
    requote: &Requote,
    order: &Order,
    price: i64,
    quotes: &Quotes,
    memory: &mut Memory,
) -> bool {
    let tick = float(view.tick_size);
    let is_far = float(price - order.price).abs() >= requote.distance_ticks * tick;
    let Some(rule) = requote.queue else {
        return is_far;
    };
    if price == order.price {
        return false;
    }
    let edge = |price: i64| (quotes.center() - float(price) / tick) * float(order.side);
    if edge(order.price) < rule.edge_ticks_min {
        return true;
    }
    let Some(place) = memory.place_mut(order.side).filter(|_| is_far) else {
        return false;
    };
    let queue_qty = rule.queue_lots * float(view.lot_size);
    let kept = place_value(edge(order.price), place.ahead_qty, queue_qty);
    let ahead_qty = displayed_qty(view.book, order.side, price);
    let moved = place_value(edge(price), ahead_qty, queue_qty);
    moved - kept >= rule.gain_ticks
}

/// Wanted price on `side`: rounded away from the center, one tick short of the opposite best.
fn quote_price(view: &View<'_>, quotes: &Quotes, side: i64) -> Option<i64> {
    let ticks = if side > 0 {
        quotes.bid.floor()
    } else {
        quotes.ask.ceil()
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
        let price = view.ticks.floor(price)?;
        let price = price.min(view.ticks.step(view.book.best_ask(), -1)?);
        (price, view.limit_down.is_none_or(|limit| price >= limit))
    } else {
        let price = view.ticks.ceil(price)?;
        let price = price.max(view.ticks.step(view.book.best_bid(), 1)?);
        (price, view.limit_up.is_none_or(|limit| price <= limit))
    };
    (is_allowed && price > 0 && is_shown(view.book, side, price)).then_some(price)
}

/// True when an order at `price` would rest where the feed shows it.
pub(super) fn is_shown(book: &Book, side: i64, price: i64) -> bool {
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
        _ => Some(whole_lots(view, view.clip_qty.max(view.lot_size).min(room)))
            .filter(|qty| *qty > 0),
    }
}
