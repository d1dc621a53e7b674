"""What a program finds around it in every language: descriptors, environment, mounts, sockets, memory maps.

    python tests/surroundings.py

prints {"mode": …, "found": {"language/mode": {what: [names]}}}. tests/test_sandbox_surroundings.py says what may be
there.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lib.sandbox import Sandbox, languages, probe  # noqa: E402
from lib.tasks.task import Case, Task  # noqa: E402

LOOK = r"""
import os, stat
def look():
    found = {name: [] for name in ("descriptors", "mounts", "sockets", "maps", "readable")}
    found["environment"] = sorted(os.environ)
    for number in range(1024):
        try:
            mode = os.fstat(number).st_mode
        except OSError:
            continue
        found["descriptors"].append(number)
        if stat.S_ISSOCK(mode):
            found["sockets"].append(number)
    for name, path in {"mounts": "/proc/self/mounts", "maps": "/proc/self/maps", "sockets": "/proc/net/unix"}.items():
        try:
            with open(path) as file:
                found[name] += [path + " " + line.strip() for line in file]
        except OSError:
            pass
    parent = "/proc/%d/" % os.getppid()
    for path in ("/proc/self/fd", "/proc", "/dev/shm", "..", parent + "mem", parent + "environ"):
        try:
            os.open(path, os.O_RDONLY)
            os.listdir(path)
            found["readable"].append(path)
        except OSError:
            pass
    return found
"""
PROGRAMS = {
    "python": LOOK + "import json\nprint(json.dumps(look()))",
    "lua": r"""
local found = {}
for number = 3, 64 do
  local file = io.open("/dev/fd/" .. number, "r") or io.open("/proc/self/fd/" .. number, "r")
  if file then found[#found + 1] = number end
end
print('{"descriptors": [' .. table.concat(found, ", ") .. ']}')
""",
    "ocaml": r"""
let is_open number = try ignore (Unix.fstat (Obj.magic number : Unix.file_descr)); true with _ -> false
let names = Array.to_list (Array.map (fun entry -> List.hd (String.split_on_char '=' entry)) (Unix.environment ()))
let numbers = List.filter is_open (List.init 1024 (fun n -> n))
let () = Printf.printf "{\"descriptors\": [%s], \"environment\": [%s]}\n"
  (String.concat ", " (List.map string_of_int numbers)) (String.concat ", " (List.map (fun n -> "\"" ^ n ^ "\"") names))
""",
    "r": r"""
open_ones <- Filter(function(n) suppressWarnings(file.exists(paste0("/proc/self/fd/", n))), 0:63)
cat('{"descriptors": [', paste(open_ones, collapse = ", "), '], "environment": ["',
    paste(names(Sys.getenv()), collapse = '", "'), '"]}\n', sep = "")
""",
    "fortran": r"""
program look
  integer :: n
  logical :: there
  character(32) :: path
  character(400) :: line
  line = ''
  do n = 0, 63
    write(path, '(a, i0)') '/proc/self/fd/', n
    inquire(file=trim(path), exist=there)
    if (there) then
      if (len_trim(line) > 0) line = trim(line) // ','
      write(line, '(a, i0)') trim(line), n
    end if
  end do
  write(*, '(a)') '{"descriptors": [' // trim(line) // ']}'
end program
""",
}


def main() -> None:
    """Run every program and print what it found."""
    found = {}
    with Sandbox(workers=1) as box:
        for language, source in PROGRAMS.items():
            if languages.version(language):
                verdict = box.execute(language, source, [Case("", "")], 5.0, 512)
                found[f"{language}/program"] = json.loads(verdict.stdout_head)
        program = LOOK + "import json\nprint(json.dumps(look()), flush=True)\ndef f(x): return x"
        found["python/function"] = json.loads(box.grade(task(["assert f(1) == 1"]), program).stdout_head)
    print(json.dumps({"mode": probe().mode, "found": found}))


def task(tests: list[str]) -> Task:
    """A function task."""
    return Task("t", "s", "d", "p", "en", "python", "function", "f", tuple(tests), time_limit_s=5.0)


if __name__ == "__main__":
    main()
