"""Two persons: with an approval key pinned, nobody promotes above shadow alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from hft_platform.config.keys import make_key, trusted_keys
from hft_platform.config.promoted import PromotedConfig, read_signed, render_config, signed_message
from hft_platform.config.settings import load_settings
from hft_platform.errors import PlatformError, ReasonCode
from research import cli
from research.commands import common
from research.gates.verdict import GATES
from research.promotion import audit
from research.promotion.approve import approval_path, approve
from research.promotion.sign import SignerContext
from research.promotion.withdrawal import withdraw

FULL = 1_000_000


class Two:
    """A bench with a promotion key and an approval key, both made by hand and pinned."""

    def __init__(self, bench: Any, root: Path) -> None:
        self.bench, self.pins = bench, root / "pins"
        self.key_file = root / "second" / "approval.key"
        first = make_key(root / "first" / "promotion.key")
        second = make_key(self.key_file, role="approval")
        self.pins.write_text(f"promotion {first.public_hex}\napproval {second.public_hex}\n")
        environment = {
            "HFT_PROMOTION_KEY_FILE": str(root / "first" / "promotion.key"),
            "HFT_PINNED_KEYS_FILE": str(self.pins),
        }
        settings = load_settings(bench.config_dir, environment=environment)
        bench.context = SignerContext(bench.ws, settings, bench.alphas, bench.config_dir)

    def approve(self, stage: str = "canary", **changes: Any) -> Any:
        """Approve as the second person."""
        named = {
            "stage": stage, "key_file": self.key_file, "weight_ppm_max": FULL, "by": "second",
            "why": "read the verdicts", "pinned_file": self.pins,
            "config_dir": self.bench.config_dir,
        }  # fmt: skip
        return approve(self.bench.ws, self.bench.alpha, **(named | changes))

    def load(self, path: Path) -> PromotedConfig:
        """As the runtime does."""
        content = read_signed(path, trusted_keys=self.keys).content
        return PromotedConfig.load_verified(
            path,
            workspace=self.bench.ws,
            trusted_keys=self.keys,
            mode="paper",
            now_ns=content.not_before_ns,
            symbol=content.instruments[0].symbol,
            code_sha256=content.code_sha256,
        )

    @property
    def keys(self) -> Any:
        """What this installation trusts."""
        return trusted_keys(self.bench.ws, pinned_file=self.pins)


@pytest.fixture
def two(bench: Any, tmp_path: Path) -> Two:
    bench.write_gates()
    return Two(bench, tmp_path)


def refused(call: Any, *arguments: Any, **named: Any) -> int:
    with pytest.raises(PlatformError) as caught:
        call(*arguments, **named)
    return caught.value.code


def test_with_an_approval_key_pinned_nothing_above_shadow_is_signed_without_it(two: Two) -> None:
    assert two.bench.sign("shadow").is_new
    for stage in ("canary", "live"):
        assert refused(two.bench.sign, stage) == ReasonCode.PROMOTION_NOT_APPROVED
    two.approve("canary")
    done = two.bench.sign("canary")
    assert two.load(done.head).approval.by == "second"
    assert refused(two.bench.sign, "live") == ReasonCode.PROMOTION_NOT_APPROVED
    kinds = [entry.record["kind"] for entry in audit.verify_chain(two.bench.ws)]
    assert kinds[-2:] == ["approved", "issued_canary"]
    assert audit.verify_chain(two.bench.ws)[-1].record["facts"]["approved_by"] == "second"


def test_neither_the_owner_nor_who_asks_approves(two: Two) -> None:
    owner = two.bench.alpha.manifest.owner
    assert refused(two.approve, by=owner) == ReasonCode.PROMOTION_NOT_APPROVED
    two.approve(by="tester")  # who asks for the promotion below
    assert refused(two.bench.sign, "canary") == ReasonCode.PROMOTION_NOT_APPROVED
    assert two.bench.sign("canary", by="another").is_new


def test_an_approval_is_about_the_verdicts_that_were_read(two: Two) -> None:
    two.approve()
    results = {"checks": [], "later": True}
    two.bench.write_gates(GATES, results=results)  # gate E ran again and says more
    assert refused(two.bench.sign, "canary") == ReasonCode.PROMOTION_NOT_APPROVED
    two.approve()
    assert two.bench.sign("canary").is_new


def test_a_withdrawal_ends_an_approval(two: Two) -> None:
    two.approve()
    two.bench.sign("canary")
    withdraw(two.bench.ws, two.bench.alpha.alpha_id, by="anybody", why="a doubt")
    assert refused(two.bench.sign, "canary") == ReasonCode.PROMOTION_NOT_APPROVED
    two.approve()
    assert two.bench.sign("canary").is_new


def test_the_weight_stays_within_what_was_approved(two: Two) -> None:
    two.approve(weight_ppm_max=30_000)
    assert two.bench.sign("canary").weight_ppm == 30_000
    code = refused(two.bench.sign, "canary", weight_ppm_max=60_000)
    assert code == ReasonCode.PROMOTION_NOT_PERMITTED


def test_an_approval_file_that_was_edited_is_none(two: Two) -> None:
    two.approve(weight_ppm_max=30_000)
    path = approval_path(two.bench.ws, two.bench.alpha.key, "canary")
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"30000", b"900000"))
    assert refused(two.bench.sign, "canary") == ReasonCode.PROMOTION_NOT_APPROVED
    path.write_bytes(b"{}")
    assert refused(two.bench.sign, "canary") == ReasonCode.PROMOTION_NOT_APPROVED
    path.write_bytes(raw)
    assert two.bench.sign("canary").is_new


def test_the_runtime_refuses_what_the_promotion_key_signed_alone(two: Two) -> None:
    two.approve(weight_ppm_max=50_000)
    head = two.bench.sign("canary").head
    assert two.load(head).weight_ppm == 50_000
    content = yaml.safe_load(head.read_bytes())
    del content["signature"]
    from hft_platform.config.keys import load_signing_key

    key = load_signing_key(
        two.bench.context.settings.promotion_key_path, role="promotion", automatic=False
    )
    for changes in (
        {"approval": None}, {"weight_ppm": 60_000}, {"stage": "live"},
        {"verdicts": content["verdicts"] | {"gate_c": "0" * 64}},
    ):  # fmt: skip
        forged = {k: v for k, v in (content | changes).items() if v is not None}
        signature = key.sign(signed_message(forged))
        head.write_bytes(render_config(forged, key_id=key.key_id, signature=signature))
        assert refused(two.load, head) == ReasonCode.PROMOTION_NOT_APPROVED


def test_without_an_approval_key_one_person_is_enough(two: Two) -> None:
    lines = two.pins.read_text().splitlines()
    two.pins.write_text(lines[0] + "\n")
    assert two.load(two.bench.sign("canary").head).approval is None
    assert refused(two.approve) == ReasonCode.KEY_ROLE_FORBIDDEN


def test_one_key_is_not_two_persons(two: Two) -> None:
    first, second = two.pins.read_text().splitlines()
    two.pins.write_text(f"{first}\napproval {first.split()[1]}\n")
    assert refused(two.bench.sign, "canary") == ReasonCode.KEY_ROLE_FORBIDDEN
    two.pins.write_text(f"promotion {second.split()[1]}\n{second}\n")
    assert refused(two.bench.sign, "canary") == ReasonCode.KEY_ROLE_FORBIDDEN


def test_it_is_done_from_the_terminal(
    two: Two, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HFT_PINNED_KEYS_FILE", str(two.pins))
    place = ["--workspace", str(two.bench.ws), "--alphas", str(two.bench.alphas),
             "--config-dir", str(two.bench.config_dir)]  # fmt: skip
    arguments = ["approve", two.bench.alpha.alpha_id, "--stage", "canary", "--key",
                 str(two.key_file), "--weight-ppm-max", "20000", "--by", "second",
                 "--why", "read them", *place]  # fmt: skip
    assert cli.main(arguments) == common.DONE
    assert "next, by somebody else" in capsys.readouterr().out
    assert two.bench.sign("canary").weight_ppm == 20_000
