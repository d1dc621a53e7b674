"""`ask` and repair turns: what a model is shown of its failure, what is kept, and the command itself."""

import contextlib
import dataclasses
import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from lib.__main__ import main
from lib.mining.answers import passed_matrix
from lib.mining.ask import AskError, ask, in_words, task_of
from lib.mining.collect import Source, attempt_all
from lib.mining.ledger import Ledger
from lib.mining.repair import follow_up, repair, shown_failure
from lib.models.resolve import resolve
from lib.sampling import Completion, SamplingParams
from lib.sandbox import Sandbox
from lib.tasks.task import Task
from tests.test_ledger import ROW

DOUBLE = Task(
    "a", "here", "train", "Write double(n).", "en", "python", "function", "double",
    visible_tests=("assert double(2) == 4",), hidden_tests=("assert double(-1) == -2",),
)  # fmt: skip
WRONG, ONLY_VISIBLE, RIGHT = "\n    return n / 0", "\n    return 4", "\n    return 2 * n"
PARAMS, SOURCE = SamplingParams(temperature=0.0, max_new_tokens=24), Source("r", "m", "", 0)


class Scripted:
    """An engine that gives one answer after the other, and keeps what it was asked."""

    name, context_length = "scripted", 2048

    def __init__(self, *answers):
        self.tokenizer, self.answers, self.asked = AutoTokenizer.from_pretrained(resolve("embedded")), list(answers), []

    def stream(self, requests, params):
        for request in requests:
            self.asked.append(request.text)
            yield request, Completion(self.answers.pop(0), (1,), True)


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(workers=1) as box:
        yield box


def repaired(engine, sandbox, ledger, turns, task=DOUBLE):
    """A first attempt and its repairs."""
    how = {"engine": engine, "sandbox": sandbox, "params": PARAMS, "source": SOURCE}
    return [*(first := attempt_all([task], 1, ledger, **how)), *repair([task], first, turns, ledger, **how)]


def test_a_repair_sees_the_program_and_its_trace_and_names_its_parent(sandbox, tmp_path):
    engine = Scripted(WRONG, RIGHT)
    first, second = repaired(engine, sandbox, Ledger(tmp_path / "a.jsonl"), 3)
    assert (first.solved, second.solved, second.parent, first.parent) == (False, True, first.prompt_hash, "")
    assert "return n / 0\n```" in engine.asked[1] and "ZeroDivisionError: division by zero" in engine.asked[1]
    assert engine.asked[1].endswith("```python\ndef double(n):") and "double(-1)" not in engine.asked[1]


def test_a_failure_on_hidden_tests_alone_is_not_shown(sandbox, tmp_path):
    attempts = repaired(Scripted(ONLY_VISIBLE), sandbox, Ledger(tmp_path / "a.jsonl"), 3)
    assert [one.solved for one in attempts] == [False] and shown_failure(DOUBLE, attempts[0]) == ""


def test_turns_end_at_their_number_and_a_rerun_samples_none_again(sandbox, tmp_path):
    ledger, engine = Ledger(tmp_path / "a.jsonl"), Scripted(WRONG, WRONG + " + 1", WRONG + " + 2")
    made = repaired(engine, sandbox, ledger, 2)
    assert [one.parent for one in made] == ["", made[0].prompt_hash, made[1].prompt_hash]
    assert repaired(engine, sandbox, ledger, 2) == made and not engine.answers


def test_a_rate_counts_first_answers_and_not_repairs(sandbox, tmp_path):
    made = repaired(Scripted(WRONG, RIGHT), sandbox, Ledger(tmp_path / "a.jsonl"), 1)
    assert passed_matrix(made, [DOUBLE], "all").tolist() == [[False]]


def test_of_a_program_a_crash_is_shown_and_the_expected_output_never(tmp_path):
    task = task_of("Print a line.", "lua")
    crashed = dataclasses.replace(
        ROW, status="runtime-error", visible_ok=False, failure="case 1: exit code 1", program="error()",
        stderr_head='File "/dev/shm/sandbox-1-x/0p/main.lua", line 1\n',
    )  # fmt: skip
    assert shown_failure(task, crashed) == 'case 1: exit code 1\nFile "main.lua", line 1'
    assert shown_failure(task, dataclasses.replace(crashed, status="wrong-output")) == ""
    assert "```lua\nerror()\n```" in follow_up(task, crashed, Scripted().tokenizer).text


@pytest.mark.parametrize(
    ("language", "test", "name"),
    [("python", "assert sorted(add([1], 2)) == 3", "add"), ("lua", "assert(add(1, 2) == 3)", "add"),
     ("ocaml", "assert (add 1 2 = 3)", "add"), ("R", "stopifnot(add.two(1, 2) == 3)", "add.two")],
)  # fmt: skip
def test_the_function_asked_for_is_the_one_that_the_test_calls(language, test, name):
    assert task_of("Add.", language, test).entry_point == name


@pytest.mark.parametrize("given", [("", "python", ""), ("Add.", "python", "assert"), ("Add.", "fortran", "add(1)")])
def test_a_question_that_cannot_be_asked_is_refused(given):
    with pytest.raises(AskError):
        task_of(*given)


def test_a_question_longer_than_the_context_is_refused(sandbox):
    with pytest.raises(AskError, match="2048 tokens"):
        ask(task_of("word " * 3000), engine=Scripted(), sandbox=sandbox)


def test_without_a_test_the_output_is_shown_and_nothing_is_called_right(sandbox):
    task = task_of("Print two lines.")
    words = in_words(task, ask(task, engine=Scripted("print('one')\nprint(2)"), sandbox=sandbox))
    assert "output:\none\n2" in words and "nothing says if it is right" in words and "success" not in words


def test_the_command_shows_the_program_and_its_verdict(capsys):
    told = ["ask", "Write add(a, b), which returns the sum of a and b.", "--test", "assert add(1, 2) == 3"]
    assert main([*told, "--json"]) == 0
    (attempt,) = json.loads(capsys.readouterr().out)["attempts"]
    assert attempt["program"].startswith("def add(a, b):") and attempt["status"] == "success"


def test_the_command_names_what_is_no_adapter(tmp_path: Path, capsys):
    with contextlib.suppress(SystemExit):
        assert main(["ask", "Add.", "--adapter", str(tmp_path)]) == 1
    assert "neither an adapter's folder (adapter_config.json) nor a run" in capsys.readouterr().err
