"""Runs side by side: the mean over seeds, each task against itself, and what cannot be compared."""

import dataclasses

import numpy
import pandas
import pytest

from lib.evaluation import comparison
from lib.evaluation.comparison import ComparisonError, Run
from lib.figures import evaluation as figures


def _scores(seed: int) -> pandas.DataFrame:
    rows = [("base", "visible", 0.2 + seed / 10), ("rsft", "visible", 0.5), ("base", "hidden", 0.1)]
    return pandas.DataFrame(
        [{"model": m, "tests": t, "protocol": "draws", "rate": rate, "seed": seed} for m, t, rate in rows]
    )


def run_of(name: str, base: list[list[int]], rsft: list[list[int]], ids: tuple[str, ...] = ("a", "b")) -> Run:
    """A run whose two models have these draws; rows are tasks."""
    drawn = {"base": numpy.array(base, bool), "rsft": numpy.array(rsft, bool)}
    passed = {(model, kind): draws[:, :1] if kind == "greedy" else draws
              for model, draws in drawn.items() for kind in ("greedy", "draws")}  # fmt: skip
    return Run(name, int(name[-1]), ids, passed, _scores(int(name[-1])))


ONE = run_of("seed0", [[0, 1], [0, 0]], [[1, 1], [0, 1]])
TWO = run_of("seed1", [[1, 1], [0, 0]], [[1, 1], [0, 0]])


def row(rows: list, model: str, protocol: str) -> dict:
    return next(row for row in rows if (row["model"], row["protocol"]) == (model, protocol))


def test_a_rate_is_the_mean_over_runs_of_the_mean_over_tasks() -> None:
    rows, _ = comparison.pool_runs([ONE, TWO])
    assert row(rows, "base", "draws")["rates"] == [0.25, 0.5]
    assert row(rows, "base", "draws")["rate"] == 0.375
    assert row(rows, "rsft", "draws")["rate"] == 0.625


def test_the_spread_over_runs_is_their_standard_deviation() -> None:
    rows, _ = comparison.pool_runs([ONE, TWO])
    assert row(rows, "base", "draws")["spread"] == pytest.approx(0.25 / 2**0.5)
    assert any("25.0, 50.0 (± 17.7)" in line for line in comparison.summary(rows))
    assert comparison.pool_runs([ONE])[0][0]["spread"] is None


def test_a_run_more_is_not_a_task_more() -> None:
    rows, found = comparison.pool_runs([ONE, TWO])
    assert {row["n_tasks"] for row in rows} == {2} == {each.n_tasks for each in found}


def test_each_task_is_compared_with_itself() -> None:
    rows, found = comparison.pool_runs([ONE, TWO])
    assert row(rows, "rsft", "draws")["difference"] == 0.25
    assert (found[1].wins, found[1].losses) == (2, 0)
    assert row(rows, "rsft", "draws")["rose"] == 1


def test_scores_of_all_runs_stand_below_one_another() -> None:
    assert comparison.all_scores([ONE, TWO])["seed"].tolist() == [0, 0, 0, 1, 1, 1]


def test_visible_rates_are_means_over_runs() -> None:
    assert comparison.visible_test_rates([ONE, TWO]) == {"base": pytest.approx(0.25), "rsft": 0.5}


def test_the_figure_shows_a_line_a_run_and_their_mean() -> None:
    figure, data = figures.over_runs(comparison.rates_of_runs([ONE, TWO]))
    assert [len(axes.lines) for axes in figure.axes] == [3, 3]
    assert len(data) == 8


def test_the_table_has_a_line_a_model_and_protocol() -> None:
    rows, found = comparison.pool_runs([ONE, TWO])
    assert comparison.table(rows, [one.sentence for one in found]).count("\n|") == 5


# ---- families, and what would decide it


def test_only_the_declared_family_is_adjusted() -> None:
    """Twelve tasks: greedy is won on all, draws on six; two comparisons: the smaller p doubles."""
    won = run_of("seed0", [[0, 0]] * 12, [[1, 1]] * 6 + [[1, 0]] * 6, tuple("abcdefghijkl"))
    rows, _ = comparison.pool_runs([dataclasses.replace(won, family=("rsft, greedy", "rsft, draws"))])
    greedy, draws = row(rows, "rsft", "greedy"), row(rows, "rsft", "draws")
    assert greedy["p_holm"] == pytest.approx(2 * greedy["p_permutation"])
    assert draws["p_holm"] == pytest.approx(2 * draws["p_permutation"])
    rows, _ = comparison.pool_runs([dataclasses.replace(won, family=("rsft, draws",))])
    assert row(rows, "rsft", "draws")["p_holm"] == row(rows, "rsft", "draws")["p_permutation"]
    assert row(rows, "rsft", "greedy")["p_holm"] is None


def test_with_three_runs_p_over_runs_and_tasks_is_adjusted() -> None:
    runs = [dataclasses.replace(run_of(f"seed{n}", [[0, 1]] * 9, [[1, n > 0]] * 9, tuple("abcdefghi")),
                                family=("rsft, draws",)) for n in range(3)]  # fmt: skip
    found = row(comparison.pool_runs(runs)[0], "rsft", "draws")
    assert found["p_holm"] == found["p_runs"] > found["p_permutation"]
    assert found["runs_lo"] < found["difference_lo"]


@pytest.mark.parametrize("family", [("gmpo, draws",), ("rsft, draws", "rsft, draws")])
def test_a_family_that_names_no_comparison_or_one_twice_is_refused(family: tuple[str, ...]) -> None:
    with pytest.raises(ComparisonError, match="family: "):
        comparison.pool_runs([dataclasses.replace(ONE, family=family)])


def test_runs_that_declared_other_families_are_refused() -> None:
    with pytest.raises(ComparisonError, match="seed1: another family"):
        comparison.pool_runs([dataclasses.replace(ONE, family=("rsft, draws",)), TWO])


def test_what_would_decide_it_is_said_for_every_model_but_the_first() -> None:
    assert [line.partition(":")[0] for line in comparison.decisive_sentences([ONE, TWO])] == ["rsft against base"]


def test_runs_of_other_tasks_are_refused() -> None:
    with pytest.raises(ComparisonError, match=r"seed1: evaluated on other tasks than seed0 \(2 differ\)"):
        comparison.pool_runs([ONE, dataclasses.replace(TWO, task_ids=("a", "c"))])


def test_runs_with_other_numbers_of_draws_are_refused() -> None:
    with pytest.raises(ComparisonError, match="numbers of samples"):
        comparison.pool_runs([ONE, run_of("seed1", [[0], [0]], [[0], [0]])])


def test_a_run_counts_once() -> None:
    with pytest.raises(ComparisonError, match="seed0: named twice"):
        comparison.pool_runs([ONE, ONE])


def test_a_folder_that_is_no_run_is_named(tmp_path) -> None:
    with pytest.raises(ComparisonError, match="manifest.json is missing"):
        comparison.read_run(tmp_path)
