"""The commands of hft-live, a file for each kind; `hft_platform/cli.py` parses their arguments."""
