"""Ask for a promotion; take one back; lower a weight; act on what a canary's evidence says.

Why: asset graph and terminal do the same things through the same functions.

Invariants:
1. More risk goes through the signer, a process of its own; this one never reads the key.
2. Less risk needs nobody: the file that takes it away is written first, whatever else fails.
3. Doing anything twice changes nothing the second time.

It verifies no evidence itself (see `sign`). Operator's page: `docs/promotion.md`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hft_platform.config.canonical import (
    atomic_write,
    canonical_json,
    canonical_sha256,
    write_once,
)
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
from hft_platform.config.settings import load_settings
from hft_platform.errors import PlatformError, ReasonCode
from research.gates.verdict import require_verdict
from research.promotion import audit
from research.promotion.canary import Action, CanaryDecision
from research.promotion.canary_thresholds import load_canary_thresholds
from research.promotion.lineage import canary_history, evaluate_canary
from research.promotion.sign import Promotion

if TYPE_CHECKING:
    from research.registry import Alpha

SIGNER_SECONDS_MAX = 120


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


def promote(
    ws: Path,
    alpha: Alpha,
    *,
    stage: str,
    by: str,
    why: str,
    symbol: str | None = None,
    weight_ppm_max: int | None = None,
    config_dir: Path | None = None,
) -> Promotion:
    """Request a promotion and let the signer decide.

    Parameters
    ----------
    ws : Path
        Workspace.
    alpha : Alpha
        Whom.
    stage : str
        `shadow`, `canary` or `live`. Asking for `canary` again climbs a stage when the canary's
        sessions have earned it.
    by : str
        Who asks.
    why : str
        In words, for the audit chain.
    symbol : str, optional
        One instrument of several.
    weight_ppm_max : int, optional
        Ask for less weight than the evidence carries.
    config_dir : Path, optional
        Folder with overriding settings, thresholds and instruments.

    Returns
    -------
    Promotion
        The config now in force.

    Raises
    ------
    PlatformError
        Whatever the signer refused with.
    """
    request = {
        "schema": 1,
        "alpha_key": alpha.key,
        "stage": stage,
        "symbol": symbol,
        "weight_ppm_max": weight_ppm_max,
        "by": by,
        "why": why,
    }
    name = f"{alpha.alpha_id}-{canonical_sha256(request)[:12]}.json"
    path = promotions_root(ws) / "requests" / name
    atomic_write(path, canonical_json(request) + b"\n")
    answer = _run_signer(ws, path, alphas_folder=alpha.folder.parent, config_dir=config_dir)
    return Promotion(
        **{**answer, "path": Path(answer["path"]), "head": Path(answer["head"])},
    )


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
    """Take back every config of an alpha; needs no key and waits for nobody.

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
    seqs = issued_seqs(root, alpha_id)
    if not seqs:
        raise PlatformError(
            ReasonCode.CONFIG_NOT_FOUND,
            f"{alpha_id} has no promoted config in {root}, so there is nothing to withdraw",
            next_step="hft-research list",
        )
    seq = seqs[-1]
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
    problem = ""
    if is_new:
        try:
            write_once(path, canonical_json(record) + b"\n")
        except FileExistsError:
            is_new = False  # another process withdrew it in this moment, with other words
        problem = _append_anyway(
            ws,
            kind="withdrawn",
            by=by,
            why=why,
            subject=alpha_id,
            facts=record | {"decision": dict(facts or {})},
        )
    return Withdrawal(alpha_id, seq, 0, path, is_new, problem)


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
        seqs = issued_seqs(root, alpha_id)
        content = _unverified(root, alpha_id, seqs[-1]) if seqs else None
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
    problem = _append_anyway(
        ws,
        kind="weight_reduced",
        by=by,
        why=why,
        subject=alpha_id,
        facts={
            "alpha_id": alpha_id,
            "stage": content.stage,
            "promotion_seq": seq,
            "weight_ppm": weight_ppm,
            "weight_ppm_before": now,
        },
    )
    return Withdrawal(alpha_id, seq, weight_ppm, path, True, problem)


def run_canary(
    ws: Path, alpha: Alpha, *, by: str, config_dir: Path | None = None
) -> CanaryDecision:
    """Evaluate an alpha's canary and act on it: hold, climb through the signer, or roll back.

    Parameters
    ----------
    ws : Path
        Workspace.
    alpha : Alpha
        With a canary in force.
    by : str
        Who or what asks.
    config_dir : Path, optional
        Folder with overriding thresholds.

    Returns
    -------
    CanaryDecision
        What the evidence says.

    Raises
    ------
    PlatformError
        When a step up was refused. A verdict that no longer holds rolls back instead: a promise
        that cannot be read is not kept.
    """
    try:
        gate_c = require_verdict(ws, alpha, "gate_c")
    except PlatformError as error:
        withdraw(
            ws,
            alpha.alpha_id,
            by=by,
            why=f"the promise cannot be read: {error.message}",
            code=error.code,
        )
        raise
    decision = evaluate_canary(
        ws,
        alpha,
        gate_c=gate_c,
        config_dir=config_dir,
        pinned_file=load_settings(config_dir).pinned_keys_path,
    )
    apply_decision(ws, alpha, decision, by=by, config_dir=config_dir)
    return decision


def apply_decision(
    ws: Path,
    alpha: Alpha,
    decision: CanaryDecision,
    *,
    by: str,
    config_dir: Path | None = None,
) -> None:
    """Record a canary decision in the audit chain and carry it out.

    Parameters
    ----------
    ws : Path
        Workspace.
    alpha : Alpha
        Whose canary.
    decision : CanaryDecision
        From `evaluate_canary`; the signer evaluates again before it signs more weight.
    by : str
        Who or what acts.
    config_dir : Path, optional
        Folder with overriding thresholds.
    """
    _, thresholds_sha256 = load_canary_thresholds(config_dir)
    facts = decision.as_dict() | {"canary_thresholds_sha256": thresholds_sha256}
    if decision.action is Action.ROLL_BACK:
        first = decision.reasons[0]
        withdraw(
            ws,
            alpha.alpha_id,
            by=by,
            why=f"{first.text}: {_shown(first.observed)}, limit {_shown(first.limit)}",
            code=first.code,
            is_rolled_back=True,
            facts=facts,
        )
    elif decision.action is Action.STEP_UP:
        count = len(canary_history(ws, alpha))
        why = f"{count} canary sessions kept the promise; weight to {decision.weight_ppm} ppm"
        audit.append(ws, kind="canary_step", who=by, why=why, subject=alpha.key, facts=facts)
        promote(
            ws, alpha, stage=_stage_in_force(ws, alpha.alpha_id), by=by, why=why,
            config_dir=config_dir,
        )  # fmt: skip


def _stage_in_force(ws: Path, alpha_id: str) -> str:
    # Only what to ask for; the signer verifies the issue that it climbs from.
    root = promotions_root(ws)
    content = _unverified(root, alpha_id, issued_seqs(root, alpha_id)[-1])
    return content.stage if content is not None else "canary"


def _run_signer(
    ws: Path, request: Path, *, alphas_folder: Path, config_dir: Path | None
) -> dict[str, Any]:
    import research

    command = [
        sys.executable, "-m", "research.cli", "sign", str(request), "--json",
        "--workspace", str(ws), "--alphas", str(alphas_folder),
    ]  # fmt: skip
    if config_dir is not None:
        command += ["--config-dir", str(config_dir)]
    root = str(Path(str(research.__file__)).resolve().parent.parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    try:
        finished = subprocess.run(
            command, env=environment, capture_output=True, timeout=SIGNER_SECONDS_MAX, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise PlatformError(
            ReasonCode.PROMOTION_NOT_PERMITTED,
            f"the signer did not answer within {SIGNER_SECONDS_MAX} s; nothing is known signed",
            next_step=f"hft-research sign {request}",
        ) from error
    try:
        answer: dict[str, Any] = json.loads(finished.stdout)
    except ValueError as error:
        tail = finished.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise PlatformError(
            ReasonCode.INVARIANT_BROKEN,
            f"the signer ended with {finished.returncode} and no answer: {' '.join(tail)}",
            next_step=f"hft-research sign {request}",
        ) from error
    if "error" in answer:
        raise PlatformError(
            answer["code"],
            answer["message"],
            next_step=answer["next"],
            facts=answer["facts"],
        )
    return answer


def _append_anyway(
    ws: Path, *, kind: str, by: str, why: str, subject: str, facts: Mapping[str, Any]
) -> str:
    # Taking risk away never waits for its record; the caller shows what could not be recorded.
    try:
        audit.append(ws, kind=kind, who=by, why=why, subject=subject, facts=facts)
    except PlatformError as error:
        return error.message
    return ""


def _verdicts_of(root: Path, alpha_id: str, seq: int) -> dict[str, str]:
    content = _unverified(root, alpha_id, seq)
    return dict(content.verdicts) if content is not None else {}


def _unverified(root: Path, alpha_id: str, seq: int) -> PromotedContent | None:
    for path in sorted((root / alpha_id).glob(f"{seq:06d}-*.yaml")):
        content = read_unverified(path)
        if content is not None:
            return content
    return None


def _shown(value: float | str | None) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
