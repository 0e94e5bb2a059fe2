"""Evidence for gate B: the alpha's own tests, two ways to evaluate it, two processes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from hft_platform.errors import PlatformError, ReasonCode
from research.data.catalog import load_tape
from research.gates.context import GateContext
from research.gates.gate_b import CodeEvidence
from research.gates.record_places import head_of
from research.gates.sandbox import run_alpha_tests, signal_hash_in_process
from research.gates.signals import compare_batch_with_incremental, signal_config

COMPARED_RECORDS_MAX = 4_000
"""Records fed one by one; every feature is warm long before."""
PROCESS_COUNT = 2


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
    with ThreadPoolExecutor(max_workers=PROCESS_COUNT) as pool:
        started = [
            pool.submit(
                signal_hash_in_process, context.alpha, tape, thresholds, engine_config=config
            )
            for _ in range(PROCESS_COUNT)
        ]
        hashes = tuple(process.result() for process in started)
    return CodeEvidence(
        tests=tests,
        compared_rows=rows,
        mismatched_rows=mismatches,
        process_hashes=hashes,
        tests_sha256=tests_sha256,
    )
