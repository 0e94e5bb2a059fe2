"""Alert rules: each rings for what it says and is quiet at its bound, by Prometheus's own tool."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from hft_platform.observability.metric_table import METRICS

PROMTOOL = shutil.which("promtool")
UP = {'up{job="hft"}': "1x200"}
Series = dict[str, str]


@dataclass(frozen=True)
class Case:
    """Series that ring an alert at a time, and series that do not; 15 s apart."""

    rings: Series
    at: str
    quiet: Series


LOG = '{run_id="r", log_kind="orders"}'
GIB = 1 << 30
CASES = {
    "HftExporterDown": Case({'up{job="hft"}': "1 0x20"}, "2m", {'up{job="hft"}': "1x20"}),
    "HftMetricsUnreadable": Case(
        {'hft_metrics_source_ok{source="ledger"}': "0x20"}, "1m",
        {'hft_metrics_source_ok{source="ledger"}': "1x20"},
    ),
    "HftTradingHalted": Case({"hft_halt_latched": "1x4"}, "15s", {"hft_halt_latched": "0x4"}),
    "HftLogFailed": Case({f"hft_log_failed{LOG}": "1x4"}, "15s", {f"hft_log_failed{LOG}": "0x4"}),
    "HftDurableLagHigh": Case(
        {f"hft_durable_lag_seconds{LOG}": "1.01x9"}, "15s", {f"hft_durable_lag_seconds{LOG}": "1x9"}
    ),
    "HftDurableLagLarge": Case(
        {f"hft_durable_lag_records{LOG}": "1000001x9"}, "15s",
        {f"hft_durable_lag_records{LOG}": "1000000x9"},
    ),
    "HftLiveSilent": Case(
        {'hft_live_status_age_seconds{run_id="r"}': "10.1x9"}, "15s",
        {'hft_live_status_age_seconds{run_id="r"}': "10x9"},
    ),
    "HftLiveDisconnected": Case(
        {'hft_live_connected{run_id="r"}': "0x9"}, "30s", {'hft_live_connected{run_id="r"}': "1x9"}
    ),
    "HftLiveHalted": Case(
        {'hft_live_halt_reason_code{run_id="r"}': "605x4"}, "15s",
        {'hft_live_halt_reason_code{run_id="r"}': "0x4"},
    ),
    "HftReconciliationFinding": Case(
        {'hft_reconciliation_findings{run_id="r", reason="POSITION_DRIFT"}': "1x9"}, "1m",
        {'hft_reconciliation_findings{run_id="r", reason="POSITION_DRIFT"}': "0x9"},
    ),
    "HftReconciliationStale": Case(
        {'hft_reconciliation_age_seconds{run_id="r"}': "61x9"}, "15s",
        {'hft_reconciliation_age_seconds{run_id="r"}': "60x9"},
    ),
    "HftRecordsShed": Case(
        {"hft_shed_records": "5x10 6x60"}, "5m", {"hft_shed_records": "5000x70"}
    ),
    "HftGatewayWithoutLeader": Case(
        {"hft_gateway_heartbeat_age_seconds": "5.1x4"}, "15s",
        {"hft_gateway_heartbeat_age_seconds": "5x4"},
    ),
    "HftGatewayDeadLetter": Case(
        {'hft_gateway_dead_letters_total{code="INTENT_EXPIRED"}': "5x10 6x60"}, "5m",
        {'hft_gateway_dead_letters_total{code="INTENT_EXPIRED"}': "5000x70"},
    ),
    "HftDiskPressureWarn": Case(
        {"hft_disk_pressure_level": "1x9"}, "1m", {"hft_disk_pressure_level": "0x9"}
    ),
    "HftDiskPressureCritical": Case(
        {"hft_disk_pressure_level": "2x9"}, "15s", {"hft_disk_pressure_level": "1x9"}
    ),
    "HftDiskFillsSoon": Case(
        # 1 GiB less every 15 s of 900 GiB: 660 GiB are left behind an hour, for 165 minutes.
        {"hft_disk_free_bytes": f"{900 * GIB}-{GIB}x300"}, "70m",
        {"hft_disk_free_bytes": f"{1900 * GIB}-{GIB}x300"},
    ),
    "HftBacklogSegments": Case(
        {'hft_backlog_segments{log_kind="market"}': "60x60",
         'hft_backlog_segments{log_kind="orders"}': "5x60"}, "10m",
        {'hft_backlog_segments{log_kind="market"}': "60x60",
         'hft_backlog_segments{log_kind="orders"}': "4x60"},
    ),
    "HftBacklogBytes": Case(
        {'hft_backlog_bytes{log_kind="market"}': f"{4 * GIB + 1}x60"}, "10m",
        {'hft_backlog_bytes{log_kind="market"}': f"{4 * GIB}x60"},
    ),
    "HftReplayLagHigh": Case(
        {"hft_replay_lag_seconds": "3601x60"}, "5m", {"hft_replay_lag_seconds": "3600x60"}
    ),
    "HftReplayLagDay": Case(
        {"hft_replay_lag_seconds": "86401x60"}, "5m", {"hft_replay_lag_seconds": "86400x60"}
    ),
    "HftLoaderStalled": Case(
        {'hft_backlog_segments{log_kind="market"}': "1x200", "hft_loader_rows_per_second": "0x200"},
        "30m",
        {'hft_backlog_segments{log_kind="market"}': "1x200", "hft_loader_rows_per_second": "2x200"},
    ),
    "HftDrainSlow": Case(
        {"hft_drain_eta_seconds": "3601x90"}, "15m",
        {"hft_drain_eta_seconds": "3600 3600 " + "Inf " * 90},
    ),
    "HftDeadLetter": Case(
        {'hft_dead_letter_segments{error="WAL_DAMAGED"}': "1x4"}, "15s",
        {'hft_dead_letter_segments{error="WAL_DAMAGED"}': "0x4"},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def rules(repository: Path) -> dict[str, dict[str, Any]]:
    """Rules by name."""
    content = yaml.safe_load((repository / "config" / "monitoring" / "alerts.yaml").read_text())
    return {rule["alert"]: rule for group in content["groups"] for rule in group["rules"]}


def promtool(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run Prometheus's tool; scripts/install-debian.sh installs it."""
    assert PROMTOOL is not None, "promtool is missing: scripts/install-debian.sh installs it"
    return subprocess.run(
        [PROMTOOL, *arguments], input=text, capture_output=True, text=True, check=False, timeout=60
    )


def seconds_of(duration: str) -> int:
    """``10m`` as 600."""
    return int(duration[:-1]) * {"s": 1, "m": 60, "h": 3600}[duration[-1]]


def rule_tests(repository: Path, names: list[str], rules: dict[str, dict[str, Any]]) -> str:
    """A file for `promtool test rules`."""
    tests = []
    for name in names:
        case = CASES[name]
        wait = rules[name].get("for", "0s")
        firing = f'count(ALERTS{{alertname="{name}", alertstate="firing"}})'
        rung = [{"expr": firing, "eval_time": case.at,
                 "exp_samples": [{"labels": "{}", "value": 1}]}]  # fmt: skip
        if wait != "0s" and seconds_of(case.at) == seconds_of(wait):
            # It rang for the first time just now: its series were there from the beginning.
            before = f"{seconds_of(wait) - 15}s"
            rung.append({"expr": firing, "eval_time": before, "exp_samples": []})
        tests.append(test_of(UP | case.rings, rung))
        tests.append(
            test_of(UP | case.quiet, [{"expr": firing, "eval_time": case.at, "exp_samples": []}])
        )
    path = repository / "config" / "monitoring" / "alerts.yaml"
    content = {"rule_files": [str(path)], "evaluation_interval": "15s", "tests": tests}
    return yaml.safe_dump(content)


def test_of(series: Series, expected: list[dict[str, Any]]) -> dict[str, Any]:
    """One block of series with what is expected of them."""
    inputs = [{"series": name, "values": values} for name, values in series.items()]
    return {"interval": "15s", "input_series": inputs, "promql_expr_test": expected}


test_of.__test__ = False  # type: ignore[attr-defined]  # no test of its own


def test_the_rules_are_valid(repository: Path) -> None:
    done = promtool("check", "rules", str(repository / "config" / "monitoring" / "alerts.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_rings_for_its_case_and_not_at_its_bound(
    repository: Path, rules: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    assert sorted(CASES) == sorted(rules), "every rule has a case"
    file = tmp_path / "tests.yaml"
    file.write_text(rule_tests(repository, sorted(CASES), rules))
    done = promtool("test", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_case_whose_series_were_exchanged_fails(
    repository: Path, rules: dict[str, dict[str, Any]], tmp_path: Path, name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The tool notices both: an alert that does not ring, and one that should not."""
    case = CASES[name]
    monkeypatch.setitem(CASES, name, Case(case.quiet, case.at, case.rings))
    file = tmp_path / "tests.yaml"
    file.write_text(rule_tests(repository, [name], rules))
    done = promtool("test", "rules", str(file))
    assert done.returncode != 0
    assert (done.stdout + done.stderr).count("exp:") >= 2, "both halves fail, neither to be read"


def test_a_missing_exporter_rings_as_one_that_is_down(repository: Path, tmp_path: Path) -> None:
    firing = 'count(ALERTS{alertname="HftExporterDown", alertstate="firing"})'
    test = test_of(
        {"other": "1x20"},
        [{"expr": firing, "eval_time": "1m", "exp_samples": [{"labels": "{}", "value": 1}]}],
    )
    rules = str(repository / "config" / "monitoring" / "alerts.yaml")
    file = tmp_path / "tests.yaml"
    file.write_text(
        yaml.safe_dump({"rule_files": [rules], "evaluation_interval": "15s", "tests": [test]})
    )
    done = promtool("test", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


def names_in(rules: dict[str, dict[str, Any]]) -> set[str]:
    """Metrics that rules name."""
    return {name for rule in rules.values() for name in re.findall(r"\bhft_\w+", rule["expr"])}


def test_rules_name_only_metrics_of_the_table_and_watch_every_service_level(
    rules: dict[str, dict[str, Any]],
) -> None:
    known = {metric.name for metric in METRICS}
    assert names_in(rules) - known == set()
    assert {metric.name for metric in METRICS if metric.is_service_level} - names_in(rules) == set()


def test_a_rule_on_an_unknown_metric_and_an_unwatched_metric_would_be_noticed(
    rules: dict[str, dict[str, Any]],
) -> None:
    known = {metric.name for metric in METRICS}
    renamed = rules | {"HftTradingHalted": {"expr": "hft_halted == 1"}}
    assert names_in(renamed) - known == {"hft_halted"}
    assert {m.name for m in METRICS if m.is_service_level} - names_in(renamed) == {
        "hft_halt_latched"
    }


def test_every_alert_says_what_it_means_how_urgent_it_is_and_where_to_read_on(
    rules: dict[str, dict[str, Any]], repository: Path
) -> None:
    page = (repository / "docs" / "alerts.md").read_text()
    anchors = {re.sub(r"[^\w -]", "", h).lower() for h in re.findall(r"^#+ (.+)$", page, re.M)}
    for name, rule in rules.items():
        assert rule["labels"]["severity"] in ("page", "ticket"), name
        assert rule["annotations"]["summary"].endswith("."), name
        assert rule["annotations"]["runbook"] == f"docs/alerts.md#{name.lower()}"
        assert name.lower() in anchors, f"{name} has no section in docs/alerts.md"
        section = page.split(f"### {name}\n", 1)[1].split("\n#", 1)[0].strip()
        assert section.startswith("Page." if rule["labels"]["severity"] == "page" else "Ticket.")
    sections = set(re.findall(r"^### (.+)$", page, re.M))
    assert sections == set(rules), "no section outlives its alert"


def test_the_table_keeps_to_its_own_rules() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert metric.name.startswith("hft_")
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert metric.text.endswith(".")
        if metric.unit in ("seconds", "bytes", "segments", "records"):
            assert metric.unit in metric.name
