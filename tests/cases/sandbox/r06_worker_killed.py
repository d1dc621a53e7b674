# the worker and the launcher are killed with signal 9 while programs spin: these end with them
EXPECT="gone within 3 s"

def run(box, T, Case):
    import os, signal, time
    from lib.sandbox import Sandbox
    from tests.processes import is_alive, wait_for

    def spinning():
        """{process: its parent} of programs that have used half a second, by the worker or launcher above them."""
        found = {}
        for p in filter(str.isdigit, os.listdir("/proc")):
            try:
                fields = open(f"/proc/{p}/stat").read().rpartition(")")[2].split()
                above = open(f"/proc/{fields[1]}/cmdline").read()
                mine = f"/sandbox-{os.getpid()}-" in above and "sandbox.untrusted." in above
                if mine and int(fields[11]) >= 0.5 * os.sysconf("SC_CLK_TCK"): found[int(p)] = int(fields[1])
            except (OSError, IndexError): pass
        return found

    words, held = [], True
    function = T(["assert f(2) == 4"], limit=40.0)
    program = T(mode="program", entry="", cases=[Case("", "1")], limit=40.0)
    for task, code in ((function, "def f(x):\n    while True: pass"), (program, "while True: pass")):
        with Sandbox(workers=1, mode=box.mode) as own:
            own.submit(task, code)
            wait_for(lambda: bool(spinning()), 60)
            programs = spinning()
            for parent in set(programs.values()): os.kill(parent, signal.SIGKILL)
            ends = time.monotonic() + 3
            while any(map(is_alive, programs)) and time.monotonic() < ends: time.sleep(0.05)
            left = list(filter(is_alive, programs))
            held = held and not left
            words.append(f"{len(programs)} spinning, {len(left)} three seconds after")
    return held, "; ".join(words)
