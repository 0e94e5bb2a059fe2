"""Replay identity: one session decided from Parquet and from the log, in processes of their own.

Why: "the same bits" is a claim about processes, not about one run: every decision is made by a
process that shares nothing with the others but a file.

Invariants:
1. Each hash comes from a process that was started for it.
2. What came from the log never reads the dataset, and the other way round.
3. A session without decisions proves nothing and fails.

It judges no alpha. Operator's page: `docs/backtest.md`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from hft_platform import _core, records
from hft_platform.config.canonical import canonical_json
from hft_platform.config.engine_config import AlphaSpec, build_engine_config
from hft_platform.config.settings import load_settings
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.market.instruments import load_instruments
from hft_platform.market.latency import load_latency_profile
from hft_platform.services.parity import engine_config_of, read_session
from research import loop, registry
from research.data import catalog

STEP_RECORDS = 1 << 20
SEGMENT_BYTES = 64 << 20


def decide_parquet(
    workspace: Path, alpha_id: str, session_dir: Path, *, segment_bytes: int = SEGMENT_BYTES
) -> dict[str, Any]:
    """Run an alpha's largest session from its dataset through the paper exchange, with logs.

    Parameters
    ----------
    workspace : Path
        Holds the dataset.
    alpha_id : str
        A bundled alpha; its first instrument's largest session is taken.
    session_dir : Path
        Folder for the two logs; must be new.
    segment_bytes : int
        Size of the logs' segments.

    Returns
    -------
    dict
        ``source``, ``symbol``, ``session_id``, ``records``, ``decisions``, ``sha256``, ``seconds``.
    """
    alpha = next(one for one in registry.bundled_alphas() if one.alpha_id == alpha_id)
    symbol = alpha.manifest.instruments[0]
    sessions = catalog.dataset_of(workspace, [symbol]).sessions
    ref = max((r for r in sessions if r.symbol == symbol), key=lambda r: r.record_count)
    instrument = load_instruments().by_symbol(symbol)
    spec = AlphaSpec.from_manifest(
        alpha.manifest.model_dump(mode="json"),
        alpha.manifest.defaults(),
        instrument,
        weight_ppm=alpha.manifest.gate_weight_ppm,
    )
    config = build_engine_config(
        [spec],
        instruments=[instrument],
        session=ref.session_of(instrument),
        account_limits=load_settings().account_limits(),
        storm_guard=load_settings().storm_guard(),
    )
    latency, _ = load_latency_profile(alpha.manifest.latency_profile)
    session_dir.mkdir(parents=True)
    (session_dir / "engine.json").write_bytes(canonical_json(config))
    started = time.perf_counter()
    session = _core.PaperSession(
        canonical_json(config).decode(),
        canonical_json(latency).decode(),
        canonical_json({"queue_model": "risk_adverse"}).decode(),
        str(session_dir),
        canonical_json({"wal_id": 1, "durable": "group", "segment_bytes": segment_bytes}).decode(),
    )
    session.feed(catalog.load_tape(ref))
    while not session.run(None, STEP_RECORDS)["done"]:
        continue
    session.finish()
    decisions = read_session(session_dir).decisions
    return {
        "source": "Parquet",
        "symbol": symbol,
        "session_id": ref.session_id,
        "records": ref.record_count,
        **_facts(decisions, started),
    }


def decide_log(session_dir: Path) -> dict[str, Any]:
    """Decide a session's logged inputs again, from its folder alone.

    Parameters
    ----------
    session_dir : Path
        Folder with ``engine.json`` and both logs.

    Returns
    -------
    dict
        ``source``, ``decisions``, ``sha256``, ``seconds``.
    """
    started = time.perf_counter()
    logs = read_session(session_dir)
    config = canonical_json(engine_config_of(session_dir)).decode()
    return {"source": "log", **_facts(_core.replay(config, logs.inputs), started)}


def _facts(decisions: bytes, started: float) -> dict[str, Any]:
    return {
        "decisions": len(decisions) // records.DTYPES["Decision"].itemsize,
        "sha256": hashlib.sha256(decisions).hexdigest(),
        "seconds": time.perf_counter() - started,
    }


def check(source: str, alpha_id: str, workspace: Path) -> dict[str, Any]:
    """Two runs from Parquet and a replay of each one's log, in four processes.

    Parameters
    ----------
    source : str
        Folder of recordings, or ``generator``.
    alpha_id : str
        A bundled alpha.
    workspace : Path
        Folder for datasets and logs.

    Returns
    -------
    dict
        ``is_identical`` and ``runs``, a row for each process.
    """
    loop.make_datasets(workspace, source)
    runs = []
    for number in (1, 2):
        folder = workspace / "replay_identity" / f"{alpha_id}-{number}"
        runs.append(_process("parquet", str(workspace), alpha_id, str(folder)))
        runs.append(_process("log", str(folder)))
    is_identical = runs[0]["decisions"] > 0 and len({row["sha256"] for row in runs}) == 1
    return {"alpha_id": alpha_id, "is_identical": is_identical, "runs": runs}


def _process(*words: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "research.replay_identity", "--step", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise PlatformError(
            ReasonCode.GATE_NOT_COMPUTED, f"step {' '.join(words)} failed: {done.stderr.strip()}"
        )
    row: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return row


def main(argv: list[str] | None = None) -> int:
    """Check one or more alphas; 0 when every process decided the same."""
    parser = argparse.ArgumentParser(prog="make replay-check", description=__doc__)
    parser.add_argument("--source", default="generator", help="folder of recordings, or generator")
    parser.add_argument("--alpha", action="append", help="bundled alpha; may be repeated")
    parser.add_argument("--workspace", type=Path, default=Path("build") / "replay-check")
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.step:
        kind, *words = arguments.step
        row = (
            decide_log(Path(words[0]))
            if kind == "log"
            else decide_parquet(Path(words[0]), words[1], Path(words[2]))
        )
        sys.stdout.write(json.dumps(row) + "\n")
        return 0
    alphas = arguments.alpha or (
        ["gen_imbalance_taker"]
        if arguments.source == "generator"
        else ["txf_ofi_taker", "txf_imbalance_maker"]
    )
    results = [check(arguments.source, alpha_id, arguments.workspace) for alpha_id in alphas]
    if arguments.json:
        sys.stdout.write(json.dumps(results, indent=1) + "\n")
    else:
        _show(results)
    return 0 if all(result["is_identical"] for result in results) else 1


def _show(results: list[dict[str, Any]]) -> None:
    console = Console()
    for result in results:
        table = Table(title=result["alpha_id"])
        for column in ("process", "from", "decisions", "SHA-256 (first half)", "s"):
            table.add_column(column)
        for number, row in enumerate(result["runs"], start=1):
            table.add_row(
                str(number),
                row["source"],
                f"{row['decisions']:,}",
                row["sha256"][:32],
                f"{row['seconds']:.2f}",
            )
        console.print(table)
        console.print("identical" if result["is_identical"] else "NOT identical")


if __name__ == "__main__":
    sys.exit(main())
