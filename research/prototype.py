"""A prototype: a plain Python strategy with what it may do, on one recorded session. SLOW.

Why: an idea is tried before it is worth an expression or a kernel; nothing of it is evidence.

Invariants:
1. Limits have no default, as everywhere.
2. It declares no trial, writes no verdict and asks for no permit; its session folder replays.

It judges nothing. Operator's page: `docs/python-strategies.md`.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hft_platform import _core
from hft_platform.config.engine_config import AlphaSpec, build_engine_config
from hft_platform.config.settings import load_settings
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.execution.venue_options import venue_options
from hft_platform.feed.recording import find_session, load_tape
from hft_platform.market.instruments import load_instruments
from hft_platform.market.latency import load_latency_profile
from hft_platform.services.python_strategy import (
    Prototype,
    PrototypeOutcome,
    PythonStrategy,
    run_prototype,
)
from research.registry.manifest import ManifestLimits, OnWithdrawal

RUNS_MAX = 1_000
_Positive = Annotated[int, Field(gt=0, lt=1 << 40)]


class PrototypeSpec(BaseModel):
    """What a prototype may do: the names and units of an alpha's manifest."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    symbol: Annotated[str, Field(min_length=1, max_length=24)]
    order_qty_lots: _Positive
    ttl_ms: _Positive
    slippage_ticks: Annotated[int, Field(ge=0, le=1_000)]
    limits: ManifestLimits
    latency_profile: str
    queue_model: str
    on_withdrawal: OnWithdrawal


@dataclass(frozen=True, slots=True)
class PrototypeFile:
    """A file with `SPEC` and `strategy`.

    Attributes
    ----------
    name : str
        Name of the file.
    spec : PrototypeSpec
        What it may do.
    strategy : PythonStrategy
        A fresh one.
    """

    name: str
    spec: PrototypeSpec
    strategy: PythonStrategy


def load_prototype(path: Path) -> PrototypeFile:
    """Run a prototype's file and take what it defines.

    Parameters
    ----------
    path : Path
        Python; defines ``SPEC``, a dict, and ``strategy``, which makes the strategy when called.

    Returns
    -------
    PrototypeFile

    Raises
    ------
    PlatformError
        MANIFEST_INVALID when the file cannot be read or lacks one of the two.
    """
    name = path.stem
    found = importlib.util.spec_from_file_location(f"prototype_{name}", path)
    if found is None or found.loader is None or not path.is_file():
        raise PlatformError(ReasonCode.MANIFEST_INVALID, f"{path} is no Python file")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    make, content = getattr(module, "strategy", None), getattr(module, "SPEC", None)
    if not callable(make) or not isinstance(content, dict):
        raise PlatformError(
            ReasonCode.MANIFEST_INVALID,
            f"{path.name} defines SPEC (a dict) and strategy (called without arguments)",
            next_step="docs/python-strategies.md has one to start from",
        )
    try:
        spec = PrototypeSpec.model_validate(content)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise PlatformError(
            ReasonCode.MANIFEST_INVALID,
            f"{path.name}: SPEC field {'.'.join(map(str, problem['loc']))}: {problem['msg']}",
        ) from error
    return PrototypeFile(name, spec, cast("PythonStrategy", make()))


def run_file(
    ws: Path,
    path: Path,
    session_name: str,
    *,
    step_records: int = 1,
    config_dir: Path | None = None,
) -> tuple[Path, PrototypeOutcome]:
    """Run a prototype's file on one recorded session.

    Parameters
    ----------
    ws : Path
        Workspace folder with the recording.
    path : Path
        The file.
    session_name : str
        As `find_session` takes it.
    step_records : int, optional
        Inputs between two calls of the strategy.
    config_dir : Path, optional
        Folder with instruments and latency profiles of one's own.

    Returns
    -------
    (Path, PrototypeOutcome)
        The session's folder, and what came of it.
    """
    file = load_prototype(path)
    instrument = load_instruments(config_dir).by_symbol(file.spec.symbol)
    recorded = find_session(ws, session_name, symbol=instrument.symbol)
    latency, _ = load_latency_profile(file.spec.latency_profile, config_dir)
    lot, limits = instrument.lot_size, file.spec.limits
    alpha = AlphaSpec(
        alpha_id=file.name,
        symbol=instrument.symbol,
        expression="",
        parameters={},
        template={"kind": "external", "slippage_ticks": file.spec.slippage_ticks},
        order_qty=file.spec.order_qty_lots * lot,
        ttl_ns=file.spec.ttl_ms * 1_000_000,
        limits={
            "order_qty_max": limits.order_qty_lots_max * lot,
            "position_qty_max": limits.position_qty_lots_max * lot,
            "daily_loss_max": limits.daily_loss_max * _core.SCALE,
            "drawdown_max": limits.drawdown_max * _core.SCALE,
            "loss_speed_max": limits.loss_speed_max * _core.SCALE,
            "order_rate_max": limits.order_rate_max,
        },
        on_withdrawal={
            "action": file.spec.on_withdrawal.action,
            "deadline_ns": file.spec.on_withdrawal.deadline_ms * 1_000_000,
        },
    )
    config = build_engine_config(
        [alpha],
        instruments=[instrument],
        session=recorded.session_of(instrument),
        account_limits=load_settings(config_dir).account_limits(),
        storm_guard=load_settings(config_dir).storm_guard(),
    )
    prototype = Prototype(
        session_dir=_fresh_folder(ws, f"{recorded.session_id.replace('/', '_')}-{file.name}"),
        engine_config=config,
        tape=load_tape(recorded),
        latency=latency,
        venue=venue_options(instrument, queue_model=file.spec.queue_model),
        step_records=step_records,
    )
    return prototype.session_dir, run_prototype(prototype, file.strategy)


def facts_of(folder: Path, outcome: PrototypeOutcome) -> dict[str, Any]:
    """What a person wants to know of a prototype's session, as JSON content."""
    alpha = outcome.finished["counters"]["alphas"][0]
    return {
        "speed": outcome.speed_label,
        "folder": str(folder),
        "intents": outcome.counts.intents,
        "batches": outcome.counts.batches,
        "lost_records": outcome.counts.lost,
        "approved": outcome.finished["counters"]["approved"],
        "fills": alpha["fill_count"],
        "net": alpha["net_pnl"] / _core.SCALE,
        "replayed_identical": outcome.parity.is_identical,
        "decisions": outcome.parity.total,
    }


def _fresh_folder(ws: Path, stem: str) -> Path:
    base = ws / "prototypes"
    base.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, RUNS_MAX):
        folder = base / (stem if attempt == 1 else f"{stem}-{attempt}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise PlatformError(ReasonCode.CAPACITY_REACHED, f"{stem}: a thousand runs of one prototype")
