"""hft-research: what a person types, what it answers, how it exits."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hft_platform import _core
from hft_platform.config.engine_config import resolve_template
from hft_platform.errors import ReasonCode
from research import cli
from research.gates.thresholds import load_thresholds
from research.gates.verdict import GateVerdict, Verdict, reason, write_verdict
from research.new_alpha import TEMPLATE_TEXTS
from research.promotion import audit
from research.registry import bundled_folder, load_alpha
from tests.rust_core import engine_tapes

ALPHA_ID = "gen_imbalance_taker"


@pytest.fixture
def place(tmp_path: Path) -> list[str]:
    """Arguments that keep a command inside a fresh folder."""
    (tmp_path / "config").mkdir()
    shutil.copytree(bundled_folder() / ALPHA_ID, tmp_path / "alphas" / ALPHA_ID)
    return ["--workspace", str(tmp_path / "ws"), "--alphas", str(tmp_path / "alphas"),
            "--config-dir", str(tmp_path / "config")]  # fmt: skip


def write_failed_gate(root: Path) -> None:
    """A gate A that missed two thresholds, one of them narrowly."""
    alpha = load_alpha(root / "alphas" / ALPHA_ID)
    from hft_platform.config.code_hash import code_sha256

    checks = [
        {"name": "newey_west_t", "observed": 2.7, "limit": 3.0, "passed": False},
        {"name": "deflated_sharpe", "observed": 0.4, "limit": 0.95, "passed": False},
        {"name": "round_trips", "observed": 200.0, "limit": 100.0, "passed": True},
    ]
    verdict = Verdict(
        gate="gate_a", alpha_id=ALPHA_ID, alpha_hash=alpha.alpha_hash,
        verdict=GateVerdict.INSUFFICIENT_EVIDENCE,
        reasons=(reason(702, "too few days", observed=20.0, limit=32.0),),
        thresholds_sha256=load_thresholds(root / "config").hashes()["gate_a"],
        code_sha256=code_sha256(), inputs={}, results={"checks": checks, "days_missing": 12},
    )  # fmt: skip
    write_verdict(root / "ws", alpha, verdict)


def test_every_command_teaches_itself(capsys: pytest.CaptureFixture[str]) -> None:
    names = ("new", "list", "gates", "show", "compare", "promote", "pool", "retire", "scorecard",
             "sign")  # fmt: skip
    for arguments in (["--help"], *([name, "--help"] for name in names)):
        with pytest.raises(SystemExit) as caught:
            cli.main(arguments)
        assert caught.value.code == 0
        assert "usage: hft-research" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["promot"], ["gates"], ["withdraw", "a"]])
def test_a_wrong_call_exits_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_a_refusal_exits_with_3_and_says_what_why_and_next(
    place: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["withdraw", "nothing", "--why", "test", *place]) == 3
    error = capsys.readouterr().err
    assert error.startswith("error CONFIG_NOT_FOUND (510): ")
    assert "\n  why:  " in error
    assert "\n  next: " in error
    assert "Traceback" not in error


def test_an_empty_workspace_says_how_data_comes_in(
    place: list[str], capsys: pytest.CaptureFixture[str], repository: Path
) -> None:
    # It used to say "ingest a recording of it first", which no command of hft-research does.
    assert cli.main(["gates", ALPHA_ID, *place]) == 3
    said, next_step = capsys.readouterr().err.split("  next: ")
    assert "in no instruments file" not in said
    assert "make demo " in next_step
    command = "dagster asset materialize -m dagster_project.definitions"
    selected = "--select recordings,datasets,alpha_registry"
    assert f"{command} {selected}" in next_step
    page = (repository / "docs" / "driving-the-loop.md").read_text()
    assert re.search(rf"{command} \\\n\s+{selected}\n", page)


def test_a_refusal_is_json_for_scripts(
    place: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["promote", "no_such_alpha", "--json", *place]) == 3
    assert json.loads(capsys.readouterr().out)["code"] == ReasonCode.MANIFEST_INVALID


def test_a_new_alpha_loads_and_its_tests_pass(
    place: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["new", "txf_my_idea", "--by", "me", *place]) == 0
    assert "next: hft-research gates txf_my_idea" in capsys.readouterr().out
    folder = tmp_path / "alphas" / "txf_my_idea"
    assert load_alpha(folder).manifest.owner == "me"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)],
        capture_output=True, check=False, cwd=folder, env=os.environ | {"PYTEST_ADDOPTS": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout.decode()
    assert cli.main(["new", "txf_my_idea", *place]) == 3
    assert cli.main(["new", "../escape", *place]) == 3


@pytest.mark.parametrize("kind", TEMPLATE_TEXTS)
def test_new_starts_from_any_template_and_the_engine_takes_it(
    kind: str, place: list[str], tmp_path: Path
) -> None:
    assert cli.main(["new", "txf_idea", "--template", kind, *place]) == 0
    manifest = load_alpha(tmp_path / "alphas" / "txf_idea").manifest.model_dump(mode="json")
    assert manifest["template"]["kind"] == kind
    resolved = resolve_template("txf_idea", manifest["template"], {})
    _core.Engine(engine_tapes.text(engine_tapes.config("k", resolved)))


def test_new_names_the_templates_when_it_knows_none_of_that_name(
    place: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["new", "txf_idea", "--template", "market", *place]) == 3
    assert "avellaneda_stoikov_maker, cost_taker" in capsys.readouterr().err
    assert not (tmp_path / "alphas" / "txf_idea").exists()


def test_list_and_show_say_where_an_alpha_stands(
    place: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_failed_gate(tmp_path)
    assert cli.main(["list", "--json", *place]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["verdicts"]["gate_a"] == "insufficient_evidence"
    assert row["verdicts"]["gate_b"] == "not_run"
    assert (row["state"], row["stands_at"]) == ("draft", "draft")
    assert row["because"] == "gate_a says insufficient_evidence: too few days"
    assert cli.main(["show", ALPHA_ID, *place]) == 0
    text = capsys.readouterr().out
    assert "GATE_INSUFFICIENT_EVIDENCE (702): too few days" in text
    assert text.splitlines()[-1] == f"next: hft-research gates {ALPHA_ID}"


def test_retire_closes_an_alpha_and_says_so_ever_after(
    place: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["retire", ALPHA_ID, *place, "--by", "me", "--why", "spent"]) == 0
    assert f"{ALPHA_ID} retired (audit entry " in capsys.readouterr().out
    assert cli.main(["retire", ALPHA_ID, *place, "--by", "me", "--why", "spent", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["is_new"] is False
    assert cli.main(["list", "--json", *place]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["state"], row["because"]) == ("retired", "spent (me)")
    assert cli.main(["promote", ALPHA_ID, *place]) == 3
    assert f"{ALPHA_ID} was retired by me" in capsys.readouterr().err


def test_compare_wants_two_and_shows_them_side_by_side(
    place: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for ids in ([ALPHA_ID], [ALPHA_ID, ALPHA_ID]):
        assert cli.main(["compare", *ids, *place]) == 2  # it used to blame the manifest
        said = "compare needs two different ids; hft-research list shows them\n"
        assert capsys.readouterr().err == said
    shutil.copytree(bundled_folder() / "gen_null_taker", tmp_path / "alphas" / "gen_null_taker")
    write_failed_gate(tmp_path)
    assert cli.main(["compare", ALPHA_ID, "gen_null_taker", *place]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [load_alpha(tmp_path / "alphas" / name).key
                                for name in (ALPHA_ID, "gen_null_taker")]  # fmt: skip
    assert lines[1].split() == ["gate", "A", "insufficient_evidence", "not_run"]
    assert cli.main(["compare", ALPHA_ID, "gen_null_taker", "--json", *place]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [row["headline"]["state"] for row in facts["alphas"]] == ["draft", "draft"]
    assert facts["pairs"] == []


def test_an_empty_pool_says_so(place: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pool", *place]) == 0
    assert "the pool is empty" in capsys.readouterr().out
    assert cli.main(["pool", "--json", *place]) == 0
    assert json.loads(capsys.readouterr().out)["members"] == []


def test_scorecard_writes_the_page_and_prints_its_content(
    place: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_failed_gate(tmp_path)
    assert cli.main(["scorecard", ALPHA_ID, "--json", *place]) == 0
    card = json.loads(capsys.readouterr().out)
    assert cli.main(["scorecard", ALPHA_ID, *place]) == 0
    path = Path(capsys.readouterr().out.splitlines()[-1].removeprefix("page: "))
    assert json.loads(path.with_suffix(".json").read_bytes()) == card
    assert "too few days" in path.read_text()


def test_why_names_the_nearest_missed_threshold_and_the_days_that_decide(
    place: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["gates", ALPHA_ID, "--why", *place]) == 0
    assert "gate_a was not run yet" in capsys.readouterr().out
    write_failed_gate(tmp_path)
    assert cli.main(["gates", ALPHA_ID, "--why", *place]) == 0
    text = capsys.readouterr().out
    assert "nearest: newey_west_t: 2.7 against 3; it must change by 0.3 (10.0% of the" in text
    assert "12 more trading days" in text
    assert cli.main(["gates", ALPHA_ID, "--why", "--json", *place]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["nearest"]["name"], answer["days_missing"]) == ("newey_west_t", 12)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--sessions", "3"], "--sessions and --keep belong to --rehearse"),
        (["--keep"], "--sessions and --keep belong to --rehearse"),
        (["--gate", "gate_a", "--rehearse"], "--rehearse goes through every gate"),
        (["--why", "--rehearse"], "--why explains verdicts that are there"),
        (["--why", "--gate", "gate_a"], "--why explains verdicts that are there"),
    ],
)
def test_options_of_gates_that_do_not_go_together_run_nothing(
    options: list[str],
    named: str,
    place: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # `--sessions` without `--rehearse` used to run the real gates on everything.
    assert cli.main(["gates", ALPHA_ID, *options, *place]) == 2
    answer = capsys.readouterr()
    assert answer.out == ""
    assert answer.err.startswith(named)
    assert answer.err.endswith("; nothing was run\n")
    assert not (tmp_path / "ws").exists()


def test_a_key_is_made_where_it_is_asked_for_and_shown_as_a_pin(
    place: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "far" / "promotion.key"
    assert cli.main(["keys", "make", "--role", "promotion", "--out", str(path), *place]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line == f"promotion {path.with_suffix('.pub').read_text().strip()}"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().strip() not in line


def test_audit_verify_counts_and_refuses(
    place: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ws = tmp_path / "ws"
    entry = audit.append(ws, kind=audit.EntryKind.OVERRIDE, who="w", why="y", subject="s", facts={})
    assert cli.main(["audit", "verify", "--head", entry.hash, "--json", *place]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "entries": 1,
        "head": entry.hash,
        "problems": [],
    }
    assert cli.main(["audit", "verify", "--head", "0" * 64, *place]) == 3
    chain = audit.chain_path(ws)
    chain.write_bytes(chain.read_bytes().replace(b'"kind":"override"', b'"kind":"approved"'))
    assert cli.main(["audit", "verify", *place]) == 3
    assert "AUDIT_BROKEN (712)" in capsys.readouterr().err
