"""Adaptive K: expectations against exact fractions, plans by hand, replays that spend what they may and no more."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.adaptive import simulate
from lib.mining import adaptive

counts_of = st.lists(
    st.integers(0, 12).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), min_size=1, max_size=8
)


@given(counts_of, st.integers(1, 5), st.integers(1, 9), st.integers(1, 9))
def test_the_expected_number_of_new_winners_is_the_posterior_mean(counts, m, a, b):
    got = adaptive.expected_new_winners(counts, m, (a, b))
    assert got == pytest.approx([float(Fraction(a + d, a + b + n)) if d < m else 0 for n, d in counts])


@given(counts_of, st.integers(1, 4), st.integers(1, 30), st.data())
@settings(deadline=None, max_examples=60)
def test_a_plan_keeps_to_its_limits(counts, m, total, data):
    closed = data.draw(st.lists(st.booleans(), min_size=len(counts), max_size=len(counts)))
    chosen = adaptive.plan(counts, m, total, prior=(0.5, 1.5), closed=closed)
    possible = [i for i, (_, d) in enumerate(counts) if d < m and not closed[i]]
    assert set(chosen) <= set(possible) and len(chosen) == len(set(chosen)) == min(total, len(possible))


def test_samples_go_where_winners_are_still_to_come():
    counts = [(4, 4), (4, 2), (4, 0), (0, 0)]  # has its m; wins half; never; not tried
    assert adaptive.plan(counts, 4, 1, prior=(1.0, 3.0)) == [1]
    assert adaptive.plan(counts, 4, 2, prior=(1.0, 3.0)) == [1, 3]
    assert adaptive.plan(counts, 4, 9, prior=(1.0, 3.0)) == [1, 2, 3]
    assert adaptive.plan(counts, 4, 9, prior=(1.0, 3.0), closed=[False, True, False, False]) == [2, 3]
    assert adaptive.plan([(3, 3), (9, 3)], 3, 5, prior=(1.0, 1.0)) == []


def test_the_order_of_the_tasks_decides_nothing():
    counts = [(0, 0)] * 100
    first, second = (adaptive.plan(counts, 4, 10, prior=(1.0, 1.0), seed=seed) for seed in (1, 2))
    assert len(first) == len(second) == 10 and first != second and max(first) > 20


def test_the_fitted_prior_finds_how_tasks_differ():
    rng = np.random.default_rng(0)
    q = rng.beta(0.5, 1.5, 2000)
    a, b = adaptive.fit_prior([(20, int(wins)) for wins in rng.binomial(20, q)])
    assert np.allclose((a, b), [[0.5], [1.5]], rtol=0.15)


def test_the_fitted_prior_finds_what_a_hint_is_worth():
    rng = np.random.default_rng(0)
    covariate = rng.normal(size=400)
    wins = rng.binomial(5, 1 / (1 + np.exp(1 + 1.5 * covariate)))
    a, b = adaptive.fit_prior([(5, int(w)) for w in wins], 7 + 100 * covariate)
    assert np.corrcoef(a / (a + b), -covariate)[0, 1] > 0.9
    unhelpful, _ = adaptive.fit_prior([(5, int(w)) for w in wins], np.ones(400))
    assert np.ptp(unhelpful) == 0


def test_without_draws_the_prior_is_the_weak_one_for_every_task():
    a, b = adaptive.fit_prior([(0, 0)] * 3, [1, 2, 3])
    assert np.allclose(a / (a + b), 1 / (1 + math.e)) and np.allclose(a + b, 2)


def pools(tasks=60, draws=20, seed=0):
    """A third of the tasks win four times in five, with many programs; the others never do."""
    rng = np.random.default_rng(seed)
    draw = lambda t: (t % 3 == 0 and rng.random() < 0.8, str(rng.integers(9)))  # noqa: E731
    return [[draw(t) for _ in range(draws)] for t in range(tasks)]


def test_a_replay_spends_the_same_budget_both_ways_and_gains():
    for budget in (60, 131, 240):
        ours, uniform = simulate(pools(), budget, m=4, seed=1)
        assert uniform.draws == budget >= ours.draws
        assert max(ours.winners, uniform.winners) <= 20 * 4 and ours.winners <= ours.distinct
    assert ours.per_draw > 1.4 * uniform.per_draw
    assert simulate(pools(), 240, m=4, seed=1) == (ours, uniform)


def test_a_replay_stops_when_every_task_has_its_winners():
    easy = [[(True, str(i)) for i in range(10)]] * 7
    ours, uniform = simulate(easy, 70, m=2)
    assert (ours.draws, ours.winners, ours.solved) == (14, 14, 7)
    assert (uniform.draws, uniform.winners, uniform.distinct) == (70, 14, 70)


def test_repeats_are_no_new_winners():
    same = [[(True, "x")] * 10] * 3
    ours, uniform = simulate(same, 15, m=4)
    assert ours.winners == uniform.winners == ours.distinct == 3


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="budget=61: 1 to 60 draws"):
        simulate([[(True, "x")] * 20] * 3, 61, m=4)
    with pytest.raises(ValueError, match="each should be at least 1"):
        adaptive.plan([(0, 0)], 0, 1, prior=(1, 1))
    with pytest.raises(ValueError, match="one number per task"):
        adaptive.fit_prior([(1, 0)], [1.0, 2.0])
