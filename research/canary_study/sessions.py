"""Sessions that lives are drawn from: traded by the paper runtime, healthy and spoiled.

Why: a rule is only as well tested as the sessions it is tried on; nobody makes these up.

Invariants:
1. Sessions are real: generated market, engine, paper exchange and its faults, accounts and replays
   as `hft-live run --mode paper` has them. Only what no exchange does by itself is put on top, as
   arithmetic on such a session (`SPOILED`).
2. Everything is drawn from the seed.

It judges nothing (see `lives`). Operator's page: `docs/canary.md`.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hft_platform import _core, records
from hft_platform.config.canonical import canonical_json
from hft_platform.config.engine_config import AlphaSpec, build_engine_config
from hft_platform.config.settings import load_settings
from hft_platform.execution.faults import FaultProfile
from hft_platform.execution.position_store import account_session, fills_of
from hft_platform.execution.venue_options import venue_options
from hft_platform.market.instruments import load_instruments
from hft_platform.market.latency import load_latency_profile
from hft_platform.records import SCALE
from hft_platform.services import session_facts
from hft_platform.services.parity import parity_of, read_session
from research import registry
from research.data.generator import session_hours, spec_by_name, tapes
from research.gates.promise import SessionExecution
from research.promotion.canary import CanaryThresholds, SessionFacts

ALPHA_ID = "gen_imbalance_taker"
POOL, SEED = 240, 20_261_128
WEAK_EDGE_STD = 0.5
SLOW_FACTOR = 6
EXTRA_TICKS = 2
STEP_RECORDS = 1 << 20


@dataclass(frozen=True, slots=True)
class PooledSession:
    """A session that was traded.

    Attributes
    ----------
    facts : SessionFacts
        At the weight that gate C judges.
    execution : SessionExecution
        The same for a promise.
    tick_money : int
        What one tick on every lot filled comes to, scaled money.
    """

    facts: SessionFacts
    execution: SessionExecution
    tick_money: int


def faults_of(**changes: Any) -> FaultProfile:
    """A fault profile with everything off but `changes`."""
    off = {
        name: None
        for name in FaultProfile.model_fields
        if name not in ("profile_id", "description", "seed")
    }
    return FaultProfile.model_validate(
        off | {"profile_id": "canary_study", "description": "one fault", "seed": SEED} | changes
    )


STORMS: Mapping[str, dict[str, Any]] = {
    "reject_storm": {"rejects": [{"reason": "BROKER_REJECTED", "rate_ppm": 200_000}]},
    "unknown_storm": {
        "lost_reply": {"rate_ppm": 100_000},
        "timeout": {"after_ms": 5_000, "resolve_ms": 10_000},
    },
}
"""Faults of the paper exchange, as a drill has them (docs/backtest.md)."""


def trade_sessions(
    count: int,
    scratch: Path,
    *,
    market: str = "sim_edge",
    faults: FaultProfile | None = None,
    slowed_by: int = 1,
    **changes: Any,
) -> list[PooledSession]:
    """Trade sessions of a generated market in the paper runtime and read their logs.

    Parameters
    ----------
    count : int
        Sessions.
    scratch : Path
        Folder for the logs, removed one by one.
    market : str, optional
        Of generator.yaml.
    faults : FaultProfile, optional
        What goes wrong at the exchange.
    slowed_by : int, optional
        Factor on the delay of placing.
    **changes : Any
        Fields of the market's spec.

    Returns
    -------
    list of PooledSession
    """
    spec = spec_by_name(market, session_count=count, **changes)
    instrument = load_instruments().by_symbol(spec.symbol)
    alpha = next(one for one in registry.bundled_alphas() if one.alpha_id == ALPHA_ID)
    manifest = alpha.manifest.model_dump(mode="json")
    latency, _ = load_latency_profile(alpha.manifest.latency_profile)
    latency["place"] = [[share, delay * slowed_by] for share, delay in latency["place"]]
    settings = load_settings()
    made = []
    hours = session_hours(spec, instrument)
    for index, tape in tapes(spec):
        config = build_engine_config(
            [
                AlphaSpec.from_manifest(
                    manifest,
                    alpha.manifest.defaults(),
                    instrument,
                    stage="canary",
                    weight_ppm=alpha.manifest.gate_weight_ppm,
                )
            ],
            instruments=[instrument],
            session=hours[index],
            account_limits=settings.account_limits(),
            storm_guard=settings.storm_guard(),
        )
        venue = venue_options(
            instrument,
            queue_model=alpha.manifest.queue_model,
            faults=None
            if faults is None
            else faults.model_copy(update={"seed": faults.seed + index}).core(hours[index].end_ns),
        )
        folder = scratch / f"{market}-{index}"
        folder.mkdir(parents=True)
        (folder / "engine.json").write_bytes(canonical_json(config))
        halted_by = _trade(folder, config, latency | {"seed": index}, venue, tape)
        made.append(_read(folder, config, instrument, halted_by=halted_by))
        shutil.rmtree(folder)
    return made


def _trade(
    folder: Path, config: dict[str, Any], latency: Any, venue: dict[str, Any], tape: bytes
) -> int:
    session = _core.PaperSession(
        canonical_json(config).decode(),
        canonical_json(latency).decode(),
        canonical_json(venue).decode(),
        str(folder),
        canonical_json({"wal_id": 1, "durable": "group", "segment_bytes": 64 << 20}).decode(),
    )
    session.feed(tape)
    while not session.run(None, STEP_RECORDS)["done"]:
        continue
    return int(session.finish()["halted_by"])


def _read(folder: Path, config: dict[str, Any], instrument: Any, *, halted_by: int) -> Any:
    logs = read_session(folder)
    parity = parity_of(logs, config)
    parts = records.split(logs.inputs)
    decisions = np.frombuffer(logs.decisions, dtype=records.DTYPES["Decision"])
    broker, books = parts["Broker"], parts["Book"]
    account, fills = account_session(broker, books, instrument), fills_of(broker)
    counts = session_facts.counts_of(parts, decisions)
    tick = instrument.tick_size
    slippage = session_facts.slippage_ticks(fills, decisions, tick)
    markout = {
        name: session_facts.markout_ticks(fills, books, horizon, tick)
        for name, horizon in session_facts.MARKOUT_NS.items()
    }
    filled = session_facts.filled_orders(fills, decisions)
    facts = SessionFacts(
        session_id=folder.name,
        weight_ppm=config["alphas"][0]["weight_ppm"],
        net=account.net,
        parity_identical=parity.identical,
        parity_total=parity.total,
        orders=counts["orders"],
        broker_rejects=counts["broker_rejects"],
        unknown=counts["unknown"],
        fills=account.fill_count,
        filled_orders=filled,
        slippage_ticks=slippage,
        markout_ticks=markout,
        # A storm halts the workspace by itself (see `stop`); its figures are still judged.
        halted_by=halted_by,
    )
    execution = SessionExecution(counts["orders"], filled, account.fill_count, slippage, markout)
    money = tick * account.traded_qty * instrument.multiplier // (SCALE * SCALE)
    return PooledSession(facts, execution, money)


Spoil = Callable[[PooledSession, CanaryThresholds, np.random.Generator], PooledSession]


def _slipped(
    session: PooledSession, _limits: CanaryThresholds, _rng: np.random.Generator
) -> PooledSession:
    """Every fill `EXTRA_TICKS` worse: so much more slippage, less markout and less money."""
    facts = session.facts
    if not facts.fills:
        return session
    return replace(
        session,
        facts=replace(
            facts,
            net=(facts.net or 0) - EXTRA_TICKS * session.tick_money,
            slippage_ticks=(facts.slippage_ticks or 0.0) + EXTRA_TICKS,
            markout_ticks={
                name: None if value is None else value - EXTRA_TICKS
                for name, value in facts.markout_ticks.items()
            },
        ),
    )


def _unmeasured(
    session: PooledSession, _limits: CanaryThresholds, _rng: np.random.Generator
) -> PooledSession:
    return replace(session, facts=replace(session.facts, filled_orders=None))


def _at_the_bands(
    session: PooledSession, limits: CanaryThresholds, rng: np.random.Generator
) -> PooledSession:
    """As bad as every band and limit allows, in each metric at once, and still as promised."""
    facts = session.facts
    orders, fills = facts.orders or 0, facts.fills or 0
    if not fills:
        return session
    worse = replace(
        facts,
        slippage_ticks=(facts.slippage_ticks or 0.0) + limits.slippage_band_ticks,
        markout_ticks={
            name: None if value is None else value - limits.markout_band_ticks
            for name, value in facts.markout_ticks.items()
        },
        filled_orders=(facts.filled_orders or 0) - math.floor(limits.fill_ratio_band * orders),
        broker_rejects=int(rng.binomial(orders, limits.reject_rate_max)),
        unknown=int(rng.binomial(orders, limits.unknown_rate_max)),
    )
    return replace(session, facts=worse)


def _unequal(
    session: PooledSession, _limits: CanaryThresholds, _rng: np.random.Generator
) -> PooledSession:
    total = session.facts.parity_total or 0
    facts = replace(session.facts, parity_total=total + 1, parity_identical=total)
    return replace(session, facts=facts)


SPOILED: Mapping[str, Spoil] = {
    "healthy_at_the_bands": _at_the_bands,
    "slippage_2_ticks": _slipped,
    "missing_metric": _unmeasured,
    "parity_break": _unequal,
}
"""What is done to a healthy session."""


def pools(scratch: Path, *, count: int = POOL) -> dict[str, list[PooledSession]]:
    """Trade every pool of sessions that lives are drawn from.

    Parameters
    ----------
    scratch : Path
        Folder for logs.
    count : int, optional
        Sessions of each.

    Returns
    -------
    dict of str to list of PooledSession
        By case; what is spoiled by arithmetic shares the healthy pool.
    """
    healthy = trade_sessions(count, scratch)
    edge = {"kind": "dying", "strength_ticks": 20.0, "horizon_s": 15.0, "dies_at_session": 0}
    storms = {
        name: trade_sessions(count, scratch, faults=faults_of(**changes))
        for name, changes in STORMS.items()
    }
    return {
        "healthy": healthy,
        "healthy_weak_edge": weakened(healthy, WEAK_EDGE_STD),
        "edge_decay": trade_sessions(count, scratch, edge=edge),
        "fill_ratio_collapse": trade_sessions(count, scratch, slowed_by=SLOW_FACTOR),
        **storms,
    }


def weakened(sessions: Sequence[PooledSession], edge_std: float) -> list[PooledSession]:
    """The same sessions with a constant taken from each net, so that the mean is `edge_std`."""
    nets = np.array([s.facts.net for s in sessions], dtype=np.float64)
    less = round(float(nets.mean() - edge_std * nets.std(ddof=1)))
    return [replace(s, facts=replace(s.facts, net=(s.facts.net or 0) - less)) for s in sessions]


def pool_facts(sessions: Sequence[PooledSession]) -> dict[str, float | None]:
    """Means of a pool, for people."""

    def mean(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return math.fsum(known) / len(known) if known else None

    orders = sum(s.facts.orders or 0 for s in sessions)
    nets = [float(s.facts.net or 0) / SCALE for s in sessions]
    return {
        "sessions": len(sessions),
        "orders_a_session": orders / len(sessions),
        "net_mean": mean(nets),
        "net_std": float(np.std(nets, ddof=1)),
        "slippage_ticks": mean([s.facts.slippage_ticks for s in sessions]),
        "markout_ticks_10s": mean([s.facts.markout_ticks.get("10s") for s in sessions]),
        "fill_ratio": mean([s.facts.fill_ratio for s in sessions]),
        "reject_rate": sum(s.facts.broker_rejects or 0 for s in sessions) / max(orders, 1),
        "unknown_rate": sum(s.facts.unknown or 0 for s in sessions) / max(orders, 1),
        "halted_share": sum(s.facts.halted_by != 0 for s in sessions) / len(sessions),
    }
