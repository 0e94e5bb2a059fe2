"""Tampering: what somebody with write access might try, and what refuses it, case by case.

The table in docs/tampering.md is made of these cases; `HFT_WRITE_TAMPERING=1` writes it again.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hft_platform.config import promoted as promoted_config
from hft_platform.config import promotion_folder
from hft_platform.errors import PlatformError, ReasonCode, code_name
from research import cli
from research.commands import common
from research.data import catalog
from research.promotion import audit, on_record, sign
from research.promotion import evidence as promotion_evidence
from tests.research.tampering import tamper_evidence as evidence
from tests.research.tampering import tamper_permits as permits
from tests.research.tampering.tampered_desk import (
    CANARY_SESSIONS,
    SHADOW_SESSIONS,
    Desk,
    build,
)

Tamper = Callable[[Desk], Callable[[], Any]]
PAGE = Path("docs") / "tampering.md"
NEXT = SHADOW_SESSIONS + CANARY_SESSIONS


@dataclass(frozen=True, slots=True)
class Case:
    """What is done, what is asked for next, and the code that refuses it."""

    done: str
    asked: str
    code: ReasonCode
    tamper: Tamper


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return build(tmp_path_factory.mktemp("promoted") / "desk")


@pytest.fixture
def desk(promoted: Desk, tmp_path: Path) -> Desk:
    return promoted.copy(tmp_path / "desk")


R = ReasonCode
CASES = {
    "verdict edited": Case(
        "gate C's verdict file edited", "a canary permit", R.VERDICT_TAMPERED, evidence.edit_verdict
    ),
    "verdict and head edited": Case(
        "gate E's verdict written by hand, with fitting name, hash and head",
        "a canary permit", R.VERDICT_NOT_RECORDED, evidence.edit_verdict_and_head,
    ),
    "every verdict forged": Case(
        "all five verdicts written by hand, each built on the one before",
        "a canary permit", R.VERDICT_NOT_RECORDED, evidence.forge_every_verdict,
    ),
    "verdict of another alpha": Case(
        "gate B's verdict of another alpha copied in", "a canary permit", R.VERDICT_TAMPERED,
        evidence.swap_verdict,
    ),
    "verdict of the pool forged": Case(
        "gate C's verdict of an alpha that trades written by hand", "gate D of a newcomer",
        R.VERDICT_NOT_RECORDED, evidence.forge_a_verdict_of_the_pool,
    ),
    "old verdict put back": Case(
        "gate E's earlier pass put back after a later run did not pass", "a canary permit",
        R.VERDICT_NOT_RECORDED, evidence.put_old_verdict_back,
    ),
    "shadow sessions chosen": Case(
        "a shadow session deleted before gate E ran again", "a canary permit",
        R.UPSTREAM_VERDICT_FAILED, evidence.choose_the_shadow_sessions,
    ),
    "gate deleted": Case(
        "gate D's verdict removed", "a canary permit", R.UPSTREAM_VERDICT_MISSING,
        evidence.delete_a_gate
    ),
    "gate skipped": Case(
        "only gate D's asset selected in Dagster, gate C never run", "the asset's run",
        R.UPSTREAM_VERDICT_MISSING, evidence.select_assets,
    ),
    "thresholds loosened": Case(
        "gates.yaml asks for fewer sessions", "gate A", R.THRESHOLDS_NOT_RECORDED,
        evidence.loosen_thresholds,
    ),
    "canary thresholds loosened": Case(
        "canary.yaml allows ten times the loss", "the canary's next decision (it is withdrawn)",
        R.THRESHOLDS_NOT_RECORDED, evidence.loosen_canary,
    ),
    "code of a gate changed": Case(
        "a line of a gate changed after the verdicts", "a canary permit", R.VERDICT_STALE,
        evidence.change_a_gate,
    ),
    "code of the runtime changed": Case(
        "a line of the runtime changed after the permit", "a session",
        R.CONFIG_EVIDENCE_MISMATCH, evidence.change_the_runtime,
    ),
    "alpha edited": Case(
        "the alpha's manifest edited after its gates", "a canary permit",
        R.UPSTREAM_VERDICT_MISSING, evidence.edit_the_alpha,
    ),
    "trial deleted": Case(
        "one row removed from the trial ledger", "gate D", R.LEDGER_BEHIND_AUDIT,
        evidence.delete_a_trial
    ),
    "history deleted": Case(
        "the trial ledger and every verdict removed", "gate A", R.LEDGER_BEHIND_AUDIT,
        evidence.start_over_without_history,
    ),
    "outcomes deleted": Case(
        "what came of the trials removed", "gate A of another alpha", R.LEDGER_BEHIND_AUDIT,
        evidence.delete_the_outcomes,
    ),
    "alpha renamed": Case(
        "the alpha copied under a new name to start at zero trials (the count stays)",
        "a canary permit for the copy", R.UPSTREAM_VERDICT_MISSING, evidence.rename_to_reset,
    ),
    "dataset swapped": Case(
        "a session of the dataset replaced by another under the same dataset hash", "gate A",
        R.FILE_DAMAGED, evidence.swap_dataset_under_hash,
    ),
    "judged tape edited": Case(
        "the recording of a judged session replaced", "a canary permit", R.FILE_DAMAGED,
        evidence.edit_a_judged_tape,
    ),
    "next tape edited": Case(
        "the recording about to be traded replaced", "a session", R.FILE_DAMAGED,
        evidence.edit_the_next_tape,
    ),
    "audit row deleted": Case(
        "a row of the audit chain deleted", "a canary permit", R.AUDIT_BROKEN,
        permits.delete_audit_row
    ),
    "audit row edited": Case(
        "who asked edited in the audit chain", "a canary permit", R.AUDIT_BROKEN,
        permits.edit_audit_row
    ),
    "audit chain truncated": Case(
        "the last rows of the audit chain cut off", "a canary permit", R.AUDIT_BROKEN,
        permits.truncate_audit,
    ),
    "audit chain reordered": Case(
        "two rows of the audit chain swapped", "a canary permit", R.AUDIT_BROKEN,
        permits.reorder_audit
    ),
    "audit chain deleted": Case(
        "the audit chain and its head deleted", "a canary permit", R.AUDIT_BROKEN,
        permits.delete_audit
    ),
    "old audit chain put back": Case(
        "an earlier copy of the audit chain and its head put back after another promotion",
        "a canary permit", R.AUDIT_BROKEN, permits.put_old_audit_back,
    ),
    "config edited": Case(
        "the weight in the signed config raised", "a session", R.CONFIG_SIGNATURE_INVALID,
        permits.edit_config,
    ),
    "expiry edited": Case(
        "the expiry in the signed config moved", "a session", R.CONFIG_SIGNATURE_INVALID,
        permits.edit_expiry,
    ),
    "old config reused": Case(
        "an earlier signed config named on the command line", "a session", R.CONFIG_REPLAYED,
        permits.reuse_old_config,
    ),
    "newer config removed": Case(
        "the newer issue, its head and the runtime's memory removed, the earlier config named",
        "a session", R.CONFIG_REPLAYED, permits.reuse_old_config_and_remove_newer,
    ),
    "sequence rolled back": Case(
        "the highest sequence in the runtime's memory lowered", "a session", R.CONFIG_REPLAYED,
        permits.roll_sequence_back,
    ),
    "unpinned key": Case(
        "a config at full weight signed with another workspace's key", "a session",
        R.CONFIG_KEY_UNKNOWN, permits.sign_with_unpinned_key,
    ),
    "live by automatic key": Case(
        "a config with stage live signed with the automatic key", "a session",
        R.KEY_ROLE_FORBIDDEN, permits.sign_live_with_automatic_key,
    ),
    "issue without record": Case(
        "a config signed with the right key, behind the signer's back", "the next permit",
        R.AUDIT_BROKEN, permits.issue_without_record,
    ),
    "permit copied to another workspace": Case(
        "every permit copied to another machine's workspace", "a session there",
        R.CONFIG_KEY_UNKNOWN, permits.copy_to_another_workspace,
    ),
    "permit in another alpha's place": Case(
        "a permit put where another alpha's is looked for", "a session of that alpha",
        R.CONFIG_EVIDENCE_MISMATCH, permits.put_in_place_of_another_alpha,
    ),
    "more weight asked for": Case(
        "nothing but a larger number in the request", "a canary permit at full weight",
        R.PROMOTION_NOT_PERMITTED, permits.ask_for_more_weight,
    ),
    "withdrawal removed": Case(
        "the file of a withdrawal deleted", "a session", R.CONFIG_WITHDRAWN,
        permits.remove_withdrawal
    ),
    "rollback denied": Case(
        "the file of a canary's roll-back edited to say that its evidence still holds",
        "a canary permit on the same evidence", R.CONFIG_WITHDRAWN, permits.deny_a_rollback,
    ),
    "reduction removed": Case(
        "the file that lowered a weight deleted (the weight stays lowered)",
        "the weight as it was", R.PROMOTION_NOT_PERMITTED, permits.raise_a_lowered_weight,
    ),
    "clock set back": Case(
        "the machine's clock set back behind the expiry that it had seen", "a live start",
        R.CLOCK_WENT_BACK, permits.set_clock_back,
    ),
    "judged session traded": Case(
        "the permit used on a session it rests on", "that session", R.CONFIG_NOT_YET_VALID,
        permits.trade_what_was_judged,
    ),
    "summary edited": Case(
        "a profit added to a session summary", "the next canary permit",
        R.CANARY_METRIC_MISSING, permits.edit_summary,
    ),
    "summary typed in": Case(
        "a session that never ran, written by hand", "the next canary permit",
        R.CANARY_METRIC_MISSING, permits.type_in_summary,
    ),
    "summary of another alpha": Case(
        "another alpha's signed summary in place of a canary session's",
        "the next canary permit", R.CANARY_METRIC_MISSING, permits.replay_summary_of_another,
    ),
    "session counted twice": Case(
        "a good session's folder copied under another name", "the next canary permit",
        R.CANARY_METRIC_MISSING, permits.count_a_session_twice,
    ),
    "summary deleted": Case(
        "the summary of a losing session deleted", "the next canary permit",
        R.CANARY_METRIC_MISSING, permits.delete_summary,
    ),
    "session deleted": Case(
        "the whole folder of a losing session deleted", "the next canary permit",
        R.CANARY_METRIC_MISSING, permits.delete_session,
    ),
    "session and its line deleted": Case(
        "the folder of a losing session and its line in the register deleted",
        "the next canary permit", R.CANARY_METRIC_MISSING, permits.cut_register,
    ),
    "key opened": Case(
        "the promotion key made readable to others", "a canary permit", R.KEY_PERMISSIONS,
        permits.open_a_key,
    ),
}  # fmt: skip


def refusal(desk: Desk, case: Case) -> PlatformError:
    """Tamper, ask, and return the refusal."""
    ask = case.tamper(desk)
    with pytest.raises(PlatformError) as caught:
        ask()
    return caught.value


def shown(desk: Desk, text: str) -> str:
    """A message without what differs between two runs: hashes, key ids, times and places."""
    text = text.replace(str(desk.root / "other" / "ws"), "ws").replace(str(desk.ws), "ws")
    text = text.replace(str(desk.root), ".")
    return re.sub(r"(?<=owner )\d+|\b[0-9a-f]{12,64}\b", "#", text)


@pytest.mark.parametrize("name", CASES)
def test_tampering_is_refused(name: str, desk: Desk, rows: dict[str, tuple[Case, str]]) -> None:
    case = CASES[name]
    error = refusal(desk, case)
    assert error.code == case.code, error.message
    rows[name] = (case, shown(desk, error.message))


@pytest.fixture(scope="module")
def rows() -> dict[str, tuple[Case, str]]:
    """Messages as the cases met them, for the page."""
    return {}


def test_an_untouched_workspace_trades_and_keeps_its_permit(desk: Desk) -> None:
    before = desk.sign()
    assert not before.is_new
    folder = desk.trade_next()
    traded = json.loads((folder / "summary.json").read_bytes())["evidence"]
    assert traded["counts"]["orders"] > 0
    assert traded["weight_ppm"] == before.weight_ppm
    assert audit.verify_chain(desk.ws)
    assert desk.canary().action in ("hold", "step_up")


def _nothing(*_: Any, **__: Any) -> None:
    """A guard that was taken out."""


GUARDS: dict[str, tuple[Any, str, Any]] = {
    "every verdict forged": (on_record, "require_verdicts_on_record", _nothing),
    "canary thresholds loosened": (on_record, "require_thresholds_on_record", _nothing),
    "judged tape edited": (sign, "require_tapes_unchanged", _nothing),
    "withdrawal removed": (
        promotion_folder, "_on_record", lambda *_, **__: promotion_folder._OnRecord()
    ),
    "session deleted": (promotion_evidence, "begun_sessions", lambda _: []),
    "dataset swapped": (catalog, "content_sha256", lambda content: content["sha256"]),
    "permit in another alpha's place": (promoted_config, "_require_place", _nothing),
}  # fmt: skip


@pytest.mark.parametrize("name", GUARDS)
def test_without_its_guard_the_tampering_goes_through(
    name: str, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: what refuses is the guard that the case is about, and nothing else."""
    module, function, instead = GUARDS[name]
    monkeypatch.setattr(module, function, instead)
    CASES[name].tamper(desk)()


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("every verdict forged", "VERDICT_NOT_RECORDED"),
        ("trial deleted", "LEDGER_BEHIND_AUDIT"),
        ("issue without record", "AUDIT_BROKEN"),
        ("sequence rolled back", "CONFIG_REPLAYED"),
        ("session and its line deleted", "SUMMARY_TAMPERED"),
    ],
)
def test_audit_verify_finds_it_before_anybody_asks(
    name: str, code: str, desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["audit", "verify", "--workspace", str(desk.ws), "--json"]
    assert cli.main(command) == common.DONE
    assert json.loads(capsys.readouterr().out)["problems"] == []
    CASES[name].tamper(desk)
    assert cli.main(command) == common.REFUSED
    found = json.loads(capsys.readouterr().out)["problems"]
    assert any(problem.startswith(code) for problem in found), found
    assert all(re.search(r"; next: \w", problem) for problem in found), found


def test_the_canary_whose_thresholds_changed_is_withdrawn(desk: Desk) -> None:
    refusal(desk, CASES["canary thresholds loosened"])
    with pytest.raises(PlatformError) as caught:
        desk.trade_next()
    assert caught.value.code == R.CONFIG_WITHDRAWN


def test_the_page_shows_every_case(
    repository: Path, rows: dict[str, tuple[Case, str]], request: pytest.FixtureRequest
) -> None:
    if set(rows) != set(CASES):
        pytest.skip("only some of the cases ran")
    table = ["| what was done | what was asked for | refused with | message |", "|---|---|---|---|"]
    for case, message in rows.values():
        text = message.replace("|", "\\|")
        table.append(f"| {case.done} | {case.asked} | {code_name(case.code)} | {text} |")
    page = repository / PAGE
    head, _, rest = page.read_text().partition("<!-- cases -->\n")
    _, _, tail = rest.partition("<!-- end of cases -->\n")
    wanted = "\n".join(
        [head + "<!-- cases -->", f"{len(CASES)} cases:", "", *table, "<!-- end of cases -->", tail]
    )
    if os.environ.get("HFT_WRITE_TAMPERING"):
        page.write_text(wanted)
    assert page.read_text() == wanted, "HFT_WRITE_TAMPERING=1 pytest tests/research/tampering"
