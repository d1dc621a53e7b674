"""From a task to the text a model continues, and from its continuation back to a program.

Every prompt ends in a prefill, the first characters of the answer: "```python\\ndef name(arguments):" for function
tasks. It ends exactly at the colon: a trailing newline would split the token that carries newline and indentation, and a
small model then writes nothing usable. The prefill's code is part of the program.
"""

import dataclasses
import hashlib
import re
from typing import Any

from lib.tasks.task import Task

FENCE = "```"
# A function is over when top-level code begins again; what small models add there is demonstration, not answer.
FUNCTION_STOPS = (FENCE, "\nprint(", "\nassert", "\nif __name__", "\n#")
PROGRAM_STOPS = (FENCE,)
LANGUAGE_NAMES = {
    "python": "Python",
    "lua": "Lua",
    "ocaml": "OCaml",
    "r": "R",
    "fortran": "Fortran",
    "julia": "Julia",
}


@dataclasses.dataclass(frozen=True)
class Prompt:
    """What a model is given for one task: `text` ends with `prefill`."""

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
        """The program a completion stands for: the prefill's code and the text up to the first stop."""
        return (self.code_prefill + cut_at_stops(completion, self.stops)).rstrip() + "\n"


def build_prompt(task: Task, tokenizer: Any) -> Prompt:
    """The model's own chat template around the task, then the prefill."""
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": question(task)}], tokenize=False, add_generation_prompt=True
    )
    prefill = f"{FENCE}{task.programming_language}\n"
    if task.mode == "function" and task.programming_language == "python":
        prefill += f"def {signature(task)}"
    stops = FUNCTION_STOPS if task.mode == "function" else PROGRAM_STOPS
    return Prompt(task.task_id, text + prefill, prefill, stops)


def question(task: Task) -> str:
    """The user's message: the task in its own words, nothing hidden.

    Visible tests are left out too: on the training and development splits they cost the embedded model 16 % more tokens and left
    45 instead of 50 of 180 tasks solved. They serve to select, not to prompt.
    """
    if task.mode == "program":
        name = LANGUAGE_NAMES.get(task.programming_language, task.programming_language)
        return f"{task.prompt}\n\nWrite the program in {name}."
    return task.prompt


def signature(task: Task) -> str:
    """`name(arguments):` where the prompt states the arguments, else `name(` for the model to finish."""
    stated = re.search(rf"\b{re.escape(task.entry_point)}\(([\w\s,*=]*)\)", task.prompt)
    return f"{task.entry_point}({stated[1].strip()}):" if stated else f"{task.entry_point}("


def cut_at_stops(text: str, stops: tuple[str, ...]) -> str:
    """`text` up to the earliest stop string, exclusive."""
    cuts = [position for stop in stops if (position := text.find(stop)) >= 0]
    return text[: min(cuts)] if cuts else text


def winning_completion(prompt: Prompt, program: str) -> str:
    """What the model should have written after the prompt to give `program`: its text after the prefill, then the fence.

    Raises ValueError when the program does not begin with the prefill's code.
    """
    if not program.startswith(prompt.code_prefill):
        raise ValueError(
            f"{prompt.task_id}: the program does not begin with the prompt's prefill {prompt.code_prefill!r}"
        )
    return program[len(prompt.code_prefill) :].rstrip() + f"\n{FENCE}"
