"""Figures: nothing clipped or overlapping, published numbers grey, numbers by hand, the run's mark."""

import inspect
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy
import pandas
import pytest

from lib.figures import evaluation, failures, mining, preprocessing, style, training
from lib.mining.k_curve import Row
from lib.papers import polycode, published, troopers
from lib.papers.published import Audit, findings
from lib.run import presets

ROOT = Path(__file__).resolve().parent.parent
NUMBERS = published.read_published(published.NUMBERS)
SETTINGS = published.read_settings()
PROMPT = "কোনো সংখ্যার বর্গ বের করে ফেরত দিতে `square(n)` ফাংশন লেখো, ক্ষুদ্রতম স্ট্রিংটি নয়।"
MINING = {"tasks": 150, "draws": 16, "attempts": 2400, "winning": 362, "tasks_solved": 65, "winners": 145}
SIZES = {"base": (5, 20), "rsft": (5, 20)}
FAILURES = pandas.DataFrame(
    {"model": ["base"] * 60 + ["rsft"] * 30, "troopers_type": ["1", "2", "3", "4", "4", "none"] * 15,
     "polycode_type": ["surface", "surface", "semantic", "semantic", "format", "performance"] * 15}
)  # fmt: skip
STEPS = [
    {"step": step, "l_hat_right": 0.3, "l_hat_wrong": None if step == 2 else -1.1, "amplified": 0.2}
    | {f"advantage_var_{name}": value for value, name in enumerate(polycode.NORMALISERS)}
    for step in (1, 2)
]
SCORES = pandas.DataFrame(
    [{"model": model, "language": "python", "tests": tests, "protocol": "draws", "rate": 0.3, "lo": 0.2, "hi": 0.4,
      "n_tasks": 60, "draws": 20} for model in ("base", "rsft", "gmpo") for tests in ("visible", "hidden")]
)  # fmt: skip
GAINS: list[dict[str, Any]] = [
    {"model": "base", "protocol": "draws", "n_tasks": 60, "draws": 20},
    {"model": "rsft", "protocol": "draws", "n_tasks": 60, "draws": 20, "difference": 0.04, "difference_lo": -0.01,
     "difference_hi": 0.09},
]  # fmt: skip


def audited() -> Any:
    half = numpy.arange(500) < 250
    return findings(
        Audit(tuple(map(str, range(500))), half, half & (numpy.arange(500) % 2 == 0), numpy.arange(500) < 155)
    )


def best_of() -> pandas.DataFrame:
    visible = numpy.random.default_rng(0).random((150, 16)) < 0.3
    return pandas.DataFrame(
        [*troopers.best_of_k_rows(visible, visible), *troopers.published_best_of_k(NUMBERS, audited())]
    )


PASSED = numpy.random.default_rng(1).random((60, 16)) < numpy.linspace(0, 1, 60)[:, None]
HISTORY = [
    {"step": step, "reward": 0.2 * step, "mixed_outcome": 0.5, "advantage_var": 1.0, "advantage_var_per_prompt": 0.7,
     "loss": 1 / step, "mean_token_accuracy": 0.8, "l_hat_right": 0.1, "l_hat_wrong": -1.0}
    | {f"verdict/{status}": 0.25 for status in ("success", "wrong-output", "runtime-error", "compile-error")}
    for step in (1, 2, 3)
]  # fmt: skip
FAILED = FAILURES.assign(task_id=[f"t{index % 7}" for index in range(len(FAILURES))])
FLOW = pandas.DataFrame([[5, 1], [2, 3]], index=["solved", "1"], columns=["solved", "1"]).rename_axis("base")
BARS = pandas.DataFrame(
    [{"model": model, "tests": "hidden", "protocol": protocol, "rate": 0.3, "lo": 0.2, "hi": 0.42, "n_tasks": 60,
      "draws": draws, "run": run} for model in ("base", "rsft", "gmpo") for run in ("seed0", "seed1", "seed2")
     for protocol, draws in (("greedy", 1), ("draws", 20))]
)  # fmt: skip
SPENT = pandas.DataFrame(
    [{"tokenizer": name, "texts": texts, "unit": "word", "n": 90, "rate": 3.0, "lo": 2.5, "hi": 3.4}
     for name in ("the model's own, 49,152 pieces", "joint BPE, 1,024 pieces", "joint unigram, 1,024 pieces")
     for texts in ("Bangla prompts, held out", "Python targets, held out")]
)  # fmt: skip
ROLLED = pandas.DataFrame(
    {"right": [True, False] * 6, "l_hat": [0.2 * place - 1 for place in range(12)], "n_tokens": 20, "L": -12.0}
)
ROWS = [
    Row(k, quantity, tests, 0.1 * (k + 1) ** 0.4, 0.05, 0.9, "share of tasks", 60)
    for k in (1, 10, 20, 50, 100)
    for quantity, tests in (("best-of-K", "visible"), ("solved", "all"), ("best-of-K", "hidden"),
                            ("draws that pass", "all"), ("repeated programs", ""), ("draws a distinct winner", "all"))
] + [Row(1, "greedy", tests, 0.3, 0.2, 0.4, "share of tasks", 60) for tests in ("visible", "hidden")]  # fmt: skip

DRAWN: dict[str, Callable[[], Any]] = {
    "scores": lambda: evaluation.score_bars(BARS[BARS["run"] == "seed0"])[0],
    "runs": lambda: evaluation.over_runs(BARS)[0],
    "solved against k": lambda: mining.solved_against_k(PASSED)[0],
    "passes per task": lambda: mining.passes_per_task(PASSED, [1 + index % 4 for index in range(60)])[0],
    "K ablation": lambda: mining.k_ablation(ROWS)[0],
    "loss": lambda: training.loss_curve(HISTORY, [{"step": 3, "pass_at_1": 0.3}])[0],
    "gmpo": lambda: training.gmpo_curves(HISTORY)[0],
    "failure shares": lambda: failures.failure_shares(FAILED, "troopers_type")[0],
    "failure flows": lambda: failures.failure_flows([FLOW.rename_axis(columns="rsft")] * 2)[0],
    "failure steps": lambda: failures.failure_steps(HISTORY)[0],
    "lengths": lambda: failures.lengths(
        pandas.DataFrame({"model": ["base", "rsft"] * 4, "status": ["success"] * 4 + ["timeout"] * 4, "n_tokens": 9})
    )[0],
    "rollout likelihoods": lambda: failures.rollout_likelihoods(ROLLED)[0],
    "tokens": lambda: preprocessing.tokens_per_unit(SPENT)[0],
    "table 1": lambda: troopers.splits([ROOT / "data" / "starter_bn.jsonl"])[0],
    "figure 1": lambda: troopers.pipeline(PROMPT, MINING)[0],
    "table 2": lambda: troopers.best_of_k_table(best_of()),
    "figure 2": lambda: troopers.best_of_k_figure(best_of()),
    "table 3": lambda: troopers.settings({"02_mining": {"draws": 4}, "03_sft": {"steps": 60}}, SETTINGS)[0],
    "troopers failures": lambda: troopers.failure_types(FAILURES, SIZES)[0],
    "submission": lambda: troopers.submission(audited(), NUMBERS)[0],
    "by language": lambda: polycode.languages(SCORES, NUMBERS)[0],
    "systems": lambda: polycode.systems(SCORES, NUMBERS)[0],
    "gains": lambda: polycode.gains(GAINS, "python", NUMBERS)[0],
    "advantage variance": lambda: polycode.advantage_variance(STEPS)[0],
    "advantage variance, one step": lambda: polycode.advantage_variance(STEPS[:1])[0],
    "surprise": lambda: polycode.surprise(STEPS)[0],
    "polycode failures": lambda: polycode.failure_kinds(FAILURES, SIZES)[0],
}


def manifest_in(folder: Path) -> Path:
    stages = {"00_environment": {"key": "a" * 64, "seconds": 1.0}, "06_failure_taxonomy": {"key": "b" * 64}}
    (folder / "manifest.json").write_text(json.dumps({"run_id": "cpu-1", "stages": stages}))
    return folder


@pytest.fixture(autouse=True)
def look() -> None:
    style.set_style()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every figure here belongs to a run with a manifest."""
    return manifest_in(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module", params=DRAWN, ids=list(DRAWN))
def figure(request: pytest.FixtureRequest, run: Path) -> Iterator[Any]:
    """Each figure, laid out; a glyph that no font has, or a layout that does not fit, is an error."""
    style.set_style()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = style.stamp(DRAWN[request.param](), run)
        drawn.canvas.draw()
    yield drawn
    plt.close("all")


def texts(figure: Any) -> list[Any]:
    """Every visible, non-empty piece of text; ticks beyond an axis's ends are not drawn."""
    beyond = set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        ticks = [
            tick for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()] if not low <= tick.get_loc() <= high
        ]
        beyond |= {label for tick in ticks for label in (tick.label1, tick.label2)}
    found = [one for one in figure.findobj(plt.Text) if one.get_visible() and one.get_text().strip()]
    return [one for one in found if one not in beyond and one.get_window_extent().width > 0]


def test_no_text_is_cut_off(figure: Any) -> None:
    width, height = figure.canvas.get_width_height()
    for text in texts(figure):
        box = text.get_window_extent()
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
        assert inside, f"{text.get_text()!r} at {box}"


def test_no_two_texts_overlap(figure: Any) -> None:
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts(figure)]
    for index, (first, box) in enumerate(boxes):
        for second, other in boxes[:index]:
            shared = min(box.x1, other.x1) - max(box.x0, other.x0), min(box.y1, other.y1) - max(box.y0, other.y0)
            assert min(shared) < 2, f"{first!r} over {second!r}"


def test_every_function_that_draws_a_figure_is_measured_here() -> None:
    """Directly, or through a function that calls it."""
    modules = (evaluation, failures, mining, preprocessing, training, troopers, polycode)
    sources = "".join(map(inspect.getsource, modules))
    measured = Path(__file__).read_text(encoding="utf-8").partition("DRAWN: ")[2].partition("@pytest.fixture")[0]
    for module in modules:
        for name, function in vars(module).items():
            draws = inspect.isfunction(function) and "subplots(" in inspect.getsource(function)
            if draws and function.__module__ == module.__name__ and not name.startswith("_"):
                called = sources.count(f" {name}(") + sources.count(f".{name}(") > 1  # once is its definition
                assert called or f"{module.__name__.rpartition('.')[2]}.{name}(" in measured, name


def test_the_run_and_its_manifest_stand_in_the_corner(figure: Any, run: Path) -> None:
    assert style.run_stamp(run) in [text.get_text() for text in texts(figure)]


def test_saved_as_vector_and_picture_with_data_and_caption(figure: Any, tmp_path: Path) -> None:
    style.save(figure, tmp_path / "it", pandas.DataFrame({"x": [1]}), "a caption")
    assert {path.suffix for path in tmp_path.glob("it.*")} == {".png", ".pdf", ".csv", ".txt"}


# ---- the mark


def test_the_hash_follows_the_stages_before_the_figures_and_nothing_else(tmp_path: Path) -> None:
    run = manifest_in(tmp_path)
    before = style.run_stamp(run)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["stages"]["00_environment"]["seconds"] = 9.0
    manifest["stages"]["07_paper_figures"] = {"key": "c" * 64}
    (run / "manifest.json").write_text(json.dumps(manifest))
    assert style.run_stamp(run) == before
    manifest["stages"]["00_environment"]["key"] = "d" * 64
    (run / "manifest.json").write_text(json.dumps(manifest))
    assert style.run_stamp(run) != before


def test_without_a_manifest_there_is_no_mark(tmp_path: Path) -> None:
    assert style.run_stamp(tmp_path / "elsewhere") == ""


# ---- Bangla


def test_bangla_is_shaped_not_set_letter_by_letter() -> None:
    """The conjunct of ক and ষ is one glyph, narrower than the two with a visible hasanta between them."""
    if style.bangla_font() is None:
        pytest.skip("no font with Bangla is installed")
    figure = plt.figure()

    def width(letters: str) -> float:
        return figure.text(0, 0, letters, fontsize=40).get_window_extent().width

    assert width("ক্ষ") < 0.9 * (width("ক") + width("ষ"))
    assert width("ক\u09cd\u200cষ") >= 0.95 * (width("ক") + width("ষ"))


def test_without_a_font_the_diagram_says_so_in_place_of_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style, "BANGLA_FONTS", ())
    style.set_style()
    said = " ".join(text.get_text() for text in texts(troopers.pipeline(PROMPT, MINING)[0])).replace("\n", " ")
    assert "no font for it is installed" in said and "সংখ্যার" not in said


# ---- the numbers


def test_published_lines_are_grey_and_a_run_s_are_not() -> None:
    lines = troopers.best_of_k_figure(best_of()).axes[0].containers
    colours = {line.get_label(): line[0].get_color() for line in lines}
    assert len(colours) == 5
    assert all((colour == style.GREY) == label.startswith("published") for label, colour in colours.items())


def test_every_mark_of_the_published_panel_is_grey() -> None:
    ours, printed = polycode.languages(SCORES, NUMBERS)[0].axes
    assert {line.get_color() for line in printed.lines} == {style.GREY}
    assert style.GREY not in {line.get_color() for line in ours.lines}


def test_best_of_k_by_hand() -> None:
    """Two draws; task 1: one visibly right, and right. Task 2: both visibly right, one of them right."""
    rows = list(troopers.best_of_k_rows(numpy.array([[1, 0], [1, 1]], bool), numpy.array([[1, 0], [0, 1]], bool)))
    rates = {(row["K"], row["tests"]): row["rate"] for row in rows}
    assert rates == {(1, "visible"): 0.75, (1, "all"): 0.5, (2, "visible"): 1.0, (2, "all"): 0.75}


def test_k_doubles_up_to_the_draws() -> None:
    rows = troopers.best_of_k_rows(numpy.ones((2, 12), bool), numpy.ones((2, 12), bool))
    assert [row["K"] for row in rows if row["tests"] == "all"] == [1, 2, 4, 8]


def test_failure_rates_are_shares_of_all_draws() -> None:
    data = troopers.failure_types(FAILURES, SIZES)[1]
    base = data[data["model"] == "base"]
    assert base["rate"].tolist() == [0.1, 0.1, 0.1, 0.2, 0.1] and base["failed"].sum() == 60
    assert ((data["lo"] <= data["rate"]) & (data["rate"] <= data["hi"])).all()


def test_published_gains_are_after_less_before() -> None:
    data = polycode.gains(GAINS, "python", NUMBERS)[1]
    printed = data[data["source"] == "published"].set_index(["model", "language"])["rate"]
    assert printed["PolyCode-4B-X", "lua"] == pytest.approx(0.14)
    assert printed["Qwen3-4B + RL (Agnostics)", "fortran"] == pytest.approx(0.15)
    assert data[data["source"] == "this run"]["model"].tolist() == ["rsft"]


def test_the_splits_are_counted_from_the_file() -> None:
    row = troopers.splits([ROOT / "data" / "starter_bn.jsonl"])[1].iloc[0]
    assert (row["tasks"], row["with a reference"]) == (240, 240) and "hidden_tests" in row["fields"]


def test_the_published_column_of_table_3_is_what_the_file_holds_and_ours_is_the_run_s() -> None:
    data = troopers.settings({"02_mining": {"draws": 4}, "03_sft": {"steps": 40}}, SETTINGS)[1].set_index("setting")
    assert dict(data["published"]) == {row["setting"]: row["value"] for row in SETTINGS}
    assert (data.loc["steps", "this run"], data.loc["samples per prompt", "this run"]) == ("40", "4")
    assert data.loc["learning rate", "this run"] == "not known"


def test_preset_paper_is_table_3_and_the_released_adapter() -> None:
    values = presets.parameters("paper")
    shown = troopers.settings(values, SETTINGS)[1].set_index("setting")["this run"]
    for row in SETTINGS:
        ours = shown[row["setting"]]
        if row["setting"] in ("precision", "base model", "base weights", "samples per prompt", "optimiser",
                              "schedule", "seed"):  # fmt: skip
            continue  # by the device, or chosen otherwise: docs/papers.md says why
        assert float(ours) == float(row["value"].removesuffix(" %")) / (100 if "%" in row["value"] else 1), row


def test_preset_colab_trains_as_table_3_with_its_batch_in_parts() -> None:
    colab, paper = (presets.parameters(name)["03_sft"] for name in ("colab", "paper"))
    rows = [values.pop("batch_size") * values.pop("gradient_accumulation") for values in (colab, paper)]
    assert rows == [64, 64] and colab | {"dev_tasks": 0} == paper


def test_what_was_not_run_is_an_empty_row_that_says_so() -> None:
    data = polycode.systems(SCORES, NUMBERS)[1].set_index("model")
    for name in polycode.TEMPLATE:
        assert data.loc[name, "from"] == "not run here" and not any(data.loc[name].drop("from"))
    assert data.loc["PolyCode-4B-X", ["from", "lua", "fortran", "r"]].tolist() == ["PolyCode", "25", "16", ""]
