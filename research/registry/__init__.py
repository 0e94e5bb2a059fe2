"""research/registry."""
