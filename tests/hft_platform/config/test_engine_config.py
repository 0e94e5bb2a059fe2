"""Engine configs: from a manifest and from a promoted config, the same engine fields."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hft_platform import _core
from hft_platform.config.engine_config import (
    AlphaSpec,
    build_engine_config,
    engine_config_json,
    engine_config_sha256,
    resolve_template,
)
from hft_platform.config.keys import trusted_keys
from hft_platform.config.promoted import load_verified
from hft_platform.config.promoted_content import PromotedLimits
from hft_platform.config.settings import load_settings
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.market.instruments import load_instruments
from hft_platform.market.sessions import session_of
from hft_platform.records import SCALE

START_NS = 1_770_000_000_000_000_000


def instrument(symbol: str = "SIM_EDGE", instrument_id: int = 9001) -> Any:
    """An instrument of the shape that the market model has."""
    found = SimpleNamespace(
        symbol=symbol, instrument_id=instrument_id, tick_bands=((0, SCALE),), tick_size=SCALE,
        lot_size=SCALE, multiplier=200 * SCALE, order_qty_max=100 * SCALE, banding_bps=None,
        eligibility="full",
        costs=SimpleNamespace(as_dict=lambda: {"kind": "value_bps", "maker_bps": 0.0}),
    )  # fmt: skip
    found.on = lambda _day: found
    return found


def session() -> Any:
    """A session with one open phase."""
    phase = {"start_ns": 1, "end_ns": 2, "phase": "open"}
    return SimpleNamespace(
        session_id="2026-02-02/day", trading_day=20_260_202,
        preopen_phases=(),
        phases=(SimpleNamespace(as_dict=lambda: phase),),
    )  # fmt: skip


def manifest(**changes: Any) -> dict[str, Any]:
    """A manifest's JSON content."""
    return {
        "alpha_id": "sim_edge_taker",
        "expression": "k * imbalance_l1",
        "parameters": {"k": {"default": 2.0, "grid": [2.0]}, "entry": {"default": 2.5}},
        "template": {"kind": "taker", "entry_ticks": "$entry", "exit_ticks": 0,
                     "hold_ns": 10_000_000_000, "slippage_ticks": 1},
        "order_qty_lots": 10,
        "ttl_ms": 500,
        "limits": {"order_qty_lots_max": 10, "position_qty_lots_max": 20,
                   "daily_loss_max": 200_000, "drawdown_max": 200_000,
                   "loss_speed_max": 100_000, "order_rate_max": 60},
        "on_withdrawal": {"action": "flatten", "deadline_ms": 10_000},
    } | changes  # fmt: skip


def build(specs: list[AlphaSpec], instruments: list[Any]) -> dict[str, Any]:
    """Config with packaged account limits."""
    return build_engine_config(
        specs, instruments=instruments, session=session(),
        account_limits=load_settings(Path("none"), environment={}).account_limits(),
        storm_guard=load_settings(Path("none"), environment={}).storm_guard(),
    )  # fmt: skip


def test_settings_and_promoted_limits_are_those_of_the_engine_and_none_has_a_default() -> None:
    spec = AlphaSpec.from_manifest(manifest(), {"k": 2.0, "entry": 2.5}, instrument())
    config = build([spec], [instrument()])
    config["instruments"][0]["costs"] |= {"taker_bps": 0.0}
    _core.Engine(engine_config_json(config))
    assert set(config["alphas"][0]["limits"]) == set(PromotedLimits.model_fields)
    for table in (config["account_limits"], config["alphas"][0]["limits"]):
        for key in list(table):
            value = table.pop(key)
            with pytest.raises(_core.ConfigError) as caught:
                _core.Engine(engine_config_json(config))
            assert key in str(caught.value)
            table[key] = value
        table["another_max"] = 1
        with pytest.raises(_core.ConfigError, match="another_max"):
            _core.Engine(engine_config_json(config))
        del table["another_max"]


def test_the_engine_takes_a_real_session_with_its_windows_before_the_open() -> None:
    txf = load_instruments(Path("none")).by_symbol("TXFD6")
    opened = session_of(txf, 1_775_782_000_000_000_000)
    assert opened is not None
    spec = AlphaSpec.from_manifest(manifest(), {"k": 2.0, "entry": 2.5}, txf)
    config = build_engine_config(
        [spec],
        instruments=[txf],
        session=opened,
        account_limits=load_settings(Path("none"), environment={}).account_limits(),
        storm_guard=load_settings(Path("none"), environment={}).storm_guard(),
    )
    _core.Engine(engine_config_json(config))
    phases = [phase["phase"] for phase in config["session"]["phases"]]
    assert phases == ["pre_open", "no_cancel", "open", "close_only", "force_flat"]
    assert config["instruments"][0]["banding_bps"] == 100


def test_a_manifest_becomes_engine_units() -> None:
    spec = AlphaSpec.from_manifest(manifest(), {"k": 2.0, "entry": 2.5}, instrument())
    config = build([spec], [instrument()])
    (alpha,) = config["alphas"]
    assert alpha["order_qty"] == 10 * SCALE
    assert alpha["limits"]["daily_loss_max"] == 200_000 * SCALE
    assert alpha["limits"]["loss_speed_max"] == 100_000 * SCALE
    assert config["instruments"][0]["order_qty_max"] == 100 * SCALE
    assert alpha["limits"]["position_qty_max"] == 20 * SCALE
    assert alpha["ttl_ns"] == 500_000_000
    assert alpha["on_withdrawal"] == {"action": "flatten", "deadline_ns": 10_000_000_000}
    assert alpha["template"]["entry_ticks"] == 2.5
    assert isinstance(alpha["template"]["slippage_ticks"], int)
    assert alpha["stage"] == "research"
    assert config["instruments"][0]["limit_up"] is None


def test_research_and_the_promoted_config_give_the_engine_the_same_alpha(desk: Any) -> None:
    config = load_verified(
        desk.issue(), trusted_keys=trusted_keys(desk.ws), mode="sim", now_ns=START_NS,
        symbol="SIM_EDGE", seq_floor=0, code_sha256="c" * 64,
    )  # fmt: skip
    promoted = AlphaSpec.from_promoted(config)
    researched = AlphaSpec.from_manifest(
        manifest(parameters={"k": {}}, template=manifest()["template"] | {"entry_ticks": 2.5}),
        {"k": 2.0}, instrument(), weight_ppm=100_000,
    )  # fmt: skip
    permit = {"stage", "expires_ns", "promotion_seq", "config_sha256"}
    one, two = (build([spec], [instrument()])["alphas"][0] for spec in (promoted, researched))
    assert {k for k in one if one[k] != two[k]} <= permit | {"limits"}
    assert one["config_sha256"] == config.content_sha256
    assert one["weight_ppm"] == 100_000


def test_equal_arguments_give_equal_bytes_and_another_number_another_hash() -> None:
    def make(k: float) -> dict[str, Any]:
        spec = AlphaSpec.from_manifest(manifest(), {"k": k, "entry": 2.5}, instrument())
        return build([spec], [instrument()])

    assert engine_config_json(make(2.0)) == engine_config_json(make(2.0))
    assert engine_config_sha256(make(2.0)) != engine_config_sha256(make(3.0))


def test_alphas_keep_their_order_and_instruments_are_listed_once_by_id() -> None:
    other = instrument("OTHER", 7)
    specs = [
        AlphaSpec.from_manifest(manifest(alpha_id=name), {"k": 2.0, "entry": 2.5}, where)
        for name, where in (("b", instrument()), ("a", other), ("c", instrument()))
    ]
    config = build(specs, [instrument(), other])
    assert [a["alpha_id"] for a in config["alphas"]] == ["b", "a", "c"]
    assert [a["alpha_index"] for a in config["alphas"]] == [0, 1, 2]
    assert [i["instrument_id"] for i in config["instruments"]] == [7, 9001]


def test_a_symbol_that_is_not_there_is_an_unknown_instrument() -> None:
    spec = AlphaSpec.from_manifest(manifest(), {"k": 2.0, "entry": 2.5}, instrument("ELSE", 5))
    with pytest.raises(PlatformError) as caught:
        build([spec], [instrument()])
    assert caught.value.code == ReasonCode.UNKNOWN_INSTRUMENT


@pytest.mark.parametrize(
    "parameters",
    [{}, {"k": 2.0}, {"k": 2.0, "entry": float("nan")}, {"k": 1.0, "entry": 1, "z": 1}],
)
def test_parameters_that_are_not_those_declared_are_refused(parameters: dict[str, float]) -> None:
    with pytest.raises(PlatformError) as caught:
        AlphaSpec.from_manifest(manifest(), parameters, instrument())
    assert caught.value.code == ReasonCode.MANIFEST_INVALID


@pytest.mark.parametrize(
    "template",
    [
        {"kind": "market"},
        {"kind": "maker", "half_spread_ticks": 1.0},
        {"kind": "taker", "entry_ticks": "$missing", "exit_ticks": 0.0, "hold_ns": 1,
         "slippage_ticks": 1},
        {"kind": "taker", "entry_ticks": -1.0, "exit_ticks": 0.0, "hold_ns": 1,
         "slippage_ticks": 1},
        {"kind": "taker", "entry_ticks": 1.0, "exit_ticks": 0.0, "hold_ns": 0.5,
         "slippage_ticks": 1},
    ],
)  # fmt: skip
def test_a_template_the_engine_would_not_take_is_refused(template: dict[str, Any]) -> None:
    with pytest.raises(PlatformError) as caught:
        resolve_template("a", template, {})
    assert caught.value.code == ReasonCode.MANIFEST_INVALID
