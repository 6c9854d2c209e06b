# A receiver of lines: over HTTP, or bytes over TCP; in clear, or encrypted.
#
#   receiver.py http|tcp PORT FOLDER [CERTIFICATE KEY]
#
# HTTP: each request is a file in the folder: the status that it got, its head, its body. The file
# `answer` says which status that is; `hang` is none until it says another. TCP: the bytes of
# each connection are in a file, `bytes-000000` and so on; with the answer
# `hold` no connection is closed.
import http.server
import os
import socket
import ssl
import sys
import threading
import time

kind, port, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
context = None
if len(sys.argv) > 4:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[4], sys.argv[5])
lock = threading.Lock()


def put(name, data):
    aside = os.path.join(folder, "." + name)
    with open(aside, "wb") as file:
        file.write(data)
    os.rename(aside, os.path.join(folder, name))


def read(name):
    with open(os.path.join(folder, name)) as file:
        return file.read().strip()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        while (answer := read("answer")) == "hang":
            time.sleep(0.05)
        head = f"{answer} {self.path}\r\n" + str(self.headers).replace("\n", "\r\n")
        with lock:
            count = len([name for name in os.listdir(folder) if name.startswith("request-")])
            put(f"request-{count:06}", head.encode() + body)
        self.send_response(int(answer))
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


class Http(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def finish_request(self, request, address):
        if context:
            request = context.wrap_socket(request, server_side=True)
        super().finish_request(request, address)

    def handle_error(self, *args):
        pass


def take(connection):
    try:
        if context:
            connection = context.wrap_socket(connection, server_side=True)
        file = None
        while data := connection.recv(65536):
            if not file:
                with lock:
                    count = len([name for name in os.listdir(folder) if name.startswith("bytes-")])
                    file = open(os.path.join(folder, f"bytes-{count:06}"), "ab", buffering=0)
            file.write(data)
        while read("answer") == "hold":
            time.sleep(0.05)
    except OSError:
        pass
    connection.close()


if kind == "http":
    Http(("127.0.0.1", port), Handler).serve_forever()
listener = socket.create_server(("127.0.0.1", port))
while True:
    threading.Thread(target=take, args=listener.accept()[:1], daemon=True).start()
