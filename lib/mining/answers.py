"""Greedy answers and samples for a set of tasks, and the matrix of what passed."""

from collections.abc import Callable, Iterable, Sequence

import numpy

from lib.mining.collect import AttemptRunner, Progress, Source
from lib.mining.ledger import Attempt, Ledger
from lib.sampling import SamplingParams
from lib.tasks import Task

PASSED_FIELD: dict[str, Callable[[Attempt], bool]] = {
    "visible": lambda attempt: attempt.visible_ok,
    "hidden": lambda attempt: attempt.hidden_ok,
    "all": lambda attempt: attempt.solved,
}


def sample_answers(
    tasks: Sequence[Task],
    attempt: AttemptRunner,
    ledger: Ledger,
    source: Source,
    draws: int,
    temperature: float,
    max_new_tokens: int,
    progress: Progress = lambda items, total: items,
) -> dict[str, list[Attempt]]:
    """One greedy answer and `draws` answers at `temperature` (top-p 0.95) for every task: the `polycode` protocol."""
    greedy = SamplingParams(temperature=0.0, max_new_tokens=max_new_tokens)
    sampled = SamplingParams(temperature=temperature, top_p=0.95, max_new_tokens=max_new_tokens)
    return {
        "greedy": attempt(tasks, 1, ledger, greedy, source, progress),
        "draws": attempt(tasks, draws, ledger, sampled, source, progress),
    }


def passed_matrix(attempts: Iterable[Attempt], tasks: Sequence[Task], tests: str) -> "numpy.ndarray":
    """(tasks, draws) bool: did each draw pass every test of the set? Raises ValueError when draws are missing."""
    rows: dict[str, dict[int, bool]] = {task.task_id: {} for task in tasks}
    for attempt in attempts:
        rows[attempt.task_id][attempt.draw] = PASSED_FIELD[tests](attempt)
    counts = {len(draws) for draws in rows.values()}
    if len(counts) != 1 or counts == {0}:
        raise ValueError(f"tasks have {sorted(counts)} draws; every task needs the same number, at least 1")
    return numpy.array([[draws[draw] for draw in sorted(draws)] for draws in rows.values()])
