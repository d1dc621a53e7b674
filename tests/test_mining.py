"""Mining with the real model and the real sandbox, on a handful of tasks."""

import dataclasses
from pathlib import Path

import pytest

from lib.base.progress import watch
from lib.mining.collect import (
    Source,
    attempt_adaptively,
    attempt_all,
    fits_context,
    grade_visible_and_hidden,
    matched_random_sample,
    mixed_outcome,
    select_winners,
    syntax_digest,
)
from lib.mining.ledger import Ledger
from lib.sampling import SamplingParams, open_engine
from lib.sandbox import Sandbox
from lib.tasks.task import by_split, read_tasks
from tests.test_ledger import ROW

TASKS = [
    t for t in by_split(read_tasks(Path(__file__).parent.parent / "data/starter_bn.jsonl"), "train") if t.tier == 1
][:4]
SETTINGS = SamplingParams(temperature=0.8, max_new_tokens=24)
SOURCE = Source("test", "embedded", "", 0)


@pytest.fixture(scope="module")
def engine():
    opened = open_engine("embedded")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox() as box:
        yield box


def test_every_draw_of_every_task_is_in_the_ledger_once(tmp_path, engine, sandbox):
    ledger = Ledger(tmp_path / "a.jsonl")
    attempts = attempt_all(TASKS, 3, engine, sandbox, ledger, SETTINGS, SOURCE)
    assert [(a.task_id, a.draw) for a in attempts] == [(t.task_id, d) for d in range(3) for t in TASKS]
    assert sorted(a.key for a in ledger) == sorted(a.key for a in attempts)
    assert all(a.program.startswith(f"def {t.entry_point}(") for a, t in zip(attempts, TASKS * 3, strict=True))


def test_a_rerun_asks_for_nothing_that_is_there(tmp_path, engine, sandbox):
    ledger = Ledger(tmp_path / "a.jsonl")
    first = attempt_all(TASKS, 1, engine, sandbox, ledger, SETTINGS, SOURCE)
    asked = []
    again = attempt_all(
        TASKS, 2, engine, sandbox, ledger, SETTINGS, SOURCE, lambda items, total: (asked.append(total), items)[1]
    )
    assert asked == [len(TASKS)] and again[: len(TASKS)] == first
    assert len(list(ledger)) == 2 * len(TASKS)


def test_an_attempt_judged_by_other_tests_is_made_again(tmp_path, engine, sandbox):
    ledger = Ledger(tmp_path / "a.jsonl")
    attempt_all(TASKS[:1], 1, engine, sandbox, ledger, SETTINGS, SOURCE)
    changed = [dataclasses.replace(TASKS[0], hidden_tests=TASKS[0].hidden_tests[:-1])]
    attempt_all(changed, 1, engine, sandbox, ledger, SETTINGS, SOURCE)
    assert len(list(ledger)) == 2 and len(ledger.keys()) == 2


def test_greedy_with_several_draws_is_refused(tmp_path, engine, sandbox):
    with pytest.raises(ValueError, match="greedy decoding has one answer"):
        attempt_all(TASKS, 2, engine, sandbox, Ledger(tmp_path / "a"), SamplingParams(temperature=0), SOURCE)


def test_visible_and_hidden_tests_are_judged_apart(sandbox):
    task = TASKS[0]
    assert [verdict.status for verdict in grade_visible_and_hidden(sandbox, task, task.reference)] == [
        "success",
        "success",
    ]
    visible, hidden = grade_visible_and_hidden(sandbox, task, task.wrong_answers[0])
    assert visible.reward == 1 and hidden.reward == 0
    assert (visible.total, hidden.total) == (len(task.visible_tests), len(task.hidden_tests))


def test_a_program_that_never_ends_is_run_once(sandbox):
    visible, hidden = grade_visible_and_hidden(
        sandbox, TASKS[0], f"def {TASKS[0].entry_point}(*a):\n    while True: pass\n"
    )
    assert visible.status == hidden.status == "timeout" and hidden.cpu_s == 0


def won(task_id, program, **change):
    return dataclasses.replace(ROW, task_id=task_id, program=program, **change)


def test_winners_are_distinct_by_syntax_tree_and_capped():
    same = [won("t", "def f(a):\n    return a\n"), won("t", "def f(a):  # as above\n    return (a)\n")]
    other = [won("t", f"def f(a):\n    return a + {n}\n") for n in range(5)]
    assert len(select_winners(same, 4, seed=0)) == 1
    assert len(select_winners(same + other, 4, seed=0)) == 4


def test_a_program_that_fails_one_test_is_no_winner():
    assert select_winners([won("t", "p", status="wrong-output", visible_ok=True, hidden_ok=False)], 4, 0) == []


def test_which_winners_are_kept_depends_on_the_seed_alone():
    pool = [won("t", f"def f(a):\n    return {n}\n") for n in range(20)]
    assert select_winners(pool, 3, 1) == select_winners(pool[::-1], 3, 1) != select_winners(pool, 3, 2)


@pytest.mark.parametrize(
    ("scorer", "first"),
    [("shortest", "def f(a):\n    return a\n"), ("likeliest", "def f(a):\n    return a + 0\n")],
)
def test_a_scorer_says_which_winner_comes_first(scorer, first):
    pool = [
        won("t", "def f(a):\n    return a\n", logprob_sum=-9.0, n_tokens=3),
        won("t", "def f(a):\n    return a + 0\n", logprob_sum=-8.0, n_tokens=8),
        won("t", "def f(a):\n    b = a\n    return b\n", logprob_sum=-9.0, n_tokens=6),
    ]
    assert [winner.program for winner in select_winners(pool, 1, 0, scorer)] == [first]


def test_distinct_winners_are_far_from_each_other():
    near = [won("t", f"def f(a):\n    return a + {n}\n") for n in range(9)]
    far = won("t", "def f(a):\n    while True:\n        break\n    yield from [a]\n")
    assert far in select_winners([*near, far], 2, 0, "distinct")


def test_likeliest_needs_log_probabilities():
    with pytest.raises(ValueError, match="t: no log-probability was kept"):
        select_winners([won("t", "p", logprob_sum=None)], 1, 0, "likeliest")


def test_an_unknown_scorer_is_named():
    with pytest.raises(ValueError, match="scorer='best': choose one of random, shortest"):
        select_winners([], 1, 0, "best")


def test_a_control_has_as_many_of_each_task():
    pool = [won(task, f"def f(a):\n    return {n}\n") for task in "ab" for n in range(9)]
    lost = [
        won(task, f"def f(a):\n    return -{n}\n", hidden_ok=False, status="wrong-output")
        for task in "ab"
        for n in range(9)
    ]
    winners = select_winners(pool, 3, 0)
    control = matched_random_sample(pool + lost, winners, 1, lambda attempt: not attempt.solved)
    assert [attempt.task_id for attempt in control] == ["a"] * 3 + ["b"] * 3
    assert not any(attempt.solved for attempt in control)


def test_a_program_without_a_syntax_tree_stands_for_itself():
    assert syntax_digest("def f(:") == "def f(:"


def test_decidable_tasks_have_right_and_wrong_draws():
    a, b, c = TASKS[:3]
    rows = [
        won(a.task_id, "p"),
        won(a.task_id, "q", status="timeout"),
        won(b.task_id, "p"),
        won(c.task_id, "p", status="memory"),
    ]
    assert mixed_outcome(TASKS, rows) == [a]


def test_adaptive_rounds_spend_the_budget_and_are_found_again(tmp_path, engine, sandbox):
    ledger = Ledger(tmp_path / "a.jsonl")
    first = attempt_adaptively(TASKS, 6, 1, engine, sandbox, ledger, SETTINGS, SOURCE)
    assert len({attempt.key for attempt in first}) == len(list(ledger)) <= 6
    for task in TASKS:
        mine = [attempt for attempt in first if attempt.task_id == task.task_id]
        assert [attempt.draw for attempt in mine] == list(range(len(mine)))
    asked = []
    again = attempt_adaptively(
        TASKS, 6, 1, engine, sandbox, ledger, SETTINGS, SOURCE, lambda items, total: (asked.append(list(items)), ())[1]
    )
    assert asked == [[]] and again == first


def test_a_task_with_enough_winners_is_drawn_no_more(tmp_path, engine, sandbox):
    made = attempt_adaptively(TASKS, 40, 1, engine, sandbox, Ledger(tmp_path / "a.jsonl"), SETTINGS, SOURCE)
    for task in TASKS:
        solved = [attempt.solved for attempt in made if attempt.task_id == task.task_id]
        assert True not in solved[:-1]


def test_a_budget_below_one_is_refused(tmp_path, engine, sandbox):
    with pytest.raises(ValueError, match="budget=0"):
        attempt_adaptively(TASKS, 0, 1, engine, sandbox, Ledger(tmp_path / "a"), SETTINGS, SOURCE)


def test_fuzzed_tests_reject_winners_or_rank_them():
    strong, weak = (won("t", f"def f(a):\n    return a + {n}\n", seed=n) for n in range(2))
    share = {strong.key: 1.0, weak.key: 0.5}
    assert select_winners([weak, strong], 2, 0, "random", share) == [strong]
    assert select_winners([weak, strong], 2, 0, "margin", share) == [strong, weak]
    with pytest.raises(ValueError, match="margin.*needs fuzzed tests"):
        select_winners([weak], 1, 0, "margin")


def test_the_live_line_counts_prompts_and_winners(capsys, monkeypatch):
    monkeypatch.setenv("WORKBOOK_BATCH", "1")
    list(watch([won("a", "p"), won("a", "q", status="timeout"), won("b", "p", status="timeout")], 4))
    assert "attempts 3 of 4, prompts 2, prompts with a winner 1, winners 1" in capsys.readouterr().out


def test_prompts_longer_than_the_context_are_named(engine):
    long = dataclasses.replace(TASKS[0], task_id="long", prompt="ক" * 20_000)
    assert fits_context([*TASKS, long], engine, SETTINGS) == (TASKS, ["long"])


def test_log_probabilities_are_kept_where_asked(tmp_path, engine, sandbox):
    asked = dataclasses.replace(SETTINGS, logprobs=True)
    (attempt,) = attempt_all(TASKS[:1], 1, engine, sandbox, Ledger(tmp_path / "a"), asked, SOURCE)
    assert attempt.logprob_sum is not None and attempt.logprob_sum < 0
