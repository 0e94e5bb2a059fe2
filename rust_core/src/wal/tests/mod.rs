//! Tests of the log, by what they do to it.

mod crafted;
mod crash;
mod damage;
mod earlier_schema;
mod golden;
mod negative_controls;
mod round_trip;
pub(super) mod sim_disk;
pub(super) mod support;
mod write_failure;
