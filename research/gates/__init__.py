"""research/gates."""
