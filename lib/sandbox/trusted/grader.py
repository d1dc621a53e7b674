"""The grader: a trusted process that owns one worker and judges one program at a time.

It speaks JSON frames with `Sandbox` on one socket and with its worker on another. Expected values live here and in the
caller, nowhere else. The grader itself never runs the program's code and never unpickles.
"""

import gc
import importlib.abc
import importlib.machinery
import json
import os
import resource
import signal
import sys
import time
from typing import Any

from lib.sandbox import frames
from lib.sandbox.confine import linux as kernel
from lib.sandbox.trusted import asserts, judging, programs, suite
from lib.sandbox.trusted.processes import Candidates, CannotStart, Worker, WorkerLost
from lib.sandbox.untrusted.worker import FILE_BYTES
from lib.sandbox.verdict import Status, head

MAX_JOB = 1 << 31  # bytes of one job from the caller, who is trusted


class Grader:
    """Judges function tasks with a worker and programs with a launcher, each started when first needed."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.workers: dict[Any, Worker] = {}  # by module, and by container where they are in one
        self.candidates: Candidates | None = None

    def judge(self, job: dict[str, Any]) -> dict[str, Any]:
        """Turn one job into one verdict row.

        A worker that goes away is replaced; if its successor goes away on the same program, that is the program's
        doing.
        """
        module = "launcher" if "language" in job else "worker"
        own = job.get("container")  # {"image", "memory_mb"}
        key = (module, *(own or {}).values())
        for _ in range(2):
            try:
                if key not in self.workers:
                    self._make_room(key)
                    container = self.settings["container"] | own if own else None
                    self.workers[key] = Worker(module, self.settings[module], container)
                if module == "launcher":
                    return programs.judge(self.workers[key].ask, job)
                self.candidates = self.candidates or Candidates(self.workers[key])
                return self._judge_function(self.candidates, job)
            except CannotStart as reason:
                return {"status": Status.SANDBOX_ERROR, "passed": 0, "failure": f"the {module} cannot start: {reason}"}
            except WorkerLost as lost:
                self._lose(key)
                failure = f"the {module} that ran the program went away twice: {lost}"
        return {"status": Status.RUNTIME_ERROR, "passed": 0, "failure": failure}

    def _make_room(self, key: tuple[Any, ...]) -> None:
        """End the container of the same image with less or more memory."""
        for other in [known for known in self.workers if known[:2] == key[:2]]:
            self._lose(other)

    def _lose(self, key: tuple[Any, ...]) -> None:
        worker = self.workers.pop(key, None)
        if key[0] == "worker" and self.candidates:
            self.candidates.socket.close()
            self.candidates = None
        if worker:
            worker.close()

    def _judge_function(self, candidates: Candidates, job: dict[str, Any]) -> dict[str, Any]:
        """One Python program by its tests; where they cannot be asked here and the job allows it, inside its
        process."""
        try:
            compiled = suite.compile_suite(tuple(job["tests"]), job["setup"], job["entry_point"])
        except suite.BadTest as error:
            return {"status": Status.UNSUPPORTED_TEST, "passed": 0, "failure": str(error)}
        started = time.monotonic()
        modules = tuple(self.settings["worker"]["modules"])
        judged = None
        if compiled.plain:
            judged = judging.judge_plain(candidates, compiled, job)
            if judged is None:
                candidates.finish(False)
                candidates.worker.outputs()
        judged = judged or judging.judge_in_copy(candidates, compiled, job, modules, asserts.judge)
        row = {"in_process": False} | self._ending(candidates, job, judged[0])
        if row["status"] == Status.UNSUPPORTED_TEST and job["in_process"]:
            judged = judging.judge_in_copy(candidates, compiled, job, modules, asserts.judge_inside)
            row = self._ending(candidates, job, judged[0]) | {"in_process": True}
        return row | {"total": len(job["tests"]), "wall_s": time.monotonic() - started, "retry": judged[1] == "wall"}

    def _ending(self, candidates: Candidates, job: dict[str, Any], outcome: asserts.Outcome) -> dict[str, Any]:
        """End the candidate; what is known of it in the end."""
        end = candidates.finish(outcome.status == asserts.DIED)
        out, err, largest = candidates.worker.outputs()
        status, failure = outcome.status, outcome.failure
        if status == asserts.DIED:
            status, reason = cause_of_death(end["status"], end["cpu_s"], job["cpu_s"], largest)
            failure = f"{failure}: {reason}"
        elif status == Status.RUNTIME_ERROR and largest >= FILE_BYTES:
            status = Status.OUTPUT_LIMIT
        return {
            "status": status,
            "passed": outcome.passed,
            "failure": failure,
            "cpu_s": end["cpu_s"],
            "peak_rss_mb": end["rss_mb"],
            "exit_code": end["status"],
            "stdout_head": head(out),
            "stderr_head": head(err),
        }


def cause_of_death(code: int | None, cpu_s: float, limit_s: float, largest_output: int) -> tuple[str, str]:
    """Status and reason for a process that ended by itself or was ended by a limit."""
    if code is None:
        return Status.RUNTIME_ERROR, "the program hung up"
    if code == -signal.SIGXCPU or cpu_s >= limit_s:
        return Status.TIMEOUT, f"used its {limit_s:g} s of CPU time"
    if code == -signal.SIGXFSZ or largest_output >= FILE_BYTES:
        return Status.OUTPUT_LIMIT, "wrote too much"
    if code == -signal.SIGKILL:
        return Status.MEMORY, "killed, most likely for memory"
    if code < 0:
        return Status.RUNTIME_ERROR, f"killed by signal {-code} ({signal.strsignal(-code) or 'no name'})"
    return Status.RUNTIME_ERROR, f"the process exited with status {code}"


class PackageFinder(importlib.abc.MetaPathFinder):
    """Finds the packages that tests may import beside the standard library: {name: the folder it lies in}."""

    def __init__(self, folders: dict[str, str]) -> None:
        self.folders = folders

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Return the spec of one of these packages, None for anything else."""
        folder = self.folders.get(name)
        return importlib.machinery.PathFinder.find_spec(name, [folder]) if folder else None


def main(descriptor: int, settings: str) -> None:
    """Entry point of the grader process."""
    options = json.loads(settings)
    kernel.die_with_parent(options["parent"])
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # numpy with one thread: this process forks
    for folder in options["worker"]["path"]:
        sys.path.append(folder)
    for name in options["worker"]["modules"]:
        __import__(name)
    sys.meta_path.append(PackageFinder(options["packages"]))
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    sys.setrecursionlimit(5000)
    resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what tests print is nobody's
    gc.collect()
    gc.freeze()
    channel = frames.Channel(descriptor, MAX_JOB, trusting=True)
    grader = Grader(options)
    while True:
        try:
            job = channel.receive()
        except frames.Closed:
            break
        channel.send(grader.judge(job))
    for worker in grader.workers.values():
        worker.close()
