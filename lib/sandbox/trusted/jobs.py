"""From a task and a program to the message a grader judges, or to the verdict that needs no grader."""

import dataclasses
import secrets
import shlex
from collections.abc import Sequence
from typing import Any, Literal

from lib.sandbox import languages
from lib.sandbox.confine.limits import wall_limit
from lib.sandbox.trusted import functions, oci
from lib.sandbox.trusted.programs import COMPILE_MB, COMPILE_WALL_S
from lib.sandbox.verdict import Status, one_line
from lib.tasks.task import Case, Task, TestSet

Alias = Literal["strict", "permissive"]
MAX_SOURCE = 16 << 20  # characters
MAX_CASES = 1 << 30  # characters of all cases of a task
_GRACE_S = 10.0  # how long a grader may stay silent past its own limits


@dataclasses.dataclass(frozen=True)
class Job:
    """`body` goes to a grader; where `answer` is set, it is the verdict already."""

    body: dict[str, Any]
    total: int
    patience_s: float = 0.0
    answer: dict[str, Any] | None = None

    @property
    def is_program(self) -> bool:
        """Whether a launcher, not the Python worker, runs it."""
        return "language" in self.body


def for_task(
    task: Task, program: str, tests: TestSet, alias: Alias, *, in_process: bool = False, container: bool = False
) -> Job:
    """The job of one task and one program. Raises SandboxError where there is no container for it but should be."""
    total = len(task.cases) if task.mode == "program" else len(task.tests(tests))
    if not total:
        return _answered(Status.SANDBOX_ERROR, f"task {task.task_id!r} has no {tests} tests", 0)
    if not program or not program.strip():
        return _answered(Status.NO_CODE, "there is no program", total)
    if len(program) > MAX_SOURCE:
        return _too_long(program, total)
    limits = (task.time_limit_s, task.memory_limit_mb)
    if task.mode == "program":
        return for_program(task.programming_language, program, task.cases, *limits, task.compare, container=container)
    if task.programming_language != "python":
        return _foreign_function(task, program, task.tests(tests), container)
    body = {
        "source": program,
        "tests": task.tests(tests),
        "setup": task.setup_code,
        "entry_point": task.entry_point,
        "alias": alias,
        "prompt": task.prompt,
        "in_process": in_process,
        "cpu_s": task.time_limit_s,
        "memory_mb": task.memory_limit_mb,
    }
    body |= _container("python", task.memory_limit_mb, container)
    return Job(body, total, wall_limit(task.time_limit_s) + _GRACE_S)


def _container(language: str, memory_mb: int, wanted: bool) -> dict[str, Any]:
    """The part of a job that names its container, whose memory holds a compiler, scratch and the launcher as well."""
    if not wanted:
        return {}
    return {"container": {"image": oci.image(language), "memory_mb": max(memory_mb, COMPILE_MB) + 256}}


def for_program(
    language: str, source: str, cases: Sequence[Case], time_limit_s: float, memory_limit_mb: int, compare: str,
    *, container: bool = False,
) -> Job:  # fmt: skip
    """The job of one program and its stdin/stdout cases. Raises SandboxError for a language without a manifest."""
    manifest = languages.load(language)
    total = len(cases)
    if not container and languages.version(language) is None:
        why = f"{language} is not installed here ({one_line(manifest.install)})"
        return _answered(Status.SANDBOX_ERROR, why, total)
    if not cases:
        return _answered(Status.SANDBOX_ERROR, "there are no cases to run the program on", 0)
    size = sum(len(case.input) + len(case.output) for case in cases)
    if size > MAX_CASES:
        return _answered(Status.SANDBOX_ERROR, f"the cases hold {size >> 20} MiB; at most {MAX_CASES >> 20}", total)
    if not source.strip():
        return _answered(Status.NO_CODE, "there is no program", total)
    if len(source) > MAX_SOURCE:
        return _too_long(source, total)
    words = shlex.split if container else manifest.command
    body = {
        "language": {
            "file_ext": manifest.file_ext,
            "compile": words(manifest.compile) if manifest.compile else [],
            "run": words(manifest.run),
            "compile_line": manifest.compile,
            "run_line": manifest.run,
            "processes": manifest.processes,
            "reserve_mb": manifest.reserve_mb,
            "runtime_mb": manifest.runtime_mb,
            "python": language == "python",
        },
        "source": source,
        "files": {},
        "cases": [[case.input, case.output] for case in cases],
        "compare": compare,
        "cpu_s": time_limit_s,
        "memory_mb": memory_limit_mb,
        **_container(language, memory_limit_mb, container),
    }
    return Job(body, total, 2 * COMPILE_WALL_S + total * wall_limit(time_limit_s) + _GRACE_S)


def _foreign_function(task: Task, program: str, tests: tuple[str, ...], container: bool) -> Job:
    manifest = languages.load(task.programming_language)
    if not manifest.functions:
        why = f"{manifest.name} has no function mode; its tasks are programs with stdin/stdout cases"
        return _answered(Status.SANDBOX_ERROR, why, 1)
    mark = secrets.token_hex(16)
    built = functions.assemble(task.prompt, program, tests, task.entry_point, manifest, mark)
    case = Case(mark + "\n", mark)
    limits = (task.time_limit_s, task.memory_limit_mb)
    job = for_program(manifest.name, built.main, (case,), *limits, "mark", container=container)
    if job.answer:
        return job
    body = {**job.body, "files": built.files}
    if manifest.function_compile:
        line = manifest.function_compile.replace("UNIT", built.unit)
        words = shlex.split if container else manifest.command
        body["language"] |= {"compile": words(line), "compile_line": line}
        body["other"] = built.other
    return dataclasses.replace(job, body=body)


def _too_long(source: str, total: int) -> Job:
    why = f"the program has {len(source) >> 20} MiB; at most {MAX_SOURCE >> 20} are read"
    return _answered(Status.COMPILE_ERROR, why, total)


def _answered(status: str, failure: str, total: int) -> Job:
    return Job({}, total, answer={"status": status, "passed": 0, "failure": failure})
