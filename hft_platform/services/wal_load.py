"""Loading as the operator starts it: once, or following sealed segments until it is stopped.

Why: one command brings the store up to date, says what it did and what it could not do, and can be
left running beside the sessions, in as many processes as one likes when the store is a server.

Invariants:
1. A pass that could not reach the store is tried again, later and later; what was refused stays in
   the report with its code.
2. An embedded store is open only while there is something to load: other commands need it too.

It decides nothing about segments (`recorder/loader.py`). Operator's page: `docs/store.md`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hft_platform.errors import PlatformError, code_line
from hft_platform.services.wal_tools import WalReport

if TYPE_CHECKING:
    from hft_platform.recorder.ledger import FileStamp, SegmentKey
    from hft_platform.recorder.loader import OnSegment

FOLLOW_SECONDS = 1.0
AGAIN_SECONDS = 60.0
"""Segments that were refused are looked at again so often."""
BACKOFF_SECONDS = (1.0, 30.0)
Pending = frozenset[tuple["SegmentKey", "FileStamp"]]


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is sealed and not loaded.

    Attributes
    ----------
    segments, bytes : int
        How much.
    pending : frozenset
        Names and stamps, to see whether something new is there.
    """

    segments: int
    bytes: int
    pending: Pending


def backlog(workspace: Path) -> Backlog:
    """Look at folders and ledgers, without the store and without a claim.

    Parameters
    ----------
    workspace : Path
        Workspace.

    Returns
    -------
    Backlog
    """
    from hft_platform.recorder import segments
    from hft_platform.recorder.ledger import FileStamp, loaded_segments
    from hft_platform.recorder.loader import ledger_folder

    sealed, _ = segments.find_segments(segments.find_sessions(workspace))
    loaded = loaded_segments(ledger_folder(workspace))
    pending = set()
    for file in sealed:
        stamp, entry = FileStamp.of(file.path), loaded.get(file.key)
        if entry is None or (entry["size"], entry["mtime_ns"]) != (stamp.size, stamp.mtime_ns):
            pending.add((file.key, stamp))
    return Backlog(len(pending), sum(stamp.size for _, stamp in pending), frozenset(pending))


def load_once(
    workspace: Path,
    *,
    is_checked: bool = False,
    wait_s: float | None = None,
    on_segment: OnSegment | None = None,
) -> WalReport:
    """Load what is sealed, and the audit; then archive what was loaded long ago.

    Parameters
    ----------
    workspace : Path
        Workspace.
    is_checked : bool, optional
        Hold everything that is loaded against the replay contract afterwards.
    wait_s : float, optional
        Longest wait for other loaders; see `load_sealed`.
    on_segment : callable, optional
        Progress.

    Returns
    -------
    WalReport
        With a problem for each refused segment and each violation of the contract.

    Raises
    ------
    PlatformError
        The store's codes, WAL_WRITE_FAILED.
    """
    from hft_platform.config.settings import load_settings
    from hft_platform.recorder.archive import Retention, archive_folder, archive_loaded
    from hft_platform.recorder.governance import load_governance
    from hft_platform.recorder.loader import LOCK_WAIT_SECONDS, load_sealed
    from hft_platform.recorder.replay_contract import check_store
    from hft_platform.recorder.store import open_configured_store

    rules = load_settings().loader
    archive = archive_folder(workspace, rules.archive_folder)
    with open_configured_store(workspace) as store:
        report = load_sealed(
            workspace, store, archive=archive, on_segment=on_segment,
            wait_s=LOCK_WAIT_SECONDS if wait_s is None else wait_s,
        )  # fmt: skip
        governance = load_governance(workspace, store)
        contract = check_store(workspace, store) if is_checked else None
        archived = archive_loaded(
            workspace, store, Retention(archive, rules.archive_after_days, rules.retention_days),
            now_ns=time.time_ns(),
        )  # fmt: skip
    content: dict[str, Any] = report.as_dict() | {"governance": governance.rows}
    content["archive"] = archived.as_dict()
    problems = [*report.problems, *governance.problems, *archived.problems]
    if contract is not None:
        content["contract"] = contract.as_dict()
        problems += map(str, contract.violations)
    return WalReport("load", [content], problems)


def follow(
    workspace: Path,
    *,
    is_checked: bool = False,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[WalReport]:
    """Load again whenever something new is sealed, until the caller stops asking.

    Parameters
    ----------
    workspace : Path
        Workspace.
    is_checked : bool, optional
        As for `load_once`.
    sleep, clock : callable, optional
        How to wait, and what time it is.

    Yields
    ------
    WalReport
        After each pass: what it did, or why the store could not be asked.
    """
    from hft_platform.recorder.store_errors import FAILURES

    tried: Pending | None = None
    tried_at = clock()
    backoff = BACKOFF_SECONDS[0]
    while True:
        waiting = backlog(workspace).pending
        is_due = (
            tried is None or waiting - tried or (waiting and clock() - tried_at > AGAIN_SECONDS)
        )
        if not is_due:
            sleep(FOLLOW_SECONDS)
            continue
        try:
            report = load_once(workspace, is_checked=is_checked, wait_s=0)
        except PlatformError as error:
            failure = FAILURES.get(error.code)
            if failure is None or not failure.is_passing:
                raise
            problem = code_line(error.code, error.message)
            yield WalReport("load", [{"tried_again_in_s": backoff}], [problem])
            sleep(backoff)
            backoff = min(2 * backoff, BACKOFF_SECONDS[1])
            continue
        backoff = BACKOFF_SECONDS[0]
        # What another loader holds is not tried: it may die.
        left = set(report.rows[0]["left_to_others"])
        tried = frozenset(item for item in waiting if str(item[0]) not in left)
        tried_at = clock()
        yield report
        if left:
            sleep(FOLLOW_SECONDS)
