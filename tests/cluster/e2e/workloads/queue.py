"""A shop's front: requests arrive at a rate, wait for a worker, and are counted by their time.

`/rate/7.5` sets the requests a second, `/take` hands the oldest to a worker, `/done/<id>` ends it.
`/query` is the database that every request of some services needs: it answers one at a time.
"""

import os
import threading
import time
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LIMITS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
LONGEST = 60
"""Requests that wait; more are turned away."""
QUERY_SECONDS = 0.15

lock, database = threading.Condition(), threading.Lock()
waiting: deque[tuple[int, float]] = deque()
taken: dict[int, float] = {}
counts = dict.fromkeys((*LIMITS, float("inf")), 0)
rate = float(os.environ["RATE"])
total = 0.0


def arrive() -> None:
    number = 0
    while True:
        time.sleep(1 / rate)
        with lock:
            number += 1
            if len(waiting) < LONGEST:
                waiting.append((number, time.monotonic()))
                lock.notify()


def take() -> str:
    with lock:
        lock.wait_for(lambda: waiting, timeout=5)
        if not waiting:
            return ""
        number, since = waiting.popleft()
        taken[number] = since
        return str(number)


def done(number: int) -> str:
    global total  # noqa: PLW0603
    with lock:
        spent = time.monotonic() - taken.pop(number)
        total += spent
        for limit in counts:
            counts[limit] += spent <= limit
    return ""


def metrics() -> str:
    name = "http_request_duration_seconds"
    who = f'deployment="{os.environ["DEPLOYMENT"]}"'
    with lock:
        lines = [
            f'{name}_bucket{{{who},le="{"+Inf" if k == float("inf") else k}"}} {v}'
            for k, v in counts.items()
        ]
        lines.append(f"{name}_sum{{{who}}} {total}")
        lines.append(f"{name}_count{{{who}}} {counts[float('inf')]}")
    return f"# TYPE {name} histogram\n" + "\n".join(lines) + "\n"


def answer(path: str) -> str:
    global rate  # noqa: PLW0603
    word, _, value = path.strip("/").partition("/")
    if word == "take":
        return take()
    if word == "done":
        return done(int(value))
    if word == "query":
        with database:
            time.sleep(QUERY_SECONDS)
        return ""
    if word == "rate":
        rate = float(value)
        return ""
    return metrics() if word == "metrics" else ""


class Front(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = answer(self.path).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing of requests."""


threading.Thread(target=arrive, daemon=True).start()
ThreadingHTTPServer(("", 8080), Front).serve_forever()
