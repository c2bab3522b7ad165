"""Paired statistics: against SciPy, by hand, and on data whose answer is known."""

import functools
import itertools
import math
import re
import sys
import tracemalloc

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import stats

from sounddrop_jax.sweeps import statistics
from sounddrop_jax.sweeps.statistics import (
    METHODS,
    compare_pairs,
    holm,
    improvement_probability,
    mean_interval,
    sign_flip_test,
    smallest_detectable_effect,
    smallest_p_value,
)

every_method = pytest.mark.parametrize("method", METHODS)

# All of mean zero.
DRAWS = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "exponential": lambda rng, shape: rng.exponential(size=shape) - 1,
    "Laplace": lambda rng, shape: rng.laplace(size=shape),
}


def against_zero(function, differences, **options):
    return function(differences, np.zeros_like(differences), **options)


interval = functools.partial(against_zero, mean_interval)
flip = functools.partial(against_zero, sign_flip_test)


def standard_error(share, num_draws):
    return math.sqrt(share * (1 - share) / num_draws)


# The interval for the mean: how often it holds the true one


def coverage(distribution, num_seeds, method) -> tuple[float, float]:
    """The share of simulated intervals that hold the mean, and its standard error."""
    # The studentized interval is closest to the limit at 8.
    num_chunks = 24 if method == "studentized" and num_seeds != 8 else 48
    hits = 0
    for chunk in range(num_chunks):  # each with resamples of its own
        rng = np.random.default_rng([chunk, num_seeds])
        differences = DRAWS[distribution](rng, (num_seeds, 640))
        low, high, made_by = interval(
            differences, method=method, num_resamples=999, seed=chunk
        )
        assert (made_by == method).all()
        hits += ((low <= 0) & (high >= 0)).sum()
    share = hits / (640 * num_chunks)
    return share, standard_error(share, 640 * num_chunks)


ROWS = re.findall(
    r"\| (\w+) \| (\d+) \| ([\d.]+) \| ([\d.]+) \|", mean_interval.__doc__
)


def test_the_documented_coverage_has_every_distribution():
    expected = itertools.product(DRAWS, ["8", "16", "64"])
    assert [row[:2] for row in ROWS] == list(expected)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: " ".join(row[:2]))
def test_coverage_is_what_the_documentation_says(row):
    distribution, num_seeds, *documented = row
    for method, percent in zip(METHODS[::-1], documented[::-1], strict=True):
        share, error = coverage(distribution, int(num_seeds), method)
        # 4 standard errors of a difference, since the figures were simulated too.
        assert abs(share - float(percent) / 100) < 4 * math.sqrt(2) * error + 0.0005
    if distribution != "Laplace":
        assert error < 0.002
        assert 0.93 < share < 0.97


@pytest.mark.parametrize(
    ("distribution", "percent"), [("normal", 95), ("exponential", 88)]
)
def test_coverage_of_four_seeds_is_what_the_documentation_says(distribution, percent):
    assert f"{percent} % of {distribution}" in mean_interval.__doc__
    share, error = coverage(distribution, 4, "t")
    assert abs(share - percent / 100) < 0.005 + 4 * error


# The interval for the mean: against other implementations


def test_t_is_that_of_scipy():
    differences = np.random.default_rng(0).gamma(2, size=12)
    expected = stats.ttest_1samp(differences, 0).confidence_interval(0.9)
    result = interval(differences, method="t", confidence=0.9)
    assert_allclose(result[:2], expected, rtol=1e-12)


def test_studentized_interval_agrees_with_one_resampled_value_by_value():
    differences = np.random.default_rng(1).gamma(2, size=10)
    rng = np.random.default_rng(2)
    mean, error = differences.mean(), stats.sem(differences)
    resamples = rng.choice(differences, (20_000, 10))
    ratios = (resamples.mean(axis=1) - mean) / stats.sem(resamples, axis=1)
    low, high = mean - np.quantile(ratios, [0.975, 0.025]) * error
    result = interval(differences, num_resamples=19_999)
    # Quantiles of 20,000 ratios come out alike to about 2 %.
    assert_allclose(result.low - mean, low - mean, rtol=0.06)
    assert_allclose(result.high - mean, high - mean, rtol=0.06)
    assert result.method == "studentized"


@pytest.mark.parametrize(("confidence", "fewest"), [(0.9, 19), (0.95, 39), (0.99, 199)])
def test_as_few_resamples_as_the_confidence_needs_are_enough(confidence, fewest):
    differences = np.random.default_rng(0).normal(size=16)
    interval(differences, confidence=confidence, num_resamples=fewest)
    with pytest.raises(ValueError, match=f"take at least {fewest}"):
        interval(differences, confidence=confidence, num_resamples=fewest - 1)


@every_method
def test_conditions_are_compared_one_by_one(method):
    rng = np.random.default_rng(0)
    scores, baseline = rng.normal(size=(2, 9, 5, 40))  # more than one block
    scores[:, 2, 7] = baseline[:, 2, 7] + 2  # alone a point, leaves the others alone
    options = {"method": method, "num_resamples": 199}
    intervals = mean_interval(scores, baseline, **options)
    p_values = sign_flip_test(scores, baseline)
    improvements = improvement_probability(scores, baseline)
    for place in [(0, 0), (2, 7), (4, 39)]:
        pair = scores[:, *place], baseline[:, *place]
        low, high, made_by = mean_interval(*pair, **options)
        assert made_by == ("none" if place == (2, 7) else method)
        assert intervals.method[place] == made_by
        assert_allclose(intervals.low[place], low, rtol=1e-9)
        assert_allclose(intervals.high[place], high, rtol=1e-9)
        assert p_values[place] == sign_flip_test(*pair)
        assert [each[place] for each in improvements] == [
            *improvement_probability(*pair)
        ]


# The interval for the mean: what cannot be resampled


@every_method
@pytest.mark.parametrize("num_seeds", [2, 8])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_equal_differences_give_a_point_and_say_so(method, num_seeds, dtype):
    # Equal on paper, not in binary.
    correct = np.array([2131, 7213, 4444, 9001, 1234, 5678, 3333, 8765])[:num_seeds]
    scores, baseline = (np.array([correct + 30, correct]) / 1e4).astype(dtype)
    assert np.ptp(scores.astype(float) - baseline) > 0
    low, high, made_by = mean_interval(scores, baseline, method=method)
    assert low == high == pytest.approx(0.003, abs=1e-6)
    assert made_by == "none"
    assert sign_flip_test(scores, baseline) == 2 ** (1 - num_seeds)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_studentized_gives_way_to_t_where_it_is_useless(dtype):
    # Of which float32 makes differences that are no longer equal.
    baseline = np.arange(3100, 3108) / 10_000
    spread = [3, 4, 5, 6, 7, 8, 9, 11]
    mostly_equal = [3, 3, 3, 3, 3, 3, 3, 11]
    for steps, num_seeds, expected in [
        *[(spread, 8, "studentized"), (spread, 7, "t"), (mostly_equal, 8, "t")]
    ]:
        arms = (baseline + np.array(steps) / 10_000)[:num_seeds], baseline[:num_seeds]
        arms = [arm.astype(dtype) for arm in arms]
        assert mean_interval(*arms).method == expected
        assert mean_interval(*arms) == mean_interval(*arms, method=expected)


@every_method
@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_the_unit_of_the_scores_does_not_matter(method, scale):
    differences = np.random.default_rng(0).normal(size=10)
    options = {"method": method, "num_resamples": 199}
    expected = interval(differences, **options)
    result = interval(differences * scale, **options)
    assert_allclose(np.array(result[:2]) / scale, expected[:2], rtol=1e-9)
    assert result.method == method


# The sign-flip test


@pytest.mark.parametrize("num_seeds", [2, 9])
def test_exact_p_values_are_those_of_scipy(num_seeds):
    rng = np.random.default_rng(num_seeds)
    ties = rng.integers(-2, 4, size=(10, num_seeds)).astype(float)
    for differences in [*rng.normal(0.5, size=(10, num_seeds)), *ties]:
        expected = stats.permutation_test(
            (differences,), np.mean, permutation_type="samples", n_resamples=np.inf
        ).pvalue
        p_value = flip(differences)
        assert_allclose(p_value, expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_differences_equal_but_for_rounding_tie(dtype):
    baseline = np.array([7213, 7250, 7199, 7300, 7121]) / 10_000
    steps = np.array([3, 3, 3, -3, 3])
    scores = (baseline + steps / 10_000).astype(dtype)
    # |sum| of 15 with 2 of 32 choices of signs, and of 9 with 10.
    assert sign_flip_test(scores, baseline.astype(dtype)) == 12 / 32


@pytest.mark.parametrize("num_seeds", [2, 16, 17, 64])
def test_the_smallest_p_value_is_that_of_seeds_that_all_agree(num_seeds):
    smallest = smallest_p_value(num_seeds)
    p_value = flip(np.arange(1.0, 1 + num_seeds))
    if num_seeds == 17:  # of whose signs a draw may come twice
        assert smallest <= p_value < 8 * smallest
    else:
        assert p_value == smallest


@pytest.mark.parametrize(("num_seeds", "num_comparisons"), [(8, 1), (16, 10)])
def test_an_effect_is_found_where_the_smallest_p_value_is_small_enough(
    num_seeds, num_comparisons
):
    level = num_comparisons * smallest_p_value(num_seeds)
    find = functools.partial(
        smallest_detectable_effect, num_seeds, 1.0, num_comparisons=num_comparisons
    )
    assert find(alpha=0.99 * level) == math.inf > find(alpha=1.01 * level)


def draw_symmetric(distribution, rng, shape):
    if distribution != "unequal":
        return DRAWS[distribution](rng, shape)
    # Symmetric is enough: pairs need not be distributed alike.
    scale = 2.0 ** np.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    return scale * DRAWS["normal"](rng, shape)


symmetric = pytest.mark.parametrize("distribution", ["normal", "Laplace", "unequal"])


@symmetric
@pytest.mark.parametrize(
    ("num_seeds", "level"), [(5, 0), (6, 2 / 64), (8, 12 / 256), (10, 50 / 1024)]
)
def test_false_positives_are_what_all_flips_promise(distribution, num_seeds, level):
    shape = (num_seeds, 20_000)
    differences = draw_symmetric(distribution, np.random.default_rng(0), shape)
    share = (flip(differences) <= 0.05).mean()
    assert level <= 0.05
    assert abs(share - level) <= 4 * standard_error(level, 20_000)


@symmetric
def test_false_positives_of_drawn_flips_stay_below_the_level(distribution):
    differences = draw_symmetric(distribution, np.random.default_rng(64), (64, 40, 500))
    p_values = [
        flip(differences[:, seed], num_flips=999, seed=seed) for seed in range(40)
    ]
    share = (np.array(p_values) <= 0.05).mean()
    # The observed signs and 48 of the 998 others. The flips are draws too, 40 times.
    level = 49 / 999
    error = math.hypot(standard_error(level, 20_000), standard_error(level, 999 * 40))
    assert abs(share - level) < 4 * error


def test_skewed_differences_are_rejected_more_often():
    differences = DRAWS["exponential"](np.random.default_rng(0), (8, 20_000))
    share = (flip(differences) <= 0.05).mean()
    assert "in 9 to 10 % of cases" in sign_flip_test.__doc__
    assert 0.09 < share < 0.10


# The probability of improvement


def test_what_is_equal_on_paper_is_a_tie():
    scores, baseline = np.array([0.1 + 0.2, 3.0, 5.0]), np.array([0.3, 2.0, 6.0])
    assert scores[0] != baseline[0]
    result = compare_pairs(scores, baseline)
    assert result.improvement == improvement_probability(scores, baseline)[0] == 0.5


def test_the_interval_of_improvement_is_that_of_scipy_without_ties():
    for wins in range(7):
        scores = np.where(np.arange(6) < wins, 1, -1)
        result = against_zero(improvement_probability, scores, confidence=0.9)
        assert result.probability == wins / 6
        expected = stats.binomtest(wins, 6).proportion_ci(0.9, method="exact")
        assert_allclose(result[1:], expected, rtol=1e-9)


@pytest.mark.parametrize("num_seeds", [2, 8, 16])
def test_the_interval_of_improvement_holds_the_truth_ties_or_not(num_seeds):
    trials = [
        (wins, ties, num_seeds - wins - ties)
        for wins in range(num_seeds + 1)
        for ties in range(num_seeds + 1 - wins)
    ]
    outcomes = np.array([np.repeat([1, 0, -1], trial) for trial in trials])
    _, low, high = against_zero(improvement_probability, outcomes.T)
    least = 1.0
    for lose, tie in itertools.product(np.linspace(0, 1, 41), np.linspace(0, 1, 9)):
        if lose + tie > 1:
            continue
        win = max(1 - lose - tie, 0.0)
        truth = win + tie / 2
        weights = stats.multinomial.pmf(trials, num_seeds, [win, tie, 1 - win - tie])
        # An end that equals the truth holds it, whatever the last bit.
        holds = (low <= truth + 1e-12) & (truth <= high + 1e-12)
        least = min(least, (weights * holds).sum())
    assert least >= 0.95 - 1e-9
    assert least < 0.99  # nor is it wider than it must be


# Holm's correction


def test_holm_is_that_of_statsmodels():
    from statsmodels.stats.multitest import multipletests  # which takes seconds

    rng = np.random.default_rng(0)
    for size in (1, 2, 5, 40):
        p_values = rng.random(size).round(1)  # with ties, 0 and 1
        _, expected, _, _ = multipletests(p_values, method="holm")
        assert_allclose(holm(p_values), expected, rtol=1e-12)


# The smallest detectable effect


@pytest.mark.parametrize(("num_seeds", "effect"), [(199, 0.2), (34, 0.5), (15, 0.8)])
def test_published_sample_sizes(num_seeds, effect):
    # So many pairs find the effect with power 0.8 at 0.05, and one less does not:
    # G*Power 3.1, t test for the difference between two dependent means.
    assert smallest_detectable_effect(num_seeds, 1.0) <= effect
    assert smallest_detectable_effect(num_seeds - 1, 1.0) > effect


def power(num_seeds, num_comparisons):
    effect = smallest_detectable_effect(num_seeds, 2.0, num_comparisons=num_comparisons)
    rng = np.random.default_rng(num_seeds)
    differences = rng.normal(effect, 2.0, size=(num_seeds, 5000))
    # Enough to reach the level, and to enumerate up to 12 seeds.
    p_values = flip(differences, num_flips=2**12)
    return (p_values <= 0.05 / num_comparisons).mean()


@pytest.mark.parametrize(
    ("num_seeds", "num_comparisons", "low", "high"),
    [
        *[(7, 1, 0.76, 0.80), (64, 5, 0.76, 0.80)],
        # Where nearly all signs must agree.
        *[(6, 1, 0.65, 0.75), (9, 10, 0.65, 0.75)],
    ],
)
def test_power_at_the_smallest_effect_is_what_the_documentation_says(
    num_seeds, num_comparisons, low, high
):
    assert f"{low} to {high:.2f}" in smallest_detectable_effect.__doc__
    error = standard_error(0.8, 5000)
    assert low - 2.5 * error < power(num_seeds, num_comparisons) < high + 2.5 * error


# Both arms


def test_a_comparison_says_what_its_parts_say():
    rng = np.random.default_rng(0)
    scores, baseline = rng.normal([[1.0], [0.5]], size=(2, 16))
    for options in [{}, {"method": "t", "confidence": 0.9, "seed": 3}]:
        result = compare_pairs(scores, baseline, **options)
        assert result.num_seeds == 16
        differences = scores - baseline
        assert result.mean_difference == pytest.approx(differences.mean())
        assert result.std_difference == pytest.approx(np.std(differences, ddof=1))
        interval = mean_interval(scores, baseline, **options)
        assert (result.low, result.high, result.interval_method) == interval
        seed, confidence = options.get("seed", 0), options.get("confidence", 0.95)
        assert result.p_value == sign_flip_test(scores, baseline, seed=seed)
        improvement = improvement_probability(scores, baseline, confidence=confidence)
        assert result[7:] == improvement
        assert {type(value) for value in result} == {int, float, str}


@pytest.mark.parametrize("num_seeds", [9, 40])
def test_blocks_change_no_number(num_seeds, monkeypatch):
    scores = np.random.default_rng(0).normal(size=num_seeds).round(1)

    def compare(block):
        monkeypatch.setattr(statistics, "_BLOCK_NUMBERS", block)
        statistics._choose_flips.cache_clear()
        statistics._resample.cache_clear()
        return compare_pairs(scores, np.zeros(num_seeds))

    whole, blocks = compare(2**30), compare(1000)
    assert blocks.p_value == whole.p_value
    for end in ("low", "high"):
        assert getattr(blocks, end) == pytest.approx(getattr(whole, end), rel=1e-12)


def test_many_seeds_take_little_memory():
    scores = np.random.default_rng(0).normal(size=500)
    tracemalloc.start()
    compare_pairs(scores, np.zeros(500))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40e6  # all signs as numbers take 262 MB


def test_the_seed_decides_all_randomness():
    rng = np.random.default_rng(0)
    scores, baseline = rng.normal(size=(2, 20))
    first = compare_pairs(scores, baseline, seed=1)
    assert compare_pairs(scores, baseline, seed=1) == first
    other = compare_pairs(scores, baseline, seed=2)
    assert first.low != other.low and first.p_value != other.p_value
    # Other resamples give nearly the same interval.
    width = first.high - first.low
    assert abs(first.low - other.low) + abs(first.high - other.high) < 0.05 * width


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32, bool])
def test_scores_of_other_types_are_taken(dtype):
    scores = jnp.array([1, 0, 1, 1, 1, 1], dtype)
    result = compare_pairs(scores, jnp.zeros(6, dtype))
    assert result.mean_difference == pytest.approx(5 / 6)
    assert result.p_value == 2 / 32


ints = st.integers(-50, 50)
pairs = st.lists(st.tuples(ints, ints), min_size=2, max_size=10).map(
    lambda found: np.array(found, float).T
)


@every_method
@settings(max_examples=40, deadline=None)
@given(arms=pairs, shift=st.integers(-1000, 1000))
def test_results_follow_an_exchange_and_a_shift_of_the_arms(method, arms, shift):
    scores, baseline = arms
    options = {"method": method, "num_resamples": 199}
    low, high, made_by = mean_interval(scores, baseline, **options)
    opposite = mean_interval(baseline, scores, **options)
    shifted = mean_interval(scores + shift, baseline, **options)
    assert made_by == opposite.method == shifted.method
    assert_allclose(opposite[:2], [-high, -low], rtol=1e-9, atol=1e-9)
    assert_allclose(shifted[:2], [low + shift, high + shift], rtol=1e-9, atol=1e-9)
    p_value = sign_flip_test(scores, baseline)
    assert p_value == sign_flip_test(baseline, scores)
    assert p_value == sign_flip_test(scores + shift, baseline + shift)
    there = improvement_probability(scores, baseline)
    back = improvement_probability(baseline, scores)
    assert_allclose(there, 1 - np.array(back)[[0, 2, 1]], atol=1e-12)


# What is refused


PAIRED = [compare_pairs, mean_interval, sign_flip_test, improvement_probability]


@pytest.mark.parametrize("function", PAIRED)
@pytest.mark.parametrize(
    ("scores", "baseline", "message"),
    [
        ([1, math.nan, 3, math.inf], [1, 2, 3, 4], "scores hold .* at 1, 3; run"),
        ([1, 2, 3], [1, 2, -math.inf], "baseline hold .* at 2; run"),
        (np.full(12, math.nan), np.ones(12), "at 0, 1, 2, 3, 4, 5, 6, 7, 4 more; run"),
        (np.ma.array([1, 2, 3], mask=[0, 1, 0]), [1, 2, 3], "scores .* masked, at 1;"),
        ([1, 2, 3], [1, 2], r"scores have \(3,\) and baseline \(2,\); keep"),
        ([1], [2], r"2 seeds or more .* shape \(1,\); run more"),
    ],
)
def test_pairs_that_cannot_be_compared_are_refused(function, scores, baseline, message):
    with pytest.raises(ValueError, match=message) as caught:
        function(scores, baseline)
    assert "\n" not in str(caught.value)


# An unsigned one has no negative numbers, and a small one no large ones.
@pytest.mark.parametrize("count", [np.int64, np.uint8])
def test_counts_and_seeds_of_numpy_are_numbers(count):
    scores = np.random.default_rng(0).normal(1, 1, 20)
    for options in ({"seed": 3}, {"num_resamples": 100}):
        given = {name: count(value) for name, value in options.items()}
        assert interval(scores, **given) == interval(scores, **options)
    assert flip(scores, num_flips=count(100)) == flip(scores, num_flips=100)
    assert smallest_p_value(count(8)) == smallest_p_value(8)
    effect = smallest_detectable_effect(count(8), 1.0, num_comparisons=count(2))
    assert effect == smallest_detectable_effect(8, 1.0, num_comparisons=2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sign_flip_test(1.0, 2.0), r"shape \(\)"),
        (lambda: compare_pairs(np.ones((4, 2)), np.ones((4, 2))), r"shape \(4, 2\)"),
        (lambda: mean_interval([1, 2], [0, 0], method="BCa"), "not 'BCa'.$"),
        (lambda: mean_interval([1, 2], [0, 0], confidence=95), "not 95"),
        (lambda: sign_flip_test([1, 2], [0, 0], num_flips=1), "2 or more, not 1"),
        (lambda: holm([]), r"at least one, but has shape \(0,\)"),
        (lambda: holm([0.5, math.nan, 1.5, -0.1]), "those at 1, 2, 3 do not"),
        (lambda: smallest_detectable_effect(1, 1.0), "num_seeds .* not 1"),
        (lambda: smallest_detectable_effect(8, math.nan), "not nan"),
        (lambda: smallest_detectable_effect(8, 1.0, num_comparisons=0), "not 0"),
        (lambda: smallest_detectable_effect(8, 1.0, power=1.0), "power=1.0"),
        (lambda: smallest_detectable_effect(8, 1.0, alpha=0.9), "alpha=0.9"),
    ],
)
def test_arguments_out_of_range_are_refused(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_missing_scipy_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.special", None)
    with pytest.raises(ImportError, match=r"install 'sounddrop-jax\[statistics\]'"):
        mean_interval([1.0, 2.0], [0.0, 0.0])
    assert sign_flip_test([1.0, 2.0], [0.0, 0.0]) == 0.5  # needs NumPy only
