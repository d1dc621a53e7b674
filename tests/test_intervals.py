"""Intervals and rates against published tables, other implementations and counts by hand."""

import math
import shutil
import subprocess

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lib.stats import intervals as est
from lib.stats.paired import paired_difference

RNG_CASES = 1000


def counts(seed: int) -> list[tuple[int, int]]:
    """1,000 random (successes, trials)."""
    rng = np.random.default_rng(seed)
    trials = rng.integers(1, 3000, RNG_CASES)
    return [(int(rng.integers(0, n + 1)), int(n)) for n in trials]


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


@given(st.integers(1, 500), st.floats(0, 1))
def test_wilson_contains_the_rate_to_the_last_bit_and_mirrors(n: int, share: float) -> None:
    successes = share * n
    lo, hi = est.wilson_interval(successes, n)
    assert 0 <= lo <= successes / n <= hi <= 1
    assert est.wilson_interval(n - successes, n) == pytest.approx((1 - hi, 1 - lo), abs=1e-9)


def test_wilson_of_a_fractional_count_lies_between_its_neighbours() -> None:
    below, between, above = (est.wilson_interval(c, 20)[0] for c in (7, 7.5, 8))
    assert below < between < above


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (-1, 5), (6, 5), (math.nan, 5), (1, 2.5)])
def test_impossible_counts_are_refused(successes: float, trials: int) -> None:
    with pytest.raises(ValueError, match="successes|trials"):
        est.wilson_interval(successes, trials)


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


def test_bca_equals_scipy_and_is_deterministic() -> None:
    values = np.random.default_rng(0).beta(0.4, 1.2, 40)
    peer = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", rng=1).confidence_interval
    assert est.bca_interval(values) == pytest.approx(tuple(peer), abs=0.01)
    assert est.bca_interval(values) == est.bca_interval(values)


def test_bca_of_equal_values_has_no_width() -> None:
    assert est.bca_interval([0.25] * 7) == (0.25, 0.25)


@pytest.mark.parametrize("values", [[], [[0.1]], [0.1, math.nan]])
def test_bootstrap_refuses_what_it_cannot_resample(values: list[float]) -> None:
    with pytest.raises(ValueError, match="bootstrap needs"):
        est.bca_interval(values)


def test_a_ratio_of_equal_shares_has_no_width_and_one_task_has_no_interval() -> None:
    assert est.ratio_interval(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0])) == (0.5, 0.5)
    assert all(map(math.isnan, est.ratio_interval(np.array([1.0]), np.array([2.0]))))


def test_a_rate_by_hand() -> None:
    """Samples passed per task 2/2, 1/2, 0/2, 0/2: ⅜ of four tasks."""
    rate = est.rate_over_tasks([[1, 1], [0, 1], [0, 0], [0, 0]])
    assert rate.rate == 0.375
    assert (rate.lo, rate.hi) == est.wilson_interval(1.5, 4)


def test_a_printed_rate_has_n_interval_method_and_tests() -> None:
    rate = est.rate_over_tasks(np.repeat([True, False], [150, 350]), protocol="best-of-100", tests="all")
    assert str(rate) == "30.0 % [26.1, 34.2] (n = 500 tasks × 1 sample; 95 % wilson; best-of-100, all tests)"


def test_a_rate_cannot_be_formatted_as_a_bare_number() -> None:
    with pytest.raises(TypeError):
        f"{est.rate_over_tasks([True, False]):.1f}"


def test_a_rate_without_an_interval_is_refused() -> None:
    with pytest.raises(ValueError, match="needs its n and an interval"):
        est.Rate(0.5, math.nan, 0.6, 10, 1, "wilson", "greedy")


def test_clopper_pearson_over_several_samples_is_refused() -> None:
    assert est.rate_over_tasks([1, 0, 1, 1], "clopper-pearson").lo == est.clopper_pearson_interval(3, 4)[0]
    with pytest.raises(ValueError, match="one result per task"):
        est.rate_over_tasks([[1, 0], [1, 1]], "clopper-pearson")


@pytest.mark.parametrize("passed", [[], [[]], np.zeros((2, 2, 2)), [0.5, 1], [[1, 2]]])
def test_what_is_no_array_of_results_is_refused(passed: object) -> None:
    with pytest.raises(ValueError, match="results"):
        est.rate_over_tasks(passed)  # type: ignore[arg-type]


def test_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="choose wilson"):
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
        (
            *est.clopper_pearson_interval(*one),
            *est.wilson_interval(*one),
            paired_difference(np.repeat([1, -1, 0], [*differ, 1])).p,
            est.two_proportion(*one, *other).p,
        )
        for one, other, differ in zip(table[:, :2].tolist(), table[:, 2:4].tolist(), table[:, 4:].tolist(), strict=True)
    ]
    assert theirs.shape == (RNG_CASES, 6)
    assert np.abs(theirs - ours).max() < 1e-9
