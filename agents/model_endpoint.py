"""The one connection to a model: where it is, how it is asked, and how much of an answer is read.

Invariants: what was found out about a cluster goes to the configured host or nowhere, so redirects
are not followed and the environment lends no key, proxy or organisation; an answer is read up to a
bound, undecoded, so that no endpoint can fill the memory.
"""

import warnings
from dataclasses import dataclass
from typing import Final, cast

import httpx2
import openai
from pydantic import SecretStr

from tiphys.agents.model_failures import AnswerUnreadableError

# The client writes again what it was sent and did not check, and would print it where it is odd.
warnings.filterwarnings("ignore", "Pydantic serializer warnings", UserWarning)

MAX_BYTES: Final = 256 << 10
"""Of one answer."""
_KEPT: Final = ("content-type", "retry-after")
"""Headers of an answer that mean anything here."""


@dataclass(frozen=True)
class Endpoint:
    """Where the model is."""

    base_url: str
    model: str
    api_key: SecretStr | None = None
    timeout: float = 20.0
    """Seconds for one call."""
    retries: int = 2
    """How often a call is made again when the endpoint is away, busy or broken."""
    pause: float = 0.5
    """Seconds before the first of those, doubled each time, unless the endpoint names others."""


def connected(endpoint: Endpoint, transport: httpx2.AsyncBaseTransport) -> openai.AsyncOpenAI:
    """Prepare the client; nothing is sent yet."""
    key = endpoint.api_key.get_secret_value() if endpoint.api_key else "none"
    client = openai.AsyncOpenAI(
        api_key=key,
        admin_api_key="",
        organization="",
        project="",
        base_url=endpoint.base_url,
        timeout=endpoint.timeout,
        max_retries=0,
        http_client=httpx2.AsyncClient(
            trust_env=False,
            follow_redirects=False,
            transport=transport,
            headers={"Accept-Encoding": "identity"},
        ),
    )
    client.organization = client.project = None  # or empty headers would be sent
    return client


class Wire(httpx2.AsyncBaseTransport):
    """Plain HTTP, with every answer bounded."""

    def __init__(self, inner: httpx2.AsyncBaseTransport | None = None) -> None:
        self._inner = inner or httpx2.AsyncHTTPTransport(trust_env=False)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send; raises `AnswerUnreadableError` for what is too large or encoded."""
        answer = await self._inner.handle_async_request(request)
        try:
            if answer.headers.get("content-encoding", "identity").lower() != "identity":
                raise AnswerUnreadableError("it is encoded")
            parts: list[bytes] = []
            size = 0
            async for part in cast("httpx2.AsyncByteStream", answer.stream):
                size += len(part)
                if size > MAX_BYTES:
                    raise AnswerUnreadableError(f"it is longer than {MAX_BYTES} bytes")
                parts.append(part)
        finally:
            await answer.aclose()
        kept = {name: answer.headers[name] for name in _KEPT if name in answer.headers}
        return httpx2.Response(answer.status_code, headers=kept, content=b"".join(parts))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()
