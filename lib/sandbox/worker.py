"""The worker: a confined zygote that forks one candidate at a time and never sees a test.

Started by the grader with a `Plan`, it warms up (standard library imported, compiler and JSON exercised, heap frozen),
confines itself once, then serves three commands on its control socket:

    fork + descriptor + limits  ->  {"pid"}                          a candidate waiting on that descriptor
    look                        ->  {"cpu_s", "scratch"}             what the candidate has used so far
    end                         ->  {"status", "cpu_s", "rss_mb"}    kill, reap, wipe scratch

The end of its control socket ends it and, with it, the candidate.
"""

import gc
import importlib
import json
import os
import random
import resource
import shutil
import signal
import socket
import sys
import time
from typing import Any

from lib.sandbox import candidate, confinement, kernel, seccomp
from lib.sandbox.confinement import MEBIBYTE, Plan

WARM = (
    "abc array ast bisect calendar cmath collections collections.abc contextlib copy dataclasses datetime decimal enum "
    "fractions functools hashlib heapq io itertools json keyword locale math numbers operator os pprint queue random re "
    "statistics string struct sys tempfile textwrap threading time traceback types typing unicodedata uuid warnings"
)
FILE_BYTES = 16 * MEBIBYTE  # the largest file, stdout included
OPEN_FILES = 128


def main(control_descriptor: int, settings: str) -> None:
    """Entry point of the worker process."""
    control = socket.socket(fileno=control_descriptor)
    options = json.loads(settings)
    plan = Plan(**{name: tuple(v) if isinstance(v, list) else v for name, v in options["plan"].items()})
    warm(options["modules"])
    mapped = mapped_bytes()
    confinement.enter_namespaces(plan)
    _confine(plan)
    control.send(b'{"ready":true}')
    Zygote(control, plan, mapped).serve()
    os._exit(0)


def warm(modules: list[str]) -> None:
    """Import what programs import, so that no candidate pays for it."""
    for name in (*WARM.split(), *modules):
        importlib.import_module(name)
    exec(compile("def warm(x: int = 1) -> list[int]:\n    return [x]", "<warm>", "exec"), {})
    json.loads(json.dumps([{"a": 1.5}, "é"]))
    random.seed(0)


def _confine(plan: Plan) -> None:
    os.chdir(plan.scratch)
    os.umask(0o077)
    confinement.limit_process_table(plan)
    confinement.drop_privileges(plan)
    confinement.close_files(plan)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    confinement.forbid_calls(plan)
    kernel.drop_capabilities()
    gc.collect()
    gc.freeze()
    gc.disable()


class Zygote:
    """One candidate at a time, started and ended on the grader's word."""

    def __init__(self, control: socket.socket, plan: Plan, mapped: int) -> None:
        self.control, self.plan, self.mapped = control, plan, mapped
        self.child = 0
        self.filter = seccomp.solo_filter() if plan.mode != "none" else b""

    def serve(self) -> None:
        """Answer commands until the grader hangs up."""
        while True:
            message, descriptors, _, _ = socket.recv_fds(self.control, 4096, 1)
            if not message:
                break
            command = json.loads(message)
            answer = getattr(self, "do_" + command["do"])(command, descriptors)
            self.control.send(json.dumps(answer).encode())
        if self.child:
            os.kill(self.child, signal.SIGKILL)

    def do_fork(self, command: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Fork a candidate that will serve the grader on the descriptor sent along."""
        pid = os.fork()
        if pid == 0:
            self._become_candidate(descriptors[0], command)
        os.close(descriptors[0])
        self.child = pid
        return {"pid": pid}

    def _become_candidate(self, descriptor: int, limits: dict[str, Any]) -> None:
        try:
            self.control.close()
            _limit(limits["cpu_s"], self.mapped + limits["memory_mb"] * MEBIBYTE)
            if self.filter:
                kernel.install_filter(self.filter)
            candidate.serve(descriptor)
        finally:
            os._exit(70)

    def do_look(self, command: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """CPU seconds and scratch bytes the candidate has used."""
        try:
            used = time.clock_gettime(~self.child << 3 | 2)  # the process CPU clock of another pid
        except OSError:
            used = 0.0
        return {"cpu_s": used, "scratch": _bytes_under(self.plan.scratch)}

    def do_end(self, command: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Kill and reap the candidate, wipe what it left."""
        os.kill(self.child, signal.SIGKILL)
        _, status, usage = os.wait4(self.child, 0)
        self.child = 0
        wipe(self.plan.scratch)
        return {
            "status": os.waitstatus_to_exitcode(status),
            "cpu_s": usage.ru_utime + usage.ru_stime,
            "rss_mb": usage.ru_maxrss / 1024,
        }


def _limit(cpu_s: float, address_space: int) -> None:
    seconds = int(cpu_s) + 2  # a backstop of whole seconds; the grader watches the exact clock
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))


def mapped_bytes() -> int:
    """Address space this process already maps; a candidate's budget comes on top."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _bytes_under(folder: str) -> int:
    return sum(entry.stat(follow_symlinks=False).st_size for entry in os.scandir(folder))


def wipe(folder: str) -> None:
    """Empty a folder."""
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
