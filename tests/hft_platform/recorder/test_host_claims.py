"""Claims between hosts: one winner for all who look, an end, and no effect on what is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from hft_platform.drills.loading import write_runs
from hft_platform.recorder import columns, host_claims
from hft_platform.recorder.host_claims import HostClaims
from hft_platform.recorder.ledger import SegmentKey
from hft_platform.recorder.loader import load_sealed
from hft_platform.recorder.small_tables import insert_rows
from hft_platform.recorder.store import Store


def _keys(run_id: str, count: int) -> list[SegmentKey]:
    return [SegmentKey(run_id, "market", number) for number in range(1, count + 1)]


def test_a_segment_goes_to_the_host_that_claimed_it_first(store: Store) -> None:
    first, second = HostClaims(store, "alpha"), HostClaims(store, "beta")
    keys = _keys("claimed", 3)
    assert first.claim(keys[:2]) == set(keys[:2])
    assert second.claim(keys) == {keys[2]}
    assert first.claim(keys) == set(keys[:2]), "its own claim stays its own, whichever process asks"


def test_a_claim_ends_and_the_next_host_takes_over(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = _keys("ended", 2)
    monkeypatch.setattr(host_claims, "CLAIM_SECONDS", 0)
    assert HostClaims(store, "alpha").claim(keys) == set(), "it ended in that moment"
    monkeypatch.setattr(host_claims, "CLAIM_SECONDS", 600)
    assert HostClaims(store, "beta").claim(keys) == set(keys)
    assert HostClaims(store, "alpha").claim(keys) == set()


def test_of_two_claims_in_one_moment_all_name_the_same_winner(store: Store) -> None:
    (key,) = _keys("race", 1)
    for host in ("beta", "alpha"):
        row = {
            "run_id": key.run_id, "log_kind": columns.LOG_KINDS[key.log_kind],
            "segment_id": key.segment_id, "owner": host, "epoch": 1, "ttl_s": 600,
        }  # fmt: skip
        insert_rows(store, "hft.ingest_claims", [row], token=f"race:{host}")
    assert HostClaims(store, "alpha").claim([key]) == {key}
    assert HostClaims(store, "beta").claim([key]) == set()


def test_what_another_host_claimed_is_left_to_it_and_loaded_when_it_does_not(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    appended = write_runs(tmp_path, runs=1, segments=2, records_each=30, seed=8)
    monkeypatch.setattr(store, "_is_embedded", False)
    keys = [SegmentKey("drill-8-1", kind, n) for kind, n in (("market", 1), ("orders", 1))]
    monkeypatch.setattr(host_claims, "CLAIM_SECONDS", 2)
    assert HostClaims(store, "elsewhere").claim(keys) == set(keys)
    report = load_sealed(tmp_path, store)
    assert sorted(report.left_to_others) == [str(key) for key in keys]
    assert report.segments_loaded == 1
    rows = report.rows_inserted
    for _ in range(200):
        again = load_sealed(tmp_path, store)
        rows += again.rows_inserted
        if not again.left_to_others:
            break
    assert rows == appended.records
    assert load_sealed(tmp_path, store).segments_known == appended.segments
