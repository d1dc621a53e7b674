"""One round of reward-selective fine-tuning from start to end, the workbook beside plain transformers + TRL.

    python benchmarks/end_to_end.py [--quick] [--json]

Lanes, each in a process of its own, in turn (A B B A):

    ours    lib: the CPU engine, the sandbox, the Unsloth lane, ledgers of every attempt
    plain   transformers' `generate` a prompt at a time, a fresh interpreter a candidate, TRL's SFTTrainer

Both draw K programs for the same training tasks, keep at most four distinct ones a task that pass every test, fine-tune
on them with the same settings for the same number of steps, and answer the same held-out tasks, greedily and by draws,
with the adapter. Seconds are wall time a stage, loading the model and opening engines included, imports not. The lanes'
draws differ, so winners and rates agree only as far as chance lets them; both are printed.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.common import apart, sft_settings, show, spread  # noqa: E402

MODEL, LANES, STAGES = "embedded", ("ours", "plain"), ("mine", "tune", "answer")
FULL = {"tasks": 24, "draws": 16, "steps": 10, "held_out": 24, "answers": 10}
QUICK = {"tasks": 3, "draws": 4, "steps": 1, "held_out": 2, "answers": 2}
WINNERS, TEMPERATURE, ANSWERS_TEMPERATURE, TOKENS = 4, 0.8, 0.2, 64


class Winner(NamedTuple):
    """A program for a task."""

    task_id: str
    program: str


def tasks_of(sizes: dict[str, int]) -> tuple[list[Any], list[Any]]:
    """The easiest training tasks, so that there are winners to train on, and the first held-out ones."""
    from lib.tasks.task import by_split, read_tasks

    tasks = read_tasks(ROOT / "data/starter_bn.jsonl")
    train = sorted(by_split(tasks, "train"), key=lambda task: task.tier)
    return train[: sizes["tasks"]], by_split(tasks, "test")[: sizes["held_out"]]


def ours(sizes: dict[str, int], folder: Path) -> dict[str, float]:
    """Seconds a stage, winners and held-out rate of the workbook."""
    from lib.training.sft import trainer  # noqa: F401  # before transformers, which unsloth patches

    # isort: split
    from transformers import AutoTokenizer

    from lib.mining.answers import passed_matrix, sample_answers
    from lib.mining.collect import Source, local_runner
    from lib.mining.ledger import Ledger
    from lib.mining.select import select_winners
    from lib.models.adapters import adapter_name
    from lib.models.resolve import resolve
    from lib.sampling import SamplingParams, open_engine
    from lib.sandbox import Sandbox
    from lib.training.rounds import RoundSettings, mine
    from lib.training.sft import examples, train_once

    (train, test), clock = tasks_of(sizes), [time.perf_counter()]
    plan = RoundSettings(
        num_samples=sizes["draws"], winners_per_task=WINNERS, sampling=SamplingParams(TEMPERATURE, 0.95, TOKENS)
    )
    with Sandbox() as sandbox:
        mined = mine(MODEL, None, train, Ledger(folder / "mining.jsonl"), settings=plan, sandbox=sandbox)
        winners = select_winners(mined, WINNERS, 0)
        clock.append(time.perf_counter())
        rows = examples(winners, train, AutoTokenizer.from_pretrained(resolve(MODEL)))
        train_once(MODEL, rows, folder / "adapter", sft_settings(steps=sizes["steps"]))
        clock.append(time.perf_counter())
        engine = open_engine(MODEL, str(folder / "adapter"))
        source = Source("end_to_end", MODEL, adapter_name(folder / "adapter"), 0)
        given = sample_answers(
            test,
            sizes["answers"],
            Ledger(folder / "answers.jsonl"),
            attempt=local_runner(engine, sandbox),
            temperature=ANSWERS_TEMPERATURE,
            max_new_tokens=TOKENS,
            source=source,
        )
        engine.close()
    clock.append(time.perf_counter())
    rate = float(passed_matrix(given["draws"], test, "all").mean())
    return stages(clock) | {"winners": len(winners), "mined": sum(a.solved for a in mined) / len(mined), "rate": rate}


def plain(sizes: dict[str, int], folder: Path) -> dict[str, float]:
    """The same of what one writes from the libraries' documentation."""
    import random

    import peft  # noqa: F401  # their imports belong to no stage
    from transformers import AutoTokenizer
    from trl import SFTTrainer  # noqa: F401

    from benchmarks import sampling, sft
    from lib.models.resolve import resolve
    from lib.sampling import SamplingParams
    from lib.tasks.prompts import build_prompt
    from lib.training.sft import examples

    (train, test), tokenizer = tasks_of(sizes), AutoTokenizer.from_pretrained(resolve(MODEL))
    dtype, _ = sampling.faster_dtype(MODEL, build_prompt(train[0], tokenizer), 16)  # before the clock starts
    clock = [time.perf_counter()]

    def attempts(tasks: list[Any], k: int, adapter: str | None, temperature: float) -> list[Any]:
        prompts = [build_prompt(task, tokenizer) for task in tasks]
        with sampling.generate(MODEL, adapter, dtype, SamplingParams(temperature, 0.95, TOKENS)) as draw:
            drawn = draw(prompts, k, 0)
        programs = [(t, p.program(text)) for t, p, some in zip(tasks, prompts, drawn, strict=True) for text, _ in some]
        return [(task, program, passes(task, program)) for task, program in programs]

    mined = attempts(train, sizes["draws"], None, TEMPERATURE)
    winners = []
    for task in train:
        distinct = sorted({program for one, program, passed in mined if one is task and passed})
        winners += [Winner(task.task_id, one) for one in random.Random(0).sample(distinct, min(WINNERS, len(distinct)))]
    clock.append(time.perf_counter())
    trainer = sft.through_trl(sizes["steps"], folder / "trainer", examples(winners, train, tokenizer))
    trainer.train()
    trainer.model.save_pretrained(folder / "adapter")
    clock.append(time.perf_counter())
    attempts(test, 1, str(folder / "adapter"), 0.0)
    given = attempts(test, sizes["answers"], str(folder / "adapter"), ANSWERS_TEMPERATURE)
    clock.append(time.perf_counter())
    rates = {name: sum(passed for *_, passed in some) / len(some) for name, some in (("mined", mined), ("rate", given))}
    return stages(clock) | {"winners": len(winners)} | rates


def passes(task: Any, program: str) -> bool:
    """Does a fresh interpreter get through every assert?"""
    source = "\n".join([task.setup_code, program, *task.tests("all")])
    try:
        done = subprocess.run(
            [sys.executable, "-c", source], timeout=task.time_limit_s, capture_output=True, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def stages(clock: list[float]) -> dict[str, float]:
    """{stage: seconds}, and all together."""
    found = {name: end - start for name, start, end in zip(STAGES, clock, clock[1:], strict=False)}
    return found | {"whole": clock[-1] - clock[0]}


def main() -> None:
    """Print a table, or with --json one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three tasks, each lane once; its figures are rough")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--lane", choices=LANES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.lane:
        with tempfile.TemporaryDirectory() as folder:
            print(
                json.dumps({"ours": ours, "plain": plain}[options.lane](QUICK if options.quick else FULL, Path(folder)))
            )
        return
    runs: dict[str, list[dict[str, float]]] = {lane: [] for lane in LANES}
    for lane in LANES if options.quick else (*LANES, *reversed(LANES)):
        runs[lane].append(apart(__file__, "--lane", lane, *["--quick"] * options.quick))
    show(report(runs), options.json)


def report(runs: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Means over the runs of each lane, and how many times as fast ours is, stage by stage."""
    units = dict.fromkeys((*STAGES, "whole"), "s") | {
        "winners": "rows",
        "mined": "share solved",
        "rate": "share solved",
    }
    rows: list[dict[str, Any]] = [
        {"name": f"{lane}, {name}", "unit": unit, "value": round(statistics.mean(run[name] for run in runs[lane]), 4),
         "runs": [round(run[name], 4) for run in runs[lane]]}
        for lane in LANES
        for name, unit in units.items()
    ]  # fmt: skip
    timed = {
        name: tuple([run[name] for run in runs[lane]] for lane in ("plain", "ours")) for name in (*STAGES, "whole")
    }
    ratios = {
        f"speed, {name}, ours/plain": statistics.mean(plain) / statistics.mean(ours)
        for name, (plain, ours) in timed.items()
    }
    between = {f"speed, {name}, ours/plain": spread(*both) for name, both in timed.items()}
    return {
        "benchmark": "end_to_end",
        "rows": rows,
        "ratios": {name: round(ratio, 3) for name, ratio in ratios.items()},
        "spread": between,
    }


if __name__ == "__main__":
    main()
