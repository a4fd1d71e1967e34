"""Instant queries against Prometheus, for verify alone.

Invariant: an empty answer means that Prometheus said so; whatever else happens raises
`UnansweredError`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import urllib3

QUERY_SECONDS = 5.0
MAX_ANSWER = 16 << 20
"""Bytes of one answer."""


class UnansweredError(Exception):
    """Prometheus did not answer the question; the message says why."""


@dataclass(frozen=True)
class Sample:
    """One series of an instant vector."""

    labels: Mapping[str, str]
    value: float


class Metrics:
    """One Prometheus by its base URL."""

    def __init__(self, url: str, timeout: float = QUERY_SECONDS) -> None:
        self._url = url.rstrip("/") + "/api/v1/query"
        self._timeout = timeout
        self._pool = urllib3.PoolManager(retries=False)

    def instant(self, query: str) -> Sequence[Sample]:
        """Evaluate now; raises `UnansweredError`, also on a partial answer.

        https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries
        """
        try:
            answer = self._pool.request(
                "POST",
                self._url,
                fields={"query": query, "timeout": f"{self._timeout:g}s"},
                encode_multipart=False,
                timeout=urllib3.Timeout(total=self._timeout),
                redirect=False,
                preload_content=False,
            )
            data = answer.read(MAX_ANSWER + 1)
            answer.release_conn()
        except urllib3.exceptions.HTTPError as error:
            raise UnansweredError(f"Prometheus: {type(error).__name__}") from error
        try:
            found: Any = json.loads(data)
        except ValueError as error:
            raise UnansweredError(f"Prometheus: {answer.status} and no JSON") from error
        try:
            return _samples(cast("dict[str, Any]", found))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UnansweredError("Prometheus: an answer of an unknown shape") from error


def _samples(body: dict[str, Any]) -> Sequence[Sample]:
    if body["status"] != "success":
        raise UnansweredError(f"Prometheus: {str(body.get('error'))[:200]}")
    if body.get("warnings"):
        raise UnansweredError(f"Prometheus answered in part: {str(body['warnings'])[:200]}")
    data = body["data"]
    if data["resultType"] != "vector":
        raise UnansweredError(f"Prometheus: a {data['resultType']}, not a vector")
    return [
        Sample({str(k): str(v) for k, v in item["metric"].items()}, float(item["value"][1]))
        for item in data["result"]
    ]
