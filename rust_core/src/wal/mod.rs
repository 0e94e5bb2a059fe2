//! Module `wal`: being built.
