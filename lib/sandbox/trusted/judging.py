"""Judge one Python program by its tests in a forked copy of the grader, which has limits of its own.

Whatever tests do to their process (a decimal precision, a patched builtin, memory, an endless loop in C) ends with the
copy. Tests of one task share a copy, so that what one assigns the next one sees.

A suite of nothing but `assert function(literals) == literal` needs no copy as long as the program answers with a few
kilobytes of builtin values: no code runs but their comparison. The first answer of another kind starts it again in a
copy.
"""

import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from lib.sandbox import frames
from lib.sandbox.confine import linux as kernel
from lib.sandbox.confine.confinement import MEBIBYTE
from lib.sandbox.confine.limits import REST_SHARE, Watch, rest_limit
from lib.sandbox.trusted import asserts
from lib.sandbox.trusted.asserts import Interrupted, Outcome
from lib.sandbox.trusted.conversation import Conversation
from lib.sandbox.trusted.processes import Candidates, Worker
from lib.sandbox.trusted.suite import Suite, classes_under_test
from lib.sandbox.untrusted.worker import mapped_bytes
from lib.sandbox.verdict import Status

PLAIN_BYTES = 16_384  # the longest answer that is judged without a copy
LOOK_MS = 100  # between two looks at what the program and its tests have used
Judge = Callable[[Conversation, Suite, dict[str, Any], Any], Outcome]


class Clock:
    """What a program and the copy that judges it have used, and whether that is too much."""

    def __init__(self, worker: Worker, copy: int, cpu_s: float) -> None:
        self.worker, self.copy, self.cpu_s, self.watch = worker, copy, cpu_s, Watch(cpu_s)
        self.own = 0.0
        self.reason = ""

    def look(self) -> tuple[Status, str] | None:
        """Status and reason once there is one to stop."""
        used = self.worker.ask("look")
        if used["full"]:
            return Status.OUTPUT_LIMIT, "filled its scratch space"
        if self.copy:
            own = time.clock_gettime(~self.copy << 3 | 2)  # the process CPU clock of another pid
            if own - self.own > REST_SHARE * (time.monotonic() - self.watch.seen_at):
                self.watch.seen_at = time.monotonic()  # the test works: the program does not rest, it waits
            self.own = own
        self.reason = self.watch.see(used["cpu_s"])
        if self.reason:
            return Status.TIMEOUT, self.watch.words(self.reason)
        if self.own >= rest_limit(self.cpu_s):
            return Status.TIMEOUT, f"the test itself used {self.own:.1f} s of CPU time"
        return None

    def __call__(self) -> None:
        """Raise Stopped once there is a reason to stop."""
        stopped = self.look()
        if stopped:
            raise Stopped(*stopped)


class NeedsCopy(Interrupted):
    """An answer that is not small and plain."""


class Stopped(Interrupted):
    """A limit was reached: status and reason."""


class PlainConversation(Conversation):
    """A conversation that takes nothing but small builtin values, functions, and exceptions of the standard library."""

    def _decode_rest(self, tag: str, payload: Any) -> Any:
        if tag not in ("h", "ty", "x", "i", "#", "nan"):
            raise NeedsCopy
        return super()._decode_rest(tag, payload)

    def _decode_container(self, tag: str, number: Any, extra: Any, form: Any) -> Any:
        if tag != "d":
            raise NeedsCopy
        return super()._decode_container(tag, number, extra, form)

    def wait(self) -> dict[str, Any]:
        """The next answer, unless it is too long for here."""
        try:
            return super().wait()
        except frames.TooLarge:
            raise NeedsCopy from None


def judge_plain(candidates: Candidates, suite: Suite, job: dict[str, Any]) -> tuple[Outcome, str] | None:
    """How the tests of a plain suite went, and which limit ended them; None where a copy has to judge them."""
    clock = Clock(candidates.worker, 0, job["cpu_s"])
    channel = frames.Channel(candidates.socket.fileno(), PLAIN_BYTES, idle=clock)
    session = PlainConversation(channel, under_test=classes_under_test(suite, job["prompt"]))
    last = [(Outcome(), "the tests")]

    def report(outcome: Outcome, test: str) -> None:
        last[0] = outcome, test

    try:
        return asserts.judge(session, suite, job, report), ""
    except Stopped as error:
        outcome, test = last[0]
        outcome.fail(error.args[0], f"{test}: {error.args[1]}")
        return outcome, clock.reason
    except NeedsCopy:
        return None


def judge_in_copy(
    candidates: Candidates, suite: Suite, job: dict[str, Any], modules: tuple[str, ...], judge_here: Judge
) -> tuple[Outcome, str]:
    """How the tests went, and which limit ended them ("" for none, "cpu", "wall")."""
    asserts.warm(suite)
    space = mapped_bytes() + int(job["memory_mb"]) * MEBIBYTE
    ours, theirs = os.pipe()
    grader = os.getpid()
    copy = kernel.plain_fork()
    if copy == 0:
        try:
            kernel.die_with_parent(grader)
            _judge_and_tell(theirs, space, candidates, suite, job, modules, judge_here)
        finally:
            os._exit(0)
    os.close(theirs)
    clock = Clock(candidates.worker, copy, job["cpu_s"])
    try:
        told, stopped = _follow(ours, clock)
    finally:
        os.close(ours)
        os.kill(copy, signal.SIGKILL)
        _, ended = os.waitpid(copy, 0)
    outcome, test, done = _last(told)
    if stopped:
        outcome.fail(stopped[0], f"{test}: {stopped[1]}")
    elif not done:
        code = os.waitstatus_to_exitcode(ended)
        status = Status.TIMEOUT if code == -signal.SIGXCPU else Status.RUNTIME_ERROR
        outcome.fail(status, f"{test}: what the program gave broke the process of the test ({code})")
    return outcome, clock.reason


def _follow(descriptor: int, clock: Clock) -> tuple[bytes, tuple[Status, str] | None]:
    """What the copy tells until it ends or has to be stopped, and why it had to be."""
    told: list[bytes] = []
    looked = time.monotonic()
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while True:
        if poll.poll(LOOK_MS):
            part = os.read(descriptor, 1 << 16)
            if not part:
                return b"".join(told), None
            told.append(part)
        if time.monotonic() - looked >= LOOK_MS / 1000:
            looked = time.monotonic()
            stopped = clock.look()
            if stopped:
                return b"".join(told), stopped


def _last(told: bytes) -> tuple[Outcome, str, bool]:
    """The outcome so far, the test it had come to, and whether that was the end."""
    lines = told.split(b"\n")[:-1]
    passed, status, failure, test = json.loads(lines[-1]) if lines else (0, Status.SUCCESS, "", "the tests")
    return (
        Outcome(passed, Status(status) if status != asserts.DIED else status, failure),
        test or "the tests",
        test is None,
    )


def _judge_and_tell(
    descriptor: int,
    space: int,
    candidates: Candidates,
    suite: Suite,
    job: dict[str, Any],
    modules: tuple[str, ...],
    judge_here: Judge,
) -> None:
    """Become the copy: take on the limits, judge, and tell one line per test."""
    seconds = int(rest_limit(job["cpu_s"])) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (space, space))
    session = Conversation(
        frames.Channel(candidates.socket.fileno(), frames.MAX_REPLY),
        modules,
        classes_under_test(suite, job["prompt"]),
        suite.classes,
    )
    if any({"stdout", "stderr", "redirect_stdout", "redirect_stderr", "capture"} & names for names in suite.names):
        session.heard = Echo(candidates.worker).catch_up

    def report(outcome: Outcome, test: str | None) -> None:
        row = [outcome.passed, outcome.status, outcome.failure, test]
        os.write(descriptor, json.dumps(row).encode() + b"\n")

    report(judge_here(session, suite, job, report), None)


class Echo:
    """Writes what the program prints to `sys.stdout` and `sys.stderr` of a test that has put something else there."""

    def __init__(self, worker: Worker) -> None:
        self.streams = [("stdout", sys.stdout, worker.out), ("stderr", sys.stderr, worker.err)]
        self.seen = [0, 0]

    def catch_up(self) -> None:
        """Pass on what was printed since the last answer."""
        for place, (name, original, descriptor) in enumerate(self.streams):
            now = os.fstat(descriptor).st_size
            stream = getattr(sys, name)
            if stream is not original and now > self.seen[place]:
                text = os.pread(descriptor, now - self.seen[place], self.seen[place])
                stream.write(text.decode("utf-8", "replace"))
            self.seen[place] = now
