"""From programs to the rows that are trained on, and the order they come in."""

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from lib.sampling import token_ids
from lib.tasks.prompts import build_prompt, winning_completion
from lib.tasks.task import Task
from lib.training.sft.settings import Row

CHUNK = 8  # batches among which rows are grouped by length


class Solution(Protocol):
    """A program for a task: an attempt of the ledger, or a reference."""

    @property
    def task_id(self) -> str:
        """The task it solves."""

    @property
    def program(self) -> str:
        """Its source."""


def examples(solutions: Iterable[Solution], tasks: Sequence[Task], tokenizer: Any) -> list[Row]:
    """Return one {"task_id", "prompt", "completion"} row per program.

    The prompt is the one mined with, prefill included; the completion is the rest and the fence.
    """
    by_id = {task.task_id: task for task in tasks}
    rows = []
    for solution in solutions:
        prompt = build_prompt(by_id[solution.task_id], tokenizer)
        completion = winning_completion(prompt, solution.program)
        rows.append({"task_id": solution.task_id, "prompt": prompt.text, "completion": completion})
    return rows


def encode(row: Mapping[str, str], tokenizer: Any) -> dict[str, list[int]]:
    """{"input_ids", "labels"}: labels are −100 over the prompt, and the token over the completion and its end.

    Prompt and completion are tokenised apart: a sampler starts after the prompt's tokens, and no token of what it
    writes reaches back over that border (":" and a newline may be one token, but not here).
    """
    prompt, completion = (token_ids(tokenizer, row[part]) for part in ("prompt", "completion"))
    written = [*completion, tokenizer.eos_token_id]
    return {"input_ids": [*prompt, *written], "labels": [-100] * len(prompt) + written}


def within_length(rows: Sequence[Row], tokenizer: Any, max_length: int) -> tuple[list[dict[str, list[int]]], list[int]]:
    """Encoded rows of at most `max_length` tokens, and the places in `rows` of those that are longer.

    A row that is cut teaches never to stop, and one cut before its completion teaches nothing.
    """
    encoded = [encode(row, tokenizer) for row in rows]
    longer = [place for place, row in enumerate(encoded) if len(row["input_ids"]) > max_length]
    left_out = set(longer)
    return [row for place, row in enumerate(encoded) if place not in left_out], longer


def batch_order(lengths: Sequence[int], batch_size: int, batches: int, seed: int) -> list[int]:
    """Rows for `batches` batches, one after the other: shuffled laps over all rows, rows of like length in one batch.

    Rows are sorted by length only within CHUNK batches (or a lap, if that is shorter), and these batches are shuffled.
    """
    stream, order = random.Random(seed), list[int]()
    while len(order) < batches * batch_size:
        lap = list(range(len(lengths)))
        stream.shuffle(lap)
        order += lap
    order = order[: batches * batch_size]
    size = batch_size * max(1, min(CHUNK, len(lengths) // batch_size))
    grouped = list[int]()
    for start in range(0, len(order), size):
        chunk = sorted(order[start : start + size], key=lambda row: lengths[row])
        pieces = [chunk[at : at + batch_size] for at in range(0, len(chunk), batch_size)]
        stream.shuffle(pieces)
        grouped += [row for piece in pieces for row in piece]
    return grouped


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """JSON Lines, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    partial.replace(path)
