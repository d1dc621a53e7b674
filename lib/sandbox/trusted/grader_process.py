"""One grader process with its confined workers, kept alive from job to job."""

import contextlib
import dataclasses
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from typing import Any

from lib.sandbox import frames, languages
from lib.sandbox.confine import probe
from lib.sandbox.confine.confinement import Plan
from lib.sandbox.trusted import oci
from lib.sandbox.trusted.processes import loader_path, spawn
from lib.sandbox.trusted.suite import PACKAGES
from lib.sandbox.verdict import Status


class GraderProcess:
    """The caller's handle on one grader, which is started when first needed and again when it has died."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.interrupted = self.closed = False
        self.process: subprocess.Popen[bytes] | None = None
        self.socket: socket.socket | None = None
        self.channel: frames.Channel | None = None
        self.at_work = threading.Lock()  # held while a job is judged
        self._lock = threading.Lock()  # so that nothing is started while it is being closed

    def judge(self, job: dict[str, Any], patience_s: float) -> dict[str, Any]:
        """Return the verdict row of one job. A grader that dies is replaced once; one that hangs has had its time."""
        self.interrupted = False
        for _ in range(2):
            try:
                channel = self._start()
                channel.idle = _Patience(patience_s)
                channel.send(job)
                row: dict[str, Any] = channel.receive()
                return row
            except (frames.Closed, frames.Garbage, ValueError):  # a socket closed meanwhile has the descriptor -1
                self.stop()
                if self.interrupted or self.closed:
                    why = "the sandbox was closed" if self.closed else "interrupted"
                    return {"status": Status.SANDBOX_ERROR, "passed": 0, "failure": why}
            except TimeoutError:
                self.stop()
                return {"status": Status.TIMEOUT, "passed": 0, "failure": "the test did not finish in time"}
        return {"status": Status.RUNTIME_ERROR, "passed": 0, "failure": "the grader died twice on this program"}

    def _start(self) -> frames.Channel:
        with self._lock:
            if self.closed:
                raise frames.Closed
            if self.channel is None:
                self.socket, theirs = socket.socketpair()
                python = os.path.realpath(sys.executable)
                self.process = spawn("trusted.grader", theirs, self.settings, python, stdout=subprocess.DEVNULL)
                theirs.close()
                for timeout in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                    self.socket.setsockopt(socket.SOL_SOCKET, timeout, struct.pack("ll", 1, 0))
                self.channel = frames.Channel(self.socket.fileno(), frames.MAX_REQUEST)
            return self.channel

    def interrupt(self) -> None:
        """Give up what is being judged now."""
        self.interrupted = True
        self._kill()

    def close(self) -> None:
        """End the grader for good."""
        with self._lock:
            self.closed = True
        self._kill()

    def _kill(self) -> None:
        process = self.process
        if process:
            process.kill()

    def stop(self) -> None:
        """End the grader; its worker, launcher and candidate follow when their sockets close."""
        with self._lock:  # close() and judge() may both be here
            ours, process = self.socket, self.process
            self.socket = self.channel = self.process = None
        if ours:
            with contextlib.suppress(OSError):
                ours.shutdown(socket.SHUT_RDWR)
            ours.close()
        if process:
            try:
                process.wait(0.3)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def grader_settings(plan: Plan, modules: tuple[str, ...], python_path: str) -> dict[str, Any]:
    """What a grader needs to start its worker and its launcher."""
    tools = [
        tool for name in languages.names() for word in languages.load(name).tools if (tool := languages.find_tool(word))
    ]
    readable = (
        *probe.tool_files(tools),
        python_path,
        *(path for name in modules for path in probe.package_files(name)),
    )
    programs = dataclasses.replace(plan, read=readable, execute=True, scratch=plan.scratch + "p")
    container = None
    if plan.mode == "container":
        container = oci.settings(plan.uid, python_path)
        plan = Plan("container", -1, oci.SCRATCH, oci.READABLE, landlock=plan.landlock)
        programs = dataclasses.replace(plan, execute=True)
        python_path = oci.PYTHON_PATH
    environment = {
        "PATH": os.pathsep.join(languages.TOOL_PATH),
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "PYTHONHASHSEED": "0",
        "PYTHONUTF8": "1",
        "OPENBLAS_NUM_THREADS": "1",
    } | ({} if container else loader_path())
    return {
        "parent": os.getpid(),
        "packages": {name: os.path.dirname(files[0]) for name in sorted(PACKAGES) if (files := _installed(name))},
        "container": container,
        "worker": {
            "plan": dataclasses.asdict(plan),
            "modules": list(modules),
            "path": sorted({os.path.dirname(probe.package_files(name)[0]) for name in modules}),
        },
        "launcher": {
            "plan": dataclasses.asdict(programs),
            "environment": environment,
            "python_path": python_path,
        },
    }


def _installed(package: str) -> list[str]:
    try:
        return probe.package_files(package)
    except ModuleNotFoundError:
        return []


class _Patience:
    """Raises TimeoutError once its time is over."""

    def __init__(self, seconds: float) -> None:
        self.deadline = time.monotonic() + seconds

    def __call__(self) -> None:
        if time.monotonic() > self.deadline:
            raise TimeoutError
