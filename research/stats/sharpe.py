"""Sharpe ratio inference: probabilistic, deflated, minimum track record and backtest length."""

from __future__ import annotations

import math

from scipy import special

EULER_GAMMA = 0.5772156649015329


def normal_cdf(x: float) -> float:
    """Standard Normal distribution function."""
    return float(special.ndtr(x))


def normal_quantile(p: float) -> float:
    """Standard Normal quantile."""
    return float(special.ndtri(p))


def sharpe_variance_factor(sharpe: float, skewness: float, kurtosis: float) -> float:
    """Variance of the Sharpe estimator times (T - 1).

    Parameters
    ----------
    sharpe : float
        Per-period Sharpe ratio.
    skewness, kurtosis : float
        Moments of the series; kurtosis raw.

    Returns
    -------
    float
        ``1 - g3 SR + (g4 - 1) / 4 SR^2``; positive for the moments of any real series.

    Notes
    -----
    Mertens (2002); Bailey and Lopez de Prado, The Sharpe Ratio Efficient Frontier (2012), eq. 8.
    """
    return 1.0 - skewness * sharpe + (kurtosis - 1.0) / 4.0 * sharpe * sharpe


def probabilistic_sharpe(
    sharpe: float,
    *,
    count: int,
    benchmark: float = 0.0,
    skewness: float = 0.0,
    kurtosis: float = 3.0,
) -> float | None:
    """Probability that the true Sharpe ratio exceeds a benchmark.

    Parameters
    ----------
    sharpe : float
        Estimated per-period Sharpe ratio.
    count : int
        Number of periods.
    benchmark : float
        Per-period Sharpe ratio to beat.
    skewness, kurtosis : float
        Sample moments; kurtosis raw.

    Returns
    -------
    float or None
        None for fewer than two periods or impossible moments.

    Notes
    -----
    ``Phi((SR - SR*) sqrt(T - 1) / sqrt(1 - g3 SR + (g4 - 1)/4 SR^2))``: Bailey and Lopez de Prado,
    The Sharpe Ratio Efficient Frontier, Journal of Risk 15(2) 2012, eq. 11.
    """
    factor = sharpe_variance_factor(sharpe, skewness, kurtosis)
    if count < 2 or factor <= 0.0:
        return None
    return normal_cdf((sharpe - benchmark) * math.sqrt(count - 1) / math.sqrt(factor))


def expected_max_z(trials: float) -> float:
    """Expected maximum of N independent standard Normal draws.

    Parameters
    ----------
    trials : float
        N, the number of independent trials, an effective number among them; with one trial
        nothing was selected and it is 0.

    Returns
    -------
    float

    Notes
    -----
    ``(1 - G) Phi^-1(1 - 1/N) + G Phi^-1(1 - 1/(N e))``, G the Euler-Mascheroni constant: Bailey et
    al., Pseudo-Mathematics and Financial Charlatanism, Notices of the AMS 61(5) 2014, prop. 1.
    """
    if trials <= 1:
        return 0.0
    if trials < 2:
        # The approximation falls below zero there; an effective number may lie between.
        return (trials - 1.0) * expected_max_z(2)
    return (1.0 - EULER_GAMMA) * normal_quantile(1.0 - 1.0 / trials) + EULER_GAMMA * (
        normal_quantile(1.0 - 1.0 / (trials * math.e))
    )


def deflated_sharpe(
    sharpe: float,
    *,
    count: int,
    trials: float,
    trial_variance: float,
    skewness: float = 0.0,
    kurtosis: float = 3.0,
) -> tuple[float | None, float]:
    """Probability that the true Sharpe ratio exceeds what the best of N trials shows by luck.

    Parameters
    ----------
    sharpe : float
        Estimated per-period Sharpe ratio of the chosen trial.
    count : int
        Number of periods.
    trials : float
        Effective number of the trials that were run, the failed ones included.
    trial_variance : float
        Variance of the per-period Sharpe ratio across the trials.
    skewness, kurtosis : float
        Sample moments of the chosen trial; kurtosis raw.

    Returns
    -------
    probability : float or None
        The deflated Sharpe ratio.
    hurdle : float
        ``SR0 = sqrt(V) E[max z_N]``, per period.

    Notes
    -----
    Bailey and Lopez de Prado, The Deflated Sharpe Ratio, Journal of Portfolio Management 40(5)
    2014, eq. 2: SR 2.5 annual, T 1250, skewness -3, kurtosis 10, N 100, V 0.5 annual: 0.9004.
    """
    hurdle = math.sqrt(trial_variance) * expected_max_z(trials)
    probability = probabilistic_sharpe(
        sharpe, count=count, benchmark=hurdle, skewness=skewness, kurtosis=kurtosis
    )
    return probability, hurdle


def min_track_record_length(
    sharpe: float,
    *,
    benchmark: float = 0.0,
    confidence: float = 0.95,
    skewness: float = 0.0,
    kurtosis: float = 3.0,
) -> float | None:
    """Periods after which the Sharpe ratio would be above the benchmark with given confidence.

    Parameters
    ----------
    sharpe : float
        Per-period Sharpe ratio, assumed to persist.
    benchmark : float
        Per-period Sharpe ratio to beat.
    confidence : float
        One-sided confidence, for instance 0.95.
    skewness, kurtosis : float
        Moments of the series; kurtosis raw.

    Returns
    -------
    float or None
        Periods; None when the Sharpe ratio is not above the benchmark: no length would do.

    Notes
    -----
    Bailey and Lopez de Prado, The Sharpe Ratio Efficient Frontier, Journal of Risk 15(2) 2012,
    eq. 13: ``1 + (1 - g3 SR + (g4 - 1)/4 SR^2) (z / (SR - SR*))^2``.
    """
    factor = sharpe_variance_factor(sharpe, skewness, kurtosis)
    if sharpe <= benchmark or factor <= 0.0:
        return None
    return 1.0 + factor * (normal_quantile(confidence) / (sharpe - benchmark)) ** 2


def min_backtest_length_years(trials: int, *, annual_sharpe: float) -> tuple[float, float]:
    """Years of backtest below which the best of N skill-less trials shows a given Sharpe ratio.

    Parameters
    ----------
    trials : int
        N, the number of independent trials.
    annual_sharpe : float
        Annual Sharpe ratio that noise is tolerated to show.

    Returns
    -------
    length, bound : float
        Years, and the upper bound ``2 ln N / SR^2``.

    Notes
    -----
    Bailey et al., Pseudo-Mathematics and Financial Charlatanism, Notices of the AMS 61(5) 2014,
    theorem 1 and figure 2: 45 trials give five years at an annual Sharpe ratio of 1.
    """
    length = (expected_max_z(trials) / annual_sharpe) ** 2
    return length, 2.0 * math.log(trials) / annual_sharpe**2


def haircut_sharpe_bonferroni(
    annual_sharpe: float,
    *,
    periods_per_year: int,
    count: int,
    autocorrelation: float,
    tests: int,
) -> tuple[float, float, float]:
    """Haircut a Sharpe ratio for multiple tests, Bonferroni leg.

    Parameters
    ----------
    annual_sharpe : float
        Annualized Sharpe ratio (by the square root of time).
    periods_per_year : int
        Observations a year.
    count : int
        Number of observations.
    autocorrelation : float
        Lag-1 autocorrelation of the returns.
    tests : int
        Number of tests, this one included.

    Returns
    -------
    sharpe, p_adjusted, sharpe_haircut : float
        Annual Sharpe ratio corrected for autocorrelation, adjusted p value, haircut Sharpe ratio.

    Notes
    -----
    Harvey and Liu, Backtesting, Journal of Portfolio Management 42(1) 2015; autocorrelation
    correction of Lo (2002).
    """
    k, r = periods_per_year, autocorrelation
    correction = math.sqrt(1.0 + 2.0 * r / (1.0 - r) * (1.0 - (1.0 - r**k) / (k * (1.0 - r))))
    corrected = annual_sharpe / correction
    t_value = corrected / math.sqrt(k) * math.sqrt(count)
    p_value = 2.0 * float(special.stdtr(count - 1, -t_value))
    p_adjusted = min(1.0, tests * p_value)
    t_adjusted = -float(special.stdtrit(count - 1, p_adjusted / 2.0))
    return corrected, p_adjusted, t_adjusted / math.sqrt(count) * math.sqrt(k)


def periods_to_pass(
    sharpe: float,
    *,
    trials: float,
    t_min: float,
    confidence: float,
    skewness: float,
    kurtosis: float,
    standardized_variance: float = 1.0,
) -> int | None:
    """Periods after which a persisting Sharpe ratio passes both the t and the deflation hurdle.

    Parameters
    ----------
    sharpe : float
        Per-period Sharpe ratio, assumed to persist.
    trials : float
        Effective number of trials for the deflation.
    t_min : float
        Smallest t value of the mean.
    confidence : float
        Deflated Sharpe ratio to reach.
    skewness, kurtosis : float
        Moments of the series; kurtosis raw.
    standardized_variance : float, optional
        Variance of the Sharpe ratio across trials over that of trials without skill, 1/T.

    Returns
    -------
    int or None
        None when the Sharpe ratio is not positive.

    Notes
    -----
    The larger of ``(t_min / SR)^2`` and, with V = v/T, the root T of
    ``SR sqrt(T - 1) - E[max z_N] sqrt(v (T - 1) / T) = z sqrt(factor)``, by bisection.
    """
    factor = sharpe_variance_factor(sharpe, skewness, kurtosis)
    if sharpe <= 0.0 or factor <= 0.0:
        return None
    for_t = (t_min / sharpe) ** 2
    hurdle = expected_max_z(trials) * math.sqrt(standardized_variance)
    z = normal_quantile(confidence) * math.sqrt(factor)

    def missing(periods: float) -> float:
        return sharpe * math.sqrt(periods - 1.0) - hurdle * math.sqrt((periods - 1.0) / periods) - z

    low, high = 2.0, 4.0 + 2.0 * ((hurdle + max(z, 0.0)) / sharpe) ** 2
    while missing(low) < 0.0 and high - low > 1e-6 * low:
        middle = (low + high) / 2.0
        low, high = (middle, high) if missing(middle) < 0.0 else (low, middle)
    for_dsr = low if missing(low) >= 0.0 else high
    return math.ceil(max(for_t, for_dsr))
