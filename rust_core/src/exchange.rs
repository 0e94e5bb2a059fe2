//! Module `exchange`: being built.
