"""Two-sided decontamination: find near-duplicates between training and evaluation tasks and write an exclusion list.

`decontaminate` screens two lists of tasks and writes its findings; `check_split` is the guard that refuses to train on
what will be evaluated.
"""

import dataclasses
import functools
import itertools
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from lib.base.files import write_text
from lib.base.parallel import Machines
from lib.decontamination import files
from lib.decontamination.canonical import Headers
from lib.decontamination.guard import Overlap, SplitOverlapError, check_split
from lib.decontamination.outcome import Decisions, Exclusion, Outcome, decide, natural
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
    "duplicates",
    "guard_run",
    "screen",
    "verbatim",
    "write_banner",
]

BANNERS = "banners.txt"  # in a run folder: what its figures and its report carry
SAMPLE = 50  # borderline pairs handed to a reviewer
SHARD = 10_000  # training tasks that one machine screens at a time


def screen(
    train: Sequence[Task],
    evaluation: Sequence[Task],
    thresholds: Thresholds | None = None,
    *,
    decisions: Decisions | None = None,
    seed: int = 0,
    sample: int = SAMPLE,
    map_fn: Machines = map,
) -> Outcome:
    """Return the findings alone; the training side is compared in shards by `map_fn`, here or on a cluster.

    Raises TaskError when ids repeat on a side or a side is empty.
    """
    thresholds = thresholds or Thresholds()
    for side, tasks in (("training", train), ("evaluation", evaluation)):
        _check_ids(side, tasks)
    headers = Headers(task.prompt for task in train)
    compare = functools.partial(_matches, Screen(items_of(evaluation), thresholds), headers)
    shards = (train[start : start + SHARD] for start in range(0, len(train), SHARD))
    matches = itertools.chain.from_iterable(map_fn(compare, shards))
    return decide(matches, thresholds, decisions or {}, seed, sample)


def _matches(screen: Screen, headers: Headers, train: Sequence[Task]) -> list[Match]:
    return list(screen.matches(item_of(task, headers) for task in train))


def decontaminate(
    train: Sequence[Task],
    evaluation: Sequence[Task],
    out_dir: str | Path,
    *,
    thresholds: Thresholds | None = None,
    seed: int = 0,
    sample: int = SAMPLE,
    map_fn: Machines = map,
) -> Outcome:
    """Screen two sides and write borderline.csv, duplicates.csv, summary.json and, last, exclusions.csv into `out_dir`.

    Decisions a reviewer left in an earlier borderline.csv there are obeyed and kept. Raises TaskError for an
    unusable review or repeated ids; nothing is written then.
    """
    thresholds, folder = thresholds or Thresholds(), Path(out_dir)
    if folder.exists() and not folder.is_dir():
        raise TaskError(f"{folder}: not a folder; the screen writes several files")
    review = files.read_review(folder)
    decisions = files.decisions_of(review)
    outcome = screen(train, evaluation, thresholds, decisions=decisions, seed=seed, sample=sample, map_fn=map_fn)
    copies = [("train", *pair) for pair in duplicates(train)] + [("eval", *pair) for pair in duplicates(evaluation)]
    summary = {
        "settings": {**dataclasses.asdict(thresholds), "seed": seed, "sample": sample},
        "train": len(train),
        "eval": len(evaluation),
        "duplicate_pairs": len(copies),
        "kept_by_review": outcome.kept,
        "borderline": len(outcome.borderline),
        "excluded": outcome.summary(),
    }
    prompts = ({task.task_id: task.prompt for task in train}, {task.task_id: task.prompt for task in evaluation})
    files.write(folder, outcome, review=review, thresholds=thresholds, prompts=prompts, copies=copies, summary=summary)
    return outcome


def duplicates(tasks: Sequence[Task]) -> list[tuple[str, str]]:
    """Return the id pairs of tasks of one side that have the same prompt, numbers included, in the same language."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for task, item in zip(tasks, items_of(tasks), strict=True):
        if item.exact_prompt:
            groups[task.programming_language, item.exact_prompt].append(task.task_id)
    pairs = [pair for ids in groups.values() for pair in itertools.combinations(ids, 2)]
    return sorted(pairs, key=lambda pair: (natural(pair[0]), natural(pair[1])))


def verbatim(train: Sequence[Task], evaluation: Sequence[Task]) -> dict[str, list[str]]:
    """Return {evaluation id: training ids} where the training prompt holds the evaluation prompt as it is.

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
                ' ids of several corpora in one list have to differ, such as "mbpp/11"'
            )
        seen.add(task.task_id)


def guard_run(run: Path, allow_overlap: bool = False) -> Overlap:
    """Check the splits in a run's `tasks` folder before anything is mined or trained, and leave the banner.

    Raises SplitOverlapError naming ids when training and held-out tasks overlap and that is not allowed.
    """
    train, dev, test = (read_tasks(run / "tasks" / f"{split}.jsonl") for split in ("train", "dev", "test"))
    overlap = check_split(train, [*dev, *test], allow_overlap=allow_overlap)
    write_banner(run, overlap)
    return overlap


def write_banner(run: Path, overlap: Overlap) -> None:
    """Put an allowed overlap where every figure and the report show it; without one, take the banner away."""
    if overlap:
        write_text(run / BANNERS, overlap.banner() + "\n")
    else:
        (run / BANNERS).unlink(missing_ok=True)
