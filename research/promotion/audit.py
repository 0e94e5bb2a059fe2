"""Audit chain: who did what, why, in an order that nobody can change afterwards.

Why: a promotion must be explainable years later, also when someone would rather it were not.

Invariants:
1. Entry i carries h_i = sha256(h_(i-1) || entry): an edit, a deletion or a swap breaks the chain.
2. Every entry and the head are signed by the audit key: entries cannot be added by others, and a
   chain shorter than its signed head was cut.
3. An entry is durable before the thing it records takes effect.
4. A write that failed leaves nothing behind. A crash leaves at most one torn line or one entry
   beyond the head; both are recognized and healed by the next append, never taken for damage.

A chain put back together with an old head is told only by comparing with a head kept elsewhere
(`verify_chain(expected_head=...)`). Operator's page: `docs/audit.md`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from hft_platform.config.canonical import atomic_write, canonical_json
from hft_platform.config.keys import (
    SigningKey,
    TrustedKey,
    public_key,
    signing_key,
)
from hft_platform.config.promotion_folder import locked
from hft_platform.errors import PlatformError, ReasonCode

GENESIS = "0" * 64
ENTRY_BYTES_MAX = 1 << 20
_FIELDS = {"seq", "prev", "record", "logged_at_ns", "hash", "signature"}


class EntryKind(StrEnum):
    """What an entry can be about; `docs/audit.md` says when each is written."""

    VERDICT = "verdict"
    THRESHOLDS = "thresholds"
    APPROVED = "approved"
    ISSUED_SHADOW = "issued_shadow"
    ISSUED_CANARY = "issued_canary"
    ISSUED_LIVE = "issued_live"
    CANARY_STEP = "canary_step"
    WEIGHT_REDUCED = "weight_reduced"
    WITHDRAWN = "withdrawn"
    RETIRED = "retired"
    OVERRIDE = "override"


ISSUES = frozenset({EntryKind.ISSUED_SHADOW, EntryKind.ISSUED_CANARY, EntryKind.ISSUED_LIVE})
"""A config was signed."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One verified entry.

    Attributes
    ----------
    seq : int
        1 for the first.
    hash : str
        Link to the next.
    record : mapping
        kind, who, why, subject, facts.
    logged_at_ns : int
        Wall clock of the writer; information only.
    """

    seq: int
    hash: str
    record: Mapping[str, Any]
    logged_at_ns: int


def chain_path(ws: Path) -> Path:
    """File of the chain."""
    return ws / "audit" / "chain.jsonl"


def head_path(ws: Path) -> Path:
    """File of the signed head."""
    return ws / "audit" / "head.json"


def append(
    ws: Path,
    *,
    kind: EntryKind,
    who: str,
    why: str,
    subject: str,
    facts: Mapping[str, Any],
    clock: Callable[[], int] = time.time_ns,
) -> AuditEntry:
    """Append one entry and return when it is durable.

    Parameters
    ----------
    ws : Path
        Workspace.
    kind : EntryKind
        What happened.
    who : str
        Person or program that acts.
    why : str
        In words.
    subject : str
        What it is about, an alpha's key for example.
    facts : mapping
        Numbers and hashes a reader would ask for; JSON content.
    clock : callable, optional
        Informational wall clock.

    Returns
    -------
    AuditEntry
        As written.

    Raises
    ------
    PlatformError
        AUDIT_BROKEN when the chain's end does not hold, WAL_WRITE_FAILED when it cannot be
        written. The caller must not go on with anything that adds risk.
    """
    record = {"kind": kind.value, "who": who, "why": why, "subject": subject, "facts": dict(facts)}
    try:
        with locked(ws / "audit"):
            key = signing_key(ws, "audit")
            last = _heal(ws, key)
            seq, logged_at_ns = last[0] + 1, clock()
            body: dict[str, Any] = {
                "seq": seq,
                "prev": last[1],
                "record": record,
                "logged_at_ns": logged_at_ns,
            }
            digest = _link(last[1], body)
            line = body | {"hash": digest, "signature": key.sign(_message("entry", digest))}
            raw = canonical_json(line) + b"\n"
            if len(raw) > ENTRY_BYTES_MAX:
                raise PlatformError(
                    ReasonCode.INVARIANT_BROKEN,
                    f"audit entry of {len(raw)} bytes; at most {ENTRY_BYTES_MAX}",
                )
            length = _append_durably(chain_path(ws), raw)
            try:
                _write_head(ws, key, seq, digest)
            except OSError:
                _take_off(ws, length, seq)
                raise
    except OSError as error:
        raise PlatformError(
            ReasonCode.WAL_WRITE_FAILED,
            f"the audit chain {chain_path(ws)} could not be written: {error.strerror}",
            next_step="free space or correct the permissions, then try again; "
            "withdrawing and halting work without it",
        ) from error
    return AuditEntry(seq, digest, record, logged_at_ns)


def verify_chain(ws: Path, *, expected_head: str | None = None) -> list[AuditEntry]:
    """Check every entry, every link, every signature and the head.

    Parameters
    ----------
    ws : Path
        Workspace.
    expected_head : str, optional
        Hash of an entry noted elsewhere; it must be in the chain.

    Returns
    -------
    list of AuditEntry
        In order; empty for a workspace where nothing was recorded yet.

    Raises
    ------
    PlatformError
        AUDIT_BROKEN naming the first entry that does not hold and what is wrong with it.
    """
    path = chain_path(ws)
    try:
        with locked(ws / "audit"):
            raw = path.read_bytes() if path.exists() else b""
            head = head_path(ws).read_bytes() if head_path(ws).exists() else None
    except OSError as error:
        raise _broken(path, f"cannot be read: {error.strerror}") from error
    if not raw and head is None:
        if expected_head is not None:
            raise _broken(path, f"is empty, expected it to hold {expected_head[:12]}")
        return []
    entries = _verified(path, raw, head, public_key(ws, "audit"))
    if expected_head is not None and all(entry.hash != expected_head for entry in entries):
        raise _broken(path, f"does not hold the entry {expected_head[:12]} noted elsewhere")
    return list(entries)


@functools.lru_cache(maxsize=4)
def _verified(
    path: Path, raw: bytes, head_raw: bytes | None, key: TrustedKey
) -> tuple[AuditEntry, ...]:
    # A function of its bytes, so that the gates of one process verify an unchanged chain once.
    head = _parse_head(path, head_raw) if head_raw is not None else None
    lines = raw.split(b"\n")
    tail = lines.pop()
    entries: list[AuditEntry] = []
    previous = GENESIS
    for index, line in enumerate(lines, start=1):
        entry = _check_entry(path, line, index, previous, key)
        entries.append(entry)
        previous = entry.hash
    _check_head(path, head, entries, tail, key)
    return tuple(entries)


def _check_entry(path: Path, line: bytes, index: int, previous: str, key: TrustedKey) -> AuditEntry:
    content = _parse(path, line, f"entry {index}")
    if set(content) != _FIELDS:
        raise _broken(path, f"entry {index} has the fields {sorted(content)}")
    if content["seq"] != index:
        raise _broken(path, f"entry {index} carries the number {content['seq']}")
    if content["prev"] != previous:
        raise _broken(path, f"entry {index} does not follow the entry before it")
    signature = content["signature"]
    body = {name: content[name] for name in ("seq", "prev", "record", "logged_at_ns")}
    if _link(previous, body) != content["hash"]:
        raise _broken(path, f"entry {index} does not match its hash")
    if not key.is_signature_of(_message("entry", content["hash"]), str(signature)):
        raise _broken(path, f"entry {index} is not signed by the audit key {key.key_id}")
    if canonical_json(content) != line:
        raise _broken(path, f"entry {index} has bytes that were not signed")
    return AuditEntry(index, content["hash"], content["record"], content["logged_at_ns"])


def _check_head(
    path: Path,
    head: Mapping[str, Any] | None,
    entries: list[AuditEntry],
    tail: bytes,
    key: TrustedKey,
) -> None:
    seq, digest = _verified_head(path, head, key)
    if seq > len(entries):
        raise _broken(path, f"holds {len(entries)} entries, its signed head says {seq}")
    # The head is written after the entry: a crash in between leaves exactly one entry more.
    if len(entries) - seq > 1:
        raise _broken(path, f"holds {len(entries)} entries, its signed head says {seq}")
    at_head = entries[seq - 1].hash if seq else GENESIS
    if at_head != digest:
        raise _broken(path, f"entry {seq} is not the one its signed head names")
    if tail and len(entries) != seq:
        raise _broken(path, "ends in a torn line behind an entry that the head does not name")


def _verified_head(path: Path, head: Mapping[str, Any] | None, key: TrustedKey) -> tuple[int, str]:
    if head is None:
        return 0, GENESIS
    if set(head) != {"seq", "hash", "key_id", "signature"}:
        raise _broken(path, "has a head with other fields")
    message = _message("head", f"{head['seq']}:{head['hash']}")
    if head["key_id"] != key.key_id or not key.is_signature_of(message, str(head["signature"])):
        raise _broken(path, f"has a head that is not signed by the audit key {key.key_id}")
    return int(head["seq"]), str(head["hash"])


def _heal(ws: Path, key: SigningKey) -> tuple[int, str]:
    # Called under the lock before an append: checks the end of the chain, not all of it, so that
    # an append stays cheap; promotion verifies the whole chain first.
    path = chain_path(ws)
    head = _read_head(ws)
    raw = path.read_bytes() if path.exists() else b""
    seq, digest = _verified_head(path, head, key.trusted)
    lines = raw.split(b"\n")
    tail = lines.pop()
    if len(lines) == seq + 1 and not tail:
        entry = _check_entry(path, lines[-1], seq + 1, digest, key.trusted)
        _write_head(ws, key, entry.seq, entry.hash)
        return entry.seq, entry.hash
    if len(lines) != seq:
        raise _broken(path, f"holds {len(lines)} entries, its signed head says {seq}")
    if seq:
        last = _parse(path, lines[-1], f"entry {seq}")
        if last.get("hash") != digest:
            raise _broken(path, f"entry {seq} is not the one its signed head names")
    if tail:
        # An entry that was being written when the machine stopped: it was never acknowledged.
        with path.open("r+b") as file:
            file.truncate(len(raw) - len(tail))
            os.fsync(file.fileno())
    return seq, digest


def _append_durably(path: Path, raw: bytes) -> int:
    """Append, and return what the file was long before."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        length, written = os.fstat(descriptor).st_size, 0
        try:
            while written < len(raw):
                written += os.write(descriptor, raw[written:])
            os.fsync(descriptor)
        except OSError:
            # What was not acknowledged must not be found later: the act will not happen.
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, length)
            raise
    finally:
        os.close(descriptor)
    return length


def _take_off(ws: Path, length: int, seq: int) -> None:
    # The next append would adopt an entry that its caller was told is not there. Unless the head
    # came into place before the error: then the entry is there, and taking it off breaks the chain.
    with contextlib.suppress(OSError, PlatformError):
        head = _read_head(ws)
        if head is not None and head.get("seq") == seq:
            return
        with chain_path(ws).open("r+b") as file:
            file.truncate(length)
            os.fsync(file.fileno())


def _write_head(ws: Path, key: SigningKey, seq: int, digest: str) -> None:
    head = {
        "seq": seq,
        "hash": digest,
        "key_id": key.key_id,
        "signature": key.sign(_message("head", f"{seq}:{digest}")),
    }
    atomic_write(head_path(ws), canonical_json(head) + b"\n")


def _read_head(ws: Path) -> dict[str, Any] | None:
    path = head_path(ws)
    return _parse_head(path, path.read_bytes()) if path.exists() else None


def _parse_head(path: Path, raw: bytes) -> dict[str, Any]:
    head = _parse(path, raw.removesuffix(b"\n"), "head")
    if canonical_json(head) + b"\n" != raw:
        raise _broken(path, "has bytes that were not signed")
    return head


def _parse(path: Path, line: bytes, name: str) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _broken(path, f"{name} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise _broken(path, f"{name} is not a JSON object")
    return content


def _link(previous: str, body: Mapping[str, Any]) -> str:
    try:
        return hashlib.sha256(previous.encode("ascii") + canonical_json(dict(body))).hexdigest()
    except (PlatformError, UnicodeEncodeError):
        return ""  # what cannot be encoded was not written by us: matches no hash


def _message(kind: str, text: str) -> bytes:
    return f"hft audit {kind} v1\n{text}".encode()


def _broken(path: Path, text: str) -> PlatformError:
    return PlatformError(ReasonCode.AUDIT_BROKEN, f"audit chain {path} {text}")
