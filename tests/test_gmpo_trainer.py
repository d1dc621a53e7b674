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
from trl import GRPOTrainer

from lib.gmpo.batch import all_advantages, batch_weights
from lib.gmpo.config import PolyCodeConfig
from lib.gmpo.neighbourhoods import similarities
from lib.gmpo.policy import own_tokens, prompt_embeddings
from lib.gmpo.rollouts import Canaries, Rollouts, SandboxReward, sampler, training_engine
from lib.gmpo.run import groups_of, make_trainer, run_config, train_gmpo, training_identity
from lib.gmpo.trainer import STATE, PolyCodeTrainer
from lib.models.resolve import resolve
from lib.sampling import Completion, Request, SamplingParams
from lib.sampling.scoring import padded, token_log_probs
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
    questions = [task.prompt for task in TASKS]
    trainer = make_trainer(
        "embedded", adapter, prompts, tiny(folder, beta=0.1), reward, rows.append, questions=questions
    )
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
    L, h, by_id = [], [], {task.task_id: task for task in TASKS}
    for prompt in prompts:
        ids = run.trainer.processing_class(prompt.text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            states = model(ids, output_hidden_states=True).hidden_states[-1][0].float()
            first, end = own_tokens(run.trainer.processing_class, prompt.text, by_id[prompt.task_id].prompt)
            h.append(states[first:end].mean(0))
            for tokens in (tokens for name, tokens in said if name == prompt.task_id):
                logits = model(torch.cat([ids, torch.tensor([tokens])], 1)).logits[0, ids.shape[1] - 1 : -1]
                logps = (logits.float() / TINY["temperature"]).log_softmax(-1)
                L.append(logps.gather(1, torch.tensor(tokens)[:, None]).sum())
    model.load_state_dict(after, strict=False)
    rewards = torch.tensor([[said[key] for key in said if key[0] == p.task_id] for p in prompts])
    w, _ = batch_weights(torch.stack(h), 2.0, TINY["tau"])
    by_name, parts = all_advantages(rewards, torch.stack(L).view(2, 2), w, **run.trainer.args.sbam)
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
    beta, ratio = trainer.args.beta, trainer.args.ratio
    trainer.args.beta, trainer.args.ratio = 0.0, level
    loss = trainer._compute_loss(trainer.model, batch) * trainer.current_gradient_accumulation_steps
    trainer.args.beta, trainer.args.ratio = beta, ratio
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
    assert 1 <= row["effective_neighbours"] <= 2 and row["own_weight"] >= 0.5 and row["tau"] == TINY["tau"]


def test_the_update_norm_is_what_the_weights_moved_by(run: SimpleNamespace) -> None:
    moved = sum(float((new - run.before[name]).double().square().sum()) for name, new in weights(run.trainer).items())
    assert run.rows[0]["update_norm"] == pytest.approx(moved**0.5, rel=1e-5) and moved > 0


def test_the_engines_own_log_probabilities_reach_the_batch_and_the_mismatch_is_small(run: SimpleNamespace) -> None:
    batch = run.trainer._buffered_inputs[0]
    real = batch["completion_mask"].bool()
    apart = (batch["sampling_per_token_logps"][real] - batch["old_per_token_logps"][real].float()).abs()
    assert apart.mean() < 0.2, "int8 and bf16 round; another token's probability is nats away"
    row = run.rows[0]
    assert 0 < row["mismatch_kl"] < 0.1 and 0.3 < row["mismatch_ess"] <= 1 and row["mismatch_ratio_max"] >= 1


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


# -- embeddings, engines, references --------------------------------------------------------------------------


def test_own_tokens_are_the_tasks_words_and_nothing_of_the_template(prompts: list[Prompt]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(resolve("embedded"))
    for each, prompt in zip(TASKS, prompts, strict=True):
        first, end = own_tokens(tokenizer, prompt.text, each.prompt)
        ids = tokenizer(prompt.text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids[first:end]).strip() == each.prompt
        assert own_tokens(tokenizer, prompt.text, "words that are not there") == (0, len(ids))


def test_embeddings_count_own_tokens_only_and_ignore_dropout_and_padding(
    run: SimpleNamespace, prompts: list[Prompt]
) -> None:
    model, tokenizer = run.trainer.model, run.trainer.processing_class
    rows = [tokenizer(prompt.text, add_special_tokens=False)["input_ids"] for prompt in prompts]
    own = [own_tokens(tokenizer, p.text, t.prompt) for p, t in zip(prompts, TASKS, strict=True)]
    model.train()
    switches = [module for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    layers = [module for module in model.modules() if hasattr(module, "lora_dropout")]
    kept = [layer.lora_dropout["default"] for layer in layers]
    for layer in layers:
        layer.lora_dropout["default"] = torch.nn.Dropout(0.5)
    try:
        together = prompt_embeddings(model, *padded(rows, "left"), 2, torch.tensor(own))
        again = prompt_embeddings(model, *padded(rows, "left"), 2, torch.tensor(own))
    finally:
        for layer, before in zip(layers, kept, strict=True):
            layer.lora_dropout["default"] = before
    assert layers and model.training and all(module.training for module in switches)
    assert torch.equal(together, again)
    with torch.no_grad():
        states = model(torch.tensor([rows[1]]), output_hidden_states=True).hidden_states[-1][0].float()
    alone = states[own[1][0] : own[1][1]].mean(0)
    assert torch.nn.functional.cosine_similarity(together[1], alone, dim=0) > 0.999
    whole = prompt_embeddings(model, *padded(rows, "left"), 2)
    assert similarities(whole, centre=False).min() > similarities(together, centre=False).min()


def test_engine_transformers_draws_with_the_model_in_training(run: SimpleNamespace, prompts: list[Prompt]) -> None:
    """No second model is loaded; what it says it drew from is what the model says, and its modes come back."""
    policy = run.trainer.model
    policy.train()
    asked = [Request(place, prompt.text, (), place) for place, prompt in enumerate(prompts)]
    with sampler("embedded", policy, "transformers") as engine:
        assert engine._model is policy and not policy.training
        drawn = dict(engine.stream(asked, SamplingParams(0.8, 1.0, 6, logprobs=True)))
    assert policy.training and policy.get_base_model().config._attn_implementation == "sdpa"
    ids = [run.trainer.processing_class(p.text, add_special_tokens=False)["input_ids"] for p in prompts]
    with torch.no_grad():
        exact, _ = token_log_probs(policy, ids, [drawn[request].token_ids for request in asked], 0.8)
    for request, row in zip(asked, exact, strict=True):
        assert drawn[request].logprobs == pytest.approx(row[: drawn[request].n_tokens].tolist(), abs=0.3)


def test_the_engine_that_was_asked_for_is_used_and_a_second_base_model_is_not(prompts: list[Prompt]) -> None:
    config = tiny(Path("unused"))
    assert Rollouts("embedded", prompts, config, "transformers").engine == "transformers"
    assert Rollouts("embedded", prompts, config, "openvino").engine == "openvino"
    for name in ("vllm", "http://127.0.0.1:1/v1"):
        with pytest.warns(UserWarning, match="a second copy of the base model"):
            assert training_engine(name) == "transformers"


@pytest.mark.slow
@pytest.mark.parametrize("reference", ["start", "old", "refreshed"])
def test_kl_is_to_the_reference_that_was_asked_for(
    reference: str, run: SimpleNamespace, adapter: Path, prompts: list[Prompt], tmp_path: Path
) -> None:
    """Two batches of the first run's completions: only the start differs from π_old in the second."""
    seen = []
    config = tiny(
        tmp_path, beta=0.1, steps=2, num_iterations=1, kl_reference=reference, kl_refresh=1, kl_level="sequence"
    )
    trainer = make_trainer("embedded", adapter, prompts, config, AlternatingReward())
    trainer.rollout_func = lambda texts, same: dict(run.drawn)
    refer = trainer._refer

    def watched(batch: dict[str, Any]) -> None:
        before = weights(trainer)
        refer(batch)
        assert all(torch.equal(new, before[name]) for name, new in weights(trainer).items())
        mask = batch["completion_mask"].bool()
        seen.append((batch["ref_per_token_logps"][mask] - batch["old_per_token_logps"][mask]).abs().max())

    trainer._refer = watched  # type: ignore[method-assign]
    trainer.train()
    assert "ref" not in trainer.model.peft_config and seen[0] == 0
    assert seen[1] > 1e-4 if reference == "start" else seen[1] == 0


def test_groups_of_one_are_learnt_from_the_base_embeds_and_the_last_update_has_the_final_kl_weight(
    adapter: Path, prompts: list[Prompt], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[dict[str, Any]] = []
    config = tiny(tmp_path, group_size=1, steps=2, tau=1.0, beta=0.2, beta_final=0.0, encoder="base")

    def reward(task_id: list[str], **_: Any) -> list[float]:
        return [float(name == "double") for name in task_id]

    trainer = make_trainer("embedded", adapter, prompts, config, reward, rows.append)
    used, weigh, embedded, embed = list[float](), config.beta_at, list[bool](), prompt_embeddings
    monkeypatch.setattr(trainer.args, "beta_at", lambda progress: used.append(weigh(progress)) or used[-1])

    def embeddings(model: Any, *rest: Any) -> Tensor:
        embedded.append(any(part.disable_adapters for part in model.modules() if hasattr(part, "disable_adapters")))
        return embed(model, *rest)

    monkeypatch.setattr("lib.gmpo.trainer.prompt_embeddings", embeddings)
    trainer.train()
    assert [row["step"] for row in rows] == [1, 2] and all(row["update_norm"] > 0 for row in rows)
    assert used == pytest.approx([0.2, 0.2 * 2 / 3, 0.2 / 3, 0.0]) and embedded == [True, True]


def test_a_correction_weighs_each_sequence_in_the_loss(run: SimpleNamespace) -> None:
    trainer, batch = run.trainer, dict(run.trainer._buffered_inputs[0])
    trainer.model.train()
    with torch.no_grad():
        batch["old_per_token_logps"] = trainer._log_probs(trainer.model, batch)[0]
    batch["correction"] = torch.arange(len(batch["advantages"])) / 2.0
    beta, trainer.args.beta = trainer.args.beta, 0.0
    loss = trainer._compute_loss(trainer.model, batch) * trainer.current_gradient_accumulation_steps
    trainer.args.beta = beta
    trainer._log_ratios.clear()
    assert float(loss.detach()) == pytest.approx(-float((batch["correction"] * batch["advantages"]).mean()), abs=1e-6)


def test_groups_of_one_reward_are_replaced_until_the_budget_is_spent(
    run: SimpleNamespace, adapter: Path, prompts: list[Prompt], tmp_path: Path
) -> None:
    """Of eight prompts only the last two ever have both outcomes; the batch begins with two others."""
    tokens, asked, rows = run.drawn["completion_ids"][0], list[str](), list[dict[str, Any]]()
    many = [dataclasses.replace(prompts[0], task_id=f"t{n}", text=f"{prompts[0].text} {n}") for n in range(8)]

    def sample(texts: list[str], trainer: PolyCodeTrainer) -> dict[str, Any]:
        asked.extend(texts[::2])
        return {
            "prompt_ids": [[1, 2]] * len(texts),
            "completion_ids": [list(tokens)] * len(texts),
            "logprobs": [[-1.0] * len(tokens)] * len(texts),
        }

    def reward(task_id: list[str], **_: Any) -> list[float]:
        return [float(row % 2 and name in ("t6", "t7")) for row, name in enumerate(task_id)]

    def train(refill: int) -> tuple[dict[str, Any], int]:
        asked.clear(), rows.clear()
        trainer = make_trainer(
            "embedded", adapter, many, tiny(tmp_path, num_iterations=1, refill=refill), reward, rows.append,
            batch_order="shuffled",
        )  # fmt: skip
        trainer.train_dataset = trainer.train_dataset.from_list(
            [{"prompt": prompt.text, "task_id": prompt.task_id, "own": (0, 2)} for prompt in many]
        )
        trainer.rollout_func = sample
        trainer.train()
        return rows[0], len(asked)

    full, sampled = train(refill=6)
    assert (full["replaced_groups"], full["uniform_groups"], full["reward"]) == (2, 0, 0.5)
    assert sampled <= 8 and len(set(asked)) == sampled
    short, sampled = train(refill=1)
    assert sampled == 3 and short["replaced_groups"] + short["uniform_groups"] == 2


# -- signals that must not teach ------------------------------------------------------------------------------


def test_zero_advantages_leave_the_adapter_alone_and_are_reported(
    run: SimpleNamespace, adapter: Path, prompts: list[Prompt], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run's completions once more, all of them right."""
    monkeypatch.setattr("lib.gmpo.trainer.EQUAL_BATCHES", 1)

    def always(task_id: list[str], **_: Any) -> list[float]:
        return [1.0] * len(task_id)

    trainer = make_trainer("embedded", adapter, prompts, tiny(tmp_path, num_iterations=1), always)
    trainer.rollout_func = lambda texts, same: dict(run.drawn)
    before = weights(trainer)
    with pytest.warns(UserWarning, match="every program passed; the tasks are too easy"):
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


def test_a_loss_that_is_not_a_number_stops_before_the_update(run: SimpleNamespace) -> None:
    trainer, batch = run.trainer, dict(run.trainer._buffered_inputs[0])
    trainer.model.train()
    weight = next(w for w in trainer.model.parameters() if w.requires_grad)
    kept = weight.data.clone()
    weight.data[0, 0] = torch.nan
    with pytest.raises(TrainingError, match="the loss is not a number, and nothing was learnt"):
        trainer._compute_loss(trainer.model, batch)
    weight.data.copy_(kept)
    assert trainer.args.logging_nan_inf_filter is False


def test_the_fp16_scaler_is_left_alone_until_it_has_settled(run: SimpleNamespace) -> None:
    """A real scaler that meets one overflow after the other: 17 halvings take it below 1."""
    trainer, accelerator = run.trainer, run.trainer.accelerator
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    before, trainer._row = trainer._row, {"updates": []}
    accelerator.scaler, trainer.state.global_step = scaler, 1  # an update that ends no batch
    try:
        for _ in range(16):
            scaler.scale(weight.sum() * torch.inf).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            trainer.log({"loss": 0.1, "grad_norm": float("inf")})
        assert scaler.get_scale() == 1 and weight.item() == 0
        assert [update["grad_norm"] for update in trainer._row["updates"]] == [None] * 16
        scaler.update(0.5)
        with pytest.raises(TrainingError, match="its gradient is not a number"):
            trainer.log({"loss": 0.1, "grad_norm": float("inf")})
        scaler.update(8.0)
        with pytest.raises(TrainingError, match="not a number"):
            trainer.log({"loss": float("nan"), "grad_norm": 1.0})
    finally:
        accelerator.scaler, trainer._row, trainer.state.global_step = None, before, 2


def test_a_start_that_solves_nothing_stops_and_says_what_would_help(
    run: SimpleNamespace, adapter: Path, prompts: list[Prompt], tmp_path: Path
) -> None:
    def never(task_id: list[str], **_: Any) -> list[float]:
        return [0.0] * len(task_id)

    trainer = make_trainer("embedded", adapter, prompts, tiny(tmp_path, steps=4, num_iterations=1), never)
    trainer.rollout_func = lambda texts, same: dict(run.drawn)
    before = weights(trainer)
    with pytest.raises(TrainingError, match="the start solved none of 12 programs.*Fine-tune it"):
        trainer.train()
    assert all(torch.equal(weight, before[name]) for name, weight in weights(trainer).items())


def test_neighbourhoods_that_collapse_say_what_to_set(
    run: SimpleNamespace, adapter: Path, prompts: list[Prompt], tmp_path: Path
) -> None:
    config = tiny(tmp_path, num_iterations=1, tau=float("inf"))
    trainer = make_trainer("embedded", adapter, prompts, config, AlternatingReward())
    trainer.rollout_func = lambda texts, same: dict(run.drawn)
    with pytest.warns(UserWarning, match=r"pools over 2\.0 of 2 prompts.*set neighbours to 1\.5"):
        trainer.train()


def test_a_trainer_that_unsloth_has_replaced_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, Unsloth puts a class of this name and module in the place of trl.GRPOTrainer; without Triton not."""
    theirs = type("UnslothGRPOTrainer", (GRPOTrainer,), {"__module__": "UnslothGRPOTrainer"})
    monkeypatch.setattr("lib.gmpo.trainer.GRPOTrainer", theirs)
    with pytest.raises(TrainingError, match="replaced by UnslothGRPOTrainer's.*GMPO's objective would have no effect"):
        PolyCodeTrainer()


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


def test_no_honest_program_passes_a_canary_and_one_that_knows_the_answers_does(sandbox: Sandbox) -> None:
    tokenizer = AutoTokenizer.from_pretrained(resolve("embedded"))
    program = dataclasses.replace(TASKS[0], mode="program", programming_language="lua")
    functions, programs = Canaries(sandbox, TASKS, tokenizer), Canaries(sandbox, [program], tokenizer)
    assert len(functions.tasks) == 4 and {t.programming_language for t in programs.tasks} == {"lua"}
    assert all("assert" not in prompt.text for prompt in functions.prompts)

    def rate(programs: Sequence[str]) -> float:
        pairs = zip(programs, functions.prompts, strict=True)
        return functions.pass_rate([Completion(text.removeprefix(p.code_prefill), (1,), True) for text, p in pairs])

    assert rate([task.reference for task in functions.tasks]) == 0
    told = functions.prompts[0].code_prefill + "\n    return {2: 7919, 0: -104729, 1: 'teal'}[a]\n"
    assert rate([told, *(task.reference for task in functions.tasks[1:])]) == 0.25


# -- a whole run -----------------------------------------------------------------------------------------------


@pytest.mark.slow
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
    whole = tmp_path / "out.trainer" / "checkpoint-1"
    kept, torn = (whole / "trainer_state.json").stat().st_mtime_ns, whole.with_name("checkpoint-2")
    assert not out.exists() and torch.load(whole / STATE)["bank"]["capacity"] == 4
    shutil.copytree(whole, torn)
    for name in ("optimizer.pt", STATE, "adapter_model.safetensors"):
        content = (whole / name).read_bytes()
        (torn / name).write_bytes(content[: len(content) * 2 // 3])
    summary = train(report_to="tensorboard")  # what is reported where is no part of a training's identity
    assert steps == [1, 2] and kept
    lines = (tmp_path / "out.steps.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]
    assert sum(json.loads(lines[0])[name] for name in json.loads(lines[0]) if name.startswith("verdict/")) == 1
    assert (summary["steps"], summary["completions"], summary["engine"]) == (2, 8, training_engine("auto"))
    assert summary["canary"] == [0, 0] and all(kl > 0 for kl in summary["mismatch_kl"])
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
    assert training_identity("embedded", adapter, TASKS, prompts, tiny(tmp_path), engine="transformers") != first
    changed += [identity(**change) for change in ({"lam": 0.1}, {"seed": 1}, {"steps": 2}, {"weight_decay": 0.1})]
    assert all(each != first for each in changed)


def test_a_start_without_adapter_is_one_clear_line(tmp_path: Path, prompts: list[Prompt]) -> None:
    with pytest.raises(TrainingError, match="no adapter_config.json"):
        make_trainer("embedded", tmp_path, prompts, tiny(tmp_path / "work"), AlternatingReward())
