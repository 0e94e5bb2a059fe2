"""Partitions, defined once."""

from __future__ import annotations

import dagster as dg

ALPHAS = dg.DynamicPartitionsDefinition(name="alpha")
"""Key is ``alpha_id@<12 hex of the content hash>``: an edited alpha is a new partition."""

SESSIONS = dg.DynamicPartitionsDefinition(name="session")
"""Key is a run id of the runtime: ``<session>-<symbol>-<alpha_id>-<stage>``."""
