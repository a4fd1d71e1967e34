"""A model in this process: what it is asked is kept, what it answers is scripted. No network."""

import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx2

from tiphys.agents.budget import Budget, Meter, Prices
from tiphys.agents.model_endpoint import Endpoint, Wire
from tiphys.agents.model_reasoner import ModelReasoner, Sources
from tiphys.workflow_templates.catalogue import every

NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
Says = Callable[[dict[str, Any]], object]
"""Given the request's JSON: a decision (a dict), a text as content, or a whole response."""


def completion(content: str | None, **message: Any) -> dict[str, Any]:
    """Give the body of an answer."""
    finish = message.pop("finish_reason", "stop")
    usage = message.pop("usage", {"prompt_tokens": 900, "completion_tokens": 90})
    said = {"role": "assistant", "content": content, **message}
    choice = {"index": 0, "finish_reason": finish, "message": said}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "stub",
        "choices": [choice],
        "usage": usage,
    }


@dataclass
class InProcess(httpx2.AsyncBaseTransport):
    """Stands where the network would."""

    says: Says
    requests: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        asked = json.loads(request.content)
        self.requests.append(asked)
        said = self.says(asked)
        if isinstance(said, httpx2.Response):
            return said
        if isinstance(said, Exception):
            raise said
        content = said if isinstance(said, str) else json.dumps({"decision": said})
        return httpx2.Response(200, json=completion(content))


def data_of(asked: dict[str, Any], title: str = "FINDINGS") -> Any:
    """Give the JSON between the last pair of marks in what was asked."""
    words = "\n".join(str(m["content"]) for m in asked["messages"] if m["role"] == "user")
    found = re.findall(rf"^({title}-[0-9a-f]{{24}})\n(.*)\n\1$", words, re.MULTILINE)
    return json.loads(found[-1][1])


@asynccontextmanager
async def asking(
    wire: httpx2.AsyncBaseTransport,
    sources: Sources | None = None,
    budget: Budget | None = None,
    *,
    prices: Prices | None = None,
    clock: Callable[[], datetime] = lambda: NOW,
) -> AsyncIterator[ModelReasoner]:
    """Give a reasoner whose model answers over this transport."""
    endpoint = Endpoint("http://model.invalid/v1", "stub-model", retries=1, pause=0.001)
    meter = Meter(budget or Budget(), clock, prices)
    reasoner = ModelReasoner.connect(endpoint, every(), meter, sources, Wire(wire))
    try:
        yield reasoner
    finally:
        await reasoner.close()


def nothing(**changes: Any) -> dict[str, Any]:
    return {
        "answer": "nothing",
        "reason": "it heals",
        "confidence": 0.9,
        "evidence": ["e1"],
        **changes,
    }


def escalate(**changes: Any) -> dict[str, Any]:
    return nothing(**{"answer": "escalate", "reason": "nobody can tell", **changes})


def act(action: str, target: str, **changes: Any) -> dict[str, Any]:
    given = {"action": action, "target": target, "parameters": {}, "reason": "that is the cause"}
    return nothing(answer="act", **{**given, **changes})


def ask(*reads: dict[str, Any]) -> dict[str, Any]:
    return {"answer": "ask", "why": "to tell two causes apart", "reads": [*reads]}
