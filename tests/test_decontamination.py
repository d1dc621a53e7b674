"""The screen finds what it should, misses nothing above a threshold, and puts on paper what it found."""

import csv
import dataclasses
import itertools
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks.planting import (
    SYNTAXES,
    Disguise,
    Writer,
    planted_sides,
    random_program,
    score_planted,
)
from lib.decontamination import (
    Outcome,
    SplitOverlapError,
    Thresholds,
    check_split,
    decontaminate,
    duplicates,
    guard_run,
    screen,
    verbatim,
)
from lib.decontamination.canonical import Headers, canonical_code, canonical_prompt
from lib.decontamination.join import Index
from lib.decontamination.screen import SMALLEST_STRUCTURE
from lib.decontamination.shingles import Sets, character_ngrams, concatenate
from lib.decontamination.structure import LANGUAGES, structure_sets, subtrees
from lib.figures.mining import solved_against_k
from lib.figures.style import stamp
from lib.tasks import readers as corpora
from lib.tasks.task import Case, Task, TaskError, write_tasks

EXTERNAL = Path(__file__).parent.parent / "data" / "external"
STARTER = Path(__file__).parent.parent / "data"
external = pytest.mark.skipif(not EXTERNAL.is_dir(), reason="data/external is absent: no public corpora to screen")
ODD = st.text(st.sampled_from("ab01 \n\t'\"#-[]=(*)!\\`.:eEx_কি১\u09dfİ") | st.characters(max_codepoint=0x3000))


def task(name: str, prompt: str = "", code: str = "", language: str = "python", **more: str) -> Task:
    prompt = prompt or " ".join("".join(random.Random(f"{name}{i}").choices("abcdefgh", k=6)) for i in range(9))
    return Task(
        name,
        more.get("source", "s"),
        "any",
        prompt,
        "en",
        language,
        "program",
        reference=code,
        family=more.get("family", ""),
    )


def pairs(outcome: Outcome) -> set[tuple[str, str]]:
    return {(match.train.id, match.evaluation.id) for match in outcome.excluded}


# ---------------------------------------------------------------------- canonical forms


@given(ODD, st.booleans())
@settings(max_examples=400)
def test_canonical_prompts_are_idempotent(text: str, numbers: bool) -> None:
    once = canonical_prompt(text, numbers)
    assert canonical_prompt(once, numbers) == once


NUMBERS = st.text(st.sampled_from("0159.._exdflxijL+-ab'()[]\"%$ \n"), max_size=12)


@given(NUMBERS, st.sampled_from(LANGUAGES), st.booleans())
@settings(max_examples=600)
def test_canonical_code_is_idempotent_around_numbers(text: str, language: str, numbers: bool) -> None:
    once = canonical_code(text, language, numbers)
    assert canonical_code(once, language, numbers) == once


@given(ODD, st.sampled_from(LANGUAGES), st.booleans())
@example('x = "a\ny = "b', "python", False)
@example("x = 'a\ny = 'b", "lua", False)
@example("(* a (* b *)", "ocaml", False)
@settings(max_examples=600)
def test_canonical_code_is_idempotent(text: str, language: str, numbers: bool) -> None:
    once = canonical_code(text, language, numbers)
    assert canonical_code(once, language, numbers) == once


@pytest.mark.parametrize(
    ("language", "code", "expected"),
    [
        ("python", 'x = 12  # twelve\n"""doc"""\ny = "# no"', "x = 0 y = no"),
        ("lua", "x = 0x1F -- hex\n--[[ long\nnote ]] y = [[-- no]]", "x = 0 y = no"),
        ("ocaml", 'let x = 1.5e-3 (* a (* nested *) note *) in "(* no *)"', "let x = 0 in no"),
        ("r", "x <- 1e5 # note\ny <- 'no # no'", "x < - 0 y < - no no"),
        ("fortran", "x = 1.0 ! note\ny = '! no'", "x = 0 y = no"),
        ("julia", 'x = 10 #= a #= nested =# note =# # rest\ny = "# no"', "x = 0 y = no"),
    ],
)
def test_comments_and_literals_go_and_strings_keep_their_words(language: str, code: str, expected: str) -> None:
    assert canonical_code(code, language) == expected


def test_examples_asserts_case_and_numbers_do_not_make_a_prompt_another() -> None:
    first = "Return the First 10 items.\nExample:\ndef f(x):\n    return x"
    second = "return the first [2, 3] items!\n# assert f(1) == 2"
    assert canonical_prompt(first) == canonical_prompt(second) == "return the first 0 items"
    assert canonical_prompt(first, numbers=True) != canonical_prompt(second, numbers=True)


def test_a_template_around_prompts_is_told_from_how_often_it_occurs() -> None:
    words = ["red", "green", "blue", "black", "white"]
    stated = [" ".join(some) for some in itertools.permutations(words, 3)]
    headers = Headers(f"You write code.\nOnly `f{i}` counts.\n{text}\nGo!" for i, text in enumerate(stated))
    assert headers.remove("You write code.\nOnly `other` counts.\nred white blue\nGo!") == "red white blue"
    assert headers.remove("Go!") == "Go!"


SAME_CODE = [
    ("fortran", "if (a.lt..5 .and. 1.eq.b) x = 1.d0", "if (a.lt.2 .and. 7.5.eq.b) x = 1.0_dp"),
    ("r", "z <- 5L + 1e-3", "z <- .25 + 1i"),
    ("ocaml", "let x = 1_000L in x +. 1.", "let x = 2n in x +. .5"),
    ("lua", "s = 0x1Fp3 .. 'a'", 's = 7 .. "a"'),
    ("julia", "y = 2x + 1.0f0", "y = 3x + 4"),
    ("python", "a = b\\\n    .c(1_000, 3j)", "a = b\\\n.c(0xFF, .5e-3)"),
]
OTHER_CODE = [
    ("r", "x.5 <- 1", "x.6 <- 1"),
    ("lua", "t.x5 = t.y", "t.x6 = t.y"),
    ("ocaml", "let x'1 = 2", "let x'2 = 2"),
    ("fortran", "if (1.eq.b) stop", "if (1.ne.b) stop"),
    ("python", "y = 5.0.is_integer()", "y = 5.0.hex()"),
    ("julia", "y = 2x + z2", "y = 2x + z3"),
    ("julia", "C = A' * B'", "C = A' + B'"),
]


@pytest.mark.parametrize(("language", "one", "other"), SAME_CODE)
def test_numbers_however_they_are_written_are_one_literal(language: str, one: str, other: str) -> None:
    assert canonical_code(one, language) == canonical_code(other, language)


@pytest.mark.parametrize(("language", "one", "other"), OTHER_CODE)
def test_a_digit_in_a_name_is_no_literal(language: str, one: str, other: str) -> None:
    assert canonical_code(one, language) != canonical_code(other, language)


# ---------------------------------------------------------------------- the join


def sets(*members: set[int]) -> Sets:
    """Sets of small numbers, as sets of hashes."""
    return concatenate([character_ngrams(["".join(map(chr, sorted(some)))], 1).distinct() for some in members])


def jaccard_pairs(left: list[set[int]], right: list[set[int]], floor: float) -> set[tuple[int, int]]:
    return {
        (i, j)
        for (i, a), (j, b) in itertools.product(enumerate(left), enumerate(right))
        if a & b and len(a & b) / len(a | b) >= floor
    }


SMALL = st.lists(st.sets(st.integers(1, 30), max_size=20), min_size=1, max_size=8)


@given(SMALL, SMALL, st.integers(50, 1000).map(lambda thousandths: thousandths / 1000))  # the join rounds at 1e-12
@settings(deadline=None)
def test_the_join_finds_every_pair_and_no_other(left: list[set[int]], right: list[set[int]], floor: float) -> None:
    rows, columns, scores = Index(sets(*right), floor).match(sets(*left).grams())
    assert set(zip(rows.tolist(), columns.tolist(), strict=True)) == jaccard_pairs(left, right, floor)
    for i, j, score in zip(rows, columns, scores, strict=True):
        assert score == pytest.approx(len(left[i] & right[j]) / len(left[i] | right[j]))


@pytest.mark.parametrize("floor", [0.5, 0.65, 0.9])
def test_large_sets_that_are_counted_by_sample_are_still_all_found(floor: float) -> None:
    """Sets grown to just the floor share the least they may, and a sample often falls short."""
    rng = np.random.default_rng(1)
    right = [set(rng.choice(9000, int(np.ceil(1500 * floor)), replace=False).tolist()) for _ in range(40)]
    left = []
    for some, size in zip(right, itertools.cycle([1500, 1500, 1490, 1520, 2500]), strict=False):
        fresh = rng.choice(np.arange(9000, 12000), size - len(some), replace=False).tolist()
        left.append(some | set(fresh))
    rows, columns, _ = Index(sets(*right), floor).match(sets(*left).grams())
    expected = jaccard_pairs(left, right, floor)
    assert set(zip(rows.tolist(), columns.tolist(), strict=True)) == expected
    assert len(expected) == 24


@given(st.lists(st.text(max_size=12), max_size=8), st.integers(1, 5))
def test_ngrams_are_those_of_each_text_alone(texts: list[str], n: int) -> None:
    sizes = character_ngrams(texts, n).distinct().sizes.tolist()
    padded = [text.ljust(n, "\0") if text else "" for text in texts]
    assert sizes == [len({text[i : i + n] for i in range(len(text) - n + 1)}) for text in padded]


# ---------------------------------------------------------------------- structure


@pytest.mark.parametrize("language", SYNTAXES)
def test_a_disguise_leaves_the_subtrees_as_they_are(language: str) -> None:
    program = random_program(random.Random(language))
    plain = Writer(language, Disguise()).program(program)
    disguised = Writer(language, Disguise("other", "order", "literals", ("eine Notiz",) * 5)).program(program)
    assert plain != disguised
    assert sorted(subtrees(plain, language)) == sorted(subtrees(disguised, language))
    assert len(subtrees(plain, language)) >= SMALLEST_STRUCTURE


@pytest.mark.parametrize("language", SYNTAXES)
def test_comments_are_no_part_of_the_structure(language: str) -> None:
    code = Writer(language, Disguise()).program(random_program(random.Random(language)))
    mark = SYNTAXES[language].note.split()[0]
    bare = "\n".join(line for line in code.split("\n") if not line.lstrip().startswith(mark))
    assert bare != code
    assert sorted(subtrees(bare, language)) == sorted(subtrees(code, language))


@pytest.mark.parametrize("language", SYNTAXES)
def test_random_programs_parse(language: str) -> None:
    for seed in range(20):
        code = Writer(language, Disguise()).program(random_program(random.Random(seed)))
        assert not any("ERROR" in label for label in subtrees(code, language))


@pytest.mark.parametrize(
    ("language", "command", "suffix"),
    [
        ("lua", ["luac5.4", "-p"], "lua"),
        ("ocaml", ["ocamlc", "-c"], "ml"),
        ("fortran", ["gfortran", "-fsyntax-only"], "f90"),
        ("r", ["Rscript", "-e", "invisible(parse(commandArgs(TRUE)[1]))"], "R"),
    ],
)
def test_random_programs_compile(language: str, command: list[str], suffix: str, tmp_path: Path) -> None:
    if not shutil.which(command[0]):
        pytest.skip(f"{command[0]} is missing")
    path = tmp_path / f"program.{suffix}"
    path.write_text(Writer(language, Disguise()).program(random_program(random.Random(1))))
    run = subprocess.run([*command, str(path)], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("language", SYNTAXES)
def test_one_more_statement_is_another_structure(language: str) -> None:
    program = random_program(random.Random(language))
    number, parameters, statements, result = program[0]
    longer = [(number, parameters, [*statements, ("assign", 0, ("number", 5))], result), *program[1:]]
    codes = [Writer(language, Disguise()).program(some) for some in (program, longer)]
    assert sorted(subtrees(codes[0], language)) != sorted(subtrees(codes[1], language))


@pytest.mark.parametrize("code", ["def f(:", "", "\0", "x = " + "(" * 5000])
def test_what_does_not_parse_has_no_structure(code: str) -> None:
    assert structure_sets([("python", code), ("cobol", "MOVE 1 TO X.")]).sizes.tolist() == [0, 0]


@pytest.mark.parametrize("language", SYNTAXES)
def test_planted_overlaps_are_found_and_clean_programs_are_not(language: str) -> None:
    """A small run of the measurement in benchmarks/decontamination.py."""
    train, evaluation = planted_sides(language, 36)
    found = score_planted(36, pairs(screen(train, evaluation)))
    assert found.recall >= 0.95
    assert found.precision >= 0.98
    assert min(found.by_kind.values()) >= 0.9


def test_programs_of_unrelated_starter_tasks_seldom_match() -> None:
    """Real programs in five languages: of all pairs of different families, fewer than one in a thousand."""
    tasks = corpora.read(STARTER / "starter_io.jsonl")
    family = {some.task_id: some.family for some in tasks}
    wrong = [pair for pair in pairs(screen(tasks, tasks)) if family[pair[0]] != family[pair[1]]]
    others = sum(a != b for a, b in itertools.product(family.values(), repeat=2))
    assert len(wrong) < others / 400


def test_verbatim_finds_a_prompt_inside_a_longer_one_and_nothing_like_it() -> None:
    train = [task("1", "Write it.\n add two numbers:\ndef f(a)\nGo!"), task("2", "add two numbers:\ndef g(a)")]
    held_out = [task("a", "add two numbers:\ndef f(a)\n"), task("b", "Add two numbers:\ndef f(a)")]
    assert verbatim(train, held_out) == {"a": ["1"]}


# ---------------------------------------------------------------------- tasks inside longer texts

MERGE = "Given a list of intervals, merge those that overlap and return them ordered by their start."
VOWELS = "Find how many vowels a sentence has and give back the letters that occur most often."
LONG = " ".join(f"Rule {i}: think about step {i * 7} before you write line {i}." for i in range(60))
WRITTEN = {
    "as it is": MERGE,
    "capitals": MERGE.upper(),
    "decomposed and full-width": "Ｇｉｖｅｎ " + MERGE[6:].replace(",", " ,"),
    "marked up": MERGE.replace("merge", "**merge**").replace("list", "_list_"),
    "line ends escaped": MERGE.replace(" ", "\\n", 1),
    "html": MERGE.replace("intervals,", "&quot;intervals&quot;,"),
    "over lines": MERGE.replace(" ", "\n> ", 3),
    "invisible characters": MERGE.replace("merge", "mer\u00adge\u200d"),
}


@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN)
def test_a_task_inside_a_longer_text_is_found_in_both_directions(written: str) -> None:
    longer = task("long", f"{LONG} Question:{written} {LONG}")
    assert pairs(screen([longer, task("x")], [task("e", MERGE), task("f", VOWELS)])) == {("long", "e")}
    assert pairs(screen([task("t", MERGE), task("x")], [longer, task("f", VOWELS)])) == {("t", "long")}
    with pytest.raises(SplitOverlapError, match="contained-prompt"):
        check_split([longer], [task("e", MERGE)])


def test_two_tasks_in_one_prompt_are_both_found_also_behind_an_example() -> None:
    both = task("both", f"{VOWELS}\nExample:\nassert f('a') == 1\n{MERGE}")
    assert pairs(screen([both], [task("e", MERGE), task("f", VOWELS)])) == {("both", "e"), ("both", "f")}


def test_a_task_that_many_prompts_repeat_is_no_header_of_theirs() -> None:
    train = [task(f"{i}", f"{task(str(i)).prompt}\n{MERGE}") for i in range(30)]
    assert len(pairs(screen(train, [task("e", MERGE)]))) == 30


@pytest.mark.parametrize("around", [LONG, "You are a careful programmer who writes clean code. Question:"])
def test_a_shared_wrapper_alone_is_no_match(around: str) -> None:
    assert not screen([task("t", f"{around} {MERGE} {around}")], [task("e", f"{around} {VOWELS} {around}")]).excluded


def test_a_near_duplicate_in_the_same_wrapper_is_one() -> None:
    changed = MERGE.replace("list", "tuple")
    assert pairs(screen([task("t", f"{LONG} {MERGE}")], [task("e", f"{LONG} {changed}")])) == {("t", "e")}


@pytest.mark.parametrize(
    ("longer", "found"),
    [
        ("Be brief. Reverse a string. Explain it.", True),
        ("Task: reverse a string\nOnly code.", True),
        ("Reverse a string and count what it holds without a loop.", False),
        ("Do not reverse a string twice.", False),
    ],
)
def test_a_short_task_has_to_be_a_sentence_of_the_longer_text(longer: str, found: bool) -> None:
    assert bool(screen([task("t", longer)], [task("e", "Reverse a string!")]).excluded) is found
    assert bool(screen([task("t", "Reverse a string!")], [task("e", longer)]).excluded) is found


def test_every_copy_within_a_side_is_listed(tmp_path: Path) -> None:
    train = [task("1", MERGE), task("2", VOWELS), task("3", MERGE.upper()), task("4", f" {MERGE}\n")]
    assert duplicates(train) == [("1", "3"), ("1", "4"), ("3", "4")]
    assert duplicates([task("1", MERGE), task("2", MERGE.replace("list", "tuple"))]) == []
    assert duplicates([task("1", MERGE), task("2", MERGE, language="lua")]) == []
    decontaminate(train, [task("e", MERGE)], tmp_path)
    with (tmp_path / "duplicates.csv").open(encoding="utf-8", newline="") as stream:
        assert list(csv.reader(stream))[1:] == [["train", "1", "3"], ["train", "1", "4"], ["train", "3", "4"]]
    assert excluded_ids(tmp_path) == ["1", "3", "4", "e"]


# ---------------------------------------------------------------------- the real files


@pytest.fixture(scope="module")
def blp() -> dict[str, list[Task]]:
    names = ("dev_v2.csv", "test_v1.csv", "troopers_rsft_ds.jsonl")
    return {name: corpora.read(EXTERNAL / "blp" / name) for name in names}


@external
def test_the_155_leaked_tasks_are_named(blp: dict[str, list[Task]]) -> None:
    """Against ids found by plain search: the instruction as released, inside a training text as released."""
    with (EXTERNAL / "blp/test_v1.csv").open(encoding="utf-8", newline="") as stream:
        instructions = {row["id"]: row["instruction"].strip() for row in csv.DictReader(stream)}
    texts = [some.prompt for some in blp["troopers_rsft_ds.jsonl"]]
    leaked = {name for name, text in instructions.items() if any(text in whole for whole in texts)}
    assert len(leaked) == 155
    quoted = verbatim(blp["troopers_rsft_ds.jsonl"], blp["test_v1.csv"])
    assert set(quoted) == leaked and len({row for rows in quoted.values() for row in rows}) == 382
    outcome = screen(blp["troopers_rsft_ds.jsonl"], blp["test_v1.csv"])
    exact = {match.evaluation.id for match in outcome.excluded if match.reason == "exact-prompt"}
    assert leaked <= exact  # recall 1
    # Precision 155/156: 363 reads word for word like 224, which leaked: one Bangla word for cube and cuboid.
    assert exact - leaked == {"363"}
    assert (
        len({match.train.id for match in outcome.excluded if match.evaluation.id in leaked and match.score == 1}) >= 382
    )


@external
def test_the_three_exact_pairs_of_dev_and_test(blp: dict[str, list[Task]]) -> None:
    outcome = screen(blp["dev_v2.csv"], blp["test_v1.csv"])
    exact = {(match.train.id, match.evaluation.id) for match in outcome.excluded if match.reason == "exact-prompt"}
    assert exact == {("2", "207"), ("104", "238"), ("272", "206")}


@external
def test_about_fifty_near_duplicates_of_dev_in_test(blp: dict[str, list[Task]]) -> None:
    outcome = screen(blp["dev_v2.csv"], blp["test_v1.csv"])
    near = {match.evaluation.id for match in outcome.excluded if match.reason == "near-prompt"}
    assert 45 <= len(near) <= 57
    assert {("83", "178"), ("317", "433"), ("24", "467")} <= pairs(outcome)


@external
def test_every_near_duplicate_of_dev_in_test_has_been_judged(blp: dict[str, list[Task]]) -> None:
    outcome = screen(blp["dev_v2.csv"], blp["test_v1.csv"])
    near = {(m.train.id, m.evaluation.id) for m in outcome.excluded if m.reason == "near-prompt"}
    assert near == {(row["train_id"], row["eval_id"]) for row in judged()}


def test_judgements_are_words_of_our_own() -> None:
    """Ids and judgements only: no sentence of a corpus is kept here."""
    assert {row["judgement"] for row in judged()} == {"same", "variant", "other"}
    assert all(row["difference"].isascii() and len(row["difference"]) < 80 for row in judged())


def judged() -> list[dict[str, str]]:
    with (STARTER / "blp_near_duplicates.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@external
def test_no_pair_above_a_threshold_is_retained(blp: dict[str, list[Task]]) -> None:
    dev, test = blp["dev_v2.csv"], blp["test_v1.csv"]
    exclusions = screen(dev, test).exclusions()
    named = {side: {row.id for row in exclusions if row.side == side} for side in ("train", "eval")}
    assert not screen([some for some in dev if some.task_id not in named["train"]], test).excluded
    assert not screen(dev, [some for some in test if some.task_id not in named["eval"]]).excluded


@external
def test_the_list_depends_on_no_order(blp: dict[str, list[Task]]) -> None:
    dev, test = blp["dev_v2.csv"], blp["test_v1.csv"]
    first = screen(dev, test)
    again = screen(dev[::-1], sorted(test, key=lambda some: some.prompt))
    assert first.exclusions() == again.exclusions()
    assert first.summary() == again.summary()
    assert [(m.train.id, m.evaluation.id) for m in first.borderline] == [
        (m.train.id, m.evaluation.id) for m in again.borderline
    ]


def test_the_starter_splits_do_not_overlap() -> None:
    for name in ("starter_bn", "starter_io"):
        tasks = corpora.read(STARTER / f"{name}.jsonl")
        sides = [[some for some in tasks if (some.split == "train") is inside] for inside in (True, False)]
        assert not check_split(*sides)


# ---------------------------------------------------------------------- decisions and files

BASE = "return the sum of all the even numbers that stand in the given list of numbers"
NEAR = "return the sum of all the even numbers that stand in the given tuple of numbers"  # above 0.70
FURTHER = "give the sum of all the even numbers standing in the given list of items"  # near it, below


def two_sides() -> tuple[list[Task], list[Task]]:
    return [task("1", BASE), task("2", NEAR), task("3", FURTHER), task("4")], [task("e", BASE), task("f")]


def borderline(folder: Path) -> list[dict[str, str]]:
    with (folder / "borderline.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def review(folder: Path, decide: dict[str, str]) -> None:
    rows = borderline(folder)
    for row in rows:
        row["decision"] = decide.get(row["train_id"], row["decision"])
    with (folder / "borderline.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def excluded_ids(folder: Path) -> list[str]:
    with (folder / "exclusions.csv").open(encoding="utf-8", newline="") as stream:
        return [row["id"] for row in csv.DictReader(stream)]


WIDE = Thresholds(margin=0.25)


def test_exclusions_name_both_sides(tmp_path: Path) -> None:
    train, evaluation = two_sides()
    decontaminate(train, evaluation, tmp_path)
    with (tmp_path / "exclusions.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["side", "id", "matched_id", "reason", "score", "sha256"]
    assert [row[:4] for row in rows[1:]] == [
        ["train", "1", "e", "exact-prompt"],
        ["train", "2", "e", "near-prompt"],
        ["eval", "e", "1", "exact-prompt"],
    ]
    assert rows[1][5] == rows[3][5]  # the same text has the same digest
    assert all(len(row[5]) == 64 for row in rows[1:])
    assert excluded_ids(tmp_path) == ["1", "2", "e"]


def test_decisions_are_obeyed_and_kept_on_the_next_run(tmp_path: Path) -> None:
    train, evaluation = two_sides()
    decontaminate(train, evaluation, tmp_path, thresholds=WIDE)
    assert {row["train_id"] for row in borderline(tmp_path)} == {"2", "3"}
    review(tmp_path, {"2": "keep", "3": "Exclude "})
    for _ in range(2):
        outcome = decontaminate(train, evaluation, tmp_path, thresholds=WIDE)
        assert [(row.id, row.reason) for row in outcome.exclusions() if row.side == "train"] == [
            ("1", "exact-prompt"),
            ("3", "reviewed"),
        ]
        assert {row["train_id"]: row["decision"] for row in borderline(tmp_path)} == {
            "2": "keep",
            "3": "exclude",
        }


def test_a_decision_follows_the_text_not_the_id(tmp_path: Path) -> None:
    train, evaluation = two_sides()
    decontaminate(train, evaluation, tmp_path, thresholds=WIDE)
    review(tmp_path, {"2": "keep"})
    renamed = [dataclasses.replace(some, task_id=f"new {some.task_id}") for some in train]
    outcome = decontaminate(renamed, evaluation, tmp_path, thresholds=WIDE)
    assert "new 2" not in {row.id for row in outcome.exclusions()}


def test_no_decision_frees_an_exact_match(tmp_path: Path) -> None:
    train, evaluation = two_sides()
    outcome = screen(train, evaluation)
    exact = next(match for match in outcome.excluded if match.reason == "exact-prompt")
    again = screen(train, evaluation, decisions={(exact.train.sha256, exact.evaluation.sha256): "keep"})
    assert pairs(again) == pairs(outcome)


def test_an_unreadable_decision_stops_the_run_and_changes_nothing(tmp_path: Path) -> None:
    train, evaluation = two_sides()
    decontaminate(train, evaluation, tmp_path, thresholds=WIDE)
    review(tmp_path, {"2": "maybe"})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(TaskError, match=r"borderline.csv: row \d: decision is 'maybe'"):
        decontaminate(train[:1], evaluation, tmp_path, thresholds=WIDE)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_each_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, evaluation = two_sides()
    decontaminate(train, evaluation, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    calls: Iterator[int] = itertools.count()

    def full_disk(_: int) -> None:
        if next(calls) == 3:  # the exclusion list, the last one
            raise OSError("no space left")

    monkeypatch.setattr("lib.base.files.os.fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        decontaminate(train[:1], evaluation, tmp_path)
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert after.keys() == before.keys() and after["exclusions.csv"] == before["exclusions.csv"]


def test_the_borderline_sample_is_seeded_and_bounded(tmp_path: Path) -> None:
    words = BASE.split()
    train = [task(str(i), " ".join([*words[:i], "other", *words[i + 3 :]])) for i in range(len(words) - 2)]
    drawn = [
        [row["train_id"] for row in borderline(tmp_path)]
        for seed in (1, 1, 2, 3)
        if decontaminate(train, [task("e", BASE)], tmp_path, seed=seed, thresholds=WIDE, sample=4)
    ]
    assert [len(some) for some in drawn] == [4] * 4
    assert drawn[0] == drawn[1]
    assert len({tuple(some) for some in drawn}) > 1


@pytest.mark.parametrize(
    ("train", "evaluation", "message"),
    [
        ([], [task("e")], "training side has no tasks"),
        ([task("1")], [], "evaluation side has no tasks"),
        ([task("1"), task("1", "x y")], [task("e")], "two tasks with the id '1'"),
    ],
)
def test_sides_that_cannot_be_screened_are_refused(
    tmp_path: Path, train: list[Task], evaluation: list[Task], message: str
) -> None:
    with pytest.raises(TaskError, match=message):
        decontaminate(train, evaluation, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("change", [{"prompt": 0.0}, {"code": 1.5}, {"margin": 1.0}])
def test_impossible_thresholds_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        Thresholds(**change)  # type: ignore[arg-type]


def test_the_same_program_in_another_language_is_another_program() -> None:
    code = "x = 1\ny = x + 2\nz = y * x\n" * 4
    outcome = screen([task("1", code=code, language="julia")], [task("ee", code=code, language="python")])
    assert not outcome.excluded


def test_empty_prompts_and_programs_match_nothing() -> None:
    assert not screen([task("1", "!?", "# note")], [task("ee", "…", "# other")]).excluded


# ---------------------------------------------------------------------- split guard


def test_the_guard_names_the_ids() -> None:
    train, evaluation = two_sides()
    with pytest.raises(SplitOverlapError, match=r"2 pairs: 1 ↔ e \(exact-prompt\); 2 ↔ e \(near-prompt\)"):
        check_split(train, evaluation)


def test_an_allowed_overlap_is_reported_and_bannered() -> None:
    overlap = check_split(*two_sides(), allow_overlap=True)
    assert overlap and overlap.allowed
    assert (overlap.train_ids, overlap.evaluation_ids) == (("1", "2"), ("e",))
    assert "1 evaluation tasks overlap with training (e)" in overlap.banner()


def run_with(folder: Path, train: list[Task], held_out: list[Task]) -> Path:
    """A run folder with these tasks, the held-out ones as development and as test split."""
    (folder / "tasks").mkdir()
    for name, tasks in (("train", train), ("dev", held_out), ("test", held_out)):
        whole = [dataclasses.replace(one, cases=(Case("1\n", "1\n"),)) for one in tasks]
        write_tasks(folder / "tasks" / f"{name}.jsonl", whole)
    return folder


def test_a_run_whose_sides_overlap_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SplitOverlapError, match="1 ↔ e"):
        guard_run(run_with(tmp_path, *two_sides()))
    assert not (tmp_path / "banners.txt").exists()


def test_an_allowed_overlap_heads_every_figure_of_the_run(tmp_path: Path) -> None:
    guard_run(run_with(tmp_path, *two_sides()), allow_overlap=True)
    figure = stamp(solved_against_k(np.ones((2, 3), bool))[0], tmp_path)
    assert "TRAINED ON EVALUATION TASKS" in figure.get_suptitle()


def test_a_run_that_is_mended_loses_its_banner(tmp_path: Path) -> None:
    (tmp_path / "banners.txt").write_text("TRAINED ON EVALUATION TASKS")
    assert not guard_run(run_with(tmp_path, [task("1")], [task("ee")]))
    assert stamp(solved_against_k(np.ones((2, 3), bool))[0], tmp_path).get_suptitle() == ""


def test_disjoint_sides_pass_without_a_banner() -> None:
    overlap = check_split([task("1")], [task("ee")])
    assert not overlap and overlap.banner() == ""


@pytest.mark.parametrize(
    ("mine", "theirs", "reason"),
    [
        (task("a", "one text here"), task("a", "another body there"), "same-id"),
        (task("a", "one text here", family="f"), task("b", "another body there", family="f"), "same-family"),
    ],
)
def test_the_guard_goes_by_names_too(mine: Task, theirs: Task, reason: str) -> None:
    assert check_split([mine], [theirs], allow_overlap=True).pairs == ((mine.task_id, theirs.task_id, reason),)


def test_equal_ids_of_different_sources_are_no_overlap() -> None:
    assert not check_split([task("7", "one text here", source="dev")], [task("7", "another body there", source="test")])
