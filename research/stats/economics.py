"""What trading on a signal costs in size: turnover, and the size that the market has room for."""

from __future__ import annotations


def turnover(traded_qty: float, *, periods: int) -> float | None:
    """Mean absolute change of position per period.

    Parameters
    ----------
    traded_qty : float
        Sum of the quantities of all fills, which is the sum of all changes of position.
    periods : int
        Number of periods.

    Returns
    -------
    float or None
        In the unit of `traded_qty`; None without periods.
    """
    return traded_qty / periods if periods else None


def square_root_impact(
    qty: float, *, volatility: float, volume: float, coefficient: float = 1.0
) -> float:
    """Price move that an order of some size causes.

    Parameters
    ----------
    qty : float
        Size of the order.
    volatility : float
        Standard deviation of the price over a period, in any unit of price.
    volume : float
        Quantity traded by the market in such a period, in the unit of `qty`.
    coefficient : float, optional
        Y of the law; about 1 in every market measured.

    Returns
    -------
    float
        ``Y sigma sqrt(q / V)``, in the unit of `volatility`.

    Notes
    -----
    Toth et al., Anomalous Price Impact and the Critical Nature of Liquidity, Phys. Rev. X 1 (2011).
    """
    return float(coefficient * volatility * (qty / volume) ** 0.5)


def capacity(
    net_edge: float, *, volatility: float, volume: float, coefficient: float = 1.0
) -> float | None:
    """Order size at which square-root impact, paid on the way in and out, takes half the net edge.

    Parameters
    ----------
    net_edge : float
        Net profit of a round trip per unit traded, in the unit of `volatility`.
    volatility, volume, coefficient : float
        As in `square_root_impact`.

    Returns
    -------
    float or None
        ``V (edge / (4 Y sigma))^2``; None when there is no edge or the market does not move or
        trade.
    """
    if net_edge <= 0.0 or volatility <= 0.0 or volume <= 0.0:
        return None
    return volume * (net_edge / (4.0 * coefficient * volatility)) ** 2
