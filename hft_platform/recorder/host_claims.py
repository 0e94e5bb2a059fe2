"""Claims between hosts: who loads a segment that two hosts can read.

Why: hosts that share a server may hold copies of the same segments; loading one twice costs time.

Invariants:
1. A claim belongs to a host, not to a process: within a host the lock files decide (`claims`), and
   a loader that died leaves nothing behind that its own host would wait for.
2. Of several live claims on a segment the one with the highest epoch counts, among equals the
   host whose name comes first: everybody who reads the same rows names the same winner.
3. It is about efficiency only. ClickHouse has no compare-and-set, so two hosts that claim in the
   same moment may both win; they then send the same rows under the same tokens.

Used with a server only: an embedded store has one process. Operator's page: `docs/store.md`.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hft_platform.recorder import columns
from hft_platform.recorder.ledger import SegmentKey
from hft_platform.recorder.small_tables import insert_rows

if TYPE_CHECKING:
    from hft_platform.recorder.store import Store

CLAIM_SECONDS = 600
"""A dead host's segments wait so long for another host; a dead process's do not wait."""


class HostClaims:
    """The claims of this host in one store.

    Parameters
    ----------
    store : Store
        Open store on a server.
    host : str, optional
        Name of this host; by default what the system calls it.
    """

    def __init__(self, store: Store, host: str | None = None) -> None:
        self._store = store
        self.host = host or socket.gethostname()

    def claim(self, keys: Sequence[SegmentKey]) -> set[SegmentKey]:
        """Claim segments and say which of them this host may load now.

        Parameters
        ----------
        keys : sequence of SegmentKey
            Wanted ones.

        Returns
        -------
        set of SegmentKey
            Those that no other host has.
        """
        live, epochs = self._read(keys)
        wanted = [key for key in keys if key not in live]
        rows = [
            {
                "run_id": key.run_id, "log_kind": columns.LOG_KINDS[key.log_kind],
                "segment_id": key.segment_id, "owner": self.host,
                "epoch": epochs.get(key, 0) + 1, "ttl_s": CLAIM_SECONDS,
            }
            for key in wanted
        ]  # fmt: skip
        # A claim is no data: each is a new one, however equal to an earlier one that has ended.
        token = f"{self.host}:{os.getpid()}:{time.monotonic_ns()}"
        insert_rows(self._store, "hft.ingest_claims", rows, token=token)
        if wanted:
            live, _ = self._read(keys)
        return {key for key in keys if live.get(key) == self.host}

    def _read(
        self, keys: Sequence[SegmentKey]
    ) -> tuple[dict[SegmentKey, str], dict[SegmentKey, int]]:
        """Winner of each segment with a live claim, and the highest epoch of each ever claimed."""
        rows = self._store.rows(
            "SELECT run_id, toString(log_kind), segment_id, epoch, owner,"
            " expires_at > now64(3, 'UTC') FROM hft.ingest_claims"
            " WHERE run_id IN {runs:Array(String)} AND segment_id IN {ids:Array(UInt32)}",
            {
                "runs": sorted({key.run_id for key in keys}),
                "ids": sorted({key.segment_id for key in keys}),
            },
        )
        best: dict[SegmentKey, tuple[int, str]] = {}
        epochs: dict[SegmentKey, int] = {}
        for run_id, log_kind, segment_id, epoch, owner, is_live in rows:
            key = SegmentKey(str(run_id), str(log_kind), int(segment_id))
            epochs[key] = max(epochs.get(key, 0), int(epoch))
            if is_live:
                candidate = (-int(epoch), str(owner))
                best[key] = min(best.get(key, candidate), candidate)
        return {key: owner for key, (_, owner) in best.items()}, epochs
