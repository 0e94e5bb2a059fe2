"""The drill disk-full from inside its mount namespace: `python -m` with disk, report and seed.

Why: the session has to be a process of its own on a disk that is really full, and the disk is only
there for processes of this namespace.

Invariants:
1. Everything it writes lies on the small disk, but the report.
2. What it claims of the session it reads from the session's logs and exit code, never from memory.

It is started by `hft_platform/drills/disk.py`. Operator's page: `docs/drills/disk-full.md`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from hft_platform import _core, records
from hft_platform.cli import main as hft_live
from hft_platform.config.canonical import atomic_write, canonical_json
from hft_platform.drills.drill import Claim
from hft_platform.drills.market import ALPHA_ID, MAKER, make_workspace
from hft_platform.errors import ReasonCode, code_name
from hft_platform.services.parity import engine_config_of, parity_of, read_session

BOOK_COUNT = 1_200
SPEED = 100
"""Times real time: five minutes of market in 3 s, some 110 kB of log a second."""
SEGMENT_BYTES = 256 << 10
"""More than two seconds of it: the disk is looked at once a second."""
FILLED_FROM_BYTES = 32 << 10
"""Of the market log: the disk is filled when the session trades."""
DEADLINE_S = 60.0
WORKING, FILL = 1, 3
PLACE, CANCEL, APPROVED, POLICY_CHANGE, HALTED = 1, 2, 1, 17, 2
SETTINGS = {
    "HFT_DISK_PRESSURE__SEGMENT_BYTES": SEGMENT_BYTES,
    "HFT_DISK_PRESSURE__WARN": "{free_bytes_in: 6000000, free_bytes_out: 7000000,"
    " seconds_in: 3, seconds_out: 4}",
    "HFT_DISK_PRESSURE__CRITICAL": "{free_bytes_in: 3000000, free_bytes_out: 4000000,"
    " seconds_in: 2, seconds_out: 3}",
    "HFT_DISK_PRESSURE__HALT": "{free_bytes_in: 1000000, free_bytes_out: 2000000,"
    " seconds_in: 1, seconds_out: 2}",
}
"""Thresholds as small as the disk."""
REFUSED = 3
"""Exit code of hft-live: refused with a reason code."""
FULL = int(ReasonCode.DISK_SPACE_HALT)


def command(*arguments: str) -> tuple[int, str]:
    """Run hft-live here; gives exit code and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = hft_live(list(arguments))
    return code, out.getvalue() + err.getvalue()


def wait_for(what: str, is_there: Any, process: subprocess.Popen[str]) -> None:
    """Poll until something is there, or say what was waited for."""
    deadline = time.monotonic() + DEADLINE_S
    while not is_there():
        if time.monotonic() > deadline or process.poll() is not None:
            raise TimeoutError(f"{what} did not come: {process.communicate(timeout=5)}")
        time.sleep(0.02)


def fill(file: io.FileIO) -> None:
    """Write until the disk takes no more."""
    with contextlib.suppress(OSError):
        while True:
            file.write(bytes(4_096))


def tape_of_log(log_dir: Path) -> bytes:
    """Records of a log, open segment included."""
    return bytes(_core.read_log(str(log_dir))["tape"])


def durable_seq(log_dir: Path) -> int:
    """Highest acknowledged sequence by the log's watermark."""
    mark = _core.read_watermark(str(log_dir))
    return 0 if mark is None else int(mark["durable_seq"])


def run(disk: Path, seed: int) -> tuple[list[Claim], dict[str, Any]]:
    """Fill the disk under a session, make room again, and trade once more.

    Parameters
    ----------
    disk : Path
        Mount point of the small disk.
    seed : int
        Of the market.

    Returns
    -------
    claims : list of Claim
    facts : dict
    """
    os.environ.update({name: str(value) for name, value in SETTINGS.items()})
    os.chdir(disk)
    workspace = disk / "ws"
    session = make_workspace(workspace, seed, book_count=BOOK_COUNT, template=MAKER)
    trade = ["run", "--workspace", str(workspace), "--alpha", ALPHA_ID, "--session", session]
    paced = [*trade, "--mode", "paper", "--speed", str(SPEED)]
    process = subprocess.Popen(
        [sys.executable, "-m", "hft_platform.cli", *paced],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    market_dirs = "sessions/*/market"
    wait_for(
        "a session that trades",
        lambda: any(
            len(tape_of_log(folder)) > FILLED_FROM_BYTES for folder in workspace.glob(market_dirs)
        ),
        process,
    )
    session_dir = next((workspace / "sessions").iterdir())
    logs = {kind: session_dir / kind for kind in ("market", "orders")}
    ballast = disk / "ballast"
    acked: dict[str, int] = {}
    with ballast.open("wb", buffering=0) as file:
        fill(file)
        filled = len(tape_of_log(logs["market"]))
        while process.poll() is None:
            # Whatever the session gives back is taken at once, as a runaway neighbour would.
            fill(file)
            acked |= {kind: durable_seq(folder) for kind, folder in logs.items()}
            time.sleep(0.005)
    out, err = process.communicate(timeout=DEADLINE_S)
    claims, facts = _left_behind(session_dir, filled, acked, (process.returncode, out + err))
    ballast.unlink()
    claims += _recovered(workspace, session_dir, [*trade, "--mode", "sim"])
    return claims, facts


def resting(session_dir: Path, input_seq: int) -> set[int]:
    """Orders that rested at an input, by what the exchange had said until then."""
    broker = records.split(tape_of_log(session_dir / "orders"))["Broker"]
    last = {int(row["order_id"]): row for row in broker[broker["input_seq"] < input_seq]}
    return {
        order_id
        for order_id, row in last.items()
        if row["event_kind"] == WORKING or (row["event_kind"] == FILL and row["remaining_qty"])
    }


def _left_behind(
    session_dir: Path, filled: int, acked: dict[str, int], ended: tuple[int, str]
) -> tuple[list[Claim], dict[str, Any]]:
    exit_code, said = ended
    held = {}
    for kind in ("market", "orders"):
        tape = tape_of_log(session_dir / kind)
        held[kind] = sum(part.size for part in records.split(tape).values())
    orders = records.split(tape_of_log(session_dir / "orders"))["Decision"]
    halts = orders[(orders["action"] == POLICY_CHANGE) & (orders["intent_reason"] == HALTED)]
    halt_seq = int(halts["input_seq"][0]) if halts.size else 0
    market = tape_of_log(session_dir / "market")
    before = sum(
        int((part["input_seq"] < halt_seq).sum()) * part.dtype.itemsize
        for part in records.split(market).values()
    )
    approved = orders[orders["verdict"] == APPROVED]
    placed = approved[(approved["action"] == PLACE) & (approved["input_seq"] > halt_seq)]
    opened = placed[placed["side"] * placed["position_qty"] >= 0]
    taken_back = set(approved[approved["action"] == CANCEL]["order_id"].tolist())
    rested = resting(session_dir, halt_seq)
    halted_by = _halted_by(session_dir)
    shed = read_session(session_dir)
    parity = parity_of(shed, engine_config_of(session_dir))
    claims = [
        Claim("it ended by itself, refused, or with room again and a summary of the halt",
              True, exit_code == REFUSED or (exit_code == 0 and halted_by == FULL)),
        Claim("it named the full disk", True, code_name(ReasonCode.DISK_SPACE_HALT) in said),
        Claim("it did not crash", False, "Traceback" in said or "panicked" in said),
        *(
            Claim(f"every acknowledged record of the {kind} log is there",
                  True, 0 < seq <= held[kind])
            for kind, seq in acked.items()
        ),
        Claim("HALT is in the order log for the full disk",
              int(ReasonCode.DISK_SPACE_HALT), int(halts["reason_code"][0]) if halts.size else 0),
        Claim("it came within one segment", True, before - filled <= SEGMENT_BYTES),
        Claim("what rested was taken back", [], sorted(rested - taken_back)),
        Claim("nothing was opened behind it", 0, int(opened.size)),
        Claim("every record that the log lacks is named", True, bool(shed.shed)),
        Claim("parity holds up to the first of them", True, parity.is_identical),
        Claim("no summary makes it a sound session", True, halted_by in (None, FULL)),
    ]  # fmt: skip
    facts = {
        "market_bytes_from_full_to_halt": max(before - filled, 0),
        "segment_bytes": SEGMENT_BYTES,
        "orders_resting_at_halt": len(rested),
        "records_shed": sum(one.count for one in shed.shed),
        "decisions_not_replayable": parity.not_replayable,
        "acknowledged": acked,
    }
    return claims, facts


def _halted_by(session_dir: Path) -> int | None:
    """What a summary says halted the session; None where there is none.

    What a session gives back at its end may be enough for its summary: the neighbour that takes all
    room is a process like any other.
    """
    path = session_dir / "summary.json"
    if not path.exists():
        return None
    return int(json.loads(path.read_bytes())["evidence"]["halted_by"])


def _recovered(workspace: Path, session_dir: Path, trade: list[str]) -> list[Claim]:
    """Room again: the halt stands until it is lifted, then a session runs whole."""
    where = ["--workspace", str(workspace)]
    refused, why = command(*trade)
    _, shown = command("resume", *where, "--json")
    content = json.loads(shown)
    resumed, _ = command("resume", *where, "--confirm", str(content.get("token")))
    ran, _ = command(*trade)
    after = sorted(p for p in (workspace / "sessions").iterdir() if p != session_dir)
    evidence: dict[str, Any] = {}
    if after and (after[0] / "summary.json").exists():
        evidence = json.loads((after[0] / "summary.json").read_bytes())["evidence"]
    parity = evidence.get("parity") or {}
    return [
        Claim("with room again no session starts before a resume", (REFUSED, True),
              (refused, code_name(ReasonCode.KILL_SWITCH_ON) in why)),
        Claim("the halt of the workspace is the full disk's",
              int(ReasonCode.DISK_SPACE_HALT), content.get("code")),
        Claim("a resume in two steps lifts it", 0, resumed),
        Claim("the next session runs, sheds nothing and replays whole", (0, 0, 0, True),
              (ran, evidence.get("halted_by"), evidence.get("shed_count"),
               bool(parity) and parity["identical"] == parity["total"] > 0)),
    ]  # fmt: skip


def main(disk: str, report: str, seed: str) -> None:
    """Run it and write the report beside the disk."""
    claims, facts = run(Path(disk), int(seed))
    rows = [{k: v for k, v in asdict(claim).items() if k != "holds"} for claim in claims]
    content = json.loads(json.dumps({"claims": rows, "facts": facts}, default=_plain))
    atomic_write(Path(report), canonical_json(content))


def _plain(value: Any) -> Any:  # Any: a numpy scalar
    return value.item() if isinstance(value, np.generic) else list(value)


if __name__ == "__main__":
    main(*sys.argv[1:])
