"""research/stats."""
