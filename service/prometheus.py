"""Prometheus, read only, through prometheus-api-client: the agents' Metrics port.

The library is synchronous: every call runs in a small thread pool, off the event loop, with a
time-out for the socket and a deadline for the whole. Nothing is retried here.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, Final, TypeVar, cast

import requests
from prometheus_api_client.exceptions import PrometheusApiClientException
from prometheus_api_client.prometheus_connect import PrometheusConnect
from urllib3.util.retry import Retry

from tiphys.agents.ports import AlertRule, Sample, Series, TooWideError, UnansweredError
from tiphys.agents.promql import looks_back
from tiphys.service.prometheus_session import CutError, PrometheusSession

CONCURRENT: Final = 8
"""Queries at a time."""
MAX_SAMPLES: Final = 20_000
"""Series of an answer for one time. More are none: what is cut off could be the alert's own."""
MAX_SERIES: Final = 2_000
"""Series of an answer over a time range. Prometheus cuts there, with a warning (`limit`, 3.0)."""
MAX_POINTS: Final = 400
"""Points of one series; a finer step is widened."""
_ERRORS = (
    PrometheusApiClientException,
    requests.RequestException,
    KeyError,
    TypeError,
    ValueError,
    IndexError,
)
"""KeyError and its like: a 200 that holds something else than an answer."""
Answer = TypeVar("Answer")


class Prometheus:
    """One Prometheus server; `close` it."""

    def __init__(self, url: str, timeout: float = 5.0, token: str | None = None) -> None:
        """`timeout`: seconds for one query."""
        self._url = url.rstrip("/")
        self._timeout = timeout
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._session = PrometheusSession(timeout)
        self._connect = PrometheusConnect(
            url=self._url,
            headers=self._headers,
            retry=Retry(total=0, raise_on_status=False, status_forcelist=[]),
            session=self._session,
            timeout=cast("int", timeout),
            method="POST",
        )
        self._threads = ThreadPoolExecutor(CONCURRENT, thread_name_prefix="prometheus")

    async def instant(self, query: str, at: datetime | None = None) -> Sequence[Sample]:
        """Evaluate at one time (default: now); raises `UnansweredError`."""
        params = {"limit": str(MAX_SAMPLES), "timeout": f"{self._timeout:.0f}s"}
        if at is not None:
            params["time"] = f"{at.timestamp():.3f}"
        return await self._ask(lambda: self._connect.custom_query(query, params), _samples)

    async def range(
        self, query: str, start: datetime, end: datetime, step_seconds: float
    ) -> Sequence[Series]:
        """Evaluate over a time range, cut to whole seconds; raises `UnansweredError`."""
        step = max(step_seconds, (end - start).total_seconds() / MAX_POINTS)
        params = {"limit": str(MAX_SERIES), "timeout": f"{self._timeout:.0f}s"}

        def call() -> Any:
            return self._connect.custom_query_range(query, start, end, f"{step:.3f}", params)

        return await self._ask(call, _series)

    async def rules(self) -> Sequence[AlertRule]:
        """List the alerting rules; raises `UnansweredError`."""
        return await self._ask(self._get_rules, _rules)

    def close(self) -> None:
        """Close the connections; queries under way end by their time-out."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._session.close()

    def _get_rules(self) -> Any:
        answer = self._session.get(
            f"{self._url}/api/v1/rules",
            headers=self._headers,
            timeout=self._timeout,
        )
        answer.raise_for_status()
        return answer.json()["data"]["groups"]

    async def _ask(self, call: Callable[[], Any], read: Callable[[Any], Answer]) -> Answer:
        def work() -> Answer:
            return read(call())

        loop = asyncio.get_running_loop()
        try:
            # Twice the socket's: a request may wait for its turn, and each read counts anew.
            async with asyncio.timeout(2 * self._timeout):
                return await loop.run_in_executor(self._threads, work)
        except TimeoutError as error:
            raise UnansweredError(
                f"Prometheus did not answer within {2 * self._timeout:.0f} s"
            ) from error
        except CutError as error:
            raise TooWideError(f"Prometheus' answer is too wide: {error}") from error
        except _ERRORS as error:
            raise UnansweredError(f"Prometheus did not answer: {_why(error)}") from error
        except RuntimeError as error:
            raise UnansweredError(f"Prometheus was not asked: {error}") from error


def _why(error: Exception) -> str:
    if isinstance(error, requests.ConnectionError):
        return "it cannot be reached"
    if isinstance(error, requests.Timeout):
        return "it took too long"
    if isinstance(error, PrometheusApiClientException | requests.RequestException):
        return " ".join(str(error).split())[:300]
    return f"its answer cannot be read ({type(error).__name__})"


def _labels(metric: Mapping[str, Any]) -> dict[str, str]:
    return {str(k): str(v) for k, v in metric.items()}


def _samples(result: Any) -> list[Sample]:
    # A scalar or string answer is a bare pair.
    if len(result) == 2 and not isinstance(result[0], dict):
        return [Sample({}, float(result[0]), float(result[1]))]
    return [
        Sample(_labels(one["metric"]), float(one["value"][0]), float(one["value"][1]))
        for one in _all(result, MAX_SAMPLES)
    ]


def _all(result: Any, most: int) -> Any:
    if len(result) > most:
        raise CutError(f"it has more than {most} series")
    return result


def _series(result: Any) -> list[Series]:
    return [
        Series(_labels(one["metric"]), [(float(t), float(v)) for t, v in one["values"]])
        for one in _all(result, MAX_SERIES)
    ]


def _rules(groups: Any) -> list[AlertRule]:
    recorded: dict[str, list[str]] = {}
    for rule in (rule for group in groups for rule in group["rules"]):
        if rule.get("type") == "recording":
            recorded.setdefault(str(rule["name"]), []).append(str(rule.get("query", "")))
    return [
        AlertRule(
            name=str(rule["name"]),
            expression=str(rule["query"]),
            for_seconds=float(rule.get("duration", 0)),
            labels=_labels(rule.get("labels") or {}),
            interval_seconds=float(group.get("interval") or 30),
            looks_back_seconds=_looks_back(str(rule["query"]), recorded),
        )
        for group in groups
        for rule in group["rules"]
        if rule.get("type", "alerting") == "alerting"
    ]


def _looks_back(expression: str, recorded: Mapping[str, Sequence[str]]) -> float | None:
    """Give None where a rule is written in words that we do not know: it may not be the one."""
    try:
        return looks_back(expression, recorded)
    except ValueError:
        return None
