//! Cases by hand, one template after the other.

use super::*;
use crate::record::{BookRecord, Record, SCALE};

const SECOND: i64 = 1_000_000_000;
static TICKS: std::sync::LazyLock<TickLadder> =
    std::sync::LazyLock::new(|| TickLadder::flat(SCALE));
const COSTS: CostModel = CostModel::TaifexFuture {
    tax_rate_ppb: 20_000,
    tax_round: true,
    commission_per_lot: 60 * SCALE,
};

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
        volatility: f64::NAN,
        position_qty: position_qty * SCALE,
        entry_ns: 0,
        clip_qty: SCALE,
        position_qty_max: 2 * SCALE,
        order_qty_max: 2 * SCALE,
        tick_size: SCALE,
        ticks: &TICKS,
        lot_size: SCALE,
        multiplier: 200 * SCALE,
        costs: &COSTS,
        trading_end_ns: 1_000 * SECOND,
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
    remembering(template, view, orders, &mut Memory::default())
}

fn remembering(
    template: &Template,
    view: &View<'_>,
    orders: &[Order],
    memory: &mut Memory,
) -> Vec<Wish> {
    let mut out = Vec::with_capacity(WISH_COUNT_MAX);
    wish(template, view, orders, memory, &mut out);
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

#[test]
fn an_exit_waits_for_an_answer_only_so_long_and_never_closes_twice() {
    let book = book(100, 101);
    let silent = order(1, 102, 1, OrderState::PendingNew, IMMEDIATE_OR_CANCEL);
    let exit = [(-1, 99, 1, IntentReason::Exit)];
    let mut memory = Memory::default();
    let mut at = |now_ns, signal, orders: &[Order]| {
        let view = View {
            now_ns,
            entry_ns: now_ns,
            ..view(&book, signal, 1)
        };
        placed(&remembering(&TAKER, &view, orders, &mut memory))
    };
    assert_eq!(at(0, -3.0, &[silent]), []);
    assert_eq!(at(EXIT_WAIT_NS_MAX - 1, -3.0, &[silent]), []);
    assert_eq!(at(EXIT_WAIT_NS_MAX, -3.0, &[silent]), exit);
    let silent_exit = Order { side: -1, ..silent };
    assert_eq!(
        at(2 * EXIT_WAIT_NS_MAX, -3.0, &[silent, silent_exit]),
        [],
        "the exit itself may still fill"
    );
    assert_eq!(at(3 * EXIT_WAIT_NS_MAX, 3.0, &[silent]), []);
    assert_eq!(
        at(4 * EXIT_WAIT_NS_MAX, -3.0, &[silent]),
        [],
        "wanting to stay ended the wait"
    );
    let flat = |now_ns, memory: &mut Memory| {
        let view = View {
            now_ns,
            mode: Mode::Flatten,
            ..view(&book, 3.0, 1)
        };
        placed(&remembering(&MAKER, &view, &[silent], memory))
    };
    let mut memory = Memory::default();
    assert_eq!(flat(0, &mut memory), []);
    assert_eq!(
        flat(EXIT_WAIT_NS_MAX, &mut memory),
        [(-1, 100, 1, IntentReason::Flatten)]
    );
}

#[test]
fn whole_lots_of_an_odd_position_are_closed_and_the_rest_is_said() {
    let book = book(100, 101);
    let quantities = |position_qty, mode| {
        let view = View {
            position_qty,
            mode,
            ..view(&book, -3.0, 0)
        };
        let mut rows = Vec::new();
        for wish in wishes(&TAKER, &view, &[]) {
            if let Wish::Place { side, qty, .. } = wish {
                rows.push((side, qty));
            }
        }
        rows
    };
    for mode in [Mode::Normal, Mode::Flatten] {
        assert_eq!(quantities(3 * SCALE / 2, mode), [(-1, SCALE)]);
        assert_eq!(quantities(SCALE / 2, mode), [(-1, SCALE / 2)]);
    }
}

const COST_TAKER: Template = Template::CostTaker(CostTaker {
    entry_ticks: 2.0,
    exit_ticks: 0.5,
    hold_ns: 1_000,
    slippage_ticks: 1,
    cost_margin_ticks: 0.25,
});

/// One lot of the large contract at 35,000: 400 of money, 2.0 points, and the spread on top.
#[test]
fn a_cost_aware_taker_enters_where_the_signal_pays_for_the_round_trip() {
    let book = book(35_000, 35_002);
    let with = |signal| View {
        limit_up: None,
        limit_down: None,
        ..view(&book, signal, 0)
    };
    for side in [1, -1] {
        assert_eq!(round_trip_ticks(&with(0.0), side), Some(4.0));
    }
    let run = |signal| placed(&wishes(&COST_TAKER, &with(signal), &[]));
    let plain = |signal| placed(&wishes(&TAKER, &with(signal), &[]));
    assert_eq!(run(4.24), []);
    assert_eq!(plain(4.24), [(1, 35_003, 1, IntentReason::Entry)]);
    assert_eq!(run(4.25), [(1, 35_003, 1, IntentReason::Entry)]);
    assert_eq!(run(-4.25), [(-1, 34_999, 1, IntentReason::Entry)]);
    assert_eq!(run(f64::NAN), []);
    let held = View {
        position_qty: SCALE,
        ..with(0.5)
    };
    assert_eq!(
        placed(&wishes(&COST_TAKER, &held, &[])),
        [(-1, 34_999, 1, IntentReason::Exit)],
        "leaving is never held up by its cost"
    );
    let free = View {
        costs: &CostModel::ValueBps {
            maker_bps: 0.0,
            taker_bps: 0.0,
        },
        ..with(2.24)
    };
    assert_eq!(placed(&wishes(&COST_TAKER, &free, &[])), []);
    let unknown = View {
        multiplier: 0,
        ..with(50.0)
    };
    assert_eq!(
        placed(&wishes(&COST_TAKER, &unknown, &[])),
        [],
        "a cost that cannot be computed is not zero"
    );
}

fn queue_maker(gain: f64, queue_lots: f64, edge_ticks_min: f64) -> Template {
    Template::QueueMaker(QueueMaker {
        half_spread_ticks: 1.0,
        inventory_skew_ticks: 0.5,
        signal_skew: 1.0,
        requote_ticks: 1.0,
        requote_gain_ticks: gain,
        queue_lots,
        edge_ticks_min,
    })
}

#[test]
fn a_quote_is_moved_only_when_the_new_place_is_worth_more() {
    // Wanted: bid 100, with ten lots ahead. Standing: bid 99, ten lots ahead and a lot behind it.
    let mut record = BookRecord::empty();
    for (level, offset) in (0..5_i64).enumerate() {
        record.bid_price[level] = (100 - offset) * SCALE;
        record.ask_price[level] = (102 + offset) * SCALE;
        record.bid_qty[level] = 10 * SCALE;
        record.ask_qty[level] = 10 * SCALE;
    }
    let mut book = Book::default();
    assert_eq!(book.on_book(&record, 0), Ok(()));
    let standing = order(1, 99, 1, OrderState::Working, REST_OF_DAY);
    let moved = |template: &Template, prints: i64| {
        let mut memory = Memory::default();
        let flat = view(&book, 0.0, 0);
        remembering(template, &flat, &[standing], &mut memory);
        for _ in 0..prints {
            memory.on_print(99 * SCALE, SCALE, -1);
        }
        canceled(&remembering(template, &flat, &[standing], &mut memory)) == 1
    };
    // exp(-10/10) * 1 = 0.37 against exp(-20/10) * 2 = 0.27.
    assert!(moved(&queue_maker(0.05, 10.0, 0.0), 0));
    assert!(!moved(&queue_maker(0.15, 10.0, 0.0), 0), "not for 0.1 tick");
    // Ten lots traded: exp(-10/10) * 2 = 0.74 is more than 0.37.
    assert!(!moved(&queue_maker(0.05, 10.0, 0.0), 10));
    // Without queues the nearer quote still earns less, so nothing is gained.
    assert!(!moved(&queue_maker(0.0, 1e9, 0.0), 0));
    // The plain maker moves whatever it loses.
    assert_eq!(
        canceled(&wishes(&MAKER, &view(&book, 0.0, 0), &[standing])),
        1
    );
}

#[test]
fn a_quote_without_edge_is_moved_whatever_its_place() {
    let book = book(100, 104);
    let standing = order(1, 101, 1, OrderState::Working, REST_OF_DAY);
    let run = |signal, edge_ticks_min| {
        let template = queue_maker(5.0, 1e9, edge_ticks_min);
        canceled(&wishes(&template, &view(&book, signal, 0), &[standing]))
    };
    assert_eq!(run(0.0, 0.5), 0, "an edge of one tick");
    assert_eq!(run(-0.6, 0.5), 1, "an edge of 0.4 ticks");
    assert_eq!(run(-0.6, 0.0), 0);
    assert_eq!(run(-1.1, 0.0), 1, "it would buy above what it is worth");
}

fn avellaneda_stoikov(horizon: Horizon, sigma_source: SigmaSource) -> Template {
    Template::AvellanedaStoikovMaker(AvellanedaStoikovMaker {
        gamma: 0.1,
        k: 1.5,
        sigma_source,
        sigma_ticks: 2.0,
        horizon,
        horizon_ns: 5 * SECOND,
        signal_skew: 1.0,
        requote_ticks: 1.0,
        requote_gain_ticks: 0.0,
        queue_lots: 1e9,
        edge_ticks_min: 0.0,
    })
}

/// g s^2 T = 2 ticks a clip and 2 ticks of spread on top of 1.29, with five seconds left.
#[test]
fn an_avellaneda_stoikov_maker_quotes_the_formula_rounded_outwards() {
    let book = book(100, 102);
    let prices = |template: &Template, view: &View<'_>| {
        let mut rows = Vec::new();
        for (side, price, ..) in placed(&wishes(template, view, &[])) {
            rows.push((side, price));
        }
        rows
    };
    let rolling = avellaneda_stoikov(Horizon::Rolling, SigmaSource::Stated);
    // Half of 3.29 around 101: 99.35 and 102.65.
    assert_eq!(prices(&rolling, &view(&book, 0.0, 0)), [(1, 99), (-1, 103)]);
    // One clip held: around 99, the ask a tick above the best bid.
    assert_eq!(prices(&rolling, &view(&book, 0.0, 1)), [(1, 97), (-1, 101)]);
    assert_eq!(
        prices(&rolling, &view(&book, 1.0, 0)),
        [(1, 100), (-1, 104)]
    );
    let ending = avellaneda_stoikov(Horizon::SessionEnd, SigmaSource::Stated);
    let at = |left_ns: i64| View {
        now_ns: 1_000 * SECOND - left_ns,
        ..view(&book, 0.0, 1)
    };
    assert_eq!(
        prices(&ending, &at(100 * SECOND)),
        [(1, 97), (-1, 101)],
        "no more than the horizon"
    );
    // Nothing left: half of 1.29 around 101, whatever is held.
    assert_eq!(prices(&ending, &at(0)), [(1, 100), (-1, 102)]);
    let measured = avellaneda_stoikov(Horizon::Rolling, SigmaSource::Measured);
    assert_eq!(
        prices(&measured, &view(&book, 0.0, 0)),
        [],
        "nothing was measured yet"
    );
    let calm = View {
        volatility: 0.1,
        ..view(&book, 0.0, 0)
    };
    assert_eq!(
        prices(&measured, &calm),
        [(1, 99), (-1, 103)],
        "the stated volatility is the least"
    );
    let wild = View {
        volatility: 4.0,
        ..view(&book, 0.0, 0)
    };
    // g s^2 T = 8: half of 9.29 around 101, and 96.35 is the last level shown.
    assert_eq!(prices(&measured, &wild), [(1, 96), (-1, 106)]);
}

#[test]
fn a_glft_maker_quotes_the_formula_rounded_outwards() {
    let book = book(100, 102);
    let template = Template::GlftMaker(GlftMaker {
        gamma: 0.01,
        k: 0.3,
        fills_per_s: 0.2,
        sigma_source: SigmaSource::Stated,
        sigma_ticks: 1.0,
        signal_skew: 1.0,
        requote_ticks: 1.0,
        requote_gain_ticks: 0.0,
        queue_lots: 1e9,
        edge_ticks_min: 0.0,
    });
    let run = |position| placed(&wishes(&template, &view(&book, 0.0, position), &[]));
    let quote = IntentReason::Quote;
    // Distances 3.519 on both sides; each clip moves both by 0.480.
    assert_eq!(run(0), [(1, 97, 1, quote), (-1, 105, 1, quote)]);
    assert_eq!(run(1), [(1, 97, 1, quote), (-1, 105, 1, quote)]);
    assert_eq!(run(2), [(-1, 104, 1, quote)], "no room to buy");
}

const TARGET: Target = Target {
    ticks_per_clip: 2.0,
    dead_band_ticks: 1.0,
    clips_max: 3.0,
    trade_clips_min: 1.0,
    patience_ns: 1_000,
    requote_ticks: 1.0,
    slippage_ticks: 1,
};

#[test]
fn a_target_is_linear_with_a_dead_band_and_ends_at_the_limit() {
    let book = book(100, 101);
    let at_once = Template::Target(Target {
        patience_ns: 0,
        ..TARGET
    });
    let run = |signal, position| placed(&wishes(&at_once, &view(&book, signal, position), &[]));
    let (entry, exit) = (IntentReason::Entry, IntentReason::Exit);
    assert_eq!(run(0.9, 0), []);
    assert_eq!(run(1.9, 0), [], "rounded towards zero");
    assert_eq!(run(2.0, 0), [(1, 102, 1, entry)]);
    assert_eq!(run(-4.5, 0), [(-1, 99, 2, entry)]);
    assert_eq!(run(50.0, 0), [(1, 102, 2, entry)], "the position limit");
    assert_eq!(run(2.0, 2), [(-1, 99, 1, exit)]);
    assert_eq!(run(0.5, 2), [(-1, 99, 2, exit)]);
    assert_eq!(run(-4.0, 1), [(-1, 99, 1, exit)], "turning is two trades");
    assert_eq!(run(f64::NAN, 1), [], "no signal, no trade");
    assert_eq!(run(2.0, 1), []);
    let coarse = Template::Target(Target {
        patience_ns: 0,
        trade_clips_min: 2.0,
        ..TARGET
    });
    let run = |signal, position| placed(&wishes(&coarse, &view(&book, signal, position), &[]));
    assert_eq!(run(2.0, 0), [], "too small a change");
    assert_eq!(run(4.0, 0), [(1, 102, 2, entry)]);
    assert_eq!(
        run(0.0, 1),
        [(-1, 99, 1, exit)],
        "what nobody wants is left"
    );
    let coarser = Template::Target(Target {
        patience_ns: 0,
        trade_clips_min: 4.0,
        ..TARGET
    });
    assert_eq!(
        placed(&wishes(&coarser, &view(&book, -4.0, 1), &[])),
        [(-1, 99, 1, exit)],
        "turning leaves wholly, however small"
    );
    let blind = View {
        is_tradable: false,
        ..view(&book, 4.0, 0)
    };
    let resting = order(1, 100, 1, OrderState::Working, REST_OF_DAY);
    assert_eq!(placed(&wishes(&at_once, &blind, &[])), []);
    assert_eq!(canceled(&wishes(&at_once, &blind, &[resting])), 1);
}

#[test]
fn a_target_rests_first_follows_the_best_and_crosses_when_its_patience_ends() {
    let book = book(100, 102);
    let template = Template::Target(TARGET);
    let mut memory = Memory::default();
    let mut at = |now_ns, signal, position, orders: &[Order]| {
        let view = View {
            now_ns,
            ..view(&book, signal, position)
        };
        let wishes = remembering(&template, &view, orders, &mut memory);
        (canceled(&wishes), placed(&wishes))
    };
    let resting = order(1, 100, 1, OrderState::Working, REST_OF_DAY);
    let behind = order(1, 99, 1, OrderState::Working, REST_OF_DAY);
    let entry = IntentReason::Entry;
    assert_eq!(at(0, 2.0, 0, &[]), (0, vec![(1, 100, 1, entry)]));
    assert_eq!(at(10, 2.0, 0, &[resting]), (0, vec![]));
    assert_eq!(at(20, 2.0, 0, &[behind]), (1, vec![]), "the best went away");
    assert_eq!(at(30, 2.0, 0, &[]), (0, vec![(1, 100, 1, entry)]));
    assert_eq!(at(999, 2.0, 0, &[resting]), (0, vec![]));
    assert_eq!(
        at(1_000, 2.0, 0, &[resting]),
        (1, vec![]),
        "first take it back"
    );
    assert_eq!(at(1_001, 2.0, 0, &[]), (0, vec![(1, 103, 1, entry)]));
    assert_eq!(
        at(1_002, 4.0, 1, &[]),
        (0, vec![(1, 100, 1, entry)]),
        "the next trade is patient again"
    );
    assert_eq!(
        at(1_003, 0.0, 0, &[resting]),
        (1, vec![]),
        "no longer wanted"
    );
    let lost = Order {
        state: OrderState::Unknown,
        ..resting
    };
    assert_eq!(at(5_000, 2.0, 0, &[lost]), (0, vec![]), "it may be filled");
    assert_eq!(at(9_000, f64::NAN, 0, &[resting]), (1, vec![]));
}

#[test]
fn a_target_that_may_only_leave_does_not_wait_for_a_signal() {
    let book = book(100, 102);
    let template = Template::Target(Target {
        patience_ns: 0,
        ..TARGET
    });
    let run = |signal, position| {
        let view = View {
            mode: Mode::ReduceOnly,
            ..view(&book, signal, position)
        };
        placed(&wishes(&template, &view, &[]))
    };
    let exit = IntentReason::Exit;
    assert_eq!(run(f64::NAN, 2), [(-1, 99, 2, exit)]);
    assert_eq!(run(4.0, 1), []);
    assert_eq!(run(-4.0, 1), [(-1, 99, 1, exit)]);
    assert_eq!(run(4.0, 0), []);
}
