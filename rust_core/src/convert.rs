//! Module `convert`: being built.
