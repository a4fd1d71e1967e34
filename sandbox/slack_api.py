"""The simulated Slack's HTTP face: the Web API's methods that we use, response URLs, the socket.

Argument checks and error words are those of docs.slack.dev/reference/methods.
"""

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncGenerator, Callable
from typing import Any

from aiohttp import web

from tiphys.sandbox.slack import MESSAGE_LIMIT, Message, OpenView, Slack, Whisper
from tiphys.sandbox.slack_blocks import problems, units, view_problems

Arguments = dict[str, Any]
Answer = dict[str, Any]
BOT = "U0TIPHYS"


class _RefusedError(Exception):
    """Slack's word for why not, and what more it says."""

    def __init__(self, word: str, messages: list[str] | None = None) -> None:
        super().__init__(word)
        self.answer: Answer = {"ok": False, "error": word}
        if messages:
            self.answer["response_metadata"] = {"messages": messages}


@contextlib.asynccontextmanager
async def serving_slack(slack: Slack, port: int = 0) -> AsyncGenerator[Slack]:
    """Serve a workspace on loopback until left; its `url` is then set."""
    app = web.Application()

    async def call(request: web.Request) -> web.StreamResponse:
        return await _call(slack, request)

    async def hook(request: web.Request) -> web.StreamResponse:
        return await _hook(slack, request)

    app.router.add_route("*", "/api/{method}", call)
    app.router.add_post("/hooks/{hook}", hook)
    app.router.add_get("/link", slack.sockets.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.5)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    found = runner.addresses[0]
    slack.url = f"http://127.0.0.1:{found[1]}"
    try:
        yield slack
    finally:
        await slack.sockets.cut()
        await runner.cleanup()


async def _call(slack: Slack, request: web.Request) -> web.StreamResponse:
    method = request.match_info["method"]
    if slack.down:
        return web.Response(status=503, text="down")
    limit = slack.limits.get(method)
    if limit and limit.times > 0:
        limit.times -= 1
        slack.refused.append((method, "ratelimited"))
        headers = {"Retry-After": str(limit.retry_after)}
        return web.json_response({"ok": False, "error": "ratelimited"}, status=429, headers=headers)
    arguments = await _arguments(request)
    try:
        _admit(slack, method, request, arguments)
        slack.calls.append((method, arguments))
        answer = _METHODS[method](slack, arguments)
    except _RefusedError as refusal:
        slack.refused.append((method, refusal.answer["error"]))
        return web.json_response(refusal.answer)
    if method in slack.lose:
        slack.lose.discard(method)
        if request.transport:
            request.transport.close()
        await asyncio.sleep(0)
    return web.json_response({"ok": True, **answer})


async def _arguments(request: web.Request) -> Arguments:
    if request.content_type == "application/json":
        return dict(await request.json())
    return {**request.query, **await request.post()}


_SCOPES = {
    "chat.postEphemeral": {"chat:write"},
    "chat.postMessage": {"chat:write"},
    "chat.update": {"chat:write"},
    "conversations.history": {"channels:history", "groups:history"},
}


def _admit(slack: Slack, method: str, request: web.Request, arguments: Arguments) -> None:
    if method not in _METHODS:
        raise _RefusedError("unknown_method")
    _, _, token = request.headers.get("Authorization", "").partition(" ")
    wanted = slack.app_token if method == "apps.connections.open" else slack.bot_token
    if not secrets.compare_digest(token.encode(), wanted.encode()) or "token" in arguments:
        raise _RefusedError("invalid_auth")
    needed = _SCOPES.get(method)
    if needed and not needed & slack.scopes:
        raise _RefusedError("missing_scope")


def _channel(slack: Slack, arguments: Arguments) -> list[Message]:
    try:
        return slack.channels[arguments["channel"]]
    except KeyError:
        raise _RefusedError("channel_not_found") from None


def _content(arguments: Arguments) -> tuple[str, list[Any]]:
    text, blocks = str(arguments.get("text") or ""), arguments.get("blocks") or []
    blocks = json.loads(blocks) if isinstance(blocks, str) else blocks
    if found := problems(blocks):
        raise _RefusedError("invalid_blocks", found)
    if not text and not blocks:
        raise _RefusedError("no_text")
    if units(text) > MESSAGE_LIMIT:
        raise _RefusedError("msg_too_long")
    return text, blocks


def _auth_test(slack: Slack, _arguments: Arguments) -> Answer:
    return {"team_id": slack.team, "team": "Sandbox", "user_id": BOT, "bot_id": "B0TIPHYS"}


def _open_socket(slack: Slack, _arguments: Arguments) -> Answer:
    base = slack.url.replace("http://", "ws://")
    return {"url": f"{base}/link?ticket={slack.sockets.ticket()}"}


def _post(slack: Slack, arguments: Arguments) -> Answer:
    room = _channel(slack, arguments)
    text, blocks = _content(arguments)
    thread = arguments.get("thread_ts")
    if thread and thread not in {m.ts for m in room}:
        raise _RefusedError("invalid_thread_ts")
    metadata = arguments.get("metadata")
    metadata = json.loads(metadata) if isinstance(metadata, str) else metadata
    ts = slack.stamp()
    room.append(Message(arguments["channel"], ts, text, blocks, thread, metadata))
    return {"channel": arguments["channel"], "ts": ts}


def _update(slack: Slack, arguments: Arguments) -> Answer:
    room = _channel(slack, arguments)
    message = next((m for m in room if m.ts == arguments.get("ts")), None)
    if message is None:
        raise _RefusedError("message_not_found")
    message.text, message.blocks = _content(arguments)
    message.edits += 1
    return {"channel": message.channel, "ts": message.ts}


def _whisper(slack: Slack, arguments: Arguments) -> Answer:
    _channel(slack, arguments)
    text, blocks = _content(arguments)
    if not arguments.get("user"):
        raise _RefusedError("user_not_in_channel")
    slack.whispers.append(Whisper(arguments["channel"], arguments["user"], text, blocks))
    return {"message_ts": slack.stamp()}


def _history(slack: Slack, arguments: Arguments) -> Answer:
    room = _channel(slack, arguments)
    oldest = float(arguments.get("oldest") or 0)
    found = [m for m in reversed(room) if float(m.ts) >= oldest and m.thread_ts is None]
    told = arguments.get("include_all_metadata") in {"1", "true", True}
    return {
        "messages": [
            {
                "ts": m.ts,
                "text": m.text,
                "user": BOT,
                **({"metadata": m.metadata} if told and m.metadata else {}),
            }
            for m in found[: int(arguments.get("limit") or 100)]
        ]
    }


def _open_view(slack: Slack, arguments: Arguments) -> Answer:
    view = arguments.get("view")
    view = json.loads(view) if isinstance(view, str) else view
    user = slack.triggers.pop(str(arguments.get("trigger_id")), None)
    if user is None:
        raise _RefusedError("invalid_trigger_id")
    if found := view_problems(view):
        raise _RefusedError("invalid_arguments", found)
    opened = OpenView(f"V{secrets.token_hex(4)}", user, dict(view or {}))
    slack.views.append(opened)
    return {"view": {"id": opened.id}}


_METHODS: dict[str, Callable[[Slack, Arguments], Answer]] = {
    "apps.connections.open": _open_socket,
    "auth.test": _auth_test,
    "chat.postEphemeral": _whisper,
    "chat.postMessage": _post,
    "chat.update": _update,
    "conversations.history": _history,
    "views.open": _open_view,
}


async def _hook(slack: Slack, request: web.Request) -> web.Response:
    """Take an answer to a command or a click, for the one person who made it."""
    known = slack.hooks.get(request.match_info["hook"])
    arguments = await _arguments(request)
    if known is None or slack.down:
        return web.Response(status=404 if known is None else 503)
    if arguments.get("response_type", "ephemeral") != "ephemeral":
        return web.Response(status=400, text="only answers to one person are known here")
    try:
        text, blocks = _content(arguments)
    except _RefusedError as refusal:
        slack.refused.append(("response_url", refusal.answer["error"]))
        return web.Response(status=400, text=refusal.answer["error"])
    slack.whispers.append(Whisper(*known, text, blocks))
    return web.Response(text="ok")
