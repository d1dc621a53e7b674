"""Where the uncertainty of a difference comes from, against known components and by hand."""

import math

import numpy as np
import pytest

from lib.stats import components
from lib.stats.components import Components, variance_components, what_would_decide


def made(difference: float, *, runs: float = 0.0, tasks: float = 0.0, both: float = 0.0, samples: float = 0.0,
         sizes: tuple[int, int, int] = (3, 60, 20)) -> Components:  # fmt: skip
    return Components(difference, runs, tasks, both, samples, *sizes)


def test_components_of_a_simulation_are_found() -> None:
    """200 tasks, 40 runs, 4 samples; sd of runs .08, of tasks .2, of run × task .1; the means over the layout."""
    rng = np.random.default_rng(0)
    shift = rng.normal(0, 0.08, (40, 1)) + rng.normal(0, 0.2, 200) + rng.normal(0, 0.1, (40, 200))
    a, b = (rng.random((40, 200, 4)) < (0.5 + part)[..., None] for part in (np.clip(shift, -0.5, 0.5), 0 * shift))
    found = variance_components(a, b)
    assert found.runs == pytest.approx(0.0064, rel=0.5)
    assert found.tasks == pytest.approx(0.04, rel=0.2)
    assert found.interaction == pytest.approx(0.01, rel=0.3)
    assert found.samples == pytest.approx(0.5, rel=0.15)


def test_one_run_by_hand() -> None:
    """Differences 1/2 and 0: their variance is 1/8, half of that noise: cells of variance 1/3 and 1/3, 0 and 0."""
    a, b = [[1, 1, 1, 0], [1, 1, 1, 1]], [[0, 1, 0, 0], [1, 1, 1, 1]]
    found = variance_components(a, b)
    assert found.samples == pytest.approx((1 / 4 + 0) / 2 + (1 / 4 + 0) / 2)
    assert found.tasks == pytest.approx(1 / 8 - found.samples / 4)
    assert math.isnan(found.runs) and found.difference == 0.25


def test_the_variance_of_the_mean_is_that_of_repeated_experiments() -> None:
    rng, means, expected = np.random.default_rng(1), [], []
    for _ in range(200):
        skill = rng.beta(1, 1, 30)[:, None]
        a, b = rng.random((30, 5)) < skill, rng.random((30, 5)) < skill * rng.random((30, 1))
        found = variance_components(a, b)
        means.append(found.difference)
        expected.append(found.variance(1, 30, 5))
    assert np.mean(expected) == pytest.approx(np.var(means), rel=0.25)


def test_noise_of_samples_asks_for_more_samples() -> None:
    sentence = what_would_decide(made(0.02, samples=0.4, sizes=(1, 50, 10)))
    assert "needs more samples: 157 instead of 10" in sentence  # .4/(50·M) = (.02/2.8016)² at M = 156.98


def test_differences_between_tasks_ask_for_more_tasks_and_samples_would_not_help() -> None:
    """.04/T + .001/(20·T) = (.03/2.8016)² at T = 349.3."""
    sentence = what_would_decide(made(0.03, tasks=0.04, samples=0.001, runs=math.nan, sizes=(1, 60, 20)))
    assert sentence.startswith("A difference of 3.0 points needs more tasks: 350 instead of 60")
    assert "more samples alone would not" in sentence and "runs" not in sentence


def test_differences_between_seeds_ask_for_more_runs() -> None:
    """.0025/R = (.03/2.8016)² at R = 21.8."""
    sentence = what_would_decide(made(0.03, runs=0.0025))
    assert "needs more runs: 22 instead of 3" in sentence
    assert "more samples alone would not" in sentence and "more tasks alone would not" in sentence


def test_what_is_large_enough_needs_nothing() -> None:
    assert "large enough to be found with 20 samples, 60 tasks, 3 runs" in what_would_decide(made(0.3, tasks=0.01))


def test_no_difference_names_no_number() -> None:
    assert "No difference was observed" in what_would_decide(made(0.0, tasks=0.1))


def test_the_number_named_is_the_fewest_that_reaches_the_power() -> None:
    found = made(0.04, runs=0.0001, tasks=0.05, both=0.02, samples=0.3, sizes=(3, 40, 4))
    target = (0.04 / 2.8015854) ** 2
    tasks = components._fewest(found, "tasks", {"samples": 4, "tasks": 40, "runs": 3}, target)
    assert tasks is not None
    assert found.variance(3, tasks, 4) <= target * (1 + 1e-6) < found.variance(3, tasks - 1, 4)


@pytest.mark.parametrize("wrong", [([[1]], [[1]]), ([[1], [0]], [[1, 0], [0, 1]]), ([1, 0], [1, 0])])
def test_what_is_no_layout_is_refused(wrong: tuple[list, list]) -> None:
    with pytest.raises(ValueError, match="results of shapes"):
        variance_components(*wrong)
