"""Evidence for gate D: what trades already, from verdicts on record and signed promotions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hft_platform.config.keys import KeyRing
from hft_platform.config.promoted import read_signed
from hft_platform.config.promotion_folder import issued_path, promotions_root, withdrawn_seq
from hft_platform.errors import PlatformError, ReasonCode
from research.gates.context import GateContext
from research.gates.gate_d import PoolAlpha, PoolEvidence
from research.gates.verdict import Verdict, read_verdict
from research.promotion import audit, on_record

POOL_STAGES = ("canary", "live")
"""A shadow permit trades nothing, so it is not in the pool."""


def collect(context: GateContext) -> tuple[PoolEvidence, dict[str, str]]:
    """Collect the alpha's own profit and that of every promoted alpha.

    Parameters
    ----------
    context : GateContext
        Gate C's verdict of the alpha has been verified.

    Returns
    -------
    PoolEvidence
        See its fields.
    dict of str to str
        Gate C verdict hash by member.

    Raises
    ------
    PlatformError
        UPSTREAM_VERDICT_MISSING or VERDICT_NOT_RECORDED for a member whose verdict is not there
        or was made by no gate; AUDIT_BROKEN.
    """
    own = gate_c_of(context.ws, context.alpha.key)
    others = [
        key
        for key in pool_members(context.ws, pinned_keys=context.pinned_keys)
        if not key.startswith(f"{context.alpha.alpha_id}@")
    ]
    members = member_verdicts(context.ws, others)
    evidence = PoolEvidence(
        alpha=pool_alpha(own),
        members={key: pool_alpha(verdict) for key, verdict in members.items()},
        gate_weight_ppm=context.alpha.manifest.gate_weight_ppm,
    )
    return evidence, {key: verdict.sha256 for key, verdict in members.items()}


def pool_alpha(verdict: Verdict) -> PoolAlpha:
    """What gate D takes of a gate C verdict.

    Parameters
    ----------
    verdict : Verdict
        Checked against its hash.

    Returns
    -------
    PoolAlpha
    """
    results = verdict.results
    rows = [*results.get("in_sample", []), *results.get("out_of_sample", [])]
    return PoolAlpha(
        daily_net={int(day): int(value) for day, value in results.get("daily_net", {}).items()},
        positions=dict(results.get("positions", {})),
        displayed_share=tuple(results.get("displayed_share", ())),
        instruments=tuple(sorted({str(row["symbol"]) for row in rows})),
    )


def member_verdicts(ws: Path, keys: Sequence[str]) -> dict[str, Verdict]:
    """Gate C's verdict of each member, as the audit chain knows it.

    Parameters
    ----------
    ws : Path
        Workspace folder.
    keys : sequence of str
        Members.

    Returns
    -------
    dict of str to Verdict
        By member.

    Raises
    ------
    PlatformError
        UPSTREAM_VERDICT_MISSING, VERDICT_NOT_RECORDED, AUDIT_BROKEN.
    """
    entries = audit.verify_chain(ws)
    found = {}
    for key in keys:
        found[key] = gate_c_of(ws, key)
        on_record.require_newest(entries, key, {"gate_c": found[key].sha256})
    return found


def pool_members(ws: Path, *, pinned_keys: Path | None = None) -> list[str]:
    """Keys of the alphas that hold an issue for canary or live that was not withdrawn.

    Parameters
    ----------
    ws : Path
        Workspace folder.
    pinned_keys : Path, optional
        File of pinned promotion keys.

    Returns
    -------
    list of str
        Sorted; expiry is not looked at, since a verdict reads no clock.
    """
    root = promotions_root(ws)
    if not root.is_dir():
        return []
    trusted = KeyRing.open(ws, pinned_file=pinned_keys).trusted()
    keys = []
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        issues = sorted(folder.glob("[0-9]*-*.yaml"))
        if not issues:
            continue
        newest = read_signed(issues[-1], trusted_keys=trusted)
        content = newest.content
        expected = issued_path(root, folder.name, content.promotion_seq, newest.content_sha256)
        if issues[-1] != expected:
            raise PlatformError(
                ReasonCode.CONFIG_MALFORMED,
                f"promotion {issues[-1].name} of {folder.name} is not named by its content",
            )
        is_withdrawn = withdrawn_seq(root, folder.name) >= content.promotion_seq
        if content.stage in POOL_STAGES and not is_withdrawn:
            keys.append(f"{content.alpha_id}@{content.alpha_hash[:12]}")
    return sorted(keys)


def gate_c_of(ws: Path, key: str) -> Verdict:
    """Gate C's verdict of an alpha that trades, or UPSTREAM_VERDICT_MISSING."""
    verdict = read_verdict(ws, key, "gate_c")
    if verdict is None:
        raise PlatformError(
            ReasonCode.UPSTREAM_VERDICT_MISSING, f"{key} of the pool has no verdict of gate_c"
        )
    return verdict
