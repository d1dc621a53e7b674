"""Two-sided decontamination: find training items that are evaluation items in disguise, and say so on paper.

`decontaminate` screens two lists of tasks and writes its findings; `check_split` is the guard that refuses to
train on what will be evaluated.
"""

import functools
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lib.base.parallel import Machines
from lib.decontamination import files
from lib.decontamination.canonical import Headers
from lib.decontamination.guard import Overlap, SplitOverlapError, check_split
from lib.decontamination.outcome import Decisions, Exclusion, Outcome, Side, decide, fingerprint
from lib.decontamination.screen import Match, Screen, Thresholds, item_of, items_of
from lib.tasks.task import Task, TaskError, read_tasks

__all__ = [
    "Exclusion",
    "Match",
    "Outcome",
    "Overlap",
    "SplitOverlapError",
    "Thresholds",
    "check_split",
    "decontaminate",
    "guard_run",
    "is_current",
    "read_exclusions",
    "retained",
    "screen",
    "verbatim",
    "write_banner",
]

BANNERS = "banners.txt"  # in a run folder: what its figures and its report carry
SAMPLE = 50  # borderline pairs handed to a reviewer
SHARD = 10_000  # training tasks that one machine screens at a time
read_exclusions = files.read_exclusions


def screen(
    train: Sequence[Task],
    evaluation: Sequence[Task],
    thresholds: Thresholds | None = None,
    decisions: Decisions | None = None,
    seed: int = 0,
    sample: int = SAMPLE,
    salt: int = 0,
    on: Machines = map,
) -> Outcome:
    """The findings alone, as a pure function; the training side is compared in shards, `on` machines of a cluster if given.

    Raises TaskError when ids repeat on a side or a side is empty.
    """
    thresholds = thresholds or Thresholds()
    for side, tasks in (("training", train), ("evaluation", evaluation)):
        _check_ids(side, tasks)
    headers = Headers(task.prompt for task in train)
    compare = functools.partial(_matches, Screen(items_of(evaluation), thresholds, salt), headers)
    shards = (train[start : start + SHARD] for start in range(0, len(train), SHARD))
    matches = itertools.chain.from_iterable(on(compare, shards))
    return decide(matches, thresholds, decisions or {}, seed, sample)


def _matches(screen: Screen, headers: Headers, train: Sequence[Task]) -> list[Match]:
    return list(screen.matches(item_of(task, headers) for task in train))


def decontaminate(
    train: Sequence[Task],
    evaluation: Sequence[Task],
    out_dir: str | Path,
    seed: int = 0,
    thresholds: Thresholds | None = None,
    sample: int = SAMPLE,
    on: Machines = map,
) -> Outcome:
    """Screen two sides and write exclusions.csv, borderline.csv and summary.json into `out_dir`, whole or not
    at all.

    Decisions a reviewer left in an earlier borderline.csv there are obeyed and kept. Raises TaskError for an
    unusable review or repeated ids; nothing is written then.
    """
    thresholds, folder = thresholds or Thresholds(), Path(out_dir)
    if folder.exists() and not folder.is_dir():
        raise TaskError(f"{folder}: not a folder; the screen writes several files")
    review = files.read_review(folder)
    outcome = screen(train, evaluation, thresholds, files.decisions_of(review), seed, sample, on=on)
    summary = {
        "inputs": fingerprint(items_of(train), items_of(evaluation)),
        "settings": files.settings(thresholds, seed, sample),
        "train": len(train),
        "eval": len(evaluation),
        "kept_by_review": outcome.kept,
        "borderline": len(outcome.borderline),
        "excluded": outcome.summary(),
    }
    prompts = ({task.task_id: task for task in train}, {task.task_id: task for task in evaluation})
    files.write(folder, outcome, review, thresholds, prompts, summary)
    return outcome


def is_current(
    train: Sequence[Task],
    evaluation: Sequence[Task],
    out_dir: str | Path,
    seed: int = 0,
    thresholds: Thresholds | None = None,
    sample: int = SAMPLE,
) -> bool:
    """Whether the files in `out_dir` were made from these two sides and settings, whatever the order of
    the rows.
    """
    summary: dict[str, Any] = files.read_summary(out_dir)
    return (
        summary.get("settings") == files.settings(thresholds or Thresholds(), seed, sample)
        and summary.get("inputs") == fingerprint(items_of(train), items_of(evaluation))
        and (Path(out_dir) / files.EXCLUSIONS).is_file()
    )


def retained(tasks: Iterable[Task], exclusions: Iterable[Exclusion], side: Side = "train") -> list[Task]:
    """The tasks of a side that the list does not name."""
    named = {row.id for row in exclusions if row.side == side}
    return [task for task in tasks if task.task_id not in named]


def verbatim(train: Sequence[Task], evaluation: Sequence[Task]) -> dict[str, list[str]]:
    """{evaluation id: training ids} where the training prompt holds the evaluation prompt as it is, character
    for character.

    Narrower than `screen`: two problems with one wording and different signatures are told apart.
    """
    stated = [(task.task_id, task.prompt.strip()) for task in evaluation]
    found = {name: [other.task_id for other in train if text and text in other.prompt] for name, text in stated}
    return {name: ids for name, ids in found.items() if ids}


def _check_ids(side: str, tasks: Sequence[Task]) -> None:
    if not tasks:
        raise TaskError(f"the {side} side has no tasks")
    seen: set[str] = set()
    for task in tasks:
        if task.task_id in seen:
            raise TaskError(
                f"the {side} side has two tasks with the id {task.task_id!r};"
                " lib.tasks.readers.pool keeps the ids of several corpora apart"
            )
        seen.add(task.task_id)


def guard_run(run: Path, allow_overlap: bool = False) -> Overlap:
    """The split guard over a run's `tasks` folder, before anything is mined or trained; leaves the banner.

    Raises SplitOverlapError naming ids when training and held-out tasks overlap and that is not allowed.
    """
    train, dev, test = (read_tasks(run / "tasks" / f"{split}.jsonl") for split in ("train", "dev", "test"))
    overlap = check_split(train, [*dev, *test], allow_overlap)
    write_banner(run, overlap)
    return overlap


def write_banner(run: Path, overlap: Overlap) -> None:
    """Put an allowed overlap where every figure and the report show it; without one, take the banner away."""
    if overlap:
        (run / BANNERS).write_text(overlap.banner() + "\n", encoding="utf-8")
    else:
        (run / BANNERS).unlink(missing_ok=True)
