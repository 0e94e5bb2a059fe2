"""hft_platform/execution."""
