"""A canary's life on disk: its configs, its signed sessions, and the decision they lead to.

Why: the sensor, the terminal and the signer must come to the same decision from the same files.

Invariants:
1. A life starts with the first canary config after the last withdrawal; older sessions are over,
   and none of them may break the promise that the next life is signed on (see `earlier_lives`).
2. The promise comes from gate C's verified verdict, the one that was signed (see `canary_judge`).
3. Evaluating twice gives the same decision; applying it twice changes nothing more.

The rule itself is `canary.decide`. Operator's page: `docs/canary.md`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hft_platform.config.keys import trusted_keys
from hft_platform.config.promoted import SignedIssue, read_signed
from hft_platform.config.promotion_folder import (
    issued_seqs,
    promotions_root,
    reduced_weight,
    withdrawn_seq,
)
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.services.session_register import begun_sessions
from hft_platform.services.session_summary import SessionEvidence
from research.promotion.canary import (
    CanaryDecision,
    CanaryThresholds,
    Promise,
    PromisedMetric,
    SessionFacts,
    decide,
)
from research.promotion.evidence import session_summaries

__all__ = [
    "canary_history",
    "capacity_of",
    "decide_issue",
    "earlier_history",
    "facts_of",
    "issue_of_canary",
    "newest_issue",
    "promise_of",
]

if TYPE_CHECKING:
    from research.gates.verdict import Verdict
    from research.registry import Alpha


def newest_issue(ws: Path, alpha_id: str, *, pinned_file: Path | None = None) -> SignedIssue | None:
    """Newest issue of an alpha with a valid signature that was not withdrawn, or None.

    Parameters
    ----------
    ws : Path
        Workspace.
    alpha_id : str
        Alpha.
    pinned_file : Path, optional
        File of pinned promotion keys.

    Returns
    -------
    SignedIssue or None
        None when nothing was issued or the newest was withdrawn.
    """
    root = promotions_root(ws)
    seqs = issued_seqs(root, alpha_id)
    if not seqs or withdrawn_seq(root, alpha_id) >= seqs[-1]:
        return None
    paths = sorted((root / alpha_id).glob(f"{seqs[-1]:06d}-*.yaml"))
    if len(paths) != 1:
        raise PlatformError(
            ReasonCode.CONFIG_REPLAYED,
            f"sequence {seqs[-1]} of {alpha_id} was issued {len(paths)} times; it is unique",
        )
    return read_signed(paths[0], trusted_keys=trusted_keys(ws, pinned_file=pinned_file))


def issue_of_canary(ws: Path, alpha_id: str, *, pinned_file: Path | None = None) -> SignedIssue:
    """The canary or live config of an alpha that is in force.

    Parameters
    ----------
    ws : Path
        Workspace.
    alpha_id : str
        Alpha, in whatever version.
    pinned_file : Path, optional
        File of pinned promotion keys.

    Returns
    -------
    SignedIssue

    Raises
    ------
    PlatformError
        CONFIG_NOT_FOUND without one; otherwise as `read_signed`.
    """
    issue = newest_issue(ws, alpha_id, pinned_file=pinned_file)
    if issue is None or issue.content.stage == "shadow":
        raise _no_canary(alpha_id)
    return issue


def decide_issue(
    ws: Path,
    alpha: Alpha,
    issue: SignedIssue,
    thresholds: CanaryThresholds,
    *,
    gate_c: Verdict,
    gate_d: Verdict,
) -> CanaryDecision:
    """Decide about one issue from the signed sessions of its life.

    Parameters
    ----------
    ws : Path
        Workspace.
    alpha : Alpha
        The version that the issue is about.
    issue : SignedIssue
        Canary or live, in force.
    thresholds : CanaryThresholds
        Of the canary.
    gate_c, gate_d : Verdict
        Verified verdicts that hold the promise and the capacity.

    Returns
    -------
    CanaryDecision
        Never more weight than a person lowered it to.
    """
    content = issue.content
    decision = decide(
        canary_history(ws, alpha),
        thresholds,
        promise_of(gate_c),
        weight_ppm=content.weight_ppm,
        capacity_ppm=capacity_of(gate_d),
    )
    in_force = reduced_weight(
        promotions_root(ws), alpha.alpha_id, content.promotion_seq, signed_ppm=content.weight_ppm
    )
    if in_force < content.weight_ppm and decision.weight_ppm > in_force:
        # Someone lowered the weight: only a person raises it again, by promoting.
        return CanaryDecision(type(decision.action).HOLD, in_force, (), decision.facts)
    return decision


def capacity_of(gate_d: Verdict) -> int:
    """Largest weight that gate D found room for in the book."""
    return int(gate_d.results["capacity"]["weight_ppm_max"])


def _no_canary(alpha_id: str) -> PlatformError:
    return PlatformError(
        ReasonCode.CONFIG_NOT_FOUND,
        f"{alpha_id} has no canary in force",
        next_step=f"hft-research promote {alpha_id} --stage canary",
    )


def canary_history(ws: Path, alpha: Alpha) -> list[SessionFacts]:
    """Sessions of the canary life that is in force, oldest first.

    Parameters
    ----------
    ws : Path
        Workspace.
    alpha : Alpha
        Whose life.

    Returns
    -------
    list of SessionFacts
        Unreadable sessions included.
    """
    floor = withdrawn_seq(promotions_root(ws), alpha.alpha_id)
    history = []
    for row in session_summaries(ws, alpha, stages=("canary", "live")):
        if row.evidence is None:
            if row.promotion_seq is not None and row.promotion_seq <= floor:
                continue  # of a life that was withdrawn
            history.append(SessionFacts.unreadable(row.run_id, row.problem))
        elif row.evidence.promotion_seq > floor:
            history.append(facts_of(row.evidence))
    return history


def earlier_history(ws: Path, alpha: Alpha) -> list[SessionFacts]:
    """Sessions of the lives of this version that were withdrawn, oldest first.

    Parameters
    ----------
    ws : Path
        Workspace.
    alpha : Alpha
        Whose lives; sessions of another version are about another alpha.

    Returns
    -------
    list of SessionFacts
        Unreadable sessions included, where the register knows whose they were.
    """
    floor = withdrawn_seq(promotions_root(ws), alpha.alpha_id)
    if floor == 0:
        return []
    mine = {row.run_id for row in begun_sessions(ws) if row.alpha_hash == alpha.alpha_hash}
    history = []
    for row in session_summaries(ws, alpha, stages=("canary", "live")):
        if row.evidence is not None:
            if row.evidence.promotion_seq <= floor:
                history.append(facts_of(row.evidence))
        elif row.run_id in mine and (row.promotion_seq or 0) <= floor:
            history.append(SessionFacts.unreadable(row.run_id, row.problem))
    return history


def facts_of(evidence: SessionEvidence) -> SessionFacts:
    """What the canary needs of a session's evidence; absent parts stay absent."""
    account, parity, counts = evidence.account, evidence.parity, evidence.counts
    return SessionFacts(
        session_id=evidence.session_id,
        weight_ppm=evidence.weight_ppm,
        net=account.net if account else None,
        parity_identical=parity.identical if parity else None,
        parity_total=parity.total if parity else None,
        orders=counts.orders,
        broker_rejects=counts.broker_rejects,
        unknown=counts.unknown,
        fills=account.fill_count if account else None,
        filled_orders=counts.filled_orders,
        slippage_ticks=evidence.slippage_ticks,
        markout_ticks=dict(evidence.markout_ticks),
        halted_by=evidence.halted_by,
        shed_count=evidence.shed_count,
        symbol=evidence.symbol,
    )


def promise_of(gate_c: Verdict) -> Promise:
    """What gate C promises of a session.

    Parameters
    ----------
    gate_c : Verdict
        Verified; its results hold mean and deviation of the chosen setting out of sample.

    Returns
    -------
    Promise
        Zeros where gate C could not measure: a promise that fails.
    """
    said = gate_c.results.get("promise") or {}
    return Promise(
        mean_net=float(said.get("mean_net") or 0.0),
        std_net=float(said.get("std_net") or 0.0),
        session_count=int(said.get("session_count") or 0),
        weight_ppm=int(said.get("weight_ppm") or 0),
        execution={
            str(name): PromisedMetric(
                mean=float(row["mean"]),
                std=float(row["std"]),
                session_count=int(row["session_count"]),
                size_mean=float(row["size_mean"]),
            )
            for name, row in (said.get("execution") or {}).items()
            if row is not None
        },
    )
