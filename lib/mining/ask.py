"""Ask a model for one program, run it, and say what came of it."""

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lib.base.errors import WorkbookError
from lib.mining.collect import Source, attempt_all, fits_context
from lib.mining.ledger import Attempt, Ledger
from lib.mining.repair import repair
from lib.sampling import Engine, SamplingParams
from lib.sandbox import Sandbox, Status, languages
from lib.tasks.extract import parsed
from lib.tasks.readers.functions import called_name
from lib.tasks.task import Case, Task, language_name

CALLED = re.compile(r"\b(?!(?:assert|stopifnot)\b)([A-Za-z_][\w.]*)[ (]")  # the first name that a test calls


class AskError(WorkbookError):
    """A question that cannot be asked; the message says what would be right."""


def task_of(instruction: str, language: str = "python", test: str = "") -> Task:
    """Return the task of an instruction: a function that the test calls or, without a test, a program without input.

    Raises AskError for an empty instruction, a test that calls nothing, or a language whose functions cannot be tested;
    SandboxError for an unknown language.
    """
    language = language_name(language)
    if not instruction.strip():
        raise AskError("the instruction is empty; say in a sentence what the program should do")
    if not languages.load(language).functions and test and language != "python":
        raise AskError(f"--test: functions in {language} cannot be tested here; ask without a test")
    if not test:
        return Task("ask", "ask", "ask", instruction, "", language, "program", cases=(Case("", ""),))
    found = CALLED.search(test)
    name = (called_name(test) if parsed(test) else "") if language == "python" else found[1] if found else ""
    if not name:
        raise AskError(f"--test {test}: no {language} that calls a function, such as assert add(1, 2) == 3 in Python")
    return Task("ask", "ask", "ask", instruction, "", language, "function", name, visible_tests=(test,))


def ask(
    task: Task, *, engine: Engine, sandbox: Sandbox, repair_turns: int = 0, max_new_tokens: int = 256
) -> list[Attempt]:
    """Return the model's greedy attempt at a task and up to `repair_turns` repairs; the last one is the answer.

    Raises AskError for a task that is too long for the model.
    """
    params, source = SamplingParams(temperature=0.0, max_new_tokens=max_new_tokens), Source("ask", engine.name, "", 0)
    if fits_context([task], engine, params)[1]:
        raise AskError(
            f"the instruction leaves no room for an answer in the {engine.context_length} tokens of the model"
        )
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ask.jsonl")
        first = attempt_all([task], 1, ledger, engine=engine, sandbox=sandbox, params=params, source=source)
        further = repair(
            [task], first, repair_turns, ledger, engine=engine, sandbox=sandbox, params=params, source=source
        )
    return [*first, *further]


def in_words(task: Task, attempts: Sequence[Attempt]) -> str:
    """Return each program with its verdict, what it printed, and how it failed."""
    parts = []
    for number, attempt in enumerate(attempts):
        ended = task.mode == "program" and attempt.status in (Status.SUCCESS, Status.WRONG_OUTPUT)
        verdict = "ran to its end; without a test nothing says if it is right" if ended else attempt.status
        parts += [f"repair {number}"] if number else []
        parts += [attempt.program, f"verdict: {verdict}", "" if ended else attempt.failure]
        parts += [f"output:\n{attempt.stdout_head.rstrip()}"] if attempt.stdout_head.strip() else []
    return "\n".join(filter(None, parts))
