"""The promotions folder: names, heads, withdrawals, weight reductions, highest sequence seen.

Why: the signer writes it, the runtime reads it, and both must agree on every name in it.

Invariants:
1. Taking risk away needs no signature and no readable content: a file named
   `withdrawn-<seq>.json` withdraws every config up to that sequence.
2. A weight reduction can only lower what was signed; a damaged one counts as weight 0.
3. The highest sequence seen by the runtime never goes down; it is signed with the session key,
   and an unreadable or unsigned one means refuse.
4. Issues, withdrawals and reductions whose files were removed are still known by the audit chain.

It verifies no signature (see `promoted`). Operator's page: `docs/formats.md`.
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hft_platform.config.canonical import atomic_write, canonical_json
from hft_platform.config.file_lock import locked as locked  # what writes here asks for it here
from hft_platform.config.keys import public_key, signing_key
from hft_platform.errors import PlatformError, ReasonCode

ALPHA_ID = re.compile(r"^[a-z][a-z0-9_]{0,63}$")
_ISSUED = re.compile(r"^(\d{6,})-[0-9a-f]{12}\.yaml$")
_WITHDRAWN = re.compile(r"^withdrawn-(\d+)\.json$")
_DAY = re.compile(r"^\d{8}$")


def promotions_root(ws: Path) -> Path:
    """Folder of all promoted configs of a workspace."""
    return ws / "promotions"


def issued_path(root: Path, alpha_id: str, seq: int, content_sha256: str) -> Path:
    """Immutable file of one issue."""
    return root / alpha_id / f"{seq:06d}-{content_sha256[:12]}.yaml"


def head_path(root: Path, alpha_id: str, trading_day: int) -> Path:
    """Head of a trading day, replaced atomically by each issue of that day."""
    return root / f"{trading_day:08d}" / f"{alpha_id}.yaml"


def withdrawn_path(root: Path, alpha_id: str, seq: int) -> Path:
    """File whose existence withdraws every config of an alpha up to `seq`."""
    return root / alpha_id / f"withdrawn-{seq:06d}.json"


def weight_path(root: Path, alpha_id: str, seq: int) -> Path:
    """Unsigned reduction of the weight of one issue."""
    return root / alpha_id / f"weight-{seq:06d}.json"


def issued_seqs(root: Path, alpha_id: str) -> list[int]:
    """Sequence numbers of all issues of an alpha, ascending, from their file names."""
    return sorted(
        int(match[1])
        for path in (root / alpha_id).glob("*.yaml")
        if (match := _ISSUED.match(path.name))
    )


def withdrawn_seq(root: Path, alpha_id: str) -> int:
    """Highest withdrawn sequence of an alpha, 0 if none.

    Only file names and what the audit chain holds are read: a withdrawal whose file was removed
    still counts.
    """
    return max(withdrawn_seqs(root, alpha_id), default=0)


def withdrawn_seqs(root: Path, alpha_id: str) -> set[int]:
    """Every sequence that a withdrawal names; see `withdrawn_seq`."""
    named = {
        int(match[1])
        for path in (root / alpha_id).glob("withdrawn-*.json")
        if (match := _WITHDRAWN.match(path.name))
    }
    return named | _on_record(root.parent, alpha_id).withdrawn_seqs


def reduced_weight(root: Path, alpha_id: str, seq: int, *, signed_ppm: int) -> int:
    """Weight in force: the signed one, or less when it was reduced.

    Parameters
    ----------
    root : Path
        Promotions folder.
    alpha_id : str
        Alpha.
    seq : int
        Sequence of the config.
    signed_ppm : int
        Weight that was signed.

    Returns
    -------
    int
        In parts per million, at most `signed_ppm`; 0 when the reduction cannot be read. A
        reduction that the audit chain holds counts also when its file was removed.
    """
    path = weight_path(root, alpha_id, seq)
    recorded = _on_record(root.parent, alpha_id).weights_ppm
    signed_ppm = min([signed_ppm, *(weight for at, weight in recorded if at == seq)])
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return signed_ppm
    try:
        weight = json.loads(raw)["weight_ppm"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return 0
    if type(weight) is not int or weight < 0:
        return 0
    return min(weight, signed_ppm)


def head_config(ws: Path, alpha_id: str, trading_day: int | None = None) -> Path:
    """Find the config in force: the highest sequence among an alpha's day heads.

    Parameters
    ----------
    ws : Path
        Workspace.
    alpha_id : str
        Alpha.
    trading_day : int, optional
        Leave out heads of later trading days.

    Returns
    -------
    Path
        A head file; it still has to be verified.

    Raises
    ------
    PlatformError
        CONFIG_NOT_FOUND when the alpha was never promoted (up to that day).
    """
    root = promotions_root(ws)
    heads = [
        path
        for path in root.glob(f"[0-9]*/{alpha_id}.yaml")
        if _DAY.match(path.parent.name)
        and (trading_day is None or int(path.parent.name) <= trading_day)
    ]
    if not heads:
        until = f" up to trading day {trading_day}" if trading_day is not None else ""
        raise PlatformError(
            ReasonCode.CONFIG_NOT_FOUND,
            f"{alpha_id} has no promoted config in {root}{until}",
            next_step=f"hft-research gates {alpha_id}, then hft-research promote {alpha_id}",
        )
    return max(heads, key=lambda path: (_unverified_seq(path), path.parent.name))


def seq_floor(ws: Path, alpha_id: str) -> int:
    """Highest sequence of an alpha that this runtime has accepted, 0 if none.

    Parameters
    ----------
    ws : Path
        Workspace.
    alpha_id : str
        Alpha.

    Returns
    -------
    int
        Configs below it are refused.

    Raises
    ------
    PlatformError
        CONFIG_REPLAYED when the record exists and cannot be read: not knowing is no permission.
    """
    return _read_seqs(ws).get(alpha_id, 0)


def raise_seq_floor(ws: Path, alpha_id: str, seq: int) -> None:
    """Persist that `seq` was accepted; a lower number changes nothing."""
    path = _seq_file(ws)
    with locked(path.parent):
        seqs = _read_seqs(ws)
        if seq > seqs.get(alpha_id, 0):
            raised = seqs | {alpha_id: seq}
            key = signing_key(ws, "session")
            content = {
                "seqs": raised,
                "key_id": key.key_id,
                "ed25519": key.sign(_seqs_message(raised)),
            }
            atomic_write(path, canonical_json(content) + b"\n")


def highest_issued(ws: Path, alpha_id: str) -> int:
    """Highest sequence of an alpha in the folder or the audit chain, 0 if none.

    Parameters
    ----------
    ws : Path
        Workspace.
    alpha_id : str
        Alpha.

    Returns
    -------
    int
        No signature is verified: a number too high refuses, and opens nothing.

    Raises
    ------
    PlatformError
        CONFIG_REPLAYED when the chain is there and cannot be read.
    """
    recorded = _on_record(ws, alpha_id, is_required=True)
    return max([*issued_seqs(promotions_root(ws), alpha_id), recorded.issued_seq])


@dataclass(frozen=True, slots=True)
class _OnRecord:
    """What the audit chain says of an alpha: issues, withdrawals, reductions (sequence, weight)."""

    issued_seq: int = 0
    withdrawn_seqs: frozenset[int] = frozenset()
    weights_ppm: tuple[tuple[int, int], ...] = ()


def _on_record(ws: Path, alpha_id: str, *, is_required: bool = False) -> _OnRecord:
    # A running session must not end for want of a second witness; a start refuses instead.
    path = ws / "audit" / "chain.jsonl"
    try:
        status = path.stat()
        return _read_record(path, alpha_id, status.st_ino, status.st_size, status.st_mtime_ns)
    except FileNotFoundError:
        return _OnRecord()
    except OSError as error:
        if is_required:
            raise _unreadable(path, str(error.strerror)) from error
        return _OnRecord()


@functools.lru_cache(maxsize=64)
def _read_record(path: Path, alpha_id: str, _ino: int, _size: int, _mtime_ns: int) -> _OnRecord:
    # A running session asks every second; the file's state is the key. Signatures are not
    # verified: whatever a forged line says, it refuses or lowers, and opens nothing.
    issued = 0
    withdrawn: set[int] = set()
    weights: list[tuple[int, int]] = []
    name = json.dumps(alpha_id).encode()
    for line in path.read_bytes().split(b"\n"):
        if name not in line:
            continue
        try:
            record = json.loads(line)["record"]
            kind, facts = str(record["kind"]), record["facts"]
            if facts["alpha_id"] != alpha_id:
                continue
            if kind.startswith("issued_"):
                issued = max(issued, int(facts["promotion_seq"]))
            elif kind == "withdrawn":
                withdrawn.add(int(facts["promotion_seq"]))
            elif kind == "weight_reduced":
                weights.append((int(facts["promotion_seq"]), max(0, int(facts["weight_ppm"]))))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue  # torn or foreign: whoever promotes verifies the whole chain
    return _OnRecord(issued, frozenset(withdrawn), tuple(weights))


def _seq_file(ws: Path) -> Path:
    return ws / "state" / "promotion_seq.json"


def _seqs_message(seqs: dict[str, int]) -> bytes:
    return b"hft promotion sequences v1\n" + canonical_json(seqs)


def _read_seqs(ws: Path) -> dict[str, int]:
    path = _seq_file(ws)
    try:
        content: Any = json.loads(path.read_bytes())  # Any: hostile until checked below
        seqs, signature = content["seqs"], str(content["ed25519"])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise _unreadable(path, f"{type(error).__name__} {error}") from error
    if not isinstance(seqs, dict) or not all(
        type(seq) is int and seq >= 0 for seq in seqs.values()
    ):
        raise _unreadable(path, "it does not map alpha ids to sequence numbers")
    key = public_key(ws, "session")
    if not key.is_signature_of(_seqs_message(seqs), signature):
        raise _unreadable(path, f"it is not signed by the session key {key.key_id}")
    return seqs


def _unreadable(path: Path, text: str) -> PlatformError:
    return PlatformError(
        ReasonCode.CONFIG_REPLAYED,
        f"the highest sequence seen is not known: {path} cannot be read: {text}",
        next_step="restore the file from a copy; without it an old config cannot be told from new",
    )


def _unverified_seq(path: Path) -> int:
    # Only orders candidates; whatever is chosen is verified in full before use.
    match = re.search(rb"^promotion_seq: (\d{1,18})$", path.read_bytes(), re.MULTILINE)
    return int(match[1]) if match else -1
