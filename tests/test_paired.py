"""Paired comparisons: tests against enumeration, and intervals that never contradict them."""

import csv
import itertools
import math
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

from lib.stats import paired as est
from lib.stats.intervals import wilson_interval

quarters = st.lists(st.integers(-4, 4).map(lambda n: n / 4), min_size=1, max_size=40).map(np.array)
signs = st.lists(st.sampled_from([-1, 0, 1]), min_size=1, max_size=60).map(np.array)
reals = st.lists(st.floats(-1, 1), min_size=1, max_size=60).map(np.array)


def pairs(both: int, wins: int, losses: int, neither: int) -> tuple[list[int], list[int]]:
    """0/1 results of A and B with the four cells of a paired table."""
    a = [1] * both + [1] * wins + [0] * losses + [0] * neither
    b = [1] * both + [0] * wins + [1] * losses + [0] * neither
    return a, b


def flips_p(differences: np.ndarray) -> float:
    """Two-sided sign-flip p by enumeration of every sign."""
    flips = np.array(list(itertools.product((-1, 1), repeat=len(differences))))
    return float((np.abs(flips @ differences) >= abs(differences.sum()) - 1e-9).mean())


# ---- interval and p


@given(st.one_of(quarters, signs, reals))
@settings(max_examples=300, deadline=None)
def test_p_is_below_5_percent_exactly_when_the_interval_excludes_zero(differences: np.ndarray) -> None:
    found = est.paired_difference(differences)
    assert (found.p < 0.05) == (found.lo > 0 or found.hi < 0)
    assert -1 <= found.lo <= found.difference + 1e-9 and found.difference - 1e-9 <= found.hi <= 1


@given(st.integers(0, 2**32 - 1), st.floats(0.02, 0.3), st.integers(20, 120))
@settings(max_examples=25, deadline=None)
def test_interval_and_p_agree_at_the_edge_of_significance(seed: int, shift: float, n: int) -> None:
    differences = np.clip(np.random.default_rng(seed).normal(shift, 0.4, n), -1, 1)
    found = est.paired_difference(differences)
    assert (found.p < 0.05) == (found.lo > 0 or found.hi < 0)


@given(st.one_of(quarters, signs))
@settings(max_examples=100, deadline=None)
def test_swapping_both_sides_mirrors_the_interval(differences: np.ndarray) -> None:
    one, other = est.paired_difference(differences), est.paired_difference(-differences)
    assert other.p == pytest.approx(one.p, abs=0.02)
    if np.prod(np.unique(differences, return_counts=True)[1] + 1.0) <= est.FLIPS:
        assert (other.lo, other.hi, other.p) == pytest.approx((-one.hi, -one.lo, one.p), abs=1e-9)


def test_three_graded_tasks_by_hand() -> None:
    """.25, .5, .75: all 8 subsets, the empty one included; none has a mean ≤ 0 but the empty one: p = 2/8."""
    assert est.paired_difference([0.25, 0.5, 0.75]).p == pytest.approx(2 / 8)


def test_no_task_differs() -> None:
    """Nothing is known of tasks that would change but that fewer than Wilson's upper limit of 0 of 20 do."""
    found = est.paired_difference(np.zeros(20))
    edge = wilson_interval(0, 20)[1]
    assert (found.difference, found.p) == (0, 1.0)
    assert (found.lo, found.hi) == pytest.approx((-edge, edge), abs=1e-9)


def test_every_task_is_won() -> None:
    """10 wins of 10: p = 2/2¹⁰; the lower limit lies above 2·.025^(1/10) − 1 times Wilson's limit, the upper is 1."""
    found = est.paired_difference(np.ones(10))
    assert found.p == 2 / 2**10 and found.hi == 1
    sign, share = 2 * 0.025 ** (1 / 10) - 1, wilson_interval(10, 10)[0]
    assert sign * share < found.lo <= min(sign, share)


def test_the_interval_is_wider_than_the_sign_flips_alone_and_narrower_than_the_product_of_both() -> None:
    """9 wins, 1 loss, 40 ties: between Clopper–Pearson at ψ̂ and Clopper–Pearson times Wilson."""
    found = est.paired_difference(np.repeat([1, -1, 0], [9, 1, 40]))
    pi = 2 * stats.beta.ppf(0.025, 9, 2) - 1
    assert pi * wilson_interval(10, 50)[0] < found.lo < pi * 10 / 50


def test_the_same_differences_give_the_same_answer() -> None:
    differences = np.random.default_rng(0).normal(0.1, 0.3, 80).clip(-1, 1)
    assert est.paired_difference(differences) == est.paired_difference(differences.copy())


def test_five_hundred_tasks_take_less_than_a_second() -> None:
    differences = np.random.default_rng(0).uniform(-1, 1, 500)
    started = time.process_time()
    est.paired_difference(differences)
    assert time.process_time() - started < 1


@pytest.mark.parametrize("wrong", [[], [1.5], [math.nan], [[0.1]]])
def test_what_are_no_differences_is_refused(wrong: list) -> None:
    with pytest.raises(ValueError, match="differences"):
        est.paired_difference(wrong)


@pytest.mark.parametrize("n", [20, 60])
@pytest.mark.parametrize("p", [0.01, 0.5])
def test_the_interval_covers_the_true_difference(n: int, p: float) -> None:
    """20 samples per task, tasks of Beta difficulty, B solving three quarters of what A does: at least 94 %."""
    rng, held, repeats = np.random.default_rng(0), 0, 100
    for _ in range(repeats):
        skill = rng.beta(2 * p, 2 - 2 * p, n)[:, None]
        a, b = ((rng.random((n, 20)) < factor * skill).mean(axis=1) for factor in (1, 0.75))
        found = est.paired_difference(a - b)
        held += found.lo <= p / 4 <= found.hi
    assert stats.binom.cdf(held, repeats, 0.94) > 0.001


# ---- p


def test_p_of_single_results_is_mcnemars_on_random_tables() -> None:
    rng = np.random.default_rng(4)
    for _ in range(300):
        wins, losses, ties = (int(c) for c in rng.integers(0, 60, 3))
        if wins + losses + ties:
            found = est.paired_difference(np.repeat([1, -1, 0], [wins, losses, ties])).p
            assert found == pytest.approx(mcnemar([[ties, wins], [losses, 0]]).pvalue, abs=1e-9)


def test_mcnemar_by_hand() -> None:
    """1 win, 7 losses: 2·(C(8,0) + C(8,1))/2⁸ = 18/256."""
    assert est.paired_difference(np.repeat([1, -1, 0], [1, 7, 13])).p == pytest.approx(18 / 256, abs=1e-12)


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
@settings(max_examples=60, deadline=None)
def test_enumerated_p_equals_every_sign_flip(quarters: list[int]) -> None:
    differences = np.array(quarters) / 4
    assert est.paired_difference(differences).p == pytest.approx(flips_p(differences), abs=1e-9)


def test_sampled_p_agrees_with_enumeration(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = np.random.default_rng(6).uniform(-0.6, 1, 14)
    exact = flips_p(differences)
    monkeypatch.setattr(est, "FLIPS", 5000)
    sampled = est.paired_difference(differences).p
    assert sampled != exact
    assert sampled == pytest.approx(exact, abs=6 * math.sqrt(exact * (1 - exact) / 5000))


def test_sampled_p_is_never_zero() -> None:
    assert est.paired_difference(np.linspace(0.5, 1, 40)).p == pytest.approx(2 / (est.FLIPS + 1))


# ---- runs and families


def test_runs_that_agree_leave_the_interval_over_tasks() -> None:
    differences = np.repeat([1, -1, 0], [9, 1, 40])
    over_tasks, over_runs = est.paired_difference(differences), est.paired_over_runs([differences] * 3)
    assert (over_runs.lo, over_runs.hi) == pytest.approx((over_tasks.lo, over_tasks.hi))
    assert over_runs.p == pytest.approx(over_tasks.p, abs=1e-3)


def test_runs_that_disagree_widen_the_interval_by_students_t() -> None:
    """Run means .1, .3, .5 on 100 tasks without other variance: ± 4.3027·.2/√3 beside the tasks' limits."""
    table = np.repeat([[0.1], [0.3], [0.5]], 100, axis=1)
    found, tasks = est.paired_over_runs(table), est.paired_difference(np.full(100, 0.3))
    half = 4.302652729911275 * 0.2 / math.sqrt(3)
    assert found.lo == pytest.approx(0.3 - math.hypot(0.3 - tasks.lo, half))
    assert found.p > 0.05 > tasks.p


@given(st.integers(0, 2**32 - 1), st.floats(0, 0.4), st.floats(0, 0.3))
@settings(max_examples=25, deadline=None)
def test_interval_and_p_over_runs_agree(seed: int, shift: float, spread: float) -> None:
    rng = np.random.default_rng(seed)
    table = rng.normal(shift, 0.3, (3, 30)) + rng.normal(0, spread, (3, 1))
    found = est.paired_over_runs(table.clip(-1, 1))
    assert (found.p < 0.05) == (found.lo > 0 or found.hi < 0)


def test_two_runs_are_too_few() -> None:
    with pytest.raises(ValueError, match="at least three"):
        est.paired_over_runs(np.zeros((2, 5)))


def test_holm_by_hand() -> None:
    """.01·3, then the larger of that and .02·2, then of that and .04·1."""
    assert est.holm([0.02, 0.01, 0.04]) == pytest.approx([0.04, 0.03, 0.04])
    assert est.holm([]) == []


def test_stored_coverage_is_nominal_less_one_percent_or_more() -> None:
    """Every cell of benchmarks/coverage.csv with 20 tasks or more, within two standard errors of its simulation."""
    with (Path(__file__).resolve().parents[1] / "benchmarks" / "coverage.csv").open(encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if row["interval"].startswith("test inversion")]
    ours = [row for row in rows if "tasks alone" not in row["interval"] and int(row["n_tasks"]) >= 20]
    assert len(ours) >= 20
    for row in ours:
        noise = 2 * math.sqrt(0.94 * 0.06 / int(row["replicates"]))
        assert float(row["coverage"]) >= 0.94 - noise, row


# ---- detectable effects


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


def test_detectable_effect_of_rates_over_draws_solves_the_equation() -> None:
    n, psi, z_level, z_power = 60, 0.02, 1.959964, 0.841621
    delta = est.minimum_detectable_effect(n, psi, binary=False)
    assert n * delta**2 == pytest.approx((z_level * psi**0.5 + z_power * (psi - delta**2) ** 0.5) ** 2, rel=1e-4)
    assert 0.04 < delta < 0.06


def test_detectable_effect_shrinks_with_tasks() -> None:
    effects = [est.minimum_detectable_effect(n, 0.2) for n in (20, 50, 100, 1000, 10_000)]
    assert effects == sorted(effects, reverse=True)


def test_five_tasks_can_show_nothing() -> None:
    """Five wins of five have p = 2/32, six of six 2/64."""
    assert est.minimum_detectable_effect(5, 1.0) == math.inf
    assert est.minimum_detectable_effect(6, 1.0) < 1


# ---- two models on the same tasks


def test_comparison_by_hand() -> None:
    found = est.compare(*pairs(10, 9, 1, 30), name_a="tuned", name_b="base")
    assert (found.wins, found.losses, found.ties, found.n_tasks) == (9, 1, 40, 50)
    assert (found.rate_a, found.rate_b) == (0.38, 0.22)
    assert found.difference == pytest.approx(0.16)
    assert found.p_mcnemar == found.p_permutation == pytest.approx(22 / 1024)
    assert found.lo > 0 and found.mde == est.minimum_detectable_effect(50, 0.2)


def test_a_clear_difference_is_said_whichever_side_it_favours() -> None:
    a, b = pairs(10, 9, 1, 30)
    ahead = est.compare(a, b, name_a="tuned", name_b="base")
    behind = est.compare(b, a, name_a="base", name_b="tuned")
    assert ahead.sentence.startswith("tuned is better than base: 38.0 %")
    assert behind.sentence.startswith("tuned is better than base: 22.0 %")


def test_an_unclear_difference_is_not_called_better() -> None:
    sentence = est.compare(*pairs(10, 4, 3, 30), name_a="tuned", name_b="base").sentence
    assert sentence.startswith("tuned and base are not significantly different")
    assert "p = 1.000" in sentence and "At 80 % power" in sentence


def test_rates_over_samples_are_compared_by_sign_flips() -> None:
    a = np.array([[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    found = est.compare(a, a[::-1])
    assert found.p_mcnemar is None and "sign-flip" in found.sentence
    assert (found.wins, found.losses, found.ties) == (2, 2, 0)
    assert found.p_permutation == 1.0


def test_unequal_numbers_of_tasks_are_refused() -> None:
    with pytest.raises(ValueError, match="2 tasks against 3"):
        est.compare([1, 0], [1, 0, 1])


def test_mixed_test_kinds_are_refused_unless_they_are_the_question() -> None:
    with pytest.raises(ValueError, match="A on visible tests, B on hidden ones"):
        est.compare([1, 0], [1, 0], tests_a="visible", tests_b="hidden")
    found = est.compare([1, 0], [1, 0], tests_a="visible", tests_b="hidden", across_tests=True)
    assert found.difference == 0
