#!/usr/bin/env python3
"""A drill: everything that is done to a platform and everything that happens to it, under load.

A `tolv serve` with four apps: gunicorn, uvicorn with open WebSockets, node with open event streams,
and static files. Requests come at a fixed rate, half of them on fresh connections, while the platform
is changed in every way; then its helpers are killed, and what it lives on is taken away and given back.

    done      how often
    requests  during it
    failed    of them: not answered with 200, or not at all
    p99 ms    of the requests
    closed    WebSockets that ended with a close frame / that ended
    refused   whether a push failed while something was gone
    back s    after a fault: until a push, a config change, a one-off and `ps` work, at most

Only a kill of the platform itself may fail requests: until its next start nobody listens.
"""
import base64
import contextlib
import hashlib
import http.client
import os
import random
import resource
import signal
import socket
import statistics
import subprocess
import threading
import time
from pathlib import Path

import common
from serve import Platform

# Requests a second, over all apps.
RATE = 200
WEBSOCKETS = 10
STREAMS = 3
# What everything that is launched is below, on cgroup v1.
MEMORY = Path("/sys/fs/cgroup/memory/tolv")

GUNICORN = """\
def app(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [b'ok\\n']
"""
UVICORN = """\
import asyncio

async def app(scope, receive, send):
    if scope['type'] == 'lifespan':
        return
    if scope['type'] == 'http':
        await send({'type': 'http.response.start', 'status': 200})
        await send({'type': 'http.response.body', 'body': b'ok\\n'})
        return
    await receive()
    await send({'type': 'websocket.accept'})
    ended = asyncio.ensure_future(receive())
    while not ended.done():
        await send({'type': 'websocket.send', 'text': 'tick'})
        await asyncio.wait([ended], timeout=0.2)
"""
NODE = """\
const server = require('http').createServer((request, response) => {
  if (request.url !== '/events') { response.end('ok\\n'); return; }
  response.writeHead(200, {'content-type': 'text/event-stream'});
  const timer = setInterval(() => response.write('data: tick\\n\\n'), 200);
  response.on('close', () => clearInterval(timer));
});
server.listen(process.env.PORT);
process.on('SIGTERM', () => { server.close(); server.closeAllConnections(); });
"""


def requirements(folder, *packages):
    """Pinned packages with their hashes, as PyPI has them now."""
    with common.workspace() as wheels:
        subprocess.run(["python3", "-m", "pip", "download", "-q", "-d", wheels, *packages],
                       check=True, capture_output=True)
        lines = []
        for wheel in sorted(Path(wheels).iterdir()):
            name, version = wheel.name.split("-")[:2]
            digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
            lines.append(f"{name}=={version} --hash=sha256:{digest}\n")
    (folder / "requirements.txt").write_text("".join(lines))


def codebases(folder):
    """Four folders with a codebase each."""
    made = {name: folder / name for name in ("gunicorn", "uvicorn", "node", "static")}
    for path in made.values():
        path.mkdir()
    requirements(made["gunicorn"], "gunicorn")
    requirements(made["uvicorn"], "uvicorn", "websockets")
    write = {
        "gunicorn": {"web.py": GUNICORN, "Procfile": "web: gunicorn --bind 0.0.0.0:$PORT web:app\n"},
        "uvicorn": {"web.py": UVICORN, "Procfile": "web: uvicorn --host 0.0.0.0 --port $PORT web:app\n"},
        "node": {"server.js": NODE, "Procfile": "web: node server.js\n",
                 "package.json": '{"name": "drill", "version": "1.0.0", "private": true}\n',
                 "package-lock.json": '{"name": "drill", "version": "1.0.0", "lockfileVersion": 3, '
                                      '"packages": {"": {"name": "drill", "version": "1.0.0"}}}\n'},
        "static": {"index.html": "ok\n"},
    }
    for name, files in write.items():
        for file, text in files.items():
            (made[name] / file).write_text(text)
        git(made[name], "init", "-q", "-b", "main")
        change(made[name])
    return made


def git(folder, *words):
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=folder,
                   check=True, capture_output=True)


def change(folder):
    """A new commit."""
    (folder / "round").write_text(str(random.random()))
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "change")


class Load:
    """Requests at a fixed rate, WebSockets and event streams, until it is stopped."""

    def __init__(self, port, apps):
        self.port, self.apps = port, apps
        self.over = threading.Event()
        self.lock = threading.Lock()
        self.answers, self.closed = [], []
        workers = 8
        jobs = [(self.ask, RATE / workers)] * workers + [(self.websocket,)] * WEBSOCKETS
        jobs += [(self.stream,)] * STREAMS
        self.threads = [threading.Thread(target=job[0], args=job[1:], daemon=True) for job in jobs]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join(10)

    def take(self):
        """What came since it was asked before: (seconds, is_failed) of each, and of WebSockets whether
        a close frame came."""
        with self.lock:
            taken = self.answers, self.closed
            self.answers, self.closed = [], []
        return taken

    def ask(self, rate):
        kept, number = {}, random.randrange(1000)
        due = time.monotonic()
        while not self.over.is_set():
            due += 1 / rate
            time.sleep(max(0, due - time.monotonic()))
            number += 1
            app = self.apps[number % len(self.apps)]
            is_fresh = number // len(self.apps) % 2 == 0
            connection = None if is_fresh else kept.pop(app, None)
            began, failed = time.monotonic(), ""
            try:
                if connection is None:
                    connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
                connection.request("GET", "/", headers={"Host": f"{app}.localhost"})
                response = connection.getresponse()
                body = response.read()
                if response.status != 200 or body != b"ok\n":
                    failed = f"{app} {response.status}"
            except (OSError, http.client.HTTPException) as error:
                # A kept connection may have been closed at the end of its platform: as every
                # client does, it is asked again on a fresh one.
                if not is_fresh and isinstance(error, (http.client.RemoteDisconnected, ConnectionError)):
                    number -= 1
                    kept.clear()
                    continue
                failed = f"{app} {error!r}"
            seconds = time.monotonic() - began
            if is_fresh or failed:
                connection.close()
            else:
                kept[app] = connection
            with self.lock:
                self.answers.append((seconds, failed))

    def connect(self, app, path, headers):
        stream = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        lines = [f"GET {path} HTTP/1.1", f"Host: {app}.localhost", *headers, "", ""]
        stream.sendall("\r\n".join(lines).encode())
        reader = stream.makefile("rb")
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = reader.readline()
            if not line:
                raise ConnectionError("no head")
            head += line
        return stream, reader, head

    def websocket(self):
        key = base64.b64encode(os.urandom(16)).decode()
        headers = ["Connection: Upgrade", "Upgrade: websocket", f"Sec-WebSocket-Key: {key}",
                   "Sec-WebSocket-Version: 13"]
        while not self.over.is_set():
            is_closed = None
            with contextlib.suppress(OSError):
                stream, reader, head = self.connect("uvicorn", "/", headers)
                with stream:
                    if b" 101 " in head.splitlines()[0]:
                        is_closed = False
                    while is_closed is False and not self.over.is_set():
                        first = reader.read(2)
                        if len(first) < 2:
                            break
                        size = first[1] & 127
                        if size == 126:
                            size = int.from_bytes(reader.read(2), "big")
                        reader.read(size)
                        if first[0] & 15 == 8:
                            is_closed = True
            if is_closed is not None and not self.over.is_set():
                with self.lock:
                    self.closed.append(is_closed)
            time.sleep(0.05)

    def stream(self):
        while not self.over.is_set():
            with contextlib.suppress(OSError):
                stream, reader, _ = self.connect("node", "/events", [])
                with stream:
                    while not self.over.is_set() and reader.readline():
                        pass
            time.sleep(0.05)


class Drill:
    """The platform, its apps, and what was measured."""

    def __init__(self, args, folder):
        self.args, self.platform = args, Platform(args, folder)
        self.folders = codebases(folder)
        self.tolv = lambda *words: self.platform.run([args.tolv, *words], self.folders["static"])
        self.tolv("login", f"http://127.0.0.1:{self.platform.api}", "--token", self.platform.token)
        for name, path in self.folders.items():
            self.platform.run([args.tolv, "create", name], path)
            self.push(name)
            # So that one is there while the other is replaced.
            self.platform.run([args.tolv, "scale", "web=2"], path)
        self.rows = []

    def push(self, name):
        change(self.folders[name])
        self.platform.run(["git", "push", "-q", "tolv", "main"], self.folders[name])

    def measure(self, load, name, times, one, may_fail=False):
        """Does something so often, and what the requests meanwhile were like."""
        load.take()
        for number in range(times):
            one(number)
        time.sleep(1)
        answers, closed = load.take()
        failed = [why for _, why in answers if why]
        seconds = sorted(seconds for seconds, why in answers if not why)
        p99 = statistics.quantiles(seconds, n=100)[98] * 1000 if len(seconds) > 1 else 0.0
        self.rows.append([name, str(times), str(len(answers)), str(len(failed)), f"{p99:.1f}",
                          f"{sum(closed)}/{len(closed)}"])
        if failed and not may_fail:
            print(f"{name}: {failed[:5]}", flush=True)
        return bool(failed) and not may_fail

    def upgrade(self, _=0):
        """SIGUSR2, until the old program has ended."""
        old = self.platform.program
        before = old.output().count(b"Handed over to process ")
        os.kill(self.platform.program.pid, signal.SIGUSR2)
        handed = lambda: old.output().count(b"Handed over to process ") > before
        common.until(handed, 60, "an upgrade")
        said = old.output().rsplit(b"Handed over to process ", 1)[1]
        old.pid = int(said.split(b";")[0])

    def kill(self, _=0):
        """SIGKILL, and a start."""
        running = common.open_pidfd(self.platform.program.pid)
        os.kill(self.platform.program.pid, signal.SIGKILL)
        common.until_gone([running])
        os.close(running)
        self.platform.start()

    def works(self):
        """Seconds until everything works again."""
        began = time.monotonic()
        while True:
            try:
                self.push("static")
                self.tolv("config", "set", f"A={random.random()}")
                self.tolv("run", "true")
                self.tolv("ps")
                return time.monotonic() - began
            except SystemExit as error:
                if time.monotonic() - began > 60:
                    raise SystemExit(f"nothing works again: {error}") from error

    def helper(self, name):
        """A process of this kind below the platform; a shim is a fork of the spawner's."""
        below = common.descendants(self.platform.program.pid)[1:]
        spawners = [pid for pid in below if b"spawner" in common.argv(pid)]
        found = {"spawner": spawners[:1], "shim": spawners[1:],
                 "git": [pid for pid in below if b"receive-pack" in common.argv(pid)]}[name]
        return random.choice(found) if found else None


def under_load(args, drill):
    """Everything that is done to a platform, under load."""
    names, times = list(drill.folders), args.rounds
    configs = [lambda n: drill.tolv("config", "set", f"N={n}"), lambda n: drill.tolv("restart"),
               lambda n: drill.tolv("rollback")]
    bad = False
    with Load(drill.platform.http, names) as load:
        time.sleep(1)
        bad |= drill.measure(load, "quiet", 1, lambda n: time.sleep(3))
        bad |= drill.measure(load, "push", times * 5 // 2, lambda n: drill.push(names[n % len(names)]))
        for name, one in zip(("config set", "restart", "rollback"), configs):
            bad |= drill.measure(load, name, times, one)
        bad |= drill.measure(load, "upgrade", times, drill.upgrade)
        drill.measure(load, "kill", times, drill.kill, may_fail=True)
    common.table("Under load", ["", "done", "requests", "failed", "p99 ms", "closed"], drill.rows)
    return bad


def helpers(drill):
    """Kills of what the platform works with, in the middle of a push."""
    rows = []
    for name in ("spawner", "git", "shim"):
        over = threading.Event()

        def pushes():
            while not over.is_set():
                with contextlib.suppress(SystemExit):
                    drill.push("gunicorn")

        pusher = threading.Thread(target=pushes)
        pusher.start()
        kills, until = 0, time.monotonic() + 4
        while time.monotonic() < until:
            pid = drill.helper(name)
            if pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    kills += 1
            time.sleep(1 if name == "spawner" else 0.3)
        over.set()
        pusher.join()
        rows.append([f"{name} killed {kills} times", "–", f"{drill.works():.2f}"])
    return rows


@contextlib.contextmanager
def no_descriptors(drill):
    """The platform opens nothing more."""
    pid, limit = drill.platform.program.pid, resource.RLIMIT_NOFILE
    before = resource.prlimit(pid, limit)
    resource.prlimit(pid, limit, (len(os.listdir(f"/proc/{pid}/fd")), before[1]))
    yield
    resource.prlimit(pid, limit, before)


@contextlib.contextmanager
def no_disk(drill):
    """The file system of the state folder is full to its last byte."""
    filler = drill.platform.folder / "state/filler"
    with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))
    yield
    filler.unlink()


@contextlib.contextmanager
def no_processes(drill):
    """Nobody forks below the platform."""
    group = Path("/sys/fs/cgroup/pids/tolv-drill")
    group.mkdir(exist_ok=True)
    for pid in (drill.platform.program.pid, drill.helper("spawner")):
        (group / "cgroup.procs").write_text(str(pid))
    (group / "pids.max").write_text("1")
    yield
    (group / "pids.max").write_text("max")


@contextlib.contextmanager
def no_memory(drill):
    """Apps, builds and git have hardly a page more than they hold; the largest of them is killed."""
    limit = MEMORY / "memory.limit_in_bytes"
    before = limit.read_text()
    limit.write_text(str(int((MEMORY / "memory.usage_in_bytes").read_text()) + (1 << 20)))
    yield
    limit.write_text(before)


def taken_away(drill):
    """What the platform lives on is gone for two seconds, while a push is tried."""
    rows = []
    faults = {"descriptors": no_descriptors, "disk": no_disk}
    if Path("/sys/fs/cgroup/pids").is_dir():
        faults["processes"] = no_processes
    if (MEMORY / "memory.usage_in_bytes").exists():
        faults["memory"] = no_memory
    for name, fault in faults.items():
        is_refused = False
        with fault(drill):
            try:
                drill.push("static")
            except (SystemExit, subprocess.TimeoutExpired):
                is_refused = True
            time.sleep(1)
        # One that nobody noticed has taken nothing away.
        told = "yes" if is_refused else "no"
        rows.append([f"no {name}", told, f"{drill.works():.2f}"])
    return rows


def main():
    args = common.arguments(__doc__, rounds=20)
    # A disk of its own, to be filled.
    os.environ["TOLV_MIN_FREE"] = "8"
    with common.workspace() as folder:
        state = Path(folder) / "state"
        state.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700m", "tmpfs", state], check=True)
        drill = Drill(args, Path(folder))
        try:
            bad = under_load(args, drill)
            rows = helpers(drill) + taken_away(drill)
            common.table("Faults", ["", "push refused", "back s"], rows)
        finally:
            drill.platform.end()
            subprocess.run(["umount", "-l", state], check=True)
    raise SystemExit(1 if bad else 0)


if __name__ == "__main__":
    main()
