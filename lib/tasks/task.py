"""Tasks: what is asked, and the tests that decide whether an answer works.

A task file is JSON Lines, one task a line. Function tasks carry Python asserts in two sets: `visible_tests`, which a
prompt may show, and `hidden_tests`, which it never does. Program tasks carry stdin/stdout `cases`.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from lib.base.errors import WorkbookError
from lib.base.files import write_text

Mode = Literal["function", "program"]
TestSet = Literal["visible", "hidden", "all"]
Compare = Literal["exact", "lines", "tokens"]


class TaskError(WorkbookError, ValueError):
    """A task file that cannot be used; the message names file, line, value and what would be right."""


LANGUAGE_ALIASES = {
    "py": "python", "python3": "python", "jl": "julia", "rscript": "r", "rlang": "r", "ml": "ocaml", "f90": "fortran",
    "f95": "fortran", "f03": "fortran", "f08": "fortran", "gfortran": "fortran", "luajit": "lua", "lua5.4": "lua",
}  # fmt: skip


def language_name(name: str) -> str:
    """Return a programming language's name here: in small letters, and one of several usual names for it."""
    small = name.strip().lower()
    return LANGUAGE_ALIASES.get(small, small)


@dataclasses.dataclass(frozen=True)
class Case:
    """One stdin/stdout pair of a program task."""

    input: str
    output: str


@dataclasses.dataclass(frozen=True)
class Task:
    """One problem. `tier`, `family`, `references` and `wrong_answers` are empty for corpora that do not state them."""

    task_id: str
    source: str
    split: str
    prompt: str
    natural_language: str
    programming_language: str
    mode: Mode
    entry_point: str = ""
    visible_tests: tuple[str, ...] = ()
    hidden_tests: tuple[str, ...] = ()
    cases: tuple[Case, ...] = ()
    setup_code: str = ""
    time_limit_s: float = 5.0
    memory_limit_mb: int = 512
    show_tests: int | None = None  # visible tests in the prompt; None: the run's number, or prompts.SHOW_TESTS
    compare: Compare = "exact"  # how the output of a program task is compared, see lib/sandbox/trusted/outputs.py
    reference: str = ""
    licence: str = ""
    tier: int = 0  # 1 (one-liner) to 4 (MBPP level); 0: not stated
    family: str = ""  # tasks of one family are variants of each other and never stand on two sides of a split
    references: tuple[tuple[str, str], ...] = ()  # program tasks: (language, program) pairs
    wrong_answers: tuple[str, ...] = ()  # plausible programs that pass the visible tests and fail the hidden ones

    def __post_init__(self) -> None:
        object.__setattr__(self, "programming_language", language_name(self.programming_language))

    def tests(self, which: TestSet) -> tuple[str, ...]:
        """The asserts of one test set of a function task."""
        if which not in get_args(TestSet):
            raise ValueError(f"tests={which!r}: choose one of {', '.join(get_args(TestSet))}")
        visible = self.visible_tests if which in ("visible", "all") else ()
        hidden = self.hidden_tests if which in ("hidden", "all") else ()
        return visible + hidden

    @property
    def tests_digest(self) -> str:
        """Sixteen hex digits naming everything a verdict depends on but the program."""
        judged = (self.visible_tests, self.hidden_tests, [dataclasses.astuple(case) for case in self.cases])
        limits = [self.setup_code, self.time_limit_s, self.memory_limit_mb]
        limits += [self.compare] if self.compare != "exact" else []
        return hashlib.sha256(json.dumps([judged, limits], ensure_ascii=False).encode()).hexdigest()[:16]

    def in_language(self, language: str) -> "Task":
        """This program task posed in `language`, with that language's reference.

        Raises KeyError when the task has no reference in that language.
        """
        reference = dict(self.references)[language]
        return dataclasses.replace(
            self,
            task_id=f"{self.task_id}:{language}",
            programming_language=language,
            reference=reference,
        )


FIELDS = {field.name: field for field in dataclasses.fields(Task)}
REQUIRED = tuple(name for name, field in FIELDS.items() if field.default is dataclasses.MISSING)


DEFAULTS = (("compare", "exact"), ("show_tests", None))


def task_to_row(task: Task) -> dict[str, Any]:
    """The JSON object written for a task; empty optional fields are left out."""
    row = dataclasses.asdict(task)
    row["references"] = dict(task.references)
    return {
        name: value
        for name, value in row.items()
        if name in REQUIRED or (name == "show_tests" or value not in ((), "", {}, 0)) and (name, value) not in DEFAULTS
    }


def task_from_row(row: Any, where: str) -> Task:
    """A validated Task from one JSON object; `where` ("file:line") opens every error message."""
    if not isinstance(row, dict):
        raise TaskError(f"{where}: expected a JSON object, got {type(row).__name__}")
    missing = [name for name in REQUIRED if name not in row]
    if missing:
        raise TaskError(f"{where}: missing {', '.join(missing)}; a task has at least {', '.join(REQUIRED)}")
    unknown = sorted(set(row) - set(FIELDS))
    if unknown:
        raise TaskError(f"{where}: unknown field {', '.join(unknown)}; fields are {', '.join(FIELDS)}")
    values = dict(row)
    for name in ("visible_tests", "hidden_tests", "wrong_answers"):
        values[name] = _strings(row.get(name, ()), name, where)
    values["cases"] = _cases(row.get("cases", ()), where)
    values["references"] = tuple(dict(row.get("references", {})).items())
    task = Task(**values)
    _check(task, where)
    return task


def _strings(value: Any, name: str, where: str) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
        raise TaskError(f"{where}: {name} is {value!r:.80}; it should be a list of strings")
    return tuple(value)


def _cases(value: Any, where: str) -> tuple[Case, ...]:
    try:
        cases = tuple(Case(case["input"], case["output"]) for case in value)
    except (TypeError, KeyError):
        raise TaskError(
            f'{where}: cases should be a list of {{"input": text, "output": text}}, got {value!r:.80}'
        ) from None
    if not all(isinstance(text, str) for case in cases for text in (case.input, case.output)):
        raise TaskError(f"{where}: the input and output of every case should be text")
    return cases


def _check(task: Task, where: str) -> None:
    name = f"{where}: task {task.task_id!r}"
    if not isinstance(task.task_id, str) or not task.task_id:
        raise TaskError(f"{where}: task_id is {task.task_id!r}; it should be a non-empty string")
    if not isinstance(task.prompt, str) or not task.prompt.strip():
        raise TaskError(f"{name} has an empty prompt")
    if task.mode not in get_args(Mode):
        raise TaskError(f"{name}: mode is {task.mode!r}; it should be 'function' or 'program'")
    if task.mode == "function" and not (task.visible_tests or task.hidden_tests):
        raise TaskError(f"{name} has no tests; a function task needs visible_tests or hidden_tests")
    if task.mode == "program" and not task.cases:
        raise TaskError(f"{name} has no cases; a program task needs at least one")
    if task.show_tests is not None and (type(task.show_tests) is not int or task.show_tests < 0):
        raise TaskError(f"{name}: show_tests is {task.show_tests!r}; it should be a whole number, 0 or more")
    if task.compare not in get_args(Compare):
        raise TaskError(f"{name}: compare is {task.compare!r}; it should be one of {', '.join(get_args(Compare))}")
    for limit in ("time_limit_s", "memory_limit_mb"):
        value = getattr(task, limit)
        if not isinstance(value, (int, float)) or value <= 0:
            raise TaskError(f"{name}: {limit} is {value!r}; it should be a number above 0")


def read_tasks(path: str | Path) -> list[Task]:
    """All tasks of a JSON Lines file, in order.

    Raises TaskError, naming file and line, for a missing file, a malformed line or two tasks with one id.
    """
    path = Path(path)
    if not path.is_file():
        raise TaskError(f"{path}: no such task file")
    tasks: dict[str, Task] = {}
    first_seen: dict[str, int] = {}
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            task = task_from_row(_parse(line, where), where)
            if task.task_id in tasks:
                raise TaskError(
                    f"{where}: task id {task.task_id!r} was already used on line {first_seen[task.task_id]}"
                )
            tasks[task.task_id] = task
            first_seen[task.task_id] = number
    if not tasks:
        raise TaskError(f"{path}: no tasks in this file")
    return list(tasks.values())


def _parse(line: bytes, where: str) -> Any:
    try:
        return json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise TaskError(f"{where}: not UTF-8 ({error.reason} at byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise TaskError(
            f"{where}: not JSON ({error.msg} at column {error.colno}); one JSON object a line is expected"
        ) from None


def write_tasks(path: str | Path, tasks: Iterable[Task]) -> None:
    """Write tasks as JSON Lines; the file appears whole or not at all."""
    write_text(Path(path), "".join(json.dumps(task_to_row(task), ensure_ascii=False) + "\n" for task in tasks))


def by_split(tasks: Sequence[Task], split: str) -> list[Task]:
    """The tasks of one split, in order."""
    return [task for task in tasks if task.split == split]
