"""The backtests that gates run: engine and package, one session at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hft_platform.config.engine_config import AlphaSpec, build_engine_config
from research.backtest.runner import SessionResult, converted_once, run_session
from research.data.catalog import load_tape
from research.gates.backtests import RunOutput, RunSpec, path_of, reduce_run
from research.gates.context import GateContext
from research.gates.execution import slippage_of
from research.gates.fill_timing import require_reachable_fills
from research.gates.promise import execution_of
from research.gates.steps import part

if TYPE_CHECKING:
    from research.data.catalog import SessionRef


class PackageBacktests:
    """Runs specs of one session of an alpha's judged sessions.

    Parameters
    ----------
    context : GateContext
        What is judged, and by what.
    """

    def __init__(self, context: GateContext) -> None:
        self._context = context
        self._sessions = context.judged.roles.judged
        self._manifest = context.alpha.manifest.model_dump(mode="json")

    def __call__(self, session_index: int, specs: Sequence[RunSpec]) -> list[RunOutput]:
        """Run specs of one session; its tape is read and verified once."""
        session = self._sessions[session_index]
        with part("- load tapes"):
            tape = load_tape(session)
        with converted_once():
            return [self._output(session, spec, tape) for spec in specs]

    def _output(self, session: SessionRef, spec: RunSpec, tape: bytes) -> RunOutput:
        instrument = self._context.instrument_of(session)
        manifest = dict(self._manifest)
        if spec.is_flipped and manifest["kernel"]:
            manifest["kernel_sign"] = -1
        elif spec.is_flipped:
            manifest["expression"] = f"-({manifest['expression']})"
        alpha = AlphaSpec.from_manifest(
            manifest,
            spec.parameters,
            instrument,
            weight_ppm=self._context.alpha.manifest.gate_weight_ppm,
        )
        with part("- backtests"):
            result = backtest(
                self._context,
                alpha,
                session,
                tape,
                latency_corner=spec.latency_corner,
                queue_model=spec.queue_model,
            )
        with part("- reduce runs"):
            return RunOutput(
                run=reduce_run(result, instrument, trading_day=session.trading_day),
                path=path_of(result, instrument),
                slippage_ticks=slippage_of(result, instrument),
                execution=execution_of(result, instrument),
            )


def backtest(
    context: GateContext,
    alpha: AlphaSpec,
    session: SessionRef,
    tape: bytes,
    *,
    latency_corner: float | None,
    queue_model: str,
) -> SessionResult:
    """Run one alpha alone over one session.

    Parameters
    ----------
    context : GateContext
        Gives instrument, account limits and latency profile.
    alpha : AlphaSpec
        Resolved parameters and weight.
    session : SessionRef
        Which session.
    tape : bytes
        Its records.
    latency_corner : float or None
        Quantile that fixes every delay; None samples them.
    queue_model : str
        As the backtest names it.

    Returns
    -------
    SessionResult

    Raises
    ------
    PlatformError
        FILL_TOO_EARLY when a fill came before its order could have been at the exchange.
    """
    instrument = context.instrument_of(session)
    config = build_engine_config(
        [alpha],
        instruments=[instrument],
        session=session.session_of(instrument),
        account_limits=context.account_limits,
        storm_guard=context.storm_guard,
    )
    profile = context.judged.latency | {"corner": latency_corner}
    result = run_session(
        tape, config, latency=profile, queue_model=queue_model, instrument=instrument
    )
    require_reachable_fills(result, profile)
    return result
