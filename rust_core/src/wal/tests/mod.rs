//! Tests of the log, by what they do to it.

mod crafted;
mod crash;
mod damage;
mod earlier_schema;
pub(crate) mod failing;
mod follow;
mod golden;
mod manifest;
mod negative_controls;
mod round_trip;
mod segments;
pub(super) mod sim_disk;
pub(super) mod support;
mod write_failure;
