//! Invariant 3 of the engine: after construction a whole day allocates nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests stop at the first surprise"
)]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use _core::engine::{Engine, KernelConfig};
use _core::kernel::{KernelShape, Kernels};
use _core::record::{CommandKind, Tape};
use support::{MAKER, SECOND, Session, TAKER, book, command, config, tape};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system allocator unchanged; only a counter is added.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Inputs of a session with entries, quotes, fills, refusals, a halt, a resume and damaged books.
fn day(template: &str, engine: Engine) -> Vec<u8> {
    let mut session = Session::new(config(template, "0"));
    session.engine = engine;
    session.feed_tape(&tape(21, 4_000));
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
    for (template, expression) in [(TAKER, strong), (MAKER, "0.1 * imbalance_l1")] {
        let by_expression = || Engine::new(config(template, expression)).unwrap();
        let by_kernel = || kernel_engine(template);
        let makers: [&dyn Fn() -> Engine; 2] = [&by_expression, &by_kernel];
        for make in makers {
            let inputs = day(template, make());
            let mut engine = make();
            let mut out = Vec::with_capacity(64);
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            let mut decisions = 0;
            for item in Tape::new(&inputs) {
                let Ok((header, bytes)) = item else { break };
                out.clear();
                engine.on_record(&header, bytes, &mut out);
                decisions += out.len();
            }
            let allocated = ALLOCATIONS.load(Ordering::Relaxed) - before;
            assert_eq!(allocated, 0, "{decisions} decisions");
            assert!(decisions > 50, "{decisions}");
        }
        // The alarm rings: a vector that grows is counted.
        let counted = ALLOCATIONS.load(Ordering::Relaxed);
        drop(std::hint::black_box(vec![1_u8; 100]));
        assert!(ALLOCATIONS.load(Ordering::Relaxed) > counted);
    }
}
