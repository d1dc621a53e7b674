"""The launcher: a confined process that compiles and runs programs of any language, one at a time.

Commands on its control socket: `write` files into the scratch directory, `remove` some, `run` a command to its end on
the three descriptors sent along, `wipe`. Everything a command starts stays in its process group (leaving it is
forbidden), so one signal ends it all.
"""

import contextlib
import json
import marshal
import os
import resource
import select
import signal
import socket
import time
from typing import Any

from lib.sandbox.confine import confinement, limits, scratch, seccomp
from lib.sandbox.confine import linux as kernel
from lib.sandbox.confine.confinement import MEBIBYTE, Plan
from lib.sandbox.untrusted import worker

OPEN_FILES = 1024  # R refuses fewer
STACK_BYTES = 256 * MEBIBYTE
OWN_MEMORY = 1 << 30
TICK_S = 0.03


def main(control_descriptor: int, settings: str) -> None:
    """Entry point of the launcher process."""
    control = socket.socket(fileno=control_descriptor)
    control.set_inheritable(False)
    options = json.loads(settings)
    plan = worker.plan_from(options["plan"])
    confinement.enter_namespaces(plan)
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    os.umask(0o077)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # in mode A a program may signal every process that it sees
    confinement.limit_own_memory()
    confinement.drop_privileges(plan)
    scratch.empty(plan.scratch)
    confinement.forbid_calls(plan)
    _limit_soft(resource.RLIMIT_AS, OWN_MEMORY)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    os.set_blocking(reader, False)
    signal.set_wakeup_fd(writer)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    control.send(b'{"n":0}')
    Launcher(control, plan, options, reader).serve()
    os._exit(0)


class Launcher:
    """Runs commands for the grader."""

    def __init__(self, control: socket.socket, plan: Plan, options: dict[str, Any], wakeup: int) -> None:
        self.control, self.plan, self.wakeup = control, plan, wakeup
        self.kept: dict[str, tuple[bytes, int]] = {}  # content and permissions by name
        self.environment = options["environment"] | {"HOME": plan.scratch, "TMPDIR": plan.scratch}
        self.python_path = options["python_path"]
        self.rules = confinement.file_rules(plan)
        self.watch = worker.ScratchWatch(plan)
        scoped = self.rules >= 0 and kernel.landlock_abi() >= kernel.SIGNAL_SCOPE_ABI
        self.signals_stay_inside = plan.own_processes or scoped

    def serve(self) -> None:
        """Answer commands until the grader hangs up."""
        while True:
            message, descriptors, _, _ = socket.recv_fds(self.control, 1 << 16, 3)
            if not message:
                return
            worker.limit_own_cpu()
            command = marshal.loads(message)
            try:
                answer = getattr(self, "do_" + command["do"])(command, descriptors)
            except OSError as error:
                answer = {"error": f"cannot {command['do']} {command.get('name', 'scratch')}: {error.strerror}"}
            for descriptor in descriptors:
                os.close(descriptor)
            self.control.send(json.dumps(answer | {"n": command["n"]}).encode())

    def do_write(self, command: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Write what a descriptor holds to a file in scratch."""
        with open(os.path.join(self.plan.scratch, command["name"]), "wb") as file:
            offset = 0
            while block := os.pread(descriptors[0], 1 << 20, offset):
                file.write(block)
                offset += len(block)
        return {}

    def do_executable(self, command: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Make what was built executable; linkers try, but may not change attributes in every mode."""
        for name in os.listdir(self.plan.scratch):
            os.chmod(os.path.join(self.plan.scratch, name), 0o700, follow_symlinks=True)
        return {}

    def do_remove(self, command: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Remove a file from scratch."""
        os.unlink(os.path.join(self.plan.scratch, command["name"]))
        return {}

    def do_wipe(self, command: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Empty the scratch directory."""
        self.kept = {}
        scratch.empty(self.plan.scratch)
        return {}

    def do_keep(self, command: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Remember the files in scratch, so that every case finds the same."""
        for entry in os.scandir(self.plan.scratch):
            if entry.is_file(follow_symlinks=False):
                with open(entry.path, "rb") as file:
                    self.kept[entry.name] = (file.read(), entry.stat().st_mode & 0o777)
        return {}

    def do_restore(self, command: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Bring scratch back to what `keep` found."""
        scratch.empty(self.plan.scratch)
        for name, (content, mode) in self.kept.items():
            with open(path := os.path.join(self.plan.scratch, name), "wb") as file:
                file.write(content)
            os.chmod(path, mode)
        return {}

    def do_run(self, command: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Run one command to its end or its limits."""
        watch = limits.Watch(command["cpu_s"], command.get("wall_s", 0.0))
        self.watch.start()
        self.clock = limits.GroupClock()
        launcher = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become(command, descriptors, launcher)
        reason = self._wait(pid, watch, command)
        _, status, usage = os.wait4(pid, 0)
        cpu, rss = usage.ru_utime + usage.ru_stime, usage.ru_maxrss
        while orphan := _reap():
            cpu, rss = cpu + orphan.ru_utime + orphan.ru_stime, max(rss, orphan.ru_maxrss)
        return {
            "status": os.waitstatus_to_exitcode(status),
            "cpu_s": cpu,
            "rss_mb": rss / 1024,
            "wall_s": time.monotonic() - watch.started,
            "reason": reason,
        }

    def _wait(self, pid: int, watch: limits.Watch, command: dict[str, Any]) -> str:
        """Wait until the process has ended, then end its group; why it was cut short, or empty."""
        poll = select.poll()
        poll.register(self.wakeup, select.POLLIN)
        poll.register(self.control, select.POLLHUP)
        reason = ""
        while not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            for descriptor, _ in poll.poll(TICK_S * 1000):
                if descriptor == self.wakeup:
                    os.read(self.wakeup, 4096)
                else:
                    reason = "abandoned"
            if reason := reason or self._over_limit(pid, watch, command):
                break
        self._kill(pid)
        return reason

    def _kill(self, leader: int) -> None:
        """End everything that a command has started."""
        for target in (-1 if self.plan.own_processes else -leader, leader):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(target, signal.SIGKILL)

    def _over_limit(self, pid: int, watch: limits.Watch, command: dict[str, Any]) -> str:
        group = _group(pid) if command["processes"] else [pid]
        measured = len(group) > 1 or command["resident_mb"] < command["memory_mb"]  # else address space is limit enough
        if measured and _memory_mb(group) > command["resident_mb"]:
            return "memory"
        self.watch.look(group)
        return "scratch" if self.watch.full else watch.see(self.clock.look(group))

    def _become(self, command: dict[str, Any], descriptors: list[int], launcher: int) -> None:
        try:
            kernel.die_with_parent(launcher)
            os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            for target, descriptor in enumerate(descriptors):
                os.dup2(descriptor, target)
            os.chdir(self.plan.scratch)
            confinement.limit_processes(self.plan)
            _limit(command)
            for name in ("SIGPIPE", "SIGXFSZ", "SIGINT"):  # what is ignored stays so across exec
                signal.signal(getattr(signal, name), signal.SIG_DFL)
            environment = self.environment | ({"PYTHONPATH": self.python_path} if command["python"] else {})
            if self.rules >= 0:
                kernel.landlock_enter(self.rules)
            os.closerange(3, OPEN_FILES)
            self._install_filters(command["processes"])
            os.execvpe(command["argv"][0], command["argv"], environment)
        except OSError as error:
            os.write(2, f"cannot start {command['argv'][0]}: {error}\n".encode())
        finally:
            os._exit(127)

    def _install_filters(self, processes: bool) -> None:
        if self.plan.mode == "none":
            return
        if self.plan.uid < 0:
            kernel.install_filter(seccomp.own_files_filter())
        group = seccomp.group_filter(self.signals_stay_inside)
        kernel.install_filter(group if processes else seccomp.solo_filter(keep_exec=True))


def _group(leader: int) -> list[int]:
    """The processes of a process group."""
    found = [leader]
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if int(name) != leader and os.getpgid(int(name)) == leader:
                found.append(int(name))
    return found


def _memory_mb(processes: list[int]) -> float:
    """Memory of several processes together; what they share is counted once, if it matters."""
    total = 0
    for pid in processes:
        with contextlib.suppress(OSError, ValueError), open(f"/proc/{pid}/statm") as file:
            total += int(file.read().split()[1]) * resource.getpagesize()
    if total < 128 * MEBIBYTE:
        return total / MEBIBYTE
    shares = 0
    for pid in processes:
        with contextlib.suppress(OSError, ValueError), open(f"/proc/{pid}/smaps_rollup") as file:
            shares += next((int(line.split()[1]) for line in file if line.startswith("Pss:")), 0)
    return shares / 1024


def _limit(command: dict[str, Any]) -> None:
    seconds = int(command["cpu_s"]) + 2
    for kind, value in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, command["memory_mb"] * MEBIBYTE),
        (resource.RLIMIT_FSIZE, command["file_bytes"]),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_STACK, STACK_BYTES),
    ):
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def _limit_soft(kind: int, value: int) -> None:
    """Limit this process; the programs it starts get limits of their own, which may be higher."""
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _reap() -> resource.struct_rusage | None:
    try:
        return os.wait4(-1, 0)[2]
    except ChildProcessError:
        return None
