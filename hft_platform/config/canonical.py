"""Canonical bytes: the one way content becomes bytes that are hashed, signed and stored.

Why: two writers that format a number differently would give one fact two hashes.

Invariants:
1. Equal content gives equal bytes: keys sorted, tight separators, UTF-8, floats by ``repr``.
2. NaN, infinities and keys that are not strings never become bytes.
3. A file written here is either the old one or the complete new one, also after a power cut.

It knows no schema. Operator's page: `docs/formats.md`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

from hft_platform.errors import PlatformError, ReasonCode


def canonical_json(content: Any) -> bytes:  # Any: every JSON value
    """Encode JSON content so that equal content gives equal bytes.

    Parameters
    ----------
    content : Any
        Nested dicts with string keys, lists or tuples, strings, integers, finite floats,
        booleans and None.

    Returns
    -------
    bytes
        UTF-8 JSON with sorted keys and no spaces.

    Raises
    ------
    PlatformError
        INVARIANT_BROKEN when a value cannot be encoded exactly; the message names its place.
    """
    _check(content, "$")
    text = json.dumps(
        content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode("utf-8")


def finite(value: float) -> float | None:
    """The value, or None for NaN and infinity, which JSON does not have."""
    return value if math.isfinite(value) else None


def sha256_hex(data: bytes) -> str:
    """SHA-256 of bytes as lowercase hex."""
    return hashlib.sha256(data).hexdigest()


def canonical_sha256(content: Any) -> str:  # Any: every JSON value
    """SHA-256 of the canonical bytes of `content`."""
    return sha256_hex(canonical_json(content))


def atomic_write(path: Path, data: bytes | str, *, mode: int = 0o644) -> None:
    """Replace a file so that a reader or a power cut sees the old or the new content only.

    Parameters
    ----------
    path : Path
        Target; missing parent folders are made.
    data : bytes or str
        New content; text is written as UTF-8.
    mode : int, optional
        Permission bits of the new file, set before it gets its name.
    """
    temporary = _write_temporary(path, data, mode)
    try:
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_once(path: Path, data: bytes | str, *, mode: int = 0o444) -> bool:
    """Create an immutable file atomically; an equal file already there is left alone.

    Parameters
    ----------
    path : Path
        Target; missing parent folders are made.
    data : bytes or str
        Content; text is written as UTF-8.
    mode : int, optional
        Permission bits, read-only by default.

    Returns
    -------
    bool
        True when the file was created, False when it was there with the same bytes.

    Raises
    ------
    FileExistsError
        If the file exists with other bytes; nothing is changed.
    """
    raw = data.encode("utf-8") if isinstance(data, str) else data
    temporary = _write_temporary(path, raw, mode)
    try:
        os.link(temporary, path)
    except FileExistsError:
        if path.read_bytes() != raw:
            raise FileExistsError(f"{path} exists with other content") from None
        return False
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
    return True


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable (fsync of the directory)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_temporary(path: Path, data: bytes | str, mode: int) -> Path:
    raw = data.encode("utf-8") if isinstance(data, str) else data
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
    return temporary


def _check(value: Any, place: str) -> None:  # Any: every JSON value
    if value is None or isinstance(value, bool | int | str):
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise PlatformError(
                ReasonCode.INVARIANT_BROKEN,
                f"{place} is {value}; canonical JSON holds finite numbers only",
                next_step="write null and a reason where a number could not be computed",
            )
        return
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise PlatformError(
                    ReasonCode.INVARIANT_BROKEN,
                    f"{place} has the key {key!r}; canonical JSON keys are strings",
                )
            _check(item, f"{place}.{key}")
        return
    if isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check(item, f"{place}[{index}]")
        return
    raise PlatformError(
        ReasonCode.INVARIANT_BROKEN,
        f"{place} is a {type(value).__name__}, which canonical JSON cannot hold",
    )
