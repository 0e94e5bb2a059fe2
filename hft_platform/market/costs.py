"""Cost models of instruments: their fields and ranges; the arithmetic is in the core.

Why: gates, runtime and cost analysis charge by one implementation (`rust_core/src/costs.rs`).

Invariants:
1. `as_dict` is exactly what the core parses; nothing is computed here.
2. Money is an integer at 1e-8 of the instrument's currency.

It fetches no fee schedule. Operator's page: `docs/instruments.md`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from hft_platform import _core
from hft_platform.errors import PlatformError, ReasonCode


@dataclass(frozen=True, slots=True)
class TaifexFutureCosts:
    """Transaction tax on each side and a commission per lot.

    Attributes
    ----------
    tax_rate_ppb : int
        Tax in parts of 1e9 of the contract value; 20,000 is 2e-5.
    tax_round : bool
        Round the tax of each contract to 1.0 of currency, at least 1.0.
    commission_per_lot : int
        One lot, one side, scaled money.
    """

    kind: ClassVar[str] = "taifex_future"

    tax_rate_ppb: int
    tax_round: bool
    commission_per_lot: int

    def as_dict(self) -> dict[str, Any]:
        """What the core parses."""
        return {
            "kind": self.kind,
            "tax_rate_ppb": self.tax_rate_ppb,
            "tax_round": self.tax_round,
            "commission_per_lot": self.commission_per_lot,
        }


@dataclass(frozen=True, slots=True)
class TaifexOptionCosts(TaifexFutureCosts):
    """Transaction tax on the premium of each side and a commission per lot.

    Attributes are those of `TaifexFutureCosts`; 1,000,000 of `tax_rate_ppb` is 0.1 %.
    """

    kind: ClassVar[str] = "taifex_option"


@dataclass(frozen=True, slots=True)
class TaiwanStockCosts:
    """A brokerage fee on both sides and a tax on sales, each cut to whole units of currency.

    Attributes
    ----------
    fee_rate_ppb : int
        Fee in parts of 1e9 of the value; 1,425,000 is 0.1425 %.
    fee_share_ppm : int
        What the broker's discount leaves of it, parts per million.
    fee_min : int
        Least fee of a trade, scaled money.
    sell_tax_ppb : int
        Tax of a sale in parts of 1e9 of its value; half the rate when bought the same day.
    """

    fee_rate_ppb: int
    fee_share_ppm: int
    fee_min: int
    sell_tax_ppb: int

    def as_dict(self) -> dict[str, Any]:
        """What the core parses."""
        return {
            "kind": "taiwan_stock",
            "fee_rate_ppb": self.fee_rate_ppb,
            "fee_share_ppm": self.fee_share_ppm,
            "fee_min": self.fee_min,
            "sell_tax_ppb": self.sell_tax_ppb,
        }


@dataclass(frozen=True, slots=True)
class ValueBpsCosts:
    """A share of the traded value, in basis points; negative is a rebate.

    Attributes
    ----------
    maker_bps, taker_bps : float
        For passive and for aggressive fills.
    """

    maker_bps: float
    taker_bps: float

    def as_dict(self) -> dict[str, Any]:
        """What the core parses."""
        return {
            "kind": "value_bps",
            "maker_bps": float(self.maker_bps),
            "taker_bps": float(self.taker_bps),
        }


CostModel = TaifexFutureCosts | TaifexOptionCosts | TaiwanStockCosts | ValueBpsCosts


def trade_cost(
    costs: CostModel, *, price: int, qty: int, multiplier: int, side: int, is_maker: bool
) -> int:
    """Scaled money that one trade costs.

    Parameters
    ----------
    costs : CostModel
        Of the instrument.
    price, qty, multiplier : int
        Scaled; all positive.
    side : int
        +1 buy, -1 sell.
    is_maker : bool
        Whether the fill was passive.

    Returns
    -------
    int
        Scaled money; negative is a rebate.

    Raises
    ------
    PlatformError
        ARITHMETIC_OVERFLOW when an argument is out of range or the cost does not fit.
    """
    text = json.dumps(costs.as_dict(), sort_keys=True, separators=(",", ":"))
    try:
        return int(_core.trade_cost(text, price, qty, multiplier, side, is_maker))
    except OverflowError as error:  # an argument beyond 64 bits
        raise PlatformError(
            ReasonCode.ARITHMETIC_OVERFLOW,
            f"cost of price {price}, qty {qty}, multiplier {multiplier}: {error}",
        ) from error
    except _core.ConfigError as error:
        code, message = error.args
        raise PlatformError(int(code), str(message)) from error


def trade_tax(
    costs: CostModel, *, price: int, qty: int, multiplier: int, side: int, is_maker: bool
) -> int:
    """Part of `trade_cost` that is tax: what the model charges without its commission or fee.

    Parameters
    ----------
    costs : CostModel
        Of the instrument; a model by value knows no tax.
    price, qty, multiplier : int
        Scaled; all positive.
    side : int
        +1 buy, -1 sell.
    is_maker : bool
        Whether the fill was passive.

    Returns
    -------
    int
        Scaled money.
    """
    bare: CostModel
    if isinstance(costs, TaifexFutureCosts):
        bare = replace(costs, commission_per_lot=0)
    elif isinstance(costs, TaiwanStockCosts):
        bare = replace(costs, fee_rate_ppb=0, fee_min=0)
    else:
        return 0
    return trade_cost(
        bare, price=price, qty=qty, multiplier=multiplier, side=side, is_maker=is_maker
    )
