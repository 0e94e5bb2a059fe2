"""Evidence for gate B: the alpha's own tests, two ways to evaluate it, two processes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from hft_platform.config.canonical import atomic_write, canonical_json
from hft_platform.errors import PlatformError, ReasonCode
from research.data.catalog import load_tape
from research.gates.context import GateContext
from research.gates.gate_b import CodeEvidence
from research.gates.record_places import head_of
from research.gates.sandbox import Surroundings, run_alpha_tests, signal_in_process
from research.gates.signals import compare_batch_with_incremental, signal_config

COMPARED_RECORDS_MAX = 4_000
"""Records fed one by one; every feature is warm long before."""
SURROUNDINGS = (Surroundings(hash_seed=0, threads=1), Surroundings(hash_seed=1_203, threads=4))
"""Two processes that share nothing but the alpha: other hashes, other threads."""
MEASURED_FOLDER = "measured"
"""Of a workspace: times, which differ from run to run and are no part of a verdict."""


def collect(context: GateContext) -> CodeEvidence:
    """Run the alpha's tests in their sandbox and evaluate it several ways.

    Parameters
    ----------
    context : GateContext
        What is judged, and by what.

    Returns
    -------
    CodeEvidence
    """
    thresholds, sessions = context.thresholds.gate_b, context.judged.roles.judged
    if not sessions:
        raise PlatformError(
            ReasonCode.GATE_NOT_COMPUTED, f"there is no session to evaluate {context.alpha.key} on"
        )
    tests, tests_sha256 = run_alpha_tests(context.alpha, thresholds)
    session = sessions[0]
    instrument = context.instrument_of(session)
    config = signal_config(
        context.alpha.manifest,
        instrument,
        session.session_of(instrument),
        account_limits=context.account_limits,
        storm_guard=context.storm_guard,
    )
    tape = head_of(load_tape(session), COMPARED_RECORDS_MAX)
    rows, mismatches = compare_batch_with_incremental(tape, config)
    with ThreadPoolExecutor(max_workers=len(SURROUNDINGS)) as pool:
        started = [
            pool.submit(
                signal_in_process,
                context.alpha,
                tape,
                thresholds,
                engine_config=config,
                surroundings=surroundings,
            )
            for surroundings in SURROUNDINGS
        ]
        signals = [process.result() for process in started]
    event_ns = min(signal.event_ns for signal in signals)
    _write_measured(context, event_ns)
    return CodeEvidence(
        tests=tests,
        compared_rows=rows,
        mismatched_rows=mismatches,
        process_hashes=tuple(signal.sha256 for signal in signals),
        tests_sha256=tests_sha256,
        event_ns=event_ns,
    )


def _write_measured(context: GateContext, event_ns: int) -> None:
    path = context.ws / MEASURED_FOLDER / f"{context.alpha.key}-gate_b.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    row = {"event_ns": event_ns, "event_ns_max": context.thresholds.gate_b.event_ns_max}
    atomic_write(path, canonical_json(row))
