"""Values hidden inside text: test lists written as Python literals, and pickled, packed test cases.

The pickle loader admits text and nothing else: it resolves no class, so a file cannot run code here.
"""

import ast
import base64
import binascii
import io
import json
import pickle
import zlib
from typing import Any

from lib.tasks.extract import parsed
from lib.tasks.readers.files import Row
from lib.tasks.task import TaskError

MAX_UNPACKED = 1 << 30  # bytes of one row's test cases after unpacking; beyond it the row is refused
MAX_NESTING = 4  # how often a list may be wrapped in a string


def string_list(row: Row, column: str) -> list[str]:
    """Return a non-empty list of strings, given as a list or as its literal, wrapped in quotes any number of times.

    Raises TaskError when it is something else or empty.
    """
    value = row.values.get(column)
    for _ in range(MAX_NESTING):
        if isinstance(value, str):
            try:
                value = ast.literal_eval(value.strip())
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                break
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise row.wrong(column, "a list of strings")
    if not value:
        raise TaskError(f"{row.where}: column {column} is empty; a task needs at least one test")
    return list(value)


def assert_list(row: Row, column: str) -> list[str]:
    """Return `string_list`, each item one Python assert. Raises TaskError naming the first that is not."""
    tests = [test.strip() for test in string_list(row, column)]
    for test in tests:
        tree = parsed(test)
        if tree is None or [type(statement) for statement in tree.body] != [ast.Assert]:
            raise TaskError(f"{row.where}: column {column} holds {test!r:.80}; expected one Python assert")
    return tests


class _TextOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it asks for an outside object")


def packed_json(text: str, column: str, where: str) -> Any:
    """Return JSON ← pickled text ← zlib ← base64, as LiveCodeBench packs its private cases, or plain JSON.

    Raises TaskError for a pickle that holds or asks for anything but text, and for broken or oversized packing.
    """
    if not text.lstrip().startswith(("[", "{")):
        text = _unpacked(text, f"{where}: column {column}")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TaskError(f"{where}: column {column} is not JSON ({error})") from None


def _unpacked(text: str, what: str) -> str:
    try:
        inflate = zlib.decompressobj()
        raw = inflate.decompress(base64.b64decode(text, validate=True), MAX_UNPACKED)
        if inflate.unconsumed_tail or not inflate.eof:
            raise TaskError(f"{what} is cut off, or unpacks to more than {MAX_UNPACKED >> 20} MiB")
        value = _TextOnly(io.BytesIO(raw)).load()
    except pickle.UnpicklingError as error:
        raise TaskError(f"{what} is an unsafe pickle: {error}; only text is admitted") from None
    except (binascii.Error, zlib.error) as error:
        raise TaskError(f"{what} is neither JSON nor base64 of zlib data ({error})") from None
    except TaskError:
        raise
    except Exception as error:  # a malformed pickle can raise nearly anything
        raise TaskError(f"{what} is a broken pickle ({type(error).__name__}: {error})") from None
    if not isinstance(value, str):
        raise TaskError(f"{what} unpickles to {type(value).__name__}; only text is admitted")
    return value
