"""Verdict: what a gate found, from which inputs, by which code; a content-addressed file.

Why: a passing orchestration step is no evidence. What the next gate trusts is this file, which it
verifies again.

Invariants:
1. Equal inputs, thresholds and code give equal bytes: no clock, no path, no run id.
2. Only `passed` opens the next gate; what could not be computed is `not_computed`, never passed.
3. A verdict of an edited file, other code, other thresholds, another alpha, or a ledger that lost
   trials is refused, each with its own reason code.
4. It is in the signed audit chain before it becomes its gate's newest, and a file that is not
   there opens nothing: whoever can write files cannot write a verdict.

It computes nothing. Operator's page: `docs/formats.md`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hft_platform.config.canonical import atomic_write, canonical_json, sha256_hex, write_once
from hft_platform.config.code_hash import code_sha256
from hft_platform.errors import PlatformError, ReasonCode, code_name
from research.experiments import TrialLedger
from research.promotion import on_record

if TYPE_CHECKING:
    from research.registry import Alpha

SCHEMA = 1
GATES = ("gate_a", "gate_b", "gate_c", "gate_d", "gate_e")
UPSTREAM: Mapping[str, str | None] = dict(zip(GATES, (None, *GATES), strict=False))
"""Each gate builds on the one before it."""


class GateVerdict(StrEnum):
    """The four outcomes; only `PASSED` opens the next gate."""

    PASSED = "passed"
    FAILED = "failed"
    INSUFFICIENT_EVIDENCE = "insufficient_evidence"
    NOT_COMPUTED = "not_computed"


def reason(
    code: int, text: str, *, observed: float | str | None = None, limit: float | str | None = None
) -> dict[str, Any]:
    """Build one reason of a verdict.

    Parameters
    ----------
    code : int
        Member of `ReasonCode`.
    text : str
        One sentence for a person.
    observed, limit : float, str or None
        What was measured and what was asked for.

    Returns
    -------
    dict
    """
    return {
        "code": int(code),
        "name": code_name(code),
        "text": text,
        "observed": observed,
        "limit": limit,
    }


@dataclass(frozen=True, slots=True)
class Finding:
    """What a gate's pure function makes of its evidence."""

    verdict: GateVerdict
    reasons: tuple[dict[str, Any], ...]
    results: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A finding with everything it follows from."""

    gate: str
    alpha_id: str
    alpha_hash: str
    verdict: GateVerdict
    reasons: tuple[dict[str, Any], ...]
    thresholds_sha256: str
    code_sha256: str
    inputs: dict[str, Any]
    results: dict[str, Any] = field(repr=False)

    def content(self) -> dict[str, Any]:
        """JSON content."""
        return {
            "schema": SCHEMA,
            "gate": self.gate,
            "alpha_id": self.alpha_id,
            "alpha_hash": self.alpha_hash,
            "verdict": str(self.verdict),
            "reasons": list(self.reasons),
            "thresholds_sha256": self.thresholds_sha256,
            "code_sha256": self.code_sha256,
            "inputs": self.inputs,
            "results": self.results,
        }

    def to_bytes(self) -> bytes:
        """Canonical bytes, which the file holds and the hash is over."""
        return canonical_json(self.content())

    @property
    def sha256(self) -> str:
        """Content hash, under which others refer to this verdict."""
        return sha256_hex(self.to_bytes())

    @property
    def is_passed(self) -> bool:
        """True for `passed` only."""
        return self.verdict is GateVerdict.PASSED


def verdict_folder(ws: Path, alpha_key: str) -> Path:
    """Folder of an alpha's verdicts."""
    return ws / "verdicts" / alpha_key


def write_verdict(ws: Path, alpha: Alpha, verdict: Verdict, *, by: str | None = None) -> Path:
    """Write a verdict, put it on record and make it its gate's head.

    Parameters
    ----------
    ws : Path
        Workspace folder.
    alpha : Alpha
        Whose verdict it is.
    verdict : Verdict
        Whatever it says: failed and not computed ones are written as well.
    by : str, optional
        Who ran the gate, by default the user of this process.

    Returns
    -------
    Path
        The content-addressed file. Writing the same verdict again changes nothing; an edited file
        under its name is set aside as ``<name>.tampered``.

    Raises
    ------
    PlatformError
        AUDIT_BROKEN or WAL_WRITE_FAILED when it cannot be put on record; the gate's newest verdict
        is then the one before.
    """
    folder = verdict_folder(ws, alpha.key)
    path = folder / f"{verdict.gate}-{verdict.sha256[:12]}.json"
    try:
        write_once(path, verdict.to_bytes())
    except FileExistsError:
        path.replace(path.with_suffix(".tampered"))
        write_once(path, verdict.to_bytes())
    dataset = str(verdict.inputs.get("dataset", ""))[:12]
    why = f"{verdict.gate} says {verdict.verdict}" + (f" on dataset {dataset}" if dataset else "")
    on_record.record_verdict(ws, alpha.key, verdict, by=by or on_record.actor(), why=why)
    head = folder / f"{verdict.gate}.head"
    wanted = f"{verdict.sha256}\n"
    if not head.exists() or head.read_text() != wanted:
        atomic_write(head, wanted)
    return path


def read_verdict(ws: Path, alpha_key: str, gate: str) -> Verdict | None:
    """Read a gate's newest verdict and check it against its hash.

    Parameters
    ----------
    ws : Path
        Workspace folder.
    alpha_key : str
        ``<alpha_id>@<12 hex>``.
    gate : str
        ``gate_a`` to ``gate_e``.

    Returns
    -------
    Verdict or None
        None when the gate has not been run.

    Raises
    ------
    PlatformError
        VERDICT_TAMPERED when the file is gone or does not match its hash.
    """
    head = verdict_folder(ws, alpha_key) / f"{gate}.head"
    if not head.exists():
        return None
    return read_by_hash(ws, alpha_key, gate, head.read_text().strip())


def read_by_hash(ws: Path, alpha_key: str, gate: str, sha256: str) -> Verdict:
    """Read the verdict of a gate that has a hash, also when the gate ran again since.

    Parameters
    ----------
    ws : Path
        Workspace folder.
    alpha_key : str
        ``<alpha_id>@<12 hex>``.
    gate : str
        ``gate_a`` to ``gate_e``.
    sha256 : str
        Of its bytes.

    Returns
    -------
    Verdict
        Whatever it says; whether it is on record is not looked at.

    Raises
    ------
    PlatformError
        VERDICT_TAMPERED when the file is gone or does not match its hash.
    """
    path = verdict_folder(ws, alpha_key) / f"{gate}-{sha256[:12]}.json"
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise PlatformError(
            ReasonCode.VERDICT_TAMPERED,
            f"verdict {gate} of {alpha_key} is to have hash {sha256[:12]}, "
            f"but cannot be read: {error.strerror}",
        ) from error
    if sha256_hex(raw) != sha256:
        raise PlatformError(
            ReasonCode.VERDICT_TAMPERED,
            f"verdict {gate} of {alpha_key} has hash {sha256_hex(raw)[:12]}, "
            f"expected {sha256[:12]}",
        )
    return _parse(raw, alpha_key=alpha_key, gate=gate)


def _parse(raw: bytes, *, alpha_key: str, gate: str) -> Verdict:
    try:
        content = json.loads(raw)
        if content.pop("schema") != SCHEMA or content["gate"] != gate:
            raise ValueError("another schema or gate")
        content["verdict"] = GateVerdict(content["verdict"])
        content["reasons"] = tuple(content["reasons"])
        return Verdict(**content)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise PlatformError(
            ReasonCode.VERDICT_TAMPERED,
            f"verdict {gate} of {alpha_key} is not the content this version writes: {error}",
        ) from error


def require_verdict(
    ws: Path, alpha: Alpha, gate: str, *, thresholds_sha256: str | None = None
) -> Verdict:
    """Return a gate's verdict if it passed and still holds; refuse otherwise.

    Parameters
    ----------
    ws : Path
        Workspace folder.
    alpha : Alpha
        The alpha as it is now.
    gate : str
        The gate that must have passed.
    thresholds_sha256 : str, optional
        Hash of the gate's thresholds as they are now; checked when given.

    Returns
    -------
    Verdict

    Raises
    ------
    PlatformError
        UPSTREAM_VERDICT_MISSING, VERDICT_TAMPERED, VERDICT_STALE, UPSTREAM_VERDICT_FAILED, or
        LEDGER_BEHIND_AUDIT.
    """
    verdict = read_verdict(ws, alpha.key, gate)
    if verdict is None:
        raise PlatformError(
            ReasonCode.UPSTREAM_VERDICT_MISSING,
            f"{alpha.key} has no verdict of {gate}",
            next_step=f"hft-research gates {alpha.alpha_id} --gate {gate}",
        )
    if verdict.alpha_hash != alpha.alpha_hash:
        raise PlatformError(
            ReasonCode.VERDICT_TAMPERED,
            f"verdict {gate} in the folder of {alpha.key} is about alpha hash "
            f"{verdict.alpha_hash[:12]}",
        )
    _require_fresh(verdict, alpha, thresholds_sha256)
    if not verdict.is_passed:
        texts = "; ".join(item["text"] for item in verdict.reasons[:3])
        raise PlatformError(
            ReasonCode.UPSTREAM_VERDICT_FAILED,
            f"{gate} of {alpha.key} says {verdict.verdict}: {texts}",
            next_step=f"hft-research gates --why {alpha.alpha_id}",
            facts={"gate": gate, "verdict": str(verdict.verdict)},
        )
    if "ledger" in verdict.inputs:
        TrialLedger(ws).require_superset(verdict.inputs["ledger"])
    return verdict


def _require_fresh(verdict: Verdict, alpha: Alpha, thresholds_sha256: str | None) -> None:
    changed = [
        name
        for name, recorded, now in (
            ("code", verdict.code_sha256, code_sha256()),
            ("thresholds", verdict.thresholds_sha256, thresholds_sha256),
        )
        if now is not None and recorded != now
    ]
    if changed:
        raise PlatformError(
            ReasonCode.VERDICT_STALE,
            f"verdict {verdict.gate} of {alpha.key} was made by other {' and '.join(changed)}",
            next_step=f"hft-research gates {alpha.alpha_id} runs its gates again",
        )


def require_chain(
    ws: Path,
    alpha: Alpha,
    gate: str,
    *,
    thresholds: Mapping[str, str],
    judged_by: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Verify all gates up to and including one, and that each was built on the one before.

    Parameters
    ----------
    ws : Path
        Workspace folder.
    alpha : Alpha
        The alpha as it is now.
    gate : str
        The last gate that must have passed.
    thresholds : mapping of str to str
        Hash of the thresholds by gate.
    judged_by : mapping of str to str, optional
        Inputs that must be what they were: hash of dataset, costs, latency profile.

    Returns
    -------
    dict of str to str
        Verdict hash by gate.
    """
    hashes: dict[str, str] = {}
    for name in GATES[: GATES.index(gate) + 1]:
        verdict = require_verdict(ws, alpha, name, thresholds_sha256=thresholds[name])
        _require_same_inputs(verdict, alpha, judged_by or {})
        named = verdict.inputs.get("upstream", {})
        for earlier, sha in hashes.items():
            if named.get(earlier, sha) != sha:
                raise PlatformError(
                    ReasonCode.VERDICT_STALE,
                    f"verdict {name} of {alpha.key} was built on another verdict of {earlier}",
                    next_step=f"hft-research gates {alpha.alpha_id} runs its gates again",
                )
        if UPSTREAM[name] is not None and UPSTREAM[name] not in named:
            raise PlatformError(
                ReasonCode.UPSTREAM_VERDICT_MISSING,
                f"verdict {name} of {alpha.key} names no verdict of {UPSTREAM[name]}",
            )
        hashes[name] = verdict.sha256
    on_record.require_verdicts_on_record(ws, alpha.key, hashes)
    return hashes


def _require_same_inputs(verdict: Verdict, alpha: Alpha, judged_by: Mapping[str, str]) -> None:
    changed = [name for name, now in judged_by.items() if verdict.inputs.get(name) != now]
    if changed:
        raise PlatformError(
            ReasonCode.VERDICT_STALE,
            f"verdict {verdict.gate} of {alpha.key} was made with other "
            f"{' and '.join(name.replace('_', ' ') for name in changed)}",
            next_step=f"hft-research gates {alpha.alpha_id} runs its gates again",
        )
