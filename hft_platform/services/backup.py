"""Backup and restore of what cannot be made again: logs, ledgers, audit chain, promotions, keys.

Why: a disk dies on the day it matters. A copy made with the wrong tool holds half a segment, a torn
line, or a key that everybody can read, and nobody notices before it is needed.

Invariants:
1. A workspace is only read. Of a log that is being written, sealed segments are taken and of the
   open one the frames up to its durable watermark: a copy never holds what was not acknowledged.
   Archived segments are taken back into the copy of their log.
2. `backup.json` names every file with its size, mode and SHA-256 and is written last, so a backup
   without it is unfinished. Nothing of one that does not match it is restored.
3. A restore writes beside an empty workspace and gives it its name when all of it was verified.

The audit chain's signatures are checked by `hft-research audit verify`, which knows them.
Operator's page: `docs/backup.md`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hft_platform import _core
from hft_platform.config.canonical import atomic_write, canonical_json
from hft_platform.config.file_lock import locked
from hft_platform.config.keys import key_folder
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.recorder.archive import archived_files
from hft_platform.services.core_calls import typed_errors

LISTING = "backup.json"
FOLDERS = ("ledger", "audit", "promotions", "verdicts", "state")
"""Folders of a workspace that are always taken; sessions and keys are treated for themselves."""
FILES = ("alphas.json", "datasets/ingestions.jsonl")
"""Single files. The book of ingestions cannot be made again: it says what was first seen."""
LOCKED = ("audit",)
"""Folders whose writer holds `.lock` while it changes more than one file."""
COPY_TRIES_MAX = 4
_HEADER_BYTES, _FRAME_HEAD_BYTES, _FRAME_ALIGN = 128, 40, 8
_RECORD_BYTES = struct.Struct("<H")


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    path: str = Field(min_length=1)
    bytes: int = Field(ge=0)
    mode: int = Field(ge=0, le=0o777)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class _Log(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    path: str = Field(min_length=1)
    last_seq: int = Field(ge=0)


class _Listing(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    version: Literal[1]
    sha256: str
    with_keys: bool
    with_market: bool
    logs: tuple[_Log, ...]
    files: tuple[_File, ...]


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What was copied.

    Attributes
    ----------
    folder : Path
        Where it is.
    files, size_bytes : int
        How much.
    logs : dict
        Last sequence of each log in it.
    """

    folder: Path
    files: int
    size_bytes: int
    logs: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "folder": str(self.folder),
            "files": self.files,
            "bytes": self.size_bytes,
            "logs": self.logs,
        }


def backup(
    workspace: Path, target: Path, *, with_keys: bool = False, with_market: bool = False
) -> BackupReport:
    """Copy a workspace's logs and ledgers into an empty folder, also while sessions write.

    Parameters
    ----------
    workspace : Path
        Only read.
    target : Path
        New or empty.
    with_keys : bool, optional
        Take the private keys as well; the target must then be kept like a key.
    with_market : bool, optional
        Take the market logs as well; by default only the order logs.

    Returns
    -------
    BackupReport

    Raises
    ------
    PlatformError
        CONFIG_NOT_FOUND for a workspace that is not there or a target that is not empty, the
        log's codes for damage.
    """
    if not workspace.is_dir():
        raise PlatformError(ReasonCode.CONFIG_NOT_FOUND, f"no workspace {workspace}")
    _require_empty(target)
    target.mkdir(parents=True, exist_ok=True)
    if with_keys:
        target.chmod(0o700)
    copied = _Copied(workspace, target)
    for name in FILES:
        if (workspace / name).is_file():
            copied.file(workspace / name)
    for name in FOLDERS:
        _copy_folder(copied, workspace / name, is_locked=name in LOCKED)
    if with_keys:
        _copy_folder(copied, key_folder(workspace), is_locked=False)
    kinds = ("market", "orders") if with_market else ("orders",)
    for session in sorted((workspace / "sessions").glob("*/")):
        for file in sorted(path for path in session.iterdir() if path.is_file()):
            copied.passing_file(file)
        for kind in kinds:
            if (session / kind).is_dir():
                _copy_log(copied, session / kind)
    listing = {
        "version": 1,
        "with_keys": with_keys,
        "with_market": with_market,
        "logs": [{"path": path, "last_seq": seq} for path, seq in sorted(copied.logs.items())],
        "files": [copied.files[path] for path in sorted(copied.files)],
    }
    atomic_write(target / LISTING, _sealed(listing))
    size = sum(file["bytes"] for file in copied.files.values())
    return BackupReport(target, len(copied.files), size, copied.logs)


def restore(source: Path, workspace: Path) -> BackupReport:
    """Verify a backup and make a workspace of it.

    Parameters
    ----------
    source : Path
        Folder that `backup` made.
    workspace : Path
        New or empty.

    Returns
    -------
    BackupReport
        Logs with the sequences that a recovery found in them.

    Raises
    ------
    PlatformError
        CONFIG_NOT_FOUND for a workspace that is not empty, BACKUP_MISMATCH for a backup that is
        unfinished or changed, the log's codes for a log that does not verify.
    """
    _require_empty(workspace)
    listing = _read_listing(source)
    partial = workspace.with_name(f".{workspace.name}.restoring")
    # Left by a restore that was interrupted: it was never a workspace.
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for file in listing.files:
        _restore_file(source, partial, file)
    found = {}
    for log in listing.logs:
        with typed_errors(log.path):
            report = _core.recover_log(str(partial / log.path))
            _core.verify_log(str(partial / log.path))
        last_seq = report["last_seq"] or 0
        if last_seq != log.last_seq:
            raise _mismatch(f"{log.path} holds records up to {last_seq}, listed are {log.last_seq}")
        found[log.path] = last_seq
    for folder, _, _ in os.walk(partial):
        _sync_folder(Path(folder))
    if workspace.exists():
        workspace.rmdir()
    partial.rename(workspace)
    _sync_folder(workspace.parent)
    size = sum(file.bytes for file in listing.files)
    return BackupReport(workspace, len(listing.files), size, found)


class _Copied:
    """Files copied so far, with their hashes."""

    def __init__(self, workspace: Path, target: Path) -> None:
        self.workspace, self.target = workspace, target
        self.files: dict[str, dict[str, Any]] = {}
        self.logs: dict[str, int] = {}

    def file(
        self,
        path: Path,
        content: bytes | None = None,
        *,
        place: Path | None = None,
        mode: int | None = None,
    ) -> None:
        """Copy a file, or other content under its name; to another place of the workspace."""
        content = path.read_bytes() if content is None else content
        if path.suffix == ".jsonl":
            # A line that is being written is not there yet.
            content = content[: content.rfind(b"\n") + 1]
        name = (place or path).relative_to(self.workspace).as_posix()
        mode = stat.S_IMODE(path.stat().st_mode) if mode is None else mode
        copy = self.target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        _write(copy, content, mode)
        self.files[name] = {
            "path": name,
            "bytes": len(content),
            "mode": mode,
            "sha256": hashlib.sha256(content).hexdigest(),
        }

    def passing_file(self, path: Path) -> None:
        """Copy a file of a running workspace, unless it is one that is only being written."""
        if path.name.startswith("."):
            return  # `atomic_write` renames it in a moment
        try:
            content, mode = path.read_bytes(), stat.S_IMODE(path.stat().st_mode)
        except FileNotFoundError:
            return
        self.file(path, content, mode=mode)

    def forget(self, folder: Path) -> None:
        """Remove what was copied of a folder, to begin again."""
        prefix = folder.relative_to(self.workspace).as_posix() + "/"
        for name in [name for name in self.files if name.startswith(prefix)]:
            (self.target / name).unlink()
            del self.files[name]


def _copy_folder(copied: _Copied, folder: Path, *, is_locked: bool) -> None:
    if not folder.is_dir():
        return

    def copy() -> None:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink():
                copied.passing_file(path)

    if is_locked:
        with locked(folder):
            copy()
        return
    copy()


def _copy_log(copied: _Copied, log: Path) -> None:
    """Copy a log. Its writer may seal a segment, or an archive take one away, meanwhile."""
    for attempt in range(COPY_TRIES_MAX):
        name = log.relative_to(copied.workspace).as_posix()
        try:
            last_seq = _copy_log_once(copied, log)
            # A folder that is listed during a rename may show neither name: the copy tells.
            with typed_errors(name):
                _core.verify_log(str(copied.target / name))
        except PlatformError:
            copied.forget(log)
            if attempt + 1 == COPY_TRIES_MAX:
                raise
            continue
        except FileNotFoundError as error:
            copied.forget(log)
            if attempt + 1 == COPY_TRIES_MAX:
                raise PlatformError(
                    ReasonCode.WAL_READ_FAILED,
                    f"{name} changes faster than it can be copied: {error.filename} is gone",
                    next_step="hft-live backup, when the session is quieter",
                ) from error
            continue
        copied.logs[name] = last_seq
        return


def _copy_log_once(copied: _Copied, log: Path) -> int:
    # Before the watermark and the folder: what it names, they hold.
    manifest = log / "manifest.log"
    content = manifest.read_bytes() if manifest.exists() else None
    durable_seq = _durable_seq(log)
    if content is not None:
        copied.file(manifest, content)
    last_seq = _away_seq(log)
    # A backup has one place for a log: what was archived of it comes back into its folder.
    archived = [(path, log / path.name) for path in archived_files(log)]
    for path, place in [*archived, *((path, path) for path in _files_of_log(log))]:
        if path.suffix not in (".seg", ".open"):
            copied.file(path)
            continue
        with typed_errors(f"{log.parent.name}/{log.name}/{path.name}"):
            segment = _core.read_segment(str(path))
        info, raw = segment["info"], path.read_bytes()
        if path.suffix == ".open" and durable_seq is not None:
            raw = raw[: _frames_end(segment["tape"], int(info["first_seq"]), durable_seq)]
            last_seq = max(last_seq, min(int(info["last_seq"] or 0), durable_seq))
        else:
            last_seq = max(last_seq, int(info["last_seq"] or 0))
        copied.file(path, raw, place=place)
    return last_seq


def _away_seq(log: Path) -> int:
    """Last sequence of the segments that the manifest says were archived or deleted."""
    with typed_errors(f"{log.parent.name}/{log.name}"):
        manifest = _core.read_manifest(log)
    entries = [] if manifest is None else manifest["entries"]
    away = (entry for entry in entries if entry["kind"] in ("archived", "deleted"))
    return max((int(entry["last_seq"]) for entry in away), default=0)


def _files_of_log(log: Path) -> Iterator[Path]:
    passing = ("lock", "manifest.lock", "manifest.log", "watermark")
    for path in sorted(log.rglob("*")):
        if path.is_file() and path.name not in passing and path.suffix != ".next":
            yield path


def _durable_seq(log: Path) -> int | None:
    """The writer's watermark; None for a log that was written without one."""
    if not (log / "watermark").exists():
        return None
    with typed_errors(f"{log.parent.name}/{log.name}"):
        watermark = _core.read_watermark(str(log))
    return None if watermark is None else int(watermark["durable_seq"])


def _frames_end(tape: bytes, first_seq: int, durable_seq: int) -> int:
    """Bytes of an open segment up to the frame of `durable_seq`."""
    at, end = 0, _HEADER_BYTES
    for _ in range(first_seq, durable_seq + 1):
        if at >= len(tape):
            break
        (record_bytes,) = _RECORD_BYTES.unpack_from(tape, at)
        at += record_bytes
        end += _FRAME_HEAD_BYTES + -(-record_bytes // _FRAME_ALIGN) * _FRAME_ALIGN
    return end


def _read_listing(source: Path) -> _Listing:
    path = source / LISTING
    if not path.is_file():
        raise _mismatch(f"{source} has no {LISTING}: no backup, or an unfinished one")
    content = path.read_bytes()
    try:
        listing = _Listing.model_validate_json(content)
    except ValidationError as error:
        raise _mismatch(f"{path}: {error.error_count()} entries are not a backup's") from error
    if content != _sealed(listing.model_dump(mode="json", exclude={"sha256"})):
        raise _mismatch(f"{path} is not as it was written")
    names = {file.path for file in listing.files}
    for name in names | {log.path for log in listing.logs}:
        parts = Path(name).parts
        if Path(name).is_absolute() or ".." in parts or name == LISTING:
            raise _mismatch(f"{path}: {name} is no place in a workspace")
    there = {file.relative_to(source).as_posix() for file in source.rglob("*") if not file.is_dir()}
    if more := sorted(there - names - {LISTING}):
        raise _mismatch(f"{source}: {more[0]} is not in {LISTING}")
    return listing


def _sealed(listing: dict[str, Any]) -> bytes:
    """The listing's bytes, with their own hash among them."""
    sha256 = hashlib.sha256(canonical_json(listing)).hexdigest()
    return canonical_json(listing | {"sha256": sha256})


def _restore_file(source: Path, partial: Path, file: _File) -> None:
    path = source / file.path
    if path.is_symlink() or not path.is_file():
        raise _mismatch(f"{path} is not there")
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != file.sha256:
        raise _mismatch(f"{path}: sha256 was {sha256}, listed is {file.sha256}")
    place = partial / file.path
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.parent == key_folder(partial):
        place.parent.chmod(0o700)
    _write(place, content, file.mode)


def _write(place: Path, content: bytes, mode: int) -> None:
    """Write a new file that is never wider than `mode`, durably."""
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _require_empty(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise PlatformError(
            ReasonCode.CONFIG_NOT_FOUND,
            f"{folder} is not empty; nothing is written into it",
            next_step="name a new folder",
        )


def _mismatch(text: str) -> PlatformError:
    return PlatformError(ReasonCode.BACKUP_MISMATCH, text)
