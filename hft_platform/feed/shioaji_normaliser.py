"""Set the core's normaliser up for the broker SDK: instruments, calendar and schema in, checked.

Why: the callback knows a code and a naive local time. Which instrument, which session and trading
day, and which unit they mean is decided here, before the first quote.

Invariants:
1. Instruments, sessions and units come from the market model; nothing is written twice.
2. An SDK whose quote classes are not those the normaliser was written for is refused and logged.
3. The SDK is imported only on request and never asked for a session.

The conversion itself is in the core (`rust_core/src/normaliser/`). Operator's page:
`docs/normaliser.md`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import structlog

from hft_platform import _core
from hft_platform.config.canonical import canonical_json
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.feed import shioaji_wire
from hft_platform.market.instruments import Instrument
from hft_platform.market.sessions import ExchangeCalendar, sessions_for
from hft_platform.market.taiwan import MARKETS, ODD_LOT_SUFFIX

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class NormaliserLimits:
    """What a quote may look like before it is dropped; nothing here has a default.

    Attributes
    ----------
    exchange_ahead_ns_max : int
        How far exchange time may lie after receive time.
    exchange_behind_ns_max : int
        How far exchange time may lie before receive time.
    on_total_mismatch : str
        ``drop`` or ``note``: a futures book whose side total is not the sum of its five quantities.
    """

    exchange_ahead_ns_max: int
    exchange_behind_ns_max: int
    on_total_mismatch: Literal["drop", "note"]


def normaliser_config(
    instruments: Iterable[Instrument], *, first_ns: int, last_ns: int, limits: NormaliserLimits
) -> dict[str, Any]:
    """Config of the core's normaliser.

    Parameters
    ----------
    instruments : iterable of Instrument
        What is subscribed, by real contract month: a near-month alias is delivered under its real
        code.
    first_ns, last_ns : int
        UTC; quotes are expected in the sessions that share a moment with this range.
    limits : NormaliserLimits
        What a quote may look like.

    Returns
    -------
    dict
        For `_core.Normaliser`, as JSON.

    Raises
    ------
    PlatformError
        SETTINGS_INVALID for an instrument that this SDK does not quote, or that has no session.
    """
    rows = sorted(instruments, key=lambda row: row.symbol)
    offsets = {_calendar(row).utc_offset_s for row in rows}
    if len(offsets) != 1:
        raise PlatformError(
            ReasonCode.SETTINGS_INVALID,
            f"instruments of one normaliser must share a local time: "
            f"offsets were {sorted(offsets)}",
        )
    return {
        "utc_offset_s": offsets.pop(),
        "exchange_ahead_ns_max": limits.exchange_ahead_ns_max,
        "exchange_behind_ns_max": limits.exchange_behind_ns_max,
        "on_total_mismatch": limits.on_total_mismatch,
        "instruments": [_entry(row, first_ns, last_ns) for row in rows],
    }


def open_normaliser(config: dict[str, Any], *, sdk: ModuleType | None = None) -> _core.Normaliser:
    """Probe the SDK and make the normaliser.

    Parameters
    ----------
    config : dict
        From `normaliser_config`.
    sdk : module, optional
        The SDK; by default ``shioaji`` is imported, which opens no connection.

    Returns
    -------
    Normaliser
        Of the core; every quote class was found as expected.

    Raises
    ------
    PlatformError
        QUOTE_SCHEMA_MISMATCH when a class is missing, another attribute has another type, or the
        SDK's version is of another line; the same is logged. SETTINGS_INVALID for a wrong config.
    """
    module = sdk if sdk is not None else importlib.import_module("shioaji")
    version = str(getattr(module, "__version__", ""))
    probes = shioaji_wire.probes(module)
    try:
        normaliser = _core.Normaliser(canonical_json(config).decode(), version, probes)
    except _core.ConfigError as error:
        raise PlatformError(error.args[0], error.args[1]) from error
    missing = set(shioaji_wire.LAYOUTS) - {type(probe).__name__ for probe in probes}
    faults = [
        *normaliser.schema_faults,
        *(f"{name}: is missing or decodes another layout" for name in sorted(missing)),
    ]
    if faults:
        log.error(
            "quote_schema_refused",
            reason_code=int(ReasonCode.QUOTE_SCHEMA_MISMATCH),
            sdk_version=version,
            faults=faults,
        )
        raise PlatformError(
            ReasonCode.QUOTE_SCHEMA_MISMATCH,
            f"shioaji {version}: {' | '.join(faults)}",
            facts={"sdk_version": version, "faults": faults},
        )
    return normaliser


def _calendar(instrument: Instrument) -> ExchangeCalendar:
    rule = instrument.calendar_rule
    if instrument.venue not in MARKETS or not isinstance(rule, ExchangeCalendar):
        raise PlatformError(
            ReasonCode.SETTINGS_INVALID,
            f"instrument {instrument.symbol}: venue was {instrument.venue} with calendar "
            f"{instrument.calendar}: allowed is {', '.join(MARKETS)} with daily sessions",
        )
    return rule


def _entry(instrument: Instrument, first_ns: int, last_ns: int) -> dict[str, Any]:
    sessions = sessions_for(instrument, first_ns, last_ns)
    if not sessions:
        raise PlatformError(
            ReasonCode.SETTINGS_INVALID,
            f"instrument {instrument.symbol} has no session from {first_ns} to {last_ns}",
            next_step="check its last trading day and the calendar in config/instruments",
        )
    return {
        "instrument_id": instrument.instrument_id,
        "code": instrument.symbol.removesuffix(ODD_LOT_SUFFIX),
        "market": MARKETS[instrument.venue],
        "is_odd_lot": instrument.symbol.endswith(ODD_LOT_SUFFIX),
        "lot_size": instrument.lot_size,
        "tick_size": instrument.tick_size,
        **instrument.bands_json(),
        "gap_ns": instrument.gap_ns,
        "sessions": [
            {
                "preopen_ns": session.preopen_ns,
                "start_ns": session.start_ns,
                "end_ns": session.end_ns,
                "trading_day": session.trading_day,
            }
            for session in sessions
        ],
    }
