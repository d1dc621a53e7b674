"""GMPO in TRL's trainer: the real model, the real engine, one or two tiny batches a test."""

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from lib.gmpo.batch import all_advantages
from lib.gmpo.config import PolyCodeConfig
from lib.gmpo.policy import token_log_probs
from lib.gmpo.rollouts import SandboxReward
from lib.gmpo.run import groups_of, make_trainer, run_config, train_gmpo, training_identity
from lib.gmpo.trainer import PolyCodeTrainer
from lib.models.resolve import resolve
from lib.sandbox import Sandbox, SandboxError
from lib.tasks.prompts import Prompt, build_prompt
from lib.tasks.task import Task
from lib.training import tensorboard
from lib.training.resume import TrainingError

TINY: dict[str, Any] = {
    "steps": 1, "prompts_per_batch": 2, "group_size": 2, "rows_per_pass": 2, "max_completion_length": 8,
    "temperature": 1.3, "learning_rate": 1e-4, "tau": 0.02,
}  # fmt: skip


def tiny(folder: Path, **changes: Any) -> PolyCodeConfig:
    return run_config(**TINY | {"output_dir": str(folder)} | changes)


def task(name: str, question: str, *tests: str) -> Task:
    return Task(name, "test", "train", question, "en", "python", "function", name, visible_tests=tests, time_limit_s=2)


TASKS = (
    task("double", "Return twice the number, as `double(n)`.", "assert double(2) == 4"),
    task("is_even", "Say whether n is even, as `is_even(n)`.", "assert is_even(2) is True"),
)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small LoRA whose B is not zero, so that it differs from the base model."""
    folder = tmp_path_factory.mktemp("adapter") / "start"
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(resolve("embedded"), dtype=torch.bfloat16)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(base, config)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.01)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    tokenizer = AutoTokenizer.from_pretrained(resolve("embedded"))
    return [build_prompt(each, tokenizer) for each in TASKS]


def weights(trainer: PolyCodeTrainer) -> dict[str, Tensor]:
    return {n: w.detach().clone() for n, w in trainer.model.named_parameters() if w.requires_grad}


# -- a run with rewards that depend on the prompt and the place in the group ---------------------------------


class AlternatingReward:
    """First of a group right for `double`, second for `is_even`; remembers what it said about which tokens."""

    def __init__(self) -> None:
        self.said: dict[tuple[str, tuple[int, ...]], float] = {}

    def __call__(self, task_id: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        rewards = [float(row % 2 == (name == "is_even")) for row, name in enumerate(task_id)]
        keys = ((name, tuple(ids)) for name, ids in zip(task_id, completion_ids, strict=True))
        self.said = dict(zip(keys, rewards, strict=True))
        return rewards


@pytest.fixture(scope="module")
def run(adapter: Path, prompts: list[Prompt], tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    rows: list[dict[str, Any]] = []
    reward, folder = AlternatingReward(), tmp_path_factory.mktemp("run")
    trainer = make_trainer("embedded", adapter, prompts, tiny(folder, beta=0.1), reward, rows.append)
    before, sample, drawn = weights(trainer), trainer.rollout_func, {}
    trainer.rollout_func = lambda texts, same: drawn.update(sample(texts, same)) or dict(drawn)
    trainer.train()
    yield SimpleNamespace(trainer=trainer, before=before, rows=rows, reward=reward, drawn=drawn)


def completion_rows(run: SimpleNamespace, prompts: list[Prompt]) -> Iterator[tuple[str, tuple[int, ...], float]]:
    """Task, tokens and advantage of every row as the loss sees it."""
    encode = run.trainer.processing_class
    known = {tuple(encode(p.text, add_special_tokens=False)["input_ids"]): p.task_id for p in prompts}
    for batch in run.trainer._buffered_inputs:
        for i, advantage in enumerate(batch["advantages"].tolist()):
            prompt = batch["prompt_ids"][i][batch["prompt_mask"][i].bool()]
            completion = batch["completion_ids"][i][batch["completion_mask"][i].bool()]
            yield known[tuple(prompt.tolist())], tuple(completion.tolist()), advantage


def test_unequal_rewards_move_the_adapter_and_nothing_else(run: SimpleNamespace) -> None:
    moved = [not torch.equal(weight, run.before[name]) for name, weight in weights(run.trainer).items()]
    assert all("lora" in name for name in run.before)
    assert sum(moved) > 0.9 * len(moved)


def test_every_row_carries_its_own_completions_advantage(run: SimpleNamespace, prompts: list[Prompt]) -> None:
    """Expected values from an independent forward pass of each unpadded row under the adapter it was sampled from."""
    said = run.reward.said
    assert len(said) == 4, "two completions of one prompt were the same: the check needs different ones"
    model = run.trainer.model
    after = weights(run.trainer)
    model.load_state_dict(run.before, strict=False)
    L, h = [], []
    for prompt in prompts:
        ids = run.trainer.processing_class(prompt.text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            states = model(ids, output_hidden_states=True).hidden_states[-1][0].float()
            h.append(states.mean(0))
            for tokens in (tokens for name, tokens in said if name == prompt.task_id):
                logits = model(torch.cat([ids, torch.tensor([tokens])], 1)).logits[0, ids.shape[1] - 1 : -1]
                logps = (logits.float() / TINY["temperature"]).log_softmax(-1)
                L.append(logps.gather(1, torch.tensor(tokens)[:, None]).sum())
    model.load_state_dict(after, strict=False)
    rewards = torch.tensor([[said[key] for key in said if key[0] == p.task_id] for p in prompts])
    by_name, parts = all_advantages(
        rewards, torch.stack(L).view(2, 2), torch.stack(h), pooling=run.trainer.args.pooling
    )
    assert run.rows[0]["l_hat_right"] == pytest.approx(float(parts.l_hat[rewards == 1].mean()), abs=0.1)
    assert run.rows[0]["l_hat_abs_max"] == pytest.approx(float(parts.l_hat.abs().max()), abs=0.1)
    assert run.rows[0]["l_hat_abs_mean"] == pytest.approx(float(parts.l_hat.abs().mean()), abs=0.1)
    expected = dict(
        zip(
            [key for p in prompts for key in said if key[0] == p.task_id],
            by_name["gmpo"].flatten(),
            strict=True,
        )
    )
    found = list(completion_rows(run, prompts))
    assert {(name, tokens) for name, tokens, _ in found} == set(said)
    for name, tokens, advantage in found:
        assert advantage == pytest.approx(float(expected[name, tokens]), abs=0.1)
        assert (advantage > 0) == (said[name, tokens] == 1)


def test_first_update_has_ratio_one_and_clips_nothing_and_the_second_has_not(run: SimpleNamespace) -> None:
    first, second = run.rows[0]["updates"]
    assert first["clip_fraction"] == 0 and first["log_ratio_max"] < 1e-6
    assert first["effective_sample_size"] == pytest.approx(1)
    assert second["log_ratio_max"] > 1e-4


@pytest.mark.parametrize("level", ["sequence", "sequence_mean", "token"])
def test_where_the_ratio_is_one_the_loss_is_minus_the_mean_advantage(run: SimpleNamespace, level: Any) -> None:
    trainer, batch = run.trainer, dict(run.trainer._buffered_inputs[0])
    trainer.model.train()
    with torch.no_grad():
        batch["old_per_token_logps"] = trainer._log_probs(trainer.model, batch)[0]
    beta, ratio = trainer.beta, trainer.args.ratio
    trainer.beta, trainer.args.ratio = 0.0, level
    loss = trainer._compute_loss(trainer.model, batch) * trainer.current_gradient_accumulation_steps
    trainer.beta, trainer.args.ratio = beta, ratio
    trainer._log_ratios.clear()
    assert float(loss.detach()) == pytest.approx(-float(batch["advantages"].mean()), abs=1e-6)


def test_reference_is_the_model_without_adapter(run: SimpleNamespace) -> None:
    trainer, batch = run.trainer, run.trainer._buffered_inputs[0]
    with torch.no_grad(), trainer.model.disable_adapter():
        plain = trainer._log_probs(trainer.model, batch)[0]
    mask = batch["completion_mask"].bool()
    assert torch.equal(plain[mask], batch["ref_per_token_logps"][mask])
    assert not torch.equal(plain[mask], batch["old_per_token_logps"][mask])
    assert all(update["kl"] >= 0 for update in run.rows[0]["updates"])


def test_row_of_a_step_is_json_and_says_what_happened(run: SimpleNamespace) -> None:
    (row,) = run.rows
    json.dumps(row, allow_nan=False)
    assert (row["step"], row["reward"], row["solved"], row["mixed_outcome"]) == (1, 0.5, 1.0, 1.0)
    assert row["advantage_var_per_prompt"] == pytest.approx(1, abs=1e-4)
    assert all(row[name] >= 0 for name in ("seconds_sampling", "seconds_scoring", "seconds_update", "truncated"))


def test_log_probabilities_read_off_the_model_are_those_the_trainer_learns_from(run: SimpleNamespace) -> None:
    trainer, batch = run.trainer, run.trainer._buffered_inputs[0]
    with torch.no_grad():
        expected, mask = trainer._log_probs(trainer.model, batch)[0], batch["completion_mask"].bool()
        asked, drawn = (
            [row[keep.bool()].tolist() for row, keep in zip(batch[f"{name}_ids"], batch[f"{name}_mask"], strict=True)]
            for name in ("prompt", "completion")
        )
        found, real = token_log_probs(trainer.model, asked, drawn, TINY["temperature"], size=1)
    assert real.sum() == mask.sum()
    apart = (found[real.bool()].float() - expected[mask].float()).abs()
    assert apart.mean() < 0.1 and apart.max() < 0.4  # bf16 rounds with the padding; a token's neighbour is nats away


def test_prompts_are_grouped_by_the_model_they_are_for(run: SimpleNamespace, prompts: list[Prompt]) -> None:
    """Eight texts of two kinds in turn: pairs for batches of four are of one kind; small batches are left alone."""
    kinds = "Add the numbers {} and {}.", "একটি শব্দের সব অক্ষর উল্টো করে লেখো {} {}"
    texts = [kinds[number % 2].format(number, number + 1) for number in range(8)]
    asked = [dataclasses.replace(prompts[0], text=text) for text in texts]
    trainer = run.trainer
    four, three, eight = (tiny(Path("unused"), prompts_per_batch=size) for size in (4, 3, 8))
    found = groups_of(asked, trainer.model, trainer.processing_class, four)
    assert sorted(map(len, found)) == [2, 2, 2, 2]
    assert all(len({number % 2 for number in group}) == 1 for group in found)
    for config, order in ((three, "clusters"), (eight, "clusters"), (four, "shuffled")):
        assert groups_of(asked, trainer.model, trainer.processing_class, config, order) == [list(range(8))]


# -- signals that must not teach ------------------------------------------------------------------------------


def test_zero_advantages_leave_the_adapter_alone_and_are_reported(
    run: SimpleNamespace, adapter: Path, prompts: list[Prompt], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run's completions once more, none of them right."""
    monkeypatch.setattr("lib.gmpo.trainer.EQUAL_BATCHES", 1)

    def never(task_id: list[str], **_: Any) -> list[float]:
        return [0.0] * len(task_id)

    trainer = make_trainer("embedded", adapter, prompts, tiny(tmp_path, num_iterations=1), never)
    trainer.rollout_func = lambda texts, same: dict(run.drawn)
    before = weights(trainer)
    with pytest.warns(UserWarning, match="no program passed; the tasks are too hard"):
        trainer.train()
    assert trainer.state.global_step == 1
    assert all(torch.equal(weight, before[name]) for name, weight in weights(trainer).items())


def test_nan_log_probabilities_stop_before_anything_is_learnt(
    run: SimpleNamespace, adapter: Path, prompts: list[Prompt], tmp_path: Path
) -> None:
    """The first run's completions once more, under weights of which one is not a number."""
    trainer = make_trainer("embedded", adapter, prompts, tiny(tmp_path), AlternatingReward())
    trainer.rollout_func = lambda texts, same: dict(run.drawn)
    next(w for w in trainer.model.parameters() if w.requires_grad).data[0, 0] = torch.nan
    with pytest.raises(TrainingError, match="step 1: log-probabilities of 4 of 4 completions are NaN"):
        trainer.train()
    assert trainer.state.global_step == 0


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    try:
        opened = Sandbox(workers=1)
    except SandboxError as error:
        pytest.skip(f"no sandbox on this machine: {str(error).splitlines()[0]}")
    with opened:
        yield opened


def test_sandbox_reward_judges_the_program_a_completion_stands_for(sandbox: Sandbox, prompts: list[Prompt]) -> None:
    noted: dict[str, float] = {}
    right, wrong = "\n    return n * 2\n```", "\n    return n + 3\n"
    names = ["double", "double"]
    reward = SandboxReward(sandbox, TASKS, prompts, "binary")
    assert reward([right, wrong], names, noted.__setitem__) == [1.0, 0.0]
    assert noted["verdict/success"] == noted["verdict/wrong-output"] == 0.5


def test_sandbox_errors_stop_the_run(sandbox: Sandbox, prompts: list[Prompt]) -> None:
    without = dataclasses.replace(TASKS[0], visible_tests=(), hidden_tests=())
    reward = SandboxReward(sandbox, [without, TASKS[1]], prompts, "binary")
    with pytest.raises(SandboxError, match="1 of 1 programs could not be graded, the first for double"):
        reward(["\n    return n * 2\n"], ["double"], lambda name, value: None)


def test_tests_that_cannot_be_run_stop_the_run_and_name_the_task(sandbox: Sandbox, prompts: list[Prompt]) -> None:
    broken = dataclasses.replace(TASKS[0], visible_tests=("assert double(2 ==",))
    reward = SandboxReward(sandbox, [broken, TASKS[1]], prompts, "binary")
    with pytest.raises(SandboxError, match="the tests of double cannot be run here"):
        reward(["\n    return n * 2\n"], ["double"], lambda name, value: None)


def test_completion_whose_test_cannot_be_run_gets_the_mean_of_its_task(sandbox: Sandbox, prompts: list[Prompt]) -> None:
    odd = "double(3) == 6 or __import__('no_such_module')"
    partly = dataclasses.replace(TASKS[0], visible_tests=("assert double(2) != 5", f"assert {odd}"), hidden_tests=())
    reward = SandboxReward(sandbox, [partly, TASKS[1]], prompts, "binary")
    texts = ["\n    return n * 2\n", "\n    return 5\n", "\n    return 0\n"]
    assert reward(texts, ["double"] * 3, lambda name, value: None) == [1.0, 0.0, 0.5]


# -- a whole run -----------------------------------------------------------------------------------------------


def test_a_training_is_continued_then_skipped_and_another_one_starts_anew(
    sandbox: Sandbox, adapter: Path, tmp_path: Path
) -> None:
    fields = {"steps": 2, "num_iterations": 1, "bank_size": 4, "max_completion_length": 16, "checkpoint_every": 1}
    out, steps = tmp_path / "out", []

    def train(stop_at: int = 9, **changes: Any) -> dict[str, Any]:
        steps.clear()

        def on_step(row: dict[str, Any]) -> None:
            steps.append(row["step"])
            if len(steps) == stop_at:
                raise KeyboardInterrupt

        return train_gmpo("embedded", adapter, out, TASKS, tiny(tmp_path, **fields | changes), on_step)

    with pytest.raises(KeyboardInterrupt):
        train(stop_at=2)
    kept = (tmp_path / "out.trainer" / "checkpoint-1" / "trainer_state.json").stat().st_mtime_ns
    assert not out.exists()
    summary = train(report_to="tensorboard")  # what is reported where is no part of a training's identity
    assert steps == [1, 2] and kept
    lines = (tmp_path / "out.steps.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]
    assert sum(json.loads(lines[0])[name] for name in json.loads(lines[0]) if name.startswith("verdict/")) == 1
    assert (summary["steps"], summary["completions"]) == (2, 8)
    assert {"adapter_config.json", "adapter_model.safetensors", "training.json"} <= {
        path.name for path in out.iterdir()
    }
    assert not (tmp_path / "out.trainer").exists()
    assert any(path.stat().st_size for path in (tmp_path / "out.tensorboard").glob("events*"))
    assert tensorboard.VARIABLE not in os.environ

    written = (out / "adapter_model.safetensors").stat().st_mtime_ns
    assert train() == summary and steps == [1, 2]
    assert (out / "adapter_model.safetensors").stat().st_mtime_ns == written
    assert train(steps=1, lam=0.1)["steps"] == 1 and steps == [1]
    assert (out / "adapter_model.safetensors").stat().st_mtime_ns != written


def test_what_is_learnt_from_belongs_to_the_identity_and_what_is_reported_does_not(
    adapter: Path, prompts: list[Prompt], tmp_path: Path
) -> None:
    def identity(tasks: Sequence[Task] = TASKS, start: Path = adapter, reward: Any = "binary", **changes: Any) -> Any:
        return training_identity("embedded", start, tasks, prompts, tiny(tmp_path, **changes), reward=reward)

    first, other = identity(), tmp_path / "start"
    assert identity(report_to="tensorboard", output_dir=str(other), checkpoint_every=1) == first
    shutil.copytree(adapter, other)
    assert identity(start=other) == first
    (other / "adapter_model.safetensors").write_bytes(b"other weights")
    harder = (dataclasses.replace(TASKS[0], visible_tests=("assert double(3) == 6",)), TASKS[1])
    changed = [identity(start=other), identity(harder), identity(reward="fractional")]
    changed += [identity(**change) for change in ({"lam": 0.1}, {"seed": 1}, {"steps": 2}, {"weight_decay": 0.1})]
    assert all(each != first for each in changed)


def test_a_start_without_adapter_is_one_clear_line(tmp_path: Path, prompts: list[Prompt]) -> None:
    with pytest.raises(TrainingError, match="no adapter_config.json"):
        make_trainer("embedded", tmp_path, prompts, tiny(tmp_path / "work"), AlternatingReward())
