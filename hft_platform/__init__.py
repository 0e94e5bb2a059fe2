"""hft_platform."""
