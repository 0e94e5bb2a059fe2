//! Module `strategy`: being built.
