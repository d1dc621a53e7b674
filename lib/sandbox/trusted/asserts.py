"""Evaluate a task's asserts in a forked copy of the grader, with the program's names bound to `remote`'s objects."""

import builtins
import contextlib
import dataclasses
import importlib
import os
import reprlib
from typing import Any

from lib.sandbox import frames
from lib.sandbox.trusted import suite as suites
from lib.sandbox.trusted.conversation import TESTS, Conversation
from lib.sandbox.trusted.remote import Misuse, Remote, Unsupported, facts_of
from lib.sandbox.trusted.suite import EXPECTED, GOT, HELPERS, MODULES, PACKAGES, TEST_FILE, Suite
from lib.sandbox.verdict import one_line

DIED = "died"  # the program's process is gone; the grader asks the kernel why


class Interrupted(BaseException):
    """Judging has to stop; no failure of any test."""


@dataclasses.dataclass
class Outcome:
    """How the asserts went: the first failure decides status and evidence."""

    passed: int = 0
    status: str = "success"
    failure: str = ""

    def fail(self, status: str, failure: str) -> None:
        """Record a failure. The first is kept, except that a wrong program replaces a test that could not be judged."""
        if self.status in ("success", "unsupported-test") and (self.status, status) != ("unsupported-test",) * 2:
            self.status, self.failure = status, one_line(failure)


# ------------------------------------------------------------------------------------------------------------ names


class Names:
    """The namespace tests run in: their own names, the entry point, builtins and helpers, then the program's others."""

    def __init__(self, session: Conversation, suite: Suite, alias: str) -> None:
        self.session, self.suite, self.permissive = session, suite, alias == "permissive"
        self.namespace: dict[str, Any] = {"__builtins__": builtins, "__name__": TESTS}
        self.stale: set[str] = set()
        self.shown: frozenset[str] = frozenset()
        self.is_set_up = False

    def wanted(self) -> list[str]:
        """Names to ask the program for: what the tests use and neither they nor the standard library give."""
        used = self.suite.setup_names.union(*self.suite.names)
        ours = self._given() | set(vars(builtins)) | self.suite.setup_stored
        return sorted((used - ours) | {self.suite.entry_point} - {""})

    def _given(self) -> set[str]:
        packages = {"np"} if "numpy" in self.session.modules else set()
        return set(HELPERS) | MODULES | set(self.session.modules) | packages

    def prepare(self, shown: frozenset[str]) -> None:
        """Bind the helpers and run the setup code, so that its classes are known when the program's names arrive; code
        that needs one of those names runs after them."""
        self.session.namespace, self.shown = self.namespace, shown
        for name in self._given() & self.suite.setup_names.union(*self.suite.names) - {self.suite.entry_point}:
            self.namespace[name] = self._helper(name)
        with contextlib.suppress(NameError):
            self._set_up()
            self.is_set_up = True

    def bind(self, values: dict[str, Any], functions: list[str]) -> None:
        """Bind the program's names, and run the setup code if it has waited for them."""
        entry = self.suite.entry_point
        asked = set(self.wanted())
        own = self.namespace.pop(entry, None)
        for name, value in values.items():
            if name in asked:
                self.namespace[name] = value
                facts = facts_of(value)
                if name != entry and not isinstance(value, type | type(os)) and (not facts or facts.kind == "object"):
                    self.stale.add(name)
        if self.permissive and entry not in values:
            self._bind_alias(functions)
        function = self.namespace.get(entry)
        if not self.is_set_up:
            self._set_up()
        elif own is not None:
            self.namespace[entry] = own
        self._rebind(entry, function)

    def _set_up(self) -> None:
        """Run the setup code; classes of it that the program was shown stand for the program's own copies."""
        if self.suite.setup_names or self.suite.setup_stored or self.suite.definitions:
            exec(self.suite.setup, self.namespace)
        for name, item in self.namespace.items():
            if isinstance(item, type) and item.__module__ == TESTS and name in self.shown:
                self.session.shared[name] = item

    def _rebind(self, entry: str, function: Any) -> None:
        """The entry point alone comes from the program by right, whatever the setup code defines."""
        if function is not None:
            self.namespace[entry] = function
        elif entry in self.suite.setup_stored and not any(entry in stored for stored in self.suite.stored):
            del self.namespace[entry]

    def _helper(self, name: str) -> Any:
        if name in HELPERS:
            return getattr(importlib.import_module(HELPERS[name]), name)
        return importlib.import_module("numpy" if name == "np" else name)

    def _bind_alias(self, functions: list[str]) -> None:
        entry = self.suite.entry_point
        same = [name for name in functions if _folded(name) == _folded(entry)]
        chosen = same[:1] or (functions if len(functions) == 1 else [])
        if entry and chosen:
            self.namespace[entry] = self.session.current_value(str(chosen[0]))

    def refresh(self, used: frozenset[str], stored: frozenset[str]) -> None:
        """Read again the globals that a test uses, before it and after each of its operations: the program may have
        changed them. What a test assigns is its own."""
        self._read(self.stale & used)
        self.stale -= stored
        current = self.stale & used
        self.session.after = lambda: self._read(current)

    def _read(self, names: set[str]) -> None:
        for name in names:
            try:
                self.namespace[name] = self.session.current_value(name)
            except KeyError:  # the program has deleted it
                self.namespace.pop(name, None)


def _folded(name: str) -> str:
    return name.replace("_", "").lower()


# -------------------------------------------------------------------------------------------------------- judgement


def judge(session: Conversation, suite: Suite, job: dict[str, Any], report: Any) -> Outcome:
    """Run the program, then every assert in order in one shared state; `report(outcome, test)` before each test."""
    outcome = Outcome()
    names = Names(session, suite, job["alias"])
    shown = suites.shown_to(suite, job["source"])
    request = {
        "source": job["source"],
        "setup": "\n".join(item.source for item in shown),
        "names": names.wanted(),
        "entry": suite.entry_point,
        "cpu_s": job["cpu_s"],
        "memory_mb": job["memory_mb"],
    }
    report(outcome, "running the program")
    try:
        answer = session.run(request)
        for key, status in (("compile", "compile-error"), ("memory", "memory")):
            if key in answer:
                outcome.fail(status, str(answer[key]))
                return outcome
        if "err" in answer:
            session.guarded(lambda: session.take(answer))
        names.prepare(frozenset().union(*(item.names for item in shown)))
        values = session.guarded(lambda: session.names(answer))
        names.bind(values, list(answer["functions"]))
    except Interrupted:
        raise
    except BaseException as error:
        _record(outcome, session, error, "running the program", False)
        return outcome
    for test, code, used, stored, shares in zip(
        suite.sources, suite.codes, suite.names, suite.stored, suite.shares, strict=True
    ):
        report(outcome, one_line(test, 160))
        _run_test(outcome, names, test, code, (used, stored, shares))
        if session.broken and not isinstance(session.broken, Unsupported):
            break
        session.broken = None
    return outcome


def judge_inside(session: Conversation, suite: Suite, job: dict[str, Any], report: Any) -> Outcome:
    """Run the tests themselves in the program's process, which decides by that what they say."""
    outcome = Outcome()
    report(outcome, "the tests in the program's process")
    request = {"do": "run", "tests": suite.sources, "names": [], "entry": suite.entry_point}
    request |= {"source": job["source"], "setup": job["setup"], "cpu_s": job["cpu_s"], "memory_mb": job["memory_mb"]}
    try:
        answer = session.run(request)
        outcome.passed = max(0, min(int(answer.get("inside", 0)), len(suite.sources)))
        if "why" in answer:
            outcome.fail("wrong-output" if answer["wrong"] is True else "runtime-error", str(answer["why"]))
        elif outcome.passed < len(suite.sources):
            outcome.fail("compile-error" if "compile" in answer else "runtime-error", str(answer.get("compile", "")))
    except Interrupted:
        raise
    except BaseException as error:
        _record(outcome, session, error, "the tests in the program's process", False)
    return outcome


def warm(suite: Suite) -> None:
    """Import what the tests speak of, so that no copy of the grader has to."""
    for name in suite.setup_names.union(*suite.names) & (MODULES | HELPERS.keys() | PACKAGES):
        with contextlib.suppress(ImportError):  # the test meets it again and says so
            importlib.import_module(HELPERS.get(name, name))


def _run_test(outcome: Outcome, names: Names, test: str, code: Any, about: tuple[Any, Any, bool]) -> None:
    session = names.session
    used, stored, shares = about
    try:
        session.expects_end = "StopIteration" in used
        names.refresh(used, stored)
        names.namespace.pop(GOT, None)
        exec(code, names.namespace)
        if session.failed_callback:
            raise session.failed_callback
        if session.broken:  # a test that swallows every exception must not swallow this one
            raise session.broken
        outcome.passed += 1
    except Interrupted:
        raise
    except BaseException as error:
        _record(outcome, session, error, one_line(test, 160), shares)


def _record(outcome: Outcome, session: Conversation, error: BaseException, where: str, shares: bool) -> None:
    error = session.broken or error
    raised = session.raised.get(id(error))
    status = "runtime-error"
    words = f": {type(error).__name__}: {error}"
    if isinstance(error, frames.Closed):
        status, words = DIED, ""
    elif isinstance(error, frames.TooLarge):
        status, words = "output-limit", f": {error}"
    elif isinstance(error, frames.Garbage):
        words = f": the program broke the protocol ({error})"
    elif isinstance(error, MemoryError):
        status, words = "memory", ": MemoryError"
    elif isinstance(error, Unsupported):
        status, words = "unsupported-test", f": {error}"
    elif raised:
        words += f" (line {raised[1]})" if raised[1] else ""
    elif isinstance(error, ImportError):
        status = "unsupported-test"
    elif isinstance(error, AssertionError | Misuse):
        status, words = "wrong-output", _evidence(error)
    if shares and status in ("runtime-error", "wrong-output"):
        status, words = "unsupported-test", ": the test changes what only a program in the same process would see"
    outcome.fail(status, where + words)


_short = reprlib.Repr()
_short.maxstring = _short.maxother = 60
_short.maxlist = _short.maxtuple = _short.maxdict = _short.maxset = 8


def _evidence(error: BaseException) -> str:
    """ ": got …, expected …" from the frame the assert failed in."""
    if isinstance(error, Misuse):
        return f": {error}"
    trace, found = error.__traceback__, ""
    while trace is not None:
        frame = trace.tb_frame
        if frame.f_code.co_filename == TEST_FILE and GOT in frame.f_locals:
            found = f": got {_shown(frame.f_locals[GOT])}, expected {_shown(frame.f_locals.get(EXPECTED))}"
        trace = trace.tb_next
    message = str(error)
    return found or (f": {message}" if message else "")


def _shown(value: Any) -> str:
    try:
        return f"<{type(value).__name__} object>" if isinstance(value, Remote) else _short.repr(value)
    except BaseException:
        return f"<{type(value).__name__}>"
