"""Run one session of one promoted config: verify, trade, log, seal, replay, sum up, sign.

`sim` runs in virtual time at full speed, `paper` against the paper exchange at the pace of the
recording (or `speed` times it); both log every input and every decision before it leaves.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hft_platform import _core, records
from hft_platform.config.canonical import atomic_write, canonical_json
from hft_platform.config.code_hash import code_sha256
from hft_platform.config.engine_config import AlphaSpec, build_engine_config
from hft_platform.config.keys import KeyRing
from hft_platform.config.promoted import PromotedConfig
from hft_platform.config.settings import Settings
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.execution import position_store
from hft_platform.feed.recording import RecordedSession, load_tape
from hft_platform.market.instruments import Instrument, InstrumentTable
from hft_platform.market.latency import load_latency_profile
from hft_platform.services import latch, session_summary
from hft_platform.services.parity import ParityReport, read_session, replay_session

STEP_RECORDS = 20_000
"""Records between two looks at the halt latch and the withdrawals when running unpaced."""
STEP_NS = 200_000_000
"""Time between two looks when paced: a fifth of the second that ARCHITECTURE allows."""
HALT, WITHDRAW, SET_WEIGHT = 1, 6, 7
"""`CommandKind` in rust_core/src/record.rs."""
ALL_ALPHAS = 0xFFFF_FFFF
MARKOUT_NS = {"1s": 1_000_000_000, "10s": 10_000_000_000}

Progress = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What to run.

    Attributes
    ----------
    workspace : Path
        Folder with keys, promotions, datasets and sessions.
    config_path : Path
        The promoted config's YAML.
    session : RecordedSession
        The recording that plays the market.
    mode : str
        ``sim`` or ``paper``.
    speed : float or None
        Times real time; None runs as fast as the machine can.
    """

    workspace: Path
    config_path: Path
    session: RecordedSession
    mode: str
    speed: float | None = None


@dataclass(frozen=True, slots=True)
class SessionOutcome:
    """Where the session lies and what came of it."""

    session_dir: Path
    summary: dict[str, Any]
    parity: ParityReport


def run_session(
    request: RunRequest,
    *,
    instruments: InstrumentTable,
    settings: Settings,
    progress: Progress | None = None,
) -> SessionOutcome:
    """Run one session to its end.

    Raises
    ------
    PlatformError
        A typed refusal when the config may not trade this session, KILL_SWITCH_ON while halted,
        WAL_WRITE_FAILED when the log could not be written (nothing was sent after that).
    """
    started = time.perf_counter()
    latch.require_clear(request.workspace)
    instrument = instruments.by_symbol(request.session.symbol)
    session = request.session.session_of(instrument)
    ring = KeyRing.open(request.workspace, pinned_file=settings.pinned_keys_path)
    config = PromotedConfig.load_verified(
        request.config_path,
        workspace=request.workspace,
        trusted_keys=ring.trusted(),
        mode=request.mode,
        now_ns=session.start_ns,
        symbol=instrument.symbol,
        code_sha256=code_sha256(),
    )
    latency, latency_sha = load_latency_profile(config.latency_profile)
    if latency_sha != config.latency_profile_sha256:
        raise PlatformError(
            ReasonCode.CONFIG_EVIDENCE_MISMATCH,
            f"latency profile {config.latency_profile} has hash {latency_sha[:12]},"
            f" the config was signed for {config.latency_profile_sha256[:12]}",
        )
    engine_config = build_engine_config(
        [AlphaSpec.from_promoted(config, instrument.symbol)],
        instruments=[instrument],
        session=session,
        account_limits=settings.account_limits(),
    )
    tape = load_tape(request.session)
    session_dir = _new_session_dir(request, config)
    atomic_write(session_dir / "engine.json", canonical_json(engine_config) + b"\n")
    atomic_write(session_dir / "latency.json", canonical_json(latency) + b"\n")
    atomic_write(session_dir / "config.yaml", request.config_path.read_bytes())
    paper = _core.PaperSession(
        canonical_json(engine_config).decode(),
        canonical_json(latency).decode(),
        canonical_json({"queue_model": config.queue_model}).decode(),
        str(session_dir),
        canonical_json(_log_options(session_dir.name, request)).decode(),
    )
    paper.feed(tape)
    withdrawn = _drive(paper, request, config, session.start_ns, progress)
    finished = paper.finish()
    if finished.get("halted_by"):
        latch.halt(
            request.workspace, who=session_dir.name, why="the engine halted",
            code=int(finished["halted_by"]),
        )
    traded = time.perf_counter()
    parity = replay_session(session_dir)
    evidence = _evidence(
        session_dir, request, config, instrument, engine_config, finished, parity,
        latency_sha=latency_sha, withdrawn=withdrawn,
    )
    timings = {
        "run_seconds": traded - started,
        "replay_seconds": time.perf_counter() - traded,
        "decide_ns": finished.get("decide_ns", {}),
    }
    summary = session_summary.sign_summary(evidence, timings, ring.session_key())
    atomic_write(session_dir / "summary.json", canonical_json(summary) + b"\n")
    return SessionOutcome(session_dir, summary, parity)


def _log_options(run_id: str, request: RunRequest) -> dict[str, Any]:
    """Paced sessions sync every decision before its request leaves, as live does.

    In virtual time there is no broker to be ahead of: the log is synced in groups, and a crash
    loses at most a session that can be run again.
    """
    return {"wal_id": _wal_id(run_id), "durable": "group" if request.speed is None else "record"}


def _wal_id(run_id: str) -> int:
    """A stable, non-zero 31-bit id of the session's logs."""
    return int(records.tape_sha256(run_id.encode())[:7], 16) + 1


def _new_session_dir(request: RunRequest, config: PromotedConfig) -> Path:
    base = request.workspace / "sessions"
    session = request.session.session_id.replace("/", "_")
    stem = f"{session}-{request.session.symbol}-{config.alpha_id}-{config.stage}"
    base.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, 1000):
        path = base / (stem if attempt == 1 else f"{stem}-{attempt}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise PlatformError(ReasonCode.CAPACITY_REACHED, f"{stem}: a thousand runs of one session")


def _drive(
    paper: Any,
    request: RunRequest,
    config: PromotedConfig,
    start_ns: int,
    progress: Progress | None,
) -> bool:
    """Step the session; between steps look at the latch, withdrawals and lowered weights."""
    halted = withdrawn = False
    weight_ppm = config.weight_ppm
    wall_start, virtual_ns = time.monotonic(), start_ns
    while True:
        if not halted and (content := latch.read(request.workspace)) is not None:
            paper.command(HALT, ALL_ALPHAS, 0, int(content["code"]))
            halted = True
        if not withdrawn and config.is_withdrawn(request.workspace):
            paper.command(WITHDRAW, 0, 0, int(ReasonCode.CONFIG_WITHDRAWN))
            withdrawn = True
        if (now_ppm := config.weight_in_force(request.workspace)) < weight_ppm:
            paper.command(SET_WEIGHT, 0, now_ppm, 0)
            weight_ppm = now_ppm
        if request.speed is None:
            state = paper.run(None, STEP_RECORDS)
        else:
            virtual_ns = start_ns + int((time.monotonic() - wall_start) * request.speed * 1e9)
            state = paper.run(virtual_ns, 1 << 62)
        if progress is not None:
            progress(state)
        if state["done"]:
            return withdrawn
        if request.speed is not None:
            time.sleep(STEP_NS / 1e9)


def _evidence(
    session_dir: Path,
    request: RunRequest,
    config: PromotedConfig,
    instrument: Instrument,
    engine_config: dict[str, Any],
    finished: dict[str, Any],
    parity: ParityReport,
    *,
    latency_sha: str,
    withdrawn: bool,
) -> dict[str, Any]:
    logs = read_session(session_dir)
    parts = records.split(logs.inputs)
    decisions = np.frombuffer(logs.decisions, dtype=records.DTYPES["Decision"])
    account = position_store.account_session(parts["Broker"], parts["Book"], instrument)
    fills = position_store.fills_of(parts["Broker"])
    refused = decisions[decisions["verdict"] == 2]
    codes, counts = np.unique(refused["reason_code"], return_counts=True)
    kinds = parts["Broker"]["event_kind"]
    return {
        "schema": 1,
        "run_id": session_dir.name,
        "alpha_id": config.alpha_id,
        "alpha_hash": config.alpha_hash,
        "config_sha256": config.content_sha256,
        "promotion_seq": config.promotion_seq,
        "stage": config.stage,
        "weight_ppm": engine_config["alphas"][0]["weight_ppm"],
        "mode": request.mode,
        "symbol": instrument.symbol,
        "session_id": request.session.session_id,
        "trading_day": request.session.trading_day,
        "tape_sha256": request.session.tape_sha256,
        "latency_profile_sha256": latency_sha,
        "queue_model": config.queue_model,
        "code_sha256": code_sha256(),
        "counts": {
            "records": int(sum(part.size for part in parts.values())),
            "decisions": int(decisions.size),
            "approved": int((decisions["verdict"] == 1).sum()),
            "refused_by_code": {
                str(int(code)): int(count) for code, count in zip(codes, counts, strict=True)
            },
            "orders": int(((decisions["action"] == 1) & (decisions["verdict"] == 1)).sum()),
            "broker_rejects": int((kinds == 2).sum()),
            "unknown": int((kinds == 7).sum()),
        },
        "decisions_sha256": parity.decisions_sha256,
        "inputs_sha256": parity.inputs_sha256,
        "parity": {"identical": parity.identical, "total": parity.total},
        "account": position_store.as_dict(account),
        "order_latency_ms": _order_latency_ms(decisions, parts["Broker"]),
        "slippage_ticks": _slippage_ticks(fills, decisions, instrument.tick_size),
        "markout_ticks": {
            name: _markout_ticks(fills, parts["Book"], horizon, instrument.tick_size)
            for name, horizon in MARKOUT_NS.items()
        },
        "halted_by": int(finished.get("halted_by") or 0),
        "withdrawn": withdrawn,
        "segments": [row["sha256"] for row in logs.segments],
    }


def _order_latency_ms(
    decisions: position_store.Records, broker: position_store.Records
) -> dict[str, float | None]:
    """Decision to first broker report, in record time."""
    placed = decisions[(decisions["action"] == 1) & (decisions["verdict"] == 1)]
    if placed.size == 0 or broker.size == 0:
        return {"p50": None, "p95": None}
    ids, first = np.unique(broker["order_id"], return_index=True)
    position = np.searchsorted(ids, placed["order_id"])
    position = np.minimum(position, ids.size - 1)
    known = ids[position] == placed["order_id"]
    waits = (
        broker["sequence_time_ns"][first[position[known]]] - placed["sequence_time_ns"][known]
    ) / 1e6
    if waits.size == 0:
        return {"p50": None, "p95": None}
    return {"p50": float(np.quantile(waits, 0.5)), "p95": float(np.quantile(waits, 0.95))}


def _slippage_ticks(
    fills: position_store.Records, decisions: position_store.Records, tick_size: int
) -> float | None:
    """Mean cost of a fill against the mid at its decision, in ticks; positive is worse."""
    placed = decisions[(decisions["action"] == 1) & (decisions["verdict"] == 1)]
    if fills.size == 0 or placed.size == 0:
        return None
    reference = {int(row["order_id"]): int(row["reference_price"]) for row in placed}
    costs = [
        int(fill["side"]) * (int(fill["price"]) - reference[int(fill["order_id"])]) / tick_size
        for fill in fills
        if int(fill["order_id"]) in reference
    ]
    return float(np.mean(costs)) if costs else None


def _markout_ticks(
    fills: position_store.Records,
    books: position_store.Records,
    horizon_ns: int,
    tick_size: int,
) -> float | None:
    """Mean move of the mid in our direction `horizon_ns` after a fill, from the fill price."""
    times, mids = position_store.mids_of(books)
    if fills.size == 0 or times.size == 0:
        return None
    index = np.searchsorted(times, fills["exchange_time_ns"] + horizon_ns, side="right") - 1
    moves = fills["side"] * (mids[np.maximum(index, 0)] - fills["price"]) / tick_size
    return float(np.mean(moves))


def read_summary(session_dir: Path) -> dict[str, Any]:
    """The signed summary of a finished session."""
    path = session_dir / "summary.json"
    if not path.exists():
        raise PlatformError(
            ReasonCode.CONFIG_NOT_FOUND, f"session {session_dir.name} has no summary: it did not end"
        )
    return json.loads(path.read_bytes())
