"""One attempt of a run again: the stored verdict beside the new one, and the completion from its stored seed."""

import dataclasses
import json
from pathlib import Path

import pytest

from lib.__main__ import main
from lib.mining import replay
from lib.mining.collect import Source, local_runner
from lib.mining.ledger import Ledger
from lib.mining.replay import ReplayError
from lib.sampling import SamplingParams, open_engine
from lib.sandbox import Sandbox
from lib.tasks.task import Task, write_tasks
from tests.test_ledger import ROW

DOUBLE = Task(
    "a", "here", "test", "Write double(n).", "en", "python", "function", "double",
    visible_tests=("assert double(2) == 4",), hidden_tests=("assert double(-1) == -2",),
)  # fmt: skip
RIGHT = "def double(n):\n    print('seen')\n    return 2 * n\n"


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(workers=1) as box:
        yield box


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with one task and two attempts at it: one whose stored verdict is right, one whose is not."""
    (tmp_path / "tasks").mkdir()
    write_tasks(tmp_path / "tasks" / "test.jsonl", [DOUBLE])
    known = dataclasses.replace(ROW, task_id="a", program=RIGHT, tests_hash=DOUBLE.tests_digest, seed=1)
    wrong = dataclasses.replace(known, draw=1, seed=2, program="def double(n):\n    return 4\n")
    Ledger(tmp_path / "attempts" / "evaluation.jsonl").append([known, wrong])
    return tmp_path


def test_the_new_verdict_stands_beside_the_stored_one(run: Path, sandbox: Sandbox) -> None:
    (stored,) = replay.find(run, "a", 0)
    found = replay.replay(stored, sandbox)
    assert found["same"] and found["stored"]["status"] == found["new"]["status"] == "success"
    assert (found["ledger"], found["seed"], found["new"]["passed"]) == ("evaluation", 1, 2)


def test_a_verdict_that_differs_is_said_to(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(run), "a", "1"]) == 0
    said = capsys.readouterr().out
    assert "stored success 2 of 2, now wrong-output 1 of 2  DIFFERS" in said and "got 4, expected -2" in said


def test_the_command_prints_one_object(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(run), "a", "0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["same"] for row in found["attempts"]] == [True]


@pytest.mark.parametrize(
    ("task", "draw", "said"), [("b", 0, "no attempt at task 'b'"), ("a", 9, "no draw 9; its draws are 0 to 1")]
)
def test_what_a_run_lacks_is_named(run: Path, task: str, draw: int, said: str) -> None:
    with pytest.raises(ReplayError, match=said):
        replay.find(run, task, draw)


def test_a_folder_without_ledgers_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ReplayError, match="no ledger"):
        replay.find(tmp_path, "a", 0)


def test_changed_tests_are_not_replayed(run: Path) -> None:
    write_tasks(run / "tasks" / "test.jsonl", [dataclasses.replace(DOUBLE, hidden_tests=("assert double(0) == 0",))])
    with pytest.raises(ReplayError, match="no longer those that judged it"):
        replay.find(run, "a", 0)


def test_the_stored_seed_gives_the_stored_completion_again(run: Path, sandbox: Sandbox) -> None:
    engine, ledger = open_engine("embedded"), Ledger(run / "attempts" / "mining.jsonl")
    params, source = SamplingParams(temperature=0.8, max_new_tokens=12), Source("r", "embedded", "", 0)
    (made,) = local_runner(engine, sandbox)([DOUBLE], 1, ledger, params=params, source=source)
    engine.close()
    stored = next(one for one in replay.find(run, "a", 0) if one.ledger == "mining")
    assert stored.attempt == made
    assert replay.sample_again(stored, run) == made.completion


def test_an_adapter_that_is_gone_is_named(run: Path) -> None:
    ledger = Ledger(run / "attempts" / "mining.jsonl")
    ledger.append([dataclasses.replace(ROW, task_id="a", adapter="gone", tests_hash=DOUBLE.tests_digest)])
    stored = next(one for one in replay.find(run, "a", 0) if one.attempt.adapter)
    with pytest.raises(ReplayError, match="adapter gone is no longer"):
        replay.sample_again(stored, run)


def test_a_later_step_of_a_training_cannot_be_sampled_again(run: Path) -> None:
    ledger = Ledger(run / "attempts" / "gmpo.jsonl")
    ledger.append([dataclasses.replace(ROW, task_id="a", step=2, tests_hash=DOUBLE.tests_digest)])
    stored = next(one for one in replay.find(run, "a", 0) if one.attempt.step)
    with pytest.raises(ReplayError, match="weights at step 2 of the training are not kept"):
        replay.sample_again(stored, run)
