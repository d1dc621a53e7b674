"""Function tasks of languages other than Python, as MultiPL-E has them: the program and its tests share a process.

The tests bind what they compare with before the program is loaded (lib/sandbox/languages/tests.*). After the last
test they print a mark, drawn for this run alone and handed to them on stdin, which is gone once read; a program that
leaves early prints none.
"""

import dataclasses
import re

from lib.sandbox.languages import FOLDER, Language
from lib.tasks.extract import defines


@dataclasses.dataclass(frozen=True)
class Assembled:
    """The files of a function task; `other` is the program in its second reading, for when the first does not
    compile."""

    main: str
    files: dict[str, str]
    other: str = ""
    unit: str = ""  # OCaml: the unit that holds the mark


def assemble(
    prompt: str, program: str, tests: tuple[str, ...], entry_point: str, language: Language, mark: str
) -> Assembled:
    """Return the files that print `mark` as their last line if and only if every test passes.

    A program that defines the function itself stands alone; anything else continues the prompt up to a stop token.
    """
    text = "\n".join(tests)
    name = entry_point or function_under_test(text)
    if language.name == "ocaml":
        prompt, text = _readable_ocaml(prompt, text)
    readings = [program, prompt + cut(program, language.stop_tokens)]
    if not (name and defines(program, name, language.name)):
        readings.reverse()
    unit = f"mark_{mark[:16]}"
    main = (FOLDER / f"tests.{language.file_ext}").read_text(encoding="utf-8")
    parts = {"ENTRY": name, "TESTS": text, "MARK": mark, "UNIT": unit.capitalize()}
    main = re.sub(r"@(ENTRY|TESTS|MARK|UNIT)@", lambda part: parts[part[1]], main)
    files = {f"program.{language.file_ext}": readings[0]}
    if language.name == "ocaml":
        files[f"{unit}.ml"] = 'let mark = input_line stdin\nlet finish () = print_string ("\\n" ^ mark ^ "\\n")\n'
    elif language.name != "julia":
        files |= {f"other.{language.file_ext}": readings[1], f"given.{language.file_ext}": text}
    return Assembled(main, files, readings[1], unit if language.name == "ocaml" else "")


def _readable_ocaml(prompt: str, tests: str) -> tuple[str, str]:
    """MultiPL-E's OCaml without two slips: `(~1)` and `(~1).0` for negative numbers, lone quotes in the opening
    comment."""
    tests = re.sub(r"\(~(\d+)\)\.(\d+)", r"(-\1.\2)", tests)
    tests = re.sub(r"\(~(?=\d)", "(-", tests)
    return re.sub(r"\A\s*\(\*.*?\*\)\s*", "", prompt, flags=re.DOTALL), tests


def cut(completion: str, stop_tokens: tuple[str, ...]) -> str:
    """Return the completion up to the first of the stop tokens."""
    ends = [position for token in stop_tokens if (position := completion.find(token)) >= 0]
    return completion[: min(ends, default=len(completion))]


def function_under_test(tests: str) -> str:
    """Return the name that the tests call `candidate`, empty where there is none."""
    match = re.search(r"\bcandidate\s*(?:<-|=)\s*([A-Za-z_][\w.']*)", tests)
    return match[1] if match else ""
