"""Groupwise Meta-normalised PPO (GMPO, PolyCode) in TRL's GRPOTrainer: its advantages and its loss.

This GMPO is not Geometric-Mean Policy Optimization (arXiv 2507.20673), which carries the same four letters.

Differs from the paper in: a batch is learnt from `num_iterations` times in whole-batch steps, so that pi_old
really is old. What it leaves open is fixed here: pi_old's log-probabilities are recomputed by the model being
trained, because the sampler rounds its weights and may cut the tail (top_p); the KL term is a mean over a
completion's tokens, and so is the objective of ratio="token"; a group has at least two completions, which is TRL's
rule. A group goes through the model in one row (lib.gmpo.shared_prefix), which changes the cost and nothing else.

TRL keeps the loop: PEFT, accelerate, checkpoints, logging. Its options for the loss (loss_type, delta, entropy
bonus, vLLM's importance correction) do not apply, because the loss is replaced. A patched trainer that computes
its own loss, as Unsloth's does on a GPU, still gets these advantages, but not the raw ratio. What is overridden here is
private to TRL; tests/test_gmpo_trl.py holds its names and signatures.
"""

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from trl import GRPOTrainer
from trl.trainer.utils import split_tensor_dict

from lib.gmpo.advantages import Advantages
from lib.gmpo.batch import batch_diagnostics, equal_rewards_cause, shared_advantages
from lib.gmpo.config import PolyCodeConfig
from lib.gmpo.neighbourhoods import PromptBank
from lib.gmpo.objective import clipped_objective, effective_sample_size, kl_k3, log_ratio
from lib.gmpo.policy import prompt_embeddings
from lib.gmpo.shared_prefix import can_pack, packed_log_probs, packing_saves_compute
from lib.training.resume import TrainingError

Row = dict[str, Any]
OnStep = Callable[[Row], None]
OnBatch = Callable[["Rolled"], None]
PER_UPDATE = ("loss", "grad_norm", "clip_fraction", "effective_sample_size", "log_ratio_max", "kl", "entropy")
SECONDS = ("seconds_sampling", "seconds_sandbox", "seconds_scoring", "seconds_update")
BANK = "prompt_bank.pt"  # what a checkpoint adds to TRL's
EQUAL_BATCHES = 3  # batches in a row with equal rewards before a warning


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

    def __init__(
        self, *arguments: Any, on_step: OnStep = lambda row: None, on_batch: OnBatch = lambda batch: None, **more: Any
    ):
        super().__init__(*arguments, **more)
        self.on_step, self.on_batch = on_step, on_batch
        self.bank = PromptBank(self.args.bank_size) if self.args.bank_size else None
        self._row: Row = {"updates": []}
        self._log_ratios: list[Tensor] = []
        self._equal_batches = 0
        self._clock = time.perf_counter()
        if "ref" in getattr(self.model, "peft_config", {}):
            self.model.delete_adapter("ref")  # TRL's copy of the first adapter: the reference is the base model

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
        policy, ids = self.accelerator.unwrap_model(self.model), batch["prompt_ids"][::group]
        h = prompt_embeddings(policy, ids, batch["prompt_mask"][::group], self._rows_at_once)  # (B, d)
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
        gather, shape = self.accelerator.gather, (-1, self.num_generations)
        log_probs, lengths = log_probs.view(shape), lengths.view(shape)
        all_rewards = (self._rewards * self.reward_weights.to(self._rewards)).sum(1).view(shape)  # gathered by TRL
        rank = self.accelerator.process_index
        rewards = all_rewards[rank * len(h) : (rank + 1) * len(h)]  # (B, G)
        by_name, parts = shared_advantages(
            rewards, log_probs, h, pooling=self.args.pooling, bank=self.bank, gather=gather, rank=rank
        )
        # from here on for the log alone: a few numbers a completion
        log_probs, lengths, by_name, found = gather([log_probs, lengths, by_name, vars(parts)])
        chosen, parts = by_name[self.args.advantage_estimator], Advantages(**found)
        self.note("advantage_var", chosen.var(correction=0))
        self.note("advantage_var_per_prompt", by_name["grpo"].var(correction=0))
        for name, value in batch_diagnostics(all_rewards, log_probs, lengths, by_name, parts).items():
            self.note(name, value)
        self._watch_rewards(all_rewards)
        return chosen.flatten()

    def _check_finite(self, log_probs: Tensor) -> None:
        broken = int((~log_probs.isfinite()).sum())
        if broken:
            raise TrainingError(
                f"step {self.batches_done + 1}: log-probabilities of {broken} of {len(log_probs)} completions "
                "are NaN or infinite; nothing was learnt from them. Lower learning_rate, or check the adapter"
            )

    def _watch_rewards(self, rewards: Tensor) -> None:
        """Warn once EQUAL_BATCHES batches in a row carried no signal."""
        equal = bool(rewards.max() == rewards.min())
        self._equal_batches = self._equal_batches + 1 if equal else 0
        if self._equal_batches == EQUAL_BATCHES:
            cause = equal_rewards_cause(float(rewards.max()))
            warnings.warn(f"{self._equal_batches} batches in a row with equal rewards: {cause}", stacklevel=2)

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
        """Return −(1/N) Σ_i [min(s_i A_i, clip(s_i, 1−ε, 1+ε) A_i) − β KL_i] over the N rows of one pass."""
        if not self.model.training:
            return super()._compute_loss(model, inputs)
        mask, level = inputs["completion_mask"], self.args.ratio
        new, entropies, _ = self._log_probs(model, inputs, entropy=True)
        ratios = log_ratio(new, inputs["old_per_token_logps"], mask, level)
        by_token = mask if level == "token" else None
        clipped = clipped_objective(ratios, inputs["advantages"], self.args.epsilon, by_token)
        objective = clipped.objective if by_token is None else clipped.objective.sum(1) / mask.sum(1)  # (N,)
        if self.beta:
            kl = kl_k3(new, inputs["ref_per_token_logps"], mask).sum(1) / mask.sum(1)
            objective = objective - self.args.beta_at(self.state.global_step / self.state.max_steps) * kl
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
        super().log(logs, start_time)  # adds what was noted, averaged over passes
        if "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]) or not math.isfinite(logs.get("grad_norm", 0.0)):
            where = f"update {self.state.global_step}"
            raise TrainingError(f"{where}: the loss or its gradient is not a number; lower learning_rate")
        self._row["updates"].append({name: logs[name] for name in PER_UPDATE if name in logs})
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
        self._row, self._clock = {"updates": []}, now
        if self.accelerator.is_main_process:
            self.on_step({name: None if value != value else value for name, value in row.items()})

    # ----------------------------------------------------------------------------------------------------- checkpoints

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if self.bank is not None and self.args.should_save:  # first: the trainer's state ends a whole checkpoint
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(self.bank.state_dict(), folder / BANK)
        super()._save_checkpoint(model, trial)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and self.bank is not None:
            self.bank.load_state_dict(torch.load(Path(checkpoint) / BANK))
