"""The backtests that gates run: engine and package, one session at a time."""

from __future__ import annotations

from collections.abc import Sequence

from hft_platform.config.engine_config import AlphaSpec, build_engine_config
from research.backtest.runner import SessionResult, run_session
from research.data import load_tape
from research.gates.backtests import RunOutput, RunSpec, path_of, reduce_run
from research.gates.context import GateContext
from research.gates.execution import slippage_of


class PackageBacktests:
    """Runs specs of one session of an alpha's judged sessions.

    Parameters
    ----------
    context : GateContext
        What is judged, and on what.
    """

    def __init__(self, context: GateContext) -> None:
        self._context = context
        self._sessions = context.roles.judged
        self._manifest = context.alpha.manifest.model_dump(mode="json")

    def __call__(self, session_index: int, specs: Sequence[RunSpec]) -> list[RunOutput]:
        """Run specs of one session; its tape is read and verified once."""
        session = self._sessions[session_index]
        instrument = self._context.instruments[session.symbol]
        tape = load_tape(session)
        outputs = []
        for spec in specs:
            result = self._run(session_index, spec, tape)
            outputs.append(
                RunOutput(
                    run=reduce_run(result, instrument, trading_day=session.trading_day),
                    path=path_of(result, instrument),
                    slippage_ticks=slippage_of(result, instrument),
                )
            )
        return outputs

    def _run(self, session_index: int, spec: RunSpec, tape: bytes) -> SessionResult:
        context, session = self._context, self._sessions[session_index]
        instrument = context.instruments[session.symbol]
        manifest = dict(self._manifest)
        if spec.is_flipped:
            manifest["expression"] = f"-({manifest['expression']})"
        alpha = AlphaSpec.from_manifest(
            manifest,
            spec.parameters,
            instrument,
            weight_ppm=context.alpha.manifest.gate_weight_ppm,
        )
        config = build_engine_config(
            [alpha],
            instruments=[instrument],
            session=session.session_of(instrument),
            account_limits=context.account_limits,
        )
        return run_session(
            tape,
            config,
            latency=context.latency | {"corner": spec.latency_corner},
            queue_model=spec.queue_model,
            instrument=instrument,
        )
