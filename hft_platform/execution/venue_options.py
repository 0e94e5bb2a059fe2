"""What a simulated exchange is told, the same in backtest and paper session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hft_platform.market.instruments import Instrument


def venue_options(
    instrument: Instrument, *, queue_model: str, faults: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Options of the simulated exchange for one instrument.

    Parameters
    ----------
    instrument : Instrument
        The one traded.
    queue_model : str
        ``risk_adverse``, ``power_prob3`` or ``log_prob``.
    faults : dict, optional
        What goes wrong, as `FaultProfile.core` gives it; by default nothing.

    Returns
    -------
    dict
        Content of the core's venue JSON; the contract that the product root resolved to becomes
        the first record of the session.
    """
    contract = {
        "product_root": instrument.product_root,
        "last_trading_day": instrument.last_trading_day,
    }
    options: dict[str, Any] = {
        "queue_model": queue_model,
        "contracts": {str(instrument.instrument_id): contract},
    }
    return options if faults is None else options | {"faults": faults}
