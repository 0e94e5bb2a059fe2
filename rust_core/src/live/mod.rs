//! The live session: records of any thread in, approved requests for one dispatcher out.
//!
//! Why: feed and broker call back on threads of their own. What they say must get one order, one
//! log and one engine, and an intent must be on disk before the broker hears of it.
//!
//! Invariants:
//! 1. Every input gets the next `input_seq` and `sequence_time_ns = max(previous + 1,
//!    receive_time_ns)` under one lock, is in its log before the engine sees it, and is decided on
//!    before the next one.
//! 2. Every approved decision leaves as one request, once, in the order of the decisions, and with
//!    `durable: record` not before it is durable. A halt or a loss limit is durable before the push
//!    that caused it returns.
//! 3. After a failure of the order log no request leaves. After one of the market log the session
//!    halts; only what the halt asks for follows.
//! 4. A process that takes the session over is ahead of every epoch in the logs, recovers the engine
//!    from the order log and goes on behind the last input; its first record says so (`Epoch`). What
//!    was under way is unknown from then on and is never sent again.
//! 5. Without a segment change, taking a market record allocates nothing.
//! 6. The lock is held across no sync of the order log and no call into Python.
//!
//! It calls no broker and resolves nothing (see `hft_platform/order`, `execution`). Operator's page:
//! `docs/live.md`.

mod latency;
mod options;
mod queue;
mod recovery;
mod session;
mod tag;

#[cfg(test)]
mod tests;

pub use latency::{Histogram, Latency, Quantiles, Step, wall_ns};
pub use options::{LiveError, LiveOptions, LiveSetup};
pub use queue::{HONEST_COUNT_MAX, OrderRequest};
pub use recovery::Taken;
#[cfg(feature = "python")]
pub(crate) use session::holds_lock;
pub use session::{Finished, LiveSession, OrderView, Snapshot};
pub use tag::{TAG_CHARS, order_tag};
