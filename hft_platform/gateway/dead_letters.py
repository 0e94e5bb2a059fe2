"""Intents that were given up before the engine saw them: one line each, and a count.

Why: an intent that nobody decided on must not disappear without a trace.

Invariants:
1. Every dead letter is counted by its code; lines are written until the file has its longest
   size, so a runner in a loop cannot fill the disk.

Operator's page: `docs/gateway.md`.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from hft_platform.config.canonical import canonical_json
from hft_platform.errors import code_name

FILE_BYTES_MAX = 4 << 20
FILE_NAME = "dead_letters.jsonl"


class DeadLetters:
    """The dead letters of a gateway.

    Parameters
    ----------
    folder : Path
        Of the gateway in the workspace.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME
        self.counts: Counter[str] = Counter()
        """By reason code name."""

    def add(self, code: int, *, alpha_id: str, number: int, age_ns: int, record: bytes) -> None:
        """Set an intent aside.

        Parameters
        ----------
        code : int
            Why it was given up.
        alpha_id : str
            Whose it was.
        number : int
            Of the request.
        age_ns : int
            Since the runner sent it.
        record : bytes
            The `Intent` record.
        """
        name = code_name(code)
        self.counts[name] += 1
        line = canonical_json(
            {
                "code": int(code), "reason": name, "alpha_id": alpha_id, "number": number,
                "age_ns": age_ns, "record": record.hex(),
            }
        )  # fmt: skip
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(self.path, flags, 0o600)
        try:
            if os.fstat(descriptor).st_size < FILE_BYTES_MAX:
                os.write(descriptor, line + b"\n")
        finally:
            os.close(descriptor)
