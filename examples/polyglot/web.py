"""A greeting over HTTP, with Python's standard library alone."""

import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GREETING = os.environ.get("GREETING", "Hello from three languages")


class Server(ThreadingHTTPServer):
    daemon_threads = False  # server_close waits for the requests in flight


class Hello(BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"{GREETING}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        print(format % args, flush=True)


server = Server(("0.0.0.0", int(os.environ["PORT"])), Hello)
# shutdown() waits for serve_forever(), so it cannot run on the thread that serves.
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
print("listening", flush=True)
server.serve_forever()
server.server_close()
print("stopped", flush=True)
