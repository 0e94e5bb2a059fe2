//! Module `features`: being built.
