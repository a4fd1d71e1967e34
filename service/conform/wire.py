"""A Kubernetes API over plain HTTP: status codes and bodies as they are on the wire."""

import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3
import yaml
from kubernetes import client, config

from tiphys.service.errors import WorldRefusedError

Json = dict[str, Any]
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
SECONDS = 20.0
"""For one request; how busy the machine is, is not what is asked."""


_PATIENT = urllib3.Retry(
    total=30,
    connect=False,
    read=False,
    redirect=False,
    other=False,
    status_forcelist={429},
    allowed_methods={"GET"},
    raise_on_status=False,
    backoff_factor=0.2,
    backoff_max=2,
)
"""An API server that has just heard of a kind asks whoever reads it to come back; any other trouble
is an answer."""


class UnexpectedAnswerError(WorldRefusedError):
    """The API server answered otherwise than expected."""


@dataclass(frozen=True)
class Answer:
    """What the API server said."""

    status: int
    body: Any

    @property
    def reason(self) -> str:
        """Give a refusal's reason, or an empty string."""
        return str(self.body.get("reason") or "") if isinstance(self.body, dict) else ""

    @property
    def message(self) -> str:
        """Give a refusal's message, or the whole text."""
        return str(self.body.get("message") or "") if isinstance(self.body, dict) else self.body


def place(api_version: str, kind: str, namespace: str = "", name: str = "") -> str:
    """Give the path of an object, or of its list."""
    root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    space = f"/namespaces/{namespace}" if namespace else ""
    plural = kind.lower() + ("es" if kind.endswith("s") else "s")
    return f"{root}{space}/{plural}" + (f"/{name}" if name else "")


def place_of(obj: Json) -> str:
    """Give the path of an object as it stands."""
    meta = obj["metadata"]
    return place(obj["apiVersion"], obj["kind"], meta.get("namespace", ""), meta["name"])


class Wire:
    """One identity at one API server."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        settings = client.Configuration()
        config.load_kube_config(config_file=str(kubeconfig), client_configuration=settings)
        self.url = str(settings.host).rstrip("/")
        self.ca_file: str | None = settings.ssl_ca_cert
        self._headers = {"Accept": "application/json", "User-Agent": "conformance/1"}
        for bearer in (settings.api_key or {}).values():
            self._headers["Authorization"] = bearer
        self._pool = urllib3.PoolManager(
            maxsize=16,
            ca_certs=self.ca_file,
            cert_file=settings.cert_file,
            key_file=settings.key_file,
            retries=_PATIENT,
            timeout=SECONDS,
        )

    def as_bearer(self, token: str, path: Path) -> "Wire":
        """Give a wire with another identity, whose kubeconfig is written to `path`."""
        cluster: Json = {"server": self.url}
        cluster |= {"certificate-authority": self.ca_file} if self.ca_file else {}
        path.touch(mode=0o600)
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "it", "cluster": cluster}],
                    "users": [{"name": "me", "user": {"token": token} if token else {}}],
                    "contexts": [{"name": "here", "context": {"cluster": "it", "user": "me"}}],
                    "current-context": "here",
                }
            )
        )
        return Wire(path)

    # --- one request ----------------------------------------------------------------------------

    def ask(
        self, method: str, path: str, body: Any = None, media: str = "", **query: str
    ) -> Answer:
        """Ask, and take any answer."""
        headers = {**self._headers, "Content-Type": media or "application/json"}
        answer = self._pool.request(
            method,
            self.url + path + (f"?{urlencode(query)}" if query else ""),
            body=None if body is None else json.dumps(body).encode(),
            headers=headers,
        )
        try:
            return Answer(answer.status, json.loads(answer.data))
        except ValueError:
            return Answer(answer.status, answer.data.decode(errors="replace"))

    def want(self, method: str, path: str, body: Any = None, media: str = "", **query: str) -> Any:
        """Ask, and give the body of an answer that must be a success."""
        answer = self.ask(method, path, body, media, **query)
        if answer.status >= 300:
            raise UnexpectedAnswerError(f"{method} {path}: {answer.status} {answer.message}")
        return answer.body

    def get(self, path: str, **query: str) -> Json:
        """Read what must be there."""
        return self.want("GET", path, **query)

    def items(self, path: str, **query: str) -> list[Json]:
        """List what may be there."""
        return self.want("GET", path, **query)["items"]

    def find(self, path: str) -> Json | None:
        """Read what may be there."""
        answer = self.ask("GET", path)
        if answer.status not in {200, 404}:
            raise UnexpectedAnswerError(f"GET {path}: {answer.status} {answer.message}")
        return answer.body if answer.status == 200 else None

    def create(self, obj: Json, **query: str) -> Json:
        """Create an object; gives it as it was stored."""
        path = place(obj["apiVersion"], obj["kind"], obj["metadata"].get("namespace", ""))
        return self.want("POST", path, obj, **query)

    def patch(self, path: str, body: Any, media: str = MERGE_PATCH, **query: str) -> Json:
        """Patch what must be there."""
        return self.want("PATCH", path, body, media, **query)

    def delete(self, path: str, *, force: bool = False) -> Answer:
        """Delete; by force: without grace, as `kubectl delete --force` does."""
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0}
        return self.ask("DELETE", path, body if force else None)

    def wipe(self, path: str) -> None:
        """Delete an object at once, whatever holds it back, such as a pod that mounts a claim."""
        self.delete(path, force=True)
        left = self.find(path)
        meta = left["metadata"] if left else {}
        if "deletionTimestamp" in meta and meta.get("finalizers"):
            freed = {"metadata": {"uid": meta["uid"], "finalizers": None}}
            self.ask("PATCH", path, freed, MERGE_PATCH)

    # --- a watch --------------------------------------------------------------------------------

    @contextmanager
    def watch(self, path: str, **query: str) -> Generator[Iterator[Json]]:
        """Follow a list until left; gives the events as they come."""
        answer = self._pool.request(
            "GET",
            f"{self.url}{path}?{urlencode({'watch': '1', **query})}",
            headers=self._headers,
            preload_content=False,
        )
        if answer.status != 200:
            raise UnexpectedAnswerError(f"watch {path}: {answer.status} {answer.data!r}")

        def events() -> Iterator[Json]:
            rest = b""
            for part in answer.stream(1 << 16):
                *lines, rest = (rest + part).split(b"\n")
                yield from (json.loads(line) for line in lines if line.strip())

        try:
            yield events()
        finally:
            answer.close()
