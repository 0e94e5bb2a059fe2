"""Venues: a broker, the time that goes with it, and how that passes.

Why: live and rehearsal differ in this and in nothing else.

It makes no connection. Operator's page: `docs/live.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hft_platform.config.promoted import PromotedConfig
from hft_platform.config.settings import Settings
from hft_platform.market.instruments import Instrument
from hft_platform.market.sessions import Session
from hft_platform.order.broker import Broker
from hft_platform.services.hft_system import Pace, ThreadPace


@dataclass(frozen=True, slots=True)
class VenueRequest:
    """What a venue is wanted for.

    Attributes
    ----------
    session_dir : Path
        Folder of the session.
    last_time_ns : int
        Time of the last record in its logs, 0 in a new one.
    """

    settings: Settings
    config: PromotedConfig
    instruments: Mapping[int, Instrument]
    traded: Session
    workspace: Path
    session_dir: Path
    last_time_ns: int


@dataclass(frozen=True, slots=True)
class Venue:
    """A broker, not connected, with its clock and pace."""

    broker: Broker
    clock_ns: Callable[[], int]
    pace: Pace


VenueFactory = Callable[[VenueRequest], Venue]


def live_venue(
    make_broker: Callable[[VenueRequest], Broker], clock_ns: Callable[[], int]
) -> VenueFactory:
    """A venue of the machine's clock.

    Parameters
    ----------
    make_broker : callable
        Makes the broker.
    clock_ns : callable
        Wall clock.

    Returns
    -------
    callable
        For `SystemBootstrapper`.
    """

    def make(request: VenueRequest) -> Venue:
        return Venue(make_broker(request), clock_ns, ThreadPace())

    return make
