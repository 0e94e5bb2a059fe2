//! Module `generator`: being built.
