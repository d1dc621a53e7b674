"""Groupwise Meta-normalised PPO (GMPO, PolyCode) in TRL's GRPOTrainer: its advantages and its loss.

This GMPO is not Geometric-Mean Policy Optimization (arXiv 2507.20673), which carries the same four letters.

Differs from the paper in: a batch is learnt from `num_iterations` times in whole-batch steps, so that pi_old
really is old. What it leaves open is fixed here: pi_old's log-probabilities are recomputed by the model being
trained, because the sampler rounds its weights and may cut the tail (top_p); the KL term is a mean over a
completion's tokens, and so is the objective of ratio="token"; the learning rate is constant; a group has at
least two completions, which is TRL's rule.

TRL keeps the loop: PEFT, accelerate, checkpoints, logging. Its options for the loss (loss_type, delta, entropy
bonus, vLLM's importance correction) do not apply, because the loss is replaced. A patched trainer that computes
its own loss, as Unsloth's does on a GPU, still gets these advantages, but not the raw ratio.
"""

import dataclasses
import json
import math
import random
import shutil
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from datasets import Dataset
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from lib.gmpo import statistics
from lib.gmpo.statistics import Level, Memory
from lib.models import resolve
from lib.prompts import Prompt, build_prompt
from lib.sampling import Request, Settings, draw_seed, open_engine
from lib.sandbox import Sandbox, SandboxError
from lib.sft import TrainingError, precision, save_adapter
from lib.tasks import Task

Normaliser = Literal["gmpo", "grpo", "dr_grpo", "batch", "rloo"]
Reward = Literal["binary", "fractional"]
Reference = Literal["base", "start"]
Weights = Literal["auto", "fp32"]
OPTIONS = {
    "advantage": get_args(Normaliser),
    "ratio": get_args(Level),
    "reward": get_args(Reward),
    "reference": get_args(Reference),
    "weights": get_args(Weights),
}
Row = dict[str, Any]
OnStep = Callable[[Row], None]
Note = Callable[[str, float], None]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
PER_UPDATE = ("loss", "grad_norm", "clip_fraction", "effective_sample_size", "log_ratio_max", "kl", "entropy")
SECONDS = ("seconds_sampling", "seconds_sandbox", "seconds_scoring", "seconds_update")
STATE = "gmpo.pt"  # what a checkpoint adds to TRL's


@dataclasses.dataclass(frozen=True)
class GmpoSettings:
    """Everything a run depends on. Raises ValueError for values that cannot work together."""

    advantage: Normaliser = "gmpo"
    ratio: Level = "sequence"
    group_size: int = 8  # G, completions a prompt
    prompts_per_batch: int = 4  # B, on each process
    steps: int = 4  # batches sampled; each is learnt from num_iterations times
    num_iterations: int = 2
    tau: float = 0.1
    top_k: int | None = None  # neighbours a prompt, itself included; 1 is GMPO without CGMN
    memory: int = 0  # past prompts pooled over; 0 is batch-local
    lam: float = 0.5  # 0 is GMPO without SBAM
    l_hat_clip: float | None = None  # bound on |L̂|
    epsilon: float = 0.2
    beta: float = 0.0  # weight of the KL to the reference
    beta_final: float | None = None  # the weight at the end of a linear annealing; None: constant
    reference: Reference = "base"  # without an adapter, or with the one the run starts from
    reward: Reward = "binary"  # every test passes, or the share that does
    learning_rate: float = 2e-5
    max_grad_norm: float = 1.0
    temperature: float = 0.8
    top_p: float = 1.0
    max_new_tokens: int = 64
    rows_per_pass: int = 8  # completions in memory at a time while training
    weights: Weights = "auto"  # auto: 16 bits where the device has them
    warn_after: int = 3  # batches in a row whose rewards are all equal
    seed: int = 0  # of sampling
    shuffle_seed: int = 0  # of the order of prompts

    def __post_init__(self) -> None:
        for name, options in OPTIONS.items():
            value = getattr(self, name)
            if value not in options:
                raise ValueError(f"{name}={value!r}: choose one of {', '.join(options)}")
        for name in ("prompts_per_batch", "steps", "num_iterations", "max_new_tokens", "rows_per_pass"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: should be at least 1")
        if self.group_size < 2:
            raise ValueError(f"group_size={self.group_size}: a group needs at least two completions")
        if self.advantage == "gmpo" and self.prompts_per_batch < 2 and not self.memory and self.top_k != 1:
            raise ValueError("prompts_per_batch=1: pooling needs two prompts, a memory, or top_k=1 to be off")
        if self.temperature <= 0:
            raise ValueError(f"temperature={self.temperature}: a policy to learn from is sampled above 0")
        if self.rows % self.rows_per_pass:
            raise ValueError(f"rows_per_pass={self.rows_per_pass} does not divide the batch of {self.rows}")

    @property
    def rows(self) -> int:
        """Completions a batch on each process, B·G."""
        return self.prompts_per_batch * self.group_size

    def beta_at(self, progress: float) -> float:
        """The KL's weight after `progress` (0 to 1) of the run."""
        return self.beta if self.beta_final is None else self.beta + (self.beta_final - self.beta) * progress


# -- pure functions -----------------------------------------------------------------------------------------


def prompt_order(count: int, steps: int, size: int, seed: int) -> list[int]:
    """`steps` batches of `size` indices below `count`: shuffled laps over all of them, none twice in a batch.

    Raises ValueError when there are fewer prompts than one batch takes.
    """
    if count < size:
        raise ValueError(f"{count} tasks are fewer than the {size} prompts of one batch")
    stream, order = random.Random(seed), list[int]()
    while len(order) < steps * size:
        lap = list(range(count))
        stream.shuffle(lap)
        order += lap[: count - count % size]
    return order[: steps * size]


def normalised(
    rewards: Tensor, log_probs: Tensor, h: Tensor, settings: GmpoSettings, memory: Memory | None = None
) -> tuple[dict[str, Tensor], statistics.Advantages]:
    """The advantages of every normaliser by name, and what GMPO's are made of.

    rewards and log_probs (B, G), h (B, d) -> {name: (B, G)}, Advantages
    """
    parts = statistics.gmpo_advantages(
        rewards,
        log_probs,
        h,
        settings.tau,
        settings.lam,
        top_k=settings.top_k,
        clip=settings.l_hat_clip,
        memory=memory,
    )
    return {
        "gmpo": parts.advantages,
        "grpo": statistics.grpo_advantages(rewards),
        "dr_grpo": statistics.dr_grpo_advantages(rewards),
        "batch": statistics.batch_advantages(rewards),
        "rloo": statistics.rloo_advantages(rewards),
    }, parts


def batch_diagnostics(
    rewards: Tensor,
    log_probs: Tensor,
    lengths: Tensor,
    by_name: dict[str, Tensor],
    parts: statistics.Advantages,
) -> dict[str, float]:
    """What one batch looks like before it is learnt from; everything (B, G). A right completion has reward 1.

    `solved`: prompts with a right completion; `decidable`: prompts with right and wrong ones; `amplified`:
    completions whose advantage SBAM raised, `amplification` their mean factor. NaN: nothing to average.
    """
    right = rewards >= 1
    raised = parts.amplification > 1
    row = {
        "reward": rewards.mean(),
        "solved": right.any(1).float().mean(),
        "decidable": (right.any(1) & ~right.all(1)).float().mean(),
        "l_hat_abs_mean": parts.l_hat.abs().mean(),
        "l_hat_abs_max": parts.l_hat.abs().max(),
        "l_hat_right": parts.l_hat[right].mean(),
        "l_hat_wrong": parts.l_hat[~right].mean(),
        "amplified": raised.float().mean(),
        "amplification": parts.amplification[raised].mean(),
        "amplification_max": parts.amplification.max(),
        "length": lengths.float().mean(),
        "length_log_prob_correlation": torch.corrcoef(torch.stack([lengths.float(), log_probs]).flatten(1))[
            0, 1
        ],
    }
    row |= {f"advantage_var_{name}": values.var(correction=0) for name, values in by_name.items()}
    row |= {f"advantage_mean_{name}": values.mean() for name, values in by_name.items()}
    return {name: float(value) for name, value in row.items()}


def equal_rewards_cause(reward: float) -> str:
    """The likely reason why every completion of several batches had this one reward."""
    if reward <= 0:
        return "no program passed; the tasks are too hard for this model, or max_new_tokens cuts answers off"
    if reward >= 1:
        return "every program passed; the tasks are too easy: choose some that were solved now and then"
    return "every program passed the same share of tests; the temperature may be too low"


# -- rollouts and rewards -----------------------------------------------------------------------------------


class Rollouts:
    """TRL's `rollout_func` through lib.sampling: hand the current adapter over, draw, close the engine.

    Token ids come back as sampled, the end token or the stop included. Log-probabilities do not: see above.
    """

    def __init__(self, model: str, prompts: Sequence[Prompt], settings: GmpoSettings) -> None:
        self.model, self.settings = model, settings
        self.prompts = {prompt.text: prompt for prompt in prompts}

    def __call__(self, texts: list[str], trainer: "GmpoTrainer") -> Row:
        """B·G prompt texts, each G times -> token ids of prompts and completions, in the same order."""
        started, settings = time.perf_counter(), self.settings
        wanted = Settings(settings.temperature, settings.top_p, settings.max_new_tokens)
        with tempfile.TemporaryDirectory() as folder:
            policy = trainer.accelerator.unwrap_model(trainer.model)
            policy.save_pretrained(folder, selected_adapters=["default"], save_embedding_layers=False)
            engine = open_engine(self.model, folder)
            try:
                stream = engine.stream(self.requests(texts, trainer.batches_done), wanted)
                drawn = {request.key: completion for request, completion in stream}
                encode = partial(engine.tokenizer, add_special_tokens=False)
                ids = {text: encode(text)["input_ids"] for text in set(texts)}
            finally:
                engine.close()
        trainer.note("seconds_sampling", time.perf_counter() - started)
        trainer.note("truncated", sum(not completion.finished for completion in drawn.values()) / len(texts))
        completions = [list(drawn[key].token_ids) for key in range(len(texts))]
        return {"prompt_ids": [ids[text] for text in texts], "completion_ids": completions, "logprobs": None}

    def requests(self, texts: list[str], batch: int) -> Iterator[Request]:
        """One request a text, keyed by its place. A prompt's draws go on counting from batch to batch."""
        seen: Counter[str] = Counter()
        for key, text in enumerate(texts):
            prompt, draw = self.prompts[text], batch * self.settings.group_size + seen[text]
            seen[text] += 1
            yield Request(key, text, prompt.stops, draw_seed(self.settings.seed, prompt.task_id, draw))


class SandboxReward:
    """TRL's reward function: the program a completion stands for, judged by all tests of its task."""

    def __init__(
        self, sandbox: Sandbox, tasks: Sequence[Task], prompts: Sequence[Prompt], kind: Reward
    ) -> None:
        self.sandbox, self.kind = sandbox, kind
        self.known = {task.task_id: (task, prompt) for task, prompt in zip(tasks, prompts, strict=True)}

    def __call__(self, completions: list[str], task_id: list[str], log_metric: Note, **_: Any) -> list[float]:
        """One reward a completion. Raises SandboxError when the sandbox could not judge one of them."""
        started = time.perf_counter()
        known = [self.known[name] for name in task_id]
        jobs = [(task, prompt.program(text)) for (task, prompt), text in zip(known, completions, strict=True)]
        verdicts = self.sandbox.grade_many(jobs, tests="all")
        broken = [index for index, verdict in enumerate(verdicts) if verdict.status == "sandbox-error"]
        if broken:
            raise SandboxError(
                f"{len(broken)} of {len(jobs)} programs could not be judged, the first for {task_id[broken[0]]}: "
                f"{verdicts[broken[0]].failure}; training stopped, nothing was learnt from this batch"
            )
        for status, count in Counter(verdict.status for verdict in verdicts).items():
            log_metric(f"verdict/{status}", count / len(verdicts))
        log_metric("seconds_sandbox", time.perf_counter() - started)
        return [verdict.reward if self.kind == "binary" else verdict.fraction for verdict in verdicts]


# -- the trainer --------------------------------------------------------------------------------------------


class GmpoTrainer(GRPOTrainer):  # type: ignore[misc]
    """GRPOTrainer with the advantages and the clipped raw-ratio objective of lib.gmpo.statistics.

    `on_step` receives one flat dict a sampled batch, after its last update; its "updates" holds one dict an update.
    """

    def __init__(self, *args: Any, settings: GmpoSettings, on_step: OnStep = lambda row: None, **more: Any):
        super().__init__(*args, **more)
        self.settings, self.on_step = settings, on_step
        self.memory = Memory(settings.memory) if settings.memory else None
        self._row: Row = {"updates": []}
        self._log_ratios: list[Tensor] = []
        self._equal_batches = 0
        self._clock = time.perf_counter()
        if self.args.per_device_train_batch_size * self.args.steps_per_generation % self.num_generations:
            raise ValueError("each process has to hold whole groups: its rows are no multiple of group_size")
        if settings.reference == "base" and "ref" in getattr(self.model, "peft_config", {}):
            self.model.delete_adapter("ref")  # TRL's copy of the first adapter; else it disables adapters

    @property
    def _rows_at_once(self) -> int:
        return int(self.args.per_device_train_batch_size)

    @property
    def batches_done(self) -> int:
        """Batches that have been learnt from."""
        return int(self.state.global_step) // int(self.num_iterations)

    def note(self, name: str, value: float | Tensor) -> None:
        """Add a number to this step's log."""
        self._metrics["train"][name].append(float(value))

    # ------------------------------------------------------------------------------------------------ advantages

    def _calculate_rewards(self, *args: Any) -> Tensor:
        self._rewards = super()._calculate_rewards(*args)  # (rows, functions), of all processes
        return self._rewards

    def _generate_and_score_completions(self, inputs: list[Row]) -> Row:
        """TRL's batch with this method's advantages. Raises TrainingError for log-probabilities that are no numbers."""
        started = time.perf_counter()
        batch: Row = super()._generate_and_score_completions(inputs)
        if not self.model.training:
            return batch
        if "old_per_token_logps" not in batch:  # TRL leaves them out where the first ratio is 1 anyway
            with torch.no_grad():
                batch["old_per_token_logps"] = self._log_probs(self.model, batch, self._rows_at_once)[0]
        mask, group = batch["completion_mask"].bool(), self.num_generations
        log_probs = torch.where(mask, batch["old_per_token_logps"].float(), 0.0).sum(1)  # (rows,)
        self._check_finite(log_probs)
        h = self.prompt_embeddings(batch["prompt_ids"][::group], batch["prompt_mask"][::group])  # (B, d)
        everyone = self._advantages(log_probs, mask.sum(1), h).to(batch["advantages"])
        first = self.accelerator.process_index * len(inputs)
        batch["advantages"] = everyone[first : first + len(inputs)]
        self._logs["advantages"].clear()  # TRL's own
        self._logs["advantages"].extend(everyone.tolist())
        self.note("seconds_before_update", time.perf_counter() - started)
        return batch

    def _advantages(self, log_probs: Tensor, lengths: Tensor, h: Tensor) -> Tensor:
        """The chosen advantages of all processes' rows, from one process's log_probs, lengths and embeddings."""
        gather, shape = self.accelerator.gather, (-1, self.num_generations)
        log_probs, lengths, h = gather(log_probs).view(shape), gather(lengths).view(shape), gather(h)
        rewards = (self._rewards * self.reward_weights.to(self._rewards)).sum(1).view(shape)  # (B, G)
        by_name, parts = normalised(rewards, log_probs, h, self.settings, self.memory)
        if self.memory is not None:
            self.memory.push(statistics.prompt_statistics(rewards, log_probs, h))
        chosen = by_name[self.settings.advantage]
        self.note("advantage_var", chosen.var(correction=0))
        self.note("advantage_var_per_prompt", by_name["grpo"].var(correction=0))
        for name, value in batch_diagnostics(rewards, log_probs, lengths, by_name, parts).items():
            self.note(name, value)
        self._watch_rewards(rewards)
        return chosen.flatten()

    @torch.no_grad()
    def prompt_embeddings(self, ids: Tensor, mask: Tensor) -> Tensor:
        """h_j: the mean over prompt tokens of the last hidden state, L2-normalised; (B, P) twice -> (B, d) fp32."""
        model = self.accelerator.unwrap_model(self.model)
        backbone = (model.get_base_model() if isinstance(model, PeftModel) else model).base_model
        size, parts = self._rows_at_once, []
        for rows, keep in zip(ids.split(size), mask.split(size), strict=True):
            states = backbone(input_ids=rows, attention_mask=keep, use_cache=False).last_hidden_state.float()
            parts.append((states * keep[..., None]).sum(1) / keep.sum(1, keepdim=True))
        return torch.nn.functional.normalize(torch.cat(parts), dim=1)

    def _check_finite(self, log_probs: Tensor) -> None:
        broken = int((~log_probs.isfinite()).sum())
        if broken:
            raise TrainingError(
                f"step {self.batches_done + 1}: log-probabilities of {broken} of {len(log_probs)} completions "
                "are NaN or infinite; nothing was learnt from them. Lower learning_rate, or check the adapter"
            )

    def _watch_rewards(self, rewards: Tensor) -> None:
        """Warn once `warn_after` batches in a row carried no signal."""
        equal = bool(rewards.max() == rewards.min())
        self._equal_batches = self._equal_batches + 1 if equal else 0
        if self._equal_batches == self.settings.warn_after:
            cause = equal_rewards_cause(float(rewards.max()))
            warnings.warn(f"{self._equal_batches} batches in a row with equal rewards: {cause}", stacklevel=2)

    # ------------------------------------------------------------------------------------------------------ loss

    def _log_probs(self, model: Any, batch: Row, size: int | None = None, entropy: bool = False) -> Any:
        """Log-probabilities of completion tokens, (N, T), at the sampling temperature, and their entropies if asked."""
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
        mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
        keep = batch["completion_ids"].shape[1]
        options = {"batch_size": size, "compute_entropy": entropy}
        return self._get_per_token_logps_and_entropies(model, ids, mask, keep, **options)

    def _compute_loss(self, model: Any, inputs: Row) -> Tensor:
        """−(1/N) Σ_i [min(s_i A_i, clip(s_i, 1−ε, 1+ε) A_i) − β KL_i] over the N rows of one pass."""
        if not self.model.training:
            return super()._compute_loss(model, inputs)
        mask, level = inputs["completion_mask"], self.settings.ratio
        new, entropies, _ = self._log_probs(model, inputs, entropy=True)
        ratios = statistics.log_ratio(new, inputs["old_per_token_logps"], mask, level)
        by_token = mask if level == "token" else None
        clipped = statistics.clipped_objective(ratios, inputs["advantages"], self.settings.epsilon, by_token)
        objective = clipped.objective if by_token is None else clipped.objective.sum(1) / mask.sum(1)  # (N,)
        if self.beta:
            kl = statistics.kl_k3(new, inputs["ref_per_token_logps"], mask).sum(1) / mask.sum(1)
            objective = objective - self.settings.beta_at(self.state.global_step / self.state.max_steps) * kl
            self.note("kl", kl.detach().mean())
        self.note("clip_fraction", clipped.clip_fraction)
        self.note("entropy", (entropies * mask).sum() / mask.sum())
        self._log_ratios.append(ratios.detach()[mask.bool()] if level == "token" else ratios.detach())
        return -objective.mean() / self.current_gradient_accumulation_steps

    # ------------------------------------------------------------------------------------------------------- log

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """TRL's log of an update, and after a batch's last one its row. Raises TrainingError for a NaN."""
        if self._log_ratios:
            ratios = torch.cat(self._log_ratios)
            self.note("effective_sample_size", statistics.effective_sample_size(ratios) / len(ratios))
            self.note("log_ratio_max", ratios.abs().max())
            self._log_ratios = []
        super().log(logs, start_time)  # adds what was noted, averaged over passes
        if "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]) or not math.isfinite(logs.get("grad_norm", 0.0)):
            where = f"update {self.state.global_step}"
            raise TrainingError(f"{where}: the loss or its gradient is not a number; lower learning_rate")
        self._row["updates"].append({name: logs[name] for name in PER_UPDATE if name in logs})
        own = (
            name for name in logs if "/" not in name or name.startswith("verdict/")
        )  # the rest is TRL's detail
        self._row.update({name: logs[name] for name in own})
        if self.state.global_step % self.num_iterations == 0:
            self._finish_row()

    def _finish_row(self) -> None:
        now, row = time.perf_counter(), {"step": self.batches_done, **self._row}
        before = row.pop("seconds_before_update")
        row["seconds"] = now - self._clock
        row["seconds_scoring"] = before - sum(row.get(name, 0.0) for name in SECONDS[:2])
        row["seconds_update"] = row["seconds"] - before
        self._row, self._clock = {"updates": []}, now
        if self.accelerator.is_main_process:
            self.on_step({name: None if value != value else value for name, value in row.items()})

    # ----------------------------------------------------------------------------------------------- checkpoints

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        memory = None if self.memory is None else self.memory.state_dict()
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        torch.save({"settings": _identity(self.settings), "memory": memory}, folder / STATE)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and self.memory is not None:
            self.memory.load_state_dict(torch.load(Path(checkpoint) / STATE)["memory"])


# -- a run --------------------------------------------------------------------------------------------------


def train_gmpo(
    model: str,
    adapter_in: Path,
    adapter_out: Path,
    tasks: Sequence[Task],
    settings: GmpoSettings,
    on_step: OnStep = lambda row: None,
    metrics: Path | None = None,
    checkpoint_every: int = 0,
) -> Row:
    """Train the adapter in folder `adapter_in` further and save it as `adapter_out`, whole or not at all.

    One JSON line a step goes to `metrics` (default: `<adapter_out>.steps.jsonl`). With checkpoint_every > 0, that many
    steps lie between checkpoints, and a run that was cut off goes on from its last one.
    Raises TrainingError for what cannot start or must stop, SandboxError when programs could not be judged.
    """
    started = time.perf_counter()
    folder = adapter_out.with_name(f"{adapter_out.name}.trainer")
    metrics = metrics or adapter_out.with_name(f"{adapter_out.name}.steps.jsonl")
    checkpoint = last_checkpoint(folder, settings) if checkpoint_every else None
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
        trainer = make_trainer(model, adapter_in, prompts, settings, reward, folder, record, checkpoint_every)
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
) -> GmpoTrainer:
    """A trainer over `prompts` from the adapter folder; `reward` gets completions and task_id, both lists.

    Raises TrainingError when `adapter` is no PEFT folder, ValueError when there are fewer prompts than a batch takes.
    """
    if not (adapter / "adapter_config.json").is_file():
        raise TrainingError(f"{adapter}: no adapter_config.json; training starts from a PEFT adapter folder")
    source = resolve(model)
    base = AutoModelForCausalLM.from_pretrained(source, dtype=DTYPES[weights_precision(settings)])
    policy = PeftModel.from_pretrained(base, str(adapter), is_trainable=True)
    config = trl_config(settings, folder, checkpoint_every)
    size = settings.prompts_per_batch * config.world_size
    order = prompt_order(len(prompts), settings.steps, size, settings.shuffle_seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="You are using 'rollout_func'")
        trainer = GmpoTrainer(
            policy,
            reward,
            config,
            Dataset.from_list([{"prompt": prompts[i].text, "task_id": prompts[i].task_id} for i in order]),
            processing_class=AutoTokenizer.from_pretrained(source),
            rollout_func=Rollouts(model, prompts, settings),
            settings=settings,
            on_step=on_step,
        )
    trainer.remove_callback(PrinterCallback)  # on_step is the display
    return trainer


def trl_config(settings: GmpoSettings, folder: Path, checkpoint_every: int = 0) -> GRPOConfig:
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
        report_to="none",
        seed=settings.seed,
        disable_tqdm=True,
    )


def weights_precision(settings: GmpoSettings) -> str:
    """bf16, fp16 or fp32, for the frozen weights; the adapter is fp32.

    Rounding to bf16 alone moves ln s by about 0.2 over a dozen tokens, as much as one update at 2e-5 does, and so
    takes part in what is clipped from the second update on. fp32 is exact and two to three times as slow.
    """
    return "fp32" if settings.weights == "fp32" else precision()


def last_checkpoint(folder: Path, settings: GmpoSettings) -> Path | None:
    """The newest whole checkpoint under `folder`. Raises TrainingError when it was made under other settings."""
    whole = sorted(folder.glob(f"checkpoint-*/{STATE}"), key=lambda path: int(path.parent.name.split("-")[1]))
    if not whole:
        return None
    theirs, ours = torch.load(whole[-1])["settings"], _identity(settings)
    other = [f"{name}={theirs.get(name)!r}" for name in ours if theirs.get(name) != ours[name]]
    if other:
        raise TrainingError(f"{folder}: has a checkpoint of other settings ({', '.join(other)}); remove it")
    return whole[-1].parent


def _identity(settings: GmpoSettings) -> Row:
    """What two parts of one run must share: everything but the number of steps."""
    return {name: value for name, value in dataclasses.asdict(settings).items() if name != "steps"}


def _rows_before(metrics: Path, checkpoint: Path | None, settings: GmpoSettings) -> list[Row]:
    """The rows written up to `checkpoint`; later ones, and all of them without one, leave the file."""
    metrics.parent.mkdir(parents=True, exist_ok=True)
    done = int(checkpoint.name.split("-")[1]) // settings.num_iterations if checkpoint else 0
    lines = metrics.read_text(encoding="utf-8").splitlines()[:done] if metrics.is_file() else []
    metrics.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return [json.loads(line) for line in lines]
