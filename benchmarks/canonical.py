"""Do the public corpora's own solutions pass their own tests? One row per file, each failure by name.

    python benchmarks/canonical.py [--quick] [--json] [--csv FILE]

A solution that fails is run once more with its tests in one plain process of its language, without the sandbox: if it
fails there, too, the corpus is at fault. --csv writes one row per failure: file, task, language, the verdict's status,
whether the plain process passes, and the evidence. These programs are those of the public files, and are trusted.
"""

import argparse
import csv
import io
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from lib.base.files import write_text  # noqa: E402
from lib.sandbox import Sandbox  # noqa: E402
from lib.tasks import readers  # noqa: E402
from lib.tasks.task import Task  # noqa: E402

FOLDER = ROOT / "data" / "external"
FILES = (
    "mbpp/mbpp.jsonl",
    "humaneval/HumanEval.jsonl.gz",
    "mhumaneval/mHumanEval-ben_Beng-python.json",
    "mhumaneval/mHumanEval-ben_Beng-lua.json",
    "mhumaneval/mHumanEval-ben_Beng-r.json",
    "blp/test_full.csv",
)


# What MultiPL-E's Lua tests use of luaunit: equality in depth.
LUAUNIT = """
local function same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then return a == b end
  for k, v in pairs(a) do if not same(v, b[k]) then return false end end
  for k in pairs(b) do if a[k] == nil then return false end end
  return true
end
local function shown(value)
  if type(value) ~= "table" then return tostring(value) end
  local parts = {}
  for k, v in pairs(value) do parts[#parts + 1] = (type(k) == "number" and "" or k .. " = ") .. shown(v) end
  return "{" .. table.concat(parts, ", ") .. "}"
end
package.preload["luaunit"] = function()
  return {
    assertEquals = function(got, wanted)
      if not same(got, wanted) then error("got " .. shown(got) .. ", expected " .. shown(wanted), 0) end
    end,
    LuaUnit = {run = function() test_humaneval() return 0 end},
  }
end
"""
COLUMNS = ("file", "task", "language", "status", "plain_process", "evidence")
COMMANDS = {"lua": ("lua5.4",), "r": ("Rscript", "--vanilla"), "python": (sys.executable, "-I")}


def plainly(task: Task) -> tuple[bool, str]:
    """Return whether the solution passes its tests in one plain process, and the last words of one that does not."""
    language = task.programming_language
    before = {"lua": LUAUNIT, "python": task.setup_code}.get(language, "")
    source = "\n".join([before, task.reference, *task.tests("all")])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "program"
        path.write_text(source, encoding="utf-8")
        try:
            ran = subprocess.run([*COMMANDS[language], path], capture_output=True, text=True, timeout=60, cwd=folder)
        except subprocess.TimeoutExpired:
            return False, "does not end in 60 s"
    words = [line for line in ran.stderr.replace(folder, "").splitlines() if line.strip() and "[C]: in ?" not in line]
    shown = [line for line in words if "stack traceback" not in line and not line.startswith("\t")] or words
    said = {"lua": shown[:1], "r": shown[:2]}.get(language, shown[-1:])
    said = [re.sub(r"^lua5.4: (/program:\d+: )?|Error in test_humaneval\(\) :", "", line).strip() for line in said]
    return ran.returncode == 0, " ".join(said)[:200] if ran.returncode else ""


def check(name: str, sandbox: Sandbox, most: int | None) -> dict[str, Any]:
    """Return how many references of a file pass, and a row for each that does not."""
    tasks = [task for task in readers.read(FOLDER / name) if task.reference.strip()][:most]
    verdicts = sandbox.grade_many([(task, task.reference) for task in tasks], tests="all")
    failures = []
    for task, verdict in zip(tasks, verdicts, strict=True):
        if not verdict.reward:
            passes, words = plainly(task)
            row = (name, task.task_id, task.programming_language, str(verdict.status), passes, words or verdict.failure)
            failures.append(dict(zip(COLUMNS, row, strict=True)))
    return {
        "file": name,
        "references": len(tasks),
        "passed": len(tasks) - len(failures),
        "statuses": dict(Counter(str(verdict.status) for verdict in verdicts)),
        "failed": failures,
    }


def main() -> None:
    """Print the table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="the first ten tasks of each file")
    parser.add_argument("--csv", type=Path, help="write the failures to this file")
    args = parser.parse_args()
    with Sandbox() as sandbox:
        rows = [check(name, sandbox, 10 if args.quick else None) for name in FILES if (FOLDER / name).is_file()]
    if args.csv:
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(failure for row in rows for failure in row["failed"])
        write_text(args.csv, text.getvalue())
    if args.json:
        print(json.dumps({"benchmark": "canonical", "rows": rows, "ratios": {}}))
        return
    for row in rows:
        print(f"{row['file']}: {row['passed']} of {row['references']}  {row['statuses']}")
        for failure in row["failed"]:
            print(f"    {failure['task']}: {failure['status']}: {failure['evidence'][:140]}")


if __name__ == "__main__":
    main()
