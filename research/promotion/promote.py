"""Ask for a promotion; act on what a canary's evidence says.

Why: asset graph and terminal do the same things through the same functions.

Invariants:
1. More risk goes through the signer, a process of its own; this one never reads the key.
2. Less risk needs nobody (see `withdrawal`): what cannot be read or trusted is taken back.
3. Doing anything twice changes nothing the second time.

It verifies no evidence itself (see `sign`). Operator's page: `docs/promotion.md`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hft_platform.config.canonical import atomic_write, canonical_json, canonical_sha256
from hft_platform.config.promotion_folder import issued_seqs, promotions_root
from hft_platform.config.settings import load_settings
from hft_platform.errors import PlatformError
from research.promotion import audit
from research.promotion.canary import Action, CanaryDecision
from research.promotion.canary_judge import UnjudgedCanaryError, judge_canary
from research.promotion.canary_life import canary_history, newest_issue
from research.promotion.canary_thresholds import load_canary_thresholds
from research.promotion.issue import Promotion
from research.promotion.signer_process import run_signer as _run_signer
from research.promotion.withdrawal import newest_unverified, withdraw

if TYPE_CHECKING:
    from research.registry import Alpha

__all__ = [
    "Promotion",
    "apply_decision",
    "promote",
    "run_canary",
    "withdraw_without_alpha",
]


def promote(
    ws: Path,
    alpha: Alpha,
    *,
    stage: str,
    by: str,
    why: str,
    symbol: str | None = None,
    weight_ppm_max: int | None = None,
    climbs_from: int | None = None,
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
    climbs_from : int, optional
        Sequence that must still be in force: a step up is about one issue.
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
        "climbs_from": climbs_from,
    }
    name = f"{alpha.alpha_id}-{canonical_sha256(request)[:12]}.json"
    path = promotions_root(ws) / "requests" / name
    atomic_write(path, canonical_json(request) + b"\n")
    answer = _run_signer(ws, path, alphas_folder=alpha.folder.parent, config_dir=config_dir)
    return Promotion(
        **{**answer, "path": Path(answer["path"]), "head": Path(answer["head"])},
    )


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
        When a step up was refused, or no canary is in force.
    UnjudgedCanaryError
        When one is in force and cannot be judged. It was withdrawn: a promise that cannot be read
        is not kept.
    """
    try:
        decision = judge_canary(ws, alpha, config_dir=config_dir)
    except UnjudgedCanaryError as error:
        why = f"the promise cannot be read or judged: {error.message}"
        withdraw(ws, alpha.alpha_id, by=by, why=why, code=error.code)
        raise
    apply_decision(ws, alpha, decision, by=by, config_dir=config_dir)
    return decision


def withdraw_without_alpha(ws: Path, key: str, *, by: str, error: PlatformError) -> None:
    """Withdraw a canary or live config whose alpha was edited or is gone: nobody can judge it.

    Parameters
    ----------
    ws : Path
        Workspace.
    key : str
        ``<alpha_id>@<12 hex>`` of the version that cannot be found; a config of another version
        stays.
    by : str
        Who or what acts.
    error : PlatformError
        What is wrong with the alpha.
    """
    alpha_id = key.partition("@")[0]
    issue = newest_issue(ws, alpha_id, pinned_file=load_settings().pinned_keys_path)
    if issue is None or issue.content.stage == "shadow":
        return
    if key == f"{alpha_id}@{issue.content.alpha_hash[:12]}":
        why = f"nobody can judge it any more: {error.message}"
        withdraw(ws, alpha_id, by=by, why=why, code=error.code)


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
        From `judge_canary`; the signer evaluates again before it signs more weight.
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
        audit.append(
            ws, kind=audit.EntryKind.CANARY_STEP, who=by, why=why, subject=alpha.key, facts=facts
        )
        seq = issued_seqs(promotions_root(ws), alpha.alpha_id)[-1]
        promote(
            ws, alpha, stage=_stage_of(ws, alpha.alpha_id, seq), by=by, why=why,
            climbs_from=seq, config_dir=config_dir,
        )  # fmt: skip


def _stage_of(ws: Path, alpha_id: str, seq: int) -> str:
    # Only what to ask for; the signer verifies the issue that it climbs from.
    content = newest_unverified(promotions_root(ws), alpha_id, seq)
    return content.stage if content is not None else "canary"


def _shown(value: float | str | None) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
