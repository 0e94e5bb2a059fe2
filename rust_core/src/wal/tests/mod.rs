//! Tests of the log, by what they do to it.

mod crafted;
mod crash;
mod damage;
mod earlier_schema;
mod exhaustive;
pub(crate) mod failing;
mod follow;
mod golden;
mod images;
mod manifest;
mod negative_controls;
mod round_trip;
mod salvage;
mod segments;
pub(super) mod sim_disk;
pub(super) mod support;
mod write_failure;
