"""Take a promotion back, or lower a weight: less risk, at once, without a key.

Why: whoever sees something wrong must be able to stop it, whatever else is broken.

Invariants:
1. The file that takes risk away is written first; its record in the audit chain follows.
2. A chain that is broken, read-only or on a full disk stops neither; the caller is told.
3. Doing it twice changes nothing the second time, except that a record that could not be made
   before is made.
4. The file is written without waiting for anybody. What a signer published meanwhile is then
   waited for, and taken back or lowered as well.

Operator's page: `docs/promotion.md`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hft_platform.config.canonical import atomic_write, canonical_json, write_once
from hft_platform.config.promoted import PromotedContent, read_unverified
from hft_platform.config.promotion_folder import (
    issued_seqs,
    locked,
    promotions_root,
    reduced_weight,
    weight_path,
    withdrawn_path,
    withdrawn_seq,
)
from hft_platform.errors import PlatformError, ReasonCode
from research.promotion import audit


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """A promotion taken back, or a weight lowered.

    Attributes
    ----------
    alpha_id : str
        Whose.
    promotion_seq : int
        Newest sequence it concerns.
    weight_ppm : int
        Weight in force now.
    path : Path
        File that does it.
    is_new : bool
        False when it had been done before.
    audit_problem : str
        Why the audit chain does not hold it; empty when it does.
    """

    alpha_id: str
    promotion_seq: int
    weight_ppm: int
    path: Path
    is_new: bool
    audit_problem: str

    def as_dict(self) -> dict[str, Any]:
        """JSON content."""
        return {
            "alpha_id": self.alpha_id,
            "promotion_seq": self.promotion_seq,
            "weight_ppm": self.weight_ppm,
            "path": str(self.path),
            "is_new": self.is_new,
            "audit_problem": self.audit_problem,
        }


def withdraw(
    ws: Path,
    alpha_id: str,
    *,
    by: str,
    why: str,
    code: int = ReasonCode.CONFIG_WITHDRAWN,
    is_rolled_back: bool = False,
    facts: Mapping[str, Any] | None = None,
) -> Withdrawal:
    """Take back every config of an alpha; needs no key.

    The file is there before this waits for a signer that is at work.

    Parameters
    ----------
    ws : Path
        Workspace.
    alpha_id : str
        Alpha.
    by, why : str
        For the audit chain.
    code : int, optional
        Reason code.
    is_rolled_back : bool, optional
        The evidence itself was refuted, so the same verdicts promote to canary no more.
    facts : mapping, optional
        Numbers behind the decision.

    Returns
    -------
    Withdrawal
        With `audit_problem` when the chain could not be written: the withdrawal holds anyway.

    Raises
    ------
    PlatformError
        CONFIG_NOT_FOUND when nothing was ever issued.
    """
    root = promotions_root(ws)
    said = {"by": by, "why": why, "code": code, "is_rolled_back": is_rolled_back, "facts": facts}
    done = _take_back_newest(ws, alpha_id, said)
    # Under the signer's lock: what it signed while we came here is taken back as well.
    with _behind_signer(root):
        if done is None or issued_seqs(root, alpha_id)[-1] > done.promotion_seq:
            done = _take_back_newest(ws, alpha_id, said)
    if done is None:
        raise PlatformError(
            ReasonCode.CONFIG_NOT_FOUND,
            f"{alpha_id} has no promoted config in {root}, so there is nothing to withdraw",
            next_step="hft-research list",
        )
    return done


def take_back(
    ws: Path,
    alpha_id: str,
    seq: int,
    *,
    by: str,
    why: str,
    code: int = ReasonCode.CONFIG_WITHDRAWN,
    is_rolled_back: bool = False,
    facts: Mapping[str, Any] | None = None,
) -> Withdrawal:
    """Take back every config of an alpha up to a number, for those who hold the signer's lock.

    Parameters
    ----------
    ws : Path
        Workspace.
    alpha_id : str
        Alpha.
    seq : int
        Newest sequence to withdraw.
    by, why, code, is_rolled_back, facts
        As `withdraw`.

    Returns
    -------
    Withdrawal
        With `audit_problem` when the chain could not be written: the withdrawal holds anyway.
    """
    root = promotions_root(ws)
    path = withdrawn_path(root, alpha_id, seq)
    is_new = withdrawn_seq(root, alpha_id) < seq
    record = {
        "schema": 1,
        "alpha_id": alpha_id,
        "promotion_seq": seq,
        "reason_code": int(code),
        "is_rolled_back": is_rolled_back,
        "verdicts": _verdicts_of(root, alpha_id, seq),
        "by": by,
        "why": why,
    }
    if is_new:
        is_new = _write_withdrawal(path, record)
    if not is_new and (problem := _problem_unless_missing(ws, alpha_id, seq)) is not None:
        return Withdrawal(alpha_id, seq, 0, path, is_new, problem)
    said = record if is_new else _read_withdrawal(path, record)
    problem = _append_anyway(
        ws,
        kind=audit.EntryKind.WITHDRAWN,
        by=str(said["by"]),
        why=str(said["why"]),
        subject=alpha_id,
        facts=dict(said) | {"decision": dict(facts or {})},
    )
    return Withdrawal(alpha_id, seq, 0, path, is_new, problem)


@contextlib.contextmanager
def _behind_signer(root: Path) -> Iterator[None]:
    """Wait for a signer that is at work; who may not open its lock, goes on without it."""
    with contextlib.ExitStack() as stack:
        if root.is_dir():
            with contextlib.suppress(OSError):
                stack.enter_context(locked(root))
        yield


def _take_back_newest(ws: Path, alpha_id: str, said: Mapping[str, Any]) -> Withdrawal | None:
    seqs = issued_seqs(promotions_root(ws), alpha_id)
    return take_back(ws, alpha_id, seqs[-1], **said) if seqs else None


def _write_withdrawal(path: Path, record: Mapping[str, Any]) -> bool:
    """Write the file that withdraws; false when another process wrote it in this moment."""
    try:
        write_once(path, canonical_json(dict(record)) + b"\n")
    except FileExistsError:
        return False
    except OSError:
        # No space for its words: its name alone withdraws.
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return True


def _read_withdrawal(path: Path, record: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the file says, whose record could not be made before; `record` when it says nothing."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return record
    return content if isinstance(content, dict) and set(content) == set(record) else record


def _problem_unless_missing(ws: Path, alpha_id: str, seq: int) -> str | None:
    """None when the chain lacks this withdrawal; else what is wrong with the chain, if anything."""
    try:
        entries = audit.verify_chain(ws)
    except PlatformError as error:
        return error.message
    is_there = any(
        entry.record["kind"] == audit.EntryKind.WITHDRAWN
        and entry.record["facts"].get("alpha_id") == alpha_id
        and int(entry.record["facts"]["promotion_seq"]) >= seq
        for entry in entries
    )
    return "" if is_there else None


def reduce_weight(ws: Path, alpha_id: str, *, weight_ppm: int, by: str, why: str) -> Withdrawal:
    """Lower the weight of the config in force; needs no key.

    Parameters
    ----------
    ws : Path
        Workspace.
    alpha_id : str
        Alpha.
    weight_ppm : int
        New weight, below the one in force.
    by, why : str
        For the audit chain.

    Returns
    -------
    Withdrawal
        With the weight in force now.

    Raises
    ------
    PlatformError
        CONFIG_NOT_FOUND without a config in force, PROMOTION_NOT_PERMITTED when the weight would
        not be lower.
    """
    root = promotions_root(ws)
    with locked(root / alpha_id):
        done, facts = _lower_newest(root, alpha_id, weight_ppm)
    problem = _record_reduction(ws, facts, by=by, why=why)
    # Under the signer's lock: what it signed while we came here is lowered as well.
    with _behind_signer(root), locked(root / alpha_id):
        if not _is_lowered(root, alpha_id, weight_ppm):
            done, facts = _lower_newest(root, alpha_id, weight_ppm)
            problem = _record_reduction(ws, facts, by=by, why=why)
    return replace(done, audit_problem=problem)


def _lower_newest(root: Path, alpha_id: str, weight_ppm: int) -> tuple[Withdrawal, dict[str, Any]]:
    """Lower the newest issue; the facts for the chain come with it."""
    seqs = issued_seqs(root, alpha_id)
    content = newest_unverified(root, alpha_id, seqs[-1]) if seqs else None
    if content is None or withdrawn_seq(root, alpha_id) >= seqs[-1]:
        raise PlatformError(
            ReasonCode.CONFIG_NOT_FOUND,
            f"{alpha_id} has no promoted config in force",
            next_step=f"hft-research withdraw {alpha_id} takes everything back",
        )
    seq = seqs[-1]
    now = reduced_weight(root, alpha_id, seq, signed_ppm=content.weight_ppm)
    if not 0 <= weight_ppm < now:
        raise PlatformError(
            ReasonCode.PROMOTION_NOT_PERMITTED,
            f"weight of {alpha_id} is {now} ppm; {weight_ppm} would not lower it",
            next_step=f"more weight needs evidence: hft-research promote {alpha_id}",
        )
    path = weight_path(root, alpha_id, seq)
    atomic_write(path, canonical_json({"schema": 1, "weight_ppm": weight_ppm}) + b"\n")
    facts = {
        "alpha_id": alpha_id,
        "stage": content.stage,
        "promotion_seq": seq,
        "weight_ppm": weight_ppm,
        "weight_ppm_before": now,
    }
    return Withdrawal(alpha_id, seq, weight_ppm, path, True, ""), facts


def _is_lowered(root: Path, alpha_id: str, weight_ppm: int) -> bool:
    seq = issued_seqs(root, alpha_id)[-1]
    content = newest_unverified(root, alpha_id, seq)
    if content is None or withdrawn_seq(root, alpha_id) >= seq:
        return True  # nothing is in force any more
    return reduced_weight(root, alpha_id, seq, signed_ppm=content.weight_ppm) <= weight_ppm


def _record_reduction(ws: Path, facts: Mapping[str, Any], *, by: str, why: str) -> str:
    return _append_anyway(
        ws,
        kind=audit.EntryKind.WEIGHT_REDUCED,
        by=by,
        why=why,
        subject=str(facts["alpha_id"]),
        facts=facts,
    )


def _append_anyway(
    ws: Path, *, kind: audit.EntryKind, by: str, why: str, subject: str, facts: Mapping[str, Any]
) -> str:
    # Taking risk away never waits for its record; the caller shows what could not be recorded.
    try:
        audit.append(ws, kind=kind, who=by, why=why, subject=subject, facts=facts)
    except PlatformError as error:
        return error.message
    except OSError as error:  # a key that cannot be read, a lock that cannot be made
        return f"the audit chain could not be written: {error.strerror}"
    return ""


def _verdicts_of(root: Path, alpha_id: str, seq: int) -> dict[str, str]:
    content = newest_unverified(root, alpha_id, seq)
    return dict(content.verdicts) if content is not None else {}


def newest_unverified(root: Path, alpha_id: str, seq: int) -> PromotedContent | None:
    """Content of an issue for taking it back or asking on: nothing about it is proven."""
    for path in sorted((root / alpha_id).glob(f"{seq:06d}-*.yaml")):
        content = read_unverified(path)
        if content is not None:
            return content
    return None
