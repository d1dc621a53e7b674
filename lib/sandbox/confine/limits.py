"""When a program has had its time. CPU seconds decide; wall time only guards.

A busy machine must not fail a right program, so wall time is counted while the program rests: a stretch in which it
used under 2 % of a core is rest, anything above is work that the machine was slow to grant.
"""

import time

REST_SHARE = 0.02


def rest_limit(cpu_s: float) -> float:
    """Wall seconds a program may rest."""
    return 2 * cpu_s + 1


def wall_limit(cpu_s: float) -> float:
    """Wall seconds after which even a program that works, if slowly, is ended."""
    return 20 * cpu_s + 10


class Watch:
    """Follows one program's CPU clock."""

    def __init__(self, cpu_s: float) -> None:
        self.cpu_s = cpu_s
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
        if self.rested >= rest_limit(self.cpu_s) or now - self.started >= wall_limit(self.cpu_s):
            return "wall"
        return ""

    def words(self, reason: str) -> str:
        """The limit that was reached, in words."""
        if reason == "cpu":
            return f"used its {self.cpu_s:g} s of CPU time"
        return f"took {time.monotonic() - self.started:.1f} s of wall time with {self.used:.2f} s of CPU time"
