"""The report: one file, everything in it, nothing trusted, nothing crashed on."""

import base64
import json
import re
from pathlib import Path

import pytest

from lib.figures import report

# A 1 × 1 white pixel.
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8/5+hHgAHggJ/PchI7wAAAABJRU5ErkJggg=="
)
SCORES = """model,split,language,tests,protocol,seed,n_tasks,draws,rate,lo,hi,vs,p_mcnemar,p_permutation
base,test,python,hidden,greedy,0,60,1,0.15,0.081,0.261,,,
rsft,test,python,hidden,greedy,0,60,1,0.30,0.199,0.425,base,0.0117,0.0004
rsft,test,python,visible,greedy,0,60,1,0.40,0.286,0.526,base,0.001,
rsft,test,python,hidden,best-of-k,0,60,20,0.55,0.425,0.669,,,
"""
MANIFEST = {
    "run_id": "cpu-1",
    "preset": "cpu",
    "settings": ["draws=5", "prompt=two words"],
    "run_dir": "runs/cpu",
    "started_at": "2025-01-01T00:00:00+00:00",
    "git": {"commit": "a" * 40, "dirty": True},
    "platform": {"cores": 2, "memory_gb": 8, "processor": "CPU", "system": "Linux"},
    "versions": {"torch": "2.13.0", "vllm": None},
    "parameters": {"02_mining": {"draws": 5, "note": "যোগফল <b>"}, "03_sft": {}},
    "stages": {"02_mining": {"key": "k" * 64, "seconds": 143.2, "finished_at": "2025-01-01T00:05:00+00:00"}},
}


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A finished run."""
    (tmp_path / "scores.csv").write_text(SCORES)
    (tmp_path / "manifest.json").write_text(json.dumps(MANIFEST))
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "1_scores.png").write_bytes(PNG)
    (tmp_path / "figures" / "1_scores.txt").write_text("pass@1 <of> ৬০ tasks")
    (tmp_path / "figures" / "1_scores.csv").write_text("k,solved\n1,7\n")
    return tmp_path


def page(folder: Path) -> str:
    """The report's source."""
    return report.build(folder).read_text(encoding="utf-8")


def test_the_headline_is_hidden_tests_of_the_test_split_with_intervals(run_dir: Path) -> None:
    head = page(run_dir).split("<h2>All scores")[0]
    assert (
        "30.0 %" in head and "19.9 % – 42.5 %" in head and "base: McNemar p = 0.012, permutation p &lt; 0.001" in head
    )
    assert "visible" not in head and "best-of-k" not in head


def opening(folder: Path) -> list[str]:
    return [line.replace("&nbsp;", " ") for line in re.findall(r'class="opening">(.*?)</p>', page(folder))]


def test_three_sentences_come_first_what_was_trained_what_changed_how_sure(run_dir: Path) -> None:
    sizes = {"attempts": 2400, "tasks": 150, "steps": 60, "examples": 1}
    facts = {"mining": sizes, "sft": sizes, "gmpo": {"tasks": 9, "history": [{}]}}
    for name, content in facts.items():
        (run_dir / f"{name}.json").write_text(json.dumps(content))
    (run_dir / "environment.json").write_text('{"chosen_model": "coder"}')
    (run_dir / "comparisons.csv").write_text(
        "model,protocol,difference_lo,difference_hi,p_permutation,p_holm\n"
        "rsft,greedy,0.04,0.25,0.0004,0.0008\ngmpo,greedy,-0.02,0.1,0.04,0.08\nrsft,draws,0,0,1,1\n"
    )
    first, second, third = opening(run_dir)
    assert first == (
        "The model coder wrote 2,400 programs for 150 training tasks, and RSFT trained it for 60 steps on 1 of those "
        "that passed every test; GMPO then trained the result on 9 tasks for 1 step."
    )
    assert second == (
        "The share of greedy answers that pass the hidden tests of 60 held-out tasks is 15.0 % with base, 30.0 % with "
        "rsft."
    )
    assert third == (
        "Against the base the change of rsft lies between +4.0 and +25.0 points (95 % interval, p &lt; 0.001), which "
        "chance alone seldom gives; that of gmpo lies between -2.0 and +10.0 points (95 % interval, p = 0.080), which "
        "chance alone could give."
    )
    assert page(run_dir).index('class="opening"') < page(run_dir).index("<h2>")


def test_a_sentence_whose_facts_are_missing_says_so(tmp_path: Path) -> None:
    words = ("What was trained is not known", "What changed is not known", "Nothing here says how sure this is")
    assert all(line.startswith(start) for line, start in zip(opening(tmp_path), words, strict=True))


def test_a_figure_has_a_heading_and_an_alt_text_with_what_its_rows_do_not_share(run_dir: Path) -> None:
    (run_dir / "figures" / "1_scores.csv").write_text("k,solved,split\n1,0.12345,test\n2,0.5,test\n")
    words = "pass@1 &lt;of&gt; ৬০ tasks k 1, solved 0.123; k 2, solved 0.5"
    assert f'<h3>1 scores</h3><figure><img alt="{words}"' in page(run_dir)
    rows = "".join(f"{k},0.5,test\n" for k in range(20))
    (run_dir / "figures" / "1_scores.csv").write_text(f"k,solved,split\n{rows}")
    assert "k 7; and 12 more rows, below" in page(run_dir)


def test_headings_go_down_one_level_at_a_time_and_cells_name_their_column(run_dir: Path) -> None:
    levels = [int(level) for level in re.findall(r"<h([1-6])>", page(run_dir))]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    assert 'role="cell" data-name="measured on">greedy' in page(run_dir) and 'scope="col">rate' in page(run_dir)


def test_every_score_row_is_in_the_page(run_dir: Path) -> None:
    assert "best-of-k" in page(run_dir) and ">visible</td>" in page(run_dir)


def test_a_figure_is_inside_the_page_with_caption_and_data(run_dir: Path) -> None:
    text = page(run_dir)
    assert f"data:image/png;base64,{base64.b64encode(PNG).decode()}" in text
    assert "pass@1 &lt;of&gt; ৬০ tasks" in text and ">7</td>" in text


def test_parameters_versions_commit_and_command_are_told(run_dir: Path) -> None:
    text = page(run_dir)
    for wanted in (
        "যোগফল &lt;b&gt;",
        "2.13.0",
        "a" * 40,
        "changes that are not committed",
        "143 s",
        "not finished",
    ):
        assert wanted in text, wanted
    command = "python -m lib run --preset cpu --set draws=5 --set &#x27;prompt=two words&#x27; --run-dir runs/cpu"
    assert command in text


def test_nothing_is_fetched_from_elsewhere(run_dir: Path) -> None:
    assert not re.search(r"""(?:src|href|url\(|@import)\s*=?\s*["'(]?\s*(?!data:)(?:https?:)?//""", page(run_dir))
    assert "<script" not in page(run_dir) and "<link" not in page(run_dir)


def test_what_comes_from_files_cannot_become_markup(run_dir: Path) -> None:
    evil = "<script>alert(1)</script>"
    (run_dir / "scores.csv").write_text(SCORES + f'{evil},test,python,hidden,greedy,0,60,1,0.1,0,0.2,"{evil}",,\n')
    (run_dir / "banners.txt").write_text(evil)
    (run_dir / "figures" / f"{evil[1:7]}.png").write_bytes(PNG)
    (run_dir / "figures" / f"{evil[1:7]}.txt").write_text(evil)
    manifest = {**MANIFEST, "parameters": {evil: {evil: evil}}, "versions": {evil: evil}, "run_id": evil}
    (run_dir / "manifest.json").write_text(json.dumps(manifest))
    assert "<script" not in page(run_dir)


def test_banners_come_first_one_a_line(run_dir: Path) -> None:
    (run_dir / "banners.txt").write_text("3 training tasks overlap\n\nsplit guard overridden\n")
    found = re.findall(r'class="banner" role="alert">([^<]*)<', page(run_dir).split("<h1>")[0])
    assert found == ["3 training tasks overlap", "split guard overridden"]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    found = re.findall(r'class="missing">Missing: ([\w.*/]+)', page(tmp_path))
    assert {"manifest.json", "scores.csv", "figures/*.png"} <= set(found)


@pytest.mark.parametrize("name", ["manifest.json", "scores.csv"])
def test_a_broken_file_is_no_reason_to_crash(run_dir: Path, name: str) -> None:
    (run_dir / name).write_bytes(b"\xff{broken")
    assert "</html>" in page(run_dir)


def test_numbers_that_are_not_there_are_dashes(run_dir: Path) -> None:
    (run_dir / "scores.csv").write_text("model,protocol,rate\nbase,greedy,\n")
    assert re.search(r">—</td><td[^>]*>— – —</td>", page(run_dir))


def test_comparisons_show_p_and_p_adjusted_over_the_declared_family(run_dir: Path) -> None:
    (run_dir / "comparisons.csv").write_text(
        "model,protocol,difference,difference_lo,difference_hi,p_permutation,mde,p_holm\n"
        "rsft,draws,0.04,0.01,0.08,0.02,0.05,0.04\nrsft,greedy,0.02,-0.01,0.05,0.3,inf,\n"
    )
    cells = re.findall(r"<td[^>]*>(.*?)</td>", page(run_dir).split("<h2>Against the base")[1].split("<h2>Figures")[0])
    assert cells[:6] == ["rsft", "draws", "+4.0 [+1.0, +8.0]", "p = 0.020", "p = 0.040", "5.0"]
    assert cells[9:] == ["p = 0.300", "—", "—"]
