"""Fences: what is asked once more, right before a broker is called, whether this process may.

Why: between a decision and its call a lease can be lost and a halt can be latched. The decision
was right when it was made; the call must be right when it is made.

Invariants:
1. A fence answers or raises; it never waits.
2. Of several refusals the one that forbids most is told: not being the leader forbids everything,
   a halt only what opens. Who asks may let a cancel or an exit pass a halt, never a lost lease.

It sends nothing and holds no lease. Operator's page: `docs/execution.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.services import latch


class Fence(Protocol):
    """Stands before every broker call."""

    def check(self) -> None:
        """Refuse when this process may not send.

        Raises
        ------
        PlatformError
            GATEWAY_NOT_LEADER, GATEWAY_FENCED or KILL_SWITCH_ON.
        """


class LatchFence:
    """Refuses while the workspace is halted.

    Parameters
    ----------
    workspace : Path
        Workspace folder.
    """

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace

    def check(self) -> None:
        """Refuse while halted.

        Raises
        ------
        PlatformError
            KILL_SWITCH_ON with who halted and why.
        """
        content = latch.read(self._workspace)
        if content is not None:
            raise PlatformError(
                ReasonCode.KILL_SWITCH_ON,
                f"trading is halted by {content['who']}: {content['why']}",
                next_step="hft-live resume",
            )


class Fences:
    """Several fences as one; none at all refuses nothing.

    Parameters
    ----------
    fences : sequence of Fence
        All are asked.
    """

    def __init__(self, fences: Sequence[Fence]) -> None:
        self._fences = tuple(fences)

    def check(self) -> None:
        """Ask every fence, and tell the refusal that forbids most.

        Raises
        ------
        PlatformError
            As the fences do.
        """
        halt: PlatformError | None = None
        for fence in self._fences:
            try:
                fence.check()
            except PlatformError as error:
                if error.code != ReasonCode.KILL_SWITCH_ON:
                    raise
                halt = error
        if halt is not None:
            raise halt
