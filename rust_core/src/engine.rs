//! Module `engine`: being built.
