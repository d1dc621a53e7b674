"""What the study gmpo_normalisers computes: gradient estimates of every normaliser, from stored samples and bandits.

    python notebooks/studies/gmpo_normalisers.py gradients [--model embedded] [--out figures/studies] [--quick]
    python notebooks/studies/gmpo_normalisers.py embeddings [--data data/external] …

The first draws 64 samples for each of 32 starter tasks, grades them, and stores rewards, log-probabilities, prompt
embeddings and a sketch of every sample's gradient ∇ Σ_t ln pi(y_t): of the LoRA matrices B (rank 8, B = 0, A random)
that write to the residual stream in the last layer, 512 signed sums of its entries (count sketch; Charikar et al.
2002), which keep inner products without bias: an hour on two cores. The second stores prompt embeddings of BLP-2025's
test tasks, in some minutes.

The bandits have no language model: each prompt has a few arms, some of them correct. Prompts come in clusters that
share their features and their place in embedding space; four mixes decide how difficulty relates to the clusters. What
they cannot show: long completions, drifting policies, clipping, embeddings that are wrong in other ways than ignoring
difficulty.

Dividing by a standard deviation changes the objective on purpose; that counts as bias here, because the yardstick is
the gradient of the plain mean reward.
"""

import argparse
import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from lib.gmpo.advantages import meta_advantages  # noqa: E402
from lib.gmpo.batch import all_advantages, batch_weights  # noqa: E402

Mix = Literal["even", "by-cluster", "within-cluster", "rare"]
GROUP_SIZES = (1, 2, 4, 8, 16, 32)
REFERENCES = ("grpo", "batch", "cgmn")


@dataclasses.dataclass(frozen=True)
class World:
    """B prompts with A arms each; the policy's logits move by features (B, A, P) times the P parameters."""

    h: Tensor  # (B, d)
    policy: Tensor  # (B, A), rows sum to 1
    correct: Tensor  # (B, A), 0 or 1
    score: Tensor  # (B, A, P), the gradient of ln policy
    gradient: Tensor  # (P,), the gradient of the mean success probability


def make_world(mix: Mix, seed: int, clusters: int = 8, per_cluster: int = 4, arms: int = 8) -> World:
    """One world. Arms 0 and 1 are correct and share the success probability that `mix` gives the prompt.

    even: 0.5 everywhere. by-cluster: 0.05 to 0.95 from cluster to cluster, so neighbours are equally hard.
    within-cluster: 0.05 to 0.95 inside each cluster, so neighbours mislead. rare: 0.03 everywhere.
    Raises ValueError for an unknown mix.
    """
    if mix not in get_args(Mix):
        raise ValueError(f"mix={mix!r}: choose one of {', '.join(get_args(Mix))}")
    stream = torch.Generator().manual_seed(seed)
    success = _success(mix, clusters, per_cluster)  # (B,)
    correct = torch.zeros(len(success), arms, dtype=torch.float64)
    correct[:, :2] = 1
    taste = _normal(stream, len(success), arms).exp()
    right, wrong = taste * correct, taste * (1 - correct)
    chance = success[:, None]
    policy = chance * right / right.sum(1, keepdim=True) + (1 - chance) * wrong / wrong.sum(1, keepdim=True)
    features = _clustered(stream, clusters, per_cluster, 0.5, arms, 24)
    score = features - torch.einsum("ba,bap->bp", policy, features)[:, None]
    gradient = torch.einsum("ba,ba,bap->p", policy, correct, score) / len(success)
    return World(_clustered(stream, clusters, per_cluster, 0.3, 32), policy, correct, score, gradient)


def _success(mix: Mix, clusters: int, per_cluster: int) -> Tensor:
    """Success probability of each prompt, cluster by cluster, (B,)."""
    if mix == "by-cluster":
        return torch.linspace(0.05, 0.95, clusters, dtype=torch.float64).repeat_interleave(per_cluster)
    if mix == "within-cluster":
        return torch.linspace(0.05, 0.95, per_cluster, dtype=torch.float64).repeat(clusters)
    return torch.full((clusters * per_cluster,), 0.5 if mix == "even" else 0.03, dtype=torch.float64)


def _normal(stream: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=stream, dtype=torch.float64)


def _clustered(stream: torch.Generator, clusters: int, per_cluster: int, noise: float, *shape: int) -> Tensor:
    """A standard normal centre for each cluster, repeated, plus `noise` of each prompt's own: (B, *shape)."""
    centres = _normal(stream, clusters, *shape).repeat_interleave(per_cluster, 0)
    return centres + noise * _normal(stream, clusters * per_cluster, *shape)


def draw(world: World, group_size: int, replicates: int, seed: int) -> Tensor:
    """Arms drawn from the policy: (R, B, G)."""
    stream = torch.Generator().manual_seed(seed)
    arms = torch.multinomial(world.policy, replicates * group_size, replacement=True, generator=stream)
    return arms.reshape(len(world.policy), replicates, group_size).transpose(0, 1)


def gradient_estimates(world: World, arms: Tensor, advantages: Tensor) -> Tensor:
    """ĝ = (1/B) Σ_j (1/G) Σ_i A_ji ∇ ln pi(a_ji): arms and advantages (R, B, G) -> (R, P)."""
    per_arm = torch.zeros(*arms.shape[:2], world.policy.shape[1], dtype=advantages.dtype)
    per_arm = per_arm.scatter_add(2, arms, advantages)  # (R, B, A)
    return torch.einsum("rba,bap->rp", per_arm, world.score) / (arms.shape[1] * arms.shape[2])


def every_advantage(rewards: Tensor, log_probs: Tensor, w: Tensor, lam: float) -> dict[str, Tensor]:
    """Return every normaliser's advantages of a batch; rewards and log_probs (B, G), w (B, B) -> {name: (B, G)}."""
    if rewards.shape[1] == 1:  # what needs a second completion is 0
        alone = meta_advantages(rewards, w)
        return {"reinforce": rewards, "grpo": torch.zeros_like(rewards), "batch": _batch(rewards), "cgmn": alone}
    by_name, parts = all_advantages(rewards, log_probs, w, lam=lam)
    return {"reinforce": rewards, "cgmn": parts.a_meta, **by_name}


def _batch(rewards: Tensor) -> Tensor:
    return meta_advantages(rewards, torch.full((len(rewards), len(rewards)), 1 / len(rewards), dtype=torch.float64))


def alignment(estimates: Tensor, gradient: Tensor) -> Tensor:
    """cos(ĝ, g), the share of the best first-order gain that a step of fixed length makes: (R, P) -> (R,).

    An estimate of exactly 0 makes no step and counts 0.
    """
    length = torch.linalg.vector_norm(estimates, dim=1) * torch.linalg.vector_norm(gradient)
    return torch.where(length > 0, estimates @ gradient / length.clamp(min=1e-300), 0.0)


def bias_and_variance(estimates: Tensor, gradient: Tensor) -> tuple[float, float]:
    """Squared bias and variance relative to the signal c·g, c = <E ĝ, g>/<g, g>: estimates (R, P), R >= 2.

    bias² = ‖E ĝ − c g‖² / ‖c g‖²,  variance = E‖ĝ − E ĝ‖² / ‖c g‖²

    A common scale is no bias: the optimiser's step size absorbs it. The chance part of the measured bias,
    which is variance·(P−1)/(P·R), is taken off, so an unbiased estimator scatters around 0 and may fall below
    it. Both are NaN where there is no signal, as with GRPO at G = 1.
    """
    replicates, size = estimates.shape
    mean = estimates.mean(0)
    scale = float(mean @ gradient / (gradient @ gradient))
    if scale <= 0:
        return math.nan, math.nan
    signal = scale**2 * float(gradient @ gradient)
    variance = float(estimates.var(0).sum()) / signal
    bias = float((mean - scale * gradient).square().sum()) / signal
    return bias - variance * (size - 1) / (size * replicates), variance


def measured(estimates: Tensor, gradient: Tensor, advantages: Tensor) -> dict[str, float]:
    """Return bias², variance, alignment and mean |A| of one normaliser: (R, P), (P,), (R, B, G)."""
    bias, variance = bias_and_variance(estimates, gradient)
    aligned = float(alignment(estimates, gradient).mean())
    size = float(advantages.abs().mean())
    return {"bias2": bias, "variance": variance, "alignment": aligned, "advantage_size": size}


def measure(
    world: World, group_size: int, replicates: int, seed: int, neighbours: float, lam: float
) -> dict[str, dict[str, float]]:
    """Every normaliser on the same draws of one world: method -> bias², variance, alignment, size of A."""
    arms = draw(world, group_size, replicates, seed)
    rows = torch.arange(len(world.policy))[None, :, None]
    rewards, log_probs = world.correct[rows, arms], world.policy.log()[rows, arms]
    w, _ = batch_weights(world.h, neighbours)
    found = [every_advantage(r, logs, w, lam) for r, logs in zip(rewards, log_probs, strict=True)]
    by_name = {name: torch.stack([one[name] for one in found]) for name in found[0]}
    return {name: measured(gradient_estimates(world, arms, a), world.gradient, a) for name, a in by_name.items()}


@dataclasses.dataclass(frozen=True)
class Stored:
    """Samples of a model: B prompts, S samples each; gradients are sketched to P numbers."""

    rewards: Tensor  # (B, S)
    log_probs: Tensor  # (B, S)
    h: Tensor  # (B, d)
    gradients: Tensor  # (B, S, P)


def load(path: Path) -> Stored:
    """Read what `main` wrote."""
    import numpy

    with numpy.load(path) as held:
        parts = [torch.from_numpy(held[field.name]).double() for field in dataclasses.fields(Stored)]
    return Stored(*parts)


def one_logit_per_prompt(rewards: Tensor, log_probs: Tensor, h: Tensor) -> Stored:
    """Return stored samples of a policy with one parameter per prompt, the logit of its success rate p_j.

    ∇ ln pi(y_ji) = (r_ji − p_j) e_j with p_j the mean of the prompt's S rewards: what a right sample teaches is what
    every right sample of the prompt does, and prompts share nothing. It needs rewards alone, no model.
    """
    rewards = rewards.double()
    score = rewards - rewards.mean(1, keepdim=True)
    prompts = torch.eye(len(rewards), dtype=torch.float64)
    return Stored(rewards, log_probs.double(), h.double(), score[:, :, None] * prompts[:, None])


def measure_stored(
    held: Stored, prompts: Tensor, group_size: int, replicates: int, seed: int, neighbours: float, lam: float = 0.5
) -> dict[str, dict[str, float]]:
    """Return `measured` of every normaliser, over groups drawn again and again from the stored samples of a batch.

    The yardstick is the gradient of the mean reward from all S samples, Σ_i (r_ji − mu_j) ∇ ln pi / (S − 1), averaged
    over `prompts`. Groups are drawn without replacement, so that variances are those of S samples, not of the model:
    (1 − G/S) of them.
    """
    stream = torch.Generator().manual_seed(seed)
    rewards, log_probs, gradients = held.rewards[prompts], held.log_probs[prompts], held.gradients[prompts]
    size = rewards.shape[1]
    centred = rewards - rewards.mean(1, keepdim=True)
    truth = torch.einsum("bs,bsp->p", centred, gradients) / (size - 1) / len(prompts)
    w, _ = batch_weights(held.h[prompts], neighbours)
    estimates: dict[str, list[Tensor]] = {}
    advantages: dict[str, list[Tensor]] = {}
    for _ in range(replicates):
        chosen = torch.rand(rewards.shape, generator=stream).argsort(1)[:, :group_size]
        found = every_advantage(rewards.gather(1, chosen), log_probs.gather(1, chosen), w, lam)
        for name, a in found.items():
            spread = torch.zeros_like(rewards).scatter(1, chosen, a.double())
            estimates.setdefault(name, []).append(torch.einsum("bs,bsp->p", spread, gradients) / chosen.numel())
            advantages.setdefault(name, []).append(a)
    return {name: measured(torch.stack(estimates[name]), truth, torch.stack(advantages[name])) for name in estimates}


def simulate(
    mixes: Sequence[Mix] = get_args(Mix),
    group_sizes: Sequence[int] = GROUP_SIZES,
    worlds: int = 8,
    replicates: int = 50,
    neighbours: float = 4.0,
    lam: float = 1.0,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """The whole comparison: one row for each mix, group size and method; under a minute on one core as it
    stands.

    bias2, variance, alignment and advantage_size are means over worlds. over_X and over_X_se: the mean
    difference in alignment to reference X on the same draws, and its standard error between worlds.
    Raises ValueError for fewer than two worlds or replicates, which leave no error to report.
    """
    if worlds < 2 or replicates < 2:
        raise ValueError(f"worlds={worlds}, replicates={replicates}: an error needs at least two of each")
    rows = []
    for mix in mixes:
        places = [make_world(mix, seed + index) for index in range(worlds)]
        for size in group_sizes:
            found = [
                measure(place, size, replicates, seed + 7919 * (index + 1), neighbours, lam)
                for index, place in enumerate(places)
            ]
            rows += [_row(mix, size, name, found) for name in found[0]]
    return rows


def _row(mix: Mix, group_size: int, name: str, found: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """One method in one cell, averaged over worlds and set against the references world by world."""
    own = {key: _mean([one[name][key] for one in found]) for key in found[0][name]}
    row: dict[str, Any] = {"mix": mix, "group_size": group_size, "method": name, **own}
    for reference in REFERENCES:
        gains = [one[name]["alignment"] - one[reference]["alignment"] for one in found]
        row[f"over_{reference}"] = _mean(gains)
        row[f"over_{reference}_se"] = float(torch.tensor(gains).std()) / math.sqrt(len(gains))
    return row


def _mean(values: list[float]) -> float:
    """The mean; NaN as soon as one value is: a signal missing in one world is missing."""
    return sum(values) / len(values)


def verdicts(
    rows: Sequence[dict[str, Any]], method: str = "cgmn", reference: str = "grpo", errors: float = 3.0
) -> list[dict[str, Any]]:
    """For each mix and group size: does `method` align better than `reference`, by more than `errors` s.e.?

    verdict is helps, hurts or unclear. Raises ValueError for a reference outside REFERENCES or an unknown
    method.
    """
    if reference not in REFERENCES:
        raise ValueError(f"reference={reference!r}: choose one of {', '.join(REFERENCES)}")
    chosen = [row for row in rows if row["method"] == method]
    if not chosen:
        raise ValueError(f"method={method!r}: not among {', '.join(sorted({row['method'] for row in rows}))}")
    return [_verdict(row, reference, errors) for row in chosen]


def _verdict(row: dict[str, Any], reference: str, errors: float) -> dict[str, Any]:
    gain, error = row[f"over_{reference}"], row[f"over_{reference}_se"]
    clear = abs(gain) > errors * error
    verdict = "unclear" if not clear else "helps" if gain > 0 else "hurts"
    cell = {key: row[key] for key in ("mix", "group_size", "method")}
    return {**cell, "reference": reference, "gain": gain, "se": error, "verdict": verdict}


# ---------------------------------------------------------------------------------------------------- stored gradients


def sketch(values: Tensor, size: int, seed: int) -> Tensor:
    """Return signed sums of each row in `size` buckets: (N, D) -> (N, size), inner products kept on average."""
    stream = torch.Generator().manual_seed(seed)
    bucket = torch.randint(size, (values.shape[1],), generator=stream)
    sign = torch.randint(2, (values.shape[1],), generator=stream) * 2 - 1
    return torch.zeros(len(values), size).index_add_(1, bucket, values * sign)


def gradients_of(
    policy: Any, prompt: list[int], completions: list[list[int]], temperature: float, rank: int = 8
) -> Any:
    """Return Σ_t ln pi(y_t) of each completion, (N,), and its gradient by LoRA's B in the last layer, (N, D).

    For a module y = W x + B A x the gradient by B is Σ_t (∂/∂y_t) (A x_t)ᵀ, so that one backward pass serves all rows.
    Of the prompt only the last token has a part in it, so the rest is read once, for all rows.
    """
    from lib.sampling.scoring import padded

    kept: list[tuple[Tensor, Tensor]] = []

    def remember(module: Any, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
        stream = torch.Generator().manual_seed(len(kept))
        a = torch.randn(rank, arguments[0].shape[-1], generator=stream) / math.sqrt(arguments[0].shape[-1])
        output = output.detach().requires_grad_() if not output.requires_grad else output
        output.retain_grad()
        kept.append((arguments[0].detach().float() @ a.T, output))
        return output

    with torch.no_grad():
        read = policy(input_ids=torch.tensor([prompt[:-1]]), use_cache=True).past_key_values
    read.batch_repeat_interleave(len(completions))
    modules = (policy.model.layers[-1].self_attn.o_proj, policy.model.layers[-1].mlp.down_proj)
    hooks = [module.register_forward_hook(remember) for module in modules]
    ids, mask = padded([prompt[-1:] + completion for completion in completions], "right")
    seen = torch.cat([mask.new_ones(len(ids), len(prompt) - 1), mask], 1)
    with torch.enable_grad():
        logits = policy(input_ids=ids, attention_mask=seen, past_key_values=read).logits[:, :-1].float() / temperature
        tokens = logits.log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
        total = torch.where(mask[:, 1:].bool(), tokens, 0.0).sum(1)
        total.sum().backward()
    for hook in hooks:
        hook.remove()
    parts = [torch.einsum("nto,ntr->nor", y.grad.float(), x).flatten(1) for x, y in kept if y.grad is not None]
    return total.detach(), torch.cat(parts, 1)


def embedded(policy: Any, tokenizer: Any, tasks: Sequence[Any]) -> Tensor:
    """Return h of the tasks' own words, (B, d), as GMPO compares prompts by."""
    from lib.gmpo.policy import own_tokens, prompt_embeddings
    from lib.sampling import token_ids
    from lib.sampling.scoring import padded
    from lib.tasks.prompts import build_prompt

    prompts = [build_prompt(task, tokenizer) for task in tasks]
    own = torch.tensor([own_tokens(tokenizer, p.text, t.prompt) for p, t in zip(prompts, tasks, strict=True)])
    parts = []
    for first in range(0, len(prompts), 8):
        ends = own[first : first + 8, 1].tolist()  # what follows has no part in the states before it
        rows = [token_ids(tokenizer, p.text)[:end] for p, end in zip(prompts[first : first + 8], ends, strict=True)]
        parts.append(prompt_embeddings(policy, *padded(rows, "left"), 8, own[first : first + 8]))
    return torch.cat(parts)


def draw_and_grade(model: str, tasks: Sequence[Any], size: int) -> tuple[list[list[list[int]]], Tensor]:
    """Return `size` samples per task, as tokens, and their rewards by all tests, (B, size)."""
    from lib.sampling import SamplingParams, open_engine, sample
    from lib.sandbox import Sandbox
    from lib.tasks.prompts import build_prompt

    engine = open_engine(model)
    prompts = [build_prompt(task, engine.tokenizer) for task in tasks]
    drawn = sample(engine, prompts, size, SamplingParams(0.8, 1.0, 48))
    engine.close()
    jobs = [(t, p.program(c.text)) for t, p, row in zip(tasks, prompts, drawn, strict=True) for c in row]
    with Sandbox() as sandbox:
        rewards = [verdict.reward for verdict in sandbox.grade_many(jobs, tests="all")]
    return [[list(completion.token_ids) for completion in row] for row in drawn], torch.tensor(rewards).view(-1, size)


def write_arrays(path: Path, **arrays: Any) -> None:
    """Write a .npz that appears whole or not at all."""
    import io

    import numpy

    from lib.base.files import write_bytes

    content = io.BytesIO()
    numpy.savez_compressed(content, **arrays)
    write_bytes(path, content.getvalue())


def main() -> None:
    """Store what the study reads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("gradients", "embeddings"))
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--data", type=Path, default=ROOT / "data/external", help="for embeddings of BLP-2025's tasks")
    parser.add_argument("--out", type=Path, default=ROOT / "figures/studies")
    parser.add_argument("--tasks", type=int, default=500, help="whose embeddings are stored, drawn at random")
    parser.add_argument("--quick", action="store_true", help="two tasks, four samples each")
    options = parser.parse_args()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from lib.models.resolve import resolve
    from lib.sampling import token_ids
    from lib.tasks.prompts import build_prompt
    from lib.tasks.readers import read
    from lib.tasks.task import by_split, read_tasks

    folder, (size, count) = resolve(options.model), (4, 2) if options.quick else (64, 32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    policy = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval().requires_grad_(False)
    if options.what == "embeddings":
        tasks = read(options.data / "blp" / "test_v1.csv")
        order = torch.randperm(len(tasks), generator=torch.Generator().manual_seed(0)).tolist()
        tasks = [tasks[place] for place in sorted(order[: count if options.quick else options.tasks])]
        h = embedded(policy, tokenizer, tasks).numpy().astype("float16")
        write_arrays(options.out / "gmpo_embeddings.npz", task_ids=[task.task_id for task in tasks], h=h)
        return
    tasks = [task for task in by_split(read_tasks(ROOT / "data/starter_bn.jsonl"), "train") if task.tier <= 2]
    order = torch.randperm(len(tasks), generator=torch.Generator().manual_seed(0)).tolist()
    tasks = [tasks[place] for place in sorted(order[:count])]
    drawn, rewards = draw_and_grade(options.model, tasks, size)
    print(f"{rewards.mean():.1%} of {rewards.numel()} samples pass", flush=True)
    log_probs, gradients = [], []
    for task, row in zip(tasks, drawn, strict=True):
        question = token_ids(tokenizer, build_prompt(task, tokenizer).text)
        for first in range(0, size, 16):
            total, found = gradients_of(policy, question, row[first : first + 16], 0.8)
            log_probs.append(total)
            gradients.append(sketch(found, 512, 0))
        print(".", end="", flush=True)
    stored = torch.cat(gradients).view(count, size, -1)
    write_arrays(
        options.out / "gmpo_gradients.npz",
        task_ids=[task.task_id for task in tasks],
        rewards=rewards.numpy().astype("float32"),
        log_probs=torch.cat(log_probs).view(count, size).numpy(),
        h=embedded(policy, tokenizer, tasks).numpy().astype("float32"),
        gradients=(stored / stored.abs().max()).numpy().astype("float16"),
    )


if __name__ == "__main__":
    main()
