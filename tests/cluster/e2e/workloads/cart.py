"""A shop's cart: serves, unless its release is bad or a dead worker's lock keeps it waiting.

`RELEASE=1.8.0` ends at once, as a program does whose migration nobody ran. `/wedge` leaves a lock
file on the pod's own disk; a restarted container finds it again, a new pod does not.
"""

import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

LOCK = Path("/var/spool/cart/worker.lock")


class Cart(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/wedge":
            LOCK.write_text("1743")
        well = not LOCK.exists()
        if not well:
            sys.stdout.write(f"level=error msg='{LOCK} is held by pid 1743, waiting'\n")
        self.send_response(200 if well or self.path == "/wedge" else 503)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing of probes."""


if os.environ.get("RELEASE") == "1.8.0":
    sys.stdout.write("level=fatal msg='schema check failed: orders has no column currency'\n")
    sys.exit(1)
sys.stdout.write(f"level=info msg='cart {os.environ.get('RELEASE')} serves'\n")
ThreadingHTTPServer(("", 8080), Cart).serve_forever()
