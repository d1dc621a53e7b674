"""A GMPO training from an adapter folder to an adapter folder, with its metrics file and checkpoints.

On several GPUs, call `train_gmpo` in a file of its own and start that with `accelerate launch --num_processes N FILE`
(`torchrun --nproc-per-node N FILE` on CPUs); `prompts_per_batch` then counts each process's prompts.
"""

import copy
import dataclasses
import json
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, Literal

import torch
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from transformers import AutoTokenizer, PrinterCallback

from lib.base.files import write_text
from lib.gmpo.config import PolyCodeConfig
from lib.gmpo.policy import load_policy, own_tokens, prompt_embeddings
from lib.gmpo.prompt_batches import mdav_groups, prompt_order
from lib.gmpo.rollouts import Canaries, Reward, RolloutLedger, Rollouts, SandboxReward, training_engine
from lib.gmpo.trainer import SECONDS, OnStep, PolyCodeTrainer, Row
from lib.mining.ledger import Ledger
from lib.models.adapters import adapter_name, save_adapter
from lib.models.card import write_card
from lib.models.precision import precision
from lib.models.resolve import resolve
from lib.sampling import token_ids
from lib.sampling.scoring import padded
from lib.sandbox import Sandbox
from lib.tasks.prompts import Prompt, build_prompt
from lib.tasks.task import Task
from lib.training.resume import Identity, continue_from, finished, identity_of
from lib.training.tensorboard import tensorboard_in

BatchOrder = Literal["clusters", "shuffled"]  # similar prompts meet in a batch; or plain shuffled laps
SIMILAR_FROM = 4  # prompts per batch; fewer cannot hold two of one kind and one of another, whatever the groups
# Fields of a config that do not change what is learnt, by how their names begin.
REPORTING = (
    "output_dir",
    "run_name",
    "report_to",
    "project",
    "disable_tqdm",
    "debug",
    "resume_",
    "logging_",
    "log_",
    "save_",
    "hub_",
    "push_",
    "trackio_",
    "eval_",
    "do_",
)
MISMATCH = ("mismatch_kl", "mismatch_ess", "mismatch_ratio_max")  # of sampler and trainer
ABOUT = "trained by GMPO with rewards from running its programs"


def run_config(
    *,
    steps: int,
    prompts_per_batch: int,
    group_size: int,
    rows_per_pass: int = 8,
    checkpoint_every: int = 0,
    **fields: Any,
) -> PolyCodeConfig:
    """Return a config in which one optimiser step is one update from a whole batch, for this machine's device.

    `steps`: batches sampled; `prompts_per_batch`: on each process; `group_size`: completions per prompt;
    `rows_per_pass`: completions in memory at a time; `checkpoint_every`: steps, 0 for none. `fields` are
    PolyCodeConfig's own. Raises ValueError for values that cannot work together.
    """
    counts = {"steps": steps, "prompts_per_batch": prompts_per_batch, "group_size": group_size}
    for name, value in (counts | {"rows_per_pass": rows_per_pass}).items():
        if value < 1:
            raise ValueError(f"{name}={value}: should be at least 1")
    rows, cuda = prompts_per_batch * group_size, torch.cuda.is_available()
    rows_per_pass = min(rows_per_pass, rows)
    if rows % rows_per_pass:
        raise ValueError(f"rows_per_pass={rows_per_pass} does not divide the batch of {rows}")
    iterations = fields.setdefault("num_iterations", 2)
    ours = {
        "max_steps": steps * iterations,
        "num_generations": group_size,
        "per_device_train_batch_size": rows_per_pass,
        "gradient_accumulation_steps": rows // rows_per_pass,
        "lr_scheduler_type": "constant",
        "top_p": 1.0,  # a nucleus would draw from another distribution than the one that is learnt
        "data_seed": 0,  # of the order of prompts
        "shuffle_dataset": False,  # `prompt_order` did
        "gradient_checkpointing": cuda,
        "use_cpu": not cuda,
        "bf16": cuda and precision() == "bf16",
        "fp16": cuda and precision() == "fp16",
        "save_strategy": "steps" if checkpoint_every else "no",
        "save_steps": max(1, checkpoint_every * iterations),
        "save_total_limit": 2,
        "logging_steps": 1,
        "report_to": "none",
        "disable_tqdm": True,
    }
    return PolyCodeConfig(**ours | fields)


def train_gmpo(
    model: str,
    adapter_in: Path,
    adapter_out: Path,
    tasks: Sequence[Task],
    config: PolyCodeConfig,
    on_step: OnStep = lambda row: None,
    *,
    reward: Reward = "binary",
    batch_order: BatchOrder = "clusters",
    engine: str = "auto",
    logs: Path | None = None,
    ledger: Ledger | None = None,
    container: bool = False,
) -> Row:
    """Train the adapter in folder `adapter_in` further and save it as `adapter_out`, whole or not at all.

    `engine` draws the completions (lib.gmpo.rollouts.training_engine says which for what is asked for); canaries ride
    along. One JSON line per step goes to `<adapter_out>.steps.jsonl`. A tracker named in the config's `report_to` gets
    every update's numbers; "tensorboard" writes them to folder `logs` (default: `<adapter_out>.tensorboard`). With a
    `ledger`, every completion is appended to it as an attempt and `<adapter_out>.prompts.jsonl` gets statistics per
    prompt. With `container`, programs run in containers. A finished training of the same identity is not repeated, an
    interrupted one goes on from its last checkpoint, any other starts anew; `on_step` then gets the earlier steps
    again. Raises TrainingError for what cannot start or must stop, SandboxError when programs could not be graded.
    """
    started = time.perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(resolve(model))
    prompts = [build_prompt(task, tokenizer) for task in tasks]
    identity = training_identity(
        model, adapter_in, tasks, prompts, config, reward=reward, batch_order=batch_order, engine=engine
    )
    metrics, folder = (adapter_out.with_name(f"{adapter_out.name}.{what}") for what in ("steps.jsonl", "trainer"))
    config = copy.copy(config)
    config.output_dir = str(folder)
    with config.main_process_first():
        summary = finished(adapter_out, identity)
        if summary and len(_first_rows(metrics, summary["steps"])) < summary["steps"]:
            summary = {}  # its numbers are gone
        checkpoint = None if summary else continue_from(folder, identity)
        done = int(checkpoint.name.split("-")[1]) // config.num_iterations if checkpoint else summary.get("steps", 0)
        rows = _first_rows(metrics, done)
        write_text(metrics, "".join(json.dumps(row) + "\n" for row in rows))  # later steps are learnt again
    for row in rows if config.process_index == 0 else []:
        on_step(row)
    if summary:
        return summary

    def record(row: Row) -> None:
        rows.append(row)
        with metrics.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")
        on_step(row)

    logs = logs or adapter_out.with_name(f"{adapter_out.name}.tensorboard")
    drawn_by = training_engine(engine)
    with Sandbox(container=container) as sandbox, tensorboard_in(logs):
        judge = SandboxReward(sandbox, tasks, prompts, reward)
        trainer = make_trainer(
            model, adapter_in, prompts, config, judge, record, batch_order=batch_order, engine=drawn_by,
            questions=[task.prompt for task in tasks], canaries=Canaries(sandbox, tasks, tokenizer),
        )  # fmt: skip
        if ledger is not None:
            statistics = adapter_out.with_name(f"{adapter_out.name}.prompts.jsonl")
            start = adapter_name(adapter_in)
            trainer.on_batch = RolloutLedger(ledger, judge, config, model=model, adapter=start, statistics=statistics)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    summary = {
        "steps": trainer.batches_done,
        "updates": trainer.state.global_step,
        "completions": trainer.batches_done * config.rows * trainer.accelerator.num_processes,
        "rewards": [row["reward"] for row in rows],
        "precision": precision(),
        "engine": drawn_by,
        **{name: [row.get(name) for row in rows] for name in ("canary", *MISMATCH)},
        "seconds": time.perf_counter() - started,
        **{name: sum(row[name] for row in rows) for name in SECONDS},
        "identity": identity,
    }
    if trainer.accelerator.is_main_process:
        save_adapter(trainer.accelerator.unwrap_model(trainer.model), tokenizer, adapter_out)
        settings = learnt_with(config) | {"reward": reward, "batch_order": batch_order, "engine": engine}
        write_card(adapter_out, model, [task.task_id for task in tasks], settings, summary, about=ABOUT)
        shutil.rmtree(folder, ignore_errors=True)
    return summary


def in_words(summary: Row) -> str:
    """Return what a summary says about sampler and trainer, and about canaries; "" where neither was measured."""
    means = {name: [value for value in summary.get(name, ()) if value is not None] for name in ("canary", *MISMATCH)}
    kl, ess, largest = (means[name] for name in MISMATCH)
    said = []
    if kl:
        said.append(
            f"sampler ({summary['engine']}) and trainer: KL {mean(kl):.2g} per token, effective sample size "
            f"{mean(ess):.0%}, largest ratio of a token {max(largest):.3g}"
        )
    if means["canary"]:
        said.append(f"canaries: {mean(means['canary']):.0%} of samples passed, in {len(means['canary'])} steps")
    return "\n".join(said)


def training_identity(
    model: str,
    start: Path,
    tasks: Sequence[Task],
    prompts: Sequence[Prompt],
    config: PolyCodeConfig,
    *,
    reward: Reward = "binary",
    batch_order: BatchOrder = "clusters",
    engine: str = "auto",
) -> Identity:
    """Return what two parts of one GMPO training share: model, start, tasks as they are asked, settings and code."""
    rows = [[dataclasses.asdict(task), prompt.text, prompt.stops] for task, prompt in zip(tasks, prompts, strict=True)]
    settings = learnt_with(config) | {"reward": reward, "batch_order": batch_order, "engine": engine}
    return identity_of("lib.gmpo.run", model, rows, settings, start=start)


def learnt_with(config: PolyCodeConfig) -> Row:
    """Return the config's fields that change what is learnt."""
    return {name: value for name, value in config.to_dict().items() if not name.startswith(REPORTING)}


def make_trainer(
    model: str,
    adapter: Path,
    prompts: Sequence[Prompt],
    config: PolyCodeConfig,
    reward: Callable[..., list[float]],
    on_step: OnStep = lambda row: None,
    *,
    batch_order: BatchOrder = "clusters",
    engine: str = "auto",
    questions: Sequence[str] | None = None,
    canaries: Canaries | None = None,
) -> PolyCodeTrainer:
    """Return a trainer over `prompts` from the adapter folder; `reward` gets completions and task_id, both lists.

    `questions` are the tasks' own words, which prompts are compared by; without them a whole prompt counts, template
    included.
    Raises TrainingError when `adapter` is no PEFT folder, ValueError when there are fewer prompts than a batch takes.
    """
    policy, tokenizer = load_policy(model, adapter, config.device), AutoTokenizer.from_pretrained(resolve(model))
    texts = questions or [prompt.text for prompt in prompts]
    own = [own_tokens(tokenizer, prompt.text, text) for prompt, text in zip(prompts, texts, strict=True)]
    groups = groups_of(prompts, policy, tokenizer, config, batch_order, own)
    (groups,) = broadcast_object_list([groups])  # embeddings differ in their last bits from device to device
    order = order_of(config, groups)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="You are using 'rollout_func'")
        trainer = PolyCodeTrainer(
            policy,
            reward,
            config,
            Dataset.from_list(
                [{"prompt": prompts[i].text, "task_id": prompts[i].task_id, "own": own[i]} for i in order]
            ),
            processing_class=tokenizer,
            rollout_func=Rollouts(model, prompts, config, engine, canaries),
            on_step=on_step,
        )
    trainer.remove_callback(PrinterCallback)  # on_step is the display
    return trainer


def order_of(config: PolyCodeConfig, groups: Sequence[Sequence[int]]) -> list[int]:
    """Return the prompts of all batches in order, as indices, from the groups that should meet."""
    seed = config.seed if config.data_seed is None else config.data_seed
    return prompt_order(groups, config.max_steps // config.num_iterations, prompts_at_once(config), seed)


def prompts_at_once(config: PolyCodeConfig) -> int:
    """Return the prompts per batch of all processes together."""
    return config.rows * config.world_size // config.num_generations


def groups_of(
    prompts: Sequence[Prompt],
    policy: Any,
    tokenizer: Any,
    config: PolyCodeConfig,
    batch_order: BatchOrder = "clusters",
    own: Sequence[tuple[int, int]] | None = None,
) -> list[list[int]]:
    """Return which of `prompts` should meet in a batch: groups by centred embedding, or all of them in one.

    `own`: `own_tokens` of each prompt.
    """
    size = prompts_at_once(config)
    if batch_order == "shuffled" or size < SIMILAR_FROM or len(prompts) <= size:
        return [list(range(len(prompts)))]
    ids, mask = padded([token_ids(tokenizer, prompt.text) for prompt in prompts], "left", policy.device)
    spans = None if own is None else torch.tensor(own, device=policy.device)
    h = prompt_embeddings(policy, ids, mask, config.per_device_train_batch_size, spans)
    return mdav_groups(h - h.mean(0), size // 2)


def _first_rows(metrics: Path, steps: int) -> list[Row]:
    """Return the rows of the first `steps` steps."""
    lines = metrics.read_text(encoding="utf-8").splitlines()[:steps] if metrics.is_file() else []
    return [json.loads(line) for line in lines]
