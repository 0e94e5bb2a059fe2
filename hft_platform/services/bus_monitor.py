"""Watch a session from outside: counts of what went over its bus, and how far behind one is.

Why: whoever wants to see a session while it runs reads the bus; the engine does not wait for it.

Invariants:
1. What was lost is counted and shown, never left out silently.
2. It changes nothing.

It keeps no history. Operator's page: `docs/bus.md`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from hft_platform import _core, records

BATCH_RECORDS_MAX = 4_096
_APPROVED, _FILL = 1, 3


@dataclass(slots=True)
class BusMonitor:
    """Counts of one reader of a bus.

    Attributes
    ----------
    reader : BusReader
        Its own.
    by_type : dict of str to int
        Records by type.
    approved, fills, lost : int
        Approved decisions, executions of ours, and records that were gone before they were read.
    refusals : dict of int to int
        Refused decisions by reason code.
    last_input_seq, last_time_ns : int
        The newest record seen.
    """

    reader: _core.BusReader
    by_type: dict[str, int] = field(default_factory=dict)
    approved: int = 0
    fills: int = 0
    lost: int = 0
    refusals: dict[int, int] = field(default_factory=dict)
    last_input_seq: int = 0
    last_time_ns: int = 0

    def poll(self) -> int:
        """Count what is new.

        Returns
        -------
        int
            Records read; those lost are in `lost`.
        """
        count = 0
        while True:
            try:
                tape = self.reader.read(BATCH_RECORDS_MAX)
            except _core.BusOverflowError as overflow:
                self.lost += int(overflow.args[2])
                continue
            if not tape:
                return count
            count += self._take(tape)

    def follow(self, timeout_s: float) -> bool:
        """Wait for something new and count it.

        Parameters
        ----------
        timeout_s : float
            Longest wait.

        Returns
        -------
        bool
            False once everything was read and the session is over.
        """
        waited = self.reader.wait(timeout_s)
        self.poll()
        return waited != "closed"

    def _take(self, tape: bytes) -> int:
        count = 0
        for name, rows in records.split(tape).items():
            if not rows.size:
                continue
            count += int(rows.size)
            self.by_type[name] = self.by_type.get(name, 0) + int(rows.size)
            self.last_input_seq = max(self.last_input_seq, int(rows["input_seq"].max()))
            self.last_time_ns = max(self.last_time_ns, int(rows["sequence_time_ns"].max()))
            if name == "Broker":
                self.fills += int((rows["event_kind"] == _FILL).sum())
            elif name == "Decision":
                is_approved = rows["verdict"] == _APPROVED
                self.approved += int(is_approved.sum())
                codes, counts = np.unique(rows["reason_code"][~is_approved], return_counts=True)
                for code, refused in zip(codes.tolist(), counts.tolist(), strict=True):
                    self.refusals[code] = self.refusals.get(code, 0) + refused
        return count
