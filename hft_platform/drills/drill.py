"""Drills: what one is, what it reports, and which there are.

Why: an outage that was never rehearsed is a guess. A drill breaks one thing on purpose, in a folder
of its own, with the real log, loader and store, and says what was found beside what must be found.

Invariants:
1. A drill touches only the folder it is given and processes that it started, and ends by itself.
2. A claim states what was expected and what was found; one claim that did not hold fails it.
3. A seed decides everything that is drawn.

Operator's page: `docs/drills.md`.
"""

from __future__ import annotations

import importlib
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hft_platform.errors import PlatformError, ReasonCode

MODULES: tuple[str, ...] = (
    "wal", "disk", "clock", "store", "loading", "direct", "backup", "gateway", "orders", "gateways",
    "paper_day",
)  # fmt: skip
"""Modules of `hft_platform.drills` that hold drills, in the order in which they are run."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing that a drill shows.

    Attributes
    ----------
    text : str
        What must be so, in the operator's words.
    expected, found : Any
        JSON values; the claim holds when they are equal.
    """

    text: str
    expected: Any
    found: Any

    @property
    def holds(self) -> bool:
        """True when what was found is what must be."""
        return bool(self.expected == self.found)


@dataclass(frozen=True, slots=True)
class DrillReport:
    """What a drill showed.

    Attributes
    ----------
    name : str
        The drill's.
    claims : tuple of Claim
        In the order in which they were looked at.
    facts : dict
        Counts and times beside them: kills, retries, seconds.
    """

    name: str
    claims: tuple[Claim, ...]
    facts: dict[str, Any]

    @property
    def passed(self) -> bool:
        """True when there are claims and all hold."""
        return bool(self.claims) and all(claim.holds for claim in self.claims)

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        claims = [asdict(claim) | {"holds": claim.holds} for claim in self.claims]
        return {"name": self.name, "passed": self.passed, "claims": claims, "facts": self.facts}

    @property
    def held_count(self) -> int:
        """How many claims hold."""
        return sum(claim.holds for claim in self.claims)

    def render(self) -> str:
        """Text for a terminal."""
        lines = [f"{self.name}: {'passed' if self.passed else 'FAILED'}"]
        for claim in self.claims:
            lines.append(f"  {'ok  ' if claim.holds else 'NOT '} {claim.text}: {claim.found}")
            if not claim.holds:
                lines.append(f"       expected {claim.expected}")
        lines += [f"  {name.replace('_', ' ')} {value}" for name, value in self.facts.items()]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Drill:
    """An outage and how it is made.

    Attributes
    ----------
    name : str
        As typed by the operator, words joined by ``-``.
    text : str
        What breaks, in one line.
    run : callable
        Takes an empty folder, a seed, and a size: 1 is what a test runs, `make drill` takes 10.
    """

    name: str
    text: str
    run: Callable[[Path, int, int], DrillReport]


def run_drill(drill: Drill, folder: Path, *, seed: int, size: int) -> DrillReport:
    """Run a drill; one that cannot be run to its end has failed.

    Parameters
    ----------
    drill : Drill
        Which.
    folder : Path
        Where it works: empty or new.
    seed : int
        Decides what is drawn.
    size : int
        Repetitions, in units of the drill.

    Returns
    -------
    DrillReport

    Raises
    ------
    PlatformError
        SETTINGS_INVALID for a folder that cannot be made or holds something, a size below 1, a
        negative seed.
    """
    if size < 1 or seed < 0:
        raise PlatformError(
            ReasonCode.SETTINGS_INVALID,
            f"drill {drill.name}: size was {size}, allowed from 1; seed was {seed}, allowed from 0",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        problem = "is not empty" if any(folder.iterdir()) else ""
    except OSError as error:
        problem = f"cannot be made: {error.strerror}"
    if problem:
        raise PlatformError(
            ReasonCode.SETTINGS_INVALID,
            f"drill {drill.name}: {folder} {problem}; it must be empty or new",
            next_step="leave out --folder, or name another one",
        )
    started = time.monotonic()
    try:
        report = drill.run(folder, seed, size)
    except Exception as error:  # noqa: BLE001  # whatever it is, the drill did not show its claims
        text = f"{type(error).__name__}: {error}"
        claims = (Claim("the drill ran to its end", "", text[:2000]),)
        report = DrillReport(drill.name, claims, {"traceback": traceback.format_exc()[-4000:]})
    seconds = round(time.monotonic() - started, 1)
    return DrillReport(report.name, report.claims, report.facts | {"seconds": seconds})


def drills() -> dict[str, Drill]:
    """Every drill by name, in the order in which they are run."""
    found: dict[str, Drill] = {}
    for module in MODULES:
        for drill in importlib.import_module(f"hft_platform.drills.{module}").DRILLS:
            found[drill.name] = drill
    return found


def find_drill(name: str) -> Drill:
    """The drill of a name.

    Raises
    ------
    PlatformError
        SETTINGS_INVALID when there is none.
    """
    known = drills()
    if name not in known:
        raise PlatformError(
            ReasonCode.SETTINGS_INVALID,
            f"drill was {name!r}; there are: {', '.join(known) or 'none'}",
            next_step="hft-live drill list",
        )
    return known[name]
