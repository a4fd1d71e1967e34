"""A simulated Slack workspace on loopback: Web API, Socket Mode, signed requests, and people.

It keeps to Slack's documented limits and refuses what Slack refuses (`slack_blocks`). Its faults
are attributes: `down` answers 503, `lose` performs a call and drops the answer, `limit` answers 429
with Retry-After, `sockets.deaf` loses acknowledgements. Its HTTP face is in `slack_api`, its
sockets in `slack_socket`.
"""

import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import aiohttp

from tiphys.sandbox.slack_socket import Sockets

MESSAGE_LIMIT = 40_000
ACK_SECONDS = 3.0
"""How long Slack waits for an answer; then its user sees that something went wrong."""


@dataclass
class Message:
    """One message of a channel."""

    channel: str
    ts: str
    text: str
    blocks: list[dict[str, Any]]
    thread_ts: str | None
    metadata: dict[str, Any] | None
    edits: int = 0

    def button(self, action_id: str) -> dict[str, Any]:
        """Find a button by its `action_id`; raises `KeyError` where the message has none."""
        for block in self.blocks:
            for element in [*block.get("elements", ()), block.get("accessory") or {}]:
                if element.get("action_id") == action_id:
                    return {**element, "block_id": block.get("block_id", "b")}
        raise KeyError(action_id)

    def words(self) -> str:
        """Give everything that it shows."""
        return json.dumps(self.blocks, ensure_ascii=False)


@dataclass
class Whisper:
    """What one person alone was shown."""

    channel: str
    user: str
    text: str
    blocks: list[dict[str, Any]]


@dataclass
class OpenView:
    """A modal that somebody has before them."""

    id: str
    user: str
    view: dict[str, Any]


@dataclass
class Limit:
    """Answers 429 so many times."""

    retry_after: int
    times: int


@dataclass
class Slack:
    """One workspace with one app in it."""

    team: str = "T0SANDBOX"
    bot_token: str = field(default_factory=lambda: f"xoxb-{secrets.token_hex(12)}")
    app_token: str = field(default_factory=lambda: f"xapp-{secrets.token_hex(12)}")
    signing_secret: str = field(default_factory=lambda: secrets.token_hex(16))
    scopes: set[str] = field(
        default_factory=lambda: {"chat:write", "commands", "channels:history", "groups:history"}
    )
    channels: dict[str, list[Message]] = field(default_factory=lambda: {"C0OPS": []})
    whispers: list[Whisper] = field(default_factory=list)
    views: list[OpenView] = field(default_factory=list)
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """Every call that was let in, with its arguments."""
    refused: list[tuple[str, str]] = field(default_factory=list)
    """Every call that was not done, with Slack's word for it."""
    down: bool = False
    lose: set[str] = field(default_factory=set)
    limits: dict[str, Limit] = field(default_factory=dict)
    url: str = ""
    """Base URL, set when it is served."""
    request_url: str = ""
    """Where signed requests go; empty: Socket Mode."""
    sockets: Sockets = field(default_factory=Sockets)
    triggers: dict[str, str] = field(default_factory=dict)
    """Trigger ids that may still open a modal, and whose they are."""
    hooks: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Response URLs: the channel and the user that each speaks to."""
    _clock: float = 0.0

    # --- what is there ---------------------------------------------------------------------------

    def posts(self, channel: str = "C0OPS") -> list[Message]:
        """Give a channel's messages that are in no thread, the oldest first."""
        return [m for m in self.channels[channel] if m.thread_ts is None]

    def replies(self, message: Message) -> list[Message]:
        """Give a message's thread."""
        return [m for m in self.channels[message.channel] if m.thread_ts == message.ts]

    def stamp(self) -> str:
        """Give a new message's time, which is its name."""
        self._clock = max(time.time(), self._clock + 0.000001)
        return f"{self._clock:.6f}"

    def limit(self, method: str, retry_after: int, times: int = 1) -> None:
        """Answer a method with 429 so many times."""
        self.limits[method] = Limit(retry_after, times)

    # --- what people do ---------------------------------------------------------------------------

    async def click(self, user: str, message: Message, action_id: str, /, **more: Any) -> Any:
        """Click a button; gives what the app answered Slack with."""
        button = message.button(action_id)
        payload = {
            "type": "block_actions",
            **self._person(user),
            "trigger_id": self._trigger(user),
            "response_url": self._hook(message.channel, user),
            "api_app_id": "A0TIPHYS",
            "container": {"type": "message", "message_ts": message.ts},
            "channel": {"id": message.channel, "name": "ops"},
            "message": {"ts": message.ts, "text": message.text, "blocks": message.blocks},
            "actions": [
                {
                    "type": "button",
                    "action_id": action_id,
                    "block_id": button["block_id"],
                    "value": button.get("value", ""),
                    "action_ts": self.stamp(),
                }
            ],
            **more,
        }
        return await self.deliver("interactive", payload)

    async def submit(self, view: OpenView, reason: str, **more: Any) -> Any:
        """Fill a reason into a modal and send it."""
        state = {"values": {"reason": {"reason": {"type": "plain_text_input", "value": reason}}}}
        payload = {
            "type": "view_submission",
            **self._person(view.user),
            "api_app_id": "A0TIPHYS",
            "trigger_id": self._trigger(view.user),
            "response_urls": [],
            "view": {"id": view.id, **view.view, "state": state},
            **more,
        }
        return await self.deliver("interactive", payload)

    async def command(self, user: str, text: str, channel: str = "C0OPS", **more: str) -> Any:
        """Type `/tiphys TEXT`."""
        payload = {
            "command": "/tiphys",
            "text": text,
            "user_id": user,
            "user_name": user.lower(),
            "team_id": self.team,
            "channel_id": channel,
            "api_app_id": "A0TIPHYS",
            "trigger_id": self._trigger(user),
            "response_url": self._hook(channel, user),
            **more,
        }
        return await self.deliver("slash_commands", payload)

    def _person(self, user: str) -> dict[str, Any]:
        return {
            "team": {"id": self.team, "domain": "sandbox"},
            "user": {"id": user, "username": user.lower(), "team_id": self.team},
        }

    def _trigger(self, user: str) -> str:
        trigger = f"trigger-{secrets.token_hex(8)}"
        self.triggers[trigger] = user
        return trigger

    def _hook(self, channel: str, user: str) -> str:
        hook = secrets.token_hex(12)
        self.hooks[hook] = (channel, user)
        return f"{self.url}/hooks/{hook}"

    # --- how it reaches the app -------------------------------------------------------------------

    async def deliver(self, kind: str, payload: dict[str, Any]) -> Any:
        """Send one payload over a socket, or signed over HTTP; gives the app's answer."""
        if not self.request_url:
            return await self.sockets.deliver(kind, payload, ACK_SECONDS)
        body = self.body(kind, payload)
        status, answer = await self.post(body, self.sign(body))
        return answer if status == 200 else status

    def body(self, kind: str, payload: Mapping[str, Any]) -> bytes:
        """Write a payload as Slack posts it: commands as a form, interactions as JSON in one."""
        form = payload if kind == "slash_commands" else {"payload": json.dumps(payload)}
        return urlencode({key: str(value) for key, value in form.items()}).encode()

    def sign(self, body: bytes, at: float | None = None, secret: str = "") -> dict[str, str]:
        """Sign a body, as docs.slack.dev/authentication/verifying-requests-from-slack says."""
        stamp = str(int(time.time() if at is None else at))
        key = (secret or self.signing_secret).encode()
        digest = hmac.new(key, b"v0:" + stamp.encode() + b":" + body, hashlib.sha256).hexdigest()
        return {
            "Content-Type": "application/x-www-form-urlencoded",
            "X-Slack-Request-Timestamp": stamp,
            "X-Slack-Signature": f"v0={digest}",
        }

    async def post(self, body: bytes, headers: Mapping[str, str]) -> tuple[int, Any]:
        """Post a body to the app; gives the status and the decoded answer."""
        patience = aiohttp.ClientTimeout(total=ACK_SECONDS)
        async with (
            aiohttp.ClientSession(timeout=patience) as session,
            session.post(self.request_url, data=body, headers=dict(headers)) as answer,
        ):
            text = await answer.text()
            try:
                return answer.status, json.loads(text) if text else None
            except ValueError:
                return answer.status, text
