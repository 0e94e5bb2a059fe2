"""The audit chain: append, verify, and every way to tamper with it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pytest

from hft_platform.config.canonical import canonical_json
from hft_platform.config.keys import signing_key
from hft_platform.errors import PlatformError, ReasonCode
from research.promotion.audit import (
    AuditEntry,
    EntryKind,
    append,
    chain_path,
    head_path,
    verify_chain,
)

COUNT = 5
ROOT = Path(__file__).parents[3]


def write(ws: Path, count: int = COUNT) -> list[AuditEntry]:
    """A chain of entries that differ."""
    return [
        append(
            ws, kind=EntryKind.ISSUED_SHADOW, who="tester", why=f"reason {i}", subject="a@1",
            facts={"promotion_seq": i, "weight": 0.5 * i}, clock=lambda i=i: 1000 + i,
        )
        for i in range(1, count + 1)
    ]  # fmt: skip


def refuse(ws: Path) -> PlatformError:
    """The error of a chain that must not verify."""
    with pytest.raises(PlatformError) as caught:
        verify_chain(ws)
    assert caught.value.code == ReasonCode.AUDIT_BROKEN
    return caught.value


def test_a_chain_verifies_and_tells_what_was_recorded(tmp_path: Path) -> None:
    written = write(tmp_path)
    read = verify_chain(tmp_path)
    assert read == written
    assert [entry.seq for entry in read] == [1, 2, 3, 4, 5]
    assert read[2].record["facts"] == {"promotion_seq": 3, "weight": 1.5}
    assert verify_chain(tmp_path / "fresh") == []


def test_a_flip_of_any_byte_of_any_entry_is_found(tmp_path: Path) -> None:
    write(tmp_path, 3)
    path = chain_path(tmp_path)
    raw = path.read_bytes()
    for index in range(len(raw)):
        damaged = bytearray(raw)
        damaged[index] ^= 1
        path.write_bytes(bytes(damaged))
        refuse(tmp_path)
    path.write_bytes(raw)
    assert len(verify_chain(tmp_path)) == 3


def test_a_flip_of_any_byte_of_the_head_is_found(tmp_path: Path) -> None:
    write(tmp_path, 2)
    path = head_path(tmp_path)
    raw = path.read_bytes()
    for index in range(len(raw)):
        damaged = bytearray(raw)
        damaged[index] ^= 1
        path.write_bytes(bytes(damaged))
        refuse(tmp_path)


def _without(index: int) -> Callable[[list[bytes]], list[bytes]]:
    return lambda lines: lines[:index] + lines[index + 1 :]


def _swapped(index: int) -> Callable[[list[bytes]], list[bytes]]:
    return lambda lines: [
        *lines[:index], lines[index + 1], lines[index], *lines[index + 2 :]
    ]  # fmt: skip


def _doubled(index: int) -> Callable[[list[bytes]], list[bytes]]:
    return lambda lines: [*lines[: index + 1], *lines[index:]]


@pytest.mark.parametrize(
    "change",
    [
        *(_without(i) for i in range(COUNT)),
        *(_swapped(i) for i in range(COUNT - 1)),
        *(_doubled(i) for i in range(COUNT)),
        lambda lines: [],
        *(lambda lines, n=n: lines[:n] for n in range(1, COUNT)),
    ],
)
def test_a_deleted_swapped_doubled_or_cut_entry_is_found(
    tmp_path: Path, change: Callable[[list[bytes]], list[bytes]]
) -> None:
    write(tmp_path)
    path = chain_path(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(change(lines)))
    refuse(tmp_path)


@pytest.mark.parametrize("change", [_without(0), _without(COUNT - 1), _doubled(2), _swapped(3)])
def test_a_chain_whose_end_does_not_hold_takes_no_further_entry(
    tmp_path: Path, change: Callable[[list[bytes]], list[bytes]]
) -> None:
    write(tmp_path)
    lines = chain_path(tmp_path).read_bytes().splitlines(keepends=True)
    chain_path(tmp_path).write_bytes(b"".join(change(lines)))
    with pytest.raises(PlatformError) as caught:
        write(tmp_path, 1)
    assert caught.value.code == ReasonCode.AUDIT_BROKEN


def test_an_edited_entry_with_every_hash_made_again_lacks_the_signature(tmp_path: Path) -> None:
    import hashlib

    write(tmp_path, 3)
    path = chain_path(tmp_path)
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    lines[1]["record"]["who"] = "somebody else"
    previous = lines[0]["hash"]
    for line in lines[1:]:
        line["prev"] = previous
        body = {name: line[name] for name in ("seq", "prev", "record", "logged_at_ns")}
        previous = hashlib.sha256(line["prev"].encode() + canonical_json(body)).hexdigest()
        line["hash"] = previous
    path.write_bytes(b"".join(canonical_json(line) + b"\n" for line in lines))
    assert "not signed" in refuse(tmp_path).message


def test_an_entry_added_by_another_key_is_found(tmp_path: Path) -> None:
    write(tmp_path, 2)
    write(tmp_path / "other", 3)
    line = chain_path(tmp_path / "other").read_bytes().splitlines(keepends=True)[2]
    with chain_path(tmp_path).open("ab") as file:
        file.write(line)
    refuse(tmp_path)


def test_a_chain_rolled_back_with_its_head_is_found_by_a_head_noted_elsewhere(
    tmp_path: Path,
) -> None:
    write(tmp_path, 2)
    old = chain_path(tmp_path).read_bytes(), head_path(tmp_path).read_bytes()
    noted = write(tmp_path, 1)[0].hash
    verify_chain(tmp_path, expected_head=noted)
    chain_path(tmp_path).write_bytes(old[0])
    head_path(tmp_path).write_bytes(old[1])
    assert len(verify_chain(tmp_path)) == 2
    with pytest.raises(PlatformError) as caught:
        verify_chain(tmp_path, expected_head=noted)
    assert caught.value.code == ReasonCode.AUDIT_BROKEN


def test_a_deleted_chain_is_found_by_its_head_and_a_deleted_head_by_its_chain(
    tmp_path: Path,
) -> None:
    write(tmp_path, 3)
    raw = chain_path(tmp_path).read_bytes()
    chain_path(tmp_path).unlink()
    refuse(tmp_path)
    chain_path(tmp_path).write_bytes(raw)
    verify_chain(tmp_path)
    head_path(tmp_path).unlink()
    refuse(tmp_path)


def test_a_crash_at_any_byte_of_an_append_loses_nothing_and_heals(tmp_path: Path) -> None:
    write(tmp_path, 2)
    before, head_before = chain_path(tmp_path).read_bytes(), head_path(tmp_path).read_bytes()
    write(tmp_path, 1)
    after = chain_path(tmp_path).read_bytes()
    for length in range(len(before), len(after) + 1, 9):
        chain_path(tmp_path).write_bytes(after[:length])
        head_path(tmp_path).write_bytes(head_before)
        assert len(verify_chain(tmp_path)) == 2
        write(tmp_path, 1)
        assert len(verify_chain(tmp_path)) == 3
    chain_path(tmp_path).write_bytes(after)
    head_path(tmp_path).write_bytes(head_before)
    assert len(verify_chain(tmp_path)) == 3
    write(tmp_path, 1)
    assert len(verify_chain(tmp_path)) == 4


def test_a_chain_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    write(tmp_path, 1)
    chain_path(tmp_path).rename(tmp_path / "kept")
    chain_path(tmp_path).mkdir()
    with pytest.raises(PlatformError) as caught:
        write(tmp_path, 1)
    assert caught.value.code in {ReasonCode.WAL_WRITE_FAILED, ReasonCode.AUDIT_BROKEN}


def test_facts_without_an_exact_form_are_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    with pytest.raises(PlatformError) as caught:
        append(
            tmp_path,
            kind=EntryKind.OVERRIDE,
            who="w",
            why="y",
            subject="s",
            facts={"x": float("nan")},
        )
    assert caught.value.code == ReasonCode.INVARIANT_BROKEN
    assert verify_chain(tmp_path) == []


def test_the_audit_key_signs_entries_and_nothing_passes_as_a_head(tmp_path: Path) -> None:
    (entry,) = write(tmp_path, 1)
    line = json.loads(chain_path(tmp_path).read_bytes())
    head = json.loads(head_path(tmp_path).read_bytes())
    assert line["signature"] != head["signature"]
    head_path(tmp_path).write_bytes(canonical_json(head | {"signature": line["signature"]}) + b"\n")
    refuse(tmp_path)
    assert entry.hash == head["hash"]
    assert head["key_id"] == signing_key(tmp_path, "audit").key_id


def test_every_kind_of_entry_is_on_the_page_and_in_one_view_of_the_store() -> None:
    page = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(EntryKind)
    folder = resources.files("hft_platform").joinpath("defaults", "clickhouse")
    views = "".join(
        folder.joinpath(f"{n}.sql").read_text() for n in ("0005_governance", "0014_audit_views")
    )
    conditions = re.findall(r"^WHERE (.*kind.*);$", views, re.MULTILINE)
    shown = {kind for kind in EntryKind if any(_takes(where, kind) for where in conditions)}
    assert shown == set(EntryKind)


def _takes(where: str, kind: str) -> bool:
    """Whether a view's condition names a kind or the start of it."""
    starts = re.findall(r"startsWith\(kind, '(\w+)'\)", where)
    return f"'{kind}'" in where or any(kind.startswith(start) for start in starts)
