//! Invariant 3 of the engine: after construction a whole day allocates nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests stop at the first surprise"
)]

#[path = "support/expressions.rs"]
mod expressions;
mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::thread::LocalKey;

use _core::alpha::{Expression, Program};
use _core::engine::{Engine, EngineConfig, KernelConfig};
use _core::kernel::{KernelShape, Kernels};
use _core::live::{LiveOptions, LiveSession, LiveSetup};
use _core::record::{
    BrokerRecord, CommandKind, HealthKind, HealthRecord, Record, Tape, TradeRecord,
};
use _core::storm_guard::Band;
use _core::wal::{LogKind, Options, Writer};
use support::{MAKER, SECOND, Session, TAKER, book, command, tape};

const COST_TAKER: &str = r#"{"kind":"cost_taker","entry_ticks":1.0,"exit_ticks":0.0,"hold_ns":5000000000,
    "slippage_ticks":1,"cost_margin_ticks":0.0}"#;
const QUEUE_MAKER: &str = r#"{"kind":"queue_maker","half_spread_ticks":0.5,"inventory_skew_ticks":0.5,
    "signal_skew":1.0,"requote_ticks":1.0,"requote_gain_ticks":0.01,"queue_lots":10.0,"edge_ticks_min":0.2}"#;
const GLFT_MAKER: &str = r#"{"kind":"glft_maker","gamma":0.1,"k":1.5,"fills_per_s":1.0,"sigma_source":"stated",
    "sigma_ticks":0.5,"signal_skew":1.0,"requote_ticks":1.0,"requote_gain_ticks":0.0,"queue_lots":10.0,
    "edge_ticks_min":0.0}"#;
const AVELLANEDA_STOIKOV_MAKER: &str = r#"{"kind":"avellaneda_stoikov_maker","gamma":0.1,"k":1.5,
    "sigma_source":"measured","sigma_ticks":0.1,"horizon":"session_end","horizon_ns":2000000000,
    "signal_skew":1.0,"requote_ticks":1.0,"requote_gain_ticks":0.0,"queue_lots":10.0,"edge_ticks_min":0.0}"#;
const TARGET: &str = r#"{"kind":"target","ticks_per_clip":0.5,"dead_band_ticks":0.3,"clips_max":3.0,
    "trade_clips_min":1.0,"patience_ns":200000000,"requote_ticks":1.0,"slippage_ticks":1}"#;

struct Counting;

thread_local! {
    // Of this test's thread alone: the harness and other tests allocate in their own.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    /// Bytes asked for and given back so far.
    static ASKED: Cell<u64> = const { Cell::new(0) };
    static GIVEN_BACK: Cell<u64> = const { Cell::new(0) };
}

fn add(counter: &'static LocalKey<Cell<u64>>, more: u64) {
    counter.set(counter.get() + more);
}

// SAFETY: every call goes to the system allocator unchanged; only a counter is added.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(&ALLOCATIONS, 1);
        add(&ASKED, layout.size() as u64);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        add(&GIVEN_BACK, layout.size() as u64);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        add(&ALLOCATIONS, 1);
        add(&ASKED, new_size as u64);
        add(&GIVEN_BACK, layout.size() as u64);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A config whose guard looks at every input.
fn config(template: &str, expression: &str) -> EngineConfig {
    let mut made = support::config(template, expression);
    let band = |warm: i64, storm: i64| Band {
        warm_in: Some(warm),
        warm_out: Some(warm - 1),
        storm_in: Some(storm),
        storm_out: Some(warm),
        halt_in: None,
        halt_out: None,
    };
    let guard = &mut made.storm_guard;
    guard.drawdown_bps = band(5_000, 9_000);
    guard.feed_gap_ns = band(SECOND, 6 * SECOND);
    guard.loop_lag_ns = band(5_000_000, 20_000_000);
    guard.order_rtt_ns = band(60 * SECOND, 90 * SECOND);
    guard.reject_count = band(5, 9);
    guard.feature_failures = band(5, 9);
    guard.normaliser_failures = band(5, 9);
    made
}

fn loop_lag(value: i64) -> HealthRecord {
    HealthRecord {
        health_kind: HealthKind::LoopLag as u64,
        value,
        ..HealthRecord::empty()
    }
}

/// Inputs of a session with entries, quotes, fills, refusals, storms, a halt, a resume and damaged
/// books.
fn day(template: &str, engine: Engine) -> Vec<u8> {
    let mut session = Session::new(config(template, "0"));
    session.engine = engine;
    session.feed_tape(&tape(21, 4_000));
    session.feed(loop_lag(30_000_000));
    session.wait(10 * SECOND);
    session.feed(loop_lag(0));
    for _ in 0..150 {
        session.now += SECOND / 2;
        session.feed_book(book(35_000, 1, 5, 5));
    }
    assert!(session.engine.storm_report().entered.iter().sum::<u64>() >= 3);
    session.feed(command(CommandKind::Halt, u32::MAX, 0));
    session.feed_tape(&tape(22, 500));
    let mut crossed = book(35_000, 1, 5, 5);
    crossed.bid_price[0] = crossed.ask_price[0];
    session.feed(crossed);
    session.feed(command(CommandKind::ResumeArm, u32::MAX, 0));
    let armed = i64::try_from(session.sequencer.last_seq()).unwrap();
    session.feed(command(CommandKind::ResumeConfirm, u32::MAX, armed));
    session.now += SECOND;
    session.feed_book(book(35_000, 1, 30, 1));
    assert!(
        session.engine.counters().fills > 5,
        "{:?}",
        session.engine.counters().refusals()
    );
    assert!(!session.engine.counters().refusals().is_empty());
    session.inputs
}

/// `k * imbalance_l1`, kept and smoothed in its state, by address.
unsafe extern "C" fn kernel(
    features: *const f64,
    parameters: *const f64,
    state: *mut f64,
    out: *mut f64,
    _now_ns: i64,
    _is_reset: i64,
) -> i64 {
    // SAFETY: the engine gives arrays of the declared sizes: one feature, one parameter, one number.
    unsafe {
        if (*features).is_nan() {
            return 1;
        }
        *state += 0.5 * (*features - *state);
        *out = *parameters * *state;
    }
    0
}

/// The same day decided by a kernel.
fn kernel_engine(template: &str) -> Engine {
    let shape = KernelShape {
        id: "smoothed".to_owned(),
        sha256: "a".repeat(64),
        features: vec!["imbalance_l1".to_owned()],
        parameters: vec!["k".to_owned()],
        state_count: 1,
    };
    let mut config = config(template, "");
    config.alphas[0].kernel = Some(KernelConfig {
        id: shape.id.clone(),
        sha256: shape.sha256.clone(),
        features: shape.features.clone(),
        parameters: shape.parameters.clone(),
        state_count: shape.state_count,
        sign: 1,
        source: "in this file".to_owned(),
        compiler: "rustc".to_owned(),
    });
    let mut kernels = Kernels::default();
    // SAFETY: `kernel` has the type, keeps to these sizes and lives for good.
    unsafe { kernels.add(shape, kernel as *const () as usize) }.unwrap();
    Engine::with_kernels(config, &kernels).unwrap()
}

#[test]
fn a_whole_day_allocates_nothing_after_construction() {
    let strong = "k * imbalance_l1 + 0.01 * ofi_l5_5s";
    // Every kind of memory, in time and in events.
    let remembering = "k * imbalance_l1 + 0.01 * (zscore(spread_ticks, 2s) + ema(imbalance_l1, 1s) \
        + mean(imbalance_l1, 500ms) + corr(imbalance_l1, spread_ticks, 50ev) + std(imbalance_l1, 20ev) \
        + lag(imbalance_l1, 1s) + delta(imbalance_l1, 3ev) + decay(imbalance_l1, 1s) \
        + min(imbalance_l1, 2s) - max(imbalance_l1, 9ev) + where(min(spread_ticks, 2) > 1, 1, 0) \
        + tanh(imbalance_l1) * exp(-abs(imbalance_l1)))";
    let mild = "0.1 * imbalance_l1";
    for (template, expression) in [
        (TAKER, strong),
        (TAKER, remembering),
        (MAKER, mild),
        (QUEUE_MAKER, mild),
        (GLFT_MAKER, mild),
        (AVELLANEDA_STOIKOV_MAKER, mild),
        (COST_TAKER, "10 * imbalance_l1"),
        (TARGET, strong),
    ] {
        let by_expression = || Engine::new(config(template, expression)).unwrap();
        let by_kernel = || kernel_engine(template);
        let makers: [&dyn Fn() -> Engine; 2] = [&by_expression, &by_kernel];
        let is_for_kernels = expression == strong || template == MAKER;
        for make in &makers[..if is_for_kernels { 2 } else { 1 }] {
            let inputs = day(template, make());
            let mut engine = make();
            let mut out = Vec::with_capacity(64);
            let before = ALLOCATIONS.get();
            let mut decisions = 0;
            for item in Tape::new(&inputs) {
                let Ok((header, bytes)) = item else { break };
                out.clear();
                engine.on_record(&header, bytes, &mut out);
                decisions += out.len();
            }
            let allocated = ALLOCATIONS.get() - before;
            assert_eq!(allocated, 0, "{decisions} decisions");
            assert!(decisions > 50, "{decisions}");
        }
        // The alarm rings: a vector that grows is counted.
        let counted = ALLOCATIONS.get();
        drop(std::hint::black_box(vec![1_u8; 100]));
        assert!(ALLOCATIONS.get() > counted);
    }
}

/// The log's path from a record to its acknowledgement, segment changes apart.
#[test]
fn appending_to_a_log_allocates_nothing() {
    let dir = std::env::temp_dir().join(format!("hft-no-allocation-{}", std::process::id()));
    let options = |kind, group_commit| Options {
        wal_id: 1,
        kind,
        segment_bytes: 16 << 20,
        group_commit,
        epoch: 1,
        seal_after: None,
        reserve: kind == LogKind::Orders,
    };
    let second = std::time::Duration::from_secs(1);
    let market = Writer::open(&dir.join("market"), options(LogKind::Market, second)).unwrap();
    // Without a thread the commit is done here, where allocations are counted.
    let orders = options(LogKind::Orders, std::time::Duration::ZERO);
    let orders = Writer::open(&dir.join("orders"), orders).unwrap();
    let (trade, broker) = (TradeRecord::empty(), BrokerRecord::empty());
    let batch = [trade.as_bytes(), trade.as_bytes()].concat();
    let counted = ALLOCATIONS.get();
    for _ in 0..200 {
        market.append(trade.as_bytes()).unwrap();
        market.append_tape(&batch).unwrap();
        orders.append_durable(broker.as_bytes()).unwrap();
    }
    market.sync().unwrap();
    assert_eq!(ALLOCATIONS.get(), counted);
    assert_eq!((market.durable_seq(), orders.durable_seq()), (600, 200));
    drop((market, orders));
    std::fs::remove_dir_all(&dir).unwrap();
}

/// Invariant 5 of the live session: from a book to its request, and from a fill to its position.
#[test]
fn a_live_session_allocates_nothing_once_it_is_open() {
    let dir = std::env::temp_dir().join(format!("hft-no-allocation-live-{}", std::process::id()));
    let options = r#"{"wal_id":1,"epoch":1,"durable":"record","segment_bytes":16777216}"#;
    let session = LiveSession::open(LiveSetup {
        engine_config: serde_json::to_string(&config(TAKER, "k * imbalance_l1")).unwrap(),
        session_dir: dir.clone(),
        options: LiveOptions::from_json(options).unwrap(),
        kernels: Kernels::default(),
    })
    .unwrap();
    let mut requests = 0;
    let mut trade = |place: i64| {
        let (bid_qty, ask_qty) = if place % 2 == 0 { (30, 1) } else { (10, 10) };
        let mut book = book(35_000 + place % 7, 1, bid_qty, ask_qty);
        book.header.receive_time_ns = support::START + place * SECOND;
        session.push(book.as_bytes()).unwrap();
        while let Some(request) = session.next_request(std::time::Duration::ZERO).unwrap() {
            requests += 1;
            session.mark_call(request.decision_seq, 1, 2);
            let mut fill = BrokerRecord::empty();
            fill.header.instrument_id = request.instrument_id;
            fill.header.receive_time_ns = request.decided_ns + 1;
            fill.event_kind = _core::record::BrokerEventKind::Fill as u32;
            fill.order_id = request.order_id;
            (fill.side, fill.price, fill.qty) = (request.side, request.price, request.qty);
            fill.broker_seq = request.decision_seq;
            session.push(fill.as_bytes()).unwrap();
        }
    };
    (0..20).for_each(&mut trade);
    let counted = ALLOCATIONS.get();
    (20..200).for_each(&mut trade);
    assert_eq!(ALLOCATIONS.get(), counted);
    assert!(requests > 100, "{requests}");
    drop(session);
    std::fs::remove_dir_all(&dir).unwrap();
}

/// Invariant 1 of alphas: what a program says it needs is what it asks the allocator for.
#[test]
fn reported_memory_is_what_is_allocated() {
    let held = || ASKED.get().wrapping_sub(GIVEN_BACK.get());
    let mut texts = vec![
        "spread_ticks".to_owned(),
        "corr(spread_ticks, imbalance_l1, 4096ev)".to_owned(),
        "zscore(spread_ticks, 30s) + mean(imbalance_l1, 1h) + lag(imbalance_l1, 10s)".to_owned(),
    ];
    texts.extend((0..40).map(expressions::expression));
    for text in texts {
        let parsed = Expression::parse(&text, &expressions::PARAMETERS).unwrap();
        let parameters = expressions::parameters();
        let before = held();
        let Ok(program) = Program::compile(&parsed, &parameters) else {
            continue;
        };
        let allocated = held().wrapping_sub(before);
        assert_eq!(allocated, program.memory_bytes() as u64, "{text}");
        drop(program);
        assert_eq!(held(), before, "{text}");
    }
}
