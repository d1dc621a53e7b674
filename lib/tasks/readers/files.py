"""Rows out of files and Hugging Face data sets, one at a time, each with the place it came from.

Reads csv, JSON Lines and JSON arrays (plain or .gz), parquet, folders and Hub ids. Text is strict UTF-8 with
or without a byte order mark. Nothing here holds more than one row, one parquet batch or one JSON object at a
time.
"""

import codecs
import contextlib
import csv
import gzip
import itertools
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from lib.tasks.task import TaskError

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")
CHUNK = 1 << 16
PARQUET_BATCH = 64
_SEPARATORS = re.compile(r"[\s,]*")
FIELD_LIMIT = 1 << 30  # one csv field; the csv module's own default of 128 KiB is below real test cases


class Row(NamedTuple):
    """One row: its columns, where it stands ("file:line" or "file: row N"), and its 1-based number."""

    values: dict[str, Any]
    where: str
    number: int


def rows(source: str, split: str | None = None) -> Iterator[Row]:
    """Every row of a file, a folder `datasets` can load, or a Hub id ("owner/name" or "owner/name:config").

    Raises TaskError naming file and row for anything that cannot be read, and for a source that is neither.
    """
    path = Path(source)
    if path.is_file():
        return _file_rows(path)
    if path.is_dir() or HUB_ID.fullmatch(source):
        return _dataset_rows(source, split)
    raise TaskError(f"{source}: no such file, and not a Hugging Face id of the form owner/name")


def _file_rows(path: Path) -> Iterator[Row]:
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    kind = suffixes[-1] if suffixes else ""
    if kind == ".csv":
        return _csv_rows(path)
    if kind in (".jsonl", ".json", ".ndjson"):
        return _json_rows(path)
    if kind == ".parquet":
        return _parquet_rows(path)
    raise TaskError(f"{path}: unknown kind of file; .csv, .jsonl, .json (each also .gz) and .parquet are read")


def _open_bytes(path: Path) -> IO[bytes]:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rb")  # type: ignore[return-value]
    return path.open("rb")


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors of reading and unpacking as TaskError."""
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise TaskError(f"{path}: broken gzip ({error})") from None
    except OSError as error:
        raise TaskError(f"{path}: cannot be read ({error.strerror or error})") from None


def _lines(path: Path) -> Iterator[str]:
    """Decoded lines with their ends; only a line feed ends one, so text may hold any other separator."""
    number = 0
    try:
        with _named(path), _open_bytes(path) as stream:
            for number, line in enumerate(stream, 1):
                yield (_without_mark(line, path) if number == 1 else line).decode("utf-8")
    except UnicodeDecodeError as error:
        raise TaskError(f"{path}:{number}: {_not_utf8(error)}") from None


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"not UTF-8 (byte 0x{error.object[error.start]:02x}); save the file as UTF-8"


def _without_mark(line: bytes, path: Path) -> bytes:
    if line.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise TaskError(f"{path}:1: UTF-16 text; save the file as UTF-8")
    return line.removeprefix(b"\xef\xbb\xbf")


def _csv_rows(path: Path) -> Iterator[Row]:
    csv.field_size_limit(FIELD_LIMIT)
    lines = _lines(path)
    first = next(lines, "")
    separator = next((mark for mark in ",;\t" if mark in first), ",")
    reader = csv.reader(itertools.chain([first] * bool(first), lines), strict=True, delimiter=separator)
    header: list[str] | None = None
    number, line = 0, 1
    try:
        for record in reader:
            where = f"{path}: row {number} (line {line})"
            if header is None:
                header = _checked_header(record, path)
            elif record:
                _check_width(record, header, where)
                yield Row(dict(zip(header, record, strict=True)), where, number)
            else:
                number -= 1
            number, line = number + 1, reader.line_num + 1
    except csv.Error as error:
        raise TaskError(f"{path}: row {number} (line {line}): broken csv quoting ({error})") from None
    if header is None:
        raise TaskError(f"{path}: empty file; a csv starts with a header row")


def _checked_header(record: list[str], path: Path) -> list[str]:
    if len(set(record)) != len(record):
        raise TaskError(f"{path}:1: a column name appears twice in {', '.join(record)}")
    return record


def _check_width(record: list[str], header: list[str], where: str) -> None:
    if len(record) != len(header):
        raise TaskError(f"{where}: {len(record)} fields, but the header has {len(header)} ({', '.join(header)})")


def _json_rows(path: Path) -> Iterator[Row]:
    first = next((block.lstrip() for block in _blocks(path) if block.strip()), "")
    if not first:
        raise TaskError(f"{path}: empty file")
    return _array_rows(path) if first.startswith("[") else _json_lines(path)


def _json_lines(path: Path) -> Iterator[Row]:
    for number, line in enumerate(_lines(path), 1):
        if line.strip():
            where = f"{path}:{number}"
            try:
                value = json.loads(line.rstrip().removesuffix(","), parse_constant=lambda name: None)
            except (ValueError, RecursionError) as error:
                raise TaskError(f"{where}: not JSON ({error}); one JSON object a line is expected") from None
            yield Row(_object(value, where), where, number)


def _array_rows(path: Path) -> Iterator[Row]:
    """Objects of one JSON array, decoded one by one from a buffer that is refilled when an object runs
    past its end.
    """
    blocks = _blocks(path)
    decoder, buffer, at, number = json.JSONDecoder(parse_constant=lambda name: None), next(blocks).lstrip(), 1, 0
    while True:
        at = _SEPARATORS.match(buffer, at).end()  # type: ignore[union-attr]
        if buffer.startswith("]", at):
            return
        where = f"{path}: row {number + 1}"
        try:
            value, end = decoder.raw_decode(buffer, at)
        except (ValueError, RecursionError) as error:
            wanted = 1 + (len(buffer) - at) // CHUNK  # doubling, so a long object is scanned a few times only
            more = "".join(itertools.islice(blocks, wanted))
            if not more:
                raise TaskError(f"{where}: not JSON, or the array is cut off ({error})") from None
            buffer, at = buffer[at:] + more, 0
            continue
        yield Row(_object(value, where), where, number + 1)
        number, at = number + 1, end


def _blocks(path: Path) -> Iterator[str]:
    """Decoded text in blocks of about CHUNK bytes, whatever the length of its lines."""
    decoder, line = codecs.getincrementaldecoder("utf-8-sig")(), 1
    try:
        with _named(path), _open_bytes(path) as stream:
            while block := stream.read(CHUNK):
                yield decoder.decode(block)
                line += block.count(b"\n")
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        line += error.object[: error.start].count(b"\n")
        raise TaskError(f"{path}:{line}: {_not_utf8(error)}") from None


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TaskError(f"{where}: expected a JSON object, got {type(value).__name__}")
    return value


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            for batch in table.iter_batches(batch_size=PARQUET_BATCH):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(values, f"{path}: row {number}", number)
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
        yield Row(dict(values), f"{source}[{chosen}]: row {number}", number)
