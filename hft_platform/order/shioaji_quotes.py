"""Subscriptions and snapshots at the broker, for the feed.

Why: the feed knows contracts and topics; the SDK's objects stay on this side.

Invariants:
1. A call that failed raises PlatformError with a code, whatever the SDK raised.
2. A snapshot is read exactly or refused.

It watches nothing. Operator's page: `docs/shioaji.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.market.taiwan import ODD_LOT_SUFFIX
from hft_platform.order.shioaji_api import ShioajiApi
from hft_platform.order.shioaji_contracts import Contract
from hft_platform.order.shioaji_errors import ask, attempt, describe, meaning_of, query_failed
from hft_platform.order.shioaji_values import (
    LOTS_MAX,
    UnreadableError,
    attribute,
    scaled,
    text,
)

TOTAL_LOTS_MAX = LOTS_MAX * 1_000


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the broker showed of a contract when it was asked.

    Attributes
    ----------
    symbol : str
        Ours.
    last, bid, ask : int
        Prices at 1e-8, 0 where there is none.
    total_lots : int
        Traded so far today.
    """

    symbol: str
    last: int
    bid: int
    ask: int
    total_lots: int


class ShioajiQuotes:
    """Asks one open session for quotes.

    Parameters
    ----------
    api : ShioajiApi
        The session.
    sdk : object
        The SDK's module.
    contracts : mapping of str to Contract
        By symbol.
    timeout_ms : int
        Of a snapshot.
    """

    def __init__(
        self,
        api: ShioajiApi,
        sdk: Any,  # Any: the SDK's module
        contracts: Mapping[str, Contract],
        *,
        timeout_ms: int,
    ) -> None:
        self._api = api
        self._sdk = sdk
        self._contracts = contracts
        self._timeout_ms = timeout_ms

    def subscribe_topic(self, symbol: str, topic: str) -> None:
        """Ask for ``tick`` or ``bid_ask`` of a contract.

        Raises
        ------
        PlatformError
            BROKER_UNREACHABLE, BROKER_TIMEOUT and their like.
        """
        self._call("subscription", self._api.subscribe, symbol, topic)

    def unsubscribe_topic(self, symbol: str, topic: str) -> None:
        """Ask for no more of it.

        Raises
        ------
        PlatformError
            BROKER_UNREACHABLE, BROKER_TIMEOUT and their like.
        """
        self._call("end of a subscription", self._api.unsubscribe, symbol, topic)

    def snapshots(self, symbols: list[str]) -> list[Snapshot]:
        """What the broker shows of contracts now.

        Raises
        ------
        PlatformError
            BROKER_QUERY_FAILED.
        """
        wanted = [self._contract(symbol).base for symbol in symbols]
        answer = ask("snapshots", lambda: self._api.snapshots(wanted, timeout=self._timeout_ms))
        if not isinstance(answer, list | tuple):
            raise query_failed("snapshots", f"{type(answer).__name__} is no list")
        by_code = {symbol.removesuffix(ODD_LOT_SUFFIX): symbol for symbol in symbols}
        try:
            return [self._snapshot(row, by_code) for row in answer]
        except UnreadableError as error:
            raise query_failed("snapshots", error.message) from error

    def _snapshot(self, row: Any, by_code: Mapping[str, str]) -> Snapshot:  # Any: of the SDK
        code = text(attribute(row, "code"), "code", length_max=24, is_required=True)
        total = attribute(row, "total_volume")
        if type(total) is not int or not 0 <= total <= TOTAL_LOTS_MAX:
            raise UnreadableError(ReasonCode.VALUE_OUT_OF_RANGE, f"total_volume was {total!r:.40}")
        last, bid, offer = (
            scaled(attribute(row, name), name, is_zero_allowed=True)
            for name in ("close", "buy_price", "sell_price")
        )
        return Snapshot(by_code.get(code, code), last, bid, offer, total)

    def _call(self, what: str, call: Callable[..., None], symbol: str, topic: str) -> None:
        contract = self._contract(symbol)
        done = attempt(
            lambda: call(
                contract.base,
                quote_type=self._sdk.QuoteType(topic),
                intraday_odd=symbol.endswith(ODD_LOT_SUFFIX),
                version=self._sdk.QuoteVersion.v1,
            )
        )
        if done.error is not None:
            raise PlatformError(
                meaning_of(done.error).login_code,
                f"{what} of {topic} of {symbol}: {describe(done.error)}",
            ) from done.error

    def _contract(self, symbol: str) -> Contract:
        found = self._contracts.get(symbol)
        if found is None:
            raise PlatformError(ReasonCode.CONTRACT_UNKNOWN, f"{symbol} was not loaded")
        return found
