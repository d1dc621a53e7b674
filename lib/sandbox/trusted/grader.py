"""The grader: a trusted process that owns one worker and judges one program at a time.

It speaks JSON frames with `Sandbox` on one socket and with its worker on another. Expected values live here and in the
caller, nowhere else. The grader itself never runs the program's code and never unpickles.
"""

import json
import resource
import signal
import sys
import time
from typing import Any

from lib.sandbox import frames
from lib.sandbox.confine import linux as kernel
from lib.sandbox.confine.limits import Watch, rest_limit
from lib.sandbox.trusted import asserts, programs, suite
from lib.sandbox.trusted.conversation import Conversation, TimeUp
from lib.sandbox.trusted.processes import Candidates, CannotStart, Worker, WorkerLost
from lib.sandbox.untrusted.worker import FILE_BYTES
from lib.sandbox.verdict import Status, head

MAX_JOB = 1 << 31  # bytes of one job from the caller, who is trusted


class Clock:
    """Asks the worker now and then what the candidate has used, and ends the conversation when that is too much."""

    def __init__(self, worker: Worker, cpu_s: float) -> None:
        self.worker, self.watch = worker, Watch(cpu_s)
        self.reason = ""

    def __call__(self) -> None:
        """Raise TimeUp when the candidate has had its share."""
        used = self.worker.ask("look")
        if used["full"]:
            raise TimeUp("filled its scratch space", Status.OUTPUT_LIMIT)
        self.reason = self.watch.see(used["cpu_s"])
        if self.reason:
            raise TimeUp(self.watch.words(self.reason))


class Grader:
    """Judges function tasks with a worker and programs with a launcher, each started when first needed."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.workers: dict[str, Worker] = {}
        self.candidates: Candidates | None = None

    def judge(self, job: dict[str, Any]) -> dict[str, Any]:
        """Turn one job into one verdict row.

        A worker that goes away is replaced; if its successor goes away on the same program, that is the program's doing.
        """
        module = "launcher" if "language" in job else "worker"
        for _ in range(2):
            try:
                if module not in self.workers:
                    self.workers[module] = Worker(module, self.settings[module])
                if module == "launcher":
                    return programs.judge(self.workers[module].ask, job)
                self.candidates = self.candidates or Candidates(self.workers[module])
                return self._judge_function(self.candidates, job)
            except CannotStart as reason:
                return {"status": Status.SANDBOX_ERROR, "passed": 0, "failure": f"the {module} cannot start: {reason}"}
            except WorkerLost as lost:
                self._lose(module)
                failure = f"the {module} that ran the program went away twice: {lost}"
        return {"status": Status.RUNTIME_ERROR, "passed": 0, "failure": failure}

    def _lose(self, module: str) -> None:
        worker = self.workers.pop(module, None)
        if module == "worker" and self.candidates:
            self.candidates.socket.close()
            self.candidates = None
        if worker:
            worker.close()

    def _judge_function(self, candidates: Candidates, job: dict[str, Any]) -> dict[str, Any]:
        total = len(job["tests"])
        try:
            compiled = suite.compile_suite(tuple(job["tests"]), job["setup"], job["entry_point"])
        except suite.BadTest as error:
            return {"status": Status.SANDBOX_ERROR, "passed": 0, "failure": str(error)}
        started = time.monotonic()
        clock = Clock(candidates.worker, job["cpu_s"])
        channel = frames.Channel(candidates.socket.fileno(), frames.MAX_REPLY, idle=clock)
        talk = Conversation(channel, tuple(self.settings["worker"]["modules"]))
        with _Alarm(rest_limit(job["cpu_s"])):
            try:
                outcome = asserts.judge(talk, compiled, job)
            except TimeUp as error:
                outcome = asserts.Outcome(0, Status.TIMEOUT, str(error))
        row = {"total": total, "wall_s": time.monotonic() - started, "retry": clock.reason == "wall"}
        return row | self._ending(candidates, job, outcome)

    def _ending(self, candidates: Candidates, job: dict[str, Any], outcome: asserts.Outcome) -> dict[str, Any]:
        """End the candidate; what is known of it in the end."""
        end = candidates.finish(outcome.status == "died")
        out, err, largest = candidates.worker.outputs()
        status, failure = outcome.status, outcome.failure
        if status == "died":
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


class _Alarm:
    """Bounds the CPU time a test takes on its own; fires again if a test swallows it."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __enter__(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, self.seconds, 0.5)

    def __exit__(self, *details: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _time_up(number: int, frame: Any) -> None:
    raise TimeUp("the test itself did not finish in time")


def main(descriptor: int, settings: str) -> None:
    """Entry point of the grader process."""
    options = json.loads(settings)
    for folder in options["worker"]["path"]:
        sys.path.append(folder)
    for name in options["worker"]["modules"]:
        __import__(name)
    kernel.die_with_parent()
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGPROF, _time_up)
    sys.setrecursionlimit(5000)
    resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
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
