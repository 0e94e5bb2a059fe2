"""Where alphas stand and why: rows for a terminal, and the nearest threshold that was missed.

Why: a refusal that does not say how far off it was, or what would change it, teaches nothing.

Everything comes from verdict files and the promotions folder; nothing is run. It judges nothing.
Operator's page: `docs/promotion.md`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hft_platform.config.promoted import read_unverified
from hft_platform.config.promotion_folder import (
    issued_seqs,
    promotions_root,
    reduced_weight,
    withdrawn_seq,
)
from research.gates.verdict import GATES, GateVerdict, Verdict, read_verdict
from research.promotion import audit
from research.promotion.lifecycle import lifecycle_of
from research.registry import load_alphas

if TYPE_CHECKING:
    from research.registry import Alpha


def alpha_rows(
    ws: Path, folder: Path | None = None, *, config_dir: Path | None = None
) -> list[dict[str, Any]]:
    """One row an alpha: key, verdict by gate, state and what it follows from.

    Parameters
    ----------
    ws : Path
        Workspace.
    folder : Path, optional
        Folder of alphas, the bundled ones by default.
    config_dir : Path, optional
        Folder with an overriding `gates.yaml`.

    Returns
    -------
    list of dict
        Sorted by alpha id.
    """
    entries = audit.verify_chain(ws)
    rows = []
    for alpha in load_alphas(folder):
        life = lifecycle_of(ws, alpha, entries=entries, config_dir=config_dir)
        rows.append(
            {
                "alpha_key": alpha.key,
                "verdicts": {
                    gate: str(verdict.verdict) if verdict else "not_run"
                    for gate, verdict in _verdicts(ws, alpha).items()
                },
                "state": str(life.state),
                "stands_at": life.text,
                "because": life.because,
                "next": life.next_step,
            }
        )
    return rows


def alpha_overview(ws: Path, alpha: Alpha, *, config_dir: Path | None = None) -> dict[str, Any]:
    """Everything about one alpha that its files say.

    Parameters
    ----------
    ws : Path
        Workspace.
    alpha : Alpha
        Which.
    config_dir : Path, optional
        Folder with an overriding `gates.yaml`.

    Returns
    -------
    dict
        alpha_key, manifest, lifecycle, verdicts with reasons, issues, stands_at.
    """
    life = lifecycle_of(ws, alpha, config_dir=config_dir)
    return {
        "alpha_key": alpha.key,
        "manifest": alpha.manifest.model_dump(mode="json"),
        "verdicts": {
            gate: {
                "verdict": str(verdict.verdict),
                "sha256": verdict.sha256,
                "reasons": list(verdict.reasons),
            }
            for gate, verdict in _verdicts(ws, alpha).items()
            if verdict is not None
        },
        "issues": _issues(ws, alpha.alpha_id),
        "lifecycle": life.as_dict(),
        "stands_at": life.text,
        "because": life.because,
    }


def explain_gates(ws: Path, alpha: Alpha, *, config_dir: Path | None = None) -> dict[str, Any]:
    """Name the first gate that is not passed, its nearest failing threshold and what would decide.

    A verdict that does not hold any more comes first: what it said explains nothing.

    Parameters
    ----------
    ws : Path
        Workspace.
    alpha : Alpha
        Which.
    config_dir : Path, optional
        Folder with an overriding `gates.yaml`.

    Returns
    -------
    dict
        gate, verdict, nearest (name, observed, limit, gap), days_missing, text.
    """
    life = lifecycle_of(ws, alpha, config_dir=config_dir)
    if life.stale:
        return {
            "gate": GATES[len(life.gates_passed)],
            "verdict": "stale",
            "nearest": None,
            "days_missing": None,
            "text": f"{alpha.key}: {life.stale}\nnext: hft-research gates {alpha.alpha_id}",
        }
    for gate, verdict in _verdicts(ws, alpha).items():
        if verdict is None:
            return {
                "gate": gate,
                "verdict": "not_run",
                "nearest": None,
                "days_missing": None,
                "text": f"{alpha.key}: {gate} was not run yet\n"
                f"next: hft-research gates {alpha.alpha_id}",
            }
        if verdict.verdict is not GateVerdict.PASSED:
            return _explanation(alpha, gate, verdict)
    return {
        "gate": None,
        "verdict": "passed",
        "nearest": None,
        "days_missing": None,
        "text": f"{alpha.key}: every gate passed\n"
        f"next: hft-research promote {alpha.alpha_id} --stage canary",
    }


def nearest_miss(verdict: Verdict) -> dict[str, Any] | None:
    """Failing threshold that was missed by the smallest share of its limit.

    Parameters
    ----------
    verdict : Verdict
        Not passed.

    Returns
    -------
    dict or None
        name, observed, limit and gap (share of the limit); None when nothing was measured.
    """
    missed = [
        {
            "name": str(check.get("name", "")),
            "observed": check["observed"],
            "limit": check["limit"],
            "gap": _gap(check["observed"], check["limit"]),
        }
        for check in verdict.results.get("checks") or []
        if not check.get("passed", False) and _is_number(check["observed"], check["limit"])
    ]
    if not missed:
        missed = [
            {
                "name": reason["text"],
                "observed": reason["observed"],
                "limit": reason["limit"],
                "gap": _gap(reason["observed"], reason["limit"]),
            }
            for reason in verdict.reasons
            if _is_number(reason["observed"], reason["limit"])
        ]
    return min(missed, key=lambda row: row["gap"]) if missed else None


def _explanation(alpha: Alpha, gate: str, verdict: Verdict) -> dict[str, Any]:
    nearest = nearest_miss(verdict)
    days = verdict.results.get("days_missing")
    lines = [f"{alpha.key}: {gate} says {verdict.verdict}"]
    lines += [f"  {row['name']} ({row['code']}): {row['text']}" for row in verdict.reasons]
    if nearest is not None:
        change = abs(nearest["limit"] - nearest["observed"])
        lines.append(
            f"nearest: {nearest['name']}: {nearest['observed']:.6g} against "
            f"{nearest['limit']:.6g}; it must change by {change:.6g} "
            f"({nearest['gap']:.1%} of the limit)"
        )
    refused = verdict.results.get("refused")
    if refused:
        named = ", ".join(f"{count} for {why}" for why, count in sorted(refused.items()))
        lines.append(f"sessions not counted: {named}")
    if days is not None:
        lines.append(f"decides: {days} more trading days like those judged")
    elif verdict.verdict is GateVerdict.INSUFFICIENT_EVIDENCE:
        lines.append("decides: more sessions with trades; it traded too rarely to name a number")
    else:
        lines.append("decides: another idea, a larger edge or lower costs; more days will not")
    return {
        "gate": gate,
        "verdict": str(verdict.verdict),
        "nearest": nearest,
        "days_missing": days,
        "text": "\n".join(lines),
    }


def _verdicts(ws: Path, alpha: Alpha) -> dict[str, Verdict | None]:
    return {gate: read_verdict(ws, alpha.key, gate) for gate in GATES}


def _issues(ws: Path, alpha_id: str) -> list[dict[str, Any]]:
    root = promotions_root(ws)
    floor = withdrawn_seq(root, alpha_id)
    rows = []
    for seq in issued_seqs(root, alpha_id):
        for path in sorted((root / alpha_id).glob(f"{seq:06d}-*.yaml")):
            content = read_unverified(path)
            if content is None:
                continue
            weight = reduced_weight(root, alpha_id, seq, signed_ppm=content.weight_ppm)
            rows.append(
                {
                    "promotion_seq": seq,
                    "stage": content.stage,
                    "weight_ppm": weight,
                    "alpha_hash": content.alpha_hash,
                    "is_withdrawn": seq <= floor,
                    "expires_ns": content.expires_ns,
                }
            )
    return rows


def _is_number(*values: object) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _gap(observed: float, limit: float) -> float:
    return abs(limit - observed) / max(abs(limit), 1e-12)
