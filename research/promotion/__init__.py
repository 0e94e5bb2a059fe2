"""research/promotion."""
