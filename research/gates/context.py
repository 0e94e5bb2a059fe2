"""GateContext: everything a gate collects its evidence from, put together in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hft_platform.config.settings import load_settings
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.market.instruments import load_instruments
from hft_platform.market.latency import load_latency_profile
from research.data import catalog
from research.gates.thresholds import GateThresholds, load_thresholds
from research.registry import Alpha, SessionRoles, costs_sha256, sessions_of

if TYPE_CHECKING:
    from hft_platform.market.instruments import Instrument
    from research.data import Dataset


@dataclass(frozen=True, slots=True)
class GateContext:
    """A workspace, an alpha in it, and what the gates judge it on.

    Attributes
    ----------
    ws : Path
        Workspace folder.
    alpha : Alpha
        The alpha as it is now.
    thresholds : GateThresholds
        As the configuration says now.
    dataset : Dataset
        The one dataset that holds the alpha's instruments.
    instruments : mapping of str to Instrument
        The alpha's instruments in that dataset, by symbol.
    latency, latency_sha256
        The alpha's latency profile.
    account_limits : dict of str to int
        As the runtime will have them.
    workers : int
        Backtests at a time; results do not depend on it.
    """

    ws: Path
    alpha: Alpha
    thresholds: GateThresholds
    dataset: Dataset
    instruments: Mapping[str, Instrument]
    latency: dict[str, Any]
    latency_sha256: str
    account_limits: dict[str, int]
    workers: int = 1

    @property
    def roles(self) -> SessionRoles:
        """Sessions by role."""
        return sessions_of(self.alpha, self.dataset)

    @property
    def costs_sha256(self) -> str:
        """Hash of costs, latency and queue model, as in the trial ledger."""
        return costs_sha256(self.alpha, self.instruments, self.latency_sha256)


def open_context(
    ws: Path,
    alpha: Alpha,
    *,
    config_dir: Path | None = None,
    dataset_id: str | None = None,
    workers: int = 1,
) -> GateContext:
    """Resolve what an alpha is judged on.

    Parameters
    ----------
    ws : Path
        Workspace folder.
    alpha : Alpha
        To be judged.
    config_dir : Path, optional
        Folder with settings, thresholds, instruments and latency profiles of one's own.
    dataset_id : str, optional
        Which dataset, when several hold the alpha's instruments.
    workers : int, optional
        Backtests at a time.

    Returns
    -------
    GateContext

    Raises
    ------
    PlatformError
        UNKNOWN_INSTRUMENT when no dataset fits, or when several do and none was named.
    """
    dataset = _dataset(ws, alpha, dataset_id)
    table = load_instruments(config_dir)
    wanted = [s for s in alpha.manifest.instruments if s in dataset.symbols]
    instruments = {symbol: table.by_symbol(symbol) for symbol in sorted(wanted)}
    currencies = sorted({instrument.currency for instrument in instruments.values()})
    if len(currencies) > 1:
        raise PlatformError(
            ReasonCode.MANIFEST_INVALID,
            f"{alpha.alpha_id}: instruments are in {' and '.join(currencies)}; profits of one "
            "alpha are added up, so they must be in one currency",
        )
    latency, latency_sha256 = load_latency_profile(alpha.manifest.latency_profile, config_dir)
    return GateContext(
        ws=ws,
        alpha=alpha,
        thresholds=load_thresholds(config_dir),
        dataset=dataset,
        instruments=instruments,
        latency=latency,
        latency_sha256=latency_sha256,
        account_limits=load_settings(config_dir).account_limits(),
        workers=workers,
    )


def _dataset(ws: Path, alpha: Alpha, dataset_id: str | None) -> Dataset:
    held = catalog(ws)
    fitting = [d for d in held if set(d.symbols) & set(alpha.manifest.instruments)]
    if dataset_id is not None:
        fitting = [d for d in fitting if d.dataset_id == dataset_id]
    if len(fitting) == 1:
        return fitting[0]
    names = ", ".join(sorted(d.dataset_id for d in (fitting or held))) or "none"
    wanted = ", ".join(alpha.manifest.instruments)
    if not fitting:
        raise PlatformError(
            ReasonCode.UNKNOWN_INSTRUMENT,
            f"no dataset {dataset_id or ''} holds {wanted} for {alpha.alpha_id}; there are: {names}",
            next_step="ingest a recording of its instruments first",
        )
    raise PlatformError(
        ReasonCode.UNKNOWN_INSTRUMENT,
        f"{len(fitting)} datasets hold {wanted}: {names}; name the one to judge by",
        next_step=f"hft-research gates {alpha.alpha_id} --dataset {fitting[0].dataset_id}",
    )
