"""What repair turns on the visible test add: each failing greedy answer of the stored pool is shown its failure.

    python benchmarks/repair.py [--answers figures/studies/k_pool] [--model coder] [--turns 1] [--tasks N] [--quick]
                                [--ledger runs/studies/repair.jsonl] [--out figures/studies/blp_repair.csv]

The first turn is the stored greedy answer to a BLP-2025 test task, one visible test in the prompt; the model then sees
how its program failed on that test, and answers again, greedily. Hidden tests decide nothing and are shown to nobody.
Every attempt is in the ledger, with its parent, so a second call goes on where the first was cut off. Writes one row
per task and turn: task_id, turn, visible and full (1 where all tests of the set pass).
"""

import argparse
import csv
import dataclasses
import gzip
import io
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lib.base.files import write_text  # noqa: E402
from lib.mining.collect import Source, attempt_all  # noqa: E402
from lib.mining.ledger import Attempt, Ledger  # noqa: E402
from lib.mining.repair import repair  # noqa: E402
from lib.sampling import Completion, Engine, Request, SamplingParams, open_engine  # noqa: E402
from lib.sandbox import Sandbox  # noqa: E402
from lib.tasks.prompts import build_prompt  # noqa: E402
from lib.tasks.readers import read  # noqa: E402

GREEDY = SamplingParams(temperature=0.0, max_new_tokens=192)


class Stored:
    """An engine that answers with what is stored, by the text of the prompt."""

    name = "stored"

    def __init__(self, engine: Engine, answers: dict[str, str]) -> None:
        self.tokenizer, self.context_length, self._answers = engine.tokenizer, engine.context_length, answers

    def stream(self, requests: Iterable[Request], settings: SamplingParams) -> Iterator[tuple[Request, Completion]]:
        """Return the stored completions. Raises KeyError for a prompt without one."""
        for request in requests:
            text = self._answers[request.text]
            ids = tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])
            yield request, Completion(text, ids, True)

    def close(self) -> None:
        """Nothing is open."""


def main() -> None:
    """Grade the stored answers, repair what fails, and write a row per task and turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=Path, default=ROOT / "figures" / "studies" / "k_pool")
    parser.add_argument("--model", default="coder")
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--tasks", type=int, help="the first so many; default: all 500")
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "external")
    parser.add_argument("--ledger", type=Path, default=ROOT / "runs" / "studies" / "repair.jsonl")
    parser.add_argument("--out", type=Path, default=ROOT / "figures" / "studies" / "blp_repair.csv")
    parser.add_argument("--quick", action="store_true", help="6 tasks")
    options = parser.parse_args()
    tasks = read(options.data / "blp" / "test_full.csv")[: 6 if options.quick else options.tasks]
    tasks = [dataclasses.replace(task, show_tests=1) for task in tasks]
    with gzip.open(options.answers / "greedy.jsonl.gz", "rt", encoding="utf-8") as text:
        rows = [json.loads(line) for line in text]
    texts = {row["task_id"]: row["samples"][0][0] for row in rows if (row["set"], row["show_tests"]) == ("blp", 1)}
    engine = open_engine(options.model)
    prompts = [build_prompt(task, engine.tokenizer) for task in tasks]
    stored = Stored(engine, {prompt.text: texts[prompt.task_id] for prompt in prompts})
    options.ledger.parent.mkdir(parents=True, exist_ok=True)
    ledger, source = Ledger(options.ledger), Source("repair", options.model, "", 0)
    try:
        with Sandbox() as sandbox:
            first = attempt_all(tasks, 1, ledger, engine=stored, sandbox=sandbox, params=GREEDY, source=source)
            last = {one.task_id: one for one in first}
            found: list[tuple[int, Attempt]] = [(0, one) for one in first]
            for turn in range(1, options.turns + 1):
                again = repair(tasks, list(last.values()), 1, ledger, engine=engine, sandbox=sandbox, params=GREEDY,
                               source=source)  # fmt: skip
                last |= {one.task_id: one for one in again}
                found += [(turn, one) for one in last.values()]
                passed = [sum(one.visible_ok for one in last.values()), sum(one.solved for one in last.values())]
                print(f"turn {turn}: {len(again)} answers; of {len(tasks)} pass visible, all: {passed}", flush=True)
    finally:
        engine.close()
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["task_id", "turn", "visible", "full"])
    writer.writerows([one.task_id, turn, int(one.visible_ok), int(one.solved)] for turn, one in found)
    write_text(options.out, out.getvalue())


if __name__ == "__main__":
    main()
