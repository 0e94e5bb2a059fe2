"""Did every simulated fill come after its order could have been at the exchange?

Why: a backtest that fills on the tick that caused the order, or leaves latency out, makes money in
any market. Its own account of its delays is no evidence: they are drawn again here, order by order.

Invariants:
1. A fill is at least its order's place delay after the decision; its report at least the response
   delay after the fill. Both are those of the profile that the alpha is judged by.
2. A fill of an order that no approved decision placed is none.

It corrects nothing: a run with one such fill is no evidence. Operator's page: `docs/look-ahead.md`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from hft_platform import _core, records
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.market.latency import profile_sha256
from hft_platform.services.session_facts import APPROVED, PLACE

if TYPE_CHECKING:
    from research.backtest.runner import SessionResult

_PLACE_DELAY, _RESPONSE_DELAY = 1, 3
"""`LatencyKind` in rust_core/src/latency.rs."""


def require_reachable_fills(result: SessionResult, latency: Mapping[str, Any]) -> None:
    """Refuse a run whose fills came too early.

    Parameters
    ----------
    result : SessionResult
        A backtested session.
    latency : mapping
        Profile that the alpha is judged by, with the corner of this run.

    Raises
    ------
    PlatformError
        FILL_TOO_EARLY naming the first fill, or the profile that was used instead.
    """
    expected = profile_sha256(dict(latency))
    if result.latency_sha256 != expected:
        raise _refused(
            result,
            f"ran under latency profile {result.latency_sha256[:12]}, judged by {expected[:12]}",
        )
    fills = result.fills
    if fills.size == 0:
        return
    decided = _decision_times(result.decisions)
    orders, place = np.unique(fills["order_id"], return_inverse=True)
    missing = [int(order) for order in orders if int(order) not in decided]
    if missing:
        raise _refused(result, f"order {missing[0]} was filled and no decision placed it")
    text = json.dumps(dict(latency), sort_keys=True)

    def delays(kind: int) -> Any:
        ids = orders[:1] if latency.get("corner") is not None else orders
        drawn = [_core.sample_latency(text, int(order), kind) for order in ids]
        return np.broadcast_to(np.array(drawn, dtype=np.int64), orders.shape)[place]

    times = np.array([decided[int(order)] for order in orders], dtype=np.int64)[place]
    filled, told = fills["exchange_time_ns"], fills["receive_time_ns"]
    for early, what in (
        (times + delays(_PLACE_DELAY) - filled, "filled before it was at the exchange"),
        (filled + delays(_RESPONSE_DELAY) - told, "known to be filled before its report came"),
    ):
        if early.max() > 0:
            at = int(np.argmax(early > 0))
            raise _refused(
                result,
                f"order {int(fills['order_id'][at])} was {what}, by {int(early[at]):,} ns; "
                f"so were {int((early > 0).sum())} of {fills.size} fills",
            )


def _decision_times(decisions: bytes) -> dict[int, int]:
    """Time of the decision that placed each order."""
    rows = np.frombuffer(decisions, dtype=records.DTYPES["Decision"])
    placed = rows[(rows["action"] == PLACE) & (rows["verdict"] == APPROVED)]
    return dict(zip(placed["order_id"].tolist(), placed["sequence_time_ns"].tolist(), strict=True))


def _refused(result: SessionResult, text: str) -> PlatformError:
    return PlatformError(
        ReasonCode.FILL_TOO_EARLY, f"backtest of session {result.session_id}: {text}"
    )
