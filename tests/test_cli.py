"""The commands as a user meets them: what they print, what they refuse, and with which exit status."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lib.__main__ import main
from lib.run.pipeline import ROOT
from lib.tasks.task import Case, Task, write_tasks

COMMANDS = ("run", "sweep", "doctor", "score", "prompt", "execute", "decontaminate", "report", "figures",
            "compare", "export", "published", "replay", "ask")  # fmt: skip
Capture = pytest.CaptureFixture[str]


def task(name: str, **more: object) -> Task:
    """A small function task with one visible and one hidden assert."""
    fields = {
        "source": "here",
        "split": "test",
        "prompt": f"Write double(n), variant {name}.",
        "natural_language": "en",
        "programming_language": "python",
        "mode": "function",
        "entry_point": "double",
        "visible_tests": ("assert double(2) == 4",),
        "hidden_tests": ("assert double(-1) == -2",),
    }
    return Task(task_id=name, **{**fields, **more})  # type: ignore[arg-type]


@pytest.fixture
def files(tmp_path: Path) -> Callable[[dict[str, str]], list[str]]:
    """Write three tasks and a submission; the arguments that name them."""

    def make(answers: dict[str, str]) -> list[str]:
        write_tasks(tmp_path / "tasks.jsonl", [task("a"), task("b"), task("c")])
        rows = [{"id": name, "response": response} for name, response in answers.items()]
        (tmp_path / "submission.json").write_text(json.dumps(rows))
        return ["--tasks", str(tmp_path / "tasks.jsonl"), "--submission", str(tmp_path / "submission.json")]

    return make


RIGHT = "```python\ndef double(n):\n    return 2 * n\n```"
CONSTANT = "def double(n):\n    return 4\n"  # right on the visible test alone
ABSOLUTE = "```python\ndef double(n):\n    return 2 * abs(n)\n```"


def refusal(capsys: Capture, *arguments: str) -> str:
    """What a refused command says: one line on stderr, nothing on stdout, a non-zero status."""
    try:
        status = main(arguments)
    except SystemExit as ended:
        status = ended.code  # type: ignore[assignment]
    said = capsys.readouterr()
    assert status not in (0, None) and said.out == "" and said.err.count("\n") == 1, said
    return said.err.strip()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0 and "--json" in capsys.readouterr().out


def test_prompt_prints_exactly_what_a_model_sees(files: Callable, capsys: Capture) -> None:
    tasks = files({})[:2]
    assert main(["prompt", *tasks, "--id", "b"]) == 0
    text = capsys.readouterr().out
    assert text.endswith("```python\ndef double(n):\n") and "assert double(2) == 4" in text and "-1" not in text
    assert "no task 'zz'" in refusal(capsys, "prompt", *tasks, "--id", "zz")


# --------------------------------------------------------------------------------------------------------------- score


def test_score_prints_the_contract_and_nothing_else(files: Callable, capsys: Capture) -> None:
    assert main(["score", *files({"a": RIGHT, "b": ABSOLUTE}), "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert {
        "tests",
        "alias",
        "n",
        "passed",
        "pass_rate",
        "wilson95",
        "statuses",
        "sandbox_mode",
        "seconds",
    } == set(row)
    assert (row["tests"], row["alias"], row["n"], row["passed"]) == ("all", "strict", 3, 1)
    assert row["statuses"] == {"success": 1, "wrong-output": 1, "no-code": 1}
    assert row["wilson95"] == pytest.approx([0.0615, 0.7923], abs=1e-4)  # Wilson 1927 for 1 of 3


def test_score_visible_test_rates_does_not_run_hidden_ones(files: Callable, capsys: Capture) -> None:
    main(["score", *files({"a": RIGHT, "b": ABSOLUTE}), "--tests", "visible", "--json"])
    assert json.loads(capsys.readouterr().out)["passed"] == 2


def test_score_writes_one_verdict_a_line(files: Callable, tmp_path: Path, capsys: Capture) -> None:
    main(["score", *files({"c": RIGHT}), "--out", str(tmp_path / "v.jsonl")])
    rows = [json.loads(line) for line in (tmp_path / "v.jsonl").read_text().splitlines()]
    assert [(row["task_id"], row["status"]) for row in rows] == [
        ("a", "no-code"),
        ("b", "no-code"),
        ("c", "success"),
    ]
    assert "1 of 3 tasks pass their all tests" in capsys.readouterr().out


def test_score_says_how_each_answer_failed(files: Callable, tmp_path: Path) -> None:
    main(["score", *files({"a": ABSOLUTE, "b": RIGHT}), "--out", str(tmp_path / "v.jsonl")])
    rows = {row["task_id"]: row for row in map(json.loads, (tmp_path / "v.jsonl").read_text().splitlines())}
    assert rows["a"]["troopers_type"] in (1, 2, 3, 4) and rows["a"]["polycode_type"]
    assert rows["b"]["troopers_type"] is None and rows["b"]["sample"] == 0


def test_score_refuses_answers_to_other_tasks(files: Callable, capsys: Capture) -> None:
    assert "answers 1 ids that" in refusal(capsys, "score", *files({"a": RIGHT, "zz": RIGHT}))


def test_score_stops_when_tasks_lack_the_tests_asked_for(tmp_path: Path, files: Callable, capsys: Capture) -> None:
    arguments = files({"a": RIGHT})
    write_tasks(tmp_path / "tasks.jsonl", [task("a", hidden_tests=())])
    assert "none of the 1 tasks has hidden tests" in refusal(capsys, "score", *arguments, "--tests", "hidden")


def test_score_names_file_and_line_of_a_broken_row(files: Callable, tmp_path: Path, capsys: Capture) -> None:
    arguments = files({"a": RIGHT})
    with (tmp_path / "tasks.jsonl").open("a") as tasks:
        tasks.write("{broken\n")
    assert "tasks.jsonl:4" in refusal(capsys, "score", *arguments)


def test_score_adds_fuzzed_asserts_and_says_what_they_reject(tmp_path: Path, files: Callable, capsys: Capture) -> None:
    arguments = files({"a": RIGHT, "b": CONSTANT, "c": CONSTANT})
    reference = "def double(n):\n    return n + n\n"
    known = [task(name, reference=reference) for name in "ab"]
    io = task("d", mode="program", cases=(Case("", "1\n"),), visible_tests=(), hidden_tests=())
    write_tasks(tmp_path / "tasks.jsonl", [*known, task("c"), io])
    assert main(["score", *arguments, "--tests", "visible", "--fuzz", "6", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["statuses"] == {"success": 2, "wrong-output": 1, "no-code": 1}
    assert row["fuzzed"] == {
        "asked_per_task": 6,
        "asserts": 2,
        "tasks": 2,
        "without_reference": 1,
        "nothing_to_fuzz": 0,
        "not_python_functions": 1,
        "rejected": 1,
    }
    main(["score", *arguments, "--fuzz", "6"])
    assert "2 fuzzed asserts for 2 tasks reject 0 answers that pass the rest" in capsys.readouterr().out


@pytest.mark.parametrize("number", ["-1", "many", "2.5"])
def test_score_refuses_a_number_of_asserts_that_is_none(files: Callable, capsys: Capture, number: str) -> None:
    assert "--fuzz" in refusal(capsys, "score", *files({"a": RIGHT}), "--fuzz", number)


# ------------------------------------------------------------------------------------------------------------- execute


def execute(tmp_path: Path, source: bytes, cases: str, language: str = "python") -> list[str]:
    """The arguments of an execute command."""
    (tmp_path / "main").write_bytes(source)
    (tmp_path / "cases").write_text(cases)
    return ["execute", "--language", language, "--source", f"{tmp_path}/main", "--cases", f"{tmp_path}/cases"]


ONE_CASE = '{"input": "2\\n", "output": "4\\n"}'


@pytest.mark.parametrize("cases", [ONE_CASE, f"[{ONE_CASE}]", f"\n{ONE_CASE}\n{ONE_CASE}\n"])
def test_execute_takes_a_json_list_or_lines(tmp_path: Path, capsys: Capture, cases: str) -> None:
    assert main([*execute(tmp_path, b"print(int(input()) * 2)", cases), "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["status"], row["passed"]) == ("success", cases.count("input"))


def test_execute_of_a_wrong_program_is_a_verdict_not_an_error(tmp_path: Path, capsys: Capture) -> None:
    assert main(execute(tmp_path, b"print(5)", ONE_CASE)) == 0
    assert "status: wrong-output" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("source", "cases", "language", "fault"),
    [
        (b"\xff\xfe", ONE_CASE, "python", "main: not UTF-8 (byte 0)"),
        (b"print(1)", "[1]", "python", "cases: not cases"),
        (b"print(1)", '{"input": 1, "output": 2}', "python", "cases: not cases"),
        (b"print(1)", "", "python", "cases: no cases"),
        (b"print(1)", ONE_CASE, "cobol", "no language 'cobol'; there are "),
    ],
)
def test_execute_refuses(tmp_path: Path, capsys: Capture, source: bytes, cases: str, language: str, fault: str) -> None:
    assert fault in refusal(capsys, *execute(tmp_path, source, cases, language), "--json")


# ------------------------------------------------------------------------------------------------- the other commands


def test_decontaminate_writes_its_list_and_counts_it(tmp_path: Path, capsys: Capture) -> None:
    prompt = "Given a list of marks, return the number of pupils whose mark lies above the average of the whole class."
    write_tasks(tmp_path / "train.jsonl", [task("a", prompt=prompt), task("b", prompt="Reverse the words of a line.")])
    write_tasks(tmp_path / "eval.jsonl", [task("x", prompt=prompt)])
    sides = ["--train", f"{tmp_path}/train.jsonl", "--eval", f"{tmp_path}/eval.jsonl"]
    assert main(["decontaminate", *sides, "--out", f"{tmp_path}/out", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["train"], row["eval"], row["excluded"]["eval"]) == (2, 1, 1)
    assert (tmp_path / "out" / "exclusions.csv").read_text().startswith("side,id,matched_id,reason,score,sha256")


def test_report_prints_its_path(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    assert main(["report", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"report": f"{tmp_path}/report.html"}


def test_doctor_says_in_words_what_is_here_and_what_presets_would_do() -> None:
    command = [sys.executable, "-m", "lib", "doctor"]
    words = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for wanted in (
        r"device (cpu|cuda)",
        r"precision (bf16|fp16|fp32)",
        r"sandbox\n  mode [ABC]",
        r"lua: ",
        r"  smoke: ",
    ):
        assert re.search(wanted, words), wanted


def test_json_output_stays_clean_when_libraries_print(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Capture
) -> None:
    monkeypatch.setattr("lib.figures.report.build", lambda folder: print("a banner") or folder / "report.html")
    (tmp_path / "manifest.json").touch()
    main(["report", str(tmp_path), "--json"])
    said = capsys.readouterr()
    assert json.loads(said.out) and said.err == "a banner\n"
