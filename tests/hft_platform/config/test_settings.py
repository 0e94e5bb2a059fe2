"""Settings: three layers, no unknown key, no limit without a value."""

from __future__ import annotations

from pathlib import Path

import pytest

from hft_platform.config.settings import load_settings
from hft_platform.errors import PlatformError, ReasonCode


def test_a_later_layer_wins_key_by_key(tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text(
        "workspace: elsewhere\naccount_limits:\n  order_rate_max: 100\n"
    )
    packaged = load_settings(tmp_path / "none", environment={})
    filed = load_settings(tmp_path, environment={})
    both = load_settings(
        tmp_path,
        environment={"HFT_ACCOUNT_LIMITS__ORDER_RATE_MAX": "90", "HFT_WORKSPACE": "third"},
    )
    assert packaged.account_limits()["order_rate_max"] == 240
    assert (filed.workspace, filed.account_limits()["order_rate_max"]) == ("elsewhere", 100)
    assert filed.account_limits()["cancel_reserve"] == 60
    assert (both.workspace, both.account_limits()["order_rate_max"]) == ("third", 90)
    assert both.workspace_path == Path("third")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("workspaces: x\n", "did you mean workspace"),
        ("account_limits:\n  order_rate: 1\n", "order_rate_max"),
        ("account_limits:\n  order_rate_max: fast\n", "order_rate_max"),
        ("account_limits:\n  order_rate_max: null\n", "order_rate_max"),
        ("store: {market_retention_days: 6}\n", "market_retention_days"),
        ("store: {market_retention_days: 1.5}\n", "market_retention_days"),
        ("store: {cluster: a b}\n", "cluster"),
        ('store: {cluster: "x\'; DROP"}\n', "cluster"),
        ("store: {cluster: 1st}\n", "cluster"),
        ('store: {cluster: ""}\n', "cluster"),
        ("account_limits:\n  order_rate_max: 50\n", "cancel_reserve"),
        ("account_limits:\n  net_notional_max: null\n", "net_notional_max"),
        ("account_limits:\n  free_margin_min: -1\n", "free_margin_min"),
        ("account_limits:\n  exit_collar_bps: 49\n", "exit_collar_bps"),
        ("account_limits: 5\n", "account_limits"),
        ("promotion_validity_days: 0\n", "promotion_validity_days"),
        ("broker: {order_calls_soft: 240}\n", "order_calls_soft"),
        ("broker: {order_calls_hard: 251}\n", "order_calls_hard"),
        ("broker: {account_calls_max: 26}\n", "account_calls_max"),
        ("broker: {call_timeout_ms: 5001}\n", "call_timeout_ms"),
        ("broker: {login_back_off_s: 59}\n", "login_back_off_s"),
        ("broker: {logins_per_day_max: 1001}\n", "logins_per_day_max"),
        ("broker: {accounts: [1234567]}\n", "broker.accounts"),
        ("broker: {accounts: ['1234567']}\n", "broker.accounts"),
        ("broker: {futures_octype: auto}\n", "futures_octype"),
        ("broker: {stock_condition: Credit}\n", "stock_condition"),
        ("broker: {is_simulation: null}\n", "is_simulation"),
        ("loader: {retention_days: 6}\n", "loader.retention_days"),
        ("loader: {archive_after_days: -1}\n", "loader.archive_after_days"),
        ("storm_guard:\n  risk_capital: 0\n", "risk_capital"),
        ("storm_guard:\n  feed_gap_ns: {storm_out: 9000000000}\n", "storm_out is below"),
        ("storm_guard:\n  feed_gap_ns: {storm_in: 1000000}\n", "milder level"),
        ("storm_guard:\n  feed_gap_ns: {halt_in: 60000000000}\n", "both numbers or both null"),
        ("storm_guard:\n  feed_gap_ns: {calm_in: 1}\n", "calm_in"),
        ("- a\n", "keys and values"),
        ("a: [\n", "YAML"),
    ],
)
def test_a_wrong_file_is_refused_with_its_key(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "settings.yaml").write_text(text)
    with pytest.raises(PlatformError) as caught:
        load_settings(tmp_path, environment={})
    assert caught.value.code == ReasonCode.SETTINGS_INVALID
    assert named in caught.value.message


def test_a_mistyped_variable_is_refused_and_a_foreign_one_is_not(tmp_path: Path) -> None:
    load_settings(tmp_path, environment={"HFT_DATA": "/data", "HFT_LIVE_ENABLED": "1", "PATH": ""})
    with pytest.raises(PlatformError) as caught:
        load_settings(tmp_path, environment={"HFT_WORKSPCAE": "x"})
    assert "HFT_WORKSPACE" in caught.value.message


def test_the_storm_guard_of_the_settings_is_one_the_engine_takes() -> None:
    """The two sets of rules are held to each other by every threshold of the packaged file."""
    from hft_platform import _core
    from tests.rust_core import engine_tapes as tapes

    guard = load_settings(Path("none"), environment={}).storm_guard()
    assert set(guard) == set(tapes.CALM)
    _core.Engine(tapes.text(tapes.config("k") | {"storm_guard": guard}))
    wild = load_settings(Path("none"), environment={"HFT_STORM_GUARD__CLEARS": "7"}).storm_guard()
    assert wild == guard | {"clears": 7}


def test_the_recorder_mode_has_two_variables_that_are_one_setting() -> None:
    def mode(**environment: str) -> str:
        return load_settings(Path("none"), environment=environment).recorder.mode

    assert mode() == "wal_first"
    assert mode(HFT_RECORDER_MODE="direct") == "direct"
    assert mode(HFT_RECORDER__MODE="direct") == "direct"
    assert mode(HFT_RECORDER_MODE="direct", HFT_RECORDER__MODE="direct") == "direct"
    for environment in (
        {"HFT_RECORDER_MODE": "direct", "HFT_RECORDER__MODE": "wal_first"},
        {"HFT_RECORDER_MODE": "both"},
        {"HFT_RECORDER_MODES": "direct"},
    ):
        with pytest.raises(PlatformError) as caught:
            mode(**environment)
        assert caught.value.code == ReasonCode.SETTINGS_INVALID


def test_retention_and_cluster_of_the_store_are_set_by_file_and_variable(tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text("store: {market_retention_days: 30}\n")
    packaged = load_settings(tmp_path / "none", environment={}).store
    assert (packaged.cluster, packaged.market_retention_days) == (None, None)
    store = load_settings(tmp_path, environment={"HFT_STORE__CLUSTER": "prod"}).store
    assert (store.cluster, store.market_retention_days) == ("prod", 30)
