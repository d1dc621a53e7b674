"""Corpora of functions: BLP-2025 Task 2, MBPP and its kin, chats, HumanEval, mHumanEval and MultiPL-E.

HumanEval's Python tests are taken apart into asserts on the entry point where the released `check` is nothing but
asserts; else, and in every other language, the released test script stands as one hidden test. Its prompts show no test
beyond the examples in their text, so nothing is visible.
"""

import ast
import builtins
import functools
import re
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

from lib.tasks.bangla import is_bangla
from lib.tasks.extract import extract_code, parse, parsed
from lib.tasks.readers.files import Row, rows
from lib.tasks.readers.literals import assert_list, string_list
from lib.tasks.task import TaskError, language_name

TIME_LIMIT_S = 10.0  # of MBPP and what derives from it: its own solution of task 123 takes nearly five CPU seconds
BLP_LICENCE = "none stated; the content derives from MBPP (CC-BY-4.0)"
MULTIPL_E_LICENCE = "BSD-3-Clause with a clause against use as training data"
TURN = re.compile(r"<(?:start_of_turn>|\|im_start\|>)(\w+)\n(.*?)<(?:end_of_turn>|\|im_end\|>)", re.DOTALL)
CANDIDATE = re.compile(r"\bcandidate\s*(?:=|<-)\s*([A-Za-z_][\w.']*)")
# Statements of MBPP in another language stand beside the English one; the columns of MBPP-Bangla are not published yet.
BANGLA_PROMPTS = ("prompt_bn", "text_bn", "bangla_prompt", "prompt_bangla", "bangla", "instruction")
Values = dict[str, Any]


class Origin(NamedTuple):
    """Where rows come from: the name given, its path when it is a file, and the split asked for."""

    name: str
    path: Path | None
    split: str | None

    @property
    def stem(self) -> str:
        """The file's name without its ending, else the name given."""
        return self.path.name.split(".")[0] if self.path else self.name


def posed(task_id: str, source: str, split: str, prompt: str, **more: Any) -> Values:
    """Return what every corpus states of a task; a Python function unless `more` says otherwise."""
    language = "bn" if is_bangla(prompt) else "en"
    stated = {"task_id": task_id, "source": source, "split": split, "prompt": prompt, "natural_language": language}
    return {**stated, "programming_language": "python", "mode": "function", **more}


def called_name(test: str) -> str:
    """Return the function an assert calls: the first called name that is no builtin, or "" when there is none."""
    calls = [node.func for node in ast.walk(parse(test)) if isinstance(node, ast.Call)]
    names = [function.id for function in calls if isinstance(function, ast.Name)]
    return ([name for name in names if not hasattr(builtins, name)] or names or [""])[0]


def blp(row: Row, origin: Origin) -> Values:
    """Return a task of BLP-2025 Task 2. The file's name says which of the four it is.

    Trial and dev show participants all their asserts; test_v1 shows one; test_full adds two hidden ones. The
    visible assert of test_full is the one its sibling test_v1.csv shows, whatever the function is called
    there, else the first.
    """
    split = next((name for name in ("trial", "dev", "test") if origin.stem.startswith(name)), origin.split or "unknown")
    tests, task_id = assert_list(row, "test_list"), row.id("id")
    visible = len(tests)
    if origin.stem == "test_full":
        shown = _shown_asserts(origin.path).get(task_id) if origin.path else None
        first = next((test for test in tests if shown and _same_call(test, shown)), tests[0])
        tests, visible = [first, *(test for test in tests if test is not first)], 1
    return posed(
        task_id,
        f"blp25/{split}",
        split,
        row.text("instruction"),
        entry_point=called_name(tests[0]),
        visible_tests=tests[:visible],
        hidden_tests=tests[visible:],
        time_limit_s=TIME_LIMIT_S,
        reference=row.text("response", default=""),
        licence=BLP_LICENCE,
    )


@functools.lru_cache(maxsize=1)
def _shown_asserts(test_full: Path) -> dict[str, str]:
    sibling = test_full.with_name(test_full.name.replace("test_full", "test_v1"))
    return {row.id("id"): assert_list(row, "test_list")[0] for row in rows(str(sibling))} if sibling.is_file() else {}


def _same_call(test: str, shown: str) -> bool:
    return test.replace(called_name(test), called_name(shown), 1) == shown


def mbpp(row: Row, origin: Origin) -> Values:
    """Return a task of MBPP: full, sanitized (`prompt`, `test_imports`), MBPP+, or with a Bangla statement.

    `test_list` is visible, as MBPP's own prompt shows all of it; challenge tests and MBPP+'s `test` are hidden. Splits
    by id are MBPP's: 1–10 prompt, 11–510 test, 511–600 validation, the rest train.
    """
    tests, prompt = assert_list(row, "test_list"), row.text(*BANGLA_PROMPTS, "text", "prompt")
    task_id = row.id("task_id")
    digits = re.search(r"\d+", task_id)
    if digits is None:
        raise row.wrong("task_id", "MBPP's number of a task, which tells its split")
    number = int(digits[0])
    split = "prompt" if number <= 10 else "test" if number <= 510 else "validation" if number <= 600 else "train"
    hidden = _texts(row, "challenge_test_list") + ([row.text("test")] if row.has("test") else [])
    return posed(
        task_id,
        "mbpp-bangla" if is_bangla(prompt) else "mbpp",
        split,
        prompt,
        entry_point=called_name(tests[0]),
        visible_tests=tests,
        hidden_tests=[test.strip() for test in hidden],
        setup_code="\n".join([*_texts(row, "test_imports"), row.text("test_setup_code", default="")]).strip(),
        time_limit_s=TIME_LIMIT_S,
        reference=row.text("code", "python", "response", default=""),
        licence="CC-BY-4.0",
    )


def _texts(row: Row, column: str) -> list[str]:
    """Return a list of texts that may be absent or empty."""
    value = row.values.get(column)
    return string_list(row, column) if row.has(column) and value not in ([], "[]") else []


def chat(row: Row, origin: Origin) -> Values:
    """Return the task of a chat a model was trained on: `text` with turn marks, or `messages` of {"role", "content"}.

    The task is the user's turn, the reference the program of the answer, and the asserts the user's turn quotes,
    commented or not, are its visible tests. Rows carry no id; the row number stands in for it.
    """
    turns = _messages(row) if row.has("messages") else TURN.findall(row.text("text"))
    users = [text for role, text in turns if role == "user"]
    answers = [text for role, text in turns if role in ("assistant", "model")]
    if not users:
        raise TaskError(f"{row.where}: no user turn in this chat; <start_of_turn>user or <|im_start|>user opens one")
    user = users[-1].strip()
    quoted = [line.strip() for line in re.findall(r"^#?\s*(assert .+)$", user, re.MULTILINE)]
    tests = [test for test in quoted if parsed(test)]
    entry = called_name(tests[0]) if tests else ""
    reference = extract_code(answers[-1].strip() if answers else "", "python", entry) or ""
    source = f"chat/{origin.path.stem if origin.path else origin.name}"
    return posed(
        str(row.number),
        source,
        origin.split or "train",
        user,
        entry_point=entry,
        visible_tests=tests,
        reference=reference,
    )


def _messages(row: Row) -> list[tuple[str, str]]:
    turns = row.values["messages"]
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise row.wrong("messages", 'a list of {"role", "content"}')
    return [(str(turn.get("role")), str(turn.get("content") or "")) for turn in turns]


# ----------------------------------------------------------------------------------------------- HumanEval and its kin


def humaneval(row: Row, origin: Origin) -> Values:
    """Return a task of HumanEval or HumanEval+: `prompt` opens the function, `test` defines check(candidate)."""
    return _python_check(row, row.text("entry_point"), "humaneval", row.text("canonical_solution"), "MIT")


def mhumaneval(row: Row, origin: Origin) -> Values:
    """Return a task of mHumanEval: `nl` and `pl` name the languages; python rows carry `test`, the others `tests`."""
    language, solution = language_name(row.text("pl")), row.text("canonical_solution", default="")
    source = f"mhumaneval/{row.text('nl')}/{language}"
    if language != "python":
        return _script(row, row.id("task_id"), source, language, reference=solution, licence="Apache-2.0")
    names = re.findall(r"^def\s+(\w+)\s*\(", row.text("prompt"), re.MULTILINE)
    if not names:
        raise row.wrong("prompt", "a text that opens a function")
    first = next((line for line in solution.split("\n") if line.strip()), "")
    body = solution if first.startswith((" ", "\t")) else textwrap.indent(solution, "    ")  # it may be cut off
    return _python_check(row, names[-1], source, body, "Apache-2.0")


def multipl_e(row: Row, origin: Origin) -> Values:
    """Return a task of MultiPL-E: `prompt` opens the function, `tests` is a script that follows it."""
    language = language_name(row.text("language"))
    return _script(row, row.id("name"), f"multipl_e/{language}", language, licence=MULTIPL_E_LICENCE)


def _python_check(row: Row, entry: str, source: str, body: str, licence: str) -> Values:
    prompt = row.text("prompt")
    return posed(
        row.id("task_id"),
        source,
        "test",
        prompt,
        entry_point=entry,
        hidden_tests=_python_tests(row, entry),
        setup_code=prompt.rpartition(f"def {entry}(")[0].strip(),  # imports and helpers before the function
        reference=prompt + body,
        licence=licence,
    )


def _script(row: Row, task_id: str, source: str, language: str, **more: Any) -> Values:
    script, prompt = row.text("tests"), row.text("prompt")
    candidate = CANDIDATE.search(script)
    if not candidate:
        raise row.wrong("tests", "a script that binds `candidate = NAME` or `candidate <- NAME`")
    stated = {"entry_point": candidate[1], "hidden_tests": [script], "programming_language": language}
    return posed(task_id, source, "test", prompt, **stated, **more)


def _python_tests(row: Row, entry: str) -> list[str]:
    """Return the asserts of a `check(candidate)` that holds nothing else, on `entry`; else the script with its call."""
    script = row.text("test")
    tree = parse(script) if parsed(script) else ast.Module([], [])  # a tree of its own: names are changed in it
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    check = next((function for function in functions if function.name == "check"), None)
    if check is None:
        raise row.wrong("test", "Python that defines check(candidate)")
    if len(functions) > 1 or not all(isinstance(statement, ast.Assert) for statement in check.body):
        return [f"{script.strip()}\n\ncheck({entry})"]
    for node in ast.walk(check):
        if isinstance(node, ast.Name) and node.id == "candidate":
            node.id = entry
    return [ast.unparse(statement) for statement in check.body]
