"""The grader: a trusted process that owns one worker and judges one program at a time.

It speaks JSON frames with `Sandbox` on one socket and with its worker on another. Expected values live here and in the
caller, nowhere else. The grader itself never runs the program's code and never unpickles.
"""

import json
import marshal
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from typing import Any

from lib.sandbox import frames
from lib.sandbox.confine import linux as kernel
from lib.sandbox.confine.limits import Watch, rest_limit
from lib.sandbox.trusted import asserts, programs, suite
from lib.sandbox.trusted.conversation import Conversation, TimeUp
from lib.sandbox.untrusted.worker import FILE_BYTES
from lib.sandbox.verdict import HEAD_BYTES, Status, head, one_line

TICK_S = 0.05
SILENCE_S = 3600  # longer than any compilation and any case may take
_BOOTSTRAP = """\
import sys, types
for name, path in (("lib", {lib!r}), ("lib.sandbox", {sandbox!r})):
    package = sys.modules[name] = types.ModuleType(name)
    package.__path__ = [path]
sys.modules["lib"].sandbox = sys.modules["lib.sandbox"]
import importlib
importlib.import_module("lib.sandbox.{module}").main(int(sys.argv[1]), sys.argv[2])
"""


def loader_path() -> dict[str, str]:
    """LD_LIBRARY_PATH where this interpreter is linked to a library that the loader may find by nothing else (module systems)."""
    where = os.environ.get("LD_LIBRARY_PATH")
    return {"LD_LIBRARY_PATH": where} if where and sysconfig.get_config_var("Py_ENABLE_SHARED") else {}


def spawn(module: str, sock: socket.socket, settings: Any, python: str, **streams: Any) -> "subprocess.Popen[bytes]":
    """Start a process of this package with nothing but the standard library, a clean environment and one socket."""
    sandbox = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    program = _BOOTSTRAP.format(lib=os.path.dirname(sandbox), sandbox=sandbox, module=module)
    command = [python, "-B", "-P", "-s", "-S", "-c", program, str(sock.fileno()), json.dumps(settings)]
    environment = {
        "PYTHONHASHSEED": "0",
        "PYTHONUTF8": "1",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "PATH": "/usr/bin:/bin",
        "LD_BIND_NOW": "1",
    }
    environment |= loader_path()
    return subprocess.Popen(
        command, pass_fds=[sock.fileno()], env=environment, cwd="/", stdin=subprocess.DEVNULL,
        start_new_session=True, **streams,
    )  # fmt: skip


class WorkerLost(Exception):
    """The worker could not be started or went away; carries what it said."""


class Worker:
    """The grader's handle on a confined process: a `worker` or a `launcher`."""

    def __init__(self, module: str, settings: dict[str, Any]) -> None:
        self.asked = 0
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", SILENCE_S, 0))
        self.out, self.err = (os.memfd_create(name) for name in ("stdout", "stderr"))
        self.process = spawn(f"untrusted.{module}", theirs, settings, sys.executable, stdout=self.out, stderr=self.err)
        theirs.close()
        try:
            self._receive()  # it says 0 when it is ready
        except WorkerLost:
            self.close()
            raise

    def ask(self, do: str, descriptors: Sequence[int] = (), **details: Any) -> dict[str, Any]:
        """Send one command and return its answer."""
        self.tell(do, descriptors, **details)
        return self._receive()

    def tell(self, do: str, descriptors: Sequence[int] = (), **details: Any) -> None:
        """Send one command that has no answer."""
        self.asked += 1
        message = marshal.dumps({"do": do, "n": self.asked, **details}, frames.PLAIN)
        try:
            socket.send_fds(self.control, [message], list(descriptors))
        except OSError:
            raise WorkerLost(self._last_words()) from None

    def _receive(self) -> dict[str, Any]:
        while True:
            try:
                message = self.control.recv(4096)
            except BlockingIOError:
                message = b""
            if not message:
                raise WorkerLost(self._last_words())
            answer: dict[str, Any] = json.loads(message)
            if answer["n"] == self.asked:  # an alarm may have cut an earlier exchange short
                return answer

    def _last_words(self) -> str:
        return one_line(os.pread(self.err, 1 << 20, 0)[-250:].decode("utf-8", "replace")) or "it said nothing"

    def outputs(self) -> tuple[bytes, bytes, int]:
        """Heads of stdout and stderr and the larger one's size; both are emptied for the next candidate."""
        heads, largest = [], 0
        for descriptor in (self.out, self.err):
            size = os.fstat(descriptor).st_size
            heads.append(os.pread(descriptor, HEAD_BYTES, 0) if size else b"")
            if size:
                os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            largest = max(largest, size)
        return heads[0], heads[1], largest

    def close(self) -> None:
        """End the worker and whatever runs under it."""
        self.control.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        _reap_orphans()
        os.close(self.out)
        os.close(self.err)


def _reap_orphans() -> None:
    """In mode A the worker is a grandchild that this process, as subreaper, inherits."""
    for _ in range(100):
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.01)
        except ChildProcessError:
            return


class Candidates:
    """The forked children of one worker: one in use, the next already waiting."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.socket, theirs = self._pair()
        with theirs:
            worker.tell("fork", [theirs.fileno()])

    @staticmethod
    def _pair() -> tuple[socket.socket, socket.socket]:
        ours, theirs = socket.socketpair()
        for timeout in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            ours.setsockopt(socket.SOL_SOCKET, timeout, struct.pack("ll", 0, int(TICK_S * 1e6)))
        return ours, theirs

    def finish(self, ending: bool) -> dict[str, Any]:
        """End the candidate in use and have the next one forked; how the old one ended."""
        old = self.socket
        self.socket, theirs = self._pair()
        with old, theirs:
            return self.worker.ask("next", [theirs.fileno()], ending=ending)


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
        """One job to one verdict row; a worker that goes away is replaced once."""
        module = "launcher" if "language" in job else "worker"
        for _ in range(2):
            try:
                if module not in self.workers:
                    self.workers[module] = Worker(module, self.settings[module])
                if module == "launcher":
                    return programs.judge(self.workers[module].ask, job)
                self.candidates = self.candidates or Candidates(self.workers[module])
                return self._judge_function(self.candidates, job)
            except WorkerLost as lost:
                self._lose(module)
                reason = str(lost)
        return {"status": Status.SANDBOX_ERROR, "passed": 0, "failure": f"the {module} went away: {reason}"}

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
        return Status.RUNTIME_ERROR, f"killed by {signal.Signals(-code).name}"
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
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGPROF, _time_up)
    sys.setrecursionlimit(5000)
    resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
    channel = frames.Channel(descriptor, frames.MAX_REQUEST, trusting=True)
    grader = Grader(options)
    while True:
        try:
            job = channel.receive()
        except frames.Closed:
            break
        channel.send(grader.judge(job))
    for worker in grader.workers.values():
        worker.close()
