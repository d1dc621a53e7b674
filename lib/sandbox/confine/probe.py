"""Find out, by trying in a throwaway process, which layers this machine gives, and say so in words."""

import dataclasses
import functools
import json
import os
import platform
import socket
import stat
import sys
import sysconfig
from collections.abc import Callable, Iterable
from typing import Any

from lib.sandbox.confine import confinement, seccomp
from lib.sandbox.confine import linux as kernel
from lib.sandbox.confine.confinement import Plan

SECOND_UID = 61_000  # workers become this user plus their grader's number where they may
_LEFT_OUT = {"site-packages", "dist-packages", "test", "idlelib", "__pycache__", "turtledemo", "ensurepip"}
_MODES = {
    "A": "A: Linux namespaces; programs see a root directory, a process table and a network of their own",
    "B": "B: container root; no namespaces here, so programs run without capabilities, behind Landlock and seccomp",
    "C": "C: plain user; programs run as you, behind Landlock and seccomp",
    "none": "none: nothing here can confine a program",
}


@dataclasses.dataclass(frozen=True)
class Report:
    """The strongest mode found and every layer with what it means here."""

    mode: str
    namespaces: bool
    landlock: int  # ABI version, 0: none
    seccomp: bool
    second_user: bool
    found: tuple[tuple[str, str], ...]

    @property
    def layers(self) -> tuple[tuple[str, str], ...]:
        """Every layer with what it means here; asks for a container engine too."""
        from lib.sandbox.trusted import oci

        return (*self.found, ("containers", oci.describe()))

    @property
    def confined(self) -> bool:
        """Whether programs are confined at all."""
        return self.mode != "none"

    def __str__(self) -> str:
        width = max(len(name) for name, _ in self.layers)
        lines = [f"{name:<{width}}  {words}" for name, words in self.layers]
        return "\n".join([f"sandbox mode {_MODES[self.mode]}", *lines])


@functools.lru_cache(maxsize=1)
def probe() -> Report:
    """What is here. Takes about 0.1 s the first time; nothing of this process changes."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return _report({"namespaces": False, "landlock": 0, "seccomp": False, "second_user": False, "root": False})
    from lib.sandbox.trusted.processes import spawn

    ours, theirs = socket.socketpair()
    with ours:
        process = spawn(
            "confine.probe", theirs, {"python_files": list(python_files())}, os.path.realpath(sys.executable)
        )
        theirs.close()
        ours.settimeout(60)
        found = ours.recv(65536)
        process.wait()
    if not found:
        raise RuntimeError("the probe of the sandbox layers did not answer")
    return _report(json.loads(found))


def _report(found: dict[str, Any]) -> Report:
    if not found["seccomp"]:
        mode = "none"
    elif found["namespaces"]:
        mode = "A"
    else:
        mode = "B" if found["root"] else "C"
    return Report(
        mode, found["namespaces"], found["landlock"], found["seccomp"], found["second_user"], _in_words(found, mode)
    )


def _in_words(found: dict[str, Any], mode: str) -> tuple[tuple[str, str], ...]:
    version = found["landlock"]
    without = (
        "not needed, programs have a root of their own"
        if mode == "A"
        else "programs open no file, and only Python runs"
    )
    second = "programs run as a user of their own"
    if not found["second_user"]:
        second = "programs keep your user id"
        if found["root"]:
            second += ": the interpreter's files are unreadable to another"
    return (
        ("namespaces", "yes" if found["namespaces"] else "no: unshare is refused, as Docker and Colab do"),
        ("landlock", f"yes, version {version}" if version else f"no: {without}"),
        ("seccomp", "yes" if found["seccomp"] else "no: this kernel or instruction set has no filter here"),
        ("second user", second),
        ("scratch", f"64 MiB, {'a file system of its own' if mode == 'A' else 'measured while a program runs'}"),
        ("signals", "among a program's own processes" if mode == "A" or version >= 6 else "none, also not to its own"),
    )


def main(descriptor: int, settings: str) -> None:
    """Entry point of the throwaway process."""
    files = json.loads(settings)["python_files"]
    found = {
        "root": os.geteuid() == 0,
        "namespaces": _works(_try_namespaces),
        "landlock": kernel.landlock_abi() if _works(_try_landlock) else 0,
        "seccomp": _works(lambda: kernel.install_filter(seccomp.base_filter())),
        "second_user": _works(lambda: _try_second_user(files)),
    }
    socket.socket(fileno=descriptor).send(json.dumps(found).encode())


def _works(attempt: Callable[[], None]) -> bool:
    pid = os.fork()
    if pid == 0:
        try:
            attempt()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1] == 0


def _try_landlock() -> None:
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    kernel.landlock_enter(kernel.landlock_ruleset([]))


def _try_namespaces() -> None:
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        os._exit(0 if os.read(reader, 1) else 1)
    os.close(reader)
    confinement.enter_namespaces(Plan("A", SECOND_UID, "/scratch", read=("/usr/lib",)))
    os.write(writer, b"1")


def _try_second_user(files: list[str]) -> None:
    confinement.drop_privileges(Plan("B", SECOND_UID, "/"))
    for path in (*files, os.path.realpath(sys.executable)):
        if not stat.S_ISDIR(os.stat(path).st_mode):  # raises where a folder above it is closed
            open(path, "rb").close()
    if os.getuid() != SECOND_UID:
        raise OSError("no second user")


# --------------------------------------------------------------------------------------------------------------- files


def python_files(modules: tuple[str, ...] = ()) -> tuple[str, ...]:
    """What a Python program may read: the standard library without site-packages, shared libraries, time zones."""
    standard = os.path.realpath(sysconfig.get_path("stdlib"))
    entries = [os.path.join(standard, name) for name in sorted(os.listdir(standard)) if name not in _LEFT_OUT]
    for module in modules:
        entries += package_files(module)
    return (*shared_libraries(), *entries)


def python_folders() -> tuple[str, ...]:
    """Directories the import system lists."""
    return (os.path.realpath(sysconfig.get_path("stdlib")),)


def package_files(module: str) -> list[str]:
    """Directory of an allowed module and of the shared libraries its wheel brought."""
    import importlib.util

    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"modules: there is no module {module!r} here")
    if not spec.submodule_search_locations:
        return [spec.origin]
    folder = next(iter(spec.submodule_search_locations))
    return [folder, *filter(os.path.isdir, [folder + ".libs"])]


def shared_libraries() -> tuple[str, ...]:
    """Where the dynamic linker looks."""
    multiarch = sysconfig.get_config_var("MULTIARCH") or "x86_64-linux-gnu"
    folders = ["/lib", "/lib64", f"/usr/lib/{multiarch}", "/usr/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo"]
    library = os.path.join(sys.base_prefix, "lib")
    folders += [os.path.join(library, name) for name in sorted(os.listdir(library)) if ".so" in name]
    return tuple(path for path in folders if os.path.lexists(path))


def tool_files(tools: Iterable[str]) -> tuple[str, ...]:
    """What programs of other languages may read and execute: the system's, and the trees of tools installed
    elsewhere."""
    system = (
        "/bin /sbin /lib /lib64 /usr/bin /usr/lib /usr/lib64 /usr/libexec /usr/share /usr/include /etc/alternatives"
    )
    paths = [*system.split(), "/etc/ld.so.cache", "/etc/R", "/usr/local/lib/R", os.path.realpath(sys.executable)]
    for tool in tools:
        if not tool.startswith(("/usr/bin/", "/bin/", sys.base_prefix)):
            paths += [tool, os.path.dirname(os.path.dirname(tool))] if not tool.startswith("/usr/local/") else [tool]
    return tuple(dict.fromkeys(path for path in (*paths, *python_files()) if os.path.lexists(path)))
