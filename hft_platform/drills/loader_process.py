"""A loader in a process of its own, for drills: it loads until all is loaded or it is killed.

Why: what a loader survives is only shown by killing real ones.

Invariants:
1. It is the loader of ``hft-live wal load``, with nothing around it but another try after a failed
   one.
2. It ends by itself when everything is loaded, or after `LIFE_SECONDS`.

It breaks nothing. Operator's page: `docs/drills/two-loaders.md`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from hft_platform.errors import PlatformError

LIFE_SECONDS = 300.0
_AGAIN_SECONDS = 0.05


class LoaderProcess:
    """A loader that was started, and is ended by its own id.

    Parameters
    ----------
    ws : Path
        Workspace.
    dsn : str
        The store's server.
    prelude : str, optional
        Python that runs first in the process: a test's way to break the loader.
    """

    def __init__(self, ws: Path, dsn: str, *, prelude: str = "") -> None:
        self.complaint = ""
        """What it said when it did not end well."""
        script = f"{prelude}\nimport sys\nfrom {__name__} import main\nsys.exit(main(sys.argv[1:]))"
        self._process = subprocess.Popen(
            [sys.executable, "-c", script, "--workspace", str(ws), "--dsn", dsn],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    @property
    def is_running(self) -> bool:
        """True while the process lives."""
        return self._process.poll() is None

    def kill(self) -> bool:
        """End it with SIGKILL; True when it was alive."""
        was_running = self.is_running
        self._process.kill()
        self._process.communicate()
        return was_running

    def wait(self, seconds: float) -> dict[str, int]:
        """Wait until it ended by itself and return what it counted.

        Parameters
        ----------
        seconds : float
            Longest wait.

        Returns
        -------
        dict of str to int
            ``rows``, ``found``, ``failures``; empty when it did not end well.
        """
        try:
            said, complaint = self._process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            self.complaint = f"did not end within {seconds:.0f} s"
            return {}
        if self._process.returncode != 0:
            self.complaint = complaint.decode(errors="replace")[-2000:]
            return {}
        counts: dict[str, int] = json.loads(said.splitlines()[-1])
        return counts


def main(argv: Sequence[str] | None = None) -> int:
    """Load until everything is loaded.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; by default those of the process.

    Returns
    -------
    int
        0 when every sealed segment is loaded, 1 when something was refused or time ran out.
    """
    parser = argparse.ArgumentParser(prog="python -m hft_platform.drills.loader_process")
    parser.add_argument("--workspace", type=Path, required=True, help="folder with sessions")
    parser.add_argument("--dsn", required=True, help="the store's server")
    arguments = parser.parse_args(argv)
    counts = {"rows": 0, "found": 0, "failures": 0, "left": 0}
    deadline = time.monotonic() + LIFE_SECONDS
    status = 1
    while time.monotonic() < deadline:
        try:
            is_done = _load_once(arguments.workspace, arguments.dsn, counts)
        except PlatformError as error:
            counts["failures"] += 1
            sys.stderr.write(error.render() + "\n")
            is_done = False
        if is_done is not False:
            status = is_done or 0
            break
        time.sleep(_AGAIN_SECONDS)
    sys.stdout.write(json.dumps(counts) + "\n")
    return status


def _load_once(ws: Path, dsn: str, counts: dict[str, int]) -> int | bool:
    """Exit status when there is nothing left to do, False when there is."""
    from hft_platform.recorder.loader import load_sealed
    from hft_platform.recorder.store import open_store

    with open_store(ws, dsn=dsn) as store:
        while True:
            report = load_sealed(ws, store, wait_s=0)
            counts["rows"] += report.rows_inserted
            counts["found"] += report.parts_found
            if report.refused:
                sys.stderr.write("\n".join(report.problems) + "\n")
                return 1
            if not report.left_to_others:
                return 0
            counts["left"] += len(report.left_to_others)
            time.sleep(_AGAIN_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
