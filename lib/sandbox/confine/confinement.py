"""Confine the current process and everything it will start: the layers of modes A, B and C.

| layer                           | A (namespaces) | B (container root) | C (plain user) |
|---------------------------------|----------------|--------------------|----------------|
| own pids, net, mounts, ipc, uts | yes            | no                 | no             |
| a root of read-only binds       | yes            | no                 | no             |
| scratch on a tmpfs of its own   | yes            | no, watched        | no, watched    |
| /dev/stdin, stdout, stderr, fd  | yes            | yes                | yes            |
| a user id of its own            | yes            | yes                | no             |
| no capabilities, no new ones    | yes            | yes                | yes            |
| Landlock                        | where present  | or imports from memory | the same |
| seccomp                         | yes            | yes                | yes            |
"""

import dataclasses
import os
import resource

from lib.sandbox.confine import linux as kernel
from lib.sandbox.confine import seccomp

MEBIBYTE = 1 << 20
SCRATCH_BYTES = 64 * MEBIBYTE
SCRATCH_ENTRIES = 4096
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
_KEEP_FLAGS = 2 | 4 | 8 | 1024 | 2048  # a bind in a user namespace must keep these flags of its source


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a worker does to itself before it runs anything untrusted. `read` may also be executed if `execute`."""

    mode: str  # "A", "B", "C", "container", or "none" where the caller allowed it
    uid: int  # the user to become; -1 to stay
    scratch: str  # the one writable directory
    read: tuple[str, ...] = ()
    list_only: tuple[str, ...] = ()  # directories whose names may be listed, contents not read
    execute: bool = False
    landlock: bool = True
    processes: int = 64

    @property
    def own_processes(self) -> bool:
        """Whether no process but this plan's is there, by a namespace or by a container."""
        return self.mode in ("A", "container")

    @property
    def watched(self) -> bool:
        """Whether scratch is measured, for which this plan's processes can read each other; Landlock forbids programs
        to."""
        return self.mode == "none" or self.mode != "A" and self.landlock

    @property
    def no_file_access(self) -> bool:
        """Whether no file can be opened by name: neither Landlock nor a root of our own guards them."""
        return self.mode in ("B", "C") and not self.landlock


def enter_namespaces(plan: Plan) -> None:
    """Mode A: unshare everything and go on as process 1 of a new pid namespace; the calling process exits."""
    if plan.mode != "A":
        return
    flags = kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
    if not kernel.effective_capabilities() >> kernel.CAP_SYS_ADMIN & 1:
        unshare_user(flags, plan.uid)
    else:
        kernel.unshare(flags)
    if os.fork():
        os._exit(0)
    _build_root(plan)


def unshare_user(flags: int, inner_uid: int) -> None:
    """Enter a new user namespace in which the caller is `inner_uid`, and the other namespaces with it."""
    uid, gid = os.getuid(), os.getgid()
    kernel.unshare(flags | kernel.CLONE_NEWUSER)
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{inner_uid} {uid} 1"),
        ("gid_map", f"{inner_uid} {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def _build_root(plan: Plan) -> None:
    kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    root = "/proc"  # exists everywhere, and nothing under it is wanted inside
    kernel.mount("tmpfs", root, "tmpfs", kernel.MS_NOSUID, "size=1m,mode=755")
    for path in (*plan.read, *DEVICES):
        _bind(path, root + path)
    scratch = root + plan.scratch
    os.makedirs(scratch, exist_ok=True)
    options = f"size={SCRATCH_BYTES},nr_inodes={SCRATCH_ENTRIES},mode=777"
    kernel.mount("tmpfs", scratch, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, options)
    if plan.execute:  # some runtimes find themselves through /proc/self/exe; it shows this namespace's processes only
        os.makedirs(root + "/proc", exist_ok=True)
        kernel.mount("proc", root + "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV, "subset=pid")
        for name, target in {"stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "fd": "fd"}.items():
            os.symlink(f"/proc/self/{target}", f"{root}/dev/{name}")
    kernel.pivot_root(root)
    kernel.mount(None, "/", None, kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | kernel.MS_NOSUID)


def _bind(source: str, target: str) -> None:
    if not os.path.lexists(source) or os.path.lexists(target):
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.islink(source):
        os.symlink(os.readlink(source), target)
        return
    if os.path.isdir(source):
        os.mkdir(target)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    kernel.mount(source, target, None, kernel.MS_BIND | kernel.MS_REC)
    flags = os.statvfs(target).f_flag & _KEEP_FLAGS
    if not source.startswith("/dev/"):
        flags |= kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV
    kernel.mount(None, target, None, kernel.MS_REMOUNT | kernel.MS_BIND | flags)


def drop_privileges(plan: Plan) -> None:
    """Become the plan's user and hold no capability. Where scratch is watched, readable: it is by what files are
    held."""
    if plan.uid >= 0 and os.getuid() != plan.uid:
        os.setgroups([])
        os.setresgid(plan.uid, plan.uid, plan.uid)
        os.setresuid(plan.uid, plan.uid, plan.uid)
    kernel.drop_capabilities()
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    kernel.prctl(kernel.PR_SET_DUMPABLE, int(plan.watched))


def file_rules(plan: Plan) -> int:
    """Landlock for what this process will start: only `read` is readable, only scratch writable. -1: no Landlock
    here."""
    if not plan.landlock:
        return -1
    readable = kernel.READ | (kernel.EXECUTE if plan.execute else 0)
    rules = [(path, readable) for path in plan.read if not os.path.islink(path)]
    rules += [(path, kernel.READ_DIR) for path in plan.list_only]
    rules += [(path, kernel.READ_FILE | kernel.WRITE_FILE) for path in DEVICES]
    rules.append((plan.scratch, readable | kernel.WRITE))
    return kernel.landlock_ruleset(rules)


def limit_own_memory() -> None:
    """No core files and no locked memory, here and in all children."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))


def limit_processes(plan: Plan, process_table: int | str = "/proc") -> None:
    """Hold this process and its children to `plan.processes` processes and threads.

    Where they keep the caller's user id, the kernel counts all that this user has; so does the ceiling, at this moment.
    """
    ceiling = plan.processes + (_threads_of_user(process_table) if plan.uid < 0 else 0)
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    if hard != resource.RLIM_INFINITY:
        ceiling = min(ceiling, hard)
    resource.setrlimit(resource.RLIMIT_NPROC, (ceiling, ceiling))


def _threads_of_user(process_table: int | str) -> int:
    """Threads that the kernel now counts against this user; those of processes hidden from us are not seen."""
    count, user = 0, os.getuid()
    for name in filter(str.isdigit, os.listdir(process_table)):
        try:
            if os.stat(f"/proc/{name}").st_uid == user or os.stat(f"/proc/{name}/task").st_uid == user:
                count += os.stat(f"/proc/{name}/task").st_nlink - 2
        except OSError:
            continue
    return count


def forbid_calls(plan: Plan) -> None:
    """seccomp: the base filter, and no file by name where neither Landlock nor a root of our own guards files."""
    if plan.mode == "none":
        return
    if plan.no_file_access:
        kernel.install_filter(seccomp.no_files_filter())
    kernel.install_filter(seccomp.base_filter())
