"""What the sandbox says about one program."""

import dataclasses
import enum
from typing import Any

from lib.base.errors import WorkbookError

HEAD_BYTES = 2000  # how much of stdout and stderr a verdict keeps


class Status(enum.StrEnum):
    """How a program ended. The last two say nothing about the program and count neither for nor against it."""

    SUCCESS = "success"
    WRONG_OUTPUT = "wrong-output"
    RUNTIME_ERROR = "runtime-error"
    COMPILE_ERROR = "compile-error"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    OUTPUT_LIMIT = "output-limit"
    NO_CODE = "no-code"
    UNSUPPORTED_TEST = (
        "unsupported-test"  # the test asks for what cannot be judged outside the program's process, or is no test
    )
    SANDBOX_ERROR = "sandbox-error"  # the sandbox itself failed: a missing toolchain


STATUSES = tuple(Status)


class SandboxError(WorkbookError):
    """The sandbox cannot do what was asked: no confinement here, a missing toolchain, a test that is no test."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The outcome of one program."""

    status: Status
    passed: int
    total: int
    cpu_s: float = 0.0
    wall_s: float = 0.0
    peak_rss_mb: float = 0.0
    exit_code: int | None = None  # negative: the signal that ended the process; None: it was still alive when judged
    commands: tuple[str, ...] = ()
    stdout_head: str = ""
    stderr_head: str = ""
    failure: str = ""  # one line of evidence for the first failure
    sandbox_mode: str = ""
    confined: bool = True
    in_process: bool = False  # the tests ran inside the program's process, which decided what they say
    compare: str = ""  # how outputs were compared: exact, lines or tokens; empty for function tasks

    @property
    def reward(self) -> float:
        """1.0 iff every test passed, and not by the program's own word."""
        return 1.0 if self.status == Status.SUCCESS and not self.in_process else 0.0

    @property
    def fraction(self) -> float:
        """passed / total, 0 when there was nothing to pass."""
        return self.passed / self.total if self.total else 0.0

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> "Verdict":
        """A Verdict from the JSON object a grader sends."""
        return cls(**{**row, "status": Status(row["status"]), "commands": tuple(row.get("commands", ()))})


def head(raw: bytes) -> str:
    """The first bytes of an output as text; what is not UTF-8 becomes U+FFFD."""
    return raw[:HEAD_BYTES].decode("utf-8", "replace")


def one_line(text: str, limit: int = 300) -> str:
    """Return `text` on one line of printable characters, cut to `limit` of them."""
    flat = " ".join(text[: 20 * limit].split())
    shown = "".join(character if character.isprintable() else "\ufffd" for character in flat)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"
