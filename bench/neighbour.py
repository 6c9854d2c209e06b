#!/usr/bin/env python3
"""What a neighbour feels while one app takes all it can.

A `tolv serve` with two apps: a neighbour that answers requests, and a rogue whose processes attack
one after the other. Each attack stands between two quiet phases of the same length; its p99 is
divided by theirs, so that the machine's own noise cancels out. `ps` is the longest that `tolv ps` took.

    p99 ms   of the requests to the neighbour: quiet before and after, and during the attack
    ratio    during / quiet
    errors   requests that were not answered with 200
    ps s     the slowest of `tolv ps` meanwhile
"""
import os
import resource
import socket
import statistics
import subprocess
import threading
import time

import common
from serve import Platform

SERVER = """\
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        # One write: a second one would wait for the peer's delayed acknowledgement.
        self.wfile.write(b'HTTP/1.1 200 OK\\r\\nContent-Length: 3\\r\\n\\r\\nok\\n')
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(('', int(os.environ['PORT'])), Handler).serve_forever()
"""

ATTACKS = {
    "bomb": """\
import os, time
while True:
    try:
        os.fork()
    except OSError:
        time.sleep(0.01)
""",
    # Its rollout has to succeed first.
    "hog": "import time\ntime.sleep(5)\nheld = []\nwhile True:\n    held.append(b'x' * (16 << 20))\n",
    "spin": "import os\nfor n in range(6):\n    os.fork()\nwhile True:\n    pass\n",
    "flood": "while True:\n    print('x' * 2000)\n",
    "tmp": """\
import os
while True:
    try:
        with open('/tmp/big', 'wb') as file:
            while True:
                file.write(b'x' * 65536)
    except OSError:
        os.unlink('/tmp/big')
""",
    "shm": """\
import os
while True:
    try:
        with open('/dev/shm/big', 'wb') as file:
            while True:
                file.write(b'x' * 65536)
    except OSError:
        os.unlink('/dev/shm/big')
""",
    "inodes": """\
import os
while True:
    n = 0
    try:
        while True:
            open(f'/tmp/{n}', 'w').close()
            n += 1
    except OSError:
        for name in os.listdir('/tmp'):
            os.unlink(f'/tmp/{name}')
""",
}
# A build that takes all cores and memory it gets.
PACKAGE = """{"name": "heavy", "version": "1.0.0", "scripts": {"build": "%s"}}"""
HEAVY = "for n in 1 2 3 4 5 6 7 8; do (while :; do :; done) & done; sleep %d; kill $(jobs -p); exit 0"
LOCK = '{"name": "heavy", "version": "1.0.0", "lockfileVersion": 3, "requires": true, "packages": {}}'


def git(folder, *words):
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=folder,
                   check=True, capture_output=True)


def app(platform, name, files):
    """A deployed app of these files."""
    folder = platform.folder / "user" / name
    folder.mkdir(parents=True)
    for path, text in files.items():
        (folder / path).write_text(text)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "first")
    platform.run([platform.tolv, "create", name], folder)
    return folder


def push(platform, folder, wait=True):
    helper = f"!{platform.tolv} git-credential"
    command = ["git", "-c", f"credential.helper={helper}", "push", "-q", "tolv", "main"]
    env = platform.environment()
    ran = subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.DEVNULL,
                           stderr=subprocess.PIPE)
    if wait and ran.wait():
        raise SystemExit(ran.stderr.read().decode())
    return ran


class Client:
    """One connection to the neighbour; its times are those of requests alone."""

    def __init__(self, port):
        self.port, self.socket = port, None

    def get(self):
        if self.socket is None:
            self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        self.socket.sendall(b"GET / HTTP/1.1\r\nHost: neighbour.localhost\r\n\r\n")
        answer = b""
        while not answer.endswith(b"ok\n"):
            part = self.socket.recv(4096)
            if not part:
                self.socket = None
                return False
            answer += part
            if not answer.startswith(b"HTTP/1.1 200"):
                self.socket = None
                return False
        return True


def measure(platform, folder, seconds):
    """Times of requests at some 200 a second, errors, and the slowest `tolv ps`."""
    times, errors, slowest = [], 0, 0.0
    client, until = Client(platform.http), time.monotonic() + seconds
    done = threading.Event()

    def ps():
        nonlocal slowest
        while not done.wait(0.5):
            slowest = max(slowest, platform.run([platform.tolv, "ps"], folder))

    asking = threading.Thread(target=ps)
    asking.start()
    while time.monotonic() < until:
        began = time.monotonic()
        try:
            good = client.get()
        except OSError:
            client.socket, good = None, False
        errors += not good
        times.append(time.monotonic() - began)
        time.sleep(0.005)
    done.set()
    asking.join()
    return statistics.quantiles(times, n=100)[98] * 1000, errors, slowest


def as_another_machine():
    """Takes this script and the commands it calls out of what is measured: whoever asks from another
    machine does not wait for a core of this one."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        print("clients share the cores with what they measure: SCHED_FIFO is not allowed here")


def hoard(platform, count):
    """Idle connections to one host."""
    held = []
    for _ in range(count):
        one = socket.socket()
        one.setblocking(False)
        try:
            one.connect(("127.0.0.1", platform.http))
        except BlockingIOError:
            pass
        except OSError:
            break
        held.append(one)
    return held


def main():
    args = common.arguments(__doc__, seconds=8.0, connections=10_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    rows = []
    with common.workspace() as folder:
        platform = Platform(args, common.Path(folder))
        try:
            neighbour = app(platform, "neighbour", {"Procfile": "web: exec python3 server.py\n",
                                                    "server.py": SERVER})
            push(platform, neighbour)
            as_another_machine()
            procfile = "".join(f"{name}: exec python3 {name}.py\n" for name in ATTACKS)
            files = {"Procfile": procfile + "web: exec python3 server.py\n", "server.py": SERVER}
            files |= {f"{name}.py": text for name, text in ATTACKS.items()}
            files["app.json"] = '{"formation": {%s}}' % ", ".join(
                f'"{name}": {{"quantity": 0}}' for name in ATTACKS)
            rogue = app(platform, "rogue", files)
            push(platform, rogue)
            script = HEAVY % int(args.seconds + 4)
            heavy = app(platform, "heavy", {"package.json": PACKAGE % script, "Procfile": "web: true\n",
                                            "package-lock.json": LOCK})

            def scale(name, quantity):
                platform.run([platform.tolv, "scale", f"{name}={quantity}"], rogue)

            def attack(name):
                if name == "hoarder":
                    held = hoard(platform, args.connections)
                    return lambda: [one.close() for one in held]
                if name == "build":
                    pushing = push(platform, heavy, wait=False)
                    time.sleep(3)
                    return pushing.wait
                scale(name, 1)
                return lambda: scale(name, 0)

            for name in [*ATTACKS, "hoarder", "build"]:
                before = measure(platform, neighbour, args.seconds / 2)
                end = attack(name)
                if name == "hog":
                    time.sleep(4)
                during = measure(platform, neighbour, args.seconds)
                end()
                time.sleep(1)
                after = measure(platform, neighbour, args.seconds / 2)
                quiet = (before[0] + after[0]) / 2
                rows.append([name, f"{quiet:.1f}", f"{during[0]:.1f}", f"{during[0] / quiet:.2f}×",
                             str(during[1]), f"{during[2]:.2f}"])
                print("|", " | ".join(rows[-1]), "|", flush=True)
        finally:
            platform.end()
    common.table("neighbour", ["attack", "quiet p99 ms", "p99 ms", "ratio", "errors", "ps s"], rows)


if __name__ == "__main__":
    main()
