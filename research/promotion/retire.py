"""Retire an alpha: take its permits back and close its name, in the audit chain, for good.

Why: an idea that was given up must not come back by a rerun or a small edit.

Invariants:
1. The permit is taken back first and needs no record; closing the name is the record.
2. Retiring twice adds no second entry.

Operator's page: `docs/alphas.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hft_platform.config.promotion_folder import issued_seqs, locked, promotions_root
from hft_platform.errors import PlatformError
from research.promotion import audit
from research.promotion.lifecycle import lifecycle_of, retired_entry
from research.promotion.withdrawal import take_back

if TYPE_CHECKING:
    from research.registry import Alpha


@dataclass(frozen=True, slots=True)
class Retirement:
    """An alpha that was given up.

    Attributes
    ----------
    alpha_id : str
        Whose name is closed, in every version.
    state_before : str
        Where it stood.
    withdrawn_seq : int
        Highest sequence that was taken back, 0 when nothing was ever issued.
    audit_entry : int
        Number of the entry that closes it.
    is_new : bool
        False when it had been retired before.
    """

    alpha_id: str
    state_before: str
    withdrawn_seq: int
    audit_entry: int
    is_new: bool

    def as_dict(self) -> dict[str, Any]:
        """JSON content."""
        return {
            "alpha_id": self.alpha_id,
            "state_before": self.state_before,
            "withdrawn_seq": self.withdrawn_seq,
            "audit_entry": self.audit_entry,
            "is_new": self.is_new,
        }


def retire(
    ws: Path, alpha: Alpha, *, by: str, why: str, config_dir: Path | None = None
) -> Retirement:
    """Withdraw everything an alpha was issued and close its name.

    Parameters
    ----------
    ws : Path
        Workspace.
    alpha : Alpha
        Any version: its id is closed, so that an edit does not open it again.
    by, why : str
        For the audit chain.
    config_dir : Path, optional
        Folder with an overriding `gates.yaml`.

    Returns
    -------
    Retirement

    Raises
    ------
    PlatformError
        AUDIT_BROKEN or WAL_WRITE_FAILED when the chain cannot be written: the permits are taken
        back by then, the name is not closed.
    """
    root = promotions_root(ws)
    problem: PlatformError | None = None
    state_before = ""
    try:
        state_before = str(lifecycle_of(ws, alpha, config_dir=config_dir).state)
    except PlatformError as error:
        problem = error  # said once the permits are taken back
    _withdraw_all(ws, root, alpha.alpha_id, by=by, why=why)
    if problem is not None:
        raise problem
    # Under the signer's lock: what it signed while we came here is taken back as well, and what
    # it signs after this finds the name closed.
    with locked(root):
        seq = _withdraw_all(ws, root, alpha.alpha_id, by=by, why=why)
        entries = audit.verify_chain(ws)
        before = retired_entry(entries, alpha.alpha_id)
        if before is not None:
            said = str(before.record["facts"].get("state_before", ""))
            return Retirement(alpha.alpha_id, said, seq, before.seq, False)
        entry = audit.append(
            ws,
            kind=audit.EntryKind.RETIRED,
            who=by,
            why=why,
            subject=alpha.key,
            facts={
                "alpha_id": alpha.alpha_id,
                "alpha_hash": alpha.alpha_hash,
                "state_before": state_before,
                "promotion_seq": seq,
            },
        )
    return Retirement(alpha.alpha_id, state_before, seq, entry.seq, True)


def _withdraw_all(ws: Path, root: Path, alpha_id: str, *, by: str, why: str) -> int:
    seqs = issued_seqs(root, alpha_id)
    if not seqs:
        return 0
    return take_back(ws, alpha_id, seqs[-1], by=by, why=f"retired: {why}").promotion_seq
