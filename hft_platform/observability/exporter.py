"""The exporter: metrics of a workspace, read at the moment they are asked for.

Why: nothing is written on the hot path for it, and it runs in a process of its own, so neither a
stuck loader nor a stopped session silences the alarms.

Invariants:
1. A source that cannot be read gives no metric and `hft_metrics_source_ok` 0; the others go on.
2. It listens on this machine only, unless it is told otherwise in so many words.
3. What is given out is in `metric_table.METRICS`, and nothing else.

Operator's page: `docs/metrics.md`.
"""

from __future__ import annotations

import ipaddress
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector

from hft_platform import _core
from hft_platform.config.settings import load_settings
from hft_platform.errors import PlatformError, ReasonCode, code_name
from hft_platform.observability import readings
from hft_platform.observability.ledger_view import LedgerView
from hft_platform.observability.metric_table import METRICS, SOURCES
from hft_platform.recorder.disk_monitor import Level, Sample, bounds_of, next_level

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family

log = structlog.get_logger()

DEFAULT_PORT = 9108
PORT_MAX = 65_535
LOOPBACK = "127.0.0.1"
_TABLE = {metric.name: metric for metric in METRICS}
# What files, their content and the core can raise. A bug of ours fails the scrape instead, and `up`
# of the exporter is 0.
_UNREADABLE = (OSError, ValueError, KeyError, PlatformError, _core.WalError, _core.TapeError)

Values = Mapping[tuple[str, ...], float]


@dataclass(frozen=True, slots=True)
class Clocks:
    """What the exporter tells time by.

    Attributes
    ----------
    now_ns : callable
        Wall clock, ns UTC.
    monotonic : callable
        Seconds since some moment.
    """

    now_ns: Callable[[], int] = time.time_ns
    monotonic: Callable[[], float] = time.monotonic


class WorkspaceCollector(Collector):
    """Reads a workspace whenever it is scraped.

    Parameters
    ----------
    ws : Path
        Workspace.
    clocks : Clocks, optional
        The machine's by default.
    pressure_level : callable, optional
        Level that so many free bytes call for; the platform's thresholds by default.
    """

    def __init__(
        self,
        ws: Path,
        *,
        clocks: Clocks | None = None,
        pressure_level: Callable[[int], int] | None = None,
    ) -> None:
        self._ws = ws
        self._clocks = clocks or Clocks()
        self._pressure_level = pressure_level or _pressure_level()
        self._ledger = LedgerView(ws / "ledger")
        self._shed = readings.ShedCounts()
        self._gateway: readings.Gateway | None = None
        self._reasons: set[tuple[str, ...]] = set()
        # Two scrapes at once would both follow the ledger.
        self._lock = threading.Lock()

    def collect(self) -> Iterator[Family]:
        """Give every metric that can be read."""
        with self._lock:
            yield from self._collect()

    def _collect(self) -> Iterable[Family]:
        started, now_ns = self._clocks.monotonic(), self._clocks.now_ns()
        read: dict[str, Callable[[int], dict[str, Values]]] = {
            "ledger": self._of_ledger,
            "backlog": self._of_backlog,
            "watermark": self._of_watermarks,
            "shed": lambda _: {"hft_shed_records": {(): self._shed.total(self._ws)}},
            "dead_letter": lambda _: {
                "hft_dead_letter_segments": {
                    (error,): count for error, count in readings.dead_letters(self._ws).items()
                }
            },
            "disk": lambda _: self._of_disk(),
            "halt": lambda _: self._of_halt(),
            "gateway": lambda _: self._of_gateway(),
            "reconciliation": self._of_reconciliation,
            "live": self._of_live,
        }
        families: list[Family] = []
        is_ok: dict[tuple[str, ...], float] = {}
        for source in SOURCES:
            try:
                values = read[source](now_ns)
            except _UNREADABLE as error:
                is_ok[(source,)] = 0
                log.warning("metrics_source_failed", source=source, error=str(error)[:300])
                continue
            is_ok[(source,)] = 1
            families += [_family(name, by_label) for name, by_label in values.items()]
            if source == "gateway":
                families.append(_histogram("hft_gateway_dispatch_latency_ns", self._gateway))
        families.append(_family("hft_metrics_source_ok", is_ok))
        seconds = self._clocks.monotonic() - started
        families.append(_family("hft_metrics_scrape_seconds", {(): seconds}))
        return families

    def _of_ledger(self, now_ns: int) -> dict[str, Values]:
        self._ledger.follow(now_ns)
        return {
            "hft_loader_rows_per_second": {(): self._ledger.throughput(now_ns).rows},
            "hft_loader_rows_total": {(): self._ledger.row_count},
            "hft_loader_segments_total": {(): self._ledger.segment_count},
        }

    def _of_backlog(self, now_ns: int) -> dict[str, Values]:
        self._ledger.follow(now_ns)
        found = readings.backlog(self._ws, self._ledger, now_ns)
        waiting = sum(found.payload_bytes.values())
        rate = self._ledger.throughput(now_ns).payload_bytes
        eta_s = 0.0 if not waiting else waiting / rate if rate else math.inf
        return {
            "hft_backlog_segments": {(kind,): n for kind, n in found.segments.items()},
            "hft_backlog_bytes": {(kind,): n for kind, n in found.payload_bytes.items()},
            "hft_replay_lag_seconds": {(): found.lag_s},
            "hft_drain_eta_seconds": {(): eta_s},
        }

    def _of_watermarks(self, now_ns: int) -> dict[str, Values]:
        logs = readings.open_logs(self._ws, now_ns)
        return {
            "hft_durable_lag_records": {(o.run_id, o.log_kind): o.records for o in logs},
            "hft_durable_lag_seconds": {(o.run_id, o.log_kind): o.seconds for o in logs},
            "hft_log_failed": {(o.run_id, o.log_kind): float(o.is_failed) for o in logs},
        }

    def _of_disk(self) -> dict[str, Values]:
        disk = readings.disk(self._ws)
        return {
            "hft_disk_free_bytes": {(): disk.free_bytes},
            "hft_disk_size_bytes": {(): disk.size_bytes},
            "hft_disk_pressure_level": {(): self._pressure_level(disk.free_bytes)},
        }

    def _of_halt(self) -> dict[str, Values]:
        code = readings.halt_code(self._ws)
        return {
            "hft_halt_latched": {(): float(code is not None)},
            "hft_halt_reason_code": {(): code or 0},
        }

    def _of_gateway(self) -> dict[str, Values]:
        found = self._gateway = readings.gateway(self._ws)
        age: Values = {} if found.heartbeat_age_s is None else {(): found.heartbeat_age_s}
        epoch: Values = {} if found.epoch is None else {(): found.epoch}
        return {
            "hft_gateway_leader_epoch": epoch,
            "hft_gateway_heartbeat_age_seconds": age,
            "hft_gateway_runners": {(): found.runners} if found.is_known else {},
            "hft_gateway_reject_total": {(code,): n for code, n in found.rejects.items()},
            "hft_gateway_dedup_hits_total": {(): found.dedup_hits} if found.is_known else {},
            "hft_gateway_dead_letters_total": {
                (code,): n for code, n in found.dead_letters.items()
            },
        }

    def _of_reconciliation(self, now_ns: int) -> dict[str, Values]:
        reports = readings.reconciliations(self._ws)
        standing: Counter[tuple[str, ...]] = Counter(
            (run_id, code_name(row.advice.code))
            for run_id, report in reports.items()
            for row in report.findings
        )
        # A reason that stood and is gone is 0, or its alert would wait for the series to go stale.
        self._reasons |= standing.keys()
        self._reasons = {key for key in self._reasons if key[0] in reports}
        return {
            "hft_reconciliation_findings": {key: standing[key] for key in self._reasons},
            "hft_reconciliation_age_seconds": {
                (run_id,): max(0, now_ns - report.time_ns) / readings.NS
                for run_id, report in reports.items()
            },
            "hft_reconciliation_actions_total": {
                (run_id, name): count
                for run_id, report in reports.items()
                for name, count in report.counters.items()
            },
        }

    def _of_live(self, now_ns: int) -> dict[str, Values]:
        lives = readings.live_processes(self._ws)

        def each(value: Callable[[dict[str, Any]], float]) -> Values:
            return {(run_id,): float(value(live)) for run_id, live in lives.items()}

        return {
            "hft_live_status_age_seconds": each(
                lambda live: max(0, now_ns - live["written_ns"]) / readings.NS
            ),
            "hft_live_connected": each(lambda live: live["is_connected"]),
            "hft_live_ready": each(lambda live: live["is_ready"]),
            "hft_live_restricted": each(lambda live: live["is_restricted"]),
            "hft_live_halt_reason_code": each(lambda live: live["halted_by"]),
            "hft_live_open_orders": each(lambda live: live["open_orders"]),
            "hft_live_unknown_orders": each(lambda live: live["unknown_orders"]),
            "hft_live_latency_ns": {
                (run_id, step, quantile): took[f"{name}_ns"]
                for run_id, live in lives.items()
                for step, took in live["latency"].items()
                for quantile, name in (("0.5", "p50"), ("0.99", "p99"), ("0.999", "p999"))
            },
        }


def exposition(collector: WorkspaceCollector) -> str:
    """Give the metrics as Prometheus reads them.

    Parameters
    ----------
    collector : WorkspaceCollector
        Of a workspace.
    """
    return generate_latest(_registry(collector)).decode()


def serve(
    collector: WorkspaceCollector, *, port: int, address: str = LOOPBACK, is_remote: bool = False
) -> tuple[Any, threading.Thread]:
    """Serve the metrics over HTTP from a thread.

    Parameters
    ----------
    collector : WorkspaceCollector
        Of a workspace.
    port : int
        0 takes a free one.
    address : str, optional
        Address to listen on.
    is_remote : bool, optional
        Said by the operator: other machines may connect.

    Returns
    -------
    server : WSGIServer
        With ``server_port``; ``shutdown()`` ends it. (Any: the client exports no type for it.)
    thread : Thread

    Raises
    ------
    PlatformError
        SETTINGS_INVALID for an address that others can reach, or one that cannot be had.
    """
    try:
        is_local = ipaddress.ip_address(address).is_loopback
    except ValueError as error:
        raise PlatformError(
            ReasonCode.SETTINGS_INVALID, f"address was {address!r}; it is an IP address"
        ) from error
    if not is_local and not is_remote:
        raise PlatformError(
            ReasonCode.SETTINGS_INVALID,
            f"address was {address}; other machines could read the metrics, which have no login",
            next_step="hft-live metrics (127.0.0.1), or add --allow-remote",
        )
    if not 0 <= port <= PORT_MAX:
        raise PlatformError(
            ReasonCode.SETTINGS_INVALID, f"port was {port}, allowed are 0 to {PORT_MAX}"
        )
    try:
        return start_http_server(port, addr=address, registry=_registry(collector))
    except OSError as error:
        raise PlatformError(
            ReasonCode.SETTINGS_INVALID,
            f"{address} port {port} cannot be had: {error.strerror}",
            next_step="hft-live metrics --port with another one",
        ) from error


def _registry(collector: WorkspaceCollector) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return registry


def _family(name: str, values: Values) -> Family:
    metric = _TABLE[name]
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(name, metric.text, labels=metric.labels)
    for labels, value in sorted(values.items()):
        family.add_metric(labels, value)
    return family


def _histogram(name: str, found: readings.Gateway | None) -> Family:
    family = HistogramMetricFamily(name, _TABLE[name].text)
    if found is not None and found.is_known:
        buckets, total = [], 0
        for bound, count in zip([*found.bounds_ns, math.inf], found.counts, strict=True):
            total += count
            buckets.append(("+Inf" if math.isinf(bound) else str(bound), total))
        family.add_metric((), buckets, found.sum_ns)
    return family


def _pressure_level() -> Callable[[int], int]:
    """Level of free bytes by the operator's thresholds, read once."""
    thresholds = load_settings().disk_pressure
    bounds = bounds_of(thresholds)

    def level_of(free_bytes: int) -> int:
        return int(next_level(Level.OK, Sample(free_bytes), bounds))

    return level_of
