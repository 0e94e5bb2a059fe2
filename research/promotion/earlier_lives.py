"""Earlier lives: what was refuted, or failed before it was withdrawn, is not begun anew.

Why: a withdrawal ends a life; it must not be the way to have its losses forgotten.

Invariants:
1. What the canary rolled back is not signed again on the dataset and trials that were refuted,
   whatever other hash changed: an edit of the code makes every verdict a new file.
2. Canary and live sessions of this version before the last withdrawal are held to the promise that
   is to be signed; when they break it, nothing is signed.
3. The chain remembers a roll-back when its file was edited, the file when the chain could not be
   written.

Operator's page: `docs/promotion.md`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hft_platform.config.promotion_folder import promotions_root, withdrawn_path, withdrawn_seq
from hft_platform.errors import PlatformError, ReasonCode
from research.gates.verdict import read_by_hash
from research.promotion import audit
from research.promotion.canary import Action, decide
from research.promotion.canary_life import earlier_history, promise_of

if TYPE_CHECKING:
    from research.gates.verdict import Verdict
    from research.promotion.canary import CanaryThresholds
    from research.registry import Alpha


def require_not_refuted(
    ws: Path, alpha: Alpha, verdicts: Mapping[str, Verdict], entries: Sequence[audit.AuditEntry]
) -> None:
    """Refuse evidence that the canary has rolled back.

    Parameters
    ----------
    ws : Path
        Workspace.
    alpha : Alpha
        Whom.
    verdicts : mapping of str to Verdict
        Verified, of the gates that the stage needs.
    entries : sequence of AuditEntry
        The verified chain.

    Raises
    ------
    PlatformError
        CONFIG_WITHDRAWN, also when the newest withdrawal does not say why it was made.
    """
    records = [
        entry.record["facts"]
        for entry in entries
        if entry.record["kind"] == audit.EntryKind.WITHDRAWN
        and entry.record["facts"].get("alpha_id") == alpha.alpha_id
    ]
    for record in [*records, *_files(ws, alpha)]:
        if record.get("is_rolled_back") and _is_same(ws, alpha, record, verdicts, entries):
            raise PlatformError(
                ReasonCode.CONFIG_WITHDRAWN,
                f"{alpha.key} was rolled back on the evidence that it is to be promoted by again",
                next_step="run the gates on newer data, or change the alpha",
            )


def require_earlier_life_kept_promise(
    ws: Path, alpha: Alpha, gate_c: Verdict, thresholds: CanaryThresholds
) -> None:
    """Refuse a canary whose sessions before its withdrawal break the promise.

    Parameters
    ----------
    ws : Path
        Workspace.
    alpha : Alpha
        Without a canary in force.
    gate_c : Verdict
        Holds the promise that is to be signed.
    thresholds : CanaryThresholds
        Of the canary.

    Raises
    ------
    PlatformError
        713 to 717 or SESSION_SHED, as the canary's own roll-back would say.
    """
    history = earlier_history(ws, alpha)
    if not history:
        return
    decision = decide(history, thresholds, promise_of(gate_c), weight_ppm=history[-1].weight_ppm)
    if decision.action is Action.ROLL_BACK:
        first = decision.reasons[0]
        raise PlatformError(
            first.code,
            f"{alpha.key} was withdrawn, and its {len(history)} sessions before that break the "
            f"promise: {first.text}",
            next_step="a withdrawal does not make them undone: change the alpha, or retire it",
        )


def _files(ws: Path, alpha: Alpha) -> list[dict[str, Any]]:
    """What the files of the withdrawals say; the newest one has to say something."""
    root = promotions_root(ws)
    seq = withdrawn_seq(root, alpha.alpha_id)
    if seq == 0:
        return []
    newest = withdrawn_path(root, alpha.alpha_id, seq)
    found = []
    for path in sorted({newest, *(root / alpha.alpha_id).glob("withdrawn-*.json")}):
        try:
            record = json.loads(path.read_bytes())
            found.append(
                {
                    "is_rolled_back": bool(record["is_rolled_back"]),
                    "promotion_seq": int(record["promotion_seq"]),
                    "verdicts": dict(record["verdicts"]),
                }
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            if path != newest:
                continue
            raise PlatformError(
                ReasonCode.CONFIG_WITHDRAWN,
                f"{alpha.key} was withdrawn up to sequence {seq}, and {path} does not say why",
                next_step="hft-research audit verify; restore the file from a copy",
            ) from error
    return found


def _is_same(
    ws: Path,
    alpha: Alpha,
    record: Mapping[str, Any],
    verdicts: Mapping[str, Verdict],
    entries: Sequence[audit.AuditEntry],
) -> bool:
    sha256 = str(record["verdicts"].get("gate_c") or _signed_gate_c(alpha, record, entries))
    try:
        refuted = read_by_hash(ws, alpha.key, "gate_c", sha256)
    except PlatformError:
        # Gone: of another version, unless the chain says that it was about this one.
        return any(
            entry.record["kind"] == audit.EntryKind.VERDICT
            and entry.record["subject"] == alpha.key
            and entry.record["facts"].get("verdict_sha256") == sha256
            for entry in entries
        )
    if refuted.inputs.get("dataset") != verdicts["gate_a"].inputs.get("dataset"):
        return False
    gate_c = verdicts.get("gate_c")
    return gate_c is None or refuted.inputs.get("trials") == gate_c.inputs.get("trials")


def _signed_gate_c(
    alpha: Alpha, record: Mapping[str, Any], entries: Sequence[audit.AuditEntry]
) -> str:
    # The config could not be read when it was withdrawn; its own entry names its verdicts.
    for entry in entries:
        facts = entry.record["facts"]
        if (
            entry.record["kind"] in audit.ISSUES
            and facts.get("alpha_id") == alpha.alpha_id
            and facts["promotion_seq"] == record["promotion_seq"]
        ):
            return str(facts["verdicts"].get("gate_c", ""))
    return ""
