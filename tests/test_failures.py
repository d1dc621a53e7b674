"""Failures counted, compared with labels by reading, and laid out to leaf through."""

import html
import shutil
import subprocess
import sys
from pathlib import Path

import numpy
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.failure_labels import SHIPPED, agreement, read_labels
from lib.evaluation.failures import statistics as failure_statistics
from lib.evaluation.failures import table as failure_table
from lib.figures import failures as figures
from lib.figures import report
from lib.mining.ledger import FIELDS, Attempt
from lib.tasks.task import Task

ROOT = Path(__file__).resolve().parent.parent
ADD = Task(
    "t/add", "made", "test", "দুটি সংখ্যার যোগফল দাও", "bn", "python", "function", "add",
    visible_tests=("assert add(2, 3) == 5",), hidden_tests=("assert add(0, 0) == 0",),
)  # fmt: skip


def attempt(status: str, failure: str = "", adapter: str = "", draw: int = 0, **values: object) -> Attempt:
    blank = dict.fromkeys(FIELDS, "") | {"draw": draw, "temperature": 0.0, "n_tokens": 7, "logprob_sum": None}
    given = {"task_id": "t/add", "status": status, "failure": failure, "adapter": adapter, "passed": 0, "total": 2}
    return Attempt(**(blank | given | {"program": "def add(a, b):\n    return a - b\n"} | values))


WRONG = attempt("wrong-output", "assert add(2, 3) == 5: got -1, expected 5")
RAISED = attempt("runtime-error", "assert add(2, 3) == 5: ZeroDivisionError: division by zero (line 2)", "a1")
NAMES = {"": "base", "a1": "rsft"}


# ------------------------------------------------------------------------------------------- labels by reading


def test_kappa_of_a_table_worked_by_hand() -> None:
    """20 both yes, 15 both no, 5 and 10 apart: p_o = .7, p_e = .5·.6 + .5·.4 = .5, κ = .4."""
    read = ["yes"] * 25 + ["no"] * 25
    ruled = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    found = agreement(read, ruled, ("yes", "no"))
    assert found.kappa == pytest.approx(0.4)
    assert (found.agreed, found.total) == (35, 50)
    assert found.confusion.to_numpy().tolist() == [[20, 5], [10, 15]]
    assert found.per_class().loc["yes", ["precision", "recall"]].tolist() == pytest.approx([20 / 30, 20 / 25])
    assert found.lo < 0.4 < found.hi


def test_kappa_says_nothing_about_one_class() -> None:
    assert numpy.isnan(agreement(["a", "a"], ["a", "a"], ("a", "b")).kappa)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=2))
def test_kappa_is_the_same_from_either_side(pairs: list[tuple[str, str]]) -> None:
    one, two = ([pair[side] for pair in pairs] for side in (0, 1))
    assert agreement(one, two, "abc").kappa == pytest.approx(agreement(two, one, "abc").kappa, nan_ok=True)


@pytest.mark.parametrize(
    ("read", "ruled", "told"), [([], [], "at least 1"), (["a"], [], "equally"), (["z"], ["a"], "'z'")]
)
def test_agreement_refuses(read: list[str], ruled: list[str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        agreement(read, ruled, ("a", "b"))


def test_shipped_labels_are_200_in_two_halves_and_hold_no_text_of_the_corpus() -> None:
    labels = read_labels()
    assert [label.half for label in labels].count("develop") == 100 == len(labels) // 2
    assert all(len(label.sha256) == 64 and "def " not in label.note for label in labels)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (",develop,1,", ",develop,5,", "row 1: troopers_type_1 is '5', should be one of 1, 2, 3, 4, none"),
        (",develop,", ",third,", "row 1: half is 'third', should be one of develop, held-out"),
        ("task_id,", "id,", "columns .* should be"),
        ("\n6,", "\n2,", "task_id '2' occurs twice"),
    ],
)
def test_broken_labels_are_named(tmp_path: Path, old: str, new: str, told: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(SHIPPED.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ValueError, match=told):
        read_labels(path)


def test_rules_agree_with_reading() -> None:
    """κ ≥ 0.75 was asked for; 0.969 and 0.946 were measured, 0.926 and 0.919 on the half left alone."""
    sys.path.insert(0, str(ROOT))
    from benchmarks import taxonomy

    if not taxonomy.BLP.is_dir():
        pytest.skip("data/external is not here")
    read = read_labels()
    labels = taxonomy.ruled(read)
    assert taxonomy.compared(read, labels, "troopers_type").kappa >= 0.95
    assert taxonomy.compared(read, labels, "polycode_type").kappa >= 0.9
    held_out = [one for one in read if one.half == "held-out"]
    assert taxonomy.compared(held_out, labels, "polycode_type").kappa >= 0.75
    assert taxonomy.compared(held_out, labels, "troopers_type").kappa >= 0.9


# ---------------------------------------------------------------------------------------------------- counting


def test_outcomes_keep_successes_and_tell_the_failing_test() -> None:
    rows = failure_statistics.outcomes([WRONG, attempt("success", draw=1), RAISED], [ADD], NAMES)
    assert rows["troopers_type"].tolist() == ["1", "solved", "3"]
    assert rows.loc[0, ["test", "got", "expected"]].tolist() == ["assert add(2, 3) == 5", "-1", "5"]
    assert rows.loc[2, ["got", "expected"]].tolist() == ["ZeroDivisionError: division by zero (line 2)", "5"]


def test_attempts_at_tests_that_cannot_be_run_are_no_outcomes() -> None:
    assert failure_statistics.outcomes([attempt("unsupported-test", "reads stdout")], [ADD], NAMES).empty


def test_outcomes_leave_other_tasks_out() -> None:
    assert failure_statistics.outcomes([attempt("success", task_id="other")], [ADD], NAMES).empty


def test_shares_resample_tasks_not_draws() -> None:
    """Ten draws of each of two tasks, all of one type in a task: the share is ½, and by tasks it may be 0 or 1."""
    failed = pandas.DataFrame({"model": "base", "task_id": ["t1"] * 10 + ["t2"] * 10, "kind": ["3"] * 10 + ["4"] * 10})
    found = failure_statistics.shares(failed, "kind").set_index("kind").loc["3"]
    assert (found["count"], found["of"], found["share"], found["n_tasks"]) == (10, 20, 0.5, 2)
    assert (found["lo"], found["hi"]) == (0.0, 1.0)


def test_shares_of_one_task_have_no_interval_and_a_missing_type_counts_0() -> None:
    failed = pandas.DataFrame({"model": ["a", "a", "b"], "task_id": ["t", "t", "u"], "kind": ["3", "3", "4"]})
    found = failure_statistics.shares(failed, "kind").set_index(["model", "kind"])
    assert found.loc[("a", "4"), "count"] == 0 and numpy.isnan(found.loc[("a", "3"), "lo"])


def flow_rows() -> pandas.DataFrame:
    before, after = ["4", "4", "solved", "1"], ["solved", "4", "solved", "3"]
    parts = [
        pandas.DataFrame(
            {"model": model, "task_id": list("abcd"), "temperature": 0.0, "troopers_type": types, "n_tokens": 5}
        )
        for model, types in (("base", before), ("rsft", after))
    ]
    return pandas.concat(parts).assign(status=lambda rows: rows["troopers_type"].map({"solved": "success"}).fillna("x"))


def test_flows_count_where_each_task_went() -> None:
    table = failure_statistics.flows(flow_rows(), "base", "rsft", "troopers_type")
    assert table.loc["4", "solved"] == table.loc["4", "4"] == table.loc["1", "3"] == 1
    assert table.to_numpy().sum() == 4 and table.loc["solved", "solved"] == 1


def test_flows_need_tasks_in_common() -> None:
    rows = flow_rows()
    with pytest.raises(ValueError, match="no greedy answer to the same task"):
        failure_statistics.flows(rows[rows["model"] == "base"], "base", "rsft", "troopers_type")


def test_log_probabilities_are_told_or_said_to_be_missing() -> None:
    rows = failure_statistics.outcomes([WRONG, attempt("success", draw=1)], [ADD], NAMES)
    assert "no log-probabilities" in failure_statistics.log_prob_note(rows)
    known = rows.assign(logprob_sum=[-14.0, -7.0])
    assert "solved -1.000, failed -2.000" in failure_statistics.log_prob_note(known)


def test_lengths_split_solved_and_failed() -> None:
    rows = failure_statistics.outcomes([WRONG, attempt("success", draw=1, n_tokens=3)], [ADD], NAMES)
    found = failure_statistics.lengths(rows).set_index("outcome")["mean"]
    assert found.to_dict() == {"failed": 7.0, "solved": 3.0}


def test_likelihoods_are_standardised_within_a_prompt_and_step() -> None:
    """−4 and −8 of one prompt: mean −6, σ 2. A prompt's only rollout, and a row without L."""
    rolled = [
        attempt("success", draw=0, step=1, logprob_sum=-4.0),
        attempt("timeout", draw=1, step=1, logprob_sum=-8.0),
        attempt("success", draw=2, step=2, logprob_sum=-5.0),
        attempt("success", draw=3, step=2, logprob_sum=None),
        attempt("unsupported-test", draw=4, step=2, logprob_sum=-1.0),
    ]
    rows = failure_statistics.rollout_likelihoods(rolled)
    assert rows["l_hat"].tolist() == [1.0, -1.0, 0.0] and rows["right"].tolist() == [True, False, True]
    figure, data = figures.rollout_likelihoods(rows)
    assert len(data) == 3 and [len(axes.lines) for axes in figure.axes] == [2, 2]


def test_a_run_without_rollouts_has_an_empty_picture() -> None:
    assert failure_statistics.rollout_likelihoods([]).empty
    assert figures.rollout_likelihoods(failure_statistics.rollout_likelihoods([]))[1].empty


def test_steps_fill_verdicts_that_a_step_lacks() -> None:
    history = [{"step": 1, "verdict/success": 1.0, "l_hat_right": 0.5}, {"step": 2, "verdict/timeout": 1.0}]
    assert failure_statistics.verdict_steps(history)["success"].tolist() == [1.0, 0.0]
    _, data = figures.failure_steps(history)
    assert data["timeout"].tolist() == [0.0, 1.0] and data["l_hat_wrong"].isna().all()


def test_every_failure_figure_gives_the_data_behind_it() -> None:
    rows = flow_rows()
    failed = rows[rows["status"] != "success"]
    assert {"share", "lo", "hi", "count"} <= set(figures.failure_shares(failed, "troopers_type")[1])
    table = failure_statistics.flows(rows, "base", "rsft", "troopers_type")
    assert figures.failure_flows([table])[1]["tasks"].sum() == 4
    assert figures.lengths(rows)[1]["count"].sum() == 8


# -------------------------------------------------------------------------------------------------- to leaf through


def table_rows() -> pandas.DataFrame:
    hostile = attempt("wrong-output", WRONG.failure, "a1", program="x = '</pre><script>alert(1)</script>'\n")
    return failure_statistics.browsable(failure_statistics.outcomes([WRONG, hostile, RAISED], [ADD], NAMES))


def test_browsable_keeps_the_first_failure_of_a_task_and_model() -> None:
    warm = attempt("wrong-output", WRONG.failure, draw=1, temperature=0.8, program="warm")
    rows = failure_statistics.browsable(failure_statistics.outcomes([warm, WRONG, RAISED], [ADD], NAMES))
    assert rows["program"].tolist() == [WRONG.program, RAISED.program]


def test_the_table_shows_everything_and_escapes_it() -> None:
    page = failure_table.render(table_rows().to_dict("records"))
    assert "দুটি সংখ্যার যোগফল দাও" in page and "assert add(2, 3) == 5" in page
    assert "<script>alert" not in page and html.escape("<script>alert(1)") in page
    assert page.count("<details ") == 2


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_a_choice_hides_the_other_rows_in_a_real_browser(tmp_path: Path) -> None:
    choose = (
        "const s = document.querySelector('select[name=model]'); s.value = 'rsft'; s.dispatchEvent(new "
        "Event('input', {bubbles: true}));"
    )
    page = tmp_path / "page.html"
    page.write_text(
        f'<meta charset="utf-8">{failure_table.render(table_rows().to_dict("records"))}<script>{choose}</script>',
        encoding="utf-8",
    )
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "<output>1 of 2</output>" in done.stdout, done.stderr[-500:]


def test_the_report_carries_the_table(tmp_path: Path) -> None:
    assert "failures_browse.csv" in report.render(tmp_path)
    table_rows().to_csv(tmp_path / "failures_browse.csv", index=False)
    assert "দুটি সংখ্যার যোগফল দাও" in report.render(tmp_path)
