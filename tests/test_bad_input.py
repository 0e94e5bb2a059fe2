"""The platform's list of bad input, through its public doors: a typed error or a counted rejection.

Each row damages one thing, goes through a command or the library function behind `make demo`, and
states the code that comes out. Nothing half-written may remain: after a refusal the workspace holds
the files it held before. The depth is elsewhere: every cut and every bad row of a recording in
tests/research/data/test_ingest.py, every byte of a config in
tests/hft_platform/config/test_promoted.py, manifests in tests/research/registry/test_registry.py,
every byte of a log in rust_core/src/wal/tests and tests/hft_platform/services/test_parity.py, what
the store refuses in tests/hft_platform/recorder/test_loader.py.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from hft_platform import _core, cli
from hft_platform.errors import PlatformError, ReasonCode
from research import cli as research_cli
from research import loop
from research.data import catalog
from research.promotion import audit
from research.registry import bundled_folder
from tests.hft_platform.services.live_workspace import SESSIONS, SYMBOL, Live, make_live, record

BOOK = f"{SYMBOL}_2026-01-05_book.parquet"
TRADES = f"{SYMBOL}_2026-01-05_trades.parquet"
MEMORY = ("state", "keys", ".lock")
"""What a refusal may touch: the highest sequence seen, keys made on first use, lock files."""

Files = dict[str, bytes]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings, a workspace with their dataset, a signed permit and one finished session."""
    root = tmp_path_factory.mktemp("made")
    live = make_live(root)
    live.run(live.issue())
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same as one's own; the working folder has no config."""
    shutil.copytree(made, tmp_path / "made")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    return tmp_path / "made"


def files_of(folder: Path) -> Files:
    """Everything in a workspace that a refusal must leave alone."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not any(part in MEMORY for part in path.relative_to(folder).parts)
    }


def command(
    main: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, Any, str]:
    """Exit code, the last line of JSON, and what was said to a person."""
    capsys.readouterr()
    code = main([*arguments, "--json"])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return code, json.loads(said.out.strip().splitlines()[-1]), said.err


def edit(path: Path, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    """Rewrite a recording."""
    change(pl.read_parquet(path)).write_parquet(path)


def set_row(row: int, **values: float) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """Change one row of a recording."""
    here = pl.int_range(pl.len()) == row
    return lambda frame: frame.with_columns(
        pl.when(here)
        .then(pl.lit(value))
        .otherwise(pl.col(name))
        .cast(frame[name].dtype)
        .alias(name)
        for name, value in values.items()
    )


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


REFUSED_RECORDINGS: dict[str, tuple[str, Callable[[Path], None], int, str]] = {
    "a truncated Parquet": (BOOK, cut_short, ReasonCode.FILE_DAMAGED, BOOK),
    "a truncated Parquet of trades": (TRADES, cut_short, ReasonCode.FILE_DAMAGED, TRADES),
    "an empty file": (BOOK, lambda p: p.write_bytes(b"") and None, ReasonCode.FILE_DAMAGED, BOOK),
    "a wrong column": (
        BOOK, lambda p: edit(p, lambda f: f.rename({"bid_px_2": "bid_price_2"})),
        ReasonCode.SCHEMA_MISMATCH, "bid_px_2",
    ),
    "a column of text": (
        TRADES, lambda p: edit(p, lambda f: f.with_columns(px=pl.lit("12"))),
        ReasonCode.SCHEMA_MISMATCH, "px",
    ),
}  # fmt: skip

COUNTED_ROWS: dict[str, tuple[str, dict[str, float], str]] = {
    "a crossed book": (BOOK, {"bid_px_1": 30_000.0}, "BOOK_CROSSED"),
    "a negative price in the book": (BOOK, {"ask_px_2": -20_001.0}, "PRICE_NOT_POSITIVE"),
    "a negative price of a trade": (TRADES, {"px": -20_001.0}, "PRICE_NOT_POSITIVE"),
    "a negative quantity": (TRADES, {"qty": -1.0}, "QTY_NOT_POSITIVE"),
    "a price off the grid": (TRADES, {"px": 20_000.5}, "PRICE_OFF_TICK_GRID"),
    "a price beyond every number": (TRADES, {"px": 1e300}, "VALUE_OUT_OF_RANGE"),
}


@pytest.mark.parametrize("name", REFUSED_RECORDINGS)
def test_a_recording_that_cannot_be_read_is_refused_whole(tmp_path: Path, name: str) -> None:
    file, damage, code, said = REFUSED_RECORDINGS[name]
    record(tmp_path / "recordings")
    damage(tmp_path / "recordings" / file)
    with pytest.raises(PlatformError) as caught:
        loop.make_datasets(tmp_path / "ws", str(tmp_path / "recordings"))
    assert caught.value.code == code
    assert said in caught.value.message
    assert caught.value.next_step
    assert files_of(tmp_path / "ws") == {}
    assert list((tmp_path / "ws" / "datasets").iterdir()) == []


@pytest.mark.parametrize("name", COUNTED_ROWS)
def test_a_row_that_cannot_be_true_is_counted_and_the_rest_is_kept(
    made: Path, tmp_path: Path, name: str
) -> None:
    file, values, reason = COUNTED_ROWS[name]
    shutil.copytree(made / "recordings", tmp_path / "recordings")
    edit(tmp_path / "recordings" / file, set_row(100, **values))
    (dataset,) = loop.make_datasets(tmp_path / "ws", str(tmp_path / "recordings"))
    (whole,) = catalog.datasets(made / "ws")
    assert dataset.record_count == whole.record_count - 1
    assert catalog.quality_report(dataset)["totals"]["rejected"] == {reason: 1}


def edited_alpha(root: Path, **changes: Any) -> list[str]:
    """A bundled alpha with changed fields; arguments of hft-research that name it."""
    folder = root / "alphas" / "gen_imbalance_taker"
    shutil.copytree(bundled_folder() / folder.name, folder)
    path = folder / "manifest.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))
    return [folder.name, "--workspace", str(root / "ws"), "--alphas", str(root / "alphas")]


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"ttl_ms": -1}, ReasonCode.MANIFEST_INVALID, "ttl_ms"),
        ({"instruments": ["NO_SUCH"]}, ReasonCode.UNKNOWN_INSTRUMENT, "NO_SUCH"),
        ({"surprise": 1}, ReasonCode.MANIFEST_INVALID, "surprise"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused_before_anything_is_written(
    root: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    code: int,
    said: str,
) -> None:
    before = files_of(root / "ws")
    arguments = edited_alpha(root, **changes)
    exit_code, content, _ = command(research_cli.main, capsys, "gates", *arguments)
    assert exit_code == 3
    assert content["code"] == code
    assert said in content["message"]
    assert files_of(root / "ws") == before


@pytest.mark.parametrize(
    ("expression", "code", "said"),
    [
        ("8.0 * imbalance_emma_2s", ReasonCode.UNKNOWN_FEATURE, "did you mean imbalance_ema_2s"),
        ("8.0 * (imbalance_ema_2s", ReasonCode.EXPRESSION_INVALID, "position"),
    ],
)
def test_an_unknown_feature_fails_gate_a_with_a_suggestion_and_promotes_nothing(
    root: Path, capsys: pytest.CaptureFixture[str], expression: str, code: int, said: str
) -> None:
    """It is a verdict, not an exception: the attempt is kept, complete, and counts as a trial."""
    before = files_of(root / "ws")
    chain_before = audit.verify_chain(root / "ws")
    arguments = edited_alpha(root, expression=expression)
    exit_code, verdicts, _ = command(research_cli.main, capsys, "gates", *arguments)
    assert exit_code == 3
    (verdict,) = verdicts
    assert (verdict["gate"], verdict["verdict"]) == ("gate_a", "not_computed")
    assert verdict["reasons"][0]["code"] == code
    assert said in verdict["reasons"][0]["text"]
    assert research_cli.main(["gates", *arguments]) == 3
    shown = capsys.readouterr().out.splitlines()
    place = shown.index(f"    {expression}")
    assert shown[place + 1].strip() == "^"
    exit_code, content, _ = command(research_cli.main, capsys, "promote", *arguments)
    assert exit_code == 3
    assert content["code"] == ReasonCode.UPSTREAM_VERDICT_FAILED
    added = {name for name in files_of(root / "ws") if name not in before}
    kinds = {"/".join(name.split("/")[:2]) for name in added if not name.startswith("verdicts/")}
    kept = {"ledger/trials.jsonl", "promotions/requests", "audit/chain.jsonl", "audit/head.json"}
    assert kinds <= kept, "nothing was issued"
    chained = audit.verify_chain(root / "ws")[len(chain_before) :]
    kinds = {entry.record["kind"] for entry in chained}
    assert "verdict" in kinds
    assert kinds <= {"thresholds", "verdict"}


@pytest.mark.parametrize("share", [0.0, 0.13, 0.37, 0.5, 0.71, 0.99])
def test_a_config_with_one_byte_changed_trades_nothing(
    root: Path, capsys: pytest.CaptureFixture[str], share: float
) -> None:
    (head,) = (root / "ws" / "promotions").glob("[0-9]*/*.yaml")
    raw = bytearray(head.read_bytes())
    raw[int(share * (len(raw) - 1))] ^= 2
    head.write_bytes(raw)
    before = files_of(root / "ws")
    exit_code, content, err = command(
        cli.main, capsys, "run", "--workspace", str(root / "ws"), "--mode", "paper",
        "--speed", "max", "--config", str(head), "--session", SESSIONS[1],
    )  # fmt: skip
    assert exit_code == 3
    assert 501 <= content["code"] <= 508
    assert err.startswith("error CONFIG_")
    assert files_of(root / "ws") == before


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.3, 0.77, 0.9999])
@pytest.mark.parametrize("kind", ["market", "orders"])
def test_a_segment_cut_at_any_byte_is_refused_by_every_reader(
    root: Path, capsys: pytest.CaptureFixture[str], kind: str, share: float
) -> None:
    (session_dir,) = (root / "ws" / "sessions").iterdir()
    segment = session_dir / kind / "00000001.seg"
    raw = segment.read_bytes()
    segment.write_bytes(raw[: int(share * len(raw))])
    before = files_of(root / "ws")
    for arguments in (
        ("replay", session_dir.name),
        ("explain", "--session", session_dir.name),
        ("explain", "1", "--session", session_dir.name),
    ):
        exit_code, content, _ = command(
            cli.main, capsys, arguments[0], "--workspace", str(root / "ws"), *arguments[1:]
        )
        assert exit_code == 3
        assert content["error"].startswith("WAL_")
        assert kind in content["message"]
    for action in ("inspect", "verify", "recover"):
        exit_code, content, _ = command(
            cli.main, capsys, "wal", action, session_dir.name, "--workspace", str(root / "ws")
        )
        assert exit_code == 1
        assert content["problems"][0].startswith("WAL_")
    assert files_of(root / "ws") == before


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_log_cut_by_a_crash_is_recovered_to_whole_records(
    root: Path, capsys: pytest.CaptureFixture[str], share: float
) -> None:
    (session_dir,) = (root / "ws" / "sessions").iterdir()
    log = session_dir / "market"
    raw, tape = (log / "00000001.seg").read_bytes(), _core.read_log(str(log))["tape"]
    (log / "00000001.seg").unlink()
    (log / "manifest.log").unlink()
    (log / "00000001.open").write_bytes(raw[: int(share * len(raw))])
    exit_code, content, _ = command(
        cli.main, capsys, "wal", "recover", session_dir.name, "--workspace", str(root / "ws")
    )
    assert (exit_code, content["problems"]) == (0, [])
    kept = _core.read_log(str(log))["tape"]
    assert tape.startswith(kept)
    whole_records = int(share * len(raw)) // 264  # the largest frame of the market log
    assert len(kept) > (whole_records - 2) * 96
    assert not list(log.glob("*.open"))


def test_what_the_store_is_given_is_whole_or_set_aside(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (session_dir,) = (root / "ws" / "sessions").iterdir()
    segment = session_dir / "market" / "00000001.seg"
    raw = segment.read_bytes()
    segment.write_bytes(raw[: len(raw) // 2])
    arguments = ("wal", "load", "--workspace", str(root / "ws"))
    exit_code, content, _ = command(cli.main, capsys, *arguments)
    assert exit_code == 1
    assert "market" in content["problems"][0]
    (row,) = content["rows"]
    assert not any("book" in table.lower() for table in row["rows"]), "nothing of the cut one"
    segment.write_bytes(raw)
    exit_code, content, _ = command(cli.main, capsys, *arguments)
    assert (exit_code, content["problems"]) == (0, [])
    (row,) = content["rows"]
    assert any("book" in table.lower() for table in row["rows"])
    assert command(cli.main, capsys, *arguments)[1]["rows"][0]["rows_inserted"] == 0


def test_nothing_of_this_list_is_refused_when_it_is_whole(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Negative control: the same doors let good input through."""
    (head,) = (root / "ws" / "promotions").glob("[0-9]*/*.yaml")
    exit_code, (evidence,), _ = command(
        cli.main, capsys, "run", "--workspace", str(root / "ws"), "--mode", "paper",
        "--speed", "max", "--config", str(head), "--session", SESSIONS[1],
    )  # fmt: skip
    assert (exit_code, evidence["session_id"]) == (0, SESSIONS[1])
    for arguments in (
        ("replay", evidence["run_id"]),
        ("explain", "--session", evidence["run_id"]),
        ("wal", "verify", evidence["run_id"]),
    ):
        exit_code, _, _ = command(
            cli.main, capsys, arguments[0], *arguments[1:], "--workspace", str(root / "ws")
        )
        assert exit_code == 0
    assert np.isfinite(evidence["account"]["net"])
    assert Live(root / "ws").request(head).session.record_count > 2_000
