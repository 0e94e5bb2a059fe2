"""The broker's quotes: subscribed within its limit, watched for silence, turned into records.

Why: a feed that looks connected and says nothing is the costliest fault of all. Whether silence is
a fault depends on the calendar: at noon it is, on a holiday it is not.

Invariants:
1. No more topics are subscribed than the broker allows; a contract that does not fit is refused
   before any of its list is subscribed.
2. Whatever a callback delivers is a whole record or is dropped and counted by the normaliser.
3. A subscribed contract without a quote for the limit, while its session trades, is FEED_SILENT and
   is subscribed again, once in each limit; outside sessions and pre-open it never is.
4. A snapshot is a fact to look at, never a book to trade on: it has one level and its own age.

It has no thread and no clock: `step` is called with the time. The conversion is in the core
(`rust_core/src/normaliser/`). Operator's page: `docs/shioaji.md`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol

import structlog

from hft_platform import _core
from hft_platform.config.settings import BrokerSettings
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.feed.shioaji_normaliser import (
    NormaliserLimits,
    normaliser_config,
    open_normaliser,
)
from hft_platform.market.instruments import Instrument
from hft_platform.market.sessions import DAY_NS, Session, sessions_for

log = structlog.get_logger()

TOPICS_MAX = 200
"""Subscriptions of one connection, by the broker's page of limits."""
TOPICS = ("tick", "bid_ask")
"""What is subscribed for each contract: prints and books."""
MS_NS = 1_000_000
DAYS_AHEAD = 12
"""Sessions the normaliser knows beyond today; a process does not run longer without a restart."""


class Snapshot(Protocol):
    """What the broker showed of a contract when it was asked."""

    @property
    def symbol(self) -> str:
        """Ours."""


class QuoteSource(Protocol):
    """Where quotes are asked for; every call raises PlatformError when it fails."""

    def subscribe_topic(self, symbol: str, topic: str) -> None:
        """Ask for ``tick`` or ``bid_ask`` of a contract."""

    def unsubscribe_topic(self, symbol: str, topic: str) -> None:
        """Ask for no more of it."""

    def snapshots(self, symbols: list[str]) -> Sequence[Snapshot]:
        """What the broker shows of contracts now."""


@dataclass(slots=True)
class _Watch:
    """What is known of a subscribed contract; `heard_ns` also counts subscriptions."""

    instrument: Instrument
    heard_ns: int
    session: Session | None = None
    until_ns: int = 0


class ShioajiFeed:
    """Quotes of the contracts of a process.

    Parameters
    ----------
    instruments : iterable of Instrument
        What may be subscribed.
    settings : BrokerSettings
        Silence and what a quote may look like.
    on_market : callable
        Takes a tape.
    now_ns : int
        The wall clock at the start; bounds the sessions the normaliser knows.
    sdk : module
        The imported SDK, whose quote classes are compared with what is expected.
    """

    def __init__(
        self,
        instruments: Iterable[Instrument],
        settings: BrokerSettings,
        *,
        on_market: Callable[[bytes], None],
        now_ns: int,
        sdk: ModuleType,
    ) -> None:
        rows = sorted(instruments, key=lambda row: row.symbol)
        self._instruments = {row.symbol: row for row in rows}
        self._by_id = {row.instrument_id: row.symbol for row in rows}
        self._silence_ns = settings.feed_silence_ms * MS_NS
        self._on_market = on_market
        limits = NormaliserLimits(
            exchange_ahead_ns_max=settings.quote_ahead_ms_max * MS_NS,
            exchange_behind_ns_max=settings.quote_behind_ms_max * MS_NS,
            on_total_mismatch=settings.on_total_mismatch,
        )
        config = normaliser_config(
            rows, first_ns=now_ns - DAY_NS, last_ns=now_ns + DAYS_AHEAD * DAY_NS, limits=limits
        )
        self._normaliser: _core.Normaliser = open_normaliser(config, sdk=sdk)
        self._watches: dict[str, _Watch] = {}
        self._lock = threading.Lock()
        self._silences = 0
        self._snapshots: dict[str, Snapshot] = {}

    def on_quote(self, quote: object, receive_time_ns: int) -> None:
        """Take what a callback delivered."""
        tape = self._normaliser.on_object(quote, receive_time_ns)
        if tape is None:
            return
        symbol = self._by_id.get(int.from_bytes(tape[4:8], "little"))
        watch = self._watches.get(symbol) if symbol is not None else None
        if watch is not None:
            watch.heard_ns = receive_time_ns
        self._on_market(tape)

    def subscribe(self, symbols: list[str], source: QuoteSource, now_ns: int) -> None:
        """Subscribe contracts that are not yet, and look at a snapshot of each.

        Raises
        ------
        PlatformError
            SUBSCRIPTION_LIMIT or CONTRACT_UNKNOWN before anything was subscribed; what the
            source raises, with the contracts before it subscribed.
        """
        unknown = sorted(set(symbols) - set(self._instruments))
        if unknown:
            raise PlatformError(
                ReasonCode.CONTRACT_UNKNOWN, f"{', '.join(unknown)}: not among the instruments"
            )
        new = [symbol for symbol in dict.fromkeys(symbols) if symbol not in self._watches]
        wanted = (len(self._watches) + len(new)) * len(TOPICS)
        if wanted > TOPICS_MAX:
            raise PlatformError(
                ReasonCode.SUBSCRIPTION_LIMIT,
                f"{wanted // len(TOPICS)} contracts are {wanted} subscriptions; the broker allows"
                f" {TOPICS_MAX}",
            )
        for symbol in new:
            for topic in TOPICS:
                source.subscribe_topic(symbol, topic)
            with self._lock:
                self._watches[symbol] = _Watch(self._instruments[symbol], now_ns)
        if new:
            self._look(new, source)

    def resubscribe(self, source: QuoteSource, now_ns: int) -> None:
        """Subscribe everything again, on a new connection.

        Raises
        ------
        PlatformError
            What the source raises.
        """
        for symbol in self.symbols:
            self._again(symbol, source, now_ns, is_new_connection=True)

    def step(self, source: QuoteSource, now_ns: int) -> list[str]:
        """Look for silence and subscribe silent contracts again.

        Parameters
        ----------
        source : QuoteSource
            Where they are subscribed.
        now_ns : int
            The wall clock.

        Returns
        -------
        list of str
            Symbols found silent in this step.
        """
        silent = []
        for symbol in self.symbols:
            watch = self._watches[symbol]
            session = self._session(watch, now_ns)
            if session is None:
                continue
            quiet_ns = now_ns - max(watch.heard_ns, session.start_ns)
            if quiet_ns < self._silence_ns:
                continue
            silent.append(symbol)
            self._silences += 1
            log.error(
                "feed_silent",
                reason_code=int(ReasonCode.FEED_SILENT),
                symbol=symbol,
                quiet_ms=quiet_ns // MS_NS,
            )
            try:
                self._again(symbol, source, now_ns, is_new_connection=False)
            except PlatformError as error:
                # Tried again when the limit has passed once more.
                watch.heard_ns = now_ns
                log.error(
                    "resubscription_failed",
                    reason_code=error.code,
                    symbol=symbol,
                    why=error.message,
                )
        return silent

    @property
    def symbols(self) -> tuple[str, ...]:
        """Subscribed symbols, sorted."""
        with self._lock:
            return tuple(sorted(self._watches))

    @property
    def silence_count(self) -> int:
        """How often FEED_SILENT was found."""
        return self._silences

    @property
    def snapshots(self) -> dict[str, Snapshot]:
        """What the broker showed when a contract was subscribed."""
        return dict(self._snapshots)

    def counters(self) -> dict[str, object]:
        """The normaliser's counters."""
        return dict(self._normaliser.counters())

    def _again(
        self, symbol: str, source: QuoteSource, now_ns: int, *, is_new_connection: bool
    ) -> None:
        watch = self._watches[symbol]
        for topic in TOPICS:
            if not is_new_connection:
                source.unsubscribe_topic(symbol, topic)
            source.subscribe_topic(symbol, topic)
        watch.heard_ns = now_ns

    def _look(self, symbols: list[str], source: QuoteSource) -> None:
        try:
            shown = source.snapshots(symbols)
        except PlatformError as error:
            # Quotes will come or `step` says that they do not; a snapshot is only a first look.
            log.warning("snapshot_failed", reason_code=error.code, why=error.message)
            return
        self._snapshots |= {snapshot.symbol: snapshot for snapshot in shown}

    def _session(self, watch: _Watch, now_ns: int) -> Session | None:
        """Session of a contract that trades at this moment; looked up once a change at most."""
        if now_ns >= watch.until_ns or (watch.session and now_ns < watch.session.start_ns):
            ahead = sessions_for(watch.instrument, now_ns, now_ns + DAYS_AHEAD * DAY_NS)
            current = ahead[0] if ahead and ahead[0].start_ns <= now_ns else None
            watch.session = current
            if current is not None:
                watch.until_ns = current.end_ns
            else:
                watch.until_ns = ahead[0].start_ns if ahead else now_ns + DAY_NS
        session = watch.session
        return session if session is not None and now_ns < session.end_ns else None
