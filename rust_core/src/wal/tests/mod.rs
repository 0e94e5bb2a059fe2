//! Tests of the log, by what they do to it.

mod support;
mod round_trip;
