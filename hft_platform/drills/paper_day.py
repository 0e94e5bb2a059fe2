"""Drill of a whole day: everything goes wrong at the exchange, and the result is one number.

Why: single faults are proven one by one; a day shows that what is left at its end is explained.

Operator's page: `docs/drills/paper-day.md`.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from hft_platform.config.engine_config import AlphaSpec, build_engine_config
from hft_platform.config.settings import load_settings
from hft_platform.drills.drill import Claim, Drill, DrillReport
from hft_platform.drills.market import (
    LATENCY,
    MAKER,
    SCALE,
    market_session,
    market_tape,
)
from hft_platform.execution.faults import load_fault_profile
from hft_platform.market.instruments import Instrument
from hft_platform.market.latency import load_latency_profile
from hft_platform.market.sessions import Session
from hft_platform.services.paper_day import (
    DayResult,
    PaperDay,
    gross_by_store,
    last_mid,
    run_paper_day,
)

BOOKS = 2_400
"""Books of the market: the whole session, every 250 ms."""
WIDE = 10**15
_MUST_HAPPEN = (
    "lost_requests", "lost_replies", "late", "duplicated", "partial_fills", "fills_before_ack",
)  # fmt: skip


def day_of(
    instrument: Instrument,
    session: Session,
    tape: bytes,
    *,
    template: dict[str, Any] = MAKER,
    faults: dict[str, Any] | None = None,
) -> PaperDay:
    """A day of one alpha that follows the heavier side of the book.

    Parameters
    ----------
    instrument : Instrument
        The contract.
    session : Session
        Its session.
    tape : bytes
        The market.
    template : dict, optional
        How the alpha trades.
    faults : dict, optional
        What goes wrong.

    Returns
    -------
    PaperDay
    """
    instrument = instrument.on(session.trading_day)
    settings = load_settings(Path("no-config"), environment={})
    limits = {
        "order_qty_max": 4 * SCALE, "position_qty_max": 6 * SCALE, "daily_loss_max": WIDE,
        "drawdown_max": WIDE, "loss_speed_max": WIDE, "order_rate_max": 60,
    }  # fmt: skip
    alpha = AlphaSpec(
        alpha_id="drill_day",
        symbol=instrument.symbol,
        expression="k * imbalance_ema_2s",
        parameters={"k": 8.0},
        template=template,
        order_qty=2 * SCALE,
        ttl_ns=1_000_000_000,
        limits=limits,
        on_withdrawal={"action": "flatten", "deadline_ns": 5_000_000_000},
    )
    wide = dict.fromkeys(("daily_loss_max", "drawdown_max", "loss_speed_max"), WIDE)
    # What is rehearsed are orders: neither their results nor how often they fail end the day.
    rates = {"unknown_rate_max": 1_000, "reject_rate_max": 1_000, "one_side_fill_max": 1_000}
    storm = settings.storm_guard() | {"risk_capital": 100 * WIDE}
    return PaperDay(
        engine_config=build_engine_config(
            [alpha],
            instruments=[instrument],
            session=session,
            account_limits=settings.account_limits() | wide | rates,
            storm_guard=storm,
        ),
        instrument=instrument,
        trading_day=session.trading_day,
        tape=tape,
        latency=load_latency_profile(LATENCY)[0],
        faults=faults,
    )


def claims_of(result: DayResult, *, by_store: int | None = None) -> tuple[Claim, ...]:
    """What must be so at the end of a day, whatever went wrong.

    Parameters
    ----------
    result : DayResult
        Of the day.
    by_store : int, optional
        Gross result by the store's rows, where they were asked.

    Returns
    -------
    tuple of Claim
    """
    gross = result.results["fills"]
    results = result.results | ({} if by_store is None else {"store": by_store})
    return (
        Claim("orders still open or unknown", 0, result.open_orders),
        Claim("reports without an order", 0, result.orphans + result.externals),
        Claim("what the reconciliation still has to say", [], list(result.findings)),
        Claim("our position is the exchange's", result.truth_qty, result.position_qty),
        Claim("one gross result", dict.fromkeys(results, gross), results),
        Claim("one sum of fees", dict.fromkeys(result.fees, result.fees["fills"]), result.fees),
        Claim(
            "decisions that come out otherwise", 0, result.parity.total - result.parity.identical
        ),
        Claim("decisions replayed", result.parity.logged, result.parity.replayed),
        Claim("halted by", 0, result.facts["halted_by"]),
    )


def paper_day(folder: Path, seed: int, size: int) -> DrillReport:
    """Play sessions through the live path, one for each unit of size, with all faults on.

    Parameters
    ----------
    folder : Path
        Of the sessions and their store.
    seed : int
        Of market and faults of the first session; the next ones follow.
    size : int
        How many.

    Returns
    -------
    DrillReport
    """
    from hft_platform.recorder.loader import load_sealed
    from hft_platform.recorder.store import open_store

    settings = load_settings(folder / "no-config", environment={})
    days = {f"paper-day-{seed + nth}": _generated(seed + nth) for nth in range(size)}
    results = {
        run: run_paper_day(day, folder / "sessions" / run, settings) for run, day in days.items()
    }
    with open_store(folder) as store:
        refused = load_sealed(folder, store).refused
        by_store = {
            run: gross_by_store(store, run, day.instrument, last_mid(_books(day.tape)))
            for run, day in days.items()
        }
    faults: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for result in results.values():
        faults.update({k: v for k, v in result.exchange["faults"].items() if isinstance(v, int)})
        counts.update({k: v for k, v in result.facts.items() if isinstance(v, int)})
    claims = [
        Claim("segments that the store refused", [], list(refused)),
        Claim(
            "faults that never happened", [], [name for name in _MUST_HAPPEN if not faults[name]]
        ),
        Claim("orders were unknown for a while", True, counts["unknown"] > 0),
    ]
    for run, result in results.items():
        claims += claims_of(result, by_store=by_store[run])
    return DrillReport("paper-day", tuple(claims), dict(counts) | {"faults": dict(faults)})


def _generated(seed: int) -> PaperDay:
    instrument, session = market_session()
    faults = load_fault_profile("drill").core(session.end_ns) | {"seed": seed}
    tape = market_tape(seed, book_count=BOOKS)
    return day_of(instrument, session, tape, faults=faults)


def _books(tape: bytes) -> Any:  # Any: an array of Book records
    from hft_platform import records

    return records.split(tape)["Book"]


DRILLS = (
    Drill(
        "paper-day", "a whole day through the live path with all faults of the exchange", paper_day
    ),
)
