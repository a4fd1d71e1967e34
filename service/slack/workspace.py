"""Calls to one Slack workspace: every trouble is one of three errors, and none is tried again here.

Invariants: a call takes at most `CALL_SECONDS`; a message that may have been taken is never sent
again by itself; tokens stay in the client.
"""

import asyncio
import contextlib
import ipaddress
import json
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.web.async_slack_response import AsyncSlackResponse

from tiphys.service.errors import WorldRefusedError
from tiphys.service.slack.blocks import Block
from tiphys.service.slack.card import Card

CALL_SECONDS: Final = 10.0
METADATA_TYPE: Final = "tiphys_card"
_HOOKS: Final = ("hooks.slack.com", "hooks.slack-gov.com")
_NO_PREVIEW: Final = {"unfurl_links": False, "unfurl_media": False}
_LATER: Final = {"internal_error", "fatal_error", "service_unavailable", "request_timeout"}


class SlackAwayError(WorldRefusedError):
    """Slack did not answer; whether it took what it was sent nobody knows."""

    retryable = True


class SlackLimitedError(WorldRefusedError):
    """Slack wants fewer calls."""

    retryable = True

    def __init__(self, seconds: float) -> None:
        super().__init__(f"again in {seconds:g} s")
        self.seconds = seconds


class SlackRefusedError(WorldRefusedError):
    """Slack refused."""

    def __init__(self, word: str, more: str = "") -> None:
        super().__init__(f"{word}: {more}" if more else word)
        self.word = word


@dataclass(frozen=True)
class Self:
    """Who we are there."""

    team_id: str
    user_id: str
    bot_id: str


class Workspace:
    """One workspace and its bot."""

    def __init__(self, client: AsyncWebClient, session: aiohttp.ClientSession) -> None:
        self.client = client
        self._session = session
        self._self: Self | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(cls, url: str, token: str) -> "AsyncGenerator[Workspace]":
        """Open the connections to a workspace until left; nothing is sent yet."""
        patience = aiohttp.ClientTimeout(total=CALL_SECONDS)
        async with aiohttp.ClientSession(timeout=patience) as session:
            client = AsyncWebClient(token=token, base_url=url, session=session, retry_handlers=[])
            if _is_loopback(url):
                client.proxy = None  # the library would send even this through HTTPS_PROXY
            yield cls(client, session)

    async def who(self) -> Self:
        """Say who we are; asked once, as Slack's answer does not change while a token is good."""
        if self._self is None:
            found = await self._do(self.client.auth_test)
            self._self = Self(
                str(found["team_id"]), str(found["user_id"]), str(found.get("bot_id") or "")
            )
        return self._self

    async def post(self, channel: str, card: Card, incident: str) -> str:
        """Post a card and give its name in the channel; it can be found by its incident again."""
        mark = {"event_type": METADATA_TYPE, "event_payload": {"incident": incident}}
        said = {**_quiet(card.text, card.blocks), "metadata": mark, **_NO_PREVIEW}
        answer = await self._do(self.client.chat_postMessage, channel=channel, **said)
        return str(answer["ts"])

    async def find(self, channel: str, incident: str, since: float) -> str | None:
        """Look for a card that we may have posted since a time."""
        answer = await self._do(
            self.client.conversations_history,
            channel=channel,
            oldest=f"{since:.6f}",
            include_all_metadata=True,
            limit=200,
        )
        us = await self.who()
        messages: list[dict[str, Any]] = answer.get("messages") or []
        for message in messages:
            mark = message.get("metadata") or {}
            ours = message.get("user") == us.user_id and mark.get("event_type") == METADATA_TYPE
            if ours and (mark.get("event_payload") or {}).get("incident") == incident:
                return str(message["ts"])
        return None

    async def update(self, channel: str, ts: str, card: Card) -> None:
        """Show another card in the place of one."""
        said = _quiet(card.text, card.blocks)
        await self._do(self.client.chat_update, channel=channel, ts=ts, **said)

    async def reply(self, channel: str, ts: str, text: str, blocks: list[Block]) -> None:
        """Write into a card's thread."""
        said = {**_quiet(text, blocks), **_NO_PREVIEW}
        await self._do(self.client.chat_postMessage, channel=channel, thread_ts=ts, **said)

    async def whisper(self, channel: str, user: str, text: str, blocks: list[Block]) -> None:
        """Show something to one person alone."""
        said = _quiet(text, blocks)
        await self._do(self.client.chat_postEphemeral, channel=channel, user=user, **said)

    async def open_view(self, trigger: str, view: Block) -> None:
        """Show a form to whoever clicked."""
        await self._do(self.client.views_open, trigger_id=trigger, view=view)

    async def respond(self, url: str, text: str, blocks: list[Block]) -> None:
        """Answer a command where it was typed; only its author sees it."""
        host = urlsplit(url).hostname or ""
        if host not in _HOOKS and host != urlsplit(self.client.base_url).hostname:
            raise SlackRefusedError("response_url", "it does not lead to Slack")
        body = {"response_type": "ephemeral", "text": text, "blocks": blocks}
        async with _translated(), self._session.post(
            url, data=json.dumps(body), headers={"Content-Type": "application/json"},
            proxy=self.client.proxy,
        ) as answer:  # fmt: skip
            if answer.status != 200:
                raise SlackRefusedError("response_url", str(answer.status))

    async def _do(self, call: Callable[..., Any], **given: Any) -> AsyncSlackResponse:
        async with _translated():
            return await call(**given)


def _quiet(text: str, blocks: list[Block]) -> dict[str, Any]:
    """Say it without reading names or markup into it."""
    return {
        "text": text,
        "blocks": blocks,
        "parse": "none",
        "link_names": False,
    }


@contextlib.asynccontextmanager
async def _translated() -> AsyncGenerator[None]:
    try:
        async with asyncio.timeout(CALL_SECONDS):
            yield
    except SlackApiError as error:
        raise _refusal(error) from error
    except (aiohttp.ClientError, TimeoutError, OSError, SlackClientError) as error:
        raise SlackAwayError(type(error).__name__) from error


def _refusal(error: SlackApiError) -> WorldRefusedError:
    answer: Any = error.response
    status = getattr(answer, "status_code", 0)
    data = getattr(answer, "data", answer)
    found: dict[str, Any] = data if isinstance(data, dict) else {}
    word = str(found.get("error") or "")
    if status == 429 or word in {"ratelimited", "rate_limited"}:
        given = str((getattr(answer, "headers", None) or {}).get("Retry-After", "30"))
        return SlackLimitedError(float(given) if given.isdigit() else 30.0)
    if status >= 500 or not word or word in _LATER:
        return SlackAwayError(word or str(status))
    messages = (found.get("response_metadata") or {}).get("messages") or []
    return SlackRefusedError(word, "; ".join(str(m) for m in messages[:3])[:300])


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
