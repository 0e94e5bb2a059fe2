"""A workspace with an alpha that was really promoted, and what somebody honest does next in it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from hft_platform.config.canonical import canonical_json, sha256_hex
from hft_platform.config.promoted import PromotedContent, read_unverified
from hft_platform.config.promotion_folder import head_config, promotions_root
from hft_platform.config.settings import load_settings
from hft_platform.market.instruments import load_instruments
from hft_platform.services.session_runner import RunRequest, run_session
from research import registry
from research.gates import Verdict, run_gate
from research.gates.context import open_context
from research.gates.verdict import GATES, verdict_folder
from research.promotion.promote import run_canary
from research.promotion.sign import Promotion, SignerContext, SignRequest, sign_request
from research.registry import Alpha, find_alpha
from tests.research.gates.market import workspace

ALPHA_ID = "gen_imbalance_taker"
OTHER_ID = "gen_renamed_taker"
SHADOW_SESSIONS, CANARY_SESSIONS = 5, 2


class Desk:
    """One workspace, its alphas, its config folder, and the honest next steps."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ws, self.alphas, self.config_dir = root / "ws", root / "alphas", root / "config"

    def copy(self, root: Path) -> Desk:
        """The same, for one case to spoil."""
        shutil.copytree(self.root, root)
        return Desk(root)

    def alpha(self, alpha_id: str = ALPHA_ID) -> Alpha:
        """As its folder says now."""
        return find_alpha(alpha_id, self.alphas)

    def gate(self, gate: str, alpha_id: str = ALPHA_ID) -> Verdict:
        """Run a gate."""
        return run_gate(self.ws, self.alpha(alpha_id), gate, config_dir=self.config_dir)

    def sign(self, stage: str = "canary", alpha_id: str = ALPHA_ID, **more: Any) -> Promotion:
        """Have the signer decide, in this process."""
        content = {
            "schema": 1, "alpha_key": self.alpha(alpha_id).key, "stage": stage, "symbol": None,
            "weight_ppm_max": None, "by": "an author", "why": "a test",
        }  # fmt: skip
        settings = load_settings(self.config_dir, environment={})
        context = SignerContext(self.ws, settings, self.alphas, self.config_dir)
        return sign_request(SignRequest.model_validate(content | more), context)

    def canary(self) -> Any:
        """Judge the canary and act on it."""
        return run_canary(self.ws, self.alpha(), by="a sensor", config_dir=self.config_dir)

    def trade(self, index: int, *, path: Path | None = None, alpha_id: str = ALPHA_ID) -> Path:
        """Run the runtime on a frozen session under the config in force."""
        context = open_context(self.ws, self.alpha(), config_dir=self.config_dir)
        config = path if path is not None else head_config(self.ws, alpha_id)
        request = RunRequest(self.ws, config, context.judged.roles.frozen[index], "sim")
        done = run_session(
            request, instruments=load_instruments(), settings=load_settings(self.config_dir)
        )
        return done.session_dir

    def trade_next(self) -> Path:
        """The session after those that were traded."""
        return self.trade(SHADOW_SESSIONS + CANARY_SESSIONS)

    @property
    def promotions(self) -> Path:
        """Folder of the permits."""
        return promotions_root(self.ws)

    def issues(self, alpha_id: str = ALPHA_ID) -> list[Path]:
        """Immutable files of the permits, oldest first."""
        return sorted((self.promotions / alpha_id).glob("[0-9]*.yaml"))

    def content(self, path: Path) -> PromotedContent:
        """What a permit says; nothing is proven."""
        found = read_unverified(path)
        assert found is not None
        return found

    def verdict_file(self, gate: str, alpha_id: str = ALPHA_ID) -> Path:
        """Newest verdict of a gate."""
        folder = verdict_folder(self.ws, self.alpha(alpha_id).key)
        sha256 = (folder / f"{gate}.head").read_text().strip()
        return folder / f"{gate}-{sha256[:12]}.json"

    def forge_verdict(self, gate: str, **changes: Any) -> str:
        """Write a verdict as a gate would, without the gate: hash, name and head fit."""
        path = self.verdict_file(gate)
        raw = canonical_json(json.loads(path.read_bytes()) | changes)
        sha256 = sha256_hex(raw)
        (path.parent / f"{gate}-{sha256[:12]}.json").write_bytes(raw)
        (path.parent / f"{gate}.head").write_text(f"{sha256}\n")
        return sha256

    def summaries(self, stage: str) -> list[Path]:
        """Session summaries of a stage, oldest first."""
        return sorted((self.ws / "sessions").glob(f"*-{ALPHA_ID}-{stage}/summary.json"))


def build(root: Path) -> Desk:
    """An alpha through five gates, in shadow, then in canary; and its twin under another name."""
    desk = Desk(root)
    desk.config_dir.mkdir(parents=True)
    for alpha_id in (ALPHA_ID, OTHER_ID):
        shutil.copytree(registry.bundled_folder() / ALPHA_ID, desk.alphas / alpha_id)
        path = desk.alphas / alpha_id / "manifest.yaml"
        path.write_text(path.read_text().replace(ALPHA_ID, alpha_id))
        for test in (desk.alphas / alpha_id).rglob("*.py"):
            test.write_text(test.read_text().replace(ALPHA_ID, alpha_id))
    workspace(root, "SIM_EDGE", days=60, drift_ticks_per_s=0.9)
    for gate in GATES[:4]:
        assert desk.gate(gate).is_passed
    desk.sign("shadow")
    for index in range(SHADOW_SESSIONS):
        desk.trade(index)
    assert desk.gate("gate_e").is_passed
    desk.sign("canary")
    for index in range(SHADOW_SESSIONS, SHADOW_SESSIONS + CANARY_SESSIONS):
        desk.trade(index)
    for gate in GATES[:2]:
        assert desk.gate(gate, OTHER_ID).is_passed
    desk.sign("shadow", OTHER_ID)
    desk.trade(0, alpha_id=OTHER_ID)
    return desk
