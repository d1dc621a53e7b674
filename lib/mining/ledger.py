"""The attempts file: one JSON object per line, only ever appended to, so a kill at any moment costs the rows in flight.

A row is written with one `write` under an advisory lock and synced before `append` returns. A line torn by a kill has
no newline at its end; it was never acknowledged, and the next append cuts it off. Readers skip it.

Nothing is renamed or rewritten. Where a file system has no locks or refuses to sync, as network drives do, rows are
written all the same; but without locks one process at a time may append, and without sync a lost machine may cost the
last rows (a killed process still costs none).

    Ledger("runs/cpu/attempts/mining.jsonl").table().to_pandas()      # a torn last line left out
    pandas.read_json("runs/cpu/attempts/mining.jsonl", lines=True)
    duckdb.sql("from 'runs/cpu/attempts/mining.jsonl'")
"""

import dataclasses
import datetime
import errno
import fcntl
import io
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.json

from lib.base.errors import WorkbookError
from lib.sandbox import Status


class LedgerError(WorkbookError):
    """A ledger that cannot be read or written; the message names file and line."""


Key = tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One program sampled for one task, and its verdict.

    `passed`/`total` count tests over both sets; `visible_ok` and `hidden_ok` say whether every test of the set passed
    (program tasks have no visible set: both then mean all cases). The last fields are empty in rows written before
    there were any: exit code, commands and first bytes of output as in the deciding verdict, GMPO's step, and `parent`.
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
    exit_code: int | None = None
    commands: tuple[str, ...] = ()
    stdout_head: str = ""
    stderr_head: str = ""
    step: int | None = None  # of the training that sampled it
    parent: str = ""  # prompt_hash of the attempt that this one repairs; task, seed and settings are the same

    @property
    def solved(self) -> bool:
        """The binary reward: every test passes."""
        return self.status == Status.SUCCESS

    @property
    def counts(self) -> bool:
        """Whether the attempt counts for or against its model: not where a test of its task cannot be run here."""
        return self.status != Status.UNSUPPORTED_TEST

    @property
    def key(self) -> Key:
        """What makes an attempt the same attempt: a rerun never repeats a key."""
        return tuple(getattr(self, name) for name in KEY)


# Who was asked what, how, and by which tests it was judged; the run's seed and the draw are in the draw's own seed.
KEY = (
    "task_id", "prompt_hash", "tests_hash", "model", "adapter", "temperature", "top_p", "max_new_tokens", "seed",
)  # fmt: skip
FIELDS = tuple(field.name for field in dataclasses.fields(Attempt))
_TYPES: dict[Any, Any] = {
    str: pyarrow.string(),
    int: pyarrow.int64(),
    float: pyarrow.float64(),
    float | None: pyarrow.float64(),
    int | None: pyarrow.int64(),
    bool: pyarrow.bool_(),
    tuple[str, ...]: pyarrow.list_(pyarrow.string()),
}
LATER = {field.name: field.default for field in dataclasses.fields(Attempt) if field.default is not dataclasses.MISSING}
SCHEMA = pyarrow.schema(
    [
        pyarrow.field(field.name, _TYPES[field.type], nullable=field.type == float | None or field.name in LATER)
        for field in dataclasses.fields(Attempt)
    ]
)
_BLOCKS = pyarrow.json.ReadOptions(block_size=1 << 24)  # bytes parsed at a time; no row may be longer
_EXACT = pyarrow.json.ParseOptions(explicit_schema=SCHEMA, unexpected_field_behavior="error")
_REFUSED = (errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)  # not offered by the file system


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
        text = "".join(json.dumps(dataclasses.asdict(attempt), ensure_ascii=False) + "\n" for attempt in attempts)
        if not text:
            return
        data = text.encode(errors="replace")  # a program may put half a surrogate pair into its error message
        try:
            with self.path.open("a+b") as file:
                _where_offered(lambda: fcntl.flock(file, fcntl.LOCK_EX))
                _cut_torn_line(file)
                _write_all(file.fileno(), data)
                _where_offered(lambda: os.fsync(file.fileno()))
        except OSError as error:
            raise LedgerError(
                f"{self.path}: cannot append ({error.strerror}); rows written before are intact"
            ) from None

    def __iter__(self) -> Iterator[Attempt]:
        """Every whole row, in the order written. Raises LedgerError on a line that is not an attempt."""
        for batch in self._batches():
            for *values, exit_code, commands, out, err, step, parent in zip(
                *(column.to_pylist() for column in batch.columns), strict=True
            ):
                yield Attempt(*[*values, exit_code, tuple(commands or ()), out or "", err or "", step, parent or ""])

    def keys(self) -> set[Key]:
        """The keys already present."""
        return {
            key
            for batch in self._batches()
            for key in zip(*(batch.column(name).to_pylist() for name in KEY), strict=True)
        }

    def table(self) -> pyarrow.Table:
        """Every whole row as columns. Raises LedgerError on a line that is not an attempt."""
        batches = list(self._batches())
        return pyarrow.Table.from_batches(batches) if batches else SCHEMA.empty_table()

    def _batches(self) -> Iterator[pyarrow.RecordBatch]:
        if not self.path.is_file():
            return
        with self.path.open("rb") as file:
            end = _end_of_rows(file)
        if end == 0:
            return
        rows = 0
        try:
            with pyarrow.OSFile(str(self.path)) as file:
                for batch in pyarrow.json.open_json(file.get_stream(0, end), _BLOCKS, _EXACT):
                    batch.validate(full=True)  # else a byte that is no UTF-8 shows only where it is used
                    yield batch
                    rows += len(batch)
        except pyarrow.ArrowInvalid as error:
            raise self._fault(rows, str(error)) from None

    def _fault(self, rows: int, reason: str) -> LedgerError:
        """The error that names the first bad line after `rows` good ones."""
        with self.path.open("rb") as lines:
            for number, line in itertools.islice(enumerate(lines, 1), rows, None):
                try:
                    pyarrow.json.read_json(io.BytesIO(line), _BLOCKS, _EXACT).validate(full=True)
                except pyarrow.ArrowInvalid as error:
                    where, reason = f"{self.path}:{number}", str(error)
                    break
            else:
                where = str(self.path)
        return LedgerError(f"{where}: not an attempt ({reason}); expected the fields {', '.join(FIELDS)}")


def _where_offered(call: Callable[[], None]) -> None:
    """Make a call that some file systems do not offer, and go on where it is refused as such."""
    try:
        call()
    except OSError as error:
        if error.errno not in _REFUSED:
            raise


def _cut_torn_line(file: Any) -> None:
    """Truncate to the last newline, if the file does not end in one."""
    end = _end_of_rows(file)
    if end < file.seek(0, os.SEEK_END):
        file.truncate(end)


def _end_of_rows(file: Any) -> int:
    """The position after the last newline; 0 without one."""
    position = file.seek(0, os.SEEK_END)
    while position > 0:
        start = max(0, position - 65536)
        file.seek(start)
        newline = file.read(position - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        position = start
    return 0


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
