"""System-call filters, as classic BPF assembled by hand.

Three filters, each a pure function that returns packed instructions for `kernel.install_filter`:

- `base_filter`: laid once on every worker and launcher, and so on every program. No sockets, namespaces, mounts, keys,
  tracing, io_uring, memfd, System V objects, scheduling of others, no signals by way of descriptor ownership.
- `solo_filter`: laid on each candidate. No new processes (threads are fine), no exec, no signals, no leaving the group.
- `no_files_filter`: laid where Landlock is missing. No file can be opened, created or renamed by name at all.

Numbers are x86-64's. Another instruction set, or the 32-bit entry points of this one, kills the process.
"""

import errno
import struct
from collections.abc import Iterable, Mapping

_ARCH_X86_64 = 0xC000003E
_LAST_KNOWN = 462  # newer calls, and the x32 range, do not exist here
_LOAD, _EQUAL, _GREATER_EQUAL, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_CLONE_THREAD = 0x10000
_OWN_FATE = (1, 4)  # prctl: end with the parent, whether others may look in

SIGNALS = (62, 129, 200, 234, 297, 424)  # kill, rt_sigqueueinfo, tkill, tgkill, rt_tgsigqueueinfo, pidfd_send_signal
PLAIN_SIGNALS = (62, 200, 234)  # kill, tkill, tgkill
HIDING = (46, 307)  # sendmsg, sendmmsg: a file in a socket's queue is in nobody's table of open files
NEW_GROUP = (109, 112)  # setpgid, setsid
NEW_PROCESS = (57, 58)  # fork, vfork; clone and clone3 are judged by their flags
EXEC = (59, 322)  # execve, execveat
OPENS = (
    (2, 85, 257, 437)  # open, creat, openat, openat2
    + (76, 82, 83, 84, 86, 87, 88, 89, 90, 92, 94)  # truncate, rename, mkdir, rmdir, link, unlink, symlink, readlink...
    + (133, 258, 259, 260, 263, 264, 265, 266, 267, 268, 316)  # mknod and the *at forms
    + (188, 189, 191, 192, 194, 195, 197, 198, 452)  # extended attributes, fchmodat2
)
ATTRIBUTES = (90, 91, 92, 93, 94, 132, 235, 260, 261, 268, 280, 452)  # chmod, chown, utime and their forms
PATH_WRITES = (76, 188, 189, 190, 197, 198, 199)  # truncate by path (Landlock 1 and 2 let it pass), extended attributes
_FORBIDDEN = (
    (101, 310, 311, 312, 434, 438, 440, 448)  # ptrace, process_vm_*, kcmp, pidfd_*, process_madvise, process_mrelease
    + (256, 279, 298, 321, 323)  # migrate_pages, move_pages, perf_event_open, bpf, userfaultfd
    + (248, 249, 250, 425, 426, 427, 319, 447)  # keys, io_uring, memfd_create, memfd_secret
    + (155, 161, 165, 166, 272, 308, 428, 429, 430, 431, 432, 433, 442, 457, 458)  # mounts, chroot, unshare, setns
    + (167, 168, 169, 170, 171, 172, 173, 175, 176, 246, 313, 320)  # swap, reboot, names, ports, modules, kexec
    + (
        103,
        134,
        135,
        136,
        139,
        153,
        154,
        159,
        163,
        164,
        179,
        180,
        212,
        227,
        305,
        443,
    )  # syslog, personality, clocks, quota
    + (254, 300, 303, 304)  # inotify_add_watch, fanotify_init, file handles
    + (29, 30, 31, 64, 65, 66, 68, 69, 70, 71, 220, 240)  # System V shared memory, semaphores, queues; mq_open
    + (41, 42, 43, 49, 50, 288)  # socket, connect, accept, bind, listen, accept4 (socketpair stays: asyncio needs it)
    + (141, 142, 144, 203, 251, 314)  # priorities and affinity, which reach other processes of one user
)
_FORBIDDEN_VALUES: Mapping[tuple[int, int], tuple[int, ...]] = {  # (call, argument) -> values refused
    (72, 1): (8, 10, 15, 1024, 1026),  # fcntl: owner, signal, extended owner, lease, notify
    (16, 1): (0x5412, 0x541C, 0x8901, 0x8902),  # ioctl: terminal input, console, socket owner
    (157, 0): (36, 0x59616D61),  # prctl: subreaper, ptracer
}


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)


def _refuse(number: int = errno.EPERM) -> bytes:
    return _instruction(_RETURN, _ERRNO | number)


def _prologue() -> bytes:
    """Check the instruction set, leave the call's number loaded, refuse numbers newer than this file."""
    return b"".join(
        (
            _instruction(_LOAD, 4),
            _instruction(_EQUAL, _ARCH_X86_64, 1, 0),
            _instruction(_RETURN, _KILL),
            _instruction(_LOAD, 0),
            _instruction(_GREATER_EQUAL, _LAST_KNOWN, 0, 1),
            _refuse(errno.ENOSYS),
        )
    )


def _refuse_calls(numbers: Iterable[int], error: int = errno.EPERM) -> bytes:
    return b"".join(_instruction(_EQUAL, number, 0, 1) + _refuse(error) for number in numbers)


def _on_argument(call: int, argument: int, body: bytes) -> bytes:
    """Run `body` with the low half of `argument` loaded when the call is `call`; allow what body lets fall through."""
    block = _instruction(_LOAD, 16 + 8 * argument) + body + _instruction(_RETURN, _ALLOW)
    return _instruction(_EQUAL, call, 0, len(block) // 8) + block


def _refuse_values(call: int, argument: int, values: Iterable[int]) -> bytes:
    return _on_argument(call, argument, _refuse_calls(values))


def _refuse_flags(flags: int) -> bytes:
    return _instruction(_ANY_BIT, flags, 0, 1) + _refuse()


# Type of a socket without its flags; raw Unix sockets are datagram sockets by another name.
_STREAMS_ONLY = _instruction(_AND, 0xF) + _instruction(_EQUAL, 1, 2, 0) + _instruction(_EQUAL, 5, 1, 0) + _refuse()
_OWN_PROCESS_ONLY = _instruction(_EQUAL, 0, 1, 0) + _refuse()


def base_filter() -> bytes:
    """The filter every worker and program runs under."""
    new_namespaces = 0x7E020000 | 0x80  # CLONE_NEW*, CLONE_NEWTIME
    return b"".join(
        (
            _prologue(),
            _refuse_calls(_FORBIDDEN),
            _refuse_calls((435,), errno.ENOSYS),  # clone3 hides its flags in memory; the C library falls back to clone
            *(_refuse_values(call, argument, values) for (call, argument), values in _FORBIDDEN_VALUES.items()),
            _on_argument(53, 1, _STREAMS_ONLY),  # socketpair: a datagram socket can send to any address
            _on_argument(56, 0, _refuse_flags(new_namespaces & ~0xFF)),
            _instruction(_RETURN, _ALLOW),
        )
    )


def solo_filter(keep_exec: bool = False) -> bytes:
    """No new process (a clone must be a thread), no signals, no new group; no exec unless `keep_exec`."""
    thread_only = _instruction(_ANY_BIT, _CLONE_THREAD, 1, 0) + _refuse()
    calls = SIGNALS + NEW_GROUP + NEW_PROCESS + HIDING + (() if keep_exec else EXEC)
    return b"".join(
        (
            _prologue(),
            _refuse_calls(calls),
            _on_argument(302, 0, _OWN_PROCESS_ONLY),
            _refuse_values(157, 0, _OWN_FATE),
            _on_argument(56, 0, thread_only),
            _instruction(_RETURN, _ALLOW),
        )
    )


def own_files_filter() -> bytes:
    """Where programs keep the caller's user id: attributes of files cannot change, which Landlock does not cover.

    Setting them seems to succeed, because libraries set them on their own files as a matter of course.
    """
    calls = _refuse_calls(ATTRIBUTES, 0) + _refuse_calls(PATH_WRITES)
    return b"".join((_prologue(), calls, _instruction(_RETURN, _ALLOW)))


def group_filter(keep_signals: bool) -> bytes:
    """For programs that start helpers: processes yes, new groups no, signals where something else keeps them inside."""
    calls = NEW_GROUP + HIDING + tuple(call for call in SIGNALS if not keep_signals or call not in PLAIN_SIGNALS)
    own_limits, readable = _on_argument(302, 0, _OWN_PROCESS_ONLY), _refuse_values(157, 0, _OWN_FATE)
    return b"".join((_prologue(), _refuse_calls(calls), own_limits, readable, _instruction(_RETURN, _ALLOW)))


def no_files_filter() -> bytes:
    """No file by name: what is already open is all there is."""
    return b"".join((_prologue(), _refuse_calls(OPENS, errno.EACCES), _instruction(_RETURN, _ALLOW)))


def no_namespaces_filter() -> bytes:
    """Refuse unshare and setns only: how a container without CAP_SYS_ADMIN answers; used to emulate one in tests."""
    return b"".join((_prologue(), _refuse_calls((272, 308)), _instruction(_RETURN, _ALLOW)))
