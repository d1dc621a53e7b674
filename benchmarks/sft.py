"""Compare fine-tuning through Unsloth with plain TRL + PEFT on the same rows: tokens per second and peak memory.

    python benchmarks/sft.py [--quick] [--json]

Each run is a process of its own; lanes take turns (A B B A). Rows are the starter tasks' references, settings those of
preset cpu with fewer steps. Time is that of the training loop, without imports and loading; tokens are without padding.
Memory is the process's largest resident set, on a GPU the most that torch allocated.
"""

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.common import apart, sft_settings, show, spread  # noqa: E402

LANES = ("unsloth", "trl")


def data(tokenizer: Any) -> list[dict[str, str]]:
    """A row for every starter training task whose reference passes and begins as the prompt does."""
    from lib.sandbox import Sandbox
    from lib.tasks.task import by_split, read_tasks
    from lib.training.sft import examples
    from lib.training.training_set import references

    tasks = by_split(read_tasks(ROOT / "data/starter_bn.jsonl"), "train")
    with Sandbox() as sandbox:
        return examples(references(tasks, tokenizer, sandbox)[0], tasks, tokenizer)


def through_unsloth(steps: int, folder: Path) -> Any:
    """The workbook's own trainer."""
    from lib.training.sft import trainer  # before transformers, which unsloth patches

    # isort: split
    from transformers import AutoTokenizer

    from lib.models.resolve import resolve

    tokenizer = AutoTokenizer.from_pretrained(resolve("embedded"))
    return trainer.build("embedded", data(tokenizer), folder, sft_settings(steps=steps))[0]


def through_trl(steps: int, folder: Path, rows: list[dict[str, str]] | None = None) -> Any:
    """TRL and PEFT as their documentation has them; rows, their order and the 8-bit AdamW are the same."""
    import bitsandbytes
    import torch
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq, PrinterCallback
    from trl import SFTConfig, SFTTrainer

    from lib.models.precision import precision, torch_dtype
    from lib.models.resolve import resolve
    from lib.training.sft import batch_order, within_length

    wanted, source, cuda = sft_settings(steps=steps), resolve("embedded"), torch.cuda.is_available()
    tokenizer = AutoTokenizer.from_pretrained(source)
    base = AutoModelForCausalLM.from_pretrained(source, dtype=torch_dtype())
    lora = LoraConfig(
        r=wanted.lora_rank, lora_alpha=wanted.lora_alpha, lora_dropout=wanted.lora_dropout,
        target_modules=list(wanted.target_modules), task_type="CAUSAL_LM",
    )  # fmt: skip
    model = get_peft_model(base, lora)
    encoded, _ = within_length(data(tokenizer) if rows is None else rows, tokenizer, wanted.max_length)
    lengths = [len(row["input_ids"]) for row in encoded]
    order = batch_order(lengths, wanted.batch_size, steps * wanted.gradient_accumulation, wanted.seed)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = bitsandbytes.optim.AdamW8bit(
        weights, lr=wanted.learning_rate, weight_decay=wanted.weight_decay, min_8bit_size=1
    )
    arguments = SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=wanted.batch_size,
        gradient_accumulation_steps=wanted.gradient_accumulation,
        max_steps=steps,
        learning_rate=wanted.learning_rate,
        warmup_steps=round(wanted.warmup_ratio * steps),
        lr_scheduler_type=wanted.scheduler,
        max_length=wanted.max_length,
        dataset_kwargs={"skip_prepare_dataset": True},
        train_sampling_strategy="sequential",
        logging_steps=1,
        gradient_checkpointing=cuda,
        save_strategy="no",
        report_to="none",
        seed=wanted.seed,
        use_cpu=not cuda,
        bf16=cuda and precision() == "bf16",
        fp16=cuda and precision() == "fp16",
        disable_tqdm=True,
    )
    trainer = SFTTrainer(
        model=model, args=arguments, train_dataset=Dataset.from_list([encoded[row] for row in order]),
        processing_class=tokenizer, data_collator=DataCollatorForSeq2Seq(tokenizer), optimizers=(optimizer, None),
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    return trainer


def measure(lane: str, steps: int) -> dict[str, float]:
    """One run in this process."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = {"unsloth": through_unsloth, "trl": through_trl}[lane](steps, Path(folder))
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
    import torch

    tokens = sum(map(len, trainer.train_dataset["input_ids"]))
    memory = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return {
        "tokens/s": tokens / seconds,
        "memory": (memory or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024) / 1e9,
        "last loss": losses[-1],
        "tokens": tokens,
    }


def main() -> None:
    """Print a table, or with --json one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="2 steps, each lane once; its figures are rough")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--lane", choices=LANES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.lane:
        print(json.dumps(measure(options.lane, options.steps)))
        return
    steps, turns = (2, LANES) if options.quick else (options.steps, (*LANES, *reversed(LANES)))
    runs: dict[str, list[dict[str, float]]] = {lane: [] for lane in LANES}
    for lane in turns:
        runs[lane].append(apart(__file__, "--lane", lane, "--steps", str(steps)))
    middle = {
        lane: {name: statistics.mean(run[name] for run in runs[lane]) for name in runs[lane][0]} for lane in LANES
    }
    units = {"tokens/s": "tokens/s", "memory": "GB", "last loss": "nats a token", "tokens": "tokens"}
    rows = [
        {"name": f"{lane}, {name}", "value": round(middle[lane][name], 3), "unit": unit}
        for lane in LANES
        for name, unit in units.items()
    ]
    lanes = {name: [[run[name] for run in runs[lane]] for lane in LANES] for name in ("tokens/s", "memory")}
    ratios = {f"{name}, unsloth/trl": round(middle["unsloth"][name] / middle["trl"][name], 3) for name in lanes}
    between = {f"{name}, unsloth/trl": spread(*both) for name, both in lanes.items()}
    show({"benchmark": "sft", "rows": rows, "ratios": ratios, "spread": between}, options.json)


if __name__ == "__main__":
    main()
