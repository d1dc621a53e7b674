# the worker and the launcher are killed with signal 9 while programs spin: these end with them
EXPECT="gone within a second"

def run(box, T, Case):
    import os, signal, time
    from lib.sandbox import Sandbox

    def tree():
        """Processes of the sandbox below this one: {process: its parent}."""
        parents = {}
        for p in filter(str.isdigit, os.listdir("/proc")):
            try:
                fields = open(f"/proc/{p}/stat").read().rpartition(")")[2].split()
                if fields[0] != "Z": parents[int(p)] = int(fields[1])
            except (OSError, IndexError): pass
        found, new = {}, {os.getpid()}
        while new:
            new = {p for p, q in parents.items() if q in new} - set(found)
            found |= {p: parents[p] for p in new}
        return found

    words, held = [], True
    function = T(["assert f(2) == 4"], limit=40.0)
    program = T(mode="program", entry="", cases=[Case("", "1")], limit=40.0)
    for task, code in ((function, "def f(x):\n    while True: pass"), (program, "while True: pass")):
        before = set(tree())
        with Sandbox(workers=1, mode=box.mode) as own:
            own.submit(task, code)
            time.sleep(2.0)
            new = {p: q for p, q in tree().items() if p not in before}
            leaves = set(new) - set(new.values())
            above = {new[p] for p in leaves}
            for p in above: os.kill(p, signal.SIGKILL)
            time.sleep(1.0)
            left = {p for p in leaves if p in tree() or os.path.exists(f"/proc/{p}")}
            held = held and bool(leaves) and not left
            words.append(f"{len(leaves)} below {len(above)} killed, {len(left)} a second after")
    return held, "; ".join(words)
