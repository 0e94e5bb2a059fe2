"""Which sessions an alpha may learn from, is judged on, and has never seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from research.data.catalog import Dataset, SessionRef
    from research.registry.alpha import Alpha
    from research.registry.manifest import DataRoles


@dataclass(frozen=True, slots=True)
class SessionRoles:
    """Sessions by role; every session has exactly one, and roles follow each other in time."""

    in_sample: tuple[SessionRef, ...]
    out_of_sample: tuple[SessionRef, ...]
    frozen: tuple[SessionRef, ...]

    @property
    def judged(self) -> tuple[SessionRef, ...]:
        """In sample and out of sample: everything gate C may touch."""
        return self.in_sample + self.out_of_sample

    @property
    def window(self) -> str:
        """Sessions that gate C chooses by and judges on, for the trial ledger.

        The cut between them is part of it: another split of the same days is another try.
        """
        return f"in sample {_span(self.in_sample)}, out of sample {_span(self.out_of_sample)}"


def _span(sessions: Sequence[SessionRef]) -> str:
    if not sessions:
        return "none"
    return f"{sessions[0].session_id}..{sessions[-1].session_id} ({len(sessions)})"


def assign_roles(sessions: Sequence[SessionRef], roles: DataRoles) -> SessionRoles:
    """Cut sessions in chronological order by the declared shares.

    Parameters
    ----------
    sessions : sequence of SessionRef
        Any order.
    roles : DataRoles
        Shares that sum to 1.

    Returns
    -------
    SessionRoles
        Cuts are rounded down, so a share of few sessions never borrows from a later role.
    """
    ordered = sorted(sessions, key=lambda s: (s.start_ns, s.symbol))
    count = len(ordered)
    first = int(count * roles.in_sample + 1e-9)
    second = int(count * (roles.in_sample + roles.out_of_sample) + 1e-9)
    return SessionRoles(
        tuple(ordered[:first]), tuple(ordered[first:second]), tuple(ordered[second:])
    )


def sessions_of(alpha: Alpha, dataset: Dataset) -> SessionRoles:
    """Roles of a dataset's sessions for an alpha: those of its own instruments only."""
    mine = [s for s in dataset.sessions if s.symbol in alpha.manifest.instruments]
    return assign_roles(mine, alpha.manifest.data_roles)
