"""The published numbers, and the published submission run again (skipped without data/external)."""

import csv
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest

from lib.__main__ import main
from lib.papers import published
from lib.papers.published import Audit, findings, in_words, read_published
from lib.sandbox import Sandbox
from lib.tasks.task import TaskError

BLP = Path(__file__).resolve().parent.parent / "data" / "external" / "blp"
external = pytest.mark.skipif(bool(published.missing_files(BLP)), reason="data/external/blp is not here")


# ---- the numbers


def test_every_published_number_names_its_source_and_is_a_share() -> None:
    numbers = read_published(published.NUMBERS)
    assert all(number.source and 0 <= number.rate <= 1 for number in numbers)
    assert {number.paper for number in numbers} == {"Troopers", "BLP-2025", "Agnostics", "PolyCode"}


def test_table_2_as_printed() -> None:
    rows = [row for row in read_published(published.NUMBERS) if row.item == "Table 2"]
    assert {row.k: round(row.rate * row.n_tasks) for row in rows} == {10: 176, 20: 192, 50: 227, 100: 245}


def test_a_number_without_n_has_no_interval() -> None:
    lua = next(row for row in read_published(published.NUMBERS) if row.language == "lua")
    assert lua.n_tasks is None and all(map(math.isnan, lua.interval))


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [("source", "", "line 2: no source"), ("rate", "49", "line 2: rate 49 of 500"), ("k", "ten", "line 2: .*'ten'")],
)
def test_a_published_row_that_cannot_be_used_is_named(tmp_path: Path, column: str, value: str, reason: str) -> None:
    with published.NUMBERS.open(encoding="utf-8", newline="") as lines:
        row = next(csv.DictReader(lines))
    with (tmp_path / "numbers.csv").open("w", newline="") as out:
        writer = csv.DictWriter(out, published.COLUMNS)
        writer.writeheader()
        writer.writerow(row | {column: value})
    with pytest.raises(ValueError, match=reason):
        read_published(tmp_path / "numbers.csv")


def test_another_file_is_not_taken_for_published_numbers(tmp_path: Path) -> None:
    (tmp_path / "numbers.csv").write_text("rate\n0.5\n")
    with pytest.raises(ValueError, match="columns .*expected paper, item"):
        read_published(tmp_path / "numbers.csv")


# ---- findings


def test_findings_by_hand() -> None:
    """Five tasks, two of them trained on; four pass the visible assert, two the full suite."""
    visible, full = numpy.array([1, 1, 1, 1, 0], bool), numpy.array([1, 1, 0, 0, 0], bool)
    found = findings(Audit(tuple("abcde"), visible, full, numpy.array([1, 1, 0, 0, 0], bool)))
    assert [(row["passed"], row["n_tasks"]) for row in published.rows(found)] == [
        (4, 5), (2, 5), (2, 2), (2, 2), (2, 3), (0, 3),
    ]  # fmt: skip
    assert (found.drop.wins, found.drop.losses, found.drop.p_mcnemar) == (2, 0, 0.5)
    assert found.contamination["all"].p == pytest.approx(1 / 10)  # both successes among the two of five: 1 / C(5, 2)


def test_a_submission_with_nothing_trained_on_has_no_second_sample() -> None:
    passed = numpy.array([1, 0], bool)
    found = findings(Audit(("a", "b"), passed, passed, numpy.zeros(2, bool)))
    assert found.contamination == {} and "trained on against" not in in_words(found)


def test_suites_are_said_to_be_passed_not_to_be_better() -> None:
    visible, full = numpy.ones(20, bool), numpy.zeros(20, bool)
    found = findings(Audit(tuple(map(str, range(20))), visible, full, numpy.zeros(20, bool)))
    assert found.drop.sentence.startswith("More answers pass the visible assert than the full suite: 100.0 %")


# ---- the submission


@pytest.fixture(scope="module")
def audited() -> Audit:
    with Sandbox() as sandbox:
        return published.audit(BLP, sandbox)


@external
def test_the_known_counts_with_both_intervals(audited: Audit) -> None:
    table = {(row["group"], row["tests"]): row for row in published.rows(findings(audited))}
    counts = {key: (row["passed"], row["n_tasks"]) for key, row in table.items()}
    assert counts == {
        ("all tasks", "visible assert"): (245, 500), ("all tasks", "full suite"): (150, 500),
        ("trained on", "visible assert"): (138, 155), ("trained on", "full suite"): (90, 155),
        ("not trained on", "visible assert"): (107, 345), ("not trained on", "full suite"): (60, 345),
    }  # fmt: skip
    row = table["all tasks", "full suite"]
    assert [round(100 * row[name], 1) for name in ("lo", "hi", "exact_lo", "exact_hi")] == [26.1, 34.2, 26.0, 34.2]


@external
def test_the_drop_of_95_tasks_and_the_trained_tasks_lead(audited: Audit) -> None:
    found = findings(audited)
    assert (found.drop.wins, found.drop.losses, found.drop.n_tasks) == (95, 0, 500)
    assert found.drop.p_mcnemar == pytest.approx(2 * 0.5**95, rel=1e-9)
    assert found.contamination["visible"].difference == pytest.approx(138 / 155 - 107 / 345)
    assert found.contamination["all"].p < 1e-15


@external
def test_one_command_prints_it_and_draws_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["published", "--json", "--out", str(tmp_path)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [row["passed"] for row in said["rows"]] == [245, 150, 138, 90, 107, 60]
    assert {path.suffix for path in tmp_path.glob("published_submission.*")} == {".png", ".pdf", ".csv", ".txt"}


def test_the_command_without_the_files_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["published", "--data", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert (
        said.out == ""
        and said.err == f"{tmp_path}/test_v1.csv: not found; data/README.md says where public corpora go\n"
    )


@pytest.fixture
def small(tmp_path: Path) -> Callable[[list[int]], Path]:
    """A folder of three tasks, right programs for the ids given, one of the tasks in the training file."""
    shown = [
        '1,"১ যোগ করো Example:\ndef f(n):","[""assert f(1) == 2""]"',
        '2,"২ যোগ করো Example:\ndef f(n):","[""assert f(1) == 3""]"',
    ]
    full = [
        '1,"১ যোগ করো","""[\'assert f(1) == 2\', \'assert f(2) == 3\']""",x',
        '2,"২ যোগ করো","""[\'assert f(1) == 3\', \'assert f(2) == 4\']""",x',
    ]

    def make(ids: list[int]) -> Path:
        (tmp_path / "test_v1.csv").write_text("\n".join(["id,instruction,test_list", *shown]), encoding="utf-8")
        (tmp_path / "test_full.csv").write_text(
            "\n".join(["id,instruction,test_list,response", *full]), encoding="utf-8"
        )
        answers = [{"id": name, "response": f"```python\ndef f(n):\n    return n + {name}\n```"} for name in ids]
        (tmp_path / "troopers_submission.json").write_text(json.dumps(answers))
        if BLP.is_dir():
            shutil.copy(BLP / "troopers_rsft_ds.jsonl", tmp_path)
        return tmp_path

    return make


@external
def test_right_programs_pass_both_suites(small: Callable[[list[int]], Path]) -> None:
    with Sandbox() as sandbox:
        judged = published.audit(small([1, 2]), sandbox)
    assert judged.visible.tolist() == judged.full.tolist() == [True, True] and not judged.trained.any()


@external
def test_a_submission_for_other_tasks_is_refused(small: Callable[[list[int]], Path]) -> None:
    with Sandbox() as sandbox, pytest.raises(TaskError, match="troopers_submission.json: 1 tasks .* as 2"):
        published.audit(small([1]), sandbox)
