"""A tap on the line between a step and the API server: hears every request, and may come between.

What happens between two requests of one step cannot be asked for otherwise: somebody writes after
it has looked, its rollback begins, an answer is lost.
"""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import urllib3

from tiphys.service.conform.wire import SECONDS, Json, Wire
from tiphys.service.errors import WorldRefusedError
from tiphys.workflow_templates.cluster import REQUEST_SECONDS

WRITES = {"DELETE", "PATCH", "POST", "PUT"}
_HOP = {"connection", "content-length", "host", "transfer-encoding"}


class HeldUpError(WorldRefusedError):
    """Coming between took longer than a step waits."""


@dataclass(frozen=True)
class Asked:
    """One request of a step."""

    method: str
    path: str
    query: str
    body: Any
    """Parsed; None without one."""
    workflow: str = ""
    """Whose step asks, and which step; empty where one plan's steps have the line to themselves."""
    step: str = ""

    @property
    def of_event(self) -> bool:
        """Whether it is about an Event, which is how a run tells of itself."""
        return "/events" in self.path

    @property
    def writes(self) -> bool:
        """Whether it changes anything but Events."""
        return self.method in WRITES and not self.of_event

    @property
    def claims(self) -> bool:
        """Whether it is the claim that comes before a run's first write."""
        name = cast("Json", self.body or {}).get("metadata", {}).get("name", "")
        return self.method == "POST" and self.of_event and str(name).endswith(".act")

    @property
    def manager(self) -> str:
        """Give the field manager; empty without one."""
        return "".join(parse_qs(self.query).get("fieldManager", []))

    @property
    def object_path(self) -> str:
        """Give the path of the object that is written, without a subresource."""
        parts = self.path.split("/")
        named = parts.index("namespaces") + 4 if "namespaces" in parts else len(parts)
        return "/".join(parts[:named])


@dataclass(frozen=True)
class Reply:
    """An answer in place of the API server's."""

    status: int
    body: bytes = b"{}"


Come = Callable[[Asked], Reply | None]
"""Comes before a request is passed on; a Reply stands for the API server's, None passes it on."""
Leave = Callable[[Asked], bool]
"""Comes after the answer; whether the step shall hear it."""


@dataclass
class Tap:
    """One line, tapped."""

    wire: Wire
    url: str = ""
    before: Come | None = None
    after: Leave | None = None
    asked: list[Asked] = field(default_factory=list[Asked])
    """Everything, in the order in which it came."""
    done: list[Asked] = field(default_factory=list[Asked])
    """What the API server has done."""
    longest: float = 0.0
    """Seconds that an answer took."""
    under_way: set[int] = field(default_factory=set[int])
    """Threads that are not done with a request."""
    trouble: list[Exception] = field(default_factory=list[Exception])
    """What went wrong in `before` or `after`."""

    @cached_property
    def pool(self) -> urllib3.PoolManager:
        """Ask the API server as whoever asks here."""
        return urllib3.PoolManager(ca_certs=self.wire.ca_file, retries=False, timeout=SECONDS)

    @property
    def writes(self) -> list[Asked]:
        """Give what changed something, or tried to."""
        return [one for one in self.asked if one.writes]


@contextlib.contextmanager
def listening(tap: Tap, host: str = "127.0.0.1") -> Generator[None]:
    """Have a line open while inside, at an address of this machine."""

    class Handler(_Handler):
        line = tap

    server = _Server((host, 0), Handler)
    tap.url = f"http://{host}:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        while tap.under_way:
            time.sleep(0.02)


@contextlib.contextmanager
def tapped(wire: Wire) -> Generator[Tap]:
    """Have a tapped line while inside; what went wrong in it is raised in the end."""
    tap = Tap(wire)
    try:
        with listening(tap):
            yield tap
    finally:
        if tap.longest >= REQUEST_SECONDS:
            raise HeldUpError(f"an answer took {tap.longest:.0f} s, and no step waits so long")
    if tap.trouble:
        raise tap.trouble[0]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: steps are killed while they ask."""


class _Handler(BaseHTTPRequestHandler):
    line: Tap
    protocol_version = "HTTP/1.1"

    def _pass(self) -> None:
        tap, sent = self.line, self._read()
        workflow, step, self.path = _whose(self.path)
        parts = urlsplit(self.path)
        body = json.loads(sent) if sent else None
        asked = Asked(self.command, parts.path, parts.query, body, workflow, step)
        tap.asked.append(asked)
        began = time.monotonic()
        tap.under_way.add(threading.get_ident())
        try:
            reply = tap.before(asked) if tap.before else None
            if reply is None:
                reply = self._ask(sent)
                if reply.status < 300:
                    tap.done.append(asked)
                if tap.after and not tap.after(asked):
                    reply = None
        except Exception as error:
            tap.trouble.append(error)
            reply = Reply(500)
        tap.longest = max(tap.longest, time.monotonic() - began)
        tap.under_way.discard(threading.get_ident())
        if reply is None:
            self.close_connection = True
            return
        with contextlib.suppress(ConnectionError):  # the step may not have waited for it
            self._answer(reply)

    def _answer(self, reply: Reply) -> None:
        self.send_response(reply.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)

    do_DELETE = do_GET = do_PATCH = do_POST = do_PUT = _pass  # noqa: N815  http.server's words

    def _read(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _ask(self, sent: bytes) -> Reply:
        headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP}
        answer = self.line.pool.request(
            self.command, self.line.wire.url + self.path, body=sent or None, headers=headers
        )
        return Reply(answer.status, answer.data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its parameter's name
        """Say nothing."""


def _whose(path: str) -> tuple[str, str, str]:
    """Take `/<workflow>/<step>` off the front of a path."""
    first, _, rest = path.removeprefix("/").partition("/")
    if first in {"api", "apis"}:
        return "", "", path
    step, _, rest = rest.partition("/")
    return first, step, f"/{rest}"
