"""The K ablation on any task file: one pool of draws, every K from it, in figures/.

    python benchmarks/k_ablation.py --tasks data/external/blp/dev_v2.csv --take 100 --visible 1 --name dev_v2
    python benchmarks/k_ablation.py --tasks data/starter_bn.jsonl --split test --name starter_test

`--visible N` keeps a task's first N asserts as the visible ones, by which programs are selected, and holds the rest
back as hidden ones; a task with too few is left out. Sampling is that of preset cpu. Attempts are kept in --run-dir: a
second call draws only what is missing. Writes k_ablation_NAME.{csv,md,png,pdf} and manifest-k_ablation_NAME.json.
"""

import argparse
import dataclasses
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lib.base.files import write_json  # noqa: E402
from lib.base.progress import track  # noqa: E402
from lib.figures.mining import k_ablation  # noqa: E402
from lib.figures.style import save, set_style  # noqa: E402
from lib.mining.collect import Source, local_runner  # noqa: E402
from lib.mining.k_curve import Row, ablation, pools, table  # noqa: E402
from lib.mining.ledger import Ledger  # noqa: E402
from lib.run import doctor  # noqa: E402
from lib.run.presets import parameters  # noqa: E402
from lib.sampling import SamplingParams, open_engine  # noqa: E402
from lib.sandbox import Sandbox  # noqa: E402
from lib.tasks.readers import read  # noqa: E402
from lib.tasks.task import Task, by_split  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default=str(ROOT / "data/starter_bn.jsonl"))
    parser.add_argument("--split", help="only tasks of this split")
    parser.add_argument("--take", type=int, help="so many tasks, drawn with --seed")
    parser.add_argument("--visible", type=int, help="visible asserts a task; the others are held back as hidden ones")
    parser.add_argument("--name", default="starter")
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--ks", default="1,10,20,50,100")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run-dir", type=Path, default=ROOT / "runs/k_ablation")
    parser.add_argument("--out", type=Path, default=ROOT / "figures")
    parser.add_argument("--quick", action="store_true", help="4 tasks, 10 draws, written beside the attempts only")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()
    if options.quick:
        options.take, options.draws, options.ks, options.out = 4, 10, "1,5,10", options.run_dir
    tasks = chosen(options)
    rows = measured(tasks, options)
    write(rows, tasks, options)
    if options.json:
        named = [
            {"name": f"{row.quantity} {row.tests} K={row.k}", "value": row.value, "unit": row.unit} for row in rows
        ]
        print(json.dumps({"benchmark": "k_ablation", "rows": named, "ratios": {}}))
    else:
        print(table(rows))


def chosen(options: argparse.Namespace) -> list[Task]:
    """The tasks asked for, their asserts divided."""
    tasks = read(options.tasks)
    if options.split:
        tasks = by_split(tasks, options.split)
    if options.visible:
        tasks = [divided(task, options.visible) for task in tasks if len(task.tests("all")) > options.visible]
    return random.Random(options.seed).sample(tasks, options.take) if options.take else tasks


def divided(task: Task, visible: int) -> Task:
    """The task with its first asserts visible and the others hidden."""
    tests = task.tests("all")
    return dataclasses.replace(task, visible_tests=tests[:visible], hidden_tests=tests[visible:])


def measured(tasks: Sequence[Task], options: argparse.Namespace) -> list[Row]:
    """Draw, grade, count."""
    values = parameters("cpu")["02_mining"]
    sampled = SamplingParams(values["temperature"], 0.95, values["max_new_tokens"])
    greedy = dataclasses.replace(sampled, temperature=0.0)
    source = Source("k_ablation", "embedded", "", options.seed)
    ledger = Ledger(options.run_dir / f"{options.name}.jsonl")
    engine = open_engine("embedded")
    show = (lambda items, total: items) if options.json else track
    with Sandbox() as sandbox:
        run = local_runner(engine, sandbox)
        attempts = run(tasks, options.draws, ledger, params=sampled, source=source, progress=show)
        answers = run(tasks, 1, ledger, params=greedy, source=source, progress=show)
    engine.close()
    return ablation(pools(attempts, tasks), [int(k) for k in options.ks.split(",")], answers)


def write(rows: Sequence[Row], tasks: Sequence[Task], options: argparse.Namespace) -> None:
    """Figure, its numbers, the table in Markdown, and what they came from."""
    set_style()
    figure, data = k_ablation(rows)
    stem = options.out / f"k_ablation_{options.name}"
    save(figure, stem, data, f"K ablation, {options.name}: {len(tasks)} tasks, {options.draws} draws a task.")
    stem.with_suffix(".md").write_text(table(rows) + "\n", encoding="utf-8")
    manifest = {
        "command": {
            name: str(value) for name, value in sorted(vars(options).items()) if name not in ("out", "run_dir", "json")
        },
        "settings": parameters("cpu")["02_mining"],
        "task_ids": [task.task_id for task in tasks],
        "git": doctor.git_state(),
        "versions": doctor.versions(),
        "platform": doctor.platform_facts(),
    }
    write_json(options.out / f"manifest-k_ablation_{options.name}.json", manifest)


if __name__ == "__main__":
    main()
