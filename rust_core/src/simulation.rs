//! Module `simulation`: being built.
