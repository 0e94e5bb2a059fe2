"""TrialLedger: an append-only count of everything that was tried.

Why: the best of many tries looks good by luck; only an honest count can take the luck out.

Invariants:
1. A trial is identified by program, parameters, data, costs and window, and counts once however
   often it is run. Names are no part of it, so renaming an alpha neither adds nor resets trials.
2. Rows are only ever appended; the head after n rows is a hash over the first n keys, whatever
   their order, so a verdict can prove later that none of the trials it counted was removed.
3. Trials are declared before their results exist: the count does not depend on which of them ran.

It knows nothing of results (see `outcomes`). Operator's page: `docs/formats.md`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hft_platform.config.canonical import canonical_json, canonical_sha256, sha256_hex
from hft_platform.config.file_lock import locked
from hft_platform.errors import PlatformError, ReasonCode
from research.experiments.outcomes import OutcomeLog

LEDGER_FILE = "trials.jsonl"


@dataclass(frozen=True, slots=True)
class Trial:
    """One program with one set of parameters on one window of one dataset under one set of costs.

    Attributes
    ----------
    program : str
        SHA-256 of what is evaluated, without its name and its parameter values.
    parameters : dict
        Parameter values by name.
    data : str
        SHA-256 of the dataset.
    costs : str
        SHA-256 over costs, latency profile and queue model.
    window : str
        First and last session used.
    """

    program: str
    parameters: Mapping[str, float]
    data: str
    costs: str
    window: str

    def content(self) -> dict[str, Any]:
        """What the key is made of."""
        return {
            "program": self.program,
            "parameters": dict(self.parameters),
            "data": self.data,
            "costs": self.costs,
            "window": self.window,
        }

    @property
    def key(self) -> str:
        """Content hash of the trial."""
        return canonical_sha256(self.content())


@dataclass(frozen=True, slots=True)
class LedgerHead:
    """Number of trials and the hash over their sorted keys; every verdict on evidence holds one."""

    count: int
    head: str

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"count": self.count, "head": self.head}


class TrialLedger:
    """The ledger file of a workspace.

    Parameters
    ----------
    ws : Path
        Workspace folder; the ledger is `ws/ledger/trials.jsonl`.
    """

    def __init__(self, ws: Path) -> None:
        self._ws = ws
        self._folder = ws / "ledger"
        self._path = self._folder / LEDGER_FILE

    def declare(self, trials: Iterable[Trial], *, alpha_id: str) -> int:
        """Append the trials that are not there yet, in one durable write.

        Parameters
        ----------
        trials : iterable of Trial
            For an alpha its whole grid, before any of it is run.
        alpha_id : str
            Who declared them; for readers, not part of the key.

        Returns
        -------
        int
            How many were new.
        """
        with locked(self._folder):
            known = set(self._read(cut_torn_tail=True))
            new = b""
            added = 0
            for trial in trials:
                if trial.key in known:
                    continue
                known.add(trial.key)
                row = trial.content() | {"key": trial.key, "alpha_id": alpha_id}
                new += canonical_json(row) + b"\n"
                added += 1
            if added:
                with self._path.open("ab") as file:
                    file.write(new)
                    file.flush()
                    os.fsync(file.fileno())
            return added

    def keys(self) -> list[str]:
        """Keys in the order of declaration, each checked against its row."""
        with locked(self._folder):
            return self._read(cut_torn_tail=False)

    def head(self, count: int | None = None) -> LedgerHead:
        """Head over the first `count` trials, by default over all."""
        keys = self.keys()
        return _head_of(keys if count is None else keys[:count])

    def require_superset(self, recorded: Mapping[str, Any]) -> None:
        """Check that every trial and outcome a verdict counted is still in the ledger.

        Parameters
        ----------
        recorded : mapping
            ``count`` and ``head``, ``outcomes`` and ``outcomes_head`` as a verdict holds them.

        Raises
        ------
        PlatformError
            LEDGER_BEHIND_AUDIT when trials are missing or were replaced.
        """
        keys = self.keys()
        count = int(recorded["count"])
        if len(keys) < count or _head_of(keys[:count]).head != recorded["head"]:
            raise PlatformError(
                ReasonCode.LEDGER_BEHIND_AUDIT,
                f"the trial ledger holds {len(keys)} trials; a verdict was made with {count}, "
                "and its first ones are not the same",
                next_step="restore ledger/trials.jsonl from a copy; the count cannot be reset",
            )
        OutcomeLog(self._ws).require_superset(recorded)

    def _read(self, *, cut_torn_tail: bool) -> list[str]:
        if not self._path.exists():
            return []
        raw = self._path.read_bytes()
        complete = raw[: raw.rfind(b"\n") + 1]
        if len(complete) != len(raw) and cut_torn_tail:
            # A write that a crash interrupted: nothing was evaluated under these trials yet.
            with self._path.open("rb+") as file:
                file.truncate(len(complete))
        return [_checked_key(line, n) for n, line in enumerate(complete.splitlines(), 1)]


def _head_of(keys: list[str]) -> LedgerHead:
    return LedgerHead(len(keys), sha256_hex("\n".join(sorted(keys)).encode()))


def _checked_key(line: bytes, number: int) -> str:
    try:
        row = json.loads(line)
        key = str(row.pop("key"))
        row.pop("alpha_id")
        is_intact = canonical_sha256(row) == key
    except (ValueError, KeyError, AttributeError, TypeError):
        is_intact = False
    if not is_intact:
        raise PlatformError(
            ReasonCode.LEDGER_BEHIND_AUDIT,
            f"line {number} of the trial ledger does not match its key",
            next_step="restore ledger/trials.jsonl from a copy; it is append-only",
        )
    return key
