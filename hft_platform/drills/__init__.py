"""Drills: outages that an operator, or a test, runs on purpose against the real parts."""
