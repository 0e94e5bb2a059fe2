"""What an operator asks a session for: reduce-only, flatten, adopt; one file each in its folder.

Why: a halt stands until it is lifted, so it is a file of the workspace. These three are asked of
one session, once, and whoever asked wants to know that the session has taken it. A process that
trades opens no port for that; it looks into its own folder between steps.

Invariants:
1. A request is a file that appears complete or not at all, numbered in the order of asking.
2. A session takes requests in that order, and each of them once: the answer beside it says as
   which input, or why not. A crash in between takes it again, which none of the three minds.
3. What cannot be read restricts by its name: a damaged flatten flattens; only a damaged adopt,
   which would permit something, is refused.
4. What was asked is a Command record in the order log: a replay obeys it too.

It decides nothing. Operator's page: `docs/reconciliation.md`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from hft_platform.config.canonical import atomic_write, canonical_json, write_once
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.input_records import SOURCE_OPERATOR, CommandKind, command_record

REQUEST_COUNT_MAX = 9_999
"""Requests that one session takes; a folder with more of them is not an operator's work."""


class RequestKind(IntEnum):
    """What can be asked; each becomes a command."""

    REDUCE_ONLY = CommandKind.REDUCE_ONLY
    FLATTEN = CommandKind.FLATTEN
    ADOPT = CommandKind.ADOPT_EXTERNAL


_NAMES = {kind: kind.name.lower().replace("_", "-") for kind in RequestKind}
_KINDS = {name: kind for kind, name in _NAMES.items()}


@dataclass(frozen=True, slots=True)
class OperatorRequest:
    """One request.

    Attributes
    ----------
    request_id : str
        Number and kind, as its file is called: ``0001-flatten``.
    kind : RequestKind
        What is asked.
    who, why : str
        Kept with it.
    since_ns : int or None
        When it was asked; None when its file is damaged.
    instrument_id : int
        Of the header; 0 is every instrument.
    argument : int
        Quantity to adopt at 1e-8, signed.
    refusal : int
        Why it cannot be passed on, else 0.
    """

    request_id: str
    kind: RequestKind
    who: str
    why: str
    since_ns: int | None
    instrument_id: int = 0
    argument: int = 0
    refusal: int = ReasonCode.UNSET

    @property
    def reason_code(self) -> int:
        """Code that the command carries."""
        return int(ReasonCode.REDUCE_ONLY_ON if self.kind == RequestKind.REDUCE_ONLY else 0)

    def as_record(self, receive_time_ns: int) -> bytes:
        """Give the Command record that a live session is pushed.

        Parameters
        ----------
        receive_time_ns : int
            When the session looked.
        """
        return command_record(
            CommandKind(self.kind),
            receive_time_ns,
            source_id=SOURCE_OPERATOR,
            instrument_id=self.instrument_id,
            argument=self.argument,
            reason_code=self.reason_code,
        )


Put = Callable[[OperatorRequest], int]
"""Puts a request into a session's inputs; gives its `input_seq`, or raises PlatformError."""


def ask(
    session_dir: Path,
    kind: RequestKind,
    *,
    who: str,
    why: str,
    since_ns: int,
    instrument_id: int = 0,
    argument: int = 0,
) -> OperatorRequest:
    """Leave a request for a session.

    Parameters
    ----------
    session_dir : Path
        Folder of the session.
    kind : RequestKind
        What is asked.
    who, why : str
        Kept with it.
    since_ns : int
        Wall clock.
    instrument_id : int, optional
        Narrows a reduce-only; the instrument of an adopt.
    argument : int, optional
        Quantity to adopt.

    Returns
    -------
    OperatorRequest

    Raises
    ------
    PlatformError
        CAPACITY_REACHED when the session was asked too often.
    """
    content = {
        "who": who,
        "why": why,
        "since_ns": since_ns,
        "instrument_id": instrument_id,
        "argument": argument,
    }
    raw = canonical_json(content) + b"\n"
    for number in range(len(_files(session_dir)) + 1, REQUEST_COUNT_MAX + 1):
        taken = any(path.name.startswith(f"{number:04d}-") for path in _files(session_dir))
        path = _folder(session_dir) / f"{number:04d}-{_NAMES[kind]}.json"
        try:
            if not taken and write_once(path, raw, mode=0o644):
                return _read(path)
        except FileExistsError:
            continue
    raise PlatformError(
        ReasonCode.CAPACITY_REACHED,
        f"session {session_dir.name} was asked {REQUEST_COUNT_MAX} times already",
        next_step="hft-live halt",
    )


def pending(session_dir: Path) -> list[OperatorRequest]:
    """Requests that the session has not answered yet, in the order of asking.

    Parameters
    ----------
    session_dir : Path
        Folder of the session.
    """
    files = _files(session_dir)
    return [_read(path) for path in files if not _answer_path(session_dir, path.stem).exists()]


def obey(session_dir: Path, put: Put) -> int:
    """Pass what is pending on, and answer it; call it between steps.

    Parameters
    ----------
    session_dir : Path
        Folder of the session.
    put : callable
        Puts a request into the session's inputs. Its PlatformError is the answer.

    Returns
    -------
    int
        Requests that were passed on.
    """
    passed_on = 0
    for request in pending(session_dir):
        if request.refusal:
            _answer(session_dir, request, input_seq=0, code=request.refusal)
            continue
        try:
            input_seq = put(request)
        except PlatformError as error:
            _answer(session_dir, request, input_seq=0, code=error.code)
            continue
        _answer(session_dir, request, input_seq=input_seq, code=ReasonCode.UNSET)
        passed_on += 1
    return passed_on


def put_into(session: Any, clock_ns: Callable[[], int]) -> Put:  # Any: a LiveSession
    """Make what `obey` needs of a live session.

    Parameters
    ----------
    session : LiveSession
        Takes the records.
    clock_ns : callable
        ns UTC.

    Returns
    -------
    callable
        Gives the request's `input_seq`.
    """

    def put(request: OperatorRequest) -> int:
        return int(session.push(request.as_record(clock_ns())))

    return put


def answer_to(session_dir: Path, request: OperatorRequest) -> dict[str, Any] | None:
    """What the session answered: `input_seq` and `code`; None while it has not.

    Parameters
    ----------
    session_dir : Path
        Folder of the session.
    request : OperatorRequest
        As `ask` gave it.
    """
    try:
        content = json.loads(_answer_path(session_dir, request.request_id).read_bytes())
    except FileNotFoundError:
        return None
    return {"input_seq": int(content["input_seq"]), "code": int(content["code"])}


def _folder(session_dir: Path) -> Path:
    return session_dir / "requests"


def _files(session_dir: Path) -> list[Path]:
    try:
        names = sorted(path for path in _folder(session_dir).iterdir() if path.suffix == ".json")
    except FileNotFoundError:
        return []
    return [path for path in names if path.stem[5:] in _KINDS and path.stem[:4].isdigit()]


def _answer_path(session_dir: Path, request_id: str) -> Path:
    return _folder(session_dir) / f"{request_id}.answer"


def _answer(session_dir: Path, request: OperatorRequest, *, input_seq: int, code: int) -> None:
    content = {"input_seq": input_seq, "code": int(code)}
    atomic_write(_answer_path(session_dir, request.request_id), canonical_json(content) + b"\n")


def _read(path: Path) -> OperatorRequest:
    kind = _KINDS[path.stem[5:]]
    try:
        content = json.loads(path.read_bytes())
        numbers = [content[name] for name in ("since_ns", "instrument_id", "argument")]
        if not all(isinstance(number, int) and abs(number) < 1 << 63 for number in numbers):
            raise ValueError(f"a number was {numbers}")
        return OperatorRequest(
            path.stem,
            kind,
            who=str(content["who"]),
            why=str(content["why"]),
            since_ns=numbers[0],
            instrument_id=numbers[1],
            argument=numbers[2],
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        refusal = ReasonCode.SETTINGS_INVALID if kind == RequestKind.ADOPT else ReasonCode.UNSET
        why = f"{path} is damaged ({error})"
        return OperatorRequest(path.stem, kind, "unknown", why, None, refusal=refusal)
