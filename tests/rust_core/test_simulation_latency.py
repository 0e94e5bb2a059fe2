"""Latency profiles: what the files say is what the simulation draws."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hft_platform import _core
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.market.latency import at_corner, load_latency_profile, profile_sha256

PLACE, CANCEL, RESPONSE = 1, 2, 3
PACKAGED = ("crypto_colocated", "shioaji_live_2026_04", "shioaji_sim")


@pytest.mark.parametrize("name", PACKAGED)
def test_a_packaged_profile_is_taken_by_the_simulation(name: str) -> None:
    profile, sha256 = load_latency_profile(name)
    assert profile["profile_id"] == name
    assert sha256 == profile_sha256(profile)
    assert _core.sample_latency(json.dumps(profile), 1, PLACE) > 0


def test_the_live_profile_holds_the_measured_quantiles_with_the_cancel_doubled() -> None:
    profile, _ = load_latency_profile("shioaji_live_2026_04")
    corner = json.dumps(at_corner(profile, 0.95))
    assert _core.sample_latency(corner, 5, PLACE) == 394_500_000 + 250_000
    assert _core.sample_latency(corner, 5, CANCEL) == 2 * 58_700_000 + 250_000
    assert _core.sample_latency(corner, 6, RESPONSE) == 92_700_000


def test_draws_depend_on_seed_order_and_kind_alone_and_follow_the_quantiles() -> None:
    profile, _ = load_latency_profile("shioaji_live_2026_04")
    text = json.dumps(profile)
    draws = np.array([_core.sample_latency(text, order, PLACE) for order in range(1, 4001)])
    again = [_core.sample_latency(text, order, PLACE) for order in range(1, 4001)]
    assert draws.tolist() == again
    share = float((draws <= 394_750_000).mean())
    # Four standard errors of a 95 % share over 4,000 draws are 1.4 %.
    assert abs(share - 0.95) < 0.014
    assert draws.min() == 201_800_000 + 250_000, "below the median the delay is flat"
    other = json.dumps(profile | {"seed": 1})
    assert _core.sample_latency(other, 1, PLACE) != 0
    assert [_core.sample_latency(other, order, PLACE) for order in range(1, 101)] != again[:100]


def test_an_own_file_replaces_a_packaged_profile_and_changes_the_hash(tmp_path: Path) -> None:
    packaged = Path(__file__).resolve().parents[2] / "hft_platform" / "defaults" / "latency"
    text = (packaged / "shioaji_sim.yaml").read_text()
    folder = tmp_path / "latency"
    folder.mkdir()
    (folder / "shioaji_sim.yaml").write_text(text.replace("pipeline_us: 250", "pipeline_us: 300"))
    own, own_sha = load_latency_profile("shioaji_sim", tmp_path)
    assert own["pipeline_ns"] == 300_000
    assert own_sha != load_latency_profile("shioaji_sim", tmp_path / "none")[1]


@pytest.mark.parametrize(
    ("broken", "names"),
    [
        (lambda text: text.replace("cancel:", "modify:"), "cancel"),
        (lambda text: text.replace("[0.95, 35.2]", "[0.95, 5.2]"), "grow"),
        (lambda text: text.replace("seed: 20260424", "seed: many"), "seed"),
        (lambda text: text.replace("profile_id: shioaji_sim", "profile_id: other"), "other"),
        (lambda text: text.replace("seed:", "seed: ["), "shioaji_sim"),
    ],
)
def test_a_broken_profile_is_refused_with_file_and_field(tmp_path, broken, names) -> None:
    packaged = Path(__file__).resolve().parents[2] / "hft_platform" / "defaults" / "latency"
    folder = tmp_path / "latency"
    folder.mkdir()
    (folder / "shioaji_sim.yaml").write_text(broken((packaged / "shioaji_sim.yaml").read_text()))
    with pytest.raises(PlatformError, match=names) as caught:
        load_latency_profile("shioaji_sim", tmp_path)
    assert caught.value.code == ReasonCode.SETTINGS_INVALID


def test_an_unknown_profile_names_the_known_ones_and_a_corner_stays_within_0_and_1() -> None:
    with pytest.raises(PlatformError, match="shioaji_live_2026_04"):
        load_latency_profile("nothing")
    with pytest.raises(PlatformError, match="0 to 1"):
        at_corner(load_latency_profile("shioaji_sim")[0], 1.5)
    with pytest.raises(PlatformError) as caught:
        _core.sample_latency(json.dumps({"profile_id": "x"}), 1, PLACE)
    assert caught.value.code == ReasonCode.SETTINGS_INVALID
