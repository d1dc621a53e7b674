"""Mining with the real model and the real sandbox, on a handful of tasks."""

import dataclasses
from pathlib import Path

import pytest

from lib.base.progress import watch
from lib.mining.answers import passed_matrix
from lib.mining.collect import Source, attempt_adaptively, fits_context, local_runner
from lib.mining.grading import decisive, grade_all, grade_visible_and_hidden
from lib.mining.ledger import Ledger
from lib.mining.select import matched_random_sample, mixed_outcome, select_winners, supported_tasks, syntax_digest
from lib.sampling import Completion, SamplingParams, open_engine
from lib.sandbox import Sandbox, SandboxError
from lib.tasks.task import Case, by_split, read_tasks
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
    attempts = local_runner(engine, sandbox)(TASKS, 3, ledger, params=SETTINGS, source=SOURCE)
    assert [(a.task_id, a.draw) for a in attempts] == [(t.task_id, d) for d in range(3) for t in TASKS]
    assert sorted(a.key for a in ledger) == sorted(a.key for a in attempts)
    assert all(a.program.startswith(f"def {t.entry_point}(") for a, t in zip(attempts, TASKS * 3, strict=True))


def test_a_rerun_asks_for_nothing_that_is_there(tmp_path, engine, sandbox):
    ledger = Ledger(tmp_path / "a.jsonl")
    first = local_runner(engine, sandbox)(TASKS, 1, ledger, params=SETTINGS, source=SOURCE)
    asked = []

    def progress(items, total):
        asked.append(total)
        return items

    again = local_runner(engine, sandbox)(TASKS, 2, ledger, params=SETTINGS, source=SOURCE, progress=progress)
    assert asked == [len(TASKS)] and again[: len(TASKS)] == first
    assert len(list(ledger)) == 2 * len(TASKS)


def test_an_attempt_judged_by_other_tests_is_made_again(tmp_path, engine, sandbox):
    ledger = Ledger(tmp_path / "a.jsonl")
    local_runner(engine, sandbox)(TASKS[:1], 1, ledger, params=SETTINGS, source=SOURCE)
    changed = [dataclasses.replace(TASKS[0], hidden_tests=TASKS[0].hidden_tests[:-1])]
    local_runner(engine, sandbox)(changed, 1, ledger, params=SETTINGS, source=SOURCE)
    assert len(list(ledger)) == 2 and len(ledger.keys()) == 2


def test_greedy_with_several_draws_is_refused(tmp_path, engine, sandbox):
    with pytest.raises(ValueError, match="greedy decoding has one answer"):
        local_runner(engine, sandbox)(
            TASKS, 2, Ledger(tmp_path / "a"), params=SamplingParams(temperature=0), source=SOURCE
        )


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


def test_a_scorer_takes_the_highest_and_the_seed_decides_between_equals():
    pool = [won("t", f"def f(a):\n    return {n}\n", n_tokens=n // 2) for n in range(8)]
    best = [select_winners(pool, 3, seed, scorer=lambda one: -one.n_tokens) for seed in range(8)]
    assert all([one.n_tokens for one in some] == [0, 0, 1] for some in best)
    assert len({some[2].program for some in best}) == 2


def test_a_threshold_admits_what_passes_that_share_of_its_tests():
    lost = {"status": "wrong-output", "hidden_ok": False, "total": 4}
    pool = [won("t", f"def f(a):\n    return {n}\n", passed=n, **lost) for n in range(4)]
    pool.append(won("t", "def f(a):\n    return a\n", passed=4, total=4))
    kept = [
        sorted(one.passed for one in select_winners(pool, 9, 0, threshold=share)) for share in (1.0, 0.75, 0.5, 0.01)
    ]
    assert kept == [[4], [3, 4], [2, 3, 4], [1, 2, 3, 4]]


@pytest.mark.parametrize("share", [0.0, -1.0, 1.01, float("nan")])
def test_a_threshold_that_is_no_share_is_refused(share):
    with pytest.raises(ValueError, match="a share of tests"):
        select_winners([], 1, 0, threshold=share)


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


class Scripted:
    """An engine that answers each task's samples from a list, and then with an answer that fails."""

    name, tokenizer, context_length = "scripted", None, 10**6

    def __init__(self, tokenizer, answers):
        self.tokenizer, self.answers = tokenizer, answers

    def stream(self, requests, params):
        for request in requests:
            program = (self.answers.get(request.key.task.task_id, []) + ["?"] * 99)[request.key.draw]
            prefill = request.key.prompt.code_prefill
            text = program.removeprefix(prefill) if program.startswith(prefill) else "\n    return None\n"
            yield request, Completion(text, (1,), True)


def adaptively(budget, ledger, engine, sandbox, **more):
    how = {"max_winners": 1, "params": SETTINGS, "source": SOURCE}
    return attempt_adaptively(TASKS, budget, ledger, engine=engine, sandbox=sandbox, **how | more)


def test_adaptive_rounds_spend_the_budget_and_are_found_again(tmp_path, engine, sandbox):
    ledger, wrong = Ledger(tmp_path / "a.jsonl"), Scripted(engine.tokenizer, {})
    first = adaptively(6, ledger, wrong, sandbox)
    assert len(first) == len({attempt.key for attempt in first}) == len(list(ledger)) == 6
    for task in TASKS:
        mine = [attempt.draw for attempt in first if attempt.task_id == task.task_id]
        assert mine == list(range(len(mine))) and 1 <= len(mine) <= 3
    sampled = []

    def progress(items, total):
        sampled.extend(items)
        return ()

    assert adaptively(6, ledger, wrong, sandbox, progress=progress) == first and sampled == []


def test_a_task_with_enough_winners_gets_no_more_samples(tmp_path, engine, sandbox):
    right = Scripted(
        engine.tokenizer, {TASKS[0].task_id: ["?", TASKS[0].reference], TASKS[1].task_id: [TASKS[1].reference]}
    )
    made = adaptively(12, Ledger(tmp_path / "a.jsonl"), right, sandbox)
    solved = [[attempt.solved for attempt in made if attempt.task_id == task.task_id] for task in TASKS]
    assert solved[0] == [False, True] and solved[1] == [True] and len(made) == 12


def test_a_budget_below_one_is_refused(tmp_path, engine, sandbox):
    with pytest.raises(ValueError, match="budget=0"):
        adaptively(0, Ledger(tmp_path / "a"), engine, sandbox)


UNSUPPORTED = {"status": "unsupported-test", "hidden_ok": False, "visible_ok": False, "failure": "reads stdout"}


def test_an_unsupported_test_counts_neither_for_nor_against():
    a, b = TASKS[:2]
    attempts = [won(a.task_id, "p"), won(a.task_id, "q", draw=1, status="timeout")]
    attempts += [won(b.task_id, "p"), won(b.task_id, "q", draw=1, **UNSUPPORTED)]
    assert mixed_outcome([a, b], attempts) == [a]
    assert all(attempt.counts for attempt in select_winners(attempts, 4, 0))
    assert not matched_random_sample(attempts, attempts[2:3] * 2, 0, lambda attempt: not attempt.solved)
    assert supported_tasks([a, b], attempts) == ([a], {b.task_id: "reads stdout"})
    assert passed_matrix(attempts, [a], "all").tolist() == [[True, False]]
    with pytest.raises(ValueError, match=f"{b.task_id}: unsupported-test"):
        passed_matrix(attempts, [a, b], "all")


def test_a_failure_decides_before_a_test_that_cannot_be_run(sandbox):
    right = sandbox.grade(TASKS[0], TASKS[0].reference)
    wrong = sandbox.grade(TASKS[0], TASKS[0].wrong_answers[0])
    unsupported = dataclasses.replace(right, status="unsupported-test")
    assert decisive(unsupported, wrong) is wrong and decisive(wrong, unsupported) is wrong
    assert decisive(unsupported, right) is unsupported and decisive(right, unsupported) is unsupported
    assert decisive(right, wrong) is wrong and decisive(right, right) is right


def test_an_error_of_the_sandbox_is_raised(sandbox):
    fields = {"programming_language": "julia", "mode": "program", "cases": (Case("1", "1"),)}
    broken = dataclasses.replace(TASKS[0], visible_tests=(), hidden_tests=(), entry_point="", **fields)
    if sandbox.grade(broken, "print(1)").status != "sandbox-error":
        pytest.skip("Julia is installed here")
    with pytest.raises(SandboxError, match=TASKS[0].task_id):
        grade_all(sandbox, [(broken, "print(1)")])
    with pytest.raises(SandboxError, match=TASKS[0].task_id):
        grade_visible_and_hidden(sandbox, broken, "print(1)")


def test_programs_that_fuzzed_tests_reject_are_not_selected():
    strong, weak = (won("t", f"def f(a):\n    return a + {n}\n", seed=n) for n in range(2))
    assert select_winners([weak, strong], 2, 0, rejected={weak.key}) == [strong]


def test_the_live_line_counts_prompts_and_winners(capsys, monkeypatch):
    monkeypatch.setenv("WORKBOOK_BATCH", "1")
    list(watch([won("a", "p"), won("a", "q", status="timeout"), won("b", "p", status="timeout")], 4))
    assert "attempts 3 of 4, prompts 2, prompts with a winner 1, winners 1" in capsys.readouterr().out


def test_prompts_longer_than_the_context_are_named(engine):
    long = dataclasses.replace(TASKS[0], task_id="long", prompt="ক" * 20_000)
    assert fits_context([*TASKS, long], engine, SETTINGS) == (TASKS, ["long"])


def test_log_probabilities_are_kept_where_asked(tmp_path, engine, sandbox):
    asked = dataclasses.replace(SETTINGS, logprobs=True)
    (attempt,) = local_runner(engine, sandbox)(TASKS[:1], 1, Ledger(tmp_path / "a"), params=asked, source=SOURCE)
    assert attempt.logprob_sum is not None and attempt.logprob_sum < 0
