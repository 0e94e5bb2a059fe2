"""hft_platform/recorder."""
