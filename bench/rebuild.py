"""A rebuild with unchanged dependencies: from `tolv up` to `is up at`, and whose time that is.

Each example is copied, brought up once (which installs its packages), and then, again and again,
one line of its source is changed and `tolv up` is timed. The app's own share is measured in the
same round: its release phase and its web process started by hand, without tolv, with the
environment that tolv gave them.

total    from the command until the line `Release v1 is up at`
start    tolv's own start, the probing of the sandbox, the look at the source and the toolchains
build    from there until the release is created
release  the release phase, from its start to its end
boot     the web process from `Starting process` to `State changed … to up`
settle   from there to `is up`: tolv waits for the other processes
own      release phase and web process by hand: until the end of the one, until the other answers
outside  total without own: what tolv adds
"""
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from datetime import datetime
from pathlib import Path

import common
from common import Program, cell, median

# Example → the file that is changed, and how.
EXAMPLES = {"guestbook": ("web.py", "# change {}\n"), "hello-node": ("server.js", "// change {}\n")}
PHASES = ["total", "start", "build", "release", "boot", "settle"]


def seconds(stamp):
    """Unix seconds of a time as tolv prints it."""
    return datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()


def lines(program):
    """What tolv printed: (time, process, text), complete lines alone."""
    whole = program.output().rpartition(b"\n")[0].splitlines()
    parsed = map(json.loads, whole)
    return [(seconds(line["time"]), line["process"], line["text"]) for line in parsed]


def first(said, process, text):
    """When a process first said a text; None if it never did."""
    return next((at for at, who, what in said if who == process and text in what), None)


def up(args, folder, level="auto"):
    """`tolv up`, until it says that the app is up."""
    command = [args.tolv, "up", "--json", "--listen", "127.0.0.1:0", "--sandbox", level]
    program = Program(command, folder, folder.parent / "output")
    try:
        program.wait_for(b"is up at http", 600)
    except SystemExit:
        program.end()
        raise
    return program


def phases(program):
    """The figures of one `tolv up`."""
    said = lines(program)
    began, ready = program.began, first(said, "build", "is up at")
    planned = first(said, "build", "-----> Building with")
    created = first(said, "release", "created by")
    web = first(said, "web.1", "Starting process")
    answers = first(said, "web.1", "State changed from starting to up")
    released = first(said, "release.1", "Starting process"), first(said, "release.1", "exited with")
    return {
        "total": ready - began, "start": planned - began, "build": created - planned,
        "release": released[1] - released[0] if released[0] else 0.0,
        "boot": answers - web, "settle": ready - answers,
    }


def surroundings(args, folder):
    """Environment and folder that tolv gives a web process, with paths that exist outside too."""
    with up(args, folder, "none") as program:
        for pid in common.descendants(program.pid):
            if common.environ(pid).get("TOLV_PROCESS") == "web.1":
                return common.environ(pid), os.readlink(f"/proc/{pid}/cwd")
    raise SystemExit("there is no process web.1")


def commands(folder):
    """Process type → command."""
    pairs = (line.partition(":") for line in (folder / "Procfile").read_text().splitlines())
    return {name: command.strip() for name, _, command in pairs}


def by_hand(command, env, cwd, done):
    """Starts a command as tolv does, and stops it; returns the seconds until `done`."""
    start = time.monotonic()
    child = subprocess.Popen(
        ["/bin/sh", "-c", f"exec {command}"], env=env, cwd=cwd, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        common.until(lambda: done(child), 60, command)
        return time.monotonic() - start
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
        child.wait()


def ended(child):
    """Whether a release phase is over."""
    return child.poll() is not None


def answers(port):
    """A function: whether a web server answers on the port."""
    def ask(_child):
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as connection:
                connection.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
                return connection.recv(1) != b""
        except OSError:
            return False
    return ask


def own(folder, env, cwd):
    """Seconds that the app itself takes: its release phase, then its web process."""
    known = commands(folder)
    released = by_hand(known["release"], env, cwd, ended) if "release" in known else 0.0
    web = by_hand(known["web"], env, cwd, answers(int(env["PORT"])))
    return {"own release": released, "own boot": web, "own": released + web}


def sample(args, folder, repetition, env, cwd):
    """One change, one rebuild, one boot by hand."""
    name, text = EXAMPLES[folder.name]
    with open(folder / name, "a") as source:
        source.write(text.format(repetition))
    with up(args, folder) as program:
        figures = phases(program)
    figures |= own(folder, env, cwd)
    figures["outside"] = figures["total"] - figures["own"]
    figures["share"] = figures["outside"] / figures["total"] * 100
    return figures


def prepare(args, root, name):
    """A copy of an example with its packages installed; returns it with its surroundings."""
    folder = root / name
    leave = shutil.ignore_patterns(".tolv", "node_modules", "__pycache__", ".env")
    shutil.copytree(common.ROOT / "examples" / name, folder, ignore=leave)
    up(args, folder).end()
    return (folder, *surroundings(args, folder))


def main():
    """Runs it all."""
    args = common.arguments(__doc__.splitlines()[0])
    with common.workspace() as temporary:
        prepared = {name: prepare(args, Path(temporary), name) for name in EXAMPLES}
        samples = {name: [] for name in EXAMPLES}
        for repetition in range(args.repetitions):
            for name, (folder, env, cwd) in prepared.items():
                print(f"{repetition + 1}/{args.repetitions} {name}", flush=True)
                samples[name].append(sample(args, folder, repetition, env, cwd))
    keys = [*PHASES, "own release", "own boot", "outside"]
    rows = [[name, *(cell(median(taken, key), 3) for key in keys),
             cell(median(taken, "share"), 0)] for name, taken in samples.items()]
    common.table(f"Seconds of a rebuild after one changed line, medians of {args.repetitions}",
                 ["", *keys, "outside %"], rows)


if __name__ == "__main__":
    main()
