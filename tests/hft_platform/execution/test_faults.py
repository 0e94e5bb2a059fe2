"""Fault profiles as files: what they hold is what the paper exchange is told."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.execution.faults import load_fault_profile

END_NS = 1_775_800_000_000_000_000


def drill_text() -> str:
    """The packaged profile."""
    folder = resources.files("hft_platform") / "defaults" / "faults"
    return (folder / "drill.yaml").read_text()


def test_the_packaged_drill_turns_everything_on_in_the_cores_units() -> None:
    core = load_fault_profile("drill").core(END_NS)
    assert None not in core.values()
    assert core["session_end_ns"] == END_NS
    assert core["timeout"] == {"after_ns": 5_000_000_000, "resolve_ns": 10_000_000_000}
    assert core["late"] == {"rate_ppm": 20_000, "delay_ns": 1_500_000_000}
    assert core["rejects"][0]["reason_code"] == ReasonCode.BROKER_REJECTED
    assert core["price_limit"] == {"reference_price": None, "bps": 1000}


def test_a_file_may_end_the_session_early_name_a_price_and_switch_things_off(
    tmp_path: Path,
) -> None:
    text = drill_text().replace("early_ms: 0", "early_ms: 1500")
    text = text.replace("reference_price: null", "reference_price: 36000.5")
    text = text.replace("late: {rate_ppm: 20000, delay_ms: 1500}", "late: null")
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    core = load_fault_profile(str(path)).core(END_NS)
    assert core["session_end_ns"] == END_NS - 1_500_000_000
    assert core["price_limit"]["reference_price"] == 3_600_050_000_000
    assert core["late"] is None


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        ("rate_ppm: 20000, delay_ms: 500", "rate_ppm: 1000001, delay_ms: 500", "1000001"),
        ("delay_ms: 1500}", "delay_ms: 0}", "late.delay_ms was 0"),
        ("late: {rate_ppm: 20000, delay_ms: 1500}\n", "", "field late is missing"),
        ("seed: 20261128", "seed: 20261128\nmood: bad", "mood is not known"),
        ("BROKER_REJECTED", "BROKER_GRUMPY", "BROKER_GRUMPY"),
        ("timeout: {after_ms: 5000, resolve_ms: 10000}", "timeout: null", "timeout was null"),
        ("rate_ppm: 2000}", "rate_ppm: 999999}", "add up"),
        ("bps: 100}", "bps: 0}", "price_band.bps was 0"),
        ("profile_id: drill", "profile_id: Drill!", "profile_id"),
    ],
)
def test_a_broken_profile_names_file_field_and_value(
    tmp_path: Path, old: str, new: str, names: str
) -> None:
    assert old in drill_text()
    path = tmp_path / "mine.yaml"
    path.write_text(drill_text().replace(old, new))
    with pytest.raises(PlatformError, match=names) as caught:
        load_fault_profile(str(path))
    assert caught.value.code == ReasonCode.SETTINGS_INVALID
    assert "mine.yaml" in str(caught.value)


def test_an_unknown_name_lists_the_packaged_ones() -> None:
    with pytest.raises(PlatformError, match="packaged are drill") as caught:
        load_fault_profile("nothing")
    assert caught.value.code == ReasonCode.SETTINGS_INVALID
