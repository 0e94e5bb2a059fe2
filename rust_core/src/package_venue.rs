//! Module `package_venue`: being built.
