"""Our app as slack-bolt runs it: which action, form and command goes where, for one workspace only.

Invariant: whatever does not come from the workspace of our own token, or whose author belongs to
another one, is acknowledged and dropped. Everything is acknowledged within Slack's three seconds,
before the work; what came of it is told afterwards.
"""

import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog
from slack_bolt.async_app import AsyncApp
from slack_bolt.response import BoltResponse

from tiphys.service.errors import WorldRefusedError
from tiphys.service.slack.buttons import Buttons, Click
from tiphys.service.slack.card import Button
from tiphys.service.slack.slash import COMMAND, Commands, Typed
from tiphys.service.slack.workspace import Workspace

SCOPES: Final = ("channels:history", "chat:write", "commands", "groups:history")
"""What the bot must be granted; the two histories only find a card that we may have posted."""

Ack = Callable[..., Awaitable[Any]]
Body = dict[str, Any]

log = structlog.get_logger()
_QUERY: Final = re.compile(r"\?[^\s'\"]+")


class _OneLine(logging.Filter):
    """The library's words on one line: no traceback, and no ticket of a socket's URL."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite it; every record passes."""
        record.msg, record.args = _QUERY.sub("?…", record.getMessage())[:400], ()
        record.exc_info = record.exc_text = None
        return True


def quiet_logger() -> logging.Logger:
    """Give the logger that the library may use: warnings and worse."""
    found = logging.getLogger("tiphys.slack")
    found.setLevel(logging.WARNING)
    if not found.filters:
        found.addFilter(_OneLine())
    return found


def bolt_app(
    workspace: Workspace, buttons: Buttons, commands: Commands, signing_secret: str
) -> AsyncApp:
    """Make the app; an empty secret is for Socket Mode, which has nothing to sign."""

    app = AsyncApp(
        name="tiphys",
        logger=quiet_logger(),
        client=workspace.client,
        signing_secret=signing_secret,
        request_verification_enabled=bool(signing_secret),
        before_authorize=_only(workspace),
    )
    _clicks(app, buttons)
    _forms_and_commands(app, buttons, commands)
    return app


def _only(workspace: Workspace) -> Callable[..., Awaitable[BoltResponse | None]]:
    async def of_our_workspace(
        body: Body, next_: Callable[[], Awaitable[None]]
    ) -> BoltResponse | None:
        try:
            us = await workspace.who()
        except WorldRefusedError as error:
            log.warning("nobody can say which workspace is ours", why=str(error))
            return BoltResponse(status=503, body="")
        if teams(body) != {us.team_id}:
            log.warning("a request from another workspace was dropped", teams=sorted(teams(body)))
            return BoltResponse(status=200, body="")
        await next_()
        return None

    return of_our_workspace


def teams(body: Body) -> set[str]:
    """Give every workspace that a payload names, its author's among them."""
    found = [body.get("team_id"), (body.get("team") or {}).get("id")]
    author = body.get("user")
    found.append(author.get("team_id") if isinstance(author, dict) else None)
    return {str(team) for team in found if team}


def _clicks(app: AsyncApp, buttons: Buttons) -> None:
    async def approve(ack: Ack, body: Body) -> None:
        await ack()
        await _safely(buttons.approve(Click.of(body)))

    async def explain(ack: Ack, body: Body) -> None:
        await ack()
        await _safely(buttons.explain(Click.of(body)))

    async def acknowledge(ack: Ack, body: Body) -> None:
        await ack()
        await _safely(buttons.acknowledge(Click.of(body)))

    async def ask_to_deny(ack: Ack, body: Body) -> None:
        await ack()
        await _safely(buttons.ask_why(Click.of(body), Button.DENY))

    async def ask_to_break_glass(ack: Ack, body: Body) -> None:
        await ack()
        await _safely(buttons.ask_why(Click.of(body), Button.BREAK_GLASS))

    async def ask_to_undo(ack: Ack, body: Body) -> None:
        await ack()
        await _safely(buttons.ask_why(Click.of(body), Button.UNDO))

    async def chart(ack: Ack) -> None:
        await ack()

    clicked = {
        Button.APPROVE: approve,
        Button.BREAK_GLASS: ask_to_break_glass,
        Button.DENY: ask_to_deny,
        Button.EXPLAIN: explain,
        Button.UNDO: ask_to_undo,
        Button.ACKNOWLEDGE: acknowledge,
        Button.CHART: chart,
    }
    for button, listener in clicked.items():
        app.action(button.value)(listener)


def _forms_and_commands(app: AsyncApp, buttons: Buttons, commands: Commands) -> None:
    sent = {
        Button.BREAK_GLASS.value: buttons.break_glass,
        Button.DENY.value: buttons.deny,
        Button.UNDO.value: buttons.undo,
    }

    async def form(ack: Ack, body: Body) -> None:
        click, reason = Click.of_form(body)
        if not reason:
            await ack(response_action="errors", errors={"reason": "Say why."})
            return
        await ack()
        await _safely(sent[body["view"]["callback_id"]](click, reason))

    async def command(ack: Ack, body: Body) -> None:
        await ack()
        typed = Typed(str(body["user_id"]), str(body.get("text", "")), str(body["response_url"]))
        await _safely(commands.run(typed))

    for button in sent:
        app.view(button)(form)
    app.command(COMMAND)(command)


async def _safely(work: Awaitable[None]) -> None:
    """Do it; where its author cannot be told, the log is."""
    try:
        await work
    except WorldRefusedError as error:
        log.warning("somebody in Slack was not told what came of it", why=str(error))
