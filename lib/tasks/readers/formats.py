"""Which corpus a row belongs to, told from its columns alone."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from lib.tasks.readers.asserts import Converter, Origin, blp, chat, mbpp
from lib.tasks.readers.humaneval import humaneval, mhumaneval, multipl_e
from lib.tasks.readers.programs import ag_livecodebench, ag_mbpp, ag_posed, codeforces, livecodebench
from lib.tasks.task import REQUIRED, TaskError


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
    nearest = max(FORMATS, key=lambda format_: len(set(format_.columns) & set(map(str.lower, map(str, columns)))))
    raise TaskError(
        f"{where}: no known corpus has the columns {seen}; "
        f"the nearest is {nearest.name}, with {', '.join(nearest.columns)}"
    )
