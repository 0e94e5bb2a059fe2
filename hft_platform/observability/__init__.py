"""hft_platform/observability."""
