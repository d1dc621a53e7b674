"""Runs, as `sitecustomize`, when a Python program starts: hides the variable that led here, keeps stacks of threads
small, and says that /dev/shm has no room.

A thread would reserve as much stack as the main thread may use, so that two of them fill the memory limit. Shared
values of `multiprocessing` lie in /dev/shm, which no program gets, or in scratch where that is full.
"""

import _thread
import os

_statvfs = os.statvfs


def _without_shared_memory(path: object) -> os.statvfs_result:
    """What `os.statvfs` says, but for /dev/shm."""
    return os.statvfs_result([0] * 10) if path == "/dev/shm" else _statvfs(path)  # type: ignore[arg-type]


os.environ.pop("PYTHONPATH", None)
os.statvfs = _without_shared_memory  # type: ignore[assignment]
_thread.stack_size(8 << 20)
