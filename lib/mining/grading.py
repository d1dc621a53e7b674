"""Verdicts for samples: on visible and hidden tests apart, and an error of the sandbox is never a program's failure."""

import dataclasses
from collections.abc import Iterable

from lib.sandbox import Sandbox, SandboxError, Status, Verdict
from lib.tasks.task import Task, TestSet

SAME_FOR_EVERY_TEST = (Status.TIMEOUT, Status.MEMORY, Status.COMPILE_ERROR, Status.NO_CODE)
UNDECIDED = (Status.UNSUPPORTED_TEST, Status.SUCCESS)  # a failure on the other tests decides before these


def checked(verdict: Verdict, what: str) -> Verdict:
    """Return the verdict. Raises SandboxError, naming `what` was graded, where the sandbox itself failed."""
    if verdict.status == Status.SANDBOX_ERROR:
        raise SandboxError(f"{what}: the sandbox failed, not the program: {verdict.failure}")
    return verdict


def grade_all(sandbox: Sandbox, jobs: Iterable[tuple[Task, str]], tests: TestSet = "all") -> list[Verdict]:
    """Return a verdict per (task, program), in order. Raises SandboxError where the sandbox itself failed."""
    jobs = list(jobs)
    verdicts = sandbox.grade_many(jobs, tests)
    return [checked(verdict, task.task_id) for (task, _), verdict in zip(jobs, verdicts, strict=True)]


def grade_visible_and_hidden(sandbox: Sandbox, task: Task, program: str) -> tuple[Verdict, Verdict]:
    """Return the verdicts on the visible and on the hidden tests; a program task's cases count as both.

    A program that never gets as far as a test, or does not end, is not run a second time. Raises SandboxError where
    the sandbox itself failed.
    """
    if task.mode == "program" or not (task.visible_tests and task.hidden_tests):
        verdict = checked(sandbox.grade(task, program, "all"), task.task_id)
        return verdict, verdict
    visible = checked(sandbox.grade(task, program, "visible"), task.task_id)
    if visible.status in SAME_FOR_EVERY_TEST:
        return visible, dataclasses.replace(visible, passed=0, total=len(task.hidden_tests), cpu_s=0.0, wall_s=0.0)
    return visible, checked(sandbox.grade(task, program, "hidden"), task.task_id)


def decisive(visible: Verdict, hidden: Verdict) -> Verdict:
    """Return the verdict that decides: the first failure, else a test that cannot be run, else success."""

    def weight(verdict: Verdict) -> int:
        return UNDECIDED.index(verdict.status) + 1 if verdict.status in UNDECIDED else 0

    return min((visible, hidden), key=weight)
