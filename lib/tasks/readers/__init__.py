"""Public corpora in, Tasks out.

`read` gives every task of a file or Hugging Face data set, `iter_tasks` the same one at a time for files
larger than memory. The format is told from the columns. A file with one bad row gives nothing but the error
that names the row.
"""

import dataclasses
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lib.tasks.readers.asserts import Converter, Origin
from lib.tasks.readers.files import Row, rows
from lib.tasks.readers.formats import FORMATS, detect
from lib.tasks.task import Task, TaskError, task_from_row

__all__ = ["FORMATS", "iter_tasks", "read", "read_submission"]

log = logging.getLogger(__name__)


def read(path_or_id: str | Path, split: str | None = None) -> list[Task]:
    """All tasks of a corpus, in order. Raises TaskError, and then loads nothing; see `iter_tasks`."""
    tasks = list(iter_tasks(path_or_id, split))
    if not tasks:
        raise TaskError(f"{path_or_id}: no tasks{f' of split {split!r}' if split else ''} in this corpus")
    return tasks


def iter_tasks(path_or_id: str | Path, split: str | None = None) -> Iterator[Task]:
    """The tasks of a corpus one at a time, in order.

    `split` picks a data set's split; of a file, only its tasks are given, and rows whose corpus states no
    split get its name. Raises TaskError naming file and row for unknown columns, a broken row (and its column), an
    empty test list or two rows with one id.
    """
    name = str(path_or_id)
    origin = Origin(name, Path(name) if Path(name).is_file() else None, split)
    convert: Converter | None = None
    first_seen: dict[str, str] = {}
    skipped: list[str] = []
    for row in rows(name, split):
        if convert is None:
            convert = detect(row.values, row.where).open(origin)
        values = _converted(convert, row)
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


class _Columns(dict[str, Any]):
    """A row's columns; remembers which one was read last."""

    last = ""

    def __getitem__(self, name: str) -> Any:
        self.last = name
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.last = name
        return super().get(name, default)


def _converted(convert: Converter, row: Row) -> dict[str, Any] | None:
    columns = _Columns(row.values)
    try:
        return convert(row._replace(values=columns))
    except KeyError as error:
        raise TaskError(f"{row.where}: column {error.args[0]} is missing") from None
    except (TypeError, AttributeError, ValueError) as error:
        if isinstance(error, TaskError):
            raise
        value = f"{columns.get(columns.last)!r:.60}"
        raise TaskError(
            f"{row.where}: column {columns.last} holds the wrong kind of value, {value} ({error})"
        ) from None


def _task(values: dict[str, Any], row: Row) -> Task:
    if values.get("task_id") in (None, "", "None"):
        raise TaskError(f"{row.where}: the id is empty")
    if values["source"].startswith("chat/") and not values["visible_tests"]:
        placeholder = task_from_row({**values, "visible_tests": ["assert True"]}, row.where)
        return dataclasses.replace(placeholder, visible_tests=())
    return task_from_row(values, row.where)


def read_submission(path: str | Path, task_ids: Sequence[str] = ()) -> dict[str, list[str]]:
    """Return {id: samples} from a submission; ids become text.

    Rows are objects in one JSON array or JSON Lines, each an id (`id` or `task_id`) and an answer (`response`,
    `completion` or `solution`); rows with one id are samples of one task. A JSON array of texts, or of lists of texts,
    answers `task_ids` in their order. Raises TaskError naming the row that lacks a field or is not text.
    """
    samples: dict[str, list[str]] = {}
    for row in _listed(Path(path), task_ids) or rows(str(path)):
        key = next((name for name in ("id", "task_id") if name in row.values), "")
        answer = next((name for name in ("response", "completion", "solution") if name in row.values), "")
        if not key or not answer:
            wanted = "id or task_id, and response, completion or solution"
            raise TaskError(f"{row.where}: a submission row has {wanted}; this has {', '.join(row.values)}")
        response = row.values[answer]
        if not isinstance(response, str):
            raise TaskError(f"{row.where}: {answer} is {json.dumps(response)[:80]}; it should be text")
        samples.setdefault(str(row.values[key]), []).append(response)
    if not samples:
        raise TaskError(f"{path}: no answers in this submission")
    return samples


def _listed(path: Path, task_ids: Sequence[str]) -> list[Row]:
    """Return the rows of an array that holds texts or lists of texts instead of objects, in the order of the tasks."""
    if path.suffix != ".json" or not path.is_file():
        return []
    try:
        listed = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError:
        return []
    if not isinstance(listed, list) or not listed or not all(isinstance(item, str | list) for item in listed):
        return []
    if len(listed) != len(task_ids):
        raise TaskError(
            f"{path}: {len(listed)} answers without ids for {len(task_ids)} tasks; one per task is expected"
        )
    return [
        Row({"id": name, "response": text}, f"{path}: item {number}", number)
        for number, (name, texts) in enumerate(zip(task_ids, listed, strict=True), 1)
        for text in (texts if isinstance(texts, list) else [texts])
    ]
