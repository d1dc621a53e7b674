"""The worker: a confined zygote that forks one candidate at a time and never sees a test.

Started by the grader with a `Plan`, it warms up (standard library imported, compiler and JSON exercised, heap frozen),
confines itself once, then serves three commands on its control socket:

    fork + descriptor  ->                               a candidate that waits on that descriptor
    look               ->  {"cpu_s", "full"}             what the candidate has used so far
    next + descriptor  ->  {"status", "cpu_s", "rss_mb"} kill and reap it, wipe scratch, fork one more

The end of its control socket, or any error on it, ends it, and the candidate ends with it.
"""

import contextlib
import gc
import importlib
import json
import marshal
import os
import random
import resource
import select
import signal
import socket
import sys
import time
from typing import Any

from lib.sandbox import frames
from lib.sandbox.confine import confinement, scratch, seccomp
from lib.sandbox.confine import linux as kernel
from lib.sandbox.confine.confinement import MEBIBYTE, Plan
from lib.sandbox.confine.limits import cpu_clock
from lib.sandbox.untrusted import candidate, imports_in_memory, semaphores

# Imported before the first fork. Not here: tempfile, hashlib, uuid and others whose shared libraries every fork would
# pay for (a mapping costs 1.5 µs a candidate) and few programs import.
WARM = (
    "abc ast bisect calendar collections collections.abc contextlib copy dataclasses datetime decimal enum fractions "
    "functools heapq io itertools json keyword locale math numbers operator os random re string struct sys textwrap "
    "threading time traceback types typing warnings"
)
FILE_BYTES = 16 * MEBIBYTE  # the largest file, stdout included
OPEN_FILES = 128
MAX_UNREAD = 5  # how often in a row a process may be unreadable, as one is while it starts
CHANNEL = 3  # the descriptor on which a candidate serves the grader
OWN_CPU_S = 20  # of the worker or launcher itself, for one command
WATCH_S = 0.03  # how often scratch is measured while a candidate works


def main(control_descriptor: int, settings: str) -> None:
    """Entry point of the worker process."""
    control = socket.socket(fileno=control_descriptor)
    control.set_inheritable(False)
    options = json.loads(settings)
    plan = plan_from(options["plan"])
    sys.path += options["path"]
    warm(options["modules"])
    del sys.path[len(sys.path) - len(options["path"]) :]  # allowed packages still find their own parts
    if plan.no_file_access:
        imports_in_memory.install()
    mapped = mapped_bytes()
    confinement.enter_namespaces(plan)
    process_table = os.open("/proc", os.O_RDONLY) if plan.uid < 0 else -1
    _confine(plan)
    zygote = Zygote(control, plan, mapped, process_table)
    gc.collect()
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
    sys.modules["_multiprocessing"] = semaphores
    importlib.import_module("lib.sandbox.untrusted.start_up")
    exec(compile("def warm(x: int = 1) -> list[int]:\n    return [x]", "<warm>", "exec"), {})
    candidate.rehearse()


def _confine(plan: Plan) -> None:
    os.chdir(plan.scratch)
    os.umask(0o077)
    confinement.limit_own_memory()
    confinement.drop_privileges(plan)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    if not plan.no_file_access:
        scratch.empty(plan.scratch)
    confinement.forbid_calls(plan)
    random.seed(0)


class Zygote:
    """One candidate at a time, started and ended on the grader's word."""

    def __init__(self, control: socket.socket, plan: Plan, mapped: int, process_table: int) -> None:
        self.control, self.plan = control, plan
        self.session = candidate.prepare(mapped)
        self.child = 0
        self.process_table = process_table
        self.rules = confinement.file_rules(plan)
        self.watch = ScratchWatch(plan)
        self.filters: list[kernel.Filter] = []
        if plan.mode != "none":
            self.filters.append(kernel.Filter(seccomp.solo_filter()))
            if plan.uid < 0:
                self.filters.append(kernel.Filter(seccomp.own_files_filter()))

    def serve(self) -> None:
        """Answer commands until the grader hangs up."""
        poll = select.poll()
        poll.register(self.control, select.POLLIN | select.POLLHUP)
        patience = WATCH_S * 1000 if self.watch.needed else None
        while True:
            while not poll.poll(patience):
                self.watch.look([self.child])
            message, descriptors, _, _ = socket.recv_fds(self.control, 4096, 1)
            if not message:
                return
            limit_own_cpu()
            command = marshal.loads(message)
            answer = getattr(self, "do_" + command["do"])(command, descriptors)
            if answer:
                self.control.send(frames.to_json(answer | {"n": command["n"]}))

    def do_fork(self, command: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Fork the first candidate, to serve the grader on the descriptor sent along."""
        self._fork(descriptors[0])
        return {}

    def _fork(self, descriptor: int) -> None:
        self.watch.start()
        parent = os.getpid()
        self.child = kernel.plain_fork()
        if self.child == 0:
            self._become_candidate(descriptor, parent)
        os.close(descriptor)

    def _become_candidate(self, descriptor: int, parent: int) -> None:
        """Keep stdin, stdout, stderr and the channel, nothing else; then serve, for as long as the worker lives."""
        try:
            kernel.die_with_parent(parent)
            if self.plan.uid < 0:  # count the user's other processes when the program comes, not long before
                select.select([descriptor], [], [])
            confinement.limit_processes(self.plan, self.process_table)  # the zygote has no limit: its forks do not fail
            if self.rules >= 0:
                kernel.landlock_enter(self.rules)
            os.dup2(descriptor, CHANNEL)
            os.closerange(CHANNEL + 1, OPEN_FILES)
            for each in self.filters:
                each.install()
            self.session.channel.descriptor = CHANNEL
            gc.enable()
            self.session.loop()
        finally:
            os._exit(70)

    def do_look(self, command: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """CPU seconds the candidate has used, and whether it has filled its scratch space."""
        self.watch.look([self.child])
        return {"cpu_s": cpu_clock(self.child), "full": self.watch.full}

    def do_next(self, command: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Kill and reap the candidate, wipe what it left and fork the next one, which is there with the answer.

        `ending`: it seems to be ending by itself, let it, to learn how.
        """
        alive = not (command["ending"] and _ends_soon(self.child))
        os.kill(self.child, signal.SIGKILL)
        _, status, usage = os.wait4(self.child, 0)
        answer = {
            "status": None if alive else os.waitstatus_to_exitcode(status),
            "cpu_s": usage.ru_utime + usage.ru_stime,
            "rss_mb": usage.ru_maxrss / 1024,
        }
        if not self.plan.no_file_access:
            scratch.empty(self.plan.scratch)
        self._fork(descriptors[0])
        return answer


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


def limit_own_cpu() -> None:
    """Let this process use OWN_CPU_S more, whatever it has used so far: one command must not keep it busy for ever.

    What it starts counts from 0 and has limits of its own.
    """
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = int(time.process_time()) + OWN_CPU_S
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


class ScratchWatch:
    """Holds a program to its scratch space where the kernel does not, or not to the number of files: but in mode A.

    What it may still write shrinks with what is left; once over the limit it can write no more. Far over it, or with
    too many files, it is `full`.
    """

    def __init__(self, plan: Plan) -> None:
        self.folder = plan.scratch
        self.needed = plan.watched
        self.full = False
        self.start()

    def start(self) -> None:
        """Begin with a new program."""
        self.full, self._cpu, self._limit, self._unread = False, -1.0, FILE_BYTES, 0

    def look(self, processes: list[int]) -> None:
        """Measure, unless the program has done nothing since the last time."""
        used = sum(map(cpu_clock, processes)) if self.needed else self._cpu
        if used == self._cpu and not self._unread:
            return
        self._cpu = used
        size, entries = scratch.usage(self.folder)
        held = [scratch.unlinked(pid) for pid in processes]
        size += sum(each or 0 for each in held)
        self._unread = self._unread + 1 if None in held else 0
        self.full = (
            size > 4 * confinement.SCRATCH_BYTES or entries > confinement.SCRATCH_ENTRIES or self._unread > MAX_UNREAD
        )
        limit = min(self._limit, max(confinement.SCRATCH_BYTES - size, 0))
        if limit < self._limit:
            self._limit = limit
            for pid in processes:
                with contextlib.suppress(OSError):
                    resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, limit))
