"""A service that answers the front's requests: each costs processor time, so replicas share load.

With `NEEDS_DATABASE` it also waits for the database, and its driver spins while it waits: it looks
overloaded and is not, since the database answers one at a time however many ask.
"""

import http.client
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FRONT = os.environ["QUEUE_SERVICE_HOST"], int(os.environ["QUEUE_SERVICE_PORT"])
COST = float(os.environ["COST_SECONDS"])
NEEDS_DATABASE = os.environ.get("NEEDS_DATABASE") == "yes"


class Ready(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing of probes."""


def ask(line: http.client.HTTPConnection, path: str) -> str:
    line.request("GET", path)
    return line.getresponse().read().decode()


def query() -> None:
    ask(http.client.HTTPConnection(*FRONT, timeout=30), "/query")


def work(line: http.client.HTTPConnection) -> None:
    """Take one request and answer it; what taking it costs is part of its price."""
    before = time.process_time()
    number = ask(line, "/take")
    if not number:
        return
    if NEEDS_DATABASE:
        waiting = threading.Thread(target=query)
        waiting.start()
        while waiting.is_alive():
            pass
    while time.process_time() - before < COST:
        pass
    ask(line, f"/done/{number}")


threading.Thread(target=ThreadingHTTPServer(("", 8080), Ready).serve_forever, daemon=True).start()
while True:
    try:
        connection = http.client.HTTPConnection(*FRONT, timeout=30)
        while True:
            work(connection)
    except (OSError, http.client.HTTPException) as error:
        sys.stdout.write(f"level=warn msg='the front does not answer: {error}'\n")
        time.sleep(1)
