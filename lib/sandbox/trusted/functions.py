"""Function tasks of languages other than Python, the MultiPL-E way: prompt, completion and tests make one program."""

import re

from lib.sandbox.languages import FOLDER, Language
from lib.tasks.extract import defines


def assemble(
    prompt: str, program: str, tests: tuple[str, ...], entry_point: str, language: Language, mark: str
) -> tuple[str, dict[str, str]]:
    """(source, further files) of the program that prints `mark` as its last line iff every test passed.

    A program that defines the function itself stands alone; anything else continues the prompt up to a stop token.
    """
    text = "\n".join(tests)
    name = entry_point or _function_under_test(text)
    whole = defines(program, name, language.name)
    if language.name == "ocaml":
        prompt, text = _readable_ocaml(prompt, text)
    body = program if whole else prompt + cut(program, language.stop_tokens)
    files: dict[str, str] = {}
    if "luaunit" in text:  # its runner ends the process, so it is the one to print the mark
        files["luaunit.lua"] = (FOLDER / "luaunit.lua").read_text(encoding="utf-8").replace("@MARK@", mark)
        return f"{body}\n{text}\n", files
    return f"{body}\n{text}\n{language.print_mark.replace('@MARK@', mark)}\n", files


def _readable_ocaml(prompt: str, tests: str) -> tuple[str, str]:
    """MultiPL-E's OCaml without two slips: `(~1)` and `(~1).0` for negative numbers, lone quotes in the opening comment."""
    tests = re.sub(r"\(~(\d+)\)\.(\d+)", r"(-\1.\2)", tests)
    tests = re.sub(r"\(~(?=\d)", "(-", tests)
    return re.sub(r"\A\s*\(\*.*?\*\)\s*", "", prompt, flags=re.DOTALL), tests


def cut(completion: str, stop_tokens: tuple[str, ...]) -> str:
    """The completion up to the first of the stop tokens."""
    ends = [position for token in stop_tokens if (position := completion.find(token)) >= 0]
    return completion[: min(ends, default=len(completion))]


def _function_under_test(tests: str) -> str:
    match = re.search(r"\bcandidate\s*(?:<-|=)\s*([A-Za-z_][\w.]*)", tests)
    return match[1] if match else ""
