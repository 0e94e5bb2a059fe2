//! Module `costs`: being built.
