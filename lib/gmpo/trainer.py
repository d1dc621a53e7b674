"""Groupwise Meta-normalised PPO (GMPO, PolyCode) in TRL's GRPOTrainer: its advantages and its loss.

This GMPO is not Geometric-Mean Policy Optimization (arXiv 2507.20673), which carries the same four letters.

Differs from the paper in: a batch is learnt from `num_iterations` times in whole-batch steps, so that pi_old
really is old. What it leaves open is fixed here: pi_old's log-probabilities are recomputed by the model being
trained, because the sampler rounds its weights and may cut the tail (top_p); the KL term is a mean over a
completion's tokens, and so is the objective of ratio="token". A group goes through the model in one row
(lib.gmpo.shared_prefix), which changes the cost and nothing else.

TRL keeps the loop: PEFT, accelerate, checkpoints, logging. Its options for the loss (loss_type, delta, entropy
bonus, vLLM's importance correction) do not apply, because the loss is replaced. Unsloth's patched GRPOTrainer computes
a loss of its own, so it is refused. What is overridden here is private to TRL; tests/test_gmpo_trl.py holds its names
and signatures.
"""

import io
import math
import random
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from trl import GRPOTrainer
from trl.trainer.utils import split_tensor_dict

from lib.base.files import write_bytes
from lib.gmpo.advantages import unit_rms
from lib.gmpo.batch import all_advantages, batch_diagnostics, batch_weights, equal_rewards_cause
from lib.gmpo.config import PolyCodeConfig
from lib.gmpo.neighbourhoods import COLLAPSED, PromptBank, prompt_statistics
from lib.gmpo.objective import clipped_objective, correction_weights, kl_k3, log_ratio
from lib.gmpo.policy import prompt_embeddings
from lib.gmpo.shared_prefix import can_pack, packed_log_probs, packing_saves_compute
from lib.sampling.scoring import effective_sample_size, mismatch
from lib.training.resume import TrainingError

Row = dict[str, Any]
OnStep = Callable[[Row], None]
OnBatch = Callable[["Rolled"], None]
PER_UPDATE = (
    "loss",
    "grad_norm",
    "clip_fraction",
    "effective_sample_size",
    "log_ratio_max",
    "kl",
    "entropy",
    "skipped",
)
SECONDS = ("seconds_sampling", "seconds_sandbox", "seconds_scoring", "seconds_update")
STATE = "gmpo.pt"  # what a checkpoint adds to TRL's: bank and refreshed reference
EQUAL_BATCHES = 3  # batches in a row with equal rewards before a warning, or before a start that solves nothing stops


@dataclass(frozen=True)
class Rolled:
    """Hold what became of this process's completions of one batch before it is learnt from; each tensor (B, G)."""

    step: int
    rewards: Tensor
    log_probs: Tensor  # summed over the completion, under pi_old
    lengths: Tensor  # tokens, the end token included
    advantages: Tensor


class PolyCodeTrainer(GRPOTrainer):  # type: ignore[misc]
    """Train with TRL's GRPOTrainer, the advantages of lib.gmpo.advantages and the objective of lib.gmpo.objective.

    Arguments as in GRPOTrainer; `args` is a PolyCodeConfig. `on_step` receives one flat dict per sampled batch, after
    its last update; its "updates" holds one dict per update. `on_batch` receives each batch before it is learnt from.
    """

    args: PolyCodeConfig
    rollout_func: Any

    def __init__(
        self, *arguments: Any, on_step: OnStep = lambda row: None, on_batch: OnBatch = lambda batch: None, **more: Any
    ):
        if not GRPOTrainer.__module__.startswith("trl."):
            raise TrainingError(
                f"TRL's GRPOTrainer has been replaced by {GRPOTrainer.__module__}'s, which computes a loss of its own: "
                "GMPO's objective would have no effect. Start GMPO in a process that does not import unsloth before it"
            )
        super().__init__(*arguments, **more)
        if self.args.refill and self.rollout_func is None:
            raise ValueError(f"refill={self.args.refill}: it needs a rollout_func, such as lib.gmpo.rollouts.Rollouts")
        self.on_step, self.on_batch = on_step, on_batch
        self.bank = PromptBank(self.args.bank_size) if self.args.bank_size else None
        self._row: Row = {"updates": []}
        self._log_ratios: list[Tensor] = []
        self._equal_batches, self._solved, self._collapsed = 0, False, False
        self._clock = time.perf_counter()
        if "ref" in getattr(self.model, "peft_config", {}):
            self.model.delete_adapter(
                "ref"
            )  # TRL's copy of the start; a checkpoint with two adapters is resumed wrongly
        if self.args.kl_reference != "base":
            self.beta = 0.0  # so that TRL computes no reference of its own
        self._weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        copied = self.args.beta and self.args.kl_reference in ("start", "refreshed")
        self._reference = self._copy() if copied else None

    def _copy(self) -> list[Tensor]:
        return [weight.detach().clone() for weight in self._weights]

    @property
    def _rows_at_once(self) -> int:
        return int(self.args.per_device_train_batch_size)

    @property
    def batches_done(self) -> int:
        """Return how many batches have been learnt from."""
        return int(self.state.global_step) // int(self.num_iterations)

    def note(self, name: str, value: float | Tensor) -> None:
        """Add a number to this step's log."""
        self._metrics["train"][name].append(float(value))

    # ------------------------------------------------------------------------------------------------------ advantages

    def _calculate_rewards(self, *args: Any) -> Tensor:
        self._rewards = super()._calculate_rewards(*args)  # (rows, functions), of all processes
        return self._rewards

    def _generate_and_score_completions(self, inputs: list[Row]) -> Row:
        """Return TRL's batch with this method's advantages. Raises TrainingError for non-finite log-probabilities."""
        if not self.model.training:
            return dict(super()._generate_and_score_completions(inputs))
        started, self._before = time.perf_counter(), self._copy()
        if self.args.refill:
            inputs, drawn = self._refilled(inputs)
            with self._drawn_already(drawn):
                batch: Row = super()._generate_and_score_completions(inputs)
        else:
            batch = super()._generate_and_score_completions(inputs)
        noted = self._metrics["train"]
        noted.update({name: [sum(noted[name])] for name in SECONDS[:2] if noted.get(name)})  # TRL would average them
        if "old_per_token_logps" not in batch:  # TRL leaves them out where the first ratio is 1 anyway
            with torch.no_grad():
                batch["old_per_token_logps"] = self._log_probs(self.model, batch, self._rows_at_once)[0]
        mask, group, old = batch["completion_mask"].bool(), self.num_generations, batch["old_per_token_logps"]
        log_probs = torch.where(mask, old.float(), 0.0).sum(1)  # (rows,)
        self._check_finite(log_probs)
        self._compare_with_sampler(batch)
        self._refer(batch)
        policy, ids = self.accelerator.unwrap_model(self.model), batch["prompt_ids"][::group]
        own = torch.tensor([row["own"] for row in inputs[::group]], device=ids.device) if "own" in inputs[0] else None
        with policy.disable_adapter() if self.args.encoder == "base" else nullcontext():
            h = prompt_embeddings(policy, ids, batch["prompt_mask"][::group], self._rows_at_once, own)  # (B, d)
        everyone = self._advantages(log_probs, mask.sum(1), h).to(batch["advantages"])
        first = self.accelerator.process_index * len(inputs)
        batch["advantages"] = everyone[first : first + len(inputs)]
        rewards = (self._rewards * self.reward_weights.to(self._rewards)).sum(1)[first : first + len(inputs)]
        shown = (rewards, log_probs, mask.sum(1), batch["advantages"])
        self.on_batch(Rolled(self.batches_done + 1, *(values.view(-1, group).cpu() for values in shown)))
        self._logs["advantages"].clear()  # TRL's own
        self._logs["advantages"].extend(everyone.tolist())
        self.note("seconds_before_update", time.perf_counter() - started)
        return batch

    def _advantages(self, log_probs: Tensor, lengths: Tensor, h: Tensor) -> Tensor:
        """Return the chosen advantages of all processes' rows, from one process's log_probs, lengths and embeddings."""
        args, shape = self.args, (-1, self.num_generations)
        log_probs, lengths, h = self.accelerator.gather([log_probs, lengths, h])  # so that pooling sees all processes
        log_probs, lengths = log_probs.view(shape), lengths.view(shape)
        rewards = (self._rewards * self.reward_weights.to(self._rewards)).sum(1).view(shape)  # gathered by TRL
        w, pooled = batch_weights(h, args.neighbours, args.tau, self.bank)
        by_name, parts = all_advantages(rewards, log_probs, w, bank=self.bank, **args.sbam)
        if self.bank is not None:
            self.bank.push(prompt_statistics(rewards, log_probs, h))
        chosen = self.advantages(rewards, log_probs, by_name)
        chosen = unit_rms(chosen) if args.equal_norm else chosen
        row: Row = pooled | batch_diagnostics(rewards, log_probs, lengths, by_name, parts)
        row |= {"advantage_var": chosen.var(correction=0), "advantage_var_per_prompt": row["advantage_var_grpo"]}
        for name, value in row.items():
            self.note(name, value)
        self._watch_rewards(rewards)
        if args.advantage_estimator == "gmpo":
            self._watch_neighbours(pooled["effective_neighbours"], w.shape[1])
        return chosen.flatten()

    def advantages(self, rewards: Tensor, log_probs: Tensor, built_in: dict[str, Tensor]) -> Tensor:
        """Return what is learnt from, (B, G), from rewards and log-probabilities (B, G) and every estimator's by name.

        Here the estimator that the settings name; a subclass may return its own.
        """
        return built_in[self.args.advantage_estimator]

    # ---------------------------------------------------------------------------------------------------------- refill

    def _refilled(self, inputs: list[Row]) -> tuple[list[Row], Row]:
        """Return the batch with further prompts for those whose completions all have one reward, and what was drawn.

        That is DAPO's dynamic sampling (Yu et al. 2025, arXiv 2503.14476), up to `refill` further prompts per process.
        All processes draw equally many at a time, because rewards are gathered. What stays uniform in the end is kept.
        """
        size, budget = self.num_generations, self.args.refill
        groups, tried = self._drawn(inputs), {row["prompt"] for row in inputs}
        lot = random.Random(f"{self.args.seed} {self.batches_done} {self.accelerator.process_index}")
        order = lot.sample(range(len(self.train_dataset)), len(self.train_dataset))
        further = (row for row in map(self.train_dataset.__getitem__, order) if row["prompt"] not in tried)
        replaced = 0
        while True:
            uniform = [place for place, (*_, mixed) in enumerate(groups) if not mixed]
            wanted = self.accelerator.gather(torch.tensor([len(uniform)], device=self.accelerator.device))
            fresh = list[Row]()
            while len(fresh) < min(int(wanted.max()), budget) and (row := next(further, None)):
                tried.add(row["prompt"])
                fresh.append(row)
            fewest = int(self.accelerator.gather(torch.tensor([len(fresh)], device=self.accelerator.device)).min())
            if not fewest:
                break
            budget -= fewest
            good = [group for group in self._drawn([row for row in fresh[:fewest] for _ in range(size)]) if group[2]]
            for place, group in zip(uniform, good, strict=False):
                groups[place], replaced = group, replaced + 1
        self.note("replaced_groups", replaced)
        self.note("uniform_groups", len(uniform))
        self.note("seconds_sandbox", sum(self._pending_metrics["seconds_sandbox"]))
        self._pending_metrics.clear()  # the batch's own follow
        rows, parts = [row for group, *_ in groups for row in group], [part for _, part, _ in groups]
        names = [name for name, values in parts[0].items() if values is not None]
        return rows, {"logprobs": None} | {name: [one for part in parts for one in part[name]] for name in names}

    def _drawn(self, inputs: list[Row]) -> list[tuple[list[Row], Row, bool]]:
        """Return for each group its rows, what was drawn for them, and whether its rewards differ."""
        size, texts = self.num_generations, [row["prompt"] for row in inputs]
        drawn = self.rollout_func(texts, self)
        answers = self.processing_class.batch_decode(drawn["completion_ids"], skip_special_tokens=True)
        rewards = super()._calculate_rewards(inputs, texts, answers, drawn["completion_ids"])
        first = self.accelerator.process_index * len(inputs)
        own = (rewards * self.reward_weights.to(rewards)).sum(1)[first : first + len(inputs)].view(-1, size)
        return [
            (
                inputs[at : at + size],
                {name: part and part[at : at + size] for name, part in drawn.items()},
                bool(r.min() < r.max()),
            )
            for at, r in zip(range(0, len(inputs), size), own, strict=True)
        ]

    @contextmanager
    def _drawn_already(self, drawn: Row) -> Iterator[None]:
        """Let TRL have these completions."""
        sample, self.rollout_func = self.rollout_func, lambda texts, trainer: drawn
        try:
            yield
        finally:
            self.rollout_func = sample

    # --------------------------------------------------------------------------------------------- sampler, reference

    def _compare_with_sampler(self, batch: Row) -> None:
        """Note how far the engine was from the trainer, and add the weights that correct for it."""
        args, known = self.args, batch.get("sampling_per_token_logps")
        if known is None:
            if args.correction != "none":
                raise TrainingError(f"correction={args.correction}: the sampler hands over no log-probabilities")
            return
        old, mask = batch["old_per_token_logps"], batch["completion_mask"]
        for name, value in mismatch(old, known, mask).items():
            self.note(name, value)
        weights = correction_weights(old, known, mask, args.correction, args.correction_cap)
        if weights is not None:
            batch["correction"] = weights

    def _refer(self, batch: Row) -> None:
        """Add the log-probabilities that the KL term compares with, where TRL has not."""
        if not self.args.beta or self.args.kl_reference == "base":
            return
        if self._reference is None:
            batch["ref_per_token_logps"] = batch["old_per_token_logps"]
            return
        if self.args.kl_reference == "refreshed" and self.batches_done % self.args.kl_refresh == 0:
            self._reference = self._copy()
        current = self._copy()
        with torch.no_grad():
            self._put(self._reference)
            batch["ref_per_token_logps"] = self._log_probs(self.model, batch, self._rows_at_once)[0]
            self._put(current)

    def _put(self, values: list[Tensor]) -> None:
        for weight, value in zip(self._weights, values, strict=True):
            weight.data.copy_(value)

    # ---------------------------------------------------------------------------------------------------------- checks

    def _check_finite(self, log_probs: Tensor) -> None:
        broken = int((~log_probs.isfinite()).sum())
        if broken:
            raise TrainingError(
                f"step {self.batches_done + 1}: log-probabilities of {broken} of {len(log_probs)} completions "
                "are NaN or infinite; nothing was learnt from them. Lower learning_rate, or check the adapter"
            )

    def _watch_rewards(self, rewards: Tensor) -> None:
        """Warn once EQUAL_BATCHES batches in a row carried no signal; stop when they were the first and all wrong."""
        self._solved |= bool(rewards.max() > 0)
        equal = bool(rewards.max() == rewards.min())
        self._equal_batches = self._equal_batches + 1 if equal else 0
        if self._equal_batches != EQUAL_BATCHES:
            return
        if not self._solved and self.batches_done == EQUAL_BATCHES - 1:
            raise TrainingError(
                f"the start solved none of {EQUAL_BATCHES * rewards.numel()} programs of the first {EQUAL_BATCHES} "
                "batches, so nothing could be learnt. Fine-tune it on passing samples or references first "
                "(notebook 03), choose easier tasks, or raise max_completion_length"
            )
        cause = equal_rewards_cause(float(rewards.max()))
        warnings.warn(f"{self._equal_batches} batches in a row with equal rewards: {cause}", stacklevel=2)

    def _watch_neighbours(self, effective: float, prompts: int) -> None:
        """Warn once that CGMN pools over the whole batch."""
        if effective >= COLLAPSED * prompts > 1 and not self._collapsed:
            self._collapsed = True
            warnings.warn(
                f"CGMN pools over {effective:.1f} of {prompts} prompts, which is the estimator batch; "
                f"set neighbours to {max(1.5, prompts / 3):.1f} and tau to None",
                stacklevel=2,
            )

    # ------------------------------------------------------------------------------------------------------------ loss

    def _prepare_inputs(self, generation_batch: Any) -> Row:
        """Return TRL's inputs in the order sampled, groups whole. An update covers the whole batch, all its passes."""
        if not self.model.training:
            return super()._prepare_inputs(generation_batch)
        passes = self.args.steps_per_generation
        if self._step % (passes * self.num_iterations) == 0 or self._buffered_inputs is None:
            batch = self._generate_and_score_completions(generation_batch)
            self._buffered_inputs: list[Row] | None = split_tensor_dict(batch, passes)
        assert self._buffered_inputs is not None
        return self._buffered_inputs[self._step % passes]

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        **more: Any,
    ) -> Any:
        """Return TRL's (log-probabilities, entropies, None); completions share a row where that saves compute."""
        rows, keep, plain = batch_size or len(input_ids), logits_to_keep, self.accelerator.unwrap_model(model)
        group = math.gcd(self.num_generations, rows, len(input_ids))
        width = plain.config.get_text_config().hidden_size
        if (
            group == 1
            or not can_pack(plain)
            or not packing_saves_compute(width, input_ids.shape[1] - keep, keep, group)
        ):
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, keep, batch_size=batch_size, compute_entropy=compute_entropy, **more
            )
        found = [
            packed_log_probs(
                model,
                ids[:, :-keep],
                mask[:, :-keep],
                ids[:, -keep:],
                mask[:, -keep:],
                group,
                self.temperature,
                compute_entropy,
            )
            for ids, mask in zip(input_ids.split(rows), attention_mask.split(rows), strict=True)
        ]
        log_probs, entropies = (list(column) for column in zip(*found, strict=True))
        return torch.cat(log_probs), torch.cat(entropies) if compute_entropy else None, None

    def _log_probs(self, model: Any, batch: Row, size: int | None = None, entropy: bool = False) -> Any:
        """Return log-probabilities of completion tokens, (N, T), at the sampling temperature; entropies if asked."""
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
        mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
        keep = batch["completion_ids"].shape[1]
        return self._get_per_token_logps_and_entropies(model, ids, mask, keep, batch_size=size, compute_entropy=entropy)

    def _compute_loss(self, model: Any, inputs: Row) -> Tensor:
        """Return −(1/N) Σ_i [c_i min(s_i A_i, clip(s_i, 1−ε, 1+ε) A_i) − β KL_i] over the N rows of one pass.

        c is the correction's weight, 1 without one. Raises TrainingError for log-probabilities that are not finite.
        """
        if not self.model.training:
            return super()._compute_loss(model, inputs)
        mask, level = inputs["completion_mask"], self.args.ratio
        new, entropies, _ = self._log_probs(model, inputs, entropy=True)
        if not new[mask.bool()].isfinite().all():
            raise TrainingError(
                f"update {self.state.global_step + 1}: the loss is not a number, and nothing was learnt from it; "
                "lower learning_rate, or train in bf16 or fp32"
            )
        ratios = log_ratio(new, inputs["old_per_token_logps"], mask, level)
        by_token = mask if level == "token" else None
        clipped = clipped_objective(ratios, inputs["advantages"], self.args.epsilon, by_token)
        objective, weights = clipped.objective, inputs.get("correction")
        if weights is not None:
            objective = objective * (weights if weights.ndim == objective.ndim else weights[:, None])
        objective = objective if by_token is None else objective.sum(1) / mask.sum(1)  # (N,)
        if self.args.beta:
            kl = kl_k3(new, inputs["ref_per_token_logps"], mask).sum(1)
            kl = kl if self.args.kl_level == "sequence" else kl / mask.sum(1)
            objective = objective - self.args.beta_at(self.state.global_step / max(1, self.state.max_steps - 1)) * kl
            self.note("kl", kl.detach().mean())
        self.note("clip_fraction", clipped.clip_fraction)
        self.note("entropy", (entropies * mask).sum() / mask.sum())
        self._log_ratios.append(ratios.detach()[mask.bool()] if level == "token" else ratios.detach())
        return -objective.mean() / self.current_gradient_accumulation_steps

    # ------------------------------------------------------------------------------------------------------------- log

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log an update as TRL does, and after a batch's last one its row. Raises TrainingError for NaN or infinity."""
        if self._log_ratios:
            ratios = torch.cat(self._log_ratios)
            self.note("effective_sample_size", effective_sample_size(ratios) / len(ratios))
            self.note("log_ratio_max", ratios.abs().max())
            self._log_ratios = []
        scaler = self.accelerator.scaler
        if scaler is not None:
            self.note("skipped", bool(self.accelerator.optimizer_step_was_skipped))
        super().log(logs, start_time)  # adds what was noted, averaged over passes
        if "loss" not in logs:
            return
        # fp16: a gradient that overflows at the scaler's present scale halves it, and the update is skipped
        settling = scaler is not None and scaler.get_scale() >= 1
        if not math.isfinite(logs["loss"]) or not (settling or math.isfinite(logs.get("grad_norm", 0.0))):
            where = f"update {self.state.global_step}"
            raise TrainingError(f"{where}: the loss or its gradient is not a number; lower learning_rate")
        self._row["updates"].append(finite({name: logs[name] for name in PER_UPDATE if name in logs}))
        own = (name for name in logs if "/" not in name or name.startswith("verdict/"))  # the rest is TRL's detail
        self._row.update({name: logs[name] for name in own})
        if self.state.global_step % self.num_iterations == 0:
            self._finish_row()

    def _finish_row(self) -> None:
        now, row = time.perf_counter(), {"step": self.batches_done, **self._row}
        before = row.pop("seconds_before_update")
        row["seconds"] = now - self._clock
        row["seconds_scoring"] = before - sum(row.get(name, 0.0) for name in SECONDS[:2])
        row["seconds_update"] = row["seconds"] - before
        moved = (new.detach() - old for new, old in zip(self._weights, self._before, strict=True))
        row["update_norm"] = math.sqrt(sum(float(part.double().square().sum()) for part in moved))
        self._row, self._clock = {"updates": []}, now
        if self.accelerator.is_main_process:
            self.on_step(finite(row))

    # ----------------------------------------------------------------------------------------------------- checkpoints

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        refreshed = self._reference if self.args.kl_reference == "refreshed" else None
        if (
            self.bank is not None or refreshed
        ) and self.args.should_save:  # first: the trainer's state ends a checkpoint
            content = io.BytesIO()
            torch.save({"bank": self.bank and self.bank.state_dict(), "reference": refreshed}, content)
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            write_bytes(folder / STATE, content.getvalue())
        super()._save_checkpoint(model, trial)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and (Path(checkpoint) / STATE).is_file():
            state = torch.load(Path(checkpoint) / STATE, map_location=self.accelerator.device)
            if self.bank is not None:
                self.bank.load_state_dict(state["bank"])
            self._reference = state["reference"] or self._reference


def finite(row: Row) -> Row:
    """Return the row as JSON takes it: None for NaN and infinity."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()
    }
