"""From a task to the text a model continues, and from its continuation back to a program.

Every prompt ends in a prefill, the first characters of the answer: "```python\\ndef name(arguments):" for function
tasks. It ends exactly at the colon: a trailing newline would split the token that carries newline and indentation, and
a small model then writes nothing usable. The prefill's code is part of the program.

The user's message comes from `templates/function.md` or `templates/program.md`, which may be edited; a paragraph whose
placeholder has nothing to show is left out. Whatever changes the text changes `Prompt.digest`, and with it an attempt's
key.
"""

import ast
import dataclasses
import functools
import hashlib
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from lib.tasks.extract import (
    begins_with_code,
    close_fence,
    defined_names,
    defines,
    ends_inside_text,
    extract_code,
    missing_names,
    parsed,
)
from lib.tasks.task import Task, TaskError

FENCE = "```"
SHOW_TESTS = 1  # visible tests in the prompt of a function task that does not say how many
TEMPLATES = Path(__file__).parent / "templates"
MANIFESTS = Path(__file__).parents[1] / "sandbox" / "languages"  # read as data: how a language reads and prints
# Where sampling ends if the answer is complete there (`cut_at_stops`): a closing fence, or a demonstration.
FUNCTION_STOPS = (f"\n{FENCE}", "\nprint(", "\nassert ", "\nif __name__")
PROGRAM_STOPS = (f"\n{FENCE}",)
DEMONSTRATION = re.compile(r"\n(?=print\(|assert\b|if __name__|#)")
MAX_STOPS = 100  # stop strings of one completion that are looked at
MAX_CUTS = 20  # places at which a demonstration may begin that are tried
MAX_COLONS = 50  # colons of a signature that are tried
LANGUAGE_NAMES = {"python": "Python", "lua": "Lua", "ocaml": "OCaml", "r": "R", "fortran": "Fortran", "julia": "Julia"}
COMPARE = {
    "exact": "Output is compared byte by byte, blanks and line ends included.",
    "lines": "Output is compared line by line; blanks at both ends of a line and blank lines at the end do not count.",
    "tokens": "Output is compared word by word; blanks and line ends only separate, "
    "and numbers may differ by 0.000001.",
}


@dataclasses.dataclass(frozen=True)
class Prompt:
    """What a model is given for one task: `text` ends with `prefill`; sampling may end at a stop (`cut_at_stops`)."""

    task_id: str
    text: str
    prefill: str
    stops: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Sixteen hex digits naming the exact text."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    @property
    def code_prefill(self) -> str:
        """The prefill without its opening fence line: the program's first characters."""
        return self.prefill.partition("\n")[2]

    def program(self, completion: str) -> str:
        """Return the program that a completion stands for: the prefill's code and what follows it in the same block.

        After a Python function, what only prints, asserts or comments is left out. Sentences after an opened fence,
        and the fence that a model opens once more, are no program.
        """
        language = _language(self.prefill)
        completion = cut_at_stops(completion, self.stops, self.prefill)
        text = self.code_prefill + completion
        code = text[: close_fence(text, 0, FENCE, language)[0]]
        if not self.code_prefill and not begins_with_code(code, language):
            return (extract_code(self.prefill + completion, language) or "").rstrip() + "\n"
        return (without_demonstration(code) if self.stops == FUNCTION_STOPS else code).rstrip() + "\n"


def build_prompt(task: Task, tokenizer: Any, said: Sequence[dict[str, str]] = ()) -> Prompt:
    """Return the model's own chat template around the task's question and what was `said` after it, and the prefill."""
    messages = [{"role": "user", "content": question(task)}, *said]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    opens_function = task.mode == "function" and task.programming_language == "python"
    prefill = f"{FENCE}{task.programming_language}\n" + (signature(task) if opens_function else "")
    return Prompt(task.task_id, text + prefill, prefill, FUNCTION_STOPS if opens_function else PROGRAM_STOPS)


def question(task: Task) -> str:
    """Return the user's message: the task's own words, then what `show_tests` visible tests or the language require.

    Hidden tests are never shown. Raises TaskError for a template that cannot be read.
    """
    language = task.programming_language
    shown = SHOW_TESTS if task.show_tests is None else task.show_tests
    fields = {
        "prompt": task.prompt,
        "tests": "\n".join(task.visible_tests[:shown]),
        "language": LANGUAGE_NAMES.get(language, language),
        "compare": COMPARE[task.compare],
        "conventions": _conventions(language),
    }
    kept = [part for part in _template(f"{task.mode}.md") if all(fields.get(name, " ") for name in _placeholders(part))]
    if not fields["tests"]:  # nor is there anything to announce
        kept = [part for part in kept if not part.endswith(":")]
    return "\n\n".join(re.sub(r"\{(\w+)\}", lambda match: fields.get(match[1], match[0]), part) for part in kept)


def _template(name: str) -> list[str]:
    """Return a template's paragraphs."""
    try:
        text = (TEMPLATES / name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"{TEMPLATES / name}: cannot be read ({error}); it holds the text around a task") from None
    return [part for part in text.strip().split("\n\n") if part.strip()]


def _placeholders(part: str) -> list[str]:
    return re.findall(r"\{(\w+)\}", part)


@functools.cache
def _conventions(language: str) -> str:
    """Return what a language's manifest says about reading and printing in it, "" for a language without a manifest."""
    path = MANIFESTS / f"{language}.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8")).get("conventions", "") if path.is_file() else ""


# ---------------------------------------------------------------------------------------------------------- signatures


def signature(task: Task) -> str:
    """Return the line that opens the function asked for, or `def name(` for the model to finish.

    In this order: a line of the prompt that opens it, annotations and defaults included; a mention `name(parameters)`
    in the prompt with valid names; as many parameters as the call in the first visible test has arguments.
    """
    name = task.entry_point
    if not name.isidentifier():
        return ""
    return (
        _opened(task.prompt, name)
        or _mentioned(task.prompt, name)
        or _called(task.visible_tests, name)
        or f"def {name}("
    )


def _opened(prompt: str, name: str) -> str:
    """Return the last `def name(…):` or `class name…:` that begins a line of the prompt."""
    for start in reversed(
        list(re.finditer(rf"^[ \t]*((?:async )?def|class) +{re.escape(name)}\b", prompt, re.MULTILINE))
    ):
        text = prompt[start.start(1) :]
        for colon in list(re.finditer(":", text[:10_000]))[:MAX_COLONS]:
            if parsed(f"{text[: colon.end()]} pass"):
                return text[: colon.end()]
    return ""


def _mentioned(prompt: str, name: str) -> str:
    for mention in re.finditer(rf"(?<![\w.]){re.escape(name)}\(([^()\n]*)\)", prompt):
        if mention[1].strip() and parsed(line := f"def {name}({mention[1].strip()}):\n pass"):
            return line.partition("\n")[0]
    return ""


def _called(tests: tuple[str, ...], name: str) -> str:
    calls = [
        node for test in tests for node in ast.walk(parsed(test) or ast.Module([], [])) if isinstance(node, ast.Call)
    ]
    for call in calls:
        if isinstance(call.func, ast.Name) and call.func.id == name:
            named = [keyword.arg for keyword in call.keywords]
            free = (letter for letter in "abcdeghijklmnopqrstuvwxyz" if letter not in named)
            given = ["*args" if isinstance(value, ast.Starred) else next(free, "*args") for value in call.args]
            parameters = [*dict.fromkeys(given), *(keyword or "**kwargs" for keyword in named)]
            return f"def {name}({', '.join(parameters)}):"
    return ""


# ---------------------------------------------------------------------------------------------------------- completions


def without_demonstration(code: str) -> str:
    """Return Python code up to the first print, assertion, comment or main block at the margin after the function.

    Nothing is cut where what stands before does not parse, where the body goes on after a comment, or where a
    definition that the function uses follows.
    """
    for cut in list(DEMONSTRATION.finditer(code))[:MAX_CUTS]:
        before, after = code[: cut.start()], code[cut.end() :]
        following = re.search(r"^(?![ \t]*(?:#|$))[ \t]*", after, re.MULTILINE)
        inside = after.startswith("#") and following is not None and following[0] != ""
        if not inside and parsed(before) and not missing_names(before) & defined_names(after, "python"):
            return before
    return code


def cut_at_stops(text: str, stops: tuple[str, ...], prefill: str = "") -> str:
    """Return a completion up to the first stop string at which the answer is complete, exclusive.

    With a prefill, what stands before the stop decides: at a fence it is code that does not end inside a string or
    comment; at another stop it parses, defines the function that the prefill opens, and uses no name that it lacks.
    Without a prefill every stop string counts. What is cut already stays as it is.
    """
    end = stop_at(text, stops, prefill)
    return text if end is None else text[:end]


def stop_at(text: str, stops: tuple[str, ...], prefill: str = "") -> int | None:
    """Return the place of the stop that ends a completion, see `cut_at_stops`; None while the answer goes on."""
    opened = prefill.partition("\n")[2]
    for stop in itertools.islice(re.finditer("|".join(map(re.escape, stops)) or "(?!)", text), MAX_STOPS):
        if not prefill or _is_complete(opened + text[: stop.start()], stop[0], prefill):
            return stop.start()
    return None


@functools.lru_cache(maxsize=1024)  # while a completion grows, its earlier stops are looked at again and again
def _is_complete(code: str, stop: str, prefill: str) -> bool:
    """Return whether `code`, which begins with the prefill's, is a whole answer if `stop` comes next."""
    language, opened = _language(prefill), prefill.partition("\n")[2]
    if FENCE in stop:
        return not ends_inside_text(code, language) and (bool(opened) or begins_with_code(code, language))
    name = re.search(r"(?:def|class) +(\w+)", prefill)
    return bool(parsed(code)) and defines(code, name[1] if name else "", "python") and not missing_names(code)


def _language(prefill: str) -> str:
    return prefill.partition("\n")[0].strip("`")


def server_stops(stops: tuple[str, ...], prefill: str = "") -> list[str]:
    """Return the stop strings for an engine that stops wherever one occurs: of an answer in a fence, only the fence."""
    return [stop for stop in stops if not prefill or FENCE in stop]


def winning_completion(prompt: Prompt, program: str) -> str:
    """Return what a model writes after the prompt to give `program`: its text after the prefill, then the fence.

    Raises ValueError when the program does not begin with the prefill's code.
    """
    if not program.startswith(prompt.code_prefill):
        raise ValueError(
            f"{prompt.task_id}: the program does not begin with the prompt's prefill {prompt.code_prefill!r}"
        )
    return program[len(prompt.code_prefill) :].rstrip() + f"\n{FENCE}"
