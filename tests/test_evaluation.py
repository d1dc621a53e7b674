"""From matrices of draws to rows: best-of-k beside the rest, and rates by group with both means."""

import numpy
import pytest

from lib.evaluation.scores import interval_rows, per_task_rows, rates_by_field, scores
from lib.mining.ledger import FIELDS, Attempt
from lib.stats.intervals import by_group
from lib.stats.pass_at_k import best_of_k
from lib.tasks.task import Task


def task(name: str, tier: int) -> Task:
    return Task(name, "here", "test", "p", "en", "python", "function", "f", ("assert f()",), ("assert f()",), tier=tier)


TASKS = [task("a", 1), task("b", 1), task("c", 2)]
VISIBLE = {"base": [[0, 1], [0, 0], [1, 0]], "rsft": [[1, 1], [0, 1], [1, 0]]}
HIDDEN = {"base": [[0, 1], [0, 0], [0, 0]], "rsft": [[1, 1], [0, 0], [1, 0]]}


def attempts(model: str, draws: int) -> list[Attempt]:
    blank = dict.fromkeys(FIELDS, 0)
    return [
        Attempt(**blank | {"task_id": task.task_id, "draw": draw, "visible_ok": bool(VISIBLE[model][row][draw]),
                           "hidden_ok": bool(HIDDEN[model][row][draw]), "status": "wrong-output"})
        for row, task in enumerate(TASKS) for draw in range(draws)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    answers = {model: {"greedy": attempts(model, 1), "draws": attempts(model, 2)} for model in VISIBLE}
    return scores(answers, TASKS, 0, ks=(2,))


def test_best_of_k_has_a_row_per_model_and_needs_all_tests(rows: list[dict]) -> None:
    found = {row["model"]: row for row in rows if row["protocol"] == "best-of-2"}
    assert {row["tests"] for row in found.values()} == {"all"} and set(found) == {"base", "rsft"}
    for model, row in found.items():
        expected = best_of_k(VISIBLE[model], HIDDEN[model], 2)
        assert (row["rate"], row["draws"]) == (round(expected.rate, 6), 2)
    assert found["rsft"]["vs"] == "base" and found["rsft"]["p_mcnemar"] == 1.0  # one task won, none lost: 2·½


def test_macro_and_micro_stand_beside_the_groups() -> None:
    """Tier 1: 3 of 4 draws; tier 2: none of 2."""
    passed = numpy.array([[1, 1], [0, 1], [0, 0]], bool)
    rows = {row["group"]: row for row in rates_by_field(passed, TASKS) if row["by"] == "tier"}
    assert {group: row["rate"] for group, row in rows.items()} == {"1": 0.75, "2": 0.0, "macro": 0.375, "micro": 0.5}
    assert rows["macro"]["lo"] == round(by_group(passed, ["1", "1", "2"]).macro.lo, 6)


def test_rates_come_by_tier_language_and_source() -> None:
    rows = rates_by_field(numpy.ones((3, 2), bool), TASKS)
    assert {row["by"] for row in rows} == {"tier", "programming_language", "source"}
    assert all(row["n_tasks"] and row["lo"] < row["hi"] for row in rows)


def test_every_interval_of_a_rate_stands_beside_the_others() -> None:
    sampled = numpy.array([[1, 1], [0, 1], [0, 0], [1, 0]], bool)
    rows = interval_rows(sampled[:, :1], sampled)
    assert [row["interval"] for row in rows] == ["wilson", "clopper-pearson", "wilson", "delta", "bca bootstrap"]
    assert {row["rate"] for row in rows} == {0.5}
    wilson, exact = rows[0], rows[1]
    assert exact["lo"] < wilson["lo"] < 0.5 < wilson["hi"] < exact["hi"]


def test_tasks_that_are_all_alike_have_no_delta_interval() -> None:
    rows = {row["interval"]: row for row in interval_rows(numpy.ones((3, 1), bool), numpy.ones((3, 2), bool))}
    assert numpy.isnan(rows["delta"]["lo"]) and rows["bca bootstrap"]["lo"] == 1


def test_each_prompt_has_its_count_and_interval() -> None:
    rows = per_task_rows({"base": numpy.array([[1, 0], [0, 0], [1, 1]], bool)}, TASKS)
    assert [(row["task_id"], row["passed"], row["draws"]) for row in rows] == [("a", 1, 2), ("b", 0, 2), ("c", 2, 2)]
    assert rows[1]["lo"] == 0 and rows[2]["hi"] == 1 and rows[0]["lo"] < 0.5 < rows[0]["hi"]
