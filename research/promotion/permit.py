"""Content of a permit: what is signed, derived from manifest, verdicts and recorded sessions.

Why: two signers with the same evidence must sign the same fields.

Invariants:
1. Every field comes from a verified file or from the manifest; none from a request.
2. A permit is valid only after the last session that it was judged by.

It verifies no verdict (see `evidence`) and signs nothing. Operator's page: `docs/promotion.md`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hft_platform.config.canonical import canonical_json
from hft_platform.config.code_hash import code_sha256
from hft_platform.config.engine_config import AlphaSpec
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.market.instruments import load_instruments
from hft_platform.market.latency import load_latency_profile
from research.promotion.evidence import judged_sessions, recorded_sessions, session_summaries

if TYPE_CHECKING:
    from hft_platform.feed.recording import RecordedSession
    from hft_platform.market.instruments import Instrument
    from research.gates.verdict import Verdict
    from research.registry import Alpha

DAY_NS = 86_400_000_000_000


def permit_content(
    ws: Path,
    alpha: Alpha,
    stage: str,
    verdicts: Mapping[str, Verdict],
    *,
    weight_ppm: int,
    symbol: str | None,
    validity_days: int,
    config_dir: Path | None,
) -> dict[str, Any]:
    """Derive what is to be signed; the sequence number is the signer's.

    Parameters
    ----------
    ws : Path
        Workspace.
    alpha : Alpha
        As its folder says now.
    stage : str
        `shadow`, `canary` or `live`.
    verdicts : mapping of str to Verdict
        Verified and passed, by gate.
    weight_ppm : int
        Weight that the evidence carries.
    symbol : str or None
        One instrument of several.
    validity_days : int
        Days from the last evidence to expiry, in record time.
    config_dir : Path or None
        Folder with overriding instruments and latency profiles.

    Returns
    -------
    dict
        Fields of `PromotedContent`.

    Raises
    ------
    PlatformError
        CONFIG_EVIDENCE_MISMATCH, CONFIG_WRONG_INSTRUMENT or PROMOTION_NOT_PERMITTED when manifest,
        verdicts, recordings and market model do not fit each other.
    """
    judged = judged_sessions(ws, alpha, verdicts["gate_a"])
    last = _last_evidence(ws, alpha, stage, judged)
    traded = _instruments(alpha, judged, symbol, config_dir)
    manifest = alpha.manifest
    parameters = manifest.defaults()
    if "gate_c" in verdicts:
        parameters = dict(verdicts["gate_c"].results["chosen_parameters"])
    _, latency_sha256 = load_latency_profile(manifest.latency_profile, config_dir)
    judged_by = verdicts["gate_c"].inputs.get("latency_profile") if "gate_c" in verdicts else None
    if judged_by not in (None, latency_sha256):
        raise PlatformError(
            ReasonCode.CONFIG_EVIDENCE_MISMATCH,
            f"gate C judged {alpha.key} under latency profile {str(judged_by)[:12]}, "
            f"{manifest.latency_profile} is {latency_sha256[:12]} now",
        )
    spec = AlphaSpec.from_manifest(manifest.model_dump(mode="json"), parameters, traded[0])
    content = {
        "schema": 1,
        "alpha_id": alpha.alpha_id,
        "alpha_hash": alpha.alpha_hash,
        "stage": stage,
        "expression": spec.expression,
        **({"kernel": dict(spec.kernel)} if spec.kernel else {}),
        "parameters": dict(spec.parameters),
        "template": dict(spec.template),
        "order_qty": spec.order_qty,
        "ttl_ns": spec.ttl_ns,
        "limits": dict(spec.limits),
        "weight_ppm": weight_ppm,
        "instruments": [{"symbol": row.symbol, "product_root": row.product_root} for row in traded],
        "roll_rule": {
            "kind": traded[0].roll_rule.kind,
            "trading_days_before": traded[0].roll_rule.trading_days_before,
        },
        "latency_profile": manifest.latency_profile,
        "latency_profile_sha256": latency_sha256,
        "queue_model": manifest.queue_model,
        "on_withdrawal": dict(spec.on_withdrawal),
        "issued_trading_day": last.trading_day,
        "not_before_ns": last.end_ns,
        "expires_ns": last.end_ns + validity_days * DAY_NS,
        "promotion_seq": 1,
        "code_sha256": code_sha256(),
        "data_sha256": str(verdicts["gate_a"].inputs["dataset"]),
        "verdicts": {gate: verdict.sha256 for gate, verdict in verdicts.items()},
    }
    # Through JSON once, so that no two parts of it are one object.
    plain: dict[str, Any] = json.loads(canonical_json(content))
    return plain


def _last_evidence(
    ws: Path, alpha: Alpha, stage: str, judged: list[RecordedSession]
) -> RecordedSession:
    # Valid only after everything that was judged: the gates' sessions, and the runtime sessions
    # that a canary rests on. Record time, so that a recording of last year can be walked.
    used = list(judged)
    if stage != "shadow":
        recorded = recorded_sessions(ws)
        for row in session_summaries(ws, alpha, stages=("shadow", "canary", "live")):
            session = recorded.get(row.evidence.tape_sha256) if row.evidence else None
            if session is not None:
                used.append(session)
    return max(used, key=lambda session: session.end_ns)


def _instruments(
    alpha: Alpha, judged: list[RecordedSession], symbol: str | None, config_dir: Path | None
) -> list[Instrument]:
    held = {session.symbol for session in judged}
    table = load_instruments(config_dir)
    wanted = [symbol] if symbol else list(alpha.manifest.instruments)
    symbols = [name for name in wanted if name in held and name in alpha.manifest.instruments]
    if not symbols:
        raise PlatformError(
            ReasonCode.CONFIG_WRONG_INSTRUMENT,
            f"{alpha.key} was judged on {', '.join(sorted(held))}, not on {', '.join(wanted)}",
        )
    traded = [table.by_symbol(name) for name in symbols]
    if len({(row.lot_size, row.tick_size, row.roll_rule) for row in traded}) > 1:
        raise PlatformError(
            ReasonCode.PROMOTION_NOT_PERMITTED,
            f"{alpha.key}: {', '.join(symbols)} have different lots, ticks or roll rules; "
            "one permit has one size",
            next_step=f"hft-research promote {alpha.alpha_id} --symbol {symbols[0]}",
        )
    return traded
