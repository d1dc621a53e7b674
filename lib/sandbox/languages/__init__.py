"""Language manifests: one YAML file per language; adding a language is adding a file.

PolyCode's own shape (its Appendix D):

| key          | means |
|--------------|-------|
| language     | its name, as the file is called |
| install      | command, or list of commands, that install the toolchain on Debian, for container images |
| compile      | command that builds the program, absent or empty for interpreters |
| run          | command that runs it, once per case |
| file_ext     | with its dot; the program is written to main<file_ext>, which is what commands call it |
| stdin        | true: the program reads its input there |
| stdout       | true: the program is judged by what it prints there |

A command is a list of words, no shell reads it. Differs from the paper in these further keys, all optional:

| key          | means |
|--------------|-------|
| version      | command that prints the toolchain's version |
| packages     | versions, by package of `install`, that container images get |
| conventions  | one line for prompts: how programs print numbers and blanks |
| processes    | true when `run` itself must start processes |
| reserve_mb   | address space the runtime maps beyond what programs use |
| runtime_mb   | memory the runtime itself takes, on top of a program's limit, where address space says nothing |
| stop_tokens  | where a completion of a function prompt ends |
| functions    | true when tests<file_ext> beside this file runs function tests |
| function_compile | command that builds those, UNIT being the unit that holds the mark |
"""

import dataclasses
import functools
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from lib.sandbox.verdict import SandboxError, one_line
from lib.tasks.task import language_name

FOLDER = Path(__file__).parent
TOOL_PATH = (os.path.dirname(os.path.realpath(sys.executable)), "/usr/local/bin", "/usr/bin", "/bin")


COMMANDS = ("compile", "run", "version", "function_compile")
NEEDED = ("install", "run", "file_ext", "stdin", "stdout")


@dataclasses.dataclass(frozen=True)
class Language:
    """One manifest; commands are lines that shlex reads, `install` has one per line, `file_ext` has no dot."""

    name: str
    install: str
    file_ext: str
    run: str
    stdin: bool
    stdout: bool
    version: str = ""
    packages: dict[str, str] = dataclasses.field(default_factory=dict)
    conventions: str = ""
    compile: str = ""
    processes: bool = False
    reserve_mb: int = 0
    runtime_mb: int = 0
    stop_tokens: tuple[str, ...] = ()
    functions: bool = False
    function_compile: str = ""

    def command(self, line: str) -> list[str]:
        """The argument list of a manifest command, its program as an absolute path where one is installed."""
        words = shlex.split(line)
        found = None if words[0].startswith("./") else find_tool(words[0])
        return [found or words[0], *words[1:]]

    @property
    def tools(self) -> list[str]:
        """Programs this language's commands start with."""
        return [shlex.split(line)[0] for line in (self.compile, self.run) if line and not line.startswith("./")]


def find_tool(name: str) -> str | None:
    """Where a command is: on the fixed path first, then on the caller's, links followed."""
    found = shutil.which(name, path=os.pathsep.join(TOOL_PATH)) or shutil.which(name)
    return os.path.realpath(found) if found else None


@functools.cache
def load(name: str) -> Language:
    """The manifest of a language. Raises SandboxError for a name without one, or a manifest that is none."""
    given, name = name, language_name(name)
    path = FOLDER / f"{name}.yaml"
    if not re.fullmatch(r"[a-z0-9_+-]+", name) or not path.is_file():
        raise SandboxError(f"no language {given!r}; there are {', '.join(names())}")
    try:
        return parse(name, yaml.safe_load(path.read_text(encoding="utf-8")))
    except (TypeError, AttributeError, ValueError, yaml.YAMLError) as error:
        raise SandboxError(
            f"{path}: {one_line(str(error))}; {FOLDER / '__init__.py'} says which keys there are"
        ) from None


def parse(name: str, fields: dict[str, Any]) -> Language:
    """Return the language that a manifest's fields describe. Raises ValueError or TypeError naming the key."""
    if not isinstance(fields, dict):
        raise TypeError(f"a mapping of keys is expected, not {fields!r}")
    missing = [key for key in NEEDED if key not in fields]
    if missing:
        raise ValueError(f"{missing[0]} is missing")
    if language_name(str(fields.get("language", name))) != name:
        raise ValueError(f"language is {fields['language']!r}, but the file is called {name}.yaml")
    if fields["stdin"] is not True or fields["stdout"] is not True:
        raise ValueError("stdin and stdout should be true: a program reads its input there and is judged by its output")
    packages = fields.get("packages", {})
    if not isinstance(packages, dict) or not all(isinstance(version, str) for version in packages.values()):
        raise ValueError(f"packages is {packages!r}; versions by package are expected, such as {{lua5.4: 5.4.4-3}}")
    extension = str(fields["file_ext"]).removeprefix(".")
    read = {key: _main_file(_line(key, fields[key]), extension) for key in COMMANDS if fields.get(key)}
    rest = {key: value for key, value in fields.items() if key not in (*COMMANDS, "language", "install", "file_ext")}
    install, stops = "\n".join(map(shlex.join, _commands(fields["install"]))), tuple(fields.get("stop_tokens", ()))
    return Language(name, install, extension, **{**rest, **read, "stop_tokens": stops})


def _commands(value: Any) -> list[list[str]]:
    """Return the commands of `install`: one list of words, or a list of such lists."""
    several = isinstance(value, list) and all(isinstance(one, list) for one in value)
    return [shlex.split(_line("install", one)) for one in (value if several else [value]) if one]


def _line(key: str, value: Any) -> str:
    """Return a command as one line that shlex reads back; a line stands for its words."""
    if isinstance(value, list) and value and all(isinstance(word, str) for word in value):
        return shlex.join(value)
    if isinstance(value, str):
        return shlex.join(shlex.split(value))
    raise ValueError(f"{key} is {value!r}; a list of words is expected, such as [lua5.4, main.lua]")


def _main_file(line: str, extension: str) -> str:
    """Return a command whose source file, whatever the manifest calls it, is the one that programs are written to."""
    words = shlex.split(line)
    own = [word for word in words if re.fullmatch(rf"[\w./-]+\.{re.escape(extension)}", word)]
    sources = [word for word in own if "UNIT" not in word and word != f"program.{extension}"]
    return shlex.join([f"main.{extension}" if word in sources else word for word in words])


def names() -> list[str]:
    """Languages with a manifest."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


@functools.cache
def version(name: str) -> str | None:
    """The first line the toolchain says about its version, None when part of it is missing."""
    language = load(name)
    if not all(find_tool(tool) for tool in language.tools):
        return None
    if not language.version:
        return f"{name}, installed"
    try:
        done = subprocess.run(language.command(language.version), capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    said = (done.stdout + done.stderr).strip()
    return said.splitlines()[0] if done.returncode == 0 and said else None


def available() -> dict[str, str | None]:
    """Every language with its toolchain's version, or None where it is not installed."""
    return {name: version(name) for name in names()}
