"""A service that answers the front's requests, one at a time: more replicas answer more of them.

With `NEEDS_DATABASE` each request also waits for the database. Then it looks as if there were too
few workers and there are not, since the database answers one at a time however many ask.
"""

import http.client
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FRONT = os.environ["QUEUE_SERVICE_HOST"], int(os.environ["QUEUE_SERVICE_PORT"])
SECONDS = 0.2
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


threading.Thread(target=ThreadingHTTPServer(("", 8080), Ready).serve_forever, daemon=True).start()
while True:
    try:
        connection = http.client.HTTPConnection(*FRONT, timeout=30)
        while True:
            if ask(connection, "/take"):
                time.sleep(SECONDS)
                if NEEDS_DATABASE:
                    ask(connection, "/query")
    except (OSError, http.client.HTTPException) as error:
        sys.stdout.write(f"level=warn msg='the front does not answer: {error}'\n")
        time.sleep(1)
