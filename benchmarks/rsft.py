"""RSFT and its controls on the starter tasks' test split, hidden tests: the same size, the same steps, several seeds.

    python benchmarks/rsft.py [--quick] [--json] [--seeds 0,1,2] [--arms …]
    python benchmarks/rsft.py --warm-start [--quick] [--json]
    python benchmarks/rsft.py --blp [--quick] [--json]

Arms, all trained from the base with preset cpu's settings:

    rsft-1          winners: at most 4 a task, none twice, drawn at random among those that pass every test
    rsft-2          the same from both rounds, the second mined by rsft-1
    random-winners  as many of all passing draws, without cap and with repeats
    failing-draws   as many draws that compile and fail, of the same tasks as far as these have them
    references      as many reference solutions that pass, of the same tasks first, repeated where there are too few

Everything is kept under --run-dir, a ledger and an adapter folder an arm: a second call does only what is missing.
Writes rsft_arms.{csv,md,png,pdf} and manifest-rsft_arms.json to --out. `--warm-start` trains on references of the
program tasks in Lua, R, OCaml and Fortran instead and measures the held-out ones before and after; it writes
rsft_warm_start.* likewise. `--blp` mines the public BLP-2025 development tasks that the split guard lets pass and
measures the 500 test tasks on their two hidden asserts: rsft_blp.*.
"""

import argparse
import contextlib
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

with contextlib.redirect_stdout(sys.stderr):
    import unsloth  # noqa: F401  # before transformers, which it patches; it prints

# isort: split
import numpy
import pandas

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from transformers import AutoTokenizer  # noqa: E402

from benchmarks.common import sft_settings  # noqa: E402
from benchmarks.controls import equally_many, failing_draws, random_winners  # noqa: E402
from lib.base.files import write_json  # noqa: E402
from lib.base.progress import track  # noqa: E402
from lib.decontamination import check_split  # noqa: E402
from lib.figures.style import save, set_style  # noqa: E402
from lib.mining.answers import passed_matrix, sample_answers  # noqa: E402
from lib.mining.collect import Source, local_runner  # noqa: E402
from lib.mining.ledger import Attempt, Ledger  # noqa: E402
from lib.mining.select import select_winners  # noqa: E402
from lib.models.adapters import adapter_name  # noqa: E402
from lib.models.card import read_facts  # noqa: E402
from lib.models.resolve import resolve  # noqa: E402
from lib.run import doctor  # noqa: E402
from lib.run.presets import parameters  # noqa: E402
from lib.sampling import SamplingParams, open_engine  # noqa: E402
from lib.sandbox import Sandbox, languages  # noqa: E402
from lib.stats.intervals import wilson_interval  # noqa: E402
from lib.stats.paired import compare  # noqa: E402
from lib.stats.pass_at_k import pass_at_k_per_task  # noqa: E402
from lib.tasks import readers as corpora  # noqa: E402
from lib.tasks.task import Task, by_split, read_tasks  # noqa: E402
from lib.training.rounds import RoundSettings, mine, round_metrics  # noqa: E402
from lib.training.sft import SftSettings, Solution, examples, train_once  # noqa: E402
from lib.training.training_set import references  # noqa: E402

MODEL = "embedded"
ARMS = ("rsft-1", "rsft-2", "random-winners", "failing-draws", "references")
AGAINST = ("base", "random-winners", "failing-draws")
LANGUAGES = ("lua", "r", "ocaml", "fortran")
WARM_TOKENS, WARM_ANSWERS = 192, 5  # a program is longer than a function; draws a held-out task
BLP_DRAWS, BLP_TOKENS, BLP_ANSWERS = 10, 96, 5  # K, the longest program, draws a test task
Answers = dict[str, list[Attempt]]


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is drawn, trained and asked."""

    mining: RoundSettings
    sft: SftSettings
    draws: int
    temperature: float
    max_new_tokens: int


def preset_sizes(seed: int, quick: bool) -> Sizes:
    """Preset cpu's; in miniature with `quick`."""
    preset = parameters("cpu")
    mining, evaluation = preset["02_mining"], preset["05_evaluation"]
    sft = sft_settings(seed=3407 + seed)
    plan = RoundSettings(
        num_samples=4 if quick else mining["draws"],
        winners_per_task=mining["winners_per_task"],
        sampling=SamplingParams(mining["temperature"], 0.95, mining["max_new_tokens"]),
        seed=seed,
    )
    if quick:
        sft = dataclasses.replace(sft, steps=2, gradient_accumulation=1)
    return Sizes(
        plan, sft, 4 if quick else evaluation["draws"], evaluation["temperature"], evaluation["max_new_tokens"]
    )


# ------------------------------------------------------------------------------------------------------------ arms


def run_seed(seed: int, arms: Sequence[str], tasks: Sequence[Task], options: argparse.Namespace) -> dict[str, Answers]:
    """{arm: its answers to the test tasks}, the base first."""
    folder, sizes = options.run_dir / f"seed{seed}", preset_sizes(seed, options.quick)
    train, test = (sample(by_split(tasks, split), options.quick) for split in ("train", "test"))
    tokenizer, found = AutoTokenizer.from_pretrained(resolve(MODEL)), dict[str, Answers]()
    with Sandbox() as sandbox:
        found["base"] = evaluated(None, test, folder / "base.jsonl", sizes, sandbox)
        mined = mine(
            MODEL, None, train, Ledger(folder / "mining.jsonl"), settings=sizes.mining, sandbox=sandbox, progress=track
        )
        winners = select_winners(mined, sizes.mining.winners_per_task, seed)
        for arm in arms:
            solutions = chosen(arm, train, mined, winners, folder, sizes, tokenizer, sandbox)
            adapter = folder / arm
            train_once(
                MODEL, examples(solutions, train, tokenizer), adapter, sizes.sft, on_log=say(f"seed {seed}, {arm}")
            )
            found[arm] = evaluated(adapter, test, folder / f"{arm}.jsonl", sizes, sandbox)
    return found


def sample(tasks: Sequence[Task], quick: bool) -> list[Task]:
    """All tasks; with `quick` a few easy ones."""
    return [task for task in tasks if task.tier == 1][:5] if quick else list(tasks)


def chosen(
    arm: str, train: Sequence[Task], mined: Sequence[Attempt], winners: Sequence[Attempt], folder: Path, sizes: Sizes,
    tokenizer: Any, sandbox: Sandbox,
) -> Sequence[Solution]:  # fmt: skip
    """The programs an arm learns from."""
    seed = sizes.mining.seed
    if arm == "rsft-1":
        return winners
    if arm == "rsft-2":
        ledger = Ledger(folder / "mining-2.jsonl")
        again = mine(MODEL, folder / "rsft-1", train, ledger, settings=sizes.mining, sandbox=sandbox, progress=track)
        return select_winners([*mined, *again], sizes.mining.winners_per_task, seed)
    if arm == "random-winners":
        return random_winners(mined, len(winners), seed)
    if arm == "failing-draws":
        return failing_draws(mined, winners, seed)
    return equally_many(references(train, tokenizer, sandbox)[0], winners, seed)


def evaluated(adapter: Path | None, tasks: Sequence[Task], ledger: Path, sizes: Sizes, sandbox: Sandbox) -> Answers:
    """Greedy answers and draws of the model with `adapter`; a finished ledger starts no engine's work."""
    engine = open_engine(MODEL, str(adapter) if adapter else None)
    source = Source("rsft", MODEL, adapter_name(adapter) if adapter else "", sizes.mining.seed)
    try:
        return sample_answers(
            tasks,
            sizes.draws,
            Ledger(ledger),
            attempt=local_runner(engine, sandbox),
            temperature=sizes.temperature,
            max_new_tokens=sizes.max_new_tokens,
            source=source,
            progress=track,
        )
    finally:
        engine.close()


def say(what: str) -> Any:
    """A log that prints every tenth step."""

    def log(row: dict[str, float]) -> None:
        if row["step"] % 10 == 0:
            print(f"{what}: step {row['step']:.0f}, loss {row['loss']:.3f}", flush=True)

    return log


# ---------------------------------------------------------------------------------------------------------- numbers


def per_task(given: Answers, tasks: Sequence[Task], tests: str) -> dict[str, "numpy.ndarray"]:
    """{protocol: (tasks,) rates}."""
    greedy, drawn = (passed_matrix(given[name], tasks, tests) for name in ("greedy", "draws"))
    k = min(10, drawn.shape[1])
    return {"greedy": greedy.mean(axis=1), "draws": drawn.mean(axis=1), f"pass@{k}": pass_at_k_per_task(drawn, k)}


def table(
    by_seed: dict[int, dict[str, Answers]], tasks: Sequence[Task], tests: str, against: Sequence[str] = AGAINST
) -> pandas.DataFrame:
    """Tidy rows, one an arm, seed, protocol and what it is compared with; seed "all" has each task's mean over seeds.

    Intervals are Wilson's over tasks, p-values paired over tasks; exact McNemar only where a task has one answer.
    """
    values = {
        (str(seed), arm): per_task(given, tasks, tests) for seed, arms in by_seed.items() for arm, given in arms.items()
    }
    arms = list(dict.fromkeys(arm for _, arm in values))
    for arm in arms:
        seeds = [values[str(seed), arm] for seed in by_seed]
        values["all", arm] = {protocol: numpy.mean([one[protocol] for one in seeds], axis=0) for protocol in seeds[0]}
    rows = []
    for (seed, arm), protocols in values.items():
        for protocol, rates in protocols.items():
            lo, hi = wilson_interval(float(rates.sum()), len(rates))
            row = {"model": arm, "seed": seed, "tests": tests, "protocol": protocol, "n_tasks": len(rates),
                   "rate": float(rates.mean()), "lo": lo, "hi": hi}  # fmt: skip
            others = [other for other in against if other != arm and (seed, other) in values]
            rows += [row | versus(rates, values[seed, other][protocol], other) for other in others] or [row]
    return pandas.DataFrame(rows)


def versus(rates: "numpy.ndarray", other: "numpy.ndarray", name: str) -> dict[str, Any]:
    """The paired comparison's columns."""
    found = compare(rates, other)
    return {"vs": name, "difference": found.difference, "difference_lo": found.lo, "difference_hi": found.hi,
            "p_mcnemar": found.p_mcnemar, "p_permutation": found.p_permutation}  # fmt: skip


def markdown(data: pandas.DataFrame, sizes: dict[str, str], what: str = "trained on") -> str:
    """One line an arm, over all seeds: rates with intervals, permutation p against each comparison."""
    protocols = list(dict.fromkeys(data["protocol"]))
    others = [name for name in dict.fromkeys(data["vs"]) if isinstance(name, str)]
    lines = [f"| arm | {what} | " + " | ".join(protocols) + " | p, draws, vs " + " / ".join(others) + " |"]
    lines.append("|---" * (3 + len(protocols)) + "|")
    for arm, rows in data[data["seed"] == "all"].groupby("model", sort=False):
        first = rows.drop_duplicates("protocol").set_index("protocol")
        cells = [
            f"{100 * r.rate:.1f} % [{100 * r.lo:.1f}, {100 * r.hi:.1f}]" for r in first.loc[protocols].itertuples()
        ]
        drawn = rows[rows["protocol"] == "draws"].set_index("vs")["p_permutation"]
        p = " / ".join(f"{drawn[name]:.3g}" if name in drawn.index else "–" for name in others)
        lines.append(f"| {arm} | {sizes.get(str(arm), '')} | " + " | ".join(cells) + f" | {p} |")
    return "\n".join(lines) + "\n"


def picture(data: pandas.DataFrame) -> Any:
    """Every arm's rate over all seeds with its interval, single seeds as points beside it."""
    import matplotlib.pyplot as plt

    arms, protocols = list(dict.fromkeys(data["model"])), list(dict.fromkeys(data["protocol"]))
    size = (7.6, 1.1 + 0.34 * len(arms))
    figure, panels = plt.subplots(1, len(protocols), sharey=True, figsize=size, layout="constrained")
    for axes, protocol in zip(panels, protocols, strict=True):
        rows = data[data["protocol"] == protocol].drop_duplicates(["model", "seed"])
        for y, arm in enumerate(arms):
            mine_ = rows[rows["model"] == arm]
            mean = mine_[mine_["seed"] == "all"].iloc[0]
            axes.plot([100 * mean["lo"], 100 * mean["hi"]], [y, y], color="#999999", linewidth=1.2)
            axes.plot(
                100 * mine_[mine_["seed"] != "all"]["rate"],
                [y] * (len(mine_) - 1),
                "o",
                color="#56B4E9",
                markersize=3.5,
            )
            axes.plot(100 * mean["rate"], y, "|", color="black", markersize=12, markeredgewidth=2)
        axes.set(xlabel="% of tasks", title=protocol, yticks=range(len(arms)), yticklabels=arms)
    panels[0].set_ylim(len(arms) - 0.5, -0.5)
    return figure


# ------------------------------------------------------------------------------------------------------- warm start


def warm_start(options: argparse.Namespace) -> tuple[pandas.DataFrame, dict[str, str], list[Task]]:
    """Train on references of the program tasks' training split; measure held-out ones before and after, by language."""
    here = [name for name in LANGUAGES if languages.available().get(name)]
    missing = sorted(set(LANGUAGES) - set(here))
    if not here:
        sys.exit(f"not installed here: {', '.join(missing)}; `make toolchains` installs them")
    if missing:
        print(f"not installed here, left out: {', '.join(missing)}")
    tasks = read_tasks(ROOT / "data/starter_io.jsonl")
    train, test = (
        [task.in_language(name) for task in by_split(tasks, split)[: 2 if options.quick else None] for name in here]
        for split in ("train", "test")
    )
    sizes, folder = preset_sizes(0, options.quick), options.run_dir / "warm_start"
    sizes = dataclasses.replace(
        sizes, draws=2 if options.quick else WARM_ANSWERS, temperature=0.8, max_new_tokens=WARM_TOKENS
    )
    sft = dataclasses.replace(sizes.sft, steps=2 if options.quick else options.warm_steps)
    tokenizer = AutoTokenizer.from_pretrained(resolve(MODEL))
    with Sandbox() as sandbox:
        before = evaluated(None, test, folder / "base.jsonl", sizes, sandbox)
        programs, left_out = references(train, tokenizer, sandbox)
        print(f"{len(programs)} references, left out: {left_out or 'none'}")
        train_once(MODEL, examples(programs, train, tokenizer), folder / "warm", sft, on_log=say("warm start"))
        after = evaluated(folder / "warm", test, folder / "warm.jsonl", sizes, sandbox)
    parts = []
    for name in [*here, "all"]:
        some = [task for task in test if name in ("all", task.programming_language)]
        ids = {task.task_id for task in some}
        kept = {
            arm: {protocol: [one for one in given if one.task_id in ids] for protocol, given in answers.items()}
            for arm, answers in (("base", before), ("warm start", after))
        }
        part = table({0: kept}, some, "all", ("base",))
        parts.append(part[part["seed"] == "0"].assign(language=name, model=part["model"] + f", {name}"))
    return pandas.concat(parts, ignore_index=True).assign(seed="all"), {"warm start": f"{len(programs)} rows"}, test


# -------------------------------------------------------------------------------------------------------------- BLP


def blp(options: argparse.Namespace) -> tuple[pandas.DataFrame, dict[str, str], list[Task]]:
    """Run one round on BLP-2025: train on winners of tasks that overlap with no test task, measure on test tasks."""
    folder = ROOT / "data/external/blp"
    missing = [name for name in ("dev_v2.csv", "test_full.csv") if not (folder / name).is_file()]
    if missing:
        sys.exit(f"{folder}: no {' and no '.join(missing)}; the public BLP-2025 files belong there")
    dev, test = (corpora.read(str(folder / name)) for name in ("dev_v2.csv", "test_full.csv"))
    leaking = set(check_split(dev, test, allow_overlap=True).train_ids)
    train = [task for task in dev if task.task_id not in leaking]
    check_split(train, test)
    if options.quick:
        train, test = train[:5], test[:5]
    sizes, kept = preset_sizes(0, options.quick), options.run_dir / "blp"
    how = dataclasses.replace(sizes.mining.sampling, max_new_tokens=BLP_TOKENS)
    plan = dataclasses.replace(sizes.mining, num_samples=4 if options.quick else BLP_DRAWS, sampling=how)
    sizes = dataclasses.replace(
        sizes, mining=plan, draws=2 if options.quick else BLP_ANSWERS, max_new_tokens=BLP_TOKENS
    )
    tokenizer = AutoTokenizer.from_pretrained(resolve(MODEL))
    with Sandbox() as sandbox:
        before = evaluated(None, test, kept / "base.jsonl", sizes, sandbox)
        mined = mine(MODEL, None, train, Ledger(kept / "mining.jsonl"), settings=plan, sandbox=sandbox, progress=track)
        winners = select_winners(mined, plan.winners_per_task, 0)
        train_once(MODEL, examples(winners, train, tokenizer), kept / "rsft", sizes.sft, on_log=say("BLP"))
        after = evaluated(kept / "rsft", test, kept / "rsft.jsonl", sizes, sandbox)
    solved = len({winner.task_id for winner in winners})
    words = (
        f"{len(winners)} winners of {solved} of {len(train)} tasks; "
        f"{len(leaking)} left out for their overlap with the test tasks"
    )
    return table({0: {"base": before, "rsft-1": after}}, test, "hidden", ("base",)), {"rsft-1": words}, list(test)


# ------------------------------------------------------------------------------------------------------------- main


def main() -> None:
    """Run what is missing, write table and figure, print the table or with --json one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--arms", default=",".join(ARMS), help="a list, in order; rsft-2 needs rsft-1 before it")
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--warm-start", action="store_true")
    other.add_argument("--blp", action="store_true")
    parser.add_argument("--warm-steps", type=int, default=80)
    parser.add_argument("--run-dir", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument(
        "--quick", action="store_true", help="5 tasks, 2 steps, two arms; written beside the attempts only"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()
    options.run_dir = options.run_dir or ROOT / "runs" / ("rsft-quick" if options.quick else "rsft")
    options.out = options.out or (options.run_dir if options.quick else ROOT / "figures")
    shown, sys.stdout = sys.stdout, sys.stderr if options.json else sys.stdout
    name = "rsft_warm_start" if options.warm_start else "rsft_blp" if options.blp else "rsft_arms"
    data, words, tasks = {"rsft_warm_start": warm_start, "rsft_blp": blp, "rsft_arms": arms_run}[name](options)
    write(data, words, tasks, name, options)
    sys.stdout = shown
    if options.json:
        rows = data[data["seed"] == "all"].drop_duplicates(["model", "protocol"])
        named = [
            {"name": f"{r.model} {r.protocol}", "value": r.rate, "unit": f"share of {r.n_tasks} tasks"}
            for r in rows.itertuples()
        ]
        print(json.dumps({"benchmark": name, "rows": named, "ratios": {}}))
    else:
        print(markdown(data, words))


def arms_run(options: argparse.Namespace) -> tuple[pandas.DataFrame, dict[str, str], list[Task]]:
    """All seeds, all arms."""
    arms = ["rsft-1", "failing-draws"] if options.quick else options.arms.split(",")
    unknown = set(arms) - set(ARMS)
    if unknown or ("rsft-2" in arms and "rsft-1" not in arms[: arms.index("rsft-2")]):
        sys.exit(f"--arms {options.arms}: choose from {', '.join(ARMS)}; rsft-2 comes after rsft-1")
    tasks = read_tasks(ROOT / "data/starter_bn.jsonl")
    seeds = [0] if options.quick else [int(seed) for seed in options.seeds.split(",")]
    by_seed = {seed: run_seed(seed, arms, tasks, options) for seed in seeds}
    test = sample(by_split(tasks, "test"), options.quick)
    data = table(by_seed, test, "hidden")
    distinct = {
        (str(seed), arm): round_metrics(given, test)["distinct"]
        for seed, found in by_seed.items()
        for arm, given in found.items()
    }
    data["distinct"] = [distinct.get((seed, arm)) for seed, arm in zip(data["seed"], data["model"], strict=True)]
    facts = {arm: [read_facts(options.run_dir / f"seed{seed}" / arm) for seed in seeds] for arm in arms}
    words = {
        arm: " / ".join(str(one["rows"]) for one in some)
        + " rows of "
        + " / ".join(str(len(one["task_ids"])) for one in some)
        + " tasks"
        for arm, some in facts.items()
    }
    return data, words, test


def write(
    data: pandas.DataFrame, words: dict[str, str], tasks: Sequence[Task], name: str, options: argparse.Namespace,
    preset: str = "cpu", what: str = "trained on",
) -> None:  # fmt: skip
    """Table, figure and what they came from."""
    git = doctor.git_state()  # before the figures, which may be tracked, are written anew
    set_style()
    tests = data["tests"].iloc[0]
    caption = f"{name}: {len(tasks)} held-out tasks, {tests} tests; bars are Wilson 95 % intervals over tasks."
    save(picture(data), options.out / name, data, caption)
    (options.out / f"{name}.md").write_text(markdown(data, words, what), encoding="utf-8")
    hidden = ("out", "run_dir", "json")
    manifest = {
        "command": {key: str(value) for key, value in sorted(vars(options).items()) if key not in hidden},
        "settings": parameters(preset),
        what.replace(" ", "_"): words,
        "task_ids": [task.task_id for task in tasks],
        "git": git,
        "versions": doctor.versions(),
        "platform": doctor.platform_facts(),
    }
    write_json(options.out / f"manifest-{name}.json", manifest)


if __name__ == "__main__":
    main()
