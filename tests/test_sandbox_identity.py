"""Containers that a test and a program share are what they are in one process, whichever of the two changes them."""

import random
from typing import Any

import pytest

from lib.sandbox import Sandbox
from lib.tasks.task import Task

PROGRAM = """
from collections import deque
class S:
    def __init__(self, *held): self.held = list(held)
    def get(self, i): return self.held[i % len(self.held)]
    def all(self): return self.held
    def put(self, i, x):
        t = self.get(i)
        if isinstance(t, (list, deque)): t.append(x)
        elif isinstance(t, dict): t[len(t)] = x
        elif isinstance(t, set): t.add(len(t))
        else: t.append(len(t))
    def cut(self, i):
        t = self.get(i)
        if t: t.pop(next(iter(t))) if isinstance(t, dict) else t.pop()
    def new(self, x):
        self.held.append([x])
        return self.held[-1]
    def each(self):
        for t in self.held:
            if isinstance(t, list): t.append(0)
            yield t
    def call(self, function, i): return function(self.get(i), self)
    def drop(self, i):
        if len(self.held) > 1: del self.held[i % len(self.held)]
"""
START = """
from collections import deque
v0, v1, v2, v3, v4 = [1], {1: [2]}, {3}, bytearray(b"a"), deque([5])
s = S(v0, v1, v2, v3, v4)
"""
STEPS = (
    "s.put({i}, {v})",
    "s.put({i}, {j})",
    "s.put({i}, s.get({j}))",
    "s.cut({i})",
    "s.drop({i})",
    "{new} = s.get({i})",
    "{new} = s.new({j})",
    "{new} = s.all()",
    "{new} = list(s.each())",
    "{new} = next(s.each())",
    "{new} = s.call(lambda t, me: [t, me.get({j}), me.put({i}, {j})], {i})",
    "{new} = [x is y for x in s.all() for y in [{v}, {w}]]",
    "{v}.append({j}) if isinstance({v}, list | bytearray) and {v} is not s.all() else None",
    "{v}.append({w}) if isinstance({v}, list) and {v} is not s.all() else None",
    "{v}.clear() if {v} is not s.all() else None",
    "del {v}",
)


def random_tests(seed: int, steps: int = 40) -> list[str]:
    """Steps that plain Python can do, each with an assert of what every variable holds then."""
    draw = random.Random(seed)
    space: dict[str, Any] = {}
    exec(PROGRAM + START, space)
    tests, names = [START], ["v0", "v1", "v2", "v3", "v4"]
    for number in range(5, 5 + steps):
        v, w, new = draw.choice(names), draw.choice(names), f"v{number}"
        step = draw.choice(STEPS).format(v=v, w=w, i=draw.randrange(6), j=draw.randrange(6), new=new)
        if step.startswith("del") and len(names) < 4:
            continue
        exec(step, space)
        names = [name for name in [*names, new] if name in space]
        shown = "[" + ", ".join(f"repr({name})" for name in names) + "]"
        tests.append(f"{step}\nassert {shown} == {eval(shown, space)!r}")
    return tests


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(workers=1) as sandbox:
        yield sandbox


@pytest.mark.parametrize("seed", range(20))
def test_as_in_one_process(sandbox, seed):
    tests = random_tests(seed)
    task = Task("t", "s", "d", "p", "en", "python", "function", "S", tuple(tests), time_limit_s=5)
    verdict = sandbox.grade(task, PROGRAM)
    assert verdict.status == "success", (tests[verdict.passed], verdict.failure)
