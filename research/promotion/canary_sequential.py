"""Sequential tests that may be looked at after every session: two e-processes and what they bound.

Why: a canary is looked at after each session, and a fixed-sample test looked at forty times is
fooled far more often than it says; these are not, however often and whenever one looks.

Invariants:
1. While the null holds, the expected wealth of every bet is at most 1 after any session, whatever
   the past was, so a mixture of bets has it too.
2. By Ville's inequality the wealth ever reaches 1 / a with probability at most a; the functions
   give the largest log wealth so far, so a rejection stays one.
3. No clock, no randomness, no file: equal numbers in, equal numbers out.

Means: with a shortfall x (positive is worse) of mean at most 0 and variance at most v, cut at c, a
bet of b multiplies its wealth by exp(b min(x, c) - v (exp(b c) - 1 - b c) / c^2). By Bennett's
inequality this has mean at most 1 for any distribution. Rates: with k of n trials each of
probability at most p given the past, the likelihood ratio (q/p)^k ((1-q)/(1-p))^(n-k) for a q
above p has mean at most 1. (Ville 1939; Waudby-Smith and Ramdas (2024), JRSS B 86(1); Howard et
al. (2021), Annals of Statistics 49(2).)

A metric that goes bad late must not be excused by a good past: at every session a share of what was
not bet yet starts bets afresh, so the wealth is a mixture over bets and over the session that the
trouble began at. Dividing 1 into shares keeps its mean at most 1.

It knows no canary. Operator's page: `docs/canary.md`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FIRST_SHARE = 0.5
"""Of the wealth, bet from the first session on."""
FRESH_SHARE = 0.1
"""Of what was not bet yet, bet anew at every later session."""


@dataclass(frozen=True, slots=True)
class Bet:
    """One bet of a test of a mean.

    Attributes
    ----------
    stake : float
        Share of wealth for each deviation of shortfall, above 0.
    cut : float
        A shortfall counts at most this many deviations.
    """

    stake: float
    cut: float

    def price(self, variance: float) -> float:
        """What the bet costs a session: Bennett's bound of its gain."""
        reach = self.stake * self.cut
        return variance * (math.exp(reach) - 1.0 - reach) / (self.cut * self.cut)


def mean_log_evidence(
    shortfalls: Sequence[float], bets: Sequence[Bet], *, variance: float
) -> float:
    """Largest log evidence so far that the mean shortfall is above 0.

    Parameters
    ----------
    shortfalls : sequence of float
        In order, in deviations; positive is worse than promised.
    bets : sequence of Bet
        Their equal mixture is the evidence.
    variance : float
        Upper bound of the shortfall's variance while the null holds.

    Returns
    -------
    float
        Natural logarithm, at least 0 (nothing was bet before the first session).
    """
    stakes = np.array([bet.stake for bet in bets])
    cuts = np.array([bet.cut for bet in bets])
    prices = np.array([bet.price(variance) for bet in bets])
    counted = np.minimum(np.array(shortfalls, dtype=np.float64)[:, None], cuts)
    return _largest(stakes * counted - prices)


def rate_log_evidence(
    counts: Sequence[tuple[int, int]], rate_max: float, alternatives: Sequence[float]
) -> float:
    """Largest log evidence so far that the probability of a bad outcome is above `rate_max`.

    Parameters
    ----------
    counts : sequence of tuple of int and int
        Bad outcomes and trials of each session, in order.
    rate_max : float
        Largest probability under the null, between 0 and 1.
    alternatives : sequence of float
        Probabilities above `rate_max` that the mixture bets on.

    Returns
    -------
    float
        Natural logarithm, at least 0.
    """
    rates = np.array(alternatives)
    if_bad, if_good = np.log(rates / rate_max), np.log((1.0 - rates) / (1.0 - rate_max))
    rows = np.array(counts, dtype=np.float64).reshape(-1, 2)
    bad, good = rows[:, :1], rows[:, 1:] - rows[:, :1]
    return _largest(bad * if_bad + good * if_good)


def _largest(gains: npt.NDArray[np.float64]) -> float:
    """Largest log wealth when every session (a row) pays each running bet (a column) its log gain.

    With C the running sum of gains and w(j) what is bet first at session j, a bet's wealth after
    session n is the sum over j up to n of w(j) exp(C(n) - C(j - 1)).
    """
    count, bets = gains.shape
    if count == 0:
        return 0.0
    kept = math.log1p(-FIRST_SHARE) + np.arange(count) * math.log1p(-FRESH_SHARE)
    fresh = np.concatenate(([math.log(FIRST_SHARE)], kept[:-1] + math.log(FRESH_SHARE)))
    paid = np.cumsum(gains, axis=0)
    before = np.vstack([np.zeros(bets), paid[:-1]])
    started = (fresh - math.log(bets))[:, None] - before
    wealth = paid + np.logaddexp.accumulate(started, axis=0)
    total = np.logaddexp(np.logaddexp.reduce(wealth, axis=1), kept)
    return max(0.0, float(total.max()))


def ruin_bound(drift: float, loss: float, *, variance: float, shortfall_max: float) -> float:
    """Bound on the chance that a sum with this drift ever falls to minus `loss`.

    Parameters
    ----------
    drift : float
        Mean of a term, above 0.
    loss : float
        Depth, above 0, in deviations.
    variance : float
        Upper bound of a term's variance.
    shortfall_max : float
        A term is at least `drift` less this much.

    Returns
    -------
    float
        exp(-r loss) with the largest r for which exp(-r term) has mean at most 1 by Bennett's
        inequality; 1 without a drift.
    """
    if drift <= 0:
        return 1.0

    def grows(rate: float) -> bool:
        return Bet(rate, shortfall_max).price(variance) > rate * drift

    low, high = 0.0, 1.0
    while not grows(high):
        low, high = high, 2.0 * high
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if grows(middle) else (middle, high)
    return math.exp(-low * loss)
