"""Draw every figure of a finished run: its own, then what the two papers show, with its numbers.

Published numbers come from data/published.csv, which names the source of each. Other models, tasks and tests gave
them, so a published number beside a run's own is no comparison of methods.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas

from lib.base.errors import WorkbookError
from lib.base.files import ROOT, read_json
from lib.evaluation import comparison
from lib.figures import evaluation, preprocessing, training
from lib.figures import failures as failure_figures
from lib.figures import mining as mining_figures
from lib.figures.style import save, set_style, stamp
from lib.mining.answers import passed_matrix
from lib.mining.ledger import Attempt, Ledger
from lib.mining.select import supported_tasks
from lib.papers import polycode, published, troopers
from lib.papers.published import Findings, Published
from lib.sandbox import Sandbox
from lib.tasks.task import Task, read_tasks

PUBLIC = ROOT / "data" / "external" / "blp"  # where the public files of Troopers are expected
CORPORA = ("trial.csv", "dev_v2.csv", "test_v1.csv", "test_full.csv", "troopers_rsft_ds.jsonl")
FACTS = ("preprocessing", "mining", "sft", "gmpo", "evaluation")


class Picture(NamedTuple):
    """A figure with the data behind it; `name` is the file it is saved as, without a suffix."""

    name: str
    figure: Any
    data: pandas.DataFrame
    caption: str


def draw_run(run: Path, public: Path = PUBLIC, numbers: Path = published.NUMBERS) -> tuple[list[Path], list[str]]:
    """Draw all figures of the run folder into `run/figures`; return their PNG files and reasons for those left out.

    `public` is the folder of Troopers' public files. Without them the published submission is not judged again.
    Raises WorkbookError when the run has not been evaluated or its failures have not been typed.
    """
    needed = ["tasks/train.jsonl", "attempts/mining.jsonl", "scores.csv", "failures.csv", *(f"{n}.json" for n in FACTS)]
    missing = [name for name in needed if not (run / name).is_file()]
    if missing:
        raise WorkbookError(f"{run}: {missing[0]} is missing; run the notebooks 01 to 06 there before its figures")
    set_style()
    train, mined = read_tasks(run / "tasks" / "train.jsonl"), list(Ledger(run / "attempts" / "mining.jsonl"))
    train, _ = supported_tasks(train, mined)
    facts = {name: read_json(run / f"{name}.json") for name in FACTS}
    scores, failures = (
        pandas.read_csv(run / "scores.csv"),
        pandas.read_csv(run / "failures.csv", dtype={"troopers_type": str}),
    )
    known, left_out = published.read_published(numbers), list[str]()
    drawn = [
        *own_figures(train, mined, facts, scores, failures),
        *troopers_figures(run, public, known, train, mined, facts, scores, failures, left_out),
        *polycode_figures(run, known, facts, scores, failures, left_out),
    ]
    for picture in drawn:
        save(stamp(picture.figure, run), run / "figures" / picture.name, picture.data, picture.caption)
    return [run / "figures" / f"{picture.name}.png" for picture in drawn], left_out


def own_figures(
    train: Sequence[Task],
    mined: Sequence[Attempt],
    facts: dict[str, Any],
    scores: pandas.DataFrame,
    failures: pandas.DataFrame,
) -> Iterator[Picture]:
    """Yield the run's own figures: scores, success against K, training, failures, tokens per word."""
    n, passed = int(scores["n_tasks"].max()), passed_matrix(mined, train, "all")
    words = f"pass@1 on {n} held-out tasks, hidden tests; bars: Wilson 95 % over tasks."
    yield Picture("1_scores", *evaluation.score_bars(scores), words)
    words = "Training tasks solved within k samples of the base model."
    yield Picture("2_solved_against_k", *mining_figures.solved_against_k(passed), words)
    words = "Samples that passed every test, per training task."
    yield Picture("3_draws_that_passed", *mining_figures.passes_per_task(passed, [task.tier for task in train]), words)
    words = "Fine-tuning on passing samples: loss on completion tokens, token accuracy."
    yield Picture("4_sft_loss", *training.loss_curve(facts["sft"]["history"]), words)
    words = "GMPO: reward, prompts with mixed outcomes, variance of advantages by estimator."
    yield Picture("5_gmpo", *training.gmpo_curves(facts["gmpo"]["history"]), words)
    for number, column in ((6, "troopers_type"), (7, "polycode_type")):
        words = f"Failed samples by {column.replace('_', ' ')} and model; rules: data/failure_criteria.md."
        yield Picture(f"{number}_failures_{column}", *failure_figures.failure_shares(failures, column), words)
    spent = pandas.DataFrame(facts["preprocessing"]["fertility"])
    words = "Tokens per word by tokenizer, training texts left out; bars: 95 % over texts."
    yield Picture("8_fertility", *preprocessing.tokens_per_unit(spent[~spent["texts"].str.endswith("training")]), words)


def troopers_figures(
    run: Path,
    public: Path,
    numbers: Sequence[Published],
    train: Sequence[Task],
    mined: Sequence[Attempt],
    facts: dict[str, Any],
    scores: pandas.DataFrame,
    failures: pandas.DataFrame,
    left_out: list[str],
) -> Iterator[Picture]:
    """Yield Troopers' tables and figures, this run's numbers beside published ones; add reasons to `left_out`."""
    found = judge_submission(public, left_out)
    if found is not None:
        yield Picture("troopers_submission", *troopers.submission(found, numbers), troopers.SUBMISSION)
    files = [public / name for name in CORPORA] + [run / "tasks" / f"{s}.jsonl" for s in ("train", "dev", "test")]
    words = "Splits and fields, counted from the files; characters: the median prompt's."
    yield Picture("troopers_table_1", *troopers.splits([path for path in files if path.is_file()]), words)
    words = "Reward-selective fine-tuning: what is sampled, kept and trained on in this run."
    yield Picture("troopers_figure_1", *troopers.pipeline(troopers.example_prompt(train), facts["mining"]), words)
    visible, hidden = (passed_matrix(mined, train, tests) for tests in ("visible", "hidden"))
    data = pandas.DataFrame([*troopers.best_of_k_rows(visible, hidden), *troopers.published_best_of_k(numbers, found)])
    words = (
        "Best-of-K: chosen by the visible tests, scored as named. Grey: published, BLP-2025 test. "
        "Brackets and bars: Wilson 95 % over tasks, ours for published rates too."
    )
    yield Picture("troopers_table_2", troopers.best_of_k_table(data), data, words)
    yield Picture("troopers_figure_2", troopers.best_of_k_figure(data), data, words)
    ours = read_json(run / "manifest.json").get("parameters")
    if ours:
        words = "Settings: as the paper's Table 3 prints them, as the team's released code has them, and this run's."
        yield Picture("troopers_table_3", *troopers.settings(ours, published.read_settings()), words)
    else:
        left_out.append("Table 3: no manifest.json here, so this run's settings are not known")
    words = "Samples that failed, by Troopers' four types, of all samples; bars: Wilson 95 % over tasks."
    yield Picture("troopers_figure_3", *troopers.failure_types(*_sampled(scores, failures)), words)


def judge_submission(public: Path, left_out: list[str]) -> Findings | None:
    """Judge the published submission again from the public files alone; None where one of them is missing."""
    missing = published.missing_files(public)
    if missing:
        left_out.append(f"the published submission is not run again: {missing[0]} not found")
        return None
    with Sandbox() as sandbox:
        return published.findings(published.audit(public, sandbox))


def polycode_figures(
    run: Path,
    numbers: Sequence[Published],
    facts: dict[str, Any],
    scores: pandas.DataFrame,
    failures: pandas.DataFrame,
    left_out: list[str],
) -> Iterator[Picture]:
    """Yield pictures of what PolyCode measures, with this run's numbers; add reasons to `left_out`."""
    words = "pass@1 by language: this run's above, published ones below, on other tasks."
    yield Picture("polycode_by_language", *polycode.languages(scores, numbers), words)
    words = "pass@1 by system and language. Grey: published. Rows without numbers are a template: not run here."
    yield Picture("polycode_systems", *polycode.systems(scores, numbers), words)
    missing = [name for name in comparison.NEEDED if not (run / name).is_file()]
    if missing:
        left_out.append(f"gains over the starting model: {missing[0]} is missing")
    else:
        rows, _ = comparison.pool_runs([comparison.read_run(run)])
        words = "Gain over the model started from: this run's above, published ones below."
        yield Picture(
            "polycode_gain_by_language", *polycode.gains(rows, str(scores["language"].iloc[0]), numbers), words
        )
    words = "Variance of advantages: every estimator on the same rewards, by step."
    yield Picture("polycode_advantage_variance", *polycode.advantage_variance(facts["gmpo"]["history"]), words)
    words = "Surprise: standardised ln-likelihood of right and wrong programs; share that SBAM amplifies."
    yield Picture("polycode_surprise", *polycode.surprise(facts["gmpo"]["history"]), words)
    words = "Samples that failed, by kind, of all samples; bars: Wilson 95 % over tasks."
    yield Picture("polycode_failures", *polycode.failure_kinds(*_sampled(scores, failures)), words)


def _sampled(scores: pandas.DataFrame, failures: pandas.DataFrame) -> tuple[pandas.DataFrame, dict[str, Any]]:
    """Return the failures of sampled programs, and {model: (tasks, samples per task)}."""
    rows = scores[(scores["tests"] == "hidden") & (scores["protocol"] == "draws")]
    return failures[failures["temperature"] > 0], {row.model: (row.n_tasks, row.draws) for row in rows.itertuples()}
