"""Trusted evaluation of a task's asserts, with the program's names bound to what `remote` makes of them."""

import builtins
import dataclasses
import reprlib
from typing import Any

from lib.sandbox import frames
from lib.sandbox.trusted.conversation import Conversation, Raised, TimeUp, Unshippable
from lib.sandbox.trusted.remote import Misuse, Remote
from lib.sandbox.trusted.suite import EXPECTED, GOT, HELPERS, TEST_FILE, Suite, shown_to
from lib.sandbox.verdict import Status, one_line

# Standard modules a test may name without importing them: always the real ones.
_MODULES = {
    "math",
    "cmath",
    "re",
    "collections",
    "itertools",
    "functools",
    "copy",
    "random",
    "string",
    "datetime",
    "json",
}


@dataclasses.dataclass
class Outcome:
    """How the asserts went: the first failure decides status and evidence."""

    passed: int = 0
    status: str = Status.SUCCESS
    failure: str = ""

    def fail(self, status: str, failure: str) -> None:
        """Record a failure; only the first is kept."""
        if self.status == Status.SUCCESS:
            self.status, self.failure = status, failure


# ------------------------------------------------------------------------------------------------------------ names


class Names:
    """The namespace tests run in: their own names, then the entry point, then builtins, then the program's others."""

    def __init__(self, talk: Conversation, suite: Suite, alias: str) -> None:
        self.talk, self.suite, self.permissive = talk, suite, alias == "permissive"
        self.namespace: dict[str, Any] = {"__builtins__": builtins, "__name__": "tests"}
        self.stale: set[str] = set()

    def wanted(self) -> list[str]:
        """Names to ask the program for."""
        used = self.suite.setup_names.union(*self.suite.names)
        return sorted(name for name in used if name == self.suite.entry_point or name not in vars(builtins))

    def bind(self, values: dict[str, Any], functions: list[str]) -> None:
        """Bind the program's names, then run the setup code over them."""
        entry = self.suite.entry_point
        for name, form in values.items():
            if name != entry and name in _MODULES:
                form = {"m": name}
            self._bind(name, form)
        if self.permissive and entry not in values:
            self._bind_alias(functions)
        if self.suite.setup_names or self.suite.definitions:
            exec(self.suite.setup, self.namespace)
        for name, item in self.namespace.items():
            if isinstance(item, type) and item.__module__ == "tests":
                self.talk.shared[name] = item

    def _bind(self, name: str, form: Any) -> None:
        value = self.talk.read(form)
        defined_there = isinstance(value, Remote) and value._facts.kind in ("function", "class")
        if name in HELPERS and name != self.suite.entry_point and defined_there:
            value = getattr(self.talk.module(HELPERS[name]), name)
        self.namespace[name] = value
        if not isinstance(value, Remote | type) and type(form) is not dict or type(form) is dict and "m" not in form:
            self.stale.add(name)

    def _bind_alias(self, functions: list[str]) -> None:
        entry = self.suite.entry_point
        same = [name for name in functions if _folded(name) == _folded(entry)]
        chosen = same[:1] or (functions if len(functions) == 1 else [])
        if entry and chosen:
            self.namespace[entry] = self.talk.current_value(str(chosen[0]))

    def refresh(self, names: frozenset[str]) -> None:
        """Read again the plain globals a test is about to use: the program may have changed them."""
        for name in self.stale & names:
            if not isinstance(self.namespace[name], Remote):
                self.namespace[name] = self.talk.current_value(name)


def _folded(name: str) -> str:
    return name.replace("_", "").lower()


# -------------------------------------------------------------------------------------------------------- judgement


def judge(talk: Conversation, suite: Suite, job: dict[str, Any]) -> Outcome:
    """Run the program, then every assert in order in one shared state."""
    outcome = Outcome()
    names = Names(talk, suite, job["alias"])
    request = {
        "source": job["source"],
        "setup": shown_to(suite, job["source"]),
        "names": names.wanted(),
        "cpu_s": job["cpu_s"],
        "memory_mb": job["memory_mb"],
    }
    try:
        answer = talk.run(request, suite.calls, suite.entry_point)
        if "compile" in answer:
            outcome.fail(Status.COMPILE_ERROR, one_line(str(answer["compile"])))
            return outcome
        if "memory" in answer:
            outcome.fail("memory", one_line(str(answer["memory"])))
            return outcome
        if "err" in answer:
            raise talk.read({"x": answer["err"]})
        names.bind(dict(answer["ok"]), list(answer["functions"]))
        talk.take_up(names.namespace[suite.entry_point] if suite.entry_point in answer["ok"] else None)
    except BaseException as error:
        _record(outcome, talk, error, "running the program")
        return outcome
    for test, code, used in zip(suite.sources, suite.codes, suite.names, strict=True):
        _run_test(outcome, names, test, code, used)
        if talk.broken:
            break
    return outcome


def _run_test(outcome: Outcome, names: Names, test: str, code: Any, used: frozenset[str]) -> None:
    talk = names.talk
    try:
        names.refresh(used)
        names.namespace.pop(GOT, None)
        exec(code, names.namespace)
        if talk.failed_callback:
            raise talk.failed_callback
        if talk.broken:  # a test that swallows every exception must not swallow this one
            raise talk.broken
        outcome.passed += 1
    except BaseException as error:
        _record(outcome, talk, error, one_line(test, 160))


def _record(outcome: Outcome, talk: Conversation, error: BaseException, where: str) -> None:
    error = talk.broken or error
    if isinstance(error, TimeUp):
        outcome.fail(error.status, f"{where}: {error}")
    elif isinstance(error, Unshippable):
        outcome.fail(Status.SANDBOX_ERROR, f"{where}: {error}")
    elif isinstance(error, frames.Closed):
        outcome.fail("died", where)
    elif isinstance(error, frames.Garbage):
        outcome.fail(Status.RUNTIME_ERROR, f"{where}: the program broke the protocol ({error})")
    elif isinstance(error, MemoryError):
        outcome.fail(Status.MEMORY, f"{where}: MemoryError")
    elif isinstance(error, Raised):
        place = f" (line {error.line})" if error.line else ""
        outcome.fail(Status.RUNTIME_ERROR, one_line(f"{where}: {type(error).__name__}: {error.message}{place}"))
    elif isinstance(error, AssertionError | Misuse):
        outcome.fail(Status.WRONG_OUTPUT, one_line(where + _evidence(error)))
    else:
        outcome.fail(Status.RUNTIME_ERROR, one_line(f"{where}: {type(error).__name__}: {error}"))


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
        return f"<{value._facts.name} object>" if isinstance(value, Remote) else _short.repr(value)
    except BaseException:
        return f"<{type(value).__name__}>"
