"""StudySettings: everything that decides a study's numbers.

Why: a rate without its seeds, sizes and thresholds cannot be measured again.

Invariants:
1. Equal settings, thresholds and code give equal rows, whatever the number of workers.
2. A row that was made under other settings or thresholds is not taken up again.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib import resources

from hft_platform import _core
from hft_platform.config.canonical import canonical_sha256
from hft_platform.market.latency import load_latency_profile
from research.gates.thresholds import GateThresholds

LATENCY_PROFILE = "shioaji_live_2026_04"
_DECIDES_RUNS = {
    "hft_platform": (
        "config/engine_config.py",
        "defaults/generator.yaml",
        "defaults/instruments/sim.yaml",
        "defaults/instruments/taifex.yaml",
        "execution/position_store.py",
    ),
    "research": (
        "backtest/package_handle.py",
        "backtest/runner.py",
        "data/generator.py",
        "data/ingest.py",
        "gate_study/backtests.py",
        "gate_study/markets.py",
        "gate_study/programs.py",
        "gate_study/recorded.py",
        "gates/backtests.py",
    ),
}
"""What a run depends on besides the core; thresholds and statistics are not among it."""


@dataclass(frozen=True, slots=True)
class StudySettings:
    """Sizes and seeds of a study.

    Attributes
    ----------
    seed : int
        Root of every seed; each alpha has a market and a program of its own.
    session_seconds : int
        Length of a compressed session, about 4.6 records a second.
    in_sample : int
        Sessions on which settings are chosen.
    days : tuple of int
        Numbers of out-of-sample days at which planted alphas are judged; nulls get the last.
    null_count, fair_count, recorded_count : int
        Alphas by row.
    mistakes_count : int
        How many of the nulls are judged again with each mistake switched on.
    searched_count, search_size : int
        Searches, and programs tried in each; a winner is judged after the fewest days.
    planted_count : int
        Alphas of each strength.
    strengths_ticks : tuple of float
        Mean move that is planted, over `horizon_s`.
    eaten_count : int
        Alphas whose edge is real and smaller than its costs.
    eaten_ticks : float
        Mean move that is planted for them.
    horizon_s : float
        Life of the planted state.
    power_trials : int
        Trials that planted alphas are counted against.
    truth_sessions, truth_chunk : int
        Sessions over which the true Sharpe ratio of a planted alpha is taken, in markets of
        `truth_chunk` sessions each.
    recorded_sessions, recorded_in_sample : int
        Pseudo-sessions cut from the recordings, and how many of them are in sample.
    """

    seed: int
    session_seconds: int
    in_sample: int
    days: tuple[int, ...]
    null_count: int
    fair_count: int
    recorded_count: int
    mistakes_count: int
    searched_count: int
    search_size: int
    planted_count: int
    strengths_ticks: tuple[float, ...]
    eaten_count: int
    eaten_ticks: float
    horizon_s: float
    power_trials: int
    truth_sessions: int
    truth_chunk: int
    recorded_sessions: int
    recorded_in_sample: int

    @property
    def days_max(self) -> int:
        """Days at which nulls are judged."""
        return max(self.days)

    @property
    def search_trials(self) -> int:
        """Trials a ledger would hold after one search."""
        return self.search_size * GRID_POINTS

    @property
    def null_trials(self) -> int:
        """Trials a ledger would hold after every null of a row was searched."""
        return max(self.null_count, self.fair_count, self.recorded_count) * GRID_POINTS

    def sha256(self, thresholds: GateThresholds) -> str:
        """Hash over settings, runs, thresholds and judging code: what makes rows comparable."""
        # How many alphas a row gets decides none of them, but for the trials they count against.
        counts = [name for name in asdict(self) if name.endswith("_count")]
        content = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if name not in (*counts, "strengths_ticks", "eaten_ticks")
        }
        return canonical_sha256(
            {
                "settings": content | {"null_trials": self.null_trials},
                "thresholds": [thresholds.sha256_of(gate) for gate in ("gate_c", "gate_d")],
                "runs": self.runs_sha256(),
                "judges": judges_sha256(),
            }
        )

    def truth_sha256(self, thresholds: GateThresholds) -> str:
        """Hash of what the truth depends on: runs and latency cells, not how they are judged."""
        return canonical_sha256([self.runs_sha256(), thresholds.gate_c.latency_cells])

    def runs_sha256(self) -> str:
        """Hash of what decides the backtests, whoever judges them: the name of kept runs."""
        names = ("seed", "session_seconds", "in_sample", "horizon_s", "recorded_sessions")
        return canonical_sha256(
            {
                "settings": {name: getattr(self, name) for name in names},
                "code": _runs_code_sha256(),
                "latency": load_latency_profile(LATENCY_PROFILE)[1],
            }
        )


@cache
def judges_sha256() -> str:
    """Hash of the code that judges: gates and statistics."""
    digest = hashlib.sha256()
    for folder in ("gates", "stats"):
        files = resources.files("research").joinpath(folder).iterdir()
        for file in sorted((f for f in files if f.name.endswith(".py")), key=lambda f: f.name):
            digest.update(f"{folder}/{file.name}\0".encode() + file.read_bytes())
    for name in ("judging.py", "searching.py", "tasks.py", "truth.py"):
        digest.update(resources.files("research").joinpath("gate_study", name).read_bytes())
    return digest.hexdigest()


@cache
def _runs_code_sha256() -> str:
    digest = hashlib.sha256(_core.SOURCE_HASH.encode())
    for package, names in sorted(_DECIDES_RUNS.items()):
        for name in names:
            digest.update(resources.files(package).joinpath(name).read_bytes())
    return digest.hexdigest()


GRID_POINTS = 3
"""Settings of an alpha in the study; each counts as a trial."""

FULL = StudySettings(
    seed=20261128,
    session_seconds=150,
    in_sample=30,
    days=(60, 120, 250),
    null_count=500,
    fair_count=500,
    recorded_count=500,
    mistakes_count=100,
    searched_count=60,
    search_size=200,
    planted_count=100,
    strengths_ticks=(5.5, 6.5, 7.5, 8.0, 8.5, 10.0),
    eaten_count=60,
    eaten_ticks=4.5,
    horizon_s=15.0,
    power_trials=100,
    truth_sessions=5_000,
    truth_chunk=250,
    recorded_sessions=100,
    recorded_in_sample=30,
)
"""The study of `make gate-study`."""

SMALL = replace(
    FULL,
    in_sample=10,
    days=(40,),
    null_count=2,
    fair_count=0,
    recorded_count=0,
    mistakes_count=2,
    searched_count=1,
    search_size=4,
    planted_count=1,
    strengths_ticks=(14.0,),
    eaten_count=1,
    power_trials=10,
    truth_sessions=20,
    truth_chunk=20,
)
"""A few seconds of it, for the tests."""
