"""The scorecard: one source, three showings, and nothing in it that no file proves."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from market import SHADOW_SESSIONS

from dagster_project import definitions
from dagster_project.partitions import ALPHAS
from dagster_project.resources import Workspace
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.records import SCALE
from research import page, registry, scorecard
from research.gates import run_gate
from research.gates import verdict as verdict_module
from research.gates.verdict import GATES, read_verdict, verdict_folder
from research.pool.overview import pool_overview
from research.pool.weights import METHODS
from research.promotion import audit
from research.promotion.promote import promote
from research.promotion.withdrawal import withdraw

ALPHA = registry.find_alpha("gen_imbalance_taker")
EVIL = "</script><script>alert(1)</script>"


@pytest.fixture(scope="module")
def judged(traded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The traded workspace after gate E and a canary permit."""
    ws = tmp_path_factory.mktemp("card") / "ws"
    shutil.copytree(traded, ws)
    assert run_gate(ws, ALPHA, "gate_e").is_passed
    promote(ws, ALPHA, stage="canary", by="me", why="every gate passed")
    return ws


@pytest.fixture(scope="module")
def card(judged: Path) -> dict[str, Any]:
    return scorecard.write(judged, ALPHA)


def materialized(ws: Path, asset: str) -> dict[str, Any]:
    """Metadata of an asset as Dagster keeps it."""
    with dg.instance_for_test() as instance:
        instance.add_dynamic_partitions(ALPHAS.name or "", [ALPHA.key])
        result = dg.materialize(
            [*definitions.ASSETS],
            selection=[asset],
            partition_key=ALPHA.key,
            instance=instance,
            resources={"workspace": Workspace(path=str(ws))},
        )
    (event,) = result.asset_materializations_for_node(asset)
    return {name: value.value for name, value in event.metadata.items()}


def test_json_page_and_metadata_say_the_same(judged: Path, card: dict[str, Any]) -> None:
    written = json.loads(scorecard.card_path(judged, ALPHA.key, "json").read_bytes())
    assert written == card
    html = scorecard.card_path(judged, ALPHA.key).read_text()
    embedded = re.search(r"<script type='application/json' id='scorecard'>(.*?)</script>", html)
    assert embedded is not None
    assert json.loads(embedded[1]) == card
    assert scorecard.metadata(card)["scorecard"] == card
    for name, value in scorecard.headline(card).items():
        shown = page.text(page.plain_number(value))
        assert f"<div class='card'>{page.text(name)}<b>{shown}</b></div>" in html
        assert scorecard.metadata(card).get(name) == value


@pytest.mark.parametrize("asset", ["gate_d_verdict", "promoted_config"])
def test_the_asset_graph_shows_the_same_card(
    judged: Path, card: dict[str, Any], asset: str
) -> None:
    found = materialized(judged, asset)
    assert found["scorecard"] == card
    for name, value in scorecard.headline(card).items():
        assert found.get(name) == value


def test_every_number_is_the_verdicts_or_the_sessions(judged: Path, card: dict[str, Any]) -> None:
    verdicts = {gate: read_verdict(judged, ALPHA.key, gate) for gate in GATES}
    assert [gate["sha256"] for gate in card["gates"]] == [v.sha256 for v in verdicts.values()]
    worst = verdicts["gate_c"].results["corners"][card["evidence"]["worst_corner"]]
    shown = scorecard.headline(card)
    assert shown["Newey-West t"] == worst["newey_west_t"]
    assert shown["net"] == worst["net"] / SCALE
    assert shown["shadow sessions"] == shown["runtime sessions"] == SHADOW_SESSIONS
    total = sum(row["parity"]["total"] for row in card["sessions"])
    assert shown["decisions replayed identically"] == f"{total} of {total}"
    assert shown["gates passed"] == "5 of 5"
    assert shown["state"].startswith("canary ")
    issued = [row["kind"] for row in card["acts"] if row["kind"].startswith("issued_")]
    assert issued == ["issued_shadow", "issued_canary"]
    assert card["audit_head"] == audit.verify_chain(judged)[-1].hash


def test_the_page_loads_nothing_and_equal_evidence_gives_equal_bytes(
    judged: Path, card: dict[str, Any]
) -> None:
    html = scorecard.render(card)
    assert not re.search(r"(src|href)=['\"](?!#)", html)
    assert html == scorecard.card_path(judged, ALPHA.key).read_text()
    assert scorecard.build(judged, ALPHA) == card
    assert str(judged) not in html


def test_what_someone_wrote_as_a_reason_cannot_run_on_the_page(
    judged: Path, tmp_path: Path
) -> None:
    ws = tmp_path / "ws"
    shutil.copytree(judged, ws)
    withdraw(ws, ALPHA.alpha_id, by="me", why=EVIL)
    made = scorecard.build(ws, ALPHA)
    html = scorecard.render(made)
    assert made["lifecycle"]["state"] == "withdrawn"
    assert EVIL not in html
    assert html.count("<script") == html.count("</script>") == 1
    assert made["acts"][-1]["why"] == EVIL


def test_an_alpha_that_nothing_is_known_about_has_a_card_without_numbers(tmp_path: Path) -> None:
    made = scorecard.build(tmp_path, ALPHA)
    shown = scorecard.headline(made)
    assert (shown["state"], shown["gates passed"], shown["net"]) == ("draft", "0 of 5", None)
    assert [gate["verdict"] for gate in made["gates"]] == ["not_run"] * 5
    assert "<b>–</b>" in scorecard.render(made)
    assert "net" not in scorecard.metadata(made)


def test_a_card_of_an_edited_verdict_is_not_made(judged: Path, tmp_path: Path) -> None:
    ws = tmp_path / "ws"
    shutil.copytree(judged, ws)
    (path,) = verdict_folder(ws, ALPHA.key).glob("gate_c-*.json")
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b'"trial_count":', b'"trial_count": '))
    with pytest.raises(PlatformError) as refused:
        scorecard.build(ws, ALPHA)
    assert refused.value.code == ReasonCode.VERDICT_TAMPERED


def test_the_pool_holds_the_canary_until_it_is_withdrawn(judged: Path, tmp_path: Path) -> None:
    ws = tmp_path / "ws"
    shutil.copytree(judged, ws)
    facts = pool_overview(ws)
    assert [row["alpha"] for row in facts["members"]] == [ALPHA.key]
    assert facts["members"][0]["instruments"] == ["SIM_EDGE"]
    assert {method: list(row.values()) for method, row in facts["weights"].items()} == {
        method: [1.0] for method in METHODS
    }
    withdraw(ws, ALPHA.alpha_id, by="me", why="enough")
    assert pool_overview(ws)["members"] == []


def test_a_card_says_which_verdict_holds_no_longer(
    judged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdict_module, "code_sha256", lambda: "0" * 64)
    made = scorecard.build(judged, ALPHA)
    assert scorecard.headline(made)["gates passed"] == "0 of 5"
    assert "made by other code" in made["lifecycle"]["stale"]
    assert "holds no longer: " in scorecard.render(made)
