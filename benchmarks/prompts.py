"""Choose what a prompt shows, on training and development tasks only: greedy answers with and without a visible test.

    python benchmarks/prompts.py [--model coder] [--tasks 100] [--out figures/studies/prompts.csv] [--quick]

Arms: one visible test (`show_tests = 1`), none, all of the visible ones, and one test without the model's chat
template. Tasks are the first so many of BLP-2025's dev set that do not overlap with its test set for `coder` models,
the starter tasks' training split for `embedded`. All arms answer the same tasks; each is compared with one visible
test, paired over tasks, on all tests of the task. Prints samples per second, too. Nothing of a test split is read.
"""

import argparse
import csv
import dataclasses
import io
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.common import machine  # noqa: E402
from benchmarks.rsft_controls import dev_tasks  # noqa: E402
from lib.base.files import write_text  # noqa: E402
from lib.sampling import Engine, SamplingParams, open_engine, sample  # noqa: E402
from lib.sandbox import Sandbox  # noqa: E402
from lib.stats.intervals import wilson_interval  # noqa: E402
from lib.stats.paired import compare  # noqa: E402
from lib.tasks.prompts import Prompt, build_prompt, question  # noqa: E402
from lib.tasks.task import Task, by_split, read_tasks  # noqa: E402

NEW_TOKENS = 192
ARMS = {"one test": 1, "no test": 0, "all visible tests": 99, "one test, no chat template": 1}


def chosen_tasks(model: str, data: Path, count: int) -> list[Task]:
    """Return development or training tasks that suit the model."""
    if model == "embedded":
        starter = read_tasks(ROOT / "data" / "starter_bn.jsonl")
        return [task for task in by_split(starter, "train") if task.mode == "function"][:count]
    return dev_tasks(data)[:count]


def prompt_of(arm: str, task: Task, engine: Engine) -> Prompt:
    """Return the prompt of one arm."""
    shown = dataclasses.replace(task, show_tests=ARMS[arm])
    prompt = build_prompt(shown, engine.tokenizer)
    if "no chat template" in arm:
        prompt = dataclasses.replace(prompt, text=f"{question(shown)}\n\n{prompt.prefill}")
    return prompt


def main() -> None:
    """Sample, grade, compare, and write one row per arm."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="coder")
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "external")
    parser.add_argument("--out", type=Path, default=ROOT / "figures" / "studies" / "prompts.csv")
    parser.add_argument("--quick", action="store_true", help="4 tasks")
    options = parser.parse_args()
    tasks = chosen_tasks(options.model, options.data, 4 if options.quick else options.tasks)
    params, solved, seconds = SamplingParams(temperature=0.0, max_new_tokens=NEW_TOKENS), {}, {}
    engine = open_engine(options.model)
    try:
        sample(engine, [prompt_of("one test", tasks[0], engine)], 1, params)  # the engine is up
        with Sandbox() as sandbox:
            for arm in ARMS:
                prompts, started = [prompt_of(arm, task, engine) for task in tasks], time.perf_counter()
                drawn = sample(engine, prompts, 1, params)
                seconds[arm] = time.perf_counter() - started
                programs = [prompt.program(one[0].text) for prompt, one in zip(prompts, drawn, strict=True)]
                verdicts = sandbox.grade_many(zip(tasks, programs, strict=True), tests="all")
                solved[arm] = [verdict.status == "success" for verdict in verdicts]
    finally:
        engine.close()
    rows = []
    for arm, passed in solved.items():
        lo, hi = wilson_interval(sum(passed), len(passed))
        row = {"model": options.model, "arm": arm, "n_tasks": len(tasks), "rate": sum(passed) / len(passed)}
        row |= {"lo": lo, "hi": hi, "samples_per_s": len(tasks) / seconds[arm]}
        if arm != "one test":
            found = compare(passed, solved["one test"])
            row |= {"difference": found.difference, "d_lo": found.lo, "d_hi": found.hi, "p": found.p_permutation}
        rows.append(row)
        print(", ".join(f"{key} {value:.4g}" if isinstance(value, float) else str(value) for key, value in row.items()))
    text = io.StringIO()
    writer = csv.DictWriter(text, [*rows[1]], lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    write_text(options.out, text.getvalue())
    print(machine())


if __name__ == "__main__":
    main()
