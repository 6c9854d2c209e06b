"""What the benches share: processes seen through /proc, programs under test, and tables.

Everything is read from outside, the same way for every peer: CPU time from the process's CPU
clock (nanoseconds, ended threads included), memory from smaps_rollup, ends from pidfds.
"""
import argparse
import json
import os
import select
import signal
import socket
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def arguments(description, **more):
    """The command line of every bench: `--tolv`, `--peers`, `--repetitions`, and `more` numbers."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--tolv", type=Path, default=ROOT / "target/release/tolv")
    parser.add_argument("--peers", type=Path, default=ROOT / "target/bench/venv/bin")
    parser.add_argument("--repetitions", type=int, default=3)
    for name, default in more.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    args = parser.parse_args()
    args.tolv = args.tolv.resolve()
    # Not resolved: a virtual environment's python is a link that must stay one.
    args.peers = args.peers.absolute()
    return args


def workspace():
    """A folder that vanishes at the end of the `with`."""
    return tempfile.TemporaryDirectory(prefix="tolv-bench-", ignore_cleanup_errors=True)


# What /proc tells


def read(path):
    """A file's bytes; nothing for a process that is gone."""
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def argv(pid):
    """The words of a process's command line."""
    return read(f"/proc/{pid}/cmdline").split(b"\0")[:-1]


def environ(pid):
    """The environment that a process was started with."""
    pairs = (pair.partition(b"=") for pair in read(f"/proc/{pid}/environ").split(b"\0") if pair)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def pids():
    """Every process of the machine."""
    return {int(name) for name in os.listdir("/proc") if name.isdigit()}


def descendants(root):
    """The process and all below it, nearest first."""
    found = [root]
    for pid in found:
        try:
            threads = os.listdir(f"/proc/{pid}/task")
        except OSError:
            continue
        for thread in threads:
            found += map(int, read(f"/proc/{pid}/task/{thread}/children").split())
    return found


def cpu(pid):
    """CPU seconds of a process so far, without its children."""
    try:
        return time.clock_gettime_ns((~pid << 3) | 2) / 1e9
    except OSError:
        return 0.0


def memory(pid):
    """Proportional and private bytes of a process."""
    fields = {}
    for line in read(f"/proc/{pid}/smaps_rollup").splitlines()[1:]:
        name, size = line.split()[:2]
        fields[name] = int(size) * 1024
    private = fields.get(b"Private_Clean:", 0) + fields.get(b"Private_Dirty:", 0)
    return fields.get(b"Pss:", 0), private


def wakeups_of_threads(pid):
    """How often each thread of a process went to sleep of its own will."""
    found = {}
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        for line in read(status).splitlines():
            if line.startswith(b"voluntary_ctxt_switches:"):
                found[int(status.parent.name)] = int(line.split()[1])
    return found


def wakeups(pid):
    """How often the threads of a process went to sleep of their own will."""
    return sum(wakeups_of_threads(pid).values())


# Programs under test


class Program:
    """A program that is being measured; its output goes to `path`."""

    def __init__(self, command, cwd, path=os.devnull, **options):
        self.before = pids()
        self.path = path
        with open(path, "wb") as out:
            self.began = time.time()
            self.child = subprocess.Popen(
                list(map(str, command)), cwd=cwd, stdout=out, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL, start_new_session=True, **options)
        self.pid = self.child.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def output(self):
        """What it printed so far."""
        return read(self.path)

    def check(self):
        """Fails when it has ended by itself."""
        if self.child.poll() is not None:
            tail = self.output().decode(errors="replace")[-2000:]
            raise SystemExit(f"{self.child.args} ended with {self.child.returncode}:\n{tail}")

    def wait_for(self, text, limit=300.0):
        """Waits until its output has `text`."""
        def found():
            self.check()
            return text in self.output()
        until(found, limit, f"`{text.decode()}` in the output of {self.child.args}")

    def end(self, number=signal.SIGTERM, limit=60.0):
        """Signals it, waits until it is gone and kills what it left; returns the seconds."""
        tree = [open_pidfd(pid) for pid in descendants(self.pid)]
        start = time.monotonic()
        if self.child.poll() is None:
            self.child.send_signal(number)
        try:
            self.child.wait(limit)
        except subprocess.TimeoutExpired:
            pass
        seconds = time.monotonic() - start
        for pidfd in filter(None, tree):
            signal_pidfd(pidfd, signal.SIGKILL)
            os.close(pidfd)
        self.child.wait()
        return seconds


class Served:
    """A running `tolv serve` with a user of its own, for a `with`."""

    def __init__(self, args, folder, env):
        self.api, http = free_port(), free_port()
        self.tolv, self.folder = args.tolv, folder / f"served-{self.api}"
        self.folder.mkdir()
        self.own = {"TOLV_HOME": str(self.folder / "state"), "TOLV_LISTEN": f"127.0.0.1:{self.api}",
                    "TOLV_HTTP": f"127.0.0.1:{http}", **env}

    def __enter__(self):
        self.program = Program([self.tolv, "serve"], self.folder, self.folder / "output",
                               env={**os.environ, **self.own})
        self.program.wait_for(b"API at http", 60)
        self.pid = self.program.pid
        words = self.program.output().decode().split()
        self.token = next(word for word in words if word.startswith("tolv_"))
        return self

    def __exit__(self, *_):
        self.program.end()

    def run(self, args, cwd=None):
        """A command that has to succeed; what it wrote."""
        env = {**os.environ, "HOME": str(self.folder), "XDG_CONFIG_HOME": str(self.folder),
               "TOLV_TOKEN": self.token, "TOLV_SERVER": f"http://127.0.0.1:{self.api}"}
        words = [str(word) for word in args]
        command = words if words[0] == "git" else [str(self.tolv), *words]
        ran = subprocess.run(command, cwd=cwd or self.folder, env=env, capture_output=True)
        if ran.returncode:
            raise SystemExit(f"{command}: {ran.stderr.decode()}")
        return ran.stdout

    def json(self, args):
        """What a command says with `--json`."""
        return json.loads(self.run([*args, "--json"]))

    def deploy(self, source, name):
        """Makes a repository of a folder, and pushes it as an app."""
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        for words in (["init", "-q", "-b", "main"], ["add", "-A"], [*who, "commit", "-qm", "first"]):
            subprocess.run(["git", *words], cwd=source, check=True)
        # The helper that `create` sets up needs the credentials of a login.
        self.run(["login", f"http://127.0.0.1:{self.api}", "--token", self.token])
        self.run(["create", name], source)
        self.run(["git", "push", "-q", "tolv", "main"], source)


def free_port():
    """A port that was free a moment ago."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def pss(root):
    """Bytes of memory of tolv and its shims, shared pages divided."""
    ours = [pid for pid in descendants(root) if argv(pid)[0].endswith(b"tolv")]
    return sum(memory(pid)[0] for pid in ours)


def open_pidfd(pid):
    """A handle to a process that a new one with the same number cannot get; None when gone."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def signal_pidfd(pidfd, number):
    """Signals a process that may be gone."""
    try:
        signal.pidfd_send_signal(pidfd, number)
    except OSError:
        pass


def until(done, limit, what, pause=0.002):
    """Calls `done` until it gives something true, and returns that."""
    deadline = time.monotonic() + limit
    while True:
        value = done()
        if value:
            return value
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {limit:.0f} s: {what}")
        time.sleep(pause)


def until_gone(pidfds, limit=30.0):
    """Waits until every process has ended; returns those that had not after `limit` seconds."""
    poll = select.poll()
    for pidfd in pidfds:
        poll.register(pidfd, select.POLLIN)
    left, deadline = set(pidfds), time.monotonic() + limit
    while left:
        events = poll.poll(max(0, deadline - time.monotonic()) * 1000)
        if not events:
            break
        for pidfd, _ in events:
            poll.unregister(pidfd)
            left.discard(pidfd)
    return left


# Results


def median(samples, key):
    """The median of one figure of all repetitions; None where it was not taken."""
    values = [sample[key] for sample in samples if sample.get(key) is not None]
    return statistics.median(values) if values else None


def cell(value, digits=2, ratio=None):
    """A figure, with how many times `ratio` it is."""
    if value is None:
        return "–"
    text = f"{value:.{digits}f}"
    return text if not ratio else f"{text} ({value / ratio:.2f}×)"


def table(title, head, rows):
    """Prints rows as a Markdown table whose columns line up."""
    widths = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]
    line = lambda row: "| " + " | ".join(text.ljust(w) for text, w in zip(row, widths)) + " |"
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    print(f"\n{title}\n", line(head), rule, *map(line, rows), sep="\n", flush=True)
