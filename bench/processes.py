"""`tolv up` of 100 trivial processes against foreman, honcho and a plain spawn loop.

Every manager runs the same Procfile: one type, N times `sleep`; one row is of processes that say a
line first. Repetitions go round all managers, so that a busy moment of the machine hits each of
them; the figures are medians.

start   from the command until the N-th `sleep` has been executed
launch  tolv alone: from its first `Starting process` line; the rest of `start` is its own start,
        the probing of the sandbox and the look-up of the slug, which was built before
gone    from SIGTERM until the last `sleep` has ended;  exit: until the manager has
PSS     of everything below the manager but the `sleep`s: shims, shells, helpers
idle    CPU time and wake-ups of the same, over some quiet seconds
"""
import os
import signal
import statistics
import subprocess
import time
from datetime import datetime
from pathlib import Path

import common
from common import Program, cell, median

# After this long a quiet tolv has given back the threads that its start needed.
SETTLE = 12.0


class SpawnLoop:
    """The floor: posix_spawn in a loop, and nothing that looks after the processes."""

    def __init__(self, words, count):
        self.before = common.pids()
        self.began = time.time()
        quiet = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
        self.children = [
            os.posix_spawnp(words[0], words, os.environ, file_actions=quiet) for _ in range(count)]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
        self.end()

    def check(self):
        """Nothing can have gone wrong."""

    def managers(self, _apps):
        """Nobody."""
        return []

    def stop(self):
        """SIGTERM to each."""
        for pid in self.children:
            os.kill(pid, signal.SIGTERM)

    def end(self):
        """Collects them."""
        while self.children:
            os.waitpid(self.children.pop(), 0)

    def launched(self):
        """The loop begins at once."""


class Manager(Program):
    """A process manager under test."""

    def managers(self, apps):
        """Everything that is there because of the manager."""
        return [pid for pid in common.descendants(self.pid) if pid not in apps]

    def stop(self):
        """SIGTERM to the manager."""
        self.child.send_signal(signal.SIGTERM)

    def launched(self):
        """When tolv began to start processes; None for the others."""
        for line in self.output().splitlines():
            if b"Starting process" in line:
                return datetime.fromisoformat(line.split()[0].decode()).timestamp()
        return None


def app(folder, command):
    """An app of one process type."""
    folder.mkdir()
    (folder / "Procfile").write_text(f"p: {command}\n")
    return folder


def built(args, folder, level):
    """Builds the slug; whether this machine has the sandbox level."""
    outcome = subprocess.run(
        [args.tolv, "build", "--sandbox", level], cwd=folder, capture_output=True, text=True)
    if outcome.returncode:
        print(f"without tolv {level}: {outcome.stderr.strip()}")
    return outcome.returncode == 0


def managers(args, root, words):
    """Name → what starts it, over the same Procfile."""
    log, many = root / "output", f"p={args.count}"
    silent = app(root / "silent", " ".join(words))
    speaking = app(root / "speaking", f"echo here; exec {' '.join(words)}")

    def tolv(folder, level):
        up = [args.tolv, "up", "--formation", many, "--listen", "127.0.0.1:0", "--sandbox", level]
        return lambda: Manager(up, folder, log)

    foreman = ["foreman", "start", "--procfile", "Procfile", "--formation", many]
    honcho = [args.peers / "honcho", "start", "--concurrency", many]
    ours = [("tolv none", silent, "none"), ("tolv strict", silent, "strict"),
            ("tolv none, a line each", speaking, "none")]
    return {
        **{name: tolv(folder, level) for name, folder, level in ours if built(args, folder, level)},
        "foreman": lambda: Manager(foreman, silent, log),
        "honcho": lambda: Manager(honcho, silent, log),
        "spawn loop": lambda: SpawnLoop(words, args.count),
    }


def all_there(program, words, count):
    """Waits for the N-th process; returns their pids and when it was there."""
    wanted, found = [word.encode() for word in words], set()

    def look():
        program.check()
        for pid in common.pids() - program.before - found:
            if common.argv(pid) == wanted:
                found.add(pid)
        return len(found) >= count and time.time()

    return found, common.until(look, 60, f"{count} processes")


def quiet(program, apps, seconds):
    """Memory, CPU time and wake-ups of the managers while nothing happens."""
    time.sleep(SETTLE)
    pids = program.managers(apps)
    sizes = [common.memory(pid) for pid in pids]
    before = sum(map(common.cpu, pids)), sum(map(common.wakeups, pids))
    time.sleep(seconds)
    after = sum(map(common.cpu, pids)), sum(map(common.wakeups, pids))
    return {
        "pss": sum(pss for pss, _ in sizes),
        "private": sum(private for _, private in sizes),
        # The root of the tree comes first; below it are tolv's spawner and shims.
        "helpers": [private for _, private in sizes[1:]],
        "cpu": after[0] - before[0],
        "wakeups": after[1] - before[1],
    }


def stopped(program, apps):
    """Stops everything; seconds until the processes and the manager are gone."""
    pidfds = list(filter(None, map(common.open_pidfd, apps)))
    start = time.monotonic()
    program.stop()
    left = common.until_gone(pidfds)
    gone = time.monotonic() - start
    if left:
        print(f"  {len(left)} processes were still there after {gone:.0f} s, and were killed")
    program.end()
    ended = time.monotonic() - start
    for pidfd in pidfds:
        common.signal_pidfd(pidfd, signal.SIGKILL)
        os.close(pidfd)
    return {} if left else {"gone": gone, "exit": ended}


def sample(start, words, args, idle):
    """One start and stop of one manager."""
    with start() as program:
        apps, there = all_there(program, words, args.count)
        figures = {"start": there - program.began}
        # A signal in the middle of a start is another story: honcho forgets processes then.
        time.sleep(1)
        if idle:
            figures |= quiet(program, apps, args.idle)
        launched = program.launched()
        if launched:
            figures["launch"] = there - launched
        return figures | stopped(program, apps)


def report(args, samples):
    """The table, and what tolv's memory is made of."""
    own = {key: median(samples["tolv none"], key) for key in ("start", "gone", "exit", "pss")}
    rows = []
    for name, taken in samples.items():
        get = lambda key: median(taken, key)
        pss, private = get("pss"), get("private")
        rows.append([
            name, cell(get("start"), 3, own["start"]), cell(get("launch"), 3),
            cell(get("gone"), 3, own["gone"]), cell(get("exit"), 3, own["exit"]),
            cell(pss and pss / 1e6, 1, own["pss"] / 1e6), cell(pss and pss / 1e3 / args.count, 0),
            cell(private and private / 1e3 / args.count, 0),
            cell(get("cpu") and get("cpu") * 1e3, 2), cell(get("wakeups"), 0)])
    head = ["", "start s", "launch s", "gone s", "exit s", "PSS MB", "PSS KB each",
            "private KB each", f"idle CPU ms in {args.idle:.0f} s", "wake-ups"]
    common.table(f"{args.count} processes of `sleep`, medians of {args.repetitions}; "
                 "in brackets: times tolv none", head, rows)
    for name, taken in samples.items():
        if name.startswith("tolv"):
            shim = statistics.median(next(s["helpers"] for s in taken if "helpers" in s))
            print(f"{name}: private memory of a shim {shim / 1e3:.0f} KB")
    if "tolv strict" in samples:
        strict = median(samples["tolv strict"], "launch") - median(samples["tolv none"], "launch")
        print(f"strict adds {strict / args.count * 1e3:.2f} ms to the launch of each process")


def main():
    """Runs it all."""
    args = common.arguments(__doc__.splitlines()[0], count=100, idle=10.0)
    words = ["sleep", f"86400.{os.getpid():07}"]
    with common.workspace() as temporary:
        starts = managers(args, Path(temporary), words)
        samples = {name: [] for name in starts}
        for repetition in range(args.repetitions):
            for name, start in starts.items():
                print(f"{repetition + 1}/{args.repetitions} {name}", flush=True)
                samples[name].append(sample(start, words, args, repetition == 0))
        report(args, samples)


if __name__ == "__main__":
    main()
