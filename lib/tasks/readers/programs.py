"""Corpora of whole programs judged by stdin and stdout: LiveCodeBench, the Agnostics sets,
open-r1/codeforces.
"""

import json
from collections.abc import Iterable
from typing import Any

from lib.tasks.readers.asserts import Converter, Origin, natural_language
from lib.tasks.readers.files import Row
from lib.tasks.readers.humaneval import language_name
from lib.tasks.readers.literals import packed_json, plain_json
from lib.tasks.task import TaskError

# Names that LiveCodeBench's stubs use without importing them.
IMPORTS = """import bisect, collections, copy, datetime, functools, heapq, itertools, math, \
operator, random, re, string, sys
from bisect import bisect_left, bisect_right, insort
from collections import Counter, OrderedDict, defaultdict, deque
from functools import cache, cmp_to_key, lru_cache, reduce
from heapq import heapify, heappop, heappush, heappushpop, heapreplace, nlargest, nsmallest
from itertools import accumulate, chain, combinations, count, cycle, groupby, pairwise, permutations, product
from math import ceil, comb, factorial, floor, gcd, inf, isqrt, lcm, log, log2, perm, prod, sqrt
from string import ascii_letters, ascii_lowercase, ascii_uppercase, digits
from typing import Any, Callable, Dict, Generator, Iterable, Iterator, List, Optional, Sequence, Set, Tuple, Union
"""
# A tuple equals a list of the same content, a float is compared with tolerance.
SAME = """
def same_value(got, expected):
    if isinstance(expected, (list, tuple)):
        return isinstance(got, (list, tuple)) and len(got) == len(expected) and all(map(same_value, got, expected))
    if isinstance(expected, float):
        return isinstance(got, (int, float)) and abs(got - expected) <= 1e-6 * max(1, abs(expected))
    return got == expected
"""


def livecodebench(origin: Origin) -> Converter:
    """code_generation_lite rows: public cases first, private ones after.

    Cases of type "functional" call a method of `Solution` and become asserts, public ones visible; their
    input holds one JSON value a line.
    """

    def convert(row: Row) -> dict[str, Any]:
        values = row.values
        public = _maybe_packed(values["public_test_cases"], "public_test_cases", row.where)
        private = _maybe_packed(values["private_test_cases"], "private_test_cases", row.where)
        starter = values.get("starter_code") or ""
        prompt = f"{values['question_content']}\n\n{starter}" if starter else values["question_content"]
        base = _program(values["question_id"], "livecodebench", "test", prompt, "python")
        if not any(case.get("testtype") == "functional" for case in public + private):
            return {**base, "cases": _cases(public + private, row.where)}
        metadata = values.get("metadata") or "{}"
        method = (plain_json(metadata, "metadata", row.where) if isinstance(metadata, str) else metadata).get(
            "func_name"
        )
        if not method:
            raise TaskError(f"{row.where}: functional cases, but metadata names no func_name")
        return {
            **base,
            "mode": "function",
            "compare": "exact",
            "entry_point": "Solution",
            "setup_code": IMPORTS + (SAME if public + private else ""),
            "visible_tests": [_method_assert(method, case, row.where) for case in public],
            "hidden_tests": [_method_assert(method, case, row.where) for case in private],
        }

    return convert


def ag_livecodebench(origin: Origin) -> Converter:
    """Ag-LiveCodeBench-X rows: any language, private cases only. The task is posed in Python until it is
    re-posed.
    """

    def convert(row: Row) -> dict[str, Any]:
        values = row.values
        cases = _maybe_packed(values["private_test_cases"], "private_test_cases", row.where)
        return {
            **_program(
                values["question_id"],
                "ag-livecodebench-x",
                "test",
                values["question_content"],
                "python",
            ),
            "cases": _cases(cases, row.where),
        }

    return convert


def ag_posed(origin: Origin) -> Converter:
    """Ag-Codeforces-X and Ag-MBPP-X rows prepared for one language: `idx, test_cases, lang, prompt`."""
    name = origin.path.stem if origin.path else origin.name

    def convert(row: Row) -> dict[str, Any]:
        values = row.values
        language = language_name(values["lang"])
        return {
            **_program(values["idx"], f"agnostics/{name}", origin.split or "train", values["prompt"], language),
            "cases": _cases(_maybe_packed(values["test_cases"], "test_cases", row.where), row.where),
        }

    return convert


def ag_mbpp(origin: Origin) -> Converter:
    """Ag-MBPP-X rows: the statement in three parts, its first test shown as the example."""

    def convert(row: Row) -> dict[str, Any]:
        values = row.values
        cases = _cases(_maybe_packed(values["tests"], "tests", row.where), row.where)
        parts = [values["description"], "Input:", values["input_format"], "Output:", values["output_format"]]
        if cases:
            parts += ["Example input:", cases[0]["input"], "Example output:", cases[0]["output"]]
        prompt = "\n\n".join(str(part).strip() for part in parts)
        return {
            **_program(values["original_task_id"], "ag-mbpp-x", origin.split or "train", prompt, "python"),
            "cases": cases,
        }

    return convert


def codeforces(origin: Origin) -> Converter:
    """open-r1/codeforces rows: examples first, then the official tests that are not examples.

    Rows that no list of stdin and stdout pairs can judge are left out: interactive problems, problems read
    from files, and problems with many right answers, which carry a checker.
    """

    def convert(row: Row) -> dict[str, Any] | None:
        values = row.values
        if values.get("interaction_format") or values.get("generated_checker") or values.get("input_mode") == "file":
            return None
        examples = _cases(_maybe_packed(values["examples"] or [], "examples", row.where), row.where)
        official = _cases(_maybe_packed(values["official_tests"] or [], "official_tests", row.where), row.where)
        parts = [values["title"], values["description"]]
        parts += [f"Input\n\n{values['input_format']}"] if values.get("input_format") else []
        parts += [f"Output\n\n{values['output_format']}"] if values.get("output_format") else []
        parts += [f"Example\n\nInput\n{case['input']}\nOutput\n{case['output']}" for case in examples]
        return {
            **_program(values["id"], "open-r1/codeforces", origin.split or "train", "\n\n".join(parts), "python"),
            "cases": examples + [case for case in official if case not in examples],
            "time_limit_s": float(values.get("time_limit") or 2.0),
            "memory_limit_mb": int(values.get("memory_limit") or 256),
            "compare": "tokens",  # as Codeforces' usual checkers do
            "licence": "CC-BY-4.0",
        }

    return convert


def _program(task_id: Any, source: str, split: str, prompt: str, language: str) -> dict[str, Any]:
    return {
        "task_id": str(task_id),
        "source": source,
        "split": split,
        "prompt": prompt,
        "natural_language": natural_language(prompt),
        "programming_language": language,
        "mode": "program",
        "compare": "lines",  # as LiveCodeBench and Agnostics compare: stripped lines
    }


def _maybe_packed(value: Any, column: str, where: str) -> list[dict[str, Any]]:
    cases = packed_json(value, column, where) if isinstance(value, str) else value
    if not isinstance(cases, Iterable) or not all(isinstance(case, dict) for case in cases):
        raise TaskError(f'{where}: {column} should be a list of {{"input", "output"}} objects')
    return list(cases)


def _cases(cases: list[dict[str, Any]], where: str) -> list[dict[str, str]]:
    try:
        return [{"input": case["input"], "output": case["output"]} for case in cases]
    except KeyError as error:
        raise TaskError(f"{where}: a test case lacks {error.args[0]!r}") from None


def _method_assert(method: str, case: dict[str, Any], where: str) -> str:
    """Return an assert on `Solution().method(arguments)` from one functional case."""
    try:
        arguments = [json.loads(line) for line in case["input"].split("\n") if line.strip()]
        expected = json.loads(case["output"])
    except (ValueError, KeyError, AttributeError):
        raise TaskError(f"{where}: a functional case is not one JSON value a line: {case!r:.80}") from None
    call = f"Solution().{method}({', '.join(map(repr, arguments))})"
    return f"assert same_value({call}, {expected!r})" if _is_loose(expected) else f"assert {call} == {expected!r}"


def _is_loose(expected: Any) -> bool:
    """Return whether equality would be stricter than LiveCodeBench: for lists and floats."""
    return isinstance(expected, list | float)
