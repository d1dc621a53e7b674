"""pass@k, best-of-K, protocols and the curve against k: subsets and orders counted by hand."""

import itertools
import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.stats import pass_at_k as est
from lib.stats.intervals import wilson_interval

RNG_CASES = 1000
pools = st.integers(1, 12).flatmap(
    lambda n: st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=1, max_size=8).map(np.array)
)


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


def test_pass_at_k_of_a_set_is_the_mean_over_tasks_with_wilsons_interval() -> None:
    """4 samples, k = 2: c = 2 gives 5/6, c = 0 gives 0, c = 1 gives ½."""
    rate = est.pass_at_k_rate([[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]], 2)
    assert rate.rate == pytest.approx((5 / 6 + 0 + 1 / 2) / 3, abs=1e-12)
    assert (rate.lo, rate.hi) == pytest.approx(wilson_interval(5 / 6 + 1 / 2, 3), abs=1e-9)


def test_humaneval_reports_greedy_and_each_k() -> None:
    draws = [[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]]
    rates = est.humaneval([1, 0, 0], draws, [1, 2], tests="hidden")
    assert list(rates) == ["greedy", "pass@1", "pass@2"]
    assert [rate.rate for rate in rates.values()] == pytest.approx([1 / 3, 0.25, 4 / 9])
    assert {(rate.n_tasks, rate.samples) for rate in rates.values()} == {(3, 1), (3, 4)}


def test_humaneval_refuses_k_above_the_draws() -> None:
    with pytest.raises(ValueError, match="k=5"):
        est.humaneval([1], [[1, 0, 1, 0]], [5])


def test_humaneval_refuses_other_tasks_for_greedy() -> None:
    with pytest.raises(ValueError, match="same tasks"):
        est.humaneval([1, 0], [[1, 0]], [1])


def test_polycode_is_wilson_over_prompts_of_twenty_samples() -> None:
    rate = est.polycode(np.arange(60).reshape(3, 20) % 2 == 0)
    assert (rate.rate, rate.n_tasks, rate.samples) == (0.5, 3, 20)
    assert (rate.lo, rate.hi) == wilson_interval(1.5, 3)


def test_polycode_refuses_another_number_of_samples_unless_given() -> None:
    with pytest.raises(ValueError, match="4 samples per prompt, not 20"):
        est.polycode(np.ones((3, 4)))
    assert est.polycode(np.ones((3, 4)), n=4).samples == 4


def test_best_of_k_submits_the_first_that_passes_the_visible_tests_and_is_right_when_it_passes_all() -> None:
    """Task 1: the second sample is submitted and fails a hidden test. Task 2: the second is submitted and right.
    Task 3: no sample passes the visible tests; the first is submitted and cannot pass all."""
    visible = [[0, 1, 1], [0, 1, 0], [0, 0, 0]]
    hidden = [[1, 0, 1], [0, 1, 0], [1, 0, 0]]
    assert est.best_of_k_passed(visible, hidden, 3).tolist() == [False, True, False]
    rate = est.best_of_k(visible, hidden, 3)
    assert (rate.rate, rate.protocol, rate.tests, rate.samples) == (1 / 3, "best-of-3", "all", 3)


def test_best_of_k_looks_at_k_draws_only() -> None:
    assert est.best_of_k([[0, 1]], [[0, 1]], 1).rate == 0
    assert est.best_of_k([[0, 1]], [[0, 1]], 2).rate == 1


def test_best_of_k_refuses_draws_it_does_not_have() -> None:
    with pytest.raises(ValueError, match="k=3"):
        est.best_of_k([[0, 1]], [[0, 1]], 3)
    with pytest.raises(ValueError, match="not of the same samples"):
        est.best_of_k([[0, 1]], [[0, 1, 1]], 2)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=5), st.integers(1, 5))
@settings(max_examples=60)
def test_best_of_k_per_task_is_the_mean_over_every_order(draws: list[tuple[bool, bool]], k: int) -> None:
    k = min(k, len(draws))
    orders = [zip(*order, strict=True) for order in itertools.permutations(draws)]
    submitted = [est.best_of_k_passed([visible], [hidden], k)[0] for visible, hidden in orders]
    visible, hidden = zip(*draws, strict=True)
    assert est.best_of_k_per_task([visible], [hidden], k)[0] == pytest.approx(np.mean(submitted), abs=1e-12)


@given(pools)
@settings(deadline=None, max_examples=40)
def test_the_curve_is_monotone_and_concave_lies_above_its_theory_and_in_its_band(passed: np.ndarray) -> None:
    curve = est.solved_curve(passed)
    steps = np.diff(np.concatenate([[0.0], curve.solved]))
    assert (steps >= -1e-12).all() and (np.diff(steps) <= 1e-12).all()
    assert (curve.theory <= curve.solved + 1e-12).all()
    assert (curve.lo <= curve.solved + 1e-12).all() and (curve.solved <= curve.hi + 1e-12).all()
    assert curve.solved[-1] == pytest.approx(passed.any(axis=1).mean())
    assert curve.solved[0] == pytest.approx(passed.mean()) == pytest.approx(curve.theory[0])


@given(pools)
@settings(deadline=None, max_examples=40)
def test_the_curve_is_pass_at_k(passed: np.ndarray) -> None:
    n = passed.shape[1]
    expected = [est.pass_at_k_per_task(passed, k).mean() for k in range(1, n + 1)]
    assert est.solved_curve(passed).solved == pytest.approx(expected, abs=1e-12)
