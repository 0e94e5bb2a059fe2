//! Properties over random sessions: books, signals, modes, prints and a broker that does anything
//! a broker may do. The numbers are those of the invariants in `strategy`.
//!
//! Every session runs twice, as it is and mirrored around a price, with the same answers.

use proptest::prelude::*;

use super::maker::is_shown;
use super::*;
use crate::record::{BookRecord, Record, SCALE};

const STEP_COUNT: usize = 60;
/// A price and its mirror image sum to this, in ticks.
const MIRROR: i64 = 2_000;
const POSITION_QTY_MAX: i64 = 3 * SCALE;
/// No tax: a tax of the price is not the same on both sides of the mirror.
static TICKS: std::sync::LazyLock<TickLadder> =
    std::sync::LazyLock::new(|| TickLadder::flat(SCALE));
const COSTS: CostModel = CostModel::TaifexFuture {
    tax_rate_ppb: 0,
    tax_round: false,
    commission_per_lot: 50 * SCALE,
};

/// Sessions of a property; `HFT_FUZZ_CASES` raises it.
fn case_count() -> u32 {
    let asked = std::env::var("HFT_FUZZ_CASES").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(2_000)
}

/// A deterministic stream of numbers.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn between(&mut self, low: i64, high: i64) -> i64 {
        low + i64::try_from(self.below(u64::try_from(high - low).unwrap_or(1))).unwrap_or(0)
    }

    /// A multiple of 1/64, so that a mirrored sum is rounded like the sum itself.
    fn sixty_fourths(&mut self, low: i64, high: i64) -> f64 {
        float(self.between(low * 64, high * 64)) / 64.0
    }

    fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }
}

fn template(kind: u64, draw: &mut Draw) -> Template {
    let requote_ticks = draw.sixty_fourths(1, 3);
    let (requote_gain_ticks, edge_ticks_min) = (draw.sixty_fourths(0, 1), draw.sixty_fourths(0, 1));
    let (queue_lots, signal_skew) = (draw.sixty_fourths(1, 40), draw.sixty_fourths(0, 2));
    let (gamma, k) = (draw.sixty_fourths(1, 2) / 8.0, draw.sixty_fourths(1, 3));
    let sigma_ticks = draw.sixty_fourths(1, 3);
    let sigma_source = [SigmaSource::Stated, SigmaSource::Measured][usize::from(draw.one_in(2))];
    match kind {
        0 => Template::Taker {
            entry_ticks: draw.sixty_fourths(1, 3),
            exit_ticks: draw.sixty_fourths(-1, 1),
            hold_ns: draw.between(1, 20) * 500_000_000,
            slippage_ticks: draw.between(0, 3),
        },
        1 => Template::CostTaker(CostTaker {
            entry_ticks: draw.sixty_fourths(1, 3),
            exit_ticks: draw.sixty_fourths(-1, 1),
            hold_ns: draw.between(1, 20) * 500_000_000,
            slippage_ticks: draw.between(0, 3),
            cost_margin_ticks: draw.sixty_fourths(0, 1),
        }),
        2 => Template::Maker {
            half_spread_ticks: draw.sixty_fourths(0, 3),
            requote_ticks,
            signal_skew,
            inventory_skew_ticks: draw.sixty_fourths(0, 2),
        },
        3 => Template::QueueMaker(QueueMaker {
            half_spread_ticks: draw.sixty_fourths(0, 3),
            inventory_skew_ticks: draw.sixty_fourths(0, 2),
            signal_skew,
            requote_ticks,
            requote_gain_ticks,
            queue_lots,
            edge_ticks_min,
        }),
        4 => Template::AvellanedaStoikovMaker(AvellanedaStoikovMaker {
            gamma,
            k,
            sigma_source,
            sigma_ticks,
            horizon: [Horizon::Rolling, Horizon::SessionEnd][usize::from(draw.one_in(2))],
            horizon_ns: 3_000_000_000,
            signal_skew,
            requote_ticks,
            requote_gain_ticks,
            queue_lots,
            edge_ticks_min,
        }),
        5 => Template::GlftMaker(GlftMaker {
            gamma,
            k,
            fills_per_s: draw.sixty_fourths(1, 4),
            sigma_source,
            sigma_ticks,
            signal_skew,
            requote_ticks,
            requote_gain_ticks,
            queue_lots,
            edge_ticks_min,
        }),
        _ => Template::Target(Target {
            ticks_per_clip: draw.sixty_fourths(1, 3),
            dead_band_ticks: draw.sixty_fourths(0, 2),
            clips_max: draw.sixty_fourths(1, 5),
            trade_clips_min: draw.sixty_fourths(0, 2),
            patience_ns: draw.between(0, 4) * 700_000_000,
            requote_ticks,
            slippage_ticks: draw.between(0, 3),
        }),
    }
}

fn is_maker(template: &Template) -> bool {
    !matches!(
        template,
        Template::Taker { .. } | Template::CostTaker(_) | Template::Target(_)
    )
}

/// What happens between two looks of the template, the same on both sides of the mirror.
struct Step {
    elapsed_ns: i64,
    bid: i64,
    spread: i64,
    quantities: [i64; 10],
    level_count: usize,
    signal: f64,
    volatility: f64,
    is_tradable: bool,
    mode: Mode,
    print: (i64, i64, i64),
    /// What the broker does with the first, second, ... open order.
    answers: [u64; 4],
}

fn steps(draw: &mut Draw) -> Vec<Step> {
    let mut bid = draw.between(960, 1_040);
    let mut mode = Mode::Normal;
    let mut out = Vec::with_capacity(STEP_COUNT);
    for _ in 0..STEP_COUNT {
        bid = (bid + draw.between(-2, 3)).clamp(950, 1_050);
        if draw.one_in(12) {
            mode = [Mode::Normal, Mode::ReduceOnly, Mode::Hold, Mode::Flatten]
                [usize::try_from(draw.below(4)).unwrap_or(0)];
        }
        out.push(Step {
            elapsed_ns: draw.between(1, 900_000_000),
            bid,
            spread: draw.between(1, 6),
            quantities: std::array::from_fn(|_| draw.between(1, 30) * SCALE),
            level_count: if draw.one_in(6) { 3 } else { 5 },
            signal: if draw.one_in(10) {
                f64::NAN
            } else {
                draw.sixty_fourths(-6, 7)
            },
            volatility: if draw.one_in(10) {
                f64::NAN
            } else {
                draw.sixty_fourths(0, 3)
            },
            is_tradable: !draw.one_in(12),
            mode,
            print: (
                bid + draw.between(-2, 4),
                draw.between(1, 9) * SCALE,
                draw.between(-1, 2),
            ),
            answers: std::array::from_fn(|_| draw.below(24)),
        });
    }
    out
}

/// A template with its orders and position; `sign` is -1 behind the mirror.
struct World {
    sign: i64,
    template: Template,
    memory: Memory,
    orders: Vec<Order>,
    position_qty: i64,
    entry_ns: i64,
    now_ns: i64,
    next_id: u64,
}

impl World {
    fn new(template: Template, sign: i64) -> Self {
        Self {
            sign,
            template,
            memory: Memory::default(),
            orders: Vec::new(),
            position_qty: 0,
            entry_ns: 0,
            now_ns: 0,
            next_id: 1,
        }
    }

    /// A price in ticks as this side of the mirror sees it, scaled.
    fn price(&self, ticks: i64) -> i64 {
        let seen = if self.sign > 0 { ticks } else { MIRROR - ticks };
        seen * SCALE
    }

    fn book(&self, step: &Step) -> Book {
        let mut record = BookRecord::empty();
        for level in 0..step.level_count {
            let behind = i64::try_from(level).unwrap_or(0);
            let low = self.price(step.bid - behind);
            let high = self.price(step.bid + step.spread + behind);
            let (low_qty, high_qty) = (step.quantities[level], step.quantities[5 + level]);
            let [bid, ask] = if self.sign > 0 {
                [(low, low_qty), (high, high_qty)]
            } else {
                [(high, high_qty), (low, low_qty)]
            };
            (record.bid_price[level], record.bid_qty[level]) = bid;
            (record.ask_price[level], record.ask_qty[level]) = ask;
        }
        let mut book = Book::default();
        assert_eq!(book.on_book(&record, 0), Ok(()));
        book
    }

    fn view<'a>(&self, step: &Step, book: &'a Book) -> View<'a> {
        View {
            now_ns: self.now_ns,
            book,
            is_tradable: step.is_tradable,
            signal: step.signal * float(self.sign),
            volatility: step.volatility,
            position_qty: self.position_qty,
            entry_ns: self.entry_ns,
            clip_qty: SCALE,
            position_qty_max: POSITION_QTY_MAX,
            order_qty_max: 2 * SCALE,
            tick_size: SCALE,
            ticks: &TICKS,
            lot_size: SCALE,
            multiplier: 200 * SCALE,
            costs: &COSTS,
            trading_end_ns: 20_000_000_000,
            limit_up: Some(self.price(if self.sign > 0 { 1_046 } else { 954 })),
            limit_down: Some(self.price(if self.sign > 0 { 954 } else { 1_046 })),
            mode: step.mode,
            cancel_reason: IntentReason::Flatten,
        }
    }

    fn fill(&mut self, place: usize, qty: i64) {
        let order = &mut self.orders[place];
        let qty = qty.min(order.remaining_qty());
        order.filled_qty += qty;
        let after = self.position_qty + order.side * qty;
        if after.signum() != self.position_qty.signum() {
            self.entry_ns = self.now_ns;
        }
        self.position_qty = after;
    }

    /// The broker answers, each open order by its own number.
    fn answer(&mut self, step: &Step) {
        for (place, answer) in step.answers.into_iter().enumerate() {
            if place >= self.orders.len() {
                break;
            }
            let order = self.orders[place];
            let is_immediate = order.time_in_force == IMMEDIATE_OR_CANCEL;
            let state = &mut self.orders[place].state;
            match (order.state, answer) {
                (_, 0) => *state = OrderState::Unknown,
                (OrderState::PendingNew | OrderState::Unknown, 1) => *state = OrderState::Rejected,
                (_, 2..=5) if is_immediate => *state = OrderState::Expired,
                (OrderState::PendingNew | OrderState::Unknown, 2..=14) => {
                    *state = OrderState::Working;
                }
                (OrderState::PendingCancel, 2..=12) => *state = OrderState::Canceled,
                (OrderState::PendingCancel, 13) => *state = OrderState::Working,
                // Half a lot is no quantity of this venue; it must not confuse anybody.
                (_, 15) => self.fill(place, SCALE / 2),
                (_, 16..=18) => self.fill(place, SCALE),
                (_, 19 | 20) => self.fill(place, order.remaining_qty()),
                _ => {}
            }
            if self.orders[place].remaining_qty() == 0 {
                self.orders[place].state = OrderState::Filled;
            }
        }
        self.orders.retain(|order| order.state.is_open());
    }

    fn open_qty(&self, side: i64) -> i64 {
        let on_side = self.orders.iter().filter(|order| order.side == side);
        on_side.map(Order::remaining_qty).sum()
    }

    /// One step: wishes in an order that does not depend on the side of the mirror, checked.
    fn act(&mut self, step: &Step) -> Result<Vec<Wish>, TestCaseError> {
        self.now_ns += step.elapsed_ns;
        self.answer(step);
        let (price, qty, side) = step.print;
        let price = self.price(price);
        self.memory.on_print(price, qty, side * self.sign);
        let book = self.book(step);
        let view = self.view(step, &book);
        let mut wishes = Vec::with_capacity(WISH_COUNT_MAX);
        wish(
            &self.template,
            &view,
            &self.orders,
            &mut self.memory,
            &mut wishes,
        );
        prop_assert!(wishes.len() <= WISH_COUNT_MAX);
        let sign = self.sign;
        wishes.sort_by_key(|wish| match *wish {
            Wish::Cancel { order_id, .. } => (0, order_id, 0),
            Wish::Place { side, .. } => (1, 0, side * sign),
        });
        for wish in &wishes {
            self.take(wish, &view)?;
        }
        Ok(wishes)
    }

    fn take(&mut self, wish: &Wish, view: &View<'_>) -> Result<(), TestCaseError> {
        let Wish::Place {
            side,
            price,
            qty,
            time_in_force,
            reason,
        } = *wish
        else {
            return self.take_cancel(wish);
        };
        let (held, open) = (self.position_qty, self.open_qty(side));
        let is_leaving = held.signum() == -side && qty + open <= held.abs();
        prop_assert!(price > 0 && price % SCALE == 0);
        prop_assert!((1..=view.order_qty_max).contains(&qty));
        prop_assert!(
            qty % SCALE == 0 || (qty < SCALE && is_leaving),
            "whole lots"
        );
        // 1: without a signal nothing is opened.
        prop_assert!(view.signal.is_finite() || is_leaving);
        if matches!(reason, IntentReason::Exit | IntentReason::Flatten) {
            // 4: no exit is larger than what is left.
            prop_assert!(is_leaving, "{held} {open} {qty}");
        }
        if is_maker(&self.template) && time_in_force == REST_OF_DAY {
            // 2 and 3: one order a side, passive, where the feed shows it.
            prop_assert_eq!(open, 0);
            prop_assert!(self.orders.iter().all(|order| order.side != side));
            let is_passive = if side > 0 {
                price < view.book.best_ask()
            } else {
                price > view.book.best_bid()
            };
            prop_assert!(is_passive && is_shown(view.book, side, price));
        }
        if view.mode != Mode::Normal && !is_leaving {
            // Only a taker says what it would do; `risk` refuses it.
            let is_taker = matches!(
                self.template,
                Template::Taker { .. } | Template::CostTaker(_)
            );
            prop_assert!(is_taker);
            return Ok(());
        }
        // 5: whatever fills, the limit holds.
        prop_assert!(held * side + open + qty <= POSITION_QTY_MAX);
        self.orders.push(Order {
            order_id: self.next_id,
            intent_id: 1,
            alpha_index: 0,
            market_index: 0,
            side,
            price,
            qty,
            filled_qty: 0,
            state: OrderState::PendingNew,
            time_in_force,
        });
        self.next_id += 1;
        Ok(())
    }

    fn take_cancel(&mut self, wish: &Wish) -> Result<(), TestCaseError> {
        let Wish::Cancel { order_id, .. } = *wish else {
            return Ok(());
        };
        let order = self
            .orders
            .iter_mut()
            .find(|order| order.order_id == order_id);
        let is_working = order.as_ref().is_some_and(|order| is_cancelable(order));
        prop_assert!(is_working, "only a working order is taken back, once");
        if let Some(order) = order {
            order.state = OrderState::PendingCancel;
        }
        Ok(())
    }
}

fn mirrored(wish: &Wish) -> Wish {
    match *wish {
        Wish::Place {
            side,
            price,
            qty,
            time_in_force,
            reason,
        } => Wish::Place {
            side: -side,
            price: MIRROR * SCALE - price,
            qty,
            time_in_force,
            reason,
        },
        cancel @ Wish::Cancel { .. } => cancel,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(case_count()))]

    /// Invariants 1 to 6, and the bound on the number of wishes.
    #[test]
    fn a_session_keeps_every_promise_and_its_mirror_image_does_the_mirrored(
        seed in any::<u64>(), kind in 0_u64..7,
    ) {
        let mut draw = Draw(seed);
        let template = template(kind, &mut draw);
        let (mut world, mut image) = (World::new(template, 1), World::new(template, -1));
        for step in &steps(&mut draw) {
            let wishes = world.act(step)?;
            let seen = image.act(step)?;
            let expected: Vec<Wish> = wishes.iter().map(mirrored).collect();
            prop_assert_eq!(&seen, &expected, "{:?}", template);
            prop_assert_eq!(image.position_qty, -world.position_qty);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(case_count()))]

    /// Whatever orders an alpha has, also ones that no template would have made: the wishes fit the
    /// list, each order is taken back once at most, and a side gets one new order at most.
    #[test]
    fn wishes_are_bounded_whatever_orders_there_are(seed in any::<u64>(), kind in 0_u64..7) {
        let mut draw = Draw(seed);
        let mut world = World::new(template(kind, &mut draw), 1);
        let states = [
            OrderState::PendingNew,
            OrderState::Working,
            OrderState::PendingCancel,
            OrderState::Unknown,
        ];
        for order_id in 1..=draw.below(OWN_ORDER_COUNT_MAX as u64 + 1) {
            world.orders.push(Order {
                order_id,
                intent_id: 1,
                alpha_index: 0,
                market_index: 0,
                side: if draw.one_in(2) { 1 } else { -1 },
                price: draw.between(990, 1_010) * SCALE,
                qty: draw.between(1, 4) * SCALE,
                filled_qty: 0,
                state: states[usize::try_from(draw.below(4)).unwrap_or(0)],
                time_in_force: if draw.one_in(4) { IMMEDIATE_OR_CANCEL } else { REST_OF_DAY },
            });
        }
        world.position_qty = draw.between(-3, 4) * SCALE;
        let step = &steps(&mut draw)[0];
        let book = world.book(step);
        let view = world.view(step, &book);
        let mut wishes = Vec::new();
        wish(&world.template, &view, &world.orders, &mut world.memory.clone(), &mut wishes);
        prop_assert!(wishes.len() <= WISH_COUNT_MAX);
        let (mut canceled, mut sides) = (Vec::new(), Vec::new());
        for wish in &wishes {
            match *wish {
                Wish::Cancel { order_id, .. } => canceled.push(order_id),
                Wish::Place { side, .. } => sides.push(side),
            }
        }
        let (before, places) = (canceled.len(), sides.len());
        canceled.sort_unstable();
        canceled.dedup();
        sides.sort_unstable();
        sides.dedup();
        prop_assert_eq!((before, places), (canceled.len(), sides.len()));
    }
}

/// The sessions above are worth running: every template acts, fills, takes back and leaves.
#[test]
fn the_random_sessions_reach_what_they_are_to_hold() {
    for kind in 0..7 {
        let (mut placed, mut canceled, mut left, mut fills) = (0, 0, 0, 0);
        for seed in 0..40 {
            let mut draw = Draw(seed);
            let mut world = World::new(template(kind, &mut draw), 1);
            for step in &steps(&mut draw) {
                let before = world.position_qty;
                for wish in world.act(step).unwrap_or_default() {
                    match wish {
                        Wish::Cancel { .. } => canceled += 1,
                        Wish::Place { reason, .. } => {
                            placed += 1;
                            let is_exit =
                                matches!(reason, IntentReason::Exit | IntentReason::Flatten);
                            left += i32::from(is_exit);
                        }
                    }
                }
                fills += i32::from(world.position_qty != before);
            }
        }
        assert!(placed > 100 && fills > 100, "{kind}: {placed} {fills}");
        assert!(left > 10, "{kind}: {left}");
        assert!(canceled > 50 || kind < 2, "{kind}: {canceled}");
    }
}
