"""A workspace as the gates and the runtime leave it: dataset, verdicts, signed sessions."""

from __future__ import annotations

import dataclasses
import functools
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from hft_platform import records
from hft_platform.config.canonical import (
    atomic_write,
    canonical_json,
    canonical_sha256,
    sha256_hex,
)
from hft_platform.config.code_hash import code_sha256
from hft_platform.config.keys import signing_key
from hft_platform.config.promoted import read_unverified, render_config, signed_message
from hft_platform.config.promotion_folder import head_config, issued_path, promotions_root
from hft_platform.config.settings import load_settings
from hft_platform.feed.recording import FILES, Records, records_table, tape_of
from hft_platform.market.latency import load_latency_profile
from hft_platform.services.session_summary import sign_summary, write_summary
from research.data.datasets import content_sha256
from research.gates.thresholds import load_thresholds
from research.gates.verdict import (
    GATES,
    GateVerdict,
    Verdict,
    read_verdict,
    reason,
    write_verdict,
)
from research.promotion.sign import Promotion, SignerContext, SignRequest, sign_request
from research.registry import Alpha, bundled_folder, load_alpha

ALPHA_ID = "gen_imbalance_taker"
JUDGED, FROZEN = 10, 24
START_NS = 1_770_000_000_000_000_000
DAY_NS = 86_400_000_000_000
LONG_NS = 600_000_000_000
SCALE = 100_000_000
UNIT = 5_000 * SCALE


@functools.cache
def _tape(index: int) -> tuple[Records, Records, str]:
    """Books, trades and tape hash of a judged session: two records at a price of its own."""
    made = []
    for name in ("Book", "Trade"):
        rows = records.empty(name, 1)
        rows["instrument_id"] = 1
        rows["source_seq"] = rows["receive_time_ns"] = len(made) + 1
        rows["bid_price" if name == "Book" else "price"] = (100 + index) * SCALE
        made.append(rows)
    return made[0], made[1], records.tape_sha256(tape_of(*made))


class Bench:
    """One alpha with everything that a promotion rests on, made by hand."""

    def __init__(self, root: Path) -> None:
        self.ws = root / "ws"
        self.alphas = root / "alphas"
        self.config_dir = root / "config"
        self.capacity_ppm = 1_000_000
        self.config_dir.mkdir()
        shutil.copytree(bundled_folder() / ALPHA_ID, self.alphas / ALPHA_ID)
        self.context = SignerContext(
            workspace=self.ws,
            settings=load_settings(self.config_dir, environment={}),
            alphas_folder=self.alphas,
            config_dir=self.config_dir,
        )
        self.write_dataset()

    @property
    def alpha(self) -> Alpha:
        """The alpha as its folder says now."""
        return load_alpha(self.alphas / ALPHA_ID)

    def tape(self, index: int) -> str:
        """Hash of the tape of a session; those that the gates judged have one on disk."""
        return _tape(index)[2] if index < JUDGED else sha256_hex(f"tape {index}".encode())

    def start_ns(self, index: int) -> int:
        """Start of a session."""
        return START_NS + index * DAY_NS

    def write_dataset(self) -> None:
        """A dataset of sessions, the last ones never judged."""
        rows = [
            {
                "symbol": self.alpha.manifest.instruments[0],
                "session_id": f"{2026_0000 + index:08d}/day",
                "trading_day": 20_260_101 + index,
                "start_ns": self.start_ns(index),
                "end_ns": self.start_ns(index) + LONG_NS,
                "path": f"sessions/{index}",
                "tape_sha256": self.tape(index),
                "record_count": 5,
            }
            for index in range(JUDGED + FROZEN)
        ]
        content: dict[str, Any] = {
            "schema": 1, "ingestion_version": 1, "record_schema": "0" * 64,
            "receive_times": {"sha256": "1" * 64}, "inputs": [], "sessions": rows,
        }  # fmt: skip
        self.dataset = content["sha256"] = content_sha256(content)
        folder = self.ws / "datasets" / f"sim-{self.dataset[:12]}"
        for index in range(JUDGED):
            books, trades, _ = _tape(index)
            (folder / "sessions" / str(index)).mkdir(parents=True)
            for name, table in (("Book", books), ("Trade", trades)):
                path = folder / "sessions" / str(index) / FILES[name]
                pq.write_table(records_table(table, name), path)
        atomic_write(folder / "dataset.json", canonical_json(content))

    def write_gates(self, gates: tuple[str, ...] = GATES, **changes: Any) -> dict[str, Verdict]:
        """Verdicts that passed, chained; `changes` go into the last one."""
        alpha, hashes = self.alpha, load_thresholds(self.config_dir).hashes()
        _, latency = load_latency_profile(alpha.manifest.latency_profile, self.config_dir)
        upstream: dict[str, str] = {}
        made: dict[str, Verdict] = {}
        for gate in gates:
            results: dict[str, Any] = {"checks": []}
            if gate == "gate_c":
                results |= {
                    "chosen_parameters": alpha.manifest.grid()[-1],
                    "promise": {
                        "mean_net": float(UNIT), "std_net": float(UNIT), "session_count": 30,
                        "weight_ppm": alpha.manifest.gate_weight_ppm, "slippage_ticks": 0.5,
                        "execution": {
                            name: {"mean": mean, "std": 0.3, "session_count": 30,
                                   "size_mean": 50.0}
                            for name, mean in (("slippage_ticks", 0.5), ("fill_ratio", 0.5),
                                               ("markout_ticks_10s", 1.0))
                        },
                    },
                }  # fmt: skip
            if gate == "gate_d":
                results["capacity"] = {"weight_ppm_max": self.capacity_ppm}
            fields: dict[str, Any] = {
                "gate": gate, "alpha_id": alpha.alpha_id, "alpha_hash": alpha.alpha_hash,
                "verdict": GateVerdict.PASSED, "reasons": (), "thresholds_sha256": hashes[gate],
                "code_sha256": code_sha256(),
                "inputs": {
                    "dataset": self.dataset, "sessions": [self.tape(i) for i in range(JUDGED)],
                    "upstream": dict(upstream), "latency_profile": latency,
                },
                "results": results,
            }  # fmt: skip
            if gate == gates[-1]:
                fields |= changes
            verdict = Verdict(**fields)
            write_verdict(self.ws, alpha, verdict)
            upstream[gate] = verdict.sha256
            made[gate] = verdict
        return made

    def write_verdict(self, verdict: Verdict, **changes: Any) -> Verdict:
        """A verdict with changes, on record and in place."""
        made = dataclasses.replace(verdict, **changes)
        write_verdict(self.ws, self.alpha, made)
        return made

    def rewrite(self, gate: str, **changes: Any) -> None:
        """A gate ran again with other inputs or results, and those after it on its verdict."""
        upstream: dict[str, str] = {}
        for name in GATES:
            verdict = read_verdict(self.ws, self.alpha.key, name)
            assert verdict is not None
            inputs = verdict.inputs | {"upstream": dict(upstream)}
            more = {"inputs": inputs}
            if name == gate:
                more = {
                    "inputs": inputs | changes.get("inputs", {}),
                    "results": verdict.results | changes.get("results", {}),
                }
            upstream[name] = self.write_verdict(verdict, **more).sha256

    def fail(self, gate: str, code: int = 701) -> None:
        """Make a gate's verdict a failure."""
        self.write_gates(
            GATES[: GATES.index(gate) + 1],
            verdict=GateVerdict.FAILED,
            reasons=(reason(code, "too small", observed=1.0, limit=3.0),),
        )

    def request(self, stage: str = "shadow", **changes: Any) -> SignRequest:
        """A request as `promote` writes it."""
        content = {
            "schema": 1, "alpha_key": self.alpha.key, "stage": stage, "symbol": None,
            "weight_ppm_max": None, "by": "tester", "why": "test",
        }  # fmt: skip
        return SignRequest.model_validate(content | changes)

    def sign(self, stage: str = "shadow", **changes: Any) -> Promotion:
        """Sign in this process."""
        return sign_request(self.request(stage, **changes), self.context)

    def run_session(self, index: int, *, share: float = 1.0, **changes: Any) -> Path:
        """A signed summary of one frozen session under the config in force."""
        content = read_unverified(head_config(self.ws, ALPHA_ID))
        assert content is not None
        net = round(UNIT * share * content.weight_ppm / self.alpha.manifest.gate_weight_ppm)
        session_id = f"{2026_0000 + index:08d}/day"
        symbol = content.instruments[0].symbol
        run_id = f"{session_id.replace('/', '_')}-{symbol}-{ALPHA_ID}-{content.stage}"
        path = self.ws / "sessions" / run_id / "summary.json"
        raw = {k: v for k, v in content.model_dump(by_alias=True).items() if k != "signature"}
        evidence = {
            "schema": 1, "run_id": run_id, "alpha_id": ALPHA_ID, "alpha_hash": content.alpha_hash,
            "config_sha256": canonical_sha256(raw), "promotion_seq": content.promotion_seq,
            "stage": content.stage, "weight_ppm": content.weight_ppm, "mode": "paper",
            "symbol": symbol, "session_id": session_id, "trading_day": 20_260_101 + index,
            "tape_sha256": self.tape(index), "latency_profile_sha256": "1" * 64,
            "queue_model": content.queue_model, "code_sha256": content.code_sha256,
            "counts": {"records": 5, "decisions": 10, "approved": 100, "refused_by_code": {},
                       "orders": 100, "broker_rejects": 0, "unknown": 0, "filled_orders": 50},
            "decisions_sha256": "2" * 64, "inputs_sha256": "3" * 64,
            "parity": {"identical": 10, "total": 10},
            "account": {"gross": net, "fees": 0, "net": net, "fill_count": 50,
                        "round_trip_count": 25, "max_drawdown": 0},
            "slippage_ticks": 0.5, "markout_ticks": {"10s": 1.0}, "order_latency_ms": {},
            "halted_by": 0,
        } | changes  # fmt: skip
        write_summary(path, sign_summary(evidence, {}, signing_key(self.ws, "session")))
        return path

    def join_pool(self, alpha_id: str = "gen_other") -> str:
        """Another alpha's canary in force, signed by hand; its key."""
        content = yaml.safe_load(self.sign("shadow").path.read_bytes())
        del content["signature"]
        content |= {
            "alpha_id": alpha_id, "stage": "canary", "promotion_seq": 1,
            "verdicts": dict.fromkeys(GATES, "4" * 64),
        }  # fmt: skip
        key = signing_key(self.ws, "promotion")
        raw = render_config(content, key_id=key.key_id, signature=key.sign(signed_message(content)))
        path = issued_path(promotions_root(self.ws), alpha_id, 1, canonical_sha256(content))
        atomic_write(path, raw)
        return f"{alpha_id}@{content['alpha_hash'][:12]}"

    def graduate(self) -> dict[str, Verdict]:
        """A canary at its last stage with its quota: the book has room for the first one only."""
        self.capacity_ppm = 100_000
        made = self.write_gates()
        self.sign("canary")
        for index in range(JUDGED, JUDGED + 3):
            self.run_session(index)
        return made


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A fresh workspace without verdicts."""
    return Bench(tmp_path)
