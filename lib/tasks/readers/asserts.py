"""Python corpora whose tests are asserts: BLP-2025 Task 2, MBPP and chats a model was fine-tuned on."""

import ast
import builtins
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from lib.tasks.extract import extract_code
from lib.tasks.readers.files import Row, rows
from lib.tasks.readers.literals import assert_list, parsed
from lib.tasks.task import TaskError

BLP_LICENCE = "none stated; the content derives from MBPP (CC-BY-4.0)"
MBPP_LICENCE = "CC-BY-4.0"
BENGALI = re.compile(r"[\u0980-\u09ff]")
TURN = re.compile(r"<(?:start_of_turn>|\|im_start\|>)(\w+)\n(.*?)<(?:end_of_turn>|\|im_end\|>)", re.DOTALL)
Converter = Callable[[Row], dict[str, Any] | None]  # None: a row that cannot be posed as a task


class Origin(NamedTuple):
    """Where rows come from: the name given, its path when it is a file, and the split asked for."""

    name: str
    path: Path | None
    split: str | None


def called_name(test: str) -> str:
    """The function an assert calls: the first called name that is no builtin, or "" when there is none."""
    calls = [node.func for node in ast.walk(parsed(test)) if isinstance(node, ast.Call)]
    names = [function.id for function in calls if isinstance(function, ast.Name)]
    own = [name for name in names if not hasattr(builtins, name)]
    return (own or names or [""])[0]


def natural_language(text: str) -> str:
    """ "bn" when the text holds a Bengali letter, else "en"."""
    return "bn" if BENGALI.search(text) else "en"


def blp(origin: Origin) -> Converter:
    """BLP-2025 Task 2. The file's name says which of the four it is.

    Trial and dev show participants all their asserts; test_v1 shows one; test_full adds two hidden ones. The
    visible assert of test_full is the one its sibling test_v1.csv shows, whatever the function is called
    there, else the first.
    """
    stem = origin.path.name.split(".")[0] if origin.path else origin.name
    split = next((name for name in ("trial", "dev", "test") if stem.startswith(name)), origin.split or "unknown")
    shown = _shown_asserts(origin.path) if stem == "test_full" and origin.path else {}

    def convert(row: Row) -> dict[str, Any]:
        tests = assert_list(row.values["test_list"], "test_list", row.where)
        visible = len(tests)
        if stem == "test_full":
            tests, visible = _visible_first(tests, shown.get(str(row.values["id"]))), 1
        return {
            **_python_function(row.values["id"], f"blp25/{split}", split, row.values["instruction"]),
            "entry_point": called_name(tests[0]),
            "visible_tests": tests[:visible],
            "hidden_tests": tests[visible:],
            "reference": _unix(row.values.get("response") or ""),
            "licence": BLP_LICENCE,
        }

    return convert


def _shown_asserts(test_full: Path) -> dict[str, str]:
    sibling = test_full.with_name(test_full.name.replace("test_full", "test_v1"))
    if not sibling.is_file():
        return {}
    return {
        str(row.values["id"]): assert_list(row.values["test_list"], "test_list", row.where)[0]
        for row in rows(str(sibling))
    }


def _visible_first(tests: list[str], shown: str | None) -> list[str]:
    """`tests` with the shown one in front; the two may name the function differently."""
    if shown is None:
        return tests
    for index, test in enumerate(tests):
        if test.replace(called_name(test), called_name(shown), 1) == shown:
            return [test, *tests[:index], *tests[index + 1 :]]
    return tests


def _python_function(task_id: Any, source: str, split: str, prompt: str) -> dict[str, Any]:
    return {
        "task_id": str(task_id),
        "source": source,
        "split": split,
        "prompt": prompt,
        "natural_language": natural_language(prompt),
        "programming_language": "python",
        "mode": "function",
    }


def _unix(code: str) -> str:
    return code.replace("\r\n", "\n").replace("\r", "\n")


def mbpp(origin: Origin) -> Converter:
    """MBPP, full (`text`, `test_setup_code`, `challenge_test_list`) or sanitized (`prompt`, `test_imports`).

    `test_list` is visible, as MBPP's own prompt shows all of it; challenge tests and MBPP+'s `test` are hidden. Splits
    by id are MBPP's: 1–10 prompt, 11–510 test, 511–600 validation, the rest train.
    """

    def convert(row: Row) -> dict[str, Any]:
        values = row.values
        tests = assert_list(values["test_list"], "test_list", row.where)
        setup = "\n".join([*(values.get("test_imports") or []), _unix(values.get("test_setup_code") or "")]).strip()
        split = _mbpp_split(values["task_id"])
        challenge = [test.strip() for test in values.get("challenge_test_list") or []]
        return {
            **_python_function(
                values["task_id"], "mbpp", split, values["text"] if "text" in values else values["prompt"]
            ),
            "entry_point": called_name(tests[0]),
            "visible_tests": tests,
            "hidden_tests": [*challenge, *([values["test"].strip()] if values.get("test") else [])],
            "setup_code": setup,
            "reference": _unix(values["code"]),
            "licence": MBPP_LICENCE,
        }

    return convert


def _mbpp_split(task_id: Any) -> str:
    number = int(task_id)
    return "prompt" if number <= 10 else "test" if number <= 510 else "validation" if number <= 600 else "train"


def chat(origin: Origin) -> Converter:
    """Chats a model was trained on: `text` with turn marks, or `messages` of {"role", "content"}.

    The task is the user's turn, the reference the program of the answer, and the asserts the user's turn quotes,
    commented or not, are its visible tests. Rows carry no id; the row number stands in for it.
    """
    name = origin.path.stem if origin.path else origin.name

    def convert(row: Row) -> dict[str, Any]:
        user, answer = _turns(row)
        tests = [line.strip() for line in re.findall(r"^#?\s*(assert .+)$", user, re.MULTILINE)]
        entry = called_name(tests[0]) if tests else ""
        return {
            **_python_function(row.number, f"chat/{name}", origin.split or "train", user),
            "entry_point": entry,
            "visible_tests": tests,
            "reference": extract_code(answer, "python", entry) or "",
        }

    return convert


def _turns(row: Row) -> tuple[str, str]:
    """The last user turn and what answers it. Raises TaskError when a chat has no user turn."""
    if "messages" in row.values:
        turns = [(turn.get("role"), turn.get("content") or "") for turn in row.values["messages"]]
    else:
        turns = TURN.findall(row.values["text"] or "")
    users = [text for role, text in turns if role == "user"]
    answers = [text for role, text in turns if role in ("assistant", "model")]
    if not users:
        raise TaskError(f"{row.where}: no user turn in this chat; <start_of_turn>user or <|im_start|>user opens one")
    return users[-1].strip(), answers[-1].strip() if answers else ""
