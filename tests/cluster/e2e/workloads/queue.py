"""A shop's front: requests arrive at a rate and wait until a worker takes them.

`/rate/7.5` sets the requests a second and `/take` hands the oldest to a worker. `/query` is the
database that every request of some services needs: it answers one at a time.
"""

import os
import threading
import time
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LONGEST = 60
"""Requests that wait; more are turned away."""
QUERY_SECONDS = 0.15

lock, database = threading.Condition(), threading.Lock()
waiting: deque[int] = deque()
rate = float(os.environ["RATE"])


def arrive() -> None:
    number = 0
    while True:
        time.sleep(1 / rate)
        with lock:
            number += 1
            if len(waiting) < LONGEST:
                waiting.append(number)
                lock.notify()


def take() -> str:
    with lock:
        lock.wait_for(lambda: waiting, timeout=5)
        return str(waiting.popleft()) if waiting else ""


def answer(path: str) -> str:
    global rate  # noqa: PLW0603
    word, _, value = path.strip("/").partition("/")
    if word == "take":
        return take()
    if word == "query":
        with database:
            time.sleep(QUERY_SECONDS)
    if word == "rate":
        rate = float(value)
    if word == "metrics":
        return f'requests_waiting{{deployment="{os.environ["DEPLOYMENT"]}"}} {len(waiting)}\n'
    return ""


class Front(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = answer(self.path).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing of requests."""


threading.Thread(target=arrive, daemon=True).start()
ThreadingHTTPServer(("", 8080), Front).serve_forever()
