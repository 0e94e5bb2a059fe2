"""Signals: an alpha's value at every good book, evaluated in batch and record by record.

Both are the compiled core's; nothing here computes a feature.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hft_platform import _core
from hft_platform.config.canonical import canonical_json, sha256_hex
from hft_platform.config.engine_config import AlphaSpec, build_engine_config
from hft_platform.kernels import kernels_of
from research.gates.record_places import record_offsets
from research.gates.stepwise import compare_stepwise

if TYPE_CHECKING:
    from hft_platform.market.instruments import Instrument
    from hft_platform.market.sessions import Session
    from research.registry import AlphaManifest

SIGNAL_DTYPE = np.dtype([("receive_time_ns", "<i8"), ("mid", "<i8"), ("signal", "<f8")])
"""Row of `_core.evaluate`."""

SignalRows = npt.NDArray[np.void]


def signal_config(
    manifest: AlphaManifest,
    instrument: Instrument,
    session: Session,
    *,
    account_limits: Mapping[str, int | None],
    storm_guard: Mapping[str, Any],
) -> dict[str, Any]:
    """Engine config of an alpha alone with its default parameters.

    Parameters
    ----------
    manifest : AlphaManifest
        What is evaluated.
    instrument : Instrument
        On which instrument.
    session : Session
        Hours of the session.
    account_limits : mapping of str to int
        Needed by the engine; no part of a signal.
    storm_guard : mapping
        Needed by the engine; no part of a signal.

    Returns
    -------
    dict
    """
    spec = AlphaSpec.from_manifest(
        manifest.model_dump(mode="json"),
        manifest.defaults(),
        instrument,
        weight_ppm=manifest.gate_weight_ppm,
    )
    return build_engine_config(
        [spec],
        instruments=[instrument],
        session=session,
        account_limits=account_limits,
        storm_guard=storm_guard,
    )


def batch_rows(tape: bytes, config: Mapping[str, Any]) -> SignalRows:
    """Signal at every good book, in one call."""
    text = canonical_json(dict(config)).decode()
    raw = _core.evaluate(tape, text, kernels=kernels_of(config))
    return np.frombuffer(raw, dtype=SIGNAL_DTYPE)


def signal_sha256(tape: bytes, config: Mapping[str, Any]) -> str:
    """Hash of every bit of the signal, its times and mids."""
    return sha256_hex(batch_rows(tape, config).tobytes())


def incremental_signal(tape: bytes, config: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    """Signal of a trading engine after each record, fed one by one.

    Parameters
    ----------
    tape : bytes
        Records of one session.
    config : mapping
        As `signal_config` makes it.

    Returns
    -------
    ndarray of float64, shape (records,)
        NaN where the engine has no signal.
    """
    engine = _core.Engine(canonical_json(dict(config)).decode(), kernels_of(config))
    ends = np.append(record_offsets(tape), len(tape))
    values = np.empty(ends.size - 1)
    for index in range(values.size):
        engine.on_tape(tape[int(ends[index]) : int(ends[index + 1])])
        value = engine.counters()["alphas"][0]["signal"]
        values[index] = np.nan if value is None else value
    return values


def compare_batch_with_incremental(tape: bytes, config: Mapping[str, Any]) -> tuple[int, int]:
    """Compare, bit by bit, batch evaluation with a trading engine at every good book.

    Parameters
    ----------
    tape : bytes
        Records of one session.
    config : mapping
        As `signal_config` makes it.

    Returns
    -------
    rows, mismatches : int
        Values compared, and how many differ.
    """
    return compare_stepwise(
        tape, lambda part: batch_rows(part, config), lambda part: incremental_signal(part, config)
    )
