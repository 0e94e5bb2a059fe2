"""Session register: which sessions began, signed by the runtime, so that none can be left out.

Why: evidence is complete only when a bad session cannot be made to have never happened. A summary
that is missing says so by its folder; a folder that is missing says nothing.

Invariants:
1. A session is registered when its folder is complete and before its first record.
2. Each line is linked to the one before and signed with the session key: a line cannot be edited,
   added by others, or left out from the middle.
3. A damaged register is an error of its own, never a shorter register; a torn last line is a
   crash, and is cut by the next session.

It cannot tell a register that was cut at its end together with the folders named there. Operator's
page: `docs/formats.md`.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hft_platform.config.canonical import canonical_json
from hft_platform.config.file_lock import locked
from hft_platform.config.keys import SigningKey, TrustedKey, public_key
from hft_platform.errors import PlatformError, ReasonCode

if TYPE_CHECKING:
    from hft_platform.config.promoted import PromotedConfig

_FIRST = "0" * 64
_NAMES = ("run_id", "alpha_id", "alpha_hash", "stage", "promotion_seq")


@dataclass(frozen=True, slots=True)
class BegunSession:
    """A session that began, whatever became of it."""

    run_id: str
    alpha_id: str
    alpha_hash: str
    stage: str
    promotion_seq: int


def register_path(workspace: Path) -> Path:
    """File of the register."""
    return workspace / "state" / "sessions.jsonl"


def begin_session(workspace: Path, session: BegunSession, key: SigningKey) -> None:
    """Register a session durably; one that is there already (continued after a crash) stays.

    Parameters
    ----------
    workspace : Path
        Workspace folder.
    session : BegunSession
        About to take its first record.
    key : SigningKey
        The session key.

    Raises
    ------
    PlatformError
        SUMMARY_TAMPERED when the register does not hold, WAL_WRITE_FAILED when it cannot be
        written: then the session must not begin.
    """
    path = register_path(workspace)
    try:
        with locked(path.parent):
            raw = path.read_bytes() if path.exists() else b""
            whole = raw[: raw.rfind(b"\n") + 1]
            rows = _checked(path, whole, key.trusted)
            if any(row["run_id"] == session.run_id for row in rows):
                return
            body = {name: getattr(session, name) for name in _NAMES}
            body["previous"] = _digest(rows[-1]) if rows else _FIRST
            line = canonical_json(body | {"ed25519": key.sign(_message(body))}) + b"\n"
            _append(path, line, len(whole))
    except OSError as error:
        raise PlatformError(
            ReasonCode.WAL_WRITE_FAILED,
            f"the register of sessions {path} could not be written: {error.strerror}",
        ) from error


def register_begin(workspace: Path, run_id: str, config: PromotedConfig, key: SigningKey) -> None:
    """Register the session of a config; see `begin_session`."""
    begin_session(
        workspace,
        BegunSession(
            run_id, config.alpha_id, config.alpha_hash, config.stage, config.promotion_seq
        ),
        key,
    )


def begun_sessions(workspace: Path) -> list[BegunSession]:
    """Sessions that began, in order; none when nothing was ever registered.

    Parameters
    ----------
    workspace : Path
        Workspace folder.

    Returns
    -------
    list of BegunSession

    Raises
    ------
    PlatformError
        SUMMARY_TAMPERED when a line was edited, added or left out.
    """
    path = register_path(workspace)
    try:
        with locked(path.parent):
            raw = path.read_bytes()
    except FileNotFoundError:
        return []
    whole = raw[: raw.rfind(b"\n") + 1]
    rows = _checked(path, whole, public_key(workspace, "session"))
    return [BegunSession(**{name: row[name] for name in _NAMES}) for row in rows]


def _checked(path: Path, raw: bytes, key: TrustedKey) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    previous = _FIRST
    for number, line in enumerate(raw.splitlines(), start=1):
        try:
            row = json.loads(line)
            body = {name: row[name] for name in (*_NAMES, "previous")}
            holds = body["previous"] == previous and canonical_json(row) == line
            holds = holds and key.is_signature_of(_message(body), str(row["ed25519"]))
        except (ValueError, KeyError, TypeError, RecursionError, PlatformError):
            holds = False
        if not holds:
            raise PlatformError(
                ReasonCode.SUMMARY_TAMPERED,
                f"the register of sessions {path} does not hold from line {number} on",
                next_step="restore it from a copy; find out who changed it",
            )
        rows.append(row)
        previous = _digest(row)
    return rows


def _append(path: Path, line: bytes, length: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.ftruncate(descriptor, length)  # a torn last line was never acknowledged
        os.lseek(descriptor, length, os.SEEK_SET)
        written = 0
        while written < len(line):
            written += os.write(descriptor, line[written:])
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest(row: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json(row)).hexdigest()


def _message(body: dict[str, Any]) -> bytes:
    return b"hft session register v1\n" + canonical_json(body)
