"""Corpora of whole programs judged by stdin and stdout: LiveCodeBench and its kin, Agnostics, open-r1/codeforces."""

import json
from collections.abc import Sequence
from typing import Any

from lib.tasks.readers.files import Row
from lib.tasks.readers.functions import Origin, Values, posed
from lib.tasks.readers.literals import packed_json
from lib.tasks.task import TaskError, language_name

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


def livecodebench(row: Row, origin: Origin) -> Values:
    """Return a task of LiveCodeBench (code_generation_lite): public cases first, private ones after.

    Cases of type "functional" call a method of `Solution` and become asserts, public ones visible; their input holds
    one JSON value a line. Multi-LCB and Ag-LiveCodeBench-X have the same columns and other languages, where every case
    is read from stdin: a column `language`, `lang` or `plang` names the language, which is then part of the id. A task
    without one is posed in Python until it is posed anew.
    """
    stated = next((column for column in ("language", "lang", "plang") if row.has(column)), "")
    language = language_name(row.text(stated)) if stated else "python"
    public, private = (_cases(row, column) for column in ("public_test_cases", "private_test_cases"))
    starter, question = row.text("starter_code", default=""), row.text("question_content")
    task_id = row.id("question_id") + (f":{language}" if stated else "")
    source = "livecodebench" if "public_test_cases" in row.values else "ag-livecodebench-x"
    functional = language == "python" and any(case.get("testtype") == "functional" for case in public + private)
    prompt = f"{question}\n\n{starter}" if starter and language == "python" else question
    if not functional:
        return _program(task_id, source, "test", prompt, language, cases=_pairs(public + private))
    metadata = row.values.get("metadata")
    if isinstance(metadata, str):
        metadata = packed_json(metadata, "metadata", row.where)
    if not isinstance(metadata, dict) or not metadata.get("func_name"):
        raise row.wrong("metadata", "an object whose func_name names the method that functional cases call")
    return posed(
        task_id,
        source,
        "test",
        prompt,
        entry_point="Solution",
        setup_code=IMPORTS + SAME,
        visible_tests=[_method_assert(metadata["func_name"], case, row.where) for case in public],
        hidden_tests=[_method_assert(metadata["func_name"], case, row.where) for case in private],
    )


def ag_posed(row: Row, origin: Origin) -> Values:
    """Return a task of Ag-Codeforces-X or Ag-MBPP-X prepared for one language: `idx, test_cases, lang, prompt`."""
    source = f"agnostics/{origin.path.stem if origin.path else origin.name}"
    language, cases = language_name(row.text("lang")), _pairs(_cases(row, "test_cases"))
    return _program(row.id("idx"), source, origin.split or "train", row.text("prompt"), language, cases=cases)


def ag_mbpp(row: Row, origin: Origin) -> Values:
    """Return a task of Ag-MBPP-X: the statement in three parts, its first test shown as the example."""
    cases = _pairs(_cases(row, "tests"))
    parts = [row.text("description"), "Input:", row.text("input_format"), "Output:", row.text("output_format")]
    if cases:
        parts += ["Example input:", cases[0]["input"], "Example output:", cases[0]["output"]]
    prompt = "\n\n".join(part.strip() for part in parts)
    return _program(row.id("original_task_id"), "ag-mbpp-x", origin.split or "train", prompt, "python", cases=cases)


def codeforces(row: Row, origin: Origin) -> Values | None:
    """Return a task of open-r1/codeforces: examples first, then the official tests that are not examples.

    None for what no list of stdin and stdout pairs can judge: interactive problems, problems read from files, and
    problems with many right answers, which carry a checker.
    """
    if row.has("interaction_format") or row.has("generated_checker") or row.values.get("input_mode") == "file":
        return None
    examples, official = (_pairs(_cases(row, column)) for column in ("examples", "official_tests"))
    parts = [row.text("title"), row.text("description")]
    for heading, column in (("Input", "input_format"), ("Output", "output_format")):
        parts += [f"{heading}\n\n{row.text(column)}"] if row.has(column) else []
    parts += [f"Example\n\nInput\n{case['input']}\nOutput\n{case['output']}" for case in examples]
    return _program(
        row.id("id"),
        "open-r1/codeforces",
        origin.split or "train",
        "\n\n".join(parts),
        "python",
        cases=examples + [case for case in official if case not in examples],
        time_limit_s=row.number_above_0("time_limit", 2.0),
        memory_limit_mb=int(row.number_above_0("memory_limit", 256)),
        compare="tokens",  # as Codeforces' usual checkers do
        licence="CC-BY-4.0",
    )


def _program(task_id: str, source: str, split: str, prompt: str, language: str, **more: Any) -> Values:
    stated = {"mode": "program", "programming_language": language}
    return posed(task_id, source, split, prompt, **{**stated, "compare": "lines", **more})  # LiveCodeBench strips lines


def _cases(row: Row, column: str) -> list[dict[str, Any]]:
    """Return a column's cases, packed or not; none for an empty or absent one."""
    value: Any = row.values.get(column) if row.has(column) else []
    if isinstance(value, str):
        value = packed_json(value, column, row.where)
    if isinstance(value, dict) and {"inputs", "outputs"} <= set(value):  # as the tables of lighteval and of Multi-LCB
        value = [{"input": one, "output": other} for one, other in zip(value["inputs"], value["outputs"], strict=False)]
    held = isinstance(value, Sequence) and all(
        isinstance(case, dict) and {"input", "output"} <= set(case) for case in value
    )
    if not held:
        raise TaskError(
            f'{row.where}: column {column} is {value!r:.80}; it should be a list of {{"input", "output"}} objects'
        )
    return list(value)


def _pairs(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"input": case["input"], "output": case["output"]} for case in cases]


def _method_assert(method: str, case: dict[str, Any], where: str) -> str:
    """Return an assert on `Solution().method(arguments)` from one functional case.

    Equality is looser for lists and floats, as in LiveCodeBench.
    """
    try:
        arguments = [json.loads(line) for line in case["input"].split("\n") if line.strip()]
        expected = json.loads(case["output"])
    except (ValueError, AttributeError, TypeError):
        raise TaskError(f"{where}: a functional case is not one JSON value a line: {case!r:.80}") from None
    call = f"Solution().{method}({', '.join(map(repr, arguments))})"
    loose = isinstance(expected, list | float)
    return f"assert same_value({call}, {expected!r})" if loose else f"assert {call} == {expected!r}"
