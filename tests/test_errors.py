"""Whoever calls `lib` can catch everything that input, a setting or a machine causes as one class."""

import ast
import builtins
from pathlib import Path

LIB = Path(__file__).resolve().parents[1] / "lib"
# Never seen outside of lib: the sandbox's protocol between its processes and with the tests it runs, which end in a
# verdict, and the fine-tuning's own sign to stop, which ends in a TrainingError.
INTERNAL = {
    "sandbox/frames.py": {"Garbage", "TooLarge", "Closed"},
    "sandbox/trusted/asserts.py": {"Interrupted"},
    "sandbox/trusted/judging.py": {"NeedsCopy", "Stopped"},
    "sandbox/trusted/processes.py": {"WorkerLost", "CannotStart"},
    "sandbox/trusted/programs.py": {"_Refused"},
    "sandbox/trusted/remote.py": {"Misuse", "Unsupported"},
    "sandbox/trusted/suite.py": {"BadTest"},
    "training/sft/trainer.py": {"NotFinite"},
}


def classes() -> dict[tuple[str, str], set[str]]:
    """{(file, class): the names of its bases} of every class in lib."""
    found = {}
    for path in sorted(LIB.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
                found[str(path.relative_to(LIB)), node.name] = bases
    return found


def descend(known: set[str], among: dict[tuple[str, str], set[str]]) -> set[tuple[str, str]]:
    """Those of `among` that derive from a name in `known`, directly or not."""
    found: set[tuple[str, str]] = set()
    while new := {one for one, bases in among.items() if bases & known} - found:
        found |= new
        known = known | {name for _, name in new}
    return found


def test_every_exception_that_a_user_can_cause_is_a_workbook_error() -> None:
    every = classes()
    builtin = {name for name, one in vars(builtins).items() if isinstance(one, type) and issubclass(one, BaseException)}
    others = descend(builtin, every) - descend({"WorkbookError"}, every) - {("base/errors.py", "WorkbookError")}
    internal: dict[str, set[str]] = {}
    for path, name in others:
        internal.setdefault(path, set()).add(name)
    assert internal == INTERNAL


def test_an_error_below_a_builtin_one_is_found_by_way_of_others() -> None:
    among = {("a.py", "A"): {"ValueError"}, ("b.py", "B"): {"A"}, ("c.py", "C"): {"object"}}
    assert descend({"ValueError"}, among) == {("a.py", "A"), ("b.py", "B")}
