"""Hold a whole workspace against its audit chain: verdicts, trials, issues, sessions.

Why: a chain that verifies says nothing about files that it does not match; an auditor wants one
answer about all of them, before a gate or the signer stumbles over one.

Invariants:
1. It changes nothing and signs nothing.
2. Every problem is reported with its reason code, not only the first.

Operator's page: `docs/audit.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from hft_platform.config.promotion_folder import promotions_root, seq_floor
from hft_platform.errors import PlatformError, ReasonCode, code_line
from hft_platform.services.session_register import begun_sessions
from research.promotion import audit, on_record
from research.promotion.issue import require_issues_in_chain


def workspace_problems(ws: Path, entries: list[audit.AuditEntry]) -> list[str]:
    """What in a workspace does not match its audit chain.

    Parameters
    ----------
    ws : Path
        Workspace.
    entries : list of AuditEntry
        Of its verified chain.

    Returns
    -------
    list of str
        Code, sentence and next step; empty when everything holds.
    """
    problems = [
        text
        for check in (
            partial(on_record.require_ledger_on_record, ws, entries),
            partial(begun_sessions, ws),
        )
        for text in _refusal(check)
    ]
    root = promotions_root(ws)
    for alpha_id in sorted({path.parent.name for path in root.glob("[a-z]*/[0-9]*.yaml")}):
        problems += _refusal(partial(require_issues_in_chain, ws, alpha_id, entries))
        problems += _refusal(partial(seq_floor, ws, alpha_id))
    return problems + list(_verdict_problems(ws, entries))


def _verdict_problems(ws: Path, entries: list[audit.AuditEntry]) -> Iterator[str]:
    for head in sorted((ws / "verdicts").glob("*/*.head")):
        key, gate = head.parent.name, head.stem
        sha256 = head.read_text().strip()
        if on_record.newest_verdicts(entries, key).get(gate) != sha256:
            text = f"verdict {gate} of {key}, {sha256[:12]}, is not the newest one on record"
            yield _line(PlatformError(ReasonCode.VERDICT_NOT_RECORDED, text))


def _refusal(check: Callable[[], Any]) -> list[str]:
    try:
        check()
    except PlatformError as error:
        return [_line(error)]
    return []


def _line(error: PlatformError) -> str:
    return f"{code_line(error.code, error.message)}; next: {error.next_step}"
