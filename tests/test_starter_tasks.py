"""The starter tasks: sizes, splits, Bangla text, references that pass, wrong answers that do not."""

import ast
import collections
import re
import unicodedata
from pathlib import Path

import pytest

from lib.sandbox import Sandbox, languages
from lib.tasks.task import read_tasks

DATA = Path(__file__).parent.parent / "data"
FUNCTIONS = read_tasks(DATA / "starter_bn.jsonl")
PROGRAMS = read_tasks(DATA / "starter_io.jsonl")
LANGUAGES = ("python", "lua", "ocaml", "r", "fortran", "julia")


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox() as box:
        yield box


def test_splits_and_tiers_have_the_stated_sizes():
    assert collections.Counter(task.split for task in FUNCTIONS) == {"train": 150, "dev": 30, "test": 60}
    assert collections.Counter(task.tier for task in FUNCTIONS) == {1: 60, 2: 60, 3: 60, 4: 60}
    assert collections.Counter(t.tier for t in FUNCTIONS if t.split == "test") == {1: 15, 2: 15, 3: 15, 4: 15}
    assert len(PROGRAMS) >= 60


@pytest.mark.parametrize("tasks", [FUNCTIONS, PROGRAMS], ids=["functions", "programs"])
def test_no_family_stands_on_two_sides(tasks):
    sides = collections.defaultdict(set)
    for task in tasks:
        sides[task.family].add(task.split)
    assert {family for family, splits in sides.items() if len(splits) > 1} == set() and "" not in sides


def test_no_reference_is_shared_by_two_splits():
    sides = collections.defaultdict(set)
    for task in FUNCTIONS:
        body = ast.dump(ast.parse(task.reference)).replace(task.entry_point, "f")
        sides[body].add(task.split)
    assert all(len(splits) == 1 for splits in sides.values())


def test_prompts_are_bangla_in_nfc():
    for task in FUNCTIONS:
        assert unicodedata.is_normalized("NFC", task.prompt), task.task_id
        assert sum("\u0980" <= character <= "\u09ff" for character in task.prompt) >= 20, task.task_id


def test_half_of_the_programs_are_asked_for_in_bangla():
    asked = collections.Counter(task.natural_language for task in PROGRAMS)
    assert asked["bn"] * 2 >= len(PROGRAMS) - 1


def test_every_prompt_states_the_signature_of_its_reference():
    for task in FUNCTIONS:
        (definition,) = [
            node for node in ast.parse(task.reference).body
            if isinstance(node, ast.FunctionDef) and node.name == task.entry_point
        ]  # fmt: skip
        stated = re.search(rf"`{task.entry_point}\(([^)]*)\)`", task.prompt)
        assert stated, task.task_id
        assert [name.strip() for name in stated[1].split(",")] == [arg.arg for arg in definition.args.args]


def test_two_visible_and_at_least_six_other_hidden_tests():
    for task in FUNCTIONS:
        assert len(task.visible_tests) == 2, task.task_id
        assert len(set(task.hidden_tests) - set(task.visible_tests)) >= 6, task.task_id


def test_every_reference_passes_all_its_tests(sandbox):
    verdicts = sandbox.grade_many((task, task.reference) for task in FUNCTIONS)
    failed = [(t.task_id, v.failure) for t, v in zip(FUNCTIONS, verdicts, strict=True) if v.status != "success"]
    assert failed == []


def test_every_wrong_answer_passes_the_visible_and_fails_the_hidden_tests(sandbox):
    pairs = [(task, wrong) for task in FUNCTIONS for wrong in task.wrong_answers]
    assert {task.task_id for task, _ in pairs} == {task.task_id for task in FUNCTIONS}
    visible = sandbox.grade_many(pairs, tests="visible")
    hidden = sandbox.grade_many(pairs, tests="hidden")
    told = [t.task_id for (t, _), v, h in zip(pairs, visible, hidden, strict=True) if v.reward == 0 or h.reward == 1]
    assert told == []


def test_programs_have_five_cases_with_an_empty_one():
    for task in PROGRAMS:
        assert len(task.cases) >= 5, task.task_id
        assert any(case.input.strip() in ("", "0") for case in task.cases), task.task_id


@pytest.mark.parametrize(
    "language", [pytest.param(name, marks=pytest.mark.slow if name == "r" else ()) for name in LANGUAGES]
)
def test_every_program_reference_gives_exactly_its_outputs(sandbox, language):
    if languages.available()[language] is None:
        pytest.skip(f"no {language} toolchain here; `make toolchains` installs it")
    posed = [task.in_language(language) for task in PROGRAMS]
    verdicts = sandbox.grade_many((task, task.reference) for task in posed)
    assert [(t.task_id, v.status, v.failure) for t, v in zip(posed, verdicts, strict=True) if v.reward == 0] == []
