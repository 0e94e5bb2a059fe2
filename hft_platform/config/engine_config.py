"""Engine config: the one JSON that backtest, paper session, live and replay give the engine.

Why: research and runtime build it by the same pure function, so what was judged is what trades.

Invariants:
1. Same arguments, same content: no clock, no file, no environment is read here.
2. Every `$parameter` of a template is a number afterwards, within the engine's range.
3. Quantities and money are integers at 1e-8; sizes are whole lots at full weight.

It verifies no signature (see `promoted`). Operator's page: `docs/formats.md`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from pydantic import ValidationError

from hft_platform.config.canonical import canonical_json, canonical_sha256
from hft_platform.config.promoted import PromotedConfig
from hft_platform.config.promoted_content import (
    AvellanedaStoikovMakerTemplate,
    CostTakerTemplate,
    GlftMakerTemplate,
    MakerTemplate,
    OnWithdrawal,
    PromotedContent,
    PromotedLimits,
    QueueMakerTemplate,
    TakerTemplate,
    TargetTemplate,
    Template,
)
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.kernels import kernel_config, kernel_of_source
from hft_platform.records import SCALE

if TYPE_CHECKING:
    from hft_platform.market.instruments import Instrument, InstrumentTable
    from hft_platform.market.sessions import Session

SCHEMA = 1
FULL_WEIGHT_PPM = 1_000_000
NEVER_EXPIRES_NS = (1 << 63) - 1
_INTEGER_KEYS = frozenset({"hold_ns", "slippage_ticks", "horizon_ns", "patience_ns"})
_WORD_KEYS = frozenset({"kind", "sigma_source", "horizon"})
_TEMPLATES: dict[str, type[Template]] = {
    "taker": TakerTemplate,
    "maker": MakerTemplate,
    "cost_taker": CostTakerTemplate,
    "queue_maker": QueueMakerTemplate,
    "avellaneda_stoikov_maker": AvellanedaStoikovMakerTemplate,
    "glft_maker": GlftMakerTemplate,
    "target": TargetTemplate,
}


@dataclass(frozen=True, slots=True)
class AlphaSpec:
    """One alpha as the engine sees it, whether from a manifest or from a promoted config.

    Attributes
    ----------
    alpha_id, symbol, expression : str
        What computes the signal, on which instrument; no expression where a kernel does.
    parameters : mapping of str to float
        Values of the expression's parameters.
    template : mapping
        Resolved template, engine keys.
    order_qty : int
        One clip at full weight, scaled.
    ttl_ns : int
        How long an intent may wait.
    limits : mapping of str to int
        Engine keys, scaled, at full weight.
    on_withdrawal : mapping
        ``action`` and ``deadline_ns``.
    stage : str
        ``research``, ``shadow``, ``canary`` or ``live``.
    weight_ppm : int
        Size as parts per million of full size.
    expires_ns, promotion_seq, config_sha256
        Of the promoted config; never, 0 and empty in research.
    kernel : mapping, optional
        As `kernel_config` makes it.
    """

    alpha_id: str
    symbol: str
    expression: str
    parameters: Mapping[str, float]
    template: Mapping[str, Any]
    order_qty: int
    ttl_ns: int
    limits: Mapping[str, int]
    on_withdrawal: Mapping[str, Any]
    stage: str = "research"
    weight_ppm: int = FULL_WEIGHT_PPM
    expires_ns: int = NEVER_EXPIRES_NS
    promotion_seq: int = 0
    config_sha256: str = ""
    kernel: Mapping[str, Any] | None = None

    @classmethod
    def from_promoted(cls, config: PromotedConfig, symbol: str | None = None) -> AlphaSpec:
        """Take the engine's part of a verified config.

        Parameters
        ----------
        config : PromotedConfig
            Verified.
        symbol : str, optional
            Which of its instruments; may be left out when there is one.

        Returns
        -------
        AlphaSpec
            With the weight in force.
        """
        symbols = [instrument.symbol for instrument in config.instruments]
        if symbol is None and len(symbols) == 1:
            symbol = symbols[0]
        if symbol not in symbols:
            raise PlatformError(
                ReasonCode.CONFIG_WRONG_INSTRUMENT,
                f"promoted config {config.alpha_id} is for {', '.join(symbols)}, not {symbol}",
            )
        content = spec_content(config)
        return cls(
            symbol=symbol,
            stage=config.stage,
            weight_ppm=config.weight_ppm,
            expires_ns=config.expires_ns,
            promotion_seq=config.promotion_seq,
            config_sha256=config.content_sha256,
            **content,
        )

    @classmethod
    def from_manifest(
        cls,
        manifest: Mapping[str, Any],
        parameters: Mapping[str, float],
        instrument: Instrument,
        *,
        stage: str = "research",
        weight_ppm: int = FULL_WEIGHT_PPM,
    ) -> AlphaSpec:
        """Turn a manifest and chosen parameters into engine units.

        Parameters
        ----------
        manifest : mapping
            JSON content of a validated manifest: quantities in lots, money in whole units.
        parameters : mapping of str to float
            A value for every declared parameter, no others.
        instrument : Instrument
            Gives the lot size that quantities in lots are multiplied by.
        stage : str, optional
            Stage of the run.
        weight_ppm : int, optional
            Weight of the run.

        Returns
        -------
        AlphaSpec
            Ready for `build_engine_config`. `parameters` holds every chosen value, those that
            only the template uses too: the engine accepts names an expression does not read.

        Raises
        ------
        PlatformError
            MANIFEST_INVALID when the parameters are not those declared, are not finite, or put a
            template's number out of its range; KERNEL_MALFORMED for a kernel's text.
        """
        alpha_id = str(manifest["alpha_id"])
        values = _chosen(alpha_id, manifest["parameters"], parameters)
        lot, limits = instrument.lot_size, manifest["limits"]
        return cls(
            alpha_id=alpha_id,
            symbol=instrument.symbol,
            expression=manifest["expression"],
            kernel=_kernel(manifest),
            parameters=values,
            template=resolve_template(alpha_id, manifest["template"], values),
            order_qty=manifest["order_qty_lots"] * lot,
            ttl_ns=manifest["ttl_ms"] * 1_000_000,
            limits={
                "order_qty_max": limits["order_qty_lots_max"] * lot,
                "position_qty_max": limits["position_qty_lots_max"] * lot,
                "daily_loss_max": limits["daily_loss_max"] * SCALE,
                "drawdown_max": limits["drawdown_max"] * SCALE,
                "loss_speed_max": limits["loss_speed_max"] * SCALE,
                "order_rate_max": limits["order_rate_max"],
            },
            on_withdrawal={
                "action": manifest["on_withdrawal"]["action"],
                "deadline_ns": manifest["on_withdrawal"]["deadline_ms"] * 1_000_000,
            },
            stage=stage,
            weight_ppm=weight_ppm,
        )


def spec_content(content: PromotedContent) -> dict[str, Any]:
    """Engine fields of a promoted config that do not depend on its permit.

    Parameters
    ----------
    content : PromotedContent
        Signed content.

    Returns
    -------
    dict
        Keyword arguments of `AlphaSpec`.
    """
    return {
        "alpha_id": content.alpha_id,
        "expression": content.expression,
        "kernel": content.kernel.model_dump() if content.kernel else None,
        "parameters": dict(content.parameters),
        "template": content.template.model_dump(),
        "order_qty": content.order_qty,
        "ttl_ns": content.ttl_ns,
        "limits": content.limits.model_dump(),
        "on_withdrawal": content.on_withdrawal.model_dump(),
    }


def resolve_template(
    alpha_id: str, template: Mapping[str, Any], parameters: Mapping[str, float]
) -> dict[str, Any]:
    """Replace every ``$parameter`` of a template by its number.

    Parameters
    ----------
    alpha_id : str
        For messages.
    template : mapping
        ``kind`` and its keys; a value is a number or ``$name``.
    parameters : mapping of str to float
        Chosen values.

    Returns
    -------
    dict
        As engine and promoted config take it: durations and ticks of slippage are integers, and
        what is no number (`kind`, `sigma_source`, `horizon`) stays a word.

    Raises
    ------
    PlatformError
        MANIFEST_INVALID for an unknown kind, key or parameter, or a number out of its range;
        EXTERNAL_NOT_PERMITTED for a plain Python strategy.
    """
    if template.get("kind") == "external":
        raise PlatformError(
            ReasonCode.EXTERNAL_NOT_PERMITTED,
            f"alpha {alpha_id}: template external is a plain Python strategy: slow, for prototypes,"
            " judged by no gate",
            next_step="docs/python-strategies.md; write it as an expression or a kernel",
        )
    model = _TEMPLATES.get(str(template.get("kind")))
    if model is None:
        raise _invalid(
            alpha_id,
            f"template kind was {template.get('kind')!r}; allowed: {', '.join(sorted(_TEMPLATES))}",
        )
    resolved: dict[str, Any] = {}
    for key, value in template.items():
        if isinstance(value, str) and value.startswith("$"):
            if value[1:] not in parameters:
                raise _invalid(
                    alpha_id, f"template names {value}; parameters are {sorted(parameters)}"
                )
            value = parameters[value[1:]]
        if key not in _WORD_KEYS and not isinstance(value, str):
            value = float(value)
            if key in _INTEGER_KEYS and value.is_integer():
                value = int(value)
        resolved[key] = value
    try:
        model.model_validate(resolved)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise _invalid(
            alpha_id,
            f"template field {'.'.join(map(str, problem['loc']))}: {problem['msg']}, "
            f"was {problem.get('input')!r:.80}",
        ) from error
    return resolved


def build_engine_config(
    alphas: Iterable[AlphaSpec],
    *,
    instruments: InstrumentTable | Iterable[Instrument],
    session: Session,
    account_limits: Mapping[str, int | None],
    storm_guard: Mapping[str, Any],
    daily_limits: Mapping[str, tuple[int, int]] | None = None,
) -> dict[str, Any]:
    """Build the engine config of one session.

    Parameters
    ----------
    alphas : iterable of AlphaSpec
        In the order of their `alpha_index`.
    instruments : InstrumentTable or iterable of Instrument
        Where the alphas' symbols are looked up.
    session : Session
        Which session, with its phases.
    account_limits : mapping of str to int
        Limits of the account, engine keys.
    storm_guard : mapping
        Thresholds and times of the storm guard, engine keys (`Settings.storm_guard`).
    daily_limits : mapping of str to (int, int), optional
        Limit-up and limit-down prices by symbol; a symbol left out has none.

    Returns
    -------
    dict
        Content whose canonical JSON is what the engine takes and what its hash is over.

    Raises
    ------
    PlatformError
        UNKNOWN_INSTRUMENT, or MANIFEST_INVALID when a spec does not fit.
    """
    specs = list(alphas)
    find = _finder(instruments)
    used = sorted({spec.symbol: find(spec.symbol) for spec in specs}.values(), key=_instrument_id)
    limits_of = daily_limits or {}
    return {
        "schema": SCHEMA,
        "session": {
            "session_id": session.session_id,
            "trading_day": session.trading_day,
            "phases": [phase.as_dict() for phase in (*session.preopen_phases, *session.phases)],
        },
        "instruments": [
            _instrument(instrument.on(session.trading_day), limits_of.get(instrument.symbol))
            for instrument in used
        ],
        "alphas": [
            _alpha(index, spec, find(spec.symbol).instrument_id) for index, spec in enumerate(specs)
        ],
        "account_limits": dict(account_limits),
        "storm_guard": dict(storm_guard),
    }


def engine_config_json(config: Mapping[str, Any]) -> str:
    """Canonical JSON text of an engine config."""
    return canonical_json(dict(config)).decode("utf-8")


def engine_config_sha256(config: Mapping[str, Any]) -> str:
    """Content hash of an engine config."""
    return canonical_sha256(dict(config))


def _alpha(index: int, spec: AlphaSpec, instrument_id: int) -> dict[str, Any]:
    PromotedLimits.model_validate(dict(spec.limits))
    OnWithdrawal.model_validate(dict(spec.on_withdrawal))
    return {
        "alpha_index": index,
        "alpha_id": spec.alpha_id,
        "instrument_id": instrument_id,
        **({"kernel": dict(spec.kernel)} if spec.kernel else {"expression": spec.expression}),
        "parameters": {name: float(value) for name, value in sorted(spec.parameters.items())},
        "template": dict(spec.template),
        "order_qty": spec.order_qty,
        "ttl_ns": spec.ttl_ns,
        "limits": dict(spec.limits),
        "stage": spec.stage,
        "weight_ppm": spec.weight_ppm,
        "expires_ns": spec.expires_ns,
        "promotion_seq": spec.promotion_seq,
        "config_sha256": spec.config_sha256,
        "on_withdrawal": dict(spec.on_withdrawal),
    }


def _kernel(manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    if not manifest.get("kernel"):
        return None
    kernel = kernel_of_source(manifest["kernel_source"])
    return kernel_config(kernel, sign=int(manifest.get("kernel_sign", 1)))


def _instrument(instrument: Instrument, daily: tuple[int, int] | None) -> dict[str, Any]:
    return {
        "instrument_id": instrument.instrument_id,
        "symbol": instrument.symbol,
        **_ticks(instrument, daily),
        "lot_size": instrument.lot_size,
        "multiplier": instrument.multiplier,
        "limit_up": daily[0] if daily else None,
        "limit_down": daily[1] if daily else None,
        "order_qty_max": instrument.order_qty_max,
        "banding_bps": instrument.banding_bps,
        "eligibility": instrument.eligibility,
        "costs": instrument.costs.as_dict(),
    }


def _ticks(instrument: Instrument, daily: tuple[int, int] | None) -> dict[str, Any]:
    """The ladder, and the step that signals are counted in: that in the middle of the day."""
    if len(instrument.tick_bands) == 1:
        return {"tick_size": instrument.tick_size}
    middle = 0 if daily is None else (daily[0] + daily[1]) // 2
    return {"tick_size": instrument.ticks.tick_at(middle)} | instrument.bands_json()


def _finder(instruments: Any) -> Callable[[str], Instrument]:  # Any: a table or an iterable
    by_symbol = getattr(instruments, "by_symbol", None)
    if by_symbol is not None:
        return cast("Callable[[str], Instrument]", by_symbol)
    table: dict[str, Instrument] = {row.symbol: row for row in instruments}

    def find(symbol: str) -> Instrument:
        if symbol not in table:
            raise PlatformError(
                ReasonCode.UNKNOWN_INSTRUMENT,
                f"{symbol} is not among the session's instruments: {', '.join(sorted(table))}",
            )
        return table[symbol]

    return find


def _instrument_id(instrument: Instrument) -> int:
    return instrument.instrument_id


def _chosen(
    alpha_id: str, declared: Mapping[str, Any], parameters: Mapping[str, float]
) -> dict[str, float]:
    if set(declared) != set(parameters):
        raise _invalid(
            alpha_id,
            f"has parameters {sorted(declared)}; values were given for {sorted(parameters)}",
        )
    values = {name: float(parameters[name]) for name in sorted(parameters)}
    for name, value in values.items():
        if not math.isfinite(value):
            raise _invalid(alpha_id, f"parameter {name} was {value}; it is finite")
    return values


def _invalid(alpha_id: str, text: str) -> PlatformError:
    return PlatformError(ReasonCode.MANIFEST_INVALID, f"alpha {alpha_id} {text}")
