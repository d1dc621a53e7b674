"""Sample a pool of answers to the public benchmarks on a GPU, and grade it afterwards on a CPU.

    python benchmarks/k_pool.py sample --model coder --out pool [--data data/external] [--only NAME …] [--quick]
    python benchmarks/k_pool.py grade --answers pool --out verdicts.csv.gz [--data data/external]
    python benchmarks/k_pool.py failures --answers pool --out figures

`sample` needs no sandbox. It writes one gzipped JSON Lines file per set, whole or not at all, and goes on after the
last one that is there: greedy answers, ten samples per task, and a pool of 100 samples per BLP-2025 test task in
slices of 20. A line is one task: {"set", "show_tests", "task_id", "digest" of the prompt's text, "prefill", "samples":
[[text, tokens, ln q], …]}.

`grade` writes one row per sample: set, show_tests, task_id, sample, tokens, logprob, visible and full (the status of
the visible tests and of all of them; those of BLP-2025 are the published hidden suite's). `failures` draws Troopers'
Figure 3 from the greedy answers.
"""

import argparse
import csv
import dataclasses
import gzip
import io
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import pandas  # noqa: E402

from lib.base.files import write_bytes  # noqa: E402
from lib.evaluation.failures.taxonomy import classify  # noqa: E402
from lib.evaluation.scores import NO_TYPE  # noqa: E402
from lib.figures.style import save, set_style  # noqa: E402
from lib.papers import troopers  # noqa: E402
from lib.sampling import Engine, Request, SamplingParams, open_engine, sample_seed  # noqa: E402
from lib.sandbox import Sandbox  # noqa: E402
from lib.tasks.prompts import Prompt, build_prompt  # noqa: E402
from lib.tasks.readers import read  # noqa: E402
from lib.tasks.task import Task, by_split, read_tasks  # noqa: E402

TEMPERATURE, TOP_P, NEW_TOKENS = 0.8, 0.95, 192
SLICE, SLICES = 20, 5
MULTIPL_E = {"lua": "lua", "r": "r", "ocaml": "ml"}
SEED = 0


@dataclasses.dataclass(frozen=True)
class Part:
    """Samples `first` to `first` + `draws` − 1 of every task of a set, with `show` visible tests in the prompt; 0
    draws: greedy.
    """

    tasks: str
    show: int
    draws: int
    first: int = 0


GREEDY = [Part("blp", 1, 0), Part("blp", 0, 0), Part("mbpp", 1, 0), Part("mbpp", 0, 0)]
GREEDY += [Part(name, 1, 0) for name in (*MULTIPL_E, "starter", "programs")] + [Part("starter", 0, 0)]
TEN = [Part(name, 1, 10) for name in ("mbpp", *MULTIPL_E, "starter", "programs")] + [Part("blp", 0, 10)]
FILES = {"greedy": GREEDY, "ten": TEN}
FILES |= {f"pool-{first:03}": [Part("blp", 1, SLICE, first)] for first in range(0, SLICE * SLICES, SLICE)}


def load(name: str, data: Path) -> list[Task]:
    """Return the tasks of one set."""
    if name == "starter":
        return by_split(read_tasks(ROOT / "data" / "starter_bn.jsonl"), "test")
    if name == "programs":
        posed = by_split(read_tasks(ROOT / "data" / "starter_io.jsonl"), "test")
        return [task.in_language(language) for task in posed for language in ("lua", "r", "ocaml", "fortran")]
    if name == "blp":
        return read(data / "blp" / "test_v1.csv")
    if name == "mbpp":
        return by_split(read(data / "mbpp" / "mbpp.jsonl"), "test")
    tasks = read(data / "multipl_e" / f"humaneval-{MULTIPL_E[name]}-reworded.jsonl")
    return [dataclasses.replace(task, task_id=f"{task.task_id}:{name}") for task in tasks]


# --------------------------------------------------------------------------------------------------------------- sample


def lines(engine: Engine, part: Part, tasks: list[Task], new_tokens: int) -> Iterator[dict[str, Any]]:
    """Draw one part's samples, a task's one after another so that its prompt is read once, and yield a line per
    task.
    """
    params = SamplingParams(TEMPERATURE if part.draws else 0.0, TOP_P, new_tokens, logprobs=True)
    prompts = [build_prompt(dataclasses.replace(task, show_tests=part.show), engine.tokenizer) for task in tasks]
    draws = range(part.first, part.first + max(1, part.draws))
    requests = (
        Request((place, draw), prompt.text, prompt.stops, sample_seed(SEED, prompt.task_id, draw), prompt.prefill)
        for place, prompt in enumerate(prompts)
        for draw in draws
    )
    found = {request.key: completion for request, completion in engine.stream(requests, params)}
    for place, prompt in enumerate(prompts):
        drawn = [found[place, draw] for draw in draws]
        samples = [[c.text, c.n_tokens, round(c.logprob_sum or 0.0, 3)] for c in drawn]
        yield {"set": part.tasks, "show_tests": part.show, "task_id": prompt.task_id, "digest": prompt.digest,
               "prefill": prompt.prefill, "stops": prompt.stops, "first": part.first, "samples": samples}  # fmt: skip


def sample(options: argparse.Namespace) -> None:
    """Write the files that are missing."""
    engine = open_engine(options.model, engine="transformers")
    for name in options.only or FILES:
        path = options.out / f"{name}.jsonl.gz"
        if path.is_file():
            continue
        started, rows = time.perf_counter(), []
        for part in FILES[name]:
            if options.quick and part.draws:
                part = dataclasses.replace(part, draws=4)
            tasks = load(part.tasks, options.data)[: 2 if options.quick else None]
            rows += lines(engine, part, tasks, 8 if options.quick else NEW_TOKENS)
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_bytes(path, gzip.compress(text.encode(), 9))
        seconds, tokens = time.perf_counter() - started, sum(drawn[1] for row in rows for drawn in row["samples"])
        count = sum(len(row["samples"]) for row in rows)
        print(
            f"{path.name}: {count} samples, {tokens} tokens, {seconds:.1f} s, {tokens / seconds:.0f} tokens/s",
            flush=True,
        )
    engine.close()


# ---------------------------------------------------------------------------------------------------------------- grade


def grade(options: argparse.Namespace) -> None:
    """Grade every distinct program once and write a row per sample."""
    rows = []
    for path in sorted(options.answers.glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as text:
            rows += [json.loads(line) for line in text]
    tasks = {name: {task.task_id: task for task in load(name, options.data)} for name in {row["set"] for row in rows}}
    suite = {task.task_id: task for task in read(options.data / "blp" / "test_full.csv")}
    programs = []
    for row in rows:
        prompt = Prompt(row["task_id"], row["prefill"], row["prefill"], tuple(row["stops"]))
        programs.append([prompt.program(text) for text, *_ in row["samples"]])
    jobs: dict[tuple[str, str, str], tuple[Task, str]] = {}
    for row, written in zip(rows, programs, strict=True):
        for which in ("visible", "full"):
            task = tasks[row["set"]][row["task_id"]]
            if which == "full" and row["set"] == "blp":
                task = suite[row["task_id"]]
            if which == "full" or task.visible_tests:
                jobs |= {(which, row["task_id"], program): (task, program) for program in written}
    verdicts: dict[tuple[str, str, str], str] = {}
    with Sandbox() as sandbox:
        for which, tests in (("visible", "visible"), ("full", "all")):
            keys = [key for key in jobs if key[0] == which]
            graded = sandbox.grade_many([jobs[key] for key in keys], tests=tests)  # type: ignore[arg-type]
            verdicts |= {key: str(verdict.status) for key, verdict in zip(keys, graded, strict=True)}
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["set", "show_tests", "task_id", "sample", "greedy", "tokens", "logprob", "visible", "full"])
    for row, written in zip(rows, programs, strict=True):
        greedy = int(len(row["samples"]) == 1)
        for index, (program, (_, tokens, log_prob)) in enumerate(zip(written, row["samples"], strict=True)):
            seen = [verdicts.get((which, row["task_id"], program), "") for which in ("visible", "full")]
            cells = [row["set"], row["show_tests"], row["task_id"], row["first"] + index, greedy]
            writer.writerow([*cells, tokens, log_prob, *seen])
    text = out.getvalue().encode()
    write_bytes(options.out, gzip.compress(text, 9) if options.out.suffix == ".gz" else text)


# ------------------------------------------------------------------------------------------------------------- failures


def failures(options: argparse.Namespace) -> None:
    """Draw Troopers' Figure 3 from the greedy answers to the BLP test tasks, one visible test shown, on all tests."""
    with gzip.open(options.answers / "greedy.jsonl.gz", "rt", encoding="utf-8") as text:
        rows = [json.loads(line) for line in text]
    rows = [row for row in rows if (row["set"], row["show_tests"]) == ("blp", 1)]
    suite = {task.task_id: task for task in read(options.data / "blp" / "test_full.csv")}
    jobs = []
    for row in rows:
        prompt = Prompt(row["task_id"], row["prefill"], row["prefill"], tuple(row["stops"]))
        jobs.append((suite[row["task_id"]], prompt.program(row["samples"][0][0])))
    with Sandbox() as sandbox:
        verdicts = sandbox.grade_many(jobs, tests="all")
    counted = [(task, program, verdict) for (task, program), verdict in zip(jobs, verdicts, strict=True)
               if verdict.status != "unsupported-test"]  # fmt: skip
    labels = [classify(*one) for one in counted if one[2].status != "success"]
    found = [str(label.troopers_type or NO_TYPE) for label in labels]
    types = pandas.DataFrame({"model": "Qwen2.5-Coder-0.5B", "troopers_type": found})
    set_style()
    figure, data = troopers.failure_types(types, {"Qwen2.5-Coder-0.5B": (len(counted), 1)})
    words = (
        f"Failures by Troopers' four types: {len(labels)} of {len(counted)} greedy answers to the BLP-2025 test tasks, "
        "one visible assert shown, full suite; rules: data/failure_criteria.md; bars: Wilson 95 % over tasks."
    )
    save(figure, options.out / "troopers_figure_3", data, words)


def main() -> None:
    """Sample, grade or draw failures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for run, name in ((sample, "sample"), (grade, "grade"), (failures, "failures")):
        command = commands.add_parser(name)
        command.set_defaults(run=run)
        command.add_argument(
            "--data", type=Path, default=ROOT / "data" / "external", help="public data (data/external)"
        )
        command.add_argument("--out", type=Path, required=True)
        if run is not sample:
            command.add_argument("--answers", type=Path, required=True, help="the folder that `sample` wrote")
            continue
        command.add_argument("--model", default="coder")
        command.add_argument("--only", nargs="+", choices=FILES, help="these files alone")
        command.add_argument(
            "--quick", action="store_true", help="two tasks, four samples and eight tokens of each set"
        )
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
