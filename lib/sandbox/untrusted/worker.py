"""The worker: a confined zygote that forks one candidate at a time and never sees a test.

Started by the grader with a `Plan`, it warms up (standard library imported, compiler and JSON exercised, heap frozen),
confines itself once, then serves three commands on its control socket:

    fork + descriptor  ->                               a candidate that waits on that descriptor
    look               ->  {"cpu_s", "full"}             what the candidate has used so far
    next + descriptor  ->  {"status", "cpu_s", "rss_mb"} kill and reap it, wipe scratch, fork one more

The end of its control socket ends it and, with it, the candidate.
"""

import errno
import gc
import importlib
import json
import marshal
import os
import random
import resource
import signal
import socket
import sys
import time
from typing import Any

from lib.sandbox import frames
from lib.sandbox.confine import confinement, seccomp
from lib.sandbox.confine import linux as kernel
from lib.sandbox.confine.confinement import MEBIBYTE, Plan
from lib.sandbox.untrusted import candidate, sealed

# Imported before the first fork. Not here: tempfile, hashlib, uuid and others whose shared libraries every fork would pay
# for (a mapping costs 1.5 µs a candidate) and few programs import.
WARM = (
    "abc ast bisect calendar collections collections.abc contextlib copy dataclasses datetime decimal enum fractions functools "
    "heapq io itertools json keyword locale math numbers operator os random re string struct sys textwrap threading time "
    "traceback types typing warnings"
)
FILE_BYTES = 16 * MEBIBYTE  # the largest file, stdout included
OPEN_FILES = 128
POOL_BYTES = 16384  # of CPython's allocator, one size of object a pool
MOST_HOLES = 4096  # of one size


def main(control_descriptor: int, settings: str) -> None:
    """Entry point of the worker process."""
    control = socket.socket(fileno=control_descriptor)
    options = json.loads(settings)
    plan = plan_from(options["plan"])
    sys.path += options["path"]
    warm(options["modules"])
    del sys.path[len(sys.path) - len(options["path"]) :]  # allowed packages still find their own parts
    if plan.sealed:
        sealed.install()
    mapped = mapped_bytes()
    confinement.enter_namespaces(plan)
    _confine(plan)
    zygote = Zygote(control, plan, mapped)
    gc.collect()
    filling = fill_holes()  # noqa: F841
    gc.freeze()
    gc.disable()
    control.send(b'{"n":0}')
    zygote.serve()
    os._exit(0)


def plan_from(row: dict[str, Any]) -> Plan:
    """The Plan a JSON object describes."""
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
    return Plan(**fields)


def warm(modules: list[str]) -> None:
    """Import what programs import, so that no candidate pays for it."""
    for name in (*WARM.split(), *modules):
        importlib.import_module(name)
    exec(compile("def warm(x: int = 1) -> list[int]:\n    return [x]", "<warm>", "exec"), {})
    candidate.rehearse()


def fill_holes() -> list[object]:
    """Objects that take up every free block of the heap's pools in use; keep them.

    A child's own objects then lie side by side in fresh pools, and it copies a tenth fewer of the pages it shares.
    """
    kept: list[object] = [float(n) for n in range(POOL_BYTES // 8)]
    for size in range(48, 513, 16):
        run, last, whole = 0, 0, (POOL_BYTES - 48) // size - 1
        for _ in range(MOST_HOLES):  # another allocator than CPython's own never fills a pool from end to end
            kept.append(bytes(size - sys.getsizeof(b"") - 8))
            here = id(kept[-1])
            run, last = (run + 1 if here == last + size else 0), here
            if run == whole:
                break
    return kept


def _confine(plan: Plan) -> None:
    os.chdir(plan.scratch)
    os.umask(0o077)
    confinement.limit_process_table(plan)
    confinement.drop_privileges(plan)
    confinement.close_files(plan)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    wipe(plan.scratch)
    confinement.forbid_calls(plan)
    kernel.drop_capabilities()
    random.seed(0)


class Zygote:
    """One candidate at a time, started and ended on the grader's word."""

    def __init__(self, control: socket.socket, plan: Plan, mapped: int) -> None:
        self.control, self.plan = control, plan
        self.session = candidate.prepare(mapped)
        self.child = 0
        self.filters: list[kernel.Filter] = []
        if plan.mode != "none":
            self.filters.append(kernel.Filter(seccomp.solo_filter()))
            if plan.uid < 0:
                self.filters.append(kernel.Filter(seccomp.own_files_filter()))

    def serve(self) -> None:
        """Answer commands until the grader hangs up."""
        while True:
            message, descriptors, _, _ = socket.recv_fds(self.control, 4096, 1)
            if not message:
                break
            command = marshal.loads(message)
            answer = getattr(self, "do_" + command["do"])(command, descriptors)
            if answer:
                self.control.send(frames.to_json(answer | {"n": command["n"]}))
        if self.child:
            os.kill(self.child, signal.SIGKILL)

    def do_fork(self, command: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Fork the first candidate, to serve the grader on the descriptor sent along."""
        self._fork(descriptors[0])
        return {}

    def _fork(self, descriptor: int) -> None:
        self.child = kernel.plain_fork()
        if self.child == 0:
            self._become_candidate(descriptor)
        os.close(descriptor)

    def _become_candidate(self, descriptor: int) -> None:
        try:
            os.close(self.control.fileno())
            for each in self.filters:
                each.install()
            self.session.channel.descriptor = descriptor
            gc.enable()
            self.session.serve()
        finally:
            os._exit(70)

    def do_look(self, command: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """CPU seconds and scratch bytes the candidate has used."""
        try:
            used = time.clock_gettime(~self.child << 3 | 2)  # the process CPU clock of another pid
        except OSError:
            used = 0.0
        scratch = (
            0 if self.plan.mode == "A" or self.plan.sealed else bytes_under(self.plan.scratch)
        )  # in A the tmpfs has a size
        return {"cpu_s": used, "full": scratch > confinement.SCRATCH_BYTES}

    def do_next(self, command: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Kill and reap the candidate; then, the answer sent, wipe what it left and fork the next one.

        `ending`: it seems to be ending by itself, let it, to learn how.
        """
        alive = not (command["ending"] and _ends_soon(self.child))
        os.kill(self.child, signal.SIGKILL)
        _, status, usage = os.wait4(self.child, 0)
        answer = {
            "n": command["n"],
            "status": None if alive else os.waitstatus_to_exitcode(status),
            "cpu_s": usage.ru_utime + usage.ru_stime,
            "rss_mb": usage.ru_maxrss / 1024,
        }
        self.control.send(frames.to_json(answer))
        if not self.plan.sealed:
            wipe(self.plan.scratch)
        self._fork(descriptors[0])
        return {}


def _ends_soon(pid: int) -> bool:
    for _ in range(50):
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return True
        time.sleep(0.001)
    return False


def mapped_bytes() -> int:
    """Address space this process already maps; a candidate's budget comes on top."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def bytes_under(folder: str) -> float:
    """Bytes on disk of what a folder holds, each entry counted as 1 KiB at least; infinite when too deep to tell."""
    total, waiting = 0.0, [folder]
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
            for entry in entries:
                total += 512 * entry.stat(follow_symlinks=False).st_blocks + 1024
            waiting += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return float("inf")
    return total


def wipe(folder: str) -> None:
    """Empty a folder, however deep and whatever its permissions: what lies deeper is moved up first."""
    count = 0
    while names := os.listdir(folder):
        for name in names:
            path = os.path.join(folder, name)
            if not os.path.isdir(path) or os.path.islink(path):
                os.unlink(path)
                continue
            os.chmod(path, 0o700)
            for inner in os.listdir(path):
                count += 1
                os.rename(os.path.join(path, inner), os.path.join(folder, f".{os.getpid()}.{count}"))
            os.rmdir(path)
