"""From a market record to the entry of the broker's call, through the real live session.

One thread pushes, another takes the request and enters `place`, as in the runtime. The broker is a
function that does nothing, so what is timed is ours: lock, log, engine, the intent on disk, the
wake-up of the other thread and the interpreter. Reading an SDK object is `normaliser.*`.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from hft_platform import _core, records
from tests.bench.run import RUNS, remove, spread, temporary_folder
from tests.rust_core.live_driver import FILL, WORKING, broker_event
from tests.rust_core.market_days import (
    DAY_OPEN_NS,
    SCALE,
    TXF_ID,
    engine_config,
    synthetic_day,
)

ORDERS = 400
SWITCH_INTERVAL_S = 1e-4
"""As the runtime sets it: how long a thread may keep the interpreter while others wait."""
PAUSE_S = 0.002
STEP_NS = 1_000_000_000
MODES = {"record": "intent durable before the call", "group": "intent durable within 10 ms"}


def tick_to_call() -> dict[str, Any]:
    """Times of every order, with and without the durable intent, and of a bare fdatasync beside."""
    samples: dict[str, list[list[float]]] = {mode: [] for mode in (*MODES, "fdatasync")}
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        for _ in range(RUNS):
            folder = temporary_folder()
            try:
                for mode in MODES:
                    samples[mode].append(_session(folder / mode, mode))
                samples["fdatasync"].append(_syncs(folder / "bare"))
            finally:
                remove(folder)
    finally:
        sys.setswitchinterval(interval)
    found = {}
    for quantile in (50, 99):
        for mode, label in MODES.items():
            name = "tick_to_call_us" if mode == "record" else "tick_to_call_group_us"
            found[f"order.{name}.p{quantile}"] = spread(
                [float(np.percentile(run, quantile)) for run in samples[mode]],
                "us",
                f"market record to entry of place, {label}",
            )
        found[f"order.fdatasync_us.p{quantile}"] = spread(
            [float(np.percentile(run, quantile)) for run in samples["fdatasync"]],
            "us",
            "write and fdatasync of one decision, beside it in the same run",
        )
    found["order.tick_to_call_over_fdatasync"] = spread(
        [
            statistics.median(run) / statistics.median(bare)
            for run, bare in zip(samples["record"], samples["fdatasync"], strict=True)
        ],
        "ratio",
        "medians of one run: what is ours beside the disk",
    )
    return found


def _config() -> dict[str, Any]:
    """A taker that every book makes trade: in, out, in, out."""
    config = engine_config(synthetic_day(snapshots=2), "taker")
    end = DAY_OPEN_NS + 10 * ORDERS * STEP_NS
    config["session"]["phases"] = [{"start_ns": DAY_OPEN_NS - 1, "end_ns": end, "phase": "open"}]
    return config


def _books() -> list[bytes]:
    rows = records.empty("Book", ORDERS)
    rows["instrument_id"] = TXF_ID
    rows["receive_time_ns"] = DAY_OPEN_NS + STEP_NS * np.arange(1, ORDERS + 1)
    rows["exchange_time_ns"] = rows["receive_time_ns"]
    bid = 30_000 + np.arange(ORDERS) % 7
    offsets = np.arange(5)
    rows["bid_price"] = (bid[:, None] - offsets) * SCALE
    rows["ask_price"] = (bid[:, None] + 1 + offsets) * SCALE
    rows["bid_qty"] = 10 * SCALE
    rows["ask_qty"] = 10 * SCALE
    is_entry = np.arange(ORDERS) % 2 == 0
    rows["bid_qty"][is_entry, 0] = 30 * SCALE
    rows["ask_qty"][is_entry, 0] = SCALE
    return [row.tobytes() for row in rows]


def _session(folder: Path, mode: str) -> list[float]:
    """Microseconds from push to place of every order of one session."""
    folder.mkdir(parents=True)
    options = {"wal_id": 1, "epoch": 1, "durable": mode}
    session = _core.LiveSession(json.dumps(_config()), str(folder), json.dumps(options))
    entered: list[int] = []
    is_answered = threading.Event()

    def place(request: _core.OrderRequest) -> None:
        """The broker: its entry is what is timed."""
        entered.append(time.perf_counter_ns())

    def dispatch() -> None:
        while (request := session.next_request(5_000)) is not None:
            place(request)
            now_ns = request.decided_ns + 1_000
            session.push(
                broker_event(request, WORKING, now_ns)
                + broker_event(
                    request, FILL, now_ns, remaining_qty=0, broker_seq=request.decision_seq
                )
            )
            is_answered.set()

    dispatcher = threading.Thread(target=dispatch)
    dispatcher.start()
    pushed = []
    gc.collect()
    gc.disable()
    try:
        for book in _books():
            is_answered.clear()
            started = time.perf_counter_ns()
            session.push(book)
            pushed.append(started)
            if not is_answered.wait(timeout=5):
                raise RuntimeError(f"no request for book {len(pushed)}: {session.state()}")
            time.sleep(PAUSE_S)
    finally:
        gc.enable()
        session.close()
        dispatcher.join()
    # The first ones find cold code.
    times = [(e - p) / 1e3 for p, e in zip(pushed, entered, strict=True)]
    return times[ORDERS // 10 :]


def _syncs(path: Path) -> list[float]:
    """Microseconds of a write of one decision's frame and its fdatasync, the file preallocated."""
    frame = bytes(records.DTYPES["Decision"].itemsize + 48)
    times = []
    with path.open("wb", buffering=0) as file:
        file.write(bytes(1 << 20))
        os.fsync(file.fileno())
        for place in range(ORDERS):
            started = time.perf_counter_ns()
            os.pwrite(file.fileno(), frame, place * len(frame))
            os.fdatasync(file.fileno())
            times.append((time.perf_counter_ns() - started) / 1e3)
            time.sleep(PAUSE_S)
    return times[ORDERS // 10 :]
