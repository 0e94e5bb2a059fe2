//! Module `book`: being built.
