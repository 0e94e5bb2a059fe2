"""Where an alpha is in its life: derived from verdicts and the audit chain, written nowhere.

Why: a state that someone can edit is an opinion; this one follows from what was proven and done.

Invariants:
1. The state is a function of verified verdicts, the verified audit chain and the files that take
   a permit away. There is no field to set.
2. A file that withdraws counts without its audit entry: what takes risk away is believed first.
3. A verdict of other code, thresholds or evidence is no verdict: it is named, and does not count.
4. Retired is the end: no later entry, verdict or version of the alpha leads out of it.

It changes nothing (see `retire`). Operator's page: `docs/alphas.md`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hft_platform.config.promotion_folder import promotions_root, reduced_weight, withdrawn_seq
from hft_platform.errors import PlatformError, ReasonCode
from research.gates.thresholds import load_thresholds
from research.gates.verdict import GATES, read_verdict, require_chain
from research.promotion import audit

if TYPE_CHECKING:
    from research.registry import Alpha


class State(StrEnum):
    """The states, in the order of a life; `GATED_X` has passed every gate up to X."""

    DRAFT = "draft"
    GATED_A = "gated_a"
    GATED_B = "gated_b"
    GATED_C = "gated_c"
    GATED_D = "gated_d"
    GATED_E = "gated_e"
    SHADOW = "shadow"
    CANARY = "canary"
    LIVE = "live"
    WITHDRAWN = "withdrawn"
    RETIRED = "retired"


NEXT_STEP: Mapping[State, str] = {
    State.DRAFT: "hft-research gates {id}",
    State.GATED_A: "hft-research gates {id}",
    State.GATED_B: "hft-research gates {id}; hft-research promote {id} --stage shadow to watch it",
    State.GATED_C: "hft-research gates {id}",
    State.GATED_D: "hft-research promote {id} --stage shadow, then shadow sessions and gate E",
    State.GATED_E: "hft-research promote {id} --stage canary",
    State.SHADOW: "hft-research gates {id}; behind gate C hft-research promote {id} --stage shadow "
    "(the setting it chose), its sessions, hft-research gates {id} --gate gate_e",
    State.CANARY: "hft-research canary {id}",
    State.LIVE: "hft-research canary {id}",
    State.WITHDRAWN: "hft-research show {id} says why; newer evidence or retire it",
    State.RETIRED: "hft-research new starts another one; a retired alpha stays retired",
}


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """State of one alpha, and what it follows from.

    Attributes
    ----------
    alpha_key : str
        Whose.
    state : State
        See there.
    why : str
        The sentence that explains it: the last act, or the gate that is not passed.
    open_gate : str
        The first gate that does not hold, and what it says.
    gates_passed : tuple of str
        Gates that hold now, from A on without a gap.
    stale : str
        Why a passed gate does not hold any more; empty when all do.
    stage, weight_ppm, promotion_seq
        Of the permit in force; empty, 0 and 0 without one.
    is_rolled_back : bool
        The canary's evidence, not a person, withdrew it.
    next_step : str
        The command that leads on.
    """

    alpha_key: str
    state: State
    why: str
    open_gate: str
    gates_passed: tuple[str, ...]
    stale: str
    stage: str
    weight_ppm: int
    promotion_seq: int
    is_rolled_back: bool
    next_step: str

    def as_dict(self) -> dict[str, Any]:
        """JSON content."""
        return asdict(self) | {"state": str(self.state), "gates_passed": list(self.gates_passed)}

    @property
    def because(self) -> str:
        """What a reader asks next: the act that decided, or in shadow the gate still open."""
        return self.open_gate if self.state is State.SHADOW else self.why

    @property
    def text(self) -> str:
        """State and weight in a few words: ``canary 2 %``, ``gated_c``, ``rolled back``."""
        if self.stage:
            return f"{self.state} {self.weight_ppm / 1e4:g} %"
        return "rolled back" if self.is_rolled_back else str(self.state)


def lifecycle_of(
    ws: Path,
    alpha: Alpha,
    *,
    entries: Sequence[audit.AuditEntry] | None = None,
    config_dir: Path | None = None,
) -> Lifecycle:
    """Derive the state of an alpha.

    Parameters
    ----------
    ws : Path
        Workspace.
    alpha : Alpha
        As its folder says now.
    entries : sequence of AuditEntry, optional
        The verified chain, when the caller has it already.
    config_dir : Path, optional
        Folder with an overriding `gates.yaml`.

    Returns
    -------
    Lifecycle

    Raises
    ------
    PlatformError
        AUDIT_BROKEN when the chain does not verify: then no state can be told.
    """
    chain = audit.verify_chain(ws) if entries is None else entries
    passed, stale = _gates_passed(ws, alpha, config_dir)
    mine = [entry for entry in chain if _is_about(entry, alpha.alpha_id)]
    act = _last_act(ws, alpha, mine)
    open_gate = stale or _first_open_gate(ws, alpha, passed)
    state, why = act.state, act.why
    if state is None:
        state = State(f"gated_{passed[-1][-1]}") if passed else State.DRAFT
        why = open_gate
    return Lifecycle(
        alpha_key=alpha.key,
        state=state,
        why=why,
        open_gate=open_gate,
        gates_passed=passed,
        stale=stale,
        stage=act.stage,
        weight_ppm=act.weight_ppm,
        promotion_seq=act.promotion_seq,
        is_rolled_back=act.is_rolled_back,
        next_step=NEXT_STEP[state].format(id=alpha.alpha_id),
    )


def retired_entry(entries: Sequence[audit.AuditEntry], alpha_id: str) -> audit.AuditEntry | None:
    """The entry that retired an alpha, in whatever version, or None."""
    for entry in entries:
        if entry.record["kind"] == audit.EntryKind.RETIRED and _is_about(entry, alpha_id):
            return entry
    return None


def require_not_retired(entries: Sequence[audit.AuditEntry], alpha: Alpha) -> None:
    """Refuse whatever would give a retired alpha a permit.

    Parameters
    ----------
    entries : sequence of AuditEntry
        The verified chain.
    alpha : Alpha
        Any version of it: an edit is no way back.

    Raises
    ------
    PlatformError
        PROMOTION_NOT_PERMITTED with who retired it and why.
    """
    entry = retired_entry(entries, alpha.alpha_id)
    if entry is not None:
        raise PlatformError(
            ReasonCode.PROMOTION_NOT_PERMITTED,
            f"{alpha.alpha_id} was retired by {entry.record['who']} (audit entry {entry.seq}): "
            f"{entry.record['why']}",
            next_step="a retired alpha stays retired; hft-research new starts another one, "
            "under another id",
            facts={"alpha_id": alpha.alpha_id, "audit_entry": entry.seq},
        )


@dataclass(frozen=True, slots=True)
class _Act:
    """The last thing that was done with an alpha; no state when nothing that counts was."""

    state: State | None = None
    why: str = ""
    stage: str = ""
    weight_ppm: int = 0
    promotion_seq: int = 0
    is_rolled_back: bool = False


def _last_act(ws: Path, alpha: Alpha, mine: Sequence[audit.AuditEntry]) -> _Act:
    retired = retired_entry(mine, alpha.alpha_id)
    if retired is not None:
        return _Act(State.RETIRED, _said(retired))
    issued = [entry for entry in mine if entry.record["kind"] in audit.ISSUES]
    of_this_version = [entry for entry in issued if entry.record["subject"] == alpha.key]
    if not of_this_version:
        return _Act()
    newest, last = of_this_version[-1], issued[-1]
    seq = int(newest.record["facts"]["promotion_seq"])
    if last is not newest:
        return _Act(State.WITHDRAWN, f"replaced by {last.record['subject']}: {_said(last)}")
    root = promotions_root(ws)
    withdrawal = next(
        (
            entry
            for entry in reversed(mine)
            if entry.record["kind"] == audit.EntryKind.WITHDRAWN
            and int(entry.record["facts"]["promotion_seq"]) >= seq
        ),
        None,
    )
    if withdrawal is not None:
        rolled_back = bool(withdrawal.record["facts"].get("is_rolled_back"))
        return _Act(State.WITHDRAWN, _said(withdrawal), is_rolled_back=rolled_back)
    if withdrawn_seq(root, alpha.alpha_id) >= seq:
        why = "a file withdraws it that the audit chain does not know; it holds all the same"
        return _Act(State.WITHDRAWN, why)
    facts = newest.record["facts"]
    stage = str(facts["stage"])
    weight = reduced_weight(root, alpha.alpha_id, seq, signed_ppm=int(facts["weight_ppm"]))
    return _Act(State(stage), _said(newest), stage, weight, seq)


def _gates_passed(ws: Path, alpha: Alpha, config_dir: Path | None) -> tuple[tuple[str, ...], str]:
    """Gates that hold, and why those that passed once and do not hold any more do not."""
    thresholds = load_thresholds(config_dir).hashes()
    claimed = 0
    stale = ""
    for gate in GATES:
        try:
            verdict = read_verdict(ws, alpha.key, gate)
        except PlatformError as error:
            stale = error.message
            break
        if verdict is None or not verdict.is_passed:
            break
        claimed += 1
    while claimed:
        try:
            require_chain(ws, alpha, GATES[claimed - 1], thresholds=thresholds)
            break
        except PlatformError as error:
            stale = error.message
            claimed -= 1
    return GATES[:claimed], stale


def _first_open_gate(ws: Path, alpha: Alpha, passed: tuple[str, ...]) -> str:
    if len(passed) == len(GATES):
        return "every gate passed"
    gate = GATES[len(passed)]
    verdict = read_verdict(ws, alpha.key, gate)
    if verdict is None:
        return f"{gate} was not run yet"
    text = verdict.reasons[0]["text"] if verdict.reasons else str(verdict.verdict)
    return f"{gate} says {verdict.verdict}: {text}"


def _is_about(entry: audit.AuditEntry, alpha_id: str) -> bool:
    return bool(entry.record["facts"].get("alpha_id") == alpha_id)


def _said(entry: audit.AuditEntry) -> str:
    return f"{entry.record['why']} ({entry.record['who']})"
