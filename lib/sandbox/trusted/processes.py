"""Start the processes of the sandbox, speak with them, and end them."""

import json
import marshal
import os
import socket
import struct
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from lib.sandbox import frames
from lib.sandbox.verdict import HEAD_BYTES, one_line

TICK_S = 0.05
START_S = 60.0  # how long a process may take to start, on a machine that is busy
ANSWER_S = 30.0  # how long a command may take, a run's own limits apart
_BOOTSTRAP = """\
import sys, types
for name, path in (("lib", {lib!r}), ("lib.sandbox", {sandbox!r})):
    package = sys.modules[name] = types.ModuleType(name)
    package.__path__ = [path]
sys.modules["lib"].sandbox = sys.modules["lib.sandbox"]
import importlib
importlib.import_module("lib.sandbox.{module}").main(int(sys.argv[1]), sys.argv[2])
"""
# In a container: the control socket is reached by a name, and stdout and stderr come by it.
_CONNECT = """\
import os, socket, sys
control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
control.connect("{control}")
for target, descriptor in enumerate(socket.recv_fds(control, 1, 2)[1], 1):
    os.dup2(descriptor, target)
    os.close(descriptor)
sys.argv.insert(1, control.detach())
"""


class WorkerLost(Exception):
    """A worker or launcher went away; carries what it said last."""


class CannotStart(WorkerLost):
    """A worker or launcher could not be started; carries what it said last."""


def loader_path() -> dict[str, str]:
    """LD_LIBRARY_PATH where this interpreter is linked to a library that the loader may find by nothing else."""
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


class Worker:
    """The grader's handle on a confined process: a `worker` or a `launcher`."""

    def __init__(self, module: str, settings: dict[str, Any], container: dict[str, Any] | None = None) -> None:
        """Start it, in a container where there is one: `oci.run_command` and what else `Grader` knows of it."""
        self.asked = 0
        self.out, self.err = (os.memfd_create(name) for name in ("stdout", "stderr"))
        name = f"untrusted.{module}"
        self.process, self.control = (
            self._in_container(name, settings, container) if container else self._here(name, settings)
        )
        try:
            self._receive(START_S)  # it says 0 when it is ready
        except WorkerLost as lost:
            self.close()
            raise CannotStart(str(lost)) from None

    def _here(self, module: str, settings: dict[str, Any]) -> "tuple[subprocess.Popen[bytes], socket.socket]":
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            return spawn(module, theirs, settings, sys.executable, stdout=self.out, stderr=self.err), ours

    def _in_container(
        self, module: str, settings: dict[str, Any], container: dict[str, Any]
    ) -> "tuple[subprocess.Popen[bytes], socket.socket]":
        """Its socket has a name until the container has found it, before any program runs there, and none after."""
        there, library = container["control"], container["lib"]
        program = _CONNECT.format(control=f"{there}/socket")
        program += _BOOTSTRAP.format(lib=library, sandbox=f"{library}/sandbox", module=module)
        python = ["python3", "-B", "-P", "-s", "-S", "-c", program, json.dumps(settings)]
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(f"{folder}/socket")
            os.chmod(folder, 0o711)
            os.chmod(f"{folder}/socket", 0o666)
            listener.listen(1)
            listener.settimeout(TICK_S)
            memory = [f"--{name}={container['memory_mb']}m" for name in ("memory", "memory-swap")]
            process = subprocess.Popen(
                [*container["command"], *memory, f"--volume={folder}:{there}", container["image"], *python],
                env=container["environment"], cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=self.err, start_new_session=True,
            )  # fmt: skip
            deadline = time.monotonic() + START_S
            while process.poll() is None and time.monotonic() < deadline:
                try:
                    control, _ = listener.accept()
                except TimeoutError:
                    continue
                socket.send_fds(control, [b"\0"], [self.out, self.err])
                os.unlink(f"{folder}/socket")
                return process, control
        process.kill()
        process.wait()
        said = self._last_words()
        os.close(self.out)
        os.close(self.err)
        raise CannotStart(said)

    def ask(
        self, do: str, descriptors: Sequence[int] = (), *, patience_s: float = ANSWER_S, **details: Any
    ) -> dict[str, Any]:
        """Send one command and return its answer. Raises WorkerLost where none comes within `patience_s`."""
        self.tell(do, descriptors, **details)
        return self._receive(patience_s)

    def tell(self, do: str, descriptors: Sequence[int] = (), **details: Any) -> None:
        """Send one command that has no answer."""
        self.asked += 1
        message = marshal.dumps({"do": do, "n": self.asked, **details}, frames.PLAIN)
        try:
            socket.send_fds(self.control, [message], list(descriptors))
        except OSError:
            raise WorkerLost(self._last_words()) from None

    def _receive(self, patience_s: float) -> dict[str, Any]:
        deadline = time.monotonic() + patience_s
        while True:
            left = max(deadline - time.monotonic(), 0.001)
            self.control.setsockopt(
                socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(left), int(left % 1 * 1e6))
            )
            try:
                message = self.control.recv(4096)
            except OSError:
                message = b""
            if not message:
                raise WorkerLost(self._last_words())
            answer: dict[str, Any] = json.loads(message)
            if answer["n"] == self.asked:  # an alarm may have cut an earlier exchange short
                return answer

    def _last_words(self) -> str:
        said = os.pread(self.err, 1 << 20, 0).decode("utf-8", "replace").strip().rpartition("\n")[2]
        return one_line(said) or "it said nothing"

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
    """Collect, in mode A, the worker itself: a grandchild that this process, as subreaper, inherits."""
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
