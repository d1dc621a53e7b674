"""Greedy answers and samples for a set of tasks, and the matrix of what passed."""

from collections.abc import Callable, Iterable, Sequence

import numpy

from lib.base.errors import WorkbookError
from lib.mining.collect import AttemptRunner, Progress, Source
from lib.mining.ledger import Attempt, Ledger
from lib.sampling import SamplingParams
from lib.tasks import Task

PASSED_FIELD: dict[str, Callable[[Attempt], bool]] = {
    "visible": lambda attempt: attempt.visible_ok,
    "hidden": lambda attempt: attempt.hidden_ok,
    "all": lambda attempt: attempt.solved,
}


class AnswersError(WorkbookError, ValueError):
    """Answers that no rate can be made of: some are missing, or a test cannot be run here."""


def sample_answers(
    tasks: Sequence[Task],
    num_samples: int,
    ledger: Ledger,
    *,
    attempt: AttemptRunner,
    temperature: float,
    max_new_tokens: int,
    source: Source,
    progress: Progress = lambda items, total: items,
) -> dict[str, list[Attempt]]:
    """Return one greedy answer and `num_samples` at `temperature` (top-p 0.95) per task: the `polycode` protocol."""
    greedy = SamplingParams(temperature=0.0, max_new_tokens=max_new_tokens)
    sampled = SamplingParams(temperature=temperature, top_p=0.95, max_new_tokens=max_new_tokens)
    return {
        "greedy": attempt(tasks, 1, ledger, params=greedy, source=source, progress=progress),
        "draws": attempt(tasks, num_samples, ledger, params=sampled, source=source, progress=progress),
    }


def passed_matrix(attempts: Iterable[Attempt], tasks: Sequence[Task], tests: str) -> "numpy.ndarray":
    """Return (tasks, samples) bool: did each sample pass every test of the set? Other tasks and repairs are ignored.

    Raises AnswersError when samples are missing, or for a task whose tests cannot be run (`supported_tasks` leaves it
    out).
    """
    rows: dict[str, dict[int, bool]] = {task.task_id: {} for task in tasks}
    for attempt in attempts:
        if attempt.task_id not in rows or attempt.parent:
            continue
        if not attempt.counts:
            raise AnswersError(
                f"{attempt.task_id}: unsupported-test ({attempt.failure}); leave it out by supported_tasks"
            )
        rows[attempt.task_id][attempt.draw] = PASSED_FIELD[tests](attempt)
    counts = {len(samples) for samples in rows.values()}
    if len(counts) != 1 or counts == {0}:
        raise AnswersError(f"tasks have {sorted(counts)} samples; every task needs the same number, at least 1")
    return numpy.array([[samples[draw] for draw in sorted(samples)] for samples in rows.values()])
