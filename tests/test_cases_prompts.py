"""What opens an answer and what ends it: every row of the cases."""

import ast
import json
from pathlib import Path

import pytest

from lib.tasks.prompts import build_prompt
from lib.tasks.task import Task

ROWS = [json.loads(line) for line in (Path(__file__).parent / "cases/prompts.jsonl").read_text("utf-8").splitlines()]


class PlainChat:
    """The smallest chat template there is."""

    def apply_chat_template(self, messages, tokenize, add_generation_prompt):
        return f"<{messages[0]['content']}>"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_an_answer_is_opened_and_ended_as_the_case_says(row) -> None:
    task = Task(
        "t", "s", "x", row["prompt"], "en", "python", "function", row["entry_point"], tuple(row["visible_tests"])
    )
    prompt = build_prompt(task, PlainChat())
    if "expect_program" in row:
        assert prompt.program(row["completion"]).rstrip() == row["expect_program"].rstrip()
    if "expect_prefill" in row:
        assert prompt.code_prefill == row["expect_prefill"]
    if "expect_parameters" in row:
        function = ast.parse(f"{prompt.code_prefill}\n    return 0\n").body[0]
        assert isinstance(function, ast.FunctionDef) and function.name == row["entry_point"]
        assert len(function.args.args) == row["expect_parameters"]
