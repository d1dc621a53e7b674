"""The scratch folder of a worker or launcher: how much it holds, and emptying it.

Everything is reached by descriptor, one folder at a time, so that no depth, name or link leads anywhere else.
"""

import os
import stat

MAX_DEPTH = 64  # folders in folders that `usage` follows
_EXITING = 4  # PF_EXITING of the kernel
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def empty(folder: str) -> None:
    """Remove everything in `folder`, which nobody uses any more. Raises OSError for what cannot be removed."""
    here = os.open(folder, _FOLDER)
    above: list[tuple[str, list[str]]] = []  # (name, folders still to visit beside it) from the top to here
    try:
        waiting = _remove_files(here)
        while waiting or above:
            if waiting:
                name = waiting.pop()
                os.chmod(name, 0o700, dir_fd=here)
                here = _move(here, name)
                above.append((name, waiting))
                waiting = _remove_files(here)
            else:
                here = _move(here, "..")
                name, waiting = above.pop()
                os.rmdir(name, dir_fd=here)
    finally:
        os.close(here)


def _remove_files(here: int) -> list[str]:
    folders = []
    for entry in os.scandir(here):
        if entry.is_dir(follow_symlinks=False):
            folders.append(entry.name)
        else:
            os.unlink(entry.name, dir_fd=here)
    return folders


def _move(here: int, name: str) -> int:
    there = os.open(name, _FOLDER, dir_fd=here)
    os.close(here)
    return there


def usage(folder: str) -> tuple[int, int]:
    """Return (bytes, entries) that `folder` holds while programs use it.

    A folder deeper than MAX_DEPTH counts as a million entries.
    """
    total = entries = 0
    waiting = [(_open(folder, None), 0)]
    try:
        while waiting:
            here, depth = waiting.pop()
            if here < 0:
                continue
            try:
                for entry in os.scandir(here):
                    entries += 1
                    total += 512 * entry.stat(follow_symlinks=False).st_blocks
                    if entry.is_dir(follow_symlinks=False):
                        if depth == MAX_DEPTH or len(waiting) > 256:
                            entries += 1_000_000
                        else:
                            waiting.append((_open(entry.name, here), depth + 1))
            except OSError:  # removed meanwhile
                continue
            finally:
                os.close(here)
    finally:
        for here, _ in waiting:
            if here >= 0:
                os.close(here)
    return total, entries


def _open(name: str, above: int | None) -> int:
    """A descriptor of a folder, made readable where it is not; -1 where it is gone."""
    try:
        return os.open(name, _FOLDER, dir_fd=above)
    except PermissionError:
        pass
    except OSError:
        return -1
    try:  # by way of a descriptor: a link put in its place meanwhile is not followed
        handle = os.open(name, os.O_PATH | _FOLDER, dir_fd=above)
    except OSError:
        return -1
    try:
        os.chmod(f"/proc/self/fd/{handle}", 0o700)
        return os.open(f"/proc/self/fd/{handle}/.", _FOLDER)
    except OSError:
        return -1
    finally:
        os.close(handle)


def unlinked(pid: int) -> int | None:
    """Return the bytes of files that a process holds open and that have no name any more, but for its three streams.

    None where the process cannot be read: for a moment while it starts, or because it made itself unreadable.
    """
    total, seen = 0, set()
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except PermissionError:
        return 0 if _has_ended(pid) else None
    except OSError:
        return 0
    for name in names:
        try:
            found = os.stat(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue
        if int(name) > 2 and stat.S_ISREG(found.st_mode) and found.st_nlink == 0 and found.st_ino not in seen:
            seen.add(found.st_ino)
            total += 512 * found.st_blocks
    return total


def _has_ended(pid: int) -> bool:
    """Whether a process has ended, or is about to: giving back much memory takes a while, and nobody can read it
    then."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            state, *_, flags = file.read().rpartition(")")[2].split()[:7]
            return state in "ZX" or bool(int(flags) & _EXITING)
    except OSError:
        return True
