"""Budget and breaker of broker calls by the settings, for live process and gateway alike.

It makes no call. Operator's page: `docs/execution.md`.
"""

from __future__ import annotations

from hft_platform.config.settings import BrokerSettings
from hft_platform.order.call_breaker import CallBreaker
from hft_platform.order.call_budget import CallBudget

MS = 1_000_000


def call_budget(settings: BrokerSettings) -> CallBudget:
    """Order calls within ten seconds, with what is kept for cancels and exits."""
    return CallBudget(soft_max=settings.order_calls_soft, hard_max=settings.order_calls_hard)


def call_breaker(settings: BrokerSettings) -> CallBreaker:
    """When nothing that opens is sent any more, and for how long."""
    return CallBreaker(
        failures_max=settings.breaker_failures_max, open_ns=settings.breaker_open_ms * MS
    )
