"""hft_platform/market."""
