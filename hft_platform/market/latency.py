"""Order latency profiles: measured quantiles of place, cancel, response and activation, by name.

Why: the latency decides the sign of a maker's result, so it is a file with its source, and its
hash is in every verdict and session.

Invariants:
1. Packaged profiles; a file of the same name in config/latency/ replaces one as a whole.
2. The hash covers what the simulation uses, not the comments.
3. Place and cancel are stated apart; a missing key is an error. The way from the broker to being
   active at the exchange (`activation`) may be stated apart; left out, `place` holds it.

It draws no delay: `rust_core/src/latency.rs` does. Operator's page: `docs/latency.md`.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hft_platform.config.canonical import canonical_sha256
from hft_platform.errors import PlatformError, ReasonCode

_FILE_BYTES_MAX = 64 * 1024
_DELAY_MS_MAX = 60_000.0
_NS_PER_MS = 1_000_000
_NS_PER_US = 1_000

_Quantile = Annotated[float, Field(ge=0, le=1, strict=False)]
_Milliseconds = Annotated[float, Field(ge=0, le=_DELAY_MS_MAX, strict=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class _Distribution(_Strict):
    source: Annotated[str, Field(min_length=1)]
    is_measured: bool
    factor: Annotated[float, Field(gt=0, le=10, strict=False)]
    quantiles_ms: Annotated[
        list[Annotated[list[float], Field(min_length=2, max_length=2)]],
        Field(min_length=1, max_length=100),
    ]

    @model_validator(mode="after")
    def _grows(self) -> _Distribution:
        for quantile, delay in self.quantiles_ms:
            if not (0 <= quantile <= 1 and 0 <= delay * self.factor <= _DELAY_MS_MAX):
                raise ValueError(f"point [{quantile}, {delay}] is outside 0..1 or 0..60,000 ms")
        for low, high in zip(self.quantiles_ms, self.quantiles_ms[1:], strict=False):
            if low[0] >= high[0] or low[1] > high[1]:
                raise ValueError(f"points {low} and {high} do not grow")
        return self

    def points(self) -> list[list[float | int]]:
        return [
            [quantile, round(delay * self.factor * _NS_PER_MS)]
            for quantile, delay in self.quantiles_ms
        ]


class _ProfileFile(_Strict):
    profile_id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    description: str
    seed: Annotated[int, Field(ge=0, lt=1 << 63)]
    pipeline_us: Annotated[float, Field(ge=0, le=60_000_000, strict=False)]
    place: _Distribution
    cancel: _Distribution
    response: _Distribution
    activation: _Distribution | None = None


def load_latency_profile(name: str, config_dir: Path | None = None) -> tuple[dict[str, Any], str]:
    """Load one latency profile.

    Parameters
    ----------
    name : str
        Its `profile_id`, which is also its file name.
    config_dir : Path, optional
        Folder whose ``latency/<name>.yaml`` replaces a packaged profile; by default `config` in
        the working folder.

    Returns
    -------
    dict
        What the simulation takes: profile_id, seed, pipeline_ns, place, cancel and response as
        ``[quantile, ns]`` points, activation too where it is stated, corner (None: every order
        draws its own quantile).
    str
        SHA-256 of the dictionary's canonical JSON.

    Raises
    ------
    PlatformError
        SETTINGS_INVALID when there is no such profile or it does not fit the schema.

    Notes
    -----
    Below the first and above the last stated quantile the delay is flat: the faster half of the
    orders gets the median where nothing below it was measured, which is the careful side.
    """
    file = _parse(*_read(name, config_dir), name)
    profile: dict[str, Any] = {
        "profile_id": file.profile_id,
        "seed": file.seed,
        "pipeline_ns": round(file.pipeline_us * _NS_PER_US),
        "place": file.place.points(),
        "cancel": file.cancel.points(),
        "response": file.response.points(),
        "corner": None,
    }
    if file.activation is not None:
        profile["activation"] = file.activation.points()
    return profile, profile_sha256(profile)


def profile_sha256(profile: dict[str, Any]) -> str:
    """SHA-256 of a profile's canonical JSON, also of one with a `corner` set."""
    return canonical_sha256(profile)


def at_corner(profile: dict[str, Any], quantile: float) -> dict[str, Any]:
    """The same profile with every order at one quantile.

    Raises
    ------
    PlatformError
        SETTINGS_INVALID when the quantile is outside 0 to 1.
    """
    if not 0 <= quantile <= 1:
        raise PlatformError(
            ReasonCode.SETTINGS_INVALID, f"latency corner was {quantile}, allowed is 0 to 1"
        )
    return profile | {"corner": float(quantile)}


def _packaged() -> dict[str, bytes]:
    folder = resources.files("hft_platform") / "defaults" / "latency"
    files = (entry for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    return {entry.name.removesuffix(".yaml"): entry.read_bytes() for entry in files}


def _read(name: str, config_dir: Path | None) -> tuple[bytes, str]:
    folder = (config_dir if config_dir is not None else Path("config")) / "latency"
    own = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    if name in own:
        return own[name].read_bytes(), str(own[name])
    packaged = _packaged()
    if name in packaged:
        return packaged[name], f"packaged latency/{name}.yaml"
    known = ", ".join(sorted({*own, *packaged}))
    raise PlatformError(
        ReasonCode.SETTINGS_INVALID,
        f"there is no latency profile {name!r}; known are {known}",
        next_step=f"write {folder / (name + '.yaml')} after the model of a packaged profile",
    )


def _parse(content: bytes, where: str, name: str) -> _ProfileFile:
    try:
        if len(content) > _FILE_BYTES_MAX:
            raise ValueError(f"{len(content)} bytes, at most {_FILE_BYTES_MAX} are allowed")
        file = _ProfileFile.model_validate(yaml.safe_load(content))
        if file.profile_id != name:
            raise ValueError(f"profile_id is {file.profile_id!r}, the file's name says {name!r}")
    except (ValidationError, yaml.YAMLError, ValueError) as error:
        raise PlatformError(ReasonCode.SETTINGS_INVALID, f"{where}: {error}") from error
    return file
