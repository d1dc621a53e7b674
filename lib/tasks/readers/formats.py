"""Which corpus a row belongs to, told from its columns alone."""

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from lib.tasks.readers.asserts import Converter, Origin, blp, chat, mbpp, natural_language
from lib.tasks.readers.files import Row
from lib.tasks.readers.humaneval import humaneval, language_name, mhumaneval, multipl_e
from lib.tasks.readers.literals import plain_json, string_list
from lib.tasks.readers.programs import ag_livecodebench, ag_mbpp, ag_posed, codeforces, livecodebench
from lib.tasks.task import FIELDS, REQUIRED, TaskError

ColumnMap = Mapping[str, str]


class Format(NamedTuple):
    """A public format: the columns it always has, and what turns its rows into task rows."""

    name: str
    columns: tuple[str, ...]
    open: Callable[[Origin], Converter]


def project(origin: Origin) -> Converter:
    """The project's own JSON Lines; rows are task rows already."""
    return lambda row: row.values


# The most specific first: a format whose columns include another's stands before it.
FORMATS = (
    Format("project", REQUIRED, project),
    Format(
        "LiveCodeBench",
        ("question_id", "question_content", "public_test_cases", "private_test_cases"),
        livecodebench,
    ),
    Format("Ag-LiveCodeBench-X", ("question_id", "question_content", "private_test_cases"), ag_livecodebench),
    Format("Ag-MBPP-X", ("original_task_id", "description", "input_format", "output_format", "tests"), ag_mbpp),
    Format("Agnostics", ("idx", "test_cases", "lang", "prompt"), ag_posed),
    Format("codeforces", ("id", "title", "description", "examples", "official_tests"), codeforces),
    Format("HumanEval", ("task_id", "prompt", "entry_point", "canonical_solution", "test"), humaneval),
    Format("mHumanEval", ("task_id", "nl", "pl", "prompt", "canonical_solution"), mhumaneval),
    Format("MultiPL-E", ("name", "language", "prompt", "tests"), multipl_e),
    Format("MBPP", ("task_id", "text", "code", "test_list"), mbpp),
    Format("MBPP sanitized", ("task_id", "prompt", "code", "test_list"), mbpp),
    Format("BLP-2025", ("id", "instruction", "test_list"), blp),
    Format("chat", ("text",), chat),
    Format("chat messages", ("messages",), chat),
)


def detect(columns: Mapping[str, Any], where: str) -> Format:
    """The first format all of whose columns are there.

    Raises TaskError naming the columns seen when there is none.
    """
    for candidate in FORMATS:
        if set(candidate.columns) <= set(columns):
            return candidate
    seen = ", ".join(map(str, columns))
    raise TaskError(
        f"{where}: no known corpus has the columns {seen}; pass column_map, such as "
        '{"task_id": "…", "prompt": "…", "visible_tests": "…"}'
    )


def mapped(column_map: ColumnMap) -> Callable[[Origin], Converter]:
    """A reader for plain csv or JSON rows from {task field: column}; columns not named are ignored.

    Test lists and cases may be lists, JSON, or Python literals in a string. What the map leaves out is filled
    in: source and split from the file and the caller, the language of the prompt from its letters, Python for
    programs, the row number for an id. Raises TaskError for a field no task has.
    """
    unknown = sorted(set(column_map) - set(FIELDS))
    if unknown or "prompt" not in column_map:
        problem = f"unknown field {', '.join(unknown)}" if unknown else "no prompt"
        raise TaskError(f"column_map: {problem}; it maps task fields, prompt at least, to columns: {', '.join(FIELDS)}")

    def open_mapped(origin: Origin) -> Converter:
        name = origin.path.stem if origin.path else origin.name
        return lambda row: _mapped_row(row, column_map, name, origin.split)

    return open_mapped


def _mapped_row(row: Row, column_map: ColumnMap, name: str, split: str | None) -> dict[str, Any]:
    missing = [column for column in column_map.values() if column not in row.values]
    if missing:
        seen = ", ".join(map(str, row.values))
        raise TaskError(f"{row.where}: column_map names {', '.join(missing)}, but the columns are {seen}")
    values = {field: _typed(field, row.values[column], row.where) for field, column in column_map.items()}
    if not isinstance(values["prompt"], str):
        raise TaskError(f"{row.where}: the prompt is {values['prompt']!r:.80}; it should be text")
    values["task_id"] = str(values.get("task_id", row.number))
    values["programming_language"] = language_name(values.get("programming_language") or "python")
    defaults = {
        "source": name,
        "split": split or "unknown",
        "natural_language": natural_language(values["prompt"]),
        "mode": "program" if values.get("cases") else "function",
    }
    return {**defaults, **values}


def _typed(field: str, value: Any, where: str) -> Any:
    if field in ("visible_tests", "hidden_tests", "wrong_answers"):
        return string_list(value, field, where)
    if field in ("cases", "references") and isinstance(value, str):
        return plain_json(value, field, where)
    if field in ("time_limit_s", "memory_limit_mb", "tier") and isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError:
            raise TaskError(f"{where}: {field} is {value!r:.80}; it should be a number") from None
    return value
