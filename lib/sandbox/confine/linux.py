"""The few Linux calls Python has no name for: prctl, unshare, mount, capset and Landlock, through ctypes.

Every function raises OSError with the kernel's errno. x86-64 only, like the seccomp filters beside it.
"""

import ctypes
import os
import signal
import struct
import time
from collections.abc import Iterable

_libc = ctypes.CDLL(None, use_errno=True)
_python = ctypes.PyDLL(None, use_errno=True)  # calls through it keep the interpreter's lock

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP = 1, 4, 22
PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 24, 36, 38, 47
SECCOMP_MODE_FILTER = 2

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x20000, 0x2000000, 0x4000000
CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x8000000, 0x10000000, 0x20000000, 0x40000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
MNT_DETACH = 2

CAP_SYS_CHROOT, CAP_SYS_ADMIN, CAP_SETUID = 18, 21, 7

_SYS_PIVOT_ROOT, _SYS_CAPGET, _SYS_CAPSET = 155, 125, 126
_SYS_LANDLOCK_CREATE, _SYS_LANDLOCK_ADD, _SYS_LANDLOCK_RESTRICT = 444, 445, 446


def _checked(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def _path(text: str | None) -> bytes | None:
    return None if text is None else os.fsencode(text)


def plain_fork() -> int:
    """fork(2) without the hooks of os.fork, for a process with one thread.

    The hooks mend locks that other threads might have held and reseed `random`; they cost a child 190 page faults,
    0.6 of 1.5 ms. A machine that has no process to give for a moment (EAGAIN) is asked again for a second.
    """
    for _ in range(50):
        try:
            return _checked(_python.fork(), "fork")
        except BlockingIOError:
            time.sleep(0.02)
    return _checked(_python.fork(), "fork")


def prctl(option: int, argument: int = 0, third: int = 0) -> int:
    """prctl(2) with up to two arguments."""
    long = ctypes.c_ulong
    return _checked(_libc.prctl(option, long(argument), long(third), long(0), long(0)), f"prctl({option})")


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends; exit now if that has happened already.

    `parent` is the process id of the one that started it. A change of user id undoes it.
    """
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def unshare(flags: int) -> None:
    """Move this process (or, for pids, its next child) into new namespaces."""
    _checked(_libc.unshare(flags), "unshare")


def mount(source: str | None, target: str, kind: str | None = None, flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    result = _libc.mount(_path(source), _path(target), _path(kind), ctypes.c_ulong(flags), _path(data))
    _checked(result, f"mount {target}")


def pivot_root(new_root: str) -> None:
    """Make `new_root` the root directory and let go of the old one for good."""
    os.chdir(new_root)
    _checked(_libc.syscall(_SYS_PIVOT_ROOT, b".", b"."), "pivot_root")
    _checked(_libc.umount2(b".", MNT_DETACH), "umount the old root")
    os.chdir("/")


def effective_capabilities() -> int:
    """This process's effective capabilities as a bit mask."""
    header, data = struct.pack("Ii", 0x20080522, 0), ctypes.create_string_buffer(24)
    _checked(_libc.syscall(_SYS_CAPGET, header, data), "capget")
    low, _, _, high, _, _ = struct.unpack("6I", data.raw)
    return low | high << 32


def drop_capabilities(keep: int = 0) -> None:
    """Give up every capability outside the bit mask `keep`, in all five sets."""
    for capability in range(64):
        if keep >> capability & 1:
            continue
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError:  # past the kernel's last capability, or not ours to drop from the bounding set
            continue
    held = effective_capabilities() & keep
    low, high = held & 0xFFFFFFFF, held >> 32
    data = struct.pack("6I", low, low, 0, high, high, 0)
    _checked(_libc.syscall(_SYS_CAPSET, struct.pack("Ii", 0x20080522, 0), data), "capset")


def landlock_abi() -> int:
    """The kernel's Landlock version, 0 where there is none."""
    return max(0, _libc.syscall(_SYS_LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1))


# Landlock rights, by the bit the kernel gives them; WRITE holds all that create, change or remove.
EXECUTE, READ_FILE, READ_DIR = 1, 4, 8
READ = READ_FILE | READ_DIR
WRITE_FILE = 2
WRITE = 2 | sum(1 << bit for bit in (4, 5, 7, 8, 10, 12, 13, 14))
SIGNAL_SCOPE_ABI = 6
_RIGHTS_BY_ABI = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_FILE_RIGHTS = EXECUTE | READ_FILE | WRITE_FILE | 1 << 14 | 1 << 15


def landlock_ruleset(rules: Iterable[tuple[str, int]]) -> int:
    """Return a descriptor for `landlock_enter`: every file right is denied but those of `rules` (path, rights).

    Also denied are TCP (version 4), and abstract sockets and signals that leave the processes under it (version 6).
    A path that does not exist is passed over.
    """
    abi = landlock_abi()
    handled = (1 << _RIGHTS_BY_ABI.get(abi, 16)) - 1
    network, scoped = (3 if abi >= 4 else 0), (3 if abi >= SIGNAL_SCOPE_ABI else 0)
    attributes = struct.pack("QQQ", handled, network, scoped)[: 8 if abi < 4 else 16 if abi < 6 else 24]
    size = ctypes.c_size_t(len(attributes))
    ruleset = _checked(_libc.syscall(_SYS_LANDLOCK_CREATE, attributes, size, 0), "landlock_create_ruleset")
    for path, rights in rules:
        _landlock_allow(ruleset, path, rights & handled)
    return ruleset


def landlock_enter(ruleset: int) -> None:
    """Put a ruleset on this process and its children, for good. Needs no_new_privs."""
    _checked(_libc.syscall(_SYS_LANDLOCK_RESTRICT, ruleset, 0), "landlock_restrict_self")


def _landlock_allow(ruleset: int, path: str, rights: int) -> None:
    try:
        target = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not os.path.isdir(path):
            rights &= _FILE_RIGHTS
        rule = struct.pack("=Qi", rights, target)
        _checked(_libc.syscall(_SYS_LANDLOCK_ADD, ruleset, 1, rule, 0), f"landlock rule for {path}")
    finally:
        os.close(target)


class Filter:
    """A seccomp program (packed BPF instructions of 8 bytes each), ready to be installed at the cost of one call."""

    def __init__(self, program: bytes) -> None:
        self._code = ctypes.create_string_buffer(program, len(program))
        header = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(self._code))
        self._header = ctypes.create_string_buffer(header, 16)
        mode, address = ctypes.c_ulong(SECCOMP_MODE_FILTER), ctypes.c_ulong(ctypes.addressof(self._header))
        self._arguments = (PR_SET_SECCOMP, mode, address, ctypes.c_ulong(0), ctypes.c_ulong(0))

    def install(self) -> None:
        """Put it on this thread and its children, for good. Needs no_new_privs, or CAP_SYS_ADMIN."""
        _checked(_libc.prctl(*self._arguments), "prctl(PR_SET_SECCOMP)")


def install_filter(program: bytes) -> None:
    """Put a seccomp program on this thread and its children, for good."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    Filter(program).install()
