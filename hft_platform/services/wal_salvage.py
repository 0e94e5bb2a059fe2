"""Salvage: get at what is whole in a log that recovery refuses, and put it in the log's place.

Why: a refusal protects durable records, and then an operator stands there with a session that does
not start. The good records are copied into new logs, what is missing is written down, and only a
second command, with the token that the first one printed, moves anything.

Invariants:
1. The damaged log is only read; when it is swapped out it is kept whole, as `<log>.damaged`.
2. A salvaged folder without `salvage.json` is unfinished and never swapped in.
3. `salvage.json` goes with the log: parity and the gates read it as "no evidence".

Operator's page: `docs/wal-salvage.md`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from hft_platform import _core, records
from hft_platform.config.canonical import atomic_write
from hft_platform.errors import PlatformError, ReasonCode, code_line
from hft_platform.recorder.archive import whole_log
from hft_platform.services.core_calls import typed_errors

MARKER = "salvage.json"
"""Says of a log that it was salvaged, and what is missing from it."""
PLACE, APPROVED = 1, 1
REJECTED, FILL, CANCELED, EXPIRED = 2, 3, 4, 6
"""`ActionKind`, verdict and `BrokerEventKind` in rust_core/src/record.rs."""


def require_unsalvaged(log_dir: Path) -> None:
    """Refuse a log that a salvage was swapped into.

    Raises
    ------
    PlatformError
        WAL_SALVAGED, with what is missing.
    """
    marker = log_dir / MARKER
    if marker.exists():
        raise PlatformError(
            ReasonCode.WAL_SALVAGED,
            f"{log_dir.parent.name}/{log_dir.name} was salvaged: {_missing_text(_read(marker))}",
        )


def salvage(log_dir: Path, *, target: Path | None = None) -> tuple[dict[str, Any], list[str]]:
    """Copy what is good in a damaged log into a new folder and write down what is missing.

    Parameters
    ----------
    log_dir : Path
        Folder of the log; it is only read.
    target : Path, optional
        Folder to make; by default the first free ``<log>-salvaged-N`` beside the log.

    Returns
    -------
    row : dict
        What was done, with the token that swaps it in; ``state`` is ``sound`` when nothing was.
    problems : list of str
        One for everything that is missing.

    Raises
    ------
    PlatformError
        The log's codes: a live writer, another schema, no whole record, a target that exists.
    """
    try:
        with typed_errors(f"log {log_dir.name}"):
            _core.verify_log(str(log_dir))
    except PlatformError as error:
        if error.code == ReasonCode.WAL_READ_FAILED:
            raise
        refusal = {"code": error.code, "message": error.message}
    else:
        return {"log": log_dir.name, "state": "sound", "target": None}, []
    folder = target or _free_target(log_dir)
    with typed_errors(f"log {log_dir.name}"):
        found = _core.salvage_log(str(log_dir), str(folder))
    parts = [
        part | {"log_dir": os.path.relpath(part["log_dir"], folder)} for part in found["parts"]
    ]
    content = {
        "version": 1,
        "log": log_dir.name,
        "log_kind": found["log_kind"],
        "wal_id": found["wal_id"],
        "refused_by": refusal,
        "source_sha256": _fingerprint(log_dir),
        "parts": parts,
        "holes": found["holes"],
        "orders": _orders(log_dir, folder, found),
    }
    atomic_write(folder / MARKER, json.dumps(content, sort_keys=True, indent=1).encode())
    row = {
        "log": log_dir.name,
        "state": "salvaged",
        "target": str(folder),
        "records": sum(part["record_count"] for part in parts),
        "parts": len(parts),
        "token": _token(folder),
        **{f"orders_{name}": ids for name, ids in content["orders"].items()},
    }
    return row, [_hole_text(hole) for hole in found["holes"]]


def swap_in(log_dir: Path, token: str) -> dict[str, Any]:
    """Put a salvaged log in the place of the damaged one, which is kept as ``<log>.damaged``.

    Parameters
    ----------
    log_dir : Path
        Where the damaged log is, or was when a swap was interrupted.
    token : str
        As `salvage` returned it.

    Returns
    -------
    dict
        What was moved.

    Raises
    ------
    PlatformError
        CONFIG_NOT_FOUND when no finished salvage has this token, SEGMENT_CHANGED when the damaged
        log is not the one that was salvaged, WAL_BUSY when a process holds it.
    """
    matching = [
        folder
        for folder in sorted(log_dir.parent.glob(f"{log_dir.name}-salvaged-*"))
        if (folder / MARKER).exists() and _token(folder) == token
    ]
    if not matching:
        raise PlatformError(
            ReasonCode.CONFIG_NOT_FOUND,
            f"no finished salvage of {log_dir.name} has the token {token}",
            next_step=f"hft-live wal salvage {log_dir}",
        )
    (salvaged,) = matching
    aside = log_dir.with_name(f"{log_dir.name}.damaged")
    # After a swap that was interrupted between its two renames only the second is left to do.
    if log_dir.exists():
        if aside.exists():
            raise PlatformError(
                ReasonCode.CONFIG_NOT_FOUND,
                f"{aside} is there already: an earlier damaged log",
                next_step="move it away; nothing was changed",
            )
        with _locked(log_dir):
            if _fingerprint(log_dir) != _read(salvaged / MARKER)["source_sha256"]:
                raise PlatformError(
                    ReasonCode.SEGMENT_CHANGED,
                    f"{log_dir.name} changed since it was salvaged; nothing was moved",
                    next_step=f"hft-live wal salvage {log_dir}",
                )
            log_dir.rename(aside)
            _sync(log_dir.parent)
    salvaged.rename(log_dir)
    _sync(log_dir.parent)
    with typed_errors(f"log {log_dir.name}"):
        report = _core.recover_log(str(log_dir))
    return {
        "log": log_dir.name,
        "state": "swapped in",
        "damaged": str(aside),
        "last_seq": report["last_seq"],
    }


def _free_target(log_dir: Path) -> Path:
    number = 1
    while (target := log_dir.with_name(f"{log_dir.name}-salvaged-{number}")).exists():
        number += 1
    return target


def _hole_text(hole: dict[str, Any]) -> str:
    code = ReasonCode.WAL_DAMAGED if hole["was_durable"] else ReasonCode.WAL_TORN_TAIL
    last = "an unknown end" if hole["last_seq"] is None else hole["last_seq"]
    after, before = hole["after_input_seq"], hole["before_input_seq"]
    text = (
        f"{hole['file_name']} bytes {hole['from_offset']} to"
        f" {hole['to_offset']}: {hole['fault']}; records {hole['first_seq']} to {last} are missing,"
        f" between input_seq {after or 'the beginning'} and {before or 'the end'}"
    )
    return code_line(code, text)


def _missing_text(content: dict[str, Any]) -> str:
    holes = [hole for hole in content["holes"] if hole["was_durable"]] or content["holes"]
    spans = [f"{hole['first_seq']} to {hole['last_seq'] or 'the end'}" for hole in holes]
    return f"records {', '.join(spans) or 'unknown'} are missing"


def _orders(log_dir: Path, folder: Path, found: dict[str, Any]) -> dict[str, list[int]]:
    """Orders whose story has a hole: still open at it, known only behind it, or without a cause."""
    if found["log_kind"] == "orders":
        return _orders_at_holes(found)
    sibling = log_dir.parent / "orders"
    try:
        with whole_log(sibling) as whole:
            tape = _core.read_log(str(whole))["tape"]
    except _core.WalError:
        return {}
    rows = _placed(records.split(tape)["Decision"])
    missing = np.zeros(rows.size, dtype=bool)
    for hole in found["holes"]:
        behind = rows["input_seq"] > np.uint64(hole["after_input_seq"] or 0)
        before = hole["before_input_seq"]
        missing |= behind if before is None else behind & (rows["input_seq"] < np.uint64(before))
    return {"without_cause": _ids(rows[missing])}


def _orders_at_holes(found: dict[str, Any]) -> dict[str, list[int]]:
    tapes = [_core.read_log(part["log_dir"])["tape"] for part in found["parts"]]
    before, behind = records.split(tapes[0]), [records.split(tape) for tape in tapes[1:]]
    broker = before["Broker"]
    is_done = np.isin(broker["event_kind"], (REJECTED, CANCELED, EXPIRED)) | (
        (broker["event_kind"] == FILL) & (broker["remaining_qty"] == 0)
    )
    placed = set(_ids(_placed(before["Decision"])))
    seen = {
        int(order_id)
        for part in behind
        for name in ("Decision", "Broker")
        for order_id in part[name]["order_id"]
        if order_id
    }
    return {
        "open_at_hole": sorted(placed - set(_ids(broker[is_done]))),
        "only_behind": sorted(seen - placed),
    }


def _placed(decisions: Any) -> Any:  # Any: rows of a dtype
    return decisions[(decisions["action"] == PLACE) & (decisions["verdict"] == APPROVED)]


def _ids(rows: Any) -> list[int]:  # Any: rows of a dtype
    return sorted({int(order_id) for order_id in rows["order_id"]})


def _read(marker: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(marker.read_bytes())
    return content


def _token(folder: Path) -> str:
    return hashlib.sha256((folder / MARKER).read_bytes()).hexdigest()[:12]


def _fingerprint(log_dir: Path) -> str:
    """Hash over the segment files of a log and their names."""
    whole = hashlib.sha256()
    for file in sorted(log_dir.iterdir()):
        if file.suffix in (".seg", ".open"):
            whole.update(file.name.encode() + b"\0")
            whole.update(hashlib.sha256(file.read_bytes()).digest())
    return whole.hexdigest()


@contextmanager
def _locked(log_dir: Path) -> Iterator[None]:
    """Hold the log's lock, as its writer would."""
    lock = os.open(log_dir / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PlatformError(
                ReasonCode.WAL_BUSY, f"{log_dir}: another process writes or recovers the log"
            ) from error
        yield
    finally:
        os.close(lock)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
