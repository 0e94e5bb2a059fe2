//! Module `latency`: being built.
