"""HumanEval and its kin: HumanEval itself, mHumanEval's Bangla prompts, MultiPL-E's translations.

Python tests are taken apart into asserts on the entry point where the released `check` is nothing but
asserts; else, and in every other language, the released test script stands as one hidden test. Prompts show
no test of their own beyond the examples in their text, so nothing is visible.
"""

import ast
import re
import textwrap
from typing import Any

from lib.tasks.readers.asserts import Converter, Origin, natural_language
from lib.tasks.readers.files import Row
from lib.tasks.readers.literals import parsed
from lib.tasks.task import TaskError

LANGUAGES = {"py": "python", "jl": "julia", "ml": "ocaml", "r": "r", "lua": "lua", "f90": "fortran"}
CANDIDATE = re.compile(r"\bcandidate\s*(?:=|<-)\s*([A-Za-z_][\w.']*)")


def language_name(name: str) -> str:
    """The project's name of a programming language from a corpus's, such as "jl" for julia."""
    return LANGUAGES.get(name.lower(), name.lower())


def humaneval(origin: Origin) -> Converter:
    """HumanEval rows: `prompt` opens the function, `test` defines check(candidate)."""

    def convert(row: Row) -> dict[str, Any]:
        entry, prompt = row.values["entry_point"], row.values["prompt"]
        return {
            **_function(row.values["task_id"], "humaneval", "test", prompt, "python"),
            "entry_point": entry,
            "hidden_tests": python_checks(row.values["test"], entry, row.where),
            "setup_code": _before(prompt, entry),
            "reference": prompt + row.values["canonical_solution"],
            "licence": "MIT",
        }

    return convert


def mhumaneval(origin: Origin) -> Converter:
    """mHumanEval rows: `nl` and `pl` name the languages; python rows carry `test`, the others `tests`."""

    def convert(row: Row) -> dict[str, Any]:
        values = row.values
        language = language_name(values["pl"])
        prompt, solution = values["prompt"], values["canonical_solution"] or ""
        if language == "python":
            entry = _last_function(prompt, row.where)
            tests = python_checks(values["test"], entry, row.where)
            solution = prompt + _indented(solution)
        else:
            tests = [values["tests"]]
            entry = _candidate(values["tests"], row.where)
        return {
            **_function(values["task_id"], f"mhumaneval/{values['nl']}/{language}", "test", prompt, language),
            "entry_point": entry,
            "hidden_tests": tests,
            "setup_code": _before(prompt, entry) if language == "python" else "",
            "reference": solution,
            "licence": "Apache-2.0",
        }

    return convert


def multipl_e(origin: Origin) -> Converter:
    """MultiPL-E rows: `prompt` opens the function, `tests` is a script that follows it."""

    def convert(row: Row) -> dict[str, Any]:
        values = row.values
        language = language_name(values["language"])
        return {
            **_function(values["name"], f"multipl_e/{language}", "test", values["prompt"], language),
            "entry_point": _candidate(values["tests"], row.where),
            "hidden_tests": [values["tests"]],
            "licence": "BSD-3-Clause with a clause against use as training data",
        }

    return convert


def _function(task_id: Any, source: str, split: str, prompt: str, language: str) -> dict[str, Any]:
    return {
        "task_id": str(task_id),
        "source": source,
        "split": split,
        "prompt": prompt,
        "natural_language": natural_language(prompt),
        "programming_language": language,
        "mode": "function",
    }


def python_checks(script: str, entry: str, where: str) -> list[str]:
    """Asserts on `entry` from a `check(candidate)` made of asserts alone; any other script whole, ending in
    its call.

    Raises TaskError when the script does not parse or has no check.
    """
    try:
        functions = [node for node in parsed(script).body if isinstance(node, ast.FunctionDef)]
    except SyntaxError as error:
        raise TaskError(f"{where}: test does not parse as Python ({error.msg}, line {error.lineno})") from None
    checks = [function for function in functions if function.name == "check"]
    if not checks:
        raise TaskError(f"{where}: test defines no check(candidate)")
    if len(functions) == 1 and all(isinstance(statement, ast.Assert) for statement in checks[0].body):
        return [ast.unparse(_Rename(entry).visit(statement)) for statement in checks[0].body]
    return [f"{script.strip()}\n\ncheck({entry})"]


class _Rename(ast.NodeTransformer):
    def __init__(self, entry: str) -> None:
        self.entry = entry

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self.entry, node.ctx) if node.id == "candidate" else node


def _before(prompt: str, entry: str) -> str:
    """Imports and helpers a prompt gives before the function it asks for."""
    return prompt.rpartition(f"def {entry}(")[0].strip()


def _last_function(prompt: str, where: str) -> str:
    names = re.findall(r"^def\s+(\w+)\s*\(", prompt, re.MULTILINE)
    if not names:
        raise TaskError(f"{where}: prompt defines no function")
    return str(names[-1])


def _candidate(script: str, where: str) -> str:
    found = CANDIDATE.search(script)
    if not found:
        raise TaskError(f"{where}: tests bind no candidate; expected `candidate = NAME` or `candidate <- NAME`")
    return found.group(1)


def _indented(solution: str) -> str:
    """A released body that may have lost its first indentation."""
    first = next((line for line in solution.split("\n") if line.strip()), "")
    return solution if first.startswith((" ", "\t")) else textwrap.indent(solution, "    ")
