"""Drill of the backup: copied while a session writes, restored elsewhere, damaged on purpose.

Why: a backup that was never restored is a hope. This one is taken while both logs are written,
restored, held against what was acknowledged, and refused when one bit of it is changed.

Operator's page: `docs/drills/backup-restore.md`.
"""

from __future__ import annotations

import stat
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from hft_platform import _core, records
from hft_platform.config.keys import signing_key
from hft_platform.drills.drill import Claim, Drill, DrillReport
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.services.backup import BackupReport, backup, restore

BACKUPS = 3
"""Backups under writing, for each unit of size."""
SEGMENT_BYTES = 16 << 10
WAIT_S_MAX = 60.0
FIRST_TIME_NS = 1_775_000_000_000_000_000


class _Session:
    """Writes both logs of a session in a thread until it is told to stop."""

    def __init__(self, workspace: Path) -> None:
        self.folder = workspace / "sessions" / "drill"
        self.folder.mkdir(parents=True)
        self._writers = [
            _core.WalWriter(
                str(self.folder / name),
                index + 1,
                name,
                segment_bytes=SEGMENT_BYTES,
                group_commit_ms=5,
            )
            for index, name in enumerate(("market", "orders"))
        ]
        self._rows = [_rows("Trade", 1), _rows("Command", 1)]
        self._input_seq = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="drill-session")
        self._thread.start()

    def wait_for(self, orders: int) -> None:
        """Return when so many order records are acknowledged."""
        deadline = time.monotonic() + WAIT_S_MAX
        while self._writers[1].durable_seq() < orders:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{orders} order records were not durable in {WAIT_S_MAX} s")
            self._stop.wait(0.002)

    def _append(self) -> None:
        for index, writer in enumerate(self._writers):
            self._input_seq += 1
            self._rows[index]["input_seq"] = self._input_seq
            self._rows[index]["sequence_time_ns"] = FIRST_TIME_NS + self._input_seq
            tape = self._rows[index].tobytes()
            if index == 0:
                writer.append(tape)
            else:
                writer.append_durable(tape)

    def acked(self) -> dict[str, int]:
        """What is acknowledged now."""
        return {
            f"sessions/drill/{name}": writer.durable_seq()
            for name, writer in zip(("market", "orders"), self._writers, strict=True)
        }

    def close(self) -> None:
        """Stop and seal."""
        self._stop.set()
        self._thread.join()
        for writer in self._writers:
            writer.seal()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._append()


def _rows(name: str, count: int) -> Any:  # Any: rows of a dtype
    return records.empty(name, count)


def _fill(workspace: Path) -> None:
    """Files as the parts that own them leave them."""
    for role in ("promotion", "session", "audit"):
        signing_key(workspace, role)
    for name, text in {
        "ledger/ingest.jsonl": '{"segment":1}\n{"segment":2}\n{"torn":',
        "audit/chain.jsonl": '{"seq":1}\n',
        "audit/head.json": '{"seq":1}',
        "promotions/alpha/1-0123456789ab.yaml": "stage: shadow\n",
        "state/halt.json": "{}",
    }.items():
        path = workspace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _refusal(source: Path, workspace: Path) -> int:
    try:
        restore(source, workspace)
    except PlatformError as error:
        return error.code
    return 0


def _hold(folder: Path, found: BackupReport, acked: dict[str, int]) -> tuple[int, int]:
    """Acknowledged records that are missing, and records that are not those of the session."""
    missing = foreign = 0
    for path, seq in acked.items():
        restored = _core.read_log(str(folder / "restored" / path))["tape"]
        whole = _core.read_log(str(folder / "workspace" / path))["tape"]
        missing += max(seq - found.logs[path], 0)
        foreign += not whole.startswith(restored)
    return missing, foreign


def _once(folder: Path, draw: np.random.Generator) -> dict[str, Any]:
    workspace = folder / "workspace"
    session = _Session(workspace)
    _fill(workspace)
    try:
        session.wait_for(int(draw.integers(5, 400)))
        acked = session.acked()
        plain = backup(workspace, folder / "plain")
        backup(workspace, folder / "whole", with_keys=True, with_market=True)
    finally:
        session.close()
    found = restore(folder / "whole", folder / "restored")
    missing, foreign = _hold(folder, found, acked)
    keys = sorted((folder / "restored" / "keys").glob("*.key"))
    modes = {stat.S_IMODE(key.stat().st_mode) for key in keys}
    ledger = (folder / "restored" / "ledger" / "ingest.jsonl").read_text()
    occupied = _refusal(folder / "whole", folder / "restored")
    files = [path for path in sorted((folder / "whole").rglob("*")) if path.is_file()]
    damaged = files[int(draw.integers(0, len(files)))]
    content = bytearray(damaged.read_bytes())
    content[int(draw.integers(0, len(content)))] ^= 1 << int(draw.integers(0, 8))
    damaged.chmod(0o600)
    damaged.write_bytes(content)
    changed = _refusal(folder / "whole", folder / "second")
    (folder / "plain" / "backup.json").unlink()
    return {
        "records": sum(found.logs.values()),
        "files": found.files,
        "missing": missing,
        "foreign": foreign,
        "modes": sorted(oct(mode) for mode in modes),
        "keys": len(keys),
        "ledger_lines": ledger.count("\n"),
        "ends_whole": ledger.endswith("\n"),
        "occupied": occupied,
        "changed": changed,
        "unfinished": _refusal(folder / "plain", folder / "third"),
        "left": (folder / "second").exists() or (folder / "third").exists(),
        "plain_has_keys": (folder / "plain" / "keys").exists(),
        "plain_logs": sorted(plain.logs),
    }


def backup_and_restore(folder: Path, seed: int, size: int) -> DrillReport:
    """Back up a workspace under writing, restore it, and try to restore damaged backups.

    Parameters
    ----------
    folder : Path
        Empty folder.
    seed : int
        Decides when a backup is taken and which bit is flipped.
    size : int
        Repetitions in units.

    Returns
    -------
    DrillReport
    """
    draw = np.random.default_rng(seed)
    rounds = []
    for number in range(BACKUPS * size):
        place = folder / str(number)
        place.mkdir()
        rounds.append(_once(place, draw))

    def every(name: str) -> Any:  # Any: JSON values
        values = [one[name] for one in rounds]
        return values[0] if all(value == values[0] for value in values) else values

    mismatch, occupied = int(ReasonCode.BACKUP_MISMATCH), int(ReasonCode.CONFIG_NOT_FOUND)
    claims = (
        Claim("acknowledged records missing from a restored log", 0, every("missing")),
        Claim("restored logs that are no beginning of the session's", 0, every("foreign")),
        Claim("private keys restored", 3, every("keys")),
        Claim("who may read them", ["0o600"], every("modes")),
        Claim("whole lines of the ledger, and no torn one", 2, every("ledger_lines")),
        Claim("the ledger ends with a whole line", True, every("ends_whole")),
        Claim("a workspace that is not empty is refused", occupied, every("occupied")),
        Claim("a backup with one flipped bit is refused", mismatch, every("changed")),
        Claim("an unfinished backup is refused", mismatch, every("unfinished")),
        Claim("a refused restore leaves a workspace", False, every("left")),
        Claim("keys are in a backup that did not ask for them", False, every("plain_has_keys")),
        Claim("order logs are in it", ["sessions/drill/orders"], every("plain_logs")),
    )
    facts = {
        "backups": 2 * len(rounds),
        "restored_records": sum(one["records"] for one in rounds),
        "restored_files": sum(one["files"] for one in rounds),
    }
    return DrillReport("backup-restore", claims, facts)


DRILLS: tuple[Drill, ...] = (
    Drill(
        "backup-restore",
        "Back up a workspace while a session writes, restore it, refuse damaged copies.",
        backup_and_restore,
    ),
)
