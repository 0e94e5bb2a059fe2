"""hft_platform/order."""
