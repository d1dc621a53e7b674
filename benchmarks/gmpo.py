"""GMPO taken apart: every arm from one RSFT adapter at equal steps, held-out tasks before and after, paired tests.

    python benchmarks/gmpo.py [--quick] [--json] [--seeds 0] [--arms …] [--steps N]
    python benchmarks/gmpo.py --arms gmpo,grpo,batch,sft --seeds 0,1,2 --name gmpo_comparison
    python benchmarks/gmpo.py --warm-start …

An arm differs from `gmpo`, preset ablation's settings, in what ARMS says and in nothing else: same start, prompts,
order, seeds. `sft` goes on fine-tuning on the start's own rows for as many seconds as the seed's gmpo arm trained. The
start is benchmarks/rsft.py's arm rsft-1 on the starter tasks, hidden tests; with `--warm-start` its warm-started
adapter on program tasks in Lua. What of these is missing is made first.

Everything is kept under --run-dir, an adapter, its steps and a ledger an arm, each training in a process of its own: a
second call does only what is missing, and a training that was cut off goes on. Writes <name>.{csv,md,png,pdf},
<name>_steps.* (every diagnostic of every step) and manifest-<name>.json to --out.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

MODEL, PRESET, LANGUAGE = "embedded", "ablation", "lua"
ARMS: dict[str, dict[str, Any]] = {
    "gmpo": {},
    "grpo": {"advantage": "grpo"},
    "batch": {"advantage": "batch"},
    "rloo": {"advantage": "rloo"},
    "dr_grpo": {"advantage": "dr_grpo"},
    "group_batch": {"advantage": "group_batch"},
    "james_stein": {"advantage": "james_stein"},
    "gspo ratio": {"ratio": "sequence_mean"},
    "token ratio": {"ratio": "token"},
    "no SBAM": {"lam": 0.0},
    "no CGMN": {"neighbours": 1.0},
    "lambda 0.25": {"lam": 0.25},
    "lambda 1": {"lam": 1.0},
    "two neighbours": {"neighbours": 2.0},
    "five neighbours": {"neighbours": 5.0},
    "memory": {"memory": 64},
    "sft": {},
}
QUICK = {"steps": 1, "num_iterations": 1, "prompts_per_batch": 4, "group_size": 2, "max_new_tokens": 16}
MOST_SFT_STEPS = 1000
ANSWERS = 10  # draws a held-out task


@dataclasses.dataclass(frozen=True)
class Start:
    """Where a seed's arms begin, and what they are measured on."""

    name: str
    adapter: Path
    sizes: Any  # rsft.Sizes
    test: list[Any]
    tests: str
    answers: dict[str, Any]  # of the base and of the start itself
    rates: dict[str, float] = dataclasses.field(default_factory=dict)  # of the start's own draws for a training task


def config_of(arm: str, seed: int, options: argparse.Namespace) -> Any:
    """An arm's PolyCodeConfig."""
    from lib.gmpo.run import run_config
    from lib.run.presets import parameters

    values = parameters(PRESET)["04_gmpo"] | ARMS[arm]
    if options.steps:
        values["steps"] = options.steps
    if options.warm_start:
        values["max_new_tokens"] = 192  # a program is longer than a function
    if options.quick:
        values |= QUICK
    same = ("steps", "prompts_per_batch", "group_size", "num_iterations", "ratio", "neighbours", "tau", "equal_norm",
            "lam", "epsilon", "beta", "learning_rate", "temperature")  # fmt: skip
    return run_config(
        **{name: values[name] for name in same},
        advantage_estimator=values["advantage"],
        bank_size=values["memory"],
        max_completion_length=values["max_new_tokens"],
        seed=seed,
        data_seed=seed,
        checkpoint_every=1,
    )


def slug(arm: str) -> str:
    """An arm's name as a file's."""
    return arm.replace(" ", "-")


def read(path: Path) -> dict[str, Any]:
    """A JSON object, {} where there is no such file."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


# --------------------------------------------------------------------------- one training, in a process without unsloth


def train(arm: str, seed: int, options: argparse.Namespace) -> None:
    """Train an arm from --start; a summary beside its adapter says that it is whole."""
    from lib.base.files import write_json
    from lib.base.progress import Log
    from lib.gmpo.run import train_gmpo
    from lib.models.adapters import adapter_name
    from lib.tasks.task import read_tasks

    folder = options.run_dir / f"seed{seed}"
    out, log = folder / slug(arm), Log("step", "reward", "mixed_outcome", "clip_fraction", "seconds")
    if arm == "sft":
        summary = sft_on(folder / "rows.jsonl", options.start, out, options.seconds, seed)
    else:
        tasks = read_tasks(folder / "tasks.jsonl")
        summary = train_gmpo(MODEL, options.start, out, tasks, config_of(arm, seed, options), log)
    write_json(folder / f"{slug(arm)}.json", summary | {"start": adapter_name(options.start)})


def sft_on(rows: Path, start: Path, out: Path, seconds: float, seed: int) -> dict[str, Any]:
    """Plain TRL fine-tuning from adapter `start` on `rows` for `seconds`, at preset cpu's batch and learning rate."""
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer, DataCollatorForSeq2Seq, PrinterCallback, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from benchmarks.common import sft_settings
    from lib.gmpo.policy import load_policy
    from lib.models.adapters import save_adapter
    from lib.models.precision import precision
    from lib.models.resolve import resolve
    from lib.training.sft import batch_order, within_length

    class Until(TrainerCallback):  # type: ignore[misc]
        """Ends the training once its time is up."""

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.end = time.perf_counter() + seconds

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = time.perf_counter() >= self.end

    cuda, wanted = torch.cuda.is_available(), sft_settings(seed=3407 + seed)
    tokenizer = AutoTokenizer.from_pretrained(resolve(MODEL))
    data = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    encoded, _ = within_length(data, tokenizer, wanted.max_length)
    batches = MOST_SFT_STEPS * wanted.gradient_accumulation
    order = batch_order([len(row["input_ids"]) for row in encoded], wanted.batch_size, batches, wanted.seed)
    arguments = SFTConfig(
        output_dir=str(out.with_name(out.name + ".trainer")),
        per_device_train_batch_size=wanted.batch_size,
        gradient_accumulation_steps=wanted.gradient_accumulation,
        max_steps=MOST_SFT_STEPS,
        seed=wanted.seed,
        learning_rate=wanted.learning_rate,
        weight_decay=wanted.weight_decay,
        lr_scheduler_type="constant",
        max_length=wanted.max_length,
        dataset_kwargs={"skip_prepare_dataset": True},
        train_sampling_strategy="sequential",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=not cuda,
        gradient_checkpointing=cuda,
        bf16=cuda and precision() == "bf16",
        fp16=cuda and precision() == "fp16",
        disable_tqdm=True,
    )
    trainer = SFTTrainer(
        model=load_policy(MODEL, start), args=arguments, processing_class=tokenizer,
        train_dataset=Dataset.from_list([encoded[row] for row in order]), callbacks=[Until()],
        data_collator=DataCollatorForSeq2Seq(tokenizer),
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    save_adapter(trainer.model, tokenizer, out)
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return {"settings": {"seconds": seconds}, "updates": trainer.state.global_step, "losses": losses}


def train_apart(arm: str, seed: int, start: Start, options: argparse.Namespace) -> None:
    """`train` in a process of its own, which repeats nothing that is finished."""
    from lib.models.adapters import adapter_name

    folder = options.run_dir / f"seed{seed}"
    command = [sys.executable, __file__, "--train", arm, "--seeds", str(seed)]
    if arm == "sft":
        trained, known = read(folder / "gmpo.json"), read(folder / "sft.json")
        seconds = sum(value for name, value in trained.items() if name.startswith("seconds_"))
        if known.get("settings") == {"seconds": seconds} and known.get("start") == adapter_name(start.adapter):
            return
        command += ["--seconds", repr(seconds)]
    command += ["--start", str(start.adapter), "--run-dir", str(options.run_dir), "--steps", str(options.steps)]
    command += ["--quick"] * options.quick + ["--warm-start"] * options.warm_start
    print(f"seed {seed}, {arm}", flush=True)
    if subprocess.run(command, cwd=ROOT, stdout=sys.stdout).returncode:
        sys.exit(f"seed {seed}, {arm}: training failed; its message stands above")


# --------------------------------------------------------------------------------------------------- starts and answers


def starter(seed: int, options: argparse.Namespace) -> Start:
    """RSFT on the starter tasks. Leaves the tasks and rows that the arms learn from."""
    from benchmarks import rsft

    # isort: split
    import pandas

    from lib.mining.ledger import Ledger
    from lib.mining.select import mixed_outcome, select_winners
    from lib.run.presets import parameters
    from lib.sandbox import Sandbox
    from lib.tasks.task import by_split, read_tasks

    tasks, sizes = read_tasks(ROOT / "data/starter_bn.jsonl"), rsft.preset_sizes(seed, quick=False)
    sizes = dataclasses.replace(sizes, draws=ANSWERS)
    rsft_options = argparse.Namespace(run_dir=options.rsft_dir, quick=False)
    rsft.run_seed(seed, ("rsft-1", "rsft-2"), tasks, rsft_options)
    train_tasks, test = by_split(tasks, "train"), by_split(tasks, "test")
    mined, again = (
        list(Ledger(options.rsft_dir / f"seed{seed}" / name)) for name in ("mining.jsonl", "mining-2.jsonl")
    )
    chosen = mixed_outcome(train_tasks, again)  # by the start's own draws, which rsft-2 was mined from
    enough = len(chosen) >= parameters(PRESET)["04_gmpo"]["prompts_per_batch"]
    winners = select_winners(mined, sizes.mining.winners_per_task, seed)
    leave(options.run_dir / f"seed{seed}", chosen if enough else train_tasks, winners, train_tasks)
    folder, adapter = options.run_dir / f"seed{seed}", options.rsft_dir / f"seed{seed}" / "rsft-1"
    with Sandbox() as sandbox:  # asked again: the engine may have changed since they were asked there
        answers = {
            "base": rsft.evaluated(None, test, folder / "base.answers.jsonl", sizes, sandbox),
            "rsft-1": rsft.evaluated(adapter, test, folder / "rsft-1.answers.jsonl", sizes, sandbox),
        }
    draws = pandas.DataFrame({"task": one.task_id, "solved": one.solved} for one in again)
    rates = draws.groupby("task")["solved"].mean().to_dict()
    return Start("rsft-1", adapter, sizes, test, "hidden", answers, rates)


def warm(seed: int, options: argparse.Namespace) -> Start:
    """The warm-started adapter on program tasks in Lua."""
    from transformers import AutoTokenizer

    from benchmarks import rsft
    from lib.models.resolve import resolve
    from lib.sandbox import Sandbox, languages
    from lib.tasks.task import by_split, read_tasks
    from lib.training.training_set import references

    if not languages.available().get(LANGUAGE):
        sys.exit(f"{LANGUAGE} is not installed here; `make toolchains` installs it")
    rsft.warm_start(argparse.Namespace(run_dir=options.rsft_dir, quick=False, warm_steps=80))
    folder, tasks = options.rsft_dir / "warm_start", read_tasks(ROOT / "data/starter_io.jsonl")
    train_tasks, test = ([task.in_language(LANGUAGE) for task in by_split(tasks, split)] for split in ("train", "test"))
    sizes = rsft.preset_sizes(0, quick=False)
    sizes = dataclasses.replace(sizes, draws=rsft.WARM_ANSWERS, temperature=0.8, max_new_tokens=rsft.WARM_TOKENS)
    with Sandbox() as sandbox:
        programs, _ = references(train_tasks, AutoTokenizer.from_pretrained(resolve(MODEL)), sandbox)
        answers = {
            "base": rsft.evaluated(None, test, folder / "base.jsonl", sizes, sandbox),
            "warm start": rsft.evaluated(folder / "warm", test, folder / "warm.jsonl", sizes, sandbox),
        }
    leave(options.run_dir / f"seed{seed}", train_tasks, programs, train_tasks)
    return Start("warm start", folder / "warm", sizes, test, "all", answers)


def untrained(seed: int, options: argparse.Namespace) -> Start:
    """What --quick begins with: an adapter that does nothing yet, five easy tasks."""
    from benchmarks import rsft
    from benchmarks.gmpo_step import start
    from lib.sandbox import Sandbox
    from lib.tasks.task import by_split, read_tasks

    tasks, sizes = read_tasks(ROOT / "data/starter_bn.jsonl"), rsft.preset_sizes(seed, quick=True)
    train_tasks, test = (rsft.sample(by_split(tasks, split), quick=True) for split in ("train", "test"))
    adapter = start(options.run_dir)
    with Sandbox() as sandbox:
        answers = rsft.evaluated(adapter, test, options.run_dir / "start.jsonl", sizes, sandbox)
    leave(options.run_dir / f"seed{seed}", train_tasks, [], train_tasks)
    return Start("untrained", adapter, sizes, test, "hidden", {"untrained": answers})


def leave(folder: Path, tasks: Sequence[Any], solutions: Sequence[Any], of: Sequence[Any]) -> None:
    """What the trainings read: tasks.jsonl, and rows.jsonl for `sft`."""
    from transformers import AutoTokenizer

    from lib.models.resolve import resolve
    from lib.tasks.task import write_tasks
    from lib.training.sft import examples, write_rows

    folder.mkdir(parents=True, exist_ok=True)
    write_tasks(folder / "tasks.jsonl", tasks)
    write_rows(folder / "rows.jsonl", examples(solutions, of, AutoTokenizer.from_pretrained(resolve(MODEL))))


def run_seed(seed: int, arms: Sequence[str], options: argparse.Namespace) -> tuple[Start, dict[str, Any]]:
    """The seed's start, and {arm: its answers to the test tasks}, base and start first."""
    from benchmarks import rsft
    from lib.sandbox import Sandbox

    begin = untrained if options.quick else warm if options.warm_start else starter
    start, folder = begin(seed, options), options.run_dir / f"seed{seed}"
    found = dict(start.answers)
    with Sandbox() as sandbox:
        for arm in arms:
            train_apart(arm, seed, start, options)
            ledger = folder / f"{slug(arm)}.answers.jsonl"
            found[arm] = rsft.evaluated(folder / slug(arm), start.test, ledger, start.sizes, sandbox)
    return start, found


# --------------------------------------------------------------------------------------------------- tables and figures


def step_rows(seeds: Sequence[int], arms: Sequence[str], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Every step of every arm: arm, seed and the step's numbers."""
    rows = []
    for seed in seeds:
        for arm in arms:
            path = options.run_dir / f"seed{seed}" / f"{slug(arm)}.steps.jsonl"
            lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []  # sft has none
            rows += [{"arm": arm, "seed": seed} | json.loads(line) for line in lines]
    return [{name: value for name, value in row.items() if name != "updates"} for row in rows]


def start_rows(seed: int, start: Start, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the start's own rewards for the prompts of each step, because batches differ in difficulty."""
    from transformers import AutoTokenizer

    from lib.gmpo.policy import load_policy, own_tokens
    from lib.gmpo.run import groups_of, order_of, prompts_at_once
    from lib.models.resolve import resolve
    from lib.tasks.prompts import build_prompt
    from lib.tasks.task import read_tasks

    if not start.rates:
        return []
    wanted, tokenizer = config_of("gmpo", seed, options), AutoTokenizer.from_pretrained(resolve(MODEL))
    tasks, size = read_tasks(options.run_dir / f"seed{seed}" / "tasks.jsonl"), prompts_at_once(wanted)
    policy = load_policy(MODEL, start.adapter)
    prompts = [build_prompt(task, tokenizer) for task in tasks]
    own = [own_tokens(tokenizer, prompt.text, task.prompt) for prompt, task in zip(prompts, tasks, strict=True)]
    groups = groups_of(prompts, policy, tokenizer, wanted, own=own)
    rates = [start.rates[tasks[place].task_id] for place in order_of(wanted, groups)]
    batches = [rates[first : first + size] for first in range(0, len(rates), size)]
    return [
        {"arm": start.name, "seed": seed, "step": step, "reward": sum(batch) / size}
        for step, batch in enumerate(batches, 1)
    ]


def curves(steps: Any, start: str) -> Any:
    """Draw one panel per arm: mean reward over steps, above the start's where that is known; gmpo in grey."""
    import matplotlib.pyplot as plt

    from lib.figures.style import whole_steps

    reward = steps.pivot_table(index="step", columns="arm", values="reward", sort=False)
    variance, known = steps.groupby("arm")["advantage_var"].mean(), start in reward
    if known:
        reward = reward.sub(reward.pop(start), axis="index")
    columns = min(5, reward.shape[1])
    shape = (-(-reward.shape[1] // columns), columns)
    figure, panels = plt.subplots(
        *shape,
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
        figsize=(0.6 + 1.75 * shape[1], 0.5 + 1.75 * shape[0]),
    )
    for axes in panels.flat[reward.shape[1] :]:
        axes.set_axis_off()
    for axes, arm in zip(panels.flat, reward, strict=False):
        if known:
            axes.axhline(0, color="black", linestyle="--", linewidth=0.8)
        if "gmpo" in reward:
            axes.plot(reward["gmpo"], color="#999999", linewidth=1)
        axes.plot(reward[arm], color="#0072B2", marker="o", markersize=2.5, linewidth=1)
        axes.set_title(f"{arm}\nvar A {variance[arm]:.2f}", fontsize=8)
        whole_steps(axes)
    figure.supxlabel("step", fontsize=9)
    figure.supylabel("reward above the start's" if known else "reward", fontsize=9)
    return figure


def rise(steps: Any, arm: str, start: str) -> str:
    """Return mean rewards while training, first third of steps -> last; above the start's where that is known."""
    reward = steps.pivot_table(index=["seed", "step"], columns="arm", values="reward")
    if arm not in reward or arm == start:
        return ""
    known = start in reward
    by_step = (reward[arm] - (reward[start] if known else 0)).groupby("step").mean()
    third = max(1, len(by_step) // 3)
    ends = " -> ".join(f"{part.mean():{'+' if known else ''}.2f}" for part in (by_step[:third], by_step[-third:]))
    return f"; reward{' above the start' * known} {ends}"


def in_words(arm: str, start: str) -> str:
    """How an arm differs from gmpo."""
    if arm == "sft":
        return "fine-tuning goes on for as long as gmpo trained"
    if arm not in ARMS:
        return "where all arms begin" if arm == start else ""
    return ", ".join(f"{name}={value}" for name, value in ARMS[arm].items()) or "as in preset ablation"


def main() -> None:
    """Run what is missing, write tables and figures, print the table or with --json one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--arms", default=",".join(ARMS), help="a list; sft needs gmpo before it")
    parser.add_argument("--steps", type=int, default=0, help="other than the preset's")
    parser.add_argument("--warm-start", action="store_true", help="program tasks in Lua")
    parser.add_argument("--name", help="of what is written; default gmpo_ablation or gmpo_warm_start")
    parser.add_argument("--run-dir", type=Path)
    parser.add_argument("--rsft-dir", type=Path, help="the folder of benchmarks/rsft.py; default runs/rsft")
    parser.add_argument("--out", type=Path)
    parser.add_argument(
        "--quick", action="store_true", help="one arm, 1 step from an untrained adapter, 5 tasks; kept in --run-dir"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    for hidden, kind in (("--train", str), ("--start", Path), ("--seconds", float)):
        parser.add_argument(hidden, type=kind, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        train(options.train, int(options.seeds), options)
        return
    name, quick = (
        options.name or ("gmpo_warm_start" if options.warm_start else "gmpo_ablation"),
        "-quick" * options.quick,
    )
    options.run_dir = (options.run_dir or ROOT / "runs" / f"{name}{quick}").resolve()
    options.rsft_dir = (options.rsft_dir or ROOT / "runs" / "rsft").resolve()
    options.out = options.out or (options.run_dir if options.quick else ROOT / "figures")
    arms = ["gmpo"] if options.quick else options.arms.split(",")
    unknown = set(arms) - set(ARMS)
    if unknown or ("sft" in arms and "gmpo" not in arms[: arms.index("sft")]):
        sys.exit(f"--arms {options.arms}: choose from {', '.join(ARMS)}; sft comes after gmpo")
    shown, sys.stdout = sys.stdout, sys.stderr if options.json else sys.stdout
    report = run([0] if options.quick else [int(seed) for seed in options.seeds.split(",")], arms, name, options)
    sys.stdout = shown
    print(json.dumps(report) if options.json else (options.out / f"{name}.md").read_text(encoding="utf-8"))


def run(seeds: Sequence[int], arms: Sequence[str], name: str, options: argparse.Namespace) -> dict[str, Any]:
    """All seeds and arms; what --json prints."""
    from benchmarks import rsft  # first: it imports unsloth, which patches what comes after

    # isort: split
    import pandas

    from lib.figures.style import save

    by_seed, start, begun = {}, None, list[dict[str, Any]]()
    for seed in seeds:
        start, by_seed[seed] = run_seed(seed, arms, options)
        begun += start_rows(seed, start, options)
    assert start is not None
    data = rsft.table(by_seed, start.test, start.tests, (start.name, "gmpo"))
    steps = pandas.DataFrame(begun + step_rows(seeds, arms, options))
    words = {arm: in_words(arm, start.name) + rise(steps, arm, start.name) for arm in data["model"].unique()}
    command = argparse.Namespace(
        seeds=options.seeds, arms=",".join(arms), steps=options.steps, quick=options.quick, out=options.out,
        warm_start=options.warm_start,
    )  # fmt: skip
    rsft.write(data, words, start.test, name, command, PRESET, "how")
    save(
        curves(steps, start.name),
        options.out / f"{name}_steps",
        steps,
        f"{name}: rollouts while training, means over seeds; grey: gmpo; "
        "dashed: the start's own rate on the same prompts.",
    )
    rows = data[data["seed"] == "all"].drop_duplicates(["model", "protocol"])
    named = [
        {"name": f"{r.model} {r.protocol}", "value": r.rate, "unit": f"share of {r.n_tasks} tasks"}
        for r in rows.itertuples()
    ]
    drawn = rows[rows["protocol"] == "draws"].set_index("model")["rate"]
    against = {
        f"gmpo/{arm}": drawn.get("gmpo", float("nan")) / drawn[arm]
        for arm in drawn.index
        if arm != "gmpo" and drawn[arm] > 0
    }
    return {"benchmark": name, "rows": named, "ratios": against}


if __name__ == "__main__":
    main()
