"""A training step of GMPO beside TRL's plain GRPOTrainer, and what its advantages cost of one.

    python benchmarks/gmpo_step.py [--quick] [--json]

Lanes, each in a process of its own, in turn (A B C C B A):

    trl    GRPOTrainer with its own sampling, advantages and loss
    same   GMPO in the same trainer with the same sampling
    fast   GMPO with completions from lib.sampling's engine; saving the adapter and opening the engine are counted

A step is one sampled batch and its `num_iterations` updates; the first one of a run, which warms everything up, is not
counted. Prompts, adapter, batch, precision and rewards (every second completion is right, nothing is executed) are the
same in all lanes, and completions end at the end token alone: mean lengths are printed so that anyone can see they
agree.

The advantages' time is for B = 64, G = 16, d = 4096, every estimator and diagnostic included, CPU time on one thread.
The step it is divided by is the one timed here, many times smaller than a step of 64 prompts would be: the share is an
upper bound.
"""

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.common import apart, show, spread  # noqa: E402

LANES = ("trl", "same", "fast")
TASKS = 24


def config_of(quick: bool, folder: Path) -> Any:
    """Preset cpu's, for three batches in shuffled order; in miniature with `quick`."""
    from lib.gmpo.run import run_config
    from lib.run.presets import parameters

    values = parameters("cpu")["04_gmpo"]
    same = ("num_iterations", "prompts_per_batch", "group_size", "neighbours", "learning_rate", "temperature")
    fields = {name: values[name] for name in same}
    fields |= {"steps": 3, "max_completion_length": values["max_new_tokens"], "output_dir": str(folder)}
    small = {"steps": 2, "prompts_per_batch": 2, "group_size": 4, "max_completion_length": 16, "neighbours": 1.5}
    return run_config(**fields | (small if quick else {}))


def start(folder: Path) -> Path:
    """An untrained adapter with the fine-tuning's ranks, the same every time."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from lib.models.resolve import resolve
    from lib.training.sft import SftSettings

    lora, adapter = SftSettings(), folder / "start"
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(resolve("embedded"), dtype="auto")
    config = LoraConfig(
        r=lora.lora_rank, lora_alpha=lora.lora_alpha, target_modules=list(lora.target_modules), task_type="CAUSAL_LM"
    )
    get_peft_model(base, config).save_pretrained(adapter)
    return adapter


def every_second(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """A reward that costs nothing."""
    return [float(place % 2) for place in range(len(completion_ids))]


def build(lane: str, wanted: Any, folder: Path) -> Any:
    """A lane's trainer, ready to run."""
    from datasets import Dataset
    from transformers import AutoTokenizer, PrinterCallback
    from trl import GRPOTrainer

    from lib.gmpo.policy import load_policy
    from lib.gmpo.run import make_trainer, order_of
    from lib.models.resolve import resolve
    from lib.tasks.prompts import build_prompt
    from lib.tasks.task import by_split, read_tasks

    tokenizer = AutoTokenizer.from_pretrained(resolve("embedded"))
    tasks = by_split(read_tasks(ROOT / "data/starter_bn.jsonl"), "train")[:TASKS]
    prompts = [dataclasses.replace(build_prompt(task, tokenizer), stops=()) for task in tasks]
    adapter = start(folder)
    if lane != "trl":
        trainer = make_trainer("embedded", adapter, prompts, wanted, every_second, batch_order="shuffled")
        if lane == "same":
            trainer.rollout_func = None
        return trainer
    order = order_of(wanted, [range(len(prompts))])
    trainer = GRPOTrainer(
        load_policy("embedded", adapter, wanted.device), every_second, wanted,
        Dataset.from_list([{"prompt": prompts[place].text} for place in order]), processing_class=tokenizer,
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    return trainer


def measure(lane: str, quick: bool) -> dict[str, float]:
    """Seconds a step after the first, and the completions' mean length, of one run in this process."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]
        """When updates ended."""

        ends: list[float] = []

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        wanted = config_of(quick, Path(folder) / lane)
        trainer = build(lane, wanted, Path(folder))
        trainer.add_callback(Clock)
        trainer.train()
    done = Clock.ends[wanted.num_iterations - 1 :: wanted.num_iterations]
    lengths = [row["completions/mean_length"] for row in trainer.state.log_history if "completions/mean_length" in row]
    return {"step": (done[-1] - done[0]) / (len(done) - 1), "length": statistics.mean(lengths[1:])}


def advantages(repeats: int) -> dict[str, float]:
    """Median CPU seconds on one thread from rewards, log-probabilities and embeddings to advantages and diagnostics."""
    import torch

    from lib.gmpo.batch import all_advantages, batch_diagnostics, batch_weights

    torch.set_num_threads(1)
    stream, times = torch.Generator().manual_seed(0), list[float]()
    h = torch.randn(64, 4096, generator=stream)
    rewards = (torch.rand(64, 16, generator=stream) < 0.3).float()
    log_probs = -100 * torch.rand(64, 16, generator=stream)
    for _ in range(repeats + 1):
        began = time.process_time()
        w, _ = batch_weights(h, 4.0)
        by_name, parts = all_advantages(rewards, log_probs, w, lam=0.5)
        batch_diagnostics(rewards, log_probs, -log_probs, by_name, parts)
        times.append(time.process_time() - began)
    return {"advantages": statistics.median(times[1:])}


def main() -> None:
    """Print a table, or with --json one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small batches, each lane once; its figures are rough")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--lane", choices=(*LANES, "advantages"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.lane:
        repeats = 5 if options.quick else 50
        print(json.dumps(advantages(repeats) if options.lane == "advantages" else measure(options.lane, options.quick)))
        return
    quick = ["--quick"] if options.quick else []
    runs: dict[str, list[dict[str, float]]] = {lane: [] for lane in LANES}
    for lane in LANES if options.quick else (*LANES, *reversed(LANES)):
        runs[lane].append(apart(__file__, "--lane", lane, *quick))
    mean = {lane: {name: statistics.mean(run[name] for run in runs[lane]) for name in runs[lane][0]} for lane in LANES}
    cost, step = (
        apart(__file__, "--lane", "advantages", *quick)["advantages"],
        {lane: mean[lane]["step"] for lane in LANES},
    )
    rows = [
        {"name": f"{lane}, {name}", "value": round(mean[lane][name], 3), "unit": unit}
        for lane in LANES
        for name, unit in (("step", "s"), ("length", "tokens a completion"))
    ]
    rows.append({"name": "advantages, B=64 G=16 d=4096", "value": round(1000 * cost, 3), "unit": "ms"})
    ratios = {
        "step time, same sampling, ours/trl": round(step["same"] / step["trl"], 3),
        "step speed, fast sampling, ours/trl": round(step["trl"] / step["fast"], 3),
        "advantages of 64 prompts/a step timed here": round(cost / step["fast"], 5),
    }
    steps = {lane: [run["step"] for run in runs[lane]] for lane in LANES}
    between = {
        "step time, same sampling, ours/trl": spread(steps["same"], steps["trl"]),
        "step speed, fast sampling, ours/trl": spread(steps["trl"], steps["fast"]),
    }
    show({"benchmark": "gmpo_step", "rows": rows, "ratios": ratios, "spread": between}, options.json)


if __name__ == "__main__":
    main()
