"""Compare the CPU engine with transformers' `generate(num_return_sequences=K)`: samples per second and pass rates.

    python benchmarks/sampling.py [--quick] [--json] [--samples N] [--adapter FOLDER]

Same prompts, temperature 0.8, top-p 0.95 and up to 64 new tokens on all cores, for the base model and with a LoRA
adapter, at K = 10 and K = 50. The two take turns on every slice of the prompts, each goes first on every other slice,
and a ratio is the median over slices: a machine that is busy with something else is busy for both.

`generate` gets what it does best with: one prompt at a time, prefilled once a batch of K, the faster of bf16 and fp32
(tried first), a stop as soon as every row has met one of the stops that our engine stops at. Its adapter stays apart
from the weights, as ours does; "generate, merged" holds our rate with the adapter against its rate without one. Speed
does not depend on an adapter's values: without --adapter it has small random ones, which change the answers a little.

The price of `deterministic` is the time of the same 120 samples with it and without.

Pass rates are of the starter tasks' visible tests. Draws for one task go together, so their difference is paired over
tasks, each task counting alike, with a 95 % BCa bootstrap interval over tasks.
"""

import argparse
import dataclasses
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, StoppingCriteria

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.common import show, spread  # noqa: E402
from lib.models.resolve import resolve  # noqa: E402
from lib.sampling import SamplingParams, open_engine, sample  # noqa: E402
from lib.sampling.encoding import Encoder, tail_length  # noqa: E402
from lib.sampling.openvino import FEW  # noqa: E402
from lib.sandbox import Sandbox  # noqa: E402
from lib.stats.paired import compare  # noqa: E402
from lib.tasks.prompts import Prompt, build_prompt  # noqa: E402
from lib.tasks.task import Task, read_tasks  # noqa: E402

SETTINGS = SamplingParams(temperature=0.8, top_p=0.95, max_new_tokens=64)
DRAWS = (10, 50)
SLICE = 250  # samples a slice: twice what the engine has in flight, as in mining it is never without requests
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
Row = dict[str, Any]
Sampler = Callable[[Sequence[Prompt], int, int], list[list[tuple[str, int]]]]  # prompts, K, seed -> (text, tokens)


def row(name: str, value: float, unit: str) -> Row:
    """One line of the result."""
    return {"name": name, "value": float(f"{value:.4g}"), "unit": unit}


# ------------------------------------------------------------------------------------------------------- samplers


class Ends(StoppingCriteria):
    """A row is over once it has drawn an end token, or its newest tokens hold one of its stop strings.

    `lengths` holds how many tokens each row had drawn by then, 0 while it is not over.
    """

    def __init__(self, encoder: Encoder, stops: list[tuple[str, ...]], prompt_length: int) -> None:
        self.encoder, self.stops, self.prompt_length = encoder, stops, prompt_length
        self.tail = max(map(tail_length, stops))
        self.lengths = [0] * len(stops)

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        drawn = input_ids.shape[1] - self.prompt_length
        newest = input_ids[:, input_ids.shape[1] - min(drawn, max(1, self.tail)) :]
        tails = self.encoder.tokenizer.batch_decode(newest)
        for row, (last, tail, stops) in enumerate(zip(newest[:, -1].tolist(), tails, self.stops, strict=True)):
            if not self.lengths[row] and (last in self.encoder.end_ids or any(stop in tail for stop in stops)):
                self.lengths[row] = drawn
        return torch.tensor([length > 0 for length in self.lengths], device=input_ids.device)


@contextmanager
def ours(model: str, adapter: str | None, deterministic: bool = False) -> Iterator[Sampler]:
    """lib.sampling's engine on the CPU."""
    engine = open_engine(model, adapter, "openvino", deterministic=deterministic)

    def draw(prompts: Sequence[Prompt], k: int, seed: int) -> list[list[tuple[str, int]]]:
        return [[(c.text, c.n_tokens) for c in drawn] for drawn in sample(engine, prompts, k, SETTINGS, seed)]

    try:
        yield draw
    finally:
        engine.close()


@contextmanager
def generate(model: str, adapter: str | None, dtype: torch.dtype, how: SamplingParams = SETTINGS) -> Iterator[Sampler]:
    """transformers' `generate`, one prompt at a time; the memory is free once the caller has let go of the sampler."""
    folder = resolve(model)
    encoder = Encoder(folder)
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    if adapter is not None:
        from peft import PeftModel

        network = PeftModel.from_pretrained(network, adapter).to(dtype).eval()  # peft would keep the adapter in fp32

    @torch.inference_mode()
    def one(prompt: Prompt, k: int) -> list[tuple[str, int]]:
        ids = torch.tensor([encoder.tokenizer(prompt.text, add_special_tokens=False)["input_ids"]])
        ends = Ends(encoder, [prompt.stops] * k, ids.shape[1])
        drawing = {"temperature": how.temperature, "top_p": how.top_p, "top_k": 0} if how.temperature else {}
        output = network.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=bool(drawing), num_return_sequences=k,
            max_new_tokens=how.max_new_tokens, stopping_criteria=[ends],
            eos_token_id=sorted(encoder.end_ids), pad_token_id=encoder.tokenizer.pad_token_id, **drawing,
        )  # fmt: skip
        drawn = output[:, ids.shape[1] :].tolist()
        kept = [tokens[: length or len(tokens)] for tokens, length in zip(drawn, ends.lengths, strict=True)]
        return [(encoder.tokenizer.decode(tokens, skip_special_tokens=True), len(tokens)) for tokens in kept]

    def draw(prompts: Sequence[Prompt], k: int, seed: int) -> list[list[tuple[str, int]]]:
        torch.manual_seed(seed)
        return [one(prompt, k) for prompt in prompts]

    yield draw


def faster_dtype(model: str, prompt: Prompt, tokens: int) -> tuple[torch.dtype, list[Row]]:
    """The dtype in which `generate` is faster on this machine, the base model at K = 10, and both rates."""
    rates = {}
    for dtype in (torch.bfloat16, torch.float32):
        with generate(model, None, dtype, dataclasses.replace(SETTINGS, max_new_tokens=tokens)) as draw:
            draw([prompt], 2, 0)
            started = time.perf_counter()
            draw([prompt], 10, 0)
            rates[dtype] = 10 / (time.perf_counter() - started)
    rows = [row(f"generate in {dtype}, {tokens} tokens", rate, "samples/s") for dtype, rate in rates.items()]
    return max(rates, key=rates.__getitem__), rows


def random_adapter(model: str, folder: str) -> str:
    """A LoRA adapter of rank 16 on all seven projections with small random values."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(resolve(model), dtype=torch.float32)
    network = get_peft_model(base, LoraConfig(r=16, lora_alpha=32, target_modules=list(TARGETS)))
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=1e-3)
    network.save_pretrained(folder)
    return folder


# ----------------------------------------------------------------------------------------------------- measurement


class Arm:
    """One model (base or adapter) at one K: what both samplers took and drew, slice by slice."""

    def __init__(self, name: str, k: int) -> None:
        self.name, self.k = name, k
        self.seconds: dict[str, list[float]] = {"ours": [], "generate": []}
        self.drawn: dict[str, list[tuple[Task, Prompt, str, int]]] = {"ours": [], "generate": []}

    def measure(
        self, samplers: dict[str, Sampler], tasks: Sequence[Task], prompts: Sequence[Prompt], first: int
    ) -> None:
        """One slice by both, the one numbered `first` (modulo two) first."""
        order = list(samplers) if first % 2 == 0 else list(samplers)[::-1]
        for name in order:
            started = time.perf_counter()
            answers = samplers[name](prompts, self.k, first)
            self.seconds[name].append(time.perf_counter() - started)
            for task, prompt, completions in zip(tasks, prompts, answers, strict=True):
                self.drawn[name] += [(task, prompt, text, tokens) for text, tokens in completions]

    def rate(self, name: str) -> float:
        """Samples a second over all slices."""
        return len(self.drawn[name]) / sum(self.seconds[name])

    def ratios(self) -> list[float]:
        """How many times as fast ours is, a number a slice."""
        return [theirs / mine for mine, theirs in zip(self.seconds["ours"], self.seconds["generate"], strict=True)]

    def rows(self) -> Iterator[Row]:
        """Rates and the length of what was drawn."""
        label = f"{self.name}, K={self.k}"
        for name in self.seconds:
            yield row(f"{label}: {name}", self.rate(name), "samples/s")
            yield row(f"{label}: {name}, mean length", statistics.mean(d[3] for d in self.drawn[name]), "tokens")


def slices(tasks: Sequence[Task], k: int, samples: int) -> Iterator[list[Task]]:
    """Tasks, as many as give `samples` at `k` draws each, a slice's worth at a time."""
    wanted = max(1, round(samples / k))
    each = max(1, SLICE // k)
    chosen = list(tasks[:wanted])
    return (chosen[start : start + each] for start in range(0, len(chosen), each))


def price(model: str, prompts: Sequence[Prompt]) -> tuple[list[Row], float]:
    """What `deterministic` costs: samples a second with it and without, and how many times as long it takes."""
    rates = {}
    for deterministic in (False, True):
        with ours(model, None, deterministic) as draw:
            draw(prompts[:1], FEW + 1, 1)  # starts as many processes as the samples below
            started = time.perf_counter()
            drawn = draw(prompts, 10, 0)
            rates[deterministic] = sum(map(len, drawn)) / (time.perf_counter() - started)
    rows = [row(f"{'' if on else 'not '}deterministic, K=10", rate, "samples/s") for on, rate in rates.items()]
    return rows, round(rates[False] / rates[True], 2)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Every arm, then the verdicts."""
    tasks = [task for task in read_tasks(ROOT / "data/starter_bn.jsonl") if task.mode == "function"]
    random.Random(0).shuffle(tasks)
    draws = DRAWS[:1] if options.quick else DRAWS
    samples = 20 if options.quick else options.samples
    tokenizer = Encoder(resolve(options.model)).tokenizer
    warm = build_prompt(tasks[-1], tokenizer)
    dtype, rows = faster_dtype(options.model, warm, 8 if options.quick else 32)
    arms: list[Arm] = []
    with tempfile.TemporaryDirectory() as folder:
        adapter = options.adapter or random_adapter(options.model, folder)
        for name, weights in (("base", None), ("adapter", adapter)):
            with ours(options.model, weights) as mine, generate(options.model, weights, dtype) as theirs:
                samplers = {"ours": mine, "generate": theirs}
                for sampler in samplers.values():
                    sampler([warm], 2, 0)
                rest = tasks
                for k in draws:
                    arm = Arm(name, k)
                    arms.append(arm)
                    for number, part in enumerate(slices(rest, k, samples // len(draws))):
                        arm.measure(samplers, part, [build_prompt(task, tokenizer) for task in part], number)
                    rest = rest[round(samples / len(draws) / k) :]  # prompts that no cache has seen
    rows += [line for arm in arms for line in arm.rows()]
    rows += quality(arms)
    between = {
        f"ours/generate, {arm.name}, K={arm.k}": spread(arm.seconds["generate"], arm.seconds["ours"]) for arm in arms
    }
    some = [build_prompt(task, tokenizer) for task in tasks[: 2 if options.quick else 12]]
    priced, times = price(options.model, some)
    found = ratios(arms) | {"deterministic, times as long": times}
    return {"benchmark": "sampling", "rows": rows + priced, "ratios": found, "spread": between}


def ratios(arms: Sequence[Arm]) -> dict[str, float]:
    """Median over slices, and the adapter against weights that it is merged into."""
    found = {f"ours/generate, {arm.name}, K={arm.k}": statistics.median(arm.ratios()) for arm in arms}
    base = {arm.k: arm.rate("generate") for arm in arms if arm.name == "base"}
    merged = {
        f"ours/generate, adapter merged, K={arm.k}": arm.rate("ours") / base[arm.k]
        for arm in arms
        if arm.name == "adapter"
    }
    return {name: round(value, 2) for name, value in (found | merged).items()}


def quality(arms: Sequence[Arm]) -> Iterator[Row]:
    """Pass rates on visible tests, and their difference paired over tasks, over all K together."""
    with Sandbox() as sandbox:
        for name in dict.fromkeys(arm.name for arm in arms):
            by_task: dict[str, list[float]] = {}
            for sampler in ("ours", "generate"):
                drawn = [one for arm in arms if arm.name == name for one in arm.drawn[sampler]]
                verdicts = sandbox.grade_many(
                    [(task, prompt.program(text)) for task, prompt, text, _ in drawn], tests="visible"
                )
                passed: dict[str, list[bool]] = {}
                for (task, *_), verdict in zip(drawn, verdicts, strict=True):
                    passed.setdefault(task.task_id, []).append(verdict.status == "success")
                by_task[sampler] = [statistics.mean(some) for some in passed.values()]
                share = sum(verdict.status == "success" for verdict in verdicts) / len(verdicts)
                yield row(f"{name}: {sampler} passes", 100 * share, f"% of {len(verdicts)} draws")
            found = compare(by_task["ours"], by_task["generate"])
            for what, value in (("", found.difference), (", from", found.lo), (", to", found.hi)):
                yield row(
                    f"{name}: ours − generate, mean of {len(by_task['ours'])} tasks{what}",
                    100 * value,
                    "percentage points",
                )


def main() -> None:
    """Print a table, or with --json one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--quick", action="store_true", help="K = 10 and 20 samples an arm, under a minute")
    parser.add_argument(
        "--samples", type=int, default=1200, metavar="N", help="by each sampler for each model, over all K"
    )
    parser.add_argument("--adapter", metavar="FOLDER", help="a PEFT LoRA adapter for the model")
    parser.add_argument("--model", default="embedded")
    options = parser.parse_args()
    show(measure(options), options.json)


if __name__ == "__main__":
    main()
