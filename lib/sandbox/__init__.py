"""Run programs nobody has vouched for, and say which are right.

What this does not cover:

- A hole in the kernel. Confinement is namespaces, Landlock and seccomp of one shared kernel; for hostile humans rather
  than careless models, run the whole workbook in a virtual machine.
- Side channels: timing, cache and speculation attacks; what a program learns from `stat` on paths it cannot open.
- A machine's total memory: limits are per process. Programs that start processes share a count, not a sum of memory.
- Tests that cannot tell: a test that compares two objects of the program's own class, or only asks whether something is
  true, is satisfied by whatever satisfies it in plain Python too.
- Function tasks of languages other than Python: program and tests share a process. One that leaves early is caught, one
  that goes looking for the mark its tests print last is not.
- Other machines than Linux on x86-64: there is no filter for them, so programs are refused unless run unconfined.
- Tests and setup code: they are trusted, and run in the grader with the user's rights.
- Modes B and C without Landlock: Python programs then open no file at all, and other languages are refused.
"""

from lib.sandbox.confine.probe import Report, probe
from lib.sandbox.trusted.pool import Sandbox
from lib.sandbox.verdict import STATUSES, SandboxError, Status, Verdict
from lib.tasks.extract import extract_code

__all__ = ["STATUSES", "Report", "Sandbox", "SandboxError", "Status", "Verdict", "extract_code", "probe"]
