"""Runs one notebook in a kernel of this Python and tells its failures."""

import contextlib
import logging
import os
import re
import signal
import sys
import threading
from pathlib import Path
from typing import Any, ClassVar

from lib.base.files import read_json
from lib.run.presets import ROOT, PipelineError, Say, Values, short

# The kernel asks Linux to be killed when its parent ends, however it ends: an orphan would go on writing results.
_KERNEL = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)
if os.getppid() != int(os.environ.get("JPY_PARENT_PID", os.getppid())):
    sys.exit(1)
os.environ["WORKBOOK_BATCH"] = "1"  # progress as plain lines
from ipykernel import kernelapp
kernelapp.launch_new_instance()
"""


class _Relay:
    """Passes a notebook's output on line by line: all of it, or those that say how far it is ("12/40 …")."""

    def __init__(self, stage: str, say: Say, verbose: bool) -> None:
        self.stage, self.say, self.verbose, self.held = stage, say, verbose, ""

    def write(self, text: str) -> None:
        """Take some output; whole lines are passed on."""
        *lines, self.held = (self.held + text).split("\n")
        for line in lines:
            if self.verbose or re.match(r"(\w+ )?\d+/\d+ ", line):
                self.say(f"{self.stage}   {line}")

    def flush(self) -> None:
        """Nothing is held back but an unfinished line."""


def execute(stage: str, notebook: Path, run_dir: Path, values: Values, say: Say = print, verbose: bool = False) -> None:
    """Run a notebook in a kernel of this Python at the repository root; its executed copy is saved as it goes.

    Raises PipelineError for a failing cell or a dead kernel. On Ctrl-C the kernel is killed first.
    """
    import papermill

    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # errors are told below, once
    executed = run_dir / "notebooks" / notebook.name
    executed.parent.mkdir(exist_ok=True)
    kernel, failures = _kernel_class(), []

    def work() -> None:
        try:
            papermill.execute_notebook(
                notebook,
                executed,
                values,
                kernel_name="python3",
                language="python",
                progress_bar=False,
                cwd=ROOT,
                kernel_manager_class=kernel,
                stdout_file=_Relay(stage, say, verbose),
                stderr_file=_Relay(stage, say, verbose),
            )
        except BaseException as error:
            failures.append(error)

    # A thread of its own: on the main one, the notebook client would swallow Ctrl-C.
    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    try:
        worker.join()
    except KeyboardInterrupt:
        kernel.kill_all()
        worker.join(5)
        raise
    if failures:
        raise _explained(stage, executed, failures[0]) from None


def _kernel_class() -> Any:
    import zmq
    from jupyter_client.manager import AsyncKernelManager
    from traitlets import default

    class Kernel(AsyncKernelManager):
        """A kernel of this very interpreter, whatever kernels are installed on the machine."""

        started: ClassVar[list[AsyncKernelManager]] = []

        @default("transport_encryption")
        def _encrypted(self) -> str:
            return "auto" if zmq.has("curve") else "disabled"

        def format_kernel_cmd(self, extra_arguments: list[str] | None = None) -> list[str]:
            self.started.append(self)
            return [
                sys.executable,
                "-c",
                _KERNEL,
                "-f",
                os.path.realpath(self.connection_file),
                "--IPKernelApp.log_level=50",  # it logs the interrupt that every shutdown begins with
                *(extra_arguments or []),
            ]

        @classmethod
        def kill_all(cls) -> None:
            """Kill the kernels and what they started."""
            for manager in cls.started:
                pid = getattr(manager.provisioner, "pid", None)
                if pid:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(pid, signal.SIGKILL)

    return Kernel


def _explained(stage: str, executed: Path, error: BaseException) -> BaseException:
    """A PipelineError with the cell, its first lines, the error and the notebook; other errors as they are."""
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    if isinstance(error, PapermillExecutionError):
        number, source, said = error.exec_count, error.source, f"{error.ename}: {error.evalue}".strip()
    elif isinstance(error, DeadKernelError):
        number, source = _last_cell(executed)
        said = "the kernel died; when memory ran out, the preset's batch sizes are the place to save"
    elif isinstance(error, OSError):
        return PipelineError(f"{stage} stopped: {error.strerror or error}, in {short(executed.parent.parent)}")
    else:
        return error
    head = source.strip().splitlines()[:5]
    lines = [
        f"{stage} failed in cell In [{number}]",
        *(f"    {line}" for line in head),
        *(f"  {line}" for line in said.splitlines()[:20]),
        f"  executed notebook: {short(executed)}",
    ]
    return PipelineError("\n".join(lines))


def _last_cell(executed: Path) -> tuple[int, str]:
    """Number and source of the last code cell that was started when a notebook was saved."""
    code = [cell for cell in read_json(executed).get("cells", []) if cell["cell_type"] == "code"]
    states = [cell["metadata"].get("papermill", {}).get("status") for cell in code]
    number = max((n for n, state in enumerate(states, 1) if state in ("running", "completed")), default=0)
    return number, "".join(code[number - 1]["source"]) if number else ""
