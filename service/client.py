"""How the command line talks to a running `tiphys serve`; every trouble is one sentence."""

import getpass
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2

from tiphys.service.errors import UsageError

ADDRESS_FILE = "serve.json"
"""In the data directory: where the running service listens."""


class ServiceUnreachableError(UsageError):
    """No `tiphys serve` answers there."""


class Client:
    """One base URL and the token that goes with it."""

    def __init__(self, url: str, token: str | None) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.url = url
        self._http = httpx2.Client(base_url=url, headers=headers, timeout=30.0, trust_env=False)

    @classmethod
    def of(cls, url: str | None, data_dir: Path, token: str | None) -> "Client":
        """Find the service: the URL given, else the one that `serve` left in its data directory."""
        found: str = url or ""
        if not found:
            try:
                found = json.loads((data_dir / ADDRESS_FILE).read_text())["url"]
            except (OSError, ValueError, KeyError):
                raise ServiceUnreachableError(
                    f"nothing was started in {data_dir}; run `tiphys serve`, or say --url"
                ) from None
        return cls(found, token)

    def get(self, path: str, **query: Any) -> Any:
        """GET and decode; raises `UsageError` with the service's own words."""
        return self._call("GET", path, params={k: v for k, v in query.items() if v is not None})

    def post(self, path: str, body: Any) -> Any:
        """POST JSON and decode."""
        return self._call("POST", path, json=body)

    def delete(self, path: str, **query: Any) -> Any:
        """DELETE and decode."""
        return self._call("DELETE", path, params=query)

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        try:
            answer = self._http.request(method, path, **arguments)
        except httpx2.HTTPError as error:
            raise ServiceUnreachableError(f"{self.url} ({error})") from error
        if answer.status_code >= 400:
            raise UsageError(_detail(answer))
        return answer.json()

    def post_alerts(self, body: bytes, token: str | None) -> None:
        """Post one webhook body as Alertmanager would, with the webhook's own token."""
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        try:
            answer = self._http.post("/webhooks/alertmanager", content=body, headers=headers)
        except httpx2.HTTPError as error:
            raise ServiceUnreachableError(f"{self.url} ({error})") from error
        if answer.status_code >= 300:
            raise UsageError(f"{answer.status_code}: {_detail(answer)}")

    def lines(self, path: str) -> Iterator[str]:
        """Stream a text answer line by line."""
        try:
            with self._http.stream("GET", path) as answer:
                if answer.status_code >= 400:
                    answer.read()
                    raise UsageError(_detail(answer))
                yield from answer.iter_lines()
        except httpx2.HTTPError as error:
            raise ServiceUnreachableError(f"{self.url} ({error})") from error


def _detail(answer: httpx2.Response) -> str:
    try:
        found = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        return answer.text[:500] or f"the service answered {answer.status_code}"
    return found if isinstance(found, str) else json.dumps(found)


def whoami() -> str:
    """Name the person at the keyboard, for the record."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
