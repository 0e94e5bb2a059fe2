"""OutcomeLog: what came of each trial, appended when it was evaluated, failures among them.

Why: how many independent tries a ledger amounts to, and how far they spread, is known from their
profits only.

Invariants:
1. Rows are only ever appended, and each holds the hash of the one before it: a row that is
   removed, edited or reordered breaks every hash after it.
2. An evaluation with equal outcomes is the same evaluation. It is recorded once and it keeps the
   place in the log at which it was first made, so a rerun sees the trials it saw then.
3. A failure is an outcome: what could not be evaluated was tried all the same.

It knows nothing of statistics. Operator's page: `docs/formats.md`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hft_platform.config.canonical import canonical_json, canonical_sha256, sha256_hex
from hft_platform.config.file_lock import locked
from hft_platform.errors import PlatformError, ReasonCode

OUTCOMES_FILE = "outcomes.jsonl"
START = "0" * 64
"""What the first row holds as the hash of the one before it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one trial.

    Attributes
    ----------
    key : str
        Key of the trial.
    daily : mapping of int to int, or None
        Net profit by trading day, scaled; None when it could not be evaluated.
    failure : str or None
        Why not.
    """

    key: str
    daily: Mapping[int, int] | None
    failure: str | None = None

    def content(self) -> dict[str, Any]:
        """What identifies it."""
        daily = None
        if self.daily is not None:
            daily = {str(day): int(self.daily[day]) for day in sorted(self.daily)}
        return {"key": self.key, "daily": daily, "failure": self.failure}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Outcomes recorded together, and what the log and the ledger held when they were.

    Attributes
    ----------
    declared : int
        Trials in the ledger.
    rows : int
        Rows of the log, these outcomes included.
    head : str
        Hash of the last of them.
    others : dict of str to Outcome
        Newest outcome of every other trial among the rows before, by key.
    """

    declared: int
    rows: int
    head: str
    others: dict[str, Outcome]


class OutcomeLog:
    """The outcomes of a workspace.

    Parameters
    ----------
    ws : Path
        Workspace folder; the log is `ws/ledger/outcomes.jsonl`.
    """

    def __init__(self, ws: Path) -> None:
        self._folder = ws / "ledger"
        self._path = self._folder / OUTCOMES_FILE

    def record(
        self, outcomes: Sequence[Outcome], *, alpha_id: str, declared: int, source: str = "gate_c"
    ) -> Evaluation:
        """Append the outcomes of one evaluation, unless exactly these were recorded before.

        Parameters
        ----------
        outcomes : sequence of Outcome
            Of every trial that was evaluated together.
        alpha_id : str
            Who evaluated them; for readers.
        declared : int
            Trials in the ledger now.
        source : str, optional
            What evaluated them: a gate, a search.

        Returns
        -------
        Evaluation
            Of the first time these outcomes were recorded.
        """
        contents = [o.content() for o in sorted(outcomes, key=lambda o: o.key)]
        batch = canonical_sha256([source, contents])
        with locked(self._folder):
            rows = self._read(cut_torn_tail=True)
            found = [n for n, row in enumerate(rows) if row["batch"] == batch]
            if len(found) >= len(contents):
                # Rows of a torn append come first; the whole of it is the last of them.
                start = found[-len(contents)]
                declared = int(rows[start]["declared"])
            else:
                start = len(rows)
                previous = rows[-1]["hash"] if rows else START
                new = b""
                for content in contents:
                    row = content | {
                        "alpha_id": alpha_id,
                        "batch": batch,
                        "declared": declared,
                        "previous": previous,
                        "source": source,
                    }
                    line = canonical_json(row)
                    previous = sha256_hex(line)
                    rows.append(row | {"hash": previous})
                    new += line + b"\n"
                with self._path.open("ab") as file:
                    file.write(new)
                    file.flush()
                    os.fsync(file.fileno())
        end = start + len(contents)
        own = {outcome.key for outcome in outcomes}
        others = {row["key"]: _outcome_of(row) for row in rows[:start] if row["key"] not in own}
        return Evaluation(declared, end, str(rows[end - 1]["hash"]) if end else START, others)

    def rows(self) -> list[dict[str, Any]]:
        """Rows in the order of recording, each checked against the one before it."""
        with locked(self._folder):
            return self._read(cut_torn_tail=False)

    def head(self) -> dict[str, Any]:
        """How many rows there are, and the hash of the last: ``outcomes``, ``outcomes_head``."""
        rows = self.rows()
        return {"outcomes": len(rows), "outcomes_head": rows[-1]["hash"] if rows else START}

    def newest(self) -> dict[str, Outcome]:
        """Newest outcome of every trial, by key."""
        return {row["key"]: _outcome_of(row) for row in self.rows()}

    def require_superset(self, recorded: Mapping[str, Any]) -> None:
        """Check that every outcome a verdict counted is still in the log.

        Parameters
        ----------
        recorded : mapping
            As a verdict holds it: ``outcomes`` and ``outcomes_head``.

        Raises
        ------
        PlatformError
            LEDGER_BEHIND_AUDIT when outcomes are missing or were replaced.
        """
        count = int(recorded["outcomes"])
        if count == 0:
            return
        rows = self.rows()
        if len(rows) < count or rows[count - 1]["hash"] != recorded["outcomes_head"]:
            raise PlatformError(
                ReasonCode.LEDGER_BEHIND_AUDIT,
                f"the trial ledger holds {len(rows)} outcomes; a verdict was made with {count}, "
                "and its first ones are not the same",
                next_step=f"restore ledger/{OUTCOMES_FILE} from a copy; it is append-only",
            )

    def _read(self, *, cut_torn_tail: bool) -> list[dict[str, Any]]:
        if not self._path.exists():
            return []
        raw = self._path.read_bytes()
        complete = raw[: raw.rfind(b"\n") + 1]
        if len(complete) != len(raw) and cut_torn_tail:
            # An append that a crash interrupted; no verdict was made with it.
            with self._path.open("rb+") as file:
                file.truncate(len(complete))
        rows: list[dict[str, Any]] = []
        previous = START
        for number, line in enumerate(complete.splitlines(), 1):
            row = _checked_row(line, number, previous)
            previous = row["hash"]
            rows.append(row)
        return rows


def _checked_row(line: bytes, number: int, previous: str) -> dict[str, Any]:
    try:
        row: dict[str, Any] = json.loads(line)
        is_intact = row["previous"] == previous and {"key", "daily", "batch", "declared"} <= set(
            row
        )
    except (ValueError, KeyError, TypeError):
        is_intact = False
    if not is_intact:
        raise PlatformError(
            ReasonCode.LEDGER_BEHIND_AUDIT,
            f"line {number} of the trial outcomes does not follow the one before it",
            next_step=f"restore ledger/{OUTCOMES_FILE} from a copy; it is append-only",
        )
    return row | {"hash": sha256_hex(line)}


def _outcome_of(row: Mapping[str, Any]) -> Outcome:
    daily = row["daily"]
    return Outcome(
        key=str(row["key"]),
        daily=None if daily is None else {int(day): int(net) for day, net in daily.items()},
        failure=row["failure"],
    )
