"""hft_platform/config."""
