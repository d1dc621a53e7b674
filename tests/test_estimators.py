"""Intervals, tests and protocols against published tables, other implementations and counts by hand."""

import itertools
import math
import shutil
import subprocess
import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats import proportion as sm_proportion
from statsmodels.stats.contingency_tables import mcnemar as sm_mcnemar

from lib.stats import estimators as est

RNG_CASES = 1000


def pairs(both: int, wins: int, losses: int, neither: int) -> tuple[list[int], list[int]]:
    """0/1 results of A and B with the four cells of a paired table."""
    a = [1] * both + [1] * wins + [0] * losses + [0] * neither
    b = [1] * both + [0] * wins + [1] * losses + [0] * neither
    return a, b


def counts(seed: int) -> list[tuple[int, int]]:
    """1,000 random (successes, trials)."""
    rng = np.random.default_rng(seed)
    trials = rng.integers(1, 3000, RNG_CASES)
    return [(int(rng.integers(0, n + 1)), int(n)) for n in trials]


# ---- intervals for one proportion


@pytest.mark.parametrize(
    ("successes", "trials", "wilson", "exact"),
    [
        (81, 263, (0.2553, 0.3662), (0.2527, 0.3676)),
        (15, 148, (0.0624, 0.1605), (0.0578, 0.1617)),
        (0, 20, (0.0, 0.1611), (0.0, 0.1684)),
        (1, 29, (0.0061, 0.1718), (0.0009, 0.1776)),
    ],
)
def test_newcombes_table_of_single_proportions(
    successes: int, trials: int, wilson: tuple[float, float], exact: tuple[float, float]
) -> None:
    """Newcombe 1998, Statistics in Medicine 17, 857-872, Table I, methods 3 and 5."""
    assert est.wilson_interval(successes, trials) == pytest.approx(wilson, abs=5e-5)
    assert est.clopper_pearson_interval(successes, trials) == pytest.approx(exact, abs=5e-5)


def test_wilson_equals_scipy_on_random_counts() -> None:
    for c, n in counts(1):
        peer = stats.binomtest(c, n).proportion_ci(0.95, method="wilson")
        assert est.wilson_interval(c, n) == pytest.approx((peer.low, peer.high), abs=1e-9)


def test_clopper_pearson_limits_leave_a_fortieth_in_each_tail() -> None:
    """The definition: P(X ≥ c | lo) = P(X ≤ c | hi) = 0.025."""
    c, n = np.array(counts(2)).T
    lo, hi = np.array([est.clopper_pearson_interval(*case) for case in counts(2)]).T
    assert stats.binom.sf(c - 1, n, lo)[c > 0] == pytest.approx(0.025, abs=1e-9)
    assert stats.binom.cdf(c, n, hi)[c < n] == pytest.approx(0.025, abs=1e-9)


def test_clopper_pearson_equals_scipy_on_random_counts() -> None:
    for c, n in counts(2):
        peer = stats.binomtest(c, n).proportion_ci(0.95, method="exact")
        assert est.clopper_pearson_interval(c, n) == pytest.approx((peer.low, peer.high), abs=1e-9)


@given(st.integers(1, 500), st.floats(0, 1), st.floats(0.5, 0.999))
def test_wilson_holds_the_estimate_and_mirrors(n: int, share: float, level: float) -> None:
    successes = share * n
    lo, hi = est.wilson_interval(successes, n, level)
    assert 0 <= lo <= successes / n + 1e-12 and successes / n - 1e-12 <= hi <= 1
    assert est.wilson_interval(n - successes, n, level) == pytest.approx((1 - hi, 1 - lo), abs=1e-9)


def test_wilson_of_a_fractional_count_lies_between_its_neighbours() -> None:
    below, between, above = (est.wilson_interval(c, 20)[0] for c in (7, 7.5, 8))
    assert below < between < above


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (-1, 5), (6, 5), (math.nan, 5), (1, 2.5)])
def test_impossible_counts_are_refused(successes: float, trials: int) -> None:
    with pytest.raises(ValueError, match="successes|trials"):
        est.wilson_interval(successes, trials)


@pytest.mark.parametrize("level", [0.0, 1.0, 95])
def test_impossible_levels_are_refused(level: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        est.wilson_interval(1, 2, level)


def test_clopper_pearson_refuses_fractions() -> None:
    with pytest.raises(ValueError, match="whole number"):
        est.clopper_pearson_interval(2.5, 10)  # type: ignore[arg-type]


def test_delta_by_hand() -> None:
    """0, 0, 1, 1: mean ½, s = √⅓, on the log-odds scale ± 1.96·√⅓/(2·¼)."""
    reach = 1.959963984540054 * math.sqrt(1 / 3) / (2 * 0.25)
    lo, hi = est.delta_interval([0, 0, 1, 1])
    assert (lo, hi) == pytest.approx((1 / (1 + math.exp(reach)), 1 / (1 + math.exp(-reach))), abs=1e-12)


def test_delta_refuses_tasks_without_spread() -> None:
    with pytest.raises(ValueError, match="tasks that differ"):
        est.delta_interval([0.5, 0.5])


# ---- bootstrap


@pytest.mark.parametrize(("ours", "theirs"), [("percentile", "percentile"), ("bca", "BCa")])
def test_bootstrap_limits_equal_scipy_on_scipys_replicates(
    ours: str, theirs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        values = rng.beta(0.4, 1.2, int(rng.integers(5, 80)))
        peer = stats.bootstrap((values,), np.mean, n_resamples=2000, method=theirs, rng=rng)
        monkeypatch.setattr(est, "bootstrap_means", lambda *given, peer=peer: peer.bootstrap_distribution)
        found = est.bootstrap_interval(values, ours)  # type: ignore[arg-type]
        assert found == pytest.approx(tuple(peer.confidence_interval), abs=1e-9)


def test_resampled_means_follow_the_resampling_distribution() -> None:
    """Values 0, 0, 3: the mean of 3 resampled values is Bin(3, ⅓)."""
    means = est.bootstrap_means(np.array([0.0, 0.0, 3.0]), 30_000, 0)
    observed = np.bincount(np.rint(means).astype(int), minlength=4)
    expected = stats.binom.pmf(range(4), 3, 1 / 3) * 30_000
    assert stats.chisquare(observed, expected).pvalue > 0.001


def test_resampling_in_blocks_keeps_the_number_of_replicates() -> None:
    values = np.random.default_rng(0).random(3000)
    assert est.bootstrap_means(values, 3001, 0).shape == (3001,)


def test_bootstrap_depends_on_its_seed_only() -> None:
    values = [0.1, 0.4, 0.9, 0.9]
    assert est.bootstrap_interval(values, seed=3) == est.bootstrap_interval(values, seed=3)
    assert est.bootstrap_interval(values, seed=3) != est.bootstrap_interval([1 - v for v in values], seed=3)


def test_bca_leans_towards_the_long_tail() -> None:
    """One success in a hundred: the accelerated interval reaches further up than the plain percentiles."""
    values = [1.0] + [0.0] * 99
    assert est.bootstrap_interval(values, "bca")[1] > est.bootstrap_interval(values, "percentile")[1]


@pytest.mark.parametrize("values", [[], [[0.1]], [0.1, math.nan]])
def test_bootstrap_refuses_what_it_cannot_resample(values: list[float]) -> None:
    with pytest.raises(ValueError, match="bootstrap needs"):
        est.bootstrap_interval(values)


def test_ten_thousand_bca_replicates_over_a_thousand_tasks_take_under_two_seconds() -> None:
    passed = np.random.default_rng(0).random((1000, 20)) < 0.3
    started = time.perf_counter()
    est.rate_over_tasks(passed, "bca")
    assert time.perf_counter() - started < 2


# ---- rates


def test_a_rate_by_hand() -> None:
    """Draws passed per task 2/2, 1/2, 0/2, 0/2: ⅜ of four tasks."""
    rate = est.rate_over_tasks([[1, 1], [0, 1], [0, 0], [0, 0]])
    assert rate.rate == 0.375
    assert (rate.lo, rate.hi) == est.wilson_interval(1.5, 4)


def test_a_printed_rate_has_n_interval_method_and_tests() -> None:
    rate = est.rate_over_tasks(np.repeat([True, False], [150, 350]), protocol="best-of-100", tests="all")
    assert str(rate) == "30.0 % [26.1, 34.2] (n = 500 tasks × 1 draw; 95 % wilson; best-of-100, all tests)"


def test_a_rate_cannot_be_formatted_as_a_bare_number() -> None:
    with pytest.raises(TypeError):
        f"{est.rate_over_tasks([True, False]):.1f}"


def test_a_rate_without_an_interval_is_refused() -> None:
    with pytest.raises(ValueError, match="needs its n and an interval"):
        est.Rate(0.5, math.nan, 0.6, 10, 1, "wilson", "greedy")


def test_pooling_draws_narrows_the_interval_and_says_so() -> None:
    passed = np.random.default_rng(0).random((50, 20)) < 0.4
    over_tasks, pooled = (est.rate_over_tasks(passed, pooled=flag) for flag in (False, True))
    assert pooled.hi - pooled.lo < (over_tasks.hi - over_tasks.lo) / 3
    assert pooled.rate == over_tasks.rate and "pooled" in str(pooled)


@pytest.mark.parametrize("method", ["wilson", "clopper-pearson", "bootstrap-percentile", "bca", "delta"])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_every_method_gives_an_interval_with_width_around_the_rate(method: est.Method, share: float) -> None:
    rate = est.rate_over_tasks(np.arange(40) < share * 40, method)
    assert 0 <= rate.lo <= rate.rate <= rate.hi <= 1 and rate.lo < rate.hi


def test_methods_that_need_spread_say_that_wilson_stood_in() -> None:
    assert est.rate_over_tasks([False] * 10, "bca").method == "wilson (bca needs tasks that differ)"


def test_clopper_pearson_over_draws_needs_pooling() -> None:
    passed = [[1, 0], [1, 1]]
    with pytest.raises(ValueError, match="one result for each task"):
        est.rate_over_tasks(passed, "clopper-pearson")
    pooled = est.rate_over_tasks(passed, "clopper-pearson", pooled=True)
    assert (pooled.lo, pooled.hi) == est.clopper_pearson_interval(3, 4)


@pytest.mark.parametrize("passed", [[], [[]], np.zeros((2, 2, 2)), [0.5, 1], [[1, 2]]])
def test_what_is_no_array_of_results_is_refused(passed: object) -> None:
    with pytest.raises(ValueError, match="results"):
        est.rate_over_tasks(passed)  # type: ignore[arg-type]


def test_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="choose one of wilson"):
        est.rate_over_tasks([True], "wald")  # type: ignore[arg-type]


def test_macro_counts_groups_alike_and_micro_counts_tasks_alike() -> None:
    """Lua 1 of 1, R 0 of 3: macro ½, micro ¼; the macro limits are MOVER's, by hand."""
    found = est.by_group([True, False, False, False], ["lua", "r", "r", "r"])
    (l_lua, _), (_, u_r) = est.wilson_interval(1, 1), est.wilson_interval(0, 3)
    assert (found.groups["lua"].rate, found.groups["r"].rate, found.groups["r"].n_tasks) == (1.0, 0.0, 3)
    assert (found.macro.rate, found.micro.rate) == (0.5, 0.25)
    limits = (0.5 - (1 - l_lua) / 2, 0.5 + u_r / 2)
    assert (found.macro.lo, found.macro.hi) == pytest.approx(limits, abs=1e-12)


def test_one_group_has_the_interval_of_its_tasks() -> None:
    found = est.by_group([True, False, True], ["r"] * 3)
    assert (found.macro.lo, found.macro.hi) == pytest.approx((found.micro.lo, found.micro.hi), abs=1e-12)


def test_group_names_and_tasks_must_match() -> None:
    with pytest.raises(ValueError, match="2 group names for 3 tasks"):
        est.by_group([1, 0, 1], ["a", "b"])


def test_seeds_by_hand() -> None:
    """Rates .2 .3 .4: mean .3, s .1, t₂ = 4.302653 at 95 %."""
    rates = [est.rate_over_tasks([1] * c + [0] * (10 - c)) for c in (2, 3, 4)]
    rate, spread = est.over_seeds(rates)
    half = 4.302652729911275 * 0.1 / math.sqrt(3)
    assert (rate.rate, spread) == pytest.approx((0.3, 0.1))
    assert (rate.lo, rate.hi) == pytest.approx((0.3 - half, 0.3 + half))


def test_seeds_that_agree_have_the_tasks_interval() -> None:
    rate, spread = est.over_seeds([est.rate_over_tasks([1, 0, 0, 0])] * 3)
    assert spread == 0 and (rate.lo, rate.hi) == est.wilson_interval(1, 4)
    assert rate.method == "wilson (3 seeds agree)"


def test_one_seed_has_no_spread() -> None:
    with pytest.raises(ValueError, match="two"):
        est.over_seeds([est.rate_over_tasks([1, 0])])


def test_seeds_on_other_tests_are_not_averaged() -> None:
    rates = [est.rate_over_tasks([1, 0], tests=tests) for tests in ("visible", "hidden")]
    with pytest.raises(ValueError, match="2 kinds"):
        est.over_seeds(rates)


# ---- pass@k


def test_pass_at_k_counts_the_subsets_that_hold_a_right_draw() -> None:
    for n, k in itertools.product(range(1, 8), range(1, 8)):
        for c in range(n + 1 if k <= n else 0):
            subsets = list(itertools.combinations(range(n), k))
            share = sum(min(subset) < c for subset in subsets) / len(subsets)
            assert est.pass_at_k(n, c, k) == pytest.approx(share, abs=1e-12)


def test_pass_at_k_equals_human_evals_product_on_random_inputs() -> None:
    """The numerically stable product of Chen et al. 2021, figure 3."""
    rng = np.random.default_rng(3)
    for _ in range(RNG_CASES):
        n = int(rng.integers(1, 2000))
        c, k = int(rng.integers(0, n + 1)), int(rng.integers(1, n + 1))
        peer = 1.0 if n - c < k else 1.0 - np.prod(1.0 - k / np.arange(n - c + 1, n + 1))
        assert est.pass_at_k(n, c, k) == pytest.approx(peer, abs=1e-9)


@pytest.mark.parametrize(
    ("n", "c", "k"),
    [(10**6, 3, 500_000), (10**6, 3, 7), (10**6, 999_000, 3), (10**6, 40, 40), (10**6, 500, 2000)],
)
def test_pass_at_k_of_a_million_draws_equals_exact_fractions(n: int, c: int, k: int) -> None:
    few, many = sorted((c, k))
    missed = Fraction(1)
    for i in range(few):
        missed *= Fraction(n - many - i, n - i)
    assert est.pass_at_k(n, c, k) == pytest.approx(float(1 - missed), rel=1e-12)


def test_a_million_draws_half_of_them_right_take_no_time_and_do_not_overflow() -> None:
    started = time.perf_counter()
    assert est.pass_at_k(10**6, 500_000, 500_000) == 1.0
    assert time.perf_counter() - started < 1


@given(st.integers(1, 300), st.data())
def test_pass_at_k_grows_with_c_and_k(n: int, data: st.DataObject) -> None:
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    value = est.pass_at_k(n, c, k)
    assert 0 <= value <= 1
    assert c == n or est.pass_at_k(n, c + 1, k) >= value - 1e-12
    assert k == n or est.pass_at_k(n, c, k + 1) >= value - 1e-12


@pytest.mark.parametrize(("n", "c", "k"), [(5, 2, 6), (5, 2, 0), (0, 0, 1), (5, 6, 1), (5, -1, 1)])
def test_impossible_draws_are_refused(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match="k=|n="):
        est.pass_at_k(n, c, k)


def test_pass_at_k_macro_is_the_mean_over_tasks() -> None:
    """4 draws, k = 2: c = 2 gives 5/6, c = 0 gives 0, c = 1 gives ½."""
    passed = [[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]]
    assert est.pass_at_k_macro(passed, 2) == pytest.approx((5 / 6 + 0 + 1 / 2) / 3, abs=1e-12)


# ---- protocols


def test_humaneval_reports_greedy_and_each_k() -> None:
    draws = [[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]]
    rates = est.humaneval([1, 0, 0], draws, [1, 2], tests="hidden")
    assert list(rates) == ["greedy", "pass@1", "pass@2"]
    assert [rate.rate for rate in rates.values()] == pytest.approx([1 / 3, 0.25, 4 / 9])
    assert {(rate.n_tasks, rate.draws) for rate in rates.values()} == {(3, 1), (3, 4)}


def test_humaneval_refuses_k_above_the_draws() -> None:
    with pytest.raises(ValueError, match="k=5"):
        est.humaneval([1], [[1, 0, 1, 0]], [5])


def test_humaneval_refuses_other_tasks_for_greedy() -> None:
    with pytest.raises(ValueError, match="same tasks"):
        est.humaneval([1, 0], [[1, 0]], [1])


def test_polycode_is_wilson_over_prompts_of_twenty_draws() -> None:
    passed = np.arange(60).reshape(3, 20) % 2 == 0
    rate = est.polycode(passed)
    assert (rate.rate, rate.n_tasks, rate.draws) == (0.5, 3, 20)
    assert (rate.lo, rate.hi) == est.wilson_interval(1.5, 3)


def test_polycode_refuses_another_number_of_draws_unless_told() -> None:
    with pytest.raises(ValueError, match="4 draws a prompt, not 20"):
        est.polycode(np.ones((3, 4)))
    assert est.polycode(np.ones((3, 4)), draws=4).draws == 4


def test_best_of_k_chooses_by_the_visible_tests_alone() -> None:
    """Task 1: the second draw is visibly right, hidden wrong. Task 2: none is, so the first counts."""
    visible = [[0, 1, 1], [0, 0, 0]]
    hidden = [[1, 0, 1], [1, 0, 0]]
    rate = est.best_of_k(visible, hidden, 3)
    assert (rate.rate, rate.protocol, rate.tests, rate.draws) == (0.5, "best-of-3", "hidden", 3)


def test_best_of_k_looks_at_k_draws_only() -> None:
    assert est.best_of_k([[0, 1]], [[0, 1]], 1).rate == 0
    assert est.best_of_k([[0, 1]], [[0, 1]], 2).rate == 1


def test_best_of_k_refuses_draws_it_does_not_have() -> None:
    with pytest.raises(ValueError, match="k=3"):
        est.best_of_k([[0, 1]], [[0, 1]], 3)
    with pytest.raises(ValueError, match="not of the same draws"):
        est.best_of_k([[0, 1]], [[0, 1, 1]], 2)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=5), st.integers(1, 5))
@settings(max_examples=60)
def test_best_of_k_per_task_is_the_mean_over_every_order(draws: list[tuple[bool, bool]], k: int) -> None:
    k = min(k, len(draws))
    orders = [zip(*order, strict=True) for order in itertools.permutations(draws)]
    submitted = [est.best_of_k_passed([visible], [hidden], k)[0] for visible, hidden in orders]
    visible, hidden = zip(*draws, strict=True)
    assert est.best_of_k_per_task([visible], [hidden], k)[0] == pytest.approx(np.mean(submitted), abs=1e-12)


# ---- two models on the same tasks


def test_mcnemar_equals_scipys_binomial_test_and_statsmodels_on_random_tables() -> None:
    rng = np.random.default_rng(4)
    for _ in range(RNG_CASES):
        both, wins, losses, neither = (int(c) for c in rng.integers(0, 60, 4))
        if both + wins + losses + neither == 0:
            continue
        found = est.mcnemar_exact(*pairs(both, wins, losses, neither))
        peer = stats.binomtest(wins, wins + losses, 0.5).pvalue if wins + losses else 1.0
        assert found == pytest.approx(peer, abs=1e-9)
        assert found == pytest.approx(sm_mcnemar([[both, wins], [losses, neither]]).pvalue, abs=1e-9)


def test_mcnemar_by_hand() -> None:
    """1 win, 7 losses: 2·(C(8,0) + C(8,1))/2⁸ = 18/256."""
    assert est.mcnemar_exact(*pairs(1, 1, 7, 12)) == pytest.approx(18 / 256, abs=1e-12)


def test_mcnemar_refuses_rates() -> None:
    with pytest.raises(ValueError, match="one 0 or 1"):
        est.mcnemar_exact([0.5, 1], [0, 1])


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 30))
def test_permutation_of_single_results_is_mcnemars_test(wins: int, losses: int, ties: int) -> None:
    a, b = pairs(ties, wins, losses, 0)
    assert est.paired_permutation(a, b) == pytest.approx(est.mcnemar_exact(a, b), abs=1e-9)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=8))
@settings(max_examples=50)
def test_exact_permutation_equals_every_sign_flip(results: list[tuple[int, int]]) -> None:
    a, b = (np.array(side) / 4 for side in zip(*results, strict=True))
    flips = np.array(list(itertools.product((-1, 1), repeat=len(a))))
    share = (np.abs(flips @ (a - b)) >= abs((a - b).sum()) - 1e-9).mean()
    assert est.paired_permutation(a, b) == pytest.approx(share, abs=1e-9)


def test_exact_permutation_equals_scipy() -> None:
    rng = np.random.default_rng(5)
    for _ in range(10):
        a, b = rng.integers(0, 21, (2, 10)) / 20
        peer = stats.permutation_test((a, b), lambda x, y: np.mean(x - y), permutation_type="samples")
        assert est.paired_permutation(a, b) == pytest.approx(min(1.0, peer.pvalue), abs=1e-9)


def test_drawn_permutations_agree_with_enumerated_ones() -> None:
    rng = np.random.default_rng(6)
    a, b = rng.integers(0, 5, (2, 60)) / 4
    exact = est.paired_permutation(a, b, replicates=10**7)
    drawn = est.paired_permutation(a, b, replicates=5000)
    assert drawn != exact
    assert drawn == pytest.approx(exact, abs=5 * math.sqrt(exact * (1 - exact) / 5000))


def test_drawn_permutation_p_is_never_zero() -> None:
    values = np.linspace(0.5, 1, 40)
    assert est.paired_permutation(values, np.zeros(40), replicates=999) == 1 / 1000


def test_newcombes_paired_interval_of_a_published_table() -> None:
    """Fagerland, Lydersen & Laake 2014, Statistics in Medicine 33, 2850-2875, airway hyper-responsiveness."""
    assert est.newcombe_paired(*pairs(1, 1, 7, 12)) == pytest.approx((-0.507, -0.026), abs=5e-4)


def test_newcombes_correlation_is_lowered_by_half_a_task_each() -> None:
    """14, 5, 0, 22 of 41: phi = (14·22 − 41/2) / sqrt(19·22·14·27), rates 19/41 and 14/41."""
    phi = 287.5 / math.sqrt(19 * 22 * 14 * 27)
    (l_a, u_a), (l_b, u_b) = est.wilson_interval(19, 41), est.wilson_interval(14, 41)
    x, y = 19 / 41 - l_a, u_b - 14 / 41
    v, w = u_a - 19 / 41, 14 / 41 - l_b
    lo = 5 / 41 - math.sqrt(x * x - 2 * phi * x * y + y * y)
    hi = 5 / 41 + math.sqrt(v * v - 2 * phi * v * w + w * w)
    assert est.newcombe_paired(*pairs(14, 5, 0, 22)) == pytest.approx((lo, hi), abs=1e-12)


def test_newcombes_paired_interval_of_independent_results_is_the_unpaired_one() -> None:
    """Without correlation square-and-add is the interval for two samples of one size."""
    found = est.newcombe_paired(*pairs(6, 14, 24, 56))
    peer = sm_proportion.confint_proportions_2indep(20, 100, 30, 100, method="newcomb")
    assert found == pytest.approx(peer, abs=1e-9)


@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20), st.integers(0, 20))
def test_newcombes_paired_interval_mirrors_and_stays_in_range(both: int, wins: int, losses: int, neither: int) -> None:
    if both + wins + losses + neither == 0:
        return
    a, b = pairs(both, wins, losses, neither)
    lo, hi = est.newcombe_paired(a, b)
    difference = (wins - losses) / len(a)
    assert -1 - 1e-9 <= lo <= difference + 1e-12 and difference - 1e-12 <= hi <= 1 + 1e-9
    assert est.newcombe_paired(b, a) == pytest.approx((-hi, -lo), abs=1e-9)


@pytest.mark.parametrize(("discordant", "difference", "n"), [(0.5, 0.4, 23), (0.45, 0.15, 155)])
def test_detectable_effect_inverts_connors_sample_size(discordant: float, difference: float, n: int) -> None:
    """Connor 1987, Biometrics 43, 207-211: n tasks are the fewest that find the difference with power 0.8."""
    assert est.minimum_detectable_effect(n, discordant) <= difference
    assert est.minimum_detectable_effect(n - 1, discordant) > difference


@pytest.mark.parametrize(("n", "discordant"), [(100, 0.5), (500, 0.2), (500, 0.01), (60, 0.0)])
def test_detectable_effect_is_found_four_times_in_five(n: int, discordant: float) -> None:
    """Power of the exact test, summed over every number of differing tasks and every split of them."""
    effect = est.minimum_detectable_effect(n, discordant)
    rate = max(discordant, effect)
    power = 0.0
    for differing in range(1, n + 1):
        wins = np.arange(differing + 1)
        found = 2 * stats.binom.cdf(np.minimum(wins, differing - wins), differing, 0.5) <= 0.05
        chance = stats.binom.pmf(wins, differing, (rate + effect) / (2 * rate))[found].sum()
        power += stats.binom.pmf(differing, n, rate) * chance
    assert power == pytest.approx(0.8, abs=0.04)


def test_detectable_effect_shrinks_with_tasks() -> None:
    effects = [est.minimum_detectable_effect(n, 0.2) for n in (20, 50, 100, 1000, 10_000)]
    assert effects == sorted(effects, reverse=True)


def test_five_tasks_can_show_nothing() -> None:
    """Five wins of five have p = 2/32, six of six 2/64."""
    assert est.minimum_detectable_effect(5, 1.0) == math.inf
    assert est.minimum_detectable_effect(6, 1.0) < 1


def test_comparison_by_hand() -> None:
    found = est.compare(*pairs(10, 9, 1, 30), name_a="tuned", name_b="base")
    assert (found.wins, found.losses, found.ties, found.n_tasks) == (9, 1, 40, 50)
    assert (found.rate_a, found.rate_b) == (0.38, 0.22)
    assert found.difference == pytest.approx(0.16)
    assert found.p_mcnemar == pytest.approx(22 / 1024)
    assert (found.lo, found.hi) == est.newcombe_paired(*pairs(10, 9, 1, 30))
    assert found.mde == est.minimum_detectable_effect(50, 0.2, level=1 - 0.95)


def test_a_clear_difference_is_said_whichever_side_it_favours() -> None:
    a, b = pairs(10, 9, 1, 30)
    ahead = est.compare(a, b, name_a="tuned", name_b="base")
    behind = est.compare(b, a, name_a="base", name_b="tuned")
    assert ahead.sentence.startswith("tuned is better than base: 38.0 %")
    assert behind.sentence.startswith("tuned is better than base: 22.0 %")


def test_an_unclear_difference_is_not_called_better() -> None:
    sentence = est.compare(*pairs(10, 4, 3, 30), name_a="tuned", name_b="base").sentence
    assert sentence.startswith("The data do not tell tuned and base apart")
    assert "p = 1.000" in sentence and "four times in five" in sentence


def test_rates_over_draws_are_compared_without_mcnemar() -> None:
    a = np.array([[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    found = est.compare(a, a[::-1])
    assert found.p_mcnemar is None and found.method == "bca"
    assert (found.wins, found.losses, found.ties) == (2, 2, 0)
    assert found.p_permutation == 1.0


def test_equal_rates_still_have_an_interval_with_width() -> None:
    found = est.compare([0.25, 0.5, 0.75], [0.25, 0.5, 0.75])
    assert found.lo < 0 < found.hi and found.p_permutation == 1.0


def test_ids_put_both_sides_in_one_order() -> None:
    found = est.compare([1, 0, 0], [0, 0, 1], ids_a=["x", "y", "z"], ids_b=["z", "y", "x"])
    assert (found.wins, found.losses, found.ties) == (0, 0, 3)


@pytest.mark.parametrize(
    ("ids_a", "ids_b", "reason"),
    [
        (["x", "y"], ["x", "z"], "unequal task sets: 2 on one side only, as y, z"),
        (["x", "y"], None, "one side only"),
        (["x", "x"], ["x", "y"], "twice"),
        (["x"], ["x", "y"], "1 and 2 task ids"),
    ],
)
def test_unequal_task_sets_are_refused(ids_a: list[str], ids_b: list[str] | None, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        est.compare([1, 0], [1, 0], ids_a, ids_b)


def test_unequal_numbers_of_tasks_are_refused() -> None:
    with pytest.raises(ValueError, match="2 tasks against 3"):
        est.compare([1, 0], [1, 0, 1])


def test_mixed_test_kinds_are_refused_unless_they_are_the_question() -> None:
    with pytest.raises(ValueError, match="A on visible tests, B on hidden ones"):
        est.compare([1, 0], [1, 0], tests_a="visible", tests_b="hidden")
    found = est.compare([1, 0], [1, 0], tests_a="visible", tests_b="hidden", across_tests=True)
    assert found.difference == 0


# ---- R

R_PROGRAM = """
cases <- read.csv(file("stdin"))
limits <- function(test) sprintf("%.17g,%.17g", test$conf.int[1], test$conf.int[2])
for (i in seq_len(nrow(cases))) with(cases[i, ], {
  exact <- binom.test(c, n)
  wilson <- suppressWarnings(prop.test(c, n, correct = FALSE))
  mcnemar <- if (wins + losses > 0) binom.test(wins, wins + losses)$p.value else 1
  fisher <- fisher.test(matrix(c(c, n - c, d, m - d), 2))$p.value
  cat(limits(exact), limits(wilson), sprintf("%.17g,%.17g\n", mcnemar, fisher), sep = ",")
})
"""


@pytest.mark.skipif(shutil.which("Rscript") is None, reason="R is not installed")
def test_intervals_mcnemar_and_fisher_equal_r_on_random_inputs() -> None:
    rng = np.random.default_rng(7)
    (c, n), (d, m) = (np.array(counts(seed)).T for seed in (8, 9))
    wins, losses = rng.integers(0, 60, (2, RNG_CASES))
    table = np.column_stack([c, n, d, m, wins, losses])
    text = "\n".join(["c,n,d,m,wins,losses", *(",".join(map(str, line)) for line in table)]) + "\n"
    said = subprocess.run(["Rscript", "-e", R_PROGRAM], input=text, capture_output=True, text=True, check=True).stdout
    theirs = np.array([[float(value) for value in line.split(",")] for line in said.splitlines()])
    ours = [
        (*est.clopper_pearson_interval(*one), *est.wilson_interval(*one), est.mcnemar_exact(*pairs(0, *differ, 1)),
         est.two_proportion(*one, *other).p)
        for one, other, differ in zip(table[:, :2].tolist(), table[:, 2:4].tolist(), table[:, 4:].tolist(), strict=True)
    ]  # fmt: skip
    assert theirs.shape == (RNG_CASES, 6)
    assert np.abs(theirs - ours).max() < 1e-9


# ---- two samples


def test_two_samples_of_a_published_table() -> None:
    """Newcombe 1998, Statistics in Medicine 17, 873-890, Table II, method 10: 56/70 − 48/80."""
    found = est.two_proportion(56, 70, 48, 80)
    assert (found.lo, found.hi) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert found.difference == pytest.approx(0.2)


def test_fishers_tea_tasting() -> None:
    """3 of 4 against 1 of 4: two-sided p = 34/70."""
    assert est.two_proportion(3, 4, 1, 4).p == pytest.approx(34 / 70, abs=1e-12)


def test_two_samples_print_their_sizes_and_interval() -> None:
    assert str(est.two_proportion(138, 155, 107, 345)) == (
        "+58.0 points [+50.2, +64.2] (n = 155 and 345; 95 % Newcombe; Fisher's exact p < 0.0001)"
    )


def test_two_samples_refuse_impossible_counts() -> None:
    with pytest.raises(ValueError, match="outside"):
        est.two_proportion(5, 4, 1, 4)


def test_detectable_effect_of_rates_over_draws_solves_the_equation() -> None:
    n, psi, z_level, z_power = 60, 0.02, 1.959964, 0.841621
    delta = est.minimum_detectable_effect(n, psi, binary=False)
    assert n * delta**2 == pytest.approx((z_level * psi**0.5 + z_power * (psi - delta**2) ** 0.5) ** 2, rel=1e-4)
    assert 0.04 < delta < 0.06
