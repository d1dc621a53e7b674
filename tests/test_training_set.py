"""What is trained on beside plain winners, and controls of equal size."""

import dataclasses
from pathlib import Path

import pytest

from benchmarks.controls import equally_many, failing_draws, random_winners
from lib.models.resolve import resolve
from lib.sandbox import Sandbox
from lib.tasks.task import read_tasks
from lib.training.training_set import ReferenceProgram, balanced, difficulty, references
from tests.test_ledger import ROW

TASKS = {t.task_id: t for t in read_tasks(Path(__file__).parent.parent / "data/starter_bn.jsonl")}


def drawn(task, solved, failed, status="wrong-output"):
    """`solved` distinct programs that pass and `failed` that do not."""
    ends = ["success"] * solved + [status] * failed
    return [
        dataclasses.replace(ROW, task_id=task, draw=draw, seed=draw, status=end, program=f"def {task}(): return {draw}")
        for draw, end in enumerate(ends)
    ]


def names(solutions):
    return sorted(solution.task_id for solution in solutions)


def test_difficulty_is_the_share_of_draws_that_passed():
    attempts = drawn("a", 5, 3) + drawn("b", 4, 4) + drawn("c", 2, 6) + drawn("d", 1, 7) + drawn("e", 0, 8)
    assert difficulty(attempts) == {"a": 0, "b": 1, "c": 2, "d": 3, "e": 3}


def test_balance_repeats_the_rare_up_to_the_limit():
    programs = [ReferenceProgram("easy", str(n)) for n in range(9)] + [
        ReferenceProgram("fair", "x"),
        ReferenceProgram("fair", "y"),
        ReferenceProgram("hard", "z"),
    ]
    counts = [p.task_id for p in balanced(programs, {"easy": 0, "fair": 1, "hard": 3}, max_repeats=4)]
    assert (counts.count("easy"), counts.count("fair"), counts.count("hard")) == (9, 8, 4)


def test_balance_loses_and_invents_nothing():
    programs = [ReferenceProgram("a", "1"), ReferenceProgram("b", "2"), ReferenceProgram("b", "3")]
    assert set(balanced(programs, {"a": 0, "b": 2})) == set(programs) and balanced([], {}) == []
    with pytest.raises(ValueError, match="max_repeats=0"):
        balanced(programs, {}, max_repeats=0)


def test_only_references_that_pass_and_fit_the_prompt_are_added():
    from transformers import AutoTokenizer

    good = TASKS["bn/square"]
    wrong = dataclasses.replace(TASKS["bn/is_odd"], reference="def is_odd(n):\n    return n % 2 == 0\n")
    other = dataclasses.replace(TASKS["bn/add_numbers"], reference="def add_numbers(x, y):\n    return x + y\n")
    none = dataclasses.replace(TASKS["bn/subtract"], reference="")
    with Sandbox() as sandbox:
        programs, left_out = references(
            [good, wrong, other, none], AutoTokenizer.from_pretrained(resolve("embedded")), sandbox
        )
    assert programs == [ReferenceProgram("bn/square", good.reference)]
    assert left_out["bn/is_odd"].startswith("wrong-output") and left_out["bn/subtract"] == "no reference"
    assert left_out["bn/add_numbers"] == "does not begin with 'def add_numbers(a, b):'"


def test_every_control_has_as_many_programs_as_the_winners():
    attempts = drawn("a", 6, 2) + drawn("b", 1, 7) + drawn("c", 0, 8) + drawn("d", 0, 8, "compile-error")
    winners = [*attempts[:4], attempts[8]]
    failing = failing_draws(attempts, winners, 0)
    assert len(failing) == 5 and len(set(failing)) == 5
    assert {one.status for one in failing} == {"wrong-output"} and names(failing)[:3] == ["a", "a", "b"]
    picked = random_winners(attempts, 5, 0)
    assert len(picked) == 5 and all(one.solved for one in picked)
    programs = [ReferenceProgram(name, "p") for name in "abc"]
    assert names(equally_many(programs, winners, 0)) == ["a", "a", "b", "b", "c"]


def test_failing_draws_follow_their_seed():
    attempts = drawn("a", 30, 30)
    winners = attempts[:4]
    again, other = (failing_draws(attempts, winners, seed) for seed in (1, 2))
    assert failing_draws(attempts, winners, 1) == again != other
