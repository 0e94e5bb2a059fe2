"""Every metric of the platform: name, type, labels, unit, meaning. Alerts and docs follow from it.

Why: an alarm on a metric that nobody exports never rings. One table is what the exporter gives out,
what the alert rules may name, and what `docs/metrics.md` says; tests hold the three together.

Invariants:
1. Names start with `hft_` and end in their unit, counters in `_total`.
2. Every service level metric has an alert.
3. A metric that cannot be read is left out, and `hft_metrics_source_ok` says so; it is never 0.

It measures nothing. Operator's page: `docs/metrics.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes
    ----------
    name : str
        As scraped.
    kind : {"gauge", "counter", "histogram"}
        Its type.
    labels : tuple of str
        What tells its series apart.
    unit : str
        Base unit.
    source : str
        What it is read from: the label of `hft_metrics_source_ok` when that fails.
    is_service_level : bool
        Whether an alert must watch it.
    text : str
        One sentence.
    """

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    labels: tuple[str, ...]
    unit: str
    source: str
    is_service_level: bool
    text: str


METRICS: tuple[Metric, ...] = (
    Metric(
        "hft_backlog_segments", "gauge", ("log_kind",), "segments", "backlog", True,
        "Sealed segments that the ledger does not call LOADED.",
    ),
    Metric(
        "hft_backlog_bytes", "gauge", ("log_kind",), "bytes", "backlog", True,
        "Bytes of those segments.",
    ),
    Metric(
        "hft_replay_lag_seconds", "gauge", (), "seconds", "backlog", True,
        "Age of the oldest of those segments since it was sealed; 0 without one.",
    ),
    Metric(
        "hft_drain_eta_seconds", "gauge", (), "seconds", "backlog", True,
        "Time until the backlog is loaded at the present rate; +Inf while nothing is loaded.",
    ),
    Metric(
        "hft_loader_rows_per_second", "gauge", (), "rows per second", "ledger", True,
        "Records of segments that became LOADED in the last 5 minutes, per second.",
    ),
    Metric(
        "hft_loader_rows_total", "counter", (), "rows", "ledger", False,
        "Records of all segments that the ledger ever called LOADED.",
    ),
    Metric(
        "hft_loader_segments_total", "counter", (), "segments", "ledger", False,
        "Segments that the ledger ever called LOADED.",
    ),
    Metric(
        "hft_durable_lag_records", "gauge", ("run_id", "log_kind"), "records", "watermark", True,
        "Records that an open log handed to the disk and that are not durable yet.",
    ),
    Metric(
        "hft_durable_lag_seconds", "gauge", ("run_id", "log_kind"), "seconds", "watermark", True,
        "Time since the last sync of an open log that holds such records; 0 without them.",
    ),
    Metric(
        "hft_log_failed", "gauge", ("run_id", "log_kind"), "0 or 1", "watermark", True,
        "1 when the writer of an open log stopped after a failed write or sync.",
    ),
    Metric(
        "hft_shed_records", "gauge", (), "records", "shed", True,
        "Market records of all sessions that were left out of their logs for want of space.",
    ),
    Metric(
        "hft_dead_letter_segments", "gauge", ("error",), "segments", "dead_letter", True,
        "Segments that the loader set aside, by reason code name.",
    ),
    Metric(
        "hft_disk_free_bytes", "gauge", (), "bytes", "disk", True,
        "What an ordinary process may still write on the workspace's disk.",
    ),
    Metric(
        "hft_disk_size_bytes", "gauge", (), "bytes", "disk", False,
        "Size of that disk.",
    ),
    Metric(
        "hft_disk_pressure_level", "gauge", (), "0 to 3", "disk", True,
        "Level that the free bytes call for: 0 OK, 1 WARN, 2 CRITICAL, 3 HALT.",
    ),
    Metric(
        "hft_halt_latched", "gauge", (), "0 or 1", "halt", True,
        "1 while the workspace is halted.",
    ),
    Metric(
        "hft_halt_reason_code", "gauge", (), "reason code", "halt", False,
        "Code of the halt (docs/reason-codes.md); 0 without one.",
    ),
    Metric(
        "hft_gateway_leader_epoch", "gauge", (), "epoch", "gateway", False,
        "Epoch that the gateway's leader leads; missing without one.",
    ),
    Metric(
        "hft_gateway_heartbeat_age_seconds", "gauge", (), "seconds", "gateway", True,
        "Age of the leader's heartbeat; +Inf when it led before the machine's last start.",
    ),
    Metric(
        "hft_gateway_runners", "gauge", (), "runners", "gateway", False,
        "Strategy runners that are connected to the gateway.",
    ),
    Metric(
        "hft_gateway_dispatch_latency_ns", "histogram", (), "ns", "gateway", False,
        "From an order's decision to the moment the gateway hands it to the broker's adapter.",
    ),
    Metric(
        "hft_gateway_reject_total", "counter", ("code",), "intents", "gateway", False,
        "Intents of runners that the gateway refused, by reason code name.",
    ),
    Metric(
        "hft_gateway_dedup_hits_total", "counter", (), "intents", "gateway", False,
        "Intents that had been decided before and were not decided again.",
    ),
    Metric(
        "hft_gateway_dead_letters_total", "counter", ("code",), "intents", "gateway", True,
        "Intents that were given up before the engine saw them, by reason code name.",
    ),
    Metric(
        "hft_reconciliation_findings", "gauge", ("run_id", "reason"), "findings",
        "reconciliation", True,
        "What stands between a session with an open log and its broker, by reason code name.",
    ),
    Metric(
        "hft_reconciliation_age_seconds", "gauge", ("run_id",), "seconds", "reconciliation", True,
        "Age of the last reconciliation report of a session with an open log.",
    ),
    Metric(
        "hft_reconciliation_actions_total", "counter", ("run_id", "action"), "actions",
        "reconciliation", False,
        "Questions and what came of them, by the names in the report's counters.",
    ),
    Metric(
        "hft_live_status_age_seconds", "gauge", ("run_id",), "seconds", "live", True,
        "Age of the status that a live process writes once a second.",
    ),
    Metric(
        "hft_live_connected", "gauge", ("run_id",), "0 or 1", "live", True,
        "Whether a live process is connected to its broker.",
    ),
    Metric(
        "hft_live_ready", "gauge", ("run_id",), "0 or 1", "live", False,
        "Whether it compared its orders and positions with the broker's and may open.",
    ),
    Metric(
        "hft_live_restricted", "gauge", ("run_id",), "0 or 1", "live", False,
        "Whether it only reduces: before its start is over, or while it is being stopped.",
    ),
    Metric(
        "hft_live_halt_reason_code", "gauge", ("run_id",), "reason code", "live", True,
        "Code by which its engine halted (docs/reason-codes.md); 0 without one.",
    ),
    Metric(
        "hft_live_open_orders", "gauge", ("run_id",), "orders", "live", False,
        "Orders of it that are not done.",
    ),
    Metric(
        "hft_live_unknown_orders", "gauge", ("run_id",), "orders", "live", False,
        "Those of them whose outcome nobody knows; they count as exposure.",
    ),
    Metric(
        "hft_live_latency_ns", "gauge", ("run_id", "step", "quantile"), "ns", "live", False,
        "Quantiles of what each step from callback to broker call took, since the start.",
    ),
    Metric(
        "hft_metrics_source_ok", "gauge", ("source",), "0 or 1", "", True,
        "0 when the files behind the metrics of a source could not be read.",
    ),
    Metric(
        "hft_metrics_scrape_seconds", "gauge", (), "seconds", "", False,
        "How long reading the files took.",
    ),
)  # fmt: skip

SOURCES = tuple(dict.fromkeys(metric.source for metric in METRICS if metric.source))
INTRO = """\
What `hft-live metrics` gives to Prometheus, all of it read from files of the workspace when it is
asked: it opens no store and takes no lock, so it answers while everything else is stuck. What to do
when one of them alarms: [alerts](alerts.md).

    hft-live metrics --once              # print them and end
    hft-live metrics --port 9108         # serve them on 127.0.0.1

A metric whose files cannot be read is missing, and `hft_metrics_source_ok` of its source is 0.
Durable lag is shown for logs that are open: a log left by a process that died stays in it until
`hft-live wal recover` seals it. Replay lag counts from when a segment was sealed, by the clock of
the machine: record time of a simulated session lies in the past.
"""


def metrics_page() -> str:
    """Markdown of every metric."""
    lines = [
        "<!-- Made by `make generate`; do not edit. -->",
        "",
        "# Metrics",
        "",
        INTRO,
        "| name | type | labels | unit | source | alert | meaning |",
        "|---|---|---|---|---|---|---|",
    ]
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        alert = "yes" if metric.is_service_level else ""
        lines.append(
            f"| `{metric.name}` | {metric.kind} | {labels} | {metric.unit} | {metric.source} |"
            f" {alert} | {metric.text} |"
        )
    return "\n".join(lines) + "\n"
