"""The command line: `python -m lib COMMAND`. Each command has --help; bad input gives one line and a non-zero exit."""

import argparse
import collections
import contextlib
import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, get_args

from lib.base.errors import WorkbookError
from lib.sandbox import Status

if TYPE_CHECKING:
    from lib.sandbox import Sandbox, Verdict
    from lib.tasks.task import Case, Task

Payload = dict[str, Any]


class CommandError(WorkbookError):
    """Input a command cannot use; the message is the one line the user sees."""


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """One line on stderr, exit status 2."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


# ------------------------------------------------------------------------------------------------------------ commands
# Each takes the parsed arguments and returns the JSON object and the same in words.


def run(args: argparse.Namespace) -> tuple[Payload, str]:
    """Run the notebooks as stages, skipping those that are finished."""
    from lib.run import pipeline

    notebooks = Path(args.notebooks).resolve() if args.notebooks else pipeline.NOTEBOOKS
    checked = pipeline.plan(args.preset, args.set, args.first, args.last, args.run_dir, notebooks)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite end is an end like Ctrl-C
    done = pipeline.run(checked, say=say, verbose=args.verbose)
    return done, f"report: {done['report']}"


def sweep(args: argparse.Namespace) -> tuple[Payload, str]:
    """Run several presets or seeds, some at a time."""
    from lib.run import pipeline
    from lib.run import sweep as sweeping

    if args.jobs < 1:
        raise CommandError(f"--jobs {args.jobs}: runs at a time, so 1 or more")
    notebooks = Path(args.notebooks).resolve() if args.notebooks else pipeline.NOTEBOOKS
    members = sweeping.members(args.preset, read_seeds(args.seeds), args.out)
    for member in members:  # all are checked before one starts
        settings = [*args.set, f"seed={member.seed}"]
        pipeline.plan(member.preset, settings, args.first, args.last, member.run_dir, notebooks)
    given = [word for setting in args.set for word in ("--set", setting)]
    given += [
        word for option, stage in (("--from", args.first), ("--to", args.last)) if stage for word in (option, stage)
    ]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    done = sweeping.sweep(members, args.jobs, given, notebooks, say)
    folders = " ".join(row["run_dir"] for row in done)
    return {"runs": done}, f"{len(done)} runs finished; side by side: python -m lib compare {folders}"


def doctor(args: argparse.Namespace) -> tuple[Payload, str]:
    """Look at the machine."""
    from lib.run import doctor, pipeline

    found, presets = doctor.inspect(), [pipeline.describe(name) for name in pipeline.preset_names()]
    return {**found, "presets": presets}, doctor.in_words(found, presets)


def score(args: argparse.Namespace) -> tuple[Payload, str]:
    """Judge a submission file: a task without an answer is no-code, an error of the sandbox stops everything."""
    from lib import sandbox
    from lib.mining import fuzzing
    from lib.tasks import readers as corpora
    from lib.tasks.extract import program_of

    if args.fuzz < 0:
        raise CommandError(f"--fuzz {args.fuzz}: asserts to add to each task, so 1 or more")
    everything = corpora.read(args.tasks)
    answers = corpora.read_submission(args.submission, [task.task_id for task in everything])
    check_ids(answers, everything, args.submission, args.tasks)
    tested, left_out = with_tests(everything, args.tests, args.tasks)
    able, skipped = (tested, []) if args.container else runnable(tested)
    tasks = [task for task in able for _ in answers.get(task.task_id, [""])]
    if args.fuzz and len(tasks) > len(able):
        raise CommandError(f"--fuzz {args.fuzz}: needs one answer per task; {args.submission} holds several samples")
    started = time.monotonic()
    with sandbox.Sandbox(allow_unconfined=args.allow_unconfined, container=args.container) as box:
        programs = [program_of(answer, task) for task in able for answer in answers.get(task.task_id, [""])]
        judged = fuzzing.hardened(tasks, args.tests, args.fuzz, 0, box) if args.fuzz else tasks
        jobs = [(task, program or "") for task, program in zip(judged, programs, strict=True)]
        verdicts = box.grade_many(jobs, tests=args.tests, alias=args.alias)
        stop_on_sandbox_error([task.task_id for task in tasks], verdicts)
        fuzzed = fuzzed_facts(tasks, judged, programs, verdicts, args, box) if args.fuzz else {}
        mode = box.mode
    if args.out:
        write_verdicts(Path(args.out), judged, programs, verdicts)
    payload = summary([task.task_id for task in tasks], verdicts, args.tests, args.alias)
    payload |= {"sandbox_mode": mode, "seconds": round(time.monotonic() - started, 2)}
    if args.fuzz:
        payload["fuzzed"] = fuzzed
    if left_out:
        payload["left_out"] = len(left_out)
    if skipped:
        payload["skipped"] = {task.task_id: task.programming_language for task in skipped}
    return payload, score_words(payload)


def prompt(args: argparse.Namespace) -> tuple[Payload, str]:
    """Print exactly what a model sees for one task, the opening of its answer included."""
    from transformers import AutoTokenizer

    from lib.models.resolve import resolve
    from lib.tasks import readers as corpora
    from lib.tasks.prompts import build_prompt

    tasks = {task.task_id: task for task in corpora.read(args.tasks)}
    if args.id not in tasks:
        raise CommandError(f"{args.tasks}: no task {args.id!r}; the first of {len(tasks)} is {next(iter(tasks))!r}")
    built = build_prompt(tasks[args.id], AutoTokenizer.from_pretrained(resolve(args.model)))
    payload = {
        "task_id": args.id,
        "model": args.model,
        "text": built.text,
        "prefill": built.prefill,
        "digest": built.digest,
    }
    return payload, built.text


def execute(args: argparse.Namespace) -> tuple[Payload, str]:
    """Run one program in the sandbox."""
    from lib.sandbox import Sandbox

    source, cases = read_text(args.source), read_cases(args.cases)
    with Sandbox(workers=1, allow_unconfined=args.allow_unconfined) as box:
        limits = (args.time_limit, args.memory_limit)
        verdict = box.execute(args.language, source, cases, *limits, compare=args.compare)
    stop_on_sandbox_error([args.source], [verdict])
    payload = dataclasses.asdict(verdict)
    return payload, "\n".join(f"{name}: {value}" for name, value in payload.items() if value not in ("", None, ()))


def ask(args: argparse.Namespace) -> tuple[Payload, str]:
    """Let a model write one program, and run it."""
    from lib.mining import ask as asking
    from lib.models import adapters
    from lib.sampling import open_engine
    from lib.sandbox import Sandbox

    if args.repair < 0:
        raise CommandError(f"--repair {args.repair}: turns after a failure, so 0 or more")
    task = asking.task_of(args.instruction, args.language, args.test)
    runnable([task])
    adapter = adapters.adapter_folder(Path(args.adapter)) if args.adapter else None
    model = args.model or (adapters.base_of(adapter) if adapter else "embedded")
    with (
        contextlib.closing(open_engine(model, str(adapter) if adapter else None)) as engine,
        Sandbox(workers=1, allow_unconfined=args.allow_unconfined) as box,
    ):
        attempts = asking.ask(task, engine=engine, sandbox=box, repair_turns=args.repair)
    shown = ("program", "status", "failure", "stdout_head", "stderr_head")
    rows = [{name: getattr(attempt, name) for name in shown} for attempt in attempts]
    payload = {"model": model, "adapter": adapter and str(adapter), "entry_point": task.entry_point, "attempts": rows}
    return payload, asking.in_words(task, attempts)


def decontaminate(args: argparse.Namespace) -> tuple[Payload, str]:
    """Screen training against evaluation tasks and write what to leave out."""
    from lib.base.parallel import machines
    from lib.decontamination import decontaminate
    from lib.tasks import readers as corpora

    on = machines(args.cluster)
    train, evaluation = corpora.read(args.train), corpora.read(args.eval)
    outcome = decontaminate(train, evaluation, args.out, seed=args.seed, map_fn=on)
    excluded = collections.Counter(row.side for row in outcome.exclusions())
    payload = {
        "train": len(train),
        "eval": len(evaluation),
        "excluded": {"train": excluded["train"], "eval": excluded["eval"]},
        "borderline": len(outcome.borderline),
        "summary": outcome.summary(),
        "out": args.out,
    }
    rows = ["  ".join(f"{name} {value}" for name, value in row.items()) for row in outcome.summary()]
    words = (
        f"{excluded['train']} of {len(train)} training and "
        f"{excluded['eval']} of {len(evaluation)} evaluation items overlap"
    )
    return payload, "\n".join(
        [words, *rows, f"written to {args.out}; {len(outcome.borderline)} borderline pairs to review"]
    )


def report(args: argparse.Namespace) -> tuple[Payload, str]:
    """Write a run's report.html."""
    from lib.figures.report import build

    folder = Path(args.run_dir)
    if not any((folder / name).exists() for name in ("manifest.json", "scores.csv", "figures")):
        raise CommandError(f"{folder}: no run here (no manifest.json, scores.csv or figures)")
    page = build(folder)
    return {"report": str(page)}, f"report: {page}"


def figures(args: argparse.Namespace) -> tuple[Payload, str]:
    """Draw all figures of a run again."""
    from lib.papers.run_figures import draw_run

    try:
        drawn, left_out = draw_run(Path(args.run_dir), Path(args.data))
    except KeyError as error:
        raise CommandError(
            f"{args.run_dir}: its files lack {error}; another version wrote them: run the notebooks again"
        ) from None
    payload = {"figures": [str(path) for path in drawn], "left_out": left_out}
    return payload, "\n".join([*payload["figures"], *(f"left out: {reason}" for reason in left_out)])


def compare(args: argparse.Namespace) -> tuple[Payload, str]:
    """Compare evaluated runs of one experiment."""
    from lib.evaluation import comparison

    runs = [comparison.read_run(Path(folder)) for folder in args.run_dirs]
    rows, found = comparison.pool_runs(runs)
    visible = comparison.visible_test_rates(runs)
    shown = ", ".join(f"{model} {rate:.1%}" for model, rate in visible.items())
    sentences = [*(one.sentence for one in found), *comparison.decisive_sentences(runs)]
    lines = [*comparison.summary(rows), *sentences, f"On visible tests the samples would have said: {shown}."]
    if args.out:
        import pandas

        from lib.base.files import write_text
        from lib.figures import flips
        from lib.figures.evaluation import over_runs
        from lib.figures.style import save, set_style, stamp

        out = Path(args.out)
        set_style()
        figure, data = over_runs(comparison.rates_of_runs(runs))
        n = rows[0]["n_tasks"]
        save(
            stamp(figure, *args.run_dirs),
            out / "runs",
            data,
            f"pass@1 on the hidden tests of {n} held-out tasks, run by run.",
        )
        pandas.DataFrame(rows).drop(columns="rates").to_csv(out / "runs_pooled.csv", index=False)
        comparison.all_scores(runs).to_csv(out / "scores.csv", index=False)
        write_text(out / "runs.md", comparison.table(rows, sentences))
        write_text(out / "flips.html", flips.render(runs))
        lines.append(f"side by side, task by task: {out / 'flips.html'}")
    payload = {"runs": [run.name for run in runs], "rows": rows, "visible": visible, "sentences": sentences}
    return payload, "\n".join(lines)


def replay(args: argparse.Namespace) -> tuple[Payload, str]:
    """Run a prompt–draw pair again: the stored program, with --sample also the sampling before it."""
    from lib import sandbox
    from lib.mining import replay as replaying

    run = Path(args.run_dir)
    found, rows, lines = replaying.find(run, args.task, args.draw), [], []
    with sandbox.Sandbox(workers=1, allow_unconfined=args.allow_unconfined) as box:
        for stored in found:
            rows.append(replaying.replay(stored, box))
            if args.sample:
                rows[-1]["completion_same"] = replaying.sample_again(stored, run) == stored.attempt.completion
    for row in rows:
        who = f"{row['ledger']}, {row['model']} {row['adapter'] or 'without adapter'}, T = {row['temperature']:g}"
        said = [f"{row[when]['status']} {row[when]['passed']} of {row[when]['total']}" for when in ("stored", "new")]
        lines.append(
            f"{who}, seed {row['seed']}: stored {said[0]}, now {said[1]}" + ("" if row["same"] else "  DIFFERS")
        )
        lines += [f"  {when}: {row[when]['failure']}" for when in ("stored", "new") if row[when]["failure"]]
        if args.sample:
            lines.append(f"  sampled again: {'the same' if row['completion_same'] else 'another'} completion")
    return {"run": args.run_dir, "task_id": args.task, "draw": args.draw, "attempts": rows}, "\n".join(lines)


def export(args: argparse.Namespace) -> tuple[Payload, str]:
    """Write a trained model for use elsewhere."""
    from lib.models import adapters
    from lib.models import export as exporting

    converter, folder = exporting.find_converter(args.llama_cpp), adapters.adapter_folder(Path(args.adapter))
    model = args.model or adapters.base_of(folder)
    written = [str(path) for path in exporting.export(folder, model, Path(args.out), converter)]
    no_gguf = f"no GGUF: {exporting.CONVERTER} is not on PATH; --llama-cpp FOLDER names a copy of llama.cpp"
    words = [f"{folder} merged into {model}", *written]
    words.append(f"ollama create NAME -f {written[-1]}" if converter else no_gguf)
    return {"adapter": str(folder), "model": model, "written": written}, "\n".join(words)


def published(args: argparse.Namespace) -> tuple[Payload, str]:
    """Judge the published submission again, from the public files alone."""
    from lib import sandbox
    from lib.papers import published

    missing = published.missing_files(args.data)
    if missing:
        raise CommandError(f"{missing[0]}: not found; data/README.md says where public corpora go")
    with sandbox.Sandbox() as box:
        found = published.findings(published.audit(args.data, box))
    rows = list(published.rows(found))
    if args.out:
        from lib.figures.style import save, set_style
        from lib.papers import troopers

        set_style()
        figure, data = troopers.submission(found, published.read_published(published.NUMBERS))
        save(figure, Path(args.out) / "published_submission", data, troopers.SUBMISSION)
    tests = {suite: dataclasses.asdict(test) for suite, test in found.contamination.items()}
    payload = {"rows": rows, "trained_against_not": tests, "visible_against_full": dataclasses.asdict(found.drop)}
    return payload, published.in_words(found)


# ------------------------------------------------------------------------------------------------------- their pieces


def runnable(tasks: Sequence["Task"]) -> tuple[list["Task"], list["Task"]]:
    """Tasks whose language is installed, and those to skip by name. Raises CommandError when none can run."""
    from lib.sandbox import languages

    missing = {name for name, version in languages.available().items() if version is None} - {"python"}
    able = [task for task in tasks if task.programming_language not in missing]
    skipped = [task for task in tasks if task.programming_language in missing]
    if not able:
        names = ", ".join(sorted({task.programming_language for task in skipped}))
        raise CommandError(
            f"{names}: not installed here, and every task is in it; `make toolchains` installs languages"
        )
    return able, skipped


def with_tests(tasks: Sequence["Task"], tests: str, source: str) -> tuple[list["Task"], list["Task"]]:
    """Tasks that have the tests asked for, and those to leave out. Raises CommandError when none has any."""
    kept = [task for task in tasks if task.mode == "program" or task.tests(tests)]  # type: ignore[arg-type]
    if not kept:
        raise CommandError(f"{source}: none of the {len(tasks)} tasks has {tests} tests; choose --tests visible or all")
    return kept, [task for task in tasks if task not in kept]


def check_ids(responses: Mapping[str, object], tasks: Sequence["Task"], submission: str, tasks_from: str) -> None:
    """Raise CommandError when a submission answers tasks that are not there."""
    known = {task.task_id for task in tasks}
    unknown = [name for name in responses if name not in known]
    if unknown:
        raise CommandError(
            f"{submission}: answers {len(unknown)} ids that {tasks_from} does not have, the first {unknown[0]!r}"
        )


def fuzzed_facts(
    tasks: Sequence["Task"], judged: Sequence["Task"], programs: Sequence[str | None],
    verdicts: Sequence["Verdict"], args: argparse.Namespace, box: "Sandbox",
) -> Payload:  # fmt: skip
    """How many asserts there are and why not more; how many answers they alone reject."""
    sizes = [[len(task.tests(args.tests)) for task in some] for some in (tasks, judged)]
    added = [more - fewer for fewer, more in zip(*sizes, strict=True)]
    functions = [task.mode == "function" and task.programming_language == "python" for task in tasks]
    bare = [function and not task.reference for function, task in zip(functions, tasks, strict=True)]
    failed = [
        (task, program or "")
        for task, program, verdict, more in zip(tasks, programs, verdicts, added, strict=True)
        if more and verdict.status != Status.SUCCESS
    ]
    before = box.grade_many(failed, tests=args.tests, alias=args.alias)
    stop_on_sandbox_error([task.task_id for task, _ in failed], before)
    return {
        "asked_per_task": args.fuzz,
        "asserts": sum(added),
        "tasks": sum(more > 0 for more in added),
        "without_reference": sum(bare),
        "nothing_to_fuzz": sum(f and not b and not n for f, b, n in zip(functions, bare, added, strict=True)),
        "not_python_functions": functions.count(False),
        "rejected": sum(verdict.status == Status.SUCCESS for verdict in before),
    }


def stop_on_sandbox_error(names: Sequence[str], verdicts: Sequence["Verdict"]) -> None:
    """Raise CommandError when the sandbox, not a program, is at fault."""
    bad = [
        (name, verdict) for name, verdict in zip(names, verdicts, strict=True) if verdict.status == Status.SANDBOX_ERROR
    ]
    if bad:
        name, verdict = bad[0]
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        reason = "; ".join(verdict.failure.splitlines()) or "no reason given"
        raise CommandError(f"sandbox error at {name}{more}: {reason}")


def write_verdicts(
    path: Path, tasks: Sequence["Task"], programs: Sequence[str | None], verdicts: Sequence["Verdict"]
) -> None:
    """Write one JSON object per line: task_id, sample, the verdict, a failure's type in both papers' taxonomies."""
    from lib.base.files import write_text
    from lib.evaluation.failures.taxonomy import classify
    from lib.sandbox import Status

    seen: collections.Counter[str] = collections.Counter()
    lines = []
    for task, program, verdict in zip(tasks, programs, verdicts, strict=True):
        no_failure = verdict.status in (Status.SUCCESS, Status.UNSUPPORTED_TEST)
        label = None if no_failure else classify(task, program, verdict)
        types = {name: getattr(label, name, None) for name in ("troopers_type", "polycode_type")}
        row = {"task_id": task.task_id, "sample": seen[task.task_id], **dataclasses.asdict(verdict), **types}
        seen[task.task_id] += 1
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_text(path, "".join(lines))


def summary(names: Sequence[str], verdicts: Sequence["Verdict"], tests: str, alias: str) -> Payload:
    """The scores of a list of verdicts by task, with the Wilson interval over tasks.

    A test that cannot be run counts neither for nor against its program. With several samples per task the pass rate is
    pass@1, and pass@k is given for k up to the smallest number of samples.
    """
    from lib.sandbox import Status
    from lib.stats.intervals import wilson_interval
    from lib.stats.pass_at_k import pass_at_k

    counts = collections.Counter(verdict.status for verdict in verdicts)
    right: dict[str, list[bool]] = collections.defaultdict(list)
    for name, verdict in zip(names, verdicts, strict=True):
        if verdict.status != Status.UNSUPPORTED_TEST:
            right[name].append(verdict.status == Status.SUCCESS)
    several = len(verdicts) > len(set(names))
    n, total = len(right), sum(sum(some) / len(some) for some in right.values())
    payload: Payload = {
        "tests": tests,
        "alias": alias,
        "n": n,
        "passed": counts[Status.SUCCESS],
        "pass_rate": total / n if n else 0.0,
        "wilson95": [float(bound) for bound in wilson_interval(round(total, 9), n)] if n else [0.0, 1.0],
        "statuses": dict(counts.most_common()),
    }
    if several:
        answered = [some for some in right.values()]
        ks = range(1, min(map(len, answered), default=0) + 1)
        rates = {k: sum(pass_at_k(len(some), sum(some), k) for some in answered) / n for k in ks}
        payload |= {"samples": len(verdicts), "pass_at": {str(k): round(rate, 6) for k, rate in rates.items()}}
    return payload


def score_words(payload: Payload) -> str:
    """A score in words, one fact a line."""
    low, high = payload["wilson95"]
    unit = "samples" if "samples" in payload else "tasks"
    lines = [
        f"{payload['passed']} of {payload.get('samples', payload['n'])} {unit} pass their {payload['tests']} tests "
        f"({payload['alias']} aliases): "
        f"{payload['pass_rate']:.1%}, 95 % Wilson interval {low:.1%} to {high:.1%}",
        "  ".join(f"{status} {count}" for status, count in payload["statuses"].items()),
        f"sandbox mode {payload['sandbox_mode']}, {payload['seconds']} s",
    ]
    if "pass_at" in payload:
        rates = "  ".join(f"pass@{k} {rate:.1%}" for k, rate in payload["pass_at"].items())
        lines.insert(1, f"{payload['n']} tasks: {rates}")
    if payload["statuses"].get("unsupported-test"):
        lines.append(
            f"{payload['statuses']['unsupported-test']} tests cannot be run here; their programs are not counted"
        )
    if "left_out" in payload:
        lines.append(f"left out {payload['left_out']} tasks without {payload['tests']} tests")
    if "fuzzed" in payload:
        facts = payload["fuzzed"]
        lines.append(
            f"{facts['asserts']} fuzzed asserts for {facts['tasks']} tasks reject {facts['rejected']} "
            f"answers that pass the rest; none for {facts['without_reference']} tasks without a reference, "
            f"{facts['nothing_to_fuzz']} that gave none, {facts['not_python_functions']} of other kinds"
        )
    if "skipped" in payload:
        languages = ", ".join(sorted(set(payload["skipped"].values())))
        lines.append(f"skipped {len(payload['skipped'])} tasks; not installed here: {languages}")
    return "\n".join(lines)


def read_seeds(text: str) -> list[int]:
    """Seeds from "0,1,2"; CommandError for anything else."""
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise CommandError(
            f"--seeds {text}: whole numbers with commas between them are expected, such as 0,1,2"
        ) from None


def read_text(path: str) -> str:
    """A file's text; CommandError when it is not UTF-8."""
    raw = Path(path).read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CommandError(f"{path}: not UTF-8 (byte {error.start})") from None


def read_cases(path: str) -> list["Case"]:
    """Cases from a JSON list or JSON Lines of {"input", "output"}."""
    from lib.tasks.task import Case

    text = read_text(path)
    try:
        whole = text.lstrip().startswith("[")
        rows = json.loads(text) if whole else [json.loads(line) for line in text.split("\n") if line.strip()]
        cases = [Case(row["input"], row["output"]) for row in rows]
        if not all(isinstance(value, str) for case in cases for value in (case.input, case.output)):
            raise TypeError
    except (ValueError, TypeError, KeyError, RecursionError):
        wanted = '{"input": text, "output": text} as a JSON list or one a line'
        raise CommandError(f"{path}: not cases; {wanted} is expected") from None
    if not cases:
        raise CommandError(f"{path}: no cases in this file")
    return cases


# ----------------------------------------------------------------------------------------------------------- arguments


def parser() -> argparse.ArgumentParser:
    """The commands and their arguments."""
    top = _Parser(prog="python -m lib", description="Teach code models by running what they write.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(
        name: str, does: Callable[[argparse.Namespace], tuple[Payload, str]], help_: str
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help_, description=help_)
        sub.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
        sub.set_defaults(does=does)
        return sub

    _run_arguments(command("run", run, "run the notebooks in order, resuming finished stages"))
    _sweep_arguments(command("sweep", sweep, "several presets or seeds, a process and a folder each"))
    command("doctor", doctor, "versions, device, sandbox layers, toolchains, and what each preset would do here")
    _score_arguments(command("score", score, "verdicts for an existing submission file"))
    sub = command("prompt", prompt, "exactly what a model sees for one task")
    sub.add_argument("--tasks", required=True, metavar="FILE", help="JSON Lines, or any public format that is read")
    sub.add_argument("--id", required=True, metavar="ID", help="the task")
    sub.add_argument("--model", default="embedded", metavar="NAME", help="whose chat template (default: embedded)")
    _execute_arguments(command("execute", execute, "one program in the sandbox, its verdict"))
    sub = command("ask", ask, "a model writes one program, which is run")
    sub.add_argument("instruction", metavar="INSTRUCTION", help="what the program should do, in a sentence")
    sub.add_argument("--test", default="", metavar="TEST", help='an assert, such as "assert add(1, 2) == 3"')
    sub.add_argument("--language", default="python", metavar="NAME", help="default: python")
    sub.add_argument("--repair", type=int, default=0, metavar="K", help="show the model its failure, up to K times")
    sub.add_argument(
        "--adapter", metavar="RUN", help="a run folder, whose last adapter is used, or an adapter's folder"
    )
    sub.add_argument("--model", metavar="NAME", help="default: the adapter's, or embedded")
    _unconfined(sub)
    sub = command("decontaminate", decontaminate, "exclusion list, borderline sample and summary of a two-sided screen")
    sub.add_argument("--train", required=True, metavar="FILE", help="training tasks, any format that is read")
    sub.add_argument("--eval", required=True, metavar="FILE", help="evaluation tasks, any format that is read")
    sub.add_argument(
        "--out", required=True, metavar="DIR", help="folder for exclusions.csv, borderline.csv, summary.json"
    )
    sub.add_argument("--seed", type=int, default=0, help="of the borderline sample")
    sub.add_argument("--cluster", default="", metavar="ADDRESS", help="of a Ray cluster; default: this machine alone")
    sub = command("report", report, "a run's single-file HTML report")
    sub.add_argument("run_dir", metavar="RUN_DIR")
    sub = command("figures", figures, "draw all figures of an evaluated run again, the papers' with its numbers")
    sub.add_argument("run_dir", metavar="RUN_DIR")
    sub.add_argument("--data", default="data/external/blp", metavar="DIR", help="default: data/external/blp")
    sub = command("replay", replay, "one prompt–draw pair of a run again, the stored verdict beside the new one")
    sub.add_argument("run_dir", metavar="RUN")
    sub.add_argument("task", metavar="TASK", help="the task's id")
    sub.add_argument("draw", metavar="DRAW", type=int, help="the sample's number, from 0")
    sub.add_argument("--sample", action="store_true", help="sample the completion again first, from its stored seed")
    _unconfined(sub)
    sub = command("compare", compare, "evaluated runs side by side: rates, paired tests, a table and a figure")
    sub.add_argument("run_dirs", nargs="+", metavar="RUN_DIR")
    sub.add_argument("--out", metavar="DIR", help="folder for scores.csv, runs.md, the figure and flips.html")
    sub = command(
        "export", export, "plain weights from an adapter and its base model, and GGUF for llama.cpp and Ollama"
    )
    sub.add_argument("adapter", metavar="RUN", help="a run folder, whose last adapter is used, or an adapter's folder")
    sub.add_argument("--model", help="the base; default: the one the adapter's training.json names")
    sub.add_argument("--out", required=True, metavar="DIR", help="a folder that does not exist yet")
    sub.add_argument(
        "--llama-cpp", default="", metavar="PATH", help="a folder of llama.cpp; default: its converter on PATH"
    )
    sub = command("published", published, "the published BLP-2025 submission, run again on both suites")
    sub.add_argument("--data", default="data/external/blp", metavar="DIR", help="default: data/external/blp")
    sub.add_argument("--out", metavar="DIR", help="folder for the figure and its data")
    return top


def _run_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--preset", required=True, metavar="NAME", help="a file of notebooks/presets, without .yaml")
    _shared_arguments(sub)
    sub.add_argument("--run-dir", metavar="DIR", help="default: runs/NAME")
    sub.add_argument("--verbose", action="store_true", help="show what the notebooks print")


def _sweep_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--preset", action="append", required=True, metavar="NAME", help="may be given several times")
    sub.add_argument("--seeds", default="0", metavar="N,N,…", help="each preset is run with each seed (default 0)")
    sub.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="runs at a time, sharing this machine (default 1)"
    )
    _shared_arguments(sub)
    sub.add_argument("--out", default="runs/sweep", metavar="DIR", help="run folders go here (default runs/sweep)")


def _shared_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="KEY: a parameter, or STAGE.PARAMETER"
    )
    sub.add_argument("--from", dest="first", metavar="STAGE", help="first stage, such as 02_mining, 02 or mining")
    sub.add_argument("--to", dest="last", metavar="STAGE", help="last stage")
    sub.add_argument("--notebooks", metavar="DIR", help="your own set of the notebooks and presets")


def _score_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--tasks", required=True, metavar="FILE", help="JSON Lines, or any public format that is read")
    sub.add_argument(
        "--submission",
        required=True,
        metavar="FILE",
        help='{"id", "response"} per line or in a JSON list; several rows of one id are samples',
    )
    sub.add_argument("--tests", choices=("visible", "hidden", "all"), default="all")
    sub.add_argument("--alias", choices=("strict", "permissive"), default="strict", help="how entry points are matched")
    sub.add_argument("--fuzz", type=int, default=0, metavar="N", help="add N fuzzed asserts a task; needs references")
    sub.add_argument("--out", metavar="FILE", help="write one verdict a line")
    sub.add_argument("--container", action="store_true", help="run programs in containers; needs podman or docker")
    _unconfined(sub)


def _execute_arguments(sub: argparse.ArgumentParser) -> None:
    from lib.tasks.task import Compare

    sub.add_argument("--language", required=True, help="python, lua, ocaml, r, fortran, julia")
    sub.add_argument("--source", required=True, metavar="FILE", help="the program")
    sub.add_argument("--cases", required=True, metavar="FILE", help='{"input", "output"} as a JSON list or one a line')
    sub.add_argument("--time-limit", type=float, default=5.0, metavar="S", help="CPU seconds a case (default 5)")
    sub.add_argument("--memory-limit", type=int, default=512, metavar="MB", help="default 512")
    sub.add_argument("--compare", choices=get_args(Compare), default="exact", help="default exact")
    _unconfined(sub)


def _unconfined(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--allow-unconfined", action="store_true", help="run programs even where nothing confines them")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    args = parser().parse_args(arguments)
    aside = contextlib.redirect_stdout(sys.stderr) if args.json else contextlib.nullcontext()
    try:
        with aside:
            payload, words = args.does(args)
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        return 130
    except Exception as error:
        line = one_line(error)
        if line is None:
            raise
        print(line, file=sys.stderr)
        return 1
    say(json.dumps(payload, ensure_ascii=False, default=str) if args.json else words)
    return 0


def say(text: str) -> None:
    """Print at once."""
    with reader_may_leave():
        print(text, flush=True)


@contextlib.contextmanager
def reader_may_leave() -> Iterator[None]:
    """Go on in silence when the reader of stdout has gone away (`python -m lib … | head -1`)."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def one_line(error: Exception) -> str | None:
    """What to tell the user about an error that is about their input or machine; None for a fault of this program."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if not isinstance(error, WorkbookError):
        return None
    return str(error) if error.several_lines else "; ".join(str(error).splitlines())


if __name__ == "__main__":
    try:
        status = main()
    finally:
        with reader_may_leave():
            sys.stdout.flush()
    os._exit(status) if status == 130 else sys.exit(status)
