"""Market data for research: ingestion, datasets, quality and catalog."""

from research.data.catalog import load_tape
from research.data.datasets import Dataset, SessionRef
from research.data.ingest import ingest

__all__ = ["Dataset", "SessionRef", "ingest", "load_tape"]
