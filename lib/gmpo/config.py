"""Settings of a GMPO training, as a TRL config."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from trl import GRPOConfig

from lib.gmpo.objective import Correction, Level

Estimator = Literal["gmpo", "grpo", "dr_grpo", "rloo", "batch", "group_batch", "james_stein"]
Reference = Literal["base", "start", "old", "refreshed"]
Encoder = Literal["policy", "base"]


@dataclass
class PolyCodeConfig(GRPOConfig):  # type: ignore[misc]
    """Configure `PolyCodeTrainer`: TRL's GRPOConfig and what GMPO (PolyCode) adds to it.

    TRL's own `epsilon` is the clip range, `beta` the weight of the KL term, `num_generations` G. TRL's options for its
    loss (`loss_type`, `delta`, `importance_sampling_level`, …) have no effect, because the loss is replaced.
    Raises ValueError for values that cannot work together.
    """

    # gmpo (PolyCode); per prompt: grpo, dr_grpo, rloo; batch: one mean and deviation for the batch; group_batch: the
    # prompt's mean, the batch's deviation; james_stein: prompts' means shrunk towards each other
    advantage_estimator: Estimator = "gmpo"
    equal_norm: bool = False  # rescale a batch's advantages to root mean square 1, whatever the estimator
    # Further prompts per batch and process, at most, in place of those whose completions all have one reward (DAPO)
    refill: int = 0
    ratio: Level = "sequence"  # what is clipped: the sequence's, its geometric mean per token (GSPO), or each token's
    correction: Correction = "none"  # truncated importance weights, trainer over sampler: none, per token or sequence
    correction_cap: float = 2.0  # the largest of them
    # Prompts that CGMN pools over, itself included: the effective number that tau is solved for; 1 switches CGMN off
    neighbours: float = 2.0
    encoder: Encoder = "policy"  # whose hidden states embed prompts: pi_old's, or the base's, which never move
    tau: float | None = None  # temperature of CGMN in place of `neighbours`; inf pools all prompts alike
    bank_size: int = 0  # past prompts that CGMN pools over as well
    lam: float = 0.5  # strength of SBAM; 0 switches it off
    gamma: float = 1.0  # exponent of SBAM's surprise
    advantage_delta: float = 1e-6  # PolyCode's delta, added to the standard deviations that are divided by
    kl_reference: Reference = "base"  # the KL term is to the base, the start, pi_old, or a copy made now and then
    kl_refresh: int = 10  # batches between two copies of the reference "refreshed"
    kl_level: Literal["token", "sequence"] = "token"  # a mean over tokens, or their sum
    beta_final: float | None = None  # weight of the KL term at the end, reached linearly; None keeps `beta`
    num_iterations: int = 2  # updates per batch; with 1 every ratio is 1 and the clip has no effect
    disable_dropout: bool = True  # without it the ratio is not 1 at a batch's first update
    logging_nan_inf_filter: bool = False  # True would log an earlier loss in place of one that is not a number
    logging_steps: float = 1  # updates per log row; `on_step` gets a batch's row when its last update is logged

    def __post_init__(self) -> None:
        alone = self.num_generations == 1  # type: ignore[has-type]
        if alone:  # TRL refuses it, since nothing is left of a group of one without its mean; of a pool there is
            self.num_generations = self.per_device_train_batch_size * self.gradient_accumulation_steps
        super().__post_init__()
        if alone:
            self.num_generations = 1
        options = {"advantage_estimator": Estimator, "ratio": Level, "correction": Correction, "encoder": Encoder}
        options |= {"kl_reference": Reference, "kl_level": Literal["token", "sequence"]}
        for name, choices in options.items():
            if getattr(self, name) not in get_args(choices):
                raise ValueError(f"{name}={getattr(self, name)!r}: choose one of {', '.join(get_args(choices))}")
        least = {"neighbours": 1, "tau": 0, "refill": 0, "bank_size": 0, "lam": 0, "beta": 0, "beta_final": 0}
        for name, bound in (least | {"kl_refresh": 1}).items():
            value = getattr(self, name)
            if value is not None and not (bound <= value < math.inf or name == "tau" and value == math.inf):
                raise ValueError(f"{name}={value}: should be at least {bound}")
        for name in ("gamma", "advantage_delta", "temperature", "correction_cap"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}: should be above 0")
        if not 0 < self.epsilon < 1:
            raise ValueError(f"epsilon={self.epsilon}: the clip range lies between 0 and 1")
        if self.beta_final and not self.beta:
            raise ValueError(f"beta_final={self.beta_final}: annealing starts from beta, which is 0")
        if alone and (self.refill or self.advantage_estimator not in ("gmpo", "batch")):
            raise ValueError("num_generations=1: nothing in a group to compare; only gmpo and batch, without refill")
        if self.rows % self.num_generations:
            raise ValueError(f"{self.rows} completions per batch and process: no multiple of {self.num_generations}")
        if self.correction == "token" and self.ratio != "token":
            raise ValueError('correction="token" weighs tokens one by one: set ratio="token", or correction="sequence"')
        pools = self.advantage_estimator == "gmpo" and self.neighbours > 1 and self.tau != 0
        prompts = self.rows * self.world_size // self.num_generations
        if pools and prompts + self.bank_size == 1:
            raise ValueError("one prompt per batch: pooling needs two, a bank, or neighbours=1 to be off")
        if pools and self.tau is None and self.neighbours > prompts + self.bank_size:
            raise ValueError(
                f"neighbours={self.neighbours}: a batch and the bank hold {prompts + self.bank_size} prompts"
            )

    @property
    def rows(self) -> int:
        """Completions per batch on each process, B·G."""
        return int(self.per_device_train_batch_size * self.steps_per_generation)

    @property
    def sbam(self) -> dict[str, float]:
        """The keyword arguments of `all_advantages`."""
        return {"lam": self.lam, "gamma": self.gamma, "delta": self.advantage_delta}

    def beta_at(self, progress: float) -> float:
        """Return the KL term's weight after `progress` (0 to 1) of the training."""
        return self.beta if self.beta_final is None else self.beta + (self.beta_final - self.beta) * progress
