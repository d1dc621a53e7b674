"""Public corpora in, Tasks out.

`read` gives every task of a file or Hugging Face data set, `iter_tasks` the same one at a time for files
larger than memory. The format is told from the columns. A file with one bad row gives nothing but the error
that names the row.
"""

import dataclasses
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lib.tasks.readers.asserts import Converter, Origin, wrong_entry_points
from lib.tasks.readers.files import Row, rows
from lib.tasks.readers.formats import FORMATS, detect, mapped
from lib.tasks.task import Task, TaskError, task_from_row

__all__ = ["FORMATS", "iter_tasks", "pool", "read", "read_submission", "wrong_entry_points"]

log = logging.getLogger(__name__)


def read(path_or_id: str | Path, column_map: Mapping[str, str] | None = None, split: str | None = None) -> list[Task]:
    """All tasks of a corpus, in order. Raises TaskError, and then loads nothing; see `iter_tasks`."""
    tasks = list(iter_tasks(path_or_id, column_map, split))
    if not tasks:
        raise TaskError(f"{path_or_id}: no tasks{f' of split {split!r}' if split else ''} in this corpus")
    return tasks


def iter_tasks(
    path_or_id: str | Path, column_map: Mapping[str, str] | None = None, split: str | None = None
) -> Iterator[Task]:
    """The tasks of a corpus one at a time, in order.

    `split` picks a data set's split; of a file, only its tasks are given, and rows whose corpus states no
    split get its name. `column_map` ({task field: column}) reads a format that is not a known one. Raises
    TaskError naming file and row for unknown columns, a broken row, an empty test list or two rows with one
    id.
    """
    name = str(path_or_id)
    origin = Origin(name, Path(name) if Path(name).is_file() else None, split)
    convert: Converter | None = None
    first_seen: dict[str, str] = {}
    skipped: list[str] = []
    for row in rows(name, split):
        if convert is None:
            opener = mapped(column_map) if column_map else detect(row.values, row.where).open
            convert = opener(origin)
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


def _converted(convert: Converter, row: Row) -> dict[str, Any] | None:
    try:
        return convert(row)
    except KeyError as error:
        raise TaskError(f"{row.where}: column {error.args[0]} is missing") from None
    except (TypeError, AttributeError, ValueError) as error:
        if isinstance(error, TaskError):
            raise
        raise TaskError(f"{row.where}: a column holds the wrong kind of value ({error})") from None


def _task(values: dict[str, Any], row: Row) -> Task:
    if values.get("task_id") in (None, "", "None"):
        raise TaskError(f"{row.where}: the id is empty")
    if values["source"].startswith("chat/") and not values["visible_tests"]:
        placeholder = task_from_row({**values, "visible_tests": ["assert True"]}, row.where)
        return dataclasses.replace(placeholder, visible_tests=())
    return task_from_row(values, row.where)


def pool(*corpora: Sequence[Task]) -> list[Task]:
    """Tasks of several corpora as one list whose ids stay unique: each becomes "source/id".

    Ids are unique within a corpus only; pooled attempts would be mixed up without this.
    """
    pooled = [dataclasses.replace(task, task_id=f"{task.source}/{task.task_id}") for tasks in corpora for task in tasks]
    if len({task.task_id for task in pooled}) < len(pooled):
        raise TaskError("pool: the same corpus was given twice, so ids repeat")
    return pooled


def read_submission(path: str | Path) -> dict[str, str]:
    """{id: response} from a submission, [{"id", "response"}] as one JSON array or as JSON Lines. Ids become
    text.

    Raises TaskError naming the row that lacks a field, is not text, or repeats an id.
    """
    responses: dict[str, str] = {}
    for row in rows(str(path)):
        if not {"id", "response"} <= set(row.values):
            raise TaskError(f"{row.where}: a submission row has id and response; this has {', '.join(row.values)}")
        key, response = str(row.values["id"]), row.values["response"]
        if not isinstance(response, str):
            raise TaskError(f"{row.where}: response is {json.dumps(response)[:80]}; it should be text")
        if key in responses:
            raise TaskError(f"{row.where}: id {key} is answered twice")
        responses[key] = response
    if not responses:
        raise TaskError(f"{path}: no answers in this submission")
    return responses
