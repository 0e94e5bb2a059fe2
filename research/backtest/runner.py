"""ResearchBacktestRunner: one engine, one session, the hftbacktest package as the exchange.

Every session is its own run (a resting order must not survive a session gap); results are put
together outside. The engine is the one that trades; the package matches, with its queue models;
order latency is drawn from measured quantiles, place and cancel apart, by the driver in
`rust_core/src/simulation/`.
"""

from __future__ import annotations

import contextlib
import functools
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hft_platform import _core, records
from hft_platform.config.canonical import canonical_json
from hft_platform.execution.position_store import SessionAccount, account_session, fills_of
from hft_platform.execution.venue_options import venue_options
from hft_platform.kernels import kernels_of
from hft_platform.market.latency import profile_sha256
from research.backtest.package_handle import PackageHandle

if TYPE_CHECKING:
    from hft_platform.market.instruments import Instrument


@dataclass(frozen=True, slots=True)
class SessionResult:
    """One backtested session.

    `inputs` and `decisions` are tapes: replaying `inputs` gives `decisions` again, bit for bit.
    """

    session_id: str
    account: SessionAccount
    fills: npt.NDArray[np.void]
    inputs: bytes
    decisions: bytes
    counters: dict[str, Any]
    latency_sha256: str
    queue_model: str

    @property
    def net_pnl(self) -> int:
        """Scaled money after fees."""
        return self.account.net

    @property
    def gross_pnl(self) -> int:
        """Scaled money before fees."""
        return self.account.gross

    @property
    def fees(self) -> int:
        """Scaled money."""
        return self.account.fees

    @property
    def fill_count(self) -> int:
        """Fills of ours."""
        return self.account.fill_count

    @property
    def mid_edges_ticks(self) -> list[float]:
        """Per round trip: move of the mid in our direction, in ticks."""
        return [trip.mid_edge_ticks for trip in self.account.round_trips]


def run_session(
    tape: bytes,
    engine_config: dict[str, Any],
    *,
    latency: dict[str, Any],
    queue_model: str,
    instrument: Instrument,
    rows: bytes | None = None,
) -> SessionResult:
    """Run one engine config over one session's tape.

    Parameters
    ----------
    tape : bytes
        Records of one session in receive order.
    engine_config : dict
        As `build_engine_config` makes it.
    latency : dict
        Latency profile (see hft_platform.market.latency), `corner` set or not.
    queue_model : str
        ``risk_adverse``, ``power_prob3`` or ``log_prob``.
    instrument : Instrument
        The one traded.
    rows : bytes, optional
        The tape as `package_rows` converts it, for callers that run it many times.

    Returns
    -------
    SessionResult

    Raises
    ------
    PlatformError
        When the engine config, the tape or the package's library is refused.
    """
    instrument = instrument.on(engine_config["session"]["trading_day"])
    if rows is None:
        rows = _converted(tape, instrument)
    latency_text = json.dumps(latency, sort_keys=True)
    with PackageHandle(rows, instrument, queue_model=queue_model) as handle:
        raw = _core.run_backtest(
            tape,
            canonical_json(engine_config).decode(),
            latency_text,
            json.dumps(venue_options(instrument, queue_model=queue_model)),
            handle,
            kernels_of(engine_config),
        )
    inputs = records.split(raw["inputs"])
    broker = inputs["Broker"]
    books = inputs["Book"]
    return SessionResult(
        session_id=engine_config["session"]["session_id"],
        account=account_session(broker, books, instrument),
        fills=fills_of(broker),
        inputs=raw["inputs"],
        decisions=raw["decisions"],
        counters=raw["counters"],
        latency_sha256=_latency_sha256(latency_text),
        queue_model=queue_model,
    )


@functools.lru_cache(maxsize=64)
def _latency_sha256(latency_text: str) -> str:
    return profile_sha256(json.loads(latency_text))


def package_rows(tape: bytes, instrument: Instrument) -> bytes:
    """A tape in the package's event format; depends on tape and instrument alone."""
    return _core.convert_session(
        tape, instrument.instrument_id, instrument.tick_size, instrument.lot_size
    )


_SHARED = threading.local()


@contextlib.contextmanager
def converted_once() -> Iterator[None]:
    """Convert each tape once for all runs that this thread makes inside.

    Conversion knows nothing of latency, queue model or alpha, and the package only reads it.
    """
    before = getattr(_SHARED, "rows", None)
    _SHARED.rows = {} if before is None else before
    try:
        yield
    finally:
        _SHARED.rows = before


def _converted(tape: bytes, instrument: Instrument) -> bytes:
    shared: dict[Any, tuple[bytes, bytes]] | None = getattr(_SHARED, "rows", None)
    form = (instrument.instrument_id, instrument.tick_size, instrument.lot_size)
    # The tape is held beside its rows, so its id stays its own.
    if shared is not None and (id(tape), *form) in shared:
        return shared[(id(tape), *form)][1]
    rows = package_rows(tape, instrument)
    if shared is not None:
        shared[(id(tape), *form)] = (tape, rows)
    return rows


def run_sessions(
    jobs: Iterable[tuple[bytes, dict[str, Any]]],
    *,
    latency: dict[str, Any],
    queue_model: str,
    instrument: Instrument,
    progress: Callable[[int], None] | None = None,
) -> list[SessionResult]:
    """Run many sessions, in order; `jobs` yields ``(tape, engine_config)``."""
    results = []
    for index, (tape, config) in enumerate(jobs):
        results.append(
            run_session(
                tape, config, latency=latency, queue_model=queue_model, instrument=instrument
            )
        )
        if progress is not None:
            progress(index + 1)
    return results
