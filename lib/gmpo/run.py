"""A GMPO run from an adapter folder to an adapter folder, with its metrics file and checkpoints.

On several GPUs, call `train_gmpo` in a file of its own and start that with `accelerate launch --num_processes N FILE`
(`torchrun --nproc-per-node N FILE` on CPUs); `prompts_per_batch` then counts each process's prompts.
"""

import dataclasses
import json
import os
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from transformers import AutoTokenizer, PrinterCallback
from trl import GRPOConfig

from lib.gmpo.order import prompt_order, similar_groups
from lib.gmpo.policy import load_policy, padded, prompt_embeddings
from lib.gmpo.rollouts import Rollouts, SandboxReward
from lib.gmpo.settings import GmpoSettings, Row, identity, weights_precision
from lib.gmpo.trainer import SECONDS, STATE, GmpoTrainer, OnStep
from lib.models.resolve import resolve
from lib.sampling import token_ids
from lib.sandbox import Sandbox
from lib.tasks.prompts import Prompt, build_prompt
from lib.tasks.task import Task
from lib.training.sft import TrainingError, save_adapter

SIMILAR_FROM = 4  # prompts a batch; fewer cannot hold two of one kind and one of another, whatever the groups


def train_gmpo(
    model: str,
    adapter_in: Path,
    adapter_out: Path,
    tasks: Sequence[Task],
    settings: GmpoSettings,
    on_step: OnStep = lambda row: None,
    metrics: Path | None = None,
    checkpoint_every: int = 0,
    report_to: str = "none",
    logs: Path | None = None,
) -> Row:
    """Train the adapter in folder `adapter_in` further and save it as `adapter_out`, whole or not at all.

    One JSON line a step goes to `metrics` (default: `<adapter_out>.steps.jsonl`). TRL's `report_to` sends every update's
    numbers to a tracker too; "tensorboard" writes them to folder `logs` (default: `<adapter_out>.tensorboard`). With
    checkpoint_every > 0, that many steps lie between checkpoints, and a run that was cut off goes on from its last one.
    Raises TrainingError for what cannot start or must stop, SandboxError when programs could not be judged.
    """
    started = time.perf_counter()
    folder = adapter_out.with_name(f"{adapter_out.name}.trainer")
    metrics = metrics or adapter_out.with_name(f"{adapter_out.name}.steps.jsonl")
    checkpoint = last_checkpoint(folder, settings) if checkpoint_every else None
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(logs or adapter_out.with_name(f"{adapter_out.name}.tensorboard"))
    rows = _rows_before(metrics, checkpoint, settings)

    def record(row: Row) -> None:
        rows.append(row)
        with metrics.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")
        on_step(row)

    tokenizer = AutoTokenizer.from_pretrained(resolve(model))
    prompts = [build_prompt(task, tokenizer) for task in tasks]
    with Sandbox() as sandbox:
        reward = SandboxReward(sandbox, tasks, prompts, settings.reward)
        trainer = make_trainer(
            model, adapter_in, prompts, settings, reward, folder, record, checkpoint_every, report_to
        )
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if trainer.accelerator.is_main_process:
        policy = trainer.accelerator.unwrap_model(trainer.model)
        if "ref" in policy.peft_config:
            policy.delete_adapter("ref")
        save_adapter(policy, tokenizer, adapter_out)
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "steps": trainer.batches_done,
        "updates": trainer.state.global_step,
        "completions": trainer.batches_done * settings.rows * trainer.accelerator.num_processes,
        "rewards": [row["reward"] for row in rows],
        "precision": weights_precision(settings),
        "seconds": time.perf_counter() - started,
        **{name: sum(row[name] for row in rows) for name in SECONDS},
        "settings": dataclasses.asdict(settings),
    }


def make_trainer(
    model: str,
    adapter: Path,
    prompts: Sequence[Prompt],
    settings: GmpoSettings,
    reward: Callable[..., list[float]],
    folder: Path,
    on_step: OnStep = lambda row: None,
    checkpoint_every: int = 0,
    report_to: str = "none",
) -> GmpoTrainer:
    """A trainer over `prompts` from the adapter folder; `reward` gets completions and task_id, both lists.

    Raises TrainingError when `adapter` is no PEFT folder, ValueError when there are fewer prompts than a batch takes.
    """
    config = trl_config(settings, folder, checkpoint_every, report_to)
    policy = load_policy(model, adapter, settings, config.device)
    tokenizer, size = AutoTokenizer.from_pretrained(resolve(model)), settings.prompts_per_batch * config.world_size
    groups = groups_of(prompts, policy, tokenizer, settings, size)
    (groups,) = broadcast_object_list([groups])  # embeddings differ in their last bits from device to device
    order = prompt_order(groups, settings.steps, size, settings.shuffle_seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="You are using 'rollout_func'")
        trainer = GmpoTrainer(
            policy,
            reward,
            config,
            Dataset.from_list([{"prompt": prompts[i].text, "task_id": prompts[i].task_id} for i in order]),
            processing_class=tokenizer,
            rollout_func=Rollouts(model, prompts, settings),
            settings=settings,
            on_step=on_step,
        )
    trainer.remove_callback(PrinterCallback)  # on_step is the display
    return trainer


def groups_of(
    prompts: Sequence[Prompt], policy: Any, tokenizer: Any, settings: GmpoSettings, size: int
) -> list[list[int]]:
    """Which of `prompts` should meet in batches of `size`: groups by embedding, or all of them in one."""
    if settings.batches == "shuffled" or size < SIMILAR_FROM or len(prompts) <= size:
        return [list(range(len(prompts)))]
    ids, mask = padded([token_ids(tokenizer, prompt.text) for prompt in prompts], "left", policy.device)
    return similar_groups(prompt_embeddings(policy, ids, mask, settings.rows_per_pass), size // 2)


def trl_config(settings: GmpoSettings, folder: Path, checkpoint_every: int = 0, report_to: str = "none") -> GRPOConfig:
    """TRL's side of the settings: one optimiser step is one update from a whole batch."""
    cuda = torch.cuda.is_available()
    return GRPOConfig(
        output_dir=str(folder),
        max_steps=settings.steps * settings.num_iterations,
        num_iterations=settings.num_iterations,
        num_generations=settings.group_size,
        per_device_train_batch_size=settings.rows_per_pass,
        gradient_accumulation_steps=settings.rows // settings.rows_per_pass,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="constant",
        max_grad_norm=settings.max_grad_norm,
        beta=settings.beta,
        temperature=settings.temperature,
        top_p=settings.top_p,
        max_completion_length=settings.max_new_tokens,
        shuffle_dataset=False,  # `prompt_order` did, from a seed of its own
        disable_dropout=True,  # or the ratio is not 1 at the first update
        gradient_checkpointing=cuda,
        use_cpu=not cuda,
        bf16=cuda and weights_precision(settings) == "bf16",
        fp16=cuda and weights_precision(settings) == "fp16",
        save_strategy="steps" if checkpoint_every else "no",
        save_steps=max(1, checkpoint_every * settings.num_iterations),
        save_total_limit=2,
        logging_steps=1,
        report_to=report_to,
        seed=settings.seed,
        disable_tqdm=True,
    )


def last_checkpoint(folder: Path, settings: GmpoSettings) -> Path | None:
    """The newest whole checkpoint under `folder`. Raises TrainingError when it was made under other settings."""
    whole = sorted(folder.glob(f"checkpoint-*/{STATE}"), key=lambda path: int(path.parent.name.split("-")[1]))
    if not whole:
        return None
    theirs, ours = torch.load(whole[-1])["settings"], identity(settings)
    other = [f"{name}={theirs.get(name)!r}" for name in ours if theirs.get(name) != ours[name]]
    if other:
        raise TrainingError(f"{folder}: has a checkpoint of other settings ({', '.join(other)}); remove it")
    return whole[-1].parent


def _rows_before(metrics: Path, checkpoint: Path | None, settings: GmpoSettings) -> list[Row]:
    """The rows written up to `checkpoint`; later ones, and all of them without one, leave the file."""
    metrics.parent.mkdir(parents=True, exist_ok=True)
    done = int(checkpoint.name.split("-")[1]) // settings.num_iterations if checkpoint else 0
    lines = metrics.read_text(encoding="utf-8").splitlines()[:done] if metrics.is_file() else []
    metrics.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return [json.loads(line) for line in lines]
