"""The attempts file: one JSON object a line, only ever appended to, so a kill at any moment costs the rows in flight.

A row is written with one `write` under an advisory lock and synced before `append` returns. A line torn by a kill has no
newline at its end; it was never acknowledged, and the next append cuts it off. Readers skip it.

    pandas.read_json("runs/cpu/attempts/mining.jsonl", lines=True)
"""

import dataclasses
import datetime
import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


class LedgerError(RuntimeError):
    """A ledger that cannot be read or written; the message names file and line."""


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One program drawn for one task, and what became of it.

    `passed`/`total` count tests over both sets; `visible_ok` and `hidden_ok` say whether every test of the set passed
    (program tasks have no visible set: both then mean all cases).
    """

    run_id: str
    task_id: str
    draw: int
    seed: int
    model: str
    adapter: str
    sampler: str
    temperature: float
    top_p: float
    max_new_tokens: int
    prompt_hash: str
    tests_hash: str
    completion: str
    program: str
    finished: bool
    n_tokens: int
    logprob_sum: float | None
    status: str
    passed: int
    total: int
    visible_ok: bool
    hidden_ok: bool
    failure: str
    cpu_s: float
    wall_s: float
    peak_rss_mb: float
    sandbox_mode: str
    created_at: str

    @property
    def solved(self) -> bool:
        """The binary reward: every test passes."""
        return self.status == "success"

    @property
    def key(self) -> tuple[Any, ...]:
        """What makes an attempt the same attempt: a rerun never repeats a key."""
        return tuple(getattr(self, name) for name in KEY)


# Who was asked what, how, and by which tests it was judged; the run's seed and the draw are in the draw's own seed.
KEY = (
    "task_id", "prompt_hash", "tests_hash", "model", "adapter", "temperature", "top_p", "max_new_tokens", "seed",
)  # fmt: skip
FIELDS = tuple(field.name for field in dataclasses.fields(Attempt))


def now() -> str:
    """The time in UTC, to the second, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


class Ledger:
    """An append-only file of attempts; several processes may append to one file."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def append(self, attempts: Iterable[Attempt]) -> None:
        """Add attempts for good. Raises LedgerError when the disk refuses."""
        text = "".join(
            json.dumps(dataclasses.asdict(attempt), ensure_ascii=False) + "\n" for attempt in attempts
        )
        if not text:
            return
        try:
            with self.path.open("a+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                _cut_torn_line(file)
                _write_all(file.fileno(), text.encode())
                os.fsync(file.fileno())
        except OSError as error:
            raise LedgerError(
                f"{self.path}: cannot append ({error.strerror}); rows written before are intact"
            ) from None

    def __iter__(self) -> Iterator[Attempt]:
        """Every whole row, in the order written. Raises LedgerError on a line that is not an attempt."""
        if not self.path.is_file():
            return
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.endswith(b"\n"):
                    yield _parse(line, f"{self.path}:{number}")

    def keys(self) -> set[tuple[Any, ...]]:
        """The keys already present."""
        return {attempt.key for attempt in self}


def _cut_torn_line(file: Any) -> None:
    """Truncate to the last newline, if the file does not end in one."""
    end = file.seek(0, os.SEEK_END)
    position = end
    while position > 0:
        start = max(0, position - 65536)
        file.seek(start)
        block = file.read(position - start)
        newline = block.rfind(b"\n")
        if newline >= 0:
            position = start + newline + 1
            break
        position = start
    if position < end:
        file.truncate(position)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _parse(line: bytes, where: str) -> Attempt:
    try:
        return Attempt(**json.loads(line))
    except (ValueError, TypeError) as error:
        raise LedgerError(
            f"{where}: not an attempt ({error}); expected the fields {', '.join(FIELDS)}"
        ) from None
