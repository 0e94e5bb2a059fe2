"""Bench: an honest workspace of one's own, the ways to change it, and what catches the change."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from hft_platform.errors import PlatformError, code_name
from hft_platform.feed.recording import read_records
from hft_platform.market.instruments import load_instruments
from hft_platform.market.sessions import session_of
from research import registry
from research.data import catalog, receive_times
from research.data.datasets import DatasetWriter
from research.data.ingest import ingest
from research.gates import collect_a, run_gate
from research.gates.signals import batch_rows
from research.gates.verdict import GateVerdict, Verdict

ALPHA = "txf_ofi_taker"
NO_CONFIG = Path("no-such-folder")

Change = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, slots=True)
class Caught:
    """Who noticed a leak, and what was said."""

    by: str
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Bench:
    """An honest workspace and its recordings."""

    recording: Path
    ws: Path
    tmp: Path
    monkeypatch: pytest.MonkeyPatch

    def gate(
        self,
        gate: str,
        ws: Path | None = None,
        alpha: registry.Alpha | None = None,
        *,
        config_dir: Path = NO_CONFIG,
    ) -> Verdict:
        """Verdict of a gate."""
        found = alpha or registry.find_alpha(ALPHA)
        return run_gate(ws or self.ws, found, gate, config_dir=config_dir)

    def by_gate(self, gate: str, ws: Path | None = None, alpha=None) -> Caught:
        """What a gate says; only a verdict that opens nothing is a catch."""
        return caught(self.gate(gate, ws, alpha))

    def edited(self, **fields: object) -> registry.Alpha:
        """The alpha with other fields in its manifest."""
        folder = self.tmp / ALPHA
        shutil.copytree(registry.bundled_folder() / ALPHA, folder)
        path = folder / "manifest.yaml"
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | fields))
        return registry.load_alpha(folder)

    def pipeline(self, leak: Callable[[np.ndarray], np.ndarray]) -> None:
        """Research evaluates the signal over whole days and adds what it should not know."""

        def leaky(tape: bytes, config) -> np.ndarray:
            rows = batch_rows(tape, config).copy()
            signal = leak(rows)
            # As the engine: no value during the warm-up.
            rows["signal"] = np.where(np.isnan(rows["signal"]), np.nan, signal)
            return rows

        self.monkeypatch.setattr(collect_a, "batch_rows", leaky)

    def recorded(self, change: Callable[[str, pl.DataFrame], pl.DataFrame]) -> Path:
        """Recordings that were changed before anybody ingested them."""
        folder = self.tmp / "recordings"
        folder.mkdir()
        for path in sorted(self.recording.glob("*.parquet")):
            change(path.name, pl.read_parquet(path)).write_parquet(folder / path.name)
        return folder

    def ingested(self, folder: Path, ws: Path | None = None) -> Path:
        """Workspace with the dataset of a recording."""
        made = ws or self.tmp / "other"
        ingest(folder, made, load_instruments(NO_CONFIG))
        return made

    def written(self, change: Change) -> Path:
        """Workspace whose records were changed by a pipeline of somebody's own.

        `change` gets books and trades of each session. The dataset is whole: its hashes fit.
        """
        ws, instruments = self.tmp / "other", load_instruments(NO_CONFIG)
        source = catalog.dataset_of(self.ws, ["TXFD6"])
        content = catalog.description(source)
        with DatasetWriter(ws, "written") as writer:
            for session in source.sessions:
                parts = [read_records(session.path, name) for name in ("Book", "Trade")]
                books, trades = change(*parts)
                facts = {
                    "first_ns": int(books["exchange_time_ns"][0]),
                    "last_ns": int(books["exchange_time_ns"][-1]),
                }
                found = session_of(instruments.by_symbol("TXFD6"), session.start_ns)
                writer.add(found, "TXFD6", books, trades, facts)
            writer.finish(
                inputs=content["inputs"],
                method=receive_times.method(receive_times.DEFAULT_SEED),
                instruments=content["instruments"],
                quality=catalog.quality_report(source),
            )
        return ws


def caught(verdict: Verdict) -> Caught:
    """First reason of a verdict that opens nothing."""
    assert verdict.verdict in (GateVerdict.FAILED, GateVerdict.NOT_COMPUTED), verdict.verdict
    first = verdict.reasons[0]
    return Caught(f"gate {verdict.gate[-1].upper()}", first["name"], first["text"])


def refused(by: str, act: Callable[[], object]) -> Caught:
    """What an act that is refused outright says."""
    with pytest.raises(PlatformError) as error:
        act()
    return Caught(by, code_name(error.value.code), error.value.message)
