"""Cases from public reports about decontamination: copies in longer texts, copies within a side, canonical programs."""

import json
from pathlib import Path
from typing import Any

import pytest

from lib.decontamination import SplitOverlapError, check_split, duplicates, screen
from lib.decontamination.canonical import canonical_code
from lib.tasks.task import Task

FILE = Path(__file__).parent / "cases" / "decontamination.jsonl"
CASES = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]


def tasks(side: str, prompts: list[str]) -> list[Task]:
    return [Task(str(i), side, "any", prompt, "en", "python", "program") for i, prompt in enumerate(prompts)]


def cases(*fields: str) -> Any:
    chosen = [case for case in CASES if any(field in case for field in fields)]
    return pytest.mark.parametrize("case", chosen, ids=[case["name"] for case in chosen])


@cases("expect_pairs")
def test_pairs_that_share_a_task_are_found_by_screen_and_guard(case: dict[str, Any]) -> None:
    train, evaluation = tasks("train", case["train"]), tasks("eval", case["eval"])
    expected = {tuple(map(str, pair)) for pair in case["expect_pairs"]}
    outcome = screen(train, evaluation)
    assert {(match.train.id, match.evaluation.id) for match in outcome.excluded} == expected
    listed = {(row.side, row.id) for row in outcome.exclusions()}
    assert listed == {("train", mine) for mine, _ in expected} | {("eval", other) for _, other in expected}
    guarded = check_split(train, evaluation, allow_overlap=True)
    assert {(mine, other) for mine, other, _ in guarded.pairs} == expected
    if expected:
        with pytest.raises(SplitOverlapError):
            check_split(train, evaluation)


@cases("expect_duplicates")
def test_copies_within_a_side_are_listed(case: dict[str, Any]) -> None:
    for side, expected in case["expect_duplicates"].items():
        assert duplicates(tasks(side, case[side])) == [tuple(map(str, pair)) for pair in expected]


@cases("code")
def test_canonical_programs(case: dict[str, Any]) -> None:
    canonical = canonical_code(case["code"], case["language"])
    assert canonical_code(canonical, case["language"]) == canonical
    if "same_as" in case:
        assert canonical == canonical_code(case["same_as"], case["language"])
    if "not_same_as" in case:
        assert canonical != canonical_code(case["not_same_as"], case["language"])
