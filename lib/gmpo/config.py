"""Settings of a GMPO training, as a TRL config."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from trl import GRPOConfig

from lib.gmpo.objective import Level

Estimator = Literal["gmpo", "grpo", "dr_grpo", "batch", "rloo"]


@dataclass
class PolyCodeConfig(GRPOConfig):  # type: ignore[misc]
    """Configure `PolyCodeTrainer`: TRL's GRPOConfig and what GMPO (PolyCode) adds to it.

    TRL's own `epsilon` is the clip range, `beta` the weight of the KL term, `num_generations` G. TRL's options for its
    loss (`loss_type`, `delta`, `importance_sampling_level`, …) have no effect, because the loss is replaced.
    Raises ValueError for values that cannot work together.
    """

    advantage_estimator: Estimator = field(
        default="gmpo",
        metadata={"help": "gmpo (PolyCode), grpo, dr_grpo, rloo, or batch (one mean and deviation for the batch)."},
    )
    ratio: Level = field(
        default="sequence",
        metadata={"help": "Ratio that is clipped: of the sequence, its geometric mean per token (GSPO), or per token."},
    )
    tau: float = field(
        default=0.01,
        metadata={"help": "Temperature of CGMN's neighbourhoods; inf pools all prompts of a batch alike."},
    )
    neighbours: int | None = field(
        default=None,
        metadata={"help": "Nearest prompts that CGMN pools over, the prompt itself included; 1 switches CGMN off."},
    )
    bank_size: int = field(
        default=0, metadata={"help": "Past prompts that CGMN pools over as well; 0 is this batch alone."}
    )
    lam: float = field(default=0.5, metadata={"help": "Strength of SBAM; 0 switches it off."})
    gamma: float = field(default=1.0, metadata={"help": "Exponent of SBAM's surprise."})
    advantage_delta: float = field(
        default=1e-6, metadata={"help": "PolyCode's delta, added to the standard deviations that are divided by."}
    )
    beta_final: float | None = field(
        default=None, metadata={"help": "Weight of the KL term at the end, reached linearly; None keeps `beta`."}
    )
    num_iterations: int = field(
        default=2, metadata={"help": "Updates per batch. With 1, every ratio is 1 and the clip has no effect."}
    )
    disable_dropout: bool = field(
        default=True, metadata={"help": "Without it, the ratio is not 1 at a batch's first update."}
    )

    logging_steps: float = field(
        default=1,
        metadata={"help": "Updates per log row; `on_step` gets a batch's row when its last update is logged."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, options in (("advantage_estimator", get_args(Estimator)), ("ratio", get_args(Level))):
            if getattr(self, name) not in options:
                raise ValueError(f"{name}={getattr(self, name)!r}: choose one of {', '.join(options)}")
        for name, least in (("neighbours", 1), ("bank_size", 0), ("lam", 0), ("beta", 0), ("beta_final", 0)):
            value = getattr(self, name)
            if value is not None and not least <= value < math.inf:
                raise ValueError(f"{name}={value}: should be at least {least}")
        for name in ("tau", "gamma", "advantage_delta", "temperature"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}: should be above 0")
        if not 0 < self.epsilon < 1:
            raise ValueError(f"epsilon={self.epsilon}: the clip range lies between 0 and 1")
        if self.beta_final and not self.beta:
            raise ValueError(f"beta_final={self.beta_final}: annealing starts from beta, which is 0")
        if self.rows % self.num_generations:
            raise ValueError(f"{self.rows} completions per batch and process: no multiple of {self.num_generations}")
        pools = self.advantage_estimator == "gmpo" and self.neighbours != 1 and not self.bank_size
        if pools and self.rows * self.world_size == self.num_generations:
            raise ValueError("one prompt per batch: pooling needs two, a bank, or neighbours=1 to be off")

    @property
    def rows(self) -> int:
        """Completions per batch on each process, B·G."""
        return int(self.per_device_train_batch_size * self.steps_per_generation)

    @property
    def pooling(self) -> dict[str, Any]:
        """The arguments of `gmpo_advantages`."""
        names = {"tau": "tau", "lam": "lam", "gamma": "gamma", "delta": "advantage_delta", "top_k": "neighbours"}
        return {argument: getattr(self, name) for argument, name in names.items()}

    def beta_at(self, progress: float) -> float:
        """Return the KL term's weight after `progress` (0 to 1) of the training."""
        return self.beta if self.beta_final is None else self.beta + (self.beta_final - self.beta) * progress
