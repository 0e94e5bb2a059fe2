"""hft_platform/gateway."""
