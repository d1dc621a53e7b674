"""Semaphores over pipes, in place of `_multiprocessing`, whose own need a shared /dev/shm that no program gets.

For thread pools, and for pools of forked processes. Differs from the standard one in having no name to open it by.
"""

import os
import select
import threading
import time
from typing import Any


class SemLock:
    """What multiprocessing.synchronize needs of a semaphore: kind 0 is a recursive lock, kind 1 a plain semaphore."""

    SEM_VALUE_MAX = 32_767

    def __init__(self, kind: int, value: int, maxvalue: int, name: str = "", unlink: bool = True) -> None:
        self.kind, self.maxvalue, self.name = kind, maxvalue, None
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.write(self._writer, b"x" * value)
        self._owner, self._depth = (0, 0), 0

    @property
    def handle(self) -> int:
        """A number that tells it from others."""
        return self._reader

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Take one; wait for it if `block`, for `timeout` seconds at most."""
        if self.kind == 0 and self._is_mine():
            self._depth += 1
            return True
        deadline = None if timeout is None else time.monotonic() + max(timeout, 0.0)
        while True:
            try:
                os.read(self._reader, 1)
                break
            except BlockingIOError:
                if not block or deadline is not None and time.monotonic() >= deadline:
                    return False
                left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
                select.select([self._reader], [], [], left)
        self._owner, self._depth = self._me(), self._depth + 1
        return True

    def release(self) -> None:
        """Give one back."""
        if self.kind == 0:
            if not self._is_mine():
                raise AssertionError("attempt to release recursive lock not owned by thread")
            if self._depth > 1:
                self._depth -= 1
                return
        elif self._get_value() >= self.maxvalue:
            raise ValueError("semaphore or lock released too many times")
        self._depth -= 1
        os.write(self._writer, b"x")

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *details: object) -> None:
        self.release()

    def _me(self) -> tuple[int, int]:
        return os.getpid(), threading.get_ident()

    def _is_mine(self) -> bool:
        return self._depth > 0 and self._owner == self._me()

    def _count(self) -> int:
        return self._depth

    def _get_value(self) -> int:
        import array
        import fcntl
        import termios

        waiting = array.array("i", [0])
        fcntl.ioctl(self._reader, termios.FIONREAD, waiting)
        return waiting[0]

    def _is_zero(self) -> bool:
        return self._get_value() == 0

    def _after_fork(self) -> None:
        self._depth = 0

    def __del__(self) -> None:
        for descriptor in (self._reader, self._writer):
            try:
                os.close(descriptor)
            except OSError:
                pass


def sem_unlink(name: str) -> None:
    """Nothing to remove: no semaphore here has a name."""


flags: dict[str, Any] = {"HAVE_SEM_OPEN": 1, "HAVE_SEM_TIMEDWAIT": 1}
