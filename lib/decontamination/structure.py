"""Programs as sets of subtree shingles: what stays the same when names, literals, comments and order change.

A shingle is one node of the syntax tree with its children and grandchildren, by kind alone; the k-th
occurrence of a shingle is a shingle of its own, so repetition counts. Python is parsed by `ast`, the others
by tree-sitter grammars.
"""

import ast
import functools
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import xxhash

from lib.decontamination.shingles import HASH_BITS, Grams, Sets

LANGUAGES = ("python", "lua", "ocaml", "r", "fortran", "julia")
_PUNCTUATION = frozenset("()[]{},;:.")
_SKIPPED_FIELDS = frozenset({"ctx", "type_comment", "type_ignores", "kind", "decorator_list", "returns", "annotation"})


def structure_sets(programs: Sequence[tuple[str, str]]) -> Sets:
    """The subtree shingles of each (language, program); none for a language without a parser or code that
    won't parse.
    """
    hashes: list[int] = []
    rows: list[int] = []
    for row, (language, code) in enumerate(programs):
        for label, times in Counter(subtrees(code, language)).items():
            hashes += [xxhash.xxh3_64_intdigest(f"{language}:{label}#{k}".encode()) for k in range(times)]
            rows += [row] * times
    words = np.array(hashes, dtype=np.uint64) >> np.uint64(64 - int(HASH_BITS))
    return Grams(words, np.array(rows, dtype=np.int64), len(programs)).distinct()


def subtrees(code: str, language: str) -> list[str]:
    """A label for every inner node but the root."""
    if language == "python":
        return _python_subtrees(code)
    if language not in LANGUAGES:
        return []
    root = _parser(language).parse(code.encode("utf-8", "surrogatepass")).root_node
    labels: list[str] = []
    for child in _grammar_children(root):
        _label(child, labels)
    return labels


def _python_subtrees(code: str) -> list[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    labels: list[str] = []
    for statement in module.body:
        _python_label(statement, labels)
    return labels


def _python_label(node: ast.AST, labels: list[str]) -> tuple[str, str]:
    """(kind, kind with children's kinds) of a node; appends the labels of depth 3 of it and all below."""
    below = [_python_label(child, labels) for child in _python_children(node)]
    return _close(type(node).__name__, below, labels)


def _python_children(node: ast.AST) -> Iterator[ast.AST]:
    for name, value in ast.iter_fields(node):
        if name in _SKIPPED_FIELDS:
            continue
        if isinstance(value, ast.AST):
            yield value
        elif isinstance(value, list):
            yield from (item for item in value if isinstance(item, ast.AST) and not _is_docstring(item))


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _label(node: Any, labels: list[str]) -> tuple[str, str]:
    below = [_label(child, labels) for child in _grammar_children(node)]
    return _close(node.type, below, labels)


def _grammar_children(node: Any) -> list[Any]:
    return [child for child in node.children if child.type not in _PUNCTUATION and "comment" not in child.type]


def _close(kind: str, below: list[tuple[str, str]], labels: list[str]) -> tuple[str, str]:
    if not below:
        return kind, kind
    if any(wide != narrow for narrow, wide in below) or len(below) > 1:
        labels.append(f"{kind}({','.join(wide for _, wide in below)})")
    return kind, f"{kind}({','.join(narrow for narrow, _ in below)})"


@functools.cache
def _parser(language: str) -> Any:
    from tree_sitter_language_pack import get_parser

    return get_parser(language)  # type: ignore[arg-type]
