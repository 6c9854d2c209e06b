"""`tolv serve`: seconds from a push to live, and what a platform costs that does nothing.

push     the first `git push` of an app, hello-node: its packages are fetched and installed
redeploy a push of one changed line: dependencies unchanged
config   `tolv config set`
rollback `tolv rollback`
hook     the floor: `git push` to a bare repository whose post-receive hook checks the commit out
         beside the last one's packages, starts `node server.js`, waits until it answers and ends
         the old one; no sandbox, no ledger, no slug
boot     `node server.js` by hand, until it answers
idle     CPU and wake-ups in 10 s, and memory, of the platform with 0, 10 and 100 deploys that
         have no release
large    a database with 1,000 deploys and 10,000 releases: start-up, ps, releases, config set
"""
import os
import shutil
import socket
import sqlite3
import statistics
import subprocess
import time
import urllib.request
from pathlib import Path

import common
from common import Program

IDLE = 10.0
# Threads that blocked on files end after 10 s without work.
SETTLE = 12.0
HOOK = """#!/bin/sh
read -r old new ref
live="$APP/$new"
mkdir -p "$live"
git --work-tree="$live" checkout -f "$new" -- .
ln -s "$APP/node_modules" "$live/node_modules"
cd "$live" && PORT="$NEXT" setsid node server.js >/dev/null 2>&1 &
until curl -sf "http://127.0.0.1:$NEXT/" >/dev/null; do sleep 0.01; done
if [ -n "$LAST" ]; then fuser -k -TERM "$LAST/tcp" >/dev/null 2>&1 || true; fi
"""


def free_port():
    """A port that was free a moment ago."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def answers(url):
    """Whether a GET request succeeds."""
    try:
        with urllib.request.urlopen(url, timeout=1) as response:
            return response.status == 200
    except OSError:
        return False


class Platform:
    """A running `tolv serve` with a user of its own."""

    def __init__(self, args, folder):
        self.tolv, self.folder = args.tolv, folder
        self.api, self.http = free_port(), free_port()
        self.token = ""
        self.start()

    def start(self):
        began = time.monotonic()
        env = {**os.environ, "TOLV_HOME": str(self.folder / "state"),
               "TOLV_LISTEN": f"127.0.0.1:{self.api}", "TOLV_HTTP": f"127.0.0.1:{self.http}"}
        self.program = Program([self.tolv, "serve"], self.folder, self.folder / "output", env=env)
        self.program.wait_for(b"API at http", 60)
        words = self.program.output().decode().split()
        self.token = next((word for word in words if word.startswith("tolv_")), self.token)
        return time.monotonic() - began

    def environment(self):
        user = self.folder / "user"
        user.mkdir(exist_ok=True)
        return {**os.environ, "HOME": str(user), "XDG_CONFIG_HOME": str(user / "config"),
                "TOLV_TOKEN": self.token, "TOLV_SERVER": f"http://127.0.0.1:{self.api}"}

    def run(self, command, cwd):
        """A command that has to succeed; its seconds."""
        began = time.monotonic()
        ran = subprocess.run(list(map(str, command)), cwd=cwd, env=self.environment(),
                             capture_output=True, timeout=300)
        if ran.returncode:
            raise SystemExit(f"{command}: {ran.stderr.decode()}")
        return time.monotonic() - began

    def end(self):
        self.program.end()


def commit(folder, text):
    """A change of one line, committed."""
    with open(folder / "server.js", "a") as source:
        source.write(f"// {text}\n")
    for command in (["add", "-A"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", text]):
        subprocess.run(["git", *command], cwd=folder, check=True)


def codebase(folder):
    """hello-node as a repository."""
    shutil.copytree(common.ROOT / "examples/hello-node", folder,
                    ignore=shutil.ignore_patterns("node_modules", ".tolv"))
    subprocess.run(["git", "init", "-q", "-b", "main"], cwd=folder, check=True)
    commit(folder, "first")


def boot(folder):
    """`node server.js` by hand."""
    port = free_port()
    began = time.monotonic()
    with Program(["node", "server.js"], folder, env={**os.environ, "PORT": str(port)}):
        common.until(lambda: answers(f"http://127.0.0.1:{port}/"), 30, "node answers")
        return time.monotonic() - began


def deploys(args):
    """Push, redeploy, config, rollback, beside the hook."""
    rounds = {name: [] for name in ("push", "redeploy", "config", "rollback", "hook", "boot")}
    last = ""
    with common.workspace() as name:
        folder = Path(name)
        source = folder / "shop"
        codebase(source)
        platform = Platform(args, folder)
        try:
            platform.run([args.tolv, "create", "warm", "--remote", "warm"], source)
            platform.run(["git", "push", "warm", "main"], source)
            bare, app = folder / "hook.git", folder / "live"
            app.mkdir()
            subprocess.run(["git", "init", "-q", "--bare", bare], check=True)
            hook = bare / "hooks/post-receive"
            hook.write_text(HOOK)
            hook.chmod(0o755)
            shutil.copytree(source, folder / "packages")
            subprocess.run(["npm", "ci", "--silent"], cwd=folder / "packages", check=True)
            shutil.move(folder / "packages/node_modules", app / "node_modules")
            shutil.copytree(app / "node_modules", source / "node_modules", symlinks=True)
            (source / ".git/info/exclude").write_text("node_modules\n")
            for number in range(args.repetitions):
                remote = f"remote{number}"
                platform.run([args.tolv, "create", f"shop{number}", "--remote", remote], source)
                rounds["push"].append(platform.run(["git", "push", remote, "main"], source))
                commit(source, f"change {number}")
                rounds["redeploy"].append(platform.run(["git", "push", remote, "main"], source))
                which = ["-d", f"shop{number}"]
                set_ = [args.tolv, "config", "set", f"GREETING=hello {number}", *which]
                rounds["config"].append(platform.run(set_, source))
                rounds["rollback"].append(platform.run([args.tolv, "rollback", *which], source))
                port = str(free_port())
                env = {**os.environ, "APP": str(app), "NEXT": port, "LAST": last}
                began = time.monotonic()
                subprocess.run(["git", "push", "-q", bare, "main"], cwd=source, env=env, check=True)
                rounds["hook"].append(time.monotonic() - began)
                rounds["boot"].append(boot(source))
                last = port
        finally:
            platform.end()
            if last:
                subprocess.run(["fuser", "-k", "-TERM", f"{last}/tcp"], capture_output=True)
    floor, own = statistics.median(rounds["hook"]), statistics.median(rounds["boot"])
    print("\n## Deploying hello-node\n")
    print("|  | s | × hook | outside the app's own boot s |\n|---|---|---|---|")
    for name, figures in rounds.items():
        value = statistics.median(figures)
        print(f"| {name} | {value:.3f} | {value / floor:.2f}× | {max(0.0, value - own):.3f} |")


def threads(tree):
    """How often each thread of these processes went to sleep of its own will."""
    return {one: count for pid in tree for one, count in common.wakeups_of_threads(pid).items()}


def idle(args):
    """What a platform costs that does nothing."""
    print("\n## Idle\n")
    print("| deploys | PSS MB | CPU ms in 10 s | wake-ups in 10 s |\n|---|---|---|---|")
    for count in (0, 10, 100):
        with common.workspace() as name:
            folder = Path(name)
            platform = Platform(args, folder)
            try:
                for number in range(count):
                    platform.run([args.tolv, "create", f"app{number}"], folder)
                time.sleep(SETTLE)
                tree = common.descendants(platform.program.pid)
                cpu, before = sum(map(common.cpu, tree)), threads(tree)
                time.sleep(IDLE)
                cpu = sum(map(common.cpu, tree)) - cpu
                woken = sum(now - before.get(one, 0) for one, now in threads(tree).items())
                pss = sum(common.memory(pid)[0] for pid in tree) / 1e6
                print(f"| {count} | {pss:.1f} | {cpu * 1000:.2f} | {woken} |")
            finally:
                platform.end()


def large(args):
    """A database with 1,000 deploys and 10,000 releases."""
    with common.workspace() as name:
        folder = Path(name)
        source = folder / "shop"
        source.mkdir()
        (source / "server.js").write_text("")
        (source / "index.html").write_text("hello")
        subprocess.run(["git", "init", "-q", "-b", "main"], cwd=source, check=True)
        commit(source, "first")
        platform = Platform(args, folder)
        try:
            platform.run([args.tolv, "create", "shop"], source)
            platform.run(["git", "push", "tolv", "main"], source)
            platform.end()
            fill(folder / "state/db.sqlite")
            figures = {"start-up": platform.start()}
            for command in (["ps"], ["releases"], ["config", "set", "A=1"]):
                took = [platform.run([args.tolv, *command], source) for _ in range(args.repetitions)]
                figures[" ".join(command[:2])] = statistics.median(took)
        finally:
            platform.end()
    print("\n## 1,000 deploys, 10,000 releases\n")
    print("|  | s |\n|---|---|")
    for name, value in figures.items():
        print(f"| {name} | {value:.3f} |")


def fill(path):
    """Copies of the one app, with rows that nothing runs."""
    with sqlite3.connect(path) as database:
        deploy = dict_of(database, "deploys")
        release = dict_of(database, "releases")
        for number in range(1000):
            app, own = f"app_{number:020d}", f"dep_{number:020d}"
            insert(database, "apps", {**dict_of(database, "apps"), "id": app, "name": f"a{number}"})
            insert(database, "deploys", {**deploy, "id": own, "app": app, "app_name": f"a{number}",
                                         "host": f"a{number}.localhost", "current_release": None})
            for place in range(1, 11):
                insert(database, "releases", {**release, "deploy": own, "number": place,
                                              "operation": f"op_{number:010d}{place:010d}"})


def dict_of(database, table):
    cursor = database.execute(f"SELECT * FROM {table} ORDER BY id DESC LIMIT 1"
                              if table != "releases" else "SELECT * FROM releases LIMIT 1")
    return dict(zip([column[0] for column in cursor.description], cursor.fetchone()))


def insert(database, table, row):
    marks = ", ".join("?" * len(row))
    database.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", list(row.values()))


def main():
    args = common.arguments(__doc__)
    deploys(args)
    idle(args)
    large(args)


if __name__ == "__main__":
    main()
