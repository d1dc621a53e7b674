"""How many samples are worth it: counts by hand, every subset of small pools, what holds for any pool."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.stats import budget
from lib.stats.estimators import clopper_pearson_interval, pass_at_k, wilson_interval

chances = st.floats(1e-6, 1 - 1e-6)
pools = st.integers(1, 12).flatmap(
    lambda n: st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=1, max_size=8).map(np.array)
)


def test_one_in_ten_takes_29_draws_for_95_percent():
    assert budget.draws_for_confidence(0.1, 0.05) == 29
    assert budget.success_in(0.5, 3) == 0.875
    assert budget.expected_winners([0.5, 0.25, 0.0], 8) == 6.0


@given(st.integers(1, 999), st.integers(1, 999))
@settings(max_examples=200, deadline=None)
def test_the_bound_is_the_smallest_k(p_mille, delta_mille):
    p, delta = p_mille / 1000, delta_mille / 1000
    k = budget.draws_for_confidence(p, delta)
    lost = 1 - Fraction(p)
    slack = 1 + Fraction(1, 10**12)  # p and δ are rounded before they get here
    assert lost**k <= Fraction(delta) * slack
    assert k == 1 or lost ** (k - 1) > Fraction(delta) / slack


@given(chances, chances, st.integers(1, 1000))
def test_success_rises_with_p_and_with_k_ever_more_slowly(p, q, k):
    p, q = sorted((p, q))
    first, second, third = (budget.success_in(p, k + more) for more in range(3))
    assert budget.success_in(p, k) <= budget.success_in(q, k)
    assert first <= second <= third and second - first >= third - second - 1e-15


@given(pools)
@settings(deadline=None)
def test_the_curve_is_monotone_and_concave_and_lies_above_its_theory(passed):
    curve = budget.solved_curve(passed, replicates=100)
    steps = np.diff(np.concatenate([[0.0], curve.solved]))
    assert (steps >= -1e-12).all() and (np.diff(steps) <= 1e-12).all()
    assert (curve.theory <= curve.solved + 1e-12).all()
    assert curve.solved[-1] == pytest.approx(passed.any(axis=1).mean())
    assert curve.solved[0] == pytest.approx(passed.mean()) == pytest.approx(curve.theory[0])


@given(pools)
@settings(deadline=None)
def test_the_curve_is_the_mean_over_all_subsets_of_a_small_pool(passed):
    passed = passed[:, :6]
    tasks, n = passed.shape
    curve = budget.solved_curve(passed, replicates=100)
    for k in range(1, n + 1):
        chosen = itertools.combinations(range(n), k)
        subsets = [passed[:, list(columns)].any(axis=1).mean() for columns in chosen]
        assert curve.solved[k - 1] == pytest.approx(np.mean(subsets))
        assert tasks * curve.solved[k - 1] == pytest.approx(budget.expected_solved(passed, [k])[0])


def test_the_table_agrees_with_pass_at_k():
    table = budget.solved_table(50)
    for c, k in itertools.product((0, 1, 3, 25, 49, 50), (1, 2, 10, 50)):
        assert table[c, k - 1] == pytest.approx(pass_at_k(50, c, k), abs=1e-14)


def test_the_estimate_is_unbiased_for_the_true_chance():
    p, n, k = 0.3, 8, 5
    weights = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    assert np.dot(weights, budget.solved_table(n)[:, k - 1]) == pytest.approx(budget.success_in(p, k))


def test_the_band_is_the_bootstrap_of_whole_tasks():
    rng = np.random.default_rng(0)
    passed = rng.random((60, 10)) < rng.beta(0.4, 1.0, 60)[:, None]
    curve = budget.solved_curve(passed, replicates=4000, seed=1)
    per_task = budget.solved_table(10)[passed.sum(axis=1)]  # (60, 10)
    means = per_task[rng.integers(0, 60, (4000, 60))].mean(axis=1)
    assert np.allclose([curve.lo, curve.hi], np.quantile(means, [0.025, 0.975], axis=0), atol=0.012)
    again = budget.solved_curve(passed, replicates=4000, seed=1)
    assert (again.lo == curve.lo).all() and (again.hi == curve.hi).all()
    assert (curve.lo <= curve.solved).all() and (curve.solved <= curve.hi).all()


def test_rows_per_task_carry_interval_chance_and_need():
    passed = np.array([[1, 0, 0, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], dtype=bool)
    one, none, every = budget.task_rates(["a", "b", "c"], passed, k=3)
    assert (one.task_id, one.draws, one.winners, one.p) == ("a", 5, 1, 0.2)
    assert (one.lo, one.hi) == wilson_interval(1, 5)
    assert one.in_k == pytest.approx(1 - 0.8**3) and one.in_k_lo < one.in_k < one.in_k_hi
    assert one.needed == 14 and every.needed == 1
    assert (none.p, none.in_k, none.needed) == (0.0, 0.0, None) and none.in_k_hi > 0.5
    exact = budget.task_rates(["a", "b", "c"], passed, k=3, method="clopper-pearson")[0]
    assert (exact.lo, exact.hi) == clopper_pearson_interval(1, 5)


@pytest.mark.parametrize(("p", "delta"), [(0, 0.1), (1.1, 0.1), (0.5, 0), (0.5, 1)])
def test_chances_out_of_range_are_refused(p, delta):
    with pytest.raises(ValueError, match="should be"):
        budget.draws_for_confidence(p, delta)


def test_arrays_that_are_no_pool_are_refused():
    for wrong in (np.zeros(3), np.zeros((0, 3)), np.full((2, 2), 0.5)):
        with pytest.raises(ValueError, match="tasks, draws"):
            budget.solved_curve(wrong)
    with pytest.raises(ValueError, match="one id a task"):
        budget.task_rates(["a"], np.zeros((2, 2)), k=1)
