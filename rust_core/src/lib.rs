//! Hot path of the trading platform.
//!
//! One record, one engine: everything that can change a decision enters as a record, and
//! `event in -> decisions out` is a deterministic state machine. See `docs/architecture.md`.

#[cfg(test)]
extern crate self as _core;

pub mod alpha;
pub mod book;
pub mod bus;
pub mod convert;
pub mod costs;
pub mod engine;
pub mod exchange;
pub mod faults;
pub mod features;
pub mod gateway;
pub mod generator;
pub mod kernel;
pub mod latency;
pub mod live;
pub mod math;
pub mod normaliser;
pub mod package_run;
pub mod package_venue;
pub mod paper_broker;
pub mod reason;
pub mod record;
pub mod record_upgrade;
pub mod risk;
pub mod session;
pub mod session_recovery;
pub mod shed;
pub mod simulation;
pub mod storm_guard;
pub mod strategy;
pub mod thread_owned;
pub mod ticks;
pub mod wal;

#[cfg(feature = "python")]
mod python;
