"""What a drain costs: CPU seconds per million 100-byte lines, from the stored log to a receiver.

The app writes lines in blocks of 64 KiB; the drain sends what is stored to a receiver on this
machine that throws it away. The cost is that of the drain's thread. Beside it, rsyslog reads as
many lines from a file (`imfile`) and forwards them as the same messages over TCP (`omfwd`, octet
counting): the whole of its process, which does nothing else.

seconds  from the first line at the receiver to the last
"""
import http.server
import os
import socket
import socketserver
import subprocess
import threading
import time
from pathlib import Path

import common
import logs
from common import Program, Served, cell, median

RSYSLOG = """global(workDirectory="{folder}" maxMessageSize="64k")
main_queue(queue.workerThreads="1" queue.size="100000" queue.dequeueBatchSize="1024")
module(load="imfile")
input(type="imfile" file="{folder}/lines" tag="app" readMode="0" ruleset="out")
template(name="strict" type="string"
  string="<14>1 %timegenerated:::date-rfc3339% shop.production app web.1 - - %rawmsg%")
ruleset(name="out") {{
  action(type="omfwd" target="127.0.0.1" port="{port}" protocol="tcp" template="strict"
    TCP_Framing="octet-counted" action.resumeRetryCount="-1")
}}
"""

# Once in each line.
WORD = b"level=info"


class Sink:
    """Takes everything and throws it away; counts the lines by a word of theirs."""

    def __init__(self, over_http):
        self.lines, self.first, self.last = 0, None, None
        lock = threading.Lock()
        sink = self

        def took(data):
            with lock:
                count = data.count(WORD)
                if count:
                    sink.lines += count
                    sink.last = time.monotonic()
                    sink.first = sink.first or sink.last

        class Tcp(socketserver.BaseRequestHandler):
            def handle(self):
                rest = b""
                while data := self.request.recv(1 << 18):
                    took(rest + data)
                    # A word that is cut counts with what follows.
                    rest = (rest + data)[-(len(WORD) - 1):]

        class Http(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                took(self.rfile.read(int(self.headers["content-length"])))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads, allow_reuse_address = True, True

        self.server = Server(("127.0.0.1", 0), Http if over_http else Tcp)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def until(self, lines, check):
        def all_():
            check()
            return self.lines >= lines
        common.until(all_, 600, f"{lines} lines at the receiver", 0.05)
        self.server.shutdown()
        return self.last - self.first


def thread_cpu(pid, name):
    """CPU seconds of the threads of a process that have this name."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        if common.read(task / "comm").strip() == name:
            total += int(common.read(task / "schedstat").split()[0])
    return total / 1e9


def tolv(args, folder, scheme, over_http):
    """A drain of a deploy whose worker floods."""
    sink = Sink(over_http)
    source = logs.app(folder / "shop")
    logs.procfile(source, args.lines, logs.BLOCK)
    (source / "Procfile").write_text(
        (source / "Procfile").read_text().replace("flood:", "worker:"))
    (source / "app.json").write_text('{"formation": {"worker": {"quantity": 1}}}')
    with Served(args, folder, {"TOLV_LOG_MIB": "4096"}) as served:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        for words in (["init", "-q", "-b", "main"], ["add", "-A"], [*who, "commit", "-qm", "first"]):
            subprocess.run(["git", *words], cwd=source, check=True)
        served.run(["login", f"http://127.0.0.1:{served.api}", "--token", served.token])
        served.run(["create", "shop"], source)
        served.run(["drains", "add", f"{scheme}://127.0.0.1:{sink.port}", "-d", "shop"])
        common.until(lambda: thread_cpu(served.pid, b"drain") > 0, 60, "the drain")
        before = thread_cpu(served.pid, b"drain")
        served.run(["git", "push", "-q", "tolv", "main"], source)
        seconds = sink.until(args.lines, served.program.check)
        time.sleep(1)
        used = thread_cpu(served.pid, b"drain") - before
        drain = served.json(["drains", "-d", "shop"])["items"][0]
        if drain["dropped"] or drain["retried"]:
            raise SystemExit(f"a round that lost or repeated lines: {drain}")
    return {"cpu": used / args.lines * 1e6, "seconds": seconds}


def rsyslog(args, folder):
    """rsyslog from a file to the same receiver."""
    sink = Sink(False)
    with open(folder / "lines", "wb") as lines:
        for _ in range(args.lines // 16384 + 1):
            lines.write(logs.LINES)
    count = (args.lines // 16384 + 1) * 16384
    (folder / "rsyslog.conf").write_text(RSYSLOG.format(folder=folder, port=sink.port))
    command = ["/usr/sbin/rsyslogd", "-n", "-f", folder / "rsyslog.conf", "-i", folder / "pid"]
    with Program(command, folder) as program:
        seconds = sink.until(count, program.check)
        used = common.cpu(program.pid)
    return {"cpu": used / count * 1e6, "seconds": seconds}


def main():
    args = common.arguments(__doc__.splitlines()[0], lines=1_000_000)
    peers = {
        "rsyslog, file → TCP": rsyslog,
        "tolv, syslog over TCP": lambda args, folder: tolv(args, folder, "syslog", False),
        "tolv, logplex over HTTP": lambda args, folder: tolv(args, folder, "http", True),
        "tolv, OTLP over HTTP": lambda args, folder: tolv(args, folder, "otlp+http", True),
    }
    samples = {name: [] for name in peers}
    for _ in range(args.repetitions):
        for name, run in peers.items():
            with common.workspace() as folder:
                samples[name].append(run(args, Path(folder)))
    base = median(samples["rsyslog, file → TCP"], "cpu")
    rows = [[name, cell(median(found, "cpu"), 2, base), cell(median(found, "seconds"), 1)]
            for name, found in samples.items()]
    common.table("drains", ["", "CPU s per million", "seconds"], rows)


if __name__ == "__main__":
    main()
