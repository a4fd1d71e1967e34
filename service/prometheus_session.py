"""How Prometheus' answers come in: of bounded size, within a time, whole, and from no other place.

Invariants: a server that sends without end, drop by drop, or something else than an answer costs at
most so many bytes and seconds; an answer that says that it is not the whole one is no answer.
"""

import time
from typing import Any, Final, cast

import msgspec
import requests
from prometheus_api_client.exceptions import PrometheusApiClientException
from urllib3.exceptions import HTTPError

MAX_BYTES: Final = 32 << 20
"""Bytes of one answer: about 100,000 series of an instant, 4,000 of a range."""
_PART: Final = 1 << 16
_REMARK: Final = "PromQL "
"""How a warning begins that is about the query's wording, and not about what the answer lacks."""
_CUT: Final = "truncated due to limit"
"""What Prometheus warns of where our own `limit` cut its answer."""


class CutError(PrometheusApiClientException):
    """An answer has more series than may be read."""


class _Head(msgspec.Struct):
    """What stands beside the data; `is_partial` is VictoriaMetrics', Thanos warns instead."""

    status: str
    error: str = ""
    warnings: list[str] | None = None
    is_partial: bool = msgspec.field(default=False, name="isPartial")


_head = msgspec.json.Decoder(_Head)


class PrometheusSession(requests.Session):
    """Reads every answer itself, whatever the library asks for; raises what requests raises."""

    def __init__(self, seconds: float, most: int = MAX_BYTES) -> None:
        """`seconds`: for one answer as a whole; `most`: its bytes."""
        super().__init__()
        self._seconds = seconds
        self._most = most
        # A .netrc or proxy variable must not change where a query goes or who asks.
        self.trust_env = False
        # Bytes are counted as they come: what is packed could grow without end.
        self.headers["Accept-Encoding"] = "identity"

    def send(self, request: requests.PreparedRequest, **named: Any) -> requests.Response:
        """Send one request; a redirect is an answer like any other, and not followed."""
        until = time.monotonic() + self._seconds
        asked: dict[str, Any] = {**named, "stream": True, "allow_redirects": False}
        response = super().send(request, **asked)
        try:
            body = self._read(response.raw, until)
        finally:
            response.close()
        cast("Any", response)._content = body
        if response.status_code == 200:
            _check(body)
        return response

    def _read(self, raw: Any, until: float) -> bytes:
        """Read what there is, part by part, so that drops do not hold us for ever."""
        parts: list[bytes] = []
        size = 0
        try:
            while part := raw.read1(_PART, decode_content=False):
                parts.append(part)
                size += len(part)
                if size > self._most:
                    more = f"its answer has more than {self._most} bytes: the question is too wide"
                    raise PrometheusApiClientException(more)
                if time.monotonic() > until:
                    raise requests.Timeout(f"no whole answer within {self._seconds:g} s")
        except HTTPError as error:
            raise requests.ConnectionError(str(error)) from error
        return b"".join(parts)


def _check(body: bytes) -> None:
    """Refuse an answer that failed or is not the whole one; raises ValueError for no answer."""
    head = _head.decode(body)
    if head.status != "success":
        raise PrometheusApiClientException(f"it says {head.status}: {head.error}"[:300])
    lacking = [said for said in head.warnings or () if not said.startswith(_REMARK)]
    if lacking and all(_CUT in said for said in lacking):
        raise CutError("; ".join(lacking)[:300])
    if head.is_partial or lacking:
        why = "; ".join(lacking) or "some of its storage does not answer"
        raise PrometheusApiClientException(f"its answer is not the whole one: {why}"[:300])
