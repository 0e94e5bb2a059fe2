"""Latency profiles: what the files say is what the simulation draws."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from hft_platform import _core
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.market.latency import at_corner, load_latency_profile, profile_sha256

PLACE, CANCEL, RESPONSE, ACTIVATION = 1, 2, 3, 4
PACKAGED = (
    "crypto_colocated",
    "shioaji_live_2026_04",
    "shioaji_live_2026_04_parts",
    "shioaji_sim",
)
DRAWS = 20_000
MEASURED_MS = {
    "activation, total": {0.50: 201.8, 0.95: 394.5, 0.99: 694.3},
    "place wall": {0.50: 27.4, 0.95: 92.7, 0.99: 185.4},
    "submitted ack": {0.50: 166.0, 0.95: 341.8, 0.99: 665.1},
    "cancel wall": {0.50: 20.3, 0.95: 58.7, 0.99: 83.8},
}
"""A live probe of 300 orders, TMFE6, April 2026."""


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


def draws_ms(profile: dict, kind: int) -> np.ndarray:
    """Many orders' delays without the local pipeline, in milliseconds."""
    text = json.dumps(profile | {"pipeline_ns": 0})
    return np.array([_core.sample_latency(text, order, kind) for order in range(DRAWS)]) / 1e6


@pytest.mark.parametrize(
    ("name", "kind", "measured", "factor"),
    [
        ("shioaji_live_2026_04", PLACE, "activation, total", 1),
        ("shioaji_live_2026_04", CANCEL, "cancel wall", 2),
        ("shioaji_live_2026_04_parts", ACTIVATION, "submitted ack", 1),
        ("shioaji_live_2026_04_parts", CANCEL, "cancel wall", 2),
    ],
)
def test_the_drawn_distribution_has_the_measured_quantiles(
    name: str, kind: int, measured: str, factor: int
) -> None:
    """Shares below each measured point, and between two of them, within four standard errors."""
    draws = draws_ms(load_latency_profile(name)[0], kind)
    points = list(MEASURED_MS[measured].items())
    between = [
        ((low[0] + high[0]) / 2, (low[1] + high[1]) / 2) for low, high in itertools.pairwise(points)
    ]
    for quantile, delay_ms in points + between:
        # Outside the stated points it is flat, so a point itself can hold many draws.
        below, up_to = (
            float(np.mean(found))
            for found in (draws < factor * delay_ms - 1e-6, draws <= factor * delay_ms + 1e-6)
        )
        error = 4 * (quantile * (1 - quantile) / DRAWS) ** 0.5
        assert below - error < quantile < up_to + error, (quantile, below, up_to)
        assert up_to - below < 0.011 or quantile == points[0][0], "flat at both ends only"
    assert draws.min() == factor * points[0][1], "below the median it is flat: the careful side"


def test_place_and_activation_drawn_apart_are_near_the_measured_total_and_not_faster() -> None:
    """docs/latency.md prints these; the parts were measured, their dependence was not."""
    profile, _ = load_latency_profile("shioaji_live_2026_04_parts")
    total = draws_ms(profile, PLACE)
    wall = draws_ms({k: v for k, v in profile.items() if k != "activation"}, PLACE)
    assert np.allclose(total, wall + draws_ms(profile, ACTIVATION))
    found = {q: float(np.quantile(total, q)) for q in MEASURED_MS["activation, total"]}
    for quantile, measured in MEASURED_MS["activation, total"].items():
        assert 0.97 * measured < found[quantile] < 1.25 * measured, found
    assert abs(np.corrcoef(wall, draws_ms(profile, ACTIVATION))[0, 1]) < 4 / DRAWS**0.5


def test_what_is_assumed_says_so() -> None:
    folder = Path(__file__).resolve().parents[2] / "hft_platform" / "defaults" / "latency"
    for name in PACKAGED:
        file = yaml.safe_load((folder / f"{name}.yaml").read_text())
        for part in ("place", "cancel", "response", "activation"):
            if part in file:
                said = file[part]["source"].split(":")[0]
                assert said == ("measured" if file[part]["is_measured"] else "assumed"), name
        assert not file["response"]["is_measured"]


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
