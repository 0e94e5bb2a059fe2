//! Module `alpha`: being built.
