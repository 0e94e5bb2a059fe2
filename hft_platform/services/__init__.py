"""hft_platform/services."""
