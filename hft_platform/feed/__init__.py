"""hft_platform/feed."""
