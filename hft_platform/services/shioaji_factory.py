"""Puts the Shioaji adapter together from settings, credentials and instruments.

Why: order and feed do not know each other; here they meet, and the environment's files are read.

Invariants:
1. Making the broker opens no connection; `connect` does, and only with `is_live_enabled`.

Operator's page: `docs/shioaji.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from hft_platform.config.settings import BrokerSettings
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.feed.shioaji_feed import ShioajiFeed
from hft_platform.market.instruments import Instrument
from hft_platform.market.taiwan import MARKETS
from hft_platform.order.shioaji_broker import Feed, ShioajiBroker
from hft_platform.order.shioaji_credentials import read_credentials
from hft_platform.order.shioaji_logins import LoginBudget
from hft_platform.order.shioaji_session import ShioajiSession, load_sdk

SECOND_NS = 1_000_000_000


def make_shioaji(
    settings: BrokerSettings,
    *,
    instruments: Iterable[Instrument],
    workspace: Path,
    environment: Mapping[str, str],
    clock_ns: Callable[[], int],
    seed: int,
    is_live_enabled: bool,
    make_api: Callable[[ModuleType, bool], Any] | None = None,  # Any: the SDK's session object
) -> ShioajiBroker:
    """The broker, not connected.

    Parameters
    ----------
    settings : BrokerSettings
        Section `broker`.
    instruments : iterable of Instrument
        What may be traded and subscribed.
    workspace : Path
        Where logins are counted and the SDK logs.
    environment : mapping of str to str
        Names the files of keys and certificate.
    clock_ns : callable
        The wall clock.
    seed : int
        Of the jitter between logins.
    is_live_enabled : bool
        Whether the operator enabled live trading (``HFT_LIVE_ENABLED=1``).
    make_api : callable, optional
        Makes the SDK's session object; tests pass a stand-in.

    Returns
    -------
    ShioajiBroker
        Ready for `connect`.

    Raises
    ------
    PlatformError
        NO_BROKER_CREDENTIALS, CERTIFICATE_MISSING, KEY_PERMISSIONS; SETTINGS_INVALID for an
        instrument that this broker does not trade.
    """
    rows = list(instruments)
    strangers = sorted(row.symbol for row in rows if row.venue not in MARKETS)
    if strangers or not rows:
        raise PlatformError(
            ReasonCode.SETTINGS_INVALID,
            f"{', '.join(strangers) or 'nothing'}: this broker trades at {', '.join(MARKETS)}",
        )
    credentials = read_credentials(environment, needs_certificate=not settings.is_simulation)
    sdk = load_sdk(workspace)
    session = ShioajiSession(
        settings,
        credentials=credentials,
        budget=LoginBudget(
            workspace,
            back_off_ns=settings.login_back_off_s * SECOND_NS,
            per_day_max=settings.logins_per_day_max,
            seed=seed,
        ),
        markets={MARKETS[row.venue] for row in rows},
        is_live_enabled=is_live_enabled,
        sdk=sdk,
        make_api=make_api,
    )
    return ShioajiBroker(
        settings,
        session=session,
        instruments=rows,
        make_feed=partial(_make_feed, rows, settings, sdk),
        clock_ns=clock_ns,
    )


def _make_feed(
    instruments: list[Instrument],
    settings: BrokerSettings,
    sdk: ModuleType,
    on_market: Callable[[bytes], None],
    now_ns: int,
) -> Feed:
    return ShioajiFeed(instruments, settings, on_market=on_market, now_ns=now_ns, sdk=sdk)
