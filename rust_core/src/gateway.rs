//! Module `gateway`: being built.
