"""A workspace that may trade live: pinned key, permit, secrets in files, a clock of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hft_platform.cli import main
from hft_platform.commands import live as live_command
from hft_platform.config.keys import SigningKey, load_signing_key, make_key
from tests.hft_platform.services.live_workspace import DAYS, Live, open_ns

FAR_NS = 9_000_000_000_000_000_000
SECOND = 1_000_000_000
BEFORE_OPEN_NS = open_ns(DAYS[0]) - 60 * SECOND
VARIABLES = (
    "SHIOAJI_API_KEY_FILE",
    "SHIOAJI_SECRET_KEY_FILE",
    "SHIOAJI_CA_FILE",
    "SHIOAJI_CA_PASSWORD_FILE",
)


class LiveProcess:
    """Runs `hft-live run --mode live` in this process, at a time of the test's choice.

    Parameters
    ----------
    live : Live
        Workspace.
    root : Path
        Folder for keys and secrets, outside the workspace.
    monkeypatch, capsys
        The test's.
    """

    def __init__(
        self,
        live: Live,
        root: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        self.live = live
        self.patch = monkeypatch
        self._capsys = capsys
        self.now_ns = BEFORE_OPEN_NS
        (root / "empty").mkdir()
        monkeypatch.chdir(root / "empty")
        monkeypatch.setenv("HFT_LIVE_ENABLED", "1")
        monkeypatch.setattr(live_command, "wall_clock_ns", lambda: self.now_ns)
        for name in VARIABLES:
            path = root / name.lower()
            path.write_text("secret\n")
            path.chmod(0o600)
            monkeypatch.setenv(name, str(path))
        self.pins = root / "pins"
        self.pins.write_text(f"promotion {make_key(root / 'by_hand.key').public_hex}\n")
        self.pins.chmod(0o644)
        monkeypatch.setenv("HFT_PINNED_KEYS_FILE", str(self.pins))
        self.key: SigningKey = load_signing_key(
            root / "by_hand.key", role="promotion", automatic=False
        )

    def issue(self, **changes: Any) -> Path:
        """Sign and publish a permit that holds for live."""
        return self.live.issue(self.key, **({"stage": "canary", "expires_ns": FAR_NS} | changes))

    def run(self, head: Path, *more: str) -> tuple[int, Any]:
        """Exit code, and what was printed as JSON."""
        code = main(
            [
                *("run", "--workspace", str(self.live.ws), "--mode", "live"),
                *("--config", str(head), "--json", *more),
            ]
        )
        return code, json.loads(self._capsys.readouterr().out.strip().splitlines()[-1])

    def refusal(self, head: Path, *more: str) -> dict[str, Any]:
        """The error of a run that must refuse, and must leave no session."""
        code, content = self.run(head, *more)
        assert code == 3, content
        assert not list((self.live.ws / "sessions").glob("*"))
        return dict(content)

    def checks(self, head: Path, *more: str) -> dict[str, dict[str, Any]]:
        """Rows of `--check`, by check; the exit code agrees with them."""
        code, content = self.run(head, "--check", *more)
        rows = {row["check"]: row for row in content["checks"]}
        passed = all(row["passed"] for row in rows.values())
        assert (code, content["passed"]) == (0 if passed else 3, passed)
        assert not list((self.live.ws / "sessions").glob("*"))
        return rows
