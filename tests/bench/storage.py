"""How large a session is: as log files, as JSON lines, in the store."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from tests.bench.run import REPOSITORY, remove, spread, temporary_folder


def storage(source: str) -> dict[str, Any]:
    """One session written by the runtime, loaded and merged; one run, for sizes do not vary.

    Parameters
    ----------
    source : str
        Folder of recordings, or ``generator``.
    """
    folder = temporary_folder()
    try:
        done = subprocess.run(
            [
                sys.executable, "-m", "research.round_trip",
                "--source", source, "--workspace", str(folder / "ws"), "--json",
            ],
            capture_output=True, text=True, check=True, cwd=REPOSITORY,
        )  # fmt: skip
    finally:
        remove(folder)
    sizes = json.loads(done.stdout)["sizes"]
    wal = sizes["wal_bytes"]
    return {
        "wal.bytes_per_record": spread(
            [sizes["wal_bytes_per_record"]], "bytes", "a day of every record fits on a small disk"
        ),
        "wal.json_bytes_over_wal": spread(
            [sizes["json_bytes"] / wal], "ratio", "fixed records cost less than text"
        ),
        "wal.wal_bytes_over_clickhouse": spread(
            [wal / sizes["store_bytes"]], "ratio", "the log is short-lived, the store compresses"
        ),
    }
