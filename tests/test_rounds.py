"""Rounds of mining and training, on two tasks and two steps a round."""

import dataclasses
from pathlib import Path

import pytest

from lib.mining.ledger import Ledger
from lib.models.card import read_facts
from lib.models.resolve import resolve
from lib.sampling import SamplingParams
from lib.sandbox import Sandbox
from lib.tasks.task import read_tasks
from lib.training.resume import TrainingError
from lib.training.rounds import RoundSettings, before_and_after, iterate, round_metrics, settings_from_mining
from lib.training.sft import SftSettings, examples
from tests.test_ledger import ROW

TASKS = {t.task_id: t for t in read_tasks(Path(__file__).parent.parent / "data/starter_bn.jsonl")}
TRAIN = [TASKS["bn/add_numbers"], TASKS["bn/square"]]
HELD_OUT = [TASKS["bn/subtract"]]
SETTINGS = SftSettings(steps=2, batch_size=2, lora_rank=4, lora_alpha=8, learning_rate=1e-3)
ROUNDS = RoundSettings(rounds=2, num_samples=6, dev_samples=2, sampling=SamplingParams(0.8, 0.95, 16))


def attempt(task, draw, passed, program):
    status = "success" if passed else "wrong-output"
    return dataclasses.replace(ROW, task_id=task.task_id, draw=draw, status=status, hidden_ok=passed, program=program)


@pytest.mark.slow
def test_two_rounds_mine_with_the_newest_adapter_and_go_on_where_they_stopped(tmp_path):
    import unsloth  # noqa: F401, I001
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(resolve("embedded"))
    winners = [attempt(task, 0, True, task.reference) for task in TRAIN]
    rows = examples(winners, TRAIN, tokenizer)
    with Sandbox() as sandbox:
        given = {"winners": winners, "rows": rows, "folder": tmp_path, "rounds": ROUNDS, "settings": SETTINGS}
        given |= {"tokenizer": tokenizer, "sandbox": sandbox}
        found = iterate("embedded", TRAIN, HELD_OUT, **given)
        stamps = [one.adapter.joinpath("adapter_model.safetensors").stat().st_mtime_ns for one in found[1:]]
        again = iterate("embedded", TRAIN, HELD_OUT, **given)
    assert [one.metrics["round"] for one in found] == [0, 1, 2]
    mined = list(Ledger(tmp_path / "mining.jsonl"))
    assert len(mined) == 2 * 6 and {one.adapter.split("-")[0] for one in mined} == {"round1"}
    assert found[2].metrics["rows"] >= 2  # the union holds round 1's winners
    assert len({one.adapter for one in Ledger(tmp_path / "held_out.jsonl")}) == 3
    assert [row["what"] for row in read_facts(found[2].adapter)["scores"]] == [
        "pass@1, dev, greedy",
        "pass@1, dev, draws",
    ]
    assert [one.metrics for one in again] == [one.metrics for one in found]
    assert [one.adapter.joinpath("adapter_model.safetensors").stat().st_mtime_ns for one in again[1:]] == stamps


def test_figures_count_distinct_programs_and_pass_at_n():
    task, other = TRAIN
    drawn = [attempt(task, 0, True, "def f(): return 1"), attempt(task, 1, True, "def f():  return 1")]
    drawn += [attempt(other, 0, False, "def f(): return 2"), attempt(other, 1, True, "def f(): return 3")]
    greedy = [attempt(task, 0, True, ""), attempt(other, 0, False, "")]
    found = round_metrics({"greedy": greedy, "draws": drawn}, TRAIN)
    assert (found["greedy"], found["pass@1"], found["pass@2"]) == (0.5, 0.75, 1.0)
    assert (found["distinct"], found["distinct_winners"]) == (0.75, 1.0)


def test_a_task_whose_tests_cannot_be_run_counts_neither_way():
    task, other = TRAIN
    samples = [attempt(task, 0, True, "def f(): return 1"), attempt(other, 0, False, "def f(): return 2")]
    samples[1] = dataclasses.replace(samples[1], status="unsupported-test")
    found = round_metrics({"greedy": samples, "draws": samples}, TRAIN)
    assert (found["greedy"], found["n_tasks"], found["unsupported"]) == (1.0, 1, 1)


def test_before_and_after_stand_side_by_side():
    rounds = []
    for passed in (False, True):
        answers = {"greedy": [attempt(TRAIN[0], 0, passed, f"p{passed}")]}
        rounds.append(type("Seen", (), {"answers": answers})())
    (row,) = before_and_after(*rounds, TRAIN[:1])
    assert (row["before"], row["passed before"], row["after"], row["passed after"]) == ("pFalse", False, "pTrue", True)


def test_later_rounds_are_mined_as_the_first():
    mined = [dataclasses.replace(ROW, task_id=task, draw=draw) for task in "ab" for draw in range(5)]
    older = [dataclasses.replace(ROW, task_id="a", draw=draw, temperature=0.2) for draw in range(50)]
    plan = settings_from_mining(mined[:3], mined + older, rounds=2, winners_from="replace", engine="openvino", seed=7)
    assert (plan.num_samples, plan.winners_per_task, plan.rounds, plan.winners_from) == (5, 3, 2, "replace")
    assert plan.sampling == SamplingParams(0.8, 0.95, 96) and plan.seed == 7


def test_no_winners_and_unknown_choices_are_refused():
    with pytest.raises(TrainingError, match="no winners among 3 samples"):
        settings_from_mining([], [ROW] * 3, rounds=1, winners_from="union", engine="auto", seed=0)
    with pytest.raises(ValueError, match="union or replace"):
        RoundSettings(winners_from="newest")
    with pytest.raises(ValueError, match="rounds=0"):
        RoundSettings(rounds=0)
