"""Public corpora in, Tasks out.

`read` gives every task of a file or Hugging Face data set, `iter_tasks` the same one at a time for files larger than
memory. The format is told from the columns. A file with one bad row gives nothing but the error that names the row.
"""

import dataclasses
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lib.tasks.readers import functions, programs
from lib.tasks.readers.files import Row, rows
from lib.tasks.task import REQUIRED, Task, TaskError, task_from_row

__all__ = ["FORMATS", "iter_tasks", "read", "read_submission"]

log = logging.getLogger(__name__)


class Format(NamedTuple):
    """A public format: the columns it always has, and what makes a task of a row; None: it cannot be posed as one."""

    name: str
    columns: tuple[str, ...]
    convert: Callable[[Row, functions.Origin], dict[str, Any] | None]


# The most specific first: a format whose columns include another's stands before it.
FORMATS = (
    Format("project", REQUIRED, lambda row, origin: row.values),
    Format("LiveCodeBench", ("question_id", "question_content", "private_test_cases"), programs.livecodebench),
    Format("LiveCodeBench", ("question_id", "question_content", "public_test_cases"), programs.livecodebench),
    Format(
        "Ag-MBPP-X", ("original_task_id", "description", "input_format", "output_format", "tests"), programs.ag_mbpp
    ),
    Format("Agnostics", ("idx", "test_cases", "lang", "prompt"), programs.ag_posed),
    Format("codeforces", ("id", "title", "description", "examples", "official_tests"), programs.codeforces),
    Format("HumanEval", ("task_id", "prompt", "entry_point", "canonical_solution", "test"), functions.humaneval),
    Format("mHumanEval", ("task_id", "nl", "pl", "prompt", "canonical_solution"), functions.mhumaneval),
    Format("MultiPL-E", ("name", "language", "prompt", "tests"), functions.multipl_e),
    Format("MBPP", ("task_id", "text", "test_list"), functions.mbpp),
    Format("MBPP sanitized", ("task_id", "prompt", "test_list"), functions.mbpp),
    *(Format("MBPP-Bangla", ("task_id", column, "test_list"), functions.mbpp) for column in functions.BANGLA_PROMPTS),
    Format("BLP-2025", ("id", "instruction", "test_list"), functions.blp),
    Format("chat", ("text",), functions.chat),
    Format("chat messages", ("messages",), functions.chat),
)


def detect(row: Row) -> Format:
    """Return the first format all of whose columns a row has. Raises TaskError naming the columns if there is none."""
    found = next((one for one in FORMATS if set(one.columns) <= set(row.values)), None)
    if found and (found.name != "chat" or functions.TURN.search(str(row.values["text"]))):
        return found
    nearest = max(FORMATS, key=lambda one: (n := len(set(one.columns) & set(row.values)), n / len(one.columns)))
    if nearest is found:
        return found
    raise TaskError(
        f"{row.where}: no known corpus has the columns {', '.join(row.values)}; "
        f"the nearest is {nearest.name}, with {', '.join(nearest.columns)}"
    )


def read(path_or_id: str | Path, split: str | None = None) -> list[Task]:
    """Return all tasks of a corpus, in order. Raises TaskError, and then loads nothing; see `iter_tasks`."""
    tasks = list(iter_tasks(path_or_id, split))
    if not tasks:
        raise TaskError(f"{path_or_id}: no tasks{f' of split {split!r}' if split else ''} in this corpus")
    return tasks


def iter_tasks(path_or_id: str | Path, split: str | None = None) -> Iterator[Task]:
    """Yield the tasks of a corpus one at a time, in order.

    `split` picks a data set's split; of a file, only its tasks are given, and rows whose corpus states no split get its
    name. Raises TaskError naming file and row for unknown columns, a broken row (and its column), an empty test list or
    two rows with one id.
    """
    name = str(path_or_id)
    origin = functions.Origin(name, Path(name) if Path(name).is_file() else None, split)
    convert = None
    first_seen: dict[str, str] = {}
    skipped: list[str] = []
    for row in rows(name, split):
        convert = convert or detect(row).convert
        values = convert(row, origin)
        if values is None:
            skipped.append(row.where)
            continue
        task = _task(values, row)
        if task.task_id in first_seen:
            raise TaskError(f"{row.where}: task id {task.task_id!r} was already used at {first_seen[task.task_id]}")
        first_seen[task.task_id] = row.where
        if split is None or task.split == split:
            yield task
    if skipped:
        log.warning("%s: left out %d rows that cases cannot judge, the first at %s", name, len(skipped), skipped[0])


def _task(values: dict[str, Any], row: Row) -> Task:
    if str(values["source"]).startswith("chat/") and not values["visible_tests"]:
        placeholder = task_from_row({**values, "visible_tests": ["assert True"]}, row.where)
        return dataclasses.replace(placeholder, visible_tests=())
    return task_from_row(values, row.where)


def read_submission(path: str | Path, task_ids: Sequence[str] = ()) -> dict[str, list[str]]:
    """Return {id: samples} from a submission; ids become text.

    Rows are objects in one JSON array, JSON Lines or a table, each an id (`id` or `task_id`) and an answer (`response`,
    `completion` or `solution`), or a list of answers; rows with one id are samples of one task. A JSON array of texts,
    or of lists of texts, answers `task_ids` in their order; an object of ids answers those. Raises TaskError naming the
    row that lacks a field or is not text.
    """
    samples: dict[str, list[str]] = {}
    for row in _listed(Path(path), task_ids) or rows(str(path)):
        key = next((name for name in ("id", "task_id") if name in row.values), "")
        column = next((name for name in ANSWERS if name in row.values), "")
        if not key or not column:
            wanted = "id or task_id, and response, completion or solution"
            raise TaskError(f"{row.where}: a submission row has {wanted}; this has {', '.join(row.values)}")
        answer = row.values[column]
        answers = answer if isinstance(answer, list) else [answer]
        if not all(isinstance(text, str) for text in answers):
            raise TaskError(f"{row.where}: {column} is {json.dumps(answer)[:80]}; it should be text")
        samples.setdefault(row.id(key), []).extend(answers)
    if not samples:
        raise TaskError(f"{path}: no answers in this submission")
    return samples


ANSWERS = ("response", "completion", "solution", "responses", "completions", "solutions", "code_list", "output_list")


def _listed(path: Path, task_ids: Sequence[str]) -> list[Row]:
    """Return the rows of an array of texts or lists of texts, in the order of the tasks, or of an object of ids."""
    if path.suffix != ".json" or not path.is_file():
        return []
    try:
        listed = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError:
        return []
    if isinstance(listed, dict) and listed and all(isinstance(item, str | list) for item in listed.values()):
        if not set(listed) & {"id", "task_id"}:
            task_ids, listed = list(listed), list(listed.values())
    if not isinstance(listed, list) or not listed or not all(isinstance(item, str | list) for item in listed):
        return []
    if len(listed) != len(task_ids):
        raise TaskError(
            f"{path}: {len(listed)} answers without ids for {len(task_ids)} tasks; one per task is expected"
        )
    return [
        Row({"id": name, "response": item}, f"{path}: item {number}", number)
        for number, (name, item) in enumerate(zip(task_ids, listed, strict=True), 1)
    ]
