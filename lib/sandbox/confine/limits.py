"""When a program has had its time. CPU seconds decide; wall time only guards.

A busy machine must not fail a right program, so wall time is counted while the program rests: a stretch in which it
used under 2 % of a core is rest, anything above is work that the machine was slow to grant.
"""

import time
from collections.abc import Iterable

REST_SHARE = 0.02
FEW = 64  # processes that a program may start before the time in which it starts more counts in full


def rest_limit(cpu_s: float) -> float:
    """Wall seconds a program may rest."""
    return 2 * cpu_s + 1


def wall_limit(cpu_s: float) -> float:
    """Wall seconds after which even a program that works, if slowly, is ended."""
    return 20 * cpu_s + 10


class Watch:
    """Follows one program's CPU clock."""

    def __init__(self, cpu_s: float, wall_s: float = 0.0) -> None:
        self.cpu_s, self.wall_s = cpu_s, wall_s or wall_limit(cpu_s)
        self.started = self.seen_at = time.monotonic()
        self.used = self.rested = 0.0

    def see(self, used: float) -> str:
        """Note the CPU seconds used so far: "cpu" or "wall" when that limit is reached, else empty."""
        now = time.monotonic()
        if used - self.used < REST_SHARE * (now - self.seen_at):
            self.rested += now - self.seen_at
        self.seen_at, self.used = now, used
        if used >= self.cpu_s:
            return "cpu"
        if self.rested >= rest_limit(self.cpu_s) or now - self.started >= self.wall_s:
            return "wall"
        return ""

    def words(self, reason: str) -> str:
        """The limit that was reached, in words."""
        if reason == "cpu":
            return f"used its {self.cpu_s:g} s of CPU time"
        return f"took {time.monotonic() - self.started:.1f} s of wall time with {self.used:.2f} s of CPU time"


def cpu_clock(pid: int) -> float:
    """CPU seconds that another process, still there, has used; 0 when it is gone."""
    try:
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        return 0.0


class GroupClock:
    """CPU seconds of a program's processes together, those that have ended between two looks included.

    What a process uses after the last look at it is not seen. A program of many short-lived processes would hide most
    of its work that way, so that past FEW of them a stretch in which another one appears counts in full.
    """

    def __init__(self) -> None:
        self.seen: dict[int, float] = {}
        self.hidden, self.looked = 0.0, time.monotonic()

    def look(self, processes: Iterable[int]) -> float:
        """Note the processes that are there now; what all have used so far."""
        now, many, known = time.monotonic(), len(self.seen) > FEW, len(self.seen)
        for pid in processes:
            self.seen[pid] = max(self.seen.get(pid, 0.0), cpu_clock(pid))
        if many and len(self.seen) > known:
            self.hidden += now - self.looked
        self.looked = now
        return self.hidden + sum(self.seen.values())
