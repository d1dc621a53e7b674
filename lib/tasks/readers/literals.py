"""Values hidden inside text: test lists written as Python literals, and pickled, packed test cases.

The pickle loader admits text and nothing else: it resolves no class, so a file cannot run code here.
"""

import ast
import base64
import binascii
import io
import json
import pickle
import warnings
import zlib
from typing import Any

from lib.tasks.task import TaskError

MAX_UNPACKED = 1 << 30  # bytes of one row's test cases after unpacking; beyond it the row is refused
MAX_NESTING = 4  # how often a list may be wrapped in a string


def string_list(value: Any, column: str, where: str) -> list[str]:
    """A non-empty list of strings, given as a list or as its literal, wrapped in quotes any number of times.

    Raises TaskError when it is something else or empty.
    """
    for _ in range(MAX_NESTING):
        if not isinstance(value, str):
            break
        try:
            value = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            raise TaskError(f"{where}: {column} is {value!r:.80}; expected a list of strings") from None
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
        raise TaskError(f"{where}: {column} is {value!r:.80}; expected a list of strings")
    if not value:
        raise TaskError(f"{where}: {column} is empty; a task needs at least one test")
    return list(value)


def parsed(source: str) -> ast.Module:
    """The syntax tree of a corpus's Python; what Python would warn its author about is not printed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(source)


def assert_list(value: Any, column: str, where: str) -> list[str]:
    """`string_list`, each item one Python assert. Raises TaskError naming the first that is not."""
    tests = [test.strip() for test in string_list(value, column, where)]
    for test in tests:
        try:
            body = parsed(test).body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            body = []
        if len(body) != 1 or not isinstance(body[0], ast.Assert):
            raise TaskError(f"{where}: {column} holds {test!r:.80}; expected one Python assert")
    return tests


class _TextOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it asks for an outside object")


def packed_json(text: str, column: str, where: str) -> Any:
    """JSON ← pickled text ← zlib ← base64, as LiveCodeBench packs its private cases; plain JSON is read as it
    is.

    Raises TaskError for a pickle that holds or asks for anything but text, and for broken or oversized
    packing.
    """
    if text.lstrip().startswith(("[", "{")):
        return plain_json(text, column, where)
    try:
        inflate = zlib.decompressobj()
        raw = inflate.decompress(base64.b64decode(text, validate=True), MAX_UNPACKED)
        if inflate.unconsumed_tail or not inflate.eof:
            raise TaskError(f"{where}: {column} is cut off, or unpacks to more than {MAX_UNPACKED >> 20} MiB")
        value = _TextOnly(io.BytesIO(raw)).load()
    except pickle.UnpicklingError as error:
        raise TaskError(f"{where}: {column} is an unsafe pickle: {error}; only text is admitted") from None
    except (binascii.Error, zlib.error) as error:
        raise TaskError(f"{where}: {column} is not base64 of zlib data ({error})") from None
    except TaskError:
        raise
    except Exception as error:  # a malformed pickle can raise nearly anything
        raise TaskError(f"{where}: {column} is a broken pickle ({type(error).__name__}: {error})") from None
    if not isinstance(value, str):
        raise TaskError(f"{where}: {column} unpickles to {type(value).__name__}; only text is admitted")
    return plain_json(value, column, where)


def plain_json(text: str, column: str, where: str) -> Any:
    """Decoded JSON. Raises TaskError naming the column."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TaskError(f"{where}: {column} is not JSON ({error})") from None
