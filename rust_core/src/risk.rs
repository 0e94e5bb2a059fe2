//! Module `risk`: being built.
