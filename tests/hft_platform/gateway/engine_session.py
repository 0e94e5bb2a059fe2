"""A small live session for the channel's tests: the real engine, the real log writer, no threads.

The runtime's own session is `_core.LiveSession`; here time stands still, so that a test decides it.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from hft_platform import _core, records
from hft_platform.gateway.order_log import each_record
from tests.hft_platform.services.test_python_strategy import external_config
from tests.rust_core.market_days import DAY_OPEN_NS, SCALE, TXF_ID

MS = 1_000_000
OPEN_NS = DAY_OPEN_NS + 1_000 * MS
MARKET = ("Book", "Trade")


def gateway_config(alpha_count: int = 2) -> dict[str, Any]:
    """Engine config with so many alphas that take intents."""
    config = external_config(ttl_ns=2_000 * MS)
    alpha = config["alphas"][0]
    config["alphas"] = [
        {**alpha, "alpha_index": index, "alpha_id": f"runner_{index}"}
        for index in range(alpha_count)
    ]
    return config


class EngineSession:
    """Engine and order log; a folder that is there is recovered."""

    def __init__(self, folder: Path, *, epoch: int, config: dict[str, Any] | None = None) -> None:
        self.now_ns = OPEN_NS
        self.requests: list[dict[str, Any]] = []
        self.pushed = 0
        self._lock = threading.Lock()
        self._engine = _core.Engine(json.dumps(config or gateway_config()))
        orders = folder / "orders"
        self._log = _core.WalWriter(str(orders), 7, "orders", group_commit_ms=0, epoch=epoch)
        self.recovered = self._engine.recover(_core.read_log(str(orders))["tape"])
        self._seq = int(self.recovered["last_seq"])
        self.book()

    def clock_ns(self) -> int:
        return self.now_ns

    def push(self, tape: bytes) -> int:
        with self._lock:
            for code, record in each_record(tape):
                self._one(code, bytearray(record))
            return self._seq

    def _one(self, code: int, record: bytearray) -> None:
        self._seq += 1
        self.pushed += 1
        self.now_ns += 1
        fields = records.DTYPES["Intent"].fields or {}
        for name, value in (("input_seq", self._seq), ("sequence_time_ns", self.now_ns)):
            at = fields[name][1]
            record[at : at + 8] = value.to_bytes(8, "little")
        decisions = self._engine.on_tape(bytes(record))
        if code not in (records.TYPE_CODES[name] for name in MARKET):
            self._log.append(bytes(record))
        if decisions:
            self._log.append(decisions)
            for row in records.split(decisions)["Decision"]:
                if row["verdict"] == 1 and row["action"] in (1, 2):
                    self.requests.append(
                        {name: row[name] for name in ("action", "order_id", "qty")}
                    )
        self._log.sync()

    def book(self, bid: int = 30_000) -> None:
        """A good book a millisecond later."""
        self.now_ns += MS
        rows = records.empty("Book", 1)
        rows["instrument_id"], rows["trading_day"], rows["source_id"] = TXF_ID, 20260410, 1
        rows["exchange_time_ns"] = rows["receive_time_ns"] = self.now_ns
        for level in range(5):
            rows["bid_price"][:, level] = (bid - level) * SCALE
            rows["ask_price"][:, level] = (bid + 1 + level) * SCALE
        rows["bid_qty"] = rows["ask_qty"] = 20 * SCALE
        self.push(rows.tobytes())

    def broker(self, order_id: int, kind: int, **fields: int) -> None:
        """The broker says something about an order."""
        rows = records.empty("Broker", 1)
        rows["instrument_id"], rows["order_id"], rows["event_kind"] = TXF_ID, order_id, kind
        rows["exchange_time_ns"] = rows["receive_time_ns"] = self.now_ns
        for name, value in fields.items():
            rows[name] = value
        self.push(rows.tobytes())

    def rotate(self) -> None:
        self._log.rotate()

    def close(self) -> None:
        """Let go as a crash does."""
        self._log.close()
