"""Backtests of the study: the seam of the gates, filled with generated sessions.

Why: what is measured must be what judges, so only this seam differs from a real gate run.

Invariants:
1. Every run is the real engine on the real exchange simulation, with the profile's latencies.
2. A run is made once an alpha: being judged at fewer days, or with a mistake, makes no new numbers.
3. A taker's orders take at once or are gone: they never stand in a queue, so its run is the same
   under every queue model and is made under one.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hft_platform import records
from hft_platform.config.canonical import atomic_write
from hft_platform.config.engine_config import AlphaSpec, build_engine_config
from hft_platform.config.settings import load_settings
from hft_platform.execution.position_store import mids_of
from hft_platform.market.instruments import Instrument
from hft_platform.market.latency import load_latency_profile
from hft_platform.records import SCALE
from research.backtest.runner import package_rows, run_session
from research.gate_study.markets import Market
from research.gates.backtests import (
    PositionPath,
    RunBacktests,
    RunOutput,
    RunSpec,
    path_of,
    reduce_run,
    shifted_profit,
)
from research.gates.evidence import SessionRun, Trip
from research.gates.execution import slippage_of
from research.registry import AlphaManifest

_Key = tuple[int, tuple[tuple[str, float], ...], float | None, str, bool]
_NUMBERS = tuple(
    field.name for field in fields(SessionRun) if field.name not in ("trips", "displayed_share")
)
"""What of a run is kept as it is."""


@cache
def _installation() -> tuple[dict[str, int | None], dict[str, Any]]:
    settings = load_settings()
    return settings.account_limits(), settings.storm_guard()


class MarketBacktests:
    """Runs specs of one alpha on a market's sessions, each once.

    Parameters
    ----------
    manifest : AlphaManifest
        The alpha.
    market : Market
        Its sessions, in-sample sessions first.
    """

    def __init__(self, manifest: AlphaManifest, market: Market) -> None:
        self._manifest = manifest.model_dump(mode="json")
        self._weight_ppm = manifest.gate_weight_ppm
        self._latency = load_latency_profile(manifest.latency_profile)[0]
        self._market = market
        self._is_taker = manifest.template.kind == "taker"
        self._queue_model = manifest.queue_model
        self._rows: dict[int, bytes] = {}
        self._made: dict[_Key, RunOutput] = {}
        self._asked: set[_Key] = set()
        self._loaded = 0
        self._mids: dict[int, tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = {}

    @property
    def run_count(self) -> int:
        """Different backtests that were asked for, kept ones included."""
        return len(self._asked)

    @property
    def has_new(self) -> bool:
        """Whether there are runs that `load` did not bring."""
        return len(self._made) > self._loaded

    def save(self, path: Path) -> None:
        """Keep the runs, so that they can be judged again by other thresholds or other gates."""
        rows = [[list(key), _as_row(output)] for key, output in self._made.items()]
        atomic_write(path, zlib.compress(json.dumps(rows).encode(), 1))

    def load(self, path: Path) -> None:
        """Take kept runs up again; the mids they are marked at come from the tapes."""
        for key, row in json.loads(zlib.decompress(path.read_bytes())):
            index, parameters, corner, queue_model, is_flipped = key
            named = tuple((name, value) for name, value in parameters)
            self._made[(index, named, corner, queue_model, is_flipped)] = self._from_row(index, row)
        self._loaded = len(self._made)

    def _from_row(self, index: int, row: list[Any]) -> RunOutput:
        run, trips, share, steps, positions, slippage = row
        if index not in self._mids:
            times, mids = mids_of(records.split(self._market.sessions[index].tape)["Book"])
            first = int(times[0]) if times.size else 0
            self._mids[index] = (times - first, mids)
        offsets, mids = self._mids[index]
        return RunOutput(
            run=SessionRun(
                **run,
                trips=tuple(Trip(*trip) for trip in trips),
                displayed_share=tuple(share),
            ),
            path=PositionPath(
                step_offset_ns=np.array(steps, dtype=np.int64),
                position=np.array(positions, dtype=np.int64),
                mid_offset_ns=offsets,
                mid=mids,
                multiplier=self._market.instrument.multiplier,
            ),
            slippage_ticks=slippage,
        )

    def __call__(self, session_index: int, specs: Sequence[RunSpec]) -> list[RunOutput]:
        """Run specs of one session."""
        return [self._output(session_index, spec) for spec in specs]

    def _output(self, index: int, spec: RunSpec) -> RunOutput:
        parameters = tuple(sorted(spec.parameters.items()))
        queue_model = self._queue_model if self._is_taker else spec.queue_model
        key = (index, parameters, spec.latency_corner, queue_model, spec.is_flipped)
        self._asked.add(key)
        if key not in self._made:
            self._made[key] = self._run(index, replace(spec, queue_model=queue_model))
        return self._made[key]

    def _run(self, index: int, spec: RunSpec) -> RunOutput:
        instrument, session = self._market.instrument, self._market.sessions[index]
        manifest = self._manifest
        if spec.is_flipped:
            manifest = manifest | {"expression": f"-({manifest['expression']})"}
        alpha = AlphaSpec.from_manifest(
            manifest, spec.parameters, instrument, weight_ppm=self._weight_ppm
        )
        limits, storm_guard = _installation()
        if index not in self._rows:
            day = session.session.trading_day
            self._rows[index] = package_rows(session.tape, instrument.on(day))
        result = run_session(
            session.tape,
            build_engine_config(
                [alpha],
                instruments=[instrument],
                session=session.session,
                account_limits=limits,
                storm_guard=storm_guard,
            ),
            latency=self._latency | {"corner": spec.latency_corner},
            queue_model=spec.queue_model,
            instrument=instrument,
            rows=self._rows[index],
        )
        return RunOutput(
            run=reduce_run(result, instrument, trading_day=session.trading_day),
            path=path_of(result, instrument),
            slippage_ticks=slippage_of(result, instrument),
        )


def _as_row(output: RunOutput) -> list[Any]:
    run, path = output.run, output.path
    numbers = {name: getattr(run, name) for name in _NUMBERS}
    return [
        numbers,
        [[trip.mid_edge_ticks, trip.net_ticks, trip.net] for trip in run.trips],
        list(run.displayed_share),
        path.step_offset_ns.tolist(),
        path.position.tolist(),
        output.slippage_ticks,
    ]


class WithoutCosts:
    """A mistake: fills at the mid and no fees, as if a position were a profit.

    Parameters
    ----------
    backtest : RunBacktests
        The honest one.
    instrument : Instrument
        Tick and multiplier.
    """

    def __init__(self, backtest: RunBacktests, instrument: Instrument) -> None:
        self._backtest = backtest
        lot_tick = instrument.tick_size * instrument.lot_size * instrument.multiplier
        self._tick_money = lot_tick // (SCALE * SCALE)

    def __call__(self, session_index: int, specs: Sequence[RunSpec]) -> list[RunOutput]:
        """Run specs and value them from mid to mid."""
        return [self._marked(output) for output in self._backtest(session_index, specs)]

    def _marked(self, output: RunOutput) -> RunOutput:
        trips = tuple(
            Trip(t.mid_edge_ticks, t.mid_edge_ticks, round(t.mid_edge_ticks * self._tick_money))
            for t in output.run.trips
        )
        gross = shifted_profit(output.path, output.path)
        return replace(output, run=replace(output.run, gross=gross, fees=0, trips=trips))


class ChosenOnTheJudged:
    """A mistake: what is called in sample are the out-of-sample sessions themselves.

    Parameters
    ----------
    backtest : RunBacktests
        The honest one.
    in_sample, out_of_sample : int
        Sessions of the honest split; the judge is told `out_of_sample` for both.
    """

    YEARS_EARLIER = 20_000

    def __init__(self, backtest: RunBacktests, *, in_sample: int, out_of_sample: int) -> None:
        self._backtest = backtest
        self._in_sample = in_sample
        self._out_of_sample = out_of_sample

    def __call__(self, session_index: int, specs: Sequence[RunSpec]) -> list[RunOutput]:
        """Run specs; the first `out_of_sample` indices are the judged sessions, dated earlier."""
        n = self._out_of_sample
        outputs = self._backtest(self._in_sample + session_index % n, specs)
        if session_index >= n:
            return outputs
        return [
            replace(o, run=replace(o.run, trading_day=o.run.trading_day - self.YEARS_EARLIER))
            for o in outputs
        ]
