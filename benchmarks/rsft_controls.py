"""Does selection by running help? Fine-tune on equal numbers of passing, unverified and failing samples, on a GPU.

    python benchmarks/rsft_controls.py mine --out DIR [--model coder] [--quick]
    python benchmarks/rsft_controls.py train ARM --out DIR [--seeds 0 1 2]      # adapters DIR/ARM-seed0 …
    python benchmarks/rsft_controls.py answer ARM --out DIR [--seeds 0 1 2]     # DIR/ARM-seed0.jsonl.gz …
    python benchmarks/rsft_controls.py grade --answers DIR --out verdicts.csv.gz

`mine` draws K = 20 samples per task of the BLP-2025 dev set, without the tasks that overlap with the test set, and runs
them against all tests of the task: DIR/mined.jsonl.gz, one line per distinct program. `train` takes ROWS of them:

- passing: programs that pass every test (RSFT);
- unverified: samples whatever became of them, as in simple self-distillation (arXiv 2604.01193), at the temperature of
  mining;
- failing: programs that compile and fail a test.

Rows are taken task by task in turn, so that no task fills an arm; the seed chooses them and orders them. `answer`
draws a greedy answer and four samples per BLP-2025 test task, each file whole or not at all; ARM `base` is the
untrained model (`--seeds 0`). `grade` runs them against the visible tests and the published full suite.

The choices (rows, steps, learning rate, one shown test) are those of preset colab and were fixed before any answer to a
test task was graded; nothing is tuned on them. Training is plain PEFT with torch's AdamW on the rows, order and labels
of lib.training.sft; Unsloth's start-up would take longer than the training.
"""

import argparse
import csv
import dataclasses
import gzip
import io
import json
import math
import random
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.k_pool import Part, lines  # noqa: E402
from lib.base.files import write_bytes  # noqa: E402
from lib.decontamination import check_split  # noqa: E402
from lib.sampling import Request, SamplingParams, open_engine, sample_seed  # noqa: E402
from lib.sandbox import Sandbox  # noqa: E402
from lib.tasks.prompts import Prompt, build_prompt  # noqa: E402
from lib.tasks.readers import read  # noqa: E402
from lib.tasks.task import Task  # noqa: E402

ARMS = ("passing", "unverified", "failing")
BASE = "base"  # the untrained model: answers, one seed
K, TEMPERATURE, TOP_P, NEW_TOKENS = 20, 0.8, 0.95, 192
ROWS, STEPS, BATCH, LEARNING_RATE = 480, 60, 8, 2e-4
DRAWS = 4  # samples per test task beside the greedy answer
SEED = 0


def dev_tasks(data: Path) -> list[Task]:
    """Return the BLP-2025 dev tasks that do not overlap with the test set, with one test shown."""
    dev = read(data / "blp" / "dev_v2.csv")
    overlap = set(check_split(dev, read(data / "blp" / "test_full.csv"), allow_overlap=True).train_ids)
    return [dataclasses.replace(task, show_tests=1) for task in dev if task.task_id not in overlap]


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write gzipped JSON Lines, whole or not at all."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_bytes(path, gzip.compress(text.encode(), 9))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a gzipped JSON Lines file."""
    with gzip.open(path, "rt", encoding="utf-8") as text:
        return [json.loads(line) for line in text]


# ----------------------------------------------------------------------------------------------------------------- mine


def mine(options: argparse.Namespace) -> None:
    """Draw, run and write {"task_id", "program", "count", "status"}, one line per distinct program."""
    path = options.out / "mined.jsonl.gz"
    if path.is_file():
        return
    started = time.perf_counter()
    tasks, draws = dev_tasks(options.data), K
    if options.quick:
        tasks, draws = tasks[:4], 2
    engine = open_engine(options.model, engine="transformers")
    params = SamplingParams(TEMPERATURE, TOP_P, 24 if options.quick else NEW_TOKENS)
    prompts = [build_prompt(task, engine.tokenizer) for task in tasks]
    requests = (
        Request((place, draw), prompt.text, prompt.stops, sample_seed(SEED, prompt.task_id, draw), prompt.prefill)
        for place, prompt in enumerate(prompts)
        for draw in range(draws)
    )
    counts: dict[tuple[int, str], int] = {}
    for request, completion in engine.stream(requests, params):
        key = (request.key[0], prompts[request.key[0]].program(completion.text))
        counts[key] = counts.get(key, 0) + 1
    engine.close()
    drawn = time.perf_counter() - started
    jobs = sorted(counts)
    with Sandbox() as sandbox:
        verdicts = sandbox.grade_many([(tasks[place], program) for place, program in jobs])
    rows = [
        {"task_id": tasks[job[0]].task_id, "program": job[1], "count": counts[job], "status": str(verdict.status)}
        for job, verdict in zip(jobs, verdicts, strict=True)
    ]
    write_lines(path, rows)
    passing = [row for row in rows if row["status"] == "success"]
    solved = len({row["task_id"] for row in passing})
    print(
        f"mined {sum(counts.values())} samples of {len(tasks)} tasks in {drawn:.0f} s, graded in "
        f"{time.perf_counter() - started - drawn:.0f} s: {len(rows)} programs, {len(passing)} pass, {solved} tasks",
        flush=True,
    )


# ---------------------------------------------------------------------------------------------------------------- train


@dataclasses.dataclass(frozen=True)
class Chosen:
    """A program to train on."""

    task_id: str
    program: str


def choose(rows: list[dict[str, Any]], arm: str, seed: int, most: int = ROWS) -> list[Chosen]:
    """Return at most `most` programs of an arm, task by task in turn, in an order that the seed fixes.

    An unverified sample is drawn as often as the model drew it; passing and failing programs count once.
    """
    chooser = random.Random(f"{arm} {seed}")
    per_task: dict[str, list[str]] = {}
    for row in rows:
        passes = row["status"] == "success"
        if arm == "unverified" or passes == (arm == "passing") and (passes or _compiles(row["program"])):
            copies = row["count"] if arm == "unverified" else 1
            per_task.setdefault(row["task_id"], []).extend([row["program"]] * copies)
    for programs in per_task.values():
        chooser.shuffle(programs)
    chosen: list[Chosen] = []
    while len(chosen) < most and any(per_task.values()):
        turn = [task_id for task_id, programs in per_task.items() if programs]
        chooser.shuffle(turn)
        chosen += [Chosen(task_id, per_task[task_id].pop()) for task_id in turn[: most - len(chosen)]]
    return chosen


def _compiles(program: str) -> bool:
    try:
        compile(program, "<program>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def train(options: argparse.Namespace) -> None:
    """Fine-tune a LoRA adapter per seed, and write it with its rows and losses."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, get_cosine_schedule_with_warmup

    from lib.models.adapters import save_adapter
    from lib.models.precision import torch_dtype
    from lib.models.resolve import resolve
    from lib.training.sft.rows import batch_order, encode, examples
    from lib.training.sft.settings import TARGET_MODULES

    device = "cuda" if torch.cuda.is_available() else "cpu"
    folder, tasks = resolve(options.model), dev_tasks(options.data)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    mined = read_lines(options.out / "mined.jsonl.gz")
    steps = 3 if options.quick else STEPS
    for seed in options.seeds:
        adapter = options.out / f"{options.arm}-seed{seed}"
        if adapter.is_dir():
            continue
        started = time.perf_counter()
        chosen = choose(mined, options.arm, seed)
        if not chosen:
            print(f"{options.arm}: no rows; the arm is left out", flush=True)
            return
        rows = [encode(row, tokenizer) for row in examples(chosen, tasks, tokenizer)]
        torch.manual_seed(seed)
        base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch_dtype(), attn_implementation="eager")
        lora = LoraConfig(r=16, lora_alpha=32, target_modules=list(TARGET_MODULES), task_type="CAUSAL_LM")
        model = get_peft_model(base.to(device), lora).train()
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, weight_decay=0.01)
        schedule = get_cosine_schedule_with_warmup(optimizer, round(0.1 * steps), steps)
        order = batch_order([len(row["input_ids"]) for row in rows], BATCH, steps, seed)
        losses = []
        for step in range(steps):
            batch = [rows[place] for place in order[step * BATCH : (step + 1) * BATCH]]
            longest = max(len(row["input_ids"]) for row in batch)
            pad = {"input_ids": tokenizer.pad_token_id, "labels": -100}
            made = {
                name: torch.tensor([row[name] + [fill] * (longest - len(row[name])) for row in batch], device=device)
                for name, fill in pad.items()
            }
            mask = torch.tensor(
                [[1] * len(row["input_ids"]) + [0] * (longest - len(row["input_ids"])) for row in batch], device=device
            )
            loss = model(**made, attention_mask=mask).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.detach())
        values = [round(float(loss), 4) for loss in losses]
        if not all(map(math.isfinite, values)):
            print(f"{adapter.name}: the loss is not a number; nothing was saved", flush=True)
            continue
        save_adapter(model, tokenizer, adapter)
        seconds = time.perf_counter() - started
        record = {"arm": options.arm, "seed": seed, "rows": len(chosen), "losses": values, "seconds": round(seconds, 1)}
        record |= {"tasks": len({row.task_id for row in chosen}), "tokens": sum(len(row["input_ids"]) for row in rows)}
        write_bytes(options.out / f"{adapter.name}.json", (json.dumps(record) + "\n").encode())
        print(f"{adapter.name}: {len(chosen)} rows, loss {values[0]} to {values[-1]}, {seconds:.0f} s", flush=True)
        del base, model, optimizer


# --------------------------------------------------------------------------------------------------------------- answer


def answer(options: argparse.Namespace) -> None:
    """Write every seed's greedy answers, then every seed's samples."""
    tasks, tokens = read(options.data / "blp" / "test_v1.csv"), NEW_TOKENS
    if options.quick:
        tasks, tokens = tasks[:4], 16
    for draws, kind in ((0, "greedy"), (DRAWS, "samples")):
        for seed in options.seeds:
            path = options.out / f"{options.arm}-seed{seed}-{kind}.jsonl.gz"
            adapter = options.out / f"{options.arm}-seed{seed}"
            if path.is_file() or not (adapter.is_dir() or options.arm == BASE):
                continue
            started = time.perf_counter()
            engine = open_engine(options.model, None if options.arm == BASE else str(adapter), "transformers")
            part = Part("blp", 1, draws)
            rows = [row | {"arm": options.arm, "seed": seed} for row in lines(engine, part, tasks, tokens)]
            engine.close()
            write_lines(path, rows)
            count = sum(len(row["samples"]) for row in rows)
            print(f"{path.name}: {count} samples, {time.perf_counter() - started:.0f} s", flush=True)


def grade(options: argparse.Namespace) -> None:
    """Grade every distinct program once and write a row per sample."""
    rows = [row for path in sorted(options.answers.glob("*-seed*.jsonl.gz")) for row in read_lines(path)]
    sides = {"visible": "test_v1.csv", "full": "test_full.csv"}
    tasks = {name: {t.task_id: t for t in read(options.data / "blp" / file)} for name, file in sides.items()}
    written = []
    for row in rows:
        prompt = Prompt(row["task_id"], row["prefill"], row["prefill"], tuple(row["stops"]))
        written.append([prompt.program(text) for text, *_ in row["samples"]])
    distinct = sorted(
        {(row["task_id"], program) for row, programs in zip(rows, written, strict=True) for program in programs}
    )
    verdicts: dict[str, dict[tuple[str, str], str]] = {}
    with Sandbox() as sandbox:
        for name in sides:
            graded = sandbox.grade_many([(tasks[name][task_id], program) for task_id, program in distinct])
            verdicts[name] = {key: str(verdict.status) for key, verdict in zip(distinct, graded, strict=True)}
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["arm", "seed", "task_id", "sample", "greedy", "tokens", "logprob", "visible", "full"])
    for row, programs in zip(rows, written, strict=True):
        for index, (program, (_, tokens, log_prob)) in enumerate(zip(programs, row["samples"], strict=True)):
            seen = [verdicts[name][row["task_id"], program] for name in sides]
            cells = [row["arm"], row["seed"], row["task_id"], index, int(len(row["samples"]) == 1)]
            writer.writerow([*cells, tokens, log_prob, *seen])
    text = out.getvalue().encode()
    write_bytes(options.out, gzip.compress(text, 9) if options.out.suffix == ".gz" else text)


def main() -> None:
    """Mine, train, answer or grade."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for run in (mine, train, answer, grade):
        command = commands.add_parser(run.__name__)
        command.set_defaults(run=run)
        command.add_argument(
            "--data", type=Path, default=ROOT / "data" / "external", help="public data (data/external)"
        )
        command.add_argument("--out", type=Path, required=True)
        if run is grade:
            command.add_argument("--answers", type=Path, required=True, help="the folder that `answer` wrote to")
            continue
        if run is not mine:
            command.add_argument("arm", choices=ARMS if run is train else (*ARMS, BASE))
            command.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
        command.add_argument("--model", default="coder")
        command.add_argument("--quick", action="store_true", help="a few tasks and tokens, to see that it runs")
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
