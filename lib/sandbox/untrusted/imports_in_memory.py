"""Imports from memory, for workers that may not open files: modes B and C on kernels without Landlock.

Before the door shuts, every module of the standard library is read into memory as bytecode and every extension module
is loaded, so that a lazy import still works when no path can be opened any more.
"""

import contextlib
import importlib
import importlib.util
import marshal
import os
import sys
import sysconfig
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType

_LEFT_OUT = {
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "idlelib",
    "lib2to3",
    "turtledemo",
    "ensurepip",
    "__pycache__",
}


class MemoryImporter:
    """A meta path finder and loader over bytecode held in memory."""

    def __init__(self) -> None:
        self.code: dict[str, bytes] = {}
        self.packages: set[str] = set()
        self._collect(os.path.realpath(sysconfig.get_path("stdlib")), "")

    def _collect(self, folder: str, prefix: str) -> None:
        for entry in os.scandir(folder):
            if entry.name in _LEFT_OUT:
                continue
            if entry.is_dir() and os.path.isfile(os.path.join(entry.path, "__init__.py")):
                self.packages.add(prefix + entry.name)
                self._add(prefix + entry.name, os.path.join(entry.path, "__init__.py"))
                self._collect(entry.path, f"{prefix}{entry.name}.")
            elif entry.name.endswith(".py") and entry.name != "__init__.py":
                self._add(prefix + entry.name[:-3], entry.path)

    def _add(self, name: str, path: str) -> None:
        """Take the cached bytecode where there is some (its first 16 bytes are a header), else compile."""
        with contextlib.suppress(OSError), open(importlib.util.cache_from_source(path), "rb") as cached:
            raw = cached.read()
            if raw[:4] == importlib.util.MAGIC_NUMBER:
                self.code[name] = raw[16:]
                return
        with contextlib.suppress(SyntaxError, UnicodeDecodeError, OSError), open(path, encoding="utf-8") as source:
            self.code[name] = marshal.dumps(compile(source.read(), path, "exec", dont_inherit=True))

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a module held here."""
        if name not in self.code:
            return None
        return ModuleSpec(name, self, origin="memory", is_package=name in self.packages)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """Modules are plain modules."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's bytecode in it."""
        code: CodeType = marshal.loads(self.code[module.__name__])
        exec(code, module.__dict__)


def load_extensions() -> None:
    """Import every extension module of the standard library that this machine can load."""
    folder = sysconfig.get_path("platstdlib") + "/lib-dynload"
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        module = name.partition(".")[0]
        if not module.startswith(("_test", "_tkinter", "xx", "_xx", "_ctypes_test", "readline", "_curses")):
            with contextlib.suppress(Exception):
                importlib.import_module(module)


def install() -> None:
    """Read everything now; from here on imports touch no file."""
    load_extensions()
    importer = MemoryImporter()
    sys.meta_path[:] = [finder for finder in sys.meta_path if getattr(finder, "__name__", "") != "PathFinder"]
    sys.meta_path.append(importer)  # type: ignore[arg-type]
