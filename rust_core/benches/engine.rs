//! How many events a second the whole engine takes. Protects: replay and research speed.
//!
//! A whole session through sequencer, book, every feature, one alpha of six terms, template and
//! every check, in one thread. A small venue answered the orders beforehand, so its broker events are
//! among the inputs and the checks have work. Set-up is outside the timed part.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark stops at the first surprise"
)]

mod inputs;

use std::hint::black_box;

use _core::engine::{Engine, EngineConfig, Sequencer, run_tape};
use _core::record::{DecisionRecord, Tape};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use inputs::support::{MAKER, Session, TAKER};

fn run(config: &EngineConfig, tape: &[u8], engine: &mut Engine, out: &mut Vec<DecisionRecord>) {
    let mut sequencer = Sequencer::default();
    run_tape(engine, &mut sequencer, tape, false, out).unwrap();
    black_box((config, out));
}

fn events(criterion: &mut Criterion) {
    let (market, source) = inputs::tape();
    let mut group = criterion.benchmark_group("engine_events");
    group.sample_size(20);
    for (name, template) in [("taker", TAKER), ("maker", MAKER)] {
        let config = inputs::config(&market, template, inputs::ALPHA);
        let mut session = Session::new(config.clone());
        session.now = 0;
        session.feed_tape(&market);
        println!("{name}: {} decisions", session.decisions.len());
        let tape = session.inputs;
        group.throughput(Throughput::Elements(Tape::new(&tape).count() as u64));
        group.bench_function(format!("{name}/{source}"), |bencher| {
            bencher.iter_batched_ref(
                || {
                    (
                        Engine::new(config.clone()).unwrap(),
                        Vec::with_capacity(1 << 16),
                    )
                },
                |(engine, out)| run(&config, &tape, engine, out),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, events);
criterion_main!(benches);
