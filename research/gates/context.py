"""GateContext: everything a gate collects its evidence from, put together in one place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hft_platform.config.settings import load_settings
from hft_platform.market.instruments import load_instruments
from research.data.exceptions import NO_EXCEPTIONS, DataExceptions, load_exceptions
from research.gates.thresholds import GateThresholds, load_thresholds
from research.registry import Alpha, JudgedData, judged_data

if TYPE_CHECKING:
    from hft_platform.market.instruments import Instrument
    from research.data.catalog import SessionRef


@dataclass(frozen=True, slots=True)
class GateContext:
    """A workspace, an alpha in it, and what the gates judge it by.

    Attributes
    ----------
    ws : Path
        Workspace folder.
    alpha : Alpha
        The alpha as it is now.
    thresholds : GateThresholds
        As the configuration says now.
    judged : JudgedData
        Data, instruments, latency and costs.
    account_limits : dict of str to int
        As the runtime will have them.
    storm_guard : dict
        As the runtime will have it.
    workers : int
        Backtests at a time; results do not depend on it.
    contracts : tuple of Instrument
        Every contract that is known, for the roll rule.
    exceptions : DataExceptions
        What the operator excused in the data.
    pinned_keys : Path, optional
        File of pinned promotion keys, where permits of others are read.
    """

    ws: Path
    alpha: Alpha
    thresholds: GateThresholds
    judged: JudgedData
    account_limits: dict[str, int | None]
    storm_guard: dict[str, Any]
    workers: int
    contracts: tuple[Instrument, ...] = ()
    exceptions: DataExceptions = NO_EXCEPTIONS
    pinned_keys: Path | None = None

    def instrument_of(self, session: SessionRef) -> Instrument:
        """Instrument that was traded in a session."""
        return self.judged.instruments[session.symbol]


def open_context(
    ws: Path, alpha: Alpha, *, config_dir: Path | None = None, workers: int = 1
) -> GateContext:
    """Resolve what an alpha is judged by.

    Parameters
    ----------
    ws : Path
        Workspace folder.
    alpha : Alpha
        To be judged.
    config_dir : Path, optional
        Folder with settings, thresholds, instruments and latency profiles of one's own.
    workers : int, optional
        Backtests at a time.

    Returns
    -------
    GateContext
    """
    settings = load_settings(config_dir)
    return GateContext(
        ws=ws,
        alpha=alpha,
        thresholds=load_thresholds(config_dir),
        judged=judged_data(ws, alpha, config_dir=config_dir),
        account_limits=settings.account_limits(),
        storm_guard=settings.storm_guard(),
        workers=workers,
        contracts=tuple(load_instruments(config_dir)),
        exceptions=load_exceptions(config_dir),
        pinned_keys=settings.pinned_keys_path,
    )
