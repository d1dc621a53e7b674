"""Rows out of files and Hugging Face data sets, one at a time, each with the place it came from.

Reads csv, JSON Lines (plain or .gz) and parquet row by row, JSON arrays as a whole, folders and Hub ids through
`datasets`. Text is strict UTF-8 with or without a byte order mark. Column names lose blanks and capitals.
"""

import contextlib
import csv
import gzip
import itertools
import json
import math
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from lib.tasks.task import TaskError

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")
PARQUET_BATCH = 64
FIELD_LIMIT = 1 << 30  # one csv field; the csv module's own default of 128 KiB is below real test cases


class Row(NamedTuple):
    """One row: its columns, where it stands ("file:line" or "file: row N"), and its 1-based number."""

    values: dict[str, Any]
    where: str
    number: int

    def has(self, column: str) -> bool:
        """Return whether a column is there and holds something: neither nothing, "" nor NaN."""
        value = self.values.get(column)
        return value not in (None, "") and value == value

    def wrong(self, column: str, wanted: str) -> TaskError:
        """Return the error that names row, column, value and what would be right."""
        if column not in self.values:
            return TaskError(f"{self.where}: column {column} is missing; it should hold {wanted}")
        return TaskError(f"{self.where}: column {column} is {self.values[column]!r:.80}; it should be {wanted}")

    def text(self, *columns: str, default: str | None = None) -> str:
        """Return the text of the first of these columns that holds something, LF for line ends; else `default`.

        Raises TaskError when the column holds anything but text, or when none does and there is no default.
        """
        there = [column for column in columns if self.has(column)] or [name for name in columns if name in self.values]
        column = (there or columns)[0]
        value = self.values.get(column)
        if not self.has(column) and (default is not None or value == ""):
            return default or ""
        if not isinstance(value, str):
            raise self.wrong(column, "text")
        return value.replace("\r\n", "\n").replace("\r", "\n")

    def id(self, column: str) -> str:
        """Return an id as text. Raises TaskError when it is neither text nor a whole number, or empty."""
        value = self.values.get(column)
        if isinstance(value, float) and value.is_integer():  # what a table makes of whole numbers beside a gap
            value = int(value)
        if (
            not self.has(column)
            or isinstance(value, bool)
            or not isinstance(value, str | int)
            or not str(value).strip()
        ):
            raise (
                self.wrong(column, "an id, text or a whole number")
                if self.has(column)
                else TaskError(f"{self.where}: the id is empty; column {column} should hold text or a whole number")
            )
        return str(value)

    def number_above_0(self, column: str, default: float) -> float:
        """Return a number. Raises TaskError when the column holds anything else."""
        if not self.has(column):
            return default
        try:
            value = float(self.values[column])
        except (TypeError, ValueError):
            value = math.nan
        if not 0 < value < math.inf:
            raise self.wrong(column, "a number above 0")
        return value


def rows(source: str, split: str | None = None) -> Iterator[Row]:
    """Return every row of a file, a folder `datasets` can load, or a Hub id ("owner/name" or "owner/name:config").

    Raises TaskError naming file and row for anything that cannot be read, and for a source that is neither.
    """
    path = Path(source)
    if path.is_file():
        suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
        kind = suffixes[-1] if suffixes else ""
        readers = {".parquet": _parquet_rows} | dict.fromkeys((".csv", ".tsv"), _csv_rows)
        readers |= dict.fromkeys((".jsonl", ".json", ".ndjson"), _json_rows)
        if kind not in readers:
            raise TaskError(f"{path}: unknown kind of file; {', '.join(sorted(readers))} are read, text also as .gz")
        return readers[kind](path)
    if path.is_dir() or HUB_ID.fullmatch(source):
        return _dataset_rows(source, split)
    raise TaskError(f"{source}: no such file, and not a Hugging Face id of the form owner/name")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file; errors of reading and unpacking are TaskErrors."""
    try:
        with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb") as stream:
            yield stream  # type: ignore[misc]
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise TaskError(f"{path}: broken gzip ({error})") from None
    except OSError as error:
        raise TaskError(f"{path}: cannot be read ({error.strerror or error})") from None


def _lines(path: Path) -> Iterator[str]:
    """Yield decoded lines with their ends; only a line feed ends one, so text may hold any other separator."""
    number = 0
    try:
        with _opened(path) as stream:
            for number, line in enumerate(stream, 1):
                if number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
                    raise TaskError(f"{path}:1: UTF-16 text; save the file as UTF-8")
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        wrong = f"byte 0x{error.object[error.start]:02x}"
        raise TaskError(f"{path}:{number}: not UTF-8 ({wrong}); save the file as UTF-8") from None


def _named(names: list[str], values: list[Any] | tuple[Any, ...], where: str) -> dict[str, Any]:
    """Return a row with its columns' names in small letters and without blanks; a column without a name is left out."""
    plain = [str(name).strip().lower() for name in names]
    twice = sorted({name for name in plain if name and plain.count(name) > 1})
    if twice:
        raise TaskError(f"{where}: a column name appears twice: {', '.join(twice)}")
    return {name: value for name, value in zip(plain, values, strict=True) if name}


def _csv_rows(path: Path) -> Iterator[Row]:
    csv.field_size_limit(FIELD_LIMIT)
    lines = _lines(path)
    first = next(lines, "")
    separator = next((mark for mark in ",;\t" if mark in first), ",")
    reader = csv.reader(itertools.chain([first] * bool(first), lines), strict=True, delimiter=separator)
    header: list[str] = []
    number, line = 0, 1
    try:
        for record in reader:
            where = f"{path}: row {number} (line {line})"
            if not header:
                header = record
                _named(header, header, f"{path}:1")
            elif not any(record):
                number -= 1
            elif len(record) != len(header):
                raise TaskError(
                    f"{where}: {len(record)} fields, but the header has {len(header)} ({', '.join(header)})"
                )
            else:
                yield Row(_named(header, record, where), where, number)
            number, line = number + 1, reader.line_num + 1
    except csv.Error as error:
        raise TaskError(f"{path}: row {number} (line {line}): broken csv quoting ({error})") from None
    if not header:
        raise TaskError(f"{path}: empty file; a csv starts with a header row")


def _json_rows(path: Path) -> Iterator[Row]:
    """Yield the objects of JSON Lines, of an array, or of an object whose only list holds them."""
    lines = _lines(path)
    start, first = next(((number, line) for number, line in enumerate(lines, 1) if line.strip()), (0, ""))
    if not first:
        raise TaskError(f"{path}: empty file")
    if first.lstrip().startswith("[") or (first.lstrip()[0] == "{" and not first.rstrip().endswith(("}", "},"))):
        value = _decoded("\n" * (start - 1) + "".join([first, *lines]), path, 0)
        if isinstance(value, dict):
            lists = [
                items for items in value.values() if isinstance(items, list) and isinstance((items or [0])[0], dict)
            ]
            value = lists[0] if len(lists) == 1 else [value]
        for number, item in enumerate(value, 1):
            yield _object(item, f"{path}: row {number}", number)
        return
    for number, line in enumerate(itertools.chain([first], lines), start):
        if line.strip():
            yield _object(_decoded(line.rstrip().removesuffix(","), path, number), f"{path}:{number}", number)


def _decoded(text: str, path: Path, line: int) -> Any:
    """Return JSON with nothing for NaN and infinity; `line` is the line it stands on, 0 for a whole file."""
    try:
        return json.loads(text, parse_constant=lambda name: None)
    except (ValueError, RecursionError) as error:
        where = f"{path}:{line or getattr(error, 'lineno', 1)}"
        wanted = "one JSON object a line is expected" if line else "one whole JSON array is expected"
        raise TaskError(f"{where}: not JSON ({error}); {wanted}") from None


def _object(value: Any, where: str, number: int) -> Row:
    if not isinstance(value, dict):
        raise TaskError(f"{where}: expected a JSON object, got {type(value).__name__}")
    return Row(_named(list(value), list(value.values()), where), where, number)


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            for batch in table.iter_batches(batch_size=PARQUET_BATCH):
                for values in batch.to_pylist():
                    number += 1
                    yield _object(values, f"{path}: row {number}", number)
    except (pyarrow.ArrowException, OSError) as error:
        raise TaskError(f"{path}: broken parquet after row {number} ({str(error).splitlines()[0]})") from None


def _dataset_rows(source: str, split: str | None) -> Iterator[Row]:
    import datasets

    name, _, config = (source, "", "") if Path(source).is_dir() else source.partition(":")
    try:
        loaded = datasets.load_dataset(name, config or None)
    except Exception as error:  # the loader raises its own, the network's and the file system's kinds
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise TaskError(
            f"{source}: cannot be loaded ({reason[0]}); without a network, download it and name the file"
        ) from None
    chosen = split or (next(iter(loaded)) if len(loaded) == 1 else None)
    if chosen not in loaded:
        raise TaskError(f"{source}: split is {split!r}; this data set has {', '.join(loaded)}")
    for number, values in enumerate(loaded[chosen], 1):
        yield _object(dict(values), f"{source}[{chosen}]: row {number}", number)
