"""What the sandbox says about one program."""

import dataclasses
from typing import Any

STATUSES = (
    "success",
    "wrong-output",
    "runtime-error",
    "compile-error",
    "timeout",
    "memory",
    "output-limit",
    "no-code",
    "sandbox-error",
)
HEAD_BYTES = 2000  # how much of stdout and stderr a verdict keeps


class SandboxError(RuntimeError):
    """The sandbox itself cannot do what was asked: no confinement here, a missing toolchain, a test that is no test."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One program's outcome. `sandbox-error` is ours, not the program's: never count it as a failure."""

    status: str
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

    @property
    def reward(self) -> float:
        """1.0 iff every test passed."""
        return 1.0 if self.status == "success" else 0.0

    @property
    def fraction(self) -> float:
        """passed / total, 0 when there was nothing to pass."""
        return self.passed / self.total if self.total else 0.0

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> "Verdict":
        """A Verdict from the JSON object a grader sends."""
        return cls(**{**row, "commands": tuple(row.get("commands", ()))})


def head(raw: bytes) -> str:
    """The first bytes of an output as text; what is not UTF-8 becomes U+FFFD."""
    return raw[:HEAD_BYTES].decode("utf-8", "replace")


def one_line(text: str, limit: int = 300) -> str:
    """`text` on one line, cut to `limit` characters."""
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"
