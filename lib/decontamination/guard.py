"""The split guard: training and evaluation tasks may not overlap.

A pure function for whatever is about to train: it reads no file and writes none.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from lib.base.errors import WorkbookError
from lib.decontamination.outcome import decide, natural
from lib.decontamination.screen import Screen, Thresholds, items_of
from lib.tasks.task import Task

NAMED = 10  # pairs an error message names


class SplitOverlapError(WorkbookError, ValueError):
    """Training and evaluation tasks overlap; the message names ids."""


@dataclasses.dataclass(frozen=True)
class Overlap:
    """(training id, evaluation id, reason) of every overlapping pair, and whether the caller let it stand."""

    pairs: tuple[tuple[str, str, str], ...]
    allowed: bool

    def __bool__(self) -> bool:
        return bool(self.pairs)

    @property
    def train_ids(self) -> tuple[str, ...]:
        """Training ids that leak, in natural order."""
        return tuple(sorted({train for train, _, _ in self.pairs}, key=natural))

    @property
    def evaluation_ids(self) -> tuple[str, ...]:
        """Evaluation ids that training has seen, in natural order."""
        return tuple(sorted({evaluation for _, evaluation, _ in self.pairs}, key=natural))

    def banner(self) -> str:
        """What every figure and report of a run with an allowed overlap carries; empty when there is none."""
        if not self.pairs:
            return ""
        return (
            f"TRAINED ON EVALUATION TASKS: {len(self.evaluation_ids)} evaluation tasks overlap with training "
            f"({', '.join(self.evaluation_ids[:NAMED])}{', …' if len(self.evaluation_ids) > NAMED else ''})"
        )


def check_split(
    train: Sequence[Task],
    evaluation: Sequence[Task],
    allow_overlap: bool = False,
) -> Overlap:
    """Return the overlap of two sides: equal ids of one source, one family on both sides, or a match of the screen.

    Raises SplitOverlapError naming ids unless there is no overlap or `allow_overlap` is set.
    """
    pairs = _by_name(train, evaluation)
    screen = Screen(items_of(evaluation), Thresholds())
    outcome = decide(screen.matches(items_of(train)), screen.thresholds, {}, seed=0, sample=0)
    for match in outcome.excluded:
        pairs.setdefault((match.train.id, match.evaluation.id), match.reason)
    ordered = sorted(pairs.items(), key=lambda pair: (natural(pair[0][0]), natural(pair[0][1])))
    overlap = Overlap(tuple((a, b, reason) for (a, b), reason in ordered), allow_overlap)
    if overlap and not allow_overlap:
        raise SplitOverlapError(_message(overlap))
    return overlap


def _by_name(train: Sequence[Task], evaluation: Sequence[Task]) -> dict[tuple[str, str], str]:
    """Return pairs with one id or of one family in one source; the first evaluation task of a family stands for it."""
    ids = {(task.source, task.task_id): task.task_id for task in evaluation}
    families: Mapping[tuple[str, str], str] = {
        (task.source, task.family): task.task_id for task in reversed(evaluation) if task.family
    }
    pairs: dict[tuple[str, str], str] = {}
    for task in train:
        if (task.source, task.task_id) in ids:
            pairs[task.task_id, task.task_id] = "same-id"
        elif task.family and (task.source, task.family) in families:
            pairs[task.task_id, families[task.source, task.family]] = "same-family"
    return pairs


def _message(overlap: Overlap) -> str:
    named = "; ".join(f"{train} ↔ {evaluation} ({reason})" for train, evaluation, reason in overlap.pairs[:NAMED])
    more = len(overlap.pairs) - NAMED
    return (
        f"training and evaluation overlap in {len(overlap.pairs)} pairs: {named}"
        f"{f'; and {more} more' if more > 0 else ''}. Leave them out, or allow the overlap explicitly"
    )
