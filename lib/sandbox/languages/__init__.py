"""Language manifests: one YAML file a language; adding a language is adding a file.

| key          | means |
|--------------|-------|
| install      | shell lines that install the toolchain on Debian; the OCI backend builds its image from them |
| file_ext     | the program is written to main.<file_ext> |
| compile      | command that builds it, absent for interpreters |
| run          | command that runs it, once a case |
| version      | command that prints the toolchain's version |
| stdin/stdout | how programs read and write, in words for a prompt |
| conventions  | one line for prompts: how programs print numbers and blanks |
| processes    | true when `run` itself must start processes |
| reserve_mb   | address space the runtime maps beyond what programs use |
| stop_tokens  | where a completion of a function prompt ends |
| functions    | true when tests.<file_ext> beside this file runs function tests |
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


@dataclasses.dataclass(frozen=True)
class Language:
    """One manifest."""

    name: str
    install: str
    file_ext: str
    run: str
    version: str
    stdin: str
    stdout: str
    conventions: str = ""
    compile: str = ""
    processes: bool = False
    reserve_mb: int = 0
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
        fields: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Language(name=name, **{**fields, "stop_tokens": tuple(fields.get("stop_tokens", ()))})
    except (TypeError, AttributeError, ValueError, yaml.YAMLError) as error:
        raise SandboxError(
            f"{path}: {one_line(str(error))}; {FOLDER / '__init__.py'} says which keys there are"
        ) from None


def names() -> list[str]:
    """Languages with a manifest."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


@functools.cache
def version(name: str) -> str | None:
    """The first line the toolchain says about its version, None when part of it is missing."""
    language = load(name)
    if not all(find_tool(tool) for tool in language.tools):
        return None
    try:
        done = subprocess.run(language.command(language.version), capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    said = (done.stdout + done.stderr).strip()
    return said.splitlines()[0] if done.returncode == 0 and said else None


def available() -> dict[str, str | None]:
    """Every language with its toolchain's version, or None where it is not installed."""
    return {name: version(name) for name in names()}
