"""DSNs, passwords and patience of a store."""

from __future__ import annotations

from pathlib import Path

import pytest

from hft_platform.config.settings import load_settings
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.recorder.store import POLICY, open_store
from hft_platform.recorder.store_target import StorePolicy, parse_dsn, read_password

SECRET = "hunter2"


def test_a_dsn_is_taken_apart_and_shown_without_its_password() -> None:
    server = parse_dsn(f"clickhouse://me:{SECRET}@host:9123/db")
    assert server.shown == "clickhouse://me:***@host:9123/db"
    assert server.connection == {
        "interface": "http", "host": "host", "port": 9123, "username": "me", "password": SECRET,
        "database": "db",
    }  # fmt: skip
    encrypted = parse_dsn("clickhouses://me@host?ca_cert=/etc/ca.pem", password="a b%2F")
    assert (encrypted.connection["interface"], encrypted.connection["port"]) == ("https", 8443)
    assert encrypted.connection["password"] == "a b%2F", "a file's password is not decoded"
    assert encrypted.connection["ca_cert"] == "/etc/ca.pem"
    assert parse_dsn("clickhouse://me:p%40ss@h").connection["password"] == "p@ss"
    assert SECRET not in repr(server)
    embedded = parse_dsn("chdb:///a/b")
    assert (embedded.path, embedded.is_embedded) == (Path("/a/b"), True)


@pytest.mark.parametrize(
    "dsn",
    [
        f"clickhouse://me:{SECRET}@host:port",
        f"clickhouse://me:{SECRET}@host:99999999",
        f"clickhouse://me:{SECRET}@",
        f"mysql://me:{SECRET}@host",
        f"clickhouse://me:{SECRET}@host?send_receive_timeout=9999",
        f"clickhouses://me:{SECRET}@host?verify=false",
        f"clickhouses://me:{SECRET}@host?query_retries=5",
        f"clickhouse://me:{SECRET}@host?ca_cert=x",
        f"clickhouse://me:{SECRET}@[host",
        "chdb://relative",
        "chdb:///a?b=c",
        "host:8123",
    ],
)
def test_a_wrong_dsn_is_refused_and_its_password_is_not_repeated(dsn: str) -> None:
    with pytest.raises(PlatformError) as refused:
        parse_dsn(dsn)
    assert refused.value.code == ReasonCode.SETTINGS_INVALID
    assert SECRET not in refused.value.render()
    assert refused.value.__context__ is None or refused.value.__suppress_context__


def test_a_password_s_file_is_read_when_only_its_owner_can(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(f"{SECRET}\n")
    file.chmod(0o600)
    assert read_password(file) == SECRET
    for mode in (0o640, 0o604, 0o644):
        file.chmod(mode)
        with pytest.raises(PlatformError) as refused:
            read_password(file)
        assert refused.value.code == ReasonCode.KEY_PERMISSIONS
    with pytest.raises(PlatformError) as missing:
        read_password(tmp_path / "none")
    assert missing.value.code == ReasonCode.KEY_MISSING
    with pytest.raises(PlatformError, match="one is enough"):
        parse_dsn("clickhouse://me:x@host", password="y")


def test_the_settings_name_a_server_and_never_hold_its_password(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("store:\n  dsn: clickhouse://me@host:8123\n  attempts_max: 2\n")
    store = load_settings(tmp_path, environment={}).store
    assert (store.dsn, store.attempts_max) == ("clickhouse://me@host:8123", 2)
    whole = f"clickhouse://me:{SECRET}@host:8123"
    in_environment = load_settings(tmp_path, environment={"HFT_STORE__DSN": whole})
    assert in_environment.store.dsn == whole
    assert SECRET not in repr(in_environment)
    for text in (whole, f"clickhouse://host:8123?password={SECRET}"):
        file.write_text(f"store:\n  dsn: {text}\n")
        with pytest.raises(PlatformError) as refused:
            load_settings(tmp_path, environment={})
        assert refused.value.code == ReasonCode.SETTINGS_INVALID
        assert "HFT_STORE__DSN" in refused.value.next_step
        assert SECRET not in refused.value.render()
    file.unlink()
    for value in (f"[{SECRET}", f"{{a: {SECRET}}}", "''"):
        with pytest.raises(PlatformError) as wrong:
            load_settings(tmp_path, environment={"HFT_STORE__DSN": value})
        assert SECRET not in wrong.value.render()
        assert SECRET not in str(wrong.value.__cause__)


def test_a_store_without_settings_is_as_patient_as_the_packaged_settings_say() -> None:
    assert StorePolicy.of(load_settings(Path("none"), environment={}).store) == POLICY


def test_the_password_file_of_the_settings_is_used_for_the_server(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(SECRET)
    file.chmod(0o644)
    settings = load_settings(
        Path("none"),
        environment={
            "HFT_STORE__DSN": "clickhouse://me@127.0.0.1:1", "HFT_STORE__PASSWORD_FILE": str(file),
        },
    ).store  # fmt: skip
    with pytest.raises(PlatformError) as open_to_all, open_store(tmp_path, settings=settings):
        pass
    assert open_to_all.value.code == ReasonCode.KEY_PERMISSIONS
    file.chmod(0o600)
    with (
        pytest.raises(PlatformError) as unreachable,
        open_store(tmp_path, settings=settings, wait_s=0.0),
    ):
        pass
    assert unreachable.value.code == ReasonCode.STORE_UNREACHABLE
    assert "clickhouse://me:***@127.0.0.1:1" in unreachable.value.message


def test_pauses_double_up_to_a_bound_and_depend_on_names_only() -> None:
    policy = StorePolicy(1.0, 1.0, 5, 5, 1.0, backoff_first_s=0.1, backoff_max_s=2.0)
    pauses = [policy.pause_s(attempt, "a token") for attempt in range(1, 200)]
    assert pauses == [policy.pause_s(attempt, "a token") for attempt in range(1, 200)]
    for attempt, pause in enumerate(pauses, start=1):
        whole = min(2.0, 0.1 * 2.0 ** min(attempt - 1, 32))
        assert whole / 2 <= pause <= whole
    assert policy.pause_s(3, "a token") != policy.pause_s(3, "another")
    others = {StorePolicy(1.0, 1.0, 5, 5, 1.0, seed=seed).pause_s(3, "a") for seed in range(50)}
    assert len(others) == 50, "processes do not retry in step"
