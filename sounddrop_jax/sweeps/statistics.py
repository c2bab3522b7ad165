"""Paired scores: from two arms that share their seeds to intervals and tests.

Scores have a leading axis of seeds, `[S]` or `[S, ...]`, and entry k of both arms comes
from the same seed; whatever axes follow are compared one by one. Differences are scores
minus baseline. Masked entries are refused, like NaN. SciPy is imported when a function
needs it.
"""

import difflib
import functools
import importlib
import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

METHODS = ("studentized", "t")
"""The intervals that `mean_interval` knows."""

NUM_FLIPS = 2**16
"""How many choices of signs `sign_flip_test` looks at: all of them up to 16 seeds."""

_MIN_STUDENTIZED = 8  # with fewer, resamples of almost no variance abound
_BLOCK = 32  # comparisons worked on at a time: 16 MiB for 2^16 flips of their signs
_BLOCK_NUMBERS = 2**18  # of signs or weights: 2 MiB, which caches of processors hold


class MeanInterval(NamedTuple):
    """An interval for the mean difference of two arms.

    Attributes:
        low: float64 `[...]`.
        high: float64 `[...]`.
        method: of strings, `[...]`: one of `METHODS`, or "none" where all differences
            are equal, and `low` and `high` with them.

    Example:
        >>> interval: MeanInterval = mean_interval([1.0, 2.0, 3.0, 5.0], [0.0] * 4)
        >>> bool(interval.low < 2.75 < interval.high), str(interval.method)
        (True, 't')
    """

    low: np.ndarray
    high: np.ndarray
    method: np.ndarray


class Improvement(NamedTuple):
    """How often one arm beats the other on the same seed.

    Attributes:
        probability: float64 `[...]`, in [0, 1]; 0.5 if the arms are alike.
        low: float64 `[...]`, the lower end of its interval.
        high: float64 `[...]`, the upper end.

    Example:
        >>> better: Improvement = improvement_probability([1, 2, 3, 5], [0, 3, 0, 0])
        >>> better.probability.item(), bool(better.low < 0.75 < better.high)
        (0.75, True)
    """

    probability: np.ndarray
    low: np.ndarray
    high: np.ndarray


class PairedComparison(NamedTuple):
    """Two arms compared pair by pair.

    Attributes:
        num_seeds: the number of pairs.
        mean_difference: of scores minus baseline.
        std_difference: the sample standard deviation of the differences.
        low: the lower end of the interval for the mean difference.
        high: its upper end.
        interval_method: what made the interval, see `MeanInterval`.
        p_value: of the two-sided sign-flip test, not corrected for other comparisons.
        improvement: the probability that the scores beat the baseline, from 0 to 1.
        improvement_low: the lower end of its interval.
        improvement_high: its upper end.

    Example:
        >>> compared: PairedComparison = compare_pairs([1, 2, 3, 5], [0, 0, 0, 0])
        >>> compared.num_seeds, compared.mean_difference, compared.p_value
        (4, 2.75, 0.125)
    """

    num_seeds: int
    mean_difference: float
    std_difference: float
    low: float
    high: float
    interval_method: str
    p_value: float
    improvement: float
    improvement_low: float
    improvement_high: float


def compare_pairs(
    scores: ArrayLike,
    baseline: ArrayLike,
    *,
    method: str = "studentized",
    confidence: float = 0.95,
    seed: int = 0,
) -> PairedComparison:
    """Compares two arms that share their seeds: how large, how sure, how often.

    Args:
        scores: real `[S]`, one arm, at least 2 seeds.
        baseline: real `[S]`, the other arm, its entries from the same seeds in the same
            order.
        method: of the interval, see `mean_interval`.
        confidence: of both intervals, above 0 and below 1.
        seed: of the resamples and of the flips. The same seed gives the same numbers.

    Returns:
        What `mean_interval`, `sign_flip_test` and `improvement_probability` say.

    Raises:
        ValueError: if the arms differ in length, have fewer than 2 seeds or more axes
            than one, or hold NaN or infinity; or if an argument is out of range.
        ImportError: SciPy is not installed.

    Example:
        >>> dropout = [0.721, 0.719, 0.725, 0.722, 0.718, 0.724, 0.720, 0.723]
        >>> water = [0.726, 0.722, 0.729, 0.727, 0.717, 0.731, 0.724, 0.729]
        >>> result = compare_pairs(water, dropout)
        >>> result.num_seeds, round(result.mean_difference, 4), result.p_value
        (8, 0.0041, 0.015625)
        >>> 0 < result.low < result.mean_difference < result.high
        True
        >>> result.improvement  # seven of eight
        0.875
    """
    if np.ndim(scores) != 1:
        raise ValueError(
            f"A comparison takes one score per seed, [S], but scores have shape "
            f"{np.shape(scores)}; compare one condition at a time."
        )
    differences, _ = _differences(scores, baseline)
    interval = mean_interval(
        scores, baseline, method=method, confidence=confidence, seed=seed
    )
    improvement = improvement_probability(scores, baseline, confidence=confidence)
    return PairedComparison(
        num_seeds=len(differences),
        mean_difference=float(differences.mean()),
        std_difference=float(differences.std(ddof=1)),
        low=float(interval.low),
        high=float(interval.high),
        interval_method=str(interval.method),
        p_value=float(sign_flip_test(scores, baseline, seed=seed)),
        improvement=float(improvement.probability),
        improvement_low=float(improvement.low),
        improvement_high=float(improvement.high),
    )


def mean_interval(
    scores: ArrayLike,
    baseline: ArrayLike,
    *,
    method: str = "studentized",
    confidence: float = 0.95,
    num_resamples: int = 9999,
    seed: int = 0,
) -> MeanInterval:
    """Computes an interval for the mean difference between paired scores.

    "studentized" is the bootstrap-t, after Efron & Tibshirani (1993), "An introduction
    to the bootstrap", section 12.5; "t" is Student's interval. How many percent of
    simulated 95 % intervals held the true mean (`tests/test_statistics.py` makes the
    figures):

    | differences | seeds | studentized | t |
    |---|---|---|---|
    | normal | 8 | 95.0 | 95.0 |
    | normal | 16 | 94.9 | 95.0 |
    | normal | 64 | 95.0 | 94.9 |
    | exponential | 8 | 93.7 | 89.3 |
    | exponential | 16 | 94.5 | 91.4 |
    | exponential | 64 | 94.7 | 93.7 |
    | Laplace | 8 | 93.1 | 95.9 |
    | Laplace | 16 | 92.5 | 95.4 |
    | Laplace | 64 | 94.0 | 95.2 |

    Student's interval is too narrow where differences are skewed, and the studentized
    one, less so, where they have heavy tails. BCa, which holds the mean of 84 to 92 %
    below 64 seeds (measured 23 November 2026), is not offered.

    "studentized" gives way to "t" below 8 seeds, where resamples of almost no variance
    now and then make it useless, and where more than (1 - `confidence`) / 2 of its
    resamples are constant, because most differences are equal. At 4 seeds "t" holds the
    mean of 95 % of normal and 88 % of exponential differences.

    If all differences are equal, to the precision of the scores, the
    interval is that one number and its method "none": such seeds say nothing about the
    spread, so it claims too much.

    Args:
        scores: real `[S]` or `[S, ...]`, one arm, at least 2 seeds.
        baseline: real, of the same shape, the other arm.
        method: one of `METHODS`.
        confidence: how often the interval should hold the mean, above 0 and below 1.
        num_resamples: of the bootstrap, shared by all comparisons; at least as many
            as leave one beyond either end of the interval.
        seed: of the resamples.

    Returns:
        The interval for each comparison, and what made it.

    Raises:
        ValueError: if the arms differ in shape, have fewer than 2 seeds, or hold NaN or
            infinity; or if an argument is out of range.
        ImportError: SciPy is not installed.

    Example:
        >>> import numpy as np
        >>> scores = np.random.default_rng(0).normal(1, 2, size=(16, 3))
        >>> interval = mean_interval(scores, np.zeros((16, 3)))
        >>> interval.low.shape, bool((interval.low < interval.high).all())
        ((3,), True)
        >>> interval.method.tolist()
        ['studentized', 'studentized', 'studentized']
    """
    differences, resolution = _differences(scores, baseline)
    if method not in METHODS:
        meant = difflib.get_close_matches(str(method), METHODS, n=1)
        hint = f"; did you mean {meant[0]!r}?" if meant else "."
        raise ValueError(f"method must be one of {METHODS}, not {method!r}{hint}")
    tail = _tail(confidence)
    if (num_resamples + 1) * tail < 1:
        raise ValueError(
            f"num_resamples={num_resamples} leaves none beyond the ends of a "
            f"{confidence:.4g} interval; take at least {math.ceil(1 / tail) - 1}."
        )
    shape = differences.shape[1:]
    differences = differences.reshape(len(differences), -1)
    spread = np.ptp(differences, axis=0)
    varies = np.flatnonzero(spread > resolution.ravel())

    center = differences.mean(axis=0)
    bounds = np.stack([center, center])
    made_by = np.full(center.shape, "none", "<U11")
    # Centred and scaled, so that rounding cannot tell apart what is equal, nor a square
    # or cube leave the range of float64.
    center, scale = center[varies], spread[varies]
    varied = (differences[:, varies] - center) / scale
    precision = resolution.ravel()[varies] / scale
    bounds[:, varies] = center + scale * _t_bounds(varied, tail)
    made_by[varies] = "t"
    if method == "studentized" and len(varied) >= _MIN_STUDENTIZED:
        counts = _resample(len(varied), num_resamples, seed)
        found = np.concatenate(
            [
                _studentized_bounds(varied[:, block], precision[block], tail, counts)
                for block in _blocks(varied.shape[1], _BLOCK)
            ],
            axis=1,
        )
        defined = np.isfinite(found).all(axis=0)
        bounds[:, varies[defined]] = (center + scale * found)[:, defined]
        made_by[varies[defined]] = method
    low, high = bounds.reshape(2, *shape)
    return MeanInterval(low, high, made_by.reshape(shape))


def sign_flip_test(
    scores: ArrayLike,
    baseline: ArrayLike,
    *,
    num_flips: int = NUM_FLIPS,
    seed: int = 0,
) -> np.ndarray:
    """Tests whether paired scores differ by chance, flipping signs of the differences.

    If the arms are alike, a difference is as likely as its opposite. The p-value is the
    share of all 2^S choices of signs whose mean difference is at least as far from zero
    as the one observed: Fisher's (1935) randomisation test, exact for any distribution
    with that symmetry. The p-values are multiples of 2^(1 - S), so 5 seeds or fewer
    never reach 0.05. Where 2^S exceeds `num_flips`, signs are drawn at random, and the
    observed ones count as one draw, which keeps the test valid (Phipson & Smyth 2010,
    "Permutation p-values should never be zero").

    It is not a test of the mean alone: skewed differences of zero mean are rejected
    more often, exponential ones of 8 seeds at level 0.05 in 9 to 10 % of cases.

    Args:
        scores: real `[S]` or `[S, ...]`, one arm, at least 2 seeds.
        baseline: real, of the same shape, the other arm.
        num_flips: how many choices of signs to look at, at least 2; all comparisons
            share them. No p-value is below 1 / `num_flips`.
        seed: of the signs, if they are drawn.

    Returns:
        The two-sided p-values, float64 `[...]`, above 0 and up to 1; 1 if all
        differences are zero. They are not corrected for their number (see `holm`).

    Raises:
        ValueError: if the arms differ in shape, have fewer than 2 seeds, or hold NaN or
            infinity; or if `num_flips` is below 2.

    Example:
        >>> float(sign_flip_test([3, 1, 2], [0, 0, 0]))  # of 8 signs, +++ and ---
        0.25
        >>> float(sign_flip_test([3, -1, 2], [0, 0, 0]))
        0.5
    """
    differences, resolution = _differences(scores, baseline)
    if num_flips < 2:
        raise ValueError(f"num_flips must be 2 or more, not {num_flips}.")
    num_seeds, *shape = differences.shape
    flips = _choose_flips(num_seeds, num_flips, seed)
    columns = differences.reshape(num_seeds, -1)
    # Sums that are equal but for rounding must tie, or p comes out too small.
    slack = num_seeds * resolution.ravel()
    least, as_far = np.empty_like(slack), np.zeros_like(slack)
    for rows in _blocks(len(flips), _BLOCK_NUMBERS // num_seeds):
        bits = np.unpackbits(flips[rows], axis=1, count=num_seeds)
        signs = 2.0 * bits - 1.0
        for block in _blocks(columns.shape[1], _BLOCK):
            sums = np.abs(signs @ columns[:, block])
            if rows.start == 0:  # the observed signs
                least[block] = sums[0] - slack[block]
            as_far[block] += (sums >= least[block]).sum(axis=0)
    return (as_far / len(flips)).reshape(shape)


def smallest_p_value(num_seeds: int) -> float:
    """Returns the least that `sign_flip_test` can come to: all signs agree.

    Args:
        num_seeds: the number of pairs, at least 2.

    Returns:
        2^(1 - S), or 1 / `NUM_FLIPS` where signs are drawn.

    Example:
        >>> smallest_p_value(8)
        0.0078125
    """
    return max(2.0 ** (1 - min(int(num_seeds), 64)), 1 / NUM_FLIPS)


def improvement_probability(
    scores: ArrayLike, baseline: ArrayLike, *, confidence: float = 0.95
) -> Improvement:
    """Estimates the probability that one arm beats the other on the same seed.

    That is P(A > B) of Bouthillier et al. (2021), "Accounting for variance in machine
    learning benchmarks", over the pairs; a tie counts half. The interval is that of
    Clopper & Pearson (1934), continued to half counts by the beta distribution. It
    holds the true value at least as often as `confidence` says, for few seeds much more
    often, and unlike a bootstrap does not shrink to a point when every pair agrees.

    Args:
        scores: real `[S]` or `[S, ...]`, one arm, at least 2 seeds.
        baseline: real, of the same shape, the other arm.
        confidence: of the interval, above 0 and below 1.

    Returns:
        The share of pairs in which the score is higher, and its interval.

    Raises:
        ValueError: if the arms differ in shape, have fewer than 2 seeds, or hold NaN or
            infinity; or if `confidence` is out of range.
        ImportError: SciPy is not installed.

    Example:
        >>> result = improvement_probability([3, 4, 5, 6], [1, 4, 2, 7])
        >>> float(result.probability)  # two wins and a tie
        0.625
        >>> round(float(result.low), 2), round(float(result.high), 2)
        (0.12, 0.97)
    """
    differences, resolution = _differences(scores, baseline)
    quantile = _require("scipy.special").betaincinv  # of the beta distribution
    num_seeds = len(differences)
    is_tie = np.abs(differences) <= resolution
    wins = np.where(is_tie, 0.5, differences > 0).sum(axis=0)
    tail = _tail(confidence)
    # The beta distribution has no parameter 0: its limit is a point at the end.
    low = quantile(np.maximum(wins, 0.5), num_seeds - wins + 1, tail)
    high = quantile(wins + 1, np.maximum(num_seeds - wins, 0.5), 1 - tail)
    return Improvement(
        wins / num_seeds,
        np.where(wins == 0, 0.0, low),
        np.where(wins == num_seeds, 1.0, high),
    )


def holm(p_values: ArrayLike) -> np.ndarray:
    """Corrects the p-values of several comparisons for their number.

    Holm (1979), "A simple sequentially rejective multiple test procedure": the smallest
    of m p-values is multiplied by m, the next by m - 1 and so on, and none may come out
    below the one before it. Calling those significant that stay at or below alpha makes
    any false call with a probability of at most alpha, however the comparisons depend
    on each other, such as by sharing a control arm.

    Args:
        p_values: `[M]`, in [0, 1], of the comparisons in the family, in any order; or
            `[M, ...]`, several families.

    Returns:
        The adjusted p-values, float64, in the same order and shape, at most 1.

    Raises:
        ValueError: if there are none, or one is masked, NaN or outside [0, 1].

    Example:
        >>> holm([0.01, 0.04, 0.03])
        array([0.03, 0.06, 0.06])
    """
    given = np.ma.asarray(p_values)
    p_values = np.asarray(given.data, np.float64)
    if p_values.ndim == 0 or len(p_values) == 0:
        raise ValueError(
            f"A family needs p-values [M], at least one, but has shape "
            f"{p_values.shape}; put them along the first axis."
        )
    wrong = ~((p_values >= 0) & (p_values <= 1)) | np.ma.getmaskarray(given)
    if wrong.any():
        raise ValueError(
            f"p-values lie in [0, 1], but those at {_places(wrong)} do not; leave out "
            "comparisons that were not made."
        )
    order = np.argsort(p_values, axis=0, kind="stable")
    steps = np.arange(len(p_values), 0, -1).reshape(-1, *[1] * (p_values.ndim - 1))
    stepped = np.take_along_axis(p_values, order, axis=0) * steps
    adjusted = np.empty_like(p_values)
    raised = np.minimum(np.maximum.accumulate(stepped, axis=0), 1.0)
    np.put_along_axis(adjusted, order, raised, axis=0)
    return adjusted


def smallest_detectable_effect(
    num_seeds: int,
    std_difference: float,
    *,
    num_comparisons: int = 1,
    alpha: float = 0.05,
    power: float = 0.8,
) -> float:
    """Computes the smallest mean difference that this many seeds could have found.

    Found means: by a two-sided paired test, with probability `power`, at the hardest
    step of Holm's correction, alpha / `num_comparisons`. The power is that of the t
    test, from the noncentral t distribution (Cohen 1988, "Statistical power analysis
    for the behavioral sciences", chapter 2), at the largest level not above it that
    the sign-flip test can reach, a multiple of `smallest_p_value`.

    The sign-flip test itself finds that effect a little less often, with normal
    differences and a power of 0.8: with 0.76 to 0.80 where the level is three steps of
    2^(1 - S) or more, as for 8 seeds and one comparison or 12 seeds and ten, and with
    0.65 to 0.75 where it is one or two steps, and nearly all signs have to agree.

    Args:
        num_seeds: the number of pairs, at least 2.
        std_difference: the standard deviation of the differences between the arms, 0 or
            more. With 1 the effect is in standard deviations, Cohen's d_z.
        num_comparisons: in the family that Holm's correction is for, at least 1.
        alpha: the level of the family, above 0 and below `power`.
        power: the probability of finding the effect, below 1.

    Returns:
        The effect, in the units of the scores; infinity if there are too few seeds for
        the sign-flip test to reach the level at all, whatever the effect.

    Raises:
        ValueError: if an argument is out of range.
        ImportError: SciPy is not installed.

    Example:
        >>> round(smallest_detectable_effect(34, 1.0), 2)  # of standard deviations
        0.5
        >>> smallest_detectable_effect(4, 1.0)
        inf
    """
    if num_seeds < 2:
        raise ValueError(f"num_seeds must be 2 or more, not {num_seeds}.")
    if num_comparisons < 1:
        raise ValueError(f"num_comparisons must be 1 or more, not {num_comparisons}.")
    if not 0 <= std_difference < math.inf:
        raise ValueError(
            f"std_difference must be finite and not below 0, not {std_difference}."
        )
    if not 0 < alpha < power < 1:
        raise ValueError(
            f"alpha={alpha} and power={power} must lie between 0 and 1, the power "
            "above alpha."
        )
    level = alpha / num_comparisons
    level -= math.fmod(level, smallest_p_value(num_seeds))  # what the flips can reach
    if level == 0:
        return math.inf

    special = _require("scipy.special")  # scipy.stats takes a second to import
    freedom = num_seeds - 1
    critical = -special.stdtrit(freedom, level / 2)

    def lacks(effect: float) -> float:
        shift = effect * math.sqrt(num_seeds)
        below, beyond = special.nctdtr(freedom, shift, [critical, -critical])
        # SciPy gives NaN far out in the lower tail, where there is nothing.
        return power - (1 - np.nan_to_num(below) + np.nan_to_num(beyond)).item()

    most = 1.0
    while lacks(most) > 0:
        most *= 2
    root = _require("scipy.optimize").brentq(lacks, 0.0, most, xtol=1e-12)
    return float(std_difference * root)


def _differences(scores: ArrayLike, baseline: ArrayLike) -> tuple[Any, Any]:
    """Returns differences [S, ...] in float64, and how far rounding moved them, [...].

    Two accuracies that lie equally far apart on paper may differ in the last bit.
    """
    arms = {"scores": np.ma.asarray(scores), "baseline": np.ma.asarray(baseline)}
    shapes = {name: arm.shape for name, arm in arms.items()}
    if shapes["scores"] != shapes["baseline"]:
        raise ValueError(
            f"Pairs need arms of one shape, but scores have {shapes['scores']} and "
            f"baseline {shapes['baseline']}; keep the seeds that both have."
        )
    if not shapes["scores"] or shapes["scores"][0] < 2:
        raise ValueError(
            f"A comparison needs 2 seeds or more along the first axis, but scores have "
            f"shape {shapes['scores']}; run more."
        )
    precision = 0.0
    for name, arm in arms.items():
        # What is masked has a number beneath, which means nothing.
        wrong = ~np.isfinite(arm.data.astype(np.float64)) | np.ma.getmaskarray(arm)
        if wrong.any():
            raise ValueError(
                f"{name} hold NaN or infinity, or are masked, at {_places(wrong)}; run "
                "these seeds again, or leave them out of both arms and say so."
            )
        floating = jnp.issubdtype(arm.dtype, jnp.floating)
        precision = max(
            precision, float(jnp.finfo(arm.dtype if floating else float).eps)
        )
    first, second = (arm.data.astype(np.float64) for arm in arms.values())
    size = (np.abs(first) + np.abs(second)).max(axis=0)
    # Twice what correctly rounded scores need.
    return first - second, 2 * precision * size


def _places(wrong: np.ndarray) -> str:
    """Where an array is true: "3, 5", or "(3, 0), (5, 2)" if it has more axes."""
    places = [tuple(place) for place in np.argwhere(wrong).tolist()]
    shown = [str(place[0] if len(place) == 1 else place) for place in places[:8]]
    more = [f"{len(places) - 8} more"] if len(places) > 8 else []
    return ", ".join(shown + more)


def _tail(confidence: float) -> float:
    """The probability beyond either end of an interval."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}.")
    return round((1 - confidence) / 2, 12)  # 0.05 rather than 0.04999999999999999


def _blocks(size: int, block: int) -> list[slice]:
    """Splits an axis into blocks, which save memory; one at least."""
    block = max(block, 1)
    return [slice(start, start + block) for start in range(0, max(size, 1), block)]


@functools.lru_cache(maxsize=2)
def _choose_flips(num_seeds: int, num_flips: int, seed: int) -> np.ndarray:
    """Makes choices of signs, all of them or as many as are asked for.

    The first are the observed signs.

    Returns:
        uint8 `[F, ceil(num_seeds / 8)]`, a bit for each sign, 1 for plus.
    """
    if 2**num_seeds <= num_flips:
        codes = np.arange(2**num_seeds)[:, None]
        return np.packbits(1 - (codes >> np.arange(num_seeds) & 1), axis=1)
    generator = np.random.default_rng(seed)
    flips = np.empty((num_flips, math.ceil(num_seeds / 8)), np.uint8)
    for rows in _blocks(num_flips, _BLOCK_NUMBERS // num_seeds):
        size = (len(flips[rows]), num_seeds)
        flips[rows] = np.packbits(generator.integers(2, size=size), axis=1)
    flips[0] = 255
    return flips


# Intervals for the mean of differences [S, N] that are centred, of range 1: [2, N].


def _t_bounds(differences: np.ndarray, tail: float) -> np.ndarray:
    num_seeds = len(differences)
    quantile = -_require("scipy.special").stdtrit(num_seeds - 1, tail)  # of Student's t
    error = differences.std(axis=0, ddof=1) / math.sqrt(num_seeds)
    return np.stack([-quantile * error, quantile * error])


@functools.lru_cache(maxsize=2)
def _resample(num_seeds: int, num_resamples: int, seed: int) -> np.ndarray:
    """Draws resamples: how often each has each of the pairs.

    Returns:
        uint8 `[num_resamples, num_seeds]`, as no pair comes near 256 times.
    """
    generator = np.random.default_rng(seed)
    counts = np.empty((num_resamples, num_seeds), np.uint8)
    for rows in _blocks(num_resamples, _BLOCK_NUMBERS // num_seeds):
        counts[rows] = generator.multinomial(
            num_seeds, np.full(num_seeds, 1 / num_seeds), size=len(counts[rows])
        )
    return counts


def _studentized_bounds(
    differences: np.ndarray, precision: np.ndarray, tail: float, counts: np.ndarray
) -> np.ndarray:
    """Returns bounds, NaN where too many resamples are constant."""
    num_resamples, num_seeds = counts.shape
    std = differences.std(axis=0, ddof=1)
    standard = differences / std
    means = np.empty((num_resamples, len(std)))
    squares = np.empty_like(means)
    # A resample's mean and variance are products with its weights.
    for rows in _blocks(num_resamples, _BLOCK_NUMBERS // num_seeds):
        weights = counts[rows].astype(np.float64) / num_seeds
        means[rows] = weights @ standard
        squares[rows] = weights @ standard**2
    variances = (squares - means**2) * num_seeds / (num_seeds - 1)
    # The rounding of the scores, or that of the line above.
    least = np.maximum((precision / std) ** 2, 1e-12)
    statistics = means / np.sqrt(np.maximum(variances, least))
    rank = int((num_resamples + 1) * tail)
    statistics.partition([rank - 1, num_resamples - rank], axis=0)
    quantiles = np.stack([statistics[-rank], statistics[rank - 1]])
    constant = (variances <= least).mean(axis=0)
    return np.where(constant > tail, np.nan, -quantiles * std)


def _require(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"statistics need {module}; pip install 'sounddrop-jax[statistics]'"
        ) from error
