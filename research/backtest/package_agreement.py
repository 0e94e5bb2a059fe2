"""Paper exchange against the hftbacktest package: are all fills equal on a whole session?

Why: what the paper exchange fills is worth as much as the package's word only if the package, run
by itself, fills the same. Here the package delays with its own latency model and orders events with
its own scheduler; nothing of our loop is around it.

Invariants:
1. The engine trades on the paper exchange; its decisions, each at the time when it was made, are
   all that the package gets.
2. Fills are compared for every exchange time as a multiset of order id, price and quantity.
3. A cell that compared no fill does not agree: it has proven nothing.

It judges no alpha: the two here exist to trade often. Operator's page: `docs/backtest.md`.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hft_platform import _core, records
from hft_platform.config.canonical import canonical_json
from hft_platform.config.engine_config import AlphaSpec, build_engine_config
from hft_platform.config.settings import load_settings
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.execution.venue_options import venue_options
from hft_platform.feed.recording import load_tape
from hft_platform.market.instruments import load_instruments
from research.backtest.package_handle import PackageHandle
from research.data.generator import generate_session, params_json, session_hours, spec_by_name
from research.data.ingest import ingest

if TYPE_CHECKING:
    from hft_platform.market.instruments import Instrument
    from hft_platform.market.sessions import Session

KINDS = ("maker", "taker")
LATENCIES_MS = (0, 36, 200)
QUEUE_MODELS = ("risk_adverse", "power_prob3", "log_prob")
SHOWN = 20
"""More than this many differing fills of a cell are counted, not listed."""
WORKING, FILL, CANCELED, CANCEL_REJECTED = 1, 3, 4, 5
"""`BrokerEventKind` in rust_core/src/record.rs."""
_NS_PER_MS = 1_000_000
_TEMPLATES: dict[str, dict[str, Any]] = {
    "maker": {
        "kind": "maker",
        "half_spread_ticks": 1.0,
        "requote_ticks": 2.0,
        "signal_skew": 1.0,
        "inventory_skew_ticks": 0.5,
    },
    "taker": {
        "kind": "taker",
        "entry_ticks": 0.5,
        "exit_ticks": 0.0,
        "hold_ns": 20_000_000_000,
        "slippage_ticks": 2,
    },
}
_MONEY_MAX = 1_000_000_000
# What a losing day may cost is another subject: here as much as can be is filled.
_LOOSE_LIMITS = {
    "one_side_fill_max": 1_000,
    "order_to_trade_max": 1_000_000,
    "daily_loss_max": _MONEY_MAX * records.SCALE,
    "drawdown_max": _MONEY_MAX * records.SCALE,
    "loss_speed_max": _MONEY_MAX * records.SCALE,
}
_NEVER = dict.fromkeys(("warm_in", "warm_out", "storm_in", "storm_out", "halt_in", "halt_out"))
GENERATED_MARKET = "sim_null"
GENERATED_ACTIVITY = 2.0
"""Twice the usual market: some hundred fills a cell in ten minutes."""

Source = tuple[str, bytes, "Session", "Instrument"]
"""Name, tape, session and instrument of one session."""
Fill = tuple[int, int, int, int]
"""Exchange time, order id, price, quantity."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One strategy under one latency and one queue model, on both exchanges.

    Attributes
    ----------
    kind, latency_ms, queue_model : str, int, str
        Which cell.
    order_count : int
        Orders placed.
    fill_count : int
        Fills of the side that has more.
    maker_fill_count : int
        Passive ones among ours.
    equal_count : int
        Fills that both sides have, with equal time, order, price and quantity.
    outcome_equal_count : int
        Orders that ended the same way (filled, canceled, expired) at the same time.
    differences : tuple of dict
        The first fills that one side alone has.
    seconds : float
        Wall time of both runs.
    """

    kind: str
    latency_ms: int
    queue_model: str
    order_count: int
    fill_count: int
    maker_fill_count: int
    equal_count: int
    outcome_equal_count: int
    differences: tuple[dict[str, Any], ...]
    seconds: float

    @property
    def agrees(self) -> bool:
        """True when there were fills and all of them, and every order's end, are equal."""
        return (
            0 < self.fill_count == self.equal_count and self.outcome_equal_count == self.order_count
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self) | {"agrees": self.agrees}


def generated_session() -> Source:
    """The first session of the generated market, at twice its activity."""
    instruments = load_instruments()
    spec = spec_by_name(GENERATED_MARKET, activity=GENERATED_ACTIVITY)
    instrument = instruments.by_symbol(spec.symbol)
    session = session_hours(spec, instrument)[0]
    tape = generate_session(params_json(spec, instruments), 0)
    return f"generated {spec.symbol} {session.session_id}", tape, session, instrument


def recorded_sessions(data: Path, ws: Path, *, session_id: str | None = None) -> list[Source]:
    """Sessions of a folder of recordings.

    Parameters
    ----------
    data : Path
        Recordings, as ``make demo DATA=`` takes them.
    ws : Path
        Workspace in which the dataset is made, unless it is there.
    session_id : str, optional
        One session; by default the day session with the most records.

    Returns
    -------
    list of Source
        One, or one a symbol that has it.

    Raises
    ------
    PlatformError
        When a recording cannot be read, or FILE_DAMAGED when there is no such session.
    """
    instruments = load_instruments()
    refs = ingest(data, ws, instruments).sessions
    wanted = [ref for ref in refs if ref.session_id == session_id]
    if session_id is None:
        days = [ref for ref in refs if ref.session_id.endswith("/day")] or list(refs)
        wanted = sorted(days, key=lambda ref: ref.record_count)[-1:]
    if not wanted:
        raise PlatformError(
            ReasonCode.FILE_DAMAGED,
            f"{data} has no session {session_id}, only"
            f" {', '.join(sorted({ref.session_id for ref in refs}))}",
        )
    sources = []
    for ref in wanted:
        instrument = instruments.by_symbol(ref.symbol)
        name = f"{ref.symbol} {ref.session_id}"
        sources.append((name, load_tape(ref), ref.session_of(instrument), instrument))
    return sources


def trading_config(kind: str, instrument: Instrument, session: Session) -> dict[str, Any]:
    """Engine config of a one-lot maker or taker on the queue imbalance, which trades often.

    Parameters
    ----------
    kind : str
        ``maker`` or ``taker``.
    instrument : Instrument
        The one traded.
    session : Session
        Its session.

    Returns
    -------
    dict
        As `build_engine_config` makes it.
    """
    lot = instrument.lot_size
    spec = AlphaSpec(
        alpha_id=f"agreement_{kind}",
        symbol=instrument.symbol,
        expression="imbalance_l1",
        parameters={},
        template=_TEMPLATES[kind],
        order_qty=lot,
        ttl_ns=5_000_000_000,
        limits={
            "order_qty_max": lot,
            "position_qty_max": 3 * lot,
            "daily_loss_max": _MONEY_MAX * records.SCALE,
            "drawdown_max": _MONEY_MAX * records.SCALE,
            "loss_speed_max": _MONEY_MAX * records.SCALE,
            "order_rate_max": 100,
        },
        on_withdrawal={"action": "flatten", "deadline_ns": 1_000_000_000},
    )
    return build_engine_config(
        [spec],
        instruments=[instrument],
        session=session,
        account_limits=load_settings().account_limits() | _LOOSE_LIMITS,
        storm_guard=load_settings().storm_guard() | {"drawdown_bps": _NEVER},
    )


def symmetric_latency(latency_ms: int) -> dict[str, Any]:
    """Profile in which place, cancel and response take the same constant time."""
    point = [[0.5, latency_ms * _NS_PER_MS]]
    return {
        "profile_id": f"constant_{latency_ms}ms",
        "seed": 0,
        "pipeline_ns": 0,
        "place": point,
        "cancel": point,
        "response": point,
        "corner": None,
    }


def compare_cell(
    tape: bytes,
    engine_config: dict[str, Any],
    instrument: Instrument,
    *,
    kind: str,
    latency_ms: int,
    queue_model: str,
    package_latency_ms: int | None = None,
    package_queue_model: str | None = None,
) -> Cell:
    """Trade a session on the paper exchange and drive the package by the same decisions.

    Parameters
    ----------
    tape : bytes
        Records of one session in receive order.
    engine_config : dict
        As `trading_config` or `build_engine_config` makes it.
    instrument : Instrument
        Anything with ``instrument_id``, ``tick_size`` and ``lot_size`` and its contract.
    kind : str
        Name of the strategy, for the report.
    latency_ms : int
        Of every request and every response.
    queue_model : str
        Of the paper exchange.
    package_latency_ms, package_queue_model : int and str, optional
        Another latency or queue model for the package alone: a control, which must not agree.

    Returns
    -------
    Cell

    Raises
    ------
    PlatformError
        When config, tape or package is refused.
    """
    started = time.perf_counter()
    result = _core.run_backtest(
        tape,
        canonical_json(engine_config).decode(),
        json.dumps(symmetric_latency(latency_ms)),
        json.dumps(venue_options(instrument, queue_model=queue_model) | {"skip_inputs": True}),
    )
    rows = _core.convert_session(
        tape, instrument.instrument_id, instrument.tick_size, instrument.lot_size
    )
    package_ms = latency_ms if package_latency_ms is None else package_latency_ms
    with PackageHandle(
        rows,
        instrument,
        queue_model=package_queue_model or queue_model,
        order_latency_ns=package_ms * _NS_PER_MS,
    ) as handle:
        outcomes = _core.run_package(result["decisions"], handle)
    broker = np.frombuffer(result["broker"], dtype=records.DTYPES["Broker"])
    theirs = np.frombuffer(outcomes, dtype=np.dtype(_core.PACKAGE_OUTCOME_FIELDS))
    our_fills, their_fills = Counter(fills_of(broker)), Counter(fills_of(theirs))
    fills = broker[broker["event_kind"] == FILL]
    return Cell(
        kind=kind,
        latency_ms=latency_ms,
        queue_model=queue_model,
        order_count=int(theirs.size),
        fill_count=max(our_fills.total(), their_fills.total()),
        maker_fill_count=int((fills["is_maker"] == 1).sum()),
        equal_count=(our_fills & their_fills).total(),
        outcome_equal_count=_equal_outcomes(broker, theirs, tape),
        differences=_differences(our_fills, their_fills),
        seconds=time.perf_counter() - started,
    )


def fills_of(rows: np.ndarray[Any, Any]) -> Iterator[Fill]:
    """Fills of broker records or package outcomes."""
    fills = rows[rows["event_kind"] == FILL]
    columns = (fills[name].tolist() for name in ("exchange_time_ns", "order_id", "price", "qty"))
    return zip(*columns, strict=True)


def _equal_outcomes(broker: np.ndarray[Any, Any], theirs: np.ndarray[Any, Any], tape: bytes) -> int:
    """Orders with the same end; what rests at the close we cancel, and the package leaves."""
    parts = records.split(tape)
    last_ns = max(int(part["exchange_time_ns"].max()) for part in parts.values() if part.size)
    ended = {
        int(row["order_id"]): (int(row["event_kind"]), int(row["exchange_time_ns"]))
        for row in broker
        if row["event_kind"] not in (WORKING, CANCEL_REJECTED)
    }
    equal = 0
    for row in theirs:
        kind, time_ns = ended.get(int(row["order_id"]), (WORKING, 0))
        if int(row["event_kind"]) == WORKING:
            equal += kind == CANCELED and time_ns >= last_ns
        else:
            equal += (kind, time_ns) == (int(row["event_kind"]), int(row["exchange_time_ns"]))
    return equal


def _differences(ours: Counter[Fill], theirs: Counter[Fill]) -> tuple[dict[str, Any], ...]:
    only = [(fill, "paper exchange") for fill in (ours - theirs).elements()]
    only += [(fill, "package") for fill in (theirs - ours).elements()]
    names = ("exchange_time_ns", "order_id", "price", "qty")
    return tuple(
        dict(zip(names, fill, strict=True)) | {"only": side} for fill, side in sorted(only)[:SHOWN]
    )


def compare_session(
    tape: bytes,
    session: Session,
    instrument: Instrument,
    *,
    kinds: Sequence[str] = KINDS,
    latencies_ms: Sequence[int] = LATENCIES_MS,
    queue_models: Sequence[str] = QUEUE_MODELS,
    progress: Callable[[Cell], None] | None = None,
) -> list[Cell]:
    """Every cell of one session.

    Parameters
    ----------
    tape : bytes
        Its records in receive order.
    session : Session
        Which session.
    instrument : Instrument
        The one traded.
    kinds, latencies_ms, queue_models : sequence
        The grid.
    progress : callable, optional
        Called after every cell.

    Returns
    -------
    list of Cell
        In grid order.
    """
    cells = []
    for kind in kinds:
        config = trading_config(kind, instrument, session)
        for queue_model in queue_models:
            for latency_ms in latencies_ms:
                cell = compare_cell(
                    tape,
                    config,
                    instrument,
                    kind=kind,
                    latency_ms=latency_ms,
                    queue_model=queue_model,
                )
                cells.append(cell)
                if progress is not None:
                    progress(cell)
    return cells
