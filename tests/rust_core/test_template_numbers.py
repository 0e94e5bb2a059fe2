"""What a template may say: engine, promoted config and manifest refuse the same numbers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from hft_platform import _core
from hft_platform.config.engine_config import resolve_template, spec_content
from hft_platform.config.promoted_content import PromotedContent
from hft_platform.errors import PlatformError, ReasonCode
from research.registry import manifest
from tests.hft_platform.config.conftest import content_of
from tests.rust_core import engine_tapes
from tests.rust_core.test_strategy_templates import TEMPLATES

MANIFEST = TypeAdapter(manifest.Template)
CASES = [(kind, key) for kind, keys in TEMPLATES.items() for key in keys]
WORDS = ("sigma_source", "horizon")
OUT_OF_RANGE: dict[str, list[float]] = {
    "cost_margin_ticks": [-0.1],
    "entry_ticks": [-1.0],
    "hold_ns": [0, -1],
    "slippage_ticks": [-1],
    "half_spread_ticks": [-0.1],
    "requote_gain_ticks": [-0.1],
    "queue_lots": [0.0, -1.0],
    "edge_ticks_min": [-0.1],
    "gamma": [0.0, 1e-7, 1e4],
    "k": [0.0, 1e-5, 1e5],
    "fills_per_s": [0.0, 1e-7, 1e7],
    "sigma_ticks": [-1.0, 1e7],
    "horizon_ns": [0, -1, 86_400_000_000_001],
    "ticks_per_clip": [0.0, -1.0],
    "dead_band_ticks": [-0.1],
    "clips_max": [0.5, 1e7],
    "trade_clips_min": [-0.1, 1e7],
    "patience_ns": [-1, 86_400_000_000_001],
}
# The two old kinds leave these to the engine.
ONLY_ENGINE = {("maker", "inventory_skew_ticks"), ("maker", "requote_ticks")}


def template(kind: str, **changes: Any) -> dict[str, Any]:
    return {"kind": kind} | TEMPLATES[kind] | changes


def engine_says(content: dict[str, Any]) -> str | None:
    try:
        _core.Engine(engine_tapes.text(engine_tapes.config("k", content)))
    except _core.ConfigError as error:
        assert error.args[0] == ReasonCode.CONFIG_MALFORMED
        return str(error.args[1])
    return None


def platform_says(content: dict[str, Any]) -> str | None:
    try:
        resolve_template("a", content, {})
    except PlatformError as error:
        assert error.code == ReasonCode.MANIFEST_INVALID
        return str(error)
    return None


@pytest.mark.parametrize("kind", TEMPLATES)
def test_every_template_is_taken_as_the_tests_spell_it(kind: str) -> None:
    content = template(kind)
    assert engine_says(content) is None
    assert platform_says(content) is None
    MANIFEST.validate_python(content)
    assert resolve_template("a", content, {}) == content


@pytest.mark.parametrize(("kind", "key"), CASES)
def test_no_number_of_a_template_has_a_default(kind: str, key: str) -> None:
    content = template(kind)
    del content[key]
    for said in (engine_says(content), platform_says(content)):
        assert said is not None
        assert key in said
    with pytest.raises(ValidationError, match=key):
        MANIFEST.validate_python(content)


@pytest.mark.parametrize("kind", TEMPLATES)
def test_a_number_that_a_template_does_not_know_is_refused(kind: str) -> None:
    content = template(kind, gama=1.0)
    for said in (engine_says(content), platform_says(content)):
        assert said is not None
        assert "gama" in said


@pytest.mark.parametrize(("kind", "key"), CASES)
def test_a_number_out_of_range_is_refused_by_its_name(kind: str, key: str) -> None:
    for value in OUT_OF_RANGE.get(key, []):
        content = template(kind, **{key: value})
        said = engine_says(content)
        assert said is not None, value
        assert f"template.{key}" in said
        assert "allowed is" in said
        if (kind, key) not in ONLY_ENGINE:
            said = platform_says(content)
            assert said is not None, value
            assert key in said


@pytest.mark.parametrize(
    "kind", ["queue_maker", "avellaneda_stoikov_maker", "glft_maker", "target"]
)
def test_a_requote_distance_is_above_zero(kind: str) -> None:
    content = template(kind, requote_ticks=0.0)
    assert "requote_ticks" in str(engine_says(content))
    assert "requote_ticks" in str(platform_says(content))


@pytest.mark.parametrize("kind", ["avellaneda_stoikov_maker", "glft_maker"])
def test_only_a_measured_volatility_may_have_no_floor(kind: str) -> None:
    assert engine_says(template(kind, sigma_ticks=0.0)) is None
    assert platform_says(template(kind, sigma_ticks=0.0)) is None
    stated = template(kind, sigma_ticks=0.0, sigma_source="stated")
    assert "sigma_ticks" in str(engine_says(stated))
    assert "sigma_ticks" in str(platform_says(stated))


@pytest.mark.parametrize("word", WORDS)
def test_a_word_that_is_none_of_the_allowed_is_refused(word: str) -> None:
    content = template("avellaneda_stoikov_maker", **{word: "sometimes"})
    for said in (engine_says(content), platform_says(content)):
        assert said is not None
        assert "sometimes" in said


def test_a_word_where_a_number_belongs_is_refused() -> None:
    said = platform_says(template("target", clips_max="many"))
    assert said is not None
    assert "clips_max" in said


def test_parameters_reach_every_number_and_whole_numbers_stay_whole() -> None:
    names = {"patience_ns": 2e9, "clips_max": 2.0, "slippage_ticks": 1.0}
    content = template("target", **{name: f"${name}" for name in names})
    MANIFEST.validate_python(content)
    resolved = resolve_template("a", content, names)
    assert json.dumps(resolved["patience_ns"]) == "2000000000"
    assert json.dumps(resolved["slippage_ticks"]) == "1"
    assert resolved["clips_max"] == 2.0
    assert engine_says(resolved) is None


@pytest.mark.parametrize("kind", TEMPLATES)
def test_a_signed_template_reaches_the_engine_unchanged(kind: str) -> None:
    promoted = PromotedContent.model_validate(content_of(template=template(kind)))
    resolved = spec_content(promoted)["template"]
    assert resolved == template(kind)
    assert engine_says(resolved) is None
