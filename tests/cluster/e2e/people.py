"""What people see of Tiphys: its API and command line, and the pages that reach them."""

import json
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from kubectl import wait

COMMAND = Path(sys.executable).parent / "tiphys"


@dataclass(frozen=True)
class Tiphys:
    """The installed gateway."""

    url: str
    token: str

    def get(self, path: str) -> Any:
        """GET and decode."""
        asked = urllib.request.Request(
            f"{self.url}{path}", headers={"Authorization": f"Bearer {self.token}"}
        )
        with urllib.request.urlopen(asked, timeout=20) as answer:
            return json.load(answer)

    def command(self, *words: str, seconds: float = 60) -> str:
        """Run `tiphys` as a person at a terminal would."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/"),
            "TIPHYS_API_TOKEN": self.token,
        }
        done = subprocess.run(
            [str(COMMAND), *words], env=environment, capture_output=True, text=True,
            timeout=seconds, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"tiphys {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def about(self, subject: str) -> list[dict[str, Any]]:
        """List the incidents about an object, the oldest first."""
        found = self.get("/api/incidents?limit=1000")
        return [one for one in reversed(found) if one["subject"] == subject]

    def view(self, incident: str) -> dict[str, Any]:
        """Read one incident whole."""
        return self.get(f"/api/incidents/{incident}")

    def wait_for(self, subject: str, states: Sequence[str], seconds: float) -> dict[str, Any]:
        """Wait until the first incident about an object is in one of these states."""

        def look() -> dict[str, Any] | None:
            found = self.about(subject)
            if found and found[0]["state"] in states:
                return found[0]
            told = [(one["state"], one["attempt"], one["reason"]) for one in found]
            raise ValueError(str(told or "no incident"))

        seen = wait(f"the incident of {subject} to be {' or '.join(states)}", look, seconds)
        assert seen is not None
        return seen


def events(view: dict[str, Any]) -> list[str]:
    """Name an incident's records in order, repeats of one after the other left out."""
    named = [record["event"] for record in view["timeline"]]
    return [one for at, one in enumerate(named) if at == 0 or one != named[at - 1]]


def record(view: dict[str, Any], event: str) -> dict[str, Any]:
    """Give the last record of a kind."""
    found = [one for one in view["timeline"] if one["event"] == event]
    assert found, f"no {event} in {events(view)}"
    return found[-1]


@dataclass
class Human:
    """Somebody whom Alertmanager notifies: keeps what came."""

    url: str = ""
    posts: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def heard_of(self, alertname: str, **labels: str) -> bool:
        """Tell whether a firing alert with these labels came."""
        wanted = {"alertname": alertname, **labels}
        return any(
            alert["status"] == "firing" and wanted.items() <= alert["labels"].items()
            for post in list(self.posts)
            for alert in post["alerts"]
        )


@contextmanager
def human(address: str) -> Generator[Human]:
    """Answer Alertmanager's posts for a person."""
    somebody = Human()

    class Ear(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            somebody.posts.append(json.loads(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer((address, 0), Ear)
    somebody.url = f"http://{address}:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield somebody
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
