"""A finished session in the store: its page's questions work, and its answers are the summary's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hft_platform.recorder.governance import load_governance
from hft_platform.recorder.loader import load_sealed
from hft_platform.recorder.store import Store, open_store
from hft_platform.services.session_runner import SessionOutcome
from tests.hft_platform.services.live_workspace import Live


@pytest.fixture(scope="module")
def loaded(
    finished: tuple[Live, SessionOutcome], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Store, dict[str, Any]]]:
    """A store with one finished session, and the evidence of its summary."""
    live, outcome = finished
    folder = tmp_path_factory.mktemp("agrees")
    (folder / "sessions").symlink_to(live.ws / "sessions")
    with open_store(folder) as store:
        assert load_sealed(folder, store).refused == []
        assert load_governance(folder, store).problems == []
        yield store, outcome.summary["evidence"]


def questions(repository: Path) -> list[str]:
    """Every statement on the store's page."""
    text = (repository / "docs" / "store.md").read_text()
    blocks = "".join(re.findall(r"```sql\n(.*?)```", text, re.DOTALL))
    inline = re.findall(r"`(SELECT [^`]+)`", text) + re.findall(r"store\.rows\(\"(.+?)\"\)", text)
    return [part.strip() for part in blocks.split(";") if part.strip()] + inline


def test_every_question_on_the_store_s_page_is_answered(
    loaded: tuple[Store, dict[str, Any]], repository: Path
) -> None:
    store, evidence = loaded
    asked = questions(repository)
    assert len(asked) >= 13
    empty = [sql for sql in asked if not store.rows(sql, {"run": evidence["run_id"]})]
    # No promotion is in the chain here, and a recording's receive times are made up.
    assert sorted(re.findall(r"audit\.|feed_book", "".join(empty))) == ["audit.", "feed_book"]
    assert len(empty) == 2


def test_the_round_trips_are_those_of_the_summary(loaded: tuple[Store, dict[str, Any]]) -> None:
    store, evidence = loaded
    ((waits,),) = store.rows(
        "SELECT quantilesExactInclusive(0.5, 0.95)(round_trip_ns / 1e6) FROM hft.order_latency"
        " WHERE run_id = {run:String}",
        {"run": evidence["run_id"]},
    )
    said = evidence["order_latency_ms"]
    assert waits == pytest.approx([said["p50"], said["p95"]], rel=1e-12)
    assert said["p50"] > 0


def test_profit_orders_and_fills_are_those_of_the_summary(
    loaded: tuple[Store, dict[str, Any]],
) -> None:
    store, evidence = loaded
    account, run = evidence["account"], {"run": evidence["run_id"]}
    (pnl,) = evidence["pnl"]
    assert pnl["realized"] + pnl["unrealized"] == account["gross"]
    assert (pnl["fees"], pnl["net"]) == (account["fees"], account["net"])
    as_integers = ", ".join(
        f"toString(reinterpretAsInt128({name}))"
        for name in ("position_qty", "realized", "unrealized", "fees", "tax", "net")
    )
    assert store.rows(
        f"SELECT {as_integers} FROM hft.pnl_snapshots WHERE run_id = {{run:String}}", run
    ) == [
        tuple(str(pnl[n]) for n in ("position_qty", "realized", "unrealized", "fees", "tax", "net"))
    ]
    ((orders, filled),) = store.rows(
        "SELECT count(), sum(fill_count) FROM hft.orders WHERE run_id = {run:String}", run
    )
    assert (orders, filled) == (evidence["counts"]["orders"], account["fill_count"])
    refused = store.rows(
        "SELECT toString(check_code), count() FROM hft.risk_decisions"
        " WHERE run_id = {run:String} AND NOT is_approved GROUP BY 1",
        run,
    )
    assert dict(refused) == evidence["counts"]["refused_by_code"]
    # Cash of the fills, by the contract's multiplier, is the gross of a session that ends flat.
    ((cash,),) = store.rows(
        "SELECT toString(reinterpretAsInt128(sum(-side * assumeNotNull(amount))))"
        " FROM hft.fill_amounts WHERE run_id = {run:String}",
        run,
    )
    assert int(cash) == account["gross"]
    assert account["position_qty"] == 0
