"""What can be checked of the compose file without a Docker engine; it has not been run."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from hft_platform import cli as live_cli
from hft_platform.observability.exporter import DEFAULT_PORT

DAGSTER = ("dagster-webserver", "dagster-daemon")
FOR_DAGSTER_AND_STORES = {*DAGSTER, "postgres", "clickhouse"}
SECRET_NAME = re.compile(r"password|secret|token|api_key|credential", re.IGNORECASE)


@pytest.fixture(scope="module")
def compose(repository: Path) -> dict[str, Any]:
    """The parsed file."""
    content = yaml.safe_load((repository / "docker-compose.yml").read_text())
    assert isinstance(content, dict)
    return content


def port_problems(compose: dict[str, Any]) -> list[str]:
    """Published ports that others than this machine could reach."""
    return [
        f"{name}: {port}"
        for name, service in compose["services"].items()
        for port in service.get("ports", [])
        if not str(port).startswith("127.0.0.1:")
    ]


def secret_problems(compose: dict[str, Any]) -> list[str]:
    """Variables named like a secret whose value is not the path of a mounted secret."""
    found = []
    for name, service in compose["services"].items():
        for key, value in (service.get("environment") or {}).items():
            if SECRET_NAME.search(key) and not str(value).startswith("/run/secrets/"):
                found.append(f"{name}: {key}")
    return found


def image_problems(compose: dict[str, Any]) -> list[str]:
    """Images without an exact version."""
    return [
        f"{name}: {service['image']}"
        for name, service in compose["services"].items()
        if not re.search(r":v?\d+\.\d+(\.\d+)*(-[a-z]+)?$", service["image"])
    ]


def test_the_stack_has_dagster_its_database_and_the_store(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) >= FOR_DAGSTER_AND_STORES


def test_every_port_is_published_on_loopback_only(compose: dict[str, Any]) -> None:
    assert port_problems(compose) == []


def test_no_secret_stands_in_the_file(compose: dict[str, Any]) -> None:
    assert secret_problems(compose) == []


def test_every_image_is_pinned_to_a_version(compose: dict[str, Any], repository: Path) -> None:
    assert image_problems(compose) == []
    for line in (repository / "docker" / "Dockerfile").read_text().splitlines():
        if line.startswith("FROM "):
            assert re.search(r":\d+\.\d+\.\d+-slim-bookworm( AS |$)", line), line


def test_the_checks_notice_an_open_port_a_password_and_a_moving_image() -> None:
    bad = {
        "services": {
            "store": {
                "image": "store:latest",
                "ports": ["8123:8123"],
                "environment": {"STORE_PASSWORD": "word"},
            }
        }
    }
    assert port_problems(bad) == ["store: 8123:8123"]
    assert secret_problems(bad) == ["store: STORE_PASSWORD"]
    assert image_problems(bad) == ["store: store:latest"]


def test_secrets_are_files_that_git_ignores(compose: dict[str, Any], repository: Path) -> None:
    ignored = (repository / "docker" / "secrets" / ".gitignore").read_text().splitlines()
    assert ignored[0] == "*"
    for secret in compose["secrets"].values():
        assert Path(secret["file"]).parent == Path("docker/secrets")


@pytest.mark.parametrize("name", DAGSTER)
def test_dagster_runs_as_an_executable_below_an_init_without_telemetry(
    compose: dict[str, Any], name: str
) -> None:
    service = compose["services"][name]
    assert isinstance(service["command"], list)
    assert service["init"] is True
    assert service["environment"]["DAGSTER_DISABLE_TELEMETRY"] == "1"


def test_the_instance_of_the_containers_has_telemetry_off_and_one_run_at_a_time(
    repository: Path,
) -> None:
    instance = yaml.safe_load((repository / "docker" / "dagster.yaml").read_text())
    assert instance["telemetry"] == {"enabled": False}
    assert instance["run_coordinator"]["config"]["max_concurrent_runs"] == 1
    assert instance["storage"]["postgres"]["postgres_db"]["password"] == {
        "env": "DAGSTER_POSTGRES_PASSWORD"
    }


def test_mounted_and_copied_files_exist(compose: dict[str, Any], repository: Path) -> None:
    wanted = [
        volume.split(":")[0]
        for service in compose["services"].values()
        for volume in service.get("volumes", [])
        if volume.startswith("./")
    ]
    for line in (repository / "docker" / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            wanted += line.split()[1:-1]
    assert [name for name in wanted if not (repository / name).exists()] == []


def test_the_image_holds_the_same_dagster_as_the_checkout(repository: Path) -> None:
    pins = (repository / "requirements.txt").read_text()
    minor, patch = re.search(r"^dagster==1\.(\d+)\.(\d+)", pins, re.MULTILINE).groups()  # type: ignore[union-attr]  # pinned
    storage = (repository / "docker" / "requirements.txt").read_text()
    assert f"dagster-postgres==0.{int(minor) + 16}.{patch}" in storage


def test_prometheus_gets_our_rules_and_scrapes_the_exporter_on_its_own_loopback(
    compose: dict[str, Any], repository: Path
) -> None:
    mounted = dict(
        volume.split(":")[:2]
        for volume in compose["services"]["prometheus"]["volumes"]
        if volume.startswith("./")
    )
    config = yaml.safe_load((repository / "docker" / "prometheus" / "prometheus.yml").read_text())
    for rules in config["rule_files"]:
        assert mounted["./config/monitoring/alerts.yaml"] == f"/etc/prometheus/{rules}"
    targets = {
        job["job_name"]: job["static_configs"][0]["targets"] for job in config["scrape_configs"]
    }
    assert targets["hft"] == [f"127.0.0.1:{DEFAULT_PORT}"]
    exporter = compose["services"]["hft-metrics"]
    assert exporter["network_mode"] == "service:prometheus"
    assert "ports" not in exporter
    assert "workspace:/var/lib/hft/workspace:ro" in exporter["volumes"]
    live_cli._parser().parse_args(exporter["command"][1:])


def test_the_configuration_of_prometheus_is_valid(repository: Path, tmp_path: Path) -> None:
    for file in ("docker/prometheus/prometheus.yml", "config/monitoring/alerts.yaml"):
        shutil.copy(repository / file, tmp_path)
    check = ["promtool", "check", "config", str(tmp_path / "prometheus.yml")]
    done = subprocess.run(check, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "alerts.yaml").unlink()
    assert subprocess.run(check, capture_output=True, check=False, timeout=60).returncode != 0
