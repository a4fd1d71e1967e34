"""Exchanges with a model, written down as they happen and played again without one.

A file of JSON Lines: each line is one exchange, `{"prompt": …, "model": …, "status": …,
"answer": …}`. `prompt` is the SHA-256 of what was asked (messages and the answer's schema, which
are redacted before they leave); the words themselves are not kept. `answer` is the endpoint's
body, redacted.

Invariant: a prompt that the file does not have is an error; nobody guesses an answer.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, cast

import httpx2

from tiphys.agents.model_failures import NotRecordedError
from tiphys.agents.redact import redact
from tiphys.policies.model import Json

ASKED: Final = ("messages", "response_format")
"""What makes two prompts the same; another model's name makes them no others."""


class ExchangesInvalidError(Exception):
    """The file cannot be played; the message names file and line."""


def prompt_of(request: httpx2.Request) -> str:
    """Give the SHA-256 of what a request asks."""
    body = json.loads(request.content)
    asked = {key: body.get(key) for key in ASKED}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


class Recording(httpx2.AsyncBaseTransport):
    """Passes on what is asked and appends each exchange to a file that only its owner reads."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, path: Path) -> None:
        """Raise OSError where the file cannot be written."""
        self._inner = inner
        self._path = path
        os.close(self._open())

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Ask, then write down what came back."""
        answer = await self._inner.handle_async_request(request)
        body = await answer.aread()
        line = {
            "prompt": prompt_of(request),
            "model": json.loads(request.content).get("model", ""),
            "status": answer.status_code,
            "answer": _clean(body),
        }
        self._append(json.dumps(line).encode() + b"\n")
        return answer

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()

    def _append(self, line: bytes) -> None:
        with open(self._open(), "ab") as file:
            file.write(line)

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


class Replay(httpx2.AsyncBaseTransport):
    """Answers from a file; the same prompt gets its answers in order, then the last one again."""

    def __init__(self, path: Path) -> None:
        """Read the file; raises `ExchangesInvalidError`."""
        self._answers: dict[str, list[tuple[int, bytes]]] = {}
        self.model = ""
        """The model that was asked, by the file's first line."""
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ExchangesInvalidError(f"{path}: cannot be read: {_why(error)}") from error
        for number, line in enumerate(lines, 1):
            self._keep(f"{path}:{number}", line)
        if not self._answers:
            raise ExchangesInvalidError(f"{path}: holds no exchange")

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer as was recorded; raises `NotRecordedError`."""
        prompt = prompt_of(request)
        known = self._answers.get(prompt)
        if not known:
            raise NotRecordedError(
                f"the recorded exchanges have no answer to the prompt {prompt[:16]}…: "
                "what is asked now is not what was asked then"
            )
        status, body = known.pop(0) if len(known) > 1 else known[0]
        kind = {"content-type": "application/json", "retry-after": "0"}
        return httpx2.Response(status, headers=kind, content=body)

    def _keep(self, place: str, line: str) -> None:
        try:
            found: Any = json.loads(line)
        except ValueError as error:
            raise ExchangesInvalidError(f"{place}: is no JSON") from error
        plain = cast("Mapping[str, Any]", found) if isinstance(found, dict) else {}
        prompt, status = plain.get("prompt"), plain.get("status")
        if not isinstance(prompt, str) or type(status) is not int or "answer" not in plain:
            raise ExchangesInvalidError(
                f"{place}: needs prompt (text), status (a number) and answer"
            )
        if not 100 <= status <= 599:
            raise ExchangesInvalidError(f"{place}: {status} is no HTTP status")
        answer = plain["answer"]
        body = answer if isinstance(answer, str) else json.dumps(answer)
        self._answers.setdefault(prompt, []).append((status, body.encode()))
        self.model = self.model or str(plain.get("model", ""))


def _why(error: Exception) -> str:
    return error.strerror or "" if isinstance(error, OSError) else "it is not UTF-8"


def _clean(body: bytes) -> Json:
    """Redact an answer, also within the JSON that the model wrote as text; keep it readable."""
    return _redacted(body.decode(errors="replace"))


def _redacted(words: str) -> Json:
    try:
        plain: Json = json.loads(words)
    except (ValueError, RecursionError):
        return redact(words)
    return _each(plain, _inside) if isinstance(plain, dict | list) else redact(words)


def _inside(words: str) -> str:
    """Redact a text; where it is JSON itself, its texts, so that it stays JSON."""
    if not words.lstrip().startswith(("{", "[")):
        return redact(words)
    found = _redacted(words)
    return found if isinstance(found, str) else json.dumps(found)


def _each(value: Json, change: Callable[[str], str]) -> Json:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _each(item, change) for key, item in value.items()}
    return [_each(item, change) for item in value] if isinstance(value, list) else value
