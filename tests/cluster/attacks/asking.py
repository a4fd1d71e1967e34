"""Requests to the real API server as whoever one likes, and what stood in their way."""

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import urllib3
from kubernetes import client, config

Json = dict[str, Any]
JSON, JSON_PATCH = "application/json", "application/json-patch+json"
MERGE, APPLY = "application/merge-patch+json", "application/apply-patch+yaml"
NOT_AFTER = "@@IN-TEN-MINUTES@@"
"""Stands in a body for a moment that admission accepts."""
SECONDS = 30.0
AT_ONCE = 8
_POLICY = re.compile(
    r"ValidatingAdmissionPolicy '[a-z]+-([a-z-]+)' with binding '[^']*' (.*)", re.DOTALL
)


@dataclass(frozen=True)
class Who:
    """An identity: a real token with its own rights, or a name with every right there is."""

    user: str
    token: str = ""
    groups: tuple[str, ...] = ()
    pod: str = ""
    """The pod that the token is bound to."""

    def headers(self) -> list[tuple[str, str]]:
        """Give what says so in a request."""
        if self.token:
            return [("Authorization", f"Bearer {self.token}")]
        found = [("Impersonate-User", self.user)]
        found += [("Impersonate-Group", group) for group in self.groups]
        if self.pod:
            found.append(("Impersonate-Extra-authentication.kubernetes.io%2Fpod-name", self.pod))
        return found


ADMIN = Who("")


@dataclass(frozen=True)
class Request:
    """One request; a write is tried without being stored unless said otherwise."""

    method: str
    path: str
    body: Any = None
    media: str = JSON
    query: Mapping[str, str] = field(default_factory=dict[str, str])
    headers: tuple[tuple[str, str], ...] = ()
    stored: bool = False


@dataclass(frozen=True)
class Answer:
    """What the API server said."""

    status: int
    body: Any

    @property
    def message(self) -> str:
        """Give the refusal's words, or the whole text."""
        return str(self.body.get("message", "")) if isinstance(self.body, dict) else str(self.body)

    @property
    def wall(self) -> str:
        """Name what refused: `RBAC`, or `<policy>: <message>`; empty when nothing did."""
        if self.status == 422 and "in body must be of type" in self.message:
            return "Argo's schema"
        if self.status != 403:
            return ""
        if found := _POLICY.search(self.message):
            said = found.group(2)
            # An expression that failed refuses as well, but not because it was asked.
            return f"{found.group(1)}: {said.removeprefix('denied request: ')}"
        if re.search(r"is forbidden: .* cannot |attempting to grant RBAC", self.message, re.DOTALL):
            return "RBAC"
        return ""


class Wire:
    """The API server behind one administrator's kubeconfig."""

    def __init__(self, kubeconfig: Path) -> None:
        settings = client.Configuration()
        config.load_kube_config(config_file=str(kubeconfig), client_configuration=settings)
        self.url = str(settings.host).rstrip("/")
        self._bearer = [("Authorization", text) for text in (settings.api_key or {}).values()]
        more: Json = {"maxsize": AT_ONCE, "retries": False, "timeout": SECONDS}
        more |= {"ca_certs": settings.ssl_ca_cert}
        self._bare = urllib3.PoolManager(**more)
        """Without the administrator's certificate, which would outrank a token."""
        self._admin = urllib3.PoolManager(
            **more, cert_file=settings.cert_file, key_file=settings.key_file
        )

    def ask(self, request: Request, who: Who = ADMIN) -> Answer:
        """Ask, and take any answer."""
        headers = urllib3.HTTPHeaderDict([("Accept", JSON), ("Content-Type", request.media)])
        for name, value in (*request.headers, *(who.headers() if who is not ADMIN else ())):
            headers.add(name, value)
        if not who.token:
            for name, value in self._bearer:
                headers.add(name, value)
        query, body = dict(request.query), request.body
        if request.method != "GET" and not request.stored:
            query["dryRun"] = "All"
            if request.method == "DELETE" and body is not None:
                # Options in the body make the API server pass over the query.
                body = {**body, "dryRun": ["All"]}
        soon = (datetime.now(UTC) + timedelta(minutes=10)).strftime("%Y-%m-%dT%H:%M:%SZ")
        text = None if body is None else json.dumps(body).replace(NOT_AFTER, soon)
        pool = self._bare if who.token else self._admin
        url = self.url + request.path + (f"?{urlencode(query)}" if query else "")
        try:
            answer = pool.request(
                request.method, url, body=None if text is None else text.encode(), headers=headers
            )
        except urllib3.exceptions.HTTPError as error:
            raise AssertionError(f"{request.method} {url} as {who.user}: {error}") from error
        try:
            return Answer(answer.status, json.loads(answer.data))
        except ValueError:
            return Answer(answer.status, answer.data.decode(errors="replace"))

    def want(self, method: str, path: str, body: Any = None, who: Who = ADMIN) -> Json:
        """Do what must succeed; gives the answer's body."""
        answer = self.ask(Request(method, path, body, stored=True), who)
        assert answer.status < 300, f"{method} {path}: {answer.status} {answer.message}"
        return answer.body

    def all(self, asked: Sequence[tuple[Request, Who]]) -> list[Answer]:
        """Ask many things at once; gives the answers in the order of the questions."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(lambda one: self.ask(*one), asked))


def until(what: str, look: Callable[[], Any], seconds: float = 60) -> Any:
    """Look until there is something to give; fails saying what was waited for."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.05)
    return found


def place(api_version: str, plural: str, namespace: str = "", name: str = "") -> str:
    """Give the path of an object, or of its list."""
    root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    space = f"/namespaces/{namespace}" if namespace else ""
    return f"{root}{space}/{plural}" + (f"/{quote(name)}" if name else "")
