"""The commands of hft-research, a file for each kind; `research/cli.py` parses their arguments."""
