"""The K ablation: hand-computed pools, and properties over any pool."""

import dataclasses
import itertools

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.mining.k_curve import Pool, ablation, pools, powers_of_two_up_to, table
from tests.test_ledger import ROW
from tests.test_mining import TASKS, won


def pool(draws=4, visible=2, solved=1, programs=(2, 1, 1), winners=(1,), tokens=40):
    return Pool(draws, visible, solved, programs, winners, tokens)


def value(rows, quantity, tests, k):
    (row,) = [row for row in rows if (row.quantity, row.tests, row.k) == (quantity, tests, k)]
    return row.value


def test_one_task_by_hand():
    rows = ablation([pool()], [1, 2, 4])
    assert [value(rows, "best-of-K", "visible", k) for k in (1, 2, 4)] == pytest.approx([1 / 2, 5 / 6, 1])
    assert [value(rows, "best-of-K", "hidden", k) for k in (1, 2, 4)] == pytest.approx([1 / 4, 5 / 12, 1 / 2])
    assert [value(rows, "solved", "all", k) for k in (1, 2, 4)] == pytest.approx([1 / 4, 1 / 2, 1])
    assert value(rows, "repeated programs", "", 2) == pytest.approx(1 - (5 / 6 + 1 / 2 + 1 / 2) / 2)
    assert value(rows, "draws a distinct winner", "all", 2) == pytest.approx(2 / (1 / 2))
    assert value(rows, "tokens a distinct winner", "all", 4) == pytest.approx(40)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=5), st.data())
def test_best_of_k_is_the_mean_over_every_order_of_the_draws(outcomes, data):
    outcomes = [(seen, seen and right) for seen, right in outcomes]
    k = data.draw(st.integers(1, len(outcomes)))
    v, x = sum(a for a, _ in outcomes), sum(b for _, b in outcomes)
    rows = ablation([Pool(len(outcomes), v, x, (len(outcomes),), (x,) if x else (), 1)], [k])
    orders = list(itertools.permutations(outcomes))
    submitted = [next((right for seen, right in order[:k] if seen), False) for order in orders]
    assert value(rows, "best-of-K", "hidden", k) == pytest.approx(numpy.mean(submitted))


@settings(deadline=None)  # twelve tables with their bootstraps
@given(st.lists(st.integers(0, 12), min_size=1, max_size=8))
def test_more_draws_never_solve_fewer_and_gain_less_and_less(solved):
    rows = ablation([pool(12, n, n, (12,), (n,) if n else ()) for n in solved], range(1, 13))
    curve = [value(rows, "solved", "all", k) for k in range(1, 13)]
    steps = numpy.diff([0, *curve])
    assert (steps >= -1e-12).all() and (numpy.diff(steps) <= 1e-12).all()


def test_greedy_answers_stand_beside():
    greedy = [won("a", "p"), won("b", "q", status="wrong-output", hidden_ok=False)]
    rows = ablation([pool(), pool()], [4], greedy)
    assert (value(rows, "greedy", "visible", 1), value(rows, "greedy", "hidden", 1)) == (1, 0.5)
    assert "greedy" in table(rows) and "K = 4" in table(rows)


def test_pools_count_programs_that_differ():
    a, b = TASKS[:2]
    drawn = [won(a.task_id, "def f(a):\n    return a\n", draw=0), won(a.task_id, "def f(a): return (a)\n", draw=1)]
    drawn += [
        dataclasses.replace(ROW, task_id=b.task_id, status="timeout", visible_ok=True, hidden_ok=False, draw=d)
        for d in (0, 1)
    ]
    first, second = pools(drawn, [a, b])
    assert (first.programs, first.winners, first.solved) == ((2,), (2,), 2)
    assert (second.visible, second.solved, second.winners) == (2, 0, ())


def test_a_k_beyond_the_pool_is_refused():
    with pytest.raises(ValueError, match="K=5: the pool has 4 draws a task; choose K from 1 to 4"):
        ablation([pool()], [1, 5])


def test_unequal_pools_are_refused():
    with pytest.raises(ValueError, match=r"tasks have \[1, 2\] draws"):
        pools([won(TASKS[0].task_id, "p"), *[won(TASKS[1].task_id, "p", draw=d) for d in (0, 1)]], TASKS[:2])


def test_doublings():
    assert [powers_of_two_up_to(n) for n in (1, 4, 12)] == [[1], [1, 2, 4], [1, 2, 4, 8, 12]]
