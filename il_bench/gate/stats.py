"""Pure functions on arrays of outcomes: intervals, and evidence that is valid whenever you stop.

An e-process is the wealth of a gambler who bets against a hypothesis, at odds that are fair or worse if the
hypothesis is true. It ever reaches 1/risk with probability at most `risk` (Ville's inequality), so you may
look at it after every episode. Evidence, here, is the log of such a wealth.

Sources: Wald, "Sequential Tests of Statistical Hypotheses", Ann. Math. Statist. 16 (1945), for the likelihood
ratio; Waudby-Smith & Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86 (2024; read
before the society in 2023), for the bets; Clopper & Pearson, Biometrika 26 (1934), for the binomial interval;
Robbins, "Statistical methods related to the law of the iterated logarithm", Ann. Math. Statist. 41 (1970),
and Orabona & Jun, "Tight concentrations and confidence sequences from the regret of universal portfolio",
IEEE Trans. Inf. Theory 70 (2024), for the confidence sequence.
"""

from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize
from scipy import stats as scipy_stats

from il_bench.errors import IlBenchError

Floats = NDArray[np.float64]

_PRIOR_EPISODES = 10  # what a bet assumes before the first episode weighs as much as so many episodes
_MAX_STAKE = 0.5  # a bet risks at most this share of the wealth on one episode, so that none can ruin it
# Nodes of the mixture behind a confidence sequence. With so many it equals the uniform mixture up to 255
# episodes; beyond, its weights still sum to 1, which is all that the coverage needs.
_NODES = 128
_EDGE = 1e-12  # the ends of a confidence sequence are searched no closer to 0 and 1


def clopper_pearson(k: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the exact two-sided interval for a rate after `k` successes in `n` independent episodes.

    It covers the true rate with at least `confidence` if `n` was fixed beforehand (Clopper & Pearson 1934);
    after early stopping it guarantees nothing.
    """
    if n < 1 or not 0 <= k <= n:
        raise IlBenchError(f"k = {k} successes in n = {n} episodes: need n >= 1 and 0 <= k <= n")
    tail = _tail(confidence)
    low = float(scipy_stats.beta.ppf(tail, k, n - k + 1)) if k > 0 else 0.0
    high = float(scipy_stats.beta.ppf(1 - tail, k + 1, n - k)) if k < n else 1.0
    return low, high


def mean_interval(x: ArrayLike, confidence: float, rng: np.random.Generator) -> tuple[float, float]:
    """Return a two-sided interval (low <= mean(x) <= high) for the mean of values x: (N,) in [0, 1].

    A bias-corrected and accelerated bootstrap (Efron 1987; scipy.stats.bootstrap), drawn from `rng` only.
    If all values are equal, a bootstrap says nothing. Then the interval is Clopper & Pearson's for the share
    of episodes that have this value, while the others may lie anywhere in [0, 1].
    """
    values = _sample(x)
    tail = _tail(confidence)
    mean = float(values.mean())
    if np.ptp(values) < 1e-9:
        share = tail ** (1 / values.size)
        return share * mean, share * mean + (1 - share)
    options = {"n_resamples": 9999, "batch": 1000, "rng": rng, "method": "BCa"}
    found = scipy_stats.bootstrap((values,), np.mean, confidence_level=confidence, **options)
    low, high = found.confidence_interval
    # With few values the bootstrap's interval may miss the mean; an error bar has to contain its point.
    return float(np.clip(low, 0.0, mean)), float(np.clip(high, mean, 1.0))


def confidence_sequence(x: ArrayLike, confidence: float = 0.95) -> tuple[float, float]:
    """Return a two-sided interval (low <= mean(x) <= high) for the mean, also after early stopping.

    x: (N,) in [0, 1]. With probability at least `confidence`, the intervals after 1, 2, 3, .. episodes all
    cover the mean, so the last one does too, whatever ended the episodes. It assumes only that each value,
    given the earlier ones, has this mean. At 50 to 1,000 episodes it is 1.5 to 1.8 times as wide as an
    interval for an N fixed beforehand.

    It holds the means m at which a fair bet has won less than 1 / (1 - confidence). The bet is Cover's
    universal portfolio: the average over theta in [0, 1] of the product of all
    x_i * theta / m + (1 - x_i) * (1 - theta) / (1 - m) (Orabona & Jun 2024). For successes, these are the
    rates at which k successes in N have a probability above (1 - confidence) / (N + 1) (Robbins 1970). The
    order of the episodes makes no difference.
    """
    values, counts = np.unique(_sample(x), return_counts=True)
    _tail(confidence)  # checks it
    theta, log_weights = _mixture()
    level = float(np.log(1.0 - confidence))

    def excess(mean: float) -> float:
        """The portfolio's evidence against this mean, 0 < mean < 1, beyond the level."""
        success, failure = theta / mean, (1.0 - theta) / (1.0 - mean)
        logs = np.log(np.outer(success, values) + np.outer(failure, 1.0 - values)) @ counts
        return float(np.logaddexp.reduce(log_weights + logs)) + level

    # Against the sample's own mean no portfolio wins, and its wealth is log-convex in the mean it bets
    # against (a sum of products of log-convex factors): it crosses the level at most once on either side.
    middle = float(np.clip(values @ counts / counts.sum(), _EDGE, 1.0 - _EDGE))
    low = optimize.brentq(excess, _EDGE, middle) if excess(_EDGE) > 0.0 else 0.0
    high = optimize.brentq(excess, middle, 1.0 - _EDGE) if excess(1.0 - _EDGE) > 0.0 else 1.0
    return float(low), float(high)


def bernoulli_evidence(success: ArrayLike, *, against: float, alternative: float) -> Floats:
    """Return the running evidence against a success rate, the log likelihood ratio alternative : against.

    success: (..., N) of 0 and 1 in the order of the test. Result: (..., N), entry i after i + 1 episodes.
    The hypothesis is `p >= against` if alternative < against, else `p <= against`. The ratio is an e-process
    for all of it: the bets are fair at `against` and unfavourable beyond (Wald 1945).
    """
    outcomes = binary(success, name="success")
    _check_points(against, alternative, low=0.0, high=1.0)
    gain, loss = np.log(alternative / against), np.log((1 - alternative) / (1 - against))
    return np.cumsum(np.where(outcomes == 1.0, gain, loss), axis=-1)


def mean_evidence(x: ArrayLike, *, against: float, alternative: float, low: float, high: float) -> Floats:
    """Return the running evidence against a mean of values in [low, high], won by predictable bets.

    x: (..., N) in the order of the test. Result: (..., N), entry i after i + 1 episodes.
    The hypothesis is `mean >= against` if alternative < against, else `mean <= against`, for the mean of each
    value given the earlier ones. Nothing else is assumed.

    The wealth is prod(1 + bet_i * gain_i). gain_i is x_i - against, signed towards the alternative; bet_i
    depends on x_1 .. x_{i-1} alone (Waudby-Smith & Ramdas, section 4). The wealth grows fastest, to second
    order, with the bet effect / (variance + effect^2), where `effect` is the mean gain: here the declared
    distance to the alternative, or the mean gain so far if that is larger.
    """
    values = bounded(x, low=low, high=high, name="x")
    _check_points(against, alternative, low=low, high=high)
    up = alternative > against
    gains = values - against if up else against - values
    largest_loss = against - low if up else high - against
    declared = abs(alternative - against)

    weight = np.arange(values.shape[-1]) + _PRIOR_EPISODES
    prior_square = ((high - low) / 2) ** 2 + declared**2  # as if the values had the largest possible variance
    mean = (_sum_before(gains) + _PRIOR_EPISODES * declared) / weight
    square = (_sum_before(gains**2) + _PRIOR_EPISODES * prior_square) / weight
    variance = np.maximum(square - mean**2, 0.0)
    effect = np.maximum(mean, declared)
    bets = np.minimum(effect / (variance + effect**2), _MAX_STAKE / largest_loss)
    return np.cumsum(np.log1p(bets * gains), axis=-1)


def episodes_to_reach(evidence: Floats, risk: float) -> NDArray[np.int64]:
    """Return after how many episodes evidence (..., N) first reaches log(1 / risk), 0 if never: (...)."""
    if evidence.shape[-1] == 0:
        return np.zeros(evidence.shape[:-1], dtype=np.int64)
    reached = evidence >= -np.log(risk)
    return np.where(reached.any(axis=-1), reached.argmax(axis=-1) + 1, 0)


def bounded(x: ArrayLike, *, low: float, high: float, name: str) -> Floats:
    """Return x as float64. Raises IlBenchError naming the first entry that is NaN or outside [low, high]."""
    values = np.asarray(x, dtype=np.float64)
    return _all(values, (values >= low) & (values <= high), f"a number in [{low:g}, {high:g}]", name)


def binary(x: ArrayLike, *, name: str) -> Floats:
    """Return x as float64. Raises IlBenchError naming the first entry that is neither 0 nor 1."""
    values = np.asarray(x, dtype=np.float64)
    is_binary = (values == 0.0) | (values == 1.0)
    return _all(values, is_binary, "0 or 1 (values between belong to mean_max_reward)", name)


def _all(values: Floats, right: NDArray[np.bool_], needed: str, name: str) -> Floats:
    wrong = np.flatnonzero(~right)
    if wrong.size:
        raise IlBenchError(f"{name}[{wrong[0]}] = {values.reshape(-1)[wrong[0]]}: need {needed}")
    return values


@cache
def _mixture() -> tuple[Floats, Floats]:
    """Return Gauss-Legendre nodes in (0, 1) and the logs of their weights, which sum to 1: (_NODES,) each."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    return (nodes + 1.0) / 2.0, np.log(weights / 2.0)


def _sample(x: ArrayLike) -> Floats:
    values = bounded(x, low=0.0, high=1.0, name="x")
    if values.ndim != 1 or values.size == 0:
        raise IlBenchError(f"x has shape {values.shape}: need one value an episode, (N,) with N >= 1")
    return values


def _sum_before(x: Floats) -> Floats:
    """Return for each entry the sum of the earlier ones: (..., N) -> (..., N), first column 0."""
    sums = np.zeros_like(x)
    np.cumsum(x[..., :-1], axis=-1, out=sums[..., 1:])
    return sums


def _tail(confidence: float) -> float:
    if not 0.0 < confidence < 1.0:
        raise IlBenchError(f"confidence = {confidence}: need a number between 0 and 1, such as 0.95")
    return (1.0 - confidence) / 2.0


def _check_points(against: float, alternative: float, *, low: float, high: float) -> None:
    for name, point in (("against", against), ("alternative", alternative)):
        if not low < point < high:
            raise IlBenchError(f"{name} = {point}: need a number strictly between {low:g} and {high:g}")
    if against == alternative:
        raise IlBenchError(f"against = alternative = {against}: no episode can tell them apart; use a margin")
