"""The launcher: a confined process that compiles and runs programs of any language, one at a time.

Commands on its control socket: `write` files into the scratch directory, `remove` some, `run` a command to its end on the
three descriptors sent along, `wipe`. Everything a command starts stays in its process group (leaving it is forbidden), so
one signal ends it all.
"""

import json
import marshal
import os
import resource
import select
import signal
import socket
import time
from typing import Any

from lib.sandbox.confine import confinement, limits, seccomp
from lib.sandbox.confine import linux as kernel
from lib.sandbox.confine.confinement import MEBIBYTE, Plan
from lib.sandbox.untrusted import worker

OPEN_FILES = 1024  # R refuses fewer
STACK_BYTES = 256 * MEBIBYTE
TICK_S = 0.05


def main(control_descriptor: int, settings: str) -> None:
    """Entry point of the launcher process."""
    control = socket.socket(fileno=control_descriptor)
    options = json.loads(settings)
    plan = worker.plan_from(options["plan"])
    confinement.enter_namespaces(plan)
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    os.umask(0o077)
    confinement.limit_process_table(plan)
    confinement.drop_privileges(plan)
    confinement.close_files(plan)
    worker.wipe(plan.scratch)
    confinement.forbid_calls(plan)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    os.set_blocking(reader, False)
    signal.set_wakeup_fd(writer)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    control.send(b'{"n":0}')
    Launcher(control, plan, options["environment"], reader).serve()
    os._exit(0)


class Launcher:
    """Runs commands for the grader."""

    def __init__(self, control: socket.socket, plan: Plan, environment: dict[str, str], wakeup: int) -> None:
        self.control, self.plan, self.wakeup = control, plan, wakeup
        self.environment = environment | {"HOME": plan.scratch, "TMPDIR": plan.scratch}

    def serve(self) -> None:
        """Answer commands until the grader hangs up."""
        while True:
            message, descriptors, _, _ = socket.recv_fds(self.control, 1 << 16, 3)
            if not message:
                return
            command = marshal.loads(message)
            answer = getattr(self, "do_" + command["do"])(command, descriptors)
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
        worker.wipe(self.plan.scratch)
        return {}

    def do_run(self, command: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Run one command to its end or its limits."""
        watch = limits.Watch(command["cpu_s"])
        pid = os.fork()
        if pid == 0:
            self._become(command, descriptors)
        reason = self._wait(pid, watch)
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

    def _wait(self, pid: int, watch: limits.Watch) -> str:
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
            reason = reason or self._over_limit(pid, watch)
            if reason:
                break
        try:
            os.killpg(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
        return reason

    def _over_limit(self, pid: int, watch: limits.Watch) -> str:
        try:
            used = time.clock_gettime(~pid << 3 | 2)  # the process CPU clock of another pid
        except OSError:
            return ""
        if self.plan.mode != "A" and worker.bytes_under(self.plan.scratch) > confinement.SCRATCH_BYTES:
            return "scratch"
        return watch.see(used)

    def _become(self, command: dict[str, Any], descriptors: list[int]) -> None:
        try:
            os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            for target, descriptor in enumerate(descriptors):
                os.dup2(descriptor, target)
            os.chdir(self.plan.scratch)
            _limit(command)
            for name in ("SIGPIPE", "SIGXFSZ"):  # Python ignores them, and what is ignored stays so across exec
                signal.signal(getattr(signal, name), signal.SIG_DFL)
            self._install_filters(command["processes"])
            os.execve(command["argv"][0], command["argv"], self.environment)
        except OSError as error:
            os.write(2, f"cannot start {command['argv'][0]}: {error}\n".encode())
        finally:
            os._exit(127)

    def _install_filters(self, processes: bool) -> None:
        if self.plan.mode == "none":
            return
        if self.plan.uid < 0:
            kernel.install_filter(seccomp.own_files_filter())
        kernel.install_filter(seccomp.group_filter() if processes else seccomp.solo_filter(keep_exec=True))


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


def _reap() -> resource.struct_rusage | None:
    try:
        return os.wait4(-1, 0)[2]
    except ChildProcessError:
        return None
