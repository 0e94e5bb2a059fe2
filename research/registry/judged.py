"""JudgedData: the one dataset, instruments, costs and latency that an alpha is judged by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hft_platform.config.canonical import canonical_sha256
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.market.instruments import load_instruments
from hft_platform.market.latency import load_latency_profile
from research.registry.alpha import Alpha
from research.registry.roles import SessionRoles, sessions_of

if TYPE_CHECKING:
    from hft_platform.market.instruments import Instrument
    from research.data.catalog import Dataset


@dataclass(frozen=True, slots=True)
class JudgedData:
    """What an alpha is judged by.

    Attributes
    ----------
    dataset : Dataset
        The one that holds the alpha's instruments.
    roles : SessionRoles
        Its sessions of these instruments, by role.
    instruments : mapping of str to Instrument
        The alpha's instruments in that dataset, by symbol.
    latency : dict
        The alpha's latency profile, as the simulation takes it.
    latency_sha256, costs_sha256 : str
        Hash of the profile, and of everything between a signal and money.
    """

    dataset: Dataset
    roles: SessionRoles
    instruments: Mapping[str, Instrument]
    latency: dict[str, Any]
    latency_sha256: str
    costs_sha256: str


def judged_data(ws: Path, alpha: Alpha, *, config_dir: Path | None = None) -> JudgedData:
    """Resolve what an alpha is judged by.

    Parameters
    ----------
    ws : Path
        Workspace folder.
    alpha : Alpha
        Names instruments and latency profile.
    config_dir : Path, optional
        Folder with instruments and latency profiles of one's own.

    Returns
    -------
    JudgedData

    Raises
    ------
    PlatformError
        UNKNOWN_INSTRUMENT when no dataset holds its instruments, MANIFEST_INVALID when they are in
        several currencies, SETTINGS_INVALID for an unknown latency profile.
    """
    # Loaded on first use: a manifest can be read without the readers of market data.
    from research.data import catalog

    manifest = alpha.manifest
    dataset = catalog.dataset_of(ws, manifest.instruments)
    table = load_instruments(config_dir)
    held = sorted(set(manifest.instruments) & set(dataset.symbols))
    instruments = {symbol: table.by_symbol(symbol) for symbol in held}
    currencies = sorted({instrument.currency for instrument in instruments.values()})
    if len(currencies) > 1:
        raise PlatformError(
            ReasonCode.MANIFEST_INVALID,
            f"{alpha.alpha_id}: its instruments are in {' and '.join(currencies)}; profits of one "
            "alpha are added up, so they must be in one currency",
        )
    latency, latency_sha256 = load_latency_profile(manifest.latency_profile, config_dir)
    costs = {
        "costs": {symbol: instruments[symbol].costs_json() for symbol in held},
        "changes": {symbol: instruments[symbol].as_dict()["changes"] for symbol in held},
        "latency": latency_sha256,
        "queue_model": manifest.queue_model,
    }
    return JudgedData(
        dataset=dataset,
        roles=sessions_of(alpha, dataset),
        instruments=instruments,
        latency=latency,
        latency_sha256=latency_sha256,
        costs_sha256=canonical_sha256(costs),
    )
