"""What a GMPO run depends on."""

import dataclasses
import math
from typing import Any, Literal, get_args

from lib.gmpo.advantages import Level, Phi
from lib.training.sft import precision

Normaliser = Literal["gmpo", "grpo", "dr_grpo", "batch", "rloo"]
Reward = Literal["binary", "fractional"]
Reference = Literal["base", "start"]
Weights = Literal["auto", "fp32"]
Batches = Literal["clusters", "shuffled"]
Row = dict[str, Any]
OPTIONS = {
    "advantage": get_args(Normaliser),
    "ratio": get_args(Level),
    "reward": get_args(Reward),
    "reference": get_args(Reference),
    "weights": get_args(Weights),
    "batches": get_args(Batches),
    "phi": get_args(Phi),
}
LEAST = {"prompts_per_batch": 1, "steps": 1, "num_iterations": 1, "max_new_tokens": 1, "rows_per_pass": 1, "top_k": 1}
LEAST |= {"memory": 0, "lam": 0, "beta": 0, "beta_final": 0}  # a value of None is not compared


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
    mass: float | None = None  # instead: the fewest neighbours whose weights reach this share
    memory: int = 0  # past prompts pooled over; 0 is batch-local
    lam: float = 0.5  # 0 is GMPO without SBAM
    phi: Phi = "relu"
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
    batches: Batches = "clusters"  # similar prompts meet in a batch, from four a batch on; or plain shuffled laps

    def __post_init__(self) -> None:
        for name, options in OPTIONS.items():
            value = getattr(self, name)
            if value not in options:
                raise ValueError(f"{name}={value!r}: choose one of {', '.join(options)}")
        for name, least in LEAST.items():
            value = getattr(self, name)
            if value is not None and not least <= value < math.inf:
                raise ValueError(f"{name}={value}: should be at least {least}")
        if self.group_size < 2:
            raise ValueError(f"group_size={self.group_size}: a group needs at least two completions")
        if self.advantage == "gmpo" and self.prompts_per_batch < 2 and not self.memory and self.top_k != 1:
            raise ValueError("prompts_per_batch=1: pooling needs two prompts, a memory, or top_k=1 to be off")
        if self.top_k is not None and self.mass is not None:
            raise ValueError(f"top_k={self.top_k}, mass={self.mass}: either of them chooses the neighbours, not both")
        if self.mass is not None and not 0 < self.mass <= 1:
            raise ValueError(f"mass={self.mass}: a share of the weights, above 0 and up to 1")
        if not self.tau > 0:
            raise ValueError(f"tau={self.tau}: the neighbourhood's temperature must be above 0")
        if not 0 < self.epsilon < 1:
            raise ValueError(f"epsilon={self.epsilon}: the clip range lies between 0 and 1")
        if self.beta_final and not self.beta:
            raise ValueError(f"beta_final={self.beta_final}: annealing starts from beta, which is 0")
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


def weights_precision(settings: GmpoSettings) -> str:
    """bf16, fp16 or fp32, for the frozen weights; the adapter is fp32.

    Rounding to bf16 alone moves ln s by about 0.2 over a dozen tokens, as much as one update at 2e-5 does, and so
    takes part in what is clipped from the second update on. fp32 is exact and two to three times as slow.
    """
    return "fp32" if settings.weights == "fp32" else precision()


def identity(settings: GmpoSettings) -> Row:
    """What two parts of one run must share: everything but the number of steps."""
    return {name: value for name, value in dataclasses.asdict(settings).items() if name != "steps"}
