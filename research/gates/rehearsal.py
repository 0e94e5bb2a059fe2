"""Rehearsal: every statistic of every gate on whatever sessions there are; it authorises nothing.

Why: a researcher wants to see all numbers before there are months of data, and must not be able to
mistake them, or have them mistaken, for verdicts.

Invariants:
1. The same collectors and the same evaluation as the gates; what a gate would say is reported as
   it is, and no gate stops the next one.
2. Nothing is written but trials in the ledger, since what is seen here can influence a choice, and
   one report under `rehearsals/`, which no gate, signer or runtime reads.
3. A statistic that does not exist is None, and the report says why.

Operator's page: `docs/rehearsal.md`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hft_platform.config.canonical import atomic_write, canonical_json
from hft_platform.config.code_hash import code_sha256
from hft_platform.errors import PlatformError, ReasonCode
from research.data.catalog import tapes_kept
from research.gates.context import GateContext, open_context
from research.gates.rehearsal_desk import (
    Desk,
    leave_verdict,
    open_desk,
    rehearsals_folder,
    run_shadow,
)
from research.gates.run import find
from research.gates.steps import StepClock, cpu_seconds, installed, step
from research.gates.verdict import GATES, Finding, GateVerdict, Verdict, reason
from research.registry import Alpha, JudgedData, declare, find_alpha
from research.registry.roles import assign_roles

SHADOW_SESSIONS_MAX = 5
"""Frozen sessions that are run in the runtime: as many as gate E asks for at least."""
_GATES_OF_PERMIT = ("gate_a", "gate_b")
_NOTHING: dict[str, Any] = {}

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What a rehearsal found.

    Attributes
    ----------
    alpha_key : str
        Who rehearsed.
    sessions : dict of str to tuple of str
        Sessions by role.
    findings : dict of str to Finding
        What each gate would say, with its statistics.
    inputs : dict of str to dict
        What each finding follows from.
    new_trials : int
        Trials that the ledger did not hold before.
    seconds : float
        Wall time of all.
    cpu_seconds : float
        Of this process and of those it waited for.
    steps : list of dict
        Rows of step, seconds, cpu_seconds and calls. Gates and shadow sessions follow each other;
        the parts, whose names begin with a dash, are inside of them and add up over threads.
    """

    alpha_key: str
    sessions: dict[str, tuple[str, ...]]
    findings: dict[str, Finding]
    inputs: dict[str, dict[str, Any]]
    new_trials: int
    seconds: float
    cpu_seconds: float
    steps: list[dict[str, Any]]

    def content(self) -> dict[str, Any]:
        """JSON content of the report."""
        return {
            "schema": 1,
            "kind": "rehearsal",
            "authorises": "nothing",
            "alpha_key": self.alpha_key,
            "code_sha256": code_sha256(),
            "sessions": {role: list(names) for role, names in self.sessions.items()},
            "new_trials": self.new_trials,
            "gates": {
                gate: {
                    "would_say": str(found.verdict),
                    "reasons": list(found.reasons),
                    "results": found.results,
                    "undefined": undefined(found),
                    "inputs": self.inputs[gate],
                }
                for gate, found in self.findings.items()
            },
            "timings": {
                "seconds": self.seconds,
                "cpu_seconds": self.cpu_seconds,
                "steps": self.steps,
            },
        }


def rehearse(
    ws: Path,
    alpha: Alpha | str,
    *,
    alphas_folder: Path | None = None,
    config_dir: Path | None = None,
    session_count: int | None = None,
    workers: int = 2,
    keep: bool = False,
    progress: Progress | None = None,
) -> Rehearsal:
    """Compute every statistic of gates A to E and report them; nothing becomes a verdict.

    Parameters
    ----------
    ws : Path
        Workspace folder.
    alpha : Alpha or str
        The alpha, or its key or id.
    alphas_folder : Path, optional
        Where a key is looked up, by default the bundled alphas.
    config_dir : Path, optional
        Configuration of one's own.
    session_count : int, optional
        Use only the alpha's first sessions, cut into roles again; by default all of them.
    workers : int, optional
        Backtests at a time; findings do not depend on it.
    keep : bool, optional
        Leave the logs of the shadow sessions for inspection, without the keys they were signed by.
    progress : callable, optional
        Told one line when a step is done.

    Returns
    -------
    Rehearsal
        Also written to ``rehearsals/<alpha_key>.json``.

    Raises
    ------
    PlatformError
        When there is nothing to judge by (no dataset, no profile), or the ledger is damaged.
    """
    started, cpu = time.perf_counter(), cpu_seconds()
    tell = progress or (lambda _: None)
    found = find_alpha(alpha, alphas_folder) if isinstance(alpha, str) else alpha
    with installed(StepClock()) as clock, tapes_kept():
        with step("open workspace"):
            context = open_context(ws, found, config_dir=config_dir, workers=workers)
            if session_count is not None:
                judged = _first_sessions(context.judged, found, session_count)
                context = dataclasses.replace(context, judged=judged)
            new_trials = declare(ws, found, context.judged)
        with open_desk(ws, found.key, keep=keep) as desk:
            run = _Run(context, desk, config_dir, tell)
            run.all()
        rehearsal = Rehearsal(
            alpha_key=found.key,
            sessions=_names(context.judged),
            findings=run.findings,
            inputs=run.inputs,
            new_trials=new_trials,
            seconds=time.perf_counter() - started,
            cpu_seconds=cpu_seconds() - cpu,
            steps=clock.rows(),
        )
    atomic_write(report_path(ws, found.key), canonical_json(rehearsal.content()) + b"\n")
    return rehearsal


def report_path(ws: Path, alpha_key: str) -> Path:
    """Where an alpha's newest rehearsal is reported."""
    return rehearsals_folder(ws) / f"{alpha_key}.json"


class _Run:
    """One pass through the gates; each finding is left on the desk for the gates after it."""

    def __init__(
        self, context: GateContext, desk: Desk, config_dir: Path | None, tell: Progress
    ) -> None:
        self.context = context
        self.desk = desk
        self.config_dir = config_dir
        self.tell = tell
        self.findings: dict[str, Finding] = {}
        self.inputs: dict[str, dict[str, Any]] = {}
        self.verdicts: dict[str, Verdict] = {}
        self.problem: Finding | None = None

    def all(self) -> None:
        """Gates A to D, shadow sessions, gate E."""
        judging = dataclasses.replace(self.context, ws=self.desk.judging)
        for gate in GATES[:-1]:
            self._gate(gate, judging)
        self._shadow_sessions()
        self._gate("gate_e", dataclasses.replace(self.context, ws=self.desk.runtime))

    def _gate(self, gate: str, context: GateContext) -> None:
        with step(gate):
            finding, more = (self.problem, _NOTHING) if self.problem else _find(context, gate)
        judged = context.judged
        inputs: dict[str, Any] = {
            "dataset": judged.dataset.sha256,
            "latency_profile": judged.latency_sha256,
            "costs": judged.costs_sha256,
            "sessions": [session.tape_sha256 for session in judged.roles.judged],
        } | more
        self.findings[gate], self.inputs[gate] = finding, inputs
        self.verdicts[gate] = _no_verdict(context, gate, finding, inputs)
        for folder in (self.desk.judging, self.desk.runtime):
            leave_verdict(folder, context.alpha.key, self.verdicts[gate])
        self.tell(f"{gate} would say {finding.verdict}")

    def _shadow_sessions(self) -> None:
        frozen = self.context.judged.roles.frozen[:SHADOW_SESSIONS_MAX]
        permit = {gate: self.verdicts[gate] for gate in _GATES_OF_PERMIT}
        if "chosen_parameters" in self.verdicts["gate_c"].results:
            permit["gate_c"] = self.verdicts["gate_c"]
        for session in frozen:
            with step("shadow sessions"):
                try:
                    run_shadow(
                        self.context,
                        self.desk.runtime,
                        permit,
                        session,
                        config_dir=self.config_dir,
                    )
                except PlatformError as error:
                    text = f"shadow session {session.session_id}: {error.message}"
                    hidden = text.replace(str(self.desk.runtime), "runtime")
                    self.problem = _not_computed(error.code, hidden)
                    return
            self.tell(f"shadow session {session.session_id} ran")


def _find(context: GateContext, gate: str) -> tuple[Finding, dict[str, Any]]:
    try:
        return find(context, gate)
    except PlatformError as error:
        if error.code == ReasonCode.LEDGER_BEHIND_AUDIT:
            raise
        return _not_computed(error.code, error.message), {}


def _no_verdict(
    context: GateContext, gate: str, finding: Finding, inputs: dict[str, Any]
) -> Verdict:
    """The statistics in the form that later gates read; as a verdict it says that it is none."""
    text = f"{gate} was only rehearsed; a rehearsal authorises nothing"
    return Verdict(
        gate=gate,
        alpha_id=context.alpha.alpha_id,
        alpha_hash=context.alpha.alpha_hash,
        verdict=GateVerdict.NOT_COMPUTED,
        reasons=(reason(ReasonCode.GATE_NOT_COMPUTED, text),),
        thresholds_sha256=context.thresholds.hashes()[gate],
        code_sha256=code_sha256(),
        inputs=inputs,
        results=finding.results,
    )


def _not_computed(code: int, text: str) -> Finding:
    return Finding(GateVerdict.NOT_COMPUTED, (reason(code, text),), {})


def _first_sessions(judged: JudgedData, alpha: Alpha, count: int) -> JudgedData:
    roles = judged.roles
    ordered = roles.in_sample + roles.out_of_sample + roles.frozen
    return dataclasses.replace(
        judged, roles=assign_roles(ordered[:count], alpha.manifest.data_roles)
    )


def _names(judged: JudgedData) -> dict[str, tuple[str, ...]]:
    roles = judged.roles
    return {
        role: tuple(f"{s.symbol} {s.session_id}" for s in getattr(roles, role))
        for role in ("in_sample", "out_of_sample", "frozen")
    }


def undefined(finding: Finding) -> dict[str, str]:
    """Statistics of a finding that do not exist, and why.

    Parameters
    ----------
    finding : Finding
        Of any gate.

    Returns
    -------
    dict of str to str
        Reason by place in the results, for instance ``corners.sampled/risk_adverse.sharpe``. Where
        the results name none themselves it is what the finding lacks, or what it has too little of.
    """
    lacks = [
        str(row["text"]) for row in finding.reasons if row["code"] in _CODES_OF_MISSING_EVIDENCE
    ]
    otherwise = lacks[0] if lacks else _basis(finding.results)
    return dict(_undefined(finding.results, "", otherwise))


_CODES_OF_MISSING_EVIDENCE = frozenset(
    int(code)
    for code in (
        ReasonCode.GATE_INSUFFICIENT_EVIDENCE,
        ReasonCode.SHADOW_SESSIONS_TOO_FEW,
        ReasonCode.GATE_NOT_COMPUTED,
    )
)


def _basis(results: Mapping[str, Any]) -> str:
    """What there was to compute from, for a statistic that did not come of it."""
    corner = results.get("corners", {}).get(results.get("worst_corner"), {})
    if not corner:
        return "it does not exist for these sessions"
    return (
        f"it does not exist for {corner.get('days')} out-of-sample days with "
        f"{corner.get('round_trips')} round trips"
    )


_NAMES_A_REASON = "not_computed"


def _undefined(value: object, place: str, why: str) -> Iterator[tuple[str, str]]:
    if value is None:
        yield place, why
    elif isinstance(value, Mapping):
        inside = str(value.get(_NAMES_A_REASON) or why)
        for name, part in value.items():
            if name != _NAMES_A_REASON:
                yield from _undefined(part, f"{place}.{name}" if place else str(name), inside)
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from _undefined(part, f"{place}[{index}]", why)
