//! Module `session`: being built.
